"""An executor for async workflows: all examples are tasks of one event loop.

A task that exceeds its time is cancelled and really ends, at the ``await`` where it waits. What never
awaits blocks the loop, and the other examples with it: use threads for that.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, final

__all__ = ["EventLoop"]


@final
class EventLoop(Executor):
    """Runs coroutine functions as tasks of an event loop in a thread of its own.

    Cancelling a future cancels its task.

    >>> async def square(number):
    ...     await asyncio.sleep(0)
    ...     return number * number
    >>> with EventLoop() as executor:
    ...     executor.submit(square, 3).result()
    9
    """

    awaits = True
    """Tells the evaluator to submit coroutine functions."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="tracegraph-event-loop", daemon=True
        )
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a coroutine function as a task, in a copy of the caller's context."""
        future = _Awaited(self._loop)
        context = contextvars.copy_context()
        self._loop.call_soon_threadsafe(future.begin, lambda: fn(*args, **kwargs), context)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop the loop; tasks under way end at their next ``await``."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(_end_all(cancel_futures), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@final
class _Awaited(Future[Any]):
    """What a task comes to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None

    def begin(self, make: Callable[[], Any], context: contextvars.Context) -> None:
        """Start the task; called in the loop's thread."""
        if self.set_running_or_notify_cancel():
            self._task = self._loop.create_task(make(), context=context)
            self._task.add_done_callback(self._end)

    def cancel(self) -> bool:
        """Cancel the task, wherever it waits."""
        if super().cancel():
            return True
        if not self.done():
            self._loop.call_soon_threadsafe(self._stop)
        return False

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(task.result())


async def _end_all(cancel: bool) -> None:
    """Wait for the tasks under way, cancelled first where wanted."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if cancel:
        for task in others:
            task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
