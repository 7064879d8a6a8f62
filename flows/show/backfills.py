"""Backfills while they work and afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.show.parts import plain, print_json, say
from tasks.telling import narrator

if TYPE_CHECKING:
    from flows.backfill import BackfillSummary
    from tasks.backfills import Outcome


def show_instant(outcome: Outcome) -> None:
    """Say on stderr what became of an instant."""
    at = plain("as_of", outcome.as_of)
    if outcome.message:
        say(f"{at}: {outcome.ended.value}: {outcome.message}")
    else:
        say(f"{at}: {outcome.ended.value}: {outcome.population:,} entities, {outcome.rejected:,} rejected")


def show_backfill(summary: BackfillSummary, *, as_json: bool) -> None:
    """Print how many instants are there, and which are not."""
    if as_json:
        print_json(summary.as_json())
        return
    from tasks.backfills import Ended

    console = narrator()
    done, kept = (len(summary.ended(how)) for how in (Ended.DONE, Ended.KEPT))
    console.print(
        f"{done:,} of {len(summary.outcomes):,} instants of {summary.pipeline} scored, {kept:,} were there already. "
        f"They are in the view predictions.{summary.pipeline}_backfill."
    )
    for warning in summary.warnings:
        console.print(f"Warning: {warning}.", markup=False)
    missing = [*summary.ended(Ended.FAILED), *summary.ended(Ended.BUSY)]
    if missing:
        console.print(f"{len(missing):,} are missing. Give the same command again once the cause is mended:")
        for outcome in missing:
            console.print(f"  {plain('as_of', outcome.as_of)}: {outcome.message}", markup=False)
