"""The candidates that were accepted, and how they did on the examples that all are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, final

from optimizers.candidate import Candidate
from optimizers.training.account import Account
from optimizers.training.diary import Diary
from optimizers.training.evaluator import Evaluator
from optimizers.training.policies.policy import Entry
from optimizers.training.tally import Tally

__all__ = ["Standings"]


@final
class Standings:
    """Scores candidates on one set of examples, once each, and knows the best.

    Args:
        examples: what they are compared on; none where nobody needs that.
        split: the name of these examples: the validation set, or all the training examples.
        first: the values at the start.
    """

    def __init__(
        self,
        examples: Sequence[Any],
        split: Literal["train", "validation"],
        first: Candidate,
        evaluator: Evaluator,
        account: Account,
        diary: Diary,
    ) -> None:
        self.examples = dict(enumerate(examples))
        self.split = split
        self.kept = {first.id: first}
        self.entries: dict[str, Entry] = {}
        self._evaluator, self._account, self._diary = evaluator, account, diary

    def keep(self, candidate: Candidate) -> None:
        """Remember an accepted candidate."""
        self.kept[candidate.id] = candidate

    def score(self, candidate: Candidate, *, final: bool = False) -> Entry | None:
        """A candidate's entry, scored now if it was not and can be paid."""
        if candidate.id in self.entries or not self.examples:
            return self.entries.get(candidate.id)
        cost = self._evaluator.missing(candidate, list(self.examples), self.split)
        if cost > self._account.room(final=final):
            return None
        done = self._evaluator.scores(candidate, self.examples, self.split)
        self._account.count()
        tally = Tally(self._evaluator, done)
        entry = Entry(candidate, tuple(tally.scores), tally.objectives, tally.violations)
        self.entries[candidate.id] = entry
        self._diary.tell("validated", candidate=candidate, after=tally)
        return entry

    def best(self) -> Entry | None:
        """The entry of the best rank, of equals the last; ``None`` where none was scored."""
        ranked = max(
            enumerate(self.entries.values()), key=lambda item: (item[1].rank, item[0]), default=None
        )
        return None if ranked is None else ranked[1]
