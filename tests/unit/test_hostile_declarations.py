"""Declarations that nobody should write: each is a pipeline or refused in words, and none of it becomes SQL unjudged."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st
from pglast import parse_sql

from tasks import features, population, readers
from tasks.checks import sources
from tasks.columns import Column
from tasks.database import load_query, quote
from tasks.errors import PipelineInvalid
from tasks.features import AS_OF, FeatureContract
from tasks.inspection import _Look
from tasks.pipeline import Pipeline, load_pipeline
from tasks.population import Served
from tasks.usersql import Severity, judge, judge_condition, read_query
from tasks.usersql.tree import plain

NOW = datetime(2026, 3, 1, tzinfo=UTC)

#: Names and texts that end a string, a name, a comment or a parenthesis, or that somebody could fill in.
NASTY = [
    "",
    " ",
    '"',
    '""',
    "'",
    "\\",
    "\\'",
    "$$",
    "$x$ y $x$",
    "$1",
    "?",
    "%s",
    "%(as_of)s",
    "100%",
    "{as_of}",
    "{}",
    "{{ ds }}",
    ":when",
    "--",
    "/*",
    "*/",
    ";",
    ")",
    "a) AS features; DROP TABLE public.items; --",
    '"; DROP TABLE public.items; --',
    "'; DROP TABLE public.items; --",
    "true) OR (true",
    'a"b',
    "a.b",
    'public."items"',
    "customerID",
    "user",
    "order",
    "select",
    "batch",
    "run",
    "since",
    "features",
    "entities",
    "served",
    "p",
    "as_of",
    "state",
    "NULL",
    "*",
    "ключ",
    "größe",
    "e\u0301",
    "\U0001f600",
    "\u202e",
    "\u200b",
    "\x1b[2J",
    "\x7f",
    "\x00",
    "line\nbreak",
    "\ttab\r",
    "x" * 63,
    "x" * 64,
    "ü" * 40,
    "../features.sql",
    "/etc/passwd",
    "~/.pgpass",
    "C:\\features.sql",
    "file:///etc/passwd",
    "link.sql",
    "loop.sql",
    "folder.sql",
    "./features.sql",
    "a/../../features.sql",
    "features.sql\x00",
    "model.py:__import__",
    "model.py:preprocess()",
    "os:system",
    "../model.py:preprocess",
    "26h",
    "-1h",
    "0 3 * * *",
    "@reboot",
    "Europe/Berlin",
    "../../etc/localtime",
]
nasty = st.sampled_from(NASTY) | st.text(max_size=10)

#: Queries to take apart: they are spliced with one another and with the texts above.
QUERIES = [
    "SELECT b.customer_id, b.as_of, c.age FROM batch AS b JOIN shop.customers AS c USING (customer_id)",
    "WITH x AS (SELECT 1 AS a) SELECT b.*, x.a FROM batch b, x -- the end",
    "SELECT customer_id FROM shop.customers, since WHERE updated_at > since.at UNION TABLE shop.more",
    "SELECT c.customer_id, run.as_of, 1 AS label FROM shop.customers c, run /* ) AS labels */",
    "VALUES (1, 'a'), (2, $q$b')$q$)",
    "SELECT 1; DROP TABLE public.items",
    "SELECT 1) AS features UNION ALL SELECT * FROM (SELECT 2",
    "WITH batch AS (SELECT 1) SELECT * FROM batch",
    "DELETE FROM public.items RETURNING *",
    "COPY public.items TO PROGRAM 'sh'",
    "SELECT * FROM batch FOR UPDATE",
    "SELECT set_config('role', 'postgres', false) FROM batch",
    "\\! sh",
]
PIECES = [
    *NASTY,
    *QUERIES,
    " FROM batch ",
    " UNION ",
    " WITH RECURSIVE ",
    " LIMIT 1 ",
    "E'\\''",
    'U&"\\0061"',
    " AS ",
    ",",
]


@st.composite
def spliced(draw: st.DrawFn) -> str:
    """A query with hostile pieces between some of its words."""
    words = draw(st.sampled_from(QUERIES)).split(" ")
    for _ in range(draw(st.integers(0, 3))):
        words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(PIECES)))
    return (
        draw(st.sampled_from(["", "\n", ";", "-- "]))
        + " ".join(words)
        + draw(st.sampled_from(["", ";", " -- x", "/*"]))
    )


# A folder --------------------------------------------------------------------------------------------------------------

SOUND: dict[str, Any] = {
    "description": "Of a test.",
    "entity": {"key": ["customer_id"], "query": "SELECT customer_id FROM shop.customers", "allow_empty": False},
    "features": {
        "query": "features.sql",
        "changes": "changes.sql",
        "preprocess": "model.py:preprocess",
        "valid_for": "1d",
    },
    "model": {"name": "churn", "alias": "champion", "warn_age": "30d", "golden": {"atol": 1e-6}},
    "predictions": {
        "score": {"method": "predict_proba", "class": "1", "index": True},
        "items": {"method": "recommend", "part": "items", "k": 10},
    },
    "training": {"labels": "labels.sql", "estimator": "model.py:build_model", "holdout": 0.2, "baseline": "age"},
    "schedule": {"timezone": "UTC", "full": "0 3 * * *", "incremental": ["*/15 * * * *"], "grace": "30m"},
    "serve": {"aging_after": "26h", "stale_after": "36h", "on_expired": "null"},
    "source": [
        {"name": "shop.orders", "watermark": "loaded_at", "filter": "region = 'EU'", "late_by": "5m", "zone": "UTC"},
        {"name": "shop.customers", "watermark": "updated_at", "rows": {"slot": "weekday", "warn": [0.9, 1.1]}},
    ],
    "logic": {"files": ["*.sql"]},
    "drift": {"persist": "2/3", "feature": {"age": {"warn": 0.2}}},
    "performance": {"metric": "auc", "sample": 0.1},
    "coverage": {"missing": [0.001, 0.01], "shrink": 0.5},
    "unknown": {"guard": "fail", "escalate_after": 3},
    "manual": {"may_waive": ["drift.*"], "lifetime": "2d"},
}
FILES = {
    "features.sql": QUERIES[0],
    "changes.sql": "SELECT customer_id FROM shop.customers, since WHERE updated_at > since.at",
    "labels.sql": QUERIES[3],
    "model.py": "def build_model():\n    return 1\n\n\ndef preprocess(frame):\n    return frame\n",
}

scalars = (
    nasty
    | spliced()
    | st.booleans()
    | st.sampled_from([0, -1, 2**63, -(2**63), 10**400, 1e308, float("nan"), float("inf"), -0.0])
    | st.sampled_from([date(1, 1, 1), NOW.replace(tzinfo=None), NOW, time(23, 59, 59, 999999)])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(nasty, inner, max_size=3), max_leaves=5
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something stands in a declaration, tables included."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        yield from paths(inner, (*path, key))


@st.composite
def declarations(draw: st.DrawFn) -> dict[str, Any]:
    """A sound declaration in which a few things were replaced, renamed, removed or added."""
    declared: dict[str, Any] = json.loads(json.dumps(SOUND))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(paths(declared))))
        table = declared
        for key in path[:-1]:
            table = table[key]
        action = draw(st.sampled_from(["replace", "replace", "add", "rename", "remove"]))
        if action == "replace" or not isinstance(table, dict):
            table[path[-1]] = draw(values)
        elif action == "add":
            table[draw(nasty)] = draw(values)
        else:
            moved = table.pop(path[-1])
            if action == "rename":
                table[draw(nasty)] = moved
    return declared


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        signs = (c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
        return f'"{"".join(signs)}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return value.isoformat() if isinstance(value, date | time) else str(value)


def document(declared: Mapping[str, Any]) -> str:
    return "\n".join(f"{toml(key)} = {toml(value)}" for key, value in declared.items())


@contextmanager
def folder_of(text: str, files: Mapping[str, str] = FILES) -> Iterator[Path]:
    """A pipeline's folder, with links and folders where files are expected, inside of one that is not to be read."""
    above = Path(tempfile.mkdtemp())
    try:
        folder = above / "churn"
        (folder / "folder.sql").mkdir(parents=True)
        (above / "features.sql").write_text("SECRET of the neighbour")
        (above / "model.py").write_text("raise SystemExit('SECRET')")
        (folder / "loop.sql").symlink_to("loop.sql")
        (folder / "link.sql").symlink_to("features.sql")
        for name, content in {**files, "pipeline.toml": text}.items():
            (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
        yield folder
    finally:
        shutil.rmtree(above)


def read_or_refused(text: str, files: Mapping[str, str] = FILES) -> Pipeline | None:
    """Return the pipeline, or None when it was refused as it has to be: by file and key, in words of ours."""
    with folder_of(text, files) as folder:
        there = {path.name for path in folder.iterdir()}
        try:
            return load_pipeline(folder)
        except PipelineInvalid as refused:
            problems, message = refused.problems, str(refused)
    assert problems
    assert "Nothing was run or changed" in message
    for problem in problems:
        pipeline, _, place = problem.place.partition("/")
        file, _, key = place.partition(" ")
        assert pipeline == "churn"
        assert os.path.normpath(file) in there
        assert key or file != "pipeline.toml"
        assert problem.message.strip()
        for alien in ("Traceback", "pydantic", "Input should", "validation error", "KeyError", "SECRET"):
            assert alien not in problem.message or alien in text
    assert all(sign.isprintable() for sign in message.replace("\n", ""))
    return None


def judged_declaration(declared: dict[str, Any]) -> None:
    event("a pipeline" if read_or_refused(document(declared)) else "refused")


def judged_files(features_sql: str, changes_sql: str, entity_query: str) -> None:
    declared = {**SOUND, "entity": {**SOUND["entity"], "query": entity_query}}
    files = {**FILES, "features.sql": features_sql, "changes.sql": changes_sql}
    event("a pipeline" if read_or_refused(document(declared), files) else "refused")


def test_the_sound_declaration_is_a_pipeline() -> None:
    assert read_or_refused(document(SOUND)) is not None


@settings(max_examples=120)
@given(declarations())
def test_a_hostile_declaration_is_a_pipeline_or_refused_by_file_and_key(declared: dict[str, Any]) -> None:
    judged_declaration(declared)


@settings(max_examples=60)
@given(spliced(), spliced(), nasty | spliced())
def test_hostile_queries_are_a_pipeline_or_refused_by_file_and_key(one: str, two: str, three: str) -> None:
    judged_files(one, two, three)


@pytest.mark.slow
@settings(max_examples=1_000, derandomize=False)
@given(declarations())
def test_many_hostile_declarations_are_pipelines_or_refused_by_file_and_key(declared: dict[str, Any]) -> None:
    judged_declaration(declared)


@pytest.mark.slow
@settings(max_examples=1_000, derandomize=False)
@given(spliced(), spliced(), nasty | spliced())
def test_many_hostile_queries_are_pipelines_or_refused_by_file_and_key(one: str, two: str, three: str) -> None:
    judged_files(one, two, three)


# What reaches the database --------------------------------------------------------------------------------------------

#: Statements around a query of a user: name of the file, name of its fragment, what the query is given.
AROUND = [
    ("describe_entities", "query", "run"),
    ("describe_features", "query", "batch"),
    ("describe_changes", "query", "since"),
    ("read_features_of_keys", "feature_query", "batch"),
    ("read_features_of_population", "feature_query", "batch"),
    ("read_features_of_population", "entity_query", "run"),
    ("read_population_keys", "entity_query", "run"),
    ("read_labels", "label_query", "run"),
    ("read_changes", "changes_query", "since"),
    ("summarise_population", "entity_query", "run"),
    ("summarise_population", "changes_query", "since"),
    ("select_entities", "entity_query", "run"),
    ("select_entities", "changes_query", "since"),
    ("select_gone", "entity_query", "run"),
    ("count_population", "entity_query", "run"),
    ("select_changed", "changes_query", "since"),
    ("select_changed_undue", "changes_query", "since"),
    ("read_fingerprints", "entity_query", "run"),
    ("read_fingerprints", "feature_query", "batch"),
    ("fence_features", "feature_query", "batch"),
    ("select_members", "entity_query", "run"),
    ("limit_rows", "query", "run"),
    ("list_duplicates", "query", "run"),
]
STAND_IN = "SELECT stand_in FROM batch, since"


def around(name: str, **fragments: str) -> str:
    """Return a statement of ours with these fragments, and something harmless for the others."""
    wanted = re.findall(r"\{([a-z_]+)\}", (resources.files("sql") / "queries" / f"{name}.sql").read_text())
    harmless = {each: "SELECT 1" if each.endswith("query") else "stand_in" for each in wanted}
    return load_query(name, {**harmless, **fragments})


def trees(text: str) -> list[Any]:
    """Return the tree of each statement of a text."""
    return [plain(statement.stmt) for statement in parse_sql(text)]


def replaced(node: Any, old: Any, new: Any) -> Any:
    """Return a tree with every occurrence of a part replaced; conditions that stand side by side are one AND again."""
    if node == old:
        return new
    if isinstance(node, list):
        return [replaced(item, old, new) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: replaced(value, old, new) for key, value in node.items()}
    if found.get("@") == "BoolExpr" and found["boolop"] == "AND_EXPR":
        parts = [
            part["args"] if isinstance(part, dict) and part.get("boolop") == "AND_EXPR" else [part]
            for part in found["args"]
        ]
        found["args"] = [part for several in parts for part in several]
    return found


def judged_alone_is_judged_within(text: str) -> None:
    """What passes the judgement is a subquery of the statement around it, and changes nothing else of it."""
    query = read_query(text, "any.sql")
    passed = 0
    for name, fragment, supplied in AROUND:
        if any(found.severity is Severity.ERROR for found in judge(query, supplied)):
            continue
        passed += 1
        expected = replaced(trees(around(name, **{fragment: STAND_IN})), trees(STAND_IN)[0], trees(query.text)[0])
        assert trees(around(name, **{fragment: query.text})) == expected, (name, query.text)
    event("passed" if passed else "refused")


def condition_alone_is_condition_within(text: str) -> None:
    if any(found.severity is Severity.ERROR for found in judge_condition(text)):
        event("refused")
        return
    event("passed")
    alone, stand_in = (trees(f"SELECT 1 WHERE (\n{each}\n)")[0]["whereClause"] for each in (text, "stand_in.condition"))
    for name in ("measure_source", "filter_source", "count_slice", "count_late", "count_absent_values"):
        expected = replaced(trees(around(name, condition="stand_in.condition")), stand_in, alone)
        assert trees(around(name, condition=text)) == expected, (name, text)


conditions = st.lists(
    st.sampled_from(
        [*NASTY, "a = 1", "x IN (SELECT 1)", " AND ", " OR ", "(", ")", "NOT ", "'x'", " -- so", "\n", "b > now()", "1"]
    ),
    max_size=5,
).map("".join)


@settings(max_examples=150)
@given(spliced() | nasty)
@example("SELECT 1) AS features UNION ALL SELECT * FROM (SELECT 2")
@example("SELECT b.id FROM batch b -- ) AS features")
@example("SELECT c.id FROM shop.customers c -- ) AS entities")
@example("SELECT id FROM since -- ) AS changes")
@example("SELECT $x$) AS features$x$, b.id FROM batch b /* /* */ ) */")
@example("SELECT E'\\') AS features; --', b.id FROM batch b")
def test_a_query_that_is_accepted_stays_within_its_parentheses(text: str) -> None:
    judged_alone_is_judged_within(text)


@settings(max_examples=150)
@given(conditions)
@example("true) OR (true")
@example("a = 1 -- so")
@example("a = 1 AND b = 2")
def test_a_condition_that_is_accepted_stays_within_its_parentheses(text: str) -> None:
    condition_alone_is_condition_within(text)


@pytest.mark.slow
@settings(max_examples=2_000, derandomize=False)
@given(spliced() | nasty, conditions)
def test_many_queries_and_conditions_that_are_accepted_stay_within_their_parentheses(
    query: str, condition: str
) -> None:
    judged_alone_is_judged_within(query)
    condition_alone_is_condition_within(condition)


class _Recorded(Exception):
    """Stops where a database would have to answer."""


class _Spy:
    """A session that keeps what it is asked and answers with what it was given."""

    def __init__(self, answers: Mapping[str, pa.Table]) -> None:
        self.statements: list[str] = []
        self._answers = answers

    def table(self, statement: str, what: str = "", *, copy: bool = True) -> pa.Table:
        self.statements.append(statement)
        for words, answer in self._answers.items():
            if words in statement:
                return answer
        raise _Recorded


def statements_of(pipeline: Pipeline, names: list[str]) -> list[str]:
    """Return the statements that a pipeline would send: those that describe, select, read, look at sources, and create."""
    found: list[str] = []
    key = tuple(Column(name=name, postgres_type="text") for name in pipeline.entity.key)
    contract = FeatureContract(key=key, features=tuple(Column(name=name, postgres_type="numeric") for name in names))
    keys = pa.table({**{c.name: ["'};--"] for c in key}, AS_OF.name: pa.array([NOW], AS_OF.arrow_type)})

    def describe(_: Any, statement: str, query: Any) -> Any:
        found.append(statement)
        columns = [
            *((c.name, "text") for c in key),
            (AS_OF.name, AS_OF.postgres_type),
            *((n, "numeric") for n in names),
        ]
        return [features._Described(name=n, postgres_type=t, typtype="b") for n, t in columns]

    connection: Any = None
    with (
        mock.patch.object(features, "_describe", describe),
        mock.patch.object(readers, "raw_execute", lambda _, statement: found.append(statement)),
    ):
        assert features.describe(connection, pipeline) == contract
        features.describe_changes(connection, pipeline)
        output = Column(name="score", postgres_type="double precision")
        objects = readers.Objects(pipeline=pipeline.name, key=key, outputs=(output,))
        readers.create(connection, pipeline, objects, {"score": pipeline.predictions[0].class_ or ""})
    found.append(features.read_population_sql(pipeline, contract, NOW))
    found.append(features.read_keys_sql(pipeline, contract, keys))
    spy: Any = _Spy({"pg_attribute": pa.table({"type": ["timestamp without time zone"]})})
    served = Served(
        storage_id=1,
        generation_id=1,
        watermark=NOW,
        model_version=1,
        model="churn",
        logic_digest="",
        valid_since=1,
        rows=1,
        key_checksum=Decimal(0),
        quarantined=(),
    )
    look = _Look(session=spy, pipeline=pipeline, contract=contract, now=NOW)
    (source,) = pipeline.sources
    evidence: Any = SimpleNamespace(session=spy, sources=spy, snapshot=SimpleNamespace(as_of=NOW, clock_at=NOW))
    counted: Any = SimpleNamespace(unchanged=0, gone=1, named=None, changes=None)
    for call in (
        lambda: population.summarise(spy, pipeline, contract, NOW, served, ""),
        lambda: population.select(spy, pipeline, contract, NOW, served, counted, 1),
        lambda: spy.table(population.population_keys(spy, pipeline, key, NOW)),
        lambda: sources._measured(evidence, source),
        lambda: look.at_source(source),
    ):
        with pytest.raises(_Recorded):
            call()
    return found + list(spy.statements)


def declared_with(names: Mapping[str, str]) -> str:
    """Return a declaration in which each part has its name; queries quote them as a careful user would."""
    keys = [names["key one"], names["key two"]]
    selected = ", ".join(f"1 AS {quote(key)}" for key in keys)
    return document(
        {
            "description": names["description"],
            "entity": {"key": keys, "query": f"SELECT {selected} FROM run"},
            "features": {
                "query": f"SELECT b.*, 1 AS {quote(names['feature'])} FROM batch AS b",
                "changes": f"SELECT {selected} FROM since",
            },
            "predictions": {"score": {"method": "predict_proba", "class": names["class"], "index": True}},
            "source": [
                {
                    "name": f"{names['schema']}.{names['table']}",
                    "watermark": names["watermark"],
                    "zone": "UTC",
                    "filter": f"{quote(names['column'])} IS NOT NULL",
                }
            ],
        }
    )


PARTS = ("description", "key one", "key two", "feature", "class", "schema", "table", "watermark", "column")
BENIGN = {part: "stand_in_" + part.replace(" ", "_") for part in PARTS}


@settings(max_examples=80)
@given(st.lists(nasty, min_size=len(PARTS), max_size=len(PARTS), unique=True))
def test_a_declared_name_is_that_name_in_every_statement_and_nothing_else(chosen: list[str]) -> None:
    """Trees of statements are the same as for harmless names, but for the names themselves."""
    names_are_themselves(dict(zip(PARTS, chosen, strict=True)))


@pytest.mark.slow
@settings(max_examples=1_000, derandomize=False)
@given(st.lists(nasty, min_size=len(PARTS), max_size=len(PARTS), unique=True))
def test_many_declared_names_are_those_names_in_every_statement(chosen: list[str]) -> None:
    names_are_themselves(dict(zip(PARTS, chosen, strict=True)))


def names_are_themselves(names: dict[str, str]) -> None:
    # A refused name is not what this is about: it is made acceptable, and stays hostile.
    for part in PARTS:
        cleaned = names[part].replace("\x00", "").replace(":", "").encode()[:50].decode("utf-8", "ignore")
        names[part] = f"{cleaned or 'x'} {PARTS.index(part)}"
        if part in {"schema", "table"}:
            names[part] = names[part].replace(".", "").replace('"', "")
    hostile, harmless = read_or_refused(declared_with(names)), read_or_refused(declared_with(BENIGN))
    assume(hostile is not None)
    assert hostile is not None
    assert harmless is not None
    back = {names[part]: BENIGN[part] for part in PARTS}
    back[relation_of(names)] = relation_of(BENIGN)
    sent, expected = statements_of(hostile, [names["feature"]]), statements_of(harmless, [BENIGN["feature"]])
    for one, other in zip(sent, expected, strict=True):
        assert renamed(trees(one), back) == trees(other)
    assert len(sent) > 40


def relation_of(names: Mapping[str, str]) -> str:
    return f"{quote(names['schema'])}.{quote(names['table'])}"


def renamed(node: Any, back: Mapping[str, str]) -> Any:
    """Return a tree whose names and texts are translated where they are exactly one of those."""
    if isinstance(node, dict):
        return {key: renamed(value, back) for key, value in node.items()}
    if isinstance(node, list):
        return [renamed(item, back) for item in node]
    return back.get(node, node) if isinstance(node, str) else node
