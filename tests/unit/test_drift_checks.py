"""The checks of distributions at each side of their limits, on counts alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from tasks.checks import CHECKS
from tasks.checks.comparison import Comparison, Usual, all_counts, training_counts, was_constant
from tasks.checks.evidence import Evidence
from tasks.checks.outputs import positives
from tasks.columns import Column
from tasks.declaration import Drift, DriftFeature, Output
from tasks.findings import Disposition, Finding, Verdict
from tasks.population import Mode
from tasks.profiles import ModelProfile, ProfileCounter, StoredProfile, build_profile
from tests.shop_year import START

OUTPUT = Output.model_validate({"name": "p", "method": "predict_proba", "class": "1"})


def normal(rows: int, seed: int = 1, shift: float = 0.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(shift, size=rows)


class Model:
    """A model of one feature ``x``, as it was in training."""

    def __init__(self, training: Any, *, importance: float | None = 1.0, scores: Any = None) -> None:
        values = pa.array(training, from_pandas=True)
        self.column = Column(name="x", postgres_type="text" if pa.types.is_string(values.type) else "double precision")
        held_out = pa.table({"p": normal(5_000, 9) if scores is None else scores})
        profile = build_profile(pa.table({"x": values}), [self.column], held_out)
        profile["features"]["x"]["importance"] = importance
        self.profile = ModelProfile.from_bundle(profile)

    def counted(self, values: Any, scores: Any = ()) -> ProfileCounter:
        counter = ProfileCounter(self.profile)
        column = pa.array(values, self.column.arrow_type, from_pandas=True)
        outputs = {"p": np.array(scores)} if len(scores) else {}
        counter.add(pa.RecordBatch.from_pydict({"x": column}), pa.RecordBatch.from_pydict(outputs))
        return counter

    def stored(self, run_id: int, values: Any) -> StoredProfile:
        counter = self.counted(values)
        facts = {"run_id": run_id, "mode": Mode.FULL, "as_of": START, "model": "x", "model_version": 1}
        return StoredProfile(**facts, features=counter.features, outputs=counter.outputs)

    def ask(
        self,
        check: str,
        values: Any,
        *,
        scores: Any = (),
        drift: Drift | None = None,
        usual: Usual | None = None,
        mode: Mode = Mode.FULL,
    ) -> list[Finding]:
        """Return what a check finds of a run over these values."""
        drift, counter = drift or Drift(), self.counted(values, scores)
        compared = Comparison(
            mode=mode,
            drift=drift,
            profile=self.profile,
            features=counter.features,
            outputs=counter.outputs,
            usual=usual or Usual(),
        )
        pipeline = SimpleNamespace(drift=drift, predictions=(OUTPUT,))
        evidence = cast(Evidence, SimpleNamespace(comparison=compared, pipeline=pipeline))
        (asked,) = [known for known in CHECKS if known.id == check]
        return list(asked.ask(evidence, asked))

    def verdict(self, check: str, values: Any, **options: Any) -> Verdict:
        """Return what a check finds of ``x``; where it names nobody, of all."""
        found = {finding.subject: finding.verdict for finding in self.ask(check, values, **options)}
        return found.get("x", found.get("", Verdict.SKIPPED))


@pytest.fixture(scope="module")
def plain() -> Model:
    return Model(normal(20_000))


@pytest.mark.parametrize(
    ("missing", "verdict"),
    [(19, Verdict.PASS), (20, Verdict.WARN), (99, Verdict.WARN), (100, Verdict.FAIL)],
)
def test_missing_values_warn_and_fail_at_their_limits(plain: Model, missing: int, verdict: Verdict) -> None:
    values = normal(1_000, 2)
    values[:missing] = np.nan
    assert plain.verdict("input.nulls", values) is verdict


@pytest.mark.parametrize(
    ("outside", "verdict"),
    [(9, Verdict.PASS), (10, Verdict.WARN), (99, Verdict.WARN), (100, Verdict.FAIL)],
)
def test_values_out_of_range_warn_and_fail_at_their_limits(plain: Model, outside: int, verdict: Verdict) -> None:
    values = np.clip(normal(10_000, 3), -3, 3)
    values[:outside] = 99
    assert plain.verdict("input.range", values) is verdict
    assert plain.verdict("drift.input", values) is Verdict.PASS


@pytest.mark.parametrize(("new", "verdict"), [(49, Verdict.PASS), (50, Verdict.WARN), (500, Verdict.FAIL)])
def test_unseen_categories_warn_and_fail_at_their_limits(new: int, verdict: Verdict) -> None:
    model = Model(["a", "b"] * 5_000)
    assert model.verdict("input.unseen", ["c"] * new + ["a", "b"] * ((10_000 - new) // 2)) is verdict


def test_one_of_eighty_rows_is_no_alarm(plain: Model) -> None:
    values = normal(80, 4)
    values[0], values[1] = np.nan, 1e9
    for check in ("input.nulls", "input.range", "input.unseen", "input.constant"):
        assert plain.verdict(check, values) is Verdict.PASS
    (few,) = plain.ask("drift.input", values)
    assert (few.verdict, few.small_sample) == (Verdict.UNKNOWN, True)


def test_a_text_that_is_no_category_is_not_compared() -> None:
    model = Model([f"comment {at}" for at in range(2_000)])
    values = [f"another {at}" for at in range(2_000)]
    assert model.verdict("input.unseen", values) is Verdict.PASS
    assert model.verdict("drift.input", values) is Verdict.SKIPPED


def test_a_failure_holds_what_the_model_rests_on_and_flags_the_rest_unless_declared(plain: Model) -> None:
    broken = np.full(1_000, np.nan)

    def leads_to(model: Model, **own: Any) -> Disposition:
        drift = Drift(feature={"x": DriftFeature(**own)}) if own else Drift()
        found = {finding.subject: finding for finding in model.ask("input.nulls", broken, drift=drift)}
        return found["x"].disposition

    assert leads_to(plain) is Disposition.HOLD
    assert leads_to(plain, on_fail="flag") is Disposition.PUBLISH_FLAGGED
    assert leads_to(plain, importance=0.1) is Disposition.HOLD
    assert leads_to(plain, importance=0.09) is Disposition.PUBLISH_FLAGGED
    unmeasured = Model(normal(5_000), importance=None)
    assert leads_to(unmeasured) is Disposition.PUBLISH_FLAGGED
    assert leads_to(unmeasured, on_fail="hold") is Disposition.HOLD


def test_a_step_is_seen_from_recent_runs_and_drift_from_training(plain: Model) -> None:
    recent = [plain.stored(at, normal(2_000, 10 + at, shift=0.42)) for at in range(6, 0, -1)]
    usual = Usual.of(recent, None, lag=2)
    assert [profile.run_id for profile in usual.baseline] == [4, 3, 2, 1]
    same, back = normal(2_000, 30, shift=0.42), normal(2_000, 31)
    assert plain.verdict("drift.step", same, usual=usual) is Verdict.PASS
    assert plain.verdict("drift.input", same, usual=usual) is Verdict.WARN
    assert plain.verdict("drift.step", back, usual=usual) is Verdict.FAIL
    assert plain.verdict("drift.input", back, usual=usual) is Verdict.PASS
    assert plain.verdict("drift.step", same) is Verdict.SKIPPED


def test_runs_of_other_slots_stand_in_until_there_are_two_of_the_same(plain: Model) -> None:
    recent = [plain.stored(at, normal(300, at)) for at in range(8, 0, -1)]
    alone = Usual.of(recent, [recent[7]], lag=2)
    assert (alone.fallback, [p.run_id for p in alone.baseline]) == (True, [6, 5, 4, 3])
    two = Usual.of(recent, [recent[5], recent[7]], lag=2)
    assert (two.fallback, [p.run_id for p in two.baseline]) == (False, [3, 1])
    assert Usual.of(recent[:3], None, lag=2).baseline == ()


def test_an_important_feature_warns_early_once_there_is_history_unless_it_always_swings(plain: Model) -> None:
    steady = Usual.of([plain.stored(at, normal(2_000, 50 + at)) for at in range(16, 0, -1)], None, lag=2)
    swings = [plain.stored(at, normal(2_000, 50 + at, shift=0.2 * (at % 2))) for at in range(16, 0, -1)]
    moved = normal(2_000, 80, shift=0.25)
    for check in ("drift.input", "drift.step"):
        assert plain.verdict(check, moved, usual=steady) is Verdict.WARN
    assert plain.verdict("drift.input", moved, usual=Usual.of(swings, None, lag=2)) is Verdict.PASS
    short = Usual.of([plain.stored(at, normal(2_000, 50 + at)) for at in range(15, 0, -1)], None, lag=2)
    assert plain.verdict("drift.input", moved, usual=short) is Verdict.PASS


def test_incremental_runs_are_compared_with_incremental_runs_only(plain: Model) -> None:
    values = normal(2_000, 5, shift=3)
    values[:500] = np.nan
    for check in ("drift.input", "drift.inputs", "drift.output", "input.constant", "input.nulls"):
        assert plain.verdict(check, values, mode=Mode.INCREMENTAL) is Verdict.SKIPPED
    usual = Usual.of([plain.stored(at, values) for at in range(6, 0, -1)], None, lag=2)
    for check in ("drift.step", "input.nulls"):
        assert plain.verdict(check, values, mode=Mode.INCREMENTAL, usual=usual) is Verdict.PASS


def test_the_data_set_fails_when_a_fifth_of_what_the_model_rests_on_drifted() -> None:
    for importance, verdict in ((0.19, Verdict.PASS), (0.2, Verdict.FAIL)):
        model = Model(normal(20_000))
        other = replace(model.profile.features["x"], name="y", importance=1 - importance)
        model.profile = ModelProfile(
            features={"x": replace(model.profile.features["x"], importance=importance), "y": other},
            outputs=model.profile.outputs,
        )
        (found,) = model.ask("drift.inputs", normal(5_000, 3, shift=1))
        assert found.verdict is verdict
        assert found.followups == {"retrain"}


def test_a_rate_warns_beyond_its_limit_in_both_directions_and_not_by_chance() -> None:
    model = Model(normal(2_000), scores=np.linspace(0, 1, 10_001))

    def rate(above: int) -> Verdict:
        scores = np.concatenate([np.full(above, 0.75), np.full(2_000 - above, 0.25)])
        found = {f.subject: f for f in model.ask("output.rate", normal(2_000), scores=scores)}
        return found["p"].verdict

    assert [rate(above) for above in (300, 500, 1_000, 1_499, 1_520)] == [
        Verdict.FAIL,
        Verdict.WARN,
        Verdict.PASS,
        Verdict.PASS,
        Verdict.WARN,
    ]


def test_positives_are_counted_to_the_threshold_within_its_bin() -> None:
    bins = Model(normal(100), scores=np.linspace(0, 1, 10_001)).profile.outputs["p"]
    for threshold in (0.1, 0.5, 0.9005):
        assert positives(bins, bins.counts, threshold) == pytest.approx((1 - threshold) * 10_001, abs=2)


def test_the_ends_of_a_distance_are_open_and_missing_values_a_bin_of_their_own(plain: Model) -> None:
    bins = plain.profile.features["x"]
    counts = plain.counted([-99.0, 99.0, 99.0, np.nan, np.inf]).features["x"]
    found = all_counts(bins, counts)
    assert len(found) == len(training_counts(bins)) == len(bins.counts) + 3
    assert (found[0], found[-4], found[-3:].tolist(), found.sum()) == (1, 2, [0, 1, 1], 5)


def test_a_number_that_never_varied_is_told_by_its_range_and_not_by_a_division() -> None:
    for values, constant in (
        ([5.0] * 100, True),
        (5 + 1e-9 * normal(100), True),
        ([0.0] * 100, True),
        (normal(100), False),
    ):
        assert was_constant(Model(values).profile.features["x"]) == constant
    model = Model([5.0] * 5_000)
    for check in ("drift.input", "drift.step", "input.range", "input.unseen", "input.constant"):
        assert model.verdict(check, np.full(2_000, 5.000001)) in {Verdict.PASS, Verdict.SKIPPED}
    assert model.verdict("input.constant", np.full(2_000, 6.0)) is Verdict.WARN
