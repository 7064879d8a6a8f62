"""The README tells the truth: commands, settings, checks, states, types, modules and examples are those of the code."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pglast import parse_sql

from flows.cli import app
from flows.score import RunSummary
from tasks import columns, readers, settings, usersql
from tasks.checks import CHECKS
from tasks.declaration import Output
from tasks.freshness import Disposition
from tasks.pipeline import load_pipeline
from tasks.population import FULL_ABOVE, Mode
from tasks.runs import Status, Trigger
from tests import readme
from tests.readme import README, REPOSITORY


def _commands(group: Any, prefix: str = "prescore") -> Iterator[tuple[str, Any]]:
    """Yield every command below a group. By shape, not by class: typer may carry a click of its own."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


COMMANDS = dict(_commands(typer.main.get_command(app)))
# Options that every command has, and those of `prescore` itself.
EVERYWHERE = {"--help", "--verbose"}


def _options(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "option"]


def test_the_two_commands_are_there_word_for_word() -> None:
    lines = {line for block in readme.shown("console") for line in block.text.splitlines()}
    assert {"pip install uv && uv run prescore demo", "uv run pytest"} <= lines


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_is_in_the_table_of_commands(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    listed = [row for row in readme.rows(readme.section("Commands")) if re.match(rf"`{name}( |`)", row[0])]
    assert len(listed) == 1
    assert listed[0][1]


def test_the_table_of_commands_lists_nothing_else() -> None:
    listed = [row[0].strip("`") for row in readme.rows(readme.section("Commands"))]
    assert len(listed) == len(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_is_in_the_readme(name: str) -> None:
    for option in _options(COMMANDS[name]):
        long = next(written for written in option.opts if written.startswith("--"))
        assert option.help, long
        assert long in README


def _written_commands() -> list[str]:
    """Every call of prescore in the text and the examples, as it is written."""
    lines = [
        line for language in ("console", "cron") for block in readme.shown(language) for line in block.text.splitlines()
    ]
    written = [part for line in lines for part in re.split(r"&&|\|\||[|>#]", line)]
    written += sorted(readme.words(README))
    calls = (re.search(r"(?<![\w/\"(-])prescore ((?!_)[a-z-].*)", part) for part in written)
    return [call[1].strip() for call in calls if call and not call[1].startswith("database url)")]


def test_there_are_written_commands_to_check() -> None:
    assert len(_written_commands()) > 25


@pytest.mark.parametrize("written", _written_commands())
def test_every_command_that_is_written_somewhere_exists_with_its_options(written: str) -> None:
    words = [word for word in written.split() if word not in EVERYWHERE]
    if words[0] == "COMMAND":
        return
    named = " ".join(["prescore", *words[: 2 if words[0] in {"models", "database"} else 1]])
    assert named in COMMANDS
    options = {word.strip("[]`") for word in words if word.lstrip("[").startswith("--")}
    assert options <= {name for option in _options(COMMANDS[named]) for name in option.opts}


def test_every_setting_that_is_read_is_in_the_table_of_settings() -> None:
    tree = ast.parse(inspect.getsource(settings))
    read = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        if isinstance(node.args[0], ast.Constant)
    }
    listed = {row[0].strip("`") for row in readme.rows(readme.section("Settings"))}
    assert "PRESCORE_DATABASE_URL" in read
    assert listed == read | {"PREFECT_API_URL"}


def test_every_variable_of_prescore_in_the_readme_is_read_somewhere() -> None:
    named = set(re.findall(r"PRESCORE_[A-Z_]+", README))
    folders = [REPOSITORY / "tasks", REPOSITORY / "flows", REPOSITORY / "tests", REPOSITORY / ".ci"]
    sources = [
        path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ""} and path.is_file()
    ]
    sources.append(REPOSITORY / "deployments" / "compose.yaml")  # Compose reads what it puts in place of ${...}
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources if path.name != "test_readme.py")
    assert {name for name in named if name not in text} == set()


# Examples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("declaration", readme.declarations())
def test_every_pipeline_toml_validates_with_the_files_that_are_shown(declaration: str, tmp_path: Path) -> None:
    folder = tmp_path / "churn"
    folder.mkdir()
    for name, text in {"pipeline.toml": declaration, **readme.pipeline_files()}.items():
        (folder / name).write_text(text, encoding="utf-8")

    pipeline = load_pipeline(folder)

    assert pipeline.entity.key == ("customer_id",)
    assert pipeline.model.name == "churn"
    assert pipeline.predictions[0].name == "churn_probability"
    # What is shown as an example is not worth a warning; a short one may leave the sources out.
    assert [warning for warning in pipeline.warnings if "[[source]]" not in warning] == []


def test_the_pipeline_of_the_ten_minutes_validates(tmp_path: Path) -> None:
    for block in readme.chapter():
        if block.file is not None:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")

    pipeline = load_pipeline(tmp_path / "pipelines" / "telco")

    assert pipeline.entity.key == ("customerID",)
    assert [warning for warning in pipeline.warnings if "[[source]]" not in warning] == []


def test_the_short_declaration_is_short_and_the_long_one_names_every_table() -> None:
    short, full = readme.declarations()
    lines = [line for line in short.splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 15
    signature = inspect.getsource(__import__("tasks.pipeline", fromlist=["_TABLES"]))
    tables = re.findall(r'^    "([a-z]+)",$', signature.split("_TABLES = (")[1].split(")")[0], re.MULTILINE)
    missing = [name for name in tables if not re.search(rf"^(\[+{name}\]+|{name} = )", full, re.MULTILINE)]
    assert tables
    assert missing == []


def test_every_file_of_a_pipeline_is_shown() -> None:
    assert set(readme.pipeline_files()) == {"features.sql", "changes.sql", "labels.sql", "model.py"}


@pytest.mark.parametrize("block", readme.shown("sql"), ids=lambda block: block.text.splitlines()[0])
def test_every_sql_example_parses(block: readme.Block) -> None:
    assert parse_sql(block.text)


@pytest.mark.parametrize("block", readme.shown("python"), ids=lambda block: block.text.splitlines()[0])
def test_every_python_example_compiles_and_imports_what_is_there(block: readme.Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in {"flows", "tasks"}:
            source = (REPOSITORY / f"{node.module.replace('.', '/')}.py").read_text(encoding="utf-8")
            defined = {item.name for item in ast.parse(source).body if isinstance(item, ast.FunctionDef | ast.ClassDef)}
            assert {alias.name for alias in node.names} <= defined


def test_every_link_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", README):
        assert target[1:] in anchors if target.startswith("#") else (REPOSITORY / target).exists(), target


# Tables ------------------------------------------------------------------------------------------------------------


def test_the_table_of_checks_is_that_of_the_code() -> None:
    actions = {
        Disposition.ABORT: "abort",
        Disposition.HOLD: "hold",
        Disposition.PUBLISH_FLAGGED: "publish flagged",
        Disposition.PUBLISH: "publish",
    }
    listed = {
        row[0].strip("`"): (row[1], row[3])
        for row in readme.rows(readme.section("What happens on each run"))
        if len(row) == 4
    }
    assert list(listed) == [check.id for check in CHECKS]
    for check in CHECKS:
        code, action = listed[check.id]
        assert code == check.code
        assert action == actions[check.on_fail] or action in {"(warns only)", "(counts only)"}


def test_the_table_of_endings_has_every_status_and_the_exit_codes_of_the_code() -> None:
    listed = {
        row[0].strip("`"): row[2] for row in readme.rows(readme.section("What happens on each run")) if len(row) == 3
    }
    assert set(listed) == {str(status) for status in Status}
    for status in (Status.PUBLISHED, Status.SKIPPED, Status.HELD, Status.ABORTED, Status.FAILED):
        summary = RunSummary(pipeline="churn", run_id=1, status=status, trigger=Trigger.MANUAL, mode=Mode.FULL)
        assert listed[str(status)] == str(summary.exit_code)


def test_the_table_of_states_is_in_the_order_of_the_view() -> None:
    view = (REPOSITORY / "sql" / "queries" / "create_predictions_view.sql").read_text(encoding="utf-8")
    ranked = re.findall(r"(?:THEN|ELSE) '([a-z_]+)'", view[view.index("WHEN r.scored_in = ANY") :])
    listed = [
        row[0].strip("`") for row in readme.rows(readme.section("What stale means, and what to do")) if len(row) == 4
    ]
    assert listed == [*ranked, "missing"]
    first = {
        word.strip("` ") for row in readme.rows(readme.section("Look up a prediction")) for word in row[0].split(",")
    }
    assert set(listed) <= first


def test_states_without_a_prediction_are_those_that_the_view_masks() -> None:
    view = (REPOSITORY / "sql" / "queries" / "create_predictions_view.sql").read_text(encoding="utf-8")
    ranked = re.findall(r"WHEN r\.\w+ .*?(?:h\.(\w+)\)?|NULL) THEN '([a-z_]+)'", view)
    masks = re.findall(r"h\.(\w+)|r\.rejected()", readers._SHOWN)
    hidden = {state for limit, state in ranked if limit in {name for name, *_ in masks}}
    usable = {state for _, state in ranked} - hidden | {"fresh"}
    listed = {
        row[0].strip("`"): row[2]
        for row in readme.rows(readme.section("What stale means, and what to do"))
        if len(row) == 4
    }
    assert {state for state, told in listed.items() if told == "shown"} == usable


def test_the_type_table_is_that_of_the_code() -> None:
    table = readme.rows(readme.section("Types"))
    listed = {word: row[2] == "yes" for row in table if len(row) == 3 for word in readme.words(row[0])}
    assert set(columns.TYPES) <= set(listed)
    assert {name for name, is_key in listed.items() if is_key and name in columns.TYPES} == {
        name for name, found in columns.TYPES.items() if found.key
    }
    casts = {name: row[1].strip("`") for row in table if len(row) == 2 for name in readme.words(row[0])}
    for name, cast in casts.items():
        with pytest.raises(columns.TypeNotSupported, match=re.escape(f"Write {cast} AS x")):
            columns.feature_column("x", {"time": "time without time zone"}.get(name, name), "b", "features.sql")


@pytest.mark.parametrize(
    ("row", "column", "code"),
    [
        ("functions that do something", 0, "effect"),
        ("and the like", 0, "clock"),
        ("something derived from the key", 0, "random"),
    ],
)
def test_what_the_readme_says_of_a_function_is_what_a_query_that_calls_it_is_told(
    row: str, column: int, code: str
) -> None:
    (listed,) = [cells for cells in readme.rows(readme.section("The queries")) if row in " ".join(cells)]
    words = [word for word in readme.words(listed[column]) if word != "TABLESAMPLE"]
    assert words
    for word in words:
        called = word if re.search(r"\)$|::|current_", word) else f"{word}('x')"
        query = usersql.read_query(f"SELECT b.id, {called.replace('age(x)', 'age(b.x)')} AS y FROM batch AS b", "q.sql")
        assert [found.code for found in usersql.judge(query, "batch")] == [code], word


def test_every_method_that_an_output_may_have_is_in_the_table_of_predictions() -> None:
    methods = Output.model_fields["method"].annotation.__args__  # type: ignore[union-attr]
    told = readme.section("Predictions")
    assert [method for method in methods if method not in told] == []


def test_a_fifth_of_the_population_is_what_makes_a_run_full() -> None:
    assert FULL_ABOVE == 1 / 5


def test_the_layout_lists_every_module_and_no_other() -> None:
    folder, listed = "", set()
    for line in readme.section("Layout").splitlines():
        found = re.match(r"(  )?([a-z_./]+)", line)
        if found is None or line.startswith("```"):
            continue
        if found[1] is None:
            folder = found[2]
        elif folder in {"flows/", "tasks/"}:
            listed.add(folder + found[2])
    there = {
        f"{name}/{path.name}" + ("/" if path.is_dir() else "")
        for name in ("flows", "tasks")
        for path in (REPOSITORY / name).iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py") or (path / "__init__.py").exists()
    }
    assert listed == there
