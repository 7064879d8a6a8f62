"""Health: what readers are told of a pipeline by the clock of the database, what is wrong with it, and what to do.

Importing it costs next to nothing: whoever watches from outside must start fast, and needs one view and no more.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasks.errors import PrescoreError
from tasks.questions import remedy_of

if TYPE_CHECKING:
    import sqlalchemy as sa

#: States in which predictions may be used and nothing is promised that does not hold.
WELL = frozenset({"fresh", "aging"})


class PipelineNeverRan(PrescoreError):
    """A pipeline has no objects in this database."""

    def __init__(self, pipeline: str, known: list[str]) -> None:
        self.pipeline = pipeline
        there = f"There are: {', '.join(known)}." if known else "None has run here yet."
        super().__init__(
            f"{pipeline} has nothing to look up in this database: no run of it came as far. {there} Run "
            f"`prescore score {pipeline}`, or check the name and PRESCORE_DATABASE_URL."
        )


@dataclass(frozen=True, kw_only=True)
class PipelineHealth:
    """One row of prescore.pipeline_health."""

    pipeline: str
    state: str
    overdue: bool
    overdue_since: datetime | None
    next_tick: datetime | None
    pinned: bool
    generation_id: int | None
    published_at: datetime | None
    age: timedelta | None
    data_as_of: datetime | None
    aging_at: datetime | None
    stale_at: datetime | None
    expires_at: datetime | None
    rows: int | None
    model: str | None
    model_version: int | None
    model_pending: bool
    reasons: list[str]
    last_scheduled_run_id: int | None
    last_scheduled_run_at: datetime | None
    last_scheduled_status: str | None
    last_run_id: int | None
    last_run_at: datetime | None
    last_run_trigger: str | None
    last_run_status: str | None
    last_run_message: str | None
    failing_checks: list[str]
    warning_checks: list[str]
    followups: list[str]
    last_check_at: datetime | None
    state_since: datetime | None
    served_run_id: int | None
    waived_checks: list[str]
    hung_run_id: int | None
    next_full: datetime | None
    next_incremental: datetime | None
    #: Why what is served is not archived, where [archive] is declared; not seen by whoever may read nothing but the view.
    archive_problem: str | None = None
    #: Who or what started the last run; not seen by them either, nor known of every run.
    last_run_started_by: str | None = None

    @property
    def well(self) -> bool:
        """Whether everything that was promised holds: fresh or aging, and no scheduled run missing."""
        return self.state in WELL and not self.overdue

    @property
    def now(self) -> datetime | None:
        """The instant that this was judged at; None while nothing is served."""
        return None if self.age is None or self.data_as_of is None else self.data_as_of + self.age

    @property
    def good_until(self) -> datetime | None:
        """When the state turns worse by itself; None when it cannot."""
        return {"fresh": self.aging_at, "aging": self.stale_at, "stale": self.expires_at}.get(self.state)

    @classmethod
    def from_row(cls, row: Any) -> PipelineHealth:
        """Return the health of a row of the view."""
        named = set(row._fields)
        return cls(**{field.name: getattr(row, field.name) for field in fields(cls) if field.name in named})


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a pipeline, or worth knowing of it."""

    #: A word that stays: a state, overdue, hung, pinned, waived, or how the last run ended.
    code: str
    #: A few words for a table.
    short: str
    #: A sentence with the numbers.
    text: str
    #: What to do, as a sentence.
    remedy: str
    #: Whether it breaks a promise; else it is only worth knowing.
    wrong: bool


def problems(health: PipelineHealth) -> list[Problem]:
    """Return what is wrong with a pipeline, the gravest first: what breaks a promise, then what is worth knowing."""
    found = [_of_state(health), _overdue(health), _hung(health), _last_run(health), _pinned(health), _waived(health)]
    found.append(_archive(health))
    return sorted((problem for problem in found if problem is not None), key=lambda problem: not problem.wrong)


def read_health(url: str, pipeline: str | None = None) -> list[PipelineHealth]:
    """Return the health of every pipeline that ran here, or of one.

    Raises
    ------
    PipelineNeverRan
    """
    from tasks.database import connect

    with connect(url) as connection:
        found = health_of(connection, pipeline)
        if pipeline is not None and not found:
            raise PipelineNeverRan(pipeline, [row.pipeline for row in health_of(connection)])
        return found


def health_of(connection: sa.Connection, pipeline: str | None = None) -> list[PipelineHealth]:
    """Return the health of every pipeline that ran here, or of one, or nothing when that one never did."""
    from tasks.database import rows

    return [PipelineHealth.from_row(row) for row in rows(connection, "read_health", pipeline=pipeline)]


def at(instant: datetime | None) -> str:
    """Return an instant to the minute, in UTC."""
    return "never" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


_NOT_SERVED = {
    "missing": ("nothing published", "Nothing was ever published.", "Run prescore score {0}, and see how it ends."),
    "quarantined": (
        "quarantined",
        "What is served was found bad after publication; its predictions are withheld.",
        "Mend the cause, then run prescore score {0} with --full.",
    ),
    "clock_error": (
        "clock error",
        "Its data is from the future by the clock of the database; predictions are withheld.",
        "Compare the clocks of the database and of the sources, then score again.",
    ),
}


def _of_state(health: PipelineHealth) -> Problem | None:
    name, state, since = health.pipeline, health.state, at(health.state_since)
    if state in _NOT_SERVED:
        short, text, remedy = _NOT_SERVED[state]
        return Problem(code=state, short=short, text=text, remedy=remedy.format(name), wrong=True)
    if state == "expired":
        text = f"Expired since {since}: predictions are withheld from readers."
    elif state == "stale":
        text = f"Stale since {since}; withheld from readers from {at(health.expires_at)}."
    elif state == "aging" and health.reasons:
        count = len(health.reasons)
        remedy = (
            _of_checks(health.reasons, codes_first=True) or "Look at the reasons; the next run may be all it takes."
        )
        text = f"Published with {count} {'remark' if count == 1 else 'remarks'} of checks."
        return Problem(code="flagged", short="flagged", text=text, remedy=remedy, wrong=False)
    else:
        return None
    remedy = "The next run may be all it takes." if health.last_run_status == "published" else _of_last_run(health)
    return Problem(code=state, short=state, text=text, remedy=remedy, wrong=True)


def _overdue(health: PipelineHealth) -> Problem | None:
    if not health.overdue:
        return None
    text = f"Overdue: no scheduled run published for the tick of {at(health.overdue_since)}."
    if health.last_scheduled_run_at is None:
        text += " No scheduled run was ever started."
    else:
        text += f" The last scheduled run started {at(health.last_scheduled_run_at)} ({health.last_scheduled_status})."
    return Problem(code="overdue", short="overdue", text=text, remedy=remedy_of("schedule.missed"), wrong=True)


def _hung(health: PipelineHealth) -> Problem | None:
    if health.hung_run_id is None:
        return None
    text = f"Run {health.hung_run_id} is at work and gave no sign of life for five minutes."
    return Problem(code="hung", short="run hangs", text=text, remedy=remedy_of("runs.hung"), wrong=False)


def _last_run(health: PipelineHealth) -> Problem | None:
    status = health.last_run_status
    if status in {"published", "running", None}:
        return None
    text = (
        f"The last run ({health.last_run_id}, {health.last_run_trigger}) was {status}: {health.last_run_message or ''}"
    )
    text = text if health.last_run_message else f"{text.rstrip(': ')}."
    return Problem(code=str(status), short=f"last run {status}", text=text, remedy=_of_last_run(health), wrong=False)


def _pinned(health: PipelineHealth) -> Problem | None:
    if not health.pinned:
        return None
    remedy = f"Mend the cause of the rollback, then run prescore resume {health.pipeline}."
    return Problem(code="pinned", short="pinned", text="Runs are refused since a rollback.", remedy=remedy, wrong=False)


def _waived(health: PipelineHealth) -> Problem | None:
    if not health.waived_checks:
        return None
    text = f"Somebody waived {', '.join(health.waived_checks)} for what is served."
    remedy = "Mend what was waived before the waiver ends."
    return Problem(code="waived", short="waived", text=text, remedy=remedy, wrong=False)


def _archive(health: PipelineHealth) -> Problem | None:
    if health.archive_problem is None:
        return None
    text = f"Generation {health.generation_id} is not archived: {health.archive_problem}"
    return Problem(code="unarchived", short="not archived", text=text, remedy=remedy_of("archive.owed"), wrong=False)


def _of_last_run(health: PipelineHealth) -> str:
    """Return what to do about the last run: by its checks, else by how it ended."""
    if health.last_run_status in {"held", "aborted"} and health.failing_checks:
        return _of_checks(health.failing_checks)
    if health.last_run_status == "cancelled":
        return "Start the next run."
    if health.last_run_status in {"failed", "crashed"}:
        return "Its message and its log say why. The next run needs no repair by hand."
    return "See whether the scheduler is alive, and how the last run ended."


def _of_checks(labels: list[str], *, codes_first: bool = False) -> str:
    """Return the remedies of checks, each once, by their labels; of readers' reasons the code comes first."""
    position = 1 if codes_first else 0
    ids = [words[position].rstrip(":") for words in (label.split() for label in labels) if len(words) > position]
    return " ".join(dict.fromkeys(remedy for remedy in map(remedy_of, ids) if remedy))
