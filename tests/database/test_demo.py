"""The example shop: the same rows each time, days that follow on one another, and features that know no future."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tasks.database import clock, connect
from tasks.demo import SHOP_PARTS, demo_database, load_demo, move_clock, open_shop, pass_day, pipeline_folder
from tasks.errors import DemoIsRunning
from tests.conftest import execute, psql_url

TODAY = datetime(2026, 6, 17, 10, 0, tzinfo=UTC)
DAY = timedelta(days=1)
CUSTOMERS = 800
PIPELINES = ("churn", "segments", "recommendations")


@pytest.fixture
def second_database_url(server_url: str) -> Iterator[str]:
    """A database with nothing in it: the shop needs no migration of ours."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(server_url, f"CREATE DATABASE {name}")
    yield psql_url(server_url, name)
    execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def ask(url: str, query: str, **values: Any) -> list[Any]:
    with connect(url) as connection:
        return list(connection.execute(sa.text(query), values))


def contents(url: str) -> list[Any]:
    """Count and order-free checksum of every table of the shop, without the numbers that a sequence gave."""
    rows = "(to_jsonb(t) - 'order_id' - 'visit_id')::text"
    whole = f"SELECT '{{0}}', count(*), sum(hashtextextended({rows}, 0)) FROM shop.{{0}} AS t"
    tables = ("customers", "products", "orders", "visits")
    return ask(url, " UNION ALL ".join(whole.format(table) for table in tables) + " ORDER BY 1")


def features(url: str, as_of: datetime, keys: list[int], pipeline: str = "churn") -> list[Any]:
    query = (pipeline_folder(pipeline) / "features.sql").read_text()
    given = "unnest(CAST(:keys AS bigint[])) AS given(customer_id)"
    batch = f"batch AS (SELECT customer_id, CAST(:as_of AS timestamptz) AS as_of FROM {given})"
    return ask(url, f"WITH {batch} SELECT * FROM ({query}) AS features ORDER BY customer_id", as_of=as_of, keys=keys)


def labels(url: str, pipeline: str) -> list[Any]:
    query = (pipeline_folder(pipeline) / "labels.sql").read_text()
    run = "run AS (SELECT CAST(:as_of AS timestamptz) AS as_of)"
    return ask(url, f"WITH {run} SELECT * FROM ({query}) AS labels", as_of=TODAY)


def test_the_same_size_at_the_same_instant_gives_the_same_rows(database_url: str, second_database_url: str) -> None:
    reported: list[str] = []
    size = open_shop(database_url, customers=CUSTOMERS, today=TODAY, done=reported.append)
    assert open_shop(second_database_url, customers=CUSTOMERS, today=TODAY) == size
    assert contents(second_database_url) == contents(database_url)
    assert sorted(reported) == sorted(SHOP_PARTS)
    assert size.customers == CUSTOMERS
    assert size.orders > 4 * CUSTOMERS


def test_nothing_is_loaded_after_today_and_the_newest_rows_are_hours_old_at_most(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    newest = ask(
        database_url,
        "SELECT max(updated_at) FROM shop.customers UNION ALL SELECT max(loaded_at) FROM shop.orders "
        "UNION ALL SELECT max(loaded_at) FROM shop.visits",
    )
    assert all(TODAY - timedelta(hours=12) < instant <= TODAY for (instant,) in newest)


def test_a_day_brings_new_customers_orders_visits_and_takes_an_account_away(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    day = pass_day(database_url, since=TODAY, customers=CUSTOMERS)
    assert day.signed_up == 2
    assert day.closed == 1
    assert day.orders > 0
    assert day.visits > 0
    assert ask(database_url, "SELECT count(*) FROM shop.customers") == [(CUSTOMERS + 2 - 1,)]
    gone = "NOT EXISTS (SELECT FROM shop.customers AS c WHERE c.customer_id = t.customer_id)"
    assert ask(database_url, f"SELECT count(*) FROM shop.orders AS t WHERE {gone}") == [(0,)]
    assert ask(database_url, f"SELECT count(*) FROM shop.visits AS t WHERE {gone}") == [(0,)]
    span = {"since": TODAY, "until": TODAY + DAY}
    loaded = (
        "loaded_at > :since AND loaded_at <= :until AND ordered_at > CAST(:since AS timestamptz) - interval '1 hour'"
    )
    assert ask(database_url, f"SELECT count(*) FROM shop.orders WHERE {loaded}", **span)[0][0] >= day.orders - 20


@pytest.mark.parametrize("part", ["place_orders", "record_visits", "unsubscribe_customers"])
def test_two_loads_that_follow_on_each_other_give_the_rows_of_one(
    database_url: str, second_database_url: str, part: str
) -> None:
    for url, cuts in ((database_url, [0, 1]), (second_database_url, [0, 0.3, 1])):
        open_shop(url, customers=CUSTOMERS, today=TODAY)
        for begin, end in itertools.pairwise(cuts):
            with connect(url) as connection:
                span = {"since": TODAY + begin * 9 * DAY, "until": TODAY + end * 9 * DAY}
                connection.execute(sa.text(load_demo(part)), span)
                connection.commit()
    assert contents(second_database_url) == contents(database_url)


def test_features_at_an_instant_do_not_change_when_later_rows_arrive(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    keys = list(range(1, CUSTOMERS - 50))
    before = {pipeline: features(database_url, TODAY, keys, pipeline) for pipeline in PIPELINES}
    with connect(database_url) as connection:
        for part in ("place_orders", "record_visits", "unsubscribe_customers"):
            connection.execute(sa.text(load_demo(part)), {"since": TODAY, "until": TODAY + 30 * DAY})
        connection.commit()
    for pipeline in PIPELINES:
        assert features(database_url, TODAY, keys, pipeline) == before[pipeline]
        assert features(database_url, TODAY + 30 * DAY, keys, pipeline) != before[pipeline]


def test_features_have_one_row_for_each_key_also_for_customers_who_never_ordered(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    keys = list(range(1, CUSTOMERS + 1))
    rows = features(database_url, TODAY, keys)
    assert [row.customer_id for row in rows] == keys
    never = [row for row in rows if row.orders == 0]
    assert never
    assert all(row.last_order_at is None and row.spent_365d is None and row.orders_90d == 0 for row in never)


def test_changes_name_whom_the_day_touched(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    since = "since AS (SELECT CAST(:at AS timestamptz) AS at)"
    queries = {pipeline: (pipeline_folder(pipeline) / "changes.sql").read_text() for pipeline in PIPELINES}
    named = {
        pipeline: f"WITH {since} SELECT customer_id FROM ({query}) AS changes ORDER BY 1"
        for pipeline, query in queries.items()
    }
    assert [ask(database_url, query, at=TODAY) for query in named.values()] == [[], [], []]
    keys, later = list(range(1, CUSTOMERS + 1)), TODAY + DAY
    before = {
        pipeline: {row.customer_id: row for row in features(database_url, later, keys, pipeline)}
        for pipeline in PIPELINES
    }
    pass_day(database_url, since=TODAY, customers=CUSTOMERS)
    customers = {row.customer_id for row in ask(database_url, "SELECT customer_id FROM shop.customers")}
    newcomers = {CUSTOMERS + 1, CUSTOMERS + 2}
    for pipeline in PIPELINES:
        after = {row.customer_id: row for row in features(database_url, later, sorted(customers), pipeline)}
        differing = {key for key in customers - newcomers if before[pipeline][key] != after[key]}
        changed = {row.customer_id for row in ask(database_url, named[pipeline], at=TODAY)}
        assert differing
        assert differing <= changed, pipeline
        assert (
            newcomers <= changed or pipeline == "recommendations"
        )  # which reads orders only; who is new is scored anyway
        assert len(changed) < CUSTOMERS / 5


def test_labels_look_at_twelve_instants_whose_outcome_is_known(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    rows = labels(database_url, "churn")
    assert len({row.as_of for row in rows}) == 12
    assert max(row.as_of for row in rows) == TODAY - timedelta(days=31)
    assert {row.label for row in rows} == {0, 1}
    assert len({(row.customer_id, row.as_of) for row in rows}) == len(rows)


def test_labels_of_recommendations_are_what_was_bought_after_as_of_and_before_the_next_one(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    rows = labels(database_url, "recommendations")
    instants = sorted({row.as_of for row in rows})
    assert len(instants) == 6
    assert all(later - earlier == 30 * DAY for earlier, later in itertools.pairwise([*instants, TODAY - DAY]))
    assert len({(row.customer_id, row.as_of, row.label) for row in rows}) == len(rows)
    bought = {
        (order.customer_id, as_of, order.product_id)
        for order in ask(database_url, "SELECT customer_id, product_id, ordered_at FROM shop.orders")
        for as_of in instants
        if as_of < order.ordered_at <= as_of + 30 * DAY
    }
    signed_up = {
        row.customer_id: row.created_at
        for row in ask(database_url, "SELECT customer_id, created_at FROM shop.customers")
    }
    assert {tuple(row) for row in rows} == {row for row in bought if signed_up[row[0]] <= row[1]}


def test_segments_learn_from_customers_at_five_instants_without_a_label(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    rows = labels(database_url, "segments")
    assert rows[0]._fields == ("customer_id", "as_of")
    assert {row.as_of for row in rows} == {TODAY - weeks * 7 * DAY for weeks in range(5)}
    assert len({tuple(row) for row in rows}) == len(rows)


def test_the_clock_of_the_demo_runs_ahead_and_returns(database_url: str) -> None:
    with connect(database_url) as connection:
        before = clock(connection)
    move_clock(database_url, timedelta(days=3, hours=2))
    with connect(database_url) as connection:
        ahead = clock(connection)
    move_clock(database_url, timedelta(0))
    with connect(database_url) as connection:
        after = clock(connection)
    assert timedelta(days=3, hours=2) <= ahead - before < timedelta(days=3, hours=3)
    assert before < after < before + timedelta(hours=1)


@pytest.mark.xdist_group("demo")  # the database's name is fixed: never beside the demo itself
def test_a_second_demo_is_refused_while_one_is_running(database_url: str) -> None:
    with (
        demo_database(database_url) as url,
        pytest.raises(DemoIsRunning, match="Another demo is working"),
        demo_database(database_url),
    ):
        pass
    assert url.endswith("/prescore_demo")
    with connect(url) as connection:
        assert connection.execute(sa.text("SELECT current_database()")).scalar_one() == "prescore_demo"
