"""The recommender: which products follow on which, learned from what customers bought next. An estimator of our own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator

# Scores that are held in memory at once, however long the batch: 2 MB, and three times that for choosing the best. More was
# no faster.
SCORES_AT_ONCE = 250_000


class NextPurchases(BaseEstimator):
    """Scores each product by the past orders of a customer: a linear model from products to products.

    Learned by ridge regression of what was bought next on what was bought before. Few orders speak for most of the
    n_items x n_items pairs, so the weights are drawn towards a simple belief: whoever bought a product buys it again,
    equally often for all products. A pair that the data speaks for moves away from that.

    Memory: two matrices of n_items x n_items numbers (504 products: 4 MB; 10,000: 1.6 GB, and then a factorisation
    serves better), never one of n_customers x n_items.

    Parameters
    ----------
    shrinkage
        How many orders have to speak before the belief is left half-way. From 100 to 1,000 recall@10 is the same
        within 0.02, in shops of 2,000 to 50,000 customers.
    """

    def __init__(self, shrinkage: float = 300.0) -> None:
        self.shrinkage = shrinkage

    def fit(self, frame: pd.DataFrame, labels: NDArray[Any]) -> NextPurchases:
        """Learn from one row for each product bought next.

        ``frame`` has the column ``bought`` (text, see features.sql), shape (n, 1); ``labels`` is the product of each
        row, shape (n,). A customer who bought three products has three rows with the same ``bought``.
        """
        next_product = np.array(labels.tolist())  # text as numpy's own: objects cannot be saved without pickle
        past_products = pc.unique(pc.list_flatten(_lists(frame["bought"]))).to_numpy(zero_copy_only=False)
        # Under the name items_ prescore finds the type of the list: bigint[] for numbers, text[] for text.
        self.items_ = np.union1d(next_product, past_products.astype(next_product.dtype.type))
        next_item = np.searchsorted(self.items_, next_product)
        items, rows = len(self.items_), len(next_item)
        before = self._histories(frame["bought"])
        after = sparse.csr_array((np.ones(rows), (np.arange(rows), next_item)), shape=(rows, items))
        self.popularity_ = np.bincount(next_item, minlength=items) / rows
        pairs = (before.T @ before).toarray()
        follows = (before.T @ after).toarray() - np.outer(before.sum(axis=0), self.popularity_)
        again = np.trace(follows) / max(np.trace(pairs), 1.0)
        moved = np.linalg.solve(pairs + self.shrinkage * np.eye(items), follows - again * pairs)
        self.weights_ = again * np.eye(items) + moved
        return self

    def recommend(self, frame: pd.DataFrame, k: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return the k best products of each row and their scores, best first: two arrays of shape (n, k).

        A score is the share of the next purchases that the product is expected to have. Products that a customer
        bought before are among them: this shop sells coffee and wool. Who never bought anything, or only products that
        the model does not know, gets the most popular ones. With fewer than k products the lists are as long as that.
        """
        k = min(k, len(self.items_))
        histories = self._histories(frame["bought"])
        items = np.empty((len(frame), k), dtype=self.items_.dtype)
        scores = np.empty((len(frame), k))
        step = max(1, SCORES_AT_ONCE // len(self.items_))
        for start in range(0, len(frame), step):
            block = histories[start : start + step]
            # Sparse times dense goes row by row: a score never depends on the batch that a row comes in.
            of_block = block @ self.weights_ + self.popularity_
            best = _best(of_block, k)
            items[start : start + step] = self.items_[best]
            scores[start : start + step] = np.take_along_axis(of_block, best, axis=1)
        return items, scores

    def _histories(self, bought: pd.Series) -> sparse.csr_array:
        """Return how often each row names each product, shape (n, n_items), divided by the root of the row's total.

        The root is half-way between counting orders (loyal customers would drown the others) and counting customers.
        Products that the model does not know are left out.
        """
        lists = _lists(bought)
        known = pc.index_in(pc.list_flatten(lists), value_set=pa.array(self.items_.astype(str)))
        rows = pc.list_parent_indices(lists).filter(known.is_valid()).to_numpy()
        found = known.drop_null().to_numpy()
        totals = np.bincount(rows, minlength=len(bought))
        counts = sparse.coo_array((1 / np.sqrt(totals[rows]), (rows, found)), shape=(len(bought), len(self.items_)))
        return counts.tocsr()


def build_model() -> NextPurchases:
    """Return the unfitted estimator; the same data always gives the same model."""
    return NextPurchases()


def _lists(bought: pd.Series) -> pa.ListArray:
    """Return the products of each row as texts; no list where nothing was bought."""
    return pc.split_pattern(pa.array(bought, pa.string(), from_pandas=True), " ")


def _best(scores: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Return where the k largest of each row are, largest first, shape (n, k); of equal ones the first product."""
    if k < scores.shape[1]:
        # Choose first and sort the few: a full sort of every row would take most of the time.
        chosen = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    else:
        chosen = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)
