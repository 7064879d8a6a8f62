"""A model bundle: the estimator with everything that says whether it still does what it did when it was registered."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.columns import Column, model_frame
from tasks.errors import ColumnsMissing, PreprocessRefused
from tasks.outputs import output_columns, predict_outputs
from tasks.threads import one_thread

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tasks.pipeline import Output

    Preprocess = Callable[[pd.DataFrame], pd.DataFrame] | None

#: What decides how a model computes and whether its file can be read.
LIBRARIES = ("scikit-learn", "numpy", "pandas", "scipy", "skops", "joblib", "threadpoolctl")

#: Recorded only for models that are made of them.
_OPTIONAL_LIBRARIES = ("lightgbm", "xgboost")

#: Values far from zero cannot agree to a fixed number of decimals on every machine: they may differ by ``atol`` plus
#: this share of themselves.
RELATIVE_TOLERANCE = 1e-9

AS_OF = Column(name="as_of", postgres_type="timestamp with time zone")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One immutable model with its evidence."""

    #: Name of the model.
    name: str
    #: The fitted estimator.
    estimator: Any = field(repr=False)
    #: Columns of the feature query without key and as_of, in order.
    features: tuple[Column, ...]
    #: Key columns, in order.
    key: tuple[Column, ...]
    #: Columns that the model was fitted on, after preprocessing, in order.
    model_features: tuple[str, ...]
    #: What it predicts, as declared when it was registered.
    outputs: tuple[Output, ...]
    #: The SQL columns of these.
    output_columns: tuple[Column, ...]
    #: Golden rows: key, as_of and features as the feature query returned them.
    golden: pa.Table = field(repr=False)
    #: The same rows after preprocessing.
    golden_preprocessed: pa.Table = field(repr=False)
    #: What the model gave for them.
    golden_outputs: pa.Table = field(repr=False)
    #: Frozen bins of features and outputs: profiles.build_profile.
    profile: dict[str, Any] = field(repr=False)
    #: Metrics on held-out rows beside a naive baseline.
    metrics: dict[str, Any]
    #: Library -> version at registration.
    environment: dict[str, str]
    #: Logic digest of the pipeline at registration; None for a model that was registered from a file without one.
    logic_digest: str | None
    #: End of the data that the model was fitted on.
    train_data_until: datetime
    #: What NULL, unseen categories, NaN, infinity and missing columns gave, and how far scores in other batches differed:
    #: see probes.py and invariance.py.
    probes: dict[str, Any]
    #: SHA-256 of the bundle's bytes, 64 hex digits; empty until it is written.
    digest: str = ""
    #: What reads the estimator's file: skops, pickle or joblib.
    loader: str = "skops"
    #: Text feature -> the values of training, for those columns whose unseen values make the model raise.
    known_categories: dict[str, list[str]] = field(default_factory=dict, repr=False)
    #: The estimator's file as registered; None after loading, to hold it in memory once only.
    estimator_file: bytes | None = field(default=None, repr=False, compare=False)

    def prepare(self, prepared: pd.DataFrame) -> pd.DataFrame:
        """Return a preprocessed frame with exactly the columns that the model was fitted on, in its order.

        Columns that the model does not know are left out.

        Raises
        ------
        ColumnsMissing
            Naming missing and unexpected columns.
        """
        found = [str(name) for name in prepared.columns]
        if tuple(found) == self.model_features:
            return prepared
        if not set(self.model_features) <= set(found):
            raise ColumnsMissing(model=self.name, expected=self.model_features, found=found)
        return prepared[list(self.model_features)]

    def score(self, prepared: pd.DataFrame) -> dict[str, pa.Array]:
        """Return the predictions for a preprocessed frame: one array of its length per output, by name.

        Raises
        ------
        ColumnsMissing, OutputRefused
            As :meth:`prepare` and ``outputs.predict_outputs`` do; what the model itself raises passes through.
        """
        return predict_outputs(self.estimator, self.prepare(prepared), self.outputs, self.output_columns)

    def columns_for(self, outputs: Sequence[Output]) -> tuple[Column, ...]:
        """Return the SQL columns of declared outputs: as recorded, or found on the golden rows if declared otherwise.

        Raises
        ------
        OutputNotOffered
            When the model has no such method, class or output.
        """
        if tuple(outputs) == self.outputs:
            return self.output_columns
        return output_columns(self.estimator, outputs, self.golden_preprocessed.to_pandas()[list(self.model_features)])

    @cached_property
    def raises_on_null(self) -> frozenset[str]:
        """Features in which NULL made the model raise at registration."""
        return self._raising("null")

    @cached_property
    def raises_on_infinity(self) -> frozenset[str]:
        """Features in which infinity made the model raise at registration."""
        return self._raising("infinity")

    @cached_property
    def raises_on_unseen(self) -> frozenset[str]:
        """Text features in which a value that training had not seen made the model raise at registration."""
        return self._raising("unseen")

    def _raising(self, probe: str) -> frozenset[str]:
        return frozenset(name for name, found in self.probes.get(probe, {}).items() if found.startswith("raises"))


@dataclass(frozen=True, kw_only=True)
class GoldenResult:
    """What replaying the golden rows gave."""

    #: Whether every preprocessed value and every prediction is as recorded.
    passed: bool
    #: Rows compared.
    compared: int
    #: The column that differs most, in words without values; None when it passed.
    worst: str | None = None


# The frame that a model sees -------------------------------------------------------------------------------------


def preprocessed(table: pa.Table | pa.RecordBatch, features: Sequence[Column], preprocess: Preprocess) -> pd.DataFrame:
    """Return the frame that a model sees of feature rows: the pipeline's preprocess applied to as_of and features.

    Without a preprocess it is the features alone; ``as_of`` left in the frame by a preprocess is taken out, for a model
    must not learn the day it is asked.

    Raises
    ------
    PreprocessRefused
        When the result is no frame, or has other rows or another order of rows.
    """
    if preprocess is None:
        return model_frame(table, features)
    import pandas as pd

    frame = model_frame(table, (AS_OF, *features))
    found = preprocess(frame)
    if not isinstance(found, pd.DataFrame):
        raise PreprocessRefused(f"returned {type(found).__name__}", "Return the frame.")
    if len(found) != table.num_rows:
        raise PreprocessRefused(
            f"returned {len(found)} rows for {table.num_rows}",
            "It must be row-wise: fill what is missing instead of dropping rows.",
        )
    if not np.array_equal(found.index, np.arange(table.num_rows)):
        raise PreprocessRefused("changed the order or the index of the rows", "Return them as they came.")
    if len(set(found.columns)) != found.shape[1]:
        raise PreprocessRefused("returned two columns of one name", "Give each column a name of its own.")
    return found.drop(columns=[AS_OF.name]) if AS_OF.name in found.columns else found


# Environment -----------------------------------------------------------------------------------------------------


def running_environment(estimator: Any = None) -> dict[str, str]:
    """Return the versions of Python and of the libraries that make and read models; absent ones are left out."""
    found = {"python": platform.python_version()}
    used = {module.split(".", 1)[0] for module in sys.modules} if estimator is None else _roots(estimator)
    for name in (*LIBRARIES, *(library for library in _OPTIONAL_LIBRARIES if library in used)):
        version = _installed(name)
        if version is not None:
            found[name] = version
    return found


def environment_differences(recorded: Mapping[str, str], running: Mapping[str, str], level: str) -> list[str]:
    """Return in words what differs between two environments; empty when nothing does.

    Parameters
    ----------
    recorded, running
        Library -> version. What runs beyond what was recorded does not count.
    level
        ``exact`` compares whole versions, ``minor`` the first two numbers, ``major`` the first.
    """
    parts = {"exact": None, "minor": 2, "major": 1}[level]
    differences = []
    for name, version in recorded.items():
        now = running.get(name) or _installed(name)
        if now is None:
            differences.append(f"{name} {version} recorded, not installed here")
        elif version.split(".")[:parts] != now.split(".")[:parts]:
            differences.append(f"{name} {version} recorded, {now} running")
    return differences


@cache
def _installed(name: str) -> str | None:
    """Return the version of a library, as it was when this process first asked: reading them all takes 15 ms."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        # Some libraries are also distributed under another name, such as xgboost-cpu.
        version = getattr(sys.modules.get(name), "__version__", None)
        return None if version is None else str(version)


def _roots(estimator: Any) -> set[str]:
    """Return the top-level modules of an estimator and of the parts it is made of."""
    found: set[str] = set()
    parts = [estimator]
    if hasattr(estimator, "get_params"):
        parts += list(estimator.get_params(deep=True).values())
    for part in parts:
        found.update(base.__module__.split(".", 1)[0] for base in type(part).__mro__)
    return found


# Golden rows -----------------------------------------------------------------------------------------------------


def frame_table(frame: pd.DataFrame) -> pa.Table:
    """Return a preprocessed frame as an Arrow table, to be kept and compared.

    Raises
    ------
    PreprocessRefused
        When a column holds what no column type can.
    """
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        # Arrow's message may quote a value; the type of the fault does not.
        raise PreprocessRefused(
            f"returned a column of mixed or unusual values ({type(error).__name__})",
            "Return columns of numbers, text, booleans, times or categories.",
        ) from None
    return table.replace_schema_metadata(None)


def outputs_table(outputs: Mapping[str, pa.Array]) -> pa.Table:
    """Return predictions as an Arrow table, one column per output."""
    return pa.table(dict(outputs))


def replay_golden(bundle: Bundle, preprocess: Preprocess, atol: float) -> GoldenResult:
    """Score the golden rows again from their feature-query values and compare with what was recorded.

    Both layers are compared: the preprocessed values (which finds a changed preprocess) and the predictions (which
    finds a changed model or library). Text, classes, integers and the order of ranked lists must be equal; values may
    differ by ``atol`` plus a billionth of themselves.
    """
    rows = bundle.golden.num_rows
    try:
        prepared = preprocessed(bundle.golden, bundle.features, preprocess)
        with one_thread():
            now = {"preprocessed": frame_table(prepared), "prediction": outputs_table(bundle.score(prepared))}
    except Exception as error:
        return GoldenResult(passed=False, compared=rows, worst=f"replaying raised {type(error).__name__}")
    for layer, recorded in (("preprocessed", bundle.golden_preprocessed), ("prediction", bundle.golden_outputs)):
        worst = worst_difference(recorded, now[layer], atol)
        if worst is not None:
            return GoldenResult(passed=False, compared=rows, worst=f"{layer} column {worst}")
    return GoldenResult(passed=True, compared=rows)


def replay_rebuilt(bundle: Bundle, rebuilt: pa.Table, preprocess: Preprocess, atol: float) -> GoldenResult:
    """Score golden rows whose features were read again, and compare with the predictions that were recorded.

    Rows are matched by key and as_of; those that are not there any more, or twice, are left out.
    """
    identity = [column.name for column in (*bundle.key, AS_OF)]
    places = {tuple(row.values()): at for at, row in enumerate(bundle.golden.select(identity).to_pylist())}
    found = [places.get(tuple(row.values())) for row in rebuilt.select(identity).to_pylist()]
    kept = [at for at, place in enumerate(found) if place is not None and found.count(place) == 1]
    if not kept:
        return GoldenResult(passed=True, compared=0)
    try:
        prepared = preprocessed(rebuilt.take(kept), bundle.features, preprocess)
        with one_thread():
            now = outputs_table(bundle.score(prepared))
    except Exception as error:
        return GoldenResult(passed=False, compared=len(kept), worst=f"scoring them raised {type(error).__name__}")
    worst = worst_difference(bundle.golden_outputs.take([found[at] for at in kept]), now, atol)
    return GoldenResult(
        passed=worst is None, compared=len(kept), worst=None if worst is None else f"prediction column {worst}"
    )


def worst_difference(recorded: pa.Table, now: pa.Table, atol: float) -> str | None:
    """Return which column of two tables differs in most rows, and by how much; None when they agree."""
    missing = [name for name in recorded.column_names if name not in now.column_names]
    if missing:
        return f"{missing[0]} is missing"
    worst: tuple[int, str] | None = None
    for name in recorded.column_names:
        found = _difference(recorded.column(name).combine_chunks(), now.column(name).combine_chunks(), atol)
        if found is not None and (worst is None or found[0] > worst[0]):
            worst = (found[0], f"{name} {found[1]}")
    return worst[1] if worst else None


def _difference(recorded: pa.Array, now: pa.Array, atol: float) -> tuple[int, str] | None:
    """Return in how many values two columns differ, and by how much in words; None when they agree."""
    recorded, now = _plain(recorded), _plain(now)
    if pa.types.is_null(recorded.type):
        recorded = recorded.cast(now.type)
    if recorded.type != now.type:
        return len(recorded), f"has the type {now.type}, recorded was {recorded.type}"
    if pa.types.is_list(recorded.type):
        lengths = [pc.fill_null(pc.list_value_length(values), -1) for values in (recorded, now)]
        if not lengths[0].equals(lengths[1]):
            return len(recorded), "has lists of other lengths"
        return _difference(recorded.flatten(), now.flatten(), atol)
    if pa.types.is_floating(recorded.type):
        return _float_difference(_float_values(recorded), _float_values(now), atol)
    unequal = pc.fill_null(pc.not_equal(recorded, now), False)
    unequal = pc.or_(unequal, pc.xor(pc.is_null(recorded), pc.is_null(now)))
    count = int(pc.sum(pc.cast(unequal, pa.int64())).as_py() or 0)
    return (count, f"differs in {count} of {len(recorded)} values") if count else None


def _plain(values: pa.Array) -> pa.Array:
    """Return values without how pandas happened to hold them: categories are text, large text is text."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.string()) if pa.types.is_large_string(values.type) else values


def _float_difference(before: NDArray[np.float64], after: NDArray[np.float64], atol: float) -> tuple[int, str] | None:
    with np.errstate(invalid="ignore"):
        gap = np.abs(after - before)
        near = gap <= atol + RELATIVE_TOLERANCE * np.abs(before)
    # Equal infinities have no difference; NaN on both sides is the same answer; infinity is near nothing else.
    same = (before == after) | (np.isnan(before) & np.isnan(after)) | (near & np.isfinite(before))
    if same.all():
        return None
    largest = float(np.nan_to_num(gap[~same], nan=np.inf).max())
    count = int((~same).sum())
    return count, f"differs by up to {largest:.3g} in {count} of {len(before)} values"


def _float_values(values: pa.Array) -> NDArray[np.float64]:
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
