"""The program of a guest in WebAssembly: the confined side, over the one function that the host lends.

Each frame of ours is one request to that function, and its answer is the frame that comes back, if any.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

from tracegraph.sandbox.frames import Frame, read, write
from tracegraph.sandbox.serve import serve

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]


class Door:
    """A channel to the host, as `frames.Channel` is one over a descriptor."""

    def __init__(self, call: Callable[[bytes], bytes], *, limit: int) -> None:
        self.busy = False
        self._call, self._limit = call, limit
        self._unread = io.BytesIO()

    def send(self, kind: bytes, value: object, *, name: str = "value") -> None:
        """Send one frame, and keep what the host answers."""
        frame = b"".join(write(kind, value, limit=self._limit, name=name))
        self._unread = io.BytesIO(self._call(frame))

    def receive(self) -> Frame:
        """The next frame."""
        return read(self._take, limit=self._limit)

    def _take(self, size: int) -> bytearray:
        taken = self._unread.read(size)
        if len(taken) < size:
            self._unread = io.BytesIO(self._call(b""))
            taken += self._unread.read(size - len(taken))
        if len(taken) < size:
            raise EOFError
        return bytearray(taken)


def main(settings: dict[str, Any]) -> None:
    """Serve calls until the host has no more."""
    import _host  # a module of the guest's interpreter

    for name in settings["preload"]:
        with contextlib.suppress(ImportError):  # the code that needs it will say so
            __import__(name)
    door = Door(_host.call, limit=settings["max_value"])
    serve(door, max_output=settings["max_output"])
