"""`kill -9` at random moments of runs, over and over in one world that changes meanwhile.

Each run is forked from a process that has imported everything, and dies at a named point or so many milliseconds after it,
in whatever it does then. Moments, modes and changes come from the seed, so that a night can be had again.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from flows.score import score
from tasks import faults
from tasks.runs import Status
from tasks.settings import Settings
from tests.disturbances import wait_until
from tests.nights import CONNECTIONS, LONGEST_DELAY, Night, reading

#: What the process that is forked imports once.
PRELOADED = [
    "__main__",
    "tests.kills",
    "sklearn.compose",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "skops.io",
    "tasks.estimators",
]
#: Some kills come one after the other, each of a run that finds what the one before left.
MOST_IN_A_ROW = 3

_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Order:
    """What a forked process is to do: a run, and when to die."""

    settings: Settings
    full: bool
    #: After so many named points; 0: never.
    point: int
    #: So many seconds after that.
    seconds: float
    #: Where the process keeps temporary files.
    temporary: str


@dataclass
class Tally:
    """What became of the kills of a night."""

    kills: int = 0
    #: Runs that ended before they were to die.
    ended_before: int = 0
    #: How many kills came after which point, and of how many it was known that head had moved.
    points: Counter[str] = field(default_factory=Counter)
    published: int = 0
    recoveries: int = 0
    #: How many runs in which mode were killed; full may have been found out to be wanted by the run itself.
    full: int = 0
    reads: int = 0


def obey(order: Order, told: Connection) -> None:
    """Run once, and die when it is time; what a forked process does."""
    tempfile.tempdir = order.temporary
    reached = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hear(point: str) -> None:
        nonlocal reached
        reached += 1
        if reached != order.point:
            return
        told.send(point)
        if not order.seconds:
            die()
        threading.Timer(order.seconds, die).start()

    with faults.listening(hear):
        summary = score(order.settings, "items", full=order.full)
    told.send((summary.status.value, reached))
    os._exit(0)


class Killer:
    """Starts runs of a night as processes of their own, and kills them."""

    def __init__(self, night: Night, temporary: Path) -> None:
        self.night, self.temporary = night, temporary
        temporary.mkdir()
        _CONTEXT.set_forkserver_preload(PRELOADED)

    def run(self, *, full: bool, point: int = 0, seconds: float = 0.0) -> tuple[int, list[object]]:
        """Start a run and wait for its end; return its exit code and what it told: a point, its status and points."""
        told, tell = _CONTEXT.Pipe(duplex=False)
        order = Order(self.night.world.settings, full, point, seconds, str(self.temporary))
        process: ForkServerProcess = _CONTEXT.Process(target=obey, args=(order, tell), name="a run of the night")
        process.start()
        tell.close()
        heard: list[object] = []
        try:
            while True:
                heard.append(told.recv())
        except EOFError:
            told.close()
        process.join(120)
        code = process.exitcode
        assert code is not None, "a run does not end"
        process.close()
        return code, heard

    def undisturbed(self, *, full: bool) -> int:
        """Make a run that nobody kills, and return how many points it reaches."""
        code, heard = self.run(full=full)
        assert code == 0, f"a run that nobody disturbed ended with {code}"
        ((status, points),) = heard  # type: ignore[misc]
        assert status == Status.PUBLISHED
        return int(points)


def kill_at_random(
    night: Night, temporary: Path, *, seed: int, kills: int, say: Callable[[str], None] = lambda _: None
) -> Tally:
    """Kill runs until ``kills`` have died; fail at the first thing that is not as if nothing had happened."""
    chance = random.Random(seed)
    killer, tally = Killer(night, temporary), Tally()
    points = {}
    for full in (True, False):
        night.change(chance)
        points[full] = killer.undisturbed(full=full)
        night.look()
    with reading(night) as reader:
        while tally.kills < kills:
            for _ in range(chance.randint(1, MOST_IN_A_ROW)):
                if tally.kills < kills:
                    _kill_once(killer, chance, points, tally, say)
            _recover(killer, chance, tally)
    tally.reads = reader.reads
    assert list(temporary.iterdir()) == []
    return tally


def _kill_once(
    killer: Killer, chance: random.Random, points: dict[bool, int], tally: Tally, say: Callable[[str], None]
) -> None:
    night = killer.night
    night.change(chance)
    full = chance.random() < 0.5
    point, delay = chance.randint(1, points[full]), chance.choice((0.0, chance.uniform(0, LONGEST_DELAY)))
    code, heard = killer.run(full=full, point=point, seconds=delay)
    place = next((word for word in heard if isinstance(word, str)), "nothing")
    what = f"{'full' if full else 'incremental'} run, {delay * 1000:.1f} ms after point {point}, {place}"
    if code != -signal.SIGKILL:
        assert code == 0, f"{what}: it ended with {code}"
        tally.ended_before += 1
    else:
        tally.kills += 1
        tally.full += full
        tally.points[place] += 1
    # Its server may still be about to commit what it was told to: until the connections of the dead are gone.
    wait_until(night.world, f"SELECT WHERE ({CONNECTIONS}) = 1")
    try:
        moved = night.look()
    except AssertionError as error:
        raise AssertionError(f"after kill {tally.kills} of a {what}: {error}") from error
    tally.published += moved and code == -signal.SIGKILL
    say(f"kill {tally.kills}: {what}: {'published' if moved else 'not published'}")


def _recover(killer: Killer, chance: random.Random, tally: Tally) -> None:
    """Let the next run come, as it would by itself, and see that nothing of the dead is left."""
    night = killer.night
    if chance.random() < 0.5:
        night.change(chance)
    killer.undisturbed(full=chance.random() < 0.5)
    tally.recoveries += 1
    assert night.look()
    night.require_nothing_left()


@contextmanager
def no_shared_memory_left() -> Iterator[None]:
    """Fail if there is shared memory afterwards, but that of PostgreSQL's servers, which was not there before."""
    before = _shared_memory()
    yield
    assert _shared_memory() - before == set()


def _shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return (
        {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("PostgreSQL.")}
        if folder.is_dir()
        else set()
    )
