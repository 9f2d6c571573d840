"""A candidate: one value for every parameter, fixed, with an identity; and how it did."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from optimizers.encoding import encoded

__all__ = ["Candidate", "Trial", "identity"]


def identity(values: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that equal values share, in every process."""
    text = json.dumps({name: encoded(value) for name, value in values.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One value for every parameter of a search; equal to another with the same values.

    Plain data: it may be sent to another process, and evaluated there.

    Attributes:
        id: the hash of the values.
        values: by the parameter's name.
        parents: the ids of the candidates that it was made from.
        step: the step size that its numbers were varied with, relative to their ranges; 0 for none.
        number: counts the candidates of a search, in the order that they were made.
    """

    id: str
    values: Mapping[str, Any]
    parents: tuple[str, ...] = ()
    step: float = 0.0
    number: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any], parents: tuple[str, ...] = ()) -> Candidate:
        """The candidate of these values.

        >>> Candidate.of({"x": 1}) == Candidate.of({"x": 1}), len(Candidate.of({"x": 1}).id)
        (True, 16)
        """
        return cls(identity(values), values, parents)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    def __reduce__(self) -> Any:
        return Candidate, (self.id, dict(self.values), self.parents, self.step, self.number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate and the scores that it was told; ``None`` stands for a failure.

    `suspects` says which lines of its code are to blame, by the parameter's name and the line's number;
    `cases` how it did on each of several cases.
    """

    candidate: Candidate
    scores: tuple[float | None, ...] = ()
    feedback: str = ""
    suspects: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    cases: Mapping[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether an evaluation of the candidate failed."""
        return None in self.scores

    @property
    def score(self) -> float:
        """The mean of the scores; NaN where there is none, or one failed."""
        told = [score for score in self.scores if score is not None]
        if self.failed or not told:
            return math.nan
        return told[0] if len(set(told)) == 1 else math.fsum(told) / len(told)
