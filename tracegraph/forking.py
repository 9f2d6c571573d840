"""Locks that a forked process finds open.

A fork copies a lock as it is: one that another thread held then would stay closed in the child for
ever, for that thread is not there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import final
from weakref import WeakSet

__all__ = ["Lock", "in_forked"]


@final
class Lock:
    """A lock for a ``with`` block. What it guards must be whole, or made anew, at every moment.

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

    def _open(self) -> None:
        self._lock = threading.Lock()


def in_forked(task: Callable[[], object]) -> None:
    """Run `task` at the start of every process that is forked from this one; where there are none, never."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=task)


_locks: WeakSet[Lock] = WeakSet()


def _open_all() -> None:
    for lock in list(_locks):
        lock._open()


in_forked(_open_all)
