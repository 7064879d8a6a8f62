"""The world changes and the model does not know it, while labels come thirty days late."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.score import RunSummary
from flows.train import train
from tasks import cohorts
from tasks.freshness import Finding, Followup, Verdict
from tasks.runs import Status, Trigger
from tests.factories import World, make_pipeline, make_world

# Made once and used by all: one worker.
pytestmark = pytest.mark.xdist_group("performance")

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


@pytest.fixture(scope="module")
def story(world: World) -> dict[int, RunSummary]:
    """Scheduled runs by day: the world changes on day 15, and labels of a run are known 30 days later."""
    return {day: run_on(world, day) for day in (0, 20, 35, 52, 60)}


@pytest.fixture
def later(world: World, story: dict[int, RunSummary]) -> Callable[..., Finding]:
    """What a person's run on the next day finds of the metric, under another contract."""
    folder = world.settings.pipelines_dir / "people"

    def asked(toml: str, labels: str) -> Finding:
        (folder / "pipeline.toml").write_text(toml)
        (folder / "labels.sql").write_text(labels)
        return found(run_on(world, next(_DAYS), Trigger.MANUAL), "performance.metric")

    return asked


_DAYS = itertools.count(75)


def test_scenario_20_a_concept_shift_shows_when_its_labels_have_matured_and_not_before(
    world: World, story: dict[int, RunSummary]
) -> None:
    assert found(story[0], "performance.estimate").verdict is Verdict.PASS

    # Five days after the world changed. Labels of day 0 come on day 30.
    changed = story[20]
    metric = found(changed, "performance.metric")
    assert (metric.verdict, metric.effective) == (Verdict.UNKNOWN, Verdict.SKIPPED)
    assert "no kept prediction of version 1 is 30 d old; the first one matures on 2026-03-31" in metric.reason
    assert found(changed, "performance.calibration").verdict is Verdict.UNKNOWN
    estimate = found(changed, "performance.estimate")
    assert estimate.verdict is Verdict.PASS
    assert estimate.observed == pytest.approx(found(story[0], "performance.estimate").observed)
    assert Followup.RETRAIN not in changed.followups

    # Those of day 0 have matured: the model was as good as it had promised.
    matured = found(story[35], "performance.metric")
    assert matured.verdict is Verdict.PASS
    assert matured.n == matured.evidence["predicted"] > 900
    assert found(story[35], "performance.calibration").verdict is Verdict.PASS

    # Those of day 20 have: it foretells nothing any more. One run is a warning, the second asks for a new model.
    suspected = found(story[52], "performance.metric")
    assert (suspected.verdict, suspected.effective) == (Verdict.FAIL, Verdict.WARN)
    assert suspected.observed == pytest.approx(0.5, abs=0.05)
    assert suspected.evidence["high"] < suspected.fail_limit
    confirmed = story[60]
    assert found(confirmed, "performance.metric").effective is Verdict.FAIL
    assert Followup.RETRAIN in confirmed.followups
    assert found(confirmed, "performance.calibration").verdict is Verdict.FAIL
    assert found(confirmed, "performance.estimate").verdict is Verdict.UNKNOWN
    stored = "SELECT disposition, followups FROM prescore.checks WHERE run_id = {} AND check_id = 'performance.metric'"
    assert world.one(stored.format(confirmed.run_id)) == {"disposition": "publish_flagged", "followups": ["retrain"]}


def test_labels_that_are_missing_are_unknown_and_clear_nothing(later: Callable[..., Finding]) -> None:
    # A contract that expects labels too early: those of day 60 are not known two weeks later.
    early = later(TOML.replace('"30d"\nwindow', '"10d"\nwindow'), LABELS)
    assert early.verdict is Verdict.UNKNOWN
    assert early.effective is Verdict.FAIL  # what had failed is not cleared by having no answer
    assert early.reason.startswith("0 of ")
    assert early.followups == {Followup.INVESTIGATE}


def test_a_query_of_labels_that_takes_too_long_costs_an_answer_and_no_predictions(
    later: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohorts, "LABELS_TIMEOUT", timedelta(milliseconds=200))
    endless = LABELS.replace("WHERE", "WHERE (SELECT count(*) FROM generate_series(1, 1000000000)) > 0 AND")
    slow = later(TOML.replace('"15d"', '"90d"'), endless)
    assert slow.verdict is Verdict.UNKNOWN
    assert "labels.sql could not be used: canceling statement due to statement timeout" in slow.reason


def test_several_labels_of_one_prediction_are_not_judged(later: Callable[..., Finding]) -> None:
    finding = later(TOML.replace('"15d"', '"90d"'), f"{LABELS} UNION ALL {LABELS}")
    assert finding.verdict is Verdict.UNKNOWN
    assert "several labels for one key and as_of" in finding.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "output", "model"),
    [
        ("accuracy", 'label = { method = "predict" }', MODEL),
        ("f1", 'p = { method = "predict_proba", class = "1" }', MODEL),
        ("brier", 'p = { method = "predict_proba", class = "1" }', MODEL),
        ("mae", 'value = { method = "predict" }', MODEL.replace("LogisticRegression", "LinearRegression")),
    ],
)
def test_every_kind_of_metric_is_measured_on_matured_labels(
    database_url: str, tmp_path: Path, metric: str, output: str, model: str
) -> None:
    world = make_world(database_url, tmp_path / "pipelines", rows=None)
    world.execute(WORLD.format(start=START.isoformat()))
    toml = TOML.replace('metric = "auc"', f'metric = "{metric}"').replace(
        'p = { method = "predict_proba", class = "1" }', output
    )
    make_pipeline(
        world, "people", toml=toml, features="", changes=None, files={"model.py": model, "labels.sql": LABELS}
    )
    world.set_clock(START)
    train(world.settings, "people")
    run_on(world, 0)
    finding = found(run_on(world, 35), "performance.metric")
    assert finding.verdict is Verdict.PASS, finding.reason
    assert finding.evidence["low"] < finding.observed < finding.evidence["high"]
    assert finding.observed == pytest.approx(finding.evidence["baseline"], abs=0.05)
