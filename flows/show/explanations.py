"""Why a pipeline is as it is: its findings in full, and what each check asks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.show.health import model, print_problem, short, what_next
from flows.show.parts import print_facts, print_json
from tasks.explanation import Answer, CheckExplanation, Explanation, Stored
from tasks.health import at
from tasks.questions import remedy_of
from tasks.telling import narrator, span, started, state_text

_STYLES = {"fail": "red", "warn": "yellow", "unknown": "magenta", "pass": "green"}
# Subjects of one check whose answers are shown as tables; of more, only those that alarm.
_SHOWN_SUBJECTS = 3
_FOLLOWUPS = {
    "refresh_source": "refresh the source",
    "rescore": "score again",
    "retrain": "train a new version",
    "investigate": "find out why",
}


def show_explanation(found: Explanation, *, as_json: bool) -> None:
    """Print what is wrong, what happens next, until when what is promised, and what every check found."""
    if as_json:
        print_json(asdict(found))
        return
    console = narrator()
    health = found.health
    since = f" since {at(health.state_since)}" if health.state_since is not None else ""
    console.print(Text.assemble((found.pipeline, "bold"), " is ", state_text(health.state), f"{since}."))
    for problem in found.problems:
        print_problem(console, problem)
    if not found.problems:
        console.print("  Nothing is wrong.")
    console.print()
    served = "nothing" if health.generation_id is None else f"generation {health.generation_id}, {model(health)}"
    facts = [
        ("now", at(found.now)),
        ("served", served),
        ("data age", "" if health.age is None else f"{span(health.age)} (as of {at(health.data_as_of)})"),
        *((f"{bound.state} from", f"{at(bound.at)}, by {bound.because}") for bound in found.bounds),
        ("next run", "runs are refused since a rollback" if health.pinned else what_next(found.ticks, found.now)),
        ("to do", ", ".join(_FOLLOWUPS.get(each, each) for each in health.followups)),
    ]
    print_facts(console, [(name, text) for name, text in facts if text])
    if found.findings:
        _print_run(console, "The last run that was judged", found.findings)
    if found.served:
        _print_run(console, "What is served", found.served)
    if not found.findings:
        console.print("\nNo run was judged yet: there are no findings.")


def show_checks_explained(found: Sequence[CheckExplanation], *, as_json: bool) -> None:
    """Print what checks ask, where their limits are set, and their last answers."""
    if as_json:
        print_json({"checks": [asdict(each) for each in found]})
        return
    console = narrator()
    for number, each in enumerate(found):
        if number:
            console.print()
        _print_check(console, each)


def _print_run(console: Console, what: str, findings: Sequence[Stored]) -> None:
    console.print(Text(f"\n{what}: run {findings[0].run_id}", style="bold"))
    for finding in findings:
        if finding.noteworthy:
            _print_finding(console, finding)
    for verdict in ("pass", "skipped"):
        names = Counter(each.check_id for each in findings if not each.noteworthy and each.effective == verdict)
        if names:
            told = ", ".join(name if count == 1 else f"{name} ({count})" for name, count in names.items())
            console.print(Text.assemble((f"  {verdict:8}", _STYLES.get(verdict, "dim")), told), soft_wrap=True)


def _print_finding(console: Console, finding: Stored) -> None:
    word = "unknown" if finding.verdict == "unknown" else finding.effective
    head = Text.assemble((f"  {word:8}", _STYLES.get(word, "")), f"{finding.label} ({finding.code}): {finding.reason}")
    console.print(head, soft_wrap=True)
    # What could not be answered and counts against nobody asks for nothing.
    remedy = remedy_of(finding.check_id) if finding.waived or finding.effective in {"warn", "fail"} else ""
    for line in [*_details(finding), _waiver(finding), f"What to do: {remedy}" if remedy else ""]:
        if line:
            console.print(Text(f"          {line}", style="dim" if not line.startswith("What") else ""), soft_wrap=True)


def _details(finding: Stored) -> list[str]:
    counts = (
        "" if finding.verdict == finding.effective else f"answered {finding.verdict}, counts as {finding.effective}"
    )
    if finding.note:
        counts = f"{counts}: {finding.note}" if counts else finding.note
    often = ""
    if finding.hits is not None and finding.runs:
        often = f"{finding.hits} of the last {finding.runs} scheduled runs answered warn or fail"
    since = "" if finding.since_run_id is None else f"since run {finding.since_run_id} ({at(finding.since)})"
    wanted = ", ".join(_FOLLOWUPS.get(each, each) for each in finding.followups)
    return [
        _numbers(finding),
        counts,
        "; ".join(part for part in (often, since) if part),
        f"asks for: {wanted}" if wanted else "",
    ]


def _numbers(found: Stored) -> str:
    parts = [
        "" if found.observed is None else f"observed {_number(found.observed, found.unit)}",
        "" if found.warn_limit is None else f"warns at {_number(found.warn_limit, found.unit)}",
        "" if found.fail_limit is None else f"fails at {_number(found.fail_limit, found.unit)}",
        "" if found.n is None else f"n {found.n:,}",
    ]
    return ", ".join(part for part in parts if part)


def _number(value: float, unit: str | None) -> str:
    """Return a number with its unit: lengths of time in words, others with four digits that count."""
    if unit == "s" and math.isfinite(value):
        return span(timedelta(seconds=value))
    written = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{written} {unit}" if unit else written


def _waiver(finding: Stored) -> str:
    if not finding.waived:
        return ""
    user = f" (user {finding.waived_os_user})" if finding.waived_os_user else ""
    return f"waived by {finding.waived_by}{user} until {at(finding.waived_until)}: {finding.waived_because}"


def _print_check(console: Console, each: CheckExplanation) -> None:
    asks = each.asks
    code = asks.code if asks else (each.findings[0].code if each.findings else "?")
    console.print(Text.assemble((each.check_id, "bold"), f" ({code}) of {each.pipeline}"))
    if asks is None:
        console.print("  This version of prescore does not know it; its answers are stored.")
    else:
        limits = ", ".join(asks.keys) + " in pipeline.toml" if asks.keys else "fixed"
        print_facts(
            console,
            [("asks", asks.question), ("why", asks.why), ("limits", limits), ("what to do", asks.remedy)],
        )
    if not each.answers:
        console.print("  No run has asked it yet.")
        return
    alarming = {finding.subject for finding in each.findings if finding.noteworthy}
    shown = list(each.answers) if len(each.answers) <= _SHOWN_SUBJECTS else [s for s in each.answers if s in alarming]
    for subject in shown:
        _print_answers(console, subject, each.answers[subject])
    rest = [subject for subject in each.answers if subject not in shown]
    if rest:
        console.print(Text(f"\n{len(rest)} more, newest answer first:", style="bold"))
        print_facts(console, [(s, " ".join(answer.verdict for answer in each.answers[s])) for s in rest])


def _print_answers(console: Console, subject: str, answers: Sequence[Answer]) -> None:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=subject or None,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        header_style="dim",
    )
    for name in ("run", "started (UTC)", "trigger", "answer", "counts as", "reason"):
        table.add_column(name, no_wrap=name != "reason", overflow="fold")
    for each in answers:
        counts = each.effective + (", waived" if each.waived else "")
        answer = Text(each.verdict, style=_STYLES.get(each.verdict, "dim"))
        note = f" ({each.note})" if each.note else ""
        table.add_row(
            str(each.run_id),
            short(each.started_at),
            started(each.trigger, each.started_by),
            answer,
            counts,
            Text(each.reason + note),
        )
    console.print(table)
