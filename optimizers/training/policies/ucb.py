"""Improve the candidate that may be the best, by its score and by how seldom it was tried.

Source: Auer, Cesa-Bianchi and Fischer, "Finite-time Analysis of the Multiarmed Bandit Problem", 2002, rule
UCB1; over prompts as candidates as in Pryzant and others, 2023 (arXiv 2305.03495).
"""

from __future__ import annotations

import math
from random import Random
from typing import final

from optimizers.training.policies.policy import Entry, Policy, Task
from tracegraph.errors import OptimizerError

__all__ = ["UCB"]


@final
class UCB(Policy):
    """Improves the candidate with the largest ``score + c * sqrt(log(N) / n)``.

    `N` counts all visits and `n` those of the candidate, with 1 for a candidate that was never
    visited. A candidate that violates more constraints than another is not visited.

    Args:
        c: how much being tried seldom counts beside the score; above 0, in units of the score.

    >>> from optimizers.candidate import Candidate
    >>> ucb = UCB(c=1.0)
    >>> for x, score in ((0, 0.5), (1, 0.6)):
    ...     ucb.tell(Entry(Candidate.of({"x": x}), [score]))
    >>> [ucb.ask(Random(0)).candidate.values["x"] for _ in range(6)]
    [1, 1, 0, 0, 1, 0]
    """

    def __init__(self, c: float = 0.5) -> None:
        if not (isinstance(c, (int, float)) and math.isfinite(c) and c > 0):
            raise OptimizerError(f"c must be a finite number above 0, got {c!r}")
        self.c = float(c)
        self.entries: list[Entry] = []
        self.visits: list[int] = []

    def tell(self, entry: Entry) -> None:
        """Take in a candidate."""
        self.entries.append(entry)
        self.visits.append(0)

    def ask(self, random: Random) -> Task:
        """The candidate with the largest bound; of equals the one told last."""
        fewest = min(entry.violations for entry in self.entries)
        allowed = [i for i, entry in enumerate(self.entries) if entry.violations == fewest]
        chosen = max(allowed, key=lambda i: (self._bound(i), i))
        self.visits[chosen] += 1
        return Task(self.entries[chosen].candidate)

    def _bound(self, at: int) -> float:
        total = max(sum(self.visits), 1)
        seldom = math.sqrt(math.log(total) / max(self.visits[at], 1))
        return self.entries[at].score + self.c * seldom
