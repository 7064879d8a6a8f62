"""Named points of a run that do nothing outside tests.

A test names a point in ``PRESCORE_TEST_KILL_AT`` (``point`` or ``point:n`` for the n-th time it is reached) and the
process ends there as if the machine had lost power: no exception, no ``finally``, no goodbye to the database.
"""

from __future__ import annotations

import os
import signal

_WANTED, _, _COUNT = os.environ.get("PRESCORE_TEST_KILL_AT", "").partition(":")
_remaining = int(_COUNT or 1)

#: Every point, in the order in which a run reaches them.
POINTS = (
    "run.locked",
    "run.opened",
    "objects.created",
    "snapshot.exported",
    "guards.checked",
    "population.summarised",
    "storage.cleared",
    "population.selected",
    "stream.opened",
    "stream.batch",
    "copy.finished",
    "rejections.recorded",
    "storage.analysed",
    "outputs.judged",
    "publish.begun",
    "publish.fenced",
    "publish.merged",
    "publish.storages_marked",
    "publish.generation_written",
    "publish.head_moved",
    "publish.samples_kept",
    "publish.before_commit",
    "publish.committed",
    "publish.notified",
    "retired.cleared",
)


def reached(point: str) -> None:
    """Mark a named point of a run; nothing happens unless a test asked for its end here."""
    global _remaining
    if point != _WANTED:
        return
    _remaining -= 1
    if _remaining == 0:
        os.kill(os.getpid(), signal.SIGKILL)
