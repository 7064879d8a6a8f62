"""One entity, as an SQL reader sees it, or saw it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tasks.database import connect, load_query, one, quote, rows
from tasks.errors import PrescoreError, UsageError
from tasks.health import PipelineNeverRan


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What readers saw of one entity in a stretch of time."""

    seen_from: datetime
    #: None while they do.
    seen_until: datetime | None
    #: What readers were shown, column by column of the view of the history.
    row: dict[str, Any]


class HistoryMissing(PrescoreError):
    """What readers saw is not kept."""

    def __init__(self, pipeline: str) -> None:
        self.pipeline = pipeline
        super().__init__(
            f"What readers of {pipeline} saw is not kept. What they see now: `prescore lookup {pipeline} KEY`. Declare "
            '[history] with keep = "90d" in pipeline.toml; the history begins with the next publication.'
        )


def look_up(url: str, pipeline: str, key: list[str]) -> dict[str, Any]:
    """Return what an SQL reader sees for one entity, column by column; always one row.

    Raises
    ------
    PipelineNeverRan, UsageError
        For another number of key values, or values that are none of the key's types.
    """
    with connect(url) as connection:
        arguments, values, kinds = _arguments(connection, pipeline, key)
        fragments = {"function": f"predictions.{quote(f'{pipeline}_for')}", "arguments": ", ".join(arguments)}
        return _ask(connection, load_query("look_up_entity", fragments), values, kinds)[0]


def look_back(url: str, pipeline: str, key: list[str], at: datetime) -> dict[str, Any]:
    """Return what an SQL reader saw for one entity at an instant, column by column; always one row.

    Raises
    ------
    PipelineNeverRan, HistoryMissing, UsageError
    """
    with connect(url) as connection:
        arguments, values, kinds = _arguments(connection, pipeline, key)
        _require_history(connection, pipeline)
        function = f"predictions.{quote(f'{pipeline}_at')}"
        arguments = [*arguments, "CAST(:seen_at AS timestamptz)"]
        fragments = {"function": function, "arguments": ", ".join(arguments)}
        return _ask(connection, load_query("look_up_entity", fragments), {**values, "seen_at": at}, kinds)[0]


def list_seen(url: str, pipeline: str, key: list[str]) -> list[Seen]:
    """Return what SQL readers saw for one entity since the history begins, oldest first; what stayed the same is one.

    Raises
    ------
    PipelineNeverRan, HistoryMissing, UsageError
    """
    with connect(url) as connection:
        found = one(connection, "find_pipeline", pipeline=pipeline)
        arguments, values, kinds = _arguments(connection, pipeline, key)
        _require_history(connection, pipeline)
        matches = [f"{quote(n)} = {a}" for n, a in zip(found.key_columns, arguments, strict=True)]
        view = f"predictions.{quote(f'{pipeline}_history')}"
        statement = load_query("list_seen", {"view": view, "key_matches": " AND ".join(matches)})
        rows_found = _ask(connection, statement, values, kinds)
    seen: list[Seen] = []
    for row in rows_found:
        since, until = row.pop("seen_from"), row.pop("seen_until")
        if seen and seen[-1].row == row and seen[-1].seen_until == since:
            seen[-1] = replace(seen[-1], seen_until=until)
        else:
            seen.append(Seen(seen_from=since, seen_until=until, row=row))
    return seen


def _arguments(connection: sa.Connection, pipeline: str, key: list[str]) -> tuple[list[str], dict[str, Any], str]:
    """Return the key as parameters with casts, their values, and what the key columns are, for a message."""
    found = one(connection, "find_pipeline", pipeline=pipeline)
    if found is None or found.key_columns is None:
        raise PipelineNeverRan(pipeline, _known(connection))
    if len(key) != len(found.key_columns):
        raise UsageError(
            f"{len(key)} key values were given, {pipeline} has {len(found.key_columns)} key columns: "
            f"{', '.join(found.key_columns)}. Nothing was looked up. Give one value for each, in this order."
        )
    kinds = ", ".join(f"{quote(n)} {t}" for n, t in zip(found.key_columns, found.key_types, strict=True))
    arguments = [f"CAST(:key_{i} AS {kind})" for i, kind in enumerate(found.key_types)]
    return arguments, {f"key_{i}": value for i, value in enumerate(key)}, kinds


def _ask(connection: sa.Connection, statement: str, values: dict[str, Any], kinds: str) -> list[dict[str, Any]]:
    try:
        return [dict(row._mapping) for row in connection.execute(sa.text(statement), values)]
    except sa.exc.DataError:
        raise UsageError(
            f"A key value is not of its column's type ({kinds}). Nothing was looked up. Correct the value."
        ) from None


def _require_history(connection: sa.Connection, pipeline: str) -> None:
    if not one(connection, "find_relation", relation=f"predictions.{quote(f'{pipeline}_history')}").there:
        raise HistoryMissing(pipeline)


def _known(connection: sa.Connection) -> list[str]:
    return [row.pipeline for row in rows(connection, "read_health", pipeline=None)]
