"""Tell whoever watches what happens: a step that starts, ends or fails, a candidate that is tried.

Whoever does something says so with `observe`, or `observed` around it, and knows nobody who
listens. Whoever listens says so with `watching`. A thread or task sees its own watchers; in one
that has none, what happens is told to the only watcher that is open anywhere in the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tracegraph.forking import new_lock

__all__ = ["Watcher", "absent", "observe", "observed", "watching"]

Watcher = Callable[[str, dict[str, Any]], object]
"""Called with what happened (``"step"``) and its facts; what it raises passes through."""

_watchers: ContextVar[tuple[Watcher, ...]] = ContextVar("tracegraph_watchers", default=())
_open: list[Watcher] = []
_lock = new_lock()
absent: list[Callable[[], Watcher | None]] = []
"""Asked for a watcher where there is none; `tracegraph` puts the automatic run here."""


def observe(kind: str, **facts: Any) -> None:
    """Say that something happened.

    >>> with watching(lambda kind, facts: print(kind, facts)):
    ...     observe("candidate", id="a1", score=0.5)
    candidate {'id': 'a1', 'score': 0.5}
    """
    for watcher in _present():
        watcher(kind, facts)


@contextmanager
def observed(kind: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """Say that something starts, and that it ended or failed; gives the facts, to be added to.

    >>> with watching(lambda kind, facts: print(kind, facts)):
    ...     with observed("step", number=1) as facts:
    ...         facts["score"] = 0.5
    step_started {'number': 1}
    step {'number': 1, 'score': 0.5}
    """
    watchers = _present()
    for watcher in watchers:
        watcher(f"{kind}_started", facts)
    try:
        yield facts
    except BaseException as error:
        for watcher in watchers:
            watcher(f"{kind}_failed", {**facts, "error": error})
        raise
    for watcher in watchers:
        watcher(kind, facts)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Let `watcher` know what happens in a block."""
    token = _watchers.set((*_watchers.get(), watcher))
    with _lock:
        _open.append(watcher)
    try:
        yield
    finally:
        with _lock:
            _open.remove(watcher)
        _watchers.reset(token)


def _present() -> tuple[Watcher, ...]:
    found = _watchers.get()
    if found:
        return found
    opened = tuple(_open)
    if opened:
        return opened if len(opened) == 1 else ()
    made = (ask() for ask in absent)
    return tuple(watcher for watcher in made if watcher is not None)
