"""Nights in which the database, the sources or the clock get in the way of runs.

Each fault is followed by a look at what readers see, at what the records of the runs say, and at the next run, which has to
put everything right by itself. By default one of them is tried: ``uv run pytest -m slow tests/end_to_end/test_nights.py``
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from flows.score import RunSummary
from tasks import faults
from tasks.errors import PrescoreError
from tasks.runs import AsOfRefused, Status, Trigger
from tests.conftest import psql_url
from tests.disturbances import WAITING, wait_until
from tests.nights import LONGEST_DELAY, Night, Once, make_night, reading

pytestmark = pytest.mark.xdist_group("nights")

#: Connections of runs, of which one is ended.
ENDABLE = """
SELECT pid, application_name FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'prescore %' AND pid <> pg_backend_pid()
ORDER BY application_name, backend_start
"""


@pytest.fixture(scope="module")
def _night(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Night:
    return make_night(module_database_url, tmp_path_factory.mktemp("night"))


@pytest.fixture
def night(_night: Night) -> Iterator[Night]:
    """A night that each test leaves as it was: served as the sources are, and nothing else."""
    yield _night
    _night.require_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "cuts"), [(2, 100)])
def test_connections_that_are_ended_at_random_moments_cost_a_run_and_nothing_else(
    night: Night, seed: int, cuts: int
) -> None:
    chance, ended, outcomes = random.Random(seed), Counter[str](), Counter[str]()

    def end_one() -> None:
        there = night.world.rows(ENDABLE)
        if there:
            pid, name = chance.choice(there)
            night.world.rows(f"SELECT pg_terminate_backend({pid}, 60000)")
            ended[name] += 1

    with reading(night):
        while ended.total() < cuts:
            night.change(chance)
            before, full = ended.total(), chance.random() < 0.5
            moment = Once(chance.randint(1, 33), chance.choice((0.0, chance.uniform(0, LONGEST_DELAY))), end_one)
            raised: PrescoreError | None = None
            with faults.listening(moment):
                try:
                    assert night.world.score(full=full).status is Status.PUBLISHED
                except PrescoreError as error:
                    raised = error
            moment.join()
            where = f"{moment.seconds * 1000:.1f} ms after {moment.at}"
            print(f"{where}, a {'full' if full else 'incremental'} run: {raised or 'published'}")
            published, last = night.look(), night.last_run()
            if raised is None:
                assert published
            elif not published:
                if moment.at != "run.locked":  # from then on there is a record of it
                    assert (last["status"], last["message"]) == (Status.FAILED, str(raised))
                assert "served" in str(raised) or "Nothing was changed" in str(raised)
            else:
                assert last["status"] == Status.PUBLISHED
            outcomes["published" if published else "failed"] += ended.total() - before
            if chance.random() < 0.3:
                night.require_next_run_needs_no_hands(full=chance.random() < 0.5)
        night.require_next_run_needs_no_hands()
    print(f"ended: {dict(ended)}; then: {dict(outcomes)}")


# Limits and locks of others --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_limits_that_were_set_for_short_statements_end_no_run(night: Night) -> None:
    """Of the database, as somebody sets them for its applications; each is shorter than a run takes."""
    limits = ["statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"]
    version = night.world.rows("SELECT current_setting('server_version_num')::integer")[0][0]
    limits += ["transaction_timeout"] if version >= 170000 else []
    database = night.world.rows("SELECT current_database()")[0][0]
    # A view in place of the table: every scan of it takes longer than the limits.
    night.world.execute(
        "CREATE FUNCTION public.slowly(bigint) RETURNS boolean LANGUAGE plpgsql STABLE "
        "AS $$ BEGIN PERFORM pg_sleep(0.001); RETURN true; END $$;"
        "ALTER TABLE public.items RENAME TO items_kept;"
        "CREATE VIEW public.items AS SELECT * FROM public.items_kept WHERE public.slowly(id)"
    )
    try:
        for limit in limits:
            night.world.execute(f"ALTER DATABASE {database} SET {limit} = '250ms'")
        assert night.world.score(full=True).status is Status.PUBLISHED
    finally:
        for limit in limits:
            night.world.execute(f"ALTER DATABASE {database} RESET {limit}")
        night.world.execute(
            "DROP VIEW public.items; ALTER TABLE public.items_kept RENAME TO items; DROP FUNCTION public.slowly"
        )
    assert night.look()
    night.require_next_run_needs_no_hands()


@pytest.mark.slow
def test_a_long_report_keeps_what_it_sees_and_no_run_waits_for_it(night: Night) -> None:
    """It holds its locks on the views and all storages while those are emptied, filled, indexed, analysed and served."""
    chance = random.Random(3)
    report = psycopg2.connect(psql_url(night.world.url))
    try:
        report.set_session(isolation_level="REPEATABLE READ")
        with report.cursor() as cursor, reading(night):
            cursor.execute("SELECT id, p, label, scored_in FROM predictions.items ORDER BY id")
            first = cursor.fetchall()
            cursor.execute("SELECT count(*) FROM prescore_rows.items")
            for full in (True, False, True, True):
                night.change(chance)
                assert night.world.score(full=full).status is Status.PUBLISHED
                assert night.look()
                cursor.execute("SELECT id, p, label, scored_in FROM predictions.items ORDER BY id")
                assert cursor.fetchall() == first
    finally:
        report.close()
    night.require_next_run_needs_no_hands(full=True)


@pytest.mark.slow
def test_a_run_waits_for_a_loader_that_locks_its_source_and_what_is_loaded_comes_next(night: Night) -> None:
    expected = night.expected()
    with reading(night):
        with loading(night, "LOCK TABLE public.items IN ACCESS EXCLUSIVE MODE") as loader:
            run = Background(night)
            run.start()
            wait_until(night.world, WAITING)
            usable = "SELECT count(*) > 300 FROM predictions.items WHERE state IN ('fresh', 'aging')"
            assert night.world.rows(usable) == [(True,)]
            # Nobody else begins the same work meanwhile; that is on record.
            assert night.world.score(trigger=Trigger.SCHEDULED).status is Status.SKIPPED
            with loader.cursor() as cursor:
                cursor.execute("UPDATE public.items SET a = 0.125, updated_at = clock_timestamp() WHERE id = 8")
            loader.commit()
            assert run.summary().status is Status.PUBLISHED
        # The snapshot is older than what was loaded, so that this is for the next run, which finds it.
        assert night.look(expected)
        assert night.statuses()[-2:] == ["published", "skipped"]
        night.require_next_run_needs_no_hands()


@pytest.mark.slow
def test_a_source_that_is_locked_for_longer_than_the_role_waits_is_told(night: Night) -> None:
    database = night.world.rows("SELECT current_database()")[0][0]
    night.world.execute(f"ALTER DATABASE {database} SET lock_timeout = '200ms'")
    try:
        with loading(night, "LOCK TABLE public.items IN ACCESS EXCLUSIVE MODE"):
            with pytest.raises(PrescoreError, match="lock_timeout") as refused:
                night.world.score()
            assert night.last_run()["message"] == str(refused.value)
            assert night.last_run()["status"] == Status.FAILED
    finally:
        night.world.execute(f"ALTER DATABASE {database} RESET lock_timeout")
    night.require_next_run_needs_no_hands()


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(
    ("breaks", "mends", "named"),
    [
        ("ALTER TABLE public.items RENAME TO away", "ALTER TABLE public.away RENAME TO items", "public.items"),
        ("ALTER TABLE public.items RENAME a TO away", "ALTER TABLE public.items RENAME away TO a", "i.a"),
    ],
    ids=["gone", "renamed"],
)
def test_a_source_that_is_not_there_any_more_is_named_and_what_is_served_stays(
    night: Night, breaks: str, mends: str, named: str, full: bool
) -> None:
    night.world.execute(breaks)
    try:
        with reading(night), pytest.raises(PrescoreError) as refused:
            night.world.score(full=full)
        assert named in str(refused.value)
        assert "still served" in str(refused.value)
        assert night.last_run()["status"] == Status.FAILED
        assert night.last_run()["message"] == str(refused.value)
    finally:
        night.world.execute(mends)
    assert not night.look()
    night.require_next_run_needs_no_hands()


# Clocks ----------------------------------------------------------------------------------------------------------------


def test_a_clock_that_was_a_year_ahead_hides_what_it_dated_until_the_next_run(night: Night) -> None:
    toml = night.world.settings.pipelines_dir / "items" / "pipeline.toml"
    before = toml.read_text()
    due = "SELECT next_tick - statement_timestamp() < interval '2 days' AS soon FROM prescore.schedules"
    try:
        toml.write_text(before + '[schedule]\nfull = "0 3 * * *"\n')
        with clock_off_by(night, "1 year"):
            states = night.world.rows("SELECT DISTINCT state FROM predictions.items WHERE p IS NULL ORDER BY 1")
            assert states == [("expired",), ("rejected",)]
            assert night.world.score(full=True, trigger=Trigger.SCHEDULED).status is Status.PUBLISHED
            assert night.world.one(due) == {"soon": False}
        seen = "SELECT DISTINCT state, p IS NULL AND label IS NULL FROM predictions.items"
        assert night.world.rows(seen) == [("clock_error", True)]

        made_good = night.world.score()

        assert (made_good.status, made_good.mode) == (Status.PUBLISHED, "full")
        assert "clock was ahead" in made_good.because
        # The ticks of that year are still to come, and a dead scheduler would be missed at the first of them.
        assert night.world.one(due) == {"soon": True}
    finally:
        toml.write_text(before)
    assert night.look()
    night.change(random.Random(4))
    again = night.world.score()
    assert (again.status, again.mode) == (Status.PUBLISHED, "incremental")
    night.require_next_run_needs_no_hands(full=True)


@pytest.mark.slow
def test_a_clock_that_is_set_back_is_forgiven_for_minutes_and_begun_with_anew_beyond(night: Night) -> None:
    # Nights before may have moved the features so far that what is served is flagged.
    seen = "SELECT DISTINCT replace(state, 'aging', 'fresh') FROM predictions.items WHERE state <> 'rejected'"
    with clock_off_by(night, "-2 minutes"):
        assert night.world.rows(seen) == [("fresh",)]
        with pytest.raises(AsOfRefused, match="Run again when the clock is past it"):
            night.world.score()
        assert night.last_run()["status"] == Status.FAILED
    assert not night.look()
    night.require_next_run_needs_no_hands()
    with clock_off_by(night, "-2 hours"):
        assert night.world.rows(seen) == [("clock_error",)]
        assert night.world.score().status is Status.PUBLISHED
        assert night.world.rows(seen) == [("fresh",)]
    assert night.look()
    night.change(random.Random(5))
    night.require_next_run_needs_no_hands()


# What the tests are made of ---------------------------------------------------------------------------------------------


class Background:
    """A run in a thread of its own."""

    def __init__(self, night: Night, **options: Any) -> None:
        self._summaries: list[RunSummary] = []
        self._thread = threading.Thread(
            target=lambda: self._summaries.append(night.world.score(**options)), daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def summary(self) -> RunSummary:
        """Return what the run did, once it has ended."""
        self._thread.join(60)
        (found,) = self._summaries
        return found


@contextmanager
def loading(night: Night, statement: str) -> Iterator[Any]:
    """Open the transaction of somebody else with a statement; what is not committed is rolled back."""
    connection = psycopg2.connect(psql_url(night.world.url))
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
        yield connection
    finally:
        connection.close()


@contextmanager
def clock_off_by(night: Night, interval: str) -> Iterator[None]:
    """Let the clock of the database be wrong by an interval, and right again."""
    clock = "CREATE OR REPLACE FUNCTION prescore.clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT {} $$"
    night.world.execute(clock.format(f"statement_timestamp() + interval '{interval}'"))
    try:
        yield
    finally:
        night.world.execute(clock.format("statement_timestamp()"))
