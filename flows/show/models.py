"""Models: how one was trained, its versions, its probes, the alias that names one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.show.parts import as_program, print_facts, print_json, scalar
from tasks.telling import narrator, shown

if TYPE_CHECKING:
    from flows.models import WentBack
    from tasks.compiled import Form
    from tasks.registry import AliasSpan, ModelUser, ModelVersion
    from tasks.training import TrainSummary


def show_training(summary: TrainSummary, *, as_json: bool) -> None:
    """Print how a model was trained and how good it is beside a naive baseline."""
    if as_json:
        print_json(summary)
        return
    console = narrator()
    console.print(Text(f"{summary.model} version {summary.version}: {summary.promotion}", style="bold"))
    print_facts(
        console,
        [
            ("as of", shown(summary.as_of)),
            ("fitted on", f"{summary.rows_fitted:,} rows, data until {shown(summary.train_data_until)}"),
            ("judged on", f"{summary.rows_held_out:,} rows held out by {scalar(summary.split_by)}"),
        ],
    )
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("metric", "model", summary.baseline_is):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, value in summary.metrics.items():
        base = summary.baseline.get(name)
        table.add_row(name, _metric(value), _metric(base))
    console.print(table)


def _metric(value: Any) -> str:
    return f"{value:,.4f}" if isinstance(value, float) else "" if value is None else str(value)


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
    _missing_texts(console, version)
    if version.aliases:
        console.print(f"It is the {', '.join(version.aliases)}: runs use it.")
    else:
        console.print(f"Make it the champion: prescore models promote {version.name} {version.version}")


def _missing_texts(console: Console, version: ModelVersion) -> None:
    """Warn of a model that knows a missing text as NaN, as pandas has it, and gets None from us: nothing would fail."""
    told = version.probes.get("null_as_nan", {})
    if names := [name for name, outcome in told.items() if outcome == "differs"]:
        console.print(
            f"Careful: a missing text is None here, and this model scores None otherwise than NaN ({', '.join(names)}). If "
            'it was fitted on NaN, as pandas has it, let preprocess return frame.fillna(float("nan")), and register it '
            "again.",
            soft_wrap=True,
            markup=False,
        )


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


def show_version(version: ModelVersion, history: Sequence[AliasSpan], form: Form, *, as_json: bool) -> None:
    """Print everything that is known of a version."""
    if as_json:
        spans = [span_ for span_ in history if span_.version == version.version]
        print_json({**asdict(version), "aliases": spans, "computed_by": asdict(form)})
        return
    console = narrator()
    console.print(Text(f"{version.name} version {version.version}", style="bold"))
    print_facts(
        console,
        [
            ("digest", version.digest),
            ("registered", f"{shown(version.created_at)} by {version.created_by}"),
            ("source", version.source),
            ("trained on data until", shown(version.train_data_until)),
            ("file", version.trust or "skops, of types that prescore knows"),
            ("size", f"{version.size_bytes:,} bytes"),
            ("computed by", form.in_words),
            ("environment", ", ".join(f"{name} {number}" for name, number in sorted(version.environment.items()))),
        ],
    )
    for title, content in (("metrics", version.metrics), ("signature", version.signature)):
        console.print(Text(title, style="bold"))
        console.print(Text(json.dumps(as_program(content), indent=2, ensure_ascii=False)), soft_wrap=True)
    _importance(console, version)
    _probes(console, version)
    for entry in history:
        if entry.version == version.version:
            until = "now" if entry.until is None else shown(entry.until)
            console.print(
                f"{entry.alias} from {shown(entry.since)} until {until}: {entry.because}", soft_wrap=True, markup=False
            )


def _importance(console: Console, version: ModelVersion) -> None:
    """Print what share of what the model knows it owes to each feature, the largest first."""
    found = version.probes.get("importance")
    if found is None:
        return
    console.print(Text("importance of the features", style="bold"))
    console.print(f"  {found['words']}", soft_wrap=True, markup=False)
    if found["loss"] is None:
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("feature")
    table.add_column("importance", justify="right")
    for name, share in sorted(found["shares"].items(), key=lambda pair: (-pair[1], pair[0])):
        table.add_row(Text(name), f"{share:.1%}")
    console.print(table)


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
