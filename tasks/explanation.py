"""Explanations: what the checks of a pipeline found, since when, how often, and until when readers are promised what.

Everything is read from the database; neither a model library nor Prefect is loaded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tasks import schedule
from tasks.database import clock, connect, one, rows
from tasks.errors import UsageError
from tasks.health import PipelineHealth, PipelineNeverRan, Problem, health_of, problems
from tasks.questions import Question, matching, nearest, question_of

#: Answers of one check that are shown.
SHOWN_ANSWERS = 10
#: Runs of each mode that are looked at for since when a check is not content.
LOOK_BACK = 50
# The check that says what [serve] says.
_SERVE = "rows.age"
_ALARMING = frozenset({"warn", "fail"})
_ADVANCING = frozenset({"scheduled", "recovery"})


class CheckUnknown(UsageError):
    """A word names no check."""

    def __init__(self, word: str) -> None:
        near = nearest(word)
        meant = f"Did you mean {', '.join(near)}?" if near else "prescore explain without a check lists those of a run."
        super().__init__(f"No check is called {word!r}. Nothing was changed. {meant}")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a check answered in one run about one subject."""

    run_id: int
    started_at: datetime
    trigger: str
    #: Who or what started it; None where that is not known.
    started_by: str | None
    mode: str
    status: str
    model_version: int | None
    check_id: str
    code: str
    subject: str
    #: What the check itself answered, and what that counts as.
    verdict: str
    effective: str
    waived: bool
    observed: float | None
    warn_limit: float | None
    fail_limit: float | None
    unit: str | None
    n: int | None
    reason: str
    note: str | None

    @property
    def label(self) -> str:
        """Id and subject, as people see them."""
        return f"{self.check_id} {self.subject}".strip()


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A finding as it is stored."""

    run_id: int
    check_id: str
    code: str
    #: guard, gauge or clock.
    kind: str
    subject: str
    verdict: str
    effective: str
    waived: bool
    followups: list[str]
    observed: float | None
    warn_limit: float | None
    fail_limit: float | None
    unit: str | None
    n: int | None
    #: From when a clock warns and fails by itself.
    warn_until: datetime | None
    fail_until: datetime | None
    reason: str
    note: str | None
    evidence: Mapping[str, Any]
    waived_by: str | None
    waived_os_user: str | None
    waived_because: str | None
    waived_until: datetime | None
    #: First of the runs in a row that ended with this check warning or failing; None when it does neither.
    since_run_id: int | None = None
    since: datetime | None = None
    #: Of a gauge: how many of how many last scheduled runs, this one included, answered warn or fail by themselves.
    hits: int | None = None
    runs: int | None = None

    @property
    def label(self) -> str:
        """Id and subject, as people see them."""
        return f"{self.check_id} {self.subject}".strip()

    @property
    def noteworthy(self) -> bool:
        """Whether somebody has to know: it alarms, was waived, or could not be answered."""
        return self.effective in _ALARMING or self.waived or self.verdict == "unknown"


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A run to come."""

    mode: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What ends a promise to readers, and when."""

    #: aging, stale or expired.
    state: str
    at: datetime
    #: The check whose limit it is, or the key of pipeline.toml.
    because: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Everything that is known of a pipeline's freshness."""

    pipeline: str
    now: datetime
    health: PipelineHealth
    problems: tuple[Problem, ...]
    ticks: tuple[Tick, ...]
    bounds: tuple[Bound, ...]
    #: Of the last run that was judged.
    findings: tuple[Stored, ...]
    #: Of the run that made what is served, where that is another one.
    served: tuple[Stored, ...]


@dataclass(frozen=True, kw_only=True)
class CheckExplanation:
    """One check of a pipeline: what it asks, and what it answered lately."""

    pipeline: str
    check_id: str
    #: None for a check that this version does not know.
    asks: Question | None
    findings: tuple[Stored, ...]
    #: By subject, newest first.
    answers: Mapping[str, tuple[Answer, ...]]


def next_ticks(connection: sa.Connection, pipeline: str | None, now: datetime) -> dict[str, tuple[Tick, ...]]:
    """Return when each schedule of each pipeline fires next after ``now``, the sooner one first."""
    found: dict[str, list[Tick]] = {}
    for row in rows(connection, "list_schedules", pipeline=pipeline):
        tick = Tick(mode=row.mode, at=schedule.next_tick(row.crons, row.timezone, now))
        found.setdefault(row.pipeline, []).append(tick)
    return {name: tuple(sorted(each, key=lambda tick: tick.at)) for name, each in found.items()}


def read_ticks(url: str, pipeline: str | None = None) -> tuple[datetime, dict[str, tuple[Tick, ...]]]:
    """Return the database's clock, and when each schedule of each pipeline fires next."""
    with connect(url) as connection:
        now = clock(connection)
        return now, next_ticks(connection, pipeline, now)


def explain(url: str, pipeline: str) -> Explanation:
    """Return what is wrong with a pipeline, since when, why, and what happens next.

    Raises
    ------
    PipelineNeverRan
    """
    with connect(url) as connection:
        health = _health(connection, pipeline)
        runs = one(connection, "find_judged_runs", pipeline=pipeline)
        now = clock(connection)
        findings = _findings(connection, pipeline, runs.judged_run_id, runs.contract_text)
        same = runs.served_run_id == runs.judged_run_id
        served = () if same else _findings(connection, pipeline, runs.served_run_id, runs.contract_text)
        ticks = next_ticks(connection, pipeline, now).get(pipeline, ())
    return Explanation(
        pipeline=pipeline,
        now=now,
        health=health,
        problems=tuple(problems(health)),
        ticks=ticks,
        bounds=tuple(_bounds(health, findings if same else served)),
        findings=findings,
        served=served,
    )


def explain_checks(url: str, pipeline: str, word: str) -> list[CheckExplanation]:
    """Return what the checks ask that a word means (an id, a code, a glob), and their last answers for a pipeline.

    Raises
    ------
    PipelineNeverRan, CheckUnknown
    """
    with connect(url) as connection:
        _health(connection, pipeline)
        runs = one(connection, "find_judged_runs", pipeline=pipeline)
        findings = _findings(connection, pipeline, runs.judged_run_id, runs.contract_text)
        ids = matching(word, also=[finding.check_id for finding in findings])
        if not ids:
            raise CheckUnknown(word)
        answers = _answers(connection, pipeline, ids)
    return [
        CheckExplanation(
            pipeline=pipeline,
            check_id=check_id,
            asks=question_of(check_id),
            findings=tuple(finding for finding in findings if finding.check_id == check_id),
            answers=_by_subject(answer for answer in answers if answer.check_id == check_id),
        )
        for check_id in ids
    ]


def _health(connection: sa.Connection, pipeline: str) -> PipelineHealth:
    found = health_of(connection, pipeline)
    if not found:
        raise PipelineNeverRan(pipeline, [row.pipeline for row in health_of(connection)])
    return found[0]


def _findings(connection: sa.Connection, pipeline: str, run_id: int | None, contract: str) -> tuple[Stored, ...]:
    """Return the findings of a run, each with since when and how often."""
    if run_id is None:
        return ()
    found = rows(connection, "read_findings", run_id=run_id)
    told = sorted({row.check_id for row in found if row.effective in _ALARMING or row.verdict in _ALARMING})
    # A run in which a check does not apply says nothing about since when.
    past = [
        each for each in _answers(connection, pipeline, told) if each.run_id <= run_id and each.verdict != "skipped"
    ]
    by_label: dict[tuple[str, str], list[Answer]] = {}
    for answer in past:
        by_label.setdefault((answer.check_id, answer.subject), []).append(answer)
    persist = _persist(contract)
    return tuple(_stored(row, by_label.get((row.check_id, row.subject), []), persist) for row in found)


def _answers(connection: sa.Connection, pipeline: str, check_ids: Sequence[str]) -> list[Answer]:
    if not check_ids:
        return []
    found = rows(connection, "list_answers", pipeline=pipeline, check_ids=list(check_ids), most=LOOK_BACK)
    return [Answer(**row._mapping) for row in found]


def _stored(row: Any, past: Sequence[Answer], persist: int) -> Stored:
    values = dict(row._mapping)
    values["kind"] = values.pop("class")
    since = None
    for answer in past:
        if answer.effective not in _ALARMING:
            break
        since = answer
    hits, runs = None, None
    if values["kind"] == "gauge" and past:
        last = [answer for answer in past if answer.trigger in _ADVANCING or answer.run_id == row.run_id]
        last = [answer for answer in last if answer.model_version == past[0].model_version][:persist]
        hits, runs = sum(answer.verdict in _ALARMING for answer in last), len(last)
    return Stored(
        **values,
        since_run_id=None if since is None else since.run_id,
        since=None if since is None else since.started_at,
        hits=hits,
        runs=runs,
    )


def _persist(contract: str) -> int:
    """Return how many runs have a say in whether a gauge alarms: the second number of [drift] persist."""
    try:
        declared = str(tomllib.loads(contract).get("drift", {}).get("persist", "2/3"))
    except tomllib.TOMLDecodeError:
        declared = "2/3"
    return int(declared.partition("/")[2] or 3)


def _by_subject(answers: Iterable[Answer]) -> dict[str, tuple[Answer, ...]]:
    """Return the last answers about each subject; runs in which the check did not apply only where there are no others."""
    found: dict[str, list[Answer]] = {}
    for answer in sorted(answers, key=lambda answer: (answer.verdict == "skipped", -answer.run_id)):
        of_subject = found.setdefault(answer.subject, [])
        if len(of_subject) < SHOWN_ANSWERS:
            of_subject.append(answer)
    return {subject: tuple(each) for subject, each in found.items()}


def _bounds(health: PipelineHealth, findings: Sequence[Stored]) -> list[Bound]:
    """Return when readers will see what is served as aging, stale and expired, and what decides that."""
    found = []
    for state, at, limit, key in (
        ("aging", health.aging_at, "warn_until", "[serve] aging_after"),
        ("stale", health.stale_at, "fail_until", "[serve] stale_after"),
        ("expired", health.expires_at, "", "[serve] serve_stale_for after stale_after"),
    ):
        if at is None:
            continue
        clocks = [each for each in findings if limit and each.check_id != _SERVE and _is(getattr(each, limit), at)]
        because = ", ".join(finding.label for finding in clocks) or key
        found.append(Bound(state=state, at=at, because=because))
    return found


def _is(one_instant: datetime | None, other: datetime) -> bool:
    return one_instant is not None and abs(one_instant - other) < timedelta(seconds=1)
