"""What a parameter holds: a value that is swapped whole, and the feedback that arrived for it.

Threads share it. Whoever reads sees one value, or the next one whole; of two changes neither is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

from tracegraph.forking import still_at_fork

if TYPE_CHECKING:
    from tracegraph.node import Node

__all__ = ["Cell", "Origin", "Received", "Value", "begin_all"]

Origin = Literal["person", "optimizer"]
"""Who wrote a value. What an optimizer wrote is not trusted to run until someone says so."""

_changing = threading.RLock()
"""Held for the moment of a change, so that none is made upon a value that is gone; no code of users
runs then."""
still_at_fork(_changing)


@dataclass(frozen=True, slots=True)
class Received:
    """One delivery of feedback: the merged message, and the outputs that it came from."""

    message: Any
    outputs: Mapping[int, Node[Any]]
    version: int


class Value:
    """One value that a parameter has had, as it was written.

    Nothing of it changes, so whoever has read it has data, version and trust that belong together.
    """

    __slots__ = ("data", "leaf", "lifted", "origin", "trusted", "version")

    def __init__(self, data: Any, version: int, origin: Origin, trusted: bool) -> None:
        self.data = data
        self.version = version
        self.origin = origin
        self.trusted = trusted
        self.leaf: ref[Node[Any]] | None = None  # weak: the leaf knows its parameter
        self.lifted: Any = None  # a number's leaf of torch's record


class Cell:
    """What a parameter holds now, and the feedback that arrived for it."""

    __slots__ = ("now", "received")

    def __init__(
        self,
        data: Any,
        version: int = 0,
        origin: Origin = "person",
        *,
        trusted: bool = True,
    ) -> None:
        self.now = Value(data, version, origin, trusted)
        self.received: dict[type, Received] = {}

    def begin(self, data: Any, origin: Origin, trusted: bool) -> None:
        """Begin a new version; a thread sees the one before, or this one whole."""
        with _changing:
            self.now = Value(data, self.now.version + 1, origin, trusted)

    def bump(self) -> None:
        """Begin a new version of the same value: it was changed in place."""
        with _changing:
            now = self.now
            self.now = Value(now.data, now.version + 1, now.origin, now.trusted)

    def change(self, **facts: Any) -> Value:
        """Say otherwise what is known of the version that is held: its data, origin or trust."""
        with _changing:
            now = self.now
            known = {name: getattr(now, name) for name in ("data", "version", "origin", "trusted")}
            self.now = Value(**{**known, **facts})
            return self.now

    def trust(self) -> Value:
        """The value that is held now, which may run in place."""
        now = self.now
        return now if now.trusted else self.change(trusted=True)

    def receive(self, message: Any, outputs: Mapping[int, Node[Any]], version: int) -> bool:
        """Take in feedback about `version`, merged with what has arrived of its type.

        Gives False, and takes nothing, where a newer version has begun.
        """
        kind = type(message)
        while True:
            held = self.received
            received = {k: got for k, got in held.items() if got.version == version}
            before = received.get(kind)
            if before is None:
                received[kind] = Received(message, outputs, version)
            else:
                both = before.message.merge(message)
                received[kind] = Received(both, {**before.outputs, **outputs}, version)
            with _changing:
                if self.now.version != version:
                    return False
                if self.received is held:  # else another thread was faster: merge with that, too
                    self.received = received
                    return True

    def forget(self, heard: Mapping[type, Received] | None = None) -> None:
        """Forget the feedback that has arrived, or that part of it which was `heard`."""
        with _changing:
            if heard is None or self.received is heard:
                self.received = {}
                return
            self.received = {
                kind: got for kind, got in self.received.items() if heard.get(kind) is not got
            }


def begin_all(values: Iterable[tuple[Cell, Any, Origin, bool]]) -> list[Value]:
    """Begin a version in each of several cells, in all or, when that is interrupted, in none.

    Args:
        values: cells, each with its data, who wrote that, and whether it is trusted.
    """
    with _changing:
        cells = [(cell, cell.now, *facts) for cell, *facts in values]
        made = [Value(data, now.version + 1, by, trusted) for _, now, data, by, trusted in cells]
        try:
            for (cell, *_), value in zip(cells, made, strict=True):
                cell.now = value
        except BaseException:
            for cell, now, *_ in cells:
                cell.now = now
            raise
    return made
