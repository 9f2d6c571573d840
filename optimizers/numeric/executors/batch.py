"""What an executor is given: tensors that take the same step by the same rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

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
        return sum(p.numel() for p in self.params)


class Executor(Protocol):
    """Runs batches in place."""

    name: ClassVar[str]

    def takes(self, batch: Batch) -> bool:
        """Whether this executor can run the batch."""
        ...

    def run(self, batch: Batch) -> None:
        """Do the step."""
        ...
