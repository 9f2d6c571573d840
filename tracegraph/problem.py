"""The facts that an optimizer is given: plain data, the same in every process, bounded in size.

A problem is cut from the graph between parameters and the outputs that got feedback. Names are
numbered within it, so the same program gives the same problem, word for word. What lies near the
parameters and the outputs stays; the middle is left out first, and the problem says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from tracegraph import profiling
from tracegraph.failure import Failure
from tracegraph.feedback import Feedback, Score
from tracegraph.graph import Graph, is_constant
from tracegraph.kinds import show
from tracegraph.llm.tokens import count_tokens, prefix, shares
from tracegraph.node import Node
from tracegraph.parameter import Parameter

__all__ = ["Fact", "Problem", "Said", "Step", "Variable"]

_SECTIONS = (
    "Instruction", "Code", "Documentation", "Variables", "Constraints", "Inputs", "Others",
    "Outputs", "Feedback",
)  # fmt: skip
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")
_TRIES = 8
_LEAST_VARIABLE = 40
_LEAST_REMARK = 25


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
    """One operation: ``name = operation(arguments)``, what it gave, what its lines cost, what was lost."""

    name: str
    operation: str
    arguments: tuple[tuple[str, str], ...]
    value: str
    failed: bool = False
    profile: str = ""
    lost: str = ""

    @property
    def result(self) -> str:
        """What the step gave, the cost of its lines where they were measured, and changes that were lost."""
        return "\n".join(filter(None, [f"{self.name} = {self.value}", self.profile, self.lost]))

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
            budget: about how many tokens the problem may have, at least 300. Variables are kept
                whole as long as they take less than half of it.

        Raises:
            TypeError: `parameters` is no mapping, or `budget` no whole number.
        """
        if not isinstance(parameters, Mapping):
            raise TypeError(
                f"a problem names its parameters: give a mapping from names, got {show(parameters, 80)}"
            )
        if not isinstance(budget, int):
            raise TypeError(f"budget is a whole number of tokens, got {show(budget, 80)}")
        return _Builder(parameters, instruction, max(budget, 300)).build()

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
            ("Others", [s.result for s in others]),
            ("Outputs", [s.result for s in self.steps if s.name in ends]),
            ("Feedback", [_said(f) for f in self.feedback]),
        ]


def _section(name: str) -> str:
    wanted = name.lstrip("#").capitalize()
    if wanted not in _SECTIONS:
        raise ValueError(f"a problem has no section {name!r}; it has {', '.join(_SECTIONS)}")
    return wanted


def _shown(variable: Variable) -> str:
    about = (
        f"# {variable.description}\n" if variable.description and variable.kind != "code" else ""
    )
    mark = "\n" if "\n" in variable.value else " "
    value = variable.value.rstrip("\n") if variable.kind == "code" else variable.value
    return f"{about}({variable.kind}) {variable.name} ={mark}{value}"


def _fact(fact: Fact) -> str:
    about = f"  # {fact.description}" if fact.description else ""
    return f"{fact.name} = {fact.value}{about}"


def _said(said: Said) -> str:
    weight = "" if said.weight == 1.0 else f" (weight {said.weight:g})"
    return f"{said.output}{weight}: {said.text}"


class _Builder:
    """Cuts one problem out of the graph.

    Of the budget, variables may take half, feedback a quarter and the instruction an eighth. What
    these leave is for the operations and their values, drawn smaller until they fit.
    """

    def __init__(
        self, parameters: Mapping[str, Parameter[Any]], instruction: str, budget: int
    ) -> None:
        self.parameters = parameters
        self.instruction = prefix(instruction, budget // 8)
        self.budget = budget
        self.outputs: dict[int, Node[Any]] = {}
        self.messages: list[Feedback] = []
        for parameter in parameters.values():
            arrived = parameter.feedback
            self.outputs |= arrived.outputs
            self.messages += arrived.values()

    def build(self) -> Problem:
        variables = self._variables()
        remarks, unsaid = self._remarks()
        ends = [self.outputs[i] for i in sorted(self.outputs.keys() - unsaid.keys())]
        graph = Graph.of(ends)
        path = graph.between(self.parameters.values()).nodes if ends else ()
        steps = [n for n in path if n._operation is not None]
        left_out = _omitted(
            variables=len(self.parameters) - len(variables), remarks=sum(unsaid.values())
        )
        problem = Problem(
            instruction=self.instruction,
            variables=variables,
            feedback=tuple(Said(output="", text=text, weight=w) for _, w, text in remarks),
            left_out=left_out,
            score=self._score(),
        )
        fixed = count_tokens(problem.text())
        owners = {id(p): name for name, p in self.parameters.items()}
        read = ((n.id, id(n._extra.get("parameter"))) for n in graph.nodes if n._extra)
        names = {number: owners[owner] for number, owner in read if owner in owners}
        near = _distance(steps)
        free = max(self.budget - fixed, self.budget // 8)
        room = free
        for _ in range(_TRIES):
            sketch = _Sketch(steps, near, ends, dict(names), set(self.parameters), room)
            drawn = sketch.onto(problem, remarks)
            excess = count_tokens(drawn.text()) - fixed
            if excess <= free:
                break
            room = int(room * 0.9 * free / excess)
        return drawn

    def _variables(self) -> tuple[Variable, ...]:
        """The variables that fit into half the budget; those that received feedback come first."""
        budget = self.budget // 2
        names = sorted(self.parameters, key=lambda name: not self.parameters[name].feedback)
        values = [_text(self.parameters[name], budget) for name in names]
        abouts = [_about(self.parameters[name], budget // 4) for name in names]
        sizes = [
            _size(value, budget) + count_tokens(f"() {name} = {name}: {''.join(about)}")
            for name, value, about in zip(names, values, abouts, strict=True)
        ]
        made: dict[str, Variable] = {}
        for name, value, about, size, share in zip(
            names, values, abouts, sizes, shares(sizes, budget, _LEAST_VARIABLE), strict=True
        ):
            if not share:
                continue
            description, constraint = about
            shown = (
                value if share >= size else _beginning(value, share - (size - _size(value, budget)))
            )
            parameter = self.parameters[name]
            schema = parameter.constraint.schema()
            made[name] = Variable(
                name=name,
                kind=parameter.kind.name,
                value=shown,
                description=description,
                constraint=constraint,
                json_schema=None if schema is None else dict(schema),
                whole=shown is value,
            )
        return tuple(made[name] for name in self.parameters if name in made)

    def _remarks(self) -> tuple[list[tuple[int, float, str]], dict[int, int]]:
        """What was said that fits into a quarter of the budget, by output; and how much does not."""
        said: dict[tuple[int, str], float] = {}
        for message in self.messages:
            for number, entries in getattr(message, "outputs", {}).items():
                for weight, what in entries:
                    text = f"score {what:g}" if isinstance(message, Score) else _steady(str(what))
                    said[number, text] = weight
        entries = sorted(said.items())
        budget = self.budget // 4
        sizes = [_size(text, budget) + 6 for (_, text), _ in entries]
        kept: list[tuple[int, float, str]] = []
        dropped: dict[int, int] = {}
        for ((number, text), weight), share in zip(
            entries, shares(sizes, budget, _LEAST_REMARK), strict=True
        ):
            if share:
                kept.append((number, weight, prefix(text, max(share - 6, 1))))
            else:
                dropped[number] = dropped.get(number, 0) + 1
        shown = {number for number, _, _ in kept}
        return kept, {number: n for number, n in dropped.items() if number not in shown}

    def _score(self) -> float | None:
        scores = [m for m in self.messages if isinstance(m, Score)]
        merged = scores[0] if scores else None
        for other in scores[1:]:
            merged = merged.merge(other) if merged is not None else other
        return None if merged is None else merged.mean


class _Sketch:
    """The operations and their values, drawn into about `room` tokens."""

    def __init__(
        self,
        steps: list[Node[Any]],
        near: Mapping[int, int],
        ends: list[Node[Any]],
        names: dict[int, str],
        taken: set[str],
        room: int,
    ) -> None:
        self.ends = ends
        self.names = names
        self.taken = taken
        self.room = room
        self.counts: dict[str, int] = {}
        self.operations: dict[Any, str] = {}
        fitting = max(room // 50, 2)
        self.kept, self.omitted = steps, max(len(steps) - fitting, 0)
        if self.omitted:
            last = {n.id for n in ends}
            chosen = sorted(steps, key=lambda n: (near[n.id], n.id not in last, -n.id))[:fitting]
            self.kept = sorted(chosen, key=lambda n: n.id)
        self.most = max(4, room // 80)
        shown = sum(1 + min(len(n._inputs), self.most) for n in self.kept) + 1
        self.value = max(24, min(1_000, room * 2 // shown))

    def onto(self, problem: Problem, remarks: list[tuple[int, float, str]]) -> Problem:
        """`problem` with the operations, their values, and the names of the outputs."""
        facts = self._facts()
        for step in self.kept:
            self.names[step.id] = self._fresh(step.label)
        last = {n.id for n in self.ends}
        for node in self.ends:
            if node.id not in self.names:
                self.names[node.id] = self._fresh(node.label)
        said = [
            Said(output=self.names.get(number, "output"), text=text, weight=weight)
            for number, weight, text in remarks
        ]
        omitted = _omitted(steps=self.omitted)
        return problem.model_copy(
            update={
                "inputs": tuple(facts),
                "steps": tuple(self._step(n, n.id in last) for n in self.kept),
                "outputs": tuple(self.names[n.id] for n in self.ends),
                "documentation": self._documentation(),
                "feedback": tuple(said),
                "left_out": "; ".join(filter(None, (omitted, problem.left_out))),
            }
        )

    def _fresh(self, label: str) -> str:
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in label[:60]) or "value"
        while True:
            number = self.counts.get(base, 0)
            self.counts[base] = number + 1
            name = f"{base}{number}"
            if name not in self.taken:
                self.taken.add(name)
                return name

    def _arguments(self, node: Node[Any]) -> list[tuple[str, Node[Any]]]:
        return list(zip(node._names, node._inputs, strict=True))[: self.most]

    def _facts(self) -> list[Fact]:
        """The inputs of the kept steps that are no kept step: named and shown, or written in place."""
        inside = {n.id for n in self.kept}
        facts = []
        for node in self.kept:
            for _, source in self._arguments(node):
                if source.id in inside or source.id in self.names:
                    continue
                if is_constant(source):
                    self.names[source.id] = show(source._data)
                    continue
                name = self._fresh(source.label)
                self.names[source.id] = name
                about = source.description if source.is_leaf else None
                facts.append(
                    Fact(
                        name=name,
                        value=_steady(_cut(source.preview, self.value)),
                        description=_cut(_one_line(about or ""), 4 * self.value),
                    )
                )
        return facts

    def _step(self, node: Node[Any], is_end: bool) -> Step:
        room = 4 * self.value if is_end or node.failure else self.value
        nested = (node._extra or {}).get("nested", {})
        arguments = [
            (name, self.names.get(source.id, "...")) for name, source in self._arguments(node)
        ]
        hidden = len(node._inputs) - len(arguments)
        if hidden:
            arguments.append(("...", f"{hidden:,} more"))
        arguments += [(name, _cut(text, self.value)) for name, text in nested.items()]
        return Step(
            name=self.names[node.id],
            operation=self._operation(node),
            arguments=tuple(arguments),
            value=_steady(_failure(node.failure, room) if node.failure else _value(node, room)),
            failed=node.failure is not None,
            profile=_cut(profiling.told(node._extra), room) if node.failure is None else "",
            lost=_cut(getattr((node._extra or {}).get("ran"), "lost", ""), room)
            if node.failure is None
            else "",
        )

    def _operation(self, node: Node[Any]) -> str:
        """The operation's name; a second function of one name gets a number."""
        operation = node._operation
        if operation is None:
            return ""
        key = (operation.name, id(operation.code) if operation.code is not None else 0)
        if key not in self.operations:
            name, number = operation.name, 1
            while name in self.operations.values():
                number += 1
                name = f"{operation.name}_{number}"
            self.operations[key] = name
        return self.operations[key]

    def _documentation(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for node in self.kept:
            operation = node._operation
            if operation is None or not operation.doc:
                continue
            signed = operation.code is not None
            name = self._operation(node)
            found[name] = f"{operation.signature}: {operation.doc}" if signed else operation.doc
        room = max(16, self.room // 4 // max(len(found), 1))
        return {name: prefix(text, room) for name, text in found.items()}


def _omitted(*, steps: int = 0, variables: int = 0, remarks: int = 0) -> str:
    said = []
    if steps:
        said.append(f"{steps:,} operations in the middle are left out")
    if variables:
        said.append(f"{variables:,} variables are left out and keep their values")
    if remarks:
        said.append(f"{remarks:,} remarks and their outputs are left out")
    return "; ".join(said)


def _distance(steps: list[Node[Any]]) -> dict[int, int]:
    """For each step, how far it is from the nearest end of the path, along its edges."""
    far: dict[int, int] = {}
    used: set[int] = set()
    for node in steps:  # inputs come before their users
        least = -1
        for source in node._inputs:
            number = source.id
            if number in far:
                used.add(number)
                if least < 0 or far[number] < least:
                    least = far[number]
        far[node.id] = least + 1
    for node in reversed(steps):
        here = far[node.id] if node.id in used else 0
        far[node.id] = here
        for source in node._inputs:
            if far.get(source.id, 0) > here + 1:
                far[source.id] = here + 1
    return far


def _value(node: Node[Any], room: int) -> str:
    kept = (node._extra or {}).get("preview")
    return _cut(kept, room) if kept is not None else show(node._data, room)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[:room]} (+{len(text) - room:,} characters)"


def _failure(failure: Failure, room: int) -> str:
    """The failure with the lines around the failing one, or with that line alone."""
    text = failure.text()
    if len(text) <= max(room, 200):
        return text
    marked = next((line for line in failure.source.splitlines() if "<---" in line), "")
    return f"{_cut(str(failure), max(room, 200))}\n{_cut(marked, max(room, 200))}".rstrip()


def _text(parameter: Parameter[Any], budget: int) -> str:
    """The value of a parameter as the problem writes it."""
    value = parameter._data
    if parameter.kind.name in ("text", "code"):
        return str(value)
    if isinstance(value, Enum):
        return value.name
    if parameter.constraint.annotation is not None and _has_fields(value):
        return to_json(value, fallback=show).decode()  # as the reply shall write it
    return _steady(show(value, budget * 4))


def _has_fields(value: object) -> bool:
    return isinstance(value, BaseModel) or is_dataclass(value)


def _about(parameter: Parameter[Any], budget: int) -> tuple[str, str]:
    said = (parameter._extra or {}).get("description") or ""
    return (
        prefix(_one_line(said), budget // 2),
        prefix(_one_line(parameter.constraint.describe()), budget),
    )


def _beginning(value: str, room: int) -> str:
    """The beginning of a variable's value, with a note that tells it from the whole."""
    shown = prefix(value, max(room - 12, 8), note="")
    return f"{shown} [... {len(value) - len(shown):,} characters not shown ...]"


def _size(text: str, budget: int) -> int:
    """How many tokens a text has; of a text far over the budget only that it is."""
    return max(count_tokens(text[: budget * 8]), len(text) // 8)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _steady(text: str) -> str:
    """The text without addresses in memory, which differ from run to run."""
    return _ADDRESS.sub("", text)
