"""Gradient clipping by norm, as a factor that an executor applies while it reads gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["clip_factor", "clip_scale"]


def clip_factor(grads: Sequence[Tensor], max_norm: float) -> float:
    """What to multiply gradients by so that together their l2 norm is at most `max_norm`.

    As `torch.nn.utils.clip_grad_norm_` has it: ``min(1, max_norm / (norm + 1e-6))``.

    >>> round(clip_factor([torch.tensor([3.0]), torch.tensor([4.0])], 1.0), 6)
    0.2
    """
    total = sum(float(norm) ** 2 for norm in _norms(grads))
    return min(1.0, max_norm / (total**0.5 + 1e-6))


def clip_scale(grads: Sequence[Tensor], max_norm: float, *, by: Tensor | None = None) -> Tensor:
    """The factor as a float64 number on the device of the gradients, which nothing waits for.

    `by` is what the gradients were multiplied by, which their norm does not count.

    >>> clip_scale([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
    tensor(0.2000, dtype=torch.float64)
    """
    norm = torch.linalg.vector_norm(torch.stack([x.to(grads[0].device) for x in _norms(grads)]))
    norm = norm if by is None else norm / by
    return (max_norm / (norm + 1e-6)).clamp(max=1.0)


def _norms(grads: Sequence[Tensor]) -> list[Tensor]:
    """The l2 norm of the gradients of each device and dtype, in float64."""
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for g in grads:
        alike.setdefault((g.device, g.dtype), []).append(g)
    norms = []
    for (_, dtype), bucket in alike.items():
        wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else None
        each = torch._foreach_norm(bucket, 2, dtype=wide)
        norms.append(torch.linalg.vector_norm(torch.stack(each), dtype=torch.float64))
    return norms
