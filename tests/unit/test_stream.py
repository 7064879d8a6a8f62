"""The stream: stages at the same time, results in order, bounded, and ended by whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tasks import logs
from tasks.stream import StageCost, Stream

#: How long a test waits for what must happen; only a broken stream ever waits so long.
PATIENCE = 20.0


def threads_of_streams() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prescore stage-")]


@pytest.mark.parametrize("threads", [1, 4])
def test_results_come_in_the_order_of_the_items_through_several_stages(threads: int) -> None:
    with Stream() as stream:
        doubled = stream.stage("stage-double", lambda x: 2 * x, range(500), depth=2 * threads, threads=threads)
        texts = stream.stage("stage-text", str, doubled, depth=1)

        assert list(texts) == [str(2 * x) for x in range(500)]
        assert list(texts) == []

    assert threads_of_streams() == []
    assert stream.costs["stage-double"].items == stream.costs["stage-text"].items == 500


def test_what_its_threads_log_is_about_the_run_that_the_stream_belongs_to() -> None:
    with logs.about(run_id=7), Stream() as stream:
        found = list(stream.stage("stage-told", lambda _: logs.current(), range(4), depth=2, threads=2))

    assert found == [{"run_id": 7}] * 4


def test_stages_work_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def meet(item: int) -> int:
        both.wait(PATIENCE)
        return item

    with Stream() as stream:
        first = stream.stage("stage-first", meet, range(3), depth=1)
        second = stream.stage("stage-second", lambda item: item, first, depth=1)
        for expected in range(3):
            both.wait(PATIENCE)
            assert next(second) == expected


def test_two_threads_of_a_stage_work_at_the_same_time() -> None:
    both = threading.Barrier(2)
    with Stream() as stream:
        assert list(stream.stage("stage-met", lambda _: both.wait(PATIENCE) < 2, range(10), depth=2, threads=2)) == (
            [True] * 10
        )


@pytest.mark.parametrize(("threads", "depth"), [(1, 1), (1, 3), (3, 3), (3, 5)])
def test_a_stage_never_runs_further_ahead_than_its_depth(threads: int, depth: int) -> None:
    taken = 0
    grown = threading.Condition()

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(100):
            with grown:
                taken += 1
                grown.notify_all()
            yield item

    with Stream() as stream:
        results = stream.stage("stage-ahead", lambda item: item, items(), depth=depth, threads=threads)
        for given in range(20):
            with grown:
                assert grown.wait_for(lambda: taken >= given + depth, PATIENCE)  # noqa: B023 - called at once
            # Every thread that could take one more has seen that there is no room, or is about to.
            assert taken <= given + depth
            assert next(results) == given


def failing(at: int) -> Callable[[int], int]:
    def work(item: int) -> int:
        if item == at:
            raise ValueError(f"item {item}")
        return item

    return work


@pytest.mark.parametrize("threads", [1, 3])
def test_an_exception_of_a_stage_is_raised_where_its_item_was_due(threads: int) -> None:
    with Stream() as stream:
        failed = stream.stage("stage-fail", failing(7), range(100), depth=4, threads=threads)
        after = stream.stage("stage-after", lambda item: item, failed, depth=4)
        seen: list[int] = []
        with pytest.raises(ValueError, match="item 7"):
            seen.extend(after)

    assert seen == list(range(7))
    assert threads_of_streams() == []


def test_an_exception_of_the_source_comes_after_what_was_good() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the source broke")

    seen: list[int] = []
    with Stream() as stream:
        read = stream.stage("stage-read", lambda item: item, items(), depth=2)
        with pytest.raises(OSError, match="the source broke"):
            seen.extend(read)

    assert seen == [0, 1, 2]


def test_leaving_early_ends_all_threads_and_closes_the_source_in_its_own_thread() -> None:
    closed: list[str] = []

    def items() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.append(threading.current_thread().name)

    with Stream() as stream:
        first = stream.stage("stage-source", lambda item: item, items(), depth=2)
        second = stream.stage("stage-next", lambda item: item, first, depth=2, threads=3)
        assert next(second) == 0

    assert threads_of_streams() == []
    assert closed == ["prescore stage-source"]


def test_a_source_that_blocks_is_cancelled_until_it_ends() -> None:
    cancelled, blocked = threading.Event(), threading.Event()
    asked = 0

    def cancel() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:  # the first time it was too early
            cancelled.set()

    def items() -> Iterator[int]:
        yield 1
        blocked.set()
        cancelled.wait()
        raise OSError("canceled")

    with Stream(cancel) as stream:
        results = stream.stage("stage-read", lambda item: item, items(), depth=2)
        assert next(results) == 1
        assert blocked.wait(PATIENCE)

    assert asked >= 3
    assert threads_of_streams() == []


def test_a_model_that_is_at_work_is_not_waited_for() -> None:
    at_work, let_go = threading.Event(), threading.Event()

    def predict(item: int) -> int:
        at_work.set()
        let_go.wait(PATIENCE)
        return item

    with Stream() as stream:
        read = stream.stage("stage-read", lambda item: item, range(100), depth=1)
        stream.stage("stage-predict", predict, read, depth=1)
        assert at_work.wait(PATIENCE)

    assert threads_of_streams() == ["prescore stage-predict"]
    let_go.set()
    for thread in threading.enumerate():
        if thread.name == "prescore stage-predict":
            thread.join(PATIENCE)
    assert threads_of_streams() == []


def test_a_stream_that_was_read_to_its_end_cancels_nothing() -> None:
    asked: list[int] = []
    with Stream(lambda: asked.append(1)) as stream:
        assert sum(stream.stage("stage-sum", lambda item: item, range(10), depth=2)) == 45

    assert asked == []


def test_ctrl_c_of_the_reader_ends_the_stages() -> None:
    def read_one() -> None:
        with Stream() as stream:
            assert next(stream.stage("stage-many", lambda item: item, iter(int, 1), depth=2)) == 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_one()

    assert threads_of_streams() == []


def test_costs_are_counted_into_what_is_given_and_each_thread_is_prepared() -> None:
    costs: dict[str, StageCost] = {}
    prepared: list[str] = []
    with Stream(costs=costs) as stream:
        read = stream.ahead("stage-read", (sum(range(100_000)) for _ in range(5)), depth=1)
        list(
            stream.stage(
                "stage-work",
                lambda item: item,
                read,
                depth=2,
                threads=2,
                prepare_thread=lambda: prepared.append(threading.current_thread().name),
            )
        )

    assert list(costs) == ["stage-read", "stage-work"]
    assert costs["stage-read"].cpu_seconds > 0
    assert costs["stage-read"].seconds > 0
    assert prepared == ["prescore stage-work"] * 2
