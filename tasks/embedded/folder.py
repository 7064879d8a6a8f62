"""The files of a data folder: where they are, who may read them, and the lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.errors import DataFolderForeign, DataFolderUnusable

DATABASE = "prescore"
ROLE = "prescore"
MAJOR = 18


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What differs between the server of a user and a throw-away server of the tests."""

    #: A bin folder that is used where it is; None copies the package's binaries into the data folder.
    binaries: Path | None = None
    #: Lines of the server's configuration, over SETTINGS.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: False does not force the new cluster to disk.
    durable: bool = True


@dataclass(frozen=True, kw_only=True)
class Place:
    """The files of one data folder."""

    data_dir: Path

    @property
    def cluster(self) -> Path:
        return self.data_dir / "cluster"

    @property
    def password(self) -> Path:
        return self.data_dir / "password"

    @property
    def state(self) -> Path:
        return self.data_dir / "server.json"

    @property
    def lock(self) -> Path:
        return self.data_dir / "lock"

    @property
    def binaries(self) -> Path:
        return self.data_dir / "binaries"

    @property
    def postmaster(self) -> Path:
        return self.cluster / "postmaster.pid"

    @property
    def log_folder(self) -> Path:
        return self.cluster / "log"

    @property
    def start_log(self) -> Path:
        return self.cluster / "start.log"


@dataclass(frozen=True, kw_only=True)
class State:
    """What one command remembers for the next; all of it can be chosen again."""

    port: int | None = None
    socket_folder: str | None = None
    #: The process that was found complete: up, and with its database.
    ready_pid: int | None = None
    #: The bin folder that the server was started from.
    binaries: str | None = None


def read_state(place: Place) -> State:
    """Return what was remembered; nothing when the file is missing or damaged."""
    try:
        return State(**json.loads(place.state.read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return State()


def remember(place: Place, **facts: Any) -> None:
    """Change some of the remembered facts; needs the lock."""
    write_file(place.state, json.dumps(vars(replace(read_state(place), **facts))), mode=0o644)


def read_password(place: Place) -> str | None:
    """Return the password of the role, None when its file is missing or empty."""
    try:
        return place.password.read_text().strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_new_password(place: Place) -> str:
    """Choose a password and store it for the owner's eyes only."""
    password = secrets.token_hex(16)
    write_file(place.password, password + "\n", mode=0o600)
    return password


def write_file(path: Path, text: str, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Replace a file in one step, so that a reader or a kill never meets half of it; owner is (user id, group id)."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
        os.fchmod(stream.fileno(), mode)
        if owner is not None:
            os.fchown(stream.fileno(), *owner)
    os.replace(temporary, path)


@contextlib.contextmanager
def locked(place: Place) -> Iterator[int]:
    """Hold the data folder's lock and give its file descriptor.

    The lock belongs to the open file, so it goes when its process dies, however it dies.
    """
    make_data_folder(place.data_dir)
    try:
        handle = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DataFolderUnusable(place.data_dir, error.strerror or str(error)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def make_data_folder(folder: Path) -> None:
    """Create the folder and what is missing above it; a folder that exists keeps its mode and must be the caller's."""
    if not os.path.lexists(folder):
        # Others need to pass through root's folder: the server's account, and whoever connects by the socket.
        mode = 0o755 if os.geteuid() == 0 else 0o700
        try:
            missing = [folder, *(parent for parent in folder.parents if not parent.exists())]
            for path in reversed(missing):
                with contextlib.suppress(FileExistsError):
                    path.mkdir(mode=mode)
                    path.chmod(mode)
        except OSError as error:
            raise DataFolderUnusable(folder, error.strerror or str(error)) from error
    require_own(folder)


def require_own(folder: Path) -> None:
    """Refuse a data folder that is none, or another user's: its files would be closed to one of the two."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataFolderUnusable(folder, error.strerror or str(error)) from error
    if not stat.S_ISDIR(found.st_mode):
        raise DataFolderUnusable(folder, "it is not a folder")
    if found.st_uid != os.geteuid():
        raise DataFolderForeign(folder, account_name(found.st_uid), account_name(os.geteuid()))


def account_name(uid: int) -> str:
    """Return the name of a user, the number when it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
