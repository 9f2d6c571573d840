"""What a node can do in Python, as one table.

An `Operation` is what a node remembers of how it was made: a name, the names of its arguments, and
what it does. The table says which Python operator records which operation; `node` installs it.
"""

from __future__ import annotations

import copy
import math
import operator
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from tracegraph.kinds import is_array, is_tensor

__all__ = [
    "BINARY",
    "COLLECT",
    "FUNCTIONS",
    "MUTATORS",
    "REFLECTED",
    "UNARY",
    "Operation",
    "changes",
    "copied",
    "is_own",
    "named",
    "own",
]


class Operation:
    """What one step of a trace did: `name`, `parameters` (argument names), `doc`, `rules`.

    `cuts` says that one of the rules is for gradients: they go back by it, not by torch.
    """

    __slots__ = ("code", "cuts", "doc", "function", "name", "parameters", "rules", "signature")

    def __init__(
        self,
        name: str,
        function: Callable[..., Any] | None,
        parameters: tuple[str, ...] = (),
        *,
        doc: str = "",
        signature: str = "",
        rules: Mapping[type, Callable[..., Any]] | None = None,
        code: Any = None,
        cuts: bool = False,
    ) -> None:
        self.name = name
        self.function = function
        self.parameters = parameters
        self.doc = doc
        self.signature = signature
        self.rules = rules
        self.code = code
        self.cuts = cuts

    def __repr__(self) -> str:
        return f"Operation({self.name!r})"


def _concat(x: Any, y: Any) -> Any:
    """Join two strings or sequences: ``x + y``."""
    return operator.add(x, y)


def _is_in(x: Any, y: Any) -> bool:
    """Whether `x` is an element of `y`: ``x in y``."""
    return x in y


def _not_in(x: Any, y: Any) -> bool:
    """Whether `x` is not an element of `y`: ``x not in y``."""
    return x not in y


def _cond(condition: Any, x: Any, y: Any) -> Any:
    """Choose `x` where `condition` is true, else `y`."""
    return x if condition else y


def _setitem(x: Any, key: Any, value: Any) -> Any:
    """Return a copy of `x` in which ``x[key]`` is `value`; `x` itself stays."""
    changed = copied(x)
    changed[key] = value
    return changed


def _identity(x: Any) -> Any:
    """Give `x` itself."""
    return x


def _clone(x: Any) -> Any:
    """Give a deep copy of `x`."""
    return copy.deepcopy(x)


def _call(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call `function`."""
    return function(*args, **kwargs)


def copied(x: Any) -> Any:
    """A copy that can be changed without changing `x`; a tensor's keeps its gradient."""
    return x.clone() if is_tensor(x) else copy.copy(x)


def _two(name: str, function: Callable[..., Any], doc: str) -> Operation:
    return Operation(name, function, ("x", "y"), doc=doc, signature=f"{name}(x, y)")


def _one(name: str, function: Callable[..., Any], doc: str) -> Operation:
    return Operation(name, function, ("x",), doc=doc, signature=f"{name}(x)")


_ARITHMETIC = (
    ("__add__", _two("add", operator.add, "x + y")),
    ("__sub__", _two("subtract", operator.sub, "x - y")),
    ("__mul__", _two("multiply", operator.mul, "x * y")),
    ("__truediv__", _two("divide", operator.truediv, "x / y")),
    ("__floordiv__", _two("floor_divide", operator.floordiv, "x // y")),
    ("__mod__", _two("mod", operator.mod, "x % y")),
    ("__divmod__", _two("divmod", divmod, "divmod(x, y)")),
    ("__pow__", _two("power", operator.pow, "x ** y")),
    ("__lshift__", _two("lshift", operator.lshift, "x << y")),
    ("__rshift__", _two("rshift", operator.rshift, "x >> y")),
    ("__and__", _two("and_", operator.and_, "x & y")),
    ("__or__", _two("or_", operator.or_, "x | y")),
    ("__xor__", _two("xor", operator.xor, "x ^ y")),
    ("__matmul__", _two("matmul", operator.matmul, "x @ y")),
)

BINARY: dict[str, Operation] = dict(_ARITHMETIC) | {
    "__lt__": _two("lt", operator.lt, "x < y"),
    "__le__": _two("le", operator.le, "x <= y"),
    "__gt__": _two("gt", operator.gt, "x > y"),
    "__ge__": _two("ge", operator.ge, "x >= y"),
    "__getitem__": _two("getitem", operator.getitem, "x[y]"),
}
"""Operators of two operands, by the special method that Python calls."""

REFLECTED: dict[str, Operation] = {"__r" + name[2:]: op for name, op in _ARITHMETIC}
"""The same with the operands in the other order: ``1 + node``."""

UNARY: dict[str, Operation] = {
    "__neg__": _one("neg", operator.neg, "-x"),
    "__pos__": _one("pos", operator.pos, "+x"),
    "__invert__": _one("invert", operator.invert, "~x"),
    "__abs__": _one("abs", abs, "abs(x)"),
    "__floor__": _one("floor", math.floor, "math.floor(x)"),
    "__ceil__": _one("ceil", math.ceil, "math.ceil(x)"),
    "__trunc__": _one("trunc", math.trunc, "math.trunc(x)"),
}
"""Operators of one operand."""

ROUND = Operation("round", round, ("x", "ndigits"), doc="round(x, ndigits)")
GETATTR = Operation("getattr", getattr, ("x", "name"), doc="x.name")
CALL = Operation("call", _call, ("function",), doc="function(*args, **kwargs)")
COLLECT = Operation("collect", None, doc="a container made of the inputs")
ITERATE = Operation("iterate", None, ("x", "index"), doc="the element of x at position index")

FUNCTIONS: dict[str, Operation] = {
    op.name: op
    for op in (
        _one("identity", _identity, "x itself"),
        _one("clone", _clone, "a deep copy of x"),
        _two("eq", operator.eq, "x == y"),
        _two("ne", operator.ne, "x != y"),
        _one("not_", operator.not_, "not x"),
        _two("is_", operator.is_, "x is y"),
        _two("is_not", operator.is_not, "x is not y"),
        _two("in_", _is_in, "x in y"),
        _two("not_in", _not_in, "x not in y"),
        _two("concat", _concat, "x + y"),
        _one("len_", len, "len(x)"),
        _one("ord_", ord, "ord(x)"),
        _one("chr_", chr, "chr(x)"),
        _one("to_list", list, "list(x)"),
        _one("to_tuple", tuple, "tuple(x)"),
        _one("to_set", set, "set(x)"),
        _one("to_dict", dict, "dict(x)"),
        Operation("cond", _cond, ("condition", "x", "y"), doc="x if condition else y"),
        Operation(
            "setitem", _setitem, ("x", "key", "value"), doc="a copy of x with x[key] = value"
        ),
    )
}
"""Functions that record: what Python answers plainly on a node (``==``, ``in``, ``len``) and more."""

MUTATORS: frozenset[str] = frozenset(
    {
        "add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft",
        "insert", "intersection_update", "pop", "popitem", "popleft", "remove", "reverse", "rotate",
        "setdefault", "sort", "symmetric_difference_update", "update",
    }
)  # fmt: skip
"""Methods of containers that change their object; on a node they work on a copy."""

_ARRAY_MUTATORS = frozenset({"fill", "itemset", "partition", "put", "resize", "setfield", "sort"})


def changes(value: Any, name: str) -> bool:
    """Whether the method `name` of `value` changes it in place; on a node it works on a copy."""
    if name.endswith("_"):
        return not name.endswith("__") and is_tensor(value)
    if name in MUTATORS and isinstance(value, (list, dict, set, bytearray, deque)):
        return True
    return name in _ARRAY_MUTATORS and is_array(value)


_named: dict[tuple[str, tuple[str, ...]], Operation] = {}
_known = {
    (o.name, o.parameters): o
    for o in (*UNARY.values(), *BINARY.values(), *FUNCTIONS.values(), ROUND, GETATTR, CALL, ITERATE)
}


def is_own(operation: Operation) -> bool:
    """Whether `operation` is Python's or a library's of its name, and no bundle that is called so."""
    key = operation.name, operation.parameters
    return operation is _known.get(key) or operation is _named.get(key)


def own(name: str, parameters: tuple[str, ...]) -> Operation:
    """Python's or a library's operation of that name and those arguments: `is_own` says so of it."""
    return _known.get((name, parameters)) or named(name, parameters)


def named(name: str, parameters: tuple[str, ...] = ("x",)) -> Operation:
    """The operation of a method or a foreign function, made once per name."""
    found = _named.get((name, parameters))
    if found is None:
        found = _named.setdefault((name, parameters), Operation(name, None, parameters))
    return found


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"{__name__} has no {name!r}: what records is in tracegraph.functions "
        "(from tracegraph import functions as ops)"
    )
