"""What runs, waivers, triggers and clocks do to the promise, on a real server with a clock that the test sets."""

from __future__ import annotations

import getpass
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from flows.check import check
from flows.cli import app
from flows.score import RunSummary
from tasks import checks
from tasks.checks import Check, Evidence, Phase, times
from tasks.database import connect, raw_execute
from tasks.errors import UsageError
from tasks.findings import CheckClass, Disposition, Finding, Followup, Verdict
from tasks.health import read_health
from tasks.lookup import look_up
from tasks.population import Mode
from tasks.rollback import rollback
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


def test_scenario_18_a_waived_volume_is_published_flagged_until_the_next_deadline_and_is_never_a_baseline(
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

    # Started on Prefect's page, it is signed by whom the form names.
    world.execute("DELETE FROM public.items WHERE id <= 190")
    world.score(full=True, waive=["volume"], because="more were sold", started_by="Anna Muster")
    signed = world.rows("SELECT os_user, because FROM prescore.waivers WHERE first_run_id = run_id ORDER BY run_id")
    assert signed == [(getpass.getuser(), "three shops were sold"), ("Anna Muster", "more were sold")]


def test_scenario_17_a_person_who_runs_it_does_not_hide_a_dead_scheduler_and_makes_no_data_younger(
    database_url: str, tmp_path: Path
) -> None:
    source = '[[source]]\nname = "public.items"\nwatermark = "updated_at"\nrequired = {}\n'
    world = make_scheduled_world(database_url, tmp_path, toml=source.format("true"))
    world.execute(f"UPDATE public.items SET updated_at = TIMESTAMPTZ '{NOON - timedelta(hours=1)}'")
    first = world.score(full=True, trigger=Trigger.SCHEDULED)
    assert checked(world, first, "schedule.missed", "full")["verdict"] == "pass"
    promised = checked(world, first, "rows.age")
    assert (promised["warn_until"], promised["fail_until"]) == (first.aging_at, first.stale_at)
    assert datetime.fromisoformat(promised["evidence"]["expires_at"]) == first.expires_at

    # The grace of half an hour, to the second; then a person runs it, twice.
    world.set_clock(DEADLINE + timedelta(minutes=30, seconds=-1))
    assert read_health(world.url, "items")[0].overdue is False
    world.set_clock(DEADLINE + timedelta(minutes=30))
    by_hand = world.score(full=True)
    again = world.score(full=True)
    assert (by_hand.status, state(world)) == (Status.PUBLISHED, "fresh")
    found = checked(world, by_hand, "schedule.missed", "full")
    assert (found["verdict"], found["observed"], found["followups"]) == ("warn", 1800.0, [])
    assert "does not make up for it" in found["reason"]
    assert look_up(world.url, "items", ["200"])["reasons"] == [], "readers have nothing to fear"
    (health,) = read_health(world.url, "items")
    assert (health.overdue, health.overdue_since, health.state) == (True, DEADLINE, "fresh")
    # Rerunning does not rejuvenate: the data is as old as before, whoever runs it and how often.
    assert (again.aging_at, again.stale_at, again.expires_at) == (first.aging_at, first.stale_at, first.expires_at)

    # A recovery run makes up for it, and says so itself.
    recovered = world.score(full=True, trigger=Trigger.RECOVERY)
    found = checked(world, recovered, "schedule.missed", "full")
    assert (found["verdict"], found["followups"]) == ("fail", ["investigate"])
    assert recovered.status is Status.PUBLISHED
    assert read_health(world.url, "items")[0].overdue is False


def test_a_check_that_raises_or_takes_too_long_is_unknown_and_fails_the_third_time(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_scheduled_world(database_url, tmp_path)

    def sleeps(evidence: Evidence, check: Check) -> Iterator[Finding]:
        evidence.session.table("SELECT pg_sleep(30)::text AS slept")
        yield check.finding(Verdict.PASS, "awake")

    def divides(evidence: Evidence, check: Check) -> Iterator[Finding]:
        evidence.session.table("SELECT 1 / (id - id) AS x FROM public.items")
        yield check.finding(Verdict.PASS, "divided")

    def sleeps_elsewhere(evidence: Evidence, check: Check) -> Iterator[Finding]:
        with connect(evidence.url) as connection:
            raw_execute(connection, "SELECT 1")
            connection.execute(sa.text("SELECT pg_sleep(30)"))
        yield check.finding(Verdict.PASS, "awake")

    facts: dict[str, Any] = {"class_": CheckClass.GAUGE, "on_fail": Disposition.HOLD, "when": Phase.GUARD}
    broken = (
        Check(id="drift.input", code="D1", ask=sleeps, **facts),
        Check(id="drift.inputs", code="D1", ask=divides, **facts),
        Check(id="drift.output", code="D4", ask=sleeps_elsewhere, **facts),
    )
    kept = tuple(check for check in checks.CHECKS if check.id not in {"drift.input", "drift.inputs", "drift.output"})
    monkeypatch.setattr(checks, "CHECKS", (*broken, *kept))
    monkeypatch.setattr(checks, "STATEMENT_SECONDS", 0.2)

    # Both are unknown, the snapshot survives them, every other check is asked, and a statistic only flags.
    first = world.score(full=True, trigger=Trigger.SCHEDULED)
    assert (first.status, first.verdict) == (Status.PUBLISHED, "warn")
    late, raised = (checked(world, first, name) for name in ("drift.input", "drift.inputs"))
    assert (late["verdict"], late["effective"], late["reason"]) == (
        "unknown",
        "warn",
        "could not be asked: a statement took longer than 0.2 s",
    )
    assert checked(world, first, "drift.output")["reason"] == late["reason"]
    assert (raised["verdict"], raised["reason"]) == ("unknown", "could not be asked: division by zero")
    others = world.rows(f"SELECT check_id FROM prescore.checks WHERE run_id = {first.run_id} AND verdict = 'unknown'")
    assert sorted(others) == [("drift.input",), ("drift.inputs",), ("drift.output",)]
    assert checked(world, first, "checks.complete")["verdict"] == "pass"
    assert world.score(full=True, trigger=Trigger.SCHEDULED).verdict == "warn"
    third = world.score(full=True, trigger=Trigger.SCHEDULED)
    assert third.status is Status.HELD
    assert checked(world, third, "drift.input")["effective"] == "fail"
    assert "unanswered 3 times in a row" in next(f.told for f in third.findings if f.check_id == "drift.input")
    # Once what is served has expired, holding helps nobody.
    world.set_clock(NOON + timedelta(days=30))
    assert state(world) == "expired"
    inverted = world.score(full=True, trigger=Trigger.SCHEDULED)
    assert (inverted.status, inverted.verdict, state(world)) == (Status.PUBLISHED, "fail", "aging")
    assert "It was not held for drift.input, drift.inputs, drift.output" in inverted.message


def test_what_cannot_be_answered_at_the_end_is_unknown_too(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_scheduled_world(database_url, tmp_path)
    asked = checks._ask_one

    def forgetful(evidence: Evidence, check: Check) -> list[Finding]:
        return [] if check.id == "rows.missing" else asked(evidence, check)

    monkeypatch.setattr(checks, "_ask_one", forgetful)
    # The host's clock is two hours ahead; the database's decides, so readers see no difference.
    monkeypatch.setattr(times, "host_clock", lambda: time.time() + 7200)
    held = world.score(full=True)
    assert (held.status, held.exit_code) == (Status.HELD, 3)
    found = checked(world, held, "checks.complete", "rows.missing")
    assert (found["verdict"], found["effective"]) == ("unknown", "fail")
    offset = checked(world, held, "clock.offset")
    assert offset["verdict"] == "fail"
    assert offset["observed"] == pytest.approx(7200, abs=30)

    monkeypatch.setattr(checks, "_ask_one", asked)
    published = world.score(full=True)
    assert (published.status, published.verdict) == (Status.PUBLISHED, "fail")
    assert published.as_of == NOON
    row = look_up(world.url, "items", ["200"])
    assert (row["state"], row["as_of"], row["data_as_of"]) == ("aging", NOON, NOON)
    assert row["reasons"][0].startswith("T3 clock.offset: this host's clock is 2 h ahead of the database's")
    # prescore.clock() is years ahead of both, as the test set it: that is no offset.
    monkeypatch.setattr(times, "host_clock", time.time)
    assert checked(world, world.score(full=True), "clock.offset")["verdict"] == "pass"


def test_a_metric_that_flaps_around_its_limit_alarms_once_and_incremental_runs_keep_the_alarm(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_scheduled_world(database_url, tmp_path, rows=50)
    answers: list[Verdict] = []

    def flaps(evidence: Evidence, check: Check) -> Iterator[Finding]:
        if evidence.amends is None:
            yield check.finding(answers[-1], "0.26, limits 0.10 / 0.25")

    gauge = Check(
        id="drift.test",
        code="D1",
        class_=CheckClass.GAUGE,
        on_fail=Disposition.PUBLISH_FLAGGED,
        ask=flaps,
        when=Phase.ROWS,
        followups=frozenset({Followup.RETRAIN}),
    )
    monkeypatch.setattr(checks, "CHECKS", (*checks.CHECKS, gauge))

    def run(answer: Verdict, trigger: Trigger = Trigger.SCHEDULED) -> tuple[str | None, tuple[str, ...]]:
        answers.append(answer)
        done = world.score(full=True, trigger=trigger)
        assert checked(world, done, "drift.test")["verdict"] == answer
        return done.verdict, done.followups

    fail, warn, good = Verdict.FAIL, Verdict.WARN, Verdict.PASS
    assert run(fail) == ("warn", ())
    assert run(fail, Trigger.MANUAL) == ("fail", ("retrain",)), "it counts itself"
    assert run(good, Trigger.MANUAL) == ("pass", ()), "and is not remembered"
    assert run(warn) == ("warn", ())
    assert run(fail, Trigger.RECOVERY) == ("fail", ("retrain",))
    assert run(good) == ("fail", ("retrain",))
    # An incremental run cannot ask: the alarm about the rows that it leaves alone stays, told once, from one to the next.
    for _ in range(2):
        amended = world.score(trigger=Trigger.SCHEDULED)
        assert (amended.mode, amended.verdict, amended.followups) == (Mode.INCREMENTAL, "fail", ("retrain",))
        (reason,) = look_up(world.url, "items", ["50"])["reasons"]
        assert reason.startswith("D1 drift.test: 0.26, limits 0.10 / 0.25 (counts as fail until")
        assert reason.endswith("; as in run 6)")
    assert run(good) == ("pass", ())
    assert look_up(world.url, "items", ["50"])["state"] == "fresh"


def test_an_edited_contract_changes_no_promise_that_was_made(database_url: str, tmp_path: Path) -> None:
    world = make_scheduled_world(database_url, tmp_path, toml='[serve]\naging_after = "30h"\nstale_after = "40h"\n')
    first = world.score(full=True)
    edited = (
        PIPELINE_TOML + SCHEDULED + '[serve]\naging_after = "1h"\nstale_after = "2h"\n[manual]\nnever_waive = ["nan"]\n'
    )
    make_pipeline(world, toml=edited)
    (report,) = check(world.settings, "items")
    assert "items/pipeline.toml [manual] never_waive: no check is called nan" in report.warnings
    world.set_clock(NOON + timedelta(hours=3))
    assert state(world) == "fresh"
    second = world.score(full=True)
    assert (second.stale_at, first.stale_at) == (NOON + timedelta(hours=5), NOON + timedelta(hours=40))
    world.set_clock(NOON + timedelta(hours=6))
    assert state(world) == "stale"
    rollback(world.url, "items")
    row = look_up(world.url, "items", ["200"])
    assert (row["state"], row["stale_at"]) == ("fresh", first.stale_at)
    # Which contract a run was judged under can be read word for word.
    texts = world.rows(
        "SELECT r.run_id, k.text FROM prescore.runs AS r JOIN prescore.contracts AS k "
        "ON k.pipeline = r.pipeline AND k.digest = r.contract_digest ORDER BY r.run_id"
    )
    assert [('"40h"' in text, '"2h"' in text) for _, text in texts] == [(True, False), (False, True)]


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
        assert re.search("a person may waive: .*population.size", str(refused.value))
