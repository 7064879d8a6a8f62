# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["nannyml==0.13.1", "pandas>=2.2,<3", "pyarrow>=21", "statsmodels>=0.14"]
# ///
"""Judge the stream with NannyML's UnivariateDriftCalculator and its defaults. Prints JSON.

Each day is one chunk; the training rows are split into chunks of the same size (at most ten thousand rows, so that there
are six), from which the limits come: mean and three standard deviations. A data set drifts when a column does. NannyML
0.13.1 imports statsmodels and does not ask for it, and does not run on pandas 3, hence both.
"""

import contextlib
import json
import resource
import sys
import time
import warnings
from pathlib import Path

import nannyml
import pandas as pd

warnings.simplefilter("ignore")


def calculator(reference: pd.DataFrame, texts: list[str], chunk: int) -> nannyml.UnivariateDriftCalculator:
    """Return a calculator that knows the training."""
    found = nannyml.UnivariateDriftCalculator(
        column_names=list(reference.columns), treat_as_categorical=texts, chunk_size=chunk
    )
    return found.fit(reference)


def drifted(fitted: nannyml.UnivariateDriftCalculator, current: pd.DataFrame) -> list[str]:
    """Return the columns that alert when all rows are one chunk."""
    fitted.chunker = nannyml.chunk.SizeBasedChunker(chunk_size=len(current))
    result = fitted.calculate(current).filter(period="analysis").to_df()
    return sorted({name[0] for name in result.columns if name[2] == "alert" and bool(result[name].any())})


def main(folder: Path, large: bool) -> None:
    if large:
        reference, current = (pd.read_parquet(folder / f"{name}.parquet") for name in ("large_training", "large"))
        started = time.process_time()
        drifted(calculator(reference, [], 10_000), current)
        told = {"seconds": time.process_time() - started}
    else:
        stream = json.loads((folder / "stream.json").read_text())
        reference = pd.read_parquet(folder / "training.parquet").sample(frac=1, random_state=1)
        size = len(pd.read_parquet(folder / stream["days"]["clean"][0]))
        fitted = calculator(reference, stream["texts"], min(size, 10_000))
        told = {}
        for name, days in stream["days"].items():
            found = [drifted(fitted, pd.read_parquet(folder / day)) for day in days]
            told[name] = [{"columns": columns, "dataset": bool(columns)} for columns in found]
    print(json.dumps({"told": told, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


with contextlib.redirect_stderr(None):
    main(Path(sys.argv[1]), large="--large" in sys.argv)
