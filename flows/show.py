"""What the commands print: tables for people on stdout, one JSON object for programs, progress on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tasks.health import PipelineHealth
from tasks.telling import narrator, shown, span, state_text

if TYPE_CHECKING:
    from pathlib import Path

    from flows.check import CheckReport
    from flows.deploy import DeploySummary
    from flows.models import WentBack
    from flows.preview import FeatureRows, Preview
    from flows.score import RunSummary
    from tasks.deployments import Plan
    from tasks.publishing import RolledBack
    from tasks.registry import AliasSpan, ModelUser, ModelVersion
    from tasks.training import TrainSummary


# Entities side by side, where they fit, and how much of a text is shown of each.
ENTITIES_ABREAST, LONGEST_TEXT = 5, 40


def as_program(value: Any) -> Any:
    """Return a value as JSON holds it: times in UTC ISO 8601, durations in seconds, sums as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_program(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): as_program(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_program(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:  # noqa: PLR0911 - one case a line
    match value:
        case Enum():
            return value.value
        case datetime():
            return value.astimezone(UTC).isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case float() if not math.isfinite(value):
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[
                str(value)
            ]  # as PostgreSQL's to_json has them
        case date():
            return value.isoformat()
        case None | bool() | int() | float() | str():
            return value
    return str(value)


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(as_program(value), ensure_ascii=False) + "\n")


class RunProgress:
    """A progress line on stderr while a run works; silent where stderr is no terminal."""

    def __init__(self, pipeline: str) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._pipeline = pipeline
        self._task = self._progress.add_task(f"{pipeline}: take the lock", total=None)

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str) -> None:
        """A step of the run begins."""
        self._progress.update(self._task, description=f"{self._pipeline}: {name}", completed=0, total=None)

    def rows(self, done: int, total: int) -> None:
        """So many rows of so many were scored."""
        self._progress.update(self._task, completed=done, total=total)


def show_run(summary: RunSummary, *, as_json: bool) -> None:
    """Print what a run did."""
    if as_json:
        print_json(summary.as_json())
        return
    console = narrator()
    console.print(Text(f"{summary.pipeline}: {summary.message}", style="bold"))
    why = f" ({summary.because})" if summary.because else ""
    facts = [
        ("run", f"{summary.run_id}, {summary.trigger.value}, {summary.mode.value}{why}"),
        ("as of", shown(summary.as_of) if summary.as_of else ""),
        ("model", f"{summary.model} {summary.model_version}" if summary.model else ""),
        (
            "population",
            f"{summary.population:,} = {summary.scored:,} scored + {summary.unchanged:,} unchanged + {summary.rejected:,} rejected"
            if summary.rows_per_second is not None
            else f"{summary.population:,}",
        ),
        ("selected", f"{summary.new:,} new, {summary.changed:,} changed, {summary.due:,} due; {summary.gone:,} gone"),
        ("speed", f"{summary.rows_per_second:,.0f} rows/s" if summary.rows_per_second else ""),
        ("took", f"{summary.seconds:.1f} s, peak memory {summary.peak_memory / 1e6:,.0f} MB"),
        ("good until", f"aging {shown(summary.aging_at)}, stale {shown(summary.stale_at)}" if summary.aging_at else ""),
    ]
    _facts(console, [(name, text) for name, text in facts if text])
    _findings(console, summary.findings)


def show_created(folder: Path, *, filled_in: bool) -> None:
    """Print where a new pipeline was written, and what comes next."""
    name, console = folder.name, narrator()
    console.print(Text(f"Wrote the pipeline {name} to {folder}:", style="bold"), soft_wrap=True)
    _facts(
        console,
        [
            ("pipeline.toml", "what is declared: whom to score, what to predict, how fresh it has to be"),
            ("features.sql", "what the model sees of an entity at an instant"),
            ("changes.sql", "whose features may have changed since an instant"),
            ("labels.sql", "what became of entities, for training"),
            ("model.py", "preprocess(frame) and build_model()"),
        ],
    )
    if not os.environ.get("PRESCORE_PIPELINES"):
        console.print(f"Commands find it from here. Elsewhere, set PRESCORE_PIPELINES={folder.parent}", soft_wrap=True)
    first = (
        "Take out of features.sql what is no feature, above all the label."
        if filled_in
        else "Put your tables and columns in place of the names that begin with your_."
    )
    console.print(f"Next: {first} Then:")
    _facts(
        console,
        [
            (f"prescore check {name}", "are the queries right?"),
            (f"prescore train {name}", "or register a model that is fitted already (prescore models)"),
            (f"prescore score {name} --dry-run", "what would be predicted of a few entities?"),
            (f"prescore score {name}", f"publish; then read predictions.{name}"),
        ],
    )


def show_checks(reports: Sequence[CheckReport], *, as_json: bool) -> None:
    """Print what `check` found."""
    if as_json:
        print_json({"pipelines": [report.as_json() for report in reports]})
        return
    console = narrator()
    if not reports:
        console.print("There is no pipeline in this folder.")
    for report in reports:
        verdict = f"{len(report.errors)} errors" if report.errors else "ready"
        console.print(Text(f"{report.pipeline}: {verdict}", style="bold red" if report.errors else "bold green"))
        for text in report.errors:
            console.print(Text(f"  error: {text}"), soft_wrap=True)
        for text in report.warnings:
            console.print(Text(f"  warning: {text}"), soft_wrap=True)
        if report.would:
            would = report.would
            why = f" ({would['because']})" if would["because"] else ""
            console.print(f"  A run now would be {would['mode']}{why} and score {would['would_score']:,} entities:")
            names = ("population", "new", "changed", "due", "invalidated", "gone")
            _facts(console, [(name, f"{would[name]:,}") for name in names])


def show_health(found: Sequence[PipelineHealth], *, as_json: bool) -> None:
    """Print the health of pipelines, a row each, and what is wrong below."""
    if as_json:
        print_json({"pipelines": [{**asdict(row), "well": row.well} for row in found]})
        return
    console = narrator()
    if not found:
        console.print("No pipeline has run in this database yet.")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("pipeline", "state", "overdue", "data age", "rows", "model", "last run"):
        table.add_column(name, justify="right" if name in {"data age", "rows"} else "left")
    for row in found:
        last = f"{row.last_run_status} ({row.last_run_trigger})" if row.last_run_status else "never"
        model = (
            f"{row.model} {row.model_version}" + (", another pending" if row.model_pending else "") if row.model else ""
        )
        overdue = f"since {row.overdue_since:%Y-%m-%d %H:%M}" if row.overdue and row.overdue_since else "no"
        age = span(row.age) if row.age is not None else ""
        rows = f"{row.rows:,}" if row.rows is not None else ""
        table.add_row(
            row.pipeline + (" (pinned)" if row.pinned else ""), state_text(row.state), overdue, age, rows, model, last
        )
    console.print(table)
    for row in found:
        for reason in row.reasons:
            console.print(Text(f"{row.pipeline}: {reason}"), soft_wrap=True)
        if row.last_run_status not in {"published", "running", None} and row.last_run_message:
            console.print(Text(f"{row.pipeline}: {row.last_run_message}"), soft_wrap=True)


def show_lookup(pipeline: str, row: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what an SQL reader sees for one entity."""
    if as_json:
        print_json(row)
        return
    console = narrator()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in row.items():
        table.add_row(name, state_text(value) if name == "state" else _plain(name, value))
    console.print(table)


def show_preview(found: Preview, *, as_json: bool) -> None:
    """Print a few entities with their features and predictions, side by side."""
    if as_json:
        print_json({**asdict(found), "findings": _told(found.findings), "disposition": found.disposition.name.lower()})
        return
    console = narrator()
    what = f"{found.model} version {found.model_version}, as of {shown(found.as_of)}. Nothing was written."
    console.print(Text(f"{found.pipeline}: {what}", style="bold"))
    entities = [
        (entity.key, {"rejected": entity.rejected} if entity.rejected else entity.predictions or {}, entity.features)
        for entity in found.entities
    ]
    _side_by_side(console, entities)
    if not found.entities:
        console.print("The population is empty.")
    if found.disposition.value > 1:
        console.print(Text(f"A run now would not publish ({found.disposition.name.lower()}):", style="bold red"))
    _findings(console, found.findings)


def show_features(found: FeatureRows, *, as_json: bool) -> None:
    """Print feature rows, or which file holds them."""
    key = [column.name for column in found.key]
    missing = f"{found.missing:,} entities have no features" if found.missing else ""
    if as_json:
        rows = [] if found.file else [_split(row, key) for row in found.rows.to_pylist()]
        facts = {"pipeline": found.pipeline, "as_of": found.as_of, "rows": found.rows.num_rows}
        print_json({**facts, "missing": found.missing, "file": found.file, "entities": rows})
        return
    console = narrator()
    if found.file is not None:
        columns = found.rows.num_columns - len(key) - 1
        told = f"{found.file}: {found.rows.num_rows:,} rows, {columns} features, as of {shown(found.as_of)}."
        console.print(Text(f"{told} {missing}{'.' if missing else ''}".rstrip()), soft_wrap=True)
        return
    console.print(Text(f"{found.pipeline}: as of {shown(found.as_of)}.", style="bold"))
    split = [_split(row, key) for row in found.rows.to_pylist()]
    _side_by_side(console, [(row["key"], {}, row["features"]) for row in split])
    if missing or not split:
        console.print(missing or "The population is empty.")


def _split(row: Mapping[str, Any], key: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a feature row as its key and its features."""
    return {
        "key": {name: row[name] for name in key},
        "features": {name: value for name, value in row.items() if name not in {*key, "as_of"}},
    }


def _side_by_side(
    console: Console, entities: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any] | None]]
) -> None:
    """Print entities as columns, as many beside each other as fit, with a line for each prediction and each feature."""
    left = list(entities)
    while left:
        abreast = min(len(left), ENTITIES_ABREAST)
        unbounded = console.options.update(max_width=100 * console.width)
        while abreast > 1 and Measurement.get(console, unbounded, _abreast(left[:abreast])).maximum > console.width:
            abreast -= 1
        console.print(_abreast(left[:abreast]))
        left = left[abreast:]


def _abreast(entities: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any] | None]]) -> Table:
    keys, predictions, features = ([entity[part] or {} for entity in entities] for part in range(3))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    named = [", ".join(keys[0]), *(name for part in (*predictions, *features) for name in part)]
    table.add_column(Text(named[0]), style="dim", overflow="fold", min_width=min(LONGEST_TEXT, max(map(len, named))))
    for key in keys:
        table.add_column(Text(", ".join(_plain(name, value) for name, value in key.items())), overflow="fold")
    for part, style in ((predictions, "bold"), (features, "")):
        names = list(dict.fromkeys(name for values in part for name in values))
        for at, name in enumerate(names, start=1):
            cells = [Text(_exact(values[name]) if name in values else "", style=style) for values in part]
            table.add_row(Text(name), *cells, end_section=at == len(names))
    return table


def _exact(value: Any) -> str:
    """Return a value without separators, since people compare it with what their database holds; a long text is cut."""
    if isinstance(value, float):
        return f"{value:.12g}"
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else shown(value)
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def say(sentence: str) -> None:
    """Say on stderr what happens."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"prescore: {sentence}", markup=False)


def show_served(plan: Plan, page: str, home: Path | None) -> None:
    """Print where the page is, and which pipeline runs when."""
    console, now = narrator(), datetime.now(UTC)
    if home is None:
        console.print(f"On the server that PREFECT_API_URL names; none is started: {page}", soft_wrap=True)
    else:
        console.print(f"Prefect's page, in a few seconds: {page}", soft_wrap=True)
        console.print(f"Its files and log: {home}", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("deployment", "schedule", "cron", "time zone", "next run"):
        table.add_column(name)
    for deployment in plan.deployments:
        if not deployment.schedules:
            table.add_row(deployment.name, "", "", "", "when somebody starts it")
        for planned in deployment.schedules:
            table.add_row(deployment.name, planned.slug, planned.cron, planned.timezone, shown(planned.next_tick(now)))
    console.print(table)
    console.print("Ctrl-C ends it.")


def show_deployed(done: DeploySummary, *, as_json: bool) -> None:
    """Print what `deploy` did, a line each, and the command that runs it."""
    if as_json:
        print_json(done)
    console = narrator()
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    for problem in done.broken:
        errors.print(f"prescore: {problem}", markup=False)
    if as_json:
        return
    console.print(
        f"On {done.server}, work pool {done.pool}{' (created)' if done.pool_created else ''}:", soft_wrap=True
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for each in done.deployments:
        table.add_row(each.name, each.done, "; ".join(each.schedules) or "no schedule")
    console.print(table)
    for name in done.unknown:
        console.print(
            f"{name} has no pipeline here and was left. Remove it with `prefect deployment delete {name}`.",
            soft_wrap=True,
        )
    console.print(f"A worker runs them: prefect worker start --limit 2 --pool {done.pool}", soft_wrap=True)


def show_rollback(done: RolledBack, *, as_json: bool) -> None:
    """Print what a rollback returned to, and what it undid."""
    if as_json:
        print_json(done)
        return
    undone = ", ".join(str(generation) for generation in done.undone) or "none"
    console = narrator()
    console.print(
        f"{done.pipeline} serves generation {done.generation_id} again (model {done.model} {done.model_version}). "
        f"Undone generations: {undone}. Runs are refused until `prescore resume {done.pipeline}`.",
        soft_wrap=True,
        markup=False,
    )


def show_training(summary: TrainSummary, *, as_json: bool) -> None:
    """Print how a model was trained and how good it is beside a naive baseline."""
    if as_json:
        print_json(summary)
        return
    console = narrator()
    console.print(Text(f"{summary.model} version {summary.version}: {summary.promotion}", style="bold"))
    _facts(
        console,
        [
            ("as of", shown(summary.as_of)),
            ("fitted on", f"{summary.rows_fitted:,} rows, data until {shown(summary.train_data_until)}"),
            ("judged on", f"{summary.rows_held_out:,} rows held out by {_scalar(summary.split_by)}"),
        ],
    )
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("metric", "model", summary.baseline_is):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, value in summary.metrics.items():
        base = summary.baseline.get(name)
        table.add_row(name, _metric(value), _metric(base))
    console.print(table)


def show_registered(version: ModelVersion, *, as_json: bool) -> None:
    """Print a version that was registered."""
    if as_json:
        print_json(version)
        return
    console = narrator()
    console.print(
        f"{version.name} version {version.version}, digest {version.digest[:12]}, {version.size_bytes:,} bytes."
    )
    if version.trust:
        console.print(f"It is {version.trust}.", soft_wrap=True, markup=False)
    if version.aliases:
        console.print(f"It is the {', '.join(version.aliases)}: runs use it.")
    else:
        console.print(f"Make it the champion: prescore models promote {version.name} {version.version}")


def show_models(versions: Iterable[ModelVersion], current: Iterable[AliasSpan], *, as_json: bool) -> None:
    """Print model versions, newest first."""
    versions = list(versions)
    if as_json:
        print_json({"models": versions})
        return
    console = narrator()
    if not versions:
        console.print("No model is registered here yet. Run `prescore train PIPELINE`.")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "version", "alias", "file", "trained on data until", "registered", "digest"):
        table.add_column(name)
    for v in versions:
        file = "trusted pickle" if v.trusted_pickle else "skops"
        until, made = shown(v.train_data_until), shown(v.created_at)
        table.add_row(v.name, str(v.version), ", ".join(v.aliases), file, until, made, v.digest[:12])
    console.print(table)
    for v in versions:
        if v.trust:
            console.print(f"{v.name} {v.version} is {v.trust}.", soft_wrap=True, markup=False)


def show_version(version: ModelVersion, history: Sequence[AliasSpan], *, as_json: bool) -> None:
    """Print everything that is known of a version."""
    if as_json:
        spans = [span_ for span_ in history if span_.version == version.version]
        print_json({**asdict(version), "aliases": spans})
        return
    console = narrator()
    console.print(Text(f"{version.name} version {version.version}", style="bold"))
    _facts(
        console,
        [
            ("digest", version.digest),
            ("registered", f"{shown(version.created_at)} by {version.created_by}"),
            ("source", version.source),
            ("trained on data until", shown(version.train_data_until)),
            ("file", version.trust or "skops, of types that prescore knows"),
            ("size", f"{version.size_bytes:,} bytes"),
            ("environment", ", ".join(f"{name} {number}" for name, number in sorted(version.environment.items()))),
        ],
    )
    for title, content in (("metrics", version.metrics), ("signature", version.signature)):
        console.print(Text(title, style="bold"))
        console.print(Text(json.dumps(as_program(content), indent=2, ensure_ascii=False)), soft_wrap=True)
    _probes(console, version)
    for entry in history:
        if entry.version == version.version:
            until = "now" if entry.until is None else shown(entry.until)
            console.print(
                f"{entry.alias} from {shown(entry.since)} until {until}: {entry.because}", soft_wrap=True, markup=False
            )


#: Probe -> heading of its column.
_PROBES = {
    "null": "NULL",
    "nan": "NaN",
    "infinity": "infinity",
    "unseen": "unseen",
    "missing_column": "absent",
}


def _probes(console: Console, version: ModelVersion) -> None:
    """Print what unusual values of each feature do, a row each, and whether the batch of a row matters."""
    probes = version.probes
    console.print(Text("probes at registration", style="bold"))
    if same := probes.get("same_scores"):
        largest = max(same.values())
        console.print(
            f"  {probes['rows']} rows scored {', '.join(sorted(same))} got the same answers: classes are equal, values "
            + (f"differ by up to {largest:.1g}." if largest else "are equal up to 1e-12."),
            soft_wrap=True,
        )
    if raised := probes.get("sample_rows_that_raised"):
        console.print(f"  {raised} rows of the sample made it raise and were left out.")
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("feature", *_PROBES.values()):
        table.add_column(heading)
    for feature in version.signature.get("features", []):
        cells = [_probed(probes.get(probe, {}).get(feature["name"])) for probe in _PROBES]
        table.add_row(feature["name"], *cells)
    console.print(table)
    console.print(
        "  scored: such rows get a prediction. An error: the model raised it; such rows keep their key, with the reason "
        "and without a prediction. absent: features.sql or preprocess does not give the feature; a run is refused then.",
        soft_wrap=True,
    )


def _probed(outcome: str | None) -> str:
    """Return what an unusual value did, short enough for six columns; - where there is no such value."""
    if outcome is None:
        return "-"
    return "scored" if outcome == "scores" else outcome.removeprefix("raises: ")


def show_went_back(done: WentBack, *, as_json: bool) -> None:
    """Print what an alias names again, and what that means for the pipelines that score with it."""
    if as_json:
        print_json(done)
        return
    lines = [f"{done.model} {done.alias}: version {done.version} again (was {done.before})."]
    if not done.tried:
        lines.append("No pipeline of this folder scores with it, so that only its digest was compared.")
    lines += [_next_run(user, done.version) for user in done.users]
    if not done.users:
        lines.append("No pipeline has scored with it in this database yet.")
    if done.earlier is not None:
        lines.append(f"Going back again would lead to version {done.earlier}.")
    for line in lines:
        narrator().print(line, soft_wrap=True, markup=False)


def _next_run(user: ModelUser, version: int) -> str:
    name = user.pipeline
    if user.model_version is None:
        told = f"{name} serves nothing of this model yet; its next run is full."
    elif user.model_version == version:
        return f"{name} serves the predictions of version {version} already; its next run need not be full."
    else:
        told = f"{name} serves the predictions of version {user.model_version} until its next run, which is full."
    first = f"prescore resume {name} && " if user.pinned else ""
    return f"{told} Start it: {first}prescore score {name}"


def _facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for name, text in facts:
        table.add_row(Text(name, style="dim"), Text(text))
    console.print(table)


def _findings(console: Console, findings: Iterable[Any]) -> None:
    for finding in findings:
        verdict = finding.verdict.value
        if verdict not in {"pass", "skipped"}:
            style = {"warn": "yellow", "fail": "red"}.get(verdict, "magenta")
            console.print(
                Text.assemble((f"  {verdict:8}", style), f"{finding.label} ({finding.code}): {finding.reason}")
            )


def _told(findings: Iterable[Any]) -> list[dict[str, Any]]:
    return [
        {"check": finding.label, "code": finding.code, "verdict": finding.verdict.value, "reason": finding.reason}
        for finding in findings
    ]


def _plain(name: str, value: Any) -> str:
    """Return a looked-up value: whole numbers as they are, since keys and ids are no quantities."""
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else shown(value)


def _metric(value: Any) -> str:
    return f"{value:,.4f}" if isinstance(value, float) else "" if value is None else str(value)
