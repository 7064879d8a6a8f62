"""The watchdog of a run: a thread that shows that it is alive, and that ends it when somebody asks or its time is up.

It ends a run as others would: it closes its record and ends its connections, so that whatever the run waits for raises.
Where the run does not answer, because it hangs in code of the model's, the process is ended, if it is there for this run.
"""

from __future__ import annotations

import contextvars
import faulthandler
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg2
import sqlalchemy as sa

from tasks.backends import meter_in_use
from tasks.database import connect, load_query, one, rows
from tasks.endings import PATIENCE_MS, Publishing, RunCancelled, RunTimedOut, cancelled, timed_out, while_not_publishing
from tasks.errors import PrescoreError

logger = logging.getLogger(__name__)

# Seconds between two signs of life; a run counts as hung after minutes, not seconds.
HEARTBEAT_SECONDS = 15.0
# Seconds that a run gets to end once its connections are gone; a batch of rows takes less.
PATIENCE = 30.0
# Seconds that a publication gets to be finished when the time of its run is up.
PUBLISHING = 60.0

#: Ends the process of a run that does not answer, and says so to whoever waits for it. Never returns.
EndProcess = Callable[[PrescoreError], None]

_ERRORS = (PrescoreError, sa.exc.DBAPIError, sa.exc.InvalidRequestError, psycopg2.Error, OSError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What the watchdog has to know of a run."""

    run_id: int
    pipeline: str
    url: str
    #: Where the sources are: ``url``, or another server.
    source_url: str
    started_at: datetime
    #: The backend that holds the lock.
    backend_pid: int
    max_duration: timedelta


class Watchdog:
    """Watches over one run, in a thread of its own, on a connection of its own."""

    def __init__(self, watched: Watched, end_process: EndProcess | None) -> None:
        self._watched, self._end_process = watched, end_process
        self._deadline = time.monotonic() + watched.max_duration.total_seconds()
        self._over = threading.Event()
        self._woken, self._wake = socket.socketpair()
        #: Why the run was ended; None while it was not.
        self.ended: PrescoreError | None = None

    def stop(self) -> None:
        """Tell the thread that the run is over."""
        self._over.set()
        with suppress(OSError):
            self._wake.send(b"x")

    def live(self) -> None:
        """Watch until the run is over or was ended."""
        while not self._over.is_set():
            try:
                self._watch()
            except _ERRORS:
                logger.warning("run %d could not show that it is alive", self._watched.run_id)
                if time.monotonic() >= self._deadline:
                    # Nobody to tell, and no connection of the run is any better.
                    self.ended = timed_out(self._watched.max_duration)
                else:
                    self._pause(None)
            if self.ended is not None:
                self._see_it_end(self.ended)
                return

    def reason(self) -> PrescoreError | None:
        """Return why the run was ended, also by others; None where it was not: then its trouble is its own."""
        if self.ended is not None:
            return self.ended
        with suppress(*_ERRORS), connect(self._watched.url, "prescore heartbeat") as connection:
            found = one(connection, "find_ending", run_id=self._watched.run_id)
            if found is not None and found.cancel_asked_at is not None and found.status in {"running", "cancelled"}:
                error = cancelled(found)
                self._close(connection, "cancelled", error)
                return error
            if found is not None and found.status == "failed":
                return RunTimedOut(found.message)
        return None

    def _watch(self) -> None:
        watched = self._watched
        with connect(watched.url, "prescore heartbeat", autocommit=True) as connection:
            one(connection, "limit_lock_waits", milliseconds=str(PATIENCE_MS), locally=False)
            connection.execute(sa.text(load_query("listen_for_requests")))
            while not self._over.is_set():
                with suppress(Publishing), while_not_publishing():
                    self.ended = self._look(connection)
                if self.ended is not None:
                    self._end_sessions(connection)
                    return
                self._pause(connection)

    def _look(self, connection: sa.Connection) -> PrescoreError | None:
        """Show that the run is alive; return why it is ended, if it is."""
        watched = self._watched
        found = one(connection, "record_heartbeat", run_id=watched.run_id)
        if found is not None and found.cancel_asked_at is not None:
            error: PrescoreError = cancelled(found)
            return error if self._close(connection, "cancelled", error) else None
        if time.monotonic() < self._deadline:
            return None
        error = timed_out(watched.max_duration)
        if found is None:
            # It is over by its record, and still at work: copying what it published, or tidying up.
            return error
        return error if self._close(connection, "failed", error) else None

    def _close(self, connection: sa.Connection, status: str, error: PrescoreError) -> bool:
        values = {"run_id": self._watched.run_id, "status": status, "message": str(error)}
        closed = one(connection, "end_run_from_outside", **values) is not None
        connection.commit()
        return closed

    def _end_sessions(self, connection: sa.Connection) -> None:
        watched, meter = self._watched, meter_in_use()
        pids = [watched.backend_pid, *([] if meter is None else meter.pids())]
        given: dict[str, Any] = {"pids": pids, "since": watched.started_at}
        rows(connection, "end_sessions", **given)
        if watched.source_url != watched.url:
            with suppress(*_ERRORS), connect(watched.source_url, "prescore heartbeat", autocommit=True) as sources:
                rows(sources, "end_sessions", **given)

    def _see_it_end(self, error: PrescoreError) -> None:
        logger.warning("run %d of %s is ended: %s", self._watched.run_id, self._watched.pipeline, error)
        if self._over.wait(PATIENCE) or self._end_process is None:
            return
        show_where_it_hangs()
        self._end_process(error)

    def _pause(self, connection: sa.Connection | None) -> None:
        """Wait for the next sign of life, the deadline, somebody's request or the end of the run."""
        seconds = HEARTBEAT_SECONDS
        left = self._deadline - time.monotonic()
        if left > 0:
            seconds = min(seconds, left)
        sockets: list[Any] = [self._woken]
        if connection is not None:
            sockets.append(connection.connection.driver_connection)
        select.select(sockets, [], [], seconds)

    def close(self) -> None:
        """Give the sockets back."""
        self._woken.close()
        self._wake.close()


@contextmanager
def watch_over(watched: Watched, end_process: EndProcess | None = None) -> Iterator[Watchdog]:
    """Watch over a run within the block.

    ``end_process`` is called where the run does not end within half a minute. Should Python itself be stuck, in C code that
    never lets it go, a thread that needs no Python ends the process a minute after that.
    """
    watchdog = Watchdog(watched, end_process)
    # With the context of the run: under Prefect its messages belong to the run's log.
    inherited = contextvars.copy_context()
    thread = threading.Thread(target=inherited.run, args=(watchdog.live,), name="prescore heartbeat", daemon=True)
    if end_process is not None:
        last = watched.max_duration.total_seconds() + PATIENCE + PUBLISHING
        faulthandler.dump_traceback_later(last, exit=True, file=_stderr())
    thread.start()
    try:
        yield watchdog
    finally:
        watchdog.stop()
        thread.join()
        watchdog.close()
        if end_process is not None:
            faulthandler.cancel_dump_traceback_later()


def show_where_it_hangs() -> None:
    """Write where each thread of this process is to standard error: code, no values."""
    faulthandler.dump_traceback(file=_stderr())


def end_process_within(seconds: float) -> None:
    """Let this process end by then, whatever it does: no thread of Python is needed for it."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=_stderr())


def exit_at_once(error: PrescoreError) -> None:
    """End a process that runs nothing but this run, as a command does."""
    sys.__stderr__.write(f"prescore: {error}\n")  # type: ignore[union-attr]
    sys.__stderr__.flush()  # type: ignore[union-attr]
    os._exit(error.exit_code)


def _stderr() -> Any:
    return sys.__stderr__


__all__ = ["EndProcess", "RunCancelled", "RunTimedOut", "Watchdog", "Watched", "exit_at_once", "watch_over"]
