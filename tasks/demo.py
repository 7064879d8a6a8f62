"""The example shop: a database of its own, two years of customers, and days that pass in it.

Everything in it is drawn by hash from numbers, so that the same size at the same instant gives the same rows. The
statements are in sql/demo.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from tasks.database import clock, connect
from tasks.errors import DemoIsRunning
from tasks.telling import Answer

#: The database that the demo makes anew each time.
DATABASE = "prescore_demo"
#: How far back the shop goes.
HISTORY = timedelta(days=730)
# Twelve categories of 42 products: sql/demo/place_orders.sql counts on it.
PRODUCTS = 12 * 42
# 1.2: every quarter brings a few more customers than the one before.
_GROWTH = 1.2
_EARLY = timedelta(days=1000)


@dataclass(frozen=True, kw_only=True)
class ShopSize:
    """How many rows the shop's tables have."""

    customers: int
    products: int
    orders: int
    visits: int


@dataclass(frozen=True, kw_only=True)
class Day:
    """What a day brought, as rows of the shop."""

    signed_up: int
    orders: int
    visits: int
    unsubscribed: int
    closed: int


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Customers whose predictions the demo follows; None where the day brings no such customer."""

    #: Orders on the second day; a regular who had gone quiet, if there is one.
    buyer: int | None
    #: Nothing is heard from; the likeliest to leave.
    quiet: int | None
    #: Asks to be forgotten.
    leaver: int | None
    #: Signs up on the second day.
    newcomer: int | None

    @property
    def followed(self) -> int:
        """The customer whose prediction is looked at in full."""
        return next(key for key in (self.buyer, self.quiet) if key is not None)


@cache
def load_demo(name: str) -> str:
    """Return the statement of sql/demo/<name>.sql."""
    return (resources.files("sql") / "demo" / f"{name}.sql").read_text(encoding="utf-8")


def pipeline_folder(name: str = "churn") -> Path:
    """Return the folder of a pipeline that prescore ships, whatever pipelines the user has."""
    return Path(str(resources.files("deployments") / "pipelines" / name))


@contextmanager
def demo_database(server_url: str) -> Iterator[str]:
    """Make the demo's database anew and yield its URL; until the end no other demo can take it away.

    ``server_url`` names another database of the embedded server. What the last demo left is dropped; this one stays
    for whoever wants to look around in it.

    Raises
    ------
    DemoIsRunning
        When another demo works in the database now.
    """
    with connect(server_url, "prescore demo", autocommit=True) as connection:
        if not _run(connection, "lock_demo").scalar_one():
            raise DemoIsRunning(DATABASE)
        _run(connection, "drop_demo")
        _run(connection, "create_demo")
        yield make_url(server_url).set(database=DATABASE).render_as_string(hide_password=False)


def open_shop(url: str, *, customers: int, today: datetime, done: Callable[[str], None] = lambda _: None) -> ShopSize:
    """Create the shop and load its two years up to ``today``; calls ``done`` with each of SHOP_PARTS once loaded."""
    past = {"since": today - _EARLY, "until": today}
    with connect(url, "prescore demo") as connection:
        for name in ("create_shop", "create_world", "create_chance", "create_habits"):
            _run(connection, name)
        _run(connection, "stock_products", products=PRODUCTS, since=today - HISTORY)
        _run(
            connection,
            "sign_up_customers",
            first_id=1,
            customers=customers,
            since=today - HISTORY,
            until=today,
            growth=_GROWTH,
        )
        _run(connection, "unsubscribe_customers", **past)
        connection.commit()
        done("customers")

    def load(part: str, statement: str) -> None:
        with connect(url, "prescore demo") as connection:
            _run(connection, statement, **past)
            connection.commit()
        done(part)

    # Two tables, two connections: each takes a processor of the server for its own.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for result in [pool.submit(load, "orders", "place_orders"), pool.submit(load, "visits", "record_visits")]:
            result.result()
    with connect(url, "prescore demo") as connection:
        _run(connection, "analyze_shop")
        connection.commit()
        return ShopSize(**_run(connection, "count_shop").mappings().one())


#: What open_shop reports, in this order or with the last two swapped.
SHOP_PARTS = ("customers", "orders", "visits")


def pass_day(url: str, *, since: datetime, customers: int) -> Day:
    """Load the day after ``since``: sign-ups, orders, visits, letters unsubscribed, accounts closed.

    ``customers`` is the size the shop was opened with; one in 400 signs up, one in 10,000 (at least one) closes.
    """
    with connect(url, "prescore demo") as connection:
        day = _load_day(connection, since, customers)
        connection.commit()
        return day


def choose_cast(url: str, *, since: datetime, customers: int) -> Cast:
    """Choose whom to follow over the day after ``since``, by letting it pass and taking it back.

    Reads the predictions of the first day; changes nothing.
    """
    with connect(url, "prescore demo") as connection:
        _load_day(connection, since, customers)
        cast = _run(connection, "choose_cast", since=since).mappings().one()
        connection.rollback()
        return Cast(**cast)


def ask(url: str, statement: str, **values: Any) -> Answer:
    """Send a statement over a connection that is open already, as an application's is, and wait for the rows."""
    with connect(url, "prescore demo", autocommit=True) as connection:
        clock(connection)
        began = time.perf_counter()
        result = connection.execute(sa.text(statement), values)
        rows = tuple(tuple(row) for row in result)
        return Answer(columns=tuple(result.keys()), rows=rows, seconds=time.perf_counter() - began)


def move_clock(url: str, ahead: timedelta) -> None:
    """Let prescore.clock() of the demo's database run ahead of the real clock."""
    with connect(url, "prescore demo") as connection:
        _run(connection, "move_clock", ahead=ahead)
        connection.commit()


def _load_day(connection: sa.Connection, since: datetime, customers: int) -> Day:
    span: dict[str, Any] = {"since": since, "until": since + timedelta(days=1)}
    signed_up = max(1, customers // 400)
    _run(connection, "sign_up_customers", first_id=customers + 1, customers=signed_up, growth=1, **span)
    return Day(
        signed_up=signed_up,
        unsubscribed=_run(connection, "unsubscribe_customers", **span).rowcount,
        orders=_run(connection, "place_orders", **span).rowcount,
        visits=_run(connection, "record_visits", **span).rowcount,
        closed=_run(connection, "close_accounts", accounts=max(1, customers // 10_000), draw=51).rowcount,
    )


def _run(connection: sa.Connection, statement: str, **values: Any) -> sa.CursorResult[Any]:
    return connection.execute(sa.text(load_demo(statement)), values)
