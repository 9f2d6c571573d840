"""Keep the best few candidates and improve each in turn.

Source: beam search, B. Lowerre, "The HARPY Speech Recognition System", 1976; for prompts Pryzant and others,
"Automatic Prompt Optimization with Gradient Descent and Beam Search", 2023 (arXiv 2305.03495).
"""

from __future__ import annotations

from random import Random
from typing import final

from optimizers.training.policies.policy import Entry, Policy, Task, whole

__all__ = ["Beam"]


@final
class Beam(Policy):
    """Improves every candidate of the beam once, then keeps the best `width` of old and new.

    Args:
        width: how many candidates the beam holds, at least 1.

    >>> from optimizers.candidate import Candidate
    >>> beam = Beam(2)
    >>> for x, score in ((0, 0.1), (1, 0.9), (2, 0.5)):
    ...     beam.tell(Entry(Candidate.of({"x": x}), [score]))
    >>> [beam.ask(Random(0)).candidate.values["x"] for _ in range(4)]
    [1, 2, 1, 2]
    """

    def __init__(self, width: int = 3) -> None:
        self.width = whole(width, "width")
        self.entries: list[Entry] = []
        self._waiting: list[Entry] = []

    def tell(self, entry: Entry) -> None:
        """Take in a candidate; the beam is cut to its width when every member had its turn."""
        self.entries.append(entry)

    def ask(self, random: Random) -> Task:
        """The next member of the beam."""
        if not self._waiting:
            self.entries.sort(key=lambda entry: entry.rank, reverse=True)
            del self.entries[self.width :]
            self._waiting = list(self.entries)
        return Task(self._waiting.pop(0).candidate)
