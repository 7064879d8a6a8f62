"""Commands that let Prefect run every pipeline on its schedules: serve, deploy."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flows.commands.options import AsJson, settings_now


def serve(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where Prefect's page is to be, on 127.0.0.1.")] = 4200,
    limit: Annotated[int, typer.Option(min=1, help="How many runs may be at work at once.")] = 2,
) -> None:
    """Run every pipeline on its schedules, with a Prefect server of its own on loopback, until Ctrl-C."""
    from flows.serve import serve as run_serve
    from flows.show import say, show_served

    server = os.environ.get("PREFECT_API_URL") or None
    raise typer.Exit(run_serve(settings_now(), port=port, limit=limit, told=show_served, tell=say, server=server))


def deploy(
    pipeline: Annotated[str | None, typer.Argument(metavar="[PIPELINE]", help="All pipelines when left out.")] = None,
    pool: Annotated[str, typer.Option(help="Name of a process work pool of the server.")] = "prescore",
    create_pool: Annotated[
        bool, typer.Option("--create-pool", help="Create the work pool if it is not there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put pipelines and their schedules on the Prefect server in PREFECT_API_URL, for a worker to run."""
    from flows.deploy import deploy as run_deploy
    from flows.show import show_deployed

    done = run_deploy(settings_now(), pipeline, pool=pool, create_pool=create_pool)
    show_deployed(done, as_json=as_json)
    raise typer.Exit(1 if done.broken else 0)
