"""Scenarios of distribution: a dead loader, another unit, missing values, an outlier, few rows, and what never varied."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.score import RunSummary
from tasks.findings import Finding, Verdict
from tasks.population import Mode
from tasks.runs import Status, Trigger
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

ROWS = 4_000
# A normal, a normal with 5 % NaN, a constant and three categories, each by hash: any part of it is a sample of the whole.
CUSTOMERS = f"""
CREATE TABLE public.usual AS
SELECT x AS id, sqrt(-2 * ln(h.u)) * cos(2 * pi() * h.v) AS a,
       CASE WHEN h.w < 0.05 THEN 'NaN' ELSE sqrt(-2 * ln(h.v)) * cos(2 * pi() * h.u) END AS b,
       5.0::double precision AS k, (ARRAY['x', 'y', 'z'])[1 + floor(3 * h.w)::integer] AS c
FROM generate_series(1::bigint, {ROWS}) AS x
CROSS JOIN LATERAL (SELECT (1 + (hashint8extended(x, 1) & 1048575)) / 1048577.0 AS u,
                           (1 + (hashint8extended(x, 2) & 1048575)) / 1048577.0 AS v,
                           (hashint8extended(x, 3) & 1048575) / 1048576.0 AS w) AS h;
CREATE TABLE public.items AS SELECT * FROM public.usual
"""
TOML = PIPELINE_TOML.replace('changes = "changes.sql"\n', "") + "[drift.feature.b]\non_fail = 'hold'\n"
FEATURES = "SELECT i.id, b.as_of, i.a, i.b, i.k, i.c FROM batch AS b JOIN public.items AS i USING (id)"


@pytest.fixture(scope="module")
def customers(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Four thousand customers, and a model that learnt from most of them."""
    world = make_world(module_database_url, tmp_path_factory.mktemp("pipelines"), rows=None)
    world.execute(CUSTOMERS)
    pipeline = make_pipeline(world, toml=TOML, features=FEATURES, changes=None)
    make_model(world, pipeline, sample_rows=3_000)
    return world


@pytest.fixture
def shop(customers: World) -> Iterator[World]:
    """The customers as they usually are."""
    yield customers
    customers.execute("TRUNCATE public.items; INSERT INTO public.items SELECT * FROM public.usual")


def found(summary: RunSummary, check: str) -> dict[str, Finding]:
    return {finding.subject: finding for finding in summary.findings if finding.check_id == check}


def odd(summary: RunSummary) -> dict[str, Verdict]:
    """What the checks of distributions and values found, but for what passed or does not apply."""
    told = (f for f in summary.findings if f.check_id.split(".")[0] in {"drift", "input", "output", "outputs"})
    return {f.label: f.verdict for f in told if f.verdict not in {Verdict.PASS, Verdict.SKIPPED}}


def test_stable_five_percent_of_nan_pass(shop: World) -> None:
    summary = shop.score(full=True)

    assert summary.status is Status.PUBLISHED, summary.message
    assert odd(summary) == {}
    assert {"a", "b", "c"} == found(summary, "drift.input").keys()
    assert shop.one("SELECT nans FROM prescore.profiles WHERE name = 'b' ORDER BY run_id DESC LIMIT 1")["nans"] > 150


def test_scenario_9_three_percent_of_the_rows_in_another_unit_are_out_of_range_while_the_distance_passes(
    shop: World,
) -> None:
    shop.execute("UPDATE public.items SET a = a * 100 WHERE id % 33 = 0")

    summary = shop.score(full=True)

    assert odd(summary) == {"input.range a": Verdict.FAIL}
    assert found(summary, "input.range")["a"].observed == pytest.approx(0.03, abs=0.003)
    assert found(summary, "drift.input")["a"].verdict is Verdict.PASS
    assert any(reason.startswith("D3 input.range a: ") for reason in summary_reasons(shop))


def summary_reasons(world: World) -> list[str]:
    return list(world.one("SELECT reasons FROM prescore.head WHERE pipeline = 'items'")["reasons"])


def test_scenario_10_a_feature_that_is_95_percent_null_holds_and_the_others_are_still_judged(shop: World) -> None:
    shop.execute("UPDATE public.items SET b = NULL WHERE id % 20 <> 0")

    summary = shop.score(full=True)

    assert summary.status is Status.HELD
    assert "input.nulls b" in summary.message
    nulls = found(summary, "input.nulls")["b"]
    assert (nulls.verdict, nulls.observed) == (Verdict.FAIL, pytest.approx(0.90, abs=0.02))
    distances = found(summary, "drift.input")
    assert {name: finding.verdict for name, finding in distances.items()} == {
        "a": Verdict.PASS,
        "b": Verdict.FAIL,
        "c": Verdict.PASS,
    }


def test_scenario_11_one_outlier_fails_nothing_and_hides_no_drift(shop: World) -> None:
    shop.execute("UPDATE public.items SET a = 1e6 WHERE id = 7")
    alone = shop.score(full=True)
    shop.execute("UPDATE public.items SET a = a + 1")

    shifted = shop.score(full=True)

    assert odd(alone) == {}
    assert found(shifted, "drift.input")["a"].verdict is Verdict.FAIL
    assert found(shifted, "drift.inputs")[""].verdict is Verdict.FAIL


def test_a_constant_column_that_changes_by_a_millionth_alarms_nobody(shop: World) -> None:
    shop.execute("UPDATE public.items SET k = k + 1e-6")
    summary = shop.score(full=True)
    assert odd(summary) == {}
    assert all(math.isfinite(f.observed) for f in summary.findings if f.observed is not None)


def test_a_constant_column_that_begins_to_vary_is_one_warning(shop: World) -> None:
    shop.execute("UPDATE public.items SET k = k + 0.1 * (id % 2)")
    summary = shop.score(full=True)
    assert odd(summary) == {"input.constant k": Verdict.WARN}


def test_a_column_that_became_constant_and_an_infinite_value_and_a_new_category_are_found_each_by_its_check(
    shop: World,
) -> None:
    shop.execute(
        "UPDATE public.items SET a = 0.5; UPDATE public.items SET b = 'infinity' WHERE id = 3;"
        "UPDATE public.items SET c = 'new' WHERE id % 10 = 0"
    )

    summary = shop.score(full=True)

    assert summary.status is Status.HELD
    told = odd(summary)
    assert [told[label] for label in ("input.constant a", "input.infinite b", "input.unseen c")] == [Verdict.FAIL] * 3
    assert "new" not in found(summary, "input.unseen")["c"].reason.split()


def test_eighty_rows_are_unknown_once_and_flag_nobody(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path, rows=80)
    make_model(world, make_pipeline(world), sample_rows=80)
    world.score()
    world.execute("UPDATE public.items SET a = NULL WHERE id = 1; UPDATE public.items SET b = 1e9 WHERE id = 2")

    summary = world.score(full=True, trigger=Trigger.SCHEDULED)

    assert summary.status is Status.PUBLISHED, summary.message
    assert (summary.mode, summary.scored) == (Mode.FULL, 80)
    assert odd(summary) == {"drift.input": Verdict.UNKNOWN, "drift.output p": Verdict.UNKNOWN} | {
        label: verdict for label, verdict in odd(summary).items() if verdict is Verdict.UNKNOWN
    }
    assert world.rows("SELECT DISTINCT state FROM predictions.items") == [("fresh",)]


def test_predictions_that_jump_after_quiet_runs_are_told_with_what_is_usual(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path, rows=300)
    make_model(world, make_pipeline(world), sample_rows=300)
    for _ in range(6):
        quiet = world.score(full=True)
        world.execute("UPDATE public.items SET a = a + 0.01 * sin(id), updated_at = clock_timestamp()")
    assert found(quiet, "outputs.flips")["p"].verdict is Verdict.PASS
    world.execute("UPDATE public.items SET a = -a, updated_at = clock_timestamp()")

    jumped = world.score(full=True)

    flips = found(jumped, "outputs.flips")
    assert {name: finding.verdict for name, finding in flips.items()} == {"p": Verdict.WARN, "label": Verdict.WARN}
    assert flips["label"].evidence["flips"] > 0.3
    assert "more than 5 times the flips of 5 runs before" in flips["label"].reason


# Scenario 1 ----------------------------------------------------------------------------------------------------------

LOADED = (
    PIPELINE_TOML
    + """
[serve]
aging_after = "26h"
stale_after = "36h"
serve_stale_for = "72h"
[[source]]
name = "public.items"
watermark = "updated_at"
warn_after = "26h"
fail_after = "36h"
"""
)
COPIED = "SELECT i.id, b.as_of, i.a, i.b, i.c FROM batch AS b JOIN public.copied AS i USING (id)"


def nightly(world: World, at: datetime) -> RunSummary:
    world.set_clock(at)
    return world.score(full=True, trigger=Trigger.SCHEDULED)


def test_scenario_1_a_dead_loader_makes_no_night_look_new_and_readers_see_every_state_at_its_instant(
    database_url: str, tmp_path: Path
) -> None:
    world = make_world(database_url, tmp_path, rows=300)
    loaded = NOON - HOUR
    world.execute(f"UPDATE public.items SET updated_at = '{loaded.isoformat()}'")
    world.execute("CREATE TABLE public.copied AS SELECT * FROM public.items")
    world.set_clock(NOON)
    make_model(world, make_pipeline(world, toml=LOADED, features=COPIED), train_data_until=NOON, sample_rows=300)
    first = nightly(world, NOON)
    assert (first.status, found(first, "outputs.frozen")[""].verdict) == (Status.PUBLISHED, Verdict.SKIPPED)

    for night, status in ((1, Status.PUBLISHED), (2, Status.HELD), (3, Status.HELD)):
        summary = nightly(world, NOON + night * DAY)
        age = found(summary, "source.age")["public.items"]
        assert (summary.status, age.verdict) == (status, Verdict.PASS if night == 1 else Verdict.FAIL)
        assert world.one("SELECT data_as_of FROM prescore.head")["data_as_of"] == loaded
        if status is Status.PUBLISHED:
            same = found(summary, "outputs.frozen")[""]
            assert (same.verdict, "no required source moved" in same.reason) == (Verdict.PASS, True)

    tick = timedelta(microseconds=1)
    limits = {26 * HOUR: ("fresh", "aging"), 36 * HOUR: ("aging", "stale"), 108 * HOUR: ("stale", "expired")}
    for after, (before, then) in limits.items():
        for at, state in ((loaded + after - tick, before), (loaded + after, then)):
            world.set_clock(at)
            assert world.rows("SELECT DISTINCT state FROM predictions.items") == [(state,)], after

    # Nothing is served any more, so that the night is published; it is no younger for that.
    late = nightly(world, loaded + 120 * HOUR)
    assert (late.status, found(late, "outputs.frozen")[""].verdict) == (Status.PUBLISHED, Verdict.PASS)
    assert world.rows("SELECT DISTINCT state, data_as_of FROM predictions.items") == [("expired", loaded)]

    # The loader is back, and the features still come from the copy that nobody renews.
    world.execute(f"UPDATE public.items SET a = a + 0.1, updated_at = '{(NOON + 6 * DAY).isoformat()}'")
    frozen = nightly(world, NOON + 6 * DAY + HOUR)
    assert frozen.status is Status.HELD
    assert found(frozen, "outputs.frozen")[""].verdict is Verdict.FAIL
    assert "public.items moved since" in frozen.message
    assert world.one("SELECT data_as_of FROM prescore.head")["data_as_of"] == loaded
    # It stays so for as long as it is so; then a night on new data is published.
    assert nightly(world, NOON + 6 * DAY + 2 * HOUR).status is Status.HELD
    world.execute("TRUNCATE public.copied; INSERT INTO public.copied SELECT * FROM public.items")
    assert nightly(world, NOON + 6 * DAY + 3 * HOUR).status is Status.PUBLISHED
    # The same values, each with its neighbour: news, although no column as a whole shows it.
    world.execute(
        f"UPDATE public.items SET updated_at = '{(NOON + 7 * DAY).isoformat()}';"
        "UPDATE public.copied AS t SET a = f.a, b = f.b, c = f.c FROM public.items AS f WHERE f.id = 1 + t.id % 300"
    )
    exchanged = nightly(world, NOON + 7 * DAY + HOUR)
    assert (exchanged.status, found(exchanged, "outputs.frozen")[""].verdict) == (Status.PUBLISHED, Verdict.PASS)
    assert "other entities" in found(exchanged, "outputs.frozen")[""].reason
