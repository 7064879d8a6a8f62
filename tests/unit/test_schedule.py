"""When runs are due, on ordinary days and on those on which clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ScheduleInvalid
from tasks.schedule import next_tick, period, previous_tick, require_cron, require_zone, ticks

NEW_YORK, BERLIN = "America/New_York", "Europe/Berlin"
# Local midnight before and after the day on which clocks change, and that day's length in hours.
SPRING = {NEW_YORK: (datetime(2013, 3, 10), 23), BERLIN: (datetime(2013, 3, 31), 23)}  # noqa: DTZ001
AUTUMN = {NEW_YORK: (datetime(2013, 11, 3), 25), BERLIN: (datetime(2013, 10, 27), 25)}  # noqa: DTZ001


def local_ticks(cron: str, timezone: str, day: datetime) -> list[str]:
    """Return the local times, with their offsets, at which the expression fires on a day."""
    zone = ZoneInfo(timezone)
    start = day.replace(tzinfo=zone)
    found = ticks([cron], timezone, start - timedelta(seconds=1), start + timedelta(days=1) - timedelta(seconds=1))
    return [tick.astimezone(zone).strftime("%H:%M %Z") for tick in found]


@pytest.mark.parametrize("timezone", [NEW_YORK, BERLIN])
@pytest.mark.parametrize("changes", [SPRING, AUTUMN])
def test_an_hourly_schedule_fires_each_elapsed_hour_of_a_day_that_is_longer_or_shorter(
    timezone: str, changes: dict[str, tuple[datetime, int]]
) -> None:
    day, hours = changes[timezone]
    start = day.replace(tzinfo=ZoneInfo(timezone)).astimezone(UTC)
    found = ticks(["0 * * * *"], timezone, start, start + timedelta(hours=hours))
    assert len(found) == hours
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}


@pytest.mark.parametrize(
    ("timezone", "expected"), [(NEW_YORK, ["03:00 EDT"]), (BERLIN, ["03:00 CEST"])], ids=["New York", "Berlin"]
)
def test_half_past_two_fires_at_three_when_it_does_not_exist(timezone: str, expected: list[str]) -> None:
    assert local_ticks("30 2 * * *", timezone, SPRING[timezone][0]) == expected


@pytest.mark.parametrize(
    ("timezone", "cron", "expected"),
    [
        (NEW_YORK, "30 1 * * *", ["01:30 EDT"]),  # clocks go back from 02:00 to 01:00
        (NEW_YORK, "30 2 * * *", ["02:30 EST"]),
        (BERLIN, "30 2 * * *", ["02:30 CEST"]),  # clocks go back from 03:00 to 02:00
    ],
)
def test_a_time_that_comes_twice_fires_once_at_the_first(timezone: str, cron: str, expected: list[str]) -> None:
    assert local_ticks(cron, timezone, AUTUMN[timezone][0]) == expected


@pytest.mark.parametrize(
    ("timezone", "spring", "autumn"), [(NEW_YORK, "EDT", "EST"), (BERLIN, "CEST", "CET")], ids=["New York", "Berlin"]
)
def test_three_in_the_morning_fires_once_on_both_days(timezone: str, spring: str, autumn: str) -> None:
    assert local_ticks("0 3 * * *", timezone, SPRING[timezone][0]) == [f"03:00 {spring}"]
    assert local_ticks("0 3 * * *", timezone, AUTUMN[timezone][0]) == [f"03:00 {autumn}"]


def test_the_day_before_and_after_a_change_are_23_and_25_hours_apart() -> None:
    evening = datetime(2013, 3, 9, 12, tzinfo=UTC)
    first = next_tick(["0 3 * * *"], NEW_YORK, evening - timedelta(days=1))
    second = next_tick(["0 3 * * *"], NEW_YORK, first)
    assert (first, second) == (datetime(2013, 3, 9, 8, tzinfo=UTC), datetime(2013, 3, 10, 7, tzinfo=UTC))
    before_autumn = next_tick(["0 3 * * *"], NEW_YORK, datetime(2013, 11, 1, 12, tzinfo=UTC))
    assert next_tick(["0 3 * * *"], NEW_YORK, before_autumn) - before_autumn == timedelta(hours=25)


def test_asked_between_the_two_half_past_ones_the_next_is_tomorrow() -> None:
    between = datetime(2013, 11, 3, 6, 10, tzinfo=UTC)  # 01:10 EST, after 01:30 EDT
    assert next_tick(["30 1 * * *"], NEW_YORK, between) == datetime(2013, 11, 4, 6, 30, tzinfo=UTC)
    assert previous_tick(["30 1 * * *"], NEW_YORK, between) == datetime(2013, 11, 3, 5, 30, tzinfo=UTC)


def test_a_tick_is_strictly_after_and_strictly_before_the_instant_asked_for() -> None:
    three = datetime(2024, 1, 1, 3, tzinfo=UTC)
    assert next_tick(["0 3 * * *"], "UTC", three) == three + timedelta(days=1)
    assert previous_tick(["0 3 * * *"], "UTC", three) == three - timedelta(days=1)
    assert next_tick(["0 3 * * *"], "UTC", three - timedelta(microseconds=1)) == three
    assert previous_tick(["0 3 * * *"], "UTC", three + timedelta(microseconds=1)) == three


def test_several_expressions_answer_with_the_nearest_of_them() -> None:
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    crons = ["0 3 * * *", "30 18 * * *"]
    assert next_tick(crons, "UTC", noon) == noon.replace(hour=18, minute=30)
    assert previous_tick(crons, "UTC", noon) == noon.replace(hour=3)
    assert period(crons, "UTC") == timedelta(hours=15, minutes=30)


def test_answers_are_in_utc_whatever_zone_was_asked_in() -> None:
    asked = datetime(2024, 1, 1, 1, tzinfo=ZoneInfo(BERLIN))
    assert next_tick(["0 3 * * *"], BERLIN, asked) == datetime(2024, 1, 1, 2, tzinfo=UTC)
    assert next_tick(["0 3 * * *"], BERLIN, asked).tzinfo is UTC


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        next_tick(["0 3 * * *"], "UTC", datetime(2024, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 3 * * *", timedelta(days=1)),
        ("0 * * * *", timedelta(hours=1)),
        ("*/15 * * * *", timedelta(minutes=15)),
        ("* * * * *", timedelta(minutes=1)),
        ("0 3 * * 1-5", timedelta(days=3)),
        ("0 3 * * 0", timedelta(days=7)),
        ("0 3 1-7 * *", timedelta(days=25)),
        ("0 3 1 * *", timedelta(days=31)),
        ("0 9-17 * * *", timedelta(hours=16)),
        ("0 0 1 1 *", timedelta(days=365)),
        ("0 0 29 2 *", timedelta(days=1461)),
    ],
)
@pytest.mark.parametrize("timezone", ["UTC", NEW_YORK])
def test_the_period_is_the_longest_wait_on_ordinary_days(cron: str, expected: timedelta, timezone: str) -> None:
    assert period([cron], timezone) == expected


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("61 * * * *", 'minute "61"'),
        ("0 24 * * *", 'hour "24"'),
        ("0 0 0 * *", 'day of month "0"'),
        ("0 0 * 13 *", 'month "13"'),
        ("0 0 * * MONN", 'day of week "MONN"'),
        ("*/0 * * * *", 'minute "*/0"'),
        ("5-1 * * * *", 'minute "5-1"'),
        ("0 3 * *", "has 4 fields"),
        ("0 0 3 * * *", "has 6 fields"),
        ("", "has 0 fields"),
        ("@daily", 'write "0 0 * * *"'),
        ("0 0 30 2 *", "never fires"),
    ],
)
def test_a_bad_expression_is_named_with_what_is_wrong(cron: str, words: str) -> None:
    with pytest.raises(ScheduleInvalid) as refused:
        require_cron(cron)
    assert words in str(refused.value)
    assert f'"{cron}"' in str(refused.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Europe/berlin", '"Europe/Berlin"'),
        ("America/New York", '"America/New_York"'),
        ("Berlin", '"Europe/Berlin"'),
        ("", "write an IANA name"),
        ("../../etc/passwd", "is no IANA time zone"),
    ],
)
def test_an_unknown_zone_is_answered_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(ScheduleInvalid) as refused:
        require_zone(name)
    assert words in str(refused.value)


def test_no_expression_at_all_is_refused() -> None:
    with pytest.raises(ScheduleInvalid, match="no cron expression"):
        next_tick([], "UTC", datetime(2024, 1, 1, tzinfo=UTC))


# Cairo, Havana and Beirut change at midnight, Lord Howe by half an hour.
ZONES = ["UTC", NEW_YORK, BERLIN, "Africa/Cairo", "America/Havana", "Asia/Beirut", "Australia/Lord_Howe"]
CRONS = ["0 * * * *", "30 2 * * *", "0 0 * * *", "15,45 1-3 * * *", "*/20 0-3 * * 0", "0 3 1 * *", "30 */2 * * *"]


@given(
    cron=st.sampled_from(CRONS),
    zone=st.sampled_from(ZONES),
    at=st.datetimes(min_value=datetime(2010, 1, 1), max_value=datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_next_and_previous_agree_with_each_other_on_every_day(cron: str, zone: str, at: datetime) -> None:
    following = next_tick([cron], zone, at)
    assert following > at
    assert previous_tick([cron], zone, following + timedelta(microseconds=1)) == following
    before = previous_tick([cron], zone, following)
    assert before <= at
    assert next_tick([cron], zone, before) == following


@given(st.text(alphabet="0123456789*/,-#LWMON ²", max_size=20))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        cron = require_cron(text)
    except ScheduleInvalid:
        return
    assert next_tick([cron], "UTC", datetime(2024, 1, 1, tzinfo=UTC)) > datetime(2024, 1, 1, tzinfo=UTC)
