"""What sources and models do to a nightly run, each as a story: what is found, what follows, what readers see.

The clock is the database's, set by the test; a night's load is 1,000 orders of 24 regions, an hour before the run.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.score import RunSummary
from tasks.runs import Trigger
from tests.conftest import execute, psql_url
from tests.factories import World, make_model, make_pipeline, make_world

ITEMS = 240
NIGHT = 1_000
REGIONS = 24
FIRST = datetime(2024, 5, 6, 3, 0, tzinfo=UTC)  # a Monday
NIGHTS = 4  # published before each story begins

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
FEATURES = """
SELECT b.id, b.as_of, i.a, i.price, o.orders
FROM batch AS b
JOIN public.items AS i ON i.id = b.id
CROSS JOIN LATERAL (SELECT count(*)::double precision AS orders FROM public.orders AS o
                    WHERE o.item = b.id AND o.loaded_at <= b.as_of) AS o
"""
CHANGES = "SELECT o.item AS id FROM public.orders AS o, since WHERE o.loaded_at > since.at"


@dataclass
class Nights:
    """A world in which every night is loaded and scored, until a test has it otherwise."""

    world: World
    night: int = 0
    toml: dict[str, str] = field(default_factory=lambda: {"source": SOURCE})

    @property
    def now(self) -> datetime:
        """When tonight's run starts."""
        return FIRST + timedelta(days=self.night)

    def declare(self, *, features: str = FEATURES, toml: str = TOML, source: str = SOURCE) -> Any:
        """Write the pipeline."""
        return make_pipeline(self.world, toml=toml.format(source=source), features=features, changes=CHANGES)

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
    execute(server_url, f"CREATE DATABASE {name} TEMPLATE {_template}")
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
    execute(server_url, f"CREATE DATABASE {name} TEMPLATE {prepared}")
    nights = Nights(make_world(psql_url(server_url, name), folder, rows=None), night=NIGHTS)
    nights.declare()
    yield nights
    execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def nights(server_url: str, _prepared: str, tmp_path: Path) -> Iterator[Nights]:
    with copied(server_url, _prepared, tmp_path) as made:
        yield made


def test_scenario_5_half_a_load_is_held_and_four_fifths_are_published_flagged(nights: Nights) -> None:
    nights.load(520)

    held = nights.score()

    assert held.status.value == "held"
    assert found(held, "source.age")[0] == "pass"
    assert found(held, "source.rows") == (
        "fail",
        "520 new rows in 24.0 h, 0.52 of what is usual: 1,000 in 24.0 h, the median of 3 slices; limits 0.9 to 1.1 / 0.7 to 1.5",
    )
    assert "Load the rest of the source" in held.message
    assert nights.state() == "fresh"

    nights.load(280)
    flagged = nights.score()

    assert flagged.status.value == "published"
    assert found(flagged, "source.rows")[0] == "warn"
    assert "0.80 of what is usual" in found(flagged, "source.rows")[1]
    assert nights.state() == "aging"
