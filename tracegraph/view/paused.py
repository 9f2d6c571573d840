"""Make many values at a time without the cyclic collector looking at all of them again and again.

Pictures and pages are tuples of tuples, by the hundred thousand, and none of them is in a cycle: the
collector finds nothing, and took a third of the time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["paused_collector"]


@contextmanager
def paused_collector() -> Iterator[None]:
    """Run a block, or decorate a function that lasts seconds, while the collector rests.

    It is left as it was found. What other threads drop into cycles meanwhile is freed afterwards.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
