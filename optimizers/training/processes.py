"""An executor of processes that can really be ended: cancelling a call kills its process.

A call is a function that can be imported and plain values; values travel as data, and nothing is
pickled. A process serves one call after the other; one that was killed, or died, is replaced.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, Final, final

from tracegraph.errors import OptimizerError
from tracegraph.forking import new_lock
from tracegraph.kinds import show
from tracegraph.sandbox.frames import CALL, read, write

__all__ = ["LIMIT", "Processes", "WorkerFailed", "importable", "reader"]

LIMIT: Final = 1 << 28
"""How many bytes a message between the processes may have."""


class WorkerFailed(OptimizerError, RuntimeError):
    """A call in another process raised, or the process ended before it answered."""


@final
class Processes(Executor):
    """Runs importable functions of plain values in processes of this program's Python.

    Args:
        workers: how many processes there are at most; a call beyond that waits.

    Raises:
        OptimizerError: `workers` is no whole number from 1.

    >>> import math
    >>> with Processes(1) as executor:
    ...     executor.submit(math.hypot, 3, 4).result()
    5.0
    """

    def __init__(self, workers: int = 2) -> None:
        if not isinstance(workers, int) or workers < 1:
            raise OptimizerError(f"workers must be a whole number from 1, got {workers!r}")
        self._room = threading.Semaphore(workers)
        self._idle: list[_Worker] = []
        self._lock = new_lock()
        self._closed = False
        self._calls: set[threading.Thread] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn(*args, **kwargs)`` in another process.

        Raises:
            OptimizerError: the function cannot be imported by name there.
        """
        home = importable(fn)
        future = _Killable()
        thread = threading.Thread(target=self._run, args=(future, home, args, kwargs), daemon=True)
        with self._lock:
            if self._closed:
                raise RuntimeError("this executor was shut down and takes no calls any more")
            self._calls.add(thread)
            thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the processes when all is done."""
        with self._lock:
            self._closed = True
            calls = list(self._calls)
        if wait:
            for thread in calls:
                thread.join()
        self._end_idle()

    def _run(self, future: _Killable, home: str, args: Any, kwargs: Any) -> None:
        try:
            with self._room:
                if future.set_running_or_notify_cancel():
                    self._serve(future, home, args, kwargs)
        finally:
            with self._lock:
                self._calls.discard(threading.current_thread())
                last = self._closed and not self._calls
            if last:
                self._end_idle()

    def _serve(self, future: _Killable, home: str, args: Any, kwargs: Any) -> None:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or _Worker()
        future.take(worker)
        try:
            result = worker.call(home, args, kwargs)
        except Exception as error:
            worker.end()
            future.set_exception(error)
            return
        if future.let_go():
            with self._lock:
                self._idle.append(worker)
        if isinstance(result, WorkerFailed):
            future.set_exception(result)
        else:
            future.set_result(result)

    def _end_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()


@final
class _Killable(Future[Any]):
    """A call in a process; cancelling it kills the process."""

    def __init__(self) -> None:
        super().__init__()
        self._worker: _Worker | None = None
        self._given_up = False
        self._ending = new_lock()

    def cancel(self) -> bool:
        """Take it back, or kill the process that runs it."""
        if super().cancel():
            return True
        with self._ending:
            self._given_up = True
            if self._worker is not None:
                self._worker.end()
        return False

    def take(self, worker: _Worker) -> None:
        """The process that runs it, which is killed where nobody waits any more."""
        with self._ending:
            self._worker = worker
            if self._given_up:
                worker.end()

    def let_go(self) -> bool:
        """The process has answered: it is not this call's any more. Whether it may serve others."""
        with self._ending:
            self._worker = None
            return not self._given_up


@final
class _Worker:
    """One process that answers calls."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "optimizers.training.worker", *sys.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def call(self, home: str, args: Any, kwargs: Any) -> Any:
        """What the function gave, or the `WorkerFailed` that tells what it raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            frame = write(
                CALL, (home, tuple(args), dict(kwargs)), limit=LIMIT, name="the arguments"
            )
            for part in frame:
                self._process.stdin.write(part)
            self._process.stdin.flush()
            kind, value = read(reader(self._process.stdout), limit=LIMIT).value
        except (OSError, EOFError) as error:
            code = self._process.wait()
            raise WorkerFailed(
                f"the process that ran {home} ended with code {code} before it answered"
            ) from error
        return value if kind == "returned" else WorkerFailed(f"{home} raised {value}")

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not sent yet has no reader any more
                    pipe.close()


def importable(function: Any) -> str:
    """The name by which another process can import a function: ``module:qualified.name``.

    Raises:
        OptimizerError: it has none.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not callable(function) or not module or "<" in name or module == "__main__":
        raise OptimizerError(
            f"another process cannot import {show(function, 80)}: give a function that is defined "
            "at the top of a module, not in a script, in another function, or by lambda"
        )
    return f"{module}:{name}"


def reader(pipe: Any) -> Callable[[int], bytearray]:
    """Takes so many bytes from a pipe; EOFError where it closes before."""

    def take(size: int) -> bytearray:
        found = bytearray()
        while len(found) < size:
            part = pipe.read(size - len(found))
            if not part:
                raise EOFError("the other process closed its end")
            found += part
        return found

    return take
