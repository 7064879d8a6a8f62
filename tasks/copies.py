"""Copies in the lake, and an entity taken out of them: each file that holds it is written anew and takes the old one's place.

Before a file changes, its manifest says what will be in it: whoever ends in between leaves a manifest that counts one row less
than the file has, and the next attempt finds that row.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.faults import reached
from tasks.lake import MANIFEST
from tasks.locations import is_local, open_location, using

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# The manifest's list of erasures whose entity was among the generation's, and is taken from its counts.
FORGOTTEN = "forgotten"
_UNFINISHED = "_unfinished-"


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """A copy of a generation that held the entity."""

    generation_id: int
    #: Files that were written anew, and rows that these lack now.
    files: int
    removed: int
    #: What all files of the copy hold now.
    rows: int
    bytes: int


def forget(
    location: str,
    pipeline: str,
    key: Mapping[str, pa.Scalar],
    key_hash: int,
    erasure_id: int,
    only: Collection[int] | None = None,
) -> Iterator[Rewritten]:
    """Take an entity out of every copy of a pipeline's publications in a lake, oldest first; yield those that held it.

    Parameters
    ----------
    key
        The value of each key column.
    key_hash
        The hash of the ledger, which the manifest's checksum is a sum of.
    erasure_id
        What the manifest remembers, so that it is not corrected twice.
    only
        Generations that are the pipeline's own, where the name may be another one's by now; None for all.

    Raises
    ------
    LocationUnusable
    """
    with using(location):
        filesystem, root = open_location(location)
        filesystem.invalidate_cache()
        folder = f"{root}/{pipeline}"
        if not filesystem.exists(folder):
            return
        known: dict[int, bool] = {}
        for path in sorted(filesystem.ls(folder, detail=False), key=_generation):
            copy, generation = _Copy(filesystem, path.rstrip("/"), key), _generation(path)
            if only is not None and generation not in only:
                continue
            if generation < 0:
                _discard(copy)
                continue
            found = copy.forget(known, key_hash, erasure_id)
            if found is not None:
                yield found


def _generation(path: str) -> int:
    name, _, number = path.rstrip("/").rsplit("/", 1)[-1].partition("=")
    return int(number) if name == "generation" and number.isdigit() else -1


def _discard(copy: _Copy) -> None:
    """Remove what a copy that died has left: the holder of the pipeline's lock is the only one that writes here."""
    if copy.folder.rsplit("/", 1)[-1].startswith(_UNFINISHED):
        copy.filesystem.rm(copy.folder, recursive=True)


class _Copy:
    def __init__(self, filesystem: AbstractFileSystem, folder: str, key: Mapping[str, pa.Scalar]) -> None:
        self.filesystem, self.folder, self.key = filesystem, folder, key

    def forget(self, known: dict[int, bool], key_hash: int, erasure_id: int) -> Rewritten | None:
        path = f"{self.folder}/{MANIFEST}"
        for left in self.filesystem.ls(self.folder, detail=False):
            if left.rsplit("/", 1)[-1].startswith(_UNFINISHED):
                self.filesystem.rm(left)
        if not self.filesystem.exists(path):
            self.filesystem.rm(self.folder, recursive=True)  # nobody sees it, and the next attempt would clear it
            return None
        manifest = json.loads(self.filesystem.cat_file(path))
        generation_id, corrected = int(manifest["generation"]), erasure_id in manifest.get(FORGOTTEN, [])
        holding = {name: [f for f in manifest[name] if self._holds(f["name"])] for name in ("files", "removed_files")}
        amended = known.get(manifest["amends"], False) and not holding["removed_files"]
        known[generation_id] = corrected or bool(holding["files"]) or amended
        if not known[generation_id] and not holding["removed_files"]:
            return None
        written = {name: [(file, *self._written(file["name"])) for file in files] for name, files in holding.items()}
        removed = 0
        for file, _, rows, size in [*written["files"], *written["removed_files"]]:
            removed += file["rows"] - rows
            file["rows"], file["bytes"] = rows, size
        manifest["rows"] = sum(file["rows"] for file in manifest["files"])
        manifest["removed"] = sum(file["rows"] for file in manifest["removed_files"])
        if known[generation_id] and not corrected:
            manifest["rows_of_generation"] -= 1
            manifest["key_checksum"] = str(Decimal(manifest["key_checksum"]) - key_hash)
            manifest[FORGOTTEN] = [*manifest.get(FORGOTTEN, []), erasure_id]
        self._place(_text_file(manifest), path)
        reached("forget.manifest_written")
        for file, temporary, _, _ in [*written["files"], *written["removed_files"]]:
            self._place(temporary, f"{self.folder}/{file['name']}")
        files = [*manifest["files"], *manifest["removed_files"]]
        return Rewritten(
            generation_id=generation_id,
            files=len(written["files"]) + len(written["removed_files"]),
            removed=removed,
            rows=manifest["rows"],
            bytes=sum(file["bytes"] for file in files),
        )

    def _is_it(self, table: pa.Table | pa.RecordBatch) -> pa.Array:
        found = (pc.equal(table.column(name), value.cast(table.column(name).type)) for name, value in self.key.items())
        return pc.fill_null(functools.reduce(pc.and_, found), False)

    def _holds(self, name: str) -> bool:
        import pyarrow.parquet as pq

        with self.filesystem.open(f"{self.folder}/{name}", "rb") as source, pq.ParquetFile(source) as file:
            return any(pc.any(self._is_it(batch)).as_py() for batch in file.iter_batches(columns=list(self.key)))

    def _written(self, name: str) -> tuple[Path, int, int]:
        """Write a file without the entity into one of this machine; return it, its rows and its bytes."""
        import pyarrow.parquet as pq

        descriptor, path = tempfile.mkstemp(prefix=_UNFINISHED, dir=self.folder if is_local(self.filesystem) else None)
        rows = 0
        with (
            os.fdopen(descriptor, "wb") as sink,
            self.filesystem.open(f"{self.folder}/{name}", "rb") as source,
            pq.ParquetFile(source) as file,
        ):
            with pq.ParquetWriter(sink, file.schema_arrow, compression="zstd") as writer:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    kept = table.filter(pc.invert(self._is_it(table)))
                    writer.write_table(kept)
                    rows += kept.num_rows
            sink.flush()
            os.fsync(sink.fileno())
        return Path(path), rows, Path(path).stat().st_size

    def _place(self, temporary: Path | bytes, path: str) -> None:
        """Let a file take the place of another: at once on a disk, and in a store, where a file appears when it is complete."""
        if not is_local(self.filesystem):
            if isinstance(temporary, bytes):
                self.filesystem.pipe_file(path, temporary)
                return
            self.filesystem.put_file(str(temporary), path)
            temporary.unlink()
            return
        if isinstance(temporary, bytes):
            data = temporary
            descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self.folder)
            with os.fdopen(descriptor, "wb") as sink:
                sink.write(data)
                sink.flush()
                os.fsync(sink.fileno())
            temporary = Path(name)
        temporary.chmod(Path(path).stat().st_mode & 0o777)
        temporary.replace(path)


def _text_file(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
