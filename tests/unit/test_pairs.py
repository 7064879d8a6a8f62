"""Which row of a dataset answers which (key, instant), against a search of all rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.columns import Column
from tasks.pairs import Pairs, micros, tags

NUMBER, TEXT = Column(name="id", postgres_type="bigint"), Column(name="shop", postgres_type="text")
START = datetime(2026, 3, 1, tzinfo=UTC)

few = st.integers(-3, 6)
hours = st.integers(0, 8)


def table(rows: list[tuple[int, int]], column: str = "as_of") -> pa.Table:
    instants = pa.array([START + timedelta(hours=hour) for _, hour in rows], pa.timestamp("us", "UTC"))
    return pa.table({"id": pa.array([key for key, _ in rows], pa.int64()), column: instants})


def answered(pairs: Pairs, rows: pa.Table, size: int, *, dated: bool) -> list[tuple[int, int, int]]:
    """(position of the row, key of the pair, hour of the pair), reading the rows in batches."""
    batches = rows.to_batches(max_chunksize=size)
    if dated:
        for batch in batches:
            pairs.note(pairs.groups(tags(batch, [NUMBER])), micros(batch.column("known_at")))
        pairs.close()
    found, before = [], 0
    for batch in batches:
        instants = micros(batch.column("known_at")) if dated else None
        positions, which = pairs.answer(pairs.groups(tags(batch, [NUMBER])), instants)
        hour = [int((at - START).total_seconds() // 3600) for at in pairs.instants_of(which).to_pylist()]
        keys = batch.column("id").take(pa.array(positions)).to_pylist()
        found += [(int(p) + before, key, at) for p, key, at in zip(positions, keys, hour, strict=True)]
        before += batch.num_rows
    return sorted(found)


@given(
    wanted=st.lists(st.tuples(few, hours), max_size=12, unique=True),
    rows=st.lists(st.tuples(few, hours), max_size=25),
    size=st.integers(1, 30),
)
def test_the_newest_row_up_to_the_instant_answers(
    wanted: list[tuple[int, int]], rows: list[tuple[int, int]], size: int
) -> None:
    pairs = Pairs.of([table(wanted)], [NUMBER], "as_of")
    expected = []
    for key, hour in wanted:
        known = [at for row_key, at in rows if row_key == key and at <= hour]
        expected += [(i, key, hour) for i, row in enumerate(rows) if known and row == (key, max(known))]

    assert answered(pairs, table(rows, "known_at"), size, dated=True) == sorted(expected)
    answers = [sum(key == k and hour == h for _, k, h in expected) for key, hour in wanted]
    assert pairs.unanswered == answers.count(0)
    assert pairs.answered_twice == sum(count > 1 for count in answers)


@given(keys=st.lists(few, max_size=8), rows=st.lists(st.tuples(few, hours), max_size=25), size=st.integers(1, 30))
def test_at_one_instant_each_key_is_answered_as_among_several(
    keys: list[int], rows: list[tuple[int, int]], size: int
) -> None:
    at = START + timedelta(hours=4)
    pairs = Pairs.of([pa.table({"id": pa.array(keys, pa.int64())})], [NUMBER], at)
    assert pairs.repeated == (len(set(keys)) < len(keys))
    assert len(pairs) == len(set(keys))
    several = Pairs.of([table([(key, 4) for key in keys])], [NUMBER], "as_of")
    assert several.repeated == pairs.repeated
    for dated in (True, False):
        found = answered(pairs, table(rows, "known_at"), size, dated=dated)
        assert found == answered(several, table(rows, "known_at"), size, dated=dated)


def test_keys_of_several_columns_and_of_text_are_told_apart() -> None:
    rows: dict[str, Any] = {"id": [1, 1, 2, 12], "shop": ["2", "12", "", "x"]}
    both = [NUMBER, TEXT]
    pairs = Pairs.of([pa.table(rows)], both, START)
    assert len(pairs) == 4
    assert not pairs.repeated
    strangers = pa.table({"id": [12, 1, 2], "shop": ["2", "12", "2"]})
    assert (pairs.groups(tags(strangers, both)) >= 0).tolist() == [False, True, False]
    alone = Pairs.of([pa.table({"shop": ["é", "e"]})], [TEXT], START)
    assert (alone.groups(tags(pa.table({"shop": ["e", "E", "é"]}), [TEXT])) >= 0).tolist() == [True, False, True]


@pytest.mark.parametrize(("low", "high", "inside"), [(1, 4, False), (1, 5, True), (5, 5, True), (10, 99, False)])
def test_a_range_without_a_wanted_key_is_told(low: int, high: int, inside: bool) -> None:
    pairs = Pairs.of([pa.table({"id": pa.array([-7, 5, 9], pa.int64())})], [NUMBER], START)
    assert pairs.touches(low, high) is inside
