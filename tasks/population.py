"""Who needs a prediction: new, changed, due, invalidated and gone entities; and the ledger that proves nobody vanished."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from tasks.columns import Column, key_hash
from tasks.database import literal, load_query, quote
from tasks.errors import PrescoreError
from tasks.features import AS_OF, KEYS_PER_QUERY, FeatureContract, key_list
from tasks.pipeline import Pipeline
from tasks.transport import Session, quoted_table

# Beyond this share of the population a full run is cheaper than reading and merging so many selected keys.
FULL_ABOVE = 0.2
# How many skipped entities a run scores again: misses of 1 % of the skipped are found with 87 % probability a run.
SKIPPED_SAMPLE = 200


class Mode(StrEnum):
    """Which entities a run scores."""

    #: Every entity of the population.
    FULL = "full"
    #: Entities that are new, changed or due.
    INCREMENTAL = "incremental"


class LedgerMismatch(PrescoreError):
    """What was written is not the population that was read."""

    def __init__(self, differs: str, listing: str) -> None:
        super().__init__(
            f"The ledger does not balance: {differs}. Nothing was published; the last good publication is "
            f"still served. {listing}"
        )


@dataclass(frozen=True, kw_only=True)
class Served:
    """What head serves now, as far as a selection needs it."""

    storage_id: int
    generation_id: int
    watermark: datetime
    model_version: int
    model: str
    logic_digest: str
    #: Rows scored in an earlier generation are superseded.
    valid_since: int
    #: Generations that were found bad: their rows are scored again.
    quarantined: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Who needs a prediction in this run, in numbers and, for an incremental run, by key."""

    mode: Mode
    #: Why everything is scored; empty for an incremental run.
    because: str
    #: Entities in the population and the sum of the 64-bit hashes of their keys.
    population: int
    key_checksum: Decimal
    #: The same sum over the entities that are new, changed or due.
    selected_checksum: Decimal
    null_keys: int
    new: int
    changed: int
    due: int
    gone: int
    served: int
    #: Incremental: key columns, as_of, why; one row per entity to score, and sampled ones of the skipped.
    keys: pa.Table | None = field(default=None, repr=False)
    #: Incremental: key columns of entities to remove.
    gone_keys: pa.Table | None = field(default=None, repr=False)

    @property
    def selected(self) -> int:
        """Entities that get a prediction or a rejection in this run."""
        return self.population if self.mode is Mode.FULL else self.new + self.changed + self.due

    @property
    def expected_checksum(self) -> Decimal:
        """Sum of the hashes of the keys that this run has to write."""
        return self.key_checksum if self.mode is Mode.FULL else self.selected_checksum

    @property
    def unchanged(self) -> int:
        """Entities that this run does not need to score."""
        return self.population - self.selected

    def chunks(self) -> Iterator[pa.Table]:
        """Yield the selected keys in pieces that fit one query."""
        if self.keys is not None:
            for start in range(0, self.keys.num_rows, KEYS_PER_QUERY):
                yield self.keys.slice(start, KEYS_PER_QUERY)


def why_full(pipeline: Pipeline, served: Served | None, model_version: int, *, asked: bool) -> str:
    """Return why a run scores everything, or an empty text when an incremental run will do."""
    if served is None:
        return "nothing is served yet"
    if asked:
        return "asked for"
    if served.model_version != model_version or served.model != pipeline.model.name:
        return f"invalidated: model version {served.model_version} is served, {model_version} is current"
    if served.logic_digest != pipeline.logic_digest:
        return "invalidated: the logic of the pipeline changed"
    return ""


def summarise(
    session: Session, pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime, served: Served | None, because: str
) -> Selection:
    """Count who needs a prediction; a run that would select more than ``FULL_ABOVE`` of the population becomes full."""
    statement = load_query("summarise_population", _fragments(pipeline, key, as_of, served, full=bool(because)))
    row = session.table(statement, _what(pipeline)).to_pylist()[0]
    selection = Selection(
        mode=Mode.FULL if because else Mode.INCREMENTAL,
        because=because,
        population=row["population"],
        key_checksum=Decimal(row["key_checksum"]),
        selected_checksum=Decimal(row["selected_checksum"]),
        null_keys=row["null_keys"],
        new=row["new"],
        changed=row["changed"],
        due=row["due"],
        gone=row["gone"],
        served=row["served"],
    )
    touched = selection.selected + selection.gone
    if not because and touched > FULL_ABOVE * selection.population:
        share = f"{touched:,} of {selection.population:,} entities are new, changed, due or gone"
        return replace(selection, mode=Mode.FULL, because=share)
    return selection


def select(
    session: Session,
    pipeline: Pipeline,
    key: tuple[Column, ...],
    as_of: datetime,
    served: Served,
    counted: Selection,
    seed: int,
) -> Selection:
    """Return the selection of an incremental run with its keys: who is scored, who is sampled, who is gone."""
    fragments = _fragments(pipeline, key, as_of, served, full=False)
    fragments["seed"] = literal(seed)
    fragments["sample_every"] = literal(max(1, counted.unchanged // SKIPPED_SAMPLE))
    fragments["keys_of_p_named"] = ", ".join(f"p.{quote(c.name)}" for c in key)
    keys = session.table(load_query("select_entities", fragments), _what(pipeline))
    _require_unique(keys, key, pipeline)
    gone = None
    if counted.gone:
        gone = session.table(load_query("select_gone", fragments), _what(pipeline))
    return replace(counted, keys=keys, gone_keys=gone)


def population_keys(session: Session, pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime) -> str:
    """Return the statement that reads the keys of the population."""
    return load_query("read_population_keys", _fragments(pipeline, key, as_of, None, full=True))


def _fragments(
    pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime, served: Served | None, *, full: bool
) -> dict[str, str]:
    changes = None if full else pipeline.features.changes
    due_before = as_of - pipeline.features.valid_for if pipeline.features.valid_for else _LONG_AGO
    rows = quoted_table("prescore_rows", pipeline.name)
    nobody = "SELECT " + ", ".join(f"NULL::{c.postgres_type} AS {quote(c.name)}" for c in key)
    served_keys = ", ".join(f"served.{quote(c.name)}" for c in key)
    nobody_served = (
        f"({nobody}, NULL::timestamptz AS as_of, NULL::bigint AS scored_in, NULL::text AS rejected WHERE false)"
    )
    return {
        "as_of": literal(as_of),
        "since_at": literal(changed_since(pipeline, served) if served else as_of),
        "due_before": literal(due_before),
        "entity_keys": key_list(key, "entities"),
        "entity_query": pipeline.entity.query.text,
        "storage": nobody_served if served is None else rows,
        "served_keys": served_keys,
        "served_where": "true" if served is None else f"served.storage_id = {literal(served.storage_id)}",
        "hidden": _hidden(served),
        "changed_keys": key_list(key, "changes"),
        "changes_query": changes.text if changes is not None else f"{nobody} WHERE false",
        "keys_of_p": ", ".join(f"p.{quote(c.name)}" for c in key),
        "key_hash": key_hash(key, "p"),
        "key_names": ", ".join(quote(c.name) for c in key),
        "key_missing": " OR ".join(f"p.{quote(c.name)} IS NULL" for c in key),
        "keys_read": ", ".join(f"{c.read(f'judged.{quote(c.name)}')} AS {quote(c.name)}" for c in key),
    }


def _hidden(served: Served | None) -> str:
    """Return the condition on a served row that readers see no prediction of: rejected, superseded or quarantined."""
    conditions = ["served.rejected IS NOT NULL"]
    if served is not None:
        conditions.append(f"served.scored_in < {literal(served.valid_since)}")
        if served.quarantined:
            conditions.append(f"served.scored_in IN ({', '.join(literal(id_) for id_ in served.quarantined)})")
    return f"({' OR '.join(conditions)})"


def changed_since(pipeline: Pipeline, served: Served) -> datetime:
    """Return the instant that changes.sql is asked from: the watermark minus the largest ``late_by`` of the sources.

    A transaction that started before the watermark may commit rows behind it; ``late_by`` is how far back rows arrive.
    One microsecond more, since changes.sql says ``>``: the rows of the oldest transaction that was open carry its start,
    which is the watermark, and a row of the very instant of the last run was not before its as_of.
    """
    late = max((source.late_by for source in pipeline.sources), default=timedelta(0))
    return served.watermark - late - timedelta(microseconds=1)


def _require_unique(keys: pa.Table, key: tuple[Column, ...], pipeline: Pipeline) -> None:
    names = [column.name for column in key]
    distinct = keys.group_by(names).aggregate([]).num_rows
    if distinct != keys.num_rows:
        twice = keys.num_rows - distinct
        raise LedgerMismatch(
            f"the entity query returned {twice:,} selected entities more than once",
            f"Make {pipeline.entity.query.origin} return each {', '.join(names)} once.",
        )


def count_why(keys: pa.Table, why: str) -> int:
    """Return how many selected keys have this reason."""
    return int(pc.sum(pc.equal(keys.column("why"), why)).as_py() or 0)


def _what(pipeline: Pipeline) -> str:
    parts = [pipeline.entity.query.origin]
    if pipeline.features.changes is not None:
        parts.append(pipeline.features.changes.origin)
    return f"Selecting the population ({', '.join(parts)})"


_LONG_AGO = datetime.fromisoformat("0001-01-01T00:00:00+00:00")

__all__ = [
    "AS_OF",
    "FeatureContract",
    "LedgerMismatch",
    "Mode",
    "Selection",
    "Served",
    "select",
    "summarise",
    "why_full",
]
