"""Inspection: does a pipeline's SQL keep its contract on the data that is there? Asked by `prescore check`, reads only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pyarrow as pa

from tasks import plans, slices
from tasks.database import literal, load_query, quote
from tasks.errors import PrescoreError
from tasks.features import AS_OF, FeatureContract, key_list, read_features, read_keys_sql
from tasks.pipeline import Pipeline, Source, UserQuery
from tasks.plans import WholeRead
from tasks.population import count_ranges, cut, population_keys
from tasks.preview import choose_keys
from tasks.slices import Watermark
from tasks.source_server import LONGEST_TRANSACTION
from tasks.transport import Session

# Entities that are probed at two instants; a year apart, so that windows and histories differ.
PROBED = 20
APART = timedelta(days=365)
# How far back the planner is asked for changes: about as far as an incremental run looks.
RECENT = timedelta(hours=1)


def inspect(
    session: Session, pipeline: Pipeline, contract: FeatureContract, now: datetime
) -> tuple[list[str], list[str]]:
    """Return errors and warnings: what the queries return, which tables they read and how, the sources, the role."""
    look = _Look(session=session, pipeline=pipeline, contract=contract, now=now)
    with look.apart():
        look.at_entities()
    with look.apart():
        look.at_features()
    look.at_dataset()
    with look.apart():
        look.at_plans()
    with look.apart():
        look.at_shards()
    for source in pipeline.sources:
        with look.apart():
            look.at_source(source)
    look.at_rights()
    return look.errors, look.warnings


def advise(
    session: Session, pipeline: Pipeline, contract: FeatureContract, now: datetime
) -> tuple[list[str], list[str]]:
    """Return errors, and what is read whole for want of an index: a part of what :func:`inspect` asks.

    A few keys are read, and no features.
    """
    look = _Look(session=session, pipeline=pipeline, contract=contract, now=now)
    with look.apart():
        look.keys = choose_keys(session, pipeline, contract.key, now, PROBED)
    with look.apart():
        look.at_plans()
    for source in pipeline.sources:
        with look.apart():
            look.at_source(source)
    return look.errors, [warning for warning in look.warnings if "index" in warning]


@dataclass(kw_only=True)
class _Look:
    """One look at a pipeline's data, with what it finds."""

    session: Session
    pipeline: Pipeline
    contract: FeatureContract
    now: datetime
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Keys of some entities, each once; no rows when there is nobody.
    keys: pa.Table | None = None

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Let what fails within be an error of its own: what comes after it is looked at too."""
        self.session.execute("SAVEPOINT look")
        try:
            yield
        except PrescoreError as error:
            self.session.execute("ROLLBACK TO SAVEPOINT look")
            self.errors.append(str(error))

    def place(self, query: UserQuery) -> str:
        """Return pipeline and file of a query."""
        return f"{self.pipeline.name}/{query.origin}"

    @property
    def place_of_features(self) -> str:
        """Return pipeline and origin of the features."""
        return f"{self.pipeline.name}/{self.pipeline.features.origin}"

    @property
    def identity(self) -> list[str]:
        """Names of the columns that say which row it is: key and as_of."""
        return [column.name for column in (*self.contract.key, AS_OF)]

    # Who ---------------------------------------------------------------------------------------------------------

    def at_entities(self) -> None:
        """Each entity once, by a key without NULL."""
        place = self.place(self.pipeline.entity.query)
        everybody = population_keys(self.session, self.pipeline, self.contract.key, self.now)
        names = ", ".join(quote(column.name) for column in self.contract.key)
        twice = self.session.table(load_query("list_duplicates", {"query": everybody, "key_names": names}), place)
        if twice.num_rows:
            count = twice.column("entities")[0].as_py()
            self.errors.append(
                f"{place}: it returns {count:,} {_entities(count)} more than once; it must return each key once. Use "
                "DISTINCT, or read the table that has one row for each entity"
            )
        limited = load_query("limit_rows", {"query": everybody, "rows": literal(PROBED)})
        found = self.session.table(limited, place)
        if not found.num_rows:
            self.warnings.append(f"{place}: the population is empty now; what depends on its rows was not looked at")
        self.keys = found.group_by(found.column_names).aggregate([]).drop_null()

    # What --------------------------------------------------------------------------------------------------------

    def at_features(self) -> None:
        """One row per (key, as_of) of batch, and features that know no future."""
        if self.keys is None or not self.keys.num_rows:
            return
        asked_now, asked_before = (_at(self.keys, instant) for instant in (self.now, self.now - APART))
        batch = pa.concat_tables([asked_now, asked_before])
        found = self._features_of(batch)
        self._count_rows(batch, found)
        missing = self._without(asked_now, found)
        if missing:
            self.warnings.append(
                f"{self.place_of_features}: {missing} of {asked_now.num_rows} probed entities have no row "
                "at the clock's now; such entities are rejected as no_features. Use LEFT JOIN where an entity may have no "
                "events"
            )
        if missing or self._without(asked_before, found):
            self._ask_apart(found, asked_now, asked_before)
        self._compare_instants(found)

    def _features_of(self, batch: pa.Table) -> pa.Table:
        return read_features(self.session, self.pipeline, self.contract, batch, self.place_of_features)

    def _without(self, batch: pa.Table, found: pa.Table) -> int:
        """Return how many rows of batch have no row of features."""
        identity = self.identity
        return int(batch.select(identity).join(found.select(identity), identity, join_type="left anti").num_rows)

    def _count_rows(self, batch: pa.Table, found: pa.Table) -> None:
        place = self.place_of_features
        distinct = found.group_by(self.identity).aggregate([]).num_rows
        strangers = self._without(found, batch)
        if distinct < found.num_rows:
            self.errors.append(
                f"{place}: it returned {found.num_rows} rows for {distinct} (key, as_of) of batch; it must return exactly "
                "one each. Aggregate, or restrict the join that multiplies rows"
            )
        if strangers:
            self.errors.append(
                f"{place}: it returned {strangers} rows for a (key, as_of) that is not in batch. Join batch on the key and "
                "return b.as_of as it is"
            )

    def _ask_apart(self, together: pa.Table, *batches: pa.Table) -> None:
        """Tell an entity that was not there yet from a query that merges the instants of an entity."""
        alone = pa.concat_tables([self._features_of(batch) for batch in batches])
        lost = self._without(alone.group_by(self.identity).aggregate([]), together)
        if lost:
            self.errors.append(
                f"{self.place_of_features}: {lost} (key, as_of) have a row when they are asked alone, and "
                "none beside the same key at another as_of, as training asks. Return a row for each (key, as_of) of batch: "
                "GROUP BY and PARTITION BY need b.as_of beside the key"
            )

    def _compare_instants(self, found: pa.Table) -> None:
        dataset = self.contract.dataset
        if self.pipeline.features.time_invariant or (dataset is not None and dataset.declared.as_of is None):
            return
        instants = found.column(AS_OF.name).to_pylist()
        rows = found.drop_columns([AS_OF.name]).to_pylist()
        at_now = {repr(row) for row, instant in zip(rows, instants, strict=True) if instant == self.now}
        before = {repr(row) for row, instant in zip(rows, instants, strict=True) if instant != self.now}
        if at_now and at_now == before:
            self.warnings.append(
                f"{self.place_of_features}: {len(at_now)} probed entities have the same features a year "
                "earlier. Restrict every source to rows known before b.as_of, or training sees the future; declare "
                "time_invariant = true if they really do not depend on time"
            )

    def at_dataset(self) -> None:
        """Columns of files that no model can take, and what says how new their rows are."""
        dataset = self.contract.dataset
        if dataset is None:
            return
        for name, problem in dataset.problems.items():
            self.warnings.append(f"{self.place_of_features}: column {name} {problem}; it is no feature")
        if dataset.declared.changes_by is None:
            self.warnings.append(
                f"{self.place_of_features}: no column says how new its rows are, so that its data counts as being as new as the "
                f"newest file ({dataset.modified:%Y-%m-%d %H:%M} UTC), which a mere copy renews. Declare as_of or updated_at"
            )

    # From where --------------------------------------------------------------------------------------------------

    def at_plans(self) -> None:
        """Tables that the features read and changes.sql does not name; large tables that are read whole."""
        features, changes = self.pipeline.features.query, self.pipeline.features.changes
        seen: set[str] = set()
        if features is not None and self.keys is not None and self.keys.num_rows:
            one = read_keys_sql(self.pipeline, self.contract, _at(self.keys.slice(0, 1), self.now))
            plan = plans.explain(self.session, one, self.place(features))
            seen = plan.tables
            for read in plans.read_whole_for_keys(plan):
                self.warnings.append(
                    f"{self.place(features)}: {_read_whole(read)} for the features of a single entity: no index begins with "
                    f"{' or '.join(read.columns)}, and an incremental run costs as much as a full one. {read.remedy}"
                )
            for read in plans.read_whole_for_groups(plan):
                (column,) = read.columns
                self.warnings.append(
                    f"{self.place(features)}: {_read_whole(read)} for the features of a single entity: its rows are grouped or "
                    f"numbered by {column} before they meet batch, and no index helps there. Join batch within the subquery, "
                    f"or make it LATERAL{_with_index(read)}"
                )
        if changes is None:
            return
        fragments = {
            "since_at": literal(self.now - RECENT),
            "changed_keys": key_list(self.contract.key, "changes"),
            "changes_query": changes.text,
        }
        plan = plans.explain(self.session, load_query("read_changes", fragments), self.place(changes))
        for table in sorted(seen - plan.tables):
            self.warnings.append(
                f"{self.place(changes)}: {table} is read by {self.pipeline.features.origin} and not named here; its changes are "
                "noticed by full runs only. Add a SELECT of the keys whose rows of it changed"
            )
        for read in plans.read_whole_for_times(plan):
            missing = (
                f"no index begins with {' or '.join(read.columns)}. {read.remedy}"
                if read.columns
                else "it compares an expression with since.at, which no index on a column answers. Compare the column "
                "itself, or index the expression"
            )
            self.warnings.append(
                f"{self.place(changes)}: {_read_whole(read)} in each incremental run, to find what changed: {missing}"
            )
        for read in plans.read_whole_for_keys(plan):
            self.warnings.append(
                f"{self.place(changes)}: {_read_whole(read)} in each incremental run, to find whose rows changed: no index "
                f"begins with {' or '.join(read.columns)}. {read.remedy}"
            )

    def at_shards(self) -> None:
        """Whether a shard reads its part of the sources, where shards are declared."""
        execution, key, query = self.pipeline.execution, self.contract.key, self.pipeline.features.query
        if not execution.sharded or query is None or self.keys is None or not self.keys.num_rows:
            return
        from tasks import shards

        everybody = count_ranges(self.session, self.pipeline, key, self.now, [])[0].keys
        parts = shards.count_of(execution, everybody)
        bounds = cut(self.session, self.pipeline, key, self.now, parts, everybody)
        why = shards.why_one_stream(self.session, self.pipeline, self.contract, self.now, bounds) if bounds else ""
        if why:
            self.warnings.append(
                f"{self.place(query)}: [execution] asks for shards, and a full run is one stream all the "
                f"same: {why}. Index the columns that are joined with the key, or remove [execution]"
            )

    def at_source(self, source: Source) -> None:
        """A table with the declared watermark, which is a time; a filter and values that PostgreSQL can answer; an index."""
        relation = ".".join(quote(part) for part in source.name.split("."))
        fragments = {"relation": literal(relation), "attribute": literal(source.watermark)}
        found = self.session.table(load_query("describe_watermark", fragments)).to_pylist()
        place = f"{self.pipeline.name}/pipeline.toml [[source]] {source.name}"
        if not found:
            self.errors.append(
                f"{place}: there is no table {source.name} with a column {source.watermark}. Correct name or watermark"
            )
            return
        if found[0]["type"] == "timestamp without time zone" and source.zone is None:
            self.errors.append(f'{place}: {source.watermark} has no time zone. Declare zone, for example zone = "UTC"')
        elif not found[0]["type"].startswith(("timestamp", "date")):
            self.errors.append(
                f"{place}: {source.watermark} is {found[0]['type']}, which is no time. Name a timestamptz column"
            )
            return
        condition = load_query("filter_source", {"source": relation, "condition": source.filter or "true"})
        self.session.table(condition, f"{place}.filter" if source.filter else place)
        watermark = Watermark(source=source, postgres_type=found[0]["type"])
        if source.every is not None:
            self.session.table(slices.absent_values_sql(watermark, self.now, self.now), f"{place}.every")
        recent = slices.slice_sql(watermark, self.now - RECENT, self.now)
        for read in plans.read_whole_for_times(plans.explain(self.session, recent, place)):
            self.warnings.append(
                f"{place}: {_read_whole(read)} on every run, to see how new it is: no index begins with {source.watermark}. "
                f"{read.remedy}"
            )

    def at_rights(self) -> None:
        """What the role may see of others, and whether a standby keeps what a run reads."""
        found = self.session.table(load_query("sees_transactions")).to_pylist()[0]
        if found["standby"]:
            self._at_standby(feedback=found["feedback"], delay=found["delay"])
        elif not found["sees"]:
            self.warnings.append(
                "this role may not see when other transactions started, so that rows they commit late can be missed by "
                "incremental runs. GRANT pg_read_all_stats to it, or declare late_by in [[source]]"
            )

    def _at_standby(self, *, feedback: bool, delay: str) -> None:
        if not any(source.late_by for source in self.pipeline.sources) and self.pipeline.features.changes is not None:
            minutes = LONGEST_TRANSACTION.total_seconds() / 60
            self.warnings.append(
                "the sources are read on a standby, which does not know when transactions of its primary began: changes are "
                f"asked for {minutes:.0f} minutes further back. Declare late_by in [[source]] if a transaction that writes "
                "them may be open for longer"
            )
        if not feedback and delay != "-1":
            self.warnings.append(
                f"the sources are read on a standby that ends what it hinders its replay for longer than {delay}, which may "
                "be a run. Set hot_standby_feedback = on there, or raise max_standby_streaming_delay above the length of one"
            )


def _read_whole(read: WholeRead) -> str:
    return f"PostgreSQL reads all of {read.relation.shown} ({read.relation.bytes / 2**20:,.0f} MB)"


def _with_index(read: WholeRead) -> str:
    missing = read.columns[0] not in read.relation.leading
    return f", and {read.remedy}" if missing else ""


def _entities(count: int) -> str:
    return "entity" if count == 1 else "entities"


def _at(keys: pa.Table, instant: datetime) -> pa.Table:
    return keys.append_column(AS_OF.name, pa.array([instant] * keys.num_rows, AS_OF.arrow_type))
