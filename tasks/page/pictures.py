"""Charts as pictures of their own, for a page that is not ours: an image in a data: address, its style within."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from importlib import resources
from xml.etree import ElementTree as Tree

_SVG = "http://www.w3.org/2000/svg"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A chart with its heading."""

    title: str
    #: ``data:image/svg+xml;base64,...``
    url: str


def picture(title: str, svg: str) -> Picture:
    """Return a drawing as a picture: light on any page, since nobody can say what is around it.

    What is shown under the mouse is left out: an image has no mouse, and half of its bytes are these hints.
    """
    Tree.register_namespace("", _SVG)
    root = Tree.fromstring(svg)
    for element in list(root):
        for hint in element.findall(f"{{{_SVG}}}title"):
            element.remove(hint)
    style = Tree.Element(f"{{{_SVG}}}style")
    style.text = part("light.css") + part("drawing.css")
    paper = Tree.Element(f"{{{_SVG}}}rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    root.insert(0, paper)
    root.insert(0, style)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib |= {"width": width, "height": height}
    encoded = base64.b64encode(Tree.tostring(root, encoding="utf-8")).decode("ascii")
    return Picture(title=title, url=f"data:image/svg+xml;base64,{encoded}")


@cache
def part(name: str) -> str:
    """Return a file of the page."""
    return (resources.files("tasks.page") / name).read_text(encoding="utf-8")
