"""Small worlds for tests: a table of items, a pipeline folder over it, a model that knows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LinearRegression, LogisticRegression

from flows.score import RunSummary, score
from tasks import registry
from tasks.database import connect, raw_execute, resolve_source_url
from tasks.features import AS_OF, FeatureContract, describe, read_features, read_population_sql
from tasks.pipeline import Pipeline, load_pipeline
from tasks.population import population_keys
from tasks.probes import create_bundle
from tasks.registry import ModelVersion
from tasks.settings import Settings
from tasks.transport import open_reading_session
from tests.servers import FOLDER_VARIABLE

ITEMS = """
CREATE TABLE public.items (
    id bigint PRIMARY KEY, a double precision, b double precision, c text, updated_at timestamptz NOT NULL
);
CREATE INDEX ON public.items (updated_at);
INSERT INTO public.items
SELECT x, sin(x * 12.9898), CASE WHEN x % 17 <> 0 THEN cos(x * 78.233) END, (ARRAY['x', 'y', 'z'])[1 + x % 3],
       statement_timestamp() - interval '1 hour'
FROM generate_series(1, {rows}) AS x;
ANALYZE public.items
"""

PIPELINE_TOML = """
description = "Items of a test."
[entity]
key = ["id"]
query = "SELECT id FROM public.items"
[features]
query = "features.sql"
changes = "changes.sql"
[predictions]
p = { method = "predict_proba", class = "1", index = true }
label = { method = "predict" }
"""

FEATURES_SQL = "SELECT i.id, b.as_of, i.a, i.b, i.c FROM batch AS b JOIN public.items AS i ON i.id = b.id"
CHANGES_SQL = "SELECT id FROM public.items, since WHERE updated_at > since.at"


class FirstNumber(ClassifierMixin, BaseEstimator):
    """A classifier of a test's own: probability by the first number, class by its sign."""

    def fit(self, frame: pd.DataFrame, labels: Any) -> FirstNumber:
        """Remember the classes."""
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        """Return 1 / (1 + exp(-a)); NaN counts as 0."""
        positive = 1.0 / (1.0 + np.exp(-np.nan_to_num(frame["a"].to_numpy(dtype=float))))
        return np.column_stack([1.0 - positive, positive])

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the likelier class."""
        return (self.predict_proba(frame)[:, 1] > 0.5).astype(np.int64)


@dataclass(frozen=True)
class World:
    """A database with items, the folder of its pipelines, and what is needed to run them."""

    url: str
    settings: Settings

    @property
    def source_url(self) -> str:
        """Where the items are: in the same database, unless the settings name another."""
        return resolve_source_url(self.settings, self.url)

    def change(self, statement: str) -> None:
        """Run SQL as it stands where the items are, and commit."""
        with connect(self.source_url) as connection:
            raw_execute(connection, statement)
            connection.commit()

    def execute(self, statement: str) -> None:
        """Run SQL as it stands and commit, as somebody who is not prescore."""
        with connect(self.url) as connection:
            raw_execute(connection, "SET LOCAL prescore.writer TO ''")
            raw_execute(connection, statement)
            connection.commit()

    def rows(self, statement: str) -> list[Any]:
        """Run a query as it stands and return its rows as tuples."""
        with connect(self.url) as connection:
            return list(raw_execute(connection, statement).fetchall())

    def one(self, statement: str) -> Any:
        """Run a query that returns one row, and return it as a mapping of column names."""
        with connect(self.url) as connection:
            cursor = raw_execute(connection, statement)
            names = [column.name for column in cursor.description]
            found = cursor.fetchall()
        assert len(found) == 1, f"{len(found)} rows"
        return dict(zip(names, found[0], strict=True))

    def set_clock(self, instant: datetime) -> None:
        """Let prescore.clock() return one instant, in this database."""
        self.execute(
            "CREATE OR REPLACE FUNCTION prescore.clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE "
            f"AS $$ SELECT TIMESTAMPTZ '{instant.isoformat()}' $$"
        )

    def score(self, name: str = "items", **options: Any) -> RunSummary:
        """Run the scoring flow."""
        return score(self.settings, name, **options)

    def contract(self, pipeline: Pipeline) -> FeatureContract:
        """Describe the queries of a pipeline."""
        with connect(self.source_url) as connection:
            return describe(connection, pipeline)


def make_world(url: str, folder: Path, *, rows: int | None = 1_000, source_url: str | None = None) -> World:
    """Return a world on a migrated database; ``rows`` items are created unless it is None, in the one of the sources."""
    # What is compiled for one world serves all others of a test run.
    run = os.environ.get(FOLDER_VARIABLE)
    data_dir = Path(run) / "worlds" if run else folder / "data"
    settings = Settings(database_url=url, pipelines_dir=folder, data_dir=data_dir, source_url=source_url)
    world = World(url=url, settings=settings)
    if rows is not None:
        world.change(ITEMS.format(rows=rows))
    return world


def make_pipeline(
    world: World,
    name: str = "items",
    *,
    toml: str = PIPELINE_TOML,
    features: str = FEATURES_SQL,
    changes: str | None = CHANGES_SQL,
    files: Mapping[str, str] | None = None,
) -> Pipeline:
    """Write (or overwrite) a pipeline folder and load it."""
    folder = world.settings.pipelines_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"pipeline.toml": toml, "features.sql": features, **(files or {})}
    if changes is not None:
        texts["changes.sql"] = changes
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return load_pipeline(folder)


def make_model(
    world: World,
    pipeline: Pipeline,
    estimator: Any = None,
    *,
    fit: Callable[[Any, pd.DataFrame], Any] | None = None,
    train_data_until: datetime | None = None,
    promote: bool = True,
    sample_rows: int = 500,
) -> ModelVersion:
    """Fit an estimator on the features of the pipeline, register it, and make it the champion.

    By default it is a LogisticRegression on the numbers; the label is whether their sum is positive.
    """
    contract = world.contract(pipeline)
    as_of = train_data_until or datetime.now(UTC)
    with open_reading_session(world.source_url) as session:
        if contract.dataset is None:
            statement = read_population_sql(pipeline, contract, as_of)
            sample = session.table(statement).slice(0, sample_rows)
        else:
            keys = session.table(population_keys(session, pipeline, contract.key, as_of)).slice(0, sample_rows)
            wanted = keys.append_column("as_of", pa.array([as_of] * keys.num_rows, AS_OF.arrow_type))
            sample = read_features(session, pipeline, contract, wanted)
    from tasks.bundle import preprocessed

    frame = preprocessed(sample, contract.features, pipeline.preprocess_function())
    fitted = fit(estimator, frame) if fit is not None else _fitted(estimator, frame)
    bundle, data = create_bundle(
        name=pipeline.model.name,
        estimator=fitted,
        key=contract.key,
        features=contract.features,
        outputs=pipeline.predictions,
        preprocess=pipeline.preprocess_function(),
        sample=sample,
        train_data_until=as_of,
        metrics={},
        logic_digest=pipeline.logic_digest,
        pipeline_module=registry.import_pipeline_code(pipeline),
    )
    with connect(world.url) as connection:
        version = registry.register(connection, bundle, source="a test", data=data)
        if promote:
            registry.promote(connection, pipeline.model.name, version.version, pipeline.model.alias, "a test")
        connection.commit()
    return version


def _fitted(estimator: Any, frame: pd.DataFrame) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline as chain

    numbers = [name for name in frame.columns if frame[name].dtype == "float64"]
    total = frame[numbers].fillna(0).sum(axis=1)
    labels = (total > total.median()).astype(int)
    labels.iloc[:2] = [0, 1]
    if estimator is not None:
        return estimator.fit(frame, labels)
    keep = ColumnTransformer([("numbers", SimpleImputer(keep_empty_features=True), numbers)])
    return chain(keep, LogisticRegression()).fit(frame, labels)


def make_regressor(world: World, pipeline: Pipeline, **options: Any) -> ModelVersion:
    """Register a LinearRegression on the numbers of the pipeline's features."""

    def fit(_: Any, frame: pd.DataFrame) -> Any:
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline as chain

        numbers = [name for name in frame.columns if frame[name].dtype == "float64"]
        keep = ColumnTransformer([("numbers", SimpleImputer(keep_empty_features=True), numbers)])
        target = frame[numbers].fillna(0).sum(axis=1)
        return chain(keep, LinearRegression()).fit(frame, target)

    return make_model(world, pipeline, fit=fit, **options)


__all__ = ["World", "make_model", "make_pipeline", "make_regressor", "make_world"]
