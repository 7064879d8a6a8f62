"""How tests disturb runs: processes to kill, connections to end, locks to hold, and copies of a world to do it in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from tests.conftest import copy_database, execute, psql_url
from tests.factories import World, make_world

#: How many advisory locks are held in the database.
LOCKS = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
#: Connections of runs that wait for a lock of somebody else.
WAITING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'prescore%' AND wait_event_type = 'Lock'
"""


class Copies:
    """Worlds in copies of a database, which are quicker than new ones."""

    def __init__(self, server_url: str, folder: Path) -> None:
        self._server_url, self._folder = server_url, folder
        self._names: list[str] = []

    def of(self, source: str, rows: int | None = None) -> World:
        """Return a world in a copy of a database; ``rows`` items are created unless it is None."""
        name = f"copy_{uuid.uuid4().hex[:12]}"
        self._names.append(name)
        copy_database(self._server_url, name, source)
        return make_world(psql_url(self._server_url, name), self._folder, rows=rows)

    def close(self, world: World) -> str:
        """Let nobody connect to a world any more, so that it can be copied; return the name of its database."""
        name = world.url.rsplit("/", 1)[1].partition("?")[0]
        execute(self._server_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        return name

    def drop(self, keep: Collection[str] = ()) -> None:
        """Drop the databases that were made here."""
        for name in [name for name in self._names if name not in keep]:
            execute(self._server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            self._names.remove(name)


def command(world: World, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return a `prescore` command on a world, and its environment."""
    environment = {
        **os.environ,
        "PRESCORE_DATABASE_URL": world.url,
        "PRESCORE_PIPELINES": str(world.settings.pipelines_dir),
    }
    return [str(Path(sys.executable).with_name("prescore")), *arguments], environment


def prescore(world: World, *arguments: str, kill_at: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own, to its end or until it is killed at a point."""
    words, environment = command(world, *arguments)
    environment |= {"PRESCORE_TEST_KILL_AT": kill_at}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def process(world: World, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command as a process of its own, and kill it at the end unless it has ended."""
    words, environment = command(world, *arguments)
    started = subprocess.Popen(
        words,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores Ctrl-C, and what it starts would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - takes no lock
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
            started.communicate()


@contextmanager
def in_transaction(world: World, statement: str) -> Iterator[None]:
    """Run a statement and keep its transaction, with its locks, open."""
    connection = psycopg2.connect(psql_url(world.url))
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
        yield
    finally:
        connection.close()


def end_connection(world: World, name: str) -> None:
    """End the connections of a name as a network or a failing server would, and return when they are gone."""
    ended = world.rows(
        f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
        f"WHERE datname = current_database() AND application_name = '{name}'"
    )
    assert {gone for (gone,) in ended} == {True}


def wait_until(world: World, query: str) -> None:
    """Ask until the query finds a row."""
    deadline = time.monotonic() + 60
    while not world.rows(query):
        assert time.monotonic() < deadline, "nothing was found"
