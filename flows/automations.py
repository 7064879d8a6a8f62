"""The automations of deployments on a Prefect server: what starts training when a run asks for it, and what makes up for
missed schedules. `prefect deploy` makes the same from the ``triggers`` of prefect.yaml. And one for all deployments: what
marks runs as crashed whose worker is gone.

Importing this module imports Prefect.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events import DeploymentEventTrigger, EventTrigger, Posture, ResourceSpecification
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound

from tasks.deployments import AUTOMATION, TAG, Deployment

#: Its name on the page.
UNDERTAKER = f"{AUTOMATION}mark runs as crashed whose worker is gone"
#: Three times as long as Prefect leaves between two signs of life (PREFECT_FLOWS_HEARTBEAT_FREQUENCY, 180 s), and a minute.
SILENCE = timedelta(minutes=10)

# What the server fills in, or numbers anew with every update.
_OF_SERVER = {"id", "type", "for_each", "after", "match_related", "job_variables"}


def bring_undertaker(client: SyncPrefectClient, silence: timedelta = SILENCE) -> bool:
    """Let the server mark runs of prescore as crashed that show no life for so long, and say whether that is news to it.

    When a worker is stopped or its machine goes down, nobody else tells the server that its runs are over: they would be
    "Running" for ever. prescore's own records do not need it: the next run finds out by the lock.
    """
    trigger = EventTrigger(
        posture=Posture.Proactive,
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        match_related=ResourceSpecification(
            {"prefect.resource.role": ["tag"], "prefect.resource.id": [f"prefect.tag.{TAG}"]}
        ),
        for_each={"prefect.resource.id"},
        threshold=1,
        within=silence,
    )
    crash = ChangeFlowRunState(
        name=None,
        force=False,
        state=StateType.CRASHED,
        message="No sign of life: its worker was stopped, or its machine went down. prescore's own record says how far it came.",
    )
    wanted = AutomationCore(
        name=UNDERTAKER,
        description="Prefect's server does not notice by itself when a worker is gone with its runs.",
        trigger=trigger,
        actions=[crash],
    )
    known = [each for each in _all_automations(client) if each.name == UNDERTAKER]
    return _put(client, wanted, known[0] if known else None)


def bring_automations(client: SyncPrefectClient, deployment: Deployment, deployment_id: UUID) -> bool:
    """Bring the automations of a deployment to the server, remove those it has no longer, and say whether any changed.

    One that is as it is wanted is not touched: what it counts, and whether somebody paused it, stay.
    """
    there: dict[str, list[Automation]] = {}
    for each in client.read_resource_related_automations(_resource(deployment_id)):
        if each.name.startswith(AUTOMATION):
            there.setdefault(each.name, []).append(each)
    changed = False
    for wanted in (_automation(deployment_id, automation.spec) for automation in deployment.automations):
        known = there.pop(wanted.name, [])
        changed |= _put(client, wanted, known[0] if known else None) or len(known) > 1
        _delete(client, known[1:])
    gone = [each for automations in there.values() for each in automations]
    _delete(client, gone)
    return changed or bool(gone)


def remove_automations(client: SyncPrefectClient, deployment_id: UUID) -> None:
    """Remove the automations of prescore that start a deployment."""
    related = client.read_resource_related_automations(_resource(deployment_id))
    _delete(client, [each for each in related if each.name.startswith(AUTOMATION)])


def remove_orphans(client: SyncPrefectClient) -> list[str]:
    """Remove automations of prescore whose deployment is not there any more, and return their names."""
    gone = [
        each
        for each in _all_automations(client)
        if each.name.startswith(AUTOMATION) and not any(_exists(client, action) for action in each.actions)
    ]
    _delete(client, gone)
    return sorted(each.name for each in gone)


def _all_automations(client: SyncPrefectClient) -> list[Automation]:
    """Return every automation; the client's own call returns a page of them."""
    found: list[Automation] = []
    while True:
        body = {"sort": "CREATED_DESC", "limit": 200, "offset": len(found)}
        page = client.request("POST", "/automations/filter", json=body).raise_for_status().json()
        found += Automation.model_validate_list(page)
        if len(page) < 200:
            return found


def _automation(deployment_id: UUID, spec: dict[str, Any]) -> AutomationCore:
    """Return what `prefect deploy` would make of a trigger in prefect.yaml."""
    trigger = DeploymentEventTrigger.model_validate(spec)
    trigger.set_deployment_id(deployment_id)
    return trigger.as_automation()


def _put(client: SyncPrefectClient, wanted: AutomationCore, known: Automation | None) -> bool:
    if known is None:
        client.create_automation(wanted)
        return True
    if _shape(known) == _shape(wanted):
        return False
    # A pause on the page stays. The owner is none of the fields that an update may hold.
    values = wanted.model_dump(exclude={"owner_resource"}) | {"enabled": known.enabled}
    client.update_automation(known.id, AutomationCore.model_validate(values))
    return True


def _shape(automation: AutomationCore) -> Any:
    dumped = automation.model_dump(mode="json")
    return _without({name: dumped[name] for name in ("description", "trigger", "actions")})


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(item) for name, item in value.items() if name not in _OF_SERVER}
    if isinstance(value, list):
        return sorted((_without(item) for item in value), key=repr)
    return value


def _exists(client: SyncPrefectClient, action: Any) -> bool:
    if not isinstance(action, RunDeployment) or action.deployment_id is None:
        return True
    try:
        client.read_deployment(action.deployment_id)
    except ObjectNotFound:
        return False
    return True


def _delete(client: SyncPrefectClient, automations: list[Automation]) -> None:
    for each in automations:
        with suppress(ObjectNotFound):
            client.delete_automation(each.id)


def _resource(deployment_id: UUID) -> str:
    return f"prefect.deployment.{deployment_id}"
