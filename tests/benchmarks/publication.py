"""What publishing costs, and what readers notice of it: stalls beside full and incremental runs, rollback, clearing.

    uv run python -m tests.benchmarks.publication --rows 300000

Eight readers, each a process with a connection of its own, look entities up as fast as they can, half of them with a
prepared statement. They are timed while nothing else happens (`before`), while a run scores (`scoring`: it competes for the
cores), while head moves and a quarter of a second on each side (`moving`), while what was retired is cleared (`clearing`)
and around a rollback. A stall is the time of one lookup. The server is the embedded one, with the settings that users get,
in a folder of its own that is removed at the end.

Rolling back and clearing are timed once more with nobody reading, on storages filled with --held rows by SQL: neither
depends on how rows came there. `deleted` is clearing while a reader holds an older snapshot, so that nothing may be
truncated; `vacuumed` is what is left to do when that reader has gone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2

from tasks import embedded, migrations, publishing, storages
from tasks.pipeline import load_pipeline
from tasks.population import Mode
from tasks.readers import Objects
from tasks.rollback import resume, rollback
from tasks.runs import Status, Trigger, open_run
from tasks.settings import Settings
from tests.conftest import psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

#: Seconds around the move of head that count as it: a lookup that waits for it may begin before and end after.
AROUND = 0.25
LOOKUP = "SELECT p, label, state FROM predictions.items WHERE id = {}"


@dataclass(frozen=True, kw_only=True)
class Stalls:
    """What lookups took that overlap a kind of window, in milliseconds."""

    lookups: int
    p50: float
    p99: float
    longest: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured; seconds unless it says otherwise."""

    rows: int
    readers: int
    #: Window (before, scoring, moving, clearing, rollback) -> what lookups took.
    stalls: dict[str, Stalls]
    #: Lookups that raised, and that found no row or more than one.
    errors: int
    wrong: int
    #: Medians of the transaction that moves head, beside the readers: by mode of the run.
    move: dict[str, float]
    #: Rows in each storage when what follows was timed, with nobody reading.
    held_rows: int
    rollback: float
    truncated: float
    deleted: float
    vacuumed: float

    def lines(self) -> list[str]:
        """Return the figures as a person reads them."""
        heading = f"{'lookups':<12}{'number':>10}{'p50 ms':>10}{'p99 ms':>10}{'longest ms':>12}{'p99 / before':>14}"
        before = self.stalls["before"].p99
        table = [
            f"{name:<12}{s.lookups:>10,}{s.p50:>10.2f}{s.p99:>10.2f}{s.longest:>12.1f}{s.p99 / before:>14.2f}"
            for name, s in self.stalls.items()
        ]
        moves = ", ".join(f"{1000 * seconds:.0f} ms ({mode})" for mode, seconds in self.move.items())
        return [
            f"{self.rows:,} rows, {self.readers} readers: {self.errors} errors, {self.wrong} lookups without exactly one row",
            heading,
            *table,
            f"moving head: {moves}",
            f"{self.held_rows:,} rows held: rollback {self.rollback:.3f} s, cleared by truncating {self.truncated:.3f} s, "
            f"by deleting {self.deleted:.2f} s, vacuumed {self.vacuumed:.2f} s",
        ]


@dataclass(kw_only=True)
class Windows:
    """From when until when something went on, by the monotonic clock that all processes share."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, begun: float, ended: float, around: float = 0.0) -> None:
        """Remember one span."""
        self.spans.setdefault(name, []).append((begun - around, ended + around))

    def stalls(self, begun: np.ndarray[Any, Any], taken: np.ndarray[Any, Any]) -> dict[str, Stalls]:
        """Return what the lookups took that overlap each window."""
        found = {}
        for name, spans in self.spans.items():
            within = np.zeros(len(begun), dtype=bool)
            for start, end in spans:
                within |= (begun < end) & (begun + taken > start)
            if within.any():
                chosen = 1000 * taken[within]
                p50, p99 = np.percentile(chosen, [50, 99])
                found[name] = Stalls(lookups=len(chosen), p50=float(p50), p99=float(p99), longest=float(chosen.max()))
        return found


def measure(
    rows: int, *, held_rows: int | None = None, readers: int = 8, seconds: float = 5.0, runs: int = 3
) -> Figures:
    """Publish beside readers, then roll back and clear without them; return what was measured."""
    with _world(rows) as world:
        windows, moves = Windows(), {mode.value: list[float]() for mode in Mode}
        with _reading(world, rows, readers) as found, _scoring(world) as pool:
            time.sleep(1.0)  # readers make their plans
            begun = time.monotonic()
            time.sleep(seconds)
            windows.add("before", begun, time.monotonic())
            for _ in range(runs):
                _run(world, rows, pool, windows, moves)
            begun = time.monotonic()
            rollback(world.url, "items")
            windows.add("rollback", begun, time.monotonic(), AROUND)
            resume(world.url, "items")
        begun_at, taken, errors, wrong = found.read()
        world.score(full=True)
        held = _hold(world, held_rows or rows)
        cleared = _clear(world)
        started = time.monotonic()
        rollback(world.url, "items")
        rolled_back = time.monotonic() - started
        return Figures(
            rows=rows,
            readers=readers,
            stalls=windows.stalls(begun_at, taken),
            errors=errors,
            wrong=wrong,
            move={mode: statistics.median(taken) for mode, taken in moves.items()},
            held_rows=held,
            rollback=rolled_back,
            **cleared,
        )


def _run(world: World, rows: int, pool: ProcessPoolExecutor, windows: Windows, moves: dict[str, list[float]]) -> None:
    """Publish everything, then one row of a hundred again."""
    for mode in Mode:
        if mode is Mode.INCREMENTAL:
            world.execute(f"UPDATE public.items SET updated_at = now() WHERE id % 100 = 0 AND id <= {rows}")
        started = time.monotonic()
        spans = pool.submit(_score, world, mode is Mode.FULL).result()
        moving, clearing = spans["publish"], spans["tidy"]
        windows.add("scoring", started, moving[0])
        windows.add("moving", *moving, AROUND)
        windows.add("clearing", *clearing)
        moves[mode.value].append(moving[1] - moving[0])


def _score(world: World, full: bool) -> dict[str, tuple[float, float]]:
    """Score in a process of its own; return when head was moved, and when the retired storage was cleared."""
    spans: dict[str, tuple[float, float]] = {}
    originals = {"publish": publishing.publish, "tidy": storages.tidy}

    def timed(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            begun = time.monotonic()
            try:
                return originals[name](*arguments, **options)
            finally:
                spans[name] = (begun, time.monotonic())

        return call

    try:
        publishing.publish, storages.tidy = timed("publish"), timed("tidy")
        summary = world.score(full=full)
    finally:
        publishing.publish, storages.tidy = originals["publish"], originals["tidy"]
    if summary.status != Status.PUBLISHED:
        raise SystemExit(summary.message)
    return spans


@contextmanager
def _world(rows: int) -> Iterator[World]:
    """A database with one publication of a seeded table."""
    base = Path("/var/lib") if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="prescore-bench-", dir=base))
    folder.chmod(0o755)
    try:
        url = embedded.ensure_running(folder / "data")
        migrations.apply(url)
        world = make_world(url, folder / "pipelines", rows=rows)
        world = World(url=url, settings=Settings(database_url=url, pipelines_dir=folder / "pipelines", data_dir=folder))
        make_model(world, make_pipeline(world, toml=PIPELINE_TOML))
        world.score(full=True)
        yield world
    finally:
        embedded.stop(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _scoring(world: World) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(_score, world, False).result()  # imports everything, and is not counted
        yield pool


class _Found:
    """What the readers wrote down."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: list[np.ndarray[Any, Any]] = []
        self._errors = self._wrong = 0

    def collect(self) -> None:
        """Read the files of the readers that have ended."""
        for path in self._folder.glob("*.npz"):
            with np.load(path) as kept:
                self._read.append(np.stack([kept["begun"], kept["taken"]]))
                self._errors += int(kept["errors"])
                self._wrong += int(kept["wrong"])

    def read(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int, int]:
        """Return when lookups began, what they took, how many raised, how many found other than one row."""
        begun, taken = np.concatenate(self._read, axis=1)
        return begun, taken, self._errors, self._wrong


@contextmanager
def _reading(world: World, rows: int, readers: int) -> Iterator[_Found]:
    """Let readers read all the while."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with tempfile.TemporaryDirectory() as folder:
        found = _Found(Path(folder))
        processes = [
            context.Process(target=_read_on, args=(psql_url(world.url), rows, number, folder, stop))
            for number in range(readers)
        ]
        for process in processes:
            process.start()
        try:
            yield found
        finally:
            stop.set()
            for process in processes:
                process.join()
        found.collect()


def _read_on(url: str, rows: int, number: int, folder: str, stop: Event) -> None:
    """Look entities up until told to stop; every second reader prepares its statement."""
    draw, begun, taken, errors, wrong = random.Random(number), array("d"), array("d"), 0, 0
    connection = psycopg2.connect(url)
    connection.autocommit = True
    cursor = connection.cursor()
    statement = LOOKUP
    if number % 2:
        cursor.execute(f"PREPARE look (bigint) AS {LOOKUP.format('$1')}")
        statement = "EXECUTE look ({})"
    while not stop.is_set():
        text = statement.format(draw.randint(1, rows))
        at = time.monotonic()
        try:
            cursor.execute(text)
            wrong += len(cursor.fetchall()) != 1
        except psycopg2.Error:
            errors += 1
            if connection.closed:
                break
        begun.append(at)
        taken.append(time.monotonic() - at)
    with suppress(psycopg2.Error):
        connection.close()
    np.savez(Path(folder, f"{number}.npz"), begun=begun, taken=taken, errors=errors, wrong=wrong)


def _hold(world: World, rows: int) -> int:
    """Fill the storages that head and a rollback name up to so many rows, and return how many they hold."""
    storages = dict(world.rows("SELECT role, storage_id FROM prescore.storages WHERE pipeline = 'items'"))
    for role in ("current", "previous"):
        _fill(world, storages["current"], storages[role], rows)
    world.execute("CHECKPOINT")
    return rows


def _fill(world: World, source: int, target: int, rows: int) -> None:
    """Copy rows from one storage into another, under keys that are not there yet."""
    (last,) = world.rows(f"SELECT coalesce(max(id), 0) FROM prescore_rows.items_{target}")[0]
    world.execute(
        f"INSERT INTO prescore_rows.items_{target} (id, as_of, scored_in, p, label) "
        f"SELECT x, s.as_of, s.scored_in, random(), x % 2 FROM generate_series({last} + 1, {rows}) AS x, "
        f"(SELECT as_of, scored_in FROM prescore_rows.items_{source} LIMIT 1) AS s"
    )


def _clear(world: World) -> dict[str, float]:
    """Time the ways to clear the next storage: at once, and row by row while an older snapshot is there."""
    pipeline = load_pipeline(world.settings.pipelines_dir / "items")
    contract = world.contract(pipeline)
    objects = Objects(pipeline="items", key=contract.key, outputs=(), indexed=("p",))
    in_role = dict(world.rows("SELECT role, storage_id FROM prescore.storages WHERE pipeline = 'items'"))
    (rows,) = world.rows(f"SELECT count(*) FROM prescore_rows.items_{in_role['current']}")[0]
    found = {}
    options = {"trigger": Trigger.MANUAL, "mode": Mode.FULL, "as_of": None}
    for name in ("deleted", "truncated"):
        _fill(world, in_role["current"], in_role["next"], rows)
        world.execute(
            "UPDATE prescore.storages SET retired_xid = pg_current_xact_id() WHERE pipeline = 'items' AND role = 'next'"
        )
        old = psycopg2.connect(psql_url(world.url))
        if name == "deleted":
            with old.cursor() as cursor:
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
            # As old as a storage that head left after this reader looked.
            world.execute(
                "UPDATE prescore.storages SET retired_xid = pg_current_xact_id() WHERE pipeline = 'items' AND role = 'next'"
            )
        with open_run(world.url, pipeline, **options) as run:  # type: ignore[arg-type]
            begun = time.monotonic()
            storages.clear_next_storage(run, objects)
            found[name] = time.monotonic() - begun
            run.end(Status.CANCELLED, "a benchmark")
        old.close()
        if name == "deleted":
            connection = psycopg2.connect(psql_url(world.url))
            connection.autocommit = True
            begun = time.monotonic()
            with connection.cursor() as cursor:
                cursor.execute(f"VACUUM (TRUNCATE false) prescore_rows.items_{in_role['next']}")
            found["vacuumed"] = time.monotonic() - begun
            connection.close()
    return found


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument(
        "--held", type=int, help="rows per storage for rollback and clearing; as many as --rows otherwise"
    )
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5, help="of reading before anything is published")
    parser.add_argument("--runs", type=int, default=3, help="full and incremental runs, of each so many")
    asked = parser.parse_args()
    found = measure(asked.rows, held_rows=asked.held, readers=asked.readers, seconds=asked.seconds, runs=asked.runs)
    sys.stdout.write("\n".join(found.lines()) + "\n")


if __name__ == "__main__":
    main()
