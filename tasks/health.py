"""Health: what readers are told of a pipeline, and of one entity, by the clock of the database."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tasks.database import connect, load_query, one, quote, rows
from tasks.errors import PrescoreError, UsageError
from tasks.transport import quoted_table


class PipelineNeverRan(PrescoreError):
    """A pipeline has no objects in this database."""

    def __init__(self, pipeline: str, known: list[str]) -> None:
        self.pipeline = pipeline
        there = f"There are: {', '.join(known)}." if known else "None has run here yet."
        super().__init__(
            f"{pipeline} has nothing to look up in this database: no run of it came as far. {there} Run "
            f"`prescore score {pipeline}`, or check the name and PRESCORE_DATABASE_URL."
        )


@dataclass(frozen=True, kw_only=True)
class PipelineHealth:
    """One row of prescore.pipeline_health."""

    pipeline: str
    state: str
    overdue: bool
    overdue_since: datetime | None
    next_tick: datetime | None
    pinned: bool
    generation_id: int | None
    published_at: datetime | None
    age: timedelta | None
    data_as_of: datetime | None
    aging_at: datetime | None
    stale_at: datetime | None
    expires_at: datetime | None
    rows: int | None
    model: str | None
    model_version: int | None
    model_pending: bool
    reasons: list[str]
    last_scheduled_run_id: int | None
    last_scheduled_run_at: datetime | None
    last_scheduled_status: str | None
    last_run_id: int | None
    last_run_at: datetime | None
    last_run_trigger: str | None
    last_run_status: str | None
    last_run_message: str | None
    failing_checks: list[str]
    warning_checks: list[str]
    followups: list[str]
    last_check_at: datetime | None
    state_since: datetime | None
    served_run_id: int | None
    waived_checks: list[str]
    hung_run_id: int | None
    next_full: datetime | None
    next_incremental: datetime | None

    @property
    def well(self) -> bool:
        """Whether everything that was promised holds: fresh or aging, and no scheduled run missing."""
        return self.state in {"fresh", "aging"} and not self.overdue

    @classmethod
    def from_row(cls, row: Any) -> PipelineHealth:
        """Return the health of a row of the view."""
        return cls(**{field.name: getattr(row, field.name) for field in fields(cls)})


def read_health(url: str, pipeline: str | None = None) -> list[PipelineHealth]:
    """Return the health of every pipeline that ran here, or of one.

    Raises
    ------
    PipelineNeverRan
    """
    with connect(url) as connection:
        found = [PipelineHealth.from_row(row) for row in rows(connection, "read_health", pipeline=pipeline)]
        if pipeline is not None and not found:
            raise PipelineNeverRan(pipeline, _known(connection))
        return found


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
        function = quoted_table("predictions", f"{pipeline}_for")
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
