"""The facts that an optimizer is given: plain data, the same in every process, bounded in size.

A problem is cut from the graph between parameters and the outputs that got feedback. Names are
numbered within it, so the same program gives the same problem, word for word. What lies near the
parameters and the outputs stays; the middle is left out first, and the problem says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from tracegraph.feedback import Feedback, Score
from tracegraph.graph import Graph, is_constant
from tracegraph.kinds import show
from tracegraph.llm.tokens import count_tokens
from tracegraph.node import Node
from tracegraph.parameter import Parameter

__all__ = ["Fact", "Problem", "Said", "Step", "Variable"]

_SECTIONS = (
    "Instruction", "Code", "Documentation", "Variables", "Constraints", "Inputs", "Others",
    "Outputs", "Feedback",
)  # fmt: skip


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)


class Variable(_Data):
    """A parameter as the problem names it; `value` is text, whole wherever it fits."""

    name: str
    kind: str
    value: str
    description: str = ""
    constraint: str = ""
    json_schema: dict[str, Any] | None = None
    whole: bool = True


class Fact(_Data):
    """A value that was given, not computed."""

    name: str
    value: str
    description: str = ""


class Step(_Data):
    """One operation: ``name = operation(arguments)``, and what it gave."""

    name: str
    operation: str
    arguments: tuple[tuple[str, str], ...]
    value: str
    failed: bool = False

    @property
    def line(self) -> str:
        """The step as a line of code."""
        inside = ", ".join(f"{name}={value}" for name, value in self.arguments)
        return f"{self.name} = {self.operation}({inside})"


class Said(_Data):
    """Feedback on one output."""

    output: str
    text: str
    weight: float = 1.0


class Problem(_Data):
    """What an optimizer is given to improve some parameters.

    >>> import tracegraph as tg
    >>> prompt = tg.node("Say hello.", trainable=True, name="prompt")
    >>> reply = prompt.upper()
    >>> _ = reply.backward("Do not shout.")
    >>> print(Problem.of({"prompt": prompt}).text(mask=["Instruction", "Documentation"]))
    #Code
    upper0 = upper(x=prompt)
    <BLANKLINE>
    #Variables
    (text) prompt = Say hello.
    <BLANKLINE>
    #Outputs
    upper0 = 'SAY HELLO.'
    <BLANKLINE>
    #Feedback
    upper0: Do not shout.
    """

    instruction: str = ""
    variables: tuple[Variable, ...] = ()
    inputs: tuple[Fact, ...] = ()
    steps: tuple[Step, ...] = ()
    outputs: tuple[str, ...] = ()
    documentation: dict[str, str] = {}
    feedback: tuple[Said, ...] = ()
    left_out: str = ""
    score: float | None = None

    @classmethod
    def of(
        cls,
        parameters: Mapping[str, Parameter[Any]],
        *,
        instruction: str = "",
        budget: int = 4_000,
    ) -> Problem:
        """The problem of improving `parameters` by the feedback that has arrived at them.

        Args:
            parameters: by the name that the problem and the reply use.
            instruction: what is wanted, in words.
            budget: about how many tokens the problem may have. Variables are kept whole as long as
                they take less than half of it.
        """
        return _Builder(parameters, instruction, max(budget, 200)).build()

    def text(self, mask: Iterable[str] = ()) -> str:
        """The problem in words, section by section; `mask` names sections to leave out.

        Raises:
            ValueError: `mask` names a section that does not exist.
        """
        hidden = {_section(name) for name in mask}
        parts = []
        for title, lines in self._sections():
            if lines and title not in hidden:
                parts.append(f"#{title}\n" + "\n".join(lines))
        return "\n\n".join(parts)

    def _sections(self) -> list[tuple[str, list[str]]]:
        ends = set(self.outputs)
        others = [s for s in self.steps if s.name not in ends]
        code = [s.line for s in self.steps]
        if self.left_out:
            code.append(f"({self.left_out})")
        return [
            ("Instruction", [self.instruction] if self.instruction else []),
            ("Code", code),
            ("Documentation", [f"[{name}] {text}" for name, text in self.documentation.items()]),
            ("Variables", [_shown(v) for v in self.variables]),
            ("Constraints", [f"{v.name}: {v.constraint}" for v in self.variables if v.constraint]),
            ("Inputs", [_fact(f) for f in self.inputs]),
            ("Others", [f"{s.name} = {s.value}" for s in others]),
            ("Outputs", [f"{s.name} = {s.value}" for s in self.steps if s.name in ends]),
            ("Feedback", [_said(f) for f in self.feedback]),
        ]


def _section(name: str) -> str:
    wanted = name.lstrip("#").capitalize()
    if wanted not in _SECTIONS:
        raise ValueError(f"a problem has no section {name!r}; it has {', '.join(_SECTIONS)}")
    return wanted


def _shown(variable: Variable) -> str:
    about = (
        f"  # {variable.description}" if variable.description and variable.kind != "code" else ""
    )
    mark = "\n" if "\n" in variable.value else " "
    return f"({variable.kind}) {variable.name} ={mark}{variable.value}{about}"


def _fact(fact: Fact) -> str:
    about = f"  # {fact.description}" if fact.description else ""
    return f"{fact.name} = {fact.value}{about}"


def _said(said: Said) -> str:
    weight = "" if said.weight == 1.0 else f" (weight {said.weight:g})"
    return f"{said.output}{weight}: {said.text}"


class _Builder:
    """Cuts one problem out of the graph."""

    def __init__(
        self, parameters: Mapping[str, Parameter[Any]], instruction: str, budget: int
    ) -> None:
        self.parameters = parameters
        self.instruction = instruction
        self.budget = budget
        self.outputs: dict[int, Node[Any]] = {}
        self.messages: list[Feedback] = []
        for parameter in parameters.values():
            self.outputs |= parameter.feedback.outputs
            self.messages += parameter.feedback.values()
        self.names: dict[int, str] = {}
        self.taken: set[str] = set(parameters)
        self.counts: dict[str, int] = {}

    def build(self) -> Problem:
        ends = [self.outputs[i] for i in sorted(self.outputs)]
        graph = Graph.of(ends)
        path = graph.between(self.parameters.values()).nodes if ends else ()
        steps = [n for n in path if n._operation is not None]
        kept, left_out = self._kept(steps)
        self._name_variables(graph)
        room = self._room(kept)
        facts = self._facts(kept, room)
        for step in kept:
            self.names[step.id] = self._fresh(step.label)
        variables = self._variables()
        return Problem(
            instruction=self.instruction,
            variables=variables,
            inputs=tuple(facts),
            steps=tuple(self._step(n, room) for n in kept),
            outputs=tuple(self.names[n.id] for n in ends if n.id in self.names),
            documentation=self._documentation(kept, room),
            feedback=tuple(self._feedback(room)),
            left_out=_omitted(left_out, len(self.parameters) - len(variables)),
            score=self._score(),
        )

    def _kept(self, steps: list[Node[Any]]) -> tuple[list[Node[Any]], int]:
        """The steps that fit, nearest to the parameters and the outputs first."""
        fitting = max(self.budget // 2 // 25, 4)
        if len(steps) <= fitting:
            return steps, 0
        near = _distance(steps)
        chosen = sorted(steps, key=lambda n: (near[n.id], -n.id))[:fitting]
        return sorted(chosen, key=lambda n: n.id), len(steps) - fitting

    def _room(self, steps: list[Node[Any]]) -> int:
        """How many characters each value may take."""
        shown = len(steps) + sum(len(n._inputs) for n in steps[:1000]) + 1
        return max(40, min(1_000, self.budget * 2 // shown))

    def _fresh(self, label: str) -> str:
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in label) or "value"
        while True:
            number = self.counts.get(base, 0)
            self.counts[base] = number + 1
            name = f"{base}{number}"
            if name not in self.taken:
                self.taken.add(name)
                return name

    def _name_variables(self, graph: Graph) -> None:
        by_parameter = {id(p): name for name, p in self.parameters.items()}
        for node in graph.nodes:
            owner = node.parameter
            if owner is not None and id(owner) in by_parameter:
                self.names[node.id] = by_parameter[id(owner)]

    def _variables(self) -> tuple[Variable, ...]:
        room = max(200, self.budget * 2 // max(len(self.parameters), 1))
        left = self.budget * 2
        made: list[Variable] = []
        for name, parameter in self.parameters.items():
            if left <= 0 and made:
                break
            value = parameter._data if parameter.kind.name in ("text", "code") else None
            text = value if value is not None else show(parameter._data, room)
            whole = len(text) <= room
            if not whole:
                text = f"{text[:room]} [... {len(text) - room:,} characters not shown ...]"
            left -= len(text) + len(name) + 12
            said = parameter._extra or {}
            schema = parameter.constraint.schema()
            made.append(
                Variable(
                    name=name,
                    kind=parameter.kind.name,
                    value=text,
                    description=said.get("description") or "",
                    constraint=parameter.constraint.describe(),
                    json_schema=None if schema is None else dict(schema),
                    whole=whole,
                )
            )
        return tuple(made)

    def _facts(self, steps: list[Node[Any]], room: int) -> list[Fact]:
        """The inputs of the kept steps that are no kept step: named and shown, or written in place."""
        inside = {n.id for n in steps}
        facts = []
        for node in steps:
            for source in node._inputs:
                if source.id in inside or source.id in self.names:
                    continue
                if is_constant(source):
                    self.names[source.id] = show(source._data)
                    continue
                name = self._fresh(source.label)
                self.names[source.id] = name
                about = source.description if source.is_leaf else None
                facts.append(
                    Fact(name=name, value=_cut(source.preview, room), description=about or "")
                )
        return facts

    def _step(self, node: Node[Any], room: int) -> Step:
        value = node.failure.text() if node.failure else _value(node, room)
        nested = (node._extra or {}).get("nested", {})
        arguments = [
            (name, self.names.get(source.id, "..."))
            for name, source in zip(node._names, node._inputs, strict=True)
        ]
        arguments += [(name, _cut(text, room)) for name, text in nested.items()]
        most = max(10, self.budget // 100)
        if len(arguments) > most:
            arguments = [*arguments[:most], ("...", f"{len(arguments) - most:,} more")]
        return Step(
            name=self.names[node.id],
            operation=node.op or "",
            arguments=tuple(arguments),
            value=value,
            failed=node.failure is not None,
        )

    def _documentation(self, steps: list[Node[Any]], room: int) -> dict[str, str]:
        found: dict[str, str] = {}
        for node in steps:
            operation = node._operation
            if operation is not None and operation.doc and operation.name not in found:
                text = _cut(operation.doc, max(room, 200))
                found[operation.name] = (
                    f"{operation.signature}: {text}" if operation.code is not None else text
                )
        return found

    def _feedback(self, room: int) -> list[Said]:
        entries: dict[tuple[int, str], tuple[float, str]] = {}
        for message in self.messages:
            outputs = getattr(message, "outputs", None)
            if outputs is None:
                continue
            for number, said in outputs.items():
                for weight, what in said:
                    text = f"score {what:g}" if isinstance(message, Score) else str(what)
                    entries[number, text] = (weight, text)
        limit = max(200, self.budget * 2 // max(len(entries), 1))
        return [
            Said(output=self.names.get(number, "output"), text=_cut(text, limit), weight=weight)
            for (number, _), (weight, text) in sorted(entries.items())
        ]

    def _score(self) -> float | None:
        scores = [m for m in self.messages if isinstance(m, Score)]
        merged = scores[0] if scores else None
        for other in scores[1:]:
            merged = merged.merge(other) if merged is not None else other
        return None if merged is None else merged.mean


def _omitted(steps: int, variables: int) -> str:
    said = []
    if steps:
        said.append(f"{steps:,} operations in the middle are left out")
    if variables:
        said.append(f"{variables:,} variables are left out and keep their values")
    return "; ".join(said)


def _distance(steps: list[Node[Any]]) -> dict[int, int]:
    """For each step, how far it is from the nearest end of the path."""
    known = {n.id: n for n in steps}
    users: dict[int, list[int]] = {i: [] for i in known}
    starts, ends = set(), set(known)
    for node in steps:
        behind = [s.id for s in node._inputs if s.id in known]
        for number in behind:
            users[number].append(node.id)
            ends.discard(number)
        if not behind:
            starts.add(node.id)
    far = dict.fromkeys(starts | ends, 0)
    todo = deque(sorted(far))
    while todo:
        number = todo.popleft()
        beside = users[number] + [s.id for s in known[number]._inputs if s.id in known]
        for other in beside:
            if other not in far:
                far[other] = far[number] + 1
                todo.append(other)
    return {i: far.get(i, len(known)) for i in known}


def _value(node: Node[Any], room: int) -> str:
    kept = (node._extra or {}).get("preview")
    return _cut(kept, room) if kept is not None else show(node._data, room)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[:room]} (+{len(text) - room:,} characters)"


def tokens(problem: Problem) -> int:
    """About how many tokens a problem has."""
    return count_tokens(problem.text())
