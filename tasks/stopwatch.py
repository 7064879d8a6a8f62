"""How long each step of a run took and how much CPU time went into it, by clocks that nobody sets."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tasks import logs


class Watcher(Protocol):
    """Somebody who watches a run: a progress bar, a log, a stopwatch."""

    def stage(self, name: str) -> None:
        """A step of the run begins."""

    def rows(self, done: int, total: int) -> None:
        """So many rows of so many were scored."""


class Nobody:
    """A watcher that does not look."""

    def stage(self, name: str) -> None:
        """Look away."""

    def rows(self, done: int, total: int) -> None:
        """Look away."""


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """How long one step took, and the CPU time that went into it, in seconds."""

    step: str
    seconds: float
    #: CPU time of this process, all threads, and of its children that ended meanwhile.
    cpu_seconds: float = 0.0
    #: CPU time of PostgreSQL's backends that served it; None where it cannot be known.
    postgres_cpu_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Instant:
    seconds: float
    cpu_seconds: float
    postgres_cpu_seconds: float | None


class Stopwatch:
    """A watcher that takes the time of every step, and passes on what it is told.

    ``backends`` tells the CPU seconds of PostgreSQL's backends so far, or None.
    """

    def __init__(self, watcher: Watcher | None = None, backends: Callable[[], float | None] = lambda: None) -> None:
        self._watcher = Nobody() if watcher is None else watcher
        self._backends = backends
        self._begun: list[tuple[str, _Instant]] = [("open the run", self._now())]

    def stage(self, name: str) -> None:
        """A step of the run begins, and the one before has ended."""
        logs.note(step=name)
        self._begun.append((name, self._now()))
        self._watcher.stage(name)

    def rows(self, done: int, total: int) -> None:
        """So many rows of so many were scored."""
        self._watcher.rows(done, total)

    def timings(self) -> tuple[StepTiming, ...]:
        """Return the steps in their order; the last one until now."""
        ends = [begun for _, begun in self._begun[1:]] + [self._now()]
        return tuple(_timing(name, begun, end) for (name, begun), end in zip(self._begun, ends, strict=True))

    def _now(self) -> _Instant:
        return _Instant(seconds=time.perf_counter(), cpu_seconds=process_cpu(), postgres_cpu_seconds=self._backends())


def process_cpu() -> float:
    """Return the CPU seconds of this process so far, all threads, and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _timing(step: str, begun: _Instant, end: _Instant) -> StepTiming:
    postgres = None
    if end.postgres_cpu_seconds is not None:
        postgres = end.postgres_cpu_seconds - (begun.postgres_cpu_seconds or 0.0)
    return StepTiming(
        step=step,
        seconds=end.seconds - begun.seconds,
        cpu_seconds=end.cpu_seconds - begun.cpu_seconds,
        postgres_cpu_seconds=postgres,
    )
