"""What arrived is compared with what usually does: limits at the instant, slots, early and late runs, chance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.checks import CHECKS
from tasks.checks.sources import _answers, _rows_judged
from tasks.declaration import Source
from tasks.findings import Disposition, Finding
from tasks.slices import NEEDED, SLICES, Past, Slice, slice_begins, usual

NOW = datetime(2024, 5, 6, 3, tzinfo=UTC)
DAY = timedelta(days=1)
(CHECK,) = (check for check in CHECKS if check.id == "source.rows")


def source(**rows: Any) -> Source:
    return Source.model_validate({"name": "public.orders", "watermark": "loaded_at", "rows": rows})


def past(*rows: int | None, hours: float = 24.0, same_slot: bool = True) -> tuple[Past, ...]:
    """Slices of earlier nights, the latest first."""
    return tuple(
        Past(as_of=NOW - at * DAY, rows=count, hours=hours, same_slot=same_slot) for at, count in enumerate(rows, 1)
    )


def judged(rows: int, before: tuple[Past, ...], *, hours: float = 24.0, **declared: Any) -> Finding:
    orders = source(**declared)
    arrived = Slice(since=NOW - timedelta(hours=hours), until=NOW, rows=rows, before=before)
    return _rows_judged(_answers(CHECK, orders), orders, arrived, "0" * 12)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (0, "fail"),
        (7_000, "fail"),
        (7_001, "warn"),
        (9_000, "warn"),
        (9_001, "pass"),
        (10_999, "pass"),
        (11_000, "warn"),
        (14_999, "warn"),
        (15_000, "fail"),
    ],
)
def test_a_limit_that_is_reached_counts(rows: int, verdict: str) -> None:
    assert judged(rows, past(*[10_000] * 5)).verdict.value == verdict


def test_the_usual_is_the_median_of_eight_without_the_new_slice() -> None:
    found = usual(past(100, 900, 1_000, 1_000, 1_000, 1_000, 1_100, 5_000, 9_999_999))

    assert found is not None
    assert (found.rows, found.slices, found.baseline) == (1_000, SLICES, "slot")
    # An eighth part can be anything; a slice that failed has no rows and does not count.
    assert judged(1_000, past(None, 1_000, 10**9, 1_000)).verdict.value == "pass"


def test_too_few_slices_of_the_slot_are_judged_by_nobody() -> None:
    others = past(*[1_000] * 8, same_slot=False)
    few = (*past(200)[: NEEDED - 1], *others)

    weekend = judged(210, few, slot="weekday")

    assert (weekend.verdict.value, weekend.small_sample, weekend.evidence["baseline"]) == ("unknown", True, "fallback")
    assert "the median of 8 slices of any kind, for want of such ones" in weekend.reason
    assert judged(210, (*past(*[200] * NEEDED), *others), slot="weekday").verdict.value == "pass"
    nothing = judged(210, ())
    assert (nothing.verdict.value, nothing.small_sample) == ("unknown", True)


def test_where_fewer_than_a_hundred_rows_are_usual_no_ratio_is_judged() -> None:
    assert judged(0, past(*[99] * 8)).small_sample
    assert judged(0, past(*[100] * 8)).verdict.value == "fail"


def test_a_difference_that_is_chance_passes() -> None:
    """Three standard deviations of a count of 400 are 60: 0.86 is no finding there, and is one of 10,000 rows."""
    assert judged(344, past(*[400] * 8)).verdict.value == "pass"
    assert judged(339, past(*[400] * 8)).verdict.value == "warn"
    assert judged(8_600, past(*[10_000] * 8)).verdict.value == "warn"


@pytest.mark.parametrize(
    ("rows", "hours", "ratio"),
    [
        (10_000, 33.0, 1.0),  # one load a day, and a run nine hours late
        (13_750, 33.0, 1.0),  # a steady stream for nine hours more
        (10_000, 15.0, 1.0),
        (6_250, 15.0, 1.0),
        (5_200, 24.0, 0.52),
        (0, 33.0, 0.0),
    ],
)
def test_a_slice_of_another_length_is_compared_by_count_and_by_rate(rows: int, hours: float, ratio: float) -> None:
    assert judged(rows, past(*[10_000] * 8), hours=hours).observed == pytest.approx(ratio)


def test_a_slice_begins_at_a_publication_that_lies_a_usual_slice_back() -> None:
    nights = past(*[10_000] * 8)

    assert slice_begins(nights, NOW) == NOW - DAY
    # The clocks were put forward: 23 hours are a night too.
    assert slice_begins(nights, NOW - timedelta(hours=1)) == NOW - DAY
    # By hand in the afternoon: the night before counts, for nothing is expected since the last one.
    assert slice_begins(nights, NOW - DAY + timedelta(hours=9)) == NOW - 2 * DAY
    assert slice_begins((), NOW) is None
    assert slice_begins(nights[:1], NOW - DAY + timedelta(hours=9)) == NOW - DAY


def test_what_follows_from_a_failure_is_what_the_source_declares() -> None:
    for declared, follows in (
        ("flag", Disposition.PUBLISH_FLAGGED),
        ("hold", Disposition.HOLD),
        ("abort", Disposition.ABORT),
    ):
        found = _answers(CHECK, source().model_copy(update={"on_fail": declared}))(CHECK_FAILED, "half")
        assert found.disposition is follows


CHECK_FAILED = judged(0, past(*[10_000] * 5)).verdict
