"""Who needs a prediction: new, changed, due, invalidated and gone entities; and the ledger that proves nobody vanished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks import ledger
from tasks.columns import Column, key_arrays, key_hash, whole
from tasks.database import literal, load_query, quote
from tasks.errors import PrescoreError
from tasks.features import AS_OF, KEYS_PER_QUERY, FeatureContract, key_list
from tasks.fingerprints import FINGERPRINT, fenced, fingerprint
from tasks.key_ranges import KEYS_LOOKED_AT, Counted, KeyRange, bounds_literal, counted, shares, within
from tasks.pipeline import Pipeline
from tasks.transport import Session, quoted_table

# Beyond this share of the population a full run is cheaper than reading and merging so many selected keys.
FULL_ABOVE = 0.2
# Why a run scores everything when what is served is not what was published.
FOREIGN = "somebody else wrote into what is served"
# How many skipped entities a run scores again: misses of 1 % of the skipped are found with 87 % probability a run.
SKIPPED_SAMPLE = 200
# Whole pages are drawn, and one in so many rows of them: one or two of the 60 to 120 that a page has, so that neighbours are
# not drawn together. Measured on 2,000,000 rows: 2 ms, where drawing rows looks at all pages and takes 30 to 60 ms.
ROWS_OF_A_PAGE = 64


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
    #: The ledger of what is served: how many rows, and the sum of the hashes of their keys.
    rows: int
    key_checksum: Decimal
    #: Whether rows have a column for their fingerprint.
    fingerprints: bool = False


@dataclass(frozen=True, kw_only=True)
class Named:
    """Who is new or changed, as changes.sql says, where the ledger proves that nobody else is new or gone."""

    #: Key columns, and the hash of the ledger, of entities that are not served.
    new: pa.Table
    #: The same of entities that are served.
    changed: pa.Table

    @property
    def checksum(self) -> Decimal:
        """Sum of the hashes of all these keys."""
        return _sum_hashes(self.new) + _sum_hashes(self.changed)


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
    #: Incremental: who is new or changed, known without comparing every key with what is served; None where that was needed.
    named: Named | None = field(default=None, repr=False)
    #: Incremental: what is known of the rows that stay as they are.
    left_alone: ledger.Rows = field(default_factory=ledger.Rows, repr=False)
    #: Incremental: the query that stands for changes.sql, once that has answered; None where it has not.
    changes: str | None = field(default=None, repr=False)
    #: The range of keys that the numbers are about, for a shard of a full run; None for all of them.
    only: KeyRange | None = None

    @classmethod
    def of_everybody(cls) -> Selection:
        """Return the selection of a full run of nobody, for the numbers of a shard to be filled in."""
        nobody: dict[str, Any] = dict.fromkeys(
            ("population", "null_keys", "new", "changed", "due", "gone", "served"), 0
        )
        zero = Decimal(0)
        return cls(mode=Mode.FULL, because="a shard", key_checksum=zero, selected_checksum=zero, **nobody)

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
    if pipeline.features.fingerprint and not served.fingerprints:
        return "no fingerprints are kept yet"
    return ""


def summarise(
    session: Session,
    pipeline: Pipeline,
    contract: FeatureContract,
    as_of: datetime,
    served: Served | None,
    because: str,
) -> Selection:
    """Count who needs a prediction; a run that would select more than ``FULL_ABOVE`` of the population becomes full.

    Where the ledger proves that population and served keys are the same but for what changes.sql names, neither is compared
    with the other key by key: the population is counted, and what is served is not even read where nothing of it can be due.
    """
    fragments = _with_changes(pipeline, contract, as_of, served, full=bool(because))
    what = _what(pipeline)
    row = session.table(load_query("count_population", fragments), what).to_pylist()[0]
    counted = Selection(
        mode=Mode.FULL if because else Mode.INCREMENTAL,
        because=because,
        population=row["population"],
        key_checksum=Decimal(row["key_checksum"]),
        selected_checksum=Decimal(0),
        null_keys=row["null_keys"],
        new=row["population"],
        changed=0,
        due=0,
        gone=0,
        served=0,
    )
    if served is None:
        return counted
    due = _count_due(session, pipeline, as_of, served, fragments)
    if due is None:
        because = because or FOREIGN
    selection = None if due is None else _proven(session, pipeline, contract.key, served, fragments, counted, due)
    if selection is None:
        row = session.table(load_query("summarise_population", fragments), what).to_pylist()[0]
        row = {
            **row,
            "key_checksum": Decimal(row["key_checksum"]),
            "selected_checksum": Decimal(row["selected_checksum"]),
        }
        served_rows = row["population"] - row["new"] + row["gone"]
        selection = replace(counted, **row, served=served_rows, changes=fragments["changes_query"])
        if due is not None:
            selection = replace(selection, left_alone=due[1])
    if due is None:
        return replace(selection, mode=Mode.FULL, because=because)
    touched = selection.selected + selection.gone
    if selection.mode is Mode.INCREMENTAL and touched > FULL_ABOVE * selection.population:
        share = f"{touched:,} of {selection.population:,} entities are new, changed, due or gone"
        return replace(selection, mode=Mode.FULL, because=share, named=None)
    return selection


def _proven(
    session: Session,
    pipeline: Pipeline,
    key: tuple[Column, ...],
    served: Served,
    fragments: dict[str, str],
    counted: Selection,
    of_served: tuple[int, ledger.Rows],
) -> Selection | None:
    """Count who needs a prediction without comparing all keys; None when the ledger does not prove that this can be.

    Then ``fragments`` has the keys that changes.sql named in the place of it.
    """
    due, left_alone = of_served
    found = replace(counted, new=0, due=due, served=served.rows, left_alone=left_alone)
    if counted.mode is Mode.FULL:
        return found if _balances(counted, served, None) else None
    most = int(FULL_ABOVE * counted.population) + 1
    name = "select_changed" if due else "select_changed_undue"
    statement = load_query(name, {**fragments, "most": literal(most)})
    named = session.table(statement, _what(pipeline)).combine_chunks()
    is_served = named.column("prescore_served")
    changed, new = named.filter(is_served), named.filter(pc.invert(is_served))
    if (
        named.num_rows >= most and pipeline.features.fingerprint
    ):  # each is new, changed or gone: to count all, all is read again
        share = f"at least {most:,} of {counted.population:,} entities are new, changed or gone"
        return replace(found, mode=Mode.FULL, because=share, new=new.num_rows, changed=changed.num_rows)
    if named.num_rows >= most:
        return None
    if named.num_rows <= KEYS_PER_QUERY:  # so it need not be asked again, should all keys have to be compared
        known = {"key_arrays": key_arrays(named, key), "key_names": fragments["key_names"]}
        fragments["changes_query"] = load_query("list_keys", known)
    if new.num_rows and not _balances(counted, served, new):
        new = _members(session, pipeline, key, fragments, new)
    if not _balances(counted, served, new):
        return None
    due -= pc.sum(changed.column("prescore_due")).as_py() or 0
    columns = [*(column.name for column in key), "prescore_hash"]
    who = Named(new=new.select(columns), changed=changed.select(columns))
    return replace(found, new=new.num_rows, changed=changed.num_rows, due=due, named=who)


def _count_due(
    session: Session, pipeline: Pipeline, as_of: datetime, served: Served, fragments: dict[str, str]
) -> tuple[int, ledger.Rows] | None:
    """Return how many of what is served are due, and what is known of the others; None when it is not what was published.

    What is served is read only where the ledger does not show that nobody is.
    """
    written = ledger.read(session, pipeline.name, served.storage_id)
    if written.foreign:
        return None
    if not served.quarantined and written.shows_nobody_due(_due_before(pipeline, as_of)):
        return 0, written.rows
    row = session.table(load_query("count_served", fragments), "Counting what is served").to_pylist()[0]
    if row["served"] != served.rows:  # somebody wrote into a storage that is not watched
        return None
    # Somebody may write between this run's snapshot and the moment from which it is watched: the next run counts once more.
    left_alone = ledger.Rows(oldest_as_of=row["oldest_as_of"], rejected=0) if written.watched else ledger.Rows()
    return row["due"], left_alone


def _balances(counted: Selection, served: Served, new: pa.Table | None) -> bool:
    """Return whether the population is what is served and these new entities, by count and by key checksum."""
    rows, checksum = (0, Decimal(0)) if new is None else (new.num_rows, _sum_hashes(new))
    return (counted.population, counted.key_checksum) == (served.rows + rows, served.key_checksum + checksum)


def _members(
    session: Session, pipeline: Pipeline, key: tuple[Column, ...], fragments: dict[str, str], named: pa.Table
) -> pa.Table:
    """Return those of some keys that are in the population: changes.sql may name others."""
    names = [column.name for column in key]
    found = [
        session.table(
            load_query(
                "select_members", {**fragments, "key_arrays": key_arrays(named.slice(start, KEYS_PER_QUERY), key)}
            ),
            _what(pipeline),
        )
        for start in range(0, named.num_rows, KEYS_PER_QUERY)
    ]
    return named.join(pa.concat_tables(found), names, join_type="left semi")


def select(
    session: Session,
    pipeline: Pipeline,
    contract: FeatureContract,
    as_of: datetime,
    served: Served,
    counted: Selection,
    seed: int,
) -> Selection:
    """Return the selection of an incremental run with its keys: who is scored, who is sampled, who is gone."""
    key = contract.key
    fragments = _with_changes(pipeline, contract, as_of, served, full=False)
    every = max(1, counted.unchanged // SKIPPED_SAMPLE)
    if counted.named is not None:
        return _with_named(session, key, as_of, counted, counted.named, fragments, every, seed)
    fragments["changes_query"] = counted.changes or fragments["changes_query"]
    fragments["key_hash_seeded"] = key_hash(key, "p", seed=literal(seed))
    fragments["sample_every"] = literal(every)
    fragments["keys_of_p_named"] = ", ".join(f"p.{quote(c.name)}" for c in key)
    keys = session.table(load_query("select_entities", fragments), _what(pipeline))
    _require_unique(keys, key, pipeline)
    gone = None
    if counted.gone:
        gone = session.table(load_query("select_gone", fragments), _what(pipeline))
    return replace(counted, keys=_in_order(keys, [column.name for column in key]), gone_keys=gone)


def _with_named(
    session: Session,
    key: tuple[Column, ...],
    as_of: datetime,
    counted: Selection,
    named: Named,
    fragments: dict[str, str],
    every: int,
    seed: int,
) -> Selection:
    """Add who is due to who is new or changed, and a sample of the others: served rows alone say who they are."""
    names = [column.name for column in key]
    parts = [_because(named.new.select(names), as_of, "new"), _because(named.changed.select(names), as_of, "changed")]
    checksum = named.checksum
    if counted.due:
        due = session.table(load_query("select_due", fragments), "Selecting who is due")
        due = due.join(named.changed.select(names), names, join_type="left anti")
        checksum += _sum_hashes(due)
        parts.append(_because(due.select(names), as_of, "due"))
    of_a_page = min(every, ROWS_OF_A_PAGE)
    fragments |= {
        "share": repr(100 * of_a_page / every),
        "of_a_page": literal(of_a_page),
        "key_hash_seeded": key_hash(key, "served", seed=literal(seed)),
        "seed": literal(seed),
    }
    sampled = session.table(load_query("sample_served", fragments), "Sampling the skipped")
    sampled = sampled.join(named.changed.select(names), names, join_type="left anti")
    parts.append(sampled.append_column("why", pa.array(["sampled"] * sampled.num_rows, pa.string())))
    return replace(counted, keys=_in_order(pa.concat_tables(parts), names), selected_checksum=checksum)


def _in_order(keys: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return keys as they are sorted.

    Their features are read, and their rows written and merged, in this order: each page of an index and of a table is then
    visited once, one after the other. Medians of five runs of 20,000 keys among 2,000,000: 1.45 s, in the order of a hash 2.10.
    """
    return keys.sort_by([(name, "ascending") for name in names]).combine_chunks()


def _because(keys: pa.Table, as_of: datetime, why: str) -> pa.Table:
    """Return keys as a selection holds them: each at the as_of of the run."""
    instants = pa.repeat(pa.scalar(as_of, AS_OF.arrow_type), keys.num_rows)
    return keys.append_column(AS_OF.name, instants).append_column("why", pa.repeat(why, keys.num_rows))


def _sum_hashes(keys: pa.Table) -> Decimal:
    """Return the exact sum of 64-bit hashes, which 64 bits do not hold: in halves, of fewer than 2^31 rows."""
    hashes = whole(keys, "prescore_hash").to_numpy()
    return Decimal((int((hashes >> 32).sum()) << 32) + int((hashes & 0xFFFFFFFF).sum()))


def population_keys(
    session: Session, pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime, only: KeyRange | None = None
) -> str:
    """Return the statement that reads the keys of the population, or those of a range."""
    fragments = _fragments(pipeline, key, as_of, None, full=True)
    return load_query("read_population_keys", {**fragments, "within": within(only, "entities")})


def cut(
    session: Session, pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime, parts: int, population: int
) -> list[str]:
    """Return the bounds, ascending, that cut the population into ranges of about as many keys; fewer where keys repeat."""
    fragments = {
        **_fragments(pipeline, key, as_of, None, full=True),
        "first_key": f"p.{quote(key[0].name)}",
        "shares": shares(parts),
        "sample_every": literal(max(1, population // KEYS_LOOKED_AT)),
    }
    found = session.table(load_query("cut_population", fragments), _what(pipeline))
    return [str(bound) for bound in found.column("bound").to_pylist()]


def count_ranges(
    session: Session, pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime, bounds: Sequence[str]
) -> list[Counted]:
    """Count and fingerprint the keys of the population in each of the ranges that the bounds cut."""
    fragments = {
        **_fragments(pipeline, key, as_of, None, full=True),
        "first_key": f"p.{quote(key[0].name)}",
        "bounds": bounds_literal(key[0], bounds),
    }
    return counted(session.table(load_query("count_shards", fragments), _what(pipeline)), len(bounds) + 1)


def changed_keys(pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime, served: Served) -> str:
    """Return the statement that reads the keys which changed since what is served."""
    return load_query("read_changed_keys", _fragments(pipeline, key, as_of, served, full=False))


def fingerprints_sql(pipeline: Pipeline, contract: FeatureContract, as_of: datetime, *, apart: bool = False) -> str:
    """Return the statement that reads the fingerprint of every entity's features; ``apart`` to be judged on another server."""
    query = pipeline.features.query
    assert query is not None  # a dataset has no fingerprints
    names = [(column, f"features.{quote(column.name)}::{column.postgres_type}") for column in contract.key]
    read = ", ".join(f"{c.read(name) if apart else name} AS {quote(c.name)}" for c, name in names)
    own = {
        "feature_keys": read,
        "fingerprint": fingerprint(contract.features, "features"),
        "fingerprint_name": quote(FINGERPRINT.name),
        "feature_query": fenced(query.text),
    }
    return load_query("read_fingerprints", {**_fragments(pipeline, contract.key, as_of, None, full=True), **own})


def moved_sql(pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime, served: Served, found: str) -> str:
    """Return what stands for changes.sql where fingerprints are kept; ``found`` is the query of those that features have."""
    own = {"found": found, "fingerprint_name": quote(FINGERPRINT.name)}
    return load_query("select_moved", {**_fragments(pipeline, key, as_of, served, full=True), **own})


def _with_changes(
    pipeline: Pipeline, contract: FeatureContract, as_of: datetime, served: Served | None, *, full: bool
) -> dict[str, str]:
    """Return the fragments of a selection; where fingerprints are kept they say what changed."""
    fragments = _fragments(pipeline, contract.key, as_of, served, full=full)
    features = pipeline.features
    if features.fingerprint and features.changes is None and served is not None and not full:
        found = fingerprints_sql(pipeline, contract, as_of)
        fragments["changes_query"] = moved_sql(pipeline, contract.key, as_of, served, found)
    return fragments


def _fragments(
    pipeline: Pipeline, key: tuple[Column, ...], as_of: datetime, served: Served | None, *, full: bool
) -> dict[str, str]:
    fragments = {
        "as_of": literal(as_of),
        "since_at": literal(changed_since(pipeline, served) if served else as_of),
        "due_before": literal(_due_before(pipeline, as_of)),
        "entity_keys": key_list(key, "entities"),
        "entity_query": pipeline.entity.query.text,
        "storage": "" if served is None else quoted_table("prescore_rows", f"{pipeline.name}_{served.storage_id}"),
        "served_keys": ", ".join(f"served.{quote(c.name)}" for c in key),
        "hidden": _hidden(served),
        "changed_keys": key_list(key, "changes"),
        "key_found": " AND ".join(f"served.{quote(c.name)} = prescore_changed.{quote(c.name)}" for c in key),
        "key_hash": key_hash(key, "p"),
        "key_hash_judged": key_hash(key, "judged"),
        "key_names": ", ".join(quote(c.name) for c in key),
        "key_missing": " OR ".join(f"p.{quote(c.name)} IS NULL" for c in key),
        "named_missing": " OR ".join(f"prescore_changed.{quote(c.name)} IS NULL" for c in key),
        "keys_read": ", ".join(f"{c.read(f'judged.{quote(c.name)}')} AS {quote(c.name)}" for c in key),
    }
    changes = None if full else pipeline.features.changes
    nobody = "SELECT " + ", ".join(f"NULL::{c.postgres_type} AS {quote(c.name)}" for c in key)
    fragments["changes_query"] = changes.text if changes is not None else f"{nobody} WHERE false"
    # What a fingerprint vouches for, it vouches for at the run's own as_of; else a row is what it was at its own.
    fragments["sampled_as_of"] = fragments["as_of"] if pipeline.features.fingerprint else "served_as_of"
    return fragments


def _due_before(pipeline: Pipeline, as_of: datetime) -> datetime:
    """Return the instant that predictions have to be computed after, not to be due."""
    return as_of - pipeline.features.valid_for if pipeline.features.valid_for else _LONG_AGO


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
    if pipeline.features.fingerprint:
        parts.append(pipeline.features.origin)
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
