"""What is asked of an installation can be asked of every server that is supported."""

from __future__ import annotations

import pytest

from tasks.installation import examine, server, treat


def test_every_question_is_answered_on_every_server(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DURABLE", ())

    found = examine(database_url, database_url, {}, {})

    assert found.symptoms == ()
    assert found.well
    assert found.revision is not None
    assert treat(database_url, found) == []
