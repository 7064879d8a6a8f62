"""Commands about who may know what: forget."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.commands.options import AsJson, PipelineName, refuse_together, settings_now


def forget(
    pipeline: PipelineName,
    key: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY...", help="The key, one value per key column; - reads one value a line from standard input."
        ),
    ],
    release: Annotated[
        bool, typer.Option("--release", help="Let the entity in again; the next run scores it if it is an entity.")
    ] = False,
    rewrite: Annotated[
        bool,
        typer.Option("--rewrite", help="Write the tables that held it anew, so that no remnant is left; readers wait."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove one entity from everything that is kept of a pipeline, and keep it out of every later run."""
    from flows.show import show_erasure, show_readmission
    from tasks import erasure
    from tasks.database import resolve_url

    values = sys.stdin.read().splitlines() if key == ["-"] else key
    url = resolve_url(settings_now())
    if release:
        refuse_together("--release", **{"--rewrite": rewrite})
        show_readmission(erasure.release(url, pipeline, values), as_json=as_json)
        return
    try:
        show_erasure(erasure.forget(url, pipeline, values, rewrite=rewrite), as_json=as_json)
    except erasure.NotErased as error:
        show_erasure(error.erasure, as_json=as_json)
        raise
