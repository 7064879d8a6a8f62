"""Counting: the values of a run go into the frozen bins of its model, batch by batch, in the pass that scores them.

Counts are exact whatever the batches are, and counts of parts add up. Each chunk is sorted and the limits of the bins
are searched in it: that takes a third of the time of searching each value among the limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.profiles.bins import ColumnBins, ModelProfile, floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.profiles.bins import Counts, Floats

#: Values sorted at once: as many as fit into a core's own cache with a copy.
CHUNK = 65_536

_MODULUS = 2**64
_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
_HIGH, _LOW = np.uint64(32), np.uint64(29)
#: What one NULL and one NaN add to a digest: any odd numbers.
_NULL, _NAN = 0x9E3779B97F4A7C15, 0x94D049BB133111EB


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnCounts:
    """What one column of a run, or of several added up, looked like.

    Nothing is lost: ``rows == nulls + nans + infinities + under + over + (unseen or 0) + counts.sum()`` wherever the
    bins are comparable; where they are not, values are in no bin and ``unseen`` is None.
    """

    rows: int
    nulls: int
    nans: int
    infinities: int
    #: Numbers below and above everything that training saw.
    under: int
    over: int
    #: Texts that training did not have, and numbers between its values that no bin holds. None where that is unknown:
    #: training had too many values to keep them all, and what is counted as other may be unseen.
    unseen: int | None
    #: Numbers outside the quantiles 0.001 and 0.999 of training, those under and over included.
    tails: int
    #: Of the finite numbers; None when there are none.
    minimum: float | None
    maximum: float | None
    mean: float | None
    #: Sum of the squared distances from the mean.
    m2: float | None
    #: Values in each bin, in the order of the bins of :class:`ColumnBins`, int64.
    counts: Counts = field(repr=False)
    #: Outputs: the sum of the values in each bin, float64.
    sums: Floats | None = field(repr=False)
    #: Fingerprint of the values whatever their order, below 2^64.
    digest: int

    def merged(self, other: ColumnCounts) -> ColumnCounts:
        """Return what both parts together looked like; both must be counted into the same bins."""
        if len(self.counts) != len(other.counts):
            raise ValueError(f"counts of {len(self.counts)} and {len(other.counts)} bins do not add up")
        mean, m2 = _merged_moments(self, other)
        return ColumnCounts(
            **{name: getattr(self, name) + getattr(other, name) for name in _ADDED},
            unseen=None if self.unseen is None or other.unseen is None else self.unseen + other.unseen,
            minimum=_known(min, self.minimum, other.minimum),
            maximum=_known(max, self.maximum, other.maximum),
            mean=mean,
            m2=m2,
            counts=self.counts + other.counts,
            sums=None if self.sums is None or other.sums is None else self.sums + other.sums,
            digest=(self.digest + other.digest) % _MODULUS,
        )

    @property
    def finite(self) -> int:
        """Values that are finite numbers, or texts."""
        return self.rows - self.nulls - self.nans - self.infinities

    @property
    def sd(self) -> float | None:
        """Standard deviation of the finite numbers."""
        if self.m2 is None or not self.finite:
            return None
        return float(np.sqrt(self.m2 / self.finite))


_ADDED = ("rows", "nulls", "nans", "infinities", "under", "over", "tails")


def _known(choose: Any, one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else choose(one, other)


def _merged_moments(one: ColumnCounts, other: ColumnCounts) -> tuple[float | None, float | None]:
    """Return mean and m2 of both parts by Chan's pairwise update."""
    if one.mean is None or other.mean is None:
        # Without values the other part is all there is; a mean beyond what a float holds stays unknown.
        whole = other if not one.finite else one if not other.finite else None
        return (None, None) if whole is None else (whole.mean, whole.m2)
    n, m = one.finite, other.finite
    return _chan(n, one.mean, one.m2, m, other.mean, other.m2)


def _chan(
    n: int, mean: float, m2: float | None, m: int, other: float, other_m2: float | None
) -> tuple[float | None, float | None]:
    gap = other - mean
    both = mean + gap * m / (n + m)
    if m2 is None or other_m2 is None:
        return _finite(both), None
    return _finite(both), _finite(m2 + other_m2 + gap * gap * n * m / (n + m))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


class ProfileCounter:
    """Counts feature batches and prediction batches into a model's bins; memory does not grow with the rows."""

    def __init__(self, model_profile: ModelProfile) -> None:
        self.model_profile = model_profile
        self._features: dict[str, _Counter] = {n: _counter(b) for n, b in model_profile.features.items()}
        self._outputs: dict[str, _Counter] = {n: _counter(b, sums=True) for n, b in model_profile.outputs.items()}

    def add(self, features: pa.RecordBatch, outputs: pa.RecordBatch) -> None:
        """Count a batch: features as the feature query returns them, outputs of the rows that were scored.

        Columns that are no feature of the model are left out; an output that its profile does not have is counted without
        bins.
        """
        for name, counter in self._features.items():
            at = features.schema.get_field_index(name)
            if at >= 0:
                counter.add(features.column(at))
        for name, values in zip(outputs.schema.names, outputs.columns, strict=True):
            if name not in self._outputs:
                self._outputs[name] = _counter(ColumnBins.absent(name, values.type), sums=True)
            self._outputs[name].add(values)

    @property
    def features(self) -> dict[str, ColumnCounts]:
        """What was counted of each feature."""
        return {name: counter.counted() for name, counter in self._features.items()}

    @property
    def outputs(self) -> dict[str, ColumnCounts]:
        """What was counted of each output."""
        return {name: counter.counted() for name, counter in self._outputs.items()}

    @property
    def rows(self) -> int:
        """Rows whose features were counted."""
        return max((counter.rows for counter in self._features.values()), default=0)


def _counter(bins: ColumnBins, *, sums: bool = False) -> _Counter:
    return _TextCounter(bins) if bins.kind == "text" else _NumberCounter(bins, sums=sums)


class _Counter:
    """Counts one column."""

    def __init__(self, bins: ColumnBins) -> None:
        self.bins = bins
        self.rows = self.nulls = self.digest = 0

    def add(self, values: pa.Array) -> None:
        self.rows += len(values)
        self.nulls += values.null_count
        self._add(values)

    def _add(self, values: pa.Array) -> None:
        raise NotImplementedError

    def counted(self) -> ColumnCounts:
        raise NotImplementedError

    def _digest(self) -> int:
        return (self.digest + self.nulls * _NULL) % _MODULUS


class _NumberCounter(_Counter):
    def __init__(self, bins: ColumnBins, *, sums: bool) -> None:
        super().__init__(bins)
        # One place before the first cut, for minus infinity.
        self.intervals = np.zeros(len(bins.cuts) + 1, dtype=np.int64)
        self.sums = np.zeros(len(bins.counts)) if sums else None
        self.minimum: float | None = None
        self.maximum: float | None = None
        self.mean: float | None = None
        self.m2: float | None = None
        self.finite = 0

    def _add(self, values: pa.Array) -> None:
        if pa.types.is_list(values.type):
            # Lists are counted by length, but two lists of one length are not the same.
            self.digest += _list_digest(values.flatten())
        numbers = floats(values)
        for start in range(0, len(numbers), CHUNK):
            self._add_chunk(np.sort(numbers[start : start + CHUNK]))

    def _add_chunk(self, ascending: Floats) -> None:
        ascending += 0.0  # -0.0 becomes 0.0
        at = np.searchsorted(ascending, self.bins.cuts)
        self.intervals += np.diff(at, prepend=0, append=len(ascending))
        nans = len(ascending) - int(at[-1])
        self.digest += _mixed_sum(ascending[: at[-1]]) + nans * _NAN
        finite = ascending[at[0] : at[-2]]
        if len(finite):
            self._add_moments(finite)
            if self.sums is not None:
                _add_sums(self.sums, finite, at[:-1] - at[0], self.bins.bin_of_interval)

    def _add_moments(self, ascending: Floats) -> None:
        low, high, n = float(ascending[0]), float(ascending[-1]), len(ascending)
        self.minimum, self.maximum = _known(min, self.minimum, low), _known(max, self.maximum, high)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(np.add.reduce(ascending)) / n
            away = ascending - mean
            m2 = float(np.dot(away, away))
            if self.finite == 0:
                self.mean, self.m2 = _finite(mean), _finite(m2)
            elif self.mean is not None:
                self.mean, self.m2 = _chan(self.finite, self.mean, self.m2, n, mean, m2)
        self.finite += n

    def counted(self) -> ColumnCounts:
        bins, finite = self.bins, self.intervals[1:-2]
        where = bins.bin_of_interval
        counts = np.zeros(len(bins.counts), dtype=np.int64)
        np.add.at(counts, where[where >= 0], finite[where >= 0])
        starts = bins.cuts[:-2]
        tails = 0
        if bins.p0_1 is not None and bins.p99_9 is not None:
            tails = int(finite[(starts < bins.p0_1) | (starts > bins.p99_9)].sum())
        return ColumnCounts(
            rows=self.rows,
            nulls=self.nulls,
            nans=int(self.intervals[-1]),
            infinities=int(self.intervals[0] + self.intervals[-2]),
            under=int(finite[where == -1].sum()),
            over=int(finite[where == -2].sum()),
            unseen=int(finite[where == -3].sum()) if bins.comparable else None,
            tails=tails,
            minimum=self.minimum,
            maximum=self.maximum,
            mean=self.mean,
            m2=self.m2,
            counts=counts,
            sums=None if self.sums is None else self.sums.copy(),
            digest=self._digest(),
        )


class _TextCounter(_Counter):
    def __init__(self, bins: ColumnBins) -> None:
        super().__init__(bins)
        self.counts = np.zeros(len(bins.counts), dtype=np.int64)
        self.unseen = 0
        self._named = pa.array(bins.categories, pa.string())
        self._known = pa.array(bins.known or (), pa.string())

    def _add(self, values: pa.Array) -> None:
        counted = pc.value_counts(values.drop_null() if values.null_count else values)
        texts, numbers = counted.field("values").cast(pa.string()), counted.field("counts").to_numpy()
        self.digest += _text_digest(texts, numbers)
        at = pc.index_in(texts, value_set=self._named)
        named = pc.is_valid(at).to_numpy(zero_copy_only=False)
        self.counts[at.drop_null().to_numpy()] += numbers[named]
        if named.all():
            return
        rest = numbers[~named]
        if self.bins.known is None:
            self.counts[-1] += rest.sum()
            return
        known = pc.is_in(texts.filter(pa.array(~named)), value_set=self._known).to_numpy(zero_copy_only=False)
        if known.any():
            self.counts[-1] += rest[known].sum()
        self.unseen += int(rest[~known].sum())

    def counted(self) -> ColumnCounts:
        return ColumnCounts(
            rows=self.rows,
            nulls=self.nulls,
            nans=0,
            infinities=0,
            under=0,
            over=0,
            unseen=self.unseen if self.bins.tells_unseen else None,
            tails=0,
            minimum=None,
            maximum=None,
            mean=None,
            m2=None,
            counts=self.counts.copy(),
            sums=None,
            digest=self._digest(),
        )


def _add_sums(sums: Floats, ascending: Floats, at: NDArray[np.int64], bin_of_interval: NDArray[np.int64]) -> None:
    """Add the values of each bin to ``sums``, given where each finite interval starts and the last one ends."""
    filled = np.flatnonzero(np.diff(at))
    totals = np.add.reduceat(ascending, at[filled])
    bins = bin_of_interval[filled]
    np.add.at(sums, bins[bins >= 0], totals[bins >= 0])


def _mixed_sum(values: Floats) -> int:
    """Return the sum of the mixed bits of values, whatever their order, modulo 2^64.

    The bits are mixed before they are added: plain sums would not see that one value rose as another fell.
    """
    bits = values.view(np.uint64)
    mixed = bits >> _HIGH
    mixed ^= bits
    mixed *= _MULTIPLIER
    mixed ^= mixed >> _LOW
    return int(np.add.reduce(mixed))


def _list_digest(elements: pa.Array) -> int:
    if pa.types.is_string(elements.type):
        counted = pc.value_counts(elements.drop_null())
        return _text_digest(counted.field("values"), counted.field("counts").to_numpy())
    return _mixed_sum(floats(elements) + 0.0)


def _text_digest(texts: pa.Array, counts: Counts) -> int:
    import pandas as pd

    hashed = pd.util.hash_array(texts.to_numpy(zero_copy_only=False), categorize=False)
    return int(np.add.reduce(hashed * counts.astype(np.uint64)))


def merged(parts: Iterable[Mapping[str, ColumnCounts]]) -> dict[str, ColumnCounts]:
    """Return counts of several runs added up by column; a column that one of them counted otherwise is left out."""
    total: dict[str, ColumnCounts] = {}
    differing: set[str] = set()
    for part in parts:
        for name, counts in part.items():
            before = total.get(name)
            if before is not None and len(before.counts) != len(counts.counts):
                differing.add(name)
                continue
            total[name] = counts if before is None else before.merged(counts)
    return {name: counts for name, counts in total.items() if name not in differing}
