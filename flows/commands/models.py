"""`prescore models`: model versions and their aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import AsJson, instant, settings_now

models_app = typer.Typer(help="Model versions and the alias that names the current one.", no_args_is_help=True)


@models_app.command("register")
def register_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model, as in [model] name.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A .skops, .joblib or .pkl file.")
    ],
    sample: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Parquet file with rows of features.")],
    train_data_until: Annotated[
        str, typer.Option(metavar="T", help="End of the data that the model was fitted on (ISO 8601).")
    ],
    pipeline: Annotated[str | None, typer.Option(help="Pipeline that will use it, when its name is not NAME.")] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Load a pickle or joblib file, which can run any code. Recorded.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register a fitted model from a file."""
    from flows.show import show_registered
    from flows.train import register_file

    until = instant(train_data_until)
    assert until is not None
    version = register_file(
        settings_now(), name, file, sample=sample, train_data_until=until, pipeline=pipeline, trust_pickle=trust_pickle
    )
    show_registered(version, as_json=as_json)


@models_app.command("list")
def list_models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All models when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """List model versions, newest first, and the aliases that name them."""
    from flows.show import show_models
    from tasks import registry
    from tasks.database import connect, resolve_url

    with connect(resolve_url(settings_now())) as connection:
        versions = registry.list_versions(connection, name)
        current = {span for model in {v.name for v in versions} for span in registry.alias_history(connection, model)}
    show_models(versions, current, as_json=as_json)


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="A number or an alias.")] = "champion",
    as_json: AsJson = False,
) -> None:
    """Show a version: metrics, signature, environment, probes, how it is computed, and when it was champion."""
    from flows.show import show_version
    from tasks import registry
    from tasks.compiled import read_form
    from tasks.database import connect, resolve_url

    settings = settings_now()
    with connect(resolve_url(settings)) as connection:
        found = registry.find_version(connection, name, _which(version))
        history = registry.alias_history(connection, name)
    show_version(found, history, read_form(settings.compiled_dir, found.digest), as_json=as_json)


@models_app.command("promote")
def promote_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.")],
    alias: Annotated[str, typer.Option(help="Alias to move.")] = "champion",
    because: Annotated[str, typer.Option(help="Why; kept in the history of the alias.")] = "promoted by hand",
) -> None:
    """Let an alias name another version; the next run of each pipeline that uses it is full."""
    from tasks import registry
    from tasks.database import resolve_url

    moved = registry.promote_now(resolve_url(settings_now()), name, version, alias, because)
    before = "nothing" if moved.before is None else f"version {moved.before}"
    typer.echo(f"{name} {alias}: version {version} (was {before}).")


@models_app.command("rollback")
def rollback_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    alias: Annotated[str, typer.Option(help="Alias to move.")] = "champion",
    because: Annotated[str | None, typer.Option(help="Why; kept in the history of the alias.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let an alias name the version again that it named before; the next run of each pipeline that uses it is full."""
    from flows.models import roll_back
    from flows.show import show_went_back

    show_went_back(roll_back(settings_now(), name, alias=alias, because=because), as_json=as_json)


def _which(version: str) -> int | str:
    return int(version) if version.isdigit() else version


@models_app.command("remove")
def remove_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Version to remove.", min=1)],
) -> None:
    """Remove a version that nothing uses or may return to, with its bundle; refused otherwise, with what uses it."""
    from tasks import registry
    from tasks.database import resolve_url
    from tasks.space import megabytes

    size = registry.remove(resolve_url(settings_now()), name, version)
    typer.echo(f"Removed version {version} of {name} ({megabytes(size)}).")
