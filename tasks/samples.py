"""A share of what a run predicted, kept for labels that come later; head need not wait for its choice.

Choosing takes a look at every row that was written: of 2,000,000 rows 0.36 s on one core, in which a run judges what it wrote.
"""

from __future__ import annotations

import contextvars
import math
import threading
from contextlib import suppress

import psycopg2
import sqlalchemy as sa

from tasks.columns import key_hash
from tasks.database import connect, load_query
from tasks.faults import reached
from tasks.population import Mode, Selection
from tasks.readers import Objects
from tasks.runs import Run

# A sample keeps at least about this many entities, so that metrics on later labels mean something.
LEAST_SAMPLE = 1_000
# A share of the entities is told apart in steps of one to so many. In integers: numerics took 610 ms over a million rows
# where these take 80.
SAMPLED_HASHES = 1_000_000
# How often a statement that nobody waits for any more is asked to end, in seconds: it may not have begun the first time.
_ASK_AGAIN = 0.1


class Sampling:
    """The choice of one run: made beside it, on a connection of its own, and kept only if the run publishes."""

    def __init__(self, run: Run, objects: Objects, selection: Selection, storage_id: int, model_version: int) -> None:
        self._run, self._objects, self._selection = run, objects, selection
        self._storage_id, self._model_version = storage_id, model_version
        self._connection: sa.Connection | None = None
        self._thread: threading.Thread | None = None
        self._decided = threading.Event()
        self._wanted = False
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Begin to choose where there is much to look at; whatever becomes of the run, the choice ends with it."""
        if self._selection.mode is not Mode.FULL:
            return
        inherited = contextvars.copy_context()
        self._thread = threading.Thread(target=lambda: inherited.run(self._work), name="prescore samples", daemon=True)
        self._run.beside.callback(self.let_go)
        self._thread.start()

    def keep(self) -> None:
        """Wait for the choice and keep it: nobody reads a sample of a generation that was not published.

        Raises
        ------
        sqlalchemy.exc.DBAPIError, DatabaseUnreachable
            When it failed.
        """
        if self._thread is None:
            self._choose(self._run.connection)
            self._run.connection.commit()
        else:
            self._wanted = True
            self._decided.set()
            self._thread.join()
            if self._error is not None:
                raise self._error
        reached("samples.kept")

    def let_go(self) -> None:
        """Have the choice ended unless it is kept: until then it holds a lock of the storage that it looks at."""
        self._decided.set()
        while self._thread is not None and self._thread.is_alive():
            connection = self._connection
            if connection is not None:
                with suppress(psycopg2.Error, sa.exc.SQLAlchemyError):
                    connection.connection.driver_connection.cancel()  # type: ignore[union-attr]
            self._thread.join(_ASK_AGAIN)

    def _work(self) -> None:
        try:
            with connect(self._run.url, "prescore samples") as connection:
                self._connection = connection
                self._choose(connection)
                self._decided.wait()
                if self._wanted:
                    connection.commit()
                self._connection = None
        except BaseException as error:
            self._error = error

    def _choose(self, connection: sa.Connection) -> None:
        """Write down the choice, and remove what runs that did not get further have left."""
        run, objects = self._run, self._objects
        known = {"pipeline": objects.pipeline, "generation_id": run.generation_id}
        connection.execute(sa.text(load_query("forget_samples")), known)
        share = min(1.0, max(run.pipeline.performance.sample, LEAST_SAMPLE / max(1, self._selection.population)))
        fragments = {
            "storage": objects.storage(self._storage_id),
            "key_object": objects.key_object,
            "output_object": objects.output_object,
            "key_hash": key_hash(objects.key, "r", seed="1"),
        }
        # The remainder of a hash is as often negative: between -SAMPLED_HASHES and SAMPLED_HASHES.
        below = math.ceil((2 * share - 1) * SAMPLED_HASHES)
        values = {**known, "model_version": self._model_version, "hashes": SAMPLED_HASHES, "below": below}
        connection.execute(sa.text(load_query("keep_samples", fragments)), values)
