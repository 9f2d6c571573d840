"""Carry feedback from outputs to parameters.

One reverse walk, largest id first, visits every node behind the outputs once: a message knows how to
merge, a rule knows where it goes next, and the walk knows nothing else. Nothing is written onto the
graph. Time and memory are linear in the edges, and there is no recursion.

Gradients at tensors wait until torch's engine takes them, all at once: at the end of the walk, and
before a rule of an operation that torch's record was cut at, for that rule needs the whole of what
comes to it. So a walk without such operations is one engine call.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tracegraph.arithmetic import is_real, like, pull_arithmetic, smooth
from tracegraph.array_calls import CALLS
from tracegraph.errors import FeedbackError, NoRule, StaleFeedback
from tracegraph.feedback import Feedback, Gradient, as_feedback
from tracegraph.kinds import is_array, is_tensor, show
from tracegraph.lifting import CUT, leaf_of
from tracegraph.node import Node, _walk
from tracegraph.parameter import Parameter
from tracegraph.warning import warn

__all__ = ["StaleFeedbackWarning", "backward", "register_rule"]

Rule = Callable[[Node[Any], Any], Mapping[str, Any]]
Messages = dict[type, Feedback]
Received = dict[Node[Any], Messages]

_rules: dict[tuple[str, type], Rule] = {}


class StaleFeedbackWarning(UserWarning):
    """Feedback about a version of a parameter that is gone was discarded."""


def register_rule(operation: str, kind: type[Feedback], rule: Rule) -> None:
    """Say how feedback of a type goes back through every operation of a name.

    Args:
        operation: the operation's name, such as ``"add"``. A rule that a bundle brings wins.
        kind: the type of feedback.
        rule: ``rule(node, feedback) -> {input name: feedback}``; inputs left out receive none. A rule
            for `Gradient` holds for what is recorded from now on, of tensors too.

    Raises:
        TypeError: it is no name, no type of feedback, or no function.
    """
    if not isinstance(operation, str) or not callable(rule):
        raise TypeError(
            "register_rule takes an operation's name, a type of feedback and a function (node, feedback) -> "
            f"{{input: feedback}}, got {show(operation, 40)} and {show(rule, 40)}"
        )
    if not (isinstance(kind, type) and issubclass(kind, Feedback)):
        raise TypeError(f"a rule is for a type of feedback, such as Remark, got {show(kind, 80)}")
    _rules[operation, kind] = rule
    if kind is Gradient:
        CUT.add(operation)


def backward(
    outputs: Iterable[tuple[Any, ...]],
    *,
    strict: bool = False,
    create_graph: bool = False,
    inspect: Iterable[Node[Any]] = (),
    tensors: Iterable[Any] = (),
    **former: Any,
) -> Received:
    """Carry the feedback on several outputs back in one walk.

    Args:
        outputs: ``(node, feedback)`` or ``(node, feedback, weight)`` each.
        strict: raise where feedback is about a version of a parameter that is gone; by default it
            is discarded with a `StaleFeedbackWarning`.
        create_graph: keep gradients differentiable.
        inspect: nodes on the way whose messages are wanted too; others cost nothing.
        tensors: torch's own tensors that are no parameters and are to get their gradient too, in
            ``.grad`` as in torch; those that require none are passed over. In a process group of
            torch all leaves behind the outputs get theirs.

    Returns:
        The messages that arrived, by parameter and by type. They are added to `Parameter.feedback`
        as well, where they stay until a step or `zero_feedback`. The messages that came to the
        nodes of `inspect` stand beside them, by node.

    Raises:
        UnknownFeedback: a value that is no feedback.
        NoRule: a gradient met an operation that cannot carry one, before a parameter; or it came to
            a whole number.
        FeedbackError: a rule gave what is no answer.

    >>> import tracegraph as tg
    >>> word = tg.node("hello", trainable=True, name="word")
    >>> shout = word.upper()
    >>> backward([(shout, "not so loud")])[word][tg.Remark]
    Remark('not so loud')
    """
    _check_former(former)
    walk = _Walk(strict, create_graph, inspect, tensors)
    for entry in outputs:
        walk.start(entry)
    walk.run()
    return walk.deliver()


class _Walk:
    """One reverse walk: messages waiting at nodes, and what has arrived."""

    def __init__(
        self,
        strict: bool,
        create_graph: bool,
        inspect: Iterable[Node[Any]],
        tensors: Iterable[Any],
    ) -> None:
        self.strict = strict
        self.create_graph = create_graph
        self.waiting: dict[int, tuple[Node[Any], Messages]] = {}
        self.heap: list[int] = []
        self.outputs: dict[int, Node[Any]] = {}
        self.arrived: dict[Parameter[Any], tuple[Node[Any], Messages]] = {}  # with its leaf
        self.stale: set[Parameter[Any]] = set()
        self.seeds: list[tuple[Node[Any], Any]] = []  # gradients that wait for torch's engine
        self.leaves: list[tuple[Node[Any], Any]] = []  # where they leave torch
        self.seen: set[int] = set()
        self.cut = False  # whether some leaf has more behind it
        self.inspected = _inspected(inspect)
        self.noticed: dict[int, Messages] = {}
        self.tensors = [x for x in tensors if x.requires_grad]
        self.beside: dict[int, Gradient] = {}  # what came to the tensors, by their ids
        self.carried: list[tuple[Node[Any], Gradient]] = []  # what is in `.grad` already
        self.passed = False  # whether torch's engine ran

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
        heap, waiting, pop, inspected = self.heap, self.waiting, heapq.heappop, self.inspected
        while heap or self.seeds:
            if self.seeds and (not heap or self.due(-heap[0])):
                self.flush()
                continue
            visited, messages = waiting.pop(-pop(heap))
            extra = visited._extra
            parameter = None if extra is None else extra.get("parameter")
            if inspected and visited.id in inspected:
                self.notice(visited, messages)
            if parameter is not None:
                self.reach(parameter, visited, messages)
                continue
            for kind, message in messages.items():
                rule = self.rule(visited, kind)
                if rule is not None:
                    self.follow(visited, message, rule)
                elif kind is Gradient:
                    self.differentiate(visited, message)
                else:
                    self.spread(visited, kind, message)

    def due(self, number: int) -> bool:
        """Whether the node's rule is next and torch may have more to bring to it."""
        visited, messages = self.waiting[number]
        return self.cut and Gradient in messages and self.rule(visited, Gradient) is not None

    def rule(self, visited: Node[Any], kind: type) -> Rule | None:
        operation = visited._operation
        if operation is None:
            return None
        if operation.rules is not None and kind in operation.rules:
            return operation.rules[kind]
        known = _rules.get((operation.name, kind)) if _rules else None
        if known is None and kind is Gradient and smooth(visited):
            return _arithmetic
        return known

    def flush(self) -> None:
        """Let torch's engine carry the gradients that wait, to where they leave torch."""
        from tracegraph.tensor import in_processes, pull

        seeds, self.seeds, self.passed = self.seeds, [], True
        top = max(seed.id for seed, _ in seeds)
        leaves = [(node, tensor) for node, tensor in self.leaves if node.id <= top]
        if in_processes() and not self.create_graph:
            self.pass_back(seeds, leaves)
            return
        ends = [*(tensor for _, tensor in leaves), *self.tensors]
        found = pull(seeds, ends, self.create_graph)
        for tensor, gradient in zip(self.tensors, found[len(leaves) :], strict=True):
            if gradient is not None:
                before = self.beside.get(id(tensor))
                message = Gradient(gradient)
                self.beside[id(tensor)] = message if before is None else before.merge(message)
        for (node, _), gradient in zip(leaves, found, strict=False):
            if gradient is None:
                continue
            message = Gradient(gradient)
            if node.id in self.inspected and _within(node):
                self.keep(node, message)
            else:
                self.send(node, message)

    def pass_back(
        self, seeds: list[tuple[Node[Any], Any]], leaves: list[tuple[Node[Any], Any]]
    ) -> None:
        """The same by torch's own pass, for other processes wait for it; `.grad` is written there."""
        from tracegraph.tensor import pass_back

        mine = {id(tensor) for node, tensor in leaves if _is_current(node, tensor)}
        mine |= set(map(id, self.tensors))
        tensors = [tensor for _, tensor in leaves]
        frozen = [node._data for node in _parameter_leaves([seed for seed, _ in seeds])]
        aside = [x for x in (*tensors, *frozen) if is_tensor(x) and x.is_leaf and id(x) not in mine]
        found = pass_back(seeds, tensors, aside)
        for (node, tensor), gradient in zip(leaves, found, strict=True):
            if gradient is None:
                continue
            message = Gradient(gradient)
            if node.id in self.inspected and (_within(node) or _is_current(node, tensor)):
                self.keep(node, message)
            if _is_current(node, tensor):
                self.carried.append((node, message))
            elif not _within(node):
                self.send(node, message)

    def notice(self, visited: Node[Any], messages: Messages) -> None:
        """Keep what came to a node that was asked about; what torch brings is kept by `flush`."""
        for kind, message in messages.items():
            if kind is not Gradient or not _within(visited):
                self.keep(visited, message)

    def keep(self, visited: Node[Any], message: Feedback) -> None:
        found = self.noticed.setdefault(visited.id, {})
        kind = type(message)
        found[kind] = found[kind].merge(message) if kind in found else message

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
                if isinstance(message, Gradient) and _numeric(part):
                    part = Gradient(part)
                for one in as_feedback(part, target):
                    self.send(target, one)

    def differentiate(self, visited: Node[Any], message: Feedback) -> None:
        if is_tensor(visited._data):
            from tracegraph.tensor import fitted, leaves_behind

            value = fitted(visited._data, message.value, visited.name)  # type: ignore[attr-defined]
            self.seeds.append((visited, value))
            found = leaves_behind(visited, self.seen, self.inspected)
            self.leaves += found
            self.cut = self.cut or any(
                node.parameter is None and not (node.id in self.inspected and _within(node))
                for node, _ in found
            )
            return
        if visited._inputs and _parameters_behind(visited):
            raise NoRule(
                f"a gradient reached {visited.name}, which holds {show(visited._data, 60)} and no "
                "tensor, and parameters lie behind it: give the operation a rule "
                "(rules={Gradient: ...}), or feedback in words or as a Score"
                + (_APART if "ran" in (visited._extra or {}) else "")
            )

    def reach(self, parameter: Parameter[Any], leaf: Node[Any], messages: Messages) -> None:
        if not parameter.trainable:
            return
        if leaf.version != parameter.version:
            self.refuse(parameter, leaf)
            return
        if Gradient in messages:
            gradient: Any = messages[Gradient]
            value = _value_for(parameter, leaf._data, gradient.value, self.create_graph)
            messages = {**messages, Gradient: Gradient(value)}
        self.arrive(parameter, leaf, messages)

    def refuse(self, parameter: Parameter[Any], leaf: Node[Any]) -> None:
        """Discard feedback about a version that is gone, and say so once."""
        if parameter in self.stale:
            return
        self.stale.add(parameter)
        said = (
            f"feedback for version {leaf.version} of {parameter.label!r} came after version "
            f"{parameter.version} began; run the workflow again with the new value"
        )
        if self.strict:
            raise StaleFeedback(said)
        warn(f"{said} (discarded)", StaleFeedbackWarning)

    def arrive(self, parameter: Parameter[Any], leaf: Node[Any], messages: Messages) -> None:
        _, before = self.arrived.setdefault(parameter, (leaf, {}))
        for kind, message in messages.items():
            before[kind] = before[kind].merge(message) if kind in before else message

    def deliver(self) -> Received:
        for parameter, (leaf, _) in list(self.arrived.items()):
            if leaf.version != parameter.version:  # another thread began one during the walk
                del self.arrived[parameter]
                self.refuse(parameter, leaf)
        self.accumulate()
        shards = [x for x in self.tensors if self.passed and hasattr(x, "to_local")]
        if shards and all(x.grad is None for x in shards):
            warn(_UNSHARED.format(len(shards)), UserWarning)
        for node, gradient in self.carried:
            self.arrive(node.parameter, node, {Gradient: gradient})  # type: ignore[arg-type]
        for parameter, (leaf, messages) in self.arrived.items():
            about: Any = leaf.version
            if not all(parameter.receive(m, self.outputs, about) for m in messages.values()):
                self.refuse(parameter, leaf)
        received: Received = {p: messages for p, (_, messages) in self.arrived.items()}
        for number, messages in self.noticed.items():
            received.setdefault(self.inspected[number], messages)
        return received

    def accumulate(self) -> None:
        """Add gradients to the tensors' ``.grad``, once where parameters share a tensor."""
        found = [(leaf._data, messages.get(Gradient)) for leaf, messages in self.arrived.values()]
        found += [(tensor, self.beside.get(id(tensor))) for tensor in self.tensors]
        done: set[int] = set()
        for tensor, message in found:
            if message is not None and is_tensor(tensor) and id(tensor) not in done:
                from tracegraph.tensor import accumulate

                done.add(id(tensor))
                accumulate(tensor, message.value)  # type: ignore[attr-defined]


_APART = (
    "; its code ran in the sandbox, where gradients go from tensors to tensors and torch must be loaded: "
    "bundle(sandbox=Policy(preload=('torch',), memory_mb=2048))"
)


_UNSHARED = (
    "none of the {} sharded tensors (DTensor) got a gradient. FSDP hears of plain tensors only, and not "
    "with create_graph=True: call its module inside a @bundle, which is given plain values, not on nodes"
)


def _inspected(nodes: Iterable[Node[Any]]) -> dict[int, Node[Any]]:
    found = {}
    for node in [nodes] if isinstance(nodes, Node) else nodes:
        if not isinstance(node, Node):
            raise TypeError(f"inspect= takes nodes of the graph, got {show(node, 80)}")
        leaf = node._leaf()
        found[leaf.id] = leaf
    return found


def _is_current(node: Node[Any], tensor: Any) -> bool:
    """Whether `tensor` is what the parameter of the leaf `node` holds and has not changed since."""
    parameter = node.parameter
    return parameter is not None and node._data is tensor and node.version == parameter.version


def _within(node: Node[Any]) -> bool:
    """Whether `node` is a tensor that torch recorded, and gradients do not leave torch there."""
    return is_tensor(node._data) and node._data.requires_grad and leaf_of(node) is None


def _numeric(value: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)) or (
        is_tensor(value) or is_array(value) or type(value).__module__ == "numpy"
    )


def _value_for(parameter: Parameter[Any], data: Any, value: Any, create_graph: bool) -> Any:
    """A gradient as `parameter` keeps it: a tensor, an array or a number, as its value `data` is.

    Raises:
        NoRule: the parameter holds whole numbers: nothing lies between them.
        FeedbackError: the gradient has another shape.
    """
    kind = parameter.kind.name
    if kind not in ("tensor", "number"):
        return value
    if is_tensor(data):
        if data.is_floating_point() or data.is_complex():
            from tracegraph.tensor import fitted

            return fitted(data, value, parameter.label)
    elif is_real(data):
        keep = create_graph and is_tensor(value) and value.requires_grad
        return value if keep else like(data, value, parameter.label)
    raise NoRule(
        f"a gradient came to {parameter.label!r}, which holds {show(data, 40)}: whole numbers have "
        f"no derivative; start from a floating number ({parameter.label}=1.0), or give the operation "
        "feedback in words or as a Score and let a search change it"
    )


def _arithmetic(node: Node[Any], message: Any) -> Mapping[str, Any]:
    try:
        if node._operation.name not in CALLS:  # type: ignore[union-attr]
            return pull_arithmetic(node, message.value)
        from tracegraph.tensor import pull_call

        return pull_call(node, message.value)
    except NoRule:
        if _parameters_behind(node):
            raise
        return {}


def _weight(given: Any) -> float:
    try:
        weight = float(given)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not math.isfinite(weight):
        raise ValueError(
            f"a weight is a finite number, got {show(given, 80)}: it says how much the feedback on "
            "one output counts beside the others"
        )
    return weight


def _parameter_leaves(nodes: list[Node[Any]]) -> list[Node[Any]]:
    """The leaves of parameters behind some nodes, of frozen ones too."""
    todo = list(nodes)
    seen: set[int] = set()
    found = []
    while todo:
        visited = todo.pop()
        if visited.id in seen:
            continue
        seen.add(visited.id)
        if visited.parameter is not None:
            found.append(visited)
        todo.extend(visited._inputs)
    return found


def _parameters_behind(node: Node[Any]) -> bool:
    """Whether something that trains lies behind `node`."""
    return any(leaf.parameter.trainable for leaf in _parameter_leaves([node]))  # type: ignore[union-attr]


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
                f"backward has no option {name!r}; it has weight, strict, create_graph, inspect and tensors"
            )
        if name in _ELSEWHERE and value is not None and value is not False:
            raise TypeError(f"backward has no option {name!r}: {_ELSEWHERE[name]}")


def _from_node(outputs: list[tuple[Any, ...]], **options: Any) -> Mapping[Any, Any]:
    return backward(outputs, **options)


_walk.append(_from_node)
