"""`prescore watch` and `metrics`: a look from outside, for cron, systemd or a container of its own. They import next to nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import settings_now
from tasks import logs
from tasks.errors import UsageError

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


def metrics(
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write to this file, as a whole or not at all."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="openmetrics, or prometheus for what cannot read that; without it a file *.prom gets the latter.",
        ),
    ] = None,
    count_rows: Annotated[
        bool,
        typer.Option("--count-rows", help="Count the rows of each pipeline by their state: reads all of them."),
    ] = False,
) -> None:
    """Write health as numbers for a scraper, in OpenMetrics text; exit 1 with prescore_up 0 when nothing can be read."""
    from tasks.metrics import FORMATS, form_of, read, replace_file, write

    if form is not None and form not in FORMATS:
        raise UsageError(f"--format is {form!r}. Nothing was written. Say {' or '.join(FORMATS)}.")
    reading = read(settings_now(), count_rows=count_rows)
    text = write(reading, form or form_of(output))
    if output is None:
        typer.echo(text, nl=False)
    else:
        replace_file(output, text)
    if not reading.up:
        _warn(reading.problem)
        raise typer.Exit(1)


def _tell(alarm: Alarm) -> None:
    for line in alarm.lines or ["Everything is well again."]:
        typer.echo(line)


def _warn(sentence: str) -> None:
    if logs.say(sentence, level=logging.WARNING):
        return
    typer.echo(f"prescore: {sentence}", err=True)
