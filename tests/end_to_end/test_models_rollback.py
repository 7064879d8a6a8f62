"""`prescore models rollback` lets an alias name again what it named before, if that still fits, and says what follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.models import roll_back
from tasks.errors import AliasMoved, NothingBefore, VersionUnfit
from tasks.registry import promote_now
from tests.disturbances import prescore
from tests.factories import CHANGES_SQL, FEATURES_SQL, PIPELINE_TOML, World, make_model, make_pipeline, make_world
from tests.factories import _fitted as fitted


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    """A pipeline that served version 1 and serves version 2."""
    made = make_world(database_url, tmp_path, rows=300)
    pipeline = make_pipeline(made)
    make_model(made, pipeline)
    made.score()
    make_model(made, pipeline, fit=lambda _, frame: fitted(None, frame.head(100)))
    assert made.score().mode.value == "full"
    return made


def command(world: World, *words: str) -> Result:
    environment = {"PRESCORE_DATABASE_URL": world.url, "PRESCORE_PIPELINES": str(world.settings.pipelines_dir)}
    return CliRunner().invoke(app, ["models", "rollback", "items", *words], env=environment)


def aliases(world: World) -> list[Any]:
    return world.rows(
        "SELECT version, went_back, because FROM prescore.aliases WHERE alias = 'champion' ORDER BY since"
    )


def served(world: World) -> list[Any]:
    return world.rows("SELECT id, p, model_version FROM predictions.items ORDER BY id")


def test_alias_goes_back_and_the_next_run_is_full(world: World) -> None:
    before = served(world)

    told = command(world, "--because", "too many false alarms")

    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines() == [
        "items champion: version 1 again (was 2).",
        "items serves the predictions of version 2 until its next run, which is full. Start it: prescore score items",
    ]
    assert aliases(world)[-1] == (1, True, "too many false alarms")
    assert served(world) == before  # nothing was scored
    summary = world.score()
    assert (summary.mode.value, summary.model_version) == ("full", 1)
    assert "invalidated: model version 2 is served, 1 is current" in summary.because

    with pytest.raises(NothingBefore, match="every promotion since was undone already"):
        roll_back(world.settings, "items", alias="champion")
    assert len(aliases(world)) == 3


def test_command_for_programs_and_its_refusal(world: World) -> None:
    done = json.loads(command(world, "--json").stdout)
    assert (done["version"], done["before"], done["earlier"], done["tried"]) == (1, 2, None, ["items"])
    assert done["users"] == [{"pipeline": "items", "pinned": False, "model_version": 2}]
    assert aliases(world)[-1] == (1, True, "went back from version 2")

    refused = prescore(world, "models", "rollback", "items")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "items champion has nothing to go back to" in refused.stderr
    assert "prescore models promote items VERSION" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_rollback_of_the_publication_and_of_the_alias_agree(world: World) -> None:
    make_model(world, make_pipeline(world), fit=lambda _, frame: fitted(None, frame.head(60)))
    world.score()
    assert command(world).stdout.splitlines()[-1] == "Going back again would lead to version 1."

    environment = {"PRESCORE_DATABASE_URL": world.url, "PRESCORE_PIPELINES": str(world.settings.pipelines_dir)}
    back = CliRunner().invoke(app, ["rollback", "items"], env=environment)
    assert back.exit_code == 0, back.output

    # The publication went back to version 2 as well: the alias names that already, and one step further is version 1.
    assert [row[0] for row in aliases(world)] == [1, 2, 3, 2]
    told = command(world)
    assert "items champion: version 1 again (was 2)." in told.stdout
    assert "Start it: prescore resume items && prescore score items" in told.stdout


def test_publication_that_goes_back_takes_the_alias_a_step_back(world: World) -> None:
    environment = {"PRESCORE_DATABASE_URL": world.url, "PRESCORE_PIPELINES": str(world.settings.pipelines_dir)}
    assert CliRunner().invoke(app, ["rollback", "items"], env=environment).exit_code == 0
    assert [row[:2] for row in aliases(world)] == [(1, False), (2, False), (1, True)]
    promote_now(world.url, "items", 2, "champion", "after all")
    assert command(world).stdout.splitlines()[1:] == [
        "items serves the predictions of version 1 already; its next run need not be full."
    ]
    with pytest.raises(NothingBefore):
        roll_back(world.settings, "items", alias="champion")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("damaged", "Model items version 1 has the digest"),
        ("feature gone", r"features\.sql of items does not return b"),
        ("feature retyped", r"features\.sql of items returns b \(double precision to text\)"),
        ("another output", "Output p asks for"),
        ("other libraries", r"scikit-learn 0\.1 recorded"),
    ],
)
def test_version_that_does_not_fit_any_more_is_refused_with_a_remedy(
    world: World, spoil: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spoil == "damaged":
        world.execute("UPDATE prescore.model_chunks SET data = substr(data, 1, 100) WHERE version = 1")
    elif spoil == "other libraries":
        monkeypatch.setattr("tasks.bundle.environment_differences", lambda *_: ["scikit-learn 0.1 recorded, 9 running"])
    else:
        features = FEATURES_SQL
        if spoil.startswith("feature"):
            features = features.replace("i.b,", "" if spoil == "feature gone" else "i.b::text AS b,")
        toml = PIPELINE_TOML.replace('class = "1"', 'class = "9"') if spoil == "another output" else PIPELINE_TOML
        make_pipeline(world, toml=toml, features=features, changes=CHANGES_SQL)
    before = aliases(world), served(world)

    with pytest.raises(VersionUnfit, match=said) as refused:
        roll_back(world.settings, "items", alias="champion")

    assert str(refused.value).startswith("items champion cannot go back to version 1: ")
    assert "The alias still names version 2" in str(refused.value)
    assert "promote another one (`prescore models list items`)" in str(refused.value)
    assert (aliases(world), served(world)) == before


def test_alias_that_moved_while_the_version_was_tried_stays_where_it_went(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(world, make_pipeline(world), fit=lambda _, frame: fitted(None, frame.head(60)), promote=False)

    def meanwhile(*_: Any) -> list[str]:
        promote_now(world.url, "items", 3, "champion", "a better one")
        return []

    monkeypatch.setattr("tasks.fitness.misfits", meanwhile)
    with pytest.raises(AliasMoved, match=r"it names version 3 now .*a better one"):
        roll_back(world.settings, "items", alias="champion")
    assert [row[0] for row in aliases(world)] == [1, 2, 3]


def test_alias_that_no_pipeline_here_scores_with_is_compared_by_digest(world: World) -> None:
    for version in (1, 2):
        promote_now(world.url, "items", version, "challenger", "a test")
    told = command(world, "--alias", "challenger")
    assert told.stdout.splitlines() == [
        "items challenger: version 1 again (was 2).",
        "No pipeline of this folder scores with it, so that only its digest was compared.",
        "No pipeline has scored with it in this database yet.",
    ]
    world.execute("UPDATE prescore.model_chunks SET data = substr(data, 1, 100) WHERE version = 1")
    promote_now(world.url, "items", 2, "challenger", "a test")
    refused = command(world, "--alias", "challenger")
    assert (refused.exit_code, type(refused.exception).__name__) == (1, "BundleTampered")
