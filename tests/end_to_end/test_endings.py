"""Runs that are ended: because somebody asked, because they took too long, because their process hangs.

Nothing here sleeps but what is to hang: a run in a thread waits at a named point of it, and a test waits for its records.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from flows.show import show_health
from tasks import endings, watchdog
from tasks.endings import NoSuchRun, NotCancellable, RunCancelled, RunTimedOut, cancel
from tasks.health import read_health
from tasks.runs import RunInProgress, Status
from tests.disturbances import LOCKS, Copies, command, prescore, wait_until
from tests.end_to_end.test_concurrent_runs import Held
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline

pytestmark = pytest.mark.xdist_group("endings")

# Hangs when it is told to: asleep, or in C code that keeps Python's lock, so that no thread of Python ever runs again.
HANGING_MODEL_PY = """
import ctypes, os, time

def preprocess(frame):
    if len(frame) >= 500:
        if os.environ.get("PRESCORE_TEST_HANG") == "asleep":
            os.environ["PRESCORE_TEST_LATE"] = "yes"
            time.sleep(600)
        if os.environ.get("PRESCORE_TEST_HANG") == "in C":
            ctypes.PyDLL(None).sleep(600)
    return frame
"""
TOML = PIPELINE_TOML.replace('changes.sql"', 'changes.sql"\npreprocess = "model.py:preprocess"')
LIMITED = "\n[schedule]\nmax_duration = '{}'\n"

RUNNING = "SELECT run_id FROM prescore.runs WHERE status = 'running'"
ENDED = "SELECT run_id FROM prescore.runs WHERE run_id = {} AND status <> 'running'"
#: A run at work on its rows: its connection that writes them waits for more.
WRITING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'prescore%' AND query ILIKE 'COPY%FROM STDIN%'
"""
LATE = "SELECT 1 FROM prescore.runs WHERE run_id = {} AND started_at + max_duration < clock_timestamp()"
SERVED = "SELECT sum(hashtext(v::text)) FROM (SELECT id, p, label, scored_in FROM predictions.items) AS v"

# The command, with less patience than a night has, and a clock that makes a leap when the model's code says so.
IMPATIENT = """
import os, time, types
import sklearn.linear_model, sklearn.compose, skops.io
from tasks import watchdog
watchdog.PATIENCE, watchdog.PUBLISHING, watchdog.HEARTBEAT_SECONDS = {patience}, {publishing}, 0.2
leap = lambda: 1e6 if os.environ.get("PRESCORE_TEST_LATE") else 0.0
watchdog.time = types.SimpleNamespace(monotonic=lambda: time.monotonic() + leap())
from flows.cli import main
main()
"""


@pytest.fixture(scope="module")
def copies(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copies]:
    made = Copies(server_url, tmp_path_factory.mktemp("pipelines"))
    yield made
    made.drop()


@pytest.fixture(scope="module")
def world(copies: Copies, _template: str) -> World:
    """A world that has published; each test leaves it with a free lock and what was served before."""
    made = copies.of(_template, rows=1_000)
    make_model(made, make_pipeline(made, toml=TOML, files={"model.py": HANGING_MODEL_PY}))
    made.score()
    return made


@pytest.fixture(autouse=True)
def _readers_see_what_they_saw(world: World) -> Iterator[None]:
    before = world.rows(SERVED)
    yield
    assert world.rows(SERVED) == before
    assert world.rows(LOCKS) == [(0,)]
    limit(world, None)


@pytest.fixture
def hold(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Held]]:
    """Start a run that stops at a point, and let it go at the end of the test at the latest."""
    started: list[Held] = []

    def begin(point: str, **options: bool) -> Held:
        held = Held(world, point, **options)
        started.append(held)
        held.start()
        return held

    for module in ("flows.score", "tasks.publishing", "tasks.runs", "tasks.staging", "tasks.scoring"):
        monkeypatch.setattr(f"{module}.reached", lambda point: [held.reached(point) for held in started])
    yield begin
    for held in started:
        held.let_go()


def limit(world: World, duration: str | None) -> None:
    """Declare how long a run of the pipeline may take."""
    make_pipeline(world, toml=TOML + ("" if duration is None else LIMITED.format(duration)))


def running(world: World) -> int:
    return int(world.one(RUNNING)["run_id"])


def record(world: World, run_id: int) -> tuple[str, str]:
    found = world.one(f"SELECT status, message FROM prescore.runs WHERE run_id = {run_id}")
    return found["status"], found["message"]


@contextmanager
def hanging(world: World, how: str, *, patience: float = 600.0, publishing: float = 600.0) -> Iterator[int]:
    """Run the command in a process that hangs in the model's code, and yield the run's id once it does."""
    words, environment = command(world, "score", "items", "--full")
    with hanging_process(words[1:], environment | {"PRESCORE_TEST_HANG": how}, patience, publishing):
        wait_until(world, WRITING)
        yield running(world)


@contextmanager
def hanging_process(
    words: list[str], environment: dict[str, str], patience: float, publishing: float
) -> Iterator[subprocess.Popen[str]]:
    program = IMPATIENT.format(patience=patience, publishing=publishing)
    started = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
            started.communicate()


# Somebody asks -------------------------------------------------------------------------------------------------------


def test_a_run_that_somebody_cancels_ends_at_once_and_says_who_and_why(
    world: World, hold: Callable[..., Held], capsys: pytest.CaptureFixture[str]
) -> None:
    held = hold("stream.batch", full=True)
    run_id = running(world)

    show_health(read_health(world.url), datetime.now(UTC), {}, as_json=False)
    assert f"running: {run_id}" in capsys.readouterr().out
    asked = prescore(world, "cancel", str(run_id), "--because", "the prices are wrong", "--wait", "0", "--json")
    wait_until(world, ENDED.format(run_id))
    held.let_go()

    # Whether it had ended when the command looked, which waited for nothing.
    assert asked.returncode == (0 if json.loads(asked.stdout)["ended"] else 3), asked.stderr
    assert isinstance(held.error, RunCancelled)
    status, message = record(world, run_id)
    assert status == Status.CANCELLED
    assert message == str(held.error)
    assert message.startswith("Cancelled by ")
    assert ": the prices are wrong. Nothing of this run was published" in message
    stored = world.one(
        f"SELECT cancel_asked_by, cancel_because, max_duration FROM prescore.runs WHERE run_id = {run_id}"
    )
    assert stored["cancel_because"] == "the prices are wrong"
    assert f"Cancelled by {stored['cancel_asked_by']}: " in message
    assert stored["max_duration"].total_seconds() == 24 * 3600
    # Over is over.
    with pytest.raises(NotCancellable, match=rf"Run {run_id} of items is over since .* \(cancelled\): Cancelled by"):
        cancel(world.url, run_id)
    with pytest.raises(NoSuchRun, match=r"There is no run 999999"):
        cancel(world.url, 999_999)


def test_a_run_that_was_asked_to_end_cannot_publish_even_if_it_does_not_hear(
    world: World, hold: Callable[..., Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog.Watchdog, "_look", lambda *_: None)
    held = hold("outputs.judged")
    run_id = running(world)

    assert not cancel(world.url, run_id, wait=0).ended
    held.let_go()

    assert isinstance(held.error, RunCancelled)
    assert record(world, run_id)[0] == Status.CANCELLED


def test_a_publication_is_not_cancelled(
    world: World, hold: Callable[..., Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings, "PATIENCE_MS", 50)
    held = hold("publish.before_commit")
    run_id = running(world)

    with pytest.raises(NotCancellable, match=rf"Run {run_id} of items is publishing.*prescore rollback items"):
        cancel(world.url, run_id)
    held.let_go()

    assert held.summary is not None
    assert held.summary.status is Status.PUBLISHED
    with pytest.raises(NotCancellable, match=r"\(published\): Published generation"):
        cancel(world.url, run_id)


@pytest.mark.slow
def test_a_process_that_hangs_is_cancelled_by_force(world: World) -> None:
    with hanging(world, "in C") as run_id:
        # It does not hear: what would have answered waits for Python.
        assert prescore(world, "cancel", str(run_id), "--wait", "0").returncode == 3

        forced = prescore(world, "cancel", str(run_id), "--force")

        assert forced.returncode == 0, forced.stderr
        assert f"Run {run_id} of items has ended (cancelled). Cancelled by " in forced.stdout
        assert world.rows(LOCKS) == [(0,)]
        assert world.score().status is Status.PUBLISHED


# Time is up ----------------------------------------------------------------------------------------------------------


def test_a_run_past_its_max_duration_is_ended_and_says_so(
    world: World, hold: Callable[..., Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = {"leap": 0.0}
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + clock["leap"]))
    monkeypatch.setattr(watchdog, "HEARTBEAT_SECONDS", 0.1)
    limit(world, "1d")
    held = hold("guards.checked")
    run_id = running(world)

    clock["leap"] = timedelta(days=1).total_seconds()
    wait_until(world, ENDED.format(run_id))
    held.let_go()

    assert isinstance(held.error, RunTimedOut)
    status, message = record(world, run_id)
    assert (status, message) == (Status.FAILED, str(held.error))
    assert message.startswith("Timed out: the run took longer than max_duration, 1d, and was ended. What was served")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["asleep", "in C"])
def test_a_process_that_hangs_past_its_max_duration_ends_itself(world: World, how: str) -> None:
    # Asleep, a thread of Python ends it; in C no thread of Python runs again, and the last one does, when time is really up.
    limit(world, "1d" if how == "asleep" else "8s")
    words, environment = command(world, "score", "items", "--full")
    with hanging_process(words[1:], environment | {"PRESCORE_TEST_HANG": how}, 0.1, 0.1) as started:
        _, told = started.communicate(timeout=120)

    assert started.returncode == 1, told
    assert "in preprocess" in told  # where it hung
    if how == "asleep":
        assert "prescore: Timed out: the run took longer than max_duration, 1d, and was" in told
        assert record(world, running_last(world))[0] == Status.FAILED
    assert world.rows(LOCKS) == [(0,)]
    limit(world, None)
    assert world.score().status is Status.PUBLISHED


def running_last(world: World) -> int:
    return int(world.one("SELECT max(run_id) AS run_id FROM prescore.runs")["run_id"])


def test_the_next_run_ends_one_that_does_not_end_itself(
    world: World, hold: Callable[..., Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog.Watchdog, "_look", lambda *_: None)
    limit(world, "1s")
    held = hold("stream.batch", full=True)
    run_id = running(world)
    with pytest.raises(RunInProgress, match=rf"by run {run_id} "):  # it has some minutes to end by itself
        world.score()
    monkeypatch.setattr(endings, "GRACE", timedelta(0))
    wait_until(world, LATE.format(run_id))

    assert world.score().status is Status.PUBLISHED

    held.let_go()
    status, message = record(world, run_id)
    assert status == Status.FAILED
    assert message.startswith("Timed out: the run took longer than max_duration, 1s")
    assert isinstance(held.error, RunTimedOut)
    assert str(held.error) == message


@pytest.mark.slow
def test_the_next_run_ends_a_process_that_hangs_and_does_its_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hanging(world, "in C") as run_id:
        world.execute(f"UPDATE prescore.runs SET max_duration = '1 second' WHERE run_id = {run_id}")
        monkeypatch.setattr(endings, "GRACE", timedelta(0))
        wait_until(world, LATE.format(run_id))

        assert world.score().status is Status.PUBLISHED

        status, message = record(world, run_id)
        assert status == Status.FAILED
        assert message.startswith("Timed out: the run took longer than max_duration, 1s")
        assert "may still be there: it can do nothing any more" in message
