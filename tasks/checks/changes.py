"""Checks of a run against the one before: is its input new, and do predictions change as much as they usually do?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import sqlalchemy as sa

from tasks.checks.comparison import comparison
from tasks.checks.evidence import Check, Evidence
from tasks.columns import Column
from tasks.database import connect, load_query, one, quote, rows
from tasks.findings import Finding, Verdict
from tasks.outputs import continuous
from tasks.population import Mode
from tasks.readers import Objects

# Runs over fewer rows than this may well find nothing new, and are no measure of a share.
LEAST_ROWS = 50
# Predictions compared with those served: in whole pages, so that two million cost what five thousand do (20,000, of which
# each asks an index, took 0.13 s of a run). A share of 1 % is known to 0.15 %, and to 0.3 % where the rows of a page are alike.
SAMPLE_ROWS = 5_000
# A jump is so many times what is usual, the median of at least so many of the last runs.
JUMP, LEAST_RUNS, JUMP_RUNS = 5.0, 4, 28
# Fewer flips than this share, and a mean change of fewer standard deviations, are no jump whatever is usual.
LEAST_FLIPS, LEAST_CHANGE = 0.01, 0.05


def frozen(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D5: are all features what they were in the last run, although their sources moved?

    A job that succeeds every night on a copy of yesterday's input looks healthy to everybody but its readers. Its run
    holds: published, it would make old predictions look new.
    """
    compared = comparison(evidence)
    if compared is None or compared.rows < LEAST_ROWS or compared.mode is Mode.INCREMENTAL:
        yield check.finding(Verdict.SKIPPED, f"only full runs over at least {LEAST_ROWS} rows are compared")
        return
    before = _digests_before(evidence)
    if before is None:
        yield check.finding(Verdict.SKIPPED, "there is no earlier full run to compare this one with")
        return
    now = {name: (counts.rows, counts.digest) for name, counts in compared.features.items()}
    facts = {
        "n": compared.rows,
        "evidence": {"run": before["run_id"], "moved": (moved := _moved_since(evidence, before))},
    }
    if now != before["digests"]:
        yield check.finding(Verdict.PASS, f"features differ from those of run {before['run_id']}", **facts)
    elif moved and _exchanged(evidence):
        reason = f"the values of every feature are those of run {before['run_id']}, but other entities have them"
        yield check.finding(Verdict.PASS, reason, **facts)
    elif moved:
        reason = (
            f"every feature of every entity is what it was in run {before['run_id']}, although {', '.join(moved)} moved since: "
            "the features do not come from there any more"
        )
        yield check.finding(Verdict.FAIL, reason, **facts)
    else:
        known = "no required source moved since" if evidence.watermarks else "no source is declared that should move"
        reason = f"every feature is what it was in run {before['run_id']}; {known}"
        yield check.finding(Verdict.PASS, reason, **facts)


def _exchanged(evidence: Evidence) -> bool:
    """Say whether any sampled entity got another prediction: fingerprints of columns do not see who has which value."""
    if not _comparable(evidence):
        return False
    compared, changes = _changes(evidence, _single(evidence))
    return bool(compared) and any(change.get("equal", 1.0) < 1.0 for change in changes.values())


def _comparable(evidence: Evidence) -> bool:
    """Say whether the version that scores now made what is served, so that predictions differ by their features alone."""
    served = evidence.served
    return (
        served is not None
        and evidence.staged is not None
        and served.model_version == evidence.model.version
        and served.model == evidence.model.name
    )


def _single(evidence: Evidence) -> list[Column]:
    return [column for column in evidence.scorer.outputs if not column.postgres_type.endswith("[]")]


def _digests_before(evidence: Evidence) -> dict[str, Any] | None:
    """Return the fingerprints of the last full run that was published, and how old its sources were."""
    with connect(evidence.url, "prescore check") as connection:
        found = one(
            connection,
            "find_previous_profile",
            pipeline=evidence.pipeline.name,
            mode=Mode.FULL.value,
            before=evidence.snapshot.as_of,
        )
    if found is None:
        return None
    digests = {name: (count, int(digest)) for name, count, digest in found.columns}
    return {"run_id": found.run_id, "as_of": found.as_of, "ages": found.ages or {}, "digests": digests}


def _moved_since(evidence: Evidence, before: dict[str, Any]) -> list[str]:
    """Return the required sources whose newest row is newer than it was then."""
    moved = []
    for name, newest in evidence.watermarks.items():
        age = before["ages"].get(name)
        # Ages are stored as seconds in a float; a microsecond is what they lose.
        if newest is not None and age is not None and (newest - before["as_of"]).total_seconds() + age > 1e-3:
            moved.append(name)
    return sorted(moved)


def flips(evidence: Evidence, check: Check) -> Iterator[Finding]:
    """D5: did more predictions change than usually do, on a sample of the entities that are served?"""
    served, staged = evidence.served, evidence.staged
    if served is None or staged is None or not staged.rows:
        yield check.finding(Verdict.SKIPPED, "there is nothing served to compare with")
        return
    if not _comparable(evidence):
        yield check.finding(Verdict.SKIPPED, "another version of the model made what is served")
        return
    single = _single(evidence)
    compared, changes = _changes(evidence, single)
    if compared < LEAST_ROWS:
        yield check.finding(
            Verdict.SKIPPED, f"fewer than {LEAST_ROWS} entities were scored that are served", n=compared
        )
        return
    past = _changes_before(evidence)
    for column in single:
        yield _jump(check, evidence, column.name, compared, changes[column.name], past.get(column.name, []))


def _changes(evidence: Evidence, outputs: Sequence[Column]) -> tuple[int, dict[str, dict[str, float]]]:
    """Return how many entities were compared, and of each output the shares equal and flipped, and the mean change."""
    served, staged, run = evidence.served, evidence.staged, evidence.run
    assert served is not None
    assert staged is not None
    assert run is not None
    objects = Objects(
        pipeline=evidence.pipeline.name, key=evidence.scorer.contract.key, outputs=evidence.scorer.outputs
    )
    threshold = f"{evidence.pipeline.drift.threshold!r}::double precision"
    measures: list[str] = []
    for at, column in enumerate(outputs):
        now, then = f"n.{quote(column.name)}", f"s.{quote(column.name)}"
        declared = next(output for output in evidence.pipeline.predictions if output.name == column.name)
        flipped = f"{now} IS DISTINCT FROM {then}"
        if continuous(column, declared):
            chance = declared.method == "predict_proba"
            flipped = f"({now} >= {threshold}) <> ({then} >= {threshold})" if chance else "false"
            measures.append(f"avg(abs({now}::double precision - {then}::double precision)) AS change_{at}")
        measures.append(f"avg(({now} IS NOT DISTINCT FROM {then})::integer)::double precision AS equal_{at}")
        measures.append(f"avg(({flipped})::integer)::double precision AS flips_{at}")
    statement = load_query(
        "compare_with_served",
        {
            "measures": ", ".join(["count(*) AS compared", *measures]),
            "staged": objects.storage(staged.storage_id),
            "served": objects.storage(served.storage_id),
            "key_matches": " AND ".join(f"n.{quote(c.name)} = s.{quote(c.name)}" for c in objects.key),
        },
    )
    values = {"share": min(100.0, 100.0 * SAMPLE_ROWS / staged.rows), "generation_id": run.generation_id}
    with connect(evidence.url, "prescore check") as connection:
        row = connection.execute(sa.text(statement), values).mappings().one()
    found = {
        column.name: {
            name: float(row[f"{name}_{at}"])
            for name in ("equal", "flips", "change")
            if row.get(f"{name}_{at}") is not None
        }
        for at, column in enumerate(outputs)
    }
    return int(row["compared"]), found


def _changes_before(evidence: Evidence) -> dict[str, list[dict[str, float]]]:
    """Return what the check measured in earlier runs that were published, by output."""
    assert evidence.run is not None
    assert evidence.selection is not None
    found: dict[str, list[dict[str, float]]] = {}
    with connect(evidence.url, "prescore check") as connection:
        for row in rows(
            connection,
            "recall_changes",
            pipeline=evidence.pipeline.name,
            mode=evidence.selection.mode.value,
            model_version=evidence.model.version,
            run_id=evidence.run.run_id,
            most=JUMP_RUNS,
        ):
            found.setdefault(row.subject, []).append(row.evidence)
    return found


def _jump(
    check: Check,
    evidence: Evidence,
    name: str,
    compared: int,
    now: dict[str, float],
    past: Sequence[dict[str, float]],
) -> Finding:
    counts = evidence.comparison.outputs.get(name) if evidence.comparison is not None else None
    sd = counts.sd if counts is not None else None
    floors = {"flips": LEAST_FLIPS, "change": LEAST_CHANGE * sd if sd is not None else 0.0}
    facts: dict[str, Any] = {"subject": name, "n": compared, "evidence": {**now, "runs": len(past)}}
    told = ", ".join(
        [f"{now.get('equal', 0.0):.1%} are what they were", f"{now.get('flips', 0.0):.1%} flipped"]
        + ([f"the mean change is {now['change']:.3g}"] if "change" in now else [])
    )
    for measure, floor in floors.items():
        before = [run[measure] for run in past if measure in run]
        if measure not in now or len(before) < LEAST_RUNS:
            continue
        usual = median(before)
        limit = max(JUMP * usual, floor)
        if now[measure] > limit:
            which = "flips" if measure == "flips" else "mean change"
            reason = f"{told}: more than {JUMP:g} times the {which} of {len(before)} runs before ({usual:.3g})"
            facts |= {"observed": now[measure], "warn_limit": limit, "unit": measure}
            return check.finding(Verdict.WARN, reason, **facts)
    return check.finding(Verdict.PASS, told, **facts)
