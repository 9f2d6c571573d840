"""Where boxes stand and arrows run: a layered layout.

The method is that of Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical
system structures" (IEEE Trans. SMC 11, 1981): layers, an order within each layer that has few
crossings, coordinates. The details are from Gansner, Koutsofios, North and Vo, "A technique for
drawing directed graphs" (IEEE Trans. Software Engineering 19, 1993): weighted medians and
transposition (section 3), heavier weights for the inside of long arrows (section 4). Coordinates
are the least-squares best ones that keep the order, by isotonic regression (pool adjacent
violators: Barlow et al., 1972).

Nothing recurses, nothing is random, and no clock is read: the same input gives the same layout.
Memory is linear. The long arrows of one box share one trunk; when all trunks together would take
more than a few bends for each box, the longest run beside the layers instead.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from math import isqrt, sqrt
from typing import NamedTuple

from tracegraph.errors import PictureError

__all__ = ["Layout", "Point", "Size", "layered"]

_GAP = 28.0  # between neighbours of a layer
_TRUNK = 14.0  # what the inside of a long arrow takes of a layer
_STIFF = 16.0  # how much trunks and the longest way are kept straight; other arrows have 1
_STRAIGHT = 6.0  # a bend may move this far to let its line run straight: less than its room
_LANE = 10.0  # between arrows that run beside the layers
_FALL = 58.0  # between layers
_ROW = 8  # leaves of one box that stand in one row
_PART = 56.0  # between parts that no arrow joins
_BENDS = 6  # bends that trunks may have for each box and arrow, on average
_POINTS = 40  # and points that the lines along them may have


class Size(NamedTuple):
    """The width and height of a box, in pixels."""

    width: float
    height: float


class Point(NamedTuple):
    """A place in the picture, in pixels from its upper left corner; y grows downward."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Layout:
    """What `layered` found, in pixels.

    `places` has the upper left corner of each box. `routes` has a line for each arrow: its first
    point lies on the lower border of the tail's box, its last on the upper border of the head's,
    and y never shrinks. A curve that leaves and enters each pair of points vertically stays clear
    of all other boxes.
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
    order = _topological(len(sizes), arrows)
    layers = _layers(order, arrows)
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


@dataclass(slots=True)
class _Net:
    """Boxes and bends of one part, in layers: every segment goes from a layer to the next."""

    boxes: list[int]
    rows: list[list[int]]
    layer: list[int]
    room: list[float]  # the width of each vertex
    spine: dict[tuple[int, int], float] = field(default_factory=dict)  # pulls of the longest ways
    up: list[list[int]] = field(default_factory=list)
    down: list[list[int]] = field(default_factory=list)

    def add(self, layer: int, room: float) -> int:
        self.layer.append(layer)
        self.room.append(room)
        self.up.append([])
        self.down.append([])
        return len(self.layer) - 1

    def join(self, above: int, below: int) -> None:
        self.down[above].append(below)
        self.up[below].append(above)


@dataclass(slots=True)
class _Drawn:
    places: list[Point]
    routes: list[tuple[Point, ...]]
    width: float
    height: float


def _draw(
    part: list[int],
    indices: list[int],
    sizes: Sequence[Size],
    arrows: Sequence[tuple[int, int]],
    layers: Sequence[int],
) -> _Drawn:
    top = min(layers[v] for v in part)
    depth = max(layers[v] for v in part) - top + 1
    net = _Net(part, [[] for _ in range(depth)], [], [])
    local = {v: net.add(layers[v] - top, sizes[v].width) for v in part}
    ends = [(local[arrows[i][0]], local[arrows[i][1]]) for i in indices]
    trunks = _trunks(net, ends)
    net.spine = _spine(net, ends)
    _order(net)
    x = _coordinates(net)
    return _trace(net, [sizes[v] for v in part], ends, trunks, x)


def _trunks(net: _Net, ends: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
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
    bends = _BENDS * (len(net.boxes) + len(ends))
    budget = _POINTS * (len(net.boxes) + len(ends))
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


def _spine(net: _Net, ends: Iterable[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """How strongly each box holds on to the input that the longest way to it comes from."""
    depth = [0] * len(net.boxes)
    deepest: dict[int, int] = {}
    for tail, head in sorted(set(ends), key=lambda end: net.layer[end[0]]):
        if depth[tail] + 1 > depth[head]:
            depth[head], deepest[head] = depth[tail] + 1, tail
        elif depth[tail] + 1 == depth[head]:
            deepest.pop(head, None)
    return {
        (min(tail, head), max(tail, head)): min(_STIFF, depth[head])
        for head, tail in deepest.items()
    }


# The order within each layer


def _order(net: _Net) -> None:
    """Put each row of `net` into an order with few crossings."""
    _first_order(net)
    place = [0] * len(net.layer)
    for row in net.rows:
        _number(row, place)
    work = len(net.layer) + sum(map(len, net.down))
    sweeps = max(2, min(14, 60_000 // (work + 1)))
    best, fewest = [row[:] for row in net.rows], _crossings(net, place)
    stale = 0
    for sweep in range(sweeps):
        if not fewest or stale >= 4:
            break
        _median_sweep(net, place, downward=sweep % 2 == 0)
        _transpose(net, place, rounds=3 if work < 12_000 else 1)
        found = _crossings(net, place)
        stale += 1
        if found < fewest:
            best, fewest, stale = [row[:] for row in net.rows], found, 0
    net.rows[:] = best


def _first_order(net: _Net) -> None:
    """Depth first from what nothing uses, along arguments in their order: trees come out planar."""
    seen = [False] * len(net.layer)
    starts = [v for v in range(len(net.layer)) if not net.down[v]]
    for start in [*starts, *range(len(net.layer))]:
        stack = [start]
        while stack:
            v = stack.pop()
            if seen[v]:
                continue
            seen[v] = True
            net.rows[net.layer[v]].append(v)
            stack.extend(u for u in reversed(net.up[v]) if not seen[u])


def _number(row: Sequence[int], place: list[int]) -> None:
    for at, v in enumerate(row):
        place[v] = at


def _median_sweep(net: _Net, place: list[int], *, downward: bool) -> None:
    near = net.up if downward else net.down
    for row in net.rows if downward else reversed(net.rows):
        keyed = [(_median(sorted(place[u] for u in near[v]), place[v]), place[v], v) for v in row]
        keyed.sort()
        row[:] = [v for _, _, v in keyed]
        _number(row, place)


def _median(at: list[int], own: int) -> float:
    """The weighted median of Gansner et al., figure 3-2; a vertex without neighbours stays."""
    if not at:
        return own
    half = len(at) // 2
    if len(at) % 2:
        return at[half]
    if len(at) == 2:
        return (at[0] + at[1]) / 2
    left, right = at[half - 1] - at[0], at[-1] - at[half]
    if not left + right:
        return (at[half - 1] + at[half]) / 2
    return (at[half - 1] * right + at[half] * left) / (left + right)


def _transpose(net: _Net, place: list[int], *, rounds: int) -> None:
    """Swap neighbours while that removes crossings."""
    for _ in range(rounds):
        swapped = False
        for row in net.rows:
            above = {v: sorted(place[u] for u in net.up[v]) for v in row}
            below = {v: sorted(place[u] for u in net.down[v]) for v in row}
            for at in range(len(row) - 1):
                v, w = row[at], row[at + 1]
                if _gain(above[v], above[w]) + _gain(below[v], below[w]) > 0:
                    row[at], row[at + 1] = w, v
                    place[v], place[w] = at + 1, at
                    swapped = True
        if not swapped:
            return


def _gain(left: list[int], right: list[int]) -> int:
    """Crossings that a swap of two neighbours would remove; both lists are sorted."""
    if not left or not right or left[0] == left[-1] == right[0] == right[-1]:
        return 0
    return _inversions(left, right) - _inversions(right, left)


def _inversions(left: list[int], right: list[int]) -> int:
    """Pairs of one of `left` and a smaller one of `right`."""
    total = at = 0
    for value in left:
        while at < len(right) and right[at] < value:
            at += 1
        total += at
    return total


def _crossings(net: _Net, place: Sequence[int]) -> int:
    """Crossings between all neighbouring layers, as inversions (Barth, Mutzel, Juenger, 2004)."""
    total = 0
    for row in net.rows[:-1]:
        passed: list[int] = []
        for v in row:
            to = sorted(place[u] for u in net.down[v])
            for end in to:
                total += len(passed) - bisect_right(passed, end)
            for end in to:
                insort(passed, end)
    return total


# Coordinates


def _coordinates(net: _Net) -> list[float]:
    """The centre of each vertex: near its neighbours, in its row's order, apart from the next."""
    x = [0.0] * len(net.layer)
    apart = [_apart(net, row) for row in net.rows]
    for row, offsets in zip(net.rows, apart, strict=True):
        for v, offset in zip(row, offsets, strict=True):
            x[v] = offset - offsets[-1] / 2
    work = len(net.layer) + sum(map(len, net.down))
    sweeps = max(2, min(8, 30_000 // (work + 1)))
    lower = x
    for _ in range(sweeps):
        lower = _settle(net, apart, x, up=True, down=False)
        x = _settle(net, apart, lower, up=False, down=True)
    # Both keep every distance, so what lies halfway between them does too.
    x = [(a + b) / 2 for a, b in zip(lower, x, strict=True)]
    for _ in range(max(1, sweeps // 2)):
        x = _settle(net, apart, x, up=True, down=True)
    return x


def _apart(net: _Net, row: Sequence[int]) -> list[float]:
    """How far each vertex of `row` stands at least from the first."""
    offsets = [0.0] if row else []
    for left, right in pairwise(row):
        bends = (left >= len(net.boxes)) + (right >= len(net.boxes))
        gap = (_GAP, _GAP / 2, 0.0)[bends]
        offsets.append(offsets[-1] + (net.room[left] + net.room[right]) / 2 + gap)
    return offsets


def _settle(
    net: _Net, apart: Sequence[list[float]], x: Sequence[float], *, up: bool, down: bool
) -> list[float]:
    """Row by row, the place nearest to the neighbours that keeps the order and the distances."""
    x = list(x)
    first_bend = len(net.boxes)
    rows = range(len(net.rows)) if up else range(len(net.rows) - 1, -1, -1)
    for r in rows:
        row, offsets = net.rows[r], apart[r]
        targets, weights = [], []
        for v, offset in zip(row, offsets, strict=True):
            pulls = []
            for u in (net.up[v] if up else []) + (net.down[v] if down else []):
                pull = (1.0, 2.0, _STIFF)[(v >= first_bend) + (u >= first_bend)]
                pull = net.spine.get((u, v) if u < v else (v, u), pull)
                pulls.append((x[u], pull))
            targets.append((_middle(pulls) if pulls else x[v]) - offset)
            weights.append(sum(pull for _, pull in pulls) or 0.1)
        for v, offset, place in zip(row, offsets, _isotonic(targets, weights), strict=True):
            x[v] = place + offset
    return x


def _middle(pulls: list[tuple[float, float]]) -> float:
    """The weighted median of (place, weight) pairs; halfway where two places are equally good."""
    if len(pulls) == 1:
        return pulls[0][0]
    pulls.sort()
    half = sum(weight for _, weight in pulls) / 2
    passed = 0.0
    for at, (place, weight) in enumerate(pulls):
        passed += weight
        if passed > half:
            return place
        if passed == half:
            return (place + pulls[at + 1][0]) / 2
    return pulls[-1][0]


def _isotonic(targets: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The least-squares nearest sequence that never falls (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(targets, weights, strict=True):
        count = 1
        while blocks and blocks[-1][0] >= value:
            before, heavy, more = blocks.pop()
            value = (before * heavy + value * weight) / (heavy + weight)
            weight, count = heavy + weight, count + more
        blocks.append((value, weight, count))
    return [value for value, _, count in blocks for _ in range(count)]


# Lines


def _trace(
    net: _Net,
    sizes: Sequence[Size],
    ends: Sequence[tuple[int, int]],
    trunks: dict[int, list[int]],
    x: list[float],
) -> _Drawn:
    tops, bottoms = _rows(net, sizes, ends, x)
    left = min(x[v] - net.room[v] / 2 for v in range(len(x)))
    x = [at - left for at in x]
    width = max(x[v] + net.room[v] / 2 for v in range(len(x)))
    lanes = _lanes(net, ends, trunks)
    bends: list[list[Point]] = []
    for tail, head in ends:
        line = [
            Point(x[tail], tops[net.layer[tail]] + sizes[tail].height),
            Point(x[tail], bottoms[net.layer[tail]]),
        ]
        first, last = net.layer[tail] + 1, net.layer[head] - 1
        if tail in trunks:
            for bend, layer in zip(trunks[tail], range(first, last + 1), strict=False):
                through = line[-1].x
                if abs(x[bend] - through) <= _STRAIGHT:
                    line.pop()
                else:
                    through = x[bend]
                    line.append(Point(through, tops[layer]))
                line.append(Point(through, bottoms[layer]))
        elif first <= last:
            aside = width + _LANE * (1 + lanes[tail])
            line += (Point(aside, tops[first]), Point(aside, bottoms[last]))
        bends.append(line)
    entries: list[list[int]] = [[] for _ in sizes]
    for index, (_, head) in enumerate(ends):
        entries[head].append(index)
    for head, entering in enumerate(entries):
        entering.sort(key=lambda i: (bends[i][-1].x, i))
        for at, index in enumerate(entering):
            share = (at + 0.5) / len(entering) - 0.5
            bends[index].append(Point(x[head] + share * sizes[head].width, tops[net.layer[head]]))
    places = [Point(x[v] - sizes[v].width / 2, tops[net.layer[v]]) for v in range(len(sizes))]
    width += _LANE * (1 + max(lanes.values())) + _LANE if lanes else 0.0
    return _Drawn(places, [tuple(dict.fromkeys(line)) for line in bends], width, bottoms[-1])


def _rows(
    net: _Net, sizes: Sequence[Size], ends: Iterable[tuple[int, int]], x: Sequence[float]
) -> tuple[list[float], list[float]]:
    """The borders of each row; rows stand further apart where lines run far aside."""
    tops, bottoms = [], []
    y = 0.0
    for row in net.rows:
        tops.append(y)
        y += max((sizes[v].height for v in row if v < len(sizes)), default=0.0)
        bottoms.append(y)
        aside = max((abs(x[v] - x[u]) for v in row for u in net.down[v]), default=0.0)
        y += _FALL + min(60.0, aside / 14)
    return tops, bottoms


def _lanes(
    net: _Net, ends: Iterable[tuple[int, int]], trunks: dict[int, list[int]]
) -> dict[int, int]:
    """For each tail without a trunk the lane beside the layers that its long arrows take."""
    spans: dict[int, int] = {}
    for tail, head in ends:
        if net.layer[head] - net.layer[tail] > 1 and tail not in trunks:
            spans[tail] = max(spans.get(tail, 0), net.layer[head])
    lanes: dict[int, int] = {}
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    for tail in sorted(spans, key=lambda v: (net.layer[v], v)):
        while busy and busy[0][0] <= net.layer[tail] + 1:
            heappush(free, heappop(busy)[1])
        lanes[tail] = heappop(free) if free else len(busy)
        heappush(busy, (spans[tail], lanes[tail]))
    return lanes


# The parts side by side


def _shelve(
    parts: Sequence[Sequence[int]],
    mine: Sequence[Sequence[int]],
    drawn: Sequence[_Drawn],
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
            routes[index] = tuple(Point(point.x + x, point.y + y) for point in line)
        width, height = max(width, x + found.width), max(height, y + found.height)
        x += found.width + _PART
    return Layout(tuple(places), tuple(routes), width, height)
