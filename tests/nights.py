"""A small world for nights in which things go wrong, with what has to be served worked out beside prescore.

What is expected comes from the sources and the coefficients of the model by arithmetic of our own: no query, preprocessing
or prediction of prescore has a part in it. Everything random comes from a generator that the caller seeds.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg2
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline as chain

from tasks.runs import Status
from tests.conftest import psql_url
from tests.disturbances import LOCKS, wait_until
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

#: Entities without features, so that rejections are written too; fewer than would hold a run.
REJECTED_EVERY = 197
FEATURES_SQL = f"""
SELECT i.id, b.as_of, i.a, i.b, repeat('x', 10000) AS padding
FROM batch AS b JOIN public.items AS i ON i.id = b.id WHERE i.id % {REJECTED_EVERY} <> 0
"""
#: Readers see for a long time what was published: a slow machine is no fault.
SERVE = '[serve]\naging_after = "30d"\nstale_after = "60d"\n'
#: One statement of a reader: what it sees, and of which generation that is.
ANSWER = """
SELECT (SELECT generation_id FROM prescore.head WHERE pipeline = 'items'), count(*),
       sum(hashtextextended(ROW(id, state = 'rejected', p, label)::text, 0))
FROM predictions.items
"""
#: Connections of runs; a run that was killed may have one left for the seconds in which its server notices.
CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'prescore%'
"""
#: Points are fractions of a second apart; statements of this world take milliseconds.
LONGEST_DELAY = 0.03
Answer = tuple[int, int, int]


@dataclass
class Night:
    """A world whose sources change, and what a reader has to see of it."""

    world: World
    #: Weights of a and b, and what is added; p = 1 / (1 + exp(-(weights . values + added))).
    weights: tuple[float, float]
    added: float
    #: In place of a value that is NULL.
    instead: tuple[float, float]
    #: What was to be seen each time that nobody was at work.
    answers: list[Answer] = field(default_factory=list)
    #: What is served, by our own arithmetic; the sources may have changed since.
    served: dict[int, float | None] = field(default_factory=dict)

    def change(self, chance: random.Random) -> None:
        """Let the sources change as a day does: some rows get other values, a few come, a few go."""
        ids = [row[0] for row in self.world.rows("SELECT id FROM public.items ORDER BY id")]
        gone = chance.sample(ids, chance.randint(0, 3))
        changed = chance.sample(ids, chance.randint(1, len(ids) // 10))
        come = [max(ids) + 1 + number for number in range(chance.randint(0, 3))]
        values = ", ".join(f"({key}, {chance.uniform(-1, 1)!r}, {_some(chance)})" for key in (*changed, *come))
        self.world.execute(
            "INSERT INTO public.items (id, a, b, updated_at) "
            f"SELECT id, a, b, clock_timestamp() FROM (VALUES {values}) AS v(id, a, b) "
            "ON CONFLICT (id) DO UPDATE SET a = excluded.a, b = excluded.b, updated_at = excluded.updated_at;"
            f"DELETE FROM public.items WHERE id = ANY (ARRAY{gone}::bigint[])"
        )

    def expected(self) -> dict[int, float | None]:
        """Return what each entity of the sources as they are has to be predicted; None where it must be rejected."""
        return {
            key: None if key % REJECTED_EVERY == 0 else self._probability(a, b)
            for key, a, b in self.world.rows("SELECT id, a, b FROM public.items")
        }

    def require_served(self, expected: dict[int, float | None]) -> None:
        """Fail unless readers see exactly these entities, once each, with these predictions."""
        rows = self.world.rows("SELECT id, state, p, label FROM predictions.items ORDER BY id")
        assert [row[0] for row in rows] == sorted(expected)
        for key, state, p, label in rows:
            wanted = expected[key]
            if wanted is None:
                assert (state, p, label) == ("rejected", None, None), key
            else:
                assert state in {"fresh", "aging"}, (key, state)
                assert math.isclose(p, wanted, rel_tol=1e-12), (key, p, wanted)
                assert str(label) == str(int(wanted > 0.5)), key

    def look(self, sources: dict[int, float | None] | None = None) -> bool:
        """Look while nobody is at work: fail unless all of what was served is, or all that the sources say now.

        ``sources`` is what they said when the run began, where they have changed since. Return whether there was a
        publication since the last look.
        """
        generation, count, total = self.world.rows(ANSWER)[0]
        found = (generation, count, int(total))
        moved = not self.answers or self.answers[-1][0] != generation
        if moved:
            self.served = self.expected() if sources is None else sources
        else:
            assert found == self.answers[-1], "what is served has changed without a publication"
        self.require_served(self.served)
        self.answers.append(found)
        return moved

    def require_nothing_left(self) -> None:
        """Fail if the last run, which has published, left anything of those before it: rows, locks, connections, records."""
        world = self.world
        wait_until(world, f"SELECT WHERE ({CONNECTIONS}) = 1")  # the one that asks
        assert world.rows(LOCKS) == [(0,)]
        assert world.rows("SELECT count(*) FROM pg_prepared_xacts") == [(0,)]
        roles = dict(world.rows("SELECT role, storage_id FROM prescore.storages WHERE pipeline = 'items'"))
        assert set(roles) == {"current", "previous", "next"}
        assert world.rows(f"SELECT count(*) FROM prescore_rows.items_{roles['next']}") == [(0,)]
        head = world.one(
            "SELECT storage_id, generation_id, run_id, rows FROM prescore.head JOIN prescore.generations "
            "USING (pipeline, generation_id, storage_id, rows)"
        )
        assert head["storage_id"] == roles["current"]
        assert world.rows(f"SELECT count(*), count(DISTINCT id) FROM prescore_rows.items_{roles['current']}") == [
            (head["rows"], head["rows"])
        ]
        assert world.rows("SELECT count(*) FROM prescore.runs WHERE status = 'running' OR ended_at IS NULL") == [(0,)]
        # A generation is there if and only if its run published it; nothing is kept of others for labels to come.
        assert world.rows(
            "SELECT count(*) FROM prescore.runs AS r FULL JOIN prescore.generations AS g USING (run_id) "
            "WHERE (r.status = 'published') IS DISTINCT FROM (g.run_id IS NOT NULL)"
        ) == [(0,)]
        assert world.rows(
            "SELECT count(*) FROM prescore.prediction_samples AS s LEFT JOIN prescore.generations AS g "
            "USING (pipeline, generation_id) WHERE g.generation_id IS NULL"
        ) == [(0,)]
        assert world.rows("SELECT count(*) FROM prescore.shards WHERE state = 'open'") == [(0,)]

    def statuses(self) -> list[str]:
        """Return how the runs ended, in their order."""
        return [row[0] for row in self.world.rows("SELECT status FROM prescore.runs ORDER BY run_id")]

    def last_run(self) -> dict[str, Any]:
        """Return status, message and generation of the last run."""
        found: dict[str, Any] = self.world.one(
            "SELECT run_id, status, message, generation_id FROM prescore.runs ORDER BY run_id DESC LIMIT 1"
        )
        return found

    def require_next_run_needs_no_hands(self, *, full: bool = False) -> None:
        """Run once more as anybody would, and fail unless that puts everything right."""
        assert self.world.score(full=full).status is Status.PUBLISHED
        assert self.look()
        self.require_nothing_left()

    def _probability(self, a: float | None, b: float | None) -> float:
        first, second = (self.instead[at] if value is None else value for at, value in enumerate((a, b)))
        return 1.0 / (1.0 + math.exp(-(self.weights[0] * first + self.weights[1] * second + self.added)))


def make_night(url: str, folder: Path, rows: int = 400, toml: str = "") -> Night:
    """Return a night in a migrated database, after a first publication."""
    world = make_world(url, folder / "pipelines", rows=rows)
    pipeline = make_pipeline(world, toml=PIPELINE_TOML + SERVE + toml, features=FEATURES_SQL)
    fitted: list[Any] = []

    def fit(_: Any, frame: pd.DataFrame) -> Any:
        numbers = ["a", "b"]
        labels = (frame["a"] + frame["b"].fillna(0.0) > 0).astype(int)
        keep = ColumnTransformer([("numbers", SimpleImputer(), numbers)])
        fitted.append(chain(keep, LogisticRegression()).fit(frame, labels))
        return fitted[0]

    make_model(world, pipeline, fit=fit)
    (model,) = fitted
    imputer, regression = model[0].named_transformers_["numbers"], model[1]
    weights, instead = regression.coef_[0], imputer.statistics_
    night = Night(
        world=world,
        weights=(float(weights[0]), float(weights[1])),
        added=float(regression.intercept_[0]),
        instead=(float(instead[0]), float(instead[1])),
    )
    first = world.score()
    assert first.status is Status.PUBLISHED, first.message
    assert night.look()
    return night


def _some(chance: random.Random) -> str:
    return "NULL::double precision" if chance.random() < 0.05 else repr(chance.uniform(-1, 1))


class Reader:
    """Somebody who reads the view all the time, and remembers each different answer in its order."""

    def __init__(self, url: str) -> None:
        self.seen: list[Answer] = []
        self.reads = 0
        #: Errors that were no loss of the connection; a reader connects anew after one of those.
        self.errors: list[str] = []
        self.lost = 0
        self._url = url
        self._stop = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)

    def start(self) -> None:
        """Begin, and return after the first answer."""
        self._thread.start()
        assert self._begun.wait(60)

    def stop(self) -> None:
        """Read a last time and end."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def require_only(self, answers: list[Answer]) -> None:
        """Fail unless every answer was one of these, whole, and they came in this order."""
        assert self.errors == []
        assert set(self.seen) <= set(answers), set(self.seen) - set(answers)
        generations = [answer[0] for answer in self.seen]
        assert generations == sorted(generations)

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                connection = psycopg2.connect(self._url)
            except psycopg2.OperationalError:
                self._stop.wait(0.02)
                continue
            connection.autocommit = True
            try:
                self._read_on(connection)
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                if not connection.closed:
                    self.errors.append(str(error))
                self.lost += 1
            except psycopg2.Error as error:
                self.errors.append(str(error))
            finally:
                connection.close()

    def _read_on(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            while True:
                last = self._stop.is_set()
                cursor.execute(ANSWER)
                generation, count, total = cursor.fetchone()
                found = (generation, count, int(total))
                self.reads += 1
                if not self.seen or self.seen[-1] != found:
                    self.seen.append(found)
                self._begun.set()
                if last:
                    return
                self._stop.wait(0.01)


@contextmanager
def reading(night: Night) -> Iterator[Reader]:
    """Read all the while, and fail unless only whole publications were seen, none after a later one."""
    reader = Reader(psql_url(night.world.url))
    reader.start()
    try:
        yield reader
    finally:
        reader.stop()
    reader.require_only(night.answers)


class Once:
    """Does something when a run has reached so many named points, and perhaps a moment later, in another thread."""

    def __init__(self, count: int, seconds: float, act: Callable[[], None]) -> None:
        self.count, self.seconds = count, seconds
        self.points: list[str] = []
        #: The point after which it was done, or None.
        self.at: str | None = None
        self._act = act
        self._timer: threading.Timer | None = None

    def __call__(self, point: str) -> None:
        """Hear of a point."""
        self.points.append(point)
        if len(self.points) != self.count:
            return
        self.at = point
        if not self.seconds:
            self._act()
            return
        self._timer = threading.Timer(self.seconds, self._act)
        self._timer.daemon = True
        self._timer.start()

    def join(self) -> None:
        """Wait until it was done."""
        if self._timer is not None:
            self._timer.join()
