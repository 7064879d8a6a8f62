"""The tables of pipeline.toml as frozen types, and what may stand in each key.

Each value is checked where it is declared; a message says what was expected and found, and what to write. Where tables
depend on each other, pipeline.py looks at both.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pglast.keywords import RESERVED_KEYWORDS, TYPE_FUNC_NAME_KEYWORDS
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tasks import pipeline_code, schedule, usersql
from tasks.usersql import Severity, UserQuery

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
#: Columns that PostgreSQL gives to every table; no other may have their names.
_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
#: The other parameter of predictions.<pipeline>_for(<key>, max_stale).
_PARAMETERS = frozenset({"max_stale"})

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RESERVED_SUFFIX = re.compile(r".*(_usable|_for|_[0-9]+)")
_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_PATTERN = re.compile(r"[a-z][a-z0-9_]*(\.([a-z][a-z0-9_]*|\*))*|\*")
_LONGEST = timedelta(days=36_525)
_IDENTIFIER_BYTES = 63


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folder that is being read: queries and functions are looked for in it."""

    folder: Path


# What may stand in a key --------------------------------------------------------------------------------------------


def parse_duration(text: object) -> timedelta:
    """Return a duration such as ``26h``, ``15m``, ``90s``, ``30d`` or ``1d12h``; zero is let through.

    Raises
    ------
    ValueError
        Saying what a duration looks like.
    """
    if isinstance(text, timedelta):
        return text
    found = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if found is None:
        raise ValueError(
            f'expected a duration such as {_quoted("26h", "15m", "90s", "30d")} or "1d12h" (whole days, hours, minutes '
            f"and seconds, in this order), found {show(text)}"
        )
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    try:
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        duration = timedelta.max
    if duration > _LONGEST:
        raise ValueError(f"expected a duration of at most a hundred years, found {show(text)}")
    return duration


def write_duration(duration: timedelta) -> str:
    """Return a duration as pipeline.toml writes it; parts of a second are left out."""
    left = duration.days * 86_400 + duration.seconds
    parts = []
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, seconds)
        if count:
            parts.append(f"{count}{unit}")
    # Two days are easier to compare with 26h when they are 48h.
    if len(parts) == 2 and duration < timedelta(days=4) and parts[0].endswith("d") and parts[1].endswith("h"):
        return f"{duration // timedelta(hours=1)}h"
    return "".join(parts) or "0s"


def show(value: object) -> str:
    """Return a value as TOML would write it, shortened."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(show(item) for item in value[:3]) + (", ...]" if len(value) > 3 else "]")
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(word: str, known: Sequence[str]) -> str:
    """Return ``; did you mean "..."?`` when a known word is near, and nothing otherwise."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def name_problem(name: str, *, suffixes: bool = False) -> str | None:
    """Return why this is no name for a pipeline (``suffixes``), a model or an output, or None."""
    if not _NAME.fullmatch(name):
        return (
            f"{show(name)} is no name: it begins with a letter from a to z and goes on with these, digits and _, "
            "40 characters at most"
        )
    reserved = _RESERVED_SUFFIX.fullmatch(name) if suffixes else None
    if reserved:
        return (
            f'"{name}" ends with {reserved.group(1)}, which is reserved for what is made beside the view (_usable, '
            "_for, _<digits>); choose another name"
        )
    return None


def _positive(duration: timedelta) -> timedelta:
    if duration <= timedelta(0):
        raise ValueError("expected a duration longer than zero")
    return duration


def _model_name(name: str) -> str:
    problem = name_problem(name)
    if problem:
        raise ValueError(problem)
    return name


def _identifier(name: str) -> str:
    size = len(name.encode("utf-8", "surrogatepass"))
    if not name or "\x00" in name or size > _IDENTIFIER_BYTES:
        raise ValueError(f"expected a column name of 1 to {_IDENTIFIER_BYTES} bytes, found {show(name)}")
    return name


def _texts(value: object) -> object:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError(f'expected a list of texts such as ["one", "two"], found {show(value)}')


def _crons(value: object) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(item, str) for item in listed):
        raise ValueError(f'expected a cron expression such as "0 3 * * *", or a list of them, found {show(value)}')
    return tuple(dict.fromkeys(schedule.require_cron(item) for item in listed))


def _zone(name: str) -> str:
    schedule.require_zone(name)
    return name


def _limits(value: object) -> tuple[float, float]:
    """Return (warn, fail), the second not below the first."""
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) != 2 or not all(_is_number(number) for number in numbers):
        raise ValueError(f"expected two numbers, [warn, fail], found {show(value)}")
    warn, fail = (float(number) for number in numbers)
    if not 0 <= warn <= fail:
        raise ValueError(f"expected 0 <= warn <= fail, found {show(value)}")
    return warn, fail


def _span(value: object) -> tuple[float, float]:
    """Return (lowest, highest)."""
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) != 2 or not all(_is_number(number) for number in numbers):
        raise ValueError(f"expected two numbers, [lowest, highest], found {show(value)}")
    low, high = (float(number) for number in numbers)
    if not 0 <= low <= high:
        raise ValueError(f"expected 0 <= lowest <= highest, found {show(value)}")
    return low, high


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _persistence(value: str) -> str:
    hits, slash, runs = value.partition("/")
    if not slash or not (hits.isascii() and hits.isdigit() and runs.isascii() and runs.isdigit()):
        raise ValueError(f'expected hits of runs such as "2/3", found {show(value)}')
    if len(hits) > 3 or len(runs) > 3 or not 1 <= int(hits) <= int(runs):
        raise ValueError(f'expected at least one hit, and not more hits than runs, such as "2/3", found {show(value)}')
    return value


def _patterns(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _PATTERN.fullmatch(name):
            raise ValueError(f'{show(name)} is no check id; write one such as "model.age" or "drift.*"')
    return names


def _expression(text: str) -> str:
    problem = usersql.expression_problem(text)
    if problem:
        raise ValueError(f"expected one SQL condition such as \"region = 'EU'\": {problem}")
    return text


def _table_name(name: str) -> str:
    parts = name.split(".")
    if len(parts) != 2 or '"' in name:
        raise ValueError(f'expected schema.table without quotes, such as "public.orders", found {show(name)}')
    for part in parts:
        _identifier(part)
    return name


def _query(key: str, supplied: str, *, sampling: bool = False) -> Callable[[object, ValidationInfo], UserQuery]:
    """Return the validator of a key that holds a query: the name of a .sql file, or the SQL itself."""

    def read(value: object, info: ValidationInfo) -> UserQuery:
        if isinstance(value, UserQuery):
            return value
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"expected the name of a .sql file or a SELECT, found {show(value)}")
        folder = info.context.folder if isinstance(info.context, Place) else None
        if folder is not None and _names_file(value, folder):
            text, origin = read_text(folder, value), value
        else:
            text, origin = value, f"pipeline.toml {key}"
        query = usersql.read_query(text, origin)
        refused = [
            finding.message
            for finding in usersql.judge(query, supplied, sampling=sampling)
            if finding.severity is Severity.ERROR
        ]
        if refused:
            raise PydanticCustomError("query_refused", "the query is refused", {"refused": refused})
        return query

    return read


def _names_file(value: str, folder: Path) -> bool:
    """Return whether a value is meant as a file: one word is no query, and a path that is there is a path."""
    if not value.split()[1:]:
        return True
    return "\n" not in value and value.endswith(".sql") and _is_file(folder / value)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_text(folder: Path, name: str) -> str:
    """Return the text of a file in the pipeline's folder.

    Raises
    ------
    ValueError
        When it is not there, lies outside the folder or is no UTF-8; saying which files are there.
    """
    path = folder / name
    if Path(name).is_absolute() or os.path.normpath(name).startswith(".."):
        raise ValueError(f"{show(name)} lies outside the pipeline's folder; copy it into the folder")
    if not _is_file(path):
        there = pipeline_code.files(folder, "*" + (Path(name).suffix or ".sql"))
        listed = ", ".join(there) if there else "none"
        raise ValueError(
            f"there is no file {show(name)} in the pipeline's folder{nearest(name, there)}; such files there: {listed}"
        )
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None


def _function(takes: int) -> Callable[[str, ValidationInfo], str]:
    """Return the validator of a key that names a function, which is called with this many arguments."""

    def check(value: str, info: ValidationInfo) -> str:
        if isinstance(info.context, Place):
            problem = pipeline_code.function_problem(info.context.folder, value, takes)
            if problem:
                raise ValueError(problem)
        return value

    return check


def _quoted(*words: str) -> str:
    return ", ".join(f'"{word}"' for word in words)


Duration = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_positive)]
DurationOrZero = Annotated[timedelta, BeforeValidator(parse_duration)]
Name = Annotated[str, AfterValidator(_model_name)]
ColumnName = Annotated[str, AfterValidator(_identifier)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Crons = Annotated[tuple[str, ...], BeforeValidator(_crons)]
Zone = Annotated[str, AfterValidator(_zone)]
Limits = Annotated[tuple[float, float], BeforeValidator(_limits)]
Span = Annotated[tuple[float, float], BeforeValidator(_span)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_texts), AfterValidator(_patterns)]
Share = Annotated[float, Field(ge=0, le=1)]
Disposition = Literal["flag", "hold", "abort"]
Slot = Literal["none", "hour", "weekday", "hour_of_week", "month"]


class _Table(BaseModel):
    """A table of pipeline.toml: an unknown key is refused, no value is converted, nothing changes afterwards."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_by_name=True, validate_by_alias=True
    )


# The tables ---------------------------------------------------------------------------------------------------------


class Entity(_Table):
    """Who gets a prediction."""

    #: Names of the key columns, in order.
    key: Texts
    #: Returns the key of every entity that exists at run.as_of.
    query: Annotated[UserQuery, BeforeValidator(_query("[entity] query", "run"))]
    #: Whether a population of nobody may be published.
    allow_empty: bool = False

    @model_validator(mode="after")
    def _check_key(self) -> Entity:
        if not self.key:
            raise ValueError('key: expected at least one column, such as key = ["customer_id"]')
        for name in self.key:
            _identifier(name)
            if self.key.count(name) > 1:
                raise ValueError(f"key: names the column {show(name)} more than once; name it once")
            if name in OWN_COLUMNS | _SYSTEM_COLUMNS | _PARAMETERS:
                raise ValueError(
                    f"key: {show(name)} is a column or parameter that prescore or PostgreSQL has itself; give it "
                    "another name with AS in the queries"
                )
        return self


class Features(_Table):
    """What the model sees of an entity at an instant."""

    #: Returns key, as_of and the features, one row for each row of batch.
    query: Annotated[UserQuery, BeforeValidator(_query("[features] query", "batch"))]
    #: Returns the keys whose features may have changed after since.at.
    changes: Annotated[UserQuery, BeforeValidator(_query("[features] changes", "since"))] | None = None
    #: Function of one frame that returns one, row by row: ``model.py:preprocess``.
    preprocess: Annotated[str, AfterValidator(_function(1))] | None = None
    #: A row older than this is scored again even if nothing changed, because windows slide.
    valid_for: Duration | None = None
    #: Whether the features do not depend on as_of.
    time_invariant: bool = False


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
    golden: Golden = Golden()

    @model_validator(mode="after")
    def _check_ages(self) -> Model:
        _in_order("warn_age", self.warn_age, "fail_age", self.fail_age)
        return self


class Output(_Table):
    """One column of predictions."""

    _METHODS: ClassVar[str] = "predict, predict_proba, predict_log_proba, decision_function, score_samples, transform"

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
    output: Annotated[int, Field(ge=0)] | None = None
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
        if self.name in OWN_COLUMNS:
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

    #: Returns key, as_of and label for what is known at run.as_of; without a label the estimator is unsupervised.
    labels: Annotated[UserQuery, BeforeValidator(_query("[training] labels", "run", sampling=True))] | None = None
    #: Function without arguments that returns an unfitted estimator: ``model.py:build_model``.
    estimator: Annotated[str, AfterValidator(_function(0))] | None = None
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
    from_: str = Field(validation_alias="from")

    @model_validator(mode="after")
    def _check_table(self) -> Every:
        _table_name(self.from_)
        return self


class Source(_Table):
    """A table that the features read, and how fresh it must be."""

    #: ``schema.table``.
    name: Annotated[str, AfterValidator(_table_name)]
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
    filter: Annotated[str, AfterValidator(_expression)] | None = None
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
    null_delta: Limits | None = None
    out_of_range: Limits | None = None
    unseen: Limits | None = None
    on_fail: Disposition | None = None


class Drift(_Table):
    """When inputs and outputs differ too much from what they were."""

    bins: Annotated[int, Field(ge=2, le=1000)] = 20
    slot: Slot = "none"
    warn: Annotated[float, Field(gt=0)] = 0.10
    fail: Annotated[float, Field(gt=0)] = 0.25
    #: How many of how many runs must agree.
    persist: Annotated[str, AfterValidator(_persistence)] = "2/3"
    null_delta: Limits = (0.02, 0.10)
    out_of_range: Limits = (0.001, 0.01)
    unseen: Limits = (0.005, 0.05)
    on_fail: Disposition = "flag"
    feature: dict[ColumnName, DriftFeature] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_order(self) -> Drift:
        _in_order("warn", self.warn, "fail", self.fail)
        for name, own in self.feature.items():
            _in_order(
                f"feature.{name}.warn",
                self.warn if own.warn is None else own.warn,
                f"feature.{name}.fail",
                self.fail if own.fail is None else own.fail,
            )
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
    baseline: float | None = None
    tolerance: Annotated[float, Field(ge=0)] | None = None
    #: Age at which an entity's label is known.
    maturity: Duration | None = None
    min_label_coverage: Share = 0.9


class Coverage(_Table):
    """How many entities may be without a prediction."""

    #: Share of the population, at which a check warns and fails.
    missing: Limits = (0.001, 0.01)
    #: What happens to the rows of entities that are gone.
    orphans: Literal["delete"] = "delete"
    #: Smallest population, as a share of the last one, that is published.
    shrink: Share = 0.5


class Unknown(_Table):
    """What an unanswered check counts as; never as passed."""

    guard: Literal["warn", "fail"] = "fail"
    gauge: Literal["warn", "fail"] = "warn"
    #: So many unanswered in a row count as failed.
    escalate_after: Annotated[int, Field(ge=1)] = 3


class Manual(_Table):
    """Which verdicts a person may waive."""

    may_waive: Patterns = ()
    never_waive: Patterns = ()
    #: ``until_next_deadline``, or a duration.
    lifetime: str = "until_next_deadline"

    @model_validator(mode="after")
    def _check(self) -> Manual:
        both = sorted(set(self.may_waive) & set(self.never_waive))
        if both:
            raise ValueError(f"{', '.join(both)} is in may_waive and in never_waive; remove one of the two")
        if self.lifetime != "until_next_deadline":
            try:
                _positive(parse_duration(self.lifetime))
            except ValueError as error:
                raise ValueError(f'lifetime: expected "until_next_deadline", or {error}') from None
        return self


def _in_order(low_key: str, low: Any, high_key: str, high: Any) -> None:
    if low > high:
        shown = [write_duration(value) if isinstance(value, timedelta) else str(value) for value in (low, high)]
        raise ValueError(
            f"{low_key} ({shown[0]}) is above {high_key} ({shown[1]}); make {low_key} the smaller one, or the same"
        )
