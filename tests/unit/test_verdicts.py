"""What findings count as and what follows from them: laws that hold for any findings in any order, and single cases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.declaration import Unknown
from tasks.findings import CheckClass, Disposition, Finding, Followup, Verdict
from tasks.freshness import Judgement, judge
from tasks.pipeline import Pipeline, load_pipeline
from tasks.verdicts import History, Past, Rules, reached, settle

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
RULES = Rules(hits=2, runs=3, unknown=Unknown())
P, W, F, U, S = Verdict.PASS, Verdict.WARN, Verdict.FAIL, Verdict.UNKNOWN, Verdict.SKIPPED
GRAVITY = {P: 0, S: 0, W: 1, F: 2}
TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.items"
[features]
query = "SELECT b.id, b.as_of, i.a FROM batch AS b JOIN public.items AS i USING (id)"
[predictions]
p = { method = "predict" }
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder: Path = tmp_path_factory.mktemp("pipelines") / "items"
    folder.mkdir()
    (folder / "pipeline.toml").write_text(TOML, encoding="utf-8")
    return load_pipeline(folder)


def finding(verdict: Verdict, class_: CheckClass = CheckClass.GAUGE, **facts: object) -> Finding:
    values = {"check_id": "drift.input", "code": "D1", "reason": "0.31, limits 0.10 / 0.25", "class_": class_}
    return Finding(**{**values, "verdict": verdict, **facts})  # type: ignore[arg-type]


def history(*newest_last: Verdict, version: int = 1, small: bool = False, check: str = "drift.input") -> History:
    past = [Past(run_id=n, model_version=version, verdict=v, small_sample=small) for n, v in enumerate(newest_last)]
    return History({(check, ""): past[::-1]}, model_version=1)


def settled(verdict: Verdict, *before: Verdict, rules: Rules = RULES, **facts: object) -> Verdict:
    (found,) = settle([finding(verdict, **facts)], rules, history(*before))  # type: ignore[arg-type]
    assert found.verdict is verdict, "what was measured is never rewritten"
    return found.effective


def judged(
    pipeline: Pipeline, findings: list[Finding], *, served: datetime | None = NOW + timedelta(days=9)
) -> Judgement:
    return judge(
        pipeline,
        findings,
        as_of=NOW,
        now=NOW,
        train_data_until=NOW - timedelta(days=1),
        model_version=1,
        data_as_of=NOW - timedelta(hours=1),
        served_expires_at=served,
    )


INSTANTS = st.one_of(st.none(), st.integers(-100, 100).map(lambda hours: NOW + timedelta(hours=hours)))
FINDINGS = st.builds(
    Finding,
    check_id=st.sampled_from(["drift.input", "source.age", "schema", "rows.missing", "model.age"]),
    code=st.just("X1"),
    subject=st.sampled_from(["", "a", "b"]),
    class_=st.sampled_from(CheckClass),
    verdict=st.sampled_from(Verdict),
    reason=st.just("1 of 2"),
    on_fail=st.sampled_from([Disposition.PUBLISH_FLAGGED, Disposition.HOLD, Disposition.ABORT]),
    warn_until=INSTANTS,
    fail_until=INSTANTS,
    followups=st.frozensets(st.sampled_from(Followup)),
    small_sample=st.booleans(),
)
HISTORIES = st.lists(st.sampled_from([P, W, F, U]), max_size=8)
SERVED = INSTANTS


@given(findings=st.lists(FINDINGS, max_size=6), served=SERVED, data=st.data())
def test_the_order_of_findings_cannot_matter(
    pipeline: Pipeline, findings: list[Finding], served: datetime | None, data: st.DataObject
) -> None:
    unique = list({(f.check_id, f.subject): f for f in settle(findings, RULES, History())}.values())
    assert judged(pipeline, data.draw(st.permutations(unique)), served=served) == judged(
        pipeline, unique, served=served
    )


@given(findings=st.lists(FINDINGS, max_size=5), further=FINDINGS, served=SERVED)
def test_a_further_finding_makes_nothing_better(
    pipeline: Pipeline, findings: list[Finding], further: Finding, served: datetime | None
) -> None:
    before = judged(pipeline, settle(findings, RULES, History()), served=served)
    after = judged(pipeline, settle([*findings, further], RULES, History()), served=served)
    assert after.disposition >= before.disposition
    assert GRAVITY[after.promise.verdict] >= GRAVITY[before.promise.verdict]
    assert after.followups >= before.followups
    for name in ("aging_at", "stale_at", "expires_at", "model_stale_at"):
        assert getattr(after.promise, name) <= getattr(before.promise, name)


@given(before=HISTORIES, verdict=st.sampled_from([W, F, U]), small=st.booleans(), class_=st.sampled_from(CheckClass))
def test_unknown_never_counts_as_pass_and_no_guard_or_clock_is_softened(
    before: list[Verdict], verdict: Verdict, small: bool, class_: CheckClass
) -> None:
    (found,) = settle([finding(verdict, class_, small_sample=small)], RULES, history(*before))
    if verdict is U:
        assert found.effective is not P
        assert found.alarming or small
    elif class_ is not CheckClass.GAUGE:
        assert found.effective is verdict
    elif verdict is F:
        assert found.alarming


@given(before=HISTORIES, gauge=st.sampled_from([P, W, F, U, S]), worst=st.sampled_from([W, F]))
def test_a_gauge_never_raises_the_verdict_of_anything_else(
    pipeline: Pipeline, before: list[Verdict], gauge: Verdict, worst: Verdict
) -> None:
    other = finding(worst, CheckClass.GUARD, check_id="rows.missing")
    alone = judged(pipeline, settle([other], RULES, history(*before)))
    both = judged(pipeline, settle([other, finding(gauge)], RULES, history(*before)))
    assert both.disposition >= alone.disposition
    assert GRAVITY[both.promise.verdict] >= GRAVITY[alone.promise.verdict]
    assert set(alone.promise.reasons) <= set(both.promise.reasons)


# Persistence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "counts"),
    [
        ((), F, W),  # told at once, not confirmed yet
        ((), W, P),
        ((P, P), F, W),
        ((F,), F, F),
        ((F, P), F, F),
        ((F, P, P), F, W),
        ((W,), W, W),
        ((F,), W, W),  # two of at least warn
        ((F, F), P, F),  # one pass clears nothing
        ((F, F, P), P, P),  # two do
        ((F, F, W), W, W),  # fail is left, warn is not
        ((W, W, P), W, W),
        ((F, F, U), P, F),  # what was not answered is no pass
        ((F, F, P, U), P, P),
        ((F, U), F, F),
    ],
)
def test_a_gauge_counts_once_it_persists_and_clears_after_two_passes(
    before: tuple[Verdict, ...], now: Verdict, counts: Verdict
) -> None:
    assert settled(now, *before) is counts


def test_a_metric_that_flaps_around_its_limit_alarms_once() -> None:
    raw = [P, F, W, F, P, F, W, F, P, F]
    counted = [settled(verdict, *raw[:at]) for at, verdict in enumerate(raw)]
    rises = sum(GRAVITY[b] > 0 and GRAVITY[a] == 0 for a, b in zip([P, *counted], counted, strict=False))
    assert rises == 1
    assert counted[3:] == [F] * 7


def test_one_hit_is_enough_where_it_is_declared_and_an_old_one_does_not_bring_the_alarm_back() -> None:
    once = replace(RULES, hits=1, runs=5)
    assert settled(F, rules=once) is F
    assert not reached([2, 0, 0, 0], 2, once)


def test_answers_about_another_version_of_the_model_confirm_nothing() -> None:
    (found,) = settle([finding(F)], RULES, history(F, F, version=7))
    assert found.effective is W
    assert "1 of the last 3 runs" in found.told


# Unknown -------------------------------------------------------------------------------------------------------------


def test_what_is_unknown_counts_as_declared_and_fails_the_third_time_in_a_row() -> None:
    assert [settled(U), settled(U, U), settled(U, U, U), settled(U, U, P, U)] == [W, W, F, W]
    lenient = replace(RULES, unknown=Unknown(guard="warn", escalate_after=2))
    assert settled(U, rules=lenient, class_=CheckClass.GUARD) is W
    assert settled(U, U, rules=lenient, class_=CheckClass.GUARD) is F
    assert settled(U, class_=CheckClass.GUARD) is F


def test_too_few_rows_flag_nobody_and_never_escalate_unless_it_is_declared() -> None:
    (found,) = settle([finding(U, small_sample=True)], RULES, history(U, U, U, small=True))
    assert (found.effective, found.disposition) == (S, Disposition.PUBLISH)
    assert settled(U, rules=replace(RULES, unknown=Unknown(small_sample="fail")), small_sample=True) is F
    # An alarm is not silenced by too few rows, and small samples do not interrupt real failures to answer.
    assert settled(U, F, F, small_sample=True) is F
    mixed = [Past(run_id=n, model_version=1, verdict=U, small_sample=n == 1) for n in (2, 1, 0)]
    (found,) = settle([finding(U)], RULES, History({("drift.input", ""): mixed}, 1))
    assert found.effective is F


def test_a_clock_that_cannot_be_read_flags_what_is_published(pipeline: Pipeline) -> None:
    lenient = replace(RULES, unknown=Unknown(guard="warn"))
    unread = settle([finding(U, CheckClass.CLOCK, check_id="source.age")], lenient, History())
    found = judged(pipeline, unread)
    assert (found.disposition, found.promise.verdict) == (Disposition.PUBLISH_FLAGGED, W)


# Hold inversion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_", "served", "disposition"),
    [
        (CheckClass.CLOCK, NOW + timedelta(days=9), Disposition.HOLD),
        (CheckClass.CLOCK, NOW + timedelta(hours=1), Disposition.PUBLISH_FLAGGED),
        (CheckClass.CLOCK, NOW, Disposition.PUBLISH_FLAGGED),
        (CheckClass.CLOCK, None, Disposition.PUBLISH_FLAGGED),
        (CheckClass.GAUGE, NOW + timedelta(hours=1), Disposition.HOLD),
        (CheckClass.GAUGE, NOW, Disposition.PUBLISH_FLAGGED),
        (CheckClass.GUARD, NOW, Disposition.HOLD),
        (CheckClass.GUARD, None, Disposition.HOLD),
    ],
)
def test_holding_is_given_up_where_it_helps_nobody(
    pipeline: Pipeline, class_: CheckClass, served: datetime | None, disposition: Disposition
) -> None:
    held = replace(finding(F, class_, on_fail=Disposition.HOLD), settled=F)
    found = judged(pipeline, [held], served=served)
    assert found.disposition is disposition
    assert bool(found.overruled) is (disposition is Disposition.PUBLISH_FLAGGED)


def test_a_guard_that_failed_keeps_what_would_be_overruled_without_it(pipeline: Pipeline) -> None:
    clock = finding(F, CheckClass.CLOCK, check_id="source.age")
    guard = finding(F, CheckClass.GUARD, check_id="rows.missing")
    found = judged(pipeline, [clock, guard], served=None)
    assert found.disposition is Disposition.HOLD
    assert [f.check_id for f in found.blocking] == ["rows.missing", "source.age"]


# What follows --------------------------------------------------------------------------------------------------------


def test_follow_ups_are_the_union_over_what_counts_as_failed(pipeline: Pipeline) -> None:
    retrain = finding(F, followups=frozenset({Followup.RETRAIN}))
    source = finding(F, CheckClass.CLOCK, check_id="source.age", followups=frozenset({Followup.REFRESH_SOURCE}))
    first = judged(pipeline, settle([retrain, source], RULES, History()))
    assert first.followups == {Followup.REFRESH_SOURCE}, "drift is not confirmed yet"
    second = judged(pipeline, settle([retrain, source], RULES, history(F)))
    assert second.followups == {Followup.REFRESH_SOURCE, Followup.RETRAIN}
    assert second.promise.reasons[0] == "D1 drift.input: 0.31, limits 0.10 / 0.25"
