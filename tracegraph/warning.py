"""Warn a person at a line of their own, however deep inside the library it was noticed."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

__all__ = ["outside", "warn"]

_INSIDE = ("tracegraph", "optimizers", "contextlib", "torch")
"""Packages in which nobody looks for the cause of a warning."""


def warn(message: str, category: type[Warning]) -> None:
    """Give a warning that points at the innermost call from outside the library.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as found:
    ...     warnings.simplefilter("always")
    ...     warn("this is late", UserWarning)
    >>> found[0].message
    UserWarning('this is late')
    """
    _, level = outside()
    warnings.warn(message, category, stacklevel=level)


def outside() -> tuple[FrameType | None, int]:
    """The innermost frame from outside the library, and how many calls it lies above the caller, from 1."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_inside(frame):
        frame, level = frame.f_back, level + 1
    return frame, level


def _is_inside(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in _INSIDE
