"""Mix: several optimizers, or one with several models, chosen by what they improve for the money."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from optimizers.base import Proposal, Update, Usage
from optimizers.llm.bandit import Bandit
from optimizers.llm.group import Group
from optimizers.llm.merge import Merge
from optimizers.records import score_of
from tracegraph.errors import ModelError, OptimizerError
from tracegraph.kinds import show

__all__ = ["Mix", "dollars"]

_PER_TOKEN = 1e-6


def dollars(usage: Usage) -> float:
    """What a proposal cost, in dollars; where no price is known, a dollar for a million tokens.

    Where not even tokens are known, each call counts as a thousand of them.

    >>> dollars(Usage(1, 500, 500, 0.25)), dollars(Usage(1, 500, 500)), dollars(Usage(2))
    (0.25, 0.001, 0.002)
    """
    if usage.cost is not None:
        return usage.cost
    return (usage.tokens_in + usage.tokens_out or 1_000 * usage.calls) * _PER_TOKEN


@final
class Mix(Group):
    """Lets the optimizer propose that improves the score most for its cost; needs scores.

    Which one that is, a `Bandit` learns: the gain of a proposal is how much the next score lies above the one
    before it, and nothing if the proposal was refused. For several models, give the same optimizer several
    times, each with its ``llm``. A `Merge` among them is told what all of them tried.

    Args:
        optimizers: over the same parameters.
        cost: what a proposal cost, by its `Usage`; see `dollars`.
        seed: of the bandit's chance.

    >>> import tracegraph as tg
    >>> from optimizers import OPRO
    >>> from tracegraph.llm import Scripted
    >>> rate = tg.node(1, trainable=True, name="rate")
    >>> good = Scripted(lambda request: f'{{"suggestion": {{"rate": {rate.data + 1}}}}}')
    >>> bad = Scripted(lambda request: '{"suggestion": {}}')
    >>> mix = Mix([OPRO([rate], bad), OPRO([rate], good)])
    >>> for _ in range(40):
    ...     _ = mix.backward(rate * 1, rate.data / 40)
    ...     _ = mix.step()
    >>> mix.bandit.pulls[1] > mix.bandit.pulls[0]
    True
    """

    def __init__(
        self,
        optimizers: Sequence[Any],
        *,
        cost: Callable[[Usage], float] = dollars,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizers)
        self.cost = cost
        self.bandit = Bandit(len(self.optimizers), seed=seed)
        self._open: tuple[int, float, float] | None = None  # an arm, the score before, the cost

    def propose(self, **options: Any) -> Proposal:
        """Settle the account of the last proposal, and let the most promising optimizer propose."""
        score = self._arrived()
        self._close(score)
        self._watched({n: p.data for n, p in self.named_parameters.items()}, score, present=True)
        arm = self.bandit.choose()
        self._owner = self.optimizers[arm]
        try:
            proposal = self._owner.propose(**options)
        except (ModelError, OptimizerError):
            self.bandit.tell(arm, gain=0.0, cost=0.0)
            raise
        self._open = (arm, score, self.cost(proposal.usage))
        return proposal

    def settle(self, proposal: Proposal, *, bypassing: bool = False) -> Update:
        """Assign; a proposal that changes nothing has gained nothing."""
        update = super().settle(proposal, bypassing=bypassing)
        if bypassing:
            self._open = None
        elif not update.changes:
            self._close(None)
        return update

    def refuse(self, proposal: Proposal, reason: str, *, score: float | None = None) -> None:
        """It has gained nothing; the optimizer that made it is told, and so is every `Merge`."""
        super().refuse(proposal, reason, score=score)
        values = {n: proposal.values.get(p, p.data) for n, p in self.named_parameters.items()}
        if score is not None:
            self._watched(values, score)
        self._close(None)

    def state_dict(self) -> dict[str, Any]:
        """What each remembers, and the bandit."""
        own = {"bandit": self.bandit.state_dict(), "open": self._open}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        try:
            account = state["open"]
            kept = None
            if account is not None:
                arm, before, cost = account
                kept = (int(arm), float(before), float(cost))
            bandit = Bandit(len(self.optimizers), seed=self.bandit.seed)
            bandit.load_state_dict(state["bandit"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise OptimizerError(f"this is no state of Mix: {show(state, 80)}") from error
        super().load_state_dict(state)
        self.bandit, self._open = bandit, kept

    def _close(self, score: float | None) -> None:
        """Tell the bandit what the open proposal gained; nothing where there is no score after it."""
        if self._open is None:
            return
        arm, before, cost = self._open
        gain = 0.0 if score is None else score - before
        self.bandit.tell(arm, gain=gain, cost=cost)
        self._open = None

    def _arrived(self) -> float:
        score = score_of(self.parameters)
        if score is None:
            raise OptimizerError(
                "Mix needs a score (a number, larger is better) for each run, and none arrived; give "
                "one by backward(output, 0.7), or several as backward(output, [0.7, 'in words'])"
            )
        return score

    def _watched(self, values: Mapping[str, Any], score: float, *, present: bool = False) -> None:
        for member in self.optimizers:
            if isinstance(member, Merge):
                member.seen(values, score, present=present)
