"""Publication: the one transaction that moves head over the storages of a pipeline.

Readers see the publication before or the one after, in every isolation level; nothing waits for them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg2
import sqlalchemy as sa

from tasks import ledger, row_history
from tasks.announcements import Event, announce
from tasks.columns import key_arrays, key_hash
from tasks.database import clock, load_query, one, quote, raw_execute
from tasks.faults import reached
from tasks.features import KEYS_PER_QUERY
from tasks.fingerprints import FINGERPRINT
from tasks.freshness import Promise, without_days
from tasks.pipeline import Pipeline
from tasks.population import LedgerMismatch, Mode, Selection, Served
from tasks.readers import (
    STORAGES,
    Objects,
    create,
    drop_retired,
    keep_fingerprints,
    record_objects,
    replace_outdated,
    stored,
)
from tasks.reshaping import add_outputs, compare, reshape
from tasks.roles import share_with_operators
from tasks.rollback import move_head, quarantined_in
from tasks.runs import Fenced, Run, Status, Trigger, refuse_renamed
from tasks.schedule import next_tick, period
from tasks.storages import replace_shared_indexes, watch
from tasks.transport import quoted_table

logger = logging.getLogger(__name__)

# Rejected keys listed per run; the count is always exact.
MOST_REJECTIONS = 100_000


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a publication was."""

    generation_id: int
    mode: Mode
    storage_id: int
    rows: int
    inserted: int
    removed: int


def served(connection: sa.Connection, pipeline: str) -> Served | None:
    """Return what head serves, or None before the first publication."""
    found = head(connection, pipeline)
    if found is None:
        return None
    return Served(
        storage_id=found.storage_id,
        generation_id=found.generation_id,
        watermark=found.watermark,
        model=found.model,
        model_version=found.model_version,
        logic_digest=found.logic_digest,
        valid_since=found.valid_since,
        rows=found.rows,
        key_checksum=found.key_checksum,
        fingerprints=_keeps_fingerprints(connection, pipeline),
        quarantined=tuple(found.quarantined),
    )


def _keeps_fingerprints(connection: sa.Connection, pipeline: str) -> bool:
    relation = quoted_table("prescore_rows", pipeline)
    return bool(one(connection, "has_column", relation=relation, name=FINGERPRINT.name).there)


def head(connection: sa.Connection, pipeline: str) -> Any:
    """Return the row of head, or None before the first publication."""
    return one(connection, "find_head", pipeline=pipeline)


def register(run: Run) -> None:
    """Register the pipeline with what it promises, before anything can go wrong: so that a missed publication shows."""
    register_pipeline(run.connection, run.pipeline)
    run.connection.commit()


def register_pipeline(connection: sa.Connection, pipeline: Pipeline) -> None:
    """Write down what a pipeline declares now, in the open transaction.

    Raises
    ------
    Renamed
        When another pipeline has given this name up.
    """
    refuse_renamed(connection, pipeline.name)
    connection.execute(
        sa.text(load_query("upsert_pipeline")),
        {
            "pipeline": pipeline.name,
            "model": pipeline.model.name,
            "alias": pipeline.model.alias,
            "contract_text": pipeline.contract_text,
            "contract_digest": pipeline.contract_digest,
            "logic_digest": pipeline.logic_digest,
            "history_keep": None if pipeline.history is None else without_days(pipeline.history.keep),
        },
    )
    contract = {"digest": pipeline.contract_digest, "text": pipeline.contract_text}
    connection.execute(sa.text(load_query("keep_contract")), {"pipeline": pipeline.name, **contract})
    now = clock(connection)
    for mode, crons in _crons(pipeline).items():
        if not crons:
            connection.execute(sa.text(load_query("delete_schedule")), {"pipeline": pipeline.name, "mode": mode.value})
            continue
        connection.execute(
            sa.text(load_query("upsert_schedule")),
            {
                "pipeline": pipeline.name,
                "mode": mode.value,
                "crons": list(crons),
                "timezone": pipeline.schedule.timezone,
                "grace": without_days(grace(pipeline, crons)),
                "next_tick": next_tick(crons, pipeline.schedule.timezone, now),
            },
        )


def ensure_objects(run: Run, objects: Objects, comments: Mapping[str, str]) -> None:
    """Create the objects of a pipeline on first use, in one transaction; add outputs that were declared since.

    Raises
    ------
    OutputsDiffer, KeyDiffers
        When they were made for other columns, and readers would lose some.
    ReadersInTheWay
    """
    connection = run.connection
    before = stored(connection, objects.pipeline)
    if before is None:
        create_objects(connection, run.pipeline, objects, comments)
        reached("objects.begun")
        connection.commit()
        before = objects
    else:
        connection.commit()
        before = replace(before, indexed=objects.indexed, keeps_history=objects.keeps_history)
        objects = replace(objects, former=before.former)
        drop_retired(connection, before)
    change = compare(before, objects)
    if head(connection, objects.pipeline) is None and not change.key:
        reshape(connection, change, comments, run.pipeline)  # no reader has seen a row of it
        before = change.after
        change = compare(before, objects)
    change.refuse()
    if run.pipeline.features.fingerprint:
        keep_fingerprints(connection, objects)
    if objects.keeps_history:
        row_history.ensure(connection, objects)
        connection.commit()
    if not replace_outdated(connection, before):
        logger.info(
            "the views of %s could not be made anew: readers hold them, or another role owns them; the next run tries again",
            objects.pipeline,
        )
    if change.added:
        add_outputs(connection, change, comments, run.pipeline)
        logger.info("added %s to what readers of %s see", ", ".join(change.added_names), objects.pipeline)
    if not replace_shared_indexes(connection, objects):
        logger.info(
            "the indexes of outputs of %s are still shared by its storages; the next run tries again", objects.pipeline
        )
    if not watch(connection, objects):
        logger.info("others may write into the rows of %s unnoticed; the next run tries again", objects.pipeline)
    reached("objects.created")


def create_objects(
    connection: sa.Connection, pipeline: Pipeline, objects: Objects, comments: Mapping[str, str]
) -> None:
    """Create the objects of a pipeline in the open transaction, and note what they were made for."""
    create(connection, pipeline, objects, comments)
    share_with_operators(connection, objects)
    record_objects(connection, objects)
    connection.execute(sa.text(load_query("insert_storages")), {"pipeline": objects.pipeline})


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What a run wrote into the next storage: the other side of the ledger."""

    storage_id: int
    rows: int
    rejected: int
    key_checksum: Decimal
    #: The instant that the oldest prediction was computed at; None where there is none.
    oldest_as_of: datetime | None

    @property
    def known(self) -> ledger.Rows:
        """What is known of these rows from then on."""
        return ledger.Rows(oldest_as_of=self.oldest_as_of, rejected=self.rejected)


def staged(run: Run, objects: Objects, storage_id: int) -> Staged:
    """Count and fingerprint what this run wrote."""
    statement = load_query("sum_storage", {"storage": objects.storage(storage_id), "key_hash": key_hash(objects.key)})
    row = run.connection.execute(sa.text(statement), {"generation_id": run.generation_id}).one()
    run.connection.rollback()
    return Staged(
        storage_id=storage_id,
        rows=row.rows,
        rejected=row.rejected,
        key_checksum=row.key_checksum,
        oldest_as_of=row.oldest_as_of,
    )


def record_rejections(run: Run, objects: Objects, storage_id: int) -> None:
    """List the rejected entities in prescore.rejections, where people find them."""
    fragments = {"storage": objects.storage(storage_id), "key_object": objects.key_object}
    statement = load_query("record_rejections", fragments)
    values = {
        "run_id": run.run_id,
        "pipeline": objects.pipeline,
        "generation_id": run.generation_id,
        "most": MOST_REJECTIONS,
    }
    run.connection.execute(sa.text(statement), values)
    run.connection.commit()
    reached("rejections.recorded")


def publish(
    run: Run,
    objects: Objects,
    selection: Selection,
    staged: Staged,
    before: Served | None,
    promise: Promise,
    summary: Mapping[str, Any],
) -> Published:
    """Move head to this run's generation, in one transaction; a full run swaps storages, an incremental one merges.

    Raises
    ------
    Fenced
        When another run published meanwhile, or took this one for dead.
    LedgerMismatch
        When what would be served is not the population.
    """
    connection = run.connection
    reached("publish.begun")
    try:
        _fence(run, before)
        reached("publish.fenced")
        if selection.mode is Mode.FULL:
            published = _swap(run, objects, selection, staged)
        else:
            assert before is not None
            published = _merge(run, objects, selection, staged, before)
        reached("publish.storages_marked")
        values = {**promise.columns(), **_generation(run, selection, published)}
        connection.execute(sa.text(load_query("insert_generation")), values)
        reached("publish.generation_written")
        move_head(connection, objects.pipeline, run.generation_id, values["quarantined"])
        reached("publish.head_moved")
        row_history.published(
            connection,
            objects.pipeline,
            keep=objects.keeps_history,
            full=published.mode is Mode.FULL,
            generation_id=run.generation_id,
            storage_id=published.storage_id,
        )
        _cover_ticks(run, selection.mode)
        reached("publish.ticks_covered")
        ending = {**summary, "status": Status.PUBLISHED.value, "run_id": run.run_id}
        names = ", ".join(f"{name} = :{name}" for name in ending if name != "run_id")
        connection.execute(sa.text(load_query("end_run", {"assignments": names})), ending)
        announce(connection, objects.pipeline, Event.PUBLISHED, run_id=run.run_id, mode=selection.mode.value)
        reached("publish.before_commit")
        connection.commit()
    except (sa.exc.DBAPIError, psycopg2.Error):
        if connection.invalidated or getattr(connection.connection.driver_connection, "closed", True):
            raise Fenced(objects.pipeline, "its connection, which holds the lock, was lost") from None
        raise
    reached("publish.committed")
    return published


def _fence(run: Run, before: Served | None) -> None:
    pipeline = run.pipeline.name
    if one(run.connection, "fence_run", run_id=run.run_id) is None:
        raise Fenced(pipeline, "it was found dead and marked crashed by a later run")
    head = one(run.connection, "find_head", pipeline=pipeline)
    if before is None:
        if head is not None:
            raise Fenced(pipeline, f"generation {head.generation_id} was published meanwhile")
        return
    if one(run.connection, "fence_head", pipeline=pipeline, generation_id=before.generation_id) is None:
        now = "nothing" if head is None else f"generation {head.generation_id}"
        raise Fenced(pipeline, f"it started from generation {before.generation_id}, {now} is served now")


def _swap(run: Run, objects: Objects, selection: Selection, staged: Staged) -> Published:
    values = {"pipeline": objects.pipeline, "generation_id": run.generation_id, **asdict(staged.known)}
    run.connection.execute(sa.text(load_query("retire_storages")), values)
    reached("publish.merged")
    return Published(
        generation_id=run.generation_id,
        mode=Mode.FULL,
        storage_id=staged.storage_id,
        rows=selection.population,
        inserted=selection.new,
        removed=selection.gone,
    )


def _merge(run: Run, objects: Objects, selection: Selection, staged: Staged, before: Served) -> Published:
    head = one(run.connection, "find_head", pipeline=objects.pipeline)
    row_history.before_merge(
        run.connection,
        objects,
        keep=objects.keeps_history,
        current=before.storage_id,
        staged=staged.storage_id,
        served=before.generation_id,
        generation_id=run.generation_id,
        gone=selection.gone_keys,
    )
    gone, gone_checksum = _delete_gone(run, objects, selection, before)
    reached("publish.gone_removed")
    # Even where none are kept any more: a row must not have the fingerprint of other features than it was made of.
    kept = [FINGERPRINT.name] if _keeps_fingerprints(run.connection, objects.pipeline) else []
    columns = ["as_of", "scored_in", "rejected", *kept, *(column.name for column in objects.outputs)]
    statement = load_query(
        "merge_rows",
        {
            "current": objects.storage(before.storage_id),
            "staged": objects.storage(staged.storage_id),
            "columns": ", ".join([objects.key_names, *(quote(name) for name in columns)]),
            "key_names": objects.key_names,
            "key_hash": key_hash(objects.key),
            "assignments": ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in columns),
        },
    )
    values = {"storage_id": before.storage_id, "generation_id": run.generation_id}
    merged = run.connection.execute(sa.text(statement), values).one()
    reached("publish.merged")
    count = head.rows - gone + merged.inserted
    checksum = head.key_checksum - gone_checksum + merged.key_checksum
    if (count, checksum) != (selection.population, selection.key_checksum):
        raise LedgerMismatch(
            f"{count:,} entities would be served, the population is {selection.population:,}"
            + ("" if count != selection.population else " of other keys"),
            f"Run `prescore score {objects.pipeline} --full`.",
        )
    known = selection.left_alone.joined_by(staged.known) if staged.rows else selection.left_alone
    marked = {"pipeline": objects.pipeline, "generation_id": run.generation_id, **asdict(known)}
    run.connection.execute(sa.text(load_query("mark_current_storage")), marked)
    return Published(
        generation_id=run.generation_id,
        mode=Mode.INCREMENTAL,
        storage_id=before.storage_id,
        rows=count,
        inserted=merged.inserted,
        removed=gone,
    )


def _delete_gone(run: Run, objects: Objects, selection: Selection, before: Served) -> tuple[int, Decimal]:
    count, checksum = 0, Decimal(0)
    keys = selection.gone_keys
    if keys is None:
        return count, checksum
    for start in range(0, keys.num_rows, KEYS_PER_QUERY):
        chunk = keys.slice(start, KEYS_PER_QUERY)
        statement = load_query(
            "delete_gone",
            {
                "current": objects.storage(before.storage_id),
                "key_arrays": key_arrays(chunk, objects.key),
                "key_names": objects.key_names,
                "key_matches": " AND ".join(f"r.{quote(c.name)} = gone.{quote(c.name)}" for c in objects.key),
                "key_hash": key_hash(objects.key, "r"),
            },
        )
        deleted = raw_execute(run.connection, statement).fetchone()
        count += deleted[0]
        checksum += deleted[1]
    return count, checksum


def _generation(run: Run, selection: Selection, published: Published) -> dict[str, Any]:
    assert run.snapshot is not None
    # Rows that an incremental run left alone stay valid: it proved that everything that changed was scored again.
    head = one(run.connection, "find_head", pipeline=run.pipeline.name) if selection.mode is Mode.INCREMENTAL else None
    # What was quarantined when this run selected has been scored again; what was quarantined since has not.
    hidden = (
        []
        if head is None
        else quarantined_in(run.connection, run.pipeline.name, published.storage_id, head.quarantined)
    )
    return {
        "generation_id": run.generation_id,
        "pipeline": run.pipeline.name,
        "run_id": run.run_id,
        "mode": selection.mode.value,
        "storage_id": published.storage_id,
        "as_of": run.snapshot.as_of,
        "watermark": run.snapshot.watermark,
        "valid_since": run.generation_id if head is None else head.valid_since,
        "quarantined": hidden,
        "logic_digest": run.pipeline.logic_digest,
        "rows": published.rows,
        "key_checksum": selection.key_checksum,
    }


def _cover_ticks(run: Run, mode_run: Mode) -> None:
    """A scheduled (or recovery) publication covers the ticks up to its start; a person's does not mask a dead scheduler."""
    if run.trigger not in {Trigger.SCHEDULED, Trigger.RECOVERY} or run.snapshot is None:
        return
    covered = {Mode.FULL, Mode.INCREMENTAL} if mode_run is Mode.FULL else {Mode.INCREMENTAL}
    for mode, crons in _crons(run.pipeline).items():
        if crons and mode in covered:
            tick: datetime = next_tick(crons, run.pipeline.schedule.timezone, run.snapshot.clock_at)
            values = {"pipeline": run.pipeline.name, "mode": mode.value, "next_tick": tick}
            run.connection.execute(sa.text(load_query("advance_schedule")), values)


def grace(pipeline: Pipeline, crons: tuple[str, ...]) -> timedelta:
    """Return how late a tick may be kept: as declared, else a tenth of the period and at least five minutes."""
    tenth = period(crons, pipeline.schedule.timezone) / 10 if crons else timedelta()
    return pipeline.schedule.grace or max(tenth, timedelta(minutes=5))


def _crons(pipeline: Pipeline) -> dict[Mode, tuple[str, ...]]:
    return {Mode.FULL: pipeline.schedule.full, Mode.INCREMENTAL: pipeline.schedule.incremental}


__all__ = ["STORAGES", "Published", "Staged", "publish"]
