"""Frozen bins: how each column of a model is counted, and what training counted into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

#: Where numbers go that no bin holds: below all that training saw, above it, or between.
UNDER, OVER, BETWEEN = -1, -2, -3

_SECONDS_OF_A_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnBins:
    """The bins of one column, frozen when its model was registered, with what training counted into them.

    A count vector of the column holds single values first (``points`` of a number, ``categories`` of a text), then
    ranges (``edges[i] <= x < edges[i + 1]``, the last one its upper edge too; a text that training had more categories
    of than are counted by name has one last bin for the ``other`` ones). Everything else has a counter of its own.
    """

    name: str
    #: number, time (seconds since 1970, UTC), text, or list (counted by length).
    kind: str
    #: Values counted by themselves, ascending, shape ``(n_points,)``, float64.
    points: Floats
    #: Limits of the ranges, strictly ascending, shape ``(n_ranges + 1,)`` or ``(0,)``, float64.
    edges: Floats
    #: Categories counted by name, the most frequent in training first.
    categories: tuple[str, ...]
    #: Text: the further values of training, counted together as ``other``; None when they were not all kept.
    known: tuple[str, ...] | None = field(repr=False)
    #: What training counted, shape ``(n_bins,)``, int64: for a feature the rows fitted on, for an output the held-out ones.
    counts: Counts = field(repr=False)
    #: Outputs: the sum of the values that training counted into each bin, shape ``(n_bins,)``, float64.
    sums: Floats | None = field(repr=False)
    #: Values of training of every kind, and what of them was no value.
    rows: int
    nulls: int
    nans: int
    infinities: int
    #: Of the finite values of training; None when it had none. Lists: of their lengths.
    min: float | None
    max: float | None
    p0_1: float | None
    p99_9: float | None
    mean: float | None
    sd: float | None
    #: Share of what the model owes to its features that it owes to this one; None where that was not measured.
    importance: float | None
    #: Whether training was counted into these bins; without it there is nothing to compare a run with.
    comparable: bool = True

    @classmethod
    def from_profile(cls, name: str, profile: Mapping[str, Any]) -> ColumnBins:
        """Read the bins of a column from a bundle's profile; one that was made before lists had bins is not comparable."""
        text = profile.get("kind") == "text"
        categories = sorted(profile.get("categories", {}).items(), key=lambda pair: (-pair[1], pair[0]))
        points = sorted((point["value"], point["count"]) for point in profile.get("points", ()))
        counts = [count for _, count in (categories if text else points)]
        sums = [value * count for value, count in points]
        if text and profile.get("other", 0):
            counts.append(profile["other"])
        known = profile.get("known") if "known" in profile or profile.get("other", 0) else ()
        return cls(
            name=name,
            kind=profile.get("kind", "number"),
            points=np.array([value for value, _ in points], dtype=np.float64),
            edges=np.array(profile.get("edges", ()), dtype=np.float64),
            categories=tuple(category for category, _ in categories),
            known=None if known is None else tuple(known),
            counts=np.array([*counts, *profile.get("counts", ())], dtype=np.int64),
            sums=np.array([*sums, *profile["sums"]], dtype=np.float64) if "sums" in profile else None,
            rows=profile.get("count", 0),
            nulls=profile.get("nulls", 0),
            nans=profile.get("nans", 0),
            infinities=profile.get("infinities", 0),
            **{which: profile.get(which) for which in ("min", "max", "p0_1", "p99_9", "mean", "sd", "importance")},
            comparable="categories" in profile or "points" in profile,
        )

    @classmethod
    def absent(cls, name: str, arrow_type: pa.DataType) -> ColumnBins:
        """Return bins of a column that the model's profile does not have: its values are counted, and compared with nothing."""
        kind = "list" if pa.types.is_list(arrow_type) else "text" if pa.types.is_string(arrow_type) else "number"
        return cls.from_profile(name, {"kind": kind})

    @property
    def has_other(self) -> bool:
        """Whether the last bin holds categories that training had and that are not counted by name."""
        return self.kind == "text" and len(self.counts) > len(self.categories)

    @property
    def tells_unseen(self) -> bool:
        """Whether a value that training had is told from one that it had not."""
        return self.comparable and (self.kind != "text" or self.known is not None)

    @cached_property
    def cuts(self) -> Floats:
        """Where the real line is cut so that no bin, and no limit of training, divides a piece: ascending, ``(n_cuts,)``.

        A piece reaches from its cut up to the next one, without that; every number of it counts as its first one does.
        """
        ends = np.concatenate([self.points, self.edges[-1:], [] if self.p99_9 is None else [self.p99_9]])
        begins = np.concatenate([self.points, self.edges, [] if self.p0_1 is None else [self.p0_1]])
        found = np.concatenate([begins, np.nextafter(ends, np.inf)])
        return np.unique(found[np.isfinite(found)] + 0.0)  # -0.0 and 0.0 are one number

    @cached_property
    def pieces(self) -> Floats:
        """The first number of each piece of the real line, shape ``(n_cuts + 1,)``."""
        return np.concatenate([[-np.inf], self.cuts])

    @cached_property
    def bin_of_piece(self) -> NDArray[np.int64]:
        """Bin of each piece, shape ``(n_cuts + 1,)``: its position, or ``UNDER``, ``OVER`` or ``BETWEEN``."""
        first, n_points, n_ranges = self.pieces, len(self.points), max(len(self.edges) - 1, 0)
        found = np.full(len(first), BETWEEN, dtype=np.int64)
        held = np.concatenate([self.points, self.edges])
        if len(held):
            found[first < held.min()] = UNDER
            found[first > held.max()] = OVER
        if n_ranges:
            within = (first >= self.edges[0]) & (first <= self.edges[-1])
            at = np.searchsorted(self.edges, first[within], side="right") - 1
            found[within] = n_points + np.minimum(at, n_ranges - 1)
        if n_points:
            at = np.minimum(np.searchsorted(self.points, first), n_points - 1)
            found[self.points[at] == first] = at[self.points[at] == first]
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelProfile:
    """The frozen bins of a model's features (as the feature query returns them) and outputs."""

    features: Mapping[str, ColumnBins]
    outputs: Mapping[str, ColumnBins]

    @classmethod
    def from_bundle(cls, profile: Mapping[str, Any]) -> ModelProfile:
        """Read them from ``Bundle.profile``, of this version of prescore or an earlier one."""
        return cls(
            features={
                name: ColumnBins.from_profile(name, found) for name, found in profile.get("features", {}).items()
            },
            outputs={name: ColumnBins.from_profile(name, found) for name, found in profile.get("outputs", {}).items()},
        )


def floats(values: pa.Array) -> Floats:
    """Return the values that are not NULL as float64: booleans 0 and 1, times seconds since 1970, lists their length.

    It may be a view of the Arrow buffer: not to be written into.
    """
    if pa.types.is_list(values.type):
        values = pc.list_value_length(values)
    if values.null_count:
        values = values.drop_null()
    scale = None
    if pa.types.is_date(values.type):
        values, scale = values.cast(pa.int32()), _SECONDS_OF_A_DAY
    elif pa.types.is_timestamp(values.type):
        values, scale = values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64()), 1e-6
    elif pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    found = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    return found if scale is None else found * scale
