"""Replaying: what past runs would have come to under another contract, judged again on what they counted.

The checks, what their verdicts count as, and what follows are those of a run, called in the same order. What a run read
and scored stays as it was; what its publication promises, and what later runs have behind them, follows from the contract.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tasks import freshness, timeline, verdicts, waivers
from tasks.checks import Phase
from tasks.database import rows
from tasks.findings import CheckClass, Disposition, Finding, Followup, Verdict
from tasks.freshness import Judgement
from tasks.history import PastRun, read_findings
from tasks.population import Served
from tasks.recollection import NotStored, Recollection, ask_again
from tasks.timeline import Publication
from tasks.verdicts import History, Past, Rules
from tasks.waivers import Waiver

if TYPE_CHECKING:
    from tasks.pipeline import Pipeline

#: Runs whose findings and profiles are read at once.
_CHUNK = 50
#: Triggers whose answers confirm and clear gauges.
_ADVANCING = frozenset({"scheduled", "recovery"})
#: Runs that ended for reasons that no contract knows.
_ENDED = frozenset({"failed", "crashed", "cancelled", "running"})
_PHASES = (Phase.GUARD, Phase.POPULATION, Phase.ROWS, Phase.LAST)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run would have come to."""

    run: PastRun
    #: published, flagged, held or aborted; open when it would have gone on where it stopped; else how it really ended.
    ended: str
    #: What counts as warned or failed, by check and subject; without what was taken over from an earlier run.
    alarms: Mapping[tuple[str, str], Verdict] = field(default_factory=dict)
    #: What would have had to happen next.
    followups: frozenset[Followup] = frozenset()
    #: Checks that are left as they answered then.
    left: frozenset[str] = frozenset()
    #: Stored answers of the run, and how many of them came out the same, with what they count as.
    answers: int = 0
    reproduced: int = 0


@dataclass(kw_only=True)
class _Served:
    """One publication as it would have been made, and what alarmed about it."""

    publication: Publication
    rows: int
    model: str
    model_version: int
    #: What a run that amends it takes over; None for one from before the replay, whose findings are in the database.
    alarms: list[Finding] | None = None


class _Memory:
    """What the runs before answered, as prescore.checks would hold it."""

    def __init__(self, most: int, answers: Mapping[tuple[str, str], Sequence[Past]], modes: Mapping[int, str]) -> None:
        self.most = most
        self.answers = _Answers({key: list(known) for key, known in answers.items()})
        self.runs: dict[str, deque[int]] = {}
        for run_id, mode in sorted(modes.items()):
            self._remember(run_id, mode)

    def history(self, model_version: int | None) -> History:
        """Return what the last runs of each mode answered, newest first."""
        self.answers.alive = {run_id for runs in self.runs.values() for run_id in runs}
        return History(self.answers, model_version)

    def add(self, run: PastRun, findings: Iterable[Finding]) -> None:
        """Remember what a run answered; manual runs confirm and clear nothing."""
        if run.trigger not in _ADVANCING:
            return
        self._remember(run.run_id, run.mode)
        for found in findings:
            if found.verdict is not Verdict.SKIPPED:
                past = Past(
                    run_id=run.run_id,
                    model_version=run.model_version,
                    verdict=found.verdict,
                    small_sample=found.small_sample,
                )
                known = self.answers.setdefault((found.check_id, found.subject), [])
                known.insert(0, past)
                if len(known) > 4 * self.most:
                    known[:] = [each for each in known if each.run_id in self.answers.alive or each is past]

    def _remember(self, run_id: int, mode: str) -> None:
        self.runs.setdefault(mode, deque(maxlen=self.most)).append(run_id)


class _Answers(dict[tuple[str, str], list[Past]]):
    """Answers by check and subject, newest first; what lies too many runs back is there no more."""

    alive: Set[int] = frozenset()

    def get(self, key: tuple[str, str], default: Any = ()) -> Any:
        """Return the answers that count."""
        known = super().get(key)
        return default if known is None else [past for past in known if past.run_id in self.alive]


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What all runs of a stretch of time would have come to under one contract."""

    outcomes: tuple[Outcome, ...]
    #: What readers would have been served, oldest first.
    publications: tuple[Publication, ...]
    since: datetime
    until: datetime

    def ended(self, *how: str) -> int:
        """Return how many runs ended in one of these ways."""
        return sum(outcome.ended in how for outcome in self.outcomes)

    @property
    def retrained(self) -> list[PastRun]:
        """The runs that would have asked for a new model version."""
        return [outcome.run for outcome in self.outcomes if Followup.RETRAIN in outcome.followups]

    @property
    def states(self) -> dict[str, timedelta]:
        """How long readers would have seen each state."""
        return timeline.time_in_states(timeline.spans(self.publications, self.since, self.until))


def replay(
    recollection: Recollection,
    pipeline: Pipeline,
    past: Sequence[PastRun],
    stored: Sequence[Publication],
    *,
    since: datetime,
    until: datetime,
) -> Replayed:
    """Judge past runs again under a declaration, oldest first.

    Parameters
    ----------
    past
        The runs without their findings, oldest first; these are read piece by piece.
    stored
        What was published meanwhile, and what was served before: rollbacks happen as they did.
    """
    contract = _Contract(recollection, pipeline, past, stored)
    outcomes: list[Outcome] = []
    for start in range(0, len(past), _CHUNK):
        piece = past[start : start + _CHUNK]
        findings = read_findings(recollection.connection, [run.run_id for run in piece])
        waived = _read_waivers(recollection.connection, piece)
        recollection.profiles(run.run_id for run in piece)
        for run in piece:
            told = _with_findings(run, findings.get(run.run_id, []))
            outcomes.append(contract.judge(told, waived.get(run.run_id)))
    return Replayed(
        outcomes=tuple(outcomes),
        publications=tuple(served.publication for served in contract.made),
        since=since,
        until=until,
    )


class _Contract:
    """One contract on its way through the runs."""

    def __init__(
        self,
        recollection: Recollection,
        pipeline: Pipeline,
        past: Sequence[PastRun],
        stored: Sequence[Publication],
    ) -> None:
        self.recollection, self.pipeline = recollection, pipeline
        self.rules = Rules.of(pipeline.drift, pipeline.unknown)
        self.memory = _seed(recollection.connection, pipeline, self.rules, past)
        self.stored = {each.generation_id: each for each in stored}
        first = past[0].run_id if past else 0
        self.made = [_before(recollection.connection, each) for each in stored if each.run_id < first]

    def judge(self, run: PastRun, waiver: Waiver | None) -> Outcome:
        """Return what a run would have come to, and publish it here if it would have published."""
        served = self._served(run.clock_at)
        try:
            version = self.recollection.version(run)
        except NotStored:
            self.memory.add(run, ())
            return Outcome(run=replace(run, findings=()), ended=run.status)
        evidence = self.recollection.evidence(
            run,
            self.pipeline,
            served=None if served is None else _as_served(served),
            served_rows=None if served is None else served.rows,
            served_expires_at=None if served is None else served.publication.expires_at,
        )
        history = self.memory.history(version.version)
        findings: list[Finding] = []
        left: set[str] = set()
        judgement: Judgement | None = None
        whole = False
        for phase in _PHASES:
            if judgement is not None and judgement.disposition >= Disposition.HOLD and phase is not Phase.LAST:
                break
            evidence.promise = None if judgement is None else judgement.promise
            answered, kept = ask_again(evidence, run, phase)
            if not answered:
                break
            whole = whole or phase is Phase.ROWS
            found = waivers.waive(verdicts.settle(answered, self.rules, history), waiver)
            if phase is Phase.ROWS and evidence.amends is not None and served is not None:
                found = waivers.carry(found, self._alarms(served))
            findings += found
            left |= kept
            judgement = freshness.judge(
                self.pipeline,
                findings,
                as_of=evidence.snapshot.as_of,
                now=run.clock_at,
                train_data_until=version.train_data_until,
                model_version=version.version,
                data_as_of=evidence.data_as_of,
                served_expires_at=evidence.served_expires_at,
            )
        self.memory.add(run, findings)
        return self._outcome(run, judgement, left, whole=whole)

    def _outcome(self, run: PastRun, judgement: Judgement | None, left: set[str], *, whole: bool) -> Outcome:
        if judgement is None:
            return Outcome(run=run, ended=run.status)
        if judgement.disposition >= Disposition.HOLD:
            ended = "aborted" if judgement.disposition is Disposition.ABORT else "held"
        elif run.status in _ENDED:
            ended = run.status
        elif not whole:
            ended = "open"
        else:
            ended = "published" if judgement.disposition is Disposition.PUBLISH else "flagged"
        published = ended in {"published", "flagged"}
        if published and run.generation_id is not None:
            self.made.append(_published(run, judgement, self.stored.get(run.generation_id)))
        then = {(found.check_id, found.subject): (found.verdict, found.effective) for found in run.findings}
        again = {
            (found.check_id, found.subject): (found.verdict.value, found.effective.value)
            for found in judgement.findings
        }
        return Outcome(
            run=replace(run, findings=()),
            ended=ended,
            alarms={
                (found.check_id, found.subject): found.effective
                for found in judgement.findings
                if found.alarming and "amends" not in found.evidence
            },
            followups=judgement.followups,
            left=frozenset(left),
            answers=len(then),
            reproduced=sum(again.get(label) == found for label, found in then.items()),
        )

    def _served(self, instant: datetime) -> _Served | None:
        """Return what would have been served at an instant."""
        for served in reversed(self.made):
            undone_at = served.publication.undone_at
            if served.publication.published_at <= instant and (undone_at is None or instant < undone_at):
                return served
        return None

    def _alarms(self, served: _Served) -> list[Finding]:
        if served.alarms is None:
            served.alarms = waivers.read_served(self.recollection.connection, served.publication.generation_id)
        return served.alarms


def read_past(connection: sa.Connection, pipeline: str, since: datetime) -> list[PastRun]:
    """Return the runs since an instant by prescore.clock(), oldest first, without their findings."""
    return [PastRun.from_row(row) for row in rows(connection, "list_runs_since", pipeline=pipeline, since=since)]


def _seed(connection: sa.Connection, pipeline: Pipeline, rules: Rules, past: Sequence[PastRun]) -> _Memory:
    if not past:
        return _Memory(rules.remembered, {}, {})
    first = past[0].run_id
    known = verdicts.read_history(connection, pipeline.name, rules, before_run=first, model_version=None).answers
    run_ids = {answer.run_id for answers in known.values() for answer in answers}
    modes = {row.run_id: row.mode for row in rows(connection, "list_modes", run_ids=list(run_ids))}
    return _Memory(rules.remembered, known, modes)


def _before(connection: sa.Connection, publication: Publication) -> _Served:
    (row,) = rows(connection, "find_generation", generation_id=publication.generation_id)
    return _Served(publication=publication, rows=row.rows, model=row.model, model_version=row.model_version)


def _published(run: PastRun, judgement: Judgement, really: Publication | None) -> _Served:
    promise = judgement.promise
    assert run.generation_id is not None
    took = (run.ended_at or run.started_at) - run.started_at
    alarms = [
        found
        for found in judgement.findings
        if found.alarming and (found.waived or found.class_ is not CheckClass.CLOCK)
    ]
    return _Served(
        publication=Publication(
            generation_id=run.generation_id,
            run_id=run.run_id,
            published_at=run.clock_at + took if really is None else really.published_at,
            as_of=run.as_of or run.clock_at,
            data_as_of=promise.data_as_of,
            aging_at=promise.aging_at,
            stale_at=promise.stale_at,
            expires_at=promise.expires_at,
            model_aging_at=promise.model_aging_at,
            model_stale_at=promise.model_stale_at,
            verdict=promise.verdict.value,
            undone_at=None if really is None else really.undone_at,
            quarantined_at=None if really is None else really.quarantined_at,
        ),
        rows=run.population or 0,
        model=promise.model,
        model_version=promise.model_version,
        alarms=[waivers.as_kept(_as_stored(run, found)) for found in alarms],
    )


def _as_stored(run: PastRun, found: Finding) -> Any:
    """Return a finding as a row of recall_alarms.sql would have it."""
    return SimpleNamespace(
        run_id=run.run_id,
        check_id=found.check_id,
        code=found.code,
        class_=found.class_.value,
        subject=found.subject,
        effective=found.effective.value,
        waived=found.waived,
        followups=[followup.value for followup in found.due],
        reason=found.reason,
        evidence=found.evidence,
        note=found.note,
        until=found.waived_until,
    )


def _as_served(served: _Served) -> Served:
    publication = served.publication
    return Served(
        storage_id=0,
        generation_id=publication.generation_id,
        watermark=publication.data_as_of,
        model_version=served.model_version,
        model=served.model,
        logic_digest="",
        valid_since=0,
        rows=served.rows,
        key_checksum=Decimal(0),
        quarantined=(),
    )


def _read_waivers(connection: sa.Connection, past: Sequence[PastRun]) -> Mapping[int, Waiver]:
    return {
        row.run_id: Waiver(
            asked=tuple(row.check_ids),
            checks=frozenset(row.check_ids),
            because=row.because,
            role=row.waived_by,
            os_user=row.os_user,
            until=row.until,
        )
        for row in rows(connection, "list_waived_checks", run_ids=[run.run_id for run in past])
    }


def _with_findings(run: PastRun, findings: Sequence[Any]) -> PastRun:
    return replace(run, findings=tuple(findings))
