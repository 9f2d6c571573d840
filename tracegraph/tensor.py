"""The only door to torch: gradients through torch's own engine.

The tensors that nodes hold are the user's own, so torch knows how they were made. One engine call
carries the gradients at some nodes to all leaves of torch's record behind them: tensors of
parameters, numbers that were lifted, and results of operations with a rule of their own.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tracegraph.arithmetic import is_real, plain
from tracegraph.array_calls import call_again
from tracegraph.errors import FeedbackError, NoRule
from tracegraph.forking import new_lock
from tracegraph.kinds import is_tensor, show
from tracegraph.lifting import leaf_of
from tracegraph.node import Node
from tracegraph.parameter import Parameter

__all__ = [
    "accumulate",
    "constant",
    "devices",
    "fitted",
    "hessian_vector",
    "in_processes",
    "leaves_behind",
    "pass_back",
    "pull",
    "pull_call",
    "solve_transposed",
    "vector_jacobian",
]


def leaves_behind(
    start: Node[Any], seen: set[int], wanted: Mapping[int, Node[Any]]
) -> list[tuple[Node[Any], Any]]:
    """The nodes behind `start` at which gradients leave torch, with their tensors.

    Nodes in `seen` are passed over; those that are visited are added to it. Nodes in `wanted` are
    found too, where torch has a record of them.
    """
    todo = [start]
    found = []
    while todo:
        node = todo.pop()
        if node.id in seen:
            continue
        seen.add(node.id)
        tensor = leaf_of(node)
        if tensor is not None:
            found.append((node, tensor))
            continue
        if node.id in wanted and is_tensor(node._data) and node._data.requires_grad:
            found.append((node, node._data))
        todo.extend(node._inputs)
    return found


def pull(
    seeds: Iterable[tuple[Node[Any], Any]], leaves: Sequence[Any], create_graph: bool = False
) -> list[Any]:
    """Run torch's engine once, from all `seeds` to the tensors `leaves`; changes nothing.

    Returns:
        The gradient of each leaf; ``None`` for one that no seed depends on.
    """
    import torch

    roots, grads = _roots(seeds)
    if not roots or not leaves:
        return [None] * len(leaves)
    return list(
        torch.autograd.grad(
            roots, list(leaves), grads, allow_unused=True, create_graph=create_graph,
            retain_graph=True,
        )
    )  # fmt: skip


def _roots(seeds: Iterable[tuple[Node[Any], Any]]) -> tuple[list[Any], list[Any]]:
    """The tensors that a pass starts from, and their gradients."""
    found = [(seed._data, fitted(seed._data, value, seed.name)) for seed, value in seeds
             if seed._data.requires_grad]  # fmt: skip
    return [tensor for tensor, _ in found], [gradient for _, gradient in found]


def in_processes() -> bool:
    """Whether torch's processes work together here, so that something may wait for a whole pass."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def pass_back(
    seeds: Iterable[tuple[Node[Any], Any]],
    leaves: Sequence[Any],
    aside: Iterable[Any],
) -> list[Any]:
    """Run torch's own backward pass from all `seeds`: ``.grad`` of all leaves behind is added to.

    So DistributedDataParallel, FSDP and ZeRO, which wait for that, exchange gradients as it goes.

    Args:
        seeds: nodes that hold tensors, with their gradients.
        leaves: the tensors whose gradients are wanted as well.
        aside: tensors whose ``.grad`` stays as it is.

    Returns:
        What came to each leaf in this process; ``None`` for one that no seed depends on.
    """
    import torch

    roots, grads = _roots(seeds)
    came: dict[int, Any] = {}
    held = [(tensor, tensor.grad) for tensor in aside]
    handles = [leaf.register_hook(functools.partial(came.__setitem__, id(leaf)))
               for leaf in {id(leaf): leaf for leaf in leaves}.values()]  # fmt: skip
    try:
        if roots:
            torch.autograd.backward(roots, grads, retain_graph=True)
    finally:
        for handle in handles:
            handle.remove()
        for tensor, gradient in held:
            tensor.grad = gradient
    return [came.get(id(leaf)) for leaf in leaves]


def fitted(tensor: Any, value: Any, name: str) -> Any:
    """`value` as a gradient of `tensor`: its dtype and device, broadcast to its shape.

    Raises:
        FeedbackError: the shape does not fit.
    """
    import torch

    gradient = torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)
    if gradient.shape == tensor.shape:
        return gradient
    try:
        return gradient.expand_as(tensor)
    except RuntimeError as error:
        raise WrongShape(
            f"a gradient of shape {list(gradient.shape)} was given at {name}, which has shape "
            f"{list(tensor.shape)}: give one of that shape, or a number for every element"
        ) from error


class WrongShape(FeedbackError, ValueError):
    """A gradient whose shape is not that of the value."""


_adding = new_lock()
"""Held for the moment in which ``.grad`` is set, so that of two sums none is lost."""


def accumulate(tensor: Any, gradient: Any) -> None:
    """Add `gradient` to ``tensor.grad``, and call the hooks that wait for that, as torch does."""
    if tensor.is_leaf or tensor.retains_grad:
        while not _replaced(tensor, tensor.grad, gradient):
            pass  # another thread was faster: add to its sum
    for hook in tuple((getattr(tensor, "_post_accumulate_grad_hooks", None) or {}).values()):
        hook(tensor)


def _replaced(tensor: Any, before: Any, gradient: Any) -> bool:
    """Whether ``.grad`` is the sum now: it is not where it was no longer what it was `before`."""
    both = gradient if before is None else before + gradient
    with _adding:
        if tensor.grad is not before:
            return False
        tensor.grad = both
        return True


def hessian_vector(
    output: Node[Any], vectors: Mapping[Parameter[Any], Any]
) -> dict[Parameter[Any], Any]:
    """The second derivative of `output`, a scalar, times a vector over some parameters.

    The feedback and the ``.grad`` of the parameters stay as they are.

    Args:
        output: a node that holds one number as a tensor.
        vectors: by parameter, a tensor, array or number of its shape.

    Returns:
        The product, by parameter: a tensor of its shape, zero where nothing depends on it.

    Raises:
        NoRule: an operation with a rule of its own stands between: it has a first derivative only.
        NotReached: a parameter does not lie behind the output.

    The method is that of B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural
    Computation 6 (1994): the gradient of the gradient's product with the vector.

    >>> import torch
    >>> import tracegraph as tg
    >>> w = tg.node(torch.tensor([1.0, 2.0]), trainable=True, name="w")
    >>> hessian_vector((w**3).sum(), {w: torch.ones(2)})[w]
    tensor([ 6., 12.])
    """
    import torch

    from tracegraph.errors import NotReached

    start = output._leaf()
    if not is_tensor(start._data) or start._data.numel() != 1:
        raise FeedbackError(
            f"a Hessian belongs to one number as a tensor; {output.name} holds "
            f"{show(start._data, 60)}: sum or choose first"
        )
    by_parameter = {}
    for node, tensor in leaves_behind(start, set(), {}):
        if node.parameter is None:
            raise NoRule(
                f"{node.name} goes back by a rule, which gives a first derivative only: a "
                "Hessian needs torch all the way from the parameters to the output"
            )
        by_parameter[node.parameter] = tensor
    missing = [p.label for p in vectors if p not in by_parameter]
    if missing:
        raise NotReached(f"no tensor of {', '.join(missing)} lies behind {output.name}")
    leaves = [by_parameter[p] for p in vectors]
    directions = [fitted(by_parameter[p], v, p.label) for p, v in vectors.items()]
    first = torch.autograd.grad(start._data, leaves, create_graph=True, allow_unused=True)
    rows = [(g, v) for g, v in zip(first, directions, strict=True)
            if g is not None and g.requires_grad]  # fmt: skip
    second: Iterable[Any] = [None] * len(leaves)
    if rows:
        second = torch.autograd.grad(
            [g for g, _ in rows], leaves, [v for _, v in rows], allow_unused=True, retain_graph=True
        )
    return {
        p: torch.zeros_like(leaf) if product is None else product
        for p, leaf, product in zip(vectors, leaves, second, strict=True)
    }


# What estimators need


def _leaf(value: Any) -> Any:
    """A copy of `value` as a float64 leaf of a record of its own; what has no derivative stays."""
    import torch

    if is_tensor(value):
        return value.detach().double().requires_grad_() if value.is_floating_point() else value
    if is_real(value):
        return torch.tensor(value, dtype=torch.float64, device="cpu", requires_grad=True)
    return value


def constant(value: Any) -> Any:
    """`value` as a float64 tensor that torch does not follow."""
    import torch

    device = value.device if is_tensor(value) else "cpu"
    return torch.as_tensor(value, dtype=torch.float64, device=device).detach()


def vector_jacobian(
    function: Callable[..., Any], inputs: Mapping[str, Any], cotangent: Any
) -> dict[str, Any]:
    """`cotangent` times the derivative of ``function(**inputs)``, in float64, by input.

    Raises:
        FeedbackError: the function gives no tensor that depends on an input.
    """
    import torch

    with torch.enable_grad():
        leaves = {name: _leaf(value) for name, value in inputs.items()}
        result = function(**leaves)
    wanted = {n: v for n, v in leaves.items() if is_tensor(v) and v.requires_grad}
    if not is_tensor(result) or not result.requires_grad:
        raise FeedbackError(
            f"{getattr(function, '__name__', function)} gave {show(result, 60)}, which torch did not "
            "see made from its arguments: write it with torch operations"
        )
    found = torch.autograd.grad(
        result, list(wanted.values()), fitted(result, cotangent, "a result"), allow_unused=True
    )
    return {n: g for n, g in zip(wanted, found, strict=True) if g is not None}


def pull_call(node: Node[Any], gradient: Any) -> Mapping[str, Any]:
    """The gradient at each operand of `node`, a call of numpy, that has one, by the operand's name.

    Raises:
        NoRule: the call was made in a way that `array_calls` does not know.
    """
    import torch

    operands = {name: i._data for name, i in zip(node._names, node._inputs, strict=True)}
    found = vector_jacobian(
        lambda **leaves: call_again(torch, node, leaves), operands, plain(gradient)
    )
    return {name: g if is_tensor(operands[name]) else plain(g) for name, g in found.items()}


def solve_transposed(residual: Callable[[Any], Any], solution: Any, gradient: Any) -> Any:
    """``u`` of ``J.T u = gradient``, where ``J`` is the derivative of `residual` at `solution`.

    Raises:
        FeedbackError: the derivative is not square, or singular.
    """
    import torch

    at = constant(solution)
    size = at.numel()
    jacobian = torch.autograd.functional.jacobian(residual, at)  # type: ignore[no-untyped-call]
    if jacobian.numel() != size * size:
        raise FeedbackError(
            f"the residual of {size} unknowns has {jacobian.numel() // max(size, 1)} equations; the "
            "implicit function theorem needs as many equations as unknowns"
        )
    right = fitted(at, gradient, "the solution").reshape(-1)
    try:
        found = torch.linalg.solve(jacobian.reshape(size, size).T, right)
    except RuntimeError as error:  # torch.linalg.LinAlgError is one
        raise FeedbackError(
            "the derivative of the residual is singular at the solution: the solution does not "
            "depend smoothly on the inputs there"
        ) from error
    return found.reshape(at.shape)


def devices() -> dict[str, str]:
    """The accelerators that torch finds, by device; empty where there is none.

    Raises:
        ImportError: torch is not installed.
    """
    import torch

    found = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found
