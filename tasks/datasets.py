"""Datasets: features that come from Parquet files instead of a query, under the same contract.

A dataset has the key, features, and optionally an instant from which a row is known. It is looked at once, by its footers:
which files there are, whether their columns agree and have types of the type table. It is then streamed as often as a run
needs it, and must be the same at the end of each reading as it was at the look, or the run fails.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as pads

from tasks import declaration
from tasks.columns import Column, stored_as
from tasks.errors import PrescoreError, printable
from tasks.locations import for_arrow, open_location, using

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = logging.getLogger(__name__)

# Footers that are read at once: of a store, each is a request or two.
FOOTERS_AT_ONCE = 8
_SUFFIXES = (".parquet", ".parq", ".pq")
_PATTERN = re.compile(r"[*?\[]")
INTEGERS = ("smallint", "integer", "bigint")
_FLOATS = ("real", "numeric", "double precision")
_MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "created")
INSTANT = "timestamp with time zone"
#: The name of prescore's own instant in a row of features.
AS_OF_NAME = "as_of"


class DatasetRefused(PrescoreError):
    """A dataset cannot be read, or does not hold what it has to."""

    def __init__(self, origin: str, differs: str, remedy: str) -> None:
        self.origin, self.differs = origin, differs
        super().__init__(f"{origin}: {differs}. Nothing was scored; what was published is still served. {remedy}")


class DatasetChanged(DatasetRefused):
    """A dataset is not the one that was looked at any more."""

    def __init__(self, origin: str, files: Sequence[str]) -> None:
        self.files = tuple(files)
        shown = ", ".join(printable(name) for name in files[:3]) + (", ..." if len(files) > 3 else "")
        super().__init__(
            origin,
            f"{len(files)} of its files {'was' if len(files) == 1 else 'were'} replaced, added or removed while it was read "
            f"({shown})",
            "Run again once the program that writes it has ended; let it write into a new folder and rename that, if it "
            "writes while runs are due.",
        )


@dataclass(frozen=True, kw_only=True)
class File:
    """One file, as it was at the look."""

    path: str
    rows: int
    #: What the store says of it, hashed: another value is another content.
    identity: str
    modified: datetime
    fragment: Any = field(repr=False)


@dataclass(kw_only=True)
class Counts:
    """What the last reading of a whole population counted; None before."""

    rows: int | None = None
    #: Rows of keys that nobody asked for: they are ignored.
    outside: int | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset as it was looked at."""

    declared: declaration.Dataset
    #: What messages call it.
    origin: str
    files: tuple[File, ...] = field(repr=False)
    #: The features that every file has, of one type of the table, in the order of the first file.
    features: tuple[Column, ...]
    #: Column that cannot be a feature -> why.
    problems: Mapping[str, str]
    #: As written in files: name -> type of the table, for key and instants too.
    types: Mapping[str, str] = field(repr=False)
    filesystem: AbstractFileSystem = field(repr=False)
    path: str = field(repr=False)
    counts: Counts = field(default_factory=Counts, compare=False, repr=False)

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def modified(self) -> datetime:
        """When a file was last written: no data is newer."""
        return max(file.modified for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of which files there are, and which content each has."""
        told = json.dumps(sorted((file.path, file.identity) for file in self.files))
        return hashlib.sha256(told.encode()).hexdigest()

    def require_usable(self, names: Iterable[str] | None = None) -> None:
        """Refuse columns that cannot be features: of those that are named, or all that there are.

        Raises
        ------
        DatasetRefused
            Naming each, the file and what to write instead.
        """
        wanted = self.problems if names is None else [name for name in names if name in self.problems]
        if wanted:
            found = "; ".join(f"column {printable(name)} {self.problems[name]}" for name in wanted)
            raise DatasetRefused(
                self.origin,
                found,
                "Correct the program that writes it, or name the columns that are features in [features.dataset] columns.",
            )

    def require_unchanged(self) -> None:
        """Refuse to go on when it is not what was looked at.

        Raises
        ------
        DatasetChanged
        """
        before = {file.path: file.identity for file in self.files}
        with using(self.declared.url):
            now = {path: _identity(info) for path, info in _listed(self.filesystem, self.path, self.origin).items()}
        changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
        if changed:
            raise DatasetChanged(self.origin, [self.shown(path) for path in changed])

    def shown(self, path: str) -> str:
        """A file's name as messages show it: below the dataset's own path."""
        return path.removeprefix(self.path).lstrip("/") or path.rsplit("/", 1)[-1]


# Looking -------------------------------------------------------------------------------------------------------------


def look(declared: declaration.Dataset, folder: Path, key: Sequence[Column]) -> Dataset:
    """Look at the files of a dataset: footers only, no row is read.

    Parameters
    ----------
    folder
        The pipeline's folder, which a relative path counts from.
    key
        The key as the entity query returns it; the dataset's own must be of the same kind.

    Raises
    ------
    DatasetRefused, LocationUnusable
        When there is no file, no row, a column is missing or of a type that cannot be compared, a file is no Parquet.
    """
    origin = f"dataset {declared.url}"
    with using(declared.url):
        filesystem, path = open_location(declared.url, folder)
        listed = _listed(filesystem, path, origin)
        files = _read_footers(filesystem, listed, origin, path)
    if not files:
        raise DatasetRefused(
            origin,
            "it holds no Parquet file",
            "Check the address; files end in .parquet, and no name begins with _ or a dot.",
        )
    types, problems = _unified(files, path)
    dataset = Dataset(
        declared=declared,
        origin=origin,
        files=tuple(files),
        features=(),
        problems=problems,
        types=types,
        filesystem=filesystem,
        path=path,
    )
    _require_columns(dataset, key)
    if not dataset.rows:
        raise DatasetRefused(origin, "its files hold no row", "Look at the program that writes it.")
    return _with_features(dataset, key)


def _listed(filesystem: AbstractFileSystem, path: str, origin: str) -> dict[str, Mapping[str, Any]]:
    """Return the files of a dataset with what the store says of each, by path."""
    filesystem.invalidate_cache()
    if _PATTERN.search(path):
        found = filesystem.glob(path, detail=True)
        return {name: info for name, info in sorted(found.items()) if info["type"] == "file"}
    try:
        info = filesystem.info(path)
    except FileNotFoundError:
        raise DatasetRefused(origin, "there is no such file or folder", "Check the address.") from None
    if info["type"] == "file":
        return {path: info}
    found = filesystem.find(path, detail=True)
    return {name: info for name, info in sorted(found.items()) if _is_part(name, path)}


def _is_part(name: str, root: str) -> bool:
    """Readers of folders agree that what begins with _ or a dot is no data: it is being written, or it says something."""
    parts = name.removeprefix(root).strip("/").split("/")
    return name.endswith(_SUFFIXES) and not any(part.startswith(("_", ".")) for part in parts)


def _identity(info: Mapping[str, Any]) -> str:
    told = json.dumps({name: str(info[name]) for name in sorted(info)})
    return hashlib.sha256(told.encode()).hexdigest()


def _modified(filesystem: AbstractFileSystem, path: str, info: Mapping[str, Any]) -> datetime:
    found = next((info[name] for name in _MODIFIED if info.get(name) is not None), None)
    if found is None:
        found = filesystem.modified(path)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    instant: datetime = found
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _read_footers(
    filesystem: AbstractFileSystem, listed: Mapping[str, Mapping[str, Any]], origin: str, root: str
) -> list[File]:
    form, arrow_files = pads.ParquetFileFormat(), for_arrow(filesystem)

    def footer(path: str) -> File:
        try:
            fragment = form.make_fragment(path, filesystem=arrow_files)
            fragment.ensure_complete_metadata()
        except FileNotFoundError:
            raise DatasetChanged(origin, [path.removeprefix(root).lstrip("/")]) from None
        except (pa.ArrowException, OSError) as error:
            name = path.removeprefix(root).lstrip("/") or path.rsplit("/", 1)[-1]
            raise DatasetRefused(
                origin,
                f"{printable(name)} is no whole Parquet file ({type(error).__name__})",
                "It is damaged, cut off, or still being written. Write it again.",
            ) from None
        info = listed[path]
        return File(
            path=path,
            rows=fragment.metadata.num_rows,
            identity=_identity(info),
            modified=_modified(filesystem, path, info),
            fragment=fragment,
        )

    with ThreadPoolExecutor(FOOTERS_AT_ONCE, "prescore footers") as threads:
        return list(threads.map(footer, listed))


def _unified(files: Sequence[File], root: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the type of each column that all files agree on, and what is wrong with each other column."""
    found: dict[str, list[tuple[str, pa.DataType | None]]] = {}
    for file in files:
        schema = file.fragment.physical_schema
        for name in schema.names:
            found.setdefault(name, [])
    for file in files:
        schema = file.fragment.physical_schema
        shown = printable(file.path.removeprefix(root).lstrip("/") or file.path.rsplit("/", 1)[-1])
        for name, kinds in found.items():
            at = schema.get_all_field_indices(name)
            kinds.append((shown, schema.field(at[0]).type if len(at) == 1 else None))
    types: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name, kinds in found.items():
        merged, problem = _merged(kinds)
        if merged is None:
            problems[name] = problem
        else:
            types[name] = merged
    return types, problems


def _merged(kinds: Sequence[tuple[str, pa.DataType | None]]) -> tuple[str | None, str]:
    """Return the type that holds what all files have, or None and why there is none."""
    merged, first = None, ""
    for shown, kind in kinds:
        if kind is None:
            return None, f"is missing in {shown}, or there twice, and not so in other files"
        if pa.types.is_null(kind):
            continue
        stored = stored_as(kind)
        if stored is None:
            return None, f"is of type {printable(str(kind))}, which cannot be a feature; write {_instead(kind)}"
        wider = stored if merged is None else _wider(merged, stored)
        if wider is None:
            return None, f"is {merged} in {first} and {stored} in {shown}"
        merged, first = wider, first or shown
    return merged, "has no type in any file: every value is NULL"


def _wider(one: str, other: str) -> str | None:
    if one == other:
        return one
    if one in INTEGERS and other in INTEGERS:
        return max(one, other, key=INTEGERS.index)
    return "double precision" if one in _FLOATS and other in _FLOATS else None


def _instead(kind: pa.DataType) -> str:
    """Return the cast for the program that writes the file."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return "a column for each element that counts"
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        return "a column for each field that counts"
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        return "CAST(EXTRACT(epoch FROM x) AS DOUBLE), its seconds"
    if pa.types.is_uint64(kind):
        return "CAST(x AS BIGINT)"
    return "CAST(x AS VARCHAR), or what a model can use of it"


def _require_columns(dataset: Dataset, key: Sequence[Column]) -> None:
    declared = dataset.declared
    instants = [name for name in (declared.as_of, declared.updated_at) if name is not None]
    needed = [*(column.name for column in key), *instants, *declared.columns]
    absent = [name for name in needed if name not in dataset.types and name not in dataset.problems]
    if absent:
        there = ", ".join(printable(name) for name in [*dataset.types, *dataset.problems])
        raise DatasetRefused(
            dataset.origin,
            f"it does not hold {', '.join(printable(name) for name in absent)} (it holds {there})",
            "Add the column, or correct [entity] key and [features.dataset].",
        )
    dataset.require_usable(needed)
    for name in instants:
        if dataset.types[name] != INSTANT:
            raise DatasetRefused(
                dataset.origin,
                f"{name} is {dataset.types[name]}, which says no instant",
                "Write it as a timestamp with a time zone, UTC for example.",
            )
    for column in key:
        stored = dataset.types[column.name]
        if not _same_kind(column.postgres_type, stored):
            raise DatasetRefused(
                dataset.origin,
                f"{column.name} is {stored}, and {column.postgres_type} in the population",
                "Write the key as the same type, or cast it in [entity] query.",
            )


def _same_kind(key: str, stored: str) -> bool:
    both_integers = key in INTEGERS and stored in INTEGERS
    return key == stored or both_integers or (key, stored) == ("uuid", "text")


def _with_features(dataset: Dataset, key: Sequence[Column]) -> Dataset:
    declared = dataset.declared
    taken = {*(column.name for column in key), declared.as_of, declared.updated_at}
    problems = {name: problem for name, problem in dataset.problems.items() if name not in taken}
    names = list(declared.columns) or [name for name in dataset.types if name not in taken]
    if declared.columns:
        problems = {}
    if AS_OF_NAME in names:
        names.remove(AS_OF_NAME)
        problems[AS_OF_NAME] = 'is no feature by this name: declare as_of = "as_of" if rows are known from then on'
    features = tuple(Column(name=name, postgres_type=dataset.types[name]) for name in names if name not in taken)
    if not features:
        raise DatasetRefused(
            dataset.origin, "it holds no feature beside the key", "Add a column of a type in the table."
        )
    return Dataset(**{**vars(dataset), "features": features, "problems": problems})
