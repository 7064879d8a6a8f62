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


def features(url: str, as_of: datetime, keys: list[int]) -> list[Any]:
    query = (pipeline_folder() / "features.sql").read_text()
    given = "unnest(CAST(:keys AS bigint[])) AS given(customer_id)"
    batch = f"batch AS (SELECT customer_id, CAST(:as_of AS timestamptz) AS as_of FROM {given})"
    return ask(url, f"WITH {batch} SELECT * FROM ({query}) AS features ORDER BY customer_id", as_of=as_of, keys=keys)


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
    before = features(database_url, TODAY, keys)
    with connect(database_url) as connection:
        for part in ("place_orders", "record_visits", "unsubscribe_customers"):
            connection.execute(sa.text(load_demo(part)), {"since": TODAY, "until": TODAY + 30 * DAY})
        connection.commit()
    assert features(database_url, TODAY, keys) == before
    assert features(database_url, TODAY + 30 * DAY, keys) != before


def test_features_have_one_row_for_each_key_also_for_customers_who_never_ordered(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    keys = list(range(1, CUSTOMERS + 1))
    rows = features(database_url, TODAY, keys)
    assert [row.customer_id for row in rows] == keys
    never = [row for row in rows if row.orders == 0]
    assert never
    assert all(row.last_order_at is None and row.spent_365d is None and row.orders_90d == 0 for row in never)


def test_changes_name_exactly_whom_the_day_touched(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    query = (pipeline_folder() / "changes.sql").read_text()
    since = "since AS (SELECT CAST(:at AS timestamptz) AS at)"
    named = f"WITH {since} SELECT customer_id FROM ({query}) AS changes ORDER BY 1"
    assert ask(database_url, named, at=TODAY) == []
    keys = list(range(1, CUSTOMERS + 1))
    before = {row.customer_id: row for row in features(database_url, TODAY + DAY, keys)}
    pass_day(database_url, since=TODAY, customers=CUSTOMERS)
    after = {row.customer_id: row for row in features(database_url, TODAY + DAY, [*keys, CUSTOMERS + 1, CUSTOMERS + 2])}
    differing = {key for key, row in after.items() if before.get(key) != row}
    changed = {row.customer_id for row in ask(database_url, named, at=TODAY)}
    assert {CUSTOMERS + 1, CUSTOMERS + 2} <= differing <= changed
    assert len(changed) < CUSTOMERS / 5


def test_labels_look_at_twelve_instants_whose_outcome_is_known(database_url: str) -> None:
    open_shop(database_url, customers=CUSTOMERS, today=TODAY)
    query = (pipeline_folder() / "labels.sql").read_text()
    run = "run AS (SELECT CAST(:as_of AS timestamptz) AS as_of)"
    rows = ask(database_url, f"WITH {run} SELECT * FROM ({query}) AS labels", as_of=TODAY)
    assert len({row.as_of for row in rows}) == 12
    assert max(row.as_of for row in rows) == TODAY - timedelta(days=31)
    assert {row.label for row in rows} == {0, 1}
    assert len({(row.customer_id, row.as_of) for row in rows}) == len(rows)


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
