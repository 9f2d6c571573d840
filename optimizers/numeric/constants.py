"""Tensors that never change, such as a transform or a code book: made once, and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

from optimizers.numeric.members import in_memory

__all__ = ["constant"]

P = ParamSpec("P")


def constant(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Keep the last 16 tensors that `make` made, as `lru_cache` does; fakes are made anew.

    A fake belongs to its mode: kept, it would turn up among real tensors, or a real one among fakes.
    """
    kept: Any = lru_cache(maxsize=16)(make)

    @wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        real = in_memory([torch.empty(0, device="cpu")])
        made: Tensor = (kept if real else make)(*args, **kwargs)
        return made

    return get
