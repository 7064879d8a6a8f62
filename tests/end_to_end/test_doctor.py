"""`prescore doctor`: each finding is provoked on a real database, and gone after its remedy or --fix."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest
from typer.testing import CliRunner

from flows import deploy
from flows.cli import app
from flows.doctor import NotPermitted, diagnose, of_deployments
from tasks import installation, plans, space
from tasks.checks import times
from tasks.database import connect, one
from tasks.errors import PrefectUnreachable
from tasks.installation import Symptom, pipelines, server
from tasks.runs import Status, hold_lock
from tests.conftest import execute, psql_url
from tests.disturbances import Copies, prescore, wait_until
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline

SERVED = "SELECT id, p, label FROM predictions.items ORDER BY id"
SCHEDULED = PIPELINE_TOML + '[schedule]\nfull = "0 3 * * *"\n'


@pytest.fixture(scope="module")
def stage(
    server_url: str, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Copies, str]]:
    """Items that were published twice, in a database to copy from."""
    copies = Copies(server_url, tmp_path_factory.mktemp("pipelines"))
    world = copies.of(module_database_url.rsplit("/", 1)[1].partition("?")[0], rows=300)
    pipeline = make_pipeline(world)
    make_model(world, pipeline)
    for _ in range(2):
        assert world.score(full=True).status is Status.PUBLISHED
    yield copies, copies.close(world)
    copies.drop()


@pytest.fixture
def world(stage: tuple[Copies, str]) -> World:
    """A copy of what was staged."""
    copies, template = stage
    return copies.of(template)


@pytest.fixture(autouse=True)
def _server_of_tests_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of tests do without, for speed; that would be found each time."""
    monkeypatch.setattr(server, "DURABLE", ())


def _found(world: World, *, fix: bool = False) -> dict[str, Symptom]:
    return {symptom.code: symptom for symptom in diagnose(world.settings, fix=fix).examination.symptoms}


def test_nothing_is_found_of_an_installation_that_is_well(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0, shown.output
    assert "Nothing was found." in shown.output

    as_json = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert (as_json["well"], as_json["findings"], as_json["done"]) == (True, [], [])
    assert as_json["revision"] == world.rows("SELECT max(name) FROM prescore.migrations")[0][0]
    assert "password" not in str(as_json)


DEAD_RUN = """
INSERT INTO prescore.runs (pipeline, mode, trigger, status, clock_at, backend_pid, host, process_id, logic_digest, contract_digest)
VALUES ('items', 'full', 'manual', 'running', now(), 1, 'a lost host', 4711, 'l', 'c')
"""
OUTDATED = "UPDATE prescore.pipelines SET views_digest = 'of another prescore'"
NEXT = "(SELECT format('prescore_rows.items_%s', storage_id) FROM prescore.storages WHERE role = 'next')"
LEFT = f"""
DO $$ BEGIN EXECUTE format('INSERT INTO %s (storage_id, id, as_of, scored_in) SELECT s.storage_id, 1, now(), 99
FROM prescore.storages AS s WHERE role = ''next''', {NEXT}); END $$
"""
SERVING = "(SELECT format('prescore_rows.items_%s', storage_id) FROM prescore.storages WHERE role = 'current')"
FORGOTTEN = f"DELETE FROM pg_statistic WHERE starelid = {SERVING}::regclass"
UNVACUUMED = f"DO $$ BEGIN EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', {SERVING}); END $$"
INVALID = """
CREATE INDEX half_made ON prescore_rows.items_1 (p);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'prescore_rows.half_made'::regclass
"""
UNINDEXED = """
DO $$ BEGIN EXECUTE format('DROP INDEX prescore_rows.items_%s_by_p', (SELECT storage_id FROM prescore.storages
WHERE role = 'current')); END $$
"""
REST = "UPDATE prescore.pipelines SET past_removed_at = prescore.clock() - interval '8 days'"
NO_VIEWS = "DROP VIEW predictions.items CASCADE"


def test_what_is_safe_to_mend_is_mended_all_at_once(world: World) -> None:
    served = world.rows(SERVED)
    for provoked in (DEAD_RUN, OUTDATED, LEFT, FORGOTTEN, UNVACUUMED, INVALID, UNINDEXED, REST):
        world.execute(provoked)
    codes = {
        "runs.dead",
        "views.outdated",
        "storage.orphaned",
        "statistics.missing",
        "autovacuum.off",
        "indexes.invalid",
    }
    codes |= {"indexes.missing", "retention.due"}
    found = _found(world)
    assert set(found) == codes
    assert all(symptom.fixable and symptom.means and symptom.remedy for symptom in found.values())

    mended = diagnose(world.settings, fix=True)

    assert {symptom.code for symptom, told in mended.done if not told.startswith("Not done")} == codes
    assert {symptom.code for symptom in mended.examination.symptoms} == {"pipeline.crashed"}
    assert world.rows(SERVED) == served


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provoked", "code", "told", "done"),
    [
        (DEAD_RUN, "runs.dead", r"Run 3 of items \(process 4711 on a lost host\)", "Marked run 3 of items crashed."),
        (OUTDATED, "views.outdated", "made by another prescore", "Made the views of items anew."),
        (NO_VIEWS, "views.missing", "predictions.items is not there", "Made the views of items anew."),
        (LEFT, "storage.orphaned", "A run that did not end left ", 'Cleared "prescore_rows"."items_'),
        (FORGOTTEN, "statistics.missing", "The planner knows nothing of ", "Vacuumed and analysed "),
        (UNVACUUMED, "autovacuum.off", "autovacuum is turned off for prescore_rows.items_", "Turned autovacuum of "),
        (INVALID, "indexes.invalid", "The index half_made on prescore_rows.items_1 is not valid", "Dropped the index "),
        (UNINDEXED, "indexes.missing", "has 0 of the 1 declared indexes of outputs", "Built the indexes of "),
        (REST, "retention.due", "was last removed a while ago", "Removed what is past its retention: nothing was."),
    ],
    ids=lambda value: value if isinstance(value, str) and value.islower() and " " not in value else "",
)
def test_what_is_safe_to_mend_is_mended(world: World, provoked: str, code: str, told: str, done: str) -> None:
    served = world.rows(SERVED)
    world.execute(provoked)

    found = _found(world)
    assert code in found, found
    assert found[code].fixable
    assert re.search(told, found[code].what)
    assert found[code].means
    assert found[code].remedy

    mended = diagnose(world.settings, fix=True)
    assert [told for symptom, told in mended.done if symptom.code == code and told.startswith(done)], mended.done
    # That a run died is told by what `status` says of the last one, until the next.
    assert {symptom.code for symptom in mended.examination.symptoms} <= {"pipeline.crashed"}
    assert world.rows(SERVED) == served
    # A second time there is nothing to do, and runs go on.
    assert diagnose(world.settings, fix=True).done == []


def test_what_is_used_by_a_run_at_work_is_left_alone(world: World) -> None:
    world.execute(OUTDATED + ";" + LEFT)
    with hold_lock(world.url, "items"):
        found = diagnose(world.settings, fix=True)
        assert [told.partition(":")[0] for _, told in found.done] == ["Not done"]
        assert "is being run already, by another command" in found.done[0][1]
        assert [symptom.code for symptom in found.examination.symptoms] == ["views.outdated"]
    assert _found(world, fix=True) == {}


@contextmanager
def _session(world: World, *statements: str) -> Iterator[Any]:
    with closing(psycopg2.connect(world.url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            yield cursor


def test_what_holds_vacuum_and_publications_up_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LONG", timedelta(0))
    monkeypatch.setattr(server, "WAITED", timedelta(0))
    with _session(
        world,
        "SET application_name = 'a report'",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "SELECT FROM predictions.items",
    ) as s:
        s.execute("SELECT pg_backend_pid()")
        pid = s.fetchone()[0]
        found = _found(world)["transactions.long"]
        assert f"Backend {pid} (role prescore, a report) has been idle in a transaction" in found.what
        assert f"pg_terminate_backend({pid})" in found.remedy
        assert found.since is not None
        assert found.wrong
        with _session(world, "BEGIN") as waiting:
            blocked = threading.Thread(
                target=lambda: waiting.execute("LOCK TABLE prescore.head IN ACCESS EXCLUSIVE MODE")
            )
            blocked.start()
            wait_until(world, "SELECT FROM pg_locks WHERE NOT granted AND relation = 'prescore.head'::regclass")
            # Whoever waits is found as well, and prescore does not wait behind them.
            listed = server.of_sessions
            with connect(world.url) as connection:
                waits = {symptom.code: symptom for symptom in listed(connection)}["locks.waiting"]
            assert f"for prescore.head, which is held by backend {pid} (role prescore, a report" in waits.what
            s.execute("ROLLBACK")
            blocked.join(30)
    assert _found(world) == {}


def test_a_server_that_would_hurt_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = world.url.rsplit("/", 1)[1].partition("?")[0]
    settings = ("lock_timeout = '500ms'", "default_transaction_read_only = on")
    for setting in settings:
        world.execute(f"ALTER DATABASE {name} SET {setting}")
    found = diagnose(world.settings).examination.symptoms
    assert [s.what for s in found if s.code == "settings.timeout"] == ["lock_timeout is 500 ms for role prescore."]
    assert [s.wrong for s in found if s.code == "settings.read_only"] == [True]
    with _session(world, "SET default_transaction_read_only = off") as session:
        session.execute(f"ALTER DATABASE {name} RESET ALL")
        session.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 5")
    found = diagnose(world.settings).examination.symptoms
    assert [s.code for s in found] == ["connections.few"]
    world.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")

    monkeypatch.setattr(times, "host_clock", lambda: datetime.now(UTC).timestamp() + 3_600)
    assert " is 60 min ahead of the server's" in _found(world)["clock.offset"].what
    monkeypatch.setattr(times, "host_clock", lambda: datetime.now(UTC).timestamp())
    monkeypatch.setattr(space, "free_at", lambda _: 1_000)
    assert _found(world)["disk.full"].wrong
    monkeypatch.setattr(space, "free_at", lambda _: space.SPARE_BYTES + 1_000)
    assert "another full run of items writes about" in _found(world)["disk.short"].what
    monkeypatch.setattr(space, "free_at", lambda _: 10**12)
    assert _found(world) == {}
    monkeypatch.setattr(server, "DURABLE", ("fsync",))
    assert "fsync is off on the server" in _found(world)["durability.off"].what


@pytest.mark.parametrize(
    ("changed", "codes"),
    [
        ({"version_number": 140000, "version": "14.9"}, ["server.version"]),
        ({"version_number": 190000, "version": "19beta1"}, ["server.version"]),
        ({"autovacuum": "off"}, ["autovacuum.off"]),
        ({"transaction_timeout": "5min"}, ["settings.timeout"]),
        ({"standby": True}, ["server.standby"]),
        ({"server_address": "10.0.0.7", "client_address": "10.0.0.8", "superuser": False}, ["connection.plain"]),
        ({"server_address": "10.0.0.7", "encrypted": True, "superuser": True}, ["role.superuser"]),
    ],
)
def test_what_a_server_says_of_itself_is_judged(world: World, changed: dict[str, Any], codes: list[str]) -> None:
    with connect(world.url) as connection:
        described = one(connection, "describe_server")
        row = type("Row", (), {**described._asdict(), **changed})()
        assert [symptom.code for symptom in server.of_server(connection, row)] == codes


def test_a_role_without_the_rights_of_a_run_is_told_what_it_lacks(world: World, server_url: str) -> None:
    execute(server_url, "DROP ROLE IF EXISTS poor")
    execute(server_url, "CREATE ROLE poor LOGIN PASSWORD 'poor'")
    world.execute("GRANT USAGE ON SCHEMA prescore TO poor; GRANT SELECT ON ALL TABLES IN SCHEMA prescore TO poor")
    poor = psql_url(world.url).replace("//prescore:" + world.url.split(":")[2].split("@")[0], "//poor:poor")
    try:
        found = {s.code: s for s in installation.examine(poor, poor, {}, {}).symptoms}
        assert "CREATE on schema predictions; CREATE on schema prescore_rows" in found["role.rights"].what
        assert found["role.statistics"].remedy == "GRANT pg_read_all_stats TO poor."
        world.execute("REVOKE USAGE ON SCHEMA prescore FROM poor")
        with pytest.raises(NotPermitted, match="This role may not read the schema prescore of database"):
            diagnose(replace(world.settings, database_url=poor))
    finally:
        world.execute("DROP OWNED BY poor")
        execute(server_url, "DROP ROLE poor")


def test_a_database_of_another_revision_is_examined_as_far_as_it_can_be(world: World, server_url: str) -> None:
    world.execute("INSERT INTO prescore.migrations (name, checksum) VALUES ('9998_add_wonders', 'abc')")
    found = _found(world, fix=True)
    assert set(found) == {"migrations.ahead"}
    assert "it is at 9998_add_wonders" in found["migrations.ahead"].what
    never = replace(world.settings, database_url=server_url)
    assert {s.code for s in diagnose(never).examination.symptoms} >= {"migrations.pending"}


def test_pipelines_models_and_schedules_are_compared_with_what_is_declared(
    world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(world.settings, pipelines_dir=tmp_path)
    other = World(url=world.url, settings=settings)
    assert set(_found(other)) == {"pipeline.undeclared"}
    make_pipeline(other, toml=SCHEDULED)
    found = _found(other)
    assert set(found) == {"schedule.differs"}
    assert "is 0 3 * * * (UTC) in pipeline.toml and none in the database" in found["schedule.differs"].what
    (tmp_path / "items" / "pipeline.toml").write_text(PIPELINE_TOML + "[serve]\nnonsense = 1\n", encoding="utf-8")
    assert set(_found(other)) == {"pipeline.invalid", "pipeline.undeclared"}
    make_pipeline(other)
    pipeline = make_pipeline(other)
    make_model(other, pipeline, promote=False)
    make_model(other, pipeline, promote=False)
    found = _found(other)
    assert set(found) == {"models.unused"}
    assert "prescore models remove items 2" in found["models.unused"].remedy
    monkeypatch.setenv("PRESCORE_DATABASE_URL", other.url)
    refused = CliRunner().invoke(app, ["models", "remove", "items", "1"])
    for use in ("the alias champion names it", "items serves predictions of it", "2 publications of items are of it"):
        assert use in str(refused.exception)
    newest = CliRunner().invoke(app, ["models", "remove", "items", "3"])
    assert "it is the newest one, and its number would be given again" in str(newest.exception)
    assert CliRunner().invoke(app, ["models", "remove", "items", "2"]).stdout.startswith("Removed version 2 of items (")
    assert other.rows("SELECT DISTINCT version FROM prescore.model_chunks ORDER BY 1") == [(1,), (3,)]
    assert _found(other) == {}
    other.execute(
        """UPDATE prescore.models SET environment = '{"numpy": "0.1.2"}'; CREATE TABLE prescore_rows.leftover (a integer)"""
    )
    found = _found(other)
    assert set(found) == {"libraries.differ", "tables.stray"}
    assert "numpy 0.1.2 recorded" in found["libraries.differ"].what


def test_bloat_and_rows_that_wait_for_vacuum_are_found_and_mended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "FEW_ROWS", 10)
    table = world.rows(f"SELECT {SERVING}")[0][0]
    world.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    for _ in range(3):
        world.execute(f"UPDATE {table} SET p = p")
    world.execute("SELECT pg_stat_force_next_flush()")
    found = _found(world)
    assert set(found) == {"autovacuum.off", "storage.dead_rows"}
    assert "900 rows of" in found["storage.dead_rows"].what
    monkeypatch.setattr(pipelines, "LEAST_BYTES", 0)
    assert "storage.bloat" in _found(world)
    monkeypatch.setattr(pipelines, "LEAST_BYTES", 64 * 1024**2)
    assert _found(world, fix=True) == {}


def test_what_status_says_is_said_too_and_a_hung_run_with_its_process(world: World) -> None:
    world.set_clock(datetime.now(UTC) + timedelta(days=30))
    found = _found(world)
    assert set(found) == {"pipeline.expired", "retention.due"}
    assert found["pipeline.expired"].wrong
    with hold_lock(world.url, "items") as connection:
        pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        hung = DEAD_RUN.replace("now(), 1,", f"now(), {pid},")
        world.execute(hung)
        world.execute("UPDATE prescore.runs SET heartbeat_at = now() - interval '6 minutes' WHERE status = 'running'")
        assert "runs.hung" in _found(world)


def test_the_command_says_what_was_done_and_exits_with_3_while_something_is_wrong(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
    world.execute(NO_VIEWS)
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 3
    assert "WRONG    views.missing items" in shown.stdout
    assert "For readers: Readers find nothing to read." in shown.stdout
    assert "1 wrong, 0 worth knowing. `prescore doctor --fix` mends 1 of them." in shown.stdout
    fixed = CliRunner().invoke(app, ["doctor", "--fix"])
    assert fixed.exit_code == 0
    assert "done     views.missing: Made the views of items anew." in fixed.stdout
    monkeypatch.setenv("PRESCORE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


def test_queries_that_fail_or_lack_an_index_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "LARGE_BYTES", 0)
    world.execute("DROP INDEX public.items_updated_at_idx")
    found = _found(world)
    assert set(found) == {"indexes.advised"}
    assert "items/changes.sql: " in found["indexes.advised"].what
    assert "no index begins with updated_at" in found["indexes.advised"].what
    world.execute("CREATE INDEX ON public.items (updated_at)")
    assert _found(world) == {}
    world.execute("ALTER TABLE public.items RENAME c TO d")
    found = _found(world)
    assert set(found) == {"queries.fail"}
    assert "features.sql" in found["queries.fail"].what
    world.execute("ALTER TABLE public.items RENAME d TO c")
    assert _found(world) == {}


def test_a_lock_that_somebody_holds_without_a_run_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LONG", timedelta(0))
    with hold_lock(world.url, "items"):
        found = _found(world)
    assert set(found) == {"locks.held"}
    assert "prescore run (backend " in found["locks.held"].what
    assert "has held the lock of items for " in found["locks.held"].what


def test_deployments_are_compared_with_what_is_declared(
    world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(world.settings, pipelines_dir=tmp_path)
    make_pipeline(World(url=world.url, settings=settings), toml=SCHEDULED)
    there: dict[str, Any] = {}
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setattr(deploy, "open_client", nullcontext)
    monkeypatch.setattr(deploy, "tagged", lambda _: list(there.items()))

    def told() -> dict[str, str]:
        return {symptom.code: symptom.what for symptom in of_deployments(settings)}

    assert told() == {
        "deployments.missing": "score/items has schedules in pipeline.toml and no deployment on the Prefect server."
    }
    full = SimpleNamespace(slug="full", active=True)
    there |= {"score/items": SimpleNamespace(paused=False, schedules=[full])}
    assert told() == {}
    full.active = False
    there |= {"score/gone": SimpleNamespace(paused=False, schedules=[])}
    assert told() == {
        "deployments.paused": "full of score/items are paused on the Prefect server.",
        "deployments.stray": "The Prefect server has score/gone, which no folder declares.",
    }

    def unreachable() -> Any:
        raise PrefectUnreachable("http://127.0.0.1:1/api", "ConnectError")

    monkeypatch.setattr(deploy, "open_client", unreachable)
    assert set(told()) == {"prefect.unreachable"}
    monkeypatch.delenv("PREFECT_API_URL")
    assert told() == {}


@pytest.mark.slow
def test_what_a_killed_run_left_is_found_and_mended(world: World) -> None:
    assert prescore(world, "score", "items", "--full", kill_at="copy.finished").returncode == -9
    assert {"runs.dead", "storage.orphaned"} <= set(_found(world))
    assert set(_found(world, fix=True)) == {"pipeline.crashed"}
    assert world.score().status is Status.PUBLISHED
