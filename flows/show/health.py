"""What is served, what is wrong with it, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.show.parts import print_facts, print_json
from tasks.explanation import Tick
from tasks.health import PipelineHealth, Problem, problems
from tasks.telling import narrator, span, state_text

# Narrower than this, every pipeline is a block of lines: a table would cut its words apart.
_TABLE_WIDTH = 96
# Reasons of checks that are shown of one pipeline; prescore explain has all.
_SHOWN_REASONS = 5


def show_health(
    found: Sequence[PipelineHealth], now: datetime, ticks: Mapping[str, Sequence[Tick]], *, as_json: bool
) -> None:
    """Print a row for each pipeline, and below what is wrong and what to do."""
    if as_json:
        print_json({"pipelines": [_told(row, ticks.get(row.pipeline, ())) for row in found]})
        return
    console = narrator()
    if not found:
        console.print("No pipeline has run in this database yet.")
        return
    if console.width >= _TABLE_WIDTH:
        console.print(_table(found, now, ticks))
    else:
        for row in found:
            console.print(Text(row.pipeline, style="bold"))
            print_facts(console, _facts(row, now, ticks.get(row.pipeline, ())))
    for row in found:
        print_problems(console, row)


def print_problems(console: Console, health: PipelineHealth) -> None:
    """Print what is wrong with a pipeline and what to do; nothing when there is nothing to say."""
    found = problems(health)
    if not found:
        return
    console.print(Text.assemble((health.pipeline, "bold"), "" if health.well else " is not well:"))
    for problem in found:
        print_problem(console, problem)
        if problem.code == "flagged":
            for reason in health.reasons[:_SHOWN_REASONS]:
                console.print(Text(f"    {reason}"), soft_wrap=True)
            if len(health.reasons) > _SHOWN_REASONS:
                more = len(health.reasons) - _SHOWN_REASONS
                console.print(Text(f"    and {more} more: prescore explain {health.pipeline}"), soft_wrap=True)


def print_problem(console: Console, problem: Problem) -> None:
    """Print one problem: ``!`` before what breaks a promise, ``-`` before what is worth knowing."""
    mark, style = ("!", "bold red") if problem.wrong else ("-", "yellow")
    console.print(Text.assemble((f"  {mark} ", style), problem.text), soft_wrap=True)
    console.print(Text(f"    What to do: {problem.remedy}"), soft_wrap=True)


def what_next(ticks: Sequence[Tick], now: datetime) -> str:
    """Return which run comes next and when, in words."""
    if not ticks:
        return "nothing is scheduled"
    return f"{ticks[0].mode} run {short(ticks[0].at)} (in {span(ticks[0].at - now)})"


def short(instant: datetime | None) -> str:
    """Return an instant to the minute, in UTC, as narrow as a table needs it."""
    return "" if instant is None else f"{instant.astimezone(UTC):%m-%d %H:%M}"


def _told(row: PipelineHealth, ticks: Sequence[Tick]) -> dict[str, Any]:
    told = {**asdict(row), "well": row.well, "good_until": row.good_until}
    told["problems"] = [asdict(problem) for problem in problems(row)]
    told["next_runs"] = [asdict(tick) for tick in ticks]
    return told


def _table(found: Sequence[PipelineHealth], now: datetime, ticks: Mapping[str, Sequence[Tick]]) -> Table:
    table = Table(
        box=None, padding=(0, 1, 1, 0), pad_edge=False, header_style="dim", title="times in UTC", title_style="dim"
    )
    table.title_justify = "left"
    for name, width in (
        ("pipeline", 14),
        ("state", 11),
        ("data age", 9),
        ("good until", 11),
        ("scheduled", 11),
        ("last run", 11),
        ("what is wrong", 13),
        ("next run", 11),
    ):
        table.add_column(name, min_width=width, overflow="fold", no_wrap=False)
    for row in found:
        cells = _cells(row, now, ticks.get(row.pipeline, ()))
        table.add_row(row.pipeline, _state(row), *cells)
    return table


def _state(row: PipelineHealth) -> Text:
    since = f"\n{short(row.state_since)}" if row.state_since is not None else ""
    return Text.assemble(state_text(row.state), (since, "dim"))


def _cells(row: PipelineHealth, now: datetime, ticks: Sequence[Tick]) -> list[str]:
    wrong = ", ".join(problem.short for problem in problems(row)) or "nothing"
    following = f"{short(ticks[0].at)}\n{ticks[0].mode}" if ticks else "none"
    return [
        "" if row.age is None else span(row.age),
        short(row.good_until),
        _run(row.last_scheduled_run_at, row.last_scheduled_status, ""),
        _run(row.last_run_at, _last_status(row), _trigger(row)),
        wrong,
        "refused" if row.pinned else following,
    ]


def _run(begun: datetime | None, status: str | None, trigger: str) -> str:
    if begun is None:
        return "never"
    return f"{short(begun)}\n{status}" + (f"\n{trigger}" if trigger not in {"", "scheduled"} else "")


def _last_status(row: PipelineHealth) -> str | None:
    """Return how the last run ended; of one at work also its id, which `prescore cancel` takes."""
    return f"running: {row.last_run_id}" if row.last_run_status == "running" else row.last_run_status


def _trigger(row: PipelineHealth) -> str:
    by = f"\nby {row.last_run_started_by}" if row.last_run_trigger == "manual" and row.last_run_started_by else ""
    return f"{row.last_run_trigger or ''}{by}"


def _facts(row: PipelineHealth, now: datetime, ticks: Sequence[Tick]) -> list[tuple[str, str]]:
    since = f" since {short(row.state_since)}" if row.state_since is not None else ""
    facts = [
        ("state", row.state + since),
        ("data age", "" if row.age is None else span(row.age)),
        ("good until", short(row.good_until)),
        ("overdue", f"since {short(row.overdue_since)}" if row.overdue else "no"),
        ("scheduled run", _run(row.last_scheduled_run_at, row.last_scheduled_status, "").replace("\n", ", ")),
        ("last run", _run(row.last_run_at, _last_status(row), _trigger(row)).replace("\n", ", ")),
        ("wrong", ", ".join(problem.short for problem in problems(row)) or "nothing"),
        ("next run", "refused" if row.pinned else what_next(ticks, now)),
        ("model", model(row)),
    ]
    return [(name, text) for name, text in facts if text]


def model(row: PipelineHealth) -> str:
    """Return the version that is served; its model is named where that is not what everybody expects."""
    if row.model is None:
        return ""
    named = "" if row.model == row.pipeline else f"{row.model} "
    return f"{named}version {row.model_version}" + (", another pending" if row.model_pending else "")
