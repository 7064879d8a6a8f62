"""Who needs a prediction is found without comparing every key where the ledger proves that this will do, and is the same."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks import population, publishing
from tasks.database import connect, raw_execute
from tasks.pipeline import Pipeline
from tasks.population import Mode, Selection
from tasks.transport import open_reading_session
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACTIVE = PIPELINE_TOML.replace(
    '"SELECT id FROM public.items"', "\"SELECT id FROM public.items WHERE c <> 'gone'\""
).replace('changes = "changes.sql"', 'changes = "changes.sql"\nvalid_for = "1d"')
KEEP = (
    "CREATE TABLE public.items_kept AS TABLE public.items; CREATE TABLE public.rows_kept AS TABLE prescore_rows.items_1"
)
RESTORE = (
    "UPDATE prescore.storages SET rejected = 0; TRUNCATE prescore.foreign_writes; "
    "TRUNCATE public.items, prescore_rows.items_1; INSERT INTO public.items TABLE public.items_kept; "
    "INSERT INTO prescore_rows.items_1 TABLE public.rows_kept"
)


@pytest.fixture
def items(database_url: str, tmp_path: Path) -> tuple[World, Pipeline]:
    """A thousand items, published at noon, most of which are entities."""
    world = make_world(database_url, tmp_path)
    world.execute("UPDATE public.items SET c = 'gone' WHERE id > 990")
    world.set_clock(NOON)
    pipeline = make_pipeline(world, toml=ACTIVE)
    make_model(world, pipeline, train_data_until=NOON)
    world.score()
    world.execute(f"UPDATE public.items SET updated_at = '{NOON}'::timestamptz - interval '1 hour'")
    return world, pipeline


def selected(world: World, pipeline: Pipeline, as_of: datetime, *, full: bool = False) -> Selection:
    contract = world.contract(pipeline)
    with connect(world.url) as connection:
        served = publishing.served(connection, pipeline.name)
    assert served is not None
    with open_reading_session(world.url) as session:
        counted = population.summarise(session, pipeline, contract, as_of, served, "asked for" if full else "")
        if counted.mode is Mode.FULL:
            return counted
        return population.select(session, pipeline, contract, as_of, served, counted, 7)


def facts(selection: Selection) -> dict[str, Any]:
    names = ("mode", "because", "population", "key_checksum", "null_keys", "new", "changed", "due", "gone", "served")
    found: dict[str, Any] = {name: getattr(selection, name) for name in names}
    if selection.keys is not None:
        rows = selection.keys.to_pylist()
        found["why"] = sorted((row["id"], row["why"]) for row in rows if row["why"] != "sampled")
        found["as_of"] = {row["as_of"] for row in rows if row["why"] != "sampled"}
        found["checksum"] = selection.selected_checksum
        found["gone_keys"] = sorted(_ids(selection.gone_keys))
    return found


def _ids(keys: pa.Table | None) -> list[int]:
    return [] if keys is None else keys.column("id").to_pylist()


def change(world: World, dice: random.Random) -> None:
    """Let something happen, of what changes.sql names and of what it does not, to entities and to others."""
    moment = NOON + timedelta(minutes=dice.randrange(1, 50))
    some = ", ".join(str(dice.randrange(1, 1_001)) for _ in range(dice.choice([1, 5, 30])))
    fresh = dice.randrange(2_000, 900_000)
    statements = {
        "touch": f"UPDATE public.items SET a = a + 1, updated_at = '{moment}' WHERE id IN ({some})",
        "silently": f"UPDATE public.items SET a = a + 1 WHERE id IN ({some})",
        "leave": f"UPDATE public.items SET c = 'gone', updated_at = '{moment}' WHERE id IN ({some})",
        "return": f"UPDATE public.items SET c = 'x', updated_at = '{moment}' WHERE id > 990 AND id < 1000",
        "delete": f"DELETE FROM public.items WHERE id IN ({some})",
        "new": f"INSERT INTO public.items VALUES ({fresh}, 1, 1, 'x', '{moment}') ON CONFLICT DO NOTHING",
        "unnamed": f"INSERT INTO public.items VALUES ({fresh}, 1, 1, 'x', '2020-01-01') ON CONFLICT DO NOTHING",
        "stranger": f"INSERT INTO public.items VALUES ({fresh}, 1, 1, 'gone', '{moment}') ON CONFLICT DO NOTHING",
        "reject": f"UPDATE prescore_rows.items SET rejected = 'no_features' WHERE id IN ({some}) AND storage_id = 1",
        "age": f"UPDATE prescore_rows.items SET as_of = as_of - interval '2 days' WHERE id IN ({some}) AND storage_id = 1",
        "everybody": f"UPDATE public.items SET updated_at = '{moment}' WHERE id % {dice.choice([4, 6])} = 0",
    }
    what = dice.choice(list(statements))
    if what in {"reject", "age"}:
        _by_itself(world, f"UPDATE prescore.storages SET rejected = NULL; {statements[what]}")
    else:
        world.execute(statements[what])


def _by_itself(world: World, statement: str) -> None:
    """Run SQL as prescore does, which no storage notes as somebody else's."""
    with connect(world.url) as connection:
        raw_execute(connection, statement)
        connection.commit()


def test_whatever_changes_the_selection_is_that_of_comparing_every_key(
    items: tuple[World, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, pipeline = items
    dice, proven = random.Random(20260301), []
    world.execute(KEEP)
    for _ in range(12):
        _by_itself(world, RESTORE)
        for _ in range(dice.choice([0, 1, 1, 2])):
            change(world, dice)
        for full in (False, True):
            found = selected(world, pipeline, NOON + timedelta(hours=1), full=full)
            with monkeypatch.context() as patched:
                patched.setattr(population, "_proven", lambda *_: None)
                compared = selected(world, pipeline, NOON + timedelta(hours=1), full=full)
            assert facts(found) == facts(compared)
            proven.append(found.named is not None)
    assert 2 < sum(proven) < 11


def test_entities_that_changes_sql_names_and_entities_that_it_does_not_name_are_new(
    items: tuple[World, Pipeline],
) -> None:
    world, pipeline = items
    world.execute(
        f"INSERT INTO public.items VALUES (5000, 1, 1, 'x', '{NOON}'), (5001, 1, 1, 'gone', '{NOON}'); "
        f"UPDATE public.items SET a = 2, updated_at = '{NOON}' WHERE id IN (3, 995)"
    )

    named = selected(world, pipeline, NOON + timedelta(hours=1))
    world.execute(
        "INSERT INTO public.items VALUES (6000, 1, 1, 'x', '2020-01-01'); DELETE FROM public.items WHERE id = 9"
    )
    others = selected(world, pipeline, NOON + timedelta(hours=1))

    assert named.named is not None
    assert others.named is None
    assert facts(named)["why"] == [(3, "changed"), (5000, "new")]
    assert facts(others)["why"] == [(3, "changed"), (5000, "new"), (6000, "new")]
    assert facts(others)["gone_keys"] == [9]


def test_a_row_that_somebody_deleted_from_what_is_served_has_everything_scored_anew(
    items: tuple[World, Pipeline],
) -> None:
    world, pipeline = items
    world.execute("DELETE FROM prescore_rows.items WHERE id = 7 AND storage_id = 1")

    found = selected(world, pipeline, NOON + timedelta(hours=1))

    assert (found.mode, found.because, found.new) == (Mode.FULL, population.FOREIGN, 1)


def test_the_sample_of_the_skipped_holds_nobody_who_is_scored(items: tuple[World, Pipeline]) -> None:
    world, pipeline = items
    world.execute(f"UPDATE public.items SET a = 2, updated_at = '{NOON}' WHERE id <= 100")
    _by_itself(
        world,
        "UPDATE prescore_rows.items SET as_of = as_of - interval '2 days' WHERE id BETWEEN 80 AND 120; "
        "UPDATE prescore.storages SET oldest_as_of = NULL",
    )

    found = selected(world, pipeline, NOON + timedelta(hours=1))

    assert found.keys is not None
    ids = _ids(found.keys)
    assert (found.changed, found.due) == (100, 20)
    assert len(ids) == len(set(ids))
    sampled = [row for row in found.keys.to_pylist() if row["why"] == "sampled"]
    assert 120 <= len(sampled) <= 330
    assert {row["as_of"] for row in sampled} == {NOON}
