"""The lake: copies of what was published, as Parquet, for clients that read no PostgreSQL.

``<url>/<pipeline>/generation=<id>/`` holds ``part-*.parquet`` and ``_manifest.json``. On a disk the folder appears at once,
by its name; in an object store, which has no such move, the manifest is written last: **a generation without a manifest is
not there**. A copy that fails undoes no publication: it is told, and the next run writes what is owed.

A copy is the whole table by default, because then the newest folder alone answers as SQL does. With ``what = "changes"`` an
incremental generation holds the rows that it scored and the keys that it removed, on top of the one that it amends.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from tasks.columns import Column, schema_of
from tasks.database import connect, literal, load_query, one, quote
from tasks.errors import PrescoreError
from tasks.faults import reached
from tasks.features import AS_OF
from tasks.locations import is_local, open_location, using
from tasks.population import Mode
from tasks.scoring import REJECTED, SCORED_IN
from tasks.transport import open_session

if TYPE_CHECKING:
    from tasks.pipeline import Pipeline
    from tasks.readers import Objects

logger = logging.getLogger(__name__)

MANIFEST = "_manifest.json"
#: Version of the manifest: a client that knows another one must not guess.
FORMAT = 1

# Readers skip what they do not need by row group, and hold one while they decode it: 20 columns of one are some 40 MB.
ROW_GROUP_ROWS = 262_144
# A file of at most so many rows, so that several clients share the work.
PART_ROWS = 4_000_000
# Names that begin so are skipped by every reader of Parquet folders.
_UNFINISHED = "_unfinished-"


class ArchiveFailed(PrescoreError):
    """A publication could not be copied into the lake."""

    def __init__(self, place: str, differs: str, remedy: str) -> None:
        self.place, self.differs = place, differs
        super().__init__(
            f"{place} was not written: {differs}. The publication stands, and is served; no client of the lake sees half a "
            f"copy. {remedy}"
        )


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A generation in the lake."""

    generation_id: int
    #: The folder, as ``[archive] url`` writes it.
    place: str
    rows: int
    files: int
    bytes: int
    #: The generation whose copy this one amends; None for a whole table.
    amends: int | None

    @property
    def told(self) -> str:
        """A sentence for the message of a run."""
        what = "" if self.amends is None else f" on top of generation {self.amends}"
        return f"Archived {self.rows:,} rows{what} in {self.files} {'file' if self.files == 1 else 'files'}."


def owe(connection: sa.Connection, pipeline: Pipeline, generation_id: int) -> None:
    """Note that a publication will have to be copied, before head moves: whoever dies in between leaves word of it."""
    if pipeline.archive is not None:
        _note(connection, pipeline, generation_id, "owed")


def missing(connection: sa.Connection, pipeline: Pipeline) -> int | None:
    """Return the generation that is served and not in the lake, None when it is there or nothing has to be."""
    if pipeline.archive is None:
        return None
    head = one(connection, "find_head", pipeline=pipeline.name)
    if head is None:
        return None
    known = one(connection, "find_archive", pipeline=pipeline.name, generation_id=head.generation_id)
    there = known is not None and known.status == "archived" and known.url == pipeline.archive.url
    return None if there else int(head.generation_id)


def archive(
    url: str,
    pipeline: Pipeline,
    objects: Objects,
    generation_id: int,
    *,
    before: int | None = None,
    gone: pa.Table | None = None,
) -> Copy:
    """Copy what is served into the lake, and note that it is there; the caller holds the lock of the pipeline.

    Memory is bounded by a row group. Twice the same generation gives one copy.

    Parameters
    ----------
    before, gone
        The generation that this one amended, and the keys that it removed; only the run that published it knows them. With
        them, and ``what = "changes"``, only the changes are written, if the copy that they amend is there.

    Raises
    ------
    ArchiveFailed, LocationUnusable
        When it could not be written; that is noted too.
    """
    assert pipeline.archive is not None
    with connect(url, "prescore archive") as connection:
        try:
            published = one(connection, "read_generation", generation_id=generation_id)
            amends = before if _may_amend(connection, pipeline, published, before) else None
            connection.rollback()
            writing = _Writing(
                url=url, pipeline=pipeline, objects=objects, published=published, amends=amends, gone=gone
            )
            with using(pipeline.archive.url):
                copy = writing.write()
        except Exception as error:
            connection.rollback()
            problem = str(error) if isinstance(error, PrescoreError) else type(error).__name__
            _note(connection, pipeline, generation_id, "failed", problem=problem)
            raise
        reached("archive.visible")
        _note(
            connection,
            pipeline,
            generation_id,
            "archived",
            amends=copy.amends,
            rows=copy.rows,
            files=copy.files,
            bytes=copy.bytes,
        )
    logger.info("archived generation %d: %d rows in %d files", generation_id, copy.rows, copy.files)
    return copy


def _may_amend(connection: sa.Connection, pipeline: Pipeline, published: Any, before: int | None) -> bool:
    """Changes make sense on top of a copy that is there, without a gap: else a client would miss what lies between."""
    assert pipeline.archive is not None
    if pipeline.archive.what == "all" or before is None or published.mode != Mode.INCREMENTAL.value:
        return False
    base = one(connection, "find_archive", pipeline=pipeline.name, generation_id=before)
    return base is not None and base.status == "archived" and base.url == pipeline.archive.url


def _note(
    connection: sa.Connection, pipeline: Pipeline, generation_id: int, status: str, **facts: str | int | None
) -> None:
    assert pipeline.archive is not None
    unknown = dict.fromkeys(("problem", "amends", "rows", "files", "bytes"))
    values = {**unknown, **facts, "pipeline": pipeline.name, "generation_id": generation_id}
    connection.execute(sa.text(load_query("note_archive")), {**values, "status": status, "url": pipeline.archive.url})
    connection.commit()


@dataclass(kw_only=True)
class _Writing:
    """One copy while it is being written."""

    url: str
    pipeline: Pipeline
    objects: Objects
    #: The row of prescore.generations.
    published: Any
    amends: int | None
    gone: pa.Table | None
    #: Name, rows and bytes of each file that is complete.
    files: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.pipeline.archive is not None
        location = self.pipeline.archive.url.rstrip("/")
        self.filesystem, root = open_location(self.pipeline.archive.url)
        self.folder = f"{root}/{self.pipeline.name}"
        self.target = f"{self.folder}/generation={self.published.generation_id}"
        self.place = f"{location}/{self.pipeline.name}/generation={self.published.generation_id}"
        self.local = is_local(self.filesystem)

    def write(self) -> Copy:
        """Write the files, then let them be seen."""
        there = self._manifest_there()
        if there is not None:
            return there
        self._clear()
        workspace = f"{self.folder}/{_UNFINISHED}{uuid.uuid4().hex[:12]}" if self.local else self.target
        reached("archive.begun")
        self.filesystem.makedirs(workspace, exist_ok=True)
        try:
            rows = self._write_rows(workspace)
            removed = self._write_removed(workspace)
            reached("archive.written")
            self._write_manifest(workspace, rows, removed)
            if self.local:
                _make_durable(workspace)
                os.rename(workspace, self.target)
        except BaseException:
            self._discard(workspace)
            raise
        return self._copy(rows)

    def _copy(self, rows: int) -> Copy:
        return Copy(
            generation_id=self.published.generation_id,
            place=self.place,
            rows=rows,
            files=len(self.files),
            bytes=sum(file["bytes"] for file in self.files),
            amends=self.amends,
        )

    def _manifest_there(self) -> Copy | None:
        """Return the copy that is there already; refuse one of another database."""
        path = f"{self.target}/{MANIFEST}"
        self.filesystem.invalidate_cache()
        if not self.filesystem.exists(path):
            return None
        found = json.loads(self.filesystem.cat_file(path))
        if (found.get("published_at"), found.get("key_checksum")) != (self._published_at, self._checksum):
            raise ArchiveFailed(
                self.place,
                "a generation of another database is there by this number",
                "Give each database an [archive] url of its own.",
            )
        self.files, self.amends = [*found["files"], *found["removed_files"]], found["amends"]
        return self._copy(found["rows"])

    @property
    def _published_at(self) -> str:
        return _utc(self.published.published_at)

    @property
    def _checksum(self) -> str:
        return str(self.published.key_checksum)

    def _clear(self) -> None:
        """Remove what attempts that died have left; only the holder of the pipeline's lock comes here."""
        if not self.filesystem.exists(self.folder):
            return
        for path in self.filesystem.ls(self.folder, detail=False):
            if path.rstrip("/").rsplit("/", 1)[-1].startswith(_UNFINISHED):
                self.filesystem.rm(path, recursive=True)
        if self.filesystem.exists(self.target):
            self.filesystem.rm(self.target, recursive=True)

    def _discard(self, workspace: str) -> None:
        try:
            self.filesystem.rm(workspace, recursive=True)
        except Exception:  # the next attempt clears it, and nobody sees it until then
            logger.info("what was written of generation %d is left to the next run", self.published.generation_id)

    def _write_rows(self, workspace: str) -> int:
        columns = (*self.objects.key, AS_OF, SCORED_IN, REJECTED, *self.objects.outputs)
        # Rows that were looked at again and found to be the same have a new as_of, whatever they were scored in.
        changed = f"r.scored_in = {literal(self.published.generation_id)} OR r.as_of >= {literal(self.published.as_of)}"
        statement = load_query(
            "read_archived_rows",
            {
                "columns_read": ", ".join(f"{c.read('r.' + quote(c.name))} AS {quote(c.name)}" for c in columns),
                "storage": self.objects.storage(self.published.storage_id),
                "condition": "true" if self.amends is None else changed,
            },
        )
        serving = load_query("read_served_generation", {"pipeline": literal(self.pipeline.name)})
        what = f"Reading what {self.pipeline.name} serves"
        with open_session(self.url, "prescore archive") as session:
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            served = session.table(serving, what).column(0).to_pylist()
            if served != [self.published.generation_id]:
                raise ArchiveFailed(
                    self.place,
                    "its rows are not there to read any more, since another publication is served",
                    "The next run copies what is served then.",
                )
            with session.stream(statement, what) as batches:
                rows = self._write_files(workspace, "part", columns, batches)
        if self.amends is None and rows != self.published.rows:
            raise ArchiveFailed(
                self.place,
                f"{rows:,} rows are stored of the {self.published.rows:,} that were published",
                f"Run `prescore score {self.pipeline.name} --full`.",
            )
        return rows

    def _write_removed(self, workspace: str) -> list[dict[str, Any]]:
        if self.amends is None or self.gone is None or not self.gone.num_rows:
            return []
        rows, self.files = self.files, []
        keys = self.gone.select([column.name for column in self.objects.key])
        self._write_files(workspace, "removed", self.objects.key, iter(keys.to_batches()))
        removed, self.files = self.files, rows
        return removed

    def _write_files(
        self, workspace: str, stem: str, columns: Sequence[Column], batches: Iterator[pa.RecordBatch]
    ) -> int:
        """Write batches as files of at most about ``PART_ROWS`` rows; at least one, so that the columns are told."""
        import pyarrow.parquet as pq

        schema = schema_of(columns).with_metadata(self._facts())
        total, done = 0, False
        while not done:
            name = f"{stem}-{len(self.files):05}.parquet"
            path, written, done = f"{workspace}/{name}", 0, True
            with (
                self.filesystem.open(path, "wb") as sink,
                pq.ParquetWriter(sink, schema, compression="zstd", write_batch_size=ROW_GROUP_ROWS) as writer,
            ):
                for batch in batches:
                    arrays = [batch.column(column.name).cast(column.arrow_type) for column in columns]
                    writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema), ROW_GROUP_ROWS)
                    written += batch.num_rows
                    reached("archive.part")
                    if written >= PART_ROWS:
                        done = False
                        break
            total += written
            self.files.append({"name": name, "rows": written, "bytes": int(self.filesystem.size(path) or 0)})
        return total

    def _facts(self) -> dict[str, str]:
        """What every file says of itself, for clients that meet it alone."""
        told = self._told()
        return {f"prescore.{name}": "" if told[name] is None else str(told[name]) for name in told}

    def _told(self) -> dict[str, Any]:
        found = self.published
        return {
            "pipeline": self.pipeline.name,
            "generation": found.generation_id,
            "mode": found.mode,
            "amends": self.amends,
            "model": found.model,
            "model_version": found.model_version,
            "as_of": _utc(found.as_of),
            "data_as_of": _utc(found.data_as_of),
            "aging_at": _utc(min(found.aging_at, found.model_aging_at)),
            "stale_at": _utc(min(found.stale_at, found.model_stale_at)),
            "expires_at": _utc(found.expires_at),
            "published_at": self._published_at,
            "verdict": found.verdict,
        }

    def _write_manifest(self, workspace: str, rows: int, removed: list[dict[str, Any]]) -> None:
        columns = (*self.objects.key, AS_OF, SCORED_IN, REJECTED, *self.objects.outputs)
        manifest = {
            "format": FORMAT,
            **self._told(),
            "reasons": list(self.published.reasons),
            "rows_of_generation": self.published.rows,
            "key_checksum": self._checksum,
            "key": [column.name for column in self.objects.key],
            "columns": [{"name": column.name, "type": column.postgres_type} for column in columns],
            "rows": rows,
            "files": self.files,
            "removed": sum(file["rows"] for file in removed),
            "removed_files": removed,
            "archived_at": _utc(datetime.now(UTC)),
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        self.filesystem.pipe_file(f"{workspace}/{MANIFEST}", text.encode())


def _make_durable(folder: str) -> None:
    """Let files reach the disk before their folder gets its name: after a power cut the name would be there first."""
    for path in (*(os.path.join(folder, name) for name in os.listdir(folder)), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _utc(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
