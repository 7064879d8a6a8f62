"""Runs with compiled trees: the same predictions as scikit-learn's, whatever becomes of the compiled form on the way."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from flows.cli import app
from tasks import scorers, transport
from tasks.compiled import form, library
from tasks.compiled.kernel import TREES
from tasks.runs import Status
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@pytest.fixture(scope="module")
def items(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Items whose champion is an ensemble of boosted trees behind an encoder of text."""
    world = make_world(module_database_url, tmp_path_factory.mktemp("items"), rows=2_000)
    make_model(world, make_pipeline(world), fit=boosted)
    return world


@pytest.fixture
def world(items: World, tmp_path: Path) -> World:
    """These items on a machine where nothing was compiled yet."""
    return replace(items, settings=replace(items.settings, data_dir=tmp_path / "data"))


def boosted(_: object, frame: pd.DataFrame) -> Any:
    """Fit boosted trees on the numbers and the codes of the texts."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline as chain
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("texts", encoder, ["c"])], remainder="passthrough")
    label = (frame["a"] + frame["b"].fillna(0) > 0).astype(int)
    return chain(columns, HistGradientBoostingClassifier(max_iter=20, random_state=1)).fit(frame, label)


def served(world: World) -> dict[int, tuple[float, int]]:
    return {key: (p, label) for key, p, label in world.rows("SELECT id, p, label FROM predictions.items")}


def by_scikit_learn(world: World) -> dict[int, tuple[float, int]]:
    """Return what a full run with scikit-learn's own code serves."""
    plain = replace(world, settings=replace(world.settings, compiled=False))
    assert plain.score(full=True).status is Status.PUBLISHED
    return served(world)


def place_of_library(world: World) -> Path:
    folder = world.settings.compiled_dir
    assert folder is not None
    return folder / f"trees-{library.source_key(TREES)}" / "library.so"


def test_compiled_runs_serve_what_scikit_learn_predicts(world: World, caplog: pytest.LogCaptureFixture) -> None:
    expected = by_scikit_learn(world)
    assert not place_of_library(world).exists()

    assert world.score(full=True).status is Status.PUBLISHED

    assert place_of_library(world).exists()
    assert served(world) == expected
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    world.execute("UPDATE public.items SET a = -a, c = 'new', updated_at = clock_timestamp() WHERE id % 7 = 0")
    changed = world.score()
    assert (changed.mode, changed.status) == ("incremental", Status.PUBLISHED)
    after = served(world)
    assert after != expected
    assert after == by_scikit_learn(world)


def test_linear_models_are_added_up_without_a_compiler(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """None as a text, NULL as a number and texts that training never saw go where scikit-learn sends them."""
    monkeypatch.setenv("CC", "false")
    world = make_world(database_url, tmp_path, rows=2_000)
    make_model(world, make_pipeline(world), fit=linear)
    world = replace(world, settings=replace(world.settings, data_dir=tmp_path / "data"))
    world.execute(
        "UPDATE public.items SET c = NULL WHERE id % 11 = 0; UPDATE public.items SET c = 'new' WHERE id % 13 = 0"
    )
    world.execute("UPDATE public.items SET b = NULL WHERE id % 17 = 0")
    expected = by_scikit_learn(world)

    with caplog.at_level(logging.INFO):
        assert world.score(full=True).status is Status.PUBLISHED

    found = served(world)
    assert found.keys() == expected.keys()
    assert {key: label for key, (_, label) in found.items()} == {key: label for key, (_, label) in expected.items()}
    assert max(abs(found[key][0] - expected[key][0]) for key in found) <= 1e-12
    assert not [record for record in caplog.records if "scikit-learn's own code" in record.getMessage()]
    (digest,) = world.rows("SELECT digest FROM prescore.models")[0]
    assert form.read_form(world.settings.compiled_dir, digest).in_words.startswith("a linear model added up by column")


def linear(_: object, frame: pd.DataFrame) -> Any:
    """Fit a logistic regression on scaled numbers and one column for each text."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline as chain
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = chain(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), ["c"]), ("n", numbers, ["a", "b"])])
    return chain(columns, LogisticRegression()).fit(frame, (frame["a"] + frame["b"].fillna(0) > 0).astype(int))


def test_a_poisoned_library_changes_nothing_but_the_speed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    expected = by_scikit_learn(world)
    wrong = library.source_of(TREES).replace(
        "sums[i * n_outputs + j] = baseline[j];", "sums[i * n_outputs + j] = 0.125;"
    )
    assert wrong != library.source_of(TREES)
    put_library(world, wrong)

    assert world.score(full=True).status is Status.PUBLISHED

    assert served(world) == expected
    told = [
        r.getMessage() for r in caplog.records if r.name.startswith("tasks.compiled") and r.levelno >= logging.WARNING
    ]
    assert len(told) == 1
    assert "differs on golden rows" in told[0]


def put_library(world: World, source: str) -> None:
    """Put a library where a run looks for it, with its digest, as whoever may write there could."""
    place = place_of_library(world)
    library.require_safe(place.parents[1])
    place.parent.mkdir(mode=0o700)
    code = place.with_name("trees.c")
    code.write_text(source)
    subprocess.run([*library.find_compiler(), *library._OPTIONS, "-o", str(place), str(code)], check=True)
    place.chmod(0o700)
    place.with_name("library.so.sha256").write_text(hashlib.sha256(place.read_bytes()).hexdigest())


def test_what_was_written_before_a_difference_is_written_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The compiled code turns wrong in the first batch, in a row that is not compared; a later batch shows it."""
    expected = by_scikit_learn(world)
    monkeypatch.setattr(transport, "BATCH_BYTES", 16_000)
    monkeypatch.setattr(form, "EVERY_ROWS", 1)
    monkeypatch.setattr(form, "FIRST_ROWS", 2)
    compile_scorer, handed_on = scorers.compile_scorer, []

    def spoil(*given: Any) -> Any:
        spoilt = compile_scorer(*given)
        compute = spoilt.compute

        def compute_wrongly(method: str, rows: Any) -> Any:
            found = compute(method, rows).copy()
            if method == "predict_proba":
                found[-2 if not handed_on else slice(None)] *= 0.5
                handed_on.append(len(rows))
            return found

        spoilt.compute = compute_wrongly
        return spoilt

    monkeypatch.setattr(scorers, "compile_scorer", spoil)

    assert world.score(full=True).status is Status.PUBLISHED

    assert len(handed_on) >= 2  # several batches are predicted at once
    assert served(world) == expected
    assert "scoring all 2000 entities again with scikit-learn" in caplog.text


def test_models_show_says_how_a_model_is_computed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = world.settings
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(settings.pipelines_dir))
    monkeypatch.setenv("PRESCORE_DATA_DIR", str(settings.data_dir))

    def shown() -> str:
        return " ".join(CliRunner().invoke(app, ["models", "show", "items"]).output.split())

    assert "no run has compiled it on this machine yet" in shown()
    world.score(full=True)
    assert "compiled trees, " in shown()
    told = json.loads(CliRunner().invoke(app, ["models", "show", "items", "--json"]).output)
    assert told["computed_by"]["compiled_rows"] > 0
    monkeypatch.setenv("PRESCORE_COMPILED", "false")
    assert "because PRESCORE_COMPILED is false" in shown()


def test_a_pipeline_may_turn_it_off(world: World) -> None:
    make_pipeline(world, toml=PIPELINE_TOML + "[model]\ncompiled = false\n")
    try:
        assert world.score(full=True).status is Status.PUBLISHED
    finally:
        make_pipeline(world)
    assert not place_of_library(world).exists()
