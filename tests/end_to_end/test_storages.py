"""The three storages of a pipeline: what is in them between runs, who waits for whom, and what is cleaned up when."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from flows import score as flow
from tasks import publishing, space
from tasks.columns import Column
from tasks.findings import Disposition
from tasks.population import Mode
from tasks.readers import Objects
from tasks.runs import Status
from tests.disturbances import wait_until
from tests.factories import World, make_model, make_pipeline, make_world

ROWS = 400


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    """Items, published once."""
    world = make_world(database_url, tmp_path, rows=ROWS)
    make_model(world, make_pipeline(world))
    assert world.score().status is Status.PUBLISHED
    return world


def _storage(world: World, role: str) -> int:
    found: int = world.rows(f"SELECT storage_id FROM prescore.storages WHERE role = '{role}'")[0][0]
    return found


def _indexes(world: World, storage_id: int) -> list[str]:
    listed = f"SELECT indexname FROM pg_indexes WHERE tablename = 'items_{storage_id}' ORDER BY 1"
    return [name for (name,) in world.rows(listed)]


def _bytes(world: World, storage_id: int) -> int:
    found: int = world.rows(f"SELECT pg_relation_size('prescore_rows.items_{storage_id}')")[0][0]
    return found


@contextmanager
def _transaction(world: World, begin: str = "BEGIN") -> Iterator[Any]:
    with closing(psycopg2.connect(world.url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(begin)
            yield cursor


def _full(world: World) -> None:
    summary = world.score(full=True)
    assert (summary.status, summary.mode) == (Status.PUBLISHED, Mode.FULL)


def test_a_storage_has_its_output_index_when_it_is_served_and_none_while_it_is_filled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import storages

    while_filled: list[list[str]] = []
    finish = storages.finish_storage

    def look(run: Any, objects: Any, storage_id: int, written: int) -> None:
        while_filled.append(_indexes(world, storage_id))
        finish(run, objects, storage_id, written)

    monkeypatch.setattr(storages, "finish_storage", look)
    monkeypatch.setattr(storages, "UNINDEXED_FROM", ROWS)
    for _ in range(4):
        _full(world)
        served, previous, cleared = (_storage(world, role) for role in ("current", "previous", "next"))
        assert _indexes(world, served) == [f"items_{served}_by_p", f"items_{served}_pkey"]
        assert _indexes(world, previous) == [f"items_{previous}_by_p", f"items_{previous}_pkey"]
        assert _indexes(world, cleared) == [f"items_{cleared}_by_p", f"items_{cleared}_pkey"]
        assert _bytes(world, cleared) == 0
        options = f"SELECT reloptions FROM pg_class WHERE oid = 'prescore_rows.items_{served}'::regclass"
        assert world.rows(options) == [(None,)]
    assert [len(names) for names in while_filled] == [1, 1, 1, 1]


def test_an_old_snapshot_keeps_its_rows_and_what_it_left_behind_is_truncated_when_it_has_gone(world: World) -> None:
    with _transaction(world, "BEGIN ISOLATION LEVEL REPEATABLE READ") as reader:
        reader.execute("SELECT count(*), max(scored_in) FROM predictions.items")
        seen = reader.fetchall()
        _full(world)
        _full(world)
        cleared = _storage(world, "next")
        # Nobody else sees a row of it, and the reader sees all of them.
        assert world.rows(f"SELECT count(*) FROM prescore_rows.items_{cleared}") == [(0,)]
        assert _bytes(world, cleared) > 0
        reader.execute("SELECT count(*), max(scored_in) FROM predictions.items")
        assert reader.fetchall() == seen
    assert world.score().mode is Mode.INCREMENTAL
    assert _bytes(world, _storage(world, "next")) == 0
    _full(world)
    assert world.rows("SELECT count(*) FROM predictions.items") == [(ROWS,)]


def test_rows_that_a_run_has_deleted_from_a_storage_are_vacuumed_before_it_ends(world: World) -> None:
    """The snapshot of the run itself would keep them, and the next run would load behind them."""
    with _transaction(world) as reader:
        # It reads no rows any more, but holds the lock of every storage: nothing can be truncated.
        reader.execute("SELECT count(*) FROM predictions.items")
        _full(world)
        _full(world)
        cleared = _storage(world, "next")
        size = _bytes(world, cleared)
        assert size > 0
        _full(world)
        assert _bytes(world, cleared) <= size
        assert _storage(world, "current") == cleared


def test_samples_of_a_run_that_did_not_publish_are_never_read_and_go_with_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = "SELECT count(*), count(DISTINCT generation_id) FROM prescore.prediction_samples"
    assert world.rows(kept) == [(ROWS, 1)]

    def fail(*_: Any) -> None:
        raise RuntimeError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(publishing, "publish", fail)
        with pytest.raises(RuntimeError):
            world.score(full=True)
    read = kept.replace("samples", "samples JOIN prescore.generations USING (generation_id)")
    assert world.rows(kept) == [(2 * ROWS, 2)]
    assert world.rows(read) == [(ROWS, 1)]

    _full(world)

    assert world.rows(kept) == world.rows(read) == [(2 * ROWS, 2)]


def test_the_choice_of_samples_ends_with_a_run_that_does_not_get_so_far(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = "SELECT count(*), count(DISTINCT generation_id) FROM prescore.prediction_samples"

    def fail(*_: Any) -> None:
        raise RuntimeError("the power went")

    monkeypatch.setattr(flow, "check_promise", fail)
    with _transaction(world) as other:
        # The choice waits: its run must end it, not wait for it.
        other.execute("LOCK TABLE prescore.prediction_samples IN SHARE MODE")
        with pytest.raises(RuntimeError):
            world.score(full=True)
    assert world.rows(kept) == [(ROWS, 1)]
    at_work = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'prescore samples'"
    )
    wait_until(world, f"SELECT 1 WHERE NOT EXISTS ({at_work})")


def test_a_held_run_leaves_its_storage_empty_and_nobody_who_still_looks_at_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = flow.judge

    def hold_what_was_scored(run: Any, evidence: Any, findings: Any) -> Any:
        judged = judge(run, evidence, findings)
        if evidence.tally is None:
            return judged
        return replace(judged, disposition=Disposition.HOLD)

    monkeypatch.setattr(flow, "judge", hold_what_was_scored)
    assert world.score(full=True).status is Status.HELD
    assert _bytes(world, _storage(world, "next")) == 0
    assert world.rows("SELECT count(DISTINCT generation_id) FROM prescore.prediction_samples") == [(1,)]


def test_an_index_that_storages_shared_becomes_one_of_each_as_soon_as_readers_let_go(world: World) -> None:
    for storage_id in (1, 2, 3):
        world.execute(f"DROP INDEX IF EXISTS prescore_rows.items_{storage_id}_by_p")
    world.execute("CREATE INDEX items_p_idx ON prescore_rows.items (p) WHERE rejected IS NULL")
    shared = "SELECT count(*) FROM pg_class WHERE relname = 'items_p_idx'"
    with _transaction(world) as reader:
        reader.execute("SELECT count(*) FROM predictions.items")
        _full(world)
        assert world.rows(shared) == [(1,)]
    _full(world)
    assert world.rows(shared) == [(0,)]
    for role in ("current", "previous"):
        assert f"items_{_storage(world, role)}_by_p" in _indexes(world, _storage(world, role))


@pytest.mark.slow
def test_a_hundred_incremental_runs_bloat_neither_rows_nor_indexes(world: World) -> None:
    _full(world)
    served = _storage(world, "current")
    world.execute(f"ALTER TABLE prescore_rows.items_{served} SET (autovacuum_enabled = off)")
    world.execute(f"UPDATE public.items SET updated_at = now() WHERE id % 10 = 0 AND id <= {ROWS}")
    sizes = f"SELECT pg_relation_size('prescore_rows.items_{served}'), pg_indexes_size('prescore_rows.items_{served}')"
    before = world.rows(sizes)[0]
    for turn in range(100):
        world.execute(f"UPDATE public.items SET updated_at = now() WHERE id % 20 = {turn % 20}")
        assert world.score().mode is Mode.INCREMENTAL
    after = world.rows(sizes)[0]
    assert _storage(world, "current") == served
    assert after[0] <= 1.5 * before[0] + 8192
    assert after[1] <= 2 * before[1]


def _finding(world: World, check_id: str) -> dict[str, Any]:
    columns = "verdict, reason, observed, fail_limit"
    found: dict[str, Any] = world.one(
        f"SELECT {columns} FROM prescore.checks WHERE check_id = '{check_id}' AND run_id = (SELECT max(run_id) FROM prescore.runs)"
    )
    return found


def test_a_run_that_would_fill_the_disk_is_held_with_the_figures_before_it_writes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _finding(world, "storage.space")
    assert first["verdict"] == "pass"
    assert "400 rows" in first["reason"]
    assert "reckoned from the column types" in first["reason"]
    cleared = _storage(world, "next")
    monkeypatch.setattr(space, "free_at", lambda _: space.SPARE_BYTES)

    held = world.score(full=True)

    assert held.status is Status.HELD
    found = _finding(world, "storage.space")
    assert (found["verdict"], found["observed"]) == ("fail", float(space.SPARE_BYTES))
    assert found["fail_limit"] > found["observed"]
    assert "as served now" in found["reason"]
    assert "268 MB are free" in found["reason"]
    assert "Free disk space of the database server" in held.message
    assert _bytes(world, cleared) == 0
    assert world.rows("SELECT count(*) FROM predictions.items") == [(ROWS,)]

    monkeypatch.undo()
    _full(world)


def test_what_is_free_on_a_server_elsewhere_is_not_guessed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "_is_here", lambda _: False)
    _full(world)
    found = _finding(world, "storage.space")
    assert found["verdict"] == "skipped"
    assert found["reason"].endswith("what is free is not known: the server runs on another machine")


def test_what_a_row_takes_is_reckoned_about_right_before_there_is_one(world: World) -> None:
    world.execute(
        "INSERT INTO public.items SELECT x, sin(x), cos(x), 'x', now() FROM generate_series(1001, 21000) AS x"
    )
    _full(world)
    _full(world)
    served = _storage(world, "current")
    taken, rows = world.rows(
        f"SELECT pg_total_relation_size('prescore_rows.items_{served}'), count(*) FROM prescore_rows.items_{served}"
    )[0]
    key = (Column(name="id", postgres_type="bigint"),)
    outputs = (Column(name="p", postgres_type="double precision"), Column(name="label", postgres_type="bigint"))
    objects = Objects(pipeline="items", key=key, outputs=outputs, indexed=("p",))
    assert 0.8 < space.width_of((*key, *outputs), objects) * rows / taken < 1.6
    assert _finding(world, "storage.bloat")["observed"] == pytest.approx(1.0, abs=0.3)
