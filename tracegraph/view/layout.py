"""Where boxes stand and arrows run: a layered layout.

The method is that of Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical
system structures" (IEEE Trans. SMC 11, 1981): layers, an order within each layer that has few
crossings (`order`), coordinates (`coordinates`), lines (`lines`).

Nothing recurses, nothing is random, and no clock is read: the same input gives the same layout.
Memory is linear. The long arrows of one box share one trunk; when all trunks together would take
more than a few bends for each box, the longest run beside the layers instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt, sqrt

from tracegraph.errors import PictureError
from tracegraph.view.coordinates import STIFF, coordinates
from tracegraph.view.lines import Drawn, trace
from tracegraph.view.net import Net, Point, Size
from tracegraph.view.order import order

__all__ = ["Layout", "Point", "Size", "layered"]

_TRUNK = 14.0  # what the inside of a long arrow takes of a layer
_ROW = 8  # leaves of one box that stand in one row
_PART = 56.0  # between parts that no arrow joins
_BENDS = 6  # bends that trunks may have for each box and arrow, on average
_FEWER = 4_000  # in a large picture, one for each, and these: no eye follows a line so far
_POINTS = 40  # points that the lines along trunks may have for each box and arrow


@dataclass(frozen=True, slots=True)
class Layout:
    """What `layered` found, in pixels.

    `places` has the upper left corner of each box. `routes` has a line for each arrow: its first
    point lies on the lower border of the tail's box, its last on the upper border of the head's,
    and y never shrinks. A line that is straight between points of one x or one y, and else leaves and
    enters each pair of points vertically, stays clear of all other boxes.
    """

    places: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]
    width: float
    height: float


def layered(
    sizes: Sequence[Size], arrows: Sequence[tuple[int, int]], *, wide: float = 1.6
) -> Layout:
    """Lay out boxes of the given `sizes` so that every arrow (tail, head) points downward.

    Boxes do not overlap. Parts that no arrow joins stand side by side, in shelves that make the
    whole about `wide` times as wide as high. Raises `PictureError` for a cycle.

    >>> found = layered([Size(80, 30), Size(80, 30)], [(0, 1)])
    >>> [place.y for place in found.places], found.routes[0][0]
    ([0.0, 88.0], Point(x=40.0, y=30.0))
    """
    layers = _layers(_topological(len(sizes), arrows), arrows)
    parts = _parts(len(sizes), arrows)
    mine: list[list[int]] = [[] for _ in parts]
    part_of = {v: p for p, part in enumerate(parts) for v in part}
    for index, (tail, _) in enumerate(arrows):
        mine[part_of[tail]].append(index)
    drawn = [
        _draw(part, indices, sizes, arrows, layers)
        for part, indices in zip(parts, mine, strict=True)
    ]
    return _shelve(parts, mine, drawn, len(sizes), len(arrows), wide)


# Layers


def _topological(count: int, arrows: Iterable[tuple[int, int]]) -> list[int]:
    heads: list[list[int]] = [[] for _ in range(count)]
    waits = [0] * count
    for tail, head in arrows:
        heads[tail].append(head)
        waits[head] += 1
    order = [v for v in range(count) if not waits[v]]
    for v in order:
        for head in heads[v]:
            waits[head] -= 1
            if not waits[head]:
                order.append(head)
    if len(order) < count:
        stuck = next(v for v in range(count) if waits[v])
        raise PictureError(
            f"the arrows form a cycle that box number {stuck} (from 0) is in or behind, so not all "
            "can point downward; leave one of them out"
        )
    return order


def _layers(order: Sequence[int], arrows: Iterable[tuple[int, int]]) -> list[int]:
    """The layer of each box: longest path; then down to its users, or up if more pull it up."""
    tails: list[list[int]] = [[] for _ in order]
    heads: list[list[int]] = [[] for _ in order]
    for tail, head in dict.fromkeys(arrows):
        tails[head].append(tail)
        heads[tail].append(head)
    layer = [0] * len(order)
    for v in order:
        for head in heads[v]:
            layer[head] = max(layer[head], layer[v] + 1)
    for v in reversed(order):
        if heads[v]:
            layer[v] = min(layer[head] for head in heads[v]) - 1
    # The arrows of one tail share a trunk, so each counts as its share of it.
    for v in order:
        if sum(1 / len(heads[tail]) for tail in tails[v]) > bool(heads[v]):
            layer[v] = max(layer[tail] for tail in tails[v]) + 1
    for v in order:
        # Many leaves of one box stand in several rows, not in one that is far too wide.
        leaves = [tail for tail in tails[v] if not tails[tail] and len(heads[tail]) == 1]
        rows = -(-len(leaves) // max(_ROW, isqrt(2 * len(leaves))))
        for at, leaf in enumerate(leaves):
            layer[leaf] = layer[v] - 1 - at % rows
    return layer


def _parts(count: int, arrows: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The sets of boxes that arrows join, by their first box."""
    near: list[list[int]] = [[] for _ in range(count)]
    for tail, head in arrows:
        near[tail].append(head)
        near[head].append(tail)
    seen = [False] * count
    parts = []
    for start in range(count):
        if seen[start]:
            continue
        seen[start] = True
        part = [start]
        for v in part:
            for u in near[v]:
                if not seen[u]:
                    seen[u] = True
                    part.append(u)
        parts.append(sorted(part))
    return parts


# One part


def _draw(
    part: list[int],
    indices: list[int],
    sizes: Sequence[Size],
    arrows: Sequence[tuple[int, int]],
    layers: Sequence[int],
) -> Drawn:
    top = min(layers[v] for v in part)
    depth = max(layers[v] for v in part) - top + 1
    net = Net(part, [[] for _ in range(depth)])
    local = {v: net.add(layers[v] - top, sizes[v].width) for v in part}
    ends = [(local[arrows[i][0]], local[arrows[i][1]]) for i in indices]
    trunks = _trunks(net, ends)
    net.spine = _spine(net, ends)
    order(net)
    x = coordinates(net)
    return trace(net, [sizes[v] for v in part], ends, trunks, x)


def _trunks(net: Net, ends: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    """Join boxes of neighbouring layers; give each tail with longer arrows a trunk of bends.

    The trunk of a tail is returned by its tail, a bend for each layer. A tail whose trunk is
    beyond the budget is missing: its long arrows run beside the layers.
    """
    reach: dict[int, int] = {}
    points: dict[int, int] = {}
    for tail, head in ends:
        gap = net.layer[head] - net.layer[tail]
        if gap > 1:
            reach[tail] = max(reach.get(tail, 0), net.layer[head])
            points[tail] = points.get(tail, 0) + gap
    parts = len(net.boxes) + len(ends)
    bends, budget = min(_BENDS * parts, parts + _FEWER), _POINTS * parts
    trunks: dict[int, list[int]] = {}
    for tail in sorted(reach, key=lambda v: (reach[v] - net.layer[v], v)):
        span = range(net.layer[tail] + 1, reach[tail])
        bends -= len(span)
        budget -= points[tail]
        if min(bends, budget) < 0:
            break
        trunks[tail] = [net.add(layer, _TRUNK) for layer in span]
        for above, below in pairwise([tail, *trunks[tail]]):
            net.join(above, below)
    for tail, head in dict.fromkeys(ends):
        gap = net.layer[head] - net.layer[tail]
        if gap == 1:
            net.join(tail, head)
        elif tail in trunks:
            net.join(trunks[tail][gap - 2], head)
    return trunks


def _spine(net: Net, ends: Iterable[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """How strongly each box holds on to the input that the longest way to it comes from."""
    depth = [0] * len(net.boxes)
    deepest: dict[int, int] = {}
    for tail, head in sorted(set(ends), key=lambda end: net.layer[end[0]]):
        if depth[tail] + 1 > depth[head]:
            depth[head], deepest[head] = depth[tail] + 1, tail
        elif depth[tail] + 1 == depth[head]:
            deepest.pop(head, None)
    return {
        (min(tail, head), max(tail, head)): min(STIFF, depth[head])
        for head, tail in deepest.items()
    }


# The parts side by side


def _shelve(
    parts: Sequence[Sequence[int]],
    mine: Sequence[Sequence[int]],
    drawn: Sequence[Drawn],
    boxes: int,
    arrows: int,
    wide: float,
) -> Layout:
    area = sum((part.width + _PART) * (part.height + _PART) for part in drawn)
    limit = max([sqrt(area * wide), *(part.width for part in drawn)])
    places = [Point(0.0, 0.0)] * boxes
    routes: list[tuple[Point, ...]] = [()] * arrows
    x = y = width = height = 0.0
    for part, indices, found in zip(parts, mine, drawn, strict=True):
        if x and x + found.width > limit:
            x, y = 0.0, height + _PART
        for v, place in zip(part, found.places, strict=True):
            places[v] = Point(place.x + x, place.y + y)
        for index, line in zip(indices, found.routes, strict=True):
            moved = [Point(point.x + x, point.y + y) for point in line] if x or y else line
            routes[index] = tuple(moved)
        width, height = max(width, x + found.width), max(height, y + found.height)
        x += found.width + _PART
    return Layout(tuple(places), tuple(routes), width, height)
