"""`prescore outputs`: what would become of a pipeline's views with the outputs that are declared now, and doing it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import sqlalchemy as sa

from flows.score import comments_of, declared_objects, refuse_queries
from tasks.belongings import Dependent, belongings, dependents, mentions
from tasks.columns import Column
from tasks.database import connect, resolve_source_url, resolve_url
from tasks.pipeline import find_pipeline
from tasks.publishing import create_objects, register_pipeline
from tasks.readers import Objects, stored
from tasks.reshaping import Change, compare, reshape
from tasks.runs import hold_lock
from tasks.scorers import load_scorer
from tasks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Reshaping:
    """What differs between the outputs that readers have and those that are declared."""

    pipeline: str
    applied: bool
    #: There was nothing for readers yet.
    created: bool
    added: tuple[Column, ...] = ()
    removed: tuple[Column, ...] = ()
    #: As it is, as it is declared.
    retyped: tuple[tuple[Column, Column], ...] = ()
    #: Sentences about the key, which cannot change.
    key: tuple[str, ...] = ()
    #: What others built on views that would have to be made anew.
    dependents: tuple[Dependent, ...] = ()
    #: Functions whose text names the views.
    mentions: tuple[str, ...] = ()
    #: Rights on columns that are gone, which nobody has any more.
    lost_rights: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether readers have what is declared."""
        return not (self.added or self.removed or self.retyped or self.key or self.created)

    @property
    def makes_anew(self) -> bool:
        """Whether views and functions have to be made anew."""
        return bool(self.removed or self.retyped)


def outputs(settings: Settings, name: str, *, apply: bool) -> Reshaping:
    """Compare the declared outputs with those that readers have; with ``apply``, give readers the declared ones.

    Raises
    ------
    PrescoreError
        PipelineNotFound, ModelNotFound and the like; with ``apply`` also KeyDiffers, DependentsInTheWay, ReadersInTheWay,
        RunInProgress: nothing is changed then.
    """
    pipeline = find_pipeline(settings, name)
    refuse_queries(pipeline)
    url = resolve_url(settings)
    with connect(url) as connection:
        scorer, _ = load_scorer(connection, pipeline, resolve_source_url(settings, url))
        declared = declared_objects(scorer)
        change = _change(connection, declared)
        if not apply:
            return _told(connection, declared.pipeline, change)
    comments = comments_of(scorer)
    with hold_lock(url, name) as connection:
        change = _change(connection, declared)
        told = _told(connection, name, change)
        if change is None:
            register_pipeline(connection, pipeline)
            create_objects(connection, pipeline, declared, comments)
            connection.commit()
            return replace(told, applied=True)
        lost = reshape(connection, change, comments, pipeline)
        return replace(told, applied=not told.is_nothing, lost_rights=tuple(lost))


def _change(connection: sa.Connection, declared: Objects) -> Change | None:
    before = stored(connection, declared.pipeline)
    if before is None:
        return None
    before = replace(before, indexed=declared.indexed, keeps_history=declared.keeps_history)
    return compare(before, replace(declared, former=before.former))


def _told(connection: sa.Connection, name: str, change: Change | None) -> Reshaping:
    if change is None:
        return Reshaping(pipeline=name, applied=False, created=True)
    made_anew = change.removed or change.retyped
    there = belongings(connection, change.before) if made_anew else []
    told = Reshaping(
        pipeline=name,
        applied=False,
        created=False,
        added=change.added,
        removed=change.removed,
        retyped=change.retyped,
        key=change.key,
        dependents=tuple(dependents(connection, there)) if made_anew else (),
        mentions=tuple(mentions(connection, name)) if made_anew else (),
    )
    connection.rollback()
    return told
