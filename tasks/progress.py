"""How far a run is: rows done of how many, rows per second, seconds left, by a clock that is handed in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the rows of a run are scored."""

    done: int
    total: int
    #: Since the first row was asked for.
    seconds: float

    @property
    def share(self) -> float:
        """Share that is done, 0 to 1; 1 when there is nothing to do."""
        return min(1.0, self.done / self.total) if self.total else 1.0

    @property
    def rows_per_second(self) -> float | None:
        """Rows per second so far; None before the first one."""
        return self.done / self.seconds if self.done and self.seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest takes at the pace so far; None before the first row."""
        rate = self.rows_per_second
        return None if rate is None else max(0, self.total - self.done) / rate

    def describe(self) -> str:
        """Say how far it is: ``120,000 of 2,000,000 rows, 61,200 rows/s, 31 s left``."""
        told = f"{self.done:,} of {self.total:,} rows"
        rate, left = self.rows_per_second, self.seconds_left
        return told if rate is None or left is None else f"{told}, {rate:,.0f} rows/s, {describe_left(left)} left"


class Pacer:
    """Turns what a watcher of a run is told into how far it is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()

    def begin(self) -> None:
        """A step begins: rows are counted from here on."""
        self._begun = self._clock()

    def at(self, done: int, total: int) -> Progress:
        """Return how far it is with so many rows of so many."""
        return Progress(done=done, total=total, seconds=self._clock() - self._begun)


def describe_left(seconds: float) -> str:
    """Return a time to wait as people say it: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
