"""The template: the commented files that a new pipeline starts from, filled in for a table where one is named."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import sqlalchemy as sa

from tasks.columns import TYPES, canonical, cast_of
from tasks.database import quote, rows
from tasks.errors import PipelineExists, UsageError
from tasks.features import AS_OF
from tasks.fields import name_problem
from tasks.pipeline import load_pipeline
from tasks.usersql.naming import written

#: Every file of a new folder, in the order in which a reader wants them.
FILES = ("pipeline.toml", "features.sql", "changes.sql", "labels.sql", "model.py")

#: Names by which a table often says when a row was written.
_WATERMARKS = ("updated_at", "modified_at", "changed_at", "loaded_at", "last_updated", "last_modified")

_NO_LINE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


@dataclass(frozen=True, kw_only=True)
class TableColumn:
    """A column of a user's table."""

    name: str
    #: Name in the type table, or PostgreSQL's own where it is not there.
    postgres_type: str


@dataclass(frozen=True, kw_only=True)
class OwnTable:
    """A table of a user, as the new pipeline's queries read it."""

    #: Schema and name as SQL writes them.
    name: str
    columns: tuple[TableColumn, ...]
    #: Columns of its primary key, in order; empty when it has none.
    key: tuple[str, ...]


def describe_table(connection: sa.Connection, name: str) -> OwnTable:
    """Describe a table or view by its name, with or without a schema and quotes.

    Raises
    ------
    UsageError
        When there is none.
    """
    exactly = ".".join(quote(part) for part in name.split(".")) if all(name.split(".")) else name
    found = _described(connection, exactly) or _described(connection, name)
    if not found:
        raise UsageError(
            f"There is no table {name} that this role can see. Nothing was written. Write it as SCHEMA.TABLE; `\\dt *.*` in "
            "psql lists all of them."
        )
    keyed = sorted((row.key_position, row.name) for row in found if row.key_position is not None)
    return OwnTable(
        name=f"{written(found[0].schema)}.{written(found[0].relation)}",
        columns=tuple(TableColumn(name=row.name, postgres_type=canonical(row.type, row.typtype)) for row in found),
        key=tuple(column for _, column in keyed),
    )


def create_folder(directory: Path, name: str, key: Sequence[str] = (), table: OwnTable | None = None) -> Path:
    """Write the folder of a new pipeline below ``directory``, whole or not at all, and return it.

    ``key`` are the key columns; by default the primary key of the table, or a placeholder where none is named.

    Raises
    ------
    UsageError
        For a name that no pipeline can have, a key that is not in the table, and a folder that cannot be written.
    PipelineExists
        When there is something of this name; it is left as it is.
    PipelineInvalid
        For a key column of a name that prescore needs itself.
    """
    problem = name_problem(name, suffixes=True)
    if problem:
        raise UsageError(f"A pipeline cannot have this name: {problem}. Nothing was written.")
    folder = directory / name
    if os.path.lexists(folder):
        raise PipelineExists(folder)
    values = _for_table(name, key, table) if table is not None else _placeholders(name, key or ["your_key"])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".new-", dir=directory))
    except OSError as error:
        raise UsageError(
            f"{directory} cannot be written: {error.strerror}. Nothing was written. Set PRESCORE_PIPELINES to a folder of yours."
        ) from None
    try:
        begun = beside / name
        begun.mkdir()
        for file in FILES:
            (begun / file).write_text(_filled(file, values), encoding="utf-8")
        load_pipeline(begun)
        begun.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _described(connection: sa.Connection, relation: str) -> list[sa.Row[tuple[object, ...]]]:
    try:
        return rows(connection, "describe_table", relation=relation)
    except sa.exc.DBAPIError:  # what cannot be a name
        return []
    finally:
        connection.rollback()


def _placeholders(name: str, key: Sequence[str]) -> dict[str, str]:
    return {
        **_values(name, key, "your_schema.your_table", "updated_at"),
        "placeholders_note": "Names that begin with your_ are placeholders in all of these files: put yours in their place.",
        "changes_line": _line('changes = "changes.sql"', "whose features may have changed since an instant"),
        "training_lines": '[training]\nlabels = "labels.sql"\nestimator = "model.py:build_model"',
        "features_note": "-- Any SELECT will do. This one reads a single table.",
        "feature_columns": "    t.your_number,\n    t.your_text",
    }


def _for_table(name: str, key: Sequence[str], table: OwnTable) -> dict[str, str]:
    there = [column.name for column in table.columns]
    key = key or table.key
    if not key or not set(key) <= set(there):
        absent = ", ".join(column for column in key if column not in there)
        what = f"{table.name} has no column {absent}" if key else f"{table.name} has no primary key"
        raise UsageError(
            f"{what}; its columns are {', '.join(there)}. Nothing was written. Say with --key what identifies an entity, "
            "once for each column."
        )
    times = {column.name for column in table.columns if column.postgres_type.startswith("timestamp")}
    watermark = next((column for column in _WATERMARKS if column in times), None)
    changes = _line('changes = "changes.sql"', "whose features may have changed since an instant")
    return {
        **_values(name, key, table.name, watermark or "updated_at"),
        "placeholders_note": "Names that begin with your_ are placeholders: put yours in their place where you need them.",
        "changes_line": changes if watermark else f"# {changes}",
        "training_lines": '# [training]\n# labels = "labels.sql"\n# estimator = "model.py:build_model"',
        "features_note": f"-- These are all columns of {table.name}. Take out what is no feature: the label above all, and what\n"
        "-- becomes known only after it.",
        "feature_columns": _feature_columns(table, key),
    }


def _values(name: str, key: Sequence[str], table: str, watermark: str) -> dict[str, str]:
    """Return what is written the same with and without a table."""
    names = [written(column) for column in key]
    listed = " ".join(("SELECT", ", ".join(names), "FROM", table))
    if any(_NO_LINE.search(text) for text in (table, *key)):
        raise UsageError(
            "The table or its key has a line break in its name. Nothing was written. Read it through a view."
        )
    return {
        "name": name,
        "table": table,
        "watermark": watermark,
        "source_name": json.dumps(table.replace('"', ""), ensure_ascii=False),
        "key_texts": ", ".join(json.dumps(column, ensure_ascii=False) for column in key),
        "entity_query": json.dumps(listed, ensure_ascii=False) if "'" in listed or '"' not in listed else f"'{listed}'",
        "keys": ", ".join(names),
        "batch_keys": ", ".join(f"b.{column}" for column in names),
        "table_keys": ", ".join(f"t.{column}" for column in names),
        "event_keys": ", ".join(f"e.{column}" for column in names),
        "outcome_keys": ", ".join(f"o.{column}" for column in names),
        "event_match": " AND ".join(f"e.{column} = b.{column}" for column in names),
    }


def _feature_columns(table: OwnTable, key: Sequence[str]) -> str:
    """Return the features for the SELECT: a line each, and a comment for each column that can be none as it is."""
    features, comments = [], []
    for column in table.columns:
        if column.name in key or _NO_LINE.search(column.name):
            continue
        name = written(column.name)
        if column.name == AS_OF.name:
            comments.append("    -- t.as_of: the name is taken; give it another one with AS")
        elif column.postgres_type in TYPES and TYPES[column.postgres_type].kind is not None:
            features.append(f"    t.{name}")
        else:
            cast = cast_of(f"t.{name}", column.postgres_type)
            comments.append(f"    -- t.{name} is of type {column.postgres_type}; write {cast} AS {name}")
    if not features:
        raise UsageError(
            f"{table.name} has no column beside its key that can be a feature. Nothing was written. Name another table, "
            "or leave --table out and write features.sql yourself."
        )
    return "\n".join([",\n".join(features), *comments])


def _line(text: str, comment: str) -> str:
    return f"{text:<40}# {comment}"


def _filled(file: str, values: Mapping[str, str]) -> str:
    text = (resources.files("deployments") / "template" / file).read_text(encoding="utf-8")
    return Template(text).substitute(values)
