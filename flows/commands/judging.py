"""Commands that look back: report, replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import AsJson, PipelineName, settings_now


def report(
    pipeline: PipelineName,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Where to write it; PIPELINE-report.html when left out."),
    ] = None,
    generations: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="How many publications to look back over.")
    ] = 30,
    show_values: Annotated[
        bool,
        typer.Option("--show-values", help="Name categories and values of the training data; else they are numbered."),
    ] = False,
) -> None:
    """Write one HTML page about a pipeline: its state, what is wrong, ages, drift, coverage, metrics, checks."""
    from flows.report import report as write

    typer.echo(write(settings_now(), pipeline, out=out, generations=generations, show_values=show_values))


def replay(
    pipeline: PipelineName,
    contract: Annotated[
        Path, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="A proposed pipeline.toml.")
    ],
    days: Annotated[int, typer.Option(min=1, max=3660, metavar="N", help="How many days to look back over.")] = 90,
    as_json: AsJson = False,
) -> None:
    """Say how often a proposed contract would have warned, held and retrained, beside today's; nothing is written."""
    from flows.replay import compare
    from flows.show import show_replay

    show_replay(compare(settings_now(), pipeline, contract, days=days), as_json=as_json)
