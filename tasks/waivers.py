"""Waivers: a person takes the failure of a check upon themselves, for one run, with a reason, until the next deadline.

The check is asked all the same, and its finding is stored as it is. What is published is flagged, and readers are told
who waived what, why, and until when.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa

from tasks.database import load_query, one, rows
from tasks.declaration import Manual
from tasks.errors import UsageError, printable
from tasks.fields import parse_duration
from tasks.findings import CheckClass, Disposition, Finding, Followup, Verdict
from tasks.pipeline import Pipeline
from tasks.runs import Trigger
from tasks.schedule import next_tick
from tasks.settings import os_user

#: Names that stand for several checks.
GROUPS = {"volume": ("population.size", "source.rows", "source.every")}

#: What nobody may waive, whatever is declared: these predictions cannot be right, or the finding is a fact about time.
NEVER = frozenset({
    "schema", "logic", "model.identity", "model.golden", "model.sentinels", "source.future", "outputs.non_finite",
    "rows.torn", "rows.age", "schedule.missed", "runs.hung", "clock.offset", "checks.complete",
})  # fmt: skip

#: Other libraries than those of training are a matter of trust only while remembered rows still come out the same.
NEEDS_GOLDEN = "model.environment"
GOLDEN = "model.golden"

#: How long a waiver lasts where no schedule says when the next deadline is.
WITHOUT_DEADLINE = timedelta(days=1)

#: A reason longer than this is no sentence; readers get it with every row.
LONGEST_REASON = 300


class WaiverRefused(UsageError):
    """A verdict was to be waived that may not be, or not like this."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. Nothing was started. {remedy}")


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """What a person takes upon themselves for one run; it holds for the checks of it that fail."""

    #: As it was asked for: ids of checks, patterns, groups.
    asked: tuple[str, ...]
    #: Ids of the checks that this names.
    checks: frozenset[str]
    because: str
    #: Role of the database, and who started the run where that is known; empty until the run is open.
    role: str = ""
    os_user: str | None = None
    #: Until when what is published is no worse than aging.
    until: datetime | None = None

    @property
    def told(self) -> str:
        """Who, until when and why."""
        user = f" (user {self.os_user})" if self.os_user else ""
        until = f" until {self.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if self.until else ""
        return f"waived by {self.role}{user}{until}: {self.because}"


def ask_for(
    pipeline: Pipeline, names: Sequence[str], because: str, *, trigger: Trigger, known: Sequence[str]
) -> Waiver | None:
    """Return the waiver that a person asks for, or None when they ask for none.

    ``names`` are ids of checks, patterns such as ``drift.*``, or the group ``volume``; ``known`` are the ids of all checks.

    Raises
    ------
    WaiverRefused
        Without a reason, in a run that no person started, for a name that no check has, and for what may not be waived.
    """
    reason = " ".join(because.split())
    if not names:
        if reason:
            raise WaiverRefused("--because was given without --waive", "Say what is to be waived, or leave it out.")
        return None
    asked = ", ".join(printable(name) for name in names)
    if not reason:
        raise WaiverRefused(f"--waive {asked} was given without --because", "Say why, in a sentence: readers are told.")
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise WaiverRefused(
            f"--because is no sentence of up to {LONGEST_REASON} printable characters", "Say it in fewer words."
        )
    if trigger is not Trigger.MANUAL:
        raise WaiverRefused(
            f"--waive {asked} in a {trigger.value} run", "Only a person may waive: leave out --waive or --trigger."
        )
    checks: set[str] = set()
    for name in names:
        checks |= _allowed(pipeline, name, known)
    return Waiver(asked=tuple(names), checks=frozenset(checks), because=reason)


def matching(name: str, known: Iterable[str]) -> set[str]:
    """Return the ids that a name, a pattern or a group means."""
    return {check for check in known if check in GROUPS.get(name, ()) or fnmatchcase(check, name)}


def waivable(pipeline: Pipeline, known: Iterable[str]) -> list[str]:
    """Return the ids of the checks that a person may waive in this pipeline."""
    known = list(known)
    may = {check for name in pipeline.manual.may_waive for check in matching(name, known)}
    return sorted(may - _never(pipeline, known))


def unknown_names(pipeline: Pipeline, known: Iterable[str]) -> list[str]:
    """Return what [manual] names and no check is called, with its key; the defaults may name what is not there yet."""
    known, manual = list(known), pipeline.manual
    named = [("may_waive", name) for name in manual.may_waive if name not in Manual().may_waive]
    named += [("never_waive", name) for name in manual.never_waive]
    return [f"{key}: no check is called {printable(name)}" for key, name in named if not matching(name, known)]


def sign(
    connection: sa.Connection, pipeline: Pipeline, waiver: Waiver, now: datetime, started_by: str | None = None
) -> Waiver:
    """Return the waiver with who signs it and until when it lasts, by the clock of the database.

    That is ``started_by``, who started the run; where it is not known, the user that this process runs as.
    """
    role: str = one(connection, "describe_role").role
    return replace(waiver, role=role, os_user=started_by or os_user(), until=deadline(pipeline, now))


def deadline(pipeline: Pipeline, now: datetime) -> datetime:
    """Return when a waiver that is given now ends: [manual] lifetime, or the next tick of the full schedule.

    Of the incremental one where there is no full one, and a day from now where there is neither.
    """
    lifetime, plan = pipeline.manual.lifetime, pipeline.schedule
    if lifetime != "until_next_deadline":
        return now + parse_duration(lifetime)
    crons = plan.full or plan.incremental
    return next_tick(crons, plan.timezone, now) if crons else now + WITHOUT_DEADLINE


def waive(findings: Iterable[Finding], waiver: Waiver | None) -> list[Finding]:
    """Return settled findings, those marked that failed and that the waiver names."""
    findings = list(findings)
    if waiver is None:
        return findings
    golden = any(f.check_id == GOLDEN and f.verdict is Verdict.PASS for f in findings)
    return [_waived(finding, waiver, golden=golden) for finding in findings]


def carry(findings: Iterable[Finding], earlier: Iterable[Finding]) -> list[Finding]:
    """Return the findings of an incremental run, with what is still true of the rows that it leaves alone.

    A check that this run could not ask, since it read only what changed, counts as it did for what is served; and what
    was waived for rows that are served stays waived until a full run replaces them.
    """
    found = {(finding.check_id, finding.subject): finding for finding in findings}
    answered = {f.check_id for f in found.values() if f.verdict is not Verdict.SKIPPED}
    skipped = {f.check_id for f in found.values()} - answered
    for kept in earlier:
        if kept.waived or kept.check_id in skipped:
            found[kept.check_id, kept.subject] = kept
    return list(found.values())


def read_served(connection: sa.Connection, generation_id: int) -> list[Finding]:
    """Return what alarms about a publication that is amended: what was waived, and what guards and gauges found."""
    return [as_kept(row) for row in rows(connection, "recall_alarms", generation_id=generation_id)]


def as_kept(row: Any) -> Finding:
    """Return what alarms about a publication as a run that amends it takes it over; a row of recall_alarms.sql."""
    origin = row.evidence.get("amends") or {"run_id": row.run_id, "subject": row.subject}
    which = f"run {origin['run_id']}"
    note = row.note if "amends" in row.evidence else "; ".join(filter(None, (row.note, f"as in {which}")))
    return Finding(
        check_id=row.check_id,
        code=row.code,
        class_=CheckClass(row.class_),
        # A waived one stands beside what this run answers itself.
        subject=f"{origin['subject']} ({which})".strip() if row.waived else row.subject,
        verdict=Verdict.SKIPPED,
        settled=Verdict(row.effective),
        reason=row.reason,
        note=note,
        on_fail=Disposition.PUBLISH_FLAGGED,
        followups=frozenset(Followup(followup) for followup in row.followups),
        evidence={"amends": origin},
        waived=row.waived,
        waived_until=row.until,
    )


def record(connection: sa.Connection, run_id: int, findings: Iterable[Finding], waiver: Waiver | None) -> None:
    """Store which findings were waived, by whom, why and until when, and commit; the findings are stored already."""
    for finding in findings:
        if not finding.waived:
            continue
        origin = finding.evidence.get("amends")
        values = {"run_id": run_id, "check_id": finding.check_id, "subject": finding.subject}
        if origin is not None:
            values |= {"origin": origin["run_id"], "origin_subject": origin["subject"]}
            connection.execute(sa.text(load_query("copy_waiver")), values)
        elif waiver is not None:
            values |= {"os_user": waiver.os_user, "because": waiver.because, "until": waiver.until}
            connection.execute(sa.text(load_query("insert_waiver")), values)
    connection.commit()


def _never(pipeline: Pipeline, known: Iterable[str]) -> set[str]:
    known = list(known)
    declared = {check for name in pipeline.manual.never_waive for check in matching(name, known)}
    return declared | (NEVER & set(known))


def _allowed(pipeline: Pipeline, name: str, known: Sequence[str]) -> set[str]:
    may = waivable(pipeline, known)
    remedy = f"In {pipeline.name} a person may waive: {', '.join(may) or 'nothing'}."
    checks = matching(name, known)
    if not checks:
        raise WaiverRefused(f"--waive {printable(name)}: no check is called so", remedy)
    never = sorted(checks & NEVER)
    if never:
        raise WaiverRefused(
            f"--waive {printable(name)}: nobody may waive {', '.join(never)}", f"{remedy} Mend the cause instead."
        )
    refused = sorted(checks - set(may))
    if refused:
        raise WaiverRefused(
            f"--waive {printable(name)}: [manual] of pipeline.toml does not let anybody waive {', '.join(refused)}",
            f"{remedy} Mend the cause, or add it to may_waive.",
        )
    return checks


def _waived(finding: Finding, waiver: Waiver, *, golden: bool) -> Finding:
    if finding.check_id not in waiver.checks or finding.effective is not Verdict.FAIL:
        return finding
    if finding.check_id == NEEDS_GOLDEN and not golden:
        note = f"the waiver does not hold: {GOLDEN} did not pass"
        return replace(finding, note="; ".join(part for part in (finding.note, note) if part))
    note = "; ".join(part for part in (finding.note, waiver.told) if part)
    return replace(finding, waived=True, waived_until=waiver.until, note=note)
