"""Connections: made once, never silently made again; and what a process keeps about them."""

from __future__ import annotations

import contextvars
import threading

import pyarrow as pa
import pytest
import sqlalchemy as sa

from tasks import database
from tasks.columns import Column
from tasks.database import DatabaseUnreachable, close_idle_connections, connect, keep_connections, limit_statements
from tasks.transport import open_session


def test_a_lost_connection_is_never_made_again(database_url: str) -> None:
    with connect(database_url) as connection, connect(database_url, autocommit=True) as other:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        connection.commit()
        assert other.execute(sa.text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid}).scalar_one()

        for _ in range(3):
            with pytest.raises(sa.exc.OperationalError):
                connection.execute(sa.text("SELECT 1"))
            connection.rollback()


def test_a_connection_that_was_lost_in_a_transaction_closes_without_an_error(database_url: str) -> None:
    with connect(database_url) as connection, connect(database_url, autocommit=True) as other:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        assert other.execute(sa.text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid}).scalar_one()


def test_a_server_that_is_not_there_is_told_in_whole_sentences() -> None:
    with (
        pytest.raises(DatabaseUnreachable, match=r"127\.0\.0\.1:1: .*[a-z]\. Nothing was changed\.") as refused,
        connect("postgresql://me:sekret@127.0.0.1:1/none"),
    ):
        pass
    assert "sekret" not in str(refused.value)


def test_types_that_are_made_after_a_process_has_connected_travel_as_any_other(database_url: str) -> None:
    with open_session(database_url) as before:
        assert before.table("SELECT 1 AS one").num_rows == 1
    with connect(database_url) as connection:
        connection.execute(sa.text("CREATE TYPE mood AS ENUM ('glad', 'sad')"))
        connection.execute(sa.text("CREATE DOMAIN number AS bigint"))
        connection.execute(sa.text("CREATE TABLE public.people (id number, moods text[], mood mood)"))
        connection.commit()
    columns = [Column(name="id", postgres_type="bigint"), Column(name="moods", postgres_type="text[]")]
    schema = pa.schema([pa.field(column.name, column.arrow_type) for column in columns])
    row = pa.RecordBatch.from_pylist([{"id": 7, "moods": ["glad"]}], schema=schema)
    with open_session(database_url) as after:
        assert after.copy_in("public", "people", columns, [row], "Writing") == 1
        after.execute("UPDATE public.people SET mood = 'sad'")
        mood = Column(name="mood", postgres_type="text").read("mood")
        found = after.table(f"SELECT id, moods, {mood} AS mood FROM public.people")
    assert found.to_pylist() == [{"id": 7, "moods": ["glad"], "mood": "sad"}]
    assert found.schema.types == [pa.int64(), pa.list_(pa.string()), pa.string()]


def pid_of(connection: sa.Connection) -> int:
    pid: int = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    return pid


def test_connections_that_are_kept_are_shared_one_after_the_other_and_closed_at_the_end(database_url: str) -> None:
    with keep_connections():
        with connect(database_url) as first:
            used = pid_of(first)
            first.execute(sa.text("CREATE TEMP TABLE left_open (x int)"))
        with connect(database_url) as again, connect(database_url) as beside:
            assert pid_of(again) == used
            assert pid_of(beside) != used
            # What was not committed is rolled back, as when it is closed.
            assert again.execute(sa.text("SELECT to_regclass('left_open')")).scalar_one() is None
        with connect(database_url, "another name") as named, connect(database_url, autocommit=True) as plain:
            assert used not in {pid_of(named), pid_of(plain)}
        with limit_statements(7), connect(database_url) as limited:
            assert pid_of(limited) != used
            assert limited.execute(sa.text("SHOW statement_timeout")).scalar_one() == "7s"
        assert not first.closed
    assert all(connection.closed for connection in (first, again, beside, named, limited))
    with connect(database_url) as after:
        assert pid_of(after) != used


def test_keeping_within_keeping_shares_and_what_is_idle_can_be_closed_before(database_url: str) -> None:
    with keep_connections():
        with connect(database_url) as connection:
            used = pid_of(connection)
        with keep_connections(), connect(database_url) as within:
            assert pid_of(within) == used
        with connect(database_url) as after:
            assert pid_of(after) == used
            close_idle_connections()  # not this one: it is in use
            assert pid_of(after) == used
        close_idle_connections()
        assert after.closed
        with connect(database_url) as another:
            assert pid_of(another) != used
    close_idle_connections()


def test_a_thread_that_inherits_the_context_has_connections_of_its_own(database_url: str) -> None:
    begun, over, found = threading.Event(), threading.Event(), []

    def work() -> None:
        with connect(database_url) as connection:
            pid = pid_of(connection)
            begun.set()
            over.wait(60)
            found.append(pid_of(connection) == pid)

    with keep_connections():
        inherited = contextvars.copy_context()
        thread = threading.Thread(target=lambda: inherited.run(work), daemon=True)
        thread.start()
        assert begun.wait(60)
    over.set()
    thread.join()
    assert found == [True]


def test_a_connection_that_was_lost_while_nobody_used_it_is_made_anew(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_ASKED_AFTER", 0.0)
    with keep_connections(), connect(database_url, "another", autocommit=True) as other:
        with connect(database_url) as connection:
            used = pid_of(connection)
        assert other.execute(sa.text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": used}).scalar_one()
        with connect(database_url) as connection:
            assert pid_of(connection) != used


def test_a_connection_that_is_kept_is_used_again_after_an_error_and_not_after_its_loss(database_url: str) -> None:
    with keep_connections(), connect(database_url, "another", autocommit=True) as other:
        with connect(database_url) as connection:
            used = pid_of(connection)
            with pytest.raises(sa.exc.DBAPIError):
                connection.execute(sa.text("SELECT 1 / 0"))
        with connect(database_url) as connection:
            assert pid_of(connection) == used
            assert other.execute(sa.text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": used}).scalar_one()
            with pytest.raises(sa.exc.OperationalError):
                pid_of(connection)
        with connect(database_url) as connection:
            assert pid_of(connection) != used
