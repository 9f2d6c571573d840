"""What an object holds: the values in its ``__dict__``, and those that its class keeps in ``__slots__``.

Nothing of the object's own code runs: no property, no ``__getattr__``, no ``__setattr__``.
"""

from __future__ import annotations

import types
from contextlib import suppress
from typing import Any

__all__ = ["can_hold", "drop", "held", "is_written", "put", "slots_of"]

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE


def is_written(kind: type) -> bool:
    """Whether a class statement made this class; the others are made in C."""
    return bool(kind.__flags__ & _HEAP_TYPE)


def slots_of(kind: type) -> dict[str, types.MemberDescriptorType]:
    """The slots of a class and its bases, by the attribute's name.

    >>> class Point:
    ...     __slots__ = ("x", "__secret")
    >>> sorted(slots_of(Point))
    ['_Point__secret', 'x']
    """
    found: dict[str, types.MemberDescriptorType] = {}
    for base in filter(is_written, kind.__mro__):
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType):
                found.setdefault(name, member)
    return found


def held(instance: Any) -> dict[str, Any]:
    """The values of an object by name; a slot that is empty is left out."""
    own = getattr(instance, "__dict__", None) if type(instance).__dictoffset__ else None
    values = dict(own) if isinstance(own, dict) else {}
    for name, slot in slots_of(type(instance)).items():
        with suppress(AttributeError):
            values[name] = slot.__get__(instance)
    return values


def can_hold(kind: type, name: str) -> bool:
    """Whether objects of a class have a place for a value of this name."""
    return kind.__dictoffset__ != 0 or name in slots_of(kind)


def put(instance: Any, name: str, value: Any) -> None:
    """Let an object hold a value."""
    slot = slots_of(type(instance)).get(name)
    if slot is not None:
        slot.__set__(instance, value)
    else:
        vars(instance)[name] = value


def drop(instance: Any, name: str) -> None:
    """Let an object hold a value no longer."""
    slot = slots_of(type(instance)).get(name)
    if slot is not None:
        slot.__delete__(instance)
    else:
        del vars(instance)[name]
