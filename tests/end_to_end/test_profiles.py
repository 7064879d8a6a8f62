"""A run leaves behind what its columns looked like, in the bins of its model, and clean runs make up the baseline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from tasks import registry
from tasks.database import connect
from tasks.pipeline import load_pipeline
from tasks.profiles import ModelProfile, Slot, StoredProfile, clean_runs, read_profiles
from tasks.profiles.counting import merged
from tasks.runs import Trigger
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

HOSTILE = 'a "quoted"; %s :name'

TOML = PIPELINE_TOML + 'probabilities = { method = "predict_proba", class = "all" }\n[model.golden]\natol = 1e-6\n'
FEATURES = (
    f'SELECT i.id, b.as_of, i.a, i.b, i.c, i.a > 0 AS "{HOSTILE.replace(chr(34), chr(34) * 2)}", i.updated_at AS seen '
    "FROM batch AS b JOIN public.items AS i ON i.id = b.id"
)
START = datetime(2026, 3, 2, 3, tzinfo=UTC)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    """A thousand items and a champion that knows the first 500."""
    made = make_world(database_url, tmp_path)
    make_model(made, make_pipeline(made, toml=TOML, features=FEATURES))
    return made


def profile_of(world: World, run_id: int) -> StoredProfile:
    with connect(world.url) as connection:
        return read_profiles(connection, [run_id, -1])[run_id]


def bins_of(world: World) -> ModelProfile:
    with connect(world.url) as connection:
        pipeline = world.settings.pipelines_dir / "items"
        return ModelProfile.from_bundle(registry.load_bundle(connection, "items", 1, load_pipeline(pipeline)).profile)


def test_a_run_stores_what_it_scored_and_an_incremental_one_only_that(world: World) -> None:
    world.execute("UPDATE public.items SET b = 'Infinity' WHERE id = 5; UPDATE public.items SET c = 'new' WHERE id = 7")
    full = world.score()
    found = profile_of(world, full.run_id)
    assert set(found.features) == {"a", "b", "c", HOSTILE, "seen"}
    assert set(found.outputs) == {"p", "label", "probabilities"}
    for counts in found.features.values():
        ends = counts.nulls + counts.nans + counts.infinities + counts.under + counts.over + (counts.unseen or 0)
        assert counts.rows == 1_000 == ends + counts.counts.sum()
    # The row that the model could not score is among the features, not among the outputs.
    assert [counts.rows for counts in found.outputs.values()] == [full.scored] * 3 == [999] * 3
    nulls = world.one("SELECT count(*) FROM public.items WHERE b IS NULL")["count"]
    assert (found.features["b"].nulls, found.features["b"].infinities) == (nulls, 1)
    assert found.features["c"].unseen == 1
    values = np.array([row[0] for row in world.rows("SELECT a FROM public.items")])
    bins = bins_of(world).features["a"]
    within = np.histogram(values, bins.edges)[0]
    assert found.features["a"].counts.tolist() == within.tolist()
    np.testing.assert_allclose([found.features["a"].mean, found.features["a"].sd], [values.mean(), values.std()])
    stored = np.array([row[0] for row in world.rows("SELECT p FROM predictions.items WHERE p IS NOT NULL")])
    np.testing.assert_allclose(found.outputs["p"].mean, stored.mean())
    beyond = found.outputs["p"].under + found.outputs["p"].over
    assert found.outputs["p"].counts.sum() + beyond + found.outputs["p"].unseen == 999

    world.execute("UPDATE public.items SET a = 100, updated_at = now() + interval '1 s' WHERE id <= 30")
    changed = world.score()
    found = profile_of(world, changed.run_id)
    assert (changed.mode, found.features["a"].rows, found.features["a"].over) == ("incremental", changed.scored + 1, 30)
    nobody = world.score()
    assert world.one(f"SELECT count(*) FROM prescore.profiles WHERE run_id = {nobody.run_id}")["count"] in (0, 8)


def test_held_runs_keep_their_profile_and_clean_ones_make_up_the_baseline(world: World) -> None:
    def run_at(instant: datetime, trigger: Trigger = Trigger.SCHEDULED) -> int:
        world.set_clock(instant)
        return world.score(full=True, trigger=trigger, as_of=instant).run_id

    def usual_at(instant: datetime, slot: Slot | None = None, **other: Any) -> list[int]:
        asked = {"mode": "full", "model_version": 1, "before": instant, "slot": slot, "timezone": "Europe/Berlin"}
        with connect(world.url) as connection:
            return clean_runs(connection, "items", **{**asked, **other})

    days = [START + timedelta(days=at) for at in range(8)]
    assert usual_at(days[0]) == []
    runs = [run_at(day) for day in days[:2]]
    manual = run_at(days[2], Trigger.MANUAL)
    runs += [run_at(days[7])]
    world.execute("UPDATE prescore.checks SET effective = 'pass', verdict = 'pass' WHERE effective <> 'skipped'")
    assert usual_at(days[7] + timedelta(days=7)) == runs[::-1]
    assert usual_at(days[7] + timedelta(days=7), limit=1) == runs[-1:]
    assert manual not in runs
    # The same day of the week in Berlin: two Mondays, one Tuesday.
    assert usual_at(days[7] + timedelta(days=7), Slot.WEEKDAY) == [runs[2], runs[0]]
    assert usual_at(days[7] + timedelta(days=8), Slot.WEEKDAY) == [runs[1]]
    assert usual_at(days[7] + timedelta(hours=22), Slot.WEEKDAY) == [runs[1]]
    # The runs were at 04:00 there; 40 days later the clocks have changed, and 03:00 UTC is 05:00.
    for slot, hours, found in (
        (Slot.HOUR, 7 * 24, runs[::-1]),
        (Slot.HOUR, 7 * 24 + 1, []),
        (Slot.HOUR_OF_WEEK, 7 * 24, [runs[2], runs[0]]),
        (Slot.MONTH, 20 * 24, runs[::-1]),
        (Slot.MONTH, 40 * 24, []),
        (Slot.HOUR, 40 * 24, []),
        (Slot.HOUR, 40 * 24 - 1, runs[::-1]),
    ):
        assert usual_at(days[7] + timedelta(hours=hours), slot) == found
    with connect(world.url) as connection:
        added = merged(found.features for found in read_profiles(connection, runs).values())
    one = profile_of(world, runs[0]).features["a"]
    assert (added["a"].counts.tolist(), added["a"].rows) == ((one.counts * 3).tolist(), 3_000)

    after = days[7] + timedelta(days=1)
    for spoilt in (
        "UPDATE prescore.runs SET status = 'crashed' WHERE run_id = {0}",
        "UPDATE prescore.generations SET undone_at = now() WHERE run_id = {0}",
        "UPDATE prescore.checks SET waived = true WHERE run_id = {0} AND check_id = 'population.size'",
        "UPDATE prescore.checks SET effective = 'warn' WHERE run_id = {0} AND check_id = 'population.size'",
        "UPDATE prescore.head SET quarantined = ARRAY[(SELECT generation_id FROM prescore.runs WHERE run_id = {0})]",
    ):
        with connect(world.url) as connection:
            connection.execute(sa.text(spoilt.format(runs[0])))
            left = clean_runs(connection, "items", mode="full", model_version=1, before=after)
            connection.rollback()
        assert left == [runs[2], runs[1]]
    assert usual_at(after, model_version=2) == usual_at(after, mode="incremental") == []

    world.execute("UPDATE public.items SET b = 'Infinity' WHERE id % 2 = 0")
    world.set_clock(after)
    held = world.score(full=True, trigger=Trigger.SCHEDULED, as_of=after)
    assert held.status == "held"
    assert profile_of(world, held.run_id).features["b"].infinities == 500
    assert held.run_id not in usual_at(after + timedelta(hours=1))
