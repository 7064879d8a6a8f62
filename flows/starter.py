"""How `prescore serve` starts a flow run: forked from a process that has imported everything already.

Prefect starts `python -m prefect.engine`, which imports Prefect, pandas, SciPy and scikit-learn each time before a run can
begin: 7 to 10 s of CPU time. Here one process does that once, keeps still, and is forked for each run. The runs are processes of
their own as before, so that nothing leaks from one into the next; what they share is memory that nobody writes.

Importing this module imports no Prefect.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import runpy
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from multiprocessing import connection, forkserver
from typing import Any

from tasks.settings import wants_cold_runs

logger = logging.getLogger("prescore.starter")

#: What a run imports sooner or later. Libraries with an OpenMP of their own (LightGBM, XGBoost) are left to the runs that
#: need them. None of these starts a thread when it is imported: a process with threads cannot be forked safely.
PRELOADED = (
    "prefect.flow_engine",
    "prefect.engine",
    "prefect.artifacts",
    "prefect.events",
    "prefect.task_engine",
    "prefect.runner",
    "flows.automations",
    "flows.deploy",
    "flows.deployed",
    "flows.progress",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "skops.io",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    # Imported by these when they are used for the first time.
    "narwhals._pandas_like.namespace",
    "prefect.utilities.visualization",
    "tasks.bundle_file",
    "tasks.estimators",
    "tasks.overview",
    "tasks.page",
    "tasks.performance",
)

_CONTEXT = multiprocessing.get_context("forkserver")
# One at a time asks for a process or takes an exit code: multiprocessing reads each code once, whoever comes first.
_TURN = threading.Lock()


def warm_up() -> bool:
    """Begin to import, in a process of its own, what runs need; return whether runs will be forked from it."""
    if wants_cold_runs() or "forkserver" not in multiprocessing.get_all_start_methods():
        return False
    from prefect.runner import _starter_engine as engine

    if not hasattr(engine, "run_process"):  # another Prefect: its own way is slower and works
        logger.warning("Prefect starts runs in another way than is known here: each imports everything again")
        return False
    _CONTEXT.set_forkserver_preload(list(PRELOADED))
    forkserver.ensure_running()
    # The starter looks it up in its module, which is the place that it names for this.
    engine.run_process = functools.partial(start_forked, otherwise=engine.run_process)
    return True


async def start_forked(
    command: list[str],
    *,
    otherwise: Callable[..., Awaitable[Any]],
    task_status: Any = None,
    task_status_handler: Callable[[Any], Any] = lambda process: process,
    env: Mapping[str, str] | None = None,
    cwd: Any = None,
    **options: Any,
) -> Any:
    """Run Prefect's engine in a process that is forked from the warm one, and return once it has ended.

    Takes what Prefect's own ``run_process`` takes, which is asked (``otherwise``) for any other command, and when there is
    no warm process to fork from.
    """
    from anyio import to_thread

    handed = {"task_status": task_status, "task_status_handler": task_status_handler, "env": env, "cwd": cwd}
    if command[-2:] != ["-m", "prefect.engine"]:
        return await otherwise(command=command, **handed, **options)
    process = _CONTEXT.Process(target=run_engine, args=(dict(env or os.environ), None if cwd is None else str(cwd)))
    try:
        await to_thread.run_sync(_start, process)
    except (OSError, EOFError) as error:
        logger.warning("a run could not be forked (%s): it starts from nothing", type(error).__name__)
        return await otherwise(command=command, **handed, **options)
    if task_status is not None:
        task_status.started(task_status_handler(process))
    await to_thread.run_sync(_wait, process)
    return process


def run_engine(environment: Mapping[str, str], folder: str | None) -> None:
    """Be Prefect's engine, in a process that has just been forked."""
    import numpy as np

    before = _settings()
    os.environ.clear()
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    # Forked generators would all give the same numbers.
    np.random.seed()
    sys.argv = ["prefect.engine"]
    sys.modules.pop("prefect.engine", None)
    if _settings() == before:
        runpy.run_module("prefect.engine", run_name="__main__")
        return
    from prefect.context import SettingsContext, get_settings_context
    from prefect.settings import Settings

    with SettingsContext(profile=get_settings_context().profile, settings=Settings()):
        runpy.run_module("prefect.engine", run_name="__main__")


def _settings() -> dict[str, str]:
    """Return the variables that Prefect has read when it was imported; those with two underscores are told each run."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PREFECT_") and not name.startswith("PREFECT__")
    }


def _start(process: Any) -> None:
    with _TURN:
        process.start()


def _wait(process: Any) -> None:
    connection.wait([process.sentinel])
    with _TURN:
        process.join()
