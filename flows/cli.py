"""The `prescore` command: every manual trigger, thin over flows and tasks.

Results on stdout (a table for people, ``--json`` for programs), progress and logs on stderr. Exit 0 done, 1 failed,
2 usage, 3 stale, held or pinned. `lookup`, `status` and `--help` import neither Prefect nor scikit-learn.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from tasks.errors import PrescoreError, UsageError
from tasks.interrupts import answer_interrupts
from tasks.settings import Settings, read_settings

app = typer.Typer(
    name="prescore",
    help="Batch predictions in PostgreSQL with a freshness promise on every row.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
database_app = typer.Typer(
    help="The embedded PostgreSQL, used when PRESCORE_DATABASE_URL is unset.", no_args_is_help=True
)
models_app = typer.Typer(help="Model versions and the alias that names the current one.", no_args_is_help=True)
app.add_typer(database_app, name="database")
app.add_typer(models_app, name="models")

# Entities that a person is shown; and those of a sample, of which 200 become golden rows and all make the profile.
SHOWN_ENTITIES, SAMPLED_ENTITIES = 5, 1_000

# What a shell makes of SIGINT.
INTERRUPTED = 130

PipelineName = Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of the pipeline folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="VALUE",
        help="An entity to look at; once for each key column, entity after entity.",
    ),
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="T", help="Look at the data from this instant (ISO 8601, UTC unless it says otherwise)."
    ),
]


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
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"prescore: {error}", markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say_interrupted()
        sys.exit(INTERRUPTED)


def _say_interrupted() -> None:
    Console(stderr=True).print("prescore: interrupted; what was published is still served.")


@app.callback()
def configure(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens, and tracebacks, on stderr.")
    ] = False,
) -> None:
    """Set the logging up, once for every command."""
    handler = RichHandler(console=Console(stderr=True), show_path=False, markup=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    for name in ("prescore", "tasks", "flows"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.ERROR)


@app.command()
def demo(
    customers: Annotated[
        int, typer.Option(min=200, max=5_000_000, help="How many customers the example shop has.")
    ] = 50_000,
) -> None:
    """Show the main job on an example shop: train, score, look up, a day passes, score again, go stale."""
    from flows.demo import run_demo

    run_demo(_settings(), customers=customers)


@app.command()
def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the pipeline, and of the view that readers read.")
    ],
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="COLUMN", help="Key column; again for each further one."),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA.TABLE", help="Fill the queries in with the columns and the primary key of a table."
        ),
    ] = None,
) -> None:
    """Write a commented folder for a new pipeline to start from."""
    from flows.show import show_created
    from tasks.database import connect, resolve_url
    from tasks.settings import folder_for_new
    from tasks.template import create_folder, describe_table

    directory, own = folder_for_new(), None
    if table is not None:
        with connect(resolve_url(_settings())) as connection:
            own = describe_table(connection, table)
    show_created(create_folder(directory, name, key or (), own), filled_in=own is not None)


@app.command()
def check(
    pipeline: Annotated[str | None, typer.Argument(metavar="[PIPELINE]", help="All pipelines when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Validate declarations against the database and say what a run would do; nothing is written."""
    from flows.check import check as run_check
    from flows.show import show_checks

    reports = run_check(_settings(), pipeline)
    show_checks(reports, as_json=as_json)
    raise typer.Exit(1 if any(report.errors for report in reports) else 0)


@app.command()
def migrate() -> None:
    """Bring the schema of the database up to date."""
    from tasks import migrations
    from tasks.database import resolve_url

    settings = _settings()
    applied = migrations.apply(settings.database_url) if settings.database_url else []
    if settings.database_url is None:
        resolve_url(settings)
    for name in applied:
        typer.echo(f"applied {name}")
    typer.echo("The schema is up to date.")


@app.command()
def train(
    pipeline: PipelineName,
    as_of: AsOf = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Make the new version the champion even when there is one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit the pipeline's model on its labels, evaluate it on the latest slice of time, register a version."""
    from flows.show import show_training
    from flows.train import train as run_train

    show_training(run_train(_settings(), pipeline, as_of=_instant(as_of), promote=promote), as_json=as_json)


@app.command()
def score(
    pipeline: PipelineName,
    full: Annotated[
        bool, typer.Option("--full", help="Score every entity, not only new, changed and due ones.")
    ] = False,
    as_of: AsOf = None,
    trigger: Annotated[
        str, typer.Option(help="scheduled for cron or systemd, recovery for a run that makes up for missed ones.")
    ] = "manual",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show features and predictions of a few entities; nothing is written.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, max=1000, help="With --dry-run: how many entities, chosen by prescore; 5.")
    ] = None,
    key: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Score what needs a prediction and publish the result atomically."""
    if dry_run:
        _refuse_together("--dry-run", **{"--full": full, "--trigger": trigger != "manual"})
        _preview(pipeline, limit, key or [], as_of, as_json=as_json)
        return
    if limit is not None or key:
        raise UsageError(
            "--limit and --key belong to --dry-run. Nothing was started. Add --dry-run, or leave them out."
        )
    from flows.score import score as run_score
    from flows.show import RunProgress, show_run
    from tasks.runs import Trigger

    if trigger not in {"manual", "scheduled", "recovery"}:
        raise UsageError(f"--trigger is {trigger!r}. Nothing was started. Say manual, scheduled or recovery.")
    settings = _settings()
    with RunProgress(pipeline) as progress:
        summary = run_score(
            settings, pipeline, full=full, as_of=_instant(as_of), trigger=Trigger(trigger), watcher=progress
        )
    show_run(summary, as_json=as_json)
    raise typer.Exit(summary.exit_code)


def _preview(pipeline: str, limit: int | None, key: list[str], as_of: str | None, *, as_json: bool) -> None:
    from flows.preview import preview_run
    from flows.show import show_preview

    if key:
        _refuse_together("--key", **{"--limit": limit is not None})
    found = preview_run(_settings(), pipeline, limit=limit or SHOWN_ENTITIES, named=key, as_of=_instant(as_of))
    show_preview(found, as_json=as_json)


@app.command()
def features(
    pipeline: PipelineName,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="How many entities, chosen by prescore; 5, or 1,000 with --out."),
    ] = None,
    key: Keys = None,
    as_of: AsOf = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Write the rows to a Parquet file: a sample for models register."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what the feature query returns for a few entities, or write it to a file; no model is needed."""
    from flows.preview import read_features
    from flows.show import show_features

    if key:
        _refuse_together("--key", **{"--limit": limit is not None})
    rows = limit or (SHOWN_ENTITIES if out is None else SAMPLED_ENTITIES)
    found = read_features(_settings(), pipeline, limit=rows, named=key or [], as_of=_instant(as_of), file=out)
    show_features(found, as_json=as_json)


@app.command()
def status(
    pipeline: Annotated[str | None, typer.Argument(metavar="[PIPELINE]", help="All pipelines when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is served and whether it keeps its promise; exit 3 when anything is stale, expired or overdue."""
    from flows.show import show_health
    from flows.watch import health

    found = health(_settings(), pipeline)
    show_health(found, as_json=as_json)
    raise typer.Exit(0 if all(row.well for row in found) else 3)


@app.command()
def lookup(
    pipeline: PipelineName,
    key: Annotated[list[str], typer.Argument(metavar="KEY...", help="The key, one value per key column.")],
    as_json: AsJson = False,
) -> None:
    """Show what an SQL reader would see for one entity; exit 3 unless the prediction may be used."""
    from flows.show import show_lookup
    from flows.watch import look_up

    row = look_up(_settings(), pipeline, key)
    show_lookup(pipeline, row, as_json=as_json)
    raise typer.Exit(0 if row["state"] in {"fresh", "aging", "stale"} else 3)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where Prefect's page is to be, on 127.0.0.1.")] = 4200,
    limit: Annotated[int, typer.Option(min=1, help="How many runs may be at work at once.")] = 2,
) -> None:
    """Run every pipeline on its schedules, with a Prefect server of its own on loopback, until Ctrl-C."""
    from flows.serve import serve as run_serve
    from flows.show import say, show_served

    server = os.environ.get("PREFECT_API_URL") or None
    raise typer.Exit(run_serve(_settings(), port=port, limit=limit, told=show_served, tell=say, server=server))


@app.command()
def deploy(
    pipeline: Annotated[str | None, typer.Argument(metavar="[PIPELINE]", help="All pipelines when left out.")] = None,
    pool: Annotated[str, typer.Option(help="Name of a process work pool of the server.")] = "prescore",
    create_pool: Annotated[
        bool, typer.Option("--create-pool", help="Create the work pool if it is not there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put pipelines and their schedules on the Prefect server in PREFECT_API_URL, for a worker to run."""
    from flows.deploy import deploy as run_deploy
    from flows.show import show_deployed

    done = run_deploy(_settings(), pipeline, pool=pool, create_pool=create_pool)
    show_deployed(done, as_json=as_json)
    raise typer.Exit(1 if done.broken else 0)


@app.command()
def rollback(pipeline: PipelineName, as_json: AsJson = False) -> None:
    """Return to the previous publication at once, and refuse runs until `prescore resume`."""
    from flows.show import show_rollback
    from tasks.database import resolve_url
    from tasks.publishing import rollback as roll_back

    show_rollback(roll_back(resolve_url(_settings()), pipeline), as_json=as_json)


@app.command()
def resume(pipeline: PipelineName) -> None:
    """Welcome runs again after a rollback."""
    from tasks.database import resolve_url
    from tasks.publishing import resume as unpin

    if unpin(resolve_url(_settings()), pipeline):
        typer.echo(f"{pipeline} runs again.")
    else:
        typer.echo(f"{pipeline} was not pinned.")


@models_app.command("register")
def register_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model, as in [model] name.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A .skops, .joblib or .pkl file.")
    ],
    sample: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Parquet file with rows of features.")],
    train_data_until: Annotated[
        str, typer.Option(metavar="T", help="End of the data that the model was fitted on (ISO 8601).")
    ],
    pipeline: Annotated[str | None, typer.Option(help="Pipeline that will use it, when its name is not NAME.")] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Load a pickle or joblib file, which can run any code. Recorded.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register a fitted model from a file."""
    from flows.show import show_registered
    from flows.train import register_file

    until = _instant(train_data_until)
    assert until is not None
    version = register_file(
        _settings(), name, file, sample=sample, train_data_until=until, pipeline=pipeline, trust_pickle=trust_pickle
    )
    show_registered(version, as_json=as_json)


@models_app.command("list")
def list_models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All models when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """List model versions, newest first, and the aliases that name them."""
    from flows.show import show_models
    from tasks import registry
    from tasks.database import connect, resolve_url

    with connect(resolve_url(_settings())) as connection:
        versions = registry.list_versions(connection, name)
        current = {span for model in {v.name for v in versions} for span in registry.alias_history(connection, model)}
    show_models(versions, current, as_json=as_json)


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="A number or an alias.")] = "champion",
    as_json: AsJson = False,
) -> None:
    """Show a version: metrics, signature, environment, probes, and when it was champion."""
    from flows.show import show_version
    from tasks import registry
    from tasks.database import connect, resolve_url

    with connect(resolve_url(_settings())) as connection:
        found = registry.find_version(connection, name, _which(version))
        history = registry.alias_history(connection, name)
    show_version(found, history, as_json=as_json)


@models_app.command("promote")
def promote_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.")],
    alias: Annotated[str, typer.Option(help="Alias to move.")] = "champion",
    because: Annotated[str, typer.Option(help="Why; kept in the history of the alias.")] = "promoted by hand",
) -> None:
    """Let an alias name another version; the next run of each pipeline that uses it is full."""
    from tasks import registry
    from tasks.database import resolve_url

    moved = registry.promote_now(resolve_url(_settings()), name, version, alias, because)
    before = "nothing" if moved.before is None else f"version {moved.before}"
    typer.echo(f"{name} {alias}: version {version} (was {before}).")


@models_app.command("rollback")
def rollback_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    alias: Annotated[str, typer.Option(help="Alias to move.")] = "champion",
    because: Annotated[str | None, typer.Option(help="Why; kept in the history of the alias.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let an alias name the version again that it named before; the next run of each pipeline that uses it is full."""
    from flows.models import roll_back
    from flows.show import show_went_back

    show_went_back(roll_back(_settings(), name, alias=alias, because=because), as_json=as_json)


@database_app.command("start")
def start_database() -> None:
    """Start the embedded PostgreSQL, and migrate it."""
    from tasks import migrations
    from tasks.database import describe_url
    from tasks.embedded import ensure_running

    url = ensure_running(_embedded().data_dir)
    migrations.apply(url)
    typer.echo(f"Running: {describe_url(url)}. `prescore database url` prints the address, password and all.")


@database_app.command("stop")
def stop_database() -> None:
    """Stop the embedded PostgreSQL; its data stays."""
    from tasks.embedded import stop

    typer.echo("Stopped." if stop(_embedded().data_dir) else "It was not running.")


@database_app.command("url")
def database_url() -> None:
    """Print the address of the database, with its password: psql "$(prescore database url)"."""
    from tasks.database import libpq_url, resolve_url

    typer.echo(libpq_url(resolve_url(_settings())))


def _settings() -> Settings:
    return read_settings()


def _embedded() -> Settings:
    settings = read_settings()
    if settings.database_url is not None:
        raise UsageError(
            "PRESCORE_DATABASE_URL names another database. Nothing was changed. Unset it to work with the embedded PostgreSQL."
        )
    return settings


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no instant. Nothing was started. Write it as 2026-03-01T03:00:00+00:00 (without a zone it is UTC)."
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _refuse_together(option: str, **others: bool) -> None:
    given = [name for name, is_given in others.items() if is_given]
    if given:
        raise UsageError(
            f"{option} and {' and '.join(given)} cannot be meant together. Nothing was started. Leave one of them out."
        )


def _which(version: str) -> int | str:
    return int(version) if version.isdigit() else version
