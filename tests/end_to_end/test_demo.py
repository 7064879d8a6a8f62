"""`prescore demo`, as a person sees it and as it left the database."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from rich.console import Console

from flows.demo import DemoSummary, run_demo
from tasks.database import connect
from tasks.settings import Settings
from tests.servers import FOLDER_VARIABLE

CUSTOMERS = 2_000

# One worker runs everything that uses the database `prescore_demo`.
pytestmark = pytest.mark.xdist_group("demo")


@pytest.fixture(scope="module")
def told(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoSummary, str]:
    """One demo on the server of the tests: what it returned and what it wrote."""
    written = io.StringIO()
    settings = Settings(
        database_url="postgresql://nobody@nowhere.invalid/never",
        pipelines_dir=tmp_path_factory.mktemp("pipelines"),
        data_dir=Path(os.environ[FOLDER_VARIABLE]),
    )
    summary = run_demo(settings, customers=CUSTOMERS, console=Console(file=written, width=100, highlight=False))
    return summary, written.getvalue()


def test_the_first_run_scores_everybody(told: tuple[DemoSummary, str]) -> None:
    first = told[0].first
    assert (first.mode.value, first.status.value) == ("full", "published")
    assert (first.population, first.scored, first.rejected) == (CUSTOMERS, CUSTOMERS, 0)


def test_the_second_run_scores_only_what_changed(told: tuple[DemoSummary, str]) -> None:
    summary = told[0]
    second, day = summary.second, summary.day
    assert (second.mode.value, second.status.value) == ("incremental", "published")
    assert (second.new, second.gone, second.due, second.rejected) == (day.signed_up, day.closed, 0, 0)
    assert second.population == CUSTOMERS + day.signed_up - day.closed
    assert 0 < second.changed <= day.orders + day.visits + day.unsubscribed + 20
    assert second.scored == second.new + second.changed
    assert second.scored + second.unchanged == second.population
    assert second.scored < second.population / 5


def test_the_model_beats_the_naive_guess(told: tuple[DemoSummary, str]) -> None:
    trained = told[0].trained
    model, naive = trained.metrics["roc_auc"], trained.baseline["roc_auc"]
    assert model is not None
    assert naive is not None
    assert model > naive + 0.02


def test_the_model_tells_leavers_from_stayers(told: tuple[DemoSummary, str]) -> None:
    with connect(told[0].url) as connection:
        query = """
            SELECT avg((p.churn_probability > s.churn_probability)::integer)
            FROM predictions.churn_usable AS p
            JOIN shop_world.habits AS leaver ON leaver.customer_id = p.customer_id AND leaver.left_at < prescore.clock()
            CROSS JOIN predictions.churn_usable AS s
            JOIN shop_world.habits AS stayer ON stayer.customer_id = s.customer_id
                AND stayer.left_at > prescore.clock() + interval '30 days'
        """
        assert connection.execute(sa.text(query)).scalar_one() > 0.75


def test_the_states_follow_the_clock_until_the_score_is_withheld(told: tuple[DemoSummary, str]) -> None:
    readings = told[0].readings
    assert [reading.state for reading in readings] == ["fresh", "aging", "stale", "expired"]
    assert readings[0].churn_probability is not None
    assert readings[0].churn_probability == readings[1].churn_probability == readings[2].churn_probability
    assert readings[3].churn_probability is None
    assert readings[2].usable == told[0].second.population
    assert readings[3].usable == 0


def test_what_is_told_is_plain_text_a_hundred_wide(told: tuple[DemoSummary, str]) -> None:
    text = told[1]
    assert "\x1b" not in text
    sql_and_commands = ("   PGPASSWORD", "   export", "   psql")
    assert [line for line in text.splitlines() if len(line) > 100 and not line.startswith(sql_and_commands)] == []
    for shown in (
        f"{CUSTOMERS:,} customers",
        "predictions.churn",
        "fresh → aging → stale → expired",
        "prescore status churn",
    ):
        assert shown in text


def test_no_password_is_written(told: tuple[DemoSummary, str]) -> None:
    password = re.search(r"://[^:]+:([^@]+)@", told[0].url)
    assert password is not None
    assert password.group(1) not in told[1]


def test_the_shop_stays_open_on_its_second_day(told: tuple[DemoSummary, str]) -> None:
    summary = told[0]
    with connect(summary.url) as connection:
        state = connection.execute(
            sa.text("SELECT state FROM predictions.churn WHERE customer_id = :key"), {"key": summary.cast.followed}
        ).scalar_one()
        gone = connection.execute(
            sa.text("SELECT state FROM predictions.churn_for(:key)"), {"key": summary.cast.leaver}
        ).scalar_one()
    assert (state, gone) == ("fresh", "missing")
