"""How a long command tells a person what happens: headings, sentences, SQL with its result, a table of facts.

Everything is text first: colour only repeats what the words say, and into a pipe or file goes plain text, 100 wide.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

WIDTH = 100
_INDENT = (0, 0, 0, 3)

#: Colours of the reader's states; the word stands beside them in any case.
STATE_STYLES: Mapping[str, str] = {
    "fresh": "bold green",
    "aging": "bold yellow",
    "stale": "bold dark_orange",
    "expired": "bold red",
    "missing": "dim",
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a query returned and how long the client waited for it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    seconds: float


def narrator() -> Console:
    """Return the console for results: standard output, at most 100 columns wide."""
    return _bounded(Console(highlight=False, soft_wrap=False))


def _bounded(console: Console) -> Console:
    if not console.is_terminal or console.width > WIDTH:
        console.width = WIDTH
    return console


class Teller:
    """Writes a story: results on one console, progress on another (standard error)."""

    def __init__(self, console: Console | None = None, progress: Console | None = None) -> None:
        self.console = narrator() if console is None else console
        self._progress = Console(stderr=True, highlight=False) if progress is None else progress
        self._chapter = 0
        self._after_blank = False

    def _write(self, *parts: Any, **options: Any) -> None:
        """Print; into a pipe or file without the spaces that fill up a line."""
        self._after_blank = False
        if self.console.is_terminal:
            self.console.print(*parts, **options)
            return
        with self.console.capture() as written:
            self.console.print(*parts, **options)
        lines = written.get().split("\n")
        self.console.file.write("\n".join(line.rstrip() for line in lines))

    def blank(self) -> None:
        """Leave one line empty, however often it is asked for."""
        if not self._after_blank:
            self._write()
        self._after_blank = True

    def title(self, title: str, subtitle: str) -> None:
        """Begin the story."""
        self.blank()
        self._write(Rule(Text(title, style="bold cyan"), characters="━", style="cyan"))
        self._write(Text(subtitle, style="italic"), justify="center")

    def chapter(self, heading: str) -> None:
        """Begin a numbered chapter."""
        self._chapter += 1
        self.blank()
        self._write(Text.assemble((f"{self._chapter}  ", "bold cyan"), (heading, "bold")))

    def say(self, *sentences: str | Text, style: str = "") -> None:
        """Write a paragraph, indented below its heading."""
        paragraph = Text(" ", style=style).join(Text(s) if isinstance(s, str) else s for s in sentences)
        self._write(Padding(paragraph, _INDENT, expand=False))

    def facts(self, facts: Mapping[str, str | Text]) -> None:
        """Write names and values below each other."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for name, value in facts.items():
            table.add_row(name, value)
        self._write(Padding(table, _INDENT, expand=False))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write rows as a table; numbers to the right."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False)
        for position, name in enumerate(columns):
            table.add_column(name, justify="right" if _all_numbers(rows, position) else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(name, value) for name, value in zip(columns, row, strict=True)))
        self._write(Padding(table, _INDENT, expand=False))

    def sql(self, statement: str, answer: Answer | None = None, *, upright: bool = False) -> None:
        """Write a statement as it was sent, and its answer: rows as a table, or one row upright, a line per column."""
        self.blank()
        code = Syntax(statement, "sql", theme="ansi_dark", background_color="default", word_wrap=True)
        self._write(Padding(code, _INDENT, expand=False))
        self.blank()
        if answer is None:
            return
        if upright:
            for row in answer.rows:
                self.facts({name: _cell(name, value) for name, value in zip(answer.columns, row, strict=True)})
        else:
            self.table(answer.columns, answer.rows)
        noun = "row" if len(answer.rows) == 1 else "rows"
        self.say(f"({len(answer.rows):,} {noun} in {milliseconds(answer.seconds)})", style="dim")
        self.blank()

    def shell(self, *commands: str | tuple[str, str]) -> None:
        """Write commands to copy, each unbroken on a line of its own, with a remark behind it if it has one."""
        prefix = "uv run " if os.environ.get("UV_RUN_RECURSION_DEPTH") else ""
        lines = [(c, "") if isinstance(c, str) else (prefix + c[0], f"  # {c[1]}") for c in commands]
        wide = max((len(command) for command, remark in lines if remark), default=0)
        self.blank()
        for command, remark in lines:
            text = Text.assemble("   ", (f"{command:<{wide}}" if remark else command, "bold"), (remark, "dim"))
            self._write(text, soft_wrap=True)
        self.blank()

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Progress]:
        """Show on standard error that something is being done: a bar, or without a ``total`` a spinner.

        The bar has one task, ``bar.task_ids[0]``. Into a pipe or file nothing is written.
        """
        counted = (BarColumn(bar_width=36), MofNCompleteColumn()) if total is not None else (SpinnerColumn(),)
        bar = Progress(
            TextColumn("   {task.description}"),
            *counted,
            TimeElapsedColumn(),
            console=self._progress,
            transient=self._progress.is_terminal,
            disable=not self._progress.is_terminal,
        )
        with bar:
            bar.add_task(label, total=total)
            yield bar

    def close(self) -> None:
        """End the story with a line."""
        self._write(Rule(characters="━", style="cyan"))


def started(trigger: str, by: str | None) -> str:
    """Return what started a run, with who or what that was where it is known: ``manual (anna)``, ``scheduled (full)``."""
    return f"{trigger} ({by.removeprefix('schedule ')})" if by else trigger


def shown(value: Any) -> str:
    """Return a value as a person reads it: NULL, thousands separators, times in UTC."""
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        return "{" + ", ".join(shown(item) for item in value) + "}"
    return next((write(value) for kind, write in _WRITTEN.items() if isinstance(value, kind)), str(value))


def span(length: timedelta) -> str:
    """Return a length of time in its two largest units: '3 d 2 h', '26 h 0 min', '4 min 10 s'."""
    seconds = int(abs(length).total_seconds())
    sign = "-" if length < timedelta(0) else ""
    if seconds >= 72 * 3600:
        return f"{sign}{seconds // 86400} d {seconds % 86400 // 3600} h"
    if seconds >= 3600:
        return f"{sign}{seconds // 3600} h {seconds % 3600 // 60} min"
    if seconds >= 60:
        return f"{sign}{seconds // 60} min {seconds % 60} s"
    return f"{sign}{seconds} s"


def share_bar(part: int, whole: int, width: int = 12) -> str:
    """Return a share as a bar: '█░░░░░░░░░░░'; anything above nothing shows."""
    filled = min(width, max(round(part / whole * width), 1 if part else 0)) if whole else 0
    return "█" * filled + "░" * (width - filled)


def milliseconds(seconds: float) -> str:
    """Return a short time: '0.41 ms', '12 ms', '1.3 s'."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.2f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


# bool before int and datetime before date: the first that fits is taken.
_WRITTEN: dict[type, Callable[[Any], str]] = {
    bool: lambda value: str(value).lower(),
    int: lambda value: f"{value:,}",
    float: lambda value: f"{value:,.4f}",
    Decimal: lambda value: f"{value:,.2f}",
    datetime: lambda value: f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
    date: lambda value: value.isoformat(),
    timedelta: span,
}


def state_text(state: str) -> Text:
    """Return a reader's state in its colour."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def _cell(column: str, value: Any) -> str | Text:
    """Return a value for its column: a number that identifies something has no thousands separators."""
    if isinstance(value, Text):
        return value
    if isinstance(value, int) and (column.endswith("_id") or column in ("scored_in", "model_version")):
        return str(value)
    return state_text(value) if column == "state" and value is not None else shown(value)


def _all_numbers(rows: Sequence[Sequence[Any]], position: int) -> bool:
    values = [row[position] for row in rows if row[position] not in (None, "")]
    return bool(values) and all(isinstance(v, int | float | Decimal) and not isinstance(v, bool) for v in values)
