"""Random directions that are drawn again from their numbers instead of being kept."""

from __future__ import annotations

import torch
from numpy.random import SeedSequence
from torch import Tensor

__all__ = ["direction_like"]


def direction_like(p: Tensor, *numbers: int) -> Tensor:
    """A normal tensor like `p` that follows from `numbers` (seed, step, sample, tensor).

    >>> p = torch.zeros(3)
    >>> bool((direction_like(p, 0, 1) == direction_like(p, 0, 1)).all())
    True
    >>> bool((direction_like(p, 0, 1) == direction_like(p, 1, 0)).any())
    False
    """
    seed = int(SeedSequence(numbers).generate_state(1)[0])
    generator = torch.Generator(device=p.device).manual_seed(seed)
    wide = torch.float64 if p.dtype == torch.float64 else torch.float32
    return torch.randn(p.shape, generator=generator, dtype=wide, device=p.device)
