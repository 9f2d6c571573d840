"""Calls of async functions and generators: the same call, opened and closed around each step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from tracegraph.calling import Call
from tracegraph.node import raise_failed
from tracegraph.recorder import Change, current, enter_frame, leave

if TYPE_CHECKING:
    from tracegraph.recorded import Bundle

__all__ = ["awaited", "mode_of"]


def mode_of(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """How a function that is not over when it returns is run; None for any other."""
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if inspect.iscoroutinefunction(inner):
        return _run_coroutine
    if inspect.isasyncgenfunction(inner):
        return _run_async_generator
    if inspect.isgeneratorfunction(inner):
        return _run_generator
    return None


class _Step:
    """A stretch of a call that is not over: it runs inside the call, and what it raises is recorded.

    The blocks in which one stretch ends, such as `stop_tracing`, are open again in the next.

    Args:
        ends: what says that the call is over; it passes through.
    """

    __slots__ = ("_call", "_ends", "_open", "_token")

    def __init__(self, call: Call, *ends: type[Exception]) -> None:
        self._call, self._ends = call, ends
        self._open: list[Change] = []

    def __enter__(self) -> None:
        self._token = enter_frame(self._call.frame)
        for change in self._open:
            change.__enter__()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        inside = current()
        self._open = [] if inside is None else [change for change, _ in inside.entered]
        leave(self._token)
        try:
            if isinstance(error, Exception) and not isinstance(error, self._ends):
                raise_failed(error, self._call.failed(error))
        finally:
            del error, traceback  # this frame is in the traceback, and would keep what is in it


def _run_coroutine(self: Bundle[Any, Any], args: Any, kwargs: Any) -> Awaitable[Any]:
    call = Call(self, args, kwargs)
    return awaited(call, call.start())


def awaited(call: Call, source: Awaitable[Any]) -> Awaitable[Any]:
    """The node of the call, once `source` has given its result."""

    async def run() -> Any:
        with _Step(call):
            result = call.plain(await source)
        return call.finished(result)

    return run()


def _run_generator(self: Bundle[Any, Any], args: Any, kwargs: Any) -> Iterator[Any]:
    call = Call(self, args, kwargs)
    source = call.start()

    def run() -> Iterator[Any]:
        step: Callable[[], Any] = functools.partial(next, source)
        inside = _Step(call, StopIteration)
        try:
            while True:
                try:
                    with inside:
                        item = call.plain(step())
                except StopIteration as end:
                    return cast(None, end.value)  # whatever the generator returned
                try:
                    sent = yield call.finished(item)
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    step = functools.partial(source.throw, thrown)
                else:
                    step = functools.partial(source.send, sent)
        finally:
            with inside:
                source.close()

    return run()


def _run_async_generator(self: Bundle[Any, Any], args: Any, kwargs: Any) -> AsyncIterator[Any]:
    call = Call(self, args, kwargs)
    source = call.start()

    async def run() -> AsyncIterator[Any]:
        step: Callable[[], Awaitable[Any]] = functools.partial(anext, source)
        inside = _Step(call, StopAsyncIteration)
        try:
            while True:
                try:
                    with inside:
                        item = call.plain(await step())
                except StopAsyncIteration:
                    return
                try:
                    sent = yield call.finished(item)
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    step = functools.partial(source.athrow, thrown)
                else:
                    step = functools.partial(source.asend, sent)
        finally:
            with inside:
                await source.aclose()

    return run()
