"""Past facts for the next prompt: what was said of which inputs, each once, within bounds.

A minibatch shows few examples, and what it taught is gone with the next one. A memory replays it. It
keeps facts, not whole problems: one line each, and none twice, because whole past rounds repeat
themselves and cost twice the characters for the same information.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

from tracegraph.errors import OptimizerError
from tracegraph.kinds import show
from tracegraph.llm.tokens import cut
from tracegraph.problem import Problem, Step

__all__ = ["Memory", "facts_of"]


@final
class Memory:
    """The latest `size` facts; a fact that is learned again becomes the latest.

    >>> memory = Memory(2)
    >>> memory.add(["x='a' -> too long", "x='b' -> wrong", "x='a' -> too long", "x='c' -> rude"])
    >>> memory.lines(room=100)
    ["x='a' -> too long", "x='c' -> rude"]
    """

    def __init__(self, size: int) -> None:
        if not isinstance(size, int) or size < 0:
            raise OptimizerError(f"memory_size must be a whole number from 0, got {show(size, 40)}")
        self.size = size
        self._facts: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._facts)

    def learn(self, problem: Problem) -> None:
        """Take in the facts of a problem."""
        self.add(facts_of(problem))

    def add(self, facts: Iterable[str]) -> None:
        """Take in facts; the oldest ones make room."""
        for fact in facts:
            self._facts.pop(fact, None)
            self._facts[fact] = None
        known = list(self._facts)
        for fact in known[: max(0, len(known) - self.size)]:
            self._facts.pop(fact, None)

    def lines(self, *, room: int, without: Iterable[str] = ()) -> list[str]:
        """The facts that fit into `room` characters, the latest first to be taken; in their order."""
        hidden, taken = set(without), []
        for fact in reversed(list(self._facts)):
            if fact not in hidden:
                if len(fact) + 1 > room:
                    break
                room -= len(fact) + 1
                taken.append(fact)
        return taken[::-1]

    def state_dict(self) -> list[str]:
        """The facts, oldest first."""
        return list(self._facts)

    def load_state_dict(self, facts: Iterable[str]) -> None:
        """Remember what `state_dict` gave."""
        self._facts = {}
        self.add(str(fact) for fact in facts)


def facts_of(problem: Problem, longest: int = 400) -> list[str]:
    """What a problem says of each output, with the inputs behind it, a line each.

    Numbers and choices that may change stand among the inputs: what was said is true of them only.
    Bare scores are no facts: they are true of one version of the other parameters only.

    >>> import tracegraph as tg
    >>> prompt = tg.node("Be kind.", trainable=True, name="prompt")
    >>> answer = prompt + tg.node("Who are you?", name="question")
    >>> _ = answer.backward("Say your name.")
    >>> facts_of(Problem.of({"prompt": prompt}))
    ["question='Who are you?' -> Say your name."]
    """
    steps = {step.name: step for step in problem.steps}
    inputs = {fact.name: fact.value for fact in problem.inputs}
    small = [v for v in problem.variables if v.kind in ("number", "choice")]
    inputs |= {v.name: v.value for v in small}
    said: dict[str, list[str]] = {}
    for remark in problem.feedback:
        if not remark.text.startswith("score "):
            said.setdefault(remark.output, []).append(remark.text.strip())
    facts = []
    for output, texts in said.items():
        behind = _inputs_behind(output, steps, inputs, {v.name for v in problem.variables})
        kept = {v.name for v in small}
        given = ", ".join(
            f"{name if name in kept else _bare(name)}={value}" for name, value in behind.items()
        )
        facts.append(f"{cut(given, longest)} -> {cut('; '.join(texts), longest)}")
    return facts


def _inputs_behind(
    output: str, steps: Mapping[str, Step], inputs: Mapping[str, str], variables: set[str]
) -> dict[str, str]:
    """The values that were given, not computed, on the way to an output; by name."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    todo = [("", output)]
    while todo:
        argument, name = todo.pop()
        if name in steps and name not in seen:
            seen.add(name)
            todo += reversed(_single(steps[name].arguments))
        elif name in inputs:
            found[name] = inputs[name]
        elif name not in steps and name not in variables and argument:
            found[argument] = name  # a constant, written in place
    return found


def _single(arguments: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """The arguments without those that show a container whose elements are told one by one."""
    names = [name for name, _ in arguments]
    return [
        (name, value)
        for name, value in arguments
        if name != "..." and not any(n.startswith((f"{name}[", f"{name}.")) for n in names)
    ]


def _bare(name: str) -> str:
    """The name without the number that the problem gave it."""
    return name.rstrip("0123456789") or name
