"""The stream that all judge: what a model learnt from, days without faults, days with each fault, and one large day."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.shop_year import FAULTS, SHAPES, Shop

#: Clean days that are judged, the day each fault begins on (after forty days of history), and how long it lasts.
CLEAN, BEGINS, LASTS = range(40, 54), 54, 3
LARGE_ROWS, LARGE_FEATURES, LARGE_REFERENCE = 1_000_000, 30, 60_000


def write(folder: Path, entities: int) -> None:
    """Write the days as Parquet files, and what is in them as stream.json."""
    shop = Shop(entities)
    names = [shape.name for shape in SHAPES]
    training = [pd.DataFrame(shop.day(-30 * month, entities=5_000))[names] for month in range(12, 0, -1)]
    pd.concat(training).to_parquet(folder / "training.parquet", index=False)
    days: dict[str, list[str]] = {"clean": []}
    for day in CLEAN:
        days["clean"].append(_write(folder, f"clean_{day}", shop.day(day), names))
    for at, fault in enumerate(FAULTS):
        days[fault.name] = [
            _write(folder, f"fault_{at}_{day}", shop.day(day, fault), names) for day in range(BEGINS, BEGINS + LASTS)
        ]
    texts = [shape.name for shape in SHAPES if shape.postgres_type == "text"]
    (folder / "stream.json").write_text(json.dumps({"days": days, "texts": texts, "columns": names}))


def write_large(folder: Path) -> None:
    """Write one day of a million rows and thirty numbers, and what to compare it with."""
    draw = np.random.default_rng(9)
    for name, rows in (("large_training", LARGE_REFERENCE), ("large", LARGE_ROWS)):
        columns = {f"f{at}": draw.normal(size=rows) for at in range(LARGE_FEATURES)}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet", row_group_size=65_536)


def _write(folder: Path, name: str, values: dict[str, object], names: list[str]) -> str:
    pd.DataFrame(values)[names].to_parquet(folder / f"{name}.parquet", index=False)
    return f"{name}.parquet"
