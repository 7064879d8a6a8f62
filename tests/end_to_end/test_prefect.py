"""The scoring flow on a real Prefect server: one line a step, the same end as a plain run, no secret anywhere."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.error import URLError
from uuid import UUID

import pytest
from sqlalchemy.engine import make_url

from tasks.errors import ModelNotFound
from tasks.runs import hold_lock
from tasks.steps import step
from tests.factories import World, make_model, make_pipeline, make_world

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

# One worker starts the one server.
pytestmark = pytest.mark.xdist_group("prefect")

REPOSITORY = Path(__file__).parents[2]
STEPS = ["load model", "check guards", "select population", "check population", "score entities", "check rows"]
DEADLINE = 120.0

# `prefect server start` that also ends with the process that started it, however that ends: its input closes.
START = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
runpy.run_module("prefect", run_name="__main__", alter_sys=True)
"""

T = TypeVar("T")


def eventually(look: Callable[[], T | None]) -> T:
    """Return what ``look`` finds as soon as it finds something: records arrive at the server in their own time."""
    until = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < until, f"nothing within {DEADLINE:.0f} s"
        time.sleep(0.1)
    return found


@dataclass(frozen=True)
class Server:
    """A Prefect server of this module's own, and what it has recorded."""

    home: Path
    environment: dict[str, str]
    client: SyncPrefectClient

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
            schedules=[DeploymentScheduleCreate(schedule=every_hour, active=True)],
        )
        span = {"start_time": start.isoformat(), "end_time": datetime.now(UTC).isoformat(), "max_runs": count}
        answer = self.client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment_id}, json=span)
        answer.raise_for_status()
        only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
        found = self.client.read_flow_runs(deployment_filter=only)
        return [run for run in found if (run.expected_start_time or start) < datetime.now(UTC)][:count]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on loopback with everything it writes in a temporary folder; it calls nobody."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | ours
    start = [sys.executable, "-c", START, "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            start, env=environment, cwd=home, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
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
                PREFECT_HOME: home,
                PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False,
                PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # each flow run waits a second for it
            }

            def answers() -> bool:
                assert process.poll() is None, (home / "server.log").read_text()
                with suppress(URLError, ConnectionError, TimeoutError):
                    return bool(urllib.request.urlopen(f"{ours['PREFECT_API_URL']}/health", timeout=5).status == 200)
                return False

            eventually(answers)
            with temporary_settings(settings), get_client(sync_client=True) as client:
                yield Server(home=home, environment=environment, client=client)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.communicate()


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


def password(world: World) -> str:
    """Return the password in the address of the database."""
    found = make_url(world.url).password
    assert found, "without a password there is nothing to look for"
    return str(found)


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
    assert flow_run.parameters["params"] == {
        "pipeline": "items",
        "full": False,
        "as_of": as_of.isoformat().replace("+00:00", "Z"),
    }
    assert server.lines(flow_run.id, len(STEPS)) == [(name, "Completed") for name in STEPS]
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

    runs = world.rows("SELECT status, trigger FROM prescore.runs ORDER BY run_id")
    assert runs == [("published", "scheduled"), ("skipped", "scheduled")]
    assert published is not None
    assert published.name == "Completed"
    assert server.lines(first.id, len(STEPS)) == [(name, "Completed") for name in STEPS]
    assert skipped is not None
    assert (skipped.is_completed(), skipped.name) == (True, "Skipped")
    assert server.client.read_flow_run(second.id).state_name == "Skipped"
    assert "is being run already" in str(skipped.message)
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


def test_the_commands_import_no_prefect(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path)
    make_model(world, make_pipeline(world))
    program = """
import json, sys
import flows.cli

def loaded():
    return sorted(name for name in sys.modules if name.split(".")[0] == "prefect")

found = {"import": loaded()}
for command in ("--help", "score items", "status items", "lookup items 7"):
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
    assert len(found) == 5
    assert not any(found.values()), found


def test_the_form_of_a_manual_run_explains_every_field(server: Server) -> None:
    from flows.deployed import ScoreParameters, TrainParameters

    schemas = [model.model_json_schema() for model in (ScoreParameters, TrainParameters)]

    assert [schema["title"] for schema in schemas] == ["Score", "Train"]
    for schema in schemas:
        assert schema["required"] == ["pipeline"]
        assert not schema["additionalProperties"]
        assert all(field["title"] and field["description"] for field in schema["properties"].values())
