"""What is found of an installation: what, since when, what it means for readers, what to do, and whether prescore can do it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """One thing that is wrong with an installation, or worth knowing of it."""

    #: A word that stays, such as ``transactions.long``.
    code: str
    #: What was found, as a sentence with the numbers.
    what: str
    #: What it means for those who read predictions, as a sentence.
    means: str
    #: What to do, as a sentence.
    remedy: str
    #: Since when, where that is known.
    since: datetime | None = None
    #: The pipeline that it is about; None for the installation.
    pipeline: str | None = None
    #: Whether it breaks something, or will; else it is only worth knowing.
    wrong: bool = True
    #: Whether `prescore doctor --fix` mends it.
    fixable: bool = False
    #: What the remedy needs to know: a table, an index, a storage.
    target: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        values = asdict(self)
        values["since"] = None if self.since is None else self.since.astimezone(UTC).isoformat()
        return values
