"""What a proposed contract would have done: past runs judged again under it, beside today's contract. Reads only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks import timeline
from tasks.database import clock, connect, one, resolve_url, rows
from tasks.errors import UsageError
from tasks.findings import Verdict
from tasks.health import PipelineNeverRan
from tasks.pipeline import Pipeline, find_pipeline, load_pipeline
from tasks.recollection import Recollection
from tasks.replaying import Replayed, read_past, replay
from tasks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """How often one check alarmed, and on which days (UTC, of as_of)."""

    warned: int
    failed: int
    days: tuple[date, ...]


@dataclass(frozen=True, kw_only=True)
class Side:
    """What came of the runs under one contract."""

    published: int
    flagged: int
    held: int
    aborted: int
    #: Runs that a hold ended then and this contract would not have stopped: what they would have found is not known.
    open: int
    #: Failed, crashed, cancelled: no contract decides that.
    ended_otherwise: int
    retrain: int
    days_held: tuple[date, ...]
    days_retrain: tuple[date, ...]
    checks: dict[str, Alarms]
    #: How long readers saw each state.
    states: dict[str, timedelta]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Today's contract and a proposed one over the same runs."""

    pipeline: str
    contract: str
    since: datetime
    until: datetime
    runs: int
    today: Side
    proposed: Side
    #: Stored answers of runs under today's contract, and how many of them today's contract gives again.
    answers: int
    reproduced: int
    #: Checks that stay as they answered then, and declared changes that cannot be judged.
    left: tuple[str, ...]
    not_judged: tuple[str, ...]


def compare(settings: Settings, name: str, contract: Path, *, days: int) -> Comparison:
    """Judge the runs of the last ``days`` again under ``contract`` and under the pipeline's own pipeline.toml.

    Raises
    ------
    PipelineInvalid
        When the file is no pipeline.toml of this folder.
    PipelineNeverRan
    UsageError
        When the file declares other predictions: those were never made.
    """
    today = find_pipeline(settings, name)
    proposed = load_pipeline(today.folder, contract)
    if proposed.logic_digest != today.logic_digest:
        raise UsageError(
            f"{contract} declares other predictions than {name}/pipeline.toml: [entity], [features] or [predictions] differ. "
            "Nothing was replayed, for these were never made. Change limits only."
        )
    url = resolve_url(settings)
    with connect(url, "prescore replay") as connection:
        if one(connection, "find_pipeline", pipeline=name) is None:
            raise PipelineNeverRan(name, [row.pipeline for row in rows(connection, "read_health", pipeline=None)])
        until = clock(connection)
        since = until - timedelta(days=days)
        past = read_past(connection, name, since)
        stored = timeline.read_publications(connection, name, since)
        begin = max(since, min((each.published_at for each in stored), default=since))
        recollection = Recollection(url=url, connection=connection)
        ours = replay(recollection, today, past, stored, since=begin, until=until)
        theirs = replay(recollection, proposed, past, stored, since=begin, until=until)
    answers, reproduced = _agreement(ours, today)
    return Comparison(
        pipeline=name,
        contract=str(contract),
        since=since,
        until=until,
        runs=len(past),
        today=_side(ours),
        proposed=_side(theirs),
        answers=answers,
        reproduced=reproduced,
        left=tuple(sorted({check_id for outcome in theirs.outcomes for check_id in outcome.left})),
        not_judged=tuple(_not_judged(today, proposed)),
    )


def _side(replayed: Replayed) -> Side:
    held = [outcome.run for outcome in replayed.outcomes if outcome.ended in {"held", "aborted"}]
    published, flagged = replayed.ended("published"), replayed.ended("flagged")
    stopped, unclear = replayed.ended("held"), replayed.ended("open")
    aborted = replayed.ended("aborted")
    return Side(
        published=published + flagged,
        flagged=flagged,
        held=stopped,
        aborted=aborted,
        open=unclear,
        ended_otherwise=len(replayed.outcomes) - published - flagged - stopped - aborted - unclear,
        retrain=len(replayed.retrained),
        days_held=_days(held),
        days_retrain=_days(replayed.retrained),
        checks=_alarms(replayed),
        states=replayed.states,
    )


def _alarms(replayed: Replayed) -> dict[str, Alarms]:
    found: dict[str, list[tuple[Any, Verdict]]] = {}
    for outcome in replayed.outcomes:
        worst: dict[str, Verdict] = {}
        for (check_id, _), verdict in outcome.alarms.items():
            worst[check_id] = Verdict.FAIL if Verdict.FAIL in {verdict, worst.get(check_id)} else verdict
        for check_id, verdict in worst.items():
            found.setdefault(check_id, []).append((outcome.run, verdict))
    return {
        check_id: Alarms(
            warned=sum(verdict is Verdict.WARN for _, verdict in alarms),
            failed=sum(verdict is Verdict.FAIL for _, verdict in alarms),
            days=_days(run for run, _ in alarms),
        )
        for check_id, alarms in sorted(found.items())
    }


def _days(runs: Iterable[Any]) -> tuple[date, ...]:
    return tuple(sorted({(run.as_of or run.clock_at).date() for run in runs}))


def _agreement(replayed: Replayed, today: Pipeline) -> tuple[int, int]:
    """Return how many answers are stored of runs under today's contract, and how many came out the same."""
    ours = [outcome for outcome in replayed.outcomes if outcome.run.contract_digest == today.contract_digest]
    return sum(outcome.answers for outcome in ours), sum(outcome.reproduced for outcome in ours)


def _not_judged(today: Pipeline, proposed: Pipeline) -> Iterable[str]:
    """Yield in a sentence each what the proposal changes and no stored number can answer."""
    before = {source.name: source for source in today.sources}
    judged = {"warn_after", "fail_after", "on_fail", "required"}
    for source in proposed.sources:
        known = before.get(source.name)
        if known is None:
            yield f"[[source]] {source.name} is new: its age was not measured then"
        else:
            fields = type(source).model_fields
            for key in sorted(set(fields) - judged):
                if getattr(source, key) != getattr(known, key):
                    yield f"[[source]] {source.name} {key}: what arrived was counted as it was declared then"
    if proposed.features != today.features:
        yield "[features]: the ages of features were measured as they were declared then"
    if proposed.drift.bins != today.drift.bins:
        yield "[drift] bins: the bins of a model version are frozen when it is made"
    for key in ("metric", "output", "maturity", "sample"):
        if getattr(proposed.performance, key) != getattr(today.performance, key):
            yield f"[performance] {key}: predictions and labels were joined as it was declared then"
    if proposed.schedule != today.schedule:
        yield "[schedule]: runs began when they began; only the limits of [serve] that follow from it count"
    if proposed.model.golden != today.model.golden or proposed.model.environment != today.model.environment:
        yield "[model] golden and environment: what differed then is not stored"
    if (proposed.model.name, proposed.model.alias) != (today.model.name, today.model.alias):
        yield "[model] name and alias: every run stays with the model version that it used"
