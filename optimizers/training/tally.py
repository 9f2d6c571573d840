"""How a candidate did on some examples, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from optimizers.training.evaluator import Evaluation, Evaluator

__all__ = ["Tally"]


@final
class Tally:
    """Scores by example, means of objectives, and how many constraints did not hold.

    A run that failed never counts more than the worst that the guide has given to anyone.
    """

    def __init__(self, evaluator: Evaluator, done: Sequence[Evaluation] = ()) -> None:
        self.scores: list[float] = []
        self.violations = 0
        self._evaluator = evaluator
        self._sums: dict[str, list[float]] = {}
        self.add(done)

    def add(self, done: Sequence[Evaluation]) -> None:
        """Take in further examples."""
        worst = math.inf
        if any(e.error is not None for e in done):
            known = self._evaluator.cache.values()
            worst = min((e.score for e in known if e.error is None), default=0.0)
        for e in done:
            self.scores.append(e.score if e.error is None else min(e.score, worst))
            self.violations += len(e.violated)
            for name, value in e.objectives.items():
                self._sums.setdefault(name, []).append(value)

    def copy(self) -> Tally:
        """The same, to go on by itself."""
        made = Tally(self._evaluator)
        made.scores, made.violations = list(self.scores), self.violations
        made._sums = {name: list(values) for name, values in self._sums.items()}
        return made

    @property
    def total(self) -> float:
        """The sum of the scores."""
        return sum(self.scores)

    @property
    def mean(self) -> float:
        """The mean score; 0 without any."""
        return self.total / len(self.scores) if self.scores else 0.0

    @property
    def objectives(self) -> dict[str, float]:
        """The mean of each objective over the runs that did not fail."""
        return {name: math.fsum(values) / len(values) for name, values in self._sums.items()}
