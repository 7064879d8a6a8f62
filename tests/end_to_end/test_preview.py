"""`prescore score --dry-run` and `prescore features`: what a run would see of a few entities, and nothing is written."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline as chain
from sklearn.preprocessing import OneHotEncoder
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.preview import preview_run, read_features
from flows.show import show_registered
from flows.train import register_file
from tasks.errors import ModelNotFound, PrescoreError, UsageError
from tasks.freshness import Disposition
from tasks.runs import AsOfRefused, Status, hold_lock
from tests.factories import (
    FEATURES_SQL,
    PIPELINE_TOML,
    World,
    make_model,
    make_pipeline,
    make_world,
)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    return make_world(database_url, tmp_path, rows=300)


def prescore(world: World, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
    return CliRunner().invoke(app, words)


def everything(world: World) -> dict[str, Any]:
    """What a database holds: every relation with a fingerprint of its rows, and where its sequences are."""
    relations = world.rows(
        "SELECT c.oid::regclass::text, c.relkind::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname IN ('public', 'prescore', 'prescore_rows', 'predictions') AND c.relkind IN ('r', 'p', 'v', 'S')"
    )
    states = {}
    for name, kind in relations:
        what = "last_value, is_called" if kind == "S" else "count(*), sum(hashtextextended(r::text, 0))"
        # Views count by the clock; their rows are those of the tables.
        states[name] = () if kind == "v" else world.rows(f"SELECT {what} FROM {name} AS r")[0]
    locks = world.rows(
        "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
        "WHERE l.locktype = 'advisory' AND d.datname = current_database()"
    )
    return {**states, "locks": locks}


def test_a_dry_run_leaves_the_database_as_it_was_before_and_after_the_first_publication(world: World) -> None:
    make_model(world, make_pipeline(world))
    before = everything(world)
    first = preview_run(world.settings, "items", limit=5)
    assert everything(world) == before

    world.score()
    before = everything(world)
    second = preview_run(world.settings, "items", limit=5)
    assert everything(world) == before
    assert [e.key for e in first.entities] == [e.key for e in second.entities]
    assert [e.predictions for e in first.entities] == [e.predictions for e in second.entities]
    assert len({e.key["id"] for e in second.entities}) == 5


def test_a_dry_run_looks_at_the_past_and_minds_no_other_run(world: World) -> None:
    make_model(world, make_pipeline(world, features=FEATURES_SQL.replace("i.b,", "extract(epoch FROM b.as_of) AS b,")))
    world.score()
    before = datetime(2026, 1, 1, tzinfo=UTC)
    with hold_lock(world.url, "items"):
        found = preview_run(world.settings, "items", limit=1, as_of=before)
    assert found.as_of == before
    assert [entity.features and entity.features["b"] for entity in found.entities] == [before.timestamp()]


def test_a_query_that_writes_is_stopped_by_the_database(world: World) -> None:
    world.execute(
        "CREATE TABLE public.seen (id bigint); CREATE FUNCTION public.see(id bigint) RETURNS bigint LANGUAGE sql AS "
        "$$ INSERT INTO public.seen VALUES (id) RETURNING id $$"
    )
    make_model(world, make_pipeline(world))
    make_pipeline(world, features=FEATURES_SQL.replace("i.a,", "public.see(i.id) + i.a AS a,"))
    with pytest.raises(PrescoreError, match="read-only transaction"):
        preview_run(world.settings, "items", limit=1)
    assert world.rows("SELECT * FROM public.seen") == []


def test_a_run_publishes_what_the_dry_run_showed(world: World) -> None:
    make_model(world, make_pipeline(world))
    as_of = datetime.now(UTC) - timedelta(minutes=1)
    shown = preview_run(world.settings, "items", limit=20, as_of=as_of)
    assert world.score(as_of=as_of).status is Status.PUBLISHED
    served = {row[0]: row[1:] for row in world.rows("SELECT id, p, label, as_of FROM predictions.items")}
    for entity in shown.entities:
        assert entity.predictions is not None
        assert served[entity.key["id"]] == (entity.predictions["p"], entity.predictions["label"], as_of)
    assert (shown.findings, shown.disposition) == ((), Disposition.PUBLISH)


def test_entities_that_a_run_would_reject_are_shown_with_their_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(_: Any, frame: pd.DataFrame) -> Any:  # a model that raises on NaN in b
        return chain(make_column_transformer(("passthrough", ["a", "b"])), LogisticRegression()).fit(
            frame[["a", "b", "c"]].dropna(), frame.dropna()["a"] > 0
        )

    toml = PIPELINE_TOML.replace('class = "1"', 'class = "True"')
    make_model(world, make_pipeline(world, toml=toml), fit=fit)
    make_pipeline(world, toml=toml, features=FEATURES_SQL + " WHERE i.id <> 5")
    told = prescore(
        world, monkeypatch, "score", "items", "--dry-run", "--key", "17", "--key", "5", "--key", "1", "--json"
    )
    assert told.exit_code == 0, told.stderr
    found = json.loads(told.stdout)["entities"]
    assert [entity["key"]["id"] for entity in found] == [17, 5, 1]
    assert [entity["rejected"] for entity in found] == ["null:b", "no_features", None]
    assert [entity["predictions"] is None for entity in found] == [True, True, False]
    assert (found[0]["features"]["b"], found[1]["features"]) == (None, None)
    assert list(found[2]["preprocessed"]) == ["a", "b", "c"]
    table = prescore(world, monkeypatch, "score", "items", "--dry-run", "--key", "17", "--key", "1")
    assert re.search(r"^ rejected +null:b *$", table.stdout, re.MULTILINE)


def test_what_a_run_would_be_stopped_by_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(world, make_pipeline(world))
    make_pipeline(world, features=FEATURES_SQL.replace("i.a,", "i.a + 1 AS a,"))
    found = preview_run(world.settings, "items", limit=2)
    assert found.disposition is Disposition.ABORT
    assert [finding.check_id for finding in found.findings] == ["logic", "model.golden"]
    told = prescore(world, monkeypatch, "score", "items", "--dry-run").stdout
    assert "would not publish (abort)" in told
    assert "known rows: a" in told


def test_entities_of_a_composite_key_are_named_column_by_column(world: World) -> None:
    world.execute(
        "CREATE TABLE public.visits (day date, shop text, position integer, PRIMARY KEY (day, shop, position));"
        "INSERT INTO public.visits SELECT DATE '2026-01-01' + x, 'it''s \"' || x, x FROM generate_series(1, 40) AS x"
    )
    toml = PIPELINE_TOML.replace('["id"]', '["day", "shop", "position"]').replace(
        "SELECT id FROM public.items", "SELECT day, shop, position FROM public.visits"
    )
    query = "SELECT b.*, sin(b.position) AS a FROM batch AS b"
    pipeline = make_pipeline(
        world, "visits", toml=toml.replace('changes = "changes.sql"\n', ""), features=query, changes=None
    )
    make_model(world, pipeline)
    named = ["2026-01-04", "it's \"3", "3", "2026-01-03", "it's \"2", "2"]
    found = preview_run(world.settings, "visits", limit=1, named=named)
    assert [entity.key["position"] for entity in found.entities] == [3, 2]
    assert [entity.features for entity in found.entities] == [{"a": pytest.approx(np.sin(x))} for x in (3, 2)]
    with pytest.raises(UsageError, match="2 times, visits has 3 key columns: day, shop, position"):
        preview_run(world.settings, "visits", limit=1, named=named[:2])
    with pytest.raises(UsageError, match="A value of --key is no date"):
        preview_run(world.settings, "visits", limit=1, named=["soon", "x", "1"])
    with pytest.raises(UsageError, match="number 2 is not in the population") as refused:
        preview_run(world.settings, "visits", limit=1, named=[*named[:3], "2026-01-04", "elsewhere", "4"])
    assert "elsewhere" not in str(refused.value)


def test_options_that_cannot_be_meant_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*words: str) -> str:
        told = prescore(world, monkeypatch, "score", "items", *words)
        assert isinstance(told.exception, UsageError)
        assert told.exception.exit_code == 2
        return str(told.exception)

    assert "--limit and --key belong to --dry-run" in refused("--limit", "3")
    assert "--limit and --key belong to --dry-run" in refused("--key", "3")
    assert "--dry-run and --full" in refused("--dry-run", "--full")
    assert "--dry-run and --trigger" in refused("--dry-run", "--trigger", "scheduled")
    assert "--key and --limit" in refused("--dry-run", "--key", "3", "--limit", "3")
    assert world.rows("SELECT * FROM prescore.runs") == []


def test_without_a_model_features_are_shown_and_a_dry_run_says_how_to_get_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pipeline(world)
    with pytest.raises(ModelNotFound, match="prescore train"):
        preview_run(world.settings, "items", limit=1)
    with pytest.raises(AsOfRefused, match="later than the clock"):
        read_features(world.settings, "items", limit=1, as_of=datetime.now(UTC) + timedelta(days=1))
    told = prescore(world, monkeypatch, "features", "items", "--key", "17", "--key", "2", "--json")
    assert told.exit_code == 0, told.stderr
    rows = json.loads(told.stdout)["entities"]
    assert [row["key"] for row in rows] == [{"id": 17}, {"id": 2}]
    assert rows[0]["features"]["b"] is None
    assert rows[1]["features"] == {
        "a": pytest.approx(np.sin(2 * 12.9898)),
        "b": pytest.approx(np.cos(2 * 78.233)),
        "c": "z",
    }


def test_several_rows_for_an_entity_are_refused(world: World) -> None:
    make_pipeline(world, features=FEATURES_SQL + " CROSS JOIN generate_series(1, 2)")
    with pytest.raises(PrescoreError, match=r"items/features.sql: it returned 6 rows for at most 3 entities"):
        read_features(world.settings, "items", limit=3)


def test_thirty_features_of_five_entities_stay_readable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    many = ", ".join(f"i.a * {n} AS feature_number_{n}" for n in range(1, 29))
    make_model(world, make_pipeline(world, features=FEATURES_SQL.replace("i.b,", f"repeat(i.c, 300) AS b, {many},")))
    told = prescore(world, monkeypatch, "score", "items", "--dry-run")
    assert told.exit_code == 0, told.stderr
    lines = told.stdout.splitlines()
    assert max(len(line) for line in lines) <= 100
    for name in ("p", "label", "a", "b", "c", *(f"feature_number_{n}" for n in range(1, 29))):
        assert any(line.startswith(f" {name} ") for line in lines), name
    keys = [number for line in lines if line.startswith(" id ") for number in line.split()[1:]]
    assert len(keys) == len(set(keys)) == 5
    assert lines[0].startswith("items: items version 1, as of ")
    assert "Nothing was written." in lines[0]


def test_values_that_json_has_no_word_for_are_text_as_postgres_writes_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(world, make_pipeline(world))
    world.execute(
        "UPDATE public.items SET a = 'NaN' WHERE id = 1; UPDATE public.items SET b = '-Infinity' WHERE id = 2"
    )
    told = prescore(world, monkeypatch, "score", "items", "--dry-run", "--key", "1", "--key", "2", "--json")
    first, second = json.loads(told.stdout, parse_constant=pytest.fail)["entities"]
    assert first["features"] == {"a": "NaN", "b": pytest.approx(np.cos(78.233)), "c": "y"}
    assert first["preprocessed"]["a"] is None
    assert 0 < first["predictions"]["p"] < 1
    assert (second["features"]["b"], second["rejected"]) == ("-Infinity", "infinite:b")


@pytest.mark.parametrize("filled", [True, False], ids=["with the preprocess of the README", "without"])
def test_a_model_fitted_on_pandas_dtypes_gives_what_it_gave_in_the_notebook(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], filled: bool
) -> None:
    world.execute(
        "ALTER TABLE public.items ADD flag boolean, ADD n integer;"
        "UPDATE public.items SET flag = a > 0, n = id % 4, c = nullif(c, 'x')"
    )
    frame = pd.DataFrame(world.rows("SELECT id, a, flag, n, c FROM public.items ORDER BY id"))
    frame.columns = ["id", "a", "flag", "n", "c"]
    frame = frame.astype({"flag": bool, "n": "int64", "c": "str" if pd.__version__ >= "3" else object})
    assert frame["c"].isna().any()
    columns = ["a", "flag", "n", "c"]
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["flag", "n", "c"]), remainder="passthrough"
    )
    model = chain(encode, LogisticRegression()).fit(frame[columns], frame["flag"] ^ frame["c"].isna())
    joblib.dump(model, tmp_path / "model.joblib")
    toml = PIPELINE_TOML.replace('class = "1"', 'class = "True"')
    if filled:
        toml = toml.replace('"features.sql"', '"features.sql"\npreprocess = "model.py:preprocess"')
    make_pipeline(
        world,
        toml=toml,
        features="SELECT b.id, b.as_of, i.a, i.flag, i.n, i.c FROM batch AS b JOIN public.items AS i USING (id)",
        files={"model.py": 'def preprocess(frame):\n    return frame.fillna(float("nan"))\n'},
    )
    sample = read_features(world.settings, "items", limit=200, file=tmp_path / "rows.parquet")
    assert (sample.rows.num_rows, sample.missing) == (200, 0)
    version = register_file(
        world.settings,
        "items",
        tmp_path / "model.joblib",
        sample=tmp_path / "rows.parquet",
        train_data_until=datetime.now(UTC),
        trust_pickle=True,
    )
    show_registered(version, as_json=False)
    warned = "this model scores None otherwise than NaN (c)" in " ".join(capsys.readouterr().out.split())
    assert warned is not filled
    found = preview_run(world.settings, "items", limit=300)
    served = pd.Series({e.key["id"]: e.predictions["p"] for e in found.entities if e.predictions}).sort_index()
    known = pd.Series(model.predict_proba(frame[columns])[:, 1], index=frame["id"])
    differing = (served - known).abs() > 1e-9
    assert len(served) == len(frame)
    # What the README warns of: without it, exactly the customers with a NULL text get another prediction.
    assert differing.sum() == (0 if filled else frame["c"].isna().sum())
