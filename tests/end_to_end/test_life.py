"""The life of a pipeline: outputs that come and go, another name, the end; and what readers see meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tasks.population import Mode
from tasks.runs import Status
from tests.conftest import execute, psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

ROWS = 60
KEPT = PIPELINE_TOML.replace("[predictions]", '[history]\nkeep = "30d"\n[predictions]')
ADDED = KEPT + 'q = { method = "predict_proba", class = "0", index = true }\n'
# What the clock moves from one statement to the next.
MOVING = {"age", "cache_for"}
READ = (
    "SELECT * FROM predictions.items WHERE id = 7",
    "SELECT * FROM predictions.items_for(7)",
    "SELECT p FROM mine WHERE id = 7",
)


def _world(url: str, folder: Path, toml: str = KEPT) -> World:
    """Sixty items, published, with a view of somebody's own over them."""
    world = make_world(url, folder, rows=ROWS)
    make_model(world, make_pipeline(world, toml=toml))
    assert world.score().status is Status.PUBLISHED
    world.execute("CREATE VIEW public.mine AS SELECT id, p, state FROM predictions.items")
    return world


class Reader:
    """Reads again and again in a thread of its own until it is told to stop; what went wrong is kept."""

    def __init__(self, url: str, statements: tuple[str, ...]) -> None:
        self.url, self.statements = url, statements
        self.problems: list[str] = []
        self.reads = 0
        self.wanted = 0
        self.turn = threading.Condition()
        self.stopped = False

    def read(self) -> None:
        """Read in autocommit, every statement in turn."""
        with closing(psycopg2.connect(psql_url(self.url))) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            while not self.stopped:
                for statement in self.statements:
                    try:
                        cursor.execute(statement)
                        found = cursor.fetchall()
                        if len(found) != 1:
                            self.problems.append(f"{statement}: {len(found)} rows")
                    except psycopg2.Error as error:
                        self.problems.append(f"{statement}: {error}")
                        cursor.close()
                        cursor = connection.cursor()
                with self.turn:
                    self.reads += 1
                    self.turn.notify_all()

    def wait(self, more: int) -> None:
        """Wait until everything was read so many times more."""
        with self.turn:
            until = self.reads + more
            assert self.turn.wait_for(lambda: self.reads >= until, timeout=60)


@contextmanager
def _reading(world: World, *statements: str, readers: int = 2) -> Iterator[list[str]]:
    """Read beside what happens within, from before until after it; yields what went wrong."""
    problems: list[str] = []
    threads = []
    reading = [Reader(world.url, statements) for _ in range(readers)]
    for reader in reading:
        reader.problems = problems
        threads.append(threading.Thread(target=reader.read, daemon=True))
        threads[-1].start()
    try:
        for reader in reading:
            reader.wait(3)
        yield problems
        for reader in reading:
            reader.wait(3)
    finally:
        for reader in reading:
            reader.stopped = True
        for thread in threads:
            thread.join(timeout=60)


@pytest.fixture
def role(server_url: str) -> Iterator[str]:
    """A role that may read what it is granted."""
    name = "life_reader"
    execute(server_url, f"CREATE ROLE {name}")
    yield name
    execute(server_url, f"DROP ROLE {name}")


def _rights(world: World) -> list[Any]:
    return world.rows(
        "SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'predictions'::regnamespace "
        "UNION ALL SELECT proname, proacl::text FROM pg_proc WHERE pronamespace = 'predictions'::regnamespace "
        "AND proname !~ '[0-9]$' ORDER BY 1"
    )


def test_an_output_is_added_in_place_and_nobody_who_reads_notices(role: str, database_url: str, tmp_path: Path) -> None:
    world = _world(database_url, tmp_path)
    world.execute(f"GRANT USAGE ON SCHEMA predictions TO {role}; GRANT SELECT ON predictions.items TO {role}")
    world.execute("REVOKE EXECUTE ON FUNCTION predictions.items_for FROM PUBLIC")
    world.execute(f"GRANT EXECUTE ON FUNCTION predictions.items_for TO {role} WITH GRANT OPTION")
    world.execute("CREATE VIEW public.looked_up AS SELECT * FROM predictions.items_for(7)")
    before, rights = world.one("SELECT * FROM predictions.items WHERE id = 7"), _rights(world)

    make_pipeline(world, toml=ADDED)
    seen: list[Any] = []

    class Look:
        def stage(self, name: str) -> None:
            if name == "check the guards":
                seen.append(world.one("SELECT * FROM predictions.items WHERE id = 7"))

        def rows(self, done: int, total: int) -> None:
            return

    with _reading(world, *READ) as problems:
        summary = world.score(watcher=Look())
    assert problems == []
    assert (summary.status, summary.mode) == (Status.PUBLISHED, Mode.FULL)
    after = world.one("SELECT * FROM predictions.items WHERE id = 7")
    assert list(after) == [*before, "q"]
    assert after["p"] + after["q"] == pytest.approx(1.0)
    # Between the column and the publication: as before, and readers are told why there is nothing in it.
    assert (seen[0]["p"], seen[0]["q"], seen[0]["state"]) == (before["p"], None, "fresh")
    assert seen[0]["reasons"] == [*before["reasons"], "outputs: q is new, and NULL until the next full run"]
    assert not any(reason.startswith("outputs:") for reason in after["reasons"])
    looked_up = world.one("SELECT * FROM predictions.items_for(7)")
    assert {name: value for name, value in looked_up.items() if name not in MOVING} == {
        name: value for name, value in after.items() if name not in MOVING
    }
    assert world.one("SELECT p, q FROM predictions.items_usable WHERE id = 7") == {"p": after["p"], "q": after["q"]}
    assert world.one("SELECT p FROM public.mine WHERE id = 7") == {"p": after["p"]}
    assert world.one("SELECT * FROM public.looked_up")["p"] == after["p"]
    assert _rights(world) == rights
    (then,) = world.rows("SELECT q FROM predictions.items_at(7, prescore.clock())")
    assert then == (after["q"],)
    as_role = f"SET LOCAL ROLE {role}; SELECT q FROM predictions.items_for(7)"
    assert world.rows(as_role) == [(after["q"],)]
    undescribed = world.rows(
        "SELECT relname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid WHERE attname = 'q' "
        "AND relkind IN ('r', 'p', 'v') AND col_description(attrelid, attnum) IS NULL AND relname <> 'items_history'"
    )
    assert undescribed == []
    # The function of before lives on as long as somebody's view stands on it, and no longer.
    retired = "SELECT count(*) FROM pg_proc WHERE proname ~ '^items_for_[0-9]+$'"
    assert world.score().status is Status.PUBLISHED
    assert world.rows(retired) == [(1,)]
    world.execute("DROP VIEW public.looked_up")
    assert world.score().mode is Mode.INCREMENTAL
    assert world.rows(retired) == [(0,)]
    # Another order of the declaration is the same pipeline.
    p, label, q = ADDED.splitlines()[-3:]
    make_pipeline(world, toml="\n".join([*ADDED.splitlines()[:-3], q, label, p]))
    assert world.score().status is Status.PUBLISHED
    assert list(world.one("SELECT * FROM predictions.items WHERE id = 7")) == list(after)
