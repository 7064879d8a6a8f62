"""A metric that was measured once, judged again under another baseline, tolerance and coverage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tasks.checks import CHECKS, Evidence, Phase
from tasks.declaration import Performance
from tasks.recollection import ask_again
from tests.unit.test_page import finding, run

FACTS = {"metric": "auc", "output": "p", "coverage": 0.95, "n": 900, "value": 0.78, "low": 0.75, "high": 0.805}
CHECK = next(check for check in CHECKS if check.id == "performance.metric")


def again(**performance: Any) -> tuple[str, set[str]]:
    stored = finding("performance.metric", "pass", observed=0.78, evidence={**FACTS, "interval": "DeLong"})
    bundle = SimpleNamespace(metrics={"metrics": {"roc_auc": 0.81}})
    evidence = SimpleNamespace(
        pipeline=SimpleNamespace(performance=Performance(**{"metric": "auc", **performance}), sources=()),
        scorer=SimpleNamespace(bundle=bundle),
        findings=[],
    )
    (found,), left = ask_again(cast(Evidence, evidence), run(1, "published", stored), Phase(CHECK.when))
    return found.verdict.value, left


@pytest.mark.parametrize(
    ("performance", "verdict"),
    [
        ({"tolerance": 0.04}, "pass"),
        ({"tolerance": 0.02}, "warn"),
        ({"tolerance": 0.0}, "fail"),
        ({"baseline": 0.9, "tolerance": 0.05}, "fail"),
        ({"min_label_coverage": 0.96}, "unknown"),
    ],
)
def test_a_stored_metric_is_judged_by_the_limits_that_are_proposed(performance: dict[str, Any], verdict: str) -> None:
    assert again(**performance) == (verdict, set())


def test_another_metric_was_never_measured() -> None:
    assert again(metric="brier") == ("pass", {"performance.metric"})
