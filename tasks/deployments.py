"""Deployments: what a Prefect server is to know of a pipeline, told without Prefect.

A pipeline that is scored is the deployment ``score/<pipeline>`` with its own schedules; one with [training] is also
``train/<pipeline>``, which somebody starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks import schedule
from tasks.errors import PipelineInvalid
from tasks.pipeline import Pipeline, find_pipeline, pipeline_names
from tasks.settings import Settings

#: The tag of everything that prescore puts on a server, and alone may remove from it.
TAG = "prescore"
#: The further tag of what a `prescore serve` runs that uses the server of somebody else, who leaves it alone.
GUEST = "prescore-guest"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One cron expression of a deployment, read in a time zone."""

    #: Its name within the deployment: ``full``, ``incremental``, or ``full-2`` for the second of a list.
    slug: str
    cron: str
    timezone: str
    #: What a run of this schedule is given.
    parameters: Mapping[str, Any]

    def next_tick(self, after: datetime) -> datetime:
        """Return when it fires next, in UTC."""
        return schedule.next_tick([self.cron], self.timezone, after)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A flow for one pipeline: what somebody starts from Prefect's page, and what its scheduler starts."""

    #: Name of the flow: ``score`` or ``train``.
    flow: str
    pipeline: str
    description: str
    schedules: tuple[Planned, ...] = ()

    @property
    def name(self) -> str:
        """Return how Prefect's commands call it: ``score/churn``."""
        return f"{self.flow}/{self.pipeline}"

    @property
    def entrypoint(self) -> str:
        """Return where the flow is: a module, so that it is found in an installed prescore too."""
        return f"flows.deployed.{self.flow}"

    @property
    def parameters(self) -> dict[str, Any]:
        """Return what a run is given unless somebody says otherwise."""
        return {"params": {"pipeline": self.pipeline}}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be on a server, and which folders declare no pipeline."""

    deployments: tuple[Deployment, ...]
    broken: tuple[PipelineInvalid, ...] = ()

    @property
    def pipelines(self) -> list[str]:
        """Return the names of the pipelines that can be deployed."""
        return [deployment.pipeline for deployment in self.deployments if deployment.flow == "score"]


def plan(settings: Settings, name: str | None = None) -> Plan:
    """Return the deployments of one pipeline, or of all; a broken folder does not keep the others from theirs.

    Raises
    ------
    PipelineNotFound
        When there is no such pipeline or no folder of pipelines.
    PipelineInvalid
        When the one that was named is broken.
    """
    if name is not None:
        return Plan(deployments=deployments_of(find_pipeline(settings, name)))
    found: list[Deployment] = []
    broken: list[PipelineInvalid] = []
    for each in pipeline_names(settings.pipelines_dir):
        try:
            found.extend(deployments_of(find_pipeline(settings, each)))
        except PipelineInvalid as error:
            broken.append(error)
    return Plan(deployments=tuple(found), broken=tuple(broken))


def deployments_of(pipeline: Pipeline) -> tuple[Deployment, ...]:
    """Return the deployments of a pipeline."""
    declared = pipeline.schedule
    planned = [
        *_planned(pipeline, "full", declared.full, {"full": True}),
        *_planned(pipeline, "incremental", declared.incremental, {}),
    ]
    scored = Deployment(
        flow="score", pipeline=pipeline.name, description=pipeline.description, schedules=tuple(planned)
    )
    if pipeline.training is None:
        return (scored,)
    trained = Deployment(
        flow="train", pipeline=pipeline.name, description=f"Trains the model of {pipeline.name}. Somebody starts it."
    )
    return (scored, trained)


def is_full(slug: str) -> bool:
    """Say whether a schedule of this name makes full runs."""
    return slug.partition("-")[0] == "full"


def _planned(pipeline: Pipeline, kind: str, crons: Sequence[str], given: Mapping[str, Any]) -> list[Planned]:
    parameters = {"params": {"pipeline": pipeline.name, **given}}
    slugs = [kind] if len(crons) == 1 else [f"{kind}-{number}" for number in range(1, len(crons) + 1)]
    return [
        Planned(slug=slug, cron=cron, timezone=pipeline.schedule.timezone, parameters=parameters)
        for slug, cron in zip(slugs, crons, strict=True)
    ]
