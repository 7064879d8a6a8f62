"""`prescore replay`: today's contract over stored runs gives the stored verdicts, another contract gives others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.replay import compare
from tasks import timeline
from tasks.database import connect
from tasks.errors import UsageError
from tasks.pipeline import PipelineInvalid
from tasks.runs import Trigger
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

# Made once and used by all: one worker.
pytestmark = pytest.mark.xdist_group("replay")

BEGIN = datetime(2026, 3, 2, 3, tzinfo=UTC)
DAY = timedelta(days=1)
TOML = (
    PIPELINE_TOML
    + """
[model]
name = "items"
warn_age = "6d"
fail_age = "60d"
[serve]
aging_after = "26h"
stale_after = "36h"
serve_stale_for = "72h"
[[source]]
name = "public.items"
watermark = "updated_at"
warn_after = "20h"
fail_after = "30h"
[drift]
slot = "weekday"
[coverage]
missing = [0.001, 0.5]
[manual]
may_waive = ["volume", "source.age"]
"""
)


@pytest.fixture(scope="module")
def world(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Ten days: quiet ones, one without a load, one with few items, a waived one, then a feature that moved."""
    world = make_world(module_database_url, tmp_path_factory.mktemp("pipelines"), rows=1_200)
    world.execute("UPDATE public.items SET a = a + b")  # a text that is neither free nor constant beside two numbers
    world.execute("UPDATE public.items SET b = coalesce(b, 0)")
    make_model(world, make_pipeline(world, toml=TOML), train_data_until=BEGIN, sample_rows=1_200)

    def run(day: float, *, loaded: bool = True, **options: object) -> None:
        world.set_clock(BEGIN + day * DAY)
        world.execute(f"UPDATE public.items SET b = b + 0.001 WHERE id % 50 = {int(day)}")
        if loaded:
            world.execute(f"UPDATE public.items SET updated_at = '{BEGIN + day * DAY - timedelta(hours=1)}'")
        world.score(**{"full": True, "trigger": Trigger.SCHEDULED, **options})

    for day in range(3):
        run(day)
    run(3.2, loaded=False)  # 29 h: warned, not failed
    world.execute("UPDATE public.items SET id = -id WHERE id > 500")
    world.execute(
        "CREATE TABLE public.kept AS SELECT * FROM public.items WHERE id < 0; DELETE FROM public.items WHERE id < 0"
    )
    run(5)  # held: the population is less than half
    run(5.1, trigger=Trigger.MANUAL, waive=["population.size"], because="a sale of half the items")
    world.execute("INSERT INTO public.items SELECT * FROM public.kept; UPDATE public.items SET id = abs(id)")
    world.execute("UPDATE public.items SET a = a * 0.4 WHERE id % 2 = 0")
    for day in range(6, 8):
        run(day)
    world.set_clock(BEGIN + 8.5 * DAY)
    world.execute(f"UPDATE public.items SET updated_at = '{BEGIN + 8.4 * DAY}' WHERE id % 20 = 0")
    world.score(trigger=Trigger.SCHEDULED)
    world.set_clock(BEGIN + 10 * DAY)
    return world


def proposal(folder: Path, changes: dict[str, str] | None = None) -> Path:
    """Write today's contract with some texts replaced."""
    text = TOML
    for before, after in (changes or {}).items():
        assert before in text
        text = text.replace(before, after)
    path = folder / "proposed.toml"
    path.write_text(text, encoding="utf-8")
    return path


def stored(world: World) -> list[tuple[object, ...]]:
    return world.rows(
        "SELECT (SELECT count(*) FROM prescore.runs), (SELECT count(*) FROM prescore.checks), "
        "(SELECT count(*) FROM prescore.generations), (SELECT count(*) FROM prescore.profiles), "
        "(SELECT count(*) FROM prescore.contracts), (SELECT contract_text FROM prescore.pipelines), "
        "(SELECT row(h.*)::text FROM prescore.head AS h)"
    )


def test_todays_contract_gives_every_stored_verdict_and_state_again(world: World, tmp_path: Path) -> None:
    before = stored(world)
    found = compare(world.settings, "items", proposal(tmp_path), days=90)

    assert found.runs == 9
    assert found.answers > 300
    assert found.reproduced == found.answers
    assert found.proposed == found.today
    assert found.not_judged == ()
    runs = world.rows("SELECT status, count(*) FROM prescore.runs GROUP BY 1")
    assert dict(runs) == {"published": found.today.published, "held": found.today.held}
    flagged = world.rows("SELECT 1 FROM prescore.generations WHERE verdict <> 'pass' OR reasons <> '{}'")
    assert found.today.flagged == len(flagged)
    with connect(world.url) as connection:
        publications = timeline.read_publications(connection, "items")
    seen = timeline.spans(publications, publications[0].published_at, found.until)
    lengths = timeline.time_in_states(seen)
    assert set(found.today.states) == set(lengths) >= {"fresh", "aging"}
    for state, length in lengths.items():
        assert abs(found.today.states[state] - length) < timedelta(seconds=10)
    # Sources are judged as they were found, drift on stored counts: these have really been asked again.
    assert {"source.age", "drift.input", "drift.step", "rows.missing"}.isdisjoint(found.left)
    assert stored(world) == before


def test_a_stricter_contract_warns_and_holds_more_a_laxer_one_less(world: World, tmp_path: Path) -> None:
    stricter = {
        'warn_after = "20h"\nfail_after = "30h"': 'warn_after = "10h"\nfail_after = "20h"',
        'slot = "weekday"': 'warn = 0.05\nfail = 0.1\non_fail = "hold"',
        'warn_age = "6d"': 'warn_age = "1d"',
        'aging_after = "26h"': 'aging_after = "2h"',
    }
    laxer = {
        'warn_after = "20h"\nfail_after = "30h"\n': "",
        'slot = "weekday"': "warn = 5.0\nfail = 6.0\nstep_warn = 5.0\nstep_fail = 6.0",
        'warn_age = "6d"': 'warn_age = "30d"',
        "[coverage]": "[coverage]\nshrink = 0.1",
    }
    more = compare(world.settings, "items", proposal(tmp_path, stricter), days=90)
    fewer = compare(world.settings, "items", proposal(tmp_path, laxer), days=90)

    assert more.proposed.held > more.today.held == 1
    assert more.proposed.retrain > more.today.retrain == 0
    assert more.proposed.checks["drift.input"].failed > 0 == more.today.checks["drift.input"].failed
    assert more.proposed.checks["model.age"].warned > more.today.checks["model.age"].warned
    assert more.proposed.states["fresh"] < more.today.states["fresh"]
    assert {"drift.input", "drift.step", "source.age", "model.age"} <= set(fewer.today.checks)
    assert {"drift.input", "drift.step", "source.age", "model.age"}.isdisjoint(fewer.proposed.checks)
    # What was held before anybody was scored would have gone on, and nothing says what it would have found.
    assert (fewer.proposed.held, fewer.proposed.open) == (0, 1)
    assert fewer.proposed.states["fresh"] > fewer.today.states["fresh"]


def test_what_cannot_be_judged_is_said_and_other_predictions_are_refused(world: World, tmp_path: Path) -> None:
    changes = {
        "[drift]": '[performance]\nmetric = "auc"\n[drift]\nbins = 10',
        '[[source]]\nname = "public.items"': '[[source]]\nname = "public.items"\nlate_by = "1h"',
    }
    found = compare(world.settings, "items", proposal(tmp_path, changes), days=90)
    assert [reason.partition(":")[0] for reason in found.not_judged] == [
        "[[source]] public.items late_by",
        "[drift] bins",
        "[performance] metric",
    ]
    with pytest.raises(UsageError, match="declares other predictions"):
        compare(world.settings, "items", proposal(tmp_path, {"label = {": "other = {"}), days=90)
    with pytest.raises(PipelineInvalid, match=r"proposed\.toml \[drift\] slot"):
        compare(world.settings, "items", proposal(tmp_path, {'slot = "weekday"': "slot = 7"}), days=90)
    none = compare(world.settings, "items", proposal(tmp_path), days=1)
    assert (none.runs, none.answers, none.today.published) == (0, 0, 0)


def test_the_command_tells_people_and_programs(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
    asked = ["replay", "items", "--contract", str(proposal(tmp_path, {'warn_age = "6d"': 'warn_age = "30d"'}))]
    told = CliRunner().invoke(app, asked)
    program = json.loads(CliRunner().invoke(app, [*asked, "--days", "30", "--json"]).stdout)

    assert told.exit_code == 0, told.output
    assert "model.age" in told.stdout
    assert "Nothing was written." in told.stdout
    assert program["today"]["checks"]["model.age"]["days"] == ["2026-03-08", "2026-03-09", "2026-03-10"]
    assert "model.age" not in program["proposed"]["checks"]
    assert program["answers"] == program["reproduced"]
