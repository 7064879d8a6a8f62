"""What several commands share: arguments and options, and how their words are read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from tasks.errors import UsageError
from tasks.settings import Settings, read_settings

# Entities that a person is shown.
SHOWN_ENTITIES = 5

PipelineName = Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of the pipeline folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="VALUE",
        help="An entity to look at; once for each key column, entity after entity.",
    ),
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="T", help="Look at the data from this instant (ISO 8601, UTC unless it says otherwise)."
    ),
]


def settings_now() -> Settings:
    """Return the settings, read when the command is called."""
    return read_settings()


def instant(text: str | None) -> datetime | None:
    """Return the instant that an option gives in ISO 8601; without a zone it is UTC. UsageError when it is none."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no instant. Nothing was started. Write it as 2026-03-01T03:00:00+00:00 (without a zone it is UTC)."
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def duration(option: str, text: str | None) -> timedelta:
    """Return the duration that an option gives, as pipeline.toml writes it; zero without one. UsageError when it is none."""
    from tasks.fields import parse_duration

    if text is None:
        return timedelta(0)
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}. Nothing was started.") from None


def refuse_together(option: str, **others: bool) -> None:
    """Raise UsageError when any of the others was given as well."""
    given = [name for name, is_given in others.items() if is_given]
    if given:
        raise UsageError(
            f"{option} and {' and '.join(given)} cannot be meant together. Nothing was started. Leave one of them out."
        )
