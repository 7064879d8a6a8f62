"""A profile freezes what training looked like: bins of equal mass, point masses, categories, and what is missing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.columns import Column
from tasks.profiles import build_profile
from tasks.profiles.freezing import TOP_CATEGORIES


def profile_of(values: Any, postgres_type: str, **given: Any) -> dict[str, Any]:
    column = Column(name="x", postgres_type=postgres_type)
    table = pa.table({"x": pa.array(values, column.arrow_type)})
    found: dict[str, Any] = build_profile(table, [column], pa.table({}), **given)["features"]["x"]
    return found


def test_bins_of_a_number_hold_equal_mass():
    values = np.random.default_rng(1).lognormal(size=10_000)
    found = profile_of(values, "double precision")
    assert len(found["edges"]) == 21
    assert max(found["counts"]) - min(found["counts"]) <= 1
    assert sum(found["counts"]) == 10_000
    assert (found["edges"][0], found["edges"][-1]) == (values.min(), values.max()) == (found["min"], found["max"])
    np.testing.assert_allclose([found["mean"], found["sd"]], [values.mean(), values.std()])
    np.testing.assert_allclose([found["p0_1"], found["p99_9"]], np.quantile(values, [0.001, 0.999]))


def test_missing_and_unusual_numbers_are_counted_apart():
    values = [None, float("nan"), float("inf"), -float("inf"), *np.linspace(0, 1, 100)]
    found = profile_of(values, "double precision")
    assert (found["count"], found["nulls"], found["nans"], found["infinities"]) == (104, 1, 1, 2)
    assert sum(found["counts"]) == 100
    assert found["max"] == 1.0


def test_value_that_many_rows_have_is_a_point_of_its_own():
    values = [0.0] * 600 + list(np.random.default_rng(2).gamma(2, size=400))
    found = profile_of(values, "double precision")
    assert found["points"] == [{"value": 0.0, "count": 600}]
    assert sum(found["counts"]) == 400
    assert max(found["counts"]) - min(found["counts"]) <= 1


def test_few_values_are_counted_one_by_one():
    found = profile_of([1, 1, 2, 3, None], "integer")
    assert found["points"] == [{"value": 1.0, "count": 2}, {"value": 2.0, "count": 1}, {"value": 3.0, "count": 1}]
    assert (found["edges"], found["counts"]) == ([], [])
    assert profile_of([True, False, True], "boolean")["points"][1] == {"value": 1.0, "count": 2}
    assert profile_of([7.0] * 50, "real")["sd"] == 0


def test_categories_beyond_the_most_frequent_are_counted_together():
    values = [name for at in range(300) for name in [f"c{at:03}"] * (300 - at)] + [None] * 5
    found = profile_of(values, "text")
    assert (found["nulls"], found["distinct"], len(found["categories"])) == (5, 300, TOP_CATEGORIES)
    assert next(iter(found["categories"].items())) == ("c000", 300)
    assert sum(found["categories"].values()) + found["other"] + found["nulls"] == len(values)


def test_times_are_seconds_since_1970():
    start = datetime(1969, 12, 31, 23, 0, tzinfo=UTC)
    found = profile_of([start + timedelta(hours=at) for at in range(50)], "timestamp with time zone")
    assert (found["kind"], found["min"], found["max"]) == ("time", -3600.0, 48 * 3600.0)


def test_column_without_any_value_has_an_empty_profile():
    for postgres_type in ("double precision", "text", "date"):
        found = profile_of([None, None], postgres_type)
        assert (found["count"], found["nulls"]) == (2, 2)
    assert profile_of([], "double precision")["mean"] is None


def test_outputs_keep_a_fine_histogram_with_sums():
    scores = np.random.default_rng(3).beta(2, 5, 50_000)
    outputs = pa.table(
        {"p": scores, "label": pa.array(["no", "yes"] * 25_000), "top": pa.array([["a"], ["a", "b"]] * 25_000)}
    )
    found = build_profile(pa.table({"x": [1.0]}), [], outputs)["outputs"]
    assert len(found["p"]["counts"]) == 1000
    np.testing.assert_allclose(sum(found["p"]["sums"]), scores.sum())
    assert found["label"]["categories"] == {"no": 25_000, "yes": 25_000}
    assert (found["top"]["kind"], found["top"]["longest"], found["top"]["mean_length"]) == ("list", 2, 1.5)


def test_profile_is_json_without_nan_or_infinity():
    column = Column(name="x", postgres_type="double precision")
    table = pa.table({"x": [float("nan"), float("inf"), 1.0, None]})
    text = json.dumps(build_profile(table, [column], table), allow_nan=False)
    assert json.loads(text)["features"]["x"]["count"] == 4
