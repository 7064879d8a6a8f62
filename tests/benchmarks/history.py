"""What a history adds: to the publication of incremental and full runs, to the database, and what a lookup in the past takes.

    uv run python -m tests.benchmarks.history --rows 200000 --rounds 6 --changed 0.05

Two pipelines score the same items in turns, one with ``[history]`` and one without: ratios are of the same round, and of CPU
seconds of Python and PostgreSQL together.
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import UTC, datetime, timedelta

import psycopg2
from rich.console import Console
from rich.table import Table

from flows.score import RunSummary
from tests.benchmarks.bench import opened
from tests.conftest import psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

PLAIN, KEPT = "plain", "kept"
HISTORY = '[history]\nkeep = "90d"\n'
LOOKUPS = 500


def _cpu(summary: RunSummary, step: str | None = None) -> float:
    assert summary.cost is not None
    steps = [timing for timing in summary.timings if step is None or timing.step == step]
    return sum(timing.cpu_seconds + (timing.postgres_cpu_seconds or 0.0) for timing in steps)


def _bytes(world: World, relation: str) -> int:
    found: int = world.rows(f"SELECT pg_total_relation_size('{relation}')")[0][0]
    return found


def _look_up(world: World, statement: str, rows: int) -> tuple[float, float]:
    """Return p50 and p99 of a prepared lookup, in milliseconds."""
    taken = []
    connection = psycopg2.connect(psql_url(world.url))
    with connection.cursor() as cursor:
        cursor.execute(f"PREPARE looked AS {statement}")
        for count in range(LOOKUPS):
            began = time.perf_counter()
            cursor.execute("EXECUTE looked (%s)", (1 + count * 7919 % rows,))
            cursor.fetchall()
            taken.append((time.perf_counter() - began) * 1000)
    connection.close()
    cuts = statistics.quantiles(taken, n=100)
    return cuts[49], cuts[98]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--changed", type=float, default=0.05, help="share of the items that change between two runs")
    given = parser.parse_args()
    console = Console()
    with opened() as bench:
        world = make_world(bench.url, bench.folder / "pipelines", rows=given.rows)
        for name, more in ((PLAIN, ""), (KEPT, HISTORY)):
            make_model(world, make_pipeline(world, name, toml=PIPELINE_TOML + more))
            world.score(name)
        start = datetime.now(UTC)
        publishing: dict[bool, list[float]] = {False: [], True: []}
        whole: dict[bool, list[float]] = {False: [], True: []}
        for count in range(1, given.rounds + 1):
            every = round(1 / given.changed)
            world.change(
                f"UPDATE items SET a = a + 0.1, updated_at = statement_timestamp() WHERE (id + {count}) % {every} = 0"
            )
            full = count % 3 == 0
            order = (PLAIN, KEPT) if count % 2 else (KEPT, PLAIN)
            runs = {name: world.score(name, full=full) for name in order}
            publishing[full].append(_cpu(runs[KEPT], "publish") / _cpu(runs[PLAIN], "publish"))
            whole[full].append(_cpu(runs[KEPT]) / _cpu(runs[PLAIN]))
        table = Table(box=None)
        for column in ("what", "figure"):
            table.add_column(column)
        for full, mode in ((False, "incremental"), (True, "full")):
            for what, ratios in (("publication", publishing[full]), ("whole run", whole[full])):
                spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
                table.add_row(f"{mode}, {what}: CPU with a history, times that without", spread)
        (serving,) = world.rows(f"SELECT storage_id FROM prescore.head WHERE pipeline = '{KEPT}'")
        copy = _bytes(world, f"prescore_rows.kept_{serving[0]}")
        stored = world.rows("SELECT count(*) FROM prescore_rows.kept_history")[0][0]
        times = _bytes(world, "prescore_rows.kept_history") / copy
        table.add_row(f"rows kept after {given.rounds} runs of {given.rows:,}", f"{stored:,}")
        table.add_row("their size, times one full copy", f"{times:.2f}")
        world.execute("ANALYZE prescore_rows.kept_history")
        instants = {"now": datetime.now(UTC), "after the first run": start + timedelta(milliseconds=1)}
        for name, instant in instants.items():
            at = f"SELECT * FROM predictions.kept_at($1, '{instant.isoformat()}')"
            p50, p99 = _look_up(world, at, given.rows)
            table.add_row(f"lookup {name}: p50 (p99)", f"{p50:.2f} ({p99:.2f}) ms")
        p50, p99 = _look_up(world, "SELECT * FROM predictions.kept_for($1)", given.rows)
        table.add_row("lookup of the present: p50 (p99)", f"{p50:.2f} ({p99:.2f}) ms")
        console.print(table)


if __name__ == "__main__":
    main()
