"""What PostgreSQL's backends spend on our sessions: CPU seconds, where the server is on this machine.

A session says when it begins and ends; in between its backend is a process whose time /proc tells. What a parallel worker,
the checkpointer or autovacuum spends on our behalf is theirs, and is not counted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

# utime and stime, counted from the state, which follows the name in parentheses (proc_pid_stat(5): fields 14 and 15).
_UTIME, _STIME = 11, 12

_METER: ContextVar[BackendMeter | None] = ContextVar("backend meter", default=None)


class BackendMeter:
    """Adds up the CPU time of the backends of all sessions that are opened while it is in use, by any thread."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._lock = threading.Lock()
        self._open: dict[int, float] = {}
        self._ended = 0.0
        self._known = True

    def begun(self, pid: int) -> None:
        """A session was opened; one whose backend is not a process of this machine makes the sum unknown."""
        now = self._read(pid)
        with self._lock:
            self._known = self._known and now is not None
            # From the first fork on: making the session is part of what it costs.
            self._open[pid] = 0.0 if now is None else now

    def ended(self, pid: int) -> None:
        """A session is about to be closed."""
        with self._lock:
            self._note(pid)
            self._ended += self._open.pop(pid, 0.0)

    def pids(self) -> list[int]:
        """Return the backends of the sessions that are open now."""
        with self._lock:
            return list(self._open)

    def seconds(self) -> float | None:
        """Return the CPU seconds of all these backends so far; None where they cannot be known."""
        with self._lock:
            for pid in list(self._open):
                self._note(pid)
            return self._ended + sum(self._open.values()) if self._known else None

    def _note(self, pid: int) -> None:
        # A backend that is gone already keeps what was last seen of it.
        now = self._read(pid)
        if now is not None:
            self._open[pid] = max(now, self._open.get(pid, 0.0))

    def _read(self, pid: int) -> float | None:
        try:
            # A server elsewhere has process ids too: the same number here would be anybody's.
            if not (self._proc / str(pid) / "cmdline").read_bytes().startswith(b"postgres: "):
                return None
            told = (self._proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = told.rpartition(")")[2].split()
        return (int(fields[_UTIME]) + int(fields[_STIME])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def use_meter() -> Iterator[BackendMeter]:
    """Count the backends of the sessions that are opened within."""
    meter = BackendMeter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def meter_in_use() -> BackendMeter | None:
    """Return the meter that counts here; None where nobody asked."""
    return _METER.get()
