"""Runs of prescore: a full one, incremental ones after a share of the rows has changed, and the way back.

    python -m tests.benchmarks.runs boosted --full

A process of its own for each. ``seconds`` is what ``flows.score.score`` took in it: libraries were imported before. This
module is started by ``tests.benchmarks`` on its server.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tasks.database import connect, raw_execute
from tasks.settings import read_settings
from tests.benchmarks.bench import (
    OWN_LIBRARIES,
    Bench,
    current,
    load_libraries,
    openmp_threads,
    run_process,
    spending,
    tell,
)

#: A prediction may differ by so much of itself between batches of another size; see ``tasks.scoring.SAME_SCORE``.
SAME = 1e-9


class RunsDiffer(Exception):
    """Two ways to the same predictions led to different ones."""


# Asked for by the one that measures --------------------------------------------------------------------------------


def run(bench: Bench, name: str, *, full: bool, compiled: bool = False) -> dict[str, Any]:
    """Score once in a process of its own, trees by scikit-learn or by compiled code, and return what it took and what it did."""
    walk_trees_by(bench, name, compiled=compiled)
    return run_process(bench, "runs", [name, *(["--full"] if full else [])])


def walk_trees_by(bench: Bench, name: str, *, compiled: bool) -> None:
    """Declare who walks the trees of a pipeline's model; rows are decoded by compiled code either way."""
    declared = bench.world.settings.pipelines_dir / name / "pipeline.toml"
    others = [line for line in declared.read_text().splitlines() if not line.startswith("compiled = ")]
    if "[model]" not in others:
        others.append("[model]")
    others.insert(others.index("[model]") + 1, f"compiled = {str(compiled).lower()}")
    declared.write_text("\n".join(others) + "\n")


def why_not_compiled(bench: Bench, name: str) -> str | None:
    """Return why a run that might have used compiled code did not; None when it did."""
    from tasks.compiled.form import read_form

    (digest,) = bench.world.rows(f"SELECT digest FROM prescore.models WHERE model = '{name}'")[0]
    form = read_form(bench.world.settings.compiled_dir, digest)
    return None if form.compiled_rows is not None else form.why_not


def go_back(bench: Bench, name: str) -> dict[str, Any]:
    """Roll back and resume in a process of its own and return how long each took."""
    return run_process(bench, "runs", [name, "--rollback"])


def change(bench: Bench, share: float, seed: int) -> int:
    """Change a feature of a share of the rows, drawn anew for each seed, and return how many.

    The table is vacuumed and the server writes its checkpoint, so that neither falls into what is measured next.
    """
    with connect(bench.url) as connection:
        cursor = raw_execute(
            connection,
            f"UPDATE bench.entities SET updated_at = clock_timestamp(), "
            f"f0 = (hashint8extended(id, {seed + 1}) & 1048575)::double precision / 1048576 "
            f"WHERE (hashint8extended(id, {seed}) & 1048575) < {share} * 1048576",
        )
        changed: int = cursor.rowcount
        connection.commit()
    with connect(bench.url, autocommit=True) as connection:
        raw_execute(connection, "VACUUM (ANALYZE) bench.entities")
    settle(bench)
    return changed


def settle(bench: Bench) -> None:
    """Let the server write what the one before left to write."""
    with connect(bench.url, autocommit=True) as connection:
        raw_execute(connection, "CHECKPOINT")


def keep(bench: Bench, name: str) -> None:
    """Keep what is served now, to be compared."""
    bench.world.execute(
        f"DROP TABLE IF EXISTS bench.kept_{name}; CREATE TABLE bench.kept_{name} AS SELECT id, p FROM predictions.{name}"
    )


def largest_difference(bench: Bench, name: str, other: str, rows: int | None = None) -> float:
    """Return by how much the predictions that are served differ from those of a table of the bench.

    Raises
    ------
    RunsDiffer
        When one has entities that the other has not, or a prediction differs by more than ``SAME``.
    """
    within = "" if rows is None else f"WHERE id <= {rows}"
    (found,) = bench.world.rows(
        f"SELECT count(*) FILTER (WHERE s.id IS NULL OR o.id IS NULL), coalesce(max(abs(s.p - o.p)), 0) "
        f"FROM (SELECT id, p FROM predictions.{name} {within}) AS s "
        f"FULL JOIN (SELECT id, p FROM bench.{other} {within}) AS o ON o.id = s.id"
    )
    alone, difference = int(found[0]), float(found[1])
    if alone or difference > SAME:
        raise RunsDiffer(f"{name} and {other}: {alone} entities in one alone, predictions up to {difference:.1g} apart")
    return difference


# In a process of its own -------------------------------------------------------------------------------------------


class _Threads:
    """Notes which threads the model predicts in, and with how many threads of OpenMP each."""

    def __init__(self) -> None:
        self._own: set[int] = set()
        self._openmp = 0

    def watch(self, predict: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same function, watched."""

        def watched(*arguments: Any, **named: Any) -> Any:
            self._own.add(threading.get_ident())
            self._openmp = max(self._openmp, openmp_threads())
            return predict(*arguments, **named)

        return watched

    def __str__(self) -> str:
        return f"{len(self._own)} x {self._openmp}"


def score_once(bench: Bench, name: str, *, full: bool) -> dict[str, Any]:
    """Score in this process and return what it took; the program ends when nothing was published."""
    import tasks.publishing
    import tasks.scoring
    from flows.score import score

    settings = read_settings()
    moved = [0.0]
    tasks.publishing.publish = _timed(tasks.publishing.publish, moved)
    threads = _Threads()
    tasks.scoring.predict_outputs = threads.watch(tasks.scoring.predict_outputs)
    with spending(bench.data_dir) as spent:
        summary = score(settings, name, full=full)
    if summary.status != "published":
        sys.exit(summary.message)
    return {
        **spent.as_json(),
        "rows": summary.scored,
        "population": summary.population,
        "mode": str(summary.mode),
        "because": summary.because,
        "threads": str(threads),
        "cost": None if summary.cost is None else summary.cost.as_json(),
        "publish": sum(timing.seconds for timing in summary.timings if timing.step == "publish"),
        "move": moved[0],
    }


def roll_back_once(bench: Bench, name: str) -> dict[str, float]:
    """Roll back and resume in this process and return the seconds of each."""
    from tasks.rollback import resume, rollback

    began = time.perf_counter()
    rollback(bench.url, name)
    between = time.perf_counter()
    resume(bench.url, name)
    return {"rollback": between - began, "resume": time.perf_counter() - between}


def _timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            seconds[0] += time.perf_counter() - began

    return timed


def main() -> None:
    """Run once, or go back once, on the bench that this process was started on, and tell what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rollback", action="store_true")
    asked = parser.parse_args()
    bench = current()
    load_libraries(*OWN_LIBRARIES)
    tell(roll_back_once(bench, asked.name) if asked.rollback else score_once(bench, asked.name, full=asked.full))


if __name__ == "__main__":
    main()
