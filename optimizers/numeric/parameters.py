"""What a numeric optimizer accepts as parameters, turned into what torch accepts.

Tensors, a module's parameters, named tensors and param-group dicts pass as torch takes them. A
tracegraph parameter that holds a tensor is replaced by that tensor and remembered, so that a step
can tell it that its value changed. One that holds a floating number or an array is stepped as a
tensor of float64 beside it: a step takes its value and its feedback from it and assigns the new
value. This file alone knows how a tracegraph parameter looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from tracegraph.arithmetic import is_real
from tracegraph.errors import Rejected
from tracegraph.feedback import Gradient
from tracegraph.kinds import show
from tracegraph.warning import warn

__all__ = ["Binding", "adapt", "forget"]


@dataclass(slots=True)
class Binding:
    """A tracegraph parameter and the tensor that it held when the optimizer last looked."""

    parameter: Any
    tensor: Tensor
    beside: bool = False
    """Whether the parameter holds a number or an array, and `tensor` stands in for it."""

    @property
    def name(self) -> str:
        """The parameter's name."""
        return str(self.parameter.name)

    def moved(self) -> Tensor | None:
        """The tensor that has replaced the remembered one, None where it is the same."""
        if self.beside:
            return None
        held = tensor_of(self.parameter, "the optimizer")
        return None if held is self.tensor else held

    def take(self) -> None:
        """Take over the number or array and its gradient; feedback for an older version is none."""
        if not self.beside:
            return
        self.tensor.detach().copy_(self._as_tensor(self.parameter.data))
        arrived = self.parameter.feedback
        message = arrived.get(Gradient) if arrived.version == self.parameter.version else None
        self.tensor.grad = None if message is None else self._gradient(message.value)

    def _gradient(self, value: Any) -> Tensor:
        return self._as_tensor(value).detach().expand_as(self.tensor).clone()

    def _as_tensor(self, value: Any) -> Tensor:
        return torch.as_tensor(value, dtype=self.tensor.dtype, device=self.tensor.device)

    def changed(self) -> None:
        """Tell the parameter that its tensor changed in place, or assign the number; the feedback
        that led there is used up.
        """
        if self.beside:
            self._assign()
        else:
            bump = getattr(self.parameter, "bump", None)
            if bump is not None:
                bump()
        forget(self.parameter)

    def _assign(self) -> None:
        before = self.parameter.data
        low, high = self.parameter.constraint.bounds
        new = self.tensor.detach().clamp(low, high).numpy()
        value = float(new) if new.ndim == 0 and not hasattr(before, "dtype") else new
        value = value if isinstance(value, float) else numpy.array(new, dtype=before.dtype)[()]
        try:
            self.parameter.assign(value, origin="optimizer")
        except Rejected as error:
            warn(
                f"{self.name} stays {show(before, 40)}: the step led to {show(value, 40)}, which its "
                f"constraint refuses ({error.reason})",
                RuntimeWarning,
            )


def forget(parameter: Any) -> None:
    """Let a parameter forget the feedback that has arrived."""
    zero_feedback = getattr(parameter, "zero_feedback", None)
    if zero_feedback is not None:
        zero_feedback()


def tensor_of(parameter: Any, optimizer: str) -> Tensor:
    """The tensor that a tracegraph parameter holds; Rejected where it holds something else."""
    value = parameter.data
    if isinstance(value, Tensor):
        return value
    raise Rejected(
        parameter=parameter,
        reason=(
            f"parameter {parameter.name!r} holds a {type(value).__name__} "
            f"(kind {_kind(parameter)}); {optimizer} updates tensors, floating numbers and arrays of "
            "them. Give it to an optimizer of its kind, or several kinds to a Partition"
        ),
    )


def _kind(parameter: Any) -> str:
    kind = parameter.kind
    return str(getattr(kind, "name", kind))


def _is_parameter(item: Any) -> bool:
    return not isinstance(item, Tensor) and all(hasattr(item, x) for x in ("data", "name", "kind"))


def _one(item: Any, optimizer: str, bindings: list[Binding]) -> Any:
    if _is_parameter(item):
        if hasattr(item, "feedback") and is_real(item.data):
            stand_in = torch.tensor(
                item.data, dtype=torch.float64, device="cpu", requires_grad=True
            )
            binding = Binding(item, stand_in, beside=True)
        else:
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
