"""Between runs: is what is served within its promise, and did a scheduled run not happen? Reads only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tasks import explanation, lookup
from tasks import health as healths
from tasks.database import resolve_url
from tasks.explanation import CheckExplanation, Explanation, Tick
from tasks.health import PipelineHealth
from tasks.settings import Settings


def health(settings: Settings, pipeline: str | None = None) -> list[PipelineHealth]:
    """Return the health of every pipeline that ran in the database, or of one."""
    return healths.read_health(resolve_url(settings), pipeline)


def next_runs(settings: Settings, pipeline: str | None = None) -> tuple[datetime, dict[str, tuple[Tick, ...]]]:
    """Return the clock of the database, and when the schedules of pipelines fire next."""
    return explanation.read_ticks(resolve_url(settings), pipeline)


def explain(settings: Settings, pipeline: str) -> Explanation:
    """Return what is wrong with a pipeline, since when, why, and what happens next."""
    return explanation.explain(resolve_url(settings), pipeline)


def explain_checks(settings: Settings, pipeline: str, word: str) -> list[CheckExplanation]:
    """Return what checks ask, and what they answered lately for a pipeline."""
    return explanation.explain_checks(resolve_url(settings), pipeline, word)


def look_up(settings: Settings, pipeline: str, key: list[str]) -> dict[str, Any]:
    """Return what an SQL reader sees for one entity."""
    return lookup.look_up(resolve_url(settings), pipeline, key)


def look_back(settings: Settings, pipeline: str, key: list[str], at: datetime) -> dict[str, Any]:
    """Return what an SQL reader saw for one entity at an instant."""
    return lookup.look_back(resolve_url(settings), pipeline, key, at)


def list_seen(settings: Settings, pipeline: str, key: list[str]) -> list[lookup.Seen]:
    """Return what SQL readers saw for one entity, oldest first."""
    return lookup.list_seen(resolve_url(settings), pipeline, key)
