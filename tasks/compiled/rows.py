"""Rows of a binary COPY as Arrow batches, decoded by compiled code; how it reads them is told in rows.c.

Reading takes a third of the CPU time that the driver of the data path takes, which decodes with code that was built without
optimisation. Where this cannot be had, because there is no C compiler, or a column has a type that only outputs have, that
driver reads.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.columns import Column, schema_of
from tasks.compiled.library import NotCompiled, load_library
from tasks.libpq import Connection, LibpqMissing, load_libpq

#: Name of the library, and of its source.
ROWS = "rows"

#: PostgreSQL counts days and microseconds from 2000-01-01 on, Arrow from 1970-01-01.
_DAYS = 10_957
_MICROSECONDS = _DAYS * 86_400_000_000

#: Bytes that a text usually has, for the first batch; the next ones are made by what the one before had.
_USUAL_TEXT = 16

_SERVER, _MALFORMED, _OTHER_WIDTH, _NO_ROOM = 1, 2, 3, 4


class RowsDiffer(Exception):
    """What came is not what the columns say; the message names the column."""


class _Column(ctypes.Structure):
    _fields_ = (
        ("width", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("shift", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("valid", ctypes.c_void_p),
        ("room", ctypes.c_int64),
        ("missing", ctypes.c_int64),
    )


class _Source(ctypes.Structure):
    _fields_ = (
        ("connection", ctypes.c_void_p),
        ("get", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("row", ctypes.c_void_p),
        ("length", ctypes.c_int32),
        ("at", ctypes.c_int32),
        ("begun", ctypes.c_int32),
        ("ended", ctypes.c_int32),
        ("failed", ctypes.c_int32),
        ("where", ctypes.c_int32),
    )


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """The loaded library."""

    library: ctypes.CDLL = field(repr=False)

    def decodes(self, columns: Sequence[Column]) -> bool:
        """Return whether columns have types that this decodes: all those of keys and features."""
        return all(_width(column.arrow_type) is not None for column in columns)

    def batches(
        self, connection: Connection | _Rehearsal, columns: Sequence[Column], batch_bytes: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a COPY that was begun, in batches of about so many bytes as they travel; none is empty.

        Parameters
        ----------
        connection
            Where the COPY was begun; it is at its end when all batches were taken.
        columns
            What the query returns, in order.
        batch_bytes
            Bytes of a batch, not counting that one row may be larger.

        Raises
        ------
        ServerRefused
            When the server stops in the middle.
        RowsDiffer
            When a column is of another type, or there are more or fewer.
        """
        schema = schema_of(columns)
        widths = [_width(kind) or 0 for kind in schema.types]
        texts = [_USUAL_TEXT] * len(widths)
        most = max(1, batch_bytes // (2 + sum(4 + (width or _USUAL_TEXT) for width in widths)))
        libpq = connection.library
        source = _Source(
            connection=connection.pointer,
            get=ctypes.cast(libpq.PQgetCopyData, ctypes.c_void_p),
            release=ctypes.cast(libpq.PQfreemem, ctypes.c_void_p),
        )
        wanted = 0
        try:
            while not source.ended:
                batch = _Batch.make(schema, widths, [max(wanted, size * most) for size in texts], most)
                rows = self.library.prescore_read_rows(ctypes.byref(source), batch.columns, len(widths), most)
                wanted = 0
                if source.failed == _NO_ROOM:
                    source.failed, wanted = 0, source.length
                elif source.failed == _SERVER:
                    connection.end_copy()
                    raise RowsDiffer("the server stopped without saying why")
                elif source.failed:
                    differs = "has another width" if source.failed == _OTHER_WIDTH else "is not where it should be"
                    raise RowsDiffer(f"column {schema.names[source.where]} {differs}")
                if rows:
                    made = batch.finished(rows)
                    texts = [max(_USUAL_TEXT, min(2 * size // rows, batch_bytes // most)) for size in batch.used(rows)]
                    del batch
                    yield made
                    del made
        finally:
            self.library.prescore_end_rows(ctypes.byref(source))
        connection.end_copy()


def load_decoder(folder: Path) -> Decoder:
    """Return the library, compiled into ``folder`` if it is not there yet.

    Raises
    ------
    NotCompiled
        Without a compiler, or where the folder is not safe; where libpq cannot be called.
    """
    try:
        load_libpq()
    except LibpqMissing as error:
        raise NotCompiled(str(error)) from error
    library = load_library(folder, ROWS)
    try:
        read, end = library.prescore_read_rows, library.prescore_end_rows
    except AttributeError as error:
        raise NotCompiled("the library lacks a function") from error
    read.restype, end.restype = ctypes.c_int64, None
    read.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64]
    end.argtypes = [ctypes.c_void_p]
    decoder = Decoder(library=library)
    rehearsal = _Rehearsal()
    try:
        found = pa.Table.from_batches(decoder.batches(rehearsal, _Rehearsal.columns, 1))
    except (RowsDiffer, ValueError) as error:
        raise NotCompiled(f"its library does not decode what is known ({error})") from error
    if not found.equals(_Rehearsal.expected):
        raise NotCompiled("its library decodes what is known otherwise")
    return decoder


class _Rehearsal:
    """Rows of every width as a server sends them, decoded once before any others are: a value, and a missing one."""

    columns = tuple(
        Column(name=kind, postgres_type=kind)
        for kind in (
            *("bigint", "integer", "smallint", "boolean", "text", "double precision", "date"),
            "timestamp with time zone",
        )
    )
    expected = pa.table(
        [
            pa.array([-2, None], pa.int64()),
            pa.array([3, None], pa.int32()),
            pa.array([-4, None], pa.int16()),
            pa.array([True, None], pa.bool_()),
            pa.array(["\u00e9t\u00e9", None], pa.string()),
            pa.array([0.1, None], pa.float64()),
            pa.array([10_956, None], pa.date32()),
            pa.array([946_684_800_000_001, None], pa.timestamp("us", "UTC")),
        ],
        schema=schema_of(columns),
    )
    pointer = 0

    def __init__(self) -> None:
        values = (
            *(struct.pack(">q", -2), struct.pack(">i", 3), struct.pack(">h", -4), b"\1", "\u00e9t\u00e9".encode()),
            *(struct.pack(">d", 0.1), struct.pack(">i", -1), struct.pack(">q", 1)),
        )
        count = struct.pack(">h", len(values))
        header = b"PGCOPY\n\377\r\n\0" + bytes(8)
        self._messages = [
            header + count + b"".join(struct.pack(">i", len(value)) + value for value in values),
            count + struct.pack(">i", -1) * len(values),
            struct.pack(">h", -1),
        ]
        self._sent: list[ctypes.Array[ctypes.c_char]] = []
        self.library = self
        self.PQgetCopyData = _GET(self._get)
        self.PQfreemem = _RELEASE(lambda row: None)

    def _get(self, connection: int, row: Any, wait: int) -> int:
        if len(self._sent) == len(self._messages):
            return -1
        message = self._messages[len(self._sent)]
        self._sent.append(ctypes.create_string_buffer(message, len(message)))
        row[0] = ctypes.addressof(self._sent[-1])
        return len(message)

    def end_copy(self) -> None:
        """Nothing is left to be asked."""


_GET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int)
_RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """The memory of a batch."""

    schema: pa.Schema
    columns: ctypes.Array[_Column]
    #: For each column: validity, offsets (None but for texts), values.
    buffers: list[tuple[pa.Buffer, pa.Buffer | None, pa.Buffer]]

    @classmethod
    def make(cls, schema: pa.Schema, widths: Sequence[int], texts: Sequence[int], most: int) -> _Batch:
        columns = (_Column * len(widths))()
        buffers = []
        bits = (most + 7) // 8
        for column, kind, width, text in zip(columns, schema.types, widths, texts, strict=True):
            valid = pa.allocate_buffer(bits)
            offsets = None if width else pa.allocate_buffer(4 * (most + 1))
            size = text if not width else bits if pa.types.is_boolean(kind) else width * most
            values = pa.allocate_buffer(size)
            column.width, column.shift = width, _shift(kind)
            column.values, column.valid, column.room = values.address, valid.address, size
            if offsets is not None:
                column.offsets = offsets.address
                ctypes.c_int32.from_address(offsets.address).value = 0
            buffers.append((valid, offsets, values))
        return cls(schema=schema, columns=columns, buffers=buffers)

    def finished(self, rows: int) -> pa.RecordBatch:
        """Return the first rows as Arrow has them."""
        arrays = []
        for column, kind, (valid, offsets, values) in zip(self.columns, self.schema.types, self.buffers, strict=True):
            parts = [valid if column.missing else None, *([] if offsets is None else [offsets]), values]
            arrays.append(pa.Array.from_buffers(kind, rows, parts, null_count=column.missing))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def used(self, rows: int) -> list[int]:
        """Return the bytes of the texts of each column; 0 for others."""
        offsets = [offsets for _, offsets, _ in self.buffers]
        return [0 if at is None else ctypes.c_int32.from_address(at.address + 4 * rows).value for at in offsets]


def _width(kind: pa.DataType) -> int | None:
    """Return the bytes of a value as it travels, 0 for a text; None for what is not decoded here."""
    if pa.types.is_string(kind):
        return 0
    if pa.types.is_boolean(kind):
        return 1
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_date32(kind)
        or pa.types.is_timestamp(kind)
    ):
        return int(kind.bit_width) // 8
    return None


def _shift(kind: pa.DataType) -> int:
    if pa.types.is_date32(kind):
        return _DAYS
    return _MICROSECONDS if pa.types.is_timestamp(kind) else 0
