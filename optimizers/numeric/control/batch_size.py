"""How many samples a step should average: the norm test (Lau, Liu and Kolar 2024, arXiv 2402.11215)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["AdaptiveBatch", "gradient_noise"]


def gradient_noise(gradients: Sequence[Sequence[Tensor]], *, each: int = 1) -> tuple[float, float]:
    """The variance of one sample's gradient, summed over coordinates, and the mean's norm squared.

    `gradients` holds one list of tensors per sample, or per group of `each` samples whose mean it
    is; the estimate of the variance is unbiased in both cases.

    >>> gradient_noise([[torch.tensor([1.0, 0.0])], [torch.tensor([3.0, 0.0])]])
    (2.0, 4.0)
    """
    if len(gradients) < 2:
        raise ValueError(f"a variance needs two gradients or more, got {len(gradients)}")
    if each < 1:
        raise ValueError(f"each={each} must be 1 or more")
    variance = norm = 0.0
    for parts in zip(*gradients, strict=True):
        stacked = torch.stack([g.detach() for g in parts]).double()
        variance += float(stacked.var(dim=0).sum())
        norm += float(stacked.mean(dim=0).square().sum())
    return each * variance, norm


class AdaptiveBatch:
    """A batch size that grows when the noise of the gradient drowns its mean.

    After a step give `update` the gradients that were averaged in it. The size becomes
    ``variance / (eta^2 norm^2)`` where that is larger, up to `limit`; it never shrinks. The same
    test says how many traces a step on anything else should average, where their feedback can be
    written as vectors.

    >>> batch = AdaptiveBatch(2, eta=0.5)
    >>> batch.update([[torch.tensor([1.0, 0.0])], [torch.tensor([1.0, 6.0])]])
    8
    """

    def __init__(self, size: int, *, eta: float = 0.2, limit: int | None = None) -> None:
        if size < 1 or (limit is not None and limit < size):
            raise ValueError(f"size={size} must be 1 or more, and limit={limit} no less than it")
        if not eta > 0:
            raise ValueError(f"eta={eta} must be more than 0")
        self.size, self.eta, self.limit = size, eta, limit

    def update(self, gradients: Sequence[Sequence[Tensor]], *, each: int = 1) -> int:
        """The size for the next step; arguments as of `gradient_noise`."""
        variance, norm = gradient_noise(gradients, each=each)
        if not math.isfinite(variance) or not math.isfinite(norm):
            return self.size
        top = self.limit if self.limit is not None else 2**31
        bound = self.eta**2 * norm
        wanted = top if variance > bound * top else math.ceil(variance / bound) if variance else 1
        self.size = max(self.size, min(wanted, top))
        return self.size

    def state_dict(self) -> dict[str, float | int | None]:
        """The size, the threshold and the limit."""
        return {"size": self.size, "eta": self.eta, "limit": self.limit}

    def load_state_dict(self, state_dict: dict[str, float | int | None]) -> None:
        """Continue from a state dict."""
        size, eta, limit = (state_dict[key] for key in ("size", "eta", "limit"))
        fresh = AdaptiveBatch(
            int(size or 0), eta=float(eta or 0), limit=None if limit is None else int(limit)
        )
        self.size, self.eta, self.limit = fresh.size, fresh.eta, fresh.limit
