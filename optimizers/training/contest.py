"""Test challengers against the present values, on identical examples: a race, a test, the anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, final

from optimizers.candidate import Candidate
from optimizers.training.acceptance import Acceptance
from optimizers.training.account import Account
from optimizers.training.diary import Diary
from optimizers.training.evaluator import Evaluation, Evaluator
from optimizers.training.proposing import Challenger
from optimizers.training.racing import Racing
from optimizers.training.tally import Tally
from tracegraph.kinds import show

__all__ = ["Contest", "shuffled"]


@final
@dataclass
class Contest:
    """Finds out whether a challenger is better than the present values by more than luck.

    Attributes:
        train: all examples, for a closer look where a batch leaves doubt.
        batch_size: how many more are taken then at a time.
        anchors: examples that must not get worse.
        tried: takes in the ids of the candidates that were scored.
    """

    train: Sequence[Any]
    batch_size: int
    seed: int
    acceptance: Acceptance
    racing: Racing | None
    anchors: Mapping[int, Any]
    evaluator: Evaluator
    account: Account
    diary: Diary
    tried: set[str]

    def race(
        self, challengers: Sequence[Challenger], batch: Mapping[int, Any], before: Tally
    ) -> list[Challenger]:
        """Score challengers on a batch; gives those that were not dropped on the way."""
        numbers = list(batch)
        size = len(numbers) if self.racing is None else self.racing.block
        blocks = [numbers[at : at + size] for at in range(0, len(numbers), size)]
        alive = list(challengers)
        for look, block in enumerate(blocks, 1):
            for challenger in alive:
                examples = {number: batch[number] for number in block}
                done = self.evaluator.scores(challenger.candidate, examples)
                self.account.count()
                if challenger.after is None:
                    challenger.after = Tally(self.evaluator)
                    self.tried.add(challenger.candidate.id)
                challenger.after.add(done)
                if look == len(blocks):
                    self._tell("proposed", challenger)
            if self.racing is not None and look < len(blocks):
                alive = self._left(alive, before, len(blocks), self.racing)
        return alive

    def _left(
        self, alive: list[Challenger], before: Tally, looks: int, racing: Racing
    ) -> list[Challenger]:
        scores = {c.candidate.id: c.after.scores for c in alive if c.after is not None}
        seen = max(map(len, scores.values()), default=0)
        gone = racing.dropped({**scores, "": before.scores[:seen]}, looks=looks)
        for challenger in alive:
            if challenger.candidate.id in gone:
                self._tell("dropped", challenger, f"hopeless after {seen} examples")
        return [c for c in alive if c.candidate.id not in gone]

    def _tell(self, kind: Any, challenger: Challenger, note: str = "") -> None:
        self.diary.tell(kind, note, candidate=challenger.candidate, after=challenger.after)

    def verdict(
        self, present: Candidate, batch: Mapping[int, Any], before: Tally, best: Challenger
    ) -> str:
        """Why the best challenger is not accepted; empty where it is."""
        assert best.after is not None
        if not self._better(present, batch, before, best, best.after):
            if best.after.violations > before.violations:
                return "it violates more constraints on the same examples"
            return "no better on the same examples"
        return self._worse_anchor(present, best.candidate)

    def _better(
        self,
        present: Candidate,
        batch: Mapping[int, Any],
        before: Tally,
        best: Challenger,
        after: Tally,
    ) -> bool:
        """Test the best challenger; while that leaves doubt, on more examples."""
        numbers = list(batch)
        while True:
            if before.violations != after.violations:
                return after.violations < before.violations
            decision = self.acceptance.decide(before.scores, after.scores)
            if decision != "undecided":
                return decision == "accept"
            more = self._more(numbers, present, best.candidate)
            if not more:
                return False
            examples = {number: self.train[number] for number in more}
            before.add(self.evaluator.scores(present, examples))
            after.add(self.evaluator.scores(best.candidate, examples))
            self.account.count()
            numbers += more

    def _more(self, known: Sequence[int], present: Candidate, best: Candidate) -> list[int]:
        """Further examples to decide on, those first on which the present values are known."""
        seen = set(known)
        rest = [n for n in shuffled(len(self.train), f"{self.seed}/more") if n not in seen]
        rest.sort(key=lambda n: self.evaluator.missing(present, [n]))
        more = rest[: self.batch_size]
        cost = sum(self.evaluator.missing(candidate, more) for candidate in (present, best))
        return more if cost <= self.account.room() else []

    def _worse_anchor(self, present: Candidate, candidate: Candidate) -> str:
        """Which anchor a candidate does worse on, in words; empty where none."""
        if not self.anchors:
            return ""
        cost = sum(
            self.evaluator.missing(c, list(self.anchors), "anchors") for c in (present, candidate)
        )
        if cost > self.account.room():
            return "the budget has no room to look at the anchors"
        kept = self.evaluator.scores(present, self.anchors, "anchors")
        tried = self.evaluator.scores(candidate, self.anchors, "anchors")
        self.account.count()
        for example, old, new in zip(self.anchors.values(), kept, tried, strict=True):
            if _worse(old, new):
                return (
                    f"the anchor {show(example, 80)} got worse: {new.score:.3g} where the present "
                    f"values score {old.score:.3g}"
                )
        return ""


def shuffled(size: int, seed: str) -> list[int]:
    """The numbers below `size` in an order that the seed gives."""
    order = list(range(size))
    Random(seed).shuffle(order)
    return order


def _worse(old: Evaluation, new: Evaluation) -> bool:
    if old.error is not None:
        return False
    return new.error is not None or (-len(new.violated), new.score) < (
        -len(old.violated),
        old.score,
    )
