"""Late runs: what a schedule asked for some time ago, when nothing could run, and whether somebody has done it since.

After an outage a scheduler starts every run that it has missed. The first one does the work of them all, looked at from now;
for the others there is nothing left to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tasks.database import one
from tasks.errors import PrescoreError
from tasks.pipeline import Pipeline
from tasks.population import Mode


class NothingDue(PrescoreError):
    """What a tick asked for was done by another run, or will be by one that is due as well."""


@dataclass(frozen=True, kw_only=True)
class Due:
    """The tick that a run was started for."""

    at: datetime
    #: Whether the pipeline's grace has passed since: then the run makes up for missed ones.
    late: bool


def judge(pipeline: Pipeline, mode: Mode, due_at: datetime, now: datetime) -> Due:
    """Return the tick of a run, and whether the run comes too late for it, both by the real clock."""
    grace = pipeline.schedule.grace_for(mode.value)
    return Due(at=due_at, late=grace is not None and now - due_at > grace)


def require_due(connection: sa.Connection, pipeline: Pipeline, mode: Mode, due: Due | None) -> None:
    """Refuse to do once more what was done since the tick; asked by whoever holds the lock.

    A full run does the work of every tick before it, an incremental one that of incremental ones. A late incremental run leaves
    its work to a full one that is due.

    Raises
    ------
    NothingDue
        Naming the run that did it.
    """
    if due is None:
        return
    done = one(connection, "find_run_since_tick", pipeline=pipeline.name, mode=mode.value, due_at=due.at)
    ahead = None
    if done is None and due.late and mode is Mode.INCREMENTAL:
        ahead = one(connection, "find_due_full_run", pipeline=pipeline.name)
    connection.rollback()
    tick = f"{due.at:%Y-%m-%d %H:%M:%S} UTC"
    if done is not None:
        how = "has published" if done.status == "published" else f"was {done.status}"
        raise NothingDue(
            f"What was due at {tick} is done: run {done.run_id} began at {done.started_at:%Y-%m-%d %H:%M:%S} UTC and {how}. "
            "Nothing was started. The next tick starts the next run."
        )
    if ahead is not None:
        raise NothingDue(
            f"What was due at {tick} is left to the full run that is due since {ahead.next_tick:%Y-%m-%d %H:%M:%S} UTC. "
            "Nothing was started."
        )
