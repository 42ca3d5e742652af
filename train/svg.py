"""Figures as inline SVG: text stays text, colours are the page's, and the same data gives the same bytes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, GOOD = "#0a0000", "#0b0000", "#0c0000", "#0d0000"
SERIES = tuple(f"#0e000{index}" for index in range(6))
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", GOOD: "good"} | {
    color: f"series-{index}" for index, color in enumerate(SERIES)
}
"""Colours that stand for a variable of the page, so that a figure follows its light or dark scheme."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edge-run",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure with its words: `alt` is for those who cannot see it."""

    title: str
    alt: str
    svg: str


def inline_svg(draw: Callable[[Figure], None], size_inches: tuple[float, float], name: str, titles: Mapping[str, str]) -> str:
    """What `draw` draws, as an element to put into a page; `titles` are shown over the parts with these ids."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():  # without pyplot: no window system, and the user's own settings stay out
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=size_inches, layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _inline(text.getvalue(), name, titles)


def _inline(svg: str, name: str, titles: Mapping[str, str]) -> str:
    """The svg element without its document: unique ids in order, the titles, the page's variables, and the page's font."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib.update({key.rpartition("}")[2]: element.attrib.pop(key) for key in list(element.attrib)})
        if "style" in element.attrib:
            element.set("style", _style(element.attrib["style"]))
    for child in [*root.findall("metadata"), *(defs for defs in root.findall("defs") if defs.find("style") is not None)]:
        root.remove(child)
    used = re.findall(r'(?:href="|url\()#([^")]+)', ElementTree.tostring(root, "unicode"))
    names = {old: f"{name}-{number}" for number, old in enumerate(dict.fromkeys(used))}
    for element in list(root.iter()):
        old = element.attrib.pop("id", "")
        if old in titles:
            title = ElementTree.Element("title")
            title.text = titles[old]
            element.insert(0, title)
        if old in names:
            element.set("id", names[old])
        for key, value in element.attrib.items():
            if "#" in value:
                element.set(key, re.sub(r"(?<=#)[^)]+", lambda match: names.get(match[0], match[0]), value))
    points_wh = [float(value) for value in root.attrib["viewBox"].split()[2:]]
    root.attrib = {"viewBox": root.attrib["viewBox"], "style": f"max-width:{math.ceil(points_wh[0] * 4 / 3)}px"}
    return _serialized(root)


def _style(style: str) -> str:
    style = re.sub(r"font: ([\d.]+px) [^;]+", r"font-size: \1", style)  # matplotlib writes either form, by version
    style = re.sub(r"font-family: [^;]+(; )?", "", style)
    return re.sub(r"#0[a-e]00[0-9a-f]{2}", lambda match: f"var(--{VARIABLES[match[0]]})", style)


def _serialized(root: ElementTree.Element) -> str:
    for element in root.iter():  # indentation between elements; text is in text, title and tspan alone
        if element.tag not in ("text", "title", "tspan"):
            element.text = None
        element.tail = "\n"
    return ElementTree.tostring(root, "unicode").strip()
