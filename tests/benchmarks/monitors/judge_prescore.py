"""Judge the stream as prescore does, with its defaults and forty days of history. Prints JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.checks.comparison import Comparison
from tasks.checks.evidence import Evidence
from tasks.columns import Column
from tasks.declaration import Drift
from tasks.population import Mode
from tasks.profiles import ModelProfile, ProfileCounter, build_profile
from tests.benchmarks.false_alarms import JUDGED, Pipeline
from tests.benchmarks.monitors.stream import BEGINS, CLEAN, LASTS
from tests.shop_year import FAULTS


def main(folder: Path, large: bool) -> None:
    """Judge the days, or the large one."""
    told = _large(folder) if large else _days(json.loads((folder / "stream.json").read_text())["entities"])
    print(json.dumps({"told": told, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def _days(entities: int) -> dict[str, Any]:
    pipeline = Pipeline.open(entities)
    for day in range(CLEAN.start):
        pipeline.run(day)
    told: dict[str, Any] = {"clean": [_told(pipeline.run(day)) for day in CLEAN]}
    for fault in FAULTS:
        broken = pipeline.copied()
        told[fault.name] = [_told(broken.run(day, fault)) for day in range(BEGINS, BEGINS + LASTS)]
    return told


def _told(findings: Any) -> dict[str, Any]:
    alarms = [finding for finding in findings if finding.alarming]
    return {"columns": sorted({f.label for f in alarms}), "dataset": any(f.check_id == "drift.inputs" for f in alarms)}


def _large(folder: Path) -> dict[str, float]:
    training = pq.read_table(folder / "large_training.parquet")
    columns = [Column(name=name, postgres_type="double precision") for name in training.column_names]
    nothing = pa.table({"p": pa.array([], pa.float64())})
    profile = ModelProfile.from_bundle(build_profile(training, columns, nothing))
    started = time.process_time()
    counter = ProfileCounter(profile)
    for batch in pq.ParquetFile(folder / "large.parquet").iter_batches(65_536):
        counter.add(batch, pa.RecordBatch.from_pydict({}))
    compared = Comparison(
        mode=Mode.FULL, drift=Drift(), profile=profile, features=counter.features, outputs=counter.outputs
    )
    evidence = cast(
        Evidence, SimpleNamespace(comparison=compared, pipeline=SimpleNamespace(drift=Drift(), predictions=()))
    )
    for check in JUDGED:
        list(check.ask(evidence, check))
    return {"seconds": time.process_time() - started}


if __name__ == "__main__":
    main(Path(sys.argv[1]), large="--large" in sys.argv)
