"""A figure as SVG text that can stand inside a page, with what each point shows when the mouse is over it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from xml.etree import ElementTree

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def inline_svg(figure: Figure, notes: Mapping[str, str], name: str, label: str) -> str:
    """The `<svg>` element of a figure, without declarations and metadata.

    Args:
        figure: with an id on every point that has a note.
        notes: id of a point -> text.
        name: the figure's, unique on its page: it keeps the ids of several figures apart.
        label: what is seen, for those who do not see it.
    """
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(buffer.getvalue())
    if (metadata := root.find(f"{{{SVG}}}metadata")) is not None:
        root.remove(metadata)
    for group in root.iter(f"{{{SVG}}}g"):
        note = notes.get(group.attrib.pop("id", ""))  # nothing refers to groups, and a page may hold several figures
        if note is not None:
            title = ElementTree.Element(f"{{{SVG}}}title")
            title.text = note
            group.insert(0, title)
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")
