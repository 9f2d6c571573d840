"""The words that a rule may use, and how one body is given other meanings of them.

A rule's body may use ``+ - * /``, comparisons, and the functions below. Here they mean numpy, which
makes a body called directly the definition: give it float64 arrays and it computes in float64.
:func:`bound` rebinds the same code object to another meaning (torch, lists of tensors, C++ terms,
Triton), so that no execution has a formula of its own.

A body does no arithmetic on two host scalars: what depends on the scalars alone (a power, a bias
correction, ``1 - beta``) is finished in float64 on the host. So every execution rounds a scalar
once, and none computes powers per element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import numpy as np

__all__ = ["WORDS", "absolute", "bound", "maximum", "minimum", "sign", "sqrt", "where"]

sqrt = np.sqrt
absolute = np.absolute
where = np.where
maximum = np.maximum
minimum = np.minimum


def sign(x: Any) -> Any:
    """-1, 0 or 1; 0 of NaN, as torch has it and all executions."""
    return np.greater(x, 0) * 1.0 - np.less(x, 0)


_BUILTINS = {"__import__": __import__}
"""What a body has of Python's own: what torch itself asks its caller for where a tensor is a wrapper."""

WORDS = ("sqrt", "absolute", "where", "sign", "maximum", "minimum")


def bound(body: Callable[..., Any], meanings: Mapping[str, Any]) -> Callable[..., Any]:
    """The same code with other meanings of the dialect's words.

    >>> def body(x):
    ...     return sqrt(x)
    >>> bound(body, {"sqrt": lambda x: f"sqrt({x})"})("p")
    'sqrt(p)'
    """
    if not isinstance(body, FunctionType):
        raise TypeError(f"a rule's body must be a plain function, got {body!r}")
    words = {"__builtins__": _BUILTINS, **meanings}
    return FunctionType(body.__code__, words, body.__name__)
