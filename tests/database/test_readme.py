"""The pipeline that the README builds is trained and scored, and every SQL example of the README is run against it."""

from __future__ import annotations

import json
import re
import shlex
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pglast import parse_sql
from pglast.stream import RawStream
from typer.testing import CliRunner

from flows.backfill import backfill
from flows.cli import app
from flows.train import train
from tasks.demo import pipeline_folder
from tasks.runs import Status
from tests import readme
from tests.conftest import execute, psql_url
from tests.factories import World, make_pipeline, make_world

#: Roles that the examples name. Roles belong to the server, so that each test has its own in their place.
ROLES = ("analyst", "prescore_runner", "watcher")


@pytest.fixture
def roles(server_url: str) -> Iterator[dict[str, str]]:
    """A login role for each one that the examples name."""
    made = {name: f"{name}_{uuid.uuid4().hex[:12]}" for name in ROLES}
    for role in made.values():
        execute(server_url, f"CREATE ROLE {role} LOGIN PASSWORD 'open'")
    yield made
    for role in made.values():
        execute(server_url, f"DROP ROLE {role}")


def _world(url: str, folder: Path, declaration: str) -> World:
    """The shop of the examples with the pipeline of the README, trained and scored by its own files."""
    world = make_world(url, folder, rows=None)
    world.execute(readme.SHOP)
    files = dict(readme.pipeline_files())
    if "[history]" not in declaration:  # which the examples of its section rest on
        declaration += '\n[history]\nkeep = "90d"\n'
    make_pipeline(
        world,
        "churn",
        toml=declaration,
        features=files.pop("features.sql"),
        changes=files.pop("changes.sql"),
        files=files,
    )
    train(world.settings, "churn")
    assert world.score("churn").status is Status.PUBLISHED
    assert backfill(world.settings, "churn", [datetime.now(UTC) - timedelta(hours=1)]).exit_code == 0
    return world


def _add_recommendations(world: World) -> None:
    """The pipeline of the lists that readers unfold, as prescore ships it."""
    shipped = {file.name: file.read_text() for file in pipeline_folder("recommendations").iterdir() if file.is_file()}
    toml, features, changes = (shipped.pop(name) for name in ("pipeline.toml", "features.sql", "changes.sql"))
    make_pipeline(world, "recommendations", toml=toml, features=features, changes=changes, files=shipped)
    train(world.settings, "recommendations")
    assert world.score("recommendations").status is Status.PUBLISHED


def _statements(roles: dict[str, str]) -> list[str]:
    """Every statement of the examples, one by one, with the roles of this test."""
    texts = [block.text for block in readme.statements()]
    for name, role in roles.items():
        texts = [re.sub(rf"\b{name}\b", role, text) for text in texts]
    return [RawStream()(statement) for text in texts for statement in parse_sql(text)]


def _send(cursor: Any, statement: str) -> list[dict[str, Any]]:
    cursor.execute(statement)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in (cursor.fetchall() if names else ())]


@pytest.mark.parametrize("declaration", readme.declarations(), ids=["short", "full"])
def test_the_pipeline_of_the_readme_is_served_and_every_example_runs(
    roles: dict[str, str], database_url: str, tmp_path: Path, declaration: str
) -> None:
    world = _world(database_url, tmp_path, declaration)
    _add_recommendations(world)
    statements = _statements(roles)
    reading = [statement for statement in statements if statement.startswith("SELECT")]
    granting = [statement for statement in statements if statement.startswith(("GRANT", "ALTER DEFAULT PRIVILEGES"))]
    assert len(reading) >= 8
    assert len(granting) >= 5

    with closing(psycopg2.connect(psql_url(database_url))) as owner, owner.cursor() as cursor:
        for statement in statements:
            if statement not in [*reading, *granting]:
                _send(cursor, statement)
                owner.rollback()
    for statement in granting:
        execute(database_url, statement)
    # What readers are told to send works with the rights that readers are told to have; the rest is for operators.
    reader_url = re.sub(r"//[^@]*@", f"//{roles['analyst']}:open@", psql_url(database_url))
    answers: dict[str, list[dict[str, Any]]] = {}
    for statement in reading:
        for_readers = ("predictions." in statement or "pipeline_health" in statement) and "shop." not in statement
        url = reader_url if for_readers else psql_url(database_url)
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            answers[statement] = _send(cursor, statement)

    def answer(part: str) -> list[dict[str, Any]]:
        return next(found for statement, found in answers.items() if part in statement)

    lookups = [found for statement, found in answers.items() if "42" in statement]
    assert len(lookups) == 3
    for found in lookups:
        assert [row["state"] for row in found] == ["fresh"]
        assert 0 <= found[0]["churn_probability"] <= 1
    scores = [row["churn_probability"] for row in answer("LIMIT 100")]
    assert len(scores) == 100
    assert scores == sorted(scores, reverse=True)
    health = answer("pipeline_health")
    assert sorted((row["pipeline"], row["state"], row["overdue"]) for row in health) == [
        ("churn", "fresh", False),
        ("recommendations", "fresh", False),
    ]
    places = answer("WITH ORDINALITY")
    assert [row["place"] for row in places] == list(range(1, 11))
    assert all(row["name"].startswith("Product ") for row in places)
    assert [row["score"] for row in places] == sorted((row["score"] for row in places), reverse=True)
    assert answer("17 = ANY")
    # What cannot be answered yet (of how much is usual, of labels to come) counts as nothing against anybody.
    assert {row["verdict"] for row in answer("prescore.checks")} <= {"pass", "skipped", "unknown"}
    of_churn = world.rows("SELECT effective FROM prescore.checks WHERE pipeline = 'churn'")
    assert {row[0] for row in of_churn} <= {"pass", "skipped"}
    assert [(row["version"], row["until"]) for row in answer("prescore.aliases")] == [(1, None)]
    columns = list(world.one("SELECT * FROM predictions.churn WHERE customer_id = 42"))
    assert columns == [name for name in _listed_columns() if name in columns]
    assert set(_listed_columns()) - set(columns) <= {"will_churn"}  # which the short declaration leaves out


def _listed_columns() -> list[str]:
    """The columns of the view in the order of the README's table."""
    table = [row for row in readme.rows(readme.section("Look up a prediction")) if len(row) == 2]
    first = next(at for at, row in enumerate(table) if row[0] == "the key")
    cells = [row[1] if row[0].startswith("the ") else row[0] for row in table[first:]]
    names = [re.findall(r"`([a-z_]+)`", cell) for cell in cells]
    return [names[0][-1], *(name for found in names[1:] for name in found)]


def test_what_operators_are_told_to_send_does_what_the_readme_says(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = _world(database_url, tmp_path, readme.declarations()[0])
    monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
    command = next(block.text for block in readme.shown("console") if "prescore quarantine" in block.text)
    listen = next(block.text for block in readme.statements() if "LISTEN" in block.text)
    reading = "SELECT state, churn_probability, scored_in FROM predictions.churn WHERE customer_id = 42"

    before = world.one(reading)
    _, *words = shlex.split(command.replace("812", str(before["scored_in"])))
    assert CliRunner().invoke(app, words).exit_code == 0
    hidden = world.one(reading)
    with closing(psycopg2.connect(psql_url(database_url))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(listen)
            world.score("churn", full=True)
            cursor.execute("SELECT 1")
        told = [(notice.channel, notice.payload) for notice in connection.notifies]
    again = world.one(reading)

    assert (hidden["state"], hidden["churn_probability"]) == ("quarantined", None)
    assert (again["state"], again["churn_probability"]) == ("fresh", before["churn_probability"])
    assert [(channel, json.loads(payload)["pipeline"]) for channel, payload in told] == [("prescore", "churn")]
