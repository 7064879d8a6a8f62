"""compose.yaml lived in, without containers: its commands, variables, secret files and health checks, as processes on loopback.

A Prefect server that stores in PostgreSQL, `migrate`, `deploy`, a worker; then what people do with them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg2
import pytest
import yaml
from sqlalchemy.engine import make_url

from tests.conftest import execute, psql_url
from tests.disturbances import LOCKS, WAITING, wait_until
from tests.end_to_end.test_prefect import alive, eventually, family, free_port
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world
from tests.readme import REPOSITORY

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("production")]

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((REPOSITORY / "deployments" / "compose.yaml").read_text())[
    "services"
]
SCHEDULE = '[schedule]\ntimezone = "UTC"\nfull = "* * * * *"\nincremental = "1 1 1 1 *"\n'


@dataclass
class Production:
    """The services of compose.yaml as processes."""

    folder: Path
    world: World
    server_port: int = field(default_factory=free_port)
    worker_port: int = field(default_factory=free_port)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def api(self) -> str:
        """Return the address of the server."""
        return f"http://127.0.0.1:{self.server_port}/api"

    @property
    def auth(self) -> str:
        """Return what the server asks for."""
        return (self.folder / "secrets" / "prefect_auth").read_text().strip()

    def here(self, text: str) -> str:
        """Return what a service is told, in words of this machine instead of the container's."""
        for container, local in {
            "/run/secrets": str(self.folder / "secrets"),
            "/srv/pipelines": str(self.world.settings.pipelines_dir),
            "http://server:4200": f"http://127.0.0.1:{self.server_port}",
            "http://127.0.0.1:4200": f"http://127.0.0.1:{self.server_port}",
            "http://127.0.0.1:8080": f"http://127.0.0.1:{self.worker_port}",
            "0.0.0.0": "127.0.0.1",
        }.items():
            text = text.replace(container, local)
        return {"4200": str(self.server_port), "8080": str(self.worker_port)}.get(text, text)

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a service, with nothing of this process but where programs are."""
        home = self.folder / service
        home.mkdir(exist_ok=True)
        image = {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        image |= {"PREFECT_HOME": str(home), "PRESCORE_DATA_DIR": str(home), "TMPDIR": str(home), "DO_NOT_TRACK": "1"}
        image["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        said = {name: self.here(str(value)) for name, value in SERVICES[service].get("environment", {}).items()}
        return image | {"HOME": str(home)} | said

    def start(self, service: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a service, or other words in its surroundings."""
        command = list(words) or [self.here(word) for word in SERVICES[service]["command"]]
        with (self.folder / f"{service}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.entrypoint", *command],
                env=self.environment(service),
                cwd=self.folder / service,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Prefect's worker tells itself to end by SIGINT, which a test run in the background ignores.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - takes no lock
            )

    def keep(self, service: str) -> None:
        """Start a service and wait until its health check passes."""
        process = self.running[service] = self.start(service)
        kind, *check = (self.here(word) for word in SERVICES[service]["healthcheck"]["test"])
        assert (kind, check[0]) == ("CMD", "python")

        def well() -> bool:
            assert process.poll() is None, self.log(service)
            asked = subprocess.run([sys.executable, *check[1:]], env={}, capture_output=True, check=False)
            return asked.returncode == 0

        eventually(well)

    def call(self, service: str, *words: str) -> None:
        """Run a service to its end, or other words in its surroundings."""
        assert self.start(service, *words).wait(timeout=300) == 0, self.log(service)

    def log(self, service: str) -> str:
        """Return what a service has printed."""
        return (self.folder / f"{service}.log").read_text()

    def end(self, service: str, number: int = signal.SIGTERM) -> None:
        """End a service with all that it has started."""
        process = self.running.pop(service)
        children = family(process.pid)
        process.send_signal(number)
        try:
            process.wait(timeout=60)
        finally:
            for each in alive([process.pid, *children]):
                os.kill(each, signal.SIGKILL)

    def runs(self) -> list[dict[str, Any]]:
        """Return the run records, oldest first."""
        columns = ("trigger", "started_by", "mode", "status")
        found = self.world.rows(f"SELECT {', '.join(columns)} FROM prescore.runs ORDER BY run_id")
        return [dict(zip(columns, row, strict=True)) for row in found]

    def published(self, **wanted: Any) -> dict[str, Any] | None:
        """Return the last published run that is as wanted."""
        found = [row for row in self.runs() if row["status"] == "published" and wanted.items() <= row.items()]
        return found[-1] if found else None


@pytest.fixture(scope="module")
def production(prefect_store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    folder = tmp_path_factory.mktemp("production")
    names = {name: f"{name}_{uuid4().hex[:8]}" for name in ("predictions", "prefect")}
    with ExitStack() as stack:
        for name in names.values():
            execute(prefect_store_url, f"CREATE DATABASE {name}")
            stack.callback(execute, prefect_store_url, f"DROP DATABASE {name} WITH (FORCE)")
        url, own = (psql_url(prefect_store_url, name).partition("?")[0] for name in names.values())
        (folder / "secrets").mkdir()
        (folder / "secrets" / "prefect_auth").write_text("operator:hush-5d21\n")
        (folder / "secrets" / "prescore_database_url").write_text(f"{url}\n")
        (folder / "secrets" / "prefect_database_url").write_text(own.replace("postgresql://", "postgresql+asyncpg://"))
        world = make_world(url, tmp_path_factory.mktemp("pipelines"), rows=500)
        found = Production(folder, world)
        stack.callback(lambda: [found.end(service, signal.SIGKILL) for service in list(found.running)])
        found.keep("server")
        found.call("migrate")
        make_model(world, make_pipeline(world, toml=PIPELINE_TOML + SCHEDULE))
        found.call("deploy")
        found.keep("worker")
        yield found


@pytest.fixture
def client(production: Production, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """What the page does, it does by the same requests."""
    monkeypatch.setenv("PREFECT_HOME", str(production.folder / "client"))
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    settings = {PREFECT_API_URL: production.api, PREFECT_API_AUTH_STRING: production.auth}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        yield client


def test_a_night_and_a_morning_with_people(production: Production, client: SyncPrefectClient) -> None:
    world, deployment = production.world, client.read_deployment_by_name("score/items")

    # The schedule fires by itself, and soon.
    def on_time() -> Any:
        return production.published(trigger="scheduled", started_by="schedule full", mode="full")

    eventually(on_time)
    (waited,) = world.rows(
        "SELECT min(started_at - date_trunc('minute', started_at)) FROM prescore.runs WHERE status = 'published'"
    )[0]
    assert waited < timedelta(minutes=1)

    # Somebody pauses it, and it stays paused when the pipelines are deployed once more.
    full = next(each for each in deployment.schedules if each.slug == "full")
    client.update_deployment_schedule(deployment.id, full.id, active=False)
    production.call("deploy")
    assert {each.slug: each.active for each in client.read_deployment(deployment.id).schedules} == {
        "full": False,
        "incremental": True,
    }
    eventually(lambda: not [row for row in production.runs() if row["status"] == "running"])
    scheduled = len(production.runs())

    # Somebody starts a run on the command line, and somebody on the page.
    parameters = 'params={"pipeline": "items", "full": true, "started_by": "Anna Muster"}'
    production.call("worker", "prefect", "deployment", "run", "score/items", "--param", parameters)
    eventually(lambda: production.published(trigger="manual", started_by="Anna Muster", mode="full"))
    given = {"params": {"pipeline": "items", "started_by": "Bea"}}
    client.create_flow_run_from_deployment(deployment.id, parameters=given)
    eventually(lambda: production.published(trigger="manual", started_by="Bea", mode="incremental"))
    assert len(production.runs()) == scheduled + 2  # nothing of the schedule that is paused

    # Somebody cancels a run that waits for a table: at once, not when the table is free.
    holder = psycopg2.connect(psql_url(world.url))
    try:
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE public.items IN ACCESS EXCLUSIVE MODE")
        flow_run = client.create_flow_run_from_deployment(deployment.id, parameters=given)
        wait_until(world, WAITING)
        cancel(client, flow_run.id)
        wait_until(world, f"SELECT WHERE ({LOCKS}) = 0")
        eventually(lambda: production.runs()[-1]["status"] != "running")
        ended = world.one("SELECT status, trigger, message FROM prescore.runs ORDER BY run_id DESC LIMIT 1")
        assert (ended["status"], ended["trigger"]) == ("cancelled", "manual")
        assert ended["message"].startswith("Cancelled from outside (TerminationSignal) before it published.")
        eventually(lambda: client.read_flow_run(flow_run.id).state_name == "Cancelled")
    finally:
        holder.close()
    # The next one needs no hands.
    client.create_flow_run_from_deployment(
        deployment.id, parameters={"params": {"pipeline": "items", "started_by": "Cleo"}}
    )
    eventually(lambda: production.published(started_by="Cleo"))

    # Nobody has told a secret to a log, to the server, or to the list of processes.
    password = str(make_url(world.url).password)
    lines = [line for process in production.running.values() for line in family(process.pid).values()]
    for secret in (password, "hush-5d21"):
        assert not any(secret in production.log(service) for service in ("server", "migrate", "deploy", "worker"))
        assert not any(secret in line for line in lines)


def cancel(client: SyncPrefectClient, flow_run_id: UUID) -> None:
    """Ask for the end of a run as the page does."""
    from prefect.states import Cancelling

    client.set_flow_run_state(flow_run_id, Cancelling())


def test_a_run_whose_worker_went_down_is_not_running_for_ever(
    production: Production, client: SyncPrefectClient
) -> None:
    from flows.automations import SILENCE, UNDERTAKER, bring_undertaker

    world, deployment = production.world, client.read_deployment_by_name("score/items")
    (there,) = client.read_automations_by_name(UNDERTAKER)
    assert there.trigger.within == SILENCE
    assert bring_undertaker(client, timedelta(seconds=45))
    assert not bring_undertaker(client, timedelta(seconds=45))
    holder = psycopg2.connect(psql_url(world.url))
    try:
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE public.items IN ACCESS EXCLUSIVE MODE")
        flow_run = client.create_flow_run_from_deployment(
            deployment.id, parameters={"params": {"pipeline": "items", "started_by": "Dora"}}
        )
        wait_until(world, WAITING)
        heartbeat = {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{flow_run.id}"]},
        }

        def beaten() -> bool:
            found = client.request("POST", "/events/filter", json={"filter": heartbeat, "limit": 1})
            return bool(found.raise_for_status().json()["events"])

        eventually(beaten)
        production.end("worker", signal.SIGKILL)
        wait_until(world, f"SELECT WHERE ({LOCKS}) = 0")
    finally:
        holder.close()
    assert client.read_flow_run(flow_run.id).state_name == "Running"
    eventually(lambda: client.read_flow_run(flow_run.id).state_name == "Crashed")
    # The worker comes back, as compose lets it, and the next run finds out about the one before.
    production.keep("worker")
    client.create_flow_run_from_deployment(
        deployment.id, parameters={"params": {"pipeline": "items", "started_by": "Eva"}}
    )
    eventually(lambda: production.published(started_by="Eva"))
    assert [row["status"] for row in production.runs()[-2:]] == ["crashed", "published"]


def test_a_server_with_a_password_lets_nobody_in_without_it(production: Production) -> None:
    environment = production.environment("deploy")
    del environment["PREFECT_API_AUTH_STRING_FILE"]
    command = ["prescore", "deploy", "--pool", "prescore"]

    told = subprocess.run(command, env=environment, cwd=production.folder, capture_output=True, text=True, check=False)

    assert told.returncode == 1
    assert f"The Prefect server at {production.api} does not let us in." in told.stderr
    assert "Traceback" not in told.stderr
