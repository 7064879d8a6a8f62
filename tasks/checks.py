"""The checks of a run: each is one small function with an id, a class and a verdict, registered in CHECKS.

Letter codes are those of the staleness taxonomy (S: source, M: model, D: distribution, R: rows, P: performance, T: time).
A check that raised is unknown, never absent. Guards run before scoring where they can: refusing is cheapest then.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import pyarrow as pa

from tasks import bundle as bundles
from tasks.database import connect, literal, load_query, quote
from tasks.features import AS_OF, KEYS_PER_QUERY, read_keys_sql
from tasks.freshness import CheckClass, Disposition, Finding, Verdict, describe
from tasks.pipeline import Pipeline, Source
from tasks.population import Selection, Served
from tasks.publishing import Staged
from tasks.registry import ModelVersion, current_alias
from tasks.runs import Snapshot
from tasks.scoring import Scorer, Tally
from tasks.transport import Session

logger = logging.getLogger(__name__)

# A clock may be this far off before a row counts as one from the future (staleness.md S2).
SKEW = timedelta(minutes=5)
# More rows of a source without a date than this share are worth a warning (staleness.md S2).
UNDATED_SHARE = 0.001
# A run holds when more are rejected than this many, or than this share of the population, whichever is more (design 13).
REJECTED_FLOOR, REJECTED_SHARE = 10, 0.001
# Fewer rows than this may well have one score.
CONSTANT_ROWS = 100


class Phase(StrEnum):
    """When a check can be asked."""

    #: Before anything is selected.
    GUARD = "guard"
    #: Once the population is known, before it is scored.
    POPULATION = "population"
    #: Once everything is scored, before it is published.
    ROWS = "rows"


@dataclass(kw_only=True)
class Evidence:
    """What the checks of a run may look at; the later fields are there once scoring is done."""

    url: str
    pipeline: Pipeline
    snapshot: Snapshot
    #: Reads in the snapshot of the run.
    session: Session
    scorer: Scorer
    model: ModelVersion
    served: Served | None
    served_rows: int | None
    served_expires_at: datetime | None
    selection: Selection | None = None
    tally: Tally | None = None
    staged: Staged | None = None
    #: Skipped entities that were scored again, and how many of them disagreed.
    resampled: int = 0
    disagreeing: int = 0
    #: Oldest newest row of the required sources, filled by the source checks.
    watermarks: dict[str, datetime | None] = field(default_factory=dict)
    #: What was measured of each source, once.
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def data_as_of(self) -> datetime:
        """How old the data is: the minimum over required sources, or as_of where none is declared."""
        known = [at for at in self.watermarks.values() if at is not None]
        return min([*known, self.snapshot.as_of])


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question asked on every run."""

    id: str
    code: str
    class_: CheckClass
    #: What follows when it fails.
    on_fail: Disposition
    #: Answers for one or more subjects.
    ask: Callable[[Evidence, Check], Iterable[Finding]]
    when: Phase
    #: What to do when it does not pass, as a sentence; empty where the reason says it.
    remedy: str = ""

    def finding(self, verdict: Verdict, reason: str, **facts: object) -> Finding:
        """Return a finding of this check."""
        values = {"check_id": self.id, "code": self.code, "class_": self.class_, "on_fail": self.on_fail}
        return Finding(**{**values, "verdict": verdict, "reason": reason, **facts})  # type: ignore[arg-type]


def ask(evidence: Evidence, phase: Phase) -> list[Finding]:
    """Ask every check of a phase; one that raises is unknown, and the others are still asked."""
    findings: list[Finding] = []
    for check in CHECKS:
        if check.when is phase:
            try:
                findings += check.ask(evidence, check)
            except Exception as error:
                logger.exception("check %s could not be asked", check.id)
                findings.append(check.finding(Verdict.UNKNOWN, f"could not be asked: {type(error).__name__}"))
    return findings


# Sources -----------------------------------------------------------------------------------------------------------


def source_age(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S1: how old is the newest plausible row of each source? Age counts from the data, not from our run."""
    for source in evidence.pipeline.sources:
        measured = _measure(evidence, source)
        newest: datetime | None = measured["newest"]
        if source.required:
            evidence.watermarks[source.name] = newest
        if newest is None:
            reason = "no row with a date up to as_of; age unknown"
            yield check.finding(Verdict.UNKNOWN, reason, subject=source.name, n=measured["n"])
            continue
        age = evidence.snapshot.as_of - newest
        warn, fail = source.warn_after, source.fail_after
        verdict = Verdict.PASS
        if fail is not None and age >= fail:
            verdict = Verdict.FAIL
        elif warn is not None and age >= warn:
            verdict = Verdict.WARN
        limits = " / ".join(describe(limit) for limit in (warn, fail) if limit is not None)
        reason = f"newest row is {describe(age)} old" + (f", limits {limits}" if limits else "")
        if verdict is Verdict.FAIL and not source.required:
            verdict = Verdict.WARN
        yield check.finding(
            verdict,
            reason,
            subject=source.name,
            observed=age.total_seconds(),
            warn_limit=warn.total_seconds() if warn else None,
            fail_limit=fail.total_seconds() if fail else None,
            unit="s",
            n=measured["n"],
            warn_until=newest + warn if warn and source.required else None,
            fail_until=newest + fail if fail and source.required else None,
        )


def source_future(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S2: rows from the future, rows without a date, a watermark without a zone: then no age can be trusted."""
    for source in evidence.pipeline.sources:
        measured = _measure(evidence, source)
        future, undated = measured["future"], measured["undated"]
        known = max(measured["n"], undated, 1)
        facts = {
            "subject": source.name,
            "observed": float(future),
            "fail_limit": 1.0,
            "unit": "rows",
            "n": measured["n"],
        }
        if measured["naive"] and source.zone is None:
            reason = f"{source.watermark} has no time zone; declare zone in [[source]]"
            yield check.finding(Verdict.FAIL, reason, **facts)
        elif future and source.kind != "event_time":
            reason = f"{future:,} rows are dated more than {describe(SKEW)} after the clock; age judged on the others"
            yield check.finding(Verdict.FAIL, reason, **facts)
        elif undated / known > UNDATED_SHARE:
            yield check.finding(Verdict.WARN, f"{undated:,} rows have no {source.watermark}", **facts)
        else:
            yield check.finding(Verdict.PASS, "no row from the future", **facts)


def _measure(evidence: Evidence, source: Source) -> dict[str, Any]:
    if source.name not in evidence.measured:
        evidence.measured[source.name] = _measured(evidence, source)
    return evidence.measured[source.name]


def _measured(evidence: Evidence, source: Source) -> dict[str, Any]:
    relation = ".".join(quote(part) for part in source.name.split("."))
    described = evidence.session.table(
        load_query("describe_watermark", {"relation": literal(relation), "attribute": literal(source.watermark)}),
        f"[[source]] {source.name}",
    ).to_pylist()
    if not described:
        raise LookupError(f"{source.name} has no column {source.watermark}, or is not there")
    naive = described[0]["type"] in {"timestamp without time zone", "date"}
    column = f"source.{quote(source.watermark)}"
    if naive:
        column = f"({column}::timestamp AT TIME ZONE {literal(source.zone or 'UTC')})"
    statement = load_query(
        "measure_source",
        {
            "source": relation,
            "relation": literal(relation),
            "watermark": column,
            "latest": literal(evidence.snapshot.as_of + SKEW),
            "future": literal(evidence.snapshot.clock_at + SKEW),
            "condition": source.filter or "true",
        },
    )
    row: dict[str, Any] = evidence.session.table(statement, f"[[source]] {source.name}").to_pylist()[0]
    return {**row, "naive": naive}


# Schema and logic --------------------------------------------------------------------------------------------------


def schema(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S5: do the feature query's columns fit the model's signature?"""
    wanted = {column.name: column.postgres_type for column in evidence.scorer.bundle.features}
    found = {column.name: column.postgres_type for column in evidence.scorer.contract.features}
    missing = sorted(set(wanted) - set(found))
    retyped = sorted(name for name in set(wanted) & set(found) if not _same_type(wanted[name], found[name]))
    extra = sorted(set(found) - set(wanted))
    facts = {"observed": float(len(missing) + len(retyped)), "fail_limit": 1.0, "unit": "columns", "n": len(found)}
    if missing or retyped:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"retyped: {', '.join(f'{n} ({wanted[n]} to {found[n]})' for n in retyped)}"] if retyped else []
        reason = (
            f"model {evidence.model.name} {evidence.model.version} expects {len(wanted)} features, the feature query "
            f"returns {len(found)} ({'; '.join(parts)})"
        )
        yield check.finding(Verdict.FAIL, reason, **facts)
    elif extra:
        yield check.finding(Verdict.WARN, f"the model does not know {', '.join(extra)}", **facts)
    else:
        yield check.finding(Verdict.PASS, f"{len(found)} features as the model expects them", **facts)


def _same_type(wanted: str, found: str) -> bool:
    """Widening an integer, or a float, changes nothing that the model sees."""
    integers, floats = {"smallint", "integer", "bigint"}, {"real", "double precision", "numeric"}
    return wanted == found or {wanted, found} <= integers or {wanted, found} <= floats


def logic(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S6: when the logic changed since training, golden rows are rebuilt from the database and compared by column."""
    trained = evidence.scorer.bundle.logic_digest
    if trained is None or trained == evidence.pipeline.logic_digest:
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


def _rebuilt(evidence: Evidence, golden: pa.Table) -> tuple[list[str], int]:
    """Return which columns differ when features.sql is asked for the golden rows again, and how many rows answered."""
    contract = evidence.scorer.contract
    keys = golden.select([column.name for column in (*contract.key, AS_OF)])
    statement = read_keys_sql(evidence.pipeline, contract, keys.slice(0, KEYS_PER_QUERY))
    rebuilt = evidence.session.table(statement, f"{evidence.pipeline.features.query.origin} for golden rows")
    identity = [column.name for column in (*contract.key, AS_OF)]
    before = {tuple(row[n] for n in identity): row for row in golden.to_pylist()}
    differing: set[str] = set()
    compared = 0
    names = [c.name for c in contract.features if c.name in golden.column_names]
    for row in rebuilt.to_pylist():
        recorded = before.get(tuple(row[n] for n in identity))
        if recorded is not None:
            compared += 1
            differing |= {name for name in names if not _equal(recorded[name], row[name])}
    return sorted(differing), compared


def _equal(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= 1e-9 * max(abs(a), abs(b))
    return a == b


# Model -------------------------------------------------------------------------------------------------------------


def model_identity(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """M2: is the alias still where it was when the run started?"""
    with connect(evidence.url) as connection:
        current = current_alias(connection, evidence.model.name, evidence.pipeline.model.alias)
    if current is None or current.version != evidence.model.version:
        now = "nothing" if current is None else f"version {current.version}"
        reason = (
            f"{evidence.pipeline.model.alias} moved to {now} during the run, which scored with {evidence.model.version}"
        )
        yield check.finding(Verdict.WARN, reason)
    else:
        yield check.finding(Verdict.PASS, f"version {evidence.model.version}, digest {evidence.model.digest[:12]}")


def model_environment(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """M3: are the libraries that compute and deserialise those of training?"""
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
    else:
        yield check.finding(Verdict.PASS, f"the libraries are those of training ({level})", **facts)


def model_golden(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """M4: do golden rows give the predictions that were recorded at registration?"""
    result = bundles.replay_golden(
        evidence.scorer.bundle, evidence.scorer.preprocess, evidence.pipeline.model.golden.atol
    )
    facts = {"n": result.compared, "fail_limit": evidence.pipeline.model.golden.atol}
    if result.passed:
        yield check.finding(Verdict.PASS, f"{result.compared} golden rows as recorded", **facts)
    else:
        yield check.finding(Verdict.FAIL, f"golden rows are not as recorded: {result.worst}", **facts)


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


# Population and rows -----------------------------------------------------------------------------------------------


def population_size(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """S3: an empty or suddenly small population is a query that failed, more often than a business that ended."""
    selection, pipeline = _selection(evidence), evidence.pipeline
    count, before = selection.population, evidence.served_rows
    facts: dict[str, object] = {"observed": float(count), "unit": "entities", "n": count}
    if selection.null_keys:
        reason = f"{selection.null_keys:,} entities have a NULL in their key"
        yield check.finding(Verdict.FAIL, reason, **facts)
    elif count == 0 and not pipeline.entity.allow_empty:
        reason = "the population is empty; declare allow_empty = true in [entity] if that may be"
        yield check.finding(Verdict.FAIL, reason, **facts)
    elif before and count and count < pipeline.coverage.shrink * before:
        reason = f"{count:,} entities, {before:,} were served: less than {pipeline.coverage.shrink:.0%} of them"
        yield check.finding(Verdict.FAIL, reason, **facts, fail_limit=pipeline.coverage.shrink * before)
    else:
        yield check.finding(Verdict.PASS, f"{count:,} entities", **facts)


def skipped(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R4: entities that the run skipped, scored again at their own as_of, must agree with what is served."""
    if not evidence.resampled:
        yield check.finding(Verdict.SKIPPED, "nothing was skipped")
        return
    facts = {"observed": float(evidence.disagreeing), "fail_limit": 1.0, "unit": "entities", "n": evidence.resampled}
    if evidence.disagreeing:
        reason = (
            f"{evidence.disagreeing:,} of {evidence.resampled:,} skipped entities score otherwise at the same as_of: changes.sql "
            f"misses changes, or late_by is too short. Run `prescore score {evidence.pipeline.name} --full`"
        )
        yield check.finding(Verdict.FAIL, reason, **facts)
    else:
        yield check.finding(Verdict.PASS, f"{evidence.resampled:,} skipped entities score the same", **facts)


def torn(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R4: what was written is what was to be written: count, and checksum of the keys."""
    selection, staged = _selection(evidence), evidence.staged
    assert staged is not None
    wanted = selection.selected
    facts = {"observed": float(staged.rows), "fail_limit": float(wanted), "unit": "rows", "n": wanted}
    if staged.rows != wanted:
        more = "more" if staged.rows > wanted else "fewer"
        reason = (
            f"{staged.rows:,} rows were written for {wanted:,} entities, {abs(staged.rows - wanted):,} {more}: the feature query "
            "returns rows for entities that are not in batch, or leaves some out"
        )
        yield check.finding(Verdict.FAIL, reason, **facts)
    elif staged.key_checksum == selection.expected_checksum:
        yield check.finding(Verdict.PASS, f"{staged.rows:,} rows for {wanted:,} entities", **facts)
    else:
        reason = f"{staged.rows:,} rows were written, but for other entities than those to be scored"
        yield check.finding(Verdict.FAIL, reason, **facts)


def missing(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R2: entities of the population without a feature row: a join that drops them, or a LIMIT."""
    selection, tally = _selection(evidence), _tally(evidence)
    count = tally.reasons["no_features"]
    warn, fail = (
        max(float(REJECTED_FLOOR), share * selection.population) for share in evidence.pipeline.coverage.missing
    )
    facts = {
        "observed": float(count),
        "warn_limit": warn,
        "fail_limit": fail,
        "unit": "entities",
        "n": selection.population,
    }
    verdict = Verdict.FAIL if count > fail else Verdict.WARN if count > warn else Verdict.PASS
    origin = evidence.pipeline.features.query.origin
    reason = (
        f"{count:,} of {selection.population:,} entities have no row in {origin}"
        if count
        else "every entity has features"
    )
    yield check.finding(verdict, reason, **facts)


def rejected(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R2: entities that could not be scored, among the population."""
    selection, tally = _selection(evidence), _tally(evidence)
    limit = max(REJECTED_FLOOR, REJECTED_SHARE * selection.population)
    facts = {"observed": float(tally.rejected), "fail_limit": limit, "unit": "entities", "n": selection.population}
    why = ", ".join(f"{reason} {count:,}" for reason, count in tally.reasons.most_common(3))
    if tally.rejected > limit:
        reason = f"{tally.rejected:,} of {selection.population:,} entities were rejected ({why}), limit {limit:,.0f}"
        yield check.finding(Verdict.FAIL, reason, **facts)
    else:
        yield check.finding(
            Verdict.PASS, f"{tally.rejected:,} entities were rejected" + (f" ({why})" if why else ""), **facts
        )


def orphaned(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """R3: served entities that left the population are removed with this publication; here is how many."""
    gone = _selection(evidence).gone
    facts = {"observed": float(gone), "unit": "entities", "n": evidence.served_rows}
    yield check.finding(Verdict.PASS, f"{gone:,} entities left the population and are removed", **facts)


# Outputs -----------------------------------------------------------------------------------------------------------


def non_finite(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D4: predictions that are NaN or infinite are never published; a few are told, many hold (see rejected)."""
    tally = _tally(evidence)
    count = sum(n for reason, n in tally.reasons.items() if reason.startswith("non_finite:"))
    facts = {"observed": float(count), "warn_limit": 1.0, "unit": "rows", "n": tally.rows}
    if count:
        yield check.finding(Verdict.WARN, f"{count:,} predictions were NaN or infinite and are rejected", **facts)
    else:
        yield check.finding(Verdict.PASS, "every prediction is finite", **facts)


def constant(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D3: one score for everybody looks like success and is not."""
    tally = _tally(evidence)
    if tally.scored < CONSTANT_ROWS:
        yield check.finding(Verdict.SKIPPED, f"fewer than {CONSTANT_ROWS} predictions", n=tally.scored)
        return
    for output, (low, high) in sorted(tally.ranges.items()):
        facts = {"subject": output, "n": tally.scored}
        if low == high:
            reason = f"all {tally.scored:,} predictions are the same: a feature is lost, or the model never learnt"
            yield check.finding(Verdict.FAIL, reason, **facts)
        else:
            yield check.finding(Verdict.PASS, "predictions differ", **facts)


def _selection(evidence: Evidence) -> Selection:
    if evidence.selection is None:
        raise LookupError("the population was not selected")
    return evidence.selection


def _tally(evidence: Evidence) -> Tally:
    if evidence.tally is None:
        raise LookupError("nothing was scored")
    return evidence.tally


_G, _S, _C = CheckClass.GUARD, CheckClass.GAUGE, CheckClass.CLOCK
_ABORT, _HOLD, _FLAG = Disposition.ABORT, Disposition.HOLD, Disposition.PUBLISH_FLAGGED

#: Every check, in the order in which they are asked: cheap guards first.
CHECKS: tuple[Check, ...] = (
    Check(id="model.environment", code="M3", class_=_G, on_fail=_ABORT, ask=model_environment, when=Phase.GUARD),
    Check(
        id="schema",
        code="S5",
        class_=_G,
        on_fail=_ABORT,
        ask=schema,
        when=Phase.GUARD,
        remedy="Let features.sql return what the model expects, or promote a version that was trained without it.",
    ),
    Check(
        id="model.golden",
        code="M4",
        class_=_G,
        on_fail=_ABORT,
        ask=model_golden,
        when=Phase.GUARD,
        remedy="Promote another version of the model, or train again.",
    ),
    Check(
        id="logic",
        code="S6",
        class_=_G,
        on_fail=_ABORT,
        ask=logic,
        when=Phase.GUARD,
        remedy="Restore the query, or train on what it returns now.",
    ),
    Check(id="model.age", code="M1", class_=_C, on_fail=_FLAG, ask=model_age, when=Phase.GUARD),
    Check(
        id="source.age",
        code="S1",
        class_=_C,
        on_fail=_HOLD,
        ask=source_age,
        when=Phase.GUARD,
        remedy="Find out why the source is not loaded.",
    ),
    Check(
        id="source.future",
        code="S2",
        class_=_G,
        on_fail=_HOLD,
        ask=source_future,
        when=Phase.GUARD,
        remedy="Correct these rows, or declare another watermark.",
    ),
    Check(
        id="population.size",
        code="S3",
        class_=_G,
        on_fail=_HOLD,
        ask=population_size,
        when=Phase.POPULATION,
        remedy="Look at what [entity] query returns now.",
    ),
    Check(
        id="model.identity",
        code="M2",
        class_=_G,
        on_fail=_ABORT,
        ask=model_identity,
        when=Phase.ROWS,
        remedy="Run again.",
    ),
    Check(
        id="rows.torn",
        code="R4",
        class_=_G,
        on_fail=_ABORT,
        ask=torn,
        when=Phase.ROWS,
        remedy="Let features.sql return exactly one row for each (key, as_of) of batch.",
    ),
    Check(
        id="rows.missing",
        code="R2",
        class_=_G,
        on_fail=_HOLD,
        ask=missing,
        when=Phase.ROWS,
        remedy="Look for a LIMIT in features.sql and the views it reads, or a join that drops entities.",
    ),
    Check(
        id="rows.rejected",
        code="R2",
        class_=_G,
        on_fail=_HOLD,
        ask=rejected,
        when=Phase.ROWS,
        remedy="Mend what the reasons name, or train a model that accepts it.",
    ),
    Check(id="rows.orphaned", code="R3", class_=_G, on_fail=_HOLD, ask=orphaned, when=Phase.ROWS),
    Check(id="rows.skipped", code="R4", class_=_G, on_fail=_HOLD, ask=skipped, when=Phase.ROWS),
    Check(id="outputs.non_finite", code="D4", class_=_G, on_fail=_HOLD, ask=non_finite, when=Phase.ROWS),
    Check(
        id="outputs.constant",
        code="D3",
        class_=_G,
        on_fail=_HOLD,
        ask=constant,
        when=Phase.ROWS,
        remedy="Look at the features of a few entities; if they are right, promote another version of the model.",
    ),
)


def remedies(findings: Iterable[Finding]) -> str:
    """Return what to do about findings that keep a run from being published, each sentence once."""
    known = {check.id: check.remedy for check in CHECKS}
    return " ".join(dict.fromkeys(known[finding.check_id] for finding in findings if known[finding.check_id]))


__all__ = ["CHECKS", "Check", "Evidence", "Phase", "ask", "remedies"]
