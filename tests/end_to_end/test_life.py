"""The life of a pipeline: outputs that come and go, another name, the end; and what readers see meanwhile."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from flows.cli import app
from flows.outputs import outputs
from tasks import publishing, removal, renaming, reshaping
from tasks.belongings import DependentsInTheWay
from tasks.database import raw_execute
from tasks.errors import ModelNotFound, UsageError
from tasks.population import Mode
from tasks.quarantine import quarantine, release
from tasks.registration import register_ahead
from tasks.removal import remove
from tasks.renaming import ModelUnnamed, NameTaken, rename
from tasks.reshaping import KeyDiffers, OutputsDiffer
from tasks.rollback import resume, rollback
from tasks.runs import Renamed, RunInProgress, Status, hold_lock
from tasks.waiting import wait_for
from tests.conftest import execute, psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

ROWS = 60
KEPT = PIPELINE_TOML.replace("[predictions]", '[history]\nkeep = "30d"\n[predictions]')
ADDED = KEPT + 'q = { method = "predict_proba", class = "0", index = true }\n'
# What the clock moves from one statement to the next.
MOVING = {"age", "cache_for"}
READ = (
    "SELECT * FROM predictions.items WHERE id = 7",
    "SELECT * FROM predictions.items_for(7)",
    "SELECT p FROM mine WHERE id = 7",
)


def _world(url: str, folder: Path, toml: str = KEPT) -> World:
    """Sixty items, published, with a view of somebody's own over them."""
    world = make_world(url, folder, rows=ROWS)
    make_model(world, make_pipeline(world, toml=toml))
    assert world.score().status is Status.PUBLISHED
    world.execute("CREATE VIEW public.mine AS SELECT id, p, state FROM predictions.items")
    return world


class Reader:
    """Reads again and again in a thread of its own until it is told to stop; what went wrong is kept."""

    def __init__(self, url: str, statements: tuple[str, ...]) -> None:
        self.url, self.statements = url, statements
        self.problems: list[str] = []
        self.reads = 0
        self.wanted = 0
        self.turn = threading.Condition()
        self.stopped = False

    def read(self) -> None:
        """Read in autocommit, every statement in turn."""
        with closing(psycopg2.connect(psql_url(self.url))) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            while not self.stopped:
                for statement in self.statements:
                    try:
                        cursor.execute(statement)
                        found = cursor.fetchall()
                        if len(found) != 1:
                            self.problems.append(f"{statement}: {len(found)} rows")
                    except psycopg2.Error as error:
                        self.problems.append(f"{statement}: {error}")
                        cursor.close()
                        cursor = connection.cursor()
                with self.turn:
                    self.reads += 1
                    self.turn.notify_all()

    def wait(self, more: int) -> None:
        """Wait until everything was read so many times more."""
        with self.turn:
            until = self.reads + more
            assert self.turn.wait_for(lambda: self.reads >= until, timeout=60)


@contextmanager
def _reading(world: World, *statements: str, readers: int = 1) -> Iterator[list[str]]:
    """Read beside what happens within, from before until after it; yields what went wrong."""
    problems: list[str] = []
    threads = []
    reading = [Reader(world.url, statements) for _ in range(readers)]
    for reader in reading:
        reader.problems = problems
        threads.append(threading.Thread(target=reader.read, daemon=True))
        threads[-1].start()
    try:
        for reader in reading:
            reader.wait(3)
        yield problems
        for reader in reading:
            reader.wait(3)
    finally:
        for reader in reading:
            reader.stopped = True
        for thread in threads:
            thread.join(timeout=60)


@pytest.fixture
def role(server_url: str) -> Iterator[str]:
    """A role that may read what it is granted."""
    name = f"life_reader_{uuid.uuid4().hex[:8]}"  # roles belong to the server, which tests share
    execute(server_url, f"CREATE ROLE {name}")
    yield name
    execute(server_url, f"DROP ROLE {name}")


def _rights(world: World) -> list[Any]:
    return world.rows(
        "SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'predictions'::regnamespace "
        "UNION ALL SELECT proname, proacl::text FROM pg_proc WHERE pronamespace = 'predictions'::regnamespace "
        "AND proname !~ '[0-9]$' ORDER BY 1"
    )


def test_an_output_is_added_in_place_and_nobody_who_reads_notices(role: str, database_url: str, tmp_path: Path) -> None:
    world = _world(database_url, tmp_path)
    world.execute(f"GRANT USAGE ON SCHEMA predictions TO {role}; GRANT SELECT ON predictions.items TO {role}")
    world.execute("REVOKE EXECUTE ON FUNCTION predictions.items_for FROM PUBLIC")
    world.execute(f"GRANT EXECUTE ON FUNCTION predictions.items_for TO {role} WITH GRANT OPTION")
    world.execute("CREATE VIEW public.looked_up AS SELECT * FROM predictions.items_for(7)")
    before, rights = world.one("SELECT * FROM predictions.items WHERE id = 7"), _rights(world)

    make_pipeline(world, toml=ADDED)
    seen: list[Any] = []

    class Look:
        def stage(self, name: str) -> None:
            if name == "check the guards":
                seen.append(world.one("SELECT * FROM predictions.items WHERE id = 7"))

        def rows(self, done: int, total: int) -> None:
            return

    with _reading(world, *READ) as problems:
        summary = world.score(watcher=Look())
    assert problems == []
    assert (summary.status, summary.mode) == (Status.PUBLISHED, Mode.FULL)
    after = world.one("SELECT * FROM predictions.items WHERE id = 7")
    assert list(after) == [*before, "q"]
    assert after["p"] + after["q"] == pytest.approx(1.0)
    # Between the column and the publication: as before, and readers are told why there is nothing in it.
    assert (seen[0]["p"], seen[0]["q"], seen[0]["state"]) == (before["p"], None, "fresh")
    assert seen[0]["reasons"] == [*before["reasons"], "outputs: q is new, and NULL until the next full run"]
    assert not any(reason.startswith("outputs:") for reason in after["reasons"])
    looked_up = world.one("SELECT * FROM predictions.items_for(7)")
    assert {name: value for name, value in looked_up.items() if name not in MOVING} == {
        name: value for name, value in after.items() if name not in MOVING
    }
    assert world.one("SELECT p, q FROM predictions.items_usable WHERE id = 7") == {"p": after["p"], "q": after["q"]}
    assert world.one("SELECT p FROM public.mine WHERE id = 7") == {"p": after["p"]}
    assert world.one("SELECT * FROM public.looked_up")["p"] == after["p"]
    assert _rights(world) == rights
    (then,) = world.rows("SELECT q FROM predictions.items_at(7, prescore.clock())")
    assert then == (after["q"],)
    as_role = f"SET LOCAL ROLE {role}; SELECT q FROM predictions.items_for(7)"
    assert world.rows(as_role) == [(after["q"],)]
    undescribed = world.rows(
        "SELECT relname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid WHERE attname = 'q' "
        "AND relkind IN ('r', 'p', 'v') AND col_description(attrelid, attnum) IS NULL AND relname <> 'items_history'"
    )
    assert undescribed == []
    # The function of before lives on as long as somebody's view stands on it, and no longer.
    retired = "SELECT count(*) FROM pg_proc WHERE proname ~ '^items_for_[0-9]+$'"
    assert world.score().status is Status.PUBLISHED
    assert world.rows(retired) == [(1,)]
    world.execute("DROP VIEW public.looked_up")
    assert world.score().mode is Mode.INCREMENTAL
    assert world.rows(retired) == [(0,)]
    # Another order of the declaration is the same pipeline.
    p, label, q = ADDED.splitlines()[-3:]
    make_pipeline(world, toml="\n".join([*ADDED.splitlines()[:-3], q, label, p]))
    assert world.score().status is Status.PUBLISHED
    assert list(world.one("SELECT * FROM predictions.items WHERE id = 7")) == list(after)


def _told(listener: Any) -> list[dict[str, Any]]:
    """Return what was announced since the last look; a round trip brings what was committed before."""
    listener.cursor().execute("SELECT 1")
    heard = [(notice.channel, json.loads(notice.payload)) for notice in listener.notifies]
    listener.notifies.clear()
    assert {channel for channel, _ in heard} <= {"prescore"}
    return [told for _, told in heard]


def test_listening_applications_hear_of_each_change_once_and_after_its_commit(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(database_url, tmp_path, rows=ROWS)
    pipeline = make_pipeline(world)
    make_model(world, pipeline)
    monkeypatch.setenv("PRESCORE_DATABASE_URL", database_url)
    with closing(psycopg2.connect(psql_url(database_url))) as listener:
        listener.autocommit = True
        listener.cursor().execute("LISTEN prescore")

        # A publication that is rolled back at the last moment is none.
        def die(point: str) -> None:
            if point == "publish.before_commit":
                assert _told(listener) == []
                raise RuntimeError("the end")

        with monkeypatch.context() as patched:
            patched.setattr(publishing, "reached", die)
            with pytest.raises(RuntimeError):
                world.score()
        assert _told(listener) == []
        assert _cli("wait", "items", "--timeout", "0").exit_code == 3

        # Whoever waits is woken by it, long before it would have looked by itself.
        waiting = ThreadPoolExecutor(1).submit(wait_for, database_url, "items", seconds=120, look_every=100)
        while not world.rows(
            "SELECT FROM pg_stat_activity WHERE application_name = 'prescore wait' AND state = 'idle'"
        ):
            assert not waiting.done()
        first = world.score()
        assert waiting.result(timeout=60).generation_id == first.generation_id
        (told,) = _told(listener)
        head = world.one("SELECT * FROM prescore.head")
        assert told == {
            "event": "published",
            "pipeline": "items",
            "run_id": first.run_id,
            "mode": "full",
            "generation_id": first.generation_id,
            "published_at": head["published_at"].astimezone(UTC).isoformat(),
            "as_of": head["as_of"].astimezone(UTC).isoformat(),
            "data_as_of": head["data_as_of"].astimezone(UTC).isoformat(),
            "rows": ROWS,
            "model_version": 1,
        }
        assert _cli("wait", "items", "--timeout", "0").exit_code == 0
        newer = ("wait", "items", "--timeout", "0", "--json", "--newer-than")
        assert _cli(*newer, head["data_as_of"].isoformat()).exit_code == 3
        assert json.loads(_cli(*newer, "2020-01-01").stdout)["generation_id"] == first.generation_id
        assert _cli("wait", "itmes").exit_code == 1

        world.execute("UPDATE public.items SET a = a + 1, updated_at = statement_timestamp() WHERE id < 5")
        second = world.score(full=True)
        assert [told["event"] for told in _told(listener)] == ["published"]
        assert second.generation_id is not None
        quarantine(database_url, "items", second.generation_id, "a test")
        release(database_url, "items", second.generation_id)
        assert [(t["event"], t["generation_id"]) for t in _told(listener)] == [
            ("quarantined", first.generation_id),
            ("released", first.generation_id),
        ]
        world.score(full=True)
        rollback(database_url, "items")
        resume(database_url, "items")
        assert [told["event"] for told in _told(listener)] == ["published", "rolled_back"]
        assert _cli("drop", "items", "--yes").exit_code == 0
        assert _told(listener) == [{"event": "dropped", "pipeline": "items"}]


def _cli(*words: str, answer: str | None = None) -> Any:
    return CliRunner().invoke(app, list(words), input=answer)


def _prescore_rows_of(world: World, name: str) -> list[str]:
    """Tables of prescore with a row of a pipeline, and its objects."""
    tables = world.rows(
        "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid "
        "WHERE relnamespace = 'prescore'::regnamespace AND relkind = 'r' AND attname = 'pipeline'"
    )
    held = [table for (table,) in tables if world.rows(f"SELECT FROM {table} WHERE pipeline = '{name}' LIMIT 1")]
    return held + [
        found
        for (found,) in world.rows(
            "SELECT relname FROM pg_class WHERE relnamespace IN ('prescore_rows'::regnamespace, 'predictions'::regnamespace) "
            "UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'predictions'::regnamespace"
        )
        if found.startswith(name)
    ]


def test_a_pipeline_is_dropped_with_all_that_is_its_own_and_nothing_else(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = _world(database_url, tmp_path, KEPT + f'[archive]\nurl = "{tmp_path}/lake"\n')
    other = make_pipeline(world, "items_too")
    make_model(world, other)
    assert world.score("items_too").status is Status.PUBLISHED
    world.execute("UPDATE public.items SET a = a + 1, updated_at = statement_timestamp() WHERE id < 5")
    world.score()
    world.execute(
        "CREATE FUNCTION public.by_hand() RETURNS bigint LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN (SELECT count(*) FROM predictions.items); END $$;"
        "CREATE MATERIALIZED VIEW public.counted AS SELECT count(*) FROM public.mine;"
        "CREATE FUNCTION public.looked() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT id FROM predictions.items_for(3); END"
    )
    monkeypatch.setenv("PRESCORE_DATABASE_URL", database_url)
    before, untouched = _prescore_rows_of(world, "items"), world.rows("SELECT * FROM predictions.items_too_usable")

    # What others built is named, whether PostgreSQL knows that it rests on the pipeline directly or through something else.
    refused = _cli("drop", "items")
    assert refused.exit_code == 1
    for named in ("view public.mine", "materialized view public.counted", "function public.looked()"):
        assert named in refused.stdout
    assert _cli("drop", "items", "--yes").exit_code == 1
    world.execute("DROP FUNCTION public.looked(); DROP VIEW public.mine CASCADE")

    # Nor while a run is at work, or without a yes.
    class Try:
        def stage(self, name: str) -> None:
            if name == "check the guards":
                with pytest.raises(RunInProgress, match=r"run [0-9]+ "):
                    remove(database_url, "items")

        def rows(self, done: int, total: int) -> None:
            return

    world.score(watcher=Try())
    shown = _cli("drop", "items", answer="n\n")
    assert shown.exit_code == 1
    for told in (
        "view predictions.items\n", "table prescore_rows.items,", "60 rows", "rows of prescore.runs", "rows of prescore.lineages",
        "rows of prescore.prediction_samples", "1 versions of the model items", "by_hand()", f"archived generations in {tmp_path}",
    ):  # fmt: skip
        assert told in shown.stdout, told
    # One that dies on the way has removed nothing.
    with monkeypatch.context() as patched:
        patched.setattr(removal, "announce", _die)
        with pytest.raises((psycopg2.Error, sa.exc.DBAPIError)):
            remove(database_url, "items")
    assert _prescore_rows_of(world, "items") == before
    assert world.rows("SELECT count(*) FROM predictions.items") == [(ROWS,)]

    # Its folder may be gone already; a reader that holds the view for a moment is waited for.
    shutil.rmtree(tmp_path / "items")
    with closing(psycopg2.connect(psql_url(database_url))) as reader:
        reader.cursor().execute("SELECT FROM predictions.items")
        dropping = ThreadPoolExecutor(1).submit(_cli, "drop", "items", "--yes")
        while not world.rows("SELECT FROM pg_stat_activity WHERE query LIKE 'DROP%' AND wait_event_type = 'Lock'"):
            assert not dropping.done()
        reader.rollback()
    done = dropping.result(timeout=60)
    assert done.exit_code == 0, done.output
    assert [left for left in _prescore_rows_of(world, "items") if not left.startswith("items_too")] == []
    assert world.rows("SELECT * FROM predictions.items_too_usable") == untouched
    assert list((tmp_path / "lake" / "items").iterdir())
    assert world.rows("SELECT count(*) FROM prescore.models WHERE model = 'items'") == [(1,)]
    again = _cli("drop", "items", "--yes")
    assert again.exit_code == 0
    assert "nothing of items" in again.stdout
    assert "items_too" in again.stdout

    # The name is free for another key and other types.
    toml = (
        KEPT.replace("AS id", "AS id")
        .replace('key = ["id"]', 'key = ["c"]')
        .replace("SELECT id FROM public.items", "SELECT DISTINCT c FROM public.items")
        .replace('changes = "changes.sql"\n', "")
        .replace('p = { method = "predict_proba", class = "1", index = true }\n', "")
    )
    features = (
        "SELECT b.c, b.as_of, avg(i.a) AS a, avg(i.b) AS b "
        "FROM batch AS b JOIN public.items AS i USING (c) GROUP BY b.c, b.as_of"
    )
    pipeline = make_pipeline(world, toml=toml, features=features, changes=None)
    make_model(world, pipeline)
    assert world.score().status is Status.PUBLISHED
    assert world.one("SELECT c, state FROM predictions.items_for('x')") == {"c": "x", "state": "fresh"}


def _die(connection: sa.Connection, *_: Any, **__: Any) -> None:
    """End the backend of a connection in the middle of its transaction, as the end of its process would."""
    raw_execute(connection, "SELECT pg_terminate_backend(pg_backend_pid())")


def _raise(*_: Any, **__: Any) -> None:
    raise RuntimeError("the end")


def test_outputs_are_removed_and_retyped_by_command_and_rights_stay(
    role: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = _world(database_url, tmp_path)
    monkeypatch.setenv("PRESCORE_DATABASE_URL", database_url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(tmp_path))
    world.execute(
        f"GRANT USAGE ON SCHEMA predictions TO {role}; GRANT SELECT ON predictions.items, predictions.items_usable TO {role}"
    )
    world.execute("REVOKE EXECUTE ON FUNCTION predictions.items_for FROM PUBLIC")
    world.execute(f"GRANT EXECUTE ON FUNCTION predictions.items_for TO {role}")
    world.execute(f"GRANT SELECT (id, label) ON predictions.items_history TO {role}")
    rights, before = _rights(world), world.one("SELECT p, label FROM predictions.items WHERE id = 7")
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped"

    # label goes, p becomes a list: a run refuses, and readers have what they had.
    toml = KEPT.replace('label = { method = "predict" }\n', "").replace('class = "1", index = true', 'class = "all"')
    make_pipeline(world, toml=toml)
    with pytest.raises(OutputsDiffer, match="prescore outputs items"):
        world.score()
    assert world.one("SELECT p, label FROM predictions.items WHERE id = 7") == before
    shown = _cli("outputs", "items")
    assert shown.exit_code == 1
    for told in ("- label bigint", "~ p double precision becomes double precision[]", "view public.mine"):
        assert told in shown.stdout
    with pytest.raises(DependentsInTheWay, match=r"view public\.mine"):
        outputs(world.settings, "items", apply=True)
    world.execute("DROP VIEW public.mine")
    with monkeypatch.context() as patched:
        patched.setattr(reshaping, "announce", _raise)
        with pytest.raises(RuntimeError):
            outputs(world.settings, "items", apply=True)
    assert (_rights(world), world.one("SELECT p, label FROM predictions.items WHERE id = 7")) == (rights, before)

    done = _cli("outputs", "items", "--apply")
    assert done.exit_code == 0, done.output
    assert f"SELECT (label) for {role} is gone" in done.stdout
    assert _rights(world) == rights
    after = world.one("SELECT * FROM predictions.items_for(7)")
    assert (list(after)[-1], after["p"], after["state"]) == ("p", None, "fresh")
    assert "outputs: p is new, and NULL until the next full run" in after["reasons"]
    for table in ("prescore_rows.items", "prescore_rows.items_history"):
        found = [name for (name,) in world.rows(columns.format(table))]
        assert ("p" in found, "label" in found) == (True, False)
    summary = world.score()
    assert (summary.status, summary.mode) == (Status.PUBLISHED, Mode.FULL)
    scores = world.rows(f"SET LOCAL ROLE {role}; SELECT p FROM predictions.items_for(7)")
    assert scores == [([pytest.approx(1 - before["p"]), pytest.approx(before["p"])],)]
    assert world.rows(f"SET LOCAL ROLE {role}; SELECT id FROM predictions.items_history WHERE id = 7")
    assert "Readers of items have" in _cli("outputs", "items").stdout

    # A key never changes.
    world.execute("CREATE VIEW public.keyed AS SELECT id::text AS id FROM public.items")
    make_pipeline(
        world,
        toml=toml.replace("SELECT id FROM public.items", "SELECT id FROM public.keyed"),
        changes=None,
        features="SELECT i.id::text AS id, b.as_of, i.a, i.b, i.c FROM batch AS b JOIN public.items AS i ON i.id::text = b.id",
    )
    with pytest.raises(KeyDiffers, match="key id was bigint, is text"):
        world.score()
    assert _cli("outputs", "items", "--apply").exit_code == 1


def test_a_lookup_says_that_nothing_was_published_yet(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(database_url, tmp_path, rows=ROWS)
    nothing = ("missing", ["missing: nothing was published yet"])
    told = "SELECT state, reasons FROM predictions.{}_for(7)"

    def answers(name: str) -> None:
        assert world.rows(told.format(name)) == [nothing]
        assert world.rows(f"SELECT * FROM predictions.{name}") == []
        assert world.rows(f"SELECT * FROM predictions.{name}_usable") == []

    # A first run without a model; one output is known all the same.
    pipeline = make_pipeline(world)
    with pytest.raises(ModelNotFound):
        world.score()
    answers("items")
    assert world.one("SELECT * FROM predictions.items_for(7)")["p"] is None
    world.execute("CREATE VIEW public.mine AS SELECT id, p, state FROM predictions.items")
    make_model(world, pipeline)
    assert world.score().status is Status.PUBLISHED
    assert world.one("SELECT p > 0 AS scored, label >= 0 AS labelled FROM predictions.items WHERE id = 7") == {
        "scored": True,
        "labelled": True,
    }

    # Ahead of its first run, where no output is known without a model; and what was known may be wrong.
    only = PIPELINE_TOML.replace('p = { method = "predict_proba", class = "1", index = true }\n', "")
    second = make_pipeline(world, "second", toml=only)
    assert register_ahead(world.settings, database_url, "second") == ""
    assert register_ahead(world.settings, database_url, "second") == ""
    answers("second")
    make_model(world, second)
    make_pipeline(world, "third", toml=PIPELINE_TOML + '\n[model]\nname = "second"\n')
    assert register_ahead(world.settings, database_url, "third") == ""
    answers("third")
    make_pipeline(world, "third", toml=only + '\n[model]\nname = "second"\n')
    for name in ("second", "third"):
        assert world.score(name).status is Status.PUBLISHED
        assert world.one(f"SELECT label >= 0 AS labelled FROM predictions.{name}_for(7)") == {"labelled": True}
    assert "p" not in world.one("SELECT * FROM predictions.third WHERE id = 7")
    make_pipeline(world, "broken", toml=PIPELINE_TOML.replace("public.items", "public.nowhere"))
    assert "nowhere" in register_ahead(world.settings, database_url, "broken")


OWN = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Half(ClassifierMixin, BaseEstimator):
    def fit(self, frame, labels):
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, frame):
        return np.full((len(frame), 2), 0.5)

    def predict(self, frame):
        return np.zeros(len(frame), dtype=np.int64)
"""


@pytest.mark.slow
def test_a_pipeline_gets_another_name_and_readers_find_the_one_or_the_other(
    role: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(database_url, tmp_path, rows=ROWS)
    pipeline = make_pipeline(world, toml=KEPT, files={"model.py": OWN})
    named = '\n[model]\nname = "items"\n'
    module = pipeline.model_module()
    assert module is not None
    make_model(world, pipeline, module.Half())
    for _ in range(2):
        assert world.score().status is Status.PUBLISHED
    world.execute("CREATE VIEW public.mine AS SELECT id, p, state FROM predictions.items")
    monkeypatch.setenv("PRESCORE_DATABASE_URL", database_url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(tmp_path))
    world.execute(f"GRANT USAGE ON SCHEMA predictions TO {role}; GRANT SELECT ON predictions.items TO {role}")
    world.execute("REVOKE EXECUTE ON FUNCTION predictions.items_for FROM PUBLIC")
    world.execute(f"GRANT EXECUTE ON FUNCTION predictions.items_for TO {role}")
    rows = "SELECT id, p, label, scored_in FROM {} ORDER BY id"
    before, runs = world.rows(rows.format("predictions.items")), world.rows("SELECT run_id, status FROM prescore.runs")
    seen = world.rows("SELECT id, p, seen_from FROM predictions.items_history ORDER BY id, seen_from")

    with pytest.raises(ModelUnnamed):
        rename(world.settings, database_url, "items", "goods")
    make_pipeline(world, toml=KEPT + named, files={"model.py": OWN})
    # One that dies on the way has renamed nothing, folder included; nor does a run let itself be overtaken.
    with monkeypatch.context() as patched:
        patched.setattr(renaming, "announce", _raise)
        with pytest.raises(RuntimeError):
            rename(world.settings, database_url, "items", "goods")
    assert world.rows(rows.format("predictions.items")) == before
    assert (tmp_path / "items").is_dir()
    with hold_lock(database_url, "items"), pytest.raises(RunInProgress):
        rename(world.settings, database_url, "items", "goods")
    for wrong in ("Goods", "goods_for", "items"):
        with pytest.raises(UsageError):
            rename(world.settings, database_url, "items", wrong)

    # A report that began before finds what it would have found, by either name.
    with closing(psycopg2.connect(psql_url(database_url))) as report:
        report.set_session(isolation_level="REPEATABLE READ")
        cursor = report.cursor()
        cursor.execute("SELECT count(*) FROM public.items")
        with _reading(world, *READ) as problems:
            done = _cli("rename", "items", "goods", "--keep-old-name")
        assert done.exit_code == 0, done.output
        assert problems == []
        for name in ("goods", "items"):
            cursor.execute(rows.format(f"predictions.{name}"))
            assert cursor.fetchall() == before
        assert world.score("goods").mode is Mode.INCREMENTAL  # and the views stay as they are while it goes on
        cursor.execute("SELECT count(*) FROM predictions.goods_usable")
        assert cursor.fetchone() == (ROWS,)
    plain = "SELECT pg_get_viewdef('predictions.goods'::regclass) ~ '''items'''"
    assert world.rows(plain) == [(True,)]
    assert world.score("goods").status is Status.PUBLISHED
    assert world.rows(plain) == [(False,)]

    assert (tmp_path / "goods").is_dir()
    assert not (tmp_path / "items").exists()
    assert [
        left for left in _prescore_rows_of(world, "items") if left not in {"items", "items_usable", "items_for"}
    ] == []
    assert (
        world.rows("SELECT run_id, status FROM prescore.runs WHERE pipeline = 'goods' ORDER BY run_id")[: len(runs)]
        == runs
    )
    assert (
        world.rows(
            "SELECT relname FROM pg_class WHERE relname ~ '^items_' AND relnamespace = 'prescore_rows'::regnamespace"
        )
        == []
    )
    assert set(seen) <= set(world.rows("SELECT id, p, seen_from FROM predictions.goods_history"))
    for name in ("goods", "items"):
        found = world.rows(
            f"SET LOCAL ROLE {role}; SELECT p FROM predictions.{name}_for(7) "
            f"UNION ALL SELECT p FROM predictions.{name} WHERE id = 7"
        )
        assert found == [(0.5,), (0.5,)]
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            world.rows(f"SET LOCAL ROLE {role}; SELECT FROM predictions.{name}_usable")
    assert world.rows("SELECT count(*) FROM public.mine WHERE state = 'fresh'") == [(ROWS,)]
    again = _cli("rename", "items", "goods", "--json")
    assert json.loads(again.stdout)["renamed"]["already"] is True

    # What still runs under the old name is told the new one; another pipeline cannot take either.
    make_pipeline(world, "items", toml=KEPT)
    with pytest.raises(Renamed, match="items is called goods"):
        world.score("items")
    assert "is called goods" in register_ahead(world.settings, database_url, "items")
    other = make_pipeline(world, "other", toml=KEPT)
    assert register_ahead(world.settings, database_url, "other") == ""
    assert other.name == "other"
    for taken in ("goods", "items"):
        with pytest.raises(NameTaken):
            rename(world.settings, database_url, "other", taken)

    # An output that is added later reaches those who use the old name.
    make_pipeline(world, "goods", toml=ADDED + named, files={"model.py": OWN})
    with _reading(world, *READ) as problems:
        assert world.score("goods").status is Status.PUBLISHED
    assert problems == []
    assert world.rows(
        "SELECT q FROM predictions.items WHERE id = 7 UNION ALL SELECT q FROM predictions.items_for(7)"
    ) == [(0.5,), (0.5,)]

    # Back again, and away without the old name, which is then set free for another pipeline.
    shutil.rmtree(tmp_path / "items")
    rename(world.settings, database_url, "goods", "items")
    assert world.rows(rows.format("predictions.items")) != []
    assert _prescore_rows_of(world, "goods") == []
    world.execute(
        "CREATE FUNCTION public.by_hand() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM predictions.items'"
    )
    told = _cli("rename", "items", "goods")
    assert "by_hand()" in told.stdout
    with pytest.raises(psycopg2.errors.UndefinedTable):
        world.rows("SELECT FROM predictions.items")
    freed = _cli("drop", "items", "--yes")
    assert "which had it, stays" in freed.stdout
    assert world.rows("SELECT count(*) FROM predictions.goods") == [(ROWS,)]
    assert register_ahead(world.settings, database_url, "items") != ""
    make_model(world, make_pipeline(world, "items", toml=PIPELINE_TOML))
    assert world.score("items").status is Status.PUBLISHED
    assert world.score("goods").status is Status.PUBLISHED
