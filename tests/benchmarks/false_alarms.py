"""How often do the drift checks alarm for no reason in a year, and how soon do they find what is wrong?

    uv run python -m tests.benchmarks.false_alarms
    uv run python -m tests.benchmarks.false_alarms --days 365 --entities 2000 20000 1000000 --postgres 12

A year of daily full runs over the customers of tests/shop_year.py is judged by the checks, the choice of baselines and the
rules of persistence that a run uses; what PostgreSQL would keep between runs is kept in memory. Up to 100,000 entities are
counted one by one; of a million the counts are drawn. ``--postgres N`` sends the first N days through real runs and says
whether their findings are the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from rich import box
from rich.console import Console
from rich.table import Table

from tasks.checks import CHECKS
from tasks.checks.comparison import BASELINE_RUNS, HISTORY_RUNS, Comparison, Usual
from tasks.checks.evidence import Evidence
from tasks.declaration import Drift, Output, Unknown
from tasks.findings import CheckClass, Disposition, Finding, Verdict
from tasks.population import Mode
from tasks.profiles import ModelProfile, StoredProfile
from tasks.verdicts import REMEMBERED, History, Past, Rules, settle
from tests.shop_year import FAULTS, Fault, Shop, counted, drawn

#: What is judged on counts alone. outputs.frozen and outputs.flips need rows, the rest needs a database.
JUDGED = tuple(check for check in CHECKS if check.id.startswith(("drift.", "input.")) or check.id in {"output.rate"})
#: Beyond so many entities the counts of a day are drawn.
COUNTED_UP_TO = 100_000
_OUTPUT = Output.model_validate({"name": "p", "method": "predict_proba", "class": "1"})


@dataclass
class Pipeline:
    """A pipeline that runs once a day: what it judged, and what it remembers."""

    shop: Shop
    rows: int
    profile: ModelProfile
    drift: Drift = field(default_factory=lambda: Drift(slot="weekday"))
    #: Clean runs, oldest first, with their day.
    clean: list[tuple[int, StoredProfile]] = field(default_factory=list)
    answers: dict[tuple[str, str], list[Past]] = field(default_factory=dict)

    @classmethod
    def open(cls, entities: int, seed: int = 1) -> Pipeline:
        """Train a model on the year before."""
        shop = Shop(min(entities, 50_000), seed)
        training = shop.training(min(5_000, entities))
        return cls(shop=shop, rows=entities, profile=ModelProfile.from_bundle(training))

    def copied(self) -> Pipeline:
        """Return the same pipeline, to go on otherwise."""
        return Pipeline(
            shop=self.shop,
            rows=self.rows,
            profile=self.profile,
            drift=self.drift,
            clean=list(self.clean),
            answers={key: list(past) for key, past in self.answers.items()},
        )

    def run(self, day: int, fault: Fault | None = None) -> list[Finding]:
        """Judge one day, remember it, and return what each answer counts as."""
        if self.rows <= COUNTED_UP_TO:
            counts: Any = counted(self.profile, self.shop.day(day, fault, entities=self.rows))
        else:
            counts = drawn(self.shop, self.profile, day, self.rows, fault)
        stored = StoredProfile(
            run_id=day + 1,
            mode=Mode.FULL,
            as_of=self.shop.at(day),
            model="shop",
            model_version=1,
            features=counts.features,
            outputs=counts.outputs,
        )
        rules = Rules.of(self.drift, Unknown())
        findings = settle(self._asked(stored, rules.runs - 1), rules, History(self.answers, 1))
        self._remember(day, stored, findings)
        return findings

    def _asked(self, stored: StoredProfile, lag: int) -> list[Finding]:
        newest = self.clean[::-1]
        same = [profile for day, profile in newest if profile.as_of.weekday() == stored.as_of.weekday()]
        usual = Usual.of([profile for _, profile in newest[: HISTORY_RUNS + lag]], same[: BASELINE_RUNS + lag], lag=lag)
        compared = Comparison(
            mode=Mode.FULL,
            drift=self.drift,
            profile=self.profile,
            features=stored.features,
            outputs=stored.outputs,
            usual=usual,
        )
        pipeline = SimpleNamespace(drift=self.drift, predictions=(_OUTPUT,))
        evidence = cast(Evidence, SimpleNamespace(comparison=compared, pipeline=pipeline))
        return [finding for check in JUDGED for finding in check.ask(evidence, check)]

    def _remember(self, day: int, stored: StoredProfile, findings: Sequence[Finding]) -> None:
        for finding in findings:
            if finding.verdict is not Verdict.SKIPPED:
                past = Past(run_id=day + 1, model_version=1, verdict=finding.verdict, small_sample=finding.small_sample)
                known = self.answers.setdefault((finding.check_id, finding.subject), [])
                known.insert(0, past)
                del known[REMEMBERED:]
        if not any(finding.class_ is CheckClass.GUARD and finding.alarming for finding in findings):
            self.clean.append((day, stored))


@dataclass(frozen=True, kw_only=True)
class Year:
    """What a year of runs without faults gave."""

    entities: int
    days: int
    #: Day -> labels of the gauges, and of the guards, that alarmed.
    gauges: dict[int, list[str]]
    guards: dict[int, list[str]]
    holds: int
    #: Answers of gauges that were a warning or a failure, confirmed or not.
    raw: int
    seconds: float

    @property
    def episodes(self) -> int:
        """Stretches of runs one after the other with a gauge that alarmed."""
        return sum(day - 1 not in self.gauges for day in self.gauges)


@dataclass(frozen=True, kw_only=True)
class Caught:
    """How a fault was found."""

    fault: str
    #: First run, from 1, that alarmed; None when none of three did. One for each start.
    runs: list[int | None]
    checks: Counter[str]
    held: int


def year(pipeline: Pipeline, days: int, snapshots: Sequence[int] = ()) -> tuple[Year, dict[int, Pipeline]]:
    """Run a year without faults; return it, and the pipeline as it was before some days."""
    gauges: dict[int, list[str]] = {}
    guards: dict[int, list[str]] = {}
    kept: dict[int, Pipeline] = {}
    holds = raw = 0
    started = time.perf_counter()
    for day in range(days):
        if day in snapshots:
            kept[day] = pipeline.copied()
        findings = pipeline.run(day)
        for finding in findings:
            if finding.class_ is CheckClass.GAUGE:
                raw += finding.verdict in {Verdict.WARN, Verdict.FAIL}
            if finding.alarming:
                (gauges if finding.class_ is CheckClass.GAUGE else guards).setdefault(day, []).append(finding.label)
        holds += any(finding.disposition >= Disposition.HOLD for finding in findings)
    seconds = time.perf_counter() - started
    found = Year(entities=pipeline.rows, days=days, gauges=gauges, guards=guards, holds=holds, raw=raw, seconds=seconds)
    return found, kept


def inject(fault: Fault, starts: dict[int, Pipeline], *, most: int = 3) -> Caught:
    """Put a fault in from each of some days on, and see which run finds it, and with which checks."""
    runs: list[int | None] = []
    checks: Counter[str] = Counter()
    held = 0
    for day, before in starts.items():
        pipeline = before.copied()
        found: int | None = None
        for at in range(most):
            findings = pipeline.run(day + at, fault)
            alarms = [finding for finding in findings if finding.alarming]
            if alarms:
                found = at + 1
                checks.update({finding.check_id for finding in alarms})
                held += any(finding.disposition >= Disposition.HOLD for finding in alarms)
                break
        runs.append(found)
    return Caught(fault=fault.name, runs=runs, checks=checks, held=held)


def main() -> None:
    """Judge the year of each size, then the faults, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--entities", type=int, nargs="+", default=[2_000, 20_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", type=int, default=0, metavar="DAYS")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    years = Table("entities", "runs", "with a gauge", "episodes", "single answers", "with a guard", "held", "s a run")
    faults = Table("entities", "fault", "run 1", "run 2", "run 3", "not", "held", "found by")
    for entities in arguments.entities:
        starts = range(40, arguments.days - 3, 28)
        found, kept = year(Pipeline.open(entities, arguments.seed), arguments.days, starts)
        row = (found.days, len(found.gauges), found.episodes, found.raw, len(found.guards), found.holds)
        years.add_row(f"{entities:,}", *(str(value) for value in row), f"{found.seconds / found.days:.3f}")
        for day, labels in sorted({**found.gauges, **found.guards}.items()):
            console.print(f"{entities:,} entities, day {day}: {', '.join(labels)}", style="dim")
        for fault in FAULTS:
            caught = inject(fault, kept)
            counts = Counter(caught.runs)
            names = ", ".join(f"{name} {count}" for name, count in caught.checks.most_common())
            told = [str(counts[at]) for at in (1, 2, 3, None)]
            faults.add_row(f"{entities:,}", fault.name, *told, str(caught.held), names)
    for shown in (years, faults):
        shown.box = box.SIMPLE_HEAD
        console.print(shown)
    if arguments.postgres:
        console.print(compare_with_postgres(arguments.postgres, arguments.seed))


def compare_with_postgres(days: int, seed: int) -> str:
    """Send days of 2,000 entities through real runs, and say how many of their findings the simulation gives too."""
    from tests.benchmarks.real_days import findings_of_real_runs

    pipeline = Pipeline.open(2_000, seed)
    same = total = 0
    for day, (profile, real) in enumerate(findings_of_real_runs(pipeline.shop, days)):
        pipeline.profile = profile
        simulated = {(f.check_id, f.subject): (f.verdict.value, f.effective.value, f.reason) for f in pipeline.run(day)}
        total += len(real)
        same += sum(simulated.get(key) == answer for key, answer in real.items())
    return f"{same} of {total} findings of {days} real runs on PostgreSQL are those of the simulation, to the word"


if __name__ == "__main__":
    main()
