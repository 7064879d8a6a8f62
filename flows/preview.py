"""`prescore score --dry-run` and `prescore features`: a few entities as a run would see them. Nothing is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import sqlalchemy as sa

from flows.score import refuse_queries
from tasks import checks, freshness, preview, publishing, verdicts
from tasks.checks import Evidence, Phase
from tasks.columns import Column
from tasks.database import connect, load_query, resolve_source_url, resolve_url
from tasks.errors import UsageError
from tasks.features import FeatureContract, describe
from tasks.forgotten import keep_out
from tasks.freshness import Disposition, Finding
from tasks.pipeline import Pipeline, find_pipeline
from tasks.preview import PreviewedEntity
from tasks.registry import ModelVersion
from tasks.runs import AsOfRefused, Snapshot
from tasks.scorers import load_scorer, with_compiled_code
from tasks.scoring import Scorer
from tasks.settings import Settings
from tasks.source_server import clock_of_sources, describing
from tasks.transport import Session, open_reading_session
from tasks.verdicts import Rules


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a run would read and write of a few entities."""

    pipeline: str
    as_of: datetime
    model: str
    model_version: int
    entities: tuple[PreviewedEntity, ...] = field(repr=False)
    #: What the guards of a run found: those that are no pass.
    findings: tuple[Finding, ...] = ()
    #: What would follow from them alone.
    disposition: Disposition = Disposition.PUBLISH


@dataclass(frozen=True, kw_only=True)
class FeatureRows:
    """Rows of a pipeline's feature query, as the model's sample needs them."""

    pipeline: str
    as_of: datetime
    key: tuple[Column, ...]
    #: Key, as_of and features, one row per entity that has features.
    rows: pa.Table = field(repr=False)
    #: Entities that the feature query returned no row for.
    missing: int = 0
    #: The Parquet file that they were written to.
    file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A database that is only read from."""

    url: str
    pipeline: Pipeline
    #: For control; PostgreSQL refuses what would write.
    connection: sa.Connection
    #: Where the sources are: ``url``, or another server.
    source_url: str
    #: For user SQL, in one READ ONLY transaction.
    session: Session
    as_of: datetime
    now: datetime

    def keys(self, key: tuple[Column, ...], limit: int, named: Sequence[str]) -> pa.Table:
        """Return the keys of the entities that are named, or of so many."""
        if named:
            return preview.find_keys(self.session, self.pipeline, key, self.as_of, named)
        return preview.choose_keys(self.session, self.pipeline, key, self.as_of, limit)


def preview_run(
    settings: Settings, name: str, *, limit: int, named: Sequence[str] = (), as_of: datetime | None = None
) -> Preview:
    """Score a few entities and show them; no run is recorded, nothing is locked, created or published.

    ``named`` holds key values of the entities, one for each key column, entity after entity; without them ``limit``
    entities are chosen, the same ones each time. ``as_of`` defaults to the clock of the database.

    Raises
    ------
    PrescoreError
        When the pipeline has no model yet, or a run could not score these entities.
    """
    with _reading(settings, name, as_of) as reading:
        scorer, model = load_scorer(reading.connection, reading.pipeline, reading.source_url)
        scorer = with_compiled_code(scorer, settings.compiled_dir, model=reading.pipeline.model.compiled)
        keys = reading.keys(scorer.contract.key, limit, named)
        rows = preview.read_rows(reading.session, reading.pipeline, scorer.contract, keys, reading.as_of)
        # Last of what is read: a check whose query fails ends the transaction.
        findings, disposition = _ask_guards(reading, scorer, model)
        entities = preview.score_rows(scorer, keys, rows)
    return Preview(
        pipeline=name,
        as_of=reading.as_of,
        model=model.name,
        model_version=model.version,
        entities=tuple(entities),
        findings=findings,
        disposition=disposition,
    )


def read_features(
    settings: Settings,
    name: str,
    *,
    limit: int,
    named: Sequence[str] = (),
    as_of: datetime | None = None,
    file: Path | None = None,
) -> FeatureRows:
    """Read what the feature query returns for a few entities, and write it to a Parquet ``file`` when one is named.

    The file is what ``prescore models register --sample`` takes. See ``preview_run`` for the parameters; no model is
    needed.
    """
    with _reading(settings, name, as_of) as reading:
        with describing(reading.connection, reading.source_url) as sources:
            contract: FeatureContract = describe(sources, reading.pipeline)
        keys = reading.keys(contract.key, limit, named)
        rows = preview.read_rows(reading.session, reading.pipeline, contract, keys, reading.as_of)
    if file is not None:
        _write(rows, file)
    return FeatureRows(
        pipeline=name,
        as_of=reading.as_of,
        key=contract.key,
        rows=rows,
        missing=keys.num_rows - rows.num_rows,
        file=file,
    )


@contextmanager
def _reading(settings: Settings, name: str, as_of: datetime | None) -> Iterator[_Reading]:
    pipeline = find_pipeline(settings, name)
    refuse_queries(pipeline)
    url = resolve_url(settings)
    source_url = resolve_source_url(settings, url)
    with connect(url, "prescore dry run") as connection, open_reading_session(source_url) as session:
        connection.execute(sa.text(load_query("forbid_writing")))
        connection.commit()
        pipeline = keep_out(connection, pipeline)
        now = clock_of_sources(connection, source_url)
        connection.rollback()
        if as_of is not None and as_of > now:
            raise AsOfRefused(
                f"as_of {as_of:%Y-%m-%d %H:%M:%S%z} is later than the clock, {now:%Y-%m-%d %H:%M:%S%z}. Nothing was "
                "read. Leave --as-of out to look at the data as of now."
            )
        yield _Reading(
            url=url,
            source_url=source_url,
            pipeline=pipeline,
            connection=connection,
            session=session,
            as_of=as_of or now,
            now=now,
        )


def _ask_guards(reading: _Reading, scorer: Scorer, model: ModelVersion) -> tuple[tuple[Finding, ...], Disposition]:
    """Ask what a run asks before it selects anyone, and say what would follow from that."""
    served = publishing.served(reading.connection, reading.pipeline.name)
    head = publishing.head(reading.connection, reading.pipeline.name)
    rules = Rules.of(reading.pipeline.drift, reading.pipeline.unknown)
    history = verdicts.read_history(
        reading.connection, reading.pipeline.name, rules, before_run=None, model_version=model.version
    )
    reading.connection.rollback()
    evidence = Evidence(
        url=reading.url,
        pipeline=reading.pipeline,
        snapshot=Snapshot(
            name="", as_of=reading.as_of, clock_at=reading.now, watermark=reading.as_of, sees_transactions=True
        ),
        session=reading.session,
        sources=reading.session,
        source_url=reading.source_url,
        scorer=scorer,
        model=model,
        served=served,
        served_rows=None if head is None else head.rows,
        served_expires_at=None if head is None else head.expires_at,
        history=history,
    )
    judgement = freshness.judge(
        reading.pipeline,
        verdicts.settle(checks.ask(evidence, Phase.GUARD), rules, evidence.history),
        as_of=reading.as_of,
        now=reading.now,
        train_data_until=model.train_data_until,
        model_version=model.version,
        data_as_of=evidence.data_as_of,
        served_expires_at=evidence.served_expires_at,
    )
    return tuple(f for f in judgement.findings if f.verdict.value not in {"pass", "skipped"}), judgement.disposition


def _write(rows: pa.Table, file: Path) -> None:
    import pyarrow.parquet as pq

    try:
        pq.write_table(rows, file)
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written: {os.strerror(error.errno or 0)}. The database is as it was. Name another file."
        ) from None
