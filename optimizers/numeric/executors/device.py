"""Which device a kernel is launched on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["on"]


def on(device: torch.device) -> AbstractContextManager[object]:
    """A block in which kernels go to `device`: Triton launches on the current GPU.

    >>> with on(torch.device("cpu")):
    ...     pass
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
