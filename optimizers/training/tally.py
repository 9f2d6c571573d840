"""How a candidate did on some examples, one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

from optimizers.training.evaluator import Evaluation, Evaluator

__all__ = ["Tally"]


@final
class Tally:
    """Scores by example, means of objectives, and how many constraints did not hold.

    A run that failed never counts more than the worst that the guide has given to anyone, in any
    objective, and counts as one for which no constraint holds.
    """

    def __init__(self, evaluator: Evaluator, done: Sequence[Evaluation] = ()) -> None:
        self.scores: list[float] = []
        self.violations = 0
        self._evaluator = evaluator
        self._sums: dict[str, list[float]] = {}
        self.add(done)

    def add(self, done: Sequence[Evaluation]) -> None:
        """Take in further examples."""
        failed = any(e.error is not None for e in done)
        known = [e for e in self._evaluator.cache.values() if failed and e.error is None]
        worst = min((e.score for e in known), default=0.0)
        least = {name: min(e.objectives[name] for e in known) for name in _objectives(known)}
        for e in done:
            if e.error is None:
                self._take(e.score, e.objectives, len(e.violated))
            else:  # nobody can say that a constraint holds of what is not there
                constraints = len(self._evaluator.referee.constraints)
                self._take(min(e.score, worst), least, constraints)

    def _take(self, score: float, objectives: Mapping[str, float], violations: int) -> None:
        self.scores.append(score)
        self.violations += violations
        for name, value in objectives.items():
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
        """The mean of each objective."""
        return {name: math.fsum(values) / len(values) for name, values in self._sums.items()}


def _objectives(known: Sequence[Evaluation]) -> Sequence[str]:
    return list(known[0].objectives) if known else []
