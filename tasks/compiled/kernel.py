"""The C code that walks trees, with the tables of one forest."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.compiled.forests import Forest
from tasks.compiled.library import NotCompiled, load_library, source_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Name of the library, and of its source.
TREES = "trees"

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


def load_kernel(folder: Path) -> Kernel:
    """Return the library, compiled into ``folder`` if it is not there yet.

    Raises
    ------
    NotCompiled
        Without a compiler, or where the folder is not safe.
    """
    return Kernel(key=source_key(TREES), library=_typed(load_library(folder, TREES)))


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    """Say what the functions of the library take."""
    try:
        by_walking, by_masks = library.prescore_sum_trees, library.prescore_sum_masks
    except AttributeError as error:
        raise NotCompiled("the library lacks a function") from error
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
