"""Verdicts over time: what a finding counts as, given what the same check answered in the runs before.

A gauge needs to persist before it alarms, and to pass twice before it clears; a guard or a clock acts at once. An answer
that is missing never counts as passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from tasks.database import rows
from tasks.declaration import Drift, Unknown
from tasks.findings import CheckClass, Finding, Verdict

#: A gauge that alarms stops only after this many answers below its level, one after the other.
CLEARS_AFTER = 2
#: Runs of each mode that are remembered at least: a level that neither cleared nor was confirmed for so long is over.
#: From 40 runs, 350 findings each are recalled in 0.15 s (two busy cores, PostgreSQL 18).
REMEMBERED = 20

_LEVELS = {Verdict.PASS: 0, Verdict.WARN: 1, Verdict.FAIL: 2}
_VERDICTS = {verdict.value: verdict for verdict in Verdict}
_OF_LEVEL = {level: verdict for verdict, level in _LEVELS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a check answered about a subject in an earlier run."""

    run_id: int
    model_version: int | None
    verdict: Verdict
    small_sample: bool = False


@dataclass(frozen=True)
class History:
    """The answers of earlier runs to each check and subject, newest first; those that were skipped are left out."""

    answers: Mapping[tuple[str, str], Sequence[Past]] = field(default_factory=dict)
    #: Answers of other versions of the model do not confirm or clear a gauge.
    model_version: int | None = None

    def of(self, finding: Finding) -> Sequence[Past]:
        """Return the earlier answers about what a finding is about, newest first."""
        return self.answers.get((finding.check_id, finding.subject), ())

    def levels(self, finding: Finding) -> list[int]:
        """Return the earlier answers with this version of the model as levels, oldest first."""
        same = [past for past in self.of(finding) if past.model_version == self.model_version]
        return [_LEVELS[past.verdict] for past in reversed(same) if past.verdict in _LEVELS]

    def unanswered(self, finding: Finding) -> int:
        """Return how many runs in a row could not answer; small samples neither count nor interrupt."""
        count = 0
        for past in self.of(finding):
            if past.small_sample:
                continue
            if past.verdict is not Verdict.UNKNOWN:
                break
            count += 1
        return count


@dataclass(frozen=True)
class Rules:
    """What a declaration says of verdicts over time: so many hits of so many runs, and what unknown counts as."""

    hits: int
    runs: int
    unknown: Unknown

    @classmethod
    def of(cls, drift: Drift, unknown: Unknown) -> Rules:
        """Return the rules of [drift] persist and [unknown]."""
        hits, _, runs = drift.persist.partition("/")
        return cls(hits=int(hits), runs=int(runs), unknown=unknown)

    @property
    def remembered(self) -> int:
        """How many runs of each mode have to be looked at."""
        return max(REMEMBERED, 2 * self.runs, 2 * self.unknown.escalate_after)


def read_history(
    connection: sa.Connection, pipeline: str, rules: Rules, *, before_run: int | None, model_version: int | None
) -> History:
    """Read what the scheduled and recovery runs before a run answered (before any, with None), in one statement.

    Manual runs and runs for past instants neither confirm nor clear anything.
    """
    answers: dict[tuple[str, str], list[Past]] = {}
    for row in rows(connection, "recall_verdicts", pipeline=pipeline, run_id=before_run, most=rules.remembered):
        of_runs = zip(row.run_ids, row.model_versions, row.verdicts, row.small_samples, strict=True)
        answers[row.check_id, row.subject] = [
            Past(run_id=run_id, model_version=version, verdict=_VERDICTS[verdict], small_sample=small)
            for run_id, version, verdict, small in of_runs
        ]
    return History(answers, model_version)


def settle(findings: Iterable[Finding], rules: Rules, history: History) -> list[Finding]:
    """Return the findings with what each counts as; their verdicts stay what they are."""
    return [_settled(finding, rules, history) for finding in findings]


def reached(levels: Sequence[int], level: int, rules: Rules) -> bool:
    """Say whether a level holds after these answers, oldest first.

    It is reached by an answer of at least that level when ``hits`` of the last ``runs`` answers were, and left after
    CLEARS_AFTER answers below it in a row.
    """
    holds = False
    for at, answer in enumerate(levels):
        if holds:
            holds = at + 1 < CLEARS_AFTER or any(past >= level for past in levels[at + 1 - CLEARS_AFTER : at + 1])
        elif answer >= level:
            holds = sum(past >= level for past in levels[max(0, at + 1 - rules.runs) : at + 1]) >= rules.hits
    return holds


def _settled(finding: Finding, rules: Rules, history: History) -> Finding:
    if finding.verdict is Verdict.SKIPPED or finding.settled is not None:
        return finding
    if finding.verdict is Verdict.UNKNOWN:
        return _unanswered(finding, rules, history)
    if finding.class_ is not CheckClass.GAUGE:
        return replace(finding, settled=finding.verdict)
    now = _LEVELS[finding.verdict]
    levels = [*history.levels(finding), now]
    counts = _level(levels, rules)
    if finding.verdict is Verdict.FAIL:
        counts = max(counts, 1)  # a first failure is told at once
    facts: dict[str, Any] = {}
    if counts < now:
        hits = sum(past >= now for past in levels[-rules.runs :])
        note = f"counts as {_OF_LEVEL[counts]}: {hits} of the last {rules.runs} runs, {rules.hits} confirm it"
        facts["note"] = note
    elif counts > now:
        facts["note"] = f"counts as {_OF_LEVEL[counts]} until it was better {CLEARS_AFTER} times in a row"
    return replace(finding, settled=_OF_LEVEL[counts], **facts)


def _unanswered(finding: Finding, rules: Rules, history: History) -> Finding:
    """Unknown counts as declared, never as less than what a gauge alarmed of before, and as failed once it stays so."""
    declared = rules.unknown
    gauge = finding.class_ is CheckClass.GAUGE
    before = _level(history.levels(finding), rules) if gauge else 0
    if finding.small_sample:
        counts = {"note": 0, "warn": 1, "fail": 2}[declared.small_sample]
        settled = _OF_LEVEL[max(counts, before)] if max(counts, before) else Verdict.SKIPPED
        return replace(finding, settled=settled)
    times = history.unanswered(finding) + 1
    if times >= declared.escalate_after:
        return replace(finding, settled=Verdict.FAIL, note=f"unanswered {times} times in a row")
    counts = _LEVELS[Verdict(declared.gauge if gauge else declared.guard)]
    return replace(finding, settled=_OF_LEVEL[max(counts, before)])


def _level(levels: Sequence[int], rules: Rules) -> int:
    return next((level for level in (2, 1) if reached(levels, level, rules)), 0)
