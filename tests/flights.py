"""The flights that left New York in 2013, staged once and then replayed day by day as their publishers would have.

Two schemas: ``world`` is everything that will ever have happened, for this module alone; ``ny`` is what has been
published by then, and all that prescore may read. Every published row carries the instant of its publication in
``updated_at``:

- a schedule at 18:00 of the day before (New York),
- an outcome at 06:00 of the day after, or a day later for a flight that had not left by then,
- a weather observation one hour after the hour it was made in.

Wall clock times become instants in SQL (``AT TIME ZONE``), so days of 23 and 25 hours come out right.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg2
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

NEW_YORK = ZoneInfo("America/New_York")
FIRST_DAY = date(2013, 1, 1)
LAST_DAY = date(2013, 12, 31)

_FILES = {
    "world.schedule": "flights_schedule.parquet",
    "world.outcome": "flights_outcome.parquet",
    "world.weather": "weather.parquet",
}

_CREATE_WORLD = """
CREATE SCHEMA world;
CREATE TABLE world.schedule (
  flight_key text, flight_date date NOT NULL, carrier text NOT NULL,
  flight int NOT NULL, tailnum text, origin text NOT NULL, dest text NOT NULL,
  distance_miles int NOT NULL, sched_dep_time smallint, sched_arr_time smallint,
  sched_dep_local timestamp, sched_dep_utc timestamptz);
CREATE TABLE world.outcome (
  flight_key text, flight_date date NOT NULL, dep_time smallint,
  dep_delay_min smallint, arr_time smallint, arr_delay_min smallint,
  air_time_min smallint, cancelled boolean NOT NULL,
  arr_missing_but_departed boolean NOT NULL, dep_delay_gt15 boolean,
  arr_delay_gt15 boolean, dep_actual_utc timestamptz, sched_dep_source text NOT NULL,
  sched_arr_source text NOT NULL, source_row int NOT NULL);
CREATE TABLE world.weather (
  origin text NOT NULL, observed_hour_utc timestamptz NOT NULL, year_local smallint, month_local smallint,
  day_local smallint, hour_local smallint, temp_f float8, dewp_f float8, humid_pct float8, wind_dir_deg float8,
  wind_speed_mph float8, wind_gust_mph float8, precip_in float8, pressure_mb float8, visib_miles float8);
"""

_INDEX_WORLD = """
CREATE INDEX ON world.schedule (flight_date);
CREATE INDEX ON world.outcome (flight_date);
CREATE INDEX ON world.weather (observed_hour_utc);
ANALYZE world.schedule, world.outcome, world.weather;
"""

# tailnum, sched_dep_source and source_row stay behind on purpose: each of them gives a cancelled flight away.
_CREATE_PUBLISHED = """
CREATE SCHEMA ny;
CREATE TABLE ny.flights (
  flight_key text PRIMARY KEY, flight_date date NOT NULL, carrier text NOT NULL, flight int NOT NULL,
  origin text NOT NULL, dest text NOT NULL, distance_miles int NOT NULL,
  sched_dep_time smallint, sched_dep_utc timestamptz, updated_at timestamptz NOT NULL);
CREATE INDEX ON ny.flights (flight_date);
CREATE INDEX ON ny.flights (updated_at);
CREATE TABLE ny.flight_outcomes (
  flight_key text PRIMARY KEY REFERENCES ny.flights, dep_delay_min smallint, cancelled boolean NOT NULL,
  dep_actual_utc timestamptz, updated_at timestamptz NOT NULL);
CREATE INDEX ON ny.flight_outcomes (updated_at);
CREATE TABLE ny.weather (
  origin text NOT NULL, observed_hour_utc timestamptz NOT NULL, temp_f float8, dewp_f float8, humid_pct float8,
  wind_speed_mph float8, precip_in float8, pressure_mb float8, visib_miles float8,
  updated_at timestamptz NOT NULL, PRIMARY KEY (origin, observed_hour_utc));
CREATE INDEX ON ny.weather (updated_at);
"""

_PUBLISH_SCHEDULE = """
INSERT INTO ny.flights
SELECT flight_key, flight_date, carrier, flight, origin, dest, distance_miles, sched_dep_time, sched_dep_utc,
       ((flight_date - 1) + time '18:00') AT TIME ZONE 'America/New_York'
FROM world.schedule
WHERE flight_date BETWEEN %(first)s AND %(last)s
ON CONFLICT (flight_key) DO NOTHING
"""

_PUBLISH_OUTCOMES = """
WITH t AS (SELECT ((%(day)s::date + 1) + time '06:00') AT TIME ZONE 'America/New_York' AS now)
INSERT INTO ny.flight_outcomes
SELECT o.flight_key, o.dep_delay_min, o.cancelled, o.dep_actual_utc, t.now
FROM world.outcome o JOIN ny.flights f USING (flight_key), t
WHERE o.flight_date BETWEEN %(day)s::date - 2 AND %(day)s::date
  AND (o.cancelled OR o.dep_actual_utc <= t.now)
ON CONFLICT (flight_key) DO NOTHING
"""

# The rows that _PUBLISH_OUTCOMES gives, run for every day in turn; one statement takes a third of the time of 366.
_PUBLISH_ALL_OUTCOMES = """
INSERT INTO ny.flight_outcomes
SELECT o.flight_key, o.dep_delay_min, o.cancelled, o.dep_actual_utc, published.at
FROM world.outcome o,
     LATERAL (SELECT min(morning) AS at
              FROM generate_series(1, 3) AS later,
                   LATERAL (SELECT ((o.flight_date + later) + time '06:00') AT TIME ZONE 'America/New_York' AS morning)
              WHERE o.cancelled OR o.dep_actual_utc <= morning) AS published
WHERE published.at IS NOT NULL
ON CONFLICT (flight_key) DO NOTHING
"""

_PUBLISH_WEATHER = """
INSERT INTO ny.weather
SELECT origin, observed_hour_utc, temp_f, dewp_f, humid_pct, wind_speed_mph, precip_in, pressure_mb, visib_miles,
       observed_hour_utc + interval '1 hour'
FROM world.weather
WHERE observed_hour_utc + interval '1 hour' <= %(until)s
ON CONFLICT (origin, observed_hour_utc) DO NOTHING
"""


def why_skipped() -> str | None:
    """Why the flights cannot be replayed here, or None when PRESCORE_FLIGHTS_DATA names a folder that holds them."""
    value = os.environ.get("PRESCORE_FLIGHTS_DATA")
    if not value:
        return "PRESCORE_FLIGHTS_DATA is not set: it names the folder with the nycflights13 Parquet files"
    missing = [name for name in _FILES.values() if not (Path(value) / name).is_file()]
    if missing:
        return f"PRESCORE_FLIGHTS_DATA names a folder without {', '.join(missing)}"
    return None


def days(first: date, last: date) -> Iterator[date]:
    """Every date from ``first`` to ``last``, both included."""
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def scoring_instant(day: date) -> datetime:
    """03:00 New York on ``day``: when its flights are scored, two hours before the first of them leaves."""
    return datetime(day.year, day.month, day.day, 3, tzinfo=NEW_YORK)


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """A psycopg2 connection in UTC that commits every statement by itself."""
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET timezone = 'UTC'")
        yield connection
    finally:
        connection.close()


def run(connection: Any, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
    """Execute one statement; its rows, or an empty list where it returns none."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return [] if cursor.description is None else cursor.fetchall()


def stage_world(url: str, folder: Path) -> None:
    """Load the Parquet files of ``folder`` into schema ``world`` and create the empty tables of schema ``ny``."""
    with connected(url) as connection:
        run(connection, _CREATE_WORLD)
        for table, file in _FILES.items():
            _copy(connection, table, pq.read_table(folder / file))
        run(connection, _INDEX_WORLD)
        run(connection, _CREATE_PUBLISHED)


def _copy(connection: Any, table: str, rows: pa.Table) -> None:
    # pyarrow writes null as an unquoted empty field, which is what COPY reads back as NULL.
    text = io.BytesIO()
    pacsv.write_csv(rows, text)
    text.seek(0)
    with connection.cursor() as cursor:
        cursor.copy_expert(f"COPY {table} ({', '.join(rows.column_names)}) FROM STDIN (FORMAT csv, HEADER)", text)


def publish_schedule(url: str, day: date) -> None:
    """What happens at 18:00 of the day before ``day``: its schedule is published. Twice changes nothing."""
    with connected(url) as connection:
        run(connection, _PUBLISH_SCHEDULE, first=day, last=day)


def publish_outcomes(url: str, day: date) -> None:
    """What happens at 06:00 of the day after ``day``: what is known by then of it and of the two days before."""
    with connected(url) as connection:
        run(connection, _PUBLISH_OUTCOMES, day=day)


def replay(url: str, *, since: date, until: date) -> None:
    """Publish all that becomes known from the run of ``since`` (03:00, excluded) to that of ``until`` (included).

    By the run of a day D its schedule is there (since the evening before), and the outcomes of D-2 and earlier (since
    the morning before); those of D-1 follow three hours too late for it. ``since`` = 1 January starts from nothing.
    """
    start = since if since == FIRST_DAY else since + timedelta(days=1)
    with connected(url) as connection:
        for day in days(start, until):
            run(connection, _PUBLISH_SCHEDULE, first=day, last=day)
            run(connection, _PUBLISH_OUTCOMES, day=day - timedelta(days=2))
        run(connection, _PUBLISH_WEATHER, until=scoring_instant(until))
        run(connection, "ANALYZE ny.flights, ny.flight_outcomes, ny.weather")


def replay_year(url: str) -> None:
    """Publish the whole year at once, every row under the instant at which it was honestly published."""
    with connected(url) as connection:
        run(connection, _PUBLISH_SCHEDULE, first=FIRST_DAY, last=LAST_DAY)
        # Checked once at the end instead of 336,776 times: half the time.
        run(connection, "ALTER TABLE ny.flight_outcomes DROP CONSTRAINT flight_outcomes_flight_key_fkey")
        run(connection, _PUBLISH_ALL_OUTCOMES)
        run(connection, "ALTER TABLE ny.flight_outcomes ADD FOREIGN KEY (flight_key) REFERENCES ny.flights")
        run(connection, _PUBLISH_WEATHER, until=scoring_instant(LAST_DAY + timedelta(days=2)))
        run(connection, "ANALYZE ny.flights, ny.flight_outcomes, ny.weather")


def set_clock(url: str, instant: datetime) -> None:
    """Make ``prescore.clock()`` of this database return ``instant`` from now on."""
    with connected(url) as connection:
        run(
            connection,
            "CREATE OR REPLACE FUNCTION prescore.clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE "
            f"AS $$ SELECT timestamptz '{instant.isoformat()}' $$",
        )
