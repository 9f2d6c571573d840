"""Examples of a function, read from the traces of its calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from optimizers.search.header import Example
from tracegraph.bundle import Bundle
from tracegraph.errors import OptimizerError
from tracegraph.graph import Graph
from tracegraph.kinds import show
from tracegraph.node import Node

__all__ = ["examples_of"]


def examples_of(outputs: Iterable[Node[Any]], bundle: Bundle[..., Any]) -> list[Example]:
    """The calls of `bundle` in the graphs of `outputs`: the arguments by name, and what they gave.

    A call that failed, that read nodes it was not given, or whose arguments were given as containers of
    nodes, is left out; calls with the same arguments count once.

    Args:
        outputs: of recorded runs that went well; `synthesized` writes a function that does the same.
        bundle: a recorded function, trainable or not.

    Raises:
        OptimizerError: `bundle` is none.

    >>> import tracegraph as tg
    >>> @tg.bundle
    ... def area(width, height):
    ...     return width * height
    >>> examples_of([area(2, 3) + area(5, 1)], area)
    [({'width': 2, 'height': 3}, 6), ({'width': 5, 'height': 1}, 5)]
    """
    if not isinstance(bundle, Bundle):
        raise OptimizerError(
            f"examples are taken of a recorded function, made by bundle; got {show(bundle, 80)}"
        )
    found: dict[str, Example] = {}
    for node in Graph.of(outputs).nodes:
        if node.operation is not bundle.operation or node.failure is not None or node.captured:
            continue
        given = {
            name: argument.data
            for name, argument in node.inputs.items()
            if argument.parameter is None or argument.parameter is not bundle.parameter
        }
        if all(name.isidentifier() for name in given):
            found.setdefault(repr(given), (given, node.data))
    return list(found.values())
