"""What a person reads: numbers, spans of time, SQL with its answer, without a trace of colour where there is none."""

from __future__ import annotations

import io
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal

import pytest
from rich.console import Console
from rich.text import Text

from tasks.telling import Answer, Teller, milliseconds, share_bar, shown, span


def told(*, terminal: bool = False) -> tuple[Teller, io.StringIO]:
    written = io.StringIO()
    colours: Literal["auto", "standard"] = "standard" if terminal else "auto"
    console = Console(file=written, width=100, force_terminal=terminal, highlight=False, color_system=colours)
    return Teller(console, progress=Console(file=io.StringIO())), written


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "true"),
        (1234567, "1,234,567"),
        (0.98765, "0.9877"),
        (Decimal("1234.5"), "1,234.50"),
        (datetime(2026, 3, 1, 1, 0, tzinfo=timezone(timedelta(hours=1))), "2026-03-01 00:00:00 UTC"),
        (date(2026, 3, 1), "2026-03-01"),
        (timedelta(hours=26), "26 h 0 min"),
        (["a", None], "{a, NULL}"),
        ([], "{}"),
        ("fresh", "fresh"),
    ],
)
def test_values_are_written_as_a_person_reads_them(value: Any, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3600, "1 h 0 min"), (72 * 3600, "3 d 0 h"), (-90, "-1 min 30 s")],
)
def test_a_span_is_written_in_its_two_largest_units(seconds: int, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text


def test_short_times_keep_two_decimals_and_long_ones_turn_into_seconds() -> None:
    assert [milliseconds(s) for s in (0.00042, 0.0123, 1.26)] == ["0.42 ms", "12 ms", "1.3 s"]


def test_a_small_share_still_shows_and_nothing_shows_as_nothing() -> None:
    assert [share_bar(n, 1000, width=4) for n in (0, 1, 500, 1000)] == ["░░░░", "█░░░", "██░░", "████"]
    assert share_bar(0, 0, width=4) == "░░░░"


def test_sql_is_shown_as_sent_with_its_rows_and_keys_without_separators() -> None:
    tell, written = told()
    statement = "SELECT customer_id, state, orders\nFROM leads"
    tell.sql(
        statement, Answer(columns=("customer_id", "state", "orders"), rows=((12345, "fresh", 12345),), seconds=0.001)
    )
    text = written.getvalue()
    assert "   SELECT customer_id, state, orders\n   FROM leads\n" in text
    assert [line.split() for line in text.splitlines() if "fresh" in line] == [["12345", "fresh", "12,345"]]
    assert "(1 row in 1.00 ms)" in text


def test_into_a_pipe_goes_plain_text_without_trailing_spaces() -> None:
    tell, written = told()
    tell.title("a title", "a subtitle")
    tell.chapter("a chapter")
    tell.say("a sentence " * 30, Text("coloured", style="red"))
    tell.facts({"name": "value", "longer name": "v"})
    tell.shell("x" * 300, ("command", "remark"))
    with tell.progress("loading", 3), tell.progress("training", None):
        pass
    tell.close()
    text = written.getvalue()
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert [len(line) for line in text.splitlines() if len(line) > 100] == [303]


def test_on_a_terminal_states_have_a_colour_beside_the_word() -> None:
    tell, written = told(terminal=True)
    tell.table(("state",), [("stale",)])
    assert "\x1b[" in written.getvalue()
    assert "stale" in written.getvalue()
