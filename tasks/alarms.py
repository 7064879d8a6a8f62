"""Alarms: health read with as little as possible, and what somebody is told when it is bad.

It needs PostgreSQL and SELECT on one view. Neither Prefect nor any process of prescore has to be alive, and importing it
loads neither SQLAlchemy nor a model library.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from tasks.errors import PrescoreError, UsageError
from tasks.health import PipelineHealth, PipelineNeverRan, problems
from tasks.settings import Settings

# Seconds: to connect to the database, for its answer, for a webhook, for a command, and between the two tries of a webhook.
_CONNECT, _STATEMENT, _WEBHOOK, _COMMAND, _PAUSE = 10, 30, 10.0, 60.0, 1.0
# Columns of the view that are sent along.
_FACTS = ("pipeline", "state", "overdue", "overdue_since", "state_since", "stale_at", "expires_at", "followups")


class CannotLook(PrescoreError):
    """The view could not be read: the database does not answer, or this role may not read it."""

    def __init__(self, place: str, cause: str) -> None:
        super().__init__(
            f"Health could not be read from {place}: {cause.rstrip('.')}. Nothing is known of the predictions. Check that "
            "the server runs, PRESCORE_DATABASE_URL, and GRANT SELECT ON prescore.pipeline_health."
        )


class NotDelivered(PrescoreError):
    """Somebody should have been told and was not."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """What is wrong, over all pipelines that were looked at."""

    #: (pipeline, code, sentence, what to do), the gravest of each pipeline first; no pipeline where nothing could be read.
    problems: tuple[tuple[str, str, str, str], ...] = ()
    facts: tuple[dict[str, Any], ...] = ()

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def about(self) -> frozenset[tuple[str, str]]:
        """Return what is wrong without its numbers, to see whether it changed."""
        return frozenset((name, code) for name, code, _, _ in self.problems)

    @property
    def lines(self) -> list[str]:
        """Return a line for each problem."""
        return [f"{name}: {text}" if name else text for name, _, text, _ in self.problems]

    def as_json(self) -> dict[str, Any]:
        """Return what a webhook and a command are given; ``text`` is what chat programs show."""
        names = ("pipeline", "code", "text", "remedy")
        return {
            "event": "prescore.recovered" if self.well else "prescore.alarm",
            "well": self.well,
            "text": "\n".join(self.lines) or "prescore: everything is well again.",
            "problems": [dict(zip(names, problem, strict=True)) for problem in self.problems],
            "pipelines": list(self.facts),
        }


def raise_alarm(found: Sequence[PipelineHealth]) -> Alarm:
    """Return what breaks a promise; no pipeline at all is an alarm too, for nobody could have looked at any."""
    if not found:
        text = "No pipeline has run in this database: there is nothing to watch."
        return Alarm(problems=(("", "empty", text, "Check PRESCORE_DATABASE_URL."),))
    bad = [health for health in found if not health.well]
    return Alarm(
        problems=tuple((h.pipeline, p.code, p.text, p.remedy) for h in bad for p in problems(h) if p.wrong),
        facts=tuple({name: _plain(getattr(health, name)) for name in _FACTS} for health in bad),
    )


def unreadable(error: PrescoreError) -> Alarm:
    """Return the alarm that nothing could be read."""
    return Alarm(problems=(("", "unreadable", str(error), "See whether the database server runs."),))


def look(settings: Settings, pipeline: str | None) -> list[PipelineHealth]:
    """Return the health of all pipelines, or of one, by one statement on one connection; starts nothing.

    Raises
    ------
    CannotLook, PipelineNeverRan
    """
    statement = load_statement("watch_health")
    with onlooker(settings, "prescore watch") as cursor:
        cursor.execute(statement)
        try:
            found = [PipelineHealth.from_row(row) for row in cursor.fetchall()]
        except AttributeError:
            raise CannotLook(
                _place(_url(settings)), "its schema is older than this prescore; run `prescore migrate`"
            ) from None
    if pipeline is None:
        return found
    named = [health for health in found if health.pipeline == pipeline]
    if not named:
        raise PipelineNeverRan(pipeline, [health.pipeline for health in found])
    return named


@contextmanager
def onlooker(settings: Settings, name: str) -> Iterator[Any]:
    """Open a cursor that reads named tuples in one snapshot, and may write nothing; starts nothing.

    ``name`` is what the server is told of who looks.

    Raises
    ------
    CannotLook
        Also for what fails within.
    """
    import psycopg2
    from psycopg2.extras import NamedTupleCursor

    url = _url(settings)
    try:
        connection = psycopg2.connect(url, connect_timeout=_CONNECT, application_name=name)
        try:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with connection.cursor(cursor_factory=NamedTupleCursor) as cursor:
                # Within the transaction, so that a pooler that shares connections does as well.
                cursor.execute(f"SET LOCAL statement_timeout = '{_STATEMENT}s'")
                cursor.execute("SET LOCAL intervalstyle = 'postgres'")
                yield cursor
        finally:
            connection.close()
    except psycopg2.Error as error:
        raise CannotLook(_place(url), _last_line(error)) from None


def load_statement(name: str) -> str:
    """Return the statement of sql/queries/<name>.sql as it stands: without parameters, and without SQLAlchemy."""
    return (resources.files("sql") / "queries" / f"{name}.sql").read_text(encoding="utf-8")


def require_webhook(url: str) -> None:
    """Refuse an address that nothing can be posted to.

    Raises
    ------
    UsageError
        Without the address, which may hold a secret.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError("--webhook is no address that begins with https:// or http://. Nothing was looked at.")


def post(url: str, alarm: Alarm) -> None:
    """Post an alarm as JSON, twice at most.

    Raises
    ------
    NotDelivered
        Naming the host and no more of the address.
    """
    import time

    import httpx

    reason = ""
    for attempt in (1, 2):
        try:
            answer = httpx.post(url, json=alarm.as_json(), timeout=_WEBHOOK)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = type(error).__name__
        else:
            if answer.is_success:
                return
            reason = f"it answers {answer.status_code}"
        if attempt == 1:
            time.sleep(_PAUSE)
    raise NotDelivered(f"The webhook on {urlsplit(url).hostname} was not reached: {reason}. Nobody was told that way.")


def run(command: str, alarm: Alarm) -> None:
    """Run a shell command with the alarm as JSON on its standard input and in variables; what it prints goes to stderr.

    Raises
    ------
    NotDelivered
    """
    told = alarm.as_json()
    variables = {
        "PRESCORE_WATCH_TEXT": told["text"],
        "PRESCORE_WATCH_PIPELINES": ",".join(sorted({name for name, _ in alarm.about if name})),
        "PRESCORE_WATCH_CODES": ",".join(sorted({code for _, code in alarm.about})),
        "PRESCORE_WATCH_WELL": "true" if alarm.well else "false",
    }
    try:
        done = subprocess.run(
            command,
            shell=True,  # the point of it: a line as people write it into a crontab
            input=json.dumps(told, ensure_ascii=False) + "\n",
            text=True,
            stdout=2,  # what it prints is no result of ours
            env={**os.environ, **variables},
            timeout=_COMMAND,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotDelivered(f"The command of --run was at work for {_COMMAND:.0f} s and was ended.") from None
    if done.returncode != 0:
        raise NotDelivered(f"The command of --run ended with exit code {done.returncode}.")


def _url(settings: Settings) -> str:
    if settings.database_url is not None:
        return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", settings.database_url)
    from tasks import embedded

    found = embedded.url(settings.data_dir)
    if found is None:
        raise CannotLook("the embedded PostgreSQL", "it was never started")
    return found


def _place(url: str) -> str:
    try:
        parts = urlsplit(url)
        return f"database {parts.path.lstrip('/') or '?'} on {parts.hostname or 'the local socket'}"
    except ValueError:
        return "the database"


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
