"""Crafted model files through the commands, on PostgreSQL: refused by name, nothing executed, nothing else served."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from sklearn.linear_model import LogisticRegression

from tasks import training
from tasks.database import connect
from tasks.errors import BundleTampered, ModelUnreadable, PickleNotTrusted, PrescoreError, TypesRefused
from tests.disturbances import command, prescore
from tests.factories import World, make_model, make_pipeline, make_world
from tests.malicious import MODULE, OWN_CODE, PICKLES, SKOPS, Call, Trap, trap, zipped

KINDS = [*PICKLES, *SKOPS]
TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.items"
[features]
query = "features.sql"
[predictions]
p = { method = "predict_proba", class = "1" }
"""
#: A LogisticRegression does not take NULL.
FILLED_SQL = """
SELECT i.id, b.as_of, coalesce(i.a, 0) AS a, coalesce(i.b, 0) AS b
FROM batch AS b JOIN public.items AS i ON i.id = b.id
"""

#: Gives every crafted file to the command in one process, and prints what it answered and what was executed.
PROGRAM = """
import contextlib, io, json, sys
from pathlib import Path
import flows.cli
from tests.malicious import PICKLES, SKOPS, trap

folder, sample, every = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
answers = {}
with trap(folder / "trap") as caught:
    for number, crafted in enumerate([*PICKLES, *SKOPS][::every]):
        file = folder / f"model{number}{'.skops' if number % 2 else '.joblib'}"
        file.write_bytes(crafted.make(caught))
        sys.argv = ["prescore", "models", "register", "churn", str(file), "--sample", sample]
        sys.argv += ["--train-data-until", "2024-03-01"]
        out, err = io.StringIO(), io.StringIO()
        with caught.watched(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = flows.cli.main()
            except SystemExit as ended:
                code = ended.code
        answers[crafted.name] = [code, out.getvalue(), err.getvalue(), caught.traces]
print(json.dumps(answers))
"""


@pytest.fixture
def caught(tmp_path: Path) -> Iterator[Trap]:
    with trap(tmp_path / "trap") as made:
        yield made


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    """A pipeline churn that serves the predictions of its first model."""
    made = make_world(database_url, tmp_path / "pipelines", rows=200)
    pipeline = make_pipeline(made, "churn", toml=TOML, changes=None, files={"model.py": OWN_CODE})
    make_model(made, pipeline)
    assert made.score("churn").status.value == "published"
    return made


def sample(folder: Path) -> Path:
    numbers = np.random.default_rng(2).normal(size=(40, 2))
    table = pa.table({"a": numbers[:, 0], "b": numbers[:, 1], "c": ["x"] * 40})
    pq.write_table(table, folder / "rows.parquet")
    return folder / "rows.parquet"


def served(world: World) -> Any:
    return world.rows("SELECT id, p, model_version, scored_in FROM predictions.churn ORDER BY id")


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_command_refuses_crafted_files_by_name_and_executes_nothing(world: World, tmp_path: Path, every: int) -> None:
    before = served(world), world.rows("SELECT * FROM prescore.aliases")
    (tmp_path / "files").mkdir()

    _, environment = command(world)
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "files"), str(sample(tmp_path)), str(every)]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)

    assert ended.returncode == 0, ended.stderr
    answers = json.loads(ended.stdout.splitlines()[-1])
    assert len(answers) == len(KINDS[::every])
    for crafted in KINDS[::every]:
        code, out, err, traces = answers[crafted.name]
        assert (crafted.name, code, out, traces) == (crafted.name, 1, "", [])
        assert re.search(crafted.said, err), (crafted.name, err)
        assert "no model was registered or replaced" in err.lower()
        assert "Traceback" not in err
    assert (served(world), world.rows("SELECT * FROM prescore.aliases")) == before
    assert world.rows("SELECT count(*) FROM prescore.models") == [(1,)]


# A bundle that was changed in the registry ---------------------------------------------------------------------------


def replace_bundle(world: World, change: Callable[[dict[str, bytes]], None], *, digest: bool = True) -> None:
    """Change the members of the newest bundle as somebody does who may write the registry."""
    stored = world.rows("SELECT version, data FROM prescore.model_chunks ORDER BY version DESC LIMIT 1")
    version, data = stored[0][0], bytes(stored[0][1])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    changed = zipped(list(members.items()), zipfile.ZIP_DEFLATED)
    with connect(world.url) as connection:
        values = {"version": version, "data": changed, "digest": hashlib.sha256(changed).hexdigest()}
        connection.execute(sa.text("UPDATE prescore.model_chunks SET data = :data WHERE version = :version"), values)
        if digest:
            statement = (
                "UPDATE prescore.models SET digest = :digest, size_bytes = octet_length(:data) WHERE version = :version"
            )
            connection.execute(sa.text(statement), values)
        connection.commit()


def swapped(estimator: bytes, loader: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members["estimator"] = estimator
        members["manifest.json"] = json.dumps({**json.loads(members["manifest.json"]), "loader": loader}).encode()

    return change


def require_refused_run(world: World, caught: Trap) -> PrescoreError:
    before = served(world)
    with caught.watched(), pytest.raises(PrescoreError) as refusal:
        world.score("churn")
    assert caught.traces == []
    assert refusal.value.exit_code == 1
    assert "still served" in str(refusal.value)
    run = world.one("SELECT status, message FROM prescore.runs ORDER BY run_id DESC LIMIT 1")
    assert run == {"status": "failed", "message": str(refusal.value)}
    assert served(world) == before
    return refusal.value


@pytest.mark.parametrize("loader", ["joblib", "skops"])
def test_run_never_opens_a_pickle_that_was_put_into_the_registry(world: World, caught: Trap, loader: str) -> None:
    evil = pickle.dumps(Call(os.system, caught.command))

    replace_bundle(world, swapped(evil, loader), digest=False)
    assert isinstance(require_refused_run(world, caught), BundleTampered)

    # Whoever may write the registry can write a digest, too; nobody vouched for the file all the same.
    replace_bundle(world, swapped(evil, loader))
    expected = PickleNotTrusted if loader == "joblib" else ModelUnreadable
    assert isinstance(require_refused_run(world, caught), expected)


def test_command_says_so_of_a_bundle_that_was_changed_in_the_registry(world: World, caught: Trap) -> None:
    replace_bundle(world, swapped(pickle.dumps(Call(os.system, caught.command)), "joblib"))

    done = prescore(world, "score", "churn")

    assert (done.returncode, done.stdout) == (1, "")
    assert "It was not opened" in done.stderr
    assert "Traceback" not in done.stderr
    assert not caught.mark.exists()


def test_run_loads_no_type_that_a_changed_bundle_names(world: World, caught: Trap) -> None:
    named = {crafted.name: crafted for crafted in SKOPS}
    for name in ("FunctionNode, os.system", "what model.py imports", "TypeNode"):
        replace_bundle(world, swapped(named[name].make(caught), "skops"))
        error = require_refused_run(world, caught)
        assert isinstance(error, TypesRefused)
        assert re.search(named[name].said, str(error))
    assert MODULE not in sys.modules


def test_trust_in_one_pickle_is_not_trust_in_another(world: World, caught: Trap, tmp_path: Path) -> None:
    rows = pq.read_table(sample(tmp_path)).to_pandas()
    joblib.dump(
        LogisticRegression().fit(rows[["a", "b"]].to_numpy(), (rows["a"] > 0).astype(int)), tmp_path / "m.joblib"
    )
    make_pipeline(world, "churn", toml=TOML, features=FILLED_SQL, changes=None)
    made = training.register_file(
        world.settings,
        "churn",
        tmp_path / "m.joblib",
        sample=tmp_path / "rows.parquet",
        train_data_until=world.rows("SELECT now()")[0][0],
        trust_pickle=True,
        promote=True,
    )
    assert made.version.trusted_sha256 == hashlib.sha256((tmp_path / "m.joblib").read_bytes()).hexdigest()
    assert world.score("churn").status.value == "published"
    told = world.one(
        "SELECT reason FROM prescore.checks WHERE check_id = 'model.identity' ORDER BY run_id DESC LIMIT 1"
    )
    assert "a pickle, which can run any code" in told["reason"]

    replace_bundle(world, swapped(pickle.dumps(Call(os.system, caught.command)), "joblib"))

    error = require_refused_run(world, caught)
    assert isinstance(error, BundleTampered)
    assert str(error).startswith(f"Model churn version {made.version.version}'s pickle has the digest")
