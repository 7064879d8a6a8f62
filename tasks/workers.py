"""Workers: processes, here or on a cluster, that score one shard after another.

Only bounds, ids and counts travel. A worker takes the database and the pipelines from its own environment, reads the model
from the registry, and writes its rows itself.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import sqlalchemy as sa

from tasks import bundle as bundles
from tasks import logs, staging, tallies
from tasks.database import connect, resolve_source_url, resolve_url
from tasks.errors import PrescoreError
from tasks.forgotten import keep_out
from tasks.key_ranges import Counted, KeyRange
from tasks.pipeline import Pipeline, find_pipeline
from tasks.population import Selection
from tasks.readers import Objects
from tasks.runs import Run, Snapshot, Trigger
from tasks.scorers import load_scorer, with_compiled_code
from tasks.scoring import Scorer
from tasks.settings import Settings, read_settings
from tasks.shards import Shard, ShardBooks
from tasks.transport import Session

logger = logging.getLogger(__name__)

# Pipelines, models and places that a process remembers: workers of a cluster live for days.
_REMEMBERED = 4


class WorkerDiffers(PrescoreError):
    """A worker would not score as the run does."""

    def __init__(self, worker: str, differences: list[str]) -> None:
        self.worker, self.differences = worker, differences
        super().__init__(
            f"Worker {worker} would not score as the run does: {'; '.join(differences)}. It wrote nothing; the last good "
            "publication is still served. Give every worker the same pipelines (PRESCORE_PIPELINES), the same libraries and "
            "the database of the run (PRESCORE_DATABASE_URL), then run again: finished shards are kept."
        )


class ShardFailed(PrescoreError):
    """A worker met an error that is none of prescore's own."""

    def __init__(self, shard: int, worker: str, kind: str, *, lost: bool) -> None:
        self.shard, self.worker, self.kind, self.lost = shard, worker, kind, lost
        super().__init__(
            f"Shard {shard} ended with {kind} on worker {worker}. Nothing of it was written; the last good publication is "
            "still served. The worker's log has the details; run again: finished shards are kept."
        )


@dataclass(frozen=True, kw_only=True)
class Order:
    """One shard to score, as it travels to a worker: ids, bounds and fingerprints, no rows and no secrets."""

    pipeline: str
    run_id: int
    generation_id: int
    storage_id: int
    #: Name of the exported snapshot that everything is read in, on the server of the sources.
    snapshot: str
    #: Whether that is another server than the one that is written to.
    sources_apart: bool
    as_of: datetime
    shard: int
    lower: str | None
    upper: str | None
    keys: int
    key_checksum: Decimal
    #: Fingerprints of what the run scores with.
    model_version: int
    model_digest: str
    logic_digest: str
    contract_digest: str
    #: Whether to predict with the compiled form of the model where the worker can; it predicts the same.
    compiled: bool
    #: Libraries of the run -> their versions.
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker of this machine finds what it needs: told by the process that started it."""

    url: str
    source_url: str
    pipelines: Path


def order_for(run: Run, scorer: Scorer, model_version: int, storage_id: int, shard: Shard) -> Order:
    """Return the order for a shard of a run."""
    assert run.snapshot is not None
    return Order(
        pipeline=run.pipeline.name,
        run_id=run.run_id,
        generation_id=run.generation_id,
        storage_id=storage_id,
        snapshot=run.snapshot.of_sources,
        sources_apart=run.source_url != run.url,
        as_of=run.snapshot.as_of,
        shard=shard.number,
        lower=shard.range.lower,
        upper=shard.range.upper,
        keys=shard.counted.keys,
        key_checksum=shard.counted.key_checksum,
        model_version=model_version,
        model_digest=scorer.bundle.digest or "",
        logic_digest=run.pipeline.logic_digest,
        contract_digest=run.pipeline.contract_digest,
        compiled=scorer.compiled is not None,
        environment=tuple(sorted(bundles.running_environment(scorer.bundle.estimator).items())),
    )


def work(order: Order, place: Place | None = None) -> int:
    """Score one shard and return how many rows it has; called in a worker.

    Raises
    ------
    WorkerDiffers
        Before anything is read, when pipeline, model, libraries or database are not those of the run.
    ShardTaken
        When another worker finished it meanwhile.
    ShardFailed
        For errors that may hold data, which do not travel; they are in the worker's log.
    """
    logs.configure_ours()
    with logs.about(
        run_id=order.run_id,
        pipeline=order.pipeline,
        step="score",
        generation=order.generation_id,
        model_version=order.model_version,
        shard=order.shard,
    ):
        try:
            return _work(order, place)
        except PrescoreError:
            raise
        except Exception as error:
            logger.exception("shard %d of run %d failed", order.shard, order.run_id)
            lost = isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
            raise ShardFailed(order.shard, here(), type(error).__name__, lost=lost) from None


def score_shard(run: Run, scorer: Scorer, selection: Selection, shard: Shard, storage_id: int, session: Session) -> int:
    """Score one shard in a session that reads the run's snapshot, and return how many rows it has."""
    objects = Objects(pipeline=run.pipeline.name, key=scorer.contract.key, outputs=scorer.outputs)
    tally = tallies.begin(scorer, run.generation_id + shard.number)
    books = ShardBooks(run.run_id, shard.number, scorer)
    with logs.about(shard=shard.number):
        staging.stage(run, scorer, objects, session, shard.of(selection), storage_id, tally, books)
        logger.info("shard %d is written: %d rows", shard.number, tally.rows)
    return tally.rows


def here() -> str:
    """Return host and process of this worker."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _work(order: Order, place: Place | None) -> int:
    settings, url, source_url = _places(place)
    pipeline = find_pipeline(settings, order.pipeline)
    with connect(url, "prescore worker") as connection:
        pipeline = keep_out(connection, pipeline)
        run = _run_of(order, pipeline, url, source_url, connection)
        scorer = _scorer(connection, run, order)
        shard = Shard(
            number=order.shard,
            range=KeyRange(column=scorer.contract.key[0], lower=order.lower, upper=order.upper),
            counted=Counted(keys=order.keys, key_checksum=order.key_checksum),
        )
        with _session(run, order) as session:
            return score_shard(run, scorer, Selection.of_everybody(), shard, order.storage_id, session)


def _places(place: Place | None) -> tuple[Settings, str, str]:
    """Return where pipelines, predictions and sources are: as told on this machine, else as the environment says."""
    settings = read_settings()
    if place is not None:
        return replace(settings, pipelines_dir=place.pipelines), place.url, place.source_url
    url = resolve_url(settings)
    return settings, url, resolve_source_url(settings, url)


def _run_of(order: Order, pipeline: Pipeline, url: str, source_url: str, connection: sa.Connection) -> Run:
    """Return the run as far as a worker needs it: it holds no lock, and cannot publish."""
    snapshot = Snapshot(
        name=order.snapshot,
        of_sources=order.snapshot,
        as_of=order.as_of,
        clock_at=order.as_of,
        watermark=order.as_of,
        sees_transactions=True,
    )
    return Run(
        run_id=order.run_id,
        generation_id=order.generation_id,
        pipeline=pipeline,
        url=url,
        source_url=source_url,
        trigger=Trigger.MANUAL,
        started_at=order.as_of,
        connection=connection,
        backend_pid=0,
        snapshot=snapshot,
    )


_scorers: dict[tuple[str, ...], Scorer] = {}
_scorers_lock = threading.Lock()


def _scorer(connection: sa.Connection, run: Run, order: Order) -> Scorer:
    """Return the scorer of an order, loaded once per process and bundle; refuse what differs from the run's."""
    pipeline = run.pipeline
    differences = [
        f"its {what} of pipeline {pipeline.name} has the digest {mine[:12]}, the run's {theirs[:12]} (in {pipeline.folder})"
        for what, mine, theirs in (
            ("logic", pipeline.logic_digest, order.logic_digest),
            ("contract", pipeline.contract_digest, order.contract_digest),
        )
        if mine != theirs
    ]
    if (run.source_url != run.url) != order.sources_apart:
        where = ("the run's are", "its own are not") if order.sources_apart else ("its own are", "the run's are not")
        differences.append(f"{where[0]} on a server apart from the predictions, {where[1]} (PRESCORE_SOURCE_URL)")
    if differences:
        raise WorkerDiffers(here(), differences)
    identity = (
        run.url,
        run.source_url,
        pipeline.name,
        order.model_digest,
        order.logic_digest,
        order.contract_digest,
        pipeline.entity.query.text,  # which leaves out whom the pipeline has to forget
        str(order.compiled),
    )
    with _scorers_lock:
        if identity not in _scorers:
            while len(_scorers) >= _REMEMBERED:
                _scorers.pop(next(iter(_scorers)))
            loaded = load_scorer(connection, pipeline, run.source_url, order.model_version)[0]
            _scorers[identity] = with_compiled_code(loaded, read_settings().compiled_dir, model=order.compiled)
        scorer = _scorers[identity]
    if scorer.bundle.digest != order.model_digest:
        found = (scorer.bundle.digest or "none")[:12]
        differences.append(f"version {order.model_version} of its model has the digest {found}")
    running = bundles.running_environment(scorer.bundle.estimator)
    differences += bundles.environment_differences(dict(order.environment), running, "exact")
    if differences:
        raise WorkerDiffers(here(), differences)
    return scorer


@contextmanager
def _session(run: Run, order: Order) -> Iterator[Session]:
    try:
        with run.read_sources() as session:
            yield session
    except PrescoreError as error:
        if getattr(error, "sqlstate", None) in {"22023", "58P01", "42704"}:  # no such snapshot here
            raise WorkerDiffers(
                here(), [f"the snapshot of run {order.run_id} is not in the database that it reads"]
            ) from None
        raise
