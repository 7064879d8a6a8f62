"""The evidence of past runs, put together again from what is stored, so that checks can be asked again.

A check is asked by the very function that a run asks. What it needs that is not stored (the sources as they were, the
rows) is not there, so that it raises; such checks are left as they answered.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tasks import registry
from tasks.checks import CHECKS, Check, Evidence, Phase
from tasks.checks.comparison import Comparison, choose_usual
from tasks.findings import CheckClass, Disposition, Finding, Followup, Verdict
from tasks.history import PastRun, StoredFinding
from tasks.population import Mode, Selection, Served
from tasks.profiles import ModelProfile, StoredProfile, read_profiles
from tasks.runs import Snapshot
from tasks.scoring import Tally

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from tasks.pipeline import Pipeline
    from tasks.registry import ModelVersion

#: Checks that are asked again: everything that they look at is stored.
ASKED_AGAIN = (
    "model.age",
    "source.age",
    "population.size",
    "rows.missing",
    "input.nulls",
    "input.range",
    "input.unseen",
    "input.infinite",
    "input.constant",
    "drift.input",
    "drift.inputs",
    "drift.step",
    "drift.output",
    "output.rate",
    "performance.metric",
    "performance.estimate",
    "rows.age",
)

#: Profiles that are kept at hand: the baselines of consecutive runs overlap.
_KEPT_PROFILES = 120

_KNOWN = {check.id: check for check in CHECKS}


class NotStored(LookupError):
    """A check looked at something that is not stored."""


class _Absent:
    """Stands for what is not stored."""

    def __getattr__(self, name: str) -> Any:
        raise NotStored(name)


@dataclass(kw_only=True)
class Recollection:
    """What is stored of the runs of a pipeline, read as it is needed."""

    url: str
    connection: sa.Connection
    _versions: dict[tuple[str, int], ModelVersion] = field(default_factory=dict)
    _trained: dict[tuple[str, int], tuple[dict[str, Any], ModelProfile]] = field(default_factory=dict)
    _profiles: OrderedDict[int, StoredProfile | None] = field(default_factory=OrderedDict)

    def version(self, run: PastRun) -> ModelVersion:
        """Return the model version that a run scored with. Raises NotStored when it came to none."""
        if run.model is None or run.model_version is None:
            raise NotStored("model")
        key = (run.model, run.model_version)
        if key not in self._versions:
            self._versions[key] = registry.find_version(self.connection, *key)
        return self._versions[key]

    def profiles(self, run_ids: Iterable[int]) -> dict[int, StoredProfile]:
        """Return the stored profiles of these runs; runs without one are left out."""
        wanted = set(run_ids)
        missing = wanted - set(self._profiles)
        if missing:
            found = read_profiles(self.connection, missing)
            self._profiles |= {run_id: found.get(run_id) for run_id in missing}
        for run_id in wanted:
            self._profiles.move_to_end(run_id)
        known = {run_id: self._profiles[run_id] for run_id in wanted}
        while len(self._profiles) > max(_KEPT_PROFILES, len(wanted)):
            self._profiles.popitem(last=False)
        return {run_id: profile for run_id, profile in known.items() if profile is not None}

    def evidence(
        self,
        run: PastRun,
        pipeline: Pipeline,
        *,
        served: Served | None,
        served_rows: int | None,
        served_expires_at: datetime | None,
    ) -> Evidence:
        """Return what the checks of a past run may look at, under a declaration."""
        as_of = run.as_of or run.clock_at
        version = self.version(run)
        profile, trained = self._profile(version)
        evidence = Evidence(
            url=self.url,
            pipeline=replace(pipeline, sources=tuple(s for s in pipeline.sources if s.name in _measured(run))),
            snapshot=Snapshot(name="", as_of=as_of, clock_at=run.clock_at, watermark=as_of, sees_transactions=True),
            session=_Absent(),  # type: ignore[arg-type]
            sources=_Absent(),  # type: ignore[arg-type]
            scorer=SimpleNamespace(  # type: ignore[arg-type]
                bundle=SimpleNamespace(metrics=version.metrics, profile=profile),
                contract=SimpleNamespace(dataset=None if pipeline.features.dataset is None else _Absent()),
            ),
            model=version,
            served=served,
            served_rows=served_rows,
            served_expires_at=served_expires_at,
            measured=_measured(run),
            cohort=_Absent(),
        )
        if run.population is not None:
            evidence.selection = _selection(run)
        counted = self.profiles([run.run_id]).get(run.run_id)
        missing = run.found("rows.missing").get("")
        if counted is not None or missing is not None:
            evidence.tally = _tally(run, missing, counted, trained)
        if counted is not None:
            evidence.comparison = Comparison(
                mode=Mode(run.mode),
                drift=pipeline.drift,
                profile=trained,
                features=counted.features,
                outputs=counted.outputs,
                usual=choose_usual(
                    self.connection,
                    pipeline,
                    mode=Mode(run.mode),
                    model_version=version.version,
                    before=as_of,
                    read=self.profiles,
                ),
            )
        return evidence

    def _profile(self, version: ModelVersion) -> tuple[dict[str, Any], ModelProfile]:
        key = (version.name, version.version)
        if key not in self._trained:
            found = registry.load_profile(self.connection, *key)
            self._trained[key] = found, ModelProfile.from_bundle(found)
        return self._trained[key]


def ask_again(evidence: Evidence, run: PastRun, phase: Phase) -> tuple[list[Finding], set[str]]:
    """Return what the checks of a phase answer now, and the ids of those that are left as they answered then.

    Only what the run asked is asked again; what an incremental run took over from the publication that it amended is left
    out, since that is done anew.
    """
    findings: list[Finding] = []
    left: set[str] = set()
    for check_id in dict.fromkeys(_in_order(run, phase)):
        stored = [found for found in run.findings if found.check_id == check_id]
        own = [as_found(found, evidence.pipeline) for found in stored if "amends" not in found.evidence]
        check = _KNOWN.get(check_id)
        found = None
        if check_id in ASKED_AGAIN and check is not None:
            found = _asked(evidence, check, stored)
        if found is None:
            left.add(check_id)
            found = own or [_skipped(stored[0])]
        findings += found
        evidence.findings += found
    return findings, left


def _in_order(run: PastRun, phase: Phase) -> Iterable[str]:
    """Yield the ids that a run has findings of, in the order in which they are asked."""
    there = {found.check_id for found in run.findings}
    yield from (check.id for check in CHECKS if check.when is phase and check.id in there)
    if phase is Phase.LAST:
        yield from sorted(there - set(_KNOWN))


def _asked(evidence: Evidence, check: Check, stored: Sequence[StoredFinding]) -> list[Finding] | None:
    if check.id == "performance.metric":
        return _metric_again(evidence, check, stored)
    if check.id == "population.size" and stored[0].verdict == "fail" and stored[0].fail_limit is None:
        return None  # empty, or a key held a NULL: that is not stored, and no limit changes it
    try:
        return list(check.ask(evidence, check))
    except Exception as error:  # whatever it looked at is not stored
        logger.debug("%s is left as it answered: %s", check.id, type(error).__name__)
        return None


def _metric_again(evidence: Evidence, check: Check, stored: Sequence[StoredFinding]) -> list[Finding] | None:
    """Judge a metric that was measured again, by the baseline and tolerance that are declared now."""
    from tasks.checks.performance import baseline_of, judge_metric
    from tasks.performance import METRICS, Measured

    known = stored[0].evidence
    declared = evidence.pipeline.performance
    if declared.metric != known.get("metric") or not {"value", "low", "high", "coverage"} <= set(known):
        return None
    if known["coverage"] < declared.min_label_coverage:
        words = f"{known['coverage']:.1%} of matured predictions have a label, limit {declared.min_label_coverage:.0%}"
        return [check.finding(Verdict.UNKNOWN, words, evidence=dict(known))]
    measured = Measured(value=known["value"], low=known["low"], high=known["high"], interval=known["interval"])
    metric = METRICS[known["metric"]]
    baseline = baseline_of(evidence, metric)
    if baseline is None:
        return None
    return [judge_metric(check, metric, measured, baseline, declared.tolerance, dict(known))]


def as_found(stored: StoredFinding, pipeline: Pipeline) -> Finding:
    """Return a stored finding as it was found, before anything was settled; what follows from it is as declared."""
    from tasks.checks.sources import ON_FAIL

    check = _KNOWN.get(stored.check_id)
    source = next((s for s in pipeline.sources if s.name == stored.subject), None)
    on_fail = Disposition.PUBLISH_FLAGGED if check is None else check.on_fail
    if stored.check_id.startswith("source.") and source is not None:
        on_fail = ON_FAIL[source.on_fail]
    elif stored.effective == "fail" and stored.disposition is not None and not stored.waived:
        on_fail = Disposition[stored.disposition.upper()]
    evidence = {name: value for name, value in stored.evidence.items() if name not in {"small_sample", "note"}}
    return Finding(
        check_id=stored.check_id,
        code=stored.code,
        class_=CheckClass(stored.class_),
        verdict=Verdict(stored.verdict),
        reason=stored.reason,
        on_fail=on_fail,
        subject=stored.subject,
        observed=stored.observed,
        warn_limit=stored.warn_limit,
        fail_limit=stored.fail_limit,
        unit=stored.unit,
        n=stored.n,
        warn_until=stored.warn_until,
        fail_until=stored.fail_until,
        followups=frozenset(Followup(each) for each in stored.followups) if check is None else check.followups,
        small_sample=bool(stored.evidence.get("small_sample")),
        evidence=evidence,
    )


def _skipped(stored: StoredFinding) -> Finding:
    """Return what a run answered of which only what it took over is stored: it skipped the check."""
    return Finding(
        check_id=stored.check_id,
        code=stored.code,
        class_=CheckClass(stored.class_),
        verdict=Verdict.SKIPPED,
        reason="what changed is no sample of the population",
    )


def _measured(run: PastRun) -> dict[str, dict[str, Any]]:
    """Return what was measured of each source: its newest row, and how many rows there were."""
    as_of = run.as_of or run.clock_at
    found: dict[str, dict[str, Any]] = {}
    for source, age in run.found("source.age").items():
        newest = None if age.observed is None else as_of - timedelta(seconds=age.observed)
        found[source] = {"newest": newest, "n": age.n}
    return found


def _selection(run: PastRun) -> Selection:
    return Selection(
        mode=Mode(run.mode),
        because="",
        population=run.population or 0,
        key_checksum=Decimal(0),
        selected_checksum=Decimal(0),
        null_keys=0,
        new=run.new or 0,
        changed=run.changed or 0,
        due=run.due or 0,
        gone=run.gone or 0,
        served=0,
    )


def _tally(run: PastRun, missing: StoredFinding | None, counted: StoredProfile | None, trained: ModelProfile) -> Tally:
    without = 0 if missing is None or missing.observed is None else int(missing.observed)
    tally = Tally(rows=(run.scored or 0) + (run.rejected or 0), rejected=run.rejected or 0)
    tally.reasons = Counter({"no_features": without})
    if counted is not None:
        tally.profile = SimpleNamespace(  # type: ignore[assignment]
            model_profile=trained, features=counted.features, outputs=counted.outputs
        )
    return tally
