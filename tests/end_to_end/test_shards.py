"""Shards: a full run in parts gives what one stream gives; dead workers and dead runs cost their own shard and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

SERVED = (
    "SELECT id, rejected, p, label FROM prescore_rows.items WHERE storage_id = (SELECT storage_id FROM prescore.head) "
    "ORDER BY id"
)


def declare(world: World, execution: str) -> None:
    make_pipeline(world, toml=PIPELINE_TOML + "[execution]\n" + execution)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    world = make_world(database_url, tmp_path, rows=4_000)
    make_model(world, make_pipeline(world))
    return world


def counted(world: World, run_id: int) -> set[str]:
    """Everything that a run counted: profiles without the rounding of means, and what the checks observed."""
    profiles = world.rows(
        "SELECT kind, name, rows, nulls, nans, infinities, under, over, unseen, tails, minimum, maximum, counts, digest, "
        f"round(mean::numeric, 9), round(m2::numeric, 6) FROM prescore.profiles WHERE run_id = {run_id} ORDER BY kind, name"
    )
    checks = world.rows(
        f"SELECT check_id, subject, verdict, n FROM prescore.checks WHERE run_id = {run_id} "
        "AND check_id NOT IN ('clock.offset', 'model.sentinels') ORDER BY 1, 2"
    )
    return {str(row) for row in profiles + checks}


def test_shards_give_what_one_stream_gives(world: World) -> None:
    for _ in range(3):  # so that every check has what it compares with
        one = world.score(full=True)
    before = world.rows(SERVED)
    declare(world, "shards = 4\n")
    four = world.score(full=True)
    assert four.status == "published"
    assert world.rows(SERVED) == before
    assert counted(world, four.run_id) ^ counted(world, one.run_id) == set()
    shards = world.rows(f"SELECT state, rows, keys FROM prescore.shards WHERE run_id = {four.run_id} ORDER BY shard")
    assert [state for state, *_ in shards] == ["finished"] * 4
    assert all(900 <= rows == keys <= 1_100 for _, rows, keys in shards)
