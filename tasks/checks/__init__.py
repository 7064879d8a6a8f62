"""The checks of a run: each is one small function with an id, a class and a verdict, registered in CHECKS.

Letter codes are those of the staleness taxonomy (S: source, M: model, D: distribution, R: rows, P: performance, T: time).
A check that raised is unknown, never absent. Guards run before scoring where they can: refusing is cheapest then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress

from tasks.checks import changes, features, inputs, model, outputs, performance, rows, sources, storage, times, values
from tasks.checks.evidence import Check, Evidence, Phase
from tasks.database import keep_connections, limit_statements
from tasks.freshness import CheckClass, Disposition, Finding, Followup, Verdict
from tasks.transport import ConflictWithRecovery, Session, StatementFailed

logger = logging.getLogger(__name__)


#: Seconds that a statement of a check may take, in the snapshot of the run and on connections of its own. A check asks for
#: counts and a watermark, which one pass over a table answers; what takes five minutes waits for a lock, or reads what no
#: check is meant to.
STATEMENT_SECONDS = 300.0

_CANCELLED = "57014"


def ask(evidence: Evidence, phase: Phase) -> list[Finding]:
    """Ask every check of a phase; the others are still asked when one raises, or a statement of it takes too long.

    Such a check is unknown. One that finds nothing to look at is skipped; no check is without a result.
    """
    findings: list[Finding] = []
    for session in _sessions(evidence):
        with suppress(StatementFailed):  # a session that is lost lets the checks that need it fail, and no other
            session.execute("SAVEPOINT prescore_checks")
            _limit(session)
    with keep_connections():
        for check in CHECKS:
            if check.when is phase:
                found = _ask_one(evidence, check)
                findings += found
                evidence.findings += found
    for session in _sessions(evidence):
        with suppress(StatementFailed):  # back to the limits of before, too
            session.execute("ROLLBACK TO SAVEPOINT prescore_checks")
            session.execute("RELEASE SAVEPOINT prescore_checks")
    return findings


def _sessions(evidence: Evidence) -> list[Session]:
    return [evidence.session] if evidence.sources is evidence.session else [evidence.session, evidence.sources]


def _ask_one(evidence: Evidence, check: Check) -> list[Finding]:
    try:
        with limit_statements(STATEMENT_SECONDS):
            return list(check.ask(evidence, check)) or [check.finding(Verdict.SKIPPED, "there is nothing to look at")]
    except ConflictWithRecovery:
        raise  # a standby that has to go on ends every statement of this snapshot: the run is over
    except Exception as error:
        logger.exception("check %s could not be asked", check.id)
        for session in _sessions(evidence):
            with suppress(StatementFailed):  # what failed ended the transaction, and the snapshot with it, but for this
                session.execute("ROLLBACK TO SAVEPOINT prescore_checks")
                _limit(session)
        return [check.finding(Verdict.UNKNOWN, f"could not be asked: {_cause(error)}")]


def _limit(session: Session) -> None:
    session.execute(f"SET LOCAL statement_timeout = {round(STATEMENT_SECONDS * 1000)}")


def _cause(error: Exception) -> str:
    """Return why a check could not be asked, without values of the data."""
    code = (
        error.sqlstate if isinstance(error, StatementFailed) else getattr(getattr(error, "orig", None), "pgcode", None)
    )
    if code == _CANCELLED:
        return f"a statement took longer than {STATEMENT_SECONDS:g} s"
    return error.cause if isinstance(error, StatementFailed) else type(error).__name__


_G, _S, _C = CheckClass.GUARD, CheckClass.GAUGE, CheckClass.CLOCK
_ABORT, _HOLD, _FLAG = Disposition.ABORT, Disposition.HOLD, Disposition.PUBLISH_FLAGGED
_LOOK = frozenset({Followup.INVESTIGATE})
# For what is no fault of the predictions: people who run it are told, readers are not.
_TELL = Disposition.PUBLISH

#: Every check, in the order in which they are asked: cheap guards first.
CHECKS: tuple[Check, ...] = (
    Check(id="model.environment", code="M3", class_=_G, on_fail=_ABORT, ask=model.model_environment, when=Phase.GUARD),
    Check(
        id="schema",
        code="S5",
        class_=_G,
        on_fail=_ABORT,
        ask=model.schema,
        when=Phase.GUARD,
        remedy="Let features.sql return what the model expects, or promote a version that was trained without it.",
    ),
    Check(
        id="model.golden",
        code="M4",
        class_=_G,
        on_fail=_ABORT,
        ask=model.model_golden,
        when=Phase.GUARD,
        remedy="Promote another version of the model, or train again.",
    ),
    Check(
        id="logic",
        code="S6",
        class_=_G,
        on_fail=_ABORT,
        ask=model.logic,
        when=Phase.GUARD,
        remedy="Restore the query, or train on what it returns now.",
        followups=frozenset({Followup.RESCORE}),
    ),
    Check(
        id="model.age",
        code="M1",
        class_=_C,
        on_fail=_FLAG,
        ask=model.model_age,
        when=Phase.GUARD,
        followups=frozenset({Followup.RETRAIN}),
    ),
    Check(
        id="source.age",
        code="S1",
        class_=_C,
        on_fail=_HOLD,
        ask=sources.source_age,
        when=Phase.GUARD,
        remedy="Find out why the source is not loaded.",
        followups=frozenset({Followup.REFRESH_SOURCE}),
    ),
    Check(
        id="source.future",
        code="S2",
        class_=_G,
        on_fail=_HOLD,
        ask=sources.source_future,
        when=Phase.GUARD,
        remedy="Correct these rows, or declare another watermark.",
    ),
    Check(
        id="source.rows",
        code="S3",
        class_=_G,
        on_fail=_HOLD,
        ask=sources.source_rows,
        when=Phase.GUARD,
        remedy="Load the rest of the source, or declare other limits for rows in [[source]].",
        followups=frozenset({Followup.REFRESH_SOURCE}),
    ),
    Check(
        id="source.every",
        code="S3",
        class_=_G,
        on_fail=_HOLD,
        ask=sources.source_every,
        when=Phase.GUARD,
        remedy="Load what is absent.",
        followups=frozenset({Followup.REFRESH_SOURCE}),
    ),
    Check(
        id="source.late",
        code="S3",
        class_=_G,
        on_fail=_HOLD,
        ask=sources.source_late,
        when=Phase.GUARD,
        followups=frozenset({Followup.RESCORE}),
    ),
    Check(
        id="schedule.missed",
        code="T1",
        class_=_C,
        on_fail=_TELL,
        ask=times.schedule_missed,
        when=Phase.GUARD,
        followups=frozenset({Followup.INVESTIGATE}),
    ),
    Check(
        id="clock.offset",
        code="T3",
        class_=_G,
        on_fail=_FLAG,
        ask=times.clock_offset,
        when=Phase.GUARD,
        followups=frozenset({Followup.INVESTIGATE}),
    ),
    Check(
        id="archive.owed",
        code="T5",
        class_=_G,
        on_fail=_TELL,
        ask=times.archive_owed,
        when=Phase.GUARD,
        remedy="Look at the address in [archive], its rights and its free space.",
    ),
    Check(
        id="population.size",
        code="S3",
        class_=_G,
        on_fail=_HOLD,
        ask=rows.population_size,
        when=Phase.POPULATION,
        remedy="Look at what [entity] query returns now.",
        followups=frozenset({Followup.REFRESH_SOURCE}),
    ),
    Check(
        id="storage.space",
        code="R5",
        class_=_G,
        on_fail=_HOLD,
        ask=storage.space,
        when=Phase.POPULATION,
        remedy="Free disk space of the database server, or give it more.",
    ),
    Check(id="storage.bloat", code="R6", class_=_G, on_fail=_TELL, ask=storage.bloat, when=Phase.POPULATION),
    Check(
        id="model.identity",
        code="M2",
        class_=_G,
        on_fail=_ABORT,
        ask=model.model_identity,
        when=Phase.ROWS,
        remedy="Run again.",
    ),
    Check(
        id="features.age",
        code="S4",
        class_=_C,
        on_fail=_HOLD,
        ask=features.features_age,
        when=Phase.ROWS,
        remedy="Load what these features are made of.",
        followups=frozenset({Followup.REFRESH_SOURCE}),
    ),
    Check(
        id="model.sentinels",
        code="M4",
        class_=_G,
        on_fail=_ABORT,
        ask=model.model_sentinels,
        when=Phase.ROWS,
        remedy="Look for a preprocess or a model that keeps something between batches.",
    ),
    Check(
        id="rows.torn",
        code="R4",
        class_=_G,
        on_fail=_ABORT,
        ask=rows.torn,
        when=Phase.ROWS,
        remedy="Let features.sql return exactly one row for each (key, as_of) of batch.",
    ),
    Check(
        id="rows.missing",
        code="R2",
        class_=_G,
        on_fail=_HOLD,
        ask=rows.missing,
        when=Phase.ROWS,
        remedy="Look for a LIMIT in features.sql and the views it reads, or a join that drops entities.",
    ),
    Check(
        id="rows.rejected",
        code="R2",
        class_=_G,
        on_fail=_HOLD,
        ask=rows.rejected,
        when=Phase.ROWS,
        remedy="Mend what the reasons name, or train a model that accepts it.",
    ),
    Check(id="rows.orphaned", code="R3", class_=_G, on_fail=_HOLD, ask=rows.orphaned, when=Phase.ROWS),
    Check(
        id="rows.skipped",
        code="R4",
        class_=_G,
        on_fail=_HOLD,
        ask=rows.skipped,
        when=Phase.ROWS,
        followups=frozenset({Followup.RESCORE}),
    ),
    Check(
        id="input.nulls",
        code="D3",
        class_=_G,
        on_fail=_HOLD,
        ask=values.nulls,
        when=Phase.ROWS,
        remedy="Look for a join that finds nothing any more, or a source that stopped filling the column.",
        followups=_LOOK,
    ),
    Check(
        id="input.range",
        code="D3",
        class_=_G,
        on_fail=_HOLD,
        ask=values.in_range,
        when=Phase.ROWS,
        remedy="Look whether a source changed its unit; if the values are right, train again or raise out_of_range in [drift].",
        followups=_LOOK,
    ),
    Check(
        id="input.unseen",
        code="D3",
        class_=_G,
        on_fail=_HOLD,
        ask=values.unseen,
        when=Phase.ROWS,
        remedy="Look whether a source spells its categories otherwise; if they are new, train again or raise unseen in [drift].",
        followups=_LOOK,
    ),
    Check(
        id="input.infinite",
        code="D3",
        class_=_G,
        on_fail=_HOLD,
        ask=values.infinite,
        when=Phase.ROWS,
        remedy="Look for a division by 0 in features.sql.",
        followups=_LOOK,
    ),
    Check(
        id="input.constant",
        code="D3",
        class_=_G,
        on_fail=_HOLD,
        ask=values.constant,
        when=Phase.ROWS,
        remedy="Look at what the source of the column holds now.",
        followups=_LOOK,
    ),
    Check(
        id="drift.input",
        code="D1",
        class_=_S,
        on_fail=_FLAG,
        ask=inputs.drift_input,
        when=Phase.ROWS,
        remedy="Look at the source of the feature; if it is right, train again.",
        followups=_LOOK,
    ),
    Check(
        id="drift.inputs",
        code="D1",
        class_=_S,
        on_fail=_FLAG,
        ask=inputs.drift_inputs,
        when=Phase.ROWS,
        remedy="Train again.",
        followups=frozenset({Followup.RETRAIN}),
    ),
    Check(
        id="drift.step",
        code="D2",
        class_=_S,
        on_fail=_FLAG,
        ask=inputs.drift_step,
        when=Phase.ROWS,
        remedy="Look at what changed in the source of the feature since the last runs.",
        followups=_LOOK,
    ),
    Check(id="outputs.non_finite", code="D4", class_=_G, on_fail=_HOLD, ask=outputs.non_finite, when=Phase.ROWS),
    Check(
        id="outputs.constant",
        code="D3",
        class_=_G,
        on_fail=_HOLD,
        ask=outputs.constant,
        when=Phase.ROWS,
        remedy="Look at the features of a few entities; if they are right, promote another version of the model.",
    ),
    Check(
        id="drift.output",
        code="D4",
        class_=_S,
        on_fail=_FLAG,
        ask=outputs.drift_output,
        when=Phase.ROWS,
        remedy="Look at which features changed; if they are right, train again.",
        followups=_LOOK,
    ),
    Check(
        id="output.rate",
        code="D4",
        class_=_S,
        on_fail=_FLAG,
        ask=outputs.rate,
        when=Phase.ROWS,
        remedy="Look at which features changed; if they are right, train again.",
        followups=_LOOK,
    ),
    Check(
        id="outputs.frozen",
        code="D5",
        class_=_G,
        on_fail=_HOLD,
        ask=changes.frozen,
        when=Phase.ROWS,
        remedy="Look whether features.sql reads a copy that nobody renews.",
        followups=_LOOK,
    ),
    Check(
        id="outputs.flips",
        code="D5",
        class_=_G,
        on_fail=_HOLD,
        ask=changes.flips,
        when=Phase.ROWS,
        remedy="Look at which features changed since the last run.",
        followups=_LOOK,
    ),
    Check(
        id="performance.calibration",
        code="P3",
        class_=_S,
        on_fail=_FLAG,
        ask=performance.calibrated,
        when=Phase.ROWS,
        followups=frozenset({Followup.INVESTIGATE}),
    ),
    Check(
        id="performance.metric",
        code="P1",
        class_=_S,
        on_fail=_FLAG,
        ask=performance.metric,
        when=Phase.ROWS,
        followups=frozenset({Followup.RETRAIN}),
    ),
    Check(
        id="performance.estimate",
        code="P2",
        class_=_S,
        on_fail=_FLAG,
        ask=performance.estimate,
        when=Phase.ROWS,
        followups=frozenset({Followup.INVESTIGATE}),
    ),
    Check(id="runs.hung", code="T2", class_=_C, on_fail=_TELL, ask=times.runs_hung, when=Phase.LAST),
    Check(
        id="rows.age", code="R1", class_=_C, on_fail=_FLAG, ask=times.rows_age, when=Phase.LAST, followups=frozenset()
    ),
    Check(
        id="checks.complete",
        code="T4",
        class_=_G,
        on_fail=_HOLD,
        ask=times.checks_complete,
        when=Phase.LAST,
        remedy="Look for the check in the log of this run.",
    ),
)


def remedies(findings: Iterable[Finding]) -> str:
    """Return what to do about findings that keep a run from being published, each sentence once."""
    known = {check.id: check.remedy for check in CHECKS}
    return " ".join(dict.fromkeys(known[finding.check_id] for finding in findings if known[finding.check_id]))


__all__ = ["CHECKS", "Check", "Evidence", "Phase", "ask", "remedies"]
