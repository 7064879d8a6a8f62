"""The drift checks leave a healthy shop alone, and find each fault in its first or second run."""

from __future__ import annotations

import pytest

from tests.benchmarks.false_alarms import Pipeline, Year, inject, year
from tests.shop_year import FAULTS

#: Days of a short year, and the day on which each fault begins: past the fourteen runs that early warnings need.
DAYS, BEGINS = 40, 36


@pytest.fixture(scope="module")
def short() -> tuple[Year, dict[int, Pipeline]]:
    """Forty days of two thousand customers, and the pipeline as it was before the last few."""
    return year(Pipeline.open(2_000), DAYS, [BEGINS])


def test_forty_days_of_two_thousand_customers_alarm_nobody(short: tuple[Year, dict[int, Pipeline]]) -> None:
    found, _ = short
    assert (found.gauges, found.guards, found.holds) == ({}, {}, 0)


@pytest.mark.parametrize(
    ("fault", "finds", "held"),
    [
        ("mean + 0.25 sd", {"drift.input", "drift.step"}, False),
        ("mean + 0.5 sd", {"drift.step"}, False),
        ("sd x 1.3", {"drift.step"}, False),
        ("3 % of rows x 100", {"input.range"}, True),
        ("12 pp more NULL", {"input.nulls"}, True),
        ("1 % unseen category", {"input.unseen"}, False),
        ("8 % unseen category", {"input.unseen"}, False),
        ("two columns swapped", {"drift.step", "drift.input"}, True),
        ("a constant column", {"input.constant"}, True),
    ],
)
def test_each_fault_is_found_in_the_first_or_second_run(
    short: tuple[Year, dict[int, Pipeline]], fault: str, finds: set[str], held: bool
) -> None:
    (injected,) = [known for known in FAULTS if known.name == fault]
    caught = inject(injected, short[1], most=2)
    assert caught.runs[0] is not None
    assert caught.checks.keys() & finds
    assert caught.held == held


@pytest.mark.slow
@pytest.mark.parametrize("entities", [2_000, 20_000, 1_000_000])
def test_a_year_has_at_most_four_warnings_and_holds_nothing(entities: int) -> None:
    found, _ = year(Pipeline.open(entities, seed=7), 365)
    assert len(found.gauges) <= 4
    assert found.guards == {}
    assert found.holds == 0
