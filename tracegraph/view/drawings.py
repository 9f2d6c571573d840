"""Pictures as a page keeps them: what several have in common stands there once.

The steps of a run are mostly alike: of a hundred pictures, boxes have the same shapes, arrows the same
ways, and many the same words. So a picture is kept as numbers, of markup, of words and of lists.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

from tracegraph.view.picture import Box, Picture
from tracegraph.view.plain import plain, shorten
from tracegraph.view.svg import drawing
from tracegraph.view.words import heading, label

__all__ = ["Drawings"]

_END = re.compile(r"<(?=/?script|!)", re.IGNORECASE)


class Drawings:
    """Gathers the pictures of a page.

    After all were added, `markup` holds pieces of SVG, one in a line, `words` what there is to say of
    boxes, and `lists` the numbers that belong together.

    >>> found = Drawings()
    >>> one = Picture((Box(key=1, title="a"), Box(key=2, title="b")))
    >>> numbers = found.add(one, {}), found.add(one, {})
    >>> numbers[0] == numbers[1], found.words
    (True, [('a', 'operation', '', '', 0), ('b', 'operation', '', '', 0)])
    """

    def __init__(self) -> None:
        self._markup: dict[str, int] = {}
        self._words: dict[tuple[Any, ...], int] = {}
        self._lists: dict[tuple[Any, ...], int] = {}

    @property
    def markup(self) -> str:
        """The pieces of SVG in lines.

        It is our own markup, with every word escaped: it holds nothing that ends a script for a browser.
        """
        return _END.sub("&lt;", "\n".join(self._markup))

    @property
    def words(self) -> list[tuple[Any, ...]]:
        """Of boxes: title, role, kind, lines, and 1 where feedback passed through."""
        return list(self._words)

    @property
    def lists(self) -> list[tuple[Any, ...]]:
        """Lists of numbers, and of arrows: (tail, head, label, 1 if captured)."""
        return list(self._lists)

    def add(
        self, picture: Picture, numbers: Mapping[int, int], *, legend: bool = True
    ) -> dict[str, Any]:
        """What the script must know of a picture, in numbers; `numbers` has those of the pictures inside."""
        found = drawing(picture, alone=False, legend=legend)
        arrows, boxes = found.parts[: len(picture.arrows)], found.parts[len(picture.arrows) :]
        return {
            "heading": heading(picture),
            "words": dict(picture.words),
            "keys": self._list(str(box.key) for box in picture.boxes),
            "told": self._list(self._number(self._words, _told(box)) for box in picture.boxes),
            "insides": self._list(
                -1 if box.inside is None else numbers[id(box.inside)] for box in picture.boxes
            ),
            "arrows": self._list(
                (arrow.tail, arrow.head, label(arrow), int(arrow.captured))
                for arrow in picture.arrows
            ),
            "frame": [self._piece(found.head), self._piece(found.tail)],
            "wires": self._list(self._piece(piece) for arrow in arrows for piece in arrow.pieces),
            "shapes": self._list(self._piece(box.pieces[0]) for box in boxes),
            "texts": self._list(self._piece(box.pieces[1]) for box in boxes),
            "places": self._list(
                float(f"{edge:.7g}") for box in boxes if box.place for edge in box.place
            ),
            "levels": self._list(part.level for part in found.parts),
            "areas": self._list(round(edge) for part in found.parts for edge in part.area),
        }

    def _list(self, numbers: Any) -> int:
        return self._number(self._lists, tuple(numbers))

    def _piece(self, text: str) -> int:
        return self._number(self._markup, text.replace("\n", ""))

    @staticmethod
    def _number(known: dict[Any, int], what: Hashable) -> int:
        return known.setdefault(what, len(known))


def _told(box: Box) -> tuple[Any, ...]:
    return (
        plain(shorten(box.title, 300)),
        box.role,
        plain(shorten(box.kind, 60)),
        plain(shorten(" · ".join(box.lines), 300)),
        int(box.on_path),
    )
