"""The ages that [features.ttl] limits are counted from batches as they would be from all rows at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from tasks.declaration import FeatureTtl
from tasks.feature_ages import AgeCounter, Ages

AS_OF = datetime(2024, 5, 6, 3, tzinfo=UTC)
INSTANT = pa.timestamp("us", "UTC")


def batch(hours: list[float | None], prices: list[float | None] | None = None) -> pa.RecordBatch:
    """Rows whose price was seen so many hours before as_of."""
    seen = [None if each is None else AS_OF - timedelta(hours=each) for each in hours]
    return pa.RecordBatch.from_pydict(
        {
            "as_of": pa.array([AS_OF] * len(hours), INSTANT),
            "seen_at": pa.array(seen, INSTANT),
            "price": pa.array([1.0] * len(hours) if prices is None else prices, pa.float64()),
        }
    )


def counted(*batches: pa.RecordBatch, ttl: str = "24h") -> Ages:
    counter = AgeCounter({"seen_at": FeatureTtl.model_validate({"ttl": ttl, "features": ["price"]})})
    for each in batches:
        counter.add(each)
    return counter.columns["seen_at"]


def test_an_age_that_reaches_the_ttl_is_too_old_and_one_a_microsecond_younger_is_not() -> None:
    just_below = 24 - 1 / 3.6e9
    ages = counted(batch([24, just_below, None, -1]), batch([25, 1], prices=[None, None]))

    assert (ages.rows, ages.nulls, ages.known, ages.beyond, ages.ahead) == (6, 1, 5, 2, 1)
    assert ages.cut == 1  # the price of the row of 25 hours; the one of an hour is missing for another reason


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_a_percentile_is_at_most_half_a_percent_above_the_exact_one(share: float) -> None:
    hours = np.random.default_rng(5).gamma(2.0, 100.0, 5_000)
    ages = counted(*(batch(part.tolist()) for part in np.array_split(hours, 7)), ttl="1000h")

    exact = np.sort(hours)[int(np.ceil(share * len(hours))) - 1]

    found = ages.percentile(share)
    assert found is not None
    assert exact <= found / timedelta(hours=1) <= exact * 1.0051
    assert ages.beyond == int((hours >= 1000).sum())


def test_there_is_no_percentile_of_nothing_and_no_row_beyond_the_last() -> None:
    assert counted().percentile(0.99) is None
    ages = counted(batch([1.0, None]))
    assert ages.oldest(1) is not None
    assert (ages.oldest(0), ages.oldest(2)) == (None, None)
