"""Sentinels: rows with a known prediction that are scored among the others, to find what goes wrong only in bulk.

Golden rows that are replayed alone prove that the model still computes what it did. They cannot show a row that got its
neighbour's prediction, or a fault at the edge of a batch: sentinels at the edges and in the middle of one do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.bundle import Bundle, worst_difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.pipeline import Output

#: Enough to stand at both edges and in the middle of a batch, few enough that scoring them is not noticed.
SENTINEL_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Rows to be scored, sentinels among them where there are lengths."""

    rows: pa.RecordBatch
    #: Lengths of what the rows consist of, in turn sentinels and others; empty where there are no sentinels.
    lengths: tuple[int, ...] = ()


class Sentinels:
    """Golden rows that take part in a scoring pass, and what they got there.

    They stand at the beginning, at a random position and at the end of the 1st, 2nd, 4th, 8th... batch of the pass, and
    are taken out of the predictions again before anything is counted or written. Memory: one batch more.
    """

    def __init__(self, bundle: Bundle, outputs: Sequence[Output], atol: float, seed: int) -> None:
        """Choose rows of a bundle's golden ones; ``seed`` decides which ones, and where they stand."""
        self._atol = atol
        self._random = np.random.default_rng(seed)
        names = _as_registered(bundle, outputs)
        known = np.flatnonzero(_finite(bundle.golden_outputs.select(names))) if names else np.array([], dtype=np.int64)
        chosen = np.sort(self._random.permutation(known)[:SENTINEL_ROWS])
        self._golden = bundle.golden.take(pa.array(chosen))
        self._expected = bundle.golden_outputs.select(names).take(pa.array(chosen))
        self._rows: pa.RecordBatch | None = None
        self._batches = 0
        #: How many times a sentinel was scored among other rows.
        self.compared = 0
        #: What differed first, in words without values; None while everything is as recorded.
        self.worst: str | None = None
        #: Why there are none; empty where there are.
        self.skipped = "" if len(chosen) else "no golden row has a recorded prediction of what is declared now"

    def mix(self, batch: pa.RecordBatch) -> Mixed:
        """Return a batch to be scored; some batches take sentinels along, which :meth:`take_out` finds again."""
        self._batches += 1
        rows = self._rows_like(batch.schema)
        if rows is None or self._batches & (self._batches - 1):
            return Mixed(rows=batch)
        at = int(self._random.integers(0, batch.num_rows + 1))
        first, second = rows.num_rows // 3, 2 * rows.num_rows // 3
        parts = [rows[:first], batch[:at], rows[first:second], batch[at:], rows[second:]]
        return Mixed(rows=pa.concat_batches(parts), lengths=tuple(part.num_rows for part in parts))

    def take_out(self, mixed: Mixed, scored: pa.RecordBatch) -> pa.RecordBatch:
        """Return the predictions without those of the sentinels, which are compared with what is known."""
        if not mixed.lengths:
            return scored
        starts = np.cumsum([0, *mixed.lengths])
        pieces = [scored.slice(start, length) for start, length in zip(starts, mixed.lengths, strict=False)]
        self._compare(pa.Table.from_batches(pieces[0::2]))
        return pa.concat_batches(pieces[1::2])

    def absorb(self, compared: int, worst: str | None, skipped: str) -> None:
        """Add what sentinels of the same bundle got in another pass."""
        self.compared += compared
        self.worst = self.worst if self.worst is not None else worst
        self.skipped = self.skipped or skipped

    def _compare(self, found: pa.Table) -> None:
        self.compared += found.num_rows
        if self.worst is not None:
            return
        rejected = len(found) - found.column("rejected").null_count
        if rejected:
            self.worst = f"{rejected} of {len(found)} were rejected"
        else:
            self.worst = worst_difference(self._expected, found, self._atol)

    def _rows_like(self, schema: pa.Schema) -> pa.RecordBatch | None:
        """Return the sentinels with the columns of the feature batches; None where a type cannot hold them."""
        if self.skipped:
            return None
        if self._rows is None:
            arrays = []
            for field in schema:
                values = self._values(field)
                if values is None:
                    self.skipped = f"{field.name} has a type now that cannot hold what golden rows remember"
                    return None
                arrays.append(values)
            self._rows = pa.RecordBatch.from_arrays(arrays, schema=schema)
        return self._rows

    def _values(self, field: pa.Field) -> pa.Array | None:
        if field.name not in self._golden.column_names:  # a key that was not known, or what the model does not know
            return pa.nulls(self._golden.num_rows, field.type)
        values = self._golden.column(field.name).combine_chunks()
        try:
            held = values.cast(field.type)
            return held if _same(held.cast(values.type), values) else None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None


def _as_registered(bundle: Bundle, outputs: Sequence[Output]) -> list[str]:
    """Return the outputs whose golden predictions were recorded as they are declared now."""
    recorded = {output.name: output.model_dump(exclude={"index"}) for output in bundle.outputs}
    return [output.name for output in outputs if recorded.get(output.name) == output.model_dump(exclude={"index"})]


def _finite(outputs: pa.Table) -> NDArray[np.bool_]:
    """Return which rows have no missing and no infinite value: others would be rejected on the way."""
    good = np.ones(outputs.num_rows, dtype=bool)
    for column in outputs.columns:
        values = column.combine_chunks()
        good &= ~values.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_list(values.type):
            parents = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
            values = values.flatten()
        else:
            parents = np.arange(len(values))
        if pa.types.is_floating(values.type):
            bad = ~pc.fill_null(pc.is_finite(values), False).to_numpy(zero_copy_only=False)
            good[parents[bad]] = False
    return good


def _same(held: pa.Array, values: pa.Array) -> bool:
    if pa.types.is_floating(values.type):  # NaN is not equal to itself
        return bool(
            np.array_equal(held.to_numpy(zero_copy_only=False), values.to_numpy(zero_copy_only=False), equal_nan=True)
        )
    return bool(held.equals(values))
