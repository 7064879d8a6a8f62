"""The churn model: how a customer's row becomes numbers, and which estimator learns from them."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

CATEGORIES = ["segment", "country", "channel"]


def preprocess(frame: pd.DataFrame) -> pd.DataFrame:
    """Replace the instants of each row by days before its as_of.

    Takes the columns of features.sql, shape (n, 21), and returns shape (n, 19): as text `segment`, `country`, `channel`
    (None: not known), all others float64 (NaN: never ordered, never came, not told). Row by row: nothing depends on the
    other rows.
    """
    return pd.DataFrame(
        {
            **{name: frame[name] for name in CATEGORIES},
            "age_years": frame["as_of"].dt.year - frame["birth_year"],
            "tenure_days": _days(frame["as_of"] - frame["created_at"]),
            "subscribed": frame["subscribed"],
            "orders": frame["orders"],
            "orders_30d": frame["orders_30d"],
            "orders_90d": frame["orders_90d"],
            "orders_365d": frame["orders_365d"],
            "gifts_365d": frame["gifts_365d"],
            "spent_365d": frame["spent_365d"],
            "days_between_orders": _usual_gap(frame),
            "days_since_order": _days(frame["as_of"] - frame["last_order_at"]),
            "gaps_since_order": _days(frame["as_of"] - frame["last_order_at"]) / _usual_gap(frame),
            "days_since_visit": _days(frame["as_of"] - frame["last_visit_at"]),
            "visits_14d": frame["visits_14d"],
            "visits_30d": frame["visits_30d"],
            "visits_90d": frame["visits_90d"],
            "pages_90d": frame["pages_90d"],
        },
        index=frame.index,
    )


def build_model() -> Pipeline:
    """Return the unfitted estimator; the same data always gives the same model."""
    encode: Any = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    columns = ColumnTransformer([("categories", encode, CATEGORIES)], remainder="passthrough")
    trees = HistGradientBoostingClassifier(
        max_iter=100, learning_rate=0.08, max_leaf_nodes=24, min_samples_leaf=40, early_stopping=False, random_state=17
    )
    return Pipeline([("columns", columns), ("trees", trees)])


def _days(elapsed: pd.Series) -> pd.Series:
    return elapsed / pd.Timedelta(days=1)


def _usual_gap(frame: pd.DataFrame) -> pd.Series:
    """Days between two orders of the customer so far; NaN for fewer than two."""
    gaps = (frame["orders"] - 1).where(frame["orders"] > 1)
    return _days(frame["last_order_at"] - frame["first_order_at"]) / gaps
