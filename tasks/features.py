"""Features: the batch relation, the feature query over it, and the rows that come back, which keep their contract.

The contract: key and as_of in the output, exactly one row per (key, as_of) of ``batch``. The same query serves training
and scoring; only ``batch`` differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa
import sqlalchemy as sa

from tasks import columns, dataset_rows, datasets
from tasks.columns import Column, array_literal, key_arrays, schema_of, whole
from tasks.database import connect, literal, load_query, quote, raw_execute
from tasks.datasets import Dataset
from tasks.errors import PrescoreError
from tasks.fingerprints import FINGERPRINT, fenced, fingerprint
from tasks.key_ranges import KeyRange, within
from tasks.outages import outage_of
from tasks.pipeline import Pipeline, UserQuery
from tasks.transport import Session, open_reading_session, scrub

AS_OF = Column(name="as_of", postgres_type="timestamp with time zone")
#: The column of labels.sql that a model learns; it may be absent.
LABEL = "label"

# How many keys travel in one query: 200,000 literal keys take 0.27 s to parse and bind.
KEYS_PER_QUERY = 200_000


class QueryRefused(PrescoreError):
    """A user's query cannot be run, or does not return what it has to."""

    def __init__(self, origin: str, differs: str, remedy: str) -> None:
        self.origin = origin
        super().__init__(f"{origin}: {differs}. Nothing was scored; what was published is still served. {remedy}")


@dataclass(frozen=True, kw_only=True)
class FeatureContract:
    """What the queries of a pipeline return, as PostgreSQL describes them."""

    #: Key columns in declared order.
    key: tuple[Column, ...]
    #: Feature columns in the order of the feature query, without key and as_of.
    features: tuple[Column, ...]
    #: The files that the features come from, as they were looked at; None where a query returns them.
    dataset: Dataset | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """Key, as_of and features: what a batch of feature rows holds, in order."""
        return (*self.key, AS_OF, *self.features)


@dataclass(frozen=True, kw_only=True)
class _Described:
    name: str
    postgres_type: str
    typtype: str

    @property
    def typed(self) -> tuple[str, str, str]:
        """Name, type and kind of type."""
        return self.name, self.postgres_type, self.typtype


def feature_columns(url: str, pipeline: Pipeline) -> FeatureContract:
    """Describe the entity and feature queries of a pipeline; no row is read.

    Raises
    ------
    QueryRefused, TypeNotSupported
        Naming the file, the column and the remedy.
    """
    with connect(url, "prescore check") as connection:
        return describe(connection, pipeline)


def describe(connection: sa.Connection, pipeline: Pipeline) -> FeatureContract:
    """Describe the queries of a pipeline over an open connection, whose transaction is rolled back."""
    key = describe_key(connection, pipeline)
    query = pipeline.features.query
    if query is None:
        assert pipeline.features.dataset is not None
        dataset = datasets.look(pipeline.features.dataset, pipeline.folder, key)
        _require_ttl(pipeline, dataset.features)
        return FeatureContract(key=key, features=dataset.features, dataset=dataset)
    nulls = ", ".join(f"NULL::{column.postgres_type} AS {quote(column.name)}" for column in key)
    statement = load_query("describe_features", {"as_of": literal(_EPOCH), "key_nulls": nulls, "query": query.text})
    found = _describe(connection, statement, query)
    _require_names(query, found, [column.name for column in key] + [AS_OF.name])
    identity = {*(column.name for column in key), AS_OF.name}
    features = columns.feature_columns([column.typed for column in found if column.name not in identity], query.origin)
    if not features:
        raise QueryRefused(query.origin, "it returns no feature beside key and as_of", "Select at least one feature.")
    _require_ttl(pipeline, features)
    return FeatureContract(key=key, features=features)


def narrowed(contract: FeatureContract, taken: Sequence[Column]) -> FeatureContract:
    """Return a contract over a dataset without what a model does not take: a lake's table is wide.

    Raises
    ------
    DatasetRefused
        When the model takes a column that cannot be read.
    """
    if contract.dataset is None:
        return contract
    names = {column.name for column in taken}
    contract.dataset.require_usable(names)
    return replace(contract, features=tuple(column for column in contract.features if column.name in names))


def describe_key(connection: sa.Connection, pipeline: Pipeline) -> tuple[Column, ...]:
    """Describe the key columns that the entity query returns, in declared order."""
    query = pipeline.entity.query
    statement = load_query("describe_entities", {"as_of": literal(_EPOCH), "query": query.text})
    found = _describe(connection, statement, query)
    _require_names(query, found, list(pipeline.entity.key))
    by_name = {column.name: column for column in found}
    return columns.key_columns([by_name[name].typed for name in pipeline.entity.key], query.origin)


def describe_changes(connection: sa.Connection, pipeline: Pipeline) -> None:
    """Refuse a changes query that does not return the key."""
    query = pipeline.features.changes
    if query is None:
        return
    statement = load_query("describe_changes", {"as_of": literal(_EPOCH), "query": query.text})
    _require_names(query, _describe(connection, statement, query), list(pipeline.entity.key))


def describe_labels(connection: sa.Connection, pipeline: Pipeline, key: Sequence[Column]) -> Column | None:
    """Refuse a labels query that does not return key and as_of; return its label column, None without one."""
    query = None if pipeline.training is None else pipeline.training.labels
    if query is None:
        return None
    statement = load_query("describe_entities", {"as_of": literal(_EPOCH), "query": query.text})
    found = _describe(connection, statement, query)
    _require_names(query, found, [*(column.name for column in key), AS_OF.name])
    label = columns.feature_columns([column.typed for column in found if column.name == LABEL], query.origin)
    return label[0] if label else None


def key_list(key: Sequence[Column], relation: str) -> str:
    """Return the key columns of a user's relation, cast to the types of the key, for a SELECT list."""
    return ", ".join(f"{relation}.{quote(c.name)}::{c.postgres_type} AS {quote(c.name)}" for c in key)


def read_population_sql(
    pipeline: Pipeline,
    contract: FeatureContract,
    as_of: datetime,
    only: KeyRange | None = None,
    *,
    fingerprints: bool = False,
) -> str:
    """Return the statement that reads the features of the whole population at ``as_of``, or of a range of its keys.

    With ``fingerprints`` each row has that column too.
    """
    return load_query(
        "read_features_of_population",
        {
            "as_of": literal(as_of),
            "entity_keys": key_list(contract.key, "entities"),
            "entity_query": pipeline.entity.query.text,
            "within": within(only, "entities"),
            **_feature_parts(pipeline, contract, fingerprints),
        },
    )


def read_keys_sql(pipeline: Pipeline, contract: FeatureContract, keys: pa.Table, *, fingerprints: bool = False) -> str:
    """Return the statement that reads the features of some entities, each at its own as_of, with fingerprints if asked.

    ``keys`` has the key columns (uuid as text) and ``as_of``; at most ``KEYS_PER_QUERY`` rows. Keys travel in the
    query, never through a table of ours: so they are seen in the run's snapshot, on a replica, on another server.
    """
    # A timestamp becomes text without its zone: the session is in UTC, and the cast says so.
    instants = whole(keys, AS_OF.name).cast(pa.timestamp("us"))
    return load_query(
        "read_features_of_keys",
        {
            "key_arrays": key_arrays(keys, contract.key),
            "as_of_array": array_literal(instants, AS_OF),
            "key_names": ", ".join(quote(column.name) for column in contract.key),
            **_feature_parts(pipeline, contract, fingerprints),
        },
    )


def _query(pipeline: Pipeline) -> UserQuery:
    """Return the query of a pipeline whose features come from one."""
    if pipeline.features.query is None:
        raise LookupError("the features come from a dataset")
    return pipeline.features.query


def training_frame(url: str, pipeline: Pipeline, as_of: datetime) -> pa.Table:
    """Return what is known to train on at ``as_of``: key, as_of, label (when labels.sql has one) and features.

    One row per row of labels.sql that has features, ordered by as_of, key and label; Arrow types by the type table.

    Raises
    ------
    QueryRefused
        When the pipeline has no labels.sql, or the query does not return key and as_of.
    """
    labels = None if pipeline.training is None else pipeline.training.labels
    if labels is None:
        raise QueryRefused(f"{pipeline.name}/pipeline.toml", "[training] labels is not declared", "Name a labels.sql.")
    with connect(url, "prescore train") as connection:
        contract = describe(connection, pipeline)
        label = describe_labels(connection, pipeline, contract.key)
    _require_history(contract)
    read = [f"{c.read(f'labels.{quote(c.name)}::{c.postgres_type}')} AS {quote(c.name)}" for c in contract.key]
    read.append("labels.as_of::timestamptz AS as_of")
    if label is not None:
        read.append(f"{label.read('labels.label')} AS label")
    fragments = {"as_of": literal(as_of), "label_columns": ", ".join(read), "label_query": labels.text}
    identity = [*(column.name for column in contract.key), AS_OF.name]
    with open_reading_session(url) as session:
        known = session.table(load_query("read_labels", fragments), labels.origin)
        features = read_features(session, pipeline, contract, known.group_by(identity).aggregate([]).select(identity))
    joined = known.join(features, identity, join_type="inner")
    order = (AS_OF.name, *identity[:-1], *(() if label is None else (label.name,)))
    return joined.sort_by([(name, "ascending") for name in order])


def _require_history(contract: FeatureContract) -> None:
    """Refuse to train on rows that say how things are now: an old label would meet what was only known after it."""
    dataset = contract.dataset
    if dataset is None:
        return
    if dataset.declared.as_of is None:
        raise datasets.DatasetRefused(
            dataset.origin,
            "it has no column that says from when on a row was known, so that a model trained on it would see the future",
            "Let it keep earlier rows with such an instant, and declare as_of in [features.dataset]; or train elsewhere and "
            "register the model.",
        )
    dataset.require_usable()


def read_features(
    session: Session, pipeline: Pipeline, contract: FeatureContract, wanted: pa.Table, what: str | None = None
) -> pa.Table:
    """Return the feature rows of (key, as_of), read as an incremental run reads them.

    The pairs travel as literals, so that the planner knows how many there are: joined to labels.sql in one statement it
    guessed one row for thousands, and chose nested loops that took minutes instead of seconds.
    """
    if contract.dataset is not None:
        return dataset_rows.read_table(contract.dataset, contract.key, contract.features, wanted)
    origin = what or pipeline.features.origin
    found = [
        session.table(read_keys_sql(pipeline, contract, wanted.slice(start, KEYS_PER_QUERY)), origin)
        for start in range(0, wanted.num_rows, KEYS_PER_QUERY)
    ]
    return pa.concat_tables(found) if found else schema_of(contract.columns).empty_table()


def _feature_parts(pipeline: Pipeline, contract: FeatureContract, fingerprints: bool) -> dict[str, str]:
    """Return the fragments that every statement has which reads features."""
    query, read = _query(pipeline).text, _read_columns(contract)
    if not fingerprints:
        return {"feature_columns": read, "feature_query": query}
    found = f"{fingerprint(contract.features, 'features')} AS {quote(FINGERPRINT.name)}"
    return {"feature_columns": f"{read}, {found}", "feature_query": fenced(query)}


def _read_columns(contract: FeatureContract) -> str:
    parts = [
        f"{column.read(f'features.{quote(column.name)}::{column.postgres_type}')} AS {quote(column.name)}"
        for column in contract.key
    ]
    parts.append("features.as_of::timestamptz AS as_of")
    parts += [f"{c.read('features.' + quote(c.name))} AS {quote(c.name)}" for c in contract.features]
    return ", ".join(parts)


def _describe(connection: sa.Connection, statement: str, query: UserQuery) -> list[_Described]:
    try:
        raw_execute(connection, "SET TRANSACTION READ ONLY")
        cursor = raw_execute(connection, statement)
        description = list(cursor.description or ())
        oids = [column.type_code for column in description]
        named = {
            row.oid: row
            for row in connection.execute(sa.text(load_query("describe_types")), {"oids": oids or [0]}).all()
        }
    except Exception as error:
        sqlstate = getattr(error, "pgcode", None)
        if sqlstate is None and not isinstance(error, sa.exc.DBAPIError):
            raise
        outage = outage_of(sqlstate)
        if outage is not None:
            raise QueryRefused(query.origin, outage.what, outage.remedy) from None
        reason = scrub(str(error), sqlstate or "42")
        raise QueryRefused(query.origin, f"PostgreSQL refuses it: {reason}", "Correct the query.") from None
    finally:
        connection.rollback()
    names = [column.name for column in description]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise QueryRefused(
            query.origin, f"it returns {', '.join(twice)} more than once", "Give each column a name of its own."
        )
    return [
        _Described(
            name=column.name, postgres_type=named[column.type_code].name, typtype=named[column.type_code].typtype
        )
        for column in description
    ]


def _require_ttl(pipeline: Pipeline, features: Sequence[Column]) -> None:
    """Refuse [features.ttl] over columns that it does not return, or that are no instants."""
    origin, found = pipeline.features.origin, {column.name: column.postgres_type for column in features}
    for name, declared in pipeline.features.ttl.items():
        missing = [each for each in (name, *declared.features) if each not in found]
        if missing:
            raise QueryRefused(
                origin,
                f"it does not return {', '.join(missing)}, named by [features.ttl] (it returns {', '.join(found)})",
                "Add the column, or correct [features.ttl].",
            )
        if found[name] != AS_OF.postgres_type:
            raise QueryRefused(
                origin,
                f"{name}, whose age [features.ttl] limits, is {found[name]}",
                "Return an instant, a timestamp with time zone: (column AT TIME ZONE 'UTC') makes one.",
            )


def _require_names(query: UserQuery, found: Sequence[_Described], wanted: Sequence[str]) -> None:
    names = [column.name for column in found]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise QueryRefused(
            query.origin,
            f"it does not return {', '.join(missing)} (it returns {', '.join(names) or 'nothing'})",
            "Add the column, or correct [entity] key.",
        )


_EPOCH = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
