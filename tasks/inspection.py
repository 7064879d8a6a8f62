"""Inspection: does a pipeline's SQL keep its contract on the data that is there? Asked by `prescore check`, reads only."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from tasks.database import literal, load_query, quote
from tasks.features import AS_OF, FeatureContract, read_keys_sql
from tasks.pipeline import Pipeline
from tasks.population import population_keys
from tasks.transport import Session, StatementFailed

# Entities that are probed at two instants; a year apart, so that windows and histories differ.
PROBED = 20
APART = timedelta(days=365)


def inspect(
    session: Session, pipeline: Pipeline, contract: FeatureContract, now: datetime
) -> tuple[list[str], list[str]]:
    """Return errors and warnings: the contract of the feature query, changes.sql, the sources, what the role may see."""
    errors: list[str] = []
    warnings: list[str] = []
    _probe_features(session, pipeline, contract, now, errors, warnings)
    _compare_tables(session, pipeline, contract, now, warnings)
    _look_at_sources(session, pipeline, errors)
    if not session.table(load_query("sees_transactions")).column(0)[0].as_py():
        warnings.append(
            "this role may not see when other transactions started, so that rows they commit late can be missed by incremental "
            "runs. GRANT pg_read_all_stats to it, or declare late_by in [[source]]"
        )
    return errors, warnings


def _probe_features(
    session: Session,
    pipeline: Pipeline,
    contract: FeatureContract,
    now: datetime,
    errors: list[str],
    warnings: list[str],
) -> None:
    """One row per (key, as_of) of batch, and features that know no future."""
    origin = f"{pipeline.name}/{pipeline.features.query.origin}"
    limited = load_query(
        "limit_rows", {"query": population_keys(session, pipeline, contract.key, now), "rows": literal(PROBED)}
    )
    keys = session.table(limited, pipeline.entity.query.origin)
    if not keys.num_rows:
        warnings.append(f"{pipeline.name}/{pipeline.entity.query.origin}: the population is empty now")
        return
    batch = pa.concat_tables([_at(keys, now), _at(keys, now - APART)])
    found = session.table(read_keys_sql(pipeline, contract, batch), origin)
    identity = [column.name for column in (*contract.key, AS_OF)]
    distinct = found.group_by(identity).aggregate([]).num_rows
    if distinct < found.num_rows:
        errors.append(
            f"{origin}: it returned {found.num_rows} rows for {distinct} (key, as_of) of batch; it must return exactly one each. "
            "Aggregate, or restrict the join that multiplies rows"
        )
    known = batch.select(identity).join(found.select(identity), identity, join_type="left anti")
    strangers = found.select(identity).join(batch.select(identity), identity, join_type="left anti")
    if strangers.num_rows:
        errors.append(
            f"{origin}: it returned {strangers.num_rows} rows for a (key, as_of) that is not in batch. Join batch on the key and "
            "return b.as_of as it is"
        )
    elif known.num_rows:
        warnings.append(
            f"{origin}: {known.num_rows} of {batch.num_rows} probed (key, as_of) have no row; such entities are rejected as "
            "no_features. Use LEFT JOIN where an entity may have no events"
        )
    _compare_instants(pipeline, contract, found, now, origin, warnings)


def _compare_instants(
    pipeline: Pipeline, contract: FeatureContract, found: pa.Table, now: datetime, origin: str, warnings: list[str]
) -> None:
    if pipeline.features.time_invariant:
        return
    instants = found.column(AS_OF.name).to_pylist()
    names = [column.name for column in contract.features]
    keys = [column.name for column in contract.key]
    rows = found.select([*keys, *names]).to_pylist()
    at_now = {repr(row) for row, instant in zip(rows, instants, strict=True) if instant == now}
    before = {repr(row) for row, instant in zip(rows, instants, strict=True) if instant != now}
    if at_now and at_now == before:
        warnings.append(
            f"{origin}: {len(at_now)} probed entities have the same features a year earlier. Restrict every source to rows known "
            "before b.as_of, or training sees the future; declare time_invariant = true if they really do not depend on time"
        )


def _compare_tables(
    session: Session, pipeline: Pipeline, contract: FeatureContract, now: datetime, warnings: list[str]
) -> None:
    """Warn about tables that the features read and changes.sql does not name: their changes go unnoticed."""
    if pipeline.features.changes is None:
        return
    nobody = session.table(
        load_query("limit_rows", {"query": population_keys(session, pipeline, contract.key, now), "rows": literal(1)})
    )
    if not nobody.num_rows:
        return
    features = _tables(session, read_keys_sql(pipeline, contract, _at(nobody, now)))
    changes = _tables(
        session, load_query("describe_changes", {"as_of": literal(now), "query": pipeline.features.changes.text})
    )
    for table in sorted(features - changes):
        warnings.append(
            f"{pipeline.name}/{pipeline.features.changes.origin}: {table} is read by {pipeline.features.query.origin} and not "
            "named here; its changes are noticed by full runs only"
        )


def _tables(session: Session, statement: str) -> set[str]:
    """Return the tables that a statement reads, views seen through, as the planner names them."""
    try:
        explained = session.table(load_query("explain_statement", {"statement": statement}), copy=False)
        plan = explained.column(0)[0].as_py()
    except StatementFailed:
        return set()
    found: set[str] = set()
    _collect(json.loads(plan), found)
    return found


def _collect(node: Any, found: set[str]) -> None:
    if isinstance(node, dict):
        if "Relation Name" in node:
            found.add(f"{node.get('Schema', 'public')}.{node['Relation Name']}")
        for value in node.values():
            _collect(value, found)
    elif isinstance(node, list):
        for value in node:
            _collect(value, found)


def _look_at_sources(session: Session, pipeline: Pipeline, errors: list[str]) -> None:
    for source in pipeline.sources:
        relation = ".".join(quote(part) for part in source.name.split("."))
        fragments = {"relation": literal(relation), "attribute": literal(source.watermark)}
        found = session.table(load_query("describe_watermark", fragments)).to_pylist()
        place = f"{pipeline.name}/pipeline.toml [[source]] {source.name}"
        if not found:
            errors.append(
                f"{place}: there is no table {source.name} with a column {source.watermark}. Correct name or watermark"
            )
            continue
        if found[0]["type"] == "timestamp without time zone" and source.zone is None:
            errors.append(f'{place}: {source.watermark} has no time zone. Declare zone, for example zone = "UTC"')
        elif not found[0]["type"].startswith(("timestamp", "date")):
            errors.append(
                f"{place}: {source.watermark} is {found[0]['type']}, which is no time. Name a timestamptz column"
            )


def _at(keys: pa.Table, instant: datetime) -> pa.Table:
    return keys.append_column(AS_OF.name, pa.array([instant] * keys.num_rows, AS_OF.arrow_type))
