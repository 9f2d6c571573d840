"""What a layered layout works on: boxes and bends in rows, joined from each row to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Net", "Point", "Size"]


class Size(NamedTuple):
    """The width and height of a box, in pixels."""

    width: float
    height: float


class Point(NamedTuple):
    """A place in the picture, in pixels from its upper left corner; y grows downward."""

    x: float
    y: float


@dataclass(slots=True)
class Net:
    """Boxes and bends of one part, in layers: every segment goes from a layer to the next.

    Vertices are numbered: the boxes first, then the bends. `room` is the width of each, in pixels;
    `spine` is how strongly the ends of a segment hold on to each other where that is special.
    """

    boxes: list[int]
    rows: list[list[int]]
    layer: list[int] = field(default_factory=list)
    room: list[float] = field(default_factory=list)
    spine: dict[tuple[int, int], float] = field(default_factory=dict)
    up: list[list[int]] = field(default_factory=list)
    down: list[list[int]] = field(default_factory=list)

    def add(self, layer: int, room: float) -> int:
        """A new vertex; gives its number."""
        self.layer.append(layer)
        self.room.append(room)
        self.up.append([])
        self.down.append([])
        return len(self.layer) - 1

    def join(self, above: int, below: int) -> None:
        """A new segment."""
        self.down[above].append(below)
        self.up[below].append(above)
