"""A picture as DOT, and as a file: the one door to graphviz.

Where the `dot` program is missing, an SVG file comes from our own layout instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tracegraph.errors import MissingExtra, PictureError
from tracegraph.view.look import FEEDBACK, LOOKS
from tracegraph.view.picture import Arrow, Box, Picture
from tracegraph.view.svg import svg
from tracegraph.view.words import heading, label, tooltip, words
from tracegraph.writing import write_whole

if TYPE_CHECKING:
    import graphviz

__all__ = ["dot", "render"]

_ENDINGS = (".svg", ".png", ".pdf")


def dot(picture: Picture) -> str:
    """`picture` as DOT source.

    >>> text = dot(Picture((Box(key=1, title='say "hi"', role="parameter", kind="text"),)))
    >>> print(text.splitlines()[4].strip().split(" color")[0])
    1 [label="◆ say \\"hi\\"  [text]"
    """
    return str(_digraph(picture).source)


def render(
    picture: Picture, path: str | os.PathLike[str], *, engine: Literal["dot", "own"] | None = None
) -> Path:
    """Write `picture` to a file whose ending says how: .svg, .png or .pdf; return its path.

    `engine` "dot" asks for the graphviz program, "own" for our own layout (SVG only); by default
    the program is used if it is found. The file appears whole or not at all. Raises `PictureError`
    for another ending and `MissingExtra` where the program is needed and missing.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in _ENDINGS:
        raise PictureError(
            f"cannot write {str(path)!r}: the ending {ending!r} is none of {', '.join(_ENDINGS)}; "
            "choose one of them"
        )
    if engine not in (None, "dot", "own"):
        raise PictureError(f"there is no engine {engine!r}; use 'dot', 'own' or None")
    if engine == "own" and ending != ".svg":
        raise PictureError(
            f"cannot write {str(path)!r} with engine 'own', which writes .svg only; leave "
            "engine out"
        )
    found = shutil.which("dot") is not None
    if engine == "own" or (engine is None and ending == ".svg" and not found):
        content = svg(picture).encode()
    elif found:
        content = _digraph(picture).pipe(format=ending[1:], quiet=True)
    else:
        raise MissingExtra(
            f"cannot write {str(path)!r}: it needs graphviz's `dot` program, which is not on "
            "PATH; install it (apt-get install graphviz, brew install graphviz, choco install "
            "graphviz) or write a .svg file, which needs nothing"
        )
    write_whole(path, content)
    return path


def _digraph(picture: Picture) -> graphviz.Digraph:
    try:
        import graphviz
    except ImportError as error:
        raise MissingExtra("DOT needs the graphviz package: pip install graphviz") from error
    graph = graphviz.Digraph(
        graph_attr={
            "label": _quoted(heading(picture)),
            "labelloc": "t",
            "labeljust": "l",
            "fontname": "Helvetica",
            "nodesep": "0.35",
            "ranksep": "0.55",
            "bgcolor": "white",
            "charset": "UTF-8",
        },
        node_attr={"fontname": "Helvetica", "fontsize": "11", "margin": "0.16,0.09"},
        edge_attr={"fontname": "Helvetica", "fontsize": "9", "arrowsize": "0.7"},
    )
    for box in picture.boxes:
        graph.node(str(box.key), **dict(_box(box)))
    for arrow in picture.arrows:
        graph.edge(str(arrow.tail), str(arrow.head), **dict(_arrow(arrow)))
    return graph


def _box(box: Box) -> Iterator[tuple[str, str]]:
    look = LOOKS[box.role]
    cut = words(box)
    badge = f"  [{cut.badge}]" if cut.badge else ""
    lines = [f"{look.mark} {cut.title}{badge}", *cut.lines]
    if cut.feedback:
        lines.append(f"{FEEDBACK.mark} {cut.feedback}")
    yield "label", "\\n".join(map(_quoted, lines))
    yield "tooltip", _quoted(tooltip(box)) or " "
    yield "shape", look.shape
    yield "style", look.style + (",dashed" if box.hidden else "")
    yield "fillcolor", look.light.fill
    yield "fontcolor", look.light.text
    yield "color", FEEDBACK.light.line if box.on_path else look.light.line
    yield "penwidth", str(FEEDBACK.pen if box.on_path else look.pen)
    if box.role == "parameter":
        yield "peripheries", "2"


def _arrow(arrow: Arrow) -> Iterator[tuple[str, str]]:
    if arrow.label:
        yield "label", " " + _quoted(label(arrow))
    yield "color", FEEDBACK.light.line if arrow.on_path else LOOKS["operation"].light.line
    yield "fontcolor", LOOKS["operation"].light.text
    if arrow.on_path:
        # A tail that points back: the way is seen without colour, too.
        yield "penwidth", str(FEEDBACK.pen)
        yield "dir", "both"
        yield "arrowtail", "vee"
    if arrow.captured:
        yield "style", "dashed"


def _quoted(text: str) -> str:
    """`text` so that DOT shows just it: no escapes (\\N, \\l), no entities (&amp;), no HTML."""
    # The graphviz package takes '<...>' for HTML, which the entities prevent.
    return escape(text, quote=False).replace("\\", "\\\\").replace("\n", "\\n")
