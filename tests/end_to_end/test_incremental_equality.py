"""An incremental run scores exactly who needs it, and every row equals what a full run at the row's own as_of gives."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from flows.score import RunSummary
from tasks import registry
from tasks.database import connect
from tasks.features import describe, read_population_sql
from tasks.outputs import output_columns
from tasks.pipeline import Pipeline, load_pipeline
from tasks.population import Mode
from tasks.runs import Status
from tasks.scoring import Scorer, Tally
from tasks.transport import open_reading_session
from tests.conftest import copy_database, execute, psql_url
from tests.factories import World, make_pipeline, make_regressor, make_world

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
CUSTOMERS = 1_000

#: Two sources: what is known of a customer, and orders, whose arrival does not touch the customer.
SHOP = """
CREATE TABLE public.customers (
    customer_id bigint PRIMARY KEY, income double precision, country text, updated_at timestamptz NOT NULL
);
CREATE TABLE public.orders (
    order_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id bigint NOT NULL, amount double precision NOT NULL,
    ordered_at timestamptz NOT NULL, loaded_at timestamptz NOT NULL
);
CREATE INDEX ON public.orders (customer_id);
INSERT INTO public.customers
SELECT x, 1000 + 500 * sin(x * 12.9898), (ARRAY['de', 'fr', 'it'])[1 + x % 3], timestamptz '{noon}' - interval '90 days'
FROM generate_series(1, {customers}) AS x;
INSERT INTO public.orders (customer_id, amount, ordered_at, loaded_at)
SELECT x, 50 + 40 * cos(x * 78.233 + n), at, at + interval '10 minutes'
FROM generate_series(1, {customers}) AS x, generate_series(0, 3) AS n,
     LATERAL (SELECT timestamptz '{noon}' - interval '1 hour' * (2 + (x * 37 + n * 401) % 1500) AS at) AS t;
ANALYZE public.customers, public.orders
"""
TOML = """
[entity]
key = ["customer_id"]
query = "SELECT customer_id FROM public.customers"
[features]
query = "features.sql"
changes = "changes.sql"
[predictions]
value = { method = "predict", index = true }
"""
FEATURES = """
SELECT b.customer_id, b.as_of, c.income, count(o.order_id) AS orders, coalesce(sum(o.amount), 0) AS amount
FROM batch AS b
JOIN public.customers AS c USING (customer_id)
LEFT JOIN public.orders AS o ON o.customer_id = b.customer_id AND o.ordered_at < b.as_of
GROUP BY b.customer_id, b.as_of, c.income
"""
#: The last 30 days before as_of: a row changes with time alone.
SLIDING = FEATURES.replace(
    "o.ordered_at < b.as_of", "o.ordered_at < b.as_of AND o.ordered_at >= b.as_of - interval '30 days'"
)
CHANGES = """
SELECT customer_id FROM public.customers, since WHERE updated_at > since.at
UNION SELECT customer_id FROM public.orders, since WHERE loaded_at > since.at
"""


def make_shop(
    url: str,
    folder: Path,
    *,
    customers: int = CUSTOMERS,
    toml: str = TOML,
    features: str = FEATURES,
    changes: str = CHANGES,
) -> World:
    """A shop at noon with one full publication."""
    world = make_world(url, folder, rows=None)
    world.execute(SHOP.format(noon=NOON.isoformat(), customers=customers))
    world.set_clock(NOON)
    make_regressor(world, declare(world, toml=toml, features=features, changes=changes), train_data_until=NOON)
    first = publish(world, NOON)
    assert (first.mode, first.scored, first.because) == (Mode.FULL, customers, "nothing is served yet")
    return world


def declare(world: World, *, toml: str = TOML, features: str = FEATURES, changes: str | None = CHANGES) -> Pipeline:
    return make_pipeline(world, "shop", toml=toml, features=features, changes=changes)


def publish(world: World, at: datetime | None, **options: Any) -> RunSummary:
    """Run at an instant (None leaves the clock alone); the run must publish."""
    if at is not None:
        world.set_clock(at)
    summary = world.score("shop", **options)
    assert summary.status is Status.PUBLISHED, summary.message
    assert summary.population == summary.scored + summary.unchanged + summary.rejected
    return summary


def served(world: World) -> dict[int, tuple[datetime, int, float]]:
    """Return as_of, generation and prediction of every customer that is served."""
    rows = world.rows("SELECT customer_id, as_of, scored_in, value FROM predictions.shop ORDER BY customer_id")
    return {row[0]: row[1:] for row in rows}


def scored_in(world: World, summary: RunSummary) -> set[int]:
    return {key for key, (_, generation, _) in served(world).items() if generation == summary.generation_id}


def full_scores(world: World, as_of: datetime) -> dict[int, float]:
    """Score the whole population at an instant, as a full run does, and publish nothing."""
    pipeline = load_pipeline(world.settings.pipelines_dir / "shop")
    with connect(world.url) as connection:
        contract = describe(connection, pipeline)
        bundle = registry.load_bundle(connection, pipeline.model.name, pipeline.model.alias, pipeline)
    outputs = output_columns(bundle.estimator, pipeline.predictions, None)
    scorer = Scorer(pipeline=pipeline, contract=contract, bundle=bundle, preprocess=None, outputs=outputs)
    found: dict[int, float] = {}
    with (
        open_reading_session(world.url) as session,
        session.stream(read_population_sql(pipeline, contract, as_of)) as rows,
    ):
        for batch in scorer.predictions(rows, 0, Tally()):
            found |= dict(zip(batch.column("customer_id").to_pylist(), batch.column("value").to_pylist(), strict=True))
    return found


def require_equal_to_full_runs(world: World) -> set[datetime]:
    """Compare every key and value with a full run at the row's own as_of, and return the instants there are."""
    rows = served(world)
    assert set(rows) == {row[0] for row in world.rows("SELECT customer_id FROM public.customers")}
    instants = {as_of for as_of, _, _ in rows.values()}
    for instant in instants:
        full = full_scores(world, instant)
        mine = {key: value for key, (as_of, _, value) in rows.items() if as_of == instant}
        assert mine == pytest.approx({key: full[key] for key in mine}, rel=1e-12)
    return instants


def touch(world: World, keys: str, at: datetime) -> None:
    world.execute(
        f"UPDATE public.customers SET income = income + 100, updated_at = '{at.isoformat()}' WHERE customer_id IN ({keys})"
    )


def order(world: World, keys: str, at: datetime, *, loaded_at: datetime | None = None) -> None:
    world.execute(
        "INSERT INTO public.orders (customer_id, amount, ordered_at, loaded_at) SELECT customer_id, 77, "
        f"'{at.isoformat()}', '{(loaded_at or at).isoformat()}' FROM public.customers WHERE customer_id IN ({keys})"
    )


@contextmanager
def twin_of(world: World, server_url: str, folder: Path) -> Iterator[World]:
    """A copy of the database, published generations and all, with the same pipeline."""
    name, copied = make_url(world.url).database, f"twin_{uuid.uuid4().hex[:12]}"
    copy_database(server_url, copied, name)
    try:
        settings = replace(world.settings, database_url=psql_url(server_url, copied), pipelines_dir=folder)
        twin = World(url=psql_url(server_url, copied), settings=settings)
        yield twin
    finally:
        execute(server_url, f"DROP DATABASE {copied} WITH (FORCE)")


# Who is selected ---------------------------------------------------------------------------------------------------


def test_after_one_percent_of_changes_exactly_those_are_scored_and_all_rows_equal_a_full_run(
    server_url: str, database_url: str, tmp_path: Path
) -> None:
    world = make_shop(database_url, tmp_path)
    before = served(world)
    touch(world, "11, 12, 13", NOON + timedelta(minutes=20))
    order(world, "13, 21, 22, 23", NOON + timedelta(minutes=30))
    world.execute("DELETE FROM public.customers WHERE customer_id IN (31, 32, 999)")
    world.execute(f"INSERT INTO public.customers VALUES (5000, 1234, 'de', '{NOON}'), (5001, NULL, NULL, '{NOON}')")

    with twin_of(world, server_url, tmp_path) as twin:
        full = publish(twin, NOON + HOUR, full=True)
        summary = publish(world, NOON + HOUR)

        assert (summary.mode, summary.because) == (Mode.INCREMENTAL, "")
        assert (summary.new, summary.changed, summary.due, summary.gone) == (2, 6, 0, 3)
        assert (summary.population, summary.scored, summary.unchanged) == (999, 8, 991)
        assert scored_in(world, summary) == {11, 12, 13, 21, 22, 23, 5000, 5001}
        now, expected = served(world), served(twin)
        assert full.scored == 999
        # These features do not change with time alone: so rows of noon, too, are what a full run an hour later gives.
        assert {key: value for key, (_, _, value) in now.items()} == pytest.approx(
            {key: value for key, (_, _, value) in expected.items()}, rel=1e-12
        )

    untouched = set(before) - {11, 12, 13, 21, 22, 23} - {31, 32, 999}
    assert {key: now[key] for key in untouched} == {key: before[key] for key in untouched}
    assert all(now[key][2] != before[key][2] for key in (11, 12, 13, 21, 22, 23))
    assert world.rows("SELECT state, value FROM predictions.shop_for(31)") == [("missing", None)]
    assert require_equal_to_full_runs(world) == {NOON, NOON + HOUR}
    again = publish(world, NOON + 2 * HOUR)
    assert (again.scored, again.new, again.changed, again.due, again.gone) == (0, 0, 0, 0, 0)


def test_with_a_sliding_window_rows_are_due_by_valid_for_and_each_equals_a_full_run_at_its_own_as_of(
    database_url: str, tmp_path: Path
) -> None:
    toml = TOML.replace('changes = "changes.sql"', 'changes = "changes.sql"\nvalid_for = "1d"')
    world = make_shop(database_url, tmp_path, customers=200, toml=toml, features=SLIDING)
    # A fifth of the customers orders every two hours: at the end of the day the fifth that did not is due.
    for n in range(1, 5):
        at = NOON + 2 * n * HOUR
        order(world, f"SELECT customer_id FROM public.customers WHERE customer_id % 5 = {n}", at - timedelta(minutes=5))
        summary = publish(world, at)
        assert (summary.mode, summary.changed, summary.due) == (Mode.INCREMENTAL, 40, 0)
    assert len(require_equal_to_full_runs(world)) == 5
    early = publish(world, NOON + DAY - timedelta(microseconds=1))
    assert (early.scored, early.due) == (0, 0)

    summary = publish(world, NOON + DAY)

    assert (summary.mode, summary.changed, summary.due, summary.unchanged) == (Mode.INCREMENTAL, 0, 40, 160)
    assert scored_in(world, summary) == {key for key in range(1, 201) if key % 5 == 0}
    assert len(require_equal_to_full_runs(world)) == 5

    # Nothing happens for a month: all is due, windows have emptied, and rows still equal a full run at their as_of.
    old = served(world)
    later = publish(world, NOON + 31 * DAY)
    assert (later.mode, later.because) == (Mode.FULL, "200 of 200 entities are new, changed, due or gone")
    assert require_equal_to_full_runs(world) == {NOON + 31 * DAY}
    assert sum(row[2] != old[key][2] for key, row in served(world).items()) > 150


def test_a_row_that_was_rejected_is_due_until_it_can_be_scored(database_url: str, tmp_path: Path) -> None:
    features = FEATURES.replace("JOIN public.customers", "JOIN (SELECT * FROM public.customers WHERE country <> 'xx')")
    world = make_shop(database_url, tmp_path, customers=200, features=features)
    world.execute(
        f"UPDATE public.customers SET country = 'xx', updated_at = '{NOON + HOUR}' WHERE customer_id IN (5, 6)"
    )

    first = publish(world, NOON + 2 * HOUR)
    second = publish(world, NOON + 3 * HOUR)
    world.execute("UPDATE public.customers SET country = 'de' WHERE customer_id = 5")
    third = publish(world, NOON + 4 * HOUR)

    assert (first.changed, first.due, first.scored, first.rejected) == (2, 0, 0, 2)
    assert (second.changed, second.due, second.scored, second.rejected) == (0, 2, 0, 2)
    assert (third.changed, third.due, third.scored, third.rejected) == (0, 2, 1, 1)
    states = dict(world.rows("SELECT customer_id, state FROM predictions.shop WHERE customer_id IN (5, 6, 7)"))
    assert states == {5: "fresh", 6: "rejected", 7: "fresh"}


# Changes that arrive late ------------------------------------------------------------------------------------------


def test_a_change_at_the_very_instant_of_a_run_is_left_to_the_next_one(database_url: str, tmp_path: Path) -> None:
    """It is not before as_of, so the features of that run do not count it."""
    world = make_shop(database_url, tmp_path, customers=200)
    order(world, "7", NOON + HOUR)

    first = publish(world, NOON + HOUR)
    second = publish(world, NOON + 2 * HOUR)

    assert (first.changed, second.changed) == (1, 1)
    assert scored_in(world, second) == {7}
    assert require_equal_to_full_runs(world) == {NOON, NOON + 2 * HOUR}
    assert served(world)[7][2] == pytest.approx(full_scores(world, NOON + 2 * HOUR)[7])


def test_a_transaction_that_commits_behind_the_watermark_is_picked_up(database_url: str, tmp_path: Path) -> None:
    """Its rows carry its now(), which is before the runs that could not see them."""
    world = make_shop(database_url, tmp_path, customers=200)
    world.execute("CREATE OR REPLACE FUNCTION prescore.clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE "
                  "AS $$ SELECT statement_timestamp() $$")  # fmt: skip
    publish(world, None)
    with closing(psycopg2.connect(psql_url(world.url))) as loader, loader.cursor() as cursor:
        cursor.execute("UPDATE public.customers SET income = income + 100, updated_at = now() WHERE customer_id = 5")
        cursor.execute(
            "INSERT INTO public.orders (customer_id, amount, ordered_at, loaded_at) VALUES (7, 9, now(), now())"
        )
        during = [publish(world, None), publish(world, None, full=True), publish(world, None)]
        assert {5, 7}.isdisjoint(scored_in(world, during[-1]))
        loader.commit()

    after = publish(world, None)

    assert [summary.mode for summary in during] == [Mode.INCREMENTAL, Mode.FULL, Mode.INCREMENTAL]
    assert scored_in(world, after) == {5, 7}
    assert (after.mode, after.changed) == (Mode.INCREMENTAL, 2)
    require_equal_to_full_runs(world)
    assert publish(world, None).changed == 0


SOURCE = """
[[source]]
name = "public.orders"
watermark = "loaded_at"
late_by = "15m"
"""


def test_rows_that_arrive_behind_the_watermark_are_picked_up_as_far_back_as_late_by(
    database_url: str, tmp_path: Path
) -> None:
    world = make_shop(database_url, tmp_path, customers=200, toml=TOML + SOURCE)
    publish(world, NOON + HOUR)
    order(world, "7", NOON, loaded_at=NOON + HOUR - timedelta(minutes=14))

    summary = publish(world, NOON + 2 * HOUR)

    assert scored_in(world, summary) == {7}
    require_equal_to_full_runs(world)


def test_rows_that_arrive_later_than_late_by_are_found_by_the_sample_of_the_skipped(
    database_url: str, tmp_path: Path
) -> None:
    world = make_shop(database_url, tmp_path, customers=200, toml=TOML + SOURCE)
    publish(world, NOON + HOUR)
    order(world, "7", NOON - HOUR, loaded_at=NOON + HOUR - timedelta(minutes=16))

    require_held_for_the_skipped(world, NOON + 2 * HOUR, disagreeing=1)


def test_a_changes_query_that_misses_a_source_is_held_and_a_full_run_mends_it(
    database_url: str, tmp_path: Path
) -> None:
    forgetful = "SELECT customer_id FROM public.customers, since WHERE updated_at > since.at"
    world = make_shop(database_url, tmp_path, customers=200, changes=forgetful)
    publish(world, NOON + HOUR)
    order(world, "7, 8, 9", NOON - HOUR, loaded_at=NOON + HOUR + timedelta(minutes=30))
    world.execute("DELETE FROM public.orders WHERE customer_id = 10")

    require_held_for_the_skipped(world, NOON + 2 * HOUR, disagreeing=4)

    assert publish(world, NOON + 3 * HOUR, full=True).scored == 200
    require_equal_to_full_runs(world)


def require_held_for_the_skipped(world: World, at: datetime, *, disagreeing: int) -> None:
    before = served(world)
    world.set_clock(at)

    held = world.score("shop")

    assert (held.status, held.exit_code) == (Status.HELD, 3)
    assert f"rows.skipped: {disagreeing} of 200 skipped entities score otherwise at the same as_of" in held.message
    assert "changes.sql misses changes, or late_by is too short. Run `prescore score shop --full`" in held.message
    assert "is still served" in held.message
    assert served(world) == before


def test_without_a_changes_query_a_run_scores_new_entities_and_what_the_sample_finds_is_held(
    database_url: str, tmp_path: Path
) -> None:
    world = make_shop(database_url, tmp_path, customers=200, toml=TOML.replace('changes = "changes.sql"\n', ""))
    world.execute(f"INSERT INTO public.customers VALUES (5000, 1234, 'de', '{NOON}')")
    summary = publish(world, NOON + HOUR)
    assert (summary.new, summary.changed, scored_in(world, summary)) == (1, 0, {5000})

    touch(world, "7", NOON + HOUR)
    world.set_clock(NOON + 2 * HOUR)

    assert "rows.skipped: 1 of 201 skipped entities" in world.score("shop").message


# When everything is scored -----------------------------------------------------------------------------------------


def test_a_run_that_selects_more_than_a_fifth_becomes_full_and_says_so(database_url: str, tmp_path: Path) -> None:
    world = make_shop(database_url, tmp_path, customers=200)
    touch(world, "SELECT generate_series(1, 40)", NOON + timedelta(minutes=1))
    fifth = publish(world, NOON + HOUR)
    touch(world, "SELECT generate_series(1, 38)", NOON + HOUR + timedelta(minutes=1))
    world.execute("DELETE FROM public.customers WHERE customer_id IN (198, 199)")
    world.execute(f"INSERT INTO public.customers VALUES (5000, 1234, 'de', '{NOON}')")
    more = publish(world, NOON + 2 * HOUR)

    assert (fifth.mode, fifth.because, fifth.changed) == (Mode.INCREMENTAL, "", 40)
    assert (more.mode, more.because) == (Mode.FULL, "41 of 199 entities are new, changed, due or gone")
    assert (more.new, more.changed, more.gone, more.scored) == (1, 38, 2, 199)
    assert require_equal_to_full_runs(world) == {NOON + 2 * HOUR}


def test_another_model_version_or_logic_makes_a_run_full_and_words_that_change_nothing_do_not(
    database_url: str, tmp_path: Path
) -> None:
    world = make_shop(database_url, tmp_path, customers=200)
    declare(
        world,
        toml=f'description = "Said better."\n{TOML}[serve]\naging_after = "20h"\n',
        features=f"-- What a customer is worth.\n{FEATURES.replace('count(', 'COUNT(')}",
    )
    reworded = publish(world, NOON + HOUR)
    assert (reworded.mode, reworded.scored) == (Mode.INCREMENTAL, 0)

    declare(world, features=FEATURES.replace("sum(o.amount), 0)", "sum(o.amount), 0.0)"))
    edited = publish(world, NOON + 2 * HOUR)
    assert (edited.mode, edited.because) == (Mode.FULL, "invalidated: the logic of the pipeline changed")
    assert publish(world, NOON + 3 * HOUR).mode is Mode.INCREMENTAL

    pipeline = load_pipeline(world.settings.pipelines_dir / "shop")
    made = make_regressor(world, pipeline, train_data_until=NOON + 3 * HOUR)
    assert made.version == 2
    promoted = publish(world, NOON + 4 * HOUR)
    assert (promoted.mode, promoted.scored) == (Mode.FULL, 200)
    assert promoted.because == "invalidated: model version 1 is served, 2 is current"
    assert world.rows("SELECT DISTINCT model_version FROM predictions.shop") == [(2,)]
    assert publish(world, NOON + 5 * HOUR).mode is Mode.INCREMENTAL
    assert publish(world, NOON + 6 * HOUR, full=True).because == "asked for"
