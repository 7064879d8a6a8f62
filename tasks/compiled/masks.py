"""Small trees as masks: for each column that a tree asks about and each code of its values, the leaves that are left open.

How the kernel reads them is told in trees.c. A tree has them if its leaves fit in one word and all trees together compare
few enough values of each column with each other; that is so for boosted trees with their usual settings, and not for deep
forests, whose trees are walked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.compiled.forests import Tree

#: Leaves of the largest tree, which are the bits of a word, and the most that still fit in the shorter one.
MOST_LEAVES, SHORT_WORD = 64, 32

#: Different thresholds of one column in all trees: a code is a byte, and the last one means that the value is missing.
MOST_THRESHOLDS, MISSING_CODE, CODES = 254, 255, 256

#: The tables stand in memory beside those for walking; with larger ones trees are walked.
MOST_BYTES = 64 * 1024 * 1024

#: What a column is to the trees, as trees.c has it; a column of numbers has the steps that it takes to find its code.
_UNASKED, _CATEGORY, _STEPS = 0, 1, (2, 4, 6, 8)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """All trees of an ensemble, as the kernel reads them."""

    #: int32, shape ``(n_features,)``: what each column is to the trees.
    kinds: NDArray[np.int32]
    #: float64, shape ``(n_features, 255)``: what values of a column are compared with, in order, then infinity.
    thresholds: NDArray[np.float64]
    #: int64, shape ``(n_trees + 1,)``: where each tree begins in ``asked``.
    first_asked: NDArray[np.int64]
    #: int32, shape ``(n_asked,)``: the columns that each tree asks about, one tree after the other.
    asked: NDArray[np.int32]
    #: uint32 or uint64, shape ``(n_asked, 256)``: the leaves that each code leaves open, a bit each.
    words: NDArray[Any]
    #: float64, shape ``(n_leaves, leaf_width)``: what the leaves add, from left to right, one tree after the other.
    values: NDArray[np.float64]
    #: int64, shape ``(n_trees,)``: where the leaves of each tree begin.
    first_leaf: NDArray[np.int64]


def read_masks(trees: Sequence[Tree], sets: NDArray[np.uint32], n_features: int) -> Masks | None:
    """Return the masks of trees; None where they are too large for them.

    Parameters
    ----------
    trees
        Trees whose leaves are all of one width.
    sets
        uint32, shape ``(n_sets, 8)``: the codes that go left at splits by category.
    n_features
        Columns that the trees may ask about.
    """
    leaves = [int(tree.leaf.sum()) for tree in trees]
    if max(leaves) > MOST_LEAVES:
        return None
    splits = [_splits(tree) for tree in trees]
    asked = [np.unique(tree.feature[~tree.leaf]).astype(np.int32) for tree in trees]
    short = max(leaves) <= SHORT_WORD
    word, every_leaf = (np.uint32, 2**32 - 1) if short else (np.uint64, 2**64 - 1)
    if sum(map(len, asked)) * CODES * np.dtype(word).itemsize > MOST_BYTES:
        return None
    columns = _columns(trees, n_features)
    if columns is None:
        return None
    kinds, compared = columns
    words = np.full((sum(map(len, asked)), CODES), every_leaf, dtype=word)
    first = np.cumsum([0, *map(len, asked)], dtype=np.int64)
    for tree, found, features, at in zip(trees, splits, asked, first[:-1].tolist(), strict=True):
        places = {feature: at + place for place, feature in enumerate(features.tolist())}
        for node, start, stop in found:
            closed = np.array(~(((1 << (stop - start)) - 1) << start) & every_leaf, dtype=word)
            feature = int(tree.feature[node])
            row = words[places[feature]]
            if tree.categorical[node]:
                row[:MISSING_CODE][~_members(sets[int(tree.threshold[node])])] &= closed
            else:
                rank = int(np.searchsorted(compared[feature], tree.threshold[node]))
                row[rank + 1 : MISSING_CODE] &= closed
            if tree.missing_right[node]:
                row[MISSING_CODE] &= closed
    thresholds = np.full((n_features, MISSING_CODE), np.inf)
    for feature, found_here in enumerate(compared):
        thresholds[feature, : len(found_here)] = found_here
    return Masks(
        kinds=kinds,
        thresholds=thresholds,
        first_asked=first,
        asked=np.concatenate(asked).astype(np.int32),
        words=words,
        values=np.ascontiguousarray(np.concatenate([_leaves(tree) for tree in trees]), dtype=np.float64),
        first_leaf=np.cumsum([0, *leaves[:-1]], dtype=np.int64),
    )


def _splits(tree: Tree) -> list[tuple[int, int, int]]:
    """Return each inner node with the first leaf of its left subtree and the first one after it, counted from the left."""
    left, right, leaf = tree.left.tolist(), tree.right.tolist(), tree.leaf.tolist()
    found: list[tuple[int, int, int]] = []
    passed = 0
    begun: dict[int, int] = {}
    path: list[tuple[int, bool]] = [(0, False)]
    while path:
        node, left_done = path.pop()
        if leaf[node]:
            passed += 1
        elif left_done:
            found.append((node, begun[node], passed))
            path.append((right[node], False))
        else:
            begun[node] = passed
            path += [(node, True), (left[node], False)]
    return found


def _leaves(tree: Tree) -> NDArray[np.float64]:
    """Return what the leaves add, from left to right."""
    left, right, leaf = tree.left.tolist(), tree.right.tolist(), tree.leaf.tolist()
    order, path = [], [0]
    while path:
        node = path.pop()
        if leaf[node]:
            order.append(node)
        else:
            path += [right[node], left[node]]
    return tree.values[order]


def _columns(trees: Sequence[Tree], n_features: int) -> tuple[NDArray[np.int32], list[NDArray[np.float64]]] | None:
    """Return what each column is to the trees, and what its values are compared with; None where that is too much."""
    inner = [~tree.leaf for tree in trees]
    features = np.concatenate([tree.feature[at] for tree, at in zip(trees, inner, strict=True)]).astype(np.int64)
    thresholds = np.concatenate([tree.threshold[at] for tree, at in zip(trees, inner, strict=True)])
    by_category = np.concatenate([tree.categorical[at] for tree, at in zip(trees, inner, strict=True)])
    kinds, compared = np.full(n_features, _UNASKED, dtype=np.int32), []
    for feature in range(n_features):
        here = features == feature
        # Nothing is above infinity: such a split separates what is missing from all else.
        numbers = np.unique(thresholds[here & ~by_category])
        numbers = numbers[numbers < np.inf]
        if by_category[here].any():
            if not by_category[here].all():
                return None
            kinds[feature] = _CATEGORY
        elif here.any():
            if len(numbers) > MOST_THRESHOLDS:
                return None
            kinds[feature] = next(steps for steps in _STEPS if len(numbers) < 1 << steps)
        compared.append(numbers)
    return kinds, compared


def _members(bits: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return which of the codes that are not missing are in a set."""
    return np.unpackbits(bits.astype("<u4").view(np.uint8), bitorder="little")[:MISSING_CODE].astype(bool)
