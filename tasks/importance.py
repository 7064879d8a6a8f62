"""Importance: what share of what a model knows it owes to each feature, measured when it is registered.

A feature's values are shuffled among held-out rows, and the model's loss is measured again (permutation importance): what
it loses is what it owes to the feature. Shuffled are columns of the feature query, before preprocessing, so that a
feature that becomes ten columns is one feature still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.bundle import AS_OF, Bundle
from tasks.columns import model_frame
from tasks.threads import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.bundle import Preprocess

#: Held-out rows that are shuffled. Nineteen features three times took 1.4 s of one core with 100 boosted trees (measured).
ROWS = 2_000

#: Times that each feature is shuffled.
REPEATS = 3

#: Predictions in all, whatever the number of features; models with more of them get fewer rows.
MOST_PREDICTIONS = 20 * ROWS * REPEATS

#: With fewer rows than this the noise of a loss is as large as what most features are worth.
LEAST_ROWS = 50


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The share of each feature; they add up to 1."""

    shares: dict[str, float]
    #: The loss whose increase was measured; None where nothing was, and all features have equal shares.
    loss: str | None
    #: Rows that were shuffled.
    rows: int
    #: What was done, or why it could not be, in words.
    words: str

    @property
    def measured(self) -> bool:
        """Whether the shares say anything about the features."""
        return self.loss is not None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return dict(self.__dict__)


class _Unmeasured(Exception):
    """Why importance cannot be measured, in words."""


class _Chain:
    """What permutation_importance takes for an estimator: rows of the feature query go through preprocess and model."""

    def __init__(self, bundle: Bundle, preprocess: Preprocess) -> None:
        self.bundle, self.preprocess = bundle, preprocess

    def fit(self, *_: Any) -> None:
        """Asked for by permutation_importance, and never called."""

    def prepared(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return what the model sees of a frame of as_of and features, which is left as it was."""
        found = frame if self.preprocess is None else self.preprocess(frame.copy())
        return self.bundle.prepare(found.drop(columns=[AS_OF.name], errors="ignore"))


def measure_importance(bundle: Bundle, sample: pa.Table, preprocess: Preprocess, *, labelled: bool) -> Importance:
    """Measure the importance of each feature on rows that the model was not fitted on; equal shares where it cannot be.

    Parameters
    ----------
    sample
        as_of and features as the feature query returns them, shape ``(n_rows, ...)``.
    labelled
        Whether the sample's column ``label`` is what came true for each row, as far as it is known.
    """
    try:
        with one_thread():
            return _measured(_Chain(bundle, preprocess), sample, labelled)
    except _Unmeasured as why:
        names = [column.name for column in bundle.features]
        equal = dict.fromkeys(names, round(1 / len(names), 6)) if names else {}
        return Importance(shares=equal, loss=None, rows=0, words=f"All features count the same: {why}.")


def _measured(chain: _Chain, sample: pa.Table, labelled: bool) -> Importance:
    from sklearn.inspection import permutation_importance

    if not labelled:
        raise _Unmeasured("there are no labels to measure it with")
    if any(output.method == "recommend" for output in chain.bundle.outputs):
        raise _Unmeasured("a ranked list has no loss that a single label gives")
    frame, labels = _scorable(chain, sample)
    loss, negative = _loss(chain.bundle.estimator, labels)
    try:
        found = permutation_importance(
            chain, frame, labels, scoring=negative, n_repeats=REPEATS, random_state=0, max_samples=1.0
        )
    except Exception as error:
        raise _Unmeasured(f"the model raised {type(error).__name__} on shuffled rows") from error
    lost = dict(zip(frame.columns, np.maximum(found.importances_mean, 0.0).tolist(), strict=True))
    total = sum(lost[column.name] for column in chain.bundle.features)
    if not np.isfinite(total) or total <= 0:
        raise _Unmeasured(f"shuffling no feature made the {loss} worse")
    # Rounded: the same data has to give the same bundle, whatever the order of sums in a library.
    return Importance(
        shares={column.name: round(lost[column.name] / total, 6) for column in chain.bundle.features},
        loss=loss,
        rows=len(frame),
        words=f"How much worse the {loss} gets when a feature is shuffled among {len(frame):,} rows, {REPEATS} times.",
    )


def _scorable(chain: _Chain, sample: pa.Table) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Return the frame of rows to shuffle, and their labels: spread over the sample, without rows that a run rejects."""
    from tasks.training import LABEL, label_values

    features = chain.bundle.features
    sample = sample.filter(pc.invert(pc.is_null(sample.column(LABEL), nan_is_null=True)))
    rows = min(ROWS, max(LEAST_ROWS, MOST_PREDICTIONS // (REPEATS * max(len(features), 1))))
    for candidates in (np.arange(sample.num_rows), _whole(sample, [column.name for column in features])):
        if len(candidates) < LEAST_ROWS:
            raise _Unmeasured(f"{len(candidates)} rows are too few, {LEAST_ROWS} are needed")
        chosen = candidates[np.unique(np.linspace(0, len(candidates) - 1, rows).astype(np.int64))]
        rows_chosen = sample.take(pa.array(chosen))
        frame = model_frame(rows_chosen, (AS_OF, *features))
        try:
            chain.bundle.score(chain.prepared(frame))
        except Exception as error:
            raised = type(error).__name__
            continue
        return frame, label_values(rows_chosen)
    raise _Unmeasured(f"the model raised {raised} on the rows")


def _whole(sample: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the positions of the rows without a NULL."""
    holes = np.zeros(sample.num_rows, dtype=bool)
    for name in names:
        holes |= pc.is_null(sample.column(name), nan_is_null=True).to_numpy()
    return np.flatnonzero(~holes)


def _loss(estimator: Any, labels: NDArray[Any]) -> tuple[str, Any]:
    """Return the name of the loss that fits an estimator, and the function that permutation_importance asks for less of."""
    from tasks.training import is_classifier

    if not is_classifier(estimator):
        if not callable(getattr(estimator, "predict", None)) or labels.dtype.kind not in "bif":
            raise _Unmeasured("the model predicts neither classes nor values")
        return "mean squared error", _negative_squares
    classes = getattr(estimator, "classes_", None)
    known = (
        classes is not None
        and not isinstance(classes, list)
        and set(labels.tolist()) <= set(np.asarray(classes).tolist())
    )
    if known and callable(getattr(estimator, "predict_proba", None)):
        return "log loss", partial(_negative_log_loss, classes=np.asarray(classes))
    return "accuracy", _accuracy


def _negative_squares(chain: _Chain, frame: pd.DataFrame, labels: NDArray[Any]) -> float:
    found = np.asarray(chain.bundle.estimator.predict(chain.prepared(frame)), dtype=np.float64).reshape(len(labels))
    return -float(np.mean((found - labels.astype(np.float64)) ** 2))


def _negative_log_loss(chain: _Chain, frame: pd.DataFrame, labels: NDArray[Any], *, classes: NDArray[Any]) -> float:
    from sklearn.metrics import log_loss

    return -float(log_loss(labels, chain.bundle.estimator.predict_proba(chain.prepared(frame)), labels=classes))


def _accuracy(chain: _Chain, frame: pd.DataFrame, labels: NDArray[Any]) -> float:
    return float(np.mean(np.asarray(chain.bundle.estimator.predict(chain.prepared(frame))) == labels))
