"""Tallies of shards: written beside their rows, read again, and added up to what one stream would have counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.feature_ages import AgeCounter, Ages
from tasks.profiles import ColumnCounts, ModelProfile, ProfileCounter
from tasks.scoring import Tally
from tasks.sentinels import Sentinels
from tasks.stream import StageCost

if TYPE_CHECKING:
    from tasks.scoring import Scorer

_AGES = ("rows", "nulls", "ahead", "beyond", "cut")


def begin(scorer: Scorer, seed: int) -> Tally:
    """Return the tally of a pass that counts everything the checks ask about; ``seed`` decides where sentinels stand."""
    pipeline = scorer.pipeline
    return Tally(
        profile=ProfileCounter(ModelProfile.from_bundle(scorer.bundle.profile)),
        ages=AgeCounter(pipeline.features.ttl),
        sentinels=Sentinels(scorer.bundle, pipeline.predictions, pipeline.model.golden.atol, seed),
    )


def write(tally: Tally, *, doubtful: bool = False) -> str:
    """Return what a pass counted as JSON: some kilobytes, whatever the rows were.

    ``doubtful`` says that compiled code was found to differ after rows of it had been returned.
    """
    profile, ages, sentinels = tally.profile, tally.ages, tally.sentinels
    return json.dumps(
        {
            "rows": tally.rows,
            "rejected": tally.rejected,
            "reasons": tally.reasons,
            "ranges": tally.ranges,
            "doubtful": doubtful,
            "stages": {name: asdict(cost) for name, cost in tally.stages.items()},
            "features": {} if profile is None else _written(profile.features),
            "outputs": {} if profile is None else _written(profile.outputs),
            "ages": {} if ages is None else {name: _ages(counted) for name, counted in ages.columns.items()},
            "sentinels": None
            if sentinels is None
            else {"compared": sentinels.compared, "worst": sentinels.worst, "skipped": sentinels.skipped},
        },
        separators=(",", ":"),
    )


def is_doubtful(written: str) -> bool:
    """Say whether compiled code was found to differ in a pass."""
    return bool(json.loads(written)["doubtful"])


def add(tally: Tally, written: str) -> None:
    """Add what another pass over other rows of the same run counted; both must have begun with the same scorer."""
    other = json.loads(written)
    tally.rows += other["rows"]
    tally.rejected += other["rejected"]
    tally.reasons.update(other["reasons"])
    for name, (low, high) in other["ranges"].items():
        before = tally.ranges.get(name, (low, high))
        tally.ranges[name] = (min(low, before[0]), max(high, before[1]))
    for name, cost in other["stages"].items():
        spent = tally.stages.setdefault(name, StageCost())
        for part, value in cost.items():
            setattr(spent, part, getattr(spent, part) + value)
    if tally.profile is not None:
        tally.profile.absorb(_read(other["features"]), _read(other["outputs"]))
    if tally.ages is not None:
        for name, counted in other["ages"].items():
            tally.ages.columns[name].absorb(_read_ages(counted))
    if tally.sentinels is not None and other["sentinels"] is not None:
        tally.sentinels.absorb(**other["sentinels"])


def _written(columns: Mapping[str, ColumnCounts]) -> dict[str, Any]:
    return {
        name: {**vars(counts), "counts": counts.counts.tolist(), "sums": _list(counts.sums)}
        for name, counts in columns.items()
    }


def _list(values: np.ndarray[Any, Any] | None) -> list[float] | None:
    return None if values is None else values.tolist()


def _read(columns: Mapping[str, Any]) -> dict[str, ColumnCounts]:
    return {
        name: ColumnCounts(
            **{
                **counts,
                "counts": np.array(counts["counts"], dtype=np.int64),
                "sums": None if counts["sums"] is None else np.array(counts["sums"], dtype=np.float64),
            }
        )
        for name, counts in columns.items()
    }


def _ages(counted: Ages) -> dict[str, Any]:
    filled = np.flatnonzero(counted.counts)
    return {
        **{name: getattr(counted, name) for name in _AGES},
        "counts": [filled.tolist(), counted.counts[filled].tolist()],
    }


def _read_ages(written: Mapping[str, Any]) -> Ages:
    ages = Ages(**{name: written[name] for name in _AGES})
    bins, counts = written["counts"]
    ages.counts[np.array(bins, dtype=np.int64)] = counts
    return ages
