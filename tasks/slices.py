"""Slices: what arrived in a source between two instants, how much usually does, and what came behind the last look.

A slice goes from a scheduled publication to the run that looks. Slices are counted by the source's watermark, in the
snapshot of the run, and kept with the run's checks.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tasks.database import literal, load_query, one, quote, rows
from tasks.pipeline import Pipeline, Source
from tasks.runs import Snapshot
from tasks.transport import Session
from tasks.usersql.naming import written

#: Slices whose median is the usual one.
SLICES = 8
#: Fewer slices of the slot than this say nothing.
NEEDED = 2
#: A publication counts as the beginning of a slice when it lies so much of a usual slice back: a run by hand between two
#: loads would otherwise look at hours in which nothing is expected. The day of 23 hours in spring is 0.958 of the others.
SHARE_OF_USUAL = 0.95
#: How far back the counted window of late rows reaches beyond late_by, at least.
LEAST_LOOK_BACK = timedelta(hours=1)

# What two instants have in common that are in one slot, as a format of to_char.
_SLOTS = {"none": '"all"', "hour": "HH24", "weekday": "ID", "hour_of_week": "ID HH24", "month": "MM"}
# An identifier in quotes that may do without them.
_QUOTED = re.compile(r'"([a-z_][a-z0-9_]*)"')
# How far back slices are looked for: eight weeks hold eight slices of a weekday, with some that failed between them.
_HISTORY = timedelta(days=120)
_HISTORY_OF_MONTHS = timedelta(days=800)


@dataclass(frozen=True, kw_only=True)
class Watermark:
    """The watermark column of a source, as SQL."""

    source: Source
    #: SQL type of the column.
    postgres_type: str

    @classmethod
    def describe(cls, session: Session, source: Source) -> Watermark:
        """Ask the catalogue for the column.

        Raises
        ------
        LookupError
            When table or column is not there.
        """
        fragments = {"relation": literal(relation(source.name)), "attribute": literal(source.watermark)}
        found = session.table(load_query("describe_watermark", fragments), f"[[source]] {source.name}").to_pylist()
        if not found:
            raise LookupError(f"{source.name} has no column {source.watermark}, or is not there")
        return cls(source=source, postgres_type=found[0]["type"])

    @property
    def naive(self) -> bool:
        """Whether the column has no time zone of its own."""
        return self.postgres_type in {"timestamp without time zone", "date"}

    @property
    def expression(self) -> str:
        """The column as an instant."""
        column = f"source.{quote(self.source.watermark)}"
        zone = literal(self.source.zone or "UTC")
        return f"({column}::timestamp AT TIME ZONE {zone})" if self.naive else column

    def between(self, since: datetime | None, until: datetime) -> str:
        """Return the condition that a row's watermark is later than ``since`` and not later than ``until``.

        An index on the column serves it: where the column has no zone, it is compared as it stands too, with a margin for
        the hours that clocks are put forward and back.
        """
        parts = [] if since is None else [f"{self.expression} > {literal(since)}"]
        parts.append(f"{self.expression} <= {literal(until)}")
        if self.naive:
            column, zone = f"source.{quote(self.source.watermark)}", literal(self.source.zone or "UTC")
            if since is not None:
                parts.append(f"{column} > {literal(since)} AT TIME ZONE {zone} - interval '26 hours'")
            parts.append(f"{column} <= {literal(until)} AT TIME ZONE {zone} + interval '26 hours'")
        return " AND ".join(parts)

    @property
    def digest(self) -> str:
        """What decides which rows are counted; counts of another digest cannot be compared."""
        counted = [self.source.name, self.source.watermark, self.source.zone, self.source.filter]
        return hashlib.sha256(json.dumps(counted).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What arrived in a source."""

    #: None at the beginning: everything counts.
    since: datetime | None
    until: datetime
    rows: int
    #: The slices before it, newest first.
    before: tuple[Past, ...] = ()

    @property
    def hours(self) -> float | None:
        """Length in hours."""
        return None if self.since is None else (self.until - self.since) / timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Past:
    """A slice of an earlier run that was published by its schedule."""

    as_of: datetime
    #: None where it was not counted, or failed.
    rows: int | None
    hours: float | None
    same_slot: bool


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What usually arrives: medians over slices."""

    rows: float
    hours: float
    slices: int
    #: slot: of the same weekday or hour; fallback: of any, for want of them.
    baseline: str

    def ratio(self, rows: int, hours: float) -> float:
        """Return how many rows arrived as a share of the usual: by count or by rate, whichever is nearer to 1.

        They differ only where a slice is longer or shorter than usual. One load a day is one load then, a stream of rows is
        more or fewer by the hour; a source is the one or the other.
        """
        by_count = rows / self.rows
        by_rate = by_count * self.hours / hours if hours else by_count
        return min(by_count, by_rate, key=lambda ratio: max(ratio, 1 / ratio) if ratio else float("inf"))


def relation(name: str) -> str:
    """Return ``schema.table`` quoted for SQL."""
    return ".".join(quote(part) for part in name.split("."))


def past_slices(
    connection: sa.Connection, pipeline: Pipeline, watermark: Watermark, as_of: datetime
) -> tuple[Past, ...]:
    """Return slices of runs that their schedule published, newest first: some of the same slot, and some of any.

    What was waived, undone or quarantined is left out. A slice that only warned counts: else a business that grew by a
    fifth would be told of it for ever.
    """
    slot = "none" if watermark.source.rows is None else watermark.source.rows.slot
    found = rows(
        connection,
        "list_slices",
        pipeline=pipeline.name,
        source=watermark.source.name,
        digest=watermark.digest,
        as_of=as_of,
        since=as_of - (_HISTORY_OF_MONTHS if slot == "month" else _HISTORY),
        zone=pipeline.schedule.timezone,
        slot=_SLOTS[slot],
        slices=SLICES,
    )
    return tuple(Past(as_of=r.as_of, rows=r.rows, hours=r.hours, same_slot=r.same_slot) for r in found)


def usual(past: Sequence[Past]) -> Usual | None:
    """Return the medians of the last slices of the same slot, of any slot where there are too few, None without any."""
    counted = [each for each in past if each.rows is not None and each.hours]
    same = [each for each in counted if each.same_slot][:SLICES]
    taken, baseline = (same, "slot") if len(same) >= NEEDED else (counted[:SLICES], "fallback")
    if not taken:
        return None
    return Usual(
        rows=statistics.median(each.rows for each in taken if each.rows is not None),
        hours=statistics.median(each.hours for each in taken if each.hours),
        slices=len(taken),
        baseline=baseline,
    )


def slice_begins(past: Sequence[Past], until: datetime) -> datetime | None:
    """Return where the new slice begins: at the last publication that lies about a usual slice back."""
    if not past:
        return None
    known = usual(past)
    latest = until - timedelta(hours=SHARE_OF_USUAL * known.hours) if known else until
    return next((each.as_of for each in past if each.as_of <= latest), past[-1].as_of)


def count_slice(session: Session, watermark: Watermark, since: datetime | None, until: datetime) -> int:
    """Count the rows of a source in a slice, in the session's snapshot."""
    found = session.table(slice_sql(watermark, since, until), f"[[source]] {watermark.source.name}")
    count: int = found.column("rows")[0].as_py()
    return count


def slice_sql(watermark: Watermark, since: datetime | None, until: datetime) -> str:
    """Return the statement that counts the rows of a slice."""
    source = watermark.source
    fragments = {
        "source": relation(source.name),
        "between": watermark.between(since, until),
        "condition": source.filter or "true",
    }
    return load_query("count_slice", fragments)


def absent_values(session: Session, watermark: Watermark, since: datetime | None, until: datetime) -> tuple[int, int]:
    """Return how many values a slice has to hold (``every`` of the source), and how many of them are absent."""
    statement = absent_values_sql(watermark, since, until)
    row = session.table(statement, f"[[source]] {watermark.source.name}.every").to_pylist()[0]
    return row["expected"], row["absent"]


def absent_values_sql(watermark: Watermark, since: datetime | None, until: datetime) -> str:
    """Return the statement that counts the values which a slice lacks."""
    return load_query("count_absent_values", _every_fragments(watermark, since, until))


def list_absent_values(watermark: Watermark, since: datetime | None, until: datetime) -> str:
    """Return the query that lists the values which a slice lacks, as people write it: on one line, if it has no filter."""
    text = load_query("list_absent_values", _every_fragments(watermark, since, until))
    if watermark.source.filter:  # which may hold a comment, and quotes of its own
        return text
    return _QUOTED.sub(lambda found: written(found[1]), " ".join(text.split()).replace("( true ) AND ", ""))


def _every_fragments(watermark: Watermark, since: datetime | None, until: datetime) -> dict[str, str]:
    source = watermark.source
    assert source.every is not None
    return {
        "source": relation(source.name),
        "reference": relation(source.every.from_),
        "column": quote(source.every.column),
        "between": watermark.between(since, until),
        "condition": source.filter or "true",
    }


# Rows that come late -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Window:
    """The rows before a run's as_of that it counted, to be counted again by the next one.

    ``begins`` .. ``reached`` lies behind what changes.sql is asked for again, ``reached`` .. ``until`` is asked for again.
    """

    begins: datetime
    reached: datetime
    until: datetime

    @classmethod
    def of(cls, pipeline: Pipeline, snapshot: Snapshot) -> Window:
        """Return the window of a run."""
        late_by = max((source.late_by for source in pipeline.sources), default=timedelta(0))
        reached = min(snapshot.watermark - late_by, snapshot.as_of)
        return cls(begins=reached - max(late_by, LEAST_LOOK_BACK), reached=reached, until=snapshot.as_of)


@dataclass(frozen=True, kw_only=True)
class Late:
    """What was counted of a source around the last publication and since."""

    #: Of this run's window: rows behind ``reached``, and from there on.
    behind: int
    within: int
    #: Of the last publication's window, counted again; None without one.
    behind_again: int | None
    within_again: int | None
    #: Rows since the last publication's as_of.
    arrived: int


def count_late(session: Session, watermark: Watermark, window: Window, last: Window | None) -> Late:
    """Count the windows of this run and of the last publication, in one look at the end of the source."""
    source, at = watermark.source, watermark.expression
    counts = {"behind": (window.begins, window.reached), "within": (window.reached, window.until)}
    if last is not None:
        counts["behind_again"] = (last.begins, last.reached)
        counts["within_again"] = (last.reached, last.until)
    since = window.until if last is None else last.until
    counts["arrived"] = (since, window.until)
    parts = (
        f"count(*) FILTER (WHERE {at} > {literal(after)} AND {at} <= {literal(until)}) AS {quote(name)}"
        for name, (after, until) in counts.items()
    )
    fragments = {
        "counts": ", ".join(parts),
        "source": relation(source.name),
        "between": watermark.between(min(window.begins, window.begins if last is None else last.begins), window.until),
        "condition": source.filter or "true",
    }
    row = session.table(load_query("count_late", fragments), f"[[source]] {source.name}").to_pylist()[0]
    return Late(**{"behind_again": None, "within_again": None, **row})


def last_counted(connection: sa.Connection, generation_id: int, check_id: str, subject: str) -> Mapping[str, Any]:
    """Return the evidence that a check kept in the run of a generation; empty when it was not asked."""
    found = one(connection, "find_evidence", generation_id=generation_id, check_id=check_id, subject=subject)
    return {} if found is None else dict(found.evidence)
