"""Distances: the same numbers as scipy gives, noise taken off, and no answer where there are too few values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import betabinom, chi2, entropy

from tasks.drift import CONFIDENCE, LEAST_BINS, PRIOR, VALUES_PER_BIN, differs, js_distance, most_outside, psi, shares

COUNTS = st.integers(0, 5_000)


@st.composite
def pairs(draw, most=40):
    """Two count vectors of the same bins, empty bins included."""
    bins = draw(st.integers(1, most))
    vectors = [draw(st.lists(COUNTS, min_size=bins, max_size=bins)) for _ in range(2)]
    return tuple(np.array(vector, dtype=np.int64) for vector in vectors)


def _shares(counts):
    return (counts + 0.5) / (counts + 0.5).sum()


@given(pairs())
def test_distances_are_those_of_scipy(pair):
    reference, current = pair
    kept = (reference > 0) | (current > 0)
    p, q = _shares(reference[kept]), _shares(current[kept])
    if reference.sum() and current.sum():
        assert js_distance(reference, current) == pytest.approx(jensenshannon(p, q, base=2), abs=1e-7)
    found = psi(reference, current)
    if found is not None and found.bins == kept.sum():
        assert found.psi == pytest.approx(entropy(p, q) + entropy(q, p), rel=1e-9, abs=1e-12)


@given(pairs())
def test_a_distance_needs_fifty_values_for_every_bin_but_one_or_is_not_given(pair):
    reference, current = pair
    found = psi(reference, current)
    least = min(reference.sum(), current.sum())
    occupied = int(((reference > 0) | (current > 0)).sum())
    if found is None:
        assert least == 0 or least < VALUES_PER_BIN * (min(LEAST_BINS, occupied) - 1)
    else:
        assert least >= VALUES_PER_BIN * (found.bins - 1)
        assert min(LEAST_BINS, occupied) <= found.bins <= occupied
        assert (found.n_reference, found.n_current) == (reference.sum(), current.sum())
        assert np.isfinite([found.psi, found.floor, found.critical, found.adjusted]).all()
        assert found.adjusted >= 0


@given(pairs())
def test_the_order_of_the_sides_does_not_matter_where_nothing_is_merged(pair):
    forth, back = psi(*pair), psi(*reversed(pair))
    assert (forth is None) == (back is None)
    if forth is not None and forth.bins == ((pair[0] > 0) | (pair[1] > 0)).sum():
        assert forth.psi == pytest.approx(back.psi, abs=1e-12)
    if pair[0].sum() and pair[1].sum():
        assert js_distance(*pair) == pytest.approx(js_distance(*reversed(pair)), abs=1e-7)
        assert 0 <= js_distance(*pair) <= 1


@given(st.lists(st.integers(100, 5_000), min_size=1, max_size=30), st.integers(2, 50))
def test_proportional_counts_are_at_no_distance(counts, times):
    reference = np.array(counts, dtype=np.int64)
    found = psi(reference, times * reference)
    assert found is not None
    assert found.adjusted == 0
    assert not found.significant


def test_without_drift_the_mean_is_the_floor_and_one_of_a_thousand_is_significant():
    draw = np.random.default_rng(4)
    for bins, m in ((10, 500), (20, 1_000), (20, 10_000)):
        found = [
            psi(draw.multinomial(100_000, [1 / bins] * bins), draw.multinomial(m, [1 / bins] * bins))
            for _ in range(2_000)
        ]
        assert np.mean([d.psi for d in found]) == pytest.approx(found[0].floor, rel=0.05)
        assert found[0].floor == pytest.approx((bins - 1) * (1 / 100_000 + 1 / m))
        assert found[0].critical == pytest.approx(chi2.ppf(0.999, bins - 1) * (1 / 100_000 + 1 / m))
        assert np.mean([d.significant for d in found]) <= 0.005


@pytest.mark.parametrize("shift", [0.25, 0.5])
def test_the_adjusted_distance_of_a_shift_does_not_depend_on_how_many_rows_there_are(shift):
    draw = np.random.default_rng(5)
    reference = draw.normal(size=100_000)
    edges = np.quantile(reference, np.linspace(0, 1, 21))
    edges[0], edges[-1] = -np.inf, np.inf
    frozen = np.histogram(reference, edges)[0]
    adjusted = [
        psi(frozen, np.histogram(draw.normal(shift, size=rows), edges)[0]).adjusted for rows in (2_000, 20_000, 500_000)
    ]
    assert adjusted == pytest.approx([shift**2 * 0.97] * 3, rel=0.3)


def test_a_limit_is_reached_at_the_limit_and_never_by_chance():
    reference, current = np.array([5_000, 5_000]), np.array([40, 60])
    found = psi(reference, current)
    assert not found.significant
    assert not found.reaches(0.0)
    found = psi(reference, current * 100)
    assert found.reaches(found.adjusted)
    assert not found.reaches(np.nextafter(found.adjusted, 1))


def test_scarce_values_are_compared_in_fewer_bins_and_too_few_not_at_all():
    reference = np.full(20, 5_000)
    assert psi(reference, np.full(20, 50)).bins == 20
    assert psi(reference, np.full(20, 15)).bins == 300 // VALUES_PER_BIN + 1
    assert psi(reference, np.full(20, 10)).bins == LEAST_BINS
    assert psi(reference, np.array([9] + [10] * 19)) is None
    assert psi(np.array([0, 0]), np.array([10, 0])) is None


def test_thousand_bins_are_merged_into_groups_of_about_equal_mass():
    found = psi(np.full(1_000, 50), np.full(1_000, 5), most_bins=20)
    assert found.bins == 20
    assert found.psi < found.critical


def test_one_value_in_both_is_no_distance_and_a_value_that_moved_is_a_large_finite_one():
    assert psi(np.array([0, 5_000, 0]), np.array([0, 300, 0])).psi == 0
    moved = psi(np.array([0, 5_000, 0]), np.array([0, 0, 300]))
    assert moved.bins == 2
    assert 5 < moved.adjusted < 50
    assert js_distance(np.array([10, 0]), np.array([0, 0])) != js_distance(np.array([10, 0]), np.array([0, 0]))


def test_shares_add_up_to_one_and_are_never_0():
    found = shares(np.array([0, 10, 0]))
    assert found.sum() == pytest.approx(1)
    assert found[0] == PRIOR / 11.5


def test_vectors_of_different_bins_cannot_be_compared():
    for compare in (psi, js_distance):
        with pytest.raises(ValueError, match="of 2 and 3 bins"):
            compare(np.array([1, 2]), np.array([1, 2, 3]))


def test_a_share_differs_when_chance_is_no_explanation():
    assert differs(60, 2_000, 200, 20_000)
    assert not differs(25, 2_000, 200, 20_000)
    assert not differs(0, 0, 1, 10)


def test_chance_puts_a_few_values_outside_of_a_small_training_sample():
    draw = np.random.default_rng(6)
    outside = []
    for _ in range(500):
        before, now = draw.normal(size=500), draw.normal(size=2_000)
        outside.append(int(((now < before.min()) | (now > before.max())).sum()))
    assert np.mean([count > most_outside(2_000, 500) for count in outside]) <= 0.01
    assert most_outside(2_000, 500) > 0.001 * 2_000
    assert most_outside(2_000, 1_000_000) <= 1


@pytest.mark.parametrize("rows", [0, 1, 10, 99, 1_024, 1_025, 5_000, 200_000])
@pytest.mark.parametrize("rows_before", [2, 3, 10, 500, 20_000, 1_000_000])
def test_the_most_outside_is_the_quantile_of_the_whole_distribution(rows: int, rows_before: int) -> None:
    expected = int(betabinom.ppf(CONFIDENCE, rows, 2, rows_before - 1))

    assert most_outside(rows, rows_before) == expected
