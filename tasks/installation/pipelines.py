"""What is asked of each pipeline: its runs, storages, views, statistics, schedules, libraries, and what is past its retention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tasks import health, inspection, readers, space
from tasks.bundle import environment_differences, running_environment
from tasks.checks.storage import BLOATED, LEAST_BYTES
from tasks.database import connect, one, quote, rows
from tasks.errors import PrescoreError
from tasks.features import describe as describe_queries
from tasks.installation.symptoms import Symptom
from tasks.pipeline import Pipeline
from tasks.readers import Objects
from tasks.registry import current_alias
from tasks.source_server import clock_of_sources, describing
from tasks.space import SPARE_BYTES, megabytes
from tasks.storages import VACUUMED_ABOVE
from tasks.transport import open_reading_session

# Nothing is found past its retention where runs come daily; a pipeline that rests for longer keeps what it has.
RESTED = timedelta(days=7)
# Fewer rows than this are read whole whatever the planner believes, and bloat by nothing.
FEW_ROWS = 1_000


@dataclass(frozen=True, kw_only=True)
class Known:
    """A pipeline that ran here, with its declaration where the folder holds one."""

    name: str
    declared: Pipeline | None
    #: None before its first run came as far.
    objects: Objects | None
    at_work: bool


def know(connection: sa.Connection, name: str, declared: Pipeline | None, at_work: bool) -> Known:
    """Put together what is known of a pipeline."""
    objects = readers.stored(connection, name)
    if objects is not None and declared is not None:
        indexed = tuple(output.name for output in declared.predictions if output.index)
        objects = replace(objects, indexed=indexed, keeps_history=declared.history is not None)
    return Known(name=name, declared=declared, objects=objects, at_work=at_work)


def of_all(connection: sa.Connection) -> Iterator[Symptom]:
    """Ask about runs, indexes and tables of all pipelines at once."""
    for row in rows(connection, "list_dead_runs"):
        yield Symptom(
            code="runs.dead",
            pipeline=row.pipeline,
            what=f"{_run(row)} is recorded as at work; its connection is gone.",
            since=row.since,
            means="Nothing: what was published before it is served.",
            remedy="The next run marks it crashed and clears what it left.",
            wrong=False,
            fixable=True,
        )
    for row in rows(connection, "list_hung_runs"):
        yield Symptom(
            code="runs.hung",
            pipeline=row.pipeline,
            what=f"{_run(row)} gave no sign of life for five minutes.",
            since=row.since,
            means="Nothing newer is published while it holds the lock.",
            remedy=f"See whether its process still works; prescore cancel {row.run_id} ends it otherwise.",
        )
    for row in rows(connection, "list_invalid_indexes"):
        yield Symptom(
            code="indexes.invalid",
            what=f"The index {row.name} on {row.relation} is not valid: making it did not end.",
            means="No query uses it, and each write keeps it up to date.",
            remedy="Drop it; one that is missed then is told as indexes.missing.",
            wrong=False,
            fixable=True,
            target=f"{quote(row.schema)}.{quote(row.name)}",
        )
    for row in rows(connection, "list_unvacuumed"):
        yield Symptom(
            code="autovacuum.off",
            what=f"autovacuum is turned off for {row.schema}.{row.name}.",
            means="It grows, and plans of lookups get worse from run to run.",
            remedy=f"ALTER TABLE {row.schema}.{row.name} RESET (autovacuum_enabled).",
            fixable=True,
            target=f"{quote(row.schema)}.{quote(row.name)}",
        )
    for row in rows(connection, "list_stray_tables"):
        yield Symptom(
            code="tables.stray",
            what=f"prescore_rows.{row.name} ({megabytes(row.bytes)}) belongs to no pipeline that ran here.",
            means="Nothing; it takes room.",
            remedy=f"See what is in it, then drop it: DROP TABLE prescore_rows.{quote(row.name)}.",
            wrong=False,
        )
    for row in rows(connection, "list_unused_versions"):
        yield Symptom(
            code="models.unused",
            what=f"Nothing uses version {row.version} of the model {row.model} ({megabytes(row.size_bytes)}): no alias and no "
            "publication.",
            since=row.created_at,
            means="Nothing.",
            remedy=f"Remove it if nobody wants it: prescore models remove {row.model} {row.version}.",
            wrong=False,
        )


def of_queries(url: str, source_url: str, pipeline: Pipeline) -> Iterator[Symptom]:
    """Ask the planner about the queries of a pipeline, where its sources are; what fails is a symptom too."""
    errors: list[str] = []
    advice: list[str] = []
    try:
        with connect(url, "prescore doctor") as connection:
            with describing(connection, source_url) as sources:
                contract = describe_queries(sources, pipeline)
            now = clock_of_sources(connection, source_url)
        with open_reading_session(source_url) as session:
            errors, advice = inspection.advise(session, pipeline, contract, now)
    except PrescoreError as error:
        errors = [str(error)]
    for what in errors:
        yield Symptom(
            code="queries.fail",
            pipeline=pipeline.name,
            what=what,
            means="The next run fails; what was published is served until it expires.",
            remedy=f"Mend what it names; prescore check {pipeline.name} says whether that is all.",
        )
    for what in advice:
        yield Symptom(
            code="indexes.advised",
            pipeline=pipeline.name,
            what=what,
            means="Runs take longer than they have to, and what changed reaches readers later.",
            remedy="Make the index that it names.",
            wrong=False,
        )


def of_health(found: health.PipelineHealth) -> Iterator[Symptom]:
    """Return what readers are told of a pipeline, where that is not well: the same as `prescore status`."""
    for problem in health.problems(found):
        if problem.code == "hung":
            continue  # told with its process
        yield Symptom(
            code=f"pipeline.{problem.code}",
            pipeline=found.pipeline,
            what=problem.text,
            since=found.overdue_since if problem.code == "overdue" else found.state_since if problem.wrong else None,
            means="Readers are told so with every row."
            if problem.wrong
            else "Readers see what was published, by its promise.",
            remedy=problem.remedy,
            wrong=problem.wrong,
        )


def of_pipeline(connection: sa.Connection, known: Known, now: datetime) -> Iterator[Symptom]:
    """Ask about one pipeline that ran here."""
    if known.declared is None:
        yield Symptom(
            code="pipeline.undeclared",
            pipeline=known.name,
            what=f"{known.name} ran here, and the folder of the pipelines does not declare it.",
            means="What it published is served until it expires; nothing newer comes.",
            remedy=f"Put its folder back, set PRESCORE_PIPELINES to where it is, or remove it: prescore drop {known.name}.",
            wrong=False,
        )
    else:
        yield from _schedules(connection, known.declared)
        yield from _libraries(connection, known.declared)
        yield from _retention(connection, known)
    if known.objects is not None:
        yield from _views(connection, known, known.objects)
        yield from _storages(connection, known, known.objects)


def _views(connection: sa.Connection, known: Known, objects: Objects) -> Iterator[Symptom]:
    digest = readers.digest_of(readers.definitions(objects))
    there = one(connection, "find_relation", relation=objects.view).there
    if not there:
        yield Symptom(
            code="views.missing",
            pipeline=known.name,
            what=f"predictions.{known.name} is not there, although {known.name} was published.",
            means="Readers find nothing to read.",
            remedy="Make it again; grants on it have to be given again as well.",
            fixable=known.declared is not None,
        )
    elif known.declared is not None and one(connection, "find_pipeline", pipeline=known.name).views_digest != digest:
        yield Symptom(
            code="views.outdated",
            pipeline=known.name,
            what=f"The views of {known.name} were made by another prescore.",
            means="They tell the truth; what is new in this one (speed, reasons) they lack.",
            remedy="The next run makes them anew.",
            wrong=False,
            fixable=True,
        )


def _storages(connection: sa.Connection, known: Known, objects: Objects) -> Iterator[Symptom]:
    left = one(connection, "find_storage", pipeline=known.name, role="next")
    if left is not None and not known.at_work:
        name = objects.storage(left.storage_id)
        found = _described(connection, objects, left.storage_id)
        shards = rows(connection, "list_left_shards", pipeline=known.name, storage_id=left.storage_id)
        finished = sum(row.state == "finished" for row in shards)
        if not found.empty:
            kept = f", {finished} of {len(shards)} shards finished" if shards else ""
            yield Symptom(
                code="storage.orphaned",
                pipeline=known.name,
                what=f"A run that did not end left {megabytes(found.bytes)} in {name}{kept}; nobody is served from it.",
                means="Nothing: readers follow what was published.",
                remedy="The next run clears it"
                + (", or goes on with the shards that are young enough; --fix gives them up." if finished else "."),
                wrong=False,
                fixable=True,
            )
    served = one(connection, "find_storage", pipeline=known.name, role="current")
    if served is None or served.generation_id is None:
        return
    name, table = objects.storage_name(served.storage_id), objects.storage(served.storage_id)
    found = one(connection, "measure_bloat", schema="prescore_rows", storage=name)
    count = one(connection, "count_dead_rows", storage=table)
    if found is None:
        return
    state = _described(connection, objects, served.storage_id)
    if state.indexes < len(objects.indexed) and not known.at_work:
        yield Symptom(
            code="indexes.missing",
            pipeline=known.name,
            what=f"{table}, which is served, has {state.indexes} of the {len(objects.indexed)} declared indexes of outputs.",
            means="Rankings by that output read the whole table.",
            remedy="Build it; a full run fills a storage that has it.",
            wrong=False,
            fixable=True,
        )
    facts: dict[str, Any] = {"pipeline": known.name, "fixable": True, "target": table}
    if (found.rows < 0 or not found.analysed) and not state.empty:
        yield Symptom(
            code="statistics.missing",
            what=f"The planner knows nothing of {table}, which is served.",
            means="Lookups and rankings may be planned badly, and be slow.",
            remedy="ANALYZE it.",
            **facts,
        )
    elif found.needed and found.bytes > max(LEAST_BYTES, BLOATED * found.needed):
        yield Symptom(
            code="storage.bloat",
            what=f"{table} takes {megabytes(found.bytes)}, {found.bytes / found.needed:.1f} times what its rows need.",
            means="Lookups read more than they have to.",
            remedy=f"VACUUM it, so that it grows no further; a full run fills a new one: prescore score {known.name} --full.",
            wrong=False,
            **facts,
        )
    if count.dead > max(FEW_ROWS, 2 * VACUUMED_ABOVE * count.live):
        yield Symptom(
            code="storage.dead_rows",
            what=f"{count.dead:,} rows of {table} wait for VACUUM, beside {count.live:,} that are read.",
            means="Lookups read more than they have to, and the table grows.",
            remedy="VACUUM it; what that leaves is held by an open transaction or a slot.",
            wrong=False,
            **facts,
        )
    yield from _room(connection, known, found)


def _room(connection: sa.Connection, known: Known, served: Any) -> Iterator[Symptom]:
    free, wanted = space.look_around(connection).free_bytes, served.bytes + served.index_bytes
    if free is not None and SPARE_BYTES <= free < wanted + SPARE_BYTES:
        yield Symptom(
            code="disk.short",
            pipeline=known.name,
            what=f"{megabytes(free)} are free on the server's disk; another full run of {known.name} writes about "
            f"{megabytes(wanted)}.",
            means="The next full run is held, and predictions go stale.",
            remedy="Free space, or move the server to a larger disk.",
        )


def _described(connection: sa.Connection, objects: Objects, storage_id: int) -> Any:
    from tasks.storages import describe

    return describe(connection, objects, storage_id)


def _schedules(connection: sa.Connection, pipeline: Pipeline) -> Iterator[Symptom]:
    stored = {
        row.mode: (tuple(row.crons), row.timezone) for row in rows(connection, "list_schedules", pipeline=pipeline.name)
    }
    declared: Mapping[str, tuple[tuple[str, ...], str]] = {
        mode: (crons, pipeline.schedule.timezone)
        for mode, crons in (("full", pipeline.schedule.full), ("incremental", pipeline.schedule.incremental))
        if crons
    }
    for mode in sorted({*stored, *declared}):
        if stored.get(mode) != declared.get(mode):
            yield Symptom(
                code="schedule.differs",
                pipeline=pipeline.name,
                what=f"The {mode} schedule of {pipeline.name} is {_cron(declared.get(mode))} in pipeline.toml and "
                f"{_cron(stored.get(mode))} in the database.",
                means="Until a run reads the declaration, readers and `status` are told of missed ticks by the old schedule.",
                remedy=f"The next run takes it over; `prescore deploy {pipeline.name}`, or a restart of `prescore serve`, lets it "
                "fire.",
                wrong=False,
            )


def _cron(schedule: tuple[tuple[str, ...], str] | None) -> str:
    return "none" if schedule is None else f"{', '.join(schedule[0])} ({schedule[1]})"


def _libraries(connection: sa.Connection, pipeline: Pipeline) -> Iterator[Symptom]:
    model = current_alias(connection, pipeline.model.name, pipeline.model.alias)
    if model is None:
        yield Symptom(
            code="model.missing",
            pipeline=pipeline.name,
            what=f"The alias {pipeline.model.alias} of the model {pipeline.model.name} names no version.",
            means="No run can score.",
            remedy=f"Train and promote one: prescore train {pipeline.name} --promote.",
        )
        return
    differing = environment_differences(model.environment, running_environment(), pipeline.model.environment)
    if differing:
        yield Symptom(
            code="libraries.differ",
            pipeline=pipeline.name,
            what=f"Version {model.version} of {model.name} was made with other libraries than are installed here: "
            f"{'; '.join(differing)}.",
            means="Runs on this machine are aborted; what was published is served until it expires.",
            remedy=f"Install those of the training, or train again: prescore train {pipeline.name}.",
        )


def _retention(connection: sa.Connection, known: Known) -> Iterator[Symptom]:
    found = one(connection, "find_past_removed", pipeline=known.name)
    if found is not None and found.past_removed_at is not None and found.now - found.past_removed_at > RESTED:
        yield Symptom(
            code="retention.due",
            pipeline=known.name,
            what=f"What is past [retention] of {known.name} was last removed a while ago: no run of it came to its end since.",
            since=found.past_removed_at,
            means="Nothing; what may have to go for other reasons is still there.",
            remedy="The next run removes it.",
            wrong=False,
            fixable=True,
        )


def _run(row: Any) -> str:
    return f"Run {row.run_id} of {row.pipeline} (process {row.process_id} on {row.host})"


def unreadable(name: str, error: PrescoreError) -> Symptom:
    """Return what is to be told of a folder that declares no pipeline."""
    return Symptom(
        code="pipeline.invalid",
        pipeline=name,
        what=f"The declaration of {name} is refused: {error}",
        means="No run of it can begin; what was published is served until it expires.",
        remedy=f"Correct it; `prescore check {name}` says what else is wrong.",
    )
