"""Commands for the life of a pipeline: outputs that come and go, another name, the end; and waiting for a publication."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import AsJson, PipelineName, instant, settings_now
from tasks.errors import UsageError

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def drop(pipeline: PipelineName, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a pipeline from the database, after showing what goes with it; its name can be used anew."""
    from flows.remains import remaining_deployments
    from flows.show.life import show_removal, show_removed
    from tasks.database import resolve_url
    from tasks.removal import plan_removal, remove

    url = resolve_url(settings_now())
    if not yes:
        plan = plan_removal(url, pipeline)
        show_removal(plan, as_json=as_json)
        if not plan.known:
            return
        if plan.dependents:
            raise typer.Exit(1)
        _confirm(f"Remove {pipeline}?", as_json=as_json)
    removed = remove(url, pipeline)
    show_removed(removed, remaining_deployments(pipeline) if removed.known else [], as_json=as_json)


def outputs(
    pipeline: PipelineName,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it: give readers the outputs that are declared, in one transaction.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what readers would gain and lose with the outputs that are declared now; with --apply, do it."""
    from flows.outputs import outputs as compare_outputs
    from flows.show.life import show_reshaping

    told = compare_outputs(settings_now(), pipeline, apply=apply)
    show_reshaping(told, as_json=as_json)
    if not apply and (told.key or told.dependents):
        raise typer.Exit(1)


def rename(
    pipeline: PipelineName,
    new_name: Annotated[str, typer.Argument(metavar="NEW_NAME", help="What it is called from now on.")],
    keep_old_name: Annotated[
        bool, typer.Option("--keep-old-name", help="Let views and a lookup of the old name go on answering.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give a pipeline another name, with all that is its own and its folder; what others built on it follows."""
    from flows.remains import remaining_deployments
    from flows.show.life import show_renamed
    from tasks.database import resolve_url
    from tasks.renaming import rename as give_name

    settings = settings_now()
    done = give_name(settings, resolve_url(settings), pipeline, new_name, keep_old_name=keep_old_name)
    show_renamed(done, remaining_deployments(pipeline), as_json=as_json)


def wait(
    pipeline: PipelineName,
    newer_than: Annotated[
        str | None,
        typer.Option(
            "--newer-than",
            metavar="T",
            help="Until what is served rests on data later than this instant (ISO 8601, UTC unless it says otherwise); "
            "without it: until it is fresh or aging.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="Give up after so long, with exit code 3; 3600.")
    ] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Wait for a publication: exit 0 once it is there, 3 when the time is over."""
    from flows.show.life import show_waited
    from tasks.database import resolve_url
    from tasks.waiting import wait_for

    waited = wait_for(resolve_url(settings_now()), pipeline, newer_than=instant(newer_than), seconds=timeout)
    show_waited(waited, as_json=as_json)
    raise typer.Exit(0 if waited.there else 3)


def _confirm(question: str, *, as_json: bool) -> None:
    """Ask on stderr, and end without having changed anything unless the answer is yes."""
    if as_json:
        raise UsageError("--json asks nothing. Nothing was changed. Say --yes as well to have it done.")
    if not typer.confirm(question, err=True):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(1)
