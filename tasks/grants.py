"""Who may read what: the rights on a pipeline's views and functions, kept where one of them has to be made anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tasks.database import load_query, quote, raw_execute, rows


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A right that a role has on an object, or on a column of it."""

    #: Quoted, or PUBLIC.
    grantee: str
    #: SELECT, EXECUTE and the like.
    privilege: str
    #: None for the whole object.
    column: str | None
    #: Whether the role may hand it on.
    grantable: bool


def read_grants(
    connection: sa.Connection, *, relations: Sequence[int] = (), functions: Sequence[int] = ()
) -> dict[int, tuple[Grant, ...]]:
    """Return the rights on objects by their oid, those of the owner aside."""
    found: dict[int, list[Grant]] = {oid: [] for oid in (*relations, *functions)}
    for row in rows(connection, "list_grants", relations=list(relations), functions=list(functions)):
        grant = Grant(
            grantee=row.grantee, privilege=row.privilege, column=row.column_name, grantable=bool(row.grantable)
        )
        found[row.object].append(grant)
    return {oid: tuple(grants) for oid, grants in found.items()}


def give(
    connection: sa.Connection,
    wanted: Mapping[str, Sequence[Grant]],
    there: Mapping[str, Sequence[Grant]],
    columns: set[str],
) -> list[str]:
    """Give new objects the rights that their predecessors had, and no others; return the rights on columns that are gone.

    Parameters
    ----------
    wanted, there
        Rights by object, as GRANT writes it: ``predictions."churn"`` or ``FUNCTION predictions."churn_for"(bigint, interval)``.
    columns
        Columns that the new objects have.
    """
    lost: list[str] = []
    for target, grants in wanted.items():
        if set(grants) == set(there.get(target, ())):
            continue
        for grantee in sorted({grant.grantee for grant in there.get(target, ())}):
            raw_execute(connection, load_query("revoke_all", {"object": target, "grantee": grantee}))
        for grant in grants:
            if grant.column is not None and grant.column not in columns:
                lost.append(f"{grant.privilege} ({grant.column}) for {grant.grantee}")
                continue
            on_column = "" if grant.column is None else f" ({quote(grant.column)})"
            fragments = {
                "privilege": grant.privilege + on_column,
                "object": target,
                "grantee": grant.grantee,
                "option": " WITH GRANT OPTION" if grant.grantable else "",
            }
            raw_execute(connection, load_query("grant", fragments))
    return lost
