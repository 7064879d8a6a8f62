"""Days of tests/shop_year.py through real runs on an embedded PostgreSQL of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
from psycopg2.extras import execute_values

from tasks import embedded, migrations, registry
from tasks.database import connect, libpq_url
from tasks.profiles import ModelProfile
from tasks.runs import Status, Trigger
from tasks.settings import Settings
from tests.factories import World, make_model, make_pipeline
from tests.shop_year import SHAPES, Shop, table

NAMES = [shape.name for shape in SHAPES]
TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.customers"
[features]
query = "features.sql"
[predictions]
p = { method = "predict_proba", class = "1" }
[model]
warn_age = "900d"
fail_age = "999d"
[drift]
slot = "weekday"
"""
FEATURES = f"SELECT c.id, b.as_of, {', '.join(f'c.{name}' for name in NAMES)} FROM batch AS b JOIN public.customers AS c USING (id)"

Answers = dict[tuple[str, str], tuple[str, str, str]]


def findings_of_real_runs(shop: Shop, days: int) -> Iterator[tuple[ModelProfile, Answers]]:
    """Yield for each day the profile of the model and what the checks of features answered in a scheduled run.

    An answer is the verdict, what it counts as, and the reason, by check and subject.
    """
    base = Path("/var/lib") if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="prescore-bench-", dir=base))
    folder.chmod(0o755)
    try:
        url = embedded.ensure_running(folder / "data")
        migrations.apply(url)
        settings = Settings(database_url=url, pipelines_dir=folder / "pipelines", data_dir=folder / "data")
        yield from _runs(World(url=url, settings=settings), shop, days)
    finally:
        embedded.stop(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


def _runs(world: World, shop: Shop, days: int) -> Iterator[tuple[ModelProfile, Answers]]:
    columns = ", ".join(f"{shape.name} {shape.postgres_type}" for shape in SHAPES)
    world.execute(f"CREATE TABLE public.customers (id bigint PRIMARY KEY, {columns})")
    _load(world, shop, -180, 10_000)
    pipeline = make_pipeline(world, "shop", toml=TOML, features=FEATURES, changes=None)
    version = make_model(world, pipeline, train_data_until=shop.at(-30), sample_rows=10_000)
    with connect(world.url) as connection:
        bundle = registry.load_bundle(connection, "shop", version.version, pipeline)
    profile = ModelProfile.from_bundle(bundle.profile)
    for day in range(days):
        _load(world, shop, day, shop.entities)
        world.set_clock(shop.at(day))
        summary = world.score("shop", full=True, trigger=Trigger.SCHEDULED)
        assert summary.status is Status.PUBLISHED, summary.message
        judged = [
            f for f in summary.findings if f.check_id.startswith(("input.", "drift.")) and f.check_id != "drift.output"
        ]
        yield profile, {(f.check_id, f.subject): (f.verdict.value, f.effective.value, f.reason) for f in judged}


def _load(world: World, shop: Shop, day: int, entities: int) -> None:
    rows = table(shop.day(day, entities=entities))
    rows = rows.add_column(0, "id", pa.array(range(1, entities + 1), pa.int64()))
    world.execute("TRUNCATE public.customers")
    statement = f"INSERT INTO public.customers ({', '.join(['id', *NAMES])}) VALUES %s"
    connection: Any = psycopg2.connect(libpq_url(world.url))
    try:
        with connection, connection.cursor() as cursor:
            execute_values(cursor, statement, [tuple(row.values()) for row in rows.to_pylist()], page_size=1_000)
    finally:
        connection.close()
