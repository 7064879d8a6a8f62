"""C code of ours: compiled once for this machine, kept in a folder of ours, loaded.

A shared library that is loaded is code that runs with the rights of the caller. So it is only ever read from a folder
that belongs to the caller and that nobody else may write to, and its SHA-256 must be the one that was noted when it was
compiled: that finds what a full disk or a crash left behind. Whether it computes the right numbers is asked elsewhere, of
every run.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path

from tasks.embedded.folder import make_data_folder
from tasks.errors import DataFolderForeign, DataFolderUnusable


class NotCompiled(Exception):  # an answer, no error: it says why in words
    """This model, or this machine, has no compiled form; the message completes "..., because ..."."""


#: No option that lets the compiler change a number, nor use what another processor may lack: folders get shared.
_OPTIONS = ("-O3", "-std=c99", "-fPIC", "-shared", "-ffp-contract=off")

_COMPILERS = ("cc", "gcc", "clang")

#: The compiler of the extra ``fast``. Left to itself it compiles for the processor that it runs on, which others need not
#: be like, and its code for this one was measured to take 2.5 times as long.
_ZIG = ("-m", "ziglang", "cc", "-mcpu=baseline")

#: Compiling takes 0.3 s each, and that of the extra 5 s of CPU; a compiler that hangs must not keep a run for long.
_TIMEOUT_SECONDS = 120

#: What a compilation that was killed left behind goes with the next one, once it is so old that nobody can be at it.
_ABANDONED_SECONDS = 3600

_LIBRARY, _DIGEST, _BEGUN = "library.so", "library.so.sha256", ".begun-"

_loading = threading.Lock()


def load_library(folder: Path, name: str) -> ctypes.CDLL:
    """Return what ``name``.c makes, compiled into ``folder`` if it is not there yet.

    Any number of processes may do this at once: each compiles beside the others, and one of them is first to give the
    result its name.

    Raises
    ------
    NotCompiled
        Without a compiler, or where the folder is not safe.
    """
    with _loading:
        return _load(folder, name, source_key(name))


@cache
def source_key(name: str) -> str:
    """Return a name for what would be compiled here, 16 hex digits."""
    parts = (source_of(name), *_OPTIONS, sys.platform, platform.machine(), *platform.libc_ver())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def source_of(name: str) -> str:
    """Return the C code of a library."""
    return (resources.files("tasks.compiled") / f"{name}.c").read_text()


@cache
def _load(folder: Path, name: str, key: str) -> ctypes.CDLL:
    if not hasattr(os, "geteuid"):
        raise NotCompiled("prescore compiles on Linux and macOS only")
    require_safe(folder)
    place = folder / f"{name}-{key}"
    for _ in range(2):
        if not place.exists():
            _compile(folder, place, source_of(name))
        found = _intact(place)
        if found is not None:
            return _open(found)
        shutil.rmtree(place, ignore_errors=True)
    raise NotCompiled(f"{place} is damaged and cannot be made again")


def require_safe(folder: Path) -> None:
    """Make the folder, for its owner alone, or see to it that nobody else can have put something there.

    Raises
    ------
    NotCompiled
        When somebody else could have.
    """
    try:
        make_data_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        for path in (folder, folder.parent):
            found = path.lstat() if path == folder else path.stat()
            owned = found.st_uid == os.geteuid() or (path != folder and found.st_uid == 0)
            if not stat.S_ISDIR(found.st_mode) or not owned or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise NotCompiled(f"{path} is not a folder of this user that nobody else may write to")
    except DataFolderForeign as error:
        raise NotCompiled(f"{folder.parent} belongs to another user") from error
    except (OSError, DataFolderUnusable) as error:
        raise NotCompiled(f"{folder} cannot be used ({type(error).__name__})") from error


def _intact(place: Path) -> Path | None:
    """Return the library if it is what was compiled, and nobody else can have changed it."""
    try:
        found = (place / _LIBRARY).lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return None
        noted = (place / _DIGEST).read_text()
        data = (place / _LIBRARY).read_bytes()
    except (OSError, UnicodeDecodeError):
        return None
    return place / _LIBRARY if hashlib.sha256(data).hexdigest() == noted.strip() else None


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NotCompiled(f"{path} cannot be loaded") from error


# Compiling -------------------------------------------------------------------------------------------------------


def _compile(folder: Path, place: Path, code: str) -> None:
    """Compile into a folder of its own, which then gets its name: a kill leaves nothing half, and the first one wins."""
    compiler = find_compiler()
    _remove_abandoned(folder)
    begun = Path(tempfile.mkdtemp(prefix=_BEGUN, dir=folder))  # for its owner alone
    try:
        source = begun / "source.c"
        source.write_text(code)
        command = [*compiler, *_OPTIONS, "-o", str(begun / _LIBRARY), str(source)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
                env={**os.environ, **{f"ZIG_{scope}_CACHE_DIR": str(begun / "zig") for scope in ("GLOBAL", "LOCAL")}},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotCompiled(f"the C compiler {compiler[0]} did not work ({type(error).__name__})") from error
        if done.returncode:
            raise NotCompiled(f"the C compiler {compiler[0]} failed with exit code {done.returncode}")
        library = begun / _LIBRARY
        library.chmod(0o700)
        shutil.rmtree(begun / "zig", ignore_errors=True)
        (begun / _DIGEST).write_text(hashlib.sha256(library.read_bytes()).hexdigest() + "\n")
        with suppress(OSError):  # another process was first
            begun.rename(place)
    except OSError as error:
        raise NotCompiled(f"{folder} cannot be written to ({error.strerror})") from error
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def find_compiler() -> list[str]:
    """Return the command of the C compiler: CC, the first one on the PATH, or that of the extra ``fast``.

    Raises
    ------
    NotCompiled
    """
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [[name] for name in _COMPILERS]:
        found = shutil.which(command[0])
        if found:
            return [found, *command[1:]]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, *_ZIG]
    raise NotCompiled("there is no C compiler on this machine")


def _remove_abandoned(folder: Path) -> None:
    for left in folder.glob(f"{_BEGUN}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
