"""A primary and a streaming standby of one PostgreSQL, for tests that read on a standby."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks import embedded
from tasks.embedded.programs import run as run_as
from tasks.embedded.programs import server_account
from tests.conftest import psql_url
from tests.servers import Server, short_lived


def can_replicate(server: Server) -> bool:
    """Whether pg_basebackup is beside a server's programs."""
    return (programs(server) / "pg_basebackup").exists()


def programs(server: Server) -> Path:
    """The bin folder of a server."""
    return server.binaries or embedded.package_programs()


@contextmanager
def replicate(server: Server) -> Iterator[tuple[str, str]]:
    """Start a primary and a standby that streams from it, and yield their addresses."""
    folder = short_lived() / f"prescore-standby-{time.time_ns()}"
    folder.mkdir(mode=0o755)
    settings = {"fsync": "off", "shared_buffers": "64MB"}
    recipe = embedded.Recipe(binaries=server.binaries, settings=settings, durable=False)
    account = server_account()
    try:
        primary = embedded.ensure_running(folder / "primary", recipe=recipe)
        standby = folder / "standby"
        (standby / "cluster").mkdir(mode=0o700, parents=True)
        if account.owner is not None:
            shutil.chown(standby / "cluster", *account.owner)
        backup = [programs(server) / "pg_basebackup", "-D", standby / "cluster", "-R", "-c", "fast", "-d"]
        done = run_as([*backup, psql_url(primary)], account=account, cwd=standby / "cluster")
        assert done.returncode == 0, done.stderr
        shutil.copy(folder / "primary" / "password", standby / "password")
        yield primary, embedded.ensure_running(standby, recipe=recipe)
    finally:
        for name in ("standby", "primary"):
            embedded.stop(folder / name)
        shutil.rmtree(folder, ignore_errors=True)
