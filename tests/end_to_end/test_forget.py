"""Erasure: after `forget` no search finds the entity, no run brings it back, and a release does."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tasks import erasure
from tasks.population import Mode
from tasks.rollback import resume, rollback
from tasks.runs import Status
from tests.factories import World, make_model, make_pipeline, make_world

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
[performance]
sample = 1.0
[archive]
url = "{lake}"
what = "changes"
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
    assert len([place for place in there if place.startswith("prescore_rows.items_")]) == 2
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
