"""Freezing: the bins of each column are drawn around the training rows once, and kept in the model's bundle.

They are frozen when the model is trained and never made again from current data: one outlier of a thousand standard
deviations hides a shift of one from bins that are drawn around both (0.333 became 0.004, measured), and does nothing to
frozen quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.columns import Column, Kind
from tasks.profiles.bins import floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Equal-mass bins of a feature. With fewer than 50 rows a bin and run the noise of a distance outweighs drift.
FEATURE_BINS = 20

#: Equal-mass bins of an output; with the sum of scores in each, metrics can later be had by joining labels alone.
OUTPUT_BINS = 1000

#: A value that more rows than this share have is counted by itself: quantiles would fall onto it.
POINT_MASS = 0.05

#: Columns with no more distinct values than this are counted value by value.
FEW_VALUES = 20

#: Categories counted by name; the rest is one count. Their values are part of the model bundle.
TOP_CATEGORIES = 200

#: Text columns with no more distinct values than this keep them all, so that a value that training had is told from one
#: that it had not; with more, a column is an identifier rather than a category, and what is unseen is unknown.
KNOWN_VALUES = 10_000


def build_profile(
    table: pa.Table,
    columns: Sequence[Column],
    outputs: pa.Table,
    *,
    feature_bins: int = FEATURE_BINS,
    output_bins: int = OUTPUT_BINS,
) -> dict[str, Any]:
    """Return the profile of training rows and of the predictions on held-out rows, ready for JSON.

    Parameters
    ----------
    table
        Feature rows as the feature query returns them, shape ``(n_rows, >= len(columns))``.
    columns
        The features to profile.
    outputs
        Predictions, one column each; their number of rows may differ. Arrays are counted by length alone, as numbers.

    Returns
    -------
    dict
        ``{"rows", "output_rows", "features": {name: ...}, "outputs": {name: ...}}``. A number or time (seconds since
        1970, UTC) has counts of rows, nulls, NaN and infinities, min, max, mean, sd, the quantiles 0.001 and 0.999,
        ``points`` (values counted by themselves), ``edges`` and ``counts``: bin i holds
        ``edges[i] <= x < edges[i + 1]``, the last one its upper edge too; ``under`` and ``over`` are 0 in training.
        Text has ``categories`` (value -> rows, the most frequent first), ``other``, ``distinct`` and ``known``: the
        values counted in ``other``, or None when there are more than ``KNOWN_VALUES``. Outputs that are numbers have
        ``sums``, the sum of the values in each range.
    """
    return {
        "rows": table.num_rows,
        "output_rows": outputs.num_rows,
        "features": {c.name: _column_profile(table.column(c.name), c.kind, feature_bins) for c in columns},
        "outputs": {name: _output_profile(outputs.column(name), output_bins) for name in outputs.column_names},
    }


def _output_profile(values: pa.ChunkedArray, bins: int) -> dict[str, Any]:
    if pa.types.is_list(values.type):
        lengths = pc.list_value_length(values)
        return {
            **_column_profile(lengths, Kind.NUMBER, bins),
            "kind": "list",
            "longest": pc.max(lengths).as_py(),
            "mean_length": pc.mean(lengths).as_py(),
        }
    text = pa.types.is_string(values.type)
    return _column_profile(values, Kind.TEXT if text else Kind.NUMBER, bins, sums=not text)


def _column_profile(values: pa.ChunkedArray, kind: Kind, bins: int, *, sums: bool = False) -> dict[str, Any]:
    shared = {"kind": str(kind), "count": len(values), "nulls": values.null_count}
    if kind is Kind.TEXT:
        return {**shared, **_categories(values.cast(pa.string()))}
    return {**shared, **_numbers(floats(values.combine_chunks()), bins, sums)}


def _categories(values: pa.ChunkedArray) -> dict[str, Any]:
    counted = pc.value_counts(values.drop_null().combine_chunks())
    pairs = sorted(
        zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True),
        key=lambda pair: (-pair[1], pair[0]),
    )
    rest = pairs[TOP_CATEGORIES:]
    return {
        "categories": dict(pairs[:TOP_CATEGORIES]),
        "other": sum(count for _, count in rest),
        "distinct": len(pairs),
        "known": sorted(value for value, _ in rest) if len(pairs) <= KNOWN_VALUES else None,
    }


def _numbers(values: NDArray[np.float64], bins: int, sums: bool) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    profile: dict[str, Any] = {
        "nans": int(np.isnan(values).sum()),
        "infinities": int(np.isinf(values).sum()),
        **_summary(finite),
    }
    points, counts = _points(finite)
    profile["points"] = [
        {"value": float(value), "count": int(count)} for value, count in zip(points, counts, strict=True)
    ]
    rest = np.sort(finite[~np.isin(finite, points)])
    edges = _edges(rest, bins)
    if len(edges) == 1:
        edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    at = np.clip(np.searchsorted(edges, rest, side="right") - 1, 0, max(len(edges) - 2, 0))
    width = max(len(edges) - 1, 0)
    profile |= {
        "edges": edges.tolist(),
        "counts": np.bincount(at, minlength=width)[:width].tolist(),
        "under": 0,
        "over": 0,
    }
    if sums:
        profile["sums"] = np.bincount(at, weights=rest, minlength=width)[:width].tolist()
    return profile


def _edges(ascending: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    if not len(ascending):
        return np.empty(0)
    with np.errstate(over="ignore", invalid="ignore"):
        inner = np.quantile(ascending, np.linspace(0, 1, bins + 1)[1:-1])
    # Between values at both ends of what a float holds, a quantile is none.
    return np.unique(np.concatenate([ascending[:1], inner[np.isfinite(inner)], ascending[-1:]]))


def _summary(finite: NDArray[np.float64]) -> dict[str, float | None]:
    names = ("min", "max", "p0_1", "p99_9", "mean", "sd")
    if not len(finite):
        return dict.fromkeys(names)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.quantile(finite, [0.001, 0.999])
        found = (finite.min(), finite.max(), low, high, finite.mean(), finite.std())
    return {name: float(value) if np.isfinite(value) else None for name, value in zip(names, found, strict=True)}


def _points(finite: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, counts = np.unique(finite, return_counts=True)
    if len(values) <= FEW_VALUES:
        return values, counts
    heavy = counts > POINT_MASS * len(finite)
    return values[heavy], counts[heavy]
