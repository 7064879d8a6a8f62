"""What a run counted, beside what it is compared with: the training of its model, and recent clean runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tasks.database import connect
from tasks.declaration import Drift, DriftFeature
from tasks.findings import Disposition
from tasks.population import Mode
from tasks.profiles import ColumnBins, ColumnCounts, ModelProfile, Slot, StoredProfile, clean_runs, read_profiles
from tasks.profiles.counting import merged
from tasks.profiles.history import BASELINE_RUNS, LEAST_OF_SLOT

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa

    from tasks.checks.evidence import Evidence
    from tasks.drift import Counts
    from tasks.pipeline import Pipeline

#: Clean runs that a feature's own history is made of: four weeks of days, so that each weekday is in it four times.
HISTORY_RUNS = 28

#: A number whose values in training were all within this share of their size, or of 1, was the same for everybody.
SAME_VALUE = 1e-6

#: Features that are watched more closely once there is history: the model rests on these.
TOP_FEATURES = 10

#: A feature that the model owes at least this share to is one that it cannot do without.
MATTERS = 0.1

#: A text is no category once more than this share of training was seen there a single time: names, comments, histories.
FREE_TEXT = 0.05

_DISPOSITIONS = {"flag": Disposition.PUBLISH_FLAGGED, "hold": Disposition.HOLD, "abort": Disposition.ABORT}


@dataclass(frozen=True, kw_only=True, eq=False)
class Usual:
    """Recent clean runs of the same mode and model version."""

    #: The runs that a step is measured from, newest first; empty with fewer than LEAST_OF_SLOT.
    baseline: tuple[StoredProfile, ...] = ()
    #: Whether runs of all slots stand in for those of the same one.
    fallback: bool = False
    #: What a feature's own history is made of, newest first.
    history: tuple[StoredProfile, ...] = ()

    @classmethod
    def of(cls, recent: Sequence[StoredProfile], same_slot: Sequence[StoredProfile] | None, *, lag: int) -> Usual:
        """Choose among clean runs, both newest first; ``same_slot`` is None where all runs are of one slot.

        The newest ``lag`` runs are left out. A step has to be found in several runs before it counts; were the first of them
        part of what the next is compared with, a step of 0.25 standard deviations (adjusted PSI 0.06) would read 0.035 in
        the second run and would never be confirmed.
        """
        newest = {profile.run_id for profile in recent[:lag]}
        settled = [profile for profile in recent if profile.run_id not in newest]
        of_slot = settled if same_slot is None else [p for p in same_slot if p.run_id not in newest]
        fallback = same_slot is not None and len(of_slot) < LEAST_OF_SLOT
        baseline = (settled if fallback else of_slot)[:BASELINE_RUNS]
        if len(baseline) < LEAST_OF_SLOT:
            baseline = []
        return cls(baseline=tuple(baseline), fallback=fallback, history=tuple(settled[:HISTORY_RUNS]))

    @cached_property
    def features(self) -> Mapping[str, ColumnCounts]:
        """What the features of the baseline looked like, added up."""
        return merged(profile.features for profile in self.baseline)

    @cached_property
    def outputs(self) -> Mapping[str, ColumnCounts]:
        """What the predictions of the baseline looked like, added up."""
        return merged(profile.outputs for profile in self.baseline)

    @property
    def evidence(self) -> dict[str, object]:
        """Which runs the baseline is, for prescore.checks."""
        found: dict[str, object] = {"baseline_runs": [profile.run_id for profile in self.baseline]}
        return {**found, "baseline": "fallback"} if self.fallback else found


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The columns of a run, of its model's training, and of what is usual."""

    mode: Mode
    drift: Drift
    profile: ModelProfile
    features: Mapping[str, ColumnCounts]
    outputs: Mapping[str, ColumnCounts]
    usual: Usual = field(default_factory=Usual)

    @property
    def rows(self) -> int:
        """Rows whose features were counted."""
        return max((counts.rows for counts in self.features.values()), default=0)

    @cached_property
    def known_importance(self) -> Mapping[str, float]:
        """Share of the model's skill of those features for which it is known: declared, or else measured.

        What is measured shares what the declared ones leave, so that all add up to 1.
        """
        own = {name: self.own(name).importance for name in self.profile.features}
        declared = {name: share for name, share in own.items() if share is not None}
        measured = {
            name: bins.importance
            for name, bins in self.profile.features.items()
            if name not in declared and bins.importance is not None
        }
        total, left = sum(measured.values()), max(0.0, 1.0 - sum(declared.values()))
        return {**declared, **{name: left * share / total if total else 0.0 for name, share in measured.items()}}

    @cached_property
    def importance(self) -> Mapping[str, float]:
        """Share of the model's skill that rests on each feature; those of which it is not known share the rest equally."""
        known = self.known_importance
        unknown = [name for name in self.profile.features if name not in known]
        left = max(0.0, 1.0 - sum(known.values()))
        return {**known, **{name: left / len(unknown) for name in unknown}}

    @cached_property
    def top(self) -> frozenset[str]:
        """The most important features, as far as that is known or there are no more than so many."""
        ranked = sorted(self.importance, key=lambda name: (-self.importance[name], name))
        measured = any(self.known_importance.values())
        return frozenset(ranked[:TOP_FEATURES]) if measured or len(ranked) <= TOP_FEATURES else frozenset()

    @cached_property
    def shaped(self) -> tuple[str, ...]:
        """Features whose distribution can be compared: not instants, which move with time, free text, nor what never varied.

        Nor what is declared to be shared by all of a run: the weather of one morning is never that of a month.
        """
        found = self.profile.features.items()
        return tuple(
            name
            for name, bins in found
            if name in self.features
            and bins.comparable
            and bins.kind != "time"
            and not was_constant(bins)
            and not is_free(bins)
            and not self.own(name).shared
        )

    def own(self, feature: str) -> DriftFeature:
        """Return what is declared for one feature."""
        return self.drift.feature.get(feature, DriftFeature())

    def on_drift(self, feature: str = "") -> Disposition:
        """Return what a drift that persists leads to: as declared for the feature, else for all."""
        return _DISPOSITIONS[self.own(feature).on_fail or self.drift.on_fail]

    def on_values(self, feature: str) -> Disposition:
        """Return what values that cannot be right lead to: as declared for the feature, else hold if it matters much.

        Where importance is not known the bins are those of the rows that a model was registered with, which may be
        any, so that such values flag.
        """
        if self.own(feature).on_fail is None and self.known_importance.get(feature, 0.0) >= MATTERS:
            return Disposition.HOLD
        return self.on_drift(feature)


def comparison(evidence: Evidence) -> Comparison | None:
    """Return what a run counted with what it is compared with, read once; None where nothing was counted."""
    if evidence.comparison is None and evidence.tally is not None and evidence.tally.profile is not None:
        counted, selection = evidence.tally.profile, evidence.selection
        assert selection is not None
        evidence.comparison = Comparison(
            mode=selection.mode,
            drift=evidence.pipeline.drift,
            profile=counted.model_profile,
            features=counted.features,
            outputs=counted.outputs,
            usual=read_usual(evidence, selection.mode),
        )
    return evidence.comparison


def read_usual(evidence: Evidence, mode: Mode) -> Usual:
    """Read the profiles of recent clean runs."""
    with connect(evidence.url, "prescore check") as connection:
        return choose_usual(
            connection,
            evidence.pipeline,
            mode=mode,
            model_version=evidence.model.version,
            before=evidence.snapshot.as_of,
            read=lambda run_ids: read_profiles(connection, run_ids),
        )


def choose_usual(
    connection: sa.Connection,
    pipeline: Pipeline,
    *,
    mode: Mode,
    model_version: int,
    before: datetime,
    read: Callable[[Iterable[int]], Mapping[int, StoredProfile]],
) -> Usual:
    """Return what is usual for a run whose as_of is ``before``; ``read`` returns the stored profiles of runs."""
    declared, zone = pipeline.drift, pipeline.schedule.timezone
    lag = int(declared.persist.partition("/")[2]) - 1
    slot = None if declared.slot == "none" else Slot(declared.slot)

    def found(limit: int, of: Slot | None) -> list[int]:
        return clean_runs(
            connection,
            pipeline.name,
            mode=mode,
            model_version=model_version,
            before=before,
            limit=limit + lag,
            slot=of,
            timezone=zone,
        )

    recent = found(HISTORY_RUNS if mode is Mode.FULL else BASELINE_RUNS, None)
    same_slot = None if slot is None else found(BASELINE_RUNS, slot)
    profiles = read({*recent, *(same_slot or ())})
    return Usual.of(
        [profiles[run_id] for run_id in recent if run_id in profiles],
        None if same_slot is None else [profiles[run_id] for run_id in same_slot if run_id in profiles],
        lag=lag,
    )


def was_constant(bins: ColumnBins) -> bool:
    """Say whether a number was the same for everybody in training, but for the last digits."""
    if bins.kind == "text" or bins.min is None or bins.max is None:
        return False
    return bins.max - bins.min <= SAME_VALUE * max(1.0, abs(bins.min), abs(bins.max))


def seen_once(bins: ColumnBins) -> int:
    """Return how many rows of training had a text that no other row had; at most, where texts were counted together."""
    if bins.kind != "text":
        return 0
    named = bins.counts[: len(bins.categories)]
    others = int(bins.counts[-1]) if bins.has_other else 0
    return int((named == 1).sum()) + (others if bins.known is None else min(others, len(bins.known)))


def is_free(bins: ColumnBins) -> bool:
    """Say whether a text is no category: so much of training was there once that new values are what is usual."""
    return bins.kind == "text" and seen_once(bins) > FREE_TEXT * max(1, bins.rows)


def training_counts(bins: ColumnBins) -> Counts:
    """Return what training counted, in the bins of :func:`all_counts`; nothing was unseen then."""
    return np.concatenate([bins.counts, [0, bins.infinities, bins.nulls + bins.nans]]).astype(np.int64)


def all_counts(bins: ColumnBins, counts: ColumnCounts) -> Counts:
    """Return every value of a column in some bin: the frozen ones, then unseen, infinite, missing.

    What is below or above everything that training saw belongs to its first or last bin, which are open: how much of it there
    is has a limit of its own (input.range), and a bin that was empty in training would make an alarm of a few outliers.
    """
    inner = counts.counts.astype(np.int64).copy()
    rest = [counts.unseen or 0, counts.infinities, counts.nulls + counts.nans]
    if not len(inner):
        return np.array([counts.under + counts.over + rest[0], *rest[1:]], dtype=np.int64)
    if bins.kind != "text":
        n_points, points, edges = len(bins.points), bins.points, bins.edges
        pointed_below = n_points and (not len(edges) or points[0] < edges[0])
        pointed_above = n_points and (not len(edges) or points[-1] > edges[-1])
        inner[0 if pointed_below else n_points] += counts.under
        inner[n_points - 1 if pointed_above else -1] += counts.over
    return np.array([*inner, *rest], dtype=np.int64)
