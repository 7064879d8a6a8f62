"""Checks of predictions: finite, not the same for everybody, distributed as they were."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tasks.checks.comparison import Comparison, all_counts, comparison, training_counts
from tasks.checks.evidence import Check, Evidence
from tasks.drift import psi
from tasks.findings import Finding, Verdict
from tasks.population import Mode
from tasks.profiles import ColumnBins, ColumnCounts
from tasks.scoring import Tally

# Fewer rows than this may well have one score.
CONSTANT_ROWS = 100
# Expected positives below which a rate says nothing.
LEAST_POSITIVES = 50
# z of what chance gives in one of a thousand comparisons, as tasks.drift has it.
_Z = 3.2905


def non_finite(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D4: predictions that are NaN or infinite are never published; a few are told, many hold (see rows.rejected)."""
    tally = _tally(evidence)
    count = sum(n for reason, n in tally.reasons.items() if reason.startswith("non_finite:"))
    facts = {"observed": float(count), "warn_limit": 1.0, "unit": "rows", "n": tally.rows}
    if count:
        yield check.finding(Verdict.WARN, f"{count:,} predictions were NaN or infinite and are rejected", **facts)
    else:
        yield check.finding(Verdict.PASS, "every prediction is finite", **facts)


def constant(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D3: one score for everybody looks like success and is not."""
    tally = _tally(evidence)
    if tally.scored < CONSTANT_ROWS:
        yield check.finding(Verdict.SKIPPED, f"fewer than {CONSTANT_ROWS} predictions", n=tally.scored)
        return
    for output, (low, high) in sorted(tally.ranges.items()):
        facts = {"subject": output, "n": tally.scored}
        if low == high:
            reason = f"all {tally.scored:,} predictions are the same: a feature is lost, or the model never learnt"
            yield check.finding(Verdict.FAIL, reason, **facts)
        else:
            yield check.finding(Verdict.PASS, "predictions differ", **facts)


def drift_output(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D4: are predictions distributed as those on held-out rows were when the model was made?"""
    compared = comparison(evidence)
    if compared is None or not compared.rows:
        yield check.finding(Verdict.SKIPPED, "nothing was scored")
        return
    if compared.mode is Mode.INCREMENTAL:
        reason = "new and changed entities are no sample of those that the model was judged on; full runs are compared"
        yield check.finding(Verdict.SKIPPED, reason)
        return
    warn, fail = compared.drift.warn, compared.drift.fail
    for name, counts in compared.outputs.items():
        bins = compared.profile.outputs.get(name)
        if bins is None or not bins.comparable or not bins.counts.sum():
            yield check.finding(Verdict.SKIPPED, "the model was registered without this output", subject=name)
            continue
        distance = psi(training_counts(bins), all_counts(bins, counts), most_bins=compared.drift.bins)
        if distance is None:
            reason = f"too few predictions ({counts.rows:,}) to compare"
            yield check.finding(Verdict.UNKNOWN, reason, subject=name, small_sample=True, n=counts.rows)
            continue
        verdict = Verdict.FAIL if distance.reaches(fail) else Verdict.WARN if distance.reaches(warn) else Verdict.PASS
        yield check.finding(
            verdict,
            f"{distance.adjusted:.3f} from the held-out predictions of training (PSI beyond noise, limits {warn:.2g} / "
            f"{fail:.2g}){_means(bins, counts)}",
            subject=name,
            on_fail=compared.on_drift(),
            observed=distance.adjusted,
            warn_limit=warn,
            fail_limit=fail,
            unit="PSI",
            n=distance.n_current,
            evidence={"psi": distance.psi, "floor": distance.floor, "bins": distance.bins, **_moved(bins, counts)},
        )


def rate(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D4: how many predictions are above the threshold of a decision, compared with what is usual?

    With the last clean runs where there are some, else (full runs) with the held-out predictions of training.
    """
    compared = comparison(evidence)
    if compared is None or not compared.rows:
        yield check.finding(Verdict.SKIPPED, "nothing was scored")
        return
    asked = False
    for output in evidence.pipeline.predictions:
        bins, counts = compared.profile.outputs.get(output.name), compared.outputs.get(output.name)
        if output.method != "predict_proba" or bins is None or counts is None or bins.kind != "number":
            continue
        before = _positives_before(compared, output.name, bins)
        if before is None:
            continue
        asked = True
        now = positives(bins, counts.counts, compared.drift.threshold) + counts.over
        yield _rate(check, compared, output.name, (now, counts.finite), before)
    if not asked:
        yield check.finding(Verdict.SKIPPED, "there is no probability that can be compared with earlier ones")


def positives(bins: ColumnBins, counts: np.ndarray[Any, np.dtype[np.int64]], threshold: float) -> float:
    """Return how many counted values are at least the threshold; of the bin that it divides, its share by length."""
    n_points = len(bins.points)
    found = float(counts[:n_points][bins.points >= threshold].sum())
    low, high = bins.edges[:-1], bins.edges[1:]
    if len(low):
        above = np.clip((high - threshold) / np.maximum(high - low, np.finfo(float).tiny), 0.0, 1.0)
        found += float((counts[n_points:] * above).sum())
    return found


def _positives_before(compared: Comparison, name: str, bins: ColumnBins) -> tuple[float, int] | None:
    """Return the usual number of positives, and of how many."""
    threshold = compared.drift.threshold
    usual = compared.usual.outputs.get(name)
    if usual is not None:
        return positives(bins, usual.counts, threshold) + usual.over, usual.finite
    if compared.mode is Mode.INCREMENTAL or not bins.counts.sum():
        return None
    return positives(bins, bins.counts, threshold), int(bins.counts.sum())


def _rate(check: Check, compared: Comparison, name: str, now: tuple[float, int], before: tuple[float, int]) -> Finding:
    warn, fail = compared.drift.rate
    (hits, n), (hits_before, n_before) = now, before
    facts: dict[str, Any] = {"subject": name, "n": n, "unit": "times", "on_fail": compared.on_drift()}
    if min(n, n_before) == 0 or max(hits, hits_before * n / n_before) < LEAST_POSITIVES:
        reason = "too few predictions above the threshold to compare"
        return check.finding(Verdict.UNKNOWN, reason, small_sample=True, **facts)
    share, usual = hits / n, hits_before / n_before
    # Half a row keeps a rate of none finite.
    times = (hits + 0.5) / n / ((hits_before + 0.5) / n_before)
    pooled = (hits + hits_before) / (n + n_before)
    chance = abs(share - usual) <= _Z * math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / n_before))
    factor = max(times, 1 / times)
    verdict = Verdict.PASS if chance or factor < warn else Verdict.FAIL if factor >= fail else Verdict.WARN
    reason = (
        f"{share:.2%} are at least {compared.drift.threshold:g}, {usual:.2%} were: {times:.2f} times "
        f"(limits {warn:g} / {fail:g})"
    )
    facts |= {"observed": times, "warn_limit": warn, "fail_limit": fail}
    return check.finding(verdict, reason, **facts, evidence={"rate": share, "usual": usual, **compared.usual.evidence})


def _moved(bins: ColumnBins, counts: ColumnCounts) -> dict[str, float]:
    """Return both means, and how far apart they may be by chance (CONFIDENCE)."""
    n, m = int(bins.counts.sum()), counts.finite
    if bins.mean is None or bins.sd is None or counts.mean is None or counts.sd is None or not n or not m:
        return {}
    noise = _Z * math.sqrt(bins.sd**2 / n + counts.sd**2 / m)
    return {"mean": counts.mean, "mean_in_training": bins.mean, "mean_by_chance": noise}


def _means(bins: ColumnBins, counts: ColumnCounts) -> str:
    moved = _moved(bins, counts)
    if not moved:
        return ""
    change = moved["mean"] - moved["mean_in_training"]
    return f"; the mean moved by {change:+.3g} (chance explains {moved['mean_by_chance']:.2g})"


def _tally(evidence: Evidence) -> Tally:
    if evidence.tally is None:
        raise LookupError("nothing was scored")
    return evidence.tally
