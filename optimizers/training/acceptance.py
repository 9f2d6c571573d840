"""Whether a candidate is better than the present values, and not only luckier.

Both are scored on identical examples. The test is R. A. Fisher's randomization test for pairs ("The
Design of Experiments", 1935, section 21): if the candidate were no better, each difference could as
well have the other sign; the p-value is the share of sign patterns with a sum at least as large.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, final

from tracegraph.errors import OptimizerError

__all__ = ["Acceptance", "Decision", "Paired", "p_value"]

Decision = Literal["accept", "reject", "undecided"]
_EXACT = 12


def p_value(differences: Sequence[float]) -> float:
    """How likely a sum at least this large is, if every difference could have either sign.

    Exact for up to 12 differences that are not zero; beyond that by the normal law with a
    correction for continuity of half the smallest difference. 1 where all are zero.

    >>> p_value([1, 1, 1, 0]), p_value([1, -1]), p_value([0.0])
    (0.125, 0.75, 1.0)
    """
    changed = [d for d in differences if d]
    if not changed:
        return 1.0
    total = math.fsum(changed)
    if len(changed) <= _EXACT:
        signed = itertools.product(*((d, -d) for d in changed))
        most = total - 1e-9 * math.fsum(map(abs, changed))
        return sum(math.fsum(signs) >= most for signs in signed) / float(1 << len(changed))
    deviation = math.sqrt(math.fsum(d * d for d in changed))
    smallest = min(abs(d) for d in changed)
    return 0.5 * math.erfc((total - smallest / 2) / deviation / math.sqrt(2))


@final
@dataclass(frozen=True, slots=True)
class Paired:
    """Accepts what is better on the same examples with a p-value of at most `alpha`.

    A candidate that is not better is rejected: accepting equals can go round in circles for ever.
    Where every score is the same, or what is better may be luck, it is undecided; the training then
    scores both on more examples, and rejects what stays undecided.

    Args:
        alpha: between 0 and 1. 1 accepts every larger sum, for scores without noise.

    >>> Paired().decide([0, 0, 0], [1, 1, 0]), Paired().decide([0, 0], [0, 1])
    ('accept', 'undecided')
    >>> Paired().decide([0, 1], [0, 1])
    'undecided'
    """

    alpha: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise OptimizerError(f"alpha lies above 0 and at most at 1, got {self.alpha!r}")

    def decide(self, before: Sequence[float], after: Sequence[float]) -> Decision:
        """Compare scores of the present values and of a candidate, example by example."""
        differences = [b - a for a, b in zip(before, after, strict=True)]
        if not any(differences):
            return "undecided"
        if not math.fsum(differences) > 0:
            return "reject"
        return "accept" if p_value(differences) <= self.alpha else "undecided"


class Acceptance(Protocol):
    """Decides whether a candidate takes the place of another; `Paired` is one."""

    def decide(self, before: Sequence[float], after: Sequence[float]) -> Decision:
        """Compare scores on the same examples, in the same order."""
        ...
