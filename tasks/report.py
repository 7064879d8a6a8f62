"""The report of a run in Markdown: how it ended, the ledger, the verdicts of all checks, where the time went.

It is made of what is stored, so that it says the same wherever the run took place, and it holds neither keys nor
features nor secrets: messages and reasons never do.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks.costs import RunCost, describe_cost, shown_seconds
from tasks.database import connect, one, rows
from tasks.health import PipelineHealth
from tasks.stopwatch import StepTiming
from tasks.telling import shown, started

if TYPE_CHECKING:
    from tasks.page import Picture

#: Publications that the charts look back over.
PICTURED = 14
#: A check that passes for more subjects than this is told in one line.
FEW_SUBJECTS = 3

# A run without a verdict of this check has not compared what it wrote with what it read.
_LEDGER_CHECK = "rows.torn"
_LEDGER_SAYS = {"pass": "the checksum of the keys agrees", "fail": "**the checksum of the keys or the count differs**"}
_HEADINGS = {
    "published": "Published",
    "held": "Held: not published",
    "aborted": "Aborted: not published",
    "failed": "Failed: not published",
    "skipped": "Skipped: another run was at work",
}


@dataclass(frozen=True, kw_only=True)
class CheckLine:
    """One check of a run, as it is stored."""

    check_id: str
    code: str
    subject: str
    verdict: str
    #: What the verdict counts as.
    effective: str
    waived: bool = False
    followups: Sequence[str] = ()
    reason: str
    #: Why it counts as something else than it is; NULL where it does not.
    note: str | None = None

    @property
    def quiet(self) -> bool:
        """Whether it says nothing that anybody has to know."""
        return self.verdict in {"pass", "skipped"} and self.effective in {"pass", "skipped"} and not self.waived

    @property
    def told(self) -> str:
        """The verdict as the report has it: bold when it alarms, with what it counts as where that differs."""
        bold = self.verdict in {"fail", "warn", "unknown"} or self.effective in {"fail", "warn"}
        words = f"**{self.verdict}**" if bold else self.verdict
        words += f", counts as {self.effective}" if self.effective != self.verdict else ""
        return words + (", waived" if self.waived else "")


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """What prescore.runs holds of a run, with the promise of its publication. Times are UTC, memory is in bytes."""

    run_id: int
    pipeline: str
    status: str
    trigger: str
    mode: str
    as_of: datetime | None
    message: str | None
    model: str | None
    model_version: int | None
    population: int | None
    scored: int | None
    unchanged: int | None
    rejected: int | None
    new: int | None
    changed: int | None
    due: int | None
    gone: int | None
    rows_per_second: float | None
    peak_memory: int | None
    generation_id: int | None
    data_as_of: datetime | None
    aging_at: datetime | None
    stale_at: datetime | None
    expires_at: datetime | None
    #: As costs.py writes it; None where it was not added up.
    cost: dict[str, Any] | None = None
    #: Who or what started it; None where that is not known.
    started_by: str | None = None

    @classmethod
    def from_row(cls, row: Any) -> StoredRun:
        """Return the run of a row of read_run.sql."""
        return cls(**{field.name: getattr(row, field.name) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is told of a run."""

    pipeline: str
    #: None when it was refused before there was a run.
    run: StoredRun | None
    checks: tuple[CheckLine, ...] = ()
    #: What readers see now; None when the pipeline never ran in this database, or it does not answer.
    health: PipelineHealth | None = None
    timings: tuple[StepTiming, ...] = ()
    #: Why there is no run.
    refused: str = ""
    #: Charts, each under its heading.
    pictures: tuple[Picture, ...] = ()


def read_report(
    url: str, pipeline: str, run_id: int | None, timings: Sequence[StepTiming], refused: str = ""
) -> Report:
    """Read what is stored of a run, and what readers see now; ``run_id`` is None when it was refused before it began."""
    with connect(url, "prescore report") as connection:
        run = None if run_id is None else StoredRun.from_row(one(connection, "read_run", run_id=run_id))
        checks = [] if run_id is None else rows(connection, "list_checks", run_id=run_id)
        health = one(connection, "read_health", pipeline=pipeline)
    return Report(
        pipeline=pipeline,
        run=run,
        checks=tuple(CheckLine(**check._mapping) for check in checks),
        health=None if health is None else PipelineHealth.from_row(health),
        timings=tuple(timings),
        refused=refused,
    )


def read_pictures(url: str, pipeline: str) -> tuple[Picture, ...]:
    """Read what the charts of a report show, and draw them."""
    from tasks.overview import read_overview
    from tasks.page import draw_pictures

    return tuple(draw_pictures(read_overview(url, pipeline, PICTURED)))


def find_run(url: str, pipeline: str, seconds: float) -> int | None:
    """Return the id of the run that this process began within the last ``seconds``; None when it began none."""
    with connect(url, "prescore report") as connection:
        found = one(
            connection,
            "find_run_of_process",
            pipeline=pipeline,
            host=socket.gethostname(),
            process_id=os.getpid(),
            seconds=seconds,
        )
        return None if found is None else int(found.run_id)


def write_markdown(report: Report) -> str:
    """Return the report as Markdown: headline, what readers see, ledger, checks, charts, timings."""
    run = report.run
    if run is None:
        parts = [f"# {report.pipeline}: Refused", _text(report.refused), _readers(report.health)]
    else:
        parts = [
            f"# {report.pipeline}: {_HEADINGS.get(run.status, run.status.capitalize())}",
            _text(run.message or ""),
            _readers(report.health),
            _facts(run),
            _ledger(run, report.checks),
            *(f"## {_text(picture.title)}\n\n![chart]({picture.url})" for picture in report.pictures),
            _checks(report.checks),
        ]
    cost = None if run is None or run.cost is None else RunCost.from_json(run.cost)
    parts.append(_timings(report.timings) if cost is None else _cost(cost))
    return "\n\n".join(part for part in parts if part) + "\n"


def artifact_key(pipeline: str) -> str:
    """Return the key that collects the reports of a pipeline: small letters, digits and dashes."""
    return f"{pipeline.replace('_', '-')}-report"


def progress_key(pipeline: str) -> str:
    """Return the key that collects the progress of a pipeline's runs."""
    return f"{pipeline.replace('_', '-')}-progress"


def _readers(health: PipelineHealth | None) -> str:
    if health is None or health.generation_id is None:
        return "**Readers see now:** nothing; no publication of this pipeline is served."
    until = {"fresh": health.aging_at, "aging": health.stale_at, "stale": health.expires_at}.get(health.state)
    told = f"**Readers see now:** generation {health.generation_id}, **{health.state}**"
    told += f" until {shown(until)}" if until is not None else ""
    told += f"; {shown(health.rows)} rows, data as of {shown(health.data_as_of)}"
    if health.overdue_since is not None:
        told += f"; a scheduled run is overdue since {shown(health.overdue_since)}"
    return told + (". Runs are refused until `prescore resume`." if health.pinned else ".")


def _facts(run: StoredRun) -> str:
    facts = [
        ("generation", "" if run.generation_id is None else str(run.generation_id)),
        ("model", f"{run.model} version {run.model_version}" if run.model else ""),
        ("as of", shown(run.as_of) if run.as_of else ""),
        ("data as of", shown(run.data_as_of) if run.data_as_of else ""),
        ("aging at", shown(run.aging_at) if run.aging_at else ""),
        ("stale at", shown(run.stale_at) if run.stale_at else ""),
        ("expires at", shown(run.expires_at) if run.expires_at else ""),
        ("speed", f"{run.rows_per_second:,.0f} rows/s" if run.rows_per_second else ""),
        ("peak memory", f"{run.peak_memory / 1e6:,.0f} MB" if run.peak_memory else ""),
    ]
    begun = _text(started(run.trigger, run.started_by))
    return _table(("run", f"{run.run_id}, {begun}, {run.mode}"), [fact for fact in facts if fact[1]])


def _ledger(run: StoredRun, checks: Iterable[CheckLine]) -> str:
    if run.population is None:
        return ""
    verdict = next((check.verdict for check in checks if check.check_id == _LEDGER_CHECK), None)
    agreed = _LEDGER_SAYS.get(verdict or "", "rows and keys were not compared: the run did not come that far")
    parts = (run.population, run.scored or 0, run.unchanged or 0, run.rejected or 0)
    heads = ("population", "= scored", "+ unchanged", "+ rejected")
    table = _table(heads, [[shown(part) for part in parts]], numbers=(0, 1, 2, 3))
    chosen = ", ".join(f"{shown(getattr(run, name) or 0)} {name}" for name in ("new", "changed", "due", "gone"))
    return f"## Ledger\n\n{table}\n\n{chosen}; {agreed}."


def _checks(checks: Sequence[CheckLine]) -> str:
    if not checks:
        return ""
    several = Counter(check.check_id for check in checks if check.quiet)
    grouped = {check_id for check_id, count in several.items() if count > FEW_SUBJECTS}
    lines = [
        (
            check.told,
            f"{check.check_id} {check.subject}".strip(),
            check.code,
            check.reason + (f" ({check.note})" if check.note else ""),
        )
        for check in checks
        if not (check.quiet and check.check_id in grouped)
    ]
    codes = {check.check_id: check.code for check in checks}
    lines += [("pass", name, codes[name], f"{several[name]} subjects pass or are skipped") for name in sorted(grouped)]
    due = sorted({followup for check in checks for followup in check.followups})
    told = f"\n\n**To do next:** {', '.join(followup.replace('_', ' ') for followup in due)}." if due else ""
    return "## Checks\n\n" + _table(("verdict", "check", "code", "reason"), lines) + told


def _timings(timings: Sequence[StepTiming]) -> str:
    total = sum(timing.seconds for timing in timings)
    if not timings or total <= 0:
        return ""
    lines = [
        (
            timing.step,
            f"{timing.seconds:,.2f}",
            f"{timing.seconds / total:.0%}",
            f"{timing.cpu_seconds:,.2f}",
            _maybe(timing.postgres_cpu_seconds),
        )
        for timing in timings
    ]
    python, postgres = sum(timing.cpu_seconds for timing in timings), timings[-1].postgres_cpu_seconds
    if postgres is not None:
        postgres = sum(timing.postgres_cpu_seconds or 0.0 for timing in timings)
    lines.append(("**all**", f"**{total:,.2f}**", "100%", f"**{python:,.2f}**", f"**{_maybe(postgres)}**"))
    head = ("step", "seconds", "share", "CPU of Python", "CPU of PostgreSQL")
    return "## Time\n\n" + _table(head, lines, numbers=(1, 2, 3, 4))


def _cost(cost: RunCost) -> str:
    """Tell where time and CPU went, in the steps and in what worked at once while entities were scored."""
    parts = [_timings(cost.steps)]
    if cost.stages:
        lines = [
            (name, f"{stage['seconds']:,.2f}", f"{stage['cpu_seconds']:,.2f}") for name, stage in cost.stages.items()
        ]
        parts.append("While entities were scored, at once:")
        parts.append(_table(("stage", "seconds at work", "CPU of Python"), lines, numbers=(1, 2)))
    parts.append(f"**Cost:** {shown_seconds(cost.seconds)}, {describe_cost(cost)}.")
    return "\n\n".join(part for part in parts if part)


def _maybe(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:,.2f}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    rules = ["---:" if position in numbers else "---" for position in range(len(head))]
    written = ["| " + " | ".join(head) + " |", "| " + " | ".join(rules) + " |"]
    written += ["| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines]
    return "\n".join(written)


def _text(text: str) -> str:
    """Return text that stays in its cell and is no HTML."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("|", "\\|")
