"""Plans of users' queries, as every PostgreSQL makes them: tables that are not named, and indexes that are missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.check import CheckReport, check
from tests.factories import CHANGES_SQL, FEATURES_SQL, World, make_pipeline, make_world

#: About 12 MB in few rows, since rows of almost 2 kB stay where they are; a tenth of them is from the last hour.
EVENTS = """
CREATE TABLE public.events (item bigint NOT NULL, at timestamptz NOT NULL, day date NOT NULL, pad text NOT NULL);
INSERT INTO public.events
SELECT x, t, (t - x * interval '1 day')::date, repeat('x', 1900)
FROM generate_series(1, 6000) AS x, LATERAL (SELECT now() - x * interval '6 s' AS t) AS instants;
ANALYZE public.events
"""
OF_EVENTS = (
    "SELECT b.id, b.as_of, i.a, count(e.at) AS n FROM batch AS b JOIN public.items AS i ON i.id = b.id "
    "LEFT JOIN public.events AS e ON e.item = b.id AND e.at <= b.as_of GROUP BY b.id, b.as_of, i.a"
)
CHANGED_EVENTS = CHANGES_SQL + " UNION SELECT e.item AS id FROM public.events AS e, since WHERE {}"

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


# Which tables, and how -----------------------------------------------------------------------------------------------


def test_a_table_that_changes_does_not_name_is_a_warning_also_behind_a_view(world: World, checked: Checked) -> None:
    world.execute("CREATE TABLE public.notes (id bigint, n int); CREATE VIEW public.noted AS TABLE public.notes")
    features = FEATURES_SQL.replace("i.b", "n.n").replace("WHERE", "") + " LEFT JOIN public.noted AS n ON n.id = b.id"

    (warning,) = about(checked(features=features).warnings, "not named here")

    assert warning.startswith("items/changes.sql: public.notes is read by features.sql and not named here")
    named = CHANGES_SQL + " UNION SELECT n.id FROM public.noted AS n, since WHERE since.at IS NOT NULL"
    assert about(checked(features=features, changes=named).warnings, "not named here") == []


def test_partitions_are_their_table_and_words_are_no_tables(world: World, checked: Checked) -> None:
    world.execute(
        "CREATE TABLE public.visits (id bigint, at timestamptz) PARTITION BY RANGE (at);"
        "CREATE TABLE public.visits_old PARTITION OF public.visits FOR VALUES FROM (MINVALUE) TO ('2020-01-01');"
        "CREATE TABLE public.visits_new PARTITION OF public.visits FOR VALUES FROM ('2020-01-01') TO (MAXVALUE)"
    )
    features = (
        "WITH extras AS (SELECT id FROM public.visits WHERE at < '2019-01-01')  -- FROM public.secrets\n"
        "SELECT b.id, b.as_of, i.a, 'FROM public.secrets' AS c, (SELECT count(*) FROM extras AS e WHERE e.id = b.id) AS n "
        "FROM batch AS b JOIN public.items AS i ON i.id = b.id"
    )
    changes = CHANGES_SQL + " UNION SELECT v.id FROM public.visits AS v, since WHERE v.at > since.at"

    report = checked(features=features, changes=changes)

    assert report.errors == ()
    assert about(report.warnings, "not named here") == []


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("e.at > since.at", "no index begins with at. CREATE INDEX ON public.events (at)"),
        ("e.at > (SELECT at FROM since)", "no index begins with at. CREATE INDEX ON public.events (at)"),
        ("e.at > since.at AND e.pad <> ''", "no index begins with at. CREATE INDEX ON public.events (at)"),
        (
            "(e.at > since.at OR e.day >= since.at::date)",
            "no index begins with at or day. CREATE INDEX ON public.events (at); CREATE INDEX ON public.events (day)",
        ),
        (
            "greatest(e.at, '2000-01-01') > since.at",
            "it compares an expression with since.at, which no index on a column",
        ),
    ],
)
def test_a_large_table_that_is_read_whole_for_its_changes_is_a_warning_with_the_index_to_create(
    world: World, checked: Checked, condition: str, words: str
) -> None:
    world.execute(EVENTS)

    (warning,) = about(checked(changes=CHANGED_EVENTS.format(condition)).warnings, "reads all of")

    assert warning.startswith(
        "items/changes.sql: PostgreSQL reads all of public.events (12 MB) in each incremental run"
    )
    assert words in warning
    if "CREATE INDEX" in words:
        world.execute(warning.partition(". ")[2])
        assert about(checked(changes=CHANGED_EVENTS.format(condition)).warnings, "reads all of") == []


def test_a_table_that_changes_altogether_misses_no_index(world: World, checked: Checked) -> None:
    world.execute(EVENTS + "; UPDATE public.events SET at = now(); ANALYZE public.events")

    assert about(checked(changes=CHANGED_EVENTS.format("e.at > since.at")).warnings, "reads all of") == []


def test_a_small_table_misses_no_index(world: World, checked: Checked) -> None:
    world.execute(EVENTS.replace("6000", "3000") + "; DROP INDEX public.items_updated_at_idx")

    assert about(checked(changes=CHANGED_EVENTS.format("e.at > since.at")).warnings, "reads all of") == []


@pytest.mark.parametrize(
    "features",
    [
        OF_EVENTS,
        "SELECT b.id, b.as_of, (SELECT count(*) FROM public.events AS e WHERE e.item = b.id AND e.at <= b.as_of) AS n "
        "FROM batch AS b",
    ],
)
def test_a_large_table_that_is_read_whole_for_one_entity_is_a_warning_with_the_index_to_create(
    world: World, checked: Checked, features: str
) -> None:
    world.execute(EVENTS)

    (warning,) = about(checked(features=features).warnings, "reads all of")

    assert warning.startswith("items/features.sql: PostgreSQL reads all of public.events (12 MB) for the features of a")
    world.execute("CREATE INDEX ON public.events (item)")
    assert warning.endswith("CREATE INDEX ON public.events (item)")
    assert about(checked(features=features).warnings, "reads all of") == []


@pytest.mark.parametrize(
    "subquery",
    [
        "SELECT e.item, count(*) AS n FROM public.events AS e GROUP BY e.item",
        "SELECT DISTINCT ON (e.item) e.item, e.at AS n FROM public.events AS e ORDER BY e.item, e.at DESC",
        "SELECT r.item, r.at AS n FROM (SELECT e.item, e.at, row_number() OVER (PARTITION BY e.item ORDER BY e.at DESC) AS i "
        "FROM public.events AS e) AS r WHERE r.i = 1",
    ],
)
def test_a_large_table_that_is_grouped_before_it_meets_batch_is_a_warning_and_an_index_does_not_end_it(
    world: World, checked: Checked, subquery: str
) -> None:
    world.execute(EVENTS)
    features = f"SELECT b.id, b.as_of, g.n FROM batch AS b LEFT JOIN ({subquery}) AS g ON g.item = b.id"

    (warning,) = about(checked(features=features).warnings, "reads all of")

    assert "its rows are grouped or numbered by item before they meet batch" in warning
    assert warning.endswith("or make it LATERAL, and CREATE INDEX ON public.events (item)")
    world.execute("CREATE INDEX ON public.events (item, at)")
    (warning,) = about(checked(features=features).warnings, "reads all of")
    assert warning.endswith("or make it LATERAL")
    within = subquery.replace("FROM public.events AS e", "FROM public.events AS e WHERE e.item = b.id")
    lateral = f"SELECT b.id, b.as_of, g.n FROM batch AS b LEFT JOIN LATERAL ({within}) AS g ON true"
    assert about(checked(features=lateral).warnings, "reads all of") == []


def test_an_index_that_is_missing_to_find_whose_rows_changed_is_named(world: World, checked: Checked) -> None:
    world.execute(EVENTS + "; CREATE INDEX ON public.events (item)")
    changes = (
        "SELECT e.item AS id FROM public.items AS i JOIN public.events AS e ON e.day = i.updated_at::date, since "
        "WHERE i.updated_at > since.at"
    )

    (warning,) = about(checked(changes=changes).warnings, "reads all of")

    assert warning.startswith(
        "items/changes.sql: PostgreSQL reads all of public.events (12 MB) in each incremental run"
    )
    assert warning.endswith("to find whose rows changed: no index begins with day. CREATE INDEX ON public.events (day)")
    world.execute("CREATE INDEX ON public.events (day)")
    assert about(checked(changes=changes).warnings, "reads all of") == []


def test_many_rows_that_changed_are_joined_with_a_table_that_is_read_whole_and_miss_no_index(
    world: World, checked: Checked
) -> None:
    world.execute(
        EVENTS + "; CREATE TABLE public.many AS SELECT day, now() AS at FROM public.events; ANALYZE public.many"
    )
    changes = (
        "SELECT e.item AS id FROM public.many AS m JOIN public.events AS e USING (day), since WHERE m.at > since.at"
    )

    assert about(checked(changes=changes).warnings, "whose rows changed") == []
