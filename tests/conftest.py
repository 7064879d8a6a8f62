"""One PostgreSQL server for a whole test run, and a database of its own for every test that asks for one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from tasks import embedded

# The folder of the run's server; xdist's workers inherit it. The first test that needs the server starts it.
FOLDER_VARIABLE = "PRESCORE_TEST_SERVER"
# A bin folder of another PostgreSQL (15 to 18) to test against.
BINARIES_VARIABLE = "PRESCORE_TEST_POSTGRES"

_PREFIX = "prescore-tests-"
_FOLDER = pytest.StashKey[Path]()


def _recipe() -> embedded.Recipe:
    named = os.environ.get(BINARIES_VARIABLE)
    settings = {
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "max_connections": "200",
        "shared_buffers": "128MB",
    }
    return embedded.Recipe(binaries=Path(named) if named else None, settings=settings, durable=False)


def pytest_configure(config: pytest.Config) -> None:
    if FOLDER_VARIABLE not in os.environ:
        _remove_abandoned()
        # Directly below /tmp: a socket's path may have 107 bytes, and the server's account must get there.
        folder = Path(tempfile.mkdtemp(dir="/tmp", prefix=f"{_PREFIX}{os.getpid()}-"))
        if os.geteuid() == 0:
            folder.chmod(0o755)
        os.environ[FOLDER_VARIABLE] = str(folder)
        config.stash[_FOLDER] = folder
    for variable in ("PRESCORE_DATABASE_URL", "PRESCORE_PIPELINES", "PRESCORE_DATA_DIR", "PREFECT_API_URL"):
        os.environ.pop(variable, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_FOLDER, None)
    if folder is not None:
        embedded.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop(FOLDER_VARIABLE, None)


def _remove_abandoned() -> None:
    """Stop the servers of our own test runs that were killed; the process id in the folder's name is theirs."""
    for folder in Path("/tmp").glob(f"{_PREFIX}*-*"):
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


def pytest_report_header() -> str:
    programs = os.environ.get(BINARIES_VARIABLE) or embedded.package_programs()
    shown = subprocess.run([Path(programs) / "postgres", "--version"], capture_output=True, text=True, check=True)
    return f"database: {shown.stdout.strip()}"


def psql_url(url: str, database: str | None = None) -> str:
    """Return a URL without SQLAlchemy's driver, as psql and libpq take it; optionally of another database."""
    plain = re.sub(r"^postgresql\+\w+://", "postgresql://", url)
    return plain if database is None else re.sub(r"/[^/?]*(\?|$)", rf"/{database}\1", plain, count=1)


def execute(url: str, statement: str) -> None:
    """Run one statement outside of a transaction."""
    connection = psycopg2.connect(psql_url(url))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@pytest.fixture(scope="session")
def server_url() -> str:
    """The maintenance database of the run's server."""
    return psql_url(embedded.ensure_running(Path(os.environ[FOLDER_VARIABLE]), recipe=_recipe()), "postgres")


@pytest.fixture(scope="session")
def _template(server_url: str) -> Iterator[str]:
    """A database with all migrations, one per worker, so that no two copy from it at once."""
    name = f"template_{os.environ.get('PYTEST_XDIST_WORKER', 'single')}_{uuid.uuid4().hex[:8]}"
    execute(server_url, f"CREATE DATABASE {name}")
    from tasks.migrations import apply

    apply(psql_url(server_url, name))
    # Nobody connects any more, autovacuum included: a database that is in use cannot be copied.
    execute(server_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    yield name
    execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(server_url: str, _template: str) -> Iterator[str]:
    """A fresh database with all migrations applied, dropped afterwards whoever is still connected."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(server_url, f"CREATE DATABASE {name} TEMPLATE {_template}")
    yield psql_url(server_url, name)
    execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")
