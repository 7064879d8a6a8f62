"""Ranges of keys: a population cut into parts of about equal size by its first key column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

from tasks.columns import Column
from tasks.database import literal, quote

if TYPE_CHECKING:
    import pyarrow as pa

# How many keys are looked at to find where to cut. With 200,000 the size of one of 16 ranges strays by about 1 % (a standard
# deviation of what is drawn, sqrt(16 / 200,000)), and sorting them costs the same whatever the population is.
KEYS_LOOKED_AT = 200_000


@dataclass(frozen=True, kw_only=True)
class KeyRange:
    """The keys whose first column is at least ``lower`` and below ``upper``, in the order of PostgreSQL."""

    #: First key column.
    column: Column
    #: As PostgreSQL writes them as text; None where the range has no end.
    lower: str | None
    upper: str | None

    def condition(self, expression: str) -> str:
        """Return the SQL condition that a value of the first key column lies in the range."""
        parts = []
        if self.lower is not None:
            parts.append(f"{expression} >= {self._value(self.lower)}")
        if self.upper is not None:
            parts.append(f"{expression} < {self._value(self.upper)}")
        return " AND ".join(parts) or "true"

    def of(self, relation: str) -> str:
        """Return the condition on the first key column of a relation."""
        return self.condition(f"{relation}.{quote(self.column.name)}::{self.column.postgres_type}")

    def _value(self, text: str) -> str:
        return f"{literal(text)}::{self.column.postgres_type}"


@dataclass(frozen=True, kw_only=True)
class Counted:
    """How many keys lie in a range, and the sum of their 64-bit hashes."""

    keys: int
    key_checksum: Decimal


NOBODY = Counted(keys=0, key_checksum=Decimal(0))


def within(range_: KeyRange | None, relation: str) -> str:
    """Return the condition on the keys of a relation: those of a range, or all."""
    return "true" if range_ is None else range_.of(relation)


def between(column: Column, bounds: Sequence[str]) -> list[KeyRange]:
    """Return the ranges that bounds, ascending, cut the keys into."""
    ends = [None, *bounds, None]
    return [KeyRange(column=column, lower=low, upper=high) for low, high in pairwise(ends)]


def bounds_literal(column: Column, bounds: Sequence[str]) -> str:
    """Return bounds as an SQL array."""
    return f"ARRAY[{', '.join(literal(bound) for bound in bounds)}]::{column.postgres_type}[]"


def shares(parts: int) -> str:
    """Return where to cut for parts of the same size, as a list of numbers for SQL."""
    return ", ".join(f"{at / parts:.9f}" for at in range(1, parts))


def counted(found: pa.Table, parts: int) -> list[Counted]:
    """Return what was counted in each of some ranges, nothing where a query has no row for one."""
    rows = {row["shard"]: row for row in found.to_pylist()}
    return [
        Counted(keys=rows[at]["keys"], key_checksum=Decimal(rows[at]["key_checksum"])) if at in rows else NOBODY
        for at in range(1, parts + 1)
    ]
