"""The `prescore` command: every manual trigger, thin over flows and tasks.

Results on stdout (a table for people, ``--json`` for programs), progress and logs on stderr. Exit 0 done, 1 failed,
2 usage, 3 stale, held or pinned. `lookup`, `status`, `explain`, `watch`,
`metrics` and `--help` import neither Prefect nor scikit-learn.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from flows.commands import (
    backfilling,
    care,
    database,
    judging,
    life,
    models,
    privacy,
    reading,
    runs,
    schedules,
    starting,
    watching,
)
from tasks import logs
from tasks.errors import PrescoreError, UsageError
from tasks.interrupts import answer_interrupts

app = typer.Typer(
    name="prescore",
    help="Batch predictions in PostgreSQL with a freshness promise on every row.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# In the order of `prescore --help`.
COMMANDS = (
    starting.demo,
    starting.init,
    starting.check,
    database.migrate,
    runs.train,
    runs.score,
    backfilling.backfill,
    reading.features,
    reading.status,
    reading.explain,
    reading.lookup,
    reading.history,
    watching.watch,
    care.doctor,
    watching.metrics,
    judging.report,
    judging.replay,
    schedules.serve,
    schedules.deploy,
    runs.cancel,
    runs.rollback,
    runs.resume,
    runs.quarantine,
    privacy.forget,
    life.outputs,
    life.rename,
    life.drop,
    life.wait,
    privacy.grant,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(database.database_app, name="database")
app.add_typer(models.models_app, name="models")

# What a shell makes of SIGINT.
INTERRUPTED = 130


def main() -> None:
    """Run the command; what prescore refuses is printed as a message, never as a traceback."""
    answer_interrupts()
    try:
        app()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer has caught it, and says nothing
            _say_interrupted()
        raise
    except PrescoreError as error:
        logging.getLogger("prescore").debug("refused", exc_info=True)
        if _said(str(error), type(error).__name__):
            sys.exit(error.exit_code)
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"prescore: {error}", markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say_interrupted()
        sys.exit(INTERRUPTED)
    except Exception as error:
        explained = _explained(error)
        if explained is None:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"prescore: {explained}", markup=False)
        sys.exit(explained.exit_code)


def _explained(error: Exception) -> PrescoreError | None:
    """Return what an error of the database means, without the statement and its values; None for any other error."""
    from tasks import outages

    if not isinstance(error, outages.CONTROL_ERRORS):
        return None
    logging.getLogger("prescore").debug("failed", exc_info=True)
    return outages.explain(error, "The command")


def _say_interrupted() -> None:
    sentence = "interrupted; what was published is still served."
    if not _said(sentence, "KeyboardInterrupt"):
        Console(stderr=True).print(f"prescore: {sentence}")


def _said(sentence: str, kind: str) -> bool:
    """Say where lines are JSON why the command ends; False where it has to be printed."""
    try:
        return logs.say(sentence, level=logging.ERROR, kind=kind)
    except UsageError:  # the setting itself is what was refused
        return False


@app.callback()
def configure(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens, and tracebacks, on stderr.")
    ] = False,
) -> None:
    """Set the logging up, once for every command."""
    if logs.configure(verbose=verbose):
        return
    handler = RichHandler(console=Console(stderr=True), show_path=False, markup=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    for name in ("prescore", "tasks", "flows"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.ERROR)
