"""The program of a child without walls, for systems that have none: a process, no more."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from tracegraph.sandbox import confine
from tracegraph.sandbox.frames import Channel
from tracegraph.sandbox.serve import serve

__all__ = ["main"]


def main(policy: dict[str, Any]) -> None:
    """Serve calls until the owner closes the channel, within what limits the system knows."""
    confine.expendable()
    with contextlib.suppress(confine.Unavailable):  # macOS refuses a limit on address space
        confine.rlimits(memory_bytes=policy["memory_mb"] << 20)
    with contextlib.suppress(ValueError, OSError):
        confine.limit_cpu(math.ceil(policy["cpu"]))
    serve(Channel(policy["fd"], limit=policy["max_value"]), max_output=policy["max_output"])
