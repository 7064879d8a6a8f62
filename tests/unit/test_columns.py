"""The type table: what the model sees of a column, and what is refused before a byte of it is written."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks.columns import (
    TYPES,
    Column,
    IntegerTooWide,
    SchemaDiffers,
    TypeNotSupported,
    array_literal,
    canonical,
    feature_column,
    key_column,
    model_frame,
    storable,
)
from tasks.transport import require_schema

FEATURE_TYPES = [name for name, declared in TYPES.items() if declared.kind is not None]
WANTED_DTYPES = {
    "smallint": "float64",
    "integer": "float64",
    "bigint": "float64",
    "real": "float64",
    "double precision": "float64",
    "numeric": "float64",
    "boolean": "float64",
    "text": "object",
    "uuid": "object",
    "date": "datetime64[us, UTC]",
    "timestamp with time zone": "datetime64[us, UTC]",
    "timestamp without time zone": "datetime64[us, UTC]",
}
VALUES: dict[str, Any] = {
    "smallint": 7,
    "integer": 7,
    "bigint": 7,
    "real": 0.5,
    "double precision": 0.5,
    "numeric": 0.5,
    "boolean": True,
    "text": "seven",
    "uuid": "12345678-1234-5678-1234-567812345678",
    "date": date(1969, 12, 31),
    "timestamp with time zone": datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
    "timestamp without time zone": datetime(1969, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
}


def column(postgres_type: str, name: str = "x") -> Column:
    return Column(name=name, postgres_type=postgres_type)


def batch(postgres_type: str, values: list[Any]) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(values, TYPES[postgres_type].arrow)})


def test_every_type_of_a_feature_is_tested_here() -> None:
    assert sorted(FEATURE_TYPES) == sorted(WANTED_DTYPES) == sorted(VALUES)


@pytest.mark.parametrize("postgres_type", FEATURE_TYPES)
def test_what_the_model_sees_depends_on_the_postgres_type_alone(postgres_type: str) -> None:
    value = VALUES[postgres_type]
    contents = ([], [None, None], [value, value], [value, None])

    dtypes = {str(model_frame(batch(postgres_type, values), [column(postgres_type)])["x"].dtype) for values in contents}

    assert dtypes == {WANTED_DTYPES[postgres_type]}


@pytest.mark.parametrize("postgres_type", FEATURE_TYPES)
def test_null_becomes_what_a_missing_value_is_for_its_kind(postgres_type: str) -> None:
    seen = model_frame(batch(postgres_type, [None]), [column(postgres_type)])["x"].iloc[0]

    if WANTED_DTYPES[postgres_type] == "object":
        assert seen is None
    else:
        assert pd.isna(seen)


def test_the_frame_has_the_columns_in_the_order_that_is_asked_for_and_a_plain_index() -> None:
    rows = pa.record_batch({"a": pa.array([1, 2], pa.int64()), "b": pa.array(["x", None]), "c": pa.array([True, None])})
    wanted = [column("boolean", "c"), column("text", "b"), column("bigint", "a")]

    frame = model_frame(rows, wanted)

    assert list(frame.columns) == ["c", "b", "a"]
    assert list(frame.index) == [0, 1]
    assert frame["c"].tolist()[0] == 1.0
    assert np.isnan(frame["c"].tolist()[1])
    assert frame["b"].tolist() == ["x", None]


def test_a_table_of_many_chunks_gives_the_same_frame_as_one_batch() -> None:
    columns = [column("bigint", "a"), column("text", "b"), column("date", "c")]
    one = pa.table({
        "a": pa.array([1, None, 3], pa.int64()),
        "b": pa.array(["x", None, "z"]),
        "c": pa.array([date(1900, 1, 1), None, date(2100, 1, 1)]),
    })  # fmt: skip
    many = pa.concat_tables([one.slice(0, 1), one.slice(1, 2)])

    pd.testing.assert_frame_equal(model_frame(one, columns), model_frame(many, columns))


def test_writing_into_the_frame_does_not_reach_the_batch() -> None:
    rows = batch("double precision", [1.0, 2.0])

    frame = model_frame(rows, [column("double precision")])
    frame["x"] = 0.0
    frame.loc[0, "x"] = 9.0

    assert rows.column(0).to_pylist() == [1.0, 2.0]


def test_times_keep_their_microseconds_on_both_sides_of_1970() -> None:
    instants = [
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2262, 4, 12, tzinfo=UTC),
    ]

    seen = model_frame(batch("timestamp with time zone", instants), [column("timestamp with time zone")])["x"]

    assert [at.isoformat() for at in seen] == [at.isoformat() for at in instants]


def test_infinity_and_nan_of_a_float_are_kept() -> None:
    values = [float("inf"), float("-inf"), float("nan"), None, -0.0]

    seen = model_frame(batch("double precision", values), [column("double precision")])["x"].tolist()

    assert seen[:2] == [np.inf, -np.inf]
    assert np.isnan(seen[2])
    assert np.isnan(seen[3])
    assert seen[4] == 0.0


@pytest.mark.parametrize("wide", [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)])
def test_an_integer_that_float64_cannot_hold_is_refused_by_name_and_without_its_value(wide: int) -> None:
    with pytest.raises(IntegerTooWide) as refused:
        model_frame(pa.record_batch({"account": pa.array([1, wide], pa.int64())}), [column("bigint", "account")])

    assert refused.value.column == "account"
    assert str(wide) not in str(refused.value)
    assert "Cast account to text" in str(refused.value)


@pytest.mark.parametrize("narrow", [2**53, -(2**53)])
def test_the_last_integer_that_float64_holds_is_a_feature(narrow: int) -> None:
    seen = model_frame(batch("bigint", [narrow, None]), [column("bigint")])["x"]

    assert int(seen.iloc[0]) == narrow


def test_a_column_of_a_type_outside_the_table_cannot_be_made() -> None:
    with pytest.raises(KeyError, match="interval"):
        column("interval")


def test_an_array_has_no_look_for_the_model() -> None:
    with pytest.raises(ValueError, match="not a type of features"):
        _ = column("text[]").kind


@pytest.mark.parametrize(
    ("reported", "typtype", "wanted"),
    [
        ("numeric(10,2)", "b", "numeric"),
        ("character varying(40)", "b", "text"),
        ("character(3)", "b", "text"),
        ("name", "b", "text"),
        ("public.citext", "b", "text"),
        ("citext", "b", "text"),
        ("shop.mood", "e", "text"),
        ('shop."Mood"', "e", "text"),
        ("timestamp(3) with time zone", "b", "timestamp with time zone"),
        ("timestamp(0) without time zone", "b", "timestamp without time zone"),
        ("numeric(10,2)[]", "b", "numeric[]"),
        ("bit(3)", "b", "bit"),
        ("interval", "b", "interval"),
    ],
)
def test_what_postgres_reports_is_found_in_the_table(reported: str, typtype: str, wanted: str) -> None:
    assert canonical(reported, typtype) == wanted


@pytest.mark.parametrize(
    ("postgres_type", "cast"),
    [
        ("interval", "extract(epoch FROM wait)::double precision"),
        ("jsonb", "(wait ->> 'field')::double precision"),
        ("text[]", "wait[1]"),
        ("integer[]", "wait[1]"),
        ("int4range", "wait::text"),
        ("shop.address", "wait::text"),
        ("money", "wait::numeric::double precision"),
    ],
)
def test_a_type_outside_the_table_is_refused_as_a_feature_with_the_cast_to_write(postgres_type: str, cast: str) -> None:
    with pytest.raises(TypeNotSupported) as refused:
        feature_column("wait", postgres_type, "b", "features.sql")

    assert f"features.sql: column wait is of type {postgres_type}, which cannot be a feature" in str(refused.value)
    assert f"Write {cast} AS wait" in str(refused.value)
    assert "Nothing was scored" in str(refused.value)


@pytest.mark.parametrize(
    "postgres_type", ["double precision", "numeric", "boolean", "timestamp with time zone", "real", "bytea"]
)
def test_a_type_that_is_not_exact_or_orderable_is_no_key(postgres_type: str) -> None:
    with pytest.raises(TypeNotSupported, match="which cannot be a key"):
        key_column("id", postgres_type, "b", "pipeline.toml [entity] query")


@pytest.mark.parametrize("postgres_type", ["smallint", "integer", "bigint", "text", "uuid", "date"])
def test_every_exact_and_orderable_type_is_a_key(postgres_type: str) -> None:
    assert key_column("id", postgres_type, "b", "the entity query").postgres_type == postgres_type


TARGET = [
    column("bigint", "id"),
    column("double precision", "p"),
    column("timestamp with time zone", "at"),
    column("text[]", "top"),
]
FITTING: dict[str, pa.DataType] = {
    "id": pa.int64(),
    "p": pa.float64(),
    "at": pa.timestamp("us", "UTC"),
    "top": pa.list_(pa.string()),
}


def test_rows_that_fit_a_table_exactly_are_let_through() -> None:
    require_schema("prescore_rows.items_1", pa.schema(list(FITTING.items())), TARGET)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"id": pa.float64()}, "id is double, the table needs int64"),
        ({"id": pa.int32()}, "id is int32, the table needs int64"),
        ({"p": pa.int64()}, "p is int64, the table needs double"),
        ({"p": pa.float32()}, "p is float, the table needs double"),
        ({"p": pa.decimal128(10, 2)}, "p is decimal128(10, 2), the table needs double"),
        ({"at": pa.int64()}, "at is int64, the table needs timestamp[us, tz=UTC]"),
        ({"at": pa.timestamp("ns", "UTC")}, "at is timestamp[ns, tz=UTC], the table needs timestamp[us, tz=UTC]"),
        ({"at": pa.timestamp("ms", "UTC")}, "at is timestamp[ms, tz=UTC], the table needs timestamp[us, tz=UTC]"),
        ({"at": pa.timestamp("us")}, "at is timestamp[us], the table needs timestamp[us, tz=UTC]"),
        ({"at": pa.date32()}, "at is date32[day], the table needs timestamp[us, tz=UTC]"),
        ({"top": pa.list_(pa.int64())}, "top is list<item: int64>, the table needs list<item: string>"),
        ({"top": pa.string()}, "top is string, the table needs list<item: string>"),
        ({"top": pa.large_list(pa.string())}, "top is large_list<item: string>, the table needs list<item: string>"),
    ],
)  # fmt: skip
def test_a_type_that_binary_copy_would_take_for_another_is_refused(
    changed: dict[str, pa.DataType], difference: str
) -> None:
    schema = pa.schema(list({**FITTING, **changed}.items()))

    with pytest.raises(SchemaDiffers) as refused:
        require_schema("prescore_rows.items_1", schema, TARGET)

    assert difference in str(refused.value)
    assert "Nothing was written" in str(refused.value)
    assert refused.value.table == "prescore_rows.items_1"


@pytest.mark.parametrize(
    ("names", "difference"),
    [
        (["p", "id", "at", "top"], "the order of the columns differs"),
        (["id", "p", "at"], "top is missing"),
        (["id", "p", "at", "top", "more"], "more is not in the table"),
        (["id", "q", "at", "top"], "p is missing; q is not in the table"),
    ],
)
def test_columns_that_are_missing_extra_or_in_another_order_are_refused(names: list[str], difference: str) -> None:
    schema = pa.schema([(name, FITTING.get(name, pa.int64())) for name in names])

    with pytest.raises(SchemaDiffers, match=difference):
        require_schema("prescore_rows.items_1", schema, TARGET)


def test_a_uuid_becomes_its_sixteen_bytes_wherever_the_array_starts_and_null_stays_null() -> None:
    found = [uuid.UUID(int=n * 2**64 + 1) for n in range(5)]
    texts = pa.array([str(found[0]), None, str(found[2]), str(found[3]), None])

    stored = storable(texts.slice(1), column("uuid"))

    assert stored.type == pa.binary(16)
    assert stored.to_pylist() == [None, found[2].bytes, found[3].bytes, None]
    assert storable(pa.array([], pa.string()), column("uuid")).to_pylist() == []


def test_an_array_literal_escapes_what_postgres_would_read_otherwise() -> None:
    literal = array_literal(pa.array(['a"b', "c\\d", "e'f", "{g,h}", "NULL", ""]), column("text"))

    assert literal == '\'{"a\\"b","c\\\\d","e\'\'f","{g,h}","NULL",""}\'::text[]'
    assert array_literal(pa.array([], pa.string()), column("text")) == "'{}'::text[]"
    assert array_literal(pa.array([1, -2], pa.int64()), column("bigint")) == '\'{"1","-2"}\'::bigint[]'
