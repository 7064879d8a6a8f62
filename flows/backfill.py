"""The backfill flow: past instants of a pipeline, each scored as it could have been then. Nothing that is served changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flows.score import refuse_queries
from tasks.backfills import Ended, Outcome, PastOrder, score_past
from tasks.database import connect, resolve_source_url, resolve_url
from tasks.errors import UsageError
from tasks.pipeline import Pipeline, find_pipeline
from tasks.runners import LocalRunner, WorkerLost
from tasks.runs import AsOfRefused
from tasks.schedule import next_tick
from tasks.settings import Settings
from tasks.source_server import clock_of_sources
from tasks.usersql import asks_when, judge
from tasks.workers import Place

# More instants than anybody means; ten years of days are 3,653.
MOST_INSTANTS = 100_000
_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class BackfillSummary:
    """What became of the instants that were asked for, oldest first."""

    pipeline: str
    outcomes: tuple[Outcome, ...]
    #: Why what was scored may not be what a run would have given then, one sentence each.
    warnings: tuple[str, ...] = ()

    def ended(self, how: Ended) -> list[Outcome]:
        """Return the instants that ended in one way."""
        return [outcome for outcome in self.outcomes if outcome.ended is how]

    @property
    def exit_code(self) -> int:
        """0 when every instant is there, 1 otherwise."""
        return 0 if all(outcome.ended in {Ended.DONE, Ended.KEPT} for outcome in self.outcomes) else 1

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON can hold it."""
        return asdict(self)


def backfill(
    settings: Settings,
    name: str,
    instants: Sequence[datetime],
    *,
    version: int | None = None,
    as_then: bool = False,
    again: bool = False,
    workers: int = 1,
    shuffle: bool = False,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> BackfillSummary:
    """Score past instants into generations of their own, in the order given or any other; those that are done are kept.

    Parameters
    ----------
    version, as_then
        The number of the model version; or that which the alias named at each instant. Without them, what it names now.
    again
        Score instants anew that are done with the same model version and logic.
    workers
        How many are scored at once: one in this process, several in processes of their own.
    shuffle
        Take them in a random order, so that what is there so far is spread over the whole time.
    told
        Called with the outcome of each instant when it is known.

    Raises
    ------
    AsOfRefused
        When an instant is later than the clock.
    """
    pipeline = find_pipeline(settings, name)
    refuse_queries(pipeline)
    url = resolve_url(settings)
    place = Place(url=url, source_url=resolve_source_url(settings, url), pipelines=settings.pipelines_dir)
    _refuse_future(place, instants)
    how: dict[str, Any] = {
        "version": version,
        "as_then": as_then,
        "again": again,
        "compiled_dir": settings.compiled_dir,
    }
    orders = [PastOrder(pipeline=name, as_of=at, **how) for at in instants]
    if shuffle:
        random.shuffle(orders)
    outcomes = []
    for outcome in _score_all(orders, place, min(workers, len(orders))):
        told(outcome)
        outcomes.append(outcome)
    found = tuple(sorted(outcomes, key=lambda outcome: outcome.as_of))
    return BackfillSummary(pipeline=name, outcomes=found, warnings=tuple(_not_of_the_past(pipeline)))


def _not_of_the_past(pipeline: Pipeline) -> Iterator[str]:
    """Yield what the queries cannot give back of the past."""
    query = pipeline.entity.query
    if not asks_when(query):
        yield (
            f"{pipeline.name}/{query.origin} lists the entities of today for every instant: it does not ask run.as_of. Add "
            "FROM run, and restrict it to who was there then"
        )
    for each in filter(None, (query, pipeline.features.query)):
        for finding in judge(each, "run" if each is query else "batch"):
            if finding.code == "clock":
                yield f"{pipeline.name}/{finding.message}"


def choose_instants(pipeline: Pipeline, since: str, until: str, every: timedelta | None = None) -> list[datetime]:
    """Return the past instants that two words and a step mean, oldest first, in UTC.

    Words are dates or instants in ISO 8601; without a zone they are of the time zone of the schedule. A date as the end is
    meant whole. Without a step, instants are the ticks of the full schedule; without one, days from the first instant on. A
    step of whole days keeps the time of day when clocks change.

    Raises
    ------
    UsageError
        When a word means no instant, or both mean none or more than ``MOST_INSTANTS``.
    """
    zone = ZoneInfo(pipeline.schedule.timezone)
    first, last = _instant(since, zone), _instant(until, zone, whole_day=True)
    found: list[datetime] = []
    for instant in _steps(pipeline, first, last, every, zone):
        found.append(instant.astimezone(UTC))
        if len(found) > MOST_INSTANTS:
            raise UsageError(
                f"--from {since} --to {until} are more than {MOST_INSTANTS:,} instants. Nothing was started. Take a larger "
                "--every, or less at a time."
            )
    if not found:
        raise UsageError(f"--from {since} --to {until} hold no instant. Nothing was started. Correct them, or --every.")
    return found


def _steps(
    pipeline: Pipeline, first: datetime, last: datetime, every: timedelta | None, zone: ZoneInfo
) -> Iterator[datetime]:
    if every is None and pipeline.schedule.full:
        instant = next_tick(pipeline.schedule.full, pipeline.schedule.timezone, first - timedelta(microseconds=1))
        while instant <= last:
            yield instant
            instant = next_tick(pipeline.schedule.full, pipeline.schedule.timezone, instant)
        return
    step = every or _DAY
    by_calendar = step % _DAY == timedelta(0)
    local, at, count = first.astimezone(zone), first, 0
    while at <= last:
        yield at
        count += 1
        # Arithmetic of one zone keeps the time of day, that in UTC what has passed.
        at = (local + count * step).astimezone(UTC) if by_calendar else first.astimezone(UTC) + count * step


def _instant(text: str, zone: ZoneInfo, *, whole_day: bool = False) -> datetime:
    try:
        if len(text) == len("2026-03-01"):
            day = date.fromisoformat(text) + (_DAY if whole_day else timedelta(0))
            midnight = datetime.combine(day, time(), zone)
            return midnight.astimezone(UTC) - (timedelta(microseconds=1) if whole_day else timedelta(0))
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is neither a date nor an instant. Nothing was started. Write 2026-03-01 or 2026-03-01T03:00+01:00."
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=zone)


def _refuse_future(place: Place, instants: Sequence[datetime]) -> None:
    with connect(place.url) as connection:
        now = clock_of_sources(connection, place.source_url)
        connection.rollback()
    late = [instant for instant in instants if instant > now]
    if late:
        raise AsOfRefused(
            f"{len(late)} of {len(instants)} instants are later than the clock, {now:%Y-%m-%d %H:%M:%S%z}; the first is "
            f"{min(late):%Y-%m-%d %H:%M:%S%z}. Nothing was started. Let --to be in the past."
        )


def _score_all(orders: Sequence[PastOrder], place: Place, workers: int) -> Iterator[Outcome]:
    if workers <= 1:
        for order in orders:
            yield score_past(order, place)
        return
    runner = LocalRunner(workers, place, score_past)
    try:
        waiting = {runner.submit(order): order for order in orders}
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                order = waiting.pop(future)
                try:
                    yield future.result()
                except WorkerLost as lost:
                    yield Outcome(as_of=order.as_of, ended=Ended.FAILED, message=str(lost))
    finally:
        runner.close()
