"""Where each vertex of a row stands: near its neighbours, in its row's order, apart from the next.

For each row, the places that are nearest to the weighted medians of the neighbours, in the sense of
least squares, are found by isotonic regression (pool adjacent violators: Barlow et al., 1972).
Segments inside long arrows weigh more (Gansner et al., 1993, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tracegraph.view.net import Net

__all__ = ["STIFF", "coordinates"]

_GAP = 28.0  # between neighbours of a layer
STIFF = 16.0
"""How much trunks and the longest way are kept straight; other arrows have 1."""
_WORK = 30_000  # vertices and segments that all sweeps together look at

_Pulls = list[tuple[tuple[int, float], ...]]


def coordinates(net: Net) -> list[float]:
    """The centre of each vertex, in pixels."""
    x = [0.0] * len(net.layer)
    apart = [_apart(net, row) for row in net.rows]
    for row, offsets in zip(net.rows, apart, strict=True):
        for v, offset in zip(row, offsets, strict=True):
            x[v] = offset - offsets[-1] / 2
    work = len(net.layer) + sum(map(len, net.down))
    sweeps = max(2, min(8, _WORK // (work + 1)))
    above, below = _pulls(net, net.up), _pulls(net, net.down)
    lower = x
    for _ in range(sweeps):
        lower = _settle(net.rows, apart, x, above)
        x = _settle(net.rows[::-1], apart[::-1], lower, below)
    # Both keep every distance, so what lies halfway between them does too.
    x = [(a + b) / 2 for a, b in zip(lower, x, strict=True)]
    both = [up + down for up, down in zip(above, below, strict=True)]
    for _ in range(max(1, sweeps // 2)):
        x = _settle(net.rows[::-1], apart[::-1], x, both)
    return x


def _apart(net: Net, row: Sequence[int]) -> list[float]:
    """How far each vertex of `row` stands at least from the first."""
    offsets = [0.0] if row else []
    for left, right in pairwise(row):
        bends = (left >= len(net.boxes)) + (right >= len(net.boxes))
        gap = (_GAP, _GAP / 2, 0.0)[bends]
        offsets.append(offsets[-1] + (net.room[left] + net.room[right]) / 2 + gap)
    return offsets


def _pulls(net: Net, near: Sequence[Sequence[int]]) -> _Pulls:
    """For each vertex its neighbours on one side, and how strongly each pulls."""
    first_bend, spine = len(net.boxes), net.spine
    pulls: _Pulls = [
        tuple(
            [
                (u, spine.get((u, v) if u < v else (v, u), 1.0 if u < first_bend else 2.0))
                for u in ends
            ]
        )
        for v, ends in enumerate(near[:first_bend])
    ]
    for ends in near[first_bend:]:
        if len(ends) == 1:
            u = ends[0]
            pulls.append(((u, 2.0 if u < first_bend else STIFF),))
        else:
            pulls.append(tuple([(u, 2.0 if u < first_bend else STIFF) for u in ends]))
    return pulls


def _settle(
    rows: Sequence[Sequence[int]],
    apart: Sequence[Sequence[float]],
    x: Sequence[float],
    pulls: _Pulls,
) -> list[float]:
    """Row by row, the place nearest to the neighbours that keeps the order and the distances."""
    x = list(x)
    for row, offsets in zip(rows, apart, strict=True):
        # Blocks of vertices that stand as close as they may: place, weight, count.
        blocks: list[tuple[float, float, int]] = []
        for v, offset in zip(row, offsets, strict=True):
            pulling = pulls[v]
            if len(pulling) == 1:
                ((u, weight),) = pulling
                value = x[u] - offset
            elif len(pulling) == 2:
                (u, left), (w, right) = pulling
                near = x[u] if left > right else x[w] if right > left else (x[u] + x[w]) / 2
                value, weight = near - offset, left + right
            elif pulling:
                value, weight = _middle([(x[u], pull) for u, pull in pulling])
                value -= offset
            else:
                value, weight = x[v] - offset, 0.1
            count = 1
            while blocks and blocks[-1][0] >= value:
                before, heavy, more = blocks.pop()
                value = (before * heavy + value * weight) / (heavy + weight)
                weight, count = heavy + weight, count + more
            blocks.append((value, weight, count))
        at = 0
        for value, _, count in blocks:
            for place in range(at, at + count):
                x[row[place]] = value + offsets[place]
            at += count
    return x


def _middle(pulls: list[tuple[float, float]]) -> tuple[float, float]:
    """The weighted median of (place, weight) pairs, and their whole weight.

    It lies halfway where two places are equally good.
    """
    pulls.sort()
    whole = sum([weight for _, weight in pulls])
    passed = 0.0
    for at, (place, weight) in enumerate(pulls):
        passed += weight
        if 2 * passed > whole:
            return place, whole
        if 2 * passed == whole:
            return (place + pulls[at + 1][0]) / 2, whole
    return pulls[-1][0], whole
