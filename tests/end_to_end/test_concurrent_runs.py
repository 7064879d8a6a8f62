"""Two runs of one pipeline at once, runs whose connections are lost, and runs that a person ends.

Nothing here sleeps: a run in a thread is held at a named point of it, a run in a process of its own is held in its
preprocessing, which asks the test over a socket whether it may go on.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flows.score import RunSummary
from tasks import faults
from tasks.errors import PrescoreError
from tasks.runs import Fenced, Status
from tests.disturbances import LOCKS, WAITING, Copies, end_connection, in_transaction, prescore, process, wait_until
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline

pytestmark = pytest.mark.xdist_group("concurrent runs")

# Waits for the test, when there is one that listens.
ASKING_MODEL_PY = """
import os, socket

def preprocess(frame):
    port = os.environ.get("PRESCORE_TEST_ASK")
    if port and len(frame) >= int(os.environ["PRESCORE_TEST_ASK_ROWS"]):
        try:
            with socket.create_connection(("127.0.0.1", int(port))) as asking:
                asking.recv(1)
        except ConnectionRefusedError:
            pass
    return frame
"""
ASKING_TOML = PIPELINE_TOML.replace('changes.sql"', 'changes.sql"\npreprocess = "model.py:preprocess"')


@pytest.fixture(scope="module")
def copies(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copies]:
    made = Copies(server_url, tmp_path_factory.mktemp("pipelines"))
    yield made
    made.drop()


@pytest.fixture(scope="module")
def published(copies: Copies, _template: str) -> str:
    """A database with two publications, and changes that are not scored yet."""
    world = copies.of(_template, rows=1_000)
    make_model(world, make_pipeline(world, toml=ASKING_TOML, files={"model.py": ASKING_MODEL_PY}))
    world.score()
    world.score(full=True)
    world.execute(
        "UPDATE public.items SET a = a + 1, updated_at = clock_timestamp() WHERE id <= 50;"
        "DELETE FROM public.items WHERE id = 100"
    )
    return copies.close(world)


@pytest.fixture
def world(copies: Copies, published: str) -> Iterator[World]:
    yield copies.of(published)
    copies.drop(keep=[published])


def slow(*values: tuple[Any, ...]) -> list[Any]:
    """Mark parameters as slow."""
    return [pytest.param(*each, marks=pytest.mark.slow) for each in values]


class Held:
    """A run in a thread of its own, which waits at a named point until it is let go."""

    def __init__(self, world: World, point: str, **options: Any) -> None:
        self.point = point
        self.summary: RunSummary | None = None
        self.error: BaseException | None = None
        self._arrived, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(world, options), daemon=True)

    def start(self) -> None:
        """Start the run and return when it has arrived at its point."""
        self._thread.start()
        assert self._arrived.wait(60)
        assert self._thread.is_alive(), f"{self.point} was not reached: {self.error or self.summary}"

    def let_go(self) -> None:
        """Let the run go on, and return when it has ended."""
        self._go.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def reached(self, point: str) -> None:
        """Stand in for ``reached``: hold this run when it comes to its point first, and no later one."""
        if point == self.point and not self._arrived.is_set():
            self._arrived.set()
            assert self._go.wait(60)

    def _run(self, world: World, options: dict[str, Any]) -> None:
        try:
            self.summary = world.score(**options)
        except BaseException as error:  # the test looks at it
            self.error = error
        finally:
            self._arrived.set()


@pytest.fixture
def hold(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Held]]:
    """Start a run that stops at a point, and let it go at the end of the test at the latest."""
    started: list[Held] = []

    def begin(point: str, **options: Any) -> Held:
        assert point in faults.POINTS
        held = Held(world, point, **options)
        started.append(held)
        held.start()
        return held

    def reached(point: str) -> None:
        for held in started:
            held.reached(point)

    for module in ("flows.score", "tasks.publishing", "tasks.runs", "tasks.staging", "tasks.scoring"):
        monkeypatch.setattr(f"{module}.reached", reached)
    yield begin
    for held in started:
        held.let_go()


# Two runs at once ----------------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_and_names_the_first_which_goes_on(world: World, hold: Callable[..., Held]) -> None:
    first = hold("population.selected")
    run_id = world.one("SELECT run_id FROM prescore.runs WHERE status = 'running'")["run_id"]

    refused = prescore(world, "score", "items")

    assert refused.returncode == 1
    assert f"items is being run already, by run {run_id} (process {os.getpid()} on " in refused.stderr
    assert "that run goes on" in refused.stderr
    first.let_go()
    assert first.summary is not None
    assert (first.summary.run_id, first.summary.status) == (run_id, Status.PUBLISHED)
    assert world.one("SELECT max(run_id) FROM prescore.runs")["max"] == run_id


def test_a_scheduled_run_that_meets_another_ends_as_skipped(world: World, hold: Callable[..., Held]) -> None:
    first = hold("population.selected")
    run_id = world.one("SELECT run_id FROM prescore.runs WHERE status = 'running'")["run_id"]

    skipped = prescore(world, "score", "items", "--trigger", "scheduled", "--json")

    assert skipped.returncode == 0, skipped.stderr
    summary = json.loads(skipped.stdout)
    assert summary["status"] == "skipped"
    assert f"run {run_id} " in summary["message"]
    recorded = world.one(f"SELECT status, trigger, message FROM prescore.runs WHERE run_id = {summary['run_id']}")
    assert recorded == {"status": "skipped", "trigger": "scheduled", "message": summary["message"]}
    first.let_go()
    assert first.summary is not None
    assert first.summary.status is Status.PUBLISHED


def test_a_rollback_is_refused_while_a_run_is_at_work(world: World, hold: Callable[..., Held]) -> None:
    first = hold("population.selected")

    refused = prescore(world, "rollback", "items")

    assert refused.returncode == 1
    assert "items is being run already, by run " in refused.stderr
    first.let_go()
    assert first.summary is not None
    assert first.summary.status is Status.PUBLISHED


def test_two_pipelines_run_at_once(world: World, hold: Callable[..., Held]) -> None:
    make_model(world, make_pipeline(world, "others"))
    first = hold("population.selected")

    assert world.score("others").status is Status.PUBLISHED

    first.let_go()
    assert first.summary is not None
    assert first.summary.status is Status.PUBLISHED


def test_the_lock_is_free_as_soon_as_a_run_has_ended(world: World) -> None:
    for _ in range(5):
        world.score()
        assert world.rows(LOCKS) == [(0,)]


# A run that lost its lock --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "full"),
    [
        ("storage.cleared", False),
        ("stream.batch", True),
        ("copy.fenced", True),
        ("publish.begun", True),
        ("publish.before_commit", False),
        *slow(
            ("population.selected", True),
            ("population.selected", False),
            ("storage.cleared", True),
            ("stream.batch", False),
            ("copy.sent", True),
            ("copy.sent", False),
            ("copy.fenced", False),
            ("copy.finished", True),
            ("copy.finished", False),
            ("outputs.judged", True),
            ("outputs.judged", False),
            ("publish.begun", False),
            ("publish.before_commit", True),
        ),
    ],
)
def test_a_run_whose_successor_has_published_cannot_publish(
    world: World, hold: Callable[..., Held], point: str, full: bool
) -> None:
    zombie = hold(point, full=full)
    run_id = world.one("SELECT run_id FROM prescore.runs WHERE status = 'running'")["run_id"]
    end_connection(world, "prescore run")
    # Gone for the successor and not for the zombie: a row of this entity from the zombie would show.
    world.execute("DELETE FROM public.items WHERE id = 7")
    successor = world.score(full=True)
    assert successor.status is Status.PUBLISHED
    published = everything(world)

    zombie.let_go()

    assert isinstance(zombie.error, Fenced)
    assert "This run of items may not publish: " in str(zombie.error)
    assert "What is served was not touched." in str(zombie.error)
    assert everything(world) == published
    assert world.one(f"SELECT status FROM prescore.runs WHERE run_id = {run_id}")["status"] == Status.CRASHED
    assert world.score().status is Status.PUBLISHED
    assert world.rows("SELECT count(*) FROM predictions.items") == [(998,)]


def test_a_run_that_cannot_know_that_it_is_dead_is_fenced_by_its_row(world: World, hold: Callable[..., Held]) -> None:
    zombie = hold("publish.begun")
    before = everything(world)
    world.execute("UPDATE prescore.runs SET status = 'crashed' WHERE status = 'running'")

    zombie.let_go()

    assert isinstance(zombie.error, Fenced)
    assert "it was found dead and marked crashed by a later run" in str(zombie.error)
    assert everything(world)["head"] == before["head"]
    assert everything(world)["served"] == before["served"]


def test_a_run_cannot_publish_over_a_head_that_it_did_not_start_from(world: World, hold: Callable[..., Held]) -> None:
    started_from = world.one("SELECT generation_id FROM prescore.head")["generation_id"]
    late = hold("publish.begun")
    world.execute("UPDATE prescore.head SET generation_id = generation_id + 1000")
    before = everything(world)

    late.let_go()

    assert isinstance(late.error, Fenced)
    expected = f"it started from generation {started_from}, generation {started_from + 1000} is served now"
    assert expected in str(late.error)
    assert everything(world)["head"] == before["head"]
    assert everything(world)["served"] == before["served"]


def test_a_run_that_was_found_dead_adds_no_row_to_what_its_successor_serves(
    world: World, hold: Callable[..., Held]
) -> None:
    world.score()
    world.execute("UPDATE public.items SET a = 1, updated_at = clock_timestamp() WHERE id = 7")
    # All that it is going to write is an entity that its successor does not know: no key of the two collides.
    zombie = hold("storage.cleared")
    end_connection(world, "prescore run")
    world.execute("DELETE FROM public.items WHERE id = 7")
    world.score(full=True)
    published = everything(world)

    zombie.let_go()

    assert isinstance(zombie.error, Fenced)
    assert everything(world) == published


def test_a_run_that_lost_its_lock_after_it_published_takes_nothing_from_its_successor(
    world: World, hold: Callable[..., Held]
) -> None:
    finished = hold("publish.committed", full=True)
    end_connection(world, "prescore run")
    successor = hold("outputs.judged", full=True)

    # It goes on to empty the storage that is next: by now its successor has filled it.
    finished.let_go()
    successor.let_go()

    # It did publish, and says so; what it could not clear any more is its successor's to clear.
    assert finished.error is None
    assert finished.summary is not None
    assert finished.summary.status is Status.PUBLISHED
    assert "Clearing what the run left behind failed: " in finished.summary.message
    assert finished.summary.message.endswith("The next run clears it.")
    assert successor.summary is not None
    assert successor.summary.status is Status.PUBLISHED
    assert world.rows("SELECT count(*), min(scored_in), max(scored_in) FROM predictions.items") == [
        (999, successor.summary.generation_id, successor.summary.generation_id)
    ]


# Lost connections ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "point", "full"),
    [
        ("prescore run", "population.selected", False),
        ("prescore run", "publish.merged", False),
        ("prescore data", "stream.batch", True),
        ("prescore reader", "stream.batch", True),
        ("prescore samples", "outputs.judged", True),
        *slow(
            ("prescore run", "population.selected", True),
            ("prescore run", "publish.merged", True),
            ("prescore run", "publish.before_commit", True),
            ("prescore run", "publish.before_commit", False),
            ("prescore data", "stream.batch", False),
            ("prescore data", "copy.sent", True),
            ("prescore data", "copy.fenced", True),
            ("prescore reader", "guards.checked", True),
            ("prescore reader", "guards.checked", False),
            ("prescore reader", "stream.batch", False),
        ),
    ],
)
def test_a_run_that_loses_a_connection_fails_and_the_last_good_publication_is_still_served(
    world: World, hold: Callable[..., Held], connection: str, point: str, full: bool
) -> None:
    if (connection, point) == ("prescore reader", "stream.batch"):
        widen(world)
    before = everything(world)
    run = hold(point, full=full)

    end_connection(world, connection)
    run.let_go()

    assert isinstance(run.error, PrescoreError), run.error
    assert "served" in str(run.error)
    left = everything(world)
    assert (left["head"], left["served"]) == (before["head"], before["served"])
    ended = world.one("SELECT status, message FROM prescore.runs ORDER BY run_id DESC LIMIT 1")
    assert ended == {"status": Status.FAILED, "message": str(run.error)}
    assert world.rows(LOCKS) == [(0,)]
    assert world.score(full=full).status is Status.PUBLISHED


# Ctrl-C --------------------------------------------------------------------------------------------------------------


def test_ctrl_c_while_the_model_works_ends_the_run_as_cancelled(world: World) -> None:
    before = everything(world)

    with asking(world, at_rows=950) as (run, answer):
        run.send_signal(signal.SIGINT)
        require_cancelled(world, run, before)
        answer()


@pytest.mark.parametrize(
    "locked",
    ["LOCK TABLE public.items IN ACCESS EXCLUSIVE MODE", "SELECT FROM prescore.head FOR UPDATE"],
    ids=["reads", "publishes"],
)
def test_ctrl_c_while_the_database_works_ends_the_run_as_cancelled(world: World, locked: str) -> None:
    before = everything(world)

    # Held at the golden rows, before anything is read; then it meets the lock of the test.
    with asking(world, at_rows=1) as (run, answer), in_transaction(world, locked):
        answer()
        wait_until(world, WAITING)
        run.send_signal(signal.SIGINT)
        run.wait(60)
    require_cancelled(world, run, before)


def require_cancelled(world: World, run: subprocess.Popen[str], before: dict[str, Any]) -> None:
    """Fail unless the process ended as one that a person interrupted, and left nothing behind."""
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert world.rows("SELECT status FROM prescore.runs ORDER BY run_id DESC LIMIT 1") == [(Status.CANCELLED,)]
    assert world.rows(LOCKS) == [(0,)]
    left = everything(world)
    assert (left["head"], left["served"]) == (before["head"], before["served"])
    assert world.score().status is Status.PUBLISHED


# What the tests are made of ------------------------------------------------------------------------------------------


def everything(world: World) -> dict[str, Any]:
    """Return what is served and how: head, roles of the storages, every row in them, every row of the view."""
    roles = world.rows("SELECT role, storage_id, generation_id FROM prescore.storages ORDER BY role")
    rows = world.rows(
        "SELECT storage_id, id, as_of, scored_in, rejected, p, label FROM prescore_rows.items ORDER BY 1, 2"
    )
    head = world.rows("SELECT * FROM prescore.head")
    view = "SELECT id, as_of, scored_in, p, label FROM predictions.items ORDER BY id"
    return {"head": head, "roles": roles, "rows": rows, "served": world.rows(view)}


def widen(world: World) -> None:
    """Let the features of the entities to score fill eleven batches: more than can be on their way at once."""
    world.execute(
        "UPDATE public.items SET c = repeat('x', 500000), updated_at = clock_timestamp() WHERE id <= 180 AND id <> 100"
    )


@contextmanager
def asking(world: World, *, at_rows: int) -> Iterator[tuple[subprocess.Popen[str], Callable[[], None]]]:
    """Start `prescore score --full` and wait until its preprocessing asks to go on; yield the process and the answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        ask = {"PRESCORE_TEST_ASK": str(listener.getsockname()[1]), "PRESCORE_TEST_ASK_ROWS": str(at_rows)}
        with process(world, "score", "items", "--full", **ask) as run:
            asked, _ = listener.accept()
            listener.close()  # it waits once
            yield run, asked.close
            asked.close()
