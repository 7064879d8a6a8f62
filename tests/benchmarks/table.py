"""A table of N entities with 3 text and 16 float columns, a pipeline of boosted trees over it, and one full run.

    uv run python -m tests.benchmarks.table --rows 2000000

The run is a `prescore score` process of its own, so that its peak memory (VmHWM) is that of scoring alone. The database
is the embedded one, in a data folder of its own that is removed at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tasks import embedded, migrations
from tasks.database import connect, raw_execute
from tasks.settings import Settings
from tests.factories import World, make_model, make_pipeline

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

FEATURES = f"""
SELECT e.id, b.as_of, {", ".join(f"e.{name}" for name in (*TEXTS, *FLOATS))}
FROM batch AS b JOIN bench.entities AS e ON e.id = b.id
"""

CHANGES = "SELECT id FROM bench.entities, since WHERE updated_at > since.at"

MODEL = """
def preprocess(frame):
    return frame.drop(columns=["as_of"])
"""


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


def boosted(_: object, frame: object) -> object:
    """Fit the pipeline of the benchmark: ordinal codes for the texts, 100 boosted trees."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("texts", encoder, list(TEXTS))], remainder="passthrough")
    label = (frame["f0"] + frame["f1"] > frame["f2"] + frame["f3"]).astype(int)  # type: ignore[index]
    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=1)
    return Pipeline([("columns", columns), ("trees", trees)]).fit(frame, label)


def main() -> None:
    """Make the table and the model, score everybody once in a process of its own, print what it said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    rows = parser.parse_args().rows
    base = Path("/var/lib") if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="prescore-bench-", dir=base))
    folder.chmod(0o755)
    try:
        url = embedded.ensure_running(folder / "data")
        migrations.apply(url)
        settings = Settings(database_url=url, pipelines_dir=folder / "pipelines", data_dir=folder / "data")
        world = World(url=url, settings=settings)
        started = time.perf_counter()
        with connect(url) as connection:
            raw_execute(connection, fill(rows))
            connection.commit()
        pipeline = make_pipeline(
            world, "bench", toml=TOML, features=FEATURES, changes=CHANGES, files={"model.py": MODEL}
        )
        make_model(world, pipeline, fit=boosted, sample_rows=20_000)
        sys.stderr.write(f"{rows:,} rows and a model made in {time.perf_counter() - started:.0f} s\n")
        environ = {**os.environ, "PRESCORE_DATABASE_URL": url, "PRESCORE_PIPELINES": str(settings.pipelines_dir)}
        command = [sys.executable, "-c", "from flows.cli import main; main()", "score", "bench"]
        subprocess.run(command, env=environ, check=True)
    finally:
        embedded.stop(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
