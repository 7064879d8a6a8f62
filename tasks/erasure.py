"""Erasure: one entity leaves everything that prescore keeps of a pipeline, and stays out until it is released.

First its digest is written down, from when on every run leaves it out; then it goes, place by place. What ends in between is
finished by forgetting it again: each place is looked at anew, and what is gone is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg2
import pyarrow as pa
import sqlalchemy as sa

from tasks import bundle_file, copies, registry
from tasks.announcements import Event, announce
from tasks.columns import TYPES, Column, key_hash
from tasks.database import connect, literal, load_query, one, quote, raw_execute, rows
from tasks.errors import PrescoreError, UsageError
from tasks.faults import reached
from tasks.forgotten import key_digest, new_salt
from tasks.health import PipelineNeverRan
from tasks.readers import STORAGES, Objects
from tasks.runs import end_writers, hold_lock
from tasks.settings import os_user
from tasks.transport import quoted_table

# How long a table that is rewritten, or whose statistics are cleared, may be waited for; readers wait behind.
REWRITE_LOCK_TIMEOUT = "2s"
# A key that is a text of at least so many characters is looked for in sentences too; a shorter one is a word like others.
LEAST_WORD = 6

_BLOCKED = {"55P03", "42501", "25001", "0A000", "2BP01"}


class NotErased(PrescoreError):
    """An entity is kept out, and is not gone from everywhere yet."""

    def __init__(self, erasure: Erasure) -> None:
        self.erasure = erasure
        super().__init__(
            f"Erasure {erasure.erasure_id} of {erasure.pipeline} is not complete: {' '.join(erasure.failed)} The entity is "
            "kept out of every run, and gone from everywhere else. Remove the cause and give the same command again."
        )


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed from one place."""

    #: A table or a folder.
    place: str
    #: Of what so many were removed.
    what: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """The receipt of an erasure; it does not hold the key."""

    pipeline: str
    erasure_id: int
    #: SHA-256 of the salt of the pipeline and the key, 64 hex digits.
    digest: str
    begun_at: datetime
    begun_by: str
    #: None where it is not gone from everywhere.
    finished_at: datetime | None
    #: The entity was kept out before; what was left of it was looked for again.
    again: bool
    #: What was removed, this time and before.
    removed: tuple[Removed, ...] = ()
    #: What may still hold traces, in sentences.
    left: tuple[str, ...] = ()
    #: Places that could not be changed, in sentences.
    failed: tuple[str, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class ReleasedEntity:
    """What the end of an erasure did."""

    pipeline: str
    erasure_id: int | None
    #: False when the entity was not forgotten; nothing was changed then.
    released: bool


@dataclass(frozen=True, kw_only=True)
class _Entity:
    """The entity that has to go: its key as PostgreSQL writes it, and where its pipeline keeps rows."""

    objects: Objects
    texts: tuple[str, ...]

    @property
    def pipeline(self) -> str:
        return self.objects.pipeline

    @property
    def parameters(self) -> dict[str, str]:
        """The values of the key, for statements."""
        return {f"key_{at}": text for at, text in enumerate(self.texts)}

    @property
    def values(self) -> list[str]:
        """Expressions of the key's values, of the types of their columns."""
        return [f"CAST(:key_{at} AS {column.postgres_type})" for at, column in enumerate(self.objects.key)]

    @property
    def document(self) -> str:
        """The expression of the key as samples and rejections hold it."""
        named = ", ".join(f"{literal(c.name)}, {value}" for c, value in zip(self.objects.key, self.values, strict=True))
        return f"jsonb_build_object({named})"

    @property
    def matches(self) -> str:
        """The condition that a row r is this entity's."""
        pairs = zip(self.objects.key, self.values, strict=True)
        return " AND ".join(f"r.{quote(column.name)} = {value}" for column, value in pairs)

    def scalars(self) -> dict[str, pa.Scalar]:
        """The values of the key by column, as Arrow holds them in files."""
        return {
            column.name: pa.scalar(text).cast(column.arrow_type)
            for column, text in zip(self.objects.key, self.texts, strict=True)
        }


def forget(url: str, pipeline: str, key: Sequence[str], *, rewrite: bool = False) -> Erasure:
    """Remove one entity from everything that is kept of a pipeline, keep it out of every later run, and return the receipt.

    It holds the lock of the pipeline: a run that is at work, and could bring the entity back, refuses it.

    Parameters
    ----------
    key
        One value for each key column, as PostgreSQL writes the type.
    rewrite
        Write the tables that held it anew, so that no remnant is left in their files; readers wait meanwhile.

    Raises
    ------
    RunInProgress
        Naming the run that has to end first.
    PipelineNeverRan, UsageError
    NotErased
        When a place could not be changed, such as an archive that cannot be reached: all the others were.
    """
    with hold_lock(url, pipeline) as connection:
        connection.execute(sa.text(load_query("forbid_timeouts")), {"idle_ms": "0"})  # for as long as it takes
        entity = _identify(connection, pipeline, key)
        end_writers(connection, pipeline)
        rows(connection, "reap_runs", pipeline=pipeline)
        erasure, again = _begin(connection, entity)
        reached("forget.begun")
        removed = _known(erasure)
        failed: list[str] = []
        held = _remove_rows(connection, entity, removed)
        reached("forget.rows_removed")
        held |= _remove_golden_rows(connection, entity, removed)
        reached("forget.models_rewritten")
        failed += _remove_copies(connection, entity, erasure.erasure_id, removed)
        held |= _remove_words(connection, entity, removed)
        if again:  # an attempt that was killed has left tables to be swept, and no word of which
            held |= _may_hold(connection, entity)
        left = _sweep(url, connection, entity, held, rewrite=rewrite)
        reached("forget.swept")
        receipt = {"removed": [asdict(each) for each in _listed(removed)], "left": left, "failed": failed}
        ended = one(
            connection,
            "end_erasure",
            erasure_id=erasure.erasure_id,
            receipt=json.dumps(receipt),
            finished=not failed,
        )
        connection.commit()
    found = Erasure(
        pipeline=pipeline,
        erasure_id=erasure.erasure_id,
        digest=bytes(erasure.digest).hex(),
        begun_at=erasure.begun_at,
        begun_by=erasure.begun_by,
        finished_at=ended.finished_at,
        again=again,
        removed=tuple(_listed(removed)),
        left=tuple(left),
        failed=tuple(failed),
    )
    if failed:
        raise NotErased(found)
    return found


def release(url: str, pipeline: str, key: Sequence[str]) -> ReleasedEntity:
    """Let a forgotten entity in again: the next run scores it, if it is in the population.

    Raises
    ------
    RunInProgress, PipelineNeverRan, UsageError
    """
    with hold_lock(url, pipeline) as connection:
        entity = _identify(connection, pipeline, key)
        salt = one(connection, "find_salt", pipeline=pipeline)
        if salt is None:
            return ReleasedEntity(pipeline=pipeline, erasure_id=None, released=False)
        digest = _digest(connection, entity, bytes(salt.salt))
        ended = one(connection, "release_erasure", pipeline=pipeline, digest=digest, os_user=os_user())
        connection.commit()
    erasure_id = None if ended is None else ended.erasure_id
    return ReleasedEntity(pipeline=pipeline, erasure_id=erasure_id, released=ended is not None)


def _identify(connection: sa.Connection, pipeline: str, key: Sequence[str]) -> _Entity:
    """Return the entity of some words, its key as PostgreSQL writes it."""
    found = one(connection, "find_pipeline", pipeline=pipeline)
    if found is None or found.key_columns is None:
        raise PipelineNeverRan(pipeline, [row.pipeline for row in rows(connection, "read_health", pipeline=None)])
    if len(key) != len(found.key_columns):
        raise UsageError(
            f"{len(key)} key values were given, {pipeline} has {len(found.key_columns)} key columns: "
            f"{', '.join(found.key_columns)}. Nothing was changed. Give one value for each, in this order."
        )
    objects = objects_of(pipeline, found)
    values = ", ".join(
        f"CAST(CAST(:key_{at} AS {column.postgres_type}) AS text)" for at, column in enumerate(objects.key)
    )
    try:
        texts = connection.execute(
            sa.text(f"SELECT {values}"), {f"key_{at}": word for at, word in enumerate(key)}
        ).one()
    except sa.exc.DataError:
        kinds = ", ".join(f"{quote(column.name)} {column.postgres_type}" for column in objects.key)
        raise UsageError(
            f"A key value is not of its column's type ({kinds}). Nothing was changed. Correct the value."
        ) from None
    return _Entity(objects=objects, texts=tuple(texts))


def objects_of(pipeline: str, found: Any) -> Objects:
    """Return the objects of a pipeline as its row of prescore.pipelines describes them."""
    return Objects(
        pipeline=pipeline,
        key=_columns(found.key_columns, found.key_types),
        outputs=_columns(found.output_columns, found.output_types),
    )


def _columns(names: Sequence[str], types: Sequence[str]) -> tuple[Column, ...]:
    return tuple(
        Column(name=name, postgres_type=kind) for name, kind in zip(names, types, strict=True) if kind in TYPES
    )


def _digest(connection: sa.Connection, entity: _Entity, salt: bytes) -> bytes:
    expression = key_digest([f"CAST({value} AS text)" for value in entity.values], salt)
    return bytes(connection.execute(sa.text(f"SELECT {expression}"), entity.parameters).scalar_one())


def _begin(connection: sa.Connection, entity: _Entity) -> tuple[Any, bool]:
    """Keep the entity out from here on; return its erasure, and whether it was kept out before."""
    known = one(connection, "find_salt", pipeline=entity.pipeline)
    salt = new_salt() if known is None else bytes(known.salt)
    digest = _digest(connection, entity, salt)
    found = one(connection, "find_erasure", pipeline=entity.pipeline, digest=digest)
    again = found is not None
    if found is None:
        values = {"pipeline": entity.pipeline, "salt": salt, "digest": digest, "os_user": os_user()}
        found = one(connection, "insert_erasure", **values)
    connection.commit()
    return found, again


# What was removed: (place, what) -> how many.
_Tally = dict[tuple[str, str], int]


def _known(erasure: Any) -> _Tally:
    """Return what an earlier attempt has removed."""
    return {(each["place"], each["what"]): each["count"] for each in erasure.receipt.get("removed", [])}


def _listed(removed: Mapping[tuple[str, str], int]) -> list[Removed]:
    return [Removed(place=place, what=what, count=count) for (place, what), count in sorted(removed.items()) if count]


def _note(removed: _Tally, place: str, what: str, count: int) -> bool:
    removed[place, what] = removed.get((place, what), 0) + count
    return count > 0


def _remove_rows(connection: sa.Connection, entity: _Entity, removed: _Tally) -> set[str]:
    """Remove the entity from all that is kept in tables, in one transaction; return the tables that held it."""
    held: set[str] = set()
    objects, parameters = entity.objects, {**entity.parameters, "pipeline": entity.pipeline}
    one(connection, "lock_head", pipeline=entity.pipeline)  # a quarantine waits, and so does this for one
    for storage_id in STORAGES:
        storage = objects.storage(storage_id)
        fragments = {"storage": storage, "key_matches": entity.matches, "key_hash": key_hash(objects.key, "r")}
        gone = connection.execute(sa.text(load_query("erase_rows", fragments)), parameters).one()
        if _note(removed, storage, "rows", gone.rows):
            held.add(storage)
            values = {"pipeline": entity.pipeline, "storage_id": storage_id}
            balance = {**values, "rows": gone.rows, "key_checksum": Decimal(gone.key_checksum)}
            connection.execute(sa.text(load_query("balance_generation")), balance)
            connection.execute(sa.text(load_query("balance_head")), balance)
    for table in objects.key_tables:
        if table == objects.rows or not one(connection, "find_relation", relation=table).there:
            continue
        fragments = {"storage": table, "key_matches": entity.matches, "key_hash": key_hash(objects.key, "r")}
        gone = connection.execute(sa.text(load_query("erase_rows", fragments)), parameters).one()
        if _note(removed, table, "rows", gone.rows):
            held.add(table)
    for table, what in (("prediction_samples", "samples"), ("rejections", "rejections")):
        fragments = {"table": quoted_table("prescore", table), "key": entity.document}
        count = connection.execute(sa.text(load_query("erase_keys", fragments)), parameters).rowcount
        if _note(removed, f"prescore.{table}", what, count):
            held.add(quoted_table("prescore", table))
    ends = {"pipeline": entity.pipeline, "first": entity.texts[0]}
    if _note(
        removed, "prescore.shards", "shards", connection.execute(sa.text(load_query("erase_shards")), ends).rowcount
    ):
        held.add(quoted_table("prescore", "shards"))
    announce(connection, entity.pipeline, Event.ERASED)
    connection.commit()
    return held


def _remove_golden_rows(connection: sa.Connection, entity: _Entity, removed: _Tally) -> set[str]:
    """Take the entity out of the remembered rows of every model that the pipeline has used; each has a new digest then."""
    scalars = entity.scalars()
    held: set[str] = set()
    for version in rows(connection, "list_models_of_pipeline", pipeline=entity.pipeline):
        data = registry.read_data(connection, version.model, version.version)
        rewritten, count = bundle_file.without_entity(data, scalars)
        if count:
            registry.replace_data(connection, version.model, version.version, rewritten)
            _note(removed, "prescore.model_chunks", f"remembered rows of {version.model} {version.version}", count)
            held |= {quoted_table("prescore", "model_chunks"), quoted_table("prescore", "models")}
        connection.commit()
    return held


def _remove_copies(connection: sa.Connection, entity: _Entity, erasure_id: int, removed: _Tally) -> list[str]:
    """Take the entity out of the Parquet archives; return what could not be done, in sentences."""
    failed: list[str] = []
    known = rows(connection, "list_archive_urls", pipeline=entity.pipeline)
    listed = ", ".join(
        f"{value} AS {quote(c.name)}" for c, value in zip(entity.objects.key, entity.values, strict=True)
    )
    hashing = load_query("hash_key", {"key": listed, "key_hash": key_hash(entity.objects.key, "r")})
    key_checksum = connection.execute(sa.text(hashing), entity.parameters).scalar_one()
    connection.commit()
    for row in known:
        place, only = f"{row.url.rstrip('/')}/{row.name}", None if row.name == entity.pipeline else row.generations
        try:
            for copy in copies.forget(row.url, row.name, entity.scalars(), int(key_checksum), erasure_id, only):
                _note(removed, place, f"rows of {copy.files} files", copy.removed)
                values = {"generation_id": copy.generation_id, "pipeline": entity.pipeline, "url": row.url}
                connection.execute(
                    sa.text(load_query("recount_archive")), {**values, "rows": copy.rows, "bytes": copy.bytes}
                )
                connection.commit()
        except Exception as error:
            connection.rollback()
            words = str(error) if isinstance(error, PrescoreError) else f"{place}: {type(error).__name__}."
            failed.append(words)
    return failed


def _remove_words(connection: sa.Connection, entity: _Entity, removed: _Tally) -> set[str]:
    """Take the key out of sentences that people or checks have written; keys that could be any word are not looked for."""
    held: set[str] = set()
    words = [
        text
        for column, text in zip(entity.objects.key, entity.texts, strict=True)
        if column.postgres_type in {"text", "uuid"} and len(text) >= LEAST_WORD and not text.isdigit()
    ]
    for row in rows(connection, "list_wordy_columns") if words else ():
        table = quoted_table("prescore", row.relation)
        for word in words:
            written = json.dumps(word, ensure_ascii=False)[1:-1] if row.type == "jsonb" else word
            fragments = {"table": table, "column": quote(row.name), "type": row.type}
            statement = sa.text(load_query("erase_words", fragments))
            count = connection.execute(statement, {"word": written}).rowcount
            if _note(removed, f"prescore.{row.relation}", f"mentions in {row.name}", count):
                held.add(table)
    connection.commit()
    return held


def _may_hold(connection: sa.Connection, entity: _Entity) -> set[str]:
    """Return every table that an entity may have been in."""
    named = {quoted_table("prescore", row.relation) for row in rows(connection, "list_wordy_columns")}
    named |= {quoted_table("prescore", name) for name in ("prediction_samples", "rejections", "shards")}
    named |= {table for table in entity.objects.key_tables if one(connection, "find_relation", relation=table).there}
    connection.rollback()
    return named - {entity.objects.rows}


def _sweep(url: str, connection: sa.Connection, entity: _Entity, held: set[str], *, rewrite: bool) -> list[str]:
    """Let no remnant stay in pages and statistics of the planner, as far as that can be; return what may, in sentences."""
    left: list[str] = []
    with connect(url, "prescore vacuum", autocommit=True) as other:
        raw_execute(other, f"SET lock_timeout = '{REWRITE_LOCK_TIMEOUT}'")
        tables = {entity.objects.storage(storage_id) for storage_id in STORAGES}
        for table in sorted(held | tables):
            if table not in held and not _is_filled(other, table):
                continue
            name = "rewrite_table" if rewrite else "vacuum_and_analyse"
            try:
                raw_execute(other, load_query(name, {"table": table}))
            except psycopg2.Error as error:
                if error.pgcode not in _BLOCKED:
                    raise
                left.append(f"{table} is in use: remnants stay in its pages until it is vacuumed.")
        if _is_filled(other, entity.objects.rows):
            names = {"only": "", "rows": entity.objects.rows, "key_names": entity.objects.key_names}
            raw_execute(other, load_query("analyse_keys", names))
    left += _clear_statistics(url, entity)
    if held and not rewrite:
        left.append(
            "Pages of the tables may hold unreadable remnants until they are used again; --rewrite writes them anew."
        )
    left.append("Write-ahead logs, backups, standbys' logs and the sources themselves are not in prescore's hands.")
    return left


def _is_filled(connection: sa.Connection, table: str) -> bool:
    return bool(raw_execute(connection, load_query("is_filled", {"table": table})).fetchone()[0])


def _clear_statistics(url: str, entity: _Entity) -> Iterator[str]:
    """Remove the key from what the planner remembers of tables that are empty now: ANALYZE leaves that as it was."""
    remembered = {"names": [column.name for column in entity.objects.key], "values": list(entity.texts)}
    with connect(url, "prescore vacuum") as connection:
        statement = load_query("list_remembered_keys", {"key": entity.document})
        found = list(connection.execute(sa.text(statement), {**entity.parameters, **remembered}))
        connection.rollback()
        for row in found:
            try:
                raw_execute(connection, f"SET LOCAL lock_timeout = '{REWRITE_LOCK_TIMEOUT}'")
                cleared = _clear(connection, entity, row)
                connection.commit()
            except psycopg2.Error:
                connection.rollback()
                cleared = False
            if not cleared:
                yield (
                    f"What the planner remembers of {row.schemaname}.{row.tablename} names the key until it is analysed with "
                    "rows in it: it could not be cleared."
                )


def _clear(connection: sa.Connection, entity: _Entity, row: Any) -> bool:
    """Clear what the planner remembers of a column, in the open transaction; False where that cannot be now."""
    table = quoted_table(row.schemaname, row.tablename)
    if one(connection, "can_clear_statistics").it_can:
        values = {name: getattr(row, name) for name in ("schemaname", "tablename", "attname", "inherited")}
        connection.execute(sa.text(load_query("clear_statistics")), values)
    elif row.schemaname == "prescore":
        raw_execute(connection, load_query("retype_column", {"table": table, "column": quote(row.attname)}))
    else:
        # Before PostgreSQL 18 nothing takes statistics of a partition's column away but others in their place: those of a row
        # that is gone with the transaction, from a storage that nobody reads.
        found = one(connection, "find_storage", pipeline=entity.pipeline, role="next")
        safe = one(connection, "may_truncate", retired_xid=found.retired_xid).safe
        if table != entity.objects.storage(found.storage_id) or not safe:
            return False
        some = {"bigint": "0", "integer": "0", "smallint": "0", "date": "'2000-01-01'"}
        some |= {"uuid": "'00000000-0000-0000-0000-000000000000'", "text": "''"}
        fragments = {
            "table": table,
            "key_names": entity.objects.key_names,
            "values": ", ".join(some[column.postgres_type] for column in entity.objects.key),
        }
        raw_execute(connection, load_query("insert_stand_in", fragments))
        raw_execute(connection, load_query("analyse_storage", {"storage": table}))
        raw_execute(connection, load_query("truncate_storage", {"storage": table}))
    return True
