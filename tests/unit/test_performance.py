"""Metrics with their intervals, calibration, and what a histogram of scores promises, against references."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics

from tasks.cohorts import match
from tasks.performance import (
    METRICS,
    ScoreHistogram,
    calibration,
    expected_accuracy,
    expected_auc,
    expected_brier,
    measure,
    promised_auc,
)

BINS = 1000
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def histogram(scores: np.ndarray[Any, Any], edges: np.ndarray[Any, Any] | None = None) -> ScoreHistogram:
    """Count scores into frozen bins, as a run does."""
    edges = np.linspace(0, 1, BINS + 1) if edges is None else edges
    at = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(at, minlength=len(edges) - 1)
    sums = np.bincount(at, weights=scores, minlength=len(edges) - 1)
    return ScoreHistogram(counts=counts, sums=sums, squares=float((scores**2).sum()))


def direct_auc(scores: np.ndarray[Any, Any]) -> float:
    """CBPE over the scores themselves: each is a positive with its weight and a negative with the rest."""
    both = np.concatenate([np.ones(len(scores)), np.zeros(len(scores))])
    weights = np.concatenate([scores, 1 - scores])
    return float(metrics.roc_auc_score(both, np.concatenate([scores, scores]), sample_weight=weights))


SCORES = st.integers(1, 400).flatmap(
    lambda n: st.tuples(st.integers(0, 2**32 - 1), st.floats(0.05, 20), st.floats(0.05, 20), st.just(n))
)


@given(SCORES)
@settings(max_examples=60)
def test_what_a_histogram_promises_is_what_the_scores_do(drawn: tuple[int, float, float, int]) -> None:
    seed, a, b, n = drawn  # n < 50 and long runs of empty bins among them
    scores = np.random.default_rng(seed).beta(a, b, n)
    found = histogram(scores)
    assert expected_brier(found) == pytest.approx(float((scores * (1 - scores)).mean()), abs=1e-12)
    assert expected_accuracy(found) == pytest.approx(float(np.maximum(scores, 1 - scores).mean()), abs=1 / BINS)
    positive, negative = found.sums, found.counts - found.sums
    ties = float((positive * negative).sum() / (positive.sum() * negative.sum())) / 2
    assert expected_auc(found) == pytest.approx(direct_auc(scores), abs=ties + 1e-9)


def test_an_equal_mass_histogram_of_many_scores_is_off_by_less_than_a_ten_thousandth() -> None:
    rng = np.random.default_rng(3)
    for a, b in ((2, 5), (0.5, 0.5), (1, 30)):
        edges = np.quantile(rng.beta(a, b, 20_000), np.linspace(0, 1, BINS + 1))
        scores = rng.beta(a, b, 50_000)
        assert expected_auc(histogram(scores, edges)) == pytest.approx(direct_auc(scores), abs=1e-4)


@pytest.mark.parametrize("scores", [np.zeros(40), np.ones(40), np.empty(0)])
def test_nothing_can_be_ranked_where_one_class_is_expected(scores: np.ndarray[Any, Any]) -> None:
    assert expected_auc(histogram(scores)) is None


def test_days_that_are_bad_for_everybody_do_not_raise_what_a_run_promises() -> None:
    rng = np.random.default_rng(4)
    days = np.repeat([1, 0, 2], 2000)
    scores = np.clip(rng.beta(8, 8, 6000) + np.repeat([-0.2, 0, 0.2], 2000), 0.001, 0.999)
    of_days = [direct_auc(scores[days == day]) for day in range(3)]
    assert promised_auc(scores, days) == pytest.approx(np.mean(of_days), abs=0.001)
    assert expected_auc(ScoreHistogram.of_scores(scores)) > max(of_days) + 0.02
    assert promised_auc(np.ones(3), np.arange(3)) is None


def test_the_order_of_bins_does_not_matter() -> None:
    found = histogram(np.random.default_rng(1).beta(2, 3, 300))
    turned = ScoreHistogram(counts=found.counts[::-1], sums=found.sums[::-1], squares=found.squares)
    assert expected_auc(turned) == pytest.approx(expected_auc(found) or 0)
    assert expected_accuracy(turned) == pytest.approx(expected_accuracy(found) or 0)


# Intervals -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 40))
@settings(max_examples=30)
def test_the_interval_of_the_auc_is_that_of_delong(seed: int, positives: int, negatives: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.repeat([True, False], [positives, negatives])
    scores = np.round(rng.normal(truth * 1.0, 1.0), 1)  # ties
    found = measure(METRICS["auc"], truth, scores, np.zeros(len(truth), dtype=np.int64))
    psi = (scores[truth][:, None] > scores[~truth]) + 0.5 * (scores[truth][:, None] == scores[~truth])
    variance = psi.mean(axis=1).var(ddof=1) / positives + psi.mean(axis=0).var(ddof=1) / negatives
    half = norm.ppf(0.975) * variance**0.5
    assert found.value == pytest.approx(float(metrics.roc_auc_score(truth, scores)))
    assert (found.low, found.high) == pytest.approx((max(0, found.value - half), min(1, found.value + half)))
    assert "rows" in found.interval


def test_rows_of_one_instant_count_together_so_that_good_and_bad_days_widen_the_interval() -> None:
    rng = np.random.default_rng(5)
    days = np.repeat(np.arange(28), 200)
    truth = rng.random(len(days)) < 0.3
    skill = rng.normal(0, 1, 28)[days]  # some days cannot be foretold
    scores = rng.normal(truth * skill, 1)
    together = measure(METRICS["auc"], truth, scores, days)
    alone = measure(METRICS["auc"], truth, scores, np.zeros(len(days), dtype=np.int64))
    assert together.value == alone.value
    assert together.high - together.low > 2 * (alone.high - alone.low)
    drawn = []
    for _ in range(300):
        picked = np.concatenate([np.flatnonzero(days == day) for day in rng.integers(0, 28, 28)])
        drawn.append(metrics.roc_auc_score(truth[picked], scores[picked]))
    assert together.high - together.low == pytest.approx(2 * 1.96 * float(np.std(drawn)), rel=0.35)


_SKLEARN = {
    "auc": metrics.roc_auc_score,
    "average_precision": metrics.average_precision_score,
    "log_loss": metrics.log_loss,
    "brier": metrics.brier_score_loss,
    "accuracy": metrics.accuracy_score,
    "f1": metrics.f1_score,
    "rmse": metrics.root_mean_squared_error,
    "mae": metrics.mean_absolute_error,
    "r2": metrics.r2_score,
}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_that_of_scikit_learn_and_lies_in_its_interval(name: str) -> None:
    rng = np.random.default_rng(11)
    scores, value = rng.beta(2, 3, 500), rng.normal(size=500)
    of = METRICS[name].of
    truth = value if of == "value" else rng.random(500) < scores
    predicted = {"value": value + scores, "class": scores > 0.5, "probability": scores}[of]
    rows = np.zeros(500, dtype=np.int64)
    found = measure(METRICS[name], truth, predicted, rows)
    assert found.value == pytest.approx(_SKLEARN[name](truth, predicted))
    assert found.low < found.value < found.high
    if name == "mae":  # a mean: the interval of the textbook, and the same one each time
        assert found == measure(METRICS[name], truth, predicted, rows)
        misses = np.abs(predicted - truth)
        assert found.high - found.low == pytest.approx(2 * 1.96 * misses.std() / 500**0.5, rel=0.15)


def test_a_limit_lies_below_a_score_and_above_an_error() -> None:
    assert METRICS["auc"].worst_allowed(0.81, 0.03) == pytest.approx(0.78)
    assert METRICS["auc"].worse(0.77, 0.78)
    assert not METRICS["auc"].worse(0.78, 0.78)
    assert METRICS["rmse"].worst_allowed(20.0, None) == pytest.approx(22.0)
    assert METRICS["rmse"].worse(22.1, 22.0)


# Calibration -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 3000))
@settings(max_examples=40)
def test_probabilities_that_are_right_have_an_error_near_the_floor(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.beta(2, 5, n)
    found = calibration(rng.random(n) < scores, scores)
    assert 0 <= found.error <= found.ece <= 1
    assert found.rows == n
    if n > 500:
        assert found.ece < 3 * found.floor
        assert found.error < 0.03


def test_what_is_promised_too_often_shows_above_the_floor() -> None:
    rng = np.random.default_rng(2)
    scores = rng.beta(2, 5, 5000)
    found = calibration(rng.random(5000) < scores * 0.7, scores)
    assert found.ece == pytest.approx(0.3 * scores.mean(), abs=0.01)
    assert found.error == found.ece - found.floor
    assert found.floor < 0.02
    assert found.expected == pytest.approx(scores.sum())
    assert found.observed < 0.8 * found.expected


def test_one_score_for_everybody_is_one_bin() -> None:
    assert calibration(np.array([True, False]), np.array([0.5, 0.5])).ece == 0


# The trap of labels that are still coming ------------------------------------------------------------------------


def test_a_cohort_that_is_scored_as_if_complete_shows_a_worse_model_and_another_base_rate() -> None:
    """An event shows when it happens, at any time within ten days; that there is none shows at the end alone."""
    rng = np.random.default_rng(8)
    scores = rng.beta(1.2, 2.4, 200_000)
    truth = rng.random(len(scores)) < scores
    # Those of whom it is most likely take longest: what is seen after seven days is another selection.
    happened = truth & (rng.random(len(scores)) * 10 * (0.6 + 0.8 * scores) < 7 * 0.55)
    matured = metrics.roc_auc_score(truth, scores)
    immature = metrics.roc_auc_score(happened, scores)
    assert immature < matured - 0.03
    assert happened.mean() < 0.75 * truth.mean()


# Which prediction belongs to a label -----------------------------------------------------------------------------


def _frame(*rows: tuple[str, timedelta, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["key", "as_of", "prediction"])
    frame["as_of"] = pd.to_datetime(NOON + frame["as_of"]).astype("datetime64[us, UTC]")
    return frame


def _matched(label_at: timedelta, *samples: tuple[timedelta, float]) -> float | None:
    labels = _frame(("a", label_at, 1.0)).rename(columns={"prediction": "label"})
    kept = _frame(*(("a", at, value) for at, value in samples), ("b", label_at, 0.9))
    found = match(labels, kept, ["key"], timedelta(days=2), timedelta(minutes=45))
    assert len(found) <= 1
    return None if found.empty else float(found["prediction"].iloc[0])


MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def test_a_label_belongs_to_what_a_reader_was_given_at_its_instant() -> None:
    assert _matched(0 * DAY, (-1 * DAY, 0.1), (-MINUTE, 0.2), (MINUTE, 0.3)) == 0.2
    assert _matched(0 * DAY, (0 * DAY, 0.4)) == 0.4
    assert _matched(0 * DAY, (-2 * DAY, 0.5)) == 0.5
    assert _matched(0 * DAY, (-2 * DAY - MINUTE, 0.5)) is None  # nobody could take it for fresh


def test_an_entity_without_any_before_gets_the_run_that_was_meant_for_it_and_none_later() -> None:
    assert _matched(0 * DAY, (MINUTE, 0.6), (2 * MINUTE, 0.7)) == 0.6
    assert _matched(0 * DAY, (45 * MINUTE, 0.6)) == 0.6
    assert _matched(0 * DAY, (46 * MINUTE, 0.6)) is None  # it may have seen what became of it
