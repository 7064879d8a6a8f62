"""Ctrl-C while PostgreSQL works: both drivers would otherwise wait for the result, or lose the interrupt."""

from __future__ import annotations

import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg2.extensions

# How long a server may take to accept a connection.
CONNECT_SECONDS = 10
# PQstatus of an open connection; psycopg2 has no name for it.
_CONNECTION_OK = 0

Result = TypeVar("Result")


def answer_interrupts() -> None:
    """Let Ctrl-C end statements of the control path at once, in this process; for commands.

    psycopg2 waits in libpq otherwise, which does not return to Python before the result is there.
    """
    psycopg2.extensions.set_wait_callback(_wait)


def interruptibly(work: Callable[[], Result], cancel: Callable[[], None]) -> Result:
    """Do what blocks in the driver of the data path in another thread, so that Ctrl-C is heard in this one.

    Called by the main thread, that driver answers Ctrl-C itself: it cancels the statement, and the interrupt is lost.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    results: list[Result] = []
    raised: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="prescore statement", daemon=True).start()
    try:
        while not done.wait(1.0):
            continue
    except BaseException:
        while not done.wait(0.1):  # again, as the statement may not have begun when it was cancelled first
            with suppress(Exception):
                cancel()
        raise
    if raised:
        raise raised[0]
    return results[0]


def let_python_answer() -> None:
    """Let Ctrl-C interrupt Python again while the driver pulls rows from it: the model may work long on a batch."""
    answer = signal.getsignal(signal.SIGINT)
    if answer is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, answer)


def _wait(connection: Any) -> None:
    """Wait for the server as libpq asks for it; on an interrupt cancel the statement, then raise the interrupt."""
    interrupted: BaseException | None = None
    while True:
        try:
            wanted = connection.poll()
            if wanted == psycopg2.extensions.POLL_OK:
                break
            _wait_for_socket(connection, wanted)
        except psycopg2.Error:
            if interrupted is None:
                raise
            break
        except BaseException as error:
            if _opening(connection) or interrupted is not None:
                raise
            interrupted = error
            connection.cancel()
    if interrupted is not None:
        raise interrupted


def _wait_for_socket(connection: Any, wanted: int) -> None:
    ready = select.poll()
    ready.register(connection.fileno(), select.POLLIN if wanted == psycopg2.extensions.POLL_READ else select.POLLOUT)
    patience = CONNECT_SECONDS * 1_000 if _opening(connection) else None  # libpq leaves connect_timeout to us here
    if not ready.poll(patience):
        raise psycopg2.OperationalError("timeout expired")


def _opening(connection: Any) -> bool:
    return bool(connection.info.status != _CONNECTION_OK)
