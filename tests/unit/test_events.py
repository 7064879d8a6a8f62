"""Which events follow from a run and from the health before and after it."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.events import HELD, RECOVERED, RETRAIN, STALE, Ended, Seen, follow
from tasks.health import PipelineHealth

AT = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
NOTHING: dict[str, Any] = {field.name: None for field in fields(PipelineHealth)}
WELL = PipelineHealth(
    **NOTHING
    | {
        "pipeline": "churn",
        "state": "fresh",
        "overdue": False,
        "pinned": False,
        "model_pending": False,
        "generation_id": 812,
        "age": timedelta(hours=1),
        "last_run_at": AT,
        "last_run_status": "published",
        "reasons": [],
        "failing_checks": [],
        "warning_checks": [],
        "followups": [],
        "waived_checks": [],
    }
)
AGING = replace(WELL, state="aging")
STALE_NOW = replace(WELL, state="stale")
OVERDUE = replace(WELL, overdue=True)
HELD_BEFORE = replace(WELL, last_run_status="held")
MISSING = replace(WELL, state="missing", generation_id=None)


@pytest.mark.parametrize(
    ("before", "after", "status", "names"),
    [
        (WELL, WELL, "published", []),
        (None, WELL, "published", []),
        (MISSING, WELL, "published", []),
        (MISSING, MISSING, "failed", []),
        (STALE_NOW, STALE_NOW, "held", [HELD, STALE]),
        (WELL, WELL, "held", [HELD]),
        (WELL, AGING, "held", [HELD, STALE]),
        (WELL, AGING, "failed", [STALE]),
        (WELL, AGING, "published", []),
        (WELL, STALE_NOW, "published", [STALE]),
        (STALE_NOW, WELL, "published", [RECOVERED]),
        (HELD_BEFORE, AGING, "published", [RECOVERED]),
        (OVERDUE, WELL, "published", [RECOVERED]),
        # Somebody's own run does not stand in for the schedule that was missed.
        (OVERDUE, OVERDUE, "published", [STALE]),
        (STALE_NOW, STALE_NOW, "skipped", []),
        (STALE_NOW, None, "failed", []),
    ],
)
def test_what_follows_from_a_run(
    before: PipelineHealth | None, after: PipelineHealth | None, status: str, names: list[str]
) -> None:
    found = follow("churn", Seen(health=before), Seen(health=after), Ended(status=status, run_id=7))

    assert [event.name for event in found] == names
    for event in found:
        assert event.resource["prefect.resource.id"] == "prescore.pipeline.churn"
        assert event.payload["status"] == status
        assert event.payload["run_id"] == 7


@pytest.mark.parametrize(
    ("asked_before", "hours", "waiting", "told"),
    [
        (False, 1, None, True),
        (True, 1, None, False),
        (True, 24, None, True),
        (False, 1, 15, False),
        (True, 24, 15, False),
    ],
)
def test_a_new_version_is_asked_for_once_a_day_and_not_while_one_waits(
    asked_before: bool, hours: int, waiting: int | None, told: bool
) -> None:
    before = replace(WELL, followups=["retrain"] if asked_before else [])
    after = replace(AGING, last_run_at=AT + timedelta(hours=hours), followups=["retrain"])
    ended = Ended(status="published", followups=("retrain",), checks=["M1 model.age"])

    found = follow("churn", Seen(health=before), Seen(health=after, waiting=waiting), ended)

    assert [event.name for event in found] == ([RETRAIN] if told else [])
