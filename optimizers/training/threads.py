"""The executor that runs examples where none is given: one daemon thread each.

A thread cannot be ended from outside. So a run that exceeds its time keeps its thread, but takes
nobody's place, is not waited for, and does not keep the interpreter from ending.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, final

__all__ = ["DaemonThreads"]


@final
class DaemonThreads(Executor):
    """Runs every call at once in a daemon thread, in a copy of the caller's context.

    >>> with DaemonThreads() as executor:
    ...     executor.submit(pow, 2, 3).result()
    8
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start the call; how many run at once is the caller's affair."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                result = context.run(fn, *args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, name="tracegraph-example", daemon=True).start()
        return future
