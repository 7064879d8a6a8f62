"""`prescore check`: is the declaration right for this database, and what would a run do? Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tasks import checks, dataset_changes, inspection, population, publishing, registry, waivers
from tasks import pipeline as pipelines
from tasks.database import connect, resolve_source_url, resolve_url
from tasks.errors import PrescoreError
from tasks.features import FeatureContract, describe, describe_changes, describe_labels
from tasks.forgotten import keep_out
from tasks.pipeline import Pipeline
from tasks.settings import Settings
from tasks.source_server import clock_of_sources, describing, keys_beside_rows
from tasks.transport import open_reading_session


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check` found out about one pipeline."""

    pipeline: str
    #: What has to be mended before a run can succeed.
    errors: tuple[str, ...] = ()
    #: What is allowed and may surprise.
    warnings: tuple[str, ...] = ()
    #: What a run would do now; empty when it cannot be told.
    would: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)


def check(settings: Settings, name: str | None = None) -> list[CheckReport]:
    """Check one pipeline, or every pipeline of the folder, against the database."""
    names = [name] if name is not None else pipelines.pipeline_names(settings.pipelines_dir)
    url = resolve_url(settings)
    source_url = resolve_source_url(settings, url)
    return [_check(settings, url, source_url, each) for each in names]


def _check(settings: Settings, url: str, source_url: str, name: str) -> CheckReport:
    report = CheckReport(pipeline=name)
    try:
        pipeline = pipelines.find_pipeline(settings, name)
    except PrescoreError as error:
        return replace(report, errors=(str(error),))
    misnamed = waivers.unknown_names(pipeline, [check.id for check in checks.CHECKS])
    warnings = [f"{name}/pipeline.toml [manual] {problem}" for problem in misnamed]
    report = replace(report, warnings=(*pipeline.warnings, *warnings))
    try:
        return _against_database(url, source_url, pipeline, report)
    except PrescoreError as error:
        return replace(report, errors=(*report.errors, str(error)))


def _against_database(url: str, source_url: str, pipeline: Pipeline, report: CheckReport) -> CheckReport:
    with connect(url, "prescore check") as connection:
        with describing(connection, source_url) as sources:
            contract = describe(sources, pipeline)
            refused = tuple(_refused(sources, pipeline, contract))
        pipeline = keep_out(connection, pipeline)
        served = publishing.served(connection, pipeline.name)
        model = registry.current_alias(connection, pipeline.model.name, pipeline.model.alias)
        now = clock_of_sources(connection, source_url)
        connection.rollback()
    if refused:
        return replace(report, errors=refused)
    with ExitStack() as stack:
        session = stack.enter_context(open_reading_session(url))
        reader = session if source_url == url else stack.enter_context(open_reading_session(source_url))
        errors, warnings = inspection.inspect(reader, pipeline, contract, now)
        report = replace(report, errors=tuple(errors), warnings=(*report.warnings, *warnings))
        version = -1 if model is None else model.version
        because = population.why_full(pipeline, served, version, asked=False)
        try:
            if not because and served is not None:
                with connect(url, "prescore check") as connection:
                    rows = publishing.head(connection, pipeline.name).rows
                    changes = dataset_changes.since_published(connection, pipeline, contract, served, rows, now)
                because, pipeline = changes.because, changes.pipeline
            beside = keys_beside_rows(url, "", session, reader, pipeline, contract, now, served, full=bool(because))
            with beside as (joined, asked):
                selection = population.summarise(joined, asked, contract, now, served, because)
        except PrescoreError as error:
            return replace(report, errors=(*report.errors, str(error)))
    return replace(
        report,
        errors=(*report.errors, *_null_keys(pipeline, selection)),
        warnings=(*report.warnings, *_no_model(pipeline, model)),
        would=_would(selection, now),
    )


def _refused(connection: sa.Connection, pipeline: Pipeline, contract: FeatureContract) -> Iterator[str]:
    """Yield what is wrong with the columns of the queries beside the features."""
    try:
        describe_changes(connection, pipeline)
    except PrescoreError as error:
        yield str(error)
    try:
        describe_labels(connection, pipeline, contract.key)
    except PrescoreError as error:
        yield str(error)


def _null_keys(pipeline: Pipeline, selection: population.Selection) -> Iterator[str]:
    if selection.null_keys:
        yield (
            f"{pipeline.name}/{pipeline.entity.query.origin}: {selection.null_keys:,} rows have a NULL in their key, so that "
            "a run would be held. Leave them out with WHERE ... IS NOT NULL"
        )


def _no_model(pipeline: Pipeline, model: registry.ModelVersion | None) -> Iterator[str]:
    if model is None:
        yield (
            f"model {pipeline.model.name} has no {pipeline.model.alias} yet. Run `prescore train {pipeline.name}`, or "
            "register one"
        )


def _would(selection: population.Selection, now: datetime) -> dict[str, Any]:
    return {
        "mode": selection.mode.value,
        "because": selection.because,
        "as_of": now,
        "population": selection.population,
        "new": selection.new,
        "changed": selection.changed,
        "due": selection.due,
        "invalidated": selection.served - selection.gone if selection.because.startswith("invalidated") else 0,
        "gone": selection.gone,
        "would_score": selection.selected,
        "would_leave": selection.unchanged,
    }
