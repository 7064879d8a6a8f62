"""What may stand in a key of pipeline.toml: durations, names, limits, cron expressions, queries, functions.

Each check raises ``ValueError``, which pydantic collects, and says what was expected, what was found and what to write.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from tasks import pipeline_code, schedule, usersql
from tasks.locations import is_url, location_problem
from tasks.usersql import Severity, UserQuery

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RESERVED_SUFFIX = re.compile(r".*(_usable|_for|_history|_backfill|_[0-9]+)")
_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_PATTERN = re.compile(r"[a-z][a-z0-9_]*(\.([a-z][a-z0-9_]*|\*))*|\*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")
_LONGEST = timedelta(days=36_525)
_IDENTIFIER_BYTES = 63


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folder that is being read: queries and functions are looked for in it."""

    folder: Path


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
    if isinstance(value, int) and abs(value) > 10**50:
        return "a very large number"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.replace("\x00", "\\0")
    return text if len(text) <= 60 else text[:57] + "..."


def show_key(key: object) -> str:
    """Return a key as TOML would write it: in quotes where it would not be one without."""
    return str(key) if isinstance(key, int) or _BARE_KEY.fullmatch(str(key)) else show(str(key))


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


def positive(duration: timedelta) -> timedelta:
    if duration <= timedelta(0):
        raise ValueError("expected a duration longer than zero")
    return duration


def _model_name(name: str) -> str:
    problem = name_problem(name)
    if problem:
        raise ValueError(problem)
    return name


def column_name(name: str) -> str:
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


def times(limits: tuple[float, float]) -> tuple[float, float]:
    """Return (warn, fail) of a ratio: as it is for twice as many, it is for half as many, so neither is below 1."""
    if limits[0] <= 1:
        raise ValueError(f"expected 1 < warn <= fail, found {show(list(limits))}")
    return limits


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


def hits_of_runs(value: str) -> str:
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


def sql_condition(text: str) -> str:
    problem = usersql.expression_problem(text)
    if problem:
        raise ValueError(f"expected one SQL condition such as \"region = 'EU'\", which only reads: {problem}")
    return text


def table_name(name: str) -> str:
    parts = name.split(".")
    if len(parts) != 2 or '"' in name:
        raise ValueError(f'expected schema.table without quotes, such as "public.orders", found {show(name)}')
    for part in parts:
        column_name(part)
    return name


def archive_url(location: str) -> str:
    """Return a place for archives; a relative path would depend on where a run was started."""
    problem = location_problem(location)
    if problem:
        raise ValueError(problem)
    if not is_url(location) and not Path(location).is_absolute():
        raise ValueError(f"expected an absolute path or a URL such as s3://bucket/folder, found {show(location)}")
    return location


def dataset_url(location: str) -> str:
    """Return a place of Parquet files; a relative path counts from the pipeline's folder, as that of a query does."""
    problem = location_problem(location)
    if problem:
        raise ValueError(problem)
    return location


def alone_as_url(value: object) -> object:
    """Return a text as a table that holds nothing but a ``url``."""
    return {"url": value} if isinstance(value, str) else value


def query_field(key: str, supplied: str, *, sampling: bool = False) -> Callable[[object, ValidationInfo], UserQuery]:
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


def function_field(takes: int) -> Callable[[str, ValidationInfo], str]:
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


Duration = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(positive)]
DurationOrZero = Annotated[timedelta, BeforeValidator(parse_duration)]
Name = Annotated[str, AfterValidator(_model_name)]
TableName = Annotated[str, AfterValidator(table_name)]
ColumnName = Annotated[str, AfterValidator(column_name)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Crons = Annotated[tuple[str, ...], BeforeValidator(_crons)]
Zone = Annotated[str, AfterValidator(_zone)]
Limits = Annotated[tuple[float, float], BeforeValidator(_limits)]
Span = Annotated[tuple[float, float], BeforeValidator(_span)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_texts), AfterValidator(_patterns)]
Share = Annotated[float, Field(ge=0, le=1)]
Disposition = Literal["flag", "hold", "abort"]
Slot = Literal["none", "hour", "weekday", "hour_of_week", "month"]
