"""The diagonal of the Gauss-Newton matrix from labels that the model draws itself.

Gauss-Newton-Bartlett (Liu et al. 2023, Sophia): by Bartlett's identity the square of the gradient
on sampled labels, times the number of samples, is that diagonal on average.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["gauss_newton_diagonal", "sampled_loss"]


def sampled_loss(logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """The mean cross-entropy of `logits` (..., classes) on labels drawn from them.

    >>> sampled_loss(torch.tensor([[0.0, 100.0]])).item()
    0.0
    """
    if logits.ndim < 2 or not logits.numel():
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}; a batch of them by classes is needed"
        )
    flat = logits.reshape(-1, logits.shape[-1])
    with torch.no_grad():
        chances = flat.softmax(dim=-1, dtype=torch.float32)
        labels = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return torch.nn.functional.cross_entropy(flat, labels)


def gauss_newton_diagonal(
    logits: Tensor, params: Sequence[Tensor], *, generator: torch.Generator | None = None
) -> list[Tensor]:
    """An unbiased estimate of the Gauss-Newton diagonal of the mean cross-entropy; keeps the graph.

    >>> w = torch.zeros(2, requires_grad=True)
    >>> gauss_newton_diagonal(w.expand(1, 2), [w])
    [tensor([0.2500, 0.2500])]
    """
    with torch.enable_grad():
        loss = sampled_loss(logits, generator=generator)
        grads = torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True)
    count = logits.numel() // logits.shape[-1]
    return [count * g * g for g in grads]
