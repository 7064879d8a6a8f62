"""Distances between two count vectors of the same frozen bins, with the noise of counting taken off.

Without any drift a population stability index is not 0: its mean is ``(B - 1) (1/n + 1/m)`` for B bins, n reference and m
current values, and ``PSI / (1/n + 1/m)`` is distributed as chi-squared with B - 1 degrees of freedom (2,000 draws each:
B 10, n 100,000, m 500: mean 0.0177, theory 0.0181, quantile 0.99 0.043). So a fixed limit of 0.1 is always passed by 100
rows, and never by ten million. Here the mean is taken off, and what is left counts only beyond what chance gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]

#: Added to each bin before shares are taken (Jeffreys). A fixed small share would decide the result itself: one empty bin
#: of ten gives a PSI of 0.22 or 2.08 for 1e-2 or 1e-10.
PRIOR = 0.5

#: Values that each bin but one needs, on both sides, so that the noise stays at 0.02 or below.
VALUES_PER_BIN = 50

#: Bins are merged with their neighbours down to so many when there are too few values for more; fewer tell too little.
LEAST_BINS = 5

#: What chance alone gives in one of a thousand comparisons is no alarm.
CONFIDENCE = 0.999


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far two count vectors are apart."""

    #: Population stability index (Jeffreys divergence, natural logarithm) of the bins as they were compared.
    psi: float
    #: What it would be on average without any drift.
    floor: float
    #: PSI above which chance is no explanation, with CONFIDENCE.
    critical: float
    #: Bins that were compared, once empty ones were dropped and scarce ones merged.
    bins: int
    n_reference: int
    n_current: int

    @property
    def adjusted(self) -> float:
        """PSI beyond its noise, at least 0: the size of the change."""
        return max(0.0, self.psi - self.floor)

    @property
    def significant(self) -> bool:
        """Whether chance is no explanation."""
        return self.psi > self.critical

    def reaches(self, limit: float) -> bool:
        """Say whether the change is at least so large, and not explained by chance. The limit itself is reached."""
        return self.significant and self.adjusted >= limit


def psi(reference: Counts, current: Counts, *, most_bins: int | None = None) -> Distance | None:
    """Compare two count vectors by the noise-adjusted population stability index.

    Bins that are empty on both sides are dropped. Neighbours are merged, those with the least reference mass first, until
    each side has ``VALUES_PER_BIN`` values for every bin but one.

    Parameters
    ----------
    reference, current
        Counts of the same bins in the same order, int64, shape ``(n_bins,)``.
    most_bins
        Merge down to so many bins in any case.

    Returns
    -------
    Distance or None
        None when there are too few values for LEAST_BINS bins, or for as many as there are if those are fewer.
        Symmetric in its arguments but for the merging; 0 for proportional vectors up to the prior.

    Raises
    ------
    ValueError
        When the vectors differ in length.
    """
    if reference.shape != current.shape:
        raise ValueError(f"counts of {len(reference)} and {len(current)} bins cannot be compared")
    n, m = int(reference.sum()), int(current.sum())
    reference, current = _occupied(reference, current)
    allowed = min(n, m) // VALUES_PER_BIN + 1
    if min(n, m) == 0 or allowed < min(len(reference), LEAST_BINS):
        return None
    wanted = min(len(reference), allowed, most_bins or len(reference))
    reference, current = _merged(reference, current, wanted)
    p, q = shares(reference), shares(current)
    noise = 1 / n + 1 / m
    return Distance(
        psi=float(np.sum((q - p) * np.log(q / p))),
        floor=(len(p) - 1) * noise,
        critical=_critical(len(p) - 1) * noise,
        bins=len(p),
        n_reference=n,
        n_current=m,
    )


def js_distance(reference: Counts, current: Counts) -> float:
    """Return the Jensen-Shannon distance of two count vectors: base 2, the root of the divergence, 0 to 1.

    Not adjusted for noise: without drift it is about ``sqrt((B - 1) (1/n + 1/m) / (8 ln 2))``. NaN when one is empty.
    """
    if reference.shape != current.shape:
        raise ValueError(f"counts of {len(reference)} and {len(current)} bins cannot be compared")
    if not reference.sum() or not current.sum():
        return float("nan")
    reference, current = _occupied(reference, current)
    p, q = shares(reference), shares(current)
    middle = (p + q) / 2
    divergence = (np.sum(p * np.log2(p / middle)) + np.sum(q * np.log2(q / middle))) / 2
    return float(np.sqrt(max(0.0, divergence)))


def shares(counts: Counts) -> NDArray[np.float64]:
    """Return the share of each bin, the prior added: never 0, and adding up to 1."""
    found: NDArray[np.float64] = (counts + PRIOR) / (counts.sum() + PRIOR * len(counts))
    return found


def differs(hits: int, rows: int, hits_before: int, rows_before: int) -> bool:
    """Say whether a share is larger than the one before by more than chance gives (two-sample z, CONFIDENCE two-sided)."""
    if not rows or not rows_before:
        return False
    pooled = (hits + hits_before) / (rows + rows_before)
    noise = pooled * (1 - pooled) * (1 / rows + 1 / rows_before)
    return bool(hits / rows - hits_before / rows_before > np.sqrt(_critical(1) * noise))


# Counts whose probability is computed at once: the first ones nearly always do, and 8 MB are the most that is held.
_FIRST_BLOCK, _LARGEST_BLOCK = 1_024, 1_048_576


@cache
def most_outside(rows: int, rows_before: int) -> int:
    """Return how many of ``rows`` values chance puts outside the smallest and largest of ``rows_before``, at most.

    The share of a continuous population outside two extremes of n values is Beta(2, n - 1) distributed whatever its
    shape is: 0.4 % on average for 500, so a limit of 0.1 % would be passed by nothing but a small training sample.
    """
    from scipy.stats import betabinom  # takes as long to import as everything else: for runs, not for every command

    if rows_before < 2:
        return rows
    # SciPy's own ppf holds all counts up to rows at once: 200 MB and 1.2 s for ten million, to find 23.
    below, begin, block = 0.0, 0, _FIRST_BLOCK
    while begin <= rows:
        counts = np.arange(begin, min(begin + block, rows + 1))
        probable = below + np.cumsum(betabinom.pmf(counts, rows, 2, rows_before - 1))
        if probable[-1] >= CONFIDENCE:
            return int(counts[np.searchsorted(probable, CONFIDENCE)])
        below, begin, block = float(probable[-1]), begin + block, min(2 * block, _LARGEST_BLOCK)
    return rows


@cache
def _critical(degrees: int) -> float:
    from scipy.stats import chi2

    return float(chi2.ppf(CONFIDENCE, degrees)) if degrees > 0 else 0.0


def _occupied(reference: Counts, current: Counts) -> tuple[Counts, Counts]:
    kept = (reference > 0) | (current > 0)
    return reference[kept], current[kept]


def _merged(reference: Counts, current: Counts, bins: int) -> tuple[Counts, Counts]:
    """Merge neighbours until ``bins`` are left, the pair with the least reference mass first."""
    if len(reference) <= bins:
        return reference, current
    if len(reference) > 4 * bins:
        # Many fine bins: first into groups of equal mass, else merging pair by pair takes long.
        mass = np.cumsum(reference + PRIOR)
        group = np.minimum((mass - (reference + PRIOR) / 2) * 4 * bins // mass[-1], 4 * bins - 1)
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        reference, current = np.add.reduceat(reference, starts), np.add.reduceat(current, starts)
    while len(reference) > bins:
        at = int(np.argmin(reference[:-1] + reference[1:]))
        reference, current = _joined(reference, at), _joined(current, at)
    return reference, current


def _joined(counts: Counts, at: int) -> Counts:
    return np.concatenate([counts[:at], [counts[at] + counts[at + 1]], counts[at + 2 :]])
