"""Go on from the candidate that was accepted last."""

from __future__ import annotations

from random import Random
from typing import final

from optimizers.training.policies.policy import Entry, Policy, Task

__all__ = ["Greedy"]


@final
class Greedy(Policy):
    """Always improves the candidate that was told last; the others are forgotten.

    It needs no scores beyond those of the step in which a candidate is accepted, so it is the
    cheapest policy; it cannot leave a place where no single step is better.
    """

    scored = False

    def tell(self, entry: Entry) -> None:
        """Take the place of the present candidate."""
        self._present = entry

    def ask(self, random: Random) -> Task:
        """The present candidate."""
        return Task(self._present.candidate)
