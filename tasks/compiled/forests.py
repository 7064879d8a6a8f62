"""Fitted ensembles of trees as the tables that the kernel walks, and what scikit-learn makes of the sums of their leaves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.compiled.library import NotCompiled
from tasks.compiled.masks import Masks, read_masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Sums = NDArray[np.float64]

#: A node as trees.c has it, 16 bytes.
NODE = np.dtype(
    [("threshold", "f8"), ("left", "i4"), ("feature", "u2"), ("missing_right", "u1"), ("categorical", "u1")]
)

#: Bits that the kernel returns.
MISSING, TOO_LARGE = 1, 2

#: The tables stand in memory beside the estimator; larger ones are not made.
MOST_BYTES = 512 * 1024 * 1024

#: From how many steps on beyond the usual ones the kernel asks whether all rows have arrived: asking costs about two steps.
_WORTH_ASKING = 4


@dataclass(frozen=True, kw_only=True)
class Forest:
    """All trees of an ensemble, one after the other."""

    #: ``NODE``, shape ``(n_nodes,)``.
    nodes: NDArray[Any]
    #: float64, shape ``(n_nodes, leaf_width)``: what a leaf adds; inner nodes have 0.
    values: NDArray[np.float64]
    #: int64, shape ``(n_trees,)``: where each tree begins.
    roots: NDArray[np.int64]
    #: int32, shape ``(n_trees,)``: steps to the deepest leaf.
    depths: NDArray[np.int32]
    #: int32, shape ``(n_trees,)``: steps after which it pays to ask whether all rows have arrived.
    certain: NDArray[np.int32]
    #: float64, shape ``(n_outputs,)``: the sums of no tree.
    baseline: NDArray[np.float64]
    #: uint32, shape ``(n_sets, 8)``: the codes that go left at splits by category.
    sets: NDArray[np.uint32]
    #: Columns that the trees look at.
    n_features: int
    #: Whether values are rounded to float32 before they are compared.
    as_float: bool
    #: Which of ``MISSING`` and ``TOO_LARGE`` scikit-learn refuses.
    refused: int
    #: The same trees as masks, which is faster; None where they have none.
    masks: Masks | None


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """A fitted ensemble that has a compiled form."""

    forest: Forest
    #: Method -> what scikit-learn returns for sums of shape ``(n_rows, n_outputs)``.
    methods: Mapping[str, Callable[[Sums], NDArray[Any]]]


def read_ensemble(trees: Any) -> Ensemble:
    """Return the compiled form of a fitted ensemble.

    The sums are added up in scikit-learn's own order; what follows them, links and classes, is done by scikit-learn's
    own methods on a shallow copy of the estimator.

    Raises
    ------
    NotCompiled
        For estimators of other kinds.
    """
    from sklearn import ensemble

    # Exactly these classes: one that inherits may predict otherwise.
    match type(trees):
        case ensemble.HistGradientBoostingClassifier | ensemble.HistGradientBoostingRegressor:
            return _hist_boosting(trees)
        case ensemble.GradientBoostingClassifier | ensemble.GradientBoostingRegressor:
            return _boosting(trees)
        case (
            ensemble.RandomForestClassifier
            | ensemble.RandomForestRegressor
            | ensemble.ExtraTreesClassifier
            | ensemble.ExtraTreesRegressor
        ):
            return _averaged(trees)
    raise NotCompiled(
        f"{type(trees).__name__} is neither an ensemble of trees nor a linear model that prescore computes itself"
    )


# The families ----------------------------------------------------------------------------------------------------


def _hist_boosting(trees: Any) -> Ensemble:
    tables, sets, n_sets = [], [], 0
    for predictor in (predictor for iteration in trees._predictors for predictor in iteration):
        nodes = predictor.nodes
        categorical = nodes["is_categorical"].astype(bool) & ~nodes["is_leaf"].astype(bool)
        tables.append(
            Tree(
                left=nodes["left"].astype(np.int64),
                right=nodes["right"].astype(np.int64),
                leaf=nodes["is_leaf"].astype(bool),
                feature=nodes["feature_idx"],
                threshold=np.where(categorical, nodes["bitset_idx"] + np.float64(n_sets), nodes["num_threshold"]),
                missing_right=~nodes["missing_go_to_left"].astype(bool),
                categorical=categorical,
                values=nodes["value"].reshape(-1, 1),
                rows=nodes["count"],
            )
        )
        sets.append(predictor.raw_left_cat_bitsets)
        n_sets += len(predictor.raw_left_cat_bitsets)
    forest = _forest(
        tables,
        baseline=trees._baseline_prediction.ravel(),
        sets=np.concatenate(sets).astype(np.uint32),
        n_features=trees.n_features_in_,
        as_float=False,
        refused=0,
    )
    finisher = copy.copy(trees)
    finisher._raw_predict = lambda sums, n_threads=None: sums
    return Ensemble(forest=forest, methods=_methods(finisher, "predict", "predict_proba", "decision_function"))


def _boosting(trees: Any) -> Ensemble:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    if not (isinstance(trees.init_, str) or type(trees.init_) in (DummyClassifier, DummyRegressor)):
        raise NotCompiled(f"it starts from a {type(trees.init_).__name__}")
    tables = [_tree(held.tree_, trees.learning_rate) for held in trees.estimators_.ravel()]
    forest = _forest(
        tables,
        baseline=trees._raw_predict_init(np.zeros((1, trees.n_features_in_), dtype=np.float32)).ravel(),
        n_features=trees.n_features_in_,
        as_float=True,
        refused=MISSING | TOO_LARGE,
    )
    finisher = copy.copy(trees)
    if hasattr(trees, "classes_"):
        finisher.decision_function = lambda sums: sums.ravel() if sums.shape[1] == 1 else sums
        names = ("predict", "predict_proba", "predict_log_proba", "decision_function")
        return Ensemble(forest=forest, methods=_methods(finisher, *names))
    return Ensemble(forest=forest, methods={"predict": lambda sums: sums.ravel()})


def _averaged(trees: Any) -> Ensemble:
    if trees.n_outputs_ != 1:
        raise NotCompiled("it predicts several outputs")
    count = len(trees.estimators_)
    classes = getattr(trees, "classes_", None)
    outputs = 1 if classes is None else len(classes)
    allows_missing = trees.estimators_[0]._support_missing_values(np.empty((0, 0)))
    forest = _forest(
        [_tree(held.tree_, 1.0) for held in trees.estimators_],
        baseline=np.zeros(outputs),
        n_features=trees.n_features_in_,
        as_float=True,
        refused=TOO_LARGE | (0 if allows_missing else MISSING),
    )
    if classes is None:
        return Ensemble(forest=forest, methods={"predict": lambda sums: sums.ravel() / count})
    finisher = copy.copy(trees)
    finisher.predict_proba = lambda sums: sums / count
    return Ensemble(forest=forest, methods=_methods(finisher, "predict", "predict_proba", "predict_log_proba"))


def _methods(finisher: Any, *names: str) -> dict[str, Callable[[Sums], NDArray[Any]]]:
    return {name: getattr(finisher, name) for name in names if hasattr(finisher, name)}


# Tables ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The nodes of a tree in the order of scikit-learn, shape ``(n_nodes,)`` each; the root is the first."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    feature: NDArray[Any]
    threshold: NDArray[np.float64]
    missing_right: NDArray[np.bool_]
    categorical: NDArray[np.bool_]
    #: float64, shape ``(n_nodes, leaf_width)``.
    values: NDArray[np.float64]
    #: Rows of the training that came by: how deep a row usually gets.
    rows: NDArray[Any]

    def levels(self) -> list[NDArray[np.int64]]:
        """Return the nodes level by level, the two children of a node side by side."""
        levels = [np.zeros(1, dtype=np.int64)]
        while True:
            inner = levels[-1][~self.leaf[levels[-1]]]
            if not len(inner):
                return levels
            levels.append(np.column_stack([self.left[inner], self.right[inner]]).ravel())


def _tree(tree: Any, scale: float) -> Tree:
    """Return a tree of scikit-learn's DecisionTree classes; what its leaves add is multiplied by ``scale``."""
    leaf = tree.children_left == -1
    return Tree(
        left=tree.children_left,
        right=tree.children_right,
        leaf=leaf,
        feature=np.where(leaf, 0, tree.feature),
        threshold=tree.threshold,
        missing_right=~tree.missing_go_to_left.astype(bool),
        categorical=np.zeros(len(leaf), dtype=bool),
        values=scale * tree.value[:, 0, :],
        rows=tree.n_node_samples,
    )


def _forest(
    trees: Sequence[Tree],
    *,
    baseline: NDArray[Any],
    n_features: int,
    as_float: bool,
    refused: int,
    sets: NDArray[np.uint32] | None = None,
) -> Forest:
    if not trees:
        raise NotCompiled("it has no trees")
    if n_features > np.iinfo(np.uint16).max:
        raise NotCompiled(f"it looks at {n_features:,} columns")
    size = sum(len(tree.leaf) * (NODE.itemsize + 8 * tree.values.shape[1]) for tree in trees)
    if size > MOST_BYTES:
        raise NotCompiled(f"its trees would take {size:,} bytes of memory more")
    tables, values, depths, certain = [], [], [], []
    for tree in trees:
        levels = tree.levels()
        tables.append(_table(tree, np.concatenate(levels)))
        values.append(np.where(tree.leaf[:, None], tree.values, 0.0)[np.concatenate(levels)])
        depths.append(len(levels) - 1)
        certain.append(_certain(tree, levels))
    all_sets = np.zeros((0, 8), dtype=np.uint32) if sets is None else np.ascontiguousarray(sets)
    return Forest(
        nodes=np.concatenate(tables),
        values=np.ascontiguousarray(np.concatenate(values), dtype=np.float64),
        roots=np.cumsum([0, *(len(table) for table in tables[:-1])], dtype=np.int64),
        depths=np.array(depths, dtype=np.int32),
        certain=np.array(certain, dtype=np.int32),
        baseline=np.ascontiguousarray(baseline, dtype=np.float64),
        sets=all_sets,
        n_features=n_features,
        as_float=as_float,
        refused=refused,
        masks=read_masks(trees, all_sets, n_features),
    )


def _table(tree: Tree, order: NDArray[np.int64]) -> NDArray[Any]:
    """Return the nodes in another order, with children found in it; a leaf leads to itself."""
    places = np.zeros(len(tree.leaf), dtype=np.int64)
    places[order] = np.arange(len(order))
    leaf = tree.leaf[order]
    table = np.zeros(len(order), dtype=NODE)
    table["left"] = np.where(leaf, np.arange(len(order)), places[tree.left[order]])
    table["threshold"] = np.where(leaf, np.inf, tree.threshold[order])
    table["feature"] = np.where(leaf, 0, tree.feature[order])
    table["missing_right"] = ~leaf & tree.missing_right[order]
    table["categorical"] = ~leaf & tree.categorical[order]
    return table


def _certain(tree: Tree, levels: Iterable[NDArray[np.int64]]) -> int:
    """Return the steps that most rows of the training took, or all of them where few more are left."""
    arrived = [int(tree.rows[level[tree.leaf[level]]].sum()) for level in levels]
    deepest = len(arrived) - 1
    usual = int(np.ceil(np.average(np.arange(len(arrived)), weights=arrived))) if sum(arrived) else deepest
    return usual if deepest - usual > _WORTH_ASKING else deepest
