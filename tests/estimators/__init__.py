"""A catalogue of scikit-learn's estimators on a small shop: each is to register, load elsewhere and score the same."""

from __future__ import annotations

from collections.abc import Mapping

from tests.estimators.kinds import FEATURES, KEY, MODEL_PY, OUTPUTS, UNTIL, Kind, make_rows
from tests.estimators.models import CLASSIFIERS, LIBRARIES, REGRESSORS, WITHOUT_LABELS
from tests.estimators.steps import STEPS, WHOLE_FRAMES, with_steps

_EVERY_STEP = with_steps("every_step", STEPS)

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        *(step.alone for step in STEPS),
        _EVERY_STEP,
        *WHOLE_FRAMES,
        *CLASSIFIERS,
        *REGRESSORS,
        *WITHOUT_LABELS,
        *LIBRARIES,
    )
}

#: Those of every run of the tests: each step, each family, each part that needed a place on the list of types.
IN_EVERY_RUN = (
    _EVERY_STEP.name,
    "make_column_selector",
    "LogisticRegression_text_classes",
    "SVC_of_text",
    "RandomForestClassifier",
    "HistGradientBoostingClassifier_pandas_categories",
    "HistGradientBoostingRegressor_quantile",
    "AdaBoostClassifier",
    "KNeighborsClassifier_ball_tree",
    "KNeighborsClassifier_of_text",
    "GaussianNB",
    "MLPClassifier_adam",
    "GaussianProcessRegressor",
    "CalibratedClassifierCV_sigmoid",
    "StackingClassifier",
    "VotingRegressor",
    "BaggingClassifier",
    "OneVsRestClassifier",
    "GridSearchCV_several_scorings",
    "HalvingGridSearchCV",
    "TunedThresholdClassifierCV",
    "ElasticNet",
    "TweedieRegressor",
    "PLSRegression",
    "IsotonicRegression",
    "MultiOutputClassifier",
    "RegressorChain",
    "KMeans",
    "BisectingKMeans",
    "GaussianMixture",
    "TruncatedSVD",
    "IsolationForest",
    "LGBMClassifier_pandas_categories",
    "XGBClassifier_pandas_categories",
)

__all__ = ["FEATURES", "IN_EVERY_RUN", "KEY", "KINDS", "MODEL_PY", "OUTPUTS", "UNTIL", "Kind", "make_rows"]
