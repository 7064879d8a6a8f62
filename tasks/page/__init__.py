"""One page about a pipeline, as HTML in one file: styles and charts are in it, and nothing is loaded from anywhere.

Texts are escaped by the template, drawings by the element tree they are made of, and the page forbids scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasks import timeline
from tasks.page import advice, charts, pictures, shapes
from tasks.page.charts import Mark, Measured
from tasks.page.pictures import Picture
from tasks.telling import shown, span

if TYPE_CHECKING:
    from tasks.history import PastRun, StoredFinding
    from tasks.overview import Overview
    from tasks.profiles import ColumnBins

#: Runs that a table has room for: columns of the one about drift, lines of the one about coverage.
DRIFT_RUNS, COVERAGE_RUNS = 10, 12
#: Features that stand in the open; the further ones are folded away.
OPEN_FEATURES = 12
#: Outputs whose scores are drawn.
DRAWN_OUTPUTS = 4
_ORDER = {"fail": 0, "warn": 1, "unknown": 2, "pass": 3, "skipped": 4}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one run found of one feature."""

    #: The verdict that it counts as.
    verdict: str
    text: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class FeatureLine:
    """One feature in the table about drift."""

    name: str
    importance: str
    cells: tuple[Cell | None, ...]
    #: Gravest first, then the furthest from training.
    order: tuple[int, float, float]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A chart under its heading."""

    title: str
    note: str
    svg: Any


def write_page(overview: Overview, *, show_values: bool = False) -> str:
    """Return the page.

    ``show_values`` lets it name what entities have: categories, single values and the limits of ranges of the training
    data. Without it these are numbered.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": shown, "stamp": _stamp, "day": _day, "hour": _hour, "count": _count}
    style = "".join(pictures.part(name) for name in ("light.css", "page.css", "drawing.css"))
    parts = _parts(overview, show_values=show_values)
    return environment.from_string(pictures.part("page.html.j2")).render(style=_markup(style), **parts)


def draw_pictures(overview: Overview) -> list[Picture]:
    """Return the charts that a report of a run shows: ages against their limits, and the feature furthest from training."""
    drawn = []
    ages = _draw_ages(overview)
    if ages is not None:
        drawn.append(pictures.picture("How old the predictions were", str(ages)))
    judged = overview.judged[: -DRIFT_RUNS - 1 : -1]
    features = _draw_features(overview, _feature_lines(overview, judged), show_values=False)
    if judged and features:
        title = f"Furthest from training: {features[0].title} (grey: training, blue: now)"
        drawn.append(pictures.picture(title, str(features[0].svg)))
    return drawn


def _parts(overview: Overview, *, show_values: bool) -> dict[str, Any]:
    judged = overview.judged[: -DRIFT_RUNS - 1 : -1]
    features = _feature_lines(overview, judged)
    return {
        "health": overview.health,
        "now": overview.now,
        "meaning": advice.MEANINGS.get(overview.health.state, ""),
        "until": advice.describe_until(overview),
        "problems": advice.list_problems(overview),
        "age": None if overview.health.age is None else span(overview.health.age),
        "ages": _draw_ages(overview),
        "times": _times(overview),
        "judged": judged,
        "features": features,
        "open_features": OPEN_FEATURES,
        "dataset": None if not judged else judged[0].found("drift.inputs").get(""),
        "worst": _draw_features(overview, features, show_values),
        "outputs": _draw_outputs(overview, show_values),
        "coverage": [_coverage(run) for run in reversed(overview.runs)][:COVERAGE_RUNS],
        "metrics": _draw_metrics(overview),
        "exceptions": _exceptions(overview),
        "last": overview.last,
        "findings": sorted(
            () if overview.last is None else overview.last.findings,
            key=lambda found: (_ORDER[found.effective], _ORDER[found.verdict], found.check_id, found.subject),
        ),
        "show_values": show_values,
    }


# Ages ---------------------------------------------------------------------------------------------------------------


def _draw_ages(overview: Overview) -> Any:
    if not overview.publications:
        return None
    now = overview.now
    since = min(now - timedelta(hours=1), *(each.published_at for each in overview.publications[-len(overview.runs) :]))
    ahead = min(max((now - since) * 0.2, timedelta(hours=1)), timedelta(days=60))
    past = timeline.spans(overview.publications, since, now)
    seen = [*past, *timeline.spans(overview.publications, now, now + ahead)]
    marks = [
        Mark(at=run.clock_at, what=run.status, hint=f"Run {run.run_id} {run.status} at {shown(run.clock_at)}")
        for run in overview.runs
        if run.status not in {"published", "running", "skipped"}
    ]
    marks += [
        Mark(
            at=each.undone_at,
            what="undone",
            hint=f"Generation {each.generation_id} was undone at {shown(each.undone_at)}",
        )
        for each in overview.publications
        if each.undone_at is not None
    ]
    return _markup(charts.draw_ages(seen, marks, since, now))


def _times(overview: Overview) -> list[tuple[str, str]]:
    """Return how long readers saw each state."""
    if not overview.publications:
        return []
    since = overview.publications[0].published_at
    lengths = timeline.time_in_states(timeline.spans(overview.publications, since, max(overview.now, since)))
    return [(state, span(length)) for state, length in lengths.items()]


# Drift --------------------------------------------------------------------------------------------------------------


def _feature_lines(overview: Overview, judged: Sequence[PastRun]) -> list[FeatureLine]:
    names = dict.fromkeys(subject for run in judged for subject in run.found("drift.input"))
    lines = [_feature_line(overview, name, judged) for name in names]
    return sorted(lines, key=lambda line: line.order)


def _feature_line(overview: Overview, name: str, judged: Sequence[PastRun]) -> FeatureLine:
    found = [run.found("drift.input").get(name) for run in judged]
    bins = _bins(overview, "features", name)
    importance = None if bins is None else bins.importance
    last = found[0]
    return FeatureLine(
        name=name,
        importance="" if importance is None else f"{importance:.0%}",
        cells=tuple(None if each is None or each.verdict == "skipped" else _cell(each) for each in found),
        order=(
            5 if last is None else _ORDER[last.effective],
            -(last.observed or 0.0) if last is not None else 0.0,
            -(importance or 0.0),
        ),
    )


def _cell(found: StoredFinding) -> Cell:
    text = "?" if found.observed is None else f"{found.observed:.2f}"
    counts = "" if found.effective == found.verdict else f", counts as {found.effective}"
    return Cell(verdict=found.effective, text=text, hint=f"{found.verdict}{counts}: {found.reason}")


def _bins(overview: Overview, kind: str, name: str) -> ColumnBins | None:
    for profile in overview.trained.values():
        if name in getattr(profile, kind):
            bins: ColumnBins = getattr(profile, kind)[name]
            return bins
    return None


def _draw_features(overview: Overview, lines: Sequence[FeatureLine], show_values: bool) -> list[Drawing]:
    """Draw the feature that is furthest from training, and the two after it."""
    run = next(
        (overview.profiles[run.run_id] for run in reversed(overview.judged) if run.run_id in overview.profiles), None
    )
    if run is None:
        run = max(overview.profiles.values(), key=lambda profile: profile.run_id, default=None)
    trained = None if run is None else overview.trained.get(run.model_version)
    if run is None or trained is None:
        return []
    names = [line.name for line in lines] or sorted(
        run.features, key=lambda name: -(trained.features[name].importance or 0) if name in trained.features else 0
    )
    drawings: list[Drawing] = []
    for name in names:
        if name in run.features and name in trained.features and len(drawings) < 3:
            bars = shapes.compare(trained.features[name], run.features[name], show_values=show_values)
            if bars is not None:
                note = (
                    f"{trained.features[name].rows:,} rows of training, {run.features[name].rows:,} of run {run.run_id}"
                )
                svg = _markup(charts.draw_bars(bars, f"{name}, training and now"))
                drawings.append(Drawing(title=name, note=note, svg=svg))
    return drawings


def _draw_outputs(overview: Overview, show_values: bool) -> list[Drawing]:
    run = max(overview.profiles.values(), key=lambda profile: profile.run_id, default=None)
    trained = None if run is None else overview.trained.get(run.model_version)
    if run is None or trained is None:
        return []
    drawings: list[Drawing] = []
    for name, counts in run.outputs.items():
        bars = None
        if name in trained.outputs and len(drawings) < DRAWN_OUTPUTS:
            bars = shapes.compare(trained.outputs[name], counts, show_values=show_values)
        if bars is not None:
            kind = "lengths of lists; " if trained.outputs[name].kind == "list" else ""
            note = (
                f"{kind}{trained.outputs[name].rows:,} held-out rows of training, {counts.rows:,} of run {run.run_id}"
            )
            note += f" ({run.mode.value})"
            svg = _markup(charts.draw_bars(bars, f"{name}, training and now"))
            drawings.append(Drawing(title=name, note=note, svg=svg))
    return drawings


# Coverage, metrics, exceptions --------------------------------------------------------------------------------------


def _coverage(run: PastRun) -> dict[str, Any]:
    """Return the ledger of a run: population = scored + unchanged + rejected."""
    counts = {name: getattr(run, name) for name in ("population", "scored", "unchanged", "rejected", "gone")}
    whole = run.population or 0
    shares = {name: (counts[name] or 0) / whole * 100 for name in ("scored", "unchanged", "rejected")} if whole else {}
    missing = run.found("rows.missing").get("")
    adds_up = whole == sum(counts[name] or 0 for name in ("scored", "unchanged", "rejected"))
    known = None if missing is None or missing.observed is None else int(missing.observed)
    return {"run": run, **counts, "shares": shares, "missing": known, "adds_up": adds_up}


def _draw_metrics(overview: Overview) -> list[Drawing]:
    """Draw each metric that labels gave, and what was estimated without them."""
    subjects = dict.fromkeys(
        found.unit
        for run in overview.runs
        for check_id in ("performance.metric", "performance.estimate")
        for found in run.found(check_id).values()
        if found.observed is not None
    )
    drawings: list[Drawing] = []
    for subject in subjects:
        real = [(run, _of_metric(run, "performance.metric", subject)) for run in overview.runs]
        estimated = [_of_metric(run, "performance.estimate", subject) for run in overview.runs]
        measured = [
            _measured(run, found, guess)
            for (run, found), guess in zip(real, estimated, strict=True)
            if (found is not None and found.observed is not None) or (guess is not None and guess.observed is not None)
        ]
        judged = [found for _, found in real if found is not None and found.observed is not None]
        limits = judged[-1] if judged else next((each for each in reversed(estimated) if each is not None), None)
        warn, fail = (None, None) if limits is None else (limits.warn_limit, limits.fail_limit)
        title = subject or "metric"
        note = "" if limits is None else limits.reason
        drawings.append(Drawing(title=title, note=note, svg=_markup(charts.draw_metric(title, measured, warn, fail))))
    return drawings


def _of_metric(run: PastRun, check_id: str, metric: str | None) -> StoredFinding | None:
    found = run.found(check_id).values()
    return next((each for each in found if each.unit == metric and each.observed is not None), None)


def _measured(run: PastRun, found: StoredFinding | None, guess: StoredFinding | None) -> Measured:
    low, high = (None, None) if found is None else (_number(found, "low"), _number(found, "high"))
    return Measured(
        at=f"{run.as_of or run.clock_at:%d %b}",
        value=None if found is None else found.observed,
        low=low,
        high=high,
        estimate=None if guess is None else guess.observed,
    )


def _number(found: StoredFinding, name: str) -> float | None:
    value = found.evidence.get(name)
    return float(value) if isinstance(value, int | float) else None


def _exceptions(overview: Overview) -> list[tuple[datetime, str, str]]:
    """Return what people decided and what was taken back, newest first: instant, what, detail."""
    found: list[tuple[datetime, str, str]] = []
    for run in overview.runs:
        for finding in run.findings:
            if finding.waived:
                detail = f"{finding.label} in run {run.run_id}: {finding.reason}; {finding.evidence.get('note', '')}"
                found.append((run.clock_at, "waived", detail))
    for each in overview.publications:
        if each.undone_at is not None:
            found.append((each.undone_at, "rolled back", f"generation {each.generation_id} of run {each.run_id}"))
    for entry in overview.quarantines:
        released = "" if entry.released_at is None else f"; released by {entry.released_by}: {entry.released_because}"
        detail = f"generation {entry.generation_id} by {entry.quarantined_by}: {entry.because}{released}"
        found.append((entry.quarantined_at, "quarantined", detail))
    return sorted(found, key=lambda each: each[0], reverse=True)


# Small parts --------------------------------------------------------------------------------------------------------


def _markup(text: str) -> Any:
    """Return text that is escaped already: the style of the page, and drawings made as element trees."""
    import markupsafe

    return markupsafe.Markup(text)


def _stamp(instant: datetime) -> str:
    return f"{instant:%d %b %H:%M}"


def _day(instant: datetime) -> str:
    return f"{instant:%d %b}"


def _hour(instant: datetime) -> str:
    return f"{instant:%H:%M}"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


__all__ = ["Picture", "draw_pictures", "write_page"]
