"""A torch optimizer some of whose tensors belong to tracegraph parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from optimizers.base import reach
from optimizers.numeric.members import Work
from optimizers.numeric.parameters import Binding, forget
from tracegraph.arithmetic import is_real
from tracegraph.errors import NoRule, OptimizerError, Rejected
from tracegraph.feedback import Gradient, Score
from tracegraph.graph import Graph
from tracegraph.node import Node
from tracegraph.parameter import Parameter

__all__ = ["Traced"]


def _one(output: Node[Any]) -> Any:
    """The gradient 1 of an output that is one number; ``None`` where it is no number."""
    value = output.data
    if not isinstance(value, Tensor) and not is_real(value):
        return None
    shape = tuple(getattr(value, "shape", ()))
    if math.prod(shape) != 1:
        raise OptimizerError(
            f"only a loss of one number has the gradient 1; {output.name} has the shape "
            f"{shape}: sum or average it first, or give a gradient of that shape"
        )
    return Gradient(1.0)


def _read(outputs: Any, parameters: Iterable[Parameter[Any]]) -> bool:
    """Whether the present version of one of some parameters lies behind an output."""
    leaves = {id(p._leaf()) for p in parameters}
    ends = [outputs] if isinstance(outputs, Node) else [entry[0] for entry in outputs]
    return any(id(node) in leaves for end in ends for node in Graph.of(end).nodes)


def _stopped(kinds: set[type]) -> str:
    if kinds:
        return (
            "a number is a score where the output is no tensor. Give tracegraph.Gradient(1.0), or no "
            "feedback at all, which means the same"
        )
    return (
        "something on the way to the output has no derivative, such as a bundle that is given plain "
        "numbers. Write it in torch inside @bundle(traceable=True), or give it rules={Gradient: ...} "
        "(tracegraph.estimators has some)"
    )


class Traced(Optimizer):
    """Carries feedback back to its parameters, follows their tensors, and tells them of changes."""

    _bindings: list[Binding]

    def forget(self) -> None:
        """Drop what was only kept to be fast; it is found again."""

    @property
    def parameters(self) -> list[Any]:
        """The parameters in order: tracegraph's where they were given, tensors elsewhere."""
        held = {id(binding.tensor): binding.parameter for binding in self._bindings}
        return [held.get(id(p), p) for group in self.param_groups for p in group["params"]]

    def backward(self, outputs: Any, feedback: Any = None, **options: Any) -> Mapping[Any, Any]:
        """Carry feedback back: ``backward(node, feedback)`` or ``backward([(node, feedback), ...])``.

        ``backward(loss)`` of one number, a tensor or not, gives it the gradient 1, as torch does. A
        number as feedback is a gradient where the output is a tensor, elsewhere a `Score`. Plain
        tensors among the parameters get their gradients as well.

        >>> import torch
        >>> import tracegraph as tg
        >>> from optimizers import SGD
        >>> rate = tg.node(1.0, trainable=True, name="rate")
        >>> optimizer = SGD([rate], lr=0.1)
        >>> received = optimizer.backward(rate * torch.tensor(3.0))
        >>> optimizer.step()
        >>> round(rate.data, 6)
        0.7

        Raises:
            NotReached: none of this optimizer's parameters lies behind any of the outputs.
            OptimizerError: several numbers without feedback; or this optimizer has plain tensors only.
            NoRule: numbers were given, and no gradient came of them to any of these parameters.
        """
        if feedback is None and isinstance(outputs, Node):
            feedback = _one(outputs)
        mine = {binding.name: binding.parameter for binding in self._bindings}
        if not mine:
            raise OptimizerError(
                f"this {type(self).__name__} has torch's tensors only, which feedback does not reach: "
                "call loss.data.backward() of torch, or make them parameters by "
                "tracegraph.node(tensor, trainable=True)"
            )
        others = [p for p in self.parameters if isinstance(p, Tensor)]
        received = reach(outputs, feedback, mine, {"tensors": others, **options})
        kinds = {kind for p in mine.values() for kind in received.get(p, ())}
        if kinds == {Score} or (not kinds and _read(outputs, mine.values())):
            raise NoRule(
                f"no gradient came to {', '.join(map(repr, mine))}, and {type(self).__name__} learns from "
                f"nothing else: {_stopped(kinds)}"
            )
        return received

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the tensors' ``.grad`` and the feedback of tracegraph parameters."""
        super().zero_grad(set_to_none=set_to_none)
        for binding in self._bindings:
            forget(binding.parameter)

    def zero_feedback(self) -> None:
        """The same as `zero_grad`, by the name that all optimizers have."""
        self.zero_grad()

    def name_of(self, p: Tensor) -> str:
        """The name of a tensor in messages: its own, or its place in the groups."""
        for binding in self._bindings:
            if binding.tensor is p:
                return f"parameter {binding.name!r}"
        for k, group in enumerate(self.param_groups):
            for i, q in enumerate(group["params"]):
                if q is p:
                    names = group.get("param_names")
                    return f"parameter {names[i]!r}" if names else f"parameter {i} of group {k}"
        return "a parameter"

    def _follow(self) -> None:
        """Take over tensors that have replaced those of tracegraph parameters, and numbers."""
        for binding in self._bindings:
            binding.take()
            new = binding.moved()
            if new is None:
                continue
            old = binding.tensor
            if new.shape != old.shape or new.dtype != old.dtype or new.device != old.device:
                raise Rejected(
                    parameter=binding.parameter,
                    reason=(
                        f"parameter {binding.name!r} was {tuple(old.shape)} {old.dtype} on "
                        f"{old.device} and is {tuple(new.shape)} {new.dtype} on {new.device}; its "
                        f"state does not fit. Make a new {type(self).__name__} for it"
                    ),
                )
            for group in self.param_groups:
                group["params"] = [new if p is old else p for p in group["params"]]
            if old in self.state:
                self.state[new] = self.state.pop(old)
            self.forget()
            binding.tensor = new

    def _tell(self, work: Iterable[Work]) -> None:
        if self._bindings:
            changed = {id(p) for params, _ in work for p in params}
            for binding in self._bindings:
                if id(binding.tensor) in changed:
                    binding.changed()
