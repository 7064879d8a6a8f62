"""The three storages of a pipeline: one is emptied, filled, indexed and made known to the planner before head moves to it.

Plans of readers name all three, whichever is served: what a storage lacks while it is filled, every reader's plan feels. The
key stays in place all the while: without it a lookup would be planned around a scan of the storage that is being filled. An
index of an output is put in after the load: it serves rankings only, and those are planned well without (see
``forbid_parallel_plans``). Measured on 2 million rows in key order, two busy cores, CPU
seconds of the server: 0.9 to load bare rows, 2.3 with the key in place, 8.9 with an output's index in place as well; 3.5 with
that index built after the load, by two workers. With the key built after the load, too, it would be 3.1 (in random order 7.1
with the key in place): that is not worth what readers would feel.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2
import sqlalchemy as sa

from tasks import ledger, row_history
from tasks.database import connect, literal, load_query, one, quote, raw_execute, rows
from tasks.faults import reached
from tasks.readers import STORAGES, Objects
from tasks.runs import Run, end_writers
from tasks.shards import ONE_STREAM, Layout, forget, take_over

logger = logging.getLogger(__name__)

# How long an attempt to TRUNCATE waits for readers of a storage that head left long ago; then rows are deleted instead.
TRUNCATE_LOCK_TIMEOUT = "20ms"
# Three full storages hold three times the population; at eight times it shrank so much that plans would suffer.
KEYS_ANALYSED_BELOW = 8
# Merged rows leave the old ones behind. Over 100 runs that changed 1 % of 100,000 rows each, with an output's index and nobody
# cleaning up, the rows grew 1.81 times and the indexes 2.01 times; vacuumed whenever a tenth was dead, 1.03 and 1.29 times, and
# merging took half as long (19 ms a run, 36). A fill factor of 90 costs every scan a tenth more from the first day; its rows
# did not grow, but its indexes did as much (1.43, and 1.31 vacuumed). Without an output's index 93 % of the updates were HOT at
# 100, all of them at 90, and nothing grew by more than 7 %. So the fill factor stays 100, and rows are vacuumed.
VACUUMED_ABOVE = 0.1
# Fewer rows find their place in an index faster than it is dropped and built.
UNINDEXED_FROM = 10_000

_LOCK_NOT_AVAILABLE, _INSUFFICIENT_PRIVILEGE = "55P03", "42501"


def next_storage(connection: sa.Connection, pipeline: str) -> int:
    """Return the storage that a run may write into: the one that is neither served nor kept for a rollback."""
    storage_id: int = one(connection, "find_storage", pipeline=pipeline, role="next").storage_id
    connection.rollback()
    return storage_id


@dataclass(frozen=True, kw_only=True)
class LockHeld:
    """The lock of a pipeline without a run: what clearing needs of either."""

    connection: sa.Connection
    url: str


def clear_next_storage(run: Run | LockHeld, objects: Objects, layout: Layout = ONE_STREAM, *, expected: int = 0) -> int:
    """Empty the next storage of whatever is left in it, but for shards that the run keeps, and return its id.

    At once where no snapshot can still read it; row by row otherwise, which needs no lock that readers hold. All of it on the
    connection that holds the lock: a run that lost it without knowing can empty nothing, whatever that storage is by then.
    A storage that ``expected`` rows are about to be loaded into gives up its indexes of outputs where they are many.
    """
    connection = run.connection
    found = one(connection, "find_storage", pipeline=objects.pipeline, role="next")
    storage_id = int(found.storage_id)
    storage = objects.storage(storage_id)
    end_writers(connection, objects.pipeline)
    if layout.kept is not None:
        assert isinstance(run, Run)
        return _clear_around(run, objects, storage_id, layout)
    row_history.archive(connection, objects, storage_id)
    forget(connection, objects.pipeline, storage_id)
    ledger.forget_foreign_writes(connection, objects.pipeline, storage_id)
    connection.commit()  # before their rows: a shard that is written down is there
    state = describe(connection, objects, storage_id)
    safe = one(connection, "may_truncate", retired_xid=found.retired_xid).safe
    connection.rollback()
    indexes = objects.output_indexes_of(storage_id) if expected >= UNINDEXED_FROM and state.indexes else []
    if state.empty and not state.bytes and not indexes:
        return storage_id
    if safe and _truncated(connection, objects, storage, [index for index, _ in indexes]):
        return storage_id
    if state.empty:
        return storage_id
    raw_execute(connection, load_query("delete_storage", {"storage": storage}))
    connection.commit()
    reached("storage.emptied")
    with connect(run.url, "prescore clear", autocommit=True) as other:
        raw_execute(other, load_query("vacuum_storage", {"storage": storage}))
    return storage_id


def _clear_around(run: Run, objects: Objects, storage_id: int, layout: Layout) -> int:
    assert layout.kept is not None
    fragments = {
        "storage": objects.storage(storage_id),
        "kept": str(layout.kept_condition(quote(objects.key[0].name))),
        "generation_id": literal(layout.kept.generation_id),
    }
    take_over(run.connection, run.run_id, layout.kept)
    forget(run.connection, objects.pipeline, storage_id, but_of=run.run_id)
    raw_execute(run.connection, load_query("delete_outside_ranges", fragments))
    run.connection.commit()
    reached("storage.emptied")
    return storage_id


def finish_storage(run: Run, objects: Objects, storage_id: int, written: int) -> None:
    """Index the outputs of a filled storage and let the planner know it, before head moves; an empty one is left alone.

    The keys of all storages together are looked at when there are more, or many fewer, than when they last were.
    """
    if written:
        with connect(run.url, "prescore analyse", autocommit=True) as connection:
            index_outputs(connection, objects, storage_id)
            reached("storage.indexed")
            known = one(connection, "find_row_statistics", rows=objects.rows)
            if not written <= known.seen <= KEYS_ANALYSED_BELOW * written:
                only = "ONLY " if known.alone else ""
                fragments = {"only": only, "rows": objects.rows, "key_names": objects.key_names}
                raw_execute(connection, load_query("analyse_keys", fragments))
            raw_execute(connection, load_query("analyse_storage", {"storage": objects.storage(storage_id)}))
    reached("storage.analysed")


def tidy(run: Run, objects: Objects) -> None:
    """Clean up behind a run, so that the next one need not wait for it: nothing is left but what is served and what was before.

    The snapshot of the run is let go first: rows that it can still see would not be removed.
    """
    run.release_snapshot()
    storage_id = clear_next_storage(run, objects)
    index_outputs(run.connection, objects, storage_id)  # plans that name it have no use for a sort
    run.connection.commit()
    _vacuum_served(run, objects)
    reached("retired.cleared")


def replace_shared_indexes(connection: sa.Connection, objects: Objects) -> bool:
    """Give each storage indexes of its own where an earlier prescore made one for all; False when that cannot be now.

    Making them blocks no reader. Dropping the shared one does, and waits for open transactions: it is tried for a moment, and
    again by the next run. The transaction of the connection is committed, or rolled back.
    """
    shared = [row.name for row in rows(connection, "list_shared_indexes", rows=objects.rows)]
    connection.rollback()
    if not shared:
        return True
    try:
        for storage_id in STORAGES:
            index_outputs(connection, objects, storage_id)
            connection.commit()
        raw_execute(connection, f"SET LOCAL lock_timeout = '{TRUNCATE_LOCK_TIMEOUT}'")
        for name in shared:
            raw_execute(connection, load_query("drop_index", {"index": name}))
    except psycopg2.Error as error:
        if error.pgcode not in {_LOCK_NOT_AVAILABLE, _INSUFFICIENT_PRIVILEGE}:
            raise
        connection.rollback()
        return False
    connection.commit()
    return True


def watch(connection: sa.Connection, objects: Objects) -> bool:
    """Have it noted who else writes into the rows of a pipeline; False when that cannot be now. It blocks no reader.

    Rows of earlier prescores are not watched yet, and somebody may have switched it off. The transaction of the connection is
    committed, or rolled back.
    """
    if one(connection, "are_storages_watched", rows=objects.rows).watched:
        connection.rollback()
        return True
    try:
        raw_execute(connection, f"SET LOCAL lock_timeout = '{TRUNCATE_LOCK_TIMEOUT}'")
        raw_execute(connection, load_query("watch_storages", objects.tables))
    except psycopg2.Error as error:
        if error.pgcode not in {_LOCK_NOT_AVAILABLE, _INSUFFICIENT_PRIVILEGE}:  # the latter: another role made them
            raise
        connection.rollback()
        return False
    connection.commit()
    return True


def index_outputs(connection: sa.Connection, objects: Objects, storage_id: int) -> None:
    """Build the indexes of outputs that a storage lacks; readers are not blocked."""
    storage = objects.storage(storage_id)
    there = describe(connection, objects, storage_id).indexes
    if there == len(objects.indexed):
        return
    # First, since it also says how many workers may build.
    raw_execute(connection, load_query("allow_parallel_plans", {"storage": storage}))
    for index, output in objects.output_indexes_of(storage_id):
        fragments = {"index": index, "storage": storage, "output": output}
        raw_execute(connection, load_query("create_output_index", fragments))


def describe(connection: sa.Connection, objects: Objects, storage_id: int) -> Any:
    """Return whether a storage is empty, how large its file is, and how many of its indexes of outputs are there."""
    statement = load_query("describe_storage", {"storage": objects.storage(storage_id)})
    return connection.execute(sa.text(statement), {"indexes": objects.output_indexes(storage_id)}).one()


def _truncated(connection: sa.Connection, objects: Objects, storage: str, indexes: Sequence[str]) -> bool:
    """Truncate a storage, and drop indexes of it, unless a reader holds its lock."""
    try:
        raw_execute(connection, f"SET LOCAL lock_timeout = '{TRUNCATE_LOCK_TIMEOUT}'")
        raw_execute(connection, load_query("truncate_storage", {"storage": storage}))
        if indexes:
            raw_execute(connection, load_query("forbid_parallel_plans", {"storage": storage}))
        for index in indexes:
            raw_execute(connection, load_query("drop_index", {"index": objects.qualified(index)}))
    except psycopg2.Error as error:
        if error.pgcode != _LOCK_NOT_AVAILABLE:
            raise
        connection.rollback()
        return False
    connection.commit()
    reached("storage.emptied")
    return True


def _vacuum_served(run: Run, objects: Objects) -> None:
    """Make the space of merged and removed rows usable again, once it is a share of the storage that is served."""
    found = one(run.connection, "find_storage", pipeline=objects.pipeline, role="current")
    name = objects.storage(found.storage_id)
    state = one(run.connection, "count_dead_rows", storage=name)
    run.connection.rollback()
    if state.dead > VACUUMED_ABOVE * max(1, state.live):
        with connect(run.url, "prescore vacuum", autocommit=True) as other:
            raw_execute(other, load_query("vacuum_storage", {"storage": name}))
