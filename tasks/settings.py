"""Where the database and the pipelines are: read once from the environment, passed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from tasks.errors import UsageError

#: Names the port of the exporter.
METRICS_PORT = "PRESCORE_METRICS_PORT"


#: What an address of a database looks like.
ADDRESS = "postgresql://role:password@host:5432/database"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The places that a command works with."""

    #: PRESCORE_DATABASE_URL, or what the file says that PRESCORE_DATABASE_URL_FILE names; None means the embedded PostgreSQL.
    database_url: str | None = field(repr=False)
    #: PRESCORE_PIPELINES, else ./deployments/pipelines, else the pipelines that prescore ships.
    pipelines_dir: Path
    #: PRESCORE_DATA_DIR, else /var/lib/prescore for root and the XDG data folder for others: the embedded PostgreSQL.
    data_dir: Path
    #: Whether models are compiled where they can be: PRESCORE_COMPILED, true unless it is "false".
    compiled: bool = True
    #: PRESCORE_SOURCE_URL, or from PRESCORE_SOURCE_URL_FILE; None means that the sources are in the database that
    #: predictions are served from.
    source_url: str | None = field(default=None, repr=False)
    #: PRESCORE_METRICS_PORT: where `prescore serve` answers scrapers, on loopback; None means nowhere.
    metrics_port: int | None = None
    #: PRESCORE_OPENLINEAGE: the address of a catalogue that hears of runs; None means nobody does.
    lineage_url: str | None = None

    @property
    def compiled_dir(self) -> Path | None:
        """Where compiled code is kept; None where none is to be used."""
        return self.data_dir / "compiled" if self.compiled else None


def read_settings(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
    """Return the settings that the environment and the current folder give; an empty variable counts as unset.

    Raises
    ------
    UsageError
        When a variable holds what it cannot mean, or names a file without an address.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    return Settings(
        database_url=read_secret(
            "PRESCORE_DATABASE_URL",
            environ.get("PRESCORE_DATABASE_URL"),
            environ.get("PRESCORE_DATABASE_URL_FILE"),
            ADDRESS,
        ),
        pipelines_dir=_pipelines_dir(environ, cwd),
        data_dir=_data_dir(environ),
        compiled=_compiled(environ),
        source_url=read_secret(
            "PRESCORE_SOURCE_URL", environ.get("PRESCORE_SOURCE_URL"), environ.get("PRESCORE_SOURCE_URL_FILE"), ADDRESS
        ),
        metrics_port=_port(environ.get("PRESCORE_METRICS_PORT")),
        lineage_url=_web_address("PRESCORE_OPENLINEAGE", environ.get("PRESCORE_OPENLINEAGE")),
    )


def folder_for_new(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Path:
    """Return the folder that a new pipeline belongs into: as in ``Settings.pipelines_dir``, but never the examples.

    It need not be there yet.

    Raises
    ------
    UsageError
        When it is where prescore's own examples are: they go with the next version, and so would the pipeline.
    """
    folder = _own_pipelines_dir(os.environ if environ is None else environ, Path.cwd() if cwd is None else cwd)
    if folder == _shipped_pipelines().resolve():
        raise UsageError(
            f"{folder} holds the examples that prescore ships. Nothing was written. Set PRESCORE_PIPELINES to a folder of "
            "yours, for example with `export PRESCORE_PIPELINES=~/pipelines`."
        )
    return folder


def read_secret(variable: str, said: str | None, named: str | None, example: str) -> str | None:
    """Return what a variable says, or what the file says that the variable with ``_FILE`` names; None where neither is set.

    A file is how Docker, Kubernetes and systemd hand secrets over: it keeps the password out of the environment, which
    children inherit and `docker inspect` shows.

    Raises
    ------
    UsageError
        When both are set, or the file cannot be read or holds anything but one word. What it holds is never shown.
    """
    if not named:
        return said or None
    if said:
        raise UsageError(f"{variable} and {variable}_FILE are both set. Nothing was done. Unset one of them.")
    try:
        words = Path(named).expanduser().read_text(encoding="utf-8").split()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"{variable}_FILE names {named}, which cannot be read: {reason}. Nothing was done. Let this user read it, "
            f"or unset the variable."
        ) from error
    except UnicodeDecodeError:
        words = []  # nothing of what it holds may be shown, not even in the cause
    if len(words) != 1:
        raise UsageError(
            f"{variable}_FILE names {named}, which holds {'nothing' if not words else 'more than one word'}. Nothing was "
            f"done. Write {example} into it, and nothing else."
        )
    return words[0]


def _pipelines_dir(environ: Mapping[str, str], cwd: Path) -> Path:
    own = _own_pipelines_dir(environ, cwd)
    return own if own.is_dir() or environ.get("PRESCORE_PIPELINES") else _shipped_pipelines()


def _own_pipelines_dir(environ: Mapping[str, str], cwd: Path) -> Path:
    named = environ.get("PRESCORE_PIPELINES")
    folder = Path(named).expanduser() if named else cwd / "deployments" / "pipelines"
    return folder.resolve()


def _shipped_pipelines() -> Path:
    return Path(str(resources.files("deployments") / "pipelines"))


def _data_dir(environ: Mapping[str, str]) -> Path:
    named = environ.get("PRESCORE_DATA_DIR")
    if named:
        return Path(named).expanduser().resolve()
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/prescore")
    share = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(share) / "prescore"


def _compiled(environ: Mapping[str, str]) -> bool:
    named = environ.get("PRESCORE_COMPILED") or "true"
    if named not in ("true", "false"):
        raise UsageError(
            f'PRESCORE_COMPILED is "{named}", expected true or false. Nothing was done. Correct or unset it.'
        )
    return named == "true"


def _web_address(variable: str, named: str | None) -> str | None:
    """Return an address for HTTP; a message never quotes it, for it may hold a secret."""
    if not named:
        return None
    with suppress(ValueError):
        parts = urlsplit(named)
        if parts.scheme in {"http", "https"} and parts.hostname:
            return named
    raise UsageError(
        f"{variable} is no address that begins with https:// or http://. Nothing was done. Correct or unset it."
    )


def _port(named: str | None) -> int | None:
    if not named:
        return None
    if not (named.isascii() and named.isdigit() and 0 < int(named) < 65_536):
        raise UsageError(
            f'{METRICS_PORT} is "{named}", expected a port from 1 to 65535. Nothing was done. Correct or unset it.'
        )
    return int(named)


def os_user() -> str | None:
    """Return who runs this, as the operating system knows them; what variables say could be anybody."""
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        return None


def wants_json_logs(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether log lines are to be JSON: PRESCORE_LOG_FORMAT, text unless it is "json".

    Raises
    ------
    UsageError
    """
    environ = os.environ if environment is None else environment
    named = environ.get("PRESCORE_LOG_FORMAT") or "text"
    if named not in ("text", "json"):
        raise UsageError(
            f'PRESCORE_LOG_FORMAT is "{named}", expected text or json. Nothing was done. Correct or unset it.'
        )
    return named == "json"


#: Lets each run of `prescore serve` start from nothing, as Prefect does by itself.
COLD_RUNS = "PRESCORE_COLD_RUNS"


def wants_cold_runs(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether runs of `prescore serve` are to start from nothing: less memory between runs, slower starts."""
    return bool(environment.get("PRESCORE_COLD_RUNS"))
