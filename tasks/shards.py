"""Shards: key ranges of a full run, each in a transaction of its own; what is written down of them, and what is kept.

A shard is finished in the transaction of its rows, so that both are there or neither. That is what lets a worker die, a
second one begin the same shard, and a later run go on where this one ended.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import ceil
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tasks import plans, tallies
from tasks.columns import key_hash
from tasks.database import connect, literal, load_query, quote, rows
from tasks.errors import PrescoreError
from tasks.features import read_population_sql
from tasks.key_ranges import Counted, KeyRange, between, bounds_literal, counted
from tasks.population import Mode, Selection, count_ranges, cut
from tasks.readers import Objects
from tasks.runs import Status
from tasks.transport import open_reading_session

if TYPE_CHECKING:
    from tasks.declaration import Execution
    from tasks.features import FeatureContract
    from tasks.pipeline import Pipeline
    from tasks.registry import ModelVersion
    from tasks.runs import Run
    from tasks.scoring import Scorer, Tally
    from tasks.transport import Session

logger = logging.getLogger(__name__)

# Keys of a shard where nothing is declared: some seconds of work, beside which opening sessions and planning (0.1 s) do not
# count, and little to do again when a worker dies.
SHARD_ROWS = 500_000
# Shards per worker at least: the last ones end together within a quarter of a worker's time.
SHARDS_PER_WORKER = 4
# No shard of fewer keys is cut for that: it would be mostly overhead.
LEAST_ROWS = 10_000
# What all shards together may cost, by the planner's reckoning, as a multiple of one statement for all keys.
MOST_COST = 2.0
# A shard of a dead run is kept while its data is younger than this share of [serve] aging_after: what is published with it
# is then fresh for half of the promised time at least.
KEPT_SHARE = 0.5

# Runs that left shards which may be right; what a run held or aborted for would be so again.
_LEFT_BY = {Status.CRASHED.value, Status.FAILED.value, Status.CANCELLED.value}


class ShardTaken(PrescoreError):
    """Another worker finished the shard, or took it over: there is nothing left to do."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        super().__init__(
            f"Shard {shard} is another worker's by now. What this one wrote of it does not count; the run goes on. There "
            "is nothing to do."
        )


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A range of the population's keys."""

    number: int
    range: KeyRange
    counted: Counted

    def of(self, selection: Selection) -> Selection:
        """Return the part of a full run's selection that lies in this shard."""
        return replace(selection, population=self.counted.keys, key_checksum=self.counted.key_checksum, only=self.range)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a run that ended badly left, and this one goes on with."""

    run_id: int
    generation_id: int
    numbers: tuple[int, ...]
    #: What was counted while they were scored, as tallies.py writes it.
    tallies: tuple[str, ...] = field(repr=False)
    keys: int
    #: The earliest of theirs: what is published with them promises no more.
    as_of: datetime
    watermark: datetime
    data_as_of: datetime


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a full run is cut; no shards means one stream."""

    shards: tuple[Shard, ...] = ()
    kept: Kept | None = None
    #: Why it is one stream although shards were declared; empty otherwise.
    because: str = ""

    @property
    def open(self) -> tuple[Shard, ...]:
        """Shards that have to be scored."""
        kept = () if self.kept is None else self.kept.numbers
        return tuple(shard for shard in self.shards if shard.number not in kept)

    def kept_condition(self, expression: str) -> str | None:
        """Return the SQL condition that a first key column lies in a kept shard; None when none is kept."""
        if self.kept is None:
            return None
        ranges = [shard.range for shard in self.shards if shard.number in self.kept.numbers]
        return " OR ".join(f"({range_.condition(expression)})" for range_ in ranges)

    @property
    def told(self) -> str:
        """What people are told about it in the message of the run."""
        if self.because:
            return f" Scored as one stream: {self.because}."
        if self.kept is not None:
            count = len(self.kept.numbers)
            return (
                f" {count:,} of {len(self.shards):,} shards ({self.kept.keys:,} rows) were kept of run {self.kept.run_id}, "
                f"as of {self.kept.as_of:%Y-%m-%d %H:%M:%S} UTC."
            )
        return ""


ONE_STREAM = Layout()


# Cutting ------------------------------------------------------------------------------------------------------------


def lay_out(
    run: Run,
    scorer: Scorer,
    model: ModelVersion,
    objects: Objects,
    session: Session,
    selection: Selection,
    storage_id: int,
) -> Layout:
    """Decide how a run is scored: in shards, some of them kept of a run before, or as one stream."""
    execution = run.pipeline.execution
    if selection.mode is not Mode.FULL or not execution.sharded or not selection.population:
        return ONE_STREAM
    if scorer.contract.dataset is not None:
        return Layout(because="its features come from files, which every shard would read from end to end")
    assert run.snapshot is not None
    if scorer.contract.dataset is not None:
        return Layout(because="the features come from files, which are read once for everybody")
    left = _left(run, model, storage_id)
    if left:
        layout = _go_on(run, scorer, objects, session, left, storage_id)
        if layout is not None:
            return layout
    parts = count_of(execution, selection.population)
    bounds = cut(session, run.pipeline, scorer.contract.key, run.snapshot.as_of, parts, selection.population)
    why = "there are too few keys to cut"
    if bounds:
        why = why_one_stream(session, run.pipeline, scorer.contract, run.snapshot.as_of, bounds)
    if why:
        logger.warning("%s is scored as one stream: %s", run.pipeline.name, why, extra={"run_id": run.run_id})
        return Layout(because=why)
    return Layout(shards=_shards(session, scorer, run.snapshot.as_of, bounds))


def count_of(execution: Execution, population: int) -> int:
    """Return how many shards a population is cut into: as declared, else by its size and the workers."""
    if execution.shards is not None:
        return execution.shards
    if execution.shard_rows is not None:
        return max(1, ceil(population / execution.shard_rows))
    busy = min(SHARDS_PER_WORKER * execution.workers, population // LEAST_ROWS)
    return max(2, busy, ceil(population / SHARD_ROWS))


def why_one_stream(
    session: Session, pipeline: Pipeline, contract: FeatureContract, as_of: datetime, bounds: Sequence[str]
) -> str:
    """Return why shards would not pay, by the planner's word for one of them; an empty text when they do.

    They pay where a shard reads its part of the sources. PostgreSQL does not carry a range of keys through a join: a shard
    whose plan reads large tables whole costs nearly as much as all of them.
    """
    ranges = between(contract.key[0], bounds)
    origin = pipeline.features.origin
    one = plans.explain(session, read_population_sql(pipeline, contract, as_of, ranges[len(ranges) // 2]), origin)
    whole = plans.read_from_end_to_end(one)
    if not whole:
        return ""
    everything = plans.explain(session, read_population_sql(pipeline, contract, as_of), origin)
    times = one.cost * len(ranges) / max(everything.cost, 1.0)
    if times <= MOST_COST:
        return ""
    tables = ", ".join(sorted(relation.shown for relation in whole))
    return (
        f"{origin} does not carry the range of keys, one of {len(ranges)} shards would read all of {tables}, and all of them "
        f"would cost {times:.1f} times one stream"
    )


def _shards(session: Session, scorer: Scorer, as_of: datetime, bounds: Sequence[str]) -> tuple[Shard, ...]:
    key = scorer.contract.key
    counts = count_ranges(session, scorer.pipeline, key, as_of, bounds)
    return tuple(
        Shard(number=number, range=range_, counted=found)
        for number, (range_, found) in enumerate(zip(between(key[0], bounds), counts, strict=True), 1)
    )


# Keeping ------------------------------------------------------------------------------------------------------------


def _left(run: Run, model: ModelVersion, storage_id: int) -> list[Any]:
    """Return the shards that the last run into this storage left, when it scored with the same model and logic."""
    values = {"pipeline": run.pipeline.name, "storage_id": storage_id}
    found = rows(run.connection, "list_left_shards", **values)
    run.connection.rollback()
    same = (model.name, model.version, run.pipeline.logic_digest)
    if not found or found[0].status not in _LEFT_BY:
        return []
    return found if (found[0].model, found[0].model_version, found[0].logic_digest) == same else []


def _go_on(
    run: Run, scorer: Scorer, objects: Objects, session: Session, left: Sequence[Any], storage_id: int
) -> Layout | None:
    """Return the layout of a dead run with those of its finished shards that are right still; None when none is."""
    assert run.snapshot is not None
    bounds = [row.upper for row in left[:-1]]
    shards = _shards(session, scorer, run.snapshot.as_of, bounds)
    stored = _stored(run, objects, bounds, storage_id, left[0].generation_id)
    if any(row.counted is not None and tallies.is_doubtful(row.counted) for row in left):
        return None
    kept = [
        row
        for row, shard, there in zip(left, shards, stored, strict=True)
        if row.state == "finished" and there == shard.counted and _young(run, row)
    ]
    if not kept:
        return None
    logger.info(
        "%d of %d shards of run %d are kept",
        len(kept),
        len(left),
        left[0].run_id,
        extra={"run_id": run.run_id},
    )
    return Layout(
        shards=shards,
        kept=Kept(
            run_id=left[0].run_id,
            generation_id=left[0].generation_id,
            numbers=tuple(row.shard for row in kept),
            tallies=tuple(row.counted for row in kept),
            keys=sum(row.rows for row in kept),
            as_of=min(row.as_of for row in kept),
            watermark=min(row.watermark for row in kept),
            data_as_of=min(row.data_as_of for row in kept),
        ),
    )


def _young(run: Run, row: Any) -> bool:
    """Whether rows of an earlier as_of may be published with this run's."""
    assert run.snapshot is not None
    asked, as_of = run.snapshot.requested, run.snapshot.as_of
    if asked or row.as_of >= as_of:
        return bool(row.as_of == as_of)
    return bool(as_of - row.data_as_of <= run.pipeline.serve.aging_after * KEPT_SHARE)


def _stored(run: Run, objects: Objects, bounds: Sequence[str], storage_id: int, generation_id: int) -> list[Counted]:
    fragments = {
        "storage": objects.storage(storage_id),
        "first_key": quote(objects.key[0].name),
        "key_hash": key_hash(objects.key),
        "bounds": bounds_literal(objects.key[0], bounds),
        "generation_id": literal(generation_id),
    }
    with open_reading_session(run.url) as session:
        found = session.table(load_query("count_stored_shards", fragments), "Counting what a dead run left")
    return counted(found, len(bounds) + 1)


def adopt(run: Run, layout: Layout) -> None:
    """Let the run go on as the one whose shards it keeps: under its generation, with its watermark.

    The rows that are kept say which generation they were scored in, so that is what is published. What changed since the
    dead run's watermark is scored again by the next incremental run.
    """
    assert run.snapshot is not None
    if layout.kept is None:
        return
    run.generation_id = layout.kept.generation_id
    run.record(generation_id=run.generation_id)
    run.snapshot = replace(run.snapshot, watermark=min(run.snapshot.watermark, layout.kept.watermark))


# Writing down -------------------------------------------------------------------------------------------------------


def record(run: Run, layout: Layout, storage_id: int, data_as_of: datetime) -> None:
    """Write down the shards that have to be scored; those that are kept were taken over when the storage was cleared."""
    assert run.snapshot is not None
    values = [
        {
            "run_id": run.run_id,
            "shard": shard.number,
            "pipeline": run.pipeline.name,
            "storage_id": storage_id,
            "lower": shard.range.lower,
            "upper": shard.range.upper,
            "keys": shard.counted.keys,
            "key_checksum": shard.counted.key_checksum,
            "as_of": run.snapshot.as_of,
            "watermark": run.snapshot.watermark,
            "data_as_of": data_as_of,
        }
        for shard in layout.open
    ]
    if values:
        run.connection.execute(sa.text(load_query("insert_shard")), values)
    run.connection.commit()


def take_over(connection: sa.Connection, run_id: int, kept: Kept) -> None:
    """Let kept shards belong to this run, in the open transaction."""
    values = [{"from_run": kept.run_id, "run_id": run_id, "shard": number} for number in kept.numbers]
    connection.execute(sa.text(load_query("adopt_shard")), values)


def forget(connection: sa.Connection, pipeline: str, storage_id: int, but_of: int | None = None) -> None:
    """Forget the shards of a storage whose rows go, in the open transaction."""
    values = {"pipeline": pipeline, "storage_id": storage_id, "run_id": but_of}
    connection.execute(sa.text(load_query("forget_shards")), values)


def add_up(url: str, run_id: int, layout: Layout, tally: Tally) -> bool:
    """Add what was counted of every shard to the tally of the run; return whether compiled code was found to differ.

    Raises
    ------
    PrescoreError
        When a shard is not finished: then the run must not go on.
    """
    with connect(url) as connection:
        found = rows(connection, "list_shards", run_id=run_id)
    finished = {row.shard: row.counted for row in found if row.state == "finished"}
    missing = [shard.number for shard in layout.shards if shard.number not in finished]
    if missing:
        raise PrescoreError(
            f"{len(missing):,} of {len(layout.shards):,} shards are not finished although their workers said so. Nothing was "
            "published; the last good publication is still served. Run again: finished shards are kept."
        )
    for number in sorted(finished):
        tallies.add(tally, finished[number])
    return any(tallies.is_doubtful(written) for written in finished.values())


class ShardBooks:
    """What a worker writes down of one shard: that it begins, and in the transaction of the rows, that it is finished."""

    def __init__(self, run_id: int, shard: int, scorer: Scorer) -> None:
        self.run_id, self.shard, self.scorer = run_id, shard, scorer
        self.attempt = 0

    def open(self, writer: Session) -> None:
        """Claim the shard for all to see, begin the transaction, and hold the shard until its end.

        Raises
        ------
        ShardTaken
            When it is finished, or another worker took it over.
        """
        fragments = {"run_id": literal(self.run_id), "shard": literal(self.shard)}
        owner = literal(f"{socket.gethostname()}:{os.getpid()}")
        claimed = writer.table(load_query("claim_shard", {**fragments, "owner": owner}), "Claiming a shard")
        if not claimed.num_rows:
            raise ShardTaken(self.shard)
        self.attempt = int(claimed.column("attempt")[0].as_py())
        writer.execute("BEGIN")
        held = load_query("hold_shard", {**fragments, "attempt": literal(self.attempt)})
        if not writer.table(held, "Holding a shard").num_rows:
            raise ShardTaken(self.shard)

    def close(self, writer: Session, tally: Tally) -> None:
        """Write down that the shard is finished, with what was counted."""
        fragments = {
            "run_id": literal(self.run_id),
            "shard": literal(self.shard),
            "rows": literal(tally.rows),
            "rejected": literal(tally.rejected),
            "counted": literal(tallies.write(tally, doubtful=self.scorer.doubtful)),
        }
        writer.execute(load_query("finish_shard", fragments), "Writing down a shard")
