"""What is served is not read to know what is due, as long as nobody else writes there; whoever does is noticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest

from flows.score import RunSummary
from tasks import population
from tasks.database import connect, load_query, raw_execute
from tasks.pipeline import load_pipeline
from tasks.population import Mode
from tasks.rollback import resume, rollback
from tasks.runs import Status
from tests.conftest import psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TOML = PIPELINE_TOML.replace('changes = "changes.sql"', 'changes = "changes.sql"\nvalid_for = "1d"')
ROWS = "prescore_rows.items"
KNOWN = "SELECT oldest_as_of, rejected FROM prescore.storages WHERE role = 'current'"
NOTED = "SELECT count(*) FROM prescore.foreign_writes"
TRIGGER = "prescore_foreign_write"


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    """Two hundred items, published at noon."""
    world = make_world(database_url, tmp_path, rows=200)
    world.set_clock(NOON)
    make_model(world, make_pipeline(world, toml=TOML), train_data_until=NOON)
    world.execute(f"UPDATE public.items SET updated_at = '{NOON - MINUTE}'")
    assert world.score().status is Status.PUBLISHED
    return world


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that find out who needs a prediction, by the names of their files."""
    names: list[str] = []

    def load(name: str, fragments: dict[str, str] | None = None) -> str:
        names.append(name)
        return load_query(name, fragments)

    monkeypatch.setattr(population, "load_query", load)
    return names


def by_itself(world: World, statement: str) -> None:
    """Run SQL as prescore does, which no storage notes as somebody else's."""
    with connect(world.url) as connection:
        raw_execute(connection, statement)
        connection.commit()


def served(world: World) -> str:
    """The storage that head names."""
    (number,) = world.rows("SELECT storage_id FROM prescore.storages WHERE role = 'current'")[0]
    return f"{ROWS}_{number}"


def publish(world: World, later: timedelta, *, full: bool = False) -> RunSummary:
    """Score so long after noon."""
    world.set_clock(NOON + later)
    summary = world.score(full=full)
    assert summary.status is Status.PUBLISHED
    assert summary.mode is (Mode.FULL if full else Mode.INCREMENTAL)
    assert world.rows("SELECT count(*), count(p), count(DISTINCT id) FROM predictions.items") == [(200, 200, 200)]
    return summary


def test_what_is_served_is_read_only_when_something_of_it_can_be_due(world: World, asked: list[str]) -> None:
    assert world.rows(KNOWN) == [(NOON, 0)]
    world.execute(f"UPDATE public.items SET a = 1, updated_at = '{NOON + MINUTE}' WHERE id <= 3")

    summary = publish(world, 5 * MINUTE)

    assert (summary.changed, summary.due, summary.unchanged) == (3, 0, 197)
    assert "count_served" not in asked
    assert "summarise_population" not in asked
    assert world.rows(KNOWN) == [(NOON, 0)]
    # A day later 197 rows are a day old; three are not.
    asked.clear()
    summary = publish(world, timedelta(days=1) + MINUTE, full=True)
    assert (summary.due, "count_served" in asked) == (197, True)
    assert world.rows(KNOWN) == [(NOON + timedelta(days=1) + MINUTE, 0)]


def test_after_keys_were_compared_as_much_is_known_as_before(world: World, asked: list[str]) -> None:
    world.execute(
        "DELETE FROM public.items WHERE id = 7; INSERT INTO public.items VALUES (900, 1, 1, 'x', '2020-01-01')"
    )
    compared = publish(world, 5 * MINUTE)
    assert (compared.new, compared.gone, "summarise_population" in asked) == (1, 1, True)

    assert world.rows(KNOWN) == [(NOON, 0)]
    publish(world, 6 * MINUTE)
    assert "count_served" not in asked


def test_rows_that_grow_old_a_few_at_a_time_are_found_when_they_do(world: World, asked: list[str]) -> None:
    world.execute(f"UPDATE public.items SET updated_at = '{NOON + MINUTE}' WHERE id > 20")
    publish(world, 30 * MINUTE, full=True)
    by_itself(
        world,
        "UPDATE prescore_rows.items SET as_of = as_of - interval '20 minutes' WHERE id <= 20; "
        "UPDATE prescore.storages SET oldest_as_of = NULL",
    )

    asked.clear()
    first = publish(world, 40 * MINUTE)  # it counts, and knows from then on
    known = world.rows(KNOWN)
    second = publish(world, 41 * MINUTE)
    third = publish(world, timedelta(days=1) + 5 * MINUTE)
    due = publish(world, timedelta(days=1) + 15 * MINUTE)
    after = publish(world, timedelta(days=1) + 16 * MINUTE)

    assert (first.due, second.due, third.due, due.due, after.due) == (0, 0, 0, 20, 0)
    assert [name for name in asked if name in {"summarise_population", "count_served"}] == ["count_served"] * 2
    assert known == [(NOON + 10 * MINUTE, 0)]
    assert world.rows(KNOWN) == [(NOON + 30 * MINUTE, 0)]


def test_rejected_rows_are_counted_until_they_are_scored(world: World, asked: list[str]) -> None:
    features = world.settings.pipelines_dir / "items" / "features.sql"
    text = features.read_text(encoding="utf-8").rstrip().rstrip(";")
    features.write_text(f"SELECT * FROM ({text}) AS f WHERE f.c IS DISTINCT FROM 'hidden'", encoding="utf-8")
    make_model(world, load_pipeline(features.parent), train_data_until=NOON)
    publish(world, MINUTE, full=True)
    hide = f"UPDATE public.items SET c = 'hidden', updated_at = '{NOON + 2 * MINUTE}' WHERE id = 1"
    world.execute(hide)

    found = []
    for minute in (5, 6, 7, 8):
        if minute == 7:  # unnoticed by changes.sql
            world.execute("UPDATE public.items SET c = 'x' WHERE id = 1")
        asked.clear()
        world.set_clock(NOON + minute * MINUTE)
        run = world.score()
        assert (run.status, run.mode) == (Status.PUBLISHED, Mode.INCREMENTAL)
        found.append((run.changed, run.due, run.rejected, "count_served" in asked, world.rows(KNOWN)[0][1]))
    world.execute(hide)
    world.set_clock(NOON + 9 * MINUTE)
    world.score(full=True)

    assert found == [(1, 0, 1, False, 1), (0, 1, 1, True, 1), (0, 1, 0, True, 0), (0, 0, 0, False, 0)]
    assert world.rows(KNOWN) == [(NOON + 9 * MINUTE, 1)]


def test_what_somebody_else_did_to_what_is_served_is_mended_by_the_next_run(world: World, asked: list[str]) -> None:
    statements = [
        "DELETE FROM prescore_rows.items WHERE id = 7 AND storage_id = {number}",
        "DELETE FROM {storage} WHERE id = 7",
        "TRUNCATE {storage}",
        # As many rows as before, and not those: a count does not show it.
        "UPDATE {storage} SET id = -7 WHERE id = 7",
        "COPY {storage} (id, as_of, scored_in) FROM PROGRAM 'echo 900,2026-03-01,1' WITH (FORMAT csv)",
        "MERGE INTO {storage} AS r USING (SELECT 7 AS id) AS x ON r.id = x.id WHEN MATCHED THEN DELETE",
    ]
    for at, statement in enumerate(statements, 1):
        world.execute(statement.format(storage=served(world), number=served(world)[-1]))

        world.set_clock(NOON + at * MINUTE)
        mended = world.score()

        assert (mended.status, mended.mode, mended.because) == (Status.PUBLISHED, Mode.FULL, population.FOREIGN), (
            statement
        )
        assert world.rows("SELECT count(*), count(p), min(id), max(id) FROM predictions.items") == [(200, 200, 1, 200)]
    asked.clear()
    publish(world, 30 * MINUTE)
    assert "summarise_population" not in asked


def test_a_transaction_that_ends_after_a_run_has_looked_is_noticed_by_the_next(world: World) -> None:
    world.execute(f"UPDATE public.items SET a = 1, updated_at = '{NOON + MINUTE}' WHERE id <= 3")
    other = psycopg2.connect(psql_url(world.url))
    with other.cursor() as cursor:
        cursor.execute(f"UPDATE {served(world)} SET p = 0.125 WHERE id = 7")
    publish(world, 5 * MINUTE)
    other.commit()
    other.close()
    assert world.rows("SELECT p FROM predictions.items WHERE id = 7") == [(0.125,)]

    world.set_clock(NOON + 6 * MINUTE)
    mended = world.score()

    assert (mended.mode, mended.because) == (Mode.FULL, population.FOREIGN)
    assert world.rows("SELECT p = 0.125 FROM predictions.items WHERE id = 7") == [(False,)]


def test_a_storage_that_is_not_watched_is_counted_and_watched_again(world: World, asked: list[str]) -> None:
    world.execute(f"ALTER TABLE {served(world)} DISABLE TRIGGER {TRIGGER}")
    world.execute(f"DELETE FROM {served(world)} WHERE id = 7")
    assert world.rows(NOTED) == [(0,)]
    world.set_clock(NOON + 5 * MINUTE)

    mended = world.score()

    assert (mended.mode, mended.because, mended.new) == (Mode.FULL, population.FOREIGN, 1)
    world.execute(f"DROP TRIGGER {TRIGGER} ON {served(world)}")
    asked.clear()
    publish(world, 6 * MINUTE)
    publish(world, 7 * MINUTE)
    assert asked.count("count_served") == 2  # somebody may have written while the first of them began to watch
    asked.clear()
    publish(world, 8 * MINUTE)
    assert "count_served" not in asked
    enabled = world.rows(f"SELECT count(*) FROM pg_trigger WHERE tgname = '{TRIGGER}' AND tgenabled = 'O'")
    assert enabled == [(4,)]


def test_a_full_run_forgets_what_was_written_into_storages_that_it_empties(world: World) -> None:
    world.execute("INSERT INTO prescore_rows.items_1 (id, as_of, scored_in) VALUES (-1, now(), 1)")
    world.execute("INSERT INTO prescore_rows.items_2 (id, as_of, scored_in) VALUES (-1, now(), 1)")
    world.execute("INSERT INTO prescore_rows.items_3 (id, as_of, scored_in) VALUES (-1, now(), 1)")
    assert world.rows(NOTED) == [(3,)]
    for minute in range(1, 4):
        publish(world, minute * MINUTE, full=True)
    assert world.rows(NOTED) == [(0,)]


def test_whoever_may_write_rows_can_although_prescore_is_closed_to_them(world: World) -> None:
    role = "prescore_test_foreigner"
    world.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role}")
    world.execute(
        f"GRANT USAGE ON SCHEMA prescore_rows TO {role}; GRANT SELECT, DELETE ON prescore_rows.items TO {role}"
    )
    try:
        world.execute(f"SET LOCAL ROLE {role}; DELETE FROM prescore_rows.items WHERE id = 7")
        assert world.rows("SELECT DISTINCT written_by = session_user FROM prescore.foreign_writes") == [(True,)]
        world.set_clock(NOON + 5 * MINUTE)
        assert world.score().because == population.FOREIGN
    finally:
        world.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_rollback_goes_back_to_what_is_known_of_the_storage_before(world: World, asked: list[str]) -> None:
    publish(world, 5 * MINUTE, full=True)
    rollback(world.url, "items")
    resume(world.url, "items")
    assert world.rows(KNOWN) == [(NOON, 0)]
    asked.clear()

    publish(world, 6 * MINUTE)

    assert "count_served" not in asked
