"""Fitness: can a registered version still score a pipeline as it stands today? Asked before an alias goes back to it."""

from __future__ import annotations

import sqlalchemy as sa

from tasks import bundle as bundles
from tasks import registry
from tasks.checks.model import feature_differences
from tasks.errors import PrescoreError
from tasks.features import describe
from tasks.pipeline import Pipeline
from tasks.registry import ModelVersion
from tasks.source_server import describing


def misfits(connection: sa.Connection, version: ModelVersion, pipeline: Pipeline, source_url: str) -> list[str]:
    """Return in words why a pipeline could not be scored with a version; empty when it could.

    Asked is what a run asks before it scores anything: is the bundle whole and may it be loaded, are the libraries those
    of training, does the feature query return what the model was fitted on, does it offer the outputs that are declared,
    and do its golden rows get the predictions that they had? What changed in features.sql itself is for the run to find.
    ``source_url`` is where the pipeline's sources are.
    """
    try:
        bundle = registry.load_bundle(connection, version.name, version.version, pipeline)
        with describing(connection, source_url) as sources:
            contract = describe(sources, pipeline)
        bundle.columns_for(pipeline.predictions)
    except PrescoreError as error:
        return [str(error)]
    found = bundles.environment_differences(
        bundle.environment, bundles.running_environment(bundle.estimator), pipeline.model.environment
    )
    missing, retyped, _ = feature_differences(bundle.features, contract.features)
    found += [f"features.sql of {pipeline.name} does not return {name}" for name in missing]
    found += [f"features.sql of {pipeline.name} returns {change}" for change in retyped]
    if not found:
        golden = bundles.replay_golden(bundle, pipeline.preprocess_function(), pipeline.model.golden.atol)
        found += [] if golden.passed else [f"its golden rows are not as recorded: {golden.worst}"]
    return found
