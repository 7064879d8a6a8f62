"""Findings as they are stored: all of a phase at once, each with what it holds."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tasks.database import connect
from tasks.findings import CheckClass, Finding, Verdict, record
from tests.factories import World, make_world

AT = datetime(2026, 3, 1, 3, 4, 5, 678901, tzinfo=UTC)
RUN = """
INSERT INTO prescore.runs (pipeline, mode, trigger, status, clock_at, backend_pid, host, process_id, logic_digest, contract_digest)
VALUES ('items', 'full', 'manual', 'running', now(), 1, 'here', 1, 'l', 'c') RETURNING run_id
"""


def finding(check_id: str, subject: str = "", **values: Any) -> Finding:
    base: dict[str, Any] = {
        "check_id": check_id,
        "code": "S1",
        "class_": CheckClass.GAUGE,
        "verdict": Verdict.WARN,
        "reason": 'it\'s "late": 5 % of \\ :them \n {}',
    }
    return Finding(**{**base, "subject": subject, **values})


def store(world: World, *findings: Finding) -> list[str]:
    """Store findings of a new run, and return the statements that it took."""
    statements: list[str] = []
    with connect(world.url) as connection:
        run_id = connection.execute(sa.text(RUN)).scalar_one()
        connection.commit()
        sa.event.listen(
            connection.engine, "before_cursor_execute", lambda *told: statements.append(str(told[2]).split()[0])
        )
        record(connection, run_id, "items", findings)
    return statements


def test_a_phase_of_checks_is_one_statement_and_nothing_of_it_is_lost(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path, rows=None)
    values = {"observed": 0.1 + 0.2, "warn_limit": 1e-300, "fail_limit": math.inf, "n": 2**53 + 1, "unit": "s"}
    known = finding("source.age", "shop.orders", warn_until=AT, evidence={"a": [1, None]}, **values)

    statements = store(world, known, finding("schema", observed=math.nan), finding("rows.torn", observed=-math.inf))

    assert statements == ["INSERT"]
    stored = world.one("SELECT * FROM prescore.checks WHERE check_id = 'source.age'")
    assert {name: stored[name] for name in values} == values
    assert (stored["reason"], stored["subject"], stored["warn_until"]) == (known.reason, "shop.orders", AT)
    assert (stored["evidence"]["a"], stored["fail_until"], stored["class"]) == ([1, None], None, "gauge")
    assert stored["followups"] == sorted(followup.value for followup in known.due)
    odd = dict(world.rows("SELECT check_id, observed FROM prescore.checks WHERE check_id <> 'source.age'"))
    assert math.isnan(odd["schema"])
    assert odd["rows.torn"] == -math.inf


def test_a_check_that_is_found_twice_keeps_what_was_found_last(database_url: str, tmp_path: Path) -> None:
    world = make_world(database_url, tmp_path, rows=None)

    store(world, finding("schema", n=1), finding("schema", n=2), finding("schema", "other", n=3))

    assert world.rows("SELECT subject, n FROM prescore.checks ORDER BY subject") == [("", 2), ("other", 3)]


def test_nothing_found_is_nothing_said(database_url: str, tmp_path: Path) -> None:
    assert store(make_world(database_url, tmp_path, rows=None)) == []
