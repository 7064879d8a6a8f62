"""Nights in which Prefect's processes die: the worker, a flow run's process, the server, which keeps its records in PostgreSQL.

What is asserted is what prescore's own records and readers say: they do not need Prefect to be right.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg2
import pytest

from tasks import migrations
from tasks.runs import Status
from tests.conftest import execute, psql_url
from tests.disturbances import LOCKS, WAITING, wait_until
from tests.end_to_end.test_prefect import alive, answers, environment_of, eventually, family, free_port
from tests.nights import Night, make_night, reading
from tests.servers import all_servers

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nights of prefect")]

POOL = "crew"


@dataclass
class Prefect:
    """A Prefect server on PostgreSQL and a worker of a process pool, each of which may be killed and started again."""

    home: Path
    port: int
    #: Of Prefect's own database.
    database: str
    night: Night
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def api(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        """What server and worker have in common."""
        return {
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        self._start("server", command, PREFECT_API_DATABASE_CONNECTION_URL=self.database)
        eventually(lambda: answers(self.api))

    def start_worker(self) -> None:
        """Start a worker."""
        command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--limit", "1"]
        self._start("worker", command, PREFECT_WORKER_QUERY_SECONDS="1")

    def kill(self, name: str) -> None:
        """Kill server or worker, with everything that it has started, as when a machine goes down."""
        process = self.processes.pop(name)
        children = family(process.pid)
        for pid in (process.pid, *children):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()
        eventually(lambda: not alive(children))

    def kill_flow_run(self) -> None:
        """Kill what the worker has started, and not the worker."""
        children = family(self.processes["worker"].pid)
        engine = next(pid for pid, line in children.items() if "prefect" in line and "engine" in line)
        os.kill(engine, signal.SIGKILL)

    def end(self) -> None:
        """End what still runs."""
        for name in list(self.processes):
            self.kill(name)

    def _start(self, name: str, command: list[str], **more: str) -> None:
        environment = environment_of(
            self.night.world, self.home, PREFECT_HOME=str(self.home / name), **self.environment, **more
        )
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - takes no lock
            )


@pytest.fixture(scope="module")
def prefect(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    of_prefect = server_for_prefect()
    names = {server_url: f"night_{uuid4().hex[:8]}", of_prefect: f"prefect_{uuid4().hex[:8]}"}
    for server, name in names.items():
        execute(server, f"CREATE DATABASE {name}")
    url = psql_url(server_url, names[server_url])
    migrations.apply(url)
    night = make_night(url, tmp_path_factory.mktemp("night"))
    own = psql_url(of_prefect, names[of_prefect]).replace("postgresql://", "postgresql+asyncpg://")
    found = Prefect(tmp_path_factory.mktemp("prefect"), free_port(), own.partition("?")[0], night)
    try:
        found.start_server()
        yield found
    finally:
        found.end()
        for server, name in names.items():
            execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def server_for_prefect() -> str:
    """Return a PostgreSQL that Prefect can use: it wants an extension that the embedded one does not have."""
    for server in all_servers():
        url = psql_url(server.url(), "postgres")
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'")
            if cursor.fetchone() is not None:
                return url
    pytest.skip("no PostgreSQL with pg_trgm is installed")


@pytest.fixture
def client(prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """A client of the server, with the pipeline deployed."""
    for name, value in prefect.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_HOME", str(prefect.home / "client"))
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.deploy import deploy

    with temporary_settings({PREFECT_API_URL: prefect.api}):
        deploy(prefect.night.world.settings, None, pool=POOL, create_pool=True)
        with get_client(sync_client=True) as client:
            yield client


def begin(client: SyncPrefectClient) -> Any:
    """Ask for a run as somebody does on the page, and return it."""
    deployment = client.read_deployment_by_name("score/items")
    return client.create_flow_run_from_deployment(deployment.id, parameters={"params": {"pipeline": "items"}})


@contextmanager
def at_work(prefect: Prefect, client: SyncPrefectClient) -> Iterator[tuple[Any, Any]]:
    """Begin a run that is held while it reads its sources; yield the flow run and the transaction that holds it."""
    holder = psycopg2.connect(psql_url(prefect.night.world.url))
    try:
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE public.items IN ACCESS EXCLUSIVE MODE")
        flow_run = begin(client)
        wait_until(prefect.night.world, WAITING)
        yield flow_run, holder
    finally:
        holder.close()


def require_next_run(prefect: Prefect, client: SyncPrefectClient) -> None:
    """Fail unless the next run of the deployment publishes, and nothing is left of those before."""
    night = prefect.night
    before = night.statuses().count(Status.PUBLISHED)
    begin(client)
    eventually(lambda: night.statuses().count(Status.PUBLISHED) > before)
    wait_until(night.world, f"SELECT WHERE ({LOCKS}) = 0")
    assert night.look()
    night.require_nothing_left()


def test_a_flow_runs_process_that_is_killed_leaves_the_lock_free_and_the_next_run_publishes(
    prefect: Prefect, client: SyncPrefectClient
) -> None:
    night = prefect.night
    prefect.start_worker()
    with reading(night):
        with at_work(prefect, client) as (flow_run, _):
            prefect.kill_flow_run()
            wait_until(night.world, f"SELECT WHERE ({LOCKS}) = 0")
            # The worker noticed; Prefect says so too.
            eventually(lambda: client.read_flow_run(flow_run.id).state_name == "Crashed")
        assert not night.look()
        require_next_run(prefect, client)
    assert night.statuses()[-2:] == [Status.CRASHED, Status.PUBLISHED]
    prefect.kill("worker")


def test_a_machine_of_a_worker_that_goes_down_costs_its_run_and_the_next_worker_goes_on(
    prefect: Prefect, client: SyncPrefectClient
) -> None:
    night = prefect.night
    prefect.start_worker()
    with reading(night):
        with at_work(prefect, client):
            prefect.kill("worker")
            wait_until(night.world, f"SELECT WHERE ({LOCKS}) = 0")
        assert not night.look()
        # Prefect still believes that run to be at work, for nobody told it; it is in nobody's way.
        prefect.start_worker()
        require_next_run(prefect, client)
    assert night.statuses()[-2:] == [Status.CRASHED, Status.PUBLISHED]
    prefect.kill("worker")


@pytest.mark.parametrize("back", ["while it works", "after it has ended"])
def test_a_server_that_is_killed_stops_no_run_and_goes_on_with_the_schedules_when_it_is_back(
    prefect: Prefect, client: SyncPrefectClient, back: str
) -> None:
    night = prefect.night
    prefect.start_worker()
    before = len(night.statuses())
    with reading(night):
        with at_work(prefect, client) as (_, holder):
            prefect.kill("server")
            if back == "while it works":
                prefect.start_server()
            holder.close()
            eventually(lambda: night.statuses()[before:] == [Status.PUBLISHED])
        wait_until(night.world, f"SELECT WHERE ({LOCKS}) = 0")
        assert night.look()
        if back == "after it has ended":
            prefect.start_server()
        require_next_run(prefect, client)
    prefect.kill("worker")
