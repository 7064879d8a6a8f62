"""Ranked lists are judged by recall, entity by entity, beside what is frequent anyway: checked by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks.columns import Column
from tasks.evaluation import evaluate, ranks
from tasks.features import AS_OF, FeatureContract
from tasks.pipeline import Pipeline, load_pipeline
from tasks.training import Split, SplitBy, one_row_each

EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
KEY = Column(name="id", postgres_type="bigint")
CONTRACT = FeatureContract(key=(KEY,), features=(Column(name="likes", postgres_type="text"),))
TOML = """
[entity]
key = ["id"]
query = "SELECT 1::bigint AS id"
[features]
query = "SELECT b.id, b.as_of, 'x' AS likes FROM batch AS b"
[predictions]
items = { method = "recommend", part = "items", k = 2 }
"""


class Fixed:
    """Recommends the same to whoever likes the same, and remembers how many rows it was asked for."""

    def __init__(self, lists: dict[str, list[Any]]) -> None:
        self.lists, self.asked = lists, 0

    def recommend(self, frame: pd.DataFrame, k: int) -> tuple[list[Any], list[Any]]:
        self.asked += len(frame)
        items = [self.lists[likes][:k] for likes in frame["likes"]]
        return items, [np.linspace(1, 0, len(row)) for row in items]


def pipeline(folder: Path, toml: str = TOML) -> Pipeline:
    (folder / "lists").mkdir()
    (folder / "lists" / "pipeline.toml").write_text(toml)
    return load_pipeline(folder / "lists")


def rows(instant: datetime, *labelled: tuple[int, str, Any]) -> pa.Table:
    ids, likes, labels = zip(*labelled, strict=True)
    instants = pa.array([instant] * len(ids), AS_OF.arrow_type)
    return pa.table({"id": pa.array(ids, pa.int64()), "as_of": instants, "label": labels, "likes": likes})


def split(fitted: pa.Table, held_out: pa.Table) -> Split:
    return Split(fitted=fitted, held_out=held_out, by=SplitBy.TIME, unlabelled=0)


def test_recall_is_the_mean_share_of_an_entitys_labels_on_its_list(tmp_path: Path) -> None:
    # Learned: tea 3 times, ink twice, wool once; so tea and ink are what is frequent.
    fitted = rows(EARLY, *((n, "a", label) for n, label in enumerate(["tea", "tea", "tea", "ink", "ink", "wool"])))
    held_out = rows(
        LATE,
        (1, "a", "wool"), (1, "a", "tea"), (1, "a", "soap"), (1, "a", "lamp"),  # 1 of 4 on (wool, ball); frequent: 1 of 4
        (2, "b", "ink"),  # 0 of 1 on (tea); frequent: 1 of 1
        (3, "a", "ball"), (3, "a", "ball"), (3, "a", "wool"),  # bought twice counts once: 2 of 2; frequent: 0 of 2
    )  # fmt: skip
    model = Fixed({"a": ["wool", "ball", "tea"], "b": ["tea", None, None]})
    found = evaluate(pipeline(tmp_path), CONTRACT, model, split(fitted, held_out))
    assert found["task"] == "ranking"
    assert found["metrics"] == {"recall@2": pytest.approx((1 / 4 + 0 + 1) / 3)}
    assert found["baseline"] == {"recall@2": pytest.approx((1 / 4 + 1 + 0) / 3)}
    assert model.asked == 3  # each entity once, however many labels it has


def test_numbers_are_compared_with_items_of_either_type(tmp_path: Path) -> None:
    fitted, held_out = rows(EARLY, (1, "a", 17), (2, "a", 17)), rows(LATE, (1, "a", 17), (2, "b", 4))
    declared = pipeline(tmp_path)
    for lists in ({"a": [17, 5], "b": [5, 6]}, {"a": ["17", "5"], "b": ["5", "6"]}):
        assert evaluate(declared, CONTRACT, Fixed(lists), split(fitted, held_out))["metrics"] == {"recall@2": 0.5}


def test_every_declared_length_is_judged(tmp_path: Path) -> None:
    toml = TOML + 'first = { method = "recommend", part = "items", k = 1 }\n'
    fitted, held_out = rows(EARLY, (1, "a", "x"), (2, "a", "y")), rows(LATE, (1, "a", "y"))
    found = evaluate(pipeline(tmp_path, toml), CONTRACT, Fixed({"a": ["x", "y"]}), split(fitted, held_out))
    assert found["metrics"] == {"recall@1": 0.0, "recall@2": 1.0}


def test_a_model_that_predicts_and_recommends_is_judged_by_what_is_declared(tmp_path: Path) -> None:
    class Both(Fixed):
        def predict(self, frame: pd.DataFrame) -> np.ndarray:
            return np.zeros(len(frame))

    declared = pipeline(tmp_path)
    (tmp_path / "values").mkdir()
    values = pipeline(
        tmp_path / "values", TOML.split("[predictions]", maxsplit=1)[0] + '[predictions]\np = { method = "predict" }\n'
    )
    assert ranks(declared, Both({}))
    assert not ranks(values, Both({}))
    assert ranks(values, Fixed({}))


def test_one_row_each_tells_whose_every_row_is() -> None:
    table = rows(LATE, (7, "a", "x"), (7, "a", "y"), (3, "b", "x"), (7, "a", "z"))
    firsts, owners = one_row_each(table, (KEY,))
    assert firsts.column("id").to_pylist() == [7, 3]
    assert owners.tolist() == [0, 0, 1, 0]
