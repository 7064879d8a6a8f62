"""What a model's methods return, as typed prediction columns: one Arrow array per declared output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.columns import Column
from tasks.compiled.tables import Table, as_table
from tasks.errors import OutputNotOffered, OutputRefused

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tasks.pipeline import Output

#: How many entries of a ranked list are asked for when the declaration has no ``k``.
DEFAULT_K = 10

#: More classes than this are not spelled out in a message.
_SHOWN_CLASSES = 20

_PROBABILITIES = ("predict_proba", "predict_log_proba")

_REDUCTIONS: dict[str, Callable[..., NDArray[Any]]] = {"min": np.min, "max": np.max, "mean": np.mean, "sum": np.sum}


def output_columns(estimator: Any, outputs: Sequence[Output], sample: pd.DataFrame | None = None) -> tuple[Column, ...]:
    """Return the SQL column of each declared output.

    Parameters
    ----------
    estimator
        A fitted model.
    outputs
        The declared outputs, in order.
    sample
        Preprocessed rows. Only a recommender without an ``items_`` attribute needs them: whether its items are text or
        integers shows in what it returns; without a sample they count as text.

    Raises
    ------
    OutputNotOffered
        When the model has no such method, class or output.
    """
    return tuple(
        Column(name=output.name, postgres_type=_postgres_type(estimator, output, sample)) for output in outputs
    )


def predict_outputs(
    estimator: Any,
    frame: pd.DataFrame | Table,
    outputs: Sequence[Output],
    columns: Sequence[Column] | None = None,
) -> dict[str, pa.Array]:
    """Return one array of ``len(frame)`` predictions per declared output, in the order of the declaration.

    Each method of the model is called once, however many outputs read it. NaN and infinity stay as they are: the caller
    decides what they mean.

    Parameters
    ----------
    estimator
        A fitted model.
    frame
        Preprocessed rows, shape ``(n_entities, n_model_features)``; it is not changed, even by a model that writes into
        what it is given. Feature rows that need no preprocessing may come as a table.
    outputs
        The declared outputs.
    columns
        Their SQL columns as a bundle records them; by default :func:`output_columns` of this batch.

    Raises
    ------
    OutputNotOffered
        When the model has no such method, class or output.
    OutputRefused
        When what it returns has another length, shape or type than declared.
    """
    if columns is None:
        columns = output_columns(estimator, outputs, frame.frame() if isinstance(frame, Table) else frame)
    calls = _Calls(estimator=estimator, frame=frame, made={})
    arrays: dict[str, pa.Array] = {}
    for output, column in zip(outputs, columns, strict=True):
        arrays[output.name] = _exactly(_array(calls, output, column), column, len(frame))
    return arrays


def output_comment(estimator: Any, output: Output) -> str | None:
    """Return what a reader of the column must know beyond its name: the order of the classes of ``class = "all"``."""
    if output.method not in _PROBABILITIES or output.class_ != "all":
        return None
    return "Probability of each class, in this order: " + ", ".join(_texts(_classes(estimator, output))) + "."


def continuous(column: Column, output: Output) -> bool:
    """Return whether the same value in every row would be a fault: probabilities, regression values, distances.

    Labels, segments and ranked lists may well be the same for everybody.
    """
    if output.method == "recommend":
        return False
    return column.postgres_type in ("real", "double precision", "double precision[]")


# What the model offers -------------------------------------------------------------------------------------------


def _method(estimator: Any, output: Output) -> Callable[..., Any]:
    # Methods may come and go with parameters, such as predict_proba of SVC: only asking the fitted model tells.
    found = getattr(estimator, output.method, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    known = ("predict", "predict_proba", "decision_function", "transform", "score_samples", "recommend")
    offered = [name for name in known if callable(getattr(estimator, name, None))]
    last = type(estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator).__name__
    only_fits = [name for name in ("fit_predict", "fit_transform") if callable(getattr(estimator, name, None))]
    if "predict" not in offered and ("fit_predict" in only_fits or (only_fits and not offered)):
        remedy = (
            f"{last} knows only the rows that it is fitted on. Use one that labels new rows (such as KMeans, or "
            "LocalOutlierFactor with novelty=True), or train a classifier on its labels."
        )
    else:
        remedy = f"Set the method of {output.name} in [predictions] to one of these, or promote a model that has it."
    raise OutputNotOffered(
        output=output.name,
        asked=f"the method {output.method}",
        offered=f"{last} has {', '.join(offered) or 'no method that predicts'}",
        remedy=remedy,
    )


def _classes(estimator: Any, output: Output) -> NDArray[Any]:
    """Return the classes that an output chooses from, shape ``(n_classes,)``."""
    found = getattr(estimator, "classes_", None)
    if found is None:
        raise OutputNotOffered(
            output=output.name,
            asked=f"{output.method} by class",
            offered=f"{type(estimator).__name__} has no classes_",
            remedy='Declare an output that a model without classes has, for instance method = "predict".',
        )
    if not _several(found):
        return np.asarray(found)
    if output.output is None or not 0 <= output.output < len(found):
        raise _which_output(output, len(found))
    return np.asarray(found[output.output])


def _several(classes: Any) -> bool:
    """Return whether ``classes_`` is one array per output, as multi-output classifiers have it."""
    return isinstance(classes, list) and len(classes) > 0 and isinstance(classes[0], np.ndarray | list)


def _class_index(estimator: Any, output: Output) -> int:
    """Return the position of the declared class, compared as text."""
    classes = _classes(estimator, output)
    if output.class_ is None:
        wanted = []
    else:
        wanted = [at for at, label in enumerate(classes.tolist()) if output.class_ in spellings(label)]
    if len(wanted) == 1:
        return wanted[0]
    shown = _texts(classes)
    if len(shown) > _SHOWN_CLASSES:
        shown = [*shown[:_SHOWN_CLASSES], f"and {len(shown) - _SHOWN_CLASSES} more"]
    raise OutputNotOffered(
        output=output.name,
        asked=f"{output.method} of class {output.class_!r}"
        if output.class_ is not None
        else f"{output.method} of no class",
        offered=f"the model's classes are {', '.join(shown)}",
        remedy=f'Set class of {output.name} in [predictions] to one of these, or to "all" for an array of all of them.',
    )


def spellings(label: object) -> set[str]:
    """Return the texts that mean a class: 1.0 is also 1, True is also true."""
    texts = {str(label)}
    if isinstance(label, bool):
        texts.add(str(label).lower())
    elif isinstance(label, float) and label.is_integer():
        texts.add(str(int(label)))
    return texts


def _texts(classes: NDArray[Any]) -> list[str]:
    return [str(label) for label in classes.tolist()]


def _which_output(output: Output, count: int) -> OutputNotOffered:
    asked = "one value" if output.output is None else f"output {output.output}"
    return OutputNotOffered(
        output=output.name,
        asked=f"{asked} of {output.method}",
        offered=f"the model returns {count} outputs for each row",
        remedy=f"Set output of {output.name} in [predictions] to a number from 0 to {count - 1}.",
    )


# SQL types -------------------------------------------------------------------------------------------------------


def known_columns(outputs: Sequence[Output]) -> tuple[Column, ...]:
    """Return the columns of outputs whose type is the same whatever the model is; those of the others only a model tells."""
    found = [(output.name, _known_type(output)) for output in outputs]
    return tuple(Column(name=name, postgres_type=kind) for name, kind in found if kind is not None)


def _known_type(output: Output) -> str | None:
    if output.method == "predict" or (output.method == "recommend" and output.part == "items"):
        return None
    lists = output.class_ == "all" or output.method == "recommend"
    return "double precision[]" if lists else "double precision"


def _postgres_type(estimator: Any, output: Output, sample: pd.DataFrame | None) -> str:
    _method(estimator, output)
    if output.method in _PROBABILITIES:
        if output.class_ == "all":
            _classes(estimator, output)
            return "double precision[]"
        _class_index(estimator, output)
        return "double precision"
    if output.method == "recommend":
        return "double precision[]" if output.part == "scores" else _items_type(estimator, output, sample)
    if output.method == "predict":
        return _label_type(estimator, output)
    return "double precision"


def _label_type(estimator: Any, output: Output) -> str:
    if getattr(estimator, "classes_", None) is not None:
        return _sql_type(_classes(estimator, output))
    from sklearn.utils import get_tags

    # Estimators that are no scikit-learn ones answer no questions about their kind; they predict values.
    try:
        kind = get_tags(estimator).estimator_type
    except (AttributeError, TypeError, ValueError):
        kind = None
    # The parts of a mixture are numbered as clusters are.
    return "bigint" if kind in ("clusterer", "outlier_detector", "density_estimator") else "double precision"


def _items_type(estimator: Any, output: Output, sample: pd.DataFrame | None) -> str:
    items = getattr(estimator, "items_", None)
    if items is None and sample is not None and len(sample):
        calls = _Calls(estimator=estimator, frame=sample, made={})
        items = calls.recommended(output).items
    if items is None or not len(items):
        return "text[]"
    kind = _sql_type(np.asarray(items))
    return "bigint[]" if kind == "bigint" else "text[]"


def _sql_type(values: NDArray[Any]) -> str:
    """Return the SQL type of labels; object arrays count by what they hold."""
    kind = values.dtype.kind
    if kind == "O":
        held = {type(value) for value in values.ravel().tolist() if value is not None}
        if held <= {bool, np.bool_}:
            return "boolean" if held else "text"
        whole = all(issubclass(kind_of, int | np.integer) and not issubclass(kind_of, bool) for kind_of in held)
        return "bigint" if whole else "text"
    return {"i": "bigint", "u": "bigint", "b": "boolean", "f": "double precision"}.get(kind, "text")


# Calls and what they return --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Ranked:
    """Ranked lists of n rows, laid end to end: row i has the entries from ``offsets[i]`` to ``offsets[i + 1]``."""

    offsets: NDArray[np.int32]
    items: NDArray[Any]
    scores: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Calls:
    """The methods called on one batch, each once."""

    estimator: Any
    frame: pd.DataFrame | Table
    made: dict[tuple[str, int | None], Any]

    def result(self, output: Output) -> Any:
        """Return what the declared method gives for the batch."""
        key = (output.method, None)
        if key not in self.made:
            self.made[key] = _method(self.estimator, output)(_given(self.estimator, output.method, self.frame))
        return self.made[key]

    def recommended(self, output: Output) -> _Ranked:
        """Return the ranked lists of the batch."""
        k = output.k or DEFAULT_K
        key = (output.method, k)
        if key not in self.made:
            found = _method(self.estimator, output)(_given(self.estimator, output.method, self.frame), k)
            self.made[key] = _ranked(found, output, len(self.frame), k)
        ranked: _Ranked = self.made[key]
        return ranked


def _given(estimator: Any, method: str, rows: pd.DataFrame | Table) -> pd.DataFrame | Table | NDArray[Any]:
    """Return rows that a model may write into: some do, and the next output reads the same ones. A compiled form does not.

    A scikit-learn model that was fitted on an array gets an array: it would warn of every frame.
    """
    import pandas as pd

    from tasks.compiled import CompiledEstimator

    if isinstance(estimator, CompiledEstimator) and estimator.computes(method):
        return as_table(rows)
    frame = rows.frame() if isinstance(rows, Table) else rows
    if hasattr(estimator, "n_features_in_") and not hasattr(estimator, "feature_names_in_"):
        return frame.to_numpy(copy=True)
    # From pandas 3 on a shallow copy is written to only after its columns were copied.
    return frame.copy(deep=int(pd.__version__.split(".", maxsplit=1)[0]) < 3)


def _array(calls: _Calls, output: Output, column: Column) -> pa.Array:
    if output.method == "recommend":
        ranked = calls.recommended(output)
        values = ranked.scores if output.part == "scores" else ranked.items
        entries = _entries(values, column.arrow_type.value_type, output)
        return pa.ListArray.from_arrays(pa.array(ranked.offsets), entries)
    if output.method in _PROBABILITIES:
        return _probabilities(calls, output)
    if output.method == "transform" and output.reduce is not None:
        table = _table(calls.result(output), output)
        return pa.array(_REDUCTIONS[output.reduce](table, axis=1))
    return _entries(_vector(calls.result(output), output), column.arrow_type, output)


def _probabilities(calls: _Calls, output: Output) -> pa.Array:
    found = calls.result(output)
    if isinstance(found, list):
        if output.output is None or not 0 <= output.output < len(found):
            raise _which_output(output, len(found))
        found = found[output.output]
    table = _table(found, output)
    classes = _classes(calls.estimator, output)
    if table.shape[1] != len(classes):
        raise OutputRefused(
            output=output.name,
            expected=f"{len(classes)} probabilities for each row, one for each class",
            found=f"{table.shape[1]}",
        )
    if output.class_ == "all":
        offsets = np.arange(0, table.size + 1, table.shape[1], dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(table).ravel()))
    return pa.array(np.ascontiguousarray(table[:, _class_index(calls.estimator, output)]))


def _dense(found: Any) -> NDArray[Any]:
    return np.asarray(found.toarray() if hasattr(found, "toarray") else found)


def _table(found: Any, output: Output) -> NDArray[np.float64]:
    """Return a result of shape ``(n, width)`` as float64."""
    values = _dense(found)
    if values.ndim != 2:
        raise OutputRefused(output=output.name, expected="a table of several values for each row", found=_shape(values))
    return _floats(values, output)


def _vector(found: Any, output: Output) -> NDArray[Any]:
    """Return a result as one value for each row, shape ``(n,)``."""
    values = _dense(found)
    if values.ndim == 1 and output.output is None:
        return values
    if values.ndim == 2:
        if output.output is None and values.shape[1] == 1:
            return values[:, 0]
        if output.output is not None and 0 <= output.output < values.shape[1]:
            return np.ascontiguousarray(values[:, output.output])
        raise _which_output(output, values.shape[1])
    expected = "one value for each row" if output.output is None else "several values for each row, to take one from"
    raise OutputRefused(output=output.name, expected=expected, found=_shape(values))


def _shape(values: NDArray[Any]) -> str:
    return f"an array of shape {values.shape}"


def _floats(values: NDArray[Any], output: Output) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise OutputRefused(output=output.name, expected="numbers", found=f"values of type {values.dtype}") from None


def _entries(values: NDArray[Any], wanted: pa.DataType, output: Output) -> pa.Array:
    """Return values as an Arrow array of a scalar type, refusing what would change on the way."""
    try:
        if pa.types.is_string(wanted) or pa.types.is_large_string(wanted):
            return _text(values).cast(wanted)
        if pa.types.is_floating(wanted):
            return pa.array(_floats(values, output)).cast(wanted)
        if values.dtype.kind == "O":
            return pa.array(values.tolist(), type=wanted)
        return pa.array(values).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, OverflowError):
        # Arrow's own message would quote the value.
        raise OutputRefused(output=output.name, expected=f"values of type {wanted}", found=f"{values.dtype}") from None


def _text(values: NDArray[Any]) -> pa.Array:
    if values.dtype.kind == "O":
        try:
            return pa.array(values, type=pa.string())
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.array([None if value is None else str(value) for value in values.tolist()], type=pa.string())
    return pa.array(values.astype(str), type=pa.string())


def _ranked(found: Any, output: Output, rows: int, k: int) -> _Ranked:
    """Lay ranked lists end to end, without the padding (an item that is None or NaN) that fills short ones."""
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise OutputRefused(
            output=output.name, expected="a pair (items, scores) from recommend", found=type(found).__name__
        )
    items, item_counts = _flat(found[0])
    scores, score_counts = _flat(found[1])
    if len(item_counts) != rows or len(score_counts) != rows:
        found_rows = f"{len(item_counts)} and {len(score_counts)}"
        raise OutputRefused(output=output.name, expected=f"items and scores of {rows} rows", found=found_rows)
    if not np.array_equal(item_counts, score_counts):
        raise OutputRefused(output=output.name, expected="as many scores as items in each row", found="other counts")
    if len(item_counts) and int(item_counts.max()) > k:
        raise OutputRefused(
            output=output.name, expected=f"at most k = {k} items in each row", found=f"{item_counts.max()}"
        )
    kept = ~_missing(items)
    owners = np.repeat(np.arange(rows), item_counts)
    counts = np.bincount(owners[kept], minlength=rows)
    offsets = np.zeros(rows + 1, dtype=np.int32)
    np.cumsum(counts, out=offsets[1:])
    items = items[kept]
    if items.dtype.kind == "f" and np.array_equal(items, np.trunc(items)):
        # Integers that were padded with NaN are integers again.
        items = items.astype(np.int64)
    return _Ranked(offsets=offsets, items=items, scores=_floats(scores[kept], output))


def _flat(lists: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the entries of n lists end to end, and how many each has."""
    values = _dense(lists) if hasattr(lists, "shape") else None
    if values is not None and values.ndim == 2:
        return values.ravel(), np.full(values.shape[0], values.shape[1], dtype=np.int64)
    rows = [np.asarray(row) for row in lists]
    counts = np.array([len(row) for row in rows], dtype=np.int64)
    filled = [row for row in rows if len(row)]
    return (np.concatenate(filled) if filled else np.empty(0)), counts


def _missing(items: NDArray[Any]) -> NDArray[np.bool_]:
    import pandas as pd

    return np.asarray(pd.isna(items), dtype=bool)


def _exactly(array: pa.Array, column: Column, rows: int) -> pa.Array:
    """Return an array of exactly the column's type, and refuse any other length."""
    if len(array) != rows:
        raise OutputRefused(output=column.name, expected=f"{rows} predictions", found=f"{len(array)}")
    return array if array.type == column.arrow_type else array.cast(column.arrow_type)
