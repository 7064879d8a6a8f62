"""A password is nowhere but in its variable: not in messages, tracebacks and logs, not in the list of processes, not on a
Prefect server."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote

import pytest
from sqlalchemy.engine import make_url

from flows import cli
from tasks.settings import read_settings
from tests.conftest import execute
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

# Parts that nothing else holds; between them is what an address has to encode.
PARTS = ("hunterZq7vX", "tail9XwKp")
PASSWORD = "/@:".join(PARTS)
COMMANDS = (
    ("status",),
    ("check", "items"),
    ("score", "items"),
    ("lookup", "items", "3"),
    ("explain", "items"),
    ("features", "items"),
    ("migrate",),
    ("watch", "--once"),
    ("rollback", "items"),
    ("forget", "items", "3"),
    ("grant", "--reader", "nobody"),
)
HOST = "127.0.0.1"
# What cannot be reached, and what cannot even be read: some of these are written wrong because of the password.
ADDRESSES = (
    f"postgresql://somebody:{quote(PASSWORD, safe='')}@{HOST}:1/shop",
    f"postgresql://somebody@{HOST}:1/shop?password={quote(PASSWORD, safe='')}",
    f"postgresql://somebody:{quote(PASSWORD, safe='')}@{HOST}:1/shop?nonsense=1",
    f"postgresql://somebody:{quote(PASSWORD, safe='')}@{HOST}:1/shop?sslmode=sometimes",
    f"postgresql://somebody:{quote(PASSWORD, safe='')}@{HOST}:port/shop",
    f"postgresql://somebody:{PASSWORD}@{HOST}:1/shop",
    f"postgresql://somebody:{PARTS[0]}/{PARTS[1]}@{HOST}:1/shop",
    f"postgresql://somebody:{PARTS[0]}@[::1/shop",
    f"mysql://somebody:{quote(PASSWORD, safe='')}@{HOST}:1/shop",
    f"somebody:{PASSWORD}@{HOST}",
)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    """A world that is reached with a password that can be looked for."""
    role = f"marked_{uuid.uuid4().hex[:12]}"
    execute(database_url, f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    url = make_url(database_url).set(username=role, password=PASSWORD).render_as_string(hide_password=False)
    world = make_world(url, tmp_path, rows=300)
    make_model(world, make_pipeline(world))
    yield world
    execute(database_url, f"REASSIGN OWNED BY {role} TO CURRENT_USER")
    execute(database_url, f"DROP OWNED BY {role}")
    execute(database_url, f"DROP ROLE {role}")


def called(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    """Call a command as the shell does, with tracebacks."""
    monkeypatch.setattr(sys, "argv", ["prescore", "-v", *words])
    # It is for a whole process, which goes on to other tests here.
    monkeypatch.setattr(cli, "answer_interrupts", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def shown(told: str) -> list[str]:
    return [part for part in PARTS if part in told]


def test_messages_and_tracebacks_show_no_password_of_a_database_that_fails(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
    wrong = make_url(world.url).set(password=PASSWORD[::-1] + "".join(PARTS)).render_as_string(hide_password=False)
    for address in (*ADDRESSES, wrong):
        for variable, other in (
            ("PRESCORE_DATABASE_URL", None),
            ("PRESCORE_SOURCE_URL", world.url),
        ):
            monkeypatch.setenv(variable, address)
            if other is not None:
                monkeypatch.setenv("PRESCORE_DATABASE_URL", other)
            words = COMMANDS if address == ADDRESSES[0] else COMMANDS[:3]
            for each in words if other is None else (("check", "items"), ("score", "items")):
                code = called(each, monkeypatch)
                out, err = capfd.readouterr()
                assert shown(out + err) == [], (each, address)
                assert code != 0, (each, address)
                assert out + err, each
            monkeypatch.delenv(variable)
        assert shown(repr(read_settings({"PRESCORE_DATABASE_URL": address, "PRESCORE_SOURCE_URL": address}))) == []


@pytest.mark.slow
def test_commands_that_work_show_no_password(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
    monkeypatch.chdir(tmp_path)
    # Whatever a library says, too.
    logging.getLogger("sqlalchemy").setLevel(logging.INFO)
    for words in (
        ("score", "items"),
        ("score", "items", "--json"),
        ("status", "--json"),
        ("check",),
        *COMMANDS,
        ("report", "items"),
    ):
        called(words, monkeypatch)
        assert shown("".join(capfd.readouterr())) == [], words
    logging.getLogger("sqlalchemy").setLevel(logging.NOTSET)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and shown(path.read_text("utf-8", "replace"))] == []
    held = world.rows(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname IN ('prescore', 'predictions', 'prescore_rows') AND c.relkind IN ('r', 'v')"
    )
    for (table,) in held:
        assert world.rows(f"SELECT count(*) FROM {table} AS t WHERE position('{PARTS[0]}' in t::text) > 0") == [(0,)], (
            table
        )


@contextmanager
def watched_processes() -> Iterator[list[str]]:
    """Collect the command lines that hold the password, of every process of this machine, while the block runs."""
    found: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    line = place.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                    if shown(line):
                        found.append(line)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the list of processes is read from /proc")
def test_neither_processes_nor_a_prefect_server_are_told_a_password(world: World, tmp_path: Path) -> None:
    toml = PIPELINE_TOML + '[schedule]\nfull = "3 3 3 3 *"\n[execution]\nworkers = 2\nshards = 2\n'
    make_pipeline(world, toml=toml)
    home = tmp_path / "home"
    home.mkdir()
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PRESCORE_DATABASE_URL": world.url,
        "PRESCORE_PIPELINES": str(world.settings.pipelines_dir),
        "PRESCORE_DATA_DIR": str(home),
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "DO_NOT_TRACK": "1",
    }
    command = str(Path(sys.executable).with_name("prescore"))
    with watched_processes() as lines:
        done = subprocess.run(
            [command, "-v", "score", "items", "--full"], env=environment, capture_output=True, text=True, check=True
        )
        with (home / "stdout").open("wb") as out:
            serving = subprocess.Popen(
                [command, "-v", "serve", "--port", str(port)], env=environment, cwd=home, stdout=out, stderr=out
            )
        try:
            api = f"http://{HOST}:{port}/api"
            state = _score_on(api)
            told = json.dumps([_ask(api, f"{kind}/filter", {}) for kind in KINDS])
        finally:
            serving.send_signal(signal.SIGTERM)
            serving.wait(90)
    assert (state, "score" in told) == ("COMPLETED", True)
    assert lines == []
    assert shown(done.stdout + done.stderr + told) == []
    # Nor in what it has written: its database with the logs, its own logs, the output of both.
    files = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    assert [path for path in files if any(part.encode() in path.read_bytes() for part in PARTS)] == []


KINDS = (
    "flows",
    "flow_runs",
    "task_runs",
    "deployments",
    "logs",
    "artifacts",
    "variables",
    "block_documents",
    "automations",
)
DEADLINE = 180.0


def _ask(api: str, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"{api}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except HTTPError as error:  # its SQLite is locked now and then, on a busy machine
            if error.code != 503 or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _score_on(api: str) -> str:
    """Start a run of a deployment of a server, and return how it ended."""
    deadline = time.monotonic() + DEADLINE
    deployments: list[Any] = []
    while not deployments:
        assert time.monotonic() < deadline, "nothing was deployed"
        time.sleep(0.5)
        with suppress(URLError, ConnectionError, TimeoutError):
            deployments = [each for each in _ask(api, "deployments/filter", {}) if "items" in each["name"]]
    given = {"params": {"pipeline": "items", "full": True}}
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(UTC).isoformat()}}
    place = f"deployments/{deployments[0]['id']}/create_flow_run"
    run = _ask(api, place, {"state": state, "parameters": given})
    while True:
        assert time.monotonic() < deadline, "the run did not end"
        time.sleep(0.5)
        found = _ask(api, "flow_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})[0]
        if found["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
            return str(found["state_type"])
