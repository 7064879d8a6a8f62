"""Deployments: what a Prefect server is to know of a pipeline, told without Prefect.

A pipeline that is scored is the deployment ``score/<pipeline>`` with its own schedules; one with [training] is also
``train/<pipeline>``, which somebody starts, or an automation when a run asks for a new version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tasks import events, schedule, waivers
from tasks.errors import PipelineInvalid
from tasks.pipeline import Pipeline, find_pipeline, pipeline_names
from tasks.questions import QUESTIONS
from tasks.recurrence import Recurrence, recurrences
from tasks.settings import Settings

#: The tag of everything that prescore puts on a server, and alone may remove from it.
TAG = "prescore"
#: The further tag of what a `prescore serve` runs that uses the server of somebody else, who leaves it alone.
GUEST = "prescore-guest"
#: How the name of a schedule ends that adds the ticks of an hour that comes twice to another one.
REPEATED_HOUR = "-repeated-hour"
#: How the name of each automation of prescore begins.
AUTOMATION = "prescore: "
# What comes to pass between the end of a run and the event that tells of it, and how late Prefect starts one.
_LEEWAY = timedelta(minutes=5)


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

    def fires(self, since: datetime) -> list[tuple[str, Recurrence]]:
        """Return what a server is told so that it fires at the same ticks, each with the name it has there."""
        found = recurrences(self.cron, self.timezone, since)
        return [(f"{self.slug}{REPEATED_HOUR if each.adds else ''}", each) for each in found]


@dataclass(frozen=True, kw_only=True)
class Automation:
    """What starts a deployment besides its schedules: an event, or that none came for so long."""

    #: It begins with AUTOMATION, by which it is known again.
    name: str
    description: str
    expect: tuple[str, ...]
    match: Mapping[str, str]
    #: Seconds without any of the events after which it starts; None: it starts with the event.
    absent_for: int | None = None

    @property
    def spec(self) -> dict[str, Any]:
        """Return it as prefect.yaml writes a trigger of a deployment."""
        return {
            "name": self.name,
            "description": self.description,
            "type": "event",
            "posture": "Reactive" if self.absent_for is None else "Proactive",
            "expect": list(self.expect),
            "match": dict(self.match),
            "threshold": 1,
            "within": self.absent_for or 0,
        }


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A flow for one pipeline: what somebody starts from Prefect's page, and what its scheduler starts."""

    #: Name of the flow: ``score`` or ``train``.
    flow: str
    pipeline: str
    description: str
    schedules: tuple[Planned, ...] = ()
    automations: tuple[Automation, ...] = ()
    #: Ids of the checks that somebody who starts it may waive.
    waivable: tuple[str, ...] = ()

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
        flow="score",
        pipeline=pipeline.name,
        description=pipeline.description,
        schedules=tuple(planned),
        automations=_recovery(pipeline),
        waivable=tuple(waivers.waivable(pipeline, [question.check_id for question in QUESTIONS])),
    )
    if pipeline.training is None:
        return (scored,)
    trained = Deployment(
        flow="train",
        pipeline=pipeline.name,
        description=f"Trains the model of {pipeline.name}. Somebody starts it, or a run that asks for a new version.",
        automations=(_retraining(pipeline),),
    )
    return (scored, trained)


def is_full(slug: str) -> bool:
    """Say whether a schedule of this name makes full runs."""
    return slug.partition("-")[0] == "full"


def _retraining(pipeline: Pipeline) -> Automation:
    """What trains a candidate when a run asks for one; promoting it stays a decision of its own."""
    return Automation(
        name=f"{AUTOMATION}train {pipeline.name} when a run asks for it",
        description="Trains a candidate; it is used once somebody promotes it.",
        expect=(events.RETRAIN,),
        match={"prefect.resource.id": events.RESOURCE + pipeline.name},
    )


def _recovery(pipeline: Pipeline) -> tuple[Automation, ...]:
    """What makes up for scheduled runs that did not happen: no run ended, well or badly, for longer than any two ticks apart."""
    declared = pipeline.schedule
    crons = (*declared.full, *declared.incremental)
    if not crons:
        return ()
    graces = [grace for mode in ("full", "incremental") if (grace := declared.grace_for(mode)) is not None]
    longest = schedule.period(crons, declared.timezone) + min(graces) + _LEEWAY
    return (
        Automation(
            name=f"{AUTOMATION}score {pipeline.name} when its schedule was missed",
            description="No run ended for longer than its schedules leave between two.",
            expect=tuple(f"prefect.flow-run.{state}" for state in ("Completed", "Skipped", "Failed")),
            # The flow runs of this pipeline, by the name that the flow gives them.
            match={"prefect.resource.id": "prefect.flow-run.*", "prefect.resource.name": f"score {pipeline.name}"},
            absent_for=int(longest.total_seconds()),
        ),
    )


def _planned(pipeline: Pipeline, kind: str, crons: Sequence[str], given: Mapping[str, Any]) -> list[Planned]:
    parameters = {"params": {"pipeline": pipeline.name, **given}}
    slugs = [kind] if len(crons) == 1 else [f"{kind}-{number}" for number in range(1, len(crons) + 1)]
    return [
        Planned(slug=slug, cron=cron, timezone=pipeline.schedule.timezone, parameters=parameters)
        for slug, cron in zip(slugs, crons, strict=True)
    ]
