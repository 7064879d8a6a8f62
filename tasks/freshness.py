"""Freshness: the promise that a publication makes to its readers, and whether a run may make it.

Disposition is a maximum and times are a minimum over all findings, so that their order cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tasks.findings import CheckClass, Disposition, Finding, Followup, Verdict, record
from tasks.pipeline import Pipeline

__all__ = [
    "CheckClass",
    "Disposition",
    "Finding",
    "Followup",
    "Judgement",
    "Promise",
    "Verdict",
    "describe",
    "judge",
    "record",
    "without_days",
]

#: The check whose limits every lookup compares with the clock itself.
MODEL_AGE = "model.age"


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
    #: Findings that would have held it, had what is served been any better.
    overruled: tuple[Finding, ...] = ()

    @property
    def because(self) -> str:
        """Why it is not published, in a sentence; empty otherwise."""
        return "; ".join(f"{finding.label}: {finding.reason}" for finding in self.blocking)

    @property
    def followups(self) -> frozenset[Followup]:
        """What has to happen next: the union over all findings."""
        return frozenset().union(*(finding.due for finding in self.findings))


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
    """Compose settled findings into a disposition (their maximum) and a promise (the minimum of their times).

    A run is held only while holding helps (hold inversion). It is published flagged instead when no guard keeps it
    back, and what is served has expired, or nothing is; for clocks also when the candidate would last longer than what is
    served. An age that is unknown is never overruled, and neither is an abort.
    """
    ordered = tuple(sorted(findings, key=lambda finding: (finding.check_id, finding.subject)))
    promise = _promise(
        pipeline,
        ordered,
        data_as_of=data_as_of or as_of,
        train_data_until=train_data_until,
        model_version=model_version,
    )
    blocking = tuple(finding for finding in ordered if finding.disposition >= Disposition.HOLD)
    gone = served_expires_at is None or served_expires_at <= now
    lasting = served_expires_at is None or promise.expires_at > served_expires_at
    overruled: tuple[Finding, ...] = ()
    if all(_helps_nobody(finding, gone=gone, lasting=lasting) for finding in blocking):
        blocking, overruled = (), blocking
    disposition = max((finding.disposition for finding in blocking), default=Disposition.PUBLISH)
    if disposition is Disposition.PUBLISH and promise.reasons:
        disposition = Disposition.PUBLISH_FLAGGED
    return Judgement(disposition=disposition, findings=ordered, promise=promise, blocking=blocking, overruled=overruled)


def _helps_nobody(finding: Finding, *, gone: bool, lasting: bool) -> bool:
    """Say whether holding for this finding leaves readers with nothing better."""
    if finding.disposition is not Disposition.HOLD:
        return False
    if finding.class_ is CheckClass.GAUGE:
        return gone
    return finding.bounds_time and (gone or lasting)


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
    serve, model_stale_at = pipeline.serve, train_data_until + pipeline.model.fail_age
    waived = [finding.waived_until for finding in findings if finding.waived and finding.waived_until]
    # The age of the model lowers the state by itself; see the limits of the model below.
    clocks = [f for f in findings if f.class_ is CheckClass.CLOCK and f.check_id != MODEL_AGE]
    stale_at = min([data_as_of + serve.stale_after, *(f.fail_until for f in clocks if f.fail_until), *waived])
    aging_at = min([stale_at, data_as_of + serve.aging_after, *(f.warn_until for f in clocks if f.warn_until)])
    stale_at, aging_at = max(stale_at, data_as_of), max(aging_at, data_as_of)
    if any(finding.waived for finding in findings if finding.check_id == MODEL_AGE):
        model_stale_at = max([model_stale_at, *waived])
    told = [finding for finding in findings if finding.for_readers]
    flagged = {finding.effective for finding in told if finding.waived or not finding.bounds_time}
    return Promise(
        data_as_of=data_as_of,
        aging_at=aging_at,
        stale_at=stale_at,
        expires_at=stale_at + serve.serve_stale_for,
        aging_after=serve.aging_after,
        stale_after=serve.stale_after,
        serve_stale_for=serve.serve_stale_for,
        model_aging_at=min(model_stale_at, train_data_until + pipeline.model.warn_age),
        model_stale_at=model_stale_at,
        time_invariant=pipeline.features.certified,
        serve_expired=serve.on_expired == "serve",
        verdict=next((v for v in (Verdict.FAIL, Verdict.WARN) if v in flagged), Verdict.PASS),
        reasons=tuple(finding.told for finding in told),
        model=pipeline.model.name,
        model_version=model_version,
    )
