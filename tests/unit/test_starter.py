"""How serve starts flow runs: forked, with what the run is told, and from nothing where that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from flows import starter
from tasks.settings import COLD_RUNS

ENGINE = [sys.executable, "-m", "prefect.engine"]


class Started:
    """What Prefect's runner hands over, to be told of the process while it works."""

    def __init__(self) -> None:
        self.process: Any = None

    def started(self, process: Any) -> None:
        self.process = process


class Prefects:
    """Prefect's own way to start a process."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, **asked: Any) -> str:
        self.asked.append(asked)
        return "started from nothing"


def start(command: list[str], prefects: Prefects, **told: Any) -> Any:
    async def run() -> Any:
        return await starter.start_forked(command, otherwise=prefects, **told)

    return anyio.run(run)


FORK_RUNS = """
import multiprocessing, os, sys
import anyio
from flows import starter

class Started:
    def started(self, process):
        self.process = process

async def otherwise(**asked):
    raise AssertionError("started from nothing")

def engine(environment, folder):
    exec(environment["CODE"])

starter._CONTEXT = multiprocessing.get_context("fork")
starter.run_engine = engine
for code in sys.argv[1:]:
    async def run():
        told = Started()
        command = [sys.executable, "-m", "prefect.engine"]
        ended = await starter.start_forked(command, otherwise=otherwise, task_status=told, env={"CODE": code})
        assert told.process is ended and ended.pid != os.getpid()
        print(ended.exitcode)
    anyio.run(run)
"""


def test_runs_are_forked_and_end_with_their_own_exit_codes() -> None:
    codes = ["raise SystemExit(0)", "raise SystemExit(7)", "raise ValueError", "os.kill(os.getpid(), 9)"]

    # In a process of its own: a fork of this one would have its threads' locks, and what they do when it ends.
    ended = subprocess.run(
        [sys.executable, "-c", FORK_RUNS, *codes], capture_output=True, text=True, check=False, env=dict(os.environ)
    )

    assert ended.stdout.split() == ["0", "7", "1", "-9"], ended.stderr


NOTE_WHAT_A_RUN_SEES = """
import os, sys
from pathlib import Path
from flows import starter

def note(name, run_name):
    Path("seen").write_text(f"{name} {run_name} {Path.cwd()} {sorted(os.environ)} {os.environ['A']}")

starter.runpy.run_module = note
starter._settings = dict
starter.run_engine({"A": "b"}, sys.argv[1])
"""


def test_a_run_has_the_environment_and_the_folder_that_prefect_gives_it_and_nothing_else(tmp_path: Path) -> None:
    environ = {**os.environ, "LEFT_BEHIND": "by the warm process"}

    # In a process of its own: a fork of this one would have its threads' locks, and hide what it raises.
    ended = subprocess.run(
        [sys.executable, "-c", NOTE_WHAT_A_RUN_SEES, str(tmp_path)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "seen").read_text() == f"prefect.engine __main__ {tmp_path} ['A'] b"


def test_what_is_no_run_is_left_to_prefect() -> None:
    prefects = Prefects()

    assert start(["sh", "-c", "true"], prefects, env={"A": "b"}, stream_output=True) == "started from nothing"

    assert prefects.asked[0]["command"] == ["sh", "-c", "true"]
    assert prefects.asked[0]["env"] == {"A": "b"}
    assert prefects.asked[0]["stream_output"] is True


def test_a_run_starts_from_nothing_when_it_cannot_be_forked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Dead:
        """A context whose warm process has died."""

        def Process(self, target: Any, args: tuple[Mapping[str, str], str | None]) -> Any:  # noqa: N802
            return self

        def start(self) -> None:
            raise EOFError

    monkeypatch.setattr(starter, "_CONTEXT", Dead())

    assert start(ENGINE, Prefects()) == "started from nothing"
    assert "a run could not be forked (EOFError): it starts from nothing" in caplog.messages


def test_who_wants_no_warm_process_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COLD_RUNS, "1")

    assert not starter.warm_up()
