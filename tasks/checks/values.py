"""Checks of single values of features: missing, outside of what training saw, infinite, or all the same.

Distances are blind to these: 3 % of the rows in another unit move a PSI of equal-mass bins by 0.009. Features that are as
they should be share one answer; each of the others has its own. Shares are alarms only beyond what chance gives, and
never for fewer than FEWEST_ROWS rows, so that one of 80 is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.checks.comparison import SAME_VALUE, Comparison, comparison, is_free, seen_once, was_constant
from tasks.checks.evidence import Check, Evidence
from tasks.drift import CONFIDENCE, differs, most_outside
from tasks.findings import Finding, Verdict
from tasks.population import Mode
from tasks.profiles import ColumnBins, ColumnCounts

#: Fewer rows than this are no measure of a share, and fewer odd ones than this are no alarm.
LEAST_ROWS, FEWEST_ROWS = 50, 10

#: Fewer values than this may well be all the same.
LEAST_CONSTANT = 100

#: A feature that was constant in training may differ by this share of its size, or of 1, before it is told that it varies.
VARIES = 1e-3


@dataclass(frozen=True, kw_only=True)
class _Share:
    """How many rows are odd, and how many were before."""

    odd: int
    rows: int
    #: Share that is usual.
    before: float
    limits: tuple[float, float]
    #: Whether chance is no explanation.
    significant: bool

    @property
    def excess(self) -> float:
        return self.odd / self.rows - self.before

    @property
    def verdict(self) -> Verdict:
        if self.odd < FEWEST_ROWS or not self.significant:
            return Verdict.PASS
        warn, fail = self.limits
        # Rounded to a millionth of a row, so that a share that is the limit reaches it.
        excess = round(self.excess, 12)
        return Verdict.FAIL if excess >= fail else Verdict.WARN if excess >= warn else Verdict.PASS


def nulls(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D3: are more values missing than before? NULL and NaN alike; a share that was always missing is none of it.

    Full runs are compared with training. What an incremental run reads is no sample of everybody, so it is compared with
    the incremental runs before it.
    """
    compared, excuse = _judged(evidence)
    if compared is None:
        yield check.finding(Verdict.SKIPPED, excuse)
        return
    usual = compared.usual.features
    if compared.mode is Mode.INCREMENTAL and not usual:
        yield check.finding(Verdict.SKIPPED, "there are too few clean incremental runs to compare this one with")
        return
    passed = 0
    for name, counts in compared.features.items():
        bins = compared.profile.features[name]
        before = usual.get(name) if compared.mode is Mode.INCREMENTAL else bins
        if before is None or not before.rows:
            continue
        missing, was_missing = counts.nulls + counts.nans, before.nulls + before.nans
        share = _Share(
            odd=missing,
            rows=counts.rows,
            before=was_missing / before.rows,
            limits=compared.own(name).null_delta or compared.drift.null_delta,
            significant=differs(missing, counts.rows, was_missing, before.rows),
        )
        if share.verdict is Verdict.PASS:
            passed += 1
        else:
            reason = f"{missing / counts.rows:.1%} are missing, {share.before:.1%} were"
            yield _odd(check, compared, name, share, f"{reason}{_limits(share)}")
    yield _rest(check, compared, passed, "miss no more values than before")


def in_range(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D3: do values lie outside of everything that training saw? A unit that changed for some rows is found here."""
    compared, excuse = _judged(evidence)
    if compared is None:
        yield check.finding(Verdict.SKIPPED, excuse)
        return
    passed = 0
    for name, counts in compared.features.items():
        bins = compared.profile.features[name]
        # Instants move on with time, and what never varied has a check of its own.
        if bins.kind in {"text", "time"} or bins.min is None or was_constant(bins):
            continue
        if compared.own(name).shared:
            if _far_outside(bins, counts):
                reason = "is further from all that training saw than training is wide"
                yield check.finding(Verdict.FAIL, reason, subject=name, on_fail=compared.on_values(name), n=counts.rows)
            else:
                passed += 1
            continue
        outside, seen = counts.under + counts.over, int(bins.counts.sum())
        share = _Share(
            odd=outside,
            rows=counts.rows,
            before=0.0,
            limits=compared.own(name).out_of_range or compared.drift.out_of_range,
            significant=outside > most_outside(counts.rows, seen),
        )
        if share.verdict is Verdict.PASS:
            passed += 1
            continue
        reason = f"{share.excess:.2%} are smaller or larger than any in training{_limits(share)}"
        beyond = {"under": counts.under, "over": counts.over, "tails": counts.tails}
        yield _odd(check, compared, name, share, reason, **beyond)
    yield _rest(check, compared, passed, "are within what training saw")


def unseen(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D3: are there categories that training did not have, or numbers between the few that it had?"""
    compared, excuse = _judged(evidence)
    if compared is None:
        yield check.finding(Verdict.SKIPPED, excuse)
        return
    passed = 0
    for name, counts in compared.features.items():
        bins = compared.profile.features[name]
        if counts.unseen is None or not bins.tells_unseen or bins.kind == "time" or was_constant(bins) or is_free(bins):
            continue
        if bins.kind == "number" and compared.own(name).shared:
            passed += 1
            continue
        # Good and Turing: what is seen once in a sample stands for as many that were not seen.
        once = seen_once(bins)
        share = _Share(
            odd=counts.unseen,
            rows=counts.rows,
            before=once / max(bins.rows, 1),
            limits=compared.own(name).unseen or compared.drift.unseen,
            significant=differs(counts.unseen, counts.rows, once, max(bins.rows, 1)),
        )
        if share.verdict is Verdict.PASS:
            passed += 1
        else:
            reason = f"{counts.unseen / counts.rows:.2%} are values that training did not have{_limits(share)}"
            yield _odd(check, compared, name, share, reason)
    yield _rest(check, compared, passed, "have the values of training")


def infinite(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D3: is a number infinite that never was? One is enough: something was divided by 0."""
    compared = comparison(evidence)
    if compared is None or not compared.rows:
        yield check.finding(Verdict.SKIPPED, "nothing was scored")
        return
    passed = 0
    for name, counts in compared.features.items():
        if not counts.infinities or compared.profile.features[name].infinities:
            passed += 1
            continue
        reason = f"{counts.infinities:,} of {counts.rows:,} are infinite, none was in training"
        facts = {"observed": float(counts.infinities), "fail_limit": 1.0, "unit": "rows", "n": counts.rows}
        yield check.finding(Verdict.FAIL, reason, subject=name, on_fail=compared.on_values(name), **facts)
    yield _rest(check, compared, passed, "are as finite as in training")


def constant(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D3: does everybody have the same value where training had several; or the other way round?"""
    compared, excuse = _judged(evidence)
    if compared is None or compared.mode is Mode.INCREMENTAL:
        reason = excuse or "what changed may well be the same for all; full runs are judged"
        yield check.finding(Verdict.SKIPPED, reason)
        return
    passed = 0
    for name, counts in compared.features.items():
        bins = compared.profile.features[name]
        if _became_constant(bins, counts) and not compared.own(name).shared:
            reason = f"all {counts.finite:,} values are the same, training had several"
            facts = {"subject": name, "on_fail": compared.on_values(name), "n": counts.rows}
            yield check.finding(Verdict.FAIL, reason, **facts)
        elif _began_to_vary(bins, counts):
            reason = "was the same for everybody in training and is not any more: what the model makes of that was never tried"
            yield check.finding(Verdict.WARN, reason, subject=name, n=counts.rows)
        else:
            passed += 1
    yield _rest(check, compared, passed, "vary as they did")


def _became_constant(bins: ColumnBins, counts: ColumnCounts) -> bool:
    if counts.finite < LEAST_CONSTANT or not bins.counts.sum() or was_constant(bins):
        return False
    if bins.kind == "text":
        same = int(counts.counts[: len(bins.categories)].max(initial=0)) == counts.finite
    else:
        same = counts.minimum is not None and counts.minimum == counts.maximum
    if not same:
        return False
    # A value that nearly everybody had may be everybody's by chance; a continuous one has no bin to itself.
    single = bins.counts[: len(bins.categories) or len(bins.points)]
    likeliest = float(single.max(initial=0) / bins.counts.sum())
    return bool(likeliest**counts.finite < 1 - CONFIDENCE)


def _far_outside(bins: ColumnBins, counts: ColumnCounts) -> bool:
    """Return whether a feature that a run shares is far from training: its rows are one observation, however many.

    Of a few weeks of training the next morning is outside every few days; one in another unit is far outside.
    """
    if bins.min is None or bins.max is None or counts.minimum is None or counts.maximum is None:
        return False
    width = bins.max - bins.min
    return counts.minimum < bins.min - width or counts.maximum > bins.max + width


def _began_to_vary(bins: ColumnBins, counts: ColumnCounts) -> bool:
    if not was_constant(bins) or bins.min is None or counts.minimum is None or counts.maximum is None:
        return False
    tolerance = max(VARIES, SAME_VALUE) * max(1.0, abs(bins.min))
    odd = counts.under + counts.over + (counts.unseen or 0)
    return odd >= FEWEST_ROWS and max(bins.min - counts.minimum, counts.maximum - bins.min) > tolerance


def _judged(evidence: Evidence) -> tuple[Comparison | None, str]:
    """Return what to judge, or None and why not."""
    compared = comparison(evidence)
    if compared is None or not compared.rows:
        return None, "nothing was scored"
    if compared.rows < LEAST_ROWS:
        return None, f"fewer than {LEAST_ROWS} rows were read"
    return compared, ""


def _limits(share: _Share) -> str:
    return f" (limits {share.limits[0]:.1%} / {share.limits[1]:.1%})"


def _odd(check: Check, compared: Comparison, name: str, share: _Share, reason: str, **evidence: int) -> Finding:
    return check.finding(
        share.verdict,
        reason,
        subject=name,
        on_fail=compared.on_values(name),
        observed=share.excess,
        warn_limit=share.limits[0],
        fail_limit=share.limits[1],
        unit="share",
        n=share.rows,
        evidence={"rows": share.odd, **evidence},
    )


def _rest(check: Check, compared: Comparison, passed: int, what: str) -> Finding:
    return check.finding(Verdict.PASS, f"{passed} of {len(compared.features)} features {what}", n=compared.rows)
