"""Commands about who may know what: forget, grant."""

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


def grant(
    pipelines: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PIPELINE...]", help="All pipelines, and those to come, when left out."),
    ] = None,
    reader: Annotated[
        list[str] | None, typer.Option("--reader", metavar="ROLE", help="May read predictions and health; repeatable.")
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option("--operator", metavar="ROLE", help="May also roll back, quarantine and see the runs; repeatable."),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option("--scorer", metavar="ROLE", help="Owns prescore's schemas and reads the sources.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the statements only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give roles what reading, operating or scoring needs, and nothing else; print the statements."""
    from flows.show import show_granted
    from tasks import roles
    from tasks.database import resolve_source_url, resolve_url
    from tasks.pipeline import find_pipeline, pipeline_names

    settings = settings_now()
    url = resolve_url(settings)
    names = pipelines or (pipeline_names(settings.pipelines_dir) if scorer else [])
    wanted = roles.Wanted(
        readers=tuple(reader or ()), operators=tuple(operator or ()), scorer=scorer, pipelines=tuple(pipelines or ())
    )
    declared = [find_pipeline(settings, name) for name in names] if scorer else []
    apart = resolve_source_url(settings, url) != url
    show_granted(roles.grant(url, wanted, declared, apart=apart, dry=dry_run), as_json=as_json)
