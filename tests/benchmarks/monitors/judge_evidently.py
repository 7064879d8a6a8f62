# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["evidently==0.7.23", "pandas>=2.2,<3", "pyarrow>=21"]
# ///
"""Judge the stream with Evidently's DataDriftPreset and its defaults. Prints JSON.

Evidently 0.7.23 cannot be imported with pandas 3 (infer_dtype_from_object is gone), hence the bound.
"""

import json
import resource
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

warnings.simplefilter("ignore")


def drifted(reference: pd.DataFrame, current: pd.DataFrame, texts: list[str]) -> tuple[list[str], bool]:
    """Return the columns that are told to drift, and whether the data set is."""
    numbers = [name for name in reference.columns if name not in texts]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    snapshot = Report([DataDriftPreset()]).run(
        Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
    )
    columns, dataset = [], False
    for metric in snapshot.dict()["metrics"]:
        config, value = metric["config"], metric["value"]
        if "column" in config:
            p_value = "p_value" in config["method"]
            if value < config["threshold"] if p_value else value >= config["threshold"]:
                columns.append(config["column"])
        else:
            dataset = value["share"] >= config["drift_share"]
    return columns, dataset


def main(folder: Path, large: bool) -> None:
    if large:
        reference, current = (pd.read_parquet(folder / f"{name}.parquet") for name in ("large_training", "large"))
        started = time.process_time()
        drifted(reference, current, [])
        told = {"seconds": time.process_time() - started}
    else:
        stream = json.loads((folder / "stream.json").read_text())
        reference = pd.read_parquet(folder / "training.parquet")
        told = {}
        for name, days in stream["days"].items():
            found = [drifted(reference, pd.read_parquet(folder / day), stream["texts"]) for day in days]
            told[name] = [{"columns": columns, "dataset": dataset} for columns, dataset in found]
    print(json.dumps({"told": told, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


main(Path(sys.argv[1]), large="--large" in sys.argv)
