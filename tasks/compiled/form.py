"""The compiled form of a model: predicts as the estimator does, compares itself with it, and steps back when it differs.

Trees are walked by compiled code. Linear models are added up column by column, for which no compiler is needed.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tasks.compiled.forests import Ensemble, read_ensemble
from tasks.compiled.inputs import Inputs, read_inputs, require_narrow
from tasks.compiled.kernel import TREES, BoundKernel, load_kernel
from tasks.compiled.library import NotCompiled, require_safe, source_key
from tasks.compiled.linear import Linear, read_linear
from tasks.compiled.tables import NotThisBatch, Table, as_table
from tasks.threads import one_thread

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tasks.bundle import Bundle

    Rows = Table | pd.DataFrame | NDArray[Any]

logger = logging.getLogger(__name__)

#: How far a value may be from scikit-learn's: absolutely, and as a share of itself where it is larger than 1. Sums are
#: added up in the same order, so that they are equal; links may be computed a bit otherwise on other lengths.
TOLERANCE = 1e-12

#: Rows of the first batch that scikit-learn scores as well, and of one batch in every so many rows after it. 16 rows take
#: scikit-learn about 5 ms, which is a fiftieth of what 100,000 rows take to walk 100 trees.
FIRST_ROWS, SAMPLE_ROWS, EVERY_ROWS = 256, 16, 100_000

#: Where numbers are added up in another order, how much nearer than the limit they have to be on golden rows: of the many
#: rows of a run some differ by more.
_MARGIN = 100

#: Golden rows are repeated up to so many to measure both forms.
_MEASURED_ROWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Form:
    """How this machine computes a model, as its data folder remembers."""

    #: What the library was compiled from; None when nothing is remembered.
    key: str | None
    #: Why it is scikit-learn's own code; None when it is compiled.
    why_not: str | None = None
    #: Rows of a preprocessed frame that one core scores in a second, by each form; None where none was measured.
    compiled_rows: float | None = None
    scikit_learn_rows: float | None = None
    #: What the compiled form is.
    what: str = "compiled trees"

    @property
    def times_faster(self) -> float | None:
        """How many rows the compiled form scores while scikit-learn's scores one."""
        if self.compiled_rows is None or not self.scikit_learn_rows:
            return None
        return self.compiled_rows / self.scikit_learn_rows

    @property
    def in_words(self) -> str:
        """What people are told."""
        if self.times_faster is None:
            return f"scikit-learn's own code, because {self.why_not}"
        return (
            f"{self.what}, {self.times_faster:.1f} times as fast as scikit-learn: {self.compiled_rows:,.0f} rows/s instead "
            f"of {self.scikit_learn_rows:,.0f} on one core of this machine"
        )


class _Model(Protocol):
    """How the numbers behind all predictions of a model are computed otherwise than by scikit-learn."""

    @property
    def inputs(self) -> Inputs:
        """What is in front of it."""

    @property
    def methods(self) -> Mapping[str, Callable[[NDArray[np.float64]], NDArray[Any]]]:
        """Method -> what scikit-learn returns for the sums."""

    @property
    def in_words(self) -> str:
        """What it is."""

    @property
    def in_order(self) -> bool:
        """Whether numbers are added up in scikit-learn's own order, so that they are the same."""

    def sums(self, rows: Table) -> NDArray[np.float64]:
        """Return what the methods take, shape ``(n_rows, n_outputs)``; NotThisBatch where scikit-learn has to."""


class _Trees:
    """Trees, walked by compiled code."""

    in_words, in_order = "compiled trees", True

    def __init__(self, inputs: Inputs, ensemble: Ensemble, kernel: BoundKernel) -> None:
        self.inputs, self.methods, self._kernel = inputs, ensemble.methods, kernel
        self._refused = kernel.forest.refused | int(inputs.sparse)

    def sums(self, rows: Table) -> NDArray[np.float64]:
        columns = self.inputs.columns(rows)
        if not columns or not len(columns[0]):
            raise NotThisBatch("no rows")
        sums, found = self._kernel.sums(columns)
        if found & self._refused:
            raise NotThisBatch("values that scikit-learn refuses")
        return sums


class _Sums:
    """A linear model, added up column by column."""

    in_words, in_order = "a linear model added up by column", False

    def __init__(self, inputs: Inputs, linear: Linear) -> None:
        self.inputs, self.methods, self._linear = inputs, linear.methods, linear

    def sums(self, rows: Table) -> NDArray[np.float64]:
        if not len(rows):
            raise NotThisBatch("no rows")
        with np.errstate(over="ignore", invalid="ignore"):
            sums = self.inputs.weighted(rows, self._linear.weights) + self._linear.intercept
        if not np.isfinite(sums).all():  # as they are with any missing or infinite value
            raise NotThisBatch("values that scikit-learn refuses")
        return sums


class CompiledEstimator:
    """A fitted estimator whose predictions are computed by its compiled form; all else is the estimator itself.

    Each result is compared with scikit-learn's on some of its rows before it is returned. Where they differ, all rows are
    scikit-learn's, now and from now on, and ``doubtful`` says whether rows were returned before.
    """

    def __init__(self, estimator: Any, model: _Model, methods: Collection[str] | None = None) -> None:
        self._estimator, self._model = estimator, model
        #: The methods that are computed; others are the estimator's.
        self._methods = [name for name in model.methods if methods is None or name in methods]
        self._lock = threading.Lock()
        self._returned: dict[str, int] = {}
        self._due: dict[str, int] = {}
        self._noted = False
        #: What differed from scikit-learn, in words; None as long as nothing did.
        self.differed: str | None = None

    @property
    def doubtful(self) -> bool:
        """Whether rows were returned before others were found to differ: only some of them were compared."""
        return self.differed is not None and any(self._returned.values())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_estimator" not in self.__dict__:
            raise AttributeError(name)
        if name in self._methods:
            return lambda rows: self._predict(name, rows)
        return getattr(self._estimator, name)

    def __sklearn_tags__(self) -> Any:
        return self._estimator.__sklearn_tags__()

    def computes(self, method: str) -> bool:
        """Return whether a method is computed otherwise than by the estimator; then it takes a :class:`Table` as well."""
        return method in self._methods

    def compute(self, method: str, rows: Rows) -> NDArray[Any]:
        """Return what the compiled form gives for rows, compared with nothing.

        Raises
        ------
        NotThisBatch
            When scikit-learn would refuse these rows, or has to score them itself.
        """
        return self._model.methods[method](self._model.sums(as_table(rows)))

    def _predict(self, method: str, rows: Rows) -> NDArray[Any]:
        predict: Callable[[Any], NDArray[Any]] = getattr(self._estimator, method)

        def by_scikit_learn(some: Rows) -> NDArray[Any]:
            # Of a copy: it may write into it.
            return predict(self._as_fitted(some.frame().copy()) if isinstance(some, Table) else some)

        if self.differed is not None:
            return by_scikit_learn(rows)
        try:
            found = self.compute(method, rows)
        except Exception as error:  # whatever is wrong with these rows: scikit-learn says it, or scores them
            self._note(f"of {error}" if isinstance(error, NotThisBatch) else f"it raised {type(error).__name__}")
            return by_scikit_learn(rows)
        sample = self._sample(method, len(found))
        if len(sample):
            some = rows[sample] if isinstance(rows, np.ndarray) else self._as_fitted(as_table(rows).some(sample))
            with one_thread("openmp"):
                expected = by_scikit_learn(some)
            difference = differs(expected, found[sample])
            if difference is not None:
                self._drop(f"{method} {difference}")
                return by_scikit_learn(rows)
        with self._lock:
            self._returned[method] = self._returned.get(method, 0) + len(found)
        return found

    def _as_fitted(self, frame: pd.DataFrame) -> pd.DataFrame | NDArray[Any]:
        """Return rows as the estimator was fitted on them: it warns of a frame when that was an array."""
        return frame if self._model.inputs.names is not None else frame.to_numpy()

    def _sample(self, method: str, rows: int) -> NDArray[np.intp]:
        """Return which rows are compared: evenly spread, other ones each time."""
        with self._lock:
            before = self._returned.get(method, 0)
            if before < self._due.get(method, 0):
                return np.empty(0, dtype=np.intp)
            self._due[method] = before + EVERY_ROWS
        wanted = min(rows, SAMPLE_ROWS if before else FIRST_ROWS)
        shift = before % max(1, rows // wanted)
        return np.minimum(np.arange(wanted) * rows // wanted + shift, rows - 1)

    def _note(self, why: str) -> None:
        with self._lock:
            first, self._noted = not self._noted, True
        if first:
            logger.info("scikit-learn's own code scores a batch that the compiled form does not, because %s", why)

    def _drop(self, what: str) -> None:
        with self._lock:
            first = self.differed is None
            self.differed = what
        if first:
            logger.warning(
                "The compiled form of the model differs from scikit-learn: %s. It is not used any more in this run; "
                "scikit-learn scores all rows. Compare with `[model] compiled = false`, and report it",
                what,
            )


def compile_bundle(
    bundle: Bundle,
    golden: pd.DataFrame,
    folder: Path,
    *,
    methods: Collection[str] | None = None,
    threads: int = 1,
    measure: bool = True,
) -> CompiledEstimator | None:
    """Return the compiled form of a bundle's model; None where there is none, which is logged with its reason.

    Parameters
    ----------
    bundle
        A bundle that was read, with its digest.
    golden
        Its golden rows, preprocessed: all that the form computes of them must be what scikit-learn computes.
    folder
        Where the library is kept, and beside it what was measured of each bundle; made when it is missing.
    methods
        Names of those that will be called, so that only they are compared; all by default.
    threads
        Threads that a batch is divided among. A run reads, scores and writes at once, so one is the default.
    measure
        Whether to compare the speed of both forms where that was not yet done.
    """
    record = None
    try:
        form = _compile(bundle.estimator, threads, folder, methods)
        _require_equal(form, golden)
        if measure and _read(folder, bundle.digest) is None:
            record = _measure(form, golden)
    except NotCompiled as reason:
        logger.info("%s is scored by scikit-learn's own code, because %s", bundle.name, reason)
        _write(folder, bundle.digest, Form(key=source_key(TREES), why_not=str(reason)))
        return None
    except Exception as error:
        # Attributes of scikit-learn that are no promise may be others in another version. Nothing depends on this.
        logger.info(
            "%s is scored by scikit-learn's own code, because compiling it raised %s", bundle.name, type(error).__name__
        )
        logger.debug("compiling raised", exc_info=True)
        return None
    if record is not None:
        _write(folder, bundle.digest, record)
    return form


def read_form(folder: Path | None, digest: str) -> Form:
    """Return how this machine computes the model of a bundle, as far as it is remembered.

    ``folder`` is where compiled code is kept, None where none is to be used.
    """
    if folder is None:
        return Form(key=None, why_not="PRESCORE_COMPILED is false")
    return _read(folder, digest) or Form(key=None, why_not="no run has compiled it on this machine yet")


# Compiling -------------------------------------------------------------------------------------------------------


def _compile(estimator: Any, threads: int, folder: Path, methods: Collection[str] | None = None) -> CompiledEstimator:
    steps, last = _taken_apart(estimator)
    names = getattr(estimator, "feature_names_in_", None)
    own = getattr(last, "_preprocessor", None)  # of boosted trees with categories
    inputs = read_inputs(
        [*steps, *([] if own is None else [own])],
        None if names is None else [str(name) for name in names],
        int(estimator.n_features_in_),
    )
    linear = read_linear(last)
    if linear is not None:
        require_narrow(len(linear.weights), "it looks")
        return CompiledEstimator(estimator, _Sums(inputs, linear), methods)
    ensemble = read_ensemble(last)
    require_narrow(ensemble.forest.n_features, "its trees look")
    kernel = load_kernel(folder).bind(ensemble.forest, threads)
    return CompiledEstimator(estimator, _Trees(inputs, ensemble, kernel), methods)


def _taken_apart(estimator: Any) -> tuple[list[Any], Any]:
    """Return the transformers in front of the model that is computed, and that model."""
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
    from sklearn.pipeline import Pipeline

    if type(estimator) in (GridSearchCV, RandomizedSearchCV) and hasattr(estimator, "best_estimator_"):
        return _taken_apart(estimator.best_estimator_)
    if type(estimator) is Pipeline:
        *steps, (_, last) = estimator.steps
        further, model = _taken_apart(last)
        return [*(step for _, step in steps), *further], model
    return [], estimator


def _require_equal(form: CompiledEstimator, golden: pd.DataFrame) -> None:
    if not form._methods:
        raise NotCompiled("no method that is asked for has a compiled form")
    rows = form._as_fitted(golden)
    with one_thread("openmp"), np.errstate(all="ignore"):  # the logarithm of 0 is what it is
        for method in form._methods:
            expected = getattr(form._estimator, method)(rows.copy())  # it may write into it
            try:
                found = form.compute(method, rows)
            except NotThisBatch as reason:
                raise NotCompiled(f"it is not made for the golden rows ({reason})") from reason
            in_order = form._model.in_order
            difference = differs(expected, found, TOLERANCE if in_order else TOLERANCE / _MARGIN)
            if difference is not None and in_order:
                logger.warning("The compiled form of the model differs on golden rows: %s %s", method, difference)
            if difference is not None:
                raise NotCompiled(f"{method} {difference} on golden rows")


def differs(expected: NDArray[Any], found: NDArray[Any], tolerance: float = TOLERANCE) -> str | None:
    """Return in words how results of the compiled form differ from scikit-learn's; None when they are equal.

    ``tolerance`` is absolute, and relative to expected values above 1.
    """
    expected, found = np.asarray(expected), np.asarray(found)
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return "has another shape or type"
    if expected.dtype.kind != "f":
        wrong = int((expected != found).sum())
        return f"differs in {wrong} of {expected.size} values" if wrong else None
    with np.errstate(invalid="ignore"):
        gap = np.abs(found - expected)
        near = gap <= tolerance * np.maximum(1.0, np.abs(expected))
    same = (expected == found) | (np.isnan(expected) & np.isnan(found)) | (near & np.isfinite(expected))
    if same.all():
        return None
    return (
        f"differs by up to {np.nan_to_num(gap[~same], nan=np.inf).max():.3g} in {(~same).sum()} of {same.size} values"
    )


# What is remembered ----------------------------------------------------------------------------------------------


def _measure(form: CompiledEstimator, golden: pd.DataFrame) -> Form:
    """Compare the speed of both forms on repeated golden rows, by CPU seconds of this thread, the better of two."""
    import pandas as pd

    method = "predict_proba" if "predict_proba" in form._methods else form._methods[0]
    times = max(1, _MEASURED_ROWS // max(1, len(golden)))
    rows = form._as_fitted(pd.concat([golden] * times, ignore_index=True))
    with one_thread("openmp"):
        slow = min(_seconds(lambda: getattr(form._estimator, method)(rows)) for _ in range(2))
        fast = min(_seconds(lambda: form.compute(method, rows)) for _ in range(2))
    return Form(
        key=source_key(TREES),
        compiled_rows=len(rows) / fast,
        scikit_learn_rows=len(rows) / slow,
        what=form._model.in_words,
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return max(time.thread_time() - began, 1e-9)


def _place(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.json"


def _read(folder: Path, digest: str) -> Form | None:
    try:
        found = Form(**json.loads(_place(folder, digest).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.key == source_key(TREES) else None


def _write(folder: Path, digest: str, measured: Form) -> None:
    from tasks.embedded.folder import write_file

    try:
        require_safe(folder)
        write_file(_place(folder, digest), json.dumps(asdict(measured)) + "\n", mode=0o600)
    except (OSError, NotCompiled):
        logger.debug("what was measured could not be kept", exc_info=True)
