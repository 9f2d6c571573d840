"""Draw a picture of boxes and arrows: as SVG, as DOT, as text; or a page of them, as HTML.

This package knows no nodes. Whoever has something to show builds a `Picture` or a `Page`.
"""

from tracegraph.view.dot import dot, render
from tracegraph.view.fold import fold
from tracegraph.view.html import html, write_html
from tracegraph.view.page import Entry, Exchange, Frame, Histogram, Page, Rejection, Version
from tracegraph.view.picture import Arrow, Box, Picture, Role
from tracegraph.view.plain import shorten
from tracegraph.view.svg import svg
from tracegraph.view.text import Text, text
from tracegraph.view.tree import tree

__all__ = [
    "Arrow",
    "Box",
    "Entry",
    "Exchange",
    "Frame",
    "Histogram",
    "Page",
    "Picture",
    "Rejection",
    "Role",
    "Text",
    "Version",
    "dot",
    "fold",
    "html",
    "render",
    "shorten",
    "svg",
    "text",
    "tree",
    "write_html",
]
