"""Fitted linear models as sums over columns: a text is multiplied with its coefficients once a batch, not in every row."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.compiled.library import NotCompiled
from tasks.compiled.tables import NotThisBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Sums = NDArray[np.float64]

#: Sums are added up in another order than scikit-learn's. Nearer than this to where a class ends, scikit-learn decides.
UNDECIDED = 1e-9


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A fitted linear model."""

    #: float64, shape ``(n_features, n_outputs)``.
    weights: NDArray[np.float64]
    #: float64, shape ``(n_outputs,)``.
    intercept: NDArray[np.float64]
    #: Method -> what scikit-learn returns for sums of shape ``(n_rows, n_outputs)``.
    methods: Mapping[str, Callable[[Sums], NDArray[Any]]]


def read_linear(model: Any) -> Linear | None:
    """Return a fitted linear model; None for estimators of other kinds.

    What follows the sums (links, probabilities, classes) is done by scikit-learn's own methods on a shallow copy of it.

    Raises
    ------
    NotCompiled
        Where its coefficients are no float64.
    """
    from sklearn import linear_model, svm

    # Exactly these classes: one that inherits may predict otherwise.
    match type(model):
        case (
            linear_model.LogisticRegression
            | linear_model.LogisticRegressionCV
            | linear_model.RidgeClassifier
            | linear_model.RidgeClassifierCV
            | linear_model.Perceptron
            | svm.LinearSVC
        ):
            return _classifier(model)
        case (
            linear_model.LinearRegression
            | linear_model.Ridge
            | linear_model.RidgeCV
            | linear_model.Lasso
            | linear_model.LassoCV
            | linear_model.ElasticNet
            | linear_model.ElasticNetCV
            | linear_model.HuberRegressor
            | linear_model.QuantileRegressor
            | svm.LinearSVR
        ):
            return _regressor(model, "_decision_function")
        case linear_model.PoissonRegressor | linear_model.GammaRegressor | linear_model.TweedieRegressor:
            return _regressor(model, "_linear_predictor")
    return None


def _classifier(model: Any) -> Linear:
    finisher = copy.copy(model)
    finisher.decision_function = lambda scores: scores

    def scores(sums: Sums) -> Sums:
        return sums.ravel() if sums.shape[1] == 1 else sums

    def predict(sums: Sums) -> NDArray[Any]:
        found = scores(sums)
        if found.ndim == 1:
            gaps = np.abs(found)
        else:
            ascending = np.partition(found, -2, axis=1)
            gaps = ascending[:, -1] - ascending[:, -2]
        if (gaps < UNDECIDED).any():
            raise NotThisBatch("rows between two classes")
        result: NDArray[Any] = finisher.predict(found)
        return result

    def linked(method: Callable[[Sums], NDArray[Any]]) -> Callable[[Sums], NDArray[Any]]:
        return lambda sums: method(scores(sums).copy())  # computed in place

    links = ("predict_proba", "predict_log_proba")
    methods = {name: linked(getattr(finisher, name)) for name in links if hasattr(finisher, name)}
    return _linear(model, {"predict": predict, "decision_function": scores, **methods})


def _regressor(model: Any, sums_by: str) -> Linear:
    finisher = copy.copy(model)
    several = np.ndim(model.coef_) == 2
    setattr(finisher, sums_by, lambda sums: sums if several else sums.ravel())
    return _linear(model, {"predict": finisher.predict})


def _linear(model: Any, methods: Mapping[str, Callable[[Sums], NDArray[Any]]]) -> Linear:
    weights = np.atleast_2d(np.asarray(model.coef_)).T
    if weights.dtype != np.float64:
        raise NotCompiled(f"its coefficients are {weights.dtype}")
    intercept = np.broadcast_to(np.asarray(model.intercept_, dtype=np.float64), (weights.shape[1],))
    return Linear(weights=np.ascontiguousarray(weights), intercept=intercept, methods=methods)
