"""Named points of a run that do nothing outside tests.

A test names a point in ``PRESCORE_TEST_KILL_AT`` (``point`` or ``point:n`` for the n-th time it is reached) and the
process ends there as if the machine had lost power: no exception, no ``finally``, no goodbye to the database. A test of
the same process listens instead, and does there what it likes: to the server, to the sources, to the run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_WANTED, _, _COUNT = os.environ.get("PRESCORE_TEST_KILL_AT", "").partition(":")
_remaining = [int(_COUNT or 1)]
_listeners: list[Callable[[str], None]] = []

#: Every point, in the order in which a run reaches them.
POINTS = (
    "run.locked",
    "run.opened",
    "snapshot.exported",
    "model.loaded",
    "objects.begun",
    "objects.created",
    "guards.checked",
    "population.summarised",
    "population.selected",
    "population.checked",
    "storage.emptied",
    "storage.cleared",
    "stream.opened",
    "stream.batch",
    "copy.sent",
    "copy.fenced",
    "copy.finished",
    "copy.read_back",
    "rejections.recorded",
    "storage.indexed",
    "storage.analysed",
    "profile.stored",
    "outputs.judged",
    "samples.kept",
    "publish.begun",
    "publish.fenced",
    "publish.gone_removed",
    "publish.merged",
    "publish.storages_marked",
    "publish.generation_written",
    "publish.head_moved",
    "publish.ticks_covered",
    "publish.before_commit",
    "publish.committed",
    "retired.cleared",
)

#: Those of a run whose pipeline declares [history], once a storage that readers saw is cleared.
HISTORY_POINTS = ("history.archived",)

#: Those of a run whose pipeline declares [archive], behind the others.
ARCHIVE_POINTS = (
    "archive.begun",
    "archive.part",
    "archive.written",
    "archive.visible",
)

#: Those of removing what is past its retention, once a day.
RETENTION_POINTS = ("retention.batch",)

#: Those of `prescore migrate`, for each migration from the second on.
MIGRATION_POINTS = (
    "migration.begun",
    "migration.entered",
    "migration.applied",
    "migration.committed",
)

#: Those of an erasure.
FORGET_POINTS = (
    "forget.begun",
    "forget.rows_removed",
    "forget.models_rewritten",
    "forget.manifest_written",
    "forget.swept",
)


#: Those of a run whose pipeline declares [history], before a storage is cleared.
HISTORY_POINTS = ("history.archived",)


def reached(point: str) -> None:
    """Mark a named point of a run; nothing happens unless a test asked for its end here, or listens."""
    for listener in _listeners:
        listener(point)
    if point != _WANTED:
        return
    _remaining[0] -= 1
    if _remaining[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Call a function at every point that this process reaches within the block, in the thread that reaches it."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
