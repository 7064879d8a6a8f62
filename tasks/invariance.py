"""Whether a row gets the same prediction whatever batch it comes in: what scoring in batches relies on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tasks.bundle import Bundle, outputs_table, preprocessed, worst_difference
from tasks.errors import RegistrationRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.bundle import Preprocess

#: Linear models and neural nets differ by 2e-16 between batch sizes; more than this is another answer.
SAME_SCORE = 1e-9

#: Smaller differences are recorded as 0: where a batch lies in memory decides them, and equal models are equal bytes.
_CHANCE = 1e-12

#: Rows that are scored one at a time: an incremental run often has a single row.
_ALONE = 5

_ROW_WISE = (
    "Take statistics of columns in fit (a scikit-learn transformer in build_model), not in preprocess, where they "
    "would be those of the batch."
)

_BY_NAME = "Name columns in preprocess and in the model instead of counting them."


def score_rows(bundle: Bundle, table: pa.Table, preprocess: Preprocess, *, columns_backwards: bool = False) -> pa.Table:
    """Return the predictions for feature rows; ``columns_backwards`` gives both preprocess and model another order."""
    features = bundle.features[::-1] if columns_backwards else bundle.features
    frame = preprocessed(table, features, preprocess)
    if columns_backwards:
        frame = frame[list(frame.columns)[::-1]]
    return outputs_table(bundle.score(frame))


def require_rows_independent(bundle: Bundle, golden: pa.Table, preprocess: Preprocess) -> dict[str, float]:
    """Refuse a model whose answer for a row depends on other rows, the order of rows or columns, or chance.

    Returns
    -------
    dict
        How the rows were scored again -> largest difference of a value from the first time; classes are equal.
        Differences below 1e-12 count as 0.

    Raises
    ------
    RegistrationRefused
        Saying how far the answers are apart.
    """
    expected = score_rows(bundle, golden, preprocess)
    found: dict[str, float] = {}
    for how, (trial, remedy) in _trials(bundle, golden, preprocess).items():
        try:
            now = trial()
            first = expected.slice(0, now.num_rows)
            worst = worst_difference(first, now, SAME_SCORE)
        except Exception as error:
            raise RegistrationRefused(
                bundle.name,
                f"{golden.num_rows} rows that score well raise {type(error).__name__} scored {how}",
                remedy,
            ) from error
        if worst is not None:
            raise RegistrationRefused(bundle.name, f"the same {now.num_rows} rows scored {how} differ: {worst}", remedy)
        found[how] = largest_difference(first, now)
    return found


def _trials(bundle: Bundle, golden: pa.Table, preprocess: Preprocess) -> dict[str, tuple[Callable[[], pa.Table], str]]:
    """Return ways to score the rows again, each with what to do when it gives another answer."""
    rows = golden.num_rows
    half = max(rows // 2, 1)
    backwards = pa.array(np.arange(rows)[::-1])

    def parts(*lengths: int) -> pa.Table:
        starts = np.cumsum([0, *lengths])
        pieces = [golden.slice(start, length) for start, length in zip(starts, lengths, strict=False) if length]
        return pa.concat_tables([score_rows(bundle, piece, preprocess) for piece in pieces])

    return {
        "twice": (lambda: parts(rows), "Give random steps a fixed random_state."),
        "in two batches": (lambda: parts(half, rows - half), _ROW_WISE),
        "one at a time": (lambda: parts(*[1] * min(_ALONE, rows)), _ROW_WISE),
        "in reverse order": (
            lambda: score_rows(bundle, golden.take(backwards), preprocess).take(backwards),
            _ROW_WISE,
        ),
        "with reordered columns": (
            lambda: score_rows(bundle, golden, preprocess, columns_backwards=True),
            _BY_NAME,
        ),
    }


def largest_difference(first: pa.Table, now: pa.Table) -> float:
    """Return the largest difference between values of two tables; 0 below 1e-12 and for what is no number."""
    largest = 0.0
    for before, after in zip(first.columns, now.columns, strict=True):
        left, right = (_values(column.combine_chunks()) for column in (before, after))
        if left is not None and right is not None and len(left):
            with np.errstate(invalid="ignore"):
                largest = max(largest, float(np.nan_to_num(np.abs(left - right), posinf=0.0).max()))
    return largest if largest >= _CHANCE else 0.0


def _values(values: pa.Array) -> NDArray[np.float64] | None:
    if pa.types.is_list(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False) if pa.types.is_floating(values.type) else None
