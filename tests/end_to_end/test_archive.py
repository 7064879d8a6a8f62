"""Copies of publications as Parquet: a client of the lake gets what SQL readers get, and never half of it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from tasks import health, lake
from tasks.database import connect
from tasks.errors import PipelineInvalid
from tasks.faults import ARCHIVE_POINTS
from tasks.features import describe
from tasks.pipeline import load_pipeline
from tasks.readers import Objects
from tasks.scorers import load_scorer
from tasks.transport import open_session
from tests.disturbances import prescore
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

UUIDS = """
CREATE TABLE public.items (
    id uuid PRIMARY KEY, day date NOT NULL, a double precision, updated_at timestamptz NOT NULL
);
INSERT INTO public.items
SELECT md5(x::text)::uuid, DATE '2026-01-01' + x, sin(x * 12.9898), statement_timestamp() - interval '1 hour'
FROM generate_series(1, 300) AS x
"""
UUID_TOML = """
[entity]
key = ["id", "day"]
query = "SELECT id, day FROM public.items"
[features]
query = "features.sql"
changes = "changes.sql"
[predictions]
p = {{ method = "predict_proba", class = "1" }}
label = {{ method = "predict" }}
shares = {{ method = "predict_proba", class = "all" }}
[archive]
url = "{url}"
what = "{what}"
"""
# Five entities have no features, so that rejected rows are copied too.
UUID_FEATURES = """
SELECT b.id, b.day, b.as_of, i.a FROM batch AS b JOIN public.items AS i USING (id, day)
WHERE i.day > DATE '2026-01-06'
"""
UUID_CHANGES = "SELECT id, day FROM public.items, since WHERE updated_at > since.at"
SERVED = """
SELECT id::text AS id, day, as_of, scored_in, rejected, p, label, shares
FROM prescore_rows.items
WHERE storage_id = (SELECT storage_id FROM prescore.head WHERE pipeline = 'items')
"""
CHANGE = """
UPDATE public.items SET a = 0.5, updated_at = clock_timestamp() WHERE day <= DATE '2026-01-12';
DELETE FROM public.items WHERE day > DATE '2026-10-20'
"""


def world_of(url: str, folder: Path, lake_url: str, what: str = "all") -> World:
    world = make_world(url, folder, rows=None)
    world.execute(UUIDS)
    toml = UUID_TOML.format(url=lake_url, what=what)
    pipeline = make_pipeline(world, toml=toml, features=UUID_FEATURES, changes=UUID_CHANGES)
    make_model(world, pipeline)
    return world


def served(world: World) -> pa.Table:
    """Rows that SQL serves, by the key."""
    with open_session(world.url) as session:
        return session.table(SERVED).sort_by([("id", "ascending"), ("day", "ascending")])


def manifest(url: str, generation_id: int) -> dict[str, Any]:
    filesystem, root = fsspec.core.url_to_fs(url)
    path = f"{root}/items/generation={generation_id}/{lake.MANIFEST}"
    found: dict[str, Any] = json.loads(filesystem.cat_file(path))
    return found


def visible(url: str) -> list[int]:
    """Generations that a client of the lake sees."""
    filesystem, root = fsspec.core.url_to_fs(url)
    found = filesystem.glob(f"{root}/items/generation=*/{lake.MANIFEST}")
    return sorted(int(path.split("generation=")[1].split("/")[0]) for path in found)


def copied(url: str, generation_id: int, files: str = "files") -> pa.Table:
    filesystem, root = fsspec.core.url_to_fs(url)
    folder = f"{root}/items/generation={generation_id}"
    told = manifest(url, generation_id)
    tables = [pq.read_table(f"{folder}/{file['name']}", filesystem=filesystem) for file in told[files]]
    return pa.concat_tables(tables).sort_by([("id", "ascending"), ("day", "ascending")])


def replayed(url: str, generation_id: int) -> pa.Table:
    """The table that copies of changes come to, as the README tells a client to put them together."""
    told = manifest(url, generation_id)
    rows = copied(url, generation_id)
    if told["amends"] is None:
        return rows
    entities = {(row["id"], row["day"]): row for row in replayed(url, told["amends"]).to_pylist()}
    for row in copied(url, generation_id, "removed_files").to_pylist() if told["removed_files"] else []:
        del entities[row["id"], row["day"]]
    entities |= {(row["id"], row["day"]): row for row in rows.to_pylist()}
    return pa.Table.from_pylist([entities[key] for key in sorted(entities)], schema=rows.schema)


def same(left: pa.Table, right: pa.Table) -> bool:
    return left.select(right.column_names).replace_schema_metadata(None).equals(right.replace_schema_metadata(None))


@pytest.mark.parametrize("place", ["a folder", "memory"])
def test_a_lake_client_gets_the_rows_and_types_that_sql_serves(database_url: str, tmp_path: Path, place: str) -> None:
    url = str(tmp_path / "lake") if place == "a folder" else f"memory://{tmp_path.name}"
    world = world_of(database_url, tmp_path, url)
    first = world.score()
    assert first.generation_id is not None
    assert "Archived 300 rows in 1 file." in first.message

    rows = copied(url, first.generation_id)
    assert same(rows, served(world))
    assert rows.schema.field("id").type == pa.string()
    assert rows.schema.field("day").type == pa.date32()
    assert rows.schema.field("as_of").type == pa.timestamp("us", "UTC")
    assert rows.schema.field("shares").type == pa.list_(pa.float64())
    assert pc.sum(pc.is_valid(rows.column("rejected"))).as_py() == 5

    world.execute(CHANGE)
    second = world.score()
    assert (second.mode, second.gone) == ("incremental", 8)
    assert visible(url) == [first.generation_id, second.generation_id]
    assert same(copied(url, second.generation_id), served(world))
    told = manifest(url, second.generation_id)
    head = world.one("SELECT * FROM prescore.head")
    assert (told["model_version"], told["amends"], told["rows"]) == (1, None, 292)
    assert told["data_as_of"] == head["data_as_of"].isoformat()
    # Each file tells the same by itself, and a folder of them is a dataset to any reader.
    filesystem, root = fsspec.core.url_to_fs(url)
    folder = pads.dataset(f"{root}/items/generation={second.generation_id}", filesystem=filesystem, format="parquet")
    assert folder.count_rows() == 292
    assert folder.schema.metadata[b"prescore.generation"] == str(second.generation_id).encode()
    assert health.read_health(world.url)[0].archive_problem is None


def test_copies_of_changes_come_to_what_sql_serves(database_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    world = world_of(database_url, tmp_path, url, what="changes")
    first = world.score()
    world.execute(CHANGE)
    second = world.score()

    told = manifest(url, second.generation_id)
    assert (told["amends"], told["rows"], told["removed"]) == (first.generation_id, 11, 8)
    assert same(replayed(url, second.generation_id), served(world))
    # Without the copy below, changes would say nothing: the whole table is written.
    world.execute(f"UPDATE prescore.archives SET status = 'failed' WHERE generation_id = {second.generation_id}")
    (tmp_path / "lake" / "items" / f"generation={second.generation_id}").rename(tmp_path / "lost")
    (tmp_path / "lake").chmod(0o700)
    world.execute("UPDATE public.items SET a = 0.25, updated_at = clock_timestamp() WHERE day <= DATE '2026-01-10'")
    third = world.score()
    # What was owed came first, whole; so the third may amend it.
    assert manifest(url, second.generation_id)["amends"] is None
    assert manifest(url, third.generation_id)["amends"] == second.generation_id
    assert same(replayed(url, third.generation_id), served(world))


def test_a_copy_that_fails_undoes_nothing_and_is_made_up_for(database_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    (tmp_path / "lake").write_text("a file where a folder should be")
    world = world_of(database_url, tmp_path, url)

    first = world.score()

    assert (first.status, first.exit_code) == ("published", 0)
    assert "Not archived" in first.message
    assert world.one("SELECT count(*) AS n FROM predictions.items")["n"] == 300
    (row,) = health.read_health(world.url)
    (problem,) = [found for found in health.problems(row) if found.code == "unarchived"]
    assert str(first.generation_id) in problem.text
    assert not problem.wrong
    # It fails again, and the check tells it; a run that then can, copies what is served before it serves something else.
    world.execute(CHANGE)
    second = world.score()
    (finding,) = [found for found in second.findings if found.check_id == "archive.owed"]
    assert (finding.verdict, second.status) == ("warn", "published")
    assert "not archived" in finding.reason
    (tmp_path / "lake").unlink()
    before = served(world)
    third = world.score(full=True)
    assert visible(url) == [second.generation_id, third.generation_id]
    assert same(copied(url, second.generation_id), before)
    assert same(copied(url, third.generation_id), served(world))
    assert health.read_health(world.url)[0].archive_problem is None


class Killed(BaseException):
    """What stands in for SIGKILL: nothing is tidied up."""


def copied_after_all(world: World, url: str, visible_already: bool) -> None:
    """What a run that died owes is not half there, and the next run copies it whole before it serves something else."""
    (row,) = health.read_health(world.url)
    assert row.generation_id is not None
    assert (row.generation_id in visible(url)) == visible_already
    assert "did not come to it" in str(row.archive_problem)
    rows = served(world)

    world.score(full=True)

    assert same(copied(url, row.generation_id), rows)
    left = [path.name for path in Path(url, "items").iterdir() if not path.name.startswith("generation=")]
    assert left == []


def test_a_run_that_dies_before_its_copy_is_whole_leaves_nothing_to_see(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "lake")
    world = world_of(database_url, tmp_path, url)

    def reached(point: str) -> None:
        if point == "archive.written":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(lake, "reached", reached)
        patch.setattr(lake._Writing, "_discard", lambda *_: None)
        with pytest.raises(Killed):
            world.score()
    assert [path.name[:12] for path in (tmp_path / "lake" / "items").iterdir()] == ["_unfinished-"]
    copied_after_all(world, url, visible_already=False)


@pytest.mark.slow
@pytest.mark.parametrize("point", ARCHIVE_POINTS)
def test_a_run_that_is_killed_at_any_point_of_its_copy_leaves_nothing_to_repair(
    database_url: str, tmp_path: Path, point: str
) -> None:
    url = str(tmp_path / "lake")
    world = world_of(database_url, tmp_path, url)
    killed = prescore(world, "score", "items", kill_at=point)
    assert killed.returncode == -signal.SIGKILL, f"{point} was not reached: {killed.stdout}{killed.stderr}"
    copied_after_all(world, url, visible_already=point == "archive.visible")


def test_a_folder_of_another_database_is_not_overwritten(database_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    world = world_of(database_url, tmp_path, url)
    first = world.score()
    path = tmp_path / "lake" / "items" / f"generation={first.generation_id}" / lake.MANIFEST
    text = path.read_text().replace('"key_checksum": "', '"key_checksum": "9')
    path.write_text(text)
    world.execute("DELETE FROM prescore.archives")

    with connect(world.url) as connection:
        pipeline = load_pipeline(world.settings.pipelines_dir / "items")
        assert lake.missing(connection, pipeline) == first.generation_id
    second = world.score()

    (finding,) = [found for found in second.findings if found.check_id == "archive.owed"]
    assert "another database" in finding.reason
    assert path.read_text() == text
    assert second.generation_id in visible(url)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("lake/predictions", "absolute path"),
        ("s3://key:secret@bucket/lake", "holds a password"),
        ("s3://bucket/lake?secret=1", "behind a question mark"),
        ("  ", "expected a path or a URL"),
    ],
)
def test_an_address_that_depends_on_where_it_is_read_or_holds_a_secret_is_refused(
    url: str, told: str, tmp_path: Path
) -> None:
    world = World(url="", settings=make_world("", tmp_path, rows=None).settings)
    with pytest.raises(PipelineInvalid, match=told):
        make_pipeline(world, toml=f'{PIPELINE_TOML}[archive]\nurl = "{url}"\n')


def test_what_is_not_served_any_more_is_not_copied(database_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    world = world_of(database_url, tmp_path, url)
    first = world.score()
    assert first.generation_id is not None
    pipeline = load_pipeline(world.settings.pipelines_dir / "items")
    with connect(world.url) as connection:
        contract = describe(connection, pipeline)
        scorer, _ = load_scorer(connection, pipeline, world.url)
    world.score(full=True)
    (tmp_path / "lake" / "items" / f"generation={first.generation_id}").rename(tmp_path / "lost")

    objects = Objects(pipeline="items", key=contract.key, outputs=scorer.outputs)
    with pytest.raises(lake.ArchiveFailed, match="another publication is served"):
        lake.archive(world.url, pipeline, objects, first.generation_id)

    assert first.generation_id not in visible(url)
