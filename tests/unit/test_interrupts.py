"""What ends a wait for PostgreSQL: an answer, an interrupt, or patience that runs out."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator

import psycopg2
import psycopg2.extensions
import pytest

from tasks import interrupts
from tasks.database import connect
from tasks.errors import PrescoreError


@pytest.fixture
def _answering() -> Iterator[None]:
    interrupts.answer_interrupts()
    yield
    psycopg2.extensions.set_wait_callback(None)


@pytest.mark.usefixtures("_answering")
def test_a_server_that_never_accepts_a_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "CONNECT_SECONDS", 0)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(PrescoreError, match="timeout expired"),
        connect(f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/nothing"),
    ):
        pass


def test_work_in_the_driver_returns_its_result_or_raises_its_error() -> None:
    def fail() -> None:
        raise ValueError("from the driver")

    assert interrupts.interruptibly(threading.current_thread, lambda: None) is not threading.main_thread()
    with pytest.raises(ValueError, match="from the driver"):
        interrupts.interruptibly(fail, lambda: None)


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, even where the tests run in the background and would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_an_interrupt_cancels_what_the_driver_does_and_is_raised() -> None:
    cancelled = threading.Event()
    ctrl_c_goes_to = threading.get_ident()

    def work() -> None:
        signal.pthread_kill(ctrl_c_goes_to, signal.SIGINT)
        assert cancelled.wait(30)

    with pytest.raises(KeyboardInterrupt):
        interrupts.interruptibly(work, cancelled.set)
