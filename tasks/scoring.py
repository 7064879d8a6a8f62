"""Feature batches become prediction batches: rejections, preprocessing, the model, and what was counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.bundle import preprocessed
from tasks.columns import Column, Kind
from tasks.compiled.tables import RowsTable, Table
from tasks.errors import PrescoreError
from tasks.faults import reached
from tasks.features import AS_OF, FeatureContract
from tasks.fingerprints import FINGERPRINT
from tasks.outputs import continuous, predict_outputs
from tasks.sentinels import Mixed, Sentinels
from tasks.stream import StageCost, took
from tasks.threads import one_openmp_thread, predicting_threads

if TYPE_CHECKING:
    import pandas as pd

    from tasks.bundle import Bundle
    from tasks.compiled import CompiledEstimator
    from tasks.compiled.rows import Decoder
    from tasks.feature_ages import AgeCounter
    from tasks.pipeline import Pipeline
    from tasks.profiles import ProfileCounter
    from tasks.stream import Stream

    Mask = np.ndarray[Any, np.dtype[np.bool_]]
    Reasons = np.ndarray[Any, np.dtype[np.object_]]
    Outputs = dict[str, pa.Array]

SCORED_IN = Column(name="scored_in", postgres_type="bigint")
REJECTED = Column(name="rejected", postgres_type="text")

# How far two scores of one row may differ before they count as different, as a share of themselves where they are larger
# than 1: linear models and neural nets differ by 2e-16 of a score between batch sizes.
SAME_SCORE = 1e-9


class ModelFailed(PrescoreError):
    """Preprocessing or the model raised on a batch."""

    def __init__(self, where: str, cause: BaseException, rows_before: int) -> None:
        self.where, self.rows_before = where, rows_before
        super().__init__(
            f"{where} raised {type(cause).__name__} on a batch after {rows_before:,} rows. Nothing was published; the last "
            "good publication is still served. `prescore --verbose score` shows where; correct the pipeline, or promote an "
            "earlier model version."
        )


@dataclass(kw_only=True)
class Tally:
    """What one scoring pass counted."""

    rows: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    #: Smallest and largest finite value of each continuous output.
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    #: Counts what the columns look like, in the same pass; None for rows that are no part of what the run scores.
    profile: ProfileCounter | None = None
    #: Counts how old what the features were made of is; None where no [features.ttl] asks.
    ages: AgeCounter | None = None
    #: How long reading, scoring and writing took, in seconds.
    seconds: float = 0.0
    #: Stage of the stream -> what it took: read, prepare, predict, assemble, write.
    stages: dict[str, StageCost] = field(default_factory=dict)
    #: Called with the number of rows so far after each batch.
    progress: Callable[[int], None] = lambda rows: None
    #: Rows with a known prediction that are scored among the others, and count nowhere.
    sentinels: Sentinels | None = None

    @property
    def scored(self) -> int:
        """Rows that got a prediction."""
        return self.rows - self.rejected

    @property
    def rows_per_second(self) -> float:
        """Rows read, scored and written per second; 0 when nothing was."""
        return self.rows / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A batch on its way to the model."""

    batch: pa.RecordBatch
    mixed: Mixed
    #: Why rows are rejected, and which are not; None for all when none is.
    reasons: Reasons | None
    kept: Mask | None
    #: What the model sees of the rows that are kept; None when there are none.
    frame: pd.DataFrame | Table | None
    #: Rows of the batches before.
    rows_before: int


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A loaded model with everything that turns feature rows into prediction rows."""

    pipeline: Pipeline
    contract: FeatureContract
    bundle: Bundle
    preprocess: Callable[[pd.DataFrame], pd.DataFrame] | None
    outputs: tuple[Column, ...]
    #: The bundle's model in compiled form; None where it has none.
    compiled: CompiledEstimator | None = None
    #: Compiled code that decodes the rows of features; None where the driver decodes them.
    decoder: Decoder | None = None

    @property
    def estimator(self) -> Any:
        """What predicts: the bundle's model, in compiled form where it has one."""
        return self.bundle.estimator if self.compiled is None else self.compiled

    @property
    def read_columns(self) -> tuple[Column, ...]:
        """Columns of a batch of feature rows: those of the contract, and the fingerprint where the query returns one."""
        kept = (FINGERPRINT,) if self.pipeline.features.fingerprint else ()
        return (*self.contract.columns, *kept)

    @property
    def doubtful(self) -> bool:
        """Whether the compiled form returned rows before it was found to differ."""
        return self.compiled is not None and self.compiled.doubtful

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of a prediction batch: key, as_of, scored_in, rejected, the fingerprint where one is kept, outputs."""
        kept = (FINGERPRINT,) if self.pipeline.features.fingerprint else ()
        return (*self.contract.key, AS_OF, SCORED_IN, REJECTED, *kept, *self.outputs)

    def predictions(
        self, batches: Iterable[pa.RecordBatch], generation_id: int, tally: Tally, stream: Stream | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield a prediction batch for each feature batch, of the same length and order.

        Rejected rows keep their key with a reason and NULL outputs. Memory is bounded by the batch. With a ``stream``,
        batches are prepared and predicted in threads of it while the caller works on those before; without one, when the
        caller asks for them.

        Raises
        ------
        ModelFailed
            When preprocessing or the model raises on rows that were not rejected.
        """
        prepare, predict = partial(self._prepare, tally=tally, seen=[0]), self._predict
        predicted: Iterator[tuple[_Prepared, Outputs]]
        if stream is None:
            predicted = map(predict, map(prepare, batches))
        else:
            threads = predicting_threads(self.estimator)
            prepared = stream.stage("prepare", prepare, batches, depth=1)
            each = one_openmp_thread if threads > 1 else lambda: None
            predicted = stream.stage(
                "predict", predict, prepared, depth=threads + 1, threads=threads, prepare_thread=each
            )
        assembling = StageCost() if stream is None else stream.costs.setdefault("assemble", StageCost())
        for made, values in predicted:
            with took(assembling):
                scored = self._assemble(made, values, generation_id)
                if tally.sentinels is not None:
                    scored = tally.sentinels.take_out(made.mixed, scored)
                self._count(made.batch, scored, tally)
            tally.progress(tally.rows)
            reached("stream.batch")
            yield scored

    def _prepare(self, batch: pa.RecordBatch, tally: Tally, seen: list[int]) -> _Prepared:
        """Find what the model cannot take, and make the frame of the rest; one batch after the other."""
        mixed = Mixed(rows=batch) if tally.sentinels is None else tally.sentinels.mix(batch)
        reasons = self._reasons_before(mixed.rows)
        kept = None if reasons is None else _is_none(reasons)
        rows_before = seen[0]
        seen[0] += batch.num_rows
        frame: pd.DataFrame | Table | None = None
        if kept is None or kept.any():
            accepted = mixed.rows if kept is None else mixed.rows.filter(pa.array(kept))
            frame = self._frame(accepted, rows_before)
        return _Prepared(batch=batch, mixed=mixed, reasons=reasons, kept=kept, frame=frame, rows_before=rows_before)

    def _predict(self, prepared: _Prepared) -> tuple[_Prepared, Outputs]:
        """Call the model; several batches at once where the estimator bears it."""
        if prepared.frame is None:
            return prepared, {}
        values = self._outputs(prepared.frame, prepared.rows_before)
        return replace(prepared, frame=None), values  # the frame is the largest thing of a batch

    def _assemble(self, prepared: _Prepared, values: Outputs, generation_id: int) -> pa.RecordBatch:
        """Return the prediction rows of a batch, its sentinels among them."""
        rows, kept = prepared.mixed.rows, prepared.kept
        n = rows.num_rows
        reasons = self._reject_non_finite(values, kept, prepared.reasons, n)
        arrays = [rows.column(column.name) for column in (*self.contract.key, AS_OF)]
        arrays.append(pa.array(np.full(n, generation_id, dtype=np.int64)))
        arrays.append(pa.nulls(n, pa.string()) if reasons is None else pa.array(reasons, pa.string()))
        if self.pipeline.features.fingerprint:
            read = FINGERPRINT.name in rows.schema.names
            arrays.append(rows.column(FINGERPRINT.name) if read else pa.nulls(n, FINGERPRINT.arrow_type))
        if reasons is None:
            arrays += [values[column.name] for column in self.outputs]
        else:
            everybody = np.ones(n, dtype=bool) if kept is None else kept
            good = _is_none(reasons)
            arrays += [self._spread(values.get(column.name), column, everybody, good) for column in self.outputs]
        return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in self.columns])

    def _count(self, batch: pa.RecordBatch, scored: pa.RecordBatch, tally: Tally) -> None:
        reasons = scored.column(REJECTED.name).drop_null()
        tally.rows += scored.num_rows
        tally.rejected += len(reasons)
        tally.reasons.update(reasons.to_pylist())
        self._note_ranges(scored.columns[-len(self.outputs) :], tally)
        if tally.ages is not None:
            tally.ages.add(batch)
        if tally.profile is not None:
            predicted = scored.select([column.name for column in self.outputs])
            if len(reasons):
                predicted = predicted.filter(pc.is_null(scored.column(REJECTED.name)))
            tally.profile.add(batch, predicted)

    def _frame(self, batch: pa.RecordBatch, rows_before: int) -> pd.DataFrame | Table:
        if self._seen is not None:
            return RowsTable(batch, self._seen)
        try:
            return self.bundle.prepare(preprocessed(batch, self.contract.features, self.preprocess))
        except PrescoreError:
            raise
        except Exception as error:
            raise ModelFailed(
                f"{self.pipeline.name}/{self.pipeline.features.preprocess}", error, rows_before
            ) from error

    @property
    def _seen(self) -> tuple[Column, ...] | None:
        """Columns that a model sees as they come, in its order; None where a frame has to be made of them."""
        if self.compiled is None or self.preprocess is not None:
            return None
        features = {column.name: column for column in self.contract.features}
        names = self.bundle.model_features
        return tuple(features[name] for name in names) if set(names) <= features.keys() else None

    def _outputs(self, frame: pd.DataFrame | Table, rows_before: int) -> Outputs:
        try:
            return predict_outputs(self.estimator, frame, self.pipeline.predictions, self.outputs)
        except PrescoreError:
            raise
        except Exception as error:
            raise ModelFailed(f"Model {self.bundle.name}", error, rows_before) from error

    def _reasons_before(self, batch: pa.RecordBatch) -> Reasons | None:
        """Return for each row why the model cannot take it, or None: what raised at registration is rejected here.

        None for all when there is nothing to reject.
        """
        reasons: Reasons | None = None
        for column in self.contract.features:
            for where, reason in self._refused(batch.column(column.name), column):
                if where.any():
                    reasons = np.full(batch.num_rows, None, dtype=object) if reasons is None else reasons
                    _set(reasons, where, reason)
        return reasons

    def _refused(self, values: pa.Array, column: Column) -> Iterator[tuple[Mask, str]]:
        if column.name in self.bundle.raises_on_null:
            yield _missing(values), f"null:{column.name}"
        if column.kind is Kind.NUMBER and column.name in self.bundle.raises_on_infinity:
            yield _infinite(values), f"infinite:{column.name}"
        known = self.bundle.known_categories.get(column.name)
        if known is not None and column.name in self.bundle.raises_on_unseen:
            unseen = pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, value_set=pa.array(known, pa.string()))))
            yield _mask(unseen), f"unseen:{column.name}"

    def _reject_non_finite(self, values: Outputs, kept: Mask | None, reasons: Reasons | None, n: int) -> Reasons | None:
        """Return the reasons, with those of predictions that are no numbers."""
        if not values:
            return reasons
        for column in self.outputs:
            bad = _not_finite(values[column.name])
            if bad is not None and bad.any():
                reasons = np.full(n, None, dtype=object) if reasons is None else reasons
                found = np.flatnonzero(bad) if kept is None else np.flatnonzero(kept)[bad]
                fresh = found[_is_none(reasons[found])]
                reasons[fresh] = f"non_finite:{column.name}"
        return reasons

    def _spread(self, values: pa.Array | None, column: Column, kept: Mask, good: Mask) -> pa.Array:
        """Return an output for all rows: NULL where the row was rejected."""
        n = len(kept)
        if values is None:
            return pa.nulls(n, column.arrow_type)
        if good.all():
            return values
        indices = np.cumsum(kept) - 1
        return values.take(pa.array(indices, pa.int64(), mask=~good))

    def _note_ranges(self, outputs: Sequence[pa.Array], tally: Tally) -> None:
        declared = {output.name: output for output in self.pipeline.predictions}
        for column, values in zip(self.outputs, outputs, strict=True):
            if not continuous(column, declared[column.name]):
                continue
            flat = values.flatten() if pa.types.is_list(values.type) else values
            limits = pc.min_max(flat)
            low, high = limits["min"].as_py(), limits["max"].as_py()
            if low is not None:
                before = tally.ranges.get(column.name, (low, high))
                tally.ranges[column.name] = (min(low, before[0]), max(high, before[1]))


def disagreements(scored: pa.Table, served: pa.Table, key: Sequence[Column], outputs: Sequence[Column]) -> int:
    """Return how many rows of two tables with the same keys differ in any output by more than ``SAME_SCORE``.

    A key that only one of them has counts as different. Both tables are small: a sample.
    """
    names = [column.name for column in key]
    left = {tuple(row[n] for n in names): row for row in scored.to_pylist()}
    right = {tuple(row[n] for n in names): row for row in served.to_pylist()}
    differing = len(left.keys() ^ right.keys())
    for identity in left.keys() & right.keys():
        pairs = ((left[identity][c.name], right[identity][c.name]) for c in (*outputs, REJECTED))
        differing += not all(_same(a, b) for a, b in pairs)
    return differing


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= SAME_SCORE * max(1.0, abs(a), abs(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _is_none(reasons: np.ndarray[Any, np.dtype[np.object_]]) -> Mask:
    return np.asarray(reasons == np.array(None), dtype=bool)


def _set(reasons: np.ndarray[Any, np.dtype[np.object_]], where: Mask, reason: str) -> None:
    reasons[where & _is_none(reasons)] = reason


def _mask(values: pa.Array) -> Mask:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)


def _missing(values: pa.Array) -> Mask:
    return _mask(pc.is_null(values, nan_is_null=pa.types.is_floating(values.type)))


def _infinite(values: pa.Array) -> Mask:
    if not pa.types.is_floating(values.type):
        return np.zeros(len(values), dtype=bool)
    return _mask(pc.fill_null(pc.is_inf(values), False))


def _not_finite(values: pa.Array) -> Mask | None:
    """Return where an output is NaN, infinite or NULL; None for outputs that cannot be."""
    if pa.types.is_floating(values.type):
        return ~_mask(pc.fill_null(pc.is_finite(values), False))
    if pa.types.is_list(values.type) and pa.types.is_floating(values.type.value_type):
        flat = ~_mask(pc.fill_null(pc.is_finite(values.flatten()), False))
        bad = np.zeros(len(values), dtype=bool)
        if flat.any():
            bad[_mask_indices(values, flat)] = True
        return bad
    return _mask(pc.is_null(values))


def _mask_indices(values: pa.Array, flat: Mask) -> np.ndarray[Any, np.dtype[np.int64]]:
    parents: np.ndarray[Any, np.dtype[np.int64]] = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
    return parents[flat]
