"""A process that knows the database and the pipelines, and never saw the estimators: loads models and scores rows.

``python -m tests.elsewhere FOLDER`` reads ``wanted.json`` (name, pipeline, version) and ``rows.parquet`` there, writes
the predictions of each to ``NAME.arrow``, and prints the seconds that each took to load (libraries are imported before), or what it
raised.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import skops.io  # noqa: F401 - it imports all of scikit-learn, for seconds, before the first model is loaded
from pyarrow import feather

from tasks import registry, settings
from tasks.bundle import outputs_table, preprocessed
from tasks.database import connect, resolve_url
from tasks.pipeline import find_pipeline


def main(folder: Path) -> None:
    """Load each wanted version from the registry and write its predictions."""
    here = settings.read_settings()
    rows = pq.read_table(folder / "rows.parquet")
    told: dict[str, float | str] = {}
    with connect(resolve_url(here)) as connection:
        for name, used_by, version in json.loads((folder / "wanted.json").read_text(encoding="utf-8")):
            pipeline = find_pipeline(here, used_by)
            started = time.perf_counter()
            try:
                bundle = registry.load_bundle(connection, pipeline.model.name, version, pipeline)
                told[name] = time.perf_counter() - started
                frame = preprocessed(rows, bundle.features, pipeline.preprocess_function())
                feather.write_feather(outputs_table(bundle.score(frame)), str(folder / f"{name}.arrow"))
            except Exception as error:
                told[name] = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
