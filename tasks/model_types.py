"""The types that are loaded from a model's file beyond those that skops trusts, and why no other one is.

Each type is listed with the only kinds of skops node that may name it. Why the kinds are harmless:

- ``ObjectNode`` makes an instance without calling its constructor and sets its attributes. No type here runs code that
  its attributes name; scipy's distributions do, so they are not here. Trees, neighbour trees, splines, sparse matrices
  and boosters compute on indices or bytes of the file in C: a crafted one can be memory-unsafe, as in any format.
- ``FunctionNode`` hands over a function; a crafted model can have it called with anything. Those here only compute
  numbers from their arguments: they read no file, import nothing, evaluate no text.
- ``PartialNode`` is a function of ``PARTIAL_OF`` with arguments set beforehand.
- ``TypeNode`` names a type to compare with or to cast to; nothing that has effects when it is called.
- ``DictNode``, ``TupleNode``, ``DTypeNode``, ``SparseMatrixNode``, ``TreeNode`` read plain data; numpy's loader is told
  not to unpickle.
"""

from __future__ import annotations

from collections.abc import Iterable

Kinds = frozenset[str]


def _listed(kinds: set[str], module: str, names: str) -> dict[str, Kinds]:
    return {f"{module}.{name}": frozenset(kinds) for name in names.split()}


_FUNCTION, _OBJECT = {"FunctionNode"}, {"ObjectNode"}

#: Functions that a partial may hold too: HistGradientBoosting keeps its category check that way, and people fix the
#: random_state of mutual information that way.
_PARTIAL: dict[str, Kinds] = {
    **_listed(_FUNCTION, "sklearn.utils.validation", "check_array"),
    **_listed(_FUNCTION, "sklearn.feature_selection._mutual_info", "mutual_info_classif mutual_info_regression"),
}
PARTIAL_OF = frozenset(_PARTIAL)

#: Scores and steps that fitted estimators keep from fitting; scoring calls none of them.
_FUNCTIONS: dict[str, Kinds] = {
    **_PARTIAL,
    **_listed(
        _FUNCTION,
        "sklearn.feature_selection._univariate_selection",
        "chi2 f_classif f_oneway f_regression r_regression",
    ),
    **_listed(_FUNCTION, "sklearn.cluster._kmeans", "_kmeans_single_lloyd _kmeans_single_elkan"),
    # The metrics behind scikit-learn's named scorers, which searches and threshold tuning keep.
    **_listed(
        _FUNCTION,
        "sklearn.metrics._classification",
        "accuracy_score balanced_accuracy_score brier_score_loss f1_score fbeta_score jaccard_score log_loss "
        "matthews_corrcoef precision_score recall_score",
    ),
    **_listed(_FUNCTION, "sklearn.metrics._ranking", "average_precision_score roc_auc_score top_k_accuracy_score"),
    **_listed(
        _FUNCTION,
        "sklearn.metrics._regression",
        "d2_absolute_error_score explained_variance_score max_error mean_absolute_error mean_absolute_percentage_error "
        "mean_gamma_deviance mean_pinball_loss mean_poisson_deviance mean_squared_error mean_squared_log_error "
        "mean_tweedie_deviance median_absolute_error r2_score root_mean_squared_error root_mean_squared_log_error",
    ),
    # FeatureAgglomeration pools with it; a spline makes an array of what it is given with the other one.
    **_listed(_FUNCTION, "numpy", "mean"),
    **_listed(_FUNCTION, "scipy._lib.array_api_compat.numpy._aliases", "asarray"),
}

_TREES_AND_NEIGHBOURS: dict[str, Kinds] = {
    **_listed(_OBJECT, "sklearn.ensemble._hist_gradient_boosting.predictor", "TreePredictor"),
    **_listed({"TreeNode"}, "sklearn.tree._tree", "Tree"),
    **_listed({"ObjectNode", "TypeNode"}, "sklearn.neighbors._kd_tree", "KDTree KDTree64"),
    **_listed({"ObjectNode", "TypeNode"}, "sklearn.neighbors._ball_tree", "BallTree BallTree64"),
    **_listed({"ObjectNode", "TypeNode"}, "sklearn.metrics._dist_metrics", "EuclideanDistance64"),
    # Not PyFuncDistance, which calls a function; not those that hold matrices.
    **_listed(
        _OBJECT,
        "sklearn.metrics._dist_metrics",
        "ManhattanDistance64 ChebyshevDistance64 MinkowskiDistance64 HaversineDistance64",
    ),
}

#: Parts that fitted estimators are made of.
_PARTS: dict[str, Kinds] = {
    **_listed(_OBJECT, "sklearn.calibration", "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling"),
    **_listed(_OBJECT, "sklearn.cluster._bisect_k_means", "_BisectingTree"),
    **_listed(_OBJECT, "sklearn.compose._column_transformer", "make_column_selector"),
    **_listed(_OBJECT, "sklearn._loss.loss", "HalfTweedieLoss HalfTweedieLossIdentity"),
    **_listed(_OBJECT, "sklearn.gaussian_process._gpc", "_BinaryGaussianProcessClassifierLaplace"),
    **_listed(
        _OBJECT,
        "sklearn.gaussian_process.kernels",
        "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern Product RBF RationalQuadratic Sum "
        "WhiteKernel",
    ),
    **_listed({"TupleNode"}, "sklearn.impute._iterative", "_ImputerTriplet"),
    # skops trusts the experimental estimators only where somebody enabled them before importing it.
    **_listed(_OBJECT, "sklearn.impute._iterative", "IterativeImputer"),
    **_listed(
        _OBJECT, "sklearn.model_selection._search_successive_halving", "HalvingGridSearchCV HalvingRandomSearchCV"
    ),
    **_listed(_OBJECT, "sklearn.multiclass", "_ConstantPredictor"),
    **_listed(_OBJECT, "sklearn.neural_network._stochastic_optimizers", "AdamOptimizer SGDOptimizer"),
    **_listed({"ObjectNode", "DictNode"}, "sklearn.utils._bunch", "Bunch"),
    **_listed(_OBJECT, "scipy.interpolate._bsplines", "BSpline"),
}

#: What searches and threshold tuning keep of how they searched.
_SEARCHES: dict[str, Kinds] = {
    **_listed(_OBJECT, "sklearn.metrics._scorer", "_CurveScorer _MultimetricScorer _PassthroughScorer _Scorer"),
    **_listed(_OBJECT, "sklearn.utils._metadata_requests", "MetadataRequest MethodMetadataRequest"),
    **_listed({"ObjectNode", "TypeNode"}, "sklearn.model_selection._split", "KFold StratifiedKFold"),
    **_listed(
        _OBJECT,
        "sklearn.model_selection._split",
        "GroupKFold LeaveOneOut PredefinedSplit RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold "
        "StratifiedShuffleSplit TimeSeriesSplit",
    ),
}

_PLAIN_DATA: dict[str, Kinds] = {
    "numpy.dtype": frozenset({"DTypeNode", "TypeNode"}),
    "numpy.number": frozenset({"TypeNode"}),
    # As an array it would be made from a number: so many bytes, out of a file of few.
    "numpy.void": frozenset({"TypeNode"}),
    # What make_column_selector(dtype_include=object) selects text columns by.
    "builtins.object": frozenset({"TypeNode"}),
    "collections.OrderedDict": frozenset({"DictNode", "TypeNode"}),
    "functools.partial": frozenset({"PartialNode"}),
    # Neighbours and support vectors of models that were fitted on sparse rows, such as words.
    **_listed({"SparseMatrixNode"}, "scipy.sparse._csr", "csr_matrix csr_array"),
    **_listed({"SparseMatrixNode"}, "scipy.sparse._csc", "csc_matrix csc_array"),
}

_OTHER_LIBRARIES: dict[str, Kinds] = {
    **_listed(_OBJECT, "lightgbm.sklearn", "LGBMClassifier LGBMRegressor LGBMRanker"),
    **_listed(_OBJECT, "lightgbm.basic", "Booster"),
    **_listed(_OBJECT, "xgboost.sklearn", "XGBClassifier XGBRegressor XGBRanker XGBRFClassifier XGBRFRegressor"),
    **_listed(_OBJECT, "xgboost.core", "Booster"),
}

MODEL_TYPES: dict[str, Kinds] = {
    **_FUNCTIONS,
    **_TREES_AND_NEIGHBOURS,
    **_PARTS,
    **_SEARCHES,
    **_PLAIN_DATA,
    **_OTHER_LIBRARIES,
}


def why_refused(names: Iterable[str]) -> list[str]:
    """Return a sentence for each thing that is to be said of refused names beyond that they are not listed."""
    parts = [name.rpartition(".")[::2] for name in names]
    said = {
        "A lambda has no name that another process can import: make it a function of the pipeline's model.py.": any(
            last == "<lambda>" for _, last in parts
        ),
        "What a notebook or script defines (__main__) is in no other process: move it to the pipeline's model.py.": any(
            module in ("__main__", "__mp_main__") for module, _ in parts
        ),
        "A search keeps its distributions, which run code when they are read: register its best_estimator_.": any(
            module.startswith("scipy.stats.") for module, _ in parts
        ),
        "Of model.py only what it defines itself is loaded, and for its own pipeline only.": any(
            module.startswith("prescore_pipelines.") and last != "<lambda>" for module, last in parts
        ),
    }
    return [sentence for sentence, holds in said.items() if holds]
