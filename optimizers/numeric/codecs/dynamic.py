"""State in one byte per element by a dynamic tree map, the map of bitsandbytes.

Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization": blocks of 256 with a float32
scale; codes 10^(i-6) times a linear fraction, finer near zero. The maps are closed formulas here
and agree with the library's tables, so states can be exchanged. One deviation: a positive second
moment is never stored as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import floor, log2
from typing import Any

import torch
from torch import Tensor

from optimizers.numeric.constants import constant
from optimizers.numeric.rules.rule import State

__all__ = ["BLOCK", "DYNAMIC", "Dynamic", "code_book"]

BLOCK = 256


def _fraction(u: float, i: int) -> float:
    return 0.1 + 0.9 * ((u + 0.5) / float(1 << i) - 1)


def _signed(code: int) -> float:
    u = code - 127
    if u == 0:
        return 0.0
    if abs(u) == 128:
        return 1.0
    i = floor(log2(abs(u)))
    return (1 if u > 0 else -1) * 10.0 ** (i - 6) * _fraction(abs(u), i)


def _unsigned(code: int) -> float:
    if code == 0:
        return 0.0
    if code == 255:
        return 1.0
    w = code + 1
    i = floor(log2(w))
    return 10.0 ** (i - 7) * _fraction(w, i)


@lru_cache(maxsize=2)
def code_book(signed: bool) -> tuple[float, ...]:
    """The 256 values of the map, ascending, from -1 or 0 to 1.

    >>> book = code_book(True)
    >>> book[127], book[255], len(book)
    (0.0, 1.0, 256)
    """
    return tuple((_signed if signed else _unsigned)(code) for code in range(256))


@constant
def _table(signed: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(code_book(signed), device=device, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Dynamic:
    """Codes of one byte in the shape of the parameter, and a float32 scale per 256 elements."""

    name: str = "8bit-dynamic"
    suffixes: tuple[str, ...] = ("", "_absmax")

    def empty(self, like: Tensor, state: State) -> tuple[Tensor, ...]:
        """Parts that hold zero for a parameter `like`."""
        codes = torch.zeros(like.shape, dtype=torch.uint8, device=like.device)
        if state.signed:
            codes.fill_(127)
        blocks = -(-like.numel() // BLOCK)
        return codes, torch.zeros(blocks, dtype=torch.float32, device=like.device)

    def decode(self, parts: tuple[Tensor, ...], state: State, dtype: torch.dtype) -> Tensor:
        """The state as a tensor of `dtype`."""
        codes, scales = parts
        x = _table(state.signed, codes.device, dtype)[codes.reshape(-1).long()]
        scale = scales.to(dtype).repeat_interleave(BLOCK)[: x.numel()]
        return (x * scale).view(codes.shape)

    def encode(self, value: Tensor, parts: tuple[Tensor, ...], state: State, *, seed: Any) -> None:
        """Write `value` into `parts`."""
        codes, scales = parts
        flat = value.reshape(-1)
        room = scales.numel() * BLOCK - flat.numel()
        blocks = torch.nn.functional.pad(flat, (0, room)).view(-1, BLOCK)
        top = blocks.abs().amax(dim=1).to(torch.float32)
        scale = top.to(value.dtype).unsqueeze(1)
        x = torch.where(scale > 0, blocks / scale, 0.0)
        table = _table(state.signed, value.device, value.dtype)
        edges = (table[1:] + table[:-1]) / 2
        code = torch.bucketize(x.contiguous(), edges)
        if not state.signed:
            code = torch.where((blocks > 0) & (code < 1), 1, code)
        codes.copy_(code.view(-1)[: flat.numel()].view(codes.shape))
        scales.copy_(top)


DYNAMIC = Dynamic()
