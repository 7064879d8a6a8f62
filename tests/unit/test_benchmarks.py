"""The arithmetic of the benchmark: what counts towards the limit, medians, and ratios."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tests.benchmarks import limit, results, sampling


def stages(**changed: tuple[float, float]) -> dict[str, dict[str, float]]:
    """Every stage with its CPU seconds of Python and PostgreSQL."""
    found = dict.fromkeys(limit.STAGES, (1.0, 0.0)) | {"read": (5.0, 1.0), "decode": (1.0, 5.0)} | changed
    return {
        name: {"seconds": python + backends, "python": python, "backends": backends}
        for name, (python, backends) in found.items()
    }


def test_reading_counts_once_on_each_side() -> None:
    assert limit.shortest(stages(), cores=2) == 3.5  # one second of each of seven stages


def test_a_stage_of_one_thread_is_never_shared_between_cores() -> None:
    assert limit.shortest(stages(transform=(9.0, 0.0)), cores=2) == 9.0


def test_a_stage_with_threads_of_its_own_is() -> None:
    assert limit.shortest(stages(predict=(9.0, 0.0)), cores=2) == 7.5


def test_writing_has_a_thread_on_each_side() -> None:
    assert limit.shortest(stages(write=(6.0, 6.0)), cores=4) == 6.0


def round_of(seconds: float, rows: int = 1_000) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "rows": rows,
        "python": 1.0,
        "backends": 1.0,
        "cpu": 2.0,
        "memory": 10**8,
        "process": 9.0,
        "threads": "2 x 1",
        "publish": 0.1,
        "move": 0.01,
    }


def test_ratios_compare_rows_per_second_of_the_same_round() -> None:
    mine, other = [round_of(1.0), round_of(2.0), round_of(9.0)], [round_of(2.0, 100) for _ in range(3)]
    assert results.faster(mine, other) == "10.00 (2.22–20.00)"
    assert results.times(mine, other, "seconds") == "0.10 (0.05–0.45)"


@pytest.mark.parametrize("rounds", [1, 3])
def test_tables_say_how_much_faster_than_whom(rounds: int) -> None:
    bounds = {"stages": stages(), "seconds": 3.5, "cpu": 7.0, "rows": 1_000}
    full: dict[str, list[dict[str, Any]]] = {
        "prescore": [round_of(4.2)] * rounds,
        "usual": [round_of(42.0)] * rounds,
        "expert": [round_of(6.3)] * rounds,
        "limit": [bounds] * rounds,
    }
    model = {
        "full": full,
        "incremental": {"0.01": [round_of(0.21, 10)] * rounds},
        "rollback": [{"rollback": 0.2, "resume": 0.01}] * rounds,
        "differences": {"expert": 0.0},
        "expert": "expert_whole",
        "not_compiled": "there is no C compiler on this machine",
    }
    machine = {"cores": 2, "processor": "a", "nice": 0, "python": "3", "libraries": {}, "openmp": {}}
    found = {
        "rows": 1_000,
        "repeat": rounds,
        "postgres": "18",
        "machine": machine,
        "models": {"boosted": model},
        "lookups": {"prepared": {"bare": {"p50": 100.0, "p99": 200.0, "lookups": 5}}},
        "load_before": 0.0,
        "load_after": 1.0,
    }
    printed = io.StringIO()
    results.show(Console(width=300, file=printed), found)
    text = printed.getvalue()
    (prescore,) = (line for line in text.splitlines() if line.strip().startswith("prescore, scikit-learn"))
    assert all(ratio in prescore for ratio in ("10.00", "1.50", "1.20"))
    assert "1/20.0" in text
    assert "There is no compiled form: there is no C compiler on this machine." in text


def test_samples_are_those_of_scoring_in_all_threads() -> None:
    raw = """\
process 7:"python";thread (7): "MainThread";main (runs.py);load_libraries (bench.py) 40
process 7:"python";thread (7): "MainThread";main (runs.py);score_once (runs.py);copy (transport.py) 10
process 7:"python";thread (8): "prescore predict";_predict (scoring.py);predict_proba (gb.py) 30
process 7:"python";thread (8): "prescore predict";get (queue.py);PyThread_acquire_lock_timed;0x7f97 (libc.so.6) 20
"""
    found = sampling.Samples.read(raw)
    assert found.threads == {"MainThread": 10, "prescore predict": 30}
    assert found.functions[("prescore predict", "predict_proba (gb.py)")] == 30
