"""Rounds of everybody in turns: prescore, the usual script, the expert's, the limit; and prescore's incremental runs.

In each round everybody runs once, in a process of its own, and the order rotates from round to round, so that a busy
minute of the machine meets all of them. The first round is not counted: it fills empty storages, shows whether all
predict the same, and which form of the expert's script is the faster one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks import runs
from tests.benchmarks.bench import Bench, run_process
from tests.benchmarks.table import register

#: Shares of the rows that change before an incremental run.
SHARES = (0.0, 0.001, 0.01, 0.1)
#: The usual script takes a minute for two million rows: beyond so many it gets a tenth, and at least so many.
USUAL_ROWS = 200_000

Found = dict[str, Any]
Say = Callable[[str], None]


@dataclass(kw_only=True)
class Comparison:
    """What is compared for one model, and what was measured: lists, one entry a round."""

    bench: Bench
    name: str
    rows: int
    incremental: bool = True
    rollback: bool = True
    say: Say = lambda text: None
    #: prescore, compiled (where it can be), usual, expert, limit.
    full: dict[str, list[Found]] = field(default_factory=lambda: defaultdict(list))
    #: By the share that had changed.
    changed: dict[float, list[Found]] = field(default_factory=lambda: defaultdict(list))
    returned: list[Found] = field(default_factory=list)
    #: By how much predictions differ at most, by what they were compared with.
    differences: dict[str, float] = field(default_factory=dict)
    expert: str = "expert_batches"
    #: Why there is no compiled form; None when there is one.
    not_compiled: str | None = None

    @property
    def usual_rows(self) -> int:
        """Rows of the usual script."""
        return max(self.rows // 10, min(self.rows, USUAL_ROWS))

    def warm_up(self) -> None:
        """Register the model, and let everybody run once."""
        register(self.bench, self.name)
        self._full("compiled")
        self.not_compiled = runs.why_not_compiled(self.bench, self.name)
        if self.not_compiled is None:
            runs.keep(self.bench, self.name)
        self._full("prescore")
        if self.not_compiled is None:
            found = runs.largest_difference(self.bench, self.name, f"kept_{self.name}")
            self.differences["compiled"] = found
        self._script("usual", self.usual_rows)
        # The better of two each: one that the machine held up would let the slower one stand for the expert.
        taken = [(self._script(each, self.rows)["seconds"], each) for each in ("expert_batches", "expert_whole") * 2]
        _, self.expert = min(taken)
        for script, rows in (("usual", self.usual_rows), (self.expert, self.rows)):
            found = runs.largest_difference(self.bench, self.name, f"{script}_{self.name}", rows)
            self.differences[script.partition("_")[0]] = found

    def entries(self) -> list[Callable[[], None]]:
        """Return what is compared with each other in a round, in any order."""
        found = [
            lambda: self._keep("prescore", self._full("prescore")),
            lambda: self._keep("usual", self._script("usual", self.usual_rows)),
            lambda: self._keep("expert", self._script(self.expert, self.rows)),
            lambda: self._keep("limit", self._limit()),
        ]
        if self.not_compiled is None:
            found.insert(1, lambda: self._keep("compiled", self._full("compiled")))
            found.append(lambda: self._keep("limit compiled", self._limit("--compiled")))
        return found

    def as_json(self) -> Found:
        """Return everything that was measured."""
        return {
            "full": dict(self.full),
            "incremental": {str(share): found for share, found in self.changed.items()},
            "rollback": self.returned,
            "differences": self.differences,
            "expert": self.expert,
            "not_compiled": self.not_compiled,
        }

    def after_full_runs(self, number: int, *, last: bool) -> None:
        """Do what needs a full run before it, and never between two that are compared.

        What incremental runs leave behind is not swept up at once, and a rollback goes back to before the last full run. That is
        another one, not counted: rows have changed for the model that came before.
        """
        if self.incremental or self.rollback:
            self._full("prescore" if self.not_compiled else "compiled")
        if self.incremental:
            for position, share in enumerate(SHARES):
                self._changed(share, seed=1_000 * number + 2 * position)
            if last:
                runs.keep(self.bench, self.name)
                self._full("prescore")
                found = runs.largest_difference(self.bench, self.name, f"kept_{self.name}")
                self.differences["incremental"] = found
        if self.rollback:
            runs.settle(self.bench)
            self.returned.append(runs.go_back(self.bench, self.name))

    def _full(self, form: str) -> Found:
        runs.settle(self.bench)
        found = runs.run(self.bench, self.name, full=True, compiled=form == "compiled")
        self.say(f"{self.name}: {form} {found['seconds']:.2f} s")
        return found

    def _script(self, script: str, rows: int) -> Found:
        runs.settle(self.bench)
        found = run_process(self.bench, "scripts", [script, self.name, "--rows", rows])
        self.say(f"{self.name}: {script} {found['seconds']:.2f} s for {rows:,} rows")
        return found

    def _limit(self, *options: str) -> Found:
        runs.settle(self.bench)
        found = run_process(self.bench, "limit", [self.name, "--rows", self.rows, *options])
        self.say(f"{self.name}: limit {' '.join(options)} {found['seconds']:.2f} s")
        return found

    def _changed(self, share: float, seed: int) -> None:
        if share:
            runs.change(self.bench, share, seed)
        found = runs.run(self.bench, self.name, full=False)
        self.say(f"{self.name}: {share:.1%} changed {found['seconds']:.2f} s, {found['rows']:,} rows scored")
        self.changed[share].append(found)

    def _keep(self, who: str, found: Found) -> None:
        self.full[who].append(found)


def compare(comparisons: list[Comparison], repeat: int) -> None:
    """Let everybody run once without counting, then in so many rounds, each begun by another."""
    for one in comparisons:
        one.warm_up()
    for number in range(repeat):
        entries = [entry for one in comparisons for entry in one.entries()]
        first = number * len(entries) // max(1, repeat)
        for entry in entries[first:] + entries[:first]:
            entry()
        for one in comparisons:
            one.after_full_runs(number + 1, last=number == repeat - 1)
