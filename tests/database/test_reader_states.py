"""What a reader is told, by the clock of the database: each state exactly from its instant on, in view, usable and lookup."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg2
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline as chain

from tasks.database import connect, raw_execute
from tasks.population import Mode
from tasks.runs import Status, Trigger
from tests.conftest import execute, psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

# Later than any real clock, so that what the database writes by its own clock lies in the past of the test.
START = datetime(2040, 1, 15, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SERVE = '\n[serve]\naging_after = "1h"\nstale_after = "2h"\nserve_stale_for = "3h"\n'
SKEW = timedelta(minutes=5)

VIEW_COLUMNS = [
    "id", "state", "age", "data_as_of", "as_of", "aging_at", "stale_at", "expires_at", "cache_for", "reasons",
    "model_version", "scored_in", "p", "label",
]  # fmt: skip


def _needs_b(_: Any, frame: pd.DataFrame) -> Any:
    """Fit a classifier that raises on a NULL in b."""
    numbers = ColumnTransformer([("numbers", "passthrough", ["a", "b"])])
    known = frame.fillna({"a": 0.0, "b": 0.0})
    return chain(numbers, LogisticRegression()).fit(known, np.arange(len(frame)) % 2)


def _small_world(url: str, folder: Path, *, rows: int = 30) -> World:
    world = make_world(url, folder, rows=rows)
    world.execute("UPDATE public.items SET b = 0 WHERE b IS NULL")
    world.set_clock(START)
    return world


def _published(url: str, folder: Path, toml: str = PIPELINE_TOML + SERVE, **model: Any) -> World:
    """Publish a small world as of START."""
    world = _small_world(url, folder)
    model.setdefault("train_data_until", START - timedelta(days=1))
    make_model(world, make_pipeline(world, toml=toml), **model)
    summary = world.score()
    assert summary.status is Status.PUBLISHED, summary.message
    return world


def _change(world: World, condition: str) -> None:
    """Change items a second ago: what changes at the instant of a run itself is scored again by the next one."""
    world.execute(f"UPDATE public.items SET updated_at = prescore.clock() - interval '1 s' WHERE {condition}")


def _read(world: World, key: int = 7) -> dict[str, Any]:
    """Read a key through the view, and require that the lookup function says the same and usable agrees."""
    seen: dict[str, Any] = world.one(f"SELECT * FROM predictions.items WHERE id = {key}")
    assert world.one(f"SELECT * FROM predictions.items_for({key})") == seen
    usable = world.rows(f"SELECT p, label FROM predictions.items_usable WHERE id = {key}")
    expected = [(seen["p"], seen["label"])] if seen["state"] in {"fresh", "aging", "stale"} else []
    assert usable == expected
    return seen


def _states(world: World, at: datetime, *keys: int) -> list[str]:
    world.set_clock(at)
    return [_read(world, key)["state"] for key in keys]


def _disagreements(connection: Any) -> list[Any]:
    """Return the rows in which usable differs from the usable states of the view, read in one statement."""
    wanted = "SELECT id, p, label FROM predictions.items WHERE state IN ('fresh', 'aging', 'stale')"
    usable = "SELECT id, p, label FROM predictions.items_usable"
    statement = f"({wanted} EXCEPT ALL {usable}) UNION ALL ({usable} EXCEPT ALL {wanted})"
    return list(raw_execute(connection, statement).fetchall())


@pytest.fixture
def reader_url(database_url: str) -> Iterator[str]:
    """The database as a role that may read the schema predictions and nothing else."""
    role = "reader_" + database_url.rsplit("/", 1)[1]
    execute(database_url, f"CREATE ROLE {role} LOGIN PASSWORD 'reads'")
    yield database_url.replace(database_url.split("//")[1].split("@", maxsplit=1)[0], f"{role}:reads")
    execute(database_url, f"DROP OWNED BY {role}")
    execute(database_url, f"DROP ROLE {role}")


def test_every_state_begins_exactly_at_its_instant_and_masks_what_it_must(database_url: str, tmp_path: Path) -> None:
    world = _published(database_url, tmp_path)
    world.set_clock(START)
    first = _read(world)
    assert (first["data_as_of"], first["as_of"], first["age"]) == (START, START, timedelta(0))
    assert (first["aging_at"], first["stale_at"], first["expires_at"]) == (
        START + HOUR,
        START + 2 * HOUR,
        START + 5 * HOUR,
    )
    assert first["p"] is not None
    assert first["label"] is not None

    expected = [
        (START - SKEW - TICK, "clock_error", timedelta(0)),
        (START - SKEW, "fresh", timedelta(minutes=5)),
        (START, "fresh", timedelta(minutes=5)),
        (START + HOUR - TICK, "fresh", timedelta(minutes=5)),
        (START + HOUR, "aging", timedelta(minutes=5)),
        (START + HOUR + TICK, "aging", timedelta(minutes=5)),
        (START + 2 * HOUR - TICK, "aging", TICK),
        (START + 2 * HOUR, "stale", timedelta(seconds=30)),
        (START + 2 * HOUR + TICK, "stale", timedelta(seconds=30)),
        (START + 5 * HOUR - TICK, "stale", TICK),
        (START + 5 * HOUR, "expired", timedelta(0)),
        (START + 5 * HOUR + TICK, "expired", timedelta(0)),
        (START + timedelta(days=4000), "expired", timedelta(0)),
    ]
    for instant, state, cache_for in expected:
        world.set_clock(instant)
        seen = _read(world)
        shown = state in {"fresh", "aging", "stale"}
        assert (seen["state"], seen["cache_for"], seen["age"]) == (state, cache_for, instant - START), instant
        assert (seen["p"], seen["label"]) == ((first["p"], first["label"]) if shown else (None, None)), instant
        assert world.one("SELECT state FROM prescore.pipeline_health")["state"] == state, instant


def test_an_expired_prediction_is_shown_only_when_the_contract_serves_it(database_url: str, tmp_path: Path) -> None:
    world = _published(database_url, tmp_path, toml=PIPELINE_TOML + SERVE + 'on_expired = "serve"\n')
    fresh = _read(world)

    world.set_clock(START + 5 * HOUR)
    expired = _read(world)
    world.set_clock(START - SKEW - TICK)
    unbelievable = _read(world)

    assert (expired["state"], expired["p"], expired["label"]) == ("expired", fresh["p"], fresh["label"])
    assert (unbelievable["state"], unbelievable["p"]) == ("clock_error", None)


def test_a_reader_may_bound_how_long_stale_predictions_are_good_enough(database_url: str, tmp_path: Path) -> None:
    world = _published(database_url, tmp_path)
    stale_at = START + 2 * HOUR

    def lookup(at: datetime, max_stale: str) -> tuple[str, bool, timedelta]:
        world.set_clock(at)
        found = world.one(f"SELECT state, p, cache_for FROM predictions.items_for(7, max_stale => {max_stale})")
        return found["state"], found["p"] is not None, found["cache_for"]

    half_minute, none = timedelta(seconds=30), timedelta(0)
    assert lookup(stale_at - TICK, "interval '0'") == ("aging", True, TICK)
    assert lookup(stale_at, "interval '0'") == ("expired", False, none)
    assert lookup(stale_at, "interval '1 hour'") == ("stale", True, half_minute)
    assert lookup(stale_at + HOUR - TICK, "interval '1 hour'") == ("stale", True, TICK)
    assert lookup(stale_at + HOUR, "interval '1 hour'") == ("expired", False, none)
    assert lookup(stale_at + 2 * HOUR, "NULL") == ("stale", True, half_minute)
    assert lookup(stale_at + 3 * HOUR - TICK, "NULL") == ("stale", True, TICK)
    assert lookup(stale_at + 3 * HOUR, "interval '9 hours'") == ("expired", False, none)


def test_a_key_that_is_not_there_is_one_row_that_says_missing(database_url: str, tmp_path: Path) -> None:
    world = _published(database_url, tmp_path)

    missing = world.one("SELECT * FROM predictions.items_for(123456)")

    assert list(missing) == VIEW_COLUMNS
    assert {name for name, value in missing.items() if value is not None} == {"id", "state", "reasons"}
    (generation,) = world.rows("SELECT generation_id FROM prescore.head")[0]
    assert (missing["id"], missing["state"], missing["reasons"]) == (
        123456,
        "missing",
        [
            f"missing: not among the entities of generation {generation} as of 2040-01-15 12:00:00 UTC "
            "(data_as_of 2040-01-15 12:00:00 UTC): born after data_as_of, or never in the population"
        ],
    )
    assert world.rows("SELECT * FROM predictions.items WHERE id = 123456") == []


def test_a_rejected_entity_has_its_reason_and_no_prediction(database_url: str, tmp_path: Path) -> None:
    world = _small_world(database_url, tmp_path)
    make_model(world, make_pipeline(world, toml=PIPELINE_TOML + SERVE), fit=_needs_b, train_data_until=START)
    world.execute("UPDATE public.items SET b = NULL WHERE id IN (3, 4)")
    summary = world.score()
    assert (summary.status, summary.rejected) == (Status.PUBLISHED, 2)

    for instant in (START, START + HOUR, START + 2 * HOUR, START + 5 * HOUR):
        world.set_clock(instant)
        seen = _read(world, 3)
        assert (seen["state"], seen["p"], seen["label"], seen["cache_for"]) == ("rejected", None, None, timedelta(0))
        assert seen["reasons"][0] == "rejected: null:b"
    assert _states(world, START - SKEW - TICK, 3, 7) == ["clock_error", "clock_error"]

    # Mended, it gets a prediction from the next run although nothing else about it changed.
    world.execute("UPDATE public.items SET b = 1 WHERE id IN (3, 4)")
    world.set_clock(START + HOUR)
    again = world.score()
    assert (again.mode, again.due, again.rejected) == (Mode.INCREMENTAL, 2, 0)
    assert _states(world, START + HOUR, 3, 7) == ["fresh", "aging"]


def test_a_generation_can_be_superseded_or_quarantined_without_touching_its_rows(
    database_url: str, tmp_path: Path
) -> None:
    world = _published(database_url, tmp_path)
    before = world.one("SELECT generation_id FROM prescore.head")["generation_id"]
    world.set_clock(START + timedelta(minutes=10))
    _change(world, "id <= 3")
    after = world.score()
    assert (after.mode, after.changed) == (Mode.INCREMENTAL, 3)
    assert _states(world, START + timedelta(minutes=10), 3, 7) == ["fresh", "fresh"]

    world.execute(f"UPDATE prescore.head SET valid_since = {after.generation_id}")
    assert [_read(world, key)["state"] for key in (3, 7)] == ["fresh", "superseded"]
    assert _read(world, 7)["p"] is None

    world.execute(f"UPDATE prescore.head SET valid_since = {before}, quarantined = '{{{after.generation_id}}}'")
    assert [_read(world, key)["state"] for key in (3, 7)] == ["quarantined", "fresh"]
    assert (_read(world, 3)["p"], _read(world, 3)["cache_for"]) == (None, timedelta(0))
    assert world.one("SELECT state FROM prescore.pipeline_health")["state"] == "quarantined"

    # The worst wins, whatever the clock says.
    world.execute(
        f"UPDATE prescore.head SET valid_since = {after.generation_id + 1}, quarantined = '{{{after.generation_id}}}'"
    )
    for instant in (START - HOUR, START, START + 9 * HOUR):
        assert _states(world, instant, 3, 7) == ["quarantined", "superseded"]


def test_a_flagged_publication_is_aging_from_the_start_and_says_why(database_url: str, tmp_path: Path) -> None:
    world = _published(database_url, tmp_path)
    world.execute("UPDATE prescore.head SET verdict = 'warn', reasons = '{\"schema: the model does not know d\"}'")

    assert _states(world, START, 7) == ["aging"]
    assert _read(world)["reasons"] == ["schema: the model does not know d"]
    assert world.one("SELECT state FROM prescore.pipeline_health")["state"] == "aging"
    assert _states(world, START + 2 * HOUR, 7) == ["stale"]


@pytest.mark.parametrize("days", [30, 60])
def test_an_old_model_lowers_the_state_to_aging_then_stale_and_never_further(
    database_url: str, tmp_path: Path, days: int
) -> None:
    turn = START + timedelta(minutes=30)
    world = _published(database_url, tmp_path, train_data_until=turn - timedelta(days=days))
    before, after = ("fresh", "aging") if days == 30 else ("aging", "stale")

    assert _states(world, turn - TICK, 7) == [before]
    assert _states(world, turn, 7) == [after]
    assert _read(world)["aging_at" if days == 30 else "stale_at"] == turn
    assert world.one("SELECT state FROM prescore.pipeline_health")["state"] == after
    # A reader's own bound counts from there, too.
    bounded = "SELECT state FROM predictions.items_for(7, max_stale => interval '10 minutes')"
    if days == 60:
        for at, state in ((turn + 10 * MINUTE - TICK, "stale"), (turn + 10 * MINUTE, "expired")):
            world.set_clock(at)
            assert world.one(bounded)["state"] == state
    assert _states(world, START + 5 * HOUR - TICK, 7) == ["stale"]
    assert _states(world, START + 5 * HOUR, 7) == ["expired"]


@pytest.mark.parametrize("time_invariant", [False, True])
def test_a_row_left_alone_ages_from_its_own_instant_unless_features_do_not_depend_on_time(
    database_url: str, tmp_path: Path, time_invariant: bool
) -> None:
    toml = PIPELINE_TOML.replace(
        'changes = "changes.sql"', f'changes = "changes.sql"\ntime_invariant = {time_invariant}'.lower()
    )
    world = _published(database_url, tmp_path, toml=toml + SERVE)
    later = timedelta(minutes=40)
    world.set_clock(START + later)
    _change(world, "id <= 3")
    assert world.score().mode is Mode.INCREMENTAL

    rescored, left_alone = _read(world, 3), _read(world, 7)
    assert (rescored["as_of"], left_alone["as_of"]) == (START + later, START)
    origin = START + later if time_invariant else START
    assert (left_alone["data_as_of"], left_alone["age"]) == (origin, START + later - origin)
    for limit, before, after in (
        (HOUR, "fresh", "aging"),
        (2 * HOUR, "aging", "stale"),
        (5 * HOUR, "stale", "expired"),
    ):
        assert _states(world, origin + limit - TICK, 7) == [before]
        assert _states(world, origin + limit, 7) == [after]
        assert _states(world, START + later + limit - TICK, 3) == [before]
        assert _states(world, START + later + limit, 3) == [after]


@pytest.mark.parametrize("time_invariant", [False, True])
def test_usable_holds_exactly_the_rows_whose_state_may_be_used_at_every_instant(
    database_url: str, tmp_path: Path, time_invariant: bool
) -> None:
    toml = PIPELINE_TOML.replace(
        'changes = "changes.sql"', f'changes = "changes.sql"\ntime_invariant = {time_invariant}'.lower()
    )
    world = _small_world(database_url, tmp_path)
    make_model(world, make_pipeline(world, toml=toml + SERVE), fit=_needs_b, train_data_until=START)
    world.execute("UPDATE public.items SET b = NULL WHERE id = 4")
    world.score()
    generations = []
    for number, minutes in enumerate((7, 50, 90)):
        world.set_clock(START + timedelta(minutes=minutes))
        _change(world, f"id BETWEEN {5 * number + 1} AND {5 * number + 3}")
        generations.append(world.score().generation_id)
    assert len(world.rows("SELECT DISTINCT as_of FROM predictions.items")) == 4
    states = set()
    steps = random.Random(2040)
    starts = [START, *(START + timedelta(minutes=minutes) for minutes in (7, 50, 90))]
    limits = [-SKEW, timedelta(0), HOUR, 2 * HOUR, 5 * HOUR]
    instants = [start + limit + near for start in starts for limit in limits for near in (-TICK, timedelta(0), TICK)]
    instants += [START + timedelta(seconds=steps.uniform(-1_200, 30_000)) for _ in range(25)]
    heads = [
        "quarantined = '{}'",
        f"quarantined = '{{{generations[0]}}}'",
        f"quarantined = '{{{generations[0]},{generations[2]}}}', valid_since = {generations[1]}",
        "quarantined = '{}', model_stale_at = data_as_of, verdict = 'fail'",
        # A source that promises less than the contract, and one that is older than the runs.
        f"aging_at = data_as_of, stale_at = data_as_of, expires_at = '{START + 2 * HOUR}'",
        f"data_as_of = '{START - timedelta(minutes=1)}'",
    ]

    with connect(database_url) as connection:
        raw_execute(connection, "CREATE TABLE public.clock (at timestamptz)")
        raw_execute(connection, "INSERT INTO public.clock VALUES (now())")
        raw_execute(
            connection,
            "CREATE OR REPLACE FUNCTION prescore.clock() RETURNS timestamptz LANGUAGE sql STABLE "
            "AS $$ SELECT at FROM public.clock $$",
        )
        for head in heads:
            raw_execute(connection, f"UPDATE prescore.head SET {head}")
            for instant in instants:
                raw_execute(connection, f"UPDATE public.clock SET at = '{instant.isoformat()}'")
                assert _disagreements(connection) == [], (head, instant)
                states |= {row[0] for row in raw_execute(connection, "SELECT state FROM predictions.items").fetchall()}

    assert states == {
        "fresh", "aging", "stale", "expired", "rejected", "clock_error", "superseded", "quarantined"
    }  # fmt: skip


def test_a_long_transaction_sees_its_predictions_go_stale(database_url: str, tmp_path: Path) -> None:
    world = _published(database_url, tmp_path)
    # The clock as it is shipped, only further on: stale_at lies a second and a half ahead.
    world.execute(
        f"CREATE TABLE public.ahead AS SELECT TIMESTAMPTZ '{START + 2 * HOUR}' - clock_timestamp() - interval '1.5 s' AS by;"
        "CREATE OR REPLACE FUNCTION prescore.clock() RETURNS timestamptz LANGUAGE sql STABLE "
        "AS $$ SELECT statement_timestamp() + (SELECT by FROM public.ahead) $$"
    )
    reading = "SELECT state, prescore.clock() >= stale_at, scored_in FROM predictions.items WHERE id = 7"
    with connect(database_url) as connection:
        raw_execute(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        seen = [raw_execute(connection, reading).fetchone()]
        while seen[-1][0] != "stale" and len(seen) < 1_000_000:
            seen.append(raw_execute(connection, reading).fetchone())

    # Each statement is judged by its own time, in one snapshot.
    assert {(state, late) for state, late, _ in seen} <= {("aging", False), ("stale", True)}
    assert seen[-1][:2] == ("stale", True)
    assert len({scored_in for *_, scored_in in seen}) == 1


def test_the_shipped_clock_moves_within_a_transaction(database_url: str) -> None:
    with connect(database_url) as connection:
        raw_execute(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        first, begun = raw_execute(connection, "SELECT prescore.clock(), now()").fetchone()
        second, still = raw_execute(connection, "SELECT prescore.clock(), now()").fetchone()

    assert begun == still
    assert first < second


def test_the_columns_come_in_the_documented_order_and_everything_has_a_comment(
    database_url: str, tmp_path: Path
) -> None:
    world = _published(database_url, tmp_path)

    assert list(_read(world)) == VIEW_COLUMNS
    assert list(world.one("SELECT * FROM predictions.items_for(7)")) == VIEW_COLUMNS
    assert list(world.one("SELECT * FROM predictions.items_usable WHERE id = 7")) == ["id", "p", "label"]
    silent = world.rows(
        """
        SELECT format('%s.%s', c.oid::regclass, a.attname)
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum >= 0 AND NOT a.attisdropped
        WHERE c.relnamespace::regnamespace::text IN ('prescore', 'prescore_rows', 'predictions')
          AND c.relkind IN ('r', 'p', 'v') AND col_description(c.oid, a.attnum) IS NULL
        UNION ALL
        SELECT c.oid::regclass::text FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace::regnamespace::text IN ('prescore', 'prescore_rows', 'predictions')
          AND c.relkind IN ('r', 'p', 'v') AND obj_description(c.oid, 'pg_class') IS NULL
        UNION ALL
        SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace::regnamespace::text IN ('prescore', 'predictions') AND obj_description(p.oid, 'pg_proc') IS NULL
        """
    )
    assert silent == []


def test_a_role_that_may_read_predictions_and_nothing_else_reads_all_of_them(
    database_url: str, reader_url: str, tmp_path: Path
) -> None:
    world = _published(database_url, tmp_path)
    role = reader_url.split("//")[1].split(":", maxsplit=1)[0]
    world.execute(
        f"GRANT USAGE ON SCHEMA predictions TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA predictions TO {role}"
    )

    reader = psycopg2.connect(psql_url(reader_url))
    try:
        reader.autocommit = True
        with reader.cursor() as cursor:
            cursor.execute("SELECT state FROM predictions.items WHERE id = 7")
            assert cursor.fetchall() == [("fresh",)]
            cursor.execute("SELECT count(*) FROM predictions.items_usable")
            assert cursor.fetchall() == [(30,)]
            cursor.execute("SELECT state FROM predictions.items_for(7, max_stale => interval '1 hour')")
            assert cursor.fetchall() == [("fresh",)]
            cursor.execute("SELECT state, reasons[1] LIKE '%born after data_as_of%' FROM predictions.items_for(-1)")
            assert cursor.fetchall() == [("missing", True)]
            for beyond in ("prescore.head", "prescore_rows.items", "public.items"):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(f"SELECT * FROM {beyond}")
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute("DELETE FROM predictions.items_usable")
    finally:
        reader.close()


SCHEDULE = '\n[schedule]\nfull = "0 3 * * *"\nincremental = "0 * * * *"\ngrace = "30m"\n'
NIGHT = datetime(2040, 1, 16, 3, tzinfo=UTC)


def _health(world: World, at: datetime) -> dict[str, Any]:
    world.set_clock(at)
    health: dict[str, Any] = world.one("SELECT * FROM prescore.pipeline_health WHERE pipeline = 'items'")
    return health


def test_a_schedule_that_did_not_run_shows_without_any_process_of_ours(database_url: str, tmp_path: Path) -> None:
    daily = SCHEDULE.replace('incremental = "0 * * * *"\n', "")
    world = _published(database_url, tmp_path, toml=PIPELINE_TOML + daily)
    grace = timedelta(minutes=30)

    early = _health(world, NIGHT + grace - TICK)
    late = _health(world, NIGHT + grace)
    assert (early["overdue"], early["overdue_since"], early["next_tick"]) == (False, None, NIGHT)
    assert (late["overdue"], late["overdue_since"], late["next_tick"]) == (True, NIGHT, NIGHT)

    # A person's run serves fresh predictions and does not mask a dead scheduler.
    assert world.score(full=True).status is Status.PUBLISHED
    by_hand = _health(world, NIGHT + HOUR)
    assert (by_hand["overdue"], by_hand["state"], by_hand["last_run_trigger"]) == (True, "fresh", "manual")
    assert by_hand["last_scheduled_run_id"] is None

    # A scheduled run that publishes nothing does not either.
    world.execute(
        "ALTER TABLE public.items RENAME TO hidden; CREATE VIEW public.items AS SELECT * FROM hidden WHERE false"
    )
    assert world.score(full=True, trigger=Trigger.SCHEDULED).status is Status.HELD
    held = _health(world, NIGHT + HOUR)
    assert (held["overdue"], held["last_scheduled_status"]) == (True, "held")
    world.execute("DROP VIEW public.items; ALTER TABLE public.hidden RENAME TO items")

    # A scheduled incremental publication does not do the work of the full one.
    assert world.score(trigger=Trigger.SCHEDULED).mode is Mode.INCREMENTAL
    assert _health(world, NIGHT + HOUR)["overdue"] is True

    published = world.score(full=True, trigger=Trigger.SCHEDULED)
    done = _health(world, NIGHT + HOUR)
    assert (done["overdue"], done["next_tick"]) == (False, NIGHT + timedelta(days=1))
    assert (done["last_scheduled_run_id"], done["last_scheduled_status"]) == (published.run_id, "published")
    assert _health(world, NIGHT + timedelta(days=1, minutes=30))["overdue"] is True


def test_a_full_publication_on_schedule_covers_the_incremental_ticks_too(database_url: str, tmp_path: Path) -> None:
    world = _published(database_url, tmp_path, toml=PIPELINE_TOML + SCHEDULE)
    assert _health(world, START + HOUR + timedelta(minutes=30))["overdue_since"] == START + HOUR

    assert world.score(trigger=Trigger.SCHEDULED).status is Status.PUBLISHED
    assert _health(world, START + 2 * HOUR)["overdue"] is False
    assert _health(world, NIGHT + HOUR)["overdue"] is True
    assert world.score(full=True, trigger=Trigger.SCHEDULED).status is Status.PUBLISHED

    health = _health(world, NIGHT + HOUR)
    assert (health["overdue"], health["next_tick"]) == (False, NIGHT + 2 * HOUR)


def test_a_missed_schedule_is_known_before_anything_was_ever_published(database_url: str, tmp_path: Path) -> None:
    world = _small_world(database_url, tmp_path)
    make_model(world, make_pipeline(world, toml=PIPELINE_TOML + SCHEDULE), train_data_until=START)
    world.execute("DELETE FROM public.items")
    assert world.score(trigger=Trigger.SCHEDULED).status is Status.HELD

    on_time = _health(world, START + HOUR)
    late = _health(world, START + HOUR + timedelta(minutes=30))

    assert (on_time["state"], on_time["overdue"]) == ("missing", False)
    assert (late["state"], late["overdue"], late["overdue_since"]) == ("missing", True, START + HOUR)
    assert (late["last_scheduled_status"], late["generation_id"]) == ("held", None)
    assert world.one("SELECT state FROM predictions.items_for(7)")["state"] == "missing"
    assert world.rows("SELECT * FROM predictions.items") == []
    assert world.rows("SELECT * FROM predictions.items_usable") == []


def test_views_that_an_earlier_prescore_made_are_made_anew_by_a_run_unless_a_reader_is_in_the_way(
    database_url: str, tmp_path: Path
) -> None:
    world = _published(database_url, tmp_path)
    grants = "SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'predictions'::regnamespace ORDER BY 1"
    world.execute("GRANT SELECT ON ALL TABLES IN SCHEMA predictions TO PUBLIC")
    before = world.rows(grants)
    world.execute(
        "CREATE OR REPLACE VIEW predictions.items_usable AS SELECT id, p, label FROM prescore_rows.items WHERE false;"
        "UPDATE prescore.pipelines SET views_digest = 'of an earlier prescore'"
    )

    def run() -> int:
        assert world.score().status is Status.PUBLISHED
        (count,) = world.rows("SELECT count(*) FROM predictions.items_usable")[0]
        return int(count)

    with closing(psycopg2.connect(psql_url(database_url))) as reader:
        reader.cursor().execute("SELECT FROM predictions.items_usable")  # and the transaction stays open
        assert run() == 0
    assert run() == 30
    assert world.rows(grants) == before
    assert _read(world)["state"] == "fresh"


def test_a_clock_that_is_wrong_by_the_run_or_by_its_data_is_told_alike_everywhere(
    database_url: str, tmp_path: Path
) -> None:
    world = _published(database_url, tmp_path)
    # Data that is older than the run, as with a source: the run's own instant is the later one.
    world.execute(f"UPDATE prescore.head SET data_as_of = TIMESTAMPTZ '{START - 30 * MINUTE}'")
    for at, state in (
        (START - SKEW - TICK, "clock_error"),
        (START - SKEW, "fresh"),
        (START + 30 * MINUTE - TICK, "fresh"),
    ):
        assert _states(world, at, 7) == [state]
        assert world.one("SELECT state FROM prescore.pipeline_health")["state"] == state, at
    # Its age counts from the data: a limit is reached half an hour sooner than by the run.
    assert _states(world, START + 30 * MINUTE, 7) == ["aging"]
    assert (_read(world)["aging_at"], _read(world)["age"]) == (START + 30 * MINUTE, HOUR)
