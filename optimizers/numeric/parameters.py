"""What a numeric optimizer accepts as parameters, turned into what torch accepts.

Tensors, a module's parameters, named tensors and param-group dicts pass as torch takes them. A
tracegraph parameter that holds a tensor is replaced by that tensor and remembered, so that a step
can tell it that its value changed. This file alone knows how a tracegraph parameter looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tracegraph.errors import Rejected

__all__ = ["Binding", "adapt"]


@dataclass(slots=True)
class Binding:
    """A tracegraph parameter and the tensor that it held when the optimizer last looked."""

    parameter: Any
    tensor: Tensor

    @property
    def name(self) -> str:
        """The parameter's name."""
        return str(self.parameter.name)

    def moved(self) -> Tensor | None:
        """The tensor that has replaced the remembered one, None where it is the same."""
        held = tensor_of(self.parameter, "the optimizer")
        return None if held is self.tensor else held

    def bump(self) -> None:
        """Tell the parameter that its value changed in place."""
        bump = getattr(self.parameter, "bump", None)
        if bump is not None:
            bump()


def tensor_of(parameter: Any, optimizer: str) -> Tensor:
    """The tensor that a tracegraph parameter holds; Rejected where it holds something else."""
    value = parameter.data
    if isinstance(value, Tensor):
        return value
    raise Rejected(
        parameter=parameter,
        reason=(
            f"parameter {parameter.name!r} holds a {type(value).__name__} "
            f"(kind {_kind(parameter)}); {optimizer} updates tensors. Give it to an optimizer of "
            "its kind, or several kinds to a Partition"
        ),
    )


def _kind(parameter: Any) -> str:
    kind = parameter.kind
    return str(getattr(kind, "name", kind))


def _is_parameter(item: Any) -> bool:
    return not isinstance(item, Tensor) and all(hasattr(item, x) for x in ("data", "name", "kind"))


def _one(item: Any, optimizer: str, bindings: list[Binding]) -> Any:
    if _is_parameter(item):
        binding = Binding(item, tensor_of(item, optimizer))
        bindings.append(binding)
        return binding.tensor
    return item


def _many(items: Any, optimizer: str, bindings: list[Binding]) -> Any:
    if isinstance(items, torch.nn.Module):
        items = items.parameters()
    if isinstance(items, Tensor) or not isinstance(items, Iterable) or isinstance(items, str):
        return items
    if isinstance(items, set):
        return items
    return [_one(item, optimizer, bindings) for item in items]


def adapt(params: Any, optimizer: str) -> tuple[Any, list[Binding]]:
    """`params` as torch takes them, and the tracegraph parameters found among them."""
    bindings: list[Binding] = []
    if _is_parameter(params):
        params = [params]
    params = _many(params, optimizer, bindings)
    if isinstance(params, list):
        for k, group in enumerate(params):
            if isinstance(group, Mapping) and "params" in group:
                inside = group["params"]
                inside = [inside] if _is_parameter(inside) else inside
                params[k] = {**group, "params": _many(inside, optimizer, bindings)}
    return params, bindings
