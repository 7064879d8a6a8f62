"""A profile freezes what training looked like, and a run is counted into its bins: exactly, and nothing is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.columns import Column
from tasks.profiles import ColumnBins, ColumnCounts, ModelProfile, ProfileCounter, build_profile
from tasks.profiles.freezing import KNOWN_VALUES, TOP_CATEGORIES


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


# Counting --------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-5, 5).map(float),
    st.floats(-3, 3),
)


def frozen(values: Any, postgres_type: str = "double precision") -> ColumnBins:
    return ColumnBins.from_profile("x", json.loads(json.dumps(profile_of(values, postgres_type))))


def counted(bins: ColumnBins, values: Any, arrow_type: pa.DataType, size: int = 1_000_000) -> ColumnCounts:
    counter = ProfileCounter(ModelProfile(features={bins.name: bins}, outputs={}))
    table = pa.table({bins.name: pa.array(values, arrow_type)})
    for batch in table.to_batches(max_chunksize=size):
        counter.add(batch, pa.record_batch({}))
    return counter.features[bins.name]


def counted_directly(bins: ColumnBins, values: Sequence[float | None]) -> dict[str, Any]:
    """Count value by value, as the description of the bins says."""
    found: dict[str, Any] = dict.fromkeys(("nulls", "nans", "infinities", "under", "over", "unseen"), 0)
    counts = [0] * len(bins.counts)
    held = [*bins.points, *bins.edges]
    for x in values:
        ranges = (
            [i for i in range(len(bins.edges) - 1) if bins.edges[i] <= x < bins.edges[i + 1]] if x is not None else []
        )
        if x is None or math.isnan(x) or math.isinf(x):
            found["nulls" if x is None else "nans" if math.isnan(x) else "infinities"] += 1
        elif x in bins.points:
            counts[list(bins.points).index(x)] += 1
        elif ranges:
            counts[len(bins.points) + ranges[0]] += 1
        elif len(bins.edges) and x == bins.edges[-1]:
            counts[-1] += 1
        else:
            found["under" if held and x < min(held) else "over" if held and x > max(held) else "unseen"] += 1
    return {**found, "counts": counts}


def as_counted(counts: ColumnCounts) -> dict[str, Any]:
    names = ("nulls", "nans", "infinities", "under", "over", "unseen")
    return {**{name: getattr(counts, name) for name in names}, "counts": counts.counts.tolist()}


def all_of(counts: ColumnCounts) -> int:
    ends = counts.under + counts.over + (counts.unseen or 0)
    return counts.nulls + counts.nans + counts.infinities + ends + int(counts.counts.sum())


@given(trained=st.lists(NUMBERS, max_size=80), now=st.lists(NUMBERS, max_size=80), size=st.integers(1, 80))
@settings(max_examples=80, deadline=None)
def test_counts_are_those_of_counting_value_by_value_whatever_the_batches_are(trained, now, size):
    bins = frozen(trained)
    found = counted(bins, now, pa.float64(), size)
    assert as_counted(found) == counted_directly(bins, now)
    assert (found.rows, all_of(found)) == (len(now), len(now))
    again = counted(bins, now[::-1], pa.float64())
    assert (again.digest, again.minimum, again.maximum) == (found.digest, found.minimum, found.maximum)
    assert as_counted(counted(bins, trained, pa.float64()))["counts"] == bins.counts.tolist()


@given(now=st.lists(NUMBERS, max_size=60), at=st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_counts_of_two_parts_add_up_to_those_of_one_pass(now, at):
    bins = frozen([*np.linspace(-2, 2, 50), *[0.0] * 20])
    whole = counted(bins, now, pa.float64())
    parts = counted(bins, now[:at], pa.float64()).merged(counted(bins, now[at:], pa.float64()))
    assert as_counted(parts) == as_counted(whole)
    assert (parts.rows, parts.digest, parts.tails) == (whole.rows, whole.digest, whole.tails)
    assert (parts.minimum, parts.maximum) == (whole.minimum, whole.maximum)
    moderate = [x for x in now if x is not None and abs(x) < 1e6]
    if moderate and len(moderate) == whole.finite:
        np.testing.assert_allclose([parts.mean, parts.sd], [np.mean(moderate), np.std(moderate)], rtol=1e-9, atol=1e-9)


@given(now=st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=60), size=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_texts_are_counted_by_name_and_what_training_had_not_is_unseen(now, size):
    bins = frozen(["a", "b", "b", "", None], "text")
    found = counted(bins, now, pa.string(), size)
    assert found.counts.tolist() == [now.count(name) for name in bins.categories]
    assert found.unseen == sum(value is not None and value not in bins.categories for value in now)
    assert all_of(found) == found.rows == len(now)
    assert found.digest == counted(bins, now[::-1], pa.string()).digest


def test_rare_categories_of_training_are_other_and_not_unseen():
    trained = [name for at in range(250) for name in [f"c{at:03}"] * (300 - at)]
    bins = frozen(trained, "text")
    found = counted(bins, ["c000", "c249", "c249", "new", None], pa.string())
    assert (found.counts[0], found.counts[-1], found.unseen, found.nulls) == (1, 2, 1, 1)
    assert counted(bins, trained, pa.string()).counts.tolist() == bins.counts.tolist()


def test_unseen_is_unknown_where_training_had_too_many_values_to_keep():
    profile = profile_of([f"id {at}" for at in range(KNOWN_VALUES + 1)], "text")
    bins = ColumnBins.from_profile("x", profile)
    found = counted(bins, ["id 0", "id 9999", "new"], pa.string())
    assert (bins.tells_unseen, found.unseen, all_of(found)) == (False, None, 3)
    # A profile that was made before the values were kept.
    del profile["known"]
    assert counted(ColumnBins.from_profile("x", profile), ["new"], pa.string()).unseen is None


def test_booleans_integers_and_times_are_counted_as_numbers():
    assert counted(frozen([True, False, True], "boolean"), [True, None, True], pa.bool_()).counts.tolist() == [0, 2]
    found = counted(frozen([1, 2, 4] * 5, "integer"), [1, 2, 3, 9, -9], pa.int32())
    assert (found.counts.tolist(), found.unseen, found.over, found.under) == ([1, 1, 0], 1, 1, 1)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    days = [start + timedelta(days=at) for at in range(100)]
    found = counted(
        frozen(days, "timestamp with time zone"), [*days, start - timedelta(days=1)], pa.timestamp("us", "UTC")
    )
    assert (found.counts.sum(), found.under, found.maximum) == (100, 1, days[-1].timestamp())
    dates = [day.date() for day in days]
    assert counted(frozen(dates, "date"), dates, pa.date32()).counts.tolist() == frozen(dates, "date").counts.tolist()


def test_one_outlier_moves_no_limit_of_a_bin():
    random = np.random.default_rng(4)
    bins = frozen(random.normal(size=20_000))
    shifted = random.normal(1, size=20_000)
    without, outlier = counted(bins, shifted, pa.float64()), counted(bins, [*shifted, 1e6], pa.float64())
    assert (outlier.over, outlier.maximum) == (without.over + 1, 1e6)
    assert outlier.counts.tolist() == without.counts.tolist()


def test_tails_are_what_lies_outside_the_outer_quantiles_of_training():
    values = np.random.default_rng(5).normal(size=10_000)
    bins = frozen(values)
    now = [*values, 100.0, -100.0]
    assert counted(bins, now, pa.float64()).tails == ((values < bins.p0_1) | (values > bins.p99_9)).sum() + 2


def test_outputs_are_counted_finely_with_sums_and_lists_by_length():
    random = np.random.default_rng(6)
    scores = random.beta(2, 5, 30_000)
    lists = pa.array([["a"] * int(length) for length in random.integers(1, 4, 30_000)])
    outputs = pa.record_batch({"p": scores, "few": np.round(scores), "top": lists})
    profile = ModelProfile.from_bundle(build_profile(pa.table({}), [], pa.Table.from_batches([outputs])))
    counter = ProfileCounter(profile)
    nothing = pa.record_batch({})
    for at in range(0, 30_000, 7_000):
        counter.add(nothing, outputs.slice(at, 7_000))
    for name, found in counter.outputs.items():
        assert found.counts.tolist() == profile.outputs[name].counts.tolist()
    for name in ("p", "few"):
        np.testing.assert_allclose(counter.outputs[name].sums, profile.outputs[name].sums)
    assert len(counter.outputs["p"].counts) == 1000
    other = ProfileCounter(profile)
    other.add(nothing, outputs.set_column(2, "top", pa.array([["b"] * len(found) for found in lists.to_pylist()])))
    assert other.outputs["top"].digest != counter.outputs["top"].digest


def test_columns_that_an_earlier_bundle_does_not_know_are_counted_without_comparison():
    old = {
        "features": {},
        "outputs": {"top": {"kind": "list", "count": 3, "nulls": 0, "longest": 2, "mean_length": 1.5}},
    }
    counter = ProfileCounter(ModelProfile.from_bundle(old))
    counter.add(pa.record_batch({"x": [1.0]}), pa.record_batch({"top": pa.array([["a"]]), "p": [0.5]}))
    assert not counter.model_profile.outputs["top"].comparable
    assert [(found.rows, found.unseen) for found in counter.outputs.values()] == [(1, None), (1, None)]


def test_digest_sees_what_sums_do_not():
    bins = frozen(np.linspace(0, 10, 100))
    digests = {
        counted(bins, values, pa.float64()).digest for values in ([1.0, 3.0], [2.0, 2.0], [1.0, 3.0, None], [1.0])
    }
    assert len(digests) == 4
    assert counted(bins, [0.0], pa.float64()).digest == counted(bins, [-0.0], pa.float64()).digest
