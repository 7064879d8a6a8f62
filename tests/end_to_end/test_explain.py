"""What `status` and `explain` print of a pipeline that is well, held and then stale: why, since when, what to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tasks.runs import Trigger
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

# One story in order: its tests stay on one worker.
pytestmark = pytest.mark.xdist_group("explain")

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DECLARED = """
[schedule]
full = "0 3 * * *"
incremental = "*/15 * * * *"
[serve]
aging_after = "26h"
stale_after = "36h"
serve_stale_for = "72h"
[drift]
persist = "2/4"
"""


class Shell:
    """The command, on a world, at a width."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.code = 0

    def __call__(self, *words: str) -> str:
        """Run `prescore`, and return what it printed on standard output."""
        env = {"PRESCORE_DATABASE_URL": self.world.url, "PRESCORE_PIPELINES": str(self.world.settings.pipelines_dir)}
        result = CliRunner().invoke(app, list(words), env=env)
        self.code = result.exit_code
        self.error = str(result.exception or "")
        return result.stdout

    def json(self, *words: str) -> Any:
        """Run `prescore ... --json`, and return what it printed as programs read it."""
        return json.loads(self(*words, "--json"))


@pytest.fixture(scope="module")
def shell(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A pipeline that published by its schedule at noon; the tests below tell the rest of its story in order."""
    world = make_world(module_database_url, tmp_path_factory.mktemp("pipelines"), rows=200)
    world.execute(f"UPDATE public.items SET updated_at = '{(NOW - timedelta(hours=1)).isoformat()}'")
    world.set_clock(NOW)
    make_model(world, make_pipeline(world, toml=PIPELINE_TOML + DECLARED), train_data_until=NOW - timedelta(days=1))
    world.score(trigger=Trigger.SCHEDULED, full=True)
    return Shell(world)


def test_a_pipeline_that_is_well_is_one_row_with_what_comes_next(shell: Shell) -> None:
    told = shell("status")

    assert shell.code == 0
    assert all(len(line) <= 100 for line in told.splitlines())
    for words in ("items", "fresh", "03-02 12:00", "03-03 14:00", "published", "nothing", "03-02 12:15", "incremental"):
        assert words in told
    explained = shell("explain", "items")
    assert "items is fresh since 2026-03-02 12:00 UTC." in explained
    assert "Nothing is wrong." in explained
    assert "incremental run 03-02 12:15 (in 15 min 0 s)" in explained
    assert "2026-03-03 14:00 UTC, by [serve] aging_after" in explained
    assert shell.json("status")["pipelines"][0]["problems"] == []


def test_a_run_that_was_held_says_why_since_when_and_what_to_do(shell: Shell) -> None:
    shell.world.execute(
        "CREATE TABLE public.kept AS SELECT * FROM public.items; DELETE FROM public.items WHERE id > 50"
    )
    for minutes in (5, 10):
        shell.world.set_clock(NOW + timedelta(minutes=minutes))
        held = shell.world.score(trigger=Trigger.SCHEDULED, full=True)
        assert held.exit_code == 3

    told = shell("status")
    assert shell.code == 0  # the last good publication is within its promise
    assert "last run held" in " ".join(told.split())
    assert "What to do: Look at what [entity] query returns now." in told

    explained = shell("explain", "items")
    assert f"The last run that was judged: run {held.run_id}" in explained
    assert "What is served: run 1" in explained
    assert "fail    population.size (S3): " in explained
    assert f"since run {held.run_id - 1} (" in explained
    (failed,) = [f for f in shell.json("explain", "items")["findings"] if f["effective"] == "fail"]
    assert (failed["check_id"], failed["since_run_id"]) == ("population.size", held.run_id - 1)


def test_a_check_is_explained_by_its_id_its_code_or_a_glob(shell: Shell) -> None:
    told = shell("explain", "items", "population.size")

    for words in ("Is the population empty, or suddenly small?", "[coverage] shrink in pipeline.toml", "scheduled"):
        assert words in told
    (found,) = shell.json("explain", "items", "population.size")["checks"]
    assert [answer["verdict"] for answer in found["answers"][""]] == ["fail", "fail", "pass"]
    by_code = shell.json("explain", "items", "s3")["checks"]
    assert "population.size" in {each["check_id"] for each in by_code}
    assert {each["check_id"] for each in shell.json("explain", "items", "model.*")["checks"]} >= {"model.age"}

    shell("explain", "items", "population.sise")
    assert shell.code != 0
    assert "Did you mean population.size" in shell.error


def test_a_gauge_says_how_often_it_alarmed(shell: Shell) -> None:
    runs = [row[0] for row in shell.world.rows("SELECT run_id FROM prescore.runs ORDER BY run_id")]
    for run_id, verdict, effective in zip(runs, ("warn", "pass", "warn"), ("pass", "pass", "warn"), strict=True):
        shell.world.execute(
            "INSERT INTO prescore.checks (run_id, pipeline, check_id, code, class, subject, verdict, effective, reason, "
            f"observed, warn_limit, n) VALUES ({run_id}, 'items', 'drift.input', 'D1', 'gauge', 'made_up', '{verdict}', "
            f"'{effective}', 'moved', 0.12, 0.1, 200)"
        )

    told = shell("explain", "items")

    assert "warn    drift.input made_up (D1): moved" in told
    assert "observed 0.12, warns at 0.1, n 200" in told
    assert "2 of the last 3 scheduled runs answered warn or fail" in told


def test_what_is_stale_says_since_when_and_until_when_it_is_served(shell: Shell) -> None:
    shell.world.set_clock(NOW + timedelta(hours=40))

    told = shell("status")

    assert shell.code == 3
    assert "items is not well:" in told
    assert "! Stale since 2026-03-04 00:00 UTC; withheld from readers from 2026-03-07 00:00 UTC." in told
    assert "! Overdue: no scheduled run published for the tick of 2026-03-02 12:15 UTC." in told
    (row,) = shell.json("status")["pipelines"]
    assert (row["state"], row["state_since"]) == ("stale", "2026-03-04T00:00:00+00:00")
    assert [problem["code"] for problem in row["problems"] if problem["wrong"]] == ["stale", "overdue"]
    assert row["failing_checks"] == ["population.size"]
    assert "items is stale since 2026-03-04 00:00 UTC." in shell("explain", "items")


def test_a_narrow_terminal_gets_lines_and_no_colour_says_as_much(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.show import health
    from tasks import telling

    monkeypatch.setattr(telling, "WIDTH", 60)
    told = shell("status")

    assert health._TABLE_WIDTH > 60
    assert "stale since 03-04 00:00" in told
    assert "\x1b" not in told


def test_a_run_that_hangs_and_one_that_is_at_work_are_told(shell: Shell, tmp_path: Path) -> None:
    shell.world.execute(
        "INSERT INTO prescore.runs (pipeline, mode, trigger, status, clock_at, heartbeat_at, backend_pid, host, process_id, "
        "logic_digest, contract_digest) SELECT 'items', 'full', 'scheduled', 'running', clock_at, "
        "clock_timestamp() - interval '6 minutes', 1, 'a', 1, '', '' FROM prescore.runs LIMIT 1"
    )

    (row,) = shell.json("status")["pipelines"]

    assert row["hung_run_id"] == row["last_run_id"]
    assert "hung" in {problem["code"] for problem in row["problems"]}
    # A run at work does not hide what the run before it found.
    assert row["failing_checks"] == ["population.size"]
