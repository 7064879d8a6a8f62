"""Checks of the population and of the rows that were written for it: nobody vanished."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.checks.evidence import Check, Evidence
from tasks.freshness import Finding, Verdict
from tasks.population import Selection
from tasks.scoring import Tally

# A run holds when more are rejected than this many, or than this share of the population, whichever is more.
REJECTED_FLOOR, REJECTED_SHARE = 10, 0.001


def population_size(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S3: an empty or suddenly small population is a query that failed, more often than a business that ended."""
    selection, pipeline = _selection(evidence), evidence.pipeline
    count, before = selection.population, evidence.served_rows
    facts: dict[str, object] = {"observed": float(count), "unit": "entities", "n": count}
    if selection.null_keys:
        reason = f"{selection.null_keys:,} entities have a NULL in their key"
        yield check.finding(Verdict.FAIL, reason, **facts)
    elif count == 0 and not pipeline.entity.allow_empty:
        reason = "the population is empty; declare allow_empty = true in [entity] if that may be"
        yield check.finding(Verdict.FAIL, reason, **facts)
    elif before and count and count < pipeline.coverage.shrink * before:
        reason = f"{count:,} entities, {before:,} were served: less than {pipeline.coverage.shrink:.0%} of them"
        yield check.finding(Verdict.FAIL, reason, **facts, fail_limit=pipeline.coverage.shrink * before)
    else:
        yield check.finding(Verdict.PASS, f"{count:,} entities", **facts)


def skipped(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R4: entities that the run skipped, scored again at their own as_of, must agree with what is served."""
    if not evidence.resampled:
        yield check.finding(Verdict.SKIPPED, "nothing was skipped")
        return
    facts = {"observed": float(evidence.disagreeing), "fail_limit": 1.0, "unit": "entities", "n": evidence.resampled}
    if evidence.disagreeing:
        why = (
            "although their features are the same: preprocess or the model gives one row several predictions"
            if evidence.pipeline.features.fingerprint
            else "at the same as_of: changes.sql misses changes, or late_by is too short"
        )
        reason = (
            f"{evidence.disagreeing:,} of {evidence.resampled:,} skipped entities score otherwise {why}. "
            f"Run `prescore score {evidence.pipeline.name} --full`"
        )
        yield check.finding(Verdict.FAIL, reason, **facts)
    else:
        yield check.finding(Verdict.PASS, f"{evidence.resampled:,} skipped entities score the same", **facts)


def torn(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R4: what was written is what was to be written: count, and checksum of the keys."""
    selection, staged = _selection(evidence), evidence.staged
    assert staged is not None
    wanted = selection.selected
    facts = {"observed": float(staged.rows), "fail_limit": float(wanted), "unit": "rows", "n": wanted}
    if staged.rows != wanted:
        more = "more" if staged.rows > wanted else "fewer"
        reason = (
            f"{staged.rows:,} rows were written for {wanted:,} entities, {abs(staged.rows - wanted):,} {more}: the feature query "
            "returns rows for entities that are not in batch, or leaves some out"
        )
        yield check.finding(Verdict.FAIL, reason, **facts)
    elif staged.key_checksum == selection.expected_checksum:
        yield check.finding(Verdict.PASS, f"{staged.rows:,} rows for {wanted:,} entities", **facts)
    else:
        reason = f"{staged.rows:,} rows were written, but for other entities than those to be scored"
        yield check.finding(Verdict.FAIL, reason, **facts)


def missing(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R2: entities of the population without a feature row: a join that drops them, or a LIMIT."""
    selection, tally = _selection(evidence), _tally(evidence)
    count = tally.reasons["no_features"]
    warn, fail = (
        max(float(REJECTED_FLOOR), share * selection.population) for share in evidence.pipeline.coverage.missing
    )
    facts = {
        "observed": float(count),
        "warn_limit": warn,
        "fail_limit": fail,
        "unit": "entities",
        "n": selection.population,
    }
    verdict = Verdict.FAIL if count > fail else Verdict.WARN if count > warn else Verdict.PASS
    origin = evidence.pipeline.features.origin
    reason = (
        f"{count:,} of {selection.population:,} entities have no row in {origin}"
        if count
        else "every entity has features"
    )
    dataset = evidence.scorer.contract.dataset
    if dataset is not None and dataset.counts.outside:
        reason += (
            f"; {dataset.counts.outside:,} of its {dataset.rows:,} rows are of nobody in the population, and ignored"
        )
    yield check.finding(verdict, reason, **facts)


def rejected(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R2: entities that could not be scored, among the population."""
    selection, tally = _selection(evidence), _tally(evidence)
    limit = max(REJECTED_FLOOR, REJECTED_SHARE * selection.population)
    facts = {"observed": float(tally.rejected), "fail_limit": limit, "unit": "entities", "n": selection.population}
    why = ", ".join(f"{reason} {count:,}" for reason, count in tally.reasons.most_common(3))
    if tally.rejected > limit:
        reason = f"{tally.rejected:,} of {selection.population:,} entities were rejected ({why}), limit {limit:,.0f}"
        yield check.finding(Verdict.FAIL, reason, **facts)
    else:
        yield check.finding(
            Verdict.PASS, f"{tally.rejected:,} entities were rejected" + (f" ({why})" if why else ""), **facts
        )


def orphaned(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R3: served entities that left the population are removed with this publication; here is how many."""
    gone = _selection(evidence).gone
    facts = {"observed": float(gone), "unit": "entities", "n": evidence.served_rows}
    yield check.finding(Verdict.PASS, f"{gone:,} entities left the population and are removed", **facts)


def _selection(evidence: Evidence) -> Selection:
    if evidence.selection is None:
        raise LookupError("the population was not selected")
    return evidence.selection


def _tally(evidence: Evidence) -> Tally:
    if evidence.tally is None:
        raise LookupError("nothing was scored")
    return evidence.tally
