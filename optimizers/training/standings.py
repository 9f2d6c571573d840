"""The candidates that were accepted, and how they did on the examples that all are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, final

from optimizers.candidate import Candidate
from optimizers.training.account import Account
from optimizers.training.diary import Diary
from optimizers.training.evaluator import Evaluation, Evaluator
from optimizers.training.policies.policy import Entry
from optimizers.training.tally import Tally

__all__ = ["Standings"]


@final
class Standings:
    """Scores candidates on one set of examples, once each, and knows the best.

    Where the guide only compares, each one fights a duel with the best so far, which is run again beside
    it, and takes its place by winning more than it loses.

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
        best = self.best() if self._evaluator.relative else None
        cost = self._evaluator.missing(candidate, list(self.examples), self.split)
        if (cost if best is None else 2 * cost) > self._account.room(final=final):
            return None
        done = self._scores(candidate, best.candidate if best else candidate)
        self._account.count()
        tally = Tally(self._evaluator, done)
        entry = Entry(candidate, tuple(tally.scores), tally.objectives, tally.violations)
        self.entries[candidate.id] = entry
        self._diary.tell("validated", candidate=candidate, after=tally)
        return entry

    def _scores(self, candidate: Candidate, best: Candidate) -> list[Evaluation]:
        """How a candidate does by itself or, where the guide only compares, against the best."""

        def run(who: Candidate) -> list[Evaluation]:
            return self._evaluator.scores(who, self.examples, self.split)

        if not self._evaluator.relative:
            return run(candidate)
        own: list[Evaluation] = []
        guide: Any = self._evaluator.referee.guide
        with guide.against(lambda: own.extend(run(best))):
            return own if candidate.id == best.id else run(candidate)

    def best(self) -> Entry | None:
        """The entry of the best rank, of equals the last; ``None`` where none was scored."""
        if self._evaluator.relative:
            return reduce(_winner, self.entries.values()) if self.entries else None
        ranked = max(
            enumerate(self.entries.values()), key=lambda item: (item[1].rank, item[0]), default=None
        )
        return None if ranked is None else ranked[1]


def _winner(best: Entry, entry: Entry) -> Entry:
    """Who is best after a duel of `entry` with the best until then."""
    won = (-entry.violations, sum(entry.scores)) > (-best.violations, 0.0)
    return entry if won else best
