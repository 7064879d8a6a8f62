"""A soak: incremental runs of the example shop, one after the other, in one `prescore serve`, while the shop goes on.

    uv run python -m tests.benchmarks.soak --runs 300

Half an hour passes in the shop between two runs. What serve, its server, its runner and its starter take is read from /proc
after 50, 100, 200 and 300 runs, beside connections, the rows of the storages and their sizes. It ends with an error when a
run did not publish, when something is left in staging, or when memory, files, threads or connections grow.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import URLError
from uuid import uuid4

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from flows.train import train
from tasks.database import clock, connect, raw_execute
from tasks.demo import load_demo, move_clock, open_shop, pipeline_folder
from tasks.settings import Settings
from tests.benchmarks.bench import Bench, opened

PIPELINE = "churn"
#: How much of the shop's time passes between two runs: rows stay younger than their week in 300 of them.
STEP = timedelta(minutes=30)
#: Flow runs that wait for their turn, so that no time is lost between two.
WAITING = 3
#: What may be more at the end than at the first look: pages of malloc, and files that were about to be closed.
MEMORY_GROWTH, MORE_FILES, MORE_THREADS = 0.15, 4, 3
#: How much larger than just after the first publication the served storage may become.
MOST_BLOAT = 2.5
DEADLINE = 600.0
#: Columns of the table that are not of one process.
WHOLE = ("connections", "staged", "served MB", "rows", "dead", "db MB", "prefect MB")


@dataclass(frozen=True)
class Look:
    """What everything takes after a number of runs."""

    runs: int
    #: By role (serve, server, runner, starter): resident bytes, open files, threads.
    processes: dict[str, tuple[int, int, int]]
    #: Of the database of the predictions, by whom: those of runs at work are not counted.
    connections: int
    #: Rows in the storage that the next run fills.
    staged: int
    served_bytes: int
    served_rows: int
    dead_rows: int
    database_bytes: int
    #: Prefect's own database.
    prefect_bytes: int


class Shop:
    """The example shop, whose clock and business go on by steps."""

    def __init__(self, url: str, customers: int) -> None:
        self.url, self.customers = url, customers
        with connect(url) as connection:
            self.opened_at = clock(connection)
        open_shop(url, customers=customers, today=self.opened_at)
        self.since = self.opened_at
        self._newest = customers

    def go_on(self) -> None:
        """Let some time pass: somebody signs up, orders, visits and closed accounts come in."""
        with connect(self.url) as connection:
            # The clock has gone on by itself as well: what is loaded now is late by seconds, not by what runs took so far.
            until = clock(connection) + STEP
        span: dict[str, Any] = {"since": self.since, "until": until}
        with connect(self.url, "shop") as connection:
            for name, values in (
                ("sign_up_customers", {"first_id": self._newest + 1, "customers": 1, "growth": 1, **span}),
                ("unsubscribe_customers", span),
                ("place_orders", span),
                ("record_visits", span),
            ):
                connection.execute(sa.text(load_demo(name)), values)
            connection.commit()
        self._newest += 1
        self.since = until
        move_clock(self.url, until - datetime.now(UTC))


class Served:
    """A `prescore serve` that runs one deployment."""

    def __init__(self, bench: Bench, pipelines: Path) -> None:
        self.home = bench.folder / "home"
        self.home.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PRESCORE_"))}
        environment = kept | {
            "PRESCORE_DATABASE_URL": bench.url,
            "PRESCORE_PIPELINES": str(pipelines),
            "PRESCORE_DATA_DIR": str(self.home),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        }
        command = [Path(sys.executable).with_name("prescore"), "serve", "--port", str(self.port), "--limit", "1"]
        with (self.home / "stderr").open("wb") as said:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.home, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        self.deployment_id = eventually(self._deployed)

    def trigger(self) -> None:
        """Ask for a run, as somebody does on the page; again while Prefect waits for its own database, for the same run."""
        wanted = {"state": {"type": "SCHEDULED"}, "idempotency_key": uuid4().hex}

        def accepted() -> Any:
            with suppress(URLError, OSError):  # 503 among them
                return self._post(f"deployments/{self.deployment_id}/create_flow_run", wanted)
            return None

        eventually(accepted)

    def processes(self) -> dict[str, tuple[int, int, int]]:
        """Return what the processes that stay take, by role."""
        found = {"serve": taken(self.process.pid)}
        for pid, line in family(self.process.pid).items():
            for role, word in (("server", "flows.server"), ("runner", "flows.runner"), ("starter", "forkserver")):
                if word in line and role not in found:
                    with suppress(OSError):
                        found[role] = taken(pid)
        return found

    def end(self) -> None:
        """End it as systemd does."""
        self.process.terminate()
        try:
            self.process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def _deployed(self) -> str | None:
        if self.process.poll() is not None:
            raise RuntimeError((self.home / "stderr").read_text())
        with suppress(URLError, OSError):
            for found in self._post("deployments/filter", {}):
                if found["name"] == PIPELINE:
                    return str(found["id"])
        return None

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=60) as answer:
            return json.load(answer)


def soak(bench: Bench, *, runs: int, customers: int, looks: list[int], say: Callable[[str], None]) -> list[Look]:
    """Run so often while the shop goes on, and return what everything took after each number of runs in ``looks``.

    Raises
    ------
    AssertionError
        When a run did not publish, or left rows in staging.
    """
    pipelines = bench.folder / "pipelines"
    pipelines.mkdir()
    folder = Path(shutil.copytree(pipeline_folder(PIPELINE), pipelines / PIPELINE))
    shop = Shop(bench.url, customers)
    settings = Settings(database_url=bench.url, pipelines_dir=pipelines, data_dir=bench.folder / "data")
    train(settings, PIPELINE, promote=True)
    without_schedule(folder / "pipeline.toml")
    found: list[Look] = []
    with connect(bench.url, "soak", autocommit=True) as connection, serving(bench, pipelines) as served:
        began = time.perf_counter()
        for done in range(runs):
            asked = min(runs, done + WAITING)
            for _ in range(asked - (0 if done == 0 else min(runs, done - 1 + WAITING))):
                served.trigger()
            shop.go_on()
            eventually(lambda least=done + 1: ended(connection) >= least)
            if done + 1 in looks:
                eventually(lambda: not working(connection))
                found.append(look(connection, served, done + 1))
                say(f"{time.perf_counter() - began:.0f} s: {found[-1]}")
        statuses = raw_execute(connection, "SELECT status, mode, count(*) FROM prescore.runs GROUP BY 1, 2").fetchall()
        say(f"{statuses} in {time.perf_counter() - began:.0f} s")
        assert {status for status, _, _ in statuses} == {"published"}, statuses
        assert sum(count for *_, count in statuses) == runs
    return found


def require_flat(looks: list[Look]) -> None:
    """Fail when something grew between the first look and the last."""
    first, last = looks[0], looks[-1]
    for role, (memory, files, threads) in first.processes.items():
        now = last.processes[role]
        if role != "server":  # Prefect's own caches fill for a while
            assert now[0] <= memory * (1 + MEMORY_GROWTH), f"{role} has grown from {memory:,} to {now[0]:,} bytes"
        assert now[1] <= files + MORE_FILES, f"{role} has {now[1]} open files, {files} before"
        assert now[2] <= threads + MORE_THREADS, f"{role} has {now[2]} threads, {threads} before"
    assert last.connections <= first.connections + 1  # one may be on its way out
    assert all(found.staged == 0 for found in looks)
    assert last.served_bytes <= MOST_BLOAT * first.served_bytes * last.served_rows / first.served_rows


@contextmanager
def serving(bench: Bench, pipelines: Path) -> Iterator[Served]:
    """Serve, and end it at the end."""
    served = Served(bench, pipelines)
    try:
        yield served
    finally:
        served.end()


def look(connection: sa.Connection, served: Served, runs: int) -> Look:
    """Read what everything takes now."""

    def one(statement: str) -> Any:
        return raw_execute(connection, statement).fetchone()[0]

    storages = dict(
        raw_execute(
            connection, f"SELECT role, storage_id FROM prescore.storages WHERE pipeline = '{PIPELINE}'"
        ).fetchall()
    )
    current, following = (f"prescore_rows.{PIPELINE}_{storages[role]}" for role in ("current", "next"))
    one("SELECT pg_stat_force_next_flush() IS NULL")
    return Look(
        runs=runs,
        processes=served.processes(),
        connections=one(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        ),
        staged=one(f"SELECT count(*) FROM {following}"),
        served_bytes=one(f"SELECT pg_total_relation_size('{current}')"),
        served_rows=one(f"SELECT count(*) FROM {current}"),
        dead_rows=one(f"SELECT pg_stat_get_dead_tuples('{current}'::regclass)"),
        database_bytes=one("SELECT pg_database_size(current_database())"),
        prefect_bytes=sum(path.stat().st_size for path in (served.home / "prefect").glob("prefect.db*")),
    )


def ended(connection: sa.Connection) -> int:
    """Return how many runs have ended."""
    return int(raw_execute(connection, "SELECT count(*) FROM prescore.runs WHERE ended_at IS NOT NULL").fetchone()[0])


def working(connection: sa.Connection) -> bool:
    """Say whether a run is at work, or on its way out."""
    statement = (
        "SELECT EXISTS (SELECT FROM prescore.runs WHERE status = 'running') OR EXISTS (SELECT FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'prescore%' AND pid <> pg_backend_pid())"
    )
    return bool(raw_execute(connection, statement).fetchone()[0])


def without_schedule(file: Path) -> None:
    """Take the schedules out of a pipeline: runs begin when somebody asks."""
    text = file.read_text(encoding="utf-8")
    before, _, rest = text.partition("[schedule]")
    _, _, after = rest.partition("\n[")
    file.write_text(f"{before}[{after}", encoding="utf-8")


def taken(pid: int) -> tuple[int, int, int]:
    """Return resident bytes, open files and threads of a process."""
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        if ":" in line
    )
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return int(status["VmRSS"].split()[0]) * 1024, files, int(status["Threads"])


def family(pid: int) -> dict[int, str]:
    """Return the command lines of a process's children and theirs, the eldest first."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    found: dict[int, str] = {}
    parents = {pid}
    while more := {int(row[0]): row[2] for row in rows if int(row[1]) in parents and int(row[0]) not in found}:
        found |= more
        parents = set(more)
    return found


def eventually(there: Callable[[], Any]) -> Any:
    """Return what is found as soon as something is."""
    until = time.monotonic() + DEADLINE
    while not (found := there()):
        if time.monotonic() > until:
            raise TimeoutError(f"nothing within {DEADLINE:.0f} s")
        time.sleep(0.1)
    return found


def main() -> None:
    """Soak, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--customers", type=int, default=2_000)
    asked = parser.parse_args()
    looks = sorted({number for number in (1, 50, 100, 200, 300, asked.runs) if number <= asked.runs})
    with opened() as bench:
        found = soak(
            bench, runs=asked.runs, customers=asked.customers, looks=looks, say=lambda text: print(text, flush=True)
        )
    table = Table(
        "runs",
        "who",
        "memory MB",
        "files",
        "threads",
        *WHOLE,
    )
    for each in found:
        for number, (role, (memory, files, threads)) in enumerate(sorted(each.processes.items())):
            of_all = (
                str(each.connections),
                str(each.staged),
                f"{each.served_bytes / 1e6:.2f}",
                f"{each.served_rows:,}",
                f"{each.dead_rows:,}",
                f"{each.database_bytes / 1e6:.0f}",
                f"{each.prefect_bytes / 1e6:.1f}",
            )
            table.add_row(
                str(each.runs) if not number else "",
                role,
                f"{memory / 1e6:.0f}",
                str(files),
                str(threads),
                *(of_all if not number else ("",) * len(of_all)),
            )
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    # After the first run the server still opens what it keeps open from then on: connections to its own database.
    require_flat(found[1:] or found)


if __name__ == "__main__":
    main()
