"""Registers the estimators of the catalogue as a user would, and compares what they say in another process."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skops.io
from pyarrow import feather

from flows.train import register_file
from tasks import registry
from tasks.errors import PrescoreError
from tasks.pipeline import Pipeline, load_pipeline
from tests.estimators import FEATURES, KINDS, MODEL_PY, OUTPUTS, UNTIL, Kind, make_rows
from tests.factories import World, make_pipeline, make_world

_COLUMNS = ", ".join(f"{column.name} {column.postgres_type}" for column in FEATURES)

TOML = """
description = "Customers of a test."
[entity]
key = ["id"]
query = "SELECT id FROM public.customers"
[features]
query = "features.sql"
{preprocess}
[predictions]
{predictions}
"""

FEATURES_SQL = (
    f"SELECT c.id, b.as_of, {', '.join(f'c.{column.name}' for column in FEATURES)} "
    "FROM batch AS b JOIN public.customers AS c ON c.id = b.id"
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an estimator of the catalogue."""

    kind: str
    #: Why it was refused; None when it was registered.
    refused: str | None = None
    #: Why the new process could not load or score it; None when it could.
    not_loaded: str | None = None
    version: int = 0
    size_bytes: int = 0
    #: From the registry to a model that scores, in the new process.
    seconds_to_load: float = 0.0
    #: Largest difference of a value from the original's; None when a class differs.
    difference: float | None = None


def make_shop(url: str, folder: Path) -> World:
    """Return a world with a table of customers and a pipeline for each kind of outputs."""
    world = make_world(url, folder / "pipelines", rows=None)
    rows = make_rows().drop_columns(["as_of"]).to_pylist()
    world.execute(
        f"CREATE TABLE public.customers (id bigint PRIMARY KEY, {_COLUMNS});"
        "INSERT INTO public.customers SELECT * FROM json_populate_recordset(NULL::public.customers, "
        f"$rows${json.dumps(rows, default=str)}$rows$)"
    )
    pq.write_table(make_rows(), folder / "rows.parquet")
    for kind in {kind.pipeline: kind for kind in KINDS.values()}.values():
        declared = [f"{name} = {_inline(output)}" for name, output in OUTPUTS[kind.outputs].items()]
        preprocess = 'preprocess = "model.py:preprocess"' if kind.preprocessed else ""
        toml = TOML.format(preprocess=preprocess, predictions="\n".join(declared))
        files = {"model.py": MODEL_PY}
        make_pipeline(world, kind.pipeline, toml=toml, features=FEATURES_SQL, changes=None, files=files)
    return world


def _inline(table: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in table.items()) + " }"


def register(world: World, folder: Path, kind: Kind, estimator: Any) -> registry.ModelVersion:
    """Save an estimator and register the file: ``prescore models register``."""
    file = folder / f"{kind.name}.skops"
    skops.io.dump(estimator, file)
    return register_file(
        world.settings,
        kind.pipeline,
        file,
        sample=folder / "rows.parquet",
        train_data_until=UNTIL,
        pipeline=kind.pipeline,
    )


def register_and_rescore(world: World, folder: Path, names: Iterable[str]) -> dict[str, Outcome]:
    """Register estimators, score each in one new process, and compare with what the originals say."""
    rows = make_rows()
    outcomes: dict[str, Outcome] = {}
    originals: dict[str, dict[str, Any]] = {}
    for name in names:
        kind = KINDS[name]
        code = code_of(load_pipeline(world.settings.pipelines_dir / kind.pipeline))
        estimator = kind.fit(code, rows)
        originals[name] = original_scores(kind, estimator, kind.frame(code, rows))
        try:
            version = register(world, folder, kind, estimator)
        except PrescoreError as error:
            outcomes[name] = Outcome(kind=name, refused=str(error))
            continue
        outcomes[name] = Outcome(kind=name, version=version.version, size_bytes=version.size_bytes)
    registered = [outcome for outcome in outcomes.values() if outcome.refused is None]
    told = rescore_elsewhere(world, folder, registered)
    for outcome in registered:
        if isinstance(seconds := told[outcome.kind], str):
            outcomes[outcome.kind] = replace(outcome, not_loaded=seconds)
            continue
        found = feather.read_table(folder / f"{outcome.kind}.arrow")
        differences = [_difference(originals[outcome.kind][name], found.column(name)) for name in found.column_names]
        worst = None if None in differences else max(value for value in differences if value is not None)
        outcomes[outcome.kind] = replace(outcome, seconds_to_load=seconds, difference=worst)
    return outcomes


def code_of(pipeline: Pipeline) -> ModuleType:
    """Return the imported model.py of a pipeline."""
    return importlib.import_module(f"{registry.import_pipeline_code(pipeline)}.model")


def original_scores(kind: Kind, estimator: Any, frame: Any) -> dict[str, Any]:
    """Return what the estimator's own methods give for each output."""
    return {name: _called(estimator, frame, **output) for name, output in OUTPUTS[kind.outputs].items()}


def _called(estimator: Any, frame: Any, method: str, **how: Any) -> Any:
    found = getattr(estimator, method)(frame)
    found = np.asarray(found.toarray() if hasattr(found, "toarray") else found)
    if "output" in how:
        return found[:, how["output"]]
    if "reduce" in how:
        return found.min(axis=1)
    if how.get("class") == "1":
        return found[:, [str(label) for label in estimator.classes_].index("1")]
    return found.ravel()


def _difference(original: Any, found: pa.ChunkedArray) -> float | None:
    """Return the largest difference between values; None when one that is no float is not equal."""
    values = found.combine_chunks()
    if pa.types.is_list(values.type):
        values = values.flatten()
    if not pa.types.is_floating(values.type):
        return 0.0 if values.to_pylist() == original.tolist() else None
    return float(np.max(np.abs(values.to_numpy() - original) / np.maximum(1.0, np.abs(original))))


def rescore_elsewhere(world: World, folder: Path, registered: Sequence[Outcome]) -> dict[str, float | str]:
    """Score registered models in one new process; return the seconds that each took to load, or what it raised."""
    wanted = [[outcome.kind, KINDS[outcome.kind].pipeline, outcome.version] for outcome in registered]
    (folder / "wanted.json").write_text(json.dumps(wanted), encoding="utf-8")
    places = {"PRESCORE_DATABASE_URL": world.url, "PRESCORE_PIPELINES": str(world.settings.pipelines_dir)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.elsewhere", str(folder)],
        env={**os.environ, **places},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, float | str] = json.loads(done.stdout)
    return told
