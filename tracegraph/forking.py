"""What a process that is forked from this one finds: locks that are open, and nothing half done.

A fork copies a lock as it is: one that another thread held then would stay closed in the child for
ever, for that thread is not there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, final
from weakref import WeakSet

__all__ = ["Lock", "in_forked", "still_at_fork"]


@final
class Lock:
    """A lock for a ``with`` block, which a forked process finds open, as does a copy of its owner.

    A thread that is not there may have been in the middle of the block: what the lock guards is whole
    after every statement in it, or makes no difference to another process.

    >>> lock = Lock()
    >>> with lock:
    ...     pass
    """

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __deepcopy__(self, memo: dict[int, Any]) -> Lock:
        return Lock()

    def _open(self) -> None:
        self._lock = threading.Lock()


def in_forked(task: Callable[[], object]) -> None:
    """Run `task` at the start of every process that is forked from this one."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=task)


def still_at_fork(lock: Any) -> None:
    """Let nothing be forked while `lock`, which is never held for long, is held by another thread."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )


_locks: WeakSet[Lock] = WeakSet()


@in_forked
def _open_all() -> None:
    for lock in list(_locks):
        lock._open()
