"""`prescore demo`, as a person sees it and as it left the database."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from rich.console import Console

from flows.check import check
from flows.demo import DemoSummary, run_demo
from tasks.database import connect
from tasks.demo import pipeline_folder
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


def test_the_further_uses_score_everybody_and_then_only_what_changed(told: tuple[DemoSummary, str]) -> None:
    summary = told[0]
    assert [use.pipeline for use in summary.uses] == ["segments", "recommendations"]
    for use in summary.uses:
        assert (use.first.mode.value, use.first.status.value) == ("full", "published")
        assert (use.first.scored, use.first.rejected) == (CUSTOMERS, 0)
        assert use.second is not None
        assert (use.second.mode.value, use.second.status.value) == ("incremental", "published")
        assert (use.second.new, use.second.gone) == (summary.day.signed_up, summary.day.closed)
        assert use.second.scored == use.second.new + use.second.changed
        assert use.second.scored + use.second.unchanged == use.second.population == summary.second.population
        assert use.second.rejected == 0
    segments, recommendations = (use.second for use in summary.uses)
    assert recommendations is not None
    assert segments is not None
    assert 0 < recommendations.changed <= summary.day.orders  # a visit changes nobody's list
    assert recommendations.changed < segments.changed


def test_every_customer_has_a_segment_and_a_distance(told: tuple[DemoSummary, str]) -> None:
    with connect(told[0].url) as connection:
        query = """
            SELECT p.segment, count(*) AS customers, min(p.distance) AS nearest, percentile_cont(0.5) WITHIN GROUP (
                ORDER BY extract(epoch FROM prescore.clock() - coalesce(o.last_order, c.created_at))
            ) AS gone_for
            FROM predictions.segments_usable AS p
            JOIN shop.customers AS c USING (customer_id)
            LEFT JOIN (SELECT customer_id, max(ordered_at) AS last_order FROM shop.orders GROUP BY customer_id) AS o
                USING (customer_id)
            GROUP BY p.segment
            ORDER BY p.segment
        """
        rows = connection.execute(sa.text(query)).all()
    assert [row.segment for row in rows] == [0, 1, 2, 3]
    assert sum(row.customers for row in rows) == told[0].second.population
    assert all(row.nearest >= 0 and row.customers > 20 for row in rows)
    # Numbered by the centres: segments 0 and 1 both ordered lately, their medians may nearly tie.
    assert max(rows[0].gone_for, rows[1].gone_for) < rows[2].gone_for < rows[3].gone_for


def test_every_customer_has_ten_different_products_best_first(told: tuple[DemoSummary, str]) -> None:
    with connect(told[0].url) as connection:
        query = """
            SELECT count(*) AS customers,
                count(*) FILTER (WHERE cardinality(p.products) = 10 AND cardinality(p.scores) = 10) AS full_lists,
                count(*) FILTER (WHERE 10 = (
                    SELECT count(DISTINCT l.id) FROM unnest(p.products) AS l (id) JOIN shop.products ON product_id = l.id
                )) AS different,
                count(*) FILTER (WHERE p.scores = ARRAY(SELECT s FROM unnest(p.scores) AS s ORDER BY s DESC)) AS sorted,
                min(pg_typeof(p.products)::text) AS items, min(pg_typeof(p.scores)::text) AS scores
            FROM predictions.recommendations_usable AS p
        """
        found = connection.execute(sa.text(query)).one()
    population = told[0].second.population
    assert tuple(found) == (population, population, population, population, "bigint[]", "double precision[]")


def test_who_never_bought_anything_gets_what_is_most_popular(told: tuple[DemoSummary, str]) -> None:
    with connect(told[0].url) as connection:
        query = """
            SELECT p.products, count(*) AS customers
            FROM predictions.recommendations_usable AS p
            WHERE NOT EXISTS (SELECT FROM shop.orders AS o WHERE o.customer_id = p.customer_id)
            GROUP BY p.products
        """
        ((products, customers),) = connection.execute(sa.text(query)).all()
        sold = "SELECT product_id FROM shop.orders GROUP BY product_id ORDER BY count(*) DESC LIMIT 40"
        often = set(connection.execute(sa.text(sold)).scalars())
    assert customers > 20
    assert set(products) <= often


def test_the_lists_beat_what_is_most_popular_and_both_are_told(told: tuple[DemoSummary, str]) -> None:
    summary, text = told
    trained = summary.uses[1].trained
    model, popular = trained.metrics["recall@10"], trained.baseline["recall@10"]
    assert model is not None
    assert popular is not None
    assert model > 1.5 * popular
    assert re.search(rf"recall@10 +{model:.4f} +{popular:.4f}", text)
    names = [row[1] for row in summary.uses[1].shown]
    assert len(names) == 10
    assert all(name in text for name in names)


@pytest.mark.parametrize("pipeline", ["churn", "segments", "recommendations"])
def test_check_finds_nothing_to_mend_after_the_demo(told: tuple[DemoSummary, str], pipeline: str) -> None:
    summary = told[0]
    here = Settings(database_url=summary.url, pipelines_dir=pipeline_folder().parent, data_dir=Path("unused"))
    (report,) = check(here, pipeline)
    assert (report.errors, report.warnings) == ((), ())


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
