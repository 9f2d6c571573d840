"""Drop a hopeless candidate before it was run on every example.

Source: Maron and Moore, "Hoeffding races", 1993, for the race; Zehle, Heidegger, Schlager and others, "CAPO:
Cost-Aware Prompt Optimization", 2025 (arXiv 2504.16005) for racing prompts block by block with a paired test.
Here the test is the randomization test of `acceptance`, and its level is shared out over all
comparisons of the race, so that the best candidate is dropped with a probability of at most `alpha`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from optimizers.training.acceptance import p_value
from tracegraph.errors import OptimizerError

__all__ = ["Racing"]


@final
@dataclass(frozen=True, slots=True)
class Racing:
    """Runs candidates in blocks of examples and drops those that another one beats surely.

    A drop needs evidence: with blocks of 5 at the default level no candidate is dropped before the
    second. It pays with large batches (40 and more).

    Args:
        alpha: the probability of dropping the best candidate of a race, at most; between 0 and 1.
        block: how many examples are run before each look, at least 1.

    >>> Racing(alpha=0.2, block=5).dropped({"good": [1.0] * 10, "bad": [0.0] * 10}, looks=2)
    ['bad']
    """

    alpha: float = 0.2
    block: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise OptimizerError(f"alpha lies between 0 and 1, got {self.alpha!r}")
        if not isinstance(self.block, int) or self.block < 1:
            raise OptimizerError(f"block must be a whole number from 1, got {self.block!r}")

    def dropped(self, scores: Mapping[str, Sequence[float]], *, looks: int) -> list[str]:
        """Which candidates another one beats, by their scores on the same examples so far.

        Args:
            scores: of every candidate in the race, by its name.
            looks: how often the race is looked at in all.
        """
        level = self.alpha / (max(looks, 1) * max(len(scores) - 1, 1))
        return [name for name in scores if self._beaten(name, scores, level)]

    def _beaten(self, name: str, scores: Mapping[str, Sequence[float]], level: float) -> bool:
        own = scores[name]
        return any(
            math.fsum(other) > math.fsum(own)
            and p_value([o - s for o, s in zip(other, own, strict=True)]) <= level
            for rival, other in scores.items()
            if rival != name
        )
