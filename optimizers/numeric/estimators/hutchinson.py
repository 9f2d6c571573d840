"""The diagonal of a Hessian by random signs (Hutchinson 1990; Bekas et al. 2007)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["hessian_diagonal", "rademacher_like"]


def rademacher_like(p: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A tensor like `p` of independent signs, +1 or -1 with equal chance.

    >>> z = rademacher_like(torch.zeros(1000), torch.Generator().manual_seed(0))
    >>> sorted(set(z.tolist())), abs(z.mean().item()) < 0.1
    ([-1.0, 1.0], True)
    """
    bits = torch.randint(0, 2, p.shape, device=p.device, generator=generator)
    return (2 * bits - 1).to(p.dtype)


def hessian_diagonal(
    loss: Tensor | None,
    params: Sequence[Tensor],
    *,
    grads: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """An unbiased estimate ``z * (H z)`` of the diagonal of the Hessian of `loss`.

    Gradients that were taken with ``create_graph=True`` can be given as `grads` instead of a loss.
    Exact where the Hessian is diagonal.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hessian_diagonal((w**3).sum(), [w])
    [tensor([ 6., 12.])]
    """
    with torch.enable_grad():
        if grads is None:
            if loss is None:
                raise ValueError("hessian_diagonal needs a loss, or gradients that have a graph")
            grads = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
        zs = [rademacher_like(p, generator) for p in params]
        pairs = [(g, z) for g, z in zip(grads, zs, strict=True) if g.requires_grad]
        if not pairs:
            return [torch.zeros_like(p) for p in params]
        products = torch.autograd.grad(
            [g for g, _ in pairs],
            params,
            grad_outputs=[z for _, z in pairs],
            retain_graph=True,
            materialize_grads=True,
        )
    return [(z * hz).detach() for z, hz in zip(zs, products, strict=True)]
