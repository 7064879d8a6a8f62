"""Commands to start with: the example, a folder for a pipeline, and whether it is right."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import AsJson, settings_now


def demo(
    customers: Annotated[
        int, typer.Option(min=200, max=5_000_000, help="How many customers the example shop has.")
    ] = 50_000,
) -> None:
    """Show the main job on an example shop: train, score, look up, a day passes, score again, go stale."""
    from flows.demo import run_demo

    run_demo(settings_now(), customers=customers)


def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the pipeline, and of the view that readers read.")
    ],
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="COLUMN", help="Key column; again for each further one."),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA.TABLE", help="Fill the queries in with the columns and the primary key of a table."
        ),
    ] = None,
) -> None:
    """Write a commented folder for a new pipeline to start from."""
    from flows.show import show_created
    from tasks.database import connect, resolve_source_url, resolve_url
    from tasks.settings import folder_for_new
    from tasks.template import create_folder, describe_table

    directory, own = folder_for_new(), None
    if table is not None:
        settings = settings_now()
        source_url = settings.source_url and resolve_source_url(settings, "")
        with connect(source_url or resolve_url(settings)) as connection:
            own = describe_table(connection, table)
    show_created(create_folder(directory, name, key or (), own), filled_in=own is not None)


def check(
    pipeline: Annotated[str | None, typer.Argument(metavar="[PIPELINE]", help="All pipelines when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Validate declarations against the database and say what a run would do; nothing is written."""
    from flows.check import check as run_check
    from flows.show import show_checks

    reports = run_check(settings_now(), pipeline)
    show_checks(reports, as_json=as_json)
    raise typer.Exit(1 if any(report.errors for report in reports) else 0)
