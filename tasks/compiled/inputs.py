"""What trees look at and linear models add up: float64 columns, made of a frame without encoding text row by row.

A text column has few different values. They are encoded once a batch by the fitted transformer itself, and the rows take
what their value was encoded to. So whatever an encoder knows (unknown values, rare ones, missing ones) holds here too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.compiled.library import NotCompiled
from tasks.compiled.tables import NotThisBatch, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Columns = list[NDArray[np.float64]]

#: Wider than this, as by one column for each of many categories, a batch would take too much memory as dense columns.
MOST_COLUMNS = 256


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The fitted steps in front of trees or of a linear model."""

    #: Names of the frame's columns that they were fitted on; None where they were fitted on an array.
    names: tuple[str, ...] | None
    #: Make the first columns, each from some of the frame's.
    blocks: tuple[_Block, ...]
    #: What follows, each from all columns before: scikit-learn's own.
    steps: tuple[Any, ...]
    #: Whether scikit-learn's trees get a sparse matrix, in which they allow no missing values.
    sparse: bool

    def columns(self, rows: Table) -> Columns:
        """Return the columns, contiguous float64 of the length of ``rows``.

        Raises
        ------
        NotThisBatch
            When scikit-learn has to score these rows.
        """
        self._require_names(rows)
        columns = [column for block in self.blocks for column in block.columns(rows)]
        for step in self.steps:
            columns = _columns_of(step.transform(np.column_stack(columns)))
        return columns

    def weighted(self, rows: Table, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums of all columns times their weights, shape ``(n_rows, n_outputs)``.

        Parameters
        ----------
        weights
            float64, shape ``(n_columns, n_outputs)``.

        Raises
        ------
        NotThisBatch
            When scikit-learn has to score these rows.
        """
        self._require_names(rows)
        sums = np.zeros((weights.shape[1], len(rows)))
        left = iter(weights)
        if self.steps:
            _add_weighted(sums, self.columns(rows), left)
        else:
            for block in self.blocks:
                block.add_weighted(sums, rows, left)
        if next(left, None) is not None:
            raise NotThisBatch("another width")
        return sums.T

    def _require_names(self, rows: Table) -> None:
        if self.names is not None and rows.names != self.names:
            raise NotThisBatch("other columns")


def read_inputs(steps: Sequence[Any], names: Sequence[str] | None, n_features: int) -> Inputs:
    """Return how the columns of trees or of a linear model come from a frame.

    Parameters
    ----------
    steps
        Fitted transformers in front of it.
    names
        The columns that the first of them was fitted on; None for an array.
    n_features
        How many columns that is.

    Raises
    ------
    NotCompiled
        When there are too many columns.
    """
    steps = [step for step in steps if step is not None and step != "passthrough" and not _passes(step)]
    sparse = any(getattr(step, "sparse_output_", False) for step in steps)
    first, later = (steps[0], steps[1:]) if steps else (None, [])
    if later and sparse:
        # A sparse matrix on the way to a step that treats it as such.
        blocks: tuple[_Block, ...] = (_ByScikitLearn(places=None, transform=_chained(steps)),)
        later = []
    else:
        blocks = tuple(_blocks(first, range(n_features)))
    return Inputs(names=None if names is None else tuple(names), blocks=blocks, steps=tuple(later), sparse=sparse)


def _chained(steps: Sequence[Any]) -> Callable[[Any], Any]:
    def transform(rows: Any) -> Any:
        for step in steps:
            rows = step.transform(rows)
        return rows

    return transform


def _blocks(transformer: Any, places: Sequence[int]) -> list[_Block]:
    """Return what makes the columns of one transformer, given places of its input among the frame's columns."""
    from sklearn.compose import ColumnTransformer

    if transformer is None or transformer == "passthrough" or _passes(transformer):
        return [_AsTheyAre(places=tuple(places))]
    if type(transformer) is ColumnTransformer and hasattr(transformer, "_transformer_to_input_indices"):
        indices = transformer._transformer_to_input_indices
        return [
            block
            for name, part, _ in transformer.transformers_
            if not (isinstance(part, str) and part == "drop") and len(indices[name])
            for block in _blocks(part, [places[at] for at in indices[name]])
        ]
    if _scales(transformer):
        return [_Scaled(places=tuple(places), scaler=transformer)]
    widths = _widths(transformer, len(places))
    if widths is not None:
        return [_ByValue(places=tuple(places), transformer=transformer, widths=widths)]
    return [_ByScikitLearn(places=tuple(places), transform=transformer.transform)]


def _passes(transformer: Any) -> bool:
    """Return whether a transformer hands on what it gets: "passthrough", and the check of boosted trees."""
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.utils import check_array

    if type(transformer) is not FunctionTransformer:
        return False
    func = transformer.func
    return func is None or (isinstance(func, partial) and func.func is check_array)


def _scales(transformer: Any) -> bool:
    from sklearn.preprocessing import StandardScaler

    return type(transformer) is StandardScaler


def _widths(transformer: Any, columns: int) -> tuple[int, ...] | None:
    """Return how many columns a transformer makes of each of its columns, value by value; None where it does otherwise."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

    kind = type(transformer)
    if kind is OrdinalEncoder:
        return (1,) * columns
    if kind is OneHotEncoder:
        found = tuple(int(width) for width in getattr(transformer, "_n_features_outs", ()))
        return found if len(found) == columns else None
    if kind is TargetEncoder:
        several = len(transformer.classes_) if transformer.target_type_ == "multiclass" else 1
        return (several,) * columns
    if kind is SimpleImputer and transformer.statistics_.dtype.kind in "OU":
        kept = transformer.indicator_ is None and len(transformer.get_feature_names_out()) == columns
        return (1,) * columns if kept else None
    if kind is Pipeline:
        return _widths_of_chain([step for _, step in transformer.steps if step not in (None, "passthrough")], columns)
    return None


def _widths_of_chain(steps: Sequence[Any], columns: int) -> tuple[int, ...] | None:
    found: tuple[int, ...] | None = None
    for step in steps:
        if found is not None and set(found) != {1}:
            return None
        found = _widths(step, columns)
        if found is None:
            return None
    return found


# Blocks ----------------------------------------------------------------------------------------------------------


class _Block(ABC):
    """Makes some of the columns."""

    @abstractmethod
    def columns(self, rows: Table) -> Columns:
        """Return its columns of some rows."""

    def add_weighted(self, sums: NDArray[np.float64], rows: Table, weights: Iterator[NDArray[np.float64]]) -> None:
        """Add its columns times as many of the weights to sums of shape ``(n_outputs, n_rows)``."""
        _add_weighted(sums, self.columns(rows), weights)


@dataclass(frozen=True, kw_only=True)
class _AsTheyAre(_Block):
    """Columns of numbers that nothing is done to."""

    places: tuple[int, ...]

    def columns(self, rows: Table) -> Columns:
        return [rows.numbers(place) for place in self.places]


@dataclass(frozen=True, kw_only=True)
class _ByScikitLearn(_Block):
    """Columns that the transformer makes of all rows."""

    #: None for all columns.
    places: tuple[int, ...] | None
    transform: Callable[[Any], Any]

    def columns(self, rows: Table) -> Columns:
        frame = rows.frame(self.places)
        return _columns_of(self.transform(frame.copy() if self.places is None else frame))  # it may write into it


@dataclass(frozen=True, kw_only=True)
class _ByValue(_Block):
    """Columns whose different values are transformed once, and taken by the rows that have them."""

    places: tuple[int, ...]
    transformer: Any
    #: Columns made of each column.
    widths: tuple[int, ...]

    def columns(self, rows: Table) -> Columns:
        return [
            np.ascontiguousarray(column).take(codes) for codes, encoded in self._encoded(rows) for column in encoded.T
        ]

    def add_weighted(self, sums: NDArray[np.float64], rows: Table, weights: Iterator[NDArray[np.float64]]) -> None:
        for codes, encoded in self._encoded(rows):
            of_values = np.zeros((len(sums), len(encoded)))
            _add_weighted(of_values, list(encoded.T), weights)
            sums += of_values.take(codes, axis=1)

    def _encoded(self, rows: Table) -> Iterator[tuple[NDArray[Any], NDArray[np.float64]]]:
        """Yield for each column the number of each row's value, and the row of numbers that each value becomes."""
        import pandas as pd

        if not len(rows):
            for width in self.widths:
                yield np.empty(0, dtype=np.intp), np.empty((0, width))
            return
        coded = [rows.coded(place) for place in self.places]
        # Shorter columns repeat their first value, so that all fit in one frame.
        longest = max(len(values) for _, values in coded)
        distinct = {}
        for place, (_, values) in zip(self.places, coded, strict=True):
            padded = np.concatenate([np.arange(len(values)), np.zeros(longest - len(values), dtype=np.intp)])
            distinct[rows.names[place]] = values.take(padded).reset_index(drop=True)
        table = _dense(self.transformer.transform(pd.DataFrame(distinct)))
        if table.shape != (longest, sum(self.widths)):
            raise NotThisBatch("another width")
        starts = np.cumsum([0, *self.widths])
        for (codes, values), start, width in zip(coded, starts, self.widths, strict=False):
            yield codes, table[: len(values), start : start + width]


@dataclass(frozen=True, kw_only=True)
class _Scaled(_Block):
    """Columns of numbers that are centred and scaled, in the order of scikit-learn's own steps: equal to the last bit."""

    places: tuple[int, ...]
    scaler: Any

    def columns(self, rows: Table) -> Columns:
        return list(self._columns(rows))

    def add_weighted(self, sums: NDArray[np.float64], rows: Table, weights: Iterator[NDArray[np.float64]]) -> None:
        # One column at a time, so that it stays in a core's cache.
        for column in self._columns(rows):
            _add_weighted(sums, [column], weights)

    def _columns(self, rows: Table) -> Iterator[NDArray[np.float64]]:
        if not all(rows.is_double(place) for place in self.places):
            # scikit-learn computes with float32 where it gets nothing else.
            yield from _columns_of(self.scaler.transform(rows.frame(self.places)))
            return
        for at, place in enumerate(self.places):
            column = np.array(rows.numbers(place))
            if self.scaler.with_mean:
                column -= self.scaler.mean_[at]
            if self.scaler.with_std:
                column /= self.scaler.scale_[at]
            yield column


def _add_weighted(sums: NDArray[np.float64], columns: Columns, weights: Iterator[NDArray[np.float64]]) -> None:
    """Add columns times as many of the weights to sums. No dot product: BLAS would wake its threads for it."""
    for column in columns:
        of_column = next(weights, None)
        if of_column is None:
            raise NotThisBatch("another width")
        for at, weight in enumerate(of_column):
            sums[at] += column * weight


def _dense(found: Any) -> NDArray[np.float64]:
    values = np.asarray(found.toarray() if hasattr(found, "toarray") else found)
    if values.ndim != 2 or (values.dtype.kind not in "fiub" and values.dtype != object):
        raise NotThisBatch("a result of another type")
    return values.astype(np.float64, copy=False)


def _columns_of(found: Any) -> Columns:
    return list(np.ascontiguousarray(_dense(found).T))


def require_narrow(columns: int, who: str) -> None:
    """Refuse what looks at too many columns.

    Raises
    ------
    NotCompiled
    """
    if columns > MOST_COLUMNS:
        raise NotCompiled(f"{who} at {columns:,} columns, more than {MOST_COLUMNS}")
