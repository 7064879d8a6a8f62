"""The PostgreSQL servers that a test run uses: the embedded one for all tests, and any other one that is installed
(15 to 18) for the tests of `tests/database` as well.

A server is started by the first test that needs it, in a folder that xdist's workers share, and stopped at the end of
the run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg2

from tasks import embedded

#: Folders of the run's servers begin with this; xdist's workers inherit it.
FOLDER_VARIABLE = "PRESCORE_TEST_SERVER"
#: The bin folder of another PostgreSQL to run every test on, in place of all others.
BINARIES_VARIABLE = "PRESCORE_TEST_POSTGRES"

SUPPORTED = range(15, 19)

_PREFIX = "prescore-tests-"
#: Files in memory. On ext4 a fifth of the time of all tests went to finding an inode for each file of each new database.
_MEMORY = Path("/dev/shm")
#: What a run of all tests needs at once is below 2 GiB.
_ROOM_BYTES = 2 << 30
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "128MB",
    # The log of 1,500 databases is read by nobody, and must fit into memory.
    "max_wal_size": "512MB",
}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A PostgreSQL to test on."""

    #: As `SHOW server_version_num` divides: 15, 18.
    major: int
    #: What `postgres --version` prints.
    version: str
    #: Its bin folder; None for the embedded one.
    binaries: Path | None

    @property
    def name(self) -> str:
        return f"postgres {self.major}"

    @property
    def folder(self) -> Path:
        """Its data folder; all servers of a run begin with the same name."""
        base = os.environ[FOLDER_VARIABLE]
        return Path(base if self.binaries is None else f"{base}-{self.major}")

    def url(self) -> str:
        """Start the server if it does not run, and return the address of its first database."""
        if os.geteuid() == 0:  # the server's account must get there
            self.folder.mkdir(mode=0o755, exist_ok=True)
        recipe = embedded.Recipe(binaries=self.binaries, settings=_SETTINGS, durable=False)
        url = embedded.ensure_running(self.folder, recipe=recipe)
        if self.major >= 16:
            _let_in_quickly(url)
        return url


def main_server() -> Server:
    """The server of every test: the embedded one, unless another is named."""
    named = os.environ.get(BINARIES_VARIABLE)
    if named:
        return _server(Path(named))
    major, version = _version(embedded.package_programs())
    return Server(major=major, version=version, binaries=None)


def all_servers() -> list[Server]:
    """The main server, then each supported major version that is installed beside it: on PATH or by Debian's package."""
    servers = [main_server()]
    if os.environ.get(BINARIES_VARIABLE):
        return servers
    on_path = shutil.which("postgres")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for folder in found:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            server = _server(folder)
            if server.major in SUPPORTED and server.major not in {known.major for known in servers}:
                servers.append(server)
    return servers


def short_lived() -> Path:
    """Return where servers that end with their tests keep their files: in memory, where that has room, else in /tmp.

    Either is near the root: a socket's path may have 107 bytes, and the server's account must get there.
    """
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return Path("/tmp")
    # Containers give 64 MB, from which no program may be started.
    roomy = found.f_bavail * found.f_frsize >= _ROOM_BYTES and not found.f_flag & os.ST_NOEXEC
    return _MEMORY if roomy and os.access(_MEMORY, os.W_OK | os.X_OK) else Path("/tmp")


def prepare_folder() -> Path:
    """Make the folder of the run's main server, and remove what killed test runs left behind."""
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(dir=short_lived(), prefix=f"{_PREFIX}{os.getpid()}-"))
    if os.geteuid() == 0:
        folder.chmod(0o755)
    os.environ[FOLDER_VARIABLE] = str(folder)
    return folder


def remove_folders(base: Path) -> None:
    """Stop the run's servers and remove their folders."""
    for folder in base.parent.glob(f"{base.name}*"):
        embedded.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
    os.environ.pop(FOLDER_VARIABLE, None)


def _remove_abandoned() -> None:
    """Stop the servers of our own test runs that were killed; the process id in the folder's name is theirs."""
    for folder in (found for base in (Path("/tmp"), _MEMORY) for found in base.glob(f"{_PREFIX}*-*")):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        try:
            ours = folder.stat().st_uid == os.geteuid()
        except FileNotFoundError:  # another test run has just ended
            continue
        if ours and pid.isdigit():
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                embedded.stop(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _let_in_quickly(url: str) -> None:
    """Let the password be checked by one round of hashing in place of 4,096, which took half the time of connecting."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(1)")  # other workers start at the same time
        cursor.execute("SELECT rolpassword LIKE 'SCRAM-SHA-256$1:%' FROM pg_authid WHERE rolname = current_user")
        if cursor.fetchone() == (False,):
            cursor.execute("SET LOCAL scram_iterations = 1")
            cursor.execute("ALTER ROLE CURRENT_USER PASSWORD %s", (connection.info.password,))


def _server(binaries: Path) -> Server:
    major, version = _version(binaries)
    return Server(major=major, version=version, binaries=binaries)


@cache  # it is asked for each file of tests
def _version(binaries: Path) -> tuple[int, str]:
    shown = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r"(\d+)(\.\d+)?", shown)
    assert number is not None, shown
    return int(number[1]), number[0]
