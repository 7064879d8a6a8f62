"""What readers read: the view of a pipeline, its usable rows, its lookup function; and the rows they stand on.

All of it is created once, with the pipeline, and the views again when a later prescore words them otherwise. Else only head
moves.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg2
import sqlalchemy as sa

from tasks import row_history
from tasks.columns import Column
from tasks.database import literal, load_query, one, quote, raw_execute, rows
from tasks.errors import PrescoreError
from tasks.fingerprints import FINGERPRINT
from tasks.grants import give, read_grants
from tasks.pipeline import Pipeline
from tasks.transport import quoted_table

STORAGES = (1, 2, 3)
#: Stands for the table of past instants where a storage is asked for; head never names it.
BACKFILL = 0
# Bytes of a name; PostgreSQL cuts what is longer.
MOST_NAME = 63

# How long making a view anew, or adding a column, waits for readers, who wait behind it meanwhile.
REPLACE_LOCK_TIMEOUT = "20ms"
# How often it is tried to add the column of fingerprints, which a pipeline needs once, and seconds between two attempts.
FINGERPRINT_ATTEMPTS, FINGERPRINT_PAUSE = 100, 0.1

_LOCK_NOT_AVAILABLE, _INSUFFICIENT_PRIVILEGE = "55P03", "42501"
_INVALID_FUNCTION_DEFINITION, _DEPENDENT_OBJECTS = "42P13", "2BP01"

# When the data of a row was looked at; h is what holds for all rows, r the row.
_ORIGIN = "least(h.data_as_of, CASE WHEN h.time_invariant THEN h.data_as_of ELSE r.as_of END)"
# Readers are shown the predictions of a row: it is fresh, aging or stale, or expired and served nevertheless.
_SHOWN = (
    "(r.as_of > h.expired_until OR h.serve_expired) AND r.as_of <= h.believed_until AND r.rejected IS NULL "
    "AND r.scored_in >= h.valid_since AND r.scored_in <> ALL (h.quarantined)"
)

# What a reader sees of a row beside its key and its predictions, with its type.
PROVENANCE = {
    "state": "text",
    "age": "interval",
    "data_as_of": "timestamptz",
    "as_of": "timestamptz",
    "aging_at": "timestamptz",
    "stale_at": "timestamptz",
    "expires_at": "timestamptz",
    "cache_for": "interval",
    "reasons": "text[]",
    "model_version": "integer",
    "scored_in": "bigint",
}

_COMMENTS = {
    "state": "fresh, aging, stale, expired, rejected, clock_error, superseded or quarantined, by the clock of the database.",
    "age": "How old the data is that the prediction rests on, now.",
    "data_as_of": "How old that data is as an instant: the oldest required source, or the row itself if that is older.",
    "as_of": "The instant that the prediction was computed at.",
    "aging_at": "From when the state is aging.",
    "stale_at": "From when the state is stale.",
    "expires_at": "From when the prediction is withheld.",
    "cache_for": "How long a cache may keep this answer.",
    "reasons": "What the checks of the publication found, and why a row was rejected or quarantined.",
    "model_version": "Version of the model that made the prediction.",
    "scored_in": "Generation that the row was scored in.",
}

_ROW_COMMENTS = {
    "storage_id": "Storage that holds the row; head names the one that is served.",
    "as_of": "The instant that the prediction was computed at.",
    "scored_in": "Generation that the row was scored in.",
    "rejected": "Why the entity could not be scored; NULL for a prediction.",
}

_FINGERPRINT_COMMENT = "Hash of the features that the prediction was made of; NULL where it was not kept."


class FingerprintsBlocked(PrescoreError):
    """The column of fingerprints could not be added: somebody reads the rows of the pipeline all the time."""

    def __init__(self, pipeline: str) -> None:
        self.pipeline = pipeline
        super().__init__(
            f"[features] fingerprint of {pipeline} needs one more column of prescore_rows.{pipeline}, and open transactions "
            f"of readers held the table for {FINGERPRINT_ATTEMPTS * FINGERPRINT_PAUSE:.0f} seconds. Nothing was scored; what "
            "was published is still served. End long transactions that read it (pg_stat_activity lists them), and run again."
        )


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The names of a pipeline's objects, quoted for SQL, and their columns."""

    pipeline: str
    key: tuple[Column, ...]
    outputs: tuple[Column, ...]
    #: Names of the outputs that readers rank and filter by.
    indexed: tuple[str, ...] = ()
    #: Whether what readers saw is kept; see row_history.py.
    keeps_history: bool = False
    #: Names that it had and that still answer, by views and a lookup of their own.
    former: tuple[str, ...] = ()
    #: The name that head had it under, as long as somebody can see that.
    renamed_from: str | None = None

    @property
    def rows(self) -> str:
        """The partitioned table."""
        return quoted_table("prescore_rows", self.pipeline)

    def storage_name(self, storage_id: int) -> str:
        """Unquoted name of a storage's table; ``BACKFILL`` is the one that holds past instants."""
        return f"{self.pipeline}_{'backfill' if storage_id == BACKFILL else storage_id}"

    def storage(self, storage_id: int) -> str:
        """A storage's table."""
        return quoted_table("prescore_rows", self.storage_name(storage_id))

    @property
    def tables(self) -> dict[str, str]:
        """The partitioned table and its storages, as fragments of statements that name them all."""
        numbered = {f"storage_{word}": self.storage(id_) for id_, word in enumerate(("one", "two", "three"), 1)}
        return {"rows": self.rows, **numbered}

    def output_indexes(self, storage_id: int) -> list[str]:
        """Unquoted names of the indexes that a storage has on outputs."""
        return [_index_name(self.storage_name(storage_id), output) for output in self.indexed]

    def output_indexes_of(self, storage_id: int) -> list[tuple[str, str]]:
        """The indexes that a storage has on outputs, and the output of each."""
        return [(quote(name), quote(o)) for name, o in zip(self.output_indexes(storage_id), self.indexed, strict=True)]

    def qualified(self, index: str) -> str:
        """A quoted index with the schema of the rows."""
        return f"{quote('prescore_rows')}.{index}"

    @property
    def view(self) -> str:
        """The view that readers read."""
        return quoted_table("predictions", self.pipeline)

    @property
    def usable(self) -> str:
        """The view of rows that may be used now."""
        return quoted_table("predictions", f"{self.pipeline}_usable")

    @property
    def function(self) -> str:
        """The lookup function."""
        return quoted_table("predictions", f"{self.pipeline}_for")

    @property
    def history(self) -> str:
        """The rows that readers saw and that were replaced; there once the pipeline has kept a history."""
        return quoted_table("prescore_rows", f"{self.pipeline}_history")

    @property
    def history_view(self) -> str:
        """The view of what readers saw, and when."""
        return quoted_table("predictions", f"{self.pipeline}_history")

    @property
    def seen(self) -> str:
        """The functions that look up what readers saw at an instant: of one entity, and of all."""
        return quoted_table("predictions", f"{self.pipeline}_at")

    @property
    def backfill(self) -> str:
        """The rows of past instants; there once the pipeline was backfilled."""
        return quoted_table("prescore_rows", f"{self.pipeline}_backfill")

    @property
    def backfill_view(self) -> str:
        """The view of past instants."""
        return quoted_table("predictions", f"{self.pipeline}_backfill")

    @property
    def key_tables(self) -> tuple[str, ...]:
        """Every table of the pipeline that holds keys of entities; the last two are there only once they were needed."""
        return (self.rows, self.history, self.backfill)

    @property
    def gate(self) -> str:
        """The name of the pipeline in head, as views compare it: with a snapshot from before it was renamed, that of then."""
        if self.renamed_from is None:
            return literal(self.pipeline)
        return load_query("name_in_head", {"now": literal(self.pipeline), "then": literal(self.renamed_from)})

    def named(self, pipeline: str) -> Objects:
        """The same objects under another name."""
        return replace(self, pipeline=pipeline, former=(), renamed_from=None)

    @property
    def aliases(self) -> tuple[Objects, ...]:
        """The objects as they are called by names that the pipeline had; they have views and a lookup, and nothing else."""
        return tuple(self.named(former) for former in self.former)

    @property
    def made(self) -> tuple[tuple[str, str], ...]:
        """Everything that a pipeline may have, kind and name, in an order in which it can be dropped."""
        keys = ", ".join(column.postgres_type for column in self.key)
        return (
            *(("function", each.signature) for each in self.aliases),
            *(("view", view) for each in self.aliases for view in (each.usable, each.view)),
            ("function", f"{self.seen}({keys}, timestamptz)"),
            ("function", f"{self.seen}(timestamptz)"),
            ("function", f"{self.function}({keys}, interval)"),
            ("view", self.history_view),
            ("view", self.backfill_view),
            ("view", self.usable),
            ("view", self.view),
            ("table", self.history),
            ("table", self.backfill),
            ("table", self.rows),
        )

    @property
    def returned(self) -> str:
        """What lookups return: names and types of the columns of the view."""
        key, outputs = ([f"{quote(c.name)} {c.postgres_type}" for c in columns] for columns in (self.key, self.outputs))
        return ", ".join([*key, *(f"{name} {kind}" for name, kind in PROVENANCE.items()), *outputs])

    @property
    def signature(self) -> str:
        """The lookup function with the types of its arguments."""
        return f"{self.function}({', '.join([*(c.postgres_type for c in self.key), 'interval'])})"

    @property
    def key_names(self) -> str:
        """The key columns."""
        return names(self.key)

    @property
    def key_object(self) -> str:
        """Arguments of jsonb_build_object that make the key."""
        return _object(self.key)

    @property
    def output_object(self) -> str:
        """Arguments of jsonb_build_object that make the predictions."""
        return _object(self.outputs)


def names(columns: Sequence[Column], relation: str = "") -> str:
    """Return column names quoted for a list, each behind a relation when one is given."""
    return ", ".join((f"{relation}." if relation else "") + quote(column.name) for column in columns)


def stored(connection: sa.Connection, pipeline: str) -> Objects | None:
    """Return the objects of a pipeline as they were made, outputs in the order of the view; None before that."""
    found = one(connection, "find_pipeline", pipeline=pipeline)
    if found is None or found.key_columns is None:
        return None
    return Objects(
        pipeline=pipeline,
        key=_columns(found.key_columns, found.key_types),
        outputs=_columns(found.output_columns, found.output_types),
        former=tuple(
            row.former for row in rows(connection, "list_former_names", pipeline=pipeline) if row.use == "alias"
        ),
    )


def create(connection: sa.Connection, pipeline: Pipeline, objects: Objects, comments: Mapping[str, str]) -> None:
    """Create rows, storages, indexes, views and function of a pipeline, in the open transaction.

    ``comments`` adds to the COMMENT of an output, for example the order of its classes.
    """
    raw_execute(connection, load_query("create_rows_table", _rows_fragments(objects)))
    raw_execute(connection, load_query("watch_storages", objects.tables))
    if pipeline.features.fingerprint:
        add_fingerprint(connection, objects)
    for storage_id in STORAGES:
        for index, output in objects.output_indexes_of(storage_id):
            fragments = {"index": index, "storage": objects.storage(storage_id), "output": output}
            raw_execute(connection, load_query("create_output_index", fragments))
    if objects.keeps_history:
        row_history.ensure(connection, objects)
    define(connection, objects)
    comment(connection, pipeline, objects, comments)


def define(connection: sa.Connection, objects: Objects) -> None:
    """Make the views and the lookup function, or make them anew, in the open transaction.

    A function whose columns were others keeps living under another name: statements that have found it already go on with it,
    and so does what readers built on it. The new one has its rights.
    """
    for statement in definitions(objects):
        raw_execute(connection, "SAVEPOINT before_definition")
        try:
            raw_execute(connection, statement)
        except psycopg2.Error as error:
            if error.pgcode != _INVALID_FUNCTION_DEFINITION:  # it would return other columns
                raise
            raw_execute(connection, "ROLLBACK TO SAVEPOINT before_definition")
            _succeed(connection, objects, statement)
        raw_execute(connection, "RELEASE SAVEPOINT before_definition")


def _succeed(connection: sa.Connection, objects: Objects, statement: str) -> None:
    """Make a function in the place of the one that is there, which keeps living under another name."""
    name, signature = _function_of(objects, statement)
    before = one(connection, "find_function", signature=signature).oid
    fragments = {"signature": signature, "retired": quote(f"{name}_{before}")}
    raw_execute(connection, load_query("retire_function", fragments))
    raw_execute(connection, statement)
    after = one(connection, "find_function", signature=signature).oid
    rights = read_grants(connection, functions=[before, after])
    target = f"FUNCTION {signature}"
    give(connection, {target: rights[before]}, {target: rights[after]}, set())
    if signature == objects.signature:
        comment_on_lookup(connection, objects)


def _function_of(objects: Objects, statement: str) -> tuple[str, str]:
    """Return name and signature of the function that a statement makes."""
    makes, _, _ = statement.removeprefix("CREATE OR REPLACE FUNCTION ").partition(" RETURNS ")
    function, _, arguments = makes.partition("(")
    found = [each for kind, each in objects.made if kind == "function" and each.startswith(f"{function}(")]
    # Of two that share their name, one takes the key before the instant.
    signature = min(found, key=len) if arguments == "seen_at timestamptz)" else max(found, key=len)
    return function.rpartition(".")[2].strip('"'), signature


def drop_retired(connection: sa.Connection, objects: Objects) -> None:
    """Remove lookup functions that gave way to others before this run, unless somebody built on them; commits."""
    for row in rows(connection, "list_retired_functions", names=[objects.pipeline, *objects.former]):
        connection.commit()
        try:
            raw_execute(connection, load_query("drop_function", {"signature": row.signature}))
        except psycopg2.Error as error:
            connection.rollback()
            if error.pgcode not in {_DEPENDENT_OBJECTS, _INSUFFICIENT_PRIVILEGE}:
                raise
    connection.commit()


def definitions(objects: Objects) -> tuple[str, ...]:
    """Return the statements that make, or make anew, the view, the usable rows, the lookup function and what asks the history."""
    base = {"rows": objects.rows, "keys": names(objects.key, "r"), "pipeline": objects.gate}
    shown = _behind(f"CASE WHEN {_SHOWN} THEN r.{quote(c.name)} END AS {quote(c.name)}" for c in objects.outputs)
    view = {**base, "view": objects.view, "origin": _ORIGIN, "outputs_shown": shown}
    usable = {**base, "view": objects.usable, "outputs": _behind(f"r.{quote(c.name)}" for c in objects.outputs)}
    return (
        load_query("create_predictions_view", view),
        load_query("create_usable_view", usable),
        load_query("create_lookup_function", _function_fragments(objects)),
        *(row_history.definitions(objects) if objects.keeps_history else ()),
        *(statement for alias in objects.aliases for statement in _alias_definitions(objects, alias)),
    )


def _alias_definitions(objects: Objects, alias: Objects) -> tuple[str, str, str]:
    """Return the statements that make what still answers under an old name."""
    usable = ", ".join(quote(c.name) for c in (*objects.key, *objects.outputs))
    everything = ", ".join(quote(n) for n in (*_names(objects.key), *PROVENANCE, *_names(objects.outputs)))
    lookup = {
        **_function_fragments(objects),
        "function": alias.function,
        "target": objects.function,
        "parameters": ", ".join(f"${i}" for i in range(1, len(objects.key) + 2)),
    }
    return (
        load_query("create_alias_view", {"view": alias.view, "target": objects.view, "columns": everything}),
        load_query("create_alias_view", {"view": alias.usable, "target": objects.usable, "columns": usable}),
        load_query("create_alias_function", lookup),
    )


def _names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]


def digest_of(statements: Sequence[str]) -> str:
    """Return the SHA-256 of statements."""
    return hashlib.sha256("\x00".join(statements).encode()).hexdigest()


def replace_outdated(connection: sa.Connection, objects: Objects) -> bool:
    """Make the views and the function anew where an earlier prescore made them otherwise; False when that cannot be now.

    Their columns and what they say stay the same, so that it does not matter which of them a statement finds. It needs a lock
    that waits for open transactions of readers, and new ones wait behind it: so it is tried for a moment only, and again by
    the next run. The transaction of the connection is committed, or rolled back.
    """
    statements = definitions(objects)
    digest = digest_of(statements)
    if one(connection, "find_pipeline", pipeline=objects.pipeline).views_digest == digest:
        return True
    renamed = one(connection, "find_last_rename", pipeline=objects.pipeline).xid
    if renamed is not None and not one(connection, "may_truncate", retired_xid=renamed).safe:
        connection.rollback()
        return True  # somebody still finds head under the old name, and the views as they are know both
    try:
        raw_execute(connection, f"SET LOCAL lock_timeout = '{REPLACE_LOCK_TIMEOUT}'")
        define(connection, objects)
        if objects.keeps_history:
            row_history.share_readers(connection, objects, objects.history_view)
    except psycopg2.Error as error:
        if error.pgcode not in {_LOCK_NOT_AVAILABLE, _INSUFFICIENT_PRIVILEGE}:  # the latter: another role made them
            raise
        connection.rollback()
        return False
    record_views(connection, objects, digest)
    connection.execute(sa.text(load_query("settle_rename")), {"pipeline": objects.pipeline})
    connection.commit()
    return True


def add_fingerprint(connection: sa.Connection, objects: Objects) -> None:
    """Add the column of fingerprints to the rows of a pipeline, in the open transaction."""
    column = quote(FINGERPRINT.name)
    raw_execute(connection, load_query("add_fingerprint", {"rows": objects.rows, "fingerprint": column}))
    for table in (objects.rows, *(objects.storage(storage_id) for storage_id in STORAGES)):
        fragments = {"column": f"{table}.{column}", "comment": literal(_FINGERPRINT_COMMENT)}
        raw_execute(connection, load_query("comment_on_column", fragments))


def keep_fingerprints(connection: sa.Connection, objects: Objects) -> None:
    """Add the column of fingerprints to rows that were made without; each attempt holds readers up for a moment only.

    Raises
    ------
    FingerprintsBlocked
        When none of the attempts got the table to itself.
    """
    for _ in range(FINGERPRINT_ATTEMPTS):
        if one(connection, "has_column", relation=objects.rows, name=FINGERPRINT.name).there:
            connection.commit()
            return
        try:
            raw_execute(connection, f"SET LOCAL lock_timeout = '{REPLACE_LOCK_TIMEOUT}'")
            add_fingerprint(connection, objects)
            connection.commit()
        except psycopg2.Error as error:
            connection.rollback()
            if error.pgcode != _LOCK_NOT_AVAILABLE:
                raise
            time.sleep(FINGERPRINT_PAUSE)
    raise FingerprintsBlocked(objects.pipeline)


def record_objects(connection: sa.Connection, objects: Objects) -> None:
    """Remember which columns the objects of a pipeline have, and which statements made its views."""
    values = {
        "pipeline": objects.pipeline,
        "key_columns": [column.name for column in objects.key],
        "key_types": [column.postgres_type for column in objects.key],
        "output_columns": [column.name for column in objects.outputs],
        "output_types": [column.postgres_type for column in objects.outputs],
    }
    connection.execute(sa.text(load_query("record_objects")), values)
    record_views(connection, objects, digest_of(definitions(objects)))


def record_views(connection: sa.Connection, objects: Objects, digest: str) -> None:
    """Remember which statements made the views and the function."""
    values = {"pipeline": objects.pipeline, "digest": digest}
    connection.execute(sa.text(load_query("record_views")), values)


def _rows_fragments(objects: Objects) -> dict[str, str]:
    return {
        **objects.tables,
        "key_definitions": ", ".join(f"{quote(c.name)} {c.postgres_type} NOT NULL" for c in objects.key),
        "output_definitions": _behind(f"{quote(c.name)} {c.postgres_type}" for c in objects.outputs),
        "key_names": objects.key_names,
    }


def _behind(expressions: Iterable[str]) -> str:
    """Return expressions each behind a comma: a pipeline without a model may not know one of its outputs yet."""
    return "".join(f",\n       {expression}" for expression in expressions)


def _function_fragments(objects: Objects) -> dict[str, str]:
    max_stale = f"${len(objects.key) + 1}"
    too_stale = f"p.state = 'stale' AND prescore.clock() >= p.stale_at + {max_stale}"
    return {
        "function": objects.function,
        "view": objects.view,
        "arguments": ", ".join(f"{quote(c.name)} {c.postgres_type}" for c in objects.key),
        "columns": objects.returned,
        "key_arguments": ", ".join(f"${i}" for i, _ in enumerate(objects.key, 1)),
        "key_matches": " AND ".join(f"p.{quote(c.name)} = ${i}" for i, c in enumerate(objects.key, 1)),
        "outputs_within": _behind(
            f"CASE WHEN ({too_stale}) IS NOT TRUE THEN p.{quote(c.name)} END" for c in objects.outputs
        ),
        "too_stale": too_stale,
        "max_stale": max_stale,
        "pipeline": literal(objects.pipeline),
    }


def comment(connection: sa.Connection, pipeline: Pipeline, objects: Objects, comments: Mapping[str, str]) -> None:
    """Say what everything that readers see is, and the rows below it."""
    for relation, text in (
        (objects.view, pipeline.description or f"Predictions of {pipeline.name}."),
        (objects.usable, f"Rows of {pipeline.name} that may be used now, for ranking and filtering with an index."),
    ):
        fragments = {"view": relation, "comment": literal(text)}
        raw_execute(connection, load_query("comment_on_view", fragments))
    keys = {column.name: "Key of the entity." for column in objects.key}
    described = {objects.view: keys | _COMMENTS, objects.usable: keys}
    for table in (objects.rows, *(objects.storage(storage_id) for storage_id in STORAGES)):
        described[table] = keys | _ROW_COMMENTS
    _comment_on_columns(connection, described)
    comment_on_outputs(connection, pipeline, objects, objects.outputs, comments)
    comment_on_lookup(connection, objects)


def comment_on_outputs(
    connection: sa.Connection,
    pipeline: Pipeline,
    objects: Objects,
    outputs: Sequence[Column],
    comments: Mapping[str, str],
) -> None:
    """Say what predictions are, wherever they stand; ``comments`` knows more of some, such as the order of classes."""
    texts = {c.name: comments.get(c.name) or f"Prediction of {pipeline.model.name}." for c in outputs}
    storages = (objects.storage(storage_id) for storage_id in STORAGES)
    _comment_on_columns(connection, dict.fromkeys((objects.view, objects.usable, objects.rows, *storages), texts))


def _comment_on_columns(connection: sa.Connection, described: Mapping[str, Mapping[str, str]]) -> None:
    for relation, texts in described.items():
        for name, text in texts.items():
            fragments = {"column": f"{relation}.{quote(name)}", "comment": literal(text)}
            raw_execute(connection, load_query("comment_on_column", fragments))


def comment_on_lookup(connection: sa.Connection, objects: Objects) -> None:
    """Say what the lookup function returns."""
    text = (
        "Looks one entity up: always one row, state missing where there is none. max_stale is how long past stale_at the "
        "reader accepts; beyond it the state is expired."
    )
    raw_execute(
        connection, load_query("comment_on_function", {"signature": objects.signature, "comment": literal(text)})
    )


def _index_name(storage: str, output: str) -> str:
    """Return the name of an index, told apart by a digest where PostgreSQL would cut it short."""
    return shortened(f"{storage}_by_{output}")


def shortened(name: str) -> str:
    """Return a name as it is, or told apart by a digest where PostgreSQL would cut it short."""
    if len(name) <= MOST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MOST_NAME - 9]}_{digest}"


def _object(columns: Sequence[Column]) -> str:
    return ", ".join(f"{literal(column.name)}::text, {quote(column.name)}" for column in columns)


def _columns(found: Sequence[str], types: Sequence[str]) -> tuple[Column, ...]:
    return tuple(Column(name=name, postgres_type=kind) for name, kind in zip(found, types, strict=True))
