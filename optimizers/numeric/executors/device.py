"""Which device a kernel is launched on, and where on it lies what outlasts a graph."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch

__all__ = ["beyond_graphs", "captures", "on"]

T = TypeVar("T")


def on(device: torch.device) -> AbstractContextManager[object]:
    """A block in which kernels go to `device`: Triton launches on the current GPU.

    >>> with on(torch.device("cpu")):
    ...     pass
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def captures(device: torch.device) -> bool:
    """Whether a CUDA graph records what is launched on `device` now.

    >>> captures(torch.device("cpu"))
    False
    """
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def beyond_graphs(make: Callable[[], T]) -> T:
    """``make()`` in a thread of its own, so that its tensors lie in no graph's memory.

    While torch warms up for a CUDA graph, what this thread allocates on a GPU is the graph's, which
    may hold nothing that outlasts a run.

    >>> beyond_graphs(lambda: torch.ones(2))
    tensor([1., 1.])
    """
    with ThreadPoolExecutor(1) as other:
        return other.submit(make).result()
