"""A fingerprint is that of the row as the model sees it: the same row has the same one, another row has another."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from tasks.columns import Column
from tasks.fingerprints import fingerprint
from tests.factories import World, make_world

#: Type -> values that a model tells apart.
APART = {
    "double precision": [
        "NULL",
        "'NaN'",
        "0",
        "'-0'",
        "1",
        "-1",
        "5e-324",
        "'inf'",
        "'-inf'",
        "0.1",
        "0.30000000000000004",
    ],
    "real": ["NULL", "'NaN'", "0", "'-0'", "1", "'inf'", "0.1"],
    "numeric": ["NULL", "'NaN'", "0", "0.1", "123456789012345"],
    "bigint": ["NULL", "0", "1", "-1", "4294967296", "4294967297", "9007199254740991"],
    "integer": ["NULL", "0", "1", "-1", "2147483647"],
    "smallint": ["NULL", "0", "1", "-32768"],
    "boolean": ["NULL", "true", "false"],
    "text": ["NULL", "''", "'a'", "'A'", "'a '", "'á'", "'a' || chr(769)"],
    "uuid": ["NULL", "'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000002'"],
    "date": ["NULL", "'2026-03-01'", "'2000-01-01'", "'1999-12-31'", "'280000-01-01'"],
    "timestamp with time zone": [
        "NULL",
        "'2026-03-01 12:00+00'",
        "'2026-03-01 12:00:00.000001+00'",
        "'1960-01-01 00:00+00'",
    ],
    "timestamp without time zone": [
        "NULL",
        "'2026-03-01 12:00'",
        "'2026-03-01 13:11:34.967295'",
        "'0044-03-15 12:00 BC'",
    ],
}


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    return make_world(database_url, tmp_path, rows=None)


def prints(world: World, rows: list[str], *columns: Column, setting: str = "") -> list[int]:
    """Return the fingerprints of rows, each the values of the columns as SQL."""
    names = ", ".join(f'"{column.name}"' for column in columns)
    values = ", ".join(f"({number}, {row})" for number, row in enumerate(rows))
    found = fingerprint(columns, "features")
    return [
        row[0]
        for row in world.rows(
            f"{setting}SELECT {found} FROM (VALUES {values}) AS features(n, {names}) ORDER BY features.n"
        )
    ]


def typed(value: str, postgres_type: str) -> str:
    return f"({value})::{postgres_type}"


def test_values_that_a_model_tells_apart_have_fingerprints_of_their_own(world: World) -> None:
    for postgres_type, values in APART.items():
        rows = [typed(value, postgres_type) for value in values]
        found = prints(world, rows, Column(name="x", postgres_type=postgres_type))
        same = [(a, b) for (a, one), (b, two) in combinations(zip(values, found, strict=True), 2) if one == two]
        assert not same, postgres_type


def test_what_a_model_sees_alike_has_one_fingerprint_whatever_it_is_stored_as(world: World) -> None:
    def one(value: str, postgres_type: str, setting: str = "") -> int:
        return prints(
            world, [typed(value, postgres_type)], Column(name="x", postgres_type=postgres_type), setting=setting
        )[0]

    numbers = ("smallint", "integer", "bigint", "real", "double precision", "numeric")
    assert len({one("7", postgres_type) for postgres_type in numbers}) == 1
    instant = "timestamp with time zone"
    assert len({one(f"'{text}'", instant) for text in ("2026-03-01 12:00+00", "2026-03-01 14:00+02")}) == 1
    assert one("'2026-03-01 12:00+00'", instant) == one("'2026-03-01 12:00'", "timestamp without time zone")
    assert one("'infinity'", instant) == one("NULL", instant)
    assert one("'infinity'", "date") == one("NULL", "date")
    for setting in ("SET TimeZone = 'Asia/Tokyo'; ", "SET extra_float_digits = 0; ", "SET DateStyle = 'German'; "):
        assert one("'2026-03-01 12:00+00'", instant, setting) == one("'2026-03-01 12:00+00'", instant)
        assert one("0.1", "double precision", setting) == one("0.1", "double precision")


def test_columns_may_change_their_order_but_not_their_names_and_equal_values_do_not_cancel(world: World) -> None:
    a, b = (Column(name=name, postgres_type="double precision") for name in "ab")
    assert prints(world, ["1.5, 2.5"], a, b) == prints(world, ["2.5, 1.5"], b, a)
    assert len(set(prints(world, ["1.5, 1.5", "2.5, 2.5", "1.5, 2.5", "2.5, 1.5", "NULL, NULL", "0, 0"], a, b))) == 6


def test_text_that_a_collation_takes_for_equal_is_told_apart(world: World) -> None:
    if not world.rows("SELECT FROM pg_collation WHERE collname = 'und-x-icu'"):
        pytest.skip("this server has no ICU")
    world.execute("CREATE COLLATION public.blind (provider = icu, locale = 'und-u-ks-level1', deterministic = false)")
    rows = ["'a' COLLATE public.blind", "'A' COLLATE public.blind"]
    assert len(set(prints(world, rows, Column(name="x", postgres_type="text")))) == 2
