"""Programs that are kept running: started again when they die, given up when they always do, gone with their keeper."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tasks.errors import ProgramGivenUp
from tasks.supervision import DEATHS, SETTLED, SILENCE, Keeper, Program


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def program(folder: Path, script: str, answers: Callable[[], bool] | None = None) -> Program:
    return Program(
        what="The program",
        command=["/bin/sh", "-c", script],
        environment=dict(os.environ),
        folder=folder,
        log=folder / "log",
        answers=answers,
    )


def ended(process_id: int | None) -> None:
    """Wait until a child has ended, and leave its exit code to whoever asks for it."""
    assert process_id is not None
    os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOWAIT)


def test_a_program_that_dies_is_started_again_after_a_pause_that_doubles(tmp_path: Path) -> None:
    clock, told = Clock(), list[str]()
    keeper = Keeper(program(tmp_path, "echo begun; exit 7"), told.append, clock=clock)

    for pause in (1, 2, 4):
        keeper.look()
        ended(keeper.process_id)
        assert not keeper.look()
        assert told[-1] == (
            f"The program has ended (exit code 7). It is started again in {pause} s. Its log is {tmp_path / 'log'}."
        )
        clock.now += pause - 0.1
        keeper.look()
        assert keeper.process_id is None
        clock.now += 0.2
    assert (tmp_path / "log").read_text() == "begun\n" * 3


def test_a_program_that_always_dies_is_given_up_and_its_log_is_named(tmp_path: Path) -> None:
    clock = Clock()
    keeper = Keeper(program(tmp_path, "exit 3"), lambda _: None, clock=clock)

    def die() -> None:
        clock.now += 30
        keeper.look()
        ended(keeper.process_id)
        keeper.look()

    for _ in range(DEATHS - 1):
        die()
    with pytest.raises(ProgramGivenUp) as given_up:
        die()

    assert "The program ended 4 times as soon as it was started (exit code 3)" in str(given_up.value)
    assert str(tmp_path / "log") in str(given_up.value)
    assert keeper.process_id is None


def test_a_program_that_was_well_for_long_is_never_given_up(tmp_path: Path) -> None:
    clock, told = Clock(), list[str]()
    keeper = Keeper(program(tmp_path, "exit 3"), told.append, clock=clock)

    for _ in range(2 * DEATHS):
        keeper.look()
        ended(keeper.process_id)
        clock.now += SETTLED
        keeper.look()
        clock.now += 2

    assert len(told) == 2 * DEATHS
    assert all("again in 1 s" in sentence for sentence in told)


def test_a_program_that_does_not_answer_for_long_is_ended_and_started_again(tmp_path: Path) -> None:
    clock, told, answering = Clock(), list[str](), [True]
    keeper = Keeper(program(tmp_path, "exec sleep 100", lambda: answering[0]), told.append, clock=clock)
    keeper.look()
    first = keeper.process_id
    assert keeper.look()

    answering[0] = False
    clock.now += SILENCE - 1
    assert not keeper.look()
    assert keeper.process_id == first
    clock.now += 1
    keeper.look()
    keeper.look()
    assert told[0] == "The program has not answered for 120 s. It is ended."
    clock.now += 1
    keeper.look()

    assert keeper.process_id not in {None, first}
    keeper.end()


def test_nothing_of_a_program_is_left_when_it_is_ended(tmp_path: Path) -> None:
    keeper = Keeper(program(tmp_path, "trap '' TERM; sleep 100 & echo $!; wait; sleep 100"), lambda _: None)
    keeper.look()
    group = keeper.process_id
    assert group is not None
    while not (tmp_path / "log").read_text():
        time.sleep(0.01)

    keeper.end(hurried=lambda: True)  # it ignores SIGTERM, and somebody asked twice

    assert keeper.process_id is None
    with suppress(ProcessLookupError):
        while True:  # what init has not yet buried still counts
            os.killpg(group, 0)
            time.sleep(0.01)


def test_a_program_learns_that_its_keeper_was_killed(tmp_path: Path) -> None:
    keeper = f"""
        import os, sys, time
        from pathlib import Path
        from tasks.supervision import Keeper, Program
        folder = Path({str(tmp_path)!r})
        program = Program(what="it", command=["/bin/sh", "-c", "echo $$; cat; echo over"], environment=dict(os.environ),
                          folder=folder, log=folder / "log")
        Keeper(program, print).look()
        time.sleep(100)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(keeper)])
    log = tmp_path / "log"
    while not (log.exists() and log.read_text()):
        assert process.poll() is None
        time.sleep(0.01)

    process.send_signal(signal.SIGKILL)
    process.wait()

    while "over" not in log.read_text():
        time.sleep(0.01)
