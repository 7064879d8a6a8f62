"""Shards on clusters that exist already: the same rows as one process, whoever dies. Needs the extras dask and ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.disturbances import wait_until
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("clusters")]

ROWS = 200_000
SERVED = (
    "SELECT count(*), count(DISTINCT id), sum(hashtextextended(ROW(id, rejected, p, label)::text, 0)) "
    "FROM prescore_rows.items WHERE storage_id = (SELECT storage_id FROM prescore.head)"
)
CLAIMED = "SELECT FROM prescore.shards WHERE state = 'open' AND owner IS NOT NULL AND shard > 2"
OWNER = (
    "SELECT owner, shard FROM prescore.shards WHERE state = 'open' AND owner IS NOT NULL ORDER BY shard DESC LIMIT 1"
)


def declare(world: World, execution: str) -> None:
    make_pipeline(world, toml=PIPELINE_TOML + "[execution]\n" + execution)


@pytest.fixture
def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that workers find as they would in production: by their environment."""
    world = make_world(database_url, tmp_path, rows=ROWS)
    make_model(world, make_pipeline(world))
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
    return world


@contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[str]:
    """A scheduler and workers without nannies, which would start dead ones again; yields the address."""
    file = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    module = [sys.executable, "-m"]
    scheduler = [*module, "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
    started = [subprocess.Popen([*scheduler, "--scheduler-file", str(file)], **quiet)]  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        address: str = json.loads(file.read_text(encoding="utf-8"))["address"]
        worker = [*module, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        started += [
            subprocess.Popen([*worker, "--local-directory", str(folder)], **quiet)  # type: ignore[call-overload]
            for _ in range(workers)
        ]
        from distributed import Client

        with Client(address) as client:
            client.wait_for_workers(workers, timeout=120)
        yield address
    finally:
        for each in reversed(started):
            each.kill()
            each.wait()


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Ray on this machine with two workers; yields the address."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield "auto"
    finally:
        ray.shutdown()


@contextmanager
def killing_one_worker(world: World) -> Iterator[list[str]]:
    """Kill the worker of an open shard once two are finished; yields who was killed."""
    killed: list[str] = []

    def kill() -> None:
        wait_until(world, CLAIMED)
        owner = world.rows(OWNER)[0][0]
        killed.append(owner)
        os.kill(int(owner.rpartition(":")[2]), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    yield killed
    thread.join()


def compare(world: World, execution: str) -> dict[str, Any]:
    """Score as one process, on the cluster, and on the cluster with a worker that dies; all must be the same."""
    declare(world, "workers = 1\n")
    one = world.score(full=True)
    expected = world.rows(SERVED)
    assert expected[0][:2] == (ROWS, ROWS)
    declare(world, execution)
    first = world.score(full=True)
    assert (first.status, world.rows(SERVED)) == ("published", expected)
    many = world.score(full=True)
    with killing_one_worker(world) as killed:
        disturbed = world.score(full=True)
    assert (disturbed.status, world.rows(SERVED)) == ("published", expected)
    owners = {owner for (owner,) in world.rows(f"SELECT owner FROM prescore.shards WHERE run_id = {disturbed.run_id}")}
    again = world.rows(f"SELECT shard FROM prescore.shards WHERE run_id = {disturbed.run_id} AND attempt > 1")
    assert killed
    assert again
    seconds = {
        name: round(next(step.seconds for step in run.timings if step.step == "score"), 1)
        for name, run in (("one process", one), ("first", first), ("again", many), ("one killed", disturbed))
    }
    return {"seconds": seconds, "owners": owners, "killed": killed}


def test_dask_scores_what_one_process_scores_and_outlives_a_worker(world: World, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with dask_cluster(tmp_path) as address:
        found = compare(world, f'workers = 2\nshards = 8\nrunner = "dask"\naddress = "{address}"\n')
    print(found)
    assert len(found["owners"]) == 2


def test_ray_scores_what_one_process_scores_and_outlives_a_worker(world: World) -> None:
    pytest.importorskip("ray")
    with ray_cluster() as address:
        found = compare(world, f'workers = 2\nshards = 8\nrunner = "ray"\naddress = "{address}"\n')
    print(found)
