"""Retention: what runs leave behind goes once it is old enough, in small transactions, but for what is still needed.

Needed is what head serves and what a rollback returns to, publications that are hidden or that a quarantine in force names, the
runs that later ones are compared with (baselines, verdicts over time), waivers in force, and where alarms that are still open
began. Removal is no part of a publication: a run does it behind itself, once a day.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tasks import row_history
from tasks.checks.comparison import HISTORY_RUNS
from tasks.database import load_query, one, rows
from tasks.errors import PrescoreError
from tasks.faults import reached
from tasks.pipeline import Pipeline
from tasks.profiles.history import BASELINE_RUNS
from tasks.verdicts import Rules

logger = logging.getLogger(__name__)

# Removing 500 runs with 40 checks and 20 profiles each takes a fraction of a second; nobody waits for longer than that.
BATCH_RUNS, BATCH_ROWS = 500, 10_000
# How long a run works on what others left behind; the next one goes on.
SECONDS_OF_A_RUN = 5.0
# How often it is looked for.
EVERY = timedelta(days=1)
# The newest runs of each mode, status and trigger stay however old they are: reports and explanations look back so far.
RECENT_RUNS = 100
# The newest runs of a version may be left out of a baseline (lag), at most as many as have to agree.
_SPARE_RUNS = 10


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed because it was past its retention."""

    runs: int = 0
    publications: int = 0
    samples: int = 0
    rejections: int = 0
    listings: int = 0
    contracts: int = 0
    #: Whether nothing that is past was left.
    complete: bool = True

    @property
    def told(self) -> str:
        """What was removed, in words; empty when nothing was."""
        counted = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "complete"}
        return ", ".join(f"{count:,} {name}" for name, count in counted.items() if count)

    def plus(self, **counted: int) -> Removed:
        """Return this with further rows counted."""
        return replace(self, **{name: getattr(self, name) + count for name, count in counted.items()})


def tidy(url: str, connection: sa.Connection, pipeline: Pipeline) -> Removed | None:
    """Remove what is past, history included, once a day and for a few seconds at most; None when it is not due.

    For the end of a run: what goes wrong is logged, and left to the next one. The caller holds the lock of the pipeline.
    """
    try:
        found = one(connection, "find_past_removed", pipeline=pipeline.name)
        connection.rollback()
        if found is None or (found.past_removed_at is not None and found.now - found.past_removed_at < EVERY):
            return None
        removed = remove_past(connection, pipeline, found.now, seconds=SECONDS_OF_A_RUN)
        row_history.remove_past(url, pipeline.name)
    except (PrescoreError, sa.exc.DBAPIError) as error:
        logger.warning(
            "what is past its retention could not be removed: %s; the next run tries again", type(error).__name__
        )
        if not connection.invalidated:
            connection.rollback()
        return None
    if removed.told:
        logger.info("removed what is past its retention: %s", removed.told)
    return removed


def remove_past(
    connection: sa.Connection, pipeline: Pipeline, now: datetime, *, seconds: float | None = None
) -> Removed:
    """Remove what is past its retention at ``now``, batch by batch, each committed; until nothing is left, or time is up.

    The caller holds the lock of the pipeline, so that no run begins to need what goes.
    """
    declared = pipeline.retention
    deadline = None if seconds is None else time.monotonic() + seconds
    before = now - declared.runs
    stored = [row.run_id for row in rows(connection, "list_stored_generations", pipeline=pipeline.name, before=before)]
    needed = sorted({*stored, *needed_runs(connection, pipeline)})
    connection.rollback()
    of_pipeline: dict[str, Any] = {"pipeline": pipeline.name}
    of_rows = {**of_pipeline, "most": BATCH_ROWS}
    work = [
        ("remove_past_samples", {**of_rows, "before": now - samples_kept(pipeline)}, BATCH_ROWS, "samples"),
        (
            "remove_past_rejections",
            {**of_rows, "before": now - declared.rejections, "needed": stored},
            BATCH_ROWS,
            "rejections",
        ),
        (
            "remove_past_runs",
            {**of_pipeline, "before": before, "needed": needed, "most": BATCH_RUNS},
            BATCH_RUNS,
            "runs",
        ),
    ]
    removed = Removed()
    for query, values, most, counted in work:
        while True:
            if deadline is not None and time.monotonic() >= deadline:
                return replace(removed, complete=False)
            batch = one(connection, query, **values)._asdict()
            connection.commit()
            reached("retention.batch")
            removed = removed.plus(**batch)
            if batch[counted] < most:
                break
    removed = removed.plus(contracts=one(connection, "remove_unused_contracts", **of_pipeline, before=before).contracts)
    connection.execute(sa.text(load_query("note_past_removed")), of_pipeline)
    connection.commit()
    return removed


def needed_runs(connection: sa.Connection, pipeline: Pipeline) -> set[int]:
    """Return the runs that stay however old they are, besides those of publications that are stored."""
    rules = Rules.of(pipeline.drift, pipeline.unknown)
    recent = max(RECENT_RUNS, rules.remembered)
    slot = pipeline.drift.slot
    values = {
        "pipeline": pipeline.name,
        "slot": None if slot == "none" else str(slot),
        "timezone": pipeline.schedule.timezone,
        "of_all": HISTORY_RUNS + rules.runs + _SPARE_RUNS,
        "of_slot": BASELINE_RUNS + rules.runs + _SPARE_RUNS,
    }
    found = rows(connection, "list_consulted_runs", pipeline=pipeline.name, recent=recent)
    return {*_ids(found), *_ids(rows(connection, "list_baseline_runs", **values))}


def samples_kept(pipeline: Pipeline) -> timedelta:
    """Return how long predictions are kept for labels: as declared, else until every label that is judged has matured."""
    return pipeline.retention.samples_of(pipeline.performance)


def _ids(found: Iterable[Any]) -> list[int]:
    return [row.run_id for row in found]
