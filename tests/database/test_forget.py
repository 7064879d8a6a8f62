"""Erasure: after `forget` no search finds the entity, no run brings it back, and a release does.

On every server: what the planner remembers is cleared otherwise before PostgreSQL 18.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import uuid
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from tasks import erasure, forgotten
from tasks.errors import UsageError
from tasks.faults import FORGET_POINTS
from tasks.forgotten import Forgotten
from tasks.health import PipelineNeverRan
from tasks.population import Mode
from tasks.renaming import rename
from tasks.rollback import resume, rollback
from tasks.runs import RunInProgress, Status, hold_lock
from tasks.usersql import UserQuery
from tests.conftest import execute, psql_url
from tests.disturbances import prescore
from tests.factories import CHANGES_SQL, PIPELINE_TOML, World, make_model, make_pipeline, make_world

EMAIL = "zoe.quillfeather+7@example.org"
NUMBER = 8_123_456_789_012_345
ITEMS = f"""
CREATE TABLE public.items (
    email text, number bigint, a double precision, updated_at timestamptz NOT NULL, PRIMARY KEY (email, number)
);
INSERT INTO public.items
SELECT 'person' || x || '@example.com', x, sin(x * 12.9898), statement_timestamp() - interval '1 hour'
FROM generate_series(1, 400) AS x;
INSERT INTO public.items VALUES ('{EMAIL}', {NUMBER}, 0.25, statement_timestamp() - interval '1 hour');
ANALYZE public.items
"""
TOML = """
[entity]
key = ["email", "number"]
query = "SELECT email, number FROM public.items"
[features]
query = "features.sql"
changes = "changes.sql"
[predictions]
p = {{ method = "predict_proba", class = "1", index = true }}
[model]
name = "items"
[performance]
sample = 1.0
[archive]
url = "{lake}"
what = "changes"
[history]
keep = "90d"
"""
# Who has -5 has no features, so that rejections are listed too.
FEATURES = "SELECT b.email, b.number, b.as_of, i.a FROM batch AS b JOIN public.items AS i USING (email, number) WHERE i.a <> -5"
CHANGES = "SELECT email, number FROM public.items, since WHERE updated_at > since.at"
TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE (c.relkind IN ('r', 'm') OR c.relkind = 'v' AND (n.nspname <> 'pg_catalog' OR c.relname = 'pg_stats'))
  AND n.nspname <> 'public' AND n.nspname !~ '^(information_schema|pg_toast|pg_temp)'
"""


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    world = make_world(database_url, tmp_path, rows=None)
    world.execute(ITEMS)
    pipeline = make_pipeline(world, toml=TOML.format(lake=tmp_path / "lake"), features=FEATURES, changes=CHANGES)
    make_model(world, pipeline)
    return world


# What the planner remembers of the sources is theirs.
OURS = {
    "pg_catalog.pg_statistic": "starelid NOT IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)",
    "pg_catalog.pg_stats": "schemaname <> 'public'",
}


def traces(world: World) -> list[str]:
    """Where the entity is found: in every table and view of every schema but that of the sources, models, and the lake."""
    words = (EMAIL, str(NUMBER))
    found = []
    for (table,) in world.rows(TABLES):
        held = " OR ".join(f"position('{word}' in t::text) > 0" for word in words)
        if world.rows(f"SELECT count(*) FROM {table} AS t WHERE ({held}) AND {OURS.get(table, 'true')}")[0][0]:
            found.append(table)
    for model, version, data in world.rows(
        "SELECT model, version, string_agg(data, ''::bytea ORDER BY chunk) FROM prescore.model_chunks GROUP BY 1, 2"
    ):
        with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
            for name in archive.namelist():
                member = archive.read(name)
                if EMAIL.encode() in member or NUMBER.to_bytes(8, "little") in member or str(NUMBER).encode() in member:
                    found.append(f"{model} {version} {name}")
    for file in (world.settings.pipelines_dir / "lake").rglob("*"):
        if file.suffix == ".parquet":
            rows = pq.read_table(file)
            if pc.any(pc.equal(rows["email"], EMAIL)).as_py() or pc.any(pc.equal(rows["number"], NUMBER)).as_py():
                found.append(file.name)
        if file.is_file() and EMAIL.encode() in file.read_bytes():
            found.append(f"bytes of {file.name}")
    return found


def touch(world: World, condition: str = "number = 3") -> None:
    world.change(f"UPDATE public.items SET a = a / 2, updated_at = clock_timestamp() WHERE {condition}")


def test_after_forget_an_exhaustive_search_finds_nothing_and_no_run_brings_it_back(world: World) -> None:
    assert world.score(full=True).status is Status.PUBLISHED
    touch(world, f"number IN (3, {NUMBER})")
    assert world.score().mode is Mode.INCREMENTAL
    world.change(f"UPDATE public.items SET a = -5 WHERE number = {NUMBER}")
    second = world.score(full=True)
    assert (second.status, second.rejected > 0) == (Status.PUBLISHED, True)
    world.change(f"UPDATE public.items SET a = 0.25, updated_at = clock_timestamp() WHERE number = {NUMBER}")
    third = world.score()
    world.execute(f"UPDATE prescore.runs SET message = 'somebody wrote {EMAIL} here' WHERE run_id = {third.run_id}")
    before = world.one("SELECT rows, key_checksum FROM prescore.head")
    there = traces(world)
    for place in ("prediction_samples", "rejections", "runs"):
        assert f"prescore.{place}" in there
    assert len([place for place in there if re.fullmatch("prescore_rows.items_[123]", place)]) == 2
    assert "prescore_rows.items_history" in there
    assert "pg_catalog.pg_stats" in there
    assert any("golden.arrow" in place for place in there)
    assert any("parquet" in place for place in there)

    done = erasure.forget(world.url, "items", [EMAIL, str(NUMBER)])

    assert traces(world) == []
    assert done.finished_at is not None
    kinds = {each.what for each in done.removed}
    assert {"rows", "samples", "rejections", "mentions in message"} <= kinds
    after = world.one("SELECT rows, key_checksum FROM prescore.head")
    assert (before["rows"] - after["rows"], before["key_checksum"] != after["key_checksum"]) == (1, True)
    assert world.rows("SELECT count(*) FROM predictions.items") == [(400,)]

    # Incremental runs prove their selection by the ledger still; full ones publish the others.
    touch(world)
    small = world.score()
    assert (small.status, small.mode, small.scored, small.population) == (Status.PUBLISHED, Mode.INCREMENTAL, 1, 400)
    assert world.score(full=True).population == 400
    touch(world, f"number IN (4, {NUMBER})")
    assert world.score().scored == 1
    assert traces(world) == []
    # What a rollback returns to has a right ledger too.
    rollback(world.url, "items")
    resume(world.url, "items")
    touch(world)
    assert world.score().status is Status.PUBLISHED
    assert traces(world) == []

    assert erasure.release(world.url, "items", [EMAIL, str(NUMBER)]).released
    back = world.score()
    assert (back.status, back.new, back.population) == (Status.PUBLISHED, 1, 401)
    assert world.rows(f"SELECT count(*) FROM predictions.items WHERE email = '{EMAIL}'") == [(1,)]


@pytest.mark.slow
def test_the_command_prints_a_receipt_without_the_key_and_refuses_what_cannot_be_meant(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    assert world.score(full=True).status is Status.PUBLISHED

    def run(*words: str, key: str = "") -> str:
        ended = CliRunner().invoke(app, ["forget", "items", *words], input=key, catch_exceptions=False)
        assert ended.exit_code == 0
        assert EMAIL not in ended.stdout
        return ended.stdout

    with hold_lock(world.url, "items"), pytest.raises(RunInProgress, match="by another command"):
        erasure.forget(world.url, "items", [EMAIL, str(NUMBER)])
    assert "prescore_rows.items_1" in traces(world)
    with pytest.raises(UsageError, match="1 key values were given, items has 2 key columns: email, number"):
        erasure.forget(world.url, "items", [EMAIL])
    with pytest.raises(UsageError, match="not of its column's type"):
        erasure.forget(world.url, "items", [EMAIL, "many"])
    with pytest.raises(PipelineNeverRan):
        erasure.forget(world.url, "others", [EMAIL])
    assert "was not forgotten" in run("--release", EMAIL, str(NUMBER))

    told = json.loads(run("-", "--rewrite", "--json", key=f"{EMAIL}\n0{NUMBER}\n"))
    stored = world.one("SELECT digest, receipt, status, begun_by, erasure_id FROM prescore.erasures")
    assert (told["again"], told["digest"]) == (False, bytes(stored["digest"]).hex())
    assert (stored["status"], stored["receipt"]["removed"]) == ("finished", told["removed"])
    assert traces(world) == []
    # Not even in the files of the tables: what a page or an index still had of it is gone.
    assert _remnants(world) == []
    assert "Nothing of it" not in run(EMAIL, str(NUMBER))  # what the first attempt removed is told again
    assert world.rows("SELECT count(*) FROM prescore.erasures") == [(1,)]

    # An archive that cannot be reached: the rest is done, the entity is kept out, and the same command finishes.
    assert "is released" in run("--release", EMAIL, str(NUMBER))
    assert world.score(full=True).population == 401
    world.execute(
        "INSERT INTO prescore.archives (pipeline, generation_id, url, status) VALUES ('items', 0, 'nowhere://x', 'owed')"
    )
    with pytest.raises(erasure.NotErased, match=r"not complete.*nowhere.*give the same command again"):
        erasure.forget(world.url, "items", [EMAIL, str(NUMBER)])
    assert traces(world) == []
    world.execute("DELETE FROM prescore.archives WHERE generation_id = 0")
    assert erasure.forget(world.url, "items", [EMAIL, str(NUMBER)]).again


def _remnants(world: World) -> list[str]:
    """Files of tables and indexes of prescore that hold the bytes of the key."""
    world.execute("CHECKPOINT")
    folder = Path(world.rows("SHOW data_directory")[0][0])
    paths = world.rows(
        "SELECT c.oid::regclass::text, pg_relation_filepath(c.oid) FROM pg_class AS c "
        "WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'pres%') AND c.relkind IN ('r', 'i', 't')"
    )
    words = (EMAIL.encode(), str(NUMBER).encode(), NUMBER.to_bytes(8, "little"))
    return [name for name, path in paths if path and any(word in (folder / path).read_bytes() for word in words)]


@pytest.mark.slow
@pytest.mark.parametrize("point", FORGET_POINTS)
def test_an_erasure_that_was_killed_is_finished_by_the_same_command(world: World, point: str) -> None:
    world.score(full=True)
    touch(world, f"number IN (3, {NUMBER})")
    world.score()

    ended = prescore(world, "forget", "items", EMAIL, str(NUMBER), kill_at=point)

    assert ended.returncode == -signal.SIGKILL
    # A run in between keeps it out already.
    assert world.score().population == 400
    assert prescore(world, "forget", "items", EMAIL, str(NUMBER)).returncode == 0
    assert traces(world) == []
    assert world.score(full=True).population == 400
    touch(world)
    assert world.score().status is Status.PUBLISHED


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["shards", "fingerprints", "elsewhere"])
def test_every_kind_of_run_keeps_it_out(database_url: str, server_url: str, tmp_path: Path, variant: str) -> None:
    source_url = None
    if variant == "elsewhere":
        name = f"source_{uuid.uuid4().hex[:12]}"
        execute(server_url, f"CREATE DATABASE {name}")
        source_url = psql_url(server_url, name)
    world = make_world(database_url, tmp_path, rows=2_000, source_url=source_url)
    toml, changes = PIPELINE_TOML, CHANGES_SQL
    if variant == "shards":
        toml += "[execution]\nworkers = 2\nshards = 4\n"
    if variant == "fingerprints":
        toml, changes = toml.replace('changes = "changes.sql"', "fingerprint = true"), None
    pipeline = make_pipeline(world, toml=toml, changes=changes)
    make_model(world, pipeline)
    assert world.score(full=True).population == 2_000

    erasure.forget(world.url, "items", ["1234"])

    world.change("UPDATE public.items SET a = a / 2, updated_at = clock_timestamp() WHERE id IN (5, 1234)")
    small = world.score()
    assert (small.mode, small.scored, small.population) == (Mode.INCREMENTAL, 1, 1_999)
    assert world.score(full=True).population == 1_999
    assert world.rows("SELECT count(*) FROM prescore_rows.items WHERE id = 1234") == [(0,)]
    assert world.rows("SELECT state FROM predictions.items_for(1234)") == [("missing",)]
    erasure.release(world.url, "items", ["1234"])
    assert world.score().new == 1
    if source_url is not None:
        execute(server_url, f"DROP DATABASE {source_url.rsplit('/', 1)[1]} WITH (FORCE)")


def test_training_and_samples_leave_it_out(world: World) -> None:
    salt = forgotten.new_salt()
    key = Forgotten(salt=salt, digests=(forgotten.digest_of((EMAIL, NUMBER), salt),))
    rows = pa.table({"email": [EMAIL, EMAIL, None], "number": [NUMBER, 1, NUMBER], "a": [1.0, 2.0, 3.0]})
    assert key.left_out_of_rows(rows, ["email", "number"]).column("a").to_pylist() == [2.0, 3.0]
    # The same as PostgreSQL's own, so that a query leaves out what a file does.
    query = key.left_out_of(
        UserQuery(text="SELECT email, number FROM public.items", origin="a test"), ["email", "number"]
    )
    assert world.rows(f"SELECT count(*), count(*) FILTER (WHERE number = {NUMBER}) FROM ({query.text}) AS q") == [
        (400, 0)
    ]


@pytest.mark.slow
def test_copies_under_a_former_name_are_rewritten_too_and_nobody_elses(world: World) -> None:
    assert world.score(full=True).status is Status.PUBLISHED
    lake = world.settings.pipelines_dir / "lake"
    # Another pipeline has taken the name by now: its copies are its own, whatever is in them.
    other = lake / "items" / "generation=999"
    rename(world.settings, world.url, "items", "things")
    touch(world)
    assert world.score("things", full=True).status is Status.PUBLISHED
    shutil.copytree(next((lake / "items").glob("generation=*")), other)

    done = erasure.forget(world.url, "things", [EMAIL, str(NUMBER)])

    assert {Path(each.place).name for each in done.removed if "lake" in each.place} == {"items", "things"}
    assert traces(world)  # what is left is the other pipeline's
    shutil.rmtree(other)
    assert traces(world) == []
