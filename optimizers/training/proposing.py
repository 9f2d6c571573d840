"""Ask optimizers for candidates: those that propose by feedback, and those that ask and are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from optimizers.base import Proposal
from optimizers.candidate import Candidate
from optimizers.training.account import Account
from optimizers.training.diary import Diary
from optimizers.training.tally import Tally
from optimizers.training.values import Values
from tracegraph.errors import BudgetExceeded, ModelError

__all__ = ["Challenger", "Proposers"]

_MOST_FAILURES: Final = 3


@dataclass(slots=True)
class Challenger:
    """A candidate that may take the place of the present values, and where it came from."""

    candidate: Candidate
    member: Any = None
    proposal: Proposal | None = None
    asked: Any = None
    after: Tally | None = None

    def refuse(self, reason: str) -> None:
        """Tell whoever proposed it that it is not kept, and why."""
        if self.proposal is not None:
            mean = None if self.after is None else self.after.mean
            self.member.refuse(self.proposal, reason, score=mean)


@final
class Proposers:
    """Asks each optimizer for so many candidates at a time.

    Args:
        members: the optimizers that propose.
        values: their parameters.
        each: how many candidates each of them is asked for.
        tried: the ids of candidates that are not tried again.
    """

    def __init__(
        self,
        members: Sequence[Any],
        values: Values,
        each: int,
        tried: set[str],
        account: Account,
        diary: Diary,
    ) -> None:
        self.members, self.each, self.tried = list(members), each, tried
        self.failures = 0
        self._values, self._account, self._diary = values, account, diary

    def challengers(self, present: Candidate, score: float) -> list[Challenger]:
        """What they suggest in place of the present values, which scored `score`; nothing twice.

        Raises:
            ModelError: the model failed several times, one after the other.
        """
        found: list[Challenger] = []
        for member in self.members:
            asked = hasattr(member, "ask")
            found += (
                self._asked(member, present, score) if asked else self._proposed(member, present)
            )
        return list({c.candidate.id: c for c in found if c.candidate.id not in self.tried}.values())

    def _asked(self, member: Any, present: Candidate, score: float) -> list[Challenger]:
        found: list[Challenger] = []
        while len(found) < self.each:
            try:
                following = member.ask(1)
            except BudgetExceeded:
                raise
            except ModelError as error:
                self._failed(error)
                break
            finally:
                if hasattr(member, "paid"):
                    self._account.pay(member.paid())
            self.failures = 0
            if not following:
                break
            values = {**present.values, **following[0].values}
            candidate = self._values.candidate(values, (present.id,))
            if candidate.id == present.id:
                member.tell(following[0], score)
            else:
                found.append(Challenger(candidate, member, asked=following[0]))
        return found

    def _proposed(self, member: Any, present: Candidate) -> list[Challenger]:
        found = []
        for _ in range(self.each):
            try:
                proposal = member.propose()
            except BudgetExceeded:
                raise
            except ModelError as error:
                self._failed(error)
                continue
            self.failures = 0
            self._account.pay(proposal.usage)
            challenger = self._read(member, proposal, present)
            if challenger is not None:
                found.append(challenger)
        return found

    def _failed(self, error: ModelError) -> None:
        """Go on after a failure of the model, unless there were several, one after the other."""
        self.failures += 1
        self._diary.tell("rejected", f"the model failed: {error}")
        if self.failures >= _MOST_FAILURES:
            raise error

    def _read(self, member: Any, proposal: Proposal, present: Candidate) -> Challenger | None:
        if proposal.rejections:
            member.settle(proposal)  # the next request says what was refused
            refused = "; ".join(f"{r.name}: {r.reason}" for r in proposal.rejections)
            self._diary.tell("rejected", refused)
            return None
        parameters = self._values.parameters
        values = {name: proposal.values.get(p, p.data) for name, p in parameters.items()}
        challenger = Challenger(self._values.candidate(values, (present.id,)), member, proposal)
        if challenger.candidate.id == present.id:
            challenger.refuse("it changes nothing")
            self._diary.tell("rejected", "the proposal changes nothing")
        elif challenger.candidate.id in self.tried:
            challenger.refuse("the same values were tried before and were not better")
            self._diary.tell("rejected", "it was tried before")
        else:
            return challenger
        return None
