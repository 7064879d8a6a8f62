"""Migrations of the schema `prescore`: pending, applied, apply; and the gate that keeps them and runs apart.

Forward only, one transaction each, the ledger row first so that a concurrent migrator is noticed, checksum kept. A run holds
the gate shared for as long as it works, a migrator alone: who waits for it lets no run begin, so that those at work drain.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import Any

import psycopg2
import sqlalchemy as sa

from tasks.database import connect, load_query, one, raw_execute, require_server, rows
from tasks.errors import PrescoreError
from tasks.faults import reached

# A migration that has to wait for a reader keeps all later readers of that table waiting behind it: it gives up after so
# long, lets them through, and tries again, for so long in all unless it was told to wait longer.
LOCK_TIMEOUT, LOCK_RETRY, LOCK_PATIENCE = timedelta(seconds=1), timedelta(seconds=1), timedelta(seconds=30)
# Holders and runs that a message names.
NAMED = 5

_LOCK_NOT_AVAILABLE = "55P03"


class MigrationsPending(PrescoreError):
    """The database is behind the code."""

    def __init__(self, pending: list[str]) -> None:
        self.pending = pending
        super().__init__(
            f"The database is older than this prescore: it lacks {len(pending)} migration(s), first {pending[0]}. Nothing was "
            "changed. Run `prescore migrate`; what was published is served meanwhile."
        )


class DatabaseAhead(PrescoreError):
    """The database has migrations that this code does not know, or knows otherwise."""

    def __init__(self, unknown: list[str], newest: str) -> None:
        self.unknown = unknown
        super().__init__(
            f"The database is newer than this prescore: it is at {unknown[-1]}, this prescore ends at {newest}. Nothing was "
            "changed; what was published is still served. Install the prescore that migrated it here, and restart what runs "
            "all the time, such as `prescore serve`."
        )


class MigrationChanged(PrescoreError):
    """A migration that was applied reads otherwise now."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"Migration {name} was applied with another text than this prescore ships. Nothing was changed. Install the "
            "prescore that migrated this database, or restore the file."
        )


class Migrating(PrescoreError):
    """A run was to begin while somebody migrates the database, or waits to."""

    def __init__(self) -> None:
        super().__init__(
            "The database is being migrated, or somebody waits for runs to end so that it can be. Nothing was started; what "
            "was published is still served. Start the run again once `prescore migrate` has ended."
        )


class RunsInFlight(PrescoreError):
    """Runs are at work, so the database is not migrated."""

    def __init__(self, told: list[str], waited: timedelta) -> None:
        self.told = told
        so_long = f" after {waited.total_seconds():,.0f} s of waiting" if waited else ""
        named = "; ".join(told[:NAMED]) or "one that ended just now"
        super().__init__(
            f"{max(1, len(told))} at work{so_long}: {named}. Nothing was changed; they go on. Let `prescore migrate --wait 10m` "
            "wait for them: no other run begins meanwhile. `prescore cancel RUN` ends one."
        )


class MigrationBlocked(PrescoreError):
    """Somebody holds a lock on what a migration has to change."""

    def __init__(self, name: str, holders: list[str]) -> None:
        self.name, self.holders = name, holders
        who = f" Locks are held by {'; '.join(holders[:NAMED])}." if holders else ""
        super().__init__(
            f"Migration {name} found no moment in which nobody uses what it changes.{who} Nothing of it was applied; those "
            "before it were, and readers are served. End those transactions, or wait for them with `prescore migrate --wait 10m`."
        )


#: Why a run may not begin in a database: it is another revision's, or is just being made one.
UNFIT = (MigrationsPending, DatabaseAhead, MigrationChanged, Migrating)


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file of sql/migrations."""

    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


def shipped() -> list[Migration]:
    """Return every migration of this prescore, in order."""
    folder = resources.files("sql") / "migrations"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [Migration(name=entry.name[:-4], statements=entry.read_text(encoding="utf-8")) for entry in files]


def applied(url: str) -> dict[str, str]:
    """Return name and checksum of each migration that the database has; empty for a database never migrated."""
    with connect(url) as connection:
        require_server(connection)
        return _applied(connection)


def pending(url: str) -> list[str]:
    """Return the names of the migrations still to be applied.

    Raises
    ------
    DatabaseAhead, MigrationChanged
        When the database was migrated by another prescore.
    """
    return [migration.name for migration in _pending(applied(url))]


def read_applied(connection: sa.Connection) -> dict[str, str]:
    """Return what :func:`applied` does, on an open connection."""
    return _applied(connection)


def pending_of(known: Mapping[str, str]) -> list[str]:
    """Return what :func:`pending` does, from what a database has."""
    return [migration.name for migration in _pending(dict(known))]


def has_runs(connection: sa.Connection) -> bool:
    """Whether the database is of a revision that has runs."""
    return _there(connection, "prescore.runs")


def require_current(url: str) -> None:
    """Refuse a database that is behind, ahead of or different from this code."""
    behind = pending(url)
    if behind:
        raise MigrationsPending(behind)


def apply(url: str, *, wait: timedelta = timedelta(0), tell: Callable[[str], None] = lambda _: None) -> list[str]:
    """Apply what is pending and return the names; several callers at once are welcome, each migration runs once.

    ``wait`` is how long runs at work may take to end; ``tell`` is given a sentence when they are waited for.

    Raises
    ------
    RunsInFlight
        Naming them; nothing was changed.
    MigrationBlocked
        When others hold locks on what is to be changed; migrations before that one were applied.
    DatabaseAhead, MigrationChanged
    """
    with connect(url, "prescore migrate") as connection:
        require_server(connection)
        if not _pending(_applied(connection)):
            return []
        connection.rollback()
        connection.execute(sa.text(load_query("queue_migrators")))
        connection.commit()
        try:
            known = _applied(connection)  # another migrator may have been first
            if not _pending(known):
                return []
            connection.rollback()
            if known:
                _keep_runs_out(connection, wait, tell)
            else:
                connection.execute(sa.text(load_query("lock_migrations")))
                raw_execute(connection, load_query("create_migration_ledger"))
                connection.commit()
            reached("migration.begun")
            deadline = time.monotonic() + max(wait, LOCK_PATIENCE).total_seconds()
            return [migration.name for migration in _pending(known) if _apply(connection, migration, deadline)]
        finally:
            if not connection.invalidated:
                connection.rollback()
                connection.execute(sa.text(load_query("let_go_of_locks")))
                connection.commit()


def enter_gate(connection: sa.Connection) -> None:
    """Keep migrations out until :func:`leave_gate`, or until the connection ends; commits.

    Raises
    ------
    Migrating
    MigrationsPending, DatabaseAhead, MigrationChanged
        When the database was migrated since this code looked.
    """
    if not one(connection, "hold_off_migrations").taken:
        connection.rollback()
        raise Migrating
    known = _applied(connection)
    connection.commit()
    behind = _pending(known)
    if behind:
        raise MigrationsPending([migration.name for migration in behind])


def leave_gate(connection: sa.Connection) -> None:
    """Let migrations in again; the transaction of the connection stays open."""
    one(connection, "let_migrations_in")


def _keep_runs_out(connection: sa.Connection, wait: timedelta, tell: Callable[[str], None]) -> None:
    """Take the gate, and the lock of every pipeline, which runs of a prescore without a gate hold."""
    if not _there(connection, "prescore.runs"):
        return
    if not wait:
        if not one(connection, "try_to_keep_runs_out").taken:
            raise RunsInFlight(_in_flight(connection), wait)
        connection.commit()
        for row in rows(connection, "list_pipeline_names"):
            if not one(connection, "take_run_lock", pipeline=row.pipeline).taken:
                raise RunsInFlight(_in_flight(connection), wait)
        connection.commit()
        return
    at_work = _in_flight(connection)
    connection.rollback()
    if at_work:
        tell(
            f"Waiting up to {wait.total_seconds():,.0f} s for {'; '.join(at_work[:NAMED])}. No other run begins meanwhile."
        )
    deadline = time.monotonic() + wait.total_seconds()
    try:
        _wait_for(connection, deadline, "keep_runs_out")
        for name in [row.pipeline for row in rows(connection, "list_pipeline_names")]:
            _wait_for(connection, deadline, "await_run_lock", pipeline=name)
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "pgcode", None) != _LOCK_NOT_AVAILABLE:
            raise
        connection.rollback()
        raise RunsInFlight(_in_flight(connection), wait) from None
    one(connection, "limit_lock_waits", milliseconds="0", locally=False)
    connection.commit()


def _wait_for(connection: sa.Connection, deadline: float, query: str, **values: Any) -> None:
    milliseconds = max(1, round((deadline - time.monotonic()) * 1000))
    one(connection, "limit_lock_waits", milliseconds=str(milliseconds), locally=False)
    connection.execute(sa.text(load_query(query)), values)
    connection.commit()


def _in_flight(connection: sa.Connection) -> list[str]:
    connection.rollback()
    found = rows(connection, "list_runs_in_flight")
    connection.rollback()
    told = {row.pid: _told(row) for row in sorted(found, key=lambda row: row.pipeline is not None)}
    return list(told.values())


def _told(row: Any) -> str:
    of = "" if row.pipeline is None else f" of {row.pipeline}"
    if row.run_id is None:
        who = f"{row.application_name or 'a command'}{of}"
        return f"{who} (backend {row.pid}, role {row.usename}, since {row.since:%Y-%m-%d %H:%M:%S} UTC)"
    return f"run {row.run_id}{of} (process {row.process_id} on {row.host}, since {row.since:%Y-%m-%d %H:%M:%S} UTC)"


def _apply(connection: sa.Connection, migration: Migration, deadline: float) -> bool:
    """Apply one migration in one transaction; False when another migrator was first."""
    while True:
        connection.execute(sa.text(load_query("lock_migrations")))
        milliseconds = str(round(LOCK_TIMEOUT.total_seconds() * 1000))
        one(connection, "limit_lock_waits", milliseconds=milliseconds, locally=True)
        values = {"name": migration.name, "checksum": migration.checksum}
        try:
            inserted = connection.execute(sa.text(load_query("insert_migration")), values).rowcount
            reached("migration.entered")
            if inserted:
                raw_execute(connection, migration.statements)
                reached("migration.applied")
        except (psycopg2.Error, sa.exc.DBAPIError) as error:
            if getattr(getattr(error, "orig", error), "pgcode", None) != _LOCK_NOT_AVAILABLE:
                raise
            connection.rollback()
            if time.monotonic() >= deadline:
                raise MigrationBlocked(migration.name, _holders(connection)) from None
            time.sleep(LOCK_RETRY.total_seconds())
            continue
        connection.commit()
        reached("migration.committed")
        return bool(inserted)


def _holders(connection: sa.Connection) -> list[str]:
    found = rows(connection, "list_holders")
    connection.rollback()
    return [
        f"backend {row.pid} (role {row.usename}, {row.application_name or 'unnamed'}, {row.state}) since "
        f"{row.since:%Y-%m-%d %H:%M:%S} UTC"
        for row in found
    ]


def _there(connection: sa.Connection, relation: str) -> bool:
    found = connection.execute(sa.text("SELECT to_regclass(:relation)"), {"relation": relation}).scalar_one()
    return found is not None


def _applied(connection: sa.Connection) -> dict[str, str]:
    if not _there(connection, "prescore.migrations"):
        return {}
    return {row.name: row.checksum for row in connection.execute(sa.text(load_query("list_migrations")))}


def _pending(known: dict[str, str]) -> list[Migration]:
    migrations = shipped()
    names = {migration.name for migration in migrations}
    unknown = sorted(set(known) - names)
    if unknown:
        raise DatabaseAhead(unknown, migrations[-1].name)
    for migration in migrations:
        if known.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationChanged(migration.name)
    return [migration for migration in migrations if migration.name not in known]
