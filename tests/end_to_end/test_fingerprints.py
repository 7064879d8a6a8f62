"""Without a change column: only rows whose features moved are scored, and every row equals what a full run gives."""

from __future__ import annotations

import random
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg2
import pytest

from flows.check import check
from flows.score import RunSummary
from tasks import readers
from tasks.database import connect
from tasks.errors import PrescoreError
from tasks.outputs import output_columns
from tasks.pipeline import PipelineInvalid, load_pipeline
from tasks.population import Mode
from tasks.registry import load_bundle
from tasks.runs import Status
from tasks.scoring import Scorer, Tally
from tests.conftest import psql_url
from tests.factories import World, make_pipeline, make_regressor, make_world

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

#: No column says when a row changed, and values are of every kind that a model sees.
CUSTOMERS = """
CREATE TABLE public.customers (
    id bigint PRIMARY KEY, income double precision, country text, vip boolean, balance numeric, visits integer,
    born date, seen timestamptz, active boolean NOT NULL DEFAULT true
);
INSERT INTO public.customers
SELECT x, 1000 + 500 * sin(x * 12.9898), (ARRAY['de', 'fr', 'it'])[1 + x % 3], x % 2 = 0, x / 7.0, x % 5,
       date '1980-01-01' + x::integer, timestamptz '2026-01-01 00:00+00' + x * interval '1 hour'
FROM generate_series(1, {customers}) AS x
"""
TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.customers WHERE active"
[features]
query = "features.sql"
fingerprint = true
[predictions]
value = { method = "predict" }
"""
COLUMNS = "c.income, c.country, c.vip, c.balance, c.visits, c.born, c.seen"
FEATURES = f"SELECT b.id, b.as_of, {COLUMNS} FROM batch AS b JOIN public.customers AS c ON c.id = b.id"


def make_customers(
    url: str, folder: Path, *, customers: int = 300, toml: str = TOML, features: str = FEATURES, **options: Any
) -> World:
    """A world of customers, published at noon."""
    world = make_world(url, folder, rows=None)
    world.execute(CUSTOMERS.format(customers=customers))
    world.set_clock(NOON)
    pipeline = make_pipeline(world, "customers", toml=toml, features=features, changes=None, **options)
    make_regressor(world, pipeline, train_data_until=NOON)
    assert publish(world, NOON).mode is Mode.FULL
    return world


def publish(world: World, at: datetime, **options: Any) -> RunSummary:
    world.set_clock(at)
    summary = world.score("customers", **options)
    assert summary.status is Status.PUBLISHED, summary.message
    assert summary.population == summary.scored + summary.unchanged + summary.rejected
    return summary


def served(world: World) -> dict[int, tuple[float | None, str]]:
    """Return prediction and state of every customer that readers find."""
    return {row[0]: row[1:] for row in world.rows("SELECT id, value, state FROM predictions.customers")}


def scored_in(world: World, summary: RunSummary) -> set[int]:
    rows = world.rows(f"SELECT id FROM predictions.customers WHERE scored_in = {summary.generation_id}")
    return {row[0] for row in rows}


def in_full(world: World, as_of: datetime) -> dict[int, float]:
    """Score everybody at an instant, as a full run does, and publish nothing."""
    from tasks.features import describe, read_population_sql
    from tasks.transport import open_reading_session

    pipeline = load_pipeline(world.settings.pipelines_dir / "customers")
    with connect(world.url) as connection:
        contract = describe(connection, pipeline)
        bundle = load_bundle(connection, pipeline.model.name, pipeline.model.alias, pipeline)
    outputs = output_columns(bundle.estimator, pipeline.predictions, None)
    preprocess = pipeline.preprocess_function()
    scorer = Scorer(pipeline=pipeline, contract=contract, bundle=bundle, preprocess=preprocess, outputs=outputs)
    with open_reading_session(world.url) as session:
        batches = [session.table(read_population_sql(pipeline, contract, as_of))]
    made = [
        row
        for table in batches
        for batch in scorer.predictions(table.to_batches(), 0, Tally())
        for row in batch.to_pylist()
    ]
    return {row["id"]: row["value"] for row in made}


def shake(world: World, dice: random.Random) -> None:
    """Let something happen to a few customers, of what a source may do without saying when."""
    some = ", ".join(str(dice.randrange(1, 320)) for _ in range(dice.choice([1, 4, 9])))
    fresh = dice.randrange(1_000, 900_000)
    changes = [
        f"UPDATE public.customers SET income = income + 1 WHERE id IN ({some})",
        f"UPDATE public.customers SET income = NULL WHERE id IN ({some})",
        f"UPDATE public.customers SET income = income, visits = visits WHERE id IN ({some})",
        f"UPDATE public.customers SET visits = visits + 1, vip = NOT vip WHERE id IN ({some})",
        f"UPDATE public.customers SET balance = -balance, visits = NULL WHERE id IN ({some})",
        f"UPDATE public.customers SET active = NOT active WHERE id IN ({some})",
        f"DELETE FROM public.customers WHERE id IN ({some})",
        f"INSERT INTO public.customers (id, income, visits) VALUES ({fresh}, 1000, 3) ON CONFLICT DO NOTHING",
    ]
    for change in dice.sample(changes, dice.choice([1, 2, 3])):
        world.execute(change)


def test_after_random_changes_every_row_is_that_of_a_full_run_and_only_what_moved_is_written(
    database_url: str, tmp_path: Path
) -> None:
    world, dice, incremental = make_customers(database_url, tmp_path), random.Random(7), 0
    for hour in range(1, 6):
        before = {
            row[0]: row[1:]
            for row in world.rows(f"SELECT id, active, {COLUMNS.replace('c.', '')} FROM public.customers")
        }
        shake(world, dice)
        now = {
            row[0]: row[1:]
            for row in world.rows(f"SELECT id, active, {COLUMNS.replace('c.', '')} FROM public.customers")
        }

        summary = publish(world, NOON + hour * HOUR)

        rows = served(world)
        full = in_full(world, NOON + hour * HOUR)
        assert {key: value for key, (value, _) in rows.items()} == pytest.approx(full, rel=1e-12)
        if summary.mode is Mode.INCREMENTAL:
            incremental += 1
            assert scored_in(world, summary) == {key for key, row in now.items() if row[0] and before.get(key) != row}
    assert incremental >= 4


def test_a_run_that_finds_nothing_moved_scores_nobody_and_vouches_for_all(database_url: str, tmp_path: Path) -> None:
    toml = TOML + '[serve]\naging_after = "12h"\nstale_after = "18h"\n'
    world = make_customers(database_url, tmp_path, toml=toml)
    world.execute("UPDATE public.customers SET income = income + 1 WHERE id = 7")

    first = publish(world, NOON + 11 * HOUR)
    second = publish(world, NOON + 22 * HOUR)

    assert (first.mode, first.changed, first.scored, first.unchanged) == (Mode.INCREMENTAL, 1, 1, 299)
    assert (second.mode, second.changed, second.scored, second.unchanged) == (Mode.INCREMENTAL, 0, 0, 300)
    (row,) = world.rows("SELECT state, as_of, data_as_of, age FROM predictions.customers WHERE id = 8")
    assert row == ("fresh", NOON, NOON + 22 * HOUR, timedelta(0))
    assert world.rows("SELECT count(*) FROM predictions.customers_usable") == [(300,)]
    world.set_clock(NOON + 34 * HOUR)
    assert world.rows("SELECT DISTINCT state FROM predictions.customers") == [("aging",)]


def test_new_and_gone_entities_and_those_that_lose_their_features_are_noticed(
    database_url: str, tmp_path: Path
) -> None:
    features = FEATURES + " WHERE c.country IS DISTINCT FROM 'xx'"
    world = make_customers(database_url, tmp_path, features=features)
    world.execute(
        "UPDATE public.customers SET country = 'xx' WHERE id IN (5, 6); DELETE FROM public.customers WHERE id = 9; "
        "INSERT INTO public.customers (id, income, visits) VALUES (900, 1, 1); "
        "INSERT INTO public.customers (id, country) VALUES (901, 'xx')"
    )

    first = publish(world, NOON + HOUR)
    second = publish(world, NOON + 2 * HOUR)
    world.execute("UPDATE public.customers SET country = 'de' WHERE id = 5")
    third = publish(world, NOON + 3 * HOUR)

    assert (first.new, first.changed, first.due, first.gone, first.rejected) == (2, 2, 0, 1, 3)
    assert (second.new, second.changed, second.due, second.gone, second.rejected) == (0, 0, 3, 0, 3)
    assert (third.changed, third.due, third.scored, third.rejected) == (1, 2, 1, 2)
    states = {key: state for key, (_, state) in served(world).items()}
    assert {key for key, state in states.items() if state == "rejected"} == {6, 901}
    assert (states[5], states[900], states.get(9)) == ("fresh", "fresh", None)


def test_features_that_depend_on_as_of_move_by_themselves(database_url: str, tmp_path: Path) -> None:
    days = FEATURES.replace("c.seen FROM", "floor(extract(epoch FROM b.as_of - c.seen) / 86400) AS days FROM")
    world = make_customers(database_url, tmp_path, features=days)

    hour, day = publish(world, NOON + HOUR), publish(world, NOON + DAY + HOUR)

    assert (hour.mode, hour.scored, hour.changed) == (Mode.INCREMENTAL, 12, 12)  # each has its hour of the day
    assert (day.mode, day.because) == (Mode.FULL, "at least 61 of 300 entities are new, changed or gone")
    assert {key: value for key, (value, _) in served(world).items()} == pytest.approx(in_full(world, NOON + DAY + HOUR))


def test_the_sample_of_the_skipped_is_looked_at_when_the_run_looks(database_url: str, tmp_path: Path) -> None:
    """What a window held at noon is known otherwise later; what it holds now is what the prediction was made of."""
    window = FEATURES.replace(
        "c.visits", "(SELECT count(*) FROM public.visits AS v WHERE v.id = b.id AND v.at <= b.as_of "
        "AND v.at > b.as_of - interval '1 hour') AS visits"
    )  # fmt: skip
    world = make_world(database_url, tmp_path, rows=None)
    world.execute("CREATE TABLE public.visits (id bigint, at timestamptz)")
    world = make_customers(database_url, tmp_path, features=window)
    world.execute(f"INSERT INTO public.visits SELECT x, '{NOON - HOUR / 2}' FROM generate_series(1, 300) AS x")

    summary = publish(world, NOON + 2 * HOUR)

    assert (summary.mode, summary.scored) == (Mode.INCREMENTAL, 0)


def test_a_pipeline_that_has_published_gets_the_column_in_place_and_may_lose_it_again(
    database_url: str, tmp_path: Path
) -> None:
    without = TOML.replace("fingerprint = true\n", "")
    world = make_customers(database_url, tmp_path, toml=without)

    make_pipeline(world, "customers", toml=TOML, features=FEATURES, changes=None)
    (report,) = check(world.settings, "customers")
    assert (report.errors, report.would["because"]) == ((), "no fingerprints are kept yet")
    first = publish(world, NOON + HOUR)
    world.execute("UPDATE public.customers SET visits = 77 WHERE id = 3")
    second = publish(world, NOON + 2 * HOUR)
    make_pipeline(world, "customers", toml=without, features=FEATURES, changes=None)
    world.execute("DELETE FROM public.customers WHERE id IN (4, 5)")
    publish(world, NOON + 3 * HOUR)
    world.execute("INSERT INTO public.customers (id, income, visits) VALUES (4, 5, 6), (5, 6, 7)")
    off = publish(world, NOON + 4 * HOUR)
    world.execute("UPDATE public.customers SET visits = 78 WHERE id = 3")
    make_pipeline(world, "customers", toml=TOML, features=FEATURES, changes=None)
    again = publish(world, NOON + 5 * HOUR)

    assert (first.mode, first.because) == (Mode.FULL, "at least 61 of 300 entities are new, changed or gone")
    assert (second.mode, second.changed, scored_in(world, second)) == (Mode.INCREMENTAL, 1, set())
    assert (off.mode, off.new, off.changed) == (Mode.INCREMENTAL, 2, 0)
    # Rows of the time without fingerprints have none; all others are still those of the features they were made of.
    assert (again.mode, scored_in(world, again)) == (Mode.INCREMENTAL, {3, 4, 5})
    assert {key: value for key, (value, _) in served(world).items()} == pytest.approx(in_full(world, NOON + 5 * HOUR))


def test_readers_that_hold_the_table_block_the_column_and_nothing_else(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "FINGERPRINT_ATTEMPTS", 2)
    monkeypatch.setattr(readers, "FINGERPRINT_PAUSE", 0.01)
    world = make_customers(database_url, tmp_path, toml=TOML.replace("fingerprint = true\n", ""))
    make_pipeline(world, "customers", toml=TOML, features=FEATURES, changes=None)
    world.set_clock(NOON + HOUR)

    with closing(psycopg2.connect(psql_url(world.url))) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM predictions.customers")
        with pytest.raises(PrescoreError, match=r"held the table .* Nothing was scored"):
            world.score("customers")
        cursor.execute("SELECT count(*) FROM predictions.customers WHERE state = 'fresh'")
        assert cursor.fetchone() == (300,)
        reader.rollback()

    assert publish(world, NOON + 2 * HOUR).mode is Mode.FULL


MODEL_PY = """
def preprocess(frame):
    return frame.assign(has_as_of=float("as_of" in frame.columns))
"""


@pytest.mark.parametrize(("declared", "has_as_of"), [("fingerprint = true", 0.0), ("", 1.0)])
def test_preprocess_sees_no_as_of_where_fingerprints_are_kept(
    database_url: str, tmp_path: Path, declared: str, has_as_of: float
) -> None:
    world = make_world(database_url, tmp_path, rows=10)
    toml = TOML.replace("public.customers WHERE active", "public.items").replace(
        "fingerprint = true", f'preprocess = "model.py:preprocess"\n{declared}'
    )
    features = "SELECT i.id, b.as_of, i.a FROM batch AS b JOIN public.items AS i ON i.id = b.id"
    pipeline = make_pipeline(
        world, "customers", toml=toml, features=features, changes=None, files={"model.py": MODEL_PY}
    )

    preprocess = pipeline.preprocess_function()

    assert preprocess is not None
    frame = preprocess(pd.DataFrame({"as_of": pd.to_datetime(["2026-03-01"], utc=True), "a": [1.0]}))
    assert frame["has_as_of"].tolist() == [has_as_of]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('changes = "SELECT 1 AS id FROM since"', "both say what changed; keep one of the two"),
        ('valid_for = "1d"', "none needs renewal; remove valid_for"),
    ],
)
def test_what_contradicts_fingerprints_is_refused(database_url: str, tmp_path: Path, line: str, said: str) -> None:
    world = make_world(database_url, tmp_path, rows=None)
    with pytest.raises(PipelineInvalid, match=said):
        make_pipeline(
            world,
            "customers",
            toml=TOML.replace("fingerprint", f"{line}\nfingerprint"),
            features=FEATURES,
            changes=None,
        )
