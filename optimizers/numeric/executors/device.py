"""Which device a kernel is launched on, and where on it lies what outlasts a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["beyond_graphs", "captures", "lent", "on"]

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
    if device.type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    with on(device):  # each GPU has a stream of its own, and torch asks that of the current GPU
        return torch.cuda.is_current_stream_capturing()


def beyond_graphs(make: Callable[[], T], device: torch.device) -> T:
    """``make()`` in a thread of its own, so that its tensors on `device` lie in no graph's memory.

    While torch warms up for a CUDA graph, what this thread allocates on a GPU is the graph's, which
    may hold nothing that outlasts a run. The other thread works on the GPU's default stream, and the
    stream that is current here goes on when that is done; the host waits for neither.

    >>> beyond_graphs(lambda: torch.ones(2), torch.device("cpu"))
    tensor([1., 1.])
    """
    with ThreadPoolExecutor(1) as other:
        made = other.submit(make).result()
    if device.type == "cuda":
        torch.cuda.current_stream(device).wait_stream(torch.cuda.default_stream(device))
    return made


def lent(tensors: Iterable[Tensor], device: torch.device) -> None:
    """Keep the memory of `tensors`, which were made on the default stream, from others until what
    the current stream does now is done, if the tensors go before that.

    >>> lent([torch.ones(2)], torch.device("cpu"))
    """
    if device.type != "cuda":
        return
    stream = torch.cuda.current_stream(device)
    if stream != torch.cuda.default_stream(device):
        for x in tensors:
            x.record_stream(stream)
