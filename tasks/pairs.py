"""Pairs of key and instant that features are wanted for, and which row of a dataset answers each of them.

The rows of a dataset come in any order and may be many more than the pairs, so they are streamed past; what stays in
memory is a number for each pair: in a full run 9 bytes, 17 where rows have instants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.columns import Column, whole

Numbers = np.ndarray[Any, np.dtype[np.int64]]

#: Before every instant: no row was met yet.
NEVER = np.iinfo(np.int64).min


def tags(rows: pa.RecordBatch | pa.Table, key: Sequence[Column]) -> Numbers:
    """Return a number for each key, shape ``(n,)``: itself where it is one integer or date, else a 64-bit hash.

    Two keys with one hash (3 in a million runs over ten million entities) mix no predictions up: rows keep their own key, an
    outsider's row is found by the ledger, and of two entities one may be rejected as ``no_features``.
    """
    arrays = [whole(rows, column.name) for column in key]
    if len(arrays) == 1 and not _is_text(arrays[0]):
        return _integers(arrays[0])
    import pandas as pd

    values = {str(i): _hashable(array) for i, array in enumerate(arrays)}
    hashed = pd.util.hash_pandas_object(pd.DataFrame(values), index=False)
    return hashed.to_numpy().view(np.int64)


def micros(instants: pa.Array) -> Numbers:
    """Return instants as microseconds since 1970."""
    return np.asarray(instants.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False))


def _is_text(values: pa.Array) -> bool:
    return bool(pa.types.is_string(values.type))


def _integers(values: pa.Array) -> Numbers:
    if pa.types.is_date(values.type):
        values = values.cast(pa.int32())
    return np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False))


def _hashable(values: pa.Array) -> Any:
    return values.to_numpy(zero_copy_only=False) if _is_text(values) else _integers(values)


class Pairs:
    """The pairs of one reading, by key and instant.

    ``note`` is shown every row first when rows have instants; then ``answer`` says which rows answer which pairs.
    """

    def __init__(self, keys: Numbers, instants: Numbers | int) -> None:
        #: Whether a key was given twice at one instant (or two have one hash); it then counts once.
        self.repeated = False
        if isinstance(instants, int):
            keys.sort()
            same = keys[1:] == keys[:-1]
        else:
            order = np.lexsort((instants, keys))
            keys, instants = keys[order], instants[order]
            same = (keys[1:] == keys[:-1]) & (instants[1:] == instants[:-1])
        if same.any():
            self.repeated, once = True, np.append(True, ~same)
            keys, instants = keys[once], instants if isinstance(instants, int) else instants[once]
        #: The one instant of all pairs, or that of each.
        self.instants = instants
        #: Whether each key is there once: then pairs are numbered as keys are, and little is remembered.
        self._plain = isinstance(instants, int)
        self._pairs = len(keys)
        self.keys = keys
        self.latest: Numbers | None = None
        self.answers = np.zeros(len(keys), dtype=np.uint8)
        if isinstance(instants, int):
            return
        first = np.ones(len(keys), dtype=bool)
        first[1:] = keys[1:] != keys[:-1]
        self.keys = keys[first]
        # Where the pairs of each key begin; behind the last one, their number.
        self._begins = np.append(np.flatnonzero(first), len(keys))
        self._of = np.cumsum(first) - 1
        self._known = np.unique(instants)
        self._order = self._of * (len(self._known) + 1) + np.searchsorted(self._known, instants)
        self._run_ends = np.empty(0, np.int64)

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch | pa.Table], key: Sequence[Column], as_of: datetime | str) -> Pairs:
        """Return the pairs of keys that come in batches, all at one instant or each at that of a column."""
        found, instants = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for batch in batches:
            found.append(tags(batch, key))
            if isinstance(as_of, str):
                instants.append(micros(whole(batch, as_of)))
        if isinstance(as_of, str):
            return cls(np.concatenate(found), np.concatenate(instants))
        return cls(np.concatenate(found), int(micros(pa.array([as_of], pa.timestamp("us", "UTC")))[0]))

    def __len__(self) -> int:
        return self._pairs

    def instants_of(self, pairs: Numbers) -> pa.Array:
        """Return the instants of pairs by their positions."""
        if isinstance(self.instants, int):
            found = np.full(len(pairs), self.instants, np.int64)
        else:
            found = self.instants[pairs]
        return pa.array(found).cast(pa.timestamp("us", "UTC"))

    @property
    def unanswered(self) -> int:
        """Pairs that no row answered."""
        return int(np.count_nonzero(self.answers == 0))

    @property
    def answered_twice(self) -> int:
        """Pairs that several rows answered."""
        return int(np.count_nonzero(self.answers > 1))

    def is_answered_twice(self, groups: Numbers) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return for each key, by its number, whether several rows answered a pair of it."""
        found = np.zeros(len(groups), dtype=bool)
        rows = np.flatnonzero(groups >= 0)
        begins, _ = self._span(np.arange(len(self.keys)))
        if len(begins):
            found[rows] = np.maximum.reduceat(self.answers, begins)[groups[rows]] > 1
        return found

    def touches(self, low: int, high: int) -> bool:
        """Return whether a key lies in a closed range; for keys that are their own number."""
        return bool(np.searchsorted(self.keys, low, "left") < np.searchsorted(self.keys, high, "right"))

    def groups(self, keys: Numbers) -> Numbers:
        """Return for each key its number among the distinct ones, -1 for one that nobody wants."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int64)
        # Sorted needles walk through the haystack instead of jumping about in it.
        order = np.argsort(keys)
        sorted_keys = keys[order]
        at = np.minimum(np.searchsorted(self.keys, sorted_keys), len(self.keys) - 1)
        found = np.empty(len(keys), np.int64)
        found[order] = np.where(self.keys[at] == sorted_keys, at, -1)
        return found

    def note(self, groups: Numbers, instants: Numbers) -> None:
        """Look at rows that are known from an instant on: the newest one up to a pair's instant answers it."""
        if self.latest is None:
            self.latest = np.full(len(self), NEVER, np.int64)
        at, kept = self._first_from(groups, instants)
        np.maximum.at(self.latest, at, instants[kept])

    def close(self) -> None:
        """Let each pair know of the rows that earlier instants of its key have met: every row was noted."""
        import pandas as pd

        if self.latest is None:
            self.latest = np.full(len(self), NEVER, np.int64)
        if self._plain:
            return
        self.latest = pd.Series(self.latest).groupby(self._of).cummax().to_numpy(dtype=np.int64)
        last = np.ones(len(self), dtype=bool)
        last[:-1] = (self._of[1:] != self._of[:-1]) | (self.latest[1:] != self.latest[:-1])
        ends = np.flatnonzero(last) + 1
        self._run_ends = ends[np.searchsorted(ends, np.arange(len(self)), "right")]

    def answer(self, groups: Numbers, instants: Numbers | None) -> tuple[Numbers, Numbers]:
        """Return rows and the pairs that they answer, both as positions and of one length.

        Without instants a row answers every pair of its key.
        """
        if instants is None:
            rows = np.flatnonzero(groups >= 0)
            first, ends = self._span(groups[rows])
        else:
            assert self.latest is not None
            first, rows = self._first_from(groups, instants)
            newest = self.latest[first] == instants[rows]
            first, rows = first[newest], rows[newest]
            ends = first + 1 if self._plain else self._run_ends[first]
        counts = ends - first
        answering = np.repeat(rows, counts)
        before = np.repeat(np.cumsum(counts) - counts, counts)
        pairs = np.arange(len(answering)) - before + np.repeat(first, counts)
        met, times = np.unique(pairs, return_counts=True)
        # A hundred rows for one pair are as wrong as two.
        self.answers[met] = np.minimum(2, self.answers[met] + times)
        return answering, pairs

    def _span(self, groups: Numbers) -> tuple[Numbers, Numbers]:
        """Return where the pairs of keys begin and end."""
        return (groups, groups + 1) if self._plain else (self._begins[groups], self._begins[groups + 1])

    def _first_from(self, groups: Numbers, instants: Numbers) -> tuple[Numbers, Numbers]:
        """Return the first pair of each row's key that is not before the row's instant, and the rows that have one."""
        if self._plain:
            rows = np.flatnonzero((groups >= 0) & (instants <= self.instants))
            return groups[rows], rows
        rows = np.flatnonzero(groups >= 0)
        width = len(self._known) + 1
        wanted = groups[rows] * width + np.searchsorted(self._known, instants[rows])
        at = np.searchsorted(self._order, wanted)
        there = at < self._begins[groups[rows] + 1]
        return at[there], rows[there]


def null_rows(rows: pa.RecordBatch, names: Sequence[str]) -> int:
    """Return how many rows have a NULL in one of these columns."""
    missing = np.zeros(rows.num_rows, dtype=bool)
    for name in names:
        missing |= pc.is_null(rows.column(name)).to_numpy(zero_copy_only=False)
    return int(missing.sum())
