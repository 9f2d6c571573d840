"""Optimizers for tests, which propose what they were given, and a workflow of one word with its judge."""

from __future__ import annotations

from typing import Any

from optimizers.base import Optimizer, Proposal
from optimizers.candidate import Candidate
from optimizers.training.evaluator import Evaluator

HELLO = Candidate.of({"word": "hello"})
NAMES = dict(enumerate(["Ann", "Bob", "Cem", "Dot"]))


def length(example: Any, output: Any) -> float:
    return float(len(output))


def greeting(word: Any, **options: Any) -> Evaluator:
    """Of a workflow that puts a word before a name."""
    return Evaluator(lambda name: word + " " + name, length, {"word": word}, **options)


class Says(Optimizer):
    """Proposes the values that it was given, in turn."""

    def __init__(self, parameter: Any, *values: Any) -> None:
        super().__init__([parameter])
        self.values = list(values)
        self.refused: list[str] = []
        self.seen: list[str] = []

    def propose(self, **options: Any) -> Proposal:
        arrived = self.parameters[0].feedback
        self.seen.append("\n".join(map(str, arrived.values())))
        value = self.values.pop(0) if self.values else self.parameters[0].data
        return Proposal({self.parameters[0]: value})

    def refuse(self, proposal: Proposal, reason: str, *, score: float | None = None) -> None:
        self.refused.append(reason)


class Changes(Optimizer):
    """Proposes what a function makes of the present values and the number of the proposal."""

    def __init__(self, parameters: Any, change: Any) -> None:
        super().__init__(parameters)
        self.change, self.count = change, 0

    def propose(self, **options: Any) -> Proposal:
        present = {name: p.data for name, p in self.named_parameters.items()}
        made = self.change(present, self.count)
        self.count += 1
        return Proposal({self.named_parameters[name]: value for name, value in made.items()})

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.count = state["count"]
