"""How old what features were made of is: counted by [features.ttl] from the batches that are scored, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.features import AS_OF

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.declaration import FeatureTtl

# Bins whose bounds grow by half a percent from one second on: an age is known to that share of itself. A hundred years
# need 4,388 of them, 35 KB.
_GROWTH = 1.005
_BINS = 4_400


@dataclass(kw_only=True)
class Ages:
    """What was counted of one column."""

    rows: int = 0
    #: Rows without an instant.
    nulls: int = 0
    #: Rows whose instant is later than their as_of.
    ahead: int = 0
    #: Rows at least as old as the ttl.
    beyond: int = 0
    #: Those of them that have no value in any of the declared features.
    cut: int = 0
    #: Rows by age, in the bins of this module.
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, dtype=np.int64), repr=False)

    @property
    def known(self) -> int:
        """Rows with an instant."""
        return self.rows - self.nulls

    def absorb(self, other: Ages) -> None:
        """Add what was counted of other rows."""
        for name in ("rows", "nulls", "ahead", "beyond", "cut"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.counts = self.counts + other.counts

    def share(self, count: int) -> float:
        """Return a count as a share of all rows."""
        return count / self.rows if self.rows else 0.0

    def percentile(self, share: float) -> timedelta | None:
        """Return the age that this share of the rows with an instant does not exceed; at most half a percent too much."""
        return self.oldest(self.known - ceil(share * self.known) + 1) if self.known else None

    def oldest(self, place: int) -> timedelta | None:
        """Return the age of the row at a place, from 1 for the oldest; None when there are not so many rows."""
        if not 1 <= place <= self.known:
            return None
        from_the_oldest = np.cumsum(self.counts[::-1])
        at = _BINS - 1 - int(np.searchsorted(from_the_oldest, place))
        return timedelta(seconds=_GROWTH**at)


class AgeCounter:
    """Counts the ages of the declared columns, batch by batch."""

    def __init__(self, ttl: Mapping[str, FeatureTtl]) -> None:
        """``ttl``: column -> how old it may be."""
        self._ttl = ttl
        self.columns: dict[str, Ages] = {name: Ages() for name in ttl}

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of feature rows; the age of a row counts back from its own as_of."""
        for name, declared in self._ttl.items():
            seen = batch.column(name)
            ages = pc.subtract(_micros(batch.column(AS_OF.name)), _micros(seen))
            known = ages.drop_null().to_numpy(zero_copy_only=False)
            limit = declared.ttl // timedelta(microseconds=1)
            counted = self.columns[name]
            counted.rows += batch.num_rows
            counted.nulls += seen.null_count
            counted.ahead += int((known < 0).sum())
            counted.beyond += int((known >= limit).sum())
            counted.counts += np.bincount(_bins(known), minlength=_BINS)
            if declared.features:
                lost = pc.fill_null(pc.greater_equal(ages, limit), False)
                for feature in declared.features:
                    lost = pc.and_(lost, batch.column(feature).is_null(nan_is_null=True))
                counted.cut += lost.true_count


def _micros(instants: pa.Array) -> pa.Array:
    return instants.cast(pa.timestamp("us", "UTC")).cast(pa.int64())


def _bins(micros: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bin of each age: the first whose bound is not below it."""
    seconds = np.maximum(micros / 1e6, 1.0)
    return np.asarray(np.minimum(np.ceil(np.log(seconds) / np.log(_GROWTH)), _BINS - 1), dtype=np.int64)
