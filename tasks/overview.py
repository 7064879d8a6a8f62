"""The overview of a pipeline: its state now, its latest runs, what was served meanwhile, and the shapes of its columns.

Read from what is stored; neither the pipeline's folder nor its code is needed, and no estimator is made.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tasks import timeline
from tasks.database import clock, connect, one, rows
from tasks.errors import PrescoreError
from tasks.health import PipelineHealth, PipelineNeverRan
from tasks.history import PastRun, read_recent
from tasks.timeline import Publication

if TYPE_CHECKING:
    from tasks.profiles import ModelProfile, StoredProfile

logger = logging.getLogger(__name__)

#: Publications that are looked back over when nobody says how many.
GENERATIONS = 30

#: Runs whose columns are read: the last one that was judged against training, and the last one of all.
_JUDGED = "drift.input"


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A generation that somebody found bad, and perhaps took that back. Times by the real clock."""

    generation_id: int
    because: str
    effect: str
    returned_to: int | None
    quarantined_at: datetime
    quarantined_by: str
    released_at: datetime | None
    released_by: str | None
    released_because: str | None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What there is to tell of a pipeline."""

    health: PipelineHealth
    #: prescore.clock() when it was read.
    now: datetime
    #: Oldest first, without those that were skipped.
    runs: tuple[PastRun, ...]
    #: Oldest first: those of these runs, and the one that was served before them.
    publications: tuple[Publication, ...]
    #: Newest first: generations that somebody found bad.
    quarantines: tuple[Quarantined, ...] = ()
    #: By run: what its columns looked like. Of the latest runs that counted, at most two.
    profiles: Mapping[int, StoredProfile] = field(default_factory=dict)
    #: By version of the model: the bins that these were counted into.
    trained: Mapping[int, ModelProfile] = field(default_factory=dict)

    @property
    def last(self) -> PastRun | None:
        """The last run that checked anything, whatever became of it; else the last one."""
        checked = (run for run in reversed(self.runs) if run.findings)
        return next(checked, self.runs[-1] if self.runs else None)

    @property
    def judged(self) -> list[PastRun]:
        """The runs whose inputs were compared with the training data, oldest first."""
        return [run for run in self.runs if any(found.verdict != "skipped" for found in run.found(_JUDGED).values())]


def read_overview(url: str, pipeline: str, generations: int = GENERATIONS) -> Overview:
    """Read what there is to tell of a pipeline over its last publications.

    Raises
    ------
    PipelineNeverRan
    """
    with connect(url, "prescore report") as connection:
        health = one(connection, "read_health", pipeline=pipeline)
        if health is None:
            raise PipelineNeverRan(pipeline, [row.pipeline for row in rows(connection, "read_health", pipeline=None)])
        now, runs = clock(connection), read_recent(connection, pipeline, generations)
        since = min((run.clock_at for run in runs[-generations:]), default=None)
        overview = Overview(
            health=PipelineHealth.from_row(health),
            now=now,
            runs=tuple(runs),
            publications=tuple(timeline.read_publications(connection, pipeline, since)),
            quarantines=tuple(
                Quarantined(**row._mapping)
                for row in rows(connection, "list_quarantines", pipeline=pipeline, most=generations)
            ),
        )
        profiles = _read_profiles(connection, overview)
        trained = _read_trained(connection, profiles)
    return replace(overview, profiles=profiles, trained=trained)


def _read_profiles(connection: sa.Connection, overview: Overview) -> dict[int, StoredProfile]:
    from tasks.profiles import read_profiles

    wanted = {run.run_id for run in overview.judged[-1:]}
    counted = rows(connection, "find_counted_run", run_ids=[run.run_id for run in overview.runs])
    return read_profiles(connection, wanted | {row.run_id for row in counted})


def _read_trained(connection: sa.Connection, profiles: Mapping[int, StoredProfile]) -> dict[int, ModelProfile]:
    from tasks.profiles import ModelProfile
    from tasks.registry import load_profile

    trained: dict[int, ModelProfile] = {}
    for profile in profiles.values():
        if profile.model_version not in trained:
            try:
                found = load_profile(connection, profile.model, profile.model_version)
                trained[profile.model_version] = ModelProfile.from_bundle(found)
            except PrescoreError as error:  # the page without its histograms is worth more than none
                logger.warning("the bins of %s version %d: %s", profile.model, profile.model_version, error)
    return trained
