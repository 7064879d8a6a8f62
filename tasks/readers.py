"""What readers read: the view of a pipeline, its usable rows, its lookup function; and the rows they stand on.

All of it is created once, with the pipeline. Afterwards only head moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tasks.columns import Column
from tasks.database import literal, load_query, one, quote, raw_execute
from tasks.errors import PrescoreError
from tasks.pipeline import Pipeline
from tasks.transport import quoted_table

STORAGES = (1, 2, 3)

_COMMENTS = {
    "state": "fresh, aging, stale, expired, rejected, clock_error, superseded or quarantined, by the clock of the database.",
    "age": "How old the data is that the prediction rests on, now.",
    "data_as_of": "How old that data is as an instant: the oldest required source, or the row itself if that is older.",
    "as_of": "The instant that the prediction was computed at.",
    "aging_at": "From when the state is aging.",
    "stale_at": "From when the state is stale.",
    "expires_at": "From when the prediction is withheld.",
    "cache_for": "How long a cache may keep this answer.",
    "reasons": "What the checks of the publication found, and why a row was rejected.",
    "model_version": "Version of the model that made the prediction.",
    "scored_in": "Generation that the row was scored in.",
}

_ROW_COMMENTS = {
    "storage_id": "Storage that holds the row; head names the one that is served.",
    "as_of": "The instant that the prediction was computed at.",
    "scored_in": "Generation that the row was scored in.",
    "rejected": "Why the entity could not be scored; NULL for a prediction.",
}


class ObjectsDiffer(PrescoreError):
    """A pipeline's objects were made for other columns than are declared now."""

    def __init__(self, pipeline: str, differences: list[str]) -> None:
        self.pipeline, self.differences = pipeline, differences
        super().__init__(
            f"predictions.{pipeline} was made for other columns: {'; '.join(differences)}. Nothing was scored; what was "
            "published is still served. Restore the declaration, or declare the new columns under another pipeline name "
            "and move readers to it."
        )


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The names of a pipeline's objects, quoted for SQL, and their columns."""

    pipeline: str
    key: tuple[Column, ...]
    outputs: tuple[Column, ...]

    @property
    def rows(self) -> str:
        """The partitioned table."""
        return quoted_table("prescore_rows", self.pipeline)

    def storage_name(self, storage_id: int) -> str:
        """Unquoted name of a storage's table."""
        return f"{self.pipeline}_{storage_id}"

    def storage(self, storage_id: int) -> str:
        """A storage's table."""
        return quoted_table("prescore_rows", self.storage_name(storage_id))

    @property
    def view(self) -> str:
        """The view that readers read."""
        return quoted_table("predictions", self.pipeline)

    @property
    def usable(self) -> str:
        """The view of rows that may be used now."""
        return quoted_table("predictions", f"{self.pipeline}_usable")

    @property
    def function(self) -> str:
        """The lookup function."""
        return quoted_table("predictions", f"{self.pipeline}_for")

    @property
    def key_names(self) -> str:
        """The key columns."""
        return names(self.key)

    @property
    def key_object(self) -> str:
        """Arguments of jsonb_build_object that make the key."""
        return _object(self.key)

    @property
    def output_object(self) -> str:
        """Arguments of jsonb_build_object that make the predictions."""
        return _object(self.outputs)


def names(columns: Sequence[Column], relation: str = "") -> str:
    """Return column names quoted for a list, each behind a relation when one is given."""
    return ", ".join((f"{relation}." if relation else "") + quote(column.name) for column in columns)


def require_same(connection: sa.Connection, objects: Objects) -> bool:
    """Return whether the objects exist; refuse when they were made for other columns."""
    found = one(connection, "find_pipeline", pipeline=objects.pipeline)
    if found is None or found.key_columns is None:
        return False
    differences = [
        *_differences("key", found.key_columns, found.key_types, objects.key),
        *_differences("output", found.output_columns, found.output_types, objects.outputs),
    ]
    if differences:
        raise ObjectsDiffer(objects.pipeline, differences)
    return True


def create(connection: sa.Connection, pipeline: Pipeline, objects: Objects, comments: dict[str, str]) -> None:
    """Create rows, storages, indexes, views and function of a pipeline, in the open transaction.

    ``comments`` adds to the COMMENT of an output, for example the order of its classes.
    """
    raw_execute(connection, load_query("create_rows_table", _rows_fragments(objects)))
    declared = {output.name: output for output in pipeline.predictions}
    for column in objects.outputs:
        if declared[column.name].index:
            fragments = {"rows": objects.rows, "output": quote(column.name)}
            raw_execute(connection, load_query("create_output_index", fragments))
    shown = ",\n       ".join(
        f"CASE WHEN t.state IN ('fresh', 'aging', 'stale') OR (t.state = 'expired' AND h.serve_expired) "
        f"THEN r.{quote(c.name)} END AS {quote(c.name)}"
        for c in objects.outputs
    )
    base = {"rows": objects.rows, "keys": names(objects.key, "r"), "pipeline": literal(objects.pipeline)}
    raw_execute(
        connection, load_query("create_predictions_view", {**base, "view": objects.view, "outputs_shown": shown})
    )
    usable = {**base, "view": objects.usable, "outputs": names(objects.outputs, "r")}
    raw_execute(connection, load_query("create_usable_view", usable))
    raw_execute(connection, load_query("create_lookup_function", _function_fragments(objects)))
    _comment(connection, pipeline, objects, comments)


def _rows_fragments(objects: Objects) -> dict[str, str]:
    return {
        "rows": objects.rows,
        "storage_one": objects.storage(1),
        "storage_two": objects.storage(2),
        "storage_three": objects.storage(3),
        "key_definitions": ", ".join(f"{quote(c.name)} {c.postgres_type} NOT NULL" for c in objects.key),
        "output_definitions": ", ".join(f"{quote(c.name)} {c.postgres_type}" for c in objects.outputs),
        "key_names": objects.key_names,
    }


def _function_fragments(objects: Objects) -> dict[str, str]:
    return {
        "function": objects.function,
        "view": objects.view,
        "arguments": ", ".join(f"{quote(c.name)} {c.postgres_type}" for c in objects.key),
        "key_arguments": ", ".join(f"${i}" for i, _ in enumerate(objects.key, 1)),
        "key_matches": " AND ".join(f"p.{quote(c.name)} = ${i}" for i, c in enumerate(objects.key, 1)),
        "outputs_within": ", ".join(f"CASE WHEN NOT l.too_stale THEN p.{quote(c.name)} END" for c in objects.outputs),
        "max_stale": f"${len(objects.key) + 1}",
    }


def _comment(connection: sa.Connection, pipeline: Pipeline, objects: Objects, comments: dict[str, str]) -> None:
    for relation, text in (
        (objects.view, pipeline.description or f"Predictions of {pipeline.name}."),
        (objects.usable, f"Rows of {pipeline.name} that may be used now, for ranking and filtering with an index."),
    ):
        fragments = {"view": relation, "comment": literal(text)}
        raw_execute(connection, load_query("comment_on_view", fragments))
    keys = {column.name: "Key of the entity." for column in objects.key}
    outputs = {
        column.name: comments.get(column.name) or f"Prediction of {pipeline.model.name}." for column in objects.outputs
    }
    described = {objects.view: keys | _COMMENTS | outputs, objects.usable: keys | outputs}
    for table in (objects.rows, *(objects.storage(storage_id) for storage_id in STORAGES)):
        described[table] = keys | _ROW_COMMENTS | outputs
    for relation, texts in described.items():
        for name, text in texts.items():
            fragments = {"column": f"{relation}.{quote(name)}", "comment": literal(text)}
            raw_execute(connection, load_query("comment_on_column", fragments))
    signature = f"{objects.function}({', '.join([*(c.postgres_type for c in objects.key), 'interval'])})"
    text = (
        "Looks one entity up: always one row, state missing where there is none. max_stale is how long past stale_at the "
        "reader accepts; beyond it the state is expired."
    )
    raw_execute(connection, load_query("comment_on_function", {"signature": signature, "comment": literal(text)}))


def _object(columns: Sequence[Column]) -> str:
    return ", ".join(f"{literal(column.name)}::text, {quote(column.name)}" for column in columns)


def _differences(what: str, found: list[str], types: list[str], wanted: Sequence[Column]) -> list[str]:
    before = dict(zip(found, types, strict=True))
    after = {column.name: column.postgres_type for column in wanted}
    lost = [f"{what} {name} is no longer declared" for name in before if name not in after]
    fresh = [f"{what} {name} is new" for name in after if name not in before]
    retyped = [
        f"{what} {name} was {before[name]}, is {after[name]}"
        for name in after
        if name in before and before[name] != after[name]
    ]
    moved = []
    if what == "key" and not (lost or fresh) and list(before) != list(after):
        moved = ["the order of the key columns differs"]
    return lost + fresh + retyped + moved
