"""What a training has spent, what is left, and what must stay for the last examples."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any, Final, final

from optimizers.base import Usage
from optimizers.training.budget import Budget, Spend
from optimizers.training.evaluator import Evaluator
from tracegraph.errors import OptimizerError

__all__ = ["Account"]

_TIME: Final = "seconds"


@final
class Account:
    """Keeps a budget of runs from being exceeded; counts all the rest.

    Args:
        budget: the limits.
        evaluator: counts the runs.
        reserve: runs that are kept for scoring the last accepted candidate.
        step: runs that one step takes at most, apart from `reserve`.
        receipts: keeps the time, see `Evaluator`.
    """

    def __init__(
        self,
        budget: Budget,
        evaluator: Evaluator,
        *,
        reserve: int,
        step: int,
        receipts: MutableMapping[str, Any] | None = None,
    ) -> None:
        self.budget, self.reserve, self.step = budget, reserve, step
        self.spend = Spend()
        self._evaluator, self._receipts = evaluator, receipts
        self._began = time.monotonic()

    def check_start(self) -> None:
        """Refuse a budget that has no room for one step.

        Raises:
            OptimizerError: it has none; nothing was run.
        """
        needed = self.step + 2 * self.reserve
        if self.budget.runs is not None and self.budget.runs < needed:
            raise OptimizerError(
                f"the budget of {self.budget.runs} runs is too small for one step: it takes "
                f"{needed} (a batch for the present values and for each proposal, the anchors, and "
                "the examples that candidates are compared on at the start and at the end); raise "
                "it, or take a smaller batch or validation set"
            )

    def room(self, *, final: bool = False) -> float:
        """Runs that are left, without those kept for the last candidate."""
        if self.budget.runs is None:
            return float("inf")
        return self.budget.runs - self._evaluator.runs - (0 if final else self.reserve)

    def over(self) -> str:
        """Which limit leaves no room for another step, in words; empty where there is room."""
        self.count()
        reason = self.budget.spent(self.spend)
        if not reason and self.room() < self.step:
            reason = f"the budget of {self.budget.runs} runs has no room for another step"
        return reason

    def spent(self) -> str:
        """Which limit a step has reached on its way, in words; empty where it may ask for more."""
        return self.budget.spent(replace(self.spend, steps=0))

    def count(self) -> None:
        """Take over how many runs there were, what judges and runs cost, and how long it took."""
        self.spend = replace(self.spend, runs=self._evaluator.runs)
        self.pay(self._evaluator.settled())

    def pay(self, usage: Usage) -> None:
        """Count what a proposal or a judge cost."""
        seconds = time.monotonic() - self._began
        self.spend = replace(self.spend.plus(usage), seconds=seconds)
        if self._receipts is not None:
            self._receipts[_TIME] = seconds

    def step_begun(self) -> None:
        """Count a step."""
        self.spend = replace(self.spend, steps=self.spend.steps + 1)

    def restore(self, spend: Spend) -> None:
        """Go on from what earlier processes had spent, the time since the last save included."""
        self.spend, self._evaluator.runs = spend, spend.runs
        kept = None if self._receipts is None else self._receipts.get(_TIME)
        self._began = time.monotonic() - max(spend.seconds, kept or 0.0)
