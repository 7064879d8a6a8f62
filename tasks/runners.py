"""Runners: who scores the shards of a run. This process, processes on this machine, or a Dask or Ray cluster.

A runner takes one order and promises its result. What is asked of whom, again and until when, is decided here for all of
them, since none of the clusters knows when two workers may not both finish: the database does.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import queue
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import TYPE_CHECKING, Any, Protocol

from tasks import logs
from tasks.database import DatabaseUnreachable, connect, rows
from tasks.errors import PrescoreError
from tasks.interrupts import CONNECT_SECONDS
from tasks.shards import ShardTaken, add_up
from tasks.transport import StatementFailed
from tasks.workers import Order, Place, ShardFailed, order_for, score_shard, work

if TYPE_CHECKING:
    from tasks.declaration import Execution
    from tasks.population import Selection
    from tasks.registry import ModelVersion
    from tasks.runs import Run
    from tasks.scoring import Scorer, Tally
    from tasks.shards import Layout
    from tasks.transport import Session

logger = logging.getLogger(__name__)

# How often a shard is begun before the run gives up: a worker may die for reasons of its own, three of them have one.
ATTEMPTS = 3
# A shard is a straggler when it takes so many times as long as the finished ones did, and not before so many seconds.
STRAGGLES_TIMES, STRAGGLES_SECONDS = 4.0, 30.0
# Seconds between two looks for stragglers.
LOOK_SECONDS = 1.0

# Classes of SQLSTATE that say that the connection, not the statement, was at fault: another attempt may succeed.
_PASSING = {"08", "40", "53", "57"}


class WorkerLost(PrescoreError):
    """A worker died at a shard."""

    def __init__(self, worker: str, how: str) -> None:
        self.worker = worker
        super().__init__(
            f"Worker {worker} was lost ({how}). What it had not finished was not written; the last good publication is still "
            "served. Look for what ended it (memory, most often); run again: finished shards are kept."
        )


class RunnerMissing(PrescoreError):
    """The client of a cluster is not installed, or the cluster does not answer."""

    def __init__(self, runner: str, address: str | None, why: str) -> None:
        self.runner, self.address = runner, address
        super().__init__(
            f"No shard could be given to {runner} at {address}: {why}. Nothing was scored; what was published is still "
            f'served. Install the extra (`pip install "prescore[{runner}]"`), start the cluster or correct [execution] '
            'address; or declare runner = "local".'
        )


def stage(
    run: Run,
    scorer: Scorer,
    model: ModelVersion,
    session: Session,
    selection: Selection,
    storage_id: int,
    layout: Layout,
    tally: Tally,
) -> bool:
    """Have the open shards of a run scored into the next storage, and add up what was counted of all of them.

    One worker on this machine is this process itself: one shard after another, in the session of the run. Returns whether
    compiled code was found to differ from scikit-learn somewhere.

    Raises
    ------
    PrescoreError
        The first error of a shard that another attempt would not mend; what is finished stays, for the next run to keep.
    """
    execution = run.pipeline.execution
    done = sum(shard.counted.keys for shard in layout.shards) - sum(shard.counted.keys for shard in layout.open)

    def finished(count: int) -> None:
        nonlocal done
        done += count
        tally.progress(done)

    if execution.runner == "local" and execution.workers == 1:
        for shard in layout.open:
            finished(score_shard(run, scorer, selection, shard, storage_id, session))
    elif layout.open:
        orders = [order_for(run, scorer, model.version, storage_id, shard) for shard in layout.open]
        place = Place(url=run.url, source_url=run.source_url, pipelines=run.pipeline.folder.parent)
        with open_runner(execution, place) as runner:
            Crew(runner=runner, workers=execution.workers, url=run.url, finished=finished).score(orders)
    return add_up(run.url, run.run_id, layout, tally)


class Runner(Protocol):
    """Somebody who has shards scored."""

    def submit(self, order: Order) -> Future[int]:
        """Begin a shard; the future has its number of rows, or the error."""

    def abandon(self, future: Future[int]) -> None:
        """Wait no longer for a shard: its worker does not answer, and what it writes will not count."""


@dataclass(kw_only=True)
class _Attempt:
    order: Order
    begun: float


@dataclass(kw_only=True)
class Crew:
    """Has shards scored until all are, whoever dies on the way."""

    runner: Runner
    workers: int
    url: str
    #: Called with the rows of a shard when it is finished.
    finished: Callable[[int], None]
    clock: Callable[[], float] = time.monotonic
    _active: dict[Future[int], _Attempt] = field(default_factory=dict)
    _begun: Counter[int] = field(default_factory=Counter)
    _seconds: list[float] = field(default_factory=list)
    _done: set[int] = field(default_factory=set)

    def score(self, orders: Sequence[Order]) -> None:
        """Have all shards scored; ``workers`` of them at once.

        A shard whose worker died, or lost its connection, is given to another one. When no other is left to begin, one that
        takes far longer than they did is taken over: the backend that writes it is ended first, so that only one can commit.

        Raises
        ------
        PrescoreError
            The first error that another attempt would not mend.
        """
        todo = deque(orders)
        try:
            while todo or self._active:
                while todo and len(self._active) < self.workers:
                    self._begin(todo.popleft())
                done, _ = wait(self._active, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    again = self._take(future)
                    if again is not None:
                        todo.appendleft(again)
                if not todo and len(self._active) < self.workers:
                    todo.extend(self._stragglers())
        finally:
            for future in list(self._active):
                with suppress(PrescoreError):  # the database may be why the run ends
                    self._give_up(future)

    def _begin(self, order: Order) -> None:
        self._begun[order.shard] += 1
        self._active[self.runner.submit(order)] = _Attempt(order=order, begun=self.clock())

    def _take(self, future: Future[int]) -> Order | None:
        """Take a result; return the order when the shard has to be begun again."""
        attempt = self._active.pop(future)
        order = attempt.order
        try:
            count = future.result()
        except ShardTaken:
            count = order.keys  # finished by an attempt that was believed dead
        except Exception as error:
            if not passing(error) or self._begun[order.shard] >= ATTEMPTS:
                raise
            logger.warning("shard %d is begun again: %s", order.shard, error, extra={"run_id": order.run_id})
            return order
        self._done.add(order.shard)
        self._seconds.append(self.clock() - attempt.begun)
        self.finished(count)
        return None

    def _stragglers(self) -> Iterator[Order]:
        if not self._seconds:
            return
        limit = max(STRAGGLES_SECONDS, STRAGGLES_TIMES * statistics.median(self._seconds))
        for future, attempt in list(self._active.items()):
            waited = self.clock() - attempt.begun
            if waited > limit and self._begun[attempt.order.shard] < ATTEMPTS:
                logger.warning(
                    "shard %d is taken over after %.0f s",
                    attempt.order.shard,
                    waited,
                    extra={"run_id": attempt.order.run_id},
                )
                self._give_up(future)
                yield attempt.order

    def _give_up(self, future: Future[int]) -> None:
        """End what writes a shard, so that it can be begun anew, or the run can end."""
        self._end_writer(self._active.pop(future).order)
        self.runner.abandon(future)

    def _end_writer(self, order: Order) -> None:
        with connect(self.url, "prescore shards") as connection:
            rows(connection, "end_shard_writer", run_id=order.run_id, shard=order.shard)
            connection.rollback()


def passing(error: BaseException) -> bool:
    """Say whether another attempt at a shard may succeed: its worker or its connection was lost."""
    if isinstance(error, StatementFailed):
        return error.sqlstate is None or error.sqlstate[:2] in _PASSING
    if isinstance(error, ShardFailed):
        return error.lost
    return isinstance(error, WorkerLost | DatabaseUnreachable) or not isinstance(error, PrescoreError)


@contextmanager
def open_runner(execution: Execution, place: Place) -> Iterator[Runner]:
    """Open the runner that a pipeline declares; what it started is ended with it, a cluster is left as it was.

    Raises
    ------
    RunnerMissing
    """
    match execution.runner:
        case "dask":
            with _dask(str(execution.address)) as runner:
                yield runner
        case "ray":
            with _ray(str(execution.address)) as runner:
                yield runner
        case _:
            local = LocalRunner(execution.workers, place)
            try:
                yield local
            finally:
                local.close()


# This machine -------------------------------------------------------------------------------------------------------


class LocalRunner:
    """Processes of this machine, each begun with the first shard that it gets; one that dies is replaced.

    Processes, not threads, so that a crash takes one shard, and none waits for the interpreter of another; not because they
    cost less. Measured with 300,000 rows, 8 shards, two workers on two cores, CPU seconds of Python: one stream 3.7, shards one
    after another 4.3, two threads 4.9, two processes 12.3 (imports without compiled bytecode among them).
    """

    def __init__(self, workers: int, place: Place, work: Callable[[Any, Place], Any] = work) -> None:
        self._place, self._work = place, work
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._free: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="prescore shard")
        self._at_work: dict[Future[int], _Process] = {}
        self._all: list[_Process] = []
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, order: Any) -> Future[Any]:
        """Give a shard to a process that is free, or to a new one."""
        begun: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        future = self._pool.submit(self._call, order, begun)
        begun.put(future)
        return future

    def abandon(self, future: Future[int]) -> None:
        """End the process that has the shard."""
        future.cancel()
        with self._lock:
            process = self._at_work.get(future)
        if process is not None:
            process.end()

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            processes = list(self._all)
        for process in processes:
            process.end()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _call(self, order: Any, begun: queue.SimpleQueue[Future[Any]]) -> Any:
        future = begun.get()
        process = self._take_process()
        with self._lock:
            self._at_work[future] = process
        try:
            count = process.score(order)
        except WorkerLost:
            process.end()
            raise
        except BaseException:
            self._free.put(process)
            raise
        finally:
            with self._lock:
                del self._at_work[future]
        self._free.put(process)
        return count

    def _take_process(self) -> _Process:
        with suppress(queue.Empty):
            return self._free.get_nowait()
        with self._lock:
            if self._closed:
                raise WorkerLost("of this machine", "the run has ended")
            process = _Process(self._place, self._threads, self._work)
            self._all.append(process)
        return process


class _Process:
    """One process of this machine, which scores what comes through its pipe."""

    def __init__(self, place: Place, threads: int, work: Callable[[Any, Place], Any]) -> None:
        # Spawned: a fork would share the connections and the thread pools of this process.
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=serve, args=(other, place, threads, work), name="prescore worker", daemon=True
        )
        self._process.start()
        other.close()

    def score(self, order: Any) -> Any:
        """Have a shard scored and return its number of rows."""
        try:
            self._pipe.send(order)
            answer: Any = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise WorkerLost(f"process {self._process.pid}", f"exit status {self._process.exitcode}") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def end(self) -> None:
        """End the process, whatever it does."""
        with suppress(OSError):
            self._process.kill()
        self._process.join(5)


def serve(pipe: Connection, place: Place, threads: int, work: Callable[[Any, Place], Any] = work) -> None:
    """Score what comes through a pipe until it is closed; what a worker process of this machine does.

    It ends with the process that started it: otherwise it would hold a shard that nobody waits for.
    """
    import signal

    from threadpoolctl import threadpool_limits

    logs.configure()
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", str(threads))  # what the stream asks how many cores it has
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer; it ends its workers
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="prescore parent", daemon=True).start()
    # As many threads as this process has cores of its own: OpenMP pools of several processes on few cores fight.
    with threadpool_limits(limits=threads):
        while True:
            try:
                order = pipe.recv()
            except EOFError:
                return
            try:
                answer: Any = work(order, place)
            except BaseException as error:
                answer = error
            pipe.send(answer)


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


# Clusters -----------------------------------------------------------------------------------------------------------


@contextmanager
def _dask(address: str) -> Iterator[Runner]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise RunnerMissing("dask", address, "distributed is not installed") from None
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RunnerMissing("dask", address, f"the scheduler does not answer ({type(error).__name__})") from None
    try:
        yield _DaskRunner(client)
    finally:
        client.close()


class _DaskRunner:
    """Workers of a Dask cluster. When one dies, the scheduler itself gives its shards to others."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._remote: dict[Future[int], Any] = {}

    def submit(self, order: Order) -> Future[int]:
        """Give a shard to the scheduler."""
        promised: Future[int] = Future()
        # The same shard may be begun again: results must not be taken for one another's.
        remote = self._client.submit(work, order, pure=False, retries=0)
        self._remote[promised] = remote
        remote.add_done_callback(partial(_settle, promised))
        return promised

    def abandon(self, future: Future[int]) -> None:
        """Forget a shard that was given away."""
        remote = self._remote.pop(future, None)
        if remote is not None:
            remote.cancel()


def _settle(promised: Future[int], remote: Any) -> None:
    if promised.done():
        return
    if remote.status == "finished":
        promised.set_result(int(remote.result()))
    elif remote.cancelled():
        promised.set_exception(WorkerLost("of the Dask cluster", "the task was cancelled"))
    else:
        promised.set_exception(remote.exception())


@contextmanager
def _ray(address: str) -> Iterator[Runner]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Or else a run started by `uv run` would have the folder uploaded, and each worker install it again.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise RunnerMissing("ray", address, "ray is not installed") from None
    begun = not ray.is_initialized()
    if begun:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunnerMissing("ray", address, f"the cluster does not answer ({type(error).__name__})") from None
    # Retries are ours; what a task raised is unpacked.
    remote = ray.remote(max_retries=0, retry_exceptions=False)(work)
    try:
        yield _RayRunner(ray, remote)
    finally:
        if begun:
            ray.shutdown()


class _RayRunner:
    """Workers of a Ray cluster."""

    def __init__(self, ray: Any, remote: Any) -> None:
        self._ray, self._work = ray, remote
        self._refs: dict[Future[int], Any] = {}

    def submit(self, order: Order) -> Future[int]:
        """Give a shard to the cluster."""
        promised: Future[int] = Future()
        ref = self._work.remote(order)
        self._refs[promised] = ref
        ref.future().add_done_callback(partial(_pass_on, promised))
        return promised

    def abandon(self, future: Future[int]) -> None:
        """End the worker that has the shard."""
        ref = self._refs.pop(future, None)
        if ref is not None:
            with suppress(Exception):  # the cluster may be gone by now
                self._ray.cancel(ref, force=True)


def _pass_on(promised: Future[int], answered: Future[int]) -> None:
    if promised.done():
        return
    error = answered.exception()
    if error is None:
        promised.set_result(int(answered.result()))
    else:  # what the task raised travels inside an error of Ray's own
        cause = getattr(error, "cause", None)
        promised.set_exception(cause if isinstance(cause, PrescoreError) else error)
