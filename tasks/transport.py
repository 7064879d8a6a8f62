"""How rows travel: Arrow batches out of and into PostgreSQL over binary COPY (ADBC), never row by row through Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode

import adbc_driver_manager
import adbc_driver_postgresql
import pyarrow as pa
from adbc_driver_postgresql import StatementOptions
from adbc_driver_postgresql import dbapi as adbc

from tasks import columns as type_table
from tasks import libpq
from tasks.backends import BackendMeter, meter_in_use
from tasks.columns import Column, SchemaDiffers
from tasks.database import KEEPALIVES, DatabaseUnreachable, libpq_url, literal, load_query, quote, session_options
from tasks.errors import PrescoreError
from tasks.interrupts import interruptibly, let_python_answer
from tasks.outages import LOST, outage_of
from tasks.stream import Stream

if TYPE_CHECKING:
    from tasks.compiled.rows import Decoder

# Batches of about 8 MiB: 40-50 k rows of 3 text and 16 float columns. 32 MiB was no faster in the benchmark and took
# 150 MB more at the peak, since reading, scoring and writing each hold a batch and two wait between them. Of 4, 8 and 16 MiB
# none was faster beyond noise (12.3, 10.6, 12.2 s for 2,000,000 rows); the peaks were 373, 418 and 490 MB.
BATCH_BYTES = 8 * 1024 * 1024
# Batches read ahead while the model predicts: enough to keep the reader busy, since predicting a batch takes longer.
READ_AHEAD = 2

#: How sessions call themselves until they say what they are for, and those that only read.
COMMON, READER = "prescore", "prescore reader"
_READ_ONLY = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

# From the first quote on: a value may hold quotes and line ends itself, so where it stops cannot be known.
_QUOTED = re.compile("[\"'«»„“”‘’‚].*")
_OUT_OF_RANGE = re.compile(r"\" (is out of range for type [a-z ]+)$")
_SEVERITY = re.compile(r"(ERROR|FATAL):")
_SQLSTATE = re.compile(r"SQLSTATE: (\w{5})")
# How the driver tells that the connection ended under it: without SQLSTATE, in the server's words or in those of libpq.
_ENDED = re.compile(
    "terminating connection|server closed the connection|no connection to the server|connection (is|was) lost"
)
# Classes whose messages speak of names and resources, not of values (those of class 23 keep theirs for the detail).
_SAFE_CLASSES = {"23", "42", "0A", "53", "54", "55", "57", "40", "25", "28", "3D", "3F"}

_SERIALIZATION = "40001"
# RAISE EXCEPTION of a function of the user's own: nobody knows what its message is made of.
_RAISED = "P0001"


class StatementFailed(PrescoreError):
    """PostgreSQL refused a statement, or stopped in the middle of its rows."""

    def __init__(self, what: str, cause: str, sqlstate: str | None = None) -> None:
        self.what, self.cause, self.sqlstate = what, cause, sqlstate
        outage = LOST if sqlstate is None and _ENDED.search(cause) else outage_of(sqlstate)
        remedy = "PostgreSQL's own log has the statement and the values; correct the query or the data, and run again."
        super().__init__(
            f"{what} failed: {cause}. What it read or wrote does not count; what was published is still served. "
            + (remedy if outage is None else outage.remedy)
        )


class ConflictWithRecovery(StatementFailed):
    """A standby ended a statement: it had to replay what takes away rows that the statement's snapshot still sees."""

    def __init__(self, what: str, cause: str, sqlstate: str | None = None) -> None:
        super().__init__(what, cause, sqlstate)
        self.args = (
            f"{what} failed: {cause}. The standby that PRESCORE_SOURCE_URL names could not keep the rows of the snapshot any "
            "longer. What was read does not count; what was published is still served. Set hot_standby_feedback = on there, "
            "or raise max_standby_streaming_delay above the length of a run, and run again.",
        )


class Session:
    """One ADBC connection, in autocommit: transactions are begun and ended by statements.

    A session is used by one thread at a time; ``cancel`` may be called from any.
    """

    def __init__(self, connection: Any, url: str, meter: BackendMeter | None) -> None:
        self._connection = connection
        self._url, self._meter = url, meter
        #: The exported snapshot that this session sees, which another one may see as well.
        self._snapshot: str | None = None
        self._cancel: Callable[[], None] | None = None

    def execute(self, statement: str, what: str = "A statement") -> None:
        """Run a statement that returns no rows."""
        with self._connection.cursor() as cursor, _scrubbed(what):
            interruptibly(lambda: cursor.execute(statement), cursor.adbc_cancel)

    def table(self, statement: str, what: str = "A query", *, copy: bool = True) -> pa.Table:
        """Run a query and return all its rows; for results whose size is bounded.

        ``copy=False`` is for statements that COPY refuses, such as EXPLAIN.
        """
        with self._connection.cursor() as cursor, _scrubbed(what):
            if not copy:
                cursor.adbc_statement.set_options(**{StatementOptions.USE_COPY.value: "false"})
            interruptibly(lambda: cursor.execute(statement), cursor.adbc_cancel)
            return interruptibly(cursor.fetch_arrow_table, cursor.adbc_cancel)

    @contextmanager
    def stream(
        self,
        statement: str,
        what: str = "A query",
        *,
        ahead: bool = True,
        columns: Sequence[Column] = (),
        decoder: Decoder | None = None,
    ) -> Iterator[Iterator[pa.RecordBatch]]:
        """Run a query and yield its batches, read ahead by another thread; leaving early cancels it.

        ``ahead=False`` is for a thread that does nothing else but read: it reads itself, and ``cancel`` ends that. Then a
        ``decoder`` may do so on a connection of its own, of a session that sees an exported snapshot; ``columns`` are what
        the query returns.
        """
        if decoder is not None and self._snapshot is not None and not ahead and decoder.decodes(columns):
            with self._decoded(statement, what, self._snapshot, columns, decoder) as decoded:
                yield decoded
            return
        with self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(BATCH_BYTES)})
            self._cancel = cursor.adbc_cancel
            try:
                with _scrubbed(what):
                    interruptibly(lambda: cursor.execute(statement), cursor.adbc_cancel)
                    reader = cursor.fetch_record_batch()
                if not ahead:
                    batches = _read(reader, what)
                    try:
                        yield batches
                    except BaseException:
                        with suppress(Exception):  # closing the cursor would read what is left, to its end
                            cursor.adbc_cancel()
                        raise
                    return
                # A thread of its own: the one that waits for it stays interruptible, which a read in the driver is not.
                with Stream(cursor.adbc_cancel) as stream:
                    yield stream.ahead("read", _read(reader, what), depth=READ_AHEAD)
            finally:
                self._cancel = None

    @contextmanager
    def _decoded(
        self, statement: str, what: str, snapshot: str, columns: Sequence[Column], decoder: Decoder
    ) -> Iterator[Iterator[pa.RecordBatch]]:
        with _refused(what), libpq.open_connection(_address(self._url, READER)) as connection:
            if self._meter is not None:
                self._meter.begun(connection.backend_pid)
            try:
                connection.execute(load_query("forbid_transaction_timeout"))
                for preparing in _seeing(snapshot):
                    connection.execute(preparing)
                self._cancel = connection.cancel
                connection.begin_copy(statement)
                yield _decode(decoder, connection, columns, what)
            except BaseException:
                connection.cancel()  # closing alone would leave the server at work until it has rows to send
                raise
            finally:
                self._cancel = None
                if self._meter is not None:
                    self._meter.ended(connection.backend_pid)

    def cancel(self) -> None:
        """Ask PostgreSQL to end what this session streams, if anything; from any thread."""
        cancel = self._cancel
        if cancel is not None:
            cancel()

    def copy_in(
        self, schema: str, table: str, target: Sequence[Column], batches: Iterable[pa.RecordBatch], what: str
    ) -> int:
        """Stream batches into a table in one COPY and return how many rows went.

        ``target`` is what the table has, by ``pg_attribute``; each batch must have exactly these columns, in this order
        and of these Arrow types.

        Raises
        ------
        SchemaDiffers
            Before the first byte, when name, type, list element or time unit differ.
        StatementFailed
            When PostgreSQL refuses the rows. What the generator raised is raised as it was.
        """
        raised: list[BaseException] = []
        stored = [pa.field(c.name, pa.binary(16) if c.postgres_type == "uuid" else c.arrow_type) for c in target]
        schema_in = pa.schema(stored)
        name = f"{schema}.{table}"

        def rows() -> Iterator[pa.RecordBatch]:
            let_python_answer()
            try:
                for batch in batches:
                    require_schema(name, batch.schema, target)
                    arrays = [type_table.storable(batch.column(i), column) for i, column in enumerate(target)]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema_in)
            except BaseException as error:
                raised.append(error)
                raise

        with self._connection.cursor() as cursor:
            try:
                with _scrubbed(what):
                    reader = pa.RecordBatchReader.from_batches(schema_in, rows())
                    return int(cursor.adbc_ingest(table, reader, mode="append", db_schema_name=schema))
            except PrescoreError:
                if raised:
                    raise raised[0] from None
                raise


@contextmanager
def open_session(url: str, application_name: str = "prescore data") -> Iterator[Session]:
    """Open an ADBC connection that speaks the session settings of prescore; close it at the end."""
    try:
        connection = _connect(_address(url, COMMON))
    except adbc_driver_manager.Error as error:
        cause = "the connection was lost while it was opened" if _ENDED.search(str(error)) else _primary(str(error))
        raise DatabaseUnreachable(url, cause) from None
    meter = meter_in_use()
    session = Session(connection, url, meter)
    pid = None
    try:
        # Not in the address: what is known of a database is known by its address.
        session.execute(f"SET application_name = {literal(application_name)}", "Opening a session")
        session.table(load_query("forbid_transaction_timeout"), "Opening a session")
        if meter is not None:
            pid = session.table("SELECT pg_catalog.pg_backend_pid() AS pid").column("pid")[0].as_py()
            meter.begun(pid)
        yield session
    finally:
        if meter is not None and pid is not None:
            meter.ended(pid)
        with suppress(adbc_driver_manager.Error):
            connection.close()


class _Kept:
    """What the driver knows of a database, handed to a connection that would close it at its own end."""

    def __init__(self, database: adbc_driver_manager.AdbcDatabase) -> None:
        self.database = database

    def close(self) -> None:
        """Leave it open: other connections use it, and it holds none of its own."""


@lru_cache(maxsize=8)
def _known_database(address: str) -> _Kept:
    """Learn what types a database has, once in a process.

    The driver reads every type and every column of a database before it connects: measured 61 ms with the 4,164 columns of
    a database with nothing but prescore, where connecting takes 5. What is new since then it does not know by name, but
    what travels is of PostgreSQL's own types (the type table), whose numbers never change.
    """
    return _Kept(adbc_driver_postgresql.connect(address))


def _connect(address: str) -> adbc.Connection:
    kept: Any = _known_database(address)
    return adbc.Connection(kept, adbc_driver_manager.AdbcConnection(kept.database), autocommit=True)


@contextmanager
def open_snapshot_session(url: str, snapshot: str) -> Iterator[Session]:
    """Open a session that sees exactly what an exported snapshot sees, and can write nothing."""
    with open_session(url, READER) as session:
        for preparing in _seeing(snapshot):
            session.execute(preparing, "Reading in the snapshot of the run")
        session._snapshot = snapshot
        yield session


def _seeing(snapshot: str) -> tuple[str, str]:
    """Return what makes a connection see what an exported snapshot sees."""
    return _READ_ONLY, f"SET TRANSACTION SNAPSHOT {literal(snapshot)}"


def _address(url: str, application_name: str) -> str:
    """Return a URL for libpq, with the session settings of prescore."""
    parameters = urlencode(
        {**KEEPALIVES, "application_name": application_name, "options": session_options()}, quote_via=quote_plus
    )
    base = libpq_url(url)
    return f"{base}{'&' if '?' in base else '?'}{parameters.replace('+', '%20')}"


@contextmanager
def open_reading_session(url: str) -> Iterator[Session]:
    """Open a session in a READ ONLY transaction of its own, for `check` and training: nothing is written."""
    with open_session(url, READER) as session:
        session.execute(_READ_ONLY)
        yield session


def require_schema(table: str, found: pa.Schema, target: Sequence[Column]) -> None:
    """Refuse rows whose columns differ from the table's in name, order or Arrow type."""
    expected = type_table.schema_of(target)
    if found.names != expected.names:
        missing = [name for name in expected.names if name not in found.names]
        extra = [name for name in found.names if name not in expected.names]
        order = [] if missing or extra else ["the order of the columns differs"]
        differences = (
            [f"{name} is missing" for name in missing] + [f"{name} is not in the table" for name in extra] + order
        )
        raise SchemaDiffers(table, differences)
    differences = [
        f"{field.name} is {field.type}, the table needs {wanted.type}"
        for field, wanted in zip(found, expected, strict=True)
        if field.type != wanted.type
    ]
    if differences:
        raise SchemaDiffers(table, differences)


def table_columns(session: Session, schema: str, table: str) -> list[tuple[str, str]]:
    """Return name and SQL type of a table's columns from ``pg_attribute``, in order."""
    statement = load_query("list_columns", {"schema": literal(schema), "relation": literal(table)})
    return [(row["name"], row["type"]) for row in session.table(statement).to_pylist()]


def scrub(message: str, sqlstate: str | None) -> str:
    """Return a database message without data values: what is quoted goes unless the message speaks of names only."""
    first = _primary(message)
    if sqlstate is not None and sqlstate[:2] in _SAFE_CLASSES:
        return first
    if sqlstate == _RAISED:
        return "a function that it calls raised an exception (whose words are withheld: they may hold values)"
    found = _OUT_OF_RANGE.search(first)
    return _QUOTED.sub("(value withheld)", first) + (f" {found.group(1)}" if found else "")


def _read(reader: pa.RecordBatchReader, what: str) -> Iterator[pa.RecordBatch]:
    with _scrubbed(what):
        for batch in reader:
            if batch.num_rows:
                yield batch


def _decode(
    decoder: Decoder, connection: libpq.Connection, columns: Sequence[Column], what: str
) -> Iterator[pa.RecordBatch]:
    with _refused(what):
        yield from decoder.batches(connection, columns, BATCH_BYTES)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Say in our words what libpq or the decoder refused."""
    from tasks.compiled.rows import RowsDiffer

    try:
        yield
    except libpq.ServerRefused as error:
        raise _failed(what, str(error), error.sqlstate) from None
    except RowsDiffer as error:
        raise SchemaDiffers(what, [str(error)]) from None


@contextmanager
def _scrubbed(what: str) -> Iterator[None]:
    try:
        yield
    except adbc_driver_manager.Error as error:
        raise _failed(what, str(error), getattr(error, "sqlstate", None)) from None
    except OSError as error:  # read errors come bare from Arrow's stream
        found = _SQLSTATE.search(str(error))
        raise _failed(what, str(error), found.group(1) if found else None) from None


def _failed(what: str, message: str, sqlstate: str | None) -> StatementFailed:
    # What only reads, or only adds rows, fails to serialize nowhere but on a standby that has to go on.
    kind = ConflictWithRecovery if sqlstate == _SERIALIZATION else StatementFailed
    return kind(what, scrub(message, sqlstate), sqlstate)


def _primary(message: str) -> str:
    """Return PostgreSQL's own first line out of what the driver wrapped around it."""
    found = _SEVERITY.search(message)
    text = (message[found.end() :] if found else message).strip().splitlines()
    return text[0].strip().rstrip(".") if text else "no message"


def quoted_table(schema: str, table: str) -> str:
    """Return schema and table quoted for SQL."""
    return f"{quote(schema)}.{quote(table)}"
