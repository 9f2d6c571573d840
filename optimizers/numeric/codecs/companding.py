"""State in one byte per element: companding by groups of 32, each with a half-precision scale.

Signed values are stored as ``2x / (1 + |x|)`` of the group's normalised value, a second moment as
its square root (FlashOptim, Databricks 2026). 1.06 bytes per element of a state. A positive
second moment is never stored as zero: its lowest code is 1, or the direction ``m / sqrt(v)`` would
explode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimizers.numeric.rules.rule import State

__all__ = ["COMPANDING", "GROUP", "Companding"]

GROUP = 32
_SMALLEST = 2.0**-24  # the smallest positive half
_LARGEST = 65504.0


def _reciprocal(of: int, like: Tensor) -> Tensor:
    """1 / `of` as the kernels have it: rounded to the dtype in which they multiply by it."""
    return 1 / torch.tensor(of, dtype=like.dtype, device=like.device)


@dataclass(frozen=True, slots=True)
class Companding:
    """Codes of one byte in the shape of the parameter, and a half scale per 32 elements.

    Scales are kept as a square root, so that second moments down to 4e-15 and up to 4e9 have one.
    """

    name: str = "8bit"
    suffixes: tuple[str, ...] = ("", "_scale")

    def empty(self, like: Tensor, state: State) -> tuple[Tensor, ...]:
        """Parts that hold zero for a parameter `like`."""
        codes = torch.zeros(like.shape, dtype=torch.uint8, device=like.device)
        if state.signed:
            codes.fill_(128)
        groups = -(-like.numel() // GROUP)
        return codes, torch.zeros(groups, dtype=torch.float16, device=like.device)

    def decode(self, parts: tuple[Tensor, ...], state: State, dtype: torch.dtype) -> Tensor:
        """The state as a tensor of `dtype`."""
        codes, scales = parts
        x = codes.reshape(-1).to(dtype)
        scale = scales.to(dtype).repeat_interleave(GROUP)[: x.numel()]
        if state.signed:
            y = (x - 128) * _reciprocal(127, x)
            x = y / (2 - y.abs())
        else:
            x = (x * _reciprocal(255, x)).square()
        return (x * scale.square()).view(codes.shape)

    def encode(self, value: Tensor, parts: tuple[Tensor, ...], state: State, *, seed: Any) -> None:
        """Write `value` into `parts`."""
        codes, scales = parts
        flat = value.reshape(-1)
        room = scales.numel() * GROUP - flat.numel()
        groups = torch.nn.functional.pad(flat, (0, room)).view(-1, GROUP)
        top = groups.abs().amax(dim=1)
        root = torch.where(top > 0, top.sqrt().clamp(_SMALLEST, _LARGEST), 0.0).to(torch.float16)
        scale = root.to(value.dtype).square().unsqueeze(1)
        x = groups * torch.where(scale > 0, 1 / scale, 0.0)
        if state.signed:
            x = x.clamp(-1, 1)
            code = (2 * x / (1 + x.abs()) * 127).round() + 128
        else:
            code = (x.clamp(0, 1).sqrt() * 255).round()
            code = torch.where((groups > 0) & (code < 1), 1.0, code)
        codes.copy_(code.view(-1)[: flat.numel()].view(codes.shape))
        scales.copy_(root)


COMPANDING = Companding()
