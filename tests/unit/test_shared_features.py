"""A feature that all of a run share is one observation: it never looks like a month, and is judged as the one it is."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from tasks.checks import CHECKS
from tasks.checks.comparison import Comparison
from tasks.columns import Column
from tasks.declaration import Drift
from tasks.findings import Verdict
from tasks.population import Mode
from tasks.profiles import ModelProfile, ProfileCounter, build_profile

RAIN = Column(name="rain", postgres_type="double precision")
#: 28 mornings, each with its own rain, 100 rows each.
TRAINING = pa.table({"rain": np.repeat(np.arange(28.0) ** 1.5, 100)})


def verdicts(morning: float, *, shared: bool) -> dict[str, Verdict]:
    """What the checks of features say of a run on a morning with so much rain."""
    outputs = pa.table({"p": np.linspace(0, 1, 2800)})
    profile = ModelProfile.from_bundle(build_profile(TRAINING, [RAIN], outputs))
    counter = ProfileCounter(profile)
    rows = pa.record_batch({"rain": np.full(900, morning)})
    counter.add(rows, pa.record_batch({"p": np.linspace(0, 1, 900)}))
    drift = Drift.model_validate({"feature": {"rain": {"shared": shared}}})
    compared = Comparison(
        mode=Mode.FULL, drift=drift, profile=profile, features=counter.features, outputs=counter.outputs
    )
    found: dict[str, Verdict] = {}
    for check in CHECKS:
        if check.id.startswith("input.") or check.id in {"drift.input", "drift.inputs"}:
            for finding in check.ask(SimpleNamespace(comparison=compared, tally=None), check):  # type: ignore[arg-type]
                if finding.subject in {"", "rain"}:
                    found[f"{check.id} {finding.subject}".strip()] = finding.verdict
    return found


def test_without_being_told_a_morning_is_compared_with_a_month() -> None:
    found = verdicts(8.0, shared=False)
    assert found["drift.input rain"] is Verdict.FAIL
    assert found["input.constant rain"] is Verdict.FAIL


@pytest.mark.parametrize("morning", [8.0, 150.0, 280.0])
def test_a_shared_feature_is_quiet_on_a_morning_like_others_or_a_little_beyond(morning: float) -> None:
    assert Verdict.FAIL not in verdicts(morning, shared=True).values()


def test_a_shared_feature_in_another_unit_is_still_found() -> None:
    assert verdicts(800.0, shared=True)["input.range rain"] is Verdict.FAIL
    assert verdicts(-200.0, shared=True)["input.range rain"] is Verdict.FAIL
