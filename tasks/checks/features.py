"""Checks of the features: how old what they were made of is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from math import ceil
from typing import Any

from tasks.checks.evidence import Check, Evidence
from tasks.database import connect, one
from tasks.declaration import FeatureTtl
from tasks.feature_ages import Ages
from tasks.freshness import Finding, Verdict, describe
from tasks.population import Mode

# More instants after as_of than this share are worth a warning: the query looks into the future.
AHEAD_SHARE = 0.001


def features_age(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S4: which share of the entities has features made of what is older than their ttl?

    A full run judges. An incremental run has seen only what changed, so that it keeps the instants that the last full
    one found.
    """
    declared = evidence.pipeline.features.ttl
    if not declared:
        yield check.finding(Verdict.SKIPPED, "no [features.ttl] is declared")
        return
    if evidence.tally is None or evidence.selection is None:
        raise LookupError("nothing was scored")
    counter = evidence.tally.ages
    for name, ttl in declared.items():
        ages = Ages() if counter is None else counter.columns[name]
        if evidence.selection.mode is Mode.INCREMENTAL:
            yield _as_before(evidence, check, name)
        elif not ages.rows:
            yield check.finding(Verdict.SKIPPED, "nothing was scored", subject=name, n=0)
        else:
            yield _judged(check, name, ttl, ages, evidence.snapshot.as_of)


def _judged(check: Check, name: str, ttl: FeatureTtl, ages: Ages, as_of: datetime) -> Finding:
    facts = {"subject": name, "n": ages.rows, "evidence": _counts(ages)}
    if not ages.known:
        return check.finding(Verdict.UNKNOWN, f"no entity has a {name}; age unknown", **facts)
    share, (warn, fail) = ages.share(ages.beyond), ttl.share
    verdict = Verdict.PASS
    if ages.beyond and share >= fail:
        verdict = Verdict.FAIL
    elif (ages.beyond and share >= warn) or ages.share(ages.ahead) > AHEAD_SHARE:
        verdict = Verdict.WARN
    return check.finding(
        verdict,
        _reason(name, ttl, ages),
        observed=share,
        warn_limit=warn,
        fail_limit=fail,
        unit="share",
        warn_until=_until(ages, ttl, warn, as_of),
        fail_until=_until(ages, ttl, fail, as_of),
        **facts,
    )


def _reason(name: str, ttl: FeatureTtl, ages: Ages) -> str:
    p99 = ages.percentile(0.99)
    assert p99 is not None
    told = (
        f"{ages.share(ages.beyond):.1%} of {ages.rows:,} entities are {describe(ttl.ttl)} or older (99 % are at most "
        f"{describe(p99)}), limits {ttl.share[0]:.1%} / {ttl.share[1]:.1%}"
    )
    if ages.nulls:
        told += f"; {ages.share(ages.nulls):.1%} have no {name}"
    if ttl.features:
        told += f"; {ages.share(ages.cut):.1%} have lost {', '.join(ttl.features)} to it"
    if ages.ahead:
        told += f"; {ages.share(ages.ahead):.1%} have one later than as_of"
    return told


def _until(ages: Ages, ttl: FeatureTtl, share: float, as_of: datetime) -> datetime | None:
    """Return from when so large a share will be too old if nothing is refreshed; None when there is never so much."""
    age = ages.oldest(max(1, ceil(share * ages.rows)))
    return None if age is None else as_of + ttl.ttl - age


def _as_before(evidence: Evidence, check: Check, name: str) -> Finding:
    reason = "what changed is no sample of all entities; full runs judge it"
    with connect(evidence.url, "prescore check") as connection:
        row = one(connection, "find_last_instants", pipeline=evidence.pipeline.name, check_id=check.id, subject=name)
    kept: dict[str, Any] = {} if row is None else {"warn_until": row.warn_until, "fail_until": row.fail_until}
    return check.finding(Verdict.SKIPPED, reason, subject=name, **kept)


def _counts(ages: Ages) -> dict[str, Any]:
    p99 = ages.percentile(0.99)
    return {
        "nulls": ages.nulls,
        "ahead": ages.ahead,
        "beyond": ages.beyond,
        "cut": ages.cut,
        "p99_seconds": None if p99 is None else round(p99.total_seconds()),
    }
