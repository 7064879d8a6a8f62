"""Staging: one stream from the sources through the model into the next storage, and nobody lost on the way."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from tasks import dataset_rows
from tasks.columns import TYPES, Column, canonical, key_arrays
from tasks.database import literal, load_query, quote
from tasks.errors import PrescoreError
from tasks.faults import reached
from tasks.features import AS_OF, QueryRefused, read_features, read_keys_sql, read_population_sql
from tasks.pairs import Pairs, null_rows
from tasks.population import Mode, Selection, Served, population_keys
from tasks.readers import Objects, names
from tasks.runs import Fenced, Run
from tasks.scoring import REJECTED, Scorer, Tally, disagreements
from tasks.stream import Stream
from tasks.transport import READ_AHEAD, Session, StatementFailed, open_session, table_columns

logger = logging.getLogger(__name__)

# Rows read back after the COPY and compared with what was sent.
READ_BACK = 20

_UNIQUE_VIOLATION = "23505"
_NOT_NULL_VIOLATION = "23502"


def list_rejections(run_id: int) -> str:
    """Return the query that lists what a run rejected, for a message."""
    return f"SELECT key, reason FROM prescore.rejections WHERE run_id = {run_id}"  # noqa: S608 - for people to read


class DuplicateEntities(PrescoreError):
    """A query returned entities more than once."""

    def __init__(self, origin: str, entities: int, run_id: int | None) -> None:
        self.origin, self.entities = origin, entities
        listed = "" if run_id is None else f"They are listed by {list_rejections(run_id)}. "
        super().__init__(
            f"{origin} returned {entities:,} entities more than once; it must return exactly one row each. Nothing was "
            f"published; the last good publication is still served. {listed}Look for a join that multiplies rows, and "
            "aggregate or restrict it."
        )


class ReadBackDiffers(PrescoreError):
    """Rows read back from a storage are not the rows that were sent."""

    def __init__(self, storage: str, columns: list[str]) -> None:
        self.storage, self.columns = storage, columns
        super().__init__(
            f"Rows read back from {storage} differ from what was sent in {', '.join(columns)}. Nothing was published; the "
            "last good publication is still served. Compare the table's column types with the type table in the README."
        )


class Books(Protocol):
    """What is written down in the transaction of the rows."""

    def open(self, writer: Session) -> None:
        """Begin the transaction."""

    def close(self, writer: Session, tally: Tally) -> None:
        """All rows are written; what comes next is the fence and the commit."""


def stage(
    run: Run,
    scorer: Scorer,
    objects: Objects,
    session: Session,
    selection: Selection,
    storage_id: int,
    tally: Tally,
    books: Books | None = None,
) -> None:
    """Stream the selected entities through the model into the next storage, in one transaction.

    Memory is bounded by the batch. Entities without a feature row get a rejected row. ``books`` are kept in the same
    transaction.

    Raises
    ------
    DuplicateEntities
        When the unique index of the storage meets an entity twice.
    Fenced
        When a later run found this one dead: then the storage is not this run's to fill any more.
    """
    assert run.snapshot is not None
    with open_session(run.url, run.writes_as) as writer:
        target = _target(writer, scorer, objects.storage_name(storage_id))
        if books is None:
            writer.execute("BEGIN")
        else:
            books.open(writer)
        sent = _FirstRows()
        try:
            what = f"Writing rows of {objects.pipeline}"
            with Stream(session.cancel, tally.stages) as stream:
                features = stream.ahead(
                    "read", _feature_batches(session, scorer, run, selection, tally), depth=READ_AHEAD
                )
                batches = sent.watch(scorer.predictions(features, run.generation_id, tally, stream))
                batches = stream.last("write", batches)
                writer.copy_in("prescore_rows", objects.storage_name(storage_id), target, batches, what)
            reached("copy.sent")
            if tally.rows < selection.selected:
                _reject_missing(writer, session, run, scorer, objects, selection, storage_id, tally)
            if books is not None:
                books.close(writer, tally)
            _fence(writer, run)
            reached("copy.fenced")
            writer.execute("COMMIT")
        except BaseException as error:
            with suppress(StatementFailed):  # a lost connection has rolled back already, and would hide what happened
                writer.execute("ROLLBACK")
            if isinstance(error, StatementFailed) and error.sqlstate == _UNIQUE_VIOLATION:
                raise _duplicates(run, scorer, objects, selection) from None
            if isinstance(error, StatementFailed) and error.sqlstate == _NOT_NULL_VIOLATION:
                raise _without_key(scorer) from None
            raise
        reached("copy.finished")
        _read_back(writer, scorer, objects.storage(storage_id), sent.rows, run.generation_id)
        reached("copy.read_back")


def resample(
    session: Session, sources: Session, scorer: Scorer, objects: Objects, selection: Selection, served: Served
) -> tuple[int, int]:
    """Score a sample of the skipped entities again, as the selection says when: how many, and how many now differ."""
    if selection.keys is None:
        return 0, 0
    keys = selection.keys.filter(pc.equal(selection.keys.column("why"), "sampled"))
    if not keys.num_rows:
        return 0, 0
    found = read_features(sources, scorer.pipeline, scorer.contract, keys)
    batches = list(scorer.predictions(found.to_batches(), served.generation_id, Tally()))
    again = pa.Table.from_batches(batches) if batches else pa.schema([]).empty_table()
    key, outputs = scorer.contract.key, scorer.outputs
    kept = again.select([c.name for c in (*key, REJECTED, *outputs)]) if batches else again
    statement = load_query(
        "read_served_rows",
        {
            "storage": objects.storage(served.storage_id),
            "key_arrays": key_arrays(keys, key),
            "key_names": objects.key_names,
            "key_matches": " AND ".join(f"r.{quote(c.name)} = wanted.{quote(c.name)}" for c in key),
            "keys_read": ", ".join(f"{c.read('r.' + quote(c.name))} AS {quote(c.name)}" for c in key),
            "outputs_read": ", ".join(f"r.{quote(c.name)}" for c in outputs),
        },
    )
    return keys.num_rows, disagreements(kept, session.table(statement), key, outputs)


def _fence(writer: Session, run: Run) -> None:
    statement = load_query(run.fence, {"run_id": literal(run.run_id)})
    if not writer.table(statement, "Making sure that the run is alive").num_rows:
        raise Fenced(run.pipeline.name, "it was found dead and marked crashed by a later run")


class _FirstRows:
    """The first rows that went into a COPY, to be compared with what is there afterwards."""

    def __init__(self) -> None:
        self.rows: pa.Table | None = None

    def watch(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if self.rows is None and batch.num_rows:
                self.rows = pa.Table.from_batches([batch.slice(0, READ_BACK)])
            yield batch


def _feature_batches(
    session: Session, scorer: Scorer, run: Run, selection: Selection, tally: Tally
) -> Iterator[pa.RecordBatch]:
    assert run.snapshot is not None
    origin = scorer.pipeline.features.origin
    if scorer.contract.dataset is not None:
        yield from _dataset_batches(session, scorer, run, selection, tally)
        return
    for statement in _statements(scorer, run, selection):
        with session.stream(
            statement, origin, ahead=False, columns=scorer.read_columns, decoder=scorer.decoder
        ) as batches:
            reached("stream.opened")
            yield from batches


def _dataset_batches(
    session: Session, scorer: Scorer, run: Run, selection: Selection, tally: Tally
) -> Iterator[pa.RecordBatch]:
    """Read the features of the selected entities out of files, in one pass for all of them."""
    contract = scorer.contract
    assert contract.dataset is not None
    pairs = _pairs(session, scorer, run, selection)
    if pairs.repeated:  # in SQL the join would give such an entity two rows; files have one
        twice = _entities_twice(session, run, scorer, selection)
        if twice is not None:
            raise twice
    reached("stream.opened")
    everybody = selection.mode is Mode.FULL
    rows = dataset_rows.read(contract.dataset, contract.key, contract.features, pairs, everybody=everybody)
    with Stream(costs=tally.stages) as stream:
        yield from stream.ahead("read", rows, depth=dataset_rows.READ_AHEAD)


def _pairs(session: Session, scorer: Scorer, run: Run, selection: Selection) -> Pairs:
    assert run.snapshot is not None
    key = scorer.contract.key
    if selection.mode is Mode.INCREMENTAL:
        return Pairs.of(_to_score(selection), key, AS_OF.name)
    statement = population_keys(session, scorer.pipeline, key, run.snapshot.as_of)
    with session.stream(statement, scorer.pipeline.entity.query.origin) as batches:
        return Pairs.of(
            (batch for batch in batches if not null_rows(batch, batch.schema.names)), key, run.snapshot.as_of
        )


def _statements(scorer: Scorer, run: Run, selection: Selection) -> Iterator[str]:
    assert run.snapshot is not None
    kept = scorer.pipeline.features.fingerprint
    if selection.mode is Mode.FULL:
        as_of = run.snapshot.as_of
        yield read_population_sql(scorer.pipeline, scorer.contract, as_of, selection.only, fingerprints=kept)
        return
    for chunk in _to_score(selection):
        yield read_keys_sql(scorer.pipeline, scorer.contract, chunk, fingerprints=kept)


def _to_score(selection: Selection) -> Iterator[pa.Table]:
    for chunk in selection.chunks():
        kept = chunk.filter(pc.not_equal(chunk.column("why"), "sampled"))
        if kept.num_rows:
            yield kept


def _target(writer: Session, scorer: Scorer, storage: str) -> list[Column]:
    """Return the storage's columns, typed by pg_attribute, in the order of the prediction batches."""
    found = dict(table_columns(writer, "prescore_rows", storage))
    missing = [column.name for column in scorer.columns if column.name not in found]
    if missing:
        raise PrescoreError(
            f"Storage {storage} has no {', '.join(missing)}. Nothing was written. Its table was changed by hand; restore it."
        )
    unknown = [column.name for column in scorer.columns if canonical(found[column.name]) not in TYPES]
    if unknown:
        raise PrescoreError(
            f"Storage {storage} has other types than prescore gave it: {', '.join(unknown)}. Nothing was written. Restore them."
        )
    return [Column(name=column.name, postgres_type=canonical(found[column.name])) for column in scorer.columns]


def _reject_missing(
    writer: Session,
    session: Session,
    run: Run,
    scorer: Scorer,
    objects: Objects,
    selection: Selection,
    storage_id: int,
    tally: Tally,
) -> None:
    assert run.snapshot is not None
    key = scorer.contract.key
    definitions = ", ".join(f"{quote(c.name)} {c.postgres_type}" for c in key)
    writer.execute(load_query("create_expected_keys", {"key_definitions": definitions}))
    if selection.mode is Mode.FULL:
        statement = population_keys(session, scorer.pipeline, key, run.snapshot.as_of, selection.only)
        with session.stream(statement, scorer.pipeline.entity.query.origin) as batches:
            _copy_keys(writer, key, batches)
    else:
        tables = (chunk.select([c.name for c in key]).to_batches() for chunk in _to_score(selection))
        _copy_keys(writer, key, (batch for batches in tables for batch in batches))
    statement = load_query(
        "reject_missing",
        {
            "storage": objects.storage(storage_id),
            "key_names": objects.key_names,
            "expected_keys": names(key, "e"),
            "as_of": literal(run.snapshot.as_of),
            "generation_id": literal(run.generation_id),
        },
    )
    writer.execute(statement, "Rejecting entities without features")
    count = selection.selected - tally.rows
    tally.rows += count
    tally.rejected += count
    tally.reasons["no_features"] += count


def _copy_keys(writer: Session, key: tuple[Column, ...], batches: Iterator[pa.RecordBatch]) -> None:
    writer.copy_in("pg_temp", "expected_keys", key, batches, "Writing the keys of the population")


def _duplicates(run: Run, scorer: Scorer, objects: Objects, selection: Selection) -> DuplicateEntities:
    """Find out which query multiplies entities, and list them in prescore.rejections."""
    assert run.snapshot is not None
    pipeline = scorer.pipeline
    key = scorer.contract.key
    with run.read_sources() as session:
        twice = _entities_twice(session, run, scorer, selection)
        if twice is not None:
            return twice
        if scorer.contract.dataset is not None:
            pairs = _pairs(session, scorer, run, selection)
            keys, count = dataset_rows.repeated_keys(scorer.contract.dataset, key, pairs)
            return _listed(run, pipeline.features.origin, "duplicate_features", keys, count)
        for statement in _statements(scorer, run, selection):
            fragments = {"query": statement, "key_names": objects.key_names}
            found = session.table(load_query("list_duplicates", fragments), pipeline.features.origin)
            if found.num_rows:
                keys, count = found.select([c.name for c in key]), found.column("entities")[0].as_py()
                return _listed(run, pipeline.features.origin, "duplicate_features", keys, count)
    return DuplicateEntities(pipeline.features.origin, 1, run.run_id if run.lists_rejections else None)


def _entities_twice(session: Session, run: Run, scorer: Scorer, selection: Selection) -> DuplicateEntities | None:
    """Return what is wrong when the entity query returns entities more than once."""
    assert run.snapshot is not None
    pipeline, key = scorer.pipeline, scorer.contract.key
    statement = population_keys(session, pipeline, key, run.snapshot.as_of, selection.only)
    fragments = {"query": statement, "key_names": names(key)}
    found = session.table(load_query("list_duplicates", fragments), pipeline.entity.query.origin)
    if not found.num_rows:
        return None
    keys, count = found.select([c.name for c in key]), found.column("entities")[0].as_py()
    return _listed(run, pipeline.entity.query.origin, "duplicate_entity", keys, count)


def _listed(run: Run, origin: str, reason: str, keys: pa.Table, count: int) -> DuplicateEntities:
    """List entities that are there more than once where people find them."""
    values = [
        {
            "run_id": run.run_id,
            "pipeline": run.pipeline.name,
            "reason": reason,
            "key": json.dumps(row, default=str),
        }
        for row in keys.to_pylist()
    ]
    if not run.lists_rejections:
        return DuplicateEntities(origin, count, None)
    if values:
        run.connection.execute(sa.text(load_query("insert_rejection")), values)
        run.connection.commit()
    return DuplicateEntities(origin, count, run.run_id)


def _without_key(scorer: Scorer) -> QueryRefused:
    columns = ", ".join(column.name for column in (*scorer.contract.key, AS_OF))
    return QueryRefused(
        scorer.pipeline.features.origin,
        f"it returned a row with a NULL in {columns}",
        "Take key and as_of from batch, and look at outer joins.",
    )


def _read_back(writer: Session, scorer: Scorer, storage: str, sent: pa.Table | None, generation_id: int) -> None:
    if sent is None:
        return
    key = scorer.contract.key
    statement = load_query(
        "read_back_rows",
        {
            "storage": storage,
            "columns_read": ", ".join(f"{c.read('r.' + quote(c.name))} AS {quote(c.name)}" for c in scorer.columns),
            "key_arrays": key_arrays(sent, key),
            "key_names": names(key),
            "key_matches": " AND ".join(f"r.{quote(c.name)} = sent.{quote(c.name)}" for c in key),
            "generation_id": literal(generation_id),
        },
    )
    found = writer.table(statement, "Reading rows back")
    order = [(c.name, "ascending") for c in key]
    there, went = found.sort_by(order).to_pylist(), sent.sort_by(order).to_pylist()
    differing = [
        column.name
        for column in scorer.columns
        if [row[column.name] for row in there] != [row[column.name] for row in went]
    ]
    if differing:
        raise ReadBackDiffers(storage, differing)
