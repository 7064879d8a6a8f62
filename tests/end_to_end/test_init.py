"""`prescore init`: a folder that teaches, and that works once its queries name real tables."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.check import check
from flows.cli import app
from flows.train import train
from tasks.errors import PipelineExists, PrescoreError, UsageError
from tasks.pipeline import load_pipeline, pipeline_names
from tasks.runs import Status
from tasks.settings import read_settings
from tests.factories import World, make_world

FILES = {"pipeline.toml", "features.sql", "changes.sql", "labels.sql", "model.py"}

#: What the placeholders of a new folder stand for: tables of 300 members and of what became of them.
REAL_TABLES = """
CREATE SCHEMA club;
CREATE TABLE club.members (member_id uuid PRIMARY KEY, age integer, town text, joined_at timestamptz, updated_at timestamptz);
INSERT INTO club.members
SELECT md5(x::text)::uuid, 20 + x % 50, CASE WHEN x % 9 > 0 THEN (ARRAY['Oslo', 'Bergen'])[1 + x % 2] END,
       now() - x * interval '1 day', now() - interval '1 hour'
FROM generate_series(1, 300) AS x;
CREATE TABLE club.outcomes (member_id uuid, asked_at timestamptz, known_at timestamptz, outcome integer);
INSERT INTO club.outcomes
SELECT member_id, at, at + interval '7 days', (age > 45)::integer
FROM club.members, generate_series(now() - interval '60 days', now() - interval '20 days', interval '20 days') AS at
"""

#: Names and types that real tables have.
ODD_TABLE = '''
CREATE SCHEMA "Odd Schema";
CREATE TYPE public.mood AS ENUM ('good', 'bad');
CREATE DOMAIN public.share AS numeric CHECK (value >= 0);
CREATE TABLE "Odd Schema"."Kunden" (
    "customerID" text, region integer, "order" integer, "Größe" real, "say ""hi""" text, "it's" boolean, tags text[],
    details jsonb, feeling public.mood, part public.share, as_of date, modified_at timestamptz,
    twice integer GENERATED ALWAYS AS (region * 2) STORED, PRIMARY KEY (region, "customerID")
);
INSERT INTO "Odd Schema"."Kunden" ("customerID", region, "order", modified_at)
SELECT 'A' || x, x % 3, x, now() FROM generate_series(1, 30) AS x;
CREATE VIEW public.kunden AS SELECT * FROM "Odd Schema"."Kunden"
'''


@pytest.fixture
def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", database_url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(tmp_path / "pipelines"))
    return make_world(database_url, tmp_path / "pipelines", rows=None)


def init(*words: str) -> str:
    """Run the command, and return what it printed; what it refused is raised."""
    told = CliRunner().invoke(app, ["init", *words])
    if told.exception is not None:
        raise told.exception
    return told.stdout


def test_a_new_folder_is_checked_trained_and_scored_once_its_queries_name_real_tables(
    world: World, tmp_path: Path
) -> None:
    told = init("club")
    folder = tmp_path / "pipelines" / "club"
    assert {path.name for path in folder.iterdir()} == FILES
    assert str(folder) in told
    assert "prescore check club" in told
    world.execute(REAL_TABLES)
    real = {
        "your_schema.your_table": "club.members",
        "your_schema.your_outcomes": "club.outcomes",
        "your_key": "member_id",
        "t.your_number": "t.age, t.joined_at",
        "your_text": "town",
    }
    for file in folder.iterdir():
        text = file.read_text()
        for placeholder, name in real.items():
            text = text.replace(placeholder, name)
        assert [line for line in text.splitlines() if "your_" in line and line[:1] not in {"#", "-"}] == []
        file.write_text(text)

    [report] = check(world.settings, "club")
    assert report.errors == ()
    assert report.would["would_score"] == 300
    trained = train(world.settings, "club")
    assert (trained.metrics["roc_auc"] or 0) > 0.9
    summary = world.score("club")
    assert (summary.status, summary.scored, summary.rejected) == (Status.PUBLISHED, 300, 0)
    assert world.one("SELECT count(*) AS n FROM predictions.club WHERE state = 'fresh'") == {"n": 300}


def test_a_table_fills_the_queries_in_whatever_its_names_and_types_are(world: World, tmp_path: Path) -> None:
    world.execute(ODD_TABLE)
    init("kunden", "--table", "Odd Schema.Kunden")
    pipeline = load_pipeline(tmp_path / "pipelines" / "kunden")
    assert pipeline.entity.key == ("region", "customerID")
    assert pipeline.features.changes is not None
    assert "t.modified_at > since.at" in pipeline.features.changes.text
    [report] = check(world.settings, "kunden")
    assert report.errors == ()
    assert report.would["population"] == 30
    names = [column.name for column in world.contract(pipeline).features]
    assert names == ["order", "Größe", 'say "hi"', "it's", "feeling", "part", "modified_at", "twice"]
    remarks = [
        line.strip() for line in pipeline.features.query.text.splitlines() if "of type" in line or "taken" in line
    ]
    assert remarks == [
        "-- t.tags is of type text[]; write t.tags[1] AS tags",
        "-- t.details is of type jsonb; write (t.details ->> 'field')::double precision AS details",
        "-- t.as_of: the name is taken; give it another one with AS",
    ]


def test_a_view_has_no_key_of_its_own_and_is_asked_for_one(world: World, tmp_path: Path) -> None:
    world.execute(ODD_TABLE)
    with pytest.raises(
        UsageError, match=r"public\.kunden has no primary key; its columns are customerID, region, order"
    ):
        init("kunden", "--table", "public.kunden")
    with pytest.raises(UsageError, match="has no column customerid"):
        init("kunden", "--table", "kunden", "--key", "customerid")
    with pytest.raises(UsageError, match=r"no table public\.costumers"):
        init("kunden", "--table", "public.costumers")
    assert not (tmp_path / "pipelines").exists()
    init("kunden", "--table", "kunden", "--key", "customerID")
    assert load_pipeline(tmp_path / "pipelines" / "kunden").entity.key == ("customerID",)


def test_what_is_there_already_is_left_as_it_is(world: World, tmp_path: Path) -> None:
    init("club", "--key", "member id", "--key", 'the "second"')
    folder = tmp_path / "pipelines" / "club"
    assert load_pipeline(folder).entity.key == ("member id", 'the "second"')
    (folder / "features.sql").write_text("mine")
    with pytest.raises(PipelineExists, match=re.escape(str(folder))):
        init("club")
    assert (folder / "features.sql").read_text() == "mine"
    (folder.parent / "taken").write_text("a file")
    with pytest.raises(PipelineExists):
        init("taken")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["Churn"], '"Churn" is no name'),
        (["../churn"], "is no name"),
        (["churn_usable"], "ends with _usable, which is reserved"),
        (["churn_2"], "ends with _2, which is reserved"),
        (["churn", "--key", "state"], 'key.*"state" is a column or parameter that prescore'),
        (["churn", "--key", "a\nb"], "has a line break in its name"),
    ],
)
def test_what_cannot_be_a_pipeline_is_refused_with_the_reason(
    world: World, tmp_path: Path, words: list[str], why: str
) -> None:
    with pytest.raises(PrescoreError, match=why):
        init(*words)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not (tmp_path / "pipelines").exists() or list((tmp_path / "pipelines").iterdir()) == []


def test_nothing_is_written_among_the_examples_that_prescore_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRESCORE_PIPELINES", raising=False)
    monkeypatch.chdir(tmp_path)
    shipped = read_settings().pipelines_dir
    before = pipeline_names(shipped)
    assert "template" not in before
    told = init("club")
    here = tmp_path / "deployments" / "pipelines"
    assert f"PRESCORE_PIPELINES={here}" in told.replace("\n", "")
    assert read_settings().pipelines_dir == here
    assert pipeline_names(here) == ["club"]
    for place in ("the repository", "the variable"):
        if place == "the repository":
            monkeypatch.chdir(shipped.parents[1])
        else:
            monkeypatch.setenv("PRESCORE_PIPELINES", os.path.relpath(shipped))
        with pytest.raises(UsageError, match="Set PRESCORE_PIPELINES to a folder of yours"):
            init("club")
    assert pipeline_names(shipped) == before


def test_the_folder_is_whole_or_not_there(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.template.load_pipeline", fail)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - click makes its own of it
        init("club")
    assert list((tmp_path / "pipelines").iterdir()) == []
