"""Random programs on tensors: the same one runs on nodes and in plain torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from tracegraph import Gradient, Node, bundle, node
from tracegraph.functions import identity

Tensor = torch.Tensor


@bundle
def built(x: Tensor, y: Tensor) -> list[Any]:
    """Tensors made inside, and one that only passes through."""
    return [x.tanh() * y, {"same": x}]


@bundle(traceable=True)
def opened(x: Any, y: Any) -> Any:
    """An operation with a graph inside."""
    return (x - y) * 0.5 + x.cos()


@bundle(rules={Gradient: lambda made, g: {"x": g.value * made.inputs["x"].data.detach().cos()}})
def boxed_sine(x: Tensor) -> Tensor:
    """What torch does not see, with a rule."""
    return torch.from_numpy(x.detach().numpy().copy()).sin()


@bundle(
    rules={
        Gradient: lambda made, g: {
            "x": g.value * made.inputs["y"].data.detach(),
            "y": g.value * made.inputs["x"].data.detach(),
        }
    }
)
def boxed_product(x: Tensor, y: Tensor) -> Tensor:
    """Torch sees it, and the rule wins."""
    return x * y


TORCH: dict[str, tuple[int, Any, Any]] = {
    "add": (2, lambda x, y: x + y, None),
    "subtract": (2, lambda x, y: x - y, None),
    "multiply": (2, lambda x, y: (x * y).tanh(), None),
    "sine": (1, torch.sin, None),
    "method": (1, lambda x: x.sigmoid(), None),
    "reflected": (1, lambda x: 3.0 - x, None),
    "matmul": (2, lambda x, y: (x @ y) * torch.ones(3, dtype=torch.float64), None),
    "index": (1, lambda x: x[[2, 0, 1]], None),
    "identity": (1, lambda x: x, lambda x: identity(x)),
    "container": (2, lambda x, y: y, lambda x, y: node({"k": [x, y]})["k"][1]),
    "built": (2, lambda x, y: x.tanh() * y, lambda x, y: built(x, y)[0]),
    "passed": (2, lambda x, y: x, lambda x, y: built(x, y)[1]["same"]),
    "opened": (2, lambda x, y: (x - y) * 0.5 + x.cos(), opened),
}  # fmt: skip
"""By name: how many operands, the step in torch, and the step on nodes where it differs."""

RULED: dict[str, tuple[int, Any, Any]] = {
    "boxed_sine": (1, torch.sin, boxed_sine),
    "boxed_product": (2, lambda x, y: x * y, boxed_product),
}
"""Steps with a rule of their own."""

NUMBERS: dict[str, tuple[int, Any, Any]] = {
    "scale": (1, lambda x, r: x * r, lambda x, r: x * r),
    "shift": (1, lambda x, r: (r * 2.0 + 1.0) - x, lambda x, r: (r * 2.0 + 1.0) - x),
}
"""Steps that also take a number, a parameter."""


@dataclass(frozen=True)
class TensorProgram:
    """Starting tensors, steps over what came before, and outputs with weights."""

    starts: tuple[tuple[float, ...], ...]
    steps: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[tuple[int, float], ...]

    def run(self, starts: list[Any], rate: Any) -> list[Any]:
        """Every value, in order."""
        values = list(starts)
        on_nodes = isinstance(rate, Node)
        for name, picks in self.steps:
            if name in NUMBERS:
                made = NUMBERS[name][1](values[picks[0] % len(values)], rate)
            else:
                arity, plain, recorded = {**TORCH, **RULED}[name]
                step = recorded if on_nodes and recorded is not None else plain
                made = step(*(values[p % len(values)] for p in picks[:arity]))
            values.append(made)
        return values


def tensor_programs(*families: dict[str, Any], longest: int = 12) -> st.SearchStrategy[Any]:
    """Programs of the steps of some families."""
    names = sorted(name for family in families for name in family)
    number = st.floats(-2, 2, width=16)
    return st.builds(
        TensorProgram,
        st.lists(st.tuples(number, number, number), min_size=1, max_size=3).map(tuple),
        st.lists(
            st.tuples(st.sampled_from(names), st.tuples(*[st.integers(0, 30)] * 2)),
            min_size=1, max_size=longest,
        ).map(tuple),
        st.lists(st.tuples(st.integers(0, 30), st.floats(-2, 2, width=16)), min_size=1, max_size=3)
        .map(tuple),
    )  # fmt: skip
