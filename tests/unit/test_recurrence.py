"""What is deployed fires when our ticks are: asked of Prefect's own schedules, on days on which clocks change."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tasks.recurrence import LONGEST, Recurrence, recurrences
from tasks.schedule import ticks

# When clocks change in 2027: by an hour each way, by half an hour, at midnight, back to a summer time that counts as
# negative, by two hours, and never.
CHANGES = {
    "Europe/Berlin": ("2027-03-28T01:00Z", "2027-10-31T01:00Z"),
    "America/New_York": ("2027-03-14T07:00Z", "2027-11-07T06:00Z"),
    "Australia/Lord_Howe": ("2027-04-03T15:00Z", "2027-10-02T15:30Z"),
    "America/Havana": ("2027-03-14T05:00Z", "2027-11-07T05:00Z"),
    "Europe/Dublin": ("2027-03-28T01:00Z", "2027-10-31T01:00Z"),
    "Africa/Casablanca": ("2027-02-07T02:00Z", "2027-03-14T02:00Z"),
    "Antarctica/Troll": ("2027-03-28T01:00Z", "2027-10-31T01:00Z"),
    "Asia/Kolkata": ("2027-03-28T01:00Z",),
}
CRONS = (
    "0 3 * * *",
    "30 2 * * *",
    "0 0 * * *",
    "0 * * * *",
    "*/15 * * * *",
    "*/15 0-6 * * *",
    "0 */2 * * *",
    "15,45 1-3 * * *",
    "0 2,3 * * 0",
)
# Hours before the change from which on a server looks ahead: what it answers must not depend on that.
LOOKED_FROM = (26.0, 0.6)


def fired(told: tuple[Recurrence, ...], start: datetime, end: datetime) -> list[datetime]:
    """Return when a Prefect server that was told this fires in [start, end], each as often as it does."""
    from prefect.server.schemas.schedules import CronSchedule, RRuleSchedule

    found: list[datetime] = []
    for each in told:
        made = (
            CronSchedule(cron=each.cron, timezone=each.timezone)
            if each.cron is not None
            else RRuleSchedule(rrule=each.rule, timezone=each.timezone)
        )
        found += asyncio.run(made.get_dates(start=start, end=end))
    return sorted(tick.astimezone(UTC) for tick in found)


@pytest.mark.parametrize(
    "timezone",
    [
        "Europe/Berlin",
        "America/New_York",
        "Europe/Dublin",
        *(
            pytest.param(zone, marks=pytest.mark.slow)
            for zone in CHANGES
            if zone not in {"Europe/Berlin", "America/New_York", "Europe/Dublin"}
        ),
    ],
)
def test_prefect_fires_at_our_ticks_on_days_on_which_clocks_change(timezone: str) -> None:
    for cron in CRONS:
        told = recurrences(cron, timezone, datetime(2027, 1, 15, tzinfo=UTC))
        for change in map(datetime.fromisoformat, CHANGES[timezone]):
            for hours in LOOKED_FROM:
                start, end = change - timedelta(hours=hours), change + timedelta(hours=26)
                ours = ticks([cron], timezone, start - timedelta(microseconds=1), end)
                assert fired(told, start, end) == ours, (cron, change, hours)


@pytest.mark.parametrize(
    "cron",
    [
        "30 2 L * *",
        "30 2 * * 0L",
        "30 2 * * 0#2,5",
        "10 2 LW * *",
        "30 2 1-7 * 1",
        "30 2 */2 * 0",
        "0 4 31 1-6 MON-FRI",
    ],
)
def test_prefect_reads_days_as_we_do(cron: str) -> None:
    start = datetime(2027, 1, 1, tzinfo=UTC)
    told = recurrences(cron, "Europe/Berlin", start)

    assert fired(told, start, start + timedelta(days=400)) == ticks(
        [cron], "Europe/Berlin", start - timedelta(seconds=1), start + timedelta(days=400)
    )


def test_an_expression_that_every_wall_agrees_about_stays_one() -> None:
    def told(cron: str, timezone: str) -> list[tuple[str | None, str]]:
        return [(each.cron, each.timezone) for each in recurrences(cron, timezone, datetime(2027, 1, 15, tzinfo=UTC))]

    assert told("0 3 * * *", "America/New_York") == [("0 3 * * *", "America/New_York")]
    assert told("30 2 * * *", "UTC") == [("30 2 * * *", "UTC")]
    assert told("30 2 * * *", "Asia/Kolkata") == [("30 2 * * *", "Asia/Kolkata")]
    # By elapsed time: the same on every wall whose changes leave the minutes where they are.
    assert told("*/15 * * * *", "Europe/Berlin") == [("*/15 * * * *", "UTC")]
    assert told("*/20 * * * *", "Australia/Lord_Howe") != [("*/20 * * * *", "UTC")]


def test_a_rule_is_the_same_all_year_holds_for_years_and_fits() -> None:
    january, december = datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 12, 31, tzinfo=UTC)
    (rule,) = recurrences("30 2 * * *", "Europe/Berlin", january)
    assert (rule,) == recurrences("30 2 * * *", "Europe/Berlin", december)

    spring = datetime(2037, 3, 29, tzinfo=UTC)  # 02:30 does not exist: three o'clock, in ten years' time too
    assert fired((rule,), spring, spring + timedelta(days=1)) == [spring.replace(hour=1)]

    every_minute = recurrences("* 2 * * *", "Europe/Berlin", january)
    assert all(each.rule is not None and len(each.rule) <= LONGEST for each in every_minute)
