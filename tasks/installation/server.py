"""What is asked of the server, its settings, its sessions, and the role that prescore works as."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tasks import space
from tasks.checks.times import OFFSET_FAIL, OFFSET_WARN, measure_offset
from tasks.database import rows
from tasks.freshness import describe
from tasks.installation.symptoms import Symptom
from tasks.space import SPARE_BYTES, megabytes

#: What the tests of prescore run on.
OLDEST_SERVER, NEWEST_SERVER = 15, 18
# Transactions that are younger do little harm: a run itself may take as long.
LONG = timedelta(minutes=10)
# Whoever waits for longer on a table of prescore is held up by somebody.
WAITED = timedelta(seconds=10)
# Log that a slot nobody reads may keep.
SLOT_BYTES = 1024**3
# Share of the connections from which on a run may find none left, and how many one run takes: it, its snapshot, heartbeat,
# two of the data path, and one for a check or an index.
BUSY, CONNECTIONS_OF_A_RUN = 0.9, 6
# Whoever waits less for a lock gives up where a run would have gone on.
SHORT = timedelta(minutes=1)

# Without these, what was published may not survive a loss of power.
DURABLE = ("fsync", "full_page_writes")

_VACUUM = "Rows that were replaced cannot be removed: what is served grows, and lookups get slower."


def of_server(connection: sa.Connection, found: Any) -> Iterator[Symptom]:
    """Ask the server itself; ``found`` is the row of describe_server.sql."""
    yield from _versions(found)
    yield from _settings(found)
    yield from _connections(found)
    yield from _role(connection, found)
    yield from _encryption(found)
    yield from _clock(connection)
    yield from _disk(connection)


def of_sessions(connection: sa.Connection) -> Iterator[Symptom]:
    """Ask who keeps VACUUM from its work, and who waits for whom."""
    for row in rows(connection, "list_old_transactions", longer_than=LONG):
        idle = (row.state or "").startswith("idle in transaction")
        yield Symptom(
            code="transactions.long",
            what=f"{_session(row)} has been {'idle in' if idle else 'in'} a transaction for {_long(row.since)}.",
            since=row.since,
            means=f"{_VACUUM} A storage that it may read is emptied row by row.",
            remedy=f"Let it end, or end it: SELECT pg_terminate_backend({row.pid}).",
            wrong=idle or row.holds_back,
        )
    for row in rows(connection, "list_prepared_transactions", longer_than=LONG):
        yield Symptom(
            code="transactions.prepared",
            what=f"The transaction {row.gid!r} of role {row.role} was prepared {_long(row.since)} ago and neither committed nor "
            "rolled back.",
            since=row.since,
            means=f"{_VACUUM} It holds its locks even if nobody is connected.",
            remedy="COMMIT PREPARED or ROLLBACK PREPARED it, as whoever prepared it meant.",
        )
    for row in rows(connection, "list_lagging_slots", bytes=SLOT_BYTES):
        lost = row.wal_status in {"unreserved", "lost"}
        kept = "" if row.bytes is None else f" and keeps {megabytes(float(row.bytes))} of the write-ahead log"
        yield Symptom(
            code="slots.lost" if lost else "slots.lagging",
            what=f"Nobody reads the replication slot {row.slot_name}{kept}."
            if not lost
            else f"The replication slot {row.slot_name} has lost what it needs (wal_status {row.wal_status}).",
            means=_VACUUM if row.holds_back else "The log fills the server's disk, which stops everything.",
            remedy=f"Start what reads it, or drop it: SELECT pg_drop_replication_slot('{row.slot_name}').",
        )
    for row in rows(connection, "list_runs_in_flight"):
        if row.run_id is None and row.pipeline is not None and _age(row.since) > LONG:
            yield Symptom(
                code="locks.held",
                pipeline=row.pipeline,
                what=f"{row.application_name or 'A command'} (backend {row.pid}, role {row.usename}) has held the lock of "
                f"{row.pipeline} for {_long(row.since)} without a run.",
                since=row.since,
                means="No run begins; what was published is served until it expires.",
                remedy=f"See what it does, or end it: SELECT pg_terminate_backend({row.pid}).",
            )
    for row in rows(connection, "list_waiting", longer_than=WAITED):
        yield Symptom(
            code="locks.waiting",
            what=f"Backend {row.pid} ({row.application_name or 'unnamed'}) has waited {_long(row.since)} for {row.relation}, which "
            f"is held by {row.who or 'somebody that this role may not see'}.",
            since=row.since,
            means="Whoever reads that table next may wait behind it.",
            remedy=f"End what holds it: SELECT pg_terminate_backend({', '.join(map(str, row.blockers)) or 'pid'}).",
        )


def _versions(found: Any) -> Iterator[Symptom]:
    major = found.version_number // 10000
    if major < OLDEST_SERVER:
        yield Symptom(
            code="server.version",
            what=f"The server is PostgreSQL {found.version}; prescore needs {OLDEST_SERVER} or newer.",
            means="Nothing is published here.",
            remedy="Upgrade the server.",
        )
    elif major > NEWEST_SERVER:
        yield Symptom(
            code="server.version",
            what=f"The server is PostgreSQL {found.version}; prescore was tested up to {NEWEST_SERVER}.",
            means="Nothing is known to be wrong.",
            remedy="Run the tests of prescore against this version, or install a newer prescore.",
            wrong=False,
        )
    if tuple(map(int, platform.python_version_tuple()[:2])) < (3, 11):
        yield Symptom(
            code="python.version",
            what=f"This is Python {platform.python_version()}; prescore needs 3.11 or newer.",
            means="Runs may fail; what is served stays.",
            remedy="Install prescore into a newer Python.",
        )


def _settings(found: Any) -> Iterator[Symptom]:
    off = [name for name in ("autovacuum", "track_counts") if getattr(found, name) == "off"]
    for name in off:
        yield Symptom(
            code="autovacuum.off",
            what=f"{name} is off on the server.",
            means="Statistics age and tables grow: plans of lookups get worse from run to run.",
            remedy=f"ALTER SYSTEM SET {name} = on, then SELECT pg_reload_conf().",
        )
    for name in DURABLE:
        if getattr(found, name) == "off":
            yield Symptom(
                code="durability.off",
                what=f"{name} is off on the server.",
                means="When the machine loses power, published predictions may be torn or lost, and nobody can tell.",
                remedy=f"ALTER SYSTEM SET {name} = on, then SELECT pg_reload_conf().",
            )
    if found.read_only == "on" and not found.standby:
        yield Symptom(
            code="settings.read_only",
            what=f"default_transaction_read_only is on for role {found.role} in this database.",
            means="No run can publish.",
            remedy=f"ALTER ROLE {found.role} SET default_transaction_read_only = off, or look at the settings of the database.",
        )
    if found.standby:
        yield Symptom(
            code="server.standby",
            what="The server is a standby.",
            means="No run can publish here.",
            remedy="Point PRESCORE_DATABASE_URL at the primary, and PRESCORE_SOURCE_URL at the standby if sources are read there.",
        )
    if found.lock_ms is not None and timedelta(milliseconds=found.lock_ms) < SHORT:
        yield Symptom(
            code="settings.timeout",
            what=f"lock_timeout is {found.lock_ms:,} ms for role {found.role}.",
            means="A run that has to wait for somebody fails instead; what was published is served until it expires.",
            remedy=f"ALTER ROLE {found.role} SET lock_timeout = 0.",
            wrong=False,
        )
    if found.transaction_timeout not in {None, "0"}:
        yield Symptom(
            code="settings.timeout",
            what=f"transaction_timeout is {found.transaction_timeout} for role {found.role}.",
            means="Runs set it aside for what they read and publish; what else takes long, such as building an index, is ended.",
            remedy=f"ALTER ROLE {found.role} SET transaction_timeout = 0.",
            wrong=False,
        )


def _connections(found: Any) -> Iterator[Symptom]:
    for whose, used, most in (
        ("the server", found.connections, found.most_connections),
        (f"role {found.role}", found.connections_of_role, found.most_of_role),
        ("the database", found.connections_of_database, found.most_of_database),
    ):
        if most is not None and (used > BUSY * most or most - used < CONNECTIONS_OF_A_RUN):
            yield Symptom(
                code="connections.few",
                what=f"{used} of the {most} connections of {whose} are in use; a run needs up to {CONNECTIONS_OF_A_RUN}.",
                means="Runs may fail to connect, and so may readers.",
                remedy="Raise the limit, or let readers share connections through a pooler.",
            )


def _role(connection: sa.Connection, found: Any) -> Iterator[Symptom]:
    if found.superuser and found.server_address not in {None, "127.0.0.1", "::1"}:
        yield Symptom(
            code="role.superuser",
            what=f"prescore works as {found.role}, a superuser.",
            means="Nothing; but SQL of pipelines may do anything to this server.",
            remedy="Work as a role of its own that owns the schemas of prescore and may read the sources.",
            wrong=False,
        )
    if not found.sees_others:
        yield Symptom(
            code="role.statistics",
            what=f"Role {found.role} may not see what others do.",
            means="Rows that other transactions commit late can be missed by incremental runs, and some of what is asked here "
            "remains hidden.",
            remedy=f"GRANT pg_read_all_stats TO {found.role}.",
            wrong=False,
        )
    lacking = [row.lacking for row in rows(connection, "list_missing_rights")]
    if lacking:
        shown = "; ".join(lacking[:5]) + (f"; and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        yield Symptom(
            code="role.rights",
            what=f"Role {found.role} lacks {len(lacking)} rights that a run needs: {shown}.",
            means="Runs fail; what was published is served until it expires.",
            remedy="Grant them, or work as the role that ran `prescore migrate`.",
        )


def _encryption(found: Any) -> Iterator[Symptom]:
    local = found.server_address in {None, "127.0.0.1", "::1"} or found.server_address == found.client_address
    if not local and not found.encrypted:
        yield Symptom(
            code="connection.plain",
            what=f"The connection to {found.server_address} is not encrypted.",
            means="Nothing for readers; but predictions, features and the password's exchange cross the network in the clear.",
            remedy="Add sslmode=verify-full (and sslrootcert) to PRESCORE_DATABASE_URL.",
        )


def _clock(connection: sa.Connection) -> Iterator[Symptom]:
    offset, ahead = measure_offset(connection)
    connection.rollback()
    if offset >= OFFSET_WARN:
        yield Symptom(
            code="clock.offset",
            what=f"The clock of {socket.gethostname()} is {describe(timedelta(seconds=offset))} "
            f"{'ahead of' if ahead else 'behind'} the server's.",
            means="States are told by the server's clock and are right if that is; schedules fire by this machine's.",
            remedy="Let both keep time by NTP, and see which of the two is wrong.",
            wrong=offset >= OFFSET_FAIL,
        )


def _disk(connection: sa.Connection) -> Iterator[Symptom]:
    free = space.look_around(connection)
    if free.free_bytes is not None and free.free_bytes < SPARE_BYTES:
        yield Symptom(
            code="disk.full",
            what=f"{megabytes(free.free_bytes)} are free on the server's disk.",
            means="The server stops when nothing is left: then nobody reads anything.",
            remedy="Free space, or move the server to a larger disk.",
        )


def _session(row: Any) -> str:
    return f"Backend {row.pid} (role {row.role}, {row.application_name or 'unnamed'})"


def _age(since: datetime) -> timedelta:
    return datetime.now(UTC) - since


def _long(since: datetime) -> str:
    return describe(_age(since))
