"""Draw a picture of boxes and arrows: as SVG, as DOT, as text.

This package knows no nodes. Whoever has something to show builds a `Picture`.
"""

from tracegraph.view.dot import dot, render
from tracegraph.view.picture import Arrow, Box, Picture, Role
from tracegraph.view.plain import shorten
from tracegraph.view.svg import svg
from tracegraph.view.text import Text, text

__all__ = ["Arrow", "Box", "Picture", "Role", "Text", "dot", "render", "shorten", "svg", "text"]
