"""What must never be published: each refusal in words, with the last good publication still served."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import skops.io
from sklearn.preprocessing import FunctionTransformer
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from flows.cli import app
from tasks import registry
from tasks.bundle import Bundle
from tasks.bundle_file import digest_of, dumps
from tasks.database import connect
from tasks.errors import PrescoreError
from tasks.pipeline import load_pipeline
from tasks.population import Mode
from tests.conftest import copy_database, execute, psql_url
from tests.factories import World, make_model, make_pipeline, make_world

ENTITIES = 400
#: Stands in the data in many places; no message, log or error may repeat it.
MARKER = "tok-7731"

SOURCES = f"""
CREATE TABLE public.members (id bigint);
INSERT INTO public.members SELECT generate_series(1, {ENTITIES});
CREATE TABLE public.items (
    id bigint PRIMARY KEY, a double precision, b double precision, c text, divisor integer NOT NULL, updated_at timestamptz NOT NULL
);
INSERT INTO public.items
SELECT x, sin(x), cos(x), '{MARKER}-' || x, 1, statement_timestamp() - interval '1 hour' FROM generate_series(1, {ENTITIES}) AS x;
CREATE TABLE public.extras AS SELECT id FROM public.items;
CREATE VIEW public.traits AS SELECT i.id, i.id AS owner, i.a, i.b / i.divisor AS b, i.c FROM public.items AS i
"""

PIPELINE_TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.members"
[features]
query = "features.sql"
changes = "changes.sql"
preprocess = "model.py:preprocess"
[predictions]
p = { method = "predict_proba", class = "1", index = true }
"""
FEATURES_SQL = "SELECT t.owner AS id, b.as_of, t.a, t.b, t.c FROM batch AS b JOIN public.traits AS t ON t.id = b.id"

#: Raises on one row, or gives NaN for it, as the data of a test asks for; no probe at registration finds that out.
MODEL_PY = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

def preprocess(frame):
    if (frame["a"] == 7e6).any():
        raise ValueError("cannot prepare " + frame.loc[frame["a"] == 7e6, "c"].iloc[0])
    return frame

class Judge(ClassifierMixin, BaseEstimator):
    def fit(self, frame, labels):
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, frame):
        if (frame["a"] == 8e6).any():
            raise ValueError("cannot judge " + frame.loc[frame["a"] == 8e6, "c"].iloc[0])
        total = np.nan_to_num(frame["a"].to_numpy()) + np.nan_to_num(frame["b"].to_numpy())
        positive = 1 / (1 + np.exp(-np.clip(total, -50, 50)))
        positive[(frame["a"] == 9e6).to_numpy()] = np.nan
        return np.column_stack([1 - positive, positive])

    def predict(self, frame):
        return (self.predict_proba(frame)[:, 1] > 0.5).astype(int)
"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended that did not publish."""

    status: str
    exit_code: int
    message: str
    run_id: int


class Refusals:
    """A world with one good publication, and what has to stay true when a run does not publish."""

    def __init__(self, world: World, log: pytest.LogCaptureFixture) -> None:
        self.world, self.log = world, log
        self.before = self._served()

    def score(self, **options: Any) -> Outcome:
        """Run once; the run must not publish, and nothing that is served may have changed."""
        try:
            summary = self.world.score(**options)
            outcome = Outcome(
                status=summary.status.value, exit_code=summary.exit_code, message=summary.message, run_id=summary.run_id
            )
        except PrescoreError as error:
            run_id = self.world.one("SELECT max(run_id) AS id FROM prescore.runs")["id"]
            outcome = Outcome(status="failed", exit_code=error.exit_code, message=str(error), run_id=run_id)
        self._require_refused(outcome)
        return outcome

    def _require_refused(self, outcome: Outcome) -> None:
        run = self.world.one(f"SELECT * FROM prescore.runs WHERE run_id = {outcome.run_id}")
        assert run["status"] == outcome.status != "published"
        assert run["message"] == outcome.message
        assert run["ended_at"] is not None
        assert outcome.exit_code == {"held": 3, "aborted": 1, "failed": 1}[outcome.status]
        assert self._served() == self.before, "what is served changed"
        assert "still served" in outcome.message
        said = [
            outcome.message,
            self.log.text,
            *(row[0] for row in self.world.rows("SELECT reason FROM prescore.checks")),
        ]
        for text in said:
            assert MARKER not in text
            assert str(make_url(self.world.url).password or "no password") not in text
        staged = "SELECT count(*) FROM prescore_rows.items WHERE storage_id <> (SELECT storage_id FROM prescore.head)"
        if outcome.status != "failed":  # a failed run's rows are cleared by the next one
            assert self.world.rows(staged) == [(0,)]

    def _served(self) -> tuple[Any, Any]:
        rows = self.world.rows("SELECT id, as_of, scored_in, state, p FROM predictions.items ORDER BY id")
        return self.world.rows("SELECT generation_id, storage_id, watermark, rows FROM prescore.head"), rows

    @property
    def generation(self) -> int:
        generation: int = self.before[0][0][0]
        return generation

    def checks(self, outcome: Outcome) -> dict[str, str]:
        """Return the verdicts that the run stored, by check and subject."""
        found = self.world.rows(f"SELECT check_id, verdict FROM prescore.checks WHERE run_id = {outcome.run_id}")
        return dict(found)

    def listed(self, outcome: Outcome) -> list[Any]:
        """Run the SELECT that the message gives, and return its rows."""
        statement = re.search(r"SELECT .*? WHERE run_id = \d+", outcome.message)
        assert statement is not None, outcome.message
        return self.world.rows(statement.group())

    def publishes(self, **options: Any) -> Any:
        """The same run again, once the cause is mended, needs no repair."""
        summary = self.world.score(**options)
        assert summary.status.value == "published"
        assert summary.exit_code == 0
        return summary


@pytest.fixture(scope="module")
def _prepared(server_url: str, _template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with one good publication, copied for every test."""
    name = f"refusals_{uuid.uuid4().hex[:12]}"
    copy_database(server_url, name, _template)
    world = make_world(psql_url(server_url, name), tmp_path_factory.mktemp("prepared"), rows=None)
    world.execute(SOURCES)
    pipeline = make_pipeline(world, toml=PIPELINE_TOML, features=FEATURES_SQL, files={"model.py": MODEL_PY})
    make_model(world, pipeline, judge_of(pipeline))
    world.score()
    execute(server_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    yield name
    execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def refusals(server_url: str, _prepared: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Refusals]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    copy_database(server_url, name, _prepared)
    world = make_world(psql_url(server_url, name), tmp_path, rows=None)
    declare(world)
    caplog.set_level("DEBUG")
    yield Refusals(world, caplog)
    execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def declare(world: World, *, features: str = FEATURES_SQL, toml: str = PIPELINE_TOML, model: str = MODEL_PY) -> Any:
    return make_pipeline(world, toml=toml, features=features, files={"model.py": model})


def declared(world: World) -> Any:
    return load_pipeline(world.settings.pipelines_dir / "items")


def judge_of(pipeline: Any) -> Any:
    return pipeline.model_module().Judge()


def replace_view(world: World, query: str) -> None:
    world.execute(f"DROP VIEW public.traits; CREATE VIEW public.traits AS {query}")


TRAITS = "SELECT i.id, i.id AS owner, i.a, i.b / i.divisor AS b, i.c FROM public.items AS i"


FEATURES_OF = "SELECT b.id, b.as_of, t.a, t.b, t.c FROM batch AS b JOIN {} AS t ON t.id = b.id"
TOUCHED = "UPDATE public.items SET updated_at = clock_timestamp() WHERE id IN (1, 3, 200)"


# Queries that lose or multiply entities ----------------------------------------------------------------------------


def test_a_limit_that_hides_in_a_view_is_held_and_the_lost_entities_are_listed(refusals: Refusals) -> None:
    replace_view(refusals.world, f"{TRAITS} ORDER BY i.id LIMIT 300")

    outcome = refusals.score(full=True)

    assert outcome.status == "held"
    assert "rows.missing: 100 of 400 entities have no row in features.sql" in outcome.message
    assert "Look for a LIMIT in features.sql and the views it reads, or a join that drops entities." in outcome.message
    assert refusals.checks(outcome)["rows.missing"] == "fail"
    assert sorted(key["id"] for key, reason in refusals.listed(outcome) if reason == "no_features") == list(
        range(301, 401)
    )
    replace_view(refusals.world, TRAITS)
    assert refusals.publishes(full=True).scored == ENTITIES


def test_a_limit_that_hides_in_a_subquery_is_held(refusals: Refusals) -> None:
    declare(refusals.world, features=FEATURES_OF.format("(SELECT * FROM public.traits ORDER BY id LIMIT 300)"))

    outcome = refusals.score()

    assert outcome.status == "held"
    assert "100 of 400 entities have no row in features.sql" in outcome.message
    assert "100 of 400 entities were rejected (no_features 100), limit 10" in outcome.message


def test_a_limit_at_the_top_of_the_entity_query_is_refused_before_anything_is_read(refusals: Refusals) -> None:
    with pytest.raises(PrescoreError, match="has LIMIT, which leaves entities out without a word"):
        declare(refusals.world, toml=PIPELINE_TOML.replace("FROM public.members", "FROM public.members LIMIT 300"))
    with pytest.raises(PrescoreError, match="what is published is still served"):
        refusals.world.score()

    assert refusals.world.one("SELECT count(*) AS n FROM prescore.runs")["n"] == 1


def test_a_limit_that_hides_below_the_entity_query_is_held_when_the_population_shrinks(refusals: Refusals) -> None:
    limited = "FROM (SELECT id FROM public.members ORDER BY id LIMIT 150) AS m"
    declare(refusals.world, toml=PIPELINE_TOML.replace("FROM public.members", limited))

    outcome = refusals.score()

    assert outcome.status == "held"
    assert "population.size: 150 entities, 400 were served: less than 50% of them" in outcome.message
    assert "Look at what [entity] query returns now." in outcome.message


def test_a_join_that_drops_entities_is_held_beyond_ten_and_published_with_rejections_up_to_there(
    refusals: Refusals,
) -> None:
    refusals.world.execute("DELETE FROM public.extras WHERE id <= 11")
    replace_view(refusals.world, f"{TRAITS} JOIN public.extras USING (id)")

    outcome = refusals.score(full=True)

    assert outcome.status == "held"
    assert "rows.missing: 11 of 400 entities have no row in features.sql" in outcome.message
    assert {key["id"] for key, _ in refusals.listed(outcome)} == set(range(1, 12))

    refusals.world.execute("INSERT INTO public.extras VALUES (11)")
    summary = refusals.publishes(full=True)
    assert (summary.population, summary.scored, summary.rejected) == (400, 390, 10)
    row = refusals.world.one("SELECT * FROM predictions.items_for(3)")
    assert (row["state"], row["p"], row["reasons"][0]) == ("rejected", None, "rejected: no_features")


def test_entities_that_lose_their_features_between_two_incremental_runs_are_noticed(refusals: Refusals) -> None:
    refusals.world.execute(f"DELETE FROM public.extras WHERE id > 300; {TOUCHED}")
    replace_view(refusals.world, f"{TRAITS} JOIN public.extras USING (id)")

    outcome = refusals.score()

    assert outcome.status == "held"
    assert "rows.skipped: 100 of 397 skipped entities score otherwise at the same as_of" in outcome.message
    assert "Run `prescore score items --full`" in outcome.message


@pytest.mark.parametrize("full", [True, False])
def test_a_join_that_multiplies_entities_in_the_feature_query_fails_and_lists_them(
    refusals: Refusals, full: bool
) -> None:
    replace_view(refusals.world, f"{TRAITS} JOIN public.extras USING (id)")
    refusals.world.execute(f"INSERT INTO public.extras VALUES (1), (3), (3); {TOUCHED}")

    outcome = refusals.score(full=full)

    assert outcome.status == "failed"
    assert "features.sql returned 2 entities more than once; it must return exactly one row each" in outcome.message
    assert "Look for a join that multiplies rows" in outcome.message
    assert sorted((key["id"], reason) for key, reason in refusals.listed(outcome)) == [
        (1, "duplicate_features"),
        (3, "duplicate_features"),
    ]
    refusals.world.execute("DELETE FROM public.extras; INSERT INTO public.extras SELECT id FROM public.items")
    refusals.publishes(full=full)


def test_a_join_that_multiplies_entities_in_the_entity_query_fails_and_lists_them(refusals: Refusals) -> None:
    refusals.world.execute("INSERT INTO public.members VALUES (1), (3), (3)")

    outcome = refusals.score(full=True)

    assert outcome.status == "failed"
    assert "pipeline.toml [entity] query returned 2 entities more than once" in outcome.message
    assert sorted((key["id"], reason) for key, reason in refusals.listed(outcome)) == [
        (1, "duplicate_entity"),
        (3, "duplicate_entity"),
    ]


@pytest.mark.parametrize("more", ["(1), (3), (3)", "(7)", "(900), (900)"])
def test_an_incremental_run_does_not_publish_an_entity_twice(refusals: Refusals, more: str) -> None:
    """Of changed entities, of one that nothing else selects, of a new one."""
    refusals.world.execute(f"INSERT INTO public.items VALUES (900, 1, 1, 'x', 1, clock_timestamp()); {TOUCHED}")
    refusals.world.execute(f"INSERT INTO public.members VALUES {more}")

    outcome = refusals.score()

    assert outcome.status == "failed"
    assert "The ledger does not balance: the entity query returned" in outcome.message
    assert "Make pipeline.toml [entity] query return each id once" in outcome.message


def test_rows_of_entities_that_are_not_in_batch_are_aborted(refusals: Refusals) -> None:
    strangers = "UNION ALL SELECT id + 1000, as_of, 1, 1, 'x' FROM batch WHERE id = 1"
    declare(refusals.world, features=f"{FEATURES_SQL} {strangers}")

    outcome = refusals.score()

    assert outcome.status == "aborted"
    assert "rows.torn: 401 rows were written for 400 entities, 1 more" in outcome.message
    assert "Let features.sql return exactly one row for each (key, as_of) of batch." in outcome.message


@pytest.mark.parametrize(("full", "other"), [(True, 1200), (False, 201), (False, 1200)])
def test_as_many_rows_but_of_other_entities_are_aborted(refusals: Refusals, full: bool, other: int) -> None:
    """The count balances; only the checksum of the keys tells. 201 is an entity that is served and was not selected."""
    refusals.world.execute(TOUCHED)
    replace_view(
        refusals.world, TRAITS.replace("i.id AS owner", f"CASE i.id WHEN 200 THEN {other} ELSE i.id END AS owner")
    )

    outcome = refusals.score(full=full)

    assert outcome.status == "aborted"
    selected = 400 if full else 3
    assert f"rows.torn: {selected} rows were written, but for other entities than those to be scored" in outcome.message


# Queries and models that fail --------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False])
def test_a_feature_query_that_fails_halfway_leaves_nothing_behind(refusals: Refusals, full: bool) -> None:
    refusals.world.execute(f"UPDATE public.items SET divisor = 0 WHERE id = 200; {TOUCHED}")

    outcome = refusals.score(full=full)

    assert outcome.status == "failed"
    assert outcome.message.startswith("features.sql failed: division by zero.")
    assert "correct the query or the data, and run again" in outcome.message
    refusals.world.execute("UPDATE public.items SET divisor = 1")
    refusals.publishes(full=full)


def test_a_feature_query_that_fails_on_a_value_does_not_repeat_it(refusals: Refusals) -> None:
    replace_view(
        refusals.world,
        "SELECT id, id AS owner, a, CASE WHEN id = 200 THEN c::float8 ELSE b END AS b, c FROM public.items",
    )

    outcome = refusals.score(full=True)

    assert outcome.status == "failed"
    assert "invalid input syntax for type double precision: (value withheld)" in outcome.message


def test_a_feature_query_that_gives_a_null_for_a_key_is_refused(refusals: Refusals) -> None:
    few = "(SELECT * FROM public.traits WHERE id <> 5)"
    features = FEATURES_OF.format(few).replace("SELECT b.id", "SELECT t.id").replace("JOIN", "LEFT JOIN")
    declare(refusals.world, features=features)

    outcome = refusals.score()

    assert outcome.status == "failed"
    assert "features.sql: it returned a row with a NULL in id, as_of" in outcome.message
    assert "look at outer joins" in outcome.message


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(
    ("value", "where"),
    [("7e6", "items/model.py:preprocess raised ValueError"), ("8e6", "Model items raised ValueError")],
)
def test_a_model_or_preprocessing_that_raises_on_one_batch_fails_the_run_without_the_value(
    refusals: Refusals, value: str, where: str, full: bool
) -> None:
    refusals.world.execute(f"UPDATE public.items SET a = {value} WHERE id = 200; {TOUCHED}")

    outcome = refusals.score(full=full)

    assert outcome.status == "failed"
    assert f"{where} on a batch after 0 rows" in outcome.message
    assert "correct the pipeline, or promote an earlier model version" in outcome.message


# Models that are not what was registered ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE prescore.model_chunks SET data = set_byte(data, 1000, 255 - get_byte(data, 1000))",
        "UPDATE prescore.model_chunks SET data = data || '\\x00'",
        "DELETE FROM prescore.model_chunks",
    ],
)
def test_a_tampered_bundle_is_not_opened(refusals: Refusals, tampering: str) -> None:
    refusals.world.execute(tampering)

    outcome = refusals.score(full=True)

    assert outcome.status == "failed"
    assert re.match(r"Model items version 1 has the digest \w{12}, registered was \w{12}\.", outcome.message)
    assert "Nothing was loaded from it" in outcome.message
    assert "find out who changed prescore.model_chunks" in outcome.message


def test_a_bundle_with_a_type_outside_the_list_is_not_loaded_even_with_the_right_digest(refusals: Refusals) -> None:
    register_foreign(refusals.world, FunctionTransformer(os.getcwd))

    outcome = refusals.score(full=True)

    assert outcome.status == "failed"
    assert "The model file holds posix.getcwd, outside the types that prescore loads" in outcome.message
    assert "Nothing was loaded from it" in outcome.message


def register_foreign(world: World, estimator: Any) -> None:
    """Register and promote a version whose estimator nobody would have let in, past every check of registration."""
    pipeline = declared(world)
    with connect(world.url) as connection:
        good: Bundle = registry.load_bundle(connection, "items", 1, pipeline)
        data = dumps(replace(good, estimator_file=skops.io.dumps(estimator)))
        made = registry.register(connection, replace(good, digest=digest_of(data)), source="a test", data=data)
        registry.promote(connection, "items", made.version, "champion", "a test")
        connection.commit()


# Features that are not what the model was trained on ---------------------------------------------------------------


def test_a_column_that_disappeared_from_a_table_fails_by_name(refusals: Refusals) -> None:
    refusals.world.execute("DROP VIEW public.traits; ALTER TABLE public.items DROP COLUMN b")
    refusals.world.execute("CREATE VIEW public.traits AS SELECT id, id AS owner, a, c FROM public.items")

    outcome = refusals.score(full=True)

    assert outcome.status == "failed"
    assert "features.sql: PostgreSQL refuses it: column t.b does not exist" in outcome.message


def test_a_column_that_disappeared_from_the_feature_query_is_aborted_by_name(refusals: Refusals) -> None:
    declare(refusals.world, features=FEATURES_SQL.replace(" t.b,", ""))

    outcome = refusals.score()

    assert outcome.status == "aborted"
    expected = "schema: model items 1 expects 3 features, the feature query returns 2 (missing: b)"
    assert expected in outcome.message
    assert "Let features.sql return what the model expects" in outcome.message
    assert refusals.checks(outcome)["schema"] == "fail"


@pytest.mark.parametrize(
    ("postgres_type", "retyped"),
    [("text", "b (double precision to text)"), ("timestamptz", "b (double precision to timestamp")],
)
def test_a_column_that_was_given_another_type_is_aborted_by_name(
    refusals: Refusals, postgres_type: str, retyped: str
) -> None:
    using = "b::text" if postgres_type == "text" else "to_timestamp(b)"
    refusals.world.execute(
        f"DROP VIEW public.traits; ALTER TABLE public.items ALTER b TYPE {postgres_type} USING {using}"
    )
    refusals.world.execute("CREATE VIEW public.traits AS SELECT id, id AS owner, a, b, c FROM public.items")

    outcome = refusals.score(full=True)

    assert outcome.status == "aborted"
    assert f"(retyped: {retyped}" in outcome.message


def test_a_float_that_was_narrowed_to_real_or_numeric_is_the_same_to_the_model(refusals: Refusals) -> None:
    refusals.world.execute("DROP VIEW public.traits; ALTER TABLE public.items ALTER b TYPE numeric")
    refusals.world.execute("CREATE VIEW public.traits AS SELECT id, id AS owner, a, b, c FROM public.items")

    refusals.publishes(full=True)


def test_two_swapped_columns_of_one_type_are_found_by_the_golden_rows_and_named(refusals: Refusals) -> None:
    declare(refusals.world, features=FEATURES_SQL.replace("t.a, t.b", "t.b AS a, t.a AS b"))

    outcome = refusals.score()

    assert outcome.status == "aborted"
    assert "logic: the logic changed since training and gives other features for known rows: a, b" in outcome.message
    assert "Restore the query, or train on what it returns now." in outcome.message
    declare(refusals.world)
    refusals.publishes()


def test_preprocessing_that_changed_is_found_by_the_golden_rows(refusals: Refusals) -> None:
    changed = MODEL_PY.replace("    return frame\n", '    frame["a"] = frame["a"] * 2\n    return frame\n')
    declare(refusals.world, model=changed)

    outcome = refusals.score()

    assert outcome.status == "aborted"
    assert "model.golden: golden rows are not as recorded: preprocessed column a differs" in outcome.message
    assert "Promote another version of the model, or train again." in outcome.message


def test_a_feature_query_that_only_reads_otherwise_is_published_and_said(refusals: Refusals) -> None:
    declare(refusals.world, features=FEATURES_OF.format("(SELECT * FROM public.traits)"))

    summary = refusals.publishes()

    assert summary.mode is Mode.FULL
    assert summary.because == "invalidated: the logic of the pipeline changed"
    said = {finding.check_id: finding.reason for finding in summary.findings if finding.verdict.value == "warn"}
    assert said["logic"] == "the logic changed since training; 200 known rows have the same features"


# Populations that cannot be meant ----------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False])
def test_an_empty_population_is_held_unless_it_is_declared(refusals: Refusals, full: bool) -> None:
    refusals.world.execute("TRUNCATE public.members")

    outcome = refusals.score(full=full)

    assert outcome.status == "held"
    assert (
        "population.size: the population is empty; declare allow_empty = true in [entity] if that may be"
        in outcome.message
    )
    declare(refusals.world, toml=PIPELINE_TOML.replace("[features]", "allow_empty = true\n[features]"))
    assert refusals.publishes(full=full).population == 0


@pytest.mark.parametrize("full", [True, False])
def test_a_population_that_shrank_below_half_is_held_and_half_of_it_is_not(refusals: Refusals, full: bool) -> None:
    refusals.world.execute("DELETE FROM public.members WHERE id > 199")

    outcome = refusals.score(full=full)

    assert outcome.status == "held"
    assert "population.size: 199 entities, 400 were served: less than 50% of them" in outcome.message
    assert refusals.checks(outcome)["population.size"] == "fail"
    refusals.world.execute("INSERT INTO public.members VALUES (200)")
    assert refusals.publishes(full=full).population == 200


@pytest.mark.parametrize("full", [True, False])
def test_a_null_in_a_key_is_held(refusals: Refusals, full: bool) -> None:
    refusals.world.execute("INSERT INTO public.members VALUES (NULL)")

    outcome = refusals.score(full=full)

    assert outcome.status == "held"
    assert "population.size: 1 entities have a NULL in their key" in outcome.message
    assert "Look at what [entity] query returns now." in outcome.message


# Predictions that cannot be right ----------------------------------------------------------------------------------


def test_one_prediction_for_everybody_is_held_from_a_hundred_entities_on(refusals: Refusals) -> None:
    refusals.world.execute("UPDATE public.items SET a = 0, b = 0")

    outcome = refusals.score(full=True)

    assert outcome.status == "held"
    assert "outputs.constant p: all 400 predictions are the same" in outcome.message
    assert "Look at the features of a few entities" in outcome.message
    declare(refusals.world, toml=PIPELINE_TOML + "[coverage]\nshrink = 0.1\n")
    refusals.world.execute("DELETE FROM public.members WHERE id > 99")
    assert refusals.publishes(full=True).scored == 99


def test_a_few_predictions_that_are_no_number_are_rejected_and_many_are_held(refusals: Refusals) -> None:
    refusals.world.execute("UPDATE public.items SET a = 9e6 WHERE id <= 11")

    outcome = refusals.score(full=True)

    assert outcome.status == "held"
    assert "rows.rejected: 11 of 400 entities were rejected (non_finite:p 11), limit 10" in outcome.message
    assert "Mend what the reasons name" in outcome.message
    assert sorted((key["id"], reason) for key, reason in refusals.listed(outcome)) == [
        (n, "non_finite:p") for n in range(1, 12)
    ]
    assert refusals.checks(outcome)["outputs.non_finite"] == "warn"

    refusals.world.execute("UPDATE public.items SET a = 1 WHERE id = 11")
    summary = refusals.publishes(full=True)
    assert (summary.scored, summary.rejected) == (390, 10)
    listed = refusals.world.rows(f"SELECT key ->> 'id' FROM prescore.rejections WHERE run_id = {summary.run_id}")
    assert {int(row[0]) for row in listed} == set(range(1, 11))
    row = refusals.world.one("SELECT state, p, reasons FROM predictions.items WHERE id = 1")
    assert (row["state"], row["p"]) == ("rejected", None)
    assert "rejected: non_finite:p" in row["reasons"]
    assert refusals.world.rows("SELECT 1 FROM predictions.items_usable WHERE id <= 10") == []


# What every refused run keeps --------------------------------------------------------------------------------------


def test_every_check_of_a_refused_run_is_stored_with_what_it_found(refusals: Refusals) -> None:
    replace_view(refusals.world, f"{TRAITS} ORDER BY i.id LIMIT 300")

    outcome = refusals.score(full=True)

    stored = refusals.world.rows(
        f"SELECT check_id, code, class, observed, fail_limit, unit, n FROM prescore.checks WHERE run_id = {outcome.run_id}"
    )
    by_id = {row[0]: row[1:] for row in stored}
    assert by_id["rows.missing"] == ("R2", "guard", 100.0, 10.0, "entities", 400)
    assert {"schema", "logic", "model.golden", "model.age", "model.environment", "population.size", "rows.torn"} <= set(
        by_id
    )


def test_a_refused_run_before_the_first_publication_says_that_nothing_is_served(
    database_url: str, tmp_path: Path
) -> None:
    world = make_world(database_url, tmp_path, rows=None)
    world.execute(SOURCES)
    pipeline = declare(world)
    make_model(world, pipeline, judge_of(pipeline))
    world.execute("TRUNCATE public.members")

    summary = world.score()

    assert (summary.status.value, summary.exit_code) == ("held", 3)
    assert "nothing is served yet" in summary.message
    assert world.rows("SELECT * FROM predictions.items") == []
    assert world.one("SELECT state FROM predictions.items_for(1)")["state"] == "missing"


def test_the_command_says_a_held_run_on_its_streams_and_exits_with_3(refusals: Refusals) -> None:
    refusals.world.execute("UPDATE public.items SET a = 9e6 WHERE id <= 50")

    with levels_restored():
        done = CliRunner().invoke(app, ["score", "items", "--full"], env=environment_of(refusals))

    said = " ".join(done.output.split())
    assert done.exit_code == 3, said
    assert "50 of 400 entities were rejected (non_finite:p 50), limit 10" in said
    assert f"generation {refusals.generation} is still served" in said
    assert MARKER not in said


def test_the_command_says_a_failed_run_on_stderr_without_traceback_or_value_and_exits_with_1(
    refusals: Refusals,
) -> None:
    refusals.world.execute("UPDATE public.items SET a = 8e6 WHERE id = 200")
    command = [sys.executable, "-c", "from flows.cli import main; main()", "score", "items", "--full"]

    done = subprocess.run(
        command, env={**os.environ, **environment_of(refusals)}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1, done.stderr
    assert "prescore: Model items raised ValueError on a batch after 0 rows" in " ".join(done.stderr.split())
    assert done.stdout == ""
    for unwanted in (MARKER, "Traceback", str(make_url(refusals.world.url).password or "no password")):
        assert unwanted not in done.stderr


def environment_of(refusals: Refusals) -> dict[str, str]:
    return {
        "PRESCORE_DATABASE_URL": refusals.world.url,
        "PRESCORE_PIPELINES": str(refusals.world.settings.pipelines_dir),
        "COLUMNS": "1000",
    }


@contextmanager
def levels_restored() -> Iterator[None]:
    """The command sets levels of logging; the log of other tests shall not miss what it silences."""
    loggers = [logging.getLogger(name) for name in ("", "prescore", "tasks", "flows")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    try:
        yield
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers
