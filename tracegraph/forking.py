"""What a process that is forked from this one finds: locks that are open, and nothing half done.

A fork copies a lock as it is: one that another thread held then would stay closed in the child for
ever, for that thread is not there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

__all__ = ["in_forked", "new_lock", "still_at_fork"]


def new_lock() -> threading.Lock:
    """A lock that a forked process finds open, whoever held it in its parent.

    A thread that is not there may have been in the middle of what it guards: that is whole after every
    statement, or makes no difference to another process.

    >>> lock = new_lock()
    >>> with lock:
    ...     lock.locked()
    True
    """
    made = threading.Lock()
    _locks.add(made)
    return made


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


_locks: WeakSet[Any] = WeakSet()


@in_forked
def _open_all() -> None:
    for lock in list(_locks):
        if lock.locked():  # by a thread that is not here
            lock.release()
