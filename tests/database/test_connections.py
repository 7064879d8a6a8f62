"""Connections of the control path: made once, never silently made again."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tasks.database import DatabaseUnreachable, connect


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
