"""Feature rows as they came are to the compiled form of a model what the frame made of them is."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from tasks.columns import Column, IntegerTooWide, model_frame, schema_of
from tasks.compiled import CompiledEstimator, compile_bundle
from tasks.compiled.tables import FrameTable, NotThisBatch, RowsTable
from tasks.outputs import predict_outputs
from tasks.pipeline import Output

COLUMNS = (
    Column(name="country", postgres_type="text"),
    Column(name="a", postgres_type="double precision"),
    Column(name="n", postgres_type="bigint"),
    Column(name="flag", postgres_type="boolean"),
    Column(name="narrow", postgres_type="real"),
    Column(name="since", postgres_type="date"),
)
PLACES = {column.name: place for place, column in enumerate(COLUMNS)}


def make_batch(rows: int, *, seed: int = 1, missing: bool = True) -> pa.RecordBatch:
    """Return feature rows of all kinds of columns, every tenth value of a column NULL."""
    rng = np.random.default_rng(seed)

    def some(values: Any) -> list[Any]:
        chosen = [values[at] for at in rng.integers(0, len(values), rows)]
        return [None if missing and rng.random() < 0.1 else value for value in chosen]

    days = [dt.date(2024, 1, day) for day in range(1, 9)]
    found = {
        "country": some(["be", "de", "", "ö", "never seen"]),
        "a": some([0.5, -1.0, 3.25, 7.0]),
        "n": some([0, 1, -5, 2**53]),
        "flag": some([True, False]),
        "narrow": some([0.5, 0.25]),
        "since": some(days),
    }
    schema = schema_of(COLUMNS)
    return pa.RecordBatch.from_arrays([pa.array(found[f.name], f.type) for f in schema], schema=schema)


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 500])
def test_columns_are_those_of_the_frame(rows: int, missing: bool) -> None:
    batch = make_batch(rows, missing=missing)
    table, frame = RowsTable(batch, COLUMNS), model_frame(batch, COLUMNS)
    assert (len(table), table.names) == (rows, tuple(frame.columns))
    for name in ("a", "n", "flag", "narrow"):
        found = table.numbers(PLACES[name])
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, frame[name].to_numpy())
    for name in ("country", "n", "since"):
        codes, values = table.coded(PLACES[name])
        assert sorted(set(codes)) == list(range(len(values)))  # all of them, and no others
        pd.testing.assert_series_equal(
            values.take(codes).reset_index(drop=True), frame[name].reset_index(drop=True), check_names=False
        )
    pd.testing.assert_frame_equal(table.frame([1, 0]), frame[["a", "country"]])
    some = np.arange(0, rows, 7)
    pd.testing.assert_frame_equal(table.some(some), frame.iloc[some].reset_index(drop=True))


def test_a_dictionary_may_have_texts_that_no_row_has() -> None:
    """As one that travelled with a Parquet file: an encoder might refuse them."""
    whole = pa.DictionaryArray.from_arrays(pa.array([0, 2, None], pa.int32()), ["be", "of no row", "de"])
    codes, values = RowsTable(pa.RecordBatch.from_arrays([whole], names=["country"]), COLUMNS[:1]).coded(0)
    assert list(values) == ["be", "de", None]
    assert list(codes) == [0, 1, 2]


def test_text_and_dates_are_no_numbers() -> None:
    table = RowsTable(make_batch(10), COLUMNS)
    for name in ("country", "since"):
        with pytest.raises(NotThisBatch):
            table.numbers(PLACES[name])


def test_an_integer_that_is_too_wide_is_refused_as_in_a_frame() -> None:
    column = COLUMNS[PLACES["n"]]
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2**53 + 1])], names=["n"])
    with pytest.raises(IntegerTooWide):
        model_frame(batch, [column])
    with pytest.raises(IntegerTooWide):
        RowsTable(batch, [column])


def compiled(estimator: Any, golden: pd.DataFrame, folder: Path) -> CompiledEstimator:
    bundle: Any = SimpleNamespace(name="items", estimator=estimator, digest="0" * 64)
    form = compile_bundle(bundle, golden, folder, measure=False)
    assert form is not None
    return form


def label(frame: pd.DataFrame) -> np.ndarray:
    return (frame["a"].fillna(0) + (frame["country"] == "be") > 1).to_numpy().astype(int)


@pytest.mark.parametrize("texts", ["one-hot", "ordinal"])
def test_predictions_of_rows_are_those_of_their_frame(texts: str, tmp_path: Path) -> None:
    encoder = {
        "one-hot": OneHotEncoder(handle_unknown="ignore"),
        "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    }[texts]
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("t", encoder, ["country"]), ("n", numbers, ["a", "n", "flag", "narrow"])])
    train = model_frame(make_batch(400), COLUMNS)
    estimator = make_pipeline(columns, LogisticRegression()).fit(train, label(train))
    form = compiled(estimator, train.head(50), tmp_path)
    rows = make_batch(300, seed=2)
    outputs = (
        Output(name="p", method="predict_proba", class_="1"),
        Output(name="label", method="predict"),
        Output(name="margin", method="decision_function"),
    )
    found = predict_outputs(form, RowsTable(rows, COLUMNS), outputs)
    expected = predict_outputs(estimator, model_frame(rows, COLUMNS), outputs)
    assert form._returned.keys() == {"predict_proba", "predict", "decision_function"}
    assert form.differed is None
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].to_numpy(), values.to_numpy(), rtol=1e-12, atol=1e-12)


def test_what_the_form_leaves_to_scikit_learn_gets_its_frame(tmp_path: Path) -> None:
    """Of a model that was fitted on an array, which warns of frames."""
    rows = make_batch(200, seed=2)
    train = model_frame(make_batch(400, missing=False), COLUMNS)[["a", "n"]].to_numpy()
    estimator = make_pipeline(FunctionTransformer(np.abs), Ridge()).fit(train, train[:, 0])
    form = compiled(estimator, pd.DataFrame(train[:20], columns=["a", "n"]), tmp_path)
    table = RowsTable(rows.slice(0, 50), COLUMNS[1:3])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        predict_outputs(form, table, (Output(name="value", method="predict"),))
    whole = RowsTable(make_batch(50, seed=3, missing=False), COLUMNS[1:3])
    found = predict_outputs(form, whole, (Output(name="value", method="predict"),))
    np.testing.assert_allclose(found["value"].to_numpy(), estimator.predict(whole.frame().to_numpy()), rtol=1e-12)


def test_a_step_that_writes_into_its_rows_changes_nothing(tmp_path: Path) -> None:
    frame = model_frame(make_batch(300, missing=False), COLUMNS)[
        ["a", "n"]
    ].copy()  # in one block, which can be written into
    estimator = make_pipeline(StandardScaler(copy=False), Ridge()).fit(frame.copy(), frame["a"])
    expected = estimator.predict(frame.copy())
    form = compiled(estimator, frame.head(20).copy(), tmp_path)
    before = frame.copy()
    outputs = (Output(name="value", method="predict"),)
    for _ in range(2):
        found = predict_outputs(form, FrameTable(frame), outputs)
        np.testing.assert_allclose(found["value"].to_numpy(), expected, rtol=1e-12, atol=1e-12)
    pd.testing.assert_frame_equal(frame, before)
    form.differed = "in an earlier batch"  # so that scikit-learn itself gets the rows
    found = predict_outputs(form, FrameTable(frame), outputs)
    np.testing.assert_array_equal(found["value"].to_numpy(), expected)
    pd.testing.assert_frame_equal(frame, before)
