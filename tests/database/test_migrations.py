"""Migrations: schema.sql says the same, a second and a concurrent apply do no harm, strange databases are refused."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from pglast import ast, parse_sql
from typer.testing import CliRunner

from flows.cli import app
from tasks import embedded, migrations
from tasks.database import connect, raw_execute, resolve_url
from tasks.migrations import DatabaseAhead, MigrationChanged, MigrationsPending
from tasks.settings import Settings
from tests.conftest import execute, psql_url

SQL = Path(migrations.__file__).parents[1] / "sql"
NAME = re.compile(r"(\d{4})_[a-z]+(_[a-z]+)+")


@pytest.fixture
def make_database(server_url: str) -> Iterator[Callable[[], str]]:
    """A function that creates an empty database and returns its URL; they are dropped at the end."""
    names: list[str] = []

    def make() -> str:
        names.append(f"empty_{uuid.uuid4().hex[:12]}")
        execute(server_url, f"CREATE DATABASE {names[-1]} TEMPLATE template0")
        return psql_url(server_url, names[-1])

    yield make
    for name in names:
        execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_url(make_database: Callable[[], str]) -> str:
    """A database that never saw prescore."""
    return make_database()


def _dump(url: str) -> list[str]:
    """Return everything that a database declares, as pg_dump writes it: ordered by kind and name, comments included."""
    command = [embedded.package_programs() / "pg_dump", "--schema-only", "--no-owner", psql_url(url)]
    environ = {**os.environ, "PGTZ": "UTC"}
    written = subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout
    # Headings, settings of the session, and \restrict with a key that differs in each dump.
    noise = ("--", "SET ", "\\restrict", "\\unrestrict", "SELECT pg_catalog.set_config")
    return [line for line in written.splitlines() if line and not line.startswith(noise)]


def _query(url: str, statement: str) -> list[Any]:
    with connect(url) as connection:
        return list(raw_execute(connection, statement).fetchall())


def _run(url: str, statement: str, **values: object) -> None:
    with connect(url) as connection:
        connection.execute(sa.text(statement), values)
        connection.commit()


def test_schema_sql_is_what_all_migrations_come_to(make_database: Callable[[], str]) -> None:
    written, migrated = make_database(), make_database()
    execute(written, (SQL / "schema.sql").read_text(encoding="utf-8"))
    migrations.apply(migrated)

    dumped = _dump(migrated)

    assert _dump(written) == dumped
    # The dump is one of something, and it would show a difference.
    assert "CREATE VIEW prescore.pipeline_health AS" in dumped
    execute(written, "COMMENT ON COLUMN prescore.head.rows IS 'Something else.'")
    assert _dump(written) != dumped


def test_schema_sql_can_be_read_in_order_without_looking_ahead() -> None:
    """Each table is declared before what names it, and its comments follow it, in the order of its columns."""
    statements = [raw.stmt for raw in parse_sql((SQL / "schema.sql").read_text(encoding="utf-8"))]
    columns: dict[str, list[str]] = {}
    commented: dict[str, list[str]] = {}
    for statement in statements:
        if isinstance(statement, ast.CreateStmt):
            elements = [element for element in statement.tableElts if isinstance(element, ast.ColumnDef)]
            columns[statement.relation.relname] = [element.colname for element in elements]
        elif isinstance(statement, ast.CommentStmt) and statement.objtype.name == "OBJECT_COLUMN":
            _, table, column = (part.sval for part in statement.object)
            commented.setdefault(table, []).append(column)
    assert len(columns) > 10
    assert {table: commented.get(table) for table in columns} == columns


def test_every_table_view_column_function_and_sequence_of_prescore_has_a_comment(database_url: str) -> None:
    silent = _query(
        database_url,
        """
        SELECT format('%s.%s', c.oid::regclass, a.attname)
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'prescore'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
          AND pg_catalog.col_description(c.oid, a.attnum) IS NULL
        UNION ALL
        SELECT c.oid::regclass::text
        FROM pg_catalog.pg_class AS c
        LEFT JOIN pg_catalog.pg_depend AS d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
        WHERE c.relnamespace = 'prescore'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
          AND d.objid IS NULL AND pg_catalog.obj_description(c.oid, 'pg_class') IS NULL
        UNION ALL
        SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'prescore'::regnamespace AND pg_catalog.obj_description(p.oid, 'pg_proc') IS NULL
        UNION ALL
        SELECT n.nspname FROM pg_catalog.pg_namespace AS n
        WHERE n.nspname IN ('prescore', 'prescore_rows', 'predictions')
          AND pg_catalog.obj_description(n.oid, 'pg_namespace') IS NULL
        """,
    )
    assert silent == []


def test_the_names_of_migrations_are_numbers_without_gaps_and_say_what_they_do() -> None:
    names = [migration.name for migration in migrations.shipped()]
    files = sorted(path.name for path in (SQL / "migrations").iterdir())
    assert [f"{name}.sql" for name in names] == files
    assert [name for name in names if not NAME.fullmatch(name)] == []
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]


def test_every_migration_is_headed_by_what_it_does() -> None:
    assert [m.name for m in migrations.shipped() if not re.match(r"-- \w.+", m.statements)] == []


def test_a_second_apply_does_nothing(empty_url: str) -> None:
    shipped = migrations.shipped()
    assert migrations.apply(empty_url) == [migration.name for migration in shipped]
    before = _query(empty_url, "SELECT * FROM prescore.migrations ORDER BY name")

    assert migrations.apply(empty_url) == []

    assert _query(empty_url, "SELECT * FROM prescore.migrations ORDER BY name") == before
    assert [row[:2] for row in before] == [(migration.name, migration.checksum) for migration in shipped]


def test_ten_concurrent_applies_run_each_migration_once(empty_url: str) -> None:
    with ThreadPoolExecutor(max_workers=10) as pool:
        applied = list(pool.map(migrations.apply, [empty_url] * 10))

    names = [migration.name for migration in migrations.shipped()]
    assert sorted(name for done in applied for name in done) == names
    assert migrations.pending(empty_url) == []


def test_what_is_pending_is_listed_in_order_and_listing_changes_nothing(empty_url: str) -> None:
    names = [migration.name for migration in migrations.shipped()]
    assert migrations.pending(empty_url) == names
    assert _query(empty_url, "SELECT to_regnamespace('prescore')") == [(None,)]

    migrations.apply(empty_url)
    assert migrations.pending(empty_url) == []
    assert migrations.applied(empty_url).keys() == set(names)


def test_a_database_one_migration_behind_gets_that_one_only(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = migrations.shipped()
    monkeypatch.setattr(migrations, "shipped", lambda: shipped[:-1])
    migrations.apply(empty_url)
    monkeypatch.setattr(migrations, "shipped", lambda: shipped)

    assert migrations.pending(empty_url) == [shipped[-1].name]
    assert migrations.apply(empty_url) == [shipped[-1].name]


def test_a_migration_that_fails_leaves_nothing_of_itself_behind(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = migrations.shipped()
    broken = migrations.Migration(
        name=shipped[1].name, statements="CREATE TABLE prescore.half (a integer); SELECT * FROM prescore.nowhere"
    )
    monkeypatch.setattr(migrations, "shipped", lambda: [shipped[0], broken])

    with pytest.raises(psycopg2.errors.UndefinedTable):
        migrations.apply(empty_url)

    assert list(migrations.applied(empty_url)) == [shipped[0].name]
    assert _query(empty_url, "SELECT to_regclass('prescore.half')") == [(None,)]
    monkeypatch.setattr(migrations, "shipped", lambda: shipped)
    assert migrations.apply(empty_url) == [migration.name for migration in shipped[1:]]


def test_a_database_ahead_of_the_code_is_refused_and_both_revisions_are_named(database_url: str) -> None:
    _run(database_url, "INSERT INTO prescore.migrations (name, checksum) VALUES ('9999_add_wonders', 'abc')")
    newest = migrations.shipped()[-1].name

    for refused in (migrations.pending, migrations.apply, migrations.require_current):
        with pytest.raises(DatabaseAhead, match=f"at 9999_add_wonders, this prescore ends at {newest}") as raised:
            refused(database_url)
        assert raised.value.unknown == ["9999_add_wonders"]


def test_a_migration_that_was_applied_with_another_text_is_refused(database_url: str) -> None:
    first = migrations.shipped()[0].name
    _run(database_url, "UPDATE prescore.migrations SET checksum = 'abc' WHERE name = :name", name=first)

    for refused in (migrations.pending, migrations.apply, migrations.require_current):
        with pytest.raises(MigrationChanged, match=f"Migration {first} was applied with another text"):
            refused(database_url)


def _settings(url: str, folder: Path) -> Settings:
    return Settings(database_url=url, pipelines_dir=folder, data_dir=folder / "never")


def test_a_named_database_that_is_behind_is_left_alone_and_the_remedy_named(empty_url: str, tmp_path: Path) -> None:
    first = migrations.shipped()[0].name
    with pytest.raises(MigrationsPending, match=rf"first {first}\. Nothing was changed\. Run `prescore migrate`"):
        resolve_url(_settings(empty_url, tmp_path))
    assert _query(empty_url, "SELECT to_regnamespace('prescore')") == [(None,)]


@pytest.mark.parametrize(
    "command",
    [
        "check churn",
        "train churn",
        "score churn",
        "status",
        "lookup churn 1",
        "rollback churn",
        "resume churn",
        "models list",
        "models show churn",
        "models promote churn 1",
        "database url",
    ],
)
def test_commands_refuse_a_named_database_that_is_behind(
    empty_url: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", empty_url)

    result = CliRunner().invoke(app, command.split())

    assert isinstance(result.exception, MigrationsPending)
    assert "Run `prescore migrate`" in str(result.exception)
    assert result.exception.exit_code == 1


def test_prescore_migrate_brings_a_named_database_up_to_date(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", empty_url)

    first = CliRunner().invoke(app, ["migrate"])
    second = CliRunner().invoke(app, ["migrate"])

    names = [migration.name for migration in migrations.shipped()]
    up_to_date = "The schema is up to date."
    assert first.stdout.splitlines() == [*(f"applied {name}" for name in names), up_to_date]
    assert second.stdout.splitlines() == [up_to_date]
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert migrations.pending(empty_url) == []
