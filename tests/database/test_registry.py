"""Model versions are numbered, kept and named so that nobody has to ask which model was in use when."""

from __future__ import annotations

import getpass
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from sklearn.linear_model import LogisticRegression

from tasks import registry
from tasks.bundle import Bundle
from tasks.bundle_file import digest_of, dumps
from tasks.columns import Column
from tasks.database import connect
from tasks.errors import AliasMoved, BundleTampered, ModelNotFound, NothingBefore, PickleNotTrusted
from tasks.pipeline import Output
from tasks.probes import create_bundle

FEATURES = (Column(name="a", postgres_type="double precision"), Column(name="b", postgres_type="double precision"))
KEY = (Column(name="id", postgres_type="bigint"),)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    noise = np.random.default_rng(5)
    rows = pa.table(
        {
            "id": pa.array(range(60), pa.int64()),
            "as_of": pa.array([datetime(2024, 3, 1, tzinfo=UTC)] * 60, pa.timestamp("us", "UTC")),
            "a": noise.normal(size=60),
            "b": noise.normal(size=60),
        }
    )
    frame = rows.select(["a", "b"]).to_pandas()
    made, _ = create_bundle(
        name="churn",
        estimator=LogisticRegression().fit(frame, frame["a"] > 0),
        key=KEY,
        features=FEATURES,
        outputs=(Output.model_validate({"name": "p", "method": "predict_proba", "class": "true"}),),
        preprocess=None,
        sample=rows,
        train_data_until=datetime(2024, 3, 1, tzinfo=UTC),
        metrics={"metrics": {"roc_auc": 0.9}},
        logic_digest="cd" * 32,
    )
    return made


def another(bundle: Bundle, number: int) -> Bundle:
    return replace(bundle, metrics={"metrics": {"roc_auc": number / 100}})


def register(url: str, bundle: Bundle, **given: Any) -> registry.ModelVersion:
    with connect(url) as connection:
        made = registry.register(connection, bundle, source="a test", **given)
        connection.commit()
    return made


def promote(url: str, version: int, alias: str = "champion", because: str = "it is better") -> registry.Promotion:
    return registry.promote_now(url, "churn", version, alias, because)


def test_version_comes_back_as_it_was_registered(database_url, bundle):
    made = register(database_url, bundle, note="by hand")
    assert (made.name, made.version, made.source) == ("churn", 1, "a test; by hand")
    with connect(database_url) as connection:
        loaded = registry.load_bundle(connection, "churn", 1, None)
        found = registry.find_version(connection, "churn", 1)
    assert loaded.golden_outputs == bundle.golden_outputs
    assert found == made
    assert found.digest == bundle.digest == digest_of(dumps(bundle))
    assert found.metrics == bundle.metrics
    assert found.train_data_until == bundle.train_data_until
    assert found.signature["features"] == [{"name": name, "type": "double precision"} for name in ("a", "b")]
    assert not found.trusted_pickle


def test_versions_count_up_for_each_model(database_url, bundle):
    numbers = [register(database_url, another(bundle, at)).version for at in range(3)]
    assert numbers == [1, 2, 3]
    assert register(database_url, replace(bundle, name="other")).version == 1
    with connect(database_url) as connection:
        assert [version.version for version in registry.list_versions(connection, "churn")] == [3, 2, 1]
        assert len(registry.list_versions(connection)) == 4


def test_same_bytes_registered_twice_are_one_version(database_url, bundle):
    first, second = register(database_url, bundle), register(database_url, bundle)
    assert first == second
    with connect(database_url) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM prescore.model_chunks")).scalar_one() == 1


def test_nothing_is_registered_when_the_transaction_is_rolled_back(database_url, bundle):
    with connect(database_url) as connection:
        registry.register(connection, bundle, source="a test")
        connection.rollback()
        assert registry.list_versions(connection) == []


def test_two_registrations_at_once_both_succeed(database_url, bundle):
    made: list[int] = []
    with connect(database_url) as first:
        early = registry.register(first, another(bundle, 1), source="the first")
        late = threading.Thread(target=lambda: made.append(register(database_url, another(bundle, 2)).version))
        late.start()
        first.commit()
        late.join(30)
    assert (early.version, made) == (1, [2])


def test_bundle_larger_than_a_chunk_is_stored_in_several(database_url, bundle, monkeypatch):
    monkeypatch.setattr(registry, "CHUNK_BYTES", 1000)
    made = register(database_url, bundle)
    with connect(database_url) as connection:
        sizes = (
            connection.execute(sa.text("SELECT octet_length(data) FROM prescore.model_chunks ORDER BY chunk"))
            .scalars()
            .all()
        )
        assert sizes == [1000] * (made.size_bytes // 1000) + [made.size_bytes % 1000]
        assert registry.load_bundle(connection, "churn", 1, None).digest == made.digest


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE prescore.model_chunks SET data = set_byte(data, 100, (get_byte(data, 100) + 1) % 256)",
        "UPDATE prescore.model_chunks SET data = substr(data, 1, 100)",
        "DELETE FROM prescore.model_chunks",
    ],
)
def test_tampered_bundle_is_refused_in_words(database_url, bundle, tamper):
    made = register(database_url, bundle)
    with connect(database_url) as connection:
        connection.execute(sa.text(tamper))
        with pytest.raises(BundleTampered) as refused:
            registry.load_bundle(connection, "churn", 1, None)
    message = str(refused.value)
    assert message.startswith("Model churn version 1 has the digest ")
    assert f"registered was {made.digest[:12]}" in message
    assert "still served" in message
    assert "promote another version" in message


def test_first_promotion_and_the_next_keep_their_history(database_url, bundle):
    for at in range(2):
        register(database_url, another(bundle, at))
    assert promote(database_url, 1).before is None
    assert promote(database_url, 2, because="roc_auc 0.91") == registry.Promotion(version=2, before=1)
    with connect(database_url) as connection:
        history = registry.alias_history(connection, "churn")
        assert [(span.alias, span.version, span.because) for span in history] == [
            ("champion", 1, "it is better"),
            ("champion", 2, "roc_auc 0.91"),
        ]
        assert history[0].until == history[1].since
        assert history[1].until is None
        current = registry.current_alias(connection, "churn", "champion")
        assert current is not None
        assert current.version == 2
        assert [version.aliases for version in registry.list_versions(connection, "churn")] == [("champion",), ()]


def test_alias_of_an_instant_of_the_past_is_the_version_it_named_then(database_url, bundle):
    for at in range(2):
        register(database_url, another(bundle, at))
    promote(database_url, 1)
    promote(database_url, 2)
    with connect(database_url) as connection:
        first, second = registry.alias_history(connection, "churn")

        def named(at: datetime) -> int | None:
            found = registry.current_alias(connection, "churn", "champion", at)
            return None if found is None else found.version

        assert named(first.since - timedelta(microseconds=1)) is None
        assert named(first.since) == 1
        assert named(second.since - timedelta(microseconds=1)) == 1
        assert named(second.since) == 2
        assert named(second.since + timedelta(days=1)) == 2


def test_promoting_what_is_promoted_changes_nothing(database_url, bundle):
    register(database_url, bundle)
    promote(database_url, 1)
    assert not promote(database_url, 1).moved
    with connect(database_url) as connection:
        assert len(registry.alias_history(connection, "churn")) == 1


def test_aliases_move_independently_and_back(database_url, bundle):
    for at in range(2):
        register(database_url, another(bundle, at))
    promote(database_url, 1)
    promote(database_url, 2, alias="challenger")
    promote(database_url, 2)
    promote(database_url, 1)
    with connect(database_url) as connection:
        assert registry.find_version(connection, "churn", "champion").version == 1
        assert registry.find_version(connection, "churn", "challenger").version == 2


def test_vacant_alias_is_filled_and_a_held_one_stays(database_url, bundle):
    for at in range(2):
        register(database_url, another(bundle, at))
    with connect(database_url) as connection:
        assert registry.promote(connection, "churn", 1, "champion", "first", if_vacant=True).moved
        assert registry.promote(connection, "churn", 2, "champion", "first", if_vacant=True).version == 1
        connection.commit()


def test_promotions_at_once_leave_one_current_version(database_url, bundle):
    for at in range(2):
        register(database_url, another(bundle, at))
    with connect(database_url) as first:
        registry.promote(first, "churn", 1, "champion", "the first")
        late = threading.Thread(target=lambda: promote(database_url, 2))
        late.start()
        first.commit()
        late.join(30)
    with connect(database_url) as connection:
        assert [span.version for span in registry.alias_history(connection, "churn")] == [1, 2]
        assert registry.find_version(connection, "churn", "champion").version == 2


def test_version_or_alias_that_is_not_there_is_refused_with_those_that_are(database_url, bundle):
    with connect(database_url) as connection:
        with pytest.raises(ModelNotFound, match=r"no versions at all; models there: none\."):
            registry.require_alias(connection, "churn", "champion")
        connection.rollback()
    register(database_url, bundle)
    promote(database_url, 1, alias="challenger")
    with connect(database_url) as connection:
        with pytest.raises(
            ModelNotFound, match=r"no alias champion of model churn; its versions are 1 \(challenger = 1\)"
        ):
            registry.require_alias(connection, "churn", "champion")
        with pytest.raises(ModelNotFound, match="no version 7 of model churn"):
            registry.promote(connection, "churn", 7, "champion", "a slip")
        with pytest.raises(ModelNotFound, match="models there: churn"):
            registry.find_version(connection, "chrun", "champion")


def test_pickle_loads_only_where_the_registry_trusts_it(database_url, bundle):
    import io

    import joblib

    out = io.BytesIO()
    joblib.dump(bundle.estimator, out)
    pickled = replace(bundle, loader="joblib", estimator_file=out.getvalue())
    with pytest.raises(PickleNotTrusted):
        register(database_url, pickled)
    made = register(database_url, pickled, trusted_pickle=True)
    assert made.trusted_pickle
    assert (made.trusted_by, made.trusted_at is not None) == (made.created_by, True)
    assert made.trusted_os_user == getpass.getuser()
    assert made.trusted_sha256 == digest_of(out.getvalue())
    assert made.trust is not None
    assert f"{made.trusted_by} (user {made.trusted_os_user}) vouched for the file" in made.trust
    with connect(database_url) as connection:
        assert registry.load_bundle(connection, "churn", 1, None).loader == "joblib"
        connection.execute(
            sa.text("UPDATE prescore.models SET trusted_pickle = false, trusted_by = NULL, trusted_at = NULL")
        )
        with pytest.raises(PickleNotTrusted, match="It was not opened"):
            registry.load_bundle(connection, "churn", 1, None)


def test_trust_belongs_to_one_file_and_a_skops_file_needs_none(database_url, bundle):
    made = register(database_url, bundle, trusted_pickle=True)
    assert not made.trusted_pickle
    assert (made.trusted_by, made.trusted_os_user, made.trusted_at, made.trusted_sha256, made.trust) == (None,) * 5
    # Nobody can be made to have trusted something without a name.
    with connect(database_url) as connection, pytest.raises(sa.exc.IntegrityError, match="models_trust"):
        connection.execute(sa.text("UPDATE prescore.models SET trusted_pickle = true"))


# Going back --------------------------------------------------------------------------------------------------------


def go_back(url: str, alias: str = "champion") -> int:
    with connect(url) as connection:
        step = registry.step_back(connection, "churn", alias)
        registry.go_back(connection, step, "it was worse")
        connection.commit()
    return step.to.version


def test_going_back_goes_further_each_time_and_not_forth(database_url, bundle):
    for at in range(4):
        register(database_url, another(bundle, at))
    for version in (1, 2, 3):
        promote(database_url, version)
    assert go_back(database_url) == 2
    promote(database_url, 4)
    assert [go_back(database_url), go_back(database_url)] == [2, 1]
    with connect(database_url) as connection:
        history = registry.alias_history(connection, "churn")
        assert [(span.version, span.went_back) for span in history] == [
            *((version, False) for version in (1, 2, 3)),
            *((2, True), (4, False), (2, True), (1, True)),
        ]
        assert {span.because for span in history if span.went_back} == {"it was worse"}
        with pytest.raises(NothingBefore, match=r"nothing to go back to: version 1 .*its versions are 4, 3, 2, 1"):
            registry.step_back(connection, "churn", "champion")
    promote(database_url, 3, alias="challenger")
    with pytest.raises(NothingBefore, match="--alias challenger"):
        go_back(database_url, "challenger")
    with pytest.raises(ModelNotFound, match="no alias nobody"):
        go_back(database_url, "nobody")


def test_two_who_go_back_at_once_take_one_step(database_url, bundle):
    for at in range(3):
        register(database_url, another(bundle, at))
        promote(database_url, at + 1)
    refused: list[Exception] = []

    def second() -> None:
        with connect(database_url) as connection:
            try:
                registry.go_back(connection, step, "the second")
            except AliasMoved as error:
                refused.append(error)

    with connect(database_url) as first:
        step = registry.step_back(first, "churn", "champion")
        registry.go_back(first, step, "the first")
        late = threading.Thread(target=second)
        late.start()
        first.commit()
        late.join(30)
    assert [str(error).count("the first") for error in refused] == [1]
    assert "Nothing was changed by this command" in str(refused[0])
    with connect(database_url) as connection:
        assert [span.version for span in registry.alias_history(connection, "churn")] == [1, 2, 3, 2]
