"""A bundle comes back as it was registered, or not at all; a model that no batch can trust is not registered."""

from __future__ import annotations

import functools
import importlib
import io
import json
import os
import sys
import types
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import mutual_info_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from tasks.bundle import environment_differences, preprocessed, replay_golden, running_environment
from tasks.bundle_file import digest_of, dumps, loads
from tasks.columns import Column
from tasks.errors import (
    BundleTampered,
    ColumnsMissing,
    ModelUnreadable,
    PickleNotTrusted,
    PreprocessRefused,
    RegistrationRefused,
    TypesRefused,
)
from tasks.estimators import kind_of_file, load_estimator, save_estimator
from tasks.model_types import MODEL_TYPES, PARTIAL_OF
from tasks.pipeline import Output
from tasks.probes import GOLDEN_ROWS, create_bundle

KEY = (Column(name="customer_id", postgres_type="bigint"),)
FEATURES = (
    Column(name="orders", postgres_type="bigint"),
    Column(name="spent", postgres_type="double precision"),
    Column(name="country", postgres_type="text"),
)
OUTPUTS = (
    Output.model_validate({"name": "churn_probability", "method": "predict_proba", "class": "1"}),
    Output.model_validate({"name": "will_churn", "method": "predict"}),
)
UNTIL = datetime(2024, 3, 1, tzinfo=UTC)


def make_rows(n: int = 300, *, holes: bool = True) -> pa.Table:
    """Rows as the feature query gives them: key, as_of, features."""
    noise = np.random.default_rng(11)
    spent: list[float | None] = noise.gamma(2, 50, n).tolist()
    country: list[str | None] = noise.choice(["de", "fr", "it"], n).tolist()
    if holes:
        for at in range(0, n, 7):
            spent[at] = None
        for at in range(0, n, 11):
            country[at] = None
    return pa.table(
        {
            "customer_id": pa.array(range(n), pa.int64()),
            "as_of": pa.array([UNTIL] * n, pa.timestamp("us", "UTC")),
            "orders": pa.array(noise.integers(0, 30, n), pa.int64()),
            "spent": pa.array(spent, pa.float64()),
            "country": pa.array(country, pa.string()),
        }
    )


def tolerant() -> Any:
    """A model that scores rows with NULLs and unseen categories."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((numbers, ["orders", "spent"]), (words, ["country"]))
    return make_pipeline(columns, LogisticRegression())


def strict() -> Any:
    """A model that raises on NULL, infinity and unseen categories."""
    words = OneHotEncoder(handle_unknown="error", sparse_output=False)
    columns = make_column_transformer((StandardScaler(), ["orders", "spent"]), (words, ["country"]))
    return make_pipeline(columns, RandomForestClassifier(n_estimators=5, random_state=0).set_params(max_depth=4))


def labels_of(rows: pa.Table) -> np.ndarray:
    return (rows.column("orders").to_numpy() < 10).astype(int)


def fitted(model: Any, rows: pa.Table, preprocess: Any = None) -> Any:
    return model.fit(preprocessed(rows, FEATURES, preprocess), labels_of(rows))


def make_bundle(model: Any = None, rows: pa.Table | None = None, **given: Any) -> Any:
    rows = make_rows() if rows is None else rows
    preprocess = given.pop("preprocess", None)
    fields: dict[str, Any] = {
        "name": "churn",
        "estimator": model if model is not None else fitted(tolerant(), rows, preprocess),
        "key": KEY,
        "features": FEATURES,
        "outputs": OUTPUTS,
        "preprocess": preprocess,
        "sample": rows,
        "train_data_until": UNTIL,
        "metrics": {"roc_auc": 0.9},
        "logic_digest": "ab" * 32,
    }
    return create_bundle(**{**fields, **given})


# The container ---------------------------------------------------------------------------------------------------


def test_bundle_comes_back_as_it_was_made():
    bundle, data = make_bundle()
    again = loads(data, expect_digest=bundle.digest)
    assert again.digest == bundle.digest == digest_of(data)
    for name in ("name", "features", "key", "model_features", "outputs", "output_columns", "metrics", "environment"):
        assert getattr(again, name) == getattr(bundle, name), name
    for name in (
        "golden",
        "golden_preprocessed",
        "golden_outputs",
        "profile",
        "probes",
        "train_data_until",
        "logic_digest",
    ):
        assert getattr(again, name) == getattr(bundle, name), name
    frame = preprocessed(bundle.golden, FEATURES, None)
    assert again.score(frame)["churn_probability"].equals(bundle.score(frame)["churn_probability"])
    assert replay_golden(again, None, 1e-6).passed


def test_same_model_gives_the_same_bytes_and_another_one_other_bytes():
    rows = make_rows()
    first, data = make_bundle(fitted(tolerant(), rows), rows)
    second, again = make_bundle(fitted(tolerant(), rows), rows)
    assert data == again
    assert dumps(loads(data)) == data
    other, _ = make_bundle(fitted(tolerant(), rows.slice(0, 200)), rows)
    assert first.digest == second.digest != other.digest


def test_changed_byte_is_refused_before_anything_is_read():
    bundle, data = make_bundle()
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    with pytest.raises(BundleTampered) as refused:
        loads(bytes(changed), expect_digest=bundle.digest, what="Model churn version 3")
    message = str(refused.value)
    assert message.startswith(f"Model churn version 3 has the digest {digest_of(bytes(changed))[:12]}, registered was")
    assert bundle.digest[:12] in message
    assert "still served" in message


def test_bytes_that_are_no_bundle_are_refused():
    with pytest.raises(ModelUnreadable, match="is no bundle"):
        loads(b"not a zip")


def test_score_takes_columns_in_any_order_and_names_the_missing_ones():
    bundle, _ = make_bundle()
    frame = preprocessed(bundle.golden, FEATURES, None)
    shuffled = frame[["country", "spent", "orders"]].assign(extra=1.0)
    assert bundle.score(shuffled)["will_churn"].equals(bundle.score(frame)["will_churn"])
    with pytest.raises(ColumnsMissing, match=r"expects 3 features, 2 columns were built \(missing: spent\)"):
        bundle.score(frame.drop(columns=["spent"]))


def test_columns_of_outputs_that_are_declared_anew_are_found_on_the_golden_rows():
    bundle, data = make_bundle()
    anew = Output.model_validate({"name": "chances", "method": "predict_proba", "class": "all"})
    again = loads(data)
    assert again.columns_for(OUTPUTS) == bundle.output_columns
    assert again.columns_for([anew]) == (Column(name="chances", postgres_type="double precision[]"),)


# Golden rows -----------------------------------------------------------------------------------------------------


def test_golden_rows_are_spread_over_the_sample_and_hold_nulls():
    bundle, _ = make_bundle(rows=make_rows(5000))
    assert bundle.golden.num_rows == GOLDEN_ROWS
    assert bundle.golden.column_names == ["customer_id", "as_of", "orders", "spent", "country"]
    assert 0 < bundle.golden.column("spent").null_count < GOLDEN_ROWS // 2
    assert bundle.golden.column("customer_id")[-1].as_py() > 4900
    assert bundle.golden_outputs.column_names == ["churn_probability", "will_churn"]


def double_orders(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(orders=frame["orders"] * 2)


def test_replay_finds_a_changed_preprocess_and_names_the_column():
    bundle, _ = make_bundle()
    result = replay_golden(bundle, double_orders, 1e-6)
    assert not result.passed
    assert result.compared == bundle.golden.num_rows
    assert result.worst is not None
    assert result.worst.startswith("preprocessed column orders differs by up to")


def test_replay_finds_swapped_columns_and_another_model():
    bundle, _ = make_bundle()
    swapped = replay_golden(bundle, lambda frame: frame.assign(orders=frame["spent"], spent=frame["orders"]), 1e-6)
    assert not swapped.passed
    other = replace(bundle, estimator=fitted(tolerant(), make_rows().slice(0, 150)))
    found = replay_golden(other, None, 1e-6)
    assert found.worst is not None
    assert found.worst.startswith("prediction column churn_probability differs")


@pytest.mark.parametrize(("shift", "passed"), [(0.9e-6, True), (1.2e-6, False)])
def test_replay_tolerates_values_up_to_the_limit(shift, passed):
    bundle, _ = make_bundle()
    shifted = pa.table(
        {
            "churn_probability": pa.array(bundle.golden_outputs.column("churn_probability").to_numpy() + shift),
            "will_churn": bundle.golden_outputs.column("will_churn"),
        }
    )
    assert replay_golden(replace(bundle, golden_outputs=shifted), None, 1e-6).passed is passed


def test_replay_says_what_was_raised():
    def broken(frame: pd.DataFrame) -> pd.DataFrame:
        raise KeyError("secret")

    bundle, _ = make_bundle()
    assert replay_golden(bundle, broken, 1e-6).worst == "replaying raised KeyError"


# Probes ----------------------------------------------------------------------------------------------------------


def test_probes_record_what_a_tolerant_model_scores():
    bundle, _ = make_bundle()
    assert bundle.probes["null"] == dict.fromkeys(["orders", "spent", "country"], "scores")
    assert bundle.probes["unseen"] == {"country": "scores"}
    assert bundle.probes["missing_column"]["spent"].startswith("raises: ")
    assert bundle.raises_on_null == frozenset()
    assert bundle.known_categories == {}


def test_probes_record_what_a_strict_model_raises_on():
    rows = make_rows(holes=False)
    bundle, data = make_bundle(fitted(strict(), rows), rows)
    assert bundle.probes["infinity"] == {"spent": "raises: ValueError"}, "whole numbers are never infinite"
    assert bundle.raises_on_unseen == {"country"}
    assert loads(data).known_categories == {"country": ["de", "fr", "it"]}


def test_golden_rows_leave_out_what_the_model_raises_on():
    whole = make_rows(holes=False)
    model = make_pipeline(make_column_transformer((StandardScaler(), ["orders", "spent"])), LogisticRegression()).fit(
        preprocessed(whole, FEATURES, None), labels_of(whole)
    )
    bundle, _ = make_bundle(model, make_rows())
    assert bundle.raises_on_null == {"orders", "spent"}
    assert bundle.golden.column("spent").null_count == 0
    assert bundle.probes["sample_rows_that_raised"] > 0
    assert bundle.profile["output_rows"] > 0


def test_preprocess_that_looks_at_the_batch_is_refused():
    def centred(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(orders=frame["orders"] - frame["orders"].mean())

    with pytest.raises(RegistrationRefused, match=r"scored in two batches differ.*Take statistics of columns in fit"):
        make_bundle(preprocess=centred)


def test_preprocess_that_is_random_is_refused():
    noise = np.random.default_rng(0)

    def random(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(orders=frame["orders"] + noise.normal(size=len(frame)))

    with pytest.raises(RegistrationRefused, match="scored twice differ"):
        make_bundle(preprocess=random)


def test_preprocess_that_counts_columns_is_refused():
    def by_position(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(orders=frame.iloc[:, 1].astype(float))

    with pytest.raises(RegistrationRefused, match="scored with reordered columns"):
        make_bundle(preprocess=by_position)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.dropna(), "returned .* rows for"),
        (lambda frame: frame.sort_values("orders"), "changed the order"),
        (lambda frame: None, "returned NoneType"),
    ],
)
def test_preprocess_that_changes_rows_is_refused(change, said):
    with pytest.raises(PreprocessRefused, match=said):
        make_bundle(fitted(tolerant(), make_rows()), preprocess=change)


def test_preprocess_sees_as_of_and_the_model_does_not():
    def with_month(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(month=frame["as_of"].dt.month.astype(float))

    bundle, _ = make_bundle(preprocess=with_month)
    assert bundle.model_features == ("orders", "spent", "country", "month")


class Forgetful(ClassifierMixin, BaseEstimator):
    """Predicts what it is told to, and forgets it in a file."""

    def fit(self, rows: pd.DataFrame, labels: Any) -> Forgetful:
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        # Only what was pickled loses it: the state is in the instance, not in what is written.
        ones = np.full(len(rows), 0.75 if getattr(self, "told", False) else 0.25)
        return np.column_stack([1 - ones, ones])

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        return np.ones(len(rows), dtype=int)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "told"}


@pytest.fixture
def pipeline_code(monkeypatch):
    """The pipeline churn's model.py as it is when it was imported, with an import that no file may reach."""
    package, module = types.ModuleType("prescore_pipelines.churn"), types.ModuleType("prescore_pipelines.churn.model")
    module.system = os.system

    def shorten(values):
        return values / 100

    shorten.__module__ = module.__name__
    shorten.__qualname__ = "shorten"
    for part in (Forgetful, Ratio):
        monkeypatch.setattr(part, "__module__", module.__name__)
        setattr(module, part.__name__, part)
    module.shorten = shorten
    for made in (package, module):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    return module


class Ratio(TransformerMixin, BaseEstimator):
    """A transformer of a pipeline's own model.py."""

    def fit(self, rows: pd.DataFrame, labels: Any = None) -> Ratio:
        self.scale_ = float(rows["spent"].max())
        return self

    def transform(self, rows: pd.DataFrame) -> np.ndarray:
        return np.nan_to_num(rows[["spent", "orders"]].to_numpy() / self.scale_)


def test_model_that_changes_on_the_way_through_its_file_is_refused(pipeline_code):
    model = Forgetful().fit(None, None)
    model.told = True
    with pytest.raises(RegistrationRefused, match="its scores change when it is written and read"):
        make_bundle(model, pipeline_module="prescore_pipelines.churn")


def test_sample_that_lacks_a_feature_is_refused():
    with pytest.raises(RegistrationRefused, match="the sample lacks the features spent"):
        make_bundle(fitted(tolerant(), make_rows()), sample=make_rows().drop_columns(["spent"]))


def test_model_fitted_on_other_columns_is_refused():
    rows = make_rows()
    frame = preprocessed(rows, FEATURES, None).rename(columns={"orders": "purchases"})
    model = HistGradientBoostingClassifier(max_iter=2).fit(frame[["purchases", "spent"]], labels_of(rows))
    with pytest.raises(RegistrationRefused, match="it was fitted on purchases, which is not built"):
        make_bundle(model)


# Loading nothing that was not agreed -------------------------------------------------------------------------------


def written(estimator: Any) -> bytes:
    return skops.io.dumps(estimator)


def load(data: bytes, module: str | None = None) -> Any:
    return load_estimator(data, "skops", module=module, trusted_pickle=False).estimator


def edited(data: bytes, change: Any) -> bytes:
    """A skops file whose schema was changed by hand."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as target:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                content = json.dumps(change(schema) or schema).encode()
            target.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype"),
        RandomForestClassifier(n_estimators=2),
        KNeighborsClassifier(algorithm="kd_tree"),
        KNeighborsClassifier(algorithm="ball_tree"),
        MLPClassifier(hidden_layer_sizes=(3,), max_iter=2),
        CalibratedClassifierCV(LogisticRegression(), cv=2),
        make_pipeline(
            make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include=object)),
                (SimpleImputer(), make_column_selector(dtype_include=np.number)),
            ),
            LogisticRegression(),
        ),
    ],
    ids=lambda model: type(model).__name__ if not hasattr(model, "algorithm") else model.algorithm,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_models_of_scikit_learn_load_with_the_same_scores(model):
    noise = np.random.default_rng(3)
    frame = pd.DataFrame({"a": noise.normal(size=80), "b": noise.normal(size=80)})
    if isinstance(model, HistGradientBoostingClassifier):
        frame["c"] = pd.Categorical(noise.choice(["x", "y"], 80))
    elif hasattr(model, "steps"):
        frame["c"] = noise.choice(["x", "y"], 80).astype(object)
    labels = (frame["a"] > 0).astype(int)
    model.fit(frame, labels)
    again = load(save_estimator(model))
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))


def test_classes_and_functions_of_the_pipelines_own_code_load_for_that_pipeline_only(pipeline_code):
    rows = make_rows()
    model = make_pipeline(Ratio(), FunctionTransformer(pipeline_code.shorten), LogisticRegression())
    model.fit(preprocessed(rows, FEATURES, None), labels_of(rows))
    data = save_estimator(model)
    again = load(data, "prescore_pipelines.churn")
    assert again[0].scale_ == model[0].scale_
    for other in (None, "prescore_pipelines.other", "prescore_pipelines.chur"):
        with pytest.raises(TypesRefused, match=r"prescore_pipelines\.churn\.model\.Ratio"):
            load(data, other)


@pytest.mark.parametrize("loader", ["FunctionNode", "ConstructorFromReduceNode", "TypeNode"])
def test_what_the_pipelines_code_merely_imports_cannot_be_reached(pipeline_code, loader):
    data = written(FunctionTransformer(func=np.log1p))

    def plant(schema):
        func = schema["content"]["content"]["func"]
        func.update({"__loader__": loader, "__module__": "prescore_pipelines.churn.model", "__class__": "system"})
        func["content"] = {
            "__class__": "tuple",
            "__module__": "builtins",
            "__loader__": "TupleNode",
            "content": [{"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": '"true"'}],
        }

    with pytest.raises(TypesRefused, match=r"prescore_pipelines\.churn\.model\.system"):
        load(edited(data, plant), "prescore_pipelines.churn")


def test_types_outside_the_list_are_refused_by_name_before_they_are_imported():
    data = written(FunctionTransformer(func=np.log1p))
    module = "prescore_never_imported"

    def plant(schema):
        schema["content"]["content"]["func"].update({"__module__": module, "__class__": "anything"})

    with pytest.raises(TypesRefused) as refused:
        load(edited(data, plant))
    message = str(refused.value)
    assert f"{module}.anything" in message
    assert "Nothing was loaded" in message
    assert "--trust-pickle" in message
    assert module not in sys.modules


def test_lambdas_cannot_be_written():
    with pytest.raises((ModelUnreadable, TypesRefused)):
        load(save_estimator(FunctionTransformer(func=lambda values: values)))


def test_partial_is_loaded_with_check_array_only():
    from sklearn.utils.validation import check_array

    allowed = FunctionTransformer(func=functools.partial(check_array, dtype=np.float64))
    assert load(save_estimator(allowed)).func.func is check_array
    with pytest.raises(TypesRefused, match=r"functools\.partial"):
        load(save_estimator(FunctionTransformer(func=functools.partial(np.log1p))))


@pytest.mark.parametrize("name", ["builtins.object", "sklearn.utils.validation.check_array", "numpy.dtype"])
def test_listed_types_are_refused_where_fitted_models_do_not_have_them(name):
    data = written(FunctionTransformer(func=np.log1p))
    module, type_name = name.rsplit(".", 1)

    def plant(schema):
        func = schema["content"]["content"]["func"]
        func.update({"__loader__": "ObjectNode", "__module__": module, "__class__": type_name})

    with pytest.raises(TypesRefused, match=name.replace(".", r"\.")):
        load(edited(data, plant))


@pytest.mark.parametrize("name", MODEL_TYPES)
def test_types_on_the_list_are_there_and_are_what_they_are_listed_as(name):
    module, type_name = name.rsplit(".", 1)
    found = getattr(importlib.import_module(module), type_name)
    assert isinstance(found, type) is (MODEL_TYPES[name] != {"FunctionNode"})
    assert callable(found)


def test_functions_that_a_partial_may_hold_are_listed_themselves():
    assert {name: MODEL_TYPES[name] for name in PARTIAL_OF} == dict.fromkeys(PARTIAL_OF, frozenset({"FunctionNode"}))
    held = functools.partial(mutual_info_classif, random_state=0)
    assert load(save_estimator(FunctionTransformer(func=held))).func.keywords == {"random_state": 0}


def test_file_cannot_name_the_types_that_it_trusts():
    data = written(FunctionTransformer(func=np.log1p))

    def plant(schema):
        schema["content"]["content"]["func"].update({"__module__": "os", "__class__": "system"})
        schema["trusted"] = ["os.system"]

    with pytest.raises(TypesRefused, match=r"os\.system"):
        load(edited(data, plant))


def test_arrays_of_pickled_objects_are_refused():
    class Bomb:
        def __reduce__(self):
            return (os.system, ("false",))

    data = written(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))
    planted = io.BytesIO()
    np.save(planted, np.array([Bomb()], dtype=object), allow_pickle=True)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as target:
        for name in archive.namelist():
            target.writestr(name, planted.getvalue() if name.endswith(".npy") else archive.read(name))
    with pytest.raises(TypesRefused, match="numpy array of pickled objects"):
        load(out.getvalue())


def test_pickle_is_never_opened_unless_somebody_vouched_for_it(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "opened"),))

    out = io.BytesIO()
    joblib.dump(Bomb(), out)
    assert kind_of_file(out.getvalue()) == "joblib"
    with pytest.raises(PickleNotTrusted, match="It was not opened"):
        load_estimator(out.getvalue(), "joblib", module=None, trusted_pickle=False)
    assert not (tmp_path / "opened").exists()


def test_bundle_of_a_trusted_pickle_loads_only_where_the_registry_trusts_it():
    rows = make_rows()
    model = fitted(tolerant(), rows)
    out = io.BytesIO()
    joblib.dump(model, out)
    bundle, data = make_bundle(model, rows, loader="joblib", estimator_file=out.getvalue())
    assert bundle.loader == "joblib"
    with pytest.raises(PickleNotTrusted):
        loads(data)
    assert replay_golden(loads(data, trusted_pickle=True), None, 1e-6).passed


# Environment -----------------------------------------------------------------------------------------------------


def test_environment_names_what_makes_and_reads_models():
    assert set(running_environment(LogisticRegression())) == {
        "python",
        "scikit-learn",
        "numpy",
        "pandas",
        "scipy",
        "skops",
        "joblib",
        "threadpoolctl",
    }


@pytest.mark.parametrize(
    ("now", "level", "differs"),
    [
        ("1.9.1", "exact", False),
        ("1.9.2", "exact", True),
        ("1.9.2", "minor", False),
        ("1.10.0", "minor", True),
        ("1.10.0", "major", False),
        ("2.0.0", "major", True),
    ],
)
def test_versions_are_compared_to_the_declared_level(now, level, differs):
    found = environment_differences({"scikit-learn": "1.9.1"}, {"scikit-learn": now}, level)
    assert found == ([f"scikit-learn 1.9.1 recorded, {now} running"] if differs else [])


def test_library_that_is_gone_is_a_difference():
    assert environment_differences({"no-such-library": "1.0"}, {}, "minor") == [
        "no-such-library 1.0 recorded, not installed here"
    ]


def test_version_that_scikit_learn_only_warns_of_is_a_difference():
    bundle, data = make_bundle()

    def older(schema):
        text = json.dumps(schema).replace(f'\\"{bundle.environment["scikit-learn"]}\\"', '\\"1.2.0\\"')
        return json.loads(text)

    old = edited(save_estimator(bundle.estimator), older)
    again = loads(dumps(replace(bundle, estimator_file=old)))
    assert environment_differences(again.environment, running_environment(), "minor") == [
        f"scikit-learn 1.2.0 recorded, {bundle.environment['scikit-learn']} running"
    ]
    assert loads(data).environment == bundle.environment
