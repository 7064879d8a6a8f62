"""Commands that only read: features, status, lookup, history. `status` and `lookup` import neither Prefect nor scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import (
    SHOWN_ENTITIES,
    AsJson,
    AsOf,
    Keys,
    PipelineName,
    instant,
    refuse_together,
    settings_now,
)

# Entities of a sample, of which 200 become golden rows and all make the profile.
SAMPLED_ENTITIES = 1_000


def features(
    pipeline: PipelineName,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="How many entities, chosen by prescore; 5, or 1,000 with --out."),
    ] = None,
    key: Keys = None,
    as_of: AsOf = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Write the rows to a Parquet file: a sample for models register."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what the feature query returns for a few entities, or write it to a file; no model is needed."""
    from flows.preview import read_features
    from flows.show import show_features

    if key:
        refuse_together("--key", **{"--limit": limit is not None})
    rows = limit or (SHOWN_ENTITIES if out is None else SAMPLED_ENTITIES)
    found = read_features(settings_now(), pipeline, limit=rows, named=key or [], as_of=instant(as_of), file=out)
    show_features(found, as_json=as_json)


def status(
    pipeline: Annotated[str | None, typer.Argument(metavar="[PIPELINE]", help="All pipelines when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is served and whether it keeps its promise; exit 3 when anything is stale, expired or overdue."""
    from flows.show import show_health
    from flows.watch import health, next_runs

    settings = settings_now()
    found = health(settings, pipeline)
    now, ticks = next_runs(settings, pipeline)
    show_health(found, now, ticks, as_json=as_json)
    raise typer.Exit(0 if all(row.well for row in found) else 3)


def explain(
    pipeline: PipelineName,
    check: Annotated[
        str | None, typer.Argument(metavar="[CHECK]", help="An id, a code such as D1, or a pattern such as 'drift.*'.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a pipeline, since when, why, what happens next and what to do; or what a check asks."""
    from flows.show import show_checks_explained, show_explanation
    from flows.watch import explain as explain_pipeline
    from flows.watch import explain_checks

    if check is None:
        show_explanation(explain_pipeline(settings_now(), pipeline), as_json=as_json)
    else:
        show_checks_explained(explain_checks(settings_now(), pipeline, check), as_json=as_json)


def lookup(
    pipeline: PipelineName,
    key: Annotated[list[str], typer.Argument(metavar="KEY...", help="The key, one value per key column.")],
    as_json: AsJson = False,
) -> None:
    """Show what an SQL reader would see for one entity; exit 3 unless the prediction may be used."""
    from flows.show import show_lookup
    from flows.watch import look_up

    row = look_up(settings_now(), pipeline, key)
    show_lookup(pipeline, row, as_json=as_json)
    raise typer.Exit(0 if row["state"] in {"fresh", "aging", "stale"} else 3)


def history(
    pipeline: PipelineName,
    key: Annotated[list[str], typer.Argument(metavar="KEY...", help="The key, one value per key column.")],
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="T", help="What they saw at this instant (ISO 8601, UTC unless it says otherwise)."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what SQL readers saw for one entity, and when; exit 3 where the history does not tell."""
    from flows.show import show_lookup, show_seen
    from flows.watch import list_seen, look_back

    when = instant(at)
    if when is None:
        show_seen(pipeline, list_seen(settings_now(), pipeline, key), as_json=as_json)
        return
    row = look_back(settings_now(), pipeline, key, when)
    show_lookup(pipeline, row, as_json=as_json)
    raise typer.Exit(3 if row["state"] == "not_kept" else 0)
