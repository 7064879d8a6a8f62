"""The main job on a small world: full run, incremental run, lookups."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tasks.costs import RunCost
from tasks.population import Mode
from tasks.runs import Run, Status, hold_lock
from tests.factories import make_model, make_pipeline, make_world


def test_a_first_run_scores_everybody_and_a_second_one_only_what_changed(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path)
    make_model(world, make_pipeline(world))

    first = world.score()

    assert (first.status, first.mode, first.scored) == (Status.PUBLISHED, Mode.FULL, 1_000)
    assert world.one("SELECT state FROM predictions.items WHERE id = 7")["state"] == "fresh"

    world.execute(
        "UPDATE public.items SET a = a + 1, updated_at = clock_timestamp() WHERE id <= 5;"
        "DELETE FROM public.items WHERE id = 10;"
        "INSERT INTO public.items VALUES (5000, 0.5, 0.5, 'x', clock_timestamp())"
    )
    second = world.score()

    assert (second.status, second.mode) == (Status.PUBLISHED, Mode.INCREMENTAL)
    assert (second.new, second.changed, second.due, second.gone, second.unchanged) == (1, 5, 0, 1, 994)
    assert world.one("SELECT state FROM predictions.items_for(10)")["state"] == "missing"
    assert world.one("SELECT state FROM predictions.items_for(5000)")["state"] == "fresh"
    scored_in = dict(world.rows("SELECT id, scored_in FROM predictions.items WHERE id IN (5, 6, 5000)"))
    assert scored_in == {5: second.generation_id, 6: first.generation_id, 5000: second.generation_id}


def test_a_run_without_changes_publishes_and_scores_nobody(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path)
    make_model(world, make_pipeline(world))
    world.score()

    again = world.score()

    assert (again.status, again.scored, again.unchanged) == (Status.PUBLISHED, 0, 1_000)


def test_what_a_run_cost_is_told_and_kept_with_it(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path)
    make_model(world, make_pipeline(world))

    cost = world.score().cost

    assert cost is not None
    assert cost.predictions == 1_000
    assert [step.step for step in cost.steps][0::6] == ["open the run", "publish"]
    assert cost.cpu_seconds > 0
    assert cost.seconds == sum(step.seconds for step in cost.steps)
    # The server of the tests is on this machine; on one without /proc it is not known.
    assert (cost.postgres_cpu_seconds is not None) == Path("/proc/self/stat").exists()
    stored = world.one("SELECT cost FROM prescore.runs")["cost"]
    assert RunCost.from_json(stored).predictions == 1_000
    assert stored["per_million"]["seconds"] == pytest.approx(cost.seconds * 1_000, abs=0.1)

    # A run that publishes nothing costs something as well.
    world.execute("DELETE FROM public.items")
    assert world.score().status is Status.HELD
    held = world.one("SELECT cost FROM prescore.runs WHERE status = 'held'")["cost"]
    assert (held["predictions"], held["per_million"]) == (0, None)


def test_json_is_printed_without_progress_and_with_the_cost(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(database_url, tmp_path)
    make_model(world, make_pipeline(world))
    monkeypatch.setenv("PRESCORE_DATABASE_URL", database_url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(tmp_path))
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take anything for a terminal

    told = CliRunner().invoke(app, ["score", "items", "--json"])
    people = CliRunner().invoke(app, ["score", "items", "--full", "--quiet"])

    assert told.exit_code == 0
    assert told.stderr == ""
    assert json.loads(told.stdout)["cost"]["per_million"]["cpu_seconds"] > 0
    assert people.stderr == ""
    assert "per million predictions" in " ".join(people.stdout.split())

    # Who started it is kept, told at once, and shown by the commands that read.
    me = getpass.getuser()
    assert json.loads(told.stdout)["started_by"] == me
    assert f"2, manual ({me}), full" in people.stdout
    assert {row[0] for row in world.rows("SELECT started_by FROM prescore.runs")} == {me}
    assert f"by {me}" in CliRunner().invoke(app, ["status", "items"]).stdout
    (shown,) = json.loads(CliRunner().invoke(app, ["status", "items", "--json"]).stdout)["pipelines"]
    assert (shown["last_run_trigger"], shown["last_run_started_by"]) == ("manual", me)
    assert f"manual ({me})" in CliRunner().invoke(app, ["explain", "items", "rows.torn"]).stdout

    # A start that nobody waits for and that met another run is recorded as what it was.
    with hold_lock(world.url, "items"):
        assert CliRunner().invoke(app, ["score", "items", "--trigger", "recovery"]).exit_code == 0
    last = world.one("SELECT status, trigger, started_by FROM prescore.runs ORDER BY run_id DESC LIMIT 1")
    assert last == {"status": "skipped", "trigger": "recovery", "started_by": me}


def test_an_interrupt_that_breaks_the_connection_first_is_a_cancellation_too(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psycopg2 closes the connection that was waiting; what cleans up on it fails, and hides the interrupt."""
    world = make_world(database_url, tmp_path)
    make_model(world, make_pipeline(world))

    def end(run: Run, *_: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            run.connection.connection.driver_connection.close()  # type: ignore[union-attr]
            run.connection.rollback()

    monkeypatch.setattr("flows.score.check_guards", end)
    with pytest.raises(KeyboardInterrupt):
        world.score()

    assert world.one("SELECT status, message FROM prescore.runs") == {
        "status": "cancelled",
        "message": "Cancelled from outside (KeyboardInterrupt) before it published. What was published before is still served.",
    }
    monkeypatch.undo()
    assert world.score().status is Status.PUBLISHED
