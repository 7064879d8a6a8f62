"""Roles: who may read predictions, who operates a pipeline, who scores; each has what its work needs, and nothing else.

A *reader* has the views and functions of `predictions`, and the health of pipelines. An *operator* sees the records of runs
beside these, and may roll back, quarantine and resume; tables that hold keys of entities or models are closed to it. The
*scorer* owns the three schemas and reads the sources. Nobody is a superuser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg2
import sqlalchemy as sa

from tasks import usersql
from tasks.database import connect, load_query, one, quote, raw_execute, rows
from tasks.errors import PrescoreError, UsageError
from tasks.health import PipelineNeverRan
from tasks.pipeline import Pipeline
from tasks.readers import STORAGES, Objects
from tasks.transport import quoted_table

# How long making somebody the owner of a table waits for those who use it.
OWNER_LOCK_TIMEOUT = "5s"

#: Views of prescore that readers have: the health of pipelines.
HEALTH = ("pipeline_health",)
#: Tables of prescore that operators do not see: they hold keys and predictions of entities, or models.
CLOSED = frozenset({"erasures", "model_chunks", "prediction_samples", "rejections"})
#: What operators write: rollback, resume, quarantine and its release, with the history of what readers saw.
OPERATED = {
    "aliases": "INSERT, UPDATE",
    "generations": "UPDATE (undone_at, quarantined_at)",
    "head": "INSERT, UPDATE",
    "head_history": "INSERT, UPDATE",
    "lineages": "INSERT, UPDATE",
    "pipelines": "UPDATE (pinned_at, pinned_because)",
    "quarantines": "INSERT, UPDATE",
    "storages": "UPDATE",
}
_INSUFFICIENT_PRIVILEGE = "42501"
_SCHEMAS = ("prescore", "prescore_rows", "predictions")


class GrantRefused(PrescoreError):
    """PostgreSQL refused one of the statements."""

    def __init__(self, statement: str, reason: str) -> None:
        self.statement = statement
        super().__init__(
            f"PostgreSQL refuses `{statement}`: {reason}. Nothing was changed. Give the command as a role that owns prescore's "
            "schemas (for --scorer also the new owner's member, or a superuser once), or give what --dry-run prints to one."
        )


@dataclass(frozen=True, kw_only=True)
class Granted:
    """What was granted, or would be."""

    statements: tuple[str, ...]
    #: False when they were only printed.
    done: bool
    #: What is still to be done by somebody else, or is more than least privilege, in sentences.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Who shall have what."""

    readers: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    scorer: str | None = None
    #: Names of pipelines; none means all, and those to come.
    pipelines: tuple[str, ...] = ()


def grant(
    url: str, wanted: Wanted, declared: Sequence[Pipeline] = (), *, apart: bool = False, dry: bool = False
) -> Granted:
    """Give roles what they need, in one transaction; a second time changes nothing.

    Rights that other roles have stay. The named roles lose what they have of `prescore` and `prescore_rows` beyond their part.

    Parameters
    ----------
    declared
        The pipelines whose queries the scorer has to run.
    apart
        The sources are on another server: what is to be granted there is told only.
    dry
        Return the statements without running them.

    Raises
    ------
    UsageError
        Without a role, for a role that is not there or has two parts.
    PipelineNeverRan, GrantRefused
    """
    _require_roles(wanted)
    with _refusals(), connect(url, "prescore grant") as connection:
        _require_there(connection, wanted)
        statements = [*_statements(connection, wanted)]
        sources = [*_sources(connection, wanted.scorer, declared)] if wanted.scorer and not apart else []
        notes = [*_notes(connection, wanted)]
        connection.rollback()
        if dry:
            return Granted(statements=(*statements, *sources), done=False, notes=tuple(notes))
        raw_execute(connection, f"SET LOCAL lock_timeout = '{OWNER_LOCK_TIMEOUT}'")
        for statement in statements:
            try:
                raw_execute(connection, statement)
            except psycopg2.Error as error:
                connection.rollback()
                raise GrantRefused(
                    statement, str(error).strip().splitlines()[0].removeprefix("ERROR:").strip()
                ) from None
        given = [statement for statement in sources if _tried(connection, statement, notes)]
        connection.commit()
        if wanted.scorer is not None and not apart:
            notes += _beyond(connection, wanted.scorer, declared)
        if wanted.scorer is not None and apart:
            notes.append(
                "The sources are on another server: give the role that reads them SELECT there, and nothing else."
            )
    return Granted(statements=(*statements, *given), done=True, notes=tuple(notes))


@contextmanager
def _refusals() -> Iterator[None]:
    """Say it in words where the role may not even see what there is to be granted."""
    try:
        yield
    except sa.exc.ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise GrantRefused("SELECT", str(error.orig).strip().splitlines()[0]) from None


def share_with_operators(connection: sa.Connection, objects: Objects) -> None:
    """Let operators see which generation rows of a new pipeline were scored in, in the open transaction: nothing else of them.

    By default, PostgreSQL can share the tables of a schema that are made later, but not a column of them.
    """
    for row in rows(connection, "list_operators"):
        for statement in _of_rows(objects, row.role):
            raw_execute(connection, statement)


def _require_roles(wanted: Wanted) -> None:
    parts = [*wanted.readers, *wanted.operators, *([wanted.scorer] if wanted.scorer else [])]
    if not parts:
        raise UsageError(
            "No role is named. Nothing was changed. Name one: --reader analyst, --operator oncall, --scorer runner."
        )
    twice = sorted({role for role in parts if parts.count(role) > 1})
    if twice:
        raise UsageError(
            f"{', '.join(twice)} is named for two parts. Nothing was changed. Give each part a role of its own; an operator "
            "reads what a reader does."
        )


def _require_there(connection: sa.Connection, wanted: Wanted) -> None:
    for role in (*wanted.readers, *wanted.operators, *([wanted.scorer] if wanted.scorer else [])):
        if one(connection, "find_role", role=role) is None:
            raise UsageError(
                f"There is no role {role}. Nothing was changed. Create it: CREATE ROLE {quote(role)} LOGIN; its password is "
                "best set with \\password in psql, where no log sees it."
            )


def _notes(connection: sa.Connection, wanted: Wanted) -> Iterator[str]:
    for role in (*wanted.readers, *wanted.operators, *([wanted.scorer] if wanted.scorer else [])):
        found = one(connection, "find_role", role=role)
        if found.is_super:
            yield f"{role} is a superuser: no grant limits it."
        members = [row.role for row in rows(connection, "list_memberships", role=role)]
        owner = one(connection, "find_owner").owner
        if owner in members:
            yield f"{role} is a member of {owner}, which owns prescore's schemas, and has all that it has."


def _statements(connection: sa.Connection, wanted: Wanted) -> Iterator[str]:
    owner = one(connection, "find_owner").owner
    if wanted.scorer is not None:
        yield from _ownership(connection, wanted.scorer)
        owner = wanted.scorer
    pipelines = _objects(connection, wanted.pipelines)
    for role in (*wanted.readers, *wanted.operators):
        for schema in ("prescore", "prescore_rows"):
            yield _revoke("ALL", f"ALL TABLES IN SCHEMA {quote(schema)}", role)
            yield _revoke("ALL", f"ALL SEQUENCES IN SCHEMA {quote(schema)}", role)
        yield _revoke("ALL", "SCHEMA prescore_rows", role)
        yield _revoke("CREATE", "SCHEMA prescore, predictions", role)
        yield _grant("USAGE", "SCHEMA prescore, predictions", role)
        yield from _reading(connection, pipelines, wanted, owner, role)
        for view in HEALTH:
            yield _grant("SELECT", quoted_table("prescore", view), role)
    for role in wanted.operators:
        yield from _operating(connection, role)
        yield _grant("USAGE", "SCHEMA prescore_rows", role)
        for objects in _objects(connection, ()):
            yield from _of_rows(objects, role)


def _reading(
    connection: sa.Connection, pipelines: Sequence[Objects], wanted: Wanted, owner: str, role: str
) -> Iterator[str]:
    if not wanted.pipelines:
        yield _revoke("INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER", "ALL TABLES IN SCHEMA predictions", role)
        yield _grant("SELECT", "ALL TABLES IN SCHEMA predictions", role)
        yield _grant("EXECUTE", "ALL FUNCTIONS IN SCHEMA predictions", role)
        for privilege, kind in (("SELECT", "TABLES"), ("EXECUTE", "FUNCTIONS")):
            fragments = {"owner": quote(owner), "privilege": privilege, "kind": kind, "grantee": quote(role)}
            yield load_query("grant_by_default", fragments)
        return
    made = [each for objects in pipelines for each in objects.made if each[0] in {"view", "function"}]
    for kind, name in made:
        if not one(connection, "is_made", kind=kind, name=name).there:
            continue  # such as the history of a pipeline that keeps none
        if kind == "view":
            yield _grant("SELECT", name, role)
        else:
            yield _grant("EXECUTE", f"FUNCTION {name}", role)


def _operating(connection: sa.Connection, role: str) -> Iterator[str]:
    there = [row.name for row in rows(connection, "list_control_relations")]
    for name in there:
        if name not in CLOSED:
            yield _grant("SELECT", quoted_table("prescore", name), role)
    for name, privilege in OPERATED.items():
        yield _grant(privilege, quoted_table("prescore", name), role)


def _of_rows(objects: Objects, role: str) -> Iterator[str]:
    for storage_id in STORAGES:
        yield _grant("SELECT (scored_in)", objects.storage(storage_id), role)


def _ownership(connection: sa.Connection, scorer: str) -> Iterator[str]:
    for row in rows(connection, "list_owned", role=scorer):
        fragments = {"object": f"{row.kind} {row.name}", "owner": quote(scorer)}
        yield load_query("change_owner", fragments)


def _sources(connection: sa.Connection, scorer: str, declared: Sequence[Pipeline]) -> Iterator[str]:
    """Yield what the scorer needs to read the sources; who may grant it is their owner."""
    yield load_query("join_role", {"role": "pg_read_all_stats", "grantee": quote(scorer)})
    found = _source_tables(connection, declared)
    for schema in sorted({schema for schema, _ in found}):
        yield _grant("USAGE", f"SCHEMA {quote(schema)}", scorer)
    for schema, table in found:
        yield _grant("SELECT", quoted_table(schema, table), scorer)


def _source_tables(connection: sa.Connection, declared: Sequence[Pipeline]) -> list[tuple[str, str]]:
    names: set[tuple[str | None, str]] = set()
    for pipeline in declared:
        labels = None if pipeline.training is None else pipeline.training.labels
        for query in (pipeline.entity.query, pipeline.features.query, pipeline.features.changes, labels):
            names |= set() if query is None else usersql.tables(query)
        names |= {(source.schema_name, source.table_name) for source in pipeline.sources}
    found = []
    for schema, table in names:
        written = quote(table) if schema is None else quoted_table(schema, table)
        row = one(connection, "locate_relation", relation=written)
        if row is not None and row.schema not in _SCHEMAS and not row.schema.startswith("pg_"):
            found.append((row.schema, row.name))
    return sorted(set(found))


def _tried(connection: sa.Connection, statement: str, notes: list[str]) -> bool:
    """Run a statement that may be somebody else's to give; say so where it was refused."""
    raw_execute(connection, "SAVEPOINT source")
    try:
        raw_execute(connection, statement)
    except psycopg2.Error:
        raw_execute(connection, "ROLLBACK TO SAVEPOINT source")
        notes.append(f"Not granted, for it is not this role's to give: {statement}")
        return False
    return True


def _beyond(connection: sa.Connection, scorer: str, declared: Sequence[Pipeline]) -> Iterator[str]:
    for schema, table in _source_tables(connection, declared):
        found = one(connection, "read_rights", role=scorer, relation=quoted_table(schema, table))
        if not found.reads:
            yield f"{scorer} may not read {schema}.{table} yet: its owner has to grant SELECT on it."
        if found.writes:
            yield f"{scorer} may write {schema}.{table}, which no run needs: take INSERT, UPDATE, DELETE and TRUNCATE away."


def _objects(connection: sa.Connection, names: Sequence[str]) -> list[Objects]:
    from tasks.erasure import objects_of

    known = {row.pipeline: row for row in rows(connection, "list_objects")}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise PipelineNeverRan(unknown[0], sorted(known))
    return [objects_of(known[name].pipeline, known[name]) for name in names or known]


def _grant(privilege: str, what: str, role: str) -> str:
    return load_query("grant", {"privilege": privilege, "object": what, "grantee": quote(role), "option": ""})


def _revoke(privilege: str, what: str, role: str) -> str:
    return load_query("revoke", {"privilege": privilege, "object": what, "grantee": quote(role)})
