"""The end of a pipeline: everything of it leaves the database in one transaction, and its name can be used anew."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg2
import sqlalchemy as sa

from tasks.announcements import Event, announce
from tasks.belongings import (
    Belonging,
    Dependent,
    DependentsInTheWay,
    belongings,
    control_tables,
    dependents,
    mentions,
)
from tasks.database import load_query, one, raw_execute, rows
from tasks.readers import stored
from tasks.reshaping import patiently
from tasks.runs import hold_lock

_DEPENDENT_OBJECTS = "2BP01"


@dataclass(frozen=True, kw_only=True)
class ArchivePlace:
    """Where copies of publications are; they stay."""

    url: str
    generations: int
    bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What goes with a pipeline, and what stays."""

    pipeline: str
    #: False when the database knows nothing of it: there is nothing to remove.
    known: bool
    #: The pipeline that gave this name up; empty where the name is a pipeline's. Nothing but the name goes then.
    former_of: str = ""
    #: The pipelines that the database knows.
    pipelines: tuple[str, ...] = ()
    objects: tuple[Belonging, ...] = ()
    #: Rows of control tables, by the name of the table: runs, checks, samples and so on.
    records: tuple[tuple[str, int], ...] = ()
    generation_id: int | None = None
    served_rows: int = 0
    #: What others built on it: while there is any, nothing is removed.
    dependents: tuple[Dependent, ...] = ()
    #: Functions whose text names it; they would fail when called.
    mentions: tuple[str, ...] = ()
    archives: tuple[ArchivePlace, ...] = ()
    model: str = ""
    #: Versions of the model; they stay.
    versions: int = 0
    #: Other pipelines that use the model.
    sharing: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """What the rows take, indexes included."""
        return sum(each.bytes or 0 for each in self.objects)


def plan_removal(url: str, pipeline: str) -> Removal:
    """Return what would be removed; nothing is changed.

    Raises
    ------
    RunInProgress
    """
    with hold_lock(url, pipeline) as connection:
        return _plan(connection, pipeline)


def remove(url: str, pipeline: str) -> Removal:
    """Remove a pipeline in one transaction: views, functions, rows, runs, checks, samples, schedules, all that has its name.

    Model versions and archives stay. A second time there is nothing to remove.

    Raises
    ------
    RunInProgress
    DependentsInTheWay
        Naming what others built on it; nothing is removed then.
    ReadersInTheWay
    """
    with hold_lock(url, pipeline) as connection:
        plan = _plan(connection, pipeline)
        if not plan.known:
            return plan
        if plan.dependents:
            raise DependentsInTheWay(pipeline, "Dropping it", plan.dependents)
        tables = control_tables(connection)
        connection.rollback()

        def drop() -> None:
            for each in plan.objects:
                raw_execute(connection, load_query("drop_object", {"kind": each.kind.upper(), "name": each.name}))
            if plan.former_of:
                connection.execute(sa.text(load_query("free_former_name")), {"former": pipeline})
                return
            for table in tables:
                statement = load_query("delete_of_pipeline", {"table": table})
                connection.execute(sa.text(statement), {"pipeline": pipeline})
            announce(connection, pipeline, Event.DROPPED)

        try:
            patiently(connection, pipeline, "Dropping the views", drop)
        except psycopg2.Error as error:
            if error.pgcode != _DEPENDENT_OBJECTS:
                raise
            raise DependentsInTheWay(pipeline, "Dropping it", dependents(connection, plan.objects)) from error
        return plan


def _plan(connection: sa.Connection, pipeline: str) -> Removal:
    known: Any = one(connection, "find_registered", pipeline=pipeline)
    everything = tuple(row.pipeline for row in rows(connection, "list_pipelines"))
    if known is None:
        return _plan_former(connection, pipeline, everything)
    objects = stored(connection, pipeline)
    there = [] if objects is None else belongings(connection, objects)
    plan = Removal(
        pipeline=pipeline,
        known=True,
        pipelines=everything,
        objects=tuple(there),
        records=tuple(_records(connection, pipeline)),
        generation_id=known.generation_id,
        served_rows=known.rows or 0,
        dependents=tuple(dependents(connection, there)),
        mentions=tuple(mentions(connection, pipeline)),
        archives=archive_places(connection, pipeline),
        model=known.model,
        versions=known.versions,
        sharing=tuple(known.sharing),
    )
    connection.rollback()
    return plan


def _plan_former(connection: sa.Connection, name: str, everything: tuple[str, ...]) -> Removal:
    """Plan to set a name free that another pipeline had; views of that name go, the pipeline stays."""
    found = one(connection, "find_former_name", former=name)
    objects = None if found is None else stored(connection, found.pipeline)
    there: list[Belonging] = []
    if objects is not None and name in objects.former:
        own = objects.named(name)
        there = [each for each in belongings(connection, objects) if each.name in {own.signature, own.usable, own.view}]
    plan = Removal(
        pipeline=name,
        known=found is not None,
        former_of="" if found is None else found.pipeline,
        pipelines=everything,
        objects=tuple(there),
        dependents=tuple(dependents(connection, there)) if there else (),
    )
    connection.rollback()
    return plan


def archive_places(connection: sa.Connection, pipeline: str) -> tuple[ArchivePlace, ...]:
    """Return where copies of a pipeline's publications are."""
    return tuple(
        ArchivePlace(url=_bare(row.url), generations=row.generations, bytes=row.bytes)
        for row in rows(connection, "list_archive_places", pipeline=pipeline)
    )


def _records(connection: sa.Connection, pipeline: str) -> list[tuple[str, int]]:
    found = []
    for table in control_tables(connection):
        statement = sa.text(load_query("count_of_pipeline", {"table": table}))
        count = connection.execute(statement, {"pipeline": pipeline}).scalar_one()
        if count:
            found.append((table.removeprefix("prescore."), int(count)))
    return found


def _bare(url: str) -> str:
    """Return a URL without user and password."""
    return re.sub(r"//[^/@]*@", "//", url)
