"""Will a flight leave New York more than 15 minutes late? Rates from counts, and boosted trees over them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

CATEGORIES = ("carrier", "origin")
# Number and the direction in which it may move the probability (+1 up, -1 down, 0 either). A month has 30 mornings:
# without these bounds the trees learn single days by heart (measured on February and March 2013: mean AUC of a day
# 0.66 without, 0.68 with them).
NUMBERS = {
    "distance_miles": 0,
    "dep_minute_of_day": 0,
    "departures_same_hour": 1,
    "carrier_lift": 1,
    "hour_lift": 1,
    "dest_lift": 1,
    "precip_in": 1,
    "visib_miles": -1,
}
# A group with few flights is pulled towards the whole: it counts as if this many more had left at the common rate.
PRIOR_FLIGHTS = 20


def preprocess(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn counts into lifts: how much more often a group was late than all flights, in the last eight days.

    ``frame`` is ``(n_flights, n_features)`` as features.sql returns it; the result holds the columns of CATEGORIES and
    NUMBERS in that order. A group without a single flight has lift 1. Row-wise: no row depends on another.
    """
    common = (frame["late_8d"] + PRIOR_FLIGHTS) / (frame["departed_8d"] + 5 * PRIOR_FLIGHTS)
    lifts = {}
    for group in ("carrier", "hour", "dest"):
        late, departed = frame[f"{group}_late_8d"], frame[f"{group}_departed_8d"]
        lifts[f"{group}_lift"] = (late + PRIOR_FLIGHTS * common) / (departed + PRIOR_FLIGHTS) / common
    return frame.assign(**lifts)[[*CATEGORIES, *NUMBERS]]


def build_model() -> Pipeline:
    """An unfitted classifier over the columns of ``preprocess``; the same rows give the same model each time."""
    columns = ColumnTransformer(
        [
            # A carrier that the training never saw counts as missing, which the trees handle.
            (
                "category",
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, min_frequency=20),
                list(CATEGORIES),
            ),
            ("number", "passthrough", list(NUMBERS)),
        ]
    )
    trees = HistGradientBoostingClassifier(
        max_iter=100,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=100,
        l2_regularization=10.0,
        categorical_features=list(range(len(CATEGORIES))),
        monotonic_cst=[0] * len(CATEGORIES) + list(NUMBERS.values()),
        early_stopping=False,  # its random split would leak a day into its own validation
        random_state=0,
    )
    return Pipeline([("columns", columns), ("trees", trees)])
