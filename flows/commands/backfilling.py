"""`prescore backfill`: score past instants."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import AsJson, PipelineName, refuse_together, settings_now
from tasks.errors import UsageError


def backfill(
    pipeline: PipelineName,
    since: Annotated[
        str,
        typer.Option("--from", metavar="DATE", help="First day, or instant (ISO 8601, in the zone of the schedule)."),
    ],
    until: Annotated[str, typer.Option("--to", metavar="DATE", help="Last day, which counts, or last instant.")],
    every: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="An instant every so often; left out: when the full schedule fires, or 1d."
        ),
    ] = None,
    model_version: Annotated[
        int | None, typer.Option(help="Score with this version; left out: with what the alias names now.")
    ] = None,
    as_then: Annotated[
        bool, typer.Option("--as-then", help="Score each instant with the version that the alias named then.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many instants are scored at once.")] = 1,
    shuffle: Annotated[
        bool,
        typer.Option("--shuffle", help="In a random order, so that what is there early is spread over the whole time."),
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Score anew what is done already.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score past instants with point-in-time features; what readers are served stays as it is. Exit 1 unless all are there."""
    from flows.backfill import backfill as run_backfill
    from flows.backfill import choose_instants
    from flows.show import show_backfill, show_instant
    from tasks.fields import parse_duration, positive
    from tasks.pipeline import find_pipeline

    if as_then:
        refuse_together("--as-then", **{"--model-version": model_version is not None})
    try:
        step = None if every is None else positive(parse_duration(every))
    except ValueError as error:
        raise UsageError(f"--every: {error}. Nothing was started.") from None
    settings = settings_now()
    summary = run_backfill(
        settings,
        pipeline,
        choose_instants(find_pipeline(settings, pipeline), since, until, step),
        version=model_version,
        as_then=as_then,
        again=again,
        workers=workers,
        shuffle=shuffle,
        told=show_instant,
    )
    show_backfill(summary, as_json=as_json)
    raise typer.Exit(summary.exit_code)
