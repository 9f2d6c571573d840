"""Fold what repeats into one box that opens: long chains, and loops.

A chain is a way through boxes that each have one input and one user. A loop is a stretch of boxes,
in the order of the picture, in which the same titles and arguments come again and again, at least
four times; what repeats inside a loop that repeats is folded, too. Parameters are never hidden.

Boxes must come in an order in which every arrow points forward, as those of a graph do; any other
picture is given back as it is. A stretch of such an order may be folded without making a cycle:
a way out of it leads to what comes later, and never back in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from tracegraph.view.picture import Arrow, Box, Picture, Role

__all__ = ["fold"]

_SMALL = 60  # a picture of so many boxes is seen as a whole
_CHAIN = 12  # boxes of the shortest chain that is folded
_LOOP = 24  # and of the shortest loop
_TIMES = 4  # how often the body of a loop comes at least
_PERIODS = 24  # lengths of a body that are tried, the most frequent first
_CHILDREN = 24  # boxes that stand in one opened box; more are folded again
_DEEP = 6  # loops in loops


@dataclass(frozen=True, slots=True)
class _Item:
    """A box, by its number, or several items that stand as one."""

    boxes: tuple[int, ...]
    code: object  # equal for items that do the same
    inside: tuple[_Item, ...] = ()
    title: str = ""
    line: str = ""


def fold(picture: Picture) -> Picture:
    """`picture` with long chains and loops as one box each, with their own picture inside.

    >>> boxes = tuple(Box(key=n, title="negate") for n in range(100))
    >>> chain = Picture(boxes, tuple(Arrow(tail=n, head=n + 1) for n in range(99)))
    >>> [box.title for box in fold(chain).boxes]
    ['99 × negate']
    """
    ends = picture.indexed()
    if len(picture.boxes) <= _SMALL or any(tail >= head for tail, head in ends):
        return picture
    inputs: list[list[int]] = [[] for _ in picture.boxes]
    users: list[list[int]] = [[] for _ in picture.boxes]
    for tail, head in ends:
        inputs[head].append(tail)
        users[tail].append(head)
    labels: list[list[str]] = [[] for _ in picture.boxes]
    for arrow, (_, head) in zip(picture.arrows, ends, strict=True):
        labels[head].append(arrow.label)
    items = [
        _Item((v,), (box.title, box.role, tuple(labels[v])), title=box.title)
        for v, box in enumerate(picture.boxes)
        if inputs[v]
    ]
    items = _chains(items, inputs, users)
    for _ in range(_DEEP):
        folded = _loops(items)
        if len(folded) == len(items):
            break
        items = folded
    if all(not item.inside for item in items):
        return picture
    leaves = [_Item((v,), None) for v, found in enumerate(inputs) if not found]
    return _Drawer(picture, ends, users).draw((*leaves, *items), picture.title)


# Finding


def _chains(
    items: list[_Item], inputs: Sequence[Sequence[int]], users: Sequence[Sequence[int]]
) -> list[_Item]:
    """`items` with each chain as one of them, where its last box stood."""
    last: dict[int, list[_Item]] = {}
    for item in items:
        (v,) = item.boxes
        (before,) = inputs[v] if len(inputs[v]) == 1 else (-1,)
        goes_on = before in last and len(users[before]) == 1
        last[v] = last.pop(before) if goes_on else []
        last[v].append(item)
    long = {v: chain for v, chain in last.items() if len(chain) >= _CHAIN}
    within = {item.boxes[0] for chain in long.values() for item in chain}
    return [
        _group(long[v], "chain") if v in long else item
        for item in items
        for v in item.boxes
        if v in long or v not in within
    ]


def _loops(items: list[_Item]) -> list[_Item]:
    """`items` with each loop as one of them."""
    numbers: dict[object, int] = {}
    codes = np.array([numbers.setdefault(i.code, len(numbers)) for i in items], np.int64)
    found: list[_Item] = []
    at = 0
    for start, period, times in sorted(_runs(codes, [len(i.boxes) for i in items])):
        found += items[at:start]
        at = start + period * times
        bodies = [items[begin : begin + period] for begin in range(start, at, period)]
        if period == 1:
            found.append(_group([body[0] for body in bodies], "loop"))
        else:
            steps = [
                _Item(_boxes(body), None, tuple(body), f"{number} of {times}", _way(body))
                for number, body in enumerate(bodies, 1)
            ]
            found.append(_group(steps, "loop", _way(bodies[0])))
    return found + items[at:]


def _runs(codes: Any, sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Stretches that repeat: where each starts, how long its body is, and how often it comes."""
    last: dict[int, int] = {}
    gaps: Counter[int] = Counter()
    for at, code in enumerate(codes.tolist()):
        if code in last:
            gaps[at - last[code]] += 1
        last[code] = at
    taken = np.zeros(len(codes), bool)
    weight = np.concatenate(([0], np.cumsum(sizes)))
    runs = []
    for period in sorted(gap for gap, _ in gaps.most_common(_PERIODS)):
        same = (codes[period:] == codes[:-period]) & ~taken[period:] & ~taken[:-period]
        edges = np.flatnonzero(np.diff(same.astype(np.int8), prepend=0, append=0))
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            times = (end - start) // period + 1
            stop = start + times * period
            large = times >= _TIMES and weight[stop] - weight[start] >= _LOOP
            if large and not taken[start:stop].any():
                taken[start:stop] = True
                runs.append((start, period, times))
    return runs


def _group(items: Sequence[_Item], kind: str, line: str = "") -> _Item:
    """Several items as one."""
    same = len({item.title for item in items}) == 1
    title = f"{len(items):,} × {items[0].title}" if same else f"{kind} of {len(items):,}"
    line = line or ("" if same else _way(items))
    code = (kind, len(items), items[0].code, line)
    return _Item(_boxes(items), code, _nest(items, line), title, line)


def _nest(items: Sequence[_Item], line: str, first: int = 1) -> tuple[_Item, ...]:
    """`items`, in groups and groups of groups where they are too many for one picture."""
    size = 1
    while len(items) > _CHILDREN * size:
        size *= _CHILDREN
    if size == 1:
        return tuple(items)
    parts = [(at + first, items[at : at + size]) for at in range(0, len(items), size)]
    return tuple(
        _Item(_boxes(part), None, _nest(part, line, at), f"{at:,} to {at + len(part) - 1:,}", line)
        for at, part in parts
    )


def _boxes(items: Sequence[_Item]) -> tuple[int, ...]:
    return tuple(v for item in items for v in item.boxes)


def _way(items: Sequence[_Item]) -> str:
    shown = [item.title for item in items[:8]]
    return " → ".join(shown) + (" → …" if len(items) > 8 else "")


# Drawing


class _Drawer:
    def __init__(
        self, picture: Picture, ends: Sequence[tuple[int, int]], users: Sequence[Sequence[int]]
    ) -> None:
        self.boxes = picture.boxes
        self.users = users
        self.arrows: list[list[tuple[int, Arrow]]] = [[] for _ in picture.boxes]
        for arrow, (tail, head) in zip(picture.arrows, ends, strict=True):
            self.arrows[head].append((tail, arrow))
        self.keys = count(max(box.key for box in picture.boxes) + 1)

    def draw(self, items: Sequence[_Item], title: str) -> Picture:
        """`items` as a picture, with the boxes outside that they use."""
        owner = {v: at for at, item in enumerate(items) for v in item.boxes}
        sources = sorted({t for v in owner for t, _ in self.arrows[v] if t not in owner})
        place = {v: v for v in sources} | {v: -1 - at for v, at in owner.items()}
        drawn = {v: self.boxes[v] for v in sources if not self._inner(v, owner, items)}
        for at, item in enumerate(items):
            if item.inside:
                drawn[-1 - at] = self._group(item)
            elif not self._inner(item.boxes[0], owner, items):
                drawn[-1 - at] = self.boxes[item.boxes[0]]
        arrows: dict[tuple[int, int, str, bool], Arrow] = {}
        for v in owner:
            for tail, arrow in self.arrows[v]:
                start, end = place[tail], place[v]
                if start == end or start not in drawn:
                    continue
                found = Arrow(
                    tail=drawn[start].key, head=drawn[end].key, label=arrow.label,
                    on_path=arrow.on_path, captured=arrow.captured,
                )  # fmt: skip
                known = (found.tail, found.head, found.label, found.captured)
                if known not in arrows or found.on_path:
                    arrows[known] = found
        return Picture(tuple(drawn.values()), tuple(arrows.values()), title)

    def _inner(self, v: int, owner: dict[int, int], items: Sequence[_Item]) -> bool:
        """Whether `v` is an input of one group alone, which shows it when it is opened."""
        if self.arrows[v] or self.boxes[v].role == "parameter":
            return False
        homes = {owner.get(user, -1) for user in self.users[v]}
        return len(homes) == 1 and -1 not in homes and bool(items[homes.pop()].inside)

    def _group(self, item: _Item) -> Box:
        inside = [self.boxes[v] for v in item.boxes]
        roles = {box.role for box in inside}
        role: Role = next((r for r in ("failure", "output") if r in roles), "operation")
        return Box(
            key=next(self.keys),
            title=item.title,
            lines=tuple(filter(None, (item.line, *inside[-1].lines[-1:]))),
            role=role,
            on_path=any(box.on_path for box in inside),
            tooltip=f"{len(inside):,} boxes in one; it opens",
            inside=self.draw(
                item.inside, f"{item.title}: {item.line}" if item.line else item.title
            ),
        )
