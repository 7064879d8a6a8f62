"""Who is asked for a shard, and again: a crew of workers that are told what to do by a test."""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks import runners
from tasks.declaration import Execution
from tasks.errors import PrescoreError
from tasks.runners import ATTEMPTS, Crew, RunnerMissing, WorkerLost, passing
from tasks.scoring import ModelFailed
from tasks.shards import ShardTaken
from tasks.transport import StatementFailed
from tasks.workers import Order, Place, ShardFailed, WorkerDiffers

ORDER = Order(
    pipeline="items",
    run_id=7,
    generation_id=7,
    storage_id=1,
    snapshot="00000003-00000002-1",
    sources_apart=False,
    as_of=datetime(2026, 3, 1, tzinfo=UTC),
    shard=1,
    lower=None,
    upper=None,
    keys=100,
    key_checksum=Decimal(0),
    model_version=1,
    model_digest="",
    logic_digest="",
    contract_digest="",
    compiled=False,
    environment=(),
)
ORDERS = [replace(ORDER, shard=number) for number in (1, 2, 3, 4)]


class Told:
    """A runner whose workers answer as a test says: an error, a number of rows, or nothing at all."""

    def __init__(self, **answers: list[int | Exception | None]) -> None:
        self.answers = answers
        self.asked: list[int] = []
        self.abandoned: list[Future[int]] = []

    def submit(self, order: Order) -> Future[int]:
        self.asked.append(order.shard)
        future: Future[int] = Future()
        left = self.answers.get(f"s{order.shard}", [])
        answer = left.pop(0) if left else order.keys
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        return future

    def abandon(self, future: Future[int]) -> None:
        self.abandoned.append(future)


@pytest.fixture(autouse=True)
def _nobody_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crew, "_end_writer", lambda self, order: None)
    monkeypatch.setattr(runners, "LOOK_SECONDS", 0.001)


def crew(told: Told, finished: list[int]) -> Crew:
    """A crew of two whose clock is 10 s later each time it is looked at."""
    seconds = count(0, 10)
    return Crew(runner=told, workers=2, url="", finished=finished.append, clock=lambda: float(next(seconds)))


def test_a_shard_of_a_lost_worker_is_begun_again_and_counted_once() -> None:
    told, finished = Told(s2=[WorkerLost("a", "killed")], s3=[StatementFailed("Writing", "gone", "57P01")]), []
    crew(told, finished).score(ORDERS)
    assert sorted(told.asked) == [1, 2, 2, 3, 3, 4]
    assert finished == [100, 100, 100, 100]


def test_a_shard_that_another_attempt_finished_is_finished() -> None:
    told, finished = Told(s2=[ShardTaken(2)]), []
    crew(told, finished).score(ORDERS)
    assert finished == [100, 100, 100, 100]
    assert told.asked == [1, 2, 3, 4]


def test_a_shard_is_not_begun_for_ever() -> None:
    told = Told(s2=[WorkerLost("a", "killed")] * 9)
    with pytest.raises(WorkerLost, match="finished shards are kept"):
        crew(told, []).score(ORDERS)
    assert told.asked.count(2) == ATTEMPTS


def test_an_error_that_comes_again_ends_the_run_and_what_is_at_work() -> None:
    told = Told(s1=[None], s2=[ModelFailed("model.py", ValueError("x"), 0)])
    with pytest.raises(ModelFailed):
        crew(told, []).score(ORDERS)
    assert told.asked == [1, 2]
    assert len(told.abandoned) == 1


def test_a_straggler_is_taken_over_once_nobody_waits_for_a_shard() -> None:
    told, finished = Told(s1=[None]), []
    crew(told, finished).score(ORDERS)
    assert told.asked == [1, 2, 3, 4, 1]
    assert len(told.abandoned) == 1
    assert finished == [100, 100, 100, 100]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StatementFailed("Reading", "gone", "08006"), True),
        (StatementFailed("Reading", "gone", None), True),
        (StatementFailed("Reading", "division by zero", "22012"), False),
        (ShardFailed(1, "a:1", "OperationalError", lost=True), True),
        (ShardFailed(1, "a:1", "KeyError", lost=False), False),
        (WorkerDiffers("a:1", ["its logic differs"]), False),
        (RuntimeError("the cluster lost the task"), True),
        (PrescoreError("something else"), False),
    ],
    ids=str,
)
def test_what_another_attempt_may_mend(error: Exception, again: bool) -> None:
    assert passing(error) is again
    travelled = pickle.loads(pickle.dumps(error))
    assert (type(travelled), str(travelled)) == (type(error), str(error))
    assert passing(travelled) is again


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"shards": 4, "shard_rows": 1000}, "remove one of the two"),
        ({"runner": "dask"}, "needs the address of the cluster"),
        ({"address": "tcp://scheduler:8786"}, "declare the runner, or remove address"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"wokers": 2}, "Extra inputs are not permitted"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_declaration_that_cannot_be_meant_is_refused(declared: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Execution.model_validate(declared)


def test_a_cluster_that_does_not_answer_is_told_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(runners, "CONNECT_SECONDS", 0.2)
    execution = Execution(runner="dask", address="tcp://127.0.0.1:1")
    place = Place(url="", source_url="", pipelines=Path())
    with pytest.raises(RunnerMissing, match=r"dask at tcp://127.0.0.1:1"), runners.open_runner(execution, place):
        pass
