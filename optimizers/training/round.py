"""One round of a training: a minibatch with its graph, one backward, proposals, a test on the same examples.

Only what the test finds better is kept, so that an optimizer may be wrong, or its model's reply
unreadable, without harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, final

from optimizers.candidate import Candidate
from optimizers.training.account import Account
from optimizers.training.contest import Contest, shuffled
from optimizers.training.diary import Diary
from optimizers.training.evaluator import Evaluator, Traced
from optimizers.training.members import Members
from optimizers.training.options import Options
from optimizers.training.policies.policy import Entry, Policy, Task
from optimizers.training.proposing import Challenger, Proposers
from optimizers.training.result import Event
from optimizers.training.standings import Standings
from optimizers.training.tally import Tally
from optimizers.training.values import Values
from tracegraph.errors import ModelError, OptimizerError
from tracegraph.events import observed
from tracegraph.kinds import show

__all__ = ["Course", "Round"]


@dataclass(slots=True)
class Course:
    """Where a training is.

    Attributes:
        first: the values at the start.
        present: those in the parameters.
        position: how many examples were taken, over all epochs.
        idle: rounds since something was accepted.
        since: rounds since the present values were validated.
        last_score: of the present values on the examples that they ran on last.
        search: asks (``None``) and tells (ids) of the policy.
    """

    first: Candidate
    present: Candidate
    position: int = 0
    idle: int = 0
    since: int = 0
    last_score: float = 0.0
    search: list[str | None] = field(default_factory=list)


@final
@dataclass
class Round:
    """Takes a training one step further; `run` is the whole of it."""

    options: Options
    train: Sequence[Any]
    batch_size: int
    members: Members
    policy: Policy
    values: Values
    evaluator: Evaluator
    account: Account
    diary: Diary
    standings: Standings
    proposers: Proposers
    contest: Contest
    course: Course

    def run(self) -> Event:
        """Evaluate, ask, test, keep or refuse; says which.

        Raises:
            ModelError: no run of the minibatch reached its model.
            OptimizerError: the outputs do not lead back to the parameters.
        """
        task = self._task()
        batch = self._batch()
        if task.merged:
            return self._test_merged(task.candidate, batch)
        self._turn_to(task.candidate)
        traced = self.evaluator.traced(self.course.present, batch)
        before = self._scored(traced)
        if self._nothing_to_teach(before):
            return self.diary.tell("skipped", "every example is right", before=before)
        self._send(traced)
        with observed("step", optimizer=self.members.optimizer, members=self.members.all) as facts:
            facts["event"] = event = self._improve(batch, before)
        self.members.optimizer.zero_feedback()
        return event

    def told(self, candidate: Candidate) -> None:
        """Tell the policy of a candidate, with its entry where the policy wants one."""
        entry = self.standings.score(candidate, final=True) if self.policy.scored else None
        self.policy.tell(entry or Entry(candidate))
        self.course.search.append(candidate.id)

    # What is improved, and on which examples

    def _task(self) -> Task:
        """What the policy wants done next, if that can be paid."""
        while True:
            chance = Random(f"{self.options.seed}/search/{len(self.course.search)}")
            self.course.search.append(None)
            task = self.policy.ask(chance)
            parents = len(task.candidate.parents) if task.merged else 0
            if self.account.room() >= self.batch_size * (1 + parents) or not task.merged:
                return task

    def _batch(self) -> dict[int, Any]:
        """The next examples, each epoch in an order of its own."""
        chosen: dict[int, Any] = {}
        while len(chosen) < self.batch_size:
            epoch, place = divmod(self.course.position, len(self.train))
            number = shuffled(len(self.train), f"{self.options.seed}/{epoch}")[place]
            self.course.position += 1
            chosen.setdefault(number, self.train[number])
        return chosen

    def _turn_to(self, candidate: Candidate) -> None:
        if candidate.id != self.course.present.id:
            self.values.assign(candidate)
            self.course.present = candidate

    # How the present values do, and what is said of that

    def _scored(self, traced: Sequence[Traced]) -> Tally:
        self.account.count()
        down = [t.raised for t in traced if isinstance(t.raised, ModelError)]
        if len(down) == len(traced):
            raise down[0]  # no optimizer can mend a model that cannot be reached
        before = Tally(self.evaluator, [t.evaluation for t in traced])
        self.course.last_score = before.mean
        self.account.step_begun()
        return before

    def _nothing_to_teach(self, before: Tally) -> bool:
        perfect = self.options.perfect
        return perfect is not None and min(before.scores) >= perfect and not before.violations

    def _send(self, traced: Sequence[Traced]) -> None:
        """Carry the feedback on a minibatch back in one walk."""
        entries = [(t.output, t.messages) for t in traced if t.output is not None and t.messages]
        self.members.optimizer.zero_feedback()
        if not entries:
            plain = [t for t in traced if t.output is None and t.evaluation.error is None]
            if plain:
                raise OptimizerError(
                    "the workflow gave a plain value, not a node: feedback cannot find its way back; "
                    "record what it does with @bundle, and return the node, not its .data"
                )
            return
        self.members.optimizer.backward(entries)

    # What is tried

    def _improve(self, batch: dict[int, Any], before: Tally) -> Event:
        """Ask, and ask again by the same feedback while nothing is accepted and tries are left.

        What moves by itself moves last, so that what is compared was scored with the same tensors.
        """
        for left in range(self.options.tries - 1, -1, -1):
            challengers = self.proposers.challengers(self.course.present, self.course.last_score)
            event = self._compare(batch, before.copy(), challengers)
            again = self.account.room() >= self.batch_size * self.options.proposals
            if event.kind == "accepted" or not left or not again:
                break
            if self.account.budget.spent(self.account.spend):
                break
        self.course.idle = 0 if event.kind == "accepted" else self.course.idle + 1
        if self.members.movers:
            self.members.movers.step()
            self.evaluator.edition += 1
        return event

    def _compare(
        self, batch: dict[int, Any], before: Tally, challengers: list[Challenger]
    ) -> Event:
        """Score the challengers on the batch and let the best one try."""
        if not challengers:
            return self.diary.tell("skipped", "nothing new was proposed", before=before)
        fitting = min(self.account.room() / self.batch_size, len(challengers))
        challengers = challengers[: max(1, int(fitting))]
        alive = self.contest.race(challengers, batch, before)
        for challenger in challengers:
            if challenger.asked is not None and challenger.after is not None:
                challenger.member.tell(challenger.asked, challenger.after.mean)
        best = max(alive or challengers, key=_rank)
        wrong = (
            self.contest.verdict(self.course.present, batch, before, best)
            if alive
            else "it was dropped early: no better on the same examples"
        )
        for challenger in challengers:
            if challenger is not best or wrong:
                challenger.refuse(_refusal(challenger, before, wrong))
        if not wrong:
            return self._accept(best, before)
        return self.diary.tell(
            "rejected", wrong, candidate=best.candidate, after=best.after, before=before
        )

    def _accept(self, best: Challenger, before: Tally) -> Event:
        if best.proposal is not None:
            best.member.settle(best.proposal)
        else:
            self.values.assign(best.candidate)
        self.course.present = best.candidate
        self.standings.keep(best.candidate)
        assert best.after is not None
        self.course.last_score = best.after.mean
        reasoning = "" if best.proposal is None else show(best.proposal.reasoning, 200)
        event = self.diary.tell(
            "accepted", reasoning, candidate=best.candidate, after=best.after, before=before
        )
        self.told(best.candidate)
        return event

    def _test_merged(self, candidate: Candidate, batch: dict[int, Any]) -> Event:
        """Keep a merged candidate that is no worse than the better of its parents."""
        self.account.step_begun()
        parents = [self.standings.kept[name] for name in candidate.parents]
        befores = [Tally(self.evaluator, self.evaluator.scores(p, batch)) for p in parents]
        better = max(range(len(parents)), key=lambda at: _ranked(befores[at]))
        challenger = Challenger(candidate)
        alive = self.contest.race([challenger], batch, befores[better])
        self.account.count()
        self._turn_to(parents[better])
        if alive and _rank(challenger) >= _ranked(befores[better]):
            self.course.idle = 0
            return self._accept(challenger, befores[better])
        self.course.idle += 1
        return self.diary.tell(
            "rejected", "the merged candidate is worse than a parent", candidate=candidate,
            after=challenger.after, before=befores[better],
        )  # fmt: skip


def _rank(challenger: Challenger) -> tuple[int, float]:
    assert challenger.after is not None
    return _ranked(challenger.after)


def _ranked(tally: Tally) -> tuple[int, float]:
    return -tally.violations, tally.total


def _refusal(challenger: Challenger, before: Tally, wrong: str) -> str:
    """Why a challenger is not kept, for whoever proposed it."""
    if challenger.after is None:
        return "it was not tried"
    same = before.scores[: len(challenger.after.scores)]
    present = sum(same) / len(same)
    said = (
        f"it was tried on the same examples and scored {challenger.after.mean:.3g}, the present "
        f"values score {present:.3g}"
    )
    return said if wrong in ("", "no better on the same examples") else f"{said}; {wrong}"
