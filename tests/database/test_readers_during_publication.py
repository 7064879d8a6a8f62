"""Readers of every kind, reading all the time while publications replace every row under them.

Each publication writes one constant into all rows, and has one row more or fewer than the one before: a reader who saw
two of them, or a part of one, would show it.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pandas as pd
import psycopg2
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline as chain
from sklearn.tree import DecisionTreeClassifier

from tasks import population
from tasks.population import Mode
from tasks.runs import Status
from tests.conftest import execute
from tests.factories import World, make_model, make_pipeline, make_world

ROWS = 300
#: Seconds between two looks of a reader, so that sixteen of them leave the two cores of a small machine some room.
PAUSE = 0.02
#: A key that only every other publication has.
EXTRA = 1_000_000

TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.items"
[features]
query = "features.sql"
changes = "changes.sql"
[predictions]
label = { method = "predict", index = true }
"""

# Everything that a reader can ask, in one statement: all answers have to come from one publication.
WHOLE = """
SELECT w.*,
       (SELECT label FROM predictions.items WHERE id = {key}) AS one,
       (SELECT label FROM predictions.items_for({key})) AS looked_up,
       (SELECT state FROM predictions.items_for(1000000)) AS extra,
       (SELECT count(*) FROM predictions.items_usable) AS usable,
       (SELECT max(label) FROM (SELECT label FROM predictions.items_usable ORDER BY label DESC LIMIT 5) AS t) AS top
FROM (SELECT count(*) AS rows, min(label) AS lowest, max(label) AS highest, min(scored_in) AS oldest, max(scored_in) AS newest,
             count(*) FILTER (WHERE state NOT IN ('fresh', 'aging')) AS unusable,
             count(*) FILTER (WHERE data_as_of <> as_of) AS strange
      FROM predictions.items) AS w
"""
POINT = "SELECT label, state FROM predictions.items WHERE id = {key}"
LOOKUP = "SELECT label, state FROM predictions.items_for({key})"
STATEMENTS = {"whole": WHOLE, "point": POINT, "lookup": LOOKUP}
TABLES = {
    "whole": "rows bigint, lowest bigint, highest bigint, oldest bigint, newest bigint, unusable bigint, strange bigint, "
    "one bigint, looked_up bigint, extra text, usable bigint, top bigint",
    "point": "label bigint, state text",
    "lookup": "label bigint, state text",
}


def _rows_of(label: int) -> int:
    return ROWS + label % 2


def _label_of(whole: tuple[Any, ...]) -> int:
    """Return which publication an answer shows; fail unless all of it is of that one, and under its own head."""
    rows, lowest, highest, oldest, newest, unusable, strange, one, looked_up, extra, usable, top = whole
    label: int = highest
    expected = (_rows_of(label), label, newest, 0, 0, label, label, _rows_of(label), label)
    assert (rows, lowest, oldest, unusable, strange, one, looked_up, usable, top) == expected
    assert (extra == "missing") == (label % 2 == 0)
    return label


class Reader(ABC, threading.Thread):
    """A client that reads again and again, on one connection, and keeps what it found out."""

    def __init__(self, url: str, *, long: bool, turn: threading.Condition, generic: bool = False) -> None:
        super().__init__(daemon=True)
        #: One transaction from the first read to the last.
        self.long = long
        self.generic = generic
        self.url = url
        self.turn = turn
        self.stopping = threading.Event()
        self.error: BaseException | None = None
        self.seen = 0
        self.labels: set[int] = set()
        self.reads = 0
        self.longest = 0.0
        self.name = "_".join([type(self).__name__, *(["generic"] if generic else []), *(["long"] if long else [])])

    @abstractmethod
    def open(self) -> None:
        """Connect and prepare."""

    @abstractmethod
    def read(self, statement: str, key: int) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect."""

    def run(self) -> None:
        """Read until told to stop; a failure ends it and is told."""
        try:
            self.open()
            steps = random.Random(self.name)
            while not self.stopping.wait(PAUSE):
                self.look(steps.randint(1, ROWS))
            self.close()
        except BaseException as error:
            with self.turn:
                self.error = error
                self.turn.notify_all()

    def look(self, key: int) -> None:
        """Ask each statement once, and hold the answers against what was seen before."""
        (whole,) = self.timed("whole", key)
        self.arrive(_label_of(whole))
        for statement in ("point", "lookup"):
            found = self.timed(statement, key)
            assert len(found) == 1, f"{statement} returned {len(found)} rows"
            label, state = found[0]
            # A check may well flag a column that changes for everybody; it is the same for all of a publication.
            assert state in {"fresh", "aging"}
            self.arrive(label)

    def timed(self, statement: str, key: int) -> list[tuple[Any, ...]]:
        """Read, and remember how long the longest read took."""
        begun = time.perf_counter()
        found = self.read(statement, key)
        self.longest = max(self.longest, time.perf_counter() - begun)
        self.reads += 1
        return found

    def arrive(self, label: int) -> None:
        """Note which publication an answer came from; never an older one than before."""
        assert label >= self.seen, f"publication {label} after {self.seen}"
        self.labels.add(label)
        if label > self.seen:
            with self.turn:
                self.seen = label
                self.turn.notify_all()


class Simple(Reader):
    """Simple query protocol."""

    def open(self) -> None:
        self.connection = psycopg2.connect(self.url, application_name="reader")
        self.connection.autocommit = not self.long
        self.cursor = self.connection.cursor()
        if self.generic:
            self.cursor.execute("SET plan_cache_mode = force_generic_plan")

    def text(self, statement: str, key: int) -> str:
        return STATEMENTS[statement].format(key=key)

    def read(self, statement: str, key: int) -> list[tuple[Any, ...]]:
        self.cursor.execute(self.text(statement, key))
        return list(self.cursor.fetchall())

    def close(self) -> None:
        self.connection.close()


class Executed(Simple):
    """PREPARE and EXECUTE in SQL."""

    def open(self) -> None:
        super().open()
        for name, statement in STATEMENTS.items():
            self.cursor.execute(f"PREPARE {name} (bigint) AS {statement.format(key='$1')}")

    def text(self, statement: str, key: int) -> str:
        return f"EXECUTE {statement} ({key})"


class Stable(Simple):
    """A plpgsql function of the reader's own, declared STABLE."""

    def text(self, statement: str, key: int) -> str:
        return f"SELECT * FROM public.read_{statement}_{type(self).__name__.lower()}({key})"


class Volatile(Stable):
    """A plpgsql function of the reader's own, declared VOLATILE."""


class Prepared(Reader):
    """Prepared through the protocol, as drivers and ORMs do."""

    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        settings = {"application_name": "reader"}
        if self.generic:
            settings["plan_cache_mode"] = "force_generic_plan"
        self.connection = await asyncpg.connect(self.url, server_settings=settings)
        if self.long:
            await self.connection.transaction(isolation="read_committed").start()
        self.prepared = {
            name: await self.connection.prepare(statement.format(key="$1::bigint"))
            for name, statement in STATEMENTS.items()
        }

    def read(self, statement: str, key: int) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.loop.run_until_complete(self.prepared[statement].fetch(key))]

    def close(self) -> None:
        self.loop.run_until_complete(self.connection.close())
        self.loop.close()


class Watch(threading.Thread):
    """Looks for a connection of prescore that waits for a lock of a reader."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.stopping = threading.Event()
        self.looks = 0
        self.waiting: set[str] = set()
        self.attempts = 0

    def run(self) -> None:
        """Look until told to stop. To truncate a storage is tried for 20 ms: that is an attempt, no wait."""
        connection = psycopg2.connect(self.url, application_name="watch")
        connection.autocommit = True
        with connection.cursor() as cursor:
            while not self.stopping.wait(PAUSE):
                cursor.execute(
                    "SELECT l.mode, l.relation::regclass::text FROM pg_catalog.pg_locks AS l "
                    "JOIN pg_catalog.pg_stat_activity AS waiting ON waiting.pid = l.pid "
                    "JOIN pg_catalog.pg_stat_activity AS reader ON reader.pid = ANY (pg_blocking_pids(l.pid)) "
                    "WHERE NOT l.granted AND waiting.datname = current_database() "
                    "AND waiting.application_name LIKE 'prescore%' AND reader.application_name = 'reader'"
                )
                self.looks += 1
                for mode, relation in cursor.fetchall():
                    if mode == "AccessExclusiveLock" and relation.startswith("prescore_rows.items_"):
                        self.attempts += 1
                    else:
                        self.waiting.add(f"{mode} on {relation}")
        connection.close()


@contextmanager
def _transaction(url: str, begin: str = "BEGIN") -> Iterator[Any]:
    connection = psycopg2.connect(url, application_name="reader")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(begin)
            yield cursor
    finally:
        connection.close()


def _take_snapshot(url: str, transactions: ExitStack) -> Any:
    """Begin a REPEATABLE READ transaction that has its snapshot and has not touched the rows."""
    cursor = transactions.enter_context(_transaction(url, "BEGIN ISOLATION LEVEL REPEATABLE READ"))
    _ask(cursor, "SELECT 1")
    return cursor


def _require_snapshot(before: int, cursor: Any) -> None:
    """Require that a snapshot sees the publication that was served when it was taken, then end it."""
    for statement in (POINT, LOOKUP):
        assert _ask(cursor, statement.format(key=ROWS)) in ([(before, "fresh")], [(before, "aging")])
    assert _label_of(_ask(cursor, WHOLE.format(key=1))[0]) == before
    cursor.connection.close()


def _ask(cursor: Any, statement: str) -> list[tuple[Any, ...]]:
    cursor.execute(statement)
    return list(cursor.fetchall())


def _tree(publications: int) -> Any:
    """Return a fit function: the label is the first number, whatever else the row holds."""

    def fit(_: Any, frame: pd.DataFrame) -> Any:
        labels = np.tile(np.arange(publications + 1), 3)
        known = frame.iloc[np.zeros(len(labels), dtype=int)].assign(a=labels.astype(float))
        return chain(ColumnTransformer([("a", "passthrough", ["a"])]), DecisionTreeClassifier()).fit(known, labels)

    return fit


def _publish(world: World, label: int, mode: Mode) -> None:
    """Write a constant into all rows, take away or add one, and publish."""
    world.execute(
        f"UPDATE public.items SET a = {label}, updated_at = clock_timestamp();"
        + (
            f"INSERT INTO public.items VALUES ({EXTRA}, {label}, 0, 'x', clock_timestamp())"
            if label % 2
            else f"DELETE FROM public.items WHERE id = {EXTRA}"
        )
    )
    summary = world.score(full=mode is Mode.FULL)
    assert (summary.status, summary.mode, summary.population) == (Status.PUBLISHED, mode, _rows_of(label))


def _create_functions(world: World) -> None:
    for volatility in ("stable", "volatile"):
        for name, statement in STATEMENTS.items():
            world.execute(
                f"CREATE FUNCTION public.read_{name}_{volatility}(bigint) RETURNS TABLE ({TABLES[name]}) "
                f"LANGUAGE plpgsql {volatility} AS $$ #variable_conflict use_column\n"
                f"BEGIN RETURN QUERY {statement.format(key='$1')}; END $$"
            )


def _everybody_arrives(readers: list[Reader], label: int, turn: threading.Condition) -> None:
    """Wait until every reader has seen a publication, or one of them failed."""
    with turn:
        turn.wait_for(lambda: any(r.error for r in readers) or all(r.seen == label for r in readers), timeout=60)
    failed = [reader for reader in readers if reader.error is not None]
    if failed:
        raise AssertionError(f"{failed[0].name} failed at publication {label}") from failed[0].error
    assert {reader.name: reader.seen for reader in readers} == {reader.name: label for reader in readers}


def _start(url: str, turn: threading.Condition, *, long: bool) -> list[Reader]:
    readers: list[Reader] = [kind(url, long=long, turn=turn) for kind in (Simple, Prepared, Executed, Stable, Volatile)]
    readers += [kind(url, long=long, turn=turn, generic=True) for kind in (Prepared, Executed, Stable)]
    for reader in readers:
        reader.start()
    return readers


def _stop(*threads: Reader | Watch) -> None:
    for thread in threads:
        thread.stopping.set()
    for thread in threads:
        thread.join(timeout=60)


@pytest.fixture
def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Items that all change each time; whoever waits long for a lock fails instead, reader or run."""
    # Only a higher limit lets a run that scores every row stay incremental.
    monkeypatch.setattr(population, "FULL_ABOVE", 10)
    world = make_world(database_url, tmp_path, rows=ROWS)
    # A publication that waits for an open transaction would otherwise wait for ever.
    execute(database_url, f"ALTER DATABASE {database_url.rsplit('/', 1)[1]} SET lock_timeout = '10s'")
    return world


@pytest.mark.parametrize("publications", [12, pytest.param(500, marks=pytest.mark.slow)])
def test_every_kind_of_reader_sees_one_whole_publication_after_the_other(
    world: World, record_property: Any, publications: int
) -> None:
    make_model(world, make_pipeline(world, toml=TOML), fit=_tree(publications))
    steps = random.Random(8)
    modes = [Mode.FULL] + [steps.choice([Mode.FULL, Mode.INCREMENTAL]) for _ in range(publications - 1)]
    _publish(world, 1, Mode.FULL)
    _create_functions(world)
    turn = threading.Condition()
    watch = Watch(world.url)
    watch.start()
    readers = [*_start(world.url, turn, long=False), *_start(world.url, turn, long=True)]
    _everybody_arrives(readers, 1, turn)
    # At first no snapshot is kept, so that runs try to truncate under readers; later some are, and cursors stay open.
    half = publications // 2
    snapshots: list[tuple[int, Any]] = []
    fetched: dict[str, list[tuple[Any, ...]]] = {"plain": [], "ranked": []}
    with ExitStack() as transactions:
        idle = transactions.enter_context(_transaction(world.url))
        assert _label_of(_ask(idle, WHOLE.format(key=1))[0]) == 1
        cursors = transactions.enter_context(_transaction(world.url))
        for label in range(2, publications + 1):
            if label == half:
                cursors.execute("DECLARE plain CURSOR FOR SELECT id, label, scored_in FROM predictions.items")
                cursors.execute(
                    "DECLARE ranked CURSOR FOR SELECT id, label FROM predictions.items_usable ORDER BY label"
                )
            if label >= half:
                snapshots.append((label - 1, _take_snapshot(world.url, transactions)))
            _publish(world, label, modes[label - 1])
            _everybody_arrives(readers, label, turn)
            if label >= half:
                for name, rows in fetched.items():
                    rows.extend(_ask(cursors, f"FETCH 10 FROM {name}"))
            if len(snapshots) > 4:
                _require_snapshot(*snapshots.pop(1))  # the first one is kept to the end

        for before, snapshot in snapshots:
            _require_snapshot(before, snapshot)
        for name, rows in fetched.items():
            rows.extend(_ask(cursors, f"FETCH ALL FROM {name}"))
            assert len({row[0] for row in rows}) == len(rows) == _rows_of(half - 1)
            assert {row[1:] for row in rows} == {(half - 1, *rows[0][2:])}
        assert _label_of(_ask(idle, WHOLE.format(key=1))[0]) == publications

    _stop(*readers, watch)
    assert [reader.error for reader in readers] == [None] * len(readers)
    assert watch.waiting == set()
    slowest = max(readers, key=lambda reader: reader.longest)
    told = (
        f"{publications} publications ({modes.count(Mode.FULL)} full) under {len(readers)} readers: "
        f"{sum(reader.reads for reader in readers):,} reads, longest {slowest.longest * 1000:.0f} ms ({slowest.name}); "
        f"{watch.looks:,} looks at locks, {watch.attempts} met an attempt to truncate"
    )
    record_property("readers", told)
    print(told)


def test_a_snapshot_keeps_its_publication_though_nothing_else_holds_its_storage(world: World) -> None:
    make_model(world, make_pipeline(world, toml=TOML), fit=_tree(10))
    _publish(world, 1, Mode.FULL)
    _create_functions(world)
    turn = threading.Condition()
    readers = _start(world.url, turn, long=False)
    snapshots: list[tuple[int, Any]] = []
    with ExitStack() as transactions:
        for label in range(2, 9):
            # Two full publications later its storage is cleared; three later it is filled again.
            snapshots.append((label - 1, _take_snapshot(world.url, transactions)))
            _publish(world, label, Mode.INCREMENTAL if label == 5 else Mode.FULL)
            _everybody_arrives(readers, label, turn)
            if len(snapshots) > 3:
                _require_snapshot(*snapshots.pop(0))
        for before, snapshot in snapshots:
            _require_snapshot(before, snapshot)
    _stop(*readers)
    assert [reader.error for reader in readers] == [None] * len(readers)
