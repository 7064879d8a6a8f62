"""Disk: what a run is about to write, and what is free where it goes, as far as that can be seen from here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tasks.columns import Column
from tasks.database import one
from tasks.readers import Objects

# Bytes of a row besides its columns: 23 of header and 4 of item pointer, each rounded up; of an index entry 8 and 4. Leaves of an
# index that grows at random are two thirds full.
ROW_OVERHEAD, ENTRY_OVERHEAD, INDEX_FILL = 28, 12, 0.66
# storage_id, as_of and scored_in, each at its alignment.
_OWN_BYTES = 24
_BYTES = {"smallint": 8, "integer": 8, "real": 8, "boolean": 8, "date": 8, "uuid": 16}
# A guess, used only until there is a publication to measure: names and ids are about as long.
_TEXT_BYTES, _ARRAY_BYTES = 24, 120
# The log holds what is written to rows and indexes once more, with whole pages after a checkpoint: 1.1 to 1.5 times as much, in
# loads of 300,000 and of 2 million rows.
WAL_SHARE = 1.5
# What is left on a disk for others: a full disk stops the whole server.
SPARE_BYTES = 256 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a run writes."""

    rows: int
    #: Of a row with its indexes.
    row_bytes: float
    #: The size of a row is that of those that are served, not reckoned from the types of its columns.
    measured: bool
    #: Of rows and indexes beyond what the storage takes already.
    rows_total: int
    wal_total: int

    @property
    def total(self) -> int:
        """Bytes that have to be free."""
        return self.rows_total + self.wal_total

    @property
    def told(self) -> str:
        """The calculation, for people."""
        how = "as served now" if self.measured else "reckoned from the column types"
        return (
            f"{self.rows:,} rows of {self.row_bytes:,.0f} bytes with their indexes ({how}) take {megabytes(self.rows_total)} more, "
            f"the write-ahead log up to {megabytes(self.wal_total)}"
        )


@dataclass(frozen=True, kw_only=True)
class Free:
    """What is free where the rows go."""

    #: None when it cannot be seen from here.
    free_bytes: int | None
    #: Why it cannot be seen, as a clause; empty otherwise.
    because: str = ""


def look(
    connection: sa.Connection, objects: Objects, rows: int, merged: bool, served: tuple[int, int] | None
) -> tuple[Need, Free]:
    """Return what writing ``rows`` rows needs, and what is free.

    ``merged`` rows are written twice: staged, and then put beside those that are served. ``served`` is the storage that is
    served and how many rows it has.
    """
    to_fill = one(connection, "find_storage", pipeline=objects.pipeline, role="next")
    storage = None if to_fill is None else objects.storage(to_fill.storage_id)
    current = None if served is None else objects.storage(served[0])
    found = one(connection, "describe_space", storage=storage, served=current)
    connection.rollback()
    count = 0 if served is None else served[1]
    measured = count > 0 and found.served_bytes > 0
    row_bytes = found.served_bytes / count if measured else width_of((*objects.key, *objects.outputs), objects)
    written = int(rows * row_bytes * (2 if merged else 1))
    need = Need(
        rows=rows,
        row_bytes=row_bytes,
        measured=measured,
        rows_total=max(0, written - found.storage_bytes),
        wal_total=min(int(WAL_SHARE * written), found.most_wal),
    )
    return need, _free(found)


def look_around(connection: sa.Connection) -> Free:
    """Return what is free on the server's disk, whatever is to be written there."""
    found = one(connection, "describe_space", storage=None, served=None)
    connection.rollback()
    return _free(found)


def width_of(columns: Sequence[Column], objects: Objects) -> float:
    """Return about how many bytes a row takes with its indexes, reckoned from the types of its columns."""
    entries = [sum(_bytes(column) for column in objects.key) + 8]
    entries += [_bytes(column) for column in objects.outputs if column.name in objects.indexed]
    indexes = sum((entry + ENTRY_OVERHEAD) / INDEX_FILL for entry in entries)
    return ROW_OVERHEAD + _OWN_BYTES + sum(_bytes(column) for column in columns) + indexes


def megabytes(count: float) -> str:
    """Return bytes in words."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def _bytes(column: Column) -> int:
    if column.postgres_type.endswith("[]"):
        return _ARRAY_BYTES
    return _TEXT_BYTES if column.postgres_type == "text" else _BYTES.get(column.postgres_type, 8)


def _free(found: Any) -> Free:
    if found.data_directory is None:
        return Free(
            free_bytes=None, because="this role may not see where the server keeps its files (pg_read_all_settings may)"
        )
    if not _is_here(found):
        return Free(free_bytes=None, because="the server runs on another machine")
    places = {found.tablespace or found.data_directory, found.data_directory}
    try:
        return Free(free_bytes=min(free_at(place) for place in places))
    except OSError:
        return Free(free_bytes=None, because="the folder of the server cannot be reached from here")


def free_at(place: str) -> int:
    """Return the bytes that are free for others than the superuser on the file system of a folder."""
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def _is_here(found: Any) -> bool:
    """Say whether the server's folder is one of this machine: its backend of this connection is a process here.

    An address on loopback proves nothing (it may be a tunnel), nor does a folder of that name.
    """
    if not sys.platform.startswith("linux"):
        return found.server_address in {None, "127.0.0.1", "::1"} and Path(found.data_directory).exists()
    try:
        return Path(f"/proc/{found.backend_pid}/comm").read_text(encoding="ascii").strip() == "postgres"
    except (OSError, ValueError):
        return False
