"""Any estimator of scikit-learn registers, loads in a new process and scores equal; what cannot says why."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.cluster import DBSCAN, Birch
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.model_selection import RandomizedSearchCV
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import all_estimators
from typer.testing import CliRunner

from flows.cli import app
from flows.train import register_file
from tasks import registry
from tasks.bundle import preprocessed
from tasks.database import connect
from tasks.errors import ModelUnreadable, OutputNotOffered, PrescoreError, RegistrationRefused, TypesRefused
from tasks.estimators import load_estimator, save_estimator
from tasks.pipeline import load_pipeline
from tests.estimators import FEATURES, IN_EVERY_RUN, KINDS, UNTIL, make_rows
from tests.factories import World
from tests.rescoring import Outcome, code_of, make_shop, register, register_and_rescore

pytestmark = [
    # One world for all, in one worker.
    pytest.mark.xdist_group("estimators"),
    pytest.mark.filterwarnings("ignore::UserWarning:sklearn.*"),
]

NUMBERS = ["orders", "spent"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("estimators")


@pytest.fixture(scope="module")
def shop(module_database_url: str, folder: Path) -> World:
    return make_shop(module_database_url, folder)


@pytest.fixture(scope="module")
def outcomes(shop: World, folder: Path) -> Mapping[str, Outcome]:
    return register_and_rescore(shop, folder, IN_EVERY_RUN)


@pytest.fixture(scope="module")
def other_outcomes(shop: World, folder: Path) -> Mapping[str, Outcome]:
    return register_and_rescore(shop, folder, [name for name in KINDS if name not in IN_EVERY_RUN])


def check(outcome: Outcome) -> None:
    assert outcome.refused is None
    assert outcome.not_loaded is None
    assert outcome.difference is not None, "a class differs"
    assert outcome.difference <= 1e-9


@pytest.mark.parametrize("name", IN_EVERY_RUN)
def test_estimator_registers_loads_in_a_new_process_and_scores_equal(outcomes, name):
    check(outcomes[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in KINDS if name not in IN_EVERY_RUN])
def test_estimator_registers_loads_in_a_new_process_and_scores_equal_in_full(other_outcomes, name):
    check(other_outcomes[name])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_estimator_of_scikit_learn_is_written_and_read_but_for_birch():
    numbers = np.abs(np.random.default_rng(0).normal(size=(40, 4)))
    classes = (numbers[:, 0] > numbers[:, 0].mean()).astype(int)
    read, refused = 0, set()
    for name, kind in all_estimators():
        try:
            estimator = kind().fit(numbers[:, 0] if name == "IsotonicRegression" else numbers, classes)
        except Exception:
            continue  # those that need arguments, text or tables of distances
        try:
            load_estimator(save_estimator(estimator), "skops", module=None, trusted_pickle=False)
            read += 1
        except PrescoreError:
            refused.add(name)
    assert refused == {"Birch"}
    assert read > 120


def test_run_serves_what_a_model_of_pandas_categories_says(shop, folder):
    kind = KINDS["HistGradientBoostingClassifier_pandas_categories"]
    pipeline = load_pipeline(shop.settings.pipelines_dir / kind.pipeline)
    code = code_of(pipeline)
    rows = make_rows()
    estimator = kind.fit(code, rows)
    version = register(shop, folder, kind, estimator)
    registry.promote_now(shop.url, kind.pipeline, version.version, "champion", "a test")
    shop.score(kind.pipeline)
    served = [row[0] for row in shop.rows(f"SELECT p FROM predictions.{kind.pipeline} ORDER BY id")]
    np.testing.assert_allclose(served, estimator.predict_proba(kind.frame(code, rows))[:, 1], rtol=0, atol=1e-9)


def test_parts_of_a_mixture_are_numbers_as_segments_are(shop, outcomes):
    with connect(shop.url) as connection:
        version = registry.find_version(connection, "density", outcomes["GaussianMixture"].version)
    assert version.signature["outputs"][0] == {"name": "part", "type": "bigint"}


# What is refused -------------------------------------------------------------------------------------------------


class Odd(TransformerMixin, BaseEstimator):
    """A transformer of a library that is on no list: this module."""

    def fit(self, frame: Any, labels: Any = None) -> Odd:
        self.fitted_ = True
        return self

    def transform(self, frame: Any) -> Any:
        return np.nan_to_num(np.asarray(frame, dtype=float))


def on_numbers(*steps: Any) -> Any:
    rows = make_rows()
    frame = preprocessed(rows, FEATURES, None)[NUMBERS].fillna(0)
    return make_pipeline(*steps).fit(frame, (frame["orders"] > 10).astype(int))


def of_a_notebook() -> Any:
    made = type("Mine", (Odd,), {"__module__": "__main__"})
    import __main__

    __main__.Mine = made  # as a notebook's cell leaves it
    return on_numbers(made(), LogisticRegression())


def searched_with_distributions() -> Any:
    search = RandomizedSearchCV(LogisticRegression(), {"C": stats.loguniform(0.1, 10)}, n_iter=2, cv=2, random_state=0)
    return on_numbers(FunctionTransformer(np.nan_to_num), search)


REFUSED: dict[str, tuple[str, Callable[[], Any], type[PrescoreError], str]] = {
    "lambda": (
        "chance",
        lambda: on_numbers(FunctionTransformer(lambda frame: frame), LogisticRegression()),
        TypesRefused,
        r"<lambda>, outside .* A lambda has no name that another process can import: make it a function of the pipeline's",
    ),
    "class_of_a_notebook": (
        "chance",
        of_a_notebook,
        TypesRefused,
        r"__main__\.Mine, outside .* What a notebook or script defines \(__main__\) is in no other process: move it to the",
    ),
    "class_of_another_library": (
        "chance",
        lambda: on_numbers(Odd(), LogisticRegression()),
        TypesRefused,
        r"test_estimators\.Odd, outside the types .* define your classes and functions in the pipeline's model\.py, or",
    ),
    "distributions_of_a_search": (
        "chance",
        searched_with_distributions,
        TypesRefused,
        r"run code when they are read: register its best_estimator_",
    ),
    "no_predict": (
        "segment",
        lambda: on_numbers(StandardScaler(), DBSCAN()),
        OutputNotOffered,
        r"DBSCAN has no method that predicts.* DBSCAN knows only the rows that it is fitted on\. Use one that labels new",
    ),
    "no_transform": (
        "axes",
        lambda: on_numbers(StandardScaler(), TSNE(perplexity=5, max_iter=250)),
        OutputNotOffered,
        r"TSNE has no method that predicts.* TSNE knows only the rows that it is fitted on",
    ),
    "no_novelty": (
        "density",
        lambda: on_numbers(StandardScaler(), LocalOutlierFactor()),
        OutputNotOffered,
        r"LocalOutlierFactor with novelty=True",
    ),
    "no_probabilities": (
        "chance",
        lambda: on_numbers(StandardScaler(), KINDS["LinearSVC"].make(None)[-1]),
        OutputNotOffered,
        r"asks for the method predict_proba; LinearSVC has predict, decision_function",
    ),
    "not_fitted": (
        "chance",
        LogisticRegression,
        RegistrationRefused,
        r"its LogisticRegression is not fitted\. No version was registered.* Call fit on the whole estimator",
    ),
    "pipeline_not_fitted": (
        "chance",
        lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        RegistrationRefused,
        r"its StandardScaler is not fitted",
    ),
    "fitted_on_other_columns": (
        "value",
        lambda: LogisticRegression().fit(np.zeros((4, 2)) + np.arange(4)[:, None], [0, 1, 0, 1]),
        RegistrationRefused,
        r"it was fitted on 2 columns without names, 6 are built .* Fit it on a frame with the names of the features",
    ),
    "no_estimator": ("value", lambda: {"coef": [1.0]}, OutputNotOffered, r"dict has no method that predicts"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_registered_says_why_and_what_to_do(shop, folder, case):
    pipeline, make, error, said = REFUSED[case]
    file = folder / "refused.skops"
    skops.io.dump(make(), file)
    with pytest.raises(error, match=said):
        register_refused(shop, folder, pipeline, file)


def register_refused(shop: World, folder: Path, pipeline: str, file: Path, **given: Any) -> None:
    """Try to register a file, and see that no version came of it."""
    count = "SELECT count(*) FROM prescore.models"
    before = shop.rows(count)
    sample = folder / "rows.parquet"
    try:
        register_file(shop.settings, pipeline, file, sample=sample, train_data_until=UNTIL, pipeline=pipeline, **given)
    finally:
        assert shop.rows(count) == before


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"learner":{"attributes":{}}}', "a JSON file such as XGBoost writes"),
        (b"tree\nversion=v4\n", "a text file of LightGBM's own"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file such as Keras writes"),
        (b"CBM1....", "a CatBoost file"),
    ],
)
def test_model_of_another_framework_is_refused_by_what_it_is(shop, folder, content, named):
    file = folder / "other.bin"
    file.write_bytes(content)
    with pytest.raises(ModelUnreadable, match=f"{named}, no scikit-learn estimator.*skops.io.dump"):
        register_refused(shop, folder, "chance", file, trust_pickle=True)


def test_estimator_that_skops_cannot_write_registers_as_a_pickle_that_a_person_trusts(shop, folder):
    birch = on_numbers(StandardScaler(), Birch(n_clusters=3))
    with pytest.raises(Exception, match="Birch"):
        skops.io.dump(birch, io.BytesIO())
    file = folder / "birch.joblib"
    joblib.dump(birch, file)
    sample = folder / "rows.parquet"
    given = {"sample": sample, "train_data_until": UNTIL, "pipeline": "segment"}
    version = register_file(shop.settings, "segment", file, trust_pickle=True, **given)
    assert version.trusted_pickle
    with connect(shop.url) as connection:
        again = registry.load_bundle(connection, "segment", version.version, None)
    frame = preprocessed(make_rows(), FEATURES, None)[NUMBERS].fillna(0)
    assert again.estimator.predict(frame).tolist() == birch.predict(frame).tolist()


class Ranks(ClassifierMixin, BaseEstimator):
    """A model whose answer for a row is its place in the batch."""

    def fit(self, frame: Any, labels: Any) -> Ranks:
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, frame: Any) -> Any:
        ones = frame["orders"].rank(pct=True).to_numpy()
        return np.column_stack([1 - ones, ones])

    def predict(self, frame: Any) -> Any:
        return (self.predict_proba(frame)[:, 1] > 0.5).astype(int)


class Singles(Ranks):
    """A model that is right for batches and wrong for a row alone."""

    def predict_proba(self, frame: Any) -> Any:
        ones = np.clip(frame["orders"].to_numpy() / 30, 0, 1) * (1.0 if len(frame) > 1 else 0.5)
        return np.column_stack([1 - ones, ones])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Ranks, r"the same 120 rows scored in two batches differ: p differs by up to 0\.\d+ in \d+ of 120 values"),
        (Singles, r"the same 5 rows scored one at a time differ: p differs by up to 0\.\d+ in \d of 5 values"),
    ],
)
def test_model_whose_answers_depend_on_the_batch_is_refused_with_figures(shop, folder, model, said):
    file = folder / "dependent.joblib"
    joblib.dump(model().fit(None, None), file)
    with pytest.raises(RegistrationRefused, match=said):
        register_refused(shop, folder, "chance", file, trust_pickle=True)


# What is shown ---------------------------------------------------------------------------------------------------


def show(shop: World, *arguments: str) -> str:
    environ = {"PRESCORE_DATABASE_URL": shop.url, "PRESCORE_PIPELINES": str(shop.settings.pipelines_dir)}
    done = CliRunner().invoke(app, ["models", "show", *arguments], env=environ)
    assert done.exit_code == 0, done.output
    return done.output


def test_models_show_tells_what_unusual_values_do_in_each_feature(shop, outcomes):
    text = show(shop, "chance", str(outcomes["every_step"].version))
    cells = {line.split()[0]: line.split("  ") for line in text.splitlines() if line.strip()}
    found = {name: [cell.strip() for cell in row if cell.strip()] for name, row in cells.items()}
    assert found["feature"] == ["feature", "NULL", "NaN", "infinity", "unseen", "absent"]
    assert found["orders"] == ["orders", "ValueError", "-", "-", "-", "ColumnsMissing"]
    assert found["spent"] == ["spent", "scored", "scored", "ValueError", "-", "ColumnsMissing"]
    assert found["country"] == ["country", "scored", "-", "-", "ValueError", "ColumnsMissing"]
    assert found["joined"] == ["joined", "scored", "-", "-", "-", "ColumnsMissing"]
    assert (
        "120 rows scored in reverse order, in two batches, one at a time, twice, with reordered columns got the same "
        "answers: classes are equal, values"
    ) in text


def test_models_show_gives_programs_the_probes_as_recorded(shop, outcomes):
    probes = json.loads(show(shop, "chance", str(outcomes["make_column_selector"].version), "--json"))["probes"]
    assert probes["rows"] == 120
    assert set(probes["same_scores"]) == {
        "twice",
        "in two batches",
        "one at a time",
        "in reverse order",
        "with reordered columns",
    }
    assert max(probes["same_scores"].values()) <= 1e-9
    assert probes["unseen"] == {"country": "scores", "note": "scores"}
    assert probes["nan"] == {"spent": "scores"}
    assert probes["infinity"] == {"spent": "raises: ValueError"}
    assert set(probes["null"]) == set(probes["missing_column"]) == {column.name for column in FEATURES}
