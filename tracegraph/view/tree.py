"""A nested value as JSON of bounded size, to be opened branch by branch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tracegraph.view.plain import plain, shorten

__all__ = ["tree"]

_EXACT = 2**53  # JavaScript reads larger whole numbers inexactly
_DEEP, _KEY = 12, 200


def tree(
    value: object, leaf: Callable[[object], str], *, items: int = 500, text: int = 4_000
) -> Any:
    """`value` as JSON that says what each part was, at most `items` parts of it.

    A list is ``{"l": [parts], "n": length}``, a mapping ``{"m": [[key, part], ...], "n": length}``,
    anything that JSON cannot hold ``{"o": leaf(it)}``; texts, numbers, truth values and None are
    themselves. A part may be missing from the end: its container's length tells.

    >>> tree({"a": [1, None], "b": 2j}, repr)
    {'m': [['a', {'l': [1, None], 'n': 2}], ['b', {'o': '2j'}]], 'n': 2}
    """
    return _Grower(leaf, items, text).grow(value, 0)


class _Grower:
    def __init__(self, leaf: Callable[[object], str], items: int, text: int) -> None:
        self.leaf, self.room, self.text = leaf, items, text
        self.open: set[int] = set()

    def grow(self, value: object, depth: int) -> Any:
        self.room -= 1
        if value is None or isinstance(value, bool):
            return value
        if type(value) is str:
            return shorten(plain(value[: 2 * self.text]) + value[2 * self.text :], self.text)
        if type(value) is int and -_EXACT < value < _EXACT:
            return value
        if type(value) is float and math.isfinite(value):
            return value
        if (
            isinstance(value, (list, tuple, Mapping))
            and depth < _DEEP
            and id(value) not in self.open
        ):
            self.open.add(id(value))
            grown = self.branch(value, depth + 1)
            self.open.discard(id(value))
            return grown
        return {"o": shorten(plain(self.leaf(value)), self.text)}

    def branch(self, value: Any, depth: int) -> dict[str, Any]:
        parts: list[Any] = []
        pairs = isinstance(value, Mapping)
        for part in value.items() if pairs else value:
            if self.room <= 0:
                break
            if pairs:
                key = part[0] if type(part[0]) is str else self.leaf(part[0])
                parts.append([shorten(plain(key), _KEY), self.grow(part[1], depth)])
            else:
                parts.append(self.grow(part, depth))
        return {"m" if pairs else "l": parts, "n": len(value)}
