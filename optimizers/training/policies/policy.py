"""What a policy over candidates is: asked which one to improve next, told which ones were accepted.

A policy decides by what it was asked and told and by the chance that it is handed, and by nothing else.
So the list of asks and tells is its whole state, and replaying it brings the policy back exactly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from optimizers.candidate import Candidate
from tracegraph.errors import OptimizerError

__all__ = ["Entry", "Policy", "Task", "whole"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate with how it did on the examples that all candidates are compared on.

    Attributes:
        candidate: the values, with the ids of their parents.
        scores: one for each example, in their order; empty where nobody needs them.
        objectives: the mean of each objective, where the guide gives several.
        violations: how many constraints did not hold, over all examples.
    """

    candidate: Candidate
    scores: Sequence[float] = ()
    objectives: Mapping[str, float] = field(default_factory=dict)
    violations: int = 0

    @property
    def score(self) -> float:
        """The mean score; NaN without any."""
        return math.fsum(self.scores) / len(self.scores) if self.scores else math.nan

    @property
    def rank(self) -> tuple[int, float]:
        """Larger is better: fewer violations first, then the score (K. Deb's rules, 2000)."""
        return -self.violations, self.score


@dataclass(frozen=True, slots=True)
class Task:
    """What to do next: improve a candidate, or test one that was merged from two others."""

    candidate: Candidate
    merged: bool = False


class Policy(ABC):
    """Chooses the candidate that is improved next.

    Attributes:
        scored: whether every candidate must be scored on all examples before it is told.
    """

    scored: bool = True

    def __repr__(self) -> str:
        """Its name and options: those attributes that are public and plain."""
        plain = {n: v for n, v in vars(self).items() if isinstance(v, (int, float, str))}
        told = (f"{n}={v!r}" for n, v in plain.items() if not n.startswith("_"))
        return f"{type(self).__name__}({', '.join(told)})"

    @abstractmethod
    def tell(self, entry: Entry) -> None:
        """Take in a candidate: first the values at the start, then each that was accepted."""

    @abstractmethod
    def ask(self, random: Random) -> Task:
        """What to do next; called after at least one `tell`."""


def whole(number: object, name: str, least: int = 1) -> int:
    """A whole number that an option asks for.

    Raises:
        OptimizerError: it is none, or too small.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < least:
        raise OptimizerError(f"{name} must be a whole number from {least}, got {number!r}")
    return number
