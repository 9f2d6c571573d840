"""State stored as plain numbers: float32 (float64 for float64 parameters), or bfloat16.

bfloat16 keeps 8 bits: an average that moves by less than 1/512 of itself per step stands still when
rounded to nearest. Rounding up or down at random, with the chances that make the mean right, keeps
it moving (Gupta et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.rules.rule import State

__all__ = ["BF16", "BF16_STOCHASTIC", "FP32", "Plain", "round_stochastically"]

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


@dataclass(frozen=True, slots=True)
class Plain:
    """One tensor per state: of the computing dtype, or of `dtype` where that is given."""

    name: str
    dtype: torch.dtype | None = None
    stochastic: bool = False
    suffixes: tuple[str, ...] = ("",)

    def empty(self, like: Tensor, state: State) -> tuple[Tensor, ...]:
        """Parts that hold zero for a parameter `like`."""
        dtype = self.dtype or computing_dtype(like.dtype)
        if like.is_complex():
            dtype = _COMPLEX[computing_dtype(like.dtype)]
        return (torch.zeros_like(like, dtype=dtype, memory_format=torch.preserve_format),)

    def decode(self, parts: tuple[Tensor, ...], state: State, dtype: torch.dtype) -> Tensor:
        """The state as a tensor of `dtype`."""
        return parts[0].to(dtype)

    def encode(self, value: Tensor, parts: tuple[Tensor, ...], state: State, *, seed: Any) -> None:
        """Write `value` into `parts`."""
        if self.stochastic and parts[0].dtype == torch.bfloat16:
            value = round_stochastically(value, seed)
        parts[0].copy_(value)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 (Appleby, public domain), on 32 bits held in int64."""
    mask = 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & mask
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & mask
    return x ^ (x >> 16)


def round_stochastically(value: Tensor, seed: int | Tensor) -> Tensor:
    """`value` in bfloat16, rounded to either neighbour so that the mean is `value`.

    The random bits are a hash of the element's index and `seed`: the same in every process.

    >>> rounded = round_stochastically(torch.full((4096,), 1.001), seed=1).float()
    >>> abs(rounded.mean().item() - 1.001) < 1e-3
    True
    """
    x = value.float().contiguous()
    index = torch.arange(x.numel(), device=x.device).view(x.shape)
    low = seed & 0xFFFFFFFF
    salt = low if isinstance(low, Tensor) else torch.full((), low, device=x.device)  # never waits
    noise = _mix(index ^ _mix(salt)) & 0xFFFF
    bits = x.view(torch.int32) + noise.to(torch.int32)
    rounded = (bits & -65536).view(torch.float32)
    return torch.where(x.isfinite(), rounded, x).to(torch.bfloat16)


FP32 = Plain("fp32")
BF16 = Plain("bf16", torch.bfloat16)
BF16_STOCHASTIC = Plain("bf16-stochastic", torch.bfloat16, stochastic=True)
