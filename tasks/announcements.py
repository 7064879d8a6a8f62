"""What listening applications are told: one notification for each change of what readers see, delivered with its commit."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from tasks.database import load_query, one

#: The channel: ``LISTEN prescore``.
CHANNEL = "prescore"


class Event(StrEnum):
    """What happened to what readers see."""

    #: A run published a generation.
    PUBLISHED = "published"
    #: A rollback returned to the generation before.
    ROLLED_BACK = "rolled_back"
    #: A generation was found bad and hidden, or gave way to the one before.
    QUARANTINED = "quarantined"
    #: A quarantine was taken back.
    RELEASED = "released"
    #: The row of an entity was erased.
    ERASED = "erased"
    #: Outputs were added, removed or got another type.
    RESHAPED = "reshaped"
    #: The pipeline has another name now.
    RENAMED = "renamed"
    #: The pipeline was removed.
    DROPPED = "dropped"


def announce(connection: sa.Connection, pipeline: str, event: Event, **further: Any) -> None:
    """Tell who listens, in the open transaction: it is sent when that commits, and never when it is rolled back.

    The payload is one JSON object: ``event``, ``pipeline``, and of what is served then ``generation_id``, ``published_at``,
    ``as_of``, ``data_as_of``, ``rows``, ``model_version``; ``further`` is added. It stays far below the 8,000 bytes that
    PostgreSQL sends: names have 40 signs at most, and nothing in it is of any other length.
    """
    head = one(connection, "find_head", pipeline=pipeline)
    told: dict[str, Any] = {"event": event.value, "pipeline": pipeline, **further}
    if head is not None:
        told |= {
            "generation_id": head.generation_id,
            "published_at": head.published_at.isoformat(),
            "as_of": head.as_of.isoformat(),
            "data_as_of": head.data_as_of.isoformat(),
            "rows": head.rows,
            "model_version": head.model_version,
        }
    payload = json.dumps(told, separators=(",", ":"))
    connection.execute(sa.text(load_query("notify_readers")), {"channel": CHANNEL, "payload": payload})
