"""`prescore watch`: a look from outside, for cron, systemd or a container of its own. It imports next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import settings_now

if TYPE_CHECKING:
    from tasks.alarms import Alarm


def watch(
    pipeline: Annotated[str | None, typer.Argument(metavar="[PIPELINE]", help="All pipelines when left out.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and exit, for cron and systemd timers.")] = False,
    every: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Without --once: look again so often.")] = 60,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Post what is wrong to this address, as JSON.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Run this shell command with what is wrong on its input, as JSON."),
    ] = None,
) -> None:
    """Say what is wrong, to somebody who is not looking: needs SELECT on prescore.pipeline_health and nothing else; exit 0 or 3."""
    from flows.alarm import Watch, watch_on, watch_once

    settings = settings_now()
    found = Watch(settings=settings, pipeline=pipeline, webhook=webhook, command=run, tell=_tell, warn=_warn)
    if once:
        raise typer.Exit(watch_once(found))
    watch_on(found, every)


def _tell(alarm: Alarm) -> None:
    for line in alarm.lines or ["Everything is well again."]:
        typer.echo(line)


def _warn(sentence: str) -> None:
    typer.echo(f"prescore: {sentence}", err=True)
