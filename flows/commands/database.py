"""`prescore database`, the embedded PostgreSQL, and `prescore migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import duration, settings_now
from tasks.errors import UsageError
from tasks.settings import Settings

database_app = typer.Typer(
    help="The embedded PostgreSQL, used when PRESCORE_DATABASE_URL is unset.", no_args_is_help=True
)


def migrate(
    wait: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Let runs at work end first, for so long (10m); no other begins meanwhile."
        ),
    ] = None,
) -> None:
    """Bring the schema of the database up to date; refused while runs are at work, and runs are refused while it works."""
    from tasks import migrations
    from tasks.embedded import ensure_running

    settings = settings_now()
    patience = duration("--wait", wait)
    url = settings.database_url or ensure_running(settings.data_dir)
    applied = migrations.apply(url, wait=patience, tell=lambda sentence: typer.echo(f"prescore: {sentence}", err=True))
    for name in applied:
        typer.echo(f"applied {name}")
    typer.echo("The schema is up to date.")


@database_app.command("start")
def start_database() -> None:
    """Start the embedded PostgreSQL, and migrate it."""
    from tasks import migrations
    from tasks.database import describe_url
    from tasks.embedded import ensure_running

    url = ensure_running(_embedded().data_dir)
    migrations.apply(url)
    typer.echo(f"Running: {describe_url(url)}. `prescore database url` prints the address, password and all.")


@database_app.command("stop")
def stop_database() -> None:
    """Stop the embedded PostgreSQL; its data stays."""
    from tasks.embedded import stop

    typer.echo("Stopped." if stop(_embedded().data_dir) else "It was not running.")


@database_app.command("url")
def database_url() -> None:
    """Print the address of the database, with its password: psql "$(prescore database url)"."""
    from tasks.database import libpq_url, resolve_url

    typer.echo(libpq_url(resolve_url(settings_now())))


def _embedded() -> Settings:
    settings = settings_now()
    if settings.database_url is not None:
        raise UsageError(
            "PRESCORE_DATABASE_URL names another database. Nothing was changed. Unset it to work with the embedded PostgreSQL."
        )
    return settings
