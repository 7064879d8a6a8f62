"""A proposed contract beside today's, over the same runs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from flows.show.parts import print_json
from tasks.telling import narrator, shown, span

if TYPE_CHECKING:
    from flows.replay import Alarms, Comparison

# Days that are named in a cell; the further ones are counted.
_NAMED = 4


def show_replay(found: Comparison, *, as_json: bool) -> None:
    """Print how often each contract warned, held and asked for a new model, and where they differ."""
    if as_json:
        print_json(found)
        return
    console = narrator()
    stretch = f"{found.runs} runs from {found.since:%Y-%m-%d} to {found.until:%Y-%m-%d}"
    console.print(
        Text(f"{found.pipeline}: {stretch}, judged again under {found.contract}", style="bold"), soft_wrap=True
    )
    console.print(_runs(found))
    console.print(_checks(found))
    told = f"Today's contract gives {found.reproduced:,} of {found.answers:,} answers of its own runs again."
    if not found.answers:
        told = "No run was judged under today's contract yet, so nothing says how well this reproduces runs."
    console.print(told, soft_wrap=True)
    if found.left:
        console.print(f"As they answered then: {', '.join(found.left)}.", soft_wrap=True)
    for reason in found.not_judged:
        console.print(Text(f"Cannot be judged: {reason}."), soft_wrap=True)
    console.print("Nothing was written.")


def _runs(found: Comparison) -> Table:
    today, proposed = found.today, found.proposed
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("today", "proposed"):
        table.add_column(name, justify="right")
    table.add_column("days, proposed")
    lines = [
        ("runs that published", today.published, proposed.published, ""),
        ("  of these flagged", today.flagged, proposed.flagged, ""),
        ("runs held", today.held, proposed.held, _named(proposed.days_held)),
        ("runs aborted", today.aborted, proposed.aborted, ""),
        ("runs that would have gone on", today.open, proposed.open, "what came then is not known"),
        ("runs that ended otherwise", today.ended_otherwise, proposed.ended_otherwise, ""),
        ("runs that asked for retraining", today.retrain, proposed.retrain, _named(proposed.days_retrain)),
    ]
    for name, ours, theirs, days in lines:
        if ours or theirs or name in {"runs that published", "runs held", "runs that asked for retraining"}:
            table.add_row(name, shown(ours), shown(theirs), days if theirs else "")
    for state in dict.fromkeys((*today.states, *proposed.states)):
        lengths = [side.states.get(state) for side in (today, proposed)]
        table.add_row(f"readers saw {state}", *("-" if length is None else span(length) for length in lengths), "")
    return table


def _checks(found: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("check", no_wrap=True)
    table.add_column("today\nwarned / failed", justify="right")
    table.add_column("proposed\nwarned / failed", justify="right")
    table.add_column("days, proposed")
    today, proposed = found.today.checks, found.proposed.checks
    for check_id in sorted({*today, *proposed}):
        theirs = proposed.get(check_id)
        table.add_row(
            check_id, _counts(today.get(check_id)), _counts(theirs), "" if theirs is None else _named(theirs.days)
        )
    if not table.rows:
        table.add_row("none alarmed", "", "", "")
    return table


def _counts(alarms: Alarms | None) -> str:
    return "-" if alarms is None else f"{alarms.warned} / {alarms.failed}"


def _named(days: Iterable[date]) -> str:
    """Return days, stretches of consecutive ones as such: 2026-03-01 to 03-04, 2026-03-09."""
    stretches: list[list[date]] = []
    for day in days:
        if stretches and (day - stretches[-1][-1]).days == 1:
            stretches[-1] = [stretches[-1][0], day]
        else:
            stretches.append([day])
    told = [each[0].isoformat() + (f" to {each[-1]:%m-%d}" if len(each) > 1 else "") for each in stretches]
    further = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return ", ".join(told[:_NAMED]) + further
