"""What an executor is given: tensors that take the same step by the same rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from optimizers.numeric.codecs.codec import Codec
from optimizers.numeric.rules.rule import Rule

__all__ = ["Addresses", "Batch", "Executor"]


@dataclass(slots=True)
class Addresses:
    """Where a batch's parameters and states lie in memory, kept for the next step."""

    params: list[int]
    numel: list[int]
    states: list[int]

    def hold(self, params: list[Tensor], grads: list[Tensor]) -> bool:
        """Whether `params` still lie there, and `grads` are contiguous tensors like them."""
        return (
            list(map(Tensor.data_ptr, params)) == self.params
            and list(map(Tensor.numel, params)) == self.numel
            and {g.layout for g in grads} == {torch.strided}
            and {g.dtype for g in grads} == {p.dtype for p in params[:1]}
            and [g.shape for g in grads] == [p.shape for p in params]
            and all(map(Tensor.is_contiguous, grads))
            and all(map(Tensor.is_contiguous, params))
        )


@dataclass(slots=True)
class Batch:
    """Real tensors of one device and dtype, at the same step of the same param group.

    `states[k][part][i]` is the part of state `k` of tensor `i`. `scale` multiplies every gradient
    (-1 to maximize). `seed` feeds codecs that round at random.
    """

    rule: Rule
    scalars: tuple[float, ...]
    codec: Codec
    params: list[Tensor]
    grads: list[Tensor]
    states: list[list[list[Tensor]]]
    scale: float = 1.0
    seed: int = 0
    addresses: Addresses | None = None

    @property
    def elements(self) -> int:
        """How many numbers the batch updates."""
        held = self.addresses
        return sum(map(Tensor.numel, self.params)) if held is None else sum(held.numel)


class Executor(Protocol):
    """Runs batches in place."""

    name: ClassVar[str]

    def takes(self, batch: Batch) -> bool:
        """Whether this executor can run the batch."""
        ...

    def run(self, batch: Batch) -> None:
        """Do the step."""
        ...
