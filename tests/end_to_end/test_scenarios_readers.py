"""What a reader is told when things go wrong around what is served: nobody runs, clocks change, a replica falls behind.

Three more stand where their machinery is: a run killed at every named point, of which each statement of a publication is one
(test_crashes.py); a state that turns within one long transaction (test_reader_states.py); a generation that is found bad
later (test_quarantine.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tasks import migrations
from tasks.freshness import Verdict
from tasks.population import Mode
from tasks.runs import Status, Trigger
from tests.conftest import psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world
from tests.servers import all_servers
from tests.standbys import can_replicate, replicate

# Later than any real clock, so that what the database writes by its own clock lies in the past of the test.
START = datetime(2040, 1, 15, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
OURS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ 'prescore'
"""
SERVE = '\n[serve]\naging_after = "5h"\nstale_after = "6h"\nserve_stale_for = "30h"\n'


def _world(url: str, folder: Path, at: datetime, toml: str) -> World:
    world = make_world(url, folder, rows=30)
    world.set_clock(at)
    make_model(world, make_pipeline(world, toml=toml), train_data_until=at - DAY)
    return world


def _scheduled(world: World, at: datetime, *, full: bool = False) -> None:
    """Publish as the schedule does, at an instant."""
    world.set_clock(at)
    summary = world.score(full=full, trigger=Trigger.SCHEDULED)
    assert summary.status is Status.PUBLISHED, summary.message
    assert summary.mode is (Mode.FULL if full else Mode.INCREMENTAL)


def _health(world: World, at: datetime) -> dict[str, Any]:
    world.set_clock(at)
    found: dict[str, Any] = world.one("SELECT * FROM prescore.pipeline_health")
    return found


def test_scenario_16_with_every_process_of_ours_dead_for_two_days_readers_and_health_say_so(
    database_url: str, tmp_path: Path
) -> None:
    schedule = '\n[schedule]\nfull = "0 3 * * *"\ngrace = "30m"\n'
    world = _world(database_url, tmp_path, START, PIPELINE_TOML + SERVE + schedule)
    _scheduled(world, START, full=True)
    tick = datetime(2040, 1, 16, 3, 30, tzinfo=UTC)
    told = [
        (START + 6 * HOUR - TICK, "aging", False),
        (START + 6 * HOUR, "stale", False),
        (tick - TICK, "stale", False),
        (tick, "stale", True),
        (START + 36 * HOUR - TICK, "stale", True),
        (START + 36 * HOUR, "expired", True),
        (START + 2 * DAY, "expired", True),
    ]
    for at, state, overdue in told:
        world.set_clock(at)
        # A reader with a plain connection, and nobody else.
        with closing(psycopg2.connect(psql_url(database_url), application_name="reader")) as reader:
            cursor = reader.cursor()
            cursor.execute(OURS)
            assert cursor.fetchone() == (0,)
            cursor.execute("SELECT state, p IS NULL FROM predictions.items WHERE id = 7")
            assert cursor.fetchone() == (state, state == "expired")
            cursor.execute("SELECT state FROM predictions.items_for(7)")
            assert cursor.fetchone() == (state,)
            cursor.execute("SELECT count(*) FROM predictions.items_usable")
            assert cursor.fetchone() == (0 if state == "expired" else 30,)
            cursor.execute("SELECT state, overdue FROM prescore.pipeline_health")
            assert cursor.fetchone() == (state, overdue)


@pytest.mark.slow
def test_scenario_19_days_on_which_clocks_change_miss_no_deadline_and_invent_none(
    database_url: str, tmp_path: Path
) -> None:
    # 02:30 in Berlin comes twice on 28 October 2040, and never on 31 March 2041.
    schedule = (
        '\n[schedule]\ntimezone = "Europe/Berlin"\nfull = "30 2 * * *"\nincremental = "0 * * * *"\ngrace = "10m"\n'
    )
    grace = timedelta(minutes=10)
    autumn = datetime(2040, 10, 28, tzinfo=UTC)
    world = _world(database_url, tmp_path, autumn - HOUR, PIPELINE_TOML + SERVE + schedule)

    def due(mode: str, at: datetime) -> None:
        """Fail unless the pipeline is overdue by one schedule from an instant on, to the microsecond."""
        other = "incremental" if mode == "full" else "full"
        kept = world.one(f"SELECT next_tick FROM prescore.schedules WHERE mode = '{other}'")["next_tick"]
        world.execute(f"UPDATE prescore.schedules SET next_tick = 'infinity' WHERE mode = '{other}'")
        assert _health(world, at + grace - TICK)["overdue"] is False
        late = _health(world, at + grace)
        assert (late["overdue"], late["overdue_since"]) == (True, at)
        world.execute(f"UPDATE prescore.schedules SET next_tick = '{kept}' WHERE mode = '{other}'")

    _scheduled(world, autumn + HOUR / 2, full=True)  # 02:30, summer time
    due("incremental", autumn + HOUR)  # 02:00 again, winter time: an hour is missing unless a run covers it
    due("full", autumn + DAY + 1.5 * HOUR)  # 02:30 winter time, 25 hours later
    _scheduled(world, autumn + 1.5 * HOUR)  # the second 02:30
    due("incremental", autumn + 2 * HOUR)
    due("full", autumn + DAY + 1.5 * HOUR)

    spring = datetime(2041, 3, 31, tzinfo=UTC)
    _scheduled(world, spring - DAY + 1.5 * HOUR, full=True)  # 02:30, winter time
    due("full", spring + HOUR)  # 03:00, summer time: there is no 02:30
    _scheduled(world, spring + HOUR, full=True)
    due("full", spring + DAY + HOUR / 2)  # 02:30 summer time, 23.5 hours later
    due("incremental", spring + 2 * HOUR)


def test_who_left_is_removed_and_who_was_born_later_is_missing_with_the_reason(
    database_url: str, tmp_path: Path
) -> None:
    toml = PIPELINE_TOML.replace(
        "SELECT id FROM public.items", "SELECT i.id FROM public.items AS i, run WHERE i.updated_at <= run.as_of"
    )
    world = _world(database_url, tmp_path, START, toml + SERVE)
    world.score()
    world.execute("DELETE FROM public.items WHERE id = 3")
    born = START + HOUR + timedelta(seconds=1)
    world.execute(f"INSERT INTO public.items VALUES (99, 0.5, 0.5, 'x', TIMESTAMPTZ '{born}')")
    # What left is served until the next publication, as everything is that was true when it was looked at.
    assert world.one("SELECT state FROM predictions.items_for(3)")["state"] == "fresh"

    world.set_clock(START + HOUR)
    summary = world.score()

    assert (summary.status, summary.gone, summary.new) == (Status.PUBLISHED, 1, 0)
    assert world.rows("SELECT * FROM predictions.items WHERE id = 3") == []
    assert world.rows("SELECT * FROM prescore_rows.items WHERE id = 3") == []
    assert world.one("SELECT state, p FROM predictions.items_for(3)") == {"state": "missing", "p": None}
    newborn = world.one("SELECT state, p, reasons FROM predictions.items_for(99)")
    assert (newborn["state"], newborn["p"]) == ("missing", None)
    assert "(data_as_of 2040-01-15 13:00:00 UTC): born after data_as_of" in newborn["reasons"][0]
    # It is no entity that the run lost.
    lost = [finding for finding in summary.findings if finding.check_id in {"rows.missing", "rows.torn"}]
    assert {finding.verdict for finding in lost} <= {Verdict.PASS}

    world.set_clock(born + HOUR)
    assert world.score().new == 1
    assert world.one("SELECT state FROM predictions.items_for(99)")["state"] == "fresh"


def _wait_for(cursor: Any, query: str) -> None:
    deadline = time.monotonic() + 60
    cursor.execute(query)
    while cursor.fetchone() != (True,):
        assert time.monotonic() < deadline, query
        cursor.execute(query)


@pytest.fixture
def replicated() -> Iterator[tuple[str, str]]:
    """A primary and a streaming standby of an installed PostgreSQL: their addresses."""
    server = next((server for server in all_servers() if server.binaries and can_replicate(server)), None)
    if server is None:
        pytest.skip("no installed PostgreSQL (15 to 18) with pg_basebackup beside its server")
    with replicate(server) as urls:
        yield urls


@pytest.mark.slow
def test_a_standby_six_hours_behind_is_stale_there_and_fresh_on_the_primary(
    replicated: tuple[str, str], tmp_path: Path
) -> None:
    primary, standby = replicated
    migrations.apply(primary)
    world = _world(primary, tmp_path, START, PIPELINE_TOML + SERVE)
    # Each server has a clock of its own, as machines have: a standby cannot be told by what it replicates.
    world.execute(
        "CREATE OR REPLACE FUNCTION prescore.clock() RETURNS timestamptz LANGUAGE sql STABLE "
        f"AS $$ SELECT coalesce(nullif(current_setting('test.now', true), '')::timestamptz, TIMESTAMPTZ '{START}') $$"
    )
    first = world.score().generation_id

    def read(url: str, at: datetime) -> tuple[Any, ...]:
        with closing(psycopg2.connect(psql_url(url), options=f"-c test.now={at.isoformat()}")) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT state, scored_in FROM predictions.items WHERE id = 7")
            found: tuple[Any, ...] = cursor.fetchone()
            cursor.execute("SELECT state, scored_in FROM predictions.items_for(7)")
            assert cursor.fetchone() == found
            return found

    with closing(psycopg2.connect(psql_url(standby))) as connection:
        connection.autocommit = True
        replica = connection.cursor()
        _wait_for(replica, "SELECT to_regclass('prescore.head') IS NOT NULL")
        _wait_for(replica, f"SELECT coalesce(max(generation_id), 0) = {first} FROM prescore.head")
        replica.execute("SELECT pg_wal_replay_pause()")
        _wait_for(replica, "SELECT pg_get_wal_replay_pause_state() = 'paused'")

        later = START + 6 * HOUR
        world.execute(f"ALTER DATABASE prescore SET test.now = '{later.isoformat()}'")
        second = world.score(full=True).generation_id
        assert read(standby, later - TICK) == ("aging", first)
        assert read(standby, later) == ("stale", first)
        assert read(primary, later) == ("fresh", second)

        replica.execute("SELECT pg_wal_replay_resume()")
        _wait_for(replica, f"SELECT generation_id = {second} FROM prescore.head")
        assert read(standby, later) == ("fresh", second)
