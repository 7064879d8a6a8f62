"""Retention: what is old goes behind a run, in batches; what readers, rollbacks, baselines, waivers and alarms need stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks import retention
from tasks.database import connect
from tasks.declaration import Performance, Retention
from tasks.errors import PipelineInvalid
from tasks.pipeline import Pipeline, load_pipeline
from tasks.population import Mode
from tasks.profiles.history import clean_runs
from tasks.rollback import rollback
from tasks.runs import Status
from tests.disturbances import Copies, prescore
from tests.factories import FEATURES_SQL, PIPELINE_TOML, World, make_model, make_pipeline

SERVED = "SELECT id, p, label FROM predictions.items ORDER BY id"
TOML = PIPELINE_TOML + '[drift]\nslot = "hour"\n'
OLD = 500

# A run and its publication, so many days ago, with everything that a run leaves behind.
MADE = """
WITH made AS (
    INSERT INTO prescore.runs (pipeline, mode, trigger, status, as_of, clock_at, ended_at, backend_pid, host, process_id,
                               generation_id, model, model_version, logic_digest, contract_digest, message)
    SELECT 'items', '{mode}', '{trigger}', 'published', c.at, c.at, c.at, 1, 'a host', 1, nextval('prescore.generation_ids'),
           'items', 1, 'logic', 'contract {name}', '{name}'
    FROM (SELECT date_trunc('hour', prescore.clock()) - interval '{days} days' + interval '30 minutes' AS at) AS c
    RETURNING *
),
published AS (
    INSERT INTO prescore.generations
    SELECT (jsonb_populate_record(g, jsonb_build_object('generation_id', m.generation_id, 'run_id', m.run_id, 'mode', m.mode,
            'storage_id', 3, 'published_at', m.clock_at, 'as_of', m.as_of))).*
    FROM made AS m
    JOIN prescore.generations AS g ON g.generation_id = (SELECT min(generation_id) FROM prescore.generations)
),
checked AS (
    INSERT INTO prescore.checks (run_id, pipeline, check_id, code, class, verdict, effective, reason)
    SELECT run_id, 'items', 'drift.input', 'D1', 'gauge', '{drift}', '{drift}', 'made' FROM made
),
counted AS (
    INSERT INTO prescore.profiles (run_id, kind, name, pipeline, model, model_version, rows)
    SELECT run_id, 'feature', 'a', 'items', 'items', 1, 10 FROM made
),
rejected AS (
    INSERT INTO prescore.rejections SELECT run_id, 'items', '{{"id": 1}}', 'no_features' FROM made
),
sampled AS (
    INSERT INTO prescore.prediction_samples SELECT 'items', generation_id, '{{"id": 1}}', as_of, 1, '{{"p": 0.5}}' FROM made
),
listed AS (
    INSERT INTO prescore.archives (pipeline, generation_id, url, status)
    SELECT 'items', generation_id, '/lake', 'archived' FROM made
),
read AS (
    INSERT INTO prescore.dataset_readings (pipeline, generation_id, digest, modified_at, rows)
    SELECT 'items', generation_id, 'digest', clock_at, 10 FROM made
),
judged AS (
    INSERT INTO prescore.contracts SELECT 'items', contract_digest, 'text', clock_at FROM made
)
SELECT run_id, generation_id FROM made
"""


@dataclass(frozen=True)
class Past:
    """A world with a past, and the runs of that by name."""

    world: World
    pipeline: Pipeline
    runs: dict[str, tuple[int, int]]

    @property
    def left(self) -> set[str]:
        """Names of the made runs that are there still."""
        return {name for (name,) in self.world.rows("SELECT message FROM prescore.runs WHERE host = 'a host'")}


@pytest.fixture(scope="module")
def stage(
    server_url: str, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Copies, str]]:
    """Items that were published three times, in a database to copy from."""
    copies = Copies(server_url, tmp_path_factory.mktemp("pipelines"))
    world = copies.of(module_database_url.rsplit("/", 1)[1].partition("?")[0], rows=300)
    make_model(world, make_pipeline(world, toml=TOML, features=FEATURES_SQL))
    for full in (True, False, True):
        world.execute("UPDATE public.items SET b = b + 0.01, updated_at = statement_timestamp() WHERE id = 7")
        assert world.score(full=full).status is Status.PUBLISHED
    yield copies, copies.close(world)
    copies.drop()


@pytest.fixture
def past(stage: tuple[Copies, str], monkeypatch: pytest.MonkeyPatch) -> Past:
    """Runs of long ago, some of which are needed, under limits that let few of them stay for their own sake."""
    copies, template = stage
    world = copies.of(template)
    for name, count in (("RECENT_RUNS", 1), ("HISTORY_RUNS", 1), ("BASELINE_RUNS", 1), ("_SPARE_RUNS", -3)):
        monkeypatch.setattr(retention, name, count)
    monkeypatch.setattr(retention.Rules, "remembered", 1)
    runs: dict[str, tuple[int, int]] = {}

    def make(name: str, days: float, mode: str = "full", trigger: str = "manual", drift: str = "pass") -> None:
        made = MADE.format(name=name, days=days, mode=mode, trigger=trigger, drift=drift)
        with connect(world.url) as connection:
            from tasks.database import raw_execute

            runs[name] = raw_execute(connection, made).fetchone()
            connection.commit()

    for number in range(1, 6):
        make(f"plain {number}", OLD + number)
    make("well", OLD + 30)
    make("alarm began", OLD + 20, drift="warn")
    make("alarm went on", OLD + 10, drift="fail")
    make("hidden", OLD)
    make("released", OLD)
    make("waived", OLD)
    make("waiver was first given", OLD + 1)
    make("other hour, older", OLD + 366.25, trigger="scheduled")
    make("other hour", OLD + 1.25, trigger="scheduled")
    make("baseline, older", OLD + 100, trigger="scheduled")
    make("baseline", OLD + 60, trigger="scheduled")
    make("newest of the past", OLD - 1)
    make("rejected lately", 89, mode="incremental")
    make("rejected", 91, mode="incremental")
    hidden, released = runs["hidden"][1], runs["released"][1]
    waived, first = runs["waived"][0], runs["waiver was first given"][0]
    world.execute(f"""
        INSERT INTO prescore.quarantines (pipeline, generation_id, because, effect) VALUES ('items', {hidden}, 'bad', 'unseen');
        INSERT INTO prescore.quarantines (pipeline, generation_id, because, effect, released_at, released_by)
        VALUES ('items', {released}, 'bad', 'unseen', now(), 'somebody');
        UPDATE prescore.checks SET waived = true WHERE run_id = {waived};
        INSERT INTO prescore.waivers (run_id, check_id, subject, first_run_id, because, until)
        VALUES ({waived}, 'drift.input', '', {first}, 'known', now() + interval '1 day');
        UPDATE prescore.pipelines SET past_removed_at = NULL;
        -- What is served warns of what the made runs warned of, and no run since then found it well.
        DELETE FROM prescore.checks WHERE check_id = 'drift.input' AND run_id < {runs["plain 1"][0]};
        INSERT INTO prescore.checks (run_id, pipeline, check_id, code, class, verdict, effective, reason)
        SELECT max(run_id), 'items', 'drift.input', 'D1', 'gauge', 'warn', 'warn', 'made' FROM prescore.generations
        WHERE run_id < {runs["plain 1"][0]};
        UPDATE prescore.checks SET effective = 'skipped' WHERE check_id = 'drift.input' AND effective = 'pass'
        AND run_id > {runs["alarm went on"][0]}
    """)
    return Past(world=world, pipeline=load_pipeline(world.settings.pipelines_dir / "items"), runs=runs)


NEEDED = {
    "well",
    "alarm began",
    "hidden",
    "waived",
    "waiver was first given",
    "newest of the past",
    "baseline",
    "other hour",
}
YOUNG = {"rejected lately", "rejected"}


def _counts(world: World) -> dict[str, int]:
    tables = (
        "checks",
        "profiles",
        "rejections",
        "prediction_samples",
        "archives",
        "dataset_readings",
        "generations",
        "quarantines",
    )
    return {table: world.rows(f"SELECT count(*) FROM prescore.{table}")[0][0] for table in tables}


def _baselines(past: Past) -> dict[Any, list[int]]:
    now = datetime.now(UTC)
    hours: list[datetime | None] = [None, *(now + timedelta(hours=number) for number in range(24))]
    with connect(past.world.url) as connection:
        return {
            None if hour is None else hour.hour: clean_runs(
                connection,
                "items",
                mode=Mode.FULL,
                model_version=1,
                before=hour or now,
                slot=None if hour is None else past.pipeline.drift.slot,
                limit=1,
            )
            for hour in hours
        }


def test_what_is_past_goes_behind_a_run_and_what_is_needed_stays(past: Past) -> None:
    world = past.world
    before, kept = _counts(world), _baselines(past)
    served = world.rows(SERVED)

    assert world.score().mode is Mode.INCREMENTAL

    gone = set(past.runs) - past.left
    assert gone == set(past.runs) - NEEDED - YOUNG
    assert _baselines(past) == kept
    after = _counts(world)
    assert (after["quarantines"], before["quarantines"]) == (1, 2)
    orphans = "SELECT FROM prescore.{0} WHERE generation_id NOT IN (SELECT generation_id FROM prescore.generations)"
    for table in ("archives", "dataset_readings", "prediction_samples"):
        assert not world.rows(orphans.format(table)), table
    listed = "SELECT r.message FROM prescore.rejections JOIN prescore.runs AS r USING (run_id) WHERE r.host = 'a host'"
    assert {name for (name,) in world.rows(listed)} == {"rejected lately", "hidden", "newest of the past"}
    sampled = "SELECT r.message FROM prescore.prediction_samples JOIN prescore.runs r USING (generation_id) WHERE host = 'a host'"
    assert world.rows(sampled) == [("rejected lately",)]
    contracts = world.rows("SELECT digest FROM prescore.contracts WHERE digest LIKE 'contract %'")
    assert {digest for (digest,) in contracts} == {f"contract {name}" for name in NEEDED | YOUNG}
    assert world.rows(SERVED) == served
    # Once a day is enough.
    with connect(world.url) as connection:
        assert retention.tidy(world.url, connection, past.pipeline) is None
        assert retention.remove_past(connection, past.pipeline, datetime.now(UTC)).told == ""


def test_what_head_serves_and_a_rollback_returns_to_stays_however_old_it_is(past: Past) -> None:
    world = past.world
    real = "SELECT run_id, generation_id FROM prescore.runs WHERE host <> 'a host' AND generation_id IS NOT NULL ORDER BY 1"
    before, served = world.rows(real), world.rows(SERVED)
    world.execute("UPDATE prescore.runs SET clock_at = clock_at - interval '900 days', trigger = 'manual'")

    with connect(world.url) as connection:
        removed = retention.remove_past(connection, past.pipeline, datetime.now(UTC))

    assert removed.complete
    assert world.rows(real) == before
    assert world.rows(SERVED) == served
    assert rollback(world.url, "items").generation_id == before[1][1]
    assert world.rows("SELECT count(*) FROM predictions.items") == [(300,)]


def test_batches_are_bounded_by_rows_and_by_time_and_a_break_between_them_is_mended_by_the_next_run(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, there = past.world, past.left
    monkeypatch.setattr(retention, "SECONDS_OF_A_RUN", 0)
    with connect(world.url) as connection:
        unfinished = retention.tidy(world.url, connection, past.pipeline)
    assert unfinished is not None
    assert not unfinished.complete
    assert past.left == there

    monkeypatch.setattr(retention, "SECONDS_OF_A_RUN", 60)
    monkeypatch.setattr(retention, "BATCH_RUNS", 2)
    monkeypatch.setattr(retention, "BATCH_ROWS", 3)
    batches = []

    def power_fails(point: str) -> None:
        batches.append(point)
        if len(past.left) < len(there):
            raise KeyboardInterrupt

    monkeypatch.setattr(retention, "reached", power_fails)
    with pytest.raises(KeyboardInterrupt), connect(world.url) as connection:
        retention.tidy(world.url, connection, past.pipeline)
    assert len(past.left) == len(there) - 2
    assert len(batches) > 3

    monkeypatch.undo()
    assert world.score().status is Status.PUBLISHED
    assert past.left < there


def test_a_run_whose_tidying_fails_has_published(past: Past, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    past.world.execute("ALTER TABLE prescore.contracts RENAME TO elsewhere")
    with connect(past.world.url) as connection:
        assert retention.tidy(past.world.url, connection, past.pipeline) is None
    assert "could not be removed: ProgrammingError; the next run tries again" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_kill_9_between_batches_leaves_whole_runs(past: Past, nth: int) -> None:
    world, served = past.world, past.world.rows(SERVED)
    assert prescore(world, "score", "items", kill_at=f"retention.batch:{nth}").returncode == -9
    assert world.rows(SERVED) == served
    assert not world.rows("SELECT FROM prescore.generations WHERE run_id NOT IN (SELECT run_id FROM prescore.runs)")
    assert world.score().status is Status.PUBLISHED
    assert world.rows("SELECT past_removed_at IS NOT NULL FROM prescore.pipelines") == [(True,)]


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        ('runs = "12h"', "runs: expected at least a day, found 12h"),
        ('runs = "30d"\nrejections = "31d"', "rejections (31d) is above runs (30d)"),
        ('samples = "401d"', "samples (401d) is above runs (400d)"),
        ('runs = "0s"', "runs"),
        ('keep = "1d"', "keep"),
        ('samples = "40d"', "40d is less than [performance] maturity and window together, 58d"),
        ('runs = "57d"', "57d is less than [performance] maturity and window together, 58d"),
    ],
)
def test_a_retention_that_cannot_be_meant_is_refused(
    stage: tuple[Copies, str], tmp_path: Path, declared: str, complaint: str
) -> None:
    folder = tmp_path / "items"
    folder.mkdir()
    text = f'{PIPELINE_TOML}\n[performance]\nmaturity = "30d"\n[retention]\n{declared}\n'
    for name, content in {
        "pipeline.toml": text,
        "features.sql": FEATURES_SQL,
        "changes.sql": "SELECT 1 AS id FROM since",
    }.items():
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(PipelineInvalid) as raised:
        load_pipeline(folder)
    assert complaint in str(raised.value)


def test_samples_are_kept_until_every_label_that_is_judged_has_matured() -> None:
    assert Retention().samples_of(Performance()) == timedelta(days=90)
    assert Retention().samples_of(Performance(maturity=timedelta(days=30))) == timedelta(days=90)
    assert Retention().samples_of(Performance(maturity=timedelta(days=90))) == timedelta(days=125)
    assert Retention(samples=timedelta(days=3)).samples_of(Performance()) == timedelta(days=3)
    assert Retention(runs=timedelta(days=60)).samples_of(Performance()) == timedelta(days=60)
