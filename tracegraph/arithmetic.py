"""Derivatives of arithmetic on plain numbers and numpy arrays.

Torch differentiates what is made of tensors. What Python and numpy compute before a number meets a
tensor goes back by this table: the operation's name, and how the derivative reaches each operand.
Names are those of Python's operators and of numpy's functions and methods; numpy's other functions
are in `array_calls`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tracegraph.array_calls import CALLS, unknown
from tracegraph.errors import FeedbackError
from tracegraph.kinds import is_array, is_tensor
from tracegraph.operators import is_own

if TYPE_CHECKING:
    from tracegraph.node import Node

__all__ = ["is_real", "like", "plain", "pull_arithmetic", "smooth"]

Pull = Callable[..., Any]
"""``(gradient, result, operands...) -> gradient``, for one operand."""


def is_real(value: Any) -> bool:
    """Whether `value` is a floating number or an array of them: what has a derivative."""
    if isinstance(value, float):
        return True
    if is_array(value):
        return value.dtype.kind == "f"  # type: ignore[no-any-return]
    kind = type(value)
    return kind.__module__ == "numpy" and kind.__name__.startswith("float")


def smooth(node: Node[Any]) -> bool:
    """Whether `node` holds what a derivative of the tables goes through.

    What numpy's way leads out of a tensor, such as ``x.item()``, is a constant, as torch has it.
    """
    operation = node._operation
    if operation is None or not is_real(node._data) or not is_own(operation):
        return False
    if operation.name in CALLS:
        return any(is_real(i._data) for i in node._inputs)
    return operation.name in _PULLS and any(_has_derivative(i._data) for i in node._inputs)


def pull_arithmetic(node: Node[Any], gradient: Any) -> Mapping[str, Any]:
    """The gradient at each operand of `node` that has one, by the operand's name.

    Raises:
        NoRule: numpy was called in a way that the tables do not know.
    """
    values = [i._data for i in node._inputs]
    pulls = _PULLS[node._operation.name]  # type: ignore[union-attr]
    if len(values) > len(pulls):
        raise unknown(node, f"it was called with {', '.join(node._names)}")
    return {
        name: _as(value, pull(plain(gradient), node._data, *values))
        for name, value, pull in zip(node._names, values, pulls, strict=False)
        if _has_derivative(value)
    }


def like(value: Any, gradient: Any, name: str) -> Any:
    """`gradient` as a plain number, or an array of the shape and dtype of `value`.

    Raises:
        FeedbackError: the shape does not fit.
    """
    import numpy

    given = numpy.asarray(plain(gradient), dtype=float)
    shape = tuple(value.shape) if hasattr(value, "shape") else ()
    if given.ndim > len(shape) and given.size == 1:
        given = given.reshape(())
    try:
        wide = numpy.broadcast_to(given, shape)
    except ValueError as error:
        raise FeedbackError(
            f"a gradient of shape {list(given.shape)} came to {name!r}, which has shape "
            f"{list(shape)}"
        ) from error
    return wide.astype(value.dtype) if is_array(value) else float(wide)


def plain(gradient: Any) -> Any:
    """`gradient` without torch: an array, or a number where it has no dimensions."""
    if not is_tensor(gradient):
        return gradient
    array = gradient.detach().cpu().numpy()
    return array if array.shape else array.item()


def _has_derivative(value: Any) -> bool:
    return is_real(value) or (is_tensor(value) and value.is_floating_point())


def _as(value: Any, gradient: Any) -> Any:
    """`gradient` summed over what broadcasting added, in the shape of `value`."""
    shape = tuple(value.shape) if hasattr(value, "shape") else ()
    if not hasattr(gradient, "shape") and not shape:
        return gradient
    import numpy

    wide = numpy.asarray(gradient)
    while wide.ndim > len(shape):
        wide = wide.sum(axis=0)
    for axis, length in enumerate(shape):
        if length == 1 and wide.shape[axis : axis + 1] != (1,):
            wide = wide.sum(axis=axis, keepdims=True)
    return numpy.broadcast_to(wide, shape).copy() if shape else wide.item()


def _exp(x: Any) -> Any:
    return _numpy("exp", x) if is_array(x) else math.exp(x)


def _log(x: Any) -> Any:
    return _numpy("log", x) if is_array(x) else math.log(x)


def _cos(x: Any) -> Any:
    return _numpy("cos", x) if is_array(x) else math.cos(x)


def _sin(x: Any) -> Any:
    return _numpy("sin", x) if is_array(x) else math.sin(x)


def _sign(x: Any) -> Any:
    return _numpy("sign", x) if is_array(x) else (x > 0) - (x < 0)


def _numpy(name: str, x: Any) -> Any:
    import numpy

    return getattr(numpy, name)(x)


def _power_exponent(g: Any, y: Any, x: Any, exponent: Any) -> Any:
    """``x ** e * log(x)``, and 0 where the base is 0, as torch has it."""
    if is_array(x) or is_array(exponent) or is_array(y):
        import numpy

        base = numpy.asarray(x, dtype=float)
        return g * y * numpy.log(numpy.where(base == 0, 1.0, base))
    return g * y * math.log(x) if x != 0 else 0.0 * g


def _matmul_left(g: Any, y: Any, a: Any, b: Any) -> Any:
    import numpy

    if b.ndim == 1:
        return numpy.multiply.outer(g, b) if a.ndim > 1 else g * b
    transposed = numpy.swapaxes(b, -1, -2)
    return numpy.asarray(g) @ transposed


def _matmul_right(g: Any, y: Any, a: Any, b: Any) -> Any:
    import numpy

    if a.ndim == 1:
        return numpy.multiply.outer(a, g) if b.ndim > 1 else g * a
    if b.ndim == 1:
        return (a * numpy.asarray(g)[..., None]).reshape(-1, b.shape[0]).sum(axis=0)
    return numpy.swapaxes(a, -1, -2) @ numpy.asarray(g)


def _first(g: Any, y: Any, *_: Any) -> Any:
    return g


def _chosen(g: Any, y: Any, condition: Any, *_: Any) -> Any:
    return g if condition else 0.0 * g


def _not_chosen(g: Any, y: Any, condition: Any, *_: Any) -> Any:
    return 0.0 * g if condition else g


_PULLS: dict[str, tuple[Pull, ...]] = {
    "identity": (_first,),
    "clone": (_first,),
    "pos": (_first,),
    "add": (_first, _first),
    "subtract": (_first, lambda g, y, *_: -g),
    "multiply": (lambda g, y, a, b: g * b, lambda g, y, a, b: g * a),
    "divide": (lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b),
    "power": (lambda g, y, a, b: g * b * a ** (b - 1) if _any_nonzero(b) else 0.0 * g,
              _power_exponent),
    "matmul": (_matmul_left, _matmul_right),
    "neg": (lambda g, y, x: -g,),
    "negative": (lambda g, y, x: -g,),
    "abs": (lambda g, y, x: g * _sign(x),),
    "absolute": (lambda g, y, x: g * _sign(x),),
    "exp": (lambda g, y, x: g * y,),
    "log": (lambda g, y, x: g / x,),
    "sqrt": (lambda g, y, x: g / (2 * y),),
    "square": (lambda g, y, x: 2 * g * x,),
    "sin": (lambda g, y, x: g * _cos(x),),
    "cos": (lambda g, y, x: -g * _sin(x),),
    "tanh": (lambda g, y, x: g * (1 - y * y),),
    "cond": (lambda g, y, c, a, b: 0.0 * g, _chosen, _not_chosen),
}  # fmt: skip
"""By operation, how the gradient reaches each operand in turn."""


def _any_nonzero(exponent: Any) -> bool:
    return bool(exponent.any()) if is_array(exponent) else bool(exponent)
