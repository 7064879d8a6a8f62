"""Every row of the type table, through PostgreSQL and back; and what is refused before a byte travels."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

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
    key_hash,
    model_frame,
)
from tasks.features import QueryRefused
from tasks.transport import Session, StatementFailed, open_session, table_columns
from tests.factories import World, make_pipeline, make_world

INFINITY = math.inf
LONGEST = "é" * 100_000

#: Type as a user declares it -> (type in the table, SQL literals, what is read). None is NULL.
READ: dict[str, tuple[str, list[str], list[Any]]] = {
    "smallint": ("smallint", ["'-32768'", "32767", "0", "NULL"], [-32768, 32767, 0, None]),
    "integer": ("integer", ["'-2147483648'", "2147483647", "NULL"], [-(2**31), 2**31 - 1, None]),
    "bigint": ("bigint", ["'-9223372036854775808'", "9223372036854775807", "NULL"], [-(2**63), 2**63 - 1, None]),
    "real": ("real", ["'infinity'", "'-infinity'", "1.5", "'-0'", "NULL"], [INFINITY, -INFINITY, 1.5, -0.0, None]),
    "double precision": (
        "double precision",
        ["'infinity'", "'-infinity'", "1.7976931348623157e308", "5e-324", "0.1", "'-0'", "NULL"],
        [INFINITY, -INFINITY, 1.7976931348623157e308, 5e-324, 0.1, -0.0, None],
    ),
    "numeric": (
        "numeric",
        ["0.1", "12345678901234567890.123", "'infinity'", "'-infinity'", "1e-200", "NULL"],
        [0.1, 12345678901234567890.123, INFINITY, -INFINITY, 1e-200, None],
    ),
    "numeric(10,2)": ("numeric", ["'-99999999.99'", "0.30", "NULL"], [-99999999.99, 0.3, None]),
    "boolean": ("boolean", ["true", "false", "NULL"], [True, False, None]),
    "text": (
        "text",
        ["''", "'NULL'", "E'a\\\\b\"c\\n'", "'😀\u202e'", f"'{LONGEST}'", "NULL"],
        ["", "NULL", 'a\\b"c\n', "😀\u202e", LONGEST, None],
    ),
    "varchar(10)": ("text", ["'ten chars.'", "''", "NULL"], ["ten chars.", "", None]),
    "char(4)": ("text", ["'ab'", "NULL"], ["ab", None]),
    "name": ("text", ["'a name'", "NULL"], ["a name", None]),
    "mood": ("text", ["'so so'", "'good'", "NULL"], ["so so", "good", None]),
    "email": ("text", ["'A@b.example'", "NULL"], ["A@b.example", None]),
    "amount": ("numeric", ["3.5", "NULL"], [3.5, None]),
    "uuid": (
        "uuid",
        ["'00000000-0000-0000-0000-000000000000'", "'FFFFFFFF-ffff-ffff-ffff-ffffffffffff'", "NULL"],
        ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", None],
    ),
    "date": (
        "date",
        ["'1969-12-31'", "'0001-01-01'", "'9999-12-31'", "'infinity'", "'-infinity'", "NULL"],
        [date(1969, 12, 31), date(1, 1, 1), date(9999, 12, 31), None, None, None],
    ),
    "timestamptz": (
        "timestamp with time zone",
        [
            "'1969-12-31 23:59:59.999999+00'",
            "'2024-03-31 03:30+02'",
            "'0001-01-01 00:00+00'",
            "'9999-12-31 23:59:59.999999+00'",
            "'294276-12-31 00:00+00'",
            "'infinity'",
            "'-infinity'",
            "NULL",
        ],
        [
            datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
            datetime(2024, 3, 31, 1, 30, tzinfo=UTC),
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
            None,
            None,
            None,
            None,
        ],
    ),
    "timestamptz(0)": (
        "timestamp with time zone",
        ["'1969-12-31 23:59:59.4+00'"],
        [datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)],
    ),
    "timestamp": (
        "timestamp without time zone",
        ["'1969-12-31 23:59:59.999999'", "'1583-10-10'", "'infinity'", "'-infinity'", "NULL"],
        [datetime(1969, 12, 31, 23, 59, 59, 999999), datetime(1583, 10, 10), None, None, None],  # noqa: DTZ001
    ),
}

#: Type in the table -> what is written by COPY and read back. Keys and outputs are written; features never are.
WRITTEN: dict[str, list[Any]] = {
    "smallint": [-32768, 32767, None],
    "integer": [-(2**31), 2**31 - 1, None],
    "bigint": [-(2**63), 2**63 - 1, 2**53 + 1, None],
    "real": [1.5, INFINITY, None],
    "double precision": [0.1, 5e-324, -INFINITY, -0.0, None],
    "boolean": [True, False, None],
    "text": ["", "NULL", "{}", '\\"', "😀", LONGEST, None],
    "uuid": ["00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff", None],
    "date": [date(1969, 12, 31), date(1, 1, 1), date(9999, 12, 31), None],
    "timestamp with time zone": [
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(9999, 12, 31, tzinfo=UTC),
        None,
    ],
    "timestamp without time zone": [datetime(1969, 12, 31, 23, 59, 59, 999999), None],  # noqa: DTZ001
    "text[]": [["a", None, ""], [], None, ["NULL", '{"'], ["😀"]],
    "bigint[]": [[2**63 - 1, None, -1], [], None],
    "double precision[]": [[0.1, None, INFINITY], [], None],
}

SCALARS = [name for name, declared in TYPES.items() if declared.kind is not None]


#: The types of READ that users make themselves.
OWN_TYPES = (
    "CREATE TYPE public.mood AS ENUM ('so so', 'good');"
    "CREATE DOMAIN email AS varchar(80) CHECK (VALUE LIKE '%@%'); CREATE DOMAIN amount AS numeric;"
    "CREATE TYPE public.address AS (street text, number integer);"
)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    found = make_world(database_url, tmp_path, rows=None)
    found.execute(OWN_TYPES)
    return found


def column(postgres_type: str, name: str = "x") -> Column:
    return Column(name=name, postgres_type=postgres_type)


def target_of(session: Session, table: str) -> list[Column]:
    """The table as pg_attribute has it: what copy_in is given."""
    return [column(canonical(found), name) for name, found in table_columns(session, "public", table)]


def in_order(values: list[Any]) -> list[Any]:
    return [
        value if value is None or not isinstance(value, float) else (value, math.copysign(1, value)) for value in values
    ]


def test_every_row_of_the_type_table_is_tested_here() -> None:
    assert {found for found, _, _ in READ.values()} == set(SCALARS)
    assert set(WRITTEN) == set(TYPES) - {"numeric"}  # which is read as a double precision and never written


def test_every_type_is_read_as_its_one_arrow_type_with_its_extremes(world: World) -> None:
    with open_session(world.url) as session:
        for declared, (canonical_name, literals, wanted) in READ.items():
            found_type = column(canonical_name)
            rows = ", ".join(f"({n}, {literal}::{declared})" for n, literal in enumerate(literals))
            table = session.table(f"SELECT {found_type.read('v.x')} AS x FROM (VALUES {rows}) AS v(n, x) ORDER BY n")

            assert table.schema.field("x").type == found_type.arrow_type, declared
            assert in_order(table.column("x").to_pylist()) == in_order(wanted), declared


def test_a_column_of_nulls_gives_the_model_the_same_dtype_as_a_full_one(world: World) -> None:
    features = {f"c{n}": declared for n, declared in enumerate(READ) if declared != "bigint"}
    full = ", ".join(f"{READ[declared][1][0]}::{declared} AS {name}" for name, declared in features.items())
    empty = ", ".join(f"NULL::{declared} AS {name}" for name, declared in features.items())
    columns = [column(READ[declared][0], name) for name, declared in features.items()]
    reads = ", ".join(f"{c.read('v.' + c.name)} AS {c.name}" for c in columns)
    with open_session(world.url) as session:
        frames = [
            model_frame(session.table(f"SELECT {reads} FROM (SELECT {values}) AS v {where}"), columns)
            for values, where in ((full, ""), (empty, ""), (full, "WHERE false"))
        ]

    assert [len(frame) for frame in frames] == [1, 1, 0]
    assert list(frames[0].dtypes) == list(frames[1].dtypes) == list(frames[2].dtypes)
    assert frames[1].isna().all(axis=None)


def test_a_bigint_that_float64_cannot_hold_is_refused_as_a_feature_but_travels_as_a_key(world: World) -> None:
    with open_session(world.url) as session:
        table = session.table(f"SELECT {2**53 + 1}::bigint AS account")

    assert table.column("account").to_pylist() == [2**53 + 1]
    with pytest.raises(IntegerTooWide, match="Feature account"):
        model_frame(table, [column("bigint", "account")])


def test_the_hash_of_every_key_is_that_of_its_record_and_sums_exactly(world: World) -> None:
    """Checksums that earlier versions stored stay comparable, whichever way a key is hashed."""
    keys = {name: READ[declared][1] for name, declared in _declared_keys().items()}
    for name, literals in keys.items():
        values = ", ".join(f"({literal}::{name})" for literal in literals)
        for seed in ("0", "7"):
            found = world.one(
                f"SELECT array_agg({key_hash([column(name)], 'v', seed=seed)}) AS own, sum({key_hash([column(name)])}) AS total, "
                f"array_agg(hash_record_extended(ROW(v.x), {seed})) AS record, "
                f"sum(hash_record_extended(ROW(v.x), 0)::numeric) AS exact FROM (VALUES {values}) AS v(x)"
            )
            # A NULL is no key: its record hashes to 0, which adds as little as a hash that is NULL.
            assert [value or 0 for value in found["own"]] == found["record"], name
            assert found["total"] == found["exact"], name
    several = [column("bigint", "a"), column("text", "b")]
    both = f"SELECT {key_hash(several)} = hash_record_extended(ROW(a, b), 0) AS same FROM (VALUES (1::bigint, 'x')) AS v(a, b)"
    assert world.one(both)["same"]
    largest = "SELECT sum(x) AS total FROM (SELECT 9223372036854775807 AS x FROM generate_series(1, 1000)) AS v"
    assert world.one(largest)["total"] == 1000 * (2**63 - 1)


def _declared_keys() -> dict[str, str]:
    return {found: declared for declared, (found, _, _) in READ.items() if TYPES[found].key and declared == found}


def test_every_type_that_is_written_is_read_back_equal(world: World) -> None:
    with open_session(world.url) as session:
        for postgres_type, values in WRITTEN.items():
            session.execute("DROP TABLE IF EXISTS public.written")
            session.execute(f"CREATE TABLE public.written (n integer, x {postgres_type})")
            written = column(postgres_type)
            batch = pa.record_batch({
                "n": pa.array(range(len(values)), pa.int32()), "x": pa.array(values, written.arrow_type)
            })  # fmt: skip
            sent = session.copy_in("public", "written", target_of(session, "written"), [batch], "Writing")
            again = session.table(f"SELECT {written.read('w.x')} AS x FROM public.written AS w ORDER BY n").column("x")

            assert sent == len(values), postgres_type
            assert again.type == written.arrow_type
            assert in_order(again.to_pylist()) == in_order(values), postgres_type


def test_what_is_written_is_the_value_and_not_only_the_same_bytes(world: World) -> None:
    """Read back as text by PostgreSQL, not by the same driver."""
    with open_session(world.url) as session:
        session.execute(
            "CREATE TABLE public.written (a smallint, b bigint, c float8, d uuid, e date, f timestamptz, g text[])"
        )
        one = pa.record_batch({
            "a": pa.array([-3], pa.int16()), "b": pa.array([2**53 + 1], pa.int64()), "c": pa.array([1.5]),
            "d": pa.array(["12345678-1234-5678-1234-567812345678"]), "e": pa.array([date(1969, 7, 20)]),
            "f": pa.array([datetime(1969, 7, 20, 20, 17, 40, 1, UTC)], pa.timestamp("us", "UTC")),
            "g": pa.array([["x", None]]),
        })  # fmt: skip
        session.copy_in("public", "written", target_of(session, "written"), [one], "Writing")

    assert world.rows("SELECT written::text FROM public.written") == [
        (
            '(-3,9007199254740993,1.5,12345678-1234-5678-1234-567812345678,1969-07-20,"1969-07-20 20:17:40.000001+00",'
            '"{x,NULL}")',
        )
    ]


UNSAFE: list[tuple[str, pa.Array, str, str]] = [
    ("bigint", pa.array([1.5]), "double", "int64"),
    ("double precision", pa.array([3], pa.int64()), "int64", "double"),
    ("timestamptz", pa.array([5], pa.int64()), "int64", "timestamp[us, tz=UTC]"),
    ("timestamptz", pa.array([5], pa.timestamp("ns", "UTC")), "timestamp[ns, tz=UTC]", "timestamp[us, tz=UTC]"),
    ("timestamptz", pa.array([5], pa.timestamp("us")), "timestamp[us]", "timestamp[us, tz=UTC]"),
    ("timestamp", pa.array([5], pa.timestamp("us", "UTC")), "timestamp[us, tz=UTC]", "timestamp[us]"),
    ("bigint", pa.array([5], pa.timestamp("us", "UTC")), "timestamp[us, tz=UTC]", "int64"),
    ("date", pa.array([5], pa.int32()), "int32", "date32[day]"),
    ("integer", pa.array([5], pa.int64()), "int64", "int32"),
    ("bigint", pa.array([5], pa.int32()), "int32", "int64"),
    ("real", pa.array([5.0]), "double", "float"),
    ("boolean", pa.array([1], pa.int8()), "int8", "bool"),
    ("uuid", pa.array([b"0" * 16], pa.binary(16)), "fixed_size_binary[16]", "string"),
    ("text", pa.array([b"x"]), "binary", "string"),
    ("bigint[]", pa.array([[1.5]]), "list<item: double>", "list<item: int64>"),
    ("double precision[]", pa.array([[1]], pa.list_(pa.int64())), "list<item: int64>", "list<item: double>"),
    ("text[]", pa.array([[1]], pa.list_(pa.int64())), "list<item: int64>", "list<item: string>"),
]


def test_each_unsafe_pair_is_refused_before_the_first_byte(world: World) -> None:
    with open_session(world.url) as session:
        for postgres_type, values, found, needed in UNSAFE:
            session.execute("DROP TABLE IF EXISTS public.target")
            session.execute(f"CREATE TABLE public.target (x {postgres_type})")
            target = target_of(session, "target")
            with pytest.raises(SchemaDiffers) as refused:
                session.copy_in("public", "target", target, [pa.record_batch({"x": values})], "Writing")

            assert f"x is {found}, the table needs {needed}" in str(refused.value), postgres_type
            assert "Nothing was written" in str(refused.value)
            assert session.table("SELECT count(*) AS n FROM public.target").column("n").to_pylist() == [0], (
                postgres_type
            )


OTHER_COLUMNS: list[tuple[dict[str, list[Any]], str]] = [
    ({"b": ["x"], "a": [1]}, "the order of the columns differs"),
    ({"a": [1]}, "b is missing"),
    ({"a": [1], "b": ["x"], "c": [1]}, "c is not in the table"),
    ({"a": [1], "B": ["x"]}, "b is missing; B is not in the table"),
]


def test_rows_of_other_columns_than_the_table_are_refused_before_the_first_byte(world: World) -> None:
    world.execute("CREATE TABLE public.target (a bigint, b text)")
    with open_session(world.url) as session:
        for batch, difference in OTHER_COLUMNS:
            with pytest.raises(SchemaDiffers, match=difference):
                session.copy_in("public", "target", target_of(session, "target"), [pa.record_batch(batch)], "Writing")

            assert session.table("SELECT count(*) AS n FROM public.target").column("n").to_pylist() == [0]


def test_a_batch_that_changes_its_type_in_the_middle_leaves_nothing_of_the_first(world: World) -> None:
    world.execute("CREATE TABLE public.target (x bigint)")
    good, bad = pa.record_batch({"x": pa.array([1, 2])}), pa.record_batch({"x": pa.array([1.5])})
    with open_session(world.url) as session:
        with pytest.raises(SchemaDiffers, match="x is double, the table needs int64"):
            session.copy_in("public", "target", target_of(session, "target"), [good, bad], "Writing")

        assert session.table("SELECT count(*) AS n FROM public.target").column("n").to_pylist() == [0]


def test_what_the_rows_raise_comes_out_as_it_was_and_the_connection_goes_on(world: World) -> None:
    world.execute("CREATE TABLE public.target (x bigint)")

    def rows() -> Any:
        yield pa.record_batch({"x": pa.array([1, 2])})
        raise ZeroDivisionError("a fault of the model")

    with open_session(world.url) as session:
        session.execute("BEGIN")
        with pytest.raises(ZeroDivisionError, match="a fault of the model"):
            session.copy_in("public", "target", target_of(session, "target"), rows(), "Writing")
        session.execute("ROLLBACK")

        assert session.table("SELECT count(*) AS n FROM public.target").column("n").to_pylist() == [0]


SAYING_VALUES = [
    "SELECT 'tok-7731'::text::integer AS x",
    "SELECT x::date FROM (VALUES ('1-1-1-tok-7731')) AS v(x)",
    "INSERT INTO public.target VALUES ('tok-7731'), ('tok-7731')",
    "INSERT INTO public.checked VALUES ('tok-7731')",
    "SELECT public.shout('tok-7731')",
    "SELECT 'tok-7731'::email",
    "SELECT ('{\"a\": tok-7731}')::json",
    "SELECT to_timestamp('tok-7731', 'YYYY')",
    "SELECT 'x' ~ '(tok-7731'",
    "SELECT 'tok-7731'::public.mood",
    "SELECT xpath('tok-7731(', '<a/>')",
    "SELECT 'a\"tok-7731\"b'::text::integer",
    "SELECT 'a\"tok-7731'::text::integer",
    "SELECT E'a\"tok-7731\\nb'::text::integer",
    "SELECT E'tok-7731\\nb'::text::date",
    "SELECT '{\"a\"tok-7731,'::text::text[]",
    "SELECT 'tok-7731\" is out of range for type integer'::text::integer",
]


def test_no_message_of_the_database_repeats_a_value(world: World) -> None:
    world.execute(
        "CREATE TABLE public.target (x text PRIMARY KEY); CREATE TABLE public.checked (x text CHECK (x = 'y'));"
        "CREATE FUNCTION public.shout(word text) RETURNS text LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'who is %?', word; END $$"
    )
    with open_session(world.url) as session:
        for statement in SAYING_VALUES:
            with pytest.raises(StatementFailed) as failed:
                session.table(statement, "A query")

            assert "tok-7731" not in str(failed.value), statement
            assert failed.value.sqlstate is not None, statement


def test_a_message_of_the_database_keeps_what_is_no_value(world: World) -> None:
    world.execute("CREATE TABLE public.target (x text NOT NULL)")
    said = {
        "SELECT 1 / 0": "division by zero",
        "SELECT '9e999'::text::float8": "(value withheld) is out of range for type double precision",
        "SELECT 'x'::text::integer": "invalid input syntax for type integer: (value withheld)",
        "SELECT no_such FROM public.target": 'column "no_such" does not exist',
        "INSERT INTO public.target VALUES (NULL)": 'null value in column "x" of relation "target" violates not-null constraint',
    }
    with open_session(world.url) as session:
        for statement, words in said.items():
            with pytest.raises(StatementFailed) as failed:
                session.table(statement, "features.sql")

            assert str(failed.value).startswith(f"features.sql failed: {words}. What it read or wrote does not count")


#: What is no feature, its type as the message names it, and the cast that the message gives.
NO_FEATURES = [
    ("interval '1 day'", "interval", "extract(epoch FROM v)::double precision"),
    ("'{}'::jsonb", "jsonb", "(v ->> 'field')::double precision"),
    ("'{}'::json", "json", "(v ->> 'field')::double precision"),
    ("ARRAY[1, 2]", "integer[]", "v[1]"),
    ("ARRAY['a']", "text[]", "v[1]"),
    ("ARRAY[1.5::float8]", "double precision[]", "v[1]"),
    ("int4range(1, 5)", "int4range", "v::text"),
    ("ROW('Main', 5)::public.address", "address", "v::text"),
    ("'12:30'::time", "time without time zone", "extract(epoch FROM v)::double precision"),
    ("5::money", "money", "v::numeric::double precision"),
    ("'\\x00'::bytea", "bytea", "encode(v, 'hex')"),
    ("'10.0.0.1'::inet", "inet", "host(v)"),
    ("B'101'", "bit", "v::text"),
]


def test_a_feature_of_a_type_outside_the_table_is_refused_with_a_cast_that_works(world: World) -> None:
    for expression, postgres_type, cast in NO_FEATURES:
        pipeline = describable(world, f"SELECT b.id, b.as_of, {expression} AS v FROM batch AS b")
        with pytest.raises(TypeNotSupported) as refused:
            world.contract(pipeline)

        assert f"column v is of type {postgres_type}, which cannot be a feature" in str(refused.value)
        assert str(refused.value).startswith("features.sql: ")
        assert f"Write {cast} AS v" in str(refused.value)
        corrected = f"SELECT id, as_of, {cast} AS v FROM (SELECT b.id, b.as_of, {expression} AS v FROM batch AS b) AS x"
        assert [c.name for c in world.contract(describable(world, corrected)).features] == ["v"]


def describable(world: World, features: str, entity: str = "SELECT 1::bigint AS id") -> Any:
    toml = (
        '[entity]\nkey = ["id"]\nquery = "' + entity.replace('"', '\\"') + '"\n[features]\nquery = "features.sql"\n'
        '[predictions]\np = { method = "predict" }\n'
    )
    return make_pipeline(world, "described", toml=toml, features=features, changes=None)


def test_every_kin_of_a_type_is_described_by_its_row_of_the_table(world: World) -> None:
    names = {f"c{n}": declared for n, declared in enumerate(READ)}
    listed = ", ".join(f"NULL::{declared} AS {name}" for name, declared in names.items())

    contract = world.contract(describable(world, f"SELECT b.id, b.as_of, {listed} FROM batch AS b"))

    assert {c.name: c.postgres_type for c in contract.features} == {
        name: READ[declared][0] for name, declared in names.items()
    }


NO_KEYS = ["1.5::numeric", "true", "now()", "1.5::float8", "'{}'::jsonb", "interval '1 day'", "ARRAY[1]"]


def test_a_key_of_a_type_that_cannot_be_one_is_refused(world: World) -> None:
    for expression in NO_KEYS:
        features = "SELECT b.id, b.as_of, 1 AS v FROM batch AS b"
        with pytest.raises(TypeNotSupported, match=r"column id is of type .* which cannot be a key"):
            world.contract(describable(world, features, f"SELECT {expression} AS id"))


def test_a_feature_query_without_a_feature_or_with_one_name_twice_is_refused(world: World) -> None:
    with pytest.raises(QueryRefused, match="it returns no feature beside key and as_of"):
        world.contract(describable(world, "SELECT b.id, b.as_of FROM batch AS b"))
    with pytest.raises(QueryRefused, match=r"it does not return as_of \(it returns id, v\)"):
        world.contract(describable(world, "SELECT b.id, 1 AS v FROM batch AS b"))


HOSTILE = [
    "",
    " ",
    "NULL",
    "null",
    "{}",
    "{a,b}",
    '"',
    '""',
    "'",
    "''",
    "\\",
    "\\\\",
    '\\"',
    "a,b",
    "\n",
    "\t",
    "\r\n",
    "\x01",
    "\u2028",
    "é",
    "e\u0301",
    "😀",
    "\u202eabc",
    "'); DROP TABLE x; --",
    "%s",
    "%(a)s",
    ":when",
    "$1",
    "{x}",
    "--",
    "/*",
    "*/",
    "E'\\n'",
    "\u0000".encode("unicode_escape").decode(),
    "\ufeff",
    "\uffff",
    "𝕋𝕙𝕖",
    "x" * 10_000,
]


def test_an_array_literal_carries_hostile_text_unharmed(world: World) -> None:
    literal = array_literal(pa.array(HOSTILE), column("text"))
    with open_session(world.url) as session:
        found = session.table(f"SELECT x FROM unnest({literal}) WITH ORDINALITY AS u(x, n) ORDER BY n")

    assert found.column("x").to_pylist() == HOSTILE
    # The control path, another driver, reads the same literal.
    assert (
        world.rows(f"SELECT array_agg(x ORDER BY n) FROM unnest({literal}) WITH ORDINALITY AS u(x, n)")[0][0] == HOSTILE
    )


def test_keys_of_every_type_travel_as_an_array_literal(world: World) -> None:
    with open_session(world.url) as session:
        for postgres_type in ("smallint", "integer", "bigint", "uuid", "date"):
            key = column(postgres_type)
            values = [value for value in WRITTEN[postgres_type] if value is not None]
            literal = array_literal(pa.array(values, key.arrow_type), key)
            found = session.table(
                f"SELECT {key.read('u.x')} AS x FROM unnest({literal}) WITH ORDINALITY AS u(x, n) ORDER BY n"
            )

            assert found.column("x").to_pylist() == values, postgres_type
