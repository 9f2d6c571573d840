"""The confined side: take a call, run it, tell what came of it.

This runs in a process whose only ways out are the pages it has and one channel. What it sends is as
trustworthy as the code it runs: that code owns the process and can forge every word.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # its getsignal takes microseconds less than signal's
import builtins
import errno
import gc
import io
import linecache
import mmap
import reprlib
import signal
import sys
import time
import types
from typing import TYPE_CHECKING, Any

from tracegraph.errors import SandboxError
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
    Line,
    read,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["OUT_OF_MEMORY", "describe", "filename", "load", "serve"]

_MAX_TEXT, _MAX_LOCALS, _MAX_LOCAL, _MAX_FRAMES = 4000, 20, 200, 12
_EAGER_FLUSHES, _FLUSH_EVERY, _CHUNK = 64, 0.005, 8192
_RESERVE = 1 << 20
_PREFIX = "<tracegraph:"
OUT_OF_MEMORY = 71  # the exit code of a child whose memory does not hold what it was sent
_REHEARSAL = "def rehearsal(x):\n    return [x]\n"
_HAS_TIMER = hasattr(signal, "setitimer")  # WebAssembly has none
_WATCH_FROM, _WATCH_EVERY = 0.8, 0.1  # shares of the time limit


def filename(entry: str) -> str:
    """The name under which a source is compiled, so that tracebacks show its lines."""
    return f"{_PREFIX}{entry}>"


def load(source: str, entry: str, given: Mapping[str, Any]) -> Callable[..., Any]:
    """Run a source, with the names `given` already there, and give its `entry`.

    Raises:
        NameError, TypeError: where it does not define one that can be called.
        BaseException: whatever the source raises.
    """
    name = filename(entry)
    lines = list(
        io.StringIO(source, newline="")
    )  # as Python counts them: str.splitlines knows ten ends
    linecache.cache[name] = (len(source), None, lines, name)
    module = types.ModuleType("__candidate__")
    module.__dict__.update(given)
    sys.modules[module.__name__] = module  # dataclasses and typing look the module up
    exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
    if entry not in module.__dict__:
        raise NameError(f"the source does not define {entry!r}")
    found = module.__dict__[entry]
    if not callable(found):
        raise TypeError(
            f"{entry!r} is a value of type {type(found).__name__}, which cannot be called"
        )
    return found  # type: ignore[no-any-return]


class Printed(io.TextIOBase):
    """A stream that sends what is printed, soon enough to be seen when the code then hangs."""

    def __init__(self, send: Callable[[str], None], *, most: int) -> None:
        self._send, self._most = send, most
        self.renew()

    def renew(self) -> None:
        """Begin a call: nothing is printed yet."""
        self._left = self._most
        self._waiting: list[str] = []
        self._size = self._flushes = 0
        self._flushed = 0.0

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Take `text`; beyond the limit it is dropped."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        kept = text[: self._left]
        self._left -= len(kept)
        self._size += len(kept)
        if kept:
            self._waiting.append(kept)
        if self._size >= _CHUNK or ("\n" in kept and self._is_due()):
            self.flush()
        return len(text)

    def _is_due(self) -> bool:
        self._flushes += 1
        return self._flushes < _EAGER_FLUSHES or time.monotonic() - self._flushed > _FLUSH_EVERY

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            text = "".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            self._flushed = time.monotonic()
            for start in range(0, len(text), _CHUNK):
                self._send(text[start : start + _CHUNK])


class _Host:
    """The functions of the host, seen from inside: each call asks and waits for the answer."""

    def __init__(self, channel: Line) -> None:
        self._channel = channel
        self.raised: list[BaseException] = []

    def stub(self, name: str) -> Callable[..., Any]:
        """A function that calls the host's `name`."""

        def ask(*args: Any, **kwargs: Any) -> Any:
            return self._ask(name, args, kwargs)

        ask.__name__ = ask.__qualname__ = name
        return ask

    def _ask(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        asked = {"name": name, "args": args, "kwargs": kwargs}
        self._channel.send(ASK, asked, name=f"the call of {name}")
        self._channel.busy = True  # the host reads nothing until it has answered
        frame = self._channel.receive()
        self._channel.busy = False
        if frame.kind == ANSWER:
            return frame.value
        if frame.kind != RAISED:
            raise SandboxError(f"the host answered with a frame of kind {frame.kind!r}")
        error = getattr(builtins, frame.value["type"], RuntimeError)(frame.value["message"])
        self.raised.append(error)  # the position tells the host which of its errors this was
        raise error


class _Server:
    """What one child keeps between calls."""

    def __init__(self, channel: Line, *, max_output: int) -> None:
        self._channel, self._max_output = channel, max_output
        self._streams = (self._printed("stdout"), self._printed("stderr"))
        self._host = _Host(channel)
        self._code: dict[str, Any] = {}
        self._function: Callable[..., Any] | None = None
        self._reserve: mmap.mmap | None = None  # room to tell of a lack of memory
        self._runs = False
        self._bell = self._tell_where  # one object, to be told from another handler
        signal.signal(signal.SIGALRM, self._bell)

    def take(self, code: dict[str, Any]) -> None:
        """Keep the code that the calls to come are for; it is loaded by the first of them."""
        self._code, self._function = code, None

    def rehearse(self) -> None:
        """Do once what every call does, so that a child which waits for its call has done it before.

        A forked process shares its memory until it writes to it: the pages that a call writes to are
        copied here instead of during the call.
        """
        self.take({"source": _REHEARSAL, "entry": "rehearsal", "host": (), "timeout": 1.0})
        kind, value, spent = self.run([1])
        self._watch(0.0)
        sent = write(kind, [value, spent], limit=0)
        read(io.BytesIO(b"".join(sent)).read, limit=0)
        linecache.cache.pop(filename("rehearsal"), None)

    def run(self, args: list[Any], kwargs: Mapping[str, Any] = {}) -> tuple[bytes, Any, int]:
        """Run one call: RESULT and its value, or FAILED and why; and its processor time in nanoseconds."""
        for stream in self._streams:
            stream.renew()
        sys.stdout, sys.stderr = self._streams
        self._host.raised.clear()
        if self._reserve is None:
            self._reserve = _addresses(_RESERVE)
        started = time.process_time_ns()
        self._watch(self._code["timeout"])
        self._runs, kind = True, RESULT
        try:
            value = self._result(args, kwargs)
            self._silence()
        except BaseException as error:  # SystemExit and KeyboardInterrupt are the code's doing too
            if self._reserve is not None:
                self._reserve.close()
                self._reserve = None
            self._silence()
            kind, value = FAILED, describe(error, self._host.raised)
        self._runs = False
        for stream in self._streams:
            stream.flush()
        return kind, value, time.process_time_ns() - started

    def _printed(self, name: str) -> Printed:
        return Printed(lambda text: self._channel.send(OUTPUT, (name, text)), most=self._max_output)

    def _result(self, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        if self._function is None:
            given = {name: self._host.stub(name) for name in self._code["host"]}
            self._function = load(self._code["source"], self._code["entry"], given)
        value = self._function(*args, **kwargs)
        if type(value) is not types.CoroutineType:
            return value
        import asyncio  # inside: takes 50 ms, and few sources are asynchronous

        return asyncio.run(value)

    def _watch(self, timeout: float) -> None:
        """From shortly before the time is up, tell now and then where the code is; 0 stops it.

        It is not stopped after each call, for the next one sets it anew: stopping takes as long.
        """
        if _HAS_TIMER:
            signal.setitimer(signal.ITIMER_REAL, timeout * _WATCH_FROM, timeout * _WATCH_EVERY)

    def _silence(self) -> None:
        """Stop a timer that the code made its own, which would ring between calls."""
        if _signal.getsignal(signal.SIGALRM) is not self._bell:
            self._watch(0.0)
            signal.signal(signal.SIGALRM, self._bell)

    def _tell_where(self, number: int, frame: types.FrameType | None) -> None:
        if not self._runs:
            self._watch(0.0)
            return
        if self._channel.busy:
            return  # in the middle of a frame; the timer rings again
        own: list[tuple[types.FrameType, int]] = []
        while frame is not None:
            if frame.f_code.co_filename.startswith(_PREFIX):
                own.insert(0, (frame, frame.f_lineno))
            frame = frame.f_back
        if own:
            self._channel.send(WHERE, _place(own))


def _addresses(size: int) -> mmap.mmap | None:
    """Addresses without memory behind them, which count against the limit until they are closed."""
    try:
        return mmap.mmap(-1, size)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        return None  # WebAssembly has no such addresses


def serve(channel: Line, *, max_output: int, rehearsed: bool = False) -> None:
    """Answer calls until the one that says it is the last, or until the host closes the channel."""
    gc.enable()
    server = _Server(channel, max_output=max_output)
    if rehearsed:
        server.rehearse()
    while True:
        try:
            frame = channel.receive()
        except EOFError:
            return
        if frame.kind == LOAD:
            server.take(frame.value)
            continue
        if frame.kind not in (CALL, LAST):
            raise SandboxError(f"expected a call, got a frame of kind {frame.kind!r}")
        kind, value, spent = server.run(*frame.value)
        try:
            channel.send(kind, [value, spent], name="the returned value")
        except SandboxError as error:
            why = SandboxError(str(error).replace("[0]", "", 1))
            channel.send(FAILED, [describe(why, ()), spent])
        if frame.kind == LAST:
            return


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = _MAX_LOCAL // 2


def _shown(value: object) -> str:
    """A short text for a value, even where its own `repr` is hostile."""
    try:
        return str(_repr.repr(value))[:_MAX_LOCAL]
    except BaseException as error:
        return f"<{type(value).__name__}; its repr raised {type(error).__name__}>"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:_MAX_TEXT]
    except BaseException as another:
        return f"<its str raised {type(another).__name__}>"


def describe(error: BaseException, raised: Sequence[BaseException]) -> dict[str, Any]:
    """An exception as data, bounded: type, message, line in the source, variables there."""
    try:
        return _described(error, raised)
    except BaseException as another:  # an exception can be as hostile as any other object
        message = f"an exception that raised {type(another).__name__} when it was looked at"
        return _NOWHERE | {"type": "Exception", "message": message}


_NOWHERE: dict[str, Any] = {
    "builtin": (),
    "args": None,
    "host": None,
    "line": None,
    "locals": {},
    "traceback": [],
}


def _described(error: BaseException, raised: Sequence[BaseException]) -> dict[str, Any]:
    kind = type(error)
    args = error.args
    if isinstance(error, OSError) and len(args) == 2 and type(error.filename) is str:
        args = (*args, error.filename)
    plain = [arg for arg in args if type(arg) in (str, int, float, bool, type(None))]
    told = _NOWHERE | {
        "type": kind.__name__[:200],
        "builtin": [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"],
        "message": _text_of(error),
        "args": [arg[:_MAX_TEXT] if type(arg) is str else arg for arg in plain],
        "host": next((at for at, one in enumerate(raised) if one is error), None),
        "line": _line_of_syntax_error(error),
    }
    if len(plain) != len(args) or len(plain) > 4:
        told["args"] = None
    own = _own_frames(error)
    return told | _place(own) if own else told


def _place(own: list[tuple[types.FrameType, int]]) -> dict[str, Any]:
    """Where the innermost of the source's own frames is, and what its variables hold."""
    frame, line = own[-1]
    return {
        "line": line,
        "locals": _locals_of(frame),
        "traceback": [[line, frame.f_code.co_name[:200]] for frame, line in own[-_MAX_FRAMES:]],
    }


def _own_frames(error: BaseException) -> list[tuple[types.FrameType, int]]:
    """The frames in the source itself, outermost first."""
    own = []
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename.startswith(_PREFIX):
            own.append((step.tb_frame, step.tb_lineno))
        step = step.tb_next
    return own


def _line_of_syntax_error(error: BaseException) -> int | None:
    ours = isinstance(error, SyntaxError) and str(error.filename).startswith(_PREFIX)
    return error.lineno if ours else None  # type: ignore[attr-defined]


def _locals_of(frame: types.FrameType) -> dict[str, str]:
    hidden = (types.ModuleType, types.FunctionType, type)
    shown: dict[str, str] = {}
    for name, value in list(frame.f_locals.items()):
        if len(shown) == _MAX_LOCALS:
            break
        if type(name) is str and not name.startswith("__") and not issubclass(type(value), hidden):
            shown[name[:_MAX_LOCAL]] = _shown(value)
    return shown
