"""What a run cost: sums, the cost of a million predictions, what is stored, and whose CPU time is counted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.backends import BackendMeter
from tasks.costs import PerMillion, RunCost, describe_cost
from tasks.stopwatch import StepTiming, Stopwatch


@dataclass
class Stage:
    """A stage of the stream."""

    seconds: float
    cpu_seconds: float


STEPS = (
    StepTiming(step="open the run", seconds=0.5, cpu_seconds=0.1, postgres_cpu_seconds=None),
    StepTiming(step="score", seconds=3.5, cpu_seconds=2.9, postgres_cpu_seconds=1.0),
)


def test_a_million_predictions_cost_the_whole_run_at_its_rate() -> None:
    cost = RunCost.of(STEPS, 500_000, {"predict": Stage(2.0, 1.9)})

    assert (cost.seconds, cost.cpu_seconds, cost.postgres_cpu_seconds) == (4.0, 3.0, 1.0)
    assert cost.per_million == PerMillion(seconds=8.0, cpu_seconds=6.0, postgres_cpu_seconds=2.0)
    assert describe_cost(cost) == (
        "4.0 s of CPU (3.0 s Python, 1.0 s PostgreSQL); per million predictions 8.0 s, and 8.0 s of CPU "
        "(6.0 s Python, 2.0 s PostgreSQL)"
    )


def test_a_run_without_predictions_has_a_cost_and_no_rate() -> None:
    cost = RunCost.of(STEPS, 0)

    assert cost.per_million is None
    assert describe_cost(cost) == "4.0 s of CPU (3.0 s Python, 1.0 s PostgreSQL)"


def test_where_the_server_is_elsewhere_its_share_is_unknown_and_never_zero() -> None:
    steps = [StepTiming(step="score", seconds=1.0, cpu_seconds=0.5)]
    cost = RunCost.of(steps, 1_000_000)

    assert cost.postgres_cpu_seconds is None
    assert cost.per_million == PerMillion(seconds=1.0, cpu_seconds=0.5, postgres_cpu_seconds=None)
    assert describe_cost(cost) == "0.50 s of CPU in Python; per million predictions 1.0 s, and 0.50 s of CPU in Python"


def test_what_is_stored_reads_back_the_same() -> None:
    cost = RunCost.of(STEPS, 500_000, {"predict": Stage(2.0, 1.9)})

    stored = json.loads(cost.as_stored())

    assert RunCost.from_json(stored) == cost
    assert stored["per_million"] == {"seconds": 8.0, "cpu_seconds": 6.0, "postgres_cpu_seconds": 2.0}


def test_work_counts_as_cpu_time_of_the_step_that_did_it() -> None:
    watch = Stopwatch()
    watch.stage("work")
    sum(range(2_000_000))
    watch.stage("rest")

    took = {timing.step: timing.cpu_seconds for timing in watch.timings()}
    assert took["work"] > 0
    assert took["work"] > took["rest"]


def backend(proc: Path, pid: int, ticks: int, command: bytes = b"postgres: prescore prescore [local] idle\0") -> None:
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    (folder / "cmdline").write_bytes(command)
    fields = ["S", *(["0"] * 10), str(ticks), "0", *(["0"] * 30)]
    (folder / "stat").write_text(f"{pid} (postgres) x) {' '.join(fields)}\n")


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred ticks a second."""
    monkeypatch.setattr("os.sysconf", lambda _: 100)


@pytest.mark.usefixtures("ticks")
def test_backends_count_from_their_start_to_their_end_one_after_the_other(tmp_path: Path) -> None:
    meter = BackendMeter(tmp_path)
    backend(tmp_path, 11, 20)
    meter.begun(11)
    backend(tmp_path, 12, 0)
    meter.begun(12)
    backend(tmp_path, 11, 150)
    meter.ended(11)
    backend(tmp_path, 12, 50)

    assert meter.seconds() == pytest.approx(2.0)
    backend(tmp_path, 11, 9_000)  # another process by now
    assert meter.seconds() == pytest.approx(2.0)


@pytest.mark.usefixtures("ticks")
def test_a_backend_that_died_keeps_what_was_seen_of_it(tmp_path: Path) -> None:
    meter = BackendMeter(tmp_path)
    backend(tmp_path, 11, 100)
    meter.begun(11)
    (tmp_path / "11" / "stat").unlink()
    meter.ended(11)

    assert meter.seconds() == pytest.approx(1.0)


@pytest.mark.usefixtures("ticks")
@pytest.mark.parametrize("command", [b"python\0-m\0something\0", b""])
def test_a_server_elsewhere_is_not_taken_for_the_process_of_that_number_here(tmp_path: Path, command: bytes) -> None:
    meter = BackendMeter(tmp_path)
    backend(tmp_path, 11, 0)
    meter.begun(11)
    backend(tmp_path, 12, 700, command)
    meter.begun(12)

    assert meter.seconds() is None
