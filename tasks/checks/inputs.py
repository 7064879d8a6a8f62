"""Checks of how features are distributed: against the training of the model, and against recent runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tasks.checks.comparison import Comparison, all_counts, comparison, training_counts
from tasks.checks.evidence import Check, Evidence
from tasks.drift import Distance, js_distance, psi
from tasks.findings import Finding, Verdict
from tasks.population import Mode

#: Clean runs of a feature's own history from which on smaller changes of it are worth a warning.
LEAST_HISTORY = 14

#: How much larger than what is usual, as the root of the adjusted PSI (for a shift: standard deviations), a change is that
#: is worth an early warning: twice the 0.05 that means swing by from day to day for no reason.
UNUSUAL = 0.1

#: Share of the model's skill that rests on features that drifted, at which the model as a whole is in question.
DATASET_SHARE = 0.2


def drift_input(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D1: does each feature still look as it did when the model was trained?"""
    compared = comparison(evidence)
    excuse = _no_training(compared)
    if excuse or compared is None:
        yield check.finding(Verdict.SKIPPED, excuse)
        return
    unjudged = []
    for name in compared.shaped:
        reference = training_counts(compared.profile.features[name])
        current = all_counts(compared.profile.features[name], compared.features[name])
        distance = psi(reference, current)
        if distance is None:
            unjudged.append(name)
            continue
        warn, fail, early = _training_limits(compared, name)
        found, limits = _graded(distance, early or warn, fail), f"limits {early or warn:.2g} / {fail:.2g}"
        if early and found is Verdict.WARN and not distance.reaches(warn):
            limits += ", early because it is important and was steadier lately"
        yield check.finding(
            found,
            f"{distance.adjusted:.3f} from training (PSI beyond noise, {limits})",
            subject=name,
            on_fail=compared.on_drift(name),
            **_facts(distance, early or warn, fail),
            evidence={**_numbers(distance), "js": round(js_distance(reference, current), 4)},
        )
    if unjudged:
        yield _too_few(check, compared, unjudged)


def drift_inputs(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D1: how much of what the model rests on has drifted from training?

    By importance, not by number: half of fifty columns may drift without harm, and one may be all that counts.
    """
    compared = comparison(evidence)
    excuse = _no_training(compared)
    if excuse or compared is None:
        yield check.finding(Verdict.SKIPPED, excuse)
        return
    if not compared.shaped:
        yield check.finding(Verdict.SKIPPED, "no feature has a distribution that can be compared")
        return
    levels: dict[str, Verdict] = {}
    for name in compared.shaped:
        bins = compared.profile.features[name]
        distance = psi(training_counts(bins), all_counts(bins, compared.features[name]))
        if distance is not None:
            warn, fail, _ = _training_limits(compared, name, early=False)
            levels[name] = _graded(distance, warn, fail)
    if not levels:
        reason = "too few rows to compare any feature with training"
        yield check.finding(Verdict.UNKNOWN, reason, small_sample=True, n=compared.rows)
        return
    failed = [name for name, level in levels.items() if level is Verdict.FAIL]
    worse = [name for name, level in levels.items() if level is not Verdict.PASS]
    share = sum(compared.importance[name] for name in failed)
    warned = sum(compared.importance[name] for name in worse)
    verdict = Verdict.FAIL if share >= DATASET_SHARE else Verdict.WARN if warned >= DATASET_SHARE else Verdict.PASS
    yield check.finding(
        verdict,
        f"{len(failed)} of {len(levels)} features drifted and {len(worse) - len(failed)} changed; the model owes {share:.0%} "
        f"and {warned - share:.0%} of its skill to them, limit {DATASET_SHARE:.0%}",
        on_fail=compared.on_drift(),
        observed=share,
        fail_limit=DATASET_SHARE,
        unit="importance",
        n=compared.rows,
        evidence={"failed": failed, "warned": [name for name in worse if name not in failed], "warned_share": warned},
    )


def drift_step(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D2: does each feature look as it did in the last clean runs? A step there is a fault of a source, more often than not."""
    compared = comparison(evidence)
    if compared is None or not compared.rows:
        yield check.finding(Verdict.SKIPPED, "nothing was scored")
        return
    if not compared.usual.baseline:
        yield check.finding(Verdict.SKIPPED, "there are too few clean runs before this one to compare it with")
        return
    unjudged = []
    for name in compared.shaped:
        before = compared.usual.features.get(name)
        bins, now = compared.profile.features[name], compared.features[name]
        distance = None if before is None else psi(all_counts(bins, before), all_counts(bins, now))
        if distance is None:
            unjudged.append(name)
            continue
        own, declared = compared.own(name), compared.drift
        warn, fail = own.step_warn or declared.step_warn, own.step_fail or declared.step_fail
        warn = min(warn, early_limit(compared, name, of_training=False) or warn)
        yield check.finding(
            _graded(distance, warn, fail),
            f"{distance.adjusted:.3f} from the last {len(compared.usual.baseline)} clean runs"
            + (" of any slot" if compared.usual.fallback else "")
            + f" (PSI beyond noise, limits {warn:.2g} / {fail:.2g})",
            subject=name,
            on_fail=compared.on_drift(name),
            **_facts(distance, warn, fail),
            evidence={**_numbers(distance), **compared.usual.evidence},
        )
    if unjudged:
        yield _too_few(check, compared, unjudged)


def early_limit(compared: Comparison, name: str, *, of_training: bool) -> float | None:
    """Return from which distance on an important feature is worth a warning, given its own history; None without one.

    Seen from training, a season moves features lawfully for weeks; seen from other runs, weekdays do. So the limit is
    [drift] early, or a little more than what nine of ten recent runs stayed below, whichever is larger. Each run of the
    history is compared with training, or with the others of it: never with itself.
    """
    bins = compared.profile.features[name]
    past = [profile.features[name] for profile in compared.usual.history if name in profile.features]
    counted = [all_counts(bins, counts) for counts in past if len(counts.counts) == len(bins.counts)]
    if name not in compared.top or len(counted) < LEAST_HISTORY:
        return None
    whole = np.sum(counted, axis=0)
    training = training_counts(bins)
    distances = [psi(training if of_training else whole - counts, counts) for counts in counted]
    known = [np.sqrt(distance.adjusted) for distance in distances if distance is not None]
    if len(known) < LEAST_HISTORY:
        return None
    return max(compared.drift.early, float(np.quantile(known, 0.9) + UNUSUAL) ** 2)


def _training_limits(compared: Comparison, name: str, *, early: bool = True) -> tuple[float, float, float | None]:
    """Return the limits of a warning and a failure, and of an early warning where that is below."""
    own, declared = compared.own(name), compared.drift
    warn, fail = own.warn or declared.warn, own.fail or declared.fail
    limit = early_limit(compared, name, of_training=True) if early else None
    return warn, fail, limit if limit is not None and limit < warn else None


def _no_training(compared: Comparison | None) -> str:
    """Return why a run is not compared with training; empty when it can be."""
    if compared is None or not compared.rows:
        return "nothing was scored"
    if compared.mode is Mode.INCREMENTAL:
        return "new and changed entities are no sample of those that the model was trained on; full runs are compared"
    return ""


def _graded(distance: Distance, warn: float, fail: float) -> Verdict:
    return Verdict.FAIL if distance.reaches(fail) else Verdict.WARN if distance.reaches(warn) else Verdict.PASS


def _facts(distance: Distance, warn: float, fail: float) -> dict[str, object]:
    return {
        "observed": distance.adjusted,
        "warn_limit": warn,
        "fail_limit": fail,
        "unit": "PSI",
        "n": distance.n_current,
    }


def _numbers(distance: Distance) -> dict[str, object]:
    return {
        "psi": round(distance.psi, 5),
        "floor": round(distance.floor, 5),
        "critical": round(distance.critical, 5),
        "bins": distance.bins,
        "n_reference": distance.n_reference,
    }


def _too_few(check: Check, compared: Comparison, names: Sequence[str]) -> Finding:
    """One answer for all features without enough values: nobody is told thirty times that there are eighty rows."""
    few = names[0] if len(names) == 1 else f"{len(names)} features"
    reason = f"too few rows ({compared.rows:,}) to compare {few}"
    return check.finding(
        Verdict.UNKNOWN, reason, small_sample=True, n=compared.rows, evidence={"features": list(names)}
    )
