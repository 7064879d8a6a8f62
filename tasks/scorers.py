"""The scorer of a pipeline: its queries described, its model loaded and checked by digest."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from tasks import registry
from tasks.bundle import preprocessed
from tasks.compiled import CompiledEstimator, compile_bundle
from tasks.compiled.library import NotCompiled
from tasks.compiled.rows import Decoder, load_decoder
from tasks.features import describe, describe_changes, narrowed
from tasks.pipeline import Pipeline
from tasks.registry import ModelVersion
from tasks.scoring import Scorer
from tasks.source_server import describing

logger = logging.getLogger(__name__)


def load_scorer(
    connection: sa.Connection, pipeline: Pipeline, source_url: str, version: int | None = None
) -> tuple[Scorer, ModelVersion]:
    """Load what turns a pipeline's feature rows into predictions; the connection's transaction is rolled back.

    ``version`` is that of the model; without one, it is what the pipeline's alias names now.
    """
    with describing(connection, source_url) as sources:
        contract = describe(sources, pipeline)
        describe_changes(sources, pipeline)
    model = registry.find_version(connection, pipeline.model.name, pipeline.model.alias if version is None else version)
    bundle = registry.load_bundle(connection, pipeline.model.name, model.version, pipeline)
    connection.rollback()
    outputs = bundle.columns_for(pipeline.predictions)
    preprocess = pipeline.preprocess_function()
    contract = narrowed(contract, bundle.features)
    scorer = Scorer(pipeline=pipeline, contract=contract, bundle=bundle, preprocess=preprocess, outputs=outputs)
    return scorer, model


def with_compiled_code(scorer: Scorer, folder: Path | None, *, model: bool) -> Scorer:
    """Return a scorer that reads its rows with compiled code, and if asked to predicts by its model's compiled form.

    ``folder`` is where compiled code is kept, None where none is to be used.
    """
    if folder is None:
        return scorer
    return replace(scorer, decoder=_decoder(folder), compiled=compile_scorer(scorer, folder) if model else None)


def _decoder(folder: Path) -> Decoder | None:
    try:
        return load_decoder(folder)
    except NotCompiled as reason:
        logger.info("features are decoded by the driver, because %s", reason)
        return None


def compile_scorer(scorer: Scorer, folder: Path) -> CompiledEstimator | None:
    """Return the compiled form of a scorer's model; None where it has none, or where its golden rows tell nothing."""
    bundle = scorer.bundle
    try:
        golden = bundle.prepare(preprocessed(bundle.golden, bundle.features, scorer.preprocess))
    except Exception:  # the check of golden rows tells it
        return None
    return compile_bundle(bundle, golden, folder, methods={output.method for output in scorer.pipeline.predictions})
