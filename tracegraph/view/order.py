"""An order within each layer that has few crossings.

Weighted medians and transposition are those of Gansner, Koutsofios, North and Vo, "A technique for
drawing directed graphs" (IEEE Trans. Software Engineering 19, 1993, section 3). Neighbours are
tried in turns, as odd-even transposition does it (Habermann, 1972): pairs of one turn share no
vertex and no segment, so all their gains are exact and computed at once. Crossings are counted as
inversions (Barth, Mutzel and Juenger, 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from tracegraph.view.net import Net

__all__ = ["order"]

_WORK = 60_000  # vertices and segments that all sweeps together look at
_FEW = 64  # pairs of ends that are compared one by one
_STALE = 4  # sweeps without gain before it is given up


def order(net: Net) -> None:
    """Put each row of `net` into an order with few crossings."""
    _first_order(net)
    table = _Table(net)
    fewest = table.crossings(net.rows)
    best = [row[:] for row in net.rows]
    work = len(net.layer) + sum(map(len, net.down))
    stale = 0
    for sweep in range(max(4, min(14, _WORK // (work + 1)))):
        if not fewest or stale >= _STALE:
            break
        _median_sweep(net, downward=sweep % 2 == 0)
        found = table.transpose(net.rows, rounds=4)
        stale += 1
        if found < fewest:
            best, fewest, stale = [row[:] for row in net.rows], found, 0
    net.rows[:] = best


def _first_order(net: Net) -> None:
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
            stack += [u for u in net.up[v][::-1] if not seen[u]]


def _median_sweep(net: Net, *, downward: bool) -> None:
    near = net.up if downward else net.down
    place = [0] * len(net.layer)
    for row in net.rows if downward else reversed(net.rows):
        if len(row) > 1:
            keys: dict[int, float] = {}
            for own, v in enumerate(row):
                ends = near[v]
                if len(ends) == 1:
                    keys[v] = place[ends[0]]
                elif len(ends) == 2:
                    keys[v] = (place[ends[0]] + place[ends[1]]) / 2
                elif ends:
                    keys[v] = _median(sorted([place[u] for u in ends]))
                else:
                    keys[v] = own
            row.sort(key=keys.__getitem__)
        for at, v in enumerate(row):
            place[v] = at


def _median(at: list[int]) -> float:
    """The weighted median of Gansner et al., figure 3-2."""
    half = len(at) // 2
    if len(at) % 2:
        return at[half]
    left, right = at[half - 1] - at[0], at[-1] - at[half]
    if not left + right:
        return (at[half - 1] + at[half]) / 2
    return (at[half - 1] * right + at[half] * left) / (left + right)


class _Table:
    """The segments of a net as arrays, to count crossings and to swap neighbours all at once.

    Each vertex has two owners: its number for the segments above it, and its number plus the count
    of vertices for those below. `owner` and `end` have one place for each end of a segment.
    """

    def __init__(self, net: Net) -> None:
        count = len(net.layer)
        sizes = [len(ends) for ends in chain(net.up, net.down)]
        self.count = count
        self.owner = np.repeat(np.arange(2 * count), sizes)
        self.end = np.fromiter(chain.from_iterable(chain(net.up, net.down)), np.int64, sum(sizes))
        self.first = np.concatenate(([0], np.cumsum(sizes)))
        self.degree = np.array(sizes, np.int64)
        self.layer = np.array(net.layer, np.int64)
        widths = [len(row) for row in net.rows]
        starts = np.concatenate(([0], np.cumsum(widths)[:-1])).astype(np.int64)
        self.starts = starts
        row_at = np.repeat(np.arange(len(widths)), widths)
        place_at = np.arange(count) - starts[row_at]
        pairs = np.flatnonzero(row_at[1:] == row_at[:-1])
        self.turns = [
            [pairs[(row_at[pairs] % 2 == odd) & (place_at[pairs] % 2 == side)] for side in (0, 1)]
            for odd in (0, 1)
        ]  # the left places of the pairs that are tried in one turn

    def crossings(self, rows: Sequence[Sequence[int]]) -> int:
        """How many pairs of segments cross."""
        place = np.empty(self.count, np.int64)
        flat = np.fromiter(chain.from_iterable(rows), np.int64, self.count)
        place[flat] = np.arange(self.count)
        lower = self.owner >= self.count
        above, below = place[self.owner[lower] - self.count], place[self.end[lower]]
        # Places count on from row to row, so segments of different rows never look crossed.
        return _inversions(below[np.lexsort((below, above))])

    def transpose(self, rows: list[list[int]], *, rounds: int) -> int:
        """Swap neighbours while that removes crossings; gives how many are left."""
        flat = np.fromiter(chain.from_iterable(rows), np.int64, self.count)
        place = np.empty(self.count, np.int64)
        place[flat] = np.arange(self.count) - self.starts[self.layer[flat]]
        total = self.crossings(rows)
        for _ in range(rounds):
            gained = sum(self._swap(flat, place, sides) for sides in self.turns)
            total -= gained
            if not gained or not total:
                break
        ends = [*self.starts[1:].tolist(), self.count]
        whole, begin = flat.tolist(), 0
        for row, end in zip(rows, ends, strict=True):
            row[:] = whole[begin:end]
            begin = end
        return total

    def _swap(self, flat: Any, place: Any, sides: Sequence[Any]) -> int:
        """Swap every pair of two turns where that helps; rows of the other parity stay."""
        gained = 0
        for lefts in sides:
            left, right = flat[lefts], flat[lefts + 1]
            gain = self._gain(place, left, right)
            better = gain > 0
            at = lefts[better]
            flat[at], flat[at + 1] = right[better], left[better]
            place[right[better]] -= 1
            place[left[better]] += 1
            gained += int(gain[better].sum())
        return gained

    def _gain(self, place: Any, left: Any, right: Any) -> Any:
        """For each pair, how many crossings go when the two change places."""
        one = np.concatenate((left, left + self.count))
        other = np.concatenate((right, right + self.count))
        ours, its = self.degree[one], self.degree[other]
        many = ours * its
        gain = np.zeros(len(one), np.int64)
        few = np.flatnonzero((many > 0) & (many <= _FEW))
        if len(few):
            # Every end of one beside every end of the other: it is crossed where it lies right of it.
            many, its = many[few], its[few]
            starts = np.cumsum(many) - many
            spot = np.arange(int(many.sum())) - np.repeat(starts, many)
            mine, theirs = np.divmod(spot, np.repeat(its, many))
            mine += np.repeat(self.first[one[few]], many)
            theirs += np.repeat(self.first[other[few]], many)
            side = np.sign(place[self.end[mine]] - place[self.end[theirs]])
            gain[few] = np.add.reduceat(side, starts)
        for at in np.flatnonzero(ours * self.degree[other] > _FEW):  # two fans
            a, b = (
                np.sort(place[self.end[self.first[v] : self.first[v + 1]]])
                for v in (one[at], other[at])
            )
            right_of, left_of = np.searchsorted(b, a), len(b) - np.searchsorted(b, a, "right")
            gain[at] = int(right_of.sum()) - int(left_of.sum())
        return gain[: len(left)] + gain[len(left) :]


def _inversions(values: Any) -> int:
    """Pairs of an earlier and a smaller later one among whole numbers of at least 0.

    Bit by bit from the highest: among numbers that agree so far, each 0 is passed by the 1s
    before it.
    """
    total = 0
    if not len(values):
        return 0
    ordered = values
    for bit in range(int(values.max()).bit_length() - 1, -1, -1):
        group, ones = ordered >> (bit + 1), (ordered >> bit) & 1
        before = np.cumsum(ones) - ones
        fresh = np.flatnonzero(np.diff(group, prepend=-1))
        base = np.repeat(before[fresh], np.diff(np.append(fresh, len(ordered))))
        total += int(((before - base) * (1 - ones)).sum())
        ordered = ordered[np.argsort(ordered >> bit, kind="stable")]
    return total
