"""What an estimator of the catalogue is, and the small shop that it learns from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn import compose, impute, pipeline, preprocessing

from tasks.bundle import preprocessed
from tasks.columns import Column

KEY = (Column(name="id", postgres_type="bigint"),)
FEATURES = (
    Column(name="orders", postgres_type="bigint"),
    Column(name="spent", postgres_type="double precision"),
    Column(name="member", postgres_type="boolean"),
    Column(name="country", postgres_type="text"),
    Column(name="note", postgres_type="text"),
    Column(name="joined", postgres_type="timestamp with time zone"),
)
NUMBERS = ["orders", "spent", "member"]
UNTIL = datetime(2024, 3, 1, tzinfo=UTC)

#: model.py of every pipeline of the catalogue.
MODEL_PY = '''
"""Code of a pipeline that its models may hold."""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

COUNTRIES = pd.CategoricalDtype(["de", "fr", "it"])


def preprocess(frame):
    """Texts as categories, for models that take them as they are."""
    known = frame["country"].where(frame["country"].isin(COUNTRIES.categories))
    return frame.assign(country=known.astype(COUNTRIES))


def days(frame):
    """Times as days since 2020."""
    start = pd.Timestamp("2020-01-01", tz="UTC")
    return frame.apply(lambda column: (column - start).dt.total_seconds() / 86400)


def words(column):
    """Texts without gaps."""
    return np.array(["" if text is None else text for text in np.ravel(column)], dtype=object)


def shorten(text):
    """A text in lower case, without its first sign."""
    return text.lower()[1:]


class Share(TransformerMixin, BaseEstimator):
    """Numbers as shares of the largest one of training."""

    def fit(self, frame, labels=None):
        self.largest_ = np.nanmax(np.asarray(frame, dtype=float), axis=0)
        self.n_features_in_ = frame.shape[1]
        return self

    def transform(self, frame):
        return np.asarray(frame, dtype=float) / self.largest_

    def get_feature_names_out(self, names=None):
        return np.asarray(names, dtype=object)
'''

#: Kind of pipeline -> its outputs, as under [predictions].
OUTPUTS: dict[str, dict[str, dict[str, Any]]] = {
    "chance": {"p": {"method": "predict_proba", "class": "1"}},
    "choice": {"chances": {"method": "predict_proba", "class": "all"}, "label": {"method": "predict"}},
    "side": {"margin": {"method": "decision_function"}, "label": {"method": "predict"}},
    "label": {"label": {"method": "predict"}},
    "value": {"value": {"method": "predict"}},
    "pair": {"first": {"method": "predict", "output": 0}, "second": {"method": "predict", "output": 1}},
    "segment": {"segment": {"method": "predict"}, "distance": {"method": "transform", "reduce": "min"}},
    "density": {"part": {"method": "predict"}, "density": {"method": "score_samples"}},
    "axes": {"first": {"method": "transform", "output": 0}, "second": {"method": "transform", "output": 1}},
}


def make_rows(n: int = 120) -> pa.Table:
    """Rows as the feature query gives them: key, as_of, features; every kind with NULLs."""
    noise = np.random.default_rng(11)

    def with_nulls(values: list[Any], every: int) -> list[Any]:
        return [None if at % every == every - 1 else value for at, value in enumerate(values)]

    starts = [datetime(2021, 1, 1, tzinfo=UTC) + timedelta(days=int(day)) for day in noise.integers(0, 900, n)]
    notes = [" ".join(noise.choice(["late", "gift", "blue", "red", "return"], 3)) for _ in range(n)]
    return pa.table(
        {
            "id": pa.array(range(n), pa.int64()),
            "as_of": pa.array([UNTIL] * n, pa.timestamp("us", "UTC")),
            "orders": pa.array(noise.integers(0, 30, n), pa.int64()),
            "spent": pa.array(with_nulls(noise.gamma(2, 50, n).tolist(), 7), pa.float64()),
            "member": pa.array(with_nulls((noise.random(n) < 0.4).tolist(), 13), pa.bool_()),
            "country": pa.array(with_nulls(noise.choice(["de", "fr", "it"], n).tolist(), 11), pa.string()),
            "note": pa.array(with_nulls(notes, 17), pa.string()),
            "joined": pa.array(with_nulls(starts, 19), pa.timestamp("us", "UTC")),
        }
    )


def labels(frame: pd.DataFrame, target: str) -> Any:
    """Return what is to be learned, from what the feature query gave."""
    score = frame["orders"] + np.nan_to_num(frame["spent"]) / 20
    high = (score > score.median()).astype(int).to_numpy()
    found = {
        "chance": high,
        "choice": np.array(["few", "some", "many"], dtype=object)[np.digitize(score, score.quantile([0.3, 0.7]))],
        "value": (score + 1.0).to_numpy(),
        "pair": np.column_stack([score, score**2 / 10]),
        "pair_of_classes": np.column_stack([high, (frame["orders"] % 2 == 0).astype(int)]),
        "partly": np.where(np.arange(len(high)) % 3 == 0, -1, high),
    }
    return found.get(target)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An estimator of the catalogue."""

    name: str
    #: The family that README names.
    family: str
    make: Callable[[ModuleType], Any]
    #: Which of OUTPUTS it has.
    outputs: str = "chance"
    #: What it learns: see ``labels``; by default as its outputs are called.
    target: str = ""
    #: Columns that it is fitted on; all by default.
    columns: list[str] | None = None
    #: Whether the frame goes through the pipeline's preprocess.
    preprocessed: bool = False

    @property
    def pipeline(self) -> str:
        """Name of the pipeline that can use it."""
        return self.outputs + ("_preprocessed" if self.preprocessed else "")

    def frame(self, code: ModuleType, rows: pa.Table) -> pd.DataFrame:
        """Return the columns that it is given of feature rows."""
        frame = preprocessed(rows, FEATURES, code.preprocess if self.preprocessed else None)
        return frame if self.columns is None else frame[self.columns]

    def fit(self, code: ModuleType, rows: pa.Table) -> Any:
        """Return the fitted estimator."""
        learned = labels(preprocessed(rows, FEATURES, None), self.target or self.outputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.make(code).fit(self.frame(code, rows), learned)


def filled() -> Any:
    return pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())


def usual_columns() -> Any:
    """Numbers filled and scaled, countries one-hot."""
    return compose.ColumnTransformer(
        [
            ("numbers", filled(), NUMBERS),
            ("words", preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["country"]),
        ]
    )


def model(name: str, family: str, make: Callable[[], Any], **given: Any) -> Kind:
    """A model behind numbers that are filled and scaled; a ColumnTransformer costs three times as much to score."""

    def chain(code: ModuleType) -> Any:
        return pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler(), make())

    return Kind(name=name, family=family, make=chain, columns=NUMBERS, **given)
