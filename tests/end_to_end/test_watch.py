"""`watch`: a role that may read one view and nothing else hears what is wrong, and somebody is told."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from flows.alarm import Watch, watch_on
from flows.cli import app
from tasks import alarms
from tasks.settings import Settings
from tests.factories import World, make_model, make_pipeline, make_world

# Made once and used by all: one worker.
pytestmark = pytest.mark.xdist_group("watch")

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class Hook(BaseHTTPRequestHandler):
    """Keeps what is posted, and answers with the next of the answers that are laid out, else 204."""

    posted: ClassVar[list[Any]] = []
    answers: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        """Take a post."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.append((self.headers.get("Authorization"), json.loads(body)))
        self.send_response(self.answers.pop(0) if self.answers else 204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[int]:
    """The port of a server that takes webhooks."""
    Hook.posted.clear()
    Hook.answers.clear()
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def world(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A pipeline that published at noon; clocks are set by the tests."""
    world = make_world(module_database_url, tmp_path_factory.mktemp("pipelines"), rows=50)
    world.execute(f"UPDATE public.items SET updated_at = '{(NOW - timedelta(hours=1)).isoformat()}'")
    world.set_clock(NOW)
    make_model(world, make_pipeline(world), train_data_until=NOW - timedelta(days=1))
    world.score(full=True)
    return world


@pytest.fixture(scope="module")
def watcher(world: World) -> Iterator[str]:
    """The URL of a role that may read the view, and nothing else."""
    role = f"watcher_{make_url(world.url).database}"
    world.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hush-5a1c77'")
    world.execute(f"GRANT USAGE ON SCHEMA prescore TO {role}; GRANT SELECT ON prescore.pipeline_health TO {role}")
    yield make_url(world.url).set(username=role, password="hush-5a1c77").render_as_string(hide_password=False)
    world.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "_PAUSE", 0.0)


def watch(url: str, *words: str) -> Any:
    """Run `prescore watch --once` as a role."""
    return CliRunner().invoke(app, ["watch", "--once", *words], env={"PRESCORE_DATABASE_URL": url})


def test_nothing_is_said_while_all_is_well(world: World, watcher: str, hook: int) -> None:
    world.set_clock(NOW)

    done = watch(watcher, "--webhook", f"http://127.0.0.1:{hook}/", "--run", "exit 9")

    assert (done.exit_code, done.output, Hook.posted) == (0, "", [])


def test_what_is_stale_is_told_to_a_webhook_and_a_command(
    world: World, watcher: str, hook: int, tmp_path: Path
) -> None:
    world.set_clock(NOW + timedelta(days=60))
    Hook.answers.append(503)
    command = f'cat > {tmp_path}/told; echo "$PRESCORE_WATCH_PIPELINES $PRESCORE_WATCH_CODES" > {tmp_path}/named'

    done = watch(watcher, "items", "--webhook", f"http://me:hush-9c@127.0.0.1:{hook}/x", "--run", command)

    assert done.exit_code == 3
    assert done.stdout.startswith("items: Expired since ")
    assert len(Hook.posted) == 2  # it was tried again
    authorization, told = Hook.posted[1]
    assert authorization.startswith("Basic ")
    assert (told["event"], told["well"]) == ("prescore.alarm", False)
    assert told["text"] == done.stdout.strip()
    assert [(problem["pipeline"], problem["code"]) for problem in told["problems"]] == [("items", "expired")]
    assert told["pipelines"][0]["state"] == "expired"
    assert json.loads((tmp_path / "told").read_text()) == told
    assert (tmp_path / "named").read_text() == "items expired\n"


def test_a_failure_to_deliver_is_told_and_gives_no_secret_away(world: World, watcher: str, hook: int) -> None:
    world.set_clock(NOW + timedelta(days=60))
    Hook.answers += [500, 500]

    done = watch(watcher, "--webhook", f"http://me:hush-9c@127.0.0.1:{hook}/token-77", "--run", "exit 7")

    assert done.exit_code == 3
    assert "The webhook on 127.0.0.1 was not reached: it answers 500." in done.stderr
    assert "The command of --run ended with exit code 7." in done.stderr
    assert not [secret for secret in ("hush-9c", "token-77", "hush-5a1c77") if secret in done.output]


def test_a_database_that_does_not_answer_is_an_alarm_too(watcher: str, hook: int) -> None:
    nowhere = make_url(watcher).set(port=1).render_as_string(hide_password=False)

    done = watch(nowhere, "--webhook", f"http://127.0.0.1:{hook}/")

    assert done.exit_code == 1
    assert "Health could not be read from database " in done.stdout
    assert "hush-5a1c77" not in done.output
    assert Hook.posted[0][1]["problems"][0]["code"] == "unreadable"


def test_a_role_without_the_right_and_an_unknown_pipeline_are_told(world: World, watcher: str) -> None:
    world.set_clock(NOW)
    unknown = watch(watcher, "itmes")
    assert unknown.exit_code == 1
    assert "There are: items." in unknown.stdout

    world.execute(f"REVOKE SELECT ON prescore.pipeline_health FROM {make_url(watcher).username}")
    refused = watch(watcher)
    world.execute(f"GRANT SELECT ON prescore.pipeline_health TO {make_url(watcher).username}")
    assert refused.exit_code == 1
    assert "permission denied for view pipeline_health" in refused.stdout


def test_an_address_that_is_none_is_refused_before_anything_is_looked_at() -> None:
    done = CliRunner().invoke(app, ["watch", "--once", "--webhook", "ftp://me:hush-9c@x"])

    assert "no address that begins with https://" in str(done.exception)
    assert "hush" not in str(done.exception)


def test_a_watch_that_goes_on_tells_changes_and_the_recovery(
    world: World, watcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is at another day; the one after the last ends the watch."""
    days = iter([0, 60, 60, 60, 0, 0])
    told: list[list[str]] = []
    settings = Settings(database_url=watcher, pipelines_dir=Path(), data_dir=Path())

    def pause(_: float) -> None:
        day = next(days, None)
        if day is None:
            raise KeyboardInterrupt
        world.set_clock(NOW + timedelta(days=day))

    monkeypatch.setattr("flows.alarm.time.sleep", pause)
    pause(0)

    def tell(alarm: alarms.Alarm) -> None:
        told.append(alarm.lines)

    with pytest.raises(KeyboardInterrupt):
        watch_on(Watch(settings=settings, tell=tell, warn=print), every=1)

    assert [len(lines) for lines in told] == [1, 0]


def test_it_loads_next_to_nothing(watcher: str, world: World) -> None:
    world.set_clock(NOW)
    program = """
import sys
sys.argv = ["prescore", "watch", "--once"]
import flows.cli
try:
    flows.cli.main()
except SystemExit as ended:
    assert not ended.code
heavy = {"prefect", "sklearn", "pandas", "numpy", "pyarrow", "sqlalchemy", "scipy", "httpx"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PRESCORE_DATABASE_URL": watcher},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
