"""PostgreSQL servers for a whole test run, and a database of its own for every test that asks for one."""

from __future__ import annotations

import gc
import logging
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import psycopg2
import psycopg2.extensions
import pytest
from hypothesis import settings

from tests.servers import FOLDER_VARIABLE, Server, all_servers, main_server, prepare_folder, remove_folders

# The same examples on every machine and in every run; no limit of time, since machines are shared. Slow tests draw anew.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

_FOLDER = pytest.StashKey[Path]()
_DATABASE_TESTS = Path(__file__).parent / "database"
# Plans, migrations, types and user SQL: where versions of PostgreSQL differ, it shows here.
_VERSIONS_DIFFER = {
    "test_columns.py",
    "test_migrations.py",
    "test_reader_indexes.py",
    "test_user_queries.py",
}
# The property of a test's report that says which server it used.
_USED = "postgres"


def pytest_configure(config: pytest.Config) -> None:
    if FOLDER_VARIABLE not in os.environ:
        config.stash[_FOLDER] = prepare_folder()
    addresses = ("PRESCORE_DATABASE_URL", "PRESCORE_DATABASE_URL_FILE", "PREFECT_API_URL")
    ours = ("PIPELINES", "DATA_DIR", "LOG_FORMAT", "METRICS_PORT", "OPENLINEAGE")
    for variable in (*addresses, *(f"PRESCORE_{name}" for name in ours)):
        os.environ.pop(variable, None)
    # Each of the many processes of the tests would compile all modules anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Threads that wait for the next small product of matrices take a core from other workers, and so in what tests start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_FOLDER, None)
    if folder is not None:
        remove_folders(folder)


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what lives as long as the run: all modules and tests."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    main, *others = all_servers()
    beside = "".join(f", {server.version} for tests/database" for server in others)
    return f"PostgreSQL: {main.version} for all tests{beside}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is tested of the database on every server: what versions differ in by default, all of it with `-m slow`."""
    path = metafunc.definition.path
    if "server_url" not in metafunc.fixturenames or not path.is_relative_to(_DATABASE_TESTS):
        return
    main, *others = all_servers()
    if others:
        marks = [] if path.name in _VERSIONS_DIFFER else [pytest.mark.slow]
        servers = [
            pytest.param(main, id=main.name),
            *(pytest.param(server, id=server.name, marks=marks) for server in others),
        ]
        metafunc.parametrize("server_url", servers, indirect=True, scope="session")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which servers were really used; `.ci/run` reads it."""
    used = Counter(
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == _USED
    )
    if used:
        counts = ", ".join(f"{version} ({tests:,} tests)" for version, tests in sorted(used.items()))
        terminalreporter.write_line(f"PostgreSQL used: {counts}")


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


def copy_database(server_url: str, name: str, template: str) -> None:
    """Make a database out of another one that nobody uses, file by file: half the time of copying by way of the log."""
    execute(server_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """The maintenance database of a server of the run: the main one, and each other one in tests/database."""
    return _started(getattr(request, "param", None) or main_server())


@pytest.fixture(scope="session")
def prefect_store_url() -> str:
    """The maintenance database of a server that Prefect's can store in: it needs pg_trgm, which the embedded one lacks."""
    for server in all_servers():
        url = _started(server)
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'")
            if cursor.rowcount:
                return url
    pytest.skip("no PostgreSQL here has pg_trgm, which the server of Prefect needs")


@pytest.fixture(scope="session")
def _template(server_url: str) -> str:
    """A database with all migrations to copy from."""
    return _migrated(server_url)


@pytest.fixture
def database_url(server_url: str, _template: str) -> Iterator[str]:
    """A fresh database with all migrations applied, dropped afterwards whoever is still connected."""
    yield from _fresh_database(server_url, _template)


@pytest.fixture(scope="module")
def module_database_url(server_url: str, _template: str) -> Iterator[str]:
    """A fresh database for a module whose tests only read what was made once."""
    yield from _fresh_database(server_url, _template)


def _fresh_database(server_url: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    copy_database(server_url, name, template)
    yield psql_url(server_url, name)
    execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(autouse=True)
def _logging_is_restored() -> Iterator[None]:
    """The command sets levels for its whole process, which goes on to the next test here."""
    loggers = [logging.getLogger(name) for name in ("prescore", "tasks", "flows")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def _waiting_is_restored() -> Iterator[None]:
    """Commands and flow runs change how their whole process waits for PostgreSQL, and a COPY of psycopg2 refuses that."""
    before = psycopg2.extensions.get_wait_callback()
    yield
    psycopg2.extensions.set_wait_callback(before)


@pytest.fixture(autouse=True)
def _server_is_told(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    if "server_url" in request.fixturenames:
        record_property(_USED, _answered_version(request.getfixturevalue("server_url")))


@cache
def _started(server: Server) -> str:
    return psql_url(server.url(), "postgres")


@cache
def _migrated(server_url: str) -> str:
    """Make the template, one per server and worker, so that no two copy from it at once."""
    from tasks.migrations import apply

    name = f"template_{os.environ.get('PYTEST_XDIST_WORKER', 'single')}_{uuid.uuid4().hex[:8]}"
    execute(server_url, f"CREATE DATABASE {name}")
    apply(psql_url(server_url, name))
    # Nobody connects any more, autovacuum included: a database that is in use cannot be copied.
    execute(server_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    return name


@cache
def _answered_version(server_url: str) -> str:
    """What the server itself answers, not what was meant to be started."""
    connection = psycopg2.connect(server_url)
    try:
        return str(connection.get_parameter_status("server_version")).split(" ")[0]
    finally:
        connection.close()
