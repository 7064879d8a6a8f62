"""`train` learns from history as it was known, judges on the latest part, and moves the alias only when it may."""

from __future__ import annotations

import json
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import joblib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skops.io
import sqlalchemy as sa
from sklearn.linear_model import LogisticRegression

from flows.train import train
from tasks import registry, training
from tasks.bundle import preprocessed, replay_golden
from tasks.database import connect
from tasks.errors import ModelNotFound, PickleNotTrusted, RegistrationRefused, TrainingRefused
from tasks.features import feature_columns, training_frame
from tasks.pipeline import find_pipeline
from tasks.settings import Settings
from tasks.training import SplitBy

TODAY = datetime(2024, 6, 1, tzinfo=UTC)
LAST = datetime(2024, 5, 1, tzinfo=UTC)

PIPELINE = """
[entity]
key = ["machine_id"]
query = "SELECT machine_id FROM plant.machines"

[features]
query = "features.sql"
preprocess = "model.py:preprocess"

[model]
name = "wear"

[predictions]
breaks = { method = "predict_proba", class = "1" }
will_break = { method = "predict" }

[training]
labels = "labels.sql"
estimator = "model.py:build_model"
"""

FEATURES = """
SELECT b.machine_id, b.as_of, m.site, avg(r.heat) AS heat, count(r.heat) AS readings
FROM batch AS b
JOIN plant.machines AS m USING (machine_id)
LEFT JOIN plant.readings AS r ON r.machine_id = b.machine_id AND r.read_at < b.as_of
GROUP BY b.machine_id, b.as_of, m.site
"""

LABELS = """
SELECT o.machine_id, o.seen_at AS as_of, o.broke::integer AS label
FROM plant.outcomes AS o, run
WHERE o.seen_at + interval '7 days' <= run.as_of
"""

MODEL = '''
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, FunctionTransformer


def preprocess(frame):
    """Adds the month."""
    return frame.assign(month=frame["as_of"].dt.month.astype(float))


def root(values):
    return np.sqrt(np.clip(values, 0, None))


def build_model():
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), FunctionTransformer(root)), ["heat", "readings", "month"]),
        (OneHotEncoder(handle_unknown="ignore"), ["site"]),
    )
    return make_pipeline(columns, LogisticRegression(random_state=3))
'''

PLANT = """
CREATE SCHEMA plant;
CREATE TABLE plant.machines (machine_id integer PRIMARY KEY, site text);
CREATE TABLE plant.readings (machine_id integer, read_at timestamptz, heat double precision);
CREATE TABLE plant.outcomes (machine_id integer, seen_at timestamptz, broke boolean);
INSERT INTO plant.machines SELECT n, (ARRAY['north', 'south', NULL])[n % 3 + 1] FROM generate_series(1, 200) AS n;
INSERT INTO plant.readings
SELECT n, '2024-01-01Z'::timestamptz + (d || ' days')::interval, 20 + n % 60 + d % 5
FROM generate_series(1, 190) AS n, generate_series(0, 100, 10) AS d;
INSERT INTO plant.outcomes
SELECT n, '2024-05-01Z'::timestamptz - (w || ' weeks')::interval,
    CASE WHEN n % 50 <> 7 THEN (n * 7 + w) % 60 < n % 60 END
FROM generate_series(1, 200) AS n, generate_series(0, 9) AS w;
"""


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    with connect(database_url) as connection:
        connection.execute(sa.text(PLANT))
        connection.commit()
    write(tmp_path, {})
    return Settings(database_url=database_url, pipelines_dir=tmp_path / "pipelines", data_dir=tmp_path)


def write(place: Path, changed: dict[str, str]) -> None:
    """Write the pipeline wear, with some of its files changed."""
    folder = place / "pipelines" / "wear"
    folder.mkdir(parents=True, exist_ok=True)
    files = {"pipeline.toml": PIPELINE, "features.sql": FEATURES, "labels.sql": LABELS, "model.py": MODEL}
    for name, text in {**files, **changed}.items():
        (folder / name).write_text(textwrap.dedent(text))


def champion(settings: Settings) -> int | None:
    assert settings.database_url is not None
    with connect(settings.database_url) as connection:
        current = registry.current_alias(connection, "wear", "champion")
    return None if current is None else current.version


def test_first_model_is_trained_on_the_earlier_part_and_becomes_champion(settings):
    summary = train(settings, "wear", as_of=TODAY)
    assert (summary.model, summary.version, summary.promoted) == ("wear", 1, True)
    assert summary.promotion == "champion is version 1, the first one"
    assert summary.split_by is SplitBy.TIME
    assert summary.held_out_from == LAST - timedelta(weeks=1)
    assert summary.train_data_until == LAST - timedelta(weeks=2)
    assert (summary.rows_fitted, summary.rows_held_out, summary.rows_unlabelled) == (8 * 196, 2 * 196, 10 * 4)
    assert set(summary.metrics) == {"roc_auc", "average_precision", "log_loss", "brier"} == set(summary.baseline)
    assert summary.metrics["roc_auc"] > 0.6 > summary.baseline["roc_auc"] == 0.5
    assert summary.metrics["log_loss"] < summary.baseline["log_loss"]
    assert champion(settings) == 1
    json.dumps(summary.as_json())


def test_registered_model_loads_and_scores_its_golden_rows_as_recorded(settings):
    train(settings, "wear", as_of=TODAY)
    pipeline = find_pipeline(settings, "wear")
    with connect(settings.database_url) as connection:
        bundle = registry.load_bundle(connection, "wear", "champion", pipeline)
    assert bundle.logic_digest == pipeline.logic_digest
    assert bundle.model_features == ("site", "heat", "readings", "month")
    assert [column.postgres_type for column in bundle.output_columns] == ["double precision", "bigint"]
    assert bundle.golden.num_rows == 200
    assert replay_golden(bundle, pipeline.preprocess_function(), 1e-6).passed
    assert bundle.profile["rows"] == 8 * 196
    assert bundle.profile["outputs"]["breaks"]["count"] == 2 * 196


def test_training_and_scoring_build_the_same_features(settings):
    pipeline = find_pipeline(settings, "wear")
    rows = training_frame(settings.database_url, pipeline, TODAY)
    assert rows.column_names == ["machine_id", "as_of", "label", "site", "heat", "readings"]
    early = rows.filter(
        pa.compute.equal(rows.column("as_of"), pa.scalar(LAST - timedelta(weeks=9), rows.column("as_of").type))
    )
    # Readings come every ten days from New Year: only those before the label's own instant count.
    assert pa.compute.max(early.column("readings")).as_py() == 6


def test_second_model_waits_until_it_is_promoted(settings):
    train(settings, "wear", as_of=LAST)
    second = train(settings, "wear", as_of=TODAY)
    assert (second.version, second.promoted, champion(settings)) == (2, False, 1)
    assert second.promotion == "champion stays at version 1; --promote moves it"
    third = train(settings, "wear", as_of=TODAY, promote=True)
    assert (third.version, third.known_before, third.promoted, champion(settings)) == (2, True, True, 2)
    assert third.promotion == "champion moved from version 1 to 2"


def test_same_history_gives_the_same_version(settings):
    first, second = train(settings, "wear", as_of=TODAY), train(settings, "wear", as_of=TODAY)
    assert first.digest == second.digest
    assert (first.known_before, second.known_before, second.version) == (False, True, 1)


def test_labels_of_a_single_instant_are_split_by_key(settings, tmp_path):
    write(tmp_path, {"labels.sql": LABELS + " AND o.seen_at = '2024-05-01Z'"})
    summary = train(settings, "wear", as_of=TODAY)
    assert summary.split_by is SplitBy.KEY
    assert summary.rows_fitted + summary.rows_held_out == 196
    assert 20 <= summary.rows_held_out <= 60


def test_baseline_by_group_is_beside_the_metrics(settings, tmp_path):
    write(tmp_path, {"pipeline.toml": PIPELINE + 'baseline = "site"\n'})
    summary = train(settings, "wear", as_of=TODAY)
    assert summary.baseline_is == "the mean of each site among the rows fitted on"


@pytest.mark.parametrize(
    ("model", "declared", "label", "metrics"),
    [
        (
            "from sklearn.linear_model import Ridge as Model",
            'wear = { method = "predict" }',
            "o.machine_id % 7 * 1.5 AS label",
            {"mae", "rmse", "r2"},
        ),
        (
            "from sklearn.naive_bayes import GaussianNB as Model",
            'grade = { method = "predict" }\ngrades = { method = "predict_proba", class = "all" }',
            "(ARRAY['good', 'fair', 'poor'])[o.machine_id % 3 + 1] AS label",
            {"accuracy", "log_loss"},
        ),
        (
            "from functools import partial\nfrom sklearn.cluster import KMeans\n"
            "Model = partial(KMeans, n_clusters=3, n_init=1, random_state=0)",
            'segment = { method = "predict" }\ndistance = { method = "transform", reduce = "min" }',
            None,
            {"inertia", "score"},
        ),
    ],
    ids=["regression", "three classes", "segments"],
)
def test_metrics_follow_the_kind_of_model(settings, model, declared, label, metrics):
    before, _, rest = PIPELINE.partition("[predictions]\n")
    pipeline = f"{before}[predictions]\n{declared}\n[training]{rest.partition('[training]')[2]}"
    columns = "o.machine_id, o.seen_at AS as_of" + (f", {label}" if label else "")
    code = f"{model}\ndef preprocess(frame):\n    return frame[['heat', 'readings']].fillna(0)\ndef build_model():\n"
    write(
        settings.data_dir,
        {
            "pipeline.toml": pipeline,
            "labels.sql": f"SELECT {columns} FROM plant.outcomes AS o, run WHERE o.seen_at <= run.as_of",
            "model.py": code + "    return Model()\n",
        },
    )
    summary = train(settings, "wear", as_of=TODAY)
    assert set(summary.metrics) == metrics
    assert summary.rows_held_out == 400
    assert champion(settings) == 1


LISTS_TOML = """
parts = { method = "recommend", part = "items", k = 2 }
part_scores = { method = "recommend", part = "scores", k = 2 }

[training]"""

LISTS_LABELS = """
SELECT o.machine_id, o.seen_at AS as_of, part AS label
FROM plant.outcomes AS o
JOIN plant.machines AS m USING (machine_id)
CROSS JOIN LATERAL unnest(CASE WHEN m.site = 'north' THEN '{belt,fuse}' ELSE '{hose,belt}' END::text[]) AS part
"""

LISTS_MODEL = """
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator


def preprocess(frame):
    return frame[["site"]]


class Usual(BaseEstimator):
    def fit(self, frame, labels):
        table = pd.crosstab(frame["site"].fillna("none"), labels)
        self.sites_, self.items_ = table.index.to_numpy(str), table.columns.to_numpy(str)
        self.counts_ = table.to_numpy(float)
        return self

    def recommend(self, frame, k):
        at = pd.Index(self.sites_).get_indexer(frame["site"].fillna("none"))
        scores = self.counts_[at] + np.where(at < 0, np.nan, 0)[:, None]
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return self.items_[best], np.take_along_axis(scores, best, axis=1)


def build_model():
    return Usual()
"""


def test_lists_are_judged_by_recall_beside_what_is_frequent_anyway(settings, tmp_path):
    before, _, rest = PIPELINE.partition("[predictions]\n")
    toml = f"{before}[predictions]\n{LISTS_TOML}{rest.partition('[training]')[2]}"
    write(tmp_path, {"pipeline.toml": toml, "labels.sql": LISTS_LABELS, "model.py": LISTS_MODEL})
    summary = train(settings, "wear", as_of=TODAY)
    assert summary.rows_held_out == 2 * 400  # 200 machines at two instants, two parts each
    # Two thirds of the machines need hose and belt, which is what is frequent; north needs belt and fuse.
    assert summary.metrics == {"recall@2": 1.0}
    assert summary.baseline == {"recall@2": pytest.approx((134 * 1 + 66 * 0.5) / 200)}
    assert summary.baseline_is == "the most frequent labels of the rows fitted on"
    pipeline = find_pipeline(settings, "wear")
    with connect(settings.database_url) as connection:
        bundle = registry.load_bundle(connection, "wear", "champion", pipeline)
        (stored,) = registry.list_versions(connection, "wear")
    assert (stored.metrics["task"], stored.metrics["metrics"]) == ("ranking", summary.metrics)
    assert stored.metrics["baseline"] == summary.baseline
    assert [column.postgres_type for column in bundle.output_columns] == ["text[]", "double precision[]"]
    # What the features are asked for again by key and as_of is there once.
    assert bundle.golden.group_by(["machine_id", "as_of"]).aggregate([]).num_rows == bundle.golden.num_rows == 200
    assert bundle.profile["rows"] == 8 * 200
    assert bundle.profile["outputs"]["parts"]["count"] == 2 * 200
    assert train(settings, "wear", as_of=TODAY).known_before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"labels.sql": LABELS + " AND false"}, r"give 0 rows with a label"),
        ({"labels.sql": LABELS.replace("o.broke::integer", "1")}, "labels to fit on are the same"),
        ({"model.py": MODEL.replace('["heat",', '["cold",')}, "fit raised ValueError"),
        ({"model.py": MODEL.replace('handle_unknown="ignore"', "")}, "raised ValueError on .* held-out rows"),
    ],
    ids=["no labels", "one class", "fit raises", "later rows raise"],
)
def test_what_cannot_be_learned_is_refused_and_nothing_is_registered(settings, tmp_path, changed, said):
    with connect(settings.database_url) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO plant.machines VALUES (999, 'east'); "
                "INSERT INTO plant.outcomes VALUES (999, '2024-05-01Z', true)"
            )
        )
        connection.commit()
    write(tmp_path, changed)
    with pytest.raises(TrainingRefused, match=said):
        train(settings, "wear", as_of=TODAY)
    with connect(settings.database_url) as connection:
        assert registry.list_versions(connection) == []


# Models that were fitted elsewhere ---------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(settings, tmp_path) -> Any:
    """A model fitted outside of prescore on the pipeline's features, and a sample of these."""
    pipeline = find_pipeline(settings, "wear")
    contract = feature_columns(settings.database_url, pipeline)
    rows = training_frame(settings.database_url, pipeline, TODAY).drop_columns(["label"])
    frame = preprocessed(rows, contract.features, pipeline.preprocess_function())
    model = LogisticRegression().fit(frame[["readings", "month"]], (frame["readings"] > 8).astype(int))
    pq.write_table(rows, tmp_path / "sample.parquet")
    skops.io.dump(model, tmp_path / "model.skops")
    joblib.dump(model, tmp_path / "model.joblib")
    return tmp_path


def add(settings: Settings, place: Path, file: str = "model.skops", **given: Any) -> training.Registration:
    sample = given.pop("sample", place / "sample.parquet")
    name = given.pop("name", "wear")
    return training.register_file(settings, name, place / file, sample=sample, train_data_until=LAST, **given)


def test_file_is_registered_with_the_features_that_it_was_fitted_on(settings, elsewhere):
    made = add(settings, elsewhere)
    assert made.version.version == 1
    assert made.version.source.startswith("file model.skops (")
    assert made.version.train_data_until == LAST
    assert made.words == "champion is version 1, the first one"
    assert made.version.aliases == ("champion",)
    pipeline = find_pipeline(settings, "wear")
    with connect(settings.database_url) as connection:
        bundle = registry.load_bundle(connection, "wear", 1, pipeline)
    assert bundle.model_features == ("readings", "month")
    assert bundle.logic_digest == pipeline.logic_digest
    assert replay_golden(bundle, pipeline.preprocess_function(), 1e-6).passed
    assert add(settings, elsewhere).known_before


def test_sample_without_keys_is_enough_to_register(settings, elsewhere):
    bare = pq.read_table(elsewhere / "sample.parquet").drop_columns(["machine_id", "as_of"])
    pq.write_table(bare, elsewhere / "bare.parquet")
    assert add(settings, elsewhere, sample=elsewhere / "bare.parquet").version.logic_digest is None


def test_pickle_needs_somebody_who_vouches_for_it(settings, elsewhere):
    with pytest.raises(PickleNotTrusted, match="--trust-pickle"):
        add(settings, elsewhere, "model.joblib")
    made = add(settings, elsewhere, "model.joblib", trust_pickle=True)
    assert made.version.trusted_pickle
    with connect(settings.database_url) as connection:
        assert registry.load_bundle(connection, "wear", 1, None).loader == "joblib"


def test_file_that_does_not_fit_the_pipeline_is_refused(settings, elsewhere):
    with pytest.raises(RegistrationRefused, match="no pipeline uses it; models of pipelines: wear"):
        add(settings, elsewhere, name="waer")
    with pytest.raises(RegistrationRefused, match="pipeline wear uses the model wear"):
        add(settings, elsewhere, name="waer", pipeline_name="wear")
    with pytest.raises(RegistrationRefused, match=r"file nothing\.skops cannot be read"):
        add(settings, elsewhere, "nothing.skops")
    with pytest.raises(RegistrationRefused, match=r"the sample model\.skops cannot be read"):
        add(settings, elsewhere, sample=elsewhere / "model.skops")
    short = pq.read_table(elsewhere / "sample.parquet").drop_columns(["heat"])
    pq.write_table(short, elsewhere / "short.parquet")
    with pytest.raises(RegistrationRefused, match=r"lacks the features heat; it has machine_id"):
        add(settings, elsewhere, sample=elsewhere / "short.parquet")
    with connect(settings.database_url) as connection, pytest.raises(ModelNotFound):
        registry.require_alias(connection, "wear", "champion")
