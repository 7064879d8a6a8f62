"""The stream: stages that work at the same time, each in threads of its own, with a bounded number of batches between them.

A stage pulls from the one before it, works on what it got, and holds the results in their order for the one after it.
Nothing runs further ahead than its depth, so memory is bounded by the batch; an exception is raised where its item was due,
and closing the stream ends every stage.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from tasks import logs

In = TypeVar("In")
Out = TypeVar("Out")

# How often a stream that closes asks again for what blocks a stage to be cancelled, in seconds: a statement may not have
# begun yet when it was cancelled first.
_ASK_AGAIN = 0.1
# A wait of this length, in seconds, is repeated until what it waits for is there: a wait without end would not hear Ctrl-C.
_LISTEN = 1.0


@dataclass(kw_only=True)
class StageCost:
    """What a stage of a stream took, in seconds, summed over its threads; waiting for other stages is not counted."""

    seconds: float = 0.0
    #: CPU time of the stage's own threads; what a library computes in threads of its own is not in it.
    cpu_seconds: float = 0.0
    items: int = 0


@contextmanager
def took(cost: StageCost) -> Iterator[None]:
    """Add what the block takes to a cost."""
    before, before_cpu = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        cost.seconds += time.perf_counter() - before
        cost.cpu_seconds += time.thread_time() - before_cpu
        cost.items += 1


class StreamClosed(Exception):
    """Raised inside a stage whose stream was closed, to end it; nobody outside of a stream sees it."""


class Stream:
    """Stages in threads, connected by iterators.

    ``with Stream() as stream:`` then ``stream.stage(...)`` for each stage, from the source on; leaving the block ends all
    stages. ``cancel`` is called then, from the thread that leaves, as long as a stage is blocked where its items come from.
    """

    def __init__(self, cancel: Callable[[], None] = lambda: None, costs: dict[str, StageCost] | None = None) -> None:
        self._cancel = cancel
        self._changed = threading.Condition()
        self._stages: list[_Stage[Any, Any]] = []
        self.closed = False
        #: Name of a stage -> what it took so far.
        self.costs: dict[str, StageCost] = {} if costs is None else costs

    def stage(
        self,
        name: str,
        work: Callable[[In], Out],
        items: Iterable[In],
        *,
        depth: int,
        threads: int = 1,
        prepare_thread: Callable[[], None] = lambda: None,
    ) -> Iterator[Out]:
        """Begin a stage, and return its results in the order of its items.

        Parameters
        ----------
        name
            What the stage does, for messages and for :attr:`costs`.
        work
            Called with each item, by one of the stage's threads.
        items
            What the stage works on; iterated, and closed, by its threads alone.
        depth
            How many items may be taken and not yet handed on. At least the number of threads, or some are idle.
        threads
            How many items are worked on at once.
        prepare_thread
            Called once in each thread before its first item.
        """
        cost = self.costs.setdefault(name, StageCost())
        stage = _Stage(self, work, iter(items), depth, cost, self._changed)
        self._stages.append(stage)
        stage.start(name, threads, prepare_thread)
        return stage

    def ahead(self, name: str, items: Iterable[Out], *, depth: int) -> Iterator[Out]:
        """Begin a stage that only pulls: ``items`` does the work, and is counted as doing it."""
        cost = self.costs.setdefault(name, StageCost())
        source: Iterator[Out] = _Counted(iter(items), cost)
        stage: _Stage[Out, Out] = _Stage(self, lambda item: item, source, depth, StageCost(), self._changed)
        self._stages.append(stage)
        stage.start(name, 1, lambda: None)
        return stage

    def last(self, name: str, items: Iterable[Out]) -> Iterator[Out]:
        """Yield the items, and count what the caller does between them as a stage: the last one, in the caller's thread."""
        cost = self.costs.setdefault(name, StageCost())
        for item in items:
            with took(cost):
                yield item

    def close(self) -> None:
        """End all stages, and wait until their threads have ended; nothing happens the second time.

        A thread that is at work on an item is not waited for: nobody can interrupt a model. It ends after that item, whose
        result goes nowhere.
        """
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        for stage in self._stages:
            for thread in stage.threads:
                while thread.is_alive() and thread not in stage.working:
                    if not stage.exhausted:  # else there is no statement to cancel
                        with suppress(Exception):
                            self._cancel()
                    thread.join(_ASK_AGAIN)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Stage(Iterator[Out], Generic[In, Out]):
    """The threads of one stage, and their results in order."""

    def __init__(
        self,
        stream: Stream,
        work: Callable[[In], Out],
        items: Iterator[In],
        depth: int,
        cost: StageCost,
        changed: threading.Condition,
    ) -> None:
        self._stream, self._work, self._items, self._cost = stream, work, items, cost
        self._depth, self._changed = depth, changed
        self._taking = threading.Lock()
        self._results: dict[int, tuple[bool, Any]] = {}
        self._taken = self._given = self._ended_threads = 0
        #: How many results there will be; None until the items ended.
        self._total: int | None = None
        self.threads: list[threading.Thread] = []
        self._about = logs.current()
        #: Threads that are at work on an item.
        self.working: set[threading.Thread] = set()

    def start(self, name: str, threads: int, prepare_thread: Callable[[], None]) -> None:
        self.threads = [
            threading.Thread(target=self._run, args=(prepare_thread,), name=f"prescore {name}", daemon=True)
            for _ in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, prepare_thread: Callable[[], None]) -> None:
        logs.adopt(self._about)
        try:
            prepare_thread()
            while (taken := self._take()) is not None:
                number, item = taken
                before, before_cpu = time.perf_counter(), time.thread_time()
                result: tuple[bool, Any]
                self.working.add(threading.current_thread())
                try:
                    result = (True, self._work(item))
                except BaseException as error:
                    result = (False, error)
                self.working.discard(threading.current_thread())
                self._note(time.perf_counter() - before, time.thread_time() - before_cpu)
                del item, taken  # or a thread that waits for its next item would keep this one alive
                self._put(number, result)
                del result
        except BaseException as error:
            self._put_error(error)
        finally:
            self._end_thread()

    def _take(self) -> tuple[int, In] | None:
        """Return the next item and its number when there is room for its result; None when there is none left."""
        with self._taking:
            with self._changed:
                while self._taken - self._given >= self._depth and not self._stream.closed:
                    self._changed.wait()
                if self._stream.closed or self._total is not None:
                    return None
                number = self._taken
            try:
                item = next(self._items)
            except StopIteration:
                self._finish(number)
                return None
            except StreamClosed:
                return None
            except BaseException as error:
                self._put(number, (False, error))
                self._taken += 1
                self._finish(number + 1)
                return None
            self._taken += 1
            return number, item

    def _put(self, number: int, result: tuple[bool, Any]) -> None:
        with self._changed:
            self._results[number] = result
            if not result[0]:  # nothing after an exception is ever asked for
                self._total = number + 1 if self._total is None else min(self._total, number + 1)
            self._changed.notify_all()

    def _put_error(self, error: BaseException) -> None:
        with self._changed:
            self._results.setdefault(self._given, (False, error))
            self._total = self._given + 1
            self._changed.notify_all()

    def _finish(self, total: int) -> None:
        with self._changed:
            self._total = total if self._total is None else min(self._total, total)
            self._changed.notify_all()

    def _note(self, seconds: float, cpu_seconds: float) -> None:
        with self._changed:
            self._cost.seconds += seconds
            self._cost.cpu_seconds += cpu_seconds
            self._cost.items += 1

    def _end_thread(self) -> None:
        with self._changed:
            self._ended_threads += 1
            last = self._ended_threads == len(self.threads)
        if last:
            close = getattr(self._items, "close", None)
            if close is not None:  # by the thread that iterated them: a cursor is closed where it was used
                with suppress(Exception):
                    close()

    @property
    def exhausted(self) -> bool:
        """Whether no item will be taken any more."""
        return self._total is not None

    def __next__(self) -> Out:
        with self._changed:
            while True:
                if self._given in self._results:
                    good, value = self._results.pop(self._given)
                    break
                if self._total is not None and self._given >= self._total:
                    raise StopIteration
                if self._stream.closed:
                    raise StreamClosed
                self._changed.wait(_LISTEN)
            self._given += 1
            self._changed.notify_all()
        if not good:
            raise value
        result: Out = value
        return result


class _Counted(Iterator[Out]):
    """An iterator that takes the time of its items."""

    def __init__(self, items: Iterator[Out], cost: StageCost) -> None:
        self._items, self._cost = items, cost

    def __next__(self) -> Out:
        with took(self._cost):
            return next(self._items)

    def close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()
