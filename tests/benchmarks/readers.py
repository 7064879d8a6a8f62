"""What a reader pays: point lookups, scans and rankings through the views, against the same rows without them.

    uv run python -m tests.benchmarks.readers --rows 2000000

One full run publishes the rows, an incremental one a part of them. Lookups are timed by pgbench (PATH, or Debian's folders),
one client that draws a statement and a key at random each time, so that all of them meet the same machine; p50 and p99 of its
log, in microseconds. `bare` is the primary-key lookup of the same row in the storage that is served. Scans are the best of
five. The server is the embedded one, or another with --postgres FOLDER (its bin folder); its data is removed at the end.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2

from tasks import embedded
from tasks.quarantine import quarantine, release
from tests.benchmarks.bench import opened
from tests.conftest import psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

LOOKUPS = {
    "bare": "SELECT {outputs} FROM {storage} WHERE id = :id",
    "partitioned": "SELECT {outputs} FROM prescore_rows.{pipeline} WHERE id = :id AND storage_id = {storage_id}",
    "view": "SELECT {outputs}, state FROM predictions.{pipeline} WHERE id = :id",
    "bare, all columns": "SELECT * FROM {storage} WHERE id = :id",
    "view, all columns": "SELECT * FROM predictions.{pipeline} WHERE id = :id",
    "usable": "SELECT {outputs} FROM predictions.{pipeline}_usable WHERE id = :id",
    "function": "SELECT {outputs}, state FROM predictions.{pipeline}_for(:id)",
}
SCANS = {
    "bare scan": "SELECT count(*), sum(p) FROM {storage}",
    "scan with states": "SELECT state, count(*), sum(p) FROM predictions.{pipeline} GROUP BY state",
    "scan of predictions": "SELECT count(*), sum(p) FROM predictions.{pipeline}",
    "scan of usable": "SELECT count(*), sum(p) FROM predictions.{pipeline}_usable",
    "top 100, bare": "SELECT id, p FROM {storage} ORDER BY p DESC LIMIT 100",
    "top 100, usable": "SELECT id, p FROM predictions.{pipeline}_usable ORDER BY p DESC LIMIT 100",
}


@dataclass(frozen=True, kw_only=True)
class Read:
    """What is read: a pipeline and its outputs."""

    pipeline: str = "items"
    outputs: str = "p, label"

    def statement(self, world: World, text: str) -> str:
        """Return a statement of ``LOOKUPS`` or ``SCANS`` on what is served now."""
        (storage_id,) = world.rows(f"SELECT storage_id FROM prescore.head WHERE pipeline = '{self.pipeline}'")[0]
        return text.format(
            storage=f"prescore_rows.{self.pipeline}_{storage_id}",
            storage_id=storage_id,
            pipeline=self.pipeline,
            outputs=self.outputs,
        )


def find_pgbench() -> str:
    """Return pgbench, or say that it is missing."""
    found = shutil.which("pgbench") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), reverse=True)), None
    )
    if found is None:
        raise SystemExit("pgbench is not on PATH: lookups cannot be timed. Install PostgreSQL's client programs.")
    return found


@contextmanager
def publication(rows: int, binaries: Path | None, changed: float) -> Iterator[World]:
    """Publish rows of a seeded table: all at once, then a share of them again."""
    recipe = embedded.Recipe(binaries=binaries, settings={"shared_buffers": "512MB"}, durable=False)
    with opened(recipe) as bench:
        world = make_world(bench.url, bench.folder / "pipelines", rows=rows)
        make_model(world, make_pipeline(world, toml=PIPELINE_TOML))
        world.score(full=True)
        if changed:
            world.execute(f"UPDATE public.items SET updated_at = now() WHERE id <= {changed} * {rows}")
            world.score()
        connection = psycopg2.connect(psql_url(world.url))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        connection.close()
        yield world


def time_lookups(
    world: World, rows: int, seconds: float, protocol: str, lookups: dict[str, str], read: Read | None = None
) -> dict[str, Any]:
    """Return microseconds of each lookup, by name."""
    read = read or Read()
    with tempfile.TemporaryDirectory() as folder:
        scripts = []
        for number, text in enumerate(lookups.values()):
            statement = read.statement(world, text)
            script = Path(folder, f"{number}.sql")
            script.write_text(f"\\set id random(1, {rows})\n{statement};\n", encoding="utf-8")
            scripts += ["-f", str(script)]
        command = [find_pgbench(), "-n", "-M", protocol, "-T", f"{seconds:.0f}", "-l", "--log-prefix=log", *scripts]
        ended = subprocess.run([*command, psql_url(world.url)], cwd=folder, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(ended.stderr)
        times = defaultdict(list)
        for log in Path(folder).glob("log.*"):
            for line in log.read_text(encoding="utf-8").splitlines():
                words = line.split()
                times[int(words[3])].append(int(words[2]))
    # The first ones make the plans and fill the caches; on a busy machine there may be few in a short time.
    return {name: np.array(times[number][min(50, len(times[number]) // 2) :]) for number, name in enumerate(lookups)}


def time_scan(world: World, statement: str) -> float:
    """Return milliseconds of a statement, the median of five after a first one."""
    statement = Read().statement(world, statement)
    connection = psycopg2.connect(psql_url(world.url))
    taken = []
    with connection.cursor() as cursor:
        for _ in range(6):
            begun = time.perf_counter()
            cursor.execute(statement)
            cursor.fetchall()
            taken.append(1000 * (time.perf_counter() - begun))
    connection.close()
    return statistics.median(taken[1:])


def report(world: World, rows: int, seconds: float) -> None:
    """Print what everything costs, and how many times the bare one that is."""
    version = world.rows("SHOW server_version")[0][0].split(" ")[0]
    print(f"PostgreSQL {version}, {rows:,} rows served")
    for protocol in ("prepared", "simple"):
        times = time_lookups(world, rows, seconds, protocol, LOOKUPS)
        bare = np.percentile(times["bare"], [50, 99])
        print(f"{protocol:<22}{'p50 µs':>9}{'p99 µs':>9}{'times bare':>12}{'at p99':>9}{'lookups':>10}")
        for name, taken in times.items():
            p50, p99 = np.percentile(taken, [50, 99])
            print(f"  {name:<20}{p50:>9.0f}{p99:>9.0f}{p50 / bare[0]:>12.2f}{p99 / bare[1]:>9.2f}{len(taken):>10,}")
    for name, statement in SCANS.items():
        print(f"{name:<22}{time_scan(world, statement):>9.1f} ms")


def time_quarantine(world: World) -> None:
    """Print how long a quarantine of the incremental generation takes, its release, and one of the full generation."""
    full, changed = (row[0] for row in world.rows("SELECT generation_id FROM prescore.generations ORDER BY 1"))
    for what, act in (
        ("quarantine, a part", lambda: quarantine(world.url, "items", changed, "a benchmark")),
        ("its release", lambda: release(world.url, "items", changed)),
        ("quarantine, the rest", lambda: quarantine(world.url, "items", full, "a benchmark")),
        ("its release", lambda: release(world.url, "items", full)),
    ):
        begun = time.perf_counter()
        act()
        print(f"{what:<24}{1000 * (time.perf_counter() - begun):>7.0f} ms")


def main() -> None:
    """Publish, then time every kind of read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--seconds", type=float, default=20, help="of lookups, for each protocol")
    parser.add_argument("--changed", type=float, default=0.05, help="share of rows that the incremental run scores")
    parser.add_argument("--postgres", type=Path, help="bin folder of another PostgreSQL")
    options = parser.parse_args()
    find_pgbench()
    with publication(options.rows, options.postgres, options.changed) as world:
        sys.stderr.write("published\n")
        report(world, options.rows, options.seconds)
        if options.changed:
            time_quarantine(world)


if __name__ == "__main__":
    main()
