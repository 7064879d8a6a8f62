"""How many batches a model predicts at once: several where nothing is kept between calls, else one."""

from __future__ import annotations

from functools import partial
from typing import Any

import joblib
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from tasks.threads import MOST_THREADS, predicting_threads


def doubled(values: Any) -> Any:
    """A function of the user's own, which might keep things between calls."""
    return 2 * values


class Remembering(LinearRegression):
    """An estimator of the user's own."""


PIPELINE = make_pipeline(ColumnTransformer([("codes", OneHotEncoder(), ["c"])]), StandardScaler(), LogisticRegression())


@pytest.mark.parametrize("estimator", [LogisticRegression(), HistGradientBoostingClassifier(), PIPELINE])
def test_models_of_scikit_learn_predict_a_batch_on_each_core(monkeypatch: pytest.MonkeyPatch, estimator: Any) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    assert predicting_threads(estimator) == 4

    monkeypatch.setattr(joblib, "cpu_count", lambda: 64)
    assert predicting_threads(estimator) == MOST_THREADS


@pytest.mark.parametrize(
    "estimator",
    [
        Remembering(),
        make_pipeline(FunctionTransformer(doubled), LinearRegression()),
        make_pipeline(FunctionTransformer(partial(doubled)), LinearRegression()),
        make_pipeline(StandardScaler(), Remembering()),
        ColumnTransformer([("own", FunctionTransformer(doubled), ["a"])]),
        object.__new__(type("Unknown", (), {"__module__": "somewhere.else"})),
    ],
)
def test_what_may_keep_things_between_calls_predicts_one_batch_at_a_time(
    monkeypatch: pytest.MonkeyPatch, estimator: Any
) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)

    assert predicting_threads(estimator) == 1
