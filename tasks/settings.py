"""Where the database and the pipelines are: read once from the environment, passed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The places that a command works with."""

    #: PRESCORE_DATABASE_URL; None means the embedded PostgreSQL.
    database_url: str | None
    #: PRESCORE_PIPELINES, else ./deployments/pipelines, else the pipelines that prescore ships.
    pipelines_dir: Path
    #: PRESCORE_DATA_DIR, else /var/lib/prescore for root and the XDG data folder for others: the embedded PostgreSQL.
    data_dir: Path


def read_settings(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
    """Return the settings that the environment and the current folder give; an empty variable counts as unset."""
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    return Settings(
        database_url=environ.get("PRESCORE_DATABASE_URL") or None,
        pipelines_dir=_pipelines_dir(environ, cwd),
        data_dir=_data_dir(environ),
    )


def _pipelines_dir(environ: Mapping[str, str], cwd: Path) -> Path:
    named = environ.get("PRESCORE_PIPELINES")
    if named:
        return Path(named).expanduser().resolve()
    local = cwd / "deployments" / "pipelines"
    if local.is_dir():
        return local.resolve()
    return Path(str(resources.files("deployments") / "pipelines"))


def _data_dir(environ: Mapping[str, str]) -> Path:
    named = environ.get("PRESCORE_DATA_DIR")
    if named:
        return Path(named).expanduser().resolve()
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/prescore")
    share = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(share) / "prescore"
