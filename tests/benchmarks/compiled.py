"""What the compiled form of a model is worth: rows that one core scores in a second, by each form, of the same frame.

    uv run python -m tests.benchmarks.compiled --rows 200000

Nothing is read from a database. CPU seconds are counted of the thread that scores, in turns, medians of five; the columns
are those of tests.benchmarks.table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from tasks.compiled import form as forms
from tasks.compiled.tables import as_table
from tests.benchmarks.table import FLOATS, TEXTS, boosted, logistic

_TIMES = 5


def make_frame(rows: int) -> pd.DataFrame:
    """Return rows of 3 text columns of 16 values each and 16 float columns, seeded."""
    rng = np.random.default_rng(1)
    texts = {
        name: np.array([f"{name}{at}" for at in range(16)], dtype=object)[rng.integers(0, 16, rows)] for name in TEXTS
    }
    floats = {name: rng.integers(0, 1 << 20, rows) / float(1 << 20) for name in FLOATS}
    return pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in {**texts, **floats}.items()})


def models() -> dict[str, Callable[[pd.DataFrame], Any]]:
    """Return what is measured: both models of the benchmark, and two forests behind the encoder of the trees."""
    from sklearn.base import clone
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import Pipeline

    def behind(trees: Any) -> Callable[[pd.DataFrame], Any]:
        def fit(frame: pd.DataFrame) -> Any:
            encoder = clone(boosted(None, frame.head(1_000)).steps[0][1])
            label = (frame["f0"] + frame["f1"] > frame["f2"] + frame["f3"]).astype(int)
            return Pipeline([("columns", encoder), ("trees", trees)]).fit(frame, label)

        return fit

    return {
        "100 boosted trees": lambda frame: boosted(None, frame),
        "100 trees of 8 levels": behind(RandomForestClassifier(100, max_depth=8, random_state=1, n_jobs=1)),
        "100 trees, full depth": behind(RandomForestClassifier(100, random_state=1, n_jobs=1)),
        "logistic regression": lambda frame: logistic(None, frame),
    }


def main() -> None:
    """Fit, compile, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = make_frame(parser.parse_args().rows)
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in (
        "thousand rows/s of one core",
        "scikit-learn",
        "its encoder",
        "its model",
        "compiled",
        "its columns",
        "faster",
    ):
        table.add_column(heading, justify="left" if "core" in heading else "right")
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1):
        for name, fit in models().items():
            table.add_row(name, *_measured(fit(rows.head(20_000)), rows, Path(folder) / "data" / "compiled"))
    console.print(table)


def _measured(model: Any, rows: pd.DataFrame, folder: Path) -> list[str]:
    compiled = forms._compile(model, 1, folder)
    encoder, last = model.steps[0][1], model.steps[1][1]
    matrix = encoder.transform(rows)
    if forms.differs(model.predict_proba(rows), compiled.compute("predict_proba", rows)) is not None:
        sys.exit("the forms differ")
    works: list[Callable[[], object]] = [
        lambda: model.predict_proba(rows),
        lambda: encoder.transform(rows),
        lambda: last.predict_proba(matrix),
        lambda: compiled.compute("predict_proba", rows),
        lambda: compiled._model.inputs.columns(as_table(rows)),
    ]
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(_TIMES):
        for work, found in zip(works, seconds, strict=True):
            began = time.process_time()
            work()
            found.append(time.process_time() - began)
    medians = [statistics.median(found) for found in seconds]
    return [*(f"{len(rows) / median / 1000:,.0f}" for median in medians), f"{medians[0] / medians[3]:.1f}"]


if __name__ == "__main__":
    main()
