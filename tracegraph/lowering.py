"""Find the nodes in a value: in lists, dicts, dataclasses and pydantic models, however deep.

`lower` gives the plain value behind; what holds no node is given back itself, and what does is copied.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from tracegraph.errors import CyclicValue
from tracegraph.kinds import ATOMS, show
from tracegraph.recorder import current

if TYPE_CHECKING:
    from tracegraph.node import Node

__all__ = ["Holder", "lower", "unwrap"]


class Holder:
    """What is looked for: something that holds a value, and a node that stands for it in a graph."""

    __slots__ = ()

    def _leaf(self) -> Node[Any]:
        raise NotImplementedError


def unwrap(value: Any) -> Any:
    """`value` with every node in it replaced by what it holds; containers are copied if needed."""
    nodes: list[Node[Any]] = []
    plain = lower(value, "", nodes, [])
    policy = current()
    if policy is not None and policy.frame is not None:
        for found in nodes:
            policy.frame.read(found)
    return plain


def lower(value: Any, name: str, nodes: list[Node[Any]], names: list[str]) -> Any:
    """The plain value of `value`; the nodes found in it are added to `nodes`, named by their path.

    Looks into lists, tuples, dicts, sets, dataclasses and pydantic models. What holds no node is
    given back itself; what does is copied along the way.

    Raises:
        CyclicValue: a container that holds nodes also holds itself.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if isinstance(value, Holder):
        found = value._leaf()
        nodes.append(found)
        names.append(name)
        return found._data
    if not _may_hold(value, kind):
        return value
    search = _Search(nodes, names)
    before = len(nodes)
    plain = search.inside(value, name)
    if search.cyclic and len(nodes) > before:
        raise CyclicValue(
            f"{name or 'a value'} is a {kind.__name__} that holds itself and holds nodes: the nodes "
            "in it cannot be listed; pass the nodes as arguments of their own"
        )
    return plain


def _may_hold(value: Any, kind: type) -> bool:
    return (
        isinstance(value, (list, tuple, dict, set, frozenset, slice))
        or (hasattr(kind, "__dataclass_fields__") and not isinstance(value, type))
        or (hasattr(kind, "model_fields") and not isinstance(value, type))
        or hasattr(kind, "__traced_items__")
    )


class _Search:
    """Finds the nodes inside one container."""

    __slots__ = ("cyclic", "names", "nodes", "open")

    def __init__(self, nodes: list[Node[Any]], names: list[str]) -> None:
        self.nodes = nodes
        self.names = names
        self.open: set[int] = set()
        self.cyclic = False

    def item(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind in ATOMS:
            return value
        if isinstance(value, Holder):
            found = value._leaf()
            self.nodes.append(found)
            self.names.append(path)
            return found._data
        return self.inside(value, path) if _may_hold(value, kind) else value

    def inside(self, value: Any, path: str) -> Any:
        if id(value) in self.open:
            self.cyclic = True
            return value
        self.open.add(id(value))
        try:
            if isinstance(value, dict):
                return self._mapping(value, path)
            if isinstance(value, (list, tuple, set, frozenset)):
                return self._sequence(value, path)
            if isinstance(value, slice):
                return slice(*self._sequence((value.start, value.stop, value.step), path))
            return self._object(value, path)
        finally:
            self.open.discard(id(value))

    def _sequence(self, value: Any, path: str) -> Any:
        changed = False
        items = []
        for index, item in enumerate(value):
            if type(item) in ATOMS:
                items.append(item)
                continue
            plain = self.item(item, f"{path}[{index}]")
            changed = changed or plain is not item
            items.append(plain)
        if not changed:
            return value
        kind = type(value)
        if kind in (list, tuple, set, frozenset):
            return kind(items)
        if hasattr(kind, "_make"):
            return kind._make(items)
        if isinstance(value, list):
            twin = copy.copy(value)
            twin[:] = items
            return twin
        return kind(items)

    def _mapping(self, value: dict[Any, Any], path: str) -> Any:
        plain = {}
        changed = False
        for key, item in value.items():
            key_ = self.item(key, f"{path}.keys")
            item_ = self.item(item, f"{path}[{show(key_, 40)}]")
            changed = changed or key_ is not key or item_ is not item
            plain[key_] = item_
        if not changed:
            return value
        if type(value) is dict:
            return plain
        twin = copy.copy(value)
        twin.clear()
        twin.update(plain)
        return twin

    def _object(self, value: Any, path: str) -> Any:
        if hasattr(type(value), "__traced_items__"):
            return value.__traced_items__(self.item, path)
        if is_dataclass(value):
            names: Iterable[str] = [f.name for f in fields(value)]
        else:
            names = type(value).model_fields
        plain = {}
        for name in names:
            item = getattr(value, name, None)
            item_ = self.item(item, f"{path}.{name}")
            if item_ is not item:
                plain[name] = item_
        if not plain:
            return value
        twin = copy.copy(value)
        for name, item in plain.items():
            object.__setattr__(twin, name, item)
        return twin
