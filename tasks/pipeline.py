"""One pipeline folder, read and validated into frozen types.

Validation is strict and complete: everything that is wrong in the folder is reported at once, with the key, what was
expected and found, and what to write instead. No user code runs before a function of it is asked for.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from tasks import fields, pipeline_code, schedule, usersql
from tasks.complaints import complaints, unknown_key
from tasks.declaration import (
    HISTORY_COLUMNS,
    Archive,
    Coverage,
    Drift,
    Entity,
    Execution,
    Features,
    Golden,
    History,
    Logic,
    Manual,
    Model,
    Output,
    Performance,
    Retention,
    Schedule,
    Serve,
    ServeTable,
    Source,
    Training,
    Unknown,
)
from tasks.digests import contract_digest, logic_digest
from tasks.errors import PipelineInvalid, PipelineNotFound, Problem, ScheduleInvalid, SqlInvalid
from tasks.usersql import Severity, UserQuery

if TYPE_CHECKING:
    import pandas as pd

    from tasks.settings import Settings

__all__ = [
    "Archive",
    "Coverage",
    "Drift",
    "Entity",
    "Execution",
    "Features",
    "Golden",
    "History",
    "Logic",
    "Manual",
    "Model",
    "Output",
    "Performance",
    "Pipeline",
    "Retention",
    "Schedule",
    "Serve",
    "Source",
    "Training",
    "Unknown",
    "UserQuery",
    "find_pipeline",
    "load_pipeline",
    "load_pipelines",
    "pipeline_names",
]

FILE = "pipeline.toml"

#: Every table of pipeline.toml; what it is when it is not there, when it may be left out.
_TABLES = (
    "description",
    "entity",
    "features",
    "model",
    "predictions",
    "training",
    "schedule",
    "serve",
    "source",
    "logic",
    "drift",
    "performance",
    "coverage",
    "unknown",
    "manual",
    "archive",
    "history",
    "retention",
    "execution",
)
_REQUIRED = {
    "entity": 'write [entity] with key = ["customer_id"] and query, the SELECT of all of them',
    "features": 'write [features] with query = "features.sql", or dataset with Parquet files',
    "predictions": 'write [predictions] with a column such as probability = { method = "predict_proba", class = "1" }',
}

# The limits of a pipeline that declares none, as multiples of the full schedule's period, and those
# of one without a full schedule.
_AGING_PERIODS, _STALE_PERIODS = 1.5, 2
_AGING_AFTER, _STALE_AFTER = timedelta(hours=26), timedelta(hours=36)
_SERVE_STALE_FOR = timedelta(hours=72)

_Declared = TypeVar("_Declared", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One declared batch prediction: entities, features, model, predictions, promise and schedules."""

    #: Name of the folder.
    name: str
    folder: Path
    description: str = ""
    entity: Entity
    features: Features
    model: Model
    predictions: tuple[Output, ...]
    training: Training | None = None
    schedule: Schedule = field(default_factory=Schedule)
    serve: Serve
    sources: tuple[Source, ...] = ()
    logic: Logic = field(default_factory=Logic)
    drift: Drift = field(default_factory=Drift)
    performance: Performance = field(default_factory=Performance)
    coverage: Coverage = field(default_factory=Coverage)
    unknown: Unknown = field(default_factory=Unknown)
    manual: Manual = field(default_factory=Manual)
    archive: Archive | None = None
    history: History | None = None
    retention: Retention = field(default_factory=Retention)
    execution: Execution = field(default_factory=Execution)
    #: SHA-256 of what decides predictions, and of everything else that is declared; see digests.py.
    logic_digest: str = ""
    contract_digest: str = ""
    #: pipeline.toml as it was read.
    contract_text: str = ""
    #: What is allowed and may surprise, one sentence each.
    warnings: tuple[str, ...] = ()

    def preprocess_function(self) -> Callable[[pd.DataFrame], pd.DataFrame] | None:
        """Import the preprocessing function, or return None when there is none.

        Where fingerprints are kept its frame has no as_of: rows with the same features must get the same prediction.

        Raises
        ------
        PipelineCodeFailed
            When its file cannot be imported.
        """
        function = self._function(self.features.preprocess)
        if function is None or not self.features.fingerprint:
            return function
        return lambda frame: function(frame.drop(columns=["as_of"]))

    def estimator_function(self) -> Callable[[], Any] | None:
        """Import the function that builds an unfitted estimator, or return None when there is none.

        Raises
        ------
        PipelineCodeFailed
            When its file cannot be imported.
        """
        return self._function(None if self.training is None else self.training.estimator)

    def model_module(self) -> ModuleType | None:
        """Import model.py as ``prescore_pipelines.<name>.model``, or return None when there is none.

        Raises
        ------
        PipelineCodeFailed
            When it cannot be imported.
        """
        if not (self.folder / "model.py").is_file():
            return None
        return pipeline_code.import_file(self.name, self.folder, "model.py")

    def _function(self, reference: str | None) -> Callable[..., Any] | None:
        return None if reference is None else pipeline_code.import_function(self.name, self.folder, reference)


def find_pipeline(settings: Settings, name: str) -> Pipeline:
    """Return the pipeline of this name.

    Raises
    ------
    PipelineNotFound
        Naming the nearest one and those that are there.
    PipelineInvalid
        When its folder declares no pipeline.
    """
    folders = _folders(settings.pipelines_dir)
    # A folder without pipeline.toml is worth a better answer than that there is no such pipeline.
    if name in folders or (fields.name_problem(name) is None and (settings.pipelines_dir / name).is_dir()):
        return load_pipeline(settings.pipelines_dir / name)
    there = f"there are {', '.join(folders)}" if folders else "there is none"
    near = fields.nearest(name, list(folders)) or "."
    raise PipelineNotFound(
        f'There is no pipeline "{name}" in {settings.pipelines_dir}{near} '
        f"{there[0].upper() + there[1:]}. Nothing was run. A pipeline is a folder with {FILE}; PRESCORE_PIPELINES "
        "names the folder that holds it."
    )


def pipeline_names(directory: Path) -> list[str]:
    """Return the names of the pipeline folders below ``directory``, valid or not."""
    return list(_folders(directory))


def load_pipelines(directory: Path) -> dict[str, Pipeline]:
    """Return every pipeline of a directory by its name; folders without pipeline.toml are none.

    Raises
    ------
    PipelineNotFound
        When there is no such directory.
    PipelineInvalid
        Listing the problems of all of them.
    """
    pipelines: dict[str, Pipeline] = {}
    problems: list[Problem] = []
    broken: list[str] = []
    for name, folder in _folders(directory).items():
        try:
            pipelines[name] = load_pipeline(folder)
        except PipelineInvalid as error:
            problems.extend(error.problems)
            broken.append(name)
    if problems:
        raise PipelineInvalid(", ".join(broken), problems)
    return pipelines


def load_pipeline(folder: Path, contract: Path | None = None) -> Pipeline:
    """Return the pipeline that a folder declares; with ``contract``, as if that file were its pipeline.toml.

    Raises
    ------
    PipelineNotFound
        When there is no such folder.
    PipelineInvalid
        Listing everything that is wrong in it.
    """
    # The name is that of the path as given: a link may point to a folder with another name.
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        raise PipelineNotFound(
            f"There is no folder {folder}. Nothing was run. Check the path, or PRESCORE_PIPELINES, which names the "
            "folder that holds the pipelines."
        )
    reading = _Reading(folder, contract)
    name_problem = fields.name_problem(reading.name, suffixes=True)
    if name_problem:
        reading.add("", f"the folder's name is the pipeline's: {name_problem}")
    text = reading.text()
    raw = None if text is None else reading.toml(text)
    for file, message in pipeline_code.code_problems(folder):
        reading.problems.append(Problem(place=f"{reading.name}/{file}", message=message))
    pipeline = None if raw is None or text is None else reading.pipeline(raw, text)
    if reading.problems or pipeline is None:
        raise PipelineInvalid(reading.name, reading.problems)
    return pipeline


def _folders(directory: Path) -> dict[str, Path]:
    if not directory.is_dir():
        raise PipelineNotFound(
            f"There is no folder {directory}. Nothing was run. Set PRESCORE_PIPELINES to the folder that holds the "
            "pipelines."
        )
    return {path.name: path for path in sorted(directory.iterdir()) if (path / FILE).is_file()}


class _Reading:
    """One look at a folder, with the problems that were found on the way."""

    def __init__(self, folder: Path, contract: Path | None = None) -> None:
        self.folder = folder
        self.name = folder.name
        self.file = contract or folder / FILE
        self.label = f"{self.name}/{FILE}" if contract is None else str(contract)
        self.problems: list[Problem] = []

    def add(self, key: str, message: str) -> None:
        place = f"{self.label} {key}".rstrip()
        self.problems.append(Problem(place=place, message=message))

    def text(self) -> str | None:
        try:
            return self.file.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            there = ", ".join(pipeline_code.files(self.folder)) or "nothing"
            self.add("", f"there is no such file; the folder holds {there}. Write one, or name another folder")
        except UnicodeDecodeError as error:
            self.add("", f"is not UTF-8 at byte {error.start}; save it as UTF-8")
        except OSError as error:
            self.add("", f"cannot be read: {error.strerror}")
        return None

    def toml(self, text: str) -> dict[str, Any] | None:
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            reason, _, place = str(error).partition(" (at ")
            line = place.split(",")[0] if place.startswith("line ") else ""
            self.add(
                line, f"is no TOML: {reason[:1].lower() + reason[1:]}{'' if line else ' ' + place.rstrip(')')}".rstrip()
            )
        return None

    def pipeline(self, raw: Mapping[str, Any], text: str) -> Pipeline | None:
        for key in raw:
            if key not in _TABLES:
                shown = fields.show_key(key)
                self.add(f"[{shown}]" if isinstance(raw[key], dict) else shown, unknown_key(key, _TABLES))
        description = raw.get("description", "")
        if not isinstance(description, str) or "\x00" in description:
            self.add("description", f"expected a text in quotes without NUL, found {fields.show(description)}")
        plan = self.table(Schedule, "schedule", raw)
        entity, outputs = self.table(Entity, "entity", raw), self.predictions(raw)
        training = self.table(Training, "training", raw) if "training" in raw else None
        logic = self.table(Logic, "logic", raw)
        declared: dict[str, Any] = {
            "name": self.name,
            "folder": self.folder,
            "description": description,
            "entity": entity,
            "features": self.table(Features, "features", raw),
            "model": self.table(
                Model, "model", raw, {"name": self.name if fields.name_problem(self.name) is None else "unnamed"}
            ),
            "predictions": outputs,
            "training": training,
            "schedule": plan,
            "serve": self.serve(raw, plan),
            "sources": self.sources(raw),
            "logic": logic,
            "drift": self.table(Drift, "drift", raw),
            "performance": self.table(Performance, "performance", raw),
            "coverage": self.table(Coverage, "coverage", raw),
            "unknown": self.table(Unknown, "unknown", raw),
            "manual": self.table(Manual, "manual", raw),
            "archive": self.table(Archive, "archive", raw) if "archive" in raw else None,
            "history": self.table(History, "history", raw) if "history" in raw else None,
            "retention": self.table(Retention, "retention", raw),
            "execution": self.table(Execution, "execution", raw),
            "contract_text": text,
        }
        self.names(entity, outputs, training, kept=declared["history"] is not None)
        self.judged_output(declared["performance"], outputs)
        self.kept_samples(declared["performance"], declared["retention"])
        further = self.logic_files(logic)
        if self.problems:
            return None
        pipeline = Pipeline(**declared)
        try:
            digests = (logic_digest(pipeline, further), contract_digest(pipeline))
        except SqlInvalid as error:
            self.problems.append(Problem(place=f"{self.name}/{error.origin}", message=error.reason))
            return None
        return replace(
            pipeline, logic_digest=digests[0], contract_digest=digests[1], warnings=tuple(_warnings(pipeline))
        )

    def table(
        self, model: type[_Declared], key: str, raw: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> _Declared | None:
        if key not in raw and key in _REQUIRED:
            self.add(f"[{key}]", f"missing: {_REQUIRED[key]}")
            return None
        return self.validated(model, f"[{key}]", raw.get(key, {}), defaults)

    def validated(
        self, model: type[_Declared], place: str, value: object, defaults: Mapping[str, Any] | None = None
    ) -> _Declared | None:
        if not isinstance(value, dict):
            self.add(place, f"expected a table, found {fields.show(value)}")
            return None
        try:
            return model.model_validate({**(defaults or {}), **value}, context=fields.Place(folder=self.folder))
        except ValidationError as error:
            self.problems.extend(complaints(error, model, self.name, f"{self.label} {place}"))
            return None

    def predictions(self, raw: Mapping[str, Any]) -> tuple[Output, ...] | None:
        if raw.get("predictions", {}) == {}:
            self.add("[predictions]", f"missing: {_REQUIRED['predictions']}")
            return None
        declared = raw["predictions"]
        if not isinstance(declared, dict):
            self.add("[predictions]", f"expected a table, found {fields.show(declared)}")
            return None
        outputs = []
        for name, value in declared.items():
            place = f"[predictions] {fields.show_key(name)}"
            if isinstance(value, dict) and {"name", "class_"} & set(value):
                known = [key for key in Output.model_fields if key not in {"name", "class_"}]
                for key in sorted({"name", "class_"} & set(value)):
                    self.add(f"{place}.{key}", unknown_key(key, ["class", *known]))
                continue
            outputs.append(self.validated(Output, place, value, {"name": name}))
        return tuple(output for output in outputs if output is not None)

    def serve(self, raw: Mapping[str, Any], plan: Schedule | None) -> Serve | None:
        declared = self.table(ServeTable, "serve", raw)
        if declared is None or plan is None:
            return None
        try:
            limits = _limits(declared, plan)
        except ScheduleInvalid as error:
            self.add("[schedule] full", str(error))
            return None
        return self.validated(Serve, "[serve]", {**limits, "on_expired": declared.on_expired})

    def sources(self, raw: Mapping[str, Any]) -> tuple[Source, ...] | None:
        declared = raw.get("source", [])
        if not isinstance(declared, list):
            self.add("[source]", "expected [[source]], in double brackets: there may be several")
            return None
        sources: list[Source] = []
        for at, value in enumerate(declared, start=1):
            named = value.get("name") if isinstance(value, dict) else None
            label = named if isinstance(named, str) and named.strip() else f"number {at}"
            source = self.validated(Source, f"[[source]] {label}", value)
            if source is not None and source.name in {known.name for known in sources}:
                self.add(f"[[source]] {label}", "is declared twice; keep one of the two")
            elif source is not None:
                sources.append(source)
        return tuple(sources)

    def judged_output(self, performance: Performance | None, outputs: tuple[Output, ...] | None) -> None:
        names = [output.name for output in outputs or ()]
        if performance is not None and performance.output is not None and names and performance.output not in names:
            shown = fields.show(performance.output)
            self.add("[performance] output", f"{shown} is none of the outputs in [predictions]: {', '.join(names)}")

    def kept_samples(self, performance: Performance | None, retention: Retention | None) -> None:
        if performance is None or performance.maturity is None or retention is None:
            return
        needed = performance.maturity + performance.window
        for key, kept in (("samples", retention.samples), ("runs", retention.runs)):
            if kept is not None and kept < needed:
                self.add(
                    f"[retention] {key}",
                    f"{fields.write_duration(kept)} is less than [performance] maturity and window together, "
                    f"{fields.write_duration(needed)}: labels would come when their predictions are gone; keep them for longer",
                )

    def names(
        self, entity: Entity | None, outputs: tuple[Output, ...] | None, training: Training | None, *, kept: bool
    ) -> None:
        if entity is not None and training is not None and training.labels is not None and "label" in entity.key:
            self.add("[entity] key", 'names "label", which is the column of the labels; give it another name with AS')
        if kept:
            names = [*(() if entity is None else entity.key), *(output.name for output in outputs or ())]
            for name in sorted(set(names) & HISTORY_COLUMNS):
                self.add(
                    "[history]", f"has a column {name} itself; give the key or the output of this name another one"
                )
        for output in outputs or ():
            if entity is not None and output.name in entity.key:
                self.add(f"[predictions] {output.name}", "is the name of a key column too; choose another name")

    def logic_files(self, logic: Logic | None) -> list[str]:
        found: set[str] = set()
        for pattern in () if logic is None else logic.files:
            try:
                matching = pipeline_code.files(self.folder, pattern)
            except (ValueError, NotImplementedError, IndexError):
                matching = []
            if not matching:
                there = ", ".join(pipeline_code.files(self.folder))
                self.add("[logic] files", f'"{pattern}" matches no file of the folder, which holds {there}')
            found.update(matching)
        return sorted(found)


def _limits(declared: ServeTable, plan: Schedule) -> dict[str, timedelta]:
    """Return the promise: what is declared, and in its absence what the full schedule suggests.

    When one of two limits is declared and the other's default is on its wrong side, the other follows in proportion.
    """
    if plan.full:
        period = schedule.period(plan.full, plan.timezone)
        aging, stale = period * _AGING_PERIODS, period * _STALE_PERIODS
    else:
        aging, stale = _AGING_AFTER, _STALE_AFTER
    share = aging / stale
    aging_after, stale_after = declared.aging_after, declared.stale_after
    if aging_after is None:
        aging_after = aging if stale_after is None or aging <= stale_after else _seconds(stale_after * share)
    if stale_after is None:
        stale_after = stale if aging_after <= stale else _seconds(aging_after / share)
    return {
        "aging_after": aging_after,
        "stale_after": stale_after,
        "serve_stale_for": declared.serve_stale_for or _SERVE_STALE_FOR,
    }


def _seconds(duration: timedelta) -> timedelta:
    return max(timedelta(seconds=1), timedelta(seconds=round(duration.total_seconds())))


def _warnings(pipeline: Pipeline) -> list[str]:
    """Return what is allowed and may surprise."""
    found = []
    place, plan = f"{pipeline.name}/{FILE}", pipeline.schedule
    if not pipeline.sources and pipeline.features.dataset is None:
        found.append(
            f"{place} [[source]]: none is declared, so that data counts as being as new as the run that read it. "
            "Declare the tables that the features read"
        )
    if plan.full:
        between = schedule.period(plan.full, plan.timezone)
        grace = plan.grace_for("full") or timedelta(0)
        if between + grace > pipeline.serve.stale_after:
            write = fields.write_duration
            found.append(
                f"{place} [serve] stale_after: {write(pipeline.serve.stale_after)} is less than the "
                f"{write(between)} between two full runs and the grace of {write(grace)}, so that predictions turn "
                "stale before the next run is late. Raise it, or run more often"
            )
    counted = [source.name for source in pipeline.sources if source.rows is not None]
    if counted and not plan.full and not plan.incremental:
        found.append(
            f"{place} [[source]] {', '.join(counted)}.rows: no schedule is declared, and only what a schedule published says "
            "what is usual. Add [schedule], or remove rows"
        )
    together = schedule.first_shared(plan.full, plan.incremental) if plan.full and plan.incremental else None
    if together is not None:
        found.append(
            f"{place} [schedule] incremental: at {together} it fires in the same minute as full. The incremental run is "
            "skipped then, or the full one waits for it. Choose minutes that full does not use"
        )
    if plan.incremental and pipeline.features.changes is None and not pipeline.features.fingerprint:
        found += _unnoticed(pipeline, place)
    if pipeline.features.time_invariant and pipeline.features.valid_for is not None:
        found.append(
            f"{place} [features] valid_for: features that do not depend on as_of need no renewal. Remove valid_for or "
            "time_invariant"
        )
    for query, supplied in _queries(pipeline):
        sampling = pipeline.training is not None and query is pipeline.training.labels
        for finding in usersql.judge(query, supplied, sampling=sampling):
            if finding.severity is Severity.WARNING:
                found.append(f"{pipeline.name}/{finding.message}")
    for source in pipeline.sources:
        for finding in usersql.judge_condition(source.filter) if source.filter else ():
            found.append(f"{place} [[source]] {source.name}.filter: {finding.sentence}")
    return found


def _unnoticed(pipeline: Pipeline, place: str) -> list[str]:
    """Return what an incremental run will not notice for want of a query that says what changed."""
    dataset = pipeline.features.dataset
    if dataset is None:
        return [
            f"{place} [features] changes: incremental runs are scheduled and no query says what changed, so that they "
            "score new and due entities only. Add changes.sql, or declare fingerprint = true"
        ]
    if dataset.changes_by is not None:
        return []
    return [
        f"{place} [features] dataset: incremental runs are scheduled and nothing says which rows changed, so that they are full "
        "whenever its files changed. Declare updated_at"
    ]


def _queries(pipeline: Pipeline) -> list[tuple[UserQuery, str]]:
    listed = [
        (pipeline.entity.query, "run"),
        (pipeline.features.query, "batch"),
        (pipeline.features.changes, "since"),
        (None if pipeline.training is None else pipeline.training.labels, "run"),
    ]
    return [(query, supplied) for query, supplied in listed if query is not None]
