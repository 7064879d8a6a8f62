"""Checks of the sources: how new they are, whether their dates can be believed, and whether all of it arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from tasks import dataset_rows
from tasks.checks.evidence import Check, Evidence
from tasks.database import connect, literal, load_query
from tasks.freshness import Disposition, Finding, Verdict, describe
from tasks.pipeline import Source
from tasks.slices import (
    SLICES,
    Late,
    Slice,
    Usual,
    Watermark,
    Window,
    absent_values,
    count_late,
    count_slice,
    last_counted,
    list_absent_values,
    past_slices,
    relation,
    slice_begins,
    usual,
)

#: What findings call the files that features come from.
DATASET = "dataset"
# A clock may be this far off before a row counts as one from the future.
SKEW = timedelta(minutes=5)
# More rows of a source without a date than this share are worth a warning; so are more that came behind the last look.
UNDATED_SHARE = 0.001
LATE_SHARE = 0.001
# Chance alone moves a hundred rows by a tenth (one standard deviation); of fewer, a ratio says nothing.
LEAST_ROWS = 100
# A difference of less than three standard deviations of a count is chance.
CHANCE = 3.0

#: What a declared on_fail leads to.
ON_FAIL = {"flag": Disposition.PUBLISH_FLAGGED, "hold": Disposition.HOLD, "abort": Disposition.ABORT}


def source_age(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S1: how old is the newest plausible row of each source? Age counts from the data, not from our run."""
    yield from _dataset_age(evidence, check)
    for source in evidence.pipeline.sources:
        measured = _measure(evidence, source)
        newest: datetime | None = measured["newest"]
        answer = _answers(check, source, n=measured["n"])
        if source.required:
            evidence.watermarks[source.name] = newest
        if newest is None:
            yield answer(Verdict.UNKNOWN, "no row with a date up to as_of; age unknown")
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
        yield answer(
            verdict,
            reason,
            observed=age.total_seconds(),
            warn_limit=warn.total_seconds() if warn else None,
            fail_limit=fail.total_seconds() if fail else None,
            unit="s",
            warn_until=newest + warn if warn and source.required else None,
            fail_until=newest + fail if fail and source.required else None,
        )


def _dataset_age(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """A dataset is as new as the newest row that says so, and never newer than its newest file: that may be a copy."""
    dataset = evidence.scorer.contract.dataset
    if dataset is None:
        return
    as_of, by = evidence.snapshot.as_of, dataset.declared.changes_by
    told = None if by is None else dataset_rows.newest(dataset, as_of)
    newest = min(at for at in (dataset.modified, told, as_of) if at is not None)
    evidence.watermarks[DATASET] = newest
    if by is not None and told is None:
        yield check.finding(Verdict.UNKNOWN, f"no row with a {by} up to as_of; age unknown", subject=DATASET)
        return
    age = as_of - newest
    warn, fail = dataset.declared.warn_after, dataset.declared.fail_after
    verdict = Verdict.PASS
    if fail is not None and age >= fail:
        verdict = Verdict.FAIL
    elif warn is not None and age >= warn:
        verdict = Verdict.WARN
    limits = " / ".join(describe(limit) for limit in (warn, fail) if limit is not None)
    what = (
        "newest file" if by is None else f"newest {by}" if newest == told else f"newest file, for all that {by} says,"
    )
    yield check.finding(
        verdict,
        f"{what} is {describe(age)} old" + (f", limits {limits}" if limits else ""),
        subject=DATASET,
        n=dataset.rows,
        observed=age.total_seconds(),
        warn_limit=warn.total_seconds() if warn else None,
        fail_limit=fail.total_seconds() if fail else None,
        unit="s",
        warn_until=newest + warn if warn else None,
        fail_until=newest + fail if fail else None,
    )


def source_future(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S2: rows from the future, rows without a date, a watermark without a zone: then no age can be trusted."""
    for source in evidence.pipeline.sources:
        measured = _measure(evidence, source)
        future, undated = measured["future"], measured["undated"]
        known = max(measured["n"], undated, 1)
        answer = _answers(check, source, n=measured["n"], observed=float(future), fail_limit=1.0, unit="rows")
        if measured["naive"] and source.zone is None:
            yield answer(Verdict.FAIL, f"{source.watermark} has no time zone; declare zone in [[source]]")
        elif future and source.kind != "event_time":
            reason = f"{future:,} rows are dated more than {describe(SKEW)} after the clock; age judged on the others"
            yield answer(Verdict.FAIL, reason)
        elif undated / known > UNDATED_SHARE:
            yield answer(Verdict.WARN, f"{undated:,} rows have no {source.watermark}")
        else:
            yield answer(Verdict.PASS, "no row from the future")


def source_rows(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S3: does as much arrive as usual? Rows of the new slice as a share of the median of earlier ones.

    A limit that is reached counts, as everywhere: 0.9 of the usual warns where 0.9 is declared.
    """
    for source in evidence.pipeline.sources:
        answer = _answers(check, source, unit="of usual")
        if source.rows is None:
            yield answer(Verdict.SKIPPED, "rows is not declared in [[source]]")
            continue
        if _measure(evidence, source)["newest"] is None:
            yield answer(Verdict.FAIL, "0 rows with a date up to as_of: the table was emptied", observed=0.0, n=0)
            continue
        arrived = _arrived(evidence, source)
        if arrived.hours is None:
            reason = "no publication of the schedule is there yet to count from"
            yield answer(Verdict.UNKNOWN, reason, small_sample=True, evidence={"baseline": "none"})
            continue
        yield _rows_judged(answer, source, arrived, Watermark.describe(evidence.sources, source).digest)


def _rows_judged(answer: Callable[..., Finding], source: Source, arrived: Slice, digest: str) -> Finding:
    assert source.rows is not None
    assert arrived.hours is not None
    known = usual(arrived.before)
    counted = {"rows": arrived.rows, "hours": round(arrived.hours, 4), "digest": digest}
    if known is None or known.rows < LEAST_ROWS:
        least = f"{known.rows:,.0f} rows are usual" if known else "no earlier slice was counted"
        reason = f"{arrived.rows:,} new rows; {least}, too few to tell what is unusual"
        baseline = known.baseline if known else "none"
        return answer(
            Verdict.UNKNOWN, reason, small_sample=True, n=arrived.rows, evidence={**counted, "baseline": baseline}
        )
    ratio = known.ratio(arrived.rows, arrived.hours)
    warn, fail = source.rows.warn, source.rows.fail
    side = 0 if ratio < 1 else 1
    verdict = Verdict.PASS
    if abs(ratio - 1) * known.rows**0.5 >= CHANCE:
        verdict = Verdict.WARN if not warn[0] < ratio < warn[1] else verdict
        verdict = Verdict.FAIL if not fail[0] < ratio < fail[1] else verdict
    facts = {
        "observed": ratio,
        "warn_limit": warn[side],
        "fail_limit": fail[side],
        "n": arrived.rows,
        "evidence": {**counted, **_usual_evidence(known, arrived)},
    }
    reason = (
        f"{arrived.rows:,} new rows in {arrived.hours:.1f} h, {ratio:.2f} of what is usual: {known.rows:,.0f} in "
        f"{known.hours:.1f} h, the median of {known.slices} slices{_of_slot(source, known)}; limits "
        f"{warn[0]:g} to {warn[1]:g} / {fail[0]:g} to {fail[1]:g}"
    )
    if known.baseline == "fallback":
        return answer(Verdict.UNKNOWN, reason, small_sample=True, **facts)
    return answer(verdict, reason, **facts)


def _usual_evidence(known: Usual, arrived: Slice) -> dict[str, Any]:
    return {
        "usual_rows": known.rows,
        "usual_hours": known.hours,
        "slices": known.slices,
        "of": SLICES,
        "by_count": arrived.rows / known.rows,
        "baseline": known.baseline,
    }


def _of_slot(source: Source, known: Usual) -> str:
    assert source.rows is not None
    if known.baseline == "fallback":
        return " of any kind, for want of such ones"
    return "" if source.rows.slot == "none" else f" of the same {source.rows.slot.replace('_', ' ')}"


def source_every(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S3: does everything that has to occur in a slice occur in the new one?"""
    for source in evidence.pipeline.sources:
        answer = _answers(check, source, unit="values", fail_limit=1.0)
        if source.every is None:
            yield answer(Verdict.SKIPPED, "every is not declared in [[source]]")
            continue
        arrived, watermark = _arrived(evidence, source), Watermark.describe(evidence.sources, source)
        if arrived.since is not None and arrived.rows == 0 and _measure(evidence, source)["newest"] is not None:
            yield answer(Verdict.SKIPPED, "nothing new arrived", n=0)
            continue
        expected, absent = absent_values(evidence.sources, watermark, arrived.since, arrived.until)
        facts: dict[str, Any] = {"observed": float(absent), "n": expected}
        named = f"{source.every.column} in {source.every.from_}"
        if not expected:
            yield answer(Verdict.UNKNOWN, f"there is no value of {named} to be expected", **facts)
        elif absent:
            reason = f"{absent:,} of {expected:,} values of {named} are absent from the new rows; they are listed by "
            yield answer(Verdict.FAIL, reason + list_absent_values(watermark, arrived.since, arrived.until), **facts)
        else:
            yield answer(Verdict.PASS, f"all {expected:,} values of {named} occur", **facts)


def source_late(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S3: did rows appear behind what the last publication had read up to? An incremental run can miss such ones.

    Rows that were changed or deleted meanwhile leave the window, so that the count may be too small, never too large.
    """
    pipeline = evidence.pipeline
    for source in pipeline.sources:
        watermark = Watermark.describe(evidence.sources, source)
        window, last = Window.of(pipeline, evidence.snapshot), _last_window(evidence, check, watermark)
        found = count_late(evidence.sources, watermark, window, None if last is None else last[0])
        kept = {"begins": window.begins, "reached": window.reached, "until": window.until}
        counted: dict[str, Any] = {name: at.isoformat() for name, at in kept.items()}
        counted |= {"behind": found.behind, "within": found.within, "digest": watermark.digest}
        answer = _answers(check, source, unit="share", warn_limit=LATE_SHARE, evidence=counted)
        if last is None:
            yield answer(Verdict.SKIPPED, "counted for the first time")
        else:
            yield _late_judged(answer, evidence, found, last[1], last[2])


def _late_judged(
    answer: Callable[..., Finding], evidence: Evidence, found: Late, behind_then: int, within_then: int
) -> Finding:
    assert found.behind_again is not None
    assert found.within_again is not None
    behind, within = max(found.behind_again - behind_then, 0), max(found.within_again - within_then, 0)
    late = behind + within
    share = late / max(late + found.arrived, 1)
    facts = {"observed": share, "n": late + found.arrived}
    if not late:
        return answer(Verdict.PASS, "no row came behind the last publication", **facts)
    reason = f"{late:,} of {late + found.arrived:,} rows came behind what the last publication had read up to"
    if behind:
        reason += (
            f", {behind:,} of them further behind than late_by reaches: incremental runs miss these. Raise late_by in "
            f"[[source]], and run `prescore score {evidence.pipeline.name} --full`"
        )
    else:
        reason += "; they are asked for again, within late_by"
    return answer(Verdict.WARN if behind or share > LATE_SHARE else Verdict.PASS, reason, **facts)


def _last_window(evidence: Evidence, check: Check, watermark: Watermark) -> tuple[Window, int, int] | None:
    """Return the window that the run of what is served counted, and its two counts; None where it did not."""
    if evidence.served is None:
        return None
    with connect(evidence.url, "prescore check") as connection:
        kept = last_counted(connection, evidence.served.generation_id, check.id, watermark.source.name)
    if kept.get("digest") != watermark.digest:
        return None
    begins, reached, until = (datetime.fromisoformat(kept[name]) for name in ("begins", "reached", "until"))
    return Window(begins=begins, reached=reached, until=until), kept["behind"], kept["within"]


def _answers(check: Check, source: Source, **always: Any) -> Callable[..., Finding]:
    """Return how a check answers about a source: with its name, and what the declaration says follows from a failure."""

    def answer(verdict: Verdict, reason: str, **facts: Any) -> Finding:
        known = {"subject": source.name, "on_fail": ON_FAIL[source.on_fail]}
        return check.finding(verdict, reason, **{**known, **always, **facts})

    return answer


def _arrived(evidence: Evidence, source: Source) -> Slice:
    """Count the new slice of a source, once."""
    if source.name not in evidence.arrived:
        watermark, until = Watermark.describe(evidence.sources, source), evidence.snapshot.as_of
        with connect(evidence.url, "prescore check") as connection:
            before = past_slices(connection, evidence.pipeline, watermark, until)
        since = slice_begins(before, until)
        rows = 0 if since is None else count_slice(evidence.sources, watermark, since, until)
        evidence.arrived[source.name] = Slice(since=since, until=until, rows=rows, before=before)
    return evidence.arrived[source.name]


def _measure(evidence: Evidence, source: Source) -> dict[str, Any]:
    if source.name not in evidence.measured:
        evidence.measured[source.name] = _measured(evidence, source)
    return evidence.measured[source.name]


def _measured(evidence: Evidence, source: Source) -> dict[str, Any]:
    watermark = Watermark.describe(evidence.sources, source)
    statement = load_query(
        "measure_source",
        {
            "source": relation(source.name),
            "relation": literal(relation(source.name)),
            "watermark": watermark.expression,
            "latest": literal(evidence.snapshot.as_of + SKEW),
            "future": literal(evidence.snapshot.clock_at + SKEW),
            "condition": source.filter or "true",
        },
    )
    row: dict[str, Any] = evidence.sources.table(statement, f"[[source]] {source.name}").to_pylist()[0]
    return {**row, "naive": watermark.naive}
