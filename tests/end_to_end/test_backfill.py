"""A backfill gives past instants the predictions that runs gave them then, and nothing that is served or judged knows of it."""

from __future__ import annotations

import json
import re
import signal
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from typer.testing import CliRunner

from flows.backfill import backfill, choose_instants
from flows.cli import app
from tasks.backfills import Ended
from tasks.demo import open_shop, pass_day, pipeline_folder
from tasks.errors import UsageError
from tasks.pipeline import Pipeline, load_pipeline
from tasks.registry import promote_now
from tasks.runs import AsOfRefused, hold_lock
from tests.conftest import psql_url
from tests.disturbances import prescore
from tests.factories import World, make_model, make_pipeline, make_world

CUSTOMERS = 300
TODAY = datetime(2026, 3, 1, 3, tzinfo=UTC)
DAYS = [TODAY + timedelta(days=day) for day in range(3)]
ROWS = "customer_id, as_of, rejected, churn_probability, will_churn"


def _published(world: World) -> list[tuple[Any, ...]]:
    """What the run that is served wrote."""
    serving = "storage_id = (SELECT storage_id FROM prescore.head WHERE pipeline = 'churn')"
    return world.rows(f"SELECT {ROWS} FROM prescore_rows.churn WHERE {serving} ORDER BY 1")


def _backfilled(world: World, instant: datetime) -> list[tuple[Any, ...]]:
    return world.rows(f"SELECT {ROWS} FROM predictions.churn_backfill WHERE as_of = '{instant.isoformat()}' ORDER BY 1")


def _untouched(world: World) -> list[Any]:
    """Everything that a backfill must leave as it is."""
    asked = (
        "SELECT generation_id, published_at, quarantined FROM prescore.head",
        "SELECT * FROM prescore.storages ORDER BY storage_id",
        "SELECT run_id, status, trigger FROM prescore.runs ORDER BY 1",
        "SELECT count(*) FROM prescore.profiles",
        "SELECT count(*) FROM prescore.checks",
        "SELECT count(*) FROM prescore.prediction_samples",
        "SELECT count(*), count(DISTINCT generation_id) FROM prescore.generations",
        "SELECT state, overdue, failing_checks, last_run_id FROM prescore.pipeline_health",
        "SELECT customer_id, state, churn_probability, scored_in FROM predictions.churn ORDER BY 1",
    )
    return [world.rows(statement) for statement in asked]


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> tuple[World, dict[datetime, list[tuple[Any, ...]]]]:
    """The demo shop after three days with a full run on each, and what each of them published."""
    world = make_world(database_url, tmp_path, rows=None)
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    files = {file.name: file.read_text() for file in pipeline_folder().iterdir() if file.is_file()}
    toml, features, changes = (files.pop(name) for name in ("pipeline.toml", "features.sql", "changes.sql"))
    pipeline = make_pipeline(world, "churn", toml=toml, features=features, changes=changes, files=files)
    make_model(world, pipeline, train_data_until=TODAY - timedelta(days=1), sample_rows=CUSTOMERS)
    daily = {}
    for passed, day in enumerate(DAYS):
        if passed:  # one customer signs up each day
            pass_day(database_url, since=day - timedelta(days=1), customers=CUSTOMERS + passed - 1)
        world.set_clock(day)
        assert world.score("churn", full=True).status.value == "published"
        daily[day] = _published(world)
    return world, daily


def test_a_backfill_that_was_killed_gives_what_the_daily_runs_gave(
    shop: tuple[World, dict[datetime, list[tuple[Any, ...]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, daily = shop
    before = _untouched(world)
    # Neither waits for the other: the lock of the pipeline is somebody else's all the while.
    with hold_lock(world.url, "churn"):
        words = ("backfill", "churn", "--from", TODAY.isoformat(), "--to", DAYS[-1].isoformat(), "--shuffle")
        killed = prescore(world, *words, "--every", "1d", kill_at="copy.fenced:2")
        assert killed.returncode == -signal.SIGKILL
        assert world.rows("SELECT status, count(*) FROM prescore.backfills GROUP BY 1 ORDER BY 1") == [
            ("done", 1),
            ("running", 1),
        ]
        (first,) = (outcome for (outcome,) in world.rows("SELECT as_of FROM prescore.backfills WHERE status = 'done'"))
        monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
        monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
        resumed = CliRunner().invoke(app, [*words, "--every", "1d", "--json"])
    assert resumed.exit_code == 0, resumed.output
    told = json.loads(resumed.stdout)
    outcomes = told["outcomes"]
    assert told["warnings"] == []
    assert [outcome["ended"] for outcome in outcomes] == ["kept" if day == first else "done" for day in DAYS]

    # An account that was closed for good took its past along; of everybody else the past is what it was.
    left = {key for (key,) in world.rows("SELECT customer_id FROM shop.customers")}
    assert len({row[0] for rows in daily.values() for row in rows} - left) == 2
    for day, rows in daily.items():
        assert _backfilled(world, day) == [row for row in rows if row[0] in left], day
    assert len({tuple(row[3] for row in rows[:50]) for rows in daily.values()}) == len(DAYS)
    assert _untouched(world) == before
    known = world.rows("SELECT status, count(*) FROM prescore.backfills GROUP BY 1 ORDER BY 1")
    assert known == [("crashed", 1), ("done", 3)]
    assert world.rows("SELECT count(DISTINCT scored_in) FROM prescore_rows.churn_backfill") == [(3,)]


@pytest.mark.slow
def test_each_instant_has_the_version_that_was_asked_for_and_what_is_refused_leaves_what_was_there(
    shop: tuple[World, dict[datetime, list[tuple[Any, ...]]]],
) -> None:
    world, _ = shop
    assert backfill(world.settings, "churn", DAYS).exit_code == 0
    pipeline = load_pipeline(world.settings.pipelines_dir / "churn")
    second = make_model(world, pipeline, train_data_until=TODAY, sample_rows=200, promote=False)
    before = _backfilled(world, TODAY)
    # The alias moves at noon of the first day.
    promote_now(world.url, "churn", second.version, "champion", "a test")
    noon = (TODAY + timedelta(hours=9)).isoformat()
    world.execute(f"UPDATE prescore.aliases SET until = '{noon}', since = '2026-01-01' WHERE until IS NOT NULL")
    world.execute(f"UPDATE prescore.aliases SET since = '{noon}' WHERE until IS NULL")
    then = backfill(world.settings, "churn", DAYS[:2], as_then=True)
    assert [(outcome.ended, outcome.model_version) for outcome in then.outcomes] == [(Ended.KEPT, 1), (Ended.DONE, 2)]
    assert _backfilled(world, TODAY) == before
    assert len(_backfilled(world, DAYS[1])) == len({row[0] for row in _backfilled(world, DAYS[1])})
    early = backfill(world.settings, "churn", [TODAY - timedelta(days=90)], as_then=True)
    assert (early.exit_code, early.outcomes[0].ended) == (1, Ended.FAILED)
    assert "was champion at" in early.outcomes[0].message
    query = "SELECT customer_id FROM shop.customers"
    toml = (pipeline.folder / "pipeline.toml").read_text()
    timeless = re.sub(r"^query = .*$", f'query = "{query}"', toml, count=1, flags=re.MULTILINE)
    (pipeline.folder / "pipeline.toml").write_text(timeless)
    (warning,) = backfill(world.settings, "churn", []).warnings
    assert "does not ask run.as_of" in warning
    (pipeline.folder / "pipeline.toml").write_text(toml)
    with pytest.raises(AsOfRefused, match="later than the clock"):
        backfill(world.settings, "churn", [DAYS[-1] + timedelta(seconds=1)])
    # Somebody else is at work on the instant.
    lock = f"'prescore backfill churn ' || CAST(extract(epoch FROM TIMESTAMPTZ '{TODAY.isoformat()}') AS text)"
    other = psycopg2.connect(psql_url(world.url))
    with other.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_lock(hashtextextended({lock}, 0))")
    busy = backfill(world.settings, "churn", [TODAY], again=True)
    other.close()
    assert busy.outcomes[0].ended is Ended.BUSY
    # The view is made again by whoever needs it, for those who may read what is served.
    world.execute("DROP VIEW predictions.churn_backfill; GRANT SELECT ON predictions.churn TO pg_monitor")
    assert backfill(world.settings, "churn", [TODAY], again=True).exit_code == 0
    allowed = "has_table_privilege('pg_monitor', 'predictions.churn_backfill', 'SELECT')"
    assert world.rows(f"SELECT {allowed}") == [(True,)]
    assert before != _backfilled(world, TODAY)  # the alias names another version now
    before = _backfilled(world, TODAY)
    # What cannot be scored leaves what was there.
    world.execute("UPDATE shop.customers SET created_at = 'infinity'")
    emptied = backfill(world.settings, "churn", [TODAY], again=True)
    assert "nobody is in the population" in emptied.outcomes[0].message
    assert _backfilled(world, TODAY) == before


def _scheduled(tmp_path: Path, schedule: str) -> Pipeline:
    folder = tmp_path / "items"
    folder.mkdir(exist_ok=True)
    (folder / "pipeline.toml").write_text(
        '[entity]\nkey = ["id"]\nquery = "SELECT 1 AS id"\n[features]\nquery = "SELECT b.id, b.as_of FROM batch AS b"\n'
        f'[predictions]\np = {{ method = "predict" }}\n{schedule}'
    )
    return load_pipeline(folder)


def test_instants_are_when_the_schedule_fires_or_days_that_keep_their_hour(tmp_path: Path) -> None:
    zone = '[schedule]\ntimezone = "Europe/Paris"\n'
    nightly = _scheduled(tmp_path, f'{zone}full = "0 3 * * *"\n')
    # Clocks go forward on 29 March 2026.
    found = choose_instants(nightly, "2026-03-28", "2026-03-30")
    assert [instant.isoformat() for instant in found] == [
        "2026-03-28T02:00:00+00:00",
        "2026-03-29T01:00:00+00:00",
        "2026-03-30T01:00:00+00:00",
    ]
    unscheduled = _scheduled(tmp_path, zone)
    days = choose_instants(unscheduled, "2026-03-28T03:30", "2026-03-30T12:00")
    assert [instant.hour for instant in days] == [2, 1, 1]
    hours = choose_instants(unscheduled, "2026-03-29T00:00", "2026-03-29T06:00", timedelta(hours=2))
    assert [later - earlier for earlier, later in pairwise(hours)] == [timedelta(hours=2)] * 2
    for since, until in (("2026-03-30", "2026-03-28"), ("yesterday", "2026-03-28"), ("1900-01-01", "2026-01-01T00:00")):
        with pytest.raises(UsageError):
            choose_instants(unscheduled, since, until, timedelta(minutes=1))
