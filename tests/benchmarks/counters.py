"""What it costs to count while scoring: runs with and without profiles, drift checks, ledger and ranges of outputs.

    uv run python -m tests.benchmarks.counters --rows 2000000 --pairs 3

The table and the model are those of ``tests.benchmarks.table``: 3 text and 16 float columns, 100 boosted trees. Runs
alternate, with and without, in processes of their own. Reported are the medians of wall time and of CPU time (that of
the process and of PostgreSQL's backends) and the ratio of the two; beside them the CPU time that the counting itself
took, as its own thread measured it, which noise of the machine does not reach.
"""

from __future__ import annotations

import argparse
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.bench import Bench, backend_seconds, opened, run_process, tell
from tests.benchmarks.table import CHANGES, FEATURES, MODEL, SAMPLE_ROWS, TOML, boosted, make_table
from tests.factories import make_model, make_pipeline

#: Checks that look at what was counted.
_COUNTED = ("drift.", "input.", "inputs.", "output.", "outputs.")


def main() -> None:
    """Make the table and the model, score it in turns with and without counting, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--score", choices=("with", "without"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.score:
        score_once(counting=asked.score == "with")
        return
    with opened() as bench:
        make_bench(bench, asked.rows)
        compare(bench, asked.pairs)


def make_bench(bench: Bench, rows: int) -> None:
    """Make the table and the model."""
    make_table(bench.world, rows)
    pipeline = make_pipeline(
        bench.world, "bench", toml=TOML, features=FEATURES, changes=CHANGES, files={"model.py": MODEL}
    )
    make_model(bench.world, pipeline, fit=boosted, sample_rows=SAMPLE_ROWS)


def compare(bench: Bench, pairs: int) -> None:
    """Score in turns and print medians and ratios; the first run of all is not counted: it fills an empty storage."""
    measured: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    score_in_process(bench, "with")
    for pair in range(pairs):
        for which in ("with", "without") if pair % 2 == 0 else ("without", "with"):
            found = score_in_process(bench, which)
            measured[which].append(found)
            sys.stderr.write(
                f"{which:8} " + "  ".join(f"{name} {value:6.2f} s" for name, value in found.items()) + "\n"
            )
    for name in ("wall", "cpu"):
        middle = {which: statistics.median(run[name] for run in runs) for which, runs in measured.items()}
        ratios = [one[name] / other[name] for one, other in zip(measured["with"], measured["without"], strict=True)]
        sys.stdout.write(
            f"{name}: {middle['with']:.2f} s with, {middle['without']:.2f} s without; ratio of the medians "
            f"{middle['with'] / middle['without']:.3f}, median ratio of {pairs} pairs {statistics.median(ratios):.3f}\n"
        )
    share = statistics.median(run["counting"] / run["cpu"] for run in measured["with"])
    sys.stdout.write(f"counting itself: {share:.1%} of the CPU time of a run\n")


def score_in_process(bench: Bench, which: str) -> dict[str, float]:
    """Score once in a process of its own; return seconds of wall, of CPU with PostgreSQL's, and of counting."""
    before = backend_seconds(bench.data_dir)
    found = run_process(bench, "counters", ["--score", which])
    backends = backend_seconds(bench.data_dir) - before
    return {
        **{name: found[name] for name in ("wall", "python", "counting")},
        "backends": backends,
        "cpu": found["python"] + backends,
    }


def score_once(*, counting: bool) -> None:
    """Score everybody in this process and print what it took, as JSON."""
    from flows.score import score
    from tasks.profiles import ProfileCounter
    from tasks.settings import read_settings

    spent = [0.0]
    ProfileCounter.add = _timed(ProfileCounter.add, spent)  # type: ignore[method-assign]
    if not counting:
        count_nothing()
    started = time.perf_counter()
    summary = score(read_settings(), "bench", full=True)
    wall = time.perf_counter() - started
    if summary.status != "published":
        sys.exit(summary.message)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"wall": wall, "python": used.ru_utime + used.ru_stime, "counting": spent[0]}
    tell(found)


def _timed(call: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        before = time.thread_time()
        try:
            return call(*arguments)
        finally:
            spent[0] += time.thread_time() - before

    return timed


def count_nothing() -> None:
    """Take out of this process whatever counts: profiles, checks of them, the ranges of outputs, sums of key hashes."""
    import tasks.checks
    import tasks.database
    from tasks.profiles import ProfileCounter
    from tasks.scoring import Scorer

    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    ProfileCounter.add = nothing  # type: ignore[method-assign]
    Scorer._note_ranges = nothing  # type: ignore[method-assign]
    kept = tuple(check for check in tasks.checks.CHECKS if not check.id.startswith(_COUNTED))
    tasks.checks.CHECKS = kept
    read = tasks.database._statement
    hashed = re.compile(r"sum\((?:\{key_hash\}|hash)\)")
    tasks.database._statement = lambda name: hashed.sub("max(0)", read(name))  # type: ignore[assignment]


if __name__ == "__main__":
    main()
