"""Late flow runs: after an outage one makes up for all of them, and the others end without a process of their own.

Importing this module imports Prefect.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext
from prefect.states import Completed

from tasks.deployments import is_full

logger = logging.getLogger("prescore.late")


def collapse_late_runs() -> None:
    """End the runs of this deployment that should have begun before now and have not: this one does their work.

    An incremental run does not do that of a full one; where one of those is late as well, nothing is ended.
    """
    context = FlowRunContext.get()
    made = None if context is None else context.flow_run
    if made is None or not made.auto_scheduled or made.deployment_id is None or made.run_count > 1:
        return
    try:
        with get_client(sync_client=True) as client:
            waiting = _waiting(client, made.deployment_id)
            if any(is_of_full_schedule(each) for each in waiting) and not is_of_full_schedule(made):
                return
            for each in waiting:
                due = f"{each.expected_start_time:%Y-%m-%d %H:%M:%S} UTC"
                message = f"What was due at {due} is done by {made.name}, {made.id}."
                client.set_flow_run_state(each.id, Completed(name="Skipped", message=message), force=True)
    except Exception as error:  # they will begin, and find that there is nothing to do
        logger.warning("late runs could not be ended: %s", type(error).__name__)


def _waiting(client: SyncPrefectClient, deployment_id: UUID) -> list[FlowRun]:
    late = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"before_": datetime.now(UTC)}),
    )
    of_deployment = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    found: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_run_filter=late, deployment_filter=of_deployment, limit=200, offset=len(found)
    ):
        found += page
    return [each for each in found if each.auto_scheduled]


def due_at() -> datetime | None:
    """Return the tick that this run was made for; None for one that a person started, also for a second time."""
    context = FlowRunContext.get()
    made = None if context is None else context.flow_run
    if made is None or not made.auto_scheduled or made.run_count > 1:
        return None
    return made.expected_start_time


def is_of_full_schedule(made: FlowRun) -> bool:
    """Say whether a schedule of full runs made a flow run."""
    if not made.auto_scheduled or made.created_by is None:
        return False
    return is_full(made.created_by.display_value or "")
