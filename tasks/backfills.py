"""Backfills: past instants of a pipeline, each scored with point-in-time features into a generation that is never served.

An instant is no run: it takes no lock that a run takes, and no head, check, profile, sample or archive knows of it. Its rows and
the word that it is done are written in one transaction, under a lock of its own. So instants may be scored in any order,
several at once, by several machines, and after a crash those that are done are done, and of the others there is nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tasks import logs, migrations, population, registry, row_history, staging, tallies
from tasks.checks import CHECKS
from tasks.checks.evidence import Evidence
from tasks.columns import key_hash
from tasks.database import connect, literal, load_query, one, quote, raw_execute, rows
from tasks.errors import PrescoreError
from tasks.findings import Verdict
from tasks.fingerprints import FINGERPRINT
from tasks.forgotten import Forgotten, read_forgotten, without
from tasks.pipeline import Pipeline, find_pipeline
from tasks.population import Selection
from tasks.readers import BACKFILL, Objects, names, stored
from tasks.registry import ModelVersion
from tasks.reshaping import compare
from tasks.runs import Run, Snapshot, Trigger
from tasks.scorers import load_scorer, with_compiled_code
from tasks.scoring import Scorer, Tally
from tasks.settings import read_settings
from tasks.transport import Session, open_reading_session
from tasks.workers import Place

logger = logging.getLogger(__name__)

#: What a run is never published without, and what a past instant can be asked as well as a present one.
INTEGRITY = ("model.environment", "schema", "model.golden", "logic")
# Models that a process remembers: with --as-then, each instant may have another one.
_REMEMBERED = 4


class BackfillRefused(PrescoreError):
    """A past instant cannot be scored."""


class Ended(StrEnum):
    """What became of a past instant."""

    #: Its rows are there.
    DONE = "done"
    #: They were there, of the same model version and logic.
    KEPT = "kept"
    #: Another process is at work on it.
    BUSY = "busy"
    #: It was not scored; what was there of it before still is.
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class PastOrder:
    """A past instant to score, as it travels to a worker process."""

    pipeline: str
    as_of: datetime
    #: Number of the model version; None for what the alias names.
    version: int | None = None
    #: Take the version that the alias named at the instant.
    as_then: bool = False
    #: Score it even though it is done.
    again: bool = False
    #: Where compiled models are; None where they are not to be compiled.
    compiled_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a past instant, in numbers."""

    as_of: datetime
    ended: Ended
    generation_id: int | None = None
    model_version: int | None = None
    population: int = 0
    rejected: int = 0
    message: str = ""


class _Doubtful(Exception):
    """Compiled code was found to differ from scikit-learn after rows of it had been written."""


@dataclass(kw_only=True)
class _Instant(Run):
    """A past instant, as far as staging takes it for a run."""

    @contextmanager
    def read_sources(self, beside: Session | None = None) -> Iterator[Session]:
        """Open a session that reads the sources: in the past, it is as_of that counts, not the snapshot."""
        with open_reading_session(self.source_url) as session:
            yield session


def score_past(order: PastOrder, place: Place) -> Outcome:
    """Score one past instant; what prescore refuses, and errors, end the instant and are told in the outcome."""
    about = logs.about(pipeline=order.pipeline, trigger="backfill", step="score a past instant")
    with about, connect(place.url, "prescore backfill") as connection:
        known = {"pipeline": order.pipeline, "as_of": order.as_of}
        try:
            migrations.enter_gate(connection)
        except PrescoreError as error:
            return Outcome(as_of=order.as_of, ended=Ended.FAILED, message=str(error))
        if not connection.execute(sa.text(load_query("take_instant_lock")), known).scalar_one():
            return Outcome(as_of=order.as_of, ended=Ended.BUSY, message="another process is at work on it")
        for row in rows(connection, "reap_backfills", **known):
            logger.warning("an attempt at %s is gone: generation %d marked crashed", order.as_of, row.generation_id)
        connection.commit()
        try:
            return _score(connection, order, place)
        except PrescoreError as error:
            message = str(error)
        except Exception as error:
            logger.exception("the past instant %s failed", order.as_of)
            message = f"{type(error).__name__} ended it"
    return Outcome(as_of=order.as_of, ended=Ended.FAILED, message=message)


def _score(connection: sa.Connection, order: PastOrder, place: Place) -> Outcome:
    settings = replace(read_settings(), pipelines_dir=place.pipelines)
    pipeline = find_pipeline(settings, order.pipeline)
    forgotten = read_forgotten(connection, pipeline.name)
    connection.rollback()
    version = find_model(connection, pipeline, order)
    logs.note(model=pipeline.model.name, model_version=version.version)
    found = one(connection, "find_backfill", pipeline=pipeline.name, as_of=order.as_of)
    connection.rollback()
    wanted = (pipeline.model.name, version.version, pipeline.logic_digest)
    if found is not None and not order.again and (found.model, found.model_version, found.logic_digest) == wanted:
        return Outcome(
            as_of=order.as_of,
            ended=Ended.KEPT,
            generation_id=found.generation_id,
            model_version=found.model_version,
            population=found.population,
            rejected=found.rejected,
        )
    pipeline = pipeline if forgotten is None else without(pipeline, forgotten)
    scorer = _load(connection, pipeline, place, version, order.compiled_dir)
    objects = Objects(pipeline=pipeline.name, key=scorer.contract.key, outputs=scorer.outputs)
    ensure(connection, pipeline, objects)
    run = _open(connection, pipeline, order, version, place)
    try:
        return _fill(run, scorer, version, objects, forgotten)
    except _Doubtful:
        logger.warning("scoring %s again with scikit-learn", order.as_of)
        try:
            return _fill(run, replace(scorer, compiled=None), version, objects, forgotten)
        except BaseException as error:
            _end(run, objects, error)
            raise
    except BaseException as error:
        _end(run, objects, error)
        raise


def find_model(connection: sa.Connection, pipeline: Pipeline, order: PastOrder) -> ModelVersion:
    """Return the model version that an instant is to be scored with; the transaction is rolled back.

    Raises
    ------
    ModelNotFound
    BackfillRefused
        When the alias named none at the instant.
    """
    name, alias = pipeline.model.name, pipeline.model.alias
    try:
        if not order.as_then:
            return registry.find_version(connection, name, alias if order.version is None else order.version)
        row = one(connection, "find_aliased_version", model=name, alias=alias, at=order.as_of)
        if row is None:
            raise BackfillRefused(
                f"No version of model {name} was {alias} at {order.as_of:%Y-%m-%d %H:%M:%S%z}. Nothing was scored for this "
                "instant. Leave --as-then out to take what is current now, or name a version with --model-version."
            )
        return ModelVersion.from_row(row)
    finally:
        connection.rollback()


def ensure(connection: sa.Connection, pipeline: Pipeline, objects: Objects) -> None:
    """Create table and view of the backfills of a pipeline on first use, and columns of outputs that they lack; committed.

    Raises
    ------
    OutputsDiffer, KeyDiffers
        When readers have columns that are not declared now, or of other types.
    BackfillRefused
        When the pipeline has never run here.
    """
    before = stored(connection, objects.pipeline)
    if before is None:
        raise BackfillRefused(
            f"{pipeline.name} has never published here, so it is not known which columns its readers have. Nothing was "
            f"scored. Run `prescore score {pipeline.name}` once."
        )
    compare(before, objects).refuse()
    connection.execute(sa.text(load_query("lock_backfill_objects")), {"pipeline": objects.pipeline})
    made = one(connection, "find_relation", relation=objects.backfill).there
    if not made:
        fragments = {
            "backfill": objects.backfill,
            "key_definitions": ", ".join(f"{quote(c.name)} {c.postgres_type} NOT NULL" for c in objects.key),
            "output_definitions": ", ".join(f"{quote(c.name)} {c.postgres_type}" for c in objects.outputs),
            "key_names": objects.key_names,
        }
        raw_execute(connection, load_query("create_backfill_table", fragments))
        row_history.comment_on_columns(connection, objects.backfill, _comments(objects))
    row_history.add_outputs(connection, objects, objects.backfill)
    if pipeline.features.fingerprint:
        fragments = {"table": objects.backfill, "column": quote(FINGERPRINT.name), "type": FINGERPRINT.postgres_type}
        raw_execute(connection, load_query("add_output", fragments))
    if not _is_told(connection, objects):
        fragments = {
            "view": objects.backfill_view,
            "backfill": objects.backfill,
            "keys": names(objects.key, "r"),
            "outputs": names(objects.outputs, "r"),
            "pipeline": literal(objects.pipeline),
        }
        raw_execute(connection, load_query("create_backfill_view", fragments))
        text = f"{objects.pipeline} at past instants, as a backfill scored them; nobody was served this."
        fragments = {"view": objects.backfill_view, "comment": literal(text)}
        raw_execute(connection, load_query("comment_on_view", fragments))
        described = _comments(objects) | {"model_version": "Version of the model that scored it."}
        row_history.comment_on_columns(connection, objects.backfill_view, described)
        row_history.share_readers(connection, objects, objects.backfill_view)
    connection.commit()


def _is_told(connection: sa.Connection, objects: Objects) -> bool:
    """Say whether the view is there with every output: it goes when outputs are removed or get another type."""
    view = objects.backfill_view
    return bool(one(connection, "find_relation", relation=view).there) and all(
        one(connection, "has_column", relation=view, name=column.name).there for column in objects.outputs
    )


def _comments(objects: Objects) -> dict[str, str]:
    return {
        **{column.name: "Key of the entity." for column in objects.key},
        "as_of": "The past instant that the data was looked at from.",
        "scored_in": "Generation of the instant; never served.",
        "rejected": "Why the entity could not be scored; NULL for a prediction.",
        **{column.name: "Prediction." for column in objects.outputs},
    }


_scorers: dict[tuple[str, ...], Scorer] = {}


def _load(
    connection: sa.Connection, pipeline: Pipeline, place: Place, version: ModelVersion, compiled_dir: Path | None
) -> Scorer:
    """Return the scorer of a version, loaded once per process; compiled where a run would compile it."""
    identity = (
        place.url,
        place.source_url,
        pipeline.name,
        version.digest,
        pipeline.logic_digest,
        pipeline.contract_digest,
        pipeline.entity.query.text,
    )
    if identity not in _scorers:
        while len(_scorers) >= _REMEMBERED:
            _scorers.pop(next(iter(_scorers)))
        scorer = load_scorer(connection, pipeline, place.source_url, version.version)[0]
        _scorers[identity] = with_compiled_code(scorer, compiled_dir, model=pipeline.model.compiled)
    return _scorers[identity]


def _open(
    connection: sa.Connection, pipeline: Pipeline, order: PastOrder, version: ModelVersion, place: Place
) -> _Instant:
    opened = one(
        connection,
        "open_backfill",
        pipeline=pipeline.name,
        as_of=order.as_of,
        model=version.name,
        model_version=version.version,
        logic_digest=pipeline.logic_digest,
        host=socket.gethostname(),
        process_id=os.getpid(),
    )
    connection.commit()
    snapshot = Snapshot(
        name="", as_of=order.as_of, clock_at=order.as_of, watermark=order.as_of, sees_transactions=True, requested=True
    )
    return _Instant(
        run_id=opened.generation_id,
        generation_id=opened.generation_id,
        pipeline=pipeline,
        url=place.url,
        source_url=place.source_url,
        trigger=Trigger.BACKFILL,
        started_at=opened.started_at,
        connection=connection,
        backend_pid=0,
        snapshot=snapshot,
        fence="fence_backfill",
        writes_as="prescore backfill",
        lists_rejections=False,
    )


def _end(run: _Instant, objects: Objects, error: BaseException) -> None:
    """Write down how an attempt ended, and leave nothing of it; whoever comes next finds out where that cannot be."""
    status = "failed" if isinstance(error, Exception) else "cancelled"
    message = str(error) if isinstance(error, PrescoreError) else f"{type(error).__name__} ended it"
    values = {"generation_id": run.generation_id, "status": status, "message": message}
    try:
        run.connection.rollback()
        run.connection.execute(sa.text(load_query("end_backfill")), values)
        written = load_query("delete_backfilled_rows", {"backfill": objects.backfill})
        run.connection.execute(sa.text(written), {"generations": [run.generation_id]})
        run.connection.commit()
    except sa.exc.SQLAlchemyError:
        logger.warning("how generation %d ended could not be written down", run.generation_id)


def _fill(
    run: _Instant, scorer: Scorer, version: ModelVersion, objects: Objects, forgotten: Forgotten | None
) -> Outcome:
    """Select the population of the instant, score it, and write it with the word that it is done."""
    assert run.snapshot is not None
    as_of = run.snapshot.as_of
    with run.read_sources() as session:
        _require_integrity(run, scorer, version, session)
        selection = population.summarise(session, run.pipeline, scorer.contract, as_of, None, "a past instant")
        if selection.null_keys or not (selection.population or run.pipeline.entity.allow_empty):
            what = f"{selection.null_keys:,} keys are NULL" if selection.null_keys else "nobody is in the population"
            raise BackfillRefused(
                f"{run.pipeline.name} as of {as_of:%Y-%m-%d %H:%M:%S%z}: {what}. Nothing was scored for this instant. Look at "
                "what [entity] query returns for it."
            )
        tally = tallies.begin(scorer, run.generation_id)
        books = _Books(run, scorer, objects, selection, forgotten)
        staging.stage(run, scorer, objects, session, selection, BACKFILL, tally, books)
    logger.info("scored %d entities as of %s", tally.rows, as_of)
    return Outcome(
        as_of=as_of,
        ended=Ended.DONE,
        generation_id=run.generation_id,
        model_version=version.version,
        population=selection.population,
        rejected=tally.rejected,
    )


def _require_integrity(run: _Instant, scorer: Scorer, version: ModelVersion, session: Session) -> None:
    """Refuse an instant whose predictions could not be right: other libraries, other columns, other features."""
    assert run.snapshot is not None
    evidence = Evidence(
        url=run.url,
        pipeline=run.pipeline,
        snapshot=run.snapshot,
        session=session,
        sources=session,
        source_url=run.source_url,
        scorer=scorer,
        model=version,
        served=None,
        served_rows=None,
        served_expires_at=None,
    )
    for check in CHECKS:
        if check.id in INTEGRITY:
            for finding in check.ask(evidence, check):
                if finding.verdict is Verdict.FAIL:
                    raise BackfillRefused(
                        f"{check.id}: {finding.reason}. Nothing was scored for this instant. "
                        f"{check.remedy or 'Score with another version of the model.'}"
                    )


class _Books:
    """What is written in the transaction of the rows: that they are all there, and that the instant is done."""

    def __init__(
        self, run: _Instant, scorer: Scorer, objects: Objects, selection: Selection, forgotten: Forgotten | None
    ) -> None:
        self.run, self.scorer, self.objects = run, scorer, objects
        self.selection, self.forgotten = selection, forgotten

    def open(self, writer: Session) -> None:
        """Begin the transaction."""
        writer.execute("BEGIN")

    def close(self, writer: Session, tally: Tally) -> None:
        """Compare what was written with the population, and write down that the instant is done.

        Raises
        ------
        BackfillRefused
            When the ledger does not balance, rows were mixed up, or an entity was forgotten meanwhile.
        """
        assert self.run.snapshot is not None
        if self.scorer.doubtful:
            raise _Doubtful
        if tally.sentinels is not None and tally.sentinels.worst is not None:
            raise BackfillRefused(
                f"Golden rows that were scored among the others are not as recorded: {tally.sentinels.worst}. Nothing was "
                "written for this instant. Look for a preprocess or a model whose rows depend on one another."
            )
        self._require_balance(writer)
        # An erasure that is at work is waited for, and then seen here; a later one waits, and sees these rows.
        writer.table(load_query("share_head", {"pipeline": literal(self.objects.pipeline)}), "Waiting for erasures")
        if read_forgotten(self.run.connection, self.run.pipeline.name) != self.forgotten:
            raise BackfillRefused(
                f"Entities of {self.run.pipeline.name} were forgotten, or released, while this instant was scored. Nothing "
                "was written for it. Give the same command again."
            )
        self.run.connection.rollback()
        replaced = {
            "backfill": self.objects.backfill,
            "pipeline": literal(self.objects.pipeline),
            "as_of": literal(self.run.snapshot.as_of),
        }
        writer.execute(load_query("remove_replaced_backfill", replaced))
        done = {
            "generation_id": literal(self.run.generation_id),
            "population": literal(self.selection.population),
            "rejected": literal(tally.rejected),
            "key_checksum": str(self.selection.key_checksum),
        }
        writer.execute(load_query("finish_backfill", done))

    def _require_balance(self, writer: Session) -> None:
        fragments = {
            "backfill": self.objects.backfill,
            "key_hash": key_hash(self.objects.key),
            "generation_id": literal(self.run.generation_id),
        }
        row: dict[str, Any] = writer.table(load_query("sum_backfill", fragments)).to_pylist()[0]
        found = (row["rows"], row["key_checksum"])
        if found != (self.selection.population, str(self.selection.key_checksum)):
            raise BackfillRefused(
                f"The ledger does not balance: {row['rows']:,} rows were written, the population is "
                f"{self.selection.population:,}. Nothing is left of this instant. Run `prescore check "
                f"{self.run.pipeline.name}`."
            )


__all__ = ["BackfillRefused", "Ended", "Outcome", "PastOrder", "find_model", "score_past"]
