"""Logs as JSON: every line parses, those of a run say which, and none holds a secret or a value of the data."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from tasks import logs
from tasks.errors import PrescoreError, UsageError
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

pytestmark = pytest.mark.xdist_group("logs")

SECRET = "hush-31fe0b"
OF_RUN = {"run_id", "pipeline", "mode", "trigger", "step", "generation"}
SHARDS = PIPELINE_TOML + "[execution]\nworkers = 2\nshards = 2\n"


@pytest.fixture(scope="module")
def world(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(module_database_url, tmp_path_factory.mktemp("pipelines"), rows=2_000)
    make_model(world, make_pipeline(world))
    return world


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def prescore(world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command as `prescore` does; returns its exit code and what it wrote on both streams."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    handlers, level = root.handlers[:], root.level

    def run(*words: str, log_format: str = "json") -> tuple[int, str, str]:
        monkeypatch.setenv("PRESCORE_DATABASE_URL", world.url)
        monkeypatch.setenv("PRESCORE_PIPELINES", str(world.settings.pipelines_dir))
        monkeypatch.setenv("PRESCORE_DATA_DIR", str(world.settings.data_dir))
        monkeypatch.setenv("PRESCORE_LOG_FORMAT", log_format)
        monkeypatch.setattr(sys, "argv", ["prescore", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    yield run
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks
    root.handlers[:], root.level = handlers, level


def lines(text: str) -> list[dict[str, Any]]:
    """Parse every line."""
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_of_a_run_is_json_and_says_which_run_and_which_step(world: World, prescore: Command) -> None:
    make_pipeline(world)
    code, out, err = prescore("score", "items", "--full", "--json")

    told = lines(err)
    run_id = json.loads(out)["run_id"]
    assert code == 0
    assert told[0]["message"] == f"run {run_id} begins"
    assert all(line.keys() >= OF_RUN | {"time", "level", "logger", "message"} for line in told)
    assert {line["run_id"] for line in told} == {run_id}
    after = told[[line["step"] for line in told].index("select the population") :]
    assert {(line["model"], line["model_version"]) for line in after} == {("items", 1)}
    assert told[-1]["step"] == "publish"
    assert told[-1]["message"] == f"run {run_id} ended: published"
    assert told[-1].items() >= {"status": "published", "population": 2_000, "scored": 2_000, "rejected": 0}.items()
    assert world.url not in err


@pytest.mark.slow
def test_shards_in_processes_of_their_own_log_as_part_of_the_run(world: World, prescore: Command) -> None:
    make_pipeline(world, toml=SHARDS)

    code, out, err = prescore("score", "items", "--full", "--json")

    told = lines(err)
    written = [line for line in told if line["message"].startswith("shard ")]
    assert code == 0
    assert sorted(line["shard"] for line in written) == [1, 2]
    assert len({line["process"] for line in told}) == 3
    assert {line["run_id"] for line in told} == {json.loads(out)["run_id"]}
    assert all(line["model_version"] == 1 and line["pipeline"] == "items" for line in written)


def test_a_run_that_fails_and_a_command_that_is_refused_say_so_in_a_line_without_data(
    world: World, prescore: Command
) -> None:
    # It divides by zero at one item, which the planner cannot see.
    features = (
        "SELECT i.id, b.as_of, i.a / CASE WHEN i.id = 1900 THEN 0 ELSE 1 END AS a, i.b, i.c "
        "FROM batch AS b JOIN public.items AS i ON i.id = b.id"
    )
    make_pipeline(world, features=features)

    failed, _, err = prescore("score", "items", "--full")
    refused, _, other = prescore("score", "nowhere")
    make_pipeline(world)

    told = lines(err)
    (ended,) = [line for line in told if line.get("status") == "failed"]
    assert (failed, refused) == (1, 2)
    assert ended.keys() >= OF_RUN
    assert (told[-1]["level"], told[-1]["kind"]) == ("ERROR", "StatementFailed")
    assert [(line["level"], line["kind"]) for line in lines(other)] == [("ERROR", "PipelineNotFound")]


def test_text_is_what_people_get_without_the_setting_and_another_word_is_refused(
    world: World, prescore: Command
) -> None:
    make_pipeline(world)
    code, out, err = prescore("score", "items", "--full", log_format="")
    wrong, _, said = prescore("status", log_format="xml")

    assert (code, err) == (0, "")
    assert "Published generation" in out
    assert wrong == 2
    assert (
        said
        == 'prescore: PRESCORE_LOG_FORMAT is "xml", expected text or json. Nothing was done. Correct or unset it.\n'
    )


@pytest.fixture
def stream() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger that writes JSON into a text."""
    text = io.StringIO()
    logger = logging.getLogger("prescore.test")
    handler = logs.JsonHandler(text)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger, text
    logger.removeHandler(handler)


def test_passwords_and_values_in_what_libraries_raise_are_not_written(
    stream: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, text = stream

    def fail() -> None:
        try:
            int(f"Key (email)=(anna@example.com) already exists, {SECRET}")
        except ValueError as error:
            raise PrescoreError("The shard was not written.") from error

    try:
        fail()
    except PrescoreError:
        logger.exception("could not connect to postgresql://me:%s@db.example.com/shop password=%s", SECRET, SECRET)

    (line,) = lines(text.getvalue())
    assert line["message"] == "could not connect to postgresql://me:***@db.example.com/shop password=***"
    assert [each["kind"] for each in line["error"]] == ["PrescoreError", "ValueError"]
    assert [each.get("message") for each in line["error"]] == ["The shard was not written.", None]
    assert line["error"][1]["at"][-1].endswith(" fail")
    assert "anna@example.com" not in text.getvalue()
    assert SECRET not in text.getvalue()
    assert str(Path(__file__).parent.parent) not in text.getvalue()


def test_threads_that_adopt_it_and_what_is_noted_later_are_about_the_same_run(
    stream: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, text = stream
    begun, noted = threading.Event(), threading.Event()

    def work(fields: Any) -> None:
        logs.adopt(fields)
        logger.info("a")
        begun.set()
        noted.wait(10)
        logger.info("b", extra={"step": "its own"})

    with logs.about(pipeline="items", run_id=7, model=None):
        thread = threading.Thread(target=work, args=(logs.current(),))
        thread.start()
        begun.wait(10)
        logs.note(model_version=3, step="score")
        noted.set()
        thread.join()
        logger.info("c")
    logger.info("d")
    logs.note(run_id=8)

    a, b, c, d = (
        {name: value for name, value in line.items() if name in logs.FIELDS} for line in lines(text.getvalue())
    )
    assert a == {"pipeline": "items", "run_id": 7}
    assert b == {"pipeline": "items", "run_id": 7, "model_version": 3, "step": "its own"}
    assert c == {"pipeline": "items", "run_id": 7, "model_version": 3, "step": "score"}
    assert d == {}
    with pytest.raises(KeyError, match="customer"):
        logs.note(customer=1) if logs.current() else logs.about(customer=1).__enter__()
    with pytest.raises(UsageError):
        logs.configure(environ={"PRESCORE_LOG_FORMAT": "logfmt"})
