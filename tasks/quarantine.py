"""Quarantine: a generation that was found bad after publication is hidden from every reader in one UPDATE of head.

A full one also gives way to the publication before it, as long as that may still be used. Nothing is pinned and no alias
moves: a bad generation is to be mended, and the next run does so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from tasks import row_history
from tasks.announcements import Event, announce
from tasks.database import clock, connect, load_query, one, rows
from tasks.errors import PrescoreError, UsageError
from tasks.population import Mode
from tasks.rollback import Previous, find_previous, return_to
from tasks.settings import os_user
from tasks.transport import quoted_table

# Readers see the reason in each hidden row.
MOST_CHARACTERS = 500
# Publications that a refusal names.
NAMED = 5


class Effect(StrEnum):
    """What a quarantine did to readers."""

    #: A full generation: readers see the publication before it.
    ROLLED_BACK = "rolled_back"
    #: Rows of the generation have no prediction until the next run has scored them again.
    MASKED = "masked"
    #: No row that is served was scored in it.
    UNSEEN = "unseen"


class UnknownGeneration(PrescoreError):
    """No publication of this pipeline has the number."""

    def __init__(self, pipeline: str, generation_id: int, known: list[int]) -> None:
        self.pipeline, self.generation_id = pipeline, generation_id
        there = f"Its latest are {', '.join(map(str, known))}." if known else "Nothing of it was published here yet."
        super().__init__(
            f"{pipeline} has no generation {generation_id}. Nothing was changed. {there} `scored_in` of a row, and "
            "`prescore status`, name the generation."
        )


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """What a quarantine did."""

    pipeline: str
    generation_id: int
    mode: Mode
    effect: Effect
    because: str
    quarantined_at: datetime
    quarantined_by: str
    #: It was in quarantine before; nothing was changed now.
    already: bool
    #: Rows without a prediction from now on.
    masked: int
    #: Generation that is served instead; None unless rolled back.
    returned_to: int | None
    undone: tuple[int, ...]
    #: Why a full generation was masked, not rolled back; empty otherwise.
    kept_because: str
    model: str
    model_version: int
    #: Version that the next run scores with; None when the alias names none.
    next_version: int | None


@dataclass(frozen=True, kw_only=True)
class Released:
    """What the end of a quarantine did."""

    pipeline: str
    generation_id: int
    #: False when it was not in quarantine; nothing was changed then.
    released: bool
    #: Rows that have their prediction again.
    shown: int
    #: Its rows were given up by a rollback, so readers go on with what is served.
    undone: bool


def quarantine(url: str, pipeline: str, generation_id: int, because: str) -> Quarantined:
    """Hide a generation from readers at once; a second time changes nothing.

    It needs no lock of the pipeline, so it works beside a run: one that publishes later keeps the rows hidden unless it scored
    them again, and one that began on a generation which is no longer served may not publish.

    Raises
    ------
    UsageError
        Without a reason, or with one longer than ``MOST_CHARACTERS``.
    UnknownGeneration
    """
    because = _checked(because)
    with connect(url) as connection:
        # The row of head first: whoever publishes or rolls back waits here, or this does for them.
        head = one(connection, "lock_head", pipeline=pipeline)
        found = _find(connection, pipeline, generation_id)
        if found.because is not None:
            return _told(connection, found, already=True)
        effect, previous, kept_because = _effect(connection, head, found)
        undone: tuple[int, ...] = ()
        values = {
            "pipeline": pipeline,
            "generation_id": generation_id,
            "because": because,
            "effect": effect.value,
            "returned_to": None if previous is None else previous.generation_id,
            "os_user": os_user(),
        }
        one(connection, "insert_quarantine", **values)
        connection.execute(sa.text(load_query("mark_quarantined")), {"generation_id": generation_id, "is_bad": True})
        if previous is not None:
            undone = return_to(
                connection, pipeline, previous, [f"quarantine: generation {generation_id} was found bad: {because}"]
            )
        elif effect is Effect.MASKED:
            connection.execute(
                sa.text(load_query("mask_generation")),
                {"pipeline": pipeline, "generation_id": generation_id, "because": because},
            )
            row_history.note_head(connection, pipeline)
        announce(connection, pipeline, Event.QUARANTINED, quarantined=generation_id)
        connection.commit()
        found = _find(connection, pipeline, generation_id)
        return _told(connection, found, already=False, undone=undone, kept_because=kept_because)


def release(url: str, pipeline: str, generation_id: int, because: str | None = None) -> Released:
    """Take a quarantine back: rows that are still served show their predictions again.

    Raises
    ------
    UsageError, UnknownGeneration
    """
    because = None if because is None else _checked(because)
    with connect(url) as connection:
        head = one(connection, "lock_head", pipeline=pipeline)
        found = _find(connection, pipeline, generation_id)
        undone = found.undone_at is not None
        if found.because is None:
            return Released(pipeline=pipeline, generation_id=generation_id, released=False, shown=0, undone=undone)
        values = {"quarantine_id": found.quarantine_id, "because": because, "os_user": os_user()}
        connection.execute(sa.text(load_query("release_quarantine")), values)
        connection.execute(sa.text(load_query("mark_quarantined")), {"generation_id": generation_id, "is_bad": False})
        unmasked = one(connection, "unmask_generation", pipeline=pipeline, generation_id=generation_id)
        if unmasked is not None:
            row_history.note_head(connection, pipeline)
        announce(connection, pipeline, Event.RELEASED, released=generation_id)
        connection.commit()
        shown = 0 if unmasked is None else _count(connection, pipeline, head.storage_id, generation_id)
        return Released(pipeline=pipeline, generation_id=generation_id, released=True, shown=shown, undone=undone)


def _checked(because: str) -> str:
    words = " ".join(because.split())
    if not words or len(words) > MOST_CHARACTERS:
        raise UsageError(
            f"The reason has {len(words):,} characters. Nothing was changed. Say in 1 to {MOST_CHARACTERS} what is wrong: "
            "readers see it in the rows that are hidden."
        )
    return words


def _find(connection: sa.Connection, pipeline: str, generation_id: int) -> Any:
    found = one(connection, "find_publication", generation_id=generation_id)
    if found is None or found.pipeline != pipeline:
        known = rows(connection, "list_generations", pipeline=pipeline, most=NAMED)
        raise UnknownGeneration(pipeline, generation_id, [row.generation_id for row in known])
    return found


def _effect(connection: sa.Connection, head: Any, found: Any) -> tuple[Effect, Previous | None, str]:
    """Decide what a quarantine does to readers; a full generation that cannot give way says why."""
    if head.storage_id != found.storage_id or not _is_there(connection, found):
        return Effect.UNSEEN, None, ""
    if found.mode != Mode.FULL:
        return Effect.MASKED, None, ""
    previous = find_previous(connection, found.pipeline)
    kept_because = _no_return(connection, previous)
    if kept_because:
        return Effect.MASKED, None, kept_because
    return Effect.ROLLED_BACK, previous, ""


def _no_return(connection: sa.Connection, previous: Previous | None) -> str:
    """Say why readers gain nothing from the previous publication, or nothing when they do."""
    if previous is None:
        return "there is no publication before it to return to"
    if previous.quarantined:
        return f"the publication before it, generation {previous.base}, is quarantined too"
    before = one(connection, "find_publication", generation_id=previous.generation_id)
    if before.expires_at <= clock(connection) and not before.serve_expired:
        return f"the publication before it, generation {previous.generation_id}, has expired"
    return ""


def _is_there(connection: sa.Connection, found: Any) -> bool:
    statement = load_query("has_rows_of_generation", {"storage": _storage(found.pipeline, found.storage_id)})
    there: bool = connection.execute(sa.text(statement), {"generation_id": found.generation_id}).scalar_one()
    return there


def _count(connection: sa.Connection, pipeline: str, storage_id: int, generation_id: int) -> int:
    statement = load_query("count_rows_of_generation", {"storage": _storage(pipeline, storage_id)})
    count: int = connection.execute(sa.text(statement), {"generation_id": generation_id}).scalar_one()
    return count


def _storage(pipeline: str, storage_id: int) -> str:
    return quoted_table("prescore_rows", f"{pipeline}_{storage_id}")


def _told(
    connection: sa.Connection, found: Any, *, already: bool, undone: tuple[int, ...] = (), kept_because: str = ""
) -> Quarantined:
    alias = one(connection, "find_pipeline_alias", pipeline=found.pipeline)
    current = one(connection, "find_aliased_version", model=alias.model, alias=alias.alias, at=None)
    masked = 0
    if found.effect == Effect.MASKED:
        masked = _count(connection, found.pipeline, found.storage_id, found.generation_id)
    return Quarantined(
        pipeline=found.pipeline,
        generation_id=found.generation_id,
        mode=Mode(found.mode),
        effect=Effect(found.effect),
        because=found.because,
        quarantined_at=found.quarantined_at,
        quarantined_by=found.quarantined_by,
        already=already,
        masked=masked,
        returned_to=found.returned_to,
        undone=undone,
        kept_because=kept_because,
        model=found.model,
        model_version=found.model_version,
        next_version=None if current is None else current.version,
    )
