"""Models of every family, most on numbers alone; those that are particular about their rows make them themselves."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import (
    calibration,
    cluster,
    compose,
    cross_decomposition,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_extraction,
    frozen,
    gaussian_process,
    impute,
    isotonic,
    kernel_ridge,
    linear_model,
    mixture,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    semi_supervised,
    svm,
    tree,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - makes HalvingGridSearchCV importable
from sklearn.gaussian_process import kernels

from tests.estimators.kinds import NUMBERS, Kind, model
from tests.estimators.steps import on_text

_forest: dict[str, Any] = {"n_estimators": 10, "max_depth": 4, "random_state": 0}

CLASSIFIERS = [
    model("LogisticRegression", "linear", linear_model.LogisticRegression),
    model("LogisticRegression_text_classes", "linear", linear_model.LogisticRegression, outputs="choice"),
    model(
        "LogisticRegressionCV",
        "linear",
        lambda: linear_model.LogisticRegressionCV(
            cv=2, Cs=3, use_legacy_attributes=False, l1_ratios=(0,), scoring="neg_log_loss"
        ),
    ),
    model("SGDClassifier", "linear", lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0)),
    model(
        "SGDClassifier_modified_huber",
        "linear",
        lambda: linear_model.SGDClassifier(loss="modified_huber", random_state=0),
        outputs="side",
        target="chance",
    ),
    model("RidgeClassifier", "linear", linear_model.RidgeClassifier, outputs="side", target="chance"),
    model("Perceptron", "linear", linear_model.Perceptron, outputs="side", target="chance"),
    model("LinearDiscriminantAnalysis", "linear", discriminant_analysis.LinearDiscriminantAnalysis),
    model(
        "QuadraticDiscriminantAnalysis",
        "linear",
        lambda: discriminant_analysis.QuadraticDiscriminantAnalysis(reg_param=0.1),
    ),
    model("LinearSVC", "support vectors", svm.LinearSVC, outputs="side", target="chance"),
    model("SVC", "support vectors", svm.SVC, outputs="side", target="chance"),
    model("DecisionTreeClassifier", "trees", lambda: tree.DecisionTreeClassifier(max_depth=4, random_state=0)),
    model("RandomForestClassifier", "forests", lambda: ensemble.RandomForestClassifier(**_forest)),
    model("ExtraTreesClassifier", "forests", lambda: ensemble.ExtraTreesClassifier(**_forest)),
    model("GradientBoostingClassifier", "boosting", lambda: ensemble.GradientBoostingClassifier(n_estimators=5)),
    model(
        "GradientBoostingClassifier_exponential",
        "boosting",
        lambda: ensemble.GradientBoostingClassifier(n_estimators=5, loss="exponential"),
    ),
    model("HistGradientBoostingClassifier", "boosting", lambda: ensemble.HistGradientBoostingClassifier(max_iter=5)),
    model(
        "HistGradientBoostingClassifier_text_classes",
        "boosting",
        lambda: ensemble.HistGradientBoostingClassifier(max_iter=5),
        outputs="choice",
    ),
    Kind(
        name="HistGradientBoostingClassifier_pandas_categories",
        family="boosting",
        make=lambda code: ensemble.HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype"),
        columns=[*NUMBERS, "country"],
        preprocessed=True,
    ),
    model("AdaBoostClassifier", "boosting", lambda: ensemble.AdaBoostClassifier(n_estimators=5, random_state=0)),
    model("KNeighborsClassifier_kd_tree", "neighbours", lambda: neighbors.KNeighborsClassifier(algorithm="kd_tree")),
    model(
        "KNeighborsClassifier_ball_tree",
        "neighbours",
        lambda: neighbors.KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"),
    ),
    model(
        "KNeighborsClassifier_brute",
        "neighbours",
        lambda: neighbors.KNeighborsClassifier(algorithm="brute", weights="distance"),
    ),
    model("RadiusNeighborsClassifier", "neighbours", lambda: neighbors.RadiusNeighborsClassifier(radius=50.0)),
    model("NearestCentroid", "neighbours", neighbors.NearestCentroid),
    model("GaussianNB", "naive Bayes", naive_bayes.GaussianNB),
    model("BernoulliNB", "naive Bayes", naive_bayes.BernoulliNB),
    Kind(
        name="MultinomialNB",
        family="naive Bayes",
        make=lambda code: pipeline.make_pipeline(
            compose.ColumnTransformer(
                [("note", on_text(lambda _: feature_extraction.text.CountVectorizer())(code), "note")]
            ),
            naive_bayes.MultinomialNB(),
        ),
    ),
    model(
        "MLPClassifier_adam",
        "neural networks",
        lambda: neural_network.MLPClassifier(hidden_layer_sizes=(4,), max_iter=5, random_state=0),
    ),
    model(
        "MLPClassifier_sgd",
        "neural networks",
        lambda: neural_network.MLPClassifier(hidden_layer_sizes=(4,), max_iter=5, random_state=0, solver="sgd"),
    ),
    model(
        "MLPClassifier_early_stopping",
        "neural networks",
        lambda: neural_network.MLPClassifier(hidden_layer_sizes=(4,), max_iter=5, random_state=0, early_stopping=True),
    ),
    model("GaussianProcessClassifier", "Gaussian processes", gaussian_process.GaussianProcessClassifier),
    model(
        "CalibratedClassifierCV_sigmoid",
        "calibrated",
        lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2),
    ),
    model(
        "CalibratedClassifierCV_isotonic",
        "calibrated",
        lambda: calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=2, method="isotonic"),
    ),
    model(
        "CalibratedClassifierCV_temperature",
        "calibrated",
        lambda: calibration.CalibratedClassifierCV(linear_model.LogisticRegression(), cv=2, method="temperature"),
    ),
    model(
        "StackingClassifier",
        "stacking, voting, bagging",
        lambda: ensemble.StackingClassifier(
            [("tree", tree.DecisionTreeClassifier(max_depth=2)), ("line", linear_model.LogisticRegression())], cv=2
        ),
    ),
    model(
        "VotingClassifier",
        "stacking, voting, bagging",
        lambda: ensemble.VotingClassifier(
            [("tree", tree.DecisionTreeClassifier(max_depth=2)), ("line", linear_model.LogisticRegression())],
            voting="soft",
        ),
    ),
    model(
        "BaggingClassifier",
        "stacking, voting, bagging",
        lambda: ensemble.BaggingClassifier(n_estimators=3, random_state=0),
    ),
    model(
        "OneVsRestClassifier",
        "several classes",
        lambda: multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
        outputs="choice",
    ),
    model(
        "OneVsOneClassifier",
        "several classes",
        lambda: multiclass.OneVsOneClassifier(linear_model.LogisticRegression()),
        outputs="side",
        target="chance",
    ),
    model(
        "OutputCodeClassifier",
        "several classes",
        lambda: multiclass.OutputCodeClassifier(linear_model.LogisticRegression(), random_state=0),
        outputs="label",
        target="choice",
    ),
    model(
        "GridSearchCV",
        "searched",
        lambda: model_selection.GridSearchCV(linear_model.LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    ),
    model(
        "RandomizedSearchCV",
        "searched",
        lambda: model_selection.RandomizedSearchCV(
            linear_model.LogisticRegression(), {"C": np.logspace(-1, 1, 5)}, n_iter=2, cv=2, random_state=0
        ),
    ),
    model(
        "TunedThresholdClassifierCV",
        "searched",
        lambda: model_selection.TunedThresholdClassifierCV(linear_model.LogisticRegression(), cv=2),
    ),
    model(
        "GridSearchCV_several_scorings",
        "searched",
        lambda: model_selection.GridSearchCV(
            linear_model.LogisticRegression(),
            {"C": [0.1, 1.0]},
            cv=model_selection.RepeatedStratifiedKFold(n_splits=2, n_repeats=1, random_state=0),
            scoring=["roc_auc", "neg_log_loss"],
            refit="roc_auc",
        ),
    ),
    model(
        "HalvingGridSearchCV",
        "searched",
        lambda: model_selection.HalvingGridSearchCV(
            linear_model.LogisticRegression(), {"C": [0.1, 1.0]}, cv=2, random_state=0
        ),
    ),
    model(
        "FixedThresholdClassifier",
        "searched",
        lambda: model_selection.FixedThresholdClassifier(linear_model.LogisticRegression(), threshold=0.3),
    ),
    model(
        "LabelPropagation", "semi-supervised", lambda: semi_supervised.LabelPropagation(kernel="knn"), target="partly"
    ),
    model(
        "SelfTrainingClassifier",
        "semi-supervised",
        lambda: semi_supervised.SelfTrainingClassifier(linear_model.LogisticRegression()),
        target="partly",
    ),
    Kind(
        name="KNeighborsClassifier_of_text",
        family="neighbours",
        make=lambda code: pipeline.make_pipeline(
            compose.ColumnTransformer(
                [("note", on_text(lambda _: feature_extraction.text.TfidfVectorizer())(code), "note")]
            ),
            neighbors.KNeighborsClassifier(),
        ),
    ),
    Kind(
        name="KNeighborsClassifier_haversine",
        family="neighbours",
        make=lambda code: pipeline.make_pipeline(
            impute.SimpleImputer(), neighbors.KNeighborsClassifier(algorithm="ball_tree", metric="haversine")
        ),
        columns=["orders", "spent"],
    ),
    model(
        "KNeighborsClassifier_minkowski",
        "neighbours",
        lambda: neighbors.KNeighborsClassifier(algorithm="ball_tree", metric="minkowski", p=3),
    ),
    model(
        "KNeighborsClassifier_chebyshev",
        "neighbours",
        lambda: neighbors.KNeighborsClassifier(algorithm="kd_tree", metric="chebyshev"),
    ),
    Kind(
        name="SVC_of_text",
        family="support vectors",
        make=lambda code: pipeline.make_pipeline(
            compose.ColumnTransformer(
                [("note", on_text(lambda _: feature_extraction.text.TfidfVectorizer())(code), "note")]
            ),
            svm.SVC(),
        ),
        outputs="side",
        target="chance",
    ),
    model(
        "CalibratedClassifierCV_frozen",
        "calibrated",
        lambda: calibration.CalibratedClassifierCV(frozen.FrozenEstimator(_fitted_tree()), cv=2),
    ),
]


def _fitted_tree() -> Any:
    """A tree that somebody fitted before, on as many numbers."""
    noise = np.random.default_rng(2).normal(size=(50, len(NUMBERS)))
    return tree.DecisionTreeClassifier(max_depth=2, random_state=0).fit(noise, noise[:, 0] > 0)


def _both() -> list[tuple[str, Any]]:
    return [("tree", tree.DecisionTreeRegressor(max_depth=2)), ("line", linear_model.LinearRegression())]


REGRESSORS = [
    model("LinearRegression", "linear", linear_model.LinearRegression, outputs="value"),
    model("Ridge", "linear", linear_model.Ridge, outputs="value"),
    model("RidgeCV", "linear", linear_model.RidgeCV, outputs="value"),
    model("Lasso", "linear", linear_model.Lasso, outputs="value"),
    model("LassoCV", "linear", lambda: linear_model.LassoCV(cv=2, alphas=5), outputs="value"),
    model("LassoLars", "linear", linear_model.LassoLars, outputs="value"),
    model("ElasticNet", "linear", linear_model.ElasticNet, outputs="value"),
    model("BayesianRidge", "linear", linear_model.BayesianRidge, outputs="value"),
    model("ARDRegression", "linear", linear_model.ARDRegression, outputs="value"),
    model("HuberRegressor", "linear", linear_model.HuberRegressor, outputs="value"),
    model("QuantileRegressor", "linear", lambda: linear_model.QuantileRegressor(alpha=0.1), outputs="value"),
    model("SGDRegressor", "linear", lambda: linear_model.SGDRegressor(random_state=0), outputs="value"),
    model("RANSACRegressor", "linear", lambda: linear_model.RANSACRegressor(random_state=0), outputs="value"),
    model(
        "TheilSenRegressor",
        "linear",
        lambda: linear_model.TheilSenRegressor(random_state=0, max_subpopulation=50),
        outputs="value",
    ),
    model("PoissonRegressor", "linear", linear_model.PoissonRegressor, outputs="value"),
    model("GammaRegressor", "linear", linear_model.GammaRegressor, outputs="value"),
    model("TweedieRegressor", "linear", lambda: linear_model.TweedieRegressor(power=1.5), outputs="value"),
    model("KernelRidge", "linear", lambda: kernel_ridge.KernelRidge(kernel="rbf"), outputs="value"),
    model("PLSRegression", "linear", cross_decomposition.PLSRegression, outputs="value"),
    Kind(
        name="IsotonicRegression",
        family="linear",
        make=lambda code: pipeline.make_pipeline(
            compose.ColumnTransformer([("orders", "passthrough", ["orders"])]),
            isotonic.IsotonicRegression(out_of_bounds="clip"),
        ),
        outputs="value",
    ),
    model("SVR", "support vectors", svm.SVR, outputs="value"),
    model("LinearSVR", "support vectors", svm.LinearSVR, outputs="value"),
    model("DecisionTreeRegressor", "trees", lambda: tree.DecisionTreeRegressor(max_depth=4), outputs="value"),
    model("RandomForestRegressor", "forests", lambda: ensemble.RandomForestRegressor(**_forest), outputs="value"),
    model(
        "GradientBoostingRegressor_huber",
        "boosting",
        lambda: ensemble.GradientBoostingRegressor(n_estimators=5, loss="huber"),
        outputs="value",
    ),
    model(
        "GradientBoostingRegressor_quantile",
        "boosting",
        lambda: ensemble.GradientBoostingRegressor(n_estimators=5, loss="quantile"),
        outputs="value",
    ),
    *(
        model(
            f"HistGradientBoostingRegressor_{loss}",
            "boosting",
            lambda loss=loss: ensemble.HistGradientBoostingRegressor(
                loss=loss, quantile=0.9 if loss == "quantile" else None, max_iter=5
            ),
            outputs="value",
        )
        for loss in ("squared_error", "absolute_error", "quantile", "poisson", "gamma")
    ),
    model(
        "AdaBoostRegressor",
        "boosting",
        lambda: ensemble.AdaBoostRegressor(n_estimators=5, random_state=0),
        outputs="value",
    ),
    model("KNeighborsRegressor", "neighbours", neighbors.KNeighborsRegressor, outputs="value"),
    model(
        "MLPRegressor_lbfgs",
        "neural networks",
        lambda: neural_network.MLPRegressor(hidden_layer_sizes=(4,), max_iter=5, solver="lbfgs", random_state=0),
        outputs="value",
    ),
    model(
        "GaussianProcessRegressor",
        "Gaussian processes",
        lambda: gaussian_process.GaussianProcessRegressor(
            kernels.ConstantKernel() * kernels.RBF() + kernels.WhiteKernel(),
            normalize_y=True,
        ),
        outputs="value",
    ),
    model(
        "StackingRegressor",
        "stacking, voting, bagging",
        lambda: ensemble.StackingRegressor(_both(), cv=2),
        outputs="value",
    ),
    model("VotingRegressor", "stacking, voting, bagging", lambda: ensemble.VotingRegressor(_both()), outputs="value"),
    model(
        "BaggingRegressor",
        "stacking, voting, bagging",
        lambda: ensemble.BaggingRegressor(n_estimators=3, random_state=0),
        outputs="value",
    ),
    model(
        "GaussianProcessRegressor_other_kernels",
        "Gaussian processes",
        lambda: gaussian_process.GaussianProcessRegressor(
            kernels.Matern() + kernels.RationalQuadratic() + kernels.DotProduct() ** 2 + kernels.ExpSineSquared(),
            optimizer=None,
            alpha=100.0,
        ),
        outputs="value",
    ),
    model(
        "TransformedTargetRegressor",
        "several outputs",
        lambda: compose.TransformedTargetRegressor(
            linear_model.LinearRegression(), func=np.log1p, inverse_func=np.expm1
        ),
        outputs="value",
    ),
    model(
        "MultiOutputRegressor",
        "several outputs",
        lambda: multioutput.MultiOutputRegressor(linear_model.Ridge()),
        outputs="pair",
    ),
    model(
        "RegressorChain", "several outputs", lambda: multioutput.RegressorChain(linear_model.Ridge()), outputs="pair"
    ),
    model(
        "RandomForestRegressor_two_outputs",
        "several outputs",
        lambda: ensemble.RandomForestRegressor(**_forest),
        outputs="pair",
    ),
    model("MultiTaskLasso", "several outputs", linear_model.MultiTaskLasso, outputs="pair"),
    model(
        "MultiOutputClassifier",
        "several outputs",
        lambda: multioutput.MultiOutputClassifier(linear_model.LogisticRegression()),
        outputs="pair",
        target="pair_of_classes",
    ),
    model(
        "ClassifierChain",
        "several outputs",
        lambda: multioutput.ClassifierChain(linear_model.LogisticRegression()),
        outputs="pair",
        target="pair_of_classes",
    ),
]

WITHOUT_LABELS = [
    model("KMeans", "clusters", lambda: cluster.KMeans(3, random_state=0, n_init=1), outputs="segment"),
    model(
        "MiniBatchKMeans", "clusters", lambda: cluster.MiniBatchKMeans(3, random_state=0, n_init=1), outputs="segment"
    ),
    model("BisectingKMeans", "clusters", lambda: cluster.BisectingKMeans(3, random_state=0), outputs="segment"),
    model("MeanShift", "clusters", cluster.MeanShift, outputs="label", target="none"),
    model(
        "AffinityPropagation",
        "clusters",
        lambda: cluster.AffinityPropagation(random_state=0, damping=0.9),
        outputs="label",
        target="none",
    ),
    model(
        "GaussianMixture",
        "mixtures",
        lambda: mixture.GaussianMixture(2, random_state=0, reg_covar=1e-3),
        outputs="density",
    ),
    model(
        "BayesianGaussianMixture",
        "mixtures",
        lambda: mixture.BayesianGaussianMixture(n_components=2, random_state=0, reg_covar=1e-3),
        outputs="density",
    ),
    model("TruncatedSVD", "projections", lambda: decomposition.TruncatedSVD(2, random_state=0), outputs="axes"),
    model("PCA_as_model", "projections", lambda: decomposition.PCA(2), outputs="axes"),
    model("KernelPCA", "projections", lambda: decomposition.KernelPCA(2, kernel="rbf", random_state=0), outputs="axes"),
    model("FastICA", "projections", lambda: decomposition.FastICA(2, random_state=0), outputs="axes"),
    Kind(
        name="NMF_and_LDA",
        family="projections",
        make=lambda code: pipeline.make_pipeline(
            compose.ColumnTransformer(
                [("note", on_text(lambda _: feature_extraction.text.CountVectorizer())(code), "note")]
            ),
            decomposition.NMF(3, random_state=0, max_iter=50, tol=1e-2),
            decomposition.LatentDirichletAllocation(2, random_state=0, max_iter=2),
        ),
        outputs="axes",
    ),
    model(
        "IsolationForest",
        "outliers",
        lambda: ensemble.IsolationForest(n_estimators=10, random_state=0),
        outputs="density",
    ),
    model("LocalOutlierFactor", "outliers", lambda: neighbors.LocalOutlierFactor(novelty=True), outputs="density"),
    model("OneClassSVM", "outliers", svm.OneClassSVM, outputs="density"),
]


def _boosted(library: str, name: str, **given: Any) -> Callable[[], Any]:
    def make() -> Any:
        return getattr(importlib.import_module(library), name)(n_estimators=5, random_state=0, n_jobs=1, **given)

    return make


LIBRARIES = [
    model("LGBMClassifier", "LightGBM", _boosted("lightgbm", "LGBMClassifier", verbose=-1, min_child_samples=5)),
    model("LGBMRegressor", "LightGBM", _boosted("lightgbm", "LGBMRegressor", verbose=-1), outputs="value"),
    Kind(
        name="LGBMClassifier_pandas_categories",
        family="LightGBM",
        make=lambda code: _boosted("lightgbm", "LGBMClassifier", verbose=-1, min_child_samples=5)(),
        columns=[*NUMBERS, "country"],
        preprocessed=True,
    ),
    model(
        "XGBClassifier",
        "XGBoost",
        _boosted("xgboost", "XGBClassifier"),
    ),
    model("XGBRegressor", "XGBoost", _boosted("xgboost", "XGBRegressor"), outputs="value"),
    model("XGBRFClassifier", "XGBoost", _boosted("xgboost", "XGBRFClassifier")),
    Kind(
        name="XGBClassifier_pandas_categories",
        family="XGBoost",
        make=lambda code: _boosted("xgboost", "XGBClassifier", enable_categorical=True)(),
        columns=[*NUMBERS, "country"],
        preprocessed=True,
    ),
]
