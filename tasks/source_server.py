"""The server of the sources, where it is another one than that of the predictions: its snapshot, how far it is, its keys.

The entity, feature, changes and label queries run there, and what looks at sources. What is served, the registry and the
books stay where predictions are. It may be a standby: then it is as far as what it replayed, and so is a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from tasks.columns import Column
from tasks.database import SourceUrl, clock, connect, describe_url, literal, load_query, one, quote, require_server
from tasks.errors import PrescoreError
from tasks.features import FeatureContract
from tasks.fingerprints import FINGERPRINT
from tasks.pipeline import Pipeline, UserQuery
from tasks.population import Served, changed_keys, fingerprints_sql, moved_sql, population_keys
from tasks.transport import Session, open_session

# A standby does not tell when the transactions of its primary began: rows of one that was open for longer than this when
# the standby was read are found by full runs only, unless late_by of a [[source]] reaches further back.
LONGEST_TRANSACTION = timedelta(minutes=10)

_POPULATION, _CHANGED = "prescore_population_keys", "prescore_changed_keys"
_FINGERPRINTS = "prescore_found_fingerprints"


class SourcesNotReady(PrescoreError):
    """The server of the sources answers, but cannot say how current it is, or is no server to read from."""

    def __init__(self, url: str, why: str, remedy: str) -> None:
        self.place = describe_url(url)
        super().__init__(
            f"The sources ({self.place}) cannot be read: {why}. What was published is still served. {remedy}"
        )


class SourcesLost(PrescoreError):
    """The connection that kept the snapshot of the sources is gone."""

    def __init__(self, url: str, *, standby: bool) -> None:
        self.place = describe_url(url)
        cause, remedy = "", "Look at its log, and run again."
        if standby:
            cause = ": it was restarted, or ended the connection to go on with its replay (a conflict with recovery)"
            remedy = (
                "Set hot_standby_feedback = on on the standby, or raise max_standby_streaming_delay above the length of a "
                "run, and run again."
            )
        super().__init__(
            f"The connection to the sources ({self.place}) was lost{cause}. What was read does not count; what was published "
            f"is still served. {remedy}"
        )


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """How far the sources were when their snapshot was taken, by their own clock."""

    #: Name of the exported snapshot.
    snapshot: str
    #: The clock of a primary; on a standby when the last transaction was committed that it has replayed.
    now: datetime
    standby: bool
    #: When the oldest open transaction began; None where there is none, and on a standby, which does not know.
    oldest_transaction: datetime | None
    #: False where the role, or a standby, does not see when other transactions began.
    sees_transactions: bool

    @property
    def watermark(self) -> datetime:
        """What was committed before, with the time of its row, is in the snapshot for certain."""
        if self.standby:
            return self.now - LONGEST_TRANSACTION
        return min(self.now, self.oldest_transaction or self.now)


@contextmanager
def hold_snapshot(url: str, idle_ms: str) -> Iterator[tuple[SourceState, sa.Connection]]:
    """Take a snapshot of the sources and keep it for others to read in, on the connection that is returned.

    ``idle_ms`` is how long the server keeps that when its run is stuck, in milliseconds.

    Raises
    ------
    DatabaseUnreachable, ServerNotSupported
    SourcesNotReady
        Behind a transaction pooler, and on a standby that has replayed nothing since it was started.
    """
    with connect(url, "prescore snapshot") as connection:
        require_server(connection, url)
        connection.execute(sa.text(load_query("forbid_timeouts")), {"idle_ms": idle_ms})
        before = one(connection, "read_replay")
        connection.commit()
        if before.pid != connection.connection.driver_connection.info.backend_pid:  # type: ignore[union-attr]
            raise SourcesNotReady(
                url,
                "the connection goes through a pooler that shares server connections (such as PgBouncer)",
                "Point PRESCORE_SOURCE_URL at PostgreSQL itself.",
            )
        if before.standby and before.replayed is None:
            raise _nothing_replayed(url)
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        taken = one(connection, "export_source_snapshot")
        yield (
            SourceState(
                snapshot=taken.snapshot,
                # Asked before the snapshot was taken: what was replayed until then is in it.
                now=before.replayed if before.standby else taken.now,
                standby=before.standby,
                oldest_transaction=None if before.standby else taken.oldest_transaction,
                sees_transactions=taken.sees_transactions and not before.standby,
            ),
            connection,
        )
        with suppress(sa.exc.DBAPIError):
            connection.rollback()


@contextmanager
def describing(connection: sa.Connection, source_url: str) -> Iterator[sa.Connection]:
    """Yield a connection that can describe the queries of users: ``connection``, unless they run on another server."""
    if not isinstance(source_url, SourceUrl):
        yield connection
        return
    with connect(source_url, "prescore check") as sources:
        require_server(sources, source_url)
        yield sources


def clock_of_sources(connection: sa.Connection, source_url: str) -> datetime:
    """Return the clock that freshness is judged at, or how far the sources are where they are behind it.

    ``connection`` is to the database of the predictions; ``source_url`` where the sources are.
    """
    if not isinstance(source_url, SourceUrl):
        return clock(connection)
    ours = one(connection, "read_clocks")
    with describing(connection, source_url) as sources:
        found = one(sources, "read_replay")
    if found.standby and found.replayed is None:
        raise _nothing_replayed(source_url)
    there = found.replayed if found.standby else found.now
    reached: datetime = min(ours.now, there + (ours.now - ours.real_now))
    return reached


def _nothing_replayed(url: str) -> SourcesNotReady:
    return SourcesNotReady(
        url,
        "the standby has replayed no transaction since it was started, so nobody knows how current it is",
        "Run again after the next commit on its primary.",
    )


def is_lost(connection: sa.Connection) -> bool:
    """Say whether the connection that keeps a snapshot is gone."""
    try:
        one(connection, "describe_backend")
    except sa.exc.DBAPIError:
        return True
    return False


@contextmanager
def keys_beside_rows(
    url: str,
    snapshot: str,
    session: Session,
    sources: Session,
    pipeline: Pipeline,
    contract: FeatureContract,
    as_of: datetime,
    served: Served | None,
    *,
    full: bool,
) -> Iterator[tuple[Session, Pipeline]]:
    """Yield a session in which the queries of a population can be joined with what is served.

    Where the sources are in the same database, that is ``session`` and the pipeline as it is. Else the keys of the
    population, and those that changed (or the fingerprints of all), are streamed from ``sources`` into temporary tables of a
    session at ``url``, in its ``snapshot`` where one is named, and the pipeline's queries read these: new, changed, due and
    gone are judged by the same statements, and both sides of the ledger are hashed by the same server, whatever the other
    one's version is.

    Raises
    ------
    StatementFailed
        When a query fails.
    """
    if sources is session:
        yield session, pipeline
        return
    entity, changes, key = pipeline.entity, pipeline.features.changes, contract.key
    with open_session(url, "prescore reader") as beside:
        beside.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        if snapshot:
            beside.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}", "Reading in the snapshot of the run")
        statement = population_keys(sources, pipeline, key, as_of)
        population = _bring(sources, beside, key, _POPULATION, statement, entity.query)
        if changes is not None and not full and served is not None:
            statement = changed_keys(pipeline, key, as_of, served)
            changes = _bring(sources, beside, key, _CHANGED, statement, changes)
        elif pipeline.features.fingerprint and pipeline.features.query is not None and not full and served is not None:
            statement = fingerprints_sql(pipeline, contract, as_of, apart=True)
            brought = _bring(sources, beside, (*key, FINGERPRINT), _FINGERPRINTS, statement, pipeline.features.query)
            changes = replace(brought, text=moved_sql(pipeline, key, as_of, served, brought.text))
        yield (
            beside,
            replace(
                pipeline,
                entity=entity.model_copy(update={"query": population}),
                features=pipeline.features.model_copy(update={"changes": changes}),
            ),
        )


def _bring(
    sources: Session, beside: Session, key: tuple[Column, ...], table: str, statement: str, query: UserQuery
) -> UserQuery:
    """Stream keys into a temporary table, and return the query that reads it in place of the one they come from."""
    definitions = ", ".join(f"{quote(c.name)} {c.postgres_type}" for c in key)
    beside.execute(load_query("create_brought_keys", {"table": quote(table), "key_definitions": definitions}))
    with sources.stream(statement, query.origin) as batches:
        beside.copy_in("pg_temp", table, key, batches, "Writing the keys of the sources")
    beside.execute(load_query("analyse_brought_keys", {"table": quote(table)}))
    names = ", ".join(quote(c.name) for c in key)
    return replace(query, text=load_query("read_brought_keys", {"table": quote(table), "key_names": names}))


__all__ = ["SourceState", "SourceUrl", "SourcesLost", "SourcesNotReady", "hold_snapshot", "keys_beside_rows"]
