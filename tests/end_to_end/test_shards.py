"""Shards: a full run in parts gives what one stream gives; dead workers and dead runs cost their own shard and no other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tasks import shards
from tasks.pipeline import load_pipeline
from tests.disturbances import prescore
from tests.factories import CHANGES_SQL, PIPELINE_TOML, World, make_model, make_pipeline, make_world

SERVED = (
    "SELECT id, rejected, p, label FROM prescore_rows.items WHERE storage_id = (SELECT storage_id FROM prescore.head) "
    "ORDER BY id"
)
# Every 500th item has no features, so that rejections are counted too.
FEATURES_SQL = """
SELECT i.id, b.as_of, i.a, i.b, i.c FROM batch AS b JOIN public.items AS i ON i.id = b.id WHERE i.id % 500 <> 0
"""


def declare(world: World, execution: str) -> None:
    toml = PIPELINE_TOML + '[serve]\naging_after = "10h"\nstale_after = "20h"\n'
    make_pipeline(world, toml=toml + "[execution]\n" + execution, features=FEATURES_SQL, changes=CHANGES_SQL)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    world = make_world(database_url, tmp_path, rows=4_000)
    declare(world, "workers = 1\n")
    make_model(world, make_pipeline(world, features=FEATURES_SQL))
    declare(world, "workers = 1\n")
    return world


def counted(world: World, run_id: int) -> set[str]:
    """Everything that a run counted: profiles but for the rounding of moments, and what the checks found in how many."""
    profiles = world.rows(
        "SELECT kind, name, rows, nulls, nans, infinities, under, over, unseen, tails, minimum, maximum, counts, digest, "
        f"round(mean::numeric, 9), round(m2::numeric, 6) FROM prescore.profiles WHERE run_id = {run_id} ORDER BY kind, name"
    )
    checks = world.rows(
        f"SELECT check_id, subject, verdict, n FROM prescore.checks WHERE run_id = {run_id} "
        "AND check_id NOT IN ('clock.offset', 'model.sentinels', 'runs.hung') ORDER BY 1, 2"
    )
    return {str(row) for row in profiles + checks}


def states(world: World) -> list[tuple[int, str, int | None]]:
    """The shards of the last run: number, state, and the run that scored each."""
    return world.rows(
        "SELECT shard, state, scored_by FROM prescore.shards WHERE run_id = (SELECT max(run_id) FROM prescore.shards) "
        "ORDER BY shard"
    )


def break_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let one shard end with an error before its rows are committed."""
    close = shards.ShardBooks.close

    def broken(self: shards.ShardBooks, *arguments: object) -> None:
        if self.shard == number:
            raise RuntimeError("the power went")
        close(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shards.ShardBooks, "close", broken)


def leave_shards(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run finish three of four shards and fail."""
    declare(world, "shards = 4\n")
    with monkeypatch.context() as patch:
        break_at(patch, 4)
        with pytest.raises(RuntimeError):
            world.score(full=True)
    assert [state for _, state, _ in states(world)] == ["finished"] * 3 + ["open"]


def test_shards_give_what_one_stream_gives(world: World) -> None:
    for _ in range(3):  # so that every check has what it compares with
        one = world.score(full=True)
    before = world.rows(SERVED)
    declare(world, "shards = 4\n")
    four = world.score(full=True)
    assert (four.status, four.scored, four.rejected) == ("published", 3_992, 8)
    assert world.rows(SERVED) == before
    assert counted(world, four.run_id) ^ counted(world, one.run_id) == set()
    shards = world.rows(f"SELECT state, rows, keys FROM prescore.shards WHERE run_id = {four.run_id} ORDER BY shard")
    assert [state for state, *_ in shards] == ["finished"] * 4
    assert all(900 <= rows == keys <= 1_100 for _, rows, keys in shards)


def test_the_next_run_keeps_finished_shards_of_a_killed_one_that_are_right_still(world: World) -> None:
    declare(world, "shards = 4\n")
    prescore(world, "score", "items", "--full", kill_at="copy.finished:3")
    died = world.one("SELECT run_id, as_of FROM prescore.runs")
    world.execute("DELETE FROM public.items WHERE id = 1501")
    world.execute("UPDATE public.items SET a = -0.5, updated_at = statement_timestamp() WHERE id = 17")

    resumed = world.score()

    assert resumed.status == "published"
    assert "2 of 4 shards" in resumed.message
    assert [run for *_, run in states(world)] == [died["run_id"], resumed.run_id, died["run_id"], resumed.run_id]
    assert world.rows("SELECT count(*) FROM predictions.items") == [(3_999,)]
    head = world.one("SELECT watermark, data_as_of, as_of FROM prescore.head")
    assert head["watermark"] <= died["as_of"] < head["as_of"]
    assert head["data_as_of"] <= died["as_of"]
    kept = world.rows("SELECT count(*) FROM predictions.items WHERE as_of = (SELECT as_of FROM prescore.runs LIMIT 1)")
    assert 1_900 < kept[0][0] < 2_100

    # What changed since in a kept shard is still to come, and comes.
    assert world.score().changed == 1
    incremental = world.rows(SERVED)
    declare(world, "workers = 1\n")
    world.score(full=True)
    assert world.rows(SERVED) == incremental


def clock(world: World) -> datetime:
    """What prescore's clock says."""
    found: datetime = world.one("SELECT prescore.clock() AS now")["now"]
    return found


def remodel(world: World) -> None:
    """Promote another version of the model."""
    make_model(world, load_pipeline(world.settings.pipelines_dir / "items"), sample_rows=400)


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        pytest.param(lambda world: world.set_clock(clock(world) + timedelta(hours=6)), False, id="too old"),
        pytest.param(lambda world: None, True, id="another as_of is asked for"),
        pytest.param(remodel, False, id="another model"),
        pytest.param(
            lambda world: world.execute("DELETE FROM prescore_rows.items WHERE id % 900 = 1"), False, id="rows"
        ),
    ],
)
def test_shards_that_are_not_right_any_more_are_scored_again(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Callable[[World], object], asked: bool
) -> None:
    leave_shards(world, monkeypatch)
    change(world)
    summary = world.score(**({"as_of": clock(world)} if asked else {}))
    assert summary.status == "published"
    assert "kept" not in summary.message
    assert {run for *_, run in states(world)} == {summary.run_id}
    assert world.one("SELECT count(*) AS rows, count(DISTINCT as_of) AS instants FROM predictions.items") == {
        "rows": 4_000,
        "instants": 1,
    }


def test_two_resumed_runs_in_a_row_keep_the_shards_of_both(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(world, "shards = 4\n")
    for number in (2, 3):
        with monkeypatch.context() as patch:
            break_at(patch, number)
            with pytest.raises(RuntimeError):
                world.score(full=True)
    summary = world.score(full=True)
    assert "2 of 4 shards" in summary.message
    runs = [run for *_, run in states(world)]
    assert runs == [summary.run_id - 2, summary.run_id - 1, summary.run_id, summary.run_id]
    assert world.one("SELECT watermark <= (SELECT min(as_of) FROM prescore.runs) AS early FROM prescore.head")["early"]


def test_a_shard_whose_worker_dies_is_done_by_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.score(full=True)
    before = world.rows(SERVED)
    declare(world, "workers = 2\nshards = 3\n")
    monkeypatch.setenv("PRESCORE_TEST_KILL_AT", "copy.sent:2")  # each worker dies at its second shard
    summary = world.score(full=True)
    assert summary.status == "published"
    assert world.rows(SERVED) == before
    found = world.rows(f"SELECT attempt, owner FROM prescore.shards WHERE run_id = {summary.run_id}")
    assert max(attempt for attempt, _ in found) > 1
    assert len({owner for _, owner in found}) > 1


def test_a_query_that_does_not_carry_the_range_is_scored_as_one_stream(world: World) -> None:
    world.execute(
        "CREATE TABLE public.notes AS SELECT id, repeat('x', 4000) AS note, 0.5::float8 AS weight "
        "FROM generate_series(1, 4000) AS id; ALTER TABLE public.notes ALTER COLUMN note SET STORAGE PLAIN; "
        "INSERT INTO public.notes SELECT id + 4000, repeat('y', 4000), 0.5 FROM generate_series(1, 8000) AS id; "
        "ANALYZE public.notes"
    )
    toml = PIPELINE_TOML + "[execution]\nshards = 8\n"
    joined = "JOIN public.notes AS n ON n.id = b.id WHERE"
    features = FEATURES_SQL.replace("i.a,", "i.a * n.weight AS a,").replace("WHERE", joined)
    make_model(world, make_pipeline(world, toml=toml, features=features))
    summary = world.score(full=True)
    assert summary.status == "published"
    assert "Scored as one stream: features.sql does not carry the range of keys" in summary.message
    assert "public.notes" in summary.message
    assert states(world) == []
