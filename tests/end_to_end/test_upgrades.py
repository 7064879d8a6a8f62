"""Upgrades: a database of an earlier revision becomes today's beside runs, readers and kill -9, and runs go on in it."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from typer.testing import CliRunner

from flows.cli import app
from tasks import embedded, migrations
from tasks.backfills import Ended, PastOrder, score_past
from tasks.faults import MIGRATION_POINTS
from tasks.migrations import DatabaseAhead, Migrating, Migration, MigrationBlocked, MigrationsPending, RunsInFlight
from tasks.pipeline import load_pipeline
from tasks.population import Mode
from tasks.rollback import rollback
from tasks.runs import Status, Trigger, hold_lock, open_run
from tasks.workers import Place
from tests.conftest import execute, psql_url
from tests.disturbances import Copies, in_transaction, prescore, wait_until
from tests.factories import World, make_model, make_pipeline, make_world

ROWS = 300
NEXT = Migration(name="9998_add_wonders", statements="ALTER TABLE prescore.head ADD COLUMN wonders integer")
# Of this database alone: tests of others run beside.
ADVISORY = (
    "SELECT FROM pg_locks WHERE locktype = 'advisory' "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
ADVISORY_WAIT = f"{ADVISORY} AND NOT granted"
SERVED = "SELECT id, state, p, label, scored_in FROM predictions.items ORDER BY id"


@pytest.fixture(scope="module")
def stage(
    server_url: str, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Copies, str]]:
    """Items, published once and then in part, in a database to copy from."""
    copies = Copies(server_url, tmp_path_factory.mktemp("pipelines"))
    world = copies.of(_name_of(module_database_url), rows=ROWS)
    make_model(world, make_pipeline(world))
    assert world.score().status is Status.PUBLISHED
    world.execute("UPDATE public.items SET b = 0.5, updated_at = statement_timestamp() WHERE id <= 20")
    assert world.score().mode is Mode.INCREMENTAL
    yield copies, copies.close(world)
    copies.drop()


@pytest.fixture
def world(stage: tuple[Copies, str]) -> World:
    """A copy of what was staged."""
    copies, template = stage
    return copies.of(template)


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that turns this process into a prescore with one more migration."""
    shipped = migrations.shipped()
    return lambda: monkeypatch.setattr(migrations, "shipped", lambda: [*shipped, NEXT])


@pytest.fixture
def make_database(server_url: str) -> Iterator[Callable[[], str]]:
    """A function that creates an empty database and returns its URL."""
    names: list[str] = []

    def make() -> str:
        names.append(f"upgrade_{uuid.uuid4().hex[:12]}")
        execute(server_url, f"CREATE DATABASE {names[-1]} TEMPLATE template0")
        return psql_url(server_url, names[-1])

    yield make
    for name in names:
        execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def _name_of(url: str) -> str:
    return url.rsplit("/", 1)[1].partition("?")[0]


def _wonders(world: World) -> bool:
    found = "SELECT FROM information_schema.columns WHERE table_schema = 'prescore' AND column_name = 'wonders'"
    return bool(world.rows(found))


def test_a_run_at_work_is_named_and_drained_and_no_other_begins_meanwhile(
    world: World, newer: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load_pipeline(world.settings.pipelines_dir / "items")
    served = world.rows(SERVED)
    told: list[str] = []
    done: list[list[str]] = []
    waiting = threading.Thread(
        target=lambda: done.append(migrations.apply(world.url, wait=timedelta(minutes=2), tell=told.append))
    )
    with open_run(world.url, pipeline, trigger=Trigger.MANUAL, mode=Mode.FULL, as_of=None) as run:
        newer()
        monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
        refused = CliRunner().invoke(app, ["migrate"])
        assert isinstance(refused.exception, RunsInFlight)
        assert f"run {run.run_id} of items (process {os.getpid()} on " in str(refused.exception)
        assert not _wonders(world)

        with pytest.raises(RunsInFlight, match=r"1 at work after 0 s of waiting"):
            migrations.apply(world.url, wait=timedelta(milliseconds=50))

        waiting.start()
        wait_until(world, ADVISORY_WAIT)
        with pytest.raises(Migrating, match="Nothing was started; what was published is still served"):
            rollback(world.url, "items")
        with pytest.raises(Migrating), hold_lock(world.url, "never_ran"):
            pass
        assert world.rows(SERVED) == served
        run.end(Status.CANCELLED, "The test is done with it.")
    waiting.join(60)

    assert done == [[NEXT.name]]
    assert [sentence.partition(" (")[0] for sentence in told] == [f"Waiting up to 120 s for run {run.run_id} of items"]
    assert _wonders(world)
    assert world.score().status is Status.PUBLISHED
    assert migrations.apply(world.url) == []


def test_a_backfill_begins_no_instant_while_somebody_migrates(world: World) -> None:
    place = Place(url=world.url, source_url=world.url, pipelines=world.settings.pipelines_dir)
    order = PastOrder(pipeline="items", as_of=datetime.now(UTC) - timedelta(days=1))
    with in_transaction(world, "SELECT pg_advisory_lock(hashtextextended('prescore gate', 0))"):
        refused = score_past(order, place)
    assert refused.ended is Ended.FAILED
    assert refused.message.startswith("The database is being migrated")


def test_a_run_of_a_prescore_that_knows_no_gate_keeps_migrations_out_too(
    world: World, newer: Callable[[], None]
) -> None:
    newer()
    lock = "SELECT pg_advisory_lock(hashtextextended('prescore run items', 0))"
    with in_transaction(world, lock):
        with pytest.raises(RunsInFlight, match=r"1 at work: a command of items \(backend "):
            migrations.apply(world.url)
        with pytest.raises(RunsInFlight, match="after 0 s of waiting"):
            migrations.apply(world.url, wait=timedelta(milliseconds=50))
    wait_until(world, f"SELECT WHERE NOT EXISTS ({ADVISORY})")
    assert migrations.apply(world.url) == [NEXT.name]


def test_a_reader_that_holds_what_is_to_be_changed_is_named_and_nothing_is_half_done(
    world: World, newer: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    newer()
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", timedelta(milliseconds=20))
    monkeypatch.setattr(migrations, "LOCK_PATIENCE", timedelta(0))
    with in_transaction(world, "SELECT FROM predictions.items"):
        with pytest.raises(
            MigrationBlocked, match=rf"Migration {NEXT.name} found no moment.*backend \d+ \(role "
        ) as raised:
            migrations.apply(world.url)
        assert len(raised.value.holders) == 1
        assert migrations.pending(world.url) == [NEXT.name]
        assert world.rows(SERVED)  # nobody waits behind the attempt
    assert migrations.apply(world.url) == [NEXT.name]


@pytest.mark.parametrize(("trigger", "recorded"), [(Trigger.SCHEDULED, True), (Trigger.MANUAL, False)])
def test_a_worker_older_than_the_database_says_so_and_readers_are_served(
    world: World, trigger: Trigger, recorded: bool
) -> None:
    served = world.rows(SERVED)
    world.execute("INSERT INTO prescore.migrations (name, checksum) VALUES ('9998_add_wonders', 'abc')")

    with pytest.raises(DatabaseAhead, match="The database is newer than this prescore: it is at 9998_add_wonders"):
        world.score(trigger=trigger)

    last = world.one("SELECT trigger, status, message FROM prescore.runs ORDER BY run_id DESC LIMIT 1")
    assert (last["status"] == "failed") is recorded
    if recorded:
        assert last["trigger"] == "scheduled"
        assert "Install the prescore that migrated it here" in last["message"]
    assert world.rows(SERVED) == served


def test_a_worker_newer_than_the_database_says_so_even_if_that_happens_while_it_starts(
    world: World, newer: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    newer()
    with pytest.raises(MigrationsPending, match=r"The database is older than this prescore: it lacks 1 migration\(s\)"):
        world.score(trigger=Trigger.SCHEDULED)
    # Past the first look, a run looks again once it keeps migrations out.
    monkeypatch.setattr(migrations, "require_current", lambda _: None)
    with pytest.raises(MigrationsPending):
        world.score(trigger=Trigger.RECOVERY)

    last = world.rows("SELECT trigger, status, message FROM prescore.runs ORDER BY run_id DESC LIMIT 2")
    assert [row[:2] for row in last] == [("recovery", "failed"), ("scheduled", "failed")]
    assert all("Run `prescore migrate`" in row[2] for row in last)
    assert not world.rows(ADVISORY)


def _migrate_to(url: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = migrations.shipped()
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "shipped", lambda: [migration for migration in shipped if migration.name in names])
        migrations.apply(url)


def _program(name: str, *arguments: str, text: str | None = None) -> str:
    command = [str(embedded.package_programs() / name), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def _schema(url: str) -> list[str]:
    lines = _program("pg_dump", "--schema-only", "--no-owner", "--schema=prescore", url).splitlines()
    # What depends on what decides the order of a dump, and that is not the same after each history.
    return sorted(line for line in lines if not line.startswith("\\"))


SEED = 7
KILLED = [(point, random.Random(f"{SEED} {point}").randint(2, 12)) for point in MIGRATION_POINTS[1:]]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "nth"), KILLED)
def test_a_migrator_that_is_killed_leaves_whole_migrations_and_the_next_one_goes_on(
    point: str,
    nth: int,
    database_url: str,
    make_database: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [migration.name for migration in migrations.shipped()]
    first = 7
    url, upto = make_database(), make_database()
    _migrate_to(url, names[:first], monkeypatch)
    killed = prescore(make_world(url, tmp_path, rows=None), "migrate", kill_at=f"{point}:{nth}")

    assert killed.returncode == -9
    there = list(migrations.applied(url))
    whole = first + nth - (point != "migration.committed")
    assert there == names[:whole]
    _migrate_to(upto, there, monkeypatch)
    assert _schema(url) == _schema(upto)
    with pytest.raises(MigrationsPending):
        migrations.require_current(url)

    assert migrations.apply(url) == names[whole:]
    assert _schema(url) == _schema(database_url)


def _columns_of(cursor: Any, table: str) -> set[str]:
    cursor.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass", (f"prescore.{table}",))
    return {name for (name,) in cursor.fetchall()}


def _copy_back(world: World, url: str, revision: str) -> None:
    """Fill a database of an earlier revision with what a world holds, as far as that revision had columns for it."""
    dumped = _program("pg_dump", "--no-owner", "--schema=prescore_rows", "--table=public.items", world.url)
    dumped += _program("pg_dump", "--no-owner", "--schema=prescore_rows", world.url)
    listed = """
        SELECT c.table_name, array_agg(c.column_name::text ORDER BY c.ordinal_position)
        FROM information_schema.columns AS c JOIN information_schema.tables AS t USING (table_schema, table_name)
        WHERE c.table_schema = 'prescore' AND t.table_type = 'BASE TABLE' AND c.table_name <> 'migrations' GROUP BY 1
    """
    today = dict(world.rows(listed))
    dumped = re.sub(r"^CREATE TRIGGER .*$", "", dumped, flags=re.MULTILINE)  # of 0030; runs add them
    _program(
        "psql", "--quiet", "--set=ON_ERROR_STOP=1", url, text=dumped.replace("CREATE SCHEMA prescore_rows;", "", 1)
    )
    with closing(psycopg2.connect(world.url)) as source, closing(psycopg2.connect(url)) as target:
        out, into = source.cursor(), target.cursor()
        into.execute("SET session_replication_role = replica")
        into.execute(listed)
        for table, columns in into.fetchall():
            names = ", ".join(f'"{name}"' for name in columns if name in today[table])
            rows = io.StringIO()
            out.copy_expert(f"COPY prescore.{table} ({names}) TO STDOUT", rows)
            rows.seek(0)
            into.copy_expert(f"COPY prescore.{table} ({names}) FROM STDIN", rows)
        for sequence in ("runs_run_id_seq", "generation_ids"):
            into.execute(f"SELECT setval('prescore.{sequence}', 100)")
        out.execute(
            "SELECT column_name, format_type(a.atttypid, a.atttypmod) FROM information_schema.columns "
            "JOIN pg_attribute AS a ON attrelid = 'predictions.items'::regclass AND attname = column_name "
            "WHERE table_schema = 'predictions' AND table_name = 'items' ORDER BY ordinal_position"
        )
        stored = {"id", "as_of", "scored_in", "p", "label"}
        # A view of that time had the same columns, and came to them in another way.
        shown = ", ".join(f"r.{n}" if n in stored else f"CAST(NULL AS {t}) AS {n}" for n, t in out.fetchall())
        into.execute(f"CREATE VIEW predictions.items AS SELECT {shown} FROM prescore_rows.items AS r")
        if "views_digest" in _columns_of(into, "pipelines"):
            into.execute("UPDATE prescore.pipelines SET views_digest = 'of that time'")
        target.commit()
    assert revision == _program("psql", "-At", "-c", "SELECT max(name) FROM prescore.migrations", url).strip()


@pytest.mark.parametrize(
    "number",
    [7, *(pytest.param(number, marks=pytest.mark.slow) for number in (8, 10, 13, 15, 18, 20, 22))],
)
def test_a_database_of_an_earlier_revision_migrates_with_its_data_and_runs_go_on(
    number: int, world: World, make_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [migration.name for migration in migrations.shipped()]
    url = make_database()
    _migrate_to(url, names[:number], monkeypatch)
    _copy_back(world, url, names[number - 1])
    old = World(url=url, settings=replace(world.settings, database_url=url))
    stored = old.rows("SELECT id, p, label, scored_in FROM predictions.items WHERE scored_in IS NOT NULL ORDER BY 1, 4")

    assert migrations.apply(url) == names[number:]

    assert _schema(url) == _schema(world.url)
    assert old.rows("SELECT id, p, label, scored_in FROM predictions.items ORDER BY 1, 4") == stored
    incremental = old.score()
    assert (incremental.status, incremental.mode) == (Status.PUBLISHED, Mode.INCREMENTAL), incremental.message
    assert old.rows("SELECT count(*), count(DISTINCT id), min(state) FROM predictions.items") == [(ROWS, ROWS, "fresh")]
    assert old.rows(SERVED) == world.rows(SERVED)
    watched = "SELECT count(*) FROM pg_trigger WHERE tgname = 'prescore_foreign_write'"
    assert old.rows(watched) == world.rows(watched) == [(4,)]
    full = old.score(full=True)
    assert (full.status, full.mode) == (Status.PUBLISHED, Mode.FULL), full.message
    served = "SELECT id, state, p, label FROM predictions.items ORDER BY id"
    assert old.rows(served) == world.rows(served)
    assert old.rows("SELECT state FROM predictions.items_for(1)") == [("fresh",)]
    assert [row[0] for row in old.rows("SELECT state FROM prescore.pipeline_health")] == ["fresh"]
