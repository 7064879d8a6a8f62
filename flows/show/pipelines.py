"""Pipelines as they are declared: a new folder, and what `check` found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from flows.show.parts import print_facts, print_json
from tasks.telling import narrator

if TYPE_CHECKING:
    from flows.check import CheckReport


def show_created(folder: Path, *, filled_in: bool) -> None:
    """Print where a new pipeline was written, and what comes next."""
    name, console = folder.name, narrator()
    console.print(Text(f"Wrote the pipeline {name} to {folder}:", style="bold"), soft_wrap=True)
    print_facts(
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
    print_facts(
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
        count = len(report.errors)
        verdict = f"{count} error{'s' if count > 1 else ''}" if count else "ready"
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
            print_facts(console, [(name, f"{would[name]:,}") for name in names])
