"""Put the deployments of pipelines on a Prefect server: for a work pool (`prescore deploy`) or for `prescore serve`.

Importing this module imports Prefect.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, RRuleSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.settings import PREFECT_API_URL
from pydantic import ValidationError

from flows import deployed
from flows.automations import bring_automations, bring_undertaker, remove_automations, remove_orphans
from tasks import registration
from tasks.deployments import GUEST, TAG, Deployment, Plan, plan
from tasks.errors import DeploymentRefused, PrefectForbids, PrefectUnreachable, UsageError, WorkPoolRefused
from tasks.recurrence import Recurrence
from tasks.settings import Settings

POOL_TYPE = "process"
_FLOWS: Mapping[str, Flow[..., Any]] = {"score": deployed.score, "train": deployed.train}


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What was done about one deployment."""

    name: str
    #: created, updated or unchanged.
    done: str
    deployment_id: str
    schedules: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DeploySummary:
    """What `prescore deploy` did."""

    server: str
    pool: str
    pool_created: bool
    deployments: tuple[Deployed, ...]
    #: Folders that declare no pipeline, with everything that is wrong in them.
    broken: tuple[str, ...]
    #: Deployments of prescore in this pool whose pipeline is not here; they were left.
    unknown: tuple[str, ...]
    #: Why readers of a pipeline could not be told yet that nothing was published.
    unregistered: tuple[str, ...] = ()


def deploy(settings: Settings, name: str | None, *, pool: str, create_pool: bool) -> DeploySummary:
    """Create or update the deployments of one pipeline, or of all, on a process work pool of the server in PREFECT_API_URL.

    Raises
    ------
    UsageError
        When no server is named.
    PrefectUnreachable, PrefectForbids, WorkPoolRefused, DeploymentRefused, PipelineNotFound, PipelineInvalid
        Deployments that were made before stay.
    """
    server = PREFECT_API_URL.value()
    if not server:
        raise UsageError(
            "PREFECT_API_URL names no Prefect server. Nothing was deployed. Set it, for example to "
            "http://127.0.0.1:4200/api; or run `prescore serve`, which needs none."
        )
    wanted = plan(settings, name)
    with open_client() as client:
        created = ensure_pool(client, pool, create=create_pool)
        bring_undertaker(client)
        done = tuple(put(client, deployment, pool) for deployment in wanted.deployments)
        unknown = [] if name is not None else _strangers(client, wanted, pool)
        if name is None:
            remove_orphans(client)
    # Without an address, the database is that of the worker: its first run registers the pipelines.
    problems = []
    if settings.database_url is not None:
        found = [registration.register_ahead(settings, settings.database_url, each) for each in wanted.pipelines]
        problems = [problem for problem in found if problem]
    return DeploySummary(
        server=server,
        pool=pool,
        pool_created=created,
        deployments=done,
        broken=tuple(str(error) for error in wanted.broken),
        unknown=tuple(unknown),
        unregistered=tuple(problems),
    )


@contextmanager
def open_client() -> Iterator[SyncPrefectClient]:
    """Open a client of the server in PREFECT_API_URL.

    Raises
    ------
    PrefectUnreachable, PrefectForbids
    """
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.TransportError as error:
        raise PrefectUnreachable(str(PREFECT_API_URL.value()), type(error).__name__) from error
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise
        raise PrefectForbids(str(PREFECT_API_URL.value())) from error


def ensure_pool(client: SyncPrefectClient, name: str, *, create: bool) -> bool:
    """Make sure that there is a process work pool of this name, and return whether it was created.

    Raises
    ------
    WorkPoolRefused
    """
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        if not create:
            raise WorkPoolRefused(
                name, "is not there", f"Say --create-pool, or run `prefect work-pool create {name} --type {POOL_TYPE}`."
            ) from None
        client.create_work_pool(WorkPoolCreate(name=name, type=POOL_TYPE))
        return True
    if found.type != POOL_TYPE:
        raise WorkPoolRefused(name, f"is of type {found.type}", f"Name one of type {POOL_TYPE}.")
    return False


def put(client: SyncPrefectClient, deployment: Deployment, pool: str | None, *, guest: bool = False) -> Deployed:
    """Bring one deployment and its automations to the server; what is there as it is wanted is not touched, pauses included.

    ``pool`` None makes a deployment for `prescore serve`, ``guest`` one for a serve on the server of somebody else.

    Raises
    ------
    DeploymentRefused
        When somebody else's has its name, it belongs to a work pool, or the server refuses it.
    """
    there = find(client, deployment.name)
    if there is not None:
        _require_ours(deployment, there, pool, guest=guest)
    try:
        schedules = _schedules(deployment, there, datetime.now(UTC))
        fields = _fields(deployment, pool, guest=guest)
        if there is not None and _same(there, fields, schedules):
            done, deployment_id = "unchanged", there.id
        else:
            flow_id = client.create_flow_from_name(deployment.flow)
            deployment_id = client.create_deployment(
                flow_id=flow_id, name=deployment.pipeline, schedules=schedules, **fields
            )
            done = "created" if there is None else "updated"
        if bring_automations(client, deployment, deployment_id) and done == "unchanged":
            done = "updated"
    except (httpx.HTTPStatusError, ValidationError) as error:
        raise DeploymentRefused(deployment.name, _reason(error), "Correct [schedule] in its pipeline.toml.") from error
    return Deployed(
        name=deployment.name,
        done=done,
        deployment_id=str(deployment_id),
        schedules=tuple(f"{each.slug}: {each.cron} ({each.timezone})" for each in deployment.schedules),
    )


def _require_ours(deployment: Deployment, there: DeploymentResponse, pool: str | None, *, guest: bool) -> None:
    """Refuse to change what somebody else deployed, or what somebody else would run with us."""
    delete = f"delete it with `prefect deployment delete {deployment.name}`."
    if TAG not in there.tags:
        raise DeploymentRefused(deployment.name, f"there is one without the tag {TAG}", "Rename or delete that one.")
    if pool is None and there.work_pool_name is not None:
        belongs = f"it belongs to the work pool {there.work_pool_name}"
        raise DeploymentRefused(deployment.name, belongs, f"Let its worker run it, or {delete}")
    if guest and GUEST not in there.tags:
        raise DeploymentRefused(
            deployment.name, "the prescore serve of that server runs it", f"Rename one, or {delete}"
        )


def find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    """Return a deployment by its name, or None."""
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def tagged(client: SyncPrefectClient) -> list[tuple[str, DeploymentResponse]]:
    """Return every deployment that prescore put on the server, with its name."""
    filtered = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(deployment_filter=filtered, limit=200, offset=len(found)):
        found += page
    flows = {each.flow_id for each in found}
    names = {flow_id: client.read_flow(flow_id).name for flow_id in flows}
    return [(f"{names[each.flow_id]}/{each.name}", each) for each in found]


def _strangers(client: SyncPrefectClient, wanted: Plan, pool: str) -> list[str]:
    """Return what is in the pool without a pipeline here, without the automations that would start it."""
    known = {deployment.name for deployment in wanted.deployments} | {
        f"{flow}/{error.pipeline}" for error in wanted.broken for flow in _FLOWS
    }
    found = {name: there.id for name, there in tagged(client) if name not in known and there.work_pool_name == pool}
    for deployment_id in found.values():
        remove_automations(client, deployment_id)
    return sorted(found)


def _schedules(
    deployment: Deployment, there: DeploymentResponse | None, since: datetime
) -> list[DeploymentScheduleCreate]:
    """Return the schedules to be; one that somebody paused on the page stays paused while it has its slug."""
    paused = {each.slug for each in there.schedules if not each.active} if there is not None else set()
    return [
        DeploymentScheduleCreate(
            slug=slug,
            schedule=_schedule(recurrence),
            parameters=dict(each.parameters),
            # What belongs to another one rests with it.
            active=not paused & {slug, each.slug},
        )
        for each in deployment.schedules
        for slug, recurrence in each.fires(since)
    ]


def _schedule(recurrence: Recurrence) -> CronSchedule | RRuleSchedule:
    if recurrence.rule is not None:
        return RRuleSchedule(rrule=recurrence.rule, timezone=recurrence.timezone)
    assert recurrence.cron is not None
    return CronSchedule(cron=recurrence.cron, timezone=recurrence.timezone)


def _fields(deployment: Deployment, pool: str | None, *, guest: bool) -> dict[str, Any]:
    # No concurrency limit of Prefect: its slots are leases in the server's memory, and after a reboot that kills worker
    # and server nothing frees them, so that CANCEL_NEW cancels every later run. The lock of the run, which dies with its
    # connection, is what keeps two runs apart, also of two deployments or of somebody's command line.
    fields: dict[str, Any] = {
        "entrypoint": deployment.entrypoint,
        "path": None,
        "description": deployment.description,
        # The name of the flow as well: the page lists deployments by the name of the pipeline alone.
        "tags": [TAG, deployment.flow, *([GUEST] if guest else [])],
        "parameters": deployment.parameters,
        "parameter_openapi_schema": parameter_schema(deployment),
        "enforce_parameter_schema": True,
    }
    # Nothing is pulled: prescore is installed where the run takes place, and its environment is that of the worker.
    # Job variables would be stored and shown by the server, and so are no place for the address of a database.
    return fields if pool is None else fields | {"work_pool_name": pool, "pull_steps": [], "job_variables": {}}


def parameter_schema(deployment: Deployment) -> dict[str, Any]:
    """Return what a run may be given, as the server checks it before there is a run.

    It is given this pipeline and no other, and may waive what [manual] of this pipeline allows.
    """
    schema: dict[str, Any] = copy.deepcopy(_FLOWS[deployment.flow].parameters.model_dump())
    # The heading of the form. Its fields come in the order in which they are declared: a server on PostgreSQL forgets that.
    schema["properties"]["params"]["title"] = deployment.name
    for definition in schema["definitions"].values():
        for position, described in enumerate(definition["properties"].values()):
            described["position"] = position
        named = definition["properties"].get("pipeline")
        if named is not None:
            named |= {"enum": [deployment.pipeline], "default": deployment.pipeline}
        waived = definition["properties"].get("waive")
        if waived is not None:
            several = {"maxItems": 0} if not deployment.waivable else {"uniqueItems": True}
            choices = {"items": {"type": "string", "enum": list(deployment.waivable)}} if deployment.waivable else {}
            waived |= several | choices
    return schema


def _same(there: DeploymentResponse, fields: Mapping[str, Any], schedules: Sequence[DeploymentScheduleCreate]) -> bool:
    found = {name: getattr(there, name) for name in fields}
    wanted = dict(fields)
    for values in (found, wanted):
        values["pull_steps"] = values.get("pull_steps") or []
        values["description"] = values["description"] or ""
        values["tags"] = sorted(values["tags"])
    return found == wanted and _shape(there.schedules) == _shape(schedules)


def _shape(schedules: Sequence[Any]) -> list[tuple[Any, ...]]:
    return sorted(
        (
            each.slug or "",
            getattr(each.schedule, "cron", None),
            getattr(each.schedule, "rrule", None),
            getattr(each.schedule, "timezone", None),
            bool(each.active),
            repr(sorted((each.parameters or {}).get("params", {}).items())),
        )
        for each in schedules
    )


def _reason(error: httpx.HTTPStatusError | ValidationError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(str(each["msg"]) for each in error.errors())
    return f"the server answers {error.response.status_code}: {error.response.text[:500]}"
