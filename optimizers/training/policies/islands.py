"""Several populations that develop apart and now and then send their best to the next.

Source: R. Tanese, "Distributed Genetic Algorithms", 1989; for programs that a model writes,
Romera-Paredes and others, "Mathematical discoveries from program search with large language models", Nature
2024.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import final

from optimizers.training.policies.beam import Beam
from optimizers.training.policies.policy import Entry, Policy, Task, whole

__all__ = ["Islands"]


@final
class Islands(Policy):
    """Improves candidates of each island in turn, each by a policy of its own.

    What was made on an island stays there. After every `every` rounds the best candidate of each goes
    to the next one, in a ring.

    Args:
        count: how many islands there are, at least 2.
        every: how many rounds lie between two migrations, at least 1.
        make: makes the policy of one island; a `Beam` of 2 by default.
    """

    def __init__(
        self, count: int = 3, *, every: int = 4, make: Callable[[], Policy] = lambda: Beam(2)
    ) -> None:
        self.count, self.every = whole(count, "count", 2), whole(every, "every")
        self.islands = [make() for _ in range(count)]
        self.best: list[Entry] = []
        self._there: list[set[str]] = [set() for _ in self.islands]
        self._turn = -1

    def tell(self, entry: Entry) -> None:
        """Take in a candidate where its parent was asked for; the first comes everywhere."""
        if not self.best:
            self.best = [entry] * len(self.islands)
            for place in range(len(self.islands)):
                self._settle(entry, place)
        else:
            self._settle(entry, self._turn % len(self.islands))

    def ask(self, random: Random) -> Task:
        """What the next island asks for."""
        self._turn += 1
        round_, place = divmod(self._turn, len(self.islands))
        if place == 0 and round_ and round_ % self.every == 0:
            self._migrate()
        return self.islands[place].ask(random)

    def _migrate(self) -> None:
        leaving = list(self.best)
        for place, entry in enumerate(leaving):
            self._settle(entry, (place + 1) % len(self.islands))

    def _settle(self, entry: Entry, place: int) -> None:
        if entry.candidate.id in self._there[place]:
            return
        self._there[place].add(entry.candidate.id)
        self.islands[place].tell(entry)
        if entry.rank > self.best[place].rank:
            self.best[place] = entry
