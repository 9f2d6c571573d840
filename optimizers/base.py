"""What every optimizer is: parameters, feedback, and a step that changes all or nothing.

A step proposes values, checks every one, and assigns all of them or none. Its `Update` says what
changed, what was rejected and why, and what it cost.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracegraph.errors import NotReached, OptimizerError, Rejected
from tracegraph.events import observed
from tracegraph.graph import Graph
from tracegraph.kinds import show
from tracegraph.module import check_names, named_parameters
from tracegraph.node import Node
from tracegraph.parameter import Parameter, assign_all
from tracegraph.propagate import StaleFeedbackWarning, backward
from tracegraph.warning import warn

if TYPE_CHECKING:
    from tracegraph import view

__all__ = ["Change", "Optimizer", "Proposal", "Rejection", "Update", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a step cost; ``cost`` is in dollars, ``None`` where the price is unknown."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None

    def __add__(self, other: Usage) -> Usage:
        """Both together; a cost that is unknown counts nothing beside one that is known."""
        costs = [usage.cost for usage in (self, other) if usage.cost is not None]
        return Usage(
            self.calls + other.calls,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            math.fsum(costs) if costs else None,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One parameter's new value; `version` is the one that began with it."""

    name: str
    parameter: Parameter[Any]
    before: Any
    after: Any
    version: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """A value that was not taken, and why, in words for a person and a model."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """Values that an optimizer suggests, by parameter, and what it said of them."""

    values: Mapping[Parameter[Any], Any]
    reasoning: str = ""
    rejections: tuple[Rejection, ...] = ()
    usage: Usage = Usage()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """What a step did; true when something changed."""

    changes: tuple[Change, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    reasoning: str = ""
    usage: Usage = field(default_factory=Usage)
    note: str = ""

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        lines = [f"{c.name}: {show(c.before, 60)} -> {show(c.after, 60)}" for c in self.changes]
        lines += [f"{r.name}: rejected, {r.reason}" for r in self.rejections]
        return "\n".join(lines) or self.note or "nothing changed"

    def _card(self) -> view.Card:
        """The update on a card, for a notebook or a terminal: differences, rejections, cost."""
        from tracegraph import view  # drawing is loaded when something is drawn

        cost = "unknown" if self.usage.cost is None else f"${self.usage.cost:.4g}"
        facts = {"note": self.note, "reasoning": self.reasoning}
        if self.usage.calls:
            facts |= {
                "calls": f"{self.usage.calls:,}", "cost": cost,
                "tokens": f"{self.usage.tokens_in:,} in, {self.usage.tokens_out:,} out",
            }  # fmt: skip
        parts: list[view.Part] = [view.Facts({name: said for name, said in facts.items() if said})]
        parts += [
            view.Difference(f"{c.name}, version {c.version}", _shown(c.before), _shown(c.after))
            for c in self.changes
        ]
        if self.rejections:
            rows = [(r.name, r.reason, show(r.value, 200)) for r in self.rejections]
            parts.append(view.Table("rejected", ("parameter", "why", "value"), rows))
        changed = ", ".join(c.name for c in self.changes)
        return view.Card(f"changed: {changed}" if changed else "nothing changed", tuple(parts))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return self._card().bundle(str(self))

    def __rich__(self) -> view.Card:
        return self._card()


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else show(value, 4_000)


class Optimizer(ABC):
    """Turns the feedback that arrived at some parameters into new values.

    Attributes:
        trust: whether code that it writes may run in place without being looked at; by default it
            runs in the sandbox. Set it before `step`.

    Args:
        parameters: a parameter, a list or dict of them, bundles, or a `Module`; at least one.

    Raises:
        OptimizerError: there is no parameter, or something else stands among them.
        DuplicateName: two parameters have the same given name.
    """

    trust: bool = False

    def __init__(self, parameters: Any) -> None:
        self.named_parameters: dict[str, Parameter[Any]] = collect(parameters)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.named_parameters)})"

    @property
    def parameters(self) -> list[Parameter[Any]]:
        """The parameters, in the order that they were given."""
        return list(self.named_parameters.values())

    def zero_feedback(self) -> None:
        """Forget the feedback that has arrived at the parameters."""
        for parameter in self.parameters:
            parameter.zero_feedback()

    def zero_grad(self) -> None:
        """The same, by the name that users of torch know."""
        self.zero_feedback()

    def backward(self, outputs: Any, feedback: Any = None, **options: Any) -> Mapping[Any, Any]:
        """Carry feedback back: ``backward(node, feedback)`` or ``backward([(node, feedback), ...])``.

        Raises:
            NotReached: none of this optimizer's parameters lies behind any of the outputs.
        """
        return reach(outputs, feedback, self.named_parameters, options)

    def step(self, *, bypassing: bool = False, **options: Any) -> Update:
        """Propose new values from the feedback that has arrived, and assign all or none.

        Without feedback nothing is asked and nothing changes. When an error is raised nothing has
        changed and the feedback stays.

        Args:
            bypassing: only say what would change.
            **options: what the optimizer's own `propose` takes.
        """
        if not self.ready():
            return Update(note=why_idle(self.parameters))
        with observed("step", optimizer=self, bypassing=bypassing) as facts:
            update = self.settle(self.propose(**options), bypassing=bypassing)
            facts["update"] = update
        return update

    def ready(self) -> bool:
        """Whether feedback has arrived that a step can use; what is stale is discarded."""
        self._discard_stale()
        return self._has_feedback()

    def settle(self, proposal: Proposal, *, bypassing: bool = False) -> Update:
        """Check every value of a proposal, then assign all or none."""
        names = {id(p): name for name, p in self.named_parameters.items()}
        rejections = list(proposal.rejections)
        checked: list[tuple[str, Parameter[Any], Any]] = []
        for parameter, value in proposal.values.items():
            name = names.get(id(parameter), parameter.label)
            try:
                if id(parameter) not in names:
                    raise Rejected(
                        parameter=parameter, reason="it is no parameter of this optimizer"
                    )
                if not parameter.trainable:
                    raise Rejected(parameter=parameter, reason="it is frozen")
                checked.append((name, parameter, parameter.check(value)))
            except Rejected as error:
                rejections.append(Rejection(name, value, error.reason))
        changes: tuple[Change, ...] = () if rejections else self._change(checked, bypassing)
        return Update(changes, tuple(rejections), proposal.reasoning, proposal.usage, proposal.note)

    def _change(
        self, checked: list[tuple[str, Parameter[Any], Any]], bypassing: bool
    ) -> tuple[Change, ...]:
        """Assign what differs, all of it, and forget the feedback that had come by then."""
        heard = [(p, p.feedback) for p in self.parameters]
        held = [(name, p, p._cell().now, value) for name, p, value in checked]
        new = [(name, p, now, v) for name, p, now, v in held if not _same(now.data, v)]
        versions = [now.version for _, _, now, _ in new]
        if not bypassing:
            versions = assign_all((p, value, "optimizer", self.trust) for _, p, _, value in new)
            for parameter, feedback in heard:
                parameter.zero_feedback(feedback)
        return tuple(
            Change(name, p, now.data, value, version)
            for (name, p, now, value), version in zip(new, versions, strict=True)
        )

    def refuse(  # noqa: B027 - most need not know
        self, proposal: Proposal, reason: str, *, score: float | None = None
    ) -> None:
        """Take note that a proposal was tried and is not kept; the parameters stay."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers beside the parameters' values, as JSON-able data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - as above
        """Remember what `state_dict` gave."""

    @abstractmethod
    def propose(self, **options: Any) -> Proposal:
        """New values for the parameters; changes none of them."""

    def _has_feedback(self) -> bool:
        return any(p.trainable and p.feedback for p in self.parameters)

    def _discard_stale(self) -> None:
        for name, parameter in self.named_parameters.items():
            feedback = parameter.feedback
            about = feedback.version
            if about is not None and about != parameter.version:
                warn(
                    f"feedback for version {about} of {name!r} is about a value that is gone (it has "
                    f"version {parameter.version} now) and is discarded; run the workflow again",
                    StaleFeedbackWarning,
                )
                parameter.zero_feedback(feedback)


def why_idle(parameters: Collection[Parameter[Any]]) -> str:
    """Why a step over these parameters, none of which has feedback and may change, asks nothing."""
    frozen = [repr(parameter.label) for parameter in parameters if not parameter.trainable]
    if len(frozen) == len(parameters):
        return "every parameter is frozen; nothing was asked: unfreeze() those that shall change"
    said = "no feedback has arrived since the last step; nothing was asked"
    return f"{said} ({', '.join(frozen)}: frozen, takes none)" if frozen else said


def walk(
    outputs: Any, feedback: Any, parameters: list[Any], options: Mapping[str, Any]
) -> Mapping[Any, Any]:
    """Carry feedback back from one node, or from each of several ``(node, feedback)``.

    Raises:
        NotReached: no parameter at all lies behind the outputs, so nobody can learn from it.
    """
    if isinstance(outputs, Node):
        entries = [(outputs, feedback)]
    else:
        if feedback is not None or not isinstance(outputs, Iterable) or isinstance(outputs, str):
            raise TypeError(
                "backward takes a node and its feedback, or a list of (node, feedback), got "
                f"{show(outputs, 80)}"
            )
        entries = list(outputs)
    received = backward(entries, **options)
    if entries and not received and parameters:
        ends = [entry[0] for entry in entries]
        if not Graph.of(ends).parameters:
            raise NotReached(
                f"no parameter lies behind {_named(ends)}: were they read with .data outside a "
                "bundle, or was tracing off?"
            )
    return received


def reach(
    outputs: Any,
    feedback: Any,
    parameters: Mapping[str, Parameter[Any]],
    options: Mapping[str, Any],
) -> Mapping[Any, Any]:
    """`walk`, which shall come to one of some parameters at least, given by name.

    Raises:
        NotReached: none of them lies behind any of the outputs.
    """
    wanted = list(parameters.values())
    received = walk(outputs, feedback, wanted, options)
    if any(p in received for p in wanted):
        return received
    ends = [outputs] if isinstance(outputs, Node) else [entry[0] for entry in outputs]
    if ends and not any(_behind(end, wanted) for end in ends):
        raise NotReached(
            f"none of the parameters {', '.join(map(repr, parameters))} lies behind "
            f"{_named(ends)}: were they read with .data outside a bundle, or was tracing off?"
        )
    return received


def _named(ends: list[Node[Any]]) -> str:
    return ", ".join(end.name for end in ends[:3]) + (", ..." if len(ends) > 3 else "")


def collect(parameters: Any) -> dict[str, Parameter[Any]]:
    """The parameters that a person handed to an optimizer, by name.

    Names are the given ones; a number is added where one of the same label came before.

    Raises:
        OptimizerError: there is none, or something that is no parameter stands among them.
        DuplicateName: two have the same given name.
    """
    if isinstance(parameters, Mapping):
        for key, value in parameters.items():
            _check_holds(value, f" under {key!r}")
        found = named_parameters(parameters)
    elif hasattr(parameters, "named_parameters"):
        found = named_parameters(parameters)
    elif isinstance(parameters, (set, frozenset)) and all(isinstance(p, Node) for p in parameters):
        found = _listed(sorted(parameters, key=lambda p: p.id))  # a set has no order of its own
    elif isinstance(parameters, Node) or callable(parameters):
        found = _listed([parameters])
    elif isinstance(parameters, Iterable) and not isinstance(parameters, (str, bytes)):
        found = _listed(list(parameters))
    else:
        found = _listed([parameters])
    if not found:
        raise OptimizerError(
            "an optimizer needs at least one parameter: make one with node(value, trainable=True) or "
            "@bundle(trainable=True), and pass bundle.parameters() or module.parameters()"
        )
    return found


def _listed(items: list[Any]) -> dict[str, Parameter[Any]]:
    distinct: dict[int, Parameter[Any]] = {}
    for item in items:
        inside = _check_holds(item)
        distinct |= {id(p): p for p in inside.values()}
    check_names({str(i): p for i, p in distinct.items()})
    named: dict[str, Parameter[Any]] = {}
    for parameter in distinct.values():
        label, number = parameter.label, 1
        name = label
        while name in named:
            number += 1
            name = f"{label}_{number}"
        named[name] = parameter
    return named


def _check_holds(item: Any, where: str = "") -> dict[str, Parameter[Any]]:
    """The parameters inside `item`; at least one."""
    inside = named_parameters(item)
    if not inside:
        raise OptimizerError(
            f"{show(item, 80)} ({type(item).__name__}){where} holds no parameter: "
            + (
                "this node is not trainable; make it with node(value, trainable=True)"
                if isinstance(item, Node)
                else "pass parameters, trainable bundles or modules"
            )
        )
    return inside


def _behind(output: Any, parameters: list[Parameter[Any]]) -> bool:
    wanted = {id(p) for p in parameters}
    return any(id(p) in wanted for p in Graph.of(output).parameters)


def _same(before: Any, after: Any) -> bool:
    try:
        return type(before) is type(after) and bool(before == after)
    except (ValueError, RuntimeError):  # arrays have no single truth value
        return before is after
