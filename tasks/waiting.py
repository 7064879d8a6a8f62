"""Waiting for a publication, for scripts: told by the database when there is one, and looking now and then besides."""

from __future__ import annotations

import select
import time
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tasks.announcements import CHANNEL
from tasks.database import connect, one, rows
from tasks.health import WELL, PipelineNeverRan

# Seconds between two looks when nothing is heard: a pooler or a failover may keep notifications away.
LOOK_EVERY = 15.0


@dataclass(frozen=True, kw_only=True)
class Waited:
    """What is served at the end of a wait."""

    pipeline: str
    #: Whether it is what was waited for.
    there: bool
    state: str
    generation_id: int | None
    published_at: datetime | None
    data_as_of: datetime | None


def wait_for(
    url: str,
    pipeline: str,
    *,
    newer_than: datetime | None = None,
    seconds: float,
    look_every: float = LOOK_EVERY,
) -> Waited:
    """Wait until a pipeline serves data later than ``newer_than``; without it, until what is served is fresh or aging.

    Predictions that readers may not use (quarantined, expired) are not waited for to be newer. It returns after ``seconds``
    at the latest.

    Raises
    ------
    PipelineNeverRan
        When the database does not know the pipeline, or not any more.
    """
    until = time.monotonic() + seconds
    with connect(url, "prescore wait", autocommit=True) as connection:
        connection.execute(sa.text(f"LISTEN {CHANNEL}"))
        while True:
            waited = _look(connection, pipeline, newer_than)
            left = until - time.monotonic()
            if waited.there or left <= 0:
                return waited
            _hear(connection, min(left, look_every))


def _look(connection: sa.Connection, pipeline: str, newer_than: datetime | None) -> Waited:
    found = one(connection, "read_served_state", pipeline=pipeline)
    if found is None:
        raise PipelineNeverRan(pipeline, [row.pipeline for row in rows(connection, "list_pipelines")])
    newer = newer_than is None or (found.data_as_of is not None and found.data_as_of > newer_than)
    usable = WELL if newer_than is None else WELL | {"stale"}
    return Waited(
        pipeline=pipeline,
        there=found.state in usable and newer,
        state=found.state,
        generation_id=found.generation_id,
        published_at=found.published_at,
        data_as_of=found.data_as_of,
    )


def _hear(connection: sa.Connection, seconds: float) -> None:
    """Return when something was announced, whatever it was, or when the time is over."""
    driver = connection.connection.driver_connection
    assert driver is not None
    if not driver.notifies:
        select.select([driver], [], [], seconds)
    driver.poll()
    driver.notifies.clear()
