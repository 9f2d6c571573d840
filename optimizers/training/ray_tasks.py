"""The only door to Ray: an executor of Ray tasks that can really be ended.

Ray gives futures, and no executor that takes calls. How functions and values travel is Ray's own affair (by
pickle): use a cluster that you trust.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, final

from tracegraph.errors import MissingExtra

__all__ = ["RayTasks"]


@final
class RayTasks(Executor):
    """Runs calls as tasks of a Ray cluster; cancelling a future ends its task.

    A task counts as running as soon as it was handed over, so give `fit` no more ``workers`` than the
    cluster has room for, or a longer ``timeout``.

    Args:
        options: of every task, such as ``num_cpus=2``; see ``ray.remote``.

    Raises:
        MissingExtra: Ray is not installed.
    """

    def __init__(self, **options: Any) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtra("RayTasks needs an extra: pip install 'tracegraph[ray]'") from error
        self._ray: Any = ray
        self._options = {"max_retries": 0, **options}
        self._open: set[_Task] = set()
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a task; where no cluster was joined, Ray starts one on this machine."""
        if self._closed:
            raise RuntimeError("this executor was shut down and takes no calls any more")
        reference = self._ray.remote(**self._options)(fn).remote(*args, **kwargs)
        task = _Task(lambda: self._ray.cancel(reference, force=True))
        task.set_running_or_notify_cancel()
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        reference.future().add_done_callback(task.end)
        return task

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the cluster stays."""
        self._closed = True
        for task in list(self._open):
            if cancel_futures:
                task.cancel()
            if wait:
                task.exception()


@final
class _Task(Future[Any]):
    """What a task comes to."""

    def __init__(self, stop: Callable[[], None]) -> None:
        super().__init__()
        self._stop = stop

    def cancel(self) -> bool:
        """End the task, whatever it is doing; its future then holds Ray's error."""
        if not self.done():
            self._stop()
        return False

    def end(self, done: Future[Any]) -> None:
        """Take over the outcome; of an error in the function, the error itself."""
        error = done.exception()
        if error is None:
            self.set_result(done.result())
        else:
            cause = getattr(error, "cause", None)
            self.set_exception(cause if isinstance(cause, BaseException) else error)
