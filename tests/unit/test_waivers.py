"""Waivers: what is marked and what is not, until when, and what an incremental run keeps of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.findings import CheckClass, Disposition, Finding, Followup, Verdict
from tasks.freshness import Judgement, judge
from tasks.pipeline import Pipeline, load_pipeline
from tasks.waivers import Waiver, carry, deadline, matching, unknown_names, waivable, waive

NOW = datetime(2026, 3, 28, 12, tzinfo=UTC)
UNTIL = NOW + timedelta(hours=15)
KNOWN = ["schema", "model.golden", "model.environment", "model.age", "population.size", "source.rows", "drift.input"]
TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.items"
[features]
query = "SELECT b.id, b.as_of, i.a FROM batch AS b JOIN public.items AS i USING (id)"
[predictions]
p = { method = "predict" }
"""


def load(folder: Path, toml: str = "") -> Pipeline:
    folder = folder / "items"
    folder.mkdir()
    (folder / "pipeline.toml").write_text(TOML + toml, encoding="utf-8")
    return load_pipeline(folder)


def finding(check: str, verdict: Verdict = Verdict.FAIL, **facts: object) -> Finding:
    values = {"check_id": check, "code": "X1", "reason": "0.52 of 1.00", "class_": CheckClass.GUARD}
    return Finding(**{**values, "verdict": verdict, "settled": verdict, **facts})  # type: ignore[arg-type]


def waiver(*checks: str) -> Waiver:
    return Waiver(asked=checks, checks=frozenset(checks), because="sold", role="anna", os_user="root", until=UNTIL)


def judged(pipeline: Pipeline, findings: list[Finding], until: datetime) -> Judgement:
    return judge(
        pipeline,
        findings,
        as_of=NOW,
        now=NOW,
        train_data_until=until,
        model_version=1,
        data_as_of=NOW,
        served_expires_at=NOW + timedelta(days=9),
    )


def test_only_what_failed_and_was_named_is_waived_and_nothing_else_about_it_changes() -> None:
    named, warned, other = finding("source.rows"), finding("population.size", Verdict.WARN), finding("rows.missing")
    found = waive([named, warned, other], waiver("source.rows", "population.size"))
    assert found[1:] == [warned, other]
    assert found[0] == replace(
        named, waived=True, waived_until=UNTIL, note="waived by anna (user root) until 2026-03-29 03:00 UTC: sold"
    )
    assert (found[0].verdict, found[0].effective, found[0].disposition) == (
        Verdict.FAIL,
        Verdict.FAIL,
        Disposition.PUBLISH_FLAGGED,
    )
    assert found[0].told == "X1 source.rows: 0.52 of 1.00 (waived by anna (user root) until 2026-03-29 03:00 UTC: sold)"
    assert waive([named], None) == [named]


@pytest.mark.parametrize("golden", [Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN, Verdict.SKIPPED, None])
def test_other_libraries_are_waived_only_while_remembered_rows_come_out_the_same(golden: Verdict | None) -> None:
    beside = [] if golden is None else [finding("model.golden", golden)]
    (found, *_) = waive([finding("model.environment"), *beside], waiver("model.environment"))
    assert found.waived is (golden is Verdict.PASS)
    assert found.waived or found.note == "the waiver does not hold: model.golden did not pass"


def test_a_waived_age_of_the_model_counts_from_the_end_of_the_waiver(tmp_path: Path) -> None:
    pipeline, old = load(tmp_path), NOW - timedelta(days=90)
    age = finding("model.age", class_=CheckClass.CLOCK, on_fail=Disposition.PUBLISH_FLAGGED)
    refused = judged(pipeline, [age], old).promise
    assert (refused.model_stale_at, refused.verdict) == (old + timedelta(days=60), Verdict.PASS)
    waived = judged(pipeline, waive([age], waiver("model.age")), old).promise
    assert (waived.model_stale_at, waived.stale_at, waived.verdict) == (UNTIL, UNTIL, Verdict.FAIL)
    assert waived.expires_at == UNTIL + timedelta(hours=72)


@pytest.mark.parametrize(
    ("declared", "until"),
    [
        ("", NOW + timedelta(days=1)),
        ('[manual]\nlifetime = "2h"\n', NOW + timedelta(hours=2)),
        # The night on which clocks in Berlin go forward: three in the morning is an hour earlier in UTC.
        ('[schedule]\ntimezone = "Europe/Berlin"\nfull = "0 3 * * *"\n', datetime(2026, 3, 29, 1, tzinfo=UTC)),
        ('[schedule]\nincremental = "*/15 * * * *"\n', NOW + timedelta(minutes=15)),
        ('[schedule]\nfull = "0 3 * * 1"\nincremental = "*/15 * * * *"\n', datetime(2026, 3, 30, 3, tzinfo=UTC)),
    ],
)
def test_a_waiver_ends_at_the_next_deadline(tmp_path: Path, declared: str, until: datetime) -> None:
    assert deadline(load(tmp_path, declared), NOW) == until


def test_what_may_be_waived_is_what_is_declared_without_what_nobody_may_waive(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path, '[manual]\nmay_waive = ["model.*", "volume", "golden"]\nnever_waive = ["source.*", "nan"]\n'
    )
    assert waivable(pipeline, KNOWN) == ["model.age", "model.environment", "population.size"]
    assert matching("volume", KNOWN) == {"population.size", "source.rows"}
    assert unknown_names(pipeline, KNOWN) == [
        "may_waive: no check is called golden",
        "never_waive: no check is called nan",
    ]


def test_without_manual_volume_drift_and_the_age_of_the_model_may_be_waived(tmp_path: Path) -> None:
    pipeline = load(tmp_path)
    assert waivable(pipeline, KNOWN) == ["drift.input", "model.age", "population.size", "source.rows"]
    assert unknown_names(pipeline, []) == []


def test_an_incremental_run_keeps_what_it_could_not_ask_again_and_what_was_waived() -> None:
    drifted = finding("drift.input", Verdict.SKIPPED, subject="a", settled=Verdict.FAIL)
    volume = finding("population.size", Verdict.SKIPPED, subject="(run 7)", settled=Verdict.FAIL, waived=True)
    late = finding("source.late", Verdict.SKIPPED, settled=Verdict.WARN)
    now = [
        finding("drift.input", Verdict.SKIPPED, subject="a", settled=None),
        finding("drift.input", Verdict.SKIPPED, subject="b", settled=None),
        finding("population.size", Verdict.PASS),
        finding("source.late", Verdict.PASS),
    ]
    kept = carry(now, [drifted, volume, late])
    assert kept == [drifted, now[1], now[2], now[3], volume]
    # What was answered again is not kept: the new answer counts.
    again = [finding("drift.input", Verdict.PASS, subject="a")]
    assert carry(again, [drifted]) == again


def test_what_is_kept_still_asks_for_what_has_to_happen(tmp_path: Path) -> None:
    kept = finding("drift.inputs", Verdict.SKIPPED, settled=Verdict.FAIL, followups=frozenset({Followup.RETRAIN}))
    found = judged(load(tmp_path), [replace(kept, on_fail=Disposition.PUBLISH_FLAGGED)], NOW)
    assert (found.disposition, found.followups) == (Disposition.PUBLISH_FLAGGED, {Followup.RETRAIN})
