"""The benchmark of prescore: full and incremental runs beside the scripts that people write instead, and beside the limit.

    uv run --group bench python -m tests.benchmarks --rows 2000000
    uv run --group bench python -m tests.benchmarks --only full --models boosted --json figures.json

It makes a table of N entities (bigint key, 3 text and 16 float columns, updated_at; seeded) in an embedded PostgreSQL of
its own and registers two models: 100 boosted trees over ordinal codes, and a logistic regression over one-hot columns and
scaled numbers. Everything is removed at the end. ``--only publication`` measures what readers notice of publications
instead, ``--only prefect`` what Prefect adds to a run, ``--only sampling`` says where the CPU goes. Everybody runs in each
round, in turns; see ``comparison``, ``scripts`` and ``limit`` for who they are. Ratios are what counts: seconds are those of
this machine in this minute.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tests.benchmarks import publication, readers, results, sampling
from tests.benchmarks.bench import Bench, load_average, machine, opened
from tests.benchmarks.comparison import Comparison, compare
from tests.benchmarks.table import MODELS, make_table, register

#: What is measured unless something is asked for alone.
USUAL_PARTS = ("full", "incremental", "rollback", "lookups")
#: What is only measured when it is asked for: each is a benchmark of its own, too.
OTHER_PARTS = ("publication", "prefect", "sampling")
PARTS = (*USUAL_PARTS, *OTHER_PARTS)
#: What is looked up: bare, and as a reader would.
LOOKUPS = ("bare", "view", "usable", "function")


def main() -> None:
    """Measure what was asked for, print the tables, write the figures."""
    asked = options().parse_args()
    parts = asked.only or list(USUAL_PARTS)
    models = asked.models or list(MODELS)
    began = time.perf_counter()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.perf_counter() - began:7.1f} s  {text}\n")

    console = Console(width=None if sys.stdout.isatty() else 210)
    found: dict[str, Any] = {}
    if set(parts) & set(USUAL_PARTS):
        with opened() as bench:
            found = measure(bench, asked.rows, asked.repeat, models, parts, asked.seconds, say)
        results.show(console, found)
    if "publication" in parts:
        published = publication.measure(asked.rows, seconds=asked.seconds, runs=asked.repeat)
        console.print("\n".join(published.lines()), highlight=False, markup=False)
        found["publication"] = asdict(published)
    if "prefect" in parts:
        overhead = [sys.executable, "-m", "tests.benchmarks.prefect_overhead", "--turns", str(asked.repeat)]
        subprocess.run(overhead, check=True)
    if "sampling" in parts:
        with opened() as bench:
            make_table(bench.world, asked.rows)
            for name in models:
                register(bench, name)
                for compiled in (False, True):
                    sampling.show(console, sampling.sample(bench, name, compiled=compiled), name, compiled=compiled)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def options() -> argparse.ArgumentParser:
    """Return what may be asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians need three")
    parser.add_argument("--only", nargs="+", choices=PARTS, help=f"default: {', '.join(USUAL_PARTS)}")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), help="default: both")
    parser.add_argument("--seconds", type=float, default=10, help="of lookups, for each protocol")
    parser.add_argument("--json", type=Path, help="file for all figures of all rounds")
    return parser


def measure(
    bench: Bench, rows: int, repeat: int, models: list[str], parts: list[str], seconds: float, say: Any
) -> dict[str, Any]:
    """Make the table, measure the parts that were asked for, and return all figures."""
    if "lookups" in parts:
        readers.find_pgbench()
    before = load_average()
    make_table(bench.world, rows)
    bench.world.execute("ALTER TABLE bench.entities SET (autovacuum_enabled = false)")
    say(f"{rows:,} rows made")
    comparisons = [
        Comparison(
            bench=bench,
            name=name,
            rows=rows,
            incremental="incremental" in parts,
            rollback="rollback" in parts,
            say=say,
        )
        for name in models
    ]
    compare(comparisons, repeat)
    found = {
        "rows": rows,
        "repeat": repeat,
        "postgres": bench.world.rows("SHOW server_version")[0][0].split(" ")[0],
        "machine": machine(),
        "models": {one.name: one.as_json() for one in comparisons},
        "lookups": look_up(bench, models[0], rows, seconds) if "lookups" in parts else {},
        "load_before": before,
        "load_after": load_average(),
    }
    say("measured")
    return found


def look_up(bench: Bench, name: str, rows: int, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Return microseconds of lookups by protocol and statement."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    statements = {lookup: readers.LOOKUPS[lookup] for lookup in LOOKUPS}
    read = readers.Read(pipeline=name, outputs="p")
    for protocol in ("prepared", "simple"):
        times = readers.time_lookups(bench.world, rows, seconds, protocol, statements, read)
        found[protocol] = {
            lookup: {
                "p50": float(np.percentile(taken, 50)),
                "p99": float(np.percentile(taken, 99)),
                "lookups": len(taken),
            }
            for lookup, taken in times.items()
            if len(taken)
        }
    return found


if __name__ == "__main__":
    main()
