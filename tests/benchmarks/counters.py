"""What it costs to count while scoring: runs with and without profiles, drift checks, ledger and ranges of outputs.

    uv run python -m tests.benchmarks.counters --rows 2000000 --pairs 3

The table and the model are those of ``tests.benchmarks.table``: 3 text and 16 float columns, 100 boosted trees. Runs
alternate, with and without, in processes of their own. Reported are the medians of wall time and of CPU time (that of
the process and of PostgreSQL's backends) and the ratio of the two; beside them the CPU time that the counting itself
took, as its own thread measured it, which noise of the machine does not reach.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks import embedded, migrations
from tasks.database import connect, raw_execute
from tasks.settings import Settings
from tests.benchmarks.table import CHANGES, FEATURES, MODEL, TOML, boosted, fill
from tests.factories import World, make_model, make_pipeline

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
    base = Path("/var/lib") if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="prescore-bench-", dir=base))
    folder.chmod(0o755)
    try:
        url = embedded.ensure_running(folder / "data")
        make_bench(url, folder, asked.rows)
        compare(url, folder, asked.pairs)
    finally:
        embedded.stop(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


def make_bench(url: str, folder: Path, rows: int) -> None:
    """Make the table and the model."""
    migrations.apply(url)
    world = World(url=url, settings=Settings(database_url=url, pipelines_dir=folder / "pipelines", data_dir=folder))
    with connect(url) as connection:
        raw_execute(connection, fill(rows))
        connection.commit()
    pipeline = make_pipeline(world, "bench", toml=TOML, features=FEATURES, changes=CHANGES, files={"model.py": MODEL})
    make_model(world, pipeline, fit=boosted, sample_rows=20_000)


def compare(url: str, folder: Path, pairs: int) -> None:
    """Score in turns and print medians and ratios; the first run of all is not counted: it fills an empty storage."""
    measured: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    score_in_process(url, folder, "with")
    for pair in range(pairs):
        for which in ("with", "without") if pair % 2 == 0 else ("without", "with"):
            found = score_in_process(url, folder, which)
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


def score_in_process(url: str, folder: Path, which: str) -> dict[str, float]:
    """Score once in a process of its own; return seconds of wall, of CPU with PostgreSQL's, and of counting."""
    environ = {**os.environ, "PRESCORE_DATABASE_URL": url, "PRESCORE_PIPELINES": str(folder / "pipelines")}
    command = [sys.executable, "-m", "tests.benchmarks.counters", "--score", which]
    before = backend_seconds(folder / "data")
    done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    found["backends"] = backend_seconds(folder / "data") - before
    found["cpu"] = found["python"] + found["backends"]
    return found


def backend_seconds(data_dir: Path) -> float:
    """Return the CPU seconds of PostgreSQL: of the postmaster, of children that ended and of those that live."""
    postmaster = embedded.status(data_dir).pid
    own = _ticks(Path(f"/proc/{postmaster}/stat"), ended=True)
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii").split()
    return (own + sum(_ticks(Path(f"/proc/{pid}/stat"), ended=False) for pid in children)) / os.sysconf("SC_CLK_TCK")


def _ticks(stat: Path, *, ended: bool) -> int:
    try:
        values = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(value) for value in values[11 : 15 if ended else 13])


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
    sys.stdout.write(f"\n{json.dumps(found)}\n")


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
    hashed = re.compile(r"sum\(\{key_hash\}\)")
    tasks.database._statement = lambda name: hashed.sub("max(0)", read(name))  # type: ignore[assignment]


if __name__ == "__main__":
    main()
