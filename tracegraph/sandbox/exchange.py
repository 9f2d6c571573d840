"""One call across the wall: what is sent, what may come back, and what is made of it.

The same for every kind of wall: a child of the zygote, a plain process, a guest in WebAssembly.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracegraph.errors import OutOfMemory, SandboxError, TimedOut
from tracegraph.sandbox.frames import (
    ANSWER,
    ASK,
    CALL,
    FAILED,
    LAST,
    LOAD,
    OUTPUT,
    RAISED,
    RESULT,
    WHERE,
    framed,
    write,
)
from tracegraph.sandbox.result import Failure, Result, failure_from, rebuilt, writable
from tracegraph.sandbox.serve import OUT_OF_MEMORY
from tracegraph.sandbox.values import pack

if TYPE_CHECKING:
    from tracegraph.sandbox.frames import Frame, Wire
    from tracegraph.sandbox.launch import Fate
    from tracegraph.sandbox.policy import Policy
    from tracegraph.sandbox.values import Buffer

__all__ = ["Call", "Exchange", "Host"]

Host = Mapping[str, Callable[..., Any]]

_MOST_NANOSECONDS = 1 << 62  # more than a hundred years
_MOST_MESSAGES, _LEAST_MESSAGE = 16, 1 << 16
_MOST_TOLD = 4000  # characters of what a host function raised
_GRACE = 0.1  # seconds that the zygote's clock is given before the host's own strikes


class Call:
    """What is the same for every item of one `call` or `map`."""

    def __init__(self, source: str, entry: str, host: Host, policy: Policy) -> None:
        for name, value in (("source", source), ("entry", entry)):
            if not isinstance(value, str):
                raise SandboxError(f"{name} must be a str, got a {type(value).__name__}")
        for name, function in host.items():
            if not (isinstance(name, str) and name.isidentifier() and callable(function)):
                raise SandboxError(f"host must map names to functions, got {name!r}: {function!r}")
        self.source, self.entry, self.host, self.policy = source, entry, dict(host), policy
        self.key = (source, entry, tuple(sorted(host)))
        self._code: list[Buffer] | None = None

    def is_of(self, source: object, entry: object) -> bool:
        """Whether it is for this code."""
        texts = type(source) is str and type(entry) is str
        return texts and source == self.source and entry == self.entry

    @property
    def code(self) -> list[Buffer]:
        """The frame that tells a new child what it is to run, written once."""
        if self._code is None:  # no cached_property: a fork leaves its lock as it is
            code = {
                "source": self.source,
                "entry": self.entry,
                "host": self.key[2],
                "timeout": self.policy.timeout,
            }
            self._code = write(LOAD, code, limit=self.policy.max_value, name="the code")
        return self._code

    def request(
        self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None, *, last: bool
    ) -> list[Buffer]:
        """The frame's buffers, so that what cannot pass is refused before anything starts.

        After the `last` call a child ends by itself.
        """
        if not isinstance(
            args, (tuple, list)
        ):  # a text, too, is a sequence, and never meant as one
            raise SandboxError(
                f"a call's arguments must be a tuple or a list, got {repr(args)[:100]}"
            )
        tree, runs = pack(list(args), name="args")
        call = [tree]
        if kwargs is not None:
            if not (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
                raise SandboxError(
                    f"keyword arguments must be a mapping of names, got {repr(kwargs)[:100]}"
                )
            named, more = pack(dict(kwargs), name="kwargs")
            call.append(named)
            runs += more
        limit = self.policy.max_value
        return framed(LAST if last else CALL, call, runs, limit=limit, name="the call")


class Exchange:
    """One call's frames, back and forth, until the reply or the end."""

    def __init__(self, channel: Wire, call: Call) -> None:
        self._channel, self._call, self._policy = channel, call, call.policy
        self._printed: dict[str, list[str]] = {}
        self._room: dict[str, int] = {}
        self._reply: tuple[bytes, Any, Any] | None = None
        self._where: dict[Any, Any] | None = None
        self._raised: list[Exception] = []
        self._asked = self._asked_bytes = 0
        self.in_host = 0.0

    def run(self, request: list[Buffer]) -> Exception | None:
        """Send the request and take frames until the reply; what went wrong on the way, or None."""
        channel = self._channel
        channel.deadline = time.monotonic() + self._policy.timeout + _GRACE
        try:
            channel.send_buffers(request)
            while self._reply is None:
                if time.monotonic() > channel.deadline:
                    raise TimeoutError
                self._take(channel.receive())
        except (TimeoutError, EOFError, ConnectionError, SandboxError) as error:
            return error
        return None

    def _take(self, frame: Frame) -> None:
        """Take one frame of the child's.

        Raises:
            SandboxError: it is none that could come now.
        """
        kind, value, size = frame
        if kind in (RESULT, FAILED) and type(value) is list and len(value) == 2:
            self._reply = (kind, *value)
        elif kind == OUTPUT:
            self._print(value)
        elif kind == ASK:
            self._answer(value, size)
        elif kind == WHERE and isinstance(value, dict):
            self._where = value
        else:
            raise SandboxError(f"the child sent a frame of kind {kind!r} that nobody expects")

    def _print(self, value: Any) -> None:
        match value:
            case (("stdout" | "stderr") as name, str(text)):
                room = self._room.get(name, self._policy.max_output)
                kept = text[:room]
                self._room[name] = room - len(kept)
                if kept:
                    self._printed.setdefault(name, []).append(kept)
            case _:
                raise SandboxError("the child sent output of no known form")

    def _output(self, name: str) -> str:
        return writable("".join(self._printed[name])) if name in self._printed else ""

    def _answer(self, value: Any, size: int) -> None:
        match value:
            case {"name": str(name), "args": tuple(args), "kwargs": dict(kwargs)}:
                function = self._call.host.get(name)
            case _:
                function = None
        if function is None or not all(isinstance(key, str) for key in kwargs):
            raise SandboxError("the child asked for a host function that it was not given")
        self._asked += 1
        if self._asked > self._policy.max_host_calls:
            raise SandboxError(
                f"the code called host functions more than {self._policy.max_host_calls} times "
                "(Policy.max_host_calls)"
            )
        self._asked_bytes += size
        most = _MOST_MESSAGES * max(self._policy.max_value, _LEAST_MESSAGE)
        if self._asked_bytes > most:  # who is asked may keep them all
            raise SandboxError(
                f"the code gave host functions more than {most:,} bytes in one call, {_MOST_MESSAGES} times "
                "the most of one message (Policy.max_value); give less at a time, or raise it"
            )
        began = time.monotonic()
        kind, answer = self._ask(function, args, kwargs)
        waited = time.monotonic() - began
        self.in_host += waited
        if self._channel.deadline is not None:
            self._channel.deadline += waited
        try:
            self._channel.send(kind, answer, name=f"what {name} returned")
        except SandboxError as error:
            self._raised.append(error)
            self._channel.send(RAISED, {"type": "TypeError", "message": str(error)})

    def _ask(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes, Any]:
        try:
            return ANSWER, function(*args, **kwargs)
        except Exception as error:  # the code may catch it; if it does not, it comes back whole
            self._raised.append(error)
            kind = type(error).__name__ if type(error).__module__ == "builtins" else "RuntimeError"
            return RAISED, {"type": kind, "message": _message(error)}

    def result(self, error: Exception | None, fate: Fate | None, seconds: float) -> Result:
        """All that is known of the call."""
        _, value, cpu = self._reply or (b"", None, None)
        failure, raised = self._judge(error, fate)
        return Result(
            value=value if raised is None else None,
            error=raised,
            failure=failure,
            stdout=self._output("stdout"),
            stderr=self._output("stderr"),
            seconds=seconds,
            cpu_seconds=_plausible(cpu)
            if fate is None or fate.cpu_seconds is None
            else fate.cpu_seconds,
            max_rss=fate.max_rss if fate else None,
        )

    def _judge(
        self, error: Exception | None, fate: Fate | None
    ) -> tuple[Failure | None, Exception | None]:
        if error is None and self._reply is not None:
            kind, told, _ = self._reply
            if kind == RESULT:
                return None, None
            failure = failure_from(told, self._call.source, self._call.entry)
            error = self._host_error(told) or rebuilt(told, failure)
            if isinstance(error, OutOfMemory):
                most = self._policy.memory_mb
                error.args = (f"{error}; the code may use {most:,} MiB (Policy.memory_mb)",)
            return failure, error
        ended = _explained(error or EOFError(), fate, self._policy)
        if self._where is None:
            return None, ended
        told = self._where | {"type": type(ended).__name__, "message": str(ended)}
        failure = failure_from(told, self._call.source, self._call.entry)
        ended.add_note(str(failure))
        return failure, ended

    def _host_error(self, told: Any) -> Exception | None:
        """The host's own exception, where the code let it pass."""
        at = told.get("host") if isinstance(told, dict) else None
        known = type(at) is int and 0 <= at < len(self._raised)
        return self._raised[at] if known and isinstance(at, int) else None


def _message(error: Exception) -> str:
    """What an exception says; one that holds what the code gave may not be shown at all."""
    try:
        return str(error)[:_MOST_TOLD]
    except Exception as another:  # a very long integer in it, for one
        return f"<its text cannot be had: {type(another).__name__}>"


def _plausible(nanoseconds: object) -> float | None:
    """A child's own word for its processor time in seconds, if it can be one."""
    if type(nanoseconds) is int and 0 <= nanoseconds < _MOST_NANOSECONDS:
        return nanoseconds / 1e9
    return None


def _explained(error: Exception, fate: Fate | None, policy: Policy) -> Exception:
    """Why a child gave no reply."""
    if isinstance(error, TimeoutError) or (fate is not None and fate.timed_out):
        return TimedOut(
            f"the code ran longer than {policy.timeout:g} s and was ended (Policy.timeout)"
        )
    if isinstance(error, SandboxError):
        return error
    if fate is None:
        return SandboxError("the sandbox ended during the call; the next call starts another")
    if fate.status == -signal.SIGXCPU:
        return TimedOut(f"the code used more than {policy.cpu:g} s of processor (Policy.cpu)")
    if fate.status == OUT_OF_MEMORY:
        return OutOfMemory(
            f"the arguments, beside the modules in Policy.preload, do not fit into "
            f"{policy.memory_mb} MiB (Policy.memory_mb)"
        )
    if fate.status < 0:
        return SandboxError(f"the code's process was ended by {_named(-fate.status)}")
    return SandboxError(
        f"the code ended its process with exit code {fate.status} and no reply; it must return or raise"
    )


def _named(number: int) -> str:
    """A signal by number and, where it is known here, name."""
    known = {one.value: one.name for one in signal.Signals}
    return f"signal {number} ({known[number]})" if number in known else f"signal {number}"
