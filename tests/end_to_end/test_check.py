"""`check`: what it finds wrong with the queries of a pipeline and the rows they return, and what is no finding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.check import CheckReport, check
from tests.factories import FEATURES_SQL, PIPELINE_TOML, World, make_pipeline, make_world

ENTITY = 'query = "SELECT id FROM public.items"'
LABELLED = PIPELINE_TOML + '\n[training]\nlabels = "labels.sql"\n'

Checked = Callable[..., CheckReport]


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    return make_world(database_url, tmp_path, rows=100)


@pytest.fixture
def checked(world: World) -> Checked:
    """Return a function that declares a pipeline, and what `check` says of it."""

    def report(**declared: Any) -> CheckReport:
        make_pipeline(world, **declared)
        (found,) = check(world.settings, "items")
        return found

    return report


def about(findings: tuple[str, ...], words: str) -> list[str]:
    return [finding for finding in findings if words in finding]


# One row for each (key, as_of) ---------------------------------------------------------------------------------------


def test_a_pipeline_that_keeps_its_contract_has_no_error(checked: Checked) -> None:
    report = checked(features=FEATURES_SQL.replace("i.a,", "i.a, extract(epoch FROM b.as_of) AS at,"))

    assert report.errors == ()
    assert len(report.warnings) == 2
    assert report.warnings[0].startswith("items/pipeline.toml [[source]]: none is declared")
    assert report.warnings[1].startswith("model items has no champion yet. Run `prescore train items`")


def test_a_row_too_many_is_an_error(world: World, checked: Checked) -> None:
    world.execute("CREATE TABLE public.twice AS SELECT id FROM public.items UNION ALL SELECT 3")

    (error,) = checked(features=FEATURES_SQL + " JOIN public.twice AS t ON t.id = b.id").errors

    assert error.startswith("items/features.sql: it returned 42 rows for 40 (key, as_of) of batch")
    assert "restrict the join that multiplies rows" in error


def test_a_row_too_few_is_a_warning_and_says_what_becomes_of_the_entity(checked: Checked) -> None:
    report = checked(features=FEATURES_SQL + " AND i.id % 2 = 0")

    (warning,) = about(report.warnings, "have no row")
    assert warning.startswith("items/features.sql: 10 of 20 probed entities have no row at the clock's now")
    assert "rejected as no_features. Use LEFT JOIN" in warning
    assert report.errors == ()


def test_an_entity_that_was_not_there_a_year_ago_is_no_finding(checked: Checked) -> None:
    report = checked(features=FEATURES_SQL + " WHERE i.updated_at <= b.as_of")

    assert report.errors == ()
    assert about(report.warnings, "have no row") == []


@pytest.mark.parametrize(
    "features",
    [
        "SELECT b.id, max(b.as_of) AS as_of, max(i.a) AS a FROM batch AS b JOIN public.items AS i USING (id) GROUP BY b.id",
        "SELECT DISTINCT ON (b.id) b.id, b.as_of, i.a FROM batch AS b JOIN public.items AS i USING (id) "
        "ORDER BY b.id, b.as_of",
    ],
)
def test_a_query_that_merges_the_instants_of_an_entity_is_an_error(checked: Checked, features: str) -> None:
    """It has a row for each entity when scoring, where all have one as_of; training would lose most of its rows."""
    (error,) = checked(features=features).errors

    assert error.startswith("items/features.sql: 20 (key, as_of) have a row when they are asked alone")
    assert "GROUP BY and PARTITION BY need b.as_of beside the key" in error


def test_a_row_of_another_as_of_is_an_error(checked: Checked) -> None:
    (error,) = checked(features=FEATURES_SQL.replace("b.as_of", "b.as_of - interval '1 day' AS as_of")).errors

    assert "it returned 40 rows for a (key, as_of) that is not in batch" in error
    assert "return b.as_of as it is" in error


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ("SELECT b.as_of, 1 AS a FROM batch AS b", "it does not return id (it returns as_of, a)"),
        ("SELECT b.id, 1 AS a FROM batch AS b", "it does not return as_of (it returns id, a)"),
        ("SELECT b.id, b.as_of FROM batch AS b", "it returns no feature beside key and as_of"),
        ("SELECT b.*, i.* FROM batch AS b JOIN public.items AS i USING (id)", "it returns id more than once"),
        ("SELECT b.id, b.as_of, b.nothing FROM batch AS b", "PostgreSQL refuses it: column b.nothing does not exist"),
    ],
)
def test_columns_that_are_missing_or_double_are_errors(checked: Checked, features: str, words: str) -> None:
    (error,) = checked(features=features).errors

    assert error.startswith("features.sql: ")
    assert words in error


def test_every_column_of_a_type_outside_the_table_is_named_with_the_cast_to_write(checked: Checked) -> None:
    strange = 'i.updated_at - b.as_of AS wait, \'{}\'::jsonb[] AS "Facts", ARRAY[1] AS "user"'

    (error,) = checked(features=FEATURES_SQL.replace("i.a", strange)).errors

    assert "column wait is of type interval, which cannot be a feature; column Facts is of type jsonb[]" in error
    casts = [
        "extract(epoch FROM wait)::double precision AS wait",
        '("Facts"[1] ->> \'field\')::double precision AS "Facts"',
        '"user"[1] AS "user"',
    ]
    assert f"Write {', '.join(casts)}, or another" in error
    corrected = f"SELECT id, as_of, {', '.join(casts)} FROM ({FEATURES_SQL.replace('i.a', strange)}) AS x"
    assert checked(features=corrected).errors == ()


# Who -----------------------------------------------------------------------------------------------------------------


def test_an_entity_query_that_repeats_a_key_is_blamed_itself(checked: Checked) -> None:
    repeated = ENTITY.replace("items", "items UNION ALL SELECT id FROM public.items WHERE id < 3")

    (error,) = checked(toml=PIPELINE_TOML.replace(ENTITY, repeated)).errors

    assert error.startswith("items/pipeline.toml [entity] query: it returns 2 entities more than once")


def test_a_null_in_a_key_is_an_error_and_the_others_are_looked_at(checked: Checked) -> None:
    null = ENTITY.replace("SELECT id", "SELECT NULL::bigint AS id UNION ALL SELECT id")

    (error,) = checked(toml=PIPELINE_TOML.replace(ENTITY, null)).errors

    assert error.startswith("items/pipeline.toml [entity] query: 1 rows have a NULL in their key")
    assert "WHERE ... IS NOT NULL" in error


def test_an_empty_population_is_a_warning(world: World, checked: Checked) -> None:
    world.execute("TRUNCATE public.items")

    report = checked()

    assert report.errors == ()
    assert about(report.warnings, "items/pipeline.toml [entity] query: the population is empty now")


# labels.sql ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("SELECT id, 1 AS label FROM public.items", "it does not return as_of (it returns id, label)"),
        ("SELECT run.as_of, 1 AS label FROM run", "it does not return id (it returns as_of, label)"),
        ("SELECT id, run.as_of, '{}'::json AS label FROM public.items, run", "column label is of type json"),
        ("SELECT id, run.as_of FROM public.nothing, run", 'relation "public.nothing" does not exist'),
    ],
)
def test_labels_are_checked_before_anybody_trains(checked: Checked, labels: str, words: str) -> None:
    (error,) = checked(toml=LABELLED, files={"labels.sql": labels}).errors

    assert error.startswith("labels.sql: ")
    assert words in error


def test_labels_without_a_label_are_no_finding(checked: Checked) -> None:
    assert checked(toml=LABELLED, files={"labels.sql": "SELECT id, run.as_of FROM public.items, run"}).errors == ()


# Sources -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "place", "words"),
    [
        ('name = "public.itemz"\nwatermark = "updated_at"', "public.itemz", "no table public.itemz with a column"),
        ('name = "public.items"\nwatermark = "updated"', "public.items", "with a column updated. Correct"),
        ('name = "public.items"\nwatermark = "c"', "public.items", "c is text, which is no time"),
        (
            'name = "public.items"\nwatermark = "updated_at"\nfilter = "colour = 1"',
            "filter",
            'column "colour" does not exist',
        ),
        ('name = "public.items"\nwatermark = "updated_at"\nfilter = "count(*) > 1"', "filter", "aggregate functions"),
        ('name = "public.items"\nwatermark = "updated_at"\nfilter = "id"', "filter", "must be type boolean"),
        (
            'name = "public.items"\nwatermark = "updated_at"\nevery = { column = "c", from = "public.colours" }',
            "every",
            'relation "public.colours" does not exist',
        ),
    ],
)
def test_a_source_that_postgresql_cannot_answer_is_an_error(
    checked: Checked, source: str, place: str, words: str
) -> None:
    (error,) = checked(toml=f"{PIPELINE_TOML}\n[[source]]\n{source}\n").errors

    assert error.startswith("items/pipeline.toml [[source]] ")
    assert f"{place}" in error.partition(":")[0] + error.partition(" failed")[0]
    assert words in error


def test_an_age_that_is_limited_is_that_of_an_instant_which_the_features_return(checked: Checked) -> None:
    limited = PIPELINE_TOML.replace("[features]", "[features]\nttl.seen_at = { ttl = '7d', features = ['a'] }")
    seen = FEATURES_SQL.replace("i.a,", "i.a, i.updated_at AS seen_at,")

    (missing,) = checked(toml=limited).errors
    assert (
        "items/features.sql" in missing
        or "features.sql: it does not return seen_at, named by [features.ttl]" in missing
    )
    (naive,) = checked(toml=limited, features=seen.replace("updated_at", "updated_at::date")).errors
    assert "seen_at, whose age [features.ttl] limits, is date" in naive
    assert "Return an instant, a timestamp with time zone" in naive
    assert checked(toml=limited, features=seen).errors == ()


def test_a_large_source_without_an_index_on_its_watermark_is_told(world: World, checked: Checked) -> None:
    world.execute(
        "CREATE TABLE public.events AS SELECT x, repeat('x', 900) AS padding, "
        "timestamptz '2024-01-01' + x * interval '1 minute' AS at FROM generate_series(1, 12000) AS x; ANALYZE public.events"
    )
    toml = f'{PIPELINE_TOML}\n[[source]]\nname = "public.events"\nwatermark = "at"\n'

    (told,) = about(checked(toml=toml).warnings, "public.events:")
    assert "on every run, to see how new it is: no index begins with at. CREATE INDEX ON public.events (at)" in told
    world.execute("CREATE INDEX ON public.events (at)")
    assert about(checked(toml=toml).warnings, "public.events:") == []


def test_everything_that_is_wrong_with_the_data_is_said_at_once(checked: Checked) -> None:
    toml = PIPELINE_TOML.replace(ENTITY, ENTITY.replace("items", "items UNION ALL SELECT 1"))
    toml += '[[source]]\nname = "public.items"\nwatermark = "updated_at"\nfilter = "colour = 1"\n'
    toml += '[[source]]\nname = "public.gone"\nwatermark = "at"\n'

    errors = checked(toml=toml, features=FEATURES_SQL.replace("i.a", "1 / (i.id - 1) AS a")).errors

    assert [error.split(":")[0].split(" failed")[0] for error in errors] == [
        "items/pipeline.toml [entity] query",
        "items/features.sql",
        "items/pipeline.toml [[source]] public.items.filter",
        "items/pipeline.toml [[source]] public.gone",
    ]
