"""Every kind of output that a model can have becomes the SQL column that was declared, or is refused in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tasks.columns import Column
from tasks.errors import OutputNotOffered, OutputRefused
from tasks.outputs import continuous, output_columns, output_comment, predict_outputs


def declare(name: str = "value", method: str = "predict", **given: Any) -> Any:
    """An output as [predictions] declares it."""
    fields: dict[str, Any] = {"class_": None, "output": None, "reduce": None, "part": None, "k": None, "index": False}
    return SimpleNamespace(name=name, method=method, **{**fields, **given})


@pytest.fixture
def frame() -> pd.DataFrame:
    noise = np.random.default_rng(7)
    return pd.DataFrame({"a": noise.normal(size=60), "b": noise.normal(size=60)})


def classifier(frame: pd.DataFrame, labels: Any) -> LogisticRegression:
    return LogisticRegression().fit(frame, labels)


def halves(frame: pd.DataFrame, low: Any, high: Any, dtype: Any = None) -> np.ndarray:
    labels = np.empty(len(frame), dtype=dtype or np.asarray([low, high]).dtype)
    labels[:] = low
    labels[(frame["a"] > 0).to_numpy()] = high
    return labels


def test_class_probability_is_the_column_of_that_class_compared_as_text(frame):
    model = classifier(frame, halves(frame, 0, 1))
    outputs = [declare("p", "predict_proba", class_="1")]
    assert output_columns(model, outputs) == (Column(name="p", postgres_type="double precision"),)
    scores = predict_outputs(model, frame, outputs)["p"]
    assert scores.type == pa.float64()
    np.testing.assert_array_equal(scores.to_numpy(), model.predict_proba(frame)[:, 1])


@pytest.mark.parametrize(
    ("low", "high", "dtype", "spelled"),
    [(0.0, 1.0, float, "1"), (0.0, 1.0, float, "1.0"), (False, True, bool, "true"), ("no", "yes", object, "yes")],
)
def test_class_is_found_however_the_label_is_stored(frame, low, high, dtype, spelled):
    model = classifier(frame, halves(frame, low, high, dtype))
    scores = predict_outputs(model, frame, [declare("p", "predict_proba", class_=spelled)])["p"]
    np.testing.assert_array_equal(scores.to_numpy(), model.predict_proba(frame)[:, 1])


def test_all_probabilities_are_an_array_whose_order_is_in_the_comment(frame):
    model = classifier(frame, np.where(frame["a"] > 0.5, "gold", np.where(frame["b"] > 0, "silver", "bronze")))
    output = declare("p", "predict_proba", class_="all")
    assert output_columns(model, [output])[0].postgres_type == "double precision[]"
    assert output_comment(model, output) == "Probability of each class, in this order: bronze, gold, silver."
    scores = predict_outputs(model, frame, [output])["p"]
    assert scores.type == pa.list_(pa.float64())
    np.testing.assert_array_equal(np.array(scores.to_pylist()), model.predict_proba(frame))
    assert output_comment(model, declare()) is None


@pytest.mark.parametrize(
    ("low", "high", "dtype", "postgres_type"),
    [
        ("no", "yes", None, "text"),
        ("no", "yes", object, "text"),
        (0, 1, np.int32, "bigint"),
        (0, 1, object, "bigint"),
        (False, True, bool, "boolean"),
        (0.5, 1.5, float, "double precision"),
    ],
)
def test_labels_have_the_sql_type_of_the_models_classes(frame, low, high, dtype, postgres_type):
    labels = halves(frame, low, high, dtype)
    model = RandomForestClassifier(n_estimators=3, random_state=0)
    if labels.dtype == object and isinstance(low, int):
        model.fit(frame, labels.astype(int))
        model.classes_ = model.classes_.astype(object)
    else:
        model.fit(frame, labels) if dtype is not float else setattr_classes(model, frame, labels)
    output = declare("label")
    column = output_columns(model, [output])[0]
    assert column.postgres_type == postgres_type
    found = predict_outputs(model, frame, [output])["label"]
    assert found.type == column.arrow_type
    assert found.to_pylist() == model.predict(frame).tolist()


def setattr_classes(model: RandomForestClassifier, frame: pd.DataFrame, labels: np.ndarray) -> None:
    """sklearn refuses classes such as 0.5, other libraries do not."""
    model.fit(frame, (labels > 1).astype(int))
    model.classes_ = np.array([0.5, 1.5])


def test_regression_value_is_a_double_even_when_the_model_returns_integers(frame):
    class Counter:
        def predict(self, rows: pd.DataFrame) -> np.ndarray:
            return np.arange(len(rows))

    found = predict_outputs(Counter(), frame, [declare("visits")])["visits"]
    assert found.type == pa.float64()
    assert found[5].as_py() == 5.0


def test_one_of_several_regression_outputs_is_named_by_its_number(frame):
    model = LinearRegression().fit(frame, np.column_stack([frame["a"], -frame["b"]]))
    outputs = [declare("first", output=0), declare("second", output=1)]
    found = predict_outputs(model, frame, outputs)
    np.testing.assert_allclose(found["second"].to_numpy(), -frame["b"])
    with pytest.raises(OutputNotOffered, match=r"returns 2 outputs for each row.*number from 0 to 1"):
        predict_outputs(model, frame, [declare("third", output=2)])
    with pytest.raises(OutputNotOffered, match="Set output of which"):
        predict_outputs(model, frame, [declare("which")])


def test_single_column_of_values_counts_as_one_value_for_each_row(frame):
    model = LinearRegression().fit(frame, frame[["a"]])
    assert len(predict_outputs(model, frame, [declare()])["value"]) == len(frame)


def test_multi_output_classifier_gives_labels_and_probabilities_of_one_output(frame):
    labels = np.column_stack([halves(frame, "no", "yes", object), np.where(frame["b"] > 0, "up", "down")])
    model = MultiOutputClassifier(LogisticRegression()).fit(frame, labels)
    outputs = [
        declare("move", output=1),
        declare("up", "predict_proba", class_="up", output=1),
        declare("buys", "predict_proba", class_="all", output=0),
    ]
    assert [column.postgres_type for column in output_columns(model, outputs)] == [
        "text",
        "double precision",
        "double precision[]",
    ]
    found = predict_outputs(model, frame, outputs)
    assert found["move"].to_pylist() == model.predict(frame)[:, 1].tolist()
    np.testing.assert_array_equal(found["up"].to_numpy(), model.predict_proba(frame)[1][:, 1])
    with pytest.raises(OutputNotOffered, match="number from 0 to 1"):
        output_columns(model, [declare("up", "predict_proba", class_="up")])


def test_segment_is_an_integer_and_its_distance_the_smallest_of_the_transform(frame):
    model = make_pipeline(StandardScaler(), KMeans(n_clusters=3, n_init=1, random_state=0)).fit(frame)
    outputs = [declare("segment"), declare("distance", "transform", reduce="min")]
    assert [column.postgres_type for column in output_columns(model, outputs)] == ["bigint", "double precision"]
    found = predict_outputs(model, frame, outputs)
    assert found["segment"].type == pa.int64()
    np.testing.assert_array_equal(found["distance"].to_numpy(), model.transform(frame).min(axis=1))


def test_outlier_detector_gives_an_integer_and_its_score_a_double(frame):
    model = IsolationForest(n_estimators=5, random_state=0).fit(frame)
    outputs = [declare("inlier"), declare("score", "score_samples")]
    assert [column.postgres_type for column in output_columns(model, outputs)] == ["bigint", "double precision"]
    assert len(predict_outputs(model, frame, outputs)["score"]) == len(frame)


class Recommender:
    """Recommends from a short list; ``short`` rows have fewer items."""

    def __init__(self, items: Any, scores: Any = None) -> None:
        self.items = items
        self.scores = scores
        self.calls = 0

    def recommend(self, rows: pd.DataFrame, k: int) -> tuple[Any, Any]:
        self.calls += 1
        items = self.items[: len(rows)]
        scores = self.scores if self.scores is not None else [np.linspace(1, 0, len(row)) for row in items]
        return items, scores


def ranked(k: int | None = 2) -> list[Any]:
    return [declare("items", "recommend", part="items", k=k), declare("scores", "recommend", part="scores", k=k)]


def test_ranked_list_of_text_has_items_and_scores_from_one_call():
    model = Recommender(np.array([["tea", "milk"], ["jam", "tea"]], dtype=object), np.array([[0.9, 0.1], [0.8, 0.7]]))
    rows = pd.DataFrame({"a": [1.0, 2.0]})
    found = predict_outputs(model, rows, ranked(), [column(n, t) for n, t in TEXT_LISTS])
    assert found["items"].to_pylist() == [["tea", "milk"], ["jam", "tea"]]
    assert found["scores"].to_pylist() == [[0.9, 0.1], [0.8, 0.7]]
    assert model.calls == 1


TEXT_LISTS = [("items", "text[]"), ("scores", "double precision[]")]


def column(name: str, postgres_type: str) -> Column:
    return Column(name=name, postgres_type=postgres_type)


def test_ranked_list_of_integers_keeps_short_rows_short_and_drops_their_padding():
    model = Recommender([[1, 2], [3], []])
    rows = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    columns = output_columns(model, ranked(), rows)
    assert [found.postgres_type for found in columns] == ["bigint[]", "double precision[]"]
    assert predict_outputs(model, rows, ranked(), columns)["items"].to_pylist() == [[1, 2], [3], []]
    padded = Recommender(np.array([[7.0, np.nan], [8.0, 9.0]]), np.array([[0.5, np.nan], [0.4, 0.3]]))
    found = predict_outputs(padded, rows[:2], ranked(), columns)
    assert found["items"].to_pylist() == [[7], [8, 9]]
    assert found["items"].type == pa.list_(pa.int64())
    assert found["scores"].to_pylist() == [[0.5], [0.4, 0.3]]


def test_items_attribute_decides_the_type_before_anything_is_recommended():
    model = Recommender([[1]])
    assert output_columns(model, ranked()[:1])[0].postgres_type == "text[]"
    model.items_ = np.array([1, 2, 3])
    assert output_columns(model, ranked()[:1])[0].postgres_type == "bigint[]"


def test_ranked_lists_that_do_not_fit_are_refused():
    rows = pd.DataFrame({"a": [1.0, 2.0]})
    with pytest.raises(OutputRefused, match="at most k = 2 items"):
        predict_outputs(Recommender([[1, 2, 3], [1]]), rows, ranked())
    with pytest.raises(OutputRefused, match="items and scores of 2 rows"):
        predict_outputs(Recommender([[1, 2]]), rows, ranked())
    with pytest.raises(OutputRefused, match="as many scores as items"):
        predict_outputs(Recommender([[1, 2], [1]], [[0.5], [0.5]]), rows, ranked())


def test_each_method_is_called_once_for_a_batch(frame):
    class Counting(LogisticRegression):
        calls = 0

        def predict_proba(self, rows):
            Counting.calls += 1
            return super().predict_proba(rows)

    model = Counting().fit(frame, halves(frame, 0, 1))
    outputs = [declare(f"p{at}", "predict_proba", class_=str(at)) for at in (0, 1)]
    predict_outputs(model, frame, [*outputs, declare("both", "predict_proba", class_="all")])
    assert Counting.calls == 1


def test_model_that_writes_into_its_rows_does_not_change_ours(frame):
    class Careless:
        def predict(self, rows: pd.DataFrame) -> np.ndarray:
            rows["a"] = 0.0
            rows.loc[:, "b"] = np.nan
            return np.zeros(len(rows))

    before = frame.copy(deep=True)
    predict_outputs(Careless(), frame, [declare()])
    pd.testing.assert_frame_equal(frame, before)


def test_model_that_was_fitted_on_an_array_is_given_one(frame, recwarn):
    model = LinearRegression().fit(frame.to_numpy(), frame["a"])
    found = predict_outputs(model, frame, [declare()])["value"]
    np.testing.assert_allclose(found.to_numpy(), frame["a"])
    assert not recwarn.list


def test_unknown_class_is_refused_with_the_models_classes(frame):
    model = classifier(frame, halves(frame, "no", "yes"))
    with pytest.raises(OutputNotOffered) as refused:
        output_columns(model, [declare("churn_probability", "predict_proba", class_="maybe")])
    message = str(refused.value)
    assert message.startswith(
        "Output churn_probability asks for predict_proba of class 'maybe'; the model's classes are no, yes."
    )
    assert "Set class of churn_probability" in message


def test_missing_method_is_refused_with_the_methods_that_exist(frame):
    with pytest.raises(OutputNotOffered, match=r"the method predict_proba; LinearRegression has predict\."):
        output_columns(LinearRegression().fit(frame, frame["a"]), [declare("p", "predict_proba", class_="1")])
    with pytest.raises(OutputNotOffered, match=r"SVC has predict, decision_function\."):
        output_columns(SVC().fit(frame, halves(frame, 0, 1)), [declare("p", "predict_proba", class_="1")])


@pytest.mark.parametrize("extra", [-1, 1])
def test_result_of_another_length_is_refused(frame, extra):
    class Wrong:
        def predict(self, rows: pd.DataFrame) -> np.ndarray:
            return np.zeros(len(rows) + extra)

    with pytest.raises(OutputRefused, match=f"expects 60 predictions; the model returned {60 + extra}"):
        predict_outputs(Wrong(), frame, [declare()])


def test_values_of_another_type_are_refused_without_being_quoted(frame):
    class Wordy:
        def predict(self, rows: pd.DataFrame) -> np.ndarray:
            return np.array(["secret"] * len(rows), dtype=object)

    with pytest.raises(OutputRefused) as refused:
        predict_outputs(Wordy(), frame, [declare()])
    assert "secret" not in str(refused.value)


def test_nan_and_infinity_stay_in_place(frame):
    class Wild:
        def predict(self, rows: pd.DataFrame) -> np.ndarray:
            return np.array([np.nan, np.inf, -np.inf, 1.0])

    found = predict_outputs(Wild(), frame[:4], [declare()])["value"]
    assert found.null_count == 0
    np.testing.assert_array_equal(found.to_numpy(), [np.nan, np.inf, -np.inf, 1.0])


def test_empty_batch_gives_empty_columns_of_the_declared_types():
    class Empty:
        classes_ = np.array(["no", "yes"])

        def predict(self, rows: pd.DataFrame) -> np.ndarray:
            return np.empty(len(rows), dtype=object)

        def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
            return np.empty((len(rows), 2))

    outputs = [
        declare("label"),
        declare("p", "predict_proba", class_="yes"),
        declare("q", "predict_proba", class_="all"),
    ]
    found = predict_outputs(Empty(), pd.DataFrame({"a": np.empty(0)}), outputs)
    assert [array.type for array in found.values()] == [pa.string(), pa.float64(), pa.list_(pa.float64())]
    assert {len(array) for array in found.values()} == {0}


def test_only_probabilities_values_and_distances_are_continuous():
    number, label = column("p", "double precision"), column("label", "text")
    assert continuous(number, declare("p", "predict_proba", class_="1"))
    assert continuous(number, declare("d", "transform", reduce="min"))
    assert not continuous(label, declare("label"))
    assert not continuous(column("s", "double precision[]"), declare("s", "recommend", part="scores"))
