"""The table of estimators: what registers, loads in a new process and scores equal.

``uv run python -m tests.benchmarks.estimators`` registers every estimator of the catalogue in an embedded PostgreSQL of
its own, loads each version in a new process, and compares its scores with those of the original.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tasks import embedded, migrations
from tests.estimators import KINDS
from tests.rescoring import Outcome, make_shop, register_and_rescore


def main() -> None:
    """Make a database, register and score all, print the table, and take everything away again."""
    warnings.simplefilter("ignore")
    base = Path("/var/lib") if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="prescore-bench-", dir=base))
    folder.chmod(0o755)
    try:
        url = embedded.ensure_running(folder / "data")
        migrations.apply(url)
        started = time.perf_counter()
        outcomes = register_and_rescore(make_shop(url, folder), folder, KINDS)
        show(outcomes, time.perf_counter() - started)
    finally:
        embedded.stop(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)
    if not all(passed(outcome) for outcome in outcomes.values()):
        sys.exit(1)


def passed(outcome: Outcome) -> bool:
    """Return whether an estimator was registered and scores equal in a new process."""
    return outcome.refused is None and outcome.difference is not None and outcome.difference <= 1e-9


def show(outcomes: dict[str, Outcome], seconds: float) -> None:
    """Print a row for each estimator, and why those were refused that were."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("family", "estimator", "registers", "loads", "equal", "size", "s to load"):
        table.add_column(heading, justify="right" if heading in ("size", "s to load") else "left")
    for name, kind in sorted(KINDS.items(), key=lambda named: named[1].family):
        found = outcomes[name]
        if found.refused is not None:
            table.add_row(kind.family, name, "refused")
            continue
        if found.not_loaded is not None:
            table.add_row(kind.family, name, "yes", "no")
            continue
        equal = (
            "a class differs" if found.difference is None else f"{found.difference:.1g}" if found.difference else "yes"
        )
        size, load = f"{found.size_bytes:,}", f"{found.seconds_to_load:.3f}"
        table.add_row(kind.family, name, "yes", "yes", equal, size, load)
    console.print(table)
    good = sum(passed(outcome) for outcome in outcomes.values())
    console.print(
        f"{good} of {len(outcomes)} estimators register, load in a new process and score equal (classes exactly, values "
        f"within 1e-9); {seconds:.0f} s in all.",
        soft_wrap=True,
    )
    for outcome in outcomes.values():
        if why := outcome.refused or outcome.not_loaded:
            console.print(f"{outcome.kind}: {why}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
