"""A recorded run as data, and back: the nodes behind an output, each with its value and how it was made.

Made for a program that was stopped and goes on: the same program, with the same objects at hand. What
is read back is a graph like the one that was recorded: feedback goes back through it, problems are cut
from it, and its values are equal. Nothing is imported or unpickled. Only where gradients live in torch is the
operation called once more that made the tensor, see `recomputed`. What cannot be written down and is not
at hand is refused; nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from tracegraph.asking import Asked
from tracegraph.errors import HistoryError
from tracegraph.failure import Failure
from tracegraph.held import held, is_written, put
from tracegraph.history.at_hand import AtHand
from tracegraph.history.recomputed import (
    bundle_at,
    is_followed,
    laid_out,
    layouts_of,
    made_again,
    mark_of,
    numbers_inside,
    tensors_inside,
)
from tracegraph.history.values import pack, unpack
from tracegraph.kinds import is_array, is_tensor, show
from tracegraph.lifting import is_cut
from tracegraph.node import Node, leaf, record
from tracegraph.operators import Operation, is_own, own
from tracegraph.parameter import Parameter

__all__ = ["trace_data", "trace_of"]

_MOST: Final = 64 << 20
"""The most bytes of tensors and arrays in a run that is kept."""
_DEEPEST: Final = 50
_MOST_NODES: Final = 500_000
_ATOMS: Final = frozenset({str, bool, int, float, complex, bytes, type(None), type(Ellipsis)})
_SEQUENCES: Final = frozenset({list, tuple})
_DATACLASSES: Final = {kind.__name__: kind for kind in (Asked, Failure)}


def trace_data(
    output: Node[Any],
    hand: AtHand,
    *,
    since: int = 0,
    given: Mapping[str, Any] | None = None,
    tensors: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The nodes behind `output` as JSON-able data, which `trace_of` reads.

    Args:
        output: where the run ended.
        hand: knows the objects that will be there again.
        since: nodes with smaller ids were there before the run, and must be at hand themselves.
        given: further objects that will be there again, by name, such as the run's example.
        tensors: takes the tensors and arrays of the run, by name, which lie beside the data; without
            it there may be none.

    Raises:
        HistoryError: something in it can neither be written down nor found again; says what.

    >>> import tracegraph as tg
    >>> word = tg.node("hello", trainable=True, name="word")
    >>> hand = AtHand({"word": word})
    >>> again = trace_of(trace_data(word.upper() + "!", hand), hand)
    >>> again.data, again.op, list(again.backward("Not so loud."))
    ('HELLO!', 'add', [Parameter(word, text, version 0, "'hello'")])
    """
    return _Keeper(hand, since, given or {}, tensors).entries(output)


def trace_of(
    data: list[dict[str, Any]],
    hand: AtHand,
    *,
    given: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Any] | None = None,
) -> Node[Any]:
    """The output of a run that `trace_data` wrote, with all nodes behind it; their ids are new.

    Raises:
        HistoryError: something that it needs is not at hand here, or is no longer what it was.
    """
    return _Reader(hand, given or {}, tensors or {}).output(data)


class _Keeper:
    """Writes the nodes of one run."""

    def __init__(
        self,
        hand: AtHand,
        since: int,
        given: Mapping[str, Any],
        tensors: dict[str, Any] | None,
    ) -> None:
        self.hand, self.since, self.given, self.tensors = hand, since, given, tensors
        self.numbers: dict[int, int] = {}
        self.room, self.depth = _MOST, 0
        self.first: dict[int, int] = {}  # which node has a tensor first, by the tensor's id

    def entries(self, output: Node[Any]) -> list[dict[str, Any]]:
        nodes = self.behind(output._leaf())
        self.numbers = {id(node): number for number, node in enumerate(nodes)}
        made = []
        for number, node in enumerate(nodes):
            made.append(self.entry(node))
            if is_tensor(node._data):
                self.first.setdefault(id(node._data), number)
        return made

    def behind(self, output: Node[Any]) -> list[Node[Any]]:
        """All nodes of the run, inputs first; of what was there before, those that are read."""
        found: dict[int, Node[Any]] = {}
        todo = [output]
        while todo:
            node = todo.pop()
            if id(node) in found:
                continue
            found[id(node)] = node
            if len(found) > _MOST_NODES:
                raise HistoryError(f"the run has more than {_MOST_NODES:,} nodes and is not kept")
            if self.made_in_run(node):
                todo += node._inputs
                todo += [fact for fact in (node._extra or {}).values() if _is_node(fact)]
        rest = sorted((n for n in found.values() if n is not output), key=lambda n: n.id)
        return [*rest, output]

    def made_in_run(self, node: Node[Any]) -> bool:
        return node.parameter is None and node.id >= self.since

    def entry(self, node: Node[Any]) -> dict[str, Any]:
        if node.parameter is not None:
            if node.parameter._leaf() is not node:
                raise HistoryError(f"{node.name} is an older version of its parameter")
            return {"leaf": self.way(node.parameter)}
        if not self.made_in_run(node):
            return {"node": self.way(node)}
        made: dict[str, Any] = {}
        operation = node._operation
        if operation is not None:
            made["operation"] = self.operation(operation)
            made["inputs"] = [
                [name, self.numbers[id(source)]]
                for name, source in zip(node._names, node._inputs, strict=True)
            ]
        if operation is not None and self.is_made_again(node):
            if "code" in made["operation"]:
                raise HistoryError(f"{operation.name} was decorated within the run, and is gone")
            self.take_room(node._data)
            made["again"] = mark_of(node._data)
            if "held" in made["operation"]:
                made["bundle"] = bundle_at(made["operation"]["held"], self.hand)
        else:
            made["value"] = self.value(node._data, leaf_of_torch=_is_cut(node))
        facts = {n: f for n, f in (node._extra or {}).items() if n != "lifted"}
        if facts:  # a number is lifted into torch again where torch needs it
            made["facts"] = [[n, self.fact(f)] for n, f in facts.items()]
        return made

    def is_made_again(self, node: Node[Any]) -> bool:
        return id(node._data) not in self.first and is_followed(node._data)

    def operation(self, operation: Operation) -> Any:
        if is_own(operation):
            return {"own": [operation.name, *operation.parameters]}
        code = operation.code
        known = code is not None and self.hand.way_to(operation) is not None
        if known or operation.rules is not None:
            return {"held": self.way(operation)}
        facts = operation.name, operation.parameters, operation.doc, operation.signature
        step = {"step": pack(list(facts), {})}
        if code is not None:  # decorated within the run: what was written is there again
            step["code"] = self.way(code)
        return step

    def fact(self, fact: Any) -> Any:
        if _is_node(fact):
            return {"number": self.numbers[id(fact)]}
        if type(fact) in _DATACLASSES.values():
            return {"kind": type(fact).__name__, "fields": pack(list(astuple(fact)), {})}
        return self.value(fact)

    def value(self, value: Any, *, leaf_of_torch: bool = False) -> Any:
        if type(value) is str:
            return {"plain": value}
        if id(value) in self.first:
            return {"of": self.first[id(value)]}
        for known, item in self.given.items():
            if item is value and type(value) not in _ATOMS:
                return {"given": known}
        if _plain(value):
            return {"plain": pack(value, {})}
        if self.tensors is not None and _numbers(value, leaf_of_torch):
            self.take_room(value)
            way = self.hand.way_to(value)
            if way is not None:
                return {"held": way, "mark": mark_of(value)}
            return self.beside(value, self.tensors)
        if self.hand.way_to(value) is None and _is_data(value):
            return self.parts(value)
        return {"held": self.way(value)}

    def parts(self, value: Any) -> dict[str, Any]:
        """A container, a dataclass or a model, part by part, or a choice by its name."""
        kind = type(value)
        self.depth += 1
        if self.depth > _DEEPEST:
            raise HistoryError(f"a {kind.__name__} is nested too deeply, or holds itself")
        try:
            if kind in _SEQUENCES:
                return {"items": [self.value(item) for item in value], "kind": kind.__name__}
            if kind is dict:
                return {"pairs": [[self.value(k), self.value(v)] for k, v in value.items()]}
            if isinstance(value, Enum):
                return {"member": value.name, "class": self.way(kind)}
            holds = [[name, self.value(part)] for name, part in held(value).items()]
            return {"holds": holds, "class": self.way(kind)}
        finally:
            self.depth -= 1

    def beside(self, value: Any, tensors: dict[str, Any]) -> Any:
        known = len(tensors)
        made = {"plain": pack(value, tensors)}
        names = [n for n in list(tensors)[known:] if is_tensor(tensors[n])]
        layouts = dict(zip(names, layouts_of(value), strict=True))
        if any(layouts.values()):
            made["layout"] = layouts
        return made

    def take_room(self, value: Any) -> None:
        self.room -= sum(numbers.nbytes for numbers in numbers_inside(value))
        if self.room < 0:
            raise HistoryError(
                f"the tensors of the run have more than {_MOST:,} bytes: it is not kept"
            )

    def way(self, value: Any) -> str:
        way = self.hand.way_to(value)
        if way is None:
            raise HistoryError(
                f"{show(value, 80)} ({type(value).__name__}) is no plain data, and is not held "
                "where it could be found again"
            )
        return way


class _Reader:
    """Makes the nodes of one run again."""

    def __init__(self, hand: AtHand, given: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
        self.hand, self.given, self.tensors = hand, given, tensors
        self.made: list[Node[Any]] = []

    def output(self, data: list[dict[str, Any]]) -> Node[Any]:
        try:
            for entry in data:
                self.made.append(self.node(entry))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise HistoryError(
                f"a kept run cannot be read back here: {type(error).__name__} {error}"
            ) from error
        return self.made[-1]

    def node(self, entry: Mapping[str, Any]) -> Node[Any]:
        if "leaf" in entry:
            parameter = self.hand.at(entry["leaf"])
            if not isinstance(parameter, Parameter):
                raise TypeError(f"{entry['leaf']} is no parameter")
            return parameter._leaf()
        if "node" in entry:
            node: Node[Any] = self.hand.at(entry["node"])
            return node
        facts = {n: self.value(fact) for n, fact in entry.get("facts", ())}
        if "operation" not in entry:
            node = leaf(self.value(entry["value"]))
        else:
            operation = _operation(entry["operation"], self.hand)
            inputs = {name: self.made[n] for name, n in entry["inputs"]}
            if "again" in entry:
                node = made_again(
                    operation, entry.get("bundle"), inputs, entry["again"],
                    facts.get("captured", ()), self.hand,
                )  # fmt: skip
            else:
                value = self.value(entry["value"])
                node = record(operation, tuple(inputs), tuple(inputs.values()), value)
        node._extra = facts or None
        return node

    def value(self, data: Any) -> Any:
        if "number" in data:
            return self.made[data["number"]]
        if "of" in data:
            return self.made[data["of"]]._data
        if "fields" in data:
            return _DATACLASSES[data["kind"]](*unpack(data["fields"], {}))
        if "given" in data:
            return self.given[data["given"]]
        if "items" in data:
            items = map(self.value, data["items"])
            return tuple(items) if data["kind"] == "tuple" else list(items)
        if "pairs" in data:
            return {self.value(key): self.value(item) for key, item in data["pairs"]}
        if "class" in data:
            return self.instance(self.hand.at(data["class"]), data)
        if "held" in data:
            found = self.hand.at(data["held"])
            if "mark" in data and mark_of(found) != data["mark"]:
                raise ValueError(f"{data['held']} has other numbers now")
            return found
        layouts = data.get("layout", {})
        moved = {name: laid_out(self.tensors[name], layouts[name]) for name in layouts}
        return unpack(data["plain"], {**self.tensors, **moved} if moved else self.tensors)

    def instance(self, kind: Any, data: Mapping[str, Any]) -> Any:
        """A choice, or an object that holds what it held; nothing of its class runs."""
        if not isinstance(kind, type):
            raise TypeError(f"{data['class']} is no class")
        if "member" in data:
            return kind[data["member"]]  # type: ignore[index]
        made: Any = object.__new__(kind)
        for name, part in data["holds"]:
            put(made, name, self.value(part))
        return made


def _operation(data: Any, hand: AtHand) -> Operation:
    if "held" in data:
        found: Operation = hand.at(data["held"])
        return found
    if "own" in data:
        name, *parameters = data["own"]
        return own(name, tuple(parameters))
    return _step(*unpack(data["step"], {}), hand.at(data["code"]) if "code" in data else None)


@lru_cache(maxsize=1024)
def _step(name: str, parameters: tuple[str, ...], doc: str, signature: str, code: Any) -> Operation:
    """An operation whose function is not there, if it ever was; the same one for all nodes that it made."""
    return Operation(name, None, parameters, doc=doc, signature=signature, code=code)


def _is_node(fact: Any) -> bool:
    return isinstance(fact, Node) and not isinstance(fact, Parameter)


def _is_data(value: Any) -> bool:
    """Whether a value is made of parts that are told one by one: declared as data, and nothing else."""
    kind = type(value)
    if kind in _SEQUENCES or kind is dict or isinstance(value, Enum):
        return True
    declared = is_dataclass(kind) or hasattr(kind, "model_fields")
    return declared and all(is_written(base) or base is object for base in kind.__mro__)


def _is_cut(node: Node[Any]) -> bool:
    """Whether gradients leave torch at this node's tensor, and go on by a rule."""
    return node._operation is not None and is_cut(node._operation)


def _numbers(value: Any, leaf_of_torch: bool) -> bool:
    """Whether a value is plain but for tensors and arrays, which are numbers and nothing else."""
    if any(tensor.requires_grad for tensor in tensors_inside(value)):
        return leaf_of_torch and type(value).__module__ == "torch"
    return _plain(value, numbers=True)


def _plain(value: Any, depth: int = 0, *, numbers: bool = False) -> bool:
    """Whether a value is of builtin types throughout, so that what is read back shows the same.

    With `numbers` tensors and arrays count as such, where they are numbers on this machine's processor.
    """
    kind = type(value)
    if kind in _ATOMS:
        return True
    if depth > _DEEPEST:
        return False
    inside = depth + 1
    if kind in _SEQUENCES:
        return all(_plain(item, inside, numbers=numbers) for item in value)
    if kind is set or kind is frozenset:
        return all(type(item) in _ATOMS for item in value)
    if kind is slice:
        return _plain((value.start, value.stop, value.step), inside, numbers=numbers)
    if kind is dict:
        return all(_plain(k) and _plain(v, inside, numbers=numbers) for k, v in value.items())
    if not numbers:
        return False
    if is_tensor(value):
        return kind.__module__ == "torch" and value.device.type == "cpu"
    return kind.__module__ == "numpy" and (is_array(value) or hasattr(value, "dtype"))
