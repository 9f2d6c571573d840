"""Derivatives of numpy's functions: those of the same call in torch.

`arithmetic` has the operators, by formula. What else numpy offers goes back by being computed once
more, in torch and in float64: the table says which call of torch is which call of numpy. The answer
is believed only where torch comes to the value that numpy came to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tracegraph.errors import NoRule
from tracegraph.kinds import is_array, show

if TYPE_CHECKING:
    from tracegraph.node import Node

__all__ = ["CALLS", "arranged", "call_again", "unknown"]


def call_again(torch: Any, node: Node[Any], operands: Mapping[str, Any]) -> Any:
    """What the call of numpy at `node` gives in torch, of operands that are tensors of float64.

    Raises:
        NoRule: the call was made in a way that the table does not know.
    """
    operation = node._operation
    assert operation is not None
    try:
        positional, named = arranged(operands, operation.parameters)
        made = CALLS[operation.name](torch, *positional, **named)
    except (AttributeError, TypeError, RuntimeError, IndexError, ValueError) as error:
        raise unknown(node, str(error)) from error
    if not _same(made, node._data, operands):
        raise unknown(node, f"torch comes to {show(made, 60)} there")
    return made


def unknown(node: Node[Any], why: str) -> NoRule:
    """The error of a call of numpy that no table knows, for the reason `why`."""
    return NoRule(
        f"a gradient reached {node.name}, a call of numpy's {node.op} whose derivative is not known here "
        f"({why}): write it with other functions or in torch, or put it into a bundle with "
        "rules={Gradient: ...}"
    )


_NAME = r"(\w+)(?:\[(\d+)\])?"


def arranged(
    operands: Mapping[str, Any], parameters: tuple[str, ...]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of the call that was recorded, from the operands' names."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, value in operands.items():
        found = re.fullmatch(_NAME, name)
        base, index = found.groups() if found else (name, "")
        if index and base == "x":  # the first argument is a list
            if not positional:
                positional.append([])
            positional[0].append(value)
        elif index is None and (base in parameters or re.fullmatch(r"args_\d+", base)):
            positional.append(value)
        elif index is None:
            named[base] = value
        else:
            raise TypeError(f"{name} stands within a container")
    return positional, named


def _same(made: Any, value: Any, operands: Mapping[str, Any]) -> bool:
    """Whether `made` is `value` but for rounding in the dtype of `value`."""
    import numpy

    computed, known = made.detach().cpu().numpy(), numpy.asarray(value)
    if computed.shape != known.shape:
        return False
    given = [abs(numpy.asarray(v, dtype=float)).max(initial=0.0) for v in _reals(operands.values())]
    near = float(numpy.finfo(known.dtype).eps) ** 0.5
    return numpy.allclose(computed, known, rtol=near, atol=near * max(given), equal_nan=True)


def _reals(values: Any) -> list[Any]:
    return [v.detach().numpy() for v in values if hasattr(v, "detach")]


def _all(x: Any, axis: Any) -> Any:
    """The dimensions that numpy means by `axis`."""
    return tuple(range(x.ndim)) if axis is None else axis


def _in_order(order: str) -> None:
    if order != "C":
        raise ValueError(f"order={order!r}")


def _one(name: str) -> Callable[..., Any]:
    return lambda t, x: getattr(t, name)(x)


def _two(name: str) -> Callable[..., Any]:
    return lambda t, x, y: getattr(t, name)(_tensor(t, x), _tensor(t, y))


def _tensor(t: Any, x: Any) -> Any:
    return t.as_tensor(x, dtype=t.float64)


def _extreme(name: str) -> Callable[..., Any]:
    return lambda t, x, axis=None, out=None, keepdims=False: getattr(t, name)(
        x, dim=_all(x, axis), keepdim=keepdims
    )


def _total(name: str) -> Callable[..., Any]:
    return lambda t, x, axis=None, dtype=None, out=None, keepdims=False: getattr(t, name)(
        x, dim=_all(x, axis), keepdim=keepdims
    )


def _spread(name: str) -> Callable[..., Any]:
    def spread(
        t: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: int = 0,
        keepdims: bool = False,
    ) -> Any:  # fmt: skip
        return getattr(t, name)(x, dim=_all(x, axis), correction=ddof, keepdim=keepdims)

    return spread


def _running(name: str) -> Callable[..., Any]:
    return lambda t, x, axis=None: (
        getattr(t, name)(x.flatten(), dim=0) if axis is None else getattr(t, name)(x, dim=axis)
    )


def _product(t: Any, x: Any, axis: Any = None) -> Any:
    return t.prod(x) if axis is None else t.prod(x, dim=axis)


def _median(t: Any, x: Any, axis: Any = None) -> Any:
    return t.quantile(x.flatten(), 0.5) if axis is None else t.quantile(x, 0.5, dim=axis)


def _norm(t: Any, x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    return t.linalg.norm(x, ord=ord, dim=axis, keepdim=keepdims)


def _dot(t: Any, x: Any, y: Any) -> Any:
    x, y = _tensor(t, x), _tensor(t, y)
    if not x.ndim or not y.ndim:
        return x * y
    return t.tensordot(x, y, dims=([x.ndim - 1], [max(y.ndim - 2, 0)]))


def _tensordot(t: Any, x: Any, y: Any, axes: Any = 2) -> Any:
    return t.tensordot(_tensor(t, x), _tensor(t, y), dims=axes)


def _clip(
    t: Any, x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None
) -> Any:
    bounds = (a_min if min is None else min), (a_max if max is None else max)
    low, high = (None if bound is None else _tensor(t, bound) for bound in bounds)
    return t.clamp(_tensor(t, x), min=low, max=high)


def _flat(t: Any, x: Any, order: str = "C") -> Any:
    _in_order(order)
    return x.reshape(-1)


def _reshape(t: Any, x: Any, *shape: Any, order: str = "C") -> Any:
    _in_order(order)
    return x.reshape(*shape)


def _transpose(t: Any, x: Any, *axes: Any) -> Any:
    given = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
    return x.permute(*(given or reversed(range(x.ndim))))


def _attribute(t: Any, x: Any, name: str) -> Any:
    if name not in ("T", "real"):
        raise TypeError(f"the attribute {name}")
    return _transpose(t, x) if name == "T" else x


def _squeeze(t: Any, x: Any, axis: Any = None) -> Any:
    return t.squeeze(x) if axis is None else t.squeeze(x, axis)


def _item(t: Any, x: Any, *index: Any) -> Any:
    return x[index] if len(index) > 1 else x.reshape(-1)[index[0] if index else 0]


def _index(t: Any, x: Any, key: Any) -> Any:
    if not is_array(x) and not hasattr(x, "detach"):
        raise TypeError("the index of a value that is no array")
    import numpy

    places = numpy.arange(x.numel()).reshape(tuple(x.shape))[key]  # numpy's own meaning of the key
    return x.reshape(-1)[t.as_tensor(numpy.ascontiguousarray(places)).reshape(numpy.shape(places))]


def _where(t: Any, condition: Any, x: Any, y: Any) -> Any:
    return t.where(t.as_tensor(condition).bool(), _tensor(t, x), _tensor(t, y))


def _repeat(t: Any, x: Any, repeats: Any, axis: Any = None) -> Any:
    return t.repeat_interleave(x, t.as_tensor(repeats), dim=axis)


_ONE = (
    "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "ceil", "cosh", "exp2", "expm1",
    "floor", "log10", "log1p", "log2", "reciprocal", "sign", "sinh", "tan", "trunc",
)  # fmt: skip
_TWO = (
    "arctan2", "fmax", "fmin", "hypot", "inner", "kron", "logaddexp", "maximum", "minimum", "remainder",
)  # fmt: skip

CALLS: dict[str, Callable[..., Any]] = {
    **{name: _one(name) for name in _ONE},
    **{name: _two(name) for name in _TWO},
    "mod": _two("remainder"),
    "outer": lambda t, x, y: t.outer(_tensor(t, x).flatten(), _tensor(t, y).flatten()),
    "sum": _total("sum"),
    "mean": _total("mean"),
    "prod": _product,
    "max": _extreme("amax"),
    "amax": _extreme("amax"),
    "min": _extreme("amin"),
    "amin": _extreme("amin"),
    "var": _spread("var"),
    "std": _spread("std"),
    "median": _median,
    "cumsum": _running("cumsum"),
    "cumprod": _running("cumprod"),
    "norm": _norm,
    "dot": _dot,
    "tensordot": _tensordot,
    "einsum": lambda t, equation, *xs: t.einsum(equation, *(_tensor(t, x) for x in xs)),
    "inv": lambda t, x: t.linalg.inv(x),
    "det": lambda t, x: t.linalg.det(x),
    "solve": lambda t, x, y: t.linalg.solve(_tensor(t, x), _tensor(t, y)),
    "trace": lambda t, x: t.trace(x),
    "diag": lambda t, x, k=0: t.diag(x, k),
    "where": _where,
    "clip": _clip,
    "getitem": _index,
    "iterate": _index,
    "item": _item,
    "getattr": _attribute,
    "reshape": _reshape,
    "ravel": _flat,
    "flatten": _flat,
    "transpose": _transpose,
    "swapaxes": lambda t, x, a, b: t.swapaxes(x, a, b),
    "moveaxis": lambda t, x, a, b: t.moveaxis(x, a, b),
    "squeeze": _squeeze,
    "expand_dims": lambda t, x, axis: t.unsqueeze(x, axis),
    "broadcast_to": lambda t, x, shape: t.broadcast_to(_tensor(t, x), shape),
    "tile": lambda t, x, reps: t.tile(x, reps if isinstance(reps, tuple) else (reps,)),
    "repeat": _repeat,
    "diff": lambda t, x, n=1, axis=-1: t.diff(x, n, axis),
    "sort": lambda t, x, axis=-1: t.sort(x, dim=axis).values,
    "concatenate": lambda t, xs, axis=0: t.cat([_tensor(t, x) for x in xs], axis),
    "stack": lambda t, xs, axis=0: t.stack([_tensor(t, x) for x in xs], axis),
    "hstack": lambda t, xs: t.hstack([_tensor(t, x) for x in xs]),
    "vstack": lambda t, xs: t.vstack([_tensor(t, x) for x in xs]),
    "astype": lambda t, x, dtype: x,
    "copy": lambda t, x: x,
}
"""By operation, ``call(torch, arguments as numpy has them...)``: what torch calls the same."""
