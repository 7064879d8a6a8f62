"""`kill -9` of runs at random moments: readers never notice, and nobody has to repair anything.

The night of 200 kills: ``uv run python -m tests.benchmarks.kills --seed 1 --kills 200``
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills import kill_at_random
from tests.nights import make_night

pytestmark = pytest.mark.xdist_group("kills")


@pytest.mark.parametrize(("seed", "kills"), [(1, 3), pytest.param(2, 200, marks=pytest.mark.slow)])
def test_runs_killed_at_random_moments_leave_what_undisturbed_ones_leave(
    database_url: str, tmp_path: Path, seed: int, kills: int
) -> None:
    night = make_night(database_url, tmp_path)

    tally = kill_at_random(night, tmp_path / "temporary", seed=seed, kills=kills, say=print)

    assert tally.kills == kills
    assert set(night.statuses()) == {"crashed", "published"}
