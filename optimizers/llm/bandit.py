"""A bandit for arms that give something and cost something: most gain for the money.

Source: Xia, Li, Qin, Yu and Liu, "Thompson Sampling for Budgeted Multi-armed Bandits", IJCAI 2015: draw each
arm's gain and cost from their Beta posteriors and pull the arm with the largest ratio. Gains and costs count
as shares of the largest ones that were seen, where the paper has them between 0 and 1 and tosses a coin for
each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Any, final

from tracegraph.errors import OptimizerError
from tracegraph.kinds import show

__all__ = ["Bandit"]


@final
class Bandit:
    """Which of `arms` arms to pull next.

    Gains and costs have any unit. The same seed and outcomes give the same choices.

    Args:
        arms: how many there are.
        least: the share of the largest cost that every pull counts at least: what is free still takes time,
            and an arm that gives nothing for nothing shall not be pulled for ever.
        seed: of all chance.

    >>> bandit = Bandit(2, seed=0)
    >>> for _ in range(200):
    ...     arm = bandit.choose()
    ...     bandit.tell(arm, gain=0.5, cost=[1.0, 9.0][arm])
    >>> bandit.pulls[0] > 5 * bandit.pulls[1]
    True
    """

    def __init__(self, arms: int, *, least: float = 0.1, seed: int = 0) -> None:
        if not isinstance(arms, int) or arms < 1:
            raise OptimizerError(f"a bandit needs at least one arm, got {show(arms, 40)}")
        if not 0 <= least <= 1:
            raise OptimizerError(f"least is a share between 0 and 1, got {show(least, 40)}")
        self.least, self.seed = least, seed
        self.pulls = [0] * arms
        self.gains = [0.0] * arms
        self.costs = [0.0] * arms
        self._dearest = 0.0
        self._largest = 0.0
        self._turn = 0

    def choose(self) -> int:
        """The arm to pull next; each once before any twice."""
        unknown = [arm for arm, pulls in enumerate(self.pulls) if not pulls]
        if unknown:
            return unknown[0]
        random = Random(f"{self.seed}/{self._turn}")
        self._turn += 1
        drawn = []
        for pulls, gain, cost in zip(self.pulls, self.gains, self.costs, strict=True):
            spent = cost / self._dearest if self._dearest else pulls
            spent = min(max(spent, self.least * pulls), pulls)
            gained = min(gain / self._largest if self._largest else 0.0, pulls)
            good = random.betavariate(1 + gained, 1 + pulls - gained)
            drawn.append(good / max(random.betavariate(1 + spent, 1 + pulls - spent), 1e-12))
        return drawn.index(max(drawn))

    def tell(self, arm: int, *, gain: float, cost: float) -> None:
        """What a pull gave, where less than 0 counts as nothing, and what it cost, from 0.

        Raises:
            OptimizerError: one of them is no finite number, or the cost is below 0; nothing was told.
        """
        if not (math.isfinite(gain) and math.isfinite(cost) and cost >= 0):
            raise OptimizerError(f"a pull has a gain and a cost from 0, got {gain!r} and {cost!r}")
        self.pulls[arm] += 1
        self.gains[arm] += max(gain, 0.0)
        self.costs[arm] += cost
        self._largest = max(self._largest, gain)
        self._dearest = max(self._dearest, cost)

    def state_dict(self) -> dict[str, Any]:
        """What was told, as JSON-able data."""
        arms = [list(arm) for arm in zip(self.pulls, self.gains, self.costs, strict=True)]
        return {"arms": arms, "most": [self._largest, self._dearest], "turn": self._turn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        try:
            told = [(int(n), float(g), float(c)) for n, g, c in state["arms"]]
            (largest, dearest), turn = map(float, state["most"]), int(state["turn"])
            if len(told) != len(self.pulls):
                raise ValueError(f"{len(told)} arms")
        except (KeyError, TypeError, ValueError) as error:
            raise OptimizerError(
                f"this is no state of a bandit with {len(self.pulls)} arms: {show(state, 80)}"
            ) from error
        self.pulls = [pulls for pulls, _, _ in told]
        self.gains = [gain for _, gain, _ in told]
        self.costs = [cost for _, _, cost in told]
        self._largest, self._dearest, self._turn = largest, dearest, turn
