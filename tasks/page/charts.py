"""The charts of the page: ages against their limits, two distributions side by side, a metric with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from xml.etree import ElementTree as Tree

from tasks.page.svg import (
    Scale,
    TimeScale,
    add,
    canvas,
    drawn,
    duration,
    hour_ticks,
    linear,
    number_ticks,
    points,
    time_scale,
    time_ticks,
)
from tasks.telling import shown
from tasks.timeline import Publication, Span

WIDTH = 760
_LEFT, _RIGHT = 56, 84


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A run that did not publish, or another thing that happened, on the time axis."""

    at: datetime
    #: held, aborted, failed, crashed, cancelled, undone.
    what: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Two distributions over the same bins, as shares of their rows."""

    labels: tuple[str, ...]
    training: tuple[float, ...]
    now: tuple[float, ...]
    #: Labels of what lies in no range: unseen, NULL and the like.
    special: tuple[str, ...]
    #: What runs from left to right.
    axis: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A metric of one run, from labels or estimated without them."""

    at: str
    value: float | None
    low: float | None = None
    high: float | None = None
    estimate: float | None = None


def draw_ages(spans: Sequence[Span], marks: Iterable[Mark], since: datetime, now: datetime) -> str:
    """Draw how old the data behind the predictions was, its limits, and the states that readers saw.

    ``spans`` may go on beyond ``now``: that part is what readers will see when nothing is published any more.
    """
    until = max([now, *(span.until for span in spans)])
    ages = [_age(span.publication, span.until) for span in spans if span.publication is not None]
    limits = [limit for span in spans if span.publication is not None for limit in _limits(span.publication)[:2]]
    top = max([*ages, *limits, 1 / 12]) * 1.08
    svg = canvas(WIDTH, 322, "Age of the data behind the predictions", _ages_in_words(spans, now))
    across, y = time_scale(since, until, _LEFT, WIDTH - _RIGHT), linear(0, top, 224, 14)
    _grid(svg, [(y(hours), duration(hours)) for hours in hour_ticks(top)])
    for at, text in time_ticks(since, until):
        add(svg, "line", "grid", x1=across(at), y1=14.0, x2=across(at), y2=224.0)
        add(svg, "text", "tick middle", text=text, x=across(at), y=240.0)
    _draw_limits(svg, spans, across, y, top)
    for class_, part in (
        ("age", [s for s in spans if s.since < now]),
        ("age ahead", [s for s in spans if s.since >= now]),
    ):
        known = [(each, each.publication) for each in part if each.publication is not None]
        corners = [(across(at), y(_age(served, at))) for each, served in known for at in (each.since, each.until)]
        if corners:
            add(svg, "polyline", class_, points=points(corners))
    _draw_states(svg, spans, across, now)
    add(svg, "line", "now", x1=across(now), y1=8.0, x2=across(now), y2=276.0)
    add(svg, "text", "tick middle strong", text="now", x=across(now), y=290.0)
    for mark in marks:
        if since <= mark.at <= until:
            add(
                svg,
                "text",
                f"mark {mark.what}",
                text=_SHAPES.get(mark.what, "×"),
                hint=mark.hint,
                x=across(mark.at),
                y=312.0,
            )
    return drawn(svg)


_SHAPES = {"held": "▲", "undone": "↶", "flagged": "!", "aborted": "■", "failed": "×", "crashed": "×"}


def _age(publication: Publication, at: datetime) -> float:
    """Return the age of the data in hours."""
    return max(0.0, (at - publication.data_as_of).total_seconds() / 3600)


def _limits(publication: Publication) -> tuple[float, float, float]:
    """Return the ages in hours at which it is aging, stale and expired, the age of its model included."""
    aging = min(publication.aging_at, publication.model_aging_at)
    stale = min(publication.stale_at, publication.model_stale_at)
    return _age(publication, aging), _age(publication, stale), _age(publication, publication.expires_at)


def _draw_limits(svg: Tree.Element, spans: Sequence[Span], across: TimeScale, y: Scale, top: float) -> None:
    """Draw each limit as steps, since each publication keeps its own, and its name at the right."""
    for position, name in enumerate(("aging", "stale", "expired")):
        corners: list[tuple[float, float]] = []
        for span in spans:
            limit = None if span.publication is None else _limits(span.publication)[position]
            if limit is not None and limit <= top:
                corners += [(across(span.since), y(limit)), (across(span.until), y(limit))]
        if corners:
            add(svg, "polyline", f"limit {name}", points=points(corners))
            add(svg, "text", f"word {name}", text=name, x=corners[-1][0] + 6, y=corners[-1][1] + 4)


def _draw_states(svg: Tree.Element, spans: Sequence[Span], across: TimeScale, now: datetime) -> None:
    add(svg, "text", "tick end", text="readers", x=_LEFT - 6.0, y=266.0)
    for span in _merged(spans, now):
        left, right = across(span.since), across(span.until)
        ahead = " ahead" if span.since >= now else ""
        hint = f"{span.state} from {shown(span.since)} to {shown(span.until)}"
        add(
            svg,
            "rect",
            f"state {span.state}{ahead}",
            hint=hint,
            x=left,
            y=252.0,
            width=max(right - left, 0.6),
            height=20,
        )
        if right - left > 7 * len(span.state) + 6:
            add(svg, "text", f"on {span.state}{ahead}", text=span.state, x=(left + right) / 2, y=266.0)


def _merged(spans: Sequence[Span], now: datetime) -> list[Span]:
    """Return stretches of one state as one, whatever publication it was of; what has passed and what comes stay apart."""
    found: list[Span] = []
    for span in spans:
        if found and found[-1].state == span.state and span.since != now:
            found[-1] = replace(found[-1], until=span.until)
        else:
            found.append(span)
    return found


def _ages_in_words(spans: Sequence[Span], now: datetime) -> str:
    past = [span for span in _merged(spans, now) if span.since < now]
    told = [f"{span.state} for {duration(round(span.length / timedelta(hours=1), 1))}" for span in past[-12:]]
    return "What readers saw, one after the other: " + ", ".join(told) + "." if told else "Nothing was served."


def draw_bars(bars: Bars, title: str) -> str:
    """Draw two distributions over the same bins: training behind, now in front."""
    count = len(bars.labels)
    top = max([*bars.training, *bars.now, 0.01]) * 1.1
    svg = canvas(WIDTH, 244, title, _bars_in_words(bars))
    y = linear(0, top, 182, 12)
    _grid(svg, [(y(percent / 100), f"{percent:g}%") for percent in number_ticks(0, top * 100, 4)], right=16)
    wide = (WIDTH - _LEFT - 16) / max(count, 1)
    every = max(1, -(-count // 22))
    for position, label in enumerate(bars.labels):
        left = _LEFT + position * wide
        then, now = bars.training[position], bars.now[position]
        hint = f"{label}: {then:.2%} in training, {now:.2%} now"
        add(
            svg, "rect", "training", hint=hint, x=left + wide * 0.06, y=y(then), width=wide * 0.88, height=182 - y(then)
        )
        add(svg, "rect", "current", hint=hint, x=left + wide * 0.26, y=y(now), width=wide * 0.48, height=182 - y(now))
        if label in bars.special:
            add(svg, "text", "tick middle small", text=label, x=left + wide / 2, y=208.0 + 11 * (position % 2))
        elif position % every == 0:
            _bin_label(svg, label, left + wide / 2, wide * every)
    add(svg, "text", "tick middle", text=bars.axis, x=(WIDTH + _LEFT) / 2, y=239.0)
    return drawn(svg)


def _bin_label(svg: Tree.Element, label: str, middle: float, wide: float) -> None:
    room = max(2, int(wide / 5.6))
    text = label if len(label) <= room else label[: max(1, room - 1)] + "…"
    add(svg, "text", "tick middle small", text=text, hint="", x=middle, y=198.0)


def _bars_in_words(bars: Bars) -> str:
    moved = sorted(zip(bars.labels, bars.training, bars.now, strict=True), key=lambda each: -abs(each[2] - each[1]))
    told = [f"{label} {then:.1%} in training and {now:.1%} now" for label, then, now in moved[:5]]
    return "The bins that differ most: " + "; ".join(told) + "."


def draw_metric(name: str, measured: Sequence[Measured], warn: float | None, fail: float | None) -> str:
    """Draw a metric run by run: from labels with its interval, estimated as a diamond, and the limits."""
    values = [
        value for each in measured for value in (each.value, each.low, each.high, each.estimate) if value is not None
    ] + [limit for limit in (warn, fail) if limit is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = (high - low) * 0.12 or abs(high) * 0.05 or 0.05
    svg = canvas(WIDTH, 216, f"{name}, run by run", _metric_in_words(name, measured))
    y, x = linear(low - pad, high + pad, 176, 12), linear(-0.5, len(measured) - 0.5, _LEFT, WIDTH - _RIGHT)
    _grid(svg, [(y(value), f"{value:g}") for value in number_ticks(low - pad, high + pad, 4)])
    for limit, class_ in ((warn, "aging"), (fail, "expired")):
        if limit is not None:
            add(svg, "line", f"limit {class_}", x1=_LEFT, y1=y(limit), x2=WIDTH - _RIGHT, y2=y(limit))
            word = "warns" if class_ == "aging" else "fails"
            add(svg, "text", f"word {class_}", text=word, x=WIDTH - _RIGHT + 6.0, y=y(limit) + 4)
    every = max(1, -(-len(measured) // 8))
    for position, each in enumerate(measured):
        _draw_measured(svg, each, x(position), y)
        if position % every == 0:
            add(svg, "text", "tick middle", text=each.at, x=x(position), y=194.0)
    return drawn(svg)


def _draw_measured(svg: Tree.Element, each: Measured, at: float, y: Scale) -> None:
    if each.low is not None and each.high is not None:
        hint = f"{each.at}: between {each.low:.4g} and {each.high:.4g}"
        add(svg, "line", "interval", hint=hint, x1=at, y1=y(each.low), x2=at, y2=y(each.high))
    if each.value is not None:
        add(svg, "circle", "dot", hint=f"{each.at}: {each.value:.4g} from labels", cx=at, cy=y(each.value), r=4)
    if each.estimate is not None:
        top = y(each.estimate)
        corners = [(at, top - 5), (at + 5, top), (at, top + 5), (at - 5, top)]
        add(svg, "polygon", "estimate", hint=f"{each.at}: {each.estimate:.4g} estimated", points=points(corners))


def _metric_in_words(name: str, measured: Sequence[Measured]) -> str:
    last = next((each for each in reversed(measured) if each.value is not None), None)
    return f"{name} was {last.value:.4g} in the last run that had labels." if last is not None else f"No {name} yet."


def _grid(svg: Tree.Element, lines: Iterable[tuple[float, str]], right: int = _RIGHT) -> None:
    for at, text in lines:
        add(svg, "line", "grid", x1=_LEFT, y1=at, x2=WIDTH - right, y2=at)
        add(svg, "text", "tick end", text=text, x=_LEFT - 6.0, y=at + 4)
