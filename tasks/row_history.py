"""The history of a pipeline: what readers saw, as long as ``[history] keep`` says, stored by change.

Head's own past is one row per move of it. Rows are those of *lineages*: a full generation and the incremental ones that amend
it. A merge keeps the rows that it replaces or removes, in its own transaction. A full run keeps nothing: the rows before it stay
in their storage, and when that is about to be cleared, long after, those go to the history that the next lineage did not begin
with unchanged. So what is stored is what changed, and the transaction that readers wait for has nothing to do but for a merge.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from tasks.columns import Column, key_arrays
from tasks.database import connect, literal, load_query, one, quote, raw_execute, rows
from tasks.faults import reached
from tasks.features import KEYS_PER_QUERY
from tasks.transport import quoted_table

if TYPE_CHECKING:
    from tasks.readers import Objects

logger = logging.getLogger(__name__)

# PostgreSQL cuts longer names.
_MOST_NAME = 63

_COMMENTS = {
    "prescore_base": "Lineage that the row belongs to: a full generation and those that amend it.",
    "as_of": "The instant that the prediction was computed at; NULL says that the entity was not served.",
    "scored_in": "Generation that the row was scored in.",
    "prescore_replaced_in": "Generation of the lineage that replaced or removed it; NULL for its last one.",
    "rejected": "Why the entity could not be scored; NULL for a prediction.",
}
_VIEW_COMMENTS = {
    "seen_from": "From when readers saw this.",
    "seen_until": "Until when; NULL while they do.",
    "withheld": "quarantined, superseded or rejected: readers saw no prediction; NULL otherwise.",
    "data_as_of": "How old the data was that the prediction rests on.",
    "as_of": "The instant that the prediction was computed at.",
    "aging_at": "From when the state was aging.",
    "stale_at": "From when the state was stale.",
    "expires_at": "From when readers saw no prediction, unless the contract said so.",
    "verdict": "Worst verdict of the checks that flag a publication: anything but pass made the state aging.",
    "serve_expired": "Contract: expired predictions were still shown.",
    "published_data_as_of": "How old the data of the whole publication was.",
    "reasons": "What readers were told.",
    "model_version": "Version of the model that was served.",
    "scored_in": "Generation that the row was scored in.",
}
_IS_OFF = "({at} < p.published_data_as_of - interval '5 minutes' OR p.as_of > {at} + interval '5 minutes')"
_STATE = (
    "CASE WHEN p.withheld IN ('quarantined', 'superseded') THEN p.withheld WHEN {off} THEN 'clock_error' "
    "WHEN p.withheld IS NOT NULL THEN p.withheld WHEN {at} >= p.expires_at THEN 'expired' "
    "WHEN {at} >= p.stale_at THEN 'stale' WHEN {at} >= p.aging_at OR p.verdict <> 'pass' THEN 'aging' ELSE 'fresh' END"
)
_CACHE_FOR = (
    "CASE WHEN p.seen_from IS NULL THEN NULL WHEN p.withheld IS NOT NULL OR {off} OR {at} >= p.expires_at THEN interval '0' "
    "WHEN {at} >= p.stale_at THEN least(p.expires_at - {at}, interval '30 seconds') "
    "ELSE least(p.stale_at - {at}, interval '5 minutes') END"
)
_SHOWN = "p.withheld IS NULL AND NOT {off} AND ({at} < p.expires_at OR p.serve_expired)"


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed because it is past ``keep``."""

    #: Stretches of head's past.
    spans: int = 0
    rows: int = 0
    #: Past instants that were scored by a backfill.
    backfills: int = 0


def ensure(connection: sa.Connection, objects: Objects) -> None:
    """Create the history of a pipeline on first use, and columns of outputs that it lacks, in the open transaction."""
    if one(connection, "find_relation", relation=objects.history).there:
        add_outputs(connection, objects, objects.history)
    else:
        fragments = {
            "rows": objects.rows,
            "history": objects.history,
            "history_index": quote(_shortened(f"{objects.pipeline}_history_by_key")),
            "key_definitions": ", ".join(f"{quote(c.name)} {c.postgres_type} NOT NULL" for c in objects.key),
            "output_definitions": ", ".join(f"{quote(c.name)} {c.postgres_type}" for c in objects.outputs),
            "key_names": objects.key_names,
        }
        raw_execute(connection, load_query("create_history_table", fragments))
        described = {c.name: "Key of the entity." for c in objects.key} | _COMMENTS
        comment_on_columns(connection, objects.history, described | _of_outputs(objects))


def add_outputs(connection: sa.Connection, objects: Objects, table: str) -> None:
    """Add the outputs that a table of a pipeline lacks, in the open transaction: they were declared since it was made."""
    for column in objects.outputs:
        if not one(connection, "has_column", relation=table, name=column.name).there:
            fragments = {"table": table, "column": quote(column.name), "type": column.postgres_type}
            raw_execute(connection, load_query("add_output", fragments))
            comment_on_columns(connection, table, _of_outputs(objects, column.name))


def comment_on_columns(connection: sa.Connection, relation: str, texts: dict[str, str]) -> None:
    """Describe columns, in the open transaction."""
    for name, text in texts.items():
        fragments = {"column": f"{relation}.{quote(name)}", "comment": literal(text)}
        raw_execute(connection, load_query("comment_on_column", fragments))


def definitions(objects: Objects) -> tuple[str, ...]:
    """Return the statements that make, or make anew, what readers ask of the history."""
    key, outputs = objects.key, objects.outputs
    shown = "f.row_scored_in <> ALL (f.quarantined) AND f.row_scored_in >= f.valid_since AND f.rejected IS NULL"
    view = {
        "view": objects.history_view,
        "rows": objects.rows,
        "history": objects.history,
        "pipeline": objects.gate,
        "keys_shown": ", ".join(f"f.k{i} AS {quote(c.name)}" for i, c in enumerate(key, 1)),
        "outputs_shown": ",\n       ".join(
            f"CASE WHEN {shown} THEN f.o{i} END AS {quote(c.name)}" for i, c in enumerate(outputs, 1)
        ),
        "keys_v": ", ".join(f"v.k{i}" for i, _ in enumerate(key, 1)),
        "outputs_v": ", ".join(f"v.o{i}" for i, _ in enumerate(outputs, 1)),
        **{f"keys_{r}": _aliased(key, r, "k") for r in "hr"},
        **{f"outputs_{r}": _aliased(outputs, r, "o") for r in "hr"},
    }
    described = (
        load_query(
            "comment_on_view",
            {"view": objects.history_view, "comment": literal(f"What readers of {objects.pipeline} saw, and when.")},
        ),
        *(
            load_query(
                "comment_on_column",
                {"column": f"{objects.history_view}.{quote(name)}", "comment": literal(text)},
            )
            for name, text in _VIEW_COMMENTS.items()
        ),
    )
    one_at = f"${len(key) + 1}"
    lookup = {
        **_function_fragments(objects, one_at),
        "arguments": ", ".join(f"{quote(c.name)} {c.postgres_type}" for c in key),
        "key_arguments": ", ".join(f"${i}" for i, _ in enumerate(key, 1)),
        "key_matches": " AND ".join(f"p.{quote(c.name)} = ${i}" for i, c in enumerate(key, 1)),
        "pipeline": literal(objects.pipeline),
    }
    everybody = {**_function_fragments(objects, "$1"), "keys": ", ".join(f"p.{quote(c.name)}" for c in key)}
    types = ", ".join([*(c.postgres_type for c in key), "timestamptz"])
    return (
        load_query("create_history_view", view),
        *described,
        load_query("create_seen_function", lookup),
        load_query("create_all_seen_function", everybody),
        *(
            load_query("comment_on_function", {"signature": f"{objects.seen}({arguments})", "comment": literal(text)})
            for arguments, text in (
                (types, "What readers saw of one entity at an instant: always one row; not_kept where nobody knows."),
                ("timestamptz", "What readers saw at an instant: one row per entity that was served."),
            )
        ),
    )


def share_readers(connection: sa.Connection, objects: Objects, relation: str) -> None:
    """Let those read a relation who may read the view of the pipeline, in the open transaction."""
    for row in rows(connection, "list_readers", relation=objects.view):
        fragments = {"relation": relation, "role": quote(row.role) if row.role else "PUBLIC"}
        raw_execute(connection, load_query("grant_reading", fragments))


def follow(connection: sa.Connection, pipeline: str, base: int, storage_id: int) -> None:
    """Follow the lineage that a full generation began in a storage, in the open transaction."""
    connection.execute(
        sa.text(load_query("insert_lineage")), {"pipeline": pipeline, "base": base, "storage_id": storage_id}
    )


def note_head(connection: sa.Connection, pipeline: str) -> None:
    """Write down what readers see from here on, in the transaction that moved head; nothing where no history is kept."""
    connection.execute(sa.text(load_query("note_head")), {"pipeline": pipeline})


def note_rollback(connection: sa.Connection, pipeline: str) -> None:
    """Write down that a rollback left a lineage, and what readers see now, in its transaction."""
    connection.execute(sa.text(load_query("undo_lineages")), {"pipeline": pipeline})
    note_head(connection, pipeline)


def before_merge(
    connection: sa.Connection,
    objects: Objects,
    *,
    keep: bool,
    current: int,
    staged: int,
    served: int,
    generation_id: int,
    gone: pa.Table | None,
) -> None:
    """Keep what a merge will replace and remove, in its transaction.

    ``current`` and ``staged`` are storages, ``served`` is the generation that is amended. Where a history is kept no more, what
    is served is kept once, all of it, so that what readers saw until now can still be told.
    """
    lineage = one(connection, "find_lineage", pipeline=objects.pipeline, storage_id=current)
    if not keep:
        if lineage is not None:
            _archive_whole(connection, objects, lineage.base, current)
        return
    if lineage is None:
        known = {"pipeline": objects.pipeline, "storage_id": current}
        base = one(connection, "find_base_generation", **known, generation_id=served).generation_id
        follow(connection, objects.pipeline, base, current)
    else:
        base = lineage.base
    fragments = {
        "history": objects.history,
        "current": objects.storage(current),
        "staged": objects.storage(staged),
        "columns": _columns(objects, "r"),
        "targets": _columns(objects),
        "key_matches": _matches(objects, "r", "s"),
    }
    values = {"base": base, "generation_id": generation_id}
    connection.execute(sa.text(load_query("keep_merged", fragments)), values)
    for start in range(0, 0 if gone is None else gone.num_rows, KEYS_PER_QUERY):
        assert gone is not None
        left = {
            **fragments,
            "key_arrays": key_arrays(gone.slice(start, KEYS_PER_QUERY), objects.key),
            "key_names": objects.key_names,
            "key_matches": _matches(objects, "r", "gone"),
            "base": literal(base),
            "generation_id": literal(generation_id),
        }
        raw_execute(connection, load_query("keep_gone", left))


def published(
    connection: sa.Connection, pipeline: str, *, keep: bool, full: bool, generation_id: int, storage_id: int
) -> None:
    """Write down what readers see from a publication on, in its transaction."""
    if not keep:
        connection.execute(sa.text(load_query("end_head_history")), {"pipeline": pipeline})
        return
    if full:
        follow(connection, pipeline, generation_id, storage_id)
    note_head(connection, pipeline)


def archive(connection: sa.Connection, objects: Objects, storage_id: int) -> None:
    """Move what a storage still holds of a lineage to the history, before it is cleared; committed.

    Nothing happens where it holds none: a second call does no harm.
    """
    lineage = one(connection, "find_lineage", pipeline=objects.pipeline, storage_id=storage_id)
    if lineage is None:
        connection.rollback()
        return
    previous = one(connection, "find_storage", pipeline=objects.pipeline, role="previous")
    following = one(connection, "find_lineage", pipeline=objects.pipeline, storage_id=previous.storage_id)
    if lineage.undone or following is None or following.undone or following.base <= lineage.base:
        kept = _archive_whole(connection, objects, lineage.base, storage_id)
    else:
        kept = _archive_changes(connection, objects, lineage, storage_id, following.base, previous.storage_id)
    connection.commit()
    logger.info("kept %d rows of generation %d in the history", kept, lineage.base)
    reached("history.archived")


def remove_past(url: str, pipeline: str) -> Removed:
    """Remove what is past ``[history] keep``: what readers saw before, and backfills that were made before.

    Nothing happens where no history was ever declared. It needs no lock of the pipeline: what a run that is at work needs is
    younger than that. A second call removes nothing.
    """
    history, backfill = (quoted_table("prescore_rows", f"{pipeline}_{of}") for of in ("history", "backfill"))
    with connect(url) as connection:
        found = one(connection, "find_keep", pipeline=pipeline)
        if found is None or found.history_keep is None:
            return Removed()
        known = {"pipeline": pipeline}
        values = {**known, "before": found.before}
        spans = connection.execute(sa.text(load_query("remove_past_spans")), values).rowcount
        bases = [row.base for row in rows(connection, "list_past_lineages", **known)]
        removed = 0
        if one(connection, "find_relation", relation=history).there:
            statement = load_query("delete_past_rows", {"history": history})
            removed = connection.execute(sa.text(statement), {**known, "bases": bases}).rowcount
        connection.execute(sa.text(load_query("delete_lineages")), {**known, "bases": bases})
        ended = rows(connection, "delete_backfills", pipeline=pipeline, before=found.made_before)
        generations = [row.generation_id for row in ended]
        if generations and one(connection, "find_relation", relation=backfill).there:
            statement = load_query("delete_backfilled_rows", {"backfill": backfill})
            removed += connection.execute(sa.text(statement), {"generations": generations}).rowcount
        connection.commit()
    return Removed(spans=spans, rows=removed, backfills=sum(row.done for row in ended))


def _archive_changes(
    connection: sa.Connection, objects: Objects, lineage: Any, storage_id: int, following: int, next_storage: int
) -> int:
    names = [quote(c.name) for c in objects.outputs]
    keys = ", ".join(f"coalesce(r.{quote(c.name)}, n.{quote(c.name)})" for c in objects.key)
    fragments = {
        "history": objects.history,
        "storage": objects.storage(storage_id),
        "next_storage": objects.storage(next_storage),
        "targets": _columns(objects),
        "columns_coalesced": ", ".join([keys, *(f"r.{name}" for name in names)]),
        "columns_s": _columns(objects, "s"),
        "columns_h": _columns(objects, "h"),
        "outputs_r": ", ".join(f"r.{name}" for name in names),
        "outputs_n": ", ".join(f"n.{name}" for name in names),
        "key_matches": _matches(objects, "r", "n"),
    }
    values = {"base": lineage.base, "as_of": lineage.as_of, "next": following}
    kept = connection.execute(sa.text(load_query("archive_lineage", fragments)), values).rowcount
    _end(connection, objects, lineage.base, complete=False)
    return int(kept)


def _archive_whole(connection: sa.Connection, objects: Objects, base: int, storage_id: int) -> int:
    fragments = {
        "history": objects.history,
        "storage": objects.storage(storage_id),
        "columns": _columns(objects, "r"),
        "targets": _columns(objects),
    }
    kept = connection.execute(sa.text(load_query("archive_whole_lineage", fragments)), {"base": base}).rowcount
    _end(connection, objects, base, complete=True)
    return int(kept)


def _end(connection: sa.Connection, objects: Objects, base: int, *, complete: bool) -> None:
    values = {"pipeline": objects.pipeline, "base": base, "complete": complete}
    connection.execute(sa.text(load_query("end_lineage")), values)


def _columns(objects: Objects, relation: str = "") -> str:
    """Return key and outputs for a list, each behind a relation when one is given."""
    return ", ".join(f"{relation}.{quote(c.name)}" if relation else quote(c.name) for c in _all(objects))


def _all(objects: Objects) -> Sequence[Column]:
    return (*objects.key, *objects.outputs)


def _matches(objects: Objects, left: str, right: str) -> str:
    return " AND ".join(f"{left}.{quote(c.name)} = {right}.{quote(c.name)}" for c in objects.key)


def _aliased(columns: Sequence[Column], relation: str, letter: str) -> str:
    return ", ".join(f"{relation}.{quote(c.name)} AS {letter}{i}" for i, c in enumerate(columns, 1))


def _function_fragments(objects: Objects, at: str) -> dict[str, str]:
    off = _IS_OFF.format(at=at)
    shown = _SHOWN.format(at=at, off=off)
    return {
        "function": objects.seen,
        "columns": objects.returned,
        "history_view": objects.history_view,
        "at": at,
        "state": _STATE.format(at=at, off=off),
        "cache_for": _CACHE_FOR.format(at=at, off=off),
        "outputs_shown": ", ".join(f"CASE WHEN {shown} THEN p.{quote(c.name)} END" for c in objects.outputs),
    }


def _of_outputs(objects: Objects, *only: str) -> dict[str, str]:
    return {c.name: "Prediction." for c in objects.outputs if not only or c.name in only}


def _shortened(name: str) -> str:
    if len(name) <= _MOST_NAME:
        return name
    return f"{name[: _MOST_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
