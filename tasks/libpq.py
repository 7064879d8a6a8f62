"""A connection of libpq's own, for what neither driver hands out: the rows of a COPY as they come from the server.

psycopg2 brings the library along and has loaded it; its functions are found through psycopg2's own module. What is used of
them has been part of libpq since long ago and is documented there ("libpq: C Library").
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import psycopg2._psycopg

# Values of libpq-fe.h that are part of its interface: ConnStatusType, ExecStatusType, and the field of an SQLSTATE.
_CONNECTION_OK = 0
_COMMAND_OK, _TUPLES_OK, _COPY_OUT = 1, 2, 3
_SQLSTATE = ord("C")


class LibpqMissing(Exception):  # an answer, no error
    """psycopg2 was built so that its libpq cannot be called from here."""


class ServerRefused(Exception):
    """The server, or the way to it, refused; the message is libpq's own and may hold values."""

    def __init__(self, message: str, sqlstate: str | None) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class Connection:
    """One connection; used by one thread at a time, but for ``cancel``."""

    def __init__(self, library: ctypes.CDLL, pointer: int) -> None:
        self.library, self.pointer = library, pointer
        self._cancel: int | None = library.PQgetCancel(pointer)
        self._cancelling = threading.Lock()

    @property
    def backend_pid(self) -> int:
        """Process id of the server's side."""
        return int(self.library.PQbackendPID(self.pointer))

    def execute(self, statement: str) -> None:
        """Run a statement that begins no COPY.

        Raises
        ------
        ServerRefused
        """
        self._require(self.library.PQexec(self.pointer, statement.encode()), _COMMAND_OK, _TUPLES_OK)

    def begin_copy(self, query: str) -> None:
        """Begin to copy the rows of a query, in binary; ``PQgetCopyData`` hands them out.

        Raises
        ------
        ServerRefused
        """
        statement = f"COPY (\n{query}\n) TO STDOUT (FORMAT binary)"
        self._require(self.library.PQexec(self.pointer, statement.encode()), _COPY_OUT)

    def end_copy(self) -> None:
        """Ask how a COPY ended of which all rows were taken, or whose rows the server stopped sending.

        Raises
        ------
        ServerRefused
        """
        self._require(self.library.PQgetResult(self.pointer), _COMMAND_OK)

    def cancel(self) -> None:
        """Ask the server to end what it works on; from any thread, and without effect once the connection is closed."""
        with self._cancelling:
            if self._cancel is not None:
                self.library.PQcancel(self._cancel, ctypes.create_string_buffer(256), 256)

    def close(self) -> None:
        """Close the connection; nothing happens the second time."""
        with self._cancelling:
            if self._cancel is None:
                return
            self.library.PQfreeCancel(self._cancel)
            self._cancel = None
        self.library.PQfinish(self.pointer)

    def _require(self, result: int | None, *wanted: int) -> None:
        status = self.library.PQresultStatus(result)
        if status in wanted:
            self.library.PQclear(result)
            return
        sqlstate = self.library.PQresultErrorField(result, _SQLSTATE)
        message = self.library.PQresultErrorMessage(result) or self.library.PQerrorMessage(self.pointer)
        self.library.PQclear(result)
        raise ServerRefused(_text(message), sqlstate.decode() if sqlstate else None)


@contextmanager
def open_connection(address: str) -> Iterator[Connection]:
    """Open a connection to an address as libpq takes it, whose texts are UTF-8; close it at the end.

    Raises
    ------
    LibpqMissing
    ServerRefused
        When it cannot be opened.
    """
    library = load_libpq()
    pointer = library.PQconnectdb(address.encode())
    if library.PQstatus(pointer) != _CONNECTION_OK:
        message = _text(library.PQerrorMessage(pointer))
        library.PQfinish(pointer)
        raise ServerRefused(message, None)
    connection = Connection(library, pointer)
    try:
        library.PQsetClientEncoding(pointer, b"UTF8")
        yield connection
    finally:
        connection.close()


@cache
def load_libpq() -> ctypes.CDLL:
    """Return the library that psycopg2 uses.

    Raises
    ------
    LibpqMissing
    """
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    try:
        library = ctypes.CDLL(psycopg2._psycopg.__file__)
        for name, result, *taken in (
            ("PQconnectdb", pointer, text),
            ("PQstatus", number, pointer),
            ("PQerrorMessage", text, pointer),
            ("PQsetClientEncoding", number, pointer, text),
            ("PQbackendPID", number, pointer),
            ("PQexec", pointer, pointer, text),
            ("PQgetResult", pointer, pointer),
            ("PQresultStatus", number, pointer),
            ("PQresultErrorField", text, pointer, number),
            ("PQresultErrorMessage", text, pointer),
            ("PQclear", None, pointer),
            ("PQgetCancel", pointer, pointer),
            ("PQcancel", number, pointer, text, number),
            ("PQfreeCancel", None, pointer),
            ("PQfinish", None, pointer),
            ("PQgetCopyData", number, pointer, pointer, number),
            ("PQfreemem", None, pointer),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, taken
    except (OSError, AttributeError) as error:
        raise LibpqMissing(f"psycopg2's libpq cannot be called ({type(error).__name__})") from error
    return library


def _text(message: bytes | None) -> str:
    return (message or b"").decode("utf-8", "replace").strip()
