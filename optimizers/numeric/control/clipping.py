"""Gradient clipping by norm, as a factor that an executor applies while it reads gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["clip_factor"]


def clip_factor(grads: Sequence[Tensor], max_norm: float) -> float:
    """What to multiply gradients by so that together their l2 norm is at most `max_norm`.

    As `torch.nn.utils.clip_grad_norm_` has it: ``min(1, max_norm / (norm + 1e-6))``.

    >>> round(clip_factor([torch.tensor([3.0]), torch.tensor([4.0])], 1.0), 6)
    0.2
    """
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for g in grads:
        alike.setdefault((g.device, g.dtype), []).append(g)
    total = 0.0
    for (_, dtype), bucket in alike.items():
        wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else None
        norms = torch._foreach_norm(bucket, 2, dtype=wide)
        total += float(torch.linalg.vector_norm(torch.stack(norms), dtype=torch.float64)) ** 2
    return min(1.0, max_norm / (total**0.5 + 1e-6))
