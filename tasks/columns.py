"""The type table: each PostgreSQL type that prescore moves has exactly one Arrow type, both ways, and one look for the model.

Binary COPY casts nothing and checks little: it stored 1.5 as 4609434218613702656 (float64 into bigint), 3 as 1.5e-323
(int64 into double precision) and 5 as the year 2000 (int64 into timestamptz). So nothing is read or written but through
this table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.database import quote
from tasks.errors import PrescoreError
from tasks.usersql.naming import written

if TYPE_CHECKING:
    import pandas as pd


class Kind(StrEnum):
    """What the model sees of a column; it depends on the PostgreSQL type alone, never on what a batch contains."""

    #: float64; NULL is NaN.
    NUMBER = "number"
    #: object; str or None.
    TEXT = "text"
    #: datetime64[us, UTC]; NULL, infinity and whatever is after the year 294246 are NaT.
    TIME = "time"


@dataclass(frozen=True, kw_only=True)
class _Type:
    arrow: pa.DataType
    kind: Kind | None
    #: Expression that reads the column as this Arrow type; None reads it as it is.
    read: str | None = None
    key: bool = False
    #: PostgreSQL's own 64-bit hash of the type; None where there is none by that name in every version.
    hash: str | None = None


# Microseconds since 1970 end in January 294247, PostgreSQL's instants 30 years later and its dates much later: the driver
# would let the last of them overflow into the past. Like infinity they stand for never, and read as NULL.
_INSTANT = "CASE WHEN {0} > '-infinity' AND {0} < '294247-01-01' THEN {0} END"
_LAST_DAY = 106_751_981  # 294246-12-31, in days since 1970

# Texts looked at to learn whether they repeat. Measured a column of 2 M texts: with 16 different ones 0.04 s as codes and
# 0.08 s one by one; where all differ, codes take twice as long.
_LOOKED_AT = 1_024

#: PostgreSQL type -> how it travels. numeric loses digits beyond the 15th as a feature (documented loss).
TYPES: dict[str, _Type] = {
    "smallint": _Type(arrow=pa.int16(), kind=Kind.NUMBER, key=True, hash="hashint2extended"),
    "integer": _Type(arrow=pa.int32(), kind=Kind.NUMBER, key=True, hash="hashint4extended"),
    "bigint": _Type(arrow=pa.int64(), kind=Kind.NUMBER, key=True, hash="hashint8extended"),
    "real": _Type(arrow=pa.float32(), kind=Kind.NUMBER),
    "double precision": _Type(arrow=pa.float64(), kind=Kind.NUMBER),
    "numeric": _Type(arrow=pa.float64(), kind=Kind.NUMBER, read="{}::double precision"),
    "boolean": _Type(arrow=pa.bool_(), kind=Kind.NUMBER),
    "text": _Type(arrow=pa.string(), kind=Kind.TEXT, read="{}::text", key=True, hash="hashtextextended"),
    "uuid": _Type(arrow=pa.string(), kind=Kind.TEXT, read="{}::text", key=True, hash="uuid_hash_extended"),
    "date": _Type(arrow=pa.date32(), kind=Kind.TIME, read="CASE WHEN isfinite({0}) THEN {0} END", key=True),
    "timestamp with time zone": _Type(arrow=pa.timestamp("us", "UTC"), kind=Kind.TIME, read=_INSTANT),
    "timestamp without time zone": _Type(arrow=pa.timestamp("us"), kind=Kind.TIME, read=_INSTANT),
    "text[]": _Type(arrow=pa.list_(pa.string()), kind=None),
    "bigint[]": _Type(arrow=pa.list_(pa.int64()), kind=None),
    "double precision[]": _Type(arrow=pa.list_(pa.float64()), kind=None),
}

#: Types that travel as text: PostgreSQL's name of the type or of its base type -> our name.
_AS_TEXT = {"character varying", "character", "citext", "name"}

#: What to write instead of a type that cannot be a feature.
_CASTS = {
    "interval": "extract(epoch FROM {column})::double precision",
    "jsonb": "({column} ->> 'field')::double precision",
    "json": "({column} ->> 'field')::double precision",
    "money": "{column}::numeric::double precision",
    "time without time zone": "extract(epoch FROM {column})::double precision",
    "time with time zone": "extract(epoch FROM {column})::double precision",
    "bytea": "encode({column}, 'hex')",
    "inet": "host({column})",
    "cidr": "{column}::text",
    "bit": "{column}::text",
}


#: What to write instead of a type that cannot be a key.
_KEY_CASTS = {
    "numeric": "{column}::bigint",
    "double precision": "{column}::bigint",
    "real": "{column}::bigint",
    "boolean": "{column}::integer",
}


def cast_of(expression: str, postgres_type: str, *, key: bool = False) -> str:
    """Return what to write instead of an expression of a type that is not in the type table, or cannot be a key."""
    if postgres_type.endswith("[]"):
        element = postgres_type.removesuffix("[]")
        pattern = "{column}" if element in TYPES or element in _AS_TEXT else _CASTS.get(element, "{column}::text")
        return pattern.format(column=f"{expression}[1]")
    casts = {**_CASTS, **_KEY_CASTS} if key else _CASTS
    return casts.get(postgres_type, "{column}::text").format(column=expression)


class TypeNotSupported(PrescoreError):
    """Columns have types that are not in the type table; ``refused`` holds their names and types."""

    def __init__(self, refused: Sequence[tuple[str, str]], origin: str, use: str) -> None:
        self.refused = tuple(refused)
        self.column, self.postgres_type = self.refused[0]
        found = "; ".join(f"column {name} is of type {kind}, which cannot be {use}" for name, kind in self.refused)
        write = ", ".join(
            f"{cast_of(written(name), kind, key=use == 'a key')} AS {written(name)}" for name, kind in self.refused
        )
        super().__init__(
            f"{origin}: {found}. Nothing was scored. Write {write}, or another expression of a type in the README's "
            "type table."
        )


class SchemaDiffers(PrescoreError):
    """Rows do not fit the table that they are meant for."""

    def __init__(self, table: str, differences: list[str]) -> None:
        self.table, self.differences = table, differences
        super().__init__(
            f"Rows for {table} do not fit it: {'; '.join(differences)}. Nothing was written. This is a fault of prescore "
            "or of a table changed by hand; compare the table with the pipeline's declaration."
        )


class IntegerTooWide(PrescoreError):
    """A bigint feature holds integers that float64 cannot."""

    def __init__(self, column: str) -> None:
        self.column = column
        super().__init__(
            f"Feature {column} holds integers beyond 2^53, which a float64 cannot tell apart. Nothing was scored. "
            f"Cast {column} to text if it is a category or an id, or to double precision to accept the loss."
        )


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column with the PostgreSQL type that decides how it travels and what the model sees."""

    name: str
    #: Name in the type table; ``columns.canonical`` finds it for what PostgreSQL reports.
    postgres_type: str

    def __post_init__(self) -> None:
        if self.postgres_type not in TYPES:
            raise KeyError(f"{self.postgres_type} is not in the type table")

    @property
    def arrow_type(self) -> pa.DataType:
        """The one Arrow type of this column."""
        return TYPES[self.postgres_type].arrow

    @property
    def kind(self) -> Kind:
        """What the model sees; ``ValueError`` for types that only outputs have."""
        kind = TYPES[self.postgres_type].kind
        if kind is None:
            raise ValueError(f"{self.postgres_type} is not a type of features")
        return kind

    def read(self, expression: str) -> str:
        """Return the SQL expression that reads ``expression`` as this column's Arrow type."""
        pattern = TYPES[self.postgres_type].read
        return expression if pattern is None else pattern.format(expression)


def canonical(postgres_type: str, typtype: str = "b") -> str:
    """Return the type table's name for what ``format_type`` reports, or the name itself when it is not in the table.

    ``typtype`` is that of pg_type: ``e`` for an enum, which travels as text. Modifiers such as (10,2) are dropped.
    """
    base = postgres_type.split("(", 1)[0].strip()
    if ")" in postgres_type:
        base = (base + postgres_type.rsplit(")", 1)[1]).strip()
    last = base.rsplit(".", 1)[-1].strip('"')
    if typtype == "e" or last in _AS_TEXT:
        return "text"
    return base


def feature_column(name: str, postgres_type: str, typtype: str, origin: str) -> Column:
    """Return the column of a feature.

    Raises
    ------
    TypeNotSupported
        For a type that is not in the table, with the cast to write.
    """
    found = canonical(postgres_type, typtype)
    if found not in TYPES or TYPES[found].kind is None:
        raise TypeNotSupported([(name, found)], origin, "a feature")
    return Column(name=name, postgres_type=found)


def feature_columns(described: Sequence[tuple[str, str, str]], origin: str) -> tuple[Column, ...]:
    """Return the columns of features, described by name, type and ``typtype``.

    Raises
    ------
    TypeNotSupported
        Naming every column whose type is not in the table, with the casts to write.
    """
    return _supported(described, origin, "a feature", feature_column)


def key_columns(described: Sequence[tuple[str, str, str]], origin: str) -> tuple[Column, ...]:
    """Return the columns of a key, described by name, type and ``typtype``; raises as :func:`feature_columns` does."""
    return _supported(described, origin, "a key", key_column)


def _supported(
    described: Sequence[tuple[str, str, str]], origin: str, use: str, column: Callable[[str, str, str, str], Column]
) -> tuple[Column, ...]:
    columns: list[Column] = []
    refused: list[tuple[str, str]] = []
    for name, postgres_type, typtype in described:
        try:
            columns.append(column(name, postgres_type, typtype, origin))
        except TypeNotSupported as error:
            refused += error.refused
    if refused:
        raise TypeNotSupported(refused, origin, use)
    return tuple(columns)


def key_column(name: str, postgres_type: str, typtype: str, origin: str) -> Column:
    """Return the column of a key: smallint, integer, bigint, text, uuid or date."""
    found = canonical(postgres_type, typtype)
    if found not in TYPES or not TYPES[found].key:
        raise TypeNotSupported([(name, found)], origin, "a key")
    return Column(name=name, postgres_type=found)


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """Return the Arrow schema of these columns, in order."""
    return pa.schema([pa.field(column.name, column.arrow_type) for column in columns])


def model_frame(batch: pa.RecordBatch | pa.Table, columns: Sequence[Column]) -> pd.DataFrame:
    """Return what preprocessing and the model see of a batch.

    Shape ``(n_rows, len(columns))``, a fresh frame with index 0..n-1. Numbers and booleans are float64 (NULL is NaN),
    text and uuid are object (str or None), dates and times are datetime64[us, UTC] (NULL is NaT).

    Raises
    ------
    IntegerTooWide
        When a bigint is beyond 2^53.
    """
    import pandas as pd

    series: dict[str, pd.Series[Any]] = {}
    for column in columns:
        series[column.name] = _seen(whole(batch, column.name), column)
    return pd.DataFrame(series, columns=[column.name for column in columns], copy=False)


def _seen(values: pa.Array, column: Column) -> pd.Series[Any]:
    import pandas as pd

    match column.kind:
        case Kind.TEXT:
            return pd.Series(model_texts(values), dtype=object)
        case Kind.TIME:
            if pa.types.is_date(values.type):
                values = pc.if_else(pc.less_equal(values.cast(pa.int32()), _LAST_DAY), values, None)
            instants = values.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
            return pd.Series(instants.astype("datetime64[us]")).dt.tz_localize("UTC")
        case Kind.NUMBER:
            # A copy even where Arrow needs none: a preprocess that writes into its frame must not reach the batch.
            return pd.Series(np.array(model_numbers(values, column)), dtype="float64")


def model_texts(values: pa.Array) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Return texts as Python objects; where they repeat, one object for each different text."""
    if pa.types.is_dictionary(values.type):
        encoded = values
    else:
        first = values[:_LOOKED_AT]
        if 2 * pc.count_distinct(first).as_py() > len(first):
            return np.asarray(values.cast(pa.string()).to_numpy(zero_copy_only=False))
        encoded = values.dictionary_encode()
    different = len(encoded.dictionary)
    objects = np.empty(different + 1, dtype=object)  # the last one stays None, for NULL
    objects[:different] = encoded.dictionary.cast(pa.string()).to_numpy(zero_copy_only=False)
    codes = encoded.indices.fill_null(different) if encoded.indices.null_count else encoded.indices
    return np.asarray(objects.take(codes.to_numpy()))


def require_exact(values: pa.Array, column: Column) -> None:
    """Refuse integers that float64 does not hold.

    Raises
    ------
    IntegerTooWide
        When a bigint is beyond 2^53.
    """
    if pa.types.is_int64(values.type):
        limits = pc.min_max(values)
        low, high = limits["min"].as_py(), limits["max"].as_py()
        if low is not None and (low < -(2**53) or high > 2**53):
            raise IntegerTooWide(column.name)


def model_numbers(values: pa.Array, column: Column) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return numbers and booleans as a model sees them: contiguous float64, NULL is NaN; not to be written to.

    Raises
    ------
    IntegerTooWide
        When a bigint is beyond 2^53.
    """
    require_exact(values, column)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    floats = values if pa.types.is_float64(values.type) else values.cast(pa.float64())
    return np.asarray(floats.to_numpy(zero_copy_only=False), dtype=np.float64)


def storable(values: pa.Array, column: Column) -> pa.Array:
    """Return the values as the bytes that COPY needs: a uuid travels as text and is stored as its 16 bytes."""
    if column.postgres_type != "uuid":
        return values
    digits = pc.replace_substring(values, "-", "")
    joined = "".join(digit for digit in digits.drop_null().to_pylist())
    raw = np.zeros((len(values), 16), dtype=np.uint8)
    raw[pc.is_valid(values).to_numpy(zero_copy_only=False)] = np.frombuffer(bytes.fromhex(joined), np.uint8).reshape(
        -1, 16
    )
    mask = pc.is_null(values).to_numpy(zero_copy_only=False)
    stored = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(values), [None, pa.py_buffer(raw.tobytes())])
    return pc.if_else(pa.array(mask), pa.scalar(None, pa.binary(16)), stored) if mask.any() else stored


def array_literal(values: pa.Array, column: Column) -> str:
    """Return values as an SQL array literal with its cast, made without a loop over rows.

    Used to hand selected keys (and their as_of) to a query: 200,000 keys travel in 0.27 s. NULL is not a key.
    """
    text = values.cast(pa.string())
    if column.kind is Kind.TEXT:
        for found, replacement in (("\\", "\\\\"), ('"', '\\"'), ("'", "''")):
            text = pc.replace_substring(text, found, replacement)
    quoted = pc.binary_join_element_wise('"', text, '"', "")
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(quoted)], pa.int32()), quoted), ",")[0].as_py()
    return f"'{{{joined}}}'::{column.postgres_type}[]"


def key_arrays(keys: pa.Table, key: Sequence[Column]) -> str:
    """Return the key columns of a table as SQL array literals, one per column, for ``unnest``."""
    return ", ".join(array_literal(whole(keys, column.name), column) for column in key)


def key_hash(key: Sequence[Column], relation: str = "", *, seed: str = "0") -> str:
    """Return the SQL expression of the 64-bit hash of a key: that of ``hash_record_extended(ROW(...), seed)``.

    For one column it is the hash of its type, as the record's is, without making a record: over a million bigint keys the sum
    took 20 ms instead of 120, and 190 with each hash made numeric, which sum() needs as little: a sum of bigints is a numeric.
    """
    names = [(f"{relation}." if relation else "") + quote(column.name) for column in key]
    own = TYPES[key[0].postgres_type].hash if len(key) == 1 else None
    return f"hash_record_extended(ROW({', '.join(names)}), {seed})" if own is None else f"{own}({names[0]}, {seed})"


def whole(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    """Return a column of a table as one array."""
    column = table.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def stored_as(arrow_type: pa.DataType) -> str | None:
    """Return the type table's name for values of a Parquet file, or None for a type that is not in the table.

    Unsigned integers need a wider signed one; decimals are doubles to the model (documented loss); dictionaries count by
    their values; 16 bytes are a uuid.
    """
    if pa.types.is_dictionary(arrow_type):
        return stored_as(arrow_type.value_type)
    return next((name for fits, name in _STORED if fits(arrow_type)), None)


def _is_uuid(arrow_type: pa.DataType) -> bool:
    sixteen: bool = pa.types.is_fixed_size_binary(arrow_type) and arrow_type.byte_width == 16
    return sixteen or bool(getattr(arrow_type, "extension_name", "") == "arrow.uuid")


def _is_any_text(arrow_type: pa.DataType) -> bool:
    return arrow_type in {pa.string(), pa.large_string(), pa.string_view()}


_STORED: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_boolean, "boolean"),
    (lambda t: t in {pa.int8(), pa.int16(), pa.uint8()}, "smallint"),
    (lambda t: t in {pa.int32(), pa.uint16()}, "integer"),
    (lambda t: t in {pa.int64(), pa.uint32()}, "bigint"),
    (lambda t: t in {pa.float16(), pa.float32()}, "real"),
    (pa.types.is_float64, "double precision"),
    (pa.types.is_decimal, "numeric"),
    (_is_any_text, "text"),
    (_is_uuid, "uuid"),
    (pa.types.is_date, "date"),
    (lambda t: pa.types.is_timestamp(t) and t.tz is not None, "timestamp with time zone"),
    (pa.types.is_timestamp, "timestamp without time zone"),
)


def from_stored(values: pa.Array, arrow_type: pa.DataType) -> pa.Array:
    """Return values of a Parquet file as the Arrow type of the table.

    An instant loses what is below a microsecond; a uuid becomes the text that PostgreSQL writes.

    Raises
    ------
    pyarrow.ArrowInvalid
        When an integer or a date is out of range.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_string(arrow_type) and pa.types.is_fixed_size_binary(values.type):
        return _uuid_text(values)
    if values.type == arrow_type:
        return values
    return values.cast(arrow_type, safe=not (pa.types.is_timestamp(arrow_type) or pa.types.is_floating(arrow_type)))


def _uuid_text(values: pa.Array) -> pa.Array:
    written = [None if raw is None else raw.hex() for raw in values.to_pylist()]
    digits = pa.array(written, pa.string())
    parts = [pc.utf8_slice_codeunits(digits, start, stop) for start, stop in _UUID_PARTS]
    return pc.binary_join_element_wise(*parts, "-")


_UUID_PARTS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
