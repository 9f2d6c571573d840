"""Random numbers that a run drew: what is not made again leaves the generators where it left them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

from tracegraph.history.checkpoint import random_state_now, set_random_state
from tracegraph.kinds import is_tensor

__all__ = ["Chance"]


@final
class Chance:
    """Knows the global random generators of Python, numpy and torch by where they were last.

    >>> import random
    >>> chance = Chance()
    >>> drawn = random.random()
    >>> moved = chance.moved()
    >>> sorted(moved), chance.moved()
    (['python'], {})
    """

    def __init__(self) -> None:
        self._last = random_state_now()

    def begin(self) -> None:
        """Look: what is drawn from now on counts."""
        self._last = random_state_now()

    def moved(self) -> dict[str, Any]:
        """The generators that were drawn from since the last look, as they are now."""
        now = random_state_now()
        moved = {n: s for n, s in now.items() if not _same(s, self._last.get(n))}
        self._last = now
        return moved

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """A block after which the generators are as before."""
        before = random_state_now()
        try:
            yield
        finally:
            set_random_state(before)

    def go_on(self, moved: Mapping[str, Any]) -> None:
        """Be where `moved` was told."""
        if moved:
            self._last = {**random_state_now(), **moved}
            set_random_state(self._last)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if is_tensor(one):
        return is_tensor(other) and bool((one == other).all())
    return bool(one == other)
