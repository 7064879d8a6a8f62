"""Migrations of the schema `prescore`: pending, applied, apply.

Forward only, one transaction each, the ledger row first so that a concurrent migrator is noticed, checksum kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

import sqlalchemy as sa

from tasks.database import connect, load_query, raw_execute, require_server
from tasks.errors import PrescoreError


class MigrationsPending(PrescoreError):
    """The database is behind the code."""

    def __init__(self, pending: list[str]) -> None:
        self.pending = pending
        super().__init__(
            f"The database lacks {len(pending)} migration(s), first {pending[0]}. Nothing was changed. Run `prescore migrate`."
        )


class DatabaseAhead(PrescoreError):
    """The database has migrations that this code does not know, or knows otherwise."""

    def __init__(self, unknown: list[str], newest: str) -> None:
        self.unknown = unknown
        super().__init__(
            f"The database is at {unknown[-1]}, this prescore ends at {newest}. Nothing was changed. Install the newer "
            "prescore that migrated it, or use another database."
        )


class MigrationChanged(PrescoreError):
    """A migration that was applied reads otherwise now."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"Migration {name} was applied with another text than this prescore ships. Nothing was changed. Install the "
            "prescore that migrated this database, or restore the file."
        )


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


def require_current(url: str) -> None:
    """Refuse a database that is behind, ahead of or different from this code."""
    behind = pending(url)
    if behind:
        raise MigrationsPending(behind)


def apply(url: str) -> list[str]:
    """Apply what is pending and return the names; several callers at once are welcome, each migration runs once."""
    done: list[str] = []
    with connect(url, "prescore migrate") as connection:
        require_server(connection)
        known = _applied(connection)
        if not _pending(known):
            return done
        connection.rollback()
        if not known:
            connection.execute(sa.text(load_query("lock_migrations")))
            raw_execute(connection, load_query("create_migration_ledger"))
            connection.commit()
        for migration in _pending(known):
            connection.execute(sa.text(load_query("lock_migrations")))
            inserted = connection.execute(
                sa.text(load_query("insert_migration")), {"name": migration.name, "checksum": migration.checksum}
            )
            if inserted.rowcount:
                raw_execute(connection, migration.statements)
                done.append(migration.name)
            connection.commit()
    return done


def _applied(connection: sa.Connection) -> dict[str, str]:
    if connection.execute(sa.text("SELECT to_regclass('prescore.migrations')")).scalar_one() is None:
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
