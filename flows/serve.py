"""`prescore serve`: a Prefect server on loopback, and every pipeline on its schedules. Read ``serve`` first.

Importing this module imports no Prefect: server and runner are processes of their own, which are watched from here.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError, URLError

from flows.exporter import expose
from tasks.database import resolve_url
from tasks.deployments import Plan, plan
from tasks.errors import NothingToServe, PortTaken, PrefectUnreachable, PrescoreError, ServedAlready
from tasks.settings import Settings, wants_json_logs
from tasks.supervision import Keeper, Program

HOST = "127.0.0.1"
# Seconds between two questions of the runner for runs that are due: each is one request.
POLL_SECONDS = "3"
# Seconds between two looks at server and runner.
LOOK_EVERY = 1.0

#: Said of the server and of its clients: no telemetry, and no throw-away server in place of one that does not answer.
_QUIET = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
    # Runs import what is installed, not what lies in the folder that they happen to be started in.
    "PYTHONSAFEPATH": "1",
}
#: Addresses with passwords, each for one of the two only.
_OF_SERVER = ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")
_OF_RUNS = ("PRESCORE_DATABASE_URL", "PRESCORE_SOURCE_URL", "PRESCORE_DATABASE_URL_FILE", "PRESCORE_SOURCE_URL_FILE")


class Ending:
    """Whether somebody wants the end: the signal that asked first, and whether there was another."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signals: list[int] = []

    def ask(self, number: int, _frame: object) -> None:
        """Answer a signal."""
        self.signals.append(number)
        self.event.set()

    @property
    def hurried(self) -> bool:
        """Return whether somebody asked twice."""
        return len(self.signals) > 1

    @property
    def exit_code(self) -> int:
        """Return 130 after Ctrl-C, 0 after SIGTERM."""
        return 130 if self.signals[:1] == [signal.SIGINT] else 0


def serve(
    settings: Settings,
    *,
    port: int,
    limit: int,
    told: Callable[[Plan, str, Path | None], None],
    tell: Callable[[str], None],
    server: str | None = None,
) -> int:
    """Run every pipeline on its schedules until Ctrl-C or SIGTERM, and return the exit code.

    ``server`` is the API of a Prefect server to use instead of one of our own. ``told`` hears once what is served, where
    the page is, and the folder of the server if it is ours; ``tell`` hears what happens.

    Raises
    ------
    NothingToServe, PortTaken, ServedAlready, PrefectUnreachable, ProgramGivenUp
        Nothing is left running.
    """
    with ExitStack() as stack:
        home = stack.enter_context(hold_folder(settings.data_dir / "prefect"))
        wanted = read_plan(settings, tell)
        exporter = stack.enter_context(expose(settings))
        ending = stack.enter_context(answer_signals())
        if server is None:
            require_free(port)
            server = f"http://{HOST}:{port}/api"
            own = Keeper(_server_program(home, port, server), tell)
        else:
            require_answer(server)
            own = None
        look_at_database(settings, wanted.pipelines, tell)
        runner = Keeper(_runner_program(settings, home, server, limit, alone=own is not None), tell)
        if exporter is not None:
            tell(f"Metrics are at {exporter}.")
        told(wanted, server.removesuffix("/api"), None if own is None else home)
        try:
            keep(own, runner, ending, tell)
        finally:
            # The runs first, while the server can still be told how they ended.
            runner.end(lambda: ending.hurried)
            if own is not None:
                own.end(lambda: ending.hurried)
    return ending.exit_code


def keep(server: Keeper | None, runner: Keeper, ending: Ending, tell: Callable[[str], None]) -> None:
    """Keep server and runner running; the runner is started once the server answers, and outlives its deaths."""
    was_up = True
    while not ending.event.is_set():
        up = server is None or server.look()
        if up and not was_up and runner.process_id is not None:
            tell("The Prefect server answers again; schedules carry on.")
        was_up = up
        if up or runner.process_id is not None:
            # Who dies first must not be the server: the runner tells it how the runs ended.
            runner.look(() if server is None else (server.lifeline,) if server.process_id is not None else ())
        ending.event.wait(LOOK_EVERY)


@contextmanager
def hold_folder(home: Path) -> Iterator[Path]:
    """Keep the folder of server and runner to ourselves.

    Raises
    ------
    ServedAlready
    """
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    with (home / "serve.lock").open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ServedAlready(home, lock.read().strip()) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield home


def read_plan(settings: Settings, tell: Callable[[str], None]) -> Plan:
    """Return what is to be served; a broken folder is told and does not keep the others from it.

    Raises
    ------
    NothingToServe
    """
    wanted = plan(settings)
    for error in wanted.broken:
        tell(f"{error} The other pipelines are served.")
    if not wanted.deployments:
        raise NothingToServe(settings.pipelines_dir)
    return wanted


@contextmanager
def answer_signals() -> Iterator[Ending]:
    """Let Ctrl-C and SIGTERM ask for the end instead of bringing it about."""
    ending = Ending()
    before = {number: signal.signal(number, ending.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def look_at_database(settings: Settings, pipelines: Sequence[str], tell: Callable[[str], None]) -> None:
    """Start the embedded PostgreSQL, so that it is not a child of a run; a database that is not there may come yet.

    Whoever looks a pipeline up before its first publication is told that there was none.
    """
    try:
        url = resolve_url(settings)
    except PrescoreError as error:
        tell(f"{error} Runs will fail until then.")
        return
    from tasks import registration

    for each in pipelines:
        problem = registration.register_ahead(settings, url, each)
        if problem:
            tell(problem)


def require_free(port: int) -> None:
    """Refuse a port that something else listens on.

    Raises
    ------
    PortTaken
    """
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            raise PortTaken(port) from None


def require_answer(api: str) -> None:
    """Refuse a server that does not answer.

    Raises
    ------
    PrefectUnreachable
    """
    try:
        urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=10).close()
    except HTTPError:
        return  # it asks who we are: the runner will say
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise PrefectUnreachable(api, str(reason)) from None


def _server_program(home: Path, port: int, api: str) -> Program:
    def answers() -> bool:
        with suppress(URLError, OSError), direct.open(f"{api}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback is behind no proxy

    return Program(
        what="The Prefect server",
        command=[sys.executable, "-m", "flows.server", "--host", HOST, "--port", str(port)],
        environment=_without(_OF_RUNS) | _QUIET | {"PREFECT_HOME": str(home), "PREFECT_API_URL": api},
        folder=home,
        log=home / "server.log",
        answers=answers,
    )


def _runner_program(settings: Settings, home: Path, api: str, limit: int, *, alone: bool) -> Program:
    places = {"PRESCORE_PIPELINES": str(settings.pipelines_dir), "PRESCORE_DATA_DIR": str(settings.data_dir)}
    # The home of a server of somebody else stays theirs: it may hold the key that it asks for.
    ours = {"PREFECT_HOME": str(home)} if alone else {}
    # A run that somebody starts on the page begins within this; Prefect itself would look every ten seconds.
    looks = {"PREFECT_RUNNER_POLL_FREQUENCY": os.environ.get("PREFECT_RUNNER_POLL_FREQUENCY", POLL_SECONDS)}
    return Program(
        what="The runner",
        command=[sys.executable, "-m", "flows.runner", str(limit), *(["alone"] if alone else [])],
        environment=_without(_OF_SERVER) | _QUIET | places | ours | looks | {"PREFECT_API_URL": api},
        folder=home,
        patience=60.0,
    )


def _log_format() -> dict[str, str]:
    """Let Prefect's own lines be JSON where ours are."""
    return {"PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS": "tasks.logs.JsonHandler"} if wants_json_logs() else {}


def _without(names: tuple[str, ...]) -> dict[str, str]:
    direct = ",".join(part for part in (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), HOST) if part)
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return kept | {"NO_PROXY": direct, "no_proxy": direct} | _log_format()
