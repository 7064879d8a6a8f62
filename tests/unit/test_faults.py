"""The named points of a run: the list, the code, and what happens at one outside tests."""

from __future__ import annotations

import re
from pathlib import Path

import tasks
from tasks.faults import (
    ARCHIVE_POINTS,
    FORGET_POINTS,
    HISTORY_POINTS,
    MIGRATION_POINTS,
    POINTS,
    RETENTION_POINTS,
    listening,
    reached,
)


def test_every_point_is_reached_somewhere_and_every_reached_point_is_listed() -> None:
    root = Path(tasks.__file__).parents[1]
    sources = [
        path.read_text(encoding="utf-8") for folder in ("flows", "tasks") for path in (root / folder).rglob("*.py")
    ]
    in_code = {point for source in sources for point in re.findall(r'\breached\("([a-z_.]+)"\)', source)}

    listed = (*POINTS, *ARCHIVE_POINTS, *MIGRATION_POINTS, *FORGET_POINTS, *HISTORY_POINTS, *RETENTION_POINTS)
    assert in_code == set(listed)
    assert len(listed) == len(set(listed))


def test_nothing_happens_at_a_point() -> None:
    for point in POINTS:
        reached(point)


def test_who_listens_hears_every_point_until_it_is_enough() -> None:
    heard: list[str] = []
    with listening(heard.append):
        reached("run.locked")
        reached("publish.committed")
    reached("retired.cleared")

    assert heard == ["run.locked", "publish.committed"]
