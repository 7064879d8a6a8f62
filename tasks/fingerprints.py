"""Fingerprints: a 64-bit hash of a row of features, kept beside its prediction, that says whether the row has moved since.

PostgreSQL makes them, in the statement that reads the features: rows that did not move need never leave it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tasks.columns import Column, Kind
from tasks.database import load_query, quote

#: The column of a pipeline's rows; NULL where a row was written without features.
FINGERPRINT = Column(name="prescore_fingerprint", postgres_type="bigint")

# A number as the model sees it, so that a column may become wider without moving anybody. PostgreSQL's hash of a bigint
# folds it to 32 bits first, and takes 0 and -0, which 1 / x tells apart, for the same.
_NUMBER = "CASE WHEN {0} = 0 AND atan2({0}, -1) < 0 THEN {other} ELSE hashfloat8extended({0}, {seed}) END"
# Bytes, whatever the collation takes for equal.
_TEXT = 'hashtextextended(({0})::text COLLATE "C", {seed})'
# The hash of an instant folds it to 32 bits as well; a float of its seconds does not, and is exact to a microsecond until 2242.
_TIME = "timestamp_hash_extended({0}, {seed}) # hashfloat8extended(date_part('epoch', {0}), {other})"


def fingerprint(features: Sequence[Column], relation: str) -> str:
    """Return the SQL expression of the fingerprint of a row of features in a relation, a bigint that is never NULL.

    It depends on what the model sees of each column, and on its name: not on the order of the columns, on the batch, the
    process, settings of the session or the row's as_of. NULL and NaN differ in it, and so do 0 and -0. What it depends on
    besides is PostgreSQL's hash functions: where those change, every row has moved once, and is scored again.
    """
    parts = [f"coalesce({_hash(column, f'{relation}.{quote(column.name)}')}, 0)" for column in features]
    return f"({' # '.join(parts)})"


def fenced(query: str) -> str:
    """Return a feature query whose columns are worked out once, however often the statement around it names them."""
    return load_query("fence_features", {"feature_query": query})


def _hash(column: Column, value: str) -> str:
    seeds = {"seed": _seed(column.name), "other": _seed(f"{column.name}\x00other")}
    if column.postgres_type == "uuid":
        return f"uuid_hash_extended({value}, {seeds['seed']})"
    if column.postgres_type == "date":  # later ones than a timestamp can be are no instants
        return f"hashint4extended({column.read(value)} - DATE '2000-01-01', {seeds['seed']})"
    if column.kind is Kind.TEXT:
        return _TEXT.format(value, **seeds)
    if column.kind is Kind.TIME:
        zone = " AT TIME ZONE 'UTC'" if column.postgres_type == "timestamp with time zone" else ""
        return _TIME.format(f"({column.read(value)}){zone}", **seeds)
    number = f"{value}::integer" if column.postgres_type == "boolean" else value
    return _NUMBER.format(f"({number})::double precision", **seeds)


def _seed(name: str) -> str:
    """Return a seed that belongs to a name, as an SQL literal: columns of equal values must not cancel each other."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    return f"'{seed}'::bigint"
