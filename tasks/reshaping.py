"""Other outputs than before: added in place by the run that needs them, removed or retyped by a person.

What is added only makes the views wider at their end: what others built on them stays, and nobody loses a right. What is
removed or gets another type makes the views anew: readers would lose columns, so that no run does it by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg2
import sqlalchemy as sa

from tasks.announcements import Event, announce
from tasks.belongings import Belonging, DependentsInTheWay, belongings, dependents
from tasks.columns import Column
from tasks.database import load_query, quote, raw_execute
from tasks.errors import PrescoreError
from tasks.grants import Grant, give, read_grants
from tasks.readers import (
    PROVENANCE,
    REPLACE_LOCK_TIMEOUT,
    Objects,
    comment,
    comment_on_outputs,
    define,
    record_objects,
)

if TYPE_CHECKING:
    from tasks.pipeline import Pipeline

# How often the locks of a change are tried for, and seconds between two attempts: each holds readers up for a moment only.
ATTEMPTS, PAUSE = 300, 0.1
# lock_not_available; deadlock_detected: a reader held what we wanted and wanted what we held.
_BUSY = frozenset({"55P03", "40P01"})


class OutputsDiffer(PrescoreError):
    """Readers of a pipeline would lose columns, or find another type in them."""

    def __init__(self, pipeline: str, differences: list[str]) -> None:
        self.pipeline, self.differences = pipeline, differences
        super().__init__(
            f"predictions.{pipeline} was made for other outputs: {'; '.join(differences)}. Nothing was scored; what was "
            "published is still served. Restore the declaration, or let readers lose these columns: "
            f"`prescore outputs {pipeline}` shows what would follow, with --apply it is done."
        )


class KeyDiffers(PrescoreError):
    """A pipeline's objects were made for another key."""

    def __init__(self, pipeline: str, differences: list[str]) -> None:
        self.pipeline, self.differences = pipeline, differences
        super().__init__(
            f"predictions.{pipeline} was made for another key: {'; '.join(differences)}. Nothing was scored; what was published "
            "is still served. Rows of another key are other rows: restore the declaration; or declare the new key under a "
            f"pipeline name of its own and move readers to it; or give up what is there (`prescore drop {pipeline}`, or `prescore "
            f"rename {pipeline} NAME` to keep it) and score anew."
        )


class ReadersInTheWay(PrescoreError):
    """Open transactions of readers held a pipeline's views or rows all the time."""

    def __init__(self, pipeline: str, what: str) -> None:
        self.pipeline = pipeline
        super().__init__(
            f"{what} of predictions.{pipeline} needs its views and rows to itself for a moment, and open transactions of readers "
            f"held them for {ATTEMPTS * PAUSE:.0f} seconds. Nothing was changed; what was published is still served. End long "
            "transactions that read it (pg_stat_activity lists them), and run again."
        )


@dataclass(frozen=True, kw_only=True)
class Change:
    """What differs between the objects that are there and those that are declared."""

    before: Objects
    after: Objects
    #: Sentences about the key; empty when it is the same.
    key: tuple[str, ...]
    added: tuple[Column, ...]
    removed: tuple[Column, ...]
    #: As it was, as it is declared now.
    retyped: tuple[tuple[Column, Column], ...]

    @property
    def added_names(self) -> list[str]:
        """Names of the outputs that are new."""
        return [column.name for column in self.added]

    @property
    def is_nothing(self) -> bool:
        """Whether the objects are as declared."""
        return not (self.key or self.added or self.removed or self.retyped)

    def refuse(self) -> None:
        """Refuse what a run must not do by itself.

        Raises
        ------
        KeyDiffers, OutputsDiffer
        """
        if self.key:
            raise KeyDiffers(self.after.pipeline, list(self.key))
        lost = [f"output {column.name} is no longer declared" for column in self.removed]
        lost += [
            f"output {after.name} was {before.postgres_type}, is {after.postgres_type}"
            for before, after in self.retyped
        ]
        if lost:
            raise OutputsDiffer(self.after.pipeline, lost)


def compare(before: Objects, declared: Objects) -> Change:
    """Return what differs; ``after`` has the declared outputs in the order that the views can have them in."""
    there = {column.name: column for column in before.outputs}
    wanted = {column.name: column for column in declared.outputs}
    added = tuple(column for column in declared.outputs if column.name not in there)
    kept = tuple(wanted[column.name] for column in before.outputs if column.name in wanted)
    return Change(
        before=before,
        after=replace(declared, outputs=(*kept, *added)),
        key=tuple(_key_differences(before.key, declared.key)),
        added=added,
        removed=tuple(column for column in before.outputs if column.name not in wanted),
        retyped=tuple(
            (column, wanted[column.name])
            for column in before.outputs
            if column.name in wanted and wanted[column.name].postgres_type != column.postgres_type
        ),
    )


def add_outputs(connection: sa.Connection, change: Change, comments: Mapping[str, str], pipeline: Pipeline) -> None:
    """Add outputs at the end of a pipeline's rows, views and lookup function, in one transaction.

    Rows that are there have NULL in them until they are scored again, and readers are told so in ``reasons``.

    Raises
    ------
    ReadersInTheWay
    """

    def add() -> None:
        for column in change.added:
            fragments = {"table": change.after.rows, "column": quote(column.name), "type": column.postgres_type}
            raw_execute(connection, load_query("add_output", fragments))
        define(connection, change.after)
        comment_on_outputs(connection, pipeline, change.after, change.added, comments)
        record_objects(connection, change.after)
        tell_readers(connection, change.after.pipeline, change.added_names)
        announce(connection, change.after.pipeline, Event.RESHAPED)

    patiently(connection, change.after.pipeline, f"Adding {', '.join(change.added_names)}", add)


def reshape(connection: sa.Connection, change: Change, comments: Mapping[str, str], pipeline: Pipeline) -> list[str]:
    """Give a pipeline the outputs that are declared, in one transaction; return rights on columns that are gone with them.

    Views and functions are made anew, with the rights that they had, where an output is removed or has another type; otherwise
    outputs are added in place. An output of another type starts as a new one does: NULL until it is scored. The caller holds
    the lock of the pipeline.

    Raises
    ------
    KeyDiffers
    DependentsInTheWay
        Naming what others built on the views; nothing is changed then.
    ReadersInTheWay
    """
    if change.key:
        raise KeyDiffers(change.after.pipeline, list(change.key))
    if not (change.removed or change.retyped):
        if change.added:
            add_outputs(connection, change, comments, pipeline)
        return []
    before, after = change.before, change.after
    there = belongings(connection, before)
    in_the_way = dependents(connection, there)
    if in_the_way:
        raise DependentsInTheWay(after.pipeline, "Making its views anew", in_the_way)
    tables = [each.name for each in there if each.kind == "table"]
    made_anew = [each for each in there if each.kind != "table"]
    rights = _rights(connection, made_anew)
    keeps = before.history in tables
    fresh = [*change.added, *(column for _, column in change.retyped)]
    lost: list[str] = []
    connection.rollback()

    def make_anew() -> None:
        for each in made_anew:
            raw_execute(connection, load_query("drop_object", {"kind": each.kind.upper(), "name": each.name}))
        for table in tables:
            for column in (*change.removed, *(column for column, _ in change.retyped)):
                raw_execute(connection, load_query("remove_output", {"table": table, "column": quote(column.name)}))
            for column in fresh:
                fragments = {"table": table, "column": quote(column.name), "type": column.postgres_type}
                raw_execute(connection, load_query("add_output", fragments))
        define(connection, replace(after, keeps_history=keeps))
        comment(connection, pipeline, after, comments)
        names = {each.name for each in made_anew}
        again = [each for each in belongings(connection, after) if each.name in names]
        columns = {column.name for column in (*after.key, *after.outputs)} | set(PROVENANCE)
        kept = {target: given for target, given in rights.items() if target in {_target(each) for each in again}}
        lost[:] = give(connection, kept, _rights(connection, again), columns)
        record_objects(connection, after)
        if fresh:
            tell_readers(connection, after.pipeline, [column.name for column in fresh])
        announce(connection, after.pipeline, Event.RESHAPED)

    patiently(connection, after.pipeline, "Making the views anew", make_anew)
    return lost


def _rights(connection: sa.Connection, objects: Sequence[Belonging]) -> dict[str, tuple[Grant, ...]]:
    found = read_grants(
        connection,
        relations=[each.oid for each in objects if each.kind != "function"],
        functions=[each.oid for each in objects if each.kind == "function"],
    )
    return {_target(each): found[each.oid] for each in objects}


def _target(belonging: Belonging) -> str:
    """What GRANT calls it."""
    return f"FUNCTION {belonging.name}" if belonging.kind == "function" else belonging.name


def tell_readers(connection: sa.Connection, pipeline: str, outputs: list[str]) -> None:
    """Tell readers of what is served that outputs are NULL for now, in the open transaction."""
    are = "is" if len(outputs) == 1 else "are"
    reason = f"outputs: {', '.join(outputs)} {are} new, and NULL until the next full run"
    connection.execute(sa.text(load_query("add_reason")), {"pipeline": pipeline, "reason": reason})


def patiently(connection: sa.Connection, pipeline: str, what: str, action: Callable[[], None]) -> None:
    """Do something that needs views and rows to itself in a transaction, and commit; readers wait for a moment at most.

    ``what`` begins the sentence of a refusal. Whatever ``action`` raises but for a lock that is taken ends it, rolled back.

    Raises
    ------
    ReadersInTheWay
    """
    for _ in range(ATTEMPTS):
        try:
            raw_execute(connection, f"SET LOCAL lock_timeout = '{REPLACE_LOCK_TIMEOUT}'")
            action()
            connection.commit()
        except (psycopg2.Error, sa.exc.DBAPIError) as error:
            cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            connection.rollback()
            if getattr(cause, "pgcode", None) not in _BUSY:
                raise
            time.sleep(PAUSE)
        except BaseException:
            connection.rollback()
            raise
        else:
            return
    raise ReadersInTheWay(pipeline, what)


def _key_differences(before: Sequence[Column], declared: Sequence[Column]) -> list[str]:
    was = {column.name: column.postgres_type for column in before}
    now = {column.name: column.postgres_type for column in declared}
    lost = [f"key {name} is no longer declared" for name in was if name not in now]
    fresh = [f"key {name} is new" for name in now if name not in was]
    retyped = [
        f"key {name} was {was[name]}, is {kind}" for name, kind in now.items() if name in was and was[name] != kind
    ]
    moved = [] if lost or fresh or list(was) == list(now) else ["the order of the key columns differs"]
    return lost + fresh + retyped + moved
