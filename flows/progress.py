"""A run's progress as an artifact on Prefect's page.

The run never waits for Prefect: what there is to tell is left where a thread of its own picks the latest of it up. That
thread asks the server at most once in a while; whatever the server answers, or that it does not answer, the run goes on.
Importing this module imports no Prefect.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from tasks.progress import Pacer, Progress

logger = logging.getLogger("prescore.progress")

#: Seconds between two updates. A run that scores for less than this leaves no progress artifact: it would only say 100 %.
EVERY = 5.0
#: Seconds that a run which has ended waits for what was sent last.
LAST_WORD = 1.0


class Sender(Protocol):
    """Whatever keeps the artifact: Prefect's server."""

    def create(self, percent: float, description: str) -> Any:
        """Make the artifact and return its id."""

    def update(self, artifact: Any, percent: float, description: str) -> None:
        """Change the artifact."""


class PrefectSender:
    """Keeps the artifact on the server of the flow run whose context this thread has."""

    def __init__(self, key: str) -> None:
        self._key = key

    def create(self, percent: float, description: str) -> Any:
        """Make the artifact and return its id."""
        from prefect.artifacts import create_progress_artifact

        return create_progress_artifact(progress=percent, key=self._key, description=description)

    def update(self, artifact: Any, percent: float, description: str) -> None:
        """Change the artifact."""
        from prefect.artifacts import update_progress_artifact

        update_progress_artifact(artifact, progress=percent, description=description)


class ProgressArtifact:
    """A watcher of a run that shows on Prefect's page how far it is, at most every ``EVERY`` seconds by ``clock``.

    It is a context manager: leaving it sends the last word, and waits for that no longer than ``LAST_WORD``.
    """

    def __init__(
        self, pipeline: str, sender: Sender, *, clock: Callable[[], float] = time.monotonic, every: float = EVERY
    ) -> None:
        self._pipeline, self._sender, self._clock, self._every = pipeline, sender, clock, every
        self._pacer = Pacer(clock)
        self._told_at: float | None = None
        self._last: Progress | None = None
        self._waiting: Progress | None = None
        self._changed = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ProgressArtifact:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        with self._changed:
            self._waiting, self._ended = self._last, True
            self._changed.notify()
        self._thread.join(LAST_WORD)

    def stage(self, name: str) -> None:
        """A step of the run begins; one that follows the rows leaves what is said of them."""
        if self._last is None:
            self._pacer.begin()
            self._told_at = self._clock()

    def rows(self, done: int, total: int) -> None:
        """So many rows of so many were scored: told if the last time is long enough ago."""
        self._last = self._pacer.at(done, total)
        now = self._clock()
        if self._told_at is not None and now - self._told_at < self._every:
            return
        self._told_at = now
        with self._changed:
            self._waiting = self._last
            self._changed.notify()
        if self._thread is None:
            # With the context of the flow run, which the artifact belongs to. A daemon: a server that never answers
            # keeps no process alive.
            inherited = contextvars.copy_context()
            self._thread = threading.Thread(
                target=inherited.run, args=(self._send,), name="prescore progress", daemon=True
            )
            self._thread.start()

    def _send(self) -> None:
        artifact: Any = None
        failed = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._ended)
                progress, self._waiting = self._waiting, None
            if progress is None:
                return
            description = f"{self._pipeline}: {progress.describe()}"
            try:
                if artifact is None:
                    artifact = self._sender.create(progress.share * 100, description)
                else:
                    self._sender.update(artifact, progress.share * 100, description)
            except Exception as error:  # whatever keeps the server from taking it, the run is what counts
                if not failed:
                    logger.warning("progress could not be shown: %s", type(error).__name__)
                failed = True
