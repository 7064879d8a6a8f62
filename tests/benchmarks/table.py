"""A table of N entities with 3 text and 16 float columns, pipelines over it, and one full run of boosted trees.

    uv run python -m tests.benchmarks.table --rows 2000000

The run is a `prescore score` process of its own, so that its peak memory (VmHWM) is that of scoring alone. The database
is the embedded one, in a data folder of its own that is removed at the end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.bench import Bench, opened

if TYPE_CHECKING:
    from tests.factories import World

TEXTS = ("country", "segment", "channel")
FLOATS = tuple(f"f{i}" for i in range(16))

TOML = """
description = "Rows of a benchmark."
[entity]
key = ["id"]
query = "SELECT id FROM bench.entities"
[features]
query = "features.sql"
changes = "changes.sql"
preprocess = "model.py:preprocess"
[predictions]
p = { method = "predict_proba", class = "1", index = true }
"""

#: What is compared with scripts: no index but the key, and features as the model takes them.
PLAIN_TOML = TOML.replace(", index = true", "").replace('preprocess = "model.py:preprocess"\n', "")

FEATURES = f"""
SELECT e.id, b.as_of, {", ".join(f"e.{name}" for name in (*TEXTS, *FLOATS))}
FROM batch AS b JOIN bench.entities AS e ON e.id = b.id
"""

CHANGES = "SELECT id FROM bench.entities, since WHERE updated_at > since.at"

MODEL = """
def preprocess(frame):
    return frame.drop(columns=["as_of"])
"""

#: Rows that a model is fitted on.
SAMPLE_ROWS = 20_000


def fill(rows: int) -> str:
    """Return the statements that make the table: seeded, the same each time."""
    texts = ", ".join(
        f"'{name}' || (hashint8extended(x, {n}) & 15)::text AS {name}" for n, name in enumerate(TEXTS, start=100)
    )
    floats = ", ".join(
        f"(hashint8extended(x, {n}) & 1048575)::double precision / 1048576 AS {name}" for n, name in enumerate(FLOATS)
    )
    return (
        f"CREATE SCHEMA bench; CREATE TABLE bench.entities AS SELECT x::bigint AS id, {texts}, {floats}, "
        f"now() - interval '1 hour' AS updated_at FROM generate_series(1, {rows}) AS x; "
        "ALTER TABLE bench.entities ADD PRIMARY KEY (id); CREATE INDEX ON bench.entities (updated_at); "
        "ANALYZE bench.entities"
    )


def make_table(world: World, rows: int) -> None:
    """Make the table."""
    world.execute(fill(rows))


def boosted(_: object, frame: object) -> object:
    """Fit a pipeline of the benchmark: ordinal codes for the texts, 100 boosted trees."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("texts", encoder, list(TEXTS))], remainder="passthrough")
    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=1)
    return Pipeline([("columns", columns), ("model", trees)]).fit(frame, _label(frame))


def logistic(_: object, frame: object) -> object:
    """Fit the other one: one column for each category, scaled numbers, a logistic regression."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    categories = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("texts", categories, list(TEXTS)), ("floats", StandardScaler(), list(FLOATS))])
    return Pipeline([("columns", columns), ("model", LogisticRegression())]).fit(frame, _label(frame))


#: The models that are compared, and the pipelines of these names.
MODELS: dict[str, Callable[[object, object], object]] = {"boosted": boosted, "logistic": logistic}


def _label(frame: Any) -> Any:
    return (frame["f0"] + frame["f1"] > frame["f2"] + frame["f3"]).astype(int)


def register(bench: Bench, name: str) -> None:
    """Register a pipeline and its model, and keep the fitted model where scripts read it."""
    import joblib

    from tests.factories import make_model, make_pipeline

    def fit(nothing: object, frame: object) -> object:
        fitted = MODELS[name](nothing, frame)
        joblib.dump(fitted, model_file(bench.folder, name))
        return fitted

    pipeline = make_pipeline(bench.world, name, toml=PLAIN_TOML, features=FEATURES, changes=CHANGES)
    make_model(bench.world, pipeline, fit=fit, sample_rows=SAMPLE_ROWS)


def model_file(folder: Path, name: str) -> Path:
    """Return where the fitted model of a pipeline lies."""
    return folder / f"{name}.joblib"


def main() -> None:
    """Make the table and the model, score everybody once in a process of its own, print what it said."""
    from tests.factories import make_model, make_pipeline

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    rows = parser.parse_args().rows
    with opened() as bench:
        started = time.perf_counter()
        make_table(bench.world, rows)
        pipeline = make_pipeline(
            bench.world, "bench", toml=TOML, features=FEATURES, changes=CHANGES, files={"model.py": MODEL}
        )
        make_model(bench.world, pipeline, fit=boosted, sample_rows=SAMPLE_ROWS)
        sys.stderr.write(f"{rows:,} rows and a model made in {time.perf_counter() - started:.0f} s\n")
        command = [sys.executable, "-c", "from flows.cli import main; main()", "score", "bench"]
        subprocess.run(command, env=bench.environ, check=True)


if __name__ == "__main__":
    main()
