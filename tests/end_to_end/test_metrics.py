"""`metrics`: what a scraper is told of real runs, by a role that sees the views of health and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from flows.cli import app
from flows.exporter import expose
from tasks import metrics
from tasks.findings import CheckClass, Disposition, Verdict
from tasks.quarantine import quarantine
from tasks.runs import Status
from tasks.settings import Settings
from tests import readme
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

# Made once and used by all: one worker.
pytestmark = pytest.mark.xdist_group("metrics")

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
VIEWS = ("pipeline", "run", "check", "schedule", "model", "storage", "installation")
TOML = (
    PIPELINE_TOML
    + """
[schedule]
timezone = "UTC"
full = "0 3 * * *"
incremental = "*/15 * * * *"
[serve]
aging_after = "26h"
stale_after = "36h"
serve_stale_for = "72h"
"""
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def world(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A pipeline that published a full and an incremental run at noon, one entity rejected; clocks are set by the tests."""
    world = make_world(module_database_url, tmp_path_factory.mktemp("pipelines"), rows=600)
    world.execute(f"UPDATE public.items SET updated_at = '{(NOW - timedelta(hours=1)).isoformat()}'")
    world.set_clock(NOW)
    features = (
        "SELECT i.id, b.as_of, i.a, i.b, i.c FROM batch AS b JOIN public.items AS i ON i.id = b.id WHERE i.id <> 7"
    )
    pipeline = make_pipeline(world, toml=TOML, features=features)
    make_model(world, pipeline, train_data_until=NOW - timedelta(days=1))
    assert world.score(full=True).rejected == 1
    return world


@pytest.fixture(scope="module")
def onlooker(world: World) -> Iterator[Settings]:
    """The settings of a role that may read the views of health, and nothing else."""
    role = f"onlooker_{make_url(world.url).database}"
    world.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hush-8d20aa'")
    world.execute(f"GRANT USAGE ON SCHEMA prescore TO {role}")
    for view in VIEWS:
        world.execute(f"GRANT SELECT ON prescore.{view}_health TO {role}")
    url = make_url(world.url).set(username=role, password="hush-8d20aa").render_as_string(hide_password=False)
    yield replace(world.settings, database_url=url)
    world.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def command(settings: Settings, *words: str) -> Any:
    """Run `prescore metrics` with a database."""
    return CliRunner().invoke(app, ["metrics", *words], env={"PRESCORE_DATABASE_URL": settings.database_url or ""})


def samples(text: str, parse: Any = parse_openmetrics) -> Samples:
    """Parse as Prometheus does."""
    return {(s.name, frozenset(s.labels.items())): s.value for family in parse(text) for s in family.samples}


def get(found: Samples, name: str, **labels: str) -> float | None:
    """Return a sample of the pipeline, or one without labels."""
    named = {"pipeline": "items", **labels} if name not in {"prescore_up"} else labels
    return found.get((name, frozenset(named.items())))


def state_of(found: Samples, name: str = "prescore_pipeline_state") -> list[str]:
    """Return the states of a set that are on."""
    return [dict(labels)[name] for (sample, labels), value in found.items() if sample == name and value == 1]


def test_a_scraper_is_told_what_the_runs_did_and_what_is_promised(world: World, onlooker: Settings) -> None:
    world.set_clock(NOW + timedelta(hours=4))

    done = command(onlooker)
    found = samples(done.stdout)

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("# EOF\n")
    run = world.one("SELECT * FROM prescore.run_health")
    told = world.one("SELECT * FROM prescore.pipeline_health")
    assert get(found, "prescore_up") == 1
    assert state_of(found) == ["fresh"]
    assert get(found, "prescore_data_age_seconds") == pytest.approx(4 * 3600)
    assert get(found, "prescore_until_aging_seconds") == pytest.approx(22 * 3600)
    assert get(found, "prescore_until_stale_seconds") == pytest.approx(32 * 3600)
    assert get(found, "prescore_until_expired_seconds") == pytest.approx(
        (told["expires_at"] - NOW - timedelta(hours=4)).total_seconds()
    )
    assert [get(found, "prescore_rows", readers=kind) for kind in ("usable", "rejected", "hidden")] == [599, 1, 0]
    assert state_of(found, "prescore_last_run_status") == ["published"]
    assert get(found, "prescore_run_duration_seconds") == pytest.approx(run["seconds"])
    assert get(found, "prescore_run_rows_per_second") == pytest.approx(run["rows_per_second"])
    assert get(found, "prescore_run_cpu_seconds", process="python") == pytest.approx(run["cpu_seconds"])
    assert [get(found, "prescore_run_entities", result=kind) for kind in ("scored", "rejected")] == [599, 1]
    assert get(found, "prescore_recent_runs", status="published") == 1
    assert get(found, "prescore_consecutive_failures") == 0
    assert get(found, "prescore_model_info", model="items", alias="champion", version="1") == 1
    assert get(found, "prescore_model_age_seconds") == pytest.approx(28 * 3600)
    # The first tick after the run was at 12:15; nothing covers it yet.
    assert get(found, "prescore_schedule_late_seconds", mode="incremental") == pytest.approx(3.75 * 3600)
    assert get(found, "prescore_schedule_late_seconds", mode="full") == 0
    assert get(found, "prescore_overdue") == 1
    relation = "prescore_rows.items_" + str(world.rows("SELECT storage_id FROM prescore.head")[0][0])
    measured = world.rows(f"SELECT pg_total_relation_size('{relation}')")[0][0]
    assert 0 < (get(found, "prescore_storage_bytes", role="current") or 0) <= measured
    for check, observed, ratio in world.rows(
        "SELECT check_id, max(observed), max(observed / warn_limit) FROM prescore.checks "
        "WHERE unit = 'PSI' AND observed IS NOT NULL GROUP BY 1"
    ):
        assert get(found, "prescore_drift_psi", check=check) == pytest.approx(observed)
        assert get(found, "prescore_drift_limit_ratio", check=check) == pytest.approx(ratio)
    counted = world.rows("SELECT class, effective, count(*) FROM prescore.checks GROUP BY 1, 2")
    for class_, effective, count in counted:
        assert get(found, "prescore_checks", **{"class": class_, "verdict": effective}) == count
    assert sum(value for (name, _), value in found.items() if name == "prescore_checks") == sum(c for *_, c in counted)
    assert sum(v for (name, _), v in found.items() if name == "prescore_check_dispositions") == sum(
        c for *_, c in counted
    )


@pytest.mark.parametrize(
    ("hours", "state", "usable"), [(2, "fresh", 599), (27, "aging", 599), (37, "stale", 599), (400, "expired", 0)]
)
def test_the_state_follows_the_clock_while_nothing_runs(
    world: World, onlooker: Settings, hours: int, state: str, usable: int
) -> None:
    world.set_clock(NOW + timedelta(hours=hours))

    found = samples(metrics.write(metrics.read(onlooker)))

    assert state_of(found) == [state]
    assert [get(found, "prescore_rows", readers=kind) for kind in ("usable", "hidden")] == [usable, 599 - usable]
    assert (get(found, "prescore_until_stale_seconds") or 0) == pytest.approx((36 - hours) * 3600)


def test_the_words_of_states_and_verdicts_are_those_of_runs_and_readers() -> None:
    assert {*metrics.STATUSES, "skipped"} == {status.value for status in Status}
    listed = {
        word for row in readme.rows(readme.section("Look up a prediction")) for word in re.findall(r"`(\w+)`", row[0])
    }
    assert {*metrics.ROW_STATES, "missing"} <= listed
    assert set(metrics.STATES) <= {*metrics.ROW_STATES, "missing"}
    assert set(metrics.CLASSES) == {each.value for each in CheckClass}
    assert set(metrics.EFFECTS) == {each.value for each in Verdict} - {"unknown"}
    assert set(metrics.DISPOSITIONS) == {each.name.lower() for each in Disposition}


def test_rows_are_counted_one_by_one_for_a_reader_who_asks(world: World) -> None:
    world.set_clock(NOW + timedelta(hours=37))

    done = command(world.settings, "--count-rows")
    found = samples(done.stdout)

    of_view = dict(world.rows("SELECT state, count(*) FROM predictions.items GROUP BY 1"))
    assert of_view == {"stale": 599, "rejected": 1}
    told = {state: get(found, "prescore_rows_by_state", state=state) for state in metrics.ROW_STATES}
    assert told == {state: of_view.get(state, 0) for state in metrics.ROW_STATES}


def test_who_may_not_count_rows_is_told_and_the_scraper_sees_that_nothing_could_be_read(onlooker: Settings) -> None:
    done = command(onlooker, "--count-rows")

    assert done.exit_code == 1
    assert "permission denied" in done.stderr
    assert get(samples(done.stdout), "prescore_up") == 0


def test_every_name_is_in_the_readme_and_ends_in_its_unit(world: World) -> None:
    text = metrics.write(metrics.read(world.settings, count_rows=True))
    families = list(parse_openmetrics(text))

    listed = {
        name for row in readme.rows(readme.section("Metrics")) for name in re.findall(r"`(prescore_\w+)`", row[0])
    }
    told = {family.name + ("_info" if family.type == "info" else "") for family in families}
    # The check leaves storages alone that are too small to count.
    assert listed == told | {"prescore_storage_bloat_ratio"}
    for family in families:
        assert family.name.startswith("prescore_")
        assert family.documentation.endswith(".")
        assert not family.unit or family.name.endswith("_" + family.unit)
        if family.name.endswith(("_seconds", "_bytes")):
            assert family.unit == family.name.rpartition("_")[2]


def test_a_file_for_node_exporter_is_in_its_format_and_replaced_as_a_whole(
    world: World, onlooker: Settings, tmp_path: Path
) -> None:
    world.set_clock(NOW)
    path = tmp_path / "prescore.prom"
    path.write_text("what was there before", encoding="utf-8")
    seen: set[str] = set()
    stop = threading.Event()

    def scrape() -> None:
        while not stop.is_set():
            seen.add(path.read_text(encoding="utf-8").rstrip()[-1:])
            seen.update("torn" for each in tmp_path.glob("*.prom") if not each.stat().st_size)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        codes = [command(onlooker, "--output", str(path)).exit_code for _ in range(3)]
    finally:
        stop.set()
        scraper.join()

    text = path.read_text(encoding="utf-8")
    types = {line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    assert codes == [0, 0, 0]
    assert types == {"gauge"}  # node_exporter refuses a whole file for a type that it does not know
    assert set(samples(text, parse_prometheus)) == set(samples(metrics.write(metrics.read(onlooker))))
    assert seen == {"e", text.rstrip()[-1]}
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["prescore.prom"]


def test_a_database_that_does_not_answer_is_a_metric_an_exit_code_and_a_sentence(tmp_path: Path) -> None:
    nowhere = Settings(
        database_url="postgresql://me:hush-77@127.0.0.1:1/shop", pipelines_dir=tmp_path, data_dir=tmp_path
    )
    path = tmp_path / "prescore.prom"

    done = command(nowhere, "--output", str(path))

    found = samples(path.read_text(encoding="utf-8"), parse_prometheus)
    assert done.exit_code == 1
    assert "Health could not be read from database shop on 127.0.0.1" in done.stderr
    assert "hush" not in done.output
    assert get(found, "prescore_up") == 0
    assert {name for name, _ in found} == {"prescore_up", "prescore_build_info", "prescore_migrations_shipped"}


def test_a_folder_that_cannot_be_written_and_a_format_that_is_none_are_refused(
    onlooker: Settings, tmp_path: Path
) -> None:
    refused = command(onlooker, "--output", str(tmp_path / "nowhere" / "x.prom"))
    unknown = command(onlooker, "--format", "xml")

    assert "could not be written" in str(refused.exception)
    assert "Say openmetrics or prometheus" in str(unknown.exception)


def test_the_exporter_answers_in_the_format_that_is_asked_for(onlooker: Settings) -> None:
    with expose(replace(onlooker, metrics_port=0)) as address:
        assert address is not None
        assert address.startswith("http://127.0.0.1:")
        answers = {}
        for accept in ("application/openmetrics-text; version=1.0.0", "text/plain"):
            asked = urllib.request.Request(address, headers={"Accept": accept})
            with urllib.request.urlopen(asked, timeout=30) as answer:
                answers[answer.headers["Content-Type"]] = answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address.replace("/metrics", "/"), timeout=30)

    modern, plain = sorted(answers)
    assert get(samples(answers[modern]), "prescore_up") == 1
    assert get(samples(answers[plain], parse_prometheus), "prescore_up") == 1


def test_failures_add_up_until_a_run_publishes_and_a_quarantine_hides_the_rows(world: World) -> None:
    world.set_clock(NOW + timedelta(minutes=5))
    world.execute("ALTER TABLE public.items RENAME COLUMN a TO aa")
    for _ in range(2):
        with pytest.raises(Exception, match=r"features\.sql"):
            world.score()
    failed = samples(metrics.write(metrics.read(world.settings)))
    world.execute("ALTER TABLE public.items RENAME COLUMN aa TO a")
    published = world.score(full=True)
    well = samples(metrics.write(metrics.read(world.settings)))
    assert published.generation_id is not None
    quarantine(world.url, "items", published.generation_id, "a test")
    hidden = samples(metrics.write(metrics.read(world.settings)))

    assert get(failed, "prescore_consecutive_failures") == 2
    assert state_of(failed, "prescore_last_run_status") == ["failed"]
    assert get(failed, "prescore_recent_runs", status="failed") == 2
    assert get(well, "prescore_consecutive_failures") == 0
    # Readers see the generation before again, of which nothing is hidden.
    assert get(hidden, "prescore_rows", readers="usable") == 599
    assert get(well, "prescore_published_timestamp_seconds") != get(hidden, "prescore_published_timestamp_seconds")


@pytest.mark.slow
def test_the_command_loads_neither_prefect_nor_a_model_library(onlooker: Settings) -> None:
    program = """
import sys
from flows.cli import app
try:
    app(["metrics"])
except SystemExit:
    pass
heavy = {"prefect", "sklearn", "pandas", "numpy", "sqlalchemy", "pyarrow"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""
    environment = {"PRESCORE_DATABASE_URL": onlooker.database_url or "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
