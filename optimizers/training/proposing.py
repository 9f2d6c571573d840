"""Ask optimizers for candidates: those that propose by feedback, and those that ask and are told."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

from optimizers.base import Proposal, Usage
from optimizers.candidate import Candidate
from optimizers.places import Place
from optimizers.training.account import Account
from optimizers.training.diary import Diary
from optimizers.training.tally import Tally
from optimizers.training.values import Values
from tracegraph.errors import ModelError
from tracegraph.llm.keeping import keeping

__all__ = ["Challenger", "Proposers"]

T = TypeVar("T")
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
        receipts: keeps what their models reply, see `Evaluator`.
    """

    def __init__(
        self,
        members: Sequence[Any],
        values: Values,
        each: int,
        tried: set[str],
        account: Account,
        diary: Diary,
        receipts: MutableMapping[str, Any] | None = None,
    ) -> None:
        self.members, self.each, self.tried = list(members), each, tried
        self.failures = 0
        self._values, self._account, self._diary = values, account, diary
        self._receipts, self._moment, self._number = receipts, "", 0

    def begin(self, moment: str) -> None:
        """Begin a step; `moment` is the same where the step is done again."""
        self._moment, self._number = moment, 0

    def challengers(self, present: Candidate, score: float) -> list[Challenger]:
        """What they suggest in place of the present values, which scored `score`; nothing twice.

        Raises:
            ModelError: the model failed several times, one after the other.
        """
        found: list[Challenger] = []
        for member in self.members:
            if found and self._account.spent():
                break
            ask = self._asked if hasattr(member, "ask") else self._proposed
            found += ask(member, present, score)
        return list({c.candidate.id: c for c in found if c.candidate.id not in self.tried}.values())

    def _asked(self, member: Any, present: Candidate, score: float) -> list[Challenger]:
        found: list[Challenger] = []
        while len(found) < self.each and not (found and self._account.spent()):
            following = self._paid(member, lambda: member.ask(1))
            if not following:
                break
            values = {**present.values, **following[0].values}
            candidate = self._values.candidate(values, (present.id,))
            if candidate.id == present.id:
                member.tell(following[0], score)
            else:
                found.append(Challenger(candidate, member, asked=following[0]))
        return found

    def _proposed(self, member: Any, present: Candidate, score: float) -> list[Challenger]:
        found: list[Challenger] = []
        for _ in range(self.each):
            if found and self._account.spent():
                break
            proposal = self._paid(member, member.propose)
            challenger = None if proposal is None else self._read(member, proposal, present)
            if challenger is not None:
                found.append(challenger)
        return found

    def _paid(self, member: Any, ask: Callable[[], T]) -> T | None:
        """What a member answers; ``None`` where its model failed. What was paid counts either way."""
        place = Place(f"{self._moment}/asked/{self._number}", self._receipts)
        self._number += 1
        given: T | None = None
        try:
            try:
                with keeping(place):
                    given = ask()
            finally:
                self._account.pay(_cost(member, given, place))
        except ModelError as error:
            self._failed(error)
            return None
        self.failures = 0
        return given

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


def _cost(member: Any, given: Any, place: Place) -> Usage:
    """What a member says that its answer cost; where it does not say, what was seen of it."""
    if isinstance(given, Proposal):
        return given.usage
    paid: Callable[[], Usage] | None = getattr(member, "paid", None)
    return place.usage if paid is None else paid()
