"""One function through nested containers, or through several of one structure at once.

What stands in a container is found by its place; a container of another structure is an error, never
a guess.
"""

from __future__ import annotations

from collections import UserDict, UserList
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, NoReturn

from tracegraph.kinds import show
from tracegraph.module import Map, Seq
from tracegraph.node import Node

__all__ = ["apply"]


def apply(function: Callable[..., Any], value: Any, *others: Any) -> Any:
    """Apply `function` to every node and plain value inside nested containers.

    Gives the same structure of lists, tuples, dicts, `Seq`, `Map` and dataclasses; `value` stays as it is.
    With several containers the function is given what stands at the same place in each; a node among
    them stands for itself at every place.

    Raises:
        ValueError: one of `others` has another structure; the message says where.

    >>> import tracegraph as tg
    >>> tg.apply(lambda x: x + 1, {"a": [1, 2], "b": (3,)})
    {'a': [2, 3], 'b': (4,)}
    >>> tg.apply(lambda x, y: x + y, {"a": [1, 2]}, {"a": [10, 20]})
    {'a': [11, 22]}
    """
    return _applied(function, (value, *others), "")


def _applied(function: Callable[..., Any], values: tuple[Any, ...], path: str) -> Any:
    value = values[0]
    if isinstance(value, Node):
        value = next((v for v in values if not isinstance(v, Node)), value)
    if isinstance(value, Map):
        return Map(_applied_items(function, values, value, path))
    if isinstance(value, Mapping):
        return _applied_items(function, values, value, path)
    if isinstance(value, (list, UserList, tuple)):
        rows = [_same_length(v, value, path) for v in values]
        items = [
            _applied(function, row, f"{path}[{i}]") for i, row in enumerate(zip(*rows, strict=True))
        ]
        if isinstance(value, Seq):
            return Seq(items)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, (set, frozenset)) and len(values) == 1:
        return type(value)(_applied(function, (item,), path) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        for v in values:
            if not isinstance(v, (Node, type(value))):
                _differs(v, value, path)
        names = [field.name for field in fields(value) if field.init]
        return replace(
            value,
            **{
                name: _applied(
                    function,
                    tuple(v if isinstance(v, Node) else getattr(v, name) for v in values),
                    f"{path}.{name}",
                )
                for name in names
            },
        )
    return function(*values)


def _applied_items(
    function: Callable[..., Any], values: tuple[Any, ...], shape: Any, path: str
) -> dict[Any, Any]:
    for v in values:
        if not isinstance(v, Node) and not (
            isinstance(v, (Mapping, UserDict)) and v.keys() == shape.keys()
        ):
            _differs(v, shape, path)
    return {
        key: _applied(
            function,
            tuple(v if isinstance(v, Node) else v[key] for v in values),
            f"{path}[{key!r}]",
        )
        for key in shape
    }


def _same_length(value: Any, shape: Any, path: str) -> list[Any]:
    if isinstance(value, Node):
        return [value] * len(shape)
    if not isinstance(value, (list, UserList, tuple)) or len(value) != len(shape):
        _differs(value, shape, path)
    return list(value)


def _differs(value: Any, shape: Any, path: str) -> NoReturn:
    raise ValueError(
        f"apply() goes through containers of one structure, but at {path or 'the top'} stand "
        f"{show(shape, 60)} and {show(value, 60)}"
    )
