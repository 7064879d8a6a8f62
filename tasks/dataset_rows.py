"""Rows of a dataset, streamed: those that answer pairs of key and instant, those that changed, those that are there twice.

Every reading ends with the question whether the files are still those that were looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from tasks.columns import Column, Kind, from_stored, schema_of
from tasks.datasets import AS_OF_NAME, INSTANT, INTEGERS, Dataset, DatasetRefused, File
from tasks.errors import printable
from tasks.pairs import NEVER, Pairs, micros, null_rows, tags

logger = logging.getLogger(__name__)

# As much as a batch out of PostgreSQL.
BATCH_BYTES = 8 * 1024 * 1024
# Rows of one batch, however narrow or wide they are.
LEAST_ROWS, MOST_ROWS = 1_024, 131_072
# Batches that are decoded ahead while the model predicts. pyarrow's own 16, with whole row groups fetched ahead, took 1.8
# times the memory for 300,000 rows in one row group, and no less time.
READ_AHEAD = 2
# Columns come in pieces of this size instead of a row group at once.
BUFFER_BYTES = 1024 * 1024
# Entities listed when a dataset has them twice.
MOST_LISTED = 1_000


def read(
    dataset: Dataset, key: Sequence[Column], features: Sequence[Column], pairs: Pairs, *, everybody: bool = False
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that answer pairs, in batches: key, as_of of the pair, features; types of the table.

    The files are read once, and before that the key and the instant alone where rows have one. ``pairs`` knows afterwards
    which of them were answered. With ``everybody`` the pairs are a whole population, and rows of other keys are counted.

    Raises
    ------
    DatasetChanged
        Before the last batch is taken for complete, when a file was replaced, truncated, added or removed meanwhile.
    DatasetRefused
        For a NULL in a key or an instant, and a file that cannot be read.
    """
    as_of = dataset.declared.as_of
    if as_of is not None:
        for batch in _scan(dataset, key, [], pairs):
            pairs.note(_groups(batch, key, pairs), micros(batch.column(as_of)))
        pairs.close()
    known = 0
    for batch in _scan(dataset, key, features, pairs):
        groups = _groups(batch, key, pairs)
        known += int(np.count_nonzero(groups >= 0))
        instants = None if as_of is None else micros(batch.column(as_of))
        rows, answered = pairs.answer(groups, instants)
        if len(rows):
            yield _answers(dataset, batch, key, features, rows, pairs.instants_of(answered))
    dataset.require_unchanged()
    if everybody:
        dataset.counts.rows, dataset.counts.outside = dataset.rows, dataset.rows - known
        logger.info("%s: %d rows, %d of nobody in the population", dataset.origin, dataset.rows, dataset.rows - known)


def read_table(dataset: Dataset, key: Sequence[Column], features: Sequence[Column], wanted: pa.Table) -> pa.Table:
    """Return the rows of some pairs, with key columns and ``as_of`` in ``wanted``; for results whose size is bounded.

    Raises
    ------
    DatasetRefused
        As :func:`read`, and when several rows answer one pair.
    """
    pairs = Pairs.of([wanted], key, AS_OF_NAME)
    batches = list(read(dataset, key, features, pairs))
    if pairs.answered_twice:
        raise DatasetRefused(
            dataset.origin,
            f"it holds several rows for {pairs.answered_twice:,} of {len(pairs):,} entities",
            f"It must hold one row for each {_identity_of(dataset, key)}. Let the program that writes it aggregate.",
        )
    schema = _schema(key, features)
    return pa.Table.from_batches(batches, schema) if batches else schema.empty_table()


def repeated_keys(dataset: Dataset, key: Sequence[Column], pairs: Pairs) -> tuple[pa.Table, int]:
    """Return keys that several rows answer, at most ``MOST_LISTED``, and how many there are."""
    for _ in read(dataset, key, [], pairs):
        pass
    count = pairs.answered_twice
    found: list[dict[str, Any]] = []
    listed: set[tuple[Any, ...]] = set()
    for batch in _scan(dataset, key, [], pairs) if count else ():
        groups = _groups(batch, key, pairs)
        twice = pairs.is_answered_twice(groups)
        kept = batch.filter(pa.array(twice))
        keys = [_wide(kept.column(column.name), column) for column in key]
        for row in pa.table(keys, names=[column.name for column in key]).to_pylist():
            if tuple(row.values()) not in listed and len(found) < MOST_LISTED:
                listed.add(tuple(row.values()))
                found.append(row)
    return pa.Table.from_pylist(found, schema_of(key)), count


def changed_keys(
    dataset: Dataset,
    key: Sequence[Column],
    since: datetime,
    known_since: datetime,
    until: datetime,
    *,
    at_since: bool,
    most: int,
) -> pa.Table | None:
    """Return the keys of rows that are newer than ``since``, each once, or None when more than ``most`` rows are.

    Parameters
    ----------
    since
        The newest instant that was read before, by ``updated_at`` or, where none is declared, ``as_of``.
    known_since, until
        With both declared: rows count, too, whose ``as_of`` lies between the run before and this one. Rows that are known
        from later on are left to a later run.
    at_since
        Whether rows of the very instant ``since`` count, too: not, when the dataset is the one that was read then.
    """
    declared, column = dataset.declared, dataset.declared.changes_by
    assert column is not None
    low, known_low, high = _micros_of(since), _micros_of(known_since), _micros_of(until)
    found: list[pa.Table] = []
    rows = 0
    for batch in _scan(dataset, key, [Column(name=column, postgres_type=INSTANT)], None):
        at = micros(batch.column(column).fill_null(until))
        newer = at >= low if at_since else at > low
        if declared.as_of is not None:
            known = micros(batch.column(declared.as_of))
            newer = (newer | (known > known_low) if declared.updated_at is not None else newer) & (known <= high)
        kept = batch.filter(pa.array(newer))
        rows += kept.num_rows
        if rows > most:
            return None
        if kept.num_rows:
            keys = [_wide(kept.column(part.name), part) for part in key]
            found.append(pa.table(keys, names=[part.name for part in key]))
    dataset.require_unchanged()
    if not found:
        return pa.schema([pa.field(c.name, _wide_type(c)) for c in key]).empty_table()
    return pa.concat_tables(found).group_by([column.name for column in key]).aggregate([])


def newest(dataset: Dataset, until: datetime) -> datetime | None:
    """Return the newest instant of the column that says how new rows are, up to ``until``; None when there is none."""
    column = dataset.declared.changes_by
    assert column is not None
    high, latest = _micros_of(until), None
    for batch in _scan(dataset, (), [Column(name=column, postgres_type=INSTANT)], None):
        at = micros(batch.column(column).drop_null())
        at = at[at <= high]
        if len(at):
            latest = max(int(at.max()), NEVER if latest is None else latest)
    instant: datetime | None = pa.scalar(latest, pa.timestamp("us", "UTC")).as_py()
    return instant


def _micros_of(instant: datetime) -> int:
    return int(micros(pa.array([instant], pa.timestamp("us", "UTC")))[0])


def _identity_of(dataset: Dataset, key: Sequence[Column]) -> str:
    names = [column.name for column in key]
    return ", ".join([*names, *([dataset.declared.as_of] if dataset.declared.as_of else [])])


def _schema(key: Sequence[Column], features: Sequence[Column]) -> pa.Schema:
    return schema_of([*key, Column(name=AS_OF_NAME, postgres_type=INSTANT), *features])


def _groups(batch: pa.RecordBatch, key: Sequence[Column], pairs: Pairs) -> Any:
    wide = pa.RecordBatch.from_arrays(
        [_wide(batch.column(column.name), column) for column in key], names=[column.name for column in key]
    )
    return pairs.groups(tags(wide, key))


def _wide_type(column: Column) -> pa.DataType:
    return pa.int64() if column.postgres_type in INTEGERS else column.arrow_type


def _wide(values: pa.Array, column: Column) -> pa.Array:
    """Return key values as they are compared: integers of any width, a uuid as PostgreSQL writes it."""
    found = from_stored(values, _wide_type(column))
    return pc.utf8_lower(found) if column.postgres_type == "uuid" else found


def _answers(
    dataset: Dataset,
    batch: pa.RecordBatch,
    key: Sequence[Column],
    features: Sequence[Column],
    rows: Any,
    instants: pa.Array,
) -> pa.RecordBatch:
    if len(rows) != batch.num_rows or not np.array_equal(rows, np.arange(len(rows))):
        batch = batch.take(pa.array(rows))
    arrays = [_wide(batch.column(column.name), column).cast(column.arrow_type) for column in key]
    arrays.append(instants)
    for column in features:
        try:
            arrays.append(from_stored(batch.column(column.name), column.arrow_type))
        except pa.ArrowInvalid:
            raise DatasetRefused(
                dataset.origin,
                f"column {printable(column.name)} holds values beyond {column.postgres_type}",
                "Write the column as a type that holds them.",
            ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=_schema(key, features))


def _scan(
    dataset: Dataset, key: Sequence[Column], features: Sequence[Column], pairs: Pairs | None
) -> Iterator[pa.RecordBatch]:
    """Yield all rows of the files, or of the row groups that can hold a wanted key, with the columns that are needed."""
    as_of = dataset.declared.as_of
    identity = [column.name for column in key]
    if as_of is not None and key:
        identity.append(as_of)
    names = list(dict.fromkeys([*identity, *(column.name for column in features)]))
    width = sum(32 if column.kind is Kind.TEXT else 8 for column in (*key, *features)) or 8
    size = min(MOST_ROWS, max(LEAST_ROWS, BATCH_BYTES // width))
    options = pads.ParquetFragmentScanOptions(use_buffered_stream=True, buffer_size=BUFFER_BYTES, pre_buffer=False)
    for file in dataset.files:
        fragment = _with_wanted(file.fragment, key, pairs)
        if fragment is None:
            continue
        try:
            scanner = fragment.scanner(
                columns=names,
                batch_size=size,
                batch_readahead=READ_AHEAD,
                fragment_readahead=1,
                fragment_scan_options=options,
            )
            for batch in scanner.to_batches():
                if batch.num_rows:
                    _require_no_null(dataset, file, batch, identity)
                    yield batch
        except (pa.ArrowException, OSError) as error:
            dataset.require_unchanged()
            raise DatasetRefused(
                dataset.origin,
                f"{printable(dataset.shown(file.path))} cannot be read to its end ({type(error).__name__})",
                "It is damaged, or the store is out of reach. Write it again, or run again.",
            ) from None


def _with_wanted(fragment: Any, key: Sequence[Column], pairs: Pairs | None) -> Any:
    """Return a file without the row groups whose keys nobody wants, by their statistics; None when none is left."""
    if pairs is None or len(key) != 1 or key[0].postgres_type not in INTEGERS:
        return fragment
    groups = fragment.row_groups
    kept = []
    for group in groups:
        limits = (group.statistics or {}).get(key[0].name)
        low, high = ((limits or {}).get(bound) for bound in ("min", "max"))
        if not isinstance(low, int) or not isinstance(high, int) or pairs.touches(low, high):
            kept.append(group.id)
    if len(kept) == len(groups):
        return fragment
    return fragment.subset(row_group_ids=kept) if kept else None


def _require_no_null(dataset: Dataset, file: File, batch: pa.RecordBatch, names: Sequence[str]) -> None:
    count = null_rows(batch, names)
    if count:
        raise DatasetRefused(
            dataset.origin,
            f"{printable(dataset.shown(file.path))} holds {count:,} or more rows with a NULL in {', '.join(names)}",
            "Leave such rows out where the file is written: they belong to nobody.",
        )
