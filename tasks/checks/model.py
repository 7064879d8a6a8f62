"""Checks of the model and of what feeds it: signature, logic, identity, environment, golden rows, age."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from tasks import bundle as bundles
from tasks.checks.evidence import Check, Evidence
from tasks.columns import Column
from tasks.database import connect
from tasks.features import AS_OF, read_features
from tasks.freshness import Finding, Verdict, describe
from tasks.registry import current_alias, registered_digest


def schema(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S5: do the feature query's columns fit the model's signature? Columns go by name, so that their order is free."""
    wanted, found = evidence.scorer.bundle.features, evidence.scorer.contract.features
    missing, retyped, extra = feature_differences(wanted, found)
    facts = {"observed": float(len(missing) + len(retyped)), "fail_limit": 1.0, "unit": "columns", "n": len(found)}
    if missing or retyped:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"retyped: {', '.join(retyped)}"] if retyped else []
        reason = (
            f"model {evidence.model.name} {evidence.model.version} expects {len(wanted)} features, the feature query "
            f"returns {len(found)} ({'; '.join(parts)})"
        )
        yield check.finding(Verdict.FAIL, reason, **facts)
    elif extra:
        yield check.finding(Verdict.WARN, f"the model does not know {', '.join(extra)}", **facts)
    else:
        reordered = [column.name for column in wanted] != [column.name for column in found]
        order = ", in another order, which changes nothing" if reordered else ""
        yield check.finding(Verdict.PASS, f"{len(found)} features as the model expects them{order}", **facts)


def feature_differences(wanted: Sequence[Column], found: Sequence[Column]) -> tuple[list[str], list[str], list[str]]:
    """Return the features that a model misses in what a query returns, those of another type, and those it does not know.

    In words: names, and ``name (type of training to type now)``.
    """
    before = {column.name: column.postgres_type for column in wanted}
    now = {column.name: column.postgres_type for column in found}
    retyped = sorted(name for name in set(before) & set(now) if not _same_type(before[name], now[name]))
    return (
        sorted(set(before) - set(now)),
        [f"{name} ({before[name]} to {now[name]})" for name in retyped],
        sorted(set(now) - set(before)),
    )


def _same_type(wanted: str, found: str) -> bool:
    """Widening an integer, or a float, changes nothing that the model sees."""
    integers, floats = {"smallint", "integer", "bigint"}, {"real", "double precision", "numeric"}
    return wanted == found or {wanted, found} <= integers or {wanted, found} <= floats


def logic(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S6: when the logic changed since training, golden rows are rebuilt from the database and compared by column."""
    if not _logic_changed(evidence):
        yield check.finding(Verdict.PASS, "the logic is that of training")
        return
    golden = evidence.scorer.bundle.golden
    differing, compared = _rebuilt(evidence, golden)
    facts = {"observed": float(len(differing)), "fail_limit": 1.0, "unit": "columns", "n": compared}
    if differing:
        columns = ", ".join(differing)
        reason = f"the logic changed since training and gives other features for known rows: {columns}"
        yield check.finding(Verdict.FAIL, reason, **facts)
    elif not compared:
        yield check.finding(Verdict.WARN, "the logic changed since training; no known row is left to compare", **facts)
    else:
        reason = f"the logic changed since training; {compared} known rows have the same features"
        yield check.finding(Verdict.WARN, reason, **facts)


def _logic_changed(evidence: Evidence) -> bool:
    return evidence.scorer.bundle.logic_digest not in {None, evidence.pipeline.logic_digest}


def _rebuilt(evidence: Evidence, golden: pa.Table) -> tuple[list[str], int]:
    """Return which columns differ when features.sql is asked for the golden rows again, and how many rows answered."""
    contract = evidence.scorer.contract
    identity = [column.name for column in (*contract.key, AS_OF)]
    before = {tuple(row[n] for n in identity): row for row in golden.to_pylist()}
    differing: set[str] = set()
    compared = 0
    names = [c.name for c in contract.features if c.name in golden.column_names]
    for row in _rebuilt_rows(evidence).to_pylist():
        recorded = before.get(tuple(row[n] for n in identity))
        if recorded is not None:
            compared += 1
            differing |= {name for name in names if not _equal(recorded[name], row[name])}
    return sorted(differing), compared


def _rebuilt_rows(evidence: Evidence) -> pa.Table:
    """Ask features.sql for the golden rows again, each at its own as_of; once."""
    if evidence.rebuilt is None:
        contract, golden = evidence.scorer.contract, evidence.scorer.bundle.golden
        keys = golden.select([column.name for column in (*contract.key, AS_OF)])
        if contract.dataset is not None and contract.dataset.declared.as_of is None:
            # It says how things are now, which is no evidence of what was known at a golden row's instant.
            keys = keys.slice(0, 0)
        origin = f"{evidence.pipeline.features.origin} for golden rows"
        evidence.rebuilt = read_features(evidence.sources, evidence.pipeline, contract, keys, origin)
    return evidence.rebuilt


def _equal(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= 1e-9 * max(abs(a), abs(b))
    return a == b


def model_identity(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """M2: is the version that was used still the one that is registered, and is the alias still where it was?"""
    with connect(evidence.url, "prescore check") as connection:
        current = current_alias(connection, evidence.model.name, evidence.pipeline.model.alias)
        registered = registered_digest(connection, evidence.model.name, evidence.model.version)
    used = evidence.scorer.bundle.digest
    if registered != used:
        now = (
            "is not registered any more" if registered is None else f"has the digest {registered[:12]} in the registry"
        )
        reason = f"version {evidence.model.version} {now}; the run scored with {used[:12]}"
        yield check.finding(Verdict.FAIL, reason)
    elif current is None or current.version != evidence.model.version:
        now = "nothing" if current is None else f"version {current.version}"
        reason = (
            f"{evidence.pipeline.model.alias} moved to {now} during the run, which scored with {evidence.model.version}; the "
            "next run takes the new one"
        )
        yield check.finding(Verdict.WARN, reason)
    else:
        trust = f", {evidence.model.trust}" if evidence.model.trust else ""
        reason = f"version {evidence.model.version}, digest {evidence.model.digest[:12]}{trust}"
        yield check.finding(Verdict.PASS, reason)


def model_environment(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """M3: are the libraries that compute and deserialise those of training?

    What differs less than [model] environment allows warns: golden rows, which abort, are the proof then.
    """
    bundle = evidence.scorer.bundle
    running = bundles.running_environment(bundle.estimator)
    level = evidence.pipeline.model.environment
    differences = bundles.environment_differences(bundle.environment, running, level)
    facts = {"observed": float(len(differences)), "fail_limit": 1.0, "unit": "libraries"}
    if differences:
        reason = (
            f"the model was made with other libraries: {'; '.join(differences)}. Train again here, install those "
            'versions, or declare [model] environment = "major" if golden rows are proof enough'
        )
        yield check.finding(Verdict.FAIL, reason, **facts)
        return
    slight = bundles.environment_differences(bundle.environment, running, "exact")
    if slight:
        reason = f"other versions than in training, which golden rows decide about: {'; '.join(slight)}"
        yield check.finding(Verdict.WARN, reason, **{**facts, "observed": float(len(slight))})
    else:
        yield check.finding(Verdict.PASS, "the libraries are those of training", **facts)


def model_golden(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """M4: do golden rows give the predictions that were recorded at registration?

    From their recorded features always; from the database on, when the logic changed since training.
    """
    scorer, atol = evidence.scorer, evidence.pipeline.model.golden.atol
    result = bundles.replay_golden(scorer.bundle, scorer.preprocess, atol)
    facts = {"n": result.compared, "fail_limit": atol}
    if result.passed:
        yield check.finding(Verdict.PASS, f"{result.compared} golden rows as recorded", **facts)
    else:
        yield check.finding(Verdict.FAIL, f"golden rows are not as recorded: {result.worst}", **facts)
    if not _logic_changed(evidence):
        return
    origin = evidence.pipeline.features.origin
    rebuilt = bundles.replay_rebuilt(scorer.bundle, _rebuilt_rows(evidence), scorer.preprocess, atol)
    told: dict[str, Any] = {"n": rebuilt.compared, "fail_limit": atol, "subject": origin}
    if not rebuilt.compared:
        yield check.finding(Verdict.SKIPPED, "no golden row is left in the database", **told)
    elif rebuilt.passed:
        yield check.finding(Verdict.PASS, f"{rebuilt.compared} golden rows built again as recorded", **told)
    else:
        reason = f"golden rows built again by {origin} are not as recorded: {rebuilt.worst}"
        yield check.finding(Verdict.FAIL, reason, **told)


def model_sentinels(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """M4: did golden rows that were scored among the others get the predictions that were recorded?"""
    if evidence.tally is None:
        raise LookupError("nothing was scored")
    sentinels = evidence.tally.sentinels
    if sentinels is None or sentinels.skipped or not sentinels.compared:
        why = sentinels.skipped if sentinels else ""
        yield check.finding(Verdict.SKIPPED, why or "no batch was scored")
        return
    facts = {"n": sentinels.compared, "fail_limit": evidence.pipeline.model.golden.atol}
    if sentinels.worst is None:
        reason = f"{sentinels.compared} golden rows among the others were scored as recorded"
        yield check.finding(Verdict.PASS, reason, **facts)
    else:
        reason = (
            f"golden rows that were scored among the others are not as recorded: {sentinels.worst}. Alone they are, so rows "
            "get mixed up on the way or depend on their batch"
        )
        yield check.finding(Verdict.FAIL, reason, **facts)


def model_age(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """M1: how old is the data that the model was fitted on?"""
    until, declared = evidence.model.train_data_until, evidence.pipeline.model
    age = evidence.snapshot.clock_at - until
    verdict = Verdict.PASS
    if age >= declared.fail_age:
        verdict = Verdict.FAIL
    elif age >= declared.warn_age:
        verdict = Verdict.WARN
    yield check.finding(
        verdict,
        f"trained on data until {describe(age)} ago, limits {describe(declared.warn_age)} / {describe(declared.fail_age)}",
        subject=f"{evidence.model.name} {evidence.model.version}",
        observed=age.total_seconds(),
        warn_limit=declared.warn_age.total_seconds(),
        fail_limit=declared.fail_age.total_seconds(),
        unit="s",
        warn_until=until + declared.warn_age,
        fail_until=until + declared.fail_age,
    )
