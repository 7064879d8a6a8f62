"""Least privilege: what readers, operators and the scoring role may do, and a list of what they may not."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from flows.cli import app
from tasks import erasure, metrics, migrations, roles
from tasks.errors import UsageError
from tasks.lookup import look_up
from tasks.population import Mode
from tasks.quarantine import quarantine, release
from tasks.roles import Wanted
from tasks.rollback import resume, rollback
from tasks.runs import Status
from tasks.settings import Settings
from tests.conftest import execute, psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

# insufficient_privilege; a view that takes no rows, and one that is no table
REFUSED = {"42501", "55000", "42809"}
PARTS = ("reader", "operator", "scorer")
TOML = PIPELINE_TOML + '[history]\nkeep = "90d"\n'


@pytest.fixture
def named(server_url: str) -> Iterator[dict[str, str]]:
    """A login role for each part, as its owner would create it."""
    made = {part: f"{part}_{uuid.uuid4().hex[:12]}" for part in PARTS}
    for role in made.values():
        execute(server_url, f"CREATE ROLE {role} LOGIN PASSWORD 'open'")
    yield made
    for role in made.values():
        execute(server_url, f"DROP ROLE {role}")


@pytest.fixture
def world(database_url: str, tmp_path: Path, named: dict[str, str]) -> Iterator[World]:
    """Items and two pipelines, one of them published, all made by an owner of everything."""
    world = make_world(database_url, tmp_path, rows=500)
    make_model(world, make_pipeline(world, toml=TOML))
    make_model(world, make_pipeline(world, "later", toml=TOML))
    assert world.score(full=True).status is Status.PUBLISHED
    yield world
    for role in named.values():  # before the roles are dropped; whoever is connected has gone
        execute(world.url, f"REASSIGN OWNED BY {role} TO CURRENT_USER")
        execute(world.url, f"DROP OWNED BY {role}")


def as_role(world: World, role: str) -> World:
    """The same world, reached as another role."""
    url = make_url(world.url).set(username=role, password="open").render_as_string(hide_password=False)
    return World(url=url, settings=Settings(**{**vars(world.settings), "database_url": url}))


def refused(world: World, statements: list[str]) -> list[str]:
    """Those of some statements that were not refused for want of a right; each in a session of its own."""
    allowed = []
    for statement in statements:
        with closing(psycopg2.connect(psql_url(world.url))) as connection, connection.cursor() as cursor:
            try:
                cursor.execute(statement)
                allowed.append(statement)
            except psycopg2.Error as error:
                if error.pgcode not in REFUSED:
                    allowed.append(f"{statement}: {error}")
    return allowed


def grant(world: World, named: dict[str, str], **options: bool) -> roles.Granted:
    from tasks.pipeline import load_pipelines

    wanted = Wanted(readers=(named["reader"],), operators=(named["operator"],), scorer=named["scorer"])
    return roles.grant(world.url, wanted, [*load_pipelines(world.settings.pipelines_dir).values()], **options)


def control_tables(world: World) -> list[str]:
    found = world.rows(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname IN ('prescore', 'prescore_rows') AND c.relkind IN ('r', 'p', 'v') ORDER BY 1"
    )
    return [name for (name,) in found]


def test_each_role_does_its_part_and_nothing_else(world: World, named: dict[str, str]) -> None:
    dry = grant(world, named, dry=True)
    assert (dry.done, refused(as_role(world, named["reader"]), ["SELECT * FROM predictions.items"])) == (False, [])
    done = grant(world, named)
    assert set(dry.statements) == set(done.statements)
    assert not [statement for statement in grant(world, named).statements if "OWNER" in statement]
    assert done.notes == ()

    # The scoring role: everything that a run needs, and nobody is a superuser.
    scoring = as_role(world, named["scorer"])
    assert scoring.one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == {"rolsuper": False}
    assert scoring.score(full=True).status is Status.PUBLISHED
    world.change("UPDATE public.items SET a = a / 2, updated_at = clock_timestamp() WHERE id < 5")
    assert scoring.score().mode is Mode.INCREMENTAL
    rollback(scoring.url, "items")
    assert resume(scoring.url, "items")
    assert scoring.score().status is Status.PUBLISHED
    assert erasure.forget(scoring.url, "items", ["7"], rewrite=True).finished_at is not None
    assert scoring.score("later").status is Status.PUBLISHED
    assert (
        refused(
            scoring,
            [
                "INSERT INTO public.items VALUES (-1, 0, 0, 'x', now())",
                "UPDATE public.items SET a = 0",
                "DELETE FROM public.items",
                "TRUNCATE public.items",
                "LOCK TABLE public.items IN EXCLUSIVE MODE",
                "ALTER TABLE public.items ADD COLUMN d text",
                "DROP TABLE public.items",
                "CREATE TABLE public.mine (id bigint)",
                "CREATE SCHEMA mine",
                "COPY public.items TO PROGRAM 'cat'",
                "SELECT pg_read_file('/etc/passwd')",
                "CREATE ROLE mine",
                f"SET ROLE {named['operator']}",
            ],
        )
        == []
    )

    # Readers: the views and functions, of pipelines to come as well, and health.
    reading = as_role(world, named["reader"])
    for name in ("items", "later"):
        assert reading.rows(f"SELECT count(*) FROM predictions.{name}")[0][0] >= 499
        assert reading.rows(f"SELECT count(*) FROM predictions.{name}_usable")[0][0] >= 499
        assert reading.rows(f"SELECT state FROM predictions.{name}_for(3)") == [("fresh",)]
        assert reading.rows(f"SELECT state FROM predictions.{name}_for(-3)") == [("missing",)]
        assert reading.rows(f"SELECT state FROM predictions.{name}_at(3, now())") == [("fresh",)]
    assert reading.rows("SELECT count(*) FROM prescore.pipeline_health") == [(2,)]
    tables = [name for name in control_tables(world) if name != "prescore.pipeline_health"]
    attempts = [f"SELECT * FROM {name}" for name in (*tables, "public.items")]
    for name in (*tables, "prescore.pipeline_health", "predictions.items", "predictions.items_usable", "public.items"):
        attempts += [f"DELETE FROM {name}", f"TRUNCATE {name}", f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"]
    attempts += [
        "INSERT INTO predictions.items (id) VALUES (1)",
        "UPDATE predictions.items_usable SET p = 1",
        "UPDATE prescore.head SET rows = 0",
        "INSERT INTO prescore.waivers DEFAULT VALUES",
        "SELECT nextval('prescore.runs_run_id_seq')",
        "CREATE TABLE predictions.mine (id bigint)",
        "CREATE TABLE prescore.mine (id bigint)",
        "CREATE TABLE prescore_rows.mine (id bigint)",
        "CREATE TABLE public.mine (id bigint)",
        "CREATE SCHEMA mine",
        "CREATE OR REPLACE VIEW predictions.items AS SELECT 1",
        "CREATE OR REPLACE FUNCTION prescore.clock() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'",
        "CREATE RULE r AS ON DELETE TO predictions.items DO INSTEAD NOTHING",
        "ALTER VIEW predictions.items RENAME TO others",
        "DROP VIEW predictions.items_usable",
        "DROP FUNCTION prescore.clock()",
        "COMMENT ON VIEW predictions.items IS 'mine'",
        "GRANT SELECT ON prescore.head TO PUBLIC",
        f"GRANT {named['scorer']} TO {named['reader']}",
        "COPY prescore_rows.items_1 TO STDOUT",
        "COPY (SELECT * FROM prescore.model_chunks) TO STDOUT",
        "COPY predictions.items FROM '/etc/passwd'",
        "COPY (SELECT * FROM predictions.items) TO '/tmp/items'",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        f"SET ROLE {named['scorer']}",
        f"SET SESSION AUTHORIZATION {named['operator']}",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_export(1, '/tmp/x')",
        "ALTER ROLE CURRENT_USER SUPERUSER",
    ]
    assert refused(reading, [a for a in attempts if not a.startswith("COPY") or "STDOUT" not in a]) == []
    for attempt in (a for a in attempts if "STDOUT" in a):
        with (
            closing(psycopg2.connect(psql_url(reading.url))) as connection,
            connection.cursor() as cursor,
            pytest.raises(psycopg2.errors.InsufficientPrivilege),
        ):
            cursor.copy_expert(attempt, io.StringIO())


@pytest.mark.slow
def test_operators_work_without_seeing_what_lies_in_the_rows(
    world: World, named: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    grant(world, named)
    scoring, operating = as_role(world, named["scorer"]), as_role(world, named["operator"])
    scoring.score(full=True)
    generation = scoring.score("later").generation_id
    monkeypatch.setenv("PRESCORE_DATABASE_URL", operating.url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
    for words in (
        ["status"],
        ["explain", "items"],
        ["explain", "items", "source.age"],
        ["watch", "--once"],
        ["history", "items", "3"],
    ):
        ended = CliRunner().invoke(app, [*words, "--json"] if words[0] != "watch" else words)
        assert ended.exit_code in {0, 3}, (words, ended.output, ended.exception)
    assert look_up(operating.url, "items", ["3"])["state"] == "fresh"
    assert metrics.read(operating.settings, count_rows=True).counted["items"] == {"fresh": 500}
    assert rollback(operating.url, "items").undone
    assert resume(operating.url, "items")
    # Also what was made after the grant, by the scorer.
    assert generation is not None
    assert quarantine(operating.url, "later", generation, "prices of May are in cents").masked == 500
    assert release(operating.url, "later", generation).shown == 500
    closed = [f"prescore.{name}" for name in roles.CLOSED]
    rows = [name for name in control_tables(world) if name.startswith("prescore_rows")]
    assert (
        refused(
            operating,
            [
                *(f"SELECT * FROM {name}" for name in (*closed, *rows, "public.items")),
                *(f"DELETE FROM {name}" for name in control_tables(world)),
                *(f"TRUNCATE {name}" for name in control_tables(world)),
                "SELECT p FROM prescore_rows.items_1",
                "UPDATE prescore.generations SET rows = 0",
                "UPDATE prescore.pipelines SET contract_text = ''",
                "UPDATE prescore.models SET digest = ''",
                "INSERT INTO prescore.runs DEFAULT VALUES",
                "CREATE TABLE prescore.mine (id bigint)",
                f"SET ROLE {named['scorer']}",
            ],
        )
        == []
    )


@pytest.mark.slow
def test_grants_of_others_stay_and_a_second_pipeline_adds_to_the_first(world: World, named: dict[str, str]) -> None:
    other = named["operator"]
    world.execute(f"GRANT USAGE ON SCHEMA predictions TO {other}; GRANT SELECT ON predictions.items TO {other}")
    world.execute(
        f"GRANT USAGE ON SCHEMA prescore_rows TO {named['reader']}; GRANT ALL ON prescore_rows.items_1 TO {named['reader']}"
    )
    world.score("later")
    reading = as_role(world, named["reader"])

    roles.grant(world.url, Wanted(readers=(named["reader"],), pipelines=("items",)))

    assert refused(reading, ["SELECT * FROM predictions.later", "SELECT * FROM prescore_rows.items_1"]) == []
    assert len(reading.rows("SELECT * FROM predictions.items LIMIT 1")) == 1
    roles.grant(world.url, Wanted(readers=(named["reader"],), pipelines=("later",)))
    assert len(reading.rows("SELECT FROM predictions.items, predictions.later LIMIT 1")) == 1
    assert len(as_role(world, other).rows("SELECT FROM predictions.items LIMIT 1")) == 1
    with pytest.raises(UsageError, match="There is no role nobody"):
        roles.grant(world.url, Wanted(readers=("nobody",)))
    with pytest.raises(UsageError, match="No role is named"):
        roles.grant(world.url, Wanted())
    with pytest.raises(UsageError, match="named for two parts"):
        roles.grant(world.url, Wanted(readers=(other,), operators=(other,)))
    with pytest.raises(roles.GrantRefused, match=r"PostgreSQL refuses `.*Nothing was changed"):
        roles.grant(reading.url, Wanted(operators=(other,)))


@pytest.mark.slow
def test_the_scorer_migrates_without_being_a_superuser(
    server_url: str, named: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    everything, scorer = migrations.shipped(), named["scorer"]
    for first in (0, len(everything) - 1):
        name = f"empty_{uuid.uuid4().hex[:12]}"
        execute(server_url, f"CREATE DATABASE {name}")
        owning = make_world(psql_url(server_url, name), tmp_path, rows=None)
        if first:
            monkeypatch.setattr(migrations, "shipped", lambda: everything[:-1])
            migrations.apply(owning.url)
            roles.grant(owning.url, Wanted(scorer=scorer))
            monkeypatch.undo()
        else:
            owning.execute(f"GRANT CREATE ON DATABASE {name} TO {scorer}")
        assert len(migrations.apply(as_role(owning, scorer).url)) == len(everything) - first
        migrations.require_current(as_role(owning, scorer).url)
        execute(server_url, f"DROP DATABASE {name}")
