"""Random programs: the same one runs on plain values and on nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

import tracegraph as tg
from tracegraph import Node, bundle, node


@bundle
def mixed(first: int, rest: list[Any], *more: int, table: dict[str, Any]) -> int:
    """Add whatever is there."""
    return first + sum(rest) + 2 * sum(more) + sum(table.values())


@bundle(traceable=True)
def opened(first: Any, second: Any) -> Any:
    """An operation with a graph inside."""
    return (first + 1) * second - first


@bundle
def pair(first: int, second: int) -> tuple[int, int]:
    """Two values at once."""
    return second, first


STEPS: dict[str, tuple[int, Any]] = {
    "add": (2, lambda x, y: x + y),
    "subtract": (2, lambda x, y: x - y),
    "multiply": (2, lambda x, y: x * y % 1009),
    "radd": (1, lambda x: 3 + x),
    "negate": (1, lambda x: -x),
    "compare": (2, lambda x, y: tg.cond(x < y, x, y) if isinstance(x, Node) or isinstance(y, Node)
                else (x if x < y else y)),
    "unpack": (2, lambda x, y: _second(x, y)),
    "mixed": (3, lambda x, y, z: _call(mixed, x, [y, {"deep": 1}["deep"]], z, table={"k": z})),
    "opened": (2, lambda x, y: _call(opened, x, y)),
    "method": (1, lambda x: x.conjugate()),
    "index": (2, lambda x, y: node([x, y])[1] if isinstance(x, Node) or isinstance(y, Node)
              else [x, y][1]),
}  # fmt: skip


def _call(made: Any, *args: Any, **kwargs: Any) -> Any:
    """The bundle on nodes, its plain function on plain values."""
    nodes: list[Any] = []
    tg.node.__globals__["lower"]((args, kwargs), "", nodes, [])
    return made(*args, **kwargs) if nodes else made.__wrapped__(*args, **kwargs)


def _second(x: Any, y: Any) -> Any:
    first, second = _call(pair, x, y)
    return second - first


@dataclass(frozen=True)
class Program:
    """Starting values, of which some are parameters, and steps over what came before."""

    starts: tuple[tuple[int, str], ...]
    steps: tuple[tuple[str, tuple[int, ...]], ...]

    def run(self, values: list[Any]) -> list[Any]:
        """Every value, in order; the starting ones first."""
        values = list(values)
        for name, picks in self.steps:
            arity, function = STEPS[name]
            values.append(function(*(values[p % len(values)] for p in picks[:arity])))
        return values

    def plain(self) -> list[int]:
        """The program on plain values."""
        return self.run([value for value, _ in self.starts])

    def recorded(self) -> list[Any]:
        """The program on nodes and parameters."""
        return self.run(self.starting())

    def starting(self) -> list[Any]:
        """The values that it starts at, as nodes and parameters."""
        return [
            node(value, trainable=True, name=f"p{i}") if kind == "parameter"
            else node(value, name=f"n{i}") if kind == "node" else value
            for i, (value, kind) in enumerate(self.starts)
        ]  # fmt: skip


def programs(*, longest: int = 25) -> st.SearchStrategy[Program]:
    """Programs with at least one parameter."""
    start = st.tuples(st.integers(-9, 9), st.sampled_from(["parameter", "node", "plain"]))
    step = st.tuples(st.sampled_from(sorted(STEPS)), st.tuples(*[st.integers(0, 1_000)] * 3))
    return st.builds(
        lambda first, starts, steps: Program(((first, "parameter"), *starts), tuple(steps)),
        st.integers(-9, 9), st.lists(start, max_size=4), st.lists(step, max_size=longest),
    )  # fmt: skip
