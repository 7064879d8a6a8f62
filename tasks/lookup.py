"""One entity, as an SQL reader sees it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tasks.database import connect, load_query, one, quote, rows
from tasks.errors import UsageError
from tasks.health import PipelineNeverRan


def look_up(url: str, pipeline: str, key: list[str]) -> dict[str, Any]:
    """Return what an SQL reader sees for one entity, column by column; always one row.

    Raises
    ------
    PipelineNeverRan, UsageError
        For another number of key values, or values that are none of the key's types.
    """
    with connect(url) as connection:
        found = one(connection, "find_pipeline", pipeline=pipeline)
        if found is None or found.key_columns is None:
            raise PipelineNeverRan(pipeline, _known(connection))
        if len(key) != len(found.key_columns):
            raise UsageError(
                f"{len(key)} key values were given, {pipeline} has {len(found.key_columns)} key columns: "
                f"{', '.join(found.key_columns)}. Nothing was looked up. Give one value for each, in this order."
            )
        arguments = ", ".join(f"CAST(:key_{i} AS {kind})" for i, kind in enumerate(found.key_types))
        function = f"predictions.{quote(f'{pipeline}_for')}"
        statement = load_query("look_up_entity", {"function": function, "arguments": arguments})
        try:
            row = connection.execute(sa.text(statement), {f"key_{i}": value for i, value in enumerate(key)}).one()
        except sa.exc.DataError:
            kinds = ", ".join(f"{quote(n)} {t}" for n, t in zip(found.key_columns, found.key_types, strict=True))
            raise UsageError(
                f"A key value is not of its column's type ({kinds}). Nothing was looked up. Correct the value."
            ) from None
        return dict(row._mapping)


def _known(connection: sa.Connection) -> list[str]:
    return [row.pipeline for row in rows(connection, "read_health", pipeline=None)]
