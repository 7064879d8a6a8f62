"""How long each step of a run took, by a clock that nobody sets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


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
    """How long one step took, in seconds."""

    step: str
    seconds: float


class Stopwatch:
    """A watcher that takes the time of every step, and passes on what it is told."""

    def __init__(self, watcher: Watcher | None = None) -> None:
        self._watcher = Nobody() if watcher is None else watcher
        self._begun: list[tuple[str, float]] = [("open the run", time.perf_counter())]

    def stage(self, name: str) -> None:
        """A step of the run begins, and the one before has ended."""
        self._begun.append((name, time.perf_counter()))
        self._watcher.stage(name)

    def rows(self, done: int, total: int) -> None:
        """So many rows of so many were scored."""
        self._watcher.rows(done, total)

    def timings(self) -> tuple[StepTiming, ...]:
        """Return the steps in their order; the last one until now."""
        ends = [begun for _, begun in self._begun[1:]] + [time.perf_counter()]
        return tuple(
            StepTiming(step=name, seconds=end - begun) for (name, begun), end in zip(self._begun, ends, strict=True)
        )
