"""A pipeline's folder: what it becomes, what is refused and in which words, and when its fingerprints change."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import PipelineCodeFailed, PipelineInvalid, PipelineNotFound, Problem
from tasks.fields import parse_duration, write_duration
from tasks.pipeline import Pipeline, find_pipeline, load_pipeline, load_pipelines
from tasks.settings import Settings

MINIMAL = """\
[entity]
key = ["customer_id"]
query = "SELECT customer_id FROM shop.customers"

[features]
query = "features.sql"

[predictions]
score = { method = "predict_proba", class = "1" }
"""
FEATURES = "SELECT b.customer_id, b.as_of, c.age_years FROM batch b JOIN shop.customers c USING (customer_id)\n"
CHANGES = "SELECT customer_id FROM shop.customers, since WHERE updated_at > since.at\n"
LABELS = "SELECT customer_id, run.as_of - interval '30 days' AS as_of, 1 AS label FROM shop.customers, run\n"
CODE = '''\
"""How the model is made."""


def build_model():
    return 1


def preprocess(frame):
    return frame
'''
FILES = {"features.sql": FEATURES, "changes.sql": CHANGES, "labels.sql": LABELS, "model.py": CODE}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a pipeline's folder: its TOML, its name, other files by name (None for none)."""

    def written(toml: str | None = MINIMAL, name: str = "churn", **files: str | None) -> Path:
        folder = tmp_path / "pipelines" / name
        folder.mkdir(parents=True, exist_ok=True)
        contents = {**FILES, **{file.replace("__", "."): text for file, text in files.items()}, "pipeline.toml": toml}
        for file, text in contents.items():
            (folder / file).unlink(missing_ok=True)
            if text is not None:
                (folder / file).write_text(text, encoding="utf-8")
        return folder

    return written


def refusal(folder: Path) -> list[str]:
    """Return the lines of what is wrong with a folder."""
    with pytest.raises(PipelineInvalid) as refused:
        load_pipeline(folder)
    assert "Nothing was run or changed" in str(refused.value)
    return [str(problem) for problem in refused.value.problems]


def changed(old: str, new: str, text: str = MINIMAL) -> str:
    assert old in text
    return text.replace(old, new)


# What a folder becomes ----------------------------------------------------------------------------------------------


def test_a_declaration_of_twelve_lines_is_a_pipeline(write: Write) -> None:
    assert len(MINIMAL.splitlines()) <= 12
    pipeline = load_pipeline(write())
    assert pipeline.name == "churn"
    assert pipeline.entity.key == ("customer_id",)
    assert pipeline.entity.query.origin == "pipeline.toml [entity] query"
    assert pipeline.features.query.text == FEATURES.strip()
    assert pipeline.features.query.origin == "features.sql"
    assert (pipeline.model.name, pipeline.model.alias) == ("churn", "champion")
    assert (pipeline.model.warn_age, pipeline.model.fail_age) == (timedelta(days=30), timedelta(days=60))
    assert pipeline.model.golden.atol == 1e-6
    (output,) = pipeline.predictions
    assert (output.name, output.method, output.class_, output.index) == ("score", "predict_proba", "1", False)
    assert pipeline.training is None
    assert pipeline.schedule.full == pipeline.schedule.incremental == ()
    assert pipeline.coverage.missing == (0.001, 0.01)
    assert pipeline.contract_text == MINIMAL
    assert pipeline.preprocess_function() is None
    assert pipeline.estimator_function() is None


def test_without_a_schedule_the_promise_is_26_36_and_72_hours(write: Write) -> None:
    serve = load_pipeline(write()).serve
    hours = timedelta(hours=1)
    assert (serve.aging_after, serve.stale_after, serve.serve_stale_for) == (26 * hours, 36 * hours, 72 * hours)
    assert serve.on_expired == "null"


@pytest.mark.parametrize(("cron", "hours"), [("0 3 * * *", 24), ("0 * * * *", 1), ("0 3 * * 1-5", 72)])
def test_with_a_schedule_the_promise_follows_its_period(write: Write, cron: str, hours: int) -> None:
    serve = load_pipeline(write(f'{MINIMAL}\n[schedule]\nfull = "{cron}"\n')).serve
    period = timedelta(hours=hours)
    assert (serve.aging_after, serve.stale_after) == (1.5 * period, 2 * period)
    assert serve.serve_stale_for == timedelta(hours=72)


@pytest.mark.parametrize(
    ("written", "aging", "stale"),
    [
        ('stale_after = "24h"', timedelta(hours=17, minutes=20), timedelta(hours=24)),
        ('stale_after = "30h"', timedelta(hours=26), timedelta(hours=30)),
        ('aging_after = "72h"', timedelta(hours=72), timedelta(seconds=358892)),
        ('aging_after = "1h"', timedelta(hours=1), timedelta(hours=36)),
    ],
)
def test_a_limit_that_is_not_declared_never_contradicts_the_one_that_is(
    write: Write, written: str, aging: timedelta, stale: timedelta
) -> None:
    serve = load_pipeline(write(f"{MINIMAL}\n[serve]\n{written}\n")).serve
    assert (serve.aging_after, serve.stale_after) == (aging, stale)


def test_cron_expressions_are_one_or_several(write: Write) -> None:
    one = load_pipeline(write(f'{MINIMAL}\n[schedule]\nfull = "0  3 * * *"\n')).schedule
    several = load_pipeline(write(f'{MINIMAL}\n[schedule]\nfull = ["0 3 * * *", "0 15 * * *"]\n')).schedule
    assert one.full == ("0 3 * * *",)
    assert several.full == ("0 3 * * *", "0 15 * * *")
    assert several.timezone == "UTC"


def test_grace_is_a_tenth_of_the_period_and_at_least_five_minutes(write: Write) -> None:
    text = f'{MINIMAL}\n[schedule]\nfull = "0 3 * * *"\nincremental = "*/15 * * * *"\n'
    plan = load_pipeline(write(text)).schedule
    assert plan.grace is None
    assert plan.grace_for("full") == timedelta(hours=2, minutes=24)
    assert plan.grace_for("incremental") == timedelta(minutes=5)
    declared = load_pipeline(write(text + 'grace = "45m"\n')).schedule
    assert declared.grace_for("full") == declared.grace_for("incremental") == timedelta(minutes=45)
    assert load_pipeline(write()).schedule.grace_for("full") is None


def test_every_table_of_the_contract_is_accepted(write: Write) -> None:
    text = (
        changed('query = "features.sql"', 'query = "features.sql"\nchanges = "changes.sql"\nvalid_for = "1d12h"')
        + """
items = { method = "recommend", part = "items", k = 10 }
scores = { method = "recommend", part = "scores", k = 10 }
every_class = { method = "predict_proba", class = "all" }
label = { method = "predict", index = true }
second = { method = "predict", output = 1 }
distance = { method = "transform", reduce = "min" }

[model]
golden = { atol = 1e-4, on_fail = "abort" }
environment = "exact"

[training]
labels = "labels.sql"
estimator = "model.py:build_model"
holdout = 0.3
baseline = "country"

[[source]]
name = "crm.customer"
watermark = "loaded_at"
kind = "event_time"
zone = "UTC"
warn_after = "26h"
fail_after = "36h"
late_by = "0s"
required = false
filter = "region = 'EU' OR region IS NULL"
rows = { slot = "weekday", warn = [0.9, 1.1], fail = [0.7, 1.5] }
every = { column = "region", from = "ref.region" }
on_fail = "hold"

[logic]
files = ["*.sql"]
on_change = "full_rescore"

[drift]
bins = 20
persist = "2/3"
null_delta = [0.02, 0.10]
[drift.feature.balance]
on_fail = "hold"
warn = 0.2

[performance]
metric = "auc"
baseline = 0.81
tolerance = 0.03
maturity = "30d"

[coverage]
missing = [0, 0]
orphans = "delete"

[unknown]
guard = "fail"
escalate_after = 3

[manual]
may_waive = ["volume", "drift.*", "model.age"]
never_waive = ["schema", "source.clock"]
lifetime = "until_next_deadline"
"""
    )
    pipeline = load_pipeline(write(text))
    assert pipeline.features.valid_for == timedelta(hours=36)
    (source,) = pipeline.sources
    assert (source.schema_name, source.table_name, source.late_by) == ("crm", "customer", timedelta(0))
    assert source.every is not None
    assert source.every.from_ == "ref.region"
    assert pipeline.drift.feature["balance"].warn == 0.2
    assert pipeline.manual.may_waive == ("volume", "drift.*", "model.age")
    assert [output.name for output in pipeline.predictions][-1] == "distance"


def test_the_shipped_pipelines_are_valid_and_surprise_nobody() -> None:
    shipped = load_pipelines(Path(__file__).parents[2] / "deployments" / "pipelines")
    assert set(shipped) >= {"churn", "flight_delay"}
    for pipeline in shipped.values():
        assert pipeline.warnings == ()


def test_what_was_read_cannot_be_changed(write: Write) -> None:
    pipeline = load_pipeline(write())
    with pytest.raises(AttributeError):
        pipeline.name = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        pipeline.serve.aging_after = timedelta(1)


def test_queries_may_stand_in_the_declaration_and_in_files(write: Write) -> None:
    inline = load_pipeline(write(changed('"features.sql"', f"'''\n{FEATURES};  -- end'''")))
    assert inline.features.query.text == FEATURES.strip()
    assert inline.features.query.origin == "pipeline.toml [features] query"
    folder = write(changed('"SELECT customer_id FROM shop.customers"', '"my entities.sql"'))
    (folder / "my entities.sql").write_text("SELECT 1 AS customer_id;")
    assert load_pipeline(folder).entity.query.text == "SELECT 1 AS customer_id"
    named_sql = load_pipeline(write(changed('"SELECT customer_id FROM shop.customers"', '"SELECT * FROM shop.sql"')))
    assert named_sql.entity.query.text == "SELECT * FROM shop.sql"


# What is refused ----------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_said_at_once(write: Write) -> None:
    text = """
nmae = "x"
[entity]
key = ["customer_id", "customer_id"]
query = "SELECT customer_id FROM shop.customers LIMIT 10"
[features]
query = "feature.sql"
[predictions]
state = { method = "predict" }
score = { method = "predict", class = "1" }
[schedule]
full = "61 * * * *"
timezone = "Europe/berlin"
[serve]
stale_aftr = "3h"
aging_after = "1 hour"
[[source]]
name = "orders"
"""
    lines = refusal(write(text))
    assert {line.partition(": ")[0] for line in lines} == {
        "churn/pipeline.toml nmae",
        "churn/pipeline.toml [entity] key",
        "churn/pipeline.toml [entity] query line 1",
        "churn/pipeline.toml [features] query",
        "churn/pipeline.toml [predictions] state",
        "churn/pipeline.toml [predictions] score",
        "churn/pipeline.toml [schedule] full",
        "churn/pipeline.toml [schedule] timezone",
        "churn/pipeline.toml [serve] stale_aftr",
        "churn/pipeline.toml [serve] aging_after",
        "churn/pipeline.toml [[source]] orders.name",
        "churn/pipeline.toml [[source]] orders.watermark",
    }


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("[serve]\nstale_aftr = '3h'", "[serve] stale_aftr", 'did you mean "stale_after"?'),
        ("[serv]\nstale_after = '3h'", "[serv]", 'did you mean "serve"?'),
        ("[[sources]]\nname = 'a.b'", "sources", 'did you mean "source"?'),
        ("[pipeline]\nname = 'churn'", "[pipeline]", "its schedule is [schedule] full"),
        ("[model]\ngolden = { atoll = 1 }", "[model] golden.atoll", 'did you mean "atol"?'),
        ("[drift.feature.x]\nwran = 1", "[drift] feature.x.wran", 'did you mean "warn"?'),
        ("[coverage]\npopulation = 'x'", "[coverage] population", "what [entity] query returns"),
        (
            "[[source]]\nname='a.b'\nwatermark='t'\nevery = { colum = 'x', from = 'a.c' }",
            "a.b.every.colum",
            '"column"?',
        ),
        ("[predictions.more]\nmetod = 'predict'", "[predictions] more.metod", 'did you mean "method"?'),
        ("[predictions.more]\nmethod = 'predict'\nclass_ = '1'", "[predictions] more.class_", 'did you mean "class"?'),
        ("[predictions.more]\nmethod = 'predict'\nname = 'x'", "[predictions] more.name", "unknown key"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(write: Write, text: str, place: str, words: str) -> None:
    lines = refusal(write(f"{MINIMAL}\n{text}\n"))
    (line,) = [line for line in lines if line.partition(": ")[0].endswith(place)]
    assert "unknown key" in line
    assert words in line


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        # durations
        ("[serve]\naging_after = '26 hours'", "[serve] aging_after", 'such as "26h", "15m", "90s", "30d" or "1d12h"'),
        ("[serve]\naging_after = '500ms'", "[serve] aging_after", 'found "500ms"'),
        ("[serve]\naging_after = 26", "[serve] aging_after", "found 26"),
        ("[serve]\naging_after = '0h'", "[serve] aging_after", "longer than zero"),
        ("[serve]\naging_after = '-1h'", "[serve] aging_after", 'found "-1h"'),
        ("[serve]\naging_after = '12h1d'", "[serve] aging_after", "in this order"),
        ("[serve]\naging_after = ''", "[serve] aging_after", 'found ""'),
        ("[serve]\naging_after = '99999999d'", "[serve] aging_after", "at most a hundred years"),
        ("[features]\nvalid_for = '0s'", "[features] valid_for", "longer than zero"),
        # limits
        (
            "[serve]\naging_after = '36h'\nstale_after = '26h'",
            "[serve]",
            "aging_after (36h) is above stale_after (26h)",
        ),
        ("[model]\nwarn_age = '90d'", "[model]", "warn_age (90d) is above fail_age (60d)"),
        ("[drift]\nwarn = 0.3", "[drift]", "warn (0.3) is above fail (0.25)"),
        ("[drift.feature.x]\nwarn = 0.3", "[drift]", "feature.x.warn (0.3) is above feature.x.fail (0.25)"),
        ("[drift]\nnull_delta = [0.2, 0.1]", "[drift] null_delta", "0 <= warn <= fail"),
        ("[coverage]\nmissing = [0.1]", "[coverage] missing", "expected two numbers, [warn, fail]"),
        ("[coverage]\nmissing = [nan, nan]", "[coverage] missing", "expected two numbers"),
        ("[coverage]\nshrink = 1.5", "[coverage] shrink", "at most 1"),
        ("[[source]]\nname='a.b'\nwatermark='t'\nwarn_after='2h'\nfail_after='1h'", "a.b", "warn_after (2h) is above"),
        ("[[source]]\nname='a.b'\nwatermark='t'\nrows={warn=[0.1,2]}", "a.b.rows", "must enclose"),
        # schedules
        ("[schedule]\nfull = '0 25 * * *'", "[schedule] full", 'hour "25" is not valid'),
        ("[schedule]\nfull = ['0 3 * * *', 3]", "[schedule] full", "or a list of them"),
        ("[schedule]\ntimezone = 'Berlin'", "[schedule] timezone", 'did you mean "Europe/Berlin"?'),
        # values
        ("[model]\nenvironment = 'minr'", "[model] environment", '"minor"?'),
        ("[model]\nalias = 'Champion'", "[model] alias", "is no name"),
        ("[entity]\nallow_empty = 'yes'", "[entity] allow_empty", 'expected true or false, found "yes"'),
        ("[drift]\nbins = 20.5", "[drift] bins", "expected a whole number"),
        ("[drift]\npersist = '3/2'", "[drift] persist", "not more hits than runs"),
        ("[manual]\nmay_waive = 'x'", "[manual] may_waive", "expected a list of texts"),
        ("[manual]\nmay_waive = ['x']\nnever_waive = ['x']", "[manual]", "x is in may_waive and in never_waive"),
        ("[manual]\nlifetime = 'ever'", "[manual]", "until_next_deadline"),
        ("[training]\nholdout = 1", "[training] holdout", "less than 1"),
        ("[logic]\nfiles = ['*.csv']", "[logic] files", '"*.csv" matches no file'),
        ("[logic]\nfiles = ['../*']", "[logic] files", "matches no file"),
        ("[source]\nname = 'a.b'", "[source]", "in double brackets"),
        ("[[source]]\nname='a.b'\nwatermark='t'\n[[source]]\nname='a.b'\nwatermark='t'", "a.b", "is declared twice"),
        ("[[source]]\nname='orders'\nwatermark='t'", "orders.name", '"public.orders"'),
        ("[[source]]\nname='a.b'\nwatermark='t'\nfilter=\"x = 'a') OR (true\"", "a.b.filter", "closes a parenthesis"),
        ("[[source]]\nname='a.b'\nwatermark='t'\nzone='Mars'", "a.b.zone", "is no IANA time zone"),
        ("[serve]\non_expired = 'hide'", "[serve] on_expired", 'expected "null" or "serve", found "hide"'),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_what_can(write: Write, text: str, place: str, words: str) -> None:
    table, _, rest = text.partition("\n")
    toml = changed(f"{table}\n", f"{table}\n{rest}\n") if f"{table}\n" in MINIMAL else f"{MINIMAL}\n{text}\n"
    (line,) = refusal(write(toml))
    assert line.partition(": ")[0].endswith(place)
    assert words in line


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ('{ method = "predict", class = "1" }', "class belongs to predict_proba, not to predict"),
        ('{ method = "predict_proba" }', 'needs a class: class = "1"'),
        ('{ method = "predict_proba", class = 1 }', "expected a text in quotes, found 1"),
        ('{ method = "recommend", part = "items" }', "and k, the length of the list"),
        ('{ method = "recommend", k = 3 }', "recommend needs part"),
        ('{ method = "recommend", part = "items", k = 0 }', "at least 1"),
        ('{ method = "predict", k = 3 }', "k belongs to recommend"),
        ('{ method = "predict", part = "items" }', "part belongs to recommend"),
        ('{ method = "predict", reduce = "min" }', "reduce belongs to transform"),
        ('{ method = "transform" }', 'write either reduce = "min" or output = 0'),
        ('{ method = "transform", reduce = "median" }', 'expected "min", "max", "mean" or "sum"'),
        ('{ method = "predict", output = -1 }', "at least 0"),
        ('{ method = "score_samples", output = 0 }', "output belongs to methods that give several values"),
        ('{ method = "predict_proba", class = "all", index = true }', "index = true on an array"),
        ('{ method = "fit" }', 'found "fit"'),
        ('{ class = "1" }', "missing; it is required"),
        ('"predict"', 'expected a table, found "predict"'),
    ],
)
def test_an_output_that_contradicts_itself_is_refused(write: Write, output: str, words: str) -> None:
    lines = refusal(write(changed('{ method = "predict_proba", class = "1" }', output)))
    assert any(line.startswith("churn/pipeline.toml [predictions] score") and words in line for line in lines)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Score", "is no name"),
        ("1st", "is no name"),
        ('"a b"', "is no name"),
        ("x" * 41, "is no name"),
        ("state", "the view has itself"),
        ("as_of", "the view has itself"),
        ("storage_id", "the view has itself"),
        ("xmin", "PostgreSQL gives to every table"),
        ("user", "is a word of SQL"),
        ("customer_id", "the name of a key column too"),
    ],
)
def test_an_output_with_a_reserved_name_is_refused(write: Write, name: str, words: str) -> None:
    (line,) = refusal(write(changed("score =", f"{name} =")))
    assert words in line


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("churn", True),
        ("churn_2x", True),
        ("forecast", True),
        ("x" * 40, True),
        ("Churn", False),
        ("my-churn", False),
        ("x" * 41, False),
        ("churn_usable", False),
        ("churn_for", False),
        ("churn_2", False),
    ],
)
def test_the_folder_must_have_the_name_of_a_pipeline(write: Write, name: str, accepted: bool) -> None:
    folder = write(name=name)
    if accepted:
        assert load_pipeline(folder).name == name
    else:
        (line,) = refusal(folder)
        assert "the folder's name is the pipeline's" in line


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ('["Customer Id", "order", "Größe"]', None),
        (f'["{"x" * 63}"]', None),
        (f'["{"ü" * 32}"]', "1 to 63 bytes"),
        ('["as_of"]', "has itself"),
        ('["state"]', "has itself"),
        ('["ctid"]', "has itself"),
        ('["max_stale"]', "has itself"),
        ('["id", "id"]', "more than once"),
        ("[]", "at least one column"),
        ('[""]', "1 to 63 bytes"),
        ('["a\\u0000b"]', "1 to 63 bytes"),
        ('"customer_id"', "expected a list of texts"),
    ],
)
def test_key_columns_are_any_identifiers_but_reserved_ones(write: Write, key: str, words: str | None) -> None:
    folder = write(changed('["customer_id"]', key))
    if words is None:
        assert len(load_pipeline(folder).entity.key) >= 1
    else:
        (line,) = refusal(folder)
        assert words in line


def test_a_missing_file_is_answered_with_those_that_are_there(write: Write) -> None:
    (line,) = refusal(write(changed('"features.sql"', '"feature.sql"')))
    assert line.startswith("churn/pipeline.toml [features] query: there is no file")
    assert 'did you mean "features.sql"?' in line
    assert "changes.sql, features.sql, labels.sql" in line


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/features.sql", "a/../../features.sql"])
def test_a_file_outside_the_folder_is_refused(write: Write, path: str) -> None:
    (line,) = refusal(write(changed('"features.sql"', f'"{path}"')))
    assert "outside the pipeline's folder" in line


def test_a_missing_declaration_is_answered_with_the_files_that_are_there(write: Write) -> None:
    (line,) = refusal(write(None))
    assert line.startswith("churn/pipeline.toml: there is no such file; the folder holds changes.sql, features.sql")


def test_an_error_of_toml_names_its_line(write: Write) -> None:
    (line,) = refusal(write(changed('query = "features.sql"', "query = features.sql")))
    assert line.startswith("churn/pipeline.toml line 6: is no TOML:")
    (line,) = refusal(write(MINIMAL + 'score = { method = "predict" }\n'))
    assert "line " in line
    assert "is no TOML" in line


def test_files_that_are_not_utf_8_are_refused_by_name(write: Write) -> None:
    folder = write()
    (folder / "features.sql").write_bytes(b"SELECT '\xff' FROM batch")
    (line,) = refusal(folder)
    assert "features.sql is not UTF-8 at byte 8" in line
    (folder / "pipeline.toml").write_bytes(b"\xff")
    (line,) = refusal(folder)
    assert line.startswith("churn/pipeline.toml: is not UTF-8 at byte 0")


@pytest.mark.parametrize("table", ["entity", "features", "predictions"])
def test_a_missing_table_is_answered_with_what_to_write(write: Write, table: str) -> None:
    lines = refusal(write(changed(f"[{table}]", f"[{table[:-1]}]")))
    assert any(f"[{table}]: missing: write [{table}] with" in line for line in lines)
    assert any(f"[{table[:-1]}]: unknown key" in line for line in lines)


def test_a_query_that_is_refused_names_its_file_and_line(write: Write) -> None:
    lines = refusal(write(features__sql="SELECT customer_id,\n as_of FROM batch\n WHERE WHERE", model__py="def x(:"))
    assert lines[0].startswith("churn/model.py line 1: is no Python")
    assert lines[1].startswith('churn/features.sql line 3: syntax error at or near "WHERE"')
    lines = refusal(write(features__sql="WITH run AS (SELECT 1) SELECT 2 AS x FROM run"))
    assert any("has a CTE named run" in line for line in lines)
    assert any("never reads the relation batch" in line for line in lines)


def test_a_limit_over_the_population_never_becomes_a_pipeline(write: Write) -> None:
    (line,) = refusal(write(changed("shop.customers", "shop.customers LIMIT 1000")))
    assert line.startswith("churn/pipeline.toml [entity] query line 1: has LIMIT, which leaves entities out")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("model.py:preproces", 'did you mean "model.py:preprocess"?'),
        ("model.py:nothing_like_it", "it defines build_model, preprocess"),
        ("modle.py:preprocess", "the folder holds model.py"),
        ("model:preprocess", 'such as "model.py:preprocess"'),
        ("model.py", 'such as "model.py:preprocess"'),
        ("../model.py:preprocess", 'such as "model.py:preprocess"'),
        ("model.py:build_model", "is called with one argument, the frame"),
    ],
)
def test_a_function_that_is_not_there_is_refused_without_importing(write: Write, reference: str, words: str) -> None:
    marker = "raise AssertionError('imported')\n"
    folder = write(changed('"features.sql"', f'"features.sql"\npreprocess = "{reference}"'), model__py=CODE + marker)
    (line,) = refusal(folder)
    assert line.startswith("churn/pipeline.toml [features] preprocess: ")
    assert words in line


@pytest.mark.parametrize(
    "code",
    [
        "from functools import partial\npreprocess = partial(print)\n",
        "from elsewhere import preprocess\n",
        "from elsewhere import *\n",
        "try:\n    from fast import preprocess\nexcept ImportError:\n    def preprocess(frame): return frame\n",
        "if True:\n    def preprocess(frame, limit=3): return frame\n",
        "class preprocess:\n    pass\n",
        "def preprocess(*frames): return frames[0]\n",
    ],
)
def test_a_function_may_come_about_in_other_ways_than_def(write: Write, code: str) -> None:
    folder = write(changed('"features.sql"', '"features.sql"\npreprocess = "model.py:preprocess"'), model__py=code)
    assert load_pipeline(folder).features.preprocess == "model.py:preprocess"


# Warnings -----------------------------------------------------------------------------------------------------------

SOURCE = '\n[[source]]\nname = "shop.customers"\nwatermark = "updated_at"\n'


def test_how_much_is_usual_needs_a_schedule(write: Write) -> None:
    counted = MINIMAL + SOURCE + "rows = {}\n"

    (warning,) = [found for found in load_pipeline(write(counted)).warnings if "rows" in found]
    assert "[[source]] shop.customers.rows: no schedule is declared" in warning
    scheduled = load_pipeline(write(counted + '[schedule]\nfull = "0 3 * * *"\n'))
    assert [found for found in scheduled.warnings if "rows" in found] == []


def test_a_pipeline_without_a_source_says_what_that_means(write: Write) -> None:
    (warning,) = load_pipeline(write()).warnings
    assert "[[source]]: none is declared" in warning
    assert load_pipeline(write(MINIMAL + SOURCE)).warnings == ()


@pytest.mark.parametrize(("stale", "warned"), [("26h", True), ("1d2h23m", True), ("1d2h24m", False), ("36h", False)])
def test_a_promise_that_must_break_between_runs_is_warned_of(write: Write, stale: str, warned: bool) -> None:
    text = f'{MINIMAL}\n[schedule]\nfull = "0 3 * * *"\n[serve]\naging_after = "20h"\nstale_after = "{stale}"\n{SOURCE}'
    warnings = load_pipeline(write(text)).warnings
    assert [("turn stale before the next run is late" in warning) for warning in warnings] == [True] * warned


def test_what_may_surprise_is_a_warning_and_not_an_error(write: Write) -> None:
    text = changed('"features.sql"', '"features.sql"\ntime_invariant = true\nvalid_for = "1d"')
    text += (
        f'\n[schedule]\nfull = "0 3 * * *"\nincremental = "0 * * * *"\n{SOURCE}\n[training]\nlabels = "labels.sql"\n'
    )
    folder = write(
        text,
        features__sql=FEATURES.replace("c.age_years", "age(c.born) AS age_years"),
        labels__sql=LABELS + " LIMIT 1000",
    )
    warnings = "\n".join(load_pipeline(folder).warnings)
    assert "churn/features.sql line 1: reads the clock with age()" in warnings
    assert "churn/labels.sql line 1: has LIMIT" in warnings
    assert "[features] changes: incremental runs are scheduled" in warnings
    assert "[features] valid_for: features that do not depend on as_of" in warnings


@pytest.mark.parametrize(
    ("full", "incremental", "together"),
    [
        ("0 3 * * *", "*/15 * * * *", "03:00"),
        ("40 3 * * *", "*/15 * * * *", None),
        ("0 3 * * 0", "0 3 * * 1-6", None),
        ("30 4 1 1 *", "30 4 * * 1", "04:30"),  # 1 January is a Monday now and then
    ],
)
def test_full_and_incremental_runs_that_begin_together_are_warned_of(
    write: Write, full: str, incremental: str, together: str | None
) -> None:
    text = f'{MINIMAL}{SOURCE}\n[schedule]\nfull = "{full}"\nincremental = "{incremental}"\n'
    found = [w for w in load_pipeline(write(text)).warnings if "fires in the same minute as full" in w]
    assert [f"at {together} it" in warning for warning in found] == ([True] if together else [])


# Fingerprints -------------------------------------------------------------------------------------------------------

FULL = changed('"features.sql"', '"features.sql"\nchanges = "changes.sql"\npreprocess = "model.py:preprocess"')


@pytest.mark.parametrize(
    ("toml", "files"),
    [
        ('description = "other"\n' + FULL, {}),
        ("# a comment\n" + FULL.replace("=", "  ="), {}),
        (FULL + '\n[serve]\nstale_after = "30h"\n', {}),
        (FULL + '\n[schedule]\nfull = "0 3 * * *"\n', {}),
        (FULL + '\n[model]\nalias = "challenger"\n', {}),
        (changed('class = "1"', 'class = "1", index = true', FULL), {}),
        (changed('"changes.sql"', '"changes.sql"\nvalid_for = "1d"', FULL), {}),
        (changed('["customer_id"]', '["customer_id"]\nallow_empty = true', FULL), {}),
        (
            FULL,
            {
                "features__sql": "-- what is known\n"
                + FEATURES.replace("SELECT", "select  ").replace("c.age", "\nc.age")
            },
        ),
        (FULL, {"changes__sql": CHANGES + "; -- done"}),
        (
            FULL,
            {"model__py": '"""Another docstring."""\n# comment\n\n\n' + CODE.split('"""', 2)[2].replace("1", " ( 1 )")},
        ),
        (changed('"changes.sql"', f'"""{CHANGES}"""', FULL), {}),
        (FULL, {"notes__txt": "anything"}),
    ],
)
def test_editing_what_changes_no_value_keeps_the_logic_digest(write: Write, toml: str, files: dict[str, str]) -> None:
    before = load_pipeline(write(FULL)).logic_digest
    assert load_pipeline(write(toml, **files)).logic_digest == before


@pytest.mark.parametrize(
    ("toml", "files"),
    [
        (changed("FROM shop.customers", "FROM shop.customers WHERE active", FULL), {}),
        (changed('["customer_id"]', '["shop_id", "customer_id"]', FULL), {}),
        (changed('class = "1"', 'class = "0"', FULL), {}),
        (FULL + 'other = { method = "predict" }\n', {}),
        (changed('\npreprocess = "model.py:preprocess"', "", FULL), {}),
        (changed('\nchanges = "changes.sql"', "", FULL), {}),
        (changed('"changes.sql"', '"changes.sql"\ntime_invariant = true', FULL), {}),
        (FULL, {"features__sql": FEATURES.replace("c.age_years", "c.age_years + 1 AS age_years")}),
        (FULL, {"changes__sql": CHANGES.replace(">", ">=")}),
        (FULL, {"model__py": CODE.replace("return 1", "return 2")}),
        (FULL, {"helpers__py": "FACTOR = 2\n"}),
    ],
)
def test_editing_what_decides_values_changes_the_logic_digest(write: Write, toml: str, files: dict[str, str]) -> None:
    before = load_pipeline(write(FULL)).logic_digest
    assert load_pipeline(write(toml, **files)).logic_digest != before


def test_the_literal_of_a_window_changes_the_logic_digest(write: Write) -> None:
    windowed = FEATURES.rstrip() + " WHERE c.seen_at >= b.as_of - interval '{} days'"
    first = load_pipeline(write(FULL, features__sql=windowed.format(90))).logic_digest
    assert load_pipeline(write(FULL, features__sql=windowed.format(30))).logic_digest != first


def test_the_order_of_outputs_changes_no_digest(write: Write) -> None:
    one, two = 'a = { method = "predict" }\n', 'b = { method = "predict", output = 1 }\n'
    first, second = load_pipeline(write(FULL + one + two)), load_pipeline(write(FULL + two + one))
    assert first.logic_digest == second.logic_digest


def test_further_files_of_logic_count_by_their_content(write: Write) -> None:
    toml = FULL + '\n[logic]\nfiles = ["*.csv"]\n'
    first = load_pipeline(write(toml, codes__csv="a,1\n")).logic_digest
    assert load_pipeline(write(toml, codes__csv="a,2\n")).logic_digest != first


def test_the_contract_digest_changes_with_limits_and_not_with_how_they_are_written(write: Write) -> None:
    before = load_pipeline(write(FULL + '\n[serve]\nstale_after = "36h"\n')).contract_digest
    assert load_pipeline(write(FULL)).contract_digest == before
    assert load_pipeline(write(FULL + '\n# c\n[serve]\nstale_after = "1d12h"\n')).contract_digest == before
    assert load_pipeline(write(FULL + '\n[serve]\nstale_after = "37h"\n')).contract_digest != before
    assert load_pipeline(write(changed('class = "1"', 'class = "0"', FULL))).contract_digest == before
    assert load_pipeline(write('description = "x"\n' + FULL)).contract_digest != before
    assert load_pipeline(write(changed('class = "1"', 'class = "1", index = true', FULL))).contract_digest != before


# Its code -----------------------------------------------------------------------------------------------------------

TRAINED = FULL + '\n[training]\nestimator = "model.py:build_model"\n'
CLASSY = """\
from .helpers import FACTOR


class Twice:
    def __init__(self):
        self.factor = FACTOR


def build_model():
    return Twice()


def preprocess(frame):
    return frame * FACTOR
"""


def estimator(pipeline: Pipeline) -> Any:
    function = pipeline.estimator_function()
    assert function is not None
    return function()


def test_code_is_imported_under_the_name_of_its_pipeline_with_its_neighbours(write: Write) -> None:
    pipeline = load_pipeline(write(TRAINED, model__py=CLASSY, helpers__py="FACTOR = 2\n"))
    preprocess = pipeline.preprocess_function()
    assert preprocess is not None
    assert preprocess(3) == 6  # type: ignore[arg-type]
    made = estimator(pipeline)
    assert type(made).__module__ == "prescore_pipelines.churn.model"
    assert sys.modules["prescore_pipelines.churn.model"].Twice is type(made)
    assert pickle.loads(pickle.dumps(made)).factor == 2
    assert pipeline.model_module() is sys.modules["prescore_pipelines.churn.model"]


def test_two_pipelines_with_the_same_files_do_not_meet(write: Write) -> None:
    one = load_pipeline(write(TRAINED, "one", model__py=CLASSY, helpers__py="FACTOR = 1\n"))
    two = load_pipeline(write(TRAINED, "two", model__py=CLASSY, helpers__py="FACTOR = 2\n"))
    assert (estimator(one).factor, estimator(two).factor, estimator(one).factor) == (1, 2, 1)
    assert type(estimator(one)) is not type(estimator(two))
    assert type(estimator(one)) is type(estimator(one))


def test_code_is_imported_again_when_a_file_of_the_folder_changed(write: Write) -> None:
    folder = write(TRAINED, model__py=CLASSY, helpers__py="FACTOR = 2\n")
    pipeline = load_pipeline(folder)
    assert estimator(pipeline).factor == 2
    (folder / "helpers.py").write_text("FACTOR = 3\n")  # the same size within the same second
    assert estimator(pipeline).factor == 3
    assert not list(folder.rglob("__pycache__"))


def test_another_folder_of_the_same_name_is_imported_instead(write: Write, tmp_path: Path) -> None:
    first = load_pipeline(write(TRAINED, model__py=CLASSY, helpers__py="FACTOR = 2\n"))
    assert estimator(first).factor == 2
    other = tmp_path / "elsewhere" / "churn"
    other.mkdir(parents=True)
    for path in first.folder.iterdir():
        if path.is_file():
            (other / path.name).write_text(path.read_text())
    (other / "helpers.py").write_text("FACTOR = 5\n")
    assert estimator(load_pipeline(other)).factor == 5
    assert estimator(first).factor == 2


@pytest.mark.parametrize(
    ("code", "line", "words"),
    [
        ("x = 1\ny = x / 0\ndef build_model(): pass\n", 2, "ZeroDivisionError: division by zero"),
        ("import no_such_library\ndef build_model(): pass\n", 1, "No module named 'no_such_library'"),
        ("from .helpers import missing\ndef build_model(): pass\n", 1, "cannot import name 'missing'"),
        ("import helpers\ndef build_model(): pass\n", 1, "write from .helpers import"),
        ("import sys\nsys.exit(3)\ndef build_model(): pass\n", 2, "SystemExit"),
    ],
)
def test_an_error_in_the_code_names_file_and_line_and_keeps_its_cause(
    write: Write, code: str, line: int, words: str
) -> None:
    toml = MINIMAL + '\n[training]\nestimator = "model.py:build_model"\n'
    pipeline = load_pipeline(write(toml, model__py=code, helpers__py="FACTOR = 1\n"))
    with pytest.raises(PipelineCodeFailed) as failed:
        pipeline.estimator_function()
    assert str(failed.value).startswith(f"churn/model.py line {line}: ")
    assert words in str(failed.value)
    assert failed.value.__cause__ is not None
    (pipeline.folder / "model.py").write_text(CODE)
    assert estimator(pipeline) == 1


def test_an_error_in_a_neighbour_names_the_neighbour(write: Write) -> None:
    pipeline = load_pipeline(write(TRAINED, model__py=CLASSY, helpers__py="\n\nFACTOR = int('x')\n"))
    with pytest.raises(PipelineCodeFailed, match=r"^churn/helpers.py line 3: ValueError"):
        pipeline.preprocess_function()


# Finding ------------------------------------------------------------------------------------------------------------


def settings_for(folder: Path) -> Settings:
    return Settings(database_url=None, pipelines_dir=folder, data_dir=folder)


def test_a_pipeline_is_found_by_its_name_and_a_wrong_name_is_answered_with_the_nearest(write: Write) -> None:
    folder = write()
    write(name="forecast")
    assert find_pipeline(settings_for(folder.parent), "churn").folder == folder
    with pytest.raises(PipelineNotFound) as missing:
        find_pipeline(settings_for(folder.parent), "chrun")
    assert 'did you mean "churn"? There are churn, forecast.' in str(missing.value)
    assert missing.value.exit_code == 2


def test_a_folder_without_a_declaration_is_no_pipeline_but_is_explained(write: Write) -> None:
    folder = write(None, name="draft")
    write()
    assert set(load_pipelines(folder.parent)) == {"churn"}
    with pytest.raises(PipelineInvalid, match=r"draft/pipeline\.toml: there is no such file"):
        find_pipeline(settings_for(folder.parent), "draft")


def test_a_folder_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    for call in (lambda: load_pipelines(tmp_path / "x"), lambda: load_pipeline(tmp_path / "x")):
        with pytest.raises(PipelineNotFound, match="PRESCORE_PIPELINES"):
            call()
    with pytest.raises(PipelineNotFound, match=r"\. There is none\. Nothing was run"):
        find_pipeline(settings_for(tmp_path), "churn")


def test_the_problems_of_all_pipelines_are_listed_together(write: Write) -> None:
    write(name="good")
    write(MINIMAL + "\n[serv]\n", name="one")
    folder = write(MINIMAL + "\n[drft]\n", name="two")
    with pytest.raises(PipelineInvalid) as refused:
        load_pipelines(folder.parent)
    assert [problem.place for problem in refused.value.problems] == [
        "one/pipeline.toml [serv]",
        "two/pipeline.toml [drft]",
    ]


def test_a_link_has_the_name_of_the_link(write: Write, tmp_path: Path) -> None:
    link = tmp_path / "churn_next"
    link.symlink_to(write())
    assert load_pipeline(link).name == "churn_next"


# Durations ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["26h", "15m", "30d", "1d12h", "90s", "8d", "47h", "2h24m", "1d2h23m", "0s"])
def test_a_duration_reads_back_as_it_is_written(text: str) -> None:
    assert parse_duration(write_duration(parse_duration(text))) == parse_duration(text)


# Anything -----------------------------------------------------------------------------------------------------------

KEYS = "name method class output reduce part k index query key full timezone warn fail missing bins golden atol".split
TABLES = "entity features model predictions training schedule serve source logic drift performance coverage".split
scalars = (
    st.booleans()
    | st.integers(min_value=-(2**64), max_value=2**64)
    | st.floats()
    | st.sampled_from(
        ["", "features.sql", "26h", "0 3 * * *", "predict", "all", "a.b", "SELECT 1 FROM batch", "\\u0000"]
    )
    | st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters='"\\\x7f'), max_size=8)
)


def toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {toml_value(item)}' for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS()), inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    extra=st.dictionaries(st.sampled_from([*TABLES(), "manual", "unknown", "description", "other"]), values, max_size=6)
)
def test_any_declaration_is_a_pipeline_or_refused_in_words(write: Write, extra: dict[str, object]) -> None:
    toml = "\n".join(f"{table} = {toml_value(value)}" for table, value in extra.items())
    folder = write(toml + "\n" + (MINIMAL if not {"entity", "features", "predictions"} & set(extra) else ""))
    problems: tuple[Problem, ...] = ()
    try:
        assert len(load_pipeline(folder).logic_digest) == 64
    except PipelineInvalid as refused:
        problems = refused.problems
    for problem in problems:
        assert problem.place.startswith("churn/")
        assert problem.message.strip()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_pipeline_or_refused_in_words(write: Write, text: str) -> None:
    with pytest.raises(PipelineInvalid):
        load_pipeline(write(text))
