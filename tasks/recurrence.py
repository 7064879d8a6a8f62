"""How a server whose cron goes by the clock on the wall is to be told a schedule, so that it fires at our ticks.

Prefect's cron knows only the wall: on the day on which clocks go back it leaves out the hour that comes twice, and on the day on
which they go forward it moves a time that does not exist, by Python's version to another hour. It is told a cron
expression where all walls agree, and else an iCalendar rule (RFC 5545) with the dates that are otherwise.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

from cronsim import CronSim
from dateutil.tz import gettz

from tasks import schedule

# Years that changes of the clocks are written down for, the most that fit; a deployment that is made anew has them from its
# own year on.
YEARS = (12, 6, 3, 2, 1)
# dateutil, which reads the rules, knows of no change after 2037: it reads the first part of a zone's file only.
LAST_YEAR = 2037
# What Prefect takes for a rule. Only what fires each minute of an hour that is skipped comes near.
LONGEST = 6_500
# Around a change of the clocks: what fires later or earlier has nothing to do with it. The largest change is of a day (Samoa).
_NEAR = timedelta(hours=3)
_DAYS = ("SU", "MO", "TU", "WE", "TH", "FR", "SA", "SU")
_EVERY_HOUR = set(range(24))


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """One thing to tell the server: a cron expression or a rule, and the zone whose wall it is read on."""

    timezone: str
    cron: str | None = None
    rule: str | None = None
    #: Whether it only adds ticks to the one before it: those in the second of two equal hours.
    adds: bool = False


def recurrences(cron: str, timezone: str, since: datetime) -> tuple[Recurrence, ...]:
    """Return what fires together at the ticks of an expression, from the year of ``since`` (UTC) on.

    The answer is the same throughout a year. A rule holds for as many years as fit into it, twelve at most and mostly, by
    what is known of the zone now.

    Raises
    ------
    ScheduleInvalid
        When expression or zone is not valid.
    """
    cron, zone = schedule.require_cron(cron), schedule.require_zone(timezone)
    start = datetime(since.year, 1, 1, tzinfo=UTC)
    end = min(start.year + YEARS[0], max(LAST_YEAR, start.year) + 1)
    changes = list(_changes(zone, start, start.replace(year=end)))
    parsed = CronSim(cron, start)
    if _is_plain(parsed):
        if not any(_touches(cron, zone, change) for change in changes):
            return (Recurrence(cron=cron, timezone=timezone),)
        if _goes_by_elapsed_time(parsed, {change.before for change in changes} | {change.after for change in changes}):
            return (Recurrence(cron=cron, timezone="UTC"),)
    for years in YEARS:
        near = [change for change in changes if change.at.year < start.year + years]
        found = _ruled(cron, timezone, zone, parsed, start, near)
        if all(len(each.rule or "") <= LONGEST for each in found):
            break
    return found


@dataclass(frozen=True, kw_only=True)
class _Change:
    """A change of the clocks: when (UTC), and the offsets from UTC around it."""

    at: datetime
    before: timedelta
    after: timedelta


def _changes(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[_Change]:
    """Yield the changes of a zone's clocks in order; two within a day count as one where they cancel out."""

    def offset(at: datetime) -> timedelta:
        found = at.astimezone(zone).utcoffset()
        assert found is not None
        return found

    days = [start + timedelta(days=number) for number in range((end - start).days + 1)]
    for early, late in pairwise(days):
        if offset(early) == offset(late):
            continue
        low, high = early, late
        while high - low > timedelta(minutes=1):
            middle = low + (high - low) / 2
            middle = middle.replace(second=0, microsecond=0)
            low, high = (middle, high) if offset(middle) == offset(early) else (low, middle)
        yield _Change(at=high, before=offset(early), after=offset(late))


def _is_plain(parsed: CronSim) -> bool:
    """Say whether every cron reads the days alike: numbers, and at most one of the two day fields restricted."""
    plain = all(isinstance(day, int) for day in parsed.weekdays) and min(parsed.days) > 0
    return plain and "*" in (parsed.parts[3], parsed.parts[5])


def _touches(cron: str, zone: ZoneInfo, change: _Change) -> bool:
    """Say whether the expression has a time on the wall that a change of the clocks skips or repeats."""
    low, high = sorted((change.at + change.before, change.at + change.after))
    return any(True for _ in _walls(cron, low, high))


def _walls(cron: str, low: datetime, high: datetime) -> Iterator[datetime]:
    """Yield the times on the wall, without a zone, that an expression has in [low, high)."""
    start = low.replace(tzinfo=None) - timedelta(seconds=1)
    for wall in CronSim(cron, start):
        if wall >= high.replace(tzinfo=None):
            return
        yield wall


def _goes_by_elapsed_time(parsed: CronSim, offsets: Iterable[timedelta]) -> bool:
    """Say whether the ticks are the same on every wall: any day and hour, at minutes that the changes do not move."""
    starred = parsed.parts[1].startswith("*") or parsed.parts[2].startswith("*")
    if not starred or parsed.hours != _EVERY_HOUR or parsed.parts[3:] != ["*", "*", "*"]:
        return False
    shifts = [int(offset.total_seconds()) // 60 for offset in offsets]
    return all({(minute - shift) % 60 for minute in parsed.minutes} == parsed.minutes for shift in shifts)


def _ruled(
    cron: str, timezone: str, zone: ZoneInfo, parsed: CronSim, start: datetime, changes: Sequence[_Change]
) -> tuple[Recurrence, ...]:
    """Return the rule of an expression, without the walls that fire otherwise and with the ticks that it lacks."""
    ruling = gettz(timezone)
    assert ruling is not None
    without: set[datetime] = set()
    added: set[datetime] = set()
    again: set[datetime] = set()
    for change in changes:
        low, high = change.at - _NEAR, change.at + _NEAR + abs(change.after - change.before)
        walls = set(_walls(cron, low + min(change.before, change.after), high + max(change.before, change.after)))
        ours = set(schedule.ticks([cron], timezone, low - timedelta(seconds=1), high))
        sure = {wall: tick for wall in walls if (tick := _instant(wall, zone, ruling)) is not None}
        without |= walls - sure.keys()
        without |= {wall for wall, tick in sure.items() if low <= tick <= high and tick not in ours}
        for tick in ours - set(sure.values()):
            wall = tick.astimezone(zone).replace(tzinfo=None, fold=0)
            if _instant(wall, zone, ruling) == tick and wall not in without:
                added.add(wall)
            else:
                again.add(tick)
    lines = [f"DTSTART:{start:%Y%m%dT%H%M%S}", *_rules(parsed)]
    lines += _dates("EXDATE", without) + _dates("RDATE", added)
    ruled = Recurrence(rule="\n".join(lines), timezone=timezone)
    if not again:
        return (ruled,)
    first = min(again)
    more = [f"DTSTART:{first:%Y%m%dT%H%M%S}", *_dates("RDATE", again)]
    return (ruled, Recurrence(rule="\n".join(more), timezone="UTC", adds=True))


def _instant(wall: datetime, zone: ZoneInfo, ruling: tzinfo) -> datetime | None:
    """Return when a rule fires at a time on the wall, the first where there are two; None where nobody can say.

    That is one that clocks skip, and one that dateutil, which reads the rules, takes for another: it does so where clocks
    go back to a summer time that counts as negative, as in Dublin and Casablanca.
    """
    found = wall.replace(tzinfo=zone).astimezone(UTC)
    exists = found.astimezone(zone).replace(tzinfo=None) == wall
    return found if exists and wall.replace(tzinfo=ruling).astimezone(UTC) == found else None


def _rules(parsed: CronSim) -> list[str]:
    """Return the rules whose union is the expression, one for each way that a day may be meant.

    Debian's cron: a day must match both day fields where one of them begins with ``*``, else either.
    """
    times = f"BYHOUR={_listed(parsed.hours)};BYMINUTE={_listed(parsed.minutes)};BYSECOND=0"
    at_once = len(parsed.hours) * len(parsed.minutes)
    by_month_day = _by_month_day(parsed, at_once)
    by_week_day = _by_week_day(parsed)
    if parsed.day_and:
        days = [f"{first}{second}" for first in by_month_day for second in by_week_day]
    else:
        days = [*by_month_day, *by_week_day]
    return [f"RRULE:FREQ=MONTHLY;BYMONTH={_listed(parsed.months)}{day};{times}" for day in dict.fromkeys(days)]


def _by_month_day(parsed: CronSim, at_once: int) -> list[str]:
    numbers = {day for day in parsed.days if day > 0} | ({-1} if CronSim.LAST in parsed.days else set())
    found = [f";BYMONTHDAY={_listed(numbers)}"] if numbers else []
    if CronSim.LAST_WEEKDAY in parsed.days:
        # Positions count times of day, not days.
        last = _listed(-number for number in range(1, at_once + 1))
        found.append(f";BYDAY=MO,TU,WE,TH,FR;BYSETPOS={last}")
    return found


def _by_week_day(parsed: CronSim) -> list[str]:
    plain = sorted({int(day) % 7 for day in parsed.weekdays if isinstance(day, int)})
    found = [f";BYDAY={','.join(_DAYS[day] for day in plain)}"] if plain else []
    for day in sorted(day for day in parsed.weekdays if not isinstance(day, int)):
        nth = -1 if day[1] == CronSim.LAST else day[1]
        found.append(f";BYDAY={nth}{_DAYS[day[0]]}")
    # Each day of the week is no restriction, and BYSETPOS and BYDAY may stand once only.
    return [""] if len(plain) == len(calendar.day_name) else found


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(str(number) for number in sorted(numbers))


def _dates(name: str, walls: Iterable[datetime]) -> list[str]:
    listed = [f"{wall:%Y%m%dT%H%M%S}" for wall in sorted(walls)]
    return [f"{name}:{','.join(listed)}"] if listed else []
