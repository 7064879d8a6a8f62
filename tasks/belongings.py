"""What belongs to a pipeline in the database, and what of others rests on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

import sqlalchemy as sa

from tasks.database import rows
from tasks.errors import PrescoreError
from tasks.readers import Objects

# Names that a refusal lists.
NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Belonging:
    """A relation or function of a pipeline."""

    #: table, view or function.
    kind: str
    #: As SQL writes it: quoted, with its schema, functions with their types.
    name: str
    oid: int
    #: As PostgreSQL last estimated them; None but for tables.
    rows: int | None = None
    #: With indexes and partitions; None but for tables.
    bytes: int | None = None

    @property
    def shown(self) -> str:
        """As people write it."""
        return self.name.replace('"', "")


@dataclass(frozen=True, kw_only=True)
class Dependent:
    """Something of others that rests on a pipeline."""

    #: view, materialized view, function, table constraint and the like.
    kind: str
    identity: str

    def __str__(self) -> str:
        return f"{self.kind} {self.identity}"


class DependentsInTheWay(PrescoreError):
    """What others built on a pipeline would go with it."""

    def __init__(self, pipeline: str, what: str, dependents: Sequence[Dependent]) -> None:
        self.pipeline, self.dependents = pipeline, tuple(dependents)
        more = f" and {len(dependents) - NAMED} more" if len(dependents) > NAMED else ""
        super().__init__(
            f"{what} would take away what others built on {pipeline}: {', '.join(map(str, dependents[:NAMED]))}{more}. Nothing "
            "was changed; what was published is still served. Drop or change these first: `\\d+ NAME` in psql shows a view, "
            "`pg_get_functiondef` a function. prescore never removes what is not its own."
        )


def belongings(connection: sa.Connection, objects: Objects) -> list[Belonging]:
    """Return what is there of a pipeline, in an order in which it can be removed."""
    retired = [
        ("function", row.signature)
        for row in rows(connection, "list_retired_functions", names=[objects.pipeline, *objects.former])
    ]
    wanted = [*retired, *objects.made]
    found = rows(connection, "list_belongings", kinds=[kind for kind, _ in wanted], names=[name for _, name in wanted])
    return [Belonging(kind=row.kind, name=row.name, oid=row.oid, rows=row.rows, bytes=row.bytes) for row in found]


def dependents(connection: sa.Connection, objects: Sequence[Belonging]) -> list[Dependent]:
    """Return what of others rests on objects, and what rests on that."""
    found = rows(
        connection,
        "list_dependents",
        relations=[each.oid for each in objects if each.kind != "function"],
        functions=[each.oid for each in objects if each.kind == "function"],
    )
    return [Dependent(kind=row.kind, identity=row.identity) for row in found]


def mentions(connection: sa.Connection, pipeline: str) -> list[str]:
    """Return functions whose text names the pipeline's views: PostgreSQL does not know of them, they would fail when called."""
    pattern = rf'\mpredictions"?\s*\.\s*"?{pipeline}(_usable|_for|_history|_at|_backfill|_as_of)?\M'
    return [row.identity for row in rows(connection, "list_mentions", pattern=pattern)]


def control_tables(connection: sa.Connection) -> list[str]:
    """Return the control tables that have rows of pipelines, those that refer to others before them."""
    found = {row.name: row.parents for row in rows(connection, "list_pipeline_tables")}
    order = TopologicalSorter(
        {name: [parent for parent in parents if parent in found] for name, parents in found.items()}
    )
    return list(order.static_order())[::-1]
