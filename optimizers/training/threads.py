"""The executor that runs examples where none is given: one daemon thread each.

A thread cannot be ended from outside. So a run that exceeds its time keeps its thread, but takes
nobody's place, is not waited for, and does not keep the interpreter from ending. How many such
threads there may be is bounded; what shall really end must run in another process (`Processes`), in
the sandbox, or await (`EventLoop`).
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, final

from tracegraph.errors import OptimizerError

__all__ = ["DaemonThreads", "TooManyLost"]


class TooManyLost(OptimizerError, RuntimeError):
    """Too many runs exceeded their time in threads, which cannot be ended."""


@final
class DaemonThreads(Executor):
    """Runs every call at once in a daemon thread, in a copy of the caller's context.

    Args:
        lost: how many threads may go on after their call was given up (cancelled). With more, no
            call is taken any more: each of them still uses the processor and whatever it pays for.

    >>> with DaemonThreads() as executor:
    ...     executor.submit(pow, 2, 3).result()
    8
    """

    def __init__(self, lost: int = 32) -> None:
        self.lost = lost
        self._given_up: list[threading.Thread] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start the call; how many run at once is the caller's affair.

        Raises:
            TooManyLost: too many threads of calls that were given up are still running.
        """
        for thread in [thread for thread in self._given_up if not thread.is_alive()]:
            with suppress(ValueError):  # another thread may have been faster
                self._given_up.remove(thread)
        if len(self._given_up) >= self.lost:
            raise TooManyLost(
                f"{len(self._given_up)} runs exceeded their time and go on in threads, which cannot "
                "be ended from outside; give the workflow a time limit of its own, or run it where "
                "it can be ended: fit(..., remote=function, executor=Processes(4))"
            )
        context = contextvars.copy_context()

        def run() -> None:
            try:
                result = context.run(fn, *args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        thread = threading.Thread(target=run, name="tracegraph-example", daemon=True)
        future = _Call(thread, self._given_up)
        future.set_running_or_notify_cancel()
        thread.start()
        return future


@final
class _Call(Future[Any]):
    """A call in a thread; when it is given up, its thread is counted as lost."""

    def __init__(self, thread: threading.Thread, given_up: list[threading.Thread]) -> None:
        super().__init__()
        self._thread, self._lost = thread, given_up

    def cancel(self) -> bool:
        """Give the call up; it cannot be ended, so this is false."""
        if not self.done():
            self._lost.append(self._thread)
        return False
