"""Functions that record: every operation that a node can do, by name.

On a node, ``x == y``, ``x in y``, ``not x``, ``len(x)`` and ``x if c else y`` answer plainly. Where the
answer itself shall be a node of the graph, use `eq`, `in_`, `not_`, `len_`, `cond`.

The other names are for code that takes operations by name: `add`, `getitem` and the like do what the
operators of Python do, `upper` and the like what the methods of a text do, and ``list_append``,
``dict_update``, ``set_add`` and the like give a changed copy.

>>> from tracegraph import functions as ops, node
>>> x = node([1, 2], name="x")
>>> ops.list_append(x, 3).data, x.data, ops.add(x, [4]).op
([1, 2, 3], [1, 2], 'add')
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegraph.errors import nearest
from tracegraph.node import Node
from tracegraph.node import apply as _apply
from tracegraph.operators import BINARY, CALL, FUNCTIONS, GETATTR, ROUND, UNARY, Operation, copied

_TEXT = "capitalize format lower replace split strip swapcase title upper"
_CHANGING = {
    "dict": "pop popitem update",
    "list": "append clear extend insert pop remove reverse sort",
    "set": "add clear discard intersection_update pop remove symmetric_difference_update update",
}


def _changed(method: str) -> Callable[..., Any]:
    def run(x: Any, /, *args: Any, **kwargs: Any) -> Any:
        twin = copied(x)
        getattr(twin, method)(*args, **kwargs)
        return twin

    return run


def _of_value(method: str) -> Callable[..., Any]:
    return lambda x, /, *args, **kwargs: getattr(x, method)(*args, **kwargs)


def _made(name: str, function: Callable[..., Any], doc: str, *parameters: str) -> Operation:
    return Operation(name, function, parameters or ("x", "y"), doc=doc)


_TABLE: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        *BINARY.values(),
        *UNARY.values(),
        *FUNCTIONS.values(),
        ROUND,
        CALL,
        *(_made(m, _of_value(m), f"x.{m}(...)") for m in _TEXT.split()),
        *(
            _made(f"{kind}_{m}", _changed(m), f"a copy of the {kind} x after x.{m}(...)")
            for kind, methods in _CHANGING.items()
            for m in methods.split()
        ),
        _made("pop", lambda x, *i: copied(x).pop(*i), "the element of x at index", "x", "index"),
        _made("join", lambda x, *y: x.join(y), "x.join(y)"),
        _made("keys", lambda x: list(x.keys()), "the keys of the dict x, as a list"),
        _made("values", lambda x: list(x.values()), "the values of the dict x, as a list"),
        _made("make_list", lambda *items: list(items), "[...]", "item"),
        _made("make_tuple", lambda *items: items, "(...)", "item"),
        _made("make_set", lambda *items: set(items), "{...}", "item"),
        _made("make_dict", lambda **items: items, "dict(...)", "item"),
    )
}
_TABLE |= {
    "neq": FUNCTIONS["ne"],
    "node_divmod": BINARY["__divmod__"],
    "node_getattr": GETATTR,
}

__all__ = sorted(_TABLE)


def _recorded(name: str) -> Any:
    operation = _TABLE[name]

    def function(*args: Any, **kwargs: Any) -> Node[Any]:
        named = [kwargs.pop(p) for p in operation.parameters[len(args) :] if p in kwargs]
        return _apply(operation, (*args, *named), kwargs)  # type: ignore[no-any-return]

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Record ``{operation.doc}`` as a node: ``{operation.signature or name}``."
    return function


for _name in _TABLE:
    globals()[_name] = _recorded(_name)


def __getattr__(name: str) -> Any:
    near = nearest(name, _TABLE)
    raise AttributeError(
        f"{__name__} has no {name!r}" + (f"; did you mean {near!r}?" if near else "")
    )
