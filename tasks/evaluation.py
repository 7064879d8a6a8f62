"""Evaluation: how good a model is on rows that it was not fitted on, beside a naive baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.bundle import AS_OF, preprocessed
from tasks.columns import Column
from tasks.declaration import Output
from tasks.errors import PrescoreError, TrainingRefused
from tasks.outputs import DEFAULT_K, predict_outputs
from tasks.performance import calibration, promised_auc
from tasks.training import LABEL, is_classifier, label_values, one_row_each

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tasks.features import FeatureContract
    from tasks.pipeline import Pipeline
    from tasks.training import Split

#: Metrics that are kept with a model of two classes to compare later ones with, and not shown.
_FURTHER = ("accuracy", "f1", "calibration_error", "promised_auc")

#: Task, metrics, those of the baseline, and what the baseline is.
Judged = tuple[str, dict[str, float | None], dict[str, float | None], str]


def evaluate(pipeline: Pipeline, contract: FeatureContract, estimator: Any, parts: Split) -> dict[str, Any]:
    """Return metrics of a fitted model on the held-out rows, beside those of a naive baseline, ready for JSON.

    Two classes: roc_auc, average_precision, log_loss, brier. More: log_loss, accuracy. A value: mae, rmse, r2. A ranked
    list: recall@k. No label: score, where the estimator has one, and inertia. A metric that is not defined on these
    rows is None.

    Raises
    ------
    TrainingRefused
        When the model raises on the held-out rows.
    """
    frame = preprocessed(parts.held_out, contract.features, pipeline.preprocess_function())
    try:
        if not parts.labelled:
            judged: Judged = ("unsupervised", _unsupervised(estimator, frame), {}, "none")
        elif ranks(pipeline, estimator):
            judged = _judge_lists(pipeline, contract, estimator, parts)
        elif is_classifier(estimator):
            judged = _judge_classes(pipeline, estimator, frame, parts)
        else:
            judged = _judge_values(pipeline, estimator, frame, parts)
    except PrescoreError:
        raise
    except Exception as error:
        raise TrainingRefused(
            pipeline.name,
            f"the model raised {type(error).__name__} on {len(frame)} held-out rows",
            "Rows of a later time hold what earlier ones did not, such as new categories: let the model take them "
            '(OneHotEncoder(handle_unknown="ignore")), as it will meet them every day.',
        ) from error
    task, metrics, baseline, words = judged
    further: dict[str, float | None] = {}
    if task == "binary":
        further = {name: metrics.pop(name) for name in _FURTHER if name in metrics}
        baseline = {name: value for name, value in baseline.items() if name not in _FURTHER}
    return {
        "task": task,
        "metrics": _finite(metrics),
        "baseline": _finite(baseline),
        "baseline_is": words,
        "further": _finite(further),
        "rows_fitted": parts.fitted.num_rows,
        "rows_held_out": parts.held_out.num_rows,
        "rows_unlabelled": parts.unlabelled,
        "split_by": str(parts.by),
        "held_out_from": parts.held_out_from.isoformat(),
    }


def _judge_classes(pipeline: Pipeline, estimator: Any, frame: pd.DataFrame, parts: Split) -> Judged:
    truth, learned = label_values(parts.held_out), label_values(parts.fitted)
    classes = np.asarray(estimator.classes_)
    shares = np.array([(learned == label).mean() for label in classes])
    prior = np.tile(shares, (len(truth), 1))
    if len(classes) == 2:
        at = _positive(pipeline, classes)
        naive, words = prior[:, at], f"the share of {classes[at]} among the rows fitted on"
        if pipeline.training is not None and pipeline.training.baseline is not None:
            naive, words = _by_group(pipeline.training.baseline, parts, (learned == classes[at]).astype(float))
        positive, scores = truth == classes[at], _scores_of(estimator, frame, at)
        found = _binary(positive, scores)
        if found["brier"] is not None:  # probabilities
            _, instants = np.unique(parts.held_out.column(AS_OF.name).to_numpy(), return_inverse=True)
            found["promised_auc"] = promised_auc(scores, instants)
        return "binary", found, _binary(positive, naive), words
    found = {"accuracy": float((np.asarray(estimator.predict(frame)) == truth).mean()), "log_loss": None}
    majority = classes[int(shares.argmax())]
    naive_found = {"accuracy": float((truth == majority).mean()), "log_loss": _log_loss(truth, prior, classes)}
    if hasattr(estimator, "predict_proba"):
        found["log_loss"] = _log_loss(truth, estimator.predict_proba(frame), classes)
    return "multiclass", found, naive_found, "the most frequent class and the shares of the rows fitted on"


def _positive(pipeline: Pipeline, classes: NDArray[Any]) -> int:
    """Return which of two classes is the one asked for: that of a declared probability, else the second."""
    from tasks.outputs import spellings

    declared = {output.class_ for output in pipeline.predictions if output.class_ not in (None, "all")}
    found = [at for at, label in enumerate(classes.tolist()) if declared & spellings(label)]
    return found[0] if len(found) == 1 else 1


def _scores_of(estimator: Any, frame: pd.DataFrame, at: int) -> NDArray[np.float64]:
    """Return a score of one of two classes: its probability where there is one, else its distance or its label."""
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(frame), dtype=np.float64)[:, at]
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(frame), dtype=np.float64) * (1 if at == 1 else -1)
    return np.asarray(np.asarray(estimator.predict(frame)) == estimator.classes_[at], dtype=np.float64)


def _binary(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> dict[str, float | None]:
    from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, log_loss, roc_auc_score

    both = bool(positive.any()) and not bool(positive.all())
    probabilities = bool(((scores >= 0) & (scores <= 1)).all())
    return {
        "roc_auc": float(roc_auc_score(positive, scores)) if both else None,
        "average_precision": float(average_precision_score(positive, scores)) if positive.any() else None,
        "log_loss": float(log_loss(positive, scores, labels=[False, True])) if probabilities else None,
        "brier": float(brier_score_loss(positive, scores, labels=[False, True])) if probabilities else None,
        "accuracy": float((positive == (scores >= 0.5)).mean()) if probabilities else None,
        "f1": float(f1_score(positive, scores >= 0.5, zero_division=0.0)) if probabilities else None,
        "calibration_error": calibration(positive, scores).error if probabilities else None,
    }


def _log_loss(truth: NDArray[Any], probabilities: Any, classes: NDArray[Any]) -> float | None:
    """Return the log loss of several classes; None when a held-out row is of a class that was not fitted."""
    where = {label: at for at, label in enumerate(classes.tolist())}
    if any(label not in where for label in truth.tolist()):
        return None
    of_truth = np.asarray(probabilities)[np.arange(len(truth)), [where[label] for label in truth.tolist()]]
    return float(-np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1)).mean())


def _judge_values(pipeline: Pipeline, estimator: Any, frame: pd.DataFrame, parts: Split) -> Judged:
    truth, learned = label_values(parts.held_out).astype(np.float64), label_values(parts.fitted).astype(np.float64)
    naive, words = np.full(len(truth), learned.mean()), "the mean of the rows fitted on"
    if pipeline.training is not None and pipeline.training.baseline is not None:
        naive, words = _by_group(pipeline.training.baseline, parts, learned)
    found = np.asarray(estimator.predict(frame), dtype=np.float64).reshape(len(truth))
    return "regression", _values(truth, found), _values(truth, naive), words


def _values(truth: NDArray[np.float64], found: NDArray[np.float64]) -> dict[str, float | None]:
    misses = found - truth
    spread = float(((truth - truth.mean()) ** 2).sum())
    return {
        "mae": float(np.abs(misses).mean()),
        "rmse": float(np.sqrt((misses**2).mean())),
        "r2": 1 - float((misses**2).sum()) / spread if spread > 0 else None,
    }


def _by_group(feature: str, parts: Split, learned: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """Return the mean label of each held-out row's group, and of all where the group is new."""
    import pandas as pd

    groups = pd.Series(parts.fitted.column(feature).to_pandas()).astype(object).fillna("")
    means = pd.Series(learned).groupby(groups).mean()
    asked = pd.Series(parts.held_out.column(feature).to_pandas()).astype(object).fillna("")
    found = asked.map(means).astype(float).fillna(float(learned.mean())).to_numpy()
    return np.asarray(found, dtype=np.float64), f"the mean of each {feature} among the rows fitted on"


# Ranked lists ----------------------------------------------------------------------------------------------------


def ranks(pipeline: Pipeline, estimator: Any) -> bool:
    """Return whether a model is judged by its lists: the pipeline declares one, or the model can do nothing else."""
    if not callable(getattr(estimator, "recommend", None)):
        return False
    return any(output.method == "recommend" for output in pipeline.predictions) or not hasattr(estimator, "predict")


def _judge_lists(pipeline: Pipeline, contract: FeatureContract, estimator: Any, parts: Split) -> Judged:
    """Judge lists against all labels of the same key and as_of, beside the labels that are most frequent anyway.

    recall@k is the mean, over entities with a label, of the share of their labels that the first k places hold: 1 when
    all that came true was on the list. Every entity counts the same, however many labels it has.
    """
    entities, owners = one_row_each(parts.held_out, contract.key)
    frame = preprocessed(entities, contract.features, pipeline.preprocess_function())
    learned, counts = np.unique(_spelled(parts.fitted.column(LABEL)), return_counts=True)
    frequent = learned[np.argsort(-counts, kind="stable")]
    truth = _spelled(parts.held_out.column(LABEL))
    found: dict[str, float | None] = {}
    naive: dict[str, float | None] = {}
    lengths = {output.k or DEFAULT_K for output in pipeline.predictions if output.method == "recommend"} or {DEFAULT_K}
    for k in sorted(lengths):
        asked = Output(name="items", method="recommend", part="items", k=k)
        lists = predict_outputs(estimator, frame, [asked], [Column(name=asked.name, postgres_type="text[]")])[
            asked.name
        ]
        whose = pc.list_parent_indices(lists).to_numpy()
        found[f"recall@{k}"] = _recall(owners, truth, whose, _spelled(pc.list_flatten(lists)))
        most = frequent[:k]
        everybody = np.repeat(np.arange(entities.num_rows), len(most))
        naive[f"recall@{k}"] = _recall(owners, truth, everybody, np.tile(most, entities.num_rows))
    return "ranking", found, naive, "the most frequent labels of the rows fitted on"


def _spelled(values: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Return labels or items as text, shape ``(n,)``: a label 17 and an item "17" are the same."""
    return np.asarray(values.cast(pa.string()).to_numpy(zero_copy_only=False), dtype=object)


def _recall(owners: NDArray[Any], truth: NDArray[Any], whose: NDArray[Any], items: NDArray[Any]) -> float:
    """Return the mean share of an entity's labels that are among its items.

    ``truth`` are labels of the entities ``owners``, ``items`` those listed for the entities ``whose``; entities count
    from 0 and each has a label. Sparse: memory grows with the lists, not with entities times items.
    """
    import pandas as pd
    from scipy import sparse
    from sklearn.metrics import recall_score

    codes, known = pd.factorize(np.concatenate([truth, items]))
    shape = (int(owners.max()) + 1, len(known))

    def marked(rows: NDArray[Any], columns: NDArray[Any]) -> Any:
        matrix = sparse.csr_matrix((np.ones(len(rows), dtype=np.int64), (rows, columns)), shape=shape)
        matrix.data[:] = 1  # named twice is named
        return matrix

    wanted, listed = marked(owners, codes[: len(truth)]), marked(whose, codes[len(truth) :])
    return float(recall_score(wanted, listed, average="samples", zero_division=0.0))


# No label --------------------------------------------------------------------------------------------------------


def _unsupervised(estimator: Any, frame: pd.DataFrame) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    if hasattr(last, "inertia_"):
        found["inertia"] = float(last.inertia_)
    if hasattr(estimator, "score"):
        found["score"] = float(estimator.score(frame))
    return found


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: value if value is not None and np.isfinite(value) else None for name, value in metrics.items()}
