"""The main job on a small world: full run, incremental run, lookups."""

from __future__ import annotations

from pathlib import Path

from tasks.population import Mode
from tasks.runs import Status
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
