"""Going back: head returns to the previous storage as it stood when it was retired, at once and without scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tasks import row_history
from tasks.announcements import Event, announce
from tasks.database import connect, load_query, one, rows
from tasks.errors import PrescoreError
from tasks.runs import hold_lock
from tasks.transport import quoted_table


class NothingToReturnTo(PrescoreError):
    """A rollback has no previous publication."""

    def __init__(self, pipeline: str) -> None:
        self.pipeline = pipeline
        super().__init__(
            f"{pipeline} has no previous publication to return to: a rollback goes back to before the last full run, once. "
            "Nothing was changed. Promote an earlier model version and run `prescore score` instead."
        )


class PreviousQuarantined(PrescoreError):
    """The previous publication was found bad."""

    def __init__(self, pipeline: str, generation_id: int) -> None:
        self.pipeline, self.generation_id = pipeline, generation_id
        super().__init__(
            f"The publication of {pipeline} that a rollback would return to rests on generation {generation_id}, which is "
            "quarantined. Nothing was changed; what is served stays. Run "
            f"`prescore score {pipeline} --full`, or take the quarantine back: `prescore quarantine {pipeline} "
            f"{generation_id} --release`."
        )


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """What a rollback returned to, and what it undid."""

    pipeline: str
    generation_id: int
    model: str
    model_version: int
    undone: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Previous:
    """The storage that head can return to."""

    storage_id: int
    #: Last generation that was published into it.
    generation_id: int
    #: The full run that filled it.
    base: int
    #: That run was found bad after publication.
    quarantined: bool


def rollback(url: str, pipeline: str) -> RolledBack:
    """Return head, watermark and the model alias to the previous storage, without scoring, and pin the pipeline.

    Raises
    ------
    RunInProgress, NothingToReturnTo, PreviousQuarantined
    """
    from tasks import registry

    with hold_lock(url, pipeline) as connection:
        one(connection, "lock_head", pipeline=pipeline)  # a quarantine waits, and sees what was decided here
        previous = find_previous(connection, pipeline)
        if previous is None:
            raise NothingToReturnTo(pipeline)
        if previous.quarantined:
            raise PreviousQuarantined(pipeline, previous.base)
        undone = return_to(connection, pipeline, previous)
        head = one(connection, "find_head", pipeline=pipeline)
        alias = one(connection, "find_pipeline_alias", pipeline=pipeline)
        because = f"rolled back to generation {previous.generation_id}"
        connection.execute(sa.text(load_query("pin_pipeline")), {"pipeline": pipeline, "because": because})
        current = registry.current_alias(connection, alias.model, alias.alias)
        if alias.model == head.model and (current is None or current.version != head.model_version):
            words = f"{pipeline} {because}"
            registry.promote(connection, alias.model, head.model_version, alias.alias, words, went_back=True)
        announce(connection, pipeline, Event.ROLLED_BACK)
        connection.commit()
        return RolledBack(
            pipeline=pipeline,
            generation_id=previous.generation_id,
            model=head.model,
            model_version=head.model_version,
            undone=undone,
        )


def resume(url: str, pipeline: str) -> bool:
    """Welcome runs again after a rollback; False when the pipeline was not pinned."""
    with connect(url) as connection:
        found = one(connection, "unpin_pipeline", pipeline=pipeline)
        connection.commit()
        return found is not None


def find_previous(connection: sa.Connection, pipeline: str) -> Previous | None:
    """Return the storage that head can return to, or None when there is none."""
    found = one(connection, "find_storage", pipeline=pipeline, role="previous")
    if found is None or found.generation_id is None:
        return None
    base = one(
        connection,
        "find_base_generation",
        pipeline=pipeline,
        storage_id=found.storage_id,
        generation_id=found.generation_id,
    )
    return Previous(
        storage_id=found.storage_id,
        generation_id=found.generation_id,
        base=base.generation_id,
        quarantined=base.quarantined_at is not None,
    )


def return_to(
    connection: sa.Connection, pipeline: str, previous: Previous, added: Sequence[str] = ()
) -> tuple[int, ...]:
    """Move head back in the open transaction, and return the generations that this undoes, oldest first.

    Rows of quarantined generations that the previous storage holds stay hidden. ``added`` are reasons that readers are shown
    beside those of the publication.
    """
    connection.execute(sa.text(load_query("restore_storages")), {"pipeline": pipeline})
    hidden = quarantined_in(connection, pipeline, previous.storage_id)
    move_head(connection, pipeline, previous.generation_id, hidden, added)
    row_history.note_rollback(connection, pipeline)
    undone = rows(connection, "undo_generations", pipeline=pipeline, generation_id=previous.generation_id)
    return tuple(row.generation_id for row in undone)


def quarantined_in(connection: sa.Connection, pipeline: str, storage_id: int, known: Sequence[int] = ()) -> list[int]:
    """Return the quarantined generations whose rows a storage holds; ``known`` are further ones that head hides."""
    storage = quoted_table("prescore_rows", f"{pipeline}_{storage_id}")
    statement = load_query("list_quarantined_rows", {"storage": storage})
    values = {"pipeline": pipeline, "storage_id": storage_id, "known": list(known)}
    found: Any = connection.execute(sa.text(statement), values)
    return [row.generation_id for row in found]


def move_head(
    connection: sa.Connection, pipeline: str, generation_id: int, quarantined: Sequence[int], added: Sequence[str] = ()
) -> None:
    """Let readers see a generation from the end of the transaction on."""
    values = {
        "pipeline": pipeline,
        "generation_id": generation_id,
        "quarantined": list(quarantined),
        "added": list(added),
    }
    connection.execute(sa.text(load_query("move_head")), values)
