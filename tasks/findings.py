"""Findings: what the checks of a run answered, what each answer counts as, and what follows from it alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

import sqlalchemy as sa

from tasks.database import load_query

# Fields of a finding that are stored under another name, or follow from others.
_NOT_STORED = frozenset({"class_", "on_fail", "small_sample", "settled", "note", "waived_until"})


class Verdict(StrEnum):
    """The answer to a check. Unknown is never a pass."""

    #: As promised.
    PASS = "pass"
    #: Beyond the first limit.
    WARN = "warn"
    #: Beyond the second limit.
    FAIL = "fail"
    #: Could not be answered.
    UNKNOWN = "unknown"
    #: Does not apply here; neutral, always recorded.
    SKIPPED = "skipped"


class CheckClass(StrEnum):
    """What kind of question a check asks."""

    #: May block a publication.
    GUARD = "guard"
    #: Flags one.
    GAUGE = "gauge"
    #: Bounds the time until which predictions are good.
    CLOCK = "clock"


class Disposition(IntEnum):
    """What follows from the verdicts; the maximum of all findings holds."""

    #: Publish.
    PUBLISH = 0
    #: Publish, and tell readers what was found.
    PUBLISH_FLAGGED = 1
    #: Keep serving the last good publication.
    HOLD = 2
    #: End the run: its predictions cannot be right.
    ABORT = 3


class Followup(StrEnum):
    """What has to happen next."""

    #: A source has to be loaded.
    REFRESH_SOURCE = "refresh_source"
    #: Entities have to be scored again.
    RESCORE = "rescore"
    #: A new version of the model has to be trained; promoting it is a decision of its own.
    RETRAIN = "retrain"
    #: Somebody has to find out why.
    INVESTIGATE = "investigate"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found about one subject."""

    check_id: str
    code: str
    class_: CheckClass
    verdict: Verdict
    reason: str
    on_fail: Disposition = Disposition.HOLD
    subject: str = ""
    observed: float | None = None
    warn_limit: float | None = None
    fail_limit: float | None = None
    unit: str | None = None
    n: int | None = None
    warn_until: datetime | None = None
    fail_until: datetime | None = None
    #: What has to happen next if this is a failure.
    followups: frozenset[Followup] = frozenset()
    #: Unknown because there are too few rows, which is nobody's mistake.
    small_sample: bool = False
    #: Further numbers behind the verdict; never values of the data.
    evidence: Mapping[str, Any] = field(default_factory=dict)
    #: What the verdict counts as once history, the declared meaning of unknown and escalation were considered.
    settled: Verdict | None = None
    #: Why it counts as something else than it is, in a few words.
    note: str = ""
    #: A person waived the verdict for this run; it is still what it is.
    waived: bool = False
    #: Until when predictions that rest on the waiver are no worse than aging.
    waived_until: datetime | None = None

    @property
    def effective(self) -> Verdict:
        """What the verdict counts as; before it was settled, a guard or clock that cannot be answered fails, a gauge warns."""
        if self.settled is not None:
            return self.settled
        if self.verdict is not Verdict.UNKNOWN:
            return self.verdict
        return Verdict.WARN if self.class_ is CheckClass.GAUGE else Verdict.FAIL

    @property
    def disposition(self) -> Disposition:
        """What this finding alone would have follow; a waived one flags, whatever it is."""
        if self.waived:
            return Disposition.PUBLISH_FLAGGED
        if self.effective is Verdict.FAIL:
            return self.on_fail
        if self.effective is Verdict.WARN and not self.bounds_time:
            return Disposition.PUBLISH_FLAGGED
        return Disposition.PUBLISH

    @property
    def bounds_time(self) -> bool:
        """Whether the instants of the finding say all that readers need: a clock that could be read."""
        return self.class_ is CheckClass.CLOCK and self.verdict is not Verdict.UNKNOWN

    @property
    def alarming(self) -> bool:
        """Whether people are told: it counts as a warning or a failure."""
        return self.effective in {Verdict.WARN, Verdict.FAIL}

    @property
    def due(self) -> frozenset[Followup]:
        """What has to happen next: something only where it counts as a failure."""
        return self.followups if self.effective is Verdict.FAIL else frozenset()

    @property
    def for_readers(self) -> bool:
        """Whether readers of predictions are told; what changes nothing about a publication is for those who run it."""
        return self.alarming and (self.waived or self.on_fail is not Disposition.PUBLISH)

    @property
    def noteworthy(self) -> bool:
        """Whether it is shown: it alarms, was waived, or is not what everybody hopes for."""
        return self.alarming or self.waived or self.verdict not in {Verdict.PASS, Verdict.SKIPPED}

    @property
    def label(self) -> str:
        """Id and subject, as people see them."""
        return f"{self.check_id} {self.subject}".strip()

    @property
    def told(self) -> str:
        """The reason as readers get it: a stable code, the check, the numbers, and what it counts as where that differs."""
        return f"{self.code} {self.label}: {self.reason}" + (f" ({self.note})" if self.note else "")

    def as_json(self) -> dict[str, Any]:
        """Return what programs are told: what was answered, what it counts as, and what has to happen next."""
        return {
            "check": self.label,
            "code": self.code,
            "verdict": self.verdict.value,
            "effective": self.effective.value,
            "waived": self.waived,
            "followups": sorted(followup.value for followup in self.due),
            "reason": self.reason,
            "note": self.note,
        }


def record(connection: sa.Connection, run_id: int, pipeline: str, findings: Iterable[Finding]) -> None:
    """Store findings of a run in one statement, and commit; a check that runs again in the same run replaces its finding."""
    # By check and subject: what is found last counts.
    stored = {(finding.check_id, finding.subject): _stored(run_id, pipeline, finding) for finding in findings}
    if stored:
        told = json.dumps(list(stored.values()), default=_as_text)
        connection.execute(sa.text(load_query("insert_checks")), {"findings": told})
    connection.commit()


def _stored(run_id: int, pipeline: str, finding: Finding) -> dict[str, Any]:
    values = {name: _finite(value) for name, value in vars(finding).items() if name not in _NOT_STORED}
    return values | {
        "run_id": run_id,
        "pipeline": pipeline,
        "class": finding.class_.value,
        "verdict": finding.verdict.value,
        "effective": finding.effective.value,
        "disposition": finding.disposition.name.lower(),
        "followups": sorted(followup.value for followup in finding.due),
        "evidence": _evidence(finding),
    }


def _finite(value: Any) -> Any:
    """Return a value as JSON may hold it: a number that is not finite as text, which PostgreSQL reads as that number."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _as_text(value: Any) -> str:
    """Return an instant as JSON holds it."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"no JSON for {type(value).__name__}")


def _evidence(finding: Finding) -> dict[str, Any]:
    """Return the evidence with what the next runs have to know of the verdict."""
    beside: dict[str, Any] = {"small_sample": True} if finding.small_sample else {}
    if finding.note:
        beside["note"] = finding.note
    return {**finding.evidence, **beside}
