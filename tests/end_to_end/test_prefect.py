"""The flows on a real Prefect server, that of `prescore serve`: schedules, manual triggers, lines, logs, reports.

One server serves the whole module. It runs the pipeline ``nightly_items`` by itself; the other tests use pipelines and
databases of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.error import URLError
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.engine import make_url

from tasks import checks, migrations
from tasks.deployments import is_full, plan
from tasks.endings import cancel
from tasks.errors import DeploymentRefused, ModelNotFound, WorkPoolRefused
from tasks.runs import hold_lock
from tasks.steps import step
from tests.conftest import execute, psql_url
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events.schemas.automations import Automation

# One worker starts the one server.
pytestmark = pytest.mark.xdist_group("prefect")

REPOSITORY = Path(__file__).parents[2]
STEPS = ["load model", "check guards", "select population", "check population", "score entities", "keep profile"]
STEPS += ["check rows", "check promise"]
# Generous: on a busy machine a server of Prefect takes a minute to start.
DEADLINE = 300.0

#: A pipeline's schedules: one that is due in twelve hours, every day, and one that is due never during a test.
SCHEDULE = """
[schedule]
timezone = "Asia/Kolkata"
full = "{full}"
incremental = ["{incremental}", "1 1 1 * *"]
"""

# A `prescore` command that also ends with the process that started it, however that ends: its input closes.
START = """
import os, signal, sys, threading
def end():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end, daemon=True).start()
from flows.cli import main
main()
"""

T = TypeVar("T")


def eventually(look: Callable[[], T | None]) -> T:
    """Return what ``look`` finds as soon as it finds something: records arrive at the server in their own time."""
    until = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < until, f"nothing within {DEADLINE:.0f} s"
        time.sleep(0.25)
    return found


@dataclass(frozen=True)
class Server:
    """The Prefect server of `prescore serve`, and what it has recorded."""

    #: The data folder: Prefect's files, and what serve printed.
    home: Path
    client: SyncPrefectClient
    #: What is served.
    world: World
    process: subprocess.Popen[bytes]
    #: Where serve answers scrapers.
    metrics_port: int

    def said(self) -> str:
        """Return what serve printed on standard error."""
        return (self.home / "stderr").read_text()

    def report(self, flow_run_id: UUID) -> tuple[str, str]:
        """Return key and Markdown of the one artifact of a flow run."""
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

        only = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]), type=ArtifactFilterType(any_=["markdown"])
        )
        (found,) = self.client.read_artifacts(artifact_filter=only)
        return found.key or "", str(found.data)

    def ended(self, flow_run_id: UUID) -> FlowRun:
        """Return a flow run once it has ended."""

        def look() -> FlowRun | None:
            found = self.client.read_flow_run(flow_run_id)
            return found if found.state is not None and found.state.is_final() else None

        return eventually(look)

    def served(self) -> DeploymentResponse:
        """Return the deployment that serve runs, once it is there."""
        from prefect.exceptions import ObjectNotFound

        def look() -> DeploymentResponse | None:
            with suppress(ObjectNotFound):
                return self.client.read_deployment_by_name("score/nightly_items")
            return None

        return eventually(look)

    def runs_of(self, deployment_id: UUID) -> list[FlowRun]:
        """Return the flow runs of a deployment, whatever their state."""
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

        return self.client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
        )

    def automations(self) -> list[Automation]:
        """Return the automations of prescore for pipelines that serve does not run."""
        found = self.client.read_automations()
        return [each for each in found if each.name.startswith("prescore: ") and "nightly_items" not in each.name]

    def events(self, pipeline: str, name: str) -> list[dict[str, Any]]:
        """Return the events of a name that were told of a pipeline."""
        only = {"event": {"name": [name]}, "resource": {"id": [f"prescore.pipeline.{pipeline}"]}}
        answer = self.client.request("POST", "/events/filter", json={"filter": only, "limit": 50})
        return list(answer.raise_for_status().json()["events"])

    def make_due(self, deployment_id: UUID, days: int) -> list[FlowRun]:
        """Let the server's scheduler make the runs of the last days, which are due, and return them."""
        now = datetime.now(UTC)
        span = {"start_time": (now - timedelta(days=days)).isoformat(), "end_time": now.isoformat()}
        path = {"id": deployment_id}
        self.client.request("POST", "/deployments/{id}/schedule", path_params=path, json=span).raise_for_status()
        return [run for run in self.runs_of(deployment_id) if (run.expected_start_time or now) < now]

    def last_flow_run(self) -> FlowRun:
        """Return the flow run that began last."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterStartTime
        from prefect.client.schemas.sorting import FlowRunSort

        begun = FlowRunFilter(start_time=FlowRunFilterStartTime(is_null_=False))
        return self.client.read_flow_runs(flow_run_filter=begun, sort=FlowRunSort.START_TIME_DESC, limit=1)[0]

    def lines(self, flow_run_id: UUID, count: int) -> list[tuple[str, str]]:
        """Return name and state of each task run in the order of their start, once ``count`` have ended."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        only = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))

        def look() -> list[tuple[str, str]] | None:
            found = self.client.read_task_runs(flow_run_filter=only)
            # What a step was given is no business of the server; a step within a step may name the outer one.
            assert all(set(run.task_inputs) <= {"__parents__"} for run in found)
            found = [
                run for run in found if run.state is not None and run.state.is_final() and run.start_time is not None
            ]
            found.sort(key=lambda run: run.start_time or datetime.max.replace(tzinfo=UTC))
            return [(run.name, run.state_name or "") for run in found] if len(found) >= count else None

        return eventually(look) if count else look() or []

    def log(self, flow_run_id: UUID, until: str) -> list[str]:
        """Return the messages in the log of a flow run, once ``until`` is among them."""
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
        from prefect.logging.handlers import APILogHandler

        APILogHandler().flush()
        only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))

        def look() -> list[str] | None:
            found = [log.message for log in self.client.read_logs(only, limit=200)]
            return found if any(until in message for message in found) else None

        return eventually(look)

    def holds(self, text: str) -> bool:
        """Say whether a text is anywhere in what the server stores and prints, or in a result that a run left behind."""
        files = [path for path in self.home.rglob("*") if path.is_file()]
        return any(text.encode() in path.read_bytes() for path in files)

    def schedule(self, pipeline: str, count: int) -> list[FlowRun]:
        """Let the server schedule runs of a pipeline, an hour apart and due already."""
        from prefect.client.schemas.actions import DeploymentScheduleCreate
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
        from prefect.client.schemas.schedules import IntervalSchedule

        start = datetime.now(UTC) - timedelta(hours=count)
        every_hour = IntervalSchedule(interval=timedelta(hours=1), anchor_date=start)
        deployment_id = self.client.create_deployment(
            flow_id=self.client.create_flow_from_name("score"),
            name=pipeline,
            entrypoint="flows.deployed.score",
            path=str(REPOSITORY),
            parameters={"params": {"pipeline": pipeline}},
            schedules=[DeploymentScheduleCreate(schedule=every_hour, active=True, slug="full")],
        )
        span = {"start_time": start.isoformat(), "end_time": datetime.now(UTC).isoformat(), "max_runs": count}
        answer = self.client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment_id}, json=span)
        answer.raise_for_status()
        only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
        found = self.client.read_flow_runs(deployment_filter=only)
        return [run for run in found if (run.expected_start_time or start) < datetime.now(UTC)][:count]


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def environment_of(world: World, home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command on a world, without anything of Prefect but what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {
        "PRESCORE_DATABASE_URL": world.url,
        "PRESCORE_PIPELINES": str(world.settings.pipelines_dir),
        "PRESCORE_DATA_DIR": str(home),
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        **more,
    }


def start_serve(world: World, home: Path, port: int, **more: str) -> subprocess.Popen[bytes]:
    """Start `prescore serve` in a folder of its own, with a temporary folder that other users write to as well."""
    shared = home / "shared"
    shared.mkdir(exist_ok=True)
    with (home / "stdout").open("ab") as out, (home / "stderr").open("ab") as err:
        return subprocess.Popen(
            [sys.executable, "-c", START, "serve", "--port", str(port)],
            env=environment_of(world, home, TMPDIR=str(shared), PRESCORE_LOG_FORMAT="json", **more),
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            # A test run in the background ignores Ctrl-C, and what it starts would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - takes no lock
        )


def answers(api: str) -> bool:
    """Say whether a Prefect server answers."""
    with suppress(URLError, ConnectionError, TimeoutError):
        return bool(urllib.request.urlopen(f"{api}/health", timeout=5).status == 200)
    return False


def family(process_id: int) -> dict[int, str]:
    """Return the command lines of a process's children and theirs."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    found: dict[int, str] = {}
    parents = {process_id}
    while more := {int(row[0]): row[2] for row in rows if int(row[1]) in parents and int(row[0]) not in found}:
        found |= more
        parents = set(more)
    return found


def alive(process_ids: Iterable[int]) -> set[int]:
    """Return those of the processes that are still there."""
    found = set()
    for process_id in process_ids:
        with suppress(ProcessLookupError):
            os.kill(process_id, 0)
            found.add(process_id)
    return found


def make_served(url: str, folder: Path, name: str, schedule: str) -> World:
    """Return a world with a pipeline of this name, which has a model and schedules."""
    world = make_world(url, folder, rows=500)
    make_model(world, make_pipeline(world, name, toml=PIPELINE_TOML + schedule))
    return world


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, server_url: str) -> Iterator[Server]:
    """`prescore serve` on loopback, with everything it writes in a temporary folder; it calls nobody.

    At the end it is told to end as systemd does, and must leave nothing.
    """
    database = f"served_{uuid4().hex[:12]}"
    execute(server_url, f"CREATE DATABASE {database}")
    url = psql_url(server_url, database)
    migrations.apply(url)
    home, port = tmp_path_factory.mktemp("served"), free_port()
    due = datetime.now(UTC).astimezone(ZoneInfo("Asia/Kolkata")) + timedelta(hours=12)
    schedule = SCHEDULE.format(full=f"{due.minute} {due.hour} * * *", incremental=f"{due.minute} {due.hour} 2 2 *")
    world = make_served(url, tmp_path_factory.mktemp("pipelines"), "nightly_items", schedule)
    (world.settings.pipelines_dir / "broken").mkdir()
    (world.settings.pipelines_dir / "broken" / "pipeline.toml").write_text("[entity]\n")
    metrics_port = free_port()
    process = start_serve(world, home, port, PRESCORE_METRICS_PORT=str(metrics_port))
    ours = {
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "DO_NOT_TRACK": "1",
    }
    children: dict[int, str] = {}
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ours.items():
                patch.setenv(name, value)
            # Imported while the server starts; here at the latest, so that nothing is written into the user's home.
            from prefect.client.orchestration import get_client
            from prefect.settings import (
                PREFECT_API_URL,
                PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
                PREFECT_HOME,
                PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
                temporary_settings,
            )

            settings = {
                PREFECT_API_URL: ours["PREFECT_API_URL"],
                PREFECT_HOME: home / "prefect",
                PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False,
                PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # each flow run waits a second for it
            }

            def started() -> bool:
                assert process.poll() is None, (home / "stderr").read_text()
                return answers(ours["PREFECT_API_URL"])

            eventually(started)
            with temporary_settings(settings), get_client(sync_client=True) as client:
                yield Server(home=home, client=client, world=world, process=process, metrics_port=metrics_port)
        children = family(process.pid)
    finally:
        process.terminate()
        try:
            code = process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            execute(server_url, f"DROP DATABASE {database} WITH (FORCE)")
    assert code == 0, (home / "stderr").read_text()
    assert not alive(children)


@pytest.fixture
def world(server: Server, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that a flow run finds in its environment."""
    monkeypatch.setenv("PRESCORE_DATABASE_URL", database_url)
    monkeypatch.setenv("PRESCORE_PIPELINES", str(tmp_path))
    return make_world(database_url, tmp_path)


def score_in_a_flow_run(pipeline: str, **parameters: Any) -> Any:
    """Run the flow and return its final state."""
    from flows.deployed import ScoreParameters, score

    return score(ScoreParameters(pipeline=pipeline, **parameters), return_state=True)


def schedule_of(run: FlowRun) -> str:
    """Return the name of the schedule that made a flow run."""
    return (run.created_by and run.created_by.display_value) or ""


def password(world: World) -> str:
    """Return the password in the address of the database."""
    found = make_url(world.url).password
    assert found, "without a password there is nothing to look for"
    return str(found)


def test_serve_runs_a_pipeline_on_its_schedule_with_nobody_there(server: Server) -> None:
    """The server's scheduler makes the runs of the last four days, of the deployment's own schedule: one takes place."""
    world, deployment = server.world, server.served()

    def ahead() -> list[FlowRun] | None:
        found = [run for run in server.runs_of(deployment.id) if run.parameters["params"].get("full")]
        return found or None

    made = eventually(ahead)
    late = [server.ended(each.id) for each in server.make_due(deployment.id, days=4)]
    (run,) = [each for each in late if each.state_name == "Completed"]

    # What the scheduler made by itself: at the time of the declared zone, in twelve hours and each day after.
    soon = min(run.expected_start_time for run in made if run.expected_start_time is not None)
    assert timedelta(hours=11) < soon - datetime.now(UTC) < timedelta(hours=13)
    assert all(run.auto_scheduled and run.state_name == "Scheduled" for run in made)
    assert {schedule.slug for schedule in deployment.schedules} == {"full", "incremental-1", "incremental-2"}
    assert {schedule.schedule.timezone for schedule in deployment.schedules} == {"Asia/Kolkata"}  # type: ignore[union-attr]
    # Prefect's folder of runners would belong to whoever comes first on a machine.
    assert not (server.home / "shared" / "runner_storage").exists()
    # What took place.
    told = str(run.state and run.state.message)
    assert told.startswith("Published generation 1: 500 rows. It makes up for what was due since ")
    others = [each for each in late if each.id != run.id]
    assert [each.state_name for each in others] == ["Skipped"] * 2  # the scheduler makes three at once
    assert all("is done" in str(each.state) or "is being run already" in str(each.state) for each in others)
    done = "SELECT status, trigger, started_by, mode, scored FROM prescore.runs WHERE status <> 'skipped'"
    assert world.one(done) == {
        "status": "published",
        "trigger": "recovery",
        "started_by": "schedule full",
        "mode": "full",
        "scored": 500,
    }
    assert world.rows("SELECT count(*) FROM predictions.nightly_items WHERE state = 'fresh' AND p IS NOT NULL") == [
        (500,)
    ]
    log = server.log(run.id, "published generation 1: 500 rows")
    assert any(message.startswith("scored 500 entities in ") for message in log)
    key, told = server.report(run.id)
    assert key == "nightly-items-report"
    assert told.startswith("# nightly_items: Published\n")
    assert "| 500 | 500 | 0 | 0 |" in told
    assert "## How old the predictions were\n\n![chart](data:image/svg+xml;base64," in told
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=30) as answer:
        assert 'prescore_last_run_status{pipeline="nightly_items",prescore_last_run_status="published"} 1.0' in (
            answer.read().decode().splitlines()
        )
    # What serve, its runner and its run logged: a line each, Prefect's own among them.
    lines = [json.loads(line) for line in server.said().splitlines()]
    # Those that met it may have their records first.
    ((run_id,),) = world.rows("SELECT run_id FROM prescore.runs WHERE status = 'published'")
    of_run = [line for line in lines if line.get("run_id") == run_id]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in lines))
    assert any(line["logger"].startswith("prefect") for line in lines)
    assert of_run[-1]["message"] == f"run {run_id} ended: published"
    assert all(line["pipeline"] == "nightly_items" and line["generation"] == 1 for line in of_run)
    assert {"select the population", "score", "publish"} <= {line["step"] for line in of_run}
    # What serve said, and what it gave away.
    out = (server.home / "stdout").read_text()
    assert f"{soon:%Y-%m-%d %H:%M}" in out
    assert "score/nightly_items" in out
    assert "broken/pipeline.toml [entity] key" in server.said()
    assert not server.holds(password(world))
    assert not any(password(world) in line for line in family(server.process.pid).values())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"pipeline": "nightly_items", "full": "maybe"}, "'maybe' is not of type 'boolean'"),
        ({"pipeline": "nightly_items", "fulll": True}, "'fulll' was unexpected"),
        ({"pipeline": "items"}, "'items' is not one of ['nightly_items']"),
        ({"pipeline": "nightly_items", "as_of": "yesterday"}, "'yesterday'"),
        ({"full": True}, "'pipeline' is a required property"),
        ({"pipeline": "nightly_items", "waive": ["rows.torn"]}, "'rows.torn' is not one of ['drift.input'"),
        ({"pipeline": "nightly_items", "started_by": "\x1b[2J"}, "does not match"),
    ],
)
def test_a_bad_parameter_is_refused_with_the_reason_before_there_is_a_run(
    server: Server, given: dict[str, Any], reason: str
) -> None:
    from prefect.exceptions import PrefectHTTPStatusError

    deployment = server.served()
    before = {run.id for run in server.runs_of(deployment.id)}

    with pytest.raises(PrefectHTTPStatusError) as refused:
        server.client.create_flow_run_from_deployment(deployment.id, parameters={"params": given})

    assert reason in refused.value.response.json()["detail"]
    assert {run.id for run in server.runs_of(deployment.id)} == before


def test_a_run_that_somebody_starts_completes_and_its_predictions_are_readable(server: Server) -> None:
    world, deployment = server.world, server.served()
    as_of = datetime.now(UTC)
    given = {"pipeline": "nightly_items", "full": True, "as_of": as_of.isoformat(), "started_by": "Anna  | Muster"}

    run = server.client.create_flow_run_from_deployment(deployment.id, parameters={"params": given})

    assert server.ended(run.id).state_name == "Completed"
    stored = world.one("SELECT trigger, mode, status, started_by FROM prescore.runs ORDER BY run_id DESC LIMIT 1")
    assert stored == {"trigger": "manual", "mode": "full", "status": "published", "started_by": "Anna | Muster"}
    assert ", manual (Anna \\| Muster), full |" in server.report(run.id)[1]
    # It was forked from a process that is still there, and was one of its own.
    processes = [row[0] for row in world.rows("SELECT process_id FROM prescore.runs")]
    assert len(set(processes)) == len(processes)
    assert any("multiprocessing.forkserver" in line for line in family(server.process.pid).values())
    assert "starts from nothing" not in server.said()
    assert world.rows("SELECT DISTINCT state, as_of FROM predictions.nightly_items") == [("fresh", as_of)]


def test_deploying_puts_pipelines_on_a_work_pool_and_touches_nothing_twice(world: World, server: Server) -> None:
    from flows.deploy import deploy

    def done(**options: Any) -> list[tuple[str, str]]:
        summary = deploy(world.settings, None, pool="hands", create_pool=True, **options)
        return [(each.name, each.done) for each in summary.deployments]

    yearly = SCHEDULE.format(full="0 3 1 * *", incremental="*/15 * * * *")
    make_pipeline(world, "pooled", toml=PIPELINE_TOML + yearly)
    (world.settings.pipelines_dir / "torn").mkdir()
    (world.settings.pipelines_dir / "torn" / "pipeline.toml").write_text("[entity]\n")

    with pytest.raises(WorkPoolRefused, match=r"hands is not there\. Nothing was deployed\. Say --create-pool"):
        deploy(world.settings, None, pool="hands", create_pool=False)
    first = deploy(world.settings, None, pool="hands", create_pool=True)
    deployment = server.client.read_deployment_by_name("score/pooled")
    made = eventually(lambda: [run for run in server.runs_of(deployment.id) if run.auto_scheduled])

    assert first.pool_created
    assert [(each.name, each.done) for each in first.deployments] == [("score/pooled", "created")]
    assert "torn/pipeline.toml [entity] key" in first.broken[0]
    assert (deployment.work_pool_name, deployment.entrypoint, deployment.tags) == (
        "hands",
        "flows.deployed.score",
        ["prescore", "score"],
    )
    assert not deployment.job_variables
    assert {run.state_name for run in made} == {"Scheduled"}
    assert done() == [("score/pooled", "unchanged")]

    # A pause on the page survives, also a change of another schedule; the parameters that the server forgets come back.
    (quarters,) = (each for each in deployment.schedules if each.slug == "incremental-1")
    path = {"id": deployment.id, "schedule": quarters.id}
    server.client.request("PATCH", "/deployments/{id}/schedules/{schedule}", path_params=path, json={"active": False})
    assert done() == [("score/pooled", "updated")]
    assert done() == [("score/pooled", "unchanged")]
    make_pipeline(world, "pooled", toml=PIPELINE_TOML + yearly.replace("0 3 1 * *", "30 4 1 * *"))
    assert done() == [("score/pooled", "updated")]
    changed = {each.slug: each for each in server.client.read_deployment_by_name("score/pooled").schedules}
    assert changed["full"].schedule.cron == "30 4 1 * *"  # type: ignore[union-attr]
    assert not changed["incremental-1"].active
    assert changed["incremental-2"].active

    # Where clocks change it is a rule, and fires at three o'clock when there is no half past two.
    in_berlin = yearly.replace("Asia/Kolkata", "Europe/Berlin").replace("0 3 1 * *", "30 2 * * *")
    make_pipeline(world, "pooled", toml=PIPELINE_TOML + in_berlin)
    assert done() == [("score/pooled", "updated")]
    assert done() == [("score/pooled", "unchanged")]
    spring = {"start_time": "2027-03-27T12:00:00Z", "end_time": "2027-03-28T12:00:00Z"}
    path = {"id": deployment.id}
    server.client.request("POST", "/deployments/{id}/schedule", path_params=path, json=spring).raise_for_status()
    nights = {run.expected_start_time for run in server.runs_of(deployment.id) if is_full(schedule_of(run))}
    assert datetime(2027, 3, 28, 1, tzinfo=UTC) in nights
    assert not {datetime(2027, 3, 28, 0, 30, tzinfo=UTC), datetime(2027, 3, 28, 1, 30, tzinfo=UTC)} & nights

    # What is somebody else's is left, and what is gone is named.
    server.client.create_deployment(server.client.create_flow_from_name("score"), "foreign")
    make_pipeline(world, "foreign")
    with pytest.raises(DeploymentRefused, match="score/foreign was not made: there is one without the tag prescore"):
        deploy(world.settings, "foreign", pool="hands", create_pool=False)
    shutil.rmtree(world.settings.pipelines_dir / "foreign")
    (world.settings.pipelines_dir / "pooled").rename(world.settings.pipelines_dir / "renamed")
    assert deploy(world.settings, None, pool="hands", create_pool=False).unknown == ("score/pooled",)


def test_serve_leaves_alone_what_another_one_or_a_work_pool_runs(world: World, server: Server) -> None:
    from flows.deploy import deploy, open_client, put
    from flows.runner import remove_gone

    make_pipeline(world, "hired")
    deploy(world.settings, "hired", pool="hands", create_pool=True)
    make_pipeline(world, "guest")
    (hired,), (guest,) = (plan(world.settings, name).deployments for name in ("hired", "guest"))
    (nightly,) = plan(server.world.settings, "nightly_items").deployments
    server.served()

    with open_client() as client:
        with pytest.raises(DeploymentRefused, match="it belongs to the work pool hands"):
            put(client, hired, None)
        with pytest.raises(DeploymentRefused, match="the prescore serve of that server runs it"):
            put(client, nightly, None, guest=True)
        assert put(client, guest, None, guest=True).done == "created"
        put(client, replace(guest, pipeline="gone"), None)
        remove_gone(client, plan(server.world.settings))

    there = {each.name for each in server.client.read_deployments()}
    assert {"hired", "guest", "nightly_items"} <= there
    assert "gone" not in there


def test_a_flow_run_shows_a_line_a_step_and_ends_in_the_same_place_as_a_plain_run(world: World, server: Server) -> None:
    for name in ("items", "twins"):
        make_model(world, make_pipeline(world, name))
    as_of = datetime.now(UTC)

    state = score_in_a_flow_run("items", as_of=as_of)
    flow_run = server.last_flow_run()
    plain = world.score("twins", as_of=as_of)

    assert (state.name, state.message) == ("Completed", "Published generation 1: 1,000 rows.")
    assert state.result() == {"run_id": 1, "status": "published", "generation_id": 1, "scored": 1_000}
    assert (flow_run.name, flow_run.state_name) == ("score items", "Completed")
    given = {"pipeline": "items", "full": False, "as_of": as_of.isoformat().replace("+00:00", "Z")}
    assert flow_run.parameters["params"] == given | {"waive": [], "because": "", "started_by": ""}
    assert server.lines(flow_run.id, len(STEPS)) == [(name, "Completed") for name in STEPS]
    assert server.report(flow_run.id)[0] == "items-report"
    log = server.log(flow_run.id, "published generation 1: 1000 rows")
    assert "selected 1000 of 1000 entities" in log
    assert any(message.startswith("scored 1000 entities in ") for message in log)

    # The plain run came second in the same process: it left nothing at the server.
    assert plain.trigger == "manual"
    assert server.last_flow_run().id == flow_run.id
    rows = "SELECT id, state, data_as_of, as_of, aging_at, stale_at, expires_at, reasons, p, label FROM predictions.{}"
    assert world.rows(rows.format("items") + " ORDER BY id") == world.rows(rows.format("twins") + " ORDER BY id")
    record = """
        SELECT status, mode, trigger, as_of, population, scored, unchanged, rejected, new, changed, due, gone,
               key_checksum, model_version
        FROM prescore.runs WHERE pipeline = '{}'
    """
    assert world.rows(record.format("items")) == world.rows(record.format("twins"))
    assert world.one(record.format("items"))["trigger"] == "manual"
    assert server.holds("Published generation 1: 1,000 rows.")
    assert not server.holds(password(world))


def test_a_run_that_publishes_nothing_fails_on_the_page_and_says_why(world: World, server: Server) -> None:
    make_model(world, make_pipeline(world))
    world.score()
    world.execute("DELETE FROM public.items")

    state = score_in_a_flow_run("items")

    ended = world.one("SELECT status, trigger, message FROM prescore.runs ORDER BY run_id DESC LIMIT 1")
    flow_run = server.last_flow_run()
    assert (ended["status"], ended["trigger"]) == ("held", "manual")
    assert (state.name, state.message) == ("Failed", ended["message"])
    assert flow_run.state is not None
    assert (flow_run.state_name, flow_run.state.message) == ("Failed", ended["message"])
    assert "generation 1 is still served" in ended["message"]
    assert server.lines(flow_run.id, 4) == [(name, "Completed") for name in STEPS[:4]]
    told = server.report(flow_run.id)[1]
    assert told.startswith("# items: Held: not published\n\nHeld: population.size: ")
    assert "**Readers see now:** generation 1, **fresh**" in told
    assert "| **fail** | population.size | S3 |" in told


def test_an_error_in_a_step_is_raised_as_it_is_and_shown_at_its_line(world: World, server: Server) -> None:
    from flows.deployed import ScoreParameters, score

    make_pipeline(world)

    with pytest.raises(ModelNotFound) as raised:
        score(ScoreParameters(pipeline="items"))

    flow_run = server.last_flow_run()
    assert flow_run.state is not None
    assert flow_run.state_name == "Failed"
    assert str(raised.value) in str(flow_run.state.message)
    assert server.lines(flow_run.id, 1) == [("load model", "Failed")]
    told = server.report(flow_run.id)[1]
    assert told.startswith(f"# items: Failed: not published\n\n{raised.value}\n\n**Readers see now:** nothing;")
    assert "| load the model | " in told
    assert world.one("SELECT status FROM prescore.runs")["status"] == "failed"
    assert server.log(flow_run.id, "ModelNotFound")
    assert not server.holds(password(world))


def test_no_password_reaches_the_server_when_the_database_does_not_answer(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pipeline(world)
    monkeypatch.setenv("PRESCORE_DATABASE_URL", "postgresql://somebody:hush-7f2c91@127.0.0.1:1/nowhere")

    state = score_in_a_flow_run("items")

    assert state.name == "Failed"
    assert "No connection to database nowhere on 127.0.0.1:1" in state.message
    assert server.log(server.last_flow_run().id, "DatabaseUnreachable")
    assert server.report(server.last_flow_run().id)[1].startswith(
        "# items: Refused\n\nNo connection to database nowhere"
    )
    assert not server.holds("hush-7f2c91")


def test_a_run_of_a_schedule_is_scheduled_and_skipped_when_it_meets_another(world: World, server: Server) -> None:
    from prefect.flow_engine import run_flow_sync

    from flows.deployed import score

    make_model(world, make_pipeline(world))
    first, second = server.schedule("items", 2)
    assert first.auto_scheduled

    published = run_flow_sync(score, flow_run=first, parameters=first.parameters, return_type="state")
    with hold_lock(world.url, "items"):
        skipped = run_flow_sync(score, flow_run=second, parameters=second.parameters, return_type="state")

    # Full by the name of its schedule: the server forgets a schedule's parameters when somebody pauses it on the page.
    assert "full" not in first.parameters["params"]
    runs = world.rows("SELECT status, trigger, started_by, mode FROM prescore.runs ORDER BY run_id")
    assert runs == [(status, "scheduled", "schedule full", "full") for status in ("published", "skipped")]
    assert published is not None
    assert published.name == "Completed"
    assert server.lines(first.id, len(STEPS)) == [(name, "Completed") for name in STEPS]
    assert skipped is not None
    assert (skipped.is_completed(), skipped.name) == (True, "Skipped")
    assert server.client.read_flow_run(second.id).state_name == "Skipped"
    assert "is being run already" in str(skipped.message)
    assert server.report(second.id)[1].startswith("# items: Skipped: another run was at work\n")
    assert not server.lines(second.id, 0)


def test_a_run_that_is_ended_from_outside_is_cancelled(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(world, make_pipeline(world))

    def end(*_: Any) -> None:
        raise SystemExit(143)

    monkeypatch.setattr("tasks.checks.ask", end)

    with pytest.raises(SystemExit):
        score_in_a_flow_run("items")

    flow_run = server.last_flow_run()
    assert (flow_run.state_name, world.one("SELECT status FROM prescore.runs")["status"]) == ("Crashed", "cancelled")
    assert server.lines(flow_run.id, 2) == [("load model", "Completed"), ("check guards", "Crashed")]


def test_a_run_that_somebody_cancels_by_command_is_cancelled_on_the_page_too(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(world, make_pipeline(world))
    ask = checks.ask

    def cancelled(evidence: Any, phase: Any) -> Any:
        cancel(world.url, evidence.run.run_id, because="wrong prices", wait=0)
        return ask(evidence, phase)

    monkeypatch.setattr("tasks.checks.ask", cancelled)

    state = score_in_a_flow_run("items")

    recorded = world.one("SELECT status, message FROM prescore.runs")
    assert (state.name, state.is_cancelled(), state.message) == ("Cancelled", True, recorded["message"])
    assert recorded["status"] == "cancelled"
    assert ": wrong prices. Nothing of this run was published" in recorded["message"]
    flow_run = server.last_flow_run()
    assert flow_run.state_name == "Cancelled"
    assert "wrong prices" in server.report(flow_run.id)[1]


# A flow run in a process of its own whose model hangs; its time is up as soon as it does, and nobody is patient.
HANGING_FLOW = """
import os, time, types
from tasks import watchdog
watchdog.PATIENCE = watchdog.HEARTBEAT_SECONDS = 0.2
leap = lambda: 1e6 if os.environ.get("PRESCORE_TEST_LATE") else 0.0
watchdog.time = types.SimpleNamespace(monotonic=lambda: time.monotonic() + leap())
from flows.deployed import ScoreParameters, score
score(ScoreParameters(pipeline="items"))
"""
HANGING_MODEL_PY = """
import os, time

def preprocess(frame):
    if len(frame) >= 900:
        os.environ["PRESCORE_TEST_LATE"] = "yes"
        time.sleep(600)
    return frame
"""


@pytest.mark.slow
def test_a_flow_run_whose_process_hangs_says_so_itself_and_ends(world: World, server: Server, tmp_path: Path) -> None:
    hooked = PIPELINE_TOML.replace('changes.sql"', 'changes.sql"\npreprocess = "model.py:preprocess"')
    make_model(world, make_pipeline(world, toml=hooked, files={"model.py": HANGING_MODEL_PY}))
    api, home = os.environ["PREFECT_API_URL"], os.environ["PREFECT_HOME"]
    environment = environment_of(world, tmp_path, PREFECT_API_URL=api, PREFECT_HOME=home)

    ended = subprocess.run(
        [sys.executable, "-c", HANGING_FLOW], env=environment, capture_output=True, text=True, timeout=200, check=False
    )

    # Not a failure of the process, of which Prefect's worker would make a crash.
    assert ended.returncode == 0, ended.stderr
    assert "in preprocess" in ended.stderr
    recorded = world.one("SELECT status, message FROM prescore.runs")
    assert recorded["status"] == "failed"
    flow_run = server.last_flow_run()
    assert flow_run.state is not None
    assert (flow_run.state_name, flow_run.state.message) == ("TimedOut", recorded["message"])


def test_late_runs_of_a_schedule_are_ended_by_the_one_that_does_their_work(world: World, server: Server) -> None:
    from prefect.flow_engine import run_flow_sync
    from prefect.states import Pending

    from flows.deployed import score

    make_model(world, make_pipeline(world, "tardy", toml=PIPELINE_TOML + '\n[schedule]\nfull = "0 * * * *"\n'))
    first, begun, *waiting = sorted(server.schedule("tardy", 6), key=lambda run: run.expected_start_time or 0)
    server.client.set_flow_run_state(begun.id, Pending())

    done = run_flow_sync(score, flow_run=first, parameters=first.parameters, return_type="state")
    later = run_flow_sync(score, flow_run=begun, parameters=begun.parameters, return_type="state")

    assert done is not None
    assert "It makes up for what was due since " in str(done.message)
    assert waiting  # the scheduler makes three at once, and more in its own time
    for each in waiting:
        ended = server.ended(each.id)
        assert ended.state_name == "Skipped"
        assert f"is done by score tardy, {first.id}." in str(ended.state)
    assert later is not None
    assert later.name == "Skipped"
    assert "is done: run 1 began at " in str(later.message)
    assert world.rows("SELECT status, trigger FROM prescore.runs ORDER BY run_id") == [
        ("published", "recovery"),
        ("skipped", "recovery"),
    ]


def test_a_step_gives_prefect_neither_its_arguments_nor_its_result(server: Server) -> None:
    from prefect import flow

    lock, many = threading.Lock(), [{"secret": "hush-3b8d55"} for _ in range(100_000)]

    @step
    def inner_step(given: Any) -> Any:
        return given

    @step
    def outer_step(given: Any, *, also: Any) -> Any:
        return inner_step(given), also

    @flow(persist_result=False)
    def carry() -> bool:
        result, also = outer_step(lock, also=many)
        return result is lock and also is many

    assert carry()
    flow_run = server.last_flow_run()
    assert server.lines(flow_run.id, 2) == [("outer step", "Completed"), ("inner step", "Completed")]
    assert not server.holds("hush-3b8d55")


def test_a_run_tells_what_follows_and_an_automation_trains_that_pipeline_alone(world: World, server: Server) -> None:
    from flows.deploy import deploy

    trained = PIPELINE_TOML + '\n[schedule]\nfull = "1 1 1 1 *"\n[training]\nlabels = "labels.sql"\n'
    labels = {"labels.sql": "SELECT id, updated_at AS as_of, 1 AS label FROM public.items, run"}
    pipelines = [make_pipeline(world, name, toml=trained, files=labels) for name in ("olden", "other")]
    deploy(world.settings, None, pool="crowd", create_pool=True)
    automations = {each.name: each for each in server.automations()}
    for automation in automations.values():
        if automation.name == "prescore: score other when its schedule was missed":
            server.client.pause_automation(automation.id)
    make_model(world, pipelines[0], train_data_until=datetime.now(UTC) - timedelta(days=90))

    # The model is older than [model] fail_age: it is published, flagged, and asks for a new version.
    assert score_in_a_flow_run("olden").name == "Completed"
    deployments = {name: server.client.read_deployment_by_name(f"train/{name}") for name in ("olden", "other")}
    (run,) = eventually(lambda: server.runs_of(deployments["olden"].id))

    assert (run.created_by and run.created_by.type, run.auto_scheduled) == ("AUTOMATION", False)
    assert run.parameters == {"params": {"pipeline": "olden"}}  # nothing of promote: it is a candidate
    (told,) = eventually(lambda: server.events("olden", "prescore.retrain"))
    assert told["payload"]["followups"] == ["retrain"]
    assert "M1 model.age olden 1" in told["payload"]["checks"]

    # The next run asks as well, of the same day: that is no news. A held one is.
    score_in_a_flow_run("olden")
    world.execute("CREATE TABLE public.kept AS TABLE public.items; DELETE FROM public.items WHERE id > 10")
    assert score_in_a_flow_run("olden", full=True).name == "Failed"
    (held,) = eventually(lambda: server.events("olden", "prescore.held"))
    assert (held["payload"]["status"], held["payload"]["state"]) == ("held", "stale")
    assert "S3 population.size" in held["payload"]["checks"]
    assert len(server.events("olden", "prescore.retrain")) == 1
    assert not server.runs_of(deployments["other"].id)

    # Deployed once more: nothing twice, a pause stays; a pipeline that is gone starts nothing any more.
    again = deploy(world.settings, None, pool="crowd", create_pool=False)
    assert {each.done for each in again.deployments} == {"unchanged"}
    before = {each.id: each.enabled for each in automations.values()}
    after = {each.id: each.enabled for each in server.automations()}
    assert after.keys() == before.keys()
    assert sum(not enabled for enabled in after.values()) == 1
    shutil.rmtree(world.settings.pipelines_dir / "other")
    deploy(world.settings, None, pool="crowd", create_pool=False)
    assert {each.name for each in server.automations() if "other" in each.name} == set()
    assert {each.name for each in server.automations() if "olden" in each.name} == {
        "prescore: train olden when a run asks for it",
        "prescore: score olden when its schedule was missed",
    }


def test_prefects_page_shows_how_far_a_run_is(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

    from flows.progress import ProgressArtifact

    make_model(world, make_pipeline(world))
    # Every batch is told: here there is only one, and it is scored at once.
    monkeypatch.setattr("flows.deployed.ProgressArtifact", partial(ProgressArtifact, every=0.0))
    monkeypatch.setattr("flows.progress.LAST_WORD", DEADLINE)

    assert score_in_a_flow_run("items").name == "Completed"

    only = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[server.last_flow_run().id]),
        type=ArtifactFilterType(any_=["progress"]),
    )
    (shown,) = server.client.read_artifacts(artifact_filter=only)
    assert (shown.key, shown.data) == ("items-progress", 100.0)
    assert (shown.description or "").startswith("items: 1,000 of 1,000 rows, ")
    assert server.report(server.last_flow_run().id)[1].count("per million predictions") == 1

    # It can only be shown where the server takes it; the run does not need that.
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("the server has gone")

    monkeypatch.setattr("prefect.artifacts.create_progress_artifact", refuse)
    assert score_in_a_flow_run("items", full=True).name == "Completed"
    assert "progress could not be shown: OSError" in caplog.messages


def test_a_failure_to_send_an_event_changes_nothing_about_the_run(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError("the server has gone")

    make_model(world, make_pipeline(world), train_data_until=datetime.now(UTC) - timedelta(days=90))
    monkeypatch.setattr("flows.deployed.emit_event", refuse)

    assert score_in_a_flow_run("items").name == "Completed"
    assert server.log(server.last_flow_run().id, "event prescore.retrain could not be sent: OSError")


def test_the_commands_import_no_prefect(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path)
    make_model(world, make_pipeline(world))
    program = """
import json, sys
import flows.cli

def loaded():
    return sorted(name for name in sys.modules if name.split(".")[0] == "prefect")

found = {"import": loaded()}
for command in ("--help", "score items", "status items", "explain items", "watch items --once", "lookup items 7"):
    sys.argv = ["prescore", *command.split()]
    try:
        flows.cli.main()
    except SystemExit as ended:
        assert not ended.code, (command, ended.code)
    found[command] = loaded()
print(json.dumps(found))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PRESCORE_DATABASE_URL": database_url,
        "PRESCORE_PIPELINES": str(tmp_path),
    }

    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert len(found) == 7
    assert not any(found.values()), found


def test_the_form_of_a_manual_run_explains_every_field(world: World, server: Server) -> None:
    from pydantic import ValidationError

    from flows.deploy import deploy
    from flows.deployed import ScoreParameters, TrainParameters

    trained = PIPELINE_TOML + '\n[training]\nlabels = "labels.sql"\n'
    make_pipeline(
        world,
        "explained",
        toml=trained,
        files={"labels.sql": "SELECT id, updated_at AS as_of, 1 AS label FROM public.items, run"},
    )
    deploy(world.settings, "explained", pool="explained", create_pool=True)

    schemas = [model.model_json_schema() for model in (ScoreParameters, TrainParameters)]

    assert [schema["title"] for schema in schemas] == ["Score", "Train"]
    for schema in schemas:
        assert schema["required"] == ["pipeline"]
        assert not schema["additionalProperties"]
        assert all(field["title"] and field["description"] for field in schema["properties"].values())

    # What the page shows for one pipeline: a heading, the fields in the order of their declaration, what may be waived.
    (score, train) = (server.client.read_deployment_by_name(f"{flow}/explained") for flow in ("score", "train"))
    form = score.parameter_openapi_schema or {}
    fields = form["definitions"]["ScoreParameters"]["properties"]
    assert form["properties"]["params"]["title"] == "score/explained"
    assert sorted(fields, key=lambda name: fields[name]["position"]) == list(ScoreParameters.model_fields)
    assert "population.size" in fields["waive"]["items"]["enum"]
    assert "rows.torn" not in fields["waive"]["items"]["enum"]
    assert (score.tags, train.tags) == (["prescore", "score"], ["prescore", "train"])
    with pytest.raises(ValidationError, match=r"Waive needs your name: nothing was started\."):
        ScoreParameters(pipeline="items", waive=["population.size"], because="sold")


# Long ones ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_schedule_that_was_missed_is_made_up_for_by_a_recovery_run(world: World, server: Server) -> None:
    from prefect.flow_engine import run_flow_sync

    from flows.automations import bring_automations, remove_automations
    from flows.deploy import deploy
    from flows.deployed import score

    yearly = PIPELINE_TOML + '\n[schedule]\nfull = "1 1 1 1 *"\n'
    make_model(world, make_pipeline(world, "missed", toml=yearly))
    deploy(world.settings, "missed", pool="crowd", create_pool=True)
    there = server.client.read_deployment_by_name("score/missed")
    (planned,) = plan(world.settings, "missed").deployments
    # Ten seconds, the least that Prefect takes, in place of a year.
    soon = replace(planned, automations=(replace(planned.automations[0], absent_for=10),))
    assert bring_automations(server.client, soon, there.id)

    made = eventually(lambda: [run for run in server.runs_of(there.id) if run.created_by and not run.auto_scheduled])[0]
    remove_automations(server.client, there.id)
    ended = run_flow_sync(score, flow_run=made, parameters=made.parameters, return_type="state")

    assert ended is not None
    assert ended.name == "Completed"
    assert world.one("SELECT trigger, status, started_by FROM prescore.runs") == {
        "trigger": "recovery",
        "status": "published",
        "started_by": "automation prescore: score missed when its schedule was missed",
    }


@pytest.mark.slow
def test_prefect_yaml_and_deploy_make_the_same_automations_and_none_twice(server: Server, tmp_path: Path) -> None:
    from flows.deploy import deploy
    from tasks.settings import Settings

    shipped = Settings(
        database_url=None, pipelines_dir=REPOSITORY / "deployments" / "pipelines", data_dir=tmp_path / "data"
    )
    wanted = {each.name for deployment in plan(shipped).deployments for each in deployment.automations}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    command += ["--prefect-file", str(REPOSITORY / "deployments" / "prefect.yaml")]
    environment = {**os.environ, "PREFECT_API_URL": os.environ["PREFECT_API_URL"]}

    def names() -> list[str]:
        return sorted(each.name for each in server.automations() if each.name in wanted)

    deploy(shipped, None, pool="prescore", create_pool=True)
    assert names() == sorted(wanted)
    ids = {each.id for each in server.automations()}
    for _ in range(2):
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert names() == sorted(wanted)
    replaced = {each.id for each in server.automations()}
    assert replaced != ids  # Prefect makes them anew
    deploy(shipped, None, pool="prescore", create_pool=False)
    assert names() == sorted(wanted)
    # What Prefect made of the file is what we would have made: nothing was touched.
    assert {each.id for each in server.automations()} == replaced


EVERY_MINUTE = '[schedule]\nfull = "* * * * *"\n'


@pytest.mark.slow
def test_a_worker_runs_a_deployed_schedule_with_nobody_there(world: World, server: Server) -> None:
    from flows.deploy import deploy

    make_model(world, make_pipeline(world, "crowd", toml=PIPELINE_TOML + EVERY_MINUTE))
    deploy(world.settings, "crowd", pool="crew", create_pool=True)
    deployment = server.client.read_deployment_by_name("score/crowd")
    api = os.environ["PREFECT_API_URL"]
    environment = environment_of(
        world,
        server.home,
        PREFECT_API_URL=api,
        PREFECT_HOME=str(server.home / "worker"),
        PREFECT_WORKER_QUERY_SECONDS="1",
    )
    start = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "crew", "--limit", "1"]
    with (server.home / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            start,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # Prefect's worker tells itself to end by SIGINT, which a test run in the background ignores.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - takes no lock
        )
    try:
        published = "SELECT trigger, mode FROM prescore.runs WHERE status = 'published'"
        assert eventually(lambda: world.rows(published))[0] == ("scheduled", "full")
        ended = eventually(lambda: [run for run in server.runs_of(deployment.id) if run.state_name == "Completed"])[0]
        assert any(
            message.startswith("scored 1000 entities in ") for message in server.log(ended.id, "published generation")
        )
        assert server.report(ended.id)[0] == "crowd-report"
        assert not server.holds(password(world))
    finally:
        server.client.delete_deployment(deployment.id)
        os.killpg(worker.pid, signal.SIGTERM)
        worker.wait(timeout=60)


class Served:
    """A `prescore serve` of a test's own."""

    def __init__(self, world: World, home: Path) -> None:
        self.world, self.home, self.port = world, home, free_port()
        home.mkdir()
        self.process = start_serve(world, home, self.port)

    def said(self) -> str:
        """Return what it printed on standard error."""
        return (self.home / "stderr").read_text()

    def wait_for(self, sentence: str) -> None:
        """Wait until it said something."""
        eventually(lambda: sentence in self.said())

    def runs(self, where: str = "status = 'published'") -> int:
        """Return how many runs there are."""
        return int(self.world.rows(f"SELECT count(*) FROM prescore.runs WHERE {where}")[0][0])

    def server(self) -> int:
        """Return the process id of the server."""
        return next(pid for pid, line in family(self.process.pid).items() if "flows.server" in line)

    def deployments(self) -> set[str]:
        """Return the names of what is deployed."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/deployments/filter", b"{}", {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return {each["name"] for each in json.load(answer)}

    def end(self, number: int) -> int:
        """End it by a signal, see that nothing is left of it, and return its exit code."""
        children = family(self.process.pid)
        self.process.send_signal(number)
        code = self.process.wait(timeout=90)
        eventually(lambda: not alive(children))
        return code


@pytest.mark.slow
def test_schedules_carry_on_when_the_server_dies_and_pipelines_come_and_go(database_url: str, tmp_path: Path) -> None:
    world = make_served(database_url, tmp_path / "pipelines", "items", EVERY_MINUTE)
    make_pipeline(world, "goes")
    served = Served(world, tmp_path / "home")
    try:
        eventually(lambda: served.runs("status = 'published' AND trigger = 'scheduled'"))
        assert served.deployments() == {"items", "goes"}

        os.kill(served.server(), signal.SIGKILL)
        served.wait_for("The Prefect server has ended (exit code -9). It is started again in 1 s.")
        served.wait_for("The Prefect server answers again; schedules carry on.")
        before = served.runs()
        eventually(lambda: served.runs() > before)

        # Ctrl-C while a run is at work: the run hears of it, and so does the server.
        eventually(lambda: served.runs("status = 'running'"))
        assert served.end(signal.SIGINT) == 130
        assert served.runs("status = 'running'") == 0
        assert served.runs("status = 'failed'") == 0

        shutil.rmtree(world.settings.pipelines_dir / "goes")
        make_pipeline(world, "comes")
        before = served.runs()
        served.process = start_serve(world, served.home, served.port)
        eventually(lambda: served.runs() > before)
        assert served.deployments() == {"items", "comes"}
        assert served.end(signal.SIGTERM) == 0
    finally:
        served.process.kill()


@pytest.mark.slow
def test_nothing_is_left_when_serve_is_killed_and_the_next_one_knows(database_url: str, tmp_path: Path) -> None:
    world = make_served(database_url, tmp_path / "pipelines", "items", EVERY_MINUTE)
    served = Served(world, tmp_path / "home")
    try:
        eventually(lambda: served.runs("status = 'running'"))
        children = family(served.process.pid)
        served.process.kill()
        served.process.wait()
        eventually(lambda: not alive(children))
        assert served.runs("status = 'running'") == 0

        before = served.runs()
        served.process = start_serve(world, served.home, served.port)
        eventually(lambda: served.runs() > before)
        assert served.end(signal.SIGTERM) == 0
    finally:
        served.process.kill()
