"""What the model learns from, and which estimator learns. Both are called by prescore; other helpers may stand here."""

from __future__ import annotations

import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder


def preprocess(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what the model sees of as_of and the columns of features.sql, one row for each row, in order.

    Numbers and booleans come as float64 (NULL is NaN), text as str or None, times as datetime64[us, UTC]. It must be
    row-wise: batches differ, so a row may not depend on others. What is learned belongs into the estimator.
    """
    times = [name for name in frame.select_dtypes("datetimetz").columns if name != "as_of"]
    days = {name: (frame["as_of"] - frame[name]) / pd.Timedelta(days=1) for name in times}
    return frame.assign(**days).drop(columns="as_of")


def build_model() -> Pipeline:
    """Return the unfitted estimator. It takes text and gaps as they come; the same data always gives the same model."""
    text = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    columns = make_column_transformer((text, make_column_selector(dtype_include=object)), remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingClassifier(random_state=0))
