"""The loop: a minibatch with its graph, one backward, a proposal, a test on the same examples.

Only what the test finds better is kept, so that an optimizer may be wrong, or its model's reply
unreadable, without harm. All chance comes from the seed and the number of the step; what a stopped
training needs to go on exactly is plain JSON (`Training.state_dict`).
"""

from __future__ import annotations

import asyncio
import copy
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any, Final, final

from optimizers.candidate import Candidate
from optimizers.training.acceptance import Paired
from optimizers.training.account import Account
from optimizers.training.budget import as_budget
from optimizers.training.contest import Contest, shuffled
from optimizers.training.diary import Diary
from optimizers.training.evaluator import Evaluator, Traced
from optimizers.training.guide import Guide
from optimizers.training.members import Members
from optimizers.training.options import Options, examples_of, taking
from optimizers.training.policies.greedy import Greedy
from optimizers.training.policies.pareto import Over, front
from optimizers.training.policies.policy import Entry, Task
from optimizers.training.progress import Progress
from optimizers.training.proposing import Challenger, Proposers
from optimizers.training.result import Event, Result
from optimizers.training.saving import Journals, as_store
from optimizers.training.snapshot import restore, snapshot
from optimizers.training.standings import Standings
from optimizers.training.tally import Tally
from optimizers.training.values import Values
from tracegraph.errors import BudgetExceeded, ModelError, OptimizerError, TracegraphError
from tracegraph.events import observed
from tracegraph.kinds import show

__all__ = ["Training", "TrainingStopped", "afit", "fit"]


class TrainingStopped(UserWarning):
    """A training ended early because of an error; what was achieved is in its result."""


class _Stop(Exception):
    """The training shall end, for the reason that it carries."""


@final
class Training:
    """A training step by step; `fit` runs one from beginning to end.

    See `fit` for the arguments. Nothing is run before `run` or `step`.
    """

    def __init__(
        self, workflow: Any, train: Sequence[Any], guide: Guide, options: Options | None = None
    ) -> None:
        self.options: Final = options or Options()
        o = self.options
        self.train = examples_of(train, "train")
        self.validation = None if o.validation is None else examples_of(o.validation, "validation")
        anchors = examples_of(o.anchors, "anchors") if len(o.anchors) else []
        self.batch_size = min(o.batch_size, len(self.train))
        budget = as_budget(o.budget)
        self.members = Members(o.optimizer, workflow)
        self.policy = copy.deepcopy(o.search) if o.search is not None else Greedy()
        self.store = as_store(o.store)
        self.members.check_store(self.store)
        self.journals = Journals(self.store)
        self.values = Values(self.members.proposers)
        self.evaluator = Evaluator(
            workflow, guide, self.values.parameters, call=o.call, executor=o.executor,
            remote=o.remote, workers=o.workers, timeout=o.timeout, failure_score=o.failure_score,
            constraints=o.constraints, weights=o.weights, journal=self.journals.evaluations,
        )  # fmt: skip
        compared = self.validation or (self.train if self.policy.scored else [])
        if self.evaluator.relative and compared:
            raise OptimizerError(
                "this guide compares a candidate with the present values only, so its scores cannot rank "
                "several: leave out validation= and search=, or compare with fixed outputs (Pairwise)"
            )
        self.account = Account(
            budget, self.evaluator, reserve=len(compared),
            step=self.batch_size * (1 + o.proposals * len(self.members.proposers))
            + 2 * len(anchors),
        )  # fmt: skip
        self.account.check_start()
        self.diary = Diary(o.on, self.account)
        self.present = self.first = self.values.present()
        self.standings = Standings(
            compared, "validation" if self.validation else "train", self.first, self.evaluator,
            self.account, self.diary,
        )  # fmt: skip
        self.tried = {self.present.id}
        self.proposers = Proposers(
            self.members.proposers, self.values, o.proposals, self.tried, self.account, self.diary
        )
        self.contest = Contest(
            self.train, self.batch_size, o.seed, o.acceptance or Paired(), o.racing,
            dict(enumerate(anchors)), self.evaluator, self.account, self.diary, self.tried,
        )  # fmt: skip
        self.stop_now = threading.Event()
        self.search_log: list[str | None] = []
        self.position = self.idle = self.since = 0
        self.last_score = 0.0

    # Running

    def run(self) -> Result:
        """Step until the budget is spent, the target reached, or nothing improves any more.

        Raises:
            BadVerdict: the guide raised, or gave no score, on the first examples.
            OptimizerError: the outputs do not lead back to the parameters.
            HistoryError: the store is in use by another training, or cannot be used.
        """
        with self.journals.held(), self.journals.paying(self.members.proposers):
            error: Exception | None = None
            try:
                self._begin()
                while True:
                    self._check_limits()
                    self.step()
            except _Stop as stop:
                reason = str(stop)
            except TracegraphError as problem:
                if not self._achieved(problem):
                    raise
                error, reason = problem, f"{type(problem).__name__}: {problem}"
                if not isinstance(problem, BudgetExceeded):
                    warnings.warn(
                        f"the training ended early: {reason}", TrainingStopped, stacklevel=3
                    )
            except BaseException as problem:
                self.values.assign(self._best())
                problem.add_note("the parameters hold the best values that were found until then")
                raise
            return self._finish(reason, error)

    def step(self) -> Event:
        """One minibatch: evaluate, ask, test, keep or refuse."""
        task = self._ask()
        batch = self._batch()
        if task.merged:
            self.account.step_begun()
            event = self._test_merged(task.candidate, batch)
        else:
            self._turn_to(task.candidate)
            event = self._improve(batch)
        self.since += 1
        if not self.policy.scored and self.since >= self.options.validate_every:
            self._validate()
        self._save()
        return event

    def _begin(self) -> None:
        if self.diary.events:
            return
        stored = self.store.load() if self.store is not None and self.options.resume else None
        if stored is None:
            self.journals.clear()
        going = self.options.state if stored is None else stored
        if going is not None:
            self.load_state_dict(going)
        self._save()
        if not self.diary.events:
            examples, parameters = len(self.train), len(self.values.parameters)
            self.diary.tell("started", f"{examples} examples, {parameters} parameters")
            self._validate()
            self._told(self.first)
            self._save()

    def _save(self) -> None:
        if self.store is not None:
            self.store.save(self.state_dict())

    def _achieved(self, problem: Exception) -> bool:
        """Whether there is something to return in spite of an error."""
        begun = any(event.step for event in self.diary.events)
        return begun or isinstance(problem, BudgetExceeded)

    def _check_limits(self) -> None:
        reason = self.account.over()
        if self.stop_now.is_set():
            raise _Stop("it was asked to stop")
        if reason:
            raise _Stop(reason)
        target, patience = self.options.target, self.options.patience
        if target is not None and self._reached() >= target:
            raise _Stop(f"the target {target:g} is reached")
        if patience is not None and self.idle >= patience:
            raise _Stop(f"nothing was accepted in {self.idle} steps")

    def _finish(self, reason: str, error: Exception | None) -> Result:
        try:
            if error is None or isinstance(error, BudgetExceeded):
                self._validate(final=True)
        except TracegraphError as problem:
            error = problem
        best = self._best()
        self.values.assign(best)
        self.diary.tell("finished", reason, candidate=best)
        entries = self.standings.entries
        known = entries.get(best.id)
        start = entries.get(self.first.id)
        over: Over = "objectives" if known is not None and known.objectives else "instances"
        return Result(
            best,
            self.last_score if known is None else known.score,
            self._first_score() if start is None else start.score,
            tuple(front(list(entries.values()), over)) or (Entry(best),),
            tuple(self.diary.events),
            self.account.spend,
            reason,
            error,
            dict(self.standings.kept),
            self.state_dict(),
        )

    # One step's parts

    def _ask(self) -> Task:
        """What the policy wants done next, if that can be paid."""
        while True:
            chance = Random(f"{self.options.seed}/search/{len(self.search_log)}")
            self.search_log.append(None)
            task = self.policy.ask(chance)
            parents = len(task.candidate.parents) if task.merged else 0
            if self.account.room() >= self.batch_size * (1 + parents) or not task.merged:
                return task

    def _told(self, candidate: Candidate) -> None:
        """Tell the policy of a candidate, with its entry where the policy wants one."""
        entry = self.standings.score(candidate, final=True) if self.policy.scored else None
        self.policy.tell(entry or Entry(candidate))
        self.search_log.append(candidate.id)

    def _turn_to(self, candidate: Candidate) -> None:
        if candidate.id != self.present.id:
            self.values.assign(candidate)
            self.present = candidate

    def _batch(self) -> dict[int, Any]:
        """The next examples, each epoch in an order of its own."""
        chosen: dict[int, Any] = {}
        while len(chosen) < self.batch_size:
            epoch, place = divmod(self.position, len(self.train))
            number = shuffled(len(self.train), f"{self.options.seed}/{epoch}")[place]
            self.position += 1
            chosen.setdefault(number, self.train[number])
        return chosen

    def _improve(self, batch: dict[int, Any]) -> Event:
        """Run the present values on a batch, and look for better ones by the feedback on it."""
        traced = self.evaluator.traced(self.present, batch)
        self.account.count()
        down = [t.raised for t in traced if isinstance(t.raised, ModelError)]
        if len(down) == len(traced):
            raise down[0]  # no optimizer can mend a model that cannot be reached
        before = Tally(self.evaluator, [t.evaluation for t in traced])
        self.last_score = before.mean
        self.account.step_begun()
        perfect = self.options.perfect
        if perfect is not None and min(before.scores) >= perfect and not before.violations:
            return self.diary.tell("skipped", "every example is right", before=before)
        self._send(traced)
        with observed("step", optimizer=self, members=self.members.all) as facts:
            facts["event"] = event = self._tried_in_turn(batch, before)
        return event

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

    def _tried_in_turn(self, batch: dict[int, Any], before: Tally) -> Event:
        """Ask, and ask again by the same feedback while nothing is accepted and tries are left."""
        for member in self.members.steppers:
            member.step()
        for left in range(self.options.tries - 1, -1, -1):
            challengers = self.proposers.challengers(self.present, self.last_score)
            event = self._compare(batch, before.copy(), challengers)
            account = self.account
            again = account.room() >= self.batch_size * self.options.proposals
            if event.kind == "accepted" or not left or not again:
                break
            if account.budget.spent(account.spend):
                break
        self.idle = 0 if event.kind == "accepted" else self.idle + 1
        self.members.optimizer.zero_feedback()
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
            self.contest.verdict(self.present, batch, before, best)
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
        self.present = best.candidate
        self.standings.keep(best.candidate)
        assert best.after is not None
        self.last_score = best.after.mean
        reasoning = "" if best.proposal is None else show(best.proposal.reasoning, 200)
        event = self.diary.tell(
            "accepted", reasoning, candidate=best.candidate, after=best.after, before=before
        )
        self._told(best.candidate)
        return event

    def _test_merged(self, candidate: Candidate, batch: dict[int, Any]) -> Event:
        """Keep a merged candidate that is no worse than the better of its parents."""
        parents = [self.standings.kept[name] for name in candidate.parents]
        befores = [Tally(self.evaluator, self.evaluator.scores(p, batch)) for p in parents]
        better = max(range(len(parents)), key=lambda at: _ranked(befores[at]))
        challenger = Challenger(candidate)
        alive = self.contest.race([challenger], batch, befores[better])
        self.account.count()
        self._turn_to(parents[better])
        if alive and _rank(challenger) >= _ranked(befores[better]):
            self.idle = 0
            return self._accept(challenger, befores[better])
        self.idle += 1
        return self.diary.tell(
            "rejected", "the merged candidate is worse than a parent", candidate=candidate,
            after=challenger.after, before=befores[better],
        )  # fmt: skip

    # The best

    def _validate(self, *, final: bool = False) -> None:
        """Score the present values on the validation set, if that was not done and can be paid."""
        if self.present.id in self.standings.entries or not self.standings.examples:
            return
        if self.standings.score(self.present, final=final) is not None:
            self.since = 0

    def _best(self) -> Candidate:
        """The best of those that were compared; where none was the present values."""
        best = self.standings.best()
        return self.present if best is None else best.candidate

    def _reached(self) -> float:
        best = self.standings.best()
        return self.last_score if best is None else best.score

    def _first_score(self) -> float:
        return next((e.before for e in self.diary.events if e.before is not None), self.last_score)

    # Going on after a stop

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on exactly as if nothing had stopped, as JSON-able data."""
        return snapshot(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            OptimizerError: it is no such state, or was made with other options or parameters;
                nothing has changed.
        """
        restore(self, state)


@taking(Options)
def fit(workflow: Any, train: Sequence[Any], guide: Guide, **options: Any) -> Result:
    """Improve a workflow on examples, and keep only what is better.

    Each step runs a minibatch, carries the guide's feedback back in one walk, lets the optimizer
    propose, scores the proposal on the same examples, and keeps it if it is better by more than luck.
    In the end the best values are in the parameters.

    Args:
        workflow: any callable, sync or async, that returns a node. It is called with the first of a
            pair (input, expected), or with the whole example.
        train: the examples to learn from.
        guide: ``guide(example, output)`` gives a score (larger is better), or a dict of scores by
            objective, either with a text, or feedback.
        **options: by keyword, see `Options`; the main ones are ``validation``, ``optimizer``,
            ``search``, ``budget``, ``workers``, ``store``, ``resume``, ``seed`` and ``on``.

    Raises:
        OptimizerError: there are no examples, no parameters, or no room in the budget; nothing was
            run.
        BadVerdict: the guide gave no score on the first examples.
        HistoryError: the store is in use, or of another version; nothing was run.

    >>> import tracegraph as tg
    >>> from optimizers import Budget, OptoPrime
    >>> from tracegraph.llm import Scripted
    >>> greeting = tg.node("Hi", trainable=True, name="greeting")
    >>> llm = Scripted(['{"suggestion": {"greeting": "Good day"}}', "no idea"])
    >>> result = fit(lambda name: greeting + ", " + name, ["Ann", "Bob"],
    ...              lambda name, said: (float(said.startswith("Good")), "more polite"),
    ...              optimizer=OptoPrime([greeting], llm=llm), budget=Budget(steps=2))
    >>> greeting.data, result.score
    ('Good day', 1.0)
    """
    with _shown(Options.of(**options)) as shown:
        return Training(workflow, train, guide, shown).run()


@taking(Options)
async def afit(workflow: Any, train: Sequence[Any], guide: Guide, **options: Any) -> Result:
    """`fit`, awaited: the event loop goes on meanwhile.

    It runs in a thread. When the task is cancelled the training ends after the step under way, and
    what was achieved is in the parameters.
    """
    with _shown(Options.of(**options)) as shown:
        training = Training(workflow, train, guide, shown)
        try:
            return await asyncio.to_thread(training.run)
        except asyncio.CancelledError:
            training.stop_now.set()
            raise


@contextmanager
def _shown(options: Options) -> Iterator[Options]:
    """Options whose listeners show a person what happens, where that is wanted."""
    progress = Progress(budget=as_budget(options.budget))
    if options.progress or (options.progress is None and progress.stream.isatty()):
        options = replace(options, on=(*options.on, progress))
    try:
        yield options
    finally:
        progress.close()


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
