"""The report of a run as Markdown, from made-up runs; stored ones are in tests/end_to_end/test_prefect.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tasks.costs import RunCost
from tasks.report import CheckLine, Report, StoredRun, artifact_key, write_markdown
from tasks.stopwatch import StepTiming, Stopwatch

AT = datetime(2026, 3, 1, 3, tzinfo=UTC)
RUN = StoredRun(
    run_id=812,
    pipeline="churn",
    status="published",
    trigger="scheduled",
    mode="incremental",
    as_of=AT,
    message="Published generation 812: 1,234,567 rows.",
    model="churn",
    model_version=14,
    population=1_234_567,
    scored=1_000,
    unchanged=1_233_563,
    rejected=4,
    new=100,
    changed=800,
    due=104,
    gone=7,
    rows_per_second=98_765.4,
    peak_memory=360_000_000,
    generation_id=812,
    data_as_of=AT,
    aging_at=AT,
    stale_at=AT,
    expires_at=AT,
)
TORN = CheckLine(
    check_id="rows.torn",
    code="R4",
    subject="",
    verdict="pass",
    effective="pass",
    reason="1,004 rows for 1,004 entities",
)
AGE = CheckLine(
    check_id="source.age",
    code="S1",
    subject="shop.orders",
    verdict="warn",
    effective="warn",
    reason="a | b\n<script> is 9 h old",
)
REPORT = Report(
    pipeline="churn",
    run=RUN,
    checks=(AGE, TORN),
    timings=(
        StepTiming(step="open the run", seconds=0.5),
        StepTiming(step="score", seconds=1.5, cpu_seconds=1.25, postgres_cpu_seconds=0.25),
    ),
)


def test_the_report_has_ledger_checks_and_times_with_numbers_as_people_write_them() -> None:
    told = write_markdown(REPORT)

    assert told.startswith(
        "# churn: Published\n\nPublished generation 812: 1,234,567 rows.\n\n**Readers see now:** nothing;"
    )
    assert "| 1,234,567 | 1,000 | 1,233,563 | 4 |" in told
    assert "100 new, 800 changed, 104 due, 7 gone; the checksum of the keys agrees." in told
    assert "| run | 812, scheduled, incremental |" in told
    assert "| model | churn version 14 |" in told
    assert "| data as of | 2026-03-01 03:00:00 UTC |" in told
    assert "| pass | rows.torn | R4 | 1,004 rows for 1,004 entities |" in told
    assert "| score | 1.50 | 75% | 1.25 | 0.25 |" in told
    assert "| **all** | **2.00** | 100% | **1.25** | **0.25** |" in told
    assert "**Cost:**" not in told


def test_the_report_says_what_the_run_cost_and_a_million_predictions() -> None:
    stage = {"predict": StepTiming(step="predict", seconds=1.4, cpu_seconds=1.3)}
    cost = RunCost.of(REPORT.timings, 1_000, stage).as_json()

    told = write_markdown(replace(REPORT, run=replace(RUN, cost=cost), timings=()))

    assert "| score | 1.50 | 75% | 1.25 | 0.25 |" in told
    assert "| predict | 1.40 | 1.30 |" in told
    assert (
        "**Cost:** 2.0 s, 1.5 s of CPU (1.2 s Python, 0.25 s PostgreSQL); per million predictions 2,000 s, and" in told
    )


def test_what_a_check_says_cannot_break_its_table_or_the_page() -> None:
    assert r"| **warn** | source.age shop.orders | S1 | a \| b &lt;script&gt; is 9 h old |" in write_markdown(REPORT)


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ((replace(TORN, verdict="fail", effective="fail"),), "**the checksum of the keys or the count differs**"),
        ((AGE,), "rows and keys were not compared: the run did not come that far"),
    ],
)
def test_a_ledger_that_was_not_proven_says_so(checks: tuple[CheckLine, ...], said: str) -> None:
    assert said in write_markdown(replace(REPORT, checks=checks))


def test_a_run_that_failed_early_has_no_empty_tables() -> None:
    early = replace(RUN, status="failed", population=None, scored=None, generation_id=None, message="It broke.")
    told = write_markdown(Report(pipeline="churn", run=early))

    assert told.startswith("# churn: Failed: not published\n\nIt broke.\n")
    assert "## " not in told


def test_a_run_that_was_refused_has_a_report_too() -> None:
    told = write_markdown(Report(pipeline="churn", run=None, refused="churn is pinned (rolled back)."))

    assert told.startswith("# churn: Refused\n\nchurn is pinned (rolled back).\n")


def test_the_key_of_the_reports_is_one_that_prefect_takes() -> None:
    assert artifact_key("flight_delay") == "flight-delay-report"


def test_a_stopwatch_takes_the_time_of_every_step_and_passes_on_what_it_hears() -> None:
    heard: list[object] = []

    class Listener:
        def stage(self, name: str) -> None:
            heard.append(name)

        def rows(self, done: int, total: int) -> None:
            heard.append((done, total))

    watch = Stopwatch(Listener())
    watch.stage("load the model")
    watch.rows(1, 2)
    watch.stage("score")

    assert heard == ["load the model", (1, 2), "score"]
    assert [timing.step for timing in watch.timings()] == ["open the run", "load the model", "score"]
    assert all(timing.seconds >= 0 for timing in watch.timings())
