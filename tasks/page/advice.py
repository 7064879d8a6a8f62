"""The state in words, what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.questions import question_of
from tasks.telling import shown, span

if TYPE_CHECKING:
    from tasks.health import PipelineHealth
    from tasks.history import PastRun, StoredFinding
    from tasks.overview import Overview

#: What a state means for somebody who wants to use the numbers.
MEANINGS = {
    "fresh": "Every promise holds. The predictions may be used.",
    "aging": "The predictions may be used. A first limit has passed, or a check flagged them.",
    "stale": "The predictions are too old by their contract. They are still served on purpose, for a while.",
    "expired": "The predictions are withheld: readers get NULL until a run publishes again.",
    "missing": "Nothing has been published yet: readers get nothing.",
    "quarantined": "What was published turned out to be bad: readers get NULL until a run publishes again.",
    "clock_error": "The data is dated in the future. A clock is wrong, and readers get NULL.",
}
_NEXT = {"fresh": ("aging", "aging_at"), "aging": ("stale", "stale_at"), "stale": ("expired", "expires_at")}
_ORDER = ("fresh", "aging", "stale")
_FOLLOWUPS = {
    "refresh_source": "Find out why the source is late, and load it.",
    "rescore": "Score everybody again: prescore score {} --full",
    "retrain": "Train a new version: prescore train {}. Promoting it is a decision of its own.",
    "investigate": "Find out what changed in the data or in the queries.",
}
_SERIOUS = {"fail": 0, "unknown": 1, "warn": 2}
# Subjects named in one line; the table of all checks has the others.
_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    #: fail, unknown or warn, or what else is the matter: overdue, held, pinned.
    what: str
    title: str
    #: Id of the check that found it; empty where none did.
    check: str = ""
    #: Each in a sentence.
    details: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()


def describe_until(overview: Overview) -> str:
    """Return until when the state holds and what comes then, if no run publishes before."""
    health = overview.health
    if health.state not in _NEXT:
        return ""
    parts = []
    for state in _ORDER[_ORDER.index(health.state) :]:
        following, column = _NEXT[state]
        at = getattr(health, column)
        if at is not None and at > overview.now:
            parts.append(f"{following} from {shown(at)} (in {span(at - overview.now)})")
    return "Without another publication: " + ", ".join(parts) + "." if parts else ""


def list_problems(overview: Overview) -> list[Problem]:
    """Return what is wrong, the gravest first."""
    last = overview.last
    found = [*_of_the_pipeline(overview.health, overview), *([] if last is None else _of_checks(overview, last))]
    grave = {"held": 0, "aborted": 0, "failed": 0, "crashed": 0, "overdue": 0, "pinned": 1, "fail": 2, "unknown": 3}
    return sorted(found, key=lambda problem: grave.get(problem.what, 5 if problem.what == "note" else 4))


def _of_the_pipeline(health: PipelineHealth, overview: Overview) -> Iterator[Problem]:
    name = health.pipeline
    latest = overview.runs[-1] if overview.runs else None
    if latest is not None and latest.status in {"held", "aborted", "failed", "crashed", "cancelled"}:
        yield Problem(
            what=latest.status,
            title=f"The last run ended {latest.status}: it published nothing",
            details=(latest.message or "No message was left.",),
            remedies=("Once the cause is mended: prescore score " + name,),
        )
    if health.overdue:
        since = f" since {shown(health.overdue_since)}" if health.overdue_since else ""
        remedy = "Is the scheduler alive (prescore serve, the worker, cron)? A run by hand does not end this."
        yield Problem(what="overdue", title=f"A scheduled run is overdue{since}", remedies=(remedy,))
    if health.pinned:
        remedy = f"Once the cause is mended: prescore resume {name}"
        yield Problem(what="pinned", title="A rollback keeps runs away", remedies=(remedy,))
    if health.state == "clock_error":
        yield Problem(what="fail", title="A clock is wrong", remedies=("Compare the clocks, then score again.",))
    if health.model_pending:
        title = "The model's alias names another version than the one that is served"
        yield Problem(what="note", title=title, remedies=("The next run scores everybody with it.",))


def _of_checks(overview: Overview, last: PastRun) -> Iterator[Problem]:
    by_check: dict[str, list[StoredFinding]] = {}
    for finding in current_findings(overview):
        if finding.effective in {"warn", "fail"} or finding.verdict in {"warn", "fail", "unknown"}:
            by_check.setdefault(finding.check_id, []).append(finding)
    unclear = {check_id: findings for check_id, findings in by_check.items() if all(map(_is_calm, findings))}
    for check_id, findings in by_check.items():
        if check_id not in unclear:
            yield _of_check(check_id, findings, last, overview.health.pipeline)
    if unclear:
        details = tuple(f"{found.label}: {found.reason}" for findings in unclear.values() for found in findings[:1])
        title = "Not known yet, and nobody's mistake" if len(details) > 1 else "Not known yet"
        yield Problem(what="note", title=title, details=details)


def _is_calm(finding: StoredFinding) -> bool:
    return finding.effective not in {"warn", "fail"} and finding.verdict == "unknown"


def _of_check(check_id: str, findings: list[StoredFinding], last: PastRun, pipeline: str) -> Problem:
    worst = min(findings, key=lambda finding: _SERIOUS.get(finding.verdict, 3))
    subjects = [finding.subject for finding in findings if finding.subject]
    named = ", ".join(subjects[:_NAMED]) + (f" and {len(subjects) - _NAMED} more" if len(subjects) > _NAMED else "")
    older = "" if worst.run_id == last.run_id else f" (run {worst.run_id})"
    several = len(findings) > 1
    known = question_of(check_id)
    return Problem(
        what="note" if all(finding.effective not in {"warn", "fail"} for finding in findings) else worst.verdict,
        check=check_id,
        title=(check_id if known is None else known.question) + (f" {named}" if named else "") + older,
        details=tuple(
            (f"{finding.subject}: " if several and finding.subject else "") + finding.reason + _note(finding)
            for finding in findings[:_NAMED]
        ),
        remedies=tuple(_remedies(findings, pipeline)),
    )


def _note(finding: StoredFinding) -> str:
    note = finding.evidence.get("note")
    return f" ({note})" if note else ""


def current_findings(overview: Overview) -> list[StoredFinding]:
    """Return what the last run found, and for what it skipped the last answer there is with its model."""
    last = overview.last
    if last is None:
        return []
    answered = {(finding.check_id, finding.subject) for finding in last.findings if finding.verdict != "skipped"}
    found = [finding for finding in last.findings if finding.verdict != "skipped"]
    for run in reversed(overview.runs):
        if run.model_version == last.model_version and run is not last:
            for finding in run.findings:
                label = (finding.check_id, finding.subject)
                if finding.class_ == "gauge" and finding.verdict != "skipped" and label not in answered:
                    answered.add(label)
                    found.append(finding)
    return found


def _remedies(findings: Iterable[StoredFinding], pipeline: str) -> Iterator[str]:
    """Yield what to do, each sentence once; what everybody says is left out where the check knows better."""
    known = [question_of(finding.check_id) for finding in findings]
    told = dict.fromkeys(question.remedy for question in known if question is not None and question.remedy)
    for finding in findings:
        for each in finding.followups:
            if each in _FOLLOWUPS and not (told and each == "investigate"):
                told[_FOLLOWUPS[each].format(pipeline)] = None
    yield from told
