"""Commands that start a run, end one, or undo one: train, score, cancel, rollback, resume, quarantine."""

from __future__ import annotations

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
from tasks.errors import UsageError
from tasks.settings import os_user


def train(
    pipeline: PipelineName,
    as_of: AsOf = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Make the new version the champion even when there is one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit the pipeline's model on its labels, evaluate it on the latest slice of time, register a version."""
    from flows.show import show_training
    from flows.train import train as run_train

    show_training(run_train(settings_now(), pipeline, as_of=instant(as_of), promote=promote), as_json=as_json)


def score(
    pipeline: PipelineName,
    full: Annotated[
        bool, typer.Option("--full", help="Score every entity, not only new, changed and due ones.")
    ] = False,
    as_of: AsOf = None,
    trigger: Annotated[
        str, typer.Option(help="scheduled for cron or systemd, recovery for a run that makes up for missed ones.")
    ] = "manual",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show features and predictions of a few entities; nothing is written.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, max=1000, help="With --dry-run: how many entities, chosen by prescore; 5.")
    ] = None,
    key: Keys = None,
    waive: Annotated[
        list[str] | None,
        typer.Option(
            "--waive",
            metavar="CHECK",
            help="Publish although this check fails: an id, a pattern such as drift.*, or volume; again for each further one.",
        ),
    ] = None,
    because: Annotated[
        str, typer.Option("--because", metavar="TEXT", help="With --waive: why, in a sentence that readers are told.")
    ] = "",
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Show no progress; there is none either with --json or without a terminal."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score what needs a prediction and publish the result atomically."""
    if dry_run:
        refuse_together(
            "--dry-run", **{"--full": full, "--trigger": trigger != "manual", "--waive": bool(waive or because)}
        )
        _preview(pipeline, limit, key or [], as_of, as_json=as_json)
        return
    if limit is not None or key:
        raise UsageError(
            "--limit and --key belong to --dry-run. Nothing was started. Add --dry-run, or leave them out."
        )
    from flows.score import score as run_score
    from flows.show import RunProgress, show_run
    from tasks.runs import Trigger
    from tasks.watchdog import exit_at_once

    if trigger not in {"manual", "scheduled", "recovery"}:
        raise UsageError(f"--trigger is {trigger!r}. Nothing was started. Say manual, scheduled or recovery.")
    settings = settings_now()
    with RunProgress(pipeline, quiet=quiet or as_json) as progress:
        summary = run_score(
            settings,
            pipeline,
            full=full,
            as_of=instant(as_of),
            trigger=Trigger(trigger),
            waive=waive or (),
            because=because,
            started_by=os_user(),
            watcher=progress,
            end_process=exit_at_once,
        )
    show_run(summary, as_json=as_json)
    raise typer.Exit(summary.exit_code)


def _preview(pipeline: str, limit: int | None, key: list[str], as_of: str | None, *, as_json: bool) -> None:
    from flows.preview import preview_run
    from flows.show import show_preview

    if key:
        refuse_together("--key", **{"--limit": limit is not None})
    found = preview_run(settings_now(), pipeline, limit=limit or SHOWN_ENTITIES, named=key, as_of=instant(as_of))
    show_preview(found, as_json=as_json)


def cancel(
    run: Annotated[int, typer.Argument(metavar="RUN", help="Id of a run at work, as `prescore status` shows it.")],
    because: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why, in a sentence that its record keeps.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="End its connections at once, for a run whose process does not answer.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait until it has ended.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Ask a run to end, wherever it runs: nothing of it is published, and its lock is free; exit 3 while it has not."""
    from flows.show import show_cancellation
    from tasks.database import resolve_url
    from tasks.endings import cancel as end

    done = end(resolve_url(settings_now()), run, because=because, force=force, wait=wait)
    show_cancellation(done, as_json=as_json)
    raise typer.Exit(0 if done.ended else 3)


def rollback(pipeline: PipelineName, as_json: AsJson = False) -> None:
    """Return to the previous publication at once, and refuse runs until `prescore resume`."""
    from flows.show import show_rollback
    from tasks.database import resolve_url
    from tasks.rollback import rollback as roll_back

    show_rollback(roll_back(resolve_url(settings_now()), pipeline), as_json=as_json)


def resume(pipeline: PipelineName) -> None:
    """Welcome runs again after a rollback."""
    from tasks.database import resolve_url
    from tasks.rollback import resume as unpin

    if unpin(resolve_url(settings_now()), pipeline):
        typer.echo(f"{pipeline} runs again.")
    else:
        typer.echo(f"{pipeline} was not pinned.")


def quarantine(
    pipeline: PipelineName,
    generation: Annotated[int, typer.Argument(metavar="GENERATION", help="The bad generation: scored_in of its rows.")],
    because: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What is wrong; readers see it. Needed, but for --release.")
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="Take the quarantine back: its rows may be used after all.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hide a generation that turned out bad from readers at once; the next run mends it."""
    from flows.show import show_quarantine, show_release
    from tasks import quarantine as quarantines
    from tasks.database import resolve_url

    url = resolve_url(settings_now())
    if release:
        show_release(quarantines.release(url, pipeline, generation, because), as_json=as_json)
    elif because is None:
        raise UsageError(
            '--because is missing. Nothing was changed. Say what is wrong: --because "prices of May are in cents".'
        )
    else:
        show_quarantine(quarantines.quarantine(url, pipeline, generation, because), as_json=as_json)
