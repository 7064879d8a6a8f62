"""Drawing: SVG elements, scales, and ticks that fall on round numbers and round times.

Everything is built as an element tree, so that whatever text goes in comes out escaped. Colours are classes: the page
says what they look like, in light, in dark and on paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as Tree

Scale = Callable[[float], float]
TimeScale = Callable[[datetime], float]

#: Steps between ticks of a time axis; the first that gives few enough ticks is taken.
_STEPS = (
    *(timedelta(minutes=n) for n in (5, 15, 30)),
    *(timedelta(hours=n) for n in (1, 3, 6, 12)),
    *(timedelta(days=n) for n in (1, 2, 7, 14, 28, 91, 182, 365)),
)
_MONDAY = datetime(2001, 1, 1, tzinfo=UTC)


def canvas(width: int, height: int, title: str, description: str) -> Tree.Element:
    """Return an empty drawing; title and description are what people hear who cannot see it."""
    # Without its namespace an image in a page of its own is not drawn; the parser of HTML ignores it.
    svg = Tree.Element(
        "svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "xmlns": "http://www.w3.org/2000/svg"}
    )
    Tree.SubElement(svg, "title").text = title
    Tree.SubElement(svg, "desc").text = description
    return svg


def add(
    parent: Tree.Element, tag: str, class_: str = "", /, text: str = "", hint: str = "", **attributes: object
) -> None:
    """Add an element; numbers are rounded to a tenth of a pixel. ``hint`` is shown while the mouse is over it."""
    given = {name.rstrip("_").replace("_", "-"): _written(value) for name, value in attributes.items()}
    if class_:
        given["class"] = class_
    element = Tree.SubElement(parent, tag, given)
    element.text = text or None
    if hint:
        Tree.SubElement(element, "title").text = hint


def drawn(svg: Tree.Element) -> str:
    """Return a drawing as text for a page."""
    return Tree.tostring(svg, encoding="unicode")


def points(pairs: list[tuple[float, float]]) -> str:
    """Return corners of a line as SVG writes them."""
    return " ".join(f"{_written(x)},{_written(y)}" for x, y in pairs)


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Return a function that leads low..high to start..end; what has no extent lies in the middle."""
    if high <= low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def time_scale(since: datetime, until: datetime, start: float, end: float) -> TimeScale:
    """Return a function that leads since..until to start..end."""
    scale = linear(0.0, (until - since).total_seconds(), start, end)
    return lambda at: scale((at - since).total_seconds())


def number_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most ``most + 1`` round numbers within low..high."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def hour_ticks(hours: float) -> list[float]:
    """Return round numbers of hours from 0 to ``hours``: minutes, hours, days or weeks apart."""
    steps = (5 / 60, 0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 72, 168, 336, 672, 2016, 8760)
    step = next((step for step in steps if hours / step <= 6), steps[-1])
    return [n * step for n in range(math.floor(hours / step + 1e-9) + 1)]


def time_ticks(since: datetime, until: datetime, most: int = 8) -> list[tuple[datetime, str]]:
    """Return at most ``most`` round instants within a stretch of time, UTC, and how they are written."""
    step = next((step for step in _STEPS if (until - since) / step <= most), _STEPS[-1])
    first = _MONDAY + math.ceil((since - _MONDAY) / step) * step
    count = max(0, math.floor((until - first) / step) + 1)
    form = "%d %b" if step >= timedelta(days=1) else "%d %b %H:%M" if until - since > timedelta(hours=20) else "%H:%M"
    return [((at := first + n * step), at.strftime(form)) for n in range(count)]


def duration(hours: float) -> str:
    """Return a number of hours as an axis has it: 45 min, 6 h, 3 d."""
    if hours == 0:
        return "0"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:g} h" if hours < 72 else f"{hours / 24:g} d"


def _written(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
