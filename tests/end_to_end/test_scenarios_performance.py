"""The world changes and the model does not know it, while labels come thirty days late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flows.score import RunSummary
from flows.train import train
from tasks import cohorts
from tasks.freshness import Finding, Followup, Verdict
from tasks.runs import Status, Trigger
from tests.factories import World, make_pipeline, make_world

START = datetime(2026, 3, 1, 6, tzinfo=UTC)

TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.people"
[features]
query = "SELECT b.id, b.as_of, p.a FROM batch AS b JOIN public.people AS p ON p.id = b.id"
[predictions]
p = { method = "predict_proba", class = "1" }
[model]
warn_age = "300d"
fail_age = "400d"
[training]
labels = "labels.sql"
estimator = "model.py:build_model"
[performance]
metric = "auc"
maturity = "30d"
window = "15d"
tolerance = 0.05
"""

MODEL = """
from sklearn.linear_model import LogisticRegression

def build_model():
    return LogisticRegression()
"""

LABELS = "SELECT id, asked_at AS as_of, outcome AS label FROM public.outcomes, run WHERE known_at <= run.as_of"

#: Outcomes follow the probability 1 / (1 + exp(-2 a)) until day 15, and are drawn by lot from then on.
WORLD = """
CREATE TABLE public.people AS SELECT x AS id, sin(x * 12.9898) AS a FROM generate_series(1, 1500) AS x;
CREATE TABLE public.outcomes (id bigint, asked_at timestamptz, known_at timestamptz, outcome integer);
SELECT setseed(0.4);
INSERT INTO public.outcomes
SELECT p.id, asked_at, asked_at + interval '30 days',
       (random() < CASE WHEN day < 15 THEN 1 / (1 + exp(-2 * p.a)) ELSE 0.5 END)::integer
FROM unnest(ARRAY[-60, -50, -40, -31, 0, 20]) AS day
CROSS JOIN LATERAL (SELECT TIMESTAMPTZ '{start}' + make_interval(days => day) AS asked_at) AS instant
CROSS JOIN public.people AS p
ORDER BY day, p.id
"""


@pytest.fixture(scope="module")
def world(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """People with a past of four instants, and a model that learned from it."""
    world = make_world(module_database_url, tmp_path_factory.mktemp("world") / "pipelines", rows=None)
    world.execute(WORLD.format(start=START.isoformat()))
    make_pipeline(
        world, "people", toml=TOML, features="", changes=None, files={"model.py": MODEL, "labels.sql": LABELS}
    )
    world.set_clock(START)
    train(world.settings, "people")
    return world


def run_on(world: World, day: int, trigger: Trigger = Trigger.SCHEDULED) -> RunSummary:
    world.set_clock(START + timedelta(days=day))
    summary = world.score("people", full=True, trigger=trigger)
    assert summary.status is Status.PUBLISHED, summary.message
    return summary


def found(summary: RunSummary, check: str) -> Finding:
    return next(finding for finding in summary.findings if finding.check_id == check)


def test_a_concept_shift_shows_when_its_labels_have_matured_and_not_before(world: World) -> None:
    first = run_on(world, 0)
    assert found(first, "performance.estimate").verdict is Verdict.PASS

    # Five days after the world changed. Labels of day 0 come on day 30.
    changed = run_on(world, 20)
    metric = found(changed, "performance.metric")
    assert (metric.verdict, metric.effective) == (Verdict.UNKNOWN, Verdict.SKIPPED)
    assert "no kept prediction of version 1 is 30 d old; the first one matures on 2026-03-31" in metric.reason
    assert found(changed, "performance.calibration").verdict is Verdict.UNKNOWN
    estimate = found(changed, "performance.estimate")
    assert estimate.verdict is Verdict.PASS
    assert estimate.observed == pytest.approx(found(first, "performance.estimate").observed)
    assert Followup.RETRAIN not in changed.followups

    # Those of day 0 have matured: the model was as good as it had promised.
    matured = run_on(world, 35)
    assert found(matured, "performance.metric").verdict is Verdict.PASS
    assert found(matured, "performance.metric").n == found(matured, "performance.metric").evidence["predicted"] > 900
    assert found(matured, "performance.calibration").verdict is Verdict.PASS

    # Those of day 20 have: it foretells nothing any more. One run is a warning, the second asks for a new model.
    suspected = found(run_on(world, 52), "performance.metric")
    assert (suspected.verdict, suspected.effective) == (Verdict.FAIL, Verdict.WARN)
    assert suspected.observed == pytest.approx(0.5, abs=0.05)
    assert suspected.evidence["high"] < suspected.fail_limit
    confirmed = run_on(world, 60)
    assert found(confirmed, "performance.metric").effective is Verdict.FAIL
    assert Followup.RETRAIN in confirmed.followups
    assert found(confirmed, "performance.calibration").verdict is Verdict.FAIL
    assert found(confirmed, "performance.estimate").verdict is Verdict.UNKNOWN
    state = world.one("SELECT DISTINCT state, reasons::text FROM predictions.people")
    assert state["state"] == "aging"
    assert "performance.metric: auc 0." in state["reasons"]


def test_labels_that_are_missing_are_unknown_and_count(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # After the story above. A contract that expects labels too early: those of day 60 are not known on day 75.
    folder = world.settings.pipelines_dir / "people"
    (folder / "pipeline.toml").write_text(TOML.replace('"30d"\nwindow', '"10d"\nwindow'))
    early = found(run_on(world, 75, Trigger.MANUAL), "performance.metric")
    assert early.verdict is Verdict.UNKNOWN
    assert early.effective is Verdict.FAIL  # what had failed is not cleared by having no answer
    assert early.reason.startswith("0 of ")
    assert early.followups == {Followup.INVESTIGATE}

    # A query that takes too long costs an answer, and no predictions.
    monkeypatch.setattr(cohorts, "LABELS_TIMEOUT", timedelta(milliseconds=200))
    (folder / "labels.sql").write_text(
        LABELS.replace("WHERE", "WHERE (SELECT count(*) FROM generate_series(1, 1000000000)) > 0 AND")
    )
    slow = found(run_on(world, 76, Trigger.MANUAL), "performance.metric")
    assert slow.verdict is Verdict.UNKNOWN
    assert "labels.sql could not be used: canceling statement due to statement timeout" in slow.reason
