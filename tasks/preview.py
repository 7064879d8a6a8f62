"""A preview: a few entities, the features that are read of them, and what the model gives; nothing is written."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.columns import Column, key_arrays, schema_of
from tasks.database import literal, load_query, quote
from tasks.errors import UsageError
from tasks.features import AS_OF, FeatureContract, QueryRefused, key_list, read_features
from tasks.pipeline import Pipeline
from tasks.transport import Session

if TYPE_CHECKING:
    from tasks.scoring import Scorer

#: Why an entity is rejected that the feature query returned no row for.
NO_FEATURES = "no_features"


@dataclass(frozen=True, kw_only=True)
class PreviewedEntity:
    """One entity with what a run would read and write of it. Values are those of the database, by column."""

    key: dict[str, Any]
    #: As the feature query returns them; None when it returns no row.
    features: dict[str, Any] | None = field(repr=False)
    #: The columns that the model gets; None where it would not be asked.
    preprocessed: dict[str, Any] | None = field(default=None, repr=False)
    #: None where the entity would be rejected.
    predictions: dict[str, Any] | None = field(default=None, repr=False)
    #: Why it would be rejected.
    rejected: str | None = None


def choose_keys(session: Session, pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime, limit: int) -> pa.Table:
    """Return the keys of at most ``limit`` entities of the population: the same ones each time, spread over it."""
    fragments = {
        **_fragments(pipeline, key, as_of),
        "key_missing": " OR ".join(f"{quote(column.name)} IS NULL" for column in key),
        "rows": literal(limit),
    }
    return session.table(load_query("choose_entities", fragments), _origin(pipeline))


def find_keys(
    session: Session, pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime, values: Sequence[str]
) -> pa.Table:
    """Return the keys of the entities that ``values`` name, in their order: one value for each key column, row by row.

    Raises
    ------
    UsageError
        For a number of values that makes no whole keys, values of another type, and entities that are not there.
    """
    named = _parse_keys(pipeline, key, values)
    position = _spare_name(key)
    fragments = {**_fragments(pipeline, key, as_of), "key_arrays": key_arrays(named, key), "position": quote(position)}
    found = session.table(load_query("find_named_entities", fragments), _origin(pipeline))
    there = set(found.column(position).to_pylist())
    absent = [str(at) for at in range(1, named.num_rows + 1) if at not in there]
    if absent:
        raise UsageError(
            f"Of the {named.num_rows} entities that --key names, number {', '.join(absent)} is not in the population of "
            f"{pipeline.name} at {as_of:%Y-%m-%d %H:%M:%S%z}. Nothing was scored. Correct the key, or look at what "
            "[entity] query returns."
        )
    return found.drop_columns([position])


def read_rows(
    session: Session, pipeline: Pipeline, contract: FeatureContract, keys: pa.Table, as_of: datetime
) -> pa.Table:
    """Return the feature rows of some entities at one instant, in the order of ``keys``: key, as_of and features.

    An entity that the feature query returns no row for is left out.

    Raises
    ------
    QueryRefused
        When it returns several rows for one.
    """
    instants = pa.array([as_of] * keys.num_rows, AS_OF.arrow_type)
    found = read_features(session, pipeline, contract, keys.append_column(AS_OF.name, instants))
    names = [column.name for column in contract.key]
    if found.group_by(names).aggregate([]).num_rows < found.num_rows:
        raise QueryRefused(
            f"{pipeline.name}/{pipeline.features.origin}",
            f"it returned {found.num_rows} rows for at most {keys.num_rows} entities",
            "Aggregate, or restrict the join that multiplies rows.",
        )
    position, row = _spare_name(contract.key), _spare_name(contract.key, "row")
    wanted = keys.append_column(position, pa.array(range(keys.num_rows), pa.int64()))
    there = found.select(names).append_column(row, pa.array(range(found.num_rows), pa.int64()))
    return found.take(wanted.join(there, names, join_type="inner").sort_by(position).column(row)).combine_chunks()


def score_rows(scorer: Scorer, keys: pa.Table, rows: pa.Table) -> list[PreviewedEntity]:
    """Score feature rows as a run would, and return one entity for each key, in order.

    Raises
    ------
    ModelFailed, ColumnsMissing
        As a run would.
    """
    from tasks.bundle import frame_table, preprocessed
    from tasks.scoring import REJECTED, Tally
    from tasks.threads import one_thread

    names = [column.name for column in scorer.contract.key]
    batches = rows.to_batches()
    with one_thread():
        scored = list(scorer.predictions(batches, 0, Tally()))
    written = pa.Table.from_batches(scored) if scored else schema_of(scorer.columns).empty_table()
    # A prediction that is not finite was asked for; other rejected rows never reach preprocessing.
    reasons = written.column(REJECTED.name)
    asked = pc.or_kleene(pc.is_null(reasons), pc.fill_null(pc.starts_with(reasons, "non_finite:"), False))
    kept = rows.filter(asked)
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    if kept.num_rows:
        frame = scorer.bundle.prepare(preprocessed(kept, scorer.contract.features, scorer.preprocess))
        identities = (_identity(row, names) for row in kept.select(names).to_pylist())
        seen = dict(zip(identities, frame_table(frame).to_pylist(), strict=True))
    found = {
        _identity(row, names): (row, result) for row, result in zip(rows.to_pylist(), written.to_pylist(), strict=True)
    }
    return [_entity(scorer, key, found.get(_identity(key, names)), seen) for key in keys.to_pylist()]


def _entity(
    scorer: Scorer,
    key: dict[str, Any],
    found: tuple[dict[str, Any], dict[str, Any]] | None,
    seen: dict[tuple[Any, ...], dict[str, Any]],
) -> PreviewedEntity:
    if found is None:
        return PreviewedEntity(key=key, features=None, rejected=NO_FEATURES)
    row, result = found
    rejected = result["rejected"]
    return PreviewedEntity(
        key=key,
        features={column.name: row[column.name] for column in scorer.contract.features},
        preprocessed=seen.get(_identity(key, list(key))),
        predictions=None if rejected else {column.name: result[column.name] for column in scorer.outputs},
        rejected=rejected,
    )


def _spare_name(key: Sequence[Column], name: str = "position") -> str:
    """Return a name for a column beside the key's, which may have any."""
    while name in {column.name for column in key}:
        name += "_"
    return name


def _identity(row: dict[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _parse_keys(pipeline: Pipeline, key: tuple[Column, ...], values: Sequence[str]) -> pa.Table:
    width = len(key)
    if len(values) % width:
        raise UsageError(
            f"--key was given {len(values)} times, {pipeline.name} has {width} key columns: "
            f"{', '.join(column.name for column in key)}. Nothing was scored. Give --key once for each of them, in this "
            "order, entity after entity."
        )
    arrays = []
    for position, column in enumerate(key):
        texts = values[position::width]
        try:
            if column.postgres_type == "uuid":
                texts = [str(uuid.UUID(text)) for text in texts]
            arrays.append(pa.array(texts, pa.string()).cast(column.arrow_type))
        except (ValueError, pa.ArrowInvalid):
            raise UsageError(
                f"A value of --key is no {column.postgres_type}, which the key column {column.name} is. Nothing was "
                "scored. Correct the value."
            ) from None
    return pa.table(arrays, names=[column.name for column in key])


def _fragments(pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime) -> dict[str, str]:
    return {
        "as_of": literal(as_of),
        "entity_keys": key_list(key, "entities"),
        "entity_query": pipeline.entity.query.text,
        "keys_read": ", ".join(
            f"{column.read('judged.' + quote(column.name))} AS {quote(column.name)}" for column in key
        ),
        "key_names": ", ".join(quote(column.name) for column in key),
    }


def _origin(pipeline: Pipeline) -> str:
    return f"{pipeline.name}/{pipeline.entity.query.origin}"
