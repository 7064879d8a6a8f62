"""An installation: server, schema and pipelines together, what is wrong with them, and what to do about it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata

import sqlalchemy as sa

from tasks import health, migrations
from tasks.database import connect, describe_url, limit_statements, one, rows
from tasks.errors import PrescoreError
from tasks.installation import pipelines, remedies, server
from tasks.installation.pipelines import Known, know
from tasks.installation.symptoms import Symptom
from tasks.pipeline import Pipeline

# A question that takes longer is not answered: nobody waits for a doctor.
QUESTION_SECONDS = 60.0

__all__ = ["Examination", "Symptom", "examine", "treat"]


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found of an installation, and by which versions."""

    #: Database and host, without a password.
    database: str
    server_version: str
    prescore_version: str
    python_version: str
    #: The last migration that the database has; None for one that was never migrated.
    revision: str | None
    #: By the clock of the server.
    examined_at: datetime
    symptoms: tuple[Symptom, ...] = ()
    #: Pipelines that ran here, by name.
    known: dict[str, Known] = field(default_factory=dict, repr=False)

    @property
    def well(self) -> bool:
        """Whether nothing is wrong; what is only worth knowing does not count."""
        return not any(symptom.wrong for symptom in self.symptoms)


def examine(url: str, source_url: str, declared: dict[str, Pipeline], broken: dict[str, PrescoreError]) -> Examination:
    """Ask the server, the schema and each pipeline; reads only, and works on a database of any revision.

    Parameters
    ----------
    source_url
        Where queries of pipelines are sent: ``url``, unless the sources are elsewhere.
    declared, broken
        The pipelines of the folder by name, and why others of it are none.

    Raises
    ------
    DatabaseUnreachable
    """
    with connect(url, "prescore doctor") as connection:
        described = one(connection, "describe_server")
        # From here on: what the role and the database set is described.
        one(connection, "limit_statement", milliseconds=str(round(QUESTION_SECONDS * 1000)))
        connection.commit()
        known = migrations.read_applied(connection)
        connection.rollback()
        found = [*_schema(known), *server.of_server(connection, described)]
        in_flight = {} if not known else _at_work(connection)
        of_pipelines: dict[str, Known] = {}
        if not any(symptom.code.startswith("migrations.") or symptom.code == "role.rights" for symptom in found):
            found += server.of_sessions(connection)
            found += pipelines.of_all(connection)
            names = [row.pipeline for row in rows(connection, "list_pipeline_names")]
            of_pipelines = {name: know(connection, name, declared.get(name), name in in_flight) for name in names}
            found += _of_pipelines(connection, of_pipelines, described.now)
        with limit_statements(QUESTION_SECONDS):
            for name in sorted({*of_pipelines} & {*declared}):
                found += pipelines.of_queries(url, source_url, declared[name])
        found += [pipelines.unreadable(name, error) for name, error in broken.items()]
        connection.rollback()
    return Examination(
        database=describe_url(url),
        server_version=described.version,
        prescore_version=metadata.version("prescore"),
        python_version=platform.python_version(),
        revision=max(known, default=None),
        examined_at=described.now,
        symptoms=tuple(sorted(found, key=lambda symptom: not symptom.wrong)),
        known=of_pipelines,
    )


def treat(url: str, examination: Examination) -> list[tuple[Symptom, str]]:
    """Do what is safe about what was found, and return what was done about each, or why not, as a sentence."""
    done = []
    for symptom in examination.symptoms:
        told = remedies.apply(url, symptom, examination.known.get(symptom.pipeline or ""))
        if told:
            done.append((symptom, told))
    return done


def _of_pipelines(connection: sa.Connection, known: dict[str, Known], now: datetime) -> Iterator[Symptom]:
    for found in health.health_of(connection):
        yield from pipelines.of_health(found)
    for each in known.values():
        yield from pipelines.of_pipeline(connection, each, now)


def _at_work(connection: sa.Connection) -> set[str]:
    """Return the pipelines whose lock somebody holds."""
    if not migrations.has_runs(connection):
        return set()
    found = {row.pipeline for row in rows(connection, "list_runs_in_flight") if row.pipeline is not None}
    connection.rollback()
    return found


def _schema(known: dict[str, str]) -> Sequence[Symptom]:
    try:
        behind = migrations.pending_of(known)
    except (migrations.DatabaseAhead, migrations.MigrationChanged) as error:
        ahead = isinstance(error, migrations.DatabaseAhead)
        return [
            Symptom(
                code="migrations.ahead" if ahead else "migrations.changed",
                what=str(error).partition(". ")[0] + ".",
                means="No run begins with this prescore; what was published is served until it expires.",
                remedy="Install the prescore that migrated this database, and restart what runs all the time.",
            )
        ]
    if not behind:
        return []
    return [
        Symptom(
            code="migrations.pending",
            what=f"The database lacks {len(behind)} migrations, first {behind[0]}.",
            means="No run begins; what was published is served until it expires.",
            remedy="Run prescore migrate.",
        )
    ]
