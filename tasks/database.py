"""Where statements come from and how a connection is made: the control path (SQLAlchemy on psycopg2).

Rows travel another way, as Arrow batches: see transport.py.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import resources
from typing import Any
from urllib.parse import quote as percent_encoded
from urllib.parse import quote_plus

import psycopg2
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from tasks.backends import meter_in_use
from tasks.errors import PrescoreError
from tasks.interrupts import CONNECT_SECONDS
from tasks.settings import Settings

# A dead peer is noticed within a minute (15 s + 3 * 15 s), so that the lock of a run on a lost machine becomes free.
KEEPALIVES = {"keepalives": 1, "keepalives_idle": 15, "keepalives_interval": 15, "keepalives_count": 3}

# Every connection speaks the same dialect of dates, numbers and strings, whatever the role or database sets. Arrow takes
# text for UTF-8 as it comes: that of a database in another encoding has to be converted by its server. And no limit that was
# set for the short statements of applications ends a long one here; lock_timeout stays what the role has. prescore.writer
# tells triggers of storages that it is not somebody else who writes there.
SESSION = (
    "-c timezone=UTC -c datestyle=ISO,MDY -c intervalstyle=postgres -c extra_float_digits=1 "
    "-c standard_conforming_strings=on -c client_min_messages=warning -c client_encoding=UTF8 "
    "-c prescore.writer=prescore -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0"
)

# How long a statement may take on connections that are made within limit_statements.
_STATEMENT_SECONDS: ContextVar[float | None] = ContextVar("statement seconds", default=None)

# Parameters of an address that are secrets, and what stands between :// and @.
_SECRET_PARAMETERS = ("password", "sslpassword")
_CREDENTIALS = re.compile(r"://[^\s/@]*:[^\s@]*@")

# Whether a connection may be made: only while connect() makes its own.
_CONNECTING: ContextVar[bool] = ContextVar("connecting", default=False)

# Within keep_connections: what it keeps.
_KEEPING: ContextVar[_Kept | None] = ContextVar("keeping", default=None)
# Seconds after which a connection that nobody used is asked whether it is still there.
_ASKED_AFTER = 1.0

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class DatabaseUrl(str):
    """The address of a server, with its password: what shows it by accident shows host and database only."""

    __slots__ = ()

    def __repr__(self) -> str:
        try:
            return f"<{describe_url(self)}>"
        except PrescoreError:
            return "<no address of a database>"


class SourceUrl(DatabaseUrl):
    """The address of a server that the sources are on, apart from the predictions; messages name its variable."""

    __slots__ = ()


class DatabaseUnreachable(PrescoreError):
    """No connection to the database could be made."""

    def __init__(self, url: str, cause: str) -> None:
        self.place, cause = describe_url(url), without_secrets(cause, url)
        unset = "the embedded PostgreSQL" if not isinstance(url, SourceUrl) else "the database of the predictions"
        super().__init__(
            f"No connection to {self.place}: {cause.rstrip('.?!')}. Nothing was changed. Check {variable_of(url)}, or "
            f"unset it to use {unset}, and that the server accepts this role."
        )


class ServerNotSupported(PrescoreError):
    """The server is older than prescore can use, or is not reached directly."""


def variable_of(url: str) -> str:
    """Return the variable of the environment that an address comes from."""
    return "PRESCORE_SOURCE_URL" if isinstance(url, SourceUrl) else "PRESCORE_DATABASE_URL"


def quote(identifier: str) -> str:
    """Return an identifier quoted for SQL.

    The only place where names become SQL. A NUL character, which Postgres cannot hold, raises ``ValueError``.
    """
    if not identifier or "\x00" in identifier:
        raise ValueError("an SQL identifier is never empty and holds no NUL character")
    return '"' + identifier.replace('"', '""') + '"'


def literal(value: str | int | datetime) -> str:
    """Return a text, integer or instant as an SQL literal, for statements that go through COPY and take no parameters."""
    if isinstance(value, bool) or not isinstance(value, str | int | datetime):
        raise TypeError(f"no literal for {type(value).__name__}")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        return f"TIMESTAMPTZ '{value.astimezone(UTC).isoformat()}'"
    if "\x00" in value:
        raise ValueError("PostgreSQL text holds no NUL character")
    return "'" + value.replace("'", "''") + "'"


@cache
def _statement(name: str) -> str:
    text = (resources.files("sql") / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    # The heading is for people: a colon in it would be taken for a parameter.
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("--")).strip()


def load_query(name: str, fragments: Mapping[str, str] | None = None) -> str:
    """Return the statement of sql/queries/<name>.sql.

    ``fragments`` fills ``{placeholders}`` with identifiers made by :func:`quote`, or lists of them; values never travel
    this way. A placeholder without a fragment raises ``KeyError``.
    """
    parts = dict(fragments or {})
    return _PLACEHOLDER.sub(lambda match: parts[match.group(1)], _statement(name))


def describe_url(url: str) -> str:
    """Return host, port and database of a URL, without user and password."""
    parsed = _parsed(url)
    host = parsed.host or parsed.query.get("host") or "the local socket"
    return f"database {parsed.database or '?'} on {host}" + (f":{parsed.port}" if parsed.port else "")


@contextmanager
def limit_statements(seconds: float) -> Iterator[None]:
    """Let PostgreSQL cancel every statement that takes longer, on each connection that is made within."""
    before = _STATEMENT_SECONDS.set(seconds)
    try:
        yield
    finally:
        _STATEMENT_SECONDS.reset(before)


def session_options() -> str:
    """Return the settings that a connection begins with, as libpq's options take them."""
    seconds = _STATEMENT_SECONDS.get()
    return SESSION if seconds is None else f"{SESSION} -c statement_timeout={max(1, round(seconds * 1000))}"


@lru_cache(maxsize=32)
def _engine(url: str, application_name: str, options: str) -> sa.Engine:
    """Return an engine without a pool: each connection is made once and never silently made again.

    A process keeps it: SQLAlchemy asks a server four questions before an engine's first connection is used.
    """
    arguments = {
        **KEEPALIVES,
        "application_name": application_name,
        "options": options,
        "connect_timeout": CONNECT_SECONDS,
    }
    # Without looking up hstore on every connection: no statement of ours reads one. Errors show no parameters: keys and
    # digests are among them.
    # Rows that one statement takes in turn travel together.
    created = sa.create_engine(
        _driver_url(url),
        poolclass=NullPool,
        connect_args=arguments,
        use_native_hstore=False,
        hide_parameters=True,
        executemany_mode="values_plus_batch",
    )
    # SQLAlchemy makes a lost connection again on its next use, even without a pool: with it went the lock of a run.
    sa.event.listen(created, "do_connect", _refuse_again)
    return created


@contextmanager
def connect(url: str, application_name: str = "prescore", *, autocommit: bool = False) -> Iterator[sa.Connection]:
    """Open one connection, and close it at the end; what was not committed is rolled back.

    When it is lost, every further use of it fails.

    Raises
    ------
    DatabaseUnreachable
        Naming host and database, never the password.
    """
    if autocommit:
        with _made(url, application_name) as made:
            yield made.execution_options(isolation_level="AUTOCOMMIT")
        return
    keeping = _keeping()
    if keeping is None:
        with _made(url, application_name) as made:
            yield made
        return
    key = (url, application_name, session_options())
    kept = keeping.idle.pop(key, None)
    if kept is None or not kept.lives():
        closing = keeping.closing.enter_context(ExitStack())
        kept = _Idle(connection=closing.enter_context(_made(url, application_name)), closing=closing)
    try:
        yield kept.connection
    finally:
        with suppress(sa.exc.SQLAlchemyError, psycopg2.Error):
            kept.connection.rollback()
            if not kept.connection.invalidated:  # as one that was lost is
                kept.since = time.monotonic()
                keeping.idle[key] = kept


@dataclass(kw_only=True)
class _Kept:
    """What keep_connections keeps."""

    #: Closes all of it.
    closing: ExitStack
    #: Connections that nobody uses now, by address, name and settings.
    idle: dict[tuple[str, str, str], _Idle] = field(default_factory=dict)
    #: Whose they are: threads that inherit the context go on when it is over.
    thread: int = field(default_factory=threading.get_ident)


def _keeping() -> _Kept | None:
    """Return what this thread keeps connections in; None where it keeps none."""
    keeping = _KEEPING.get()
    return keeping if keeping is not None and keeping.thread == threading.get_ident() else None


@dataclass(kw_only=True)
class _Idle:
    """A connection that is kept for whoever connects next."""

    connection: sa.Connection
    closing: ExitStack
    #: When it was last used, by the monotonic clock.
    since: float = 0.0

    def lives(self) -> bool:
        """Say whether the server still has it, asking only after a while; it is closed if not."""
        if time.monotonic() - self.since < _ASKED_AFTER:
            return True
        try:
            self.connection.execute(sa.text("SELECT 1"))
            self.connection.rollback()
        except sa.exc.SQLAlchemyError:
            self.closing.close()
            return False
        return True


@contextmanager
def keep_connections() -> Iterator[None]:
    """Let what connects one after the other within, in this thread, share connections, which are closed at the end.

    Within another one they are those of that one.
    Each is still made once, and one that is lost is not used again. Making one takes 6 to 8 ms of both sides, and the first
    statements on it three times as long as later ones.
    """
    if _keeping() is not None:
        yield
        return
    with ExitStack() as closing:
        before = _KEEPING.set(_Kept(closing=closing))
        try:
            yield
        finally:
            _KEEPING.reset(before)


def close_idle_connections() -> None:
    """Close what is kept and nobody uses now: before what takes long, and needs connections of its own."""
    keeping = _keeping()
    if keeping is not None:
        for kept in keeping.idle.values():
            kept.closing.close()
        keeping.idle.clear()


@contextmanager
def _made(url: str, application_name: str) -> Iterator[sa.Connection]:
    created = _engine(url, application_name, session_options())
    connecting = _CONNECTING.set(True)
    try:
        connection = created.connect()
    except sa.exc.OperationalError as error:
        raise DatabaseUnreachable(url, _first_line(error)) from None
    finally:
        _CONNECTING.reset(connecting)
    meter = meter_in_use()
    pid = connection.connection.driver_connection.info.backend_pid if meter is not None else 0  # type: ignore[union-attr]
    if meter is not None:
        meter.begun(pid)
    try:
        yield connection
    finally:
        if meter is not None:
            meter.ended(pid)
        try:
            connection.close()
        except sa.exc.DBAPIError:  # it was lost while a transaction was open: nothing is left to roll back
            connection.invalidate()


def _refuse_again(*_: Any) -> None:
    if not _CONNECTING.get():
        raise psycopg2.OperationalError("the connection was lost; it is never made again")


def raw_execute(connection: sa.Connection, statement: str) -> Any:
    """Run a statement as it stands, past SQLAlchemy and past the driver's parameters, and return the cursor.

    User SQL goes this way: ``:when`` and ``%`` in it are its own.
    """
    if not connection.in_transaction():
        connection.begin()  # or else commit() would not know that there is something to commit
    cursor = connection.connection.cursor()
    cursor.execute(statement)
    return cursor


def rows(connection: sa.Connection, query: str, /, **values: Any) -> list[Any]:
    """Run the query of a file and return its rows."""
    return list(connection.execute(sa.text(load_query(query)), values))


def one(connection: sa.Connection, query: str, /, **values: Any) -> Any:
    """Run the query of a file and return its first row, or None."""
    return connection.execute(sa.text(load_query(query)), values).first()


def clock(connection: sa.Connection) -> datetime:
    """Return prescore.clock(): the instant that freshness is judged at."""
    instant: datetime = connection.execute(sa.text("SELECT prescore.clock()")).scalar_one()
    return instant


def require_server(connection: sa.Connection, url: str = "") -> None:
    """Refuse servers older than PostgreSQL 15.

    Newer ones than were tested are let through: Postgres keeps what prescore uses.
    """
    version: int = connection.execute(sa.text("SELECT current_setting('server_version_num')::integer")).scalar_one()
    if version < 150000:
        unset = "" if isinstance(url, SourceUrl) else ", or unset it to use the embedded one"
        raise ServerNotSupported(
            f"The server is PostgreSQL {version // 10000}; prescore needs 15 or newer. Nothing was changed. Point "
            f"{variable_of(url)} at a newer server{unset}."
        )


def resolve_url(settings: Settings) -> str:
    """Return the URL of the database, started and migrated when it is the embedded one."""
    from tasks import migrations

    if settings.database_url is not None:
        url = DatabaseUrl(settings.database_url)
        migrations.require_current(url)
        return url
    from tasks import embedded

    url = DatabaseUrl(embedded.ensure_running(settings.data_dir))
    migrations.apply(url)
    return url


def resolve_source_url(settings: Settings, url: str) -> str:
    """Return where queries of users are sent: to ``url``, the database of the predictions, unless another one is named.

    It is not connected to.
    """
    if settings.source_url is None or settings.source_url == url:
        return url
    source_url = SourceUrl(settings.source_url)
    _driver_url(source_url)
    return source_url


def libpq_url(url: str) -> str:
    """Return a URL that libpq, and so ADBC and psql, can read."""
    return _parsed(url).set(drivername="postgresql").render_as_string(hide_password=False)


def without_secrets(words: str, url: str) -> str:
    """Return a driver's words without the secrets of an address, however they are written in it; libpq repeats what it
    cannot read of one.
    """
    parsed = _parsed(url)
    named = [parsed.password, *(parsed.query.get(name) for name in _SECRET_PARAMETERS)]
    for secret in {str(value) for value in named if value}:
        for written in {secret, quote_plus(secret), percent_encoded(secret)}:
            words = words.replace(written, "***")
    return _CREDENTIALS.sub("://***@", words)


def _parsed(url: str) -> URL:
    """Return the parts of an address; one that is none is refused without repeating any of it."""
    try:
        return make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # ValueError: what stands where the port belongs is no number
        raise PrescoreError(
            f"{variable_of(url)} is not a database URL. Nothing was changed. Write it as "
            "postgresql://role:password@host:5432/database; in a password write / as %2F, : as %3A and @ as %40. Several "
            "hosts are written as ?host=one,two&port=5432,5432."
        ) from None


def _driver_url(url: str) -> URL:
    parsed = _parsed(url)
    if not parsed.drivername.startswith(("postgresql", "postgres")):
        raise PrescoreError(
            f"{variable_of(url)} names {parsed.drivername!r}; prescore works with PostgreSQL only. Nothing was "
            "changed. Write it as postgresql://role:password@host:5432/database."
        )
    return parsed.set(drivername="postgresql+psycopg2")


def _first_line(error: sa.exc.DBAPIError) -> str:
    text = str(error.orig).strip().splitlines()
    return text[-1].strip() if text else type(error.orig).__name__
