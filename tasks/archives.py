"""Zip files that strangers made: names and sizes are judged before anything is expanded.

A zip of a few kilobytes can say that it holds gigabytes, or say that it does not and expand to them all the same. So
nothing is read here but in small pieces, and never more of it than the archive was allowed.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.errors import ModelUnreadable, printable

#: Entries of a zip carry a date; ours carry the first one that zip can write, so that equal models are equal bytes.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)

#: How many times its own size an archive may expand to. Fitted models give 2 to 20; deflate can reach 1,032.
MOST_EXPANSION = 50

#: What a small archive may expand to all the same: such a model fits into memory everywhere.
ALWAYS_ALLOWED = 64 * 1024 * 1024

_PIECE = 1024 * 1024

_START = b"PK\x03\x04"

#: No folders, no "..", no drive: what is read here is never written to a disk, and whoever names such a member meant to.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")

_ENCRYPTED = 0x1


def is_archive(data: bytes) -> bool:
    """Return whether a file starts as a zip does; one that merely ends like a zip may be a pickle in its first part."""
    return data.startswith(_START)


@contextmanager
def open_archive(data: bytes, what: str, *, allowed: int = ALWAYS_ALLOWED) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose directory may be trusted as far as names and sizes go; read it with :func:`read_member`.

    Parameters
    ----------
    what
        What a message calls it, such as "the model file".
    allowed
        Bytes that it may expand to whatever its own size.

    Raises
    ------
    ModelUnreadable
        When it is damaged, holds two members of one name, members whose names are paths, encrypted ones or ones that
        were compressed in a way whose expansion cannot be bounded, or expands to too much.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, UnicodeError) as error:
        raise ModelUnreadable(
            f"{what} is damaged ({type(error).__name__})", "Copy it again, or save the model again."
        ) from error
    with archive:
        _require_plain(archive, what)
        _require_bounded(archive, what, max(allowed, MOST_EXPANSION * len(data)))
        yield archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member of an open archive: never more bytes than its directory said, whatever it expands to.

    Raises
    ------
    KeyError
        When there is none.
    ModelUnreadable
        When it is damaged.
    """
    pieces = []
    try:
        with archive.open(name) as member:
            while piece := member.read(_PIECE):
                pieces.append(piece)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, RuntimeError, zlib.error) as error:
        raise ModelUnreadable(
            f"its member {printable(name)} is damaged ({type(error).__name__})",
            "Copy it again, or save the model again.",
        ) from error
    return b"".join(pieces)


def unpacked(data: bytes, what: str) -> bytes:
    """Return an archive with every member as it is: readers that expand without a bound have nothing to expand.

    The same bytes when nothing in it is compressed, as in what prescore and skops write.

    Raises
    ------
    ModelUnreadable
        As :func:`open_archive` and :func:`read_member` do.
    """
    with open_archive(data, what) as archive:
        if all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist()):
            return data
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
            for name in archive.namelist():
                target.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), read_member(archive, name))
    return out.getvalue()


def _require_plain(archive: zipfile.ZipFile, what: str) -> None:
    names = archive.namelist()
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ModelUnreadable(
            f"{what} holds {printable(twice[0])} more than once, so that one of them is hidden",
            "No program writes such a file by accident: find out where it comes from.",
        )
    paths = sorted(name for name in names if not _PLAIN_NAME.fullmatch(name))
    if paths:
        raise ModelUnreadable(
            f"{what} holds a member of the name {printable(paths[0])}, which is a path",
            "No program writes such a model by accident: find out where it comes from.",
        )


def _require_bounded(archive: zipfile.ZipFile, what: str, limit: int) -> None:
    for entry in archive.infolist():
        # BZIP2 and LZMA are expanded without a bound by zipfile, however little is asked for.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & _ENCRYPTED:
            raise ModelUnreadable(
                f"{what} holds {printable(entry.filename)} encrypted, or compressed otherwise than by deflate",
                "Save the model without compression.",
            )
    total = sum(entry.file_size for entry in archive.infolist())
    if total > limit:
        raise ModelUnreadable(
            f"{what} would expand to {total:,} bytes, {limit:,} are allowed for its size; nothing was expanded",
            "If the model really is that large, save it without compression.",
        )
