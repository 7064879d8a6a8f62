"""The same bodies as Prefect flows: what a deployment names and what Prefect's page offers to run.

Importing this module imports Prefect (2-6 s); the commands never do.
"""

from __future__ import annotations

import logging
from typing import Any

from prefect import State, flow
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler
from prefect.states import Completed, Failed
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from flows import score as scoring
from flows import train as training
from tasks.runs import Status, Trigger
from tasks.settings import read_settings

PIPELINE = Field(title="Pipeline", description="Name of the pipeline's folder, for example churn.", min_length=1)


class ScoreParameters(BaseModel):
    """What to score, and from which instant the data is looked at."""

    model_config = ConfigDict(title="Score", extra="forbid", frozen=True)

    pipeline: str = PIPELINE
    full: bool = Field(
        default=False, title="Full", description="Score every entity, not only the new, changed and due ones."
    )
    as_of: AwareDatetime | None = Field(
        default=None,
        title="As of",
        description="The instant to look at the data from; empty: now, by the clock of the database.",
    )


class TrainParameters(BaseModel):
    """What to train, and on what was known when."""

    model_config = ConfigDict(title="Train", extra="forbid", frozen=True)

    pipeline: str = PIPELINE
    as_of: AwareDatetime | None = Field(
        default=None,
        title="As of",
        description="Train on what was known at this instant; empty: now, by the clock of the database.",
    )
    promote: bool = Field(
        default=False,
        title="Promote",
        description="Use the new version from the next run on, even when there is one already.",
    )


@flow(name="score", flow_run_name="score {params.pipeline}", persist_result=False)
def score(params: ScoreParameters) -> State[dict[str, Any]]:
    """Score a pipeline once: check, select, score, judge, publish.

    The run ends as completed when it published, as completed and named Skipped when it met another run, and as failed
    when it was held, aborted or ended by an error; its message says why.
    """
    log_into_run()
    summary = scoring.score(read_settings(), params.pipeline, full=params.full, as_of=params.as_of, trigger=_trigger())
    if summary.status not in {Status.PUBLISHED, Status.SKIPPED}:
        return Failed(message=summary.message)
    result = {
        "run_id": summary.run_id,
        "status": summary.status.value,
        "generation_id": summary.generation_id,
        "scored": summary.scored,
    }
    name = "Skipped" if summary.status is Status.SKIPPED else "Completed"
    return Completed(name=name, message=summary.message, data=result)


@flow(name="train", flow_run_name="train {params.pipeline}", persist_result=False)
def train(params: TrainParameters) -> State[dict[str, Any]]:
    """Train a pipeline's model: labels and features, fit, evaluate, register a version."""
    log_into_run()
    summary = training.train(read_settings(), params.pipeline, as_of=params.as_of, promote=params.promote)
    result = {"model": summary.model, "version": summary.version, "promoted": summary.promoted}
    return Completed(message=f"Version {summary.version} of {summary.model}: {summary.promotion}", data=result)


def log_into_run() -> None:
    """Let our messages arrive in the log of the run, from INFO on.

    ``PREFECT_LOGGING_EXTRA_LOGGERS`` takes effect when Prefect is imported, which its workers do before they import a
    flow, and it leaves out what is below WARNING.
    """
    for name in ("prescore", "tasks", "flows"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        if not any(isinstance(handler, APILogHandler) for handler in logger.handlers):
            handler = APILogHandler()
            handler.addFilter(_in_a_run)
            logger.addHandler(handler)


def _in_a_run(record: logging.LogRecord) -> bool:
    """Keep back what a thread of its own says, as the heartbeat does: Prefect warns of messages without a run."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _trigger() -> Trigger:
    """A run that Prefect made from a schedule is scheduled; any other was asked for by somebody."""
    context = FlowRunContext.get()
    made_by_schedule = context is not None and context.flow_run is not None and context.flow_run.auto_scheduled
    return Trigger.SCHEDULED if made_by_schedule else Trigger.MANUAL
