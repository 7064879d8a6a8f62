"""The importance of features: what matters comes first, and where it cannot be measured all count the same and it says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tasks.bundle import Bundle
from tasks.checks.comparison import Comparison
from tasks.columns import Column, model_frame
from tasks.declaration import Drift
from tasks.findings import Disposition
from tasks.importance import measure_importance
from tasks.pipeline import Output
from tasks.population import Mode
from tasks.probes import create_bundle
from tasks.profiles import ColumnBins, ModelProfile

UNTIL = datetime(2024, 3, 1, tzinfo=UTC)
FEATURES = (
    Column(name="noise", postgres_type="double precision"),
    Column(name="country", postgres_type="text"),
    Column(name="weak", postgres_type="double precision"),
)


def make_sample(n: int = 600) -> pa.Table:
    """Rows whose label follows the country, and a little another column."""
    random = np.random.default_rng(1)
    country, weak = random.choice(["de", "fr", "it", "es"], n), random.normal(size=n)
    label = (np.isin(country, ["de", "it"]) * 2.0 + weak * 0.7 + random.normal(size=n) * 0.3 > 1.0).astype(int)
    return pa.table({"noise": random.normal(size=n), "country": country, "weak": weak, "label": label})


def doubled(frame: pd.DataFrame) -> pd.DataFrame:
    """A preprocess: other columns than the feature query's."""
    return frame.assign(weak=frame["weak"] * 2).drop(columns=["as_of"])


def bundled(sample: pa.Table, estimator: Any, method: dict[str, str], *, labelled: bool) -> Bundle:
    frame = doubled(model_frame(sample, FEATURES).assign(as_of=UNTIL))
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["country"]), remainder="passthrough")
    fitted = make_pipeline(columns, estimator).fit(frame, sample.column("label").to_numpy())
    made, _ = create_bundle(
        name="m",
        estimator=fitted,
        key=(Column(name="id", postgres_type="bigint"),),
        features=FEATURES,
        outputs=[Output.model_validate({"name": "p", **method})],
        preprocess=doubled,
        sample=sample,
        labelled=labelled,
        train_data_until=UNTIL,
        metrics={},
        logic_digest=None,
    )
    return made


PROBABILITY = {"method": "predict_proba", "class": "1"}


def test_the_feature_that_decides_is_the_most_important_through_preprocessing_and_one_hot_columns():
    for estimator, method in ((LogisticRegression(), PROBABILITY), (LinearRegression(), {"method": "predict"})):
        made = bundled(make_sample(), estimator, method, labelled=True)
        shares = {name: bins.importance for name, bins in ModelProfile.from_bundle(made.profile).features.items()}
        assert sorted(shares, key=lambda name: -(shares[name] or 0)) == ["country", "weak", "noise"]
        assert abs(sum(shares.values()) - 1) < 1e-5
        assert made.probes["importance"]["loss"] in ("log loss", "mean squared error")
    again = bundled(make_sample(), LinearRegression(), {"method": "predict"}, labelled=True)
    assert again.digest == made.digest


def test_without_labels_or_with_too_few_rows_all_count_the_same_and_it_says_so():
    cases = (
        (make_sample(), False, "no labels"),
        (make_sample(40), True, "40 rows are too few"),
        (make_sample().set_column(3, "label", pa.array([1.0, 0.0, *[None] * 598])), True, "2 rows are too few"),
    )
    fitted = make_sample()
    made = bundled(fitted, LogisticRegression(), PROBABILITY, labelled=False)
    for sample, labelled, why in cases:
        rows = sample.append_column("as_of", pa.array([UNTIL] * len(sample), pa.timestamp("us", "UTC")))
        found = measure_importance(made, rows, doubled, labelled=labelled)
        assert set(found.shares.values()) == {round(1 / 3, 6)}
        assert found.loss is None
        assert why in found.words


def test_a_declared_importance_wins_and_the_others_share_the_rest():
    def weighed(measured: dict[str, float | None], declared: dict[str, float]) -> Comparison:
        bins = {name: ColumnBins.from_profile(name, {"importance": share}) for name, share in measured.items()}
        drift = Drift.model_validate({"feature": {name: {"importance": share} for name, share in declared.items()}})
        profile = ModelProfile(features=bins, outputs={})
        return Comparison(mode=Mode.FULL, drift=drift, profile=profile, features={}, outputs={})

    measured: dict[str, float | None] = {"a": 0.6, "b": 0.4, "c": 0.0}
    assert weighed(measured, {}).importance == {"a": 0.6, "b": 0.4, "c": 0.0}
    assert weighed(measured, {"c": 0.5}).importance == pytest.approx({"a": 0.3, "b": 0.2, "c": 0.5})
    unknown = dict.fromkeys(measured)
    assert weighed(unknown, {}).importance == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert weighed(unknown, {"a": 0.5}).importance == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25})
    assert (weighed(unknown, {}).known_importance, weighed(unknown, {"a": 0.5}).on_values("a")) == (
        {},
        Disposition.HOLD,
    )
    with pytest.raises(ValidationError, match=r"add up to 1\.2"):
        weighed(measured, {"a": 0.6, "b": 0.6})
