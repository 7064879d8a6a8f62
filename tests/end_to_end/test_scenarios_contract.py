"""What runs, waivers, triggers and clocks do to the promise, on a real server with a clock that the test sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.score import RunSummary
from tasks.errors import UsageError
from tasks.health import look_up, read_health
from tasks.runs import Status, Trigger
from tasks.settings import Settings
from tasks.waivers import WaiverRefused
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

NOON = datetime(2030, 1, 8, 12, tzinfo=UTC)
DEADLINE = datetime(2030, 1, 9, 3, tzinfo=UTC)
SCHEDULED = """
[schedule]
full = "0 3 * * *"
grace = "30m"
"""


def make_scheduled_world(url: str, folder: Path, *, toml: str = "", rows: int = 200) -> World:
    """Return a world at noon whose pipeline runs in full at 3 every night, with a model of the day before."""
    world = make_world(url, folder, rows=rows)
    world.set_clock(NOON)
    pipeline = make_pipeline(world, toml=PIPELINE_TOML + SCHEDULED + toml)
    make_model(world, pipeline, train_data_until=NOON - timedelta(days=1))
    return world


def checked(world: World, run: RunSummary, check: str, subject: str = "") -> dict[str, Any]:
    """Return what is stored of one check of a run about one subject."""
    return dict(
        world.one(
            "SELECT verdict, effective, disposition, waived, reason, observed, fail_until, warn_until, evidence, followups "
            f"FROM prescore.checks WHERE run_id = {run.run_id} AND check_id = '{check}' AND subject = '{subject}'"
        )
    )


def state(world: World, key: int = 200) -> str:
    """Return the state that a reader sees of one entity."""
    return str(look_up(world.url, "items", [str(key)])["state"])


def test_a_waived_volume_is_published_flagged_until_the_next_deadline_and_is_never_a_baseline(
    database_url: str, tmp_path: Path
) -> None:
    world = make_scheduled_world(database_url, tmp_path)
    assert world.score(full=True, trigger=Trigger.SCHEDULED).verdict == "pass"
    world.execute("DELETE FROM public.items WHERE id <= 150")
    assert world.score(full=True).status is Status.HELD

    # Asked for as a person would, through the command.
    command = ["score", "items", "--full", "--waive", "volume", "--because", "three shops  were sold"]
    environ = {
        "PRESCORE_DATABASE_URL": world.url,
        "PRESCORE_PIPELINES": str(world.settings.pipelines_dir),
        "PRESCORE_DATA_DIR": str(tmp_path / "data"),
    }
    told = CliRunner().invoke(app, command, env=environ)
    assert told.exit_code == 0, told.output
    said = " ".join(told.stdout.split())
    assert "flagged" in said
    assert "three shops were sold" in said

    waiver = world.one("SELECT * FROM prescore.waivers")
    assert (waiver["check_id"], waiver["because"], waiver["until"]) == (
        "population.size",
        "three shops were sold",
        DEADLINE,
    )
    assert waiver["waived_by"] == world.one("SELECT session_user AS role")["role"]
    row = look_up(world.url, "items", ["200"])
    (reason,) = row["reasons"]
    assert reason.startswith("S3 population.size: 50 entities, 200 were served")
    assert f"waived by {waiver['waived_by']}" in reason
    assert "until 2030-01-09 03:00 UTC: three shops were sold" in reason
    assert (row["state"], row["stale_at"]) == ("aging", DEADLINE)
    found = world.one(
        f"SELECT * FROM prescore.checks WHERE run_id = {waiver['run_id']} AND check_id = 'population.size'"
    )
    assert (found["verdict"], found["effective"], found["waived"]) == ("fail", "fail", True)
    assert found["disposition"] == "publish_flagged"
    assert read_health(world.url, "items")[0].reasons == [reason]

    # An incremental run that passes replaces none of these rows: the waiver stays, with its reason and its end.
    world.set_clock(NOON + timedelta(hours=1))
    amended = world.score(trigger=Trigger.SCHEDULED)
    assert amended.status is Status.PUBLISHED
    assert checked(world, amended, "population.size")["verdict"] == "pass"
    kept = world.one(f"SELECT * FROM prescore.waivers WHERE run_id = {amended.run_id}")
    assert (kept["first_run_id"], kept["until"], kept["because"]) == (waiver["run_id"], DEADLINE, waiver["because"])
    assert state(world) == "aging"

    # At the deadline, to the second, it is stale; the next full run by the schedule is clean again.
    world.set_clock(DEADLINE - timedelta(seconds=1))
    assert state(world) == "aging"
    world.set_clock(DEADLINE)
    assert state(world) == "stale"
    clean = world.score(full=True, trigger=Trigger.SCHEDULED)
    assert (clean.verdict, state(world)) == ("pass", "fresh")
    baselines = world.rows(
        "SELECT run_id FROM prescore.runs AS r WHERE status = 'published' AND NOT EXISTS "
        "(SELECT FROM prescore.checks AS c WHERE c.run_id = r.run_id AND c.waived) ORDER BY run_id"
    )
    assert [run_id for (run_id,) in baselines] == [1, clean.run_id]


@pytest.mark.parametrize(
    ("waive", "because", "trigger", "told"),
    [
        (["volume"], "", Trigger.MANUAL, "without --because"),
        ([], "a reason", Trigger.MANUAL, "without --waive"),
        (["volume"], "because", Trigger.SCHEDULED, "Only a person may waive"),
        (["volume"], "because", Trigger.RECOVERY, "Only a person may waive"),
        (["volumes"], "because", Trigger.MANUAL, "no check is called so"),
        (["schema"], "because", Trigger.MANUAL, "nobody may waive schema"),
        (["volume", "rows.t*"], "because", Trigger.MANUAL, "nobody may waive rows.torn"),
        (["rows.missing"], "because", Trigger.MANUAL, "does not let anybody waive rows.missing"),
        (["model.age"], "because", Trigger.MANUAL, "does not let anybody waive model.age"),
        (["volume"], "x" * 301, Trigger.MANUAL, "300 printable characters"),
    ],
)
def test_what_may_not_be_waived_is_refused_before_anything_is_started(
    tmp_path: Path, waive: list[str], because: str, trigger: Trigger, told: str
) -> None:
    # No database is behind this address: nothing is asked of one.
    url = "postgresql://nobody@127.0.0.1:1/nowhere"
    world = World(url=url, settings=Settings(database_url=url, pipelines_dir=tmp_path, data_dir=tmp_path / "data"))
    make_pipeline(world, toml=PIPELINE_TOML + '[manual]\nnever_waive = ["model.age"]\n')
    with pytest.raises(WaiverRefused) as refused:
        world.score(waive=waive, because=because, trigger=trigger)
    assert told in str(refused.value)
    assert isinstance(refused.value, UsageError)
    if waive and because and trigger is Trigger.MANUAL and len(because) < 300:
        assert "a person may waive: population.size" in str(refused.value)
