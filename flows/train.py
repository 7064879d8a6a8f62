"""The training flow: labels and features at their own instants, fit, judge, register. Read ``train`` first."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks import database, evaluation, features, training
from tasks.bundle import Bundle
from tasks.features import FeatureContract
from tasks.forgotten import keep_out
from tasks.pipeline import Pipeline, find_pipeline
from tasks.registry import ModelVersion
from tasks.settings import Settings
from tasks.source_server import clock_of_sources
from tasks.steps import step
from tasks.training import Registration, Split, TrainSummary

logger = logging.getLogger("prescore.train")


def train(settings: Settings, name: str, *, as_of: datetime | None = None, promote: bool = False) -> TrainSummary:
    """Train the model of a pipeline on what was known at ``as_of``, judge it on the latest part, and register it.

    ``as_of`` defaults to the clock of the database. The pipeline's alias moves to the new version when ``promote`` is
    set or it names none yet; else the version waits for ``prescore models promote``.

    Raises
    ------
    PrescoreError
        When there is nothing to learn from, or the model cannot be registered; the aliases are as they were.
    """
    pipeline = find_pipeline(settings, name)
    url = database.resolve_url(settings)
    source_url = database.resolve_source_url(settings, url)
    with database.connect(url, "prescore train") as connection:
        pipeline = keep_out(connection, pipeline)
    as_of = as_of or read_clock(url, source_url)
    contract = features.feature_columns(source_url, pipeline)
    rows = read_training_rows(source_url, pipeline, as_of)
    parts = split_rows(pipeline, contract, rows)
    estimator = fit_model(pipeline, contract, parts)
    metrics = evaluate_model(pipeline, contract, estimator, parts)
    bundle, data = bundle_model(pipeline, contract, estimator, parts, metrics)
    source = f"trained by pipeline {name} as of {as_of.isoformat()}"
    registered = register_model(url, pipeline, bundle, data, source=source, promote=promote)
    return summarise(pipeline, as_of, parts, metrics, registered)


@step
def read_training_rows(url: str, pipeline: Pipeline, as_of: datetime) -> pa.Table:
    """Read every label known at ``as_of`` with the features of its own instant."""
    rows = features.training_frame(url, pipeline, as_of)
    logger.info("read %s labelled rows of %s known at %s", f"{rows.num_rows:,}", pipeline.name, as_of.isoformat())
    return rows


@step
def split_rows(pipeline: Pipeline, contract: FeatureContract, rows: pa.Table) -> Split:
    """Hold out the latest part."""
    holdout = 0.2 if pipeline.training is None else pipeline.training.holdout
    parts = training.split_rows(rows, pipeline.name, contract.key, holdout)
    logger.info(
        "fitting on %s rows until %s, judging on %s (split by %s%s)",
        f"{parts.fitted.num_rows:,}",
        parts.fitted_until.isoformat(),
        f"{parts.held_out.num_rows:,}",
        parts.by,
        "" if parts.by is training.SplitBy.TIME else ", for labels.sql has a single instant",
    )
    return parts


@step
def fit_model(pipeline: Pipeline, contract: FeatureContract, parts: Split) -> Any:
    """Fit the pipeline's estimator on the earlier part."""
    return training.fit_model(pipeline, contract, parts)


@step
def evaluate_model(pipeline: Pipeline, contract: FeatureContract, estimator: Any, parts: Split) -> dict[str, Any]:
    """Judge the model on the held-out part, beside a naive baseline."""
    return evaluation.evaluate(pipeline, contract, estimator, parts)


@step
def bundle_model(
    pipeline: Pipeline, contract: FeatureContract, estimator: Any, parts: Split, metrics: dict[str, Any]
) -> tuple[Bundle, bytes]:
    """Try whether the model behaves as one that scores in batches must, and pack it with the evidence."""
    return training.bundle_model(pipeline, contract, estimator, parts, metrics)


@step
def register_model(
    url: str, pipeline: Pipeline, bundle: Bundle, data: bytes, *, source: str, promote: bool
) -> Registration:
    """Store the model as a new version, and move the alias if it is to move."""
    registered = training.register_model(url, pipeline, bundle, data, source=source, promote=promote)
    logger.info("registered version %s of %s: %s", registered.version.version, bundle.name, registered.words)
    return registered


def register_file(
    settings: Settings,
    name: str,
    file: Path,
    *,
    sample: Path,
    train_data_until: datetime,
    pipeline: str | None = None,
    trust_pickle: bool = False,
) -> ModelVersion:
    """Register a model that was fitted elsewhere; it becomes what the pipeline's alias names if that names nothing yet.

    See ``training.register_file`` for the parameters. Returns the version with the aliases that name it.
    """
    registered = training.register_file(
        settings,
        name,
        file,
        sample=sample,
        train_data_until=train_data_until,
        pipeline_name=pipeline,
        trust_pickle=trust_pickle,
    )
    logger.info("registered version %s of %s: %s", registered.version.version, name, registered.words)
    return registered.version


def read_clock(url: str, source_url: str) -> datetime:
    """Return the database's clock, or how far the sources are where they are behind it."""
    with database.connect(url, "prescore train") as connection:
        return clock_of_sources(connection, source_url)


def summarise(
    pipeline: Pipeline, as_of: datetime, parts: Split, metrics: dict[str, Any], registered: Registration
) -> TrainSummary:
    """Say what was done."""
    version = registered.version
    return TrainSummary(
        pipeline=pipeline.name,
        model=version.name,
        version=version.version,
        digest=version.digest,
        as_of=as_of,
        rows_fitted=parts.fitted.num_rows,
        rows_held_out=parts.held_out.num_rows,
        rows_unlabelled=parts.unlabelled,
        split_by=parts.by,
        held_out_from=parts.held_out_from,
        train_data_until=version.train_data_until,
        metrics=metrics["metrics"],
        baseline=metrics["baseline"],
        baseline_is=metrics["baseline_is"],
        known_before=registered.known_before,
        promoted=registered.promotion.moved and registered.promotion.version == version.version,
        promotion=registered.words,
    )
