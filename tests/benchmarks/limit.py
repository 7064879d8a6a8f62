"""The limit: each stage alone, and the shortest time in which two cores could do them all at once.

    python -m tests.benchmarks.limit boosted --rows 2000000

Nothing overlaps, nothing is checked, and the next stage gets what it takes fastest. Of each stage the seconds and CPU
seconds, of Python and of PostgreSQL:

- ``read``: COPY out of the table, received by psql and thrown away. PostgreSQL's CPU seconds count.
- ``decode``: the same rows fetched into Arrow batches, by compiled code as prescore does. Python's CPU seconds count, which
  include receiving them.
- ``frame``, ``transform``, ``predict``: batch by batch, Arrow to a frame, the fitted ColumnTransformer, the model. Python's
  count.
  ``--compiled`` leaves out the frame, encodes dictionary codes instead of rows, and walks the trees with one thread of
  compiled code; a linear model is added up column by column.
- ``write``: key and prediction in one COPY. Both count.
- ``key``: the primary key. Both count.

The limit is the CPU seconds that count, divided by the cores; and not less than the longest stage that one thread has to
do alone (all but ``predict``, which has a pool of its own, and ``key``, for which PostgreSQL takes helpers). This module is
started by ``tests.benchmarks`` on its server.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks import embedded
from tasks.columns import Column
from tasks.compiled.rows import Decoder, load_decoder
from tasks.libpq import open_connection
from tests.benchmarks.bench import Bench, Spent, current, load_libraries, openmp_threads, spending, tell
from tests.benchmarks.scripts import SELECT, frame_of
from tests.benchmarks.table import FLOATS, TEXTS, model_file

STAGES = ("read", "decode", "frame", "transform", "predict", "write", "key")
#: Bytes of a batch: the largest that were not slower in the caches of the processor than smaller ones.
BATCH_BYTES = 8 * 1024 * 1024
#: Stages that one thread cannot share with another.
_ALONE = ("read", "decode", "frame", "transform", "write")
#: The table that stages write into.
TARGET = "limited"


def counted(stage: str, found: Mapping[str, float]) -> float:
    """Return the CPU seconds of a stage that a pipeline of all stages has to spend, too."""
    match stage:
        case "read":
            return found["backends"]
        case "decode" | "frame" | "transform" | "predict":
            return found["python"]  # PostgreSQL was filling the socket for the next batch meanwhile
        case _:
            return found["python"] + found["backends"]


def longest_alone(stage: str, found: Mapping[str, float]) -> float:
    """Return the CPU seconds of a stage that one thread has to spend: reading and writing have two, one on each side."""
    if stage not in _ALONE:
        return 0.0
    return max(found["python"], found["backends"]) if stage == "write" else counted(stage, found)


def shortest(stages: Mapping[str, Mapping[str, float]], cores: int) -> float:
    """Return the shortest wall time in which so many cores can do all stages, in seconds."""
    total = sum(counted(stage, found) for stage, found in stages.items())
    return max(total / cores, *(longest_alone(stage, found) for stage, found in stages.items()))


@contextmanager
def _added(spent: Spent, bench: Bench) -> Iterator[None]:
    with spending(bench.data_dir) as one:
        yield
    for name, value in vars(one).items():
        setattr(spent, name, getattr(spent, name) + value)


class ByScikitLearn:
    """The stages between reading and writing, each as scikit-learn does it."""

    def __init__(self, estimator: Any) -> None:
        self._columns, self._model = estimator["columns"], estimator["model"]

    def frame(self, batch: Any) -> Any:
        """Arrow to what the encoder takes."""
        return frame_of(batch)

    def transform(self, frame: Any) -> Any:
        """Encode it."""
        return self._columns.transform(frame)

    def predict(self, matrix: Any) -> Any:
        """Return probabilities."""
        return self._model.predict_proba(matrix)[:, 1]


class ByCompiledCode:
    """The same with compiled trees: no frame, and encoders are asked for each value once."""

    def __init__(self, estimator: Any, folder: Path) -> None:
        import pandas as pd

        from tasks.compiled.forests import read_ensemble
        from tasks.compiled.kernel import load_kernel

        encoder = estimator["columns"].named_transformers_["texts"]
        self._known = [pd.Index(values) for values in encoder.categories_]
        self._ensemble = read_ensemble(estimator["model"])
        self._kernel = load_kernel(folder).bind(self._ensemble.forest)

    def frame(self, batch: Any) -> Any:
        """Nothing to do."""
        return batch

    def transform(self, batch: Any) -> Any:
        """Return a column for each feature: numbers as they lie in Arrow, codes of texts by their values."""
        columns = []
        for name, known in zip(TEXTS, self._known, strict=True):
            codes = batch.column(name).dictionary_encode()
            numbers = known.get_indexer(codes.dictionary.to_numpy(zero_copy_only=False)).astype(float)
            columns.append(numbers[codes.indices.to_numpy()])
        return columns + [batch.column(name).to_numpy() for name in FLOATS]

    def predict(self, columns: Any) -> Any:
        """Return probabilities."""
        sums, _ = self._kernel.sums(columns)
        return self._ensemble.methods["predict_proba"](sums)[:, 1]


class ByColumn:
    """The same of a linear model: what a text adds is looked up by its code, numbers are scaled and multiplied."""

    def __init__(self, estimator: Any) -> None:
        import pandas as pd

        encoder, scaler = (estimator["columns"].named_transformers_[name] for name in ("texts", "floats"))
        self._model = estimator["model"]
        self._known = [pd.Index(values) for values in encoder.categories_]
        self._mean, self._scale = scaler.mean_, scaler.scale_

    def frame(self, batch: Any) -> Any:
        """Nothing to do."""
        return batch

    def transform(self, batch: Any) -> Any:
        """Return the codes of the texts, and the scaled numbers."""
        codes = []
        for name, known in zip(TEXTS, self._known, strict=True):
            column = batch.column(name).dictionary_encode()
            places = known.get_indexer(column.dictionary.to_numpy(zero_copy_only=False))
            codes.append(places[column.indices.to_numpy()])
        scaled = zip(FLOATS, self._mean, self._scale, strict=True)
        return codes, [(batch.column(name).to_numpy() - mean) / scale for name, mean, scale in scaled]

    def predict(self, columns: Any) -> Any:
        """Return probabilities."""
        from scipy.special import expit

        (codes, numbers), weights = columns, self._model.coef_[0]
        sums = self._model.intercept_[0]
        for places, known in zip(codes, self._known, strict=True):
            sums = sums + weights[: len(known)].take(places)
            weights = weights[len(known) :]
        for column, weight in zip(numbers, weights, strict=True):
            sums += column * weight
        return expit(sums)


def measure(bench: Bench, name: str, rows: int, *, compiled: bool = False) -> dict[str, Spent]:
    """Do each stage alone and return what it took."""
    import joblib
    import pyarrow as pa

    folder = bench.world.settings.data_dir / "compiled"
    decoder = load_decoder(folder)
    spent = {stage: Spent() for stage in STAGES}
    statement = f"{SELECT} WHERE id <= {rows}"
    with _added(spent["read"], bench):
        _read(bench, statement)
    with _added(spent["decode"], bench):
        _fetch(bench, decoder, statement, lambda batch: None)
    estimator = joblib.load(model_file(bench.folder, name))
    work: ByScikitLearn | ByCompiledCode | ByColumn = ByScikitLearn(estimator)
    if compiled:
        work = ByColumn(estimator) if hasattr(estimator["model"], "coef_") else ByCompiledCode(estimator, folder)
    predicted: list[pa.RecordBatch] = []

    def predict(batch: pa.RecordBatch) -> None:
        if not predicted:  # what is only done once is no part of a stage
            work.predict(work.transform(work.frame(batch.slice(0, 1_000))))
        with _added(spent["frame"], bench):
            frame = work.frame(batch)
        with _added(spent["transform"], bench):
            matrix = work.transform(frame)
        with _added(spent["predict"], bench):
            p = work.predict(matrix)
        predicted.append(pa.RecordBatch.from_arrays([batch.column("id"), pa.array(p)], names=["id", "p"]))

    _fetch(bench, decoder, statement, predict)
    _write(bench, predicted, spent["write"], spent["key"])
    return spent


def _read(bench: Bench, statement: str) -> None:
    command = [str(embedded.psql_program(bench.data_dir)), "-qXd", bench.url, "-c"]
    subprocess.run([*command, f"COPY ({statement}) TO STDOUT (FORMAT binary)"], check=True, stdout=subprocess.DEVNULL)


def _fetch(bench: Bench, decoder: Decoder, statement: str, use: Callable[[Any], None]) -> None:
    kinds = {"id": "bigint", **dict.fromkeys(TEXTS, "text"), **dict.fromkeys(FLOATS, "double precision")}
    columns = [Column(name=name, postgres_type=kind) for name, kind in kinds.items()]
    with open_connection(bench.url) as connection:
        connection.begin_copy(statement)
        for batch in decoder.batches(connection, columns, BATCH_BYTES):
            use(batch)


def _write(bench: Bench, predicted: list[Any], write: Spent, key: Spent) -> None:
    import pyarrow as pa
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(bench.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS bench.{TARGET}")
        with _added(write, bench):
            reader = pa.RecordBatchReader.from_batches(predicted[0].schema, predicted)
            cursor.adbc_ingest(TARGET, reader, mode="create", db_schema_name="bench")
        with _added(key, bench):
            cursor.execute(f"ALTER TABLE bench.{TARGET} ADD PRIMARY KEY (id)")
        connection.commit()


def main() -> None:
    """Measure the stages of one model on the bench that this process was started on, and tell them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--compiled", action="store_true")
    asked = parser.parse_args()
    bench = current()
    load_libraries()
    found = measure(bench, asked.model, asked.rows, compiled=asked.compiled)
    stages = {stage: spent.as_json() for stage, spent in found.items()}
    cores = os.cpu_count() or 1
    tell(
        {
            "stages": stages,
            "seconds": shortest(stages, cores),
            "cpu": sum(counted(stage, found) for stage, found in stages.items()),
            "rows": asked.rows,
            "threads": f"1 x {1 if asked.compiled else openmp_threads()}",
        }
    )


if __name__ == "__main__":
    main()
