"""What the compiled form of a model reads: a frame, or feature rows as they came, of which no frame is made.

A frame has an object for each text of each row, and a copy of each column. Where a pipeline has no preprocess, nothing but
scikit-learn needs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.columns import Column, Kind, model_frame, model_numbers, model_texts, require_exact, whole

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


class NotThisBatch(Exception):  # an answer, no error
    """This batch is unlike those that the compiled form is made for; scikit-learn has to score it."""


class Table(ABC):
    """Rows of named columns, which are asked for by their place."""

    #: Names of the columns, as scikit-learn compares them.
    names: tuple[Any, ...]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def numbers(self, place: int) -> NDArray[np.float64]:
        """Return a column of numbers, contiguous, not to be written to.

        Raises
        ------
        NotThisBatch
            When it holds something else.
        """

    @abstractmethod
    def is_double(self, place: int) -> bool:
        """Return whether scikit-learn would compute with a column in float64, whatever the others are."""

    @abstractmethod
    def coded(self, place: int) -> tuple[NDArray[Any], pd.Series[Any]]:
        """Return for each row a number of its value, from 0, and the different values: all that there are, and no others.

        Raises
        ------
        NotThisBatch
            When an encoder might tell values apart that this does not.
        """

    @abstractmethod
    def frame(self, places: Sequence[int] | None = None) -> pd.DataFrame:
        """Return some of the columns, or all, as scikit-learn gets them."""

    @abstractmethod
    def some(self, rows: NDArray[np.intp]) -> pd.DataFrame:
        """Return some of the rows as scikit-learn gets them."""


class FrameTable(Table):
    """A frame."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame, self.names = frame, tuple(frame.columns)

    def __len__(self) -> int:
        return len(self._frame)

    def numbers(self, place: int) -> NDArray[np.float64]:
        values = self._frame.iloc[:, place].to_numpy()
        if values.dtype.kind not in "fiub":
            raise NotThisBatch("a column of another type")
        return np.ascontiguousarray(values, dtype=np.float64)

    def is_double(self, place: int) -> bool:
        return self._frame.dtypes.iloc[place] in _DOUBLES

    def coded(self, place: int) -> tuple[NDArray[Any], pd.Series[Any]]:
        return _coded(self._frame.iloc[:, place])

    def frame(self, places: Sequence[int] | None = None) -> pd.DataFrame:
        return self._frame if places is None else self._frame.iloc[:, list(places)]

    def some(self, rows: NDArray[np.intp]) -> pd.DataFrame:
        return self._frame.iloc[rows].reset_index(drop=True)


class RowsTable(Table):
    """Feature rows as they came, which model and compiled form see as :func:`tasks.columns.model_frame` makes them.

    Raises
    ------
    IntegerTooWide
        When a bigint is beyond 2^53, as a frame would, also in a column that nobody asks for.
    """

    def __init__(self, batch: pa.RecordBatch, columns: Sequence[Column]) -> None:
        self._batch, self._columns = batch, tuple(columns)
        self.names = tuple(column.name for column in columns)
        for column in columns:
            require_exact(whole(batch, column.name), column)

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def numbers(self, place: int) -> NDArray[np.float64]:
        column = self._columns[place]
        if column.kind is not Kind.NUMBER:
            raise NotThisBatch("a column of another type")
        return model_numbers(whole(self._batch, column.name), column)

    def is_double(self, place: int) -> bool:
        return self._columns[place].kind is Kind.NUMBER

    def coded(self, place: int) -> tuple[NDArray[Any], pd.Series[Any]]:
        column = self._columns[place]
        if column.kind is not Kind.TEXT:
            return _coded(self.frame([place]).iloc[:, 0])
        import pandas as pd

        values = whole(self._batch, column.name)
        if pa.types.is_dictionary(values.type):  # it may have values that no row has
            values = values.dictionary_decode()
        encoded = values.dictionary_encode()
        different, missing = len(encoded.dictionary), encoded.indices.null_count
        texts = np.empty(different + bool(missing), dtype=object)  # the last one is None, for NULL
        texts[:different] = model_texts(encoded.dictionary)
        indices = encoded.indices.fill_null(different) if missing else encoded.indices
        return indices.to_numpy(), pd.Series(texts, dtype=object)

    def frame(self, places: Sequence[int] | None = None) -> pd.DataFrame:
        return model_frame(self._batch, self._columns if places is None else [self._columns[at] for at in places])

    def some(self, rows: NDArray[np.intp]) -> pd.DataFrame:
        return model_frame(self._batch.take(pa.array(rows)), self._columns)


def as_table(rows: Table | pd.DataFrame | NDArray[Any]) -> Table:
    """Return rows, as a caller of a model has them, as a table."""
    import pandas as pd

    if isinstance(rows, Table):
        return rows
    return FrameTable(rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows, copy=False))


_DOUBLES = (np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.int16))


def _coded(series: pd.Series[Any]) -> tuple[NDArray[np.intp], pd.Series[Any]]:
    import pandas as pd

    codes, values = pd.factorize(series)
    missing = codes < 0
    if missing.any():
        if series.dtype == object and len({type(value) for value in series[missing]}) > 1:
            # None and NaN are two values to an encoder.
            raise NotThisBatch("several kinds of missing values")
        codes = np.where(missing, len(values), codes)
    first = np.empty(int(codes.max(initial=-1)) + 1, dtype=np.intp)
    # Of several rows with a number the last one that is assigned stays: backwards, that is the first row.
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return codes, series.take(first).reset_index(drop=True)
