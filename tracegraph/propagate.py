"""Carry feedback from outputs to parameters.

One reverse walk, largest id first, visits every node behind the outputs once: a message knows how to
merge, a rule knows where it goes next, and the walk knows nothing else. Nothing is written onto the
graph. Time and memory are linear in the edges, and there is no recursion.
"""

from __future__ import annotations

import heapq
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tracegraph.errors import FeedbackError, NoRule, StaleFeedback
from tracegraph.feedback import Feedback, Gradient, as_feedback
from tracegraph.kinds import is_tensor, show
from tracegraph.node import Node, _walk
from tracegraph.parameter import Parameter

__all__ = ["StaleFeedbackWarning", "backward", "register_rule"]

Rule = Callable[[Node[Any], Any], Mapping[str, Any]]
Messages = dict[type, Feedback]
Received = dict[Parameter[Any], Messages]

_rules: dict[tuple[str, type], Rule] = {}


class StaleFeedbackWarning(UserWarning):
    """Feedback about a version of a parameter that is gone was discarded."""


def register_rule(operation: str, kind: type[Feedback], rule: Rule) -> None:
    """Say how feedback of a type goes back through every operation of a name.

    Args:
        operation: the operation's name, such as ``"add"``. A rule that a bundle brings wins.
        kind: the type of feedback.
        rule: ``rule(node, feedback) -> {input name: feedback}``; inputs left out receive none.
    """
    _rules[operation, kind] = rule


def backward(
    outputs: Iterable[tuple[Any, ...]],
    *,
    strict: bool = False,
    create_graph: bool = False,
    **former: Any,
) -> Received:
    """Carry the feedback on several outputs back in one walk.

    Args:
        outputs: ``(node, feedback)`` or ``(node, feedback, weight)`` each.
        strict: raise where feedback is about a version of a parameter that is gone; by default it
            is discarded with a `StaleFeedbackWarning`.
        create_graph: keep gradients differentiable.

    Returns:
        The messages that arrived, by parameter and by type. They are added to `Parameter.feedback`
        as well, where they stay until a step or `zero_feedback`.

    Raises:
        UnknownFeedback: a value that is no feedback.
        NoRule: a gradient met an operation that cannot carry one, before a parameter.
        FeedbackError: a rule gave what is no answer.

    >>> import tracegraph as tg
    >>> word = tg.node("hello", trainable=True, name="word")
    >>> shout = word.upper()
    >>> backward([(shout, "not so loud")])[word][tg.Remark]
    Remark('not so loud')
    """
    _check_former(former)
    walk = _Walk(strict, create_graph)
    for entry in outputs:
        walk.start(entry)
    walk.run()
    return walk.deliver()


class _Walk:
    """One reverse walk: messages waiting at nodes, and what has arrived."""

    def __init__(self, strict: bool, create_graph: bool) -> None:
        self.strict = strict
        self.create_graph = create_graph
        self.waiting: dict[int, tuple[Node[Any], Messages]] = {}
        self.heap: list[int] = []
        self.outputs: dict[int, Node[Any]] = {}
        self.arrived: dict[Parameter[Any], tuple[int, Messages]] = {}
        self.seeds: list[tuple[Node[Any], Any]] = []

    def start(self, entry: tuple[Any, ...]) -> None:
        if not isinstance(entry, tuple) or len(entry) not in (2, 3):
            raise TypeError(
                f"backward takes (node, feedback) or (node, feedback, weight), got {show(entry, 80)}"
            )
        output, given, *rest = entry
        if not isinstance(output, Node):
            raise TypeError(
                f"backward starts at a node, got {show(output, 80)}: feedback on a plain value "
                "cannot find its way; was tracing off, or .data taken too early?"
            )
        start = output._leaf()
        weight = _weight(rest[0]) if rest else 1.0
        self.outputs[start.id] = start
        for message in as_feedback(given, start):
            self.send(start, message.given_at(start, weight))

    def send(self, target: Node[Any], message: Feedback) -> None:
        found = self.waiting.get(target.id)
        kind = type(message)
        if found is None:
            self.waiting[target.id] = (target, {kind: message})
            heapq.heappush(self.heap, -target.id)
            return
        messages = found[1]
        before = messages.get(kind)
        messages[kind] = message if before is None else before.merge(message)

    def run(self) -> None:
        heap, waiting, pop = self.heap, self.waiting, heapq.heappop
        while heap:
            visited, messages = waiting.pop(-pop(heap))
            extra = visited._extra
            parameter = None if extra is None else extra.get("parameter")
            if parameter is not None:
                self.reach(parameter, extra["version"], messages)  # type: ignore[index]
                continue
            for kind, message in messages.items():
                rule = self.rule(visited, kind)
                if rule is not None:
                    self.follow(visited, message, rule)
                elif kind is Gradient:
                    self.differentiate(visited, message)
                else:
                    self.spread(visited, kind, message)

    def rule(self, visited: Node[Any], kind: type) -> Rule | None:
        operation = visited._operation
        if operation is None:
            return None
        if operation.rules is not None and kind in operation.rules:
            return operation.rules[kind]
        return _rules.get((operation.name, kind)) if _rules else None

    def spread(self, visited: Node[Any], kind: type, message: Feedback) -> None:
        """The default: the same message to every input."""
        waiting, heap = self.waiting, self.heap
        for target in visited._inputs:
            found = waiting.get(target.id)
            if found is None:
                waiting[target.id] = (target, {kind: message})
                heapq.heappush(heap, -target.id)
            else:
                before = found[1].get(kind)
                found[1][kind] = message if before is None else before.merge(message)

    def follow(self, visited: Node[Any], message: Feedback, rule: Rule) -> None:
        answer = rule(visited, message)
        inputs = visited.inputs
        if not isinstance(answer, Mapping):
            raise FeedbackError(
                f"the rule of {visited.op!r} for {type(message).__name__} must give a mapping from "
                f"input names to feedback, it gave {show(answer, 80)}"
            )
        for name, part in answer.items():
            if name not in inputs:
                raise FeedbackError(
                    f"the rule of {visited.op!r} names the input {name!r}, but the inputs are "
                    f"{', '.join(inputs) or 'none'}"
                )
            if part is not None:
                target = inputs[name]
                for one in as_feedback(part, target):
                    self.send(target, one)

    def differentiate(self, visited: Node[Any], message: Feedback) -> None:
        if is_tensor(visited._data):
            self.seeds.append((visited, message.value))  # type: ignore[attr-defined]
            return
        if visited._inputs and _parameters_behind([visited]):
            raise NoRule(
                f"a gradient reached {visited.name}, which holds {show(visited._data, 60)} and no "
                "tensor, and parameters lie behind it: give the operation a rule "
                "(rules={Gradient: ...}), or feedback in words or as a Score"
            )

    def reach(self, parameter: Parameter[Any], version: int, messages: Messages) -> None:
        if not parameter.trainable:
            return
        if version != parameter.version:
            said = (
                f"feedback for version {version} of {parameter.label!r} came after version "
                f"{parameter.version} began; run the workflow again with the new value"
            )
            if self.strict:
                raise StaleFeedback(said)
            warnings.warn(f"{said} (discarded)", StaleFeedbackWarning, stacklevel=5)
            return
        gradient = messages.pop(Gradient, None)
        if gradient is not None:
            self.gradient(parameter, gradient)
        if messages:
            self.arrive(parameter, version, messages)

    def gradient(self, parameter: Parameter[Any], message: Any) -> None:
        if is_tensor(parameter._data):
            self.seeds.append((parameter._leaf(), message.value))
        else:
            self.arrive(parameter, parameter.version, {Gradient: message})

    def arrive(self, parameter: Parameter[Any], version: int, messages: Messages) -> None:
        _, before = self.arrived.setdefault(parameter, (version, {}))
        for kind, message in messages.items():
            before[kind] = before[kind].merge(message) if kind in before else message

    def deliver(self) -> Received:
        if self.seeds:
            from tracegraph.tensor import differentiate

            found = _parameters_behind([seed for seed, _ in self.seeds])
            for parameter, gradient in differentiate(self.seeds, found, self.create_graph).items():
                self.arrive(parameter, parameter.version, {Gradient: Gradient(gradient)})
        for parameter, (version, messages) in self.arrived.items():
            for message in messages.values():
                parameter.receive(message, self.outputs, version)
        return {parameter: messages for parameter, (_, messages) in self.arrived.items()}


def _weight(given: Any) -> float:
    try:
        weight = float(given)
    except (TypeError, ValueError):
        weight = math.nan
    if not math.isfinite(weight):
        raise ValueError(
            f"a weight is a finite number, got {show(given, 80)}: it says how much the feedback on "
            "one output counts beside the others"
        )
    return weight


def _parameters_behind(nodes: list[Node[Any]]) -> list[Parameter[Any]]:
    todo = list(nodes)
    seen: set[int] = set()
    found: dict[Parameter[Any], None] = {}
    while todo:
        visited = todo.pop()
        if visited.id in seen:
            continue
        seen.add(visited.id)
        parameter = visited.parameter
        if parameter is not None and parameter.trainable:
            found[parameter] = None
        todo.extend(visited._inputs)
    return list(found)


_ELSEWHERE = {
    "visualize": "draw the graph with Graph.of(node).render('trace.svg'), or show Graph.of(node) in a "
    "notebook",
    "propagator": "rules belong to operations: register_rule or @bundle(rules=...)",
}
_QUIET = frozenset({"retain_graph", "simple_visualization", "reverse_plot", "print_limit"})
"""Nothing is written onto a graph, so it can always be walked again; pictures are drawn elsewhere."""


def _check_former(options: Mapping[str, Any]) -> None:
    """Options of Microsoft Trace: those that change nothing here pass, the others are explained."""
    for name, value in options.items():
        if name not in _ELSEWHERE and name not in _QUIET:
            raise TypeError(
                f"backward has no option {name!r}; it has weight, strict and create_graph"
            )
        if name in _ELSEWHERE and value is not None and value is not False:
            raise TypeError(f"backward has no option {name!r}: {_ELSEWHERE[name]}")


def _from_node(
    outputs: list[tuple[Any, ...]], *, strict: bool, create_graph: bool, **former: Any
) -> Mapping[Any, Any]:
    return backward(outputs, strict=strict, create_graph=create_graph, **former)


_walk.append(_from_node)
