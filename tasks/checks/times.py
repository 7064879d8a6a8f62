"""Checks of time itself: what ages readers get, missed schedules, dead and slow runs, clocks, and the checks' own completeness."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from tasks import lake
from tasks.checks.evidence import Check, Evidence
from tasks.database import connect, one, rows
from tasks.findings import CheckClass, Disposition, Finding, Verdict
from tasks.freshness import describe
from tasks.runs import Trigger

# Offset of the host's clock from that of the database, in seconds: hosts that keep time by NTP stay within
# milliseconds of each other, and a minute is no drift but a wrong setting.
OFFSET_WARN, OFFSET_FAIL = 2.0, 60.0
# A run counts as slow beyond this multiple of the median of the last runs of its mode, with at least so many of them,
# and not before a minute: a run of a second that takes four met a busy machine.
SLOW_RUNS, SLOW_AFTER, LEAST_RUNS = 3.0, timedelta(minutes=1), 3


def rows_age(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R1: from when what is published will be aging, stale and expired; stored with the run, so that it can be judged again."""
    promise, now = evidence.promise, evidence.snapshot.clock_at
    if promise is None:
        raise LookupError("nothing was promised")
    limits = (promise.aging_at, promise.stale_at, promise.expires_at)
    aging, stale, expired = (f"{limit.astimezone(UTC):%Y-%m-%d %H:%M}" for limit in limits)
    verdict = Verdict.FAIL if now >= promise.stale_at else Verdict.WARN if now >= promise.aging_at else Verdict.PASS
    age = now - promise.data_as_of
    yield check.finding(
        verdict,
        f"data is {describe(age)} old; aging from {aging}, stale from {stale}, expired from {expired} UTC",
        observed=age.total_seconds(),
        warn_limit=(promise.aging_at - promise.data_as_of).total_seconds(),
        fail_limit=(promise.stale_at - promise.data_as_of).total_seconds(),
        unit="s",
        warn_until=promise.aging_at,
        fail_until=promise.stale_at,
        evidence={"data_as_of": promise.data_as_of.isoformat(), "expires_at": promise.expires_at.isoformat()},
    )


def schedule_missed(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """T1: has a scheduled tick and its grace passed without a scheduled publication?"""
    now = evidence.snapshot.clock_at
    by_schedule = evidence.run is not None and evidence.run.trigger in {Trigger.SCHEDULED, Trigger.RECOVERY}
    with connect(evidence.url, "prescore check") as connection:
        plans = rows(connection, "list_schedules", pipeline=evidence.pipeline.name)
    for plan in plans:
        late = now - plan.next_tick
        due = f"{plan.next_tick.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        facts = {"subject": plan.mode, "fail_limit": plan.grace.total_seconds(), "unit": "s"}
        if late < plan.grace:
            yield check.finding(Verdict.PASS, f"the next one is due at {due}", **facts)
            continue
        reason = (
            f"no scheduled {plan.mode} run published since {due}, {describe(late)} ago; grace {describe(plan.grace)}"
        )
        if by_schedule:
            yield check.finding(Verdict.FAIL, reason, **facts, observed=late.total_seconds())
        else:
            reason += "; this run was not started by the schedule, and does not make up for it"
            yield check.finding(Verdict.WARN, reason, **facts, observed=late.total_seconds())


def archive_owed(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """T5: is what is served in the lake, where [archive] says that it has to be?"""
    if evidence.pipeline.archive is None or evidence.served is None:
        return
    generation_id = evidence.served.generation_id
    with connect(evidence.url, "prescore check") as connection:
        owed = lake.missing(connection, evidence.pipeline)
        known = one(connection, "find_archive", pipeline=evidence.pipeline.name, generation_id=generation_id)
    if owed is None:
        yield check.finding(Verdict.PASS, f"generation {generation_id} is archived", n=known.rows)
        return
    why = known.problem if known is not None and known.problem else "the run that published it did not come to it"
    yield check.finding(Verdict.WARN, f"generation {generation_id}, which is served, is not archived: {why}")


def runs_hung(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """T2: did runs die since the last one that ended, and is this one far slower than the others of its mode?"""
    run, selection = evidence.run, evidence.selection
    if run is None or selection is None:
        raise LookupError("there is no run")
    with connect(evidence.url, "prescore check") as connection:
        values = {"pipeline": evidence.pipeline.name, "run_id": run.run_id, "mode": selection.mode.value}
        found = one(connection, "compare_run", **values)
    elapsed, usual = timedelta(seconds=found.elapsed), timedelta(seconds=found.median or 0)
    limit = max(SLOW_AFTER, SLOW_RUNS * usual)
    facts = {
        "observed": found.elapsed,
        "warn_limit": limit.total_seconds() if found.runs >= LEAST_RUNS else None,
        "unit": "s",
        "n": found.runs,
        "evidence": {"died": found.died, "median_seconds": found.median},
    }
    told = []
    if found.died:
        at = f"{found.last_sign.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        told.append(f"{found.died} runs died since the last one that ended, the last sign of life was at {at}")
    if found.runs >= LEAST_RUNS and elapsed > limit:
        told.append(f"this run takes {describe(elapsed)}, the last {found.runs} took {describe(usual)} (median)")
    if told:
        yield check.finding(Verdict.WARN, "; ".join(told), **facts)
    else:
        yield check.finding(Verdict.PASS, f"no run died since the last one; {describe(elapsed)} so far", **facts)


def clock_offset(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """T3: how far is the host's clock from the database's? Every instant of a run is the database's, so this only tells.

    Compared with the real clock of the server, whatever prescore.clock() returns; the time the question took is no offset.
    """
    with connect(evidence.url, "prescore check") as connection:
        offset, ahead = measure_offset(connection)
    verdict = Verdict.FAIL if offset >= OFFSET_FAIL else Verdict.WARN if offset >= OFFSET_WARN else Verdict.PASS
    side = "ahead of" if ahead else "behind"
    length = describe(timedelta(seconds=offset)) if offset >= 1 else f"{offset * 1000:.0f} ms"
    yield check.finding(
        verdict,
        f"this host's clock is {length} {side} the database's; all times are the database's",
        observed=offset,
        warn_limit=OFFSET_WARN,
        fail_limit=OFFSET_FAIL,
        unit="s",
    )


def measure_offset(connection: sa.Connection) -> tuple[float, bool]:
    """Return how many seconds this host's clock is at least from the server's, and whether it is ahead."""
    asked = host_clock()
    answered: datetime = one(connection, "read_real_clock").now
    spent = host_clock() - asked
    host = datetime.fromtimestamp(asked + spent / 2, UTC)
    return max(0.0, abs((host - answered).total_seconds()) - spent / 2), host > answered


def host_clock() -> float:
    """Return the host's clock in seconds since 1970; nothing but measure_offset reads it."""
    return time.time()


def checks_complete(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """T4: did every check answer, is there a profile to compare with, and is the contract kept that all was judged by?

    What is missing is unknown, with the class and the consequence of the check that did not answer.
    """
    from tasks.checks import CHECKS

    answered = {finding.check_id for finding in evidence.findings} | {check.id}
    missing = [other for other in CHECKS if other.id not in answered]
    for other in missing:
        consequence = {"class_": other.class_, "on_fail": other.on_fail}
        yield check.finding(Verdict.UNKNOWN, f"{other.id} has no result in this run", subject=other.id, **consequence)
    if not missing:
        yield check.finding(Verdict.PASS, f"all {len(CHECKS)} checks have a result", n=len(CHECKS))
    yield _profile(evidence, check)
    yield _contract(evidence, check)


def _profile(evidence: Evidence, check: Check) -> Finding:
    bundle = evidence.scorer.bundle
    known = set(bundle.profile.get("features", {}))
    without = [column.name for column in bundle.features if column.name not in known]
    gauge = {"class_": CheckClass.GAUGE, "on_fail": Disposition.PUBLISH_FLAGGED, "subject": "profile"}
    if without:
        reason = (
            f"the model keeps no profile of {len(without)} of its features: {', '.join(without[:5])}; train it again"
        )
        return check.finding(Verdict.UNKNOWN, reason, **gauge, n=len(bundle.features))
    reason = f"the model keeps a profile of its {len(known)} features"
    return check.finding(Verdict.PASS, reason, **gauge, n=len(bundle.features))


def _contract(evidence: Evidence, check: Check) -> Finding:
    run = evidence.run
    with connect(evidence.url, "prescore check") as connection:
        kept = run is not None and one(connection, "find_contract", run_id=run.run_id) is not None
    if kept:
        return check.finding(Verdict.PASS, "the contract of this run is kept by its digest", subject="contract")
    reason = "prescore.contracts does not hold the contract of this run"
    return check.finding(Verdict.UNKNOWN, reason, subject="contract")
