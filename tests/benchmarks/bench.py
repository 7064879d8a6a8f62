"""The bench that everything is measured on: a PostgreSQL of its own, processes of their own, and what they cost.

CPU seconds come from the kernel: those of the measured process with its children, and those of PostgreSQL, the postmaster
with all its children (backends, their parallel workers, checkpointer, WAL writer). Memory is VmHWM of the process.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import embedded, migrations
from tasks.settings import Settings

if TYPE_CHECKING:
    from tests.factories import World

#: Loaded before the clock starts, in every process that is measured: how long Python takes to import them is told apart.
LIBRARIES = (
    "adbc_driver_postgresql.dbapi",
    "joblib",
    "narwhals._pandas_like.namespace",
    "pandas",
    "psycopg2",
    "pyarrow.compute",
    "pyarrow.pandas_compat",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sqlalchemy",
    "sqlalchemy.dialects.postgresql.psycopg2",
)
#: The same for prescore's own.
OWN_LIBRARIES = (
    "flows.score",
    "skops.io",
    "tasks.bundle_file",
    "tasks.estimators",
    "tasks.skops_files",
    "threadpoolctl",
)
_VERSIONS = ("scikit-learn", "numpy", "pandas", "pyarrow", "adbc-driver-postgresql", "psycopg2-binary", "SQLAlchemy")
_OPTIONAL_VERSIONS = ("treelite", "tl2cgen")
#: An idle OpenMP pool that spins beside a busy core costs ten times; the same for everybody who is measured.
ENVIRON = {"OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A server of its own, and the folder that everything of a benchmark lies in."""

    url: str
    folder: Path

    @property
    def data_dir(self) -> Path:
        """The data folder of the server."""
        return self.folder / "data"

    @property
    def world(self) -> World:
        """The same for the factories of the tests."""
        from tests.factories import World

        pipelines = self.folder / "pipelines"
        return World(
            url=self.url,
            settings=Settings(database_url=self.url, pipelines_dir=pipelines, data_dir=self.folder / "work"),
        )

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a process that is measured."""
        return {
            **os.environ,
            **ENVIRON,
            "PRESCORE_DATABASE_URL": self.url,
            "PRESCORE_PIPELINES": str(self.folder / "pipelines"),
            "PRESCORE_DATA_DIR": str(self.folder / "work"),
            "PRESCORE_BENCH": str(self.folder),
        }


@contextmanager
def opened(recipe: embedded.Recipe | None = None) -> Iterator[Bench]:
    """Start an embedded server in a folder of its own, migrated; stop it and remove the folder at the end."""
    base = Path("/var/lib") if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="prescore-bench-", dir=base))
    folder.chmod(0o755)
    try:
        url = embedded.ensure_running(folder / "data", recipe=recipe)
        migrations.apply(url)
        yield Bench(url=url, folder=folder)
    finally:
        embedded.stop(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


def current() -> Bench:
    """Return the bench that this process was started on."""
    return Bench(url=os.environ["PRESCORE_DATABASE_URL"], folder=Path(os.environ["PRESCORE_BENCH"]))


@dataclass(kw_only=True)
class Spent:
    """What something took: seconds of wall, of CPU in this process with its children, and in PostgreSQL."""

    seconds: float = 0.0
    python: float = 0.0
    backends: float = 0.0

    @property
    def cpu(self) -> float:
        """CPU seconds, of Python and of PostgreSQL."""
        return self.python + self.backends

    def as_json(self) -> dict[str, float]:
        """Return all figures by name."""
        return {**vars(self), "cpu": self.cpu}


@contextmanager
def spending(data_dir: Path) -> Iterator[Spent]:
    """Measure a block; what is yielded is complete when it ends."""
    spent = Spent()
    backends, python, began = backend_seconds(data_dir), own_seconds(), time.perf_counter()
    yield spent
    spent.seconds = time.perf_counter() - began
    spent.python = own_seconds() - python
    spent.backends = backend_seconds(data_dir) - backends


def own_seconds() -> float:
    """Return the CPU seconds of this process and of its children that ended."""
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def backend_seconds(data_dir: Path) -> float:
    """Return the CPU seconds of PostgreSQL: of the postmaster, of children that ended and of those that live."""
    postmaster = embedded.status(data_dir).pid
    own = _ticks(Path(f"/proc/{postmaster}/stat"), ended=True)
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii").split()
    return (own + sum(_ticks(Path(f"/proc/{pid}/stat"), ended=False) for pid in children)) / os.sysconf("SC_CLK_TCK")


def _ticks(stat: Path, *, ended: bool) -> int:
    try:
        values = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(value) for value in values[11 : 15 if ended else 13])


def load_libraries(*more: str) -> None:
    """Import what is not to be timed."""
    for name in (*LIBRARIES, *more):
        import_module(name)


def openmp_threads() -> int:
    """Return with how many threads scikit-learn's loops run in this thread now."""
    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

    return int(_openmp_effective_n_threads())


def tell(found: Mapping[str, Any]) -> None:
    """Print what a measured process found, for the one that started it."""
    sys.stdout.write(f"\n{json.dumps({**found, 'memory': _peak_memory()})}\n")


def _peak_memory() -> int:
    """Return VmHWM of this process, in bytes: getrusage also counts what the process was before exec, that is its parent."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def run_process(
    bench: Bench, module: str, arguments: Sequence[object] = (), environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a module of the benchmarks in a process of its own and return what it told.

    ``process`` is added, the seconds from its start to its end, imports included.
    """
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *(str(argument) for argument in arguments)]
    began = time.perf_counter()
    done = subprocess.run(
        command, env={**bench.environ, **(environ or {})}, check=False, capture_output=True, text=True
    )
    process = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "process": process}


def machine() -> dict[str, Any]:
    """Return what a figure depends on: cores, processor, load, versions."""
    versions = {name: metadata.version(name) for name in _VERSIONS}
    for name in _OPTIONAL_VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "libraries": versions,
        "openmp": {**{name: value for name, value in os.environ.items() if name.startswith("OMP_")}, **ENVIRON},
        "nice": os.nice(0),
    }


def load_average() -> float:
    """Return how many processes wanted a core in the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
