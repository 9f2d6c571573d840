"""What a codec is: storage for one state tensor, and the way there and back."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from optimizers.numeric.rules.rule import State

__all__ = ["Codec", "computing_dtype"]


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a rule computes for parameters of `dtype`: float32 at the least.

    >>> computing_dtype(torch.bfloat16), computing_dtype(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32


class Codec(Protocol):
    """Stores one state tensor in one or several tensors, its parts.

    `suffixes` names the parts in a state dict: the first is "", so that the main part has the
    state's own name.
    """

    @property
    def name(self) -> str:
        """What `state=` calls it."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What is added to a state's name for each part."""
        ...

    def empty(self, like: Tensor, state: State) -> tuple[Tensor, ...]:
        """Parts that hold zero for a parameter `like`."""
        ...

    def decode(self, parts: tuple[Tensor, ...], state: State, dtype: torch.dtype) -> Tensor:
        """The state as a tensor of `dtype`, shaped like the main part."""
        ...

    def encode(self, value: Tensor, parts: tuple[Tensor, ...], state: State, *, seed: Any) -> None:
        """Write `value` into `parts`; `seed` feeds what is random in it."""
        ...
