"""When a pipeline is to run: cron expressions read in an IANA time zone, answered as instants in UTC.

Days on which clocks change follow cronsim, which follows Debian's cron. An expression with a fixed minute and hour
fires once a day: at 03:00 when its 02:30 does not exist, at the first 01:30 when there are two. One whose minute or
hour begins with ``*`` fires by elapsed time: an hourly one 23 or 25 times. Ticks never repeat and never go backwards.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
from cronsim import CronSim, CronSimError

from tasks.errors import ScheduleInvalid

_FIELDS = (
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of month", "1-31 or L"),
    ("month", "1-12 or JAN-DEC"),
    ("day of week", "0-7 or SUN-SAT"),
)
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

#: A stretch of ordinary days to measure a period in: a common year, and the leap years around it for 29 February.
_MEASURED_FROM = datetime(2023, 1, 1, tzinfo=UTC)
_MEASURED_DAYS = 400

#: How far back a tick is looked for, step by step: dense expressions are found in the first, 29 February in the last.
_LOOK_BACK = tuple(timedelta(hours=hours) for hours in (2, 48, 24 * 33, 24 * 400, 24 * 366 * 9, 24 * 366 * 45))


def require_cron(expression: str) -> str:
    """Return the expression with single spaces, or say what is wrong with it.

    Raises
    ------
    ScheduleInvalid
        When it has not five fields, a field is out of its range, or no day ever matches.
    """
    words = expression.split()
    if words and words[0].lower() in _NICKNAMES and len(words) == 1:
        raise ScheduleInvalid(f'cron expression "{expression}" is a nickname: write "{_NICKNAMES[words[0].lower()]}"')
    if len(words) != len(_FIELDS):
        raise ScheduleInvalid(
            f'cron expression "{expression}" has {len(words)} fields, five are expected: minute, hour, day of month, '
            'month, day of week. "0 3 * * *" is every day at 03:00'
        )
    for at, (word, (name, allowed)) in enumerate(zip(words, _FIELDS, strict=True)):
        if not _parses(" ".join(word if at == other else "*" for other in range(len(_FIELDS)))):
            raise ScheduleInvalid(
                f'cron expression "{expression}": {name} "{word}" is not valid; allowed are {allowed}, *, and lists, '
                "ranges and steps of these such as 1,15 or 1-5 or */10"
            )
    normal = " ".join(words)
    if not _parses(normal) or next(_walk(normal, UTC, _MEASURED_FROM), None) is None:
        raise ScheduleInvalid(f'cron expression "{expression}" never fires: no such day exists')
    return normal


def require_zone(name: str) -> ZoneInfo:
    """Return the IANA time zone of this name.

    Raises
    ------
    ScheduleInvalid
        Naming the nearest zone that exists.
    """
    known = _zones()
    # The file system finds a zone under any spelling that it considers the same; PostgreSQL may not.
    if name not in known:
        folded = {zone.casefold(): zone for zone in known}
        near = difflib.get_close_matches(name.casefold().replace(" ", "_"), folded, n=1, cutoff=0.6)
        meant = f'did you mean "{folded[near[0]]}"?' if near else 'write an IANA name such as "UTC" or "Europe/Berlin"'
        raise ScheduleInvalid(f'"{name}" is no IANA time zone; {meant}')
    return ZoneInfo(name)


def next_tick(crons: Sequence[str], timezone: str, after: datetime) -> datetime:
    """Return the first instant, in UTC, at which any of the expressions fires strictly later than ``after``.

    Raises
    ------
    ScheduleInvalid
        When an expression or the zone is not valid, or there is no expression.
    """
    zone = _zone(timezone, crons)
    found = (next(_walk(cron, zone, _in_utc(after)), None) for cron in crons)
    return min(_fired(found, crons))


def previous_tick(crons: Sequence[str], timezone: str, before: datetime) -> datetime:
    """Return the last instant, in UTC, at which any of the expressions fired strictly earlier than ``before``.

    It walks the same ticks as :func:`next_tick`, so that the two agree on the days on which clocks change.

    Raises
    ------
    ScheduleInvalid
        When an expression or the zone is not valid, or there is no expression.
    """
    zone = _zone(timezone, crons)
    return max(_fired((_last_before(cron, zone, _in_utc(before)) for cron in crons), crons))


def ticks(crons: Sequence[str], timezone: str, after: datetime, until: datetime) -> list[datetime]:
    """Return every instant, in UTC and in order, at which any of the expressions fires in (``after``, ``until``].

    Raises
    ------
    ScheduleInvalid
        When an expression or the zone is not valid, or there is no expression.
    """
    zone, start, end = _zone(timezone, crons), _in_utc(after), _in_utc(until)
    found: set[datetime] = set()
    for cron in crons:
        for tick in _walk(cron, zone, start):
            if tick > end:
                break
            found.add(tick)
    return sorted(found)


def period(crons: Sequence[str], timezone: str) -> timedelta:
    """Return the longest time between two ticks, on days without a change of the clocks.

    Measured by the clock on the wall over 400 days (more for what fires less than twice in these): ``0 3 * * *`` is 24
    hours in every zone, ``0 3 * * 1-5`` is 72 hours.

    Raises
    ------
    ScheduleInvalid
        When an expression or the zone is not valid, or there is no expression.
    """
    _zone(timezone, crons)
    return _period(tuple(crons))


def first_shared(crons: Sequence[str], others: Sequence[str]) -> str | None:
    """Return the first time of day, as HH:MM by the clock on the wall, at which both fire in the same minute.

    Looked for in the same 400 days as a period; None where they keep apart.
    """
    first, second = (np.concatenate([_minutes(cron, _MEASURED_DAYS) for cron in each]) for each in (crons, others))
    shared = np.intersect1d(first, second)
    if not len(shared):
        return None
    hour, minute = divmod(int(shared[0]) % 1440, 60)
    return f"{hour:02}:{minute:02}"


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


@lru_cache(maxsize=256)
def _period(crons: tuple[str, ...]) -> timedelta:
    for days in (_MEASURED_DAYS, _MEASURED_DAYS * 9, _MEASURED_DAYS * 46):
        minutes = np.unique(np.concatenate([_minutes(cron, days) for cron in crons]))
        if len(minutes) > 1:
            return timedelta(minutes=int(np.diff(minutes).max()))
    raise ScheduleInvalid(f"cron expression {_quoted(crons)} fires less than twice in fifty years")


def _minutes(cron: str, days: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return when the expression fires, in minutes since the measured stretch began: its days by its times of day."""
    minute, hour, *date_fields = cron.split()
    end = _MEASURED_FROM + timedelta(days=days)
    start = _MEASURED_FROM - timedelta(seconds=1)
    matching = _until(" ".join(["0 0", *date_fields]), start, end)
    times = _until(f"{minute} {hour} * * *", start, _MEASURED_FROM + timedelta(days=1))
    day_starts = np.array([(tick - _MEASURED_FROM).days * 1440 for tick in matching], dtype=np.int64)
    of_day = np.array([(tick - _MEASURED_FROM).seconds // 60 for tick in times], dtype=np.int64)
    return np.add.outer(day_starts, of_day).ravel()


def _until(cron: str, start: datetime, end: datetime) -> list[datetime]:
    found = []
    for tick in _walk(cron, UTC, start):
        if tick >= end:
            break
        found.append(tick)
    return found


def _walk(cron: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Yield the ticks later than ``after`` in UTC, each once and in order.

    An ambiguous local time is read as the first of the two, so that one asked for between the two is already past; and
    several times that a clock change skips fall together: both are left out here.
    """
    last = after
    for local in CronSim(cron, after.astimezone(zone)):
        tick = local.astimezone(UTC)
        if tick > last:
            yield tick
            last = tick


def _last_before(cron: str, zone: tzinfo, before: datetime) -> datetime | None:
    for span in _LOOK_BACK:
        last = None
        for tick in _walk(cron, zone, before - span):
            if tick >= before:
                break
            last = tick
        if last is not None:
            return last
    return None


def _parses(cron: str) -> bool:
    # cronsim answers some malformed fields with other errors than its own.
    try:
        CronSim(cron, _MEASURED_FROM)
    except (CronSimError, ValueError, AssertionError, IndexError, TypeError):
        return False
    return True


def _zone(timezone: str, crons: Sequence[str]) -> tzinfo:
    if not crons:
        raise ScheduleInvalid('there is no cron expression; "0 3 * * *" is every day at 03:00')
    for cron in crons:
        _require_cron_once(cron)
    # cronsim walks UTC without its detours for changing clocks only when it is datetime's own.
    return UTC if timezone in {"UTC", "Etc/UTC"} else require_zone(timezone)


@lru_cache(maxsize=1024)
def _require_cron_once(cron: str) -> None:
    require_cron(cron)


def _in_utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    return instant.astimezone(UTC)


def _fired(found: Iterator[datetime | None], crons: Sequence[str]) -> list[datetime]:
    there = [tick for tick in found if tick is not None]
    if not there:
        raise ScheduleInvalid(f"cron expression {_quoted(crons)} does not fire within fifty years")
    return there


def _quoted(crons: Sequence[str]) -> str:
    return ", ".join(f'"{cron}"' for cron in crons)
