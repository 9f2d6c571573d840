"""Other values for some parameters, in this thread or task only.

An overlay lends its parameters a cell of their own: value, version and feedback. What runs inside it
reads, records and receives feedback there; everybody else sees the parameters as they are. So one
workflow object can be run with many candidates at once, and nothing is copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, final

from tracegraph.cell import Cell, Origin
from tracegraph.kinds import show
from tracegraph.parameter import Parameter
from tracegraph.recorder import Change, Policy

__all__ = ["Overlay"]

_versions = itertools.count(-1, -1)


@final
class Overlay(Change):
    """Let parameters hold other values within a block; enter it as often, and in as many threads, as
    you like.

    Overlays nest; the inner one wins. A value that an optimizer wrote is not trusted to run in place,
    as everywhere, unless it is the one that the parameter holds anyway.

    Args:
        values: by parameter.
        origin: who wrote the values.

    Raises:
        Rejected: a parameter does not take its value.
        TypeError: something that is no parameter.

    >>> import tracegraph as tg
    >>> word = tg.node("Hello", trainable=True, name="word")
    >>> with tg.Overlay({word: "Goodbye"}):
    ...     inside = word + "!"
    >>> inside.data, word.data
    ('Goodbye!', 'Hello')
    """

    def __init__(
        self, values: Mapping[Parameter[Any], Any], *, origin: Origin = "optimizer"
    ) -> None:
        self._parameters = tuple(values)  # ids stay theirs as long as they live
        self._cells: dict[int, Cell] = {}
        for parameter, value in values.items():
            if not isinstance(parameter, Parameter):
                raise TypeError(
                    f"an overlay is for parameters, got {show(parameter, 80)}; make one with "
                    "node(value, trainable=True)"
                )
            value = parameter.check(value)
            now = parameter._cell().now
            same = _same(now.data, value)
            by = now.origin if same else origin
            trusted = origin == "person" or (now.trusted and same)
            self._cells[id(parameter)] = Cell(value, next(_versions), by, trusted=trusted)

    def _changed(self, policy: Policy) -> Policy:
        return policy.changed(cells={**(policy.cells or {}), **self._cells})


def _same(before: Any, after: Any) -> bool:
    return type(before) is type(after) and isinstance(before, str) and before == after
