"""When two scores of one entity count as different."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tasks.columns import Column
from tasks.scoring import disagreements

KEY = (Column(name="id", postgres_type="bigint"),)
OUTPUTS = (Column(name="p", postgres_type="double precision"), Column(name="top", postgres_type="double precision[]"))


def rows(
    p: float | None = 0.5, *, id_: int = 1, top: list[float] | None = None, rejected: str | None = None
) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([id_], pa.int64()),
            "p": pa.array([p], pa.float64()),
            "top": pa.array([top], pa.list_(pa.float64())),
            "rejected": pa.array([rejected], pa.string()),
        }
    )


@pytest.mark.parametrize(
    ("served", "differ"),
    [
        (rows(0.5), 0),
        (rows(0.5 + 1e-10), 0),
        (rows(0.5 + 1e-8), 1),
        (rows(None), 1),
        (rows(0.5, rejected="null:a"), 1),
        (rows(0.5, top=[1.0]), 1),
        (rows(0.5, id_=2), 2),
    ],
)
def test_scores_differ_by_more_than_a_billionth_by_their_rejection_or_by_their_entity(served: Any, differ: int) -> None:
    assert disagreements(rows(0.5), served, KEY, OUTPUTS) == differ


def test_large_scores_may_differ_by_a_billionth_of_themselves() -> None:
    """A linear model's sum of large terms depends on the size of the batch in its last digits."""
    assert disagreements(rows(3e8), rows(3e8 + 6e-8), KEY, OUTPUTS) == 0
    assert disagreements(rows(3e8), rows(3e8 + 1), KEY, OUTPUTS) == 1
    assert disagreements(rows(top=[3e8, 1.0]), rows(top=[3e8 + 6e-8, 1.0]), KEY, OUTPUTS) == 0
    assert disagreements(rows(top=[3e8, 1.0]), rows(top=[3e8, 1.0 + 1e-8]), KEY, OUTPUTS) == 1
