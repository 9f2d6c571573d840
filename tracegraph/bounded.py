"""Memories that stay small: the oldest entries make room for a new one."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

__all__ = ["make_room"]


def make_room(kept: MutableMapping[Any, Any], most: int) -> None:
    """Forget the oldest of what is `kept`, so that it is at most `most` with one more.

    Other threads may do the same meanwhile.

    >>> kept = {"a": 1, "b": 2, "c": 3}
    >>> make_room(kept, 3)
    >>> kept
    {'b': 2, 'c': 3}
    """
    for old in list(kept)[: 1 - most]:
        kept.pop(old, None)
