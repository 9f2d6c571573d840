"""The loop: round after round until the budget is spent, the target reached, or nothing improves.

All chance comes from the seed and the number of the step; what a stopped training needs to go on
exactly is plain JSON (`Training.state_dict`).
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, final

from optimizers.candidate import Candidate
from optimizers.training.acceptance import Paired
from optimizers.training.account import Account
from optimizers.training.allowances import Allowances
from optimizers.training.budget import as_budget
from optimizers.training.contest import Contest
from optimizers.training.diary import Diary
from optimizers.training.evaluator import Evaluator
from optimizers.training.guide import Guide
from optimizers.training.members import Members
from optimizers.training.options import Options, examples_of, taking
from optimizers.training.policies.greedy import Greedy
from optimizers.training.policies.pareto import Over, front
from optimizers.training.policies.policy import Entry
from optimizers.training.progress import Progress
from optimizers.training.proposing import Proposers
from optimizers.training.result import Event, Result
from optimizers.training.round import Course, Round
from optimizers.training.saving import Journals, as_store
from optimizers.training.side_by_side import Stopped
from optimizers.training.snapshot import restore, snapshot
from optimizers.training.standings import Standings
from optimizers.training.values import Values
from tracegraph.errors import BudgetExceeded, OptimizerError, TracegraphError
from tracegraph.history.at_hand import AtHand
from tracegraph.recorder import Policy, current, under
from tracegraph.warning import warn

__all__ = ["RunsFailed", "Training", "TrainingStopped", "afit", "fit"]


class TrainingStopped(UserWarning):
    """A training ended early because of an error; what was achieved is in its result."""


class RunsFailed(UserWarning):
    """No run of a training's workflow came to its end: mostly it is called in another way than it expects."""


@final
class Training:
    """A training step by step; `fit` runs one from beginning to end.

    See `fit` for the arguments. Nothing is run before `run` or `step`.
    """

    def __init__(
        self, workflow: Any, train: Iterable[Any], guide: Guide, options: Options | None = None
    ) -> None:
        self.options: Final = options or Options()
        o = self.options
        self._apart = under((current() or Policy()).changed(active=True, frame=None))
        self.train = examples_of(train, "train")
        self.validation = None if o.validation is None else examples_of(o.validation, "validation")
        anchors = examples_of(o.anchors, "anchors", least=0)
        self.batch_size = min(o.batch_size, len(self.train))
        budget = as_budget(o.budget)
        self.members = Members(o.optimizer, workflow)
        self.policy = copy.deepcopy(o.search) if o.search is not None else Greedy()
        self.store = as_store(o.store)
        self.members.movers.keep_in(self.store)
        self.journals = Journals(self.store)
        self.values = Values(self.members.proposers)
        self.evaluator = Evaluator(
            workflow, guide, self.values.parameters, call=o.call, executor=o.executor,
            remote=o.remote, workers=o.workers, timeout=o.timeout, failure_score=o.failure_score,
            constraints=o.constraints, weights=o.weights, journal=self.journals.evaluations,
            receipts=self.journals.receipts, tensors=self.journals.tensors,
        )  # fmt: skip
        held = {
            "workflow": workflow,
            "call": o.call,
            "guide": guide,
            "optimizers": self.members.all,
        }
        self.allowances = Allowances(AtHand(held), self.journals.allowances)
        self.evaluator.apart = bool(self.members.movers)
        compared = self.validation or (self.train if self.policy.scored else [])
        self._check_relative(guide)
        self.account = Account(
            budget, self.evaluator, reserve=len(compared) * (2 if self.evaluator.relative else 1),
            step=self.batch_size * (1 + o.proposals * len(self.members.proposers))
            + 2 * len(anchors), receipts=self.journals.receipts,
        )  # fmt: skip
        self.account.check_start()
        self.diary = Diary(o.on, self.account)
        with self._apart:  # a call that a training happens to be in has read none of its values
            first = self.values.present()
        self.standings = Standings(
            compared, "validation" if self.validation else "train", first, self.evaluator,
            self.account, self.diary,
        )  # fmt: skip
        self.tried = {first.id}
        self.proposers = Proposers(
            self.members.proposers, self.values, o.proposals, self.tried, self.account, self.diary,
            self.journals.receipts,
        )  # fmt: skip
        self.contest = Contest(
            self.train, self.batch_size, o.seed, o.acceptance or Paired(), o.racing,
            dict(enumerate(anchors)), self.evaluator, self.account, self.diary, self.tried,
        )  # fmt: skip
        self.round = Round(
            o, self.train, self.batch_size, self.members, self.policy, self.values, self.evaluator,
            self.account, self.diary, self.standings, self.proposers, self.contest,
            Course(first, first),
        )  # fmt: skip

    @property
    def course(self) -> Course:
        """Where the training is."""
        return self.round.course

    def _check_relative(self, guide: Guide) -> None:
        """Refuse what scores cannot say that only hold between two candidates."""
        if not self.evaluator.relative:
            return
        if self.policy.scored:
            raise OptimizerError(
                "this guide compares two candidates, so its scores cannot rank several, as search= needs: "
                "who beats whom may go round in a circle. Leave out search=, or compare with outputs that "
                "stay the same: SPO(..., reference=function), Pairwise(compare, reference=function)"
            )
        if self.validation and not hasattr(guide, "against"):
            raise OptimizerError(
                "this guide compares with the present values only; to compare the best so far on "
                "validation= it needs against(), see optimizers.duels.Duels"
            )

    # Running

    def run(self) -> Result:
        """Step until the budget is spent, the target reached, or nothing improves any more.

        Raises:
            BadVerdict: the guide raised, or gave no score, on the first examples.
            OptimizerError: the outputs do not lead back to the parameters.
            HistoryError: the store is in use by another training, or cannot be used.
        """
        with self._apart, self.journals.held(), self.journals.asked(self.members.proposers):
            error: BaseException | None = None
            try:
                self._begin()
                while True:
                    self._check_limits()
                    self.step()
            except Stopped as stop:
                reason = str(stop)
            except BaseException as problem:
                if not self._ends_with(problem):
                    self.values.assign(self._best())
                    problem.add_note("the parameters hold the best values found until then")
                    raise
                error, reason = problem, f"{type(problem).__name__}: {problem}".removesuffix(": ")
                if not isinstance(problem, BudgetExceeded):
                    warn(f"the training ended early: {reason}", TrainingStopped)
            failed = self.evaluator.failed_always()
            if failed and not isinstance(error, KeyboardInterrupt):
                reason = (
                    f"{reason}; no run of the workflow came to its end, the last raised {failed}"
                )
                warn(f"the training ended: {reason}", RunsFailed)
            return self._finish(reason, error)

    def stop(self) -> None:
        """End soon, from another thread: what runs is cancelled, and no more is spent."""
        if not self.evaluator.stop.done():
            self.evaluator.stop.set_result(None)

    def step(self) -> Event:
        """One minibatch: evaluate, ask, test, keep or refuse."""
        event = self.round.run()
        self.course.since += 1
        if not self.policy.scored and self.course.since >= self.options.validate_every:
            self._validate()
        self._save()
        return event

    def _begin(self) -> None:
        if self.diary.events:
            return
        stored = self.store.load() if self.store is not None and self.options.resume else None
        if stored is None:
            self.journals.clear()
            self.allowances.go_on({}, stored=True)
        going = self.options.state if stored is None else stored
        if going is not None:
            restore(self, going, stored=stored is not None)
        if stored is None:
            self._save()
        self._entered()
        if not self.diary.events:
            examples, parameters = len(self.train), len(self.values.parameters)
            self.diary.tell("started", f"{examples} examples, {parameters} parameters")
            self._validate()
            self.round.told(self.course.first)
            self._save()

    def _save(self) -> None:
        if self.store is not None:
            self.members.movers.save()
            self.store.save(self.state_dict())
            self.journals.saved()
            self.allowances.saved()
        self._entered()

    def _entered(self) -> None:
        """Let whoever keeps what is paid for know where the training is."""
        moment = str(self.account.spend.steps)
        self.evaluator.moment = moment
        self.proposers.begin(moment)

    def _ends_with(self, problem: BaseException) -> bool:
        """Whether a problem only ends the training early, because there is something to return."""
        if not isinstance(problem, (TracegraphError, KeyboardInterrupt)):
            return False
        begun = any(event.step for event in self.diary.events)
        return begun or isinstance(problem, BudgetExceeded)

    def _check_limits(self) -> None:
        if self.evaluator.stop.done():
            raise Stopped("it was asked to stop")
        reason = self.account.over()
        if reason:
            raise Stopped(reason)
        target, patience = self.options.target, self.options.patience
        if target is not None and self._reached() >= target:
            raise Stopped(f"the target {target:g} is reached")
        if patience is not None and self.course.idle >= patience:
            raise Stopped(f"nothing was accepted in {self.course.idle} steps")

    def _finish(self, reason: str, error: BaseException | None) -> Result:
        self.account.count()
        try:
            ended = error is None or isinstance(error, BudgetExceeded)
            if ended and not self.evaluator.stop.done():
                self._validate(final=True)
        except TracegraphError as problem:
            error = problem
        best = self._best()
        self.values.assign(best)
        self.diary.tell("finished", reason, candidate=best)
        entries = self.standings.entries
        known = entries.get(best.id)
        start = entries.get(self.course.first.id)
        over: Over = "objectives" if known is not None and known.objectives else "instances"
        return Result(
            best,
            self.course.last_score if known is None else known.score,
            self._first_score() if start is None else start.score,
            self._front(best, over),
            tuple(self.diary.events),
            self.account.spend,
            reason,
            error,
            dict(self.standings.kept),
            self.state_dict(),
        )

    # The best

    def _front(self, best: Candidate, over: Over) -> tuple[Entry, ...]:
        entries = self.standings.entries
        if self.evaluator.relative:  # scores of duels with different opponents cannot be compared
            return (entries.get(best.id) or Entry(best),)
        return tuple(front(list(entries.values()), over)) or (Entry(best),)

    def _validate(self, *, final: bool = False) -> None:
        """Score the present values on the validation set, if that was not done and can be paid."""
        if self.course.present.id in self.standings.entries or not self.standings.examples:
            return
        if self.standings.score(self.course.present, final=final) is not None:
            self.course.since = 0

    def _best(self) -> Candidate:
        """The best of those that were compared; where none was the present values."""
        best = self.standings.best()
        return self.course.present if best is None else best.candidate

    def _reached(self) -> float:
        best = self.standings.best()
        return self.course.last_score if best is None else best.score

    def _first_score(self) -> float:
        return next(
            (e.before for e in self.diary.events if e.before is not None), self.course.last_score
        )

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
        restore(self, state, stored=False)


@taking(Options)
def fit(workflow: Any, train: Iterable[Any], guide: Guide, **options: Any) -> Result:
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
async def afit(workflow: Any, train: Iterable[Any], guide: Guide, **options: Any) -> Result:
    """`fit`, awaited: the event loop goes on meanwhile.

    It runs in a thread. When the task is cancelled, what runs is cancelled as after a `timeout`, and
    the training ends; the best values that were found until then are in the parameters when this
    raises.
    """
    with _shown(Options.of(**options)) as shown:
        training = Training(workflow, train, guide, shown)
        run = asyncio.ensure_future(asyncio.to_thread(training.run))
        try:
            return await asyncio.shield(run)
        except asyncio.CancelledError:
            training.stop()
            await asyncio.wait([run])
            run.exception()  # whatever it is, whoever cancelled does not wait for it
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
