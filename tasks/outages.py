"""What PostgreSQL's errors mean to whoever runs prescore: the disk is full, the server is restarted, a limit was set."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg2
import sqlalchemy as sa

from tasks.errors import PrescoreError

#: What the control path raises: SQLAlchemy's errors, and the driver's own where SQLAlchemy is passed by.
CONTROL_ERRORS = (sa.exc.DBAPIError, sa.exc.PendingRollbackError, psycopg2.Error)


@dataclass(frozen=True)
class Outage:
    """An error that says something about the server or its limits, not about a statement."""

    #: What is the matter, as a clause.
    what: str
    #: What to do, in sentences.
    remedy: str


#: The connection broke, whyever.
LOST = Outage("the connection to the database was lost", "The next run begins anew as soon as the server answers.")
_RESTART = Outage(
    "the server is being restarted, or an administrator ended the connection",
    "The next run begins anew as soon as the server answers.",
)

#: By SQLSTATE, or its class (two characters).
_OUTAGES = {
    "53100": Outage(
        "no space is left on the disk of the database",
        "Free some, or give its tablespace or its write-ahead log a larger disk; the next run needs nothing else.",
    ),
    "53200": Outage("the server is out of memory", "Lower work_mem or the number of its connections, and run again."),
    "53300": Outage(
        "the server accepts no more connections",
        "A run needs up to six, and one more for each worker: raise max_connections or the limit of the role.",
    ),
    "55P03": Outage(
        "somebody else held a lock for longer than lock_timeout allows",
        "Wait until their transaction has ended, or raise lock_timeout of this role, and run again.",
    ),
    "42501": Outage(
        "this role may not do that",
        "Work as a role that may: `prescore grant` gives operators what they need, and runs belong to the role that owns "
        "prescore's schemas.",
    ),
    "57014": Outage(
        "the statement was cancelled, by a person or because it took longer than statement_timeout",
        "Where that is a limit, raise statement_timeout of this role or database, and run again.",
    ),
    "25P03": Outage(
        "the server ended a transaction that was idle for longer than idle_in_transaction_session_timeout",
        "Raise it for this role, and run again.",
    ),
    "25P04": Outage(
        "the server ended a transaction that took longer than transaction_timeout",
        "Raise it for this role, and run again.",
    ),
    "25006": Outage(
        "the server takes no writes: it is a standby, or its default_transaction_read_only is on",
        "Point PRESCORE_DATABASE_URL at the primary, and run again.",
    ),
    "40P01": Outage("two transactions waited for each other, and this one was ended", "Run again."),
    "57P01": _RESTART,
    "57P02": _RESTART,
    "57P03": _RESTART,
    "57P05": Outage(
        "the server ended a connection that was idle for longer than idle_session_timeout",
        "Raise it for this role, and run again.",
    ),
    "08": LOST,
    "XX": Outage(
        "the server found its own files or memory damaged",
        "Look at PostgreSQL's log before anything else: it says which file.",
    ),
}


class DatabaseFailed(PrescoreError):
    """The database failed a statement of prescore's own."""

    def __init__(self, doing: str, what: str, remedy: str, sqlstate: str | None) -> None:
        self.sqlstate = sqlstate
        super().__init__(f"{doing} failed: {what}. What was published is still served. {remedy}")


def outage_of(sqlstate: str | None) -> Outage | None:
    """Return what an SQLSTATE says about the server; None where it is about the statement."""
    if sqlstate is None:
        return None
    return _OUTAGES.get(sqlstate) or _OUTAGES.get(sqlstate[:2])


def explain(error: Exception, doing: str) -> DatabaseFailed:
    """Return an error of the control path as people should read it: neither statement nor value, but the remedy.

    Parameters
    ----------
    error
        One of ``CONTROL_ERRORS``.
    doing
        What was being done, as the beginning of a sentence: ``A run of churn``.
    """
    sqlstate = sqlstate_of(error)
    found = outage_of(sqlstate) or (LOST if _is_lost(error, sqlstate) else None)
    if found is not None:
        return DatabaseFailed(doing, found.what, found.remedy, sqlstate)
    original = getattr(error, "orig", None) or error
    what = f"PostgreSQL refused a statement ({type(original).__name__}" + (
        f", SQLSTATE {sqlstate})" if sqlstate else ")"
    )
    return DatabaseFailed(doing, what, "PostgreSQL's own log has the statement.", sqlstate)


def sqlstate_of(error: Exception) -> str | None:
    """Return the SQLSTATE of an error of the control path, if the server gave one."""
    original = getattr(error, "orig", None) or error
    found: str | None = getattr(original, "pgcode", None)
    return found


def _is_lost(error: Exception, sqlstate: str | None) -> bool:
    original = getattr(error, "orig", None) or error
    return sqlstate is None and isinstance(
        original, psycopg2.OperationalError | psycopg2.InterfaceError | sa.exc.PendingRollbackError
    )
