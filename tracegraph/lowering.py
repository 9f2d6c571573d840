"""Find the nodes in a value: in lists, dicts, dataclasses and pydantic models, however deep.

`lower` gives the plain value behind; what holds no node is given back itself, and what does is copied.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from tracegraph.errors import CyclicValue
from tracegraph.kinds import ATOMS, show
from tracegraph.recorder import current

if TYPE_CHECKING:
    from tracegraph.node import Node

__all__ = ["Holder", "lower", "unwrap"]

_PLAIN = frozenset({list, tuple, set, frozenset})
_Path = tuple[int, Any, Callable[[Any], str], Any]
"""Where a value stands: how deep, in what, how the last step is written, and that step."""
_Steps = Generator[tuple[Any, _Path], Any, Any]
"""Asks for the plain value of each item, which stands somewhere, and gives that of the whole."""
_LONGEST_PATH = 20
_OPEN = object()
"""Stands for the plain value of a container that is being searched."""


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
    search = _Search(name, nodes, names)
    before = len(nodes)
    plain = search.plain(value, name)
    if search.cyclic and len(nodes) > before:
        raise CyclicValue(
            f"{name or 'a value'} is a {kind.__name__} that holds itself and holds nodes: the nodes "
            "in it cannot be listed; pass the nodes as arguments of their own"
        )
    return plain


def _may_hold(value: Any, kind: type) -> bool:
    """Whether nodes may stand inside `value`, which is of a `kind`: containers of atoms hold none."""
    if kind in _PLAIN:
        return not ATOMS.issuperset(map(type, value))
    if kind is dict:
        return not (
            ATOMS.issuperset(map(type, value)) and ATOMS.issuperset(map(type, value.values()))
        )
    return (
        isinstance(value, (list, tuple, dict, set, frozenset, slice))
        or (hasattr(kind, "__dataclass_fields__") and not isinstance(value, type))
        or (hasattr(kind, "model_fields") and not isinstance(value, type))
        or hasattr(kind, "__traced_items__")
    )


def _position(index: int) -> str:
    return f"[{index}]"


def _entry(key: Any) -> str:
    return f"[{show(key, 40)}]"


def _key(_: Any) -> str:
    return ".keys"


def _field(name: str) -> str:
    return f".{name}"


class _Search:
    """A search for the nodes inside one container; what stands in it twice is read once.

    Args:
        name: what the container is called.
        nodes, names: where they are added, with the path to each.

    Attributes:
        cyclic: whether the container holds itself.
    """

    __slots__ = ("cyclic", "known", "name", "names", "nodes")

    def __init__(self, name: str, nodes: list[Node[Any]], names: list[str]) -> None:
        self.name = name
        self.nodes = nodes
        self.names = names
        self.known: dict[int, tuple[Any, Any]] = {}  # containers with their plain values, by id
        self.cyclic = False

    def plain(self, value: Any, path: str) -> Any:
        """What stands at a path, without the nodes in it; the nodes are added to those found."""
        return self._plain(value, (0, None, str, path))

    def _plain(self, value: Any, path: _Path) -> Any:
        open_: list[tuple[Any, _Steps]] = []
        while True:
            if isinstance(value, Holder):
                value = self._found(value, self._written(path))
            elif _may_hold(value, type(value)):
                known = self.known.get(id(value))
                if known is None:
                    self.known[id(value)] = value, _OPEN
                    open_.append((value, self._steps(value, path)))
                    value = None
                elif known[1] is _OPEN:
                    self.cyclic = True
                else:
                    value = known[1]
            while open_:
                whole, steps = open_[-1]
                try:
                    value, path = steps.send(value)
                    break
                except StopIteration as done:
                    value = done.value
                    self.known[id(whole)] = whole, value
                    open_.pop()
            else:
                return value

    def _found(self, value: Holder, name: str) -> Any:
        found = value._leaf()
        self.nodes.append(found)
        self.names.append(name)
        return found._data

    def _written(self, path: _Path) -> str:
        """A path as text; of a long one the end, and how many steps were left out."""
        steps: list[str] = []
        depth, around, write, step = path
        while around is not None and len(steps) < _LONGEST_PATH:
            steps.append(write(step))
            _, around, write, step = around
        steps.append(f"{self.name}(+{depth - len(steps)})" if around else write(step))
        return "".join(reversed(steps))

    def _steps(self, value: Any, path: _Path) -> _Steps:
        if isinstance(value, dict):
            return self._mapping(value, path)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._sequence(value, path)
        return self._slice(value, path) if isinstance(value, slice) else self._object(value, path)

    def _sequence(self, value: Any, path: _Path) -> _Steps:
        changed = False
        items = []
        depth, prefix = path[0] + 1, ""
        for index, item in enumerate(value):
            if type(item) in ATOMS:
                plain = item
            elif isinstance(item, Holder):
                prefix = prefix or self._written(path)
                plain = self._found(item, f"{prefix}[{index}]")
            elif not _may_hold(item, type(item)):
                plain = item
            else:
                plain = yield item, (depth, path, _position, index)
            changed = changed or plain is not item
            items.append(plain)
        if not changed:
            return value
        kind = type(value)
        if kind in _PLAIN:
            return kind(items)
        if hasattr(kind, "_make"):
            return kind._make(items)
        if isinstance(value, list):
            twin = copy.copy(value)
            twin[:] = items
            return twin
        return kind(items)

    def _slice(self, value: slice, path: _Path) -> _Steps:
        return slice(*(yield from self._sequence((value.start, value.stop, value.step), path)))

    def _mapping(self, value: dict[Any, Any], path: _Path) -> _Steps:
        plain = {}
        changed = False
        depth = path[0] + 1
        for key, item in value.items():
            key_ = key if type(key) in ATOMS else (yield key, (depth, path, _key, None))
            item_ = item if type(item) in ATOMS else (yield item, (depth, path, _entry, key_))
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

    def _object(self, value: Any, path: _Path) -> _Steps:
        if hasattr(type(value), "__traced_items__"):
            return value.__traced_items__(self.plain, self._written(path))
        if is_dataclass(value):
            names: Iterable[str] = [f.name for f in fields(value)]
        else:
            names = type(value).model_fields
        plain = {}
        for name in names:
            item = getattr(value, name, None)
            at = path[0] + 1, path, _field, name
            item_ = item if type(item) in ATOMS else (yield item, at)
            if item_ is not item:
                plain[name] = item_
        if not plain:
            return value
        twin = copy.copy(value)
        for name, item in plain.items():
            object.__setattr__(twin, name, item)
        return twin
