"""The Grafana dashboard: every query runs as a role that sees the views of health alone, and shows what the runs were.

Grafana itself is not here: what it makes of the file is not tested, but for the structure that it needs.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from tasks.errors import PrescoreError
from tasks.runs import Status
from tests.conftest import psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world
from tests.readme import REPOSITORY

pytestmark = pytest.mark.xdist_group("dashboard")

DASHBOARD = json.loads((REPOSITORY / "deployments" / "grafana" / "prescore.json").read_text(encoding="utf-8"))
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
VIEWS = ("pipeline", "run", "check", "schedule", "model", "storage", "installation")
# A name that has to be quoted wherever it becomes SQL, as Grafana's sqlstring does.
NAMES = ("items", "other_items")
TOML = PIPELINE_TOML + '[schedule]\nfull = "0 3 * * *"\n[serve]\naging_after = "26h"\nstale_after = "36h"\n'

Table = list[dict[str, Any]]


@pytest.fixture(scope="module")
def world(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two pipelines: one with a publication, an incremental run and a failed run, one that was flagged for drift."""
    world = make_world(module_database_url, tmp_path_factory.mktemp("pipelines"), rows=600)
    for name in NAMES:
        make_model(world, make_pipeline(world, name, toml=TOML))
        world.score(name, full=True)
    world.execute("UPDATE public.items SET a = a + 9, updated_at = clock_timestamp() WHERE id <= 5")
    world.score("items")
    world.execute("ALTER TABLE public.items RENAME COLUMN a TO renamed")
    with suppress(PrescoreError):
        world.score("items")
    world.execute("ALTER TABLE public.items RENAME COLUMN renamed TO a")
    world.execute("UPDATE public.items SET a = a + 5, updated_at = clock_timestamp() WHERE id % 2 = 0")
    assert world.score("other_items", full=True).status is Status.PUBLISHED
    return world


@pytest.fixture(scope="module")
def grafana(world: World) -> Iterator[str]:
    """The address of a role that may read the views of health, and nothing else."""
    role = f"grafana_{make_url(world.url).database}"
    world.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hush-11'")
    world.execute(f"GRANT USAGE ON SCHEMA prescore TO {role}")
    for view in VIEWS:
        world.execute(f"GRANT SELECT ON prescore.{view}_health TO {role}")
    yield make_url(world.url).set(username=role, password="hush-11").render_as_string(hide_password=False)
    world.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def ask(url: str, statement: str, pipelines: tuple[str, ...] = NAMES) -> Table:
    """Run a query as Grafana would send it: variables and macros filled in, for the last seven days."""
    now = datetime.now(UTC) + timedelta(minutes=1)
    quoted = ",".join("'" + name.replace("'", "''") + "'" for name in pipelines)
    span = f"started_at BETWEEN '{(now - timedelta(days=7)).isoformat()}' AND '{now.isoformat()}'"
    sent = statement.replace("${pipeline:sqlstring}", quoted).replace("$__timeFilter(started_at)", span)
    assert "$" not in sent
    with closing(psycopg2.connect(psql_url(url))) as connection, connection.cursor() as cursor:
        cursor.execute(sent)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def sql(title: str) -> str:
    """Return the query of a panel."""
    (target,) = PANELS[title]["targets"]
    return str(target["rawSql"])


def test_panels_have_their_own_ids_and_places_and_ask_the_chosen_database() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) == len(PANELS)
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        assert panel["description"].endswith(".")
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for one, other in itertools.combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    asked = [*DASHBOARD["panels"], *(t for panel in DASHBOARD["panels"] for t in panel["targets"])]
    asked += [variables["pipeline"], *DASHBOARD["annotations"]["list"]]
    wanted = {"type": variables["datasource"]["query"], "uid": "${datasource}"}
    assert all(each["datasource"] == wanted for each in asked)
    assert "id" not in DASHBOARD  # Grafana gives it one


@pytest.mark.parametrize("title", PANELS)
def test_every_query_runs_with_the_views_of_health_alone_and_has_the_columns_that_are_dressed(
    grafana: str, title: str
) -> None:
    panel = PANELS[title]
    found = ask(grafana, sql(title))

    # Of what the world holds every panel has something to show.
    assert found
    columns = set(found[0])
    assert {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]} <= columns
    assert not any(isinstance(value, timedelta | list) for row in found for value in row.values())
    if panel["targets"][0]["format"] == "time_series":
        assert {"time", "metric"} < columns
        assert all(isinstance(row["time"], datetime) for row in found)
        numbers = [row[name] for row in found for name in columns - {"time", "metric"}]
        assert all(value is None or isinstance(value, int | float) for value in numbers)
        assert [row["time"] for row in found] == sorted(row["time"] for row in found)
    # With one of the pipelines chosen there is no word of the other, except where panels only count.
    if "pipeline" in columns:
        assert {row["pipeline"] for row in ask(grafana, sql(title), ("other_items",))} <= {"other_items"}


def test_the_panels_show_what_happened(world: World, grafana: str) -> None:
    now = {row["pipeline"]: row for row in ask(grafana, sql("Pipelines now"))}
    runs = ask(grafana, sql("Runs"))

    assert {name: (row["state"], row["rows"], row["last run"]) for name, row in now.items()} == {
        "items": ("fresh", 600, "failed"),
        "other_items": ("aging", 600, "published"),
    }
    assert [(row["pipeline"], row["mode"], row["status"], row["scored"]) for row in runs] == [
        ("other_items", "full", "published", 600),
        ("items", "incremental", "failed", None),
        ("items", "incremental", "published", 5),
        ("other_items", "full", "published", 600),
        ("items", "full", "published", 600),
    ]
    assert ask(grafana, sql("Promises broken")) == [{"broken": 0}]
    assert ask(grafana, sql("Runs without a publication")) == [{"unpublished": 1}]
    annotations = ask(grafana, DASHBOARD["annotations"]["list"][0]["target"]["rawSql"])
    assert [each["title"] for each in annotations] == ["items: failed"]
    found = ask(grafana, sql("Findings"))
    assert ("other_items", "warn", "drift.input", "a") in {
        (row["pipeline"], row["counts"], row["check"], row["subject"]) for row in found
    }
    assert (
        max(row["of its limit"] for row in ask(grafana, sql("Drift")) if row["metric"] == "other_items drift.input") > 1
    )
    names = ask(grafana, next(each for each in DASHBOARD["templating"]["list"] if each["name"] == "pipeline")["query"])
    assert [row["pipeline"] for row in names] == list(NAMES)

    try:
        world.set_clock(datetime.now(UTC) + timedelta(hours=35, minutes=30))
        assert ask(grafana, sql("Stale within an hour")) == [{"soon": 2}]
        world.set_clock(datetime.now(UTC) + timedelta(hours=37))
        assert ask(grafana, sql("Promises broken")) == [{"broken": 2}]
        assert {row["state"] for row in ask(grafana, sql("Pipelines now"))} == {"stale"}
        assert all(row["share"] > 1 for row in ask(grafana, sql("Age against the promise")))
        assert {row["overdue"] for row in ask(grafana, sql("Schedules"))} == {"overdue"}
    finally:
        world.set_clock(datetime.now(UTC))
