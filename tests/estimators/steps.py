"""Preprocessing steps, each in a ColumnTransformer before a linear model, and ways to put whole frames together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from sklearn import (
    cluster,
    compose,
    decomposition,
    feature_extraction,
    feature_selection,
    impute,
    kernel_approximation,
    linear_model,
    pipeline,
    preprocessing,
    random_projection,
    tree,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes IterativeImputer importable

from tests.estimators.kinds import NUMBERS, Kind, filled, usual_columns


@dataclass(frozen=True)
class Step:
    """A preprocessing step, before a linear model in a ColumnTransformer."""

    name: str
    make: Callable[[ModuleType], Any]
    #: Its columns, as ColumnTransformer takes them: a name gives the step a series.
    on: list[str] | str

    @property
    def alone(self) -> Kind:
        """The step as an estimator of the catalogue."""
        return with_steps(self.name, [self])


def _step(name: str, make: Callable[[ModuleType], Any], on: list[str] | str | None = None) -> Step:
    return Step(name, make, NUMBERS if on is None else on)


def with_steps(name: str, steps: list[Step]) -> Kind:
    def make(code: ModuleType) -> Any:
        parts = [(step.name, step.make(code), step.on) for step in steps]
        columns = compose.ColumnTransformer([*parts, ("orders", "passthrough", ["orders"])])
        return pipeline.make_pipeline(columns, linear_model.LogisticRegression(max_iter=200))

    return Kind(name=name, family="preprocessing", make=make)


def _after_filling(step: Callable[[], Any]) -> Callable[[ModuleType], Any]:
    return lambda code: pipeline.make_pipeline(impute.SimpleImputer(), step())


def on_text(vectorizer: Callable[[ModuleType], Any]) -> Callable[[ModuleType], Any]:
    return lambda code: pipeline.make_pipeline(preprocessing.FunctionTransformer(code.words), vectorizer(code))


STEPS = [
    _step("StandardScaler", _after_filling(preprocessing.StandardScaler)),
    _step("MinMaxScaler", _after_filling(preprocessing.MinMaxScaler)),
    _step("RobustScaler", _after_filling(preprocessing.RobustScaler)),
    _step("MaxAbsScaler", _after_filling(preprocessing.MaxAbsScaler)),
    _step("PowerTransformer", _after_filling(preprocessing.PowerTransformer)),
    _step("QuantileTransformer", _after_filling(lambda: preprocessing.QuantileTransformer(n_quantiles=20))),
    _step(
        "KBinsDiscretizer",
        _after_filling(lambda: preprocessing.KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf")),
    ),
    _step("SplineTransformer", _after_filling(lambda: preprocessing.SplineTransformer(n_knots=4))),
    _step("PolynomialFeatures", _after_filling(preprocessing.PolynomialFeatures)),
    _step("Normalizer", _after_filling(preprocessing.Normalizer)),
    _step("Binarizer", _after_filling(lambda: preprocessing.Binarizer(threshold=10))),
    _step(
        "OneHotEncoder",
        lambda code: preprocessing.OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist"),
        ["country"],
    ),
    _step("OneHotEncoder_strict", lambda code: preprocessing.OneHotEncoder(drop="if_binary"), ["country"]),
    _step(
        "OrdinalEncoder",
        lambda code: preprocessing.OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
        ),
        ["country"],
    ),
    _step("TargetEncoder", lambda code: preprocessing.TargetEncoder(random_state=0), ["country"]),
    _step("SimpleImputer", lambda code: impute.SimpleImputer(strategy="median", add_indicator=True)),
    _step(
        "SimpleImputer_text",
        lambda code: pipeline.make_pipeline(
            impute.SimpleImputer(strategy="most_frequent", missing_values=None),
            preprocessing.OneHotEncoder(handle_unknown="ignore"),
        ),
        ["country"],
    ),
    _step("KNNImputer", lambda code: impute.KNNImputer(n_neighbors=3)),
    _step("IterativeImputer", lambda code: impute.IterativeImputer(max_iter=3, random_state=0)),
    _step("MissingIndicator", lambda code: impute.MissingIndicator(features="all")),
    _step("SelectKBest_f_classif", _after_filling(lambda: feature_selection.SelectKBest(k=2))),
    _step("SelectKBest_chi2", _after_filling(lambda: feature_selection.SelectKBest(feature_selection.chi2, k=2))),
    _step(
        "SelectKBest_mutual_info",
        _after_filling(lambda: feature_selection.SelectKBest(feature_selection.mutual_info_classif, k=2)),
    ),
    _step("SelectPercentile", _after_filling(lambda: feature_selection.SelectPercentile(percentile=70))),
    _step(
        "SelectKBest_partial",
        _after_filling(
            lambda: feature_selection.SelectKBest(
                functools.partial(feature_selection.mutual_info_classif, random_state=0), k=2
            )
        ),
    ),
    _step("VarianceThreshold", _after_filling(feature_selection.VarianceThreshold)),
    _step(
        "SelectFromModel",
        _after_filling(
            lambda: feature_selection.SelectFromModel(tree.DecisionTreeClassifier(max_depth=3, random_state=0))
        ),
    ),
    _step(
        "RFE", _after_filling(lambda: feature_selection.RFE(linear_model.LogisticRegression(), n_features_to_select=2))
    ),
    _step("PCA", _after_filling(lambda: decomposition.PCA(2))),
    _step("Nystroem", _after_filling(lambda: kernel_approximation.Nystroem(n_components=5, random_state=0))),
    _step("RBFSampler", _after_filling(lambda: kernel_approximation.RBFSampler(n_components=5, random_state=0))),
    _step(
        "GaussianRandomProjection",
        _after_filling(lambda: random_projection.GaussianRandomProjection(2, random_state=0)),
    ),
    _step(
        "SparseRandomProjection",
        _after_filling(lambda: random_projection.SparseRandomProjection(2, dense_output=True, random_state=0)),
    ),
    _step("FeatureAgglomeration", _after_filling(lambda: cluster.FeatureAgglomeration(2))),
    _step("CountVectorizer", on_text(lambda code: feature_extraction.text.CountVectorizer()), "note"),
    _step("TfidfVectorizer", on_text(lambda code: feature_extraction.text.TfidfVectorizer(ngram_range=(1, 2))), "note"),
    _step(
        "TfidfVectorizer_stop_words",
        on_text(lambda code: feature_extraction.text.TfidfVectorizer(stop_words="english", dtype=np.float32)),
        "note",
    ),
    _step(
        "TfidfVectorizer_own_preprocessor",
        on_text(lambda code: feature_extraction.text.TfidfVectorizer(preprocessor=code.shorten)),
        "note",
    ),
    _step("HashingVectorizer", on_text(lambda code: feature_extraction.text.HashingVectorizer(n_features=16)), "note"),
    _step(
        "TruncatedSVD_of_text",
        on_text(
            lambda code: pipeline.make_pipeline(
                feature_extraction.text.TfidfVectorizer(), decomposition.TruncatedSVD(2, random_state=0)
            )
        ),
        "note",
    ),
    _step(
        "FunctionTransformer_model_py",
        lambda code: pipeline.make_pipeline(preprocessing.FunctionTransformer(code.days), impute.SimpleImputer()),
        ["joined"],
    ),
    _step(
        "FunctionTransformer_numpy",
        lambda code: pipeline.make_pipeline(
            impute.SimpleImputer(), preprocessing.FunctionTransformer(np.log1p, inverse_func=np.expm1)
        ),
    ),
    _step("class_of_model_py", lambda code: pipeline.make_pipeline(code.Share(), impute.SimpleImputer())),
]

WHOLE_FRAMES = [
    Kind(
        name="make_column_selector",
        family="preprocessing",
        make=lambda code: pipeline.make_pipeline(
            compose.make_column_transformer(
                (
                    preprocessing.OneHotEncoder(handle_unknown="ignore"),
                    compose.make_column_selector(dtype_include=object),
                ),
                (filled(), compose.make_column_selector(dtype_include=np.number)),
            ),
            linear_model.LogisticRegression(),
        ),
    ),
    Kind(
        name="remainder_passthrough",
        family="preprocessing",
        make=lambda code: pipeline.make_pipeline(
            compose.ColumnTransformer(
                [("words", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["country"])], remainder="passthrough"
            ),
            impute.SimpleImputer(),
            linear_model.LogisticRegression(),
        ),
        columns=[*NUMBERS, "country"],
    ),
    Kind(
        name="FeatureUnion",
        family="preprocessing",
        make=lambda code: pipeline.make_pipeline(
            impute.SimpleImputer(),
            pipeline.FeatureUnion([("pca", decomposition.PCA(2)), ("scaled", preprocessing.StandardScaler())]),
            linear_model.LogisticRegression(),
        ),
        columns=NUMBERS,
    ),
    Kind(
        name="set_output_pandas",
        family="preprocessing",
        make=lambda code: pipeline.make_pipeline(
            usual_columns().set_output(transform="pandas"), linear_model.LogisticRegression()
        ),
    ),
]
