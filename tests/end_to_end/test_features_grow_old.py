"""[features.ttl]: features made of what is too old warn, hold, and bound what readers are promised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.score import RunSummary
from tasks.population import Mode
from tests.factories import PIPELINE_TOML, make_model, make_pipeline, make_world

NOW = datetime(2024, 5, 6, 3, tzinfo=UTC)
TOML = PIPELINE_TOML.replace("[features]", "[features]\nttl.seen_at = { ttl = '7d', features = ['b'] }")
FEATURES = "SELECT i.id, b.as_of, i.a, i.b, i.seen_at FROM batch AS b JOIN public.items AS i ON i.id = b.id"


def answer(run: RunSummary) -> tuple[str, str]:
    (found,) = [finding for finding in run.findings if finding.check_id == "features.age"]
    return found.verdict.value, found.reason


def test_a_hundredth_of_old_features_warns_and_a_twentieth_holds(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path, rows=200)
    # Everything was seen six days ago, but for one item seen eight days ago and ten of which nothing is known.
    world.execute(
        f"ALTER TABLE public.items ADD seen_at timestamptz; UPDATE public.items SET updated_at = '{NOW - timedelta(days=1)}', "
        f"seen_at = CASE WHEN id <= 10 THEN NULL WHEN id = 11 THEN timestamptz '{NOW}' - interval '8 days' "
        f"ELSE timestamptz '{NOW}' - interval '6 days' END"
    )
    pipeline = make_pipeline(world, toml=TOML, features=FEATURES)
    world.set_clock(NOW)
    make_model(world, pipeline, train_data_until=NOW)

    passed = world.score()

    assert answer(passed) == (
        "pass",
        "0.5% of 200 entities are 7 d or older (99 % are at most 6 d), limits 1.0% / 5.0%; 5.0% have no seen_at; "
        "0.0% have lost b to it",
    )
    # In a day a fifth and more will be too old: the promise says so, and half a percent is how exactly an age is known.
    assert passed.stale_at is not None
    assert NOW + timedelta(days=1) - timedelta(hours=1) < passed.stale_at <= NOW + timedelta(days=1)

    world.execute(
        f"UPDATE public.items SET updated_at = '{NOW}', seen_at = timestamptz '{NOW}' - interval '7 days', b = NULL WHERE id = 12"
    )
    world.set_clock(NOW + timedelta(minutes=1))
    incremental = world.score()

    assert incremental.mode is Mode.INCREMENTAL
    assert answer(incremental) == ("skipped", "what changed is no sample of all entities; full runs judge it")
    assert incremental.stale_at == passed.stale_at

    warned = world.score(full=True)

    assert warned.status.value == "published"
    verdict, reason = answer(warned)
    assert verdict == "warn"
    assert reason.startswith("1.0% of 200 entities are 7 d or older")
    assert reason.endswith("0.5% have lost b to it")
    assert world.one("SELECT state FROM predictions.items WHERE id = 50")["state"] == "aging"

    world.execute(f"UPDATE public.items SET seen_at = timestamptz '{NOW}' - interval '7 days' WHERE id < 21")
    held = world.score(full=True)

    assert (held.status.value, answer(held)[0]) == ("held", "fail")
    assert "features.age seen_at: 10.0% of 200 entities are 7 d or older" in held.message
    assert "Load what these features are made of." in held.message
