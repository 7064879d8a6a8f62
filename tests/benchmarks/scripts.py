"""The scripts that people write instead: the usual one, and the best that an expert writes without overlapping anything.

    python -m tests.benchmarks.scripts usual boosted --rows 200000

A script is timed from its first connection until its table is committed; the model's file is read within that time,
libraries are imported before it. Both write the key and the prediction, and nothing else. This module is started by
``tests.benchmarks`` on its server.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.bench import current, load_libraries, openmp_threads, spending, tell
from tests.benchmarks.table import FLOATS, TEXTS, model_file

COLUMNS = (*TEXTS, *FLOATS)
SELECT = f"SELECT id, {', '.join(COLUMNS)} FROM bench.entities"


def usual(url: str, model: Path, rows: int, target: str) -> None:
    """Read a frame, predict, write a frame: ``read_sql``, ``predict_proba``, ``to_sql``."""
    import joblib
    import pandas as pd
    import sqlalchemy as sa

    engine = sa.create_engine(url)
    estimator = joblib.load(model)
    frame = pd.read_sql(f"{SELECT} WHERE id <= {rows}", engine)
    frame["p"] = estimator.predict_proba(frame[list(COLUMNS)])[:, 1]
    frame[["id", "p"]].to_sql(target, engine, schema="bench", if_exists="replace", index=False)
    engine.dispose()


def expert_batches(url: str, model: Path, rows: int, target: str) -> None:
    """Fetch Arrow batches, predict each when it came, write all of them in one COPY, then make the primary key."""
    import joblib
    import pyarrow as pa

    def load(cursor: Any) -> pa.RecordBatchReader:
        schema = pa.schema([("id", pa.int64()), ("p", pa.float64())])
        predicted = [_predicted(estimator, batch, schema) for batch in cursor.fetch_record_batch()]
        return pa.RecordBatchReader.from_batches(schema, predicted)

    estimator = joblib.load(model)
    _fetch_and_ingest(url, rows, target, load)


def expert_whole(url: str, model: Path, rows: int, target: str) -> None:
    """Fetch one Arrow table, predict it at once, write it in one COPY, then make the primary key."""
    import joblib
    import pyarrow as pa

    def load(cursor: Any) -> pa.RecordBatch:
        schema = pa.schema([("id", pa.int64()), ("p", pa.float64())])
        (whole,) = cursor.fetch_arrow_table().combine_chunks().to_batches()
        return _predicted(estimator, whole, schema)

    estimator = joblib.load(model)
    _fetch_and_ingest(url, rows, target, load)


SCRIPTS: dict[str, Callable[[str, Path, int, str], None]] = {
    "usual": usual,
    "expert_batches": expert_batches,
    "expert_whole": expert_whole,
}


def frame_of(batch: Any) -> Any:
    """Return what scikit-learn takes fastest: numbers as they lie in Arrow, text as objects, each value only once.

    Measured per 45,000 rows, frame and OrdinalEncoder: 0.026 s; 0.036 s with an object for each row; about 0.05 s with
    pandas' own text type (``to_pandas()``) or with categoricals, which the encoder turns into objects itself.
    """
    import pandas as pd

    columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in FLOATS}
    for name in TEXTS:
        codes = batch.column(name).dictionary_encode()
        values = codes.dictionary.to_numpy(zero_copy_only=False)
        columns[name] = pd.Series(values[codes.indices.to_numpy()], dtype=object)
    return pd.DataFrame(columns, columns=list(COLUMNS), copy=False)


def _predicted(estimator: Any, batch: Any, schema: Any) -> Any:
    import pyarrow as pa

    p = estimator.predict_proba(frame_of(batch))[:, 1]
    return pa.RecordBatch.from_arrays([batch.column("id"), pa.array(p)], schema=schema)


def _fetch_and_ingest(url: str, rows: int, target: str, load: Callable[[Any], Any]) -> None:
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS bench.{target}")
        cursor.execute(f"{SELECT} WHERE id <= {rows}")
        predicted = load(cursor)
        cursor.adbc_ingest(target, predicted, mode="create", db_schema_name="bench")
        cursor.execute(f"ALTER TABLE bench.{target} ADD PRIMARY KEY (id)")
        connection.commit()


def main() -> None:
    """Run one script on the bench that this process was started on, and tell what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", choices=SCRIPTS)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, required=True)
    asked = parser.parse_args()
    bench = current()
    load_libraries()
    with spending(bench.data_dir) as spent:
        SCRIPTS[asked.script](
            bench.url, model_file(bench.folder, asked.model), asked.rows, f"{asked.script}_{asked.model}"
        )
    tell({**spent.as_json(), "rows": asked.rows, "threads": f"1 x {openmp_threads()}"})


if __name__ == "__main__":
    main()
