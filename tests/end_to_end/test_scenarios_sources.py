"""What sources and models do to a nightly run, each as a story: what is found, what follows, what readers see.

The clock is the database's, set by the test; a night's load is 1,000 orders of 24 regions, an hour before the run.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pytest

from flows.check import check
from flows.score import RunSummary
from tasks import bundle, registry
from tasks.bundle import GoldenResult
from tasks.database import connect
from tasks.population import Mode
from tasks.profiles import clean_runs
from tasks.runs import Trigger
from tasks.scoring import Scorer
from tests.conftest import copy_database, execute, psql_url
from tests.factories import World, make_model, make_pipeline, make_world

# Made once and used by all: one worker.
pytestmark = pytest.mark.xdist_group("sources")

ITEMS = 240
NIGHT = 1_000
REGIONS = 24
FIRST = datetime(2024, 5, 6, 3, 0, tzinfo=UTC)  # a Monday
NIGHTS = 3  # published before each story begins

TABLES = f"""
CREATE SCHEMA ref;
CREATE TABLE ref.region (region text PRIMARY KEY);
INSERT INTO ref.region SELECT 'region-' || x FROM generate_series(1, {REGIONS}) AS x;
CREATE TABLE public.items (id bigint PRIMARY KEY, a double precision, price double precision);
INSERT INTO public.items SELECT x, sin(x * 12.9898), 1 + x % 7 FROM generate_series(1, {ITEMS}) AS x;
CREATE TABLE public.orders (
    id bigint GENERATED ALWAYS AS IDENTITY, item bigint NOT NULL, region text NOT NULL, loaded_at timestamptz
);
CREATE INDEX ON public.orders (loaded_at);
CREATE INDEX ON public.orders (item, loaded_at)
"""
#: A load: some rows of one instant, spread over items and regions.
LOAD = """
INSERT INTO public.orders (item, region, loaded_at)
SELECT 1 + x % {items}, 'region-' || (1 + x % {regions}), '{at}' FROM generate_series(1, {rows}) AS x
"""

TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.items"
[features]
query = "features.sql"
changes = "changes.sql"
[predictions]
p = {{ method = "predict_proba", class = "1" }}
[model]
warn_age = "300d"
fail_age = "600d"
[serve]
aging_after = "26h"
stale_after = "36h"
[[source]]
name = "public.orders"
watermark = "loaded_at"
warn_after = "26h"
fail_after = "36h"
{source}
"""
SOURCE = 'rows = {}\nevery = { column = "region", from = "ref.region" }\n'
#: A feature that each order changes, and that is spread evenly over its values whatever is loaded: no drift.
FEATURES = """
SELECT b.id, b.as_of, i.a, i.price, o.orders
FROM batch AS b
JOIN public.items AS i ON i.id = b.id
CROSS JOIN LATERAL (SELECT ((7 * b.id + 3 * count(*)) % 17)::double precision AS orders FROM public.orders AS o
                    WHERE o.item = b.id AND o.loaded_at <= b.as_of) AS o
"""
#: For times without a zone, which are those of Brisbane.
LOCAL = "o.loaded_at AT TIME ZONE 'Australia/Brisbane' "
CHANGES = "SELECT o.item AS id FROM public.orders AS o, since WHERE o.loaded_at > since.at"


@dataclass
class Nights:
    """A world in which every night is loaded and scored, until a test has it otherwise."""

    world: World
    night: int = 0

    @property
    def now(self) -> datetime:
        """When tonight's run starts."""
        return FIRST + timedelta(days=self.night)

    def declare(
        self, *, features: str = FEATURES, toml: str = TOML, source: str = SOURCE, changes: str = CHANGES
    ) -> Any:
        """Write the pipeline."""
        return make_pipeline(self.world, toml=toml.format(source=source), features=features, changes=changes)

    def load(self, rows: int = NIGHT, *, at: datetime | None = None, regions: int = REGIONS) -> None:
        """Load tonight's orders, an hour before the run."""
        at = at or self.now - timedelta(hours=1)
        self.world.execute(LOAD.format(items=ITEMS, regions=regions, at=at.isoformat(), rows=rows))

    def score(self, *, trigger: Trigger = Trigger.SCHEDULED, **options: Any) -> RunSummary:
        """Run at the clock of tonight."""
        self.world.set_clock(self.now)
        return self.world.score(trigger=trigger, **options)

    def state(self, at: datetime | None = None) -> str:
        """What a reader of item 7 sees; by the clock of tonight, or at another instant."""
        self.world.set_clock(at or self.now)
        return str(self.world.one("SELECT state FROM predictions.items WHERE id = 7")["state"])


def found(run: RunSummary, check: str) -> tuple[str, str]:
    """Return verdict and reason of a check on its only subject."""
    (finding,) = [finding for finding in run.findings if finding.check_id == check]
    return finding.verdict.value, finding.reason


@pytest.fixture(scope="module")
def _prepared(server_url: str, _template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with some good nights behind it, copied for every test."""
    name = f"nights_{uuid.uuid4().hex[:12]}"
    copy_database(server_url, name, _template)
    nights = Nights(make_world(psql_url(server_url, name), tmp_path_factory.mktemp("nights"), rows=None))
    nights.world.execute(TABLES)
    make_model(nights.world, nights.declare(), train_data_until=FIRST - timedelta(days=1))
    for nights.night in range(NIGHTS):
        nights.load()
        assert nights.score().status.value == "published"
    execute(server_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    yield name
    execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def copied(server_url: str, prepared: str, folder: Path) -> Iterator[Nights]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    copy_database(server_url, name, prepared)
    nights = Nights(make_world(psql_url(server_url, name), folder, rows=None), night=NIGHTS)
    nights.declare()
    yield nights
    execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def nights(server_url: str, _prepared: str, tmp_path: Path) -> Iterator[Nights]:
    with copied(server_url, _prepared, tmp_path) as made:
        yield made


class During:
    """Does something when a run reaches a stage."""

    def __init__(self, stage: str, action: Callable[[], None]) -> None:
        self.at, self.action = stage, action

    def stage(self, name: str) -> None:
        if name == self.at:
            self.action()

    def rows(self, done: int, total: int) -> None:
        """Progress is nothing to this one."""


def test_scenario_2_a_row_dated_next_year_does_not_make_a_dead_source_young(nights: Nights) -> None:
    nights.night += 1  # two nights without a load
    nights.load(1, at=nights.now + timedelta(days=365))

    held = nights.score()

    assert held.status.value == "held"
    verdict, reason = found(held, "source.future")
    assert (verdict, reason.split(";")[0]) == ("fail", "1 rows are dated more than 5 min after the clock")
    assert found(held, "source.age") == ("fail", "newest row is 2 d old, limits 26 h / 36 h")
    assert nights.state() == "stale"


def test_scenario_3_local_times_without_their_zone_are_refused_and_a_wrong_zone_is_no_age_below_zero(
    nights: Nights,
) -> None:
    nights.load()
    nights.world.execute(
        "ALTER TABLE public.orders ALTER loaded_at TYPE timestamp USING loaded_at AT TIME ZONE 'Australia/Brisbane'"
    )

    (report,) = check(nights.world.settings, "items")
    assert [error.split(": ", 1)[1] for error in report.errors if "[[source]]" in error] == [
        'loaded_at has no time zone. Declare zone, for example zone = "UTC"'
    ]
    undeclared = nights.score()
    assert undeclared.status.value == "held"
    assert found(undeclared, "source.future") == ("fail", "loaded_at has no time zone; declare zone in [[source]]")

    nights.declare(source=SOURCE + 'zone = "UTC"')
    wrong = nights.score()
    assert wrong.status.value == "held"
    # A night's orders and those of the last hours before it lie ten hours ahead.
    assert found(wrong, "source.future")[1].startswith("1,000 rows are dated more than 5 min after the clock")
    assert found(wrong, "source.age")[0] == "pass"

    local = [query.replace("o.loaded_at ", LOCAL) for query in (FEATURES, CHANGES)]
    nights.declare(source=SOURCE + 'zone = "Australia/Brisbane"', features=local[0], changes=local[1])
    right = nights.score()
    assert right.status.value == "published"
    assert found(right, "source.age")[1].startswith("newest row is 1 h old")


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("TRUNCATE public.orders", marks=pytest.mark.slow),
        "UPDATE public.orders SET loaded_at = NULL",
    ],
)
def test_scenario_4_an_emptied_source_is_unknown_and_held(nights: Nights, how: str) -> None:
    nights.world.execute(how)

    held = nights.score()

    assert held.status.value == "held"
    assert found(held, "source.age") == ("unknown", "no row with a date up to as_of; age unknown")
    assert found(held, "source.rows") == ("fail", "0 rows with a date up to as_of: the table was emptied")
    stored = nights.world.rows(
        "SELECT check_id, effective, disposition FROM prescore.checks WHERE subject = 'public.orders' "
        f"AND run_id = {held.run_id} AND check_id IN ('source.age', 'source.rows') ORDER BY 1"
    )
    assert stored == [("source.age", "fail", "hold"), ("source.rows", "fail", "hold")]
    assert nights.state(nights.now - timedelta(hours=2)) == "fresh"


def test_scenario_5_half_a_load_is_held_and_four_fifths_are_published_flagged(nights: Nights) -> None:
    nights.load(520)

    held = nights.score()

    assert held.status.value == "held"
    assert found(held, "source.age")[0] == "pass"
    assert found(held, "source.rows") == (
        "fail",
        "520 new rows in 24.0 h, 0.52 of what is usual: 1,000 in 24.0 h, the median of 2 slices; "
        "limits 0.9 to 1.1 / 0.7 to 1.5",
    )
    assert "Load the rest of the source" in held.message
    assert held.followups == ("refresh_source",)

    nights.load(280)
    flagged = nights.score()

    assert flagged.status.value == "published"
    assert found(flagged, "source.rows")[0] == "warn"
    assert "0.80 of what is usual" in found(flagged, "source.rows")[1]
    assert nights.state() == "aging"

    # By hand between two loads: a whole slice is looked at, not the hours since the last run.
    nights.world.set_clock(nights.now + timedelta(hours=9))
    by_hand = nights.world.score(full=True)
    assert found(by_hand, "source.rows")[0] == "warn"
    assert "in 33.0 h, 0.80 of what is usual" in found(by_hand, "source.rows")[1]


def test_scenario_6_a_region_that_is_absent_is_found_though_the_volume_passes(nights: Nights) -> None:
    nights.load(960, regions=REGIONS - 1)

    held = nights.score()

    assert held.status.value == "held"
    assert found(held, "source.rows")[0] == "pass"
    verdict, reason = found(held, "source.every")
    assert verdict == "fail"
    told, _, query = reason.partition("; they are listed by ")
    assert told == "1 of 24 values of region in ref.region are absent from the new rows"
    assert query.startswith("SELECT region FROM ref.region WHERE region IS NOT NULL EXCEPT SELECT source.region FROM")
    assert nights.world.rows(query) == [("region-24",)]
    assert "region-24" not in held.message

    # The source may say otherwise.
    nights.declare(source=SOURCE + 'on_fail = "abort"')
    aborted = nights.score()
    nights.declare(source=SOURCE + 'on_fail = "flag"')
    flagged = nights.score()
    assert (aborted.status.value, aborted.exit_code) == ("aborted", 1)
    assert flagged.status.value == "published"
    assert nights.state() == "aging"
    reasons = nights.world.one("SELECT reasons FROM predictions.items WHERE id = 7")["reasons"]
    assert [reason for reason in reasons if "S3 source.every public.orders: 1 of 24 values" in reason] != []


@pytest.mark.parametrize("late_by", ["2h", pytest.param("0s", marks=pytest.mark.slow)])
def test_scenario_7_rows_that_are_committed_behind_the_watermark_are_told_and_within_late_by_scored(
    nights: Nights, late_by: str
) -> None:
    nights.load(at=nights.now - timedelta(hours=3))
    nights.declare(source=f'late_by = "{late_by}"')
    assert nights.score(full=True).status.value == "published"
    slow = psycopg2.connect(nights.world.url)
    quarter = timedelta(minutes=15)

    # One transaction writes and waits; another one writes later and commits first.
    with slow, slow.cursor() as cursor:
        for item in (7, 8):
            at = nights.now + timedelta(minutes=10)
            cursor.execute(
                "INSERT INTO public.orders (item, region, loaded_at) VALUES (%s, 'region-1', %s)", (item, at)
            )
        nights.load(1, at=nights.now + timedelta(minutes=12))
        nights.world.set_clock(nights.now + quarter)
        before = nights.world.score(trigger=Trigger.SCHEDULED)
        assert (before.mode, before.changed) == (Mode.INCREMENTAL, 1)
    slow.close()

    nights.load(1, at=nights.now + timedelta(minutes=20))
    nights.world.set_clock(nights.now + 2 * quarter)
    after = nights.world.score(trigger=Trigger.SCHEDULED)

    verdict, reason = found(after, "source.late")
    assert after.status.value == "published"
    assert verdict == "warn"
    assert reason.startswith("2 of 3 rows came behind what the last publication had read up to")
    scored = nights.world.rows(f"SELECT id FROM predictions.items WHERE scored_in = {after.generation_id} ORDER BY id")
    if late_by == "2h":
        assert reason.endswith("; they are asked for again, within late_by")
        assert scored == [(2,), (7,), (8,)]
    else:
        assert "2 of them further behind than late_by reaches: incremental runs miss these" in reason
        assert "run `prescore score items --full`" in reason
        assert scored == [(2,)]
    # What was picked up is what a full run gives.
    columns = "SELECT id, p FROM predictions.items ORDER BY id"
    incremental = nights.world.rows(columns)
    nights.world.score(full=True)
    differ = {new[0] for new, old in zip(nights.world.rows(columns), incremental, strict=True) if new != old}
    assert differ <= {7, 8}
    assert bool(differ) is (late_by != "2h")


def test_scenario_8_two_columns_that_were_swapped_in_sql_are_named(nights: Nights) -> None:
    nights.load()
    nights.declare(features=FEATURES.replace("i.a, i.price", "i.price AS a, i.a AS price"))

    aborted = nights.score()

    assert aborted.status.value == "aborted"
    assert found(aborted, "schema")[0] == "pass"
    assert found(aborted, "logic") == (
        "fail",
        "the logic changed since training and gives other features for known rows: a, price",
    )
    recorded, built_again = (finding for finding in aborted.findings if finding.check_id == "model.golden")
    assert (recorded.verdict.value, built_again.verdict.value) == ("pass", "fail")
    assert "golden rows built again by features.sql are not as recorded: prediction column p" in built_again.reason
    assert nights.state() == "fresh"


def test_scenario_12_another_minor_version_aborts_before_scoring_and_is_waived_only_with_golden_rows(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.load()
    here = bundle.running_environment()
    major, minor, *_ = here["scikit-learn"].split(".")

    def runs(version: str) -> None:
        monkeypatch.setattr(bundle, "running_environment", lambda *_: {**here, "scikit-learn": version})

    runs(f"{major}.{minor}.99")
    patched = nights.score()
    assert patched.status.value == "published"
    assert found(patched, "model.environment")[0] == "warn"
    assert f"{major}.{minor}.99 running" in found(patched, "model.environment")[1]

    runs(f"{major}.{int(minor) + 1}.0")
    aborted = nights.score()
    assert aborted.status.value == "aborted"
    assert found(aborted, "model.environment")[0] == "fail"
    assert aborted.population == 0

    waiver = {"trigger": Trigger.MANUAL, "waive": ["model.environment"], "because": "the new image was tested"}
    nights.declare(toml=TOML + '[manual]\nmay_waive = ["model.environment"]\n')
    broken = GoldenResult(passed=False, compared=200, worst="prediction column p differs by up to 0.1")
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "replay_golden", lambda *_: broken)
        refused = nights.score(**waiver)
    assert refused.status.value == "aborted"
    assert "model.environment" in refused.message
    assert "model.golden: golden rows are not as recorded" in refused.message

    waived = nights.score(**waiver)
    assert waived.status.value == "published"
    assert found(waived, "model.golden")[0] == "pass"
    assert nights.state() == "aging"


def test_scenario_13_edited_sql_makes_an_incremental_run_full_and_readers_see_one_logic_at_a_time(
    nights: Nights,
) -> None:
    served = nights.world.one("SELECT generation_id FROM prescore.head")["generation_id"]
    nights.load(3)
    nights.declare(features=FEATURES.replace("7 * b.id + 3 * count(*)", "3 * count(*) + 7 * b.id"), source="")
    during: list[Any] = []
    states = "SELECT DISTINCT state, scored_in FROM predictions.items"

    run = nights.score(watcher=During("publish", lambda: during.extend(nights.world.rows(states))))

    assert (run.mode, run.because) == (Mode.FULL, "invalidated: the logic of the pipeline changed")
    assert found(run, "logic")[0] == "warn"
    assert during == [("fresh", served)]
    # Nothing is left unreached, so that there is nothing to supersede: every row is of the new logic at once.
    assert nights.world.rows(states) == [("aging", run.generation_id)]
    assert run.scored == ITEMS
    # It stays a warning until the model is trained again, so that it must not keep runs from showing what is usual.
    with connect(nights.world.url) as connection:
        before = nights.now + timedelta(seconds=1)
        clean = clean_runs(connection, "items", mode="full", model_version=1, before=before, limit=1)
    assert clean == [run.run_id]


def test_scenario_14_an_alias_that_moves_during_a_run_counts_for_the_next_one(nights: Nights) -> None:
    nights.load()
    second = make_model(nights.world, nights.declare(), train_data_until=FIRST, promote=False)
    assert second.version == 2

    def promote() -> None:
        registry.promote_now(nights.world.url, "items", 2, "champion", "a test")

    run = nights.score(full=True, watcher=During("score", promote))

    assert run.status.value == "published"
    verdict, reason = found(run, "model.identity")
    assert (verdict, reason.split(";")[0]) == (
        "warn",
        "champion moved to version 2 during the run, which scored with 1",
    )
    assert nights.world.rows("SELECT DISTINCT model_version FROM predictions.items") == [(1,)]
    following = nights.score()
    assert (following.mode, following.model_version) == (Mode.FULL, 2)
    assert nights.world.rows("SELECT DISTINCT model_version FROM predictions.items") == [(2,)]


@pytest.mark.slow
def test_scenario_14_a_version_whose_record_changes_during_a_run_is_not_published(nights: Nights) -> None:
    nights.load()

    def tamper() -> None:
        nights.world.execute("UPDATE prescore.models SET digest = repeat('0', 64)")

    aborted = nights.score(full=True, watcher=During("judge", tamper))

    assert aborted.status.value == "aborted"
    assert "version 1 has the digest 000000000000 in the registry; the run scored with" in aborted.message
    assert nights.state() == "fresh"


def test_sentinels_that_come_out_otherwise_in_bulk_abort_and_leave_what_is_served(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.load()
    right = Scorer._outputs

    def wrong(self: Scorer, batch: Any, rows_before: int) -> Any:
        outputs = right(self, batch, rows_before)
        return outputs if len(batch) < ITEMS else {"p": outputs["p"].take(pa.array(range(len(batch))[::-1]))}

    monkeypatch.setattr(Scorer, "_outputs", wrong)

    aborted = nights.score(full=True)

    assert aborted.status.value == "aborted"
    assert found(aborted, "model.golden")[0] == "pass"
    assert found(aborted, "model.sentinels")[0] == "fail"
    assert "are not as recorded: p differs by up to" in aborted.message
    assert nights.state() == "fresh"
