"""The scoring flow: check, select, score, judge, publish. Read ``score`` first; the steps are below it in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tasks import (
    backends,
    checks,
    dataset_changes,
    freshness,
    lake,
    lateness,
    lineage,
    logs,
    population,
    publishing,
    registration,
    registry,
    retention,
    runners,
    runs,
    shards,
    staging,
    storages,
    tallies,
    usersql,
    verdicts,
    waivers,
)
from tasks.checks import Evidence, Phase
from tasks.costs import RunCost
from tasks.database import close_idle_connections, keep_connections, resolve_source_url, resolve_url
from tasks.errors import PrescoreError
from tasks.faults import reached
from tasks.features import QueryRefused
from tasks.freshness import Disposition, Finding, Judgement, Verdict
from tasks.lateness import NothingDue
from tasks.migrations import UNFIT
from tasks.outages import CONTROL_ERRORS, explain
from tasks.outputs import output_comment
from tasks.pipeline import Pipeline, find_pipeline
from tasks.population import Mode, Selection, Served
from tasks.profiles import store_profiles
from tasks.readers import Objects
from tasks.runs import Run, RunInProgress, Status, Trigger, open_run
from tasks.samples import Sampling
from tasks.scorers import load_scorer, with_compiled_code
from tasks.scoring import Scorer, Tally
from tasks.settings import Settings
from tasks.source_server import keys_beside_rows
from tasks.steps import step
from tasks.stopwatch import StepTiming, Stopwatch, Watcher
from tasks.stream import StageCost
from tasks.transport import Session, open_snapshot_session
from tasks.verdicts import Rules
from tasks.waivers import Waiver
from tasks.watchdog import EndProcess

logger = logging.getLogger("prescore.score")

# Seconds: how long a full run of a schedule waits for an incremental one, and between two looks. Incremental runs are short; a
# full one that gave way to one would be missed until its next tick.
FOR_INCREMENTAL, LOOK_AGAIN = 900.0, 1.0


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did, for people and programs. Times are UTC, durations seconds, memory bytes."""

    pipeline: str
    run_id: int
    status: Status
    trigger: Trigger
    mode: Mode
    #: Who or what started it; None where that is not known.
    started_by: str | None = None
    #: Why the run was full; empty for an incremental one.
    because: str = ""
    as_of: datetime | None = None
    generation_id: int | None = None
    model: str | None = None
    model_version: int | None = None
    population: int = 0
    scored: int = 0
    unchanged: int = 0
    rejected: int = 0
    new: int = 0
    changed: int = 0
    due: int = 0
    gone: int = 0
    seconds: float = 0.0
    rows_per_second: float | None = None
    peak_memory: int = 0
    message: str = ""
    verdict: str | None = None
    aging_at: datetime | None = None
    stale_at: datetime | None = None
    expires_at: datetime | None = None
    #: What has to happen next: refresh_source, rescore, retrain, investigate.
    followups: tuple[str, ...] = ()
    #: Seconds and CPU seconds of the run, of its steps and of a million predictions; None when it met another run.
    cost: RunCost | None = field(default=None, repr=False)
    #: What worked at once while entities were scored, with its seconds and CPU seconds; empty where nothing was read.
    stages: Mapping[str, StageCost] = field(default_factory=dict, repr=False)
    findings: tuple[Finding, ...] = field(default=(), repr=False)

    @property
    def timings(self) -> tuple[StepTiming, ...]:
        """How long each step took; nothing where the run met another one."""
        return () if self.cost is None else self.cost.steps

    @property
    def exit_code(self) -> int:
        """0 published or skipped, 3 held, 1 anything else."""
        return {Status.PUBLISHED: 0, Status.SKIPPED: 0, Status.HELD: 3}.get(self.status, 1)

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON can hold it: the findings that people are told, or that are unknown."""
        values = asdict(self)
        del values["stages"]  # they are part of the cost
        values["cost"] = None if self.cost is None else self.cost.as_json()
        values["findings"] = [finding.as_json() for finding in self.findings if finding.noteworthy]
        return values


def score(
    settings: Settings,
    name: str,
    *,
    full: bool = False,
    as_of: datetime | None = None,
    trigger: Trigger = Trigger.MANUAL,
    waive: Sequence[str] = (),
    because: str = "",
    started_by: str | None = None,
    watcher: Watcher | None = None,
    end_process: EndProcess | None = None,
    due_at: datetime | None = None,
) -> RunSummary:
    """Score a pipeline once and publish the result, or say why not.

    ``as_of`` defaults to the clock of the database. A scheduled run that meets another one ends as skipped, but a full one
    waits for an incremental one. ``due_at`` is the tick that a schedule started it for: if that is long ago it is a recovery,
    and if another run has done its work since, it ends as skipped. What ``waive`` names (ids of checks, patterns, groups)
    holds nothing when it fails: ``because`` tells readers why. ``started_by`` is who or what started the run, where it is
    known. ``end_process`` is for callers whose process is there for this run alone: it ends the process when the run hangs
    past its max_duration.

    Raises
    ------
    PrescoreError
        When the run failed or was refused; what was published before is still served.
    """
    pipeline = find_pipeline(settings, name)
    refuse_queries(pipeline)
    known = [check.id for check in checks.CHECKS]
    waiver = waivers.ask_for(pipeline, waive, because, trigger=trigger, known=known)
    asked = Mode.FULL if full else Mode.INCREMENTAL
    try:
        url = resolve_url(settings)
    except UNFIT as error:
        _refused(settings.database_url, pipeline, asked, trigger, error)
        raise
    source_url = resolve_source_url(settings, url)
    due = None if due_at is None else lateness.judge(pipeline, asked, due_at, datetime.now(UTC))
    if due is not None and due.late and trigger is Trigger.SCHEDULED:
        trigger = Trigger.RECOVERY
    patient_until = time.monotonic() + FOR_INCREMENTAL
    while True:
        try:
            # Outermost: a catalogue that is slow to hear how the run ended keeps no lock from the next one.
            with lineage.report(settings.lineage_url), backends.use_meter() as meter:
                watch = Stopwatch(watcher, meter.seconds)
                with open_run(
                    url,
                    pipeline,
                    trigger=trigger,
                    mode=asked,
                    as_of=as_of,
                    source_url=source_url,
                    started_by=started_by,
                    end_process=end_process,
                    due=due,
                ) as run:
                    lineage.begin(run, asked.value)
                    summary = _score_in(run, asked, waiver, watch, settings.compiled_dir)
                    return _with_cost(run, summary, watch)
        except UNFIT as error:
            _refused(url, pipeline, asked, trigger, error)
            raise
        except CONTROL_ERRORS as error:  # before the run was open; from then on it says so itself
            raise explain(error, f"The run of {name}") from error
        except (RunInProgress, NothingDue) as met:
            if trigger not in {Trigger.SCHEDULED, Trigger.RECOVERY}:
                raise
            if asked is Mode.FULL and _is_incremental(met) and time.monotonic() < patient_until:
                time.sleep(LOOK_AGAIN)
                continue
            return _skipped(url, pipeline, asked, trigger, started_by, str(met))


def _is_incremental(met: PrescoreError) -> bool:
    return isinstance(met, RunInProgress) and met.mode == Mode.INCREMENTAL.value


def _skipped(
    url: str, pipeline: Pipeline, asked: Mode, trigger: Trigger, started_by: str | None, because: str
) -> RunSummary:
    """Leave a record of a start that has nothing to do."""
    run_id = runs.skip(url, pipeline, asked, because, trigger=trigger, started_by=started_by)
    return RunSummary(
        pipeline=pipeline.name,
        run_id=run_id,
        status=Status.SKIPPED,
        trigger=trigger,
        started_by=started_by,
        mode=asked,
        message=because,
    )


def _refused(url: str | None, pipeline: Pipeline, asked: Mode, trigger: Trigger, error: PrescoreError) -> None:
    """Leave a record of a start that nobody was looking at."""
    if url is not None and trigger in {Trigger.SCHEDULED, Trigger.RECOVERY}:
        runs.refuse(url, pipeline, asked, trigger, str(error))


def _score_in(run: Run, asked: Mode, waiver: Waiver | None, watcher: Watcher, compiled_dir: Path | None) -> RunSummary:
    """The table of contents of a run that holds its lock and its snapshot."""
    started = time.perf_counter()
    assert run.snapshot is not None
    publishing.register(run)
    watcher.stage("load the model")
    with registration.readers_told(run.connection, run.pipeline, run.source_url):
        scorer, model, objects = load_model(run, compiled_dir)
    publishing.ensure_objects(run, objects, comments_of(scorer))
    archive_owed(run, objects, watcher)
    with (
        open_snapshot_session(run.url, run.snapshot.name) as session,
        run.read_sources(session) as sources,
        keep_connections(),
    ):
        evidence = gather(run, scorer, model, session, sources, waiver)
        lineage.note_sources(run, evidence, objects)
        watcher.stage("check the guards")
        findings = check_guards(run, evidence)
        judgement = judge(run, evidence, findings)
        if judgement.disposition >= Disposition.HOLD:
            return refuse(run, evidence, judgement, started)
        watcher.stage("select the population")
        selection = evidence.selection = select_population(run, evidence, asked)
        findings += check_population(run, evidence)
        judgement = judge(run, evidence, findings)
        if judgement.disposition >= Disposition.HOLD:
            return refuse(run, evidence, judgement, started)
        watcher.stage("score")
        storage_id = score_entities(run, evidence, objects, watcher)
        keep_profile(run, evidence)
        watcher.stage("judge")
        findings += check_rows(run, evidence, objects, storage_id)
        findings += check_promise(run, evidence, findings)
        judgement = judge(run, evidence, findings)
    if judgement.disposition >= Disposition.HOLD:
        summary = refuse(run, evidence, judgement, started)
        return replace(summary, message=" ".join(filter(None, (summary.message, tidy(run, objects)))))
    watcher.stage("publish")
    summary = publish(run, evidence, objects, selection, judgement, started)
    untidy = tidy(run, objects)
    if untidy:
        return replace(summary, message=f"{summary.message} {untidy}")
    if run.pipeline.archive is None:
        return summary
    watcher.stage("archive")
    told = archive(run, objects, run.generation_id, evidence.served, selection)
    return replace(summary, message=f"{summary.message} {told}")


def _with_cost(run: Run, summary: RunSummary, watch: Stopwatch) -> RunSummary:
    """Add up what the run cost, and keep it with the run; the run is what counts, so that failing to is only told."""
    cost = RunCost.of(watch.timings(), summary.scored, summary.stages)
    try:
        run.record(cost=cost.as_stored())
    except sa.exc.SQLAlchemyError as error:
        logger.warning("what run %d cost could not be stored: %s", run.run_id, type(error).__name__)
    published = summary.population if summary.status is Status.PUBLISHED else None
    lineage.end(
        summary.status.value, summary.message, mode=summary.mode.value, rows=published, findings=summary.findings
    )
    told = ("population", "scored", "unchanged", "rejected", "rows_per_second", "seconds")
    facts = {name: getattr(summary, name) for name in told}
    logger.info("run %d ended: %s", run.run_id, summary.status.value, extra={"status": summary.status.value, **facts})
    return replace(summary, cost=cost)


def refuse_queries(pipeline: Pipeline) -> None:
    """Refuse user SQL that cannot be meant, before anything is opened."""
    queries = [(pipeline.entity.query, "run")]
    if pipeline.features.query is not None:
        queries.append((pipeline.features.query, "batch"))
    if pipeline.features.changes is not None:
        queries.append((pipeline.features.changes, "since"))
    for query, supplied in queries:
        for found in usersql.judge(query, supplied):
            if found.severity == "error":
                raise QueryRefused(
                    f"{pipeline.name}/{query.origin}", found.message.rstrip("."), "Run `prescore check`."
                )


@step
def load_model(run: Run, compiled_dir: Path | None) -> tuple[Scorer, registry.ModelVersion, Objects]:
    """Load the version that the alias names, checked by digest, and describe what the queries return."""
    scorer, model = load_scorer(run.connection, run.pipeline, run.source_url)
    scorer = with_compiled_code(scorer, compiled_dir, model=run.pipeline.model.compiled)
    run.record(model=model.name, model_version=model.version)
    logs.note(model=model.name, model_version=model.version)
    reached("model.loaded")
    return scorer, model, declared_objects(scorer)


def declared_objects(scorer: Scorer) -> Objects:
    """Return the objects that a pipeline is to have with its model."""
    pipeline = scorer.pipeline
    return Objects(
        pipeline=pipeline.name,
        key=scorer.contract.key,
        outputs=scorer.outputs,
        indexed=tuple(output.name for output in pipeline.predictions if output.index),
        keeps_history=pipeline.history is not None,
    )


def gather(
    run: Run,
    scorer: Scorer,
    model: registry.ModelVersion,
    session: Session,
    sources: Session,
    waiver: Waiver | None = None,
) -> Evidence:
    """Collect what the checks look at."""
    assert run.snapshot is not None
    served = publishing.served(run.connection, run.pipeline.name)
    head = publishing.head(run.connection, run.pipeline.name)
    rules, name = Rules.of(run.pipeline.drift, run.pipeline.unknown), run.pipeline.name
    history = verdicts.read_history(run.connection, name, rules, before_run=run.run_id, model_version=model.version)
    if waiver is not None:
        waiver = waivers.sign(run.connection, run.pipeline, waiver, run.snapshot.clock_at, run.started_by)
    run.connection.rollback()
    return Evidence(
        url=run.url,
        pipeline=run.pipeline,
        snapshot=run.snapshot,
        session=session,
        sources=sources,
        source_url=run.source_url,
        scorer=scorer,
        model=model,
        served=served,
        served_rows=None if head is None else head.rows,
        served_expires_at=None if head is None else head.expires_at,
        run=run,
        history=history,
        waiver=waiver,
    )


def ask(run: Run, evidence: Evidence, phase: Phase) -> list[Finding]:
    """Ask the checks of a phase, settle what each answer counts as, and store both."""
    rules = Rules.of(run.pipeline.drift, run.pipeline.unknown)
    answered = checks.ask(evidence, phase)
    if any(finding.verdict is Verdict.UNKNOWN for finding in answered):
        run.require_sources()  # or else each check would tell of it in its own words
    findings = verdicts.settle(answered, rules, evidence.history)
    findings = waivers.waive(findings, evidence.waiver)
    if phase is Phase.ROWS and evidence.amends is not None:
        findings = waivers.carry(findings, waivers.read_served(run.connection, evidence.amends))
    freshness.record(run.connection, run.run_id, run.pipeline.name, findings)
    waivers.record(run.connection, run.run_id, findings, evidence.waiver)
    return findings


@step
def check_guards(run: Run, evidence: Evidence) -> list[Finding]:
    """Ask what can be asked before anything is read: environment, schema, golden rows, logic, sources."""
    findings = ask(run, evidence, Phase.GUARD)
    reached("guards.checked")
    return findings


@step
def select_population(run: Run, evidence: Evidence, asked: Mode) -> Selection:
    """Find out who needs a prediction, in the snapshot of the run."""
    pipeline, served, contract = run.pipeline, evidence.served, evidence.scorer.contract
    because = population.why_full(pipeline, served, evidence.model.version, asked=asked is Mode.FULL)
    as_of = evidence.snapshot.as_of
    if evidence.snapshot.served_ahead:
        because = "what is served is dated in the future: the clock was ahead when it was made"
    if not because and served is not None:
        changes = dataset_changes.since_published(
            run.connection, pipeline, evidence.scorer.contract, served, evidence.served_rows or 0, as_of
        )
        because, pipeline = changes.because, changes.pipeline
    session, sources = evidence.session, evidence.sources
    beside = keys_beside_rows(
        run.url, evidence.snapshot.name, session, sources, pipeline, contract, as_of, served, full=bool(because)
    )
    with beside as (session, pipeline):
        selection = population.summarise(session, pipeline, contract, as_of, served, because)
        reached("population.summarised")
        if selection.mode is Mode.INCREMENTAL and served is not None:
            selection = population.select(session, pipeline, contract, as_of, served, selection, run.run_id)
    run.record(
        mode=selection.mode.value,
        population=selection.population,
        key_checksum=selection.key_checksum,
        new=selection.new,
        changed=selection.changed,
        due=selection.due,
        gone=selection.gone,
        unchanged=selection.unchanged,
    )
    logs.note(mode=selection.mode.value)
    logger.info("selected %d of %d entities", selection.selected, selection.population, extra={"run_id": run.run_id})
    reached("population.selected")
    return selection


@step
def check_population(run: Run, evidence: Evidence) -> list[Finding]:
    """Ask whether this can be the population."""
    findings = ask(run, evidence, Phase.POPULATION)
    reached("population.checked")
    return findings


@step
def score_entities(run: Run, evidence: Evidence, objects: Objects, watcher: Watcher) -> int:
    """Stream the selected entities through the model into the next storage, and return its id."""
    selection, scorer = evidence.selection, evidence.scorer
    assert selection is not None
    close_idle_connections()
    storage_id, tally, doubtful = _fill_storage(run, evidence, objects, selection, watcher)
    if doubtful:
        # What was written before the difference was found was compared in some of its rows only.
        logger.warning("scoring all %d entities again with scikit-learn", tally.rows, extra={"run_id": run.run_id})
        evidence.scorer = scorer = replace(scorer, compiled=None)
        storage_id, tally, _ = _fill_storage(run, evidence, objects, selection, watcher)
    evidence.tally = tally
    if tally.rejected:
        publishing.record_rejections(run, objects, storage_id)
    evidence.samples = Sampling(run, objects, selection, storage_id, evidence.model.version)
    evidence.samples.begin()
    if selection.mode is Mode.FULL:
        storages.finish_storage(run, objects, storage_id, tally.rows)
    elif evidence.served is not None:
        by_itself = replace(scorer, compiled=None)
        sampled = staging.resample(evidence.session, evidence.sources, by_itself, objects, selection, evidence.served)
        evidence.resampled, evidence.disagreeing = sampled
    logger.info(
        "scored %d entities in %.1f s, %.0f rows/s",
        tally.rows,
        tally.seconds,
        tally.rows_per_second,
        extra={"run_id": run.run_id},
    )
    return storage_id


def _fill_storage(
    run: Run, evidence: Evidence, objects: Objects, selection: Selection, watcher: Watcher
) -> tuple[int, Tally, bool]:
    """Empty the next storage and fill it; return its id, what was counted, and whether compiled code was found to differ."""
    scorer, sources = evidence.scorer, evidence.sources
    storage_id = storages.next_storage(run.connection, run.pipeline.name)
    layout = shards.lay_out(run, scorer, evidence.model, objects, sources, selection, storage_id)
    expected = selection.selected if selection.mode is Mode.FULL else 0
    storage_id = storages.clear_next_storage(run, objects, layout, expected=expected)
    reached("storage.cleared")
    shards.record(run, layout, storage_id, evidence.data_as_of)
    shards.adopt(run, layout)
    evidence.layout = layout
    tally = tallies.begin(scorer, run.generation_id)
    tally.progress = lambda done: watcher.rows(done, selection.selected)
    began = time.perf_counter()
    if layout.shards:
        doubtful = runners.stage(run, scorer, evidence.model, sources, selection, storage_id, layout, tally)
    else:
        staging.stage(run, scorer, objects, sources, selection, storage_id, tally)
        doubtful = scorer.doubtful
    tally.seconds = time.perf_counter() - began
    return storage_id, tally, doubtful


@step
def keep_profile(run: Run, evidence: Evidence) -> None:
    """Store what the columns looked like, whatever becomes of the run: it is what later runs are compared with."""
    assert evidence.tally is not None
    if evidence.tally.profile is not None:
        store_profiles(run.connection, run, evidence.tally.profile)
        run.connection.commit()
    reached("profile.stored")


@step
def check_rows(run: Run, evidence: Evidence, objects: Objects, storage_id: int) -> list[Finding]:
    """Ask whether what was written may be published: ledger, rejections, outputs, the skipped."""
    evidence.staged = publishing.staged(run, objects, storage_id)
    findings = ask(run, evidence, Phase.ROWS)
    reached("outputs.judged")
    return findings


@step
def check_promise(run: Run, evidence: Evidence, findings: list[Finding]) -> list[Finding]:
    """Ask what is asked last: what would be promised, and whether every check has answered."""
    evidence.promise = judge(run, evidence, findings).promise
    return ask(run, evidence, Phase.LAST)


def judge(run: Run, evidence: Evidence, findings: list[Finding]) -> Judgement:
    """Compose what was found so far into a disposition and a promise."""
    return freshness.judge(
        run.pipeline,
        findings,
        as_of=evidence.snapshot.as_of,
        now=evidence.snapshot.clock_at,
        train_data_until=evidence.model.train_data_until,
        model_version=evidence.model.version,
        data_as_of=evidence.data_as_of,
        served_expires_at=evidence.served_expires_at,
    )


def refuse(run: Run, evidence: Evidence, judgement: Judgement, started: float) -> RunSummary:
    """End a run that does not publish: held, or aborted when its predictions cannot be right."""
    if evidence.samples is not None:
        evidence.samples.let_go()
    status = Status.ABORTED if judgement.disposition is Disposition.ABORT else Status.HELD
    still = (
        "nothing is served yet"
        if evidence.served is None
        else f"generation {evidence.served.generation_id} is still served"
    )
    message = f"{status.value.capitalize()}: {judgement.because}. Run {run.run_id} is unpublished; {still}."
    remedy = checks.remedies(judgement.blocking)
    if remedy:
        message += f" {remedy}"
    if evidence.tally is not None and evidence.tally.rejected:
        message += f" Rejected: {staging.list_rejections(run.run_id)}."
    run.end(status, message, **_counts(evidence))
    logger.warning("%s", message, extra={"run_id": run.run_id})
    return _summary(run, evidence, judgement, status, message, started)


def publish(
    run: Run,
    evidence: Evidence,
    objects: Objects,
    selection: Selection,
    judgement: Judgement,
    started: float,
) -> RunSummary:
    """Move head. Not a step: it belongs to the connection with the lock."""
    flagged = "" if judgement.disposition is Disposition.PUBLISH else ", flagged"
    message = f"Published generation {run.generation_id}{flagged}: {selection.population:,} rows."
    if judgement.overruled:
        overruled = ", ".join(finding.label for finding in judgement.overruled)
        message += f" It was not held for {overruled}: what was served is no better."
    if run.due is not None and run.due.late:
        message += f" It makes up for what was due since {run.due.at:%Y-%m-%d %H:%M} UTC."
    message += evidence.layout.told + _waiving(evidence, judgement)
    ending = {**_counts(evidence), "peak_memory": runs.peak_memory(), "message": message}
    assert evidence.samples is not None
    assert evidence.staged is not None
    evidence.samples.keep()
    if evidence.scorer.contract.dataset is not None:
        dataset = evidence.scorer.contract.dataset
        dataset_changes.note(run.connection, run.pipeline, dataset, run.generation_id, evidence.snapshot.as_of)
    lake.owe(run.connection, run.pipeline, run.generation_id)
    publishing.publish(run, objects, selection, evidence.staged, evidence.served, judgement.promise, ending)
    logger.info(
        "published generation %d: %d rows", run.generation_id, selection.population, extra={"run_id": run.run_id}
    )
    return _summary(run, evidence, judgement, Status.PUBLISHED, message, started)


def tidy(run: Run, objects: Objects) -> str:
    """Empty what the run left behind, and say what kept that from being done: how the run ended stands all the same."""
    try:
        storages.tidy(run, objects)
        retention.tidy(run.url, run.connection, run.pipeline)
    except (*CONTROL_ERRORS, PrescoreError) as error:
        why = error if isinstance(error, PrescoreError) else explain(error, "Clearing what the run left behind")
        logger.warning("generation %d: %s", run.generation_id, why, extra={"run_id": run.run_id})
        return f"{why} The next run clears it."
    return ""


def archive_owed(run: Run, objects: Objects, watcher: Watcher) -> None:
    """Copy what is served into the lake when the run that published it could not, before something else is served."""
    owed = lake.missing(run.connection, run.pipeline)
    run.connection.rollback()
    if owed is not None:
        watcher.stage("archive what is owed")
        archive(run, objects, owed)


@step
def archive(
    run: Run, objects: Objects, generation_id: int, before: Served | None = None, selection: Selection | None = None
) -> str:
    """Copy a publication into the lake, and say what became of it: the publication stands, whatever that is."""
    amended = None if before is None else before.generation_id
    gone = None if selection is None else selection.gone_keys
    try:
        return lake.archive(run.url, run.pipeline, objects, generation_id, before=amended, gone=gone).told
    except Exception as error:
        message = str(error) if isinstance(error, PrescoreError) else f"The archive failed: {type(error).__name__}."
        logger.warning("generation %d: %s", generation_id, message, extra={"run_id": run.run_id})
        return f"Not archived: {message} The next run tries again."


def _waiving(evidence: Evidence, judgement: Judgement) -> str:
    """Say what was waived, and until when readers see it as no worse than aging."""
    waived = [finding for finding in judgement.findings if finding.waived]
    if waived:
        stale = f"{judgement.promise.stale_at:%Y-%m-%d %H:%M} UTC"
        return f" Waived: {', '.join(finding.label for finding in waived)}; stale from {stale} at the latest."
    if evidence.waiver is not None:
        return f" Nothing that --waive {', '.join(evidence.waiver.asked)} names had failed, so nothing was waived."
    return ""


def comments_of(scorer: Scorer) -> dict[str, str]:
    """Return what is known of outputs beyond their names, such as the order of their classes."""
    found = {
        output.name: output_comment(scorer.bundle.estimator, output) or "" for output in scorer.pipeline.predictions
    }
    return {name: comment for name, comment in found.items() if comment}


def _counts(evidence: Evidence) -> dict[str, Any]:
    tally = evidence.tally
    if tally is None:
        return {}
    return {"scored": tally.scored, "rejected": tally.rejected, "rows_per_second": tally.rows_per_second}


def _summary(
    run: Run, evidence: Evidence, judgement: Judgement, status: Status, message: str, started: float
) -> RunSummary:
    selection, promise = evidence.selection, judgement.promise
    counted: dict[str, Any] = {}
    if selection is not None:
        counted = {
            name: getattr(selection, name)
            for name in ("because", "population", "unchanged", "new", "changed", "due", "gone")
        }
    published = status is Status.PUBLISHED
    return RunSummary(
        pipeline=run.pipeline.name,
        run_id=run.run_id,
        status=status,
        trigger=run.trigger,
        started_by=run.started_by,
        mode=Mode.INCREMENTAL if selection is None else selection.mode,
        as_of=evidence.snapshot.as_of,
        generation_id=run.generation_id if published else None,
        model=evidence.model.name,
        model_version=evidence.model.version,
        seconds=time.perf_counter() - started,
        peak_memory=runs.peak_memory(),
        message=message,
        verdict=promise.verdict.value if published else None,
        aging_at=promise.aging_at if published else None,
        stale_at=promise.stale_at if published else None,
        expires_at=promise.expires_at if published else None,
        followups=tuple(sorted(followup.value for followup in judgement.followups)),
        stages={} if evidence.tally is None else evidence.tally.stages,
        findings=judgement.findings,
        **counted,
        **_counts(evidence),
    )


__all__ = ["PrescoreError", "RunSummary", "Watcher", "score"]
