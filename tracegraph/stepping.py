"""Calls of async functions and generators: the same call, opened and closed around each step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import Token
from typing import TYPE_CHECKING, Any, cast

from tracegraph.calling import Call
from tracegraph.node import raise_failed
from tracegraph.recorder import Policy, enter_frame, leave

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


def _run_coroutine(self: Bundle[Any, Any], args: Any, kwargs: Any) -> Awaitable[Any]:
    call = Call(self, args, kwargs)
    return awaited(call, call.start())


def awaited(call: Call, source: Awaitable[Any]) -> Awaitable[Any]:
    """The node of the call, once `source` has given its result."""

    async def run() -> Any:
        token: Token[Policy | None] | None = enter_frame(call.frame)
        try:
            result = call.plain(await source)
        except Exception as error:
            leave(cast(Any, token))
            token = None
            raise_failed(error, call.failed(error))
        finally:
            if token is not None:
                leave(token)
        return call.finished(result)

    return run()


def _run_generator(self: Bundle[Any, Any], args: Any, kwargs: Any) -> Iterator[Any]:
    call = Call(self, args, kwargs)
    source = call.start()

    def run() -> Iterator[Any]:
        step: Callable[[], Any] = functools.partial(next, source)
        try:
            while True:
                token: Token[Policy | None] | None = enter_frame(call.frame)
                try:
                    item = call.plain(step())
                except StopIteration as end:
                    return cast(None, end.value)  # whatever the generator returned
                except Exception as error:
                    leave(cast(Any, token))
                    token = None
                    raise_failed(error, call.failed(error))
                finally:
                    if token is not None:
                        leave(token)
                try:
                    sent = yield call.finished(item)
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    step = functools.partial(source.throw, thrown)
                else:
                    step = functools.partial(source.send, sent)
        finally:
            source.close()

    return run()


def _run_async_generator(self: Bundle[Any, Any], args: Any, kwargs: Any) -> AsyncIterator[Any]:
    call = Call(self, args, kwargs)
    source = call.start()

    async def run() -> AsyncIterator[Any]:
        step: Callable[[], Awaitable[Any]] = functools.partial(anext, source)
        try:
            while True:
                token: Token[Policy | None] | None = enter_frame(call.frame)
                try:
                    item = call.plain(await step())
                except StopAsyncIteration:
                    return
                except Exception as error:
                    leave(cast(Any, token))
                    token = None
                    raise_failed(error, call.failed(error))
                finally:
                    if token is not None:
                        leave(token)
                try:
                    sent = yield call.finished(item)
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    step = functools.partial(source.athrow, thrown)
                else:
                    step = functools.partial(source.asend, sent)
        finally:
            await source.aclose()

    return run()
