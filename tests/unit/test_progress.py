"""How far a run is: the words, the bar of a terminal, the artifact on Prefect's page and how rarely it is sent."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from rich.console import Console

from flows.progress import ProgressArtifact
from flows.show import RunProgress
from tasks.progress import Pacer, Progress, describe_left


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A server that remembers what it was sent; it can be down, and it can keep everybody waiting."""

    def __init__(self, *, down: bool = False, open_: bool = True) -> None:
        self.told: list[tuple[str, float, str]] = []
        self.down, self.open = down, threading.Event()
        if open_:
            self.open.set()
        self.heard = threading.Condition()

    def create(self, percent: float, description: str) -> Any:
        self._hear("create", percent, description)
        return "artifact"

    def update(self, artifact: Any, percent: float, description: str) -> None:
        self._hear("update", percent, description)

    def _hear(self, what: str, percent: float, description: str) -> None:
        self.open.wait(60)
        with self.heard:
            self.told.append((what, percent, description))
            self.heard.notify_all()
        if self.down:
            raise OSError("nobody answers")

    def wait(self, count: int) -> None:
        with self.heard:
            assert self.heard.wait_for(lambda: len(self.told) >= count, timeout=60)


def test_progress_says_rows_pace_and_time_left() -> None:
    progress = Progress(done=500_000, total=2_000_000, seconds=10.0)

    assert progress.describe() == "500,000 of 2,000,000 rows, 50,000 rows/s, 30 s left"
    assert (progress.share, progress.rows_per_second, progress.seconds_left) == (0.25, 50_000.0, 30.0)


def test_before_the_first_row_nobody_knows_the_pace() -> None:
    assert Progress(done=0, total=7, seconds=3.0).describe() == "0 of 7 rows"
    assert Progress(done=0, total=0, seconds=0.0).share == 1.0


def test_more_rows_than_expected_leave_no_time_below_zero() -> None:
    assert Progress(done=11, total=10, seconds=1.0).seconds_left == 0.0
    assert Progress(done=11, total=10, seconds=1.0).share == 1.0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (7_500, "2 h 05 min")]
)
def test_time_left_is_told_as_people_say_it(seconds: float, words: str) -> None:
    assert describe_left(seconds) == words


def test_pace_is_measured_from_the_step_that_scores() -> None:
    clock = Clock()
    pacer = Pacer(clock)
    clock.now += 100  # the steps before
    pacer.begin()
    clock.now += 2

    assert pacer.at(1_000, 3_000).rows_per_second == 500.0


def show(console: Console, *, quiet: bool) -> str:
    with RunProgress("items", quiet=quiet, console=console) as bar:
        bar.stage("score")
        bar.rows(250, 1_000)
        bar._progress.refresh()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_a_bar_with_rows_pace_and_time_left() -> None:
    shown = show(Console(file=io.StringIO(), force_terminal=True, width=160), quiet=False)

    assert "items: score" in shown
    assert "250 of 1,000 rows" in shown
    assert "rows/s" in shown
    assert "left" in shown


def test_nothing_is_shown_where_there_is_no_terminal_or_nobody_wants_it() -> None:
    assert show(Console(file=io.StringIO(), force_terminal=False), quiet=False) == ""
    assert show(Console(file=io.StringIO(), force_terminal=True), quiet=True) == ""


def test_the_artifact_is_updated_by_the_clock_and_not_by_the_batch() -> None:
    clock, server = Clock(), Server()
    with ProgressArtifact("items", server, clock=clock, every=5.0) as watcher:
        watcher.stage("score")
        for done in range(100, 100_000, 100):  # a thousand batches in ten seconds
            clock.now += 0.01
            watcher.rows(done, 100_000)
            if clock.now - 1_000.0 > 5.0:
                server.wait(1)
        watcher.stage("publish")

    assert [what for what, _, _ in server.told] == ["create", "update"]
    assert server.told[0][2].startswith("items: 50,")
    assert server.told[1][2].startswith("items: 99,900 of 100,000 rows, ")
    assert server.told[1][1] == pytest.approx(99.9)


def test_a_run_that_is_done_at_once_sends_nothing() -> None:
    clock, server = Clock(), Server()
    with ProgressArtifact("items", server, clock=clock) as watcher:
        watcher.stage("score")
        clock.now += 4.9
        watcher.rows(1_000, 1_000)

    assert server.told == []


def test_a_server_that_is_down_is_told_of_once_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clock, server = Clock(), Server(down=True)
    with ProgressArtifact("items", server, clock=clock, every=1.0) as watcher:
        watcher.stage("score")
        for done in (1, 2, 3):
            clock.now += 2
            watcher.rows(done, 3)
            server.wait(done)

    assert caplog.messages == ["progress could not be shown: OSError"]


def test_a_server_that_never_answers_does_not_keep_the_run_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.progress.LAST_WORD", 0.01)
    clock, server = Clock(), Server(open_=False)
    with ProgressArtifact("items", server, clock=clock, every=1.0) as watcher:
        watcher.stage("score")
        for done in range(1_000):
            clock.now += 2
            watcher.rows(done, 1_000)  # each would be told, if anybody listened

    assert server.told == []  # and we are here
    server.open.set()
    server.wait(2)
    # What was due meanwhile is not sent late: the last word only.
    assert [what for what, _, _ in server.told] == ["create", "update"]
    assert server.told[-1][2].startswith("items: 999 of 1,000 rows")
