"""A generation that turns out bad after publication: readers lose sight of it at once, and the next run mends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tasks.database import connect, raw_execute
from tasks.population import Mode
from tasks.quarantine import Effect, UnknownGeneration, quarantine, release
from tasks.rollback import NothingToReturnTo, PreviousQuarantined, resume, rollback
from tasks.runs import Fenced, Status
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

# Later than any real clock, so that what the database writes by its own clock lies in the past of the test.
START = datetime(2040, 1, 15, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SERVE = '\n[serve]\naging_after = "1h"\nstale_after = "2h"\nserve_stale_for = "3h"\n'
BAD = "prices of May are in cents"
ROWS = 40


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    """Forty items and their model; nothing is published."""
    world = make_world(database_url, tmp_path, rows=ROWS)
    world.execute(f"UPDATE public.items SET updated_at = TIMESTAMPTZ '{START}' - interval '1 day'")
    world.set_clock(START)
    make_model(world, make_pipeline(world, toml=PIPELINE_TOML + SERVE), train_data_until=START - timedelta(days=1))
    return world


def _publish(world: World, minutes: int, *, full: bool = False, changed: str = "false", watcher: Any = None) -> int:
    """Let time pass, change items, and publish; return the generation."""
    at = START + minutes * MINUTE
    world.set_clock(at)
    world.execute(
        f"UPDATE public.items SET a = a + 1, updated_at = TIMESTAMPTZ '{at}' - interval '1 s' WHERE {changed}"
    )
    summary = world.score(full=full, watcher=watcher)
    assert summary.status is Status.PUBLISHED, summary.message
    assert summary.mode is (Mode.FULL if full else Mode.INCREMENTAL)
    assert summary.generation_id is not None
    return summary.generation_id


def _hidden(world: World) -> list[int]:
    """Return the keys whose state is quarantined; they have no prediction, every other key has one."""
    read = world.rows("SELECT id, state, p, label FROM predictions.items ORDER BY id")
    assert all((state == "quarantined") == (p is None) == (label is None) for _, state, p, label in read)
    hidden = [key for key, state, *_ in read if state == "quarantined"]
    usable = {key for (key,) in world.rows("SELECT id FROM predictions.items_usable")}
    assert usable == {key for key, *_ in read} - set(hidden)
    return hidden


def _head(world: World) -> dict[str, Any]:
    head: dict[str, Any] = world.one("SELECT * FROM prescore.head")
    return head


class At:
    """Does something when a run comes to a stage."""

    def __init__(self, stage: str, act: Callable[[], object]) -> None:
        self._stage, self._act = stage, act

    def stage(self, name: str) -> None:
        if name == self._stage:
            self._act()

    def rows(self, done: int, total: int) -> None:
        pass


def test_a_bad_incremental_generation_is_hidden_at_once_and_scored_again_by_the_next_run(world: World) -> None:
    first = _publish(world, 0, full=True)
    bad = _publish(world, 10, changed="id <= 3")
    before = _head(world)

    done = quarantine(world.url, "items", bad, BAD)

    assert (done.effect, done.masked, done.returned_to, done.already) == (Effect.MASKED, 3, None, False)
    assert _hidden(world) == [1, 2, 3]
    seen = world.one("SELECT * FROM predictions.items_for(2)")
    assert (seen["state"], seen["reasons"][0], seen["cache_for"]) == (
        "quarantined",
        f"quarantined: {BAD}",
        timedelta(0),
    )
    assert world.one("SELECT reasons FROM predictions.items WHERE id = 7")["reasons"] == []
    # Head is as it was, but for the mark: nobody was moved and nothing is pinned.
    after = _head(world)
    assert {name for name in after if after[name] != before[name]} == {"quarantined", "quarantined_because"}
    kept = world.one("SELECT * FROM prescore.quarantines")
    assert (kept["generation_id"], kept["because"], kept["effect"], kept["released_at"]) == (bad, BAD, "masked", None)
    assert kept["quarantined_by"]
    assert world.one(f"SELECT quarantined_at FROM prescore.generations WHERE generation_id = {bad}")["quarantined_at"]

    again = quarantine(world.url, "items", bad, "said twice")
    assert (again.already, again.because, again.quarantined_at) == (True, BAD, done.quarantined_at)
    assert world.rows("SELECT count(*) FROM prescore.quarantines") == [(1,)]
    assert _head(world) == after

    # Nothing changed since, yet the run scores what is hidden; then head forgets the generation.
    world.set_clock(START + 20 * MINUTE)
    world.execute("DELETE FROM public.items WHERE id = 3")
    mended = world.score()
    assert (mended.status, mended.mode, mended.due, mended.gone) == (Status.PUBLISHED, Mode.INCREMENTAL, 2, 1)
    assert _hidden(world) == []
    assert (_head(world)["quarantined"], _head(world)["quarantined_because"]) == ([], [])
    assert {row[0] for row in world.rows("SELECT scored_in FROM predictions.items")} == {first, mended.generation_id}
    # What is superseded is scored again in the same way.
    world.execute(f"UPDATE prescore.head SET valid_since = {mended.generation_id}")
    with connect(world.url) as connection:  # as prescore would, and without knowing any more what the rows are like
        raw_execute(connection, "UPDATE prescore_rows.items SET scored_in = scored_in + 1000 WHERE id > 6")
        raw_execute(connection, "UPDATE prescore.storages SET rejected = NULL")
        connection.commit()
    assert world.rows("SELECT id FROM predictions.items WHERE state = 'superseded' ORDER BY id") == [(4,), (5,), (6,)]
    world.set_clock(START + 30 * MINUTE)
    summary = world.score()
    assert (summary.mode, summary.due) == (Mode.INCREMENTAL, 3)
    assert world.rows("SELECT DISTINCT state FROM predictions.items") == [("fresh",)]
    # It stays on record as bad; what it scored is served no more.
    assert quarantine(world.url, "items", bad, BAD).already


def test_a_bad_full_generation_gives_way_to_the_last_good_one_and_the_next_run_goes_on_from_there(world: World) -> None:
    _publish(world, 0, full=True)
    good = _publish(world, 10, changed="id <= 2")
    was = world.rows("SELECT id, p, label, as_of, scored_in FROM predictions.items ORDER BY id")
    bad = _publish(world, 20, full=True, changed="id <= 30")
    on_top = _publish(world, 25, changed="id = 1")

    done = quarantine(world.url, "items", bad, BAD)

    assert (done.effect, done.returned_to, done.undone, done.masked) == (Effect.ROLLED_BACK, good, (bad, on_top), 0)
    assert world.rows("SELECT id, p, label, as_of, scored_in FROM predictions.items ORDER BY id") == was
    assert world.one("SELECT state, reasons FROM predictions.items WHERE id = 7") == {
        "state": "fresh",
        "reasons": [f"quarantine: generation {bad} was found bad: {BAD}"],
    }
    assert world.one("SELECT state, pinned FROM prescore.pipeline_health") == {"state": "fresh", "pinned": False}
    with pytest.raises(NothingToReturnTo):
        rollback(world.url, "items")
    # What is quarantined on top of it now is not served any more.
    assert quarantine(world.url, "items", on_top, BAD).effect is Effect.UNSEEN

    world.set_clock(START + 30 * MINUTE)
    mended = world.score(full=True)
    assert mended.status is Status.PUBLISHED
    assert (_hidden(world), _head(world)["reasons"], _head(world)["quarantined"]) == ([], [], [])

    # Taken back too late: nobody sees it again.
    freed = release(world.url, "items", bad, "they were right after all")
    assert (freed.released, freed.undone, freed.shown) == (True, True, 0)
    assert _head(world)["generation_id"] == mended.generation_id


def test_a_full_generation_that_cannot_give_way_is_hidden_and_the_next_run_scores_everybody(world: World) -> None:
    first = _publish(world, 0, full=True)
    done = quarantine(world.url, "items", first, BAD)
    assert (done.effect, done.masked) == (Effect.MASKED, ROWS)
    assert "no publication before it" in done.kept_because
    assert len(_hidden(world)) == ROWS
    since = world.one("SELECT quarantined_at FROM prescore.quarantines")["quarantined_at"]
    assert world.one("SELECT state FROM prescore.pipeline_health")["state"] == "quarantined"
    # Also when an incremental run has published on top of it since: most rows are what it scored.
    assert release(world.url, "items", first).shown == ROWS
    _publish(world, 1, changed="id = 1")
    quarantine(world.url, "items", first, BAD)
    assert len(_hidden(world)) == ROWS - 1
    health = world.one("SELECT state, state_since FROM prescore.pipeline_health")
    assert (health["state"], health["state_since"] > since) == ("quarantined", True)

    world.set_clock(START + 10 * MINUTE)
    second = world.score()
    assert (second.status, second.mode, second.scored) == (Status.PUBLISHED, Mode.FULL, ROWS)
    assert _hidden(world) == []

    # The one before it is quarantined: a rollback refuses, and so does the quarantine of this one.
    with pytest.raises(PreviousQuarantined):
        rollback(world.url, "items")
    done = quarantine(world.url, "items", second.generation_id or 0, BAD)
    assert (done.effect, f"generation {first}, is quarantined too" in done.kept_because) == (Effect.MASKED, True)
    assert release(world.url, "items", second.generation_id or 0).shown == ROWS
    assert _hidden(world) == []

    # The one before it has expired: readers would gain nothing.
    assert release(world.url, "items", first).released
    world.set_clock(START + timedelta(hours=5))
    third = _publish(world, 301, full=True)
    world.set_clock(START + timedelta(hours=5, minutes=10))
    done = quarantine(world.url, "items", third, BAD)
    assert (done.effect, "has expired" in done.kept_because) == (Effect.MASKED, True)


@pytest.mark.slow
def test_a_rollback_keeps_hidden_what_the_previous_storage_holds_of_a_bad_generation(world: World) -> None:
    first = _publish(world, 0, full=True)
    bad = _publish(world, 10, changed="id <= 3")
    _publish(world, 20, full=True)
    # Not served now, but a rollback would bring it back.
    assert quarantine(world.url, "items", bad, BAD).effect is Effect.UNSEEN
    assert _hidden(world) == []

    assert rollback(world.url, "items").generation_id == bad

    assert _hidden(world) == [1, 2, 3]
    assert _head(world)["quarantined_because"] == [BAD]
    assert world.rows("SELECT DISTINCT scored_in FROM predictions.items WHERE state = 'fresh'") == [(first,)]
    resume(world.url, "items")
    assert world.score().due == 3
    assert _hidden(world) == []


def test_a_quarantine_works_beside_a_run_which_does_not_bring_back_what_is_bad(world: World) -> None:
    _publish(world, 0, full=True)
    bad = _publish(world, 10, changed="id <= 3")

    # The run has selected already: it knows nothing of the quarantine, and scores 1 and 5 for other reasons.
    told = At("score", lambda: quarantine(world.url, "items", bad, BAD))
    _publish(world, 20, changed="id IN (1, 5)", watcher=told)
    assert _hidden(world) == [2, 3]
    assert _head(world)["quarantined"] == [bad]
    assert world.one("SELECT reasons FROM predictions.items WHERE id = 2")["reasons"][0] == f"quarantined: {BAD}"
    _publish(world, 21)
    assert (_hidden(world), _head(world)["quarantined"]) == ([], [])

    # A full generation gives way while an incremental run is at work on it: that run may not publish.
    good = _head(world)["generation_id"]
    full = _publish(world, 22, full=True)
    gives_way = At("publish", lambda: quarantine(world.url, "items", full, BAD))
    with pytest.raises(Fenced, match=f"generation {good} is served now"):
        _publish(world, 23, changed="id = 9", watcher=gives_way)
    assert _head(world)["generation_id"] == good
    # A full run that starts now needs no repair by hand.
    _publish(world, 24, full=True)
    assert _hidden(world) == []


def test_the_command_says_what_it_did_and_refuses_what_cannot_be_meant(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
    first = _publish(world, 0, full=True)
    bad = _publish(world, 10, changed="id <= 3")

    def run(*words: str) -> str:
        ended = CliRunner().invoke(app, ["quarantine", "items", *words])
        assert ended.exit_code == 0, ended.output
        return " ".join(ended.stdout.split())

    with pytest.raises(UnknownGeneration, match=f"no generation 999.*latest are {bad}, {first}"):
        quarantine(world.url, "items", 999, BAD)
    with pytest.raises(UnknownGeneration, match="others has no generation"):
        quarantine(world.url, "others", bad, BAD)
    for words in ((), ("--because", "  ")):
        refused = CliRunner().invoke(app, ["quarantine", "items", str(bad), *words])
        assert refused.exit_code != 0
    assert _hidden(world) == []
    assert world.rows("SELECT count(*) FROM prescore.quarantines") == [(0,)]

    said = run(str(bad), "--because", BAD)
    assert f"generation {bad} is quarantined: {BAD}" in said
    assert "3 rows are hidden from readers" in said
    assert "prescore models rollback items" in said
    assert "already" in run(str(bad), "--because", BAD)
    assert json.loads(run(str(bad), "--because", BAD, "--json"))["effect"] == "masked"
    assert "3 rows show their predictions again" in run(str(bad), "--release", "--because", "it was June")
    assert _hidden(world) == []
    assert "was not quarantined" in run(str(bad), "--release")
    kept = world.one("SELECT released_because, released_by FROM prescore.quarantines")
    assert kept["released_because"] == "it was June"
    assert f"Readers see generation {first} again" not in run(str(first), "--because", BAD)
