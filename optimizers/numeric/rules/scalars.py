"""What a rule's `scalars` may use so that the step may be a number or a tensor of steps.

A step that is captured in a CUDA graph, or compiled, counts on the device: the same formulas then
compute there, in float64, for all tensors at once.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["cosine", "either", "larger", "logarithm", "smaller"]


def either(condition: Any, a: float, b: float) -> Any:
    """`a` where the condition holds, `b` elsewhere; both are finite.

    >>> either(2 > 1, 0.5, 1.0)
    0.5
    """
    if isinstance(condition, bool):
        return a if condition else b
    holds = condition.double()
    return holds * a + (1 - holds) * b


def logarithm(x: Any) -> Any:
    """The natural logarithm."""
    return math.log(x) if isinstance(x, int | float) else x.log()


def cosine(x: Any) -> Any:
    """The cosine of an angle in radians."""
    return math.cos(x) if isinstance(x, int | float) else x.cos()


def larger(a: Any, b: Any) -> Any:
    """The larger of two numbers; the first is a tensor where one is.

    >>> larger(0.5, 1.0)
    1.0
    """
    return max(a, b) if isinstance(a, int | float) else a.clamp(min=b)


def smaller(a: Any, b: Any) -> Any:
    """The smaller of two numbers; the first is a tensor where one is."""
    return min(a, b) if isinstance(a, int | float) else a.clamp(max=b)
