"""What is recorded right now: on or off, how far back, who watches, and which call is open.

One ContextVar holds one immutable `Policy`, so threads and tasks never see each other's. ``None``
means the plain case, record everything, and is what the fast paths test for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, Token
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, final
from weakref import ref

from tracegraph.forking import new_lock

if TYPE_CHECKING:
    from tracegraph.node import Node

__all__ = [
    "Change",
    "Frame",
    "Horizon",
    "Policy",
    "beside",
    "current",
    "enter_frame",
    "leave",
    "recording",
    "scope",
    "stop_tracing",
    "timed",
    "under",
]

Observer = Callable[["Node[Any]"], object]


class Frame:
    """One open call of a bundle, and the nodes that were read inside it.

    In an opaque frame operations give plain values; in a traceable one they are recorded.
    """

    __slots__ = ("_began", "_facts", "captured", "first_id", "outer", "traceable")

    def __init__(self, outer: Frame | None, traceable: bool, first_id: int) -> None:
        self.captured: dict[int, Node[Any]] | None = None
        self._facts: dict[str, Any] | None = None
        self._began: float | None = None
        self.outer = outer
        self.traceable = traceable
        self.first_id = first_id

    @property
    def facts(self) -> dict[str, Any] | None:
        """What the node of the call shall keep beside its value (`Node.info`)."""
        if self._began is None:
            return self._facts
        spent = {"began": self._began, "seconds": perf_counter() - self._began}
        return spent if self._facts is None else {**self._facts, **spent}

    def keep(self, name: str, fact: Any) -> None:
        """Keep a fact of the open call beside the value that it will give."""
        self._facts = {**(self._facts or {}), name: fact}

    def read(self, node: Node[Any]) -> None:
        """Remember that the open call, and each opaque call around it, read `node`."""
        frame: Frame | None = self
        while frame is not None:
            if frame.captured is None:
                frame.captured = {}
            frame.captured[node.id] = node
            frame = frame.outer


class Horizon:
    """Keep the inputs of the last `length` nodes only, so that an endless loop stays bounded."""

    __slots__ = ("_recent", "length")

    def __init__(self, length: int) -> None:
        self.length = length
        self._recent: deque[ref[Node[Any]]] = deque()

    def add(self, node: Node[Any]) -> None:
        """Count `node`; the oldest one beyond the horizon lets go of its inputs."""
        self._recent.append(ref(node))
        if len(self._recent) > self.length:
            oldest = self._recent.popleft()()
            if oldest is not None:
                oldest.forget_inputs()


@final
class Policy:
    """What happens to an operation that runs now. Never changed: a change is a new policy.

    Attributes:
        entered: the blocks open in this frame that changed it, innermost last, each with the policy
            before.
    """

    __slots__ = ("active", "cells", "entered", "frame", "horizon", "observers", "scope")

    def __init__(
        self,
        active: bool = True,
        observers: tuple[Observer, ...] = (),
        horizon: Horizon | None = None,
        scope: str = "",
        frame: Frame | None = None,
        cells: Mapping[int, Any] | None = None,
        entered: tuple[tuple[Change, Policy | None], ...] = (),
    ) -> None:
        self.active = active
        self.observers = observers
        self.horizon = horizon
        self.scope = scope
        self.frame = frame
        self.cells = cells
        self.entered = entered

    @property
    def opaque(self) -> bool:
        """Whether an opaque call is open: operations give plain values."""
        return self.frame is not None and not self.frame.traceable

    def changed(self, **fields: Any) -> Policy:
        """The same policy with other `fields`."""
        return Policy(**{name: fields.get(name, getattr(self, name)) for name in self.__slots__})


_PLAIN = Policy()
_policy: ContextVar[Policy | None] = ContextVar("tracegraph_policy", default=None)

current = _policy.get
"""The policy in force in this thread or task; ``None`` is the plain one."""


def enter_frame(frame: Frame) -> Token[Policy | None]:
    """Open a call; give the token to `leave` in a ``finally``."""
    if timed.open:
        frame._began = perf_counter()
    now = _policy.get()
    if now is None:
        return _policy.set(Policy(frame=frame))
    return _policy.set(Policy(now.active, now.observers, now.horizon, now.scope, frame, now.cells))


leave = _policy.reset


class timed:
    """Time the calls of bundles in a block, in every thread: a run that is kept asks for it.

    The node of a call remembers when it ``began``, by `time.perf_counter`, and its ``seconds``. Calls
    inside it count as its own; each item of a generator is timed by itself.

    >>> import tracegraph as tg
    >>> with timed():
    ...     node = tg.bundle(len)("abc")
    >>> node.info["seconds"] >= 0
    True
    """

    open = 0
    """How many such blocks are open in the process."""
    _lock = new_lock()

    def __enter__(self) -> None:
        with timed._lock:
            timed.open += 1

    def __exit__(self, *_: object) -> None:
        with timed._lock:
            timed.open -= 1


class Change:
    """A reusable, re-entrant context manager that changes the policy for a block.

    A generator may leave its block after others, in another task, or never: what ends is this block.
    """

    def _changed(self, policy: Policy) -> Policy:
        raise NotImplementedError

    def _after(self, before: Policy | None) -> Policy:
        open_before = () if before is None else before.entered
        changed = self._changed(before or _PLAIN)
        return changed.changed(entered=(*open_before, (self, before)))

    def __enter__(self) -> None:
        _policy.set(self._after(_policy.get()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        now = _policy.get()
        later: list[Change] = []
        for change, before in reversed(() if now is None else now.entered):
            if change is self:
                for other in reversed(later):
                    before = other._after(before)
                _policy.set(before)
                return
            later.append(change)


@final
class stop_tracing(Change):
    """Run a block without recording: operations give nodes that remember nothing.

    It nests, and other threads and tasks keep recording. A generator that yields inside the block
    stops its caller too until it goes on, as with every context variable; one that is a bundle
    does not.

    >>> import tracegraph as tg
    >>> with tg.stop_tracing():
    ...     (tg.node(1) + 1).inputs
    {}
    """

    def _changed(self, policy: Policy) -> Policy:
        return policy.changed(active=False)


@final
class beside(Change):
    """Run a block as if the open call had not begun: what it does is recorded beside that call."""

    def _changed(self, policy: Policy) -> Policy:
        return policy.changed(frame=None if policy.frame is None else policy.frame.outer)


@final
class under(Change):
    """Run a block under a policy that is in force elsewhere, such as in the thread that asked."""

    def __init__(self, policy: Policy | None) -> None:
        self._policy = policy or _PLAIN

    def _changed(self, policy: Policy) -> Policy:
        return self._policy


@final
class recording(Change):
    """Record a block, with a bounded `horizon` or with `observers` of every node.

    Args:
        horizon: how many of the latest nodes keep their inputs; older ones become leaves, so that
            an endless loop runs in bounded memory. At least 1.
        observers: called with every node that is recorded, after it is complete. What an observer
            raises passes through.

    >>> import tracegraph as tg
    >>> seen = []
    >>> with tg.recording(observers=[seen.append]):
    ...     x = tg.node(1) + 1
    >>> seen == [x]
    True
    """

    def __init__(self, *, horizon: int | None = None, observers: Iterable[Observer] = ()) -> None:
        if horizon is not None and (type(horizon) is not int or horizon < 1):
            raise ValueError(
                f"horizon must be a whole number of at least 1, got {horizon!r}: it counts the "
                "latest nodes that keep their inputs; leave it out to keep all of them"
            )
        self._horizon = horizon
        self._observers = tuple(observers)

    def _changed(self, policy: Policy) -> Policy:
        return policy.changed(
            active=True,
            observers=policy.observers + self._observers,
            horizon=policy.horizon if self._horizon is None else Horizon(self._horizon),
        )


@final
class scope(Change):
    """Put `name` before the names of all nodes made in a block; scopes nest as ``outer/inner``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _changed(self, policy: Policy) -> Policy:
        return policy.changed(scope=f"{policy.scope}{self._name}/")
