"""What readers saw at any instant is told afterwards as they saw it: over merges, full runs, rollbacks and quarantines."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tasks import row_history
from tasks.quarantine import quarantine, release
from tasks.rollback import resume, rollback
from tests.disturbances import prescore
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

HISTORY = '[history]\nkeep = "90d"\n'


@dataclass
class Past:
    """A world whose readers write down what they see."""

    world: World
    start: datetime
    seen: dict[datetime, list[Any]] = field(default_factory=dict)

    def at(self, hour: float, happens: Callable[[], object]) -> None:
        """Let something happen at an hour, and read everything a minute and, by the limits, days later."""
        self.world.set_clock(self.start + timedelta(hours=hour))
        happens()
        instant = self.start + timedelta(hours=hour, minutes=1)
        self.world.set_clock(instant)
        self.seen[instant] = self.world.rows("SELECT * FROM predictions.items ORDER BY id")

    def require_told(self) -> None:
        """Every reading is told as it was, of all entities and of one alone."""
        for instant, rows in self.seen.items():
            when = instant.isoformat()
            assert self.world.rows(f"SELECT * FROM predictions.items_at('{when}') ORDER BY id") == rows, when
            for key in (3, 50, 1000, 2000):
                alone = self.world.rows(f"SELECT * FROM predictions.items_at({key}, '{when}')")
                then = [row for row in rows if row[0] == key]
                assert alone == then if then else alone[0][1] == "missing", when


def _change(world: World, statement: str) -> None:
    world.change(statement.replace("now()", "prescore.clock()"))


def test_what_readers_saw_is_told_whatever_happened_since(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(database_url, tmp_path, rows=100)
    make_model(world, make_pipeline(world, toml=PIPELINE_TOML + HISTORY))
    past = Past(world, datetime.now(UTC).replace(microsecond=0))
    past.at(1, world.score)
    _change(world, "UPDATE items SET a = 5, updated_at = now() WHERE id < 5; DELETE FROM items WHERE id = 50")
    past.at(2, world.score)
    past.at(3, lambda: world.score(full=True))
    _change(world, "INSERT INTO items SELECT 1000, 1, 1, 'x', now()")
    merged: list[Any] = []
    past.at(4, lambda: merged.append(world.score().generation_id))
    past.at(4.2, lambda: quarantine(database_url, "items", merged[0], "prices in cents"))
    past.at(4.4, lambda: release(database_url, "items", merged[0]))
    _change(
        world, "UPDATE items SET a = -5, updated_at = now() WHERE id < 9; INSERT INTO items SELECT 50, 1, 1, 'x', now()"
    )
    past.at(5, lambda: world.score(full=True))
    past.at(6, lambda: rollback(database_url, "items"))
    resume(database_url, "items")
    _change(world, "UPDATE items SET a = -7, updated_at = now() WHERE id < 3")
    past.at(7, world.score)
    _change(world, "INSERT INTO items SELECT 2000, 1, 1, 'x', now()")
    past.at(8, lambda: world.score(full=True))
    past.at(60, lambda: None)
    past.at(120, lambda: None)
    past.at(121, lambda: world.score(full=True))
    past.at(122, lambda: world.score(full=True))

    past.require_told()
    states = {row[1] for rows in past.seen.values() for row in rows}
    assert states == {"fresh", "aging", "quarantined", "stale", "expired"} - ({"aging", "stale"} - states)
    # By change: the first lineage had 103 versions of rows, of which no later one tells those that changed.
    stored = dict(world.rows("SELECT prescore_base, count(*) FROM prescore_rows.items_history GROUP BY 1"))
    assert stored[1] < 15
    unknown = world.one("SELECT * FROM predictions.items_at(3, '2020-01-01')")
    assert unknown["state"] == "not_kept"
    assert unknown["p"] is None
    assert "kept since" in unknown["reasons"][0]

    monkeypatch.setenv("PRESCORE_DATABASE_URL", database_url)
    told = CliRunner().invoke(app, ["history", "items", "3", "--json"])
    stretches = json.loads(told.stdout)["seen"]
    assert [stretch["row"]["p"] for stretch in stretches[:2]] == [
        next(row[-2] for row in rows if row[0] == 3) for rows in list(past.seen.values())[:2]
    ]
    assert stretches[-1]["seen_until"] is None
    assert "now" in CliRunner().invoke(app, ["history", "items", "3"]).stdout
    asked = CliRunner().invoke(app, ["history", "items", "3", "--at", "2020-01-01", "--json"])
    assert (asked.exit_code, json.loads(asked.stdout)["state"]) == (3, "not_kept")

    # Twelve days after hour 5, with ten days to keep: what was seen until then goes, and nothing else.
    world.execute("UPDATE prescore.pipelines SET history_keep = interval '240 hours'")
    world.set_clock(past.start + timedelta(hours=5 + 240, minutes=30))
    assert row_history.remove_past(database_url, "items").rows > 0
    assert row_history.remove_past(database_url, "items") == row_history.Removed()
    gone = [instant for instant in past.seen if instant < past.start + timedelta(hours=5)]
    for instant in gone:
        del past.seen[instant]
        found = world.one(f"SELECT state FROM predictions.items_at(3, '{instant.isoformat()}')")
        assert found == {"state": "not_kept"}
    assert len(gone) == 6
    past.require_told()
    world.set_clock(past.start + timedelta(days=400))
    row_history.remove_past(database_url, "items")
    assert world.rows("SELECT count(*) FROM prescore_rows.items_history") == [(0,)]


@pytest.mark.slow
def test_a_history_that_is_taken_out_still_tells_what_was_seen_before(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path, rows=100)
    make_model(world, make_pipeline(world))
    world.score()
    assert world.rows("SELECT count(*) FROM prescore.lineages") == [(0,)]
    world.execute("CREATE ROLE reader_of_history; GRANT SELECT ON predictions.items TO reader_of_history")
    past = Past(world, datetime.now(UTC).replace(microsecond=0))
    make_pipeline(world, toml=PIPELINE_TOML + HISTORY)
    _change(world, "UPDATE items SET a = 5, updated_at = now() WHERE id < 5; DELETE FROM items WHERE id = 50")
    past.at(1, world.score)
    _change(world, "UPDATE items SET a = 7, updated_at = now() WHERE id < 5")
    past.at(2, world.score)
    make_pipeline(world)
    _change(world, "UPDATE items SET a = 9, updated_at = now() WHERE id < 5")
    past.at(3, world.score)
    silent = past.seen.popitem()[0]
    world.score(full=True)
    world.score(full=True)

    past.require_told()
    assert world.one(f"SELECT state FROM predictions.items_at(3, '{silent.isoformat()}')") == {"state": "not_kept"}
    # Whoever may read the view may read its past.
    allowed = "has_table_privilege('reader_of_history', 'predictions.items_history', 'SELECT')"
    assert world.rows(f"SELECT {allowed}") == [(True,)]
    world.execute("DROP OWNED BY reader_of_history; DROP ROLE reader_of_history")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["publish.merged", "publish.before_commit", "publish.committed", "history.archived"])
@pytest.mark.parametrize("full", [False, True], ids=["incremental", "full"])
def test_a_killed_run_neither_loses_nor_doubles_what_readers_saw(
    database_url: str, tmp_path: Path, point: str, full: bool
) -> None:
    world = make_world(database_url, tmp_path, rows=100)
    make_model(world, make_pipeline(world, toml=PIPELINE_TOML + HISTORY))
    past = Past(world, datetime.now(UTC).replace(microsecond=0))
    past.at(1, world.score)
    past.at(2, lambda: world.score(full=True))
    _change(world, "UPDATE items SET a = 5, updated_at = now() WHERE id < 5; DELETE FROM items WHERE id = 50")
    options = ("--full",) if full else ()
    killed: list[int] = []
    past.at(3, lambda: killed.append(prescore(world, "score", "items", *options, kill_at=point).returncode))
    assert set(killed) <= {-signal.SIGKILL, 0}
    _change(world, "UPDATE items SET a = 7, updated_at = now() WHERE id < 3")
    past.at(4, world.score)
    past.at(5, lambda: world.score(full=True))
    past.at(6, lambda: world.score(full=True))
    past.at(7, lambda: world.score(full=True))
    past.require_told()
    versions = "SELECT FROM prescore_rows.items_history GROUP BY id, prescore_base, scored_in HAVING count(*) > 1"
    doubled = f"SELECT count(*) FROM ({versions}) AS d"
    assert world.rows(doubled) == [(0,)]
    assert world.rows("SELECT count(*) FROM prescore.lineages WHERE storage_id IS NOT NULL") == [(2,)]
