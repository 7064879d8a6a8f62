"""Sentinels find what goes wrong only in bulk, and leave no trace in what is counted and written."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks.features import FeatureContract
from tasks.pipeline import Output
from tasks.scoring import Scorer, Tally
from tasks.sentinels import SENTINEL_ROWS, Sentinels
from tests.unit.test_bundle import FEATURES, KEY, OUTPUTS, fitted, make_bundle, make_rows, strict

BUNDLE, _ = make_bundle()


def spent_twice(frame: pd.DataFrame) -> pd.DataFrame:
    """A preprocess that is row-wise."""
    return frame.assign(spent=2 * frame["spent"])


def scorer_of(bundle: Any, preprocess: Any = None, features: Any = FEATURES) -> Scorer:
    declared: Any = SimpleNamespace(
        name="churn", predictions=OUTPUTS, features=SimpleNamespace(preprocess=None, fingerprint=False)
    )
    contract = FeatureContract(key=KEY, features=features)
    outputs = bundle.output_columns
    return Scorer(pipeline=declared, contract=contract, bundle=bundle, preprocess=preprocess, outputs=outputs)


def batches_of(rows: pa.Table, *lengths: int) -> Iterator[pa.RecordBatch]:
    start = 0
    for length in lengths:
        yield rows.slice(start, length).combine_chunks().to_batches()[0]
        start += length


def scored(scorer: Scorer, *lengths: int, sentinels: bool = True, rows: pa.Table | None = None) -> tuple[Any, Tally]:
    tally = Tally()
    if sentinels:
        tally.sentinels = Sentinels(scorer.bundle, OUTPUTS, 1e-6, seed=7)
    given = make_rows(sum(lengths)) if rows is None else rows
    found = list(scorer.predictions(batches_of(given, *lengths), 5, tally))
    assert [batch.num_rows for batch in found] == list(lengths)
    return pa.Table.from_batches(found), tally


def test_predictions_and_counts_are_those_of_a_pass_without_sentinels() -> None:
    known = make_rows(100, holes=False)
    bundle, _ = make_bundle(fitted(strict(), known, spent_twice), known, preprocess=spent_twice)
    scorer = scorer_of(bundle, spent_twice)

    with_them, counted = scored(scorer, 150, 1, 40, 60)
    without, expected = scored(scorer, 150, 1, 40, 60, sentinels=False)

    assert with_them.drop_columns(["churn_probability"]) == without.drop_columns(["churn_probability"])
    both = [table.column("churn_probability").to_numpy() for table in (with_them, without)]
    np.testing.assert_allclose(*both, atol=1e-12)
    assert counted.sentinels is not None
    assert (counted.sentinels.compared, counted.sentinels.worst) == (3 * SENTINEL_ROWS, None)  # batches 1, 2 and 4
    assert (counted.rows, counted.rejected, counted.reasons) == (251, expected.rejected, expected.reasons)
    np.testing.assert_allclose(counted.ranges["churn_probability"], expected.ranges["churn_probability"], atol=1e-12)


def test_columns_may_be_reordered_widened_and_more_than_the_model_knows() -> None:
    from tasks.columns import Column

    rows = make_rows(50)
    wider = rows.set_column(2, "orders", rows.column("orders").cast(pa.int16()))
    given = wider.append_column("new", pa.array(["x"] * 50)).select(
        ["customer_id", "as_of", "new", "country", "spent", "orders"]
    )
    features = (
        Column(name="new", postgres_type="text"),
        FEATURES[2],
        FEATURES[1],
        Column(name="orders", postgres_type="smallint"),
    )

    _, tally = scored(scorer_of(BUNDLE, features=features), 50, rows=given)

    assert tally.sentinels is not None
    assert (tally.sentinels.compared, tally.sentinels.worst, tally.sentinels.skipped) == (SENTINEL_ROWS, None, "")


def test_a_type_that_cannot_hold_the_remembered_values_skips_them_with_the_reason() -> None:
    rows = make_rows(50)
    narrow = rows.set_column(3, "spent", rows.column("spent").cast(pa.float32(), safe=False))

    _, tally = scored(scorer_of(BUNDLE), 50, rows=narrow)

    assert tally.sentinels is not None
    assert tally.sentinels.compared == 0
    assert tally.sentinels.skipped.startswith("spent has a type now that cannot hold")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            lambda values: values.take(pa.array(np.roll(np.arange(len(values)), 1))),
            "churn_probability differs by up to",
        ),
        (lambda values: values.take(pa.array(np.arange(len(values))[::-1])), "churn_probability differs by up to"),
        # Right but for the last row of each batch.
        (lambda values: pa.concat_arrays([values[:-1], values[:1]]), "in 1 of 20 values"),
    ],
)
def test_rows_that_are_mixed_up_in_a_batch_are_found(monkeypatch: pytest.MonkeyPatch, fault: Any, words: str) -> None:
    scorer = scorer_of(BUNDLE)
    right = Scorer._outputs

    def wrong(self: Scorer, frame: pd.DataFrame, rows_before: int) -> dict[str, pa.Array]:
        found = right(self, frame, rows_before)
        return {**found, "churn_probability": fault(found["churn_probability"])}

    monkeypatch.setattr(Scorer, "_outputs", wrong)

    _, tally = scored(scorer, 200)

    assert tally.sentinels is not None
    assert tally.sentinels.worst is not None
    assert words in tally.sentinels.worst


def test_a_sentinel_that_is_rejected_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = np.full(220, "null:spent", dtype=object)
    monkeypatch.setattr(Scorer, "_reasons_before", lambda self, batch: everything.copy())

    _, tally = scored(scorer_of(BUNDLE), 200)

    assert tally.sentinels is not None
    assert tally.sentinels.worst == "20 of 20 were rejected"
    assert tally.rejected == 200


def test_outputs_that_were_declared_otherwise_have_nothing_to_be_compared_with() -> None:
    other = (Output.model_validate({"name": "churn_probability", "method": "predict_proba", "class": "0"}),)

    sentinels = Sentinels(BUNDLE, other, 1e-6, seed=1)

    assert sentinels.skipped == "no golden row has a recorded prediction of what is declared now"
    batch = next(batches_of(make_rows(5), 5))
    mixed = sentinels.mix(batch)
    assert mixed.rows is batch
    assert sentinels.take_out(mixed, batch) is batch
