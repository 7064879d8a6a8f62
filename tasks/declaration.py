"""The tables of pipeline.toml as frozen types.

Each value is checked by its type (fields.py), each table as a whole here, and what spans tables in pipeline.py.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pglast.keywords import RESERVED_KEYWORDS, TYPE_FUNC_NAME_KEYWORDS
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from tasks import schedule
from tasks.fields import (
    ColumnName,
    Crons,
    Disposition,
    Duration,
    DurationOrZero,
    Limits,
    Name,
    Patterns,
    Share,
    Slot,
    Span,
    TableName,
    Texts,
    Zone,
    alone_as_url,
    archive_url,
    column_name,
    dataset_url,
    function_field,
    hits_of_runs,
    name_problem,
    parse_duration,
    positive,
    query_field,
    show,
    sql_condition,
    times,
    write_duration,
)
from tasks.usersql import UserQuery

#: Columns that every view and table of a pipeline has; design sections 7 and 13.
OWN_COLUMNS = frozenset(
    {
        "state",
        "age",
        "data_as_of",
        "as_of",
        "aging_at",
        "stale_at",
        "expires_at",
        "cache_for",
        "reasons",
        "model_version",
        "scored_in",
        "rejected",
        "storage_id",
    }
)
#: Columns that the view of a history has beside those of the key and the outputs, and the parameter of its functions.
HISTORY_COLUMNS = frozenset(
    {"seen_from", "seen_until", "withheld", "verdict", "serve_expired", "published_data_as_of", "seen_at"}
)
#: Columns that PostgreSQL gives to every table; no other may have their names.
_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
#: The other parameter of predictions.<pipeline>_for(<key>, max_stale).
_PARAMETERS = frozenset({"max_stale"})
#: Columns that stand beside the key in the statements that select a population.
_WORKING_COLUMNS = frozenset(
    {
        "why",
        "is_changed",
        "is_there",
        "served_as_of",
        "is_hidden",
        "prescore_hash",
        "prescore_served",
        "prescore_due",
        "prescore_found",
        "prescore_fingerprint",
    }
)


class _Table(BaseModel):
    """A table of pipeline.toml: an unknown key is refused, no value is converted, nothing changes afterwards."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_by_name=True, validate_by_alias=True
    )


# The tables ---------------------------------------------------------------------------------------------------------


def _key_columns(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError('expected at least one column, such as key = ["customer_id"]')
    for name in names:
        column_name(name)
        if names.count(name) > 1:
            raise ValueError(f"names the column {show(name)} more than once; name it once")
        if ":" in name:
            raise ValueError(
                f"{show(name)} holds a colon, which marks a parameter; give it another name with AS in the queries"
            )
        if name in OWN_COLUMNS | _SYSTEM_COLUMNS | _PARAMETERS | _WORKING_COLUMNS:
            raise ValueError(
                f"{show(name)} is a column or parameter that prescore or PostgreSQL has itself; give it another name "
                "with AS in the queries"
            )
    return names


class Entity(_Table):
    """Who gets a prediction."""

    #: Names of the key columns, in order.
    key: Annotated[Texts, AfterValidator(_key_columns)]
    #: Returns the key of every entity that exists at run.as_of.
    query: Annotated[UserQuery, BeforeValidator(query_field("[entity] query", "run"))]
    #: Whether a population of nobody may be published.
    allow_empty: bool = False


def one_of_both(query: UserQuery | None, info: ValidationInfo) -> UserQuery | None:
    """Features have one origin; what is wrong with the dataset is told by itself."""
    if "dataset" not in info.data:
        return query
    if query is None and info.data["dataset"] is None:
        raise ValueError('missing; write query = "features.sql", or name Parquet files with dataset')
    if query is not None and info.data["dataset"] is not None:
        raise ValueError("query and dataset are declared; features come from one of the two, so remove the other")
    return query


class FeatureTtl(_Table):
    """How old what a group of features was made of may be; the TOML key is the column that says when that was known."""

    #: Age from which it is too old.
    ttl: Duration
    #: Share of the entities whose features are too old, at which a check warns and fails.
    share: Limits = (0.01, 0.05)
    #: Features that the query leaves NULL where they are too old: the share that lost them is told.
    features: Texts = ()


class Dataset(_Table):
    """Parquet files that features come from instead of a query."""

    #: A file, a folder, a pattern with ``*``: a path, or an fsspec URL.
    url: Annotated[str, AfterValidator(dataset_url)]
    #: Column that says from when on a row was known; the newest row up to an instant counts. Without it there is one row
    #: for each key, which says how things are now.
    as_of: ColumnName | None = None
    #: Column that says when a row was last written: an incremental run scores the rows that are newer.
    updated_at: ColumnName | None = None
    #: Columns that are features; all that are not named otherwise when left out.
    columns: Texts = ()
    #: How much later than its ``updated_at`` (or ``as_of``) a row may appear.
    late_by: DurationOrZero = timedelta(0)
    #: Age at which the data is late, and too late.
    warn_after: Duration | None = None
    fail_after: Duration | None = None

    @property
    def changes_by(self) -> str | None:
        """The column that says which rows are new."""
        return self.updated_at or self.as_of

    @model_validator(mode="after")
    def _check(self) -> Dataset:
        if self.warn_after is not None and self.fail_after is not None:
            _in_order("warn_after", self.warn_after, "fail_after", self.fail_after)
        for name in self.columns:
            column_name(name)
            if self.columns.count(name) > 1 or name in {self.as_of, self.updated_at}:
                raise ValueError(f"columns names {show(name)}, which has another use or is there already; name it once")
        return self


class Features(_Table):
    """What the model sees of an entity at an instant: rows of a query, or of Parquet files."""

    dataset: Annotated[Dataset, BeforeValidator(alone_as_url)] | None = None
    #: Returns key, as_of and the features, one row for each row of batch.
    query: Annotated[
        Annotated[UserQuery, BeforeValidator(query_field("[features] query", "batch"))] | None,
        AfterValidator(one_of_both),
        Field(validate_default=True),
    ] = None
    #: Returns the keys whose features may have changed after since.at.
    changes: Annotated[UserQuery, BeforeValidator(query_field("[features] changes", "since"))] | None = None
    #: Whether a hash of each row's features is kept beside its prediction, and says what changed: instead of ``changes``.
    fingerprint: bool = False
    #: Function of one frame that returns one, row by row: ``model.py:preprocess``.
    preprocess: Annotated[str, AfterValidator(function_field(1))] | None = None
    #: A row older than this is scored again even if nothing changed, because windows slide.
    valid_for: Duration | None = None
    #: Whether the features do not depend on as_of.
    time_invariant: bool = False
    #: Column of the feature query, a timestamptz -> how old it may be.
    ttl: dict[ColumnName, FeatureTtl] = Field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where features come from, for messages: the file of the query, or the dataset."""
        if self.query is not None:
            return self.query.origin
        return f"dataset {self.dataset.url}" if self.dataset is not None else "pipeline.toml [features]"

    @property
    def certified(self) -> bool:
        """Whether every publication vouches for all rows: those it left alone are as young as those it scored."""
        return self.time_invariant or self.fingerprint

    @model_validator(mode="after")
    def _check_fingerprint(self) -> Features:
        if self.fingerprint and self.dataset is not None:
            raise ValueError("fingerprint = true needs a query; rows of a dataset are new by its updated_at")
        if self.fingerprint and self.changes is not None:
            raise ValueError("changes and fingerprint = true both say what changed; keep one of the two")
        if self.fingerprint and self.valid_for is not None:
            raise ValueError(
                "with fingerprint = true every incremental run looks at every row, so that none needs renewal; remove valid_for"
            )
        return self


class Golden(_Table):
    """How the rows that a bundle remembers are compared."""

    #: Largest difference of a value that passes.
    atol: Annotated[float, Field(ge=0)] = 1e-6
    on_fail: Disposition = "abort"


class Model(_Table):
    """Which model scores, and how old it may be."""

    name: Name
    alias: Name = "champion"
    #: Age of the training data's end at which a model is old, and too old.
    warn_age: Duration = timedelta(days=30)
    fail_age: Duration = timedelta(days=60)
    #: Up to which part of their versions the libraries must be those of the training.
    environment: Literal["exact", "minor", "major"] = "minor"
    #: Whether trees and linear models are computed by their compiled form where they have one; they predict the same.
    compiled: bool = True
    golden: Golden = Golden()

    @model_validator(mode="after")
    def _check_ages(self) -> Model:
        _in_order("warn_age", self.warn_age, "fail_age", self.fail_age)
        return self


class Output(_Table):
    """One column of predictions."""

    name: str
    #: Method of the estimator that is called.
    method: Literal[
        "predict",
        "predict_proba",
        "predict_log_proba",
        "decision_function",
        "score_samples",
        "transform",
        "recommend",
    ]
    #: TOML key ``class``: which class's probability, compared as text, or ``all``.
    class_: str | None = Field(default=None, validation_alias="class")
    #: Which one of several values, from 0.
    output: Annotated[int, Field(ge=0, le=10_000)] | None = None
    #: How a row of several values becomes one.
    reduce: Literal["min", "max", "mean", "sum"] | None = None
    #: Which half of a ranked list.
    part: Literal["items", "scores"] | None = None
    #: Length of the ranked list.
    k: Annotated[int, Field(ge=1, le=1000)] | None = None
    #: Whether each storage has an index on the column.
    index: bool = False

    @model_validator(mode="after")
    def _check(self) -> Output:
        problems = [problem for problem in (self._name_problem(), *self._contradictions()) if problem]
        if problems:
            raise PydanticCustomError("refused", "the output is refused", {"refused": problems})
        return self

    def _name_problem(self) -> str | None:
        problem = name_problem(self.name)
        if problem:
            return problem
        if self.name in OWN_COLUMNS | {"prescore_fingerprint"}:
            return f'"{self.name}" is a column that the view has itself; choose another name'
        if self.name in _SYSTEM_COLUMNS:
            return f'"{self.name}" is a column that PostgreSQL gives to every table; choose another name'
        if self.name in RESERVED_KEYWORDS | TYPE_FUNC_NAME_KEYWORDS:
            return (
                f'"{self.name}" is a word of SQL, so that SELECT {self.name} means something else; choose another name'
            )
        return None

    def _contradictions(self) -> list[str]:
        by_class = self.method in {"predict_proba", "predict_log_proba"}
        ranked = self.method == "recommend"
        problems = []
        if by_class and self.class_ is None:
            problems.append(f'{self.method} needs a class: class = "1" for one of them, class = "all" for an array')
        if not by_class and self.class_ is not None:
            problems.append(f"class belongs to predict_proba, not to {self.method}; remove one of the two")
        if ranked and (self.part is None or self.k is None):
            problems.append('recommend needs part = "items" or part = "scores", and k, the length of the list')
        if not ranked and (self.part is not None or self.k is not None):
            given = " and ".join(key for key in ("part", "k") if getattr(self, key) is not None)
            problems.append(f"{given} belongs to recommend, not to {self.method}; remove one of the two")
        if self.method != "transform" and self.reduce is not None:
            problems.append(f"reduce belongs to transform, not to {self.method}; remove one of the two")
        if self.method == "transform" and (self.reduce is None) == (self.output is None):
            problems.append('transform gives several values: write either reduce = "min" or output = 0')
        if self.output is not None and (ranked or self.method == "score_samples"):
            problems.append(f"output belongs to methods that give several values, not to {self.method}; remove it")
        if self.index and (ranked or self.class_ == "all"):
            problems.append("index = true on an array: no query would use it; remove it or declare a single value")
        return problems


class Training(_Table):
    """What a model is learned from."""

    #: Returns key, as_of and label for what is known at run.as_of; without a label the estimator is unsupervised. For ranked
    #: lists a key and as_of may have several labels, a row each.
    labels: Annotated[UserQuery, BeforeValidator(query_field("[training] labels", "run", sampling=True))] | None = None
    #: Function without arguments that returns an unfitted estimator: ``model.py:build_model``.
    estimator: Annotated[str, AfterValidator(function_field(0))] | None = None
    #: Share of the labels, the latest, that the model is judged on.
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    #: Feature whose groups' mean label is the naive prediction that a model is compared with.
    baseline: ColumnName | None = None


class Schedule(_Table):
    """When runs are due."""

    SHARE_OF_PERIOD: ClassVar[float] = 0.1
    LEAST_GRACE: ClassVar[timedelta] = timedelta(minutes=5)

    timezone: Zone = "UTC"
    full: Crons = ()
    incremental: Crons = ()
    #: How late a publication may be; a tenth of the period and at least five minutes when it is not declared.
    grace: Duration | None = None
    #: How long a run may take: then it is ended, by itself or by the next one, and its lock is free.
    max_duration: Duration = timedelta(hours=24)

    def grace_for(self, mode: Literal["full", "incremental"]) -> timedelta | None:
        """Return how late a publication of this mode may be, None when no run of it is scheduled."""
        crons = self.full if mode == "full" else self.incremental
        if not crons:
            return None
        return self.grace or max(self.LEAST_GRACE, schedule.period(crons, self.timezone) * self.SHARE_OF_PERIOD)


class ServeTable(_Table):
    """[serve] as written: what is not there follows from the schedule."""

    aging_after: Duration | None = None
    stale_after: Duration | None = None
    serve_stale_for: Duration | None = None
    on_expired: Literal["null", "serve"] = "null"


class Serve(_Table):
    """The promise to readers, counted from data_as_of."""

    aging_after: Duration
    stale_after: Duration
    #: After stale_after; then a prediction is expired.
    serve_stale_for: Duration = timedelta(hours=72)
    #: Whether an expired prediction reads as NULL.
    on_expired: Literal["null", "serve"] = "null"

    @model_validator(mode="after")
    def _check_order(self) -> Serve:
        _in_order("aging_after", self.aging_after, "stale_after", self.stale_after)
        return self


class Rows(_Table):
    """How many rows arrive, as a share of the usual."""

    slot: Slot = "none"
    warn: Span = (0.9, 1.1)
    fail: Span = (0.7, 1.5)

    @model_validator(mode="after")
    def _check_order(self) -> Rows:
        if not (self.fail[0] <= self.warn[0] and self.warn[1] <= self.fail[1]):
            raise ValueError(f"fail {show(self.fail)} must enclose warn {show(self.warn)}")
        return self


class Every(_Table):
    """Values that must all be there in what arrives."""

    column: ColumnName
    from_: TableName = Field(validation_alias="from")


class Source(_Table):
    """A table that the features read, and how fresh it must be."""

    #: ``schema.table``.
    name: TableName
    #: Column that says how far the table has come.
    watermark: ColumnName
    #: Whether the watermark is when a row was loaded or when something happened (then it may lie in the future).
    kind: Literal["load_time", "event_time"] = "load_time"
    #: IANA zone of a watermark without one; mandatory then.
    zone: Zone | None = None
    #: Age at which the source is late, and too late.
    warn_after: Duration | None = None
    fail_after: Duration | None = None
    #: How much later than its watermark a row may become visible.
    late_by: DurationOrZero = timedelta(0)
    #: Whether the source is expected to move; only such count towards data_as_of.
    required: bool = True
    #: SQL condition: rows that count.
    filter: Annotated[str, AfterValidator(sql_condition)] | None = None
    rows: Rows | None = None
    every: Every | None = None
    on_fail: Disposition = "hold"

    @property
    def schema_name(self) -> str:
        """The part of the name before the dot."""
        return self.name.partition(".")[0]

    @property
    def table_name(self) -> str:
        """The part of the name behind the dot."""
        return self.name.partition(".")[2]

    @model_validator(mode="after")
    def _check_order(self) -> Source:
        if self.warn_after is not None and self.fail_after is not None:
            _in_order("warn_after", self.warn_after, "fail_after", self.fail_after)
        return self


class Logic(_Table):
    """What else decides predictions, and what follows from a change of it."""

    #: Patterns of further files of the folder whose content counts as logic, besides every .py.
    files: Texts = ()
    on_change: Literal["full_rescore"] = "full_rescore"


class DriftFeature(_Table):
    """What differs for one feature."""

    warn: Annotated[float, Field(gt=0)] | None = None
    fail: Annotated[float, Field(gt=0)] | None = None
    step_warn: Annotated[float, Field(gt=0)] | None = None
    step_fail: Annotated[float, Field(gt=0)] | None = None
    null_delta: Limits | None = None
    out_of_range: Limits | None = None
    unseen: Limits | None = None
    #: The same for everybody in a run, or nearly: it varies from run to run, and has no distribution within one.
    shared: bool = False
    #: Share of the model's skill that rests on it, instead of what was measured at training.
    importance: Share | None = None
    on_fail: Disposition | None = None


class Drift(_Table):
    """When inputs and outputs differ too much from what they were."""

    bins: Annotated[int, Field(ge=2, le=1000)] = 20
    #: Runs of which season a run is compared with: the same weekday, hour and so on.
    slot: Slot = "none"
    #: Distance from training (population stability index beyond the noise of counting).
    warn: Annotated[float, Field(gt=0)] = 0.10
    fail: Annotated[float, Field(gt=0)] = 0.25
    #: The same for the most important features once there is history, and only beyond what is usual for them.
    early: Annotated[float, Field(gt=0)] = 0.03
    #: Distance from the last clean runs.
    step_warn: Annotated[float, Field(gt=0)] = 0.05
    step_fail: Annotated[float, Field(gt=0)] = 0.10
    #: How many of how many runs must agree.
    persist: Annotated[str, AfterValidator(hits_of_runs)] = "2/3"
    #: Shares of rows, at which a check warns and fails: more missing than before, outside of training's values, unseen.
    null_delta: Limits = (0.02, 0.10)
    out_of_range: Limits = (0.001, 0.01)
    unseen: Limits = (0.005, 0.05)
    #: A probability of at least this much counts as a positive prediction.
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    #: So many times more or fewer positive predictions than usual.
    rate: Annotated[Limits, AfterValidator(times)] = (1.5, 3.0)
    on_fail: Disposition = "flag"
    feature: dict[ColumnName, DriftFeature] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_order(self) -> Drift:
        for low, high in (("warn", "fail"), ("step_warn", "step_fail")):
            _in_order(low, getattr(self, low), high, getattr(self, high))
            for name, own in self.feature.items():
                limits = {key: getattr(own, key) or getattr(self, key) for key in (low, high)}
                _in_order(f"feature.{name}.{low}", limits[low], f"feature.{name}.{high}", limits[high])
        declared = sum(own.importance or 0.0 for own in self.feature.values())
        if declared > 1 + 1e-9:
            raise ValueError(f"the importances of features add up to {declared:g}; they are shares of 1")
        return self


class Performance(_Table):
    """What is kept and expected once labels are known."""

    #: Share of entities whose predictions are kept.
    sample: Share = 0.01
    metric: (
        Literal[
            "auc",
            "average_precision",
            "log_loss",
            "brier",
            "accuracy",
            "f1",
            "rmse",
            "mae",
            "r2",
        ]
        | None
    ) = None
    #: The output that is judged; may be left out when the metric fits one alone.
    output: Name | None = None
    #: What the metric is compared with; the hold-out metric of the model version when left out.
    baseline: float | None = None
    #: How much worse it may be, in its own unit; 0.03, or a tenth of the baseline for errors, when left out.
    tolerance: Annotated[float, Field(ge=0)] | None = None
    #: Age at which an entity's label is known.
    maturity: Duration | None = None
    #: How much time of matured predictions is judged together.
    window: Duration = timedelta(days=28)
    #: Share of the matured predictions whose label has to be known.
    min_label_coverage: Share = 0.9


class Coverage(_Table):
    """How many entities may be without a prediction."""

    #: Share of the population, at which a check warns and fails.
    missing: Limits = (0.001, 0.01)
    #: What happens to the rows of entities that are gone.
    orphans: Literal["delete"] = "delete"
    #: Smallest population, as a share of the last one, that is published.
    shrink: Share = 0.5


class Archive(_Table):
    """Where copies of what was published are kept as Parquet."""

    #: An absolute path, or an fsspec URL: copies are written below ``<url>/<pipeline>/``.
    url: Annotated[str, AfterValidator(archive_url)]
    #: What an incremental generation is copied as: the whole table, or what changed on top of the copy before.
    what: Literal["all", "changes"] = "all"


class History(_Table):
    """Whether what readers saw can be asked for later."""

    #: How long it can.
    keep: Duration


class Retention(_Table):
    """How long what runs leave behind is kept; what is still needed stays for longer."""

    #: How much later than maturity and window a sample may still be asked for.
    SPARE: ClassVar[timedelta] = timedelta(days=7)
    #: How long samples are kept at least: a [performance] that is declared too short for a day, or not yet, costs none.
    SAMPLES: ClassVar[timedelta] = timedelta(days=90)

    #: Runs with their checks, waivers, profiles and costs, their publications and the listings of archives.
    runs: Duration = timedelta(days=400)
    #: Lists of rejected entities.
    rejections: Duration = timedelta(days=90)
    #: Predictions that wait for labels; as long as [performance] needs them when it is not declared.
    samples: Duration | None = None

    def samples_of(self, performance: Performance) -> timedelta:
        """Return how long samples are kept: never for longer than the runs that made them."""
        if self.samples is not None:
            return self.samples
        matured = timedelta() if performance.maturity is None else performance.maturity + performance.window
        return min(self.runs, max(self.SAMPLES, matured + self.SPARE))

    @model_validator(mode="after")
    def _check(self) -> Retention:
        if self.runs < timedelta(days=1):
            raise ValueError(f"runs: expected at least a day, found {write_duration(self.runs)}")
        if "rejections" in self.model_fields_set:
            _in_order("rejections", self.rejections, "runs", self.runs)
        if self.samples is not None:
            _in_order("samples", self.samples, "runs", self.runs)
        return self


class Unknown(_Table):
    """What an unanswered check counts as; never as passed."""

    guard: Literal["warn", "fail"] = "fail"
    gauge: Literal["warn", "fail"] = "warn"
    #: What too few rows to judge count as: ``note`` lists the check and flags nobody.
    small_sample: Literal["note", "warn", "fail"] = "note"
    #: So many unanswered in a row count as failed; too few rows never do.
    escalate_after: Annotated[int, Field(ge=1, le=1000)] = 3


class Manual(_Table):
    """Which verdicts a person may waive."""

    #: Ids of checks, patterns such as ``drift.*``, or the group ``volume``.
    may_waive: Patterns = ("volume", "drift.*", "model.age")
    #: Besides what nobody may waive in any pipeline.
    never_waive: Patterns = ()
    #: How long a waiver lasts: ``until_next_deadline``, or a duration.
    lifetime: str = "until_next_deadline"

    @model_validator(mode="after")
    def _check(self) -> Manual:
        both = sorted(set(self.may_waive) & set(self.never_waive))
        if both and "may_waive" in self.model_fields_set:
            raise ValueError(f"{', '.join(both)} is in may_waive and in never_waive; remove one of the two")
        if self.lifetime != "until_next_deadline":
            try:
                positive(parse_duration(self.lifetime))
            except ValueError as error:
                raise ValueError(f'lifetime: expected "until_next_deadline", or {error}') from None
        return self


class Execution(_Table):
    """Where a full run is scored: as one stream, or in shards by several workers."""

    #: How many shards are scored at once; 1 is one process and one stream, unless shards are declared.
    workers: Annotated[int, Field(ge=1, le=1000)] = 1
    #: Into how many shards the population is cut, or of about how many entities each; by its size when neither is declared.
    shards: Annotated[int, Field(ge=1, le=100_000)] | None = None
    shard_rows: Annotated[int, Field(ge=1)] | None = None
    #: Who scores them: processes on this machine, or the workers of a cluster that exists already.
    runner: Literal["local", "dask", "ray"] = "local"
    #: Where the cluster is: ``tcp://scheduler:8786``, ``ray://head:10001``, ``auto``.
    address: Annotated[str, Field(min_length=1)] | None = None

    @property
    def sharded(self) -> bool:
        """Whether a full run is cut into shards."""
        return self.workers > 1 or self.runner != "local" or self.shards is not None or self.shard_rows is not None

    @model_validator(mode="after")
    def _check(self) -> Execution:
        if self.shards is not None and self.shard_rows is not None:
            raise ValueError("shards and shard_rows both say how the population is cut; remove one of the two")
        if self.runner == "local" and self.address is not None:
            raise ValueError('address belongs to runner = "dask" or "ray"; declare the runner, or remove address')
        if self.runner != "local" and self.address is None:
            example = "tcp://scheduler:8786" if self.runner == "dask" else "ray://head:10001"
            raise ValueError(f'runner = "{self.runner}" needs the address of the cluster, such as "{example}"')
        return self


def _in_order(low_key: str, low: Any, high_key: str, high: Any) -> None:
    if low > high:
        shown = [write_duration(value) if isinstance(value, timedelta) else str(value) for value in (low, high)]
        raise ValueError(
            f"{low_key} ({shown[0]}) is above {high_key} ({shown[1]}); make {low_key} the smaller one, or the same"
        )
