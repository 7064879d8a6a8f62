"""Runs while they work and afterwards, and what a reader sees of what they published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flows.show.parts import plain, print_facts, print_findings, print_json
from tasks.costs import RunCost, describe_cost
from tasks.endings import Cancellation
from tasks.progress import Pacer
from tasks.settings import wants_json_logs
from tasks.telling import narrator, shown, started, state_text

if TYPE_CHECKING:
    from flows.score import RunSummary
    from tasks.lookup import Seen
    from tasks.rollback import RolledBack

#: The step that streams; its stages work at once.
SCORING = "score"

#: What has to happen next, in words.
_NEXT = {
    "refresh_source": "load the source",
    "rescore": "score again",
    "retrain": "train a new version of the model",
    "investigate": "find out why",
}


class RunProgress:
    """A progress line on stderr while a run works: rows done, rows per second, time left.

    Silent where stderr is no terminal, and where nobody wants it (``quiet``).
    """

    def __init__(self, pipeline: str, *, quiet: bool = False, console: Console | None = None) -> None:
        console = Console(stderr=True) if console is None else console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal or wants_json_logs(),
        )
        self._pipeline, self._pacer = pipeline, Pacer()
        self._task = self._progress.add_task(f"{pipeline}: take the lock", total=None, pace="")

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str) -> None:
        """A step of the run begins."""
        self._pacer.begin()
        self._progress.update(self._task, description=f"{self._pipeline}: {name}", completed=0, total=None, pace="")

    def rows(self, done: int, total: int) -> None:
        """So many rows of so many were scored."""
        self._progress.update(self._task, completed=done, total=total, pace=self._pacer.at(done, total).describe())


def show_run(summary: RunSummary, *, as_json: bool) -> None:
    """Print what a run did."""
    if as_json:
        print_json(summary.as_json())
        return
    console = narrator()
    console.print(Text(f"{summary.pipeline}: {summary.message}", style="bold"))
    why = f" ({summary.because})" if summary.because else ""
    facts = [
        ("run", f"{summary.run_id}, {started(summary.trigger.value, summary.started_by)}, {summary.mode.value}{why}"),
        ("as of", shown(summary.as_of) if summary.as_of else ""),
        ("model", f"{summary.model} {summary.model_version}" if summary.model else ""),
        (
            "population",
            f"{summary.population:,} = {summary.scored:,} scored + {summary.unchanged:,} unchanged + {summary.rejected:,} rejected"
            if summary.rows_per_second is not None
            else f"{summary.population:,}",
        ),
        ("selected", f"{summary.new:,} new, {summary.changed:,} changed, {summary.due:,} due; {summary.gone:,} gone"),
        ("speed", f"{summary.rows_per_second:,.0f} rows/s" if summary.rows_per_second else ""),
        ("took", f"{summary.seconds:.1f} s, peak memory {summary.peak_memory / 1e6:,.0f} MB"),
        ("cost", describe_cost(summary.cost) if summary.cost else ""),
        ("next", ", ".join(_NEXT[followup] for followup in summary.followups)),
        ("good until", f"aging {shown(summary.aging_at)}, stale {shown(summary.stale_at)}" if summary.aging_at else ""),
    ]
    print_facts(console, [(name, text) for name, text in facts if text])
    if summary.cost is not None:
        _print_steps(console, summary.cost)
    print_findings(console, summary.findings)


def _print_steps(console: Console, cost: RunCost) -> None:
    """Print seconds and CPU seconds of each step, and of what worked at once while entities were scored."""
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    table.add_column("step")
    for heading in ("seconds", "CPU of Python", "CPU of PostgreSQL"):
        table.add_column(heading, justify="right")
    for step in cost.steps:
        postgres = "" if step.postgres_cpu_seconds is None else f"{step.postgres_cpu_seconds:,.2f}"
        table.add_row(Text(step.step), f"{step.seconds:,.2f}", f"{step.cpu_seconds:,.2f}", postgres)
        if step.step == SCORING:
            for name, stage in cost.stages.items():
                table.add_row(
                    Text(f"  {name}", style="dim"), f"{stage['seconds']:,.2f}", f"{stage['cpu_seconds']:,.2f}"
                )
    console.print(table)


def show_cancellation(done: Cancellation, *, as_json: bool) -> None:
    """Print what became of a request to end a run."""
    if as_json:
        print_json({**asdict(done), "ended": done.ended})
        return
    text = (
        f"Run {done.run_id} of {done.pipeline} has ended ({done.status}). {done.message}"
        if done.ended
        else f"Run {done.run_id} of {done.pipeline} was asked to end and has not answered yet. It cannot publish any more. "
        f"Wait for it, or end its connections: `prescore cancel {done.run_id} --force`."
    )
    narrator().print(text, soft_wrap=True, markup=False)


def show_rollback(done: RolledBack, *, as_json: bool) -> None:
    """Print what a rollback returned to, and what it undid."""
    if as_json:
        print_json(done)
        return
    undone = ", ".join(str(generation) for generation in done.undone) or "none"
    console = narrator()
    console.print(
        f"{done.pipeline} serves generation {done.generation_id} again (model {done.model} {done.model_version}). "
        f"Undone generations: {undone}. Runs are refused until `prescore resume {done.pipeline}`.",
        soft_wrap=True,
        markup=False,
    )


def show_lookup(pipeline: str, row: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what an SQL reader sees for one entity."""
    if as_json:
        print_json(row)
        return
    console = narrator()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in row.items():
        table.add_row(name, state_text(value) if name == "state" else plain(name, value))
    console.print(table)


def show_seen(pipeline: str, seen: Sequence[Seen], *, as_json: bool) -> None:
    """Print what readers saw for one entity, stretch by stretch, oldest first."""
    if as_json:
        print_json({"pipeline": pipeline, "seen": seen})
        return
    console = narrator()
    if not seen:
        console.print("Readers saw nothing of this entity as far as the history reaches.")
        return
    left_out = {
        "data_as_of",
        "aging_at",
        "stale_at",
        "expires_at",
        "verdict",
        "serve_expired",
        "published_data_as_of",
        "reasons",
    }
    columns = [name for name in seen[0].row if name not in left_out]
    table = Table(box=None, pad_edge=False)
    for name in ("seen_from", "seen_until", *columns):
        table.add_column(name, overflow="fold")
    for stretch in seen:
        until = "now" if stretch.seen_until is None else plain("seen_until", stretch.seen_until)
        values = (plain(name, stretch.row[name]) for name in columns)
        table.add_row(plain("seen_from", stretch.seen_from), until, *values)
    console.print(table)
