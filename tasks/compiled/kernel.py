"""The C code that walks trees: compiled once for this machine, kept in a folder of ours, loaded, called.

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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.compiled.forests import Forest, NotCompiled
from tasks.embedded.folder import make_data_folder
from tasks.errors import DataFolderForeign, DataFolderUnusable

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: No option that lets the compiler change a number, nor use what another processor may lack: folders get shared.
_OPTIONS = ("-O3", "-std=c99", "-fPIC", "-shared", "-ffp-contract=off")

_COMPILERS = ("cc", "gcc", "clang")

#: The compiler of the extra ``fast``. Left to itself it compiles for the processor that it runs on, which others need not
#: be like, and its code for this one was measured to take 2.5 times as long.
_ZIG = ("-m", "ziglang", "cc", "-mcpu=baseline")

#: Compiling takes 0.3 s, and that of the extra 5 s of CPU; a compiler that hangs must not keep a run for long.
_TIMEOUT_SECONDS = 120

#: What a compilation that was killed left behind goes with the next one, once it is so old that nobody can be at it.
_ABANDONED_SECONDS = 3600

_LIBRARY, _DIGEST, _BEGUN = "trees.so", "trees.so.sha256", ".begun-"

#: Fewer rows than this are not worth another thread.
_ROWS_PER_THREAD = 4096


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """The loaded library."""

    #: What was compiled, how, and for which kind of machine: 16 hex digits.
    key: str
    library: ctypes.CDLL = field(repr=False)

    def bind(self, forest: Forest, threads: int = 1) -> BoundKernel:
        """Return the function that adds up the leaves of one forest."""
        return BoundKernel(kernel=self, forest=forest, threads=threads)


@dataclass(frozen=True, kw_only=True)
class BoundKernel:
    """The library with the tables of one forest."""

    kernel: Kernel = field(repr=False)
    forest: Forest = field(repr=False)
    #: Threads that rows are divided among.
    threads: int = 1

    def sums(self, columns: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], int]:
        """Return the sums of the leaves, shape ``(n_rows, n_outputs)``, and what the kernel met on the way.

        Parameters
        ----------
        columns
            ``n_features`` contiguous float64 arrays of the same length; NaN is missing.
        """
        forest = self.forest
        rows = len(columns[0])
        if len(columns) != forest.n_features:
            raise ValueError(f"{len(columns)} columns for trees that look at {forest.n_features}")
        for column in columns:
            if column.dtype != np.float64 or column.shape != (rows,) or not column.flags.c_contiguous:
                raise ValueError("a column is not contiguous float64 of the length of the others")
        out = np.empty((rows, len(forest.baseline)), dtype=np.float64)
        pointers = (ctypes.c_void_p * len(columns))(*(column.ctypes.data for column in columns))
        parts = max(1, min(self.threads, rows // _ROWS_PER_THREAD))
        bounds = [rows * part // parts for part in range(parts + 1)]

        def work(part: int) -> int:
            return self._walk(pointers, bounds[part], bounds[part + 1], out)

        if parts == 1:
            flags = [work(0)]
        else:
            with ThreadPoolExecutor(parts) as pool:
                flags = list(pool.map(work, range(parts)))
        if min(flags) < 0:
            raise MemoryError("no memory for a block of rows")
        return out, int(np.bitwise_or.reduce(flags))

    def _walk(self, pointers: Any, start: int, stop: int, out: NDArray[np.float64]) -> int:
        forest, library = self.forest, self.kernel.library
        work = library.prescore_sum_trees if forest.masks is None else library.prescore_sum_masks
        found: int = work(
            pointers, start, stop, forest.n_features, int(forest.as_float), *self._tables, out.ctypes.data
        )
        return found

    @cached_property
    def _tables(self) -> tuple[Any, ...]:
        f, m = self.forest, self.forest.masks
        if m is not None:
            return (
                *(m.kinds.ctypes.data, m.thresholds.ctypes.data, m.first_asked.ctypes.data, m.asked.ctypes.data),
                *(m.words.ctypes.data, int(m.words.itemsize == 8), m.values.ctypes.data, m.values.shape[1]),
                *(m.first_leaf.ctypes.data, len(m.first_leaf), len(f.baseline), f.baseline.ctypes.data),
            )
        sets = f.sets.ctypes.data if len(f.sets) else None
        return (
            *(f.nodes.ctypes.data, f.values.ctypes.data, f.values.shape[1]),
            *(f.roots.ctypes.data, f.depths.ctypes.data, f.certain.ctypes.data, len(f.roots)),
            *(len(f.baseline), sets, f.baseline.ctypes.data),
        )


_loading = threading.Lock()


def load_kernel(folder: Path) -> Kernel:
    """Return the library, compiled into ``folder`` if it is not there yet.

    Any number of processes may do this at once: each compiles beside the others, and one of them is first to give the
    result its name.

    Raises
    ------
    NotCompiled
        Without a compiler, or where the folder is not safe.
    """
    with _loading:
        return _load(folder, source_key())


@cache
def source_key() -> str:
    """Return a name for what would be compiled here, 16 hex digits."""
    parts = (_source(), *_OPTIONS, sys.platform, platform.machine(), *platform.libc_ver())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def _load(folder: Path, key: str) -> Kernel:
    if not hasattr(os, "geteuid"):
        raise NotCompiled("prescore compiles on Linux and macOS only")
    require_safe(folder)
    place = folder / f"trees-{key}"
    for _ in range(2):
        if not place.exists():
            _compile(folder, place)
        found = _intact(place)
        if found is not None:
            return Kernel(key=key, library=_open(found))
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
        library = ctypes.CDLL(str(path))
        by_walking, by_masks = library.prescore_sum_trees, library.prescore_sum_masks
    except (OSError, AttributeError) as error:
        raise NotCompiled(f"{path} cannot be loaded") from error
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    small = ctypes.c_int32
    by_walking.restype = by_masks.restype = small
    by_walking.argtypes = [
        *(pointer, integer, integer, integer, small),
        *(pointer, pointer, integer, pointer, pointer, pointer, integer),
        *(integer, pointer, pointer, pointer),
    ]
    by_masks.argtypes = [
        *(pointer, integer, integer, integer, small),
        *(pointer, pointer, pointer, pointer, pointer, small, pointer, integer),
        *(pointer, integer, integer, pointer, pointer),
    ]
    return library


# Compiling -------------------------------------------------------------------------------------------------------


def _compile(folder: Path, place: Path) -> None:
    """Compile into a folder of its own, which then gets its name: a kill leaves nothing half, and the first one wins."""
    compiler = find_compiler()
    _remove_abandoned(folder)
    begun = Path(tempfile.mkdtemp(prefix=_BEGUN, dir=folder))  # for its owner alone
    try:
        source = begun / "trees.c"
        source.write_text(_source())
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


@cache
def _source() -> str:
    return (resources.files("tasks.compiled") / "kernel.c").read_text()
