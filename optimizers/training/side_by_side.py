"""Run calls side by side, at most so many at once, each within its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any, final

__all__ = ["SideBySide", "Stopped"]


class Stopped(Exception):
    """The training shall end, for the reason that it carries."""


@final
class SideBySide:
    """Calls under way in an executor, by their number.

    Args:
        executor: runs them.
        calls: each is a function with its arguments.
        workers: how many may be under way at once.
        limit: seconds after which a call is given up; ``None`` for no limit.
        started: called when a call was handed over.
        stop: when this is done, nothing more is waited for.
    """

    def __init__(
        self,
        executor: Executor,
        calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
        workers: int,
        limit: float | None,
        started: Callable[[], None],
        stop: Future[Any],
    ) -> None:
        self._stop = stop
        self._executor, self._workers, self._limit = executor, workers, limit
        self._started = started
        self._waiting = iter(enumerate(calls))
        self._running: dict[Future[Any], tuple[int, float]] = {}

    def done(self) -> Generator[tuple[int, Future[Any] | None], None, None]:
        """Each call's number with its future as soon as it is done; ``None`` if it was given up.

        When this is closed early, what is under way is cancelled.

        Raises:
            Stopped: it was asked to stop.
        """
        try:
            while self._fill() or self._running:
                for future, late in self._ready():
                    number, _ = self._running.pop(future)
                    yield number, None if late else future
        finally:
            for future in self._running:
                future.cancel()

    def _fill(self) -> bool:
        """Start calls while there is room; whether one was started."""
        if self._stop.done():
            raise Stopped("it was asked to stop")
        started = False
        while len(self._running) < self._workers:
            following = next(self._waiting, None)
            if following is None:
                break
            number, (function, args) = following
            self._running[self._executor.submit(function, *args)] = number, time.monotonic()
            self._started()
            started = True
        return started

    def _ready(self) -> list[tuple[Future[Any], bool]]:
        """The calls that are done, or (true) out of time and given up; waits for the first of them."""
        left = None
        if self._limit is not None:
            oldest = min(started for _, started in self._running.values())
            left = max(0.0, oldest + self._limit - time.monotonic())
        done, _ = wait([self._stop, *self._running], timeout=left, return_when=FIRST_COMPLETED)
        if self._stop in done:
            return []
        ready = [(future, False) for future in done]
        if self._limit is None:
            return ready
        now = time.monotonic()
        late = [
            future
            for future, (_, began) in self._running.items()
            if now - began >= self._limit and not future.done()
        ]
        for future in late:
            future.cancel()
        return [*ready, *((future, True) for future in late if future not in done)]
