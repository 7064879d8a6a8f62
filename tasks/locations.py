"""Locations of files: a path or an fsspec URL, and the file system behind it.

Credentials come from where the store's own library looks for them (environment, files, roles), never from pipeline.toml:
its text is kept in the database, word for word.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tasks.errors import PrescoreError, printable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: What an I/O library may raise: its own errors are no subclasses of OSError in every store (botocore, gcsfs, azure).
STORE_ERRORS: tuple[type[Exception], ...] = (Exception,)


class LocationUnusable(PrescoreError):
    """A path or URL cannot be read or written."""

    def __init__(self, location: str, differs: str, remedy: str) -> None:
        self.location, self.differs = location, differs
        super().__init__(f"{location} cannot be used: {differs}. What is published is served as before. {remedy}")


def is_url(location: str) -> bool:
    """Return whether a location names a store: ``s3://bucket/folder``; else it is a path on this machine."""
    return "://" in location


def location_problem(location: str) -> str | None:
    """Return why a text is no location, or None. Secrets are refused: they would be stored with the declaration."""
    if not location.strip() or "\x00" in location or len(location) > 2000:
        return "expected a path or a URL such as s3://bucket/folder"
    if not is_url(location):
        return None
    parts = urlsplit(location)
    if parts.password or (parts.username and ":" in parts.netloc.rpartition("@")[0]):
        return "holds a password, which would be stored with the declaration; give it to the store's library instead"
    if parts.query:
        return "holds options behind a question mark, which would be stored; set them where the store's library looks"
    return None


def open_location(location: str, folder: Path | None = None) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a location, and the path in it without a trailing slash.

    A relative path counts from ``folder``. What fsspec has no library for (``s3://`` without s3fs) is opened by pyarrow's
    own file systems where it has one.

    Raises
    ------
    LocationUnusable
        When no library knows the protocol, or the store cannot be opened.
    """
    import fsspec
    from fsspec.core import url_to_fs

    if not is_url(location):
        path = os.path.abspath((folder or Path.cwd()) / os.path.expanduser(location))
        return fsspec.filesystem("file", auto_mkdir=False), path
    try:
        filesystem, path = url_to_fs(location)
    except (ImportError, ValueError) as error:
        try:
            filesystem, path = _by_pyarrow(location)
        except Exception as other:
            protocol = printable(location.partition("://")[0])
            raise LocationUnusable(
                location,
                f"fsspec has no library here that opens {protocol}:// ({type(error).__name__}), and pyarrow does not open it "
                f"either ({type(other).__name__})",
                "Install the one that fsspec names for it, such as s3fs, gcsfs or adlfs.",
            ) from None
    except STORE_ERRORS as error:
        raise unusable(location, error) from None
    return filesystem, path.rstrip("/") or path


def _by_pyarrow(location: str) -> tuple[Any, str]:
    """Open a location with pyarrow's own file systems; raises whatever they raise."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if location.startswith("s3://") and region:  # else it asks the bucket where it is, by another address
        return ArrowFSWrapper(fs.S3FileSystem(region=region)), location.removeprefix("s3://")
    filesystem, path = fs.FileSystem.from_uri(location)
    return ArrowFSWrapper(filesystem), path


def is_local(filesystem: AbstractFileSystem) -> bool:
    """Return whether files lie on this machine, where a folder can be renamed at once."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(filesystem, LocalFileSystem)


def for_arrow(filesystem: AbstractFileSystem) -> Any:
    """Return the same file system as pyarrow reads it; its own where it has one, which is quicker."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

    if is_local(filesystem):
        return LocalFileSystem()
    if isinstance(filesystem, ArrowFSWrapper):
        return filesystem.fs
    return PyFileSystem(FSSpecHandler(filesystem))


@contextmanager
def using(location: str) -> Iterator[None]:
    """Let what a store raises come as :class:`LocationUnusable`; errors of prescore pass unchanged."""
    try:
        yield
    except PrescoreError:
        raise
    except STORE_ERRORS as error:
        raise unusable(location, error) from error


def unusable(location: str, error: Exception) -> LocationUnusable:
    """Return what a store's error is to people: its kind, and the system's own words, which hold no values."""
    words = f", {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return LocationUnusable(
        location,
        f"{type(error).__name__}{words}",
        "Check the address, the rights and the credentials that this process has, and run again.",
    )
