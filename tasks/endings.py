"""Endings: how a run is ended that does not end by itself, because somebody asked or because it took too long.

Ending a run takes two steps in this order: its record says so, which keeps it from publishing, and then its connections
are ended, which frees its lock. Each needs the rights of the role that runs pipelines and no more.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from tasks.database import connect, one, rows
from tasks.errors import PrescoreError
from tasks.fields import write_duration
from tasks.settings import os_user

logger = logging.getLogger(__name__)

# Milliseconds that a statement about a run waits for the run itself: only its publication holds its row longer.
PATIENCE_MS = 2_000
# How much longer than max_duration a run may hold its lock before others end it: it ends itself in between.
GRACE = timedelta(minutes=2)
# Seconds between two looks at a run that was asked to end.
LOOK_EVERY = 0.2

_LOCK_NOT_AVAILABLE = "55P03"


class RunCancelled(PrescoreError):
    """Somebody asked the run to end."""


class RunTimedOut(PrescoreError):
    """The run took longer than it may."""


class NoSuchRun(PrescoreError):
    """There is no run of this id."""

    def __init__(self, run_id: int) -> None:
        super().__init__(
            f"There is no run {run_id} in this database. Nothing was changed. `prescore status` names the runs at work."
        )


class NotCancellable(PrescoreError):
    """The run is over, or its publication cannot be taken back by ending it."""


class Publishing(Exception):
    """The row of a run is held by its publication."""


@dataclass(frozen=True, kw_only=True)
class Cancellation:
    """What became of a request to end a run."""

    run_id: int
    pipeline: str
    #: running when it has not ended within the time that was waited.
    status: str
    message: str

    @property
    def ended(self) -> bool:
        """Whether the run is over and its lock is free."""
        return self.status != "running"


def cancelled(found: Any) -> RunCancelled:
    """Return what a run that was asked to end raises, and what its record says; ``found`` holds who asked and why."""
    why = f": {found.cancel_because}" if found.cancel_because else ""
    who = found.cancel_asked_by or "somebody"
    return RunCancelled(
        f"Cancelled by {who}{why}. Nothing of this run was published; what was served before still is. Start another run "
        "if its predictions are still wanted."
    )


def timed_out(max_duration: timedelta) -> RunTimedOut:
    """Return what a run that takes too long raises, and what its record says."""
    return RunTimedOut(
        f"Timed out: the run took longer than max_duration, {write_duration(max_duration)}, and was ended. What was served "
        "before still is, and the next run may begin. Look at what it waited for; where runs do take so long, raise "
        "[schedule] max_duration."
    )


def cancel(
    url: str,
    run_id: int,
    *,
    because: str | None = None,
    force: bool = False,
    wait: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Cancellation:
    """Ask a run to end, wherever it runs, and wait ``wait`` seconds until it has; ``force`` ends its connections at once.

    A run whose process is gone is closed at once. Asking twice changes nothing.

    Raises
    ------
    NoSuchRun
    NotCancellable
        When the run is over or publishing.
    """
    with connect(url, "prescore cancel", autocommit=True) as connection:
        one(connection, "limit_lock_waits", milliseconds=str(PATIENCE_MS), locally=False)
        found = one(connection, "find_ending", run_id=run_id)
        if found is None:
            raise NoSuchRun(run_id)
        if found.status != "running":
            raise _over(found)
        try:
            with while_not_publishing():
                asked = one(connection, "ask_to_cancel", run_id=run_id, asked_by=asker(connection), because=because)
        except Publishing:
            raise NotCancellable(
                f"Run {run_id} of {found.pipeline} is publishing and cannot be cancelled any more. Nothing was changed. If "
                f"its predictions are not wanted, run `prescore rollback {found.pipeline}` once it has ended."
            ) from None
        if asked is None:
            raise _over(one(connection, "find_ending", run_id=run_id))
        if force or not found.connected:
            gone = "" if found.connected else " Its connection was gone already."
            end_from_outside(connection, found, "cancelled", f"{cancelled(asked)}{gone}")
        until = time.monotonic() + wait
        while True:
            found = one(connection, "find_ending", run_id=run_id)
            if (found.status != "running" and not found.connected) or time.monotonic() >= until:
                break
            sleep(LOOK_EVERY)
        over = found.status != "running" and not found.connected
        return Cancellation(
            run_id=run_id,
            pipeline=found.pipeline,
            status=found.status if over else "running",
            message=found.message if over else "",
        )


def end_overdue(connection: sa.Connection, pipeline: str) -> None:
    """End the run that holds the lock of a pipeline and should have ended itself some minutes ago: its process hangs."""
    found = one(connection, "find_overdue_run", pipeline=pipeline, grace=GRACE)
    connection.commit()
    if found is not None:
        logger.warning("run %d of %s is past its max_duration: it is ended", found.run_id, pipeline)
        where = f" Its process {found.process_id} on {found.host} may still be there: it can do nothing any more."
        end_from_outside(connection, found, "failed", f"{timed_out(found.max_duration)}{where}")


def end_from_outside(connection: sa.Connection, found: Any, status: str, message: str) -> None:
    """Close the record of a run, then end the connection that holds its lock; ``found`` names run and backend.

    What else the run has open ends with its process, or when the server finds it idle for too long.
    """
    one(connection, "limit_lock_waits", milliseconds=str(PATIENCE_MS), locally=False)
    values = {"run_id": found.run_id, "status": status, "message": message}
    with while_publishing_is_no_reason(connection):
        one(connection, "end_run_from_outside", **values)
        connection.commit()
    rows(connection, "end_backend", pid=found.backend_pid, started=found.backend_start)
    connection.commit()
    # Where its publication held the row: it is rolled back now, or it has committed, and then there is nothing to say.
    one(connection, "end_run_from_outside", **values)
    one(connection, "limit_lock_waits", milliseconds="0", locally=False)
    connection.commit()


def asker(connection: sa.Connection) -> str:
    """Return who asks: the user of this machine, or the role of the database where nobody knows."""
    user = os_user()
    if user is None:
        user = str(connection.execute(sa.text("SELECT session_user")).scalar_one())
    return f"{user} on {socket.gethostname()}"


@contextmanager
def while_not_publishing() -> Iterator[None]:
    """Raise :class:`Publishing` where the row of a run could not be had."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise Publishing from error


@contextmanager
def while_publishing_is_no_reason(connection: sa.Connection) -> Iterator[None]:
    """Go on where the row of a run could not be had."""
    try:
        with while_not_publishing():
            yield
    except Publishing:
        connection.rollback()


def _over(found: Any) -> NotCancellable:
    said = f": {found.message}" if found.message else "."
    return NotCancellable(
        f"Run {found.run_id} of {found.pipeline} is over since {found.ended_at:%Y-%m-%d %H:%M:%S} UTC ({found.status})"
        f"{said.rstrip('.')}. There is nothing to cancel."
    )
