"""The profiles of past runs: stored with each run, and read again to say what is usual."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from tasks.database import load_query, rows
from tasks.population import Mode
from tasks.profiles.counting import ColumnCounts, ProfileCounter

if TYPE_CHECKING:
    from tasks.runs import Run

#: Clean runs of the same slot that a baseline is the sum of: a month of weekdays, more would lag behind a lawful change.
BASELINE_RUNS = 4

#: With fewer of the same slot than this, runs of all slots stand in: one run is no measure of what is usual.
LEAST_OF_SLOT = 2

_PLAIN = tuple(f.name for f in fields(ColumnCounts) if f.name not in {"counts", "sums", "digest"})


class Slot(StrEnum):
    """Which runs are of the same season as another, by the local time of their as_of."""

    #: The same day of the week.
    WEEKDAY = "weekday"
    #: The same hour of the day.
    HOUR = "hour"
    #: The same hour of the same day of the week.
    HOUR_OF_WEEK = "hour_of_week"
    #: The same month of the year.
    MONTH = "month"


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredProfile:
    """What the columns of one run looked like, as it was stored."""

    run_id: int
    mode: Mode
    as_of: datetime
    model: str
    model_version: int
    features: Mapping[str, ColumnCounts]
    outputs: Mapping[str, ColumnCounts]


def store_profiles(connection: sa.Connection, run: Run, counter: ProfileCounter) -> None:
    """Store what a run counted, in whatever transaction is open; a run that scored nobody stores nothing."""
    if not counter.rows:
        return
    shared = {"run_id": run.run_id, "pipeline": run.pipeline.name, "generation_id": run.generation_id}
    values = [
        {**shared, "kind": kind, "name": name, **_stored(counts)}
        for kind, columns in (("feature", counter.features), ("output", counter.outputs))
        for name, counts in columns.items()
    ]
    if values:
        connection.execute(sa.text(load_query("insert_profile")), values)


def _stored(counts: ColumnCounts) -> dict[str, Any]:
    return {
        **{name: getattr(counts, name) for name in _PLAIN},
        "counts": counts.counts.tolist(),
        "sums": None if counts.sums is None else counts.sums.tolist(),
        "digest": counts.digest,
    }


def read_profiles(connection: sa.Connection, run_ids: Iterable[int]) -> dict[int, StoredProfile]:
    """Return the stored profiles of these runs, one query for all; runs without one are left out."""
    found: dict[int, Any] = {}
    columns: dict[int, dict[str, dict[str, ColumnCounts]]] = {}
    for row in rows(connection, "read_profiles", run_ids=list(run_ids)):
        found[row.run_id] = row
        kinds = columns.setdefault(row.run_id, {"feature": {}, "output": {}})
        kinds[row.kind][row.name] = _counts(row)
    return {
        run_id: StoredProfile(
            run_id=run_id,
            mode=Mode(row.mode),
            as_of=row.as_of,
            model=row.model,
            model_version=row.model_version,
            features=columns[run_id]["feature"],
            outputs=columns[run_id]["output"],
        )
        for run_id, row in found.items()
    }


def _counts(row: Any) -> ColumnCounts:
    return ColumnCounts(
        **{name: getattr(row, name) for name in _PLAIN},
        counts=np.array(row.counts, dtype=np.int64),
        sums=None if row.sums is None else np.array(row.sums, dtype=np.float64),
        digest=int(row.digest),
    )


def clean_runs(
    connection: sa.Connection,
    pipeline: str,
    *,
    mode: Mode,
    model_version: int,
    before: datetime,
    limit: int = BASELINE_RUNS,
    slot: Slot | None = None,
    timezone: str = "UTC",
) -> list[int]:
    """Return the runs that show what is usual, the newest first.

    A run counts that was published by its schedule or a recovery, is neither undone nor quarantined, has nothing waived and
    no guard that warned or failed, and counted into bins of this model version. What gauges flagged still counts: else a
    lawful change would be flagged for ever.

    Parameters
    ----------
    before
        Only runs whose as_of is earlier; the slot is that of this instant.
    slot
        Only runs of the same slot, in ``timezone``; None for all.
    """
    values = {
        "pipeline": pipeline,
        "mode": Mode(mode).value,
        "model_version": model_version,
        "before": before,
        "limit": limit,
        "slot": None if slot is None else Slot(slot).value,
        "timezone": timezone,
    }
    return [row.run_id for row in rows(connection, "list_clean_runs", **values)]
