"""What a run cost: seconds and CPU seconds of its steps, and what a million predictions cost at that rate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tasks.stopwatch import StepTiming

MILLION = 1_000_000

_STAGES = ("read", "prepare", "predict", "write")


@dataclass(frozen=True, kw_only=True)
class PerMillion:
    """What a million predictions cost: the whole run's seconds divided by its predictions, times a million.

    Everything that a run does is in it, so that of a small run it says mostly what every run costs.
    """

    #: Wall time.
    seconds: float
    #: CPU time of Python.
    cpu_seconds: float
    #: CPU time of PostgreSQL's backends; None where it cannot be known.
    postgres_cpu_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """What a run cost, in seconds."""

    #: Predictions that it made: entities scored.
    predictions: int
    #: From the start of the run to its end.
    seconds: float
    #: CPU time of Python: this process, all threads, and its children.
    cpu_seconds: float
    #: CPU time of PostgreSQL's backends that served the run's sessions; None where it cannot be known.
    postgres_cpu_seconds: float | None
    steps: tuple[StepTiming, ...] = ()
    #: By stage of the stream: seconds at work and CPU seconds. Stages work at once, so that the seconds overlap.
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def per_million(self) -> PerMillion | None:
        """Cost of a million predictions at the rate of this run; None when it made none."""
        if not self.predictions:
            return None
        share = MILLION / self.predictions
        postgres = self.postgres_cpu_seconds
        return PerMillion(
            seconds=self.seconds * share,
            cpu_seconds=self.cpu_seconds * share,
            postgres_cpu_seconds=None if postgres is None else postgres * share,
        )

    @classmethod
    def of(cls, steps: Sequence[StepTiming], predictions: int, stages: Mapping[str, Any] | None = None) -> RunCost:
        """Add up the steps of a run. ``stages`` have ``seconds`` and ``cpu_seconds`` each."""
        postgres = [step.postgres_cpu_seconds for step in steps]
        # The first step may begin before any session: only the last one says whether the sum is known.
        known = bool(postgres) and postgres[-1] is not None
        return cls(
            predictions=predictions,
            seconds=sum(step.seconds for step in steps),
            cpu_seconds=sum(step.cpu_seconds for step in steps),
            postgres_cpu_seconds=sum(each or 0.0 for each in postgres) if known else None,
            steps=tuple(steps),
            stages={
                name: {"seconds": stage.seconds, "cpu_seconds": stage.cpu_seconds}
                for name, stage in sorted((stages or {}).items(), key=_place)
            },
        )

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RunCost:
        """Return the cost as prescore.runs holds it."""
        return cls(
            predictions=stored["predictions"],
            seconds=stored["seconds"],
            cpu_seconds=stored["cpu_seconds"],
            postgres_cpu_seconds=stored["postgres_cpu_seconds"],
            steps=tuple(StepTiming(**step) for step in stored["steps"]),
            stages=stored["stages"],
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as programs are told and prescore.runs holds it, with the cost of a million."""
        million = self.per_million
        return {**asdict(self), "per_million": None if million is None else asdict(million)}

    def as_stored(self) -> str:
        """Return it as the text of a jsonb, to the tenth of a millisecond."""
        return json.dumps(_rounded(self.as_json()))


def _place(stage: tuple[str, Any]) -> int:
    """Return where rows come to a stage: they are begun from the last one back."""
    return _STAGES.index(stage[0]) if stage[0] in _STAGES else len(_STAGES)


def describe_cost(cost: RunCost) -> str:
    """Say what a run cost, and a million predictions at its rate."""
    told = f"{_cpu(cost.cpu_seconds, cost.postgres_cpu_seconds)}"
    million = cost.per_million
    if million is None:
        return told
    rate = _cpu(million.cpu_seconds, million.postgres_cpu_seconds)
    return f"{told}; per million predictions {shown_seconds(million.seconds)}, and {rate}"


def shown_seconds(seconds: float) -> str:
    """Return seconds with as many digits as mean something: 0.03 s, 2.4 s, 1,204 s."""
    digits = 2 if abs(seconds) < 1 else 1 if abs(seconds) < 100 else 0
    return f"{seconds:,.{digits}f} s"


def _cpu(python: float, postgres: float | None) -> str:
    if postgres is None:
        return f"{shown_seconds(python)} of CPU in Python"
    return f"{shown_seconds(python + postgres)} of CPU ({shown_seconds(python)} Python, {shown_seconds(postgres)} PostgreSQL)"


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(held) for held in value]
    return round(value, 4) if isinstance(value, float) else value
