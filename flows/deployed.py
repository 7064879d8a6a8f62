"""The same bodies as Prefect flows: what a deployment names and what Prefect's page offers to run.

Importing this module imports Prefect (2-6 s); the commands never do.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

from prefect import State, flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event
from prefect.logging.handlers import APILogHandler
from prefect.states import Cancelled, Completed, Failed
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from sqlalchemy.exc import SQLAlchemyError

from flows import score as scoring
from flows import train as training
from flows.late import collapse_late_runs, due_at, is_of_full_schedule
from flows.progress import PrefectSender, ProgressArtifact
from tasks import events, logs, report, watchdog
from tasks.database import resolve_url
from tasks.endings import RunCancelled, RunTimedOut
from tasks.errors import PrescoreError
from tasks.events import Ended, Seen
from tasks.interrupts import answer_interrupts
from tasks.page import Picture
from tasks.runs import Status, Trigger
from tasks.settings import Settings, read_settings, wants_json_logs
from tasks.stopwatch import Stopwatch
from tasks.waivers import LONGEST_REASON

logger = logging.getLogger("prescore.deployed")

#: How what Prefect says of who created a run is told. A deployment as the creator says no more than that it was one of its runs.
_STARTERS = {"SCHEDULE": "schedule ", "AUTOMATION": "automation ", "USER": "", "ACTOR": ""}
# Seconds that a process that hangs gets to tell the server how its run ended.
TELLING = 30.0

# The server checks the pattern before there is a run; it does not look at formats.
_INSTANT = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})$"
Instant = Annotated[AwareDatetime, WithJsonSchema({"type": "string", "format": "date-time", "pattern": _INSTANT})]
PIPELINE = Field(
    title="Pipeline",
    description="Which pipeline: the name of its folder, for example churn. A deployment runs its own and no other.",
    min_length=1,
)
#: Longest name of somebody who starts a run, in characters.
LONGEST_NAME = 100
# Printed in tables, reports and logs: no line breaks, no codes of terminals.
_NAME = r"^[^\x00-\x1f\x7f-\x9f]*$"


class ScoreParameters(BaseModel):
    """What to score, and from which instant the data is looked at."""

    model_config = ConfigDict(title="Score", extra="forbid", frozen=True)

    pipeline: str = PIPELINE
    full: bool = Field(
        default=False,
        title="Full",
        description="On: score every entity. Off: only those that are new, have changed or are due, which costs less and "
        "is enough unless something is wrong with what is served.",
    )
    as_of: Instant | None = Field(
        default=None,
        title="As of",
        description="The instant to look at the data from, with its zone: 2026-03-01T03:00:00Z. Not in the future, and not "
        "before what is served. Empty: now, by the clock of the database.",
    )
    waive: list[str] = Field(
        default_factory=list,
        title="Waive",
        description="Checks that hold back nothing although they fail, in this run only. The predictions are flagged, and "
        "readers see them as no better than aging until the next full run. Normally empty.",
    )
    because: str = Field(
        default="",
        title="Because",
        max_length=LONGEST_REASON,
        description="Needed with Waive: why, in a sentence that readers are told.",
    )
    started_by: str = Field(
        default="",
        title="Your name",
        max_length=LONGEST_NAME,
        pattern=_NAME,
        description="Who starts this run. It is kept with the run and shown in its report. Needed with Waive. Prefect's "
        "open-source server has no accounts, so nobody can know it unless you say it here.",
    )

    @model_validator(mode="after")
    def _waives_by_name(self) -> ScoreParameters:
        if self.waive and not self.started_by.strip():
            raise ValueError("Waive needs your name: nothing was started. Fill in Your name (started_by).")
        return self


class TrainParameters(BaseModel):
    """What to train, and on what was known when."""

    model_config = ConfigDict(title="Train", extra="forbid", frozen=True)

    pipeline: str = PIPELINE
    as_of: Instant | None = Field(
        default=None,
        title="As of",
        description="Train on what was known at this instant, with its zone: 2026-03-01T03:00:00Z. Not in the future. "
        "Empty: now, by the clock of the database.",
    )
    promote: bool = Field(
        default=False,
        title="Promote",
        description="On: use the new version from the next run on. Off: the first version of a model is used, a later one "
        "waits until somebody promotes it.",
    )


@flow(name="score", flow_run_name="score {params.pipeline}", persist_result=False)
def score(params: ScoreParameters) -> State[dict[str, Any]]:
    """Score a pipeline once: check, select, score, judge, publish.

    The run ends as completed when it published, as completed and named Skipped when it met another run, as cancelled when
    somebody asked prescore to end it, and as failed when it was held, aborted, timed out or ended by an error; its message
    says why. However it ends, it leaves a report.
    """
    log_into_run()
    answer_interrupts()  # SIGTERM as well: it would wait until PostgreSQL has answered, and be followed by SIGKILL
    settings, begun = read_settings(), time.monotonic()
    progress = ProgressArtifact(params.pipeline, PrefectSender(report.progress_key(params.pipeline)))
    watch = Stopwatch(progress)
    before = _see(settings, params.pipeline)
    collapse_late_runs()
    try:
        with progress:
            summary = scoring.score(
                settings,
                params.pipeline,
                full=params.full or _made_by_full_schedule(),
                as_of=params.as_of,
                trigger=_trigger(),
                waive=params.waive,
                because=params.because,
                started_by=_started_by(params.started_by),
                watcher=watch,
                end_process=end_process,
                due_at=due_at(),
            )
    except (RunCancelled, RunTimedOut) as error:
        _leave_report(settings, params.pipeline, watch, since=begun, refused=str(error))
        status = Status.CANCELLED if isinstance(error, RunCancelled) else Status.FAILED
        _emit_events(settings, params.pipeline, before, Ended(status=status))
        return _state_of(error)
    except Exception as error:
        reason = str(error) if isinstance(error, PrescoreError) else f"{type(error).__name__} ended the run"
        _leave_report(settings, params.pipeline, watch, since=begun, refused=reason)
        _emit_events(settings, params.pipeline, before, Ended(status=Status.FAILED))
        raise
    _leave_report(settings, params.pipeline, watch, run_id=summary.run_id)
    _emit_events(settings, params.pipeline, before, _ended(summary))
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
    answer_interrupts()
    summary = training.train(read_settings(), params.pipeline, as_of=params.as_of, promote=params.promote)
    result = {"model": summary.model, "version": summary.version, "promoted": summary.promoted}
    return Completed(message=f"Version {summary.version} of {summary.model}: {summary.promotion}", data=result)


def end_process(error: PrescoreError) -> None:
    """End the process of a flow run that hangs, after telling the server why: nobody could tell it from outside."""
    context = FlowRunContext.get()
    watchdog.end_process_within(TELLING)
    if context is not None and context.flow_run is not None:
        with suppress(Exception), get_client(sync_client=True) as client:
            client.set_flow_run_state(context.flow_run.id, _state_of(error), force=True)
    os._exit(0)  # anything else would make a crash of what was said just now


def _state_of(error: PrescoreError) -> State[Any]:
    if isinstance(error, RunCancelled):
        return Cancelled(message=str(error))
    return Failed(name="TimedOut", message=str(error))


def log_into_run() -> None:
    """Let our messages arrive in the log of the run, from INFO on.

    ``PREFECT_LOGGING_EXTRA_LOGGERS`` takes effect when Prefect is imported, which its workers do before they import a
    flow, and it leaves out what is below WARNING.
    """
    if wants_json_logs() and not any(isinstance(each, logs.JsonHandler) for each in logging.getLogger().handlers):
        logs.configure()  # a worker's process: in those of serve, Prefect's own console writes JSON already
    for name in logs.OURS:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        if not any(isinstance(handler, APILogHandler) for handler in logger.handlers):
            handler = APILogHandler()
            handler.addFilter(_in_a_run)
            logger.addHandler(handler)


def _leave_report(
    settings: Settings,
    pipeline: str,
    watch: Stopwatch,
    *,
    run_id: int | None = None,
    since: float = 0.0,
    refused: str = "",
) -> None:
    """Write the one artifact of the run: the report. It is told, and changes nothing, when that does not succeed."""
    timings = watch.timings()
    try:
        url = resolve_url(settings)
        if run_id is None:
            run_id = report.find_run(url, pipeline, time.monotonic() - since)
        told = report.read_report(url, pipeline, run_id, timings, refused)
        told = replace(told, pictures=_pictures(url, pipeline))
    except PrescoreError:
        told = report.Report(pipeline=pipeline, run=None, timings=timings, refused=refused)
    try:
        create_markdown_artifact(
            report.write_markdown(told), key=report.artifact_key(pipeline), description=f"Report of a run of {pipeline}"
        )
    except Exception as error:  # whatever keeps the server from taking it, the run is what counts
        logger.warning("the report could not be stored: %s", type(error).__name__)


def _pictures(url: str, pipeline: str) -> tuple[Picture, ...]:
    """Draw the charts of the report; a report without them is better than none."""
    try:
        return report.read_pictures(url, pipeline)
    except Exception as error:
        logger.warning("the charts of the report could not be drawn: %s", type(error).__name__)
        return ()


def _see(settings: Settings, pipeline: str) -> Seen | None:
    """Return what readers are told now; None when the database does not say."""
    try:
        return events.see(resolve_url(settings), pipeline)
    except (PrescoreError, SQLAlchemyError) as error:
        logger.warning("what readers are told is not known: %s", type(error).__name__)
        return None


def _ended(summary: scoring.RunSummary) -> Ended:
    alarming = [finding for finding in summary.findings if finding.alarming]
    return Ended(
        status=summary.status,
        run_id=summary.run_id,
        followups=summary.followups,
        checks=[f"{finding.code} {finding.label}" for finding in alarming],
    )


def _emit_events(settings: Settings, pipeline: str, before: Seen | None, ended: Ended) -> None:
    """Send what follows from the run, for automations and whoever listens; a failing server changes nothing about the run."""
    after = _see(settings, pipeline)
    if before is None or after is None:
        return
    for event in events.follow(pipeline, before, after, ended):
        try:
            emit_event(event=event.name, resource=event.resource, payload=event.payload)
        except Exception as error:  # whatever keeps the server from taking it, the run is what counts
            logger.warning("event %s could not be sent: %s", event.name, type(error).__name__)


def _in_a_run(record: logging.LogRecord) -> bool:
    """Keep back what a thread of its own says, as the heartbeat does: Prefect warns of messages without a run."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _trigger() -> Trigger:
    """What started the run: a schedule; an automation, which makes up for missed ones; else somebody asked for it."""
    context = FlowRunContext.get()
    made = None if context is None else context.flow_run
    if made is None:
        return Trigger.MANUAL
    if made.auto_scheduled:
        return Trigger.SCHEDULED
    by_automation = made.created_by is not None and made.created_by.type == "AUTOMATION"
    return Trigger.RECOVERY if by_automation else Trigger.MANUAL


def _started_by(named: str) -> str | None:
    """Who or what started the run: whom its form names; else what the server knows of it.

    An open-source server knows schedules and automations; one with accounts (Prefect Cloud) knows people as well.
    """
    if named.strip():
        return " ".join(named.split())
    context = FlowRunContext.get()
    made = None if context is None else context.flow_run
    by = None if made is None else made.created_by
    if by is None or not by.display_value or by.type not in _STARTERS:
        return None
    return f"{_STARTERS[by.type]}{by.display_value}"


def _made_by_full_schedule() -> bool:
    """Say whether a schedule of full runs made this run, by the schedule's name.

    Its parameters say so too, but Prefect 3.8.8 forgets those of a schedule that is paused or resumed on the page, and
    the full runs that were promised would be incremental ones from then on.
    """
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and is_of_full_schedule(context.flow_run)
