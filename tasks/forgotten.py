"""Forgotten entities: known by a salted digest of their key, and left out of every query of a pipeline's own.

The key itself is nowhere: what a query returns is hashed with the salt of the pipeline, and compared. Both sides are hashed
by PostgreSQL's own SHA-256 (or Python's, for rows of a file), so it does not matter which server a query runs on.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
import sqlalchemy as sa

from tasks.columns import Column
from tasks.database import load_query, quote, rows
from tasks.pipeline import Pipeline
from tasks.usersql import UserQuery

# Bytes of a salt: a table of digests made for another pipeline, or by anybody beforehand, is of no use.
SALT_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """The entities of a pipeline that are kept out of it."""

    salt: bytes
    #: SHA-256 of each key with the salt, ascending.
    digests: tuple[bytes, ...] = ()

    def left_out_of(self, query: UserQuery, key: Sequence[str]) -> UserQuery:
        """Return a query that returns what another one does, but for the forgotten entities.

        Keys that are NULL stay: the ledger tells of them. The condition is one whose share the planner does not reckon from
        the number of digests: with a thousand it would expect hardly a row to be left.
        """
        fragments = {
            "query": query.text,
            "digest": key_digest([f"prescore_kept.{quote(name)}::text" for name in key], self.salt),
            "digests": ", ".join(_bytes(digest) for digest in self.digests),
        }
        return replace(query, text=load_query("leave_out_forgotten", fragments))

    def left_out_of_rows(self, found: pa.Table, key: Sequence[str]) -> pa.Table:
        """Return the rows of a table but for those of forgotten entities."""
        if not self.digests or not set(key) <= set(found.column_names):
            return found
        known = set(self.digests)
        values = zip(*(found.column(name).to_pylist() for name in key), strict=True)
        return found.filter(pa.array([digest_of(each, self.salt) not in known for each in values], pa.bool_()))


def new_salt() -> bytes:
    """Return a salt for the digests of a pipeline."""
    return secrets.token_bytes(SALT_BYTES)


def key_digest(texts: Sequence[str], salt: bytes) -> str:
    """Return the SQL expression of the digest of a key, of expressions of its columns as text; NULL where one of them is.

    Each value goes with its length, so that ('a', 'bc') and ('ab', 'c') are told apart.
    """
    parts = " || ".join(f"length({text}) || ':' || {text}" for text in texts)
    return f"sha256({_bytes(salt)} || convert_to({parts}, 'UTF8'))"


def digest_of(values: Sequence[object], salt: bytes) -> bytes:
    """Return the same digest of key values in Python: integers, texts and dates; of none that misses one."""
    if any(value is None for value in values):
        return b""
    texts = [value.isoformat() if isinstance(value, date) else str(value) for value in values]
    return hashlib.sha256(salt + "".join(f"{len(text)}:{text}" for text in texts).encode()).digest()


def read_forgotten(connection: sa.Connection, pipeline: str) -> Forgotten | None:
    """Return whom a pipeline keeps out; None when that is nobody."""
    found = rows(connection, "list_forgotten", pipeline=pipeline)
    if not found:
        return None
    return Forgotten(salt=bytes(found[0].salt), digests=tuple(bytes(row.digest) for row in found))


def keep_out(connection: sa.Connection, pipeline: Pipeline) -> Pipeline:
    """Return a pipeline whose entity and label queries leave out whom it has to forget; its digests stay what they are."""
    forgotten = read_forgotten(connection, pipeline.name)
    return pipeline if forgotten is None else without(pipeline, forgotten)


def without(pipeline: Pipeline, forgotten: Forgotten) -> Pipeline:
    """Return a pipeline whose entity and label queries leave out the forgotten entities."""
    entity, key = pipeline.entity, pipeline.entity.key
    kept = replace(pipeline, entity=entity.model_copy(update={"query": forgotten.left_out_of(entity.query, key)}))
    training = pipeline.training
    if training is None or training.labels is None:
        return kept
    labels = forgotten.left_out_of(training.labels, key)
    return replace(kept, training=training.model_copy(update={"labels": labels}))


def key_texts(key: Sequence[Column], relation: str) -> list[str]:
    """Return the expressions of a relation's key columns as text, as digests are made of."""
    return [f"{relation}.{quote(column.name)}::text" for column in key]


def _bytes(value: bytes) -> str:
    return f"'\\x{value.hex()}'::bytea"
