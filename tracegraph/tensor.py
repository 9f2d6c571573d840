"""The only door to torch: gradients through torch's own engine.

The tensors that nodes hold are the user's own, so torch knows how they were made. One engine call
carries all gradients of a walk to the parameters' tensors and adds them to their ``.grad``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tracegraph.node import Node
from tracegraph.parameter import Parameter

__all__ = ["devices", "differentiate"]


def differentiate(
    seeds: Iterable[tuple[Node[Any], Any]],
    parameters: Iterable[Parameter[Any]],
    create_graph: bool = False,
) -> dict[Parameter[Any], Any]:
    """Run torch's engine once, from all `seeds` to the tensors of `parameters`.

    Each gradient is added to the tensor's ``.grad``, as ``torch.autograd.backward`` does.

    Returns:
        What this call added, by parameter; parameters that no seed depends on are left out.
    """
    import torch

    roots, grads = [], []
    for seed, value in seeds:
        tensor = seed._data
        if not tensor.requires_grad:
            continue
        grad = torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)
        roots.append(tensor)
        grads.append(grad.expand_as(tensor))
    leaves = {p: p._data for p in parameters if isinstance(p._data, torch.Tensor)}
    leaves = {p: t for p, t in leaves.items() if t.requires_grad}
    if not roots or not leaves:
        return {}
    found = torch.autograd.grad(
        roots, list(leaves.values()), grads, allow_unused=True, create_graph=create_graph,
        retain_graph=True,
    )  # fmt: skip
    added = {}
    for (parameter, tensor), grad in zip(leaves.items(), found, strict=True):
        if grad is not None:
            tensor.grad = grad if tensor.grad is None else tensor.grad + grad
            added[parameter] = grad
    return added


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
