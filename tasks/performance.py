"""Performance: how good predictions were once labels are known, how well calibrated, and what to expect before they are.

Plain numbers: no database, no clock. Which predictions and labels belong together is in cohorts.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.profiles import ColumnBins, ColumnCounts

#: Confidence of every interval.
CONFIDENCE = 0.95

#: Rows of one instant share weather, holidays and campaigns, so they are drawn together where there are this many
#: instants. On the flights of February 2013 the interval of ten days' AUC is 2.4 times as wide as that of separate rows.
LEAST_INSTANTS = 10

#: Resamples of a bootstrap; the ends of an interval move by about a twentieth of its width from seed to seed.
RESAMPLES = 500

#: Equal-mass bins of a calibration curve.
CALIBRATION_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric that [performance] may declare."""

    name: str
    #: What it is computed from: the probability of a class, a class, or a value.
    of: Literal["probability", "class", "value"]
    higher_is_better: bool
    #: Its name among the hold-out metrics of a model version.
    held_out: str
    #: How far it may be worse than the baseline when the contract does not say: absolute, or a share of the baseline.
    tolerance: float
    relative: bool = False

    def worst_allowed(self, baseline: float, tolerance: float | None) -> float:
        """Return the value at which the metric is out of tolerance."""
        allowed = tolerance if tolerance is not None else self.tolerance * (abs(baseline) if self.relative else 1.0)
        return baseline - allowed if self.higher_is_better else baseline + allowed

    def worse(self, value: float, limit: float) -> bool:
        """Return whether a value lies on the wrong side of a limit."""
        return value < limit if self.higher_is_better else value > limit


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="auc", of="probability", higher_is_better=True, held_out="roc_auc", tolerance=0.03),
        Metric(
            name="average_precision",
            of="probability",
            higher_is_better=True,
            held_out="average_precision",
            tolerance=0.03,
        ),
        Metric(
            name="log_loss",
            of="probability",
            higher_is_better=False,
            held_out="log_loss",
            tolerance=0.1,
            relative=True,
        ),
        Metric(name="brier", of="probability", higher_is_better=False, held_out="brier", tolerance=0.1, relative=True),
        Metric(name="accuracy", of="class", higher_is_better=True, held_out="accuracy", tolerance=0.03),
        Metric(name="f1", of="class", higher_is_better=True, held_out="f1", tolerance=0.03),
        Metric(name="rmse", of="value", higher_is_better=False, held_out="rmse", tolerance=0.1, relative=True),
        Metric(name="mae", of="value", higher_is_better=False, held_out="mae", tolerance=0.1, relative=True),
        Metric(name="r2", of="value", higher_is_better=True, held_out="r2", tolerance=0.03),
    )
}


# Measured on labels ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A metric with its interval."""

    value: float
    low: float
    high: float
    #: DeLong or bootstrap, and what was drawn: instants or rows.
    interval: str


def measure(metric: Metric, truth: NDArray[Any], predicted: NDArray[Any], instants: NDArray[np.int64]) -> Measured:
    """Return a metric with its 95 % interval.

    Parameters
    ----------
    truth
        Shape ``(n,)``: bool for the metrics of a probability or class, float64 for those of a value. For ``accuracy``
        any labels that compare with ``predicted``.
    predicted
        Shape ``(n,)``: float64, or classes for ``accuracy`` and ``f1``.
    instants
        Shape ``(n,)``: which instant a row was predicted for, counted from 0.

    The interval of ``auc`` is DeLong's (1988), with the rows of an instant taken together as Obuchowski (1997) does;
    that of all others is a percentile bootstrap with a fixed seed. Its rows count one by one below ``LEAST_INSTANTS``
    instants, and those of ``auc`` where there is one alone, which makes an interval too narrow where they depend on each
    other.
    """
    groups = int(instants.max()) + 1 if len(instants) else 0
    together = groups >= (2 if metric.name == "auc" else LEAST_INSTANTS)
    units = instants if together else np.arange(len(truth))
    drawn = f"{groups} instants" if together else f"{len(truth)} rows"
    if metric.name == "auc":
        value, low, high = _delong(truth.astype(bool), predicted.astype(np.float64), instants if together else None)
        return Measured(value=value, low=low, high=high, interval=f"DeLong, {drawn}")
    statistic = _weighted(metric.name, truth, predicted)
    low, high = _bootstrap(statistic, units)
    return Measured(
        value=statistic(np.ones(len(truth))), low=low, high=high, interval=f"bootstrap of {RESAMPLES}, {drawn}"
    )


def _delong(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], instants: NDArray[np.int64] | None
) -> tuple[float, float, float]:
    """Return the area under the ROC curve and its interval; every row's part in it comes from three rankings."""
    from scipy.stats import norm, rankdata, t

    positive, negative = scores[truth], scores[~truth]
    ranks = rankdata(np.concatenate([positive, negative]))
    beats = (ranks[: len(positive)] - rankdata(positive)) / len(negative)
    beaten = 1 - (ranks[len(positive) :] - rankdata(negative)) / len(positive)
    value = float(beats.mean())
    if instants is None:
        variance = _spread(beats) / len(positive) + _spread(beaten) / len(negative)
        reach = norm.ppf((1 + CONFIDENCE) / 2)
    else:
        part = np.empty(len(truth))
        part[truth], part[~truth] = (beats - value) / len(positive), (beaten - value) / len(negative)
        of_instants = np.bincount(instants, weights=part)
        count = len(of_instants)
        variance = count / (count - 1) * float((of_instants**2).sum())
        reach = t.ppf((1 + CONFIDENCE) / 2, count - 1)
    half = float(reach) * math.sqrt(variance)
    return value, max(0.0, value - half), min(1.0, value + half)


def _spread(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _weighted(name: str, truth: NDArray[Any], predicted: NDArray[Any]) -> Callable[[NDArray[Any]], float]:
    """Return a metric as a function of the rows' weights."""
    from sklearn import metrics

    if name == "accuracy":
        right = (truth == predicted).astype(np.float64)
        return lambda weights: float(np.average(right, weights=weights))
    of_two: dict[str, Any] = {"labels": [False, True]}
    known: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "average_precision": (metrics.average_precision_score, {}),
        "log_loss": (metrics.log_loss, of_two),
        "brier": (metrics.brier_score_loss, of_two),
        "f1": (metrics.f1_score, {"zero_division": 0.0}),
        "rmse": (metrics.root_mean_squared_error, {}),
        "mae": (metrics.mean_absolute_error, {}),
        "r2": (metrics.r2_score, {}),
    }
    function, options = known[name]
    return lambda weights: float(function(truth, predicted, sample_weight=weights, **options))


def _bootstrap(statistic: Callable[[NDArray[Any]], float], units: NDArray[np.int64]) -> tuple[float, float]:
    from scipy.stats import bootstrap

    count = int(units.max()) + 1

    def drawn(chosen: NDArray[np.int64]) -> float:
        return statistic(np.bincount(chosen, minlength=count)[units].astype(np.float64))

    found = bootstrap(
        (np.arange(count),),
        drawn,
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


# Calibration -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far probabilities are from the shares that came true."""

    #: Expected calibration error: the mean distance of share and probability over equal-mass bins.
    ece: float
    #: What chance alone would give so few rows, were every probability right.
    floor: float
    #: How many events the probabilities promised, and how many there were.
    expected: float
    observed: int
    rows: int

    @property
    def error(self) -> float:
        """What is left of the error above its noise."""
        return max(0.0, self.ece - self.floor)


def calibration(
    truth: NDArray[np.bool_], probabilities: NDArray[np.float64], bins: int = CALIBRATION_BINS
) -> Calibration:
    """Return the calibration of ``n >= 1`` probabilities of a class, in bins of equal mass (fewer where values repeat).

    The floor: a bin of n rows whose probabilities are right misses by ``sqrt(2 / pi * sum(p (1 - p))) / n`` on average.
    """
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, bins + 1)))[1:-1]
    at = np.searchsorted(edges, probabilities, side="right")
    promised = np.bincount(at, weights=probabilities)
    came = np.bincount(at, weights=truth.astype(np.float64))
    variance = np.bincount(at, weights=probabilities * (1 - probabilities))
    rows = len(truth)
    return Calibration(
        ece=float(np.abs(came - promised).sum()) / rows,
        floor=float(np.sqrt(2 / math.pi * variance).sum()) / rows,
        expected=float(probabilities.sum()),
        observed=int(truth.sum()),
        rows=rows,
    )


# Expected without labels -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ScoreHistogram:
    """Probabilities of a class, counted into narrow bins: all that an estimate without labels needs."""

    #: Values in each bin, shape ``(n_bins,)``; bins need no order, and some may be empty.
    counts: NDArray[np.int64]
    #: Sum of the values in each bin, shape ``(n_bins,)``.
    sums: NDArray[np.float64]
    #: Sum of the squares of all values; exact, from mean and variance.
    squares: float

    @property
    def rows(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @classmethod
    def of_scores(cls, scores: NDArray[np.float64]) -> ScoreHistogram:
        """Count probabilities, shape ``(n,)``, into 1000 bins of equal width."""
        at = np.minimum((scores * 1000).astype(np.int64), 999)
        sums = np.bincount(at, weights=scores, minlength=1000).astype(np.float64)
        return cls(counts=np.bincount(at, minlength=1000), sums=sums, squares=float((scores**2).sum()))

    @classmethod
    def of_training(cls, bins: ColumnBins) -> ScoreHistogram | None:
        """Return the probabilities of the rows that the model was judged on; None where they are none."""
        if bins.sums is None or not _within_one(bins.min, bins.max) or bins.mean is None or bins.sd is None:
            return None
        squares = float(bins.counts.sum()) * (bins.sd**2 + bins.mean**2)
        return cls(counts=bins.counts, sums=bins.sums, squares=squares)

    @classmethod
    def of_run(cls, found: ColumnCounts) -> ScoreHistogram | None:
        """Return the probabilities that a run counted; None where they are none.

        Scores beyond all bins have counts and, together, an exact sum. Where there are such on both sides, those below
        all bins count as the smallest of them.
        """
        if found.sums is None or not _within_one(found.minimum, found.maximum):
            return None
        if found.mean is None or found.m2 is None or found.minimum is None:
            return None
        total = found.mean * found.finite
        outside = found.finite - int(found.counts.sum()) - found.under
        below = found.under * found.minimum
        if not outside:
            below = total - float(found.sums.sum())
        above = float(np.clip(total - float(found.sums.sum()) - below, 0, outside))
        return cls(
            counts=np.append(found.counts, [found.under, outside]),
            sums=np.append(found.sums, [max(0.0, below), above]),
            squares=found.m2 + found.mean**2 * found.finite,
        )


def _within_one(smallest: float | None, largest: float | None) -> bool:
    return smallest is not None and largest is not None and smallest >= 0 and largest <= 1


def expected_auc(histogram: ScoreHistogram) -> float | None:
    """Return the AUC that these probabilities promise if they are right; None where only one class is expected.

    Each bin holds ``sum`` positives and ``count - sum`` negatives; pairs within a bin count as ties. So the value is
    off by at most half of those pairs' share of all pairs: with 1000 bins of equal mass, 0.001 for any scores.
    (Confidence-based estimation, as NannyML's CBPE has it, without keeping the scores.)
    """
    some = histogram.counts > 0
    counts, sums = histogram.counts[some], histogram.sums[some]
    order = np.argsort(sums / counts, kind="stable")
    positive = np.clip(sums[order], 0, counts[order])
    negative = counts[order] - positive
    total = positive.sum() * negative.sum()
    if total <= 0:
        return None
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / total)


def expected_brier(histogram: ScoreHistogram) -> float | None:
    """Return the Brier score that these probabilities promise, the mean of ``p (1 - p)``; exact. None without rows."""
    if not histogram.rows:
        return None
    return float(max(0.0, (histogram.sums.sum() - histogram.squares) / histogram.rows))


def expected_accuracy(histogram: ScoreHistogram) -> float | None:
    """Return the share of right guesses that these probabilities promise when cut at 0.5; None without rows.

    The mean of ``max(p, 1 - p)``; exact but for the bin that holds 0.5, whose values count as its mean.
    """
    if not histogram.rows:
        return None
    some = histogram.counts > 0
    mean = histogram.sums[some] / histogram.counts[some]
    return float((histogram.counts[some] * np.maximum(mean, 1 - mean)).sum() / histogram.rows)


ESTIMATES: dict[str, Callable[[ScoreHistogram], float | None]] = {
    "auc": expected_auc,
    "brier": expected_brier,
    "accuracy": expected_accuracy,
}


def promised_auc(scores: NDArray[np.float64], instants: NDArray[np.int64]) -> float | None:
    """Return the AUC that scores promise within an instant, the mean over instants by their rows; None without any.

    A run is one instant. Pooled over several, days that are bad for everybody set scores apart that no run has to: on the
    flights of the last week of January 2013 pooled scores promised 0.740, those of each day 0.728.

    Parameters
    ----------
    scores
        Probabilities, shape ``(n,)``.
    instants
        Shape ``(n,)``: which instant each belongs to, counted from 0.
    """
    order = np.argsort(instants, kind="stable")
    parts = np.split(scores[order], np.flatnonzero(np.diff(instants[order])) + 1)
    found = [(expected_auc(ScoreHistogram.of_scores(part)), len(part)) for part in parts if len(part)]
    known = [(value, rows) for value, rows in found if value is not None]
    if not known:
        return None
    values, rows_of = zip(*known, strict=True)
    return float(np.average(values, weights=rows_of))
