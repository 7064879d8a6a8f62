"""Where the CPU goes: a full run, looked at by py-spy a hundred times a second, C and C++ included.

    uv run --group bench python -m tests.benchmarks.sampling --rows 2000000 --flame flame.svg

Only what is on a core counts. Shares are of the samples while ``flows.score.score`` runs and of all threads that it
started; PostgreSQL's processes are not looked at. On macOS py-spy wants root.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.bench import Bench, opened
from tests.benchmarks.results import plain_table
from tests.benchmarks.runs import walk_trees_by
from tests.benchmarks.table import MODELS, make_table, register

RATE = 100
#: Functions that are shown.
MOST = 30
#: A thread's line in py-spy's output: its number, and its name where it has one.
_THREAD = re.compile(r"^thread \([^)]*\)(?:: (?P<name>.*))?$")
#: Frames near the end of a stack that waits: py-spy takes a thread that waits in C for one that works now and then.
_WAITING = re.compile(
    r"^(poll|select|epoll_wait|.*_wait|.*timedwait|.*acquire_lock.*|take_gil|PyEval_RestoreThread|lock_.*) ?"
)
_NEAR_THE_END = 4
#: What has to be in a stack of the main thread to count.
_WITHIN = "score_once"


@dataclass(kw_only=True)
class Samples:
    """How often something was on a core."""

    threads: Counter[str] = field(default_factory=Counter)
    #: By the function itself, not by what called it; what a library has no name for counts for its caller.
    functions: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Samples of all threads."""
        return sum(self.threads.values())

    @classmethod
    def read(cls, text: str) -> Samples:
        """Read py-spy's raw format: a line for each stack, its frames with semicolons between them, and a number."""
        found = cls()
        for line in text.splitlines():
            stack, _, number = line.rpartition(" ")
            frames = [frame.strip() for frame in stack.split(";") if not frame.startswith("process ")]
            thread = "MainThread"
            if frames and (named := _THREAD.match(frames[0])):
                thread = (named["name"] or thread).strip('"')
                frames = frames[1:]
            waits = any(_WAITING.match(frame) for frame in frames[-_NEAR_THE_END:])
            elsewhere = thread == "MainThread" and not any(_WITHIN in frame for frame in frames)
            if not frames or waits or elsewhere:
                continue
            found.threads[thread] += int(number)
            named_frames = [frame for frame in frames if not frame.startswith("0x")]
            found.functions[thread, (named_frames or frames)[-1]] += int(number)
        return found


def sample(bench: Bench, name: str, *, compiled: bool, flame: Path | None = None) -> Samples:
    """Score everybody under py-spy, after a run that fills empty storages, and return what it saw."""
    found = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{sys.exec_prefix}/bin") or shutil.which(
        "py-spy"
    )
    if found is None:
        raise SystemExit("py-spy is not installed: uv run --group bench python -m tests.benchmarks.sampling")
    walk_trees_by(bench, name, compiled=compiled)
    environ = bench.environ
    command = [sys.executable, "-m", "tests.benchmarks.runs", name, "--full"]
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        looked = [found, "record", "--rate", str(RATE), "--native", "--threads"]
        _record([*looked, "--format", "raw", "-o", str(raw), "--", *command], environ)
        if flame is not None:
            _record([*looked, "-o", str(flame), "--", *command], environ)
        return Samples.read(raw.read_text(encoding="utf-8"))


def _record(command: list[str], environ: dict[str, str]) -> None:
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def show(console: Console, samples: Samples, name: str, *, compiled: bool) -> None:
    """Print where the CPU went."""
    form = "compiled form" if compiled else "scikit-learn"
    console.print(f"{name}, {form}: {samples.total / RATE:.1f} s on a core ({RATE} samples a second)", highlight=False)
    for table in tables(samples):
        console.print(table)


def tables(samples: Samples) -> list[Table]:
    """Return shares by thread, and by function."""
    threads = plain_table("CPU of Python by thread", "thread", "share")
    for name, number in samples.threads.most_common():
        threads.add_row(name, f"{number / samples.total:.1%}")
    functions = plain_table(f"the {MOST} functions on a core most often", "function", "share", "thread")
    for (thread, name), number in samples.functions.most_common(MOST):
        functions.add_row(name, f"{number / samples.total:.1%}", thread)
    return [threads, functions]


def main() -> None:
    """Make the table, score it under py-spy, print where the CPU went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--model", choices=tuple(MODELS), default="boosted")
    parser.add_argument("--compiled", action="store_true", help="the compiled form, where there is one")
    parser.add_argument("--flame", type=Path, help="also write a flame graph of another run")
    asked = parser.parse_args()
    with opened() as bench:
        make_table(bench.world, asked.rows)
        register(bench, asked.model)
        found = sample(bench, asked.model, compiled=asked.compiled, flame=asked.flame)
    show(Console(width=None if sys.stdout.isatty() else 160), found, asked.model, compiled=asked.compiled)


if __name__ == "__main__":
    main()
