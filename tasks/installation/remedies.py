"""What `prescore doctor --fix` does: what is safe while readers read and runs run, each remedy under the lock that it needs."""

from __future__ import annotations

from collections.abc import Callable

import psycopg2
import sqlalchemy as sa

from tasks import readers, retention, row_history
from tasks.database import clock, connect, load_query, one, raw_execute, rows
from tasks.errors import PrescoreError
from tasks.installation.pipelines import Known, know
from tasks.installation.symptoms import Symptom
from tasks.runs import end_writers, hold_lock
from tasks.storages import LockHeld, clear_next_storage, index_outputs

# How long a remedy waits for readers of what it changes; new ones wait behind it for as long.
LOCK_TIMEOUT = "200ms"


def apply(url: str, symptom: Symptom, known: Known | None) -> str:
    """Do what a symptom asks for, and say what was done, or why it was not, as a sentence.

    ``known`` is the pipeline that it is about.
    """
    remedy = _REMEDIES.get(symptom.code)
    if remedy is None or not symptom.fixable:
        return ""
    try:
        return remedy(url, symptom, known)
    except PrescoreError as error:
        return f"Not done: {error}"
    except (sa.exc.DBAPIError, psycopg2.Error) as error:
        code = getattr(getattr(error, "orig", error), "pgcode", None)
        why = {"55P03": "somebody reads it; try again later", "42501": "this role may not"}.get(
            code or "", type(error).__name__
        )
        return f"Not done: {why}."


def _reap(url: str, symptom: Symptom, known: Known | None) -> str:
    assert symptom.pipeline is not None
    with hold_lock(url, symptom.pipeline) as connection:
        end_writers(connection, symptom.pipeline)
        dead = [row.run_id for row in rows(connection, "reap_runs", pipeline=symptom.pipeline)]
        connection.commit()
    return f"Marked {_counted(dead)} of {symptom.pipeline} crashed." if dead else "Nothing was left to do."


def _clear(url: str, symptom: Symptom, known: Known | None) -> str:
    if known is None or known.objects is None:
        return ""
    with hold_lock(url, known.name) as connection:
        storage_id = clear_next_storage(LockHeld(connection=connection, url=url), known.objects)
    return f"Cleared {known.objects.storage(storage_id)}."


def _replace_views(url: str, symptom: Symptom, known: Known | None) -> str:
    if known is None or known.objects is None:
        return ""
    with hold_lock(url, known.name) as connection:
        if symptom.code == "views.missing":
            raw_execute(connection, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            readers.define(connection, known.objects)
            readers.record_views(connection, known.objects, readers.digest_of(readers.definitions(known.objects)))
            connection.commit()
        elif not readers.replace_outdated(connection, known.objects):
            return "Not done: readers hold the views, or another role owns them; try again later."
    return f"Made the views of {known.name} anew."


def _vacuum(url: str, symptom: Symptom, known: Known | None) -> str:
    with connect(url, "prescore vacuum", autocommit=True) as connection:
        raw_execute(connection, load_query("vacuum_analyse_storage", {"storage": symptom.target}))
    return f"Vacuumed and analysed {symptom.target}."


def _drop_index(url: str, symptom: Symptom, known: Known | None) -> str:
    with connect(url, "prescore doctor") as connection:
        raw_execute(connection, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        raw_execute(connection, load_query("drop_index", {"index": symptom.target}))
        connection.commit()
    return f"Dropped the index {symptom.target}."


def _index(url: str, symptom: Symptom, known: Known | None) -> str:
    if known is None or known.objects is None:
        return ""
    with hold_lock(url, known.name) as connection:
        served = one(connection, "find_storage", pipeline=known.name, role="current")
        index_outputs(connection, known.objects, served.storage_id)
        connection.commit()
    return f"Built the indexes of {known.objects.storage(served.storage_id)}."


def _autovacuum(url: str, symptom: Symptom, known: Known | None) -> str:
    with connect(url, "prescore doctor") as connection:
        raw_execute(connection, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        raw_execute(connection, load_query("reset_autovacuum", {"table": symptom.target}))
        connection.commit()
    return f"Turned autovacuum of {symptom.target} on again."


def _remove_past(url: str, symptom: Symptom, known: Known | None) -> str:
    if known is None or known.declared is None:
        return ""
    with hold_lock(url, known.name) as connection:
        removed = retention.remove_past(connection, known.declared, clock(connection))
    row_history.remove_past(url, known.name)
    return f"Removed what is past its retention: {removed.told or 'nothing was'}."


def _counted(run_ids: list[int]) -> str:
    return f"{'run' if len(run_ids) == 1 else 'runs'} {', '.join(map(str, run_ids))}"


_REMEDIES: dict[str, Callable[[str, Symptom, Known | None], str]] = {
    "runs.dead": _reap,
    "storage.orphaned": _clear,
    "views.outdated": _replace_views,
    "views.missing": _replace_views,
    "statistics.missing": _vacuum,
    "storage.bloat": _vacuum,
    "storage.dead_rows": _vacuum,
    "indexes.invalid": _drop_index,
    "indexes.missing": _index,
    "autovacuum.off": _autovacuum,
    "retention.due": _remove_past,
}

__all__ = ["apply", "know"]
