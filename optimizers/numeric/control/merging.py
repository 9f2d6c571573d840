"""Several losses, one step: the shortest convex combination of their gradients.

Multiple-gradient descent (Desideri 2012; Sener & Koltun 2018). The min-norm point is found exactly
by Wolfe's algorithm (Wolfe 1976) on the matrix of inner products.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["merge_gradients", "min_norm_weights"]


def min_norm_weights(gram: Tensor) -> Tensor:
    """The weights, not negative and of sum 1, that make ``w^T gram w`` smallest; in float64.

    `gram` holds the inner products of the vectors to be combined.

    >>> min_norm_weights(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    tensor([0.8000, 0.2000], dtype=torch.float64)
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not len(gram):
        raise ValueError(f"inner products have shape {tuple(gram.shape)}; it must be square")
    if not bool(gram.isfinite().all()):
        raise ValueError("inner products of gradients hold NaN or infinity; lower the rate")
    gram = gram.detach().double().cpu()
    count = len(gram)
    tolerance = 1e-12 * float(gram.diagonal().max())
    weights = torch.zeros(count, dtype=torch.float64, device="cpu")
    first = int(gram.diagonal().argmin())
    weights[first] = 1.0
    corral = [first]
    for _ in range(50 * count):
        products = gram @ weights
        entering = int(products.argmin())
        if entering in corral or products[entering] >= weights @ products - tolerance:
            break
        corral.append(entering)
        _to_affine_minimum(gram, weights, corral)
    return weights / weights.sum()


def _to_affine_minimum(gram: Tensor, weights: Tensor, corral: list[int]) -> None:
    """Move the weights to the minimum over the hull of the corral, dropping whom it leaves out."""
    while True:
        k = len(corral)
        system = torch.ones(k + 1, k + 1, dtype=torch.float64, device="cpu")
        system[0, 0] = 0.0
        system[1:, 1:] = gram[corral][:, corral]
        right = torch.zeros(k + 1, dtype=torch.float64, device="cpu")
        right[0] = 1.0
        wanted = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution[1:, 0]
        now = weights[corral]
        falling = (wanted <= 1e-14) & (now > wanted)
        if not bool(falling.any()):
            weights[corral] = wanted.clamp(min=0.0)
            return
        shares = torch.where(falling, now / (now - wanted), torch.inf)
        leaving = int(shares.argmin())
        weights[corral] = (now + shares[leaving].clamp(max=1.0) * (wanted - now)).clamp(min=0.0)
        weights[corral[leaving]] = 0.0
        del corral[leaving]
        if not corral:
            raise ArithmeticError("the min-norm point was lost; the inner products contradict")


def merge_gradients(losses: Sequence[Tensor], params: Sequence[Tensor]) -> Tensor:
    """Write to every `.grad` the shortest convex combination of the losses' gradients.

    A small step against it lowers every loss, by at least its norm squared each; where it is zero
    no direction lowers all. Returns the weights. Replaces what was in `.grad`.

    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> merge_gradients([w[0], 2 * w[1]], [w])
    tensor([0.8000, 0.2000], dtype=torch.float64)
    >>> w.grad
    tensor([0.8000, 0.4000])
    """
    if not losses:
        raise ValueError("merge_gradients got no losses")
    rows = [
        torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True)
        for loss in losses
    ]
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device="cpu")
    for parts in zip(*rows, strict=True):
        flat = torch.stack([torch.view_as_real(g) if g.is_complex() else g for g in parts])
        flat = flat.reshape(len(rows), -1).double()
        gram += (flat @ flat.mT).cpu()
    weights = min_norm_weights(gram)
    for p, parts in zip(params, zip(*rows, strict=True), strict=True):
        merged = torch.zeros_like(p)
        for weight, g in zip(weights.tolist(), parts, strict=True):
            merged.add_(g, alpha=weight)
        p.grad = merged
    return weights
