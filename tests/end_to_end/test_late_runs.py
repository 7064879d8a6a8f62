"""Runs that a scheduler starts too late, several at once: one does the work, and the records say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from flows import score as scoring
from tasks.runs import Status, Trigger
from tests.disturbances import Copies
from tests.end_to_end.test_concurrent_runs import Held
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline

pytestmark = pytest.mark.xdist_group("late runs")

SCHEDULE = """
[schedule]
timezone = "Europe/Berlin"
full = "0 3 * * *"
incremental = "*/15 * * * *"
"""
LAST = "SELECT status, trigger, mode, message FROM prescore.runs ORDER BY run_id DESC LIMIT 1"


@pytest.fixture(scope="module")
def copies(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copies]:
    made = Copies(server_url, tmp_path_factory.mktemp("pipelines"))
    yield made
    made.drop()


@pytest.fixture(scope="module")
def world(copies: Copies, _template: str) -> World:
    made = copies.of(_template, rows=500)
    make_model(made, make_pipeline(made, toml=PIPELINE_TOML + SCHEDULE))
    return made


@pytest.fixture
def hold(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Held]]:
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


def test_after_an_outage_one_run_does_the_work_of_all_that_were_missed(world: World) -> None:
    now = datetime.now(UTC)
    # What a scheduler starts when it is back: the oldest first, two nights and many quarters of an hour.
    missed = [(now - timedelta(hours=hours), hours in {34, 10}) for hours in (34, 33, 22, 11, 10, 3, 1)]
    scheduled = {"trigger": Trigger.SCHEDULED}

    ended = [world.score(full=full, due_at=at, **scheduled) for at, full in missed]

    first, *others = ended
    assert (first.status, first.trigger, first.mode) == (Status.PUBLISHED, Trigger.RECOVERY, "full")
    assert first.message.endswith(f"It makes up for what was due since {missed[0][0]:%Y-%m-%d %H:%M} UTC.")
    assert {each.status for each in others} == {Status.SKIPPED}
    done = f"is done: run {first.run_id} began at "
    assert all(done in each.message and "has published" in each.message for each in others)
    assert world.rows("SELECT status, trigger, count(*) FROM prescore.runs GROUP BY 1, 2 ORDER BY 1") == [
        ("published", "recovery", 1),
        ("skipped", "recovery", 6),
    ]
    # The promise of both schedules is kept again, and the next tick starts the next run.
    assert world.one("SELECT overdue FROM prescore.pipeline_health") == {"overdue": False}
    on_time = world.score(due_at=datetime.now(UTC), **scheduled)
    assert (on_time.status, on_time.trigger, on_time.mode) == (Status.PUBLISHED, Trigger.SCHEDULED, "incremental")
    # An incremental run does no full one's work.
    later = world.score(full=True, due_at=datetime.now(UTC) - timedelta(hours=3), **scheduled)
    assert (later.status, later.trigger) == (Status.SKIPPED, Trigger.RECOVERY)
    world.execute("UPDATE prescore.runs SET mode = 'incremental' WHERE mode = 'full' AND status = 'published'")
    assert world.score(full=True, due_at=datetime.now(UTC) - timedelta(hours=3), **scheduled).status is Status.PUBLISHED


def test_a_late_incremental_run_leaves_its_work_to_a_full_one_that_is_due(world: World) -> None:
    world.execute("UPDATE prescore.schedules SET next_tick = prescore.clock() - interval '5 hours' WHERE mode = 'full'")
    world.execute("UPDATE prescore.runs SET started_at = started_at - interval '1 day'")
    before = datetime.now(UTC) - timedelta(hours=4)

    left = world.score(due_at=before, trigger=Trigger.SCHEDULED)
    full = world.score(full=True, due_at=before, trigger=Trigger.SCHEDULED)

    assert left.status is Status.SKIPPED
    assert "is left to the full run that is due since " in left.message
    assert (full.status, full.trigger, full.mode) == (Status.PUBLISHED, Trigger.RECOVERY, "full")


def test_a_full_run_of_the_same_tick_waits_for_the_incremental_one(
    world: World, hold: Callable[..., Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hold("population.selected")
    asked: list[float] = []

    def let_go(seconds: float) -> None:
        asked.append(seconds)
        held.let_go()

    monkeypatch.setattr(scoring.time, "sleep", let_go)

    full = world.score(full=True, due_at=datetime.now(UTC), trigger=Trigger.SCHEDULED)

    assert asked == [scoring.LOOK_AGAIN]
    assert held.summary is not None
    assert held.summary.status is Status.PUBLISHED
    assert (full.status, full.mode) == (Status.PUBLISHED, "full")
    # And the incremental one that comes second at a tick has nothing to do.
    tick = world.one(f"SELECT started_at FROM prescore.runs WHERE run_id = {full.run_id}")["started_at"]
    second = world.score(due_at=tick, trigger=Trigger.SCHEDULED)
    assert (second.status, second.trigger) == (Status.SKIPPED, Trigger.SCHEDULED)
    assert world.one(LAST)["message"] == second.message
