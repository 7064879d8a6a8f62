"""Linear models added up by column: they are equal to scikit-learn, need no compiler, and leave to it what is not theirs."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    TweedieRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, PolynomialFeatures, StandardScaler, TargetEncoder
from sklearn.svm import LinearSVC, LinearSVR

from tasks.compiled import CompiledEstimator, compile_bundle, library, read_form
from tasks.compiled.tables import NotThisBatch
from tests.unit import test_compiled

TEXTS, NUMBERS, METHODS = test_compiled.TEXTS, test_compiled.NUMBERS, test_compiled.METHODS


def make_frame(rows: int, seed: int, *, unseen: bool = False) -> pd.DataFrame:
    """Return the rows that trees are tested on with nothing missing, and numbers that need to be scaled."""
    frame = test_compiled.make_frame(rows, seed, missing=0, unseen=unseen)
    for at, name in enumerate(NUMBERS):
        frame[name] = 100.0 * at + (1.0 + at) * frame[name]
    return frame


def make_labels(frame: pd.DataFrame, classes: int) -> np.ndarray:
    """Return a class of each row, or a number above 0 where there are no classes."""
    score = (frame["a"] + (frame["country"] == "country 1") * 2.0).to_numpy()
    if not classes:
        return score - score.min() + 0.1
    return np.array(["low", "middle", "high", "top"])[pd.qcut(score, classes, labels=False, duplicates="drop")]


def encoded(model: Any, *, texts: Any = None, numbers: Any = None) -> Pipeline:
    """Return a pipeline of one-hot texts and scaled numbers in front of a model."""
    texts = texts or OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=8)
    return make_pipeline(
        ColumnTransformer([("texts", texts, TEXTS), ("numbers", numbers or StandardScaler(), NUMBERS)]), model
    )


def ordinal() -> OrdinalEncoder:
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)


CASES: dict[str, tuple[Any, int]] = {
    "logistic, 2 classes": (encoded(LogisticRegression()), 2),
    "logistic, 4 classes": (encoded(LogisticRegression()), 4),
    "logistic, chosen": (encoded(LogisticRegressionCV(Cs=2, cv=2, l1_ratios=(0,), use_legacy_attributes=False)), 2),
    "logistic, searched": (GridSearchCV(encoded(LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, cv=2), 2),
    "logistic, dense": (encoded(LogisticRegression(), texts=OneHotEncoder(sparse_output=False)), 2),
    "logistic, codes": (encoded(LogisticRegression(), texts=ordinal(), numbers="passthrough"), 2),
    "logistic, targets": (encoded(LogisticRegression(), texts=TargetEncoder(cv=2)), 3),
    "logistic, without intercept": (encoded(LogisticRegression(fit_intercept=False)), 2),
    "logistic, imputed": (encoded(LogisticRegression(), numbers=make_pipeline(SimpleImputer(), StandardScaler())), 2),
    "logistic, powers": (
        encoded(LogisticRegression(), numbers=make_pipeline(StandardScaler(), PolynomialFeatures(2))),
        2,
    ),
    "logistic, scaled afterwards": (
        make_pipeline(
            encoded(Ridge(), texts=ordinal(), numbers="passthrough")[0], StandardScaler(), LogisticRegression()
        ),
        2,
    ),
    "logistic, scaled sparse": (
        make_pipeline(encoded(Ridge())[0], StandardScaler(with_mean=False), LogisticRegression()),
        2,
    ),
    "logistic, only centred": (encoded(LogisticRegression(), numbers=StandardScaler(with_std=False)), 2),
    "ridge, 3 classes": (encoded(RidgeClassifier()), 3),
    "perceptron": (encoded(Perceptron()), 2),
    "support vectors, 3 classes": (encoded(LinearSVC()), 3),
    "least squares": (encoded(LinearRegression()), 0),
    "ridge": (encoded(Ridge()), 0),
    "lasso": (encoded(Lasso(alpha=0.01)), 0),
    "elastic net": (encoded(ElasticNet(alpha=0.01)), 0),
    "huber": (encoded(HuberRegressor(max_iter=1_000)), 0),
    "support vectors, values": (encoded(LinearSVR()), 0),
    "counts": (encoded(PoissonRegressor()), 0),
    "amounts": (encoded(GammaRegressor()), 0),
    "amounts and zeros": (encoded(TweedieRegressor(power=1.5)), 0),
}


def fitted(estimator: Any, classes: int, frame: pd.DataFrame) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return estimator.fit(frame, make_labels(frame, classes))


def compiled(estimator: Any, folder: Path, golden: pd.DataFrame, **options: Any) -> CompiledEstimator | None:
    bundle: Any = SimpleNamespace(name="items", estimator=estimator, digest="0" * 64)
    return compile_bundle(bundle, golden, folder, **{"measure": False, **options})


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may ask for compiled code."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a linear model needs no compiler")

    monkeypatch.setattr(library, "load_library", refuse)


@pytest.mark.parametrize("case", CASES)
def test_a_linear_model_equals_scikit_learn(case: str, tmp_path: Path) -> None:
    estimator, classes = CASES[case]
    estimator = fitted(estimator, classes, make_frame(400, seed=1))
    form = compiled(estimator, tmp_path, make_frame(30, seed=2))
    assert form is not None
    unseen = case != "logistic, dense"
    for rows in (make_frame(1, seed=3), make_frame(1_003, seed=4, unseen=unseen)):
        for method in METHODS:
            if not hasattr(estimator, method):
                assert not hasattr(form, method)
                continue
            expected, found = getattr(estimator, method)(rows), form.compute(method, rows)
            assert found.dtype == expected.dtype
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
            else:
                np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(getattr(form, method)(rows), found)
    assert form.differed is None


def test_several_targets_are_several_sums(tmp_path: Path) -> None:
    frame = make_frame(300, seed=1)
    labels = np.column_stack([make_labels(frame, 0), -make_labels(frame, 0)])
    estimator = encoded(Ridge()).fit(frame, labels)
    form = compiled(estimator, tmp_path, frame.head(20))
    assert form is not None
    rows = make_frame(100, seed=2)
    np.testing.assert_allclose(form.compute("predict", rows), estimator.predict(rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_scikit_learn_refuses_it_refuses_in_its_own_words(wrong: float, tmp_path: Path) -> None:
    frame = make_frame(300, seed=1)
    estimator = fitted(encoded(Ridge()), 0, frame)
    estimator[-1].coef_[-2:] = 0.0
    form = compiled(estimator, tmp_path, frame.head(20))
    assert form is not None
    for name in NUMBERS:
        rows = frame.head(100).copy()
        rows.loc[50, name] = wrong
        with pytest.raises(ValueError, match="Input X contains") as refused:
            estimator.predict(rows)
        with pytest.raises(ValueError, match="Input X contains") as also:
            form.predict(rows)
        assert str(also.value) == str(refused.value)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_row_between_two_classes_is_decided_by_scikit_learn(classes: int, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.linspace(-1.0, 1.0, 301)})
    estimator = LogisticRegression(fit_intercept=False).fit(frame, pd.cut(frame["a"], classes, labels=False))
    form = compiled(estimator, tmp_path, frame.head(20))
    assert form is not None
    assert frame["a"][150] == 0.0
    np.testing.assert_array_equal(form.compute("predict", frame.head(140)), estimator.predict(frame.head(140)))
    with pytest.raises(NotThisBatch, match="between two classes"):
        form.compute("predict", frame)
    np.testing.assert_array_equal(form.predict(frame), estimator.predict(frame))
    assert form.differed is None


def test_a_model_whose_terms_cancel_out_is_left_to_scikit_learn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = make_frame(300, seed=1)
    frame["d"] = 1.5 * frame["c"]
    estimator = fitted(encoded(Ridge(), texts=ordinal(), numbers="passthrough"), 0, frame)
    estimator[-1].coef_[-2:] = (3e9, -2e9)
    with caplog.at_level(logging.INFO):
        assert compiled(estimator, tmp_path, frame.head(50)) is None
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "on golden rows" in caplog.text


def test_narrow_numbers_are_left_to_scikit_learn(tmp_path: Path) -> None:
    """It computes with float32 where it gets nothing else."""
    frame = make_frame(300, seed=1)[NUMBERS].astype(np.float32)
    estimator = make_pipeline(StandardScaler(), Ridge()).fit(frame, make_labels(make_frame(300, seed=1), 0))
    form = compiled(estimator, tmp_path, frame.head(20))
    rows = make_frame(100, seed=2)[NUMBERS].astype(np.float32)
    if form is not None:
        np.testing.assert_array_equal(form.predict(rows), estimator.predict(rows))


def test_many_categories_are_left_to_scikit_learn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"code": [f"code {at}" for at in range(600)], "a": np.arange(600.0)})
    columns = ColumnTransformer([("texts", OneHotEncoder(), ["code"]), ("numbers", StandardScaler(), ["a"])])
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, frame["a"] > 300)
    with caplog.at_level(logging.INFO):
        assert compiled(estimator, tmp_path, frame.head(20)) is None
    assert "it looks at 601 columns, more than 256" in caplog.text


def test_it_says_how_much_faster_it_is(tmp_path: Path) -> None:
    estimator = fitted(encoded(LogisticRegression()), 2, make_frame(300, seed=1))
    assert compiled(estimator, tmp_path / "compiled", make_frame(50, seed=2), measure=True) is not None
    told = read_form(tmp_path / "compiled", "0" * 64).in_words
    assert told.startswith("a linear model added up by column, ")
    assert "times as fast as scikit-learn" in told
