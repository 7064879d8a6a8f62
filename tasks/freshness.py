"""Freshness: verdicts, what follows from them, and the promise that a publication makes to its readers.

Disposition is a maximum and times are a minimum over all findings, so that their order cannot matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any

import sqlalchemy as sa

from tasks.database import load_query
from tasks.pipeline import Pipeline

# Fields of a finding that are stored under another name, or follow from others.
_NOT_STORED = frozenset({"class_", "on_fail", "small_sample", "settled"})


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
    #: A person waived the verdict for this run; it is still what it is.
    waived: bool = False

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
        """What this finding alone would have follow."""
        if self.effective is Verdict.FAIL:
            return self.on_fail
        if self.effective is Verdict.WARN and self.class_ is not CheckClass.CLOCK:
            return Disposition.PUBLISH_FLAGGED
        return Disposition.PUBLISH

    @property
    def label(self) -> str:
        """Id and subject, as people see them."""
        return f"{self.check_id} {self.subject}".strip()


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a publication promises: until when it is good, and what was found about it."""

    data_as_of: datetime
    aging_at: datetime
    stale_at: datetime
    expires_at: datetime
    aging_after: timedelta
    stale_after: timedelta
    serve_stale_for: timedelta
    model_aging_at: datetime
    model_stale_at: datetime
    time_invariant: bool
    serve_expired: bool
    verdict: Verdict
    reasons: tuple[str, ...]
    model: str
    model_version: int

    def columns(self) -> dict[str, Any]:
        """Return the promise as columns of prescore.generations."""
        values = dict(vars(self))
        values["verdict"] = self.verdict.value
        values["reasons"] = list(self.reasons)
        for name in ("aging_after", "stale_after", "serve_stale_for"):
            values[name] = without_days(values[name])
        return values


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What follows from all findings of a run."""

    disposition: Disposition
    findings: tuple[Finding, ...]
    promise: Promise
    #: Findings that keep it from being published.
    blocking: tuple[Finding, ...]

    @property
    def because(self) -> str:
        """Why it is not published, in a sentence; empty otherwise."""
        return "; ".join(f"{finding.label}: {finding.reason}" for finding in self.blocking)


def judge(
    pipeline: Pipeline,
    findings: Iterable[Finding],
    *,
    as_of: datetime,
    now: datetime,
    train_data_until: datetime,
    model_version: int,
    data_as_of: datetime | None,
    served_expires_at: datetime | None,
) -> Judgement:
    """Compose findings into a disposition and a promise.

    A clock that failed holds only while holding helps: when the candidate would expire later than what is served, or
    nothing is served, it is published flagged instead (hold inversion).
    """
    ordered = tuple(sorted(findings, key=lambda finding: (finding.check_id, finding.subject)))
    promise = _promise(
        pipeline,
        ordered,
        data_as_of=data_as_of or as_of,
        train_data_until=train_data_until,
        model_version=model_version,
    )
    blocking = [finding for finding in ordered if finding.disposition >= Disposition.HOLD]
    answered = [f for f in blocking if f.class_ is not CheckClass.CLOCK or f.verdict is Verdict.UNKNOWN]
    clocks = [finding for finding in blocking if finding not in answered]
    better = served_expires_at is None or served_expires_at <= now or promise.expires_at > served_expires_at
    if clocks and better:
        blocking = answered
    disposition = max((finding.disposition for finding in blocking), default=Disposition.PUBLISH)
    if disposition is Disposition.PUBLISH and promise.reasons:
        disposition = Disposition.PUBLISH_FLAGGED
    return Judgement(disposition=disposition, findings=ordered, promise=promise, blocking=tuple(blocking))


def record(connection: sa.Connection, run_id: int, pipeline: str, findings: Sequence[Finding]) -> None:
    """Store findings of a run, and commit; a check that runs again in the same run replaces its finding."""
    statement = sa.text(load_query("insert_check"))
    for finding in findings:
        values = {name: value for name, value in vars(finding).items() if name not in _NOT_STORED}
        values |= {
            "run_id": run_id,
            "pipeline": pipeline,
            "class": finding.class_.value,
            "verdict": finding.verdict.value,
            "effective": finding.effective.value,
            "disposition": finding.disposition.name.lower(),
            "followups": sorted(followup.value for followup in finding.followups),
            "evidence": json.dumps(dict(finding.evidence)),
        }
        connection.execute(statement, values)
    connection.commit()


def without_days(duration: timedelta) -> str:
    """Return a duration as an SQL interval of seconds: elapsed time, never calendar days."""
    return f"{duration.total_seconds():f} seconds"


def describe(duration: timedelta) -> str:
    """Return a duration as people say it: 26 h, 45 min, 3.5 d."""
    seconds = duration.total_seconds()
    for size, unit in ((2 * 86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= size:
            value = seconds / (86400 if unit == "d" else size)
            return f"{value:.1f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{seconds:.0f} s"


def _promise(
    pipeline: Pipeline,
    findings: Sequence[Finding],
    *,
    data_as_of: datetime,
    train_data_until: datetime,
    model_version: int,
) -> Promise:
    serve = pipeline.serve
    clocks = [f for f in findings if f.class_ is CheckClass.CLOCK and f.check_id != "model.age"]
    stale_at = min([data_as_of + serve.stale_after, *(f.fail_until for f in clocks if f.fail_until)])
    aging_at = min([stale_at, data_as_of + serve.aging_after, *(f.warn_until for f in clocks if f.warn_until)])
    stale_at, aging_at = max(stale_at, data_as_of), max(aging_at, data_as_of)
    told = [f for f in findings if f.effective in {Verdict.WARN, Verdict.FAIL}]
    flagged = [f for f in told if f.class_ is not CheckClass.CLOCK]
    worst = Verdict.PASS
    if flagged:
        worst = Verdict.FAIL if any(f.effective is Verdict.FAIL for f in flagged) else Verdict.WARN
    return Promise(
        data_as_of=data_as_of,
        aging_at=aging_at,
        stale_at=stale_at,
        expires_at=stale_at + serve.serve_stale_for,
        aging_after=serve.aging_after,
        stale_after=serve.stale_after,
        serve_stale_for=serve.serve_stale_for,
        model_aging_at=train_data_until + pipeline.model.warn_age,
        model_stale_at=train_data_until + pipeline.model.fail_age,
        time_invariant=pipeline.features.time_invariant,
        serve_expired=serve.on_expired == "serve",
        verdict=worst,
        reasons=tuple(f"{f.label}: {f.reason}" for f in told),
        model=pipeline.model.name,
        model_version=model_version,
    )
