"""SIGKILL to a real `prescore score` at every named point of a run: nothing is lost, doubled or left to repair.

Eight of the cases run by default, where the next run is one of this process, which is quicker. All of them, with a
command each time: ``uv run pytest -m slow tests/end_to_end/test_crashes.py``
"""

from __future__ import annotations

import json
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest

from tasks.faults import POINTS
from tasks.runs import Status
from tests.conftest import psql_url
from tests.disturbances import LOCKS, WAITING, Copies, in_transaction, prescore, process, wait_until
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline

pytestmark = pytest.mark.xdist_group("crashes")

FIRST, SECOND, THIRD = (datetime(2026, 3, day, 3, tzinfo=UTC) for day in (1, 2, 3))
ROWS = 1_200

# Predictions depend on as_of, so that rows of two publications never look alike. The padding makes several batches of
# a small world: 8 MiB is one. Every 500th item has no features, so that rejections are written too.
FEATURES_SQL = f"""
SELECT i.id, b.as_of, i.a + extract(epoch FROM b.as_of - TIMESTAMPTZ '{FIRST}')::double precision / 86400 AS a,
       i.b, i.c, repeat('x', CASE WHEN i.updated_at > TIMESTAMPTZ '{SECOND}' THEN 40000 ELSE 2000 END) AS padding
FROM batch AS b JOIN public.items AS i ON i.id = b.id
WHERE i.id % 500 <> 0
"""

CHANGES = f"""
UPDATE public.items SET b = 0.25, updated_at = TIMESTAMPTZ '{SECOND + timedelta(hours=1)}' WHERE id BETWEEN 101 AND 300;
DELETE FROM public.items WHERE id BETWEEN 11 AND 15;
INSERT INTO public.items
SELECT x, sin(x), cos(x), 'y', TIMESTAMPTZ '{SECOND + timedelta(hours=1)}' FROM generate_series(5001, 5025) AS x
"""

# What a reader sees, but for the generation, which differs between a disturbed world and its undisturbed twin.
ROW = "id, state, age, data_as_of, as_of, aging_at, stale_at, expires_at, cache_for, reasons, model_version, p, label"
ANSWER = f"""
SELECT count(*), sum(hashtextextended(ROW({ROW})::text, 0)), array_agg(DISTINCT scored_in)
FROM predictions.items
"""
SERVED = f"SELECT {ROW} FROM predictions.items ORDER BY id"
STORED = "SELECT id, as_of, scored_in, rejected, p, label FROM prescore_rows.items_{} ORDER BY id"
# Points that a run reaches only when head has moved.
AFTER_COMMIT = {"publish.committed", "storage.emptied", "retired.cleared"}


@dataclass(frozen=True)
class Case:
    """Where one run after the other is killed; all are started alike."""

    #: full, incremental, or first: a pipeline that has never published.
    mode: str
    kills: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.mode}-{'-then-'.join(self.kills)}"

    @property
    def publishes(self) -> bool:
        """Whether a run is killed only after it has published."""
        return len(self.kills) == 1 and self.kills[0].partition(":")[0] in AFTER_COMMIT


def _cases() -> list[Case]:
    only = {
        "full": {"storage.indexed", "storage.analysed"},
        "incremental": {"publish.gone_removed"},
        "first": {"objects.begun"},
    }
    nowhere_else = set.union(*only.values())
    cases = [
        Case(mode, (point,))
        for mode in ("full", "incremental")
        for point in POINTS
        if point not in nowhere_else or point in only[mode]
    ]
    cases += [Case(mode, ("stream.batch:2",)) for mode in ("full", "incremental")]
    first = (
        "run.opened",
        "objects.begun",
        "objects.created",
        "copy.finished",
        "publish.head_moved",
        "publish.committed",
    )
    cases += [Case("first", (point,)) for point in first]
    # A second run dies while it clears what the first one left; one after the other dies at the same point.
    cases += [Case(mode, ("copy.finished", "storage.emptied")) for mode in ("full", "incremental")]
    cases += [Case(mode, ("publish.before_commit",) * 3) for mode in ("full", "incremental")]
    return cases


CASES = _cases()
# Few: tests/end_to_end/test_kills.py draws further ones.
DEFAULT = random.Random(2).sample(CASES, 3)


class Stage:
    """Prepared databases that each case copies, and what undisturbed runs end in."""

    def __init__(self, copies: Copies, template: str) -> None:
        self.copies = copies
        world = copies.of(template, rows=ROWS)
        world.execute(f"UPDATE public.items SET updated_at = TIMESTAMPTZ '{FIRST - timedelta(hours=1)}'")
        world.set_clock(FIRST)
        pipeline = make_pipeline(world, toml=PIPELINE_TOML, features=FEATURES_SQL)
        make_model(world, pipeline, train_data_until=FIRST - timedelta(days=1))
        self.sources = {"first": copies.close(world)}
        world = copies.of(self.sources["first"])
        world.score()
        self.undisturbed = {"first": look(world)}
        world.set_clock(SECOND)
        world.score(full=True)
        world.execute(CHANGES)
        world.set_clock(THIRD)
        self.sources["full"] = self.sources["incremental"] = copies.close(world)
        for mode in ("full", "incremental"):
            twin = copies.of(self.sources[mode])
            assert twin.score(full=mode == "full").mode.value == mode
            self.undisturbed[mode] = look(twin)


@pytest.fixture(scope="module")
def stage(server_url: str, _template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    copies = Copies(server_url, tmp_path_factory.mktemp("pipelines"))
    yield Stage(copies, _template)
    copies.drop()


@pytest.fixture(autouse=True)
def _tidy(stage: Stage) -> Iterator[None]:
    yield
    stage.copies.drop(keep=stage.sources.values())


@pytest.mark.parametrize("case", DEFAULT, ids=str)
def test_scenario_15_a_killed_run_leaves_nothing_to_repair(stage: Stage, case: Case) -> None:
    def next_run(world: World) -> dict[str, Any]:
        summary = world.score(full=case.mode == "full")
        return {"status": summary.status, "run_id": summary.run_id, "generation_id": summary.generation_id}

    disturb_and_recover(stage, case, kill_at_points, next_run)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_killed_at_any_point_leaves_nothing_to_repair(stage: Stage, case: Case) -> None:
    disturb_and_recover(stage, case, kill_at_points, next_command(case))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "incremental"])
@pytest.mark.parametrize("at_work", ["reads", "writes", "merges"])
def test_a_run_killed_while_the_server_works_for_it_leaves_nothing_to_repair(
    stage: Stage, mode: str, at_work: str
) -> None:
    case = Case(mode, (at_work,))
    disturb_and_recover(stage, case, kill_while_the_server_works, next_command(case))


def options(case: Case) -> list[str]:
    """What the runs of a case are started with."""
    return ["--full"] if case.mode == "full" else []


def next_command(case: Case) -> Callable[[World], dict[str, Any]]:
    """Return the next run as anybody would start it."""

    def run(world: World) -> dict[str, Any]:
        ended = prescore(world, "score", "items", *options(case), "--json")
        assert ended.returncode == 0, ended.stderr
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    return run


def kill_at_points(world: World, case: Case) -> None:
    """Let a run die at each of the points in turn."""
    for point in case.kills:
        killed = prescore(world, "score", "items", *options(case), kill_at=point)
        assert killed.returncode == -signal.SIGKILL, f"{point} was not reached: {killed.stdout}{killed.stderr}"


def kill_while_the_server_works(world: World, case: Case) -> None:
    """Kill a run in the middle of a statement: the server is held in it by a lock, and notices nothing at once."""
    (next_storage,) = world.rows("SELECT storage_id FROM prescore.storages WHERE role = 'next'")[0]
    statement = {
        "reads": "LOCK TABLE public.items IN ACCESS EXCLUSIVE MODE",
        "writes": f"LOCK TABLE prescore_rows.items_{next_storage} IN EXCLUSIVE MODE",
        "merges": "SELECT FROM prescore.head FOR UPDATE",
    }[case.kills[0]]
    with in_transaction(world, statement), process(world, "score", "items", *options(case)) as run:
        wait_until(world, WAITING)
        run.kill()
        run.communicate()
        # While the lock that holds the server is still there: the lock of the dead run does not wait for it.
        wait_until(world, f"SELECT WHERE ({LOCKS}) = 0")


def disturb_and_recover(
    stage: Stage,
    case: Case,
    disturb: Callable[[World, Case], None],
    next_run: Callable[[World], dict[str, Any]],
) -> None:
    """Kill runs while somebody reads, run once more as anybody would, and compare with the undisturbed world."""
    world = stage.copies.of(stage.sources[case.mode])
    before, after = look(world), stage.undisturbed[case.mode]
    stored_before = stored(world)
    with reading(world) as reader:
        disturb(world, case)
        left = look(world)
        last = next_run(world)

    assert last["status"] == Status.PUBLISHED
    assert left == (after if case.publishes else before)
    assert look(world) == after
    published = require_runs(world, case, last)
    require_storages(world, case, stored_before, published)
    assert [(row[0], *row[4:]) for row in stored(world)["current"]] == [(row[0], *row[-2:]) for row in after.rows]
    assert world.rows(LOCKS) == [(0,)]
    reader.require_only(before, after, published, one_generation=case.mode == "full")


def require_runs(world: World, case: Case, last: dict[str, Any]) -> list[int]:
    """Fail unless killed runs are marked as what they were; return the generations that were published."""
    runs = world.rows("SELECT status, generation_id, run_id FROM prescore.runs ORDER BY run_id")
    *killed, final = runs[0 if case.mode == "first" else 2 :]
    assert final == (Status.PUBLISHED, last["generation_id"], last["run_id"])
    expected = Status.PUBLISHED if case.publishes else Status.CRASHED
    assert [status for status, _, _ in killed] == [expected for point in case.kills if point != "run.locked"]
    return [generation_id for status, generation_id, _ in runs if status == Status.PUBLISHED]


def require_storages(world: World, case: Case, before: dict[str, list[Any]], published: list[int]) -> None:
    """Fail unless one storage is served, one holds the previous publication, and the third is empty."""
    head = world.one("SELECT storage_id, generation_id FROM prescore.head WHERE pipeline = 'items'")
    roles = world.rows("SELECT role, storage_id, generation_id FROM prescore.storages WHERE pipeline = 'items'")
    storages = {role: (storage_id, generation_id) for role, storage_id, generation_id in roles}
    assert storages["current"] == (head["storage_id"], head["generation_id"])
    assert head["generation_id"] == published[-1]
    now = stored(world)
    assert now["next"] == []
    if case.mode == "full":
        assert storages["previous"][1] == published[-2]
        again = [(*row[:2], published[-2], *row[3:]) for row in now["current"]]
        assert now["previous"] == (again if case.publishes else before["current"])
    else:
        assert now["previous"] == before.get("previous", [])


@dataclass(frozen=True)
class Look:
    """What readers see at one moment, but for the generations: every row, and count and sum of the row hashes."""

    rows: list[Any]
    fingerprint: tuple[int, int | None]


NOTHING = Look(rows=[], fingerprint=(0, None))


def look(world: World) -> Look:
    """Read all that is served; nothing where there is no view yet."""
    if world.rows("SELECT to_regclass('predictions.items') IS NULL") == [(True,)]:
        return NOTHING
    return Look(rows=world.rows(SERVED), fingerprint=answer(world.rows(ANSWER)[0])[:2])


def answer(row: Any) -> tuple[int, int | None, tuple[int, ...]]:
    """Return a row of ANSWER: how many, the sum of their hashes, the generations that they were scored in."""
    count, total, generations = row
    return count, None if total is None else int(total), tuple(sorted(generations or ()))


def stored(world: World) -> dict[str, list[Any]]:
    """Return the rows of each storage by its role."""
    roles = world.rows("SELECT role, storage_id FROM prescore.storages WHERE pipeline = 'items'")
    return {role: world.rows(STORED.format(storage_id)) for role, storage_id in roles}


class Reader:
    """Somebody who reads the view all the time, and remembers each different answer."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, int | None, tuple[int, ...]]] = []
        self.lookups: set[str] = set()
        self.errors: list[str] = []

    def poll(self, url: str, begun: threading.Event, stop: threading.Event) -> None:
        """Read until told to stop."""
        connection = psycopg2.connect(url)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                while True:
                    self._read(cursor)
                    begun.set()
                    if stop.wait(0.03):
                        return
        finally:
            begun.set()
            connection.close()

    def _read(self, cursor: Any) -> None:
        try:
            cursor.execute(ANSWER)
            found = answer(cursor.fetchone())
            if not self.answers or self.answers[-1] != found:
                self.answers.append(found)
            cursor.execute("SELECT state FROM predictions.items_for(1)")
            self.lookups |= {state for (state,) in cursor.fetchall()}
        except psycopg2.errors.UndefinedTable:
            self.lookups.add("no view")
        except psycopg2.Error as error:
            self.errors.append(str(error))

    def require_only(self, before: Look, after: Look, published: list[int], *, one_generation: bool) -> None:
        """Fail unless each answer was the whole publication before or the whole one after, in this order."""
        assert self.errors == []
        complete = [before.fingerprint, after.fingerprint]
        seen = [found[:2] for found in self.answers]
        assert set(seen) <= set(complete)
        positions = [complete.index(found) for found in seen]
        assert positions == sorted(positions)
        assert positions[-1] == 1
        for _, _, generations in self.answers:
            assert set(generations) <= set(published)
            assert len(generations) <= 1 or not one_generation
        # Features shift with as_of here, so that a publication may be flagged for drift, the same in both worlds.
        states = {row[1] for row in (*before.rows, *after.rows) if row[0] == 1}
        assert states <= {"fresh", "aging"}
        assert self.lookups <= (states if before.rows else states | {"missing", "no view"})


@contextmanager
def reading(world: World) -> Iterator[Reader]:
    """Read the view in a thread with a connection of its own, from before the block until after it."""
    reader, begun, stop = Reader(), threading.Event(), threading.Event()
    thread = threading.Thread(target=reader.poll, args=(psql_url(world.url), begun, stop), daemon=True)
    thread.start()
    assert begun.wait(30)
    try:
        yield reader
    finally:
        stop.set()
        thread.join()
    reader.poll(psql_url(world.url), begun, stop)  # once more: what is served at the end
