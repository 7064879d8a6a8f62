"""A pipeline that nothing was published of yet: readers find its views, and a lookup says so instead of failing.

Its objects are made as soon as somebody means to run it, as far as they can be known: the key from the entity query, outputs
that are the same for every model, and the others from the model that its alias names. What only a model tells is added in place
by the first run that has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg2
import sqlalchemy as sa

from tasks import registry
from tasks.columns import Column
from tasks.database import connect, resolve_source_url
from tasks.errors import PrescoreError
from tasks.features import describe_key
from tasks.migrations import require_current
from tasks.outputs import known_columns
from tasks.pipeline import Pipeline, find_pipeline
from tasks.publishing import create_objects, register_pipeline
from tasks.readers import Objects, stored
from tasks.runs import hold_lock
from tasks.settings import Settings
from tasks.source_server import describing

_ERRORS = (PrescoreError, sa.exc.SQLAlchemyError, psycopg2.Error)


def register_ahead(settings: Settings, url: str, name: str) -> str:
    """Register a pipeline and make its objects before it runs; return why that could not be, or nothing.

    Whatever is wrong is told again by its first run, so that nothing is raised.
    """
    try:
        require_current(url)
        pipeline = find_pipeline(settings, name)
        with connect(url) as connection:
            if stored(connection, name) is not None:
                return ""
        with hold_lock(url, name) as connection:
            register_pipeline(connection, pipeline)
            connection.commit()
            prepare(connection, pipeline, resolve_source_url(settings, url))
    except _ERRORS as error:
        reason = str(error) if isinstance(error, PrescoreError) else f"{type(error).__name__}."
        return f"A lookup of {name} finds nothing, not even that nothing was published yet: {reason}"
    return ""


@contextmanager
def readers_told(connection: sa.Connection, pipeline: Pipeline, source_url: str) -> Iterator[None]:
    """Make the objects of a pipeline when its run ends within before it could: readers are told that nothing was published."""
    try:
        yield
    except PrescoreError:
        with suppress(*_ERRORS):
            connection.rollback()
            prepare(connection, pipeline, source_url)
        raise


def prepare(connection: sa.Connection, pipeline: Pipeline, source_url: str) -> None:
    """Make the objects of a registered pipeline unless they are there, and commit; the caller holds its lock.

    Raises
    ------
    QueryRefused
        When the entity query cannot be read.
    """
    try:
        if stored(connection, pipeline.name) is None:
            with describing(connection, source_url) as sources:
                key = describe_key(sources, pipeline)
            connection.rollback()
            indexed = tuple(output.name for output in pipeline.predictions if output.index)
            outputs = _outputs(connection, pipeline)
            known = {column.name for column in outputs}
            objects = Objects(
                pipeline=pipeline.name,
                key=key,
                outputs=outputs,
                indexed=tuple(name for name in indexed if name in known),
            )
            create_objects(connection, pipeline, objects, {})
            connection.commit()
    except _ERRORS:
        connection.rollback()
        raise


def _outputs(connection: sa.Connection, pipeline: Pipeline) -> tuple[Column, ...]:
    """Return what is known of the outputs, in the order in which they are declared."""
    found = {column.name: column for column in known_columns(pipeline.predictions)}
    with suppress(PrescoreError):
        version = registry.find_version(connection, pipeline.model.name, pipeline.model.alias)
        for each in version.signature.get("outputs", []):
            found.setdefault(each["name"], Column(name=each["name"], postgres_type=each["type"]))
    return tuple(found[output.name] for output in pipeline.predictions if output.name in found)
