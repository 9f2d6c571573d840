"""Draw a picture of boxes and arrows: as SVG, as DOT, as text; or a page of them, as HTML.

This package knows no nodes. Whoever has something to show builds a `Picture` or a `Page`.
"""

from tracegraph.view.card import Card, Difference, Facts, Part, Spark, Table, Words, sparkline
from tracegraph.view.dot import dot, render
from tracegraph.view.fold import fold
from tracegraph.view.html import framed, html, write_html
from tracegraph.view.lineage import Candidate, front, fronts, lineage
from tracegraph.view.page import (
    Curve,
    Entry,
    Exchange,
    Frame,
    Front,
    Histogram,
    Page,
    Rejection,
    Version,
)
from tracegraph.view.paused import paused_collector
from tracegraph.view.picture import Arrow, Box, Picture, Role
from tracegraph.view.plain import shorten
from tracegraph.view.png import png
from tracegraph.view.svg import svg
from tracegraph.view.text import Text, text
from tracegraph.view.tree import tree

__all__ = [
    "Arrow",
    "Box",
    "Candidate",
    "Card",
    "Curve",
    "Difference",
    "Entry",
    "Exchange",
    "Facts",
    "Frame",
    "Front",
    "Histogram",
    "Page",
    "Part",
    "Picture",
    "Rejection",
    "Role",
    "Spark",
    "Table",
    "Text",
    "Version",
    "Words",
    "dot",
    "fold",
    "framed",
    "front",
    "fronts",
    "html",
    "lineage",
    "paused_collector",
    "png",
    "render",
    "shorten",
    "sparkline",
    "svg",
    "text",
    "tree",
    "write_html",
]
