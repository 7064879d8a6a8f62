"""Events: which of them follow from a run and from the health before and after it, as plain data.

``prescore.stale``, ``prescore.held``, ``prescore.recovered`` and ``prescore.retrain`` name a pipeline and carry codes and
numbers, never values of the data. Who sends them is somebody else's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tasks.database import connect, one
from tasks.health import WELL, PipelineHealth, health_of

#: What the events name: ``prescore.pipeline.churn``.
RESOURCE = "prescore.pipeline."
STALE, HELD, RECOVERED, RETRAIN = "prescore.stale", "prescore.held", "prescore.recovered", "prescore.retrain"

_PUBLISHED, _HELD, _SKIPPED = "published", "held", "skipped"
#: Ends of a run that leave what was served before to age.
_NOT_PUBLISHED = frozenset({"held", "aborted", "failed"})


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    status: str
    run_id: int | None = None
    #: What has to happen next by its checks.
    followups: Sequence[str] = ()
    #: Code and label of the checks that warn or fail.
    checks: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What readers are told of a pipeline at one moment; ``health`` is None while nothing ever ran."""

    health: PipelineHealth | None = None
    #: A version that is newer than the one served and was never in use: it waits for somebody to promote it.
    waiting: int | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something to tell."""

    name: str
    pipeline: str
    payload: dict[str, Any] = field(default_factory=dict)

    @property
    def resource(self) -> dict[str, str]:
        """Return what it is about, as Prefect labels it."""
        return {"prefect.resource.id": RESOURCE + self.pipeline, "prefect.resource.name": self.pipeline}


def see(url: str, pipeline: str) -> Seen:
    """Return what readers are told of a pipeline now."""
    with connect(url, "prescore events") as connection:
        found = health_of(connection, pipeline)
        if not found:
            return Seen()
        waiting = one(connection, "find_waiting_version", pipeline=pipeline)
        return Seen(health=found[0], waiting=None if waiting is None else waiting.version)


def follow(pipeline: str, before: Seen, after: Seen, ended: Ended) -> list[Event]:
    """Return the events that follow from a run, in the order in which they are to be sent.

    held: the run was held. stale: what is served is beyond its promise, a schedule is overdue, or the run did not publish
    while what is served is aging. recovered: the first publication that is well after one of these. retrain: a check asks
    for a new version, once when it begins to and then with the first run of each day (UTC), while no version waits for
    promotion. A run that was skipped says nothing: the one that it met will.
    """
    if ended.status == _SKIPPED or after.health is None:
        return []
    names = _names(before, after.health, ended, after.waiting)
    payload = _payload(before.health, after.health, ended)
    return [Event(name=name, pipeline=pipeline, payload=payload) for name in names]


def _names(before: Seen, health: PipelineHealth, ended: Ended, waiting: int | None) -> Iterator[str]:
    if ended.status == _HELD:
        yield HELD
    if _bad(health) or (ended.status in _NOT_PUBLISHED and health.state == "aging"):
        yield STALE
    if ended.status == _PUBLISHED and health.well and _was_bad(before.health):
        yield RECOVERED
    if "retrain" in ended.followups and waiting is None and _asks_anew(before.health, health.last_run_at):
        yield RETRAIN


def _bad(health: PipelineHealth) -> bool:
    """Before the first publication nothing is served that could go stale."""
    return health.overdue or (health.state not in WELL and health.generation_id is not None)


def _was_bad(before: PipelineHealth | None) -> bool:
    return before is not None and (_bad(before) or before.last_run_status in {"held", "aborted"})


def _asks_anew(before: PipelineHealth | None, begun: datetime | None) -> bool:
    """Whether the check begins to ask, or this is the first run of a day: an event may get lost, and one a run is too many."""
    if before is None or "retrain" not in before.followups or before.last_run_at is None or begun is None:
        return True
    return begun.date() != before.last_run_at.date()


def _payload(before: PipelineHealth | None, after: PipelineHealth, ended: Ended) -> dict[str, Any]:
    def written(instant: datetime | None) -> str | None:
        return None if instant is None else instant.isoformat()

    return {
        "pipeline": after.pipeline,
        "run_id": ended.run_id,
        "status": ended.status,
        "state": after.state,
        "state_before": None if before is None else before.state,
        "state_since": written(after.state_since),
        "overdue": after.overdue,
        "overdue_since": written(after.overdue_since),
        "age_seconds": None if after.age is None else after.age.total_seconds(),
        "stale_at": written(after.stale_at),
        "expires_at": written(after.expires_at),
        "generation_id": after.generation_id,
        "model": after.model,
        "model_version": after.model_version,
        "followups": list(ended.followups),
        "checks": list(ended.checks),
    }
