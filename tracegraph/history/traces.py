"""A recorded run as data, and back: the nodes behind an output, each with its value and how it was made.

Made for a program that was stopped and goes on: the same program, with the same objects at hand. What
is read back is a graph like the one that was recorded: feedback goes back through it, problems are cut
from it, and its values are equal. Nothing is run, imported or unpickled. What cannot be written down,
above all tensors and their gradients, and what is not at hand, is refused; nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from functools import lru_cache
from typing import Any, Final

from tracegraph.asking import Asked
from tracegraph.errors import HistoryError
from tracegraph.failure import Failure
from tracegraph.history.at_hand import AtHand
from tracegraph.history.values import pack, unpack
from tracegraph.kinds import show
from tracegraph.node import Node, leaf, record
from tracegraph.operators import Operation, is_own, own
from tracegraph.parameter import Parameter

__all__ = ["trace_data", "trace_of"]

_MOST: Final = 5_000
_ATOMS: Final = frozenset({str, bool, int, float, complex, bytes, type(None)})
_SEQUENCES: Final = frozenset({list, tuple})
_DATACLASSES: Final = {kind.__name__: kind for kind in (Asked, Failure)}


def trace_data(
    output: Node[Any], hand: AtHand, *, since: int = 0, given: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The nodes behind `output` as JSON-able data, which `trace_of` reads.

    Args:
        output: where the run ended.
        hand: knows the objects that will be there again.
        since: nodes with smaller ids were there before the run, and must be at hand themselves.
        given: further objects that will be there again, by name, such as the run's example.

    Raises:
        HistoryError: something in it can neither be written down nor found again; says what.

    >>> import tracegraph as tg
    >>> word = tg.node("hello", trainable=True, name="word")
    >>> hand = AtHand({"word": word})
    >>> again = trace_of(trace_data(word.upper() + "!", hand), hand)
    >>> again.data, again.op, list(again.backward("Not so loud."))
    ('HELLO!', 'add', [Parameter(word, text, version 0, "'hello'")])
    """
    return _Keeper(hand, since, given or {}).entries(output)


def trace_of(
    data: list[dict[str, Any]], hand: AtHand, *, given: Mapping[str, Any] | None = None
) -> Node[Any]:
    """The output of a run that `trace_data` wrote, with all nodes behind it; their ids are new.

    Raises:
        HistoryError: something that it needs is not at hand here; nothing was made.
    """
    made: list[Node[Any]] = []
    try:
        for entry in data:
            made.append(_made(entry, made, hand, given or {}))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise HistoryError(
            f"a kept run cannot be read back here: {type(error).__name__} {error}"
        ) from error
    return made[-1]


class _Keeper:
    """Writes the nodes of one run."""

    def __init__(self, hand: AtHand, since: int, given: Mapping[str, Any]) -> None:
        self.hand, self.since, self.given = hand, since, given
        self.numbers: dict[int, int] = {}

    def entries(self, output: Node[Any]) -> list[dict[str, Any]]:
        nodes = self.behind(output._leaf())
        self.numbers = {id(node): number for number, node in enumerate(nodes)}
        return [self.entry(node) for node in nodes]

    def behind(self, output: Node[Any]) -> list[Node[Any]]:
        """All nodes of the run, inputs first; of what was there before, those that are read."""
        found: dict[int, Node[Any]] = {}
        todo = [output]
        while todo:
            node = todo.pop()
            if id(node) in found:
                continue
            found[id(node)] = node
            if len(found) > _MOST:
                raise HistoryError(f"the run has more than {_MOST:,} nodes and is not kept")
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
        made: dict[str, Any] = {"value": self.value(node._data)}
        if node._operation is not None:
            made["operation"] = self.operation(node._operation)
            made["inputs"] = [
                [name, self.numbers[id(source)]]
                for name, source in zip(node._names, node._inputs, strict=True)
            ]
        if node._extra:
            made["facts"] = [[n, self.fact(f)] for n, f in node._extra.items()]
        return made

    def operation(self, operation: Operation) -> Any:
        if is_own(operation):
            return {"own": [operation.name, *operation.parameters]}
        if operation.code is None and operation.rules is None:
            facts = operation.name, operation.parameters, operation.doc, operation.signature
            return {"step": pack(list(facts), {})}
        return {"held": self.way(operation)}

    def fact(self, fact: Any) -> Any:
        if _is_node(fact):
            return {"number": self.numbers[id(fact)]}
        if type(fact) in _DATACLASSES.values():
            return {"kind": type(fact).__name__, "fields": pack(list(astuple(fact)), {})}
        return self.value(fact)

    def value(self, value: Any) -> Any:
        if type(value) is str:
            return {"plain": value}
        if _plain(value):
            return {"plain": pack(value, {})}
        for known, item in self.given.items():
            if item is value:
                return {"given": known}
        return {"held": self.way(value)}

    def way(self, value: Any) -> str:
        way = self.hand.way_to(value)
        if way is None:
            raise HistoryError(
                f"{show(value, 80)} ({type(value).__name__}) is no plain data, and is not held "
                "where it could be found again"
            )
        return way


def _made(
    entry: Mapping[str, Any], made: list[Node[Any]], hand: AtHand, given: Mapping[str, Any]
) -> Node[Any]:
    if "leaf" in entry:
        parameter = hand.at(entry["leaf"])
        if not isinstance(parameter, Parameter):
            raise TypeError(f"{entry['leaf']} is no parameter")
        return parameter._leaf()
    if "node" in entry:
        node: Node[Any] = hand.at(entry["node"])
        return node
    value = _read(entry["value"], made, hand, given)
    facts = {n: _read(fact, made, hand, given) for n, fact in entry.get("facts", ())}
    if "operation" not in entry:
        node = leaf(value)
    else:
        operation = _operation(entry["operation"], hand)
        names = tuple(name for name, _ in entry["inputs"])
        node = record(operation, names, tuple(made[n] for _, n in entry["inputs"]), value)
    node._extra = facts or None
    return node


def _operation(data: Any, hand: AtHand) -> Operation:
    if "held" in data:
        held: Operation = hand.at(data["held"])
        return held
    if "own" in data:
        name, *parameters = data["own"]
        return own(name, tuple(parameters))
    return _step(*unpack(data["step"], {}))


@lru_cache(maxsize=1024)
def _step(name: str, parameters: tuple[str, ...], doc: str, signature: str) -> Operation:
    """An operation of no function that a person wrote; the same one for all nodes that it made."""
    return Operation(name, None, parameters, doc=doc, signature=signature)


def _read(data: Any, made: list[Node[Any]], hand: AtHand, given: Mapping[str, Any]) -> Any:
    if "number" in data:
        return made[data["number"]]
    if "kind" in data:
        return _DATACLASSES[data["kind"]](*unpack(data["fields"], {}))
    if "given" in data:
        return given[data["given"]]
    return hand.at(data["held"]) if "held" in data else unpack(data["plain"], {})


def _is_node(fact: Any) -> bool:
    return isinstance(fact, Node) and not isinstance(fact, Parameter)


def _plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is of builtin types throughout, so that what is read back shows the same."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if depth > 50:
        return False
    if kind in _SEQUENCES:
        return all(_plain(item, depth + 1) for item in value)
    return kind is dict and all(_plain(k) and _plain(v, depth + 1) for k, v in value.items())
