"""Sources on another server: the same predictions, the same ledger, and what goes wrong between two servers is said."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from flows.check import check
from flows.preview import preview_run, read_features
from flows.train import train
from tasks import source_server
from tasks.database import DatabaseUnreachable, connect, raw_execute
from tasks.errors import PrescoreError
from tasks.features import QueryRefused
from tasks.population import Mode
from tasks.runs import AsOfRefused, Status
from tasks.source_server import SourcesLost
from tasks.transport import ConflictWithRecovery
from tests.conftest import _fresh_database, execute, psql_url
from tests.factories import CHANGES_SQL, FEATURES_SQL, PIPELINE_TOML, World, make_model, make_pipeline, make_world
from tests.servers import all_servers
from tests.standbys import can_replicate, replicate

ROWS = "SELECT * FROM prescore_rows.items WHERE storage_id = (SELECT storage_id FROM prescore.head)"
LEDGER = (
    "SELECT mode, population, scored, unchanged, rejected, new, changed, due, gone, key_checksum FROM prescore.runs"
)
SERVED = f"SELECT {{key}}, p, label, rejected FROM ({ROWS}) AS r ORDER BY {{key}}"


@pytest.fixture
def source_url(server_url: str, _template: str) -> Iterator[str]:
    """A database that the items are in; it has prescore's own tables too, so that it can be scored by itself."""
    yield from _fresh_database(server_url, _template)


@pytest.fixture
def apart(database_url: str, source_url: str, tmp_path: Path) -> World:
    """A world whose items are in another database than its predictions."""
    world = make_world(database_url, tmp_path / "apart", source_url=source_url)
    make_model(world, make_pipeline(world))
    return world


@pytest.fixture
def together(apart: World, tmp_path: Path) -> World:
    """The same items and the same pipeline with its predictions beside them."""
    world = make_world(apart.source_url, tmp_path / "together", rows=None)
    make_model(world, make_pipeline(world))
    return world


class At:
    """Watches a run, and does something when it begins a step."""

    def __init__(self, step: str, act: Callable[[], None]) -> None:
        self.step, self.act = step, act

    def stage(self, name: str) -> None:
        if name == self.step:
            self.act()

    def rows(self, done: int, total: int) -> None:
        """Rows are not watched."""


def with_source(world: World, url: str) -> World:
    """The same world with another address of its sources."""
    return replace(world, settings=replace(world.settings, source_url=url))


def last_run(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.one("SELECT status, message FROM prescore.runs ORDER BY run_id DESC LIMIT 1")
    return found


def compare(apart: World, together: World, key: str = "id") -> list[Any]:
    """Both have the same books and serve the same rows; return the books of the last run."""
    ledgers = [world.rows(f"{LEDGER} ORDER BY run_id") for world in (apart, together)]
    assert ledgers[0] == ledgers[1]
    served = [world.rows(SERVED.format(key=key)) for world in (apart, together)]
    assert served[0] == served[1]
    last: list[Any] = ledgers[0][-1]
    return last


# The same as on one server -------------------------------------------------------------------------------------------


def test_full_and_incremental_runs_equal_those_on_one_server(apart: World, together: World) -> None:
    assert apart.rows("SELECT to_regclass('public.items')") == [(None,)]
    assert apart.rows("SELECT 1 FROM pg_extension WHERE extname IN ('postgres_fdw', 'dblink')") == []
    for world in (apart, together):
        assert world.score().mode is Mode.FULL
    compare(apart, together)

    apart.change("UPDATE public.items SET a = a + 1, updated_at = clock_timestamp() WHERE id % 50 = 0")
    apart.change("DELETE FROM public.items WHERE id % 100 = 7")
    apart.change(
        "INSERT INTO public.items SELECT 1000 + x, x, x, 'x', clock_timestamp() FROM generate_series(1, 5) AS x"
    )
    for world in (apart, together):
        summary = world.score()
        assert (summary.status, summary.mode) == (Status.PUBLISHED, Mode.INCREMENTAL)
        assert (summary.new, summary.changed, summary.gone) == (5, 20, 10)
    compare(apart, together)
    assert apart.one("SELECT state FROM predictions.items_for(7)")["state"] == "missing"


def test_fingerprints_are_compared_as_on_one_server(apart: World, together: World) -> None:
    toml = PIPELINE_TOML.replace('changes = "changes.sql"', "fingerprint = true")
    for world in (apart, together):
        make_model(world, make_pipeline(world, toml=toml, changes=None))
        assert world.score().mode is Mode.FULL
    apart.change("UPDATE public.items SET a = a + 1 WHERE id % 50 = 0")
    apart.change("DELETE FROM public.items WHERE id % 100 = 7")
    apart.change("INSERT INTO public.items SELECT 1000 + x, x, x, 'x', '2020-01-01' FROM generate_series(1, 5) AS x")
    for world in (apart, together):
        summary = world.score()
        assert (summary.new, summary.changed, summary.gone, summary.scored) == (5, 20, 10, 25)
    compare(apart, together)

    for world in (apart, together):
        assert world.score().scored == 0
    compare(apart, together)


@pytest.mark.slow
def test_keys_of_several_columns_and_types_travel_as_they_are(apart: World, together: World) -> None:
    toml = PIPELINE_TOML.replace('["id"]', '["u", "d", "t"]').replace("SELECT id FROM", "SELECT u, d, t FROM")
    features = "SELECT b.u, b.d, b.t, b.as_of, i.a, i.b, i.c FROM batch AS b JOIN public.items AS i USING (u, d, t)"
    apart.change(
        "ALTER TABLE public.items ADD u uuid, ADD d date, ADD t varchar(40); "
        "UPDATE public.items SET u = md5(id::text)::uuid, d = date '2024-01-01' + id::integer % 9, "
        """t = (ARRAY['it''s', '"', 'a\\b', '{,}', 'é', ''])[1 + id % 6]"""
    )
    for world in (apart, together):
        pipeline = make_pipeline(
            world, toml=toml, features=features, changes=CHANGES_SQL.replace("id FROM", "u, d, t FROM")
        )
        make_model(world, pipeline)
        world.score()
    apart.change(
        "UPDATE public.items SET updated_at = clock_timestamp() WHERE id <= 12; DELETE FROM public.items WHERE id = 20"
    )
    for world in (apart, together):
        assert world.score().changed == 12
    compare(apart, together, "u, d, t")


@pytest.mark.slow
def test_text_of_a_database_in_another_encoding_arrives_as_it_is(
    database_url: str, server_url: str, tmp_path: Path
) -> None:
    name = f"latin_{uuid.uuid4().hex[:8]}"
    execute(server_url, f"CREATE DATABASE {name} ENCODING LATIN1 LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    try:
        world = make_world(database_url, tmp_path, rows=40, source_url=psql_url(server_url, name))
        world.change("ALTER TABLE public.items ALTER id TYPE text USING 'café ' || id")
        make_model(world, make_pipeline(world))
        assert world.score().scored == 40
        world.change("UPDATE public.items SET updated_at = clock_timestamp() WHERE id = 'café 7'")
        assert (world.score().changed, world.score(full=True).gone) == (1, 0)
        assert world.one("SELECT state FROM predictions.items_for('café 7')") == {"state": "fresh"}
    finally:
        execute(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.mark.slow
def test_an_entity_query_that_repeats_a_key_is_refused(apart: World) -> None:
    apart.score()
    apart.change("CREATE TABLE public.twice AS SELECT id FROM public.items UNION ALL SELECT 1001 UNION ALL SELECT 1001")
    apart.change("INSERT INTO public.items VALUES (1001, 0, 0, 'x', clock_timestamp())")
    make_pipeline(apart, toml=PIPELINE_TOML.replace("FROM public.items", "FROM public.twice"))

    with pytest.raises(PrescoreError, match="returned 1 entities more than once"):
        apart.score(full=True)
    assert apart.one("SELECT count(*) FROM prescore.rejections WHERE reason = 'duplicate_entity'")["count"] == 1


@pytest.mark.slow
def test_entities_without_features_are_rejected_and_no_key_is_lost(apart: World) -> None:
    make_pipeline(apart, features=FEATURES_SQL + " WHERE i.id <> 5")
    summary = apart.score()

    assert (summary.status, summary.population, summary.rejected) == (Status.PUBLISHED, 1_000, 1)
    assert apart.rows("SELECT id, rejected FROM prescore_rows.items WHERE rejected IS NOT NULL") == [(5, "no_features")]


# One snapshot on each server -----------------------------------------------------------------------------------------


def test_a_run_sees_its_sources_as_they_were_and_the_next_one_what_changed_meanwhile(apart: World) -> None:
    def change() -> None:
        apart.change("UPDATE public.items SET a = 5, b = 5, updated_at = clock_timestamp() WHERE id = 3")
        apart.change("DELETE FROM public.items WHERE id = 4")

    before = apart.score().population
    seen = apart.rows("SELECT p FROM predictions.items WHERE id = 3")
    during = apart.score(full=True, watcher=At("load the model", change))

    assert during.population == before
    assert apart.rows("SELECT p FROM predictions.items WHERE id = 3") == seen
    after = apart.score()
    assert (after.changed, after.gone) == (1, 1)
    assert apart.rows("SELECT p FROM predictions.items WHERE id = 3") != seen


@pytest.mark.slow
def test_rows_that_a_transaction_of_the_sources_commits_late_are_found(apart: World) -> None:
    apart.score()
    with connect(apart.source_url) as slow:
        raw_execute(slow, "UPDATE public.items SET a = a + 1, updated_at = now() WHERE id = 9")
        assert apart.score().changed == 0
        slow.commit()
    assert apart.score().changed == 1


def test_a_clock_of_the_sources_that_is_behind_sets_the_run_back(apart: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = source_server.hold_snapshot

    @contextmanager
    def behind(url: str, idle_ms: str) -> Iterator[Any]:
        with hold(url, idle_ms) as (state, holder):
            yield replace(state, now=state.now - timedelta(minutes=7)), holder

    monkeypatch.setattr(source_server, "hold_snapshot", behind)
    began = datetime.now(UTC)
    as_of = apart.score().as_of

    assert as_of is not None
    assert timedelta(minutes=6) < began - as_of <= timedelta(minutes=7)
    assert apart.one("SELECT data_as_of, watermark FROM prescore.head") == {"data_as_of": as_of, "watermark": as_of}


# What a person asks for ----------------------------------------------------------------------------------------------


def test_check_and_previews_read_the_other_server(apart: World) -> None:
    (report,) = check(apart.settings, "items")
    assert report.errors == ()
    assert (report.would["mode"], report.would["new"]) == ("full", 1_000)

    apart.score()
    apart.change("UPDATE public.items SET updated_at = clock_timestamp() WHERE id <= 3")
    (report,) = check(apart.settings, "items")
    assert (report.would["mode"], report.would["changed"], report.would["would_leave"]) == ("incremental", 3, 997)
    assert preview_run(apart.settings, "items", limit=1, named=["7"]).entities[0].predictions is not None
    assert read_features(apart.settings, "items", limit=4).rows.num_rows == 4


@pytest.mark.slow
def test_training_reads_the_other_server(apart: World) -> None:
    labels = "SELECT id, now() AS as_of, (a > 0)::integer AS label FROM public.items, run"
    model = (
        "from sklearn.linear_model import LogisticRegression\nfrom sklearn.pipeline import make_pipeline\n"
        "from sklearn.impute import SimpleImputer\ndef build_model():\n"
        "    return make_pipeline(SimpleImputer(), LogisticRegression())\n"
    )
    make_pipeline(
        apart,
        features="SELECT i.id, b.as_of, i.a, i.b FROM batch AS b JOIN public.items AS i ON i.id = b.id",
        toml=PIPELINE_TOML + '[training]\nlabels = "labels.sql"\nestimator = "model.py:build_model"\n',
        files={"labels.sql": labels, "model.py": model},
    )
    assert train(apart.settings, "items", promote=True).rows_fitted > 0
    assert apart.score().status is Status.PUBLISHED


@pytest.mark.slow
def test_a_role_that_may_only_read_the_sources_is_enough(apart: World, server_url: str) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    execute(server_url, f"CREATE ROLE {role} LOGIN PASSWORD 'only-reads'")
    try:
        apart.change(f"GRANT USAGE ON SCHEMA public TO {role}; GRANT SELECT ON public.items TO {role}")
        url = apart.source_url.replace(apart.source_url.split("//")[1].split("@")[0], f"{role}:only-reads")
        reading = with_source(apart, url)
        assert reading.score().population == 1_000
        assert reading.score().mode is Mode.INCREMENTAL
        (report,) = check(reading.settings, "items")
        assert any("GRANT pg_read_all_stats" in warning for warning in report.warnings)
        apart.change(f"DROP OWNED BY {role}")
    finally:
        execute(server_url, f"DROP ROLE IF EXISTS {role}")


# What goes wrong between two servers ---------------------------------------------------------------------------------


def test_a_source_that_is_down_fails_the_run_and_what_is_served_stays(apart: World) -> None:
    served = apart.score().generation_id
    gone = with_source(apart, "postgresql://somebody:topsecret@127.0.0.1:1/shop")

    with pytest.raises(DatabaseUnreachable) as raised:
        gone.score()

    assert "database shop on 127.0.0.1:1" in str(raised.value)
    assert "Check PRESCORE_SOURCE_URL" in str(raised.value)
    assert last_run(apart) == {"status": "failed", "message": str(raised.value)}
    assert apart.rows("SELECT DISTINCT scored_in FROM predictions.items") == [(served,)]
    (report,) = check(gone.settings, "items")
    assert "Check PRESCORE_SOURCE_URL" in report.errors[0]
    assert apart.score().status is Status.PUBLISHED


def test_a_wrong_password_is_told_without_the_password(apart: World) -> None:
    user = apart.source_url.split("//")[1].split(":")[0]
    secret = apart.source_url.split("//")[1].split("@")[0]
    wrong = with_source(apart, apart.source_url.replace(secret, f"{user}:not-the-password"))

    with pytest.raises(DatabaseUnreachable, match="password authentication failed") as raised:
        wrong.score()

    assert "PRESCORE_SOURCE_URL" in str(raised.value)
    assert "not-the-password" not in str(raised.value) + last_run(apart)["message"]


@pytest.mark.parametrize("url", ["mysql://me:topsecret@there/shop", "there is none"])
def test_an_address_that_is_none_is_refused_before_anything_is_opened(apart: World, url: str) -> None:
    with pytest.raises(PrescoreError, match="PRESCORE_SOURCE_URL") as raised:
        with_source(apart, url).score()

    assert "topsecret" not in str(raised.value)
    assert apart.rows("SELECT 1 FROM prescore.runs") == []


def test_sources_whose_columns_change_are_told_and_what_is_served_stays(apart: World) -> None:
    served = apart.score().generation_id
    apart.change("ALTER TABLE public.items ALTER c TYPE double precision USING 1.5")
    assert apart.score(full=True).status is Status.ABORTED
    assert "c" in last_run(apart)["message"]

    apart.change("ALTER TABLE public.items DROP COLUMN c")
    with pytest.raises(QueryRefused, match=r"features\.sql"):
        apart.score()
    assert apart.rows("SELECT DISTINCT scored_in FROM predictions.items") == [(served,)]


def test_a_statement_that_a_standby_ends_says_what_to_set(apart: World) -> None:
    apart.change(
        "CREATE FUNCTION public.replayed(x double precision) RETURNS double precision LANGUAGE plpgsql STABLE AS $$ BEGIN "
        "RAISE EXCEPTION 'canceling statement due to conflict with recovery' USING ERRCODE = '40001'; END $$"
    )
    make_pipeline(apart, features=FEATURES_SQL.replace("i.a", "public.replayed(i.a) AS a"))

    with pytest.raises(
        ConflictWithRecovery, match="hot_standby_feedback = on there, or raise max_standby_streaming_delay"
    ):
        apart.score()
    assert "conflict with recovery" in last_run(apart)["message"]


@pytest.mark.parametrize("step", ["check the guards", pytest.param("score", marks=pytest.mark.slow)])
def test_a_connection_to_the_sources_that_is_lost_says_whose(apart: World, step: str) -> None:
    def cut() -> None:
        apart.change(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    with pytest.raises(SourcesLost, match=r"connection to the sources \(.*\) was lost\. What was read"):
        apart.score(watcher=At(step, cut))
    assert last_run(apart)["status"] == "failed"
    assert apart.score().status is Status.PUBLISHED


# A standby -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[server for server in all_servers() if can_replicate(server)], ids=lambda server: server.name)
def standby(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Standby]:
    """A world whose items are read on a standby of each PostgreSQL, and its primary."""
    with replicate(request.param) as (primary, replica):
        world = make_world(database_url, tmp_path, source_url=primary)
        make_model(world, make_pipeline(world))
        yield Standby(primary=world, world=with_source(world, replica))


@dataclass(frozen=True)
class Standby:
    """Two worlds with the same predictions: one reads its items on the primary, the other on the standby."""

    primary: World
    world: World

    def catch_up(self) -> None:
        """Wait until everything that the primary has committed is replayed."""
        with connect(self.primary.source_url) as connection:
            reached = raw_execute(connection, "SELECT pg_current_wal_flush_lsn()::text").fetchall()[0][0]
        self.wait(f"SELECT pg_last_wal_replay_lsn() >= '{reached}'")

    def wait(self, query: str) -> None:
        """Wait until a query is true on the standby."""
        deadline = time.monotonic() + 60
        while self.ask(query) is not True:
            assert time.monotonic() < deadline, query

    def ask(self, query: str) -> Any:
        """Return the one value of a query on the standby."""
        with closing(psycopg2.connect(psql_url(self.world.source_url))) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(query)
            return cursor.fetchone()[0]


@pytest.mark.slow
def test_a_run_on_a_standby_is_as_of_what_it_has_replayed(standby: Standby) -> None:
    primary, world = standby.primary, standby.world
    standby.catch_up()
    full = world.score()
    replayed = standby.ask("SELECT pg_last_xact_replay_timestamp()")
    assert (full.status, full.population, full.as_of) == (Status.PUBLISHED, 1_000, replayed)
    assert world.one("SELECT data_as_of FROM prescore.head")["data_as_of"] == replayed
    (report,) = check(world.settings, "items")
    assert report.errors == ()
    assert report.would["as_of"] == replayed
    assert len([warning for warning in report.warnings if "on a standby" in warning]) == 2

    # What began before the run and is committed after it is found: within ten minutes nobody has to declare anything.
    with connect(primary.source_url) as slow:
        raw_execute(slow, "UPDATE public.items SET a = a + 1, updated_at = now() WHERE id = 9")
        primary.change("UPDATE public.items SET a = a + 1, updated_at = now() WHERE id = 10")
        standby.catch_up()
        assert world.score().changed == 1
        slow.commit()
    standby.catch_up()
    assert world.score().changed == 2  # the tenth again: it changed within ten minutes of the watermark

    standby.ask("SELECT pg_wal_replay_pause()")
    standby.wait("SELECT pg_get_wal_replay_pause_state() = 'paused'")
    before = standby.ask("SELECT pg_last_xact_replay_timestamp()")
    primary.change("DELETE FROM public.items WHERE id = 5")
    lagging = world.score(full=True)
    assert (lagging.population, lagging.as_of) == (1_000, before)
    with pytest.raises(
        AsOfRefused, match="later than the last transaction that the standby of the sources has replayed"
    ):
        world.score(as_of=datetime.now(UTC))

    ahead = primary.score()
    assert (ahead.gone, ahead.mode) == (1, Mode.INCREMENTAL)
    with pytest.raises(AsOfRefused, match="Run again when the last transaction that the standby"):
        world.score()
    standby.ask("SELECT pg_wal_replay_resume()")
    # An idle primary is made to commit something.
    primary.change("SELECT pg_current_xact_id()")
    standby.wait(f"SELECT pg_last_xact_replay_timestamp() > '{ahead.as_of}'")
    assert world.score().population == 999


@pytest.mark.slow
def test_a_standby_that_has_to_go_on_ends_the_run_and_says_what_to_set(standby: Standby) -> None:
    def replay() -> None:
        standby.primary.change("DELETE FROM public.items WHERE id > 500")
        with connect(standby.primary.source_url, autocommit=True) as connection:
            raw_execute(connection, "VACUUM public.items")
        standby.wait("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'prescore snapshot'")

    standby.catch_up()
    with connect(standby.world.source_url, autocommit=True) as connection:
        raw_execute(connection, "ALTER SYSTEM SET max_standby_streaming_delay = '10ms'")
        raw_execute(connection, "SELECT pg_reload_conf()")
    served = standby.primary.score().generation_id
    standby.primary.change("SELECT pg_current_xact_id()")
    standby.catch_up()

    with pytest.raises((SourcesLost, ConflictWithRecovery), match="hot_standby_feedback = on"):
        standby.world.score(full=True, watcher=At("score", replay))

    assert last_run(standby.world)["status"] == "failed"
    assert standby.world.rows("SELECT DISTINCT scored_in FROM predictions.items") == [(served,)]
    standby.catch_up()
    assert standby.world.score(full=True).population == 500
