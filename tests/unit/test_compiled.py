"""Compiled trees: equal to scikit-learn on what models meet, kept safely, dropped when they are wrong."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from tasks.compiled import CompiledEstimator, compile_bundle, kernel, library, read_form
from tasks.compiled.forests import read_ensemble
from tasks.compiled.form import EVERY_ROWS
from tasks.compiled.kernel import TREES

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")

TEXTS, NUMBERS = ["country", "segment"], ["a", "b", "c", "d"]
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder's cache that the tests share, so that the library is compiled once."""
    return tmp_path_factory.mktemp("data") / "compiled"


def make_frame(rows: int, seed: int, *, missing: float = 0.1, unseen: bool = False) -> pd.DataFrame:
    """Return rows with two text columns (None is missing) and four of numbers (NaN is missing)."""
    rng = np.random.default_rng(seed)
    frame = {}
    for name, count in (("country", 5), ("segment", 30)):
        values = np.array([f"{name} {at}" for at in range(count)] + ["never seen"] * unseen, dtype=object)
        frame[name] = values[rng.integers(0, len(values), rows)]
        frame[name][rng.random(rows) < missing] = None
    for name in NUMBERS:
        frame[name] = np.round(rng.normal(size=rows), 2)
        frame[name][rng.random(rows) < missing] = np.nan
    return pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in frame.items()})


def make_labels(frame: pd.DataFrame, classes: int) -> np.ndarray:
    """Return a class of each row, or a number where there are no classes."""
    score = frame[NUMBERS].fillna(0.5).sum(axis=1) + (frame["country"] == "country 1") * 2.0
    if not classes:
        return score.to_numpy()
    return np.array(["low", "middle", "high", "top"])[pd.qcut(score, classes, labels=False, duplicates="drop")]


def encoded(trees: Any, *, numbers: Any = "passthrough", texts: Any = None) -> Pipeline:
    """Return a pipeline of encoded texts and numbers in front of trees."""
    texts = texts or OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    return make_pipeline(ColumnTransformer([("texts", texts, TEXTS), ("numbers", numbers, NUMBERS)]), trees)


def one_hot() -> OneHotEncoder:
    """Return an encoder that puts rare and unknown values together."""
    return OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=8)


CASES: dict[str, tuple[Any, int]] = {
    "boosted, 2 classes": (encoded(HistGradientBoostingClassifier(max_iter=10)), 2),
    "boosted, 4 classes": (encoded(HistGradientBoostingClassifier(max_iter=10)), 4),
    "boosted, values": (encoded(HistGradientBoostingRegressor(max_iter=10)), 0),
    "boosted, counts": (encoded(HistGradientBoostingRegressor(loss="poisson", max_iter=10)), -1),
    "boosted, one-hot": (
        encoded(HistGradientBoostingClassifier(max_iter=10), texts=one_hot().set_params(sparse_output=False)),
        2,
    ),
    "boosted, scaled": (encoded(HistGradientBoostingClassifier(max_iter=10), numbers=StandardScaler()), 2),
    "boosted, targets": (encoded(HistGradientBoostingClassifier(max_iter=10), texts=TargetEncoder(cv=2)), 3),
    "boosted, codes are categories": (
        encoded(HistGradientBoostingClassifier(max_iter=8, categorical_features=[0, 1])),
        2,
    ),
    "boosted, imputed and encoded": (
        encoded(
            HistGradientBoostingClassifier(max_iter=10),
            texts=make_pipeline(
                SimpleImputer(strategy="constant", fill_value="none", missing_values=None),
                one_hot().set_params(sparse_output=False),
            ),
        ),
        2,
    ),
    "forest, 2 classes": (encoded(RandomForestClassifier(20, n_jobs=1)), 2),
    "forest, 4 classes": (encoded(RandomForestClassifier(20, max_depth=4)), 4),
    "forest, values": (encoded(RandomForestRegressor(20)), 0),
    "forest, one-hot": (encoded(RandomForestClassifier(10), texts=one_hot(), numbers=SimpleImputer()), 2),
    "extra trees, 3 classes": (encoded(ExtraTreesClassifier(20)), 3),
    "extra trees, values": (encoded(ExtraTreesRegressor(20)), 0),
    "gradient, 2 classes": (encoded(GradientBoostingClassifier(n_estimators=20), numbers=SimpleImputer()), 2),
    "gradient, 3 classes": (encoded(GradientBoostingClassifier(n_estimators=10), numbers=SimpleImputer()), 3),
    "gradient, from zero": (
        encoded(GradientBoostingClassifier(n_estimators=10, init="zero"), numbers=SimpleImputer()),
        2,
    ),
    "gradient, values": (encoded(GradientBoostingRegressor(n_estimators=20), numbers=SimpleImputer()), 0),
    "a scaler after the encoder": (
        make_pipeline(encoded(LogisticRegression())[0], StandardScaler(), HistGradientBoostingClassifier(max_iter=10)),
        2,
    ),
}


#: What the others show nearly as well.
SLOW = {
    *("boosted, one-hot", "boosted, counts", "forest, 4 classes", "forest, values", "extra trees, values"),
    *("gradient, 2 classes", "a scaler after the encoder", "boosted, scaled"),
}


def fitted(estimator: Any, classes: int, frame: pd.DataFrame) -> Any:
    """Fit an estimator; -1 classes are counts."""
    labels = make_labels(frame, max(classes, 0))
    return estimator.fit(frame, np.round(np.exp(labels / 4)) if classes < 0 else labels)


def bundle_of(estimator: Any, digest: str = "0" * 64) -> Any:
    """Return what of a bundle is looked at."""
    return SimpleNamespace(name="items", estimator=estimator, digest=digest)


def compiled(estimator: Any, folder: Path, golden: pd.DataFrame, **options: Any) -> CompiledEstimator | None:
    """Return the compiled form of an estimator, without measuring its speed."""
    return compile_bundle(bundle_of(estimator), golden, folder, **{"measure": False, **options})


def assert_equal(form: CompiledEstimator, estimator: Any, rows: Any) -> None:
    """Compare all methods that the estimator has, and make sure that it was not scikit-learn who answered."""
    for method in METHODS:
        if not hasattr(estimator, method):
            assert not hasattr(form, method)
            continue
        expected, found = getattr(estimator, method)(rows), form.compute(method, rows)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        else:
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(getattr(form, method)(rows), found)
    assert form.differed is None


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES])
def test_a_compiled_form_equals_scikit_learn(case: str, folder: Path) -> None:
    estimator, classes = CASES[case]
    estimator = fitted(estimator, classes, make_frame(400, seed=1))
    form = compiled(estimator, folder, make_frame(30, seed=2))
    assert form is not None
    for rows in (make_frame(1, seed=3, missing=0), make_frame(1_003, seed=4, unseen=True)):
        assert_equal(form, estimator, rows)


def awkward(columns: int, rows: int) -> list[np.ndarray]:
    """Return columns of numbers with missing and infinite ones among them, enough for several blocks."""
    rng = np.random.default_rng(5)
    found = [np.round(rng.normal(size=rows), 2) for _ in range(columns)]
    for column in found:
        for value in (np.nan, np.inf, -np.inf, 0.0, -0.0, 255.0):
            column[rng.integers(0, rows, rows // 50)] = value
    return found


@pytest.mark.parametrize(
    ("case", "wide"),
    [
        ("boosted, 2 classes", False),
        ("boosted, 4 classes", False),
        ("boosted, codes are categories", False),
        ("forest, 4 classes", False),  # leaves of several values
        ("gradient, 3 classes", False),
        ("boosted, 64 leaves", True),
    ],
)
def test_small_trees_give_the_same_sums_by_masks_as_by_walking(case: str, wide: bool, folder: Path) -> None:
    large = (encoded(HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=64, min_samples_leaf=4)), 2)
    estimator, classes = {**CASES, "boosted, 64 leaves": large}[case]
    rows = make_frame(2_000, seed=1)
    forest = read_ensemble(fitted(estimator, classes, rows).steps[-1][1]).forest
    assert forest.masks is not None
    assert forest.masks.words.dtype == (np.uint64 if wide else np.uint32)
    loaded = kernel.load_kernel(folder)
    columns = awkward(forest.n_features, 10_001)
    by_walking, met = loaded.bind(replace(forest, masks=None)).sums(columns)
    by_masks, also_met = loaded.bind(forest, threads=2).sums(columns)
    np.testing.assert_array_equal(by_masks, by_walking)
    assert also_met == met == 3


@pytest.mark.parametrize(
    ("estimator", "rows"),
    [(RandomForestClassifier(5), 2_000), (GradientBoostingClassifier(n_estimators=40, max_depth=6), 4_000)],
    ids=["more leaves than a word has bits", "more thresholds than a code can tell"],
)
def test_trees_that_do_not_fit_in_masks_are_walked(estimator: Any, rows: int) -> None:
    frame = make_frame(rows, seed=1, missing=0)
    frame[NUMBERS] = np.random.default_rng(2).normal(size=(rows, len(NUMBERS)))
    assert read_ensemble(estimator.fit(frame[NUMBERS], make_labels(frame, 2))).forest.masks is None


@pytest.mark.parametrize("dtype", ["object", "category", "str"])
def test_text_may_come_in_any_type_of_pandas(dtype: str, folder: Path) -> None:
    estimator = fitted(encoded(HistGradientBoostingClassifier(max_iter=5)), 2, make_frame(400, seed=1))
    rows = make_frame(500, seed=3, missing=0).astype(dict.fromkeys(TEXTS, dtype))
    form = compiled(estimator, folder, make_frame(30, seed=2))
    assert form is not None
    assert_equal(form, estimator, rows)


def test_categories_of_a_frame_are_split_by(folder: Path) -> None:
    train = make_frame(600, seed=1).astype(dict.fromkeys(TEXTS, "category"))
    trees = HistGradientBoostingClassifier(max_iter=8, categorical_features="from_dtype", min_samples_leaf=5)
    estimator = trees.fit(train, make_labels(train, 3))
    assert any(p.nodes["is_categorical"].any() for step in estimator._predictors for p in step)
    form = compiled(estimator, folder, train.head(30))
    assert form is not None
    assert_equal(form, estimator, make_frame(500, seed=3, unseen=True).astype(dict.fromkeys(TEXTS, "category")))


def test_values_at_a_threshold_go_where_scikit_learn_sends_them(folder: Path) -> None:
    """Also those that float32 cannot tell from it, and both infinities, in the type that each ensemble compares in."""
    frame = make_frame(300, seed=1, missing=0)[NUMBERS]
    labels = make_labels(make_frame(300, seed=1, missing=0), 2)
    boosted = HistGradientBoostingClassifier(max_iter=8).fit(frame, labels)
    forest = RandomForestClassifier(20).fit(frame, labels)
    limits = np.concatenate([p.nodes["num_threshold"] for step in boosted._predictors for p in step])
    limits = np.concatenate([limits, *(tree.tree_.threshold for tree in forest.estimators_)])
    near = np.concatenate([limits, np.nextafter(limits, -9), np.nextafter(limits, 9), limits * (1 + 1e-9)])
    rows = pd.DataFrame({name: np.roll(near, 7 * at) for at, name in enumerate(NUMBERS)})
    for estimator in (boosted, forest):
        form = compiled(estimator, folder, frame.head(20))
        assert form is not None
        assert_equal(form, estimator, rows[np.isfinite(rows).all(axis=1)])
        if estimator is boosted:
            assert_equal(form, estimator, rows.replace(rows.iloc[0, 0], np.inf).replace(rows.iloc[1, 0], -np.inf))


def test_a_model_of_an_array_gets_arrays(folder: Path) -> None:
    frame = make_frame(300, seed=1)
    estimator = HistGradientBoostingRegressor(max_iter=10).fit(frame[NUMBERS].to_numpy(), make_labels(frame, 0))
    form = compiled(estimator, folder, frame[NUMBERS].head(20))
    assert form is not None
    assert_equal(form, estimator, make_frame(100, seed=2)[NUMBERS].to_numpy())


def test_two_kinds_of_missing_are_scored_by_scikit_learn(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    estimator = fitted(encoded(HistGradientBoostingClassifier(max_iter=3), texts=texts), 2, make_frame(300, seed=1))
    form = compiled(estimator, folder, make_frame(20, seed=2, missing=0))
    assert form is not None
    rows = make_frame(100, seed=3)
    rows.loc[rows["country"].isna() & (rows.index > 50), "country"] = np.nan
    assert {type(value) for value in rows["country"][rows["country"].isna()]} == {type(None), float}
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            np.testing.assert_array_equal(form.predict_proba(rows), estimator.predict_proba(rows))
    assert [record.getMessage() for record in caplog.records] == [
        "scikit-learn's own code scores a batch that the compiled form does not, because of several kinds of missing values"
    ]


def test_what_scikit_learn_refuses_it_refuses_in_its_own_words(folder: Path) -> None:
    frame = make_frame(300, seed=1, missing=0)
    for trees, wrong in (
        (GradientBoostingClassifier(n_estimators=3), np.nan),
        (RandomForestClassifier(3), np.inf),
        (RandomForestClassifier(3), 1e39),
    ):
        estimator = trees.fit(frame[NUMBERS], make_labels(frame, 2))
        form = compiled(estimator, folder, frame[NUMBERS].head(20))
        assert form is not None
        rows = frame[NUMBERS].head(100).copy()
        rows.iloc[50, 2] = wrong
        with pytest.raises(ValueError, match="Input X contains") as refused:
            estimator.predict(rows)
        with pytest.raises(ValueError, match="Input X contains") as also:
            form.predict(rows)
        assert str(also.value) == str(refused.value)
    strict = fitted(encoded(HistGradientBoostingClassifier(max_iter=3), texts=OrdinalEncoder()), 2, frame)
    form = compiled(strict, folder, frame.head(20))
    assert form is not None
    with pytest.raises(ValueError, match="unknown categories"):
        form.predict(make_frame(50, seed=2, missing=0, unseen=True))


def test_threads_share_a_batch(folder: Path) -> None:
    estimator = fitted(encoded(RandomForestClassifier(5)), 2, make_frame(300, seed=1))
    form = compiled(estimator, folder, make_frame(20, seed=2), threads=2)
    assert form is not None
    assert_equal(form, estimator, make_frame(20_001, seed=3))


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(encoded(LogisticRegression())[0], SimpleImputer(), GaussianNB()),
        encoded(GradientBoostingClassifier(n_estimators=3, init=LogisticRegression()), numbers=SimpleImputer()),
    ],
)
def test_other_models_have_no_compiled_form(estimator: Any, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    estimator = fitted(estimator, 2, make_frame(300, seed=1))
    with caplog.at_level(logging.INFO):
        assert compiled(estimator, folder, make_frame(20, seed=2)) is None
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "scored by scikit-learn's own code, because" in caplog.text


# What is kept ----------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test alone, in which nothing was compiled, and no library in memory."""
    library._load.cache_clear()
    yield tmp_path / "data" / "compiled"
    library._load.cache_clear()


@pytest.fixture(scope="module")
def small() -> Any:
    return fitted(encoded(HistGradientBoostingClassifier(max_iter=5)), 2, make_frame(300, seed=1))


def library_of(folder: Path) -> Path:
    return folder / f"trees-{library.source_key(TREES)}" / "library.so"


def test_the_library_is_compiled_once_and_the_speed_measured_once(own: Path, small: Any) -> None:
    golden = make_frame(20, seed=2)
    assert read_form(own, "0" * 64).in_words.endswith("no run has compiled it on this machine yet")
    assert compiled(small, own, golden, measure=True) is not None
    made, measured = library_of(own).stat(), read_form(own, "0" * 64)
    assert "times as fast as scikit-learn" in measured.in_words
    library._load.cache_clear()
    assert compiled(small, own, golden, measure=True) is not None
    assert library_of(own).stat() == made
    assert read_form(own, "0" * 64) == measured
    assert {path.name.split("-")[0] for path in own.iterdir()} == {"trees", "0" * 64 + ".json"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (own, *own.iterdir(), library_of(own)))


def test_a_damaged_library_is_compiled_again(own: Path, small: Any) -> None:
    assert compiled(small, own, make_frame(20, seed=2)) is not None
    library._load.cache_clear()
    place = library_of(own)
    whole = place.read_bytes()
    place.unlink()
    place.write_bytes(whole[: len(whole) // 2])
    form = compiled(small, own, make_frame(20, seed=2))
    assert form is not None
    assert_equal(form, small, make_frame(100, seed=3))
    assert place.stat().st_size == len(whole)


@pytest.mark.parametrize("unsafe", ["folder", "above", "place", "link"])
def test_code_that_others_could_have_written_is_not_loaded(own: Path, small: Any, unsafe: str) -> None:
    assert compiled(small, own, make_frame(20, seed=2)) is not None
    library._load.cache_clear()
    place = library_of(own)
    before = place.stat().st_ino
    if unsafe == "link":
        own.rename(own.with_name("elsewhere"))
        own.symlink_to(own.with_name("elsewhere"))
    else:
        {"folder": own, "above": own.parent, "place": place}[unsafe].chmod(0o777)
    form = compiled(small, own, make_frame(20, seed=2))
    if unsafe == "place":  # the folder is ours: what lies there is made again
        assert form is not None
        assert place.stat().st_ino != before or place.stat().st_mode & 0o022 == 0
    else:
        assert form is None


def test_processes_compile_at_once_without_meeting(own: Path, small: Any) -> None:
    command = (
        "import sys; from pathlib import Path; from tasks.compiled import kernel; "
        "sys.stdin.readline(); kernel.load_kernel(Path(sys.argv[1]))"
    )
    several = [
        subprocess.Popen([sys.executable, "-c", command, str(own)], stdin=subprocess.PIPE, cwd=Path.cwd())
        for _ in range(2)
    ]
    for process in several:
        process.communicate(b"go\n")
    assert [process.returncode for process in several] == [0, 0]
    assert [path.name for path in own.iterdir()] == [f"trees-{library.source_key(TREES)}"]


def test_a_killed_compilation_leaves_nothing_that_is_used(own: Path, small: Any) -> None:
    library.require_safe(own)
    left = own / ".begun-killed"
    left.mkdir()
    (left / "library.so").write_bytes(b"half")
    long_ago = time.time() - 7_200
    os.utime(left, (long_ago, long_ago))
    form = compiled(small, own, make_frame(20, seed=2))
    assert form is not None
    assert not left.exists()


def test_the_extra_brings_a_compiler(own: Path, small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ziglang")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(own.parent))
    form = compiled(small, own, make_frame(20, seed=2))
    assert form is not None
    assert_equal(form, small, make_frame(100, seed=3))
    assert {path.name for path in library_of(own).parent.iterdir()} == {"source.c", "library.so", "library.so.sha256"}


@pytest.mark.parametrize("compiler", ["none", "fails"])
def test_without_a_compiler_scikit_learn_scores(
    own: Path, small: Any, compiler: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CC", raising=False)
    if compiler == "none":
        monkeypatch.setenv("PATH", str(own.parent))
        monkeypatch.setitem(sys.modules, "ziglang", None)
    else:
        monkeypatch.setenv("CC", "false")
    with caplog.at_level(logging.INFO):
        assert compiled(small, own, make_frame(20, seed=2)) is None
    assert "C compiler" in caplog.text
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "C compiler" in read_form(own, "0" * 64).in_words


WRONG = """
#include <stdint.h>
int32_t prescore_sum_trees(
    const double *const *columns, int64_t start, int64_t stop, int64_t width, int32_t as_float, const void *nodes,
    const double *values, int64_t leaf_width, const int64_t *roots, const int32_t *depths, const int32_t *certain,
    int64_t n_trees, int64_t n_outputs, const uint32_t *sets, const double *baseline, double *out)
{
    for (int64_t i = start * n_outputs; i < stop * n_outputs; i++) out[i] = 0.25;
    return 0;
}
int32_t prescore_sum_masks(
    const double *const *columns, int64_t start, int64_t stop, int64_t width, int32_t as_float, const int32_t *kinds,
    const double *thresholds, const int64_t *first_asked, const int32_t *asked, const void *words, int32_t wide,
    const double *values, int64_t leaf_width, const int64_t *first_leaf, int64_t n_trees, int64_t n_outputs,
    const double *baseline, double *out)
{
    for (int64_t i = start * n_outputs; i < stop * n_outputs; i++) out[i] = 0.25;
    return 0;
}
"""


def test_a_library_that_computes_otherwise_is_dropped_at_once(
    own: Path, small: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(library, "source_of", lambda name: WRONG)
    library.source_key.cache_clear()
    try:
        assert compiled(small, own, make_frame(20, seed=2)) is None
    finally:
        monkeypatch.undo()
        library.source_key.cache_clear()
    assert "differs on golden rows" in caplog.text


def test_a_form_that_differs_in_a_later_batch_hands_on_scikit_learns_rows(
    folder: Path, small: Any, caplog: pytest.LogCaptureFixture
) -> None:
    form = compiled(small, folder, make_frame(20, seed=2))
    assert form is not None
    first, second = make_frame(500, seed=3), make_frame(500, seed=4)
    form.predict_proba(first)
    assert not form.doubtful
    masks = form._model._kernel.forest.masks
    assert masks is not None
    masks.values[:] *= 1.001
    form._returned["predict_proba"] += EVERY_ROWS
    np.testing.assert_array_equal(form.predict_proba(second), small.predict_proba(second))
    assert form.doubtful
    assert "differs from scikit-learn: predict_proba differs by up to" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(form.predict_proba(first), small.predict_proba(first))
    assert not caplog.text
