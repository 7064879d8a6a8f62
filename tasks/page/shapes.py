"""Distributions as the page draws them: shares of training and of a run over the same frozen bins.

What entities have is not shown unless it is asked for: single values and categories are numbered by how frequent they
were in training, ranges from the lowest to the highest.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tasks.page.charts import Bars

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.profiles import ColumnBins, ColumnCounts

#: Ranges that a person can tell apart on a chart; finer bins are drawn in so many equally wide ones.
MOST_RANGES = 25
#: Categories drawn by themselves; the further ones together.
MOST_CATEGORIES = 20

_Shares = tuple[list[str], list[float], list[float]]


def compare(bins: ColumnBins, counts: ColumnCounts, *, show_values: bool) -> Bars | None:
    """Return the shares of a column in training and in a run; None when there is nothing to compare."""
    if not bins.comparable or not bins.rows or not counts.rows or len(bins.counts) != len(counts.counts):
        return None
    if bins.kind == "text":
        labels, then, now = _categories(bins, counts, show_values)
        axis = "categories, the most frequent in training first"
    elif len(bins.edges) - 1 > MOST_RANGES:
        labels, then, now = _fine(bins, counts, show_values)
        axis = "from the lowest to the highest value of training, equally wide"
    else:
        labels, then, now = _coarse(bins, counts, show_values)
        ranges = "; each range held as many training rows as the next" if len(bins.edges) else ""
        axis = f"from the lowest to the highest{ranges}"
    others = [other for other in _others(bins, counts) if other[1] or other[2]]
    for label, before, after in others:
        labels, then, now = [*labels, label], [*then, float(before)], [*now, float(after)]
    return Bars(
        labels=tuple(labels),
        special=tuple(label for label, _, _ in others),
        training=tuple(count / bins.rows for count in then),
        now=tuple(count / counts.rows for count in now),
        axis=axis,
    )


def _others(bins: ColumnBins, counts: ColumnCounts) -> list[tuple[str, int, int]]:
    return [
        ("below", 0, counts.under),
        ("above", 0, counts.over),
        ("unseen", 0, counts.unseen or 0),
        ("NULL", bins.nulls, counts.nulls),
        ("NaN", bins.nans, counts.nans),
        ("infinite", bins.infinities, counts.infinities),
    ]


def _categories(bins: ColumnBins, counts: ColumnCounts, show_values: bool) -> _Shares:
    names = [name if show_values else f"category {rank}" for rank, name in enumerate(bins.categories, 1)]
    kept = min(len(names), MOST_CATEGORIES)
    then, now = bins.counts.tolist(), counts.counts.tolist()
    labels, training, current = names[:kept], then[:kept], now[:kept]
    if len(then) > kept:
        labels, training, current = [*labels, "others"], [*training, sum(then[kept:])], [*current, sum(now[kept:])]
    return labels, training, current


def _coarse(bins: ColumnBins, counts: ColumnCounts, show_values: bool) -> _Shares:
    """Return single values and ranges in the order of their values."""
    single = len(bins.points)
    starts = [*bins.points.tolist(), *bins.edges[:-1].tolist()]
    ranks = np.argsort(np.argsort(-bins.counts[:single], kind="stable"))
    labels = [
        _value(point, bins.kind) if show_values else f"value {rank + 1}"
        for point, rank in zip(bins.points.tolist(), ranks.tolist(), strict=True)
    ]
    for place, (low, high) in enumerate(zip(bins.edges[:-1].tolist(), bins.edges[1:].tolist(), strict=True), 1):
        labels.append(f"{_value(low, bins.kind)} to {_value(high, bins.kind)}" if show_values else str(place))
    order = sorted(range(len(starts)), key=lambda at: (starts[at], at))
    return (
        [labels[at] for at in order],
        [float(bins.counts[at]) for at in order],
        [float(counts.counts[at]) for at in order],
    )


def _fine(bins: ColumnBins, counts: ColumnCounts, show_values: bool) -> _Shares:
    """Return many fine bins as few wide ones; what a range holds is spread evenly over it."""
    low = min([*bins.edges[:1].tolist(), *bins.points.tolist()])
    high = max([*bins.edges[-1:].tolist(), *bins.points.tolist()])
    share = low >= 0 and high <= 1
    if share:
        low, high = 0.0, 1.0
    limits = np.linspace(low, high, MOST_RANGES + 1)
    if share:
        labels = [f"{middle:.2f}" for middle in (limits[:-1] + limits[1:]) / 2]
    elif show_values:
        labels = [f"{_value(a, bins.kind)} to {_value(b, bins.kind)}" for a, b in pairwise(limits.tolist())]
    else:
        labels = [str(place) for place in range(1, MOST_RANGES + 1)]
    return labels, _spread(bins, bins.counts, limits), _spread(bins, counts.counts, limits)


def _spread(bins: ColumnBins, counts: NDArray[np.int64], limits: NDArray[np.float64]) -> list[float]:
    single = len(bins.points)
    reached = np.concatenate([[0.0], np.cumsum(counts[single:])])
    within = np.diff(np.interp(limits, bins.edges, reached))
    at_points, _ = np.histogram(bins.points, bins=limits, weights=counts[:single].astype(float))
    spread: list[float] = (within + at_points).tolist()
    return spread


def _value(value: float, kind: str) -> str:
    if kind == "time":
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
