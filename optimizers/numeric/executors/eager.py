"""A rule run tensor by tensor with torch operations: slow, and right for everything."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.executors.batch import Batch, Executor
from optimizers.numeric.rules.dialect import bound

__all__ = ["TORCH", "Eager"]


def _maximum(a: Tensor, b: Any) -> Tensor:
    return torch.maximum(a, b) if isinstance(b, Tensor) else a.clamp(min=b)


def _minimum(a: Tensor, b: Any) -> Tensor:
    return torch.minimum(a, b) if isinstance(b, Tensor) else a.clamp(max=b)


TORCH = {
    "sqrt": torch.sqrt,
    "absolute": torch.abs,
    "where": torch.where,
    "sign": torch.sign,
    "maximum": _maximum,
    "minimum": _minimum,
}


class Eager(Executor):
    """One tensor at a time."""

    name: ClassVar[str] = "eager"

    @override
    def takes(self, batch: Batch) -> bool:
        return True

    @override
    def run(self, batch: Batch) -> None:
        body, codec, kinds = bound(batch.rule.body, TORCH), batch.codec, batch.rule.states
        for i, (p, g) in enumerate(zip(batch.params, batch.grads, strict=True)):
            dtype = computing_dtype(p.dtype)
            parts = [tuple(part[i] for part in state) for state in batch.states]
            old = tuple(
                codec.decode(held, kind, dtype) for held, kind in zip(parts, kinds, strict=True)
            )
            scalars, scale, seed = batch.numbers(i, dtype)
            g = g.to(dtype)
            g = g if batch.rows is None and scale == 1.0 else g * scale
            new_p, new = body(p.to(dtype), g, old, scalars)
            for value, before, held, kind in zip(new, old, parts, kinds, strict=True):
                if value is not before:
                    codec.encode(value, held, kind, seed=seed)
            p.copy_(new_p)
