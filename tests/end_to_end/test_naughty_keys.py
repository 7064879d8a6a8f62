"""Keys and features as the world has them: hostile text, every type of a key, the ends of every range, holes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import pyarrow.parquet as pq
import pytest

from flows.score import RunSummary
from tasks.errors import PrescoreError
from tasks.pipeline import load_pipeline
from tasks.population import Mode
from tasks.runs import Status
from tests.conftest import psql_url
from tests.factories import World, make_model, make_pipeline, make_regressor, make_world

#: The big list of naughty strings (see the README): a Parquet file with a column ``value``.
LIST = Path(
    os.environ.get("PRESCORE_NAUGHTY_STRINGS")
    or Path(__file__).parents[3] / "shared" / "data" / "naughty_strings" / "strings.parquet"
)

NASTY = [
    "",
    " ",
    "  two  ",
    "NULL",
    "null",
    "None",
    "nan",
    "Infinity",
    "0",
    "-1",
    "007",
    "1e309",
    "true",
    "{}",
    "{a,b}",
    "{NULL}",
    "[]",
    '"',
    '""',
    "'",
    "''",
    "\\",
    "\\\\",
    '\\"',
    "\\N",
    "\\.",
    "a,b",
    "a;b",
    "\n",
    "\t",
    "\r\n",
    "\x01",
    "\x1b[31m",
    "\x7f",
    "\u2028",
    "\ufeff",
    "é",
    "e\u0301",
    "ß",
    "SS",
    "ı",
    "😀",
    "👩‍👩‍👧",
    "\u202eabc",
    "\u200b",
    "ｆｕｌｌ",
    "𝕋𝕙𝕖",
    "مرحبا",
    "Ω≈ç√∫",
    "田中さん",
    "'); DROP TABLE prescore.head; --",
    "1 OR 1=1",
    "%",
    "%s",
    "%(a)s",
    "%%",
    ":when",
    "::text",
    "$1",
    "${HOME}",
    "{key}",
    "--",
    "/*",
    "E'\\n'",
    "$$",
    "$a$b$a$",
    "<script>",
    "../../etc/passwd",
    "x" * 2_000,
    "\uffff",
    "a\u0000b".replace("\u0000", "\\u0000"),
]

WORDS_TOML = """
[entity]
key = ["word"]
query = "SELECT word FROM public.words"
[features]
query = "features.sql"
changes = "changes.sql"
[predictions]
p = { method = "predict" }
"""
WORDS_FEATURES = "SELECT w.word, b.as_of, w.a FROM batch AS b JOIN public.words AS w ON w.word = b.word"
WORDS_CHANGES = "SELECT word FROM public.words, since WHERE updated_at > since.at"


def insert(world: World, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    with closing(psycopg2.connect(psql_url(world.url))) as connection, connection, connection.cursor() as cursor:
        psycopg2.extras.execute_values(cursor, statement, rows)


def ask(world: World, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(psql_url(world.url))) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def require_published(summary: RunSummary) -> RunSummary:
    assert summary.status is Status.PUBLISHED, summary.message
    return summary


def survive(world: World, naughty: list[str]) -> None:
    """Take keys through a full run, samples, lookups, an incremental run, rejections, and out again."""
    assert len(naughty) == len(set(naughty))
    filler = [f"plain {n}" for n in range(len(naughty) * 6)]
    world.execute(
        "CREATE TABLE public.words (word text PRIMARY KEY, a double precision, is_naughty boolean NOT NULL, "
        "updated_at timestamptz NOT NULL DEFAULT statement_timestamp() - interval '1 hour')"
    )
    insert(
        world,
        "INSERT INTO public.words (word, a, is_naughty) VALUES %s",
        [(word, float(n), word in set(naughty)) for n, word in enumerate([*naughty, *filler], 1)],
    )
    pipeline = make_pipeline(world, "words", toml=WORDS_TOML, features=WORDS_FEATURES, changes=WORDS_CHANGES)
    # Fitted on all of them: their column counts up, so that those after a sample would lie outside of its range.
    make_model(world, pipeline, fit=bare_regression, sample_rows=10_000)

    require_published(world.score("words"))
    assert wrong(world) == 0
    for word, state, p, a in ask(
        world, "SELECT w.word, f.state, f.p, w.a FROM public.words AS w, LATERAL predictions.words_for(w.word) AS f "
        "WHERE w.is_naughty", (),
    ):  # fmt: skip
        assert state == "fresh", repr(word)
        assert p == pytest.approx(a)
    samples = "SELECT key ->> 'word', (predictions ->> 'p')::float8 FROM prescore.prediction_samples"
    sampled = dict(ask(world, samples, ()))
    assert set(sampled) & set(naughty)
    assert set(sampled) <= {*naughty, *filler}

    # Every naughty key travels as a literal: changed, then gone, then new.
    world.execute("UPDATE public.words SET a = a + 0.5, updated_at = clock_timestamp() WHERE is_naughty")
    changed = require_published(world.score("words"))
    assert (changed.mode, changed.changed, changed.scored) == (Mode.INCREMENTAL, len(naughty), len(naughty))
    assert wrong(world) == 0
    world.execute("CREATE TABLE public.kept AS SELECT * FROM public.words; DELETE FROM public.words WHERE is_naughty")
    gone = require_published(world.score("words"))
    assert (gone.mode, gone.gone, gone.scored) == (Mode.INCREMENTAL, len(naughty), 0)
    states = "SELECT f.state, count(*) FROM public.kept AS k, LATERAL predictions.words_for(k.word) AS f"
    assert ask(world, f"{states} WHERE k.is_naughty GROUP BY 1", ()) == [("missing", len(naughty))]
    world.execute("INSERT INTO public.words SELECT * FROM public.kept WHERE is_naughty")
    new = require_published(world.score("words"))
    assert (new.mode, new.new, new.scored) == (Mode.INCREMENTAL, len(naughty), len(naughty))
    assert wrong(world) == 0

    # The model raises on NULL, so every naughty key is rejected, listed, and not published: they are many.
    world.execute("UPDATE public.words SET a = NULL, updated_at = clock_timestamp() WHERE is_naughty")
    held = world.score("words")
    assert (held.status, held.rejected) == (Status.HELD, len(naughty))
    listed = f"SELECT key ->> 'word', reason FROM prescore.rejections WHERE run_id = {held.run_id}"
    assert sorted(ask(world, listed, ())) == sorted((word, "null:a") for word in naughty)


def wrong(world: World) -> int:
    """Count the keys that only one side has, or whose prediction is not the feature that the model repeats."""
    return int(world.rows(
        "SELECT count(*) FROM public.words AS w FULL JOIN predictions.words AS p USING (word) "
        "WHERE (p.state = 'fresh' AND abs(p.p - w.a) < 1e-6) IS NOT TRUE"
    )[0][0])  # fmt: skip


def bare_regression(_: Any, frame: Any) -> Any:
    """A model that repeats its one feature, and raises on NULL."""
    from sklearn.linear_model import LinearRegression

    return LinearRegression().fit(frame, frame["a"])


def test_nasty_text_survives_as_a_key_on_every_way_through(database_url: str, tmp_path: Path) -> None:
    survive(make_world(database_url, tmp_path, rows=None), NASTY)


@pytest.mark.skipif(
    not LIST.is_file(), reason=f"the big list of naughty strings is not at {LIST} (PRESCORE_NAUGHTY_STRINGS)"
)
def test_the_big_list_of_naughty_strings_survives_as_keys_on_every_way_through(
    database_url: str, tmp_path: Path
) -> None:
    values = pq.read_table(LIST, columns=["value"]).column("value").to_pylist()

    survive(make_world(database_url, tmp_path, rows=None), sorted(set(values)))


def test_nasty_text_is_looked_up_by_its_value_as_any_client_sends_it(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path, rows=None)
    world.execute(
        "CREATE TABLE public.words (word text PRIMARY KEY, a double precision, updated_at timestamptz DEFAULT now())"
    )
    insert(world, "INSERT INTO public.words (word, a) VALUES %s", [(word, float(n)) for n, word in enumerate(NASTY)])
    pipeline = make_pipeline(world, "words", toml=WORDS_TOML, features=WORDS_FEATURES, changes=WORDS_CHANGES)
    make_regressor(world, pipeline)
    world.score("words")

    for n, word in enumerate(NASTY):
        (found,) = ask(world, "SELECT word, state, p FROM predictions.words_for(%s)", (word,))
        assert found == (word, "fresh", pytest.approx(n, abs=1e-6))
        assert ask(world, "SELECT word FROM predictions.words WHERE word = %s", (word,)) == [(word,)]
    # Fewer than a thousand entities: every one of them is in the sample.
    samples = world.rows("SELECT key ->> 'word' FROM prescore.prediction_samples")
    assert sorted(row[0] for row in samples) == sorted(NASTY)


# Every type of a key -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class KeyCase:
    """A key, and rows of it at the ends of its range."""

    #: Column -> SQL type.
    columns: dict[str, str]
    #: Column -> expression over x (1 to 60): the ordinary rows.
    ordinary: list[str]
    #: Rows of literals at the ends of the range; at least three.
    ends: list[tuple[str, ...]]


UUID = "('00000000-0000-4000-8000-' || lpad(x::text, 12, '0'))::uuid"
CASES = {
    "smallint": KeyCase(columns={"id": "smallint"}, ordinary=["x"], ends=[("'-32768'",), ("32767",), ("0",)]),
    "integer": KeyCase(columns={"id": "integer"}, ordinary=["x"], ends=[("'-2147483648'",), ("2147483647",), ("0",)]),
    "bigint": KeyCase(
        columns={"id": "bigint"}, ordinary=["x"],
        ends=[("'-9223372036854775808'",), ("9223372036854775807",), ("9007199254740993",), ("9007199254740992",)],
    ),
    "uuid": KeyCase(
        columns={"id": "uuid"}, ordinary=[UUID],
        ends=[("'00000000-0000-0000-0000-000000000000'",), ("'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'",),
              ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",)],
    ),
    "date": KeyCase(
        columns={"id": "date"}, ordinary=["date '1999-12-01' + x"],
        ends=[("'0001-01-01'",), ("'1969-12-31'",), ("'1970-01-01'",), ("'9999-12-31'",)],
    ),
    "varchar": KeyCase(columns={"id": "varchar(20)"}, ordinary=["'k' || x"], ends=[("'a b '",), ("'a b'",), ("''",)]),
    "enum": KeyCase(columns={"id": "public.size"}, ordinary=[], ends=[("'so so'",), ("'L'",), ("'NULL'",), ("'XL'",)]),
    "text and date": KeyCase(
        columns={"shop": "text", "day": "date"}, ordinary=["'s' || x % 7", "date '2024-01-01' + x"],
        ends=[("'it''s'", "'1969-12-31'"), ("''", "'1969-12-31'"), ("''", "'1970-01-01'"), ("'NULL'", "'2024-02-29'")],
    ),
    "uuid and bigint": KeyCase(
        columns={"session": "uuid", "hit": "bigint"}, ordinary=[UUID, "x"],
        ends=[("'ffffffff-ffff-ffff-ffff-ffffffffffff'", "9223372036854775807"),
              ("'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'-1'"), ("'00000000-0000-0000-0000-000000000000'", "0")],
    ),
    "mixed case and words of SQL": KeyCase(
        columns={"customerID": "smallint", "select": "text", "from": "integer"}, ordinary=["x", "'s' || x", "x * 2"],
        ends=[("1", "'S1'", "2"), ("1", "'s1'", "3"), ("'-1'", "'\"'", "0")],
    ),
    "names that nobody should choose": KeyCase(
        columns={"a b": "integer", 'quo"te': "text", "per%cent {x}": "date"},
        ordinary=["x", "'s' || x", "date '2024-01-01' + x"],
        ends=[("1", "'S1'", "'2024-01-02'"), ("0", "'\"'", "'2024-01-02'"), ("'-1'", "''", "'2024-01-02'")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_every_type_of_a_key_goes_through_full_incremental_and_gone(
    database_url: str, tmp_path: Path, case: KeyCase
) -> None:
    world = make_world(database_url, tmp_path, rows=None)
    names = ['"' + name.replace('"', '""') + '"' for name in case.columns]
    definitions = ", ".join(f"{name} {kind}" for name, kind in zip(names, case.columns.values(), strict=True))
    world.execute(
        "CREATE TYPE public.size AS ENUM ('so so', 'L', 'XL', 'NULL', "
        + ", ".join(f"'s{n}'" for n in range(1, 61))
        + f"); CREATE TABLE public.things ({definitions}, a double precision, is_end boolean, updated_at timestamptz, "
        f"PRIMARY KEY ({', '.join(names)}))"
    )
    ordinary = ", ".join(case.ordinary) or "('s' || x)::public.size"
    world.execute(
        f"INSERT INTO public.things SELECT {ordinary}, x, false, now() - interval '1 hour' FROM generate_series(1, 60) AS x"
    )
    ends = ", ".join(
        f"({', '.join(row)}, {100 + n}, true, now() - interval '1 hour')" for n, row in enumerate(case.ends)
    )
    world.execute(f"INSERT INTO public.things VALUES {ends}")
    listed, of_things = ", ".join(names), ", ".join(f"t.{name}" for name in names)
    matches = " AND ".join(f"t.{name} = b.{name}" for name in names)
    if case.columns == {"id": "public.size"}:
        matches = "t.id::text = b.id"  # an enum travels as text
    toml = (
        f"[entity]\nkey = {json.dumps(list(case.columns))}\nquery = {json.dumps(f'SELECT {listed} FROM public.things')}\n"
        '[features]\nquery = "features.sql"\nchanges = "changes.sql"\n[predictions]\np = { method = "predict" }\n'
    )
    pipeline = make_pipeline(
        world,
        "things",
        toml=toml,
        features=f"SELECT {of_things}, b.as_of, t.a FROM batch AS b JOIN public.things AS t ON {matches}",
        changes=f"SELECT {listed} FROM public.things, since WHERE updated_at > since.at",
    )
    make_regressor(world, pipeline)
    n = len(case.ends)

    full = require_published(world.score("things"))
    assert full.scored == 60 + n
    assert_all_fresh(world, names)

    world.execute("UPDATE public.things SET a = a + 0.5, updated_at = clock_timestamp() WHERE is_end")
    changed = require_published(world.score("things"))
    assert (changed.mode, changed.changed, changed.new, changed.gone) == (Mode.INCREMENTAL, n, 0, 0)
    assert_all_fresh(world, names)

    world.execute("CREATE TABLE public.kept AS SELECT * FROM public.things; DELETE FROM public.things WHERE is_end")
    gone = require_published(world.score("things"))
    assert (gone.mode, gone.gone, gone.scored) == (Mode.INCREMENTAL, n, 0)
    arguments = ", ".join(f"k.{name}" for name in names)
    if case.columns == {"id": "public.size"}:
        arguments = "k.id::text"
    states = f"SELECT DISTINCT f.state FROM public.kept AS k, LATERAL predictions.things_for({arguments}) AS f WHERE k.is_end"
    assert world.rows(states) == [("missing",)]
    assert_all_fresh(world, names)

    world.execute("INSERT INTO public.things SELECT * FROM public.kept WHERE is_end")
    new = require_published(world.score("things"))
    assert (new.mode, new.new) == (Mode.INCREMENTAL, n)
    assert world.rows(states) == [("fresh",)]
    assert_all_fresh(world, names)


def assert_all_fresh(world: World, names: list[str]) -> None:
    """Both sides have the same keys, and each key the prediction of its own row."""
    matches = " AND ".join(f"t.{name}::text = p.{name}::text" for name in names)
    assert world.rows(
        f"SELECT t.*, p.* FROM public.things AS t FULL JOIN predictions.things AS p ON {matches} "
        "WHERE (p.state = 'fresh' AND abs(p.p - t.a) < 1e-6) IS NOT TRUE"
    ) == []  # fmt: skip


@pytest.mark.parametrize("name", ["state", "storage_id", "max_stale", "ctid", "why", "is_hidden", "a :b", "x" * 64])
def test_a_key_whose_name_prescore_or_postgres_uses_itself_is_refused_by_name(tmp_path: Path, name: str) -> None:
    world = make_world("postgresql://nobody@localhost/nothing", tmp_path, rows=None)
    toml = WORDS_TOML.replace('key = ["word"]', f"key = {json.dumps([name])}")

    with pytest.raises(PrescoreError, match=r"\[entity\] key: .*" + name[:10]):
        make_pipeline(world, "words", toml=toml, features=WORDS_FEATURES, changes=WORDS_CHANGES)


# Every kind of feature ---------------------------------------------------------------------------------------------

TRAITS = """
CREATE TABLE public.traits (
    id bigint PRIMARY KEY, ratio double precision, small real, price numeric(12, 2), big numeric, visits integer, level smallint,
    total bigint, active boolean, born date, seen timestamptz, local_at timestamp, country varchar(2), token uuid,
    updated_at timestamptz NOT NULL DEFAULT now() - interval '1 hour'
);
INSERT INTO public.traits
SELECT x, x / 7.0, x / 4.0, x * 1.25, x * 1e6, x, x % 100, x::bigint * 1000, x % 2 = 0, date '1960-01-01' + x,
       timestamptz '1969-12-31 12:00+00' + x * interval '1 hour', timestamp '1969-12-31 12:00' + x * interval '1 hour',
       (ARRAY['de', 'fr', ''])[1 + x % 3], ('00000000-0000-4000-8000-' || lpad(x::text, 12, '0'))::uuid
FROM generate_series(1, 300) AS x;
"""
COLUMNS = "ratio, small, price, big, visits, level, total, active, born, seen, local_at, country, token"
TRAITS_TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.traits"
[features]
query = "features.sql"
changes = "changes.sql"
preprocess = "model.py:preprocess"
[predictions]
p = { method = "predict" }
"""
#: Refuses any other dtypes than those of the type table, whatever the batch holds, and makes numbers of all columns.
TRAITS_PY = """
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin

WANTED = {**dict.fromkeys(
    ["ratio", "small", "price", "big", "visits", "level", "total", "active"], "float64"),
    **dict.fromkeys(["as_of", "born", "seen", "local_at"], "datetime64[us, UTC]"), "country": "object", "token": "object"}

def preprocess(frame):
    found = {name: str(dtype) for name, dtype in frame.dtypes.items()}
    if found != WANTED:
        raise TypeError(found)
    made = frame[["ratio", "small", "price", "big", "visits", "level", "total", "active"]].copy()
    for name in ("born", "seen", "local_at"):
        made[name] = (frame[name] - pd.Timestamp("1970-01-01", tz="UTC")).dt.total_seconds() / 86400
    for name in ("country", "token"):
        made[name] = frame[name].map(lambda text: np.nan if text is None else float(len(text)))
    return made

class Total(RegressorMixin, BaseEstimator):
    def fit(self, frame, target=None):
        self.feature_names_in_ = np.array(frame.columns, dtype=object)
        return self

    def predict(self, frame):
        return frame.fillna(0.0).sum(axis=1).to_numpy()
"""
#: What Total says of a row, computed by PostgreSQL: NULL, NaN and infinite times count as nothing.
TOTAL = """
SELECT id, coalesce(nullif(ratio, 'NaN'), 0) + coalesce(nullif(small, 'NaN'), 0) + coalesce(price, 0)::float8
           + coalesce(nullif(big, 'NaN'), 0)::float8 + coalesce(visits, 0) + coalesce(level, 0) + coalesce(total, 0)::float8
           + coalesce(active::integer, 0) + coalesce(CASE WHEN isfinite(born) THEN born - date '1970-01-01' END, 0)
           + coalesce(CASE WHEN isfinite(seen) THEN extract(epoch FROM seen) / 86400 END, 0)::float8
           + coalesce(CASE WHEN isfinite(local_at) THEN extract(epoch FROM local_at) / 86400 END, 0)::float8
           + coalesce(length(country), 0) + coalesce(length(token::text), 0)
FROM public.traits ORDER BY id
"""


@pytest.fixture
def traits(database_url: str, tmp_path: Path) -> World:
    world = make_world(database_url, tmp_path, rows=None)
    world.execute(TRAITS)
    features = f"SELECT t.id, b.as_of, {COLUMNS} FROM batch AS b JOIN public.traits AS t ON t.id = b.id"
    changes = "SELECT id FROM public.traits, since WHERE updated_at > since.at"
    pipeline = make_pipeline(
        world, "traits", toml=TRAITS_TOML, features=features, changes=changes, files={"model.py": TRAITS_PY}
    )
    make_model(world, pipeline, fit=lambda _, frame: pipeline.model_module().Total().fit(frame))  # type: ignore[union-attr]
    return world


def scores(world: World) -> dict[int, Any]:
    return dict(world.rows("SELECT id, p FROM predictions.traits ORDER BY id"))


def test_every_kind_of_feature_is_seen_alike_by_a_full_run_and_by_an_incremental_one_of_one_row(traits: World) -> None:
    require_published(traits.score("traits"))
    assert scores(traits) == pytest.approx(dict(traits.rows(TOTAL)), rel=1e-12)
    ends = {
        1: ", ".join(f"{name} = NULL" for name in COLUMNS.split(", ")),
        2: "visits = NULL, active = NULL, level = NULL, total = NULL",
        3: "born = '0001-01-01', seen = '0001-01-01 00:00+00', local_at = '1583-10-10 12:00:00.000001'",
        4: "born = '-infinity', seen = 'infinity', local_at = 'infinity'",
        5: "price = -9999999999.99, total = 9007199254740992",
        6: "visits = -2147483648, level = -32768, total = -9007199254740992, active = false",
        7: "country = NULL, token = NULL, big = 12345678901234567890.123456789",
        8: "ratio = 'NaN', small = 'NaN', big = 'NaN'",
    }
    for id_, assignments in ends.items():
        traits.execute(f"UPDATE public.traits SET {assignments}, updated_at = clock_timestamp() WHERE id = {id_}")
        summary = require_published(traits.score("traits"))
        assert (summary.mode, summary.scored, summary.rejected) == (Mode.INCREMENTAL, 1, 0), f"row {id_}"
    alone = scores(traits)
    assert alone == pytest.approx(dict(traits.rows(TOTAL)), rel=1e-12)

    require_published(traits.score("traits", full=True))

    assert scores(traits) == alone


def test_infinity_in_a_float_is_rejected_where_the_model_raises_on_it_and_the_others_are_published(
    traits: World,
) -> None:
    make_regressor(traits, load_pipeline(traits.settings.pipelines_dir / "traits"))
    traits.score("traits")
    traits.execute("UPDATE public.traits SET ratio = 'infinity', updated_at = clock_timestamp() WHERE id = 1")
    traits.execute("UPDATE public.traits SET small = '-infinity', updated_at = clock_timestamp() WHERE id = 2")
    traits.execute("UPDATE public.traits SET big = 'infinity', updated_at = clock_timestamp() WHERE id = 3")

    summary = require_published(traits.score("traits"))

    assert (summary.mode, summary.changed, summary.scored, summary.rejected) == (Mode.INCREMENTAL, 3, 0, 3)
    found = traits.rows("SELECT id, state, p, reasons[1] FROM predictions.traits WHERE id <= 4 ORDER BY id")
    assert [row[:3] for row in found[:3]] == [(1, "rejected", None), (2, "rejected", None), (3, "rejected", None)]
    assert [row[3] for row in found[:3]] == [
        "rejected: infinite:ratio",
        "rejected: infinite:small",
        "rejected: infinite:big",
    ]
    assert found[3][1] == "aging"
    # What was rejected is due in every run until it is mended.
    traits.execute("UPDATE public.traits SET ratio = 1, updated_at = '2000-01-01' WHERE id = 1")
    mended = require_published(traits.score("traits"))
    assert (mended.due, mended.scored, mended.rejected) == (3, 1, 2)


def test_infinity_in_a_float_reaches_a_model_that_takes_it(database_url: str, tmp_path: Path) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    world = make_world(database_url, tmp_path, rows=300)
    pipeline = make_pipeline(
        world, features="SELECT i.id, b.as_of, i.a, i.b FROM batch AS b JOIN public.items AS i USING (id)"
    )
    make_model(world, pipeline, HistGradientBoostingClassifier(max_iter=5))
    world.score()
    world.execute("UPDATE public.items SET a = 'infinity', b = NULL, updated_at = clock_timestamp() WHERE id = 1")

    summary = require_published(world.score())

    assert (summary.changed, summary.rejected) == (1, 0)
    assert world.one("SELECT state, p IS NOT NULL AS has FROM predictions.items WHERE id = 1") == {
        "state": "aging",
        "has": True,
    }


def test_an_integer_beyond_two_to_the_53_ends_the_run_by_the_name_of_its_column(traits: World) -> None:
    traits.score("traits")
    traits.execute("UPDATE public.traits SET total = 9007199254740993, updated_at = clock_timestamp() WHERE id = 1")

    with pytest.raises(PrescoreError, match="Feature total holds integers beyond") as refused:
        traits.score("traits")

    assert "9007199254740993" not in str(refused.value)
    assert traits.one("SELECT status FROM prescore.runs ORDER BY run_id DESC LIMIT 1") == {"status": "failed"}


def test_a_time_that_microseconds_since_1970_cannot_count_to_is_never_and_not_another_time(traits: World) -> None:
    traits.score("traits")

    far = scored_with(traits, born="'5874897-12-31'", seen="'294276-12-31 00:00+00'", local_at="'294276-12-31'")

    assert far == scored_with(traits, born="NULL", seen="NULL", local_at="NULL")
    last = scored_with(traits, born="'294246-12-31'", seen="'294246-12-31 00:00+00'", local_at="'294246-12-31'")
    assert last == pytest.approx(far + 3 * 106_751_981)


def scored_with(world: World, **values: str) -> float:
    """Give entity 1 other values, run, and return its prediction."""
    assignments = ", ".join(f"{name} = {value}" for name, value in values.items())
    world.execute(f"UPDATE public.traits SET {assignments}, updated_at = clock_timestamp() WHERE id = 1")
    assert require_published(world.score("traits")).changed == 1
    return float(scores(world)[1])
