"""Runs one after the other while the sources change: nothing grows but what readers see.

A soak of 300 runs in one `prescore serve`: ``uv run python -m tests.benchmarks.soak --runs 300``
"""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from tasks.runs import Status
from tests.benchmarks.bench import opened
from tests.benchmarks.soak import require_flat, soak
from tests.nights import CONNECTIONS, Night, make_night

pytestmark = pytest.mark.xdist_group("soak")


def taken(night: Night) -> dict[str, int]:
    """Return what this process and the database keep open: files, threads, connections."""
    files = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _there(name)]
    return {
        "files": len(files),
        "threads": threading.active_count(),
        "connections": int(night.world.rows(CONNECTIONS)[0][0]),
    }


def _there(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="what is open is read from /proc")
@pytest.mark.parametrize("runs", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_incremental_runs_in_one_process_keep_nothing_open_and_stage_nothing(
    database_url: str, tmp_path: Path, runs: int
) -> None:
    night, chance = make_night(database_url, tmp_path), random.Random(9)
    night.change(chance)
    night.world.score()
    before, size = taken(night), sizes(night)
    for _ in range(runs):
        night.change(chance)
        assert night.world.score().status is Status.PUBLISHED
    assert taken(night) == before
    assert night.look()
    night.require_nothing_left()
    after = sizes(night)
    assert after["served"] <= 3 * size["served"]
    assert after["next"] <= size["next"] + 3 * size["served"]


def sizes(night: Night) -> dict[str, int]:
    """Return the bytes of what is served, and of the storage that runs fill, with their indexes."""
    named = {"current": "served", "next": "next"}
    return {
        named[role]: size
        for role, size in night.world.rows(
            "SELECT role, pg_total_relation_size('prescore_rows.items_' || storage_id) FROM prescore.storages "
            "WHERE pipeline = 'items' AND role IN ('current', 'next')"
        )
    }


@pytest.mark.slow
def test_serve_runs_the_shop_for_hours_and_grows_by_nothing() -> None:
    with opened() as bench:
        require_flat(soak(bench, runs=15, customers=1_000, looks=[5, 15], say=print))
