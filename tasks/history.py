"""The latest runs of a pipeline as they are stored: how each ended, what its checks found, what its columns looked like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tasks.database import rows


@dataclass(frozen=True, kw_only=True)
class StoredFinding:
    """What a check found in a run, as it is stored."""

    run_id: int
    check_id: str
    code: str
    class_: str
    subject: str
    #: What the check answered.
    verdict: str
    #: What that counts as.
    effective: str
    disposition: str | None
    waived: bool
    followups: tuple[str, ...]
    observed: float | None
    warn_limit: float | None
    fail_limit: float | None
    unit: str | None
    n: int | None
    warn_until: datetime | None
    fail_until: datetime | None
    reason: str
    evidence: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Id and subject, as people see them."""
        return f"{self.check_id} {self.subject}".strip()

    @classmethod
    def from_row(cls, row: Any) -> StoredFinding:
        """Return the finding of a row of list_findings.sql."""
        values = dict(row._mapping)
        values["class_"] = values.pop("class")
        values["followups"] = tuple(values["followups"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run as it is stored, with its findings."""

    run_id: int
    pipeline: str
    status: str
    trigger: str
    mode: str
    as_of: datetime | None
    #: prescore.clock() when it was opened.
    clock_at: datetime
    started_at: datetime
    ended_at: datetime | None
    generation_id: int | None
    model: str | None
    model_version: int | None
    contract_digest: str
    population: int | None
    scored: int | None
    unchanged: int | None
    rejected: int | None
    new: int | None
    changed: int | None
    due: int | None
    gone: int | None
    message: str | None
    findings: tuple[StoredFinding, ...] = field(default=(), repr=False)

    @property
    def published(self) -> bool:
        """Whether readers got to see it."""
        return self.status == "published"

    @classmethod
    def from_row(cls, row: Any, findings: Iterable[StoredFinding] = ()) -> PastRun:
        """Return the run of a row of list_recent_runs.sql."""
        values = {each.name: getattr(row, each.name) for each in fields(cls) if each.name != "findings"}
        return cls(**values, findings=tuple(findings))

    def found(self, check_id: str) -> dict[str, StoredFinding]:
        """Return what one check found, by its subject."""
        return {finding.subject: finding for finding in self.findings if finding.check_id == check_id}


def read_recent(connection: sa.Connection, pipeline: str, generations: int) -> list[PastRun]:
    """Return the runs of the last ``generations`` publications and as many full runs, oldest first."""
    found = rows(connection, "list_recent_runs", pipeline=pipeline, generations=generations)
    findings = read_findings(connection, [row.run_id for row in found])
    return [PastRun.from_row(row, findings.get(row.run_id, ())) for row in found]


def read_findings(connection: sa.Connection, run_ids: list[int]) -> dict[int, list[StoredFinding]]:
    """Return what the checks of some runs found, by run, the gravest first."""
    found: dict[int, list[StoredFinding]] = {}
    for row in rows(connection, "list_findings", run_ids=run_ids):
        found.setdefault(row.run_id, []).append(StoredFinding.from_row(row))
    return found
