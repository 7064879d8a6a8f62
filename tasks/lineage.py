"""Lineage: what a run read, with which model, and what it made of it, told to a catalogue as OpenLineage events.

The run never waits for the catalogue: events are built and sent by a thread of their own, and when the run has ended that
thread gets ``LAST_WORD`` seconds to finish. Whatever the catalogue does, the run goes on; what was not delivered is told once.
Importing this module imports no client; it is the extra ``lineage``.
"""

from __future__ import annotations

import contextvars
import logging
import os
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url

from tasks import logs
from tasks.database import literal, load_query
from tasks.endings import RunCancelled
from tasks.errors import PrescoreError
from tasks.findings import Finding, Verdict

if TYPE_CHECKING:
    from tasks.checks import Evidence
    from tasks.readers import Objects
    from tasks.runs import Run

logger = logging.getLogger(__name__)

#: Seconds that the catalogue gets to take one event, and that a run which has ended waits for what is left to send.
TIMEOUT, LAST_WORD = 3.0, 5.0
# What OpenLineage calls the program that tells; a URI that leads nowhere is one.
PRODUCER = "urn:prescore"

_REPORTER: ContextVar[Reporter | None] = ContextVar("reporter of lineage", default=None)
#: How far back the planner is asked for changes; of the tables that are read only their names count.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is known of a run so far, as plain data. Instants are UTC."""

    pipeline: str
    description: str
    #: ``postgres://host:port`` and name of the database of the predictions.
    server: str
    database: str
    run_id: int
    generation_id: int
    mode: str
    trigger: str
    as_of: datetime | None = None
    #: (namespace, name) of what is read.
    inputs: tuple[tuple[str, str], ...] = ()
    model: str | None = None
    model_version: int | None = None
    #: Name and SQL type of the key, then of the predictions.
    columns: tuple[tuple[str, str], ...] = ()
    status: str = "running"
    message: str = ""
    #: Rows that were published.
    rows: int | None = None
    findings: tuple[Finding, ...] = field(default=(), repr=False)


class Reporter:
    """Tells a catalogue about one run."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._told: Told | None = None
        self._ended = False
        self._dead: list[int] = []
        self._events: queue.SimpleQueue[Callable[[Any], Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed = threading.Event()

    def begin(self, run: Run, mode: str) -> None:
        """Tell that a run begins, and that those which it found dead are over."""
        server, database = place(run.url)
        told = self._told = Told(
            pipeline=run.pipeline.name,
            description=run.pipeline.description or "",
            server=server,
            database=database,
            run_id=run.run_id,
            generation_id=run.generation_id,
            mode=mode,
            trigger=run.trigger.value,
            as_of=None if run.snapshot is None else run.snapshot.as_of,
        )
        for run_id in self._dead:
            dead = replace(told, run_id=run_id, as_of=None, status="crashed", message="Its connection died.")
            self._send("ABORT", dead)
        self._send("START", told)

    def found_dead(self, run_ids: Sequence[int]) -> None:
        """Remember runs that died without a word: nobody else ever tells how they ended."""
        self._dead += run_ids

    def note(self, **facts: Any) -> None:
        """Add to what is known of the run."""
        if self._told is not None:
            self._told = replace(self._told, **facts)

    def end(self, status: str, message: str = "", *, rows: int | None = None, findings: Sequence[Finding] = ()) -> None:
        """Tell how the run ended; only the first end counts."""
        if self._told is None or self._ended:
            return
        self._ended = True
        self.note(status=status, message=logs.without_secrets(message), rows=rows, findings=tuple(findings))
        self._send({"published": "COMPLETE", "cancelled": "ABORT"}.get(status, "FAIL"), self._told)

    def close(self) -> None:
        """Let what is left be sent, and wait for that no longer than ``LAST_WORD``."""
        if self._thread is None:
            return
        self._events.put(None)
        self._thread.join(LAST_WORD)
        if self._thread.is_alive():
            self._fail(f"it takes longer than {LAST_WORD:.0f} s")

    def _send(self, event_type: str, told: Told) -> None:
        at = datetime.now(UTC)
        self._events.put(lambda client: client.emit(build(event_type, told, at)))
        if self._thread is None:
            inherited = contextvars.copy_context()
            # A daemon: a catalogue that never answers keeps no process alive.
            self._thread = threading.Thread(
                target=inherited.run, args=(self._work,), name="prescore lineage", daemon=True
            )
            self._thread.start()

    def _work(self) -> None:
        try:
            client = _client(self._url)
            while (emit := self._events.get()) is not None and not self._failed.is_set():
                emit(client)
        except ImportError:
            self._fail('its client is not installed (`pip install "prescore[lineage]"`)')
        except Exception as error:  # whatever the catalogue or its client does, the run is what counts
            status = getattr(getattr(error, "response", None), "status_code", None)
            self._fail(type(error).__name__ if status is None else f"it answers {status}")

    def _fail(self, why: str) -> None:
        """Tell once that the catalogue does not know all of this run."""
        if not self._failed.is_set():
            self._failed.set()
            host = urlsplit(self._url).hostname
            logger.warning("lineage could not be told to %s: %s. The run goes on without", host, why)


@contextmanager
def report(url: str | None) -> Iterator[None]:
    """Let the run within be told to the catalogue at an address; without one nobody is told anything."""
    if url is None:
        yield
        return
    reporter = Reporter(url)
    before = _REPORTER.set(reporter)
    try:
        yield
    except BaseException as error:
        ours = isinstance(error, PrescoreError)
        # Ctrl-C, an exit, Prefect's answer to SIGTERM, `prescore cancel`.
        wanted = not isinstance(error, Exception) or isinstance(error, RunCancelled)
        message = str(error) if ours else f"{type(error).__name__} ended the run"
        _quietly(lambda: reporter.end("cancelled" if wanted else "failed", message))
        raise
    finally:
        _REPORTER.reset(before)
        _quietly(reporter.close)


def begin(run: Run, mode: str) -> None:
    """Tell that a run begins."""
    reporter = _REPORTER.get()
    if reporter is not None:
        _quietly(lambda: reporter.begin(run, mode))


def found_dead(run_ids: Sequence[int]) -> None:
    """Tell, with the beginning of the run that found them, that others died."""
    reporter = _REPORTER.get()
    if reporter is not None:
        reporter.found_dead(run_ids)


def note_sources(run: Run, evidence: Evidence, objects: Objects) -> None:
    """Note what the run reads and writes: the tables that the planner sees behind its queries, the model, the columns."""
    reporter = _REPORTER.get()
    if reporter is None:
        return
    columns = tuple((column.name, column.postgres_type) for column in (*objects.key, *objects.outputs))
    reporter.note(model=evidence.model.name, model_version=evidence.model.version, columns=columns)
    _quietly(lambda: reporter.note(inputs=tuple(sorted(_inputs(run, evidence)))))


def end(status: str, message: str, *, mode: str, rows: int | None, findings: Sequence[Finding]) -> None:
    """Tell how the run ended."""
    reporter = _REPORTER.get()
    if reporter is not None:
        reporter.note(mode=mode)
        _quietly(lambda: reporter.end(status, message, rows=rows, findings=findings))


def place(url: str) -> tuple[str, str]:
    """Return namespace and database of an address, as OpenLineage names them, without user and password."""
    parsed = make_url(url)
    host = parsed.host or parsed.query.get("host") or "localhost"
    return f"postgres://{host}:{parsed.port or 5432}", parsed.database or "postgres"


def run_uuid(server: str, database: str, run_id: int) -> str:
    """Return the id of a run in a catalogue: the same whoever tells of it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{server}/{database}/prescore/runs/{run_id}"))


def _quietly(act: Callable[[], Any]) -> None:
    """Do something that no run depends on."""
    try:
        act()
    except Exception as error:
        logger.warning("lineage is not complete: %s", type(error).__name__)


def _inputs(run: Run, evidence: Evidence) -> set[tuple[str, str]]:
    """Return namespace and name of each table that the run's queries read, and of its dataset."""
    from tasks import plans
    from tasks.features import key_list, read_population_sql

    pipeline, contract, session = run.pipeline, evidence.scorer.contract, evidence.sources
    as_of = evidence.snapshot.as_of
    statements = []
    if contract.dataset is None:
        statements.append(read_population_sql(pipeline, contract, as_of))
    if pipeline.features.changes is not None:
        fragments = {
            "since_at": literal(_EPOCH),
            "changed_keys": key_list(contract.key, "changes"),
            "changes_query": pipeline.features.changes.text,
        }
        statements.append(load_query("read_changes", fragments))
    server, database = place(run.source_url)
    found = {(server, f"{database}.{source.name}") for source in pipeline.sources}
    for statement in statements:
        session.execute("SAVEPOINT lineage")
        try:
            found |= {(server, f"{database}.{table}") for table in plans.explain(session, statement, "lineage").tables}
        finally:
            session.execute("ROLLBACK TO SAVEPOINT lineage")
    if contract.dataset is not None:
        scheme, _, path = _location(contract.dataset).partition("://")
        host, _, rest = path.partition("/")
        found.add((f"{scheme}://{host}", rest) if host else ("file", "/" + rest))
    return found


def _location(dataset: Any) -> str:
    """Return where the files of a dataset are, as a URL without what may be secret."""
    protocol = dataset.filesystem.protocol
    scheme = protocol if isinstance(protocol, str) else protocol[0]
    path = dataset.path.split("?", 1)[0]
    return f"file://{path}" if scheme in {"file", "local"} else f"{scheme}://{path}"


# Events: only here is the client imported -----------------------------------------------------------------------------


def _client(url: str) -> Any:
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    config: dict[str, Any] = {
        "url": url,
        "timeout": TIMEOUT,
        # No second try: the next run tells of itself, and a run that has ended waits for this.
        "retry": {"total": 0, "read": 0, "connect": 0, "status_forcelist": []},
    }
    if key := os.environ.get("OPENLINEAGE_API_KEY"):
        config["auth"] = {"type": "api_key", "apiKey": key}
    if endpoint := os.environ.get("OPENLINEAGE_ENDPOINT"):
        config["endpoint"] = endpoint
    transport = HttpTransport(HttpConfig.from_dict(config))
    return OpenLineageClient(transport=transport)


def build(event_type: str, told: Told, at: datetime) -> Any:
    """Return the event of the client for what is known of a run, at an instant."""
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import documentation_job, job_type_job

    facets: dict[str, Any] = {
        "jobType": job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="PRESCORE", jobType="BATCH_PREDICTION", producer=PRODUCER
        )
    }
    if told.description:
        facets["documentation"] = documentation_job.DocumentationJobFacet(
            description=told.description, producer=PRODUCER
        )
    return RunEvent(
        eventType=RunState[event_type],
        eventTime=at.isoformat(),
        run=Run(runId=run_uuid(told.server, told.database, told.run_id), facets=_run_facets(told)),
        job=Job(namespace=os.environ.get("OPENLINEAGE_NAMESPACE") or "prescore", name=told.pipeline, facets=facets),
        inputs=_input_datasets(told),
        outputs=_output_datasets(told),
        producer=PRODUCER,
    )


def _run_facets(told: Told) -> dict[str, Any]:
    from openlineage.client.facet_v2 import (
        error_message_run,
        nominal_time_run,
        processing_engine_run,
        tags_run,
        test_run,
    )

    version = metadata.version("prescore")
    words = {
        "run_id": told.run_id,
        "mode": told.mode,
        "trigger": told.trigger,
        "status": told.status,
        "generation": told.generation_id if told.status == "published" else None,
        "model": told.model,
        "model_version": told.model_version,
    }
    tags = [
        tags_run.TagsRunFacetFields(key=key, value=str(value), source="prescore")
        for key, value in words.items()
        if value not in (None, "")
    ]
    facets: dict[str, Any] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            version=version, name="prescore", producer=PRODUCER
        ),
        "tags": tags_run.TagsRunFacet(tags=tags, producer=PRODUCER),
    }
    if told.as_of is not None:
        facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(
            nominalStartTime=told.as_of.astimezone(UTC).isoformat(), producer=PRODUCER
        )
    if told.status not in {"running", "published"}:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=told.message or told.status, programmingLanguage="Python", producer=PRODUCER
        )
    if told.findings:
        tests = [_test(finding) for finding in told.findings]
        facets["test"] = test_run.TestRunFacet(tests=tests, producer=PRODUCER)
    return facets


def _test(finding: Finding) -> Any:
    from openlineage.client.facet_v2 import test_run

    return test_run.TestExecution(
        name=finding.label,
        status=_STATUS[finding.effective],
        severity="error" if finding.effective is Verdict.FAIL else "warn",
        type=finding.check_id,
        description=logs.without_secrets(finding.reason),
        expected=_number(finding.warn_limit if finding.fail_limit is None else finding.fail_limit),
        actual=_number(finding.observed),
    )


_STATUS = {Verdict.PASS: "pass", Verdict.WARN: "fail", Verdict.FAIL: "fail", Verdict.SKIPPED: "skip"}


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _input_datasets(told: Told) -> list[Any]:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import dataset_type_dataset, dataset_version_dataset

    found = [
        InputDataset(namespace=namespace, name=name, inputFacets=_assertions(told, name.partition(".")[2]))
        for namespace, name in told.inputs
    ]
    if told.model is not None:
        found.append(
            InputDataset(
                namespace=told.server,
                name=f"{told.database}.prescore.models.{told.model}",
                facets={
                    "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(datasetType="MODEL", producer=PRODUCER),
                    "version": dataset_version_dataset.DatasetVersionDatasetFacet(
                        datasetVersion=str(told.model_version), producer=PRODUCER
                    ),
                },
                inputFacets=_assertions(told, "model."),
            )
        )
    return found


def _assertions(told: Told, subject: str) -> dict[str, Any]:
    """Return the facet with what checks found of a source, or of the model."""
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality

    about = [
        finding
        for finding in told.findings
        if finding.effective is not Verdict.SKIPPED
        and (finding.check_id.startswith(subject) if subject == "model." else finding.subject == subject)
    ]
    if not about:
        return {}
    assertions = [
        quality.Assertion(
            assertion=finding.check_id,
            success=finding.effective is Verdict.PASS,
            severity="error" if finding.effective is Verdict.FAIL else "warn",
            name=finding.label,
            description=logs.without_secrets(finding.reason),
            actual=_number(finding.observed),
        )
        for finding in about
    ]
    return {
        "dataQualityAssertions": quality.DataQualityAssertionsDatasetFacet(assertions=assertions, producer=PRODUCER)
    }


def _output_datasets(told: Told) -> list[Any]:
    """Return the view of readers, once it was moved."""
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import (
        dataset_type_dataset,
        dataset_version_dataset,
        datasource_dataset,
        output_statistics_output_dataset,
        schema_dataset,
    )

    if told.status != "published":
        return []
    fields = [
        schema_dataset.SchemaDatasetFacetFields(name=name, type=sql_type, ordinal_position=position)
        for position, (name, sql_type) in enumerate(told.columns, start=1)
    ]
    return [
        OutputDataset(
            namespace=told.server,
            name=f"{told.database}.predictions.{told.pipeline}",
            facets={
                "schema": schema_dataset.SchemaDatasetFacet(fields=fields, producer=PRODUCER),
                "dataSource": datasource_dataset.DatasourceDatasetFacet(
                    name=told.server, uri=f"{told.server}/{told.database}", producer=PRODUCER
                ),
                "version": dataset_version_dataset.DatasetVersionDatasetFacet(
                    datasetVersion=str(told.generation_id), producer=PRODUCER
                ),
                "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(datasetType="VIEW", producer=PRODUCER),
            },
            outputFacets={
                "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                    rowCount=told.rows, producer=PRODUCER
                )
            },
        )
    ]
