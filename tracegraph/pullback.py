"""Gradients through a call that ran apart: its code is run again there, and torch there pulls them back.

Here torch sees one operation, from the tensors among the arguments to those in the result. When its
engine comes to it, the arguments and the gradients go to the sandbox as numbers, and gradients come
back as numbers. The code runs once more, on the same random numbers, and what host functions told it
the first time is told again: they are not called. Only first derivatives are known.

Torch is never imported here: where no tensor is, there is nothing to do.
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tracegraph.errors import FeedbackError

if TYPE_CHECKING:
    from tracegraph.sandbox import Result, Runner

__all__ = ["Pullback", "has_tensors"]

_IN_THE_CHILD = """

def _seeded(seed, args, kwargs):
    import random, sys, types
    random.seed(seed)
    if "numpy" in sys.modules:
        import numpy.random
        numpy.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    value = ENTRY(*args, **kwargs)
    if type(value) is types.CoroutineType:
        import asyncio
        value = asyncio.run(value)
    return value

def _pulled_back(seed, wanted, args, kwargs, gradients):
    import torch
    def tensors(value):
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value) in (list, tuple, dict):
            for item in value.values() if type(value) is dict else value:
                yield from tensors(item)
    given = list(tensors((args, kwargs)))
    leaves = [given[at].requires_grad_() for at in wanted]
    made = [one for one in tensors(_seeded(seed, args, kwargs))
            if one.is_floating_point() or one.is_complex()]
    pairs = [(one, gradient) for one, gradient in zip(made, gradients, strict=True)
             if gradient is not None and one.requires_grad]
    if not pairs:
        return [None] * len(leaves)
    made, gradients = map(list, zip(*pairs))
    return list(torch.autograd.grad(made, leaves, gradients, allow_unused=True))
"""


def has_tensors(*values: Any) -> bool:
    """Whether a torch tensor lies in `values`, also in lists, tuples and dicts.

    >>> has_tensors([1, {"x": 2.0}])
    False
    """
    return next(_tensors(values), None) is not None


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _tensors(value: Any) -> Iterator[Any]:
    """The tensors in lists, tuples and dicts, in the order in which the child finds them."""
    kind = type(value)
    if _is_tensor(value):
        yield value
    elif kind is list or kind is tuple or kind is dict:
        for item in value.values() if kind is dict else value:
            yield from _tensors(item)


def _smooth(tensor: Any) -> bool:
    return bool(tensor.is_floating_point() or tensor.is_complex())


class Pullback:
    """One call that ran apart, and what is needed to run it again for its gradients.

    Args:
        box: the sandbox.
        text: the code.
        entry: what to call in it.
        args, kwargs: the arguments, which hold a tensor that wants a gradient.
        host: functions of this process that the code may call.
    """

    def __init__(
        self,
        box: Runner,
        text: str,
        entry: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        host: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._box = box
        self._text = text + _IN_THE_CHILD.replace("ENTRY", entry)
        self._entry, self._host = entry, host
        self._seed = random.SystemRandom().getrandbits(32)
        self._given = (tuple(args), dict(kwargs))
        tensors = list(_tensors(self._given))
        self._wanted = [at for at, one in enumerate(tensors) if one.requires_grad]
        self.leaves = [tensors[at] for at in self._wanted]
        self._held = [(one, one._version) for one in tensors]
        self._told: list[tuple[str, Any]] = []
        self.made: tuple[Any, ...] = ()

    @staticmethod
    def wanted(*values: Any) -> bool:
        """Whether a gradient could be asked of a call with `values` among its arguments."""
        torch = sys.modules.get("torch")
        return (
            torch is not None
            and torch.is_grad_enabled()
            and any(tensor.requires_grad for tensor in _tensors(values))
        )

    def call(self) -> Result:
        """Run the code; the tensors in the result know how to ask for their gradients."""
        host = {name: self._listening(name, function) for name, function in self._host.items()}
        result = self._box.call(self._text, "_seeded", (self._seed, *self._given), host=host)
        self.made = tuple(one for one in _tensors(result.value) if _smooth(one))
        if not self.made:
            return result
        joined = iter(_operation().apply(self, *self.leaves))
        return replace(result, value=_with(result.value, joined))

    def _listening(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*args: Any, **kwargs: Any) -> Any:
            answer = function(*args, **kwargs)
            self._told.append((name, answer))
            return answer

        return ask

    def pull(self, gradients: Sequence[Any]) -> list[Any]:
        """The gradients of `leaves`, of those of `made`; None for what does not matter.

        Raises:
            FeedbackError: a tensor was changed since, the code failed when it ran again, or what came
                back does not fit.
        """
        if any(tensor._version != version for tensor, version in self._held):
            raise self.refusal("an argument was changed in place after the call; use a copy")
        told = iter(self._told)

        def again(name: str) -> Callable[..., Any]:
            def tell(*args: Any, **kwargs: Any) -> Any:
                before, answer = next(told, ("", None))
                if before != name:
                    raise self.refusal("it called other host functions when it ran again")
                return answer

            return tell

        given = (self._seed, self._wanted, *self._given, list(gradients))
        host = {name: again(name) for name in self._host}
        result = self._box.call(self._text, "_pulled_back", given, host=host)
        if result.error is not None:
            raise self.refusal(f"{type(result.error).__name__}: {result.error}") from result.error
        found = result.value
        fits = isinstance(found, list) and len(found) == len(self.leaves)
        if not fits or not all(map(_fits, found, self.leaves)):
            raise self.refusal("what came back are not gradients of the tensors that went in")
        return [
            None if one is None else one.to(device=leaf.device, dtype=leaf.dtype)
            for one, leaf in zip(found, self.leaves, strict=True)
        ]

    def refusal(self, why: str) -> FeedbackError:
        """The error that no gradient comes back, and why."""
        return FeedbackError(
            f"no gradient comes back through {self._entry}, which ran apart: {why}"
        )


def _fits(gradient: Any, leaf: Any) -> bool:
    return gradient is None or (
        _is_tensor(gradient)
        and gradient.shape == leaf.shape
        and gradient.is_complex() <= leaf.is_complex()  # torch would drop the half of it
    )


def _with(value: Any, tensors: Iterator[Any]) -> Any:
    """`value` with its tensors that have a derivative replaced, in order."""
    if _is_tensor(value):
        return next(tensors) if _smooth(value) else value
    if type(value) is dict:
        return {key: _with(item, tensors) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_with(item, tensors) for item in value)
    return value


@functools.cache
def _operation() -> Any:
    """The operation that torch sees: `_operation().apply(pullback, *leaves)` gives what was made."""
    torch: Any = sys.modules["torch"]

    class Apart(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, pullback: Pullback, *leaves: Any) -> Any:
            ctx.pullback = pullback
            ctx.set_materialize_grads(False)
            return pullback.made

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            if (
                torch.is_grad_enabled()
            ):  # so it is where the gradient is to be differentiated itself
                raise ctx.pullback.refusal("only first derivatives are known (create_graph=True)")
            return (None, *ctx.pullback.pull(gradients))

    return Apart
