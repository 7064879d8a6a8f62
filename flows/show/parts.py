"""What all of them are made of: JSON as programs read it, facts, findings, messages."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks import logs
from tasks.findings import Finding, Verdict
from tasks.telling import shown


def as_program(value: Any) -> Any:
    """Return a value as JSON holds it: times in UTC ISO 8601, durations in seconds, sums as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_program(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): as_program(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_program(item) for item in value]
    return scalar(value)


def scalar(value: Any) -> Any:  # noqa: PLR0911 - one case a line
    match value:
        case Enum():
            return value.value
        case datetime():
            return value.astimezone(UTC).isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case float() if not math.isfinite(value):
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[
                str(value)
            ]  # as PostgreSQL's to_json has them
        case date():
            return value.isoformat()
        case None | bool() | int() | float() | str():
            return value
    return str(value)


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(as_program(value), ensure_ascii=False) + "\n")


def say(sentence: str) -> None:
    """Say on stderr what happens."""
    if logs.say(sentence):
        return
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"prescore: {sentence}", markup=False)


def print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for name, text in facts:
        table.add_row(Text(name, style="dim"), Text(text))
    console.print(table)


def print_findings(console: Console, findings: Iterable[Finding]) -> None:
    """Print what people are told: what it counts as, the check, the reason, and what it is where that differs."""
    for finding in findings:
        if not finding.noteworthy:
            continue
        word = "unknown" if finding.verdict is Verdict.UNKNOWN else finding.effective.value
        style = {"warn": "yellow", "fail": "red"}.get(word, "magenta")
        note = f" ({finding.note})" if finding.note else ""
        console.print(
            Text.assemble((f"  {word:8}", style), f"{finding.label} ({finding.code}): {finding.reason}{note}")
        )


def told(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings as programs read them."""
    return [finding.as_json() for finding in findings]


def plain(name: str, value: Any) -> str:
    """Return a looked-up value: whole numbers as they are, since keys and ids are no quantities."""
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else shown(value)
