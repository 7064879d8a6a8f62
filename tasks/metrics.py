"""Metrics: health as numbers for a scraper, in OpenMetrics text or in the older text format of Prometheus.

Read with one connection and rights on the views of health alone; importing it loads neither SQLAlchemy nor a model library.
Names, labels and units stay: dashboards and alarms of others rest on them. Labels hold names that somebody declared and
words of prescore's own, never a key or a value, so that there are as many series as pipelines times a constant.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric, StateSetMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from tasks.alarms import CannotLook, load_statement, onlooker
from tasks.errors import PrescoreError
from tasks.settings import Settings

OPENMETRICS, PROMETHEUS = "openmetrics", "prometheus"
FORMATS = (OPENMETRICS, PROMETHEUS)

#: States of a pipeline, and of a row as a reader sees it (which may also be rejected or superseded).
STATES = ("missing", "fresh", "aging", "stale", "expired", "quarantined", "clock_error")
ROW_STATES = ("fresh", "aging", "stale", "expired", "rejected", "superseded", "quarantined", "clock_error")
STATUSES = ("running", "published", "held", "aborted", "failed", "crashed", "cancelled")
CLASSES = ("guard", "gauge", "clock")
EFFECTS = ("pass", "warn", "fail", "skipped")
DISPOSITIONS = ("publish", "publish_flagged", "hold", "abort")
# In these no prediction of the pipeline may be used.
_HIDING = frozenset({"expired", "quarantined", "clock_error"})


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one look found: rows of the queries, all of one snapshot. ``up`` is False where nothing could be read."""

    up: bool
    #: Why not.
    problem: str = ""
    installation: Any = None
    pipelines: Sequence[Any] = ()
    runs: Sequence[Any] = ()
    checks: Sequence[Any] = ()
    drifts: Sequence[Any] = ()
    storages: Sequence[Any] = ()
    schedules: Sequence[Any] = ()
    #: Pipeline -> state of a row -> rows; only where they were counted.
    counted: dict[str, dict[str, int]] = field(default_factory=dict)


def read(settings: Settings, *, count_rows: bool = False) -> Reading:
    """Look once. A database that does not answer, or shows less than it should, is a reading too.

    ``count_rows`` reads every row of each view of predictions, and needs the rights of a reader.
    """
    try:
        with onlooker(settings, "prescore metrics") as cursor:

            def ask(statement: str) -> list[Any]:
                cursor.execute(statement)
                return list(cursor.fetchall())

            pipelines = ask(load_statement("read_pipeline_metrics"))
            return Reading(
                up=True,
                installation=ask(load_statement("read_installation_metrics"))[0],
                pipelines=pipelines,
                runs=ask(load_statement("read_run_metrics")),
                checks=ask(load_statement("read_check_metrics")),
                drifts=ask(load_statement("read_drift_metrics")),
                storages=ask(load_statement("read_storage_metrics")),
                schedules=ask(load_statement("read_schedule_metrics")),
                counted=_count(ask, pipelines) if count_rows else {},
            )
    except CannotLook as error:
        return Reading(up=False, problem=str(error))


def write(reading: Reading, form: str = OPENMETRICS) -> str:
    """Return a reading as text: ``openmetrics``, or ``prometheus`` for what cannot read that (node_exporter's files)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(reading))
    text: bytes = (generate_openmetrics if form == OPENMETRICS else generate_latest)(registry)
    return text.decode("utf-8")


def content_type(form: str) -> str:
    """Return what an HTTP answer calls the text."""
    return str(CONTENT_TYPE_LATEST if form == OPENMETRICS else CONTENT_TYPE_PLAIN_0_0_4)


def form_of(path: Path | None) -> str:
    """Return the format that a file's readers understand: node_exporter takes ``*.prom``, and no OpenMetrics."""
    return PROMETHEUS if path is not None and path.suffix == ".prom" else OPENMETRICS


def replace_file(path: Path, text: str) -> None:
    """Write a file as a whole or not at all, readable for everybody: a scraper sees the old one or the new one.

    Raises
    ------
    PrescoreError
        The old file is still there.
    """
    try:
        # In the same folder, or else it could not be moved in one step; a name that no collector takes.
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise PrescoreError(
            f"The metrics could not be written to {path}: {error.strerror or type(error).__name__}. A file that was there is "
            "unchanged. Name a file in a folder that this user may write to."
        ) from None


class _Told(Collector):
    """A reading as prometheus_client wants it."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterable[Metric]:
        """Yield the families, installation first."""
        return families(self._reading)


def families(reading: Reading) -> Iterator[Metric]:
    """Yield what is measured: of the installation, then of each pipeline."""
    up = _Gauge("prescore_up", "Whether the database answered and its health could be read: 1 or 0.")
    up.add({}, float(reading.up))
    yield from up.told()
    build = InfoMetricFamily("prescore_build", "Version of prescore that reads.")
    build.add_metric([], {"version": metadata.version("prescore")})
    yield build
    shipped = _Gauge("prescore_migrations_shipped", "Migrations that this prescore brings.")
    shipped.add({}, _shipped())
    yield from shipped.told()
    if not reading.up:
        return
    yield from _of_installation(reading.installation)
    yield from _of_promises(reading)
    yield from _of_rows(reading)
    yield from _of_runs(reading)
    yield from _of_checks(reading)
    yield from _of_models(reading)
    yield from _of_storages(reading)


class _Gauge:
    """A gauge whose samples are left out where there is nothing to measure."""

    def __init__(self, name: str, says: str, unit: str = "") -> None:
        self._family = GaugeMetricFamily(name, says)
        if unit:
            # Told of the whole name, which ends in it: prometheus_client would add it again.
            self._family.unit = unit

    def add(self, labels: dict[str, str], value: Any) -> None:
        """Add a sample; None is none."""
        if value is not None:
            self._family.add_sample(self._family.name, labels, float(value))

    def told(self) -> Iterator[Metric]:
        """Yield the family if it has samples."""
        if self._family.samples:
            yield self._family


def _of_installation(found: Any) -> Iterator[Metric]:
    database = InfoMetricFamily("prescore_database", "The server, and the newest migration of its schema.")
    database.add_metric([], {"server_version": found.server_version, "last_migration": found.last_migration or ""})
    yield database
    yield from _single("prescore_migrations_applied", "Migrations that the database has.", found.migrations)
    yield from _single(
        "prescore_clock_timestamp_seconds", "The clock that freshness was judged by.", found.now, "seconds"
    )


def _of_promises(reading: Reading) -> Iterator[Metric]:
    rows = reading.pipelines
    yield _states("prescore_pipeline_state", "What a reader of an ordinary row sees.", STATES, rows, "state")
    yield from _each(rows, "prescore_data_age_seconds", "How old the data is that predictions rest on.", "age")
    yield from _each(rows, "prescore_data_timestamp_seconds", "That data's instant: data_as_of.", "data_as_of")
    for name, attribute in (("aging", "until_aging"), ("stale", "until_stale"), ("expired", "until_expired")):
        says = f"Time until predictions are {name}; negative once they are."
        yield from _each(rows, f"prescore_until_{name}_seconds", says, attribute)
    says = "When what is served was published, by the real clock."
    yield from _each(rows, "prescore_published_timestamp_seconds", says, "published_at")
    yield from _each(rows, "prescore_overdue", "Whether a scheduled publication is missing: 1 or 0.", "overdue")
    late = _Gauge("prescore_schedule_late_seconds", "Time since a tick that no publication covers; else 0.", "seconds")
    for row in reading.schedules:
        late.add({"pipeline": row.pipeline, "mode": row.mode}, row.late)
    yield from late.told()
    yield from _each(rows, "prescore_pinned", "Whether a rollback refuses runs: 1 or 0.", "pinned")


def _of_rows(reading: Reading) -> Iterator[Metric]:
    served = _Gauge(
        "prescore_rows", "Rows that are served, by what readers get of them; by the state of the publication."
    )
    for row in reading.pipelines:
        if row.rows is None:
            continue
        named = {"pipeline": row.pipeline}
        rejected = row.rejected or 0
        hiding = row.state in _HIDING
        served.add({**named, "readers": "rejected"}, rejected)
        # Which rows are of a generation that was quarantined since, only counting them would tell.
        if hiding or not row.quarantined_generations:
            served.add({**named, "readers": "usable"}, 0 if hiding else row.rows - rejected)
            served.add({**named, "readers": "hidden"}, row.rows - rejected if hiding else 0)
    yield from served.told()
    counted = _Gauge("prescore_rows_by_state", "Rows by the state that a reader sees of each, counted one by one.")
    for pipeline, states in reading.counted.items():
        for state in ROW_STATES:
            counted.add({"pipeline": pipeline, "state": state}, states.get(state, 0))
    yield from counted.told()


def _of_runs(reading: Reading) -> Iterator[Metric]:
    rows = reading.pipelines
    yield _states("prescore_last_run_status", "The last run that was not skipped.", STATUSES, rows, "last_run_status")
    yield from _each(
        rows, "prescore_last_run_timestamp_seconds", "When that run began, by the real clock.", "last_run_at"
    )
    of_ended = "of the last run that ended and was not skipped"
    yield from _each(rows, "prescore_run_duration_seconds", f"Duration {of_ended}.", "seconds")
    yield from _each(
        rows, "prescore_run_rows_per_second", f"Rows read, scored and written a second {of_ended}.", "rows_per_second"
    )
    cpu = _Gauge("prescore_run_cpu_seconds", f"CPU time {of_ended}, by where it went.", "seconds")
    entities = _Gauge("prescore_run_entities", f"Entities {of_ended}, by what became of them.")
    for row in rows:
        named = {"pipeline": row.pipeline}
        cpu.add({**named, "process": "python"}, row.cpu_seconds)
        cpu.add({**named, "process": "postgres"}, row.postgres_cpu_seconds)
        for result, count in (("scored", row.scored), ("unchanged", row.unchanged), ("rejected", row.run_rejected)):
            entities.add({**named, "result": result}, count)
    yield from cpu.told()
    yield from entities.told()
    yield from _each(rows, "prescore_run_peak_memory_bytes", f"Peak memory {of_ended}.", "peak_memory")
    says = "Runs that were held, aborted, failed or crashed since the last that published."
    yield from _each(rows, "prescore_consecutive_failures", says, "failures")
    yield from _each(rows, "prescore_run_hung", "Whether a run gave no sign of life for five minutes: 1 or 0.", "hung")
    recent = _Gauge("prescore_recent_runs", "Runs that began in the last 24 hours, by how they ended.")
    found = {(row.pipeline, row.status): row.runs for row in reading.runs}
    for row in rows:
        for status in (*STATUSES, "skipped"):
            recent.add({"pipeline": row.pipeline, "status": status}, found.get((row.pipeline, status), 0))
    yield from recent.told()


def _of_checks(reading: Reading) -> Iterator[Metric]:
    judged = "in the last run that was judged"
    checks = _Gauge("prescore_checks", f"Checks {judged}, by their class and what their verdicts count as.")
    unknown = _Gauge("prescore_unknown_checks", f"Checks {judged} that could not answer, by their class.")
    follows = _Gauge("prescore_check_dispositions", f"Checks {judged}, by what each alone would have follow.")
    for pipeline in dict.fromkeys(row.pipeline for row in reading.checks):
        mine = [row for row in reading.checks if row.pipeline == pipeline]
        named = {"pipeline": pipeline}
        for class_ in CLASSES:
            of_class = [row for row in mine if row.check_class == class_]
            for effect in EFFECTS:
                count = sum(row.checks for row in of_class if row.effective == effect)
                checks.add({**named, "class": class_, "verdict": effect}, count)
            unknown.add({**named, "class": class_}, sum(row.checks for row in of_class if row.verdict == "unknown"))
        for disposition in DISPOSITIONS:
            count = sum(row.checks for row in mine if row.disposition == disposition)
            follows.add({**named, "disposition": disposition}, count)
    for family in (checks, unknown, follows):
        yield from family.told()
    psi = _Gauge("prescore_drift_psi", "Population stability index of the column that drifted most, by check.")
    ratio = _Gauge(
        "prescore_drift_limit_ratio", "The same in multiples of the column's warning limit: from 1 on it warns."
    )
    for row in reading.drifts:
        labels = {"pipeline": row.pipeline, "check": row.check_id}
        psi.add(labels, row.observed)
        ratio.add(labels, row.of_limit)
    yield from psi.told()
    yield from ratio.told()


def _of_models(reading: Reading) -> Iterator[Metric]:
    served = InfoMetricFamily("prescore_model", "The model version that is served, and the alias that is followed.")
    for row in reading.pipelines:
        if row.served_version is not None:
            served.add_metric(
                [],
                {"pipeline": row.pipeline, "model": row.model, "alias": row.alias, "version": str(row.served_version)},
            )
    if served.samples:
        yield served
    rows = reading.pipelines
    yield from _each(rows, "prescore_model_version", "Version that is served.", "served_version")
    yield from _each(rows, "prescore_model_age_seconds", "Time since the end of its training data.", "model_age")
    yield from _each(rows, "prescore_model_size_bytes", "Size of its bundle.", "model_bytes")
    yield from _each(
        rows, "prescore_model_pending", "Whether the alias names another version: 1 or 0.", "model_pending"
    )


def _of_storages(reading: Reading) -> Iterator[Metric]:
    size = _Gauge("prescore_storage_bytes", "Table and indexes of a storage, when PostgreSQL last looked.", "bytes")
    dead = _Gauge("prescore_storage_dead_rows", "Rows of a storage that updates and deletes left behind.")
    bloat = _Gauge("prescore_storage_bloat_ratio", "How many times what they need the served rows take.", "ratio")
    for row in reading.storages:
        labels = {"pipeline": row.pipeline, "role": row.role}
        size.add(labels, row.bytes)
        dead.add(labels, row.dead_rows)
        bloat.add({"pipeline": row.pipeline}, row.bloat)
    for family in (size, dead, bloat):
        yield from family.told()


def _single(name: str, says: str, value: Any, unit: str = "") -> Iterator[Metric]:
    gauge = _Gauge(name, says, unit)
    gauge.add({}, value)
    return gauge.told()


def _each(rows: Sequence[Any], name: str, says: str, attribute: str) -> Iterator[Metric]:
    """Yield a gauge with a sample for each pipeline; its unit is what the name ends in."""
    unit = name.rpartition("_")[2]
    gauge = _Gauge(name, says, unit if unit in {"seconds", "bytes"} else "")
    for row in rows:
        gauge.add({"pipeline": row.pipeline}, getattr(row, attribute))
    return gauge.told()


def _states(name: str, says: str, states: Sequence[str], rows: Sequence[Any], attribute: str) -> Metric:
    """Return a set of states, of which each pipeline has one, or none yet."""
    family = StateSetMetricFamily(name, says, labels=["pipeline"])
    for row in rows:
        now = getattr(row, attribute)
        if now is not None:
            family.add_metric([row.pipeline], {state: state == now for state in states})
    return family


def _count(ask: Any, pipelines: Sequence[Any]) -> dict[str, dict[str, int]]:
    """Count the rows of each pipeline that has published, by state."""
    statement = load_statement("count_rows_by_state")
    counted = {}
    for row in pipelines:
        if row.rows is not None:
            view = '"predictions"."' + row.pipeline.replace('"', '""') + '"'
            counted[row.pipeline] = {found.state: found.rows for found in ask(statement.replace("{view}", view))}
    return counted


def _shipped() -> int:
    return sum(1 for path in (resources.files("sql") / "migrations").iterdir() if path.name.endswith(".sql"))
