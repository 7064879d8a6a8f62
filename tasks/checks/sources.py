"""Checks of the sources: how new they are, and whether their dates can be believed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from tasks.checks.evidence import Check, Evidence
from tasks.database import literal, load_query, quote
from tasks.freshness import Finding, Verdict, describe
from tasks.pipeline import Source

# A clock may be this far off before a row counts as one from the future.
SKEW = timedelta(minutes=5)
# More rows of a source without a date than this share are worth a warning.
UNDATED_SHARE = 0.001


def source_age(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S1: how old is the newest plausible row of each source? Age counts from the data, not from our run."""
    for source in evidence.pipeline.sources:
        measured = _measure(evidence, source)
        newest: datetime | None = measured["newest"]
        if source.required:
            evidence.watermarks[source.name] = newest
        if newest is None:
            reason = "no row with a date up to as_of; age unknown"
            yield check.finding(Verdict.UNKNOWN, reason, subject=source.name, n=measured["n"])
            continue
        age = evidence.snapshot.as_of - newest
        warn, fail = source.warn_after, source.fail_after
        verdict = Verdict.PASS
        if fail is not None and age >= fail:
            verdict = Verdict.FAIL
        elif warn is not None and age >= warn:
            verdict = Verdict.WARN
        limits = " / ".join(describe(limit) for limit in (warn, fail) if limit is not None)
        reason = f"newest row is {describe(age)} old" + (f", limits {limits}" if limits else "")
        if verdict is Verdict.FAIL and not source.required:
            verdict = Verdict.WARN
        yield check.finding(
            verdict,
            reason,
            subject=source.name,
            observed=age.total_seconds(),
            warn_limit=warn.total_seconds() if warn else None,
            fail_limit=fail.total_seconds() if fail else None,
            unit="s",
            n=measured["n"],
            warn_until=newest + warn if warn and source.required else None,
            fail_until=newest + fail if fail and source.required else None,
        )


def source_future(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S2: rows from the future, rows without a date, a watermark without a zone: then no age can be trusted."""
    for source in evidence.pipeline.sources:
        measured = _measure(evidence, source)
        future, undated = measured["future"], measured["undated"]
        known = max(measured["n"], undated, 1)
        facts = {
            "subject": source.name,
            "observed": float(future),
            "fail_limit": 1.0,
            "unit": "rows",
            "n": measured["n"],
        }
        if measured["naive"] and source.zone is None:
            reason = f"{source.watermark} has no time zone; declare zone in [[source]]"
            yield check.finding(Verdict.FAIL, reason, **facts)
        elif future and source.kind != "event_time":
            reason = f"{future:,} rows are dated more than {describe(SKEW)} after the clock; age judged on the others"
            yield check.finding(Verdict.FAIL, reason, **facts)
        elif undated / known > UNDATED_SHARE:
            yield check.finding(Verdict.WARN, f"{undated:,} rows have no {source.watermark}", **facts)
        else:
            yield check.finding(Verdict.PASS, "no row from the future", **facts)


def _measure(evidence: Evidence, source: Source) -> dict[str, Any]:
    if source.name not in evidence.measured:
        evidence.measured[source.name] = _measured(evidence, source)
    return evidence.measured[source.name]


def _measured(evidence: Evidence, source: Source) -> dict[str, Any]:
    relation = ".".join(quote(part) for part in source.name.split("."))
    described = evidence.session.table(
        load_query("describe_watermark", {"relation": literal(relation), "attribute": literal(source.watermark)}),
        f"[[source]] {source.name}",
    ).to_pylist()
    if not described:
        raise LookupError(f"{source.name} has no column {source.watermark}, or is not there")
    naive = described[0]["type"] in {"timestamp without time zone", "date"}
    column = f"source.{quote(source.watermark)}"
    if naive:
        column = f"({column}::timestamp AT TIME ZONE {literal(source.zone or 'UTC')})"
    statement = load_query(
        "measure_source",
        {
            "source": relation,
            "relation": literal(relation),
            "watermark": column,
            "latest": literal(evidence.snapshot.as_of + SKEW),
            "future": literal(evidence.snapshot.clock_at + SKEW),
            "condition": source.filter or "true",
        },
    )
    row: dict[str, Any] = evidence.session.table(statement, f"[[source]] {source.name}").to_pylist()[0]
    return {**row, "naive": naive}
