"""Between runs: is what is served within its promise, and did a scheduled run not happen? Reads only."""

from __future__ import annotations

from typing import Any

from tasks import health as healths
from tasks import lookup
from tasks.database import resolve_url
from tasks.health import PipelineHealth
from tasks.settings import Settings


def health(settings: Settings, pipeline: str | None = None) -> list[PipelineHealth]:
    """Return the health of every pipeline that ran in the database, or of one."""
    return healths.read_health(resolve_url(settings), pipeline)


def look_up(settings: Settings, pipeline: str, key: list[str]) -> dict[str, Any]:
    """Return what an SQL reader sees for one entity."""
    return lookup.look_up(resolve_url(settings), pipeline, key)
