"""A block in which the host may not wait for the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_waiting(*, allowed: bool) -> Iterator[None]:
    """Torch raises where the host would wait for the device, unless that is `allowed`."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("default" if allowed else "error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
