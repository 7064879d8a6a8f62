"""`prescore report` on stored runs: the page is what the database says, and its states are those of pipeline_health."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.report import report
from tasks import timeline
from tasks.database import connect
from tasks.health import PipelineNeverRan
from tasks.rollback import rollback
from tasks.runs import Trigger
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world
from tests.unit.test_page import Page

# Made once and used by all: one worker.
pytestmark = pytest.mark.xdist_group("report page")

BEGIN = datetime(2026, 3, 1, 3, tzinfo=UTC)
DAY = timedelta(days=1)
TOML = (
    PIPELINE_TOML
    + """
[model]
name = "items"
warn_age = "3d"
fail_age = "200d"
[serve]
aging_after = "26h"
stale_after = "36h"
serve_stale_for = "72h"
"""
)


@pytest.fixture(scope="module")
def world(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two publications a day apart, then a held run, with a model that grows old."""
    world = make_world(module_database_url, tmp_path_factory.mktemp("pipelines"))
    world.execute("UPDATE public.items SET updated_at = '2026-02-01'")
    make_model(world, make_pipeline(world, toml=TOML), train_data_until=BEGIN)
    for day in range(2):
        world.set_clock(BEGIN + day * DAY)
        world.score(full=True, trigger=Trigger.SCHEDULED)
    world.set_clock(BEGIN + 2 * DAY)
    world.execute("CREATE TABLE public.kept AS TABLE public.items; DELETE FROM public.items WHERE id > 10")
    world.score(full=True, trigger=Trigger.SCHEDULED)
    world.execute("INSERT INTO public.items SELECT * FROM public.kept WHERE id > 10")
    return world


def test_the_command_writes_one_page_and_prints_its_path(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", "items"])

    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "items-report.html")
    page = Page((tmp_path / "items-report.html").read_text(encoding="utf-8"))
    assert page.loads() == []
    assert "The last run ended held" in page.text
    assert "generation 2 is still served" in page.text
    assert "Is the population empty, or suddenly small?" in page.text
    assert "full, scheduled" in page.text
    assert "500 rows of training, 1,000 of run 2" in page.text
    assert [path.name for path in tmp_path.iterdir()] == ["items-report.html"]


def test_the_states_of_the_timeline_are_those_of_pipeline_health(world: World) -> None:
    with connect(world.url) as connection:
        publications = timeline.read_publications(connection, "items")
    spans = timeline.spans(publications, BEGIN + DAY + timedelta(minutes=5), BEGIN + 10 * DAY)

    assert [span.state for span in spans] == ["fresh", "aging", "stale", "expired"]
    for span in spans:
        for instant in (span.since, span.until - timedelta(microseconds=1)):
            world.set_clock(instant)
            assert world.one("SELECT state FROM prescore.pipeline_health")["state"] == span.state, instant
    world.set_clock(BEGIN + 2 * DAY)


def test_a_rollback_shows_and_nobody_is_told_of_a_pipeline_that_never_ran(world: World, tmp_path: Path) -> None:
    rollback(world.url, "items")
    page = Page(report(world.settings, "items", out=tmp_path / "page.html").read_text(encoding="utf-8"))

    assert "rolled back" in page.text
    assert "prescore resume items" in page.text
    with pytest.raises(PipelineNeverRan):
        report(world.settings, "nobody")
