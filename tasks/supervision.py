"""Supervision: programs that are kept running, and end with the process that keeps them.

A program is started in a process group of its own, so that Ctrl-C in a terminal reaches only the one who keeps it, with a
pipe as its input that closes when that process ends, however it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import ProgramGivenUp

# Seconds. A program that lives this long was started well, and its next death counts as the first.
SETTLED = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
# So many deaths in a row, each soon after the start, are no accident.
DEATHS = 4
# A server that does not answer for so long is as good as dead. Prefect's waits a minute when its SQLite file is locked.
SILENCE = 120.0


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is to be kept running."""

    #: As people are told: "the Prefect server".
    what: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    #: Where its output goes; None lets it share ours on standard error.
    log: Path | None = None
    #: Whether it answers; None where nothing can be asked.
    answers: Callable[[], bool] | None = None
    #: Seconds that it may take to end when it is told to.
    patience: float = 20.0


class Keeper:
    """Keeps one program running: starts it, notices its death, starts it again after a pause that doubles."""

    def __init__(
        self, program: Program, tell: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.program = program
        self._tell, self._clock = tell, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._started = self._answered = self._due = clock()
        self._deaths = 0

    @property
    def process_id(self) -> int | None:
        """Return the process id; None while the program does not run."""
        return None if self._process is None else self._process.pid

    @property
    def lifeline(self) -> int:
        """Return our end of the program's input; another program that inherits it keeps this one alive as well."""
        assert self._lifeline is not None
        return self._lifeline

    def look(self, inherit: Sequence[int] = ()) -> bool:
        """Start the program if it is due, notice it if it has died, and return whether it runs and answers.

        ``inherit`` are file descriptors that it gets when it is started.

        Raises
        ------
        ProgramGivenUp
            When it died again and again as soon as it was started.
        """
        now = self._clock()
        if self._process is None:
            if now >= self._due:
                self._start(now, inherit)
            return False
        code = self._process.poll()
        if code is not None:
            self._mourn(now, code)
            return False
        if self.program.answers is None:
            return True
        if self.program.answers():
            self._answered = self._clock()
            return True
        if now - self._answered >= SILENCE:
            self._tell(f"{self.program.what} has not answered for {SILENCE:.0f} s. It is ended.")
            self._process.kill()
            self._process.wait()
        return False

    def end(self, hurried: Callable[[], bool] = lambda: False) -> None:
        """Tell the program to end, wait until it has, and leave nothing of its process group."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        self._let_go()
        until = self._clock() + self.program.patience
        while self._process.poll() is None and self._clock() < until and not hurried():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.1)
        self._sweep()

    def _start(self, now: float, inherit: Sequence[int]) -> None:
        reading, self._lifeline = os.pipe()
        try:
            if self.program.log is None:
                self._process = self._popen(reading, 2, inherit)
            else:
                with self.program.log.open("ab") as log:
                    self._process = self._popen(reading, log.fileno(), inherit)
        finally:
            os.close(reading)
        self._started = self._answered = now

    def _popen(self, reading: int, output: int, inherit: Sequence[int]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.program.command,
            env=dict(self.program.environment),
            cwd=self.program.folder,
            stdin=reading,
            stdout=output,
            stderr=output,
            pass_fds=tuple(inherit),
            start_new_session=True,
        )

    def _mourn(self, now: float, code: int) -> None:
        self._sweep()
        self._deaths = 1 if now - self._started >= SETTLED else self._deaths + 1
        if self._deaths >= DEATHS:
            raise ProgramGivenUp(self.program.what, self._deaths, code, self.program.log)
        pause = min(FIRST_PAUSE * 2 ** (self._deaths - 1), LONGEST_PAUSE)
        self._due = now + pause
        where = "" if self.program.log is None else f" Its log is {self.program.log}."
        self._tell(f"{self.program.what} has ended (exit code {code}). It is started again in {pause:.0f} s.{where}")

    def _sweep(self) -> None:
        """Kill what is left of the process group, and forget the program."""
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        self._let_go()

    def _let_go(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
