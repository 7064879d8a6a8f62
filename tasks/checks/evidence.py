"""What a check is, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.findings import CheckClass, Disposition, Finding, Followup, Verdict
from tasks.freshness import Promise
from tasks.pipeline import Pipeline
from tasks.population import Mode, Selection, Served
from tasks.publishing import Staged
from tasks.registry import ModelVersion
from tasks.runs import Run, Snapshot
from tasks.samples import Sampling
from tasks.scoring import Scorer, Tally
from tasks.shards import ONE_STREAM, Layout
from tasks.slices import Slice
from tasks.transport import Session
from tasks.verdicts import History
from tasks.waivers import Waiver

if TYPE_CHECKING:
    from tasks.checks.comparison import Comparison


class Phase(StrEnum):
    """When a check can be asked."""

    #: Before anything is selected.
    GUARD = "guard"
    #: Once the population is known, before it is scored.
    POPULATION = "population"
    #: Once everything is scored, before it is published.
    ROWS = "rows"
    #: Once all others have answered, and it is known what would be promised.
    LAST = "last"


@dataclass(kw_only=True)
class Evidence:
    """What the checks of a run may look at; the later fields are there once scoring is done."""

    url: str
    pipeline: Pipeline
    snapshot: Snapshot
    #: Reads what is served and the books, in the snapshot of the run.
    session: Session
    #: Reads the sources, in the same snapshot or in that of their server; the same session where they are in one database.
    sources: Session
    scorer: Scorer
    model: ModelVersion
    served: Served | None
    served_rows: int | None
    served_expires_at: datetime | None
    #: The run that asks; None in a dry run.
    run: Run | None = None
    #: Where the sources are, if not at ``url``.
    source_url: str = ""
    #: What the runs before answered.
    history: History = field(default_factory=History)
    #: What a person takes upon themselves in this run.
    waiver: Waiver | None = None
    selection: Selection | None = None
    #: How a full run is cut into shards, and what it keeps of a run before.
    layout: Layout = ONE_STREAM
    tally: Tally | None = None
    #: The share of what was scored that is kept for labels to come; None before anything was scored.
    samples: Sampling | None = None
    staged: Staged | None = None
    #: What was counted of each column beside what it is compared with, once it was read.
    comparison: Comparison | None = None
    #: Skipped entities that were scored again, and how many of them disagreed.
    resampled: int = 0
    disagreeing: int = 0
    #: Oldest newest row of the required sources, filled by the source checks.
    watermarks: dict[str, datetime | None] = field(default_factory=dict)
    #: Matured predictions with their labels, or why there are none; read once, by the checks of performance.
    cohort: Any = None
    #: What was found so far, in the order of the checks: some verdicts depend on others.
    findings: list[Finding] = field(default_factory=list)
    #: What was measured of each source, once.
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Golden rows as features.sql returns them now, once they were asked for.
    rebuilt: pa.Table | None = None
    #: What arrived in each source since the last publication of the schedule, counted once.
    arrived: dict[str, Slice] = field(default_factory=dict)

    #: What would be promised by what was found so far; for the last checks.
    promise: Promise | None = None

    @property
    def amends(self) -> int | None:
        """The generation whose rows this run leaves in place but for what it scored; None for a full run."""
        if self.selection is None or self.selection.mode is Mode.FULL or self.served is None:
            return None
        return self.served.generation_id

    @property
    def data_as_of(self) -> datetime:
        """How old the data is: the minimum over required sources, or as_of where none is declared."""
        known = [at for at in self.watermarks.values() if at is not None]
        kept = [] if self.layout.kept is None else [self.layout.kept.data_as_of, self.layout.kept.as_of]
        return min([*known, *kept, self.snapshot.as_of])


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question asked on every run."""

    id: str
    code: str
    class_: CheckClass
    #: What follows when it fails.
    on_fail: Disposition
    #: Answers for one or more subjects. A gauge answers about each of its subjects whenever it can, good or bad: what it
    #: answered before is how it persists and clears.
    ask: Callable[[Evidence, Check], Iterable[Finding]]
    when: Phase
    #: What to do when it does not pass, as a sentence; empty where the reason says it.
    remedy: str = ""
    #: What has to happen next when it fails: somebody finds out why, unless it is known what helps.
    followups: frozenset[Followup] = frozenset({Followup.INVESTIGATE})

    def finding(self, verdict: Verdict, reason: str, **facts: object) -> Finding:
        """Return a finding of this check."""
        values = {
            "check_id": self.id,
            "code": self.code,
            "class_": self.class_,
            "on_fail": self.on_fail,
            "followups": self.followups,
        }
        return Finding(**{**values, "verdict": verdict, "reason": reason, **facts})  # type: ignore[arg-type]
