"""Runs that only give a score, in an executor that knows neither the workflow nor its graph."""

from __future__ import annotations

import time
from concurrent.futures import Executor, Future, wait
from typing import Any, cast, final

from tracegraph.errors import OptimizerError
from tracegraph.kinds import show

__all__ = ["Elsewhere"]


@final
class Elsewhere:
    """Hands ``remote(values, example)`` to an executor, and looks at the clock itself.

    Args:
        executor: any that takes calls.
        remote: a function of plain values.
        timeout: seconds that one call may take; ``None`` for no limit.
        workers: how many calls may be under way.
    """

    def __init__(
        self, executor: Executor, remote: Any, timeout: float | None, workers: int
    ) -> None:
        self._executor, self._remote = executor, remote
        self._timeout, self._workers = timeout, workers

    def submit(self, values: dict[str, Any], example: Any) -> Future[Any]:
        """Start a call.

        Raises:
            OptimizerError: the executor takes none: a pool that broke, a function that cannot travel.
        """
        try:
            return self._executor.submit(cast(Any, self._remote), values, example)
        except Exception as error:
            raise OptimizerError(
                f"the executor {show(self._executor, 80)} took no call: "
                f"{type(error).__name__}: {error}"
            ) from error

    def in_time(self, future: Future[Any]) -> bool:
        """Wait for a call; false where it is not done `timeout` seconds after it was seen to run.

        An executor may let a call wait for room; that time is not the call's. Nobody waits longer for
        room than all the others run; some executors (Dask's) never say that a call runs.
        """
        if self._timeout is None:
            wait([future])
            return True
        began = time.monotonic() + self._timeout * (self._workers - 1)
        while not wait([future], self._timeout / 10).done:
            if future.running():
                began = min(began, time.monotonic())
            if time.monotonic() - began >= self._timeout:
                return False
        return True
