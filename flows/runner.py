"""`python -m flows.runner LIMIT [alone]`: deploy every pipeline and run what is due, until told to end or the input closes.

It is a process of its own, so that `prescore serve` can start it again. Each flow run is one of its children.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.states import Crashed
from rich.console import Console

from flows.automations import remove_automations, remove_orphans
from flows.deploy import Deployed, open_client, put, tagged
from flows.starter import warm_up
from tasks import logs
from tasks.deployments import GUEST, Plan, plan
from tasks.errors import DeploymentRefused, PrescoreError
from tasks.settings import read_settings

#: Said where the server is ours alone: then deployments of pipelines that are gone and runs that died can be cleared.
ALONE = "alone"
# Seconds that the runs at work get to end when they are told to; Prefect kills them after 30.
PATIENCE = 45.0
#: Loggers that print tracebacks of lost connections when the server is started again; serve says that in a sentence.
_NOISE = ("prefect.FlowRunCancellingObserver", "asyncio")


class Registered(RunnerDeployment):
    """A deployment that is on the server already: the runner looks for its runs and writes nothing."""

    id: UUID

    async def aapply(self, *_: Any, **__: Any) -> UUID:
        """Return the id that it has."""
        return self.id


class End:
    """Whether somebody wants the end; while no run can be at work, asking is ending."""

    def __init__(self) -> None:
        self.asked, self.may_have_runs = threading.Event(), False

    def ask(self, *_: object) -> None:
        """Answer a signal, or the input that closed."""
        self.asked.set()
        if not self.may_have_runs:
            os._exit(0)

    def watch_input(self) -> None:
        """Ask for the end when the input closes."""
        while os.read(0, 1):
            continue
        self.ask()


def main() -> int:
    """Deploy, then run what is due."""
    logs.configure()
    end = End()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end.ask)
    threading.Thread(target=end.watch_input, name="prescore lifeline", daemon=True).start()
    for name in _NOISE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warm_up()
    try:
        with open_client() as client:
            deployed = bring(client, plan(read_settings()), alone=ALONE in sys.argv[2:])
    except PrescoreError as error:
        tell(str(error))
        return error.exit_code
    return run(deployed, int(sys.argv[1]), end)


def bring(client: SyncPrefectClient, wanted: Plan, *, alone: bool) -> list[Deployed]:
    """Put the deployments on the server, and clear what an earlier `prescore serve` left there."""
    done = []
    for deployment in wanted.deployments:
        try:
            done.append(put(client, deployment, None, guest=not alone))
        except DeploymentRefused as error:
            tell(str(error))
    if alone:
        remove_gone(client, wanted)
        end_abandoned(client, done)
    return done


def remove_gone(client: SyncPrefectClient, wanted: Plan) -> None:
    """Delete deployments whose pipeline is gone; those of a broken folder lose them too, for they cannot run."""
    known = {deployment.name for deployment in wanted.deployments}
    for name, there in tagged(client):
        if name not in known and there.work_pool_name is None and GUEST not in there.tags:
            remove_automations(client, there.id)
            with suppress(ObjectNotFound):
                client.delete_deployment(there.id)
            tell(f"{name} has no pipeline any more: its deployment was removed.")
    remove_orphans(client)


def end_abandoned(client: SyncPrefectClient, deployed: list[Deployed]) -> None:
    """Mark runs as crashed that were at work when an earlier `prescore serve` died: nobody else ever would."""
    ours = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(each.deployment_id) for each in deployed]))
    working = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
    at_work = FlowRunFilter(state=FlowRunFilterState(type=working))
    for each in client.read_flow_runs(flow_run_filter=at_work, deployment_filter=ours):
        client.set_flow_run_state(each.id, Crashed(message="Its process ended with prescore serve."), force=True)
        tell(f"{each.name} was at work when an earlier prescore serve ended: marked crashed.")


def run(deployed: list[Deployed], limit: int, end: End) -> int:
    """Start runs that are due, at most ``limit`` at once, until told to end; then tell those at work to end."""
    runner = make_runner(limit)
    failed: list[BaseException] = []

    async def work() -> None:
        for each in deployed:
            flow, _, pipeline = each.name.partition("/")
            known = Registered(name=pipeline, flow_name=flow, id=UUID(each.deployment_id))
            await runner.aadd_deployment(known)
        await runner.start(webserver=False)

    def live() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failed.append(error)
        finally:
            end.asked.set()

    end.may_have_runs = True
    # Not in the main thread: there the runner would answer SIGTERM itself, and once.
    thread = threading.Thread(target=live, name="prescore runner")
    thread.start()
    end.asked.wait()
    until = time.monotonic() + PATIENCE
    while thread.is_alive() and not runner.started and time.monotonic() < until:
        thread.join(0.1)  # it has only just begun, and cannot be told yet
    if thread.is_alive():
        with suppress(Exception):
            runner.execute_in_background(runner.astop)
        thread.join(max(0.0, until - time.monotonic()))
    if thread.is_alive() and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)  # the server did not answer, so that nobody has told the runs yet
    if failed:
        # What the system says holds paths and no secrets; other messages may hold an address with a password.
        reason = str(failed[0]) if isinstance(failed[0], OSError) else type(failed[0]).__name__
        tell(f"The runner has ended: {reason}.")
    sys.stdout.flush()
    sys.stderr.flush()
    # What may still be alive are threads of a client whose server is gone.
    os._exit(1 if failed or thread.is_alive() else 0)


def make_runner(limit: int) -> Runner:
    """Return a runner whose files lie in our own data folder.

    Prefect keeps them in one folder for all users of a machine, below the temporary one, and there only the first user
    may write.
    """
    tempfile.tempdir = str(read_settings().data_dir / "prefect")
    try:
        # Pausing on the way out would leave every schedule paused: a restart is to carry on.
        return Runner(name="prescore", limit=limit, pause_on_shutdown=False)
    finally:
        tempfile.tempdir = None


def tell(sentence: str) -> None:
    """Say something on standard error, which is that of `prescore serve`."""
    if logs.say(sentence):
        return
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"prescore: {sentence}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
