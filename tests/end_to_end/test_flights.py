"""Real input: the flights that left New York in 2013, replayed day by day and scored at 03:00 of each day.

Every day is scored twice: in a database that holds only what had been published by then, and in one in which the whole
year is already there, every row under its honest instant. What differs between the two has seen the future.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

import deployments
from flows.score import score
from flows.train import train
from tasks.features import training_frame
from tasks.pipeline import load_pipeline
from tasks.runs import Status, Trigger
from tasks.settings import Settings, read_settings
from tasks.usersql import tables
from tests import flights
from tests.conftest import copy_database, execute, psql_url
from tests.disturbances import prescore
from tests.factories import World

pytestmark = [
    pytest.mark.skipif(flights.why_skipped() is not None, reason=str(flights.why_skipped())),
    pytest.mark.xdist_group("flights"),
]

PIPELINE = Path(deployments.__file__).parent / "pipelines" / "flight_delay"
TRAINED = date(2013, 2, 1)
WEEK = tuple(flights.days(date(2013, 2, 4), date(2013, 2, 10)))
# Daylight saving begins on 10 March and ends on 3 November.
SEASON = (
    *flights.days(date(2013, 2, 1), date(2013, 3, 31)),
    *flights.days(date(2013, 11, 2), date(2013, 11, 4)),
)
# From replay.md beside the data: flights of the day; outcomes and labels of them known at 06:00 of the next day.
KNOWN_COUNTS = {
    date(2013, 2, 8): (930, 930, 458),
    date(2013, 2, 9): (684, 684, 291),
    date(2013, 3, 10): (908, 908, 903),
    date(2013, 3, 18): (981, 980, 940),
    date(2013, 11, 3): (902, 901, 899),
}
# From the same page: how old the outcomes are at the run, in hours.
OUTCOME_AGES = {date(2013, 3, 10): 20, date(2013, 11, 3): 22}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Two databases after January, with the same model."""

    published: str
    """Name of the database that holds what was published by then, and nothing more."""
    year: str
    """Name of the database that holds the whole year, every row under the instant at which it was published."""
    year_pipelines: Path
    """Folder of the pipeline that the second is scored with."""


@dataclass(frozen=True, kw_only=True)
class Day:
    """What became of the flights of one day."""

    day: date
    scheduled: frozenset[str] = field(repr=False)
    """Their keys, by the staged files."""
    published: pd.DataFrame = field(repr=False)
    """What a reader of the database without a future sees after its run (see ``predictions``)."""
    year: pd.DataFrame = field(repr=False)
    """What a reader of the database with the whole year sees."""
    late: pd.Series = field(repr=False)
    """Label by key, of the flights whose delay was published at 06:00 of the next day."""
    outcomes: int
    """Outcomes published by then, with those of cancelled flights."""
    carrier_late_rate: pd.Series = field(repr=False)
    """By flight: the share of its carrier's flights that were late, of all that were published by the run."""


@pytest.fixture(scope="module")
def trained(
    request: pytest.FixtureRequest, server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trained]:
    """January replayed, and a model trained on it as of the first run of February."""
    migrated = request.getfixturevalue("_template")
    declaration = tmp_path_factory.mktemp("pipelines") / PIPELINE.name / "pipeline.toml"
    shutil.copytree(PIPELINE, declaration.parent, ignore=shutil.ignore_patterns("__pycache__"))
    # Rows loaded in the future betray a broken loader, and the check of load times rightly holds such a run. Here they
    # are meant, so the copy declares event times: that changes what is checked, and no prediction.
    declaration.write_text(declaration.read_text().replace('kind = "load_time"', 'kind = "event_time"'))
    with copied(server_url, migrated) as published:
        url = psql_url(server_url, published)
        flights.stage_world(url, Path(os.environ["PRESCORE_FLIGHTS_DATA"]))
        flights.replay(url, since=flights.FIRST_DAY, until=TRAINED)
        flights.set_clock(url, flights.scoring_instant(TRAINED))
        # Two threads for each of two test processes fight over two cores: three times as long.
        with threadpool_limits(1):
            train(settings(url, PIPELINE.parent), PIPELINE.name)
        with copied(server_url, published) as year:
            flights.replay_year(psql_url(server_url, year))
            yield Trained(published=published, year=year, year_pipelines=declaration.parents[1])


@pytest.fixture(
    scope="module", params=[pytest.param(WEEK, id="week"), pytest.param(SEASON, id="season", marks=pytest.mark.slow)]
)
def scored(request: pytest.FixtureRequest, server_url: str, trained: Trained) -> list[Day]:
    """Every day of a week or a season, run at 03:00 in both databases."""
    result = []
    last = TRAINED
    with copied(server_url, trained.published) as published, copied(server_url, trained.year) as year:
        published_url, year_url = psql_url(server_url, published), psql_url(server_url, year)
        for day in request.param:
            flights.replay(published_url, since=last, until=day)
            last = day
            run_as_scheduled(published_url, PIPELINE.parent, flights.scoring_instant(day))
            run_as_scheduled(year_url, trained.year_pipelines, flights.scoring_instant(day))
            result.append(read_day(day, published_url, year_url))
    return result


@contextmanager
def copied(server_url: str, database: str) -> Iterator[str]:
    """A copy of a database that nobody is connected to, dropped afterwards; its name."""
    name = f"flights_{uuid.uuid4().hex[:12]}"
    copy_database(server_url, name, database)
    try:
        yield name
    finally:
        execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def settings(url: str, pipelines: Path) -> Settings:
    return read_settings({"PRESCORE_DATABASE_URL": url, "PRESCORE_PIPELINES": str(pipelines)})


def run_as_scheduled(url: str, pipelines: Path, instant: datetime) -> None:
    """Let the clock stand at ``instant`` and run as the schedule would: full, as of the clock, nothing waived."""
    flights.set_clock(url, instant)
    with threadpool_limits(1):
        summary = score(settings(url, pipelines), PIPELINE.name, full=True, trigger=Trigger.SCHEDULED)
    assert summary.status is Status.PUBLISHED, summary.message


def read_day(day: date, published_url: str, year_url: str) -> Day:
    morning_after = datetime.combine(day + timedelta(days=1), time(6), flights.NEW_YORK)
    with flights.connected(year_url) as connection:
        scheduled = flights.run(
            connection, "SELECT flight_key, carrier FROM world.schedule WHERE flight_date = %(day)s", day=day
        )
        outcomes = flights.run(
            connection,
            """
            SELECT flight_key, o.dep_delay_min > 15
            FROM ny.flight_outcomes o JOIN ny.flights f USING (flight_key)
            WHERE f.flight_date = %(day)s AND o.updated_at <= %(known)s
            """,
            day=day,
            known=morning_after,
        )
        rates = dict(
            flights.run(
                connection,
                """
                SELECT f.carrier, avg((o.dep_delay_min > 15)::integer)::float8
                FROM ny.flight_outcomes o JOIN ny.flights f USING (flight_key)
                WHERE o.dep_delay_min IS NOT NULL AND o.updated_at <= %(known)s
                GROUP BY f.carrier
                """,
                known=flights.scoring_instant(day),
            )
        )
    return Day(
        day=day,
        scheduled=frozenset(key for key, _ in scheduled),
        published=predictions(published_url),
        year=predictions(year_url),
        late=pd.Series({key: late for key, late in outcomes if late is not None}, dtype=bool),
        outcomes=len(outcomes),
        carrier_late_rate=pd.Series({key: rates[carrier] for key, carrier in scheduled}),
    )


def predictions(url: str) -> pd.DataFrame:
    """What a reader sees now, by flight_key; ``reason`` says why a flight was rejected."""
    with flights.connected(url) as connection:
        rows = flights.run(
            connection,
            """
            SELECT p.flight_key, p.state, p.as_of, p.data_as_of, p.late_probability, r.reason
            FROM predictions.flight_delay p
            LEFT JOIN prescore.generations g ON g.generation_id = p.scored_in
            LEFT JOIN prescore.rejections r ON r.run_id = g.run_id AND r.key ->> 'flight_key' = p.flight_key
            ORDER BY p.flight_key
            """,
        )
    columns = ["flight_key", "state", "as_of", "data_as_of", "late_probability", "reason"]
    return pd.DataFrame(rows, columns=columns).set_index("flight_key")


def ranking(day: Day) -> tuple[float, float]:
    """AUC of the predictions and of the carrier's late-rate, on the labels of the morning after."""
    keys = day.late.index.intersection(day.published.index[day.published.late_probability.notna()])
    truth = day.late[keys]
    return (
        float(roc_auc_score(truth, day.published.late_probability[keys])),
        float(roc_auc_score(truth, day.carrier_late_rate[keys])),
    )


def test_every_flight_of_a_day_is_predicted_or_rejected_with_a_reason(scored: list[Day]) -> None:
    for day in scored:
        assert set(day.published.index) == day.scheduled, day
        assert len(day.published) == len(day.scheduled), day
        predicted = day.published.late_probability.notna()
        assert day.published.late_probability[predicted].between(0, 1).all(), day
        assert day.published.reason[~predicted].notna().all(), day
        assert (day.published.state[~predicted] == "rejected").all(), day
        assert predicted.sum() >= len(predicted) - 10, day


def test_every_row_was_scored_at_three_in_new_york_on_outcomes_of_the_morning_before(scored: list[Day]) -> None:
    for day in scored:
        instant = flights.scoring_instant(day.day)
        assert set(day.published.as_of) == {instant}, day
        age = instant - day.published.data_as_of.iloc[0]
        assert age == timedelta(hours=OUTCOME_AGES.get(day.day, 21)), day


def test_the_replayed_days_have_the_counts_of_the_data_sets_own_replay(scored: list[Day]) -> None:
    counts = {day.day: (len(day.published), day.outcomes, len(day.late)) for day in scored}
    known = {day: expected for day, expected in KNOWN_COUNTS.items() if day in counts}
    assert known
    assert {day: counts[day] for day in known} == known


def test_a_prediction_is_the_same_when_the_rest_of_the_year_is_already_there(scored: list[Day]) -> None:
    for day in scored:
        pd.testing.assert_frame_equal(
            day.published[["as_of", "late_probability", "reason"]],
            day.year[["as_of", "late_probability", "reason"]],
            check_exact=True,
            obj=f"predictions of {day.day}",
        )


def test_predictions_rank_flights_better_than_the_late_rate_of_their_carrier(
    scored: list[Day], capsys: pytest.CaptureFixture[str]
) -> None:
    measured = [(day, *ranking(day)) for day in scored]
    with capsys.disabled():
        print(f"\n{'day':10} {'flights':>8} {'rejected':>8} {'labels':>7} {'late':>6} {'AUC':>7} {'carrier':>8}  state")
        for day, ours, carriers in measured:
            print(
                f"{day.day} {len(day.published):8,} {int(day.published.late_probability.isna().sum()):8} "
                f"{len(day.late):7,} {day.late.mean():6.1%} {ours:7.3f} {carriers:8.3f}  {day.published.state.iloc[0]}"
            )
        print(f"{'mean':42} {mean([ours for _, ours, _ in measured]):7.3f} {mean([c for *_, c in measured]):8.3f}")
    better = sum(ours > carriers for _, ours, carriers in measured)
    assert better >= 0.8 * len(measured)
    assert mean([ours for _, ours, _ in measured]) > mean([carriers for *_, carriers in measured]) + 0.03


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def test_training_sees_the_same_rows_when_the_rest_of_the_year_is_already_there(
    server_url: str, trained: Trained
) -> None:
    instant = flights.scoring_instant(TRAINED)
    pipeline = load_pipeline(PIPELINE)
    published = training_frame(psql_url(server_url, trained.published), pipeline, instant)
    year = training_frame(psql_url(server_url, trained.year), pipeline, instant)
    assert published.num_rows > 25_000
    assert published.equals(year)


def test_its_queries_read_nothing_but_what_was_published() -> None:
    pipeline = load_pipeline(PIPELINE)
    assert pipeline.features.changes is not None
    assert pipeline.training is not None
    assert pipeline.training.labels is not None
    for query in (pipeline.entity.query, pipeline.features.query, pipeline.features.changes, pipeline.training.labels):
        supplied = {(None, "batch"), (None, "run"), (None, "since")}
        assert {schema for schema, _ in tables(query) - supplied} <= {"ny"}, query.origin


def test_a_flight_published_after_the_run_is_scored_by_the_next(server_url: str, trained: Trained) -> None:
    day = WEEK[0]
    with copied(server_url, trained.published) as name:
        url = psql_url(server_url, name)
        flights.replay(url, since=TRAINED, until=day)
        three = flights.scoring_instant(day)
        with flights.connected(url) as connection:
            flights.run(
                connection,
                """
                CREATE TABLE later AS
                SELECT * FROM ny.flights WHERE flight_date = %(day)s ORDER BY flight_key LIMIT 5
                """,
                day=day,
            )
            flights.run(connection, "DELETE FROM ny.flights USING later WHERE flights.flight_key = later.flight_key")
            flights.run(connection, "UPDATE later SET updated_at = %(at)s", at=three + timedelta(minutes=40))
            keys = {row[0] for row in flights.run(connection, "SELECT flight_key FROM later")}
        run_as_scheduled(url, PIPELINE.parent, three)
        assert not keys & set(predictions(url).index)
        with flights.connected(url) as connection:
            flights.run(connection, "INSERT INTO ny.flights SELECT * FROM later")
        run_as_scheduled(url, PIPELINE.parent, three + timedelta(hours=1))
        seen = predictions(url)
        assert keys < set(seen.index)
        assert seen.late_probability.notna().all()


def test_a_day_is_fresh_until_the_next_run_is_late_and_then_says_so(server_url: str, trained: Trained) -> None:
    three = flights.scoring_instant(WEEK[0])
    with copied(server_url, trained.published) as name:
        url = psql_url(server_url, name)
        flights.replay(url, since=TRAINED, until=WEEK[0])
        run_as_scheduled(url, PIPELINE.parent, three)
        states = {}
        for hours in (0, 24, 26, 30, 78):
            flights.set_clock(url, three + timedelta(hours=hours))
            seen = predictions(url)
            states[hours] = (set(seen.state), bool(seen.late_probability.notna().all()))
    assert states == {
        0: ({"fresh"}, True),
        24: ({"fresh"}, True),
        26: ({"aging"}, True),
        30: ({"stale"}, True),
        78: ({"expired"}, False),
    }


WRITTEN = "flight_key, as_of, rejected, late_probability"


@pytest.mark.slow
def test_a_backfill_in_random_order_that_was_killed_equals_the_daily_runs(
    server_url: str, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    daily: dict[date, list[tuple[object, ...]]] = {}
    serving = "storage_id = (SELECT storage_id FROM prescore.head WHERE pipeline = 'flight_delay')"
    last = TRAINED
    with copied(server_url, trained.published) as name:
        url = psql_url(server_url, name)
        for day in WEEK:
            flights.replay(url, since=last, until=day)
            last = day
            run_as_scheduled(url, PIPELINE.parent, flights.scoring_instant(day))
            with flights.connected(url) as connection:
                written = f"SELECT {WRITTEN} FROM prescore_rows.flight_delay WHERE {serving} ORDER BY 1"
                daily[day] = flights.run(connection, written)
    with copied(server_url, trained.year) as name:
        url = psql_url(server_url, name)
        run_as_scheduled(url, trained.year_pipelines, flights.scoring_instant(WEEK[0]))
        flights.set_clock(url, flights.scoring_instant(WEEK[-1] + timedelta(days=30)))
        world = World(url=url, settings=settings(url, trained.year_pipelines))
        words = ("backfill", PIPELINE.name, "--from", f"{WEEK[0]}", "--to", f"{WEEK[-1]}", "--shuffle", "--json")
        killed = prescore(world, *words, kill_at="copy.fenced:4")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        resumed = prescore(world, *words, "--workers", "2")
        assert resumed.returncode == 0, resumed.stderr
        ended = Counter(outcome["ended"] for outcome in json.loads(resumed.stdout)["outcomes"])
        assert ended == {"kept": 3, "done": 4}
        with flights.connected(url) as connection:
            found = {
                day: flights.run(
                    connection,
                    f"SELECT {WRITTEN} FROM predictions.flight_delay_backfill WHERE as_of = %(at)s ORDER BY 1",
                    at=flights.scoring_instant(day),
                )
                for day in WEEK
            }
            order = flights.run(connection, "SELECT as_of FROM prescore.backfills ORDER BY generation_id")
            (everybody,) = flights.run(connection, "SELECT count(*) FROM predictions.flight_delay_backfill")
            (served,) = flights.run(connection, "SELECT as_of FROM prescore.head WHERE pipeline = 'flight_delay'")
    assert served == (flights.scoring_instant(WEEK[0]),)
    for day in WEEK:
        assert found[day] == daily[day], day
    assert everybody == (sum(map(len, daily.values())),)
    with capsys.disabled():
        days = ", ".join(f"{at.astimezone(flights.NEW_YORK):%d}" for (at,) in order)
        print(f"\n{everybody[0]:,} rows of {len(WEEK)} days equal value by value; scored in the order {days}")
