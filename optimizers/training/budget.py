"""What a training may spend, and what it has spent."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from typing import Any, final

from optimizers.base import Usage
from tracegraph.errors import OptimizerError

__all__ = ["Budget", "Spend", "as_budget", "is_number"]


def is_number(given: object) -> bool:
    """Whether something is a real number, of Python or of numpy."""
    return isinstance(given, Real)


@final
@dataclass(frozen=True, slots=True)
class Spend:
    """What was used, by all processes that took part.

    Attributes:
        steps: minibatches.
        runs: of the workflow.
        calls: of the optimizers' and the judges' models.
        tokens: in these calls.
        dollars: that these calls and, where they go through `tracegraph.llm`, those of the workflow cost.
            Calls whose price nobody knows count 0.
        seconds: by the clock.
    """

    steps: int = 0
    runs: int = 0
    calls: int = 0
    tokens: int = 0
    dollars: float = 0.0
    seconds: float = 0.0

    def plus(self, usage: Usage) -> Spend:
        """With what one proposal cost."""
        return replace(
            self,
            calls=self.calls + usage.calls,
            tokens=self.tokens + usage.tokens_in + usage.tokens_out,
            dollars=self.dollars + (usage.cost or 0.0),
        )

    def __str__(self) -> str:
        told = f"{self.steps} steps, {self.runs} runs, {self.calls} calls, {self.tokens:,} tokens"
        return told + (f", ${self.dollars:.4f}" if self.dollars else "")


@final
@dataclass(frozen=True, slots=True)
class Budget:
    """How much a training may spend at most; ``None`` is no limit.

    `runs` (of the workflow) is never exceeded. The others, see `Spend`, are looked at before each step
    and each proposal, so the last one may go beyond them by its own cost. For a limit on calls, tokens
    or dollars that no call exceeds, also over kills, wrap the model: ``tracegraph.llm.Budgeted``. A
    training that goes on from a store goes on with what it had spent. What was under way when it was
    killed is done again and counts once, because nobody can know whether it was paid.

    Raises:
        OptimizerError: a limit is no positive number; nothing could be done with it.

    >>> Budget(runs=400, calls=25)
    Budget(steps=None, runs=400, calls=25, tokens=None, dollars=None, seconds=None)
    """

    steps: int | None = None
    runs: int | None = None
    calls: int | None = None
    tokens: int | None = None
    dollars: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, limit in asdict(self).items():
            if limit is not None and not (is_number(limit) and math.isfinite(limit) and limit > 0):
                raise OptimizerError(
                    f"the budget allows {name}={limit!r}: nothing can be done with that; give a number "
                    "above 0, or None for no limit"
                )

    def spent(self, spend: Spend) -> str:
        """Which limit is reached, in words; empty where there is room."""
        for field in fields(self):
            limit, used = getattr(self, field.name), getattr(spend, field.name)
            if limit is not None and used >= limit:
                return f"the budget of {limit:g} {field.name} is spent"
        return ""

    def share(self, spend: Spend) -> float:
        """How much of the limit that is nearest is used, from 0 to 1; 0 without limits.

        >>> Budget(steps=4, runs=100).share(Spend(steps=1, runs=50))
        0.5
        """
        used = [
            getattr(spend, field.name) / limit
            for field in fields(self)
            if (limit := getattr(self, field.name)) is not None
        ]
        return min(1.0, max(used, default=0.0))


def as_budget(given: Any) -> Budget:
    """A budget from a `Budget`, a number of workflow runs, or ``None`` for 20 steps."""
    if given is None:
        return Budget(steps=20)
    if isinstance(given, Budget):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return Budget(runs=given)
    raise OptimizerError(f"budget is a Budget or a number of workflow runs, got {given!r}")
