"""What runs when under Prefect."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from flows.show.parts import print_json
from tasks.telling import narrator, shown

if TYPE_CHECKING:
    from flows.deploy import DeploySummary
    from tasks.deployments import Plan


def show_served(plan: Plan, page: str, home: Path | None) -> None:
    """Print where the page is, and which pipeline runs when."""
    console, now = narrator(), datetime.now(UTC)
    if home is None:
        console.print(f"On the server that PREFECT_API_URL names; none is started: {page}", soft_wrap=True)
    else:
        console.print(f"Prefect's page, in a few seconds: {page}", soft_wrap=True)
        console.print(f"Its files and log: {home}", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("deployment", "schedule", "cron", "time zone", "next run"):
        table.add_column(name)
    for deployment in plan.deployments:
        if not deployment.schedules:
            table.add_row(deployment.name, "", "", "", "when somebody starts it")
        for planned in deployment.schedules:
            table.add_row(deployment.name, planned.slug, planned.cron, planned.timezone, shown(planned.next_tick(now)))
    console.print(table)
    console.print("Ctrl-C ends it.")


def show_deployed(done: DeploySummary, *, as_json: bool) -> None:
    """Print what `deploy` did, a line each, and the command that runs it."""
    if as_json:
        print_json(done)
    console = narrator()
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    for problem in done.broken:
        errors.print(f"prescore: {problem}", markup=False)
    for problem in done.unregistered:
        errors.print(f"prescore: {problem}", markup=False)
    if as_json:
        return
    console.print(
        f"On {done.server}, work pool {done.pool}{' (created)' if done.pool_created else ''}:", soft_wrap=True
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for each in done.deployments:
        table.add_row(each.name, each.done, "; ".join(each.schedules) or "no schedule")
    console.print(table)
    for name in done.unknown:
        console.print(
            f"{name} has no pipeline here and was left. Remove it with `prefect deployment delete {name}`.",
            soft_wrap=True,
        )
    console.print(f"A worker runs them: prefect worker start --limit 2 --pool {done.pool}", soft_wrap=True)
