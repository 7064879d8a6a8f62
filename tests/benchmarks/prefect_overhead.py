"""What Prefect adds to a run: start, steps and finish, beside the same run of `prescore score`.

    uv run python -m tests.benchmarks.prefect_overhead

The same small pipeline is scored in turns: in this process, by `prescore score`, and by two `prescore serve` at once, one
whose runs start from nothing (as Prefect's runner does by itself) and one whose runs are forked from a process that has
imported everything. Medians of all turns. Everything lies in a folder of its own, which is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from tasks import embedded, migrations
from tasks.settings import COLD_RUNS
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

ROWS = 1_000
SCHEDULE = '[schedule]\nfull = "0 3 1 1 *"\n'
PATIENCE = 180.0
BUSY = 503
PRESCORE = [sys.executable, "-c", "from flows.cli import main; main()"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Where the time of one run went, in seconds; what does not apply is 0."""

    #: From asking for the run until the runner has taken it.
    waiting: float = 0.0
    #: Until the run says that it is running: process, imports of Prefect, the server's consent.
    starting: float = 0.0
    #: Until prescore's own run is open: imports of prescore, pandas and scikit-learn.
    opening: float = 0.0
    #: What the run itself took, by its own clock (cost.seconds).
    engine: float = 0.0
    #: From there until Prefect's run is completed: report, events, state.
    finishing: float = 0.0
    #: From the runner's taking it (or the start of the process) to the end.
    total: float = 0.0
    #: CPU seconds of the process of the run.
    cpu: float = 0.0
    #: CPU seconds of Prefect's server meanwhile.
    server_cpu: float = 0.0


class Served:
    """A `prescore serve` with a server of its own."""

    def __init__(self, world: World, home: Path, *, cold: bool) -> None:
        self.world, self.home = world, home
        home.mkdir()
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        environ = _environment(world) | {"PRESCORE_DATA_DIR": str(home)} | ({COLD_RUNS: "1"} if cold else {})
        with (home / "log").open("wb") as log:
            command = [*PRESCORE, "serve", "--port", str(self.port)]
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask Prefect's API, again where it is too busy to answer (503)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api{path}", data, {"Content-Type": "application/json"}, method=method
        )

        def ask() -> list[Any] | None:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return [json.load(answer)]
            except HTTPError as error:
                if error.code != BUSY:
                    raise
                return None

        return eventually(ask)[0]

    def deployment(self) -> str:
        """Return the id of the deployment, once it is there."""

        def look() -> str | None:
            assert self.process.poll() is None, (self.home / "log").read_text()
            try:
                return str(self.call("GET", "/deployments/name/score/items")["id"])
            except (URLError, OSError):
                return None

        return eventually(look)

    def run(self) -> Turn:
        """Ask for a full run, and return where its time went."""
        server, runs = self.cpu()
        parameters = {"params": {"pipeline": "items", "full": True}}
        made = self.call("POST", f"/deployments/{self.deployment()}/create_flow_run", {"parameters": parameters})

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.call("GET", f"/flow_runs/{made['id']}")
            return found if found["state_type"] in {"COMPLETED", "FAILED", "CRASHED"} else None

        ended = eventually(look)
        assert ended["state_name"] == "Completed", ended["state"]
        states = self.call("GET", f"/flow_run_states/?flow_run_id={made['id']}")
        first = {state["name"]: _instant(state["timestamp"]) for state in reversed(states)}
        latest = "SELECT started_at, cost FROM prescore.runs ORDER BY run_id DESC LIMIT 1"
        stored = self.world.one(latest)
        begun, engine = stored["started_at"].timestamp(), stored["cost"]["seconds"]
        time.sleep(2.0)  # until the process has ended, and its CPU time counts
        now_server, now_runs = self.cpu()
        return Turn(
            waiting=first["Pending"] - _instant(made["created"]),
            starting=first["Running"] - first["Pending"],
            opening=begun - first["Running"],
            engine=engine,
            finishing=first["Completed"] - begun - engine,
            total=first["Completed"] - first["Pending"],
            cpu=now_runs - runs,
            server_cpu=now_server - server,
        )

    def cpu(self) -> tuple[float, float]:
        """Return the CPU seconds so far of the server, and of the runner with what it starts and has started."""
        server = runs = 0.0
        for pid, line in _family(self.process.pid).items():
            used = _cpu(pid)
            if "flows.server" in line:
                server += used
            elif pid != self.process.pid:
                runs += used
        return server, runs

    def end(self) -> None:
        """End it as systemd does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=120)


def eventually(look: Callable[[], Any]) -> Any:
    """Return what ``look`` finds as soon as it finds something."""
    until = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < until, f"nothing within {PATIENCE:.0f} s"
        time.sleep(0.2)
    return found


def run_here(world: World) -> Turn:
    """Score in this process, which has imported everything: what is left is the run."""
    used, begun = time.process_time(), time.perf_counter()
    summary = world.score(full=True)
    assert summary.cost is not None
    took = time.perf_counter() - begun
    return Turn(engine=summary.cost.seconds, total=took, cpu=time.process_time() - used)


def run_command(world: World) -> Turn:
    """Score by a `prescore score` process."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*PRESCORE, "score", "items", "--full", "--json"], env=_environment(world), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    engine = json.load(process.stdout)["cost"]["seconds"]
    _, _, used = os.wait4(process.pid, 0)
    total = time.perf_counter() - begun
    return Turn(engine=engine, opening=total - engine, total=total, cpu=used.ru_utime + used.ru_stime)


def main() -> None:
    """Score in turns, and print where the time went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    with _world() as world:
        url_home = world.settings.data_dir.parent
        cold, warm = Served(world, url_home / "cold", cold=True), Served(world, url_home / "warm", cold=False)
        try:
            for served in (cold, warm):
                served.run()  # the first one also waits until everything is imported
            ways: dict[str, Callable[[], Turn]] = {
                "in this process": lambda: run_here(world),
                "prescore score": lambda: run_command(world),
                "serve, cold": cold.run,
                "serve, warm": warm.run,
            }
            taken: dict[str, list[Turn]] = {way: [] for way in ways}
            run_here(world)
            run_command(world)
            for turn in range(turns):
                for way, run in ways.items():
                    taken[way].append(run())
                sys.stderr.write(f"turn {turn + 1} of {turns}, load {os.getloadavg()[0]:.1f}\n")
        finally:
            cold.end()
            warm.end()
    print_table({way: median(found) for way, found in taken.items()})


def median(turns: list[Turn]) -> Turn:
    """Return the median of each figure."""
    return Turn(**{each.name: statistics.median(getattr(turn, each.name) for turn in turns) for each in fields(Turn)})


def print_table(found: dict[str, Turn]) -> None:
    """Print the figures of every way, and what Prefect adds."""
    out = sys.stdout.write
    out(f"{'seconds':12}" + "".join(f"{way:>18}" for way in found) + "\n")
    for each in fields(Turn):
        out(f"{each.name:12}" + "".join(f"{getattr(turn, each.name):18.2f}" for turn in found.values()) + "\n")
    plain, warm, cold = found["in this process"], found["serve, warm"], found["serve, cold"]
    out("\n")
    for way, turn in (("cold", cold), ("warm", warm)):
        out(
            f"Prefect adds, {way}: {turn.total - plain.engine:.2f} s = start {turn.starting + turn.opening:.2f} + steps "
            f"{turn.engine - plain.engine:.2f} + finish {turn.finishing:.2f}; {turn.total / plain.engine:.1f} times the run, "
            f"{turn.total / found['prescore score'].total:.2f} times `prescore score`\n"
        )
    out(f"warm to cold: {warm.total / cold.total:.2f} of the time, {warm.cpu / cold.cpu:.2f} of the CPU\n")


@contextmanager
def _world() -> Iterator[World]:
    base = Path("/var/lib") if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="prescore-bench-", dir=base))
    folder.chmod(0o755)
    try:
        url = embedded.ensure_running(folder / "data")
        migrations.apply(url)
        (folder / "pipelines").mkdir()
        world = make_world(url, folder / "pipelines", rows=ROWS)
        object.__setattr__(world.settings, "data_dir", folder / "data")
        make_model(world, make_pipeline(world, toml=PIPELINE_TOML + SCHEDULE))
        yield world
    finally:
        embedded.stop(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


def _environment(world: World) -> dict[str, str]:
    ours = {"PRESCORE_DATABASE_URL": world.url, "PRESCORE_PIPELINES": str(world.settings.pipelines_dir)}
    # What is compiled once for everybody else is compiled here in the first turn, which does not count.
    left_out = ("PREFECT_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | ours


def _instant(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _family(process_id: int) -> dict[int, str]:
    """Return the processes below one, with their commands."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    parents: dict[int, tuple[int, str]] = {}
    for line in listed.splitlines()[1:]:
        pid, parent, *rest = line.split(None, 2)
        parents[int(pid)] = (int(parent), rest[0] if rest else "")
    found = {process_id: parents.get(process_id, (0, ""))[1]}
    while more := {pid: line for pid, (parent, line) in parents.items() if parent in found and pid not in found}:
        found |= more
    return found


def _cpu(process_id: int) -> float:
    """Return the CPU seconds of a process and of its children that ended."""
    try:
        told = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in told.rpartition(")")[2].split()[11:15]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
