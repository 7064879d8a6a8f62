"""What readers were served when: publications one after the other, and the states that each went through.

The states are those of prescore.pipeline_health, worked out for instants that have passed; a test holds both together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from tasks.database import rows

#: Data from further ahead of the clock than this is a clock error, as in prescore.pipeline_health.
FORGIVEN = timedelta(minutes=5)

#: Publications that a rollback could return to, one after the other.
REMEMBERED = 50

#: States in which readers get no prediction.
WITHHELD = frozenset({"missing", "quarantined", "clock_error", "expired"})


@dataclass(frozen=True, kw_only=True)
class Publication:
    """One publication with its promise. Times are by prescore.clock()."""

    generation_id: int
    run_id: int
    published_at: datetime
    #: The instant that its run looked at the data from.
    as_of: datetime
    data_as_of: datetime
    aging_at: datetime
    stale_at: datetime
    expires_at: datetime
    model_aging_at: datetime
    model_stale_at: datetime
    #: Worst verdict of the checks that flag a publication.
    verdict: str
    #: When a rollback took it back; None otherwise.
    undone_at: datetime | None = None
    #: From when it is known to be bad; None when it is not.
    quarantined_at: datetime | None = None

    @classmethod
    def from_row(cls, row: Any) -> Publication:
        """Return the publication of a row of list_publications.sql."""
        return cls(**{field.name: getattr(row, field.name) for field in fields(cls) if hasattr(row, field.name)})

    def state_at(self, instant: datetime) -> str:
        """Return what a reader of an ordinary row saw at an instant."""
        if self.quarantined_at is not None and instant >= self.quarantined_at:
            return "quarantined"
        if instant < max(self.data_as_of, self.as_of) - FORGIVEN:
            return "clock_error"
        if instant >= self.expires_at:
            return "expired"
        if instant >= min(self.stale_at, self.model_stale_at):
            return "stale"
        if instant >= min(self.aging_at, self.model_aging_at) or self.verdict != "pass":
            return "aging"
        return "fresh"

    def turns(self) -> Iterator[datetime]:
        """Yield the instants at which its state may change."""
        yield max(self.data_as_of, self.as_of) - FORGIVEN
        yield from (self.aging_at, self.model_aging_at, self.stale_at, self.model_stale_at, self.expires_at)
        if self.quarantined_at is not None:
            yield self.quarantined_at


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of time, ``since <= t < until``, in which readers saw one state of one publication."""

    since: datetime
    until: datetime
    state: str
    #: None before the first publication.
    publication: Publication | None

    @property
    def length(self) -> timedelta:
        """How long it was."""
        return self.until - self.since


def read_publications(connection: sa.Connection, pipeline: str, since: datetime | None = None) -> list[Publication]:
    """Return what was published since an instant by prescore.clock(), and what was served then, oldest first."""
    return [Publication.from_row(row) for row in rows(connection, "list_publications", pipeline=pipeline, since=since)]


def spans(publications: Iterable[Publication], since: datetime, until: datetime) -> list[Span]:
    """Return what readers saw from ``since`` to ``until``, without gaps, oldest first.

    What is served is the newest publication that was not undone yet; before the first one the state is missing.
    """
    found: list[Span] = []
    for begin, end, served in _reigns(publications, since, until):
        turns = {begin, end} if served is None else {begin, end, *served.turns()}
        for start, stop in pairwise(sorted(turn for turn in turns if begin <= turn <= end)):
            state = "missing" if served is None else served.state_at(start)
            goes_on = bool(found) and found[-1].state == state and found[-1].publication is served
            since_when = found.pop().since if goes_on else start
            found.append(Span(since=since_when, until=stop, state=state, publication=served))
    return found


def _reigns(
    publications: Iterable[Publication], since: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime, Publication | None]]:
    """Yield which publication was served from when to when; a rollback lets an earlier one be served again."""
    moves: list[tuple[datetime, int, Publication]] = []
    for publication in publications:
        moves.append((publication.published_at, publication.generation_id, publication))
        if publication.undone_at is not None:
            moves.append((publication.undone_at, publication.generation_id, publication))
    standing: list[tuple[int, Publication]] = []
    begin = since
    for at, generation_id, publication in sorted(moves, key=lambda move: move[:2]):
        served = standing[0][1] if standing else None
        if begin < at:
            yield begin, min(at, until), served
            begin = at
        if begin >= until:
            return
        if at == publication.undone_at:
            standing = [each for each in standing if each[1] is not publication]
        else:
            # Only what a rollback may return to is remembered: it goes back a publication or two.
            standing = sorted([(generation_id, publication), *standing[:REMEMBERED]], key=lambda each: -each[0])
    if begin < until:
        yield begin, until, standing[0][1] if standing else None


def time_in_states(found: Iterable[Span]) -> dict[str, timedelta]:
    """Return how long each state was seen."""
    lengths: dict[str, timedelta] = {}
    for span in found:
        lengths[span.state] = lengths.get(span.state, timedelta(0)) + span.length
    return lengths
