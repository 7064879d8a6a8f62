"""Runs: the lock that lets one run of a pipeline through, the fence, the snapshot, reaping of dead runs."""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg2
import sqlalchemy as sa

from tasks import endings, lineage, logs, migrations, source_server
from tasks.database import connect, load_query, one, rows
from tasks.errors import PrescoreError
from tasks.faults import reached
from tasks.forgotten import keep_out
from tasks.freshness import without_days
from tasks.lateness import Due, require_due
from tasks.outages import CONTROL_ERRORS, explain
from tasks.pipeline import Pipeline
from tasks.population import Mode
from tasks.source_server import SourcesLost
from tasks.timeline import FORGIVEN
from tasks.transport import Session, StatementFailed, open_snapshot_session
from tasks.watchdog import EndProcess, Watchdog, Watched, watch_over

logger = logging.getLogger(__name__)

# The longest timeout that PostgreSQL takes, in milliseconds.
_LONGEST_TIMEOUT = 2**31 - 1

# What a lost connection may look like: SQLAlchemy's errors, the driver's own where SQLAlchemy was passed by, and those of
# the data path, which is often the first to notice.
_DATABASE_ERRORS = (sa.exc.DBAPIError, sa.exc.InvalidRequestError, psycopg2.Error, StatementFailed)


class Trigger(StrEnum):
    """What started a run."""

    #: A schedule: of Prefect, of cron, of systemd.
    SCHEDULED = "scheduled"
    #: A person.
    MANUAL = "manual"
    #: A run for a past instant.
    BACKFILL = "backfill"
    #: A run that makes up for missed ones.
    RECOVERY = "recovery"


class Status(StrEnum):
    """How a run ended, or that it has not."""

    RUNNING = "running"
    #: Head moved.
    PUBLISHED = "published"
    #: Not published: the last good publication is better.
    HELD = "held"
    #: Not published: a guard of integrity failed.
    ABORTED = "aborted"
    #: An error ended it.
    FAILED = "failed"
    #: Its connection died; the next run found out.
    CRASHED = "crashed"
    #: A person ended it.
    CANCELLED = "cancelled"
    #: Another run was already at work.
    SKIPPED = "skipped"


class RunInProgress(PrescoreError):
    """Another run of the pipeline holds the lock."""

    def __init__(self, pipeline: str, holder: str, run_id: int | None, mode: str | None = None) -> None:
        self.pipeline, self.run_id, self.mode = pipeline, run_id, mode
        super().__init__(
            f"{pipeline} is being run already, by {holder}. Nothing was started; that run goes on. Wait for it: "
            "`prescore status` shows when it ends."
        )


class PipelinePinned(PrescoreError):
    """A rollback refuses runs until a person says otherwise."""

    exit_code = 3

    def __init__(self, pipeline: str, because: str) -> None:
        self.pipeline = pipeline
        super().__init__(
            f"{pipeline} is pinned ({because}), so no run is started. What the rollback returned to is still served. "
            f"Run `prescore resume {pipeline}` once the cause is mended."
        )


class Renamed(PrescoreError):
    """A pipeline is asked for by a name that it had."""

    def __init__(self, former: str, pipeline: str, at: datetime, who: str) -> None:
        self.former, self.pipeline = former, pipeline
        super().__init__(
            f"{former} is called {pipeline} since {at:%Y-%m-%d %H:%M} UTC ({who} renamed it). Nothing was started; {pipeline} is "
            f"served. Rename the folder to {pipeline}, deploy it under that name, and delete what is deployed as {former}. For a "
            f"new pipeline of this name, set the name free with `prescore drop {former}`."
        )


class AsOfRefused(PrescoreError):
    """The as_of of a run is out of order."""


class Fenced(PrescoreError):
    """Another run published meanwhile, or took over."""

    def __init__(self, pipeline: str, why: str) -> None:
        self.pipeline = pipeline
        super().__init__(
            f"This run of {pipeline} may not publish: {why}. What is served was not touched. Start a new run if its "
            "predictions are still wanted."
        )


class PoolerRefused(PrescoreError):
    """The connection goes through a transaction pooler."""

    def __init__(self) -> None:
        super().__init__(
            "The connection goes through a pooler that shares server connections (such as PgBouncer): the lock of a run "
            "and its snapshot would be lost between transactions. Nothing was started. Point PRESCORE_DATABASE_URL at "
            "PostgreSQL itself; readers may stay on the pooler."
        )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The one snapshot that everything in a run is read in."""

    name: str
    as_of: datetime
    #: prescore.clock() when the snapshot was taken.
    clock_at: datetime
    #: Changes since here are left to the next run: the earliest of as_of, the clock and the oldest open transaction.
    watermark: datetime
    #: False where the role may not see when other transactions started: then rows they commit late can be missed.
    sees_transactions: bool
    #: Its name on the server of the sources; ``name`` where that is this one.
    of_sources: str = ""
    #: Whether the sources are read on a standby.
    standby: bool = False
    #: Whether as_of was asked for, not taken from the clock.
    requested: bool = False
    #: Whether what is served is dated later than the clock, so that readers do not get it: the clock was ahead once.
    served_ahead: bool = False


@dataclass(kw_only=True)
class Run:
    """An open run: it holds the lock of its pipeline on a connection that is never made again."""

    run_id: int
    generation_id: int
    pipeline: Pipeline
    url: str
    #: Where the sources are: ``url``, or another server.
    source_url: str
    trigger: Trigger
    started_at: datetime
    #: The connection that holds the lock and publishes.
    connection: sa.Connection
    backend_pid: int
    #: The tick that a schedule started it for.
    due: Due | None = None
    snapshot: Snapshot | None = None
    #: Where the sources are on another server: the connection that keeps their snapshot.
    sources_holder: sa.Connection | None = None
    #: The statement that makes sure, in the transaction of the rows, that nobody took the run for dead.
    fence: str = "fence_writer"
    #: What the connection that writes rows is called.
    writes_as: str = "prescore data"
    #: Whether prescore.rejections may list entities of it.
    lists_rejections: bool = True
    #: Ends the transactions that hold the snapshots.
    let_go: Callable[[], None] = field(default=lambda: None, repr=False)
    #: Who or what started it; None where that is not known.
    started_by: str | None = None
    #: What goes on beside the run and is ended with it, before its lock is free.
    beside: ExitStack = field(default_factory=ExitStack, repr=False)

    def release_snapshot(self) -> None:
        """Let rows go that only this run's snapshot still sees, once everything is read: VACUUM keeps them until then."""
        self.let_go()

    def require_sources(self) -> None:
        """Refuse to go on without the snapshot of the sources.

        Raises
        ------
        SourcesLost
            When the connection to their server is gone, and with it the snapshot.
        """
        assert self.snapshot is not None
        if self.sources_holder is not None and source_server.is_lost(self.sources_holder):
            raise SourcesLost(self.source_url, standby=self.snapshot.standby)

    @contextmanager
    def read_sources(self, beside: Session | None = None) -> Iterator[Session]:
        """Open a session that reads the sources in the snapshot of the run; ``beside`` where they are in its database."""
        assert self.snapshot is not None
        if beside is not None and self.source_url == self.url:
            yield beside
            return
        with open_snapshot_session(self.source_url, self.snapshot.of_sources) as session:
            yield session

    def record(self, **values: Any) -> None:
        """Write columns of the run's row; part of whatever transaction is open, committed here."""
        self.connection.execute(_update_run(values), {**values, "run_id": self.run_id})
        self.connection.commit()

    def end(self, status: Status, message: str, **values: Any) -> None:
        """Write how the run ended; on a connection of its own when that of the run is lost."""
        values = {**values, "status": status.value, "message": message, "peak_memory": peak_memory()}
        statement = _update_run(values, ending=True)
        if status in {Status.FAILED, Status.CANCELLED}:  # the others tell more of themselves
            logger.warning("run %d ended: %s", self.run_id, message, extra={"status": status.value})
        try:
            self.connection.rollback()
            self.connection.execute(statement, {**values, "run_id": self.run_id})
            self.connection.commit()
        except _DATABASE_ERRORS:
            with suppress(PrescoreError, sa.exc.DBAPIError), connect(self.url) as other:
                other.execute(statement, {**values, "run_id": self.run_id})
                other.commit()


@contextmanager
def open_run(
    url: str,
    pipeline: Pipeline,
    *,
    trigger: Trigger,
    mode: Mode,
    as_of: datetime | None,
    source_url: str | None = None,
    started_by: str | None = None,
    end_process: EndProcess | None = None,
    due: Due | None = None,
) -> Iterator[Run]:
    """Take the lock of the pipeline, mark dead runs as crashed, open a run and its snapshot.

    ``source_url`` is where the sources are, if that is another server: then each has a snapshot. ``started_by`` is who or
    what started the run, where it is known. ``end_process`` ends the process where the run hangs past its max_duration, or
    after somebody has asked it to end. ``due`` is the tick that a schedule started it for.

    The lock lives exactly as long as its connection: a killed process frees it with its socket.

    Raises
    ------
    RunInProgress
        Naming the run that holds the lock.
    Migrating
        While somebody migrates the database.
    NothingDue
        When what was due at its tick is done.
    PipelinePinned, AsOfRefused, PoolerRefused
    RunCancelled, RunTimedOut
        When it was ended from outside.
    DatabaseUnreachable, SourcesNotReady, SourcesLost
        Where the sources are on another server.
    """
    limit = pipeline.schedule.max_duration
    with ExitStack() as stack:
        stack.enter_context(
            logs.about(pipeline=pipeline.name, mode=mode.value, trigger=trigger.value, step="open the run")
        )
        connection = stack.enter_context(connect(url, "prescore run"))
        backend = one(connection, "describe_backend")
        if backend.pid != connection.connection.driver_connection.info.backend_pid:  # type: ignore[union-attr]
            raise PoolerRefused
        connection.execute(sa.text(load_query("forbid_timeouts")), {"idle_ms": _idle_ms(limit)})
        connection.commit()
        migrations.enter_gate(connection)
        endings.end_overdue(connection, pipeline.name)
        if not connection.execute(sa.text(load_query("take_run_lock")), {"pipeline": pipeline.name}).scalar_one():
            raise _in_progress(connection, pipeline)
        connection.commit()
        stack.callback(_release, connection, pipeline.name)
        reached("run.locked")
        refuse_renamed(connection, pipeline.name)
        _refuse_pinned(connection, pipeline)
        require_due(connection, pipeline, mode, due)
        pipeline = keep_out(connection, pipeline)
        _bury(connection, pipeline.name)
        opened = one(
            connection,
            "open_run",
            pipeline=pipeline.name,
            mode=mode.value,
            trigger=trigger.value,
            host=socket.gethostname(),
            process_id=os.getpid(),
            logic_digest=pipeline.logic_digest,
            contract_digest=pipeline.contract_digest,
            started_by=started_by,
            max_duration=without_days(limit),
        )
        connection.commit()
        run = Run(
            run_id=opened.run_id,
            generation_id=opened.generation_id,
            pipeline=pipeline,
            url=url,
            source_url=source_url or url,
            trigger=trigger,
            started_at=opened.started_at,
            started_by=started_by,
            due=due,
            connection=connection,
            backend_pid=backend.pid,
            beside=stack.enter_context(ExitStack()),
        )
        _begin(run)
        watchdog = stack.enter_context(_watch_over(run, end_process))
        try:
            holder = stack.enter_context(ExitStack())
            run.snapshot, run.sources_holder = holder.enter_context(_open_snapshots(run, as_of))
            run.let_go = holder.close
            run.snapshot = replace(run.snapshot, requested=as_of is not None)
            run.record(as_of=run.snapshot.as_of)
            reached("snapshot.exported")
            yield run
        except BaseException as error:
            told = _end(run, watchdog, error)
            if told is error:
                raise
            raise told from error


def _end(run: Run, watchdog: Watchdog, error: BaseException) -> BaseException:
    """Write down that something ended a run, and return what its caller is to be told: that, or what was behind it."""
    error = _asked_to_end(error) or error
    lost = isinstance(error, Exception) and not isinstance(error, Fenced) and _lost(run.connection)
    told = watchdog.reason() if lost or isinstance(error, Fenced) else watchdog.ended
    if told is not None:
        logger.warning("run %d ended: %s", run.run_id, told)
        return told
    # Ctrl-C, an exit, Prefect's answer to SIGTERM: no errors, somebody wanted the end.
    status = Status.FAILED if isinstance(error, Exception) else Status.CANCELLED
    reason = _reason(run, error, lost=lost)
    if status is Status.CANCELLED:
        message = f"Cancelled from outside ({type(error).__name__}) before it published. What was published before is still served."
    else:
        message = str(reason) if isinstance(reason, PrescoreError) else f"{type(error).__name__} ended the run"
    run.end(status, message)
    return reason


def _asked_to_end(error: BaseException) -> BaseException | None:
    """Return the interrupt behind an error, if there is one.

    psycopg2 closes a connection whose waiting was interrupted, and what then wants to clean up on it runs into that.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        if not isinstance(found, Exception | GeneratorExit):
            return found
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return None


def _reason(run: Run, error: BaseException, *, lost: bool) -> BaseException:
    """Return what people should read in place of what a run ran into, if anything."""
    name = run.pipeline.name
    if lost:
        # Whatever it ran into (keys or rows of its successor, for example), this is why.
        return Fenced(name, "its connection, which holds the lock, was lost")
    if isinstance(error, StatementFailed):
        try:
            run.require_sources()
        except SourcesLost as gone:
            return gone
    return explain(error, f"The run of {name}") if isinstance(error, CONTROL_ERRORS) else error


def _bury(connection: sa.Connection, pipeline_name: str) -> None:
    """End what dead runs still write, and mark them as crashed: whoever holds the lock knows that they are."""
    end_writers(connection, pipeline_name)
    crashed = rows(connection, "reap_runs", pipeline=pipeline_name)
    connection.commit()
    lineage.found_dead([row.run_id for row in crashed])
    for row in crashed:
        logger.warning("run %d of %s is gone: marked crashed", row.run_id, pipeline_name)


def _watch_over(run: Run, end_process: EndProcess | None) -> AbstractContextManager[Watchdog]:
    watched = Watched(
        run_id=run.run_id,
        pipeline=run.pipeline.name,
        url=run.url,
        source_url=run.source_url,
        started_at=run.started_at,
        backend_pid=run.backend_pid,
        max_duration=run.pipeline.schedule.max_duration,
    )
    return watch_over(watched, end_process)


def _idle_ms(limit: timedelta) -> str:
    """Return how long the server keeps an idle connection of a run, in milliseconds: longer than any run may take."""
    return str(min(int((limit + 2 * endings.GRACE).total_seconds() * 1000), _LONGEST_TIMEOUT))


def _begin(run: Run) -> None:
    logs.note(run_id=run.run_id, generation=run.generation_id)
    logger.info("run %d begins", run.run_id)
    reached("run.opened")


def end_writers(connection: sa.Connection, pipeline_name: str) -> None:
    """End what still writes for a run that lost its lock; called by whoever holds the lock now.

    The fence keeps such rows from counting. This keeps the caller from waiting for them: a COPY waits for keys that
    another transaction has written and not committed, and that one may belong to a process that hangs.
    """
    ended = rows(connection, "end_writers", pipeline=pipeline_name)
    connection.rollback()
    if ended:
        logger.warning("ended %d connections that a dead run of %s left", len(ended), pipeline_name)


def skip(
    url: str, pipeline: Pipeline, mode: Mode, because: str, *, trigger: Trigger, started_by: str | None = None
) -> int:
    """Record that a starter that nobody waits for met the lock, and return the id of the skipped run."""
    with connect(url) as connection:
        run_id: int = one(
            connection,
            "record_skipped_run",
            pipeline=pipeline.name,
            mode=mode.value,
            trigger=trigger.value,
            started_by=started_by,
            host=socket.gethostname(),
            process_id=os.getpid(),
            logic_digest=pipeline.logic_digest,
            contract_digest=pipeline.contract_digest,
            message=because,
        ).run_id
        connection.commit()
        return run_id


def refuse(url: str, pipeline: Pipeline, mode: Mode, trigger: Trigger, because: str) -> None:
    """Record a start that the state of the database forbids, as failed, as far as that can be recorded."""
    values = {
        "pipeline": pipeline.name,
        "mode": mode.value,
        "trigger": trigger.value,
        "host": socket.gethostname(),
        "process_id": os.getpid(),
        "logic_digest": pipeline.logic_digest,
        "contract_digest": pipeline.contract_digest,
        "message": because,
    }
    with suppress(PrescoreError, sa.exc.DBAPIError), connect(url) as connection:
        # A migration may hold the table; nobody waits for this.
        one(connection, "limit_lock_waits", milliseconds="2000", locally=True)
        one(connection, "record_refused_run", **values)
        connection.commit()


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    VmHWM on Linux: getrusage also counts what the process was before exec, that is its parent.
    """
    try:
        with Path("/proc/self/status").open(encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024


@contextmanager
def hold_lock(url: str, pipeline_name: str) -> Iterator[sa.Connection]:
    """Hold the lock of a pipeline without a run: for a rollback.

    Raises
    ------
    RunInProgress, Migrating
    """
    with connect(url, "prescore run") as connection:
        migrations.enter_gate(connection)
        if not connection.execute(sa.text(load_query("take_run_lock")), {"pipeline": pipeline_name}).scalar_one():
            raise _holder(connection, pipeline_name)
        connection.commit()
        try:
            yield connection
        finally:
            _release(connection, pipeline_name)


def _release(connection: sa.Connection, pipeline_name: str) -> None:
    """Give the lock back before the command ends, so that the next one is not refused; a lost connection has done so."""
    with suppress(*_DATABASE_ERRORS):
        connection.rollback()
        one(connection, "release_run_lock", pipeline=pipeline_name)
        migrations.leave_gate(connection)
        connection.commit()


def _lost(connection: sa.Connection) -> bool:
    """Say whether the connection that holds the lock is gone, whatever of it was noticed so far."""
    try:
        connection.rollback()
        one(connection, "describe_backend")
        connection.rollback()
    except _DATABASE_ERRORS:
        return True
    return False


def _in_progress(connection: sa.Connection, pipeline: Pipeline) -> RunInProgress:
    return _holder(connection, pipeline.name)


def _holder(connection: sa.Connection, pipeline_name: str) -> RunInProgress:
    found = one(connection, "find_lock_holder", pipeline=pipeline_name)
    connection.rollback()
    if found is None or found.run_id is None:
        return RunInProgress(pipeline_name, "another command", None)
    holder = f"run {found.run_id} (process {found.process_id} on {found.host}, since {found.started_at:%Y-%m-%d %H:%M:%S} UTC)"
    return RunInProgress(pipeline_name, holder, found.run_id, found.mode)


def refuse_renamed(connection: sa.Connection, pipeline_name: str) -> None:
    """Refuse a name that a pipeline has given up: what ran under it would begin a second one beside it.

    Raises
    ------
    Renamed
    """
    found = one(connection, "find_former_name", former=pipeline_name)
    if found is not None:
        connection.rollback()
        raise Renamed(pipeline_name, found.pipeline, found.renamed_at, found.renamed_by)


def _refuse_pinned(connection: sa.Connection, pipeline: Pipeline) -> None:
    found = one(connection, "find_pin", pipeline=pipeline.name)
    connection.rollback()
    if found is not None and found.pinned_at is not None:
        raise PipelinePinned(pipeline.name, found.pinned_because)


@contextmanager
def _open_snapshots(run: Run, as_of: datetime | None) -> Iterator[tuple[Snapshot, sa.Connection | None]]:
    """Take the snapshot of the run, and one of the sources where they are on another server, with what holds that one."""
    with ExitStack() as stack:
        connection = stack.enter_context(connect(run.url, "prescore snapshot"))
        idle_ms = _idle_ms(run.pipeline.schedule.max_duration)
        connection.execute(sa.text(load_query("forbid_timeouts")), {"idle_ms": idle_ms})
        connection.commit()
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        taken = one(connection, "export_snapshot", pipeline=run.pipeline.name, lock_pid=run.backend_pid)
        # Nobody is served what the clock has not reached: it keeps no run from starting over.
        head_as_of = None if _served_ahead(taken) else taken.head_as_of
        if run.source_url == run.url:
            wanted = _choose_as_of(run.pipeline, as_of, taken.now, head_as_of)
            watermark = min(moment for moment in (wanted, taken.now, taken.oldest_transaction) if moment is not None)
            yield _snapshot(taken, wanted, watermark), None
        else:
            # After our own: so the sources are never older than the clock says, but for a clock that is behind.
            state, holder = stack.enter_context(source_server.hold_snapshot(run.source_url, idle_ms))
            moved = taken.now - taken.real_now  # what tests and the demo make of the clock
            reached_at = min(taken.now, state.now + moved)
            wanted = _choose_as_of(run.pipeline, as_of, reached_at, head_as_of, standby=state.standby)
            found = _snapshot(taken, wanted, min(wanted, state.watermark + moved))
            yield (
                replace(
                    found,
                    sees_transactions=state.sees_transactions,
                    of_sources=state.snapshot,
                    standby=state.standby,
                ),
                holder,
            )
        with suppress(sa.exc.DBAPIError):
            connection.rollback()


def _choose_as_of(
    pipeline: Pipeline,
    asked: datetime | None,
    now: datetime,
    head_as_of: datetime | None,
    *,
    standby: bool = False,
) -> datetime:
    """Return the as_of of a run: what was asked for, or as late as can be; refused when it is out of order."""
    wanted = now if asked is None else asked
    clock = "the last transaction that the standby of the sources has replayed" if standby else "the clock"
    if wanted > now:
        raise AsOfRefused(
            f"as_of {wanted:%Y-%m-%d %H:%M:%S%z} is later than {clock}, {now:%Y-%m-%d %H:%M:%S%z}. Nothing was "
            "started. Leave --as-of out to score as of now."
        )
    if head_as_of is not None and wanted < head_as_of:
        remedy = "Leave --as-of out to score as of now."
        if asked is None:
            remedy = f"Run again when {clock} is past it, or point PRESCORE_SOURCE_URL at a server that is."
        raise AsOfRefused(
            f"as_of {wanted:%Y-%m-%d %H:%M:%S%z} is earlier than what {pipeline.name} serves, "
            f"{head_as_of:%Y-%m-%d %H:%M:%S%z}. Nothing was started. {remedy}"
        )
    return wanted


def _snapshot(taken: Any, as_of: datetime, watermark: datetime) -> Snapshot:
    return Snapshot(
        name=taken.snapshot,
        as_of=as_of,
        clock_at=taken.now,
        watermark=watermark,
        sees_transactions=taken.sees_transactions,
        of_sources=taken.snapshot,
        served_ahead=_served_ahead(taken),
    )


def _served_ahead(taken: Any) -> bool:
    return taken.head_as_of is not None and taken.head_as_of - taken.now > FORGIVEN


_RUN_COLUMNS = {
    "as_of", "mode", "generation_id", "model", "model_version", "population", "scored", "unchanged", "rejected", "new", "changed",
    "due", "gone", "key_checksum", "rows_per_second", "peak_memory", "message", "status", "cost",
}  # fmt: skip


def _update_run(values: dict[str, Any], *, ending: bool = False) -> sa.TextClause:
    unknown = set(values) - _RUN_COLUMNS
    if unknown:
        raise KeyError(f"prescore.runs has no {', '.join(sorted(unknown))}")
    assignments = ", ".join(f"{name} = :{name}" for name in sorted(values))
    return sa.text(load_query("end_run" if ending else "update_run", {"assignments": assignments}))
