"""Checks of the disk: does what a run writes fit, and does what is served take more room than it needs?"""

from __future__ import annotations

from collections.abc import Iterator

from tasks.checks.evidence import Check, Evidence
from tasks.database import connect, one
from tasks.findings import Finding, Verdict
from tasks.population import Mode
from tasks.readers import Objects
from tasks.space import SPARE_BYTES, look, megabytes

# Rows that were deleted from under a reader are written over by the next load but one: files level off at twice what they need.
BLOATED = 2.5
# Smaller ones are nobody's worry.
LEAST_BYTES = 64 * 1024**2


def space(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R5: does what this run is about to write fit on the server's disk? Asked before a byte of it is loaded."""
    selection, served = evidence.selection, evidence.served
    if selection is None:
        raise LookupError("the population was not selected")
    count = None if served is None else (served.storage_id, evidence.served_rows or 0)
    with connect(evidence.url, "prescore check") as connection:
        need, free = look(connection, _objects(evidence), selection.selected, selection.mode is Mode.INCREMENTAL, count)
    if free.free_bytes is None:
        yield check.finding(Verdict.SKIPPED, f"{need.told}; what is free is not known: {free.because}")
        return
    left = free.free_bytes - need.total
    facts = {
        "observed": float(free.free_bytes),
        "fail_limit": float(need.total + SPARE_BYTES),
        "unit": "bytes",
        "n": need.rows,
    }
    reason = f"{need.told}; {megabytes(free.free_bytes)} are free"
    if left < SPARE_BYTES:
        yield check.finding(Verdict.FAIL, f"{reason}, and {megabytes(SPARE_BYTES)} are kept for others", **facts)
    elif selection.mode is Mode.FULL and left < need.rows_total + SPARE_BYTES:
        yield check.finding(Verdict.WARN, f"{reason}: another full run of this size would not fit", **facts)
    else:
        yield check.finding(Verdict.PASS, reason, **facts)


def bloat(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R6: how many times what its rows need does the storage that is served take?"""
    if evidence.served is None:
        return
    objects = _objects(evidence)
    name = objects.storage_name(evidence.served.storage_id)
    with connect(evidence.url, "prescore check") as connection:
        found = one(connection, "measure_bloat", schema="prescore_rows", storage=name)
    if found is None or not found.needed or found.rows <= 0:
        return
    times = found.bytes / found.needed
    reason = (
        f"the rows that are served take {megabytes(found.bytes)}, {times:.1f} times what they need, their indexes "
        f"{megabytes(found.index_bytes)}; {found.dead:,} rows wait for VACUUM"
    )
    bloated = times > BLOATED and found.bytes > LEAST_BYTES
    facts = {"observed": times, "warn_limit": BLOATED, "unit": "times", "n": found.rows}
    evidence_of = {"bytes": found.bytes, "index_bytes": found.index_bytes, "dead_rows": found.dead}
    yield check.finding(Verdict.WARN if bloated else Verdict.PASS, reason, **facts, evidence=evidence_of)


def _objects(evidence: Evidence) -> Objects:
    indexed = tuple(output.name for output in evidence.pipeline.predictions if output.index)
    scorer = evidence.scorer
    return Objects(pipeline=evidence.pipeline.name, key=scorer.contract.key, outputs=scorer.outputs, indexed=indexed)
