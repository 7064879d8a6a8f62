"""Checks of performance: the metric and the calibration of matured predictions, and what to expect before labels are known.

They are asked on full runs alone: labels.sql is the most expensive query of a pipeline. Each judges predictions of the
model version that is in use, for another version's are no reason to train again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.checks.comparison import comparison
from tasks.checks.evidence import Check, Evidence
from tasks.cohorts import LABELS_TIMEOUT, Cohort, SeveralLabels, read_cohort
from tasks.database import connect
from tasks.declaration import Output
from tasks.features import describe_labels
from tasks.freshness import Finding, Followup, Verdict, describe
from tasks.performance import ESTIMATES, METRICS, Calibration, Measured, Metric, ScoreHistogram, calibration, measure
from tasks.pipeline import Pipeline
from tasks.population import Mode
from tasks.profiles import ModelProfile
from tasks.publishing import grace
from tasks.transport import StatementFailed, open_snapshot_session

logger = logging.getLogger(__name__)

#: Labels of each class, or of a value, below which a metric says more about chance than about the model.
LEAST_LABELS = 200

#: A cohort has to span this part of its window: a few days of July 2013 were late 2.7 times as often as promised, for it
#: stormed, and with a model that is new each month every month would begin with such a surprise.
LEAST_OF_WINDOW = 4

#: How far the calibration error may be above that of the hold-out: warn, fail.
CALIBRATION_LIMITS = (0.02, 0.05)

#: Earlier runs from which on they say what is usual: three standard deviations of fewer are no limit.
LEAST_PAST = 14

#: Checks whose failure makes an estimate from scores worthless.
_SPOILS_ESTIMATE = frozenset({"performance.calibration", "input.range"})

_INVESTIGATE = frozenset({Followup.INVESTIGATE})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What [performance] asks for."""

    metric: Metric
    output: Output


@dataclass(frozen=True, kw_only=True)
class Unanswered:
    """Why there is nothing to judge."""

    verdict: Verdict
    reason: str
    small_sample: bool = False
    facts: dict[str, Any]


def metric(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """P1: is the metric of matured predictions within tolerance of the baseline?"""
    found = _judged(evidence)
    if isinstance(found, Unanswered):
        yield _unanswered(check, found)
        return
    asked, cohort = found
    baseline = baseline_of(evidence, asked.metric)
    if baseline is None:
        words = f'the model version has no hold-out {asked.metric.held_out}: set "baseline" in [performance]'
        yield check.finding(Verdict.SKIPPED, words)
        return
    tolerance = evidence.pipeline.performance.tolerance
    yield judge_metric(check, asked.metric, _measured(asked, cohort), baseline, tolerance, _facts(asked, cohort))


def baseline_of(evidence: Evidence, metric: Metric) -> float | None:
    """Return what the metric is compared with: as declared, else what the hold-out gave; None without either."""
    declared = evidence.pipeline.performance.baseline
    return _held_out(evidence, metric.held_out) if declared is None else declared


def judge_metric(
    check: Check, metric: Metric, measured: Measured, baseline: float, tolerance: float | None, facts: dict[str, Any]
) -> Finding:
    """Return what a measured metric comes to; ``facts`` are those of the cohort, ``n`` labelled predictions among them."""
    limit = metric.worst_allowed(baseline, tolerance)
    return check.finding(
        _verdict(metric, measured, limit),
        f"{metric.name} {measured.value:.3f} ({measured.low:.3f} to {measured.high:.3f}) on "
        f"{facts['n']:,} labelled predictions, limit {limit:.3f} (baseline {baseline:.3f})",
        observed=measured.value,
        fail_limit=limit,
        unit=metric.name,
        n=facts["n"],
        evidence={
            **facts,
            "value": measured.value,
            "low": measured.low,
            "high": measured.high,
            "interval": measured.interval,
            "baseline": baseline,
            "limit": limit,
        },
    )


def _verdict(metric: Metric, measured: Measured, limit: float) -> Verdict:
    """Fail when the whole interval is on the wrong side of the limit, warn when the value alone is."""
    best = measured.high if metric.higher_is_better else measured.low
    if metric.worse(best, limit):
        return Verdict.FAIL
    return Verdict.WARN if metric.worse(measured.value, limit) else Verdict.PASS


def calibrated(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """P3: do as many events come true as the probabilities say, high and low ones alike?"""
    found = _judged(evidence)
    if isinstance(found, Unanswered):
        yield _unanswered(check, found)
        return
    asked, cohort = found
    if not _is_probability(asked.output):
        yield check.finding(Verdict.SKIPPED, f"{asked.output.name} is no probability of a class")
        return
    measured = calibration(_truth(asked, cohort), cohort.predictions.astype(np.float64))
    warn, fail = CALIBRATION_LIMITS
    # What was wrong from the beginning excuses a little only: the flights' model missed by 0.07 on six days of January,
    # and would have passed in April, when 45 % more flights were late than it had promised.
    before = min(_held_out(evidence, "calibration_error") or 0.0, warn)
    excess = max(0.0, measured.error - before)
    verdict = Verdict.FAIL if excess >= fail else Verdict.WARN if excess >= warn else Verdict.PASS
    yield check.finding(
        verdict,
        f"calibration error {measured.error:.3f} on {measured.rows:,} labelled predictions, limits {before + warn:.3f} and "
        f"{before + fail:.3f}; {measured.expected:,.0f} events were promised, {measured.observed:,} came true",
        observed=measured.error,
        warn_limit=before + warn,
        fail_limit=before + fail,
        unit="ECE",
        n=measured.rows,
        evidence={**_facts(asked, cohort), **_calibration_facts(measured), "hold_out": before},
    )


# Before labels are known -----------------------------------------------------------------------------------------


def estimate(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """P2: what do the probabilities promise, if they are right, beside those of the hold-out and of earlier runs?

    It warns when the promise is out of tolerance of the hold-out's, or more than three standard deviations from what is
    usual, and fails when both hold: one odd day is no trend, and a slow trend is no odd day.

    It sees a population that is harder to tell apart. It cannot see that the world changed and the model did not: then
    the probabilities are wrong, and promise what they always did.
    """
    found = _promising(evidence)
    if isinstance(found, str):
        yield check.finding(Verdict.SKIPPED, found)
        return
    for finding in evidence.findings:
        if finding.check_id in _SPOILS_ESTIMATE and finding.verdict is Verdict.FAIL:
            words = f"{finding.label} failed: probabilities are no measure of themselves then"
            # Noted only: the failure it rests on counts already, and would count twice.
            yield check.finding(Verdict.UNKNOWN, words, small_sample=True, followups=frozenset())
            return
    uncalibrated = _uncalibrated(evidence)
    if uncalibrated is not None:
        yield check.finding(Verdict.SKIPPED, uncalibrated)
        return
    yield _estimated(evidence, check, *found)


def _promising(evidence: Evidence) -> tuple[Metric, Output] | str:
    """Return the metric that can be estimated and the probability to do it from, or why there is none, as a sentence."""
    asked = asked_of(evidence.pipeline)
    if isinstance(asked, str):
        return asked
    found = [output for output in evidence.pipeline.predictions if _is_probability(output)]
    if asked.output not in found and len(found) != 1:
        return "no output is the probability of a class"
    if evidence.selection is None or evidence.selection.mode is not Mode.FULL:
        return "what changed is no sample of the population"
    estimated = asked.metric if asked.metric.name in ESTIMATES else METRICS["auc"]
    return estimated, asked.output if asked.output in found else found[0]


def _uncalibrated(evidence: Evidence) -> str | None:
    """Return why probabilities cannot be taken for shares, by the labels of this run, else by the hold-out; else None."""
    judged = next((f for f in evidence.findings if f.check_id == "performance.calibration"), None)
    measured = None if judged is None else judged.observed
    error, where = (measured, "on labels") if measured is not None else (None, "")
    if error is None:
        error, where = _held_out(evidence, "calibration_error"), "on the hold-out"
    if error is None:
        return "nothing says that the probabilities are right: the model has no hold-out, and no labels have matured"
    if error >= CALIBRATION_LIMITS[1]:
        return f"the probabilities are not calibrated (error {error:.3f} {where})"
    return None


def _estimated(evidence: Evidence, check: Check, metric: Metric, output: Output) -> Finding:
    counted = None if evidence.tally is None or evidence.tally.profile is None else evidence.tally.profile.outputs
    now = _promised(metric, None if counted is None else ScoreHistogram.of_run(counted[output.name]))
    bins = ModelProfile.from_bundle(evidence.scorer.bundle.profile).outputs.get(output.name)
    before = _held_out(evidence, "promised_auc") if metric.name == "auc" else None
    if before is None:
        before = _promised(metric, None if bins is None else ScoreHistogram.of_training(bins))
    if now is None or before is None or counted is None:
        return check.finding(Verdict.UNKNOWN, f"{output.name} promises no {metric.name}", small_sample=True)
    performance = evidence.pipeline.performance
    limit = metric.worst_allowed(before, performance.tolerance if metric.name == performance.metric else None)
    past = _past_estimates(evidence, metric, output)
    facts: dict[str, Any] = {"metric": metric.name, "output": output.name, "estimate": now, "hold_out": before}
    words = f"the scores promise {metric.name} {now:.3f}; limit {limit:.3f} (hold-out {before:.3f})"
    dropped, odd = metric.worse(now, limit), False
    if len(past) >= LEAST_PAST:
        mean, reach = float(np.mean(past)), 3 * float(np.std(past, ddof=1))
        odd = abs(now - mean) > reach
        words += f", usual {mean - reach:.3f} to {mean + reach:.3f} ({len(past)} runs)"
        facts |= {"usual_low": mean - reach, "usual_high": mean + reach}
    return check.finding(
        Verdict.FAIL if dropped and odd else Verdict.WARN if dropped or odd else Verdict.PASS,
        words,
        observed=now,
        fail_limit=limit,
        unit=metric.name,
        n=counted[output.name].finite,
        evidence={**facts, "limit": limit, "runs": len(past)},
    )


def _promised(metric: Metric, histogram: ScoreHistogram | None) -> float | None:
    return None if histogram is None else ESTIMATES[metric.name](histogram)


def _past_estimates(evidence: Evidence, metric: Metric, output: Output) -> list[float]:
    """Return what the scores of recent clean full runs of this model version promised; the newest two are left out."""
    compared = comparison(evidence)
    history = () if compared is None else compared.usual.history
    counts = [profile.outputs[output.name] for profile in history if output.name in profile.outputs]
    found = [_promised(metric, ScoreHistogram.of_run(counted)) for counted in counts]
    return [value for value in found if value is not None]


# What both are judged on -----------------------------------------------------------------------------------------


def _judged(evidence: Evidence) -> tuple[Asked, Cohort] | Unanswered:
    """Return the matured cohort of a run, read once for all checks, or why there is none to judge."""
    if evidence.cohort is None:
        evidence.cohort = _read(evidence)
    found: tuple[Asked, Cohort] | Unanswered = evidence.cohort
    return found


def _read(evidence: Evidence) -> tuple[Asked, Cohort] | Unanswered:
    asked = asked_of(evidence.pipeline)
    if isinstance(asked, str):
        return _skipped(asked)
    if evidence.pipeline.performance.maturity is None:
        return _skipped('[performance] maturity is not declared: the age at which a label is known, such as "30d"')
    if evidence.selection is None or evidence.selection.mode is not Mode.FULL:
        return _skipped("labels are looked at on full runs alone")
    try:
        cohort = _cohort(evidence, asked)
    except (StatementFailed, SeveralLabels) as error:
        logger.warning("%s", error)
        cause = error.cause if isinstance(error, StatementFailed) else "several labels for one key and as_of"
        words = f"labels.sql could not be used: {cause} (it may take {describe(LABELS_TIMEOUT)})"
        return Unanswered(verdict=Verdict.UNKNOWN, reason=words, facts={})
    if isinstance(cohort, str):
        return _skipped(cohort)
    return _too_little(evidence, asked, cohort) or (asked, cohort)


def asked_of(pipeline: Pipeline) -> Asked | str:
    """Return the metric and the output that a pipeline is judged by, or what to declare, as a sentence."""
    performance = pipeline.performance
    if performance.metric is None:
        return '[performance] metric and maturity are not declared, such as metric = "auc" and maturity = "30d"'
    if pipeline.training is None or pipeline.training.labels is None:
        return "[training] labels is not declared: nothing says what came true"
    metric = METRICS[performance.metric]
    fitting = [output for output in pipeline.predictions if _fits(metric, output)]
    if performance.output is not None:
        fitting = [output for output in fitting if output.name == performance.output]
    elif metric.of == "class":
        fitting = [output for output in fitting if output.method == "predict"] or fitting
    if len(fitting) != 1:
        names = ", ".join(output.name for output in fitting) or "none"
        return f"{metric.name} needs one output that it fits ({names} do): name it as [performance] output"
    return Asked(metric=metric, output=fitting[0])


def _fits(metric: Metric, output: Output) -> bool:
    if metric.of == "value":
        return output.method == "predict"
    return _is_probability(output) or (metric.name == "accuracy" and output.method == "predict")


def _is_probability(output: Output) -> bool:
    return output.method == "predict_proba" and output.class_ not in {None, "all"}


def _cohort(evidence: Evidence, asked: Asked) -> Cohort | str:
    pipeline, contract = evidence.pipeline, evidence.scorer.contract
    with connect(evidence.source_url or evidence.url, "prescore check") as connection:
        label = describe_labels(connection, pipeline, contract.key)
    if label is None:
        return "labels.sql has no column label"
    # A session of its own in the same snapshot: a query that is stopped ends its transaction, and others still read.
    assert evidence.run is not None
    with (
        open_snapshot_session(evidence.url, evidence.snapshot.name) as session,
        evidence.run.read_sources(session) as sources,
    ):
        return read_cohort(
            session,
            sources,
            pipeline,
            contract.key,
            label,
            asked.output,
            classes=asked.metric.of == "class" and not _is_probability(asked.output),
            model_version=evidence.model.version,
            as_of=evidence.snapshot.as_of,
            grace=grace(pipeline, pipeline.schedule.full),
        )


def _too_little(evidence: Evidence, asked: Asked, cohort: Cohort) -> Unanswered | None:
    """Return why a cohort cannot be judged: nothing has matured, labels are missing, or there are too few."""
    performance = evidence.pipeline.performance
    facts = _facts(asked, cohort)
    assert performance.maturity is not None
    long_enough = performance.window / LEAST_OF_WINDOW
    version, old = evidence.model.version, describe(performance.maturity)
    if not cohort.predicted:
        when = ""
        if cohort.began is not None and cohort.began > cohort.until:
            when = f"; the first one matures on {cohort.began + performance.maturity:%Y-%m-%d}"
        words = f"no kept prediction of version {version} is {old} old{when}"
        return Unanswered(verdict=Verdict.UNKNOWN, reason=words, small_sample=True, facts=facts)
    if cohort.began is not None and cohort.until - cohort.began < long_enough:
        words = (
            f"predictions of version {version} have matured for {describe(cohort.until - cohort.began)}, "
            f"{describe(long_enough)} are needed"
        )
        return Unanswered(verdict=Verdict.UNKNOWN, reason=words, small_sample=True, facts=facts)
    if cohort.coverage < performance.min_label_coverage:
        words = (
            f"{cohort.labelled:,} of {cohort.predicted:,} matured predictions have a label "
            f"({cohort.coverage:.1%}, limit {performance.min_label_coverage:.0%})"
        )
        return Unanswered(verdict=Verdict.UNKNOWN, reason=words, facts=facts)
    fewest = len(cohort.labels)
    if asked.metric.of != "value" and _is_probability(asked.output):
        positives = int(_truth(asked, cohort).sum())
        fewest = min(positives, fewest - positives)
    if fewest < LEAST_LABELS:
        each = " of the rarer class" if fewest < len(cohort.labels) else ""
        words = f"{fewest} labels{each} among {cohort.predicted:,} matured predictions, {LEAST_LABELS} are needed"
        return Unanswered(verdict=Verdict.UNKNOWN, reason=words, small_sample=True, facts=facts)
    return None


def _measured(asked: Asked, cohort: Cohort) -> Measured:
    predictions = cohort.predictions
    if asked.metric.of == "value":
        return measure(asked.metric, cohort.labels.astype(np.float64), predictions.astype(np.float64), cohort.instants)
    if not _is_probability(asked.output):
        truth, right = cohort.right()
        return measure(asked.metric, truth, right, cohort.instants)
    guessed = predictions.astype(np.float64)
    return measure(
        asked.metric,
        _truth(asked, cohort),
        guessed if asked.metric.of == "probability" else guessed >= 0.5,
        cohort.instants,
    )


def _truth(asked: Asked, cohort: Cohort) -> np.ndarray[Any, np.dtype[np.bool_]]:
    assert asked.output.class_ is not None
    return cohort.positive(asked.output.class_)


def _held_out(evidence: Evidence, name: str) -> float | None:
    """Return a hold-out metric of the model version in use; None for one registered from a file."""
    kept = evidence.scorer.bundle.metrics
    value = {**(kept.get("further") or {}), **(kept.get("metrics") or {})}.get(name)
    return None if value is None else float(value)


def _facts(asked: Asked, cohort: Cohort) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "metric": asked.metric.name,
        "output": asked.output.name,
        "since": cohort.since.isoformat(),
        "until": cohort.until.isoformat(),
        "predicted": cohort.predicted,
        "labelled": cohort.labelled,
        "coverage": cohort.coverage,
        "n": len(cohort.labels),
    }
    if _is_probability(asked.output):
        facts["positives"] = int(_truth(asked, cohort).sum())
    return facts


def _calibration_facts(found: Calibration) -> dict[str, Any]:
    return {
        "ece": found.ece,
        "floor": found.floor,
        "error": found.error,
        "expected": found.expected,
        "observed": found.observed,
    }


def _skipped(reason: str) -> Unanswered:
    return Unanswered(verdict=Verdict.SKIPPED, reason=reason, facts={})


def _unanswered(check: Check, found: Unanswered) -> Finding:
    followups = _INVESTIGATE if found.verdict is Verdict.UNKNOWN and not found.small_sample else frozenset()
    return check.finding(
        found.verdict, found.reason, small_sample=found.small_sample, followups=followups, evidence=found.facts
    )
