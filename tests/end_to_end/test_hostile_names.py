"""Names that are hard to write in SQL, and tables with the names of our own relations, from declaration to lookup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.check import check
from flows.watch import look_up
from tasks.database import quote
from tasks.population import Mode
from tests.factories import World, make_model, make_pipeline, make_world

#: Case, words of SQL, letters of several bytes, quotes, statements, what Python and the driver would fill in.
KEY = ["customerID", "user", "ключ", "a\"b'); DROP TABLE public.visits; --", "100% of %(x)s", "{as_of} \\", "p"]
SOURCE = 'Shop "A"; --'
WATERMARK = 'updated "AT" %s'


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    return make_world(database_url, tmp_path, rows=None)


def test_a_key_of_hostile_names_is_checked_scored_amended_and_looked_up(world: World) -> None:
    columns = ", ".join(f"{quote(name)} text NOT NULL" for name in KEY)
    values = ", ".join(f"x || '{n}'" for n in range(len(KEY)))
    names = ", ".join(quote(name) for name in KEY)
    world.execute(
        f"CREATE TABLE public.visits ({columns}, {quote('Größe')} float8, {quote(WATERMARK)} timestamptz);"
        f"INSERT INTO public.visits SELECT {values}, sin(x), now() - interval '1 hour' FROM generate_series(1, 200) AS x"
    )
    toml = f"""
    [entity]
    key = {json.dumps(KEY, ensure_ascii=False)}
    query = "entities.sql"
    [features]
    query = "features.sql"
    changes = "changes.sql"
    [predictions]
    score = {{ method = "predict_proba", class = "1", index = true }}
    [[source]]
    name = "public.visits"
    watermark = {json.dumps(WATERMARK)}
    filter = '"Größe" < 2 -- the end) OR (true'
    """
    files = {
        "entities.sql": f"SELECT {names}, ' :when ' || '%s' AS ignored FROM public.visits -- a comment at the end",
        "changes.sql": f"SELECT {names} FROM public.visits, since WHERE {quote(WATERMARK)} > since.at /* ; */ ; -- end",
    }
    features = (
        f'SELECT {names}, b.as_of, v."Größe", E\'it\\\'s %\' || $x$ ) AS features $x$ AS "Order"\n'
        f"FROM batch AS b JOIN public.visits AS v USING ({names}) -- ) AS features"
    )
    pipeline = make_pipeline(world, "visits", toml=toml, features=features, changes=None, files=files)
    make_model(world, pipeline)

    (report,) = check(world.settings, "visits")
    assert report.errors == ()
    assert world.score("visits").scored == 200
    world.execute(
        f'UPDATE public.visits SET "Größe" = 1, {quote(WATERMARK)} = clock_timestamp() WHERE "customerID" = \'70\';'
        "DELETE FROM public.visits WHERE \"customerID\" = '80'"
    )
    summary = world.score("visits")
    assert (summary.mode, summary.scored, summary.population) == (Mode.INCREMENTAL, 1, 199)
    assert {finding.check_id for finding in summary.findings if finding.verdict.value == "unknown"} == set()

    served = world.one("SELECT * FROM predictions.visits WHERE \"user\" = '71' AND \"ключ\" = '72'")
    assert list(served)[: len(KEY)] == KEY
    found = look_up(world.settings, "visits", [f"7{n}" for n in range(len(KEY))])
    assert (found["state"], found["score"]) == ("fresh", served["score"])
    assert [found[name] for name in KEY] == [f"7{n}" for n in range(len(KEY))]
    assert look_up(world.settings, "visits", ["80", *[f"8{n}" for n in range(1, len(KEY))]])["state"] == "missing"


def test_tables_with_the_names_of_our_relations_are_read_as_tables(world: World) -> None:
    """They are unqualified on purpose: what a run sees under these names must be the user's table."""
    world.execute(
        "CREATE TABLE public.population (id bigint, at timestamptz);"
        "INSERT INTO public.population SELECT x, now() - interval '1 hour' FROM generate_series(1, 100) AS x;"
        + "".join(f"CREATE TABLE public.{name} AS TABLE public.population;" for name in ("served", "changed", "judged"))
    )
    changes = " UNION ".join(
        f"SELECT id FROM {name}, since WHERE {name}.at > since.at"
        for name in ("population", "served", "changed", "judged")
    )
    toml = """
    [entity]
    key = ["id"]
    query = "SELECT p.id FROM population AS p JOIN served USING (id) JOIN changed USING (id) JOIN judged USING (id)"
    [features]
    query = "features.sql"
    changes = "changes.sql"
    [predictions]
    p = { method = "predict_proba", class = "1" }
    """
    features = (
        "SELECT b.id, b.as_of, sin(features.id) AS a FROM batch AS b JOIN population AS features USING (id) "
        "JOIN served AS entities USING (id)"
    )
    make_model(world, make_pipeline(world, toml=toml, features=features, changes=changes))
    assert world.score().scored == 100

    for n, name in enumerate(("population", "served", "changed", "judged"), start=1):
        world.execute(f"UPDATE public.{name} SET at = clock_timestamp() WHERE id = {n}")
    (report,) = check(world.settings, "items")
    assert (report.would["mode"], report.would["changed"]) == ("incremental", 4)
    assert world.score().scored == 4


def test_what_a_function_of_the_user_writes_is_refused_by_postgresql(world: World) -> None:
    world.execute(
        "CREATE TABLE public.items AS SELECT x AS id, sin(x) AS a, now() AS updated_at FROM generate_series(1, 50) AS x;"
        "CREATE TABLE public.log (id bigint); CREATE SEQUENCE public.numbers;"
        "CREATE FUNCTION public.remember(id bigint) RETURNS float8 LANGUAGE sql AS "
        "'INSERT INTO public.log VALUES (id); SELECT 1.0::float8';"
        "CREATE FUNCTION public.number() RETURNS bigint LANGUAGE sql AS 'SELECT nextval(''public.numbers'')';"
        "CREATE FUNCTION public.lock(id bigint) RETURNS bigint LANGUAGE plpgsql AS "
        "'BEGIN PERFORM FROM public.items AS i WHERE i.id = $1 FOR UPDATE; RETURN 1; END'"
    )
    toml = (
        '[entity]\nkey = ["id"]\nquery = "SELECT id FROM public.items"\n[features]\nquery = "features.sql"\n'
        '[predictions]\np = { method = "predict" }\n'
    )
    for call, refused in (
        ("public.remember(b.id)", "cannot execute INSERT in a read-only transaction"),
        ("public.number()", "cannot execute nextval() in a read-only transaction"),
        ("public.lock(b.id)", "cannot execute SELECT FOR UPDATE in a read-only transaction"),
    ):
        make_pipeline(world, toml=toml, features=f"SELECT b.id, b.as_of, {call} AS x FROM batch AS b", changes=None)
        (report,) = check(world.settings, "items")
        (error,) = report.errors
        assert error.startswith(f"items/features.sql failed: {refused}")
    assert world.one("SELECT count(*) AS n FROM public.log")["n"] == 0
    assert world.one("SELECT last_value, is_called FROM public.numbers") == {"last_value": 1, "is_called": False}
