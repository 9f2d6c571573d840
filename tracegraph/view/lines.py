"""How the lines of a layered layout run, once every vertex has its place.

A line is a row of points: straight between two that share an x or a y, and else a curve that leaves
and enters vertically. The many arrows of one vertex into the next layer share a rail between the
layers, from which each head is reached straight down: another line crosses the rail once, and not
every arrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from tracegraph.view.net import Net, Point, Size

__all__ = ["Drawn", "trace"]

_STRAIGHT = 6.0  # a bend may move this far to let its line run straight: less than its room
_LANE = 10.0  # between arrows that run beside the layers, and between rails
_FALL = 58.0  # between layers
_FAN = 7  # heads in the next layer for which a vertex has a rail
_RAILS = 30  # lanes for rails between two layers
_ABOVE, _BELOW = 22.0, 32.0  # room between rails and the boxes above and below them


@dataclass(slots=True)
class Drawn:
    """The places and lines of one part, from its own upper left corner."""

    places: list[Point]
    routes: list[tuple[Point, ...]]
    width: float
    height: float


def trace(
    net: Net,
    sizes: Sequence[Size],
    ends: Sequence[tuple[int, int]],
    trunks: dict[int, list[int]],
    x: list[float],
) -> Drawn:
    """The lines of the arrows `ends` between boxes of `sizes`, where vertices stand at `x`."""
    left = min(x[v] - net.room[v] / 2 for v in range(len(x)))
    x = [at - left for at in x]
    width = max(x[v] + net.room[v] / 2 for v in range(len(x)))
    rails = _rails(net, x)
    tops, bottoms = _rows(net, sizes, rails, x)
    lanes = _lanes(net, ends, trunks)
    stems = _stems(net, sizes, ends, trunks, x, tops, bottoms)
    bends: list[list[Point]] = []
    on_rail: list[float] = []
    for tail, head in ends:
        first, last = net.layer[tail] + 1, net.layer[head] - 1
        line = stems[tail][last if tail in trunks else first - 1].copy()
        source = tail
        if first <= last and tail in trunks:
            source = trunks[tail][last - first]
        elif first <= last:
            source = -1
            aside = width + _LANE * (1 + lanes[tail])
            line += (Point(aside, tops[first]), Point(aside, bottoms[last]))
        bends.append(line)
        on_rail.append(bottoms[last] + _ABOVE + _LANE * rails[source] if source in rails else 0.0)
    entries: list[list[int]] = [[] for _ in sizes]
    for index, (_, head) in enumerate(ends):
        entries[head].append(index)
    for head, entering in enumerate(entries):
        entering.sort(key=lambda i: (bends[i][-1].x, i))
        for at, index in enumerate(entering):
            share = (at + 0.5) / len(entering) - 0.5
            end = Point(x[head] + share * sizes[head].width, tops[net.layer[head]])
            before = bends[index][-1].x
            if on_rail[index] and before != end.x:
                bends[index] += (Point(before, on_rail[index]), Point(end.x, on_rail[index]))
            bends[index].append(end)
    places = [Point(x[v] - sizes[v].width / 2, tops[net.layer[v]]) for v in range(len(sizes))]
    width += _LANE * (1 + max(lanes.values())) + _LANE if lanes else 0.0
    return Drawn(places, [tuple(line) for line in bends], width, bottoms[-1])


def _stems(
    net: Net,
    sizes: Sequence[Size],
    ends: Iterable[tuple[int, int]],
    trunks: dict[int, list[int]],
    x: Sequence[float],
    tops: Sequence[float],
    bottoms: Sequence[float],
) -> dict[int, dict[int, list[Point]]]:
    """For each tail, by the layer in which arrows leave it or its trunk, the line so far."""
    leave: dict[int, set[int]] = {}
    for tail, head in ends:
        last = net.layer[head] - 1 if tail in trunks else net.layer[tail]
        leave.setdefault(tail, set()).add(last)
    stems: dict[int, dict[int, list[Point]]] = {}
    for tail, layers in leave.items():
        first, through = net.layer[tail], x[tail]
        line = [Point(through, tops[first] + sizes[tail].height)]
        if line[0].y < bottoms[first]:
            line.append(Point(through, bottoms[first]))
        found = stems[tail] = {}
        for layer, bend in enumerate([tail, *trunks.get(tail, ())], first):
            if bend != tail:
                if abs(x[bend] - through) > _STRAIGHT:
                    through = x[bend]
                    line.append(Point(through, tops[layer]))
                elif len(line) > 1:
                    line.pop()
                line.append(Point(through, bottoms[layer]))
            if layer in layers:
                found[layer] = line.copy()
    return stems


def _rails(net: Net, x: Sequence[float]) -> dict[int, int]:
    """For each vertex with many heads in the next layer the lane of its rail, from above.

    Rails that lie side by side share a lane. The fewer heads, the higher: what leads down from a
    rail crosses those below it.
    """
    lanes: dict[int, int] = {}
    for row in net.rows:
        fans = []
        for v in row:
            heads = [u for u in net.down[v] if u < len(net.boxes)]
            if len(heads) >= _FAN:
                reach = [x[v], *(x[u] for u in heads)]
                fans.append((len(heads), min(reach), max(reach), v))
        taken: list[list[tuple[float, float]]] = []
        for _, start, end, v in sorted(fans):
            lane = next(
                (
                    number for number, spans in enumerate(taken)
                    if all(end < other or start > until for other, until in spans)
                ),
                len(taken),
            )  # fmt: skip
            if lane == len(taken):
                if lane == _RAILS:
                    continue
                taken.append([])
            taken[lane].append((start, end))
            lanes[v] = lane
    return lanes


def _rows(
    net: Net, sizes: Sequence[Size], rails: dict[int, int], x: Sequence[float]
) -> tuple[list[float], list[float]]:
    """The borders of each row; rows stand further apart for rails, and where lines run far aside."""
    tops, bottoms = [], []
    y = 0.0
    for row in net.rows:
        tops.append(y)
        y += max((sizes[v].height for v in row if v < len(sizes)), default=0.0)
        bottoms.append(y)
        aside = max(
            (
                abs(x[v] - x[u])
                for v in row
                for u in net.down[v]
                if v not in rails or u >= len(net.boxes)
            ),
            default=0.0,
        )
        lanes = max((1 + rails[v] for v in row if v in rails), default=0)
        railed = _ABOVE + _LANE * (lanes - 1) + _BELOW if lanes else 0.0
        y += max(_FALL + min(60.0, aside / 14), railed)
    return tops, bottoms


def _lanes(
    net: Net, ends: Iterable[tuple[int, int]], trunks: dict[int, list[int]]
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
