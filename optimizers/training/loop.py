"""The loop: a minibatch with its graph, one backward, a proposal, a test on the same examples.

Only what the test finds better is kept, so that an optimizer may be wrong, or its model's reply
unreadable, without harm. All chance comes from the seed and the number of the step; what a stopped
training needs to go on exactly is plain JSON (`Training.state_dict`).
"""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any, Final, Protocol, final

from optimizers.base import Optimizer, Proposal, collect
from optimizers.candidate import Candidate, identity
from optimizers.encoding import decoded, encoded
from optimizers.partition import Partition, optimize
from optimizers.training.acceptance import Paired
from optimizers.training.budget import Budget, Spend, as_budget
from optimizers.training.evaluator import Call, Evaluation, Evaluator, Traced
from optimizers.training.guide import BadVerdict, Guide
from optimizers.training.progress import Progress
from optimizers.training.result import Event, Kind, Listener, Result
from tracegraph.errors import BudgetExceeded, ModelError, OptimizerError
from tracegraph.events import observe, observed
from tracegraph.kinds import show
from tracegraph.module import named_parameters

__all__ = ["Store", "Training", "TrainingStopped", "afit", "fit"]

_FORMAT: Final = 1
_MOST_FAILURES: Final = 3


class TrainingStopped(UserWarning):
    """A training ended early because of an error; what was achieved is in its result."""


class Store(Protocol):
    """Keeps the state of a training between processes; the run history is one."""

    def load(self) -> Mapping[str, Any] | None:
        """The state that was saved last, or ``None``."""
        ...

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state, all of it or none."""
        ...


@dataclass(slots=True)
class _Challenger:
    """A candidate that may take the place of the present values."""

    candidate: Candidate
    member: Any
    proposal: Proposal | None = None
    asked: Any = None
    after: list[float] = field(default_factory=list)


class _Stop(Exception):
    """The training shall end, for the reason that it carries."""


@final
class Training:
    """A training step by step; `fit` runs one from beginning to end.

    See `fit` for the arguments.
    """

    def __init__(
        self,
        workflow: Any,
        train: Sequence[Any],
        guide: Guide,
        *,
        validation: Sequence[Any] | None = None,
        optimizer: Any = None,
        budget: Budget | int | None = None,
        batch_size: int = 10,
        proposals: int = 1,
        tries: int = 3,
        acceptance: Any = None,
        validate_every: int = 1,
        patience: int | None = None,
        target: float | None = None,
        perfect: float | None = None,
        call: Call | None = None,
        executor: Executor | None = None,
        workers: int = 8,
        timeout: float | None = None,
        failure_score: float = 0.0,
        seed: int = 0,
        on: Iterable[Listener] = (),
        store: Store | None = None,
    ) -> None:
        self.train = _examples(train, "train")
        self.validation = None if validation is None else _examples(validation, "validation")
        self.budget = as_budget(budget)
        for name, number in (
            ("batch_size", batch_size), ("proposals", proposals), ("tries", tries),
            ("validate_every", validate_every),
        ):  # fmt: skip
            if not isinstance(number, int) or number < 1:
                raise OptimizerError(f"{name} must be a whole number from 1, got {number!r}")
        self.batch_size = min(batch_size, len(self.train))
        self.proposals, self.tries, self.validate_every = proposals, tries, validate_every
        self.optimizer = _optimizer(optimizer, workflow)
        self.members = (
            list(self.optimizer.optimizers)
            if isinstance(self.optimizer, Partition)
            else [self.optimizer]
        )
        self.proposers = [m for m in self.members if hasattr(m, "propose")]
        self.steppers = [m for m in self.members if not hasattr(m, "propose")]
        self.parameters = {
            name: p for m in self.proposers for name, p in _unique(m, self.proposers).items()
        }
        self.acceptance = acceptance or Paired()
        self.patience, self.target, self.perfect = patience, target, perfect
        self.seed = seed
        self.listeners = tuple(on)
        self.store = store
        self.evaluator = Evaluator(
            workflow, guide, self.parameters, call=call, executor=executor, workers=workers,
            timeout=timeout, failure_score=failure_score,
        )  # fmt: skip
        self._check_room()
        self.spend = Spend()
        self.history: list[Event] = []
        self.stop_now = threading.Event()
        self.present = self._candidate()
        self.first = self.present
        self._position = 0
        self._tried: set[str] = {self.present.id}
        self._validated: dict[str, float] = {}
        self._kept = {self.present.id: self.present}
        self._idle = self._failures = 0
        self._last_score = 0.0
        self._since = 0
        self._began = time.monotonic()

    # Running

    def run(self) -> Result:
        """Step until the budget is spent, the target reached, or nothing improves any more.

        Raises:
            BadVerdict: the guide raised, or gave no score, on the first examples.
            OptimizerError: the outputs do not lead back to the parameters.
        """
        error: Exception | None = None
        try:
            if not self.history:
                self._begin()
            while True:
                self._check_limits()
                self.step()
        except _Stop as stop:
            reason = str(stop)
        except (BadVerdict, ModelError, BudgetExceeded) as problem:
            if self.spend.steps == 0 and not isinstance(problem, BudgetExceeded):
                raise
            error, reason = problem, f"{type(problem).__name__}: {problem}"
            if not isinstance(problem, BudgetExceeded):
                warnings.warn(f"the training ended early: {reason}", TrainingStopped, stacklevel=3)
        return self._finish(reason, error)

    def step(self) -> Event:
        """One minibatch: evaluate, ask, test, keep or refuse."""
        batch = self._batch()
        traced = self.evaluator.traced(self.present, batch)
        self._count()
        before = self._scores([t.evaluation for t in traced])
        self._last_score = _mean(before)
        self.spend = replace(self.spend, steps=self.spend.steps + 1)
        if self.perfect is not None and min(before) >= self.perfect:
            event = self._tell("skipped", "every example is right", before=before)
        else:
            self._send(traced)
            with observed("step", optimizer=self, members=self.members) as facts:
                facts["event"] = event = self._improve(batch, before)
        self._since += 1
        if self._since >= self.validate_every:
            self._validate()
        if self.store is not None:
            self.store.save(self.state_dict())
        return event

    def _begin(self) -> None:
        stored = None if self.store is None else self.store.load()
        if stored is not None:
            self.load_state_dict(stored)
            return
        self._tell("started", f"{len(self.train)} examples, {len(self.parameters)} parameters")
        self._validate()

    def _check_limits(self) -> None:
        self.spend = replace(self.spend, seconds=time.monotonic() - self._began)
        if self.stop_now.is_set():
            raise _Stop("it was asked to stop")
        reason = self.budget.spent(self.spend)
        if reason:
            raise _Stop(reason)
        if self._room() < self._step_cost():
            raise _Stop(f"the budget of {self.budget.runs} runs has no room for another step")
        if self.target is not None and self._reached() >= self.target:
            raise _Stop(f"the target {self.target:g} is reached")
        if self.patience is not None and self._idle >= self.patience:
            raise _Stop(f"nothing was accepted in {self._idle} steps")

    def _finish(self, reason: str, error: Exception | None) -> Result:
        try:
            if error is None or isinstance(error, BudgetExceeded):
                self._validate(final=True)
        except BadVerdict as problem:
            error = problem
        best = self._best()
        self._assign(best)
        self._tell("finished", reason, candidate=best)
        score = self._validated.get(best.id, self._last_score)
        baseline = self._validated.get(self.first.id, self._first_score())
        return Result(
            best, score, baseline, tuple(self.history), self.spend, reason, error, self.state_dict()
        )

    # One step's parts

    def _batch(self) -> dict[int, Any]:
        """The next examples, each epoch in an order of its own."""
        chosen: dict[int, Any] = {}
        while len(chosen) < self.batch_size:
            epoch, place = divmod(self._position, len(self.train))
            number = _shuffled(len(self.train), f"{self.seed}/{epoch}")[place]
            self._position += 1
            chosen.setdefault(number, self.train[number])
        return chosen

    def _send(self, traced: Sequence[Traced]) -> None:
        """Carry the feedback on a minibatch back in one walk."""
        entries = [(t.output, t.messages) for t in traced if t.output is not None and t.messages]
        self.optimizer.zero_feedback()
        if not entries:
            plain = [t for t in traced if t.output is None and t.evaluation.error is None]
            if plain:
                raise OptimizerError(
                    "the workflow gave a plain value, not a node: feedback cannot find its way back; "
                    "record what it does with @bundle, and return the node, not its .data"
                )
            return
        self.optimizer.backward(entries)

    def _improve(self, batch: dict[int, Any], before: list[float]) -> Event:
        """Ask, and ask again by the same feedback while nothing is accepted and tries are left."""
        for member in self.steppers:
            member.step()
        for left in range(self.tries - 1, -1, -1):
            event = self._compare(batch, list(before), self._challengers())
            again = self._room() >= self.batch_size * self.proposals and not self.budget.spent(
                self.spend
            )
            if event.kind == "accepted" or not left or not again:
                break
        self._idle = 0 if event.kind == "accepted" else self._idle + 1
        self.optimizer.zero_feedback()
        return event

    def _challengers(self) -> list[_Challenger]:
        """The candidates that the optimizers suggest, without those that were tried before."""
        found: list[_Challenger] = []
        for member in self.proposers:
            asked = self._asked if hasattr(member, "ask") else self._proposed
            found += asked(member)
        distinct = {c.candidate.id: c for c in found if c.candidate.id not in self._tried}
        return list(distinct.values())

    def _asked(self, member: Any) -> list[_Challenger]:
        """From an optimizer that is asked for candidates and told their scores."""
        found: list[_Challenger] = []
        while len(found) < self.proposals:
            following = member.ask(1)
            if not following:
                break
            candidate = self._candidate({**self.present.values, **following[0].values})
            if candidate.id == self.present.id:
                member.tell(following[0], self._last_score)
            else:
                found.append(_Challenger(candidate, member, asked=following[0]))
        return found

    def _proposed(self, member: Any) -> list[_Challenger]:
        """From an optimizer that proposes by the feedback that arrived."""
        found = []
        for _ in range(self.proposals):
            try:
                proposal = member.propose()
            except BudgetExceeded:
                raise
            except ModelError as error:
                self._failures += 1
                self._tell("rejected", f"the model failed: {error}")
                if self._failures >= _MOST_FAILURES:
                    raise
                continue
            self._failures = 0
            self.spend = self.spend.plus(proposal.usage)
            if proposal.rejections:
                member.settle(proposal)  # the next request says what was refused
                refused = "; ".join(f"{r.name}: {r.reason}" for r in proposal.rejections)
                self._tell("rejected", refused)
                continue
            values = {name: proposal.values.get(p, p.data) for name, p in self.parameters.items()}
            challenger = _Challenger(self._candidate(values), member, proposal)
            if challenger.candidate.id == self.present.id:
                member.refuse(proposal, "it changes nothing")
                self._tell("rejected", "the proposal changes nothing")
            elif challenger.candidate.id in self._tried:
                member.refuse(proposal, "the same values were tried before and were not better")
                self._tell("rejected", "it was tried before")
            else:
                found.append(challenger)
        return found

    def _compare(
        self, batch: dict[int, Any], before: list[float], challengers: list[_Challenger]
    ) -> Event:
        """Score the challengers on the batch and let the best one try."""
        if not challengers:
            return self._tell("skipped", "nothing new was proposed", before=before)
        challengers = self._affordable(challengers)
        for challenger in challengers:
            done = self.evaluator.scores(challenger.candidate, batch)
            challenger.after = self._scores(done)
            self._count()
            self._tried.add(challenger.candidate.id)
            self._tell("proposed", candidate=challenger.candidate, score=challenger.after)
        for challenger in challengers:
            if challenger.asked is not None:
                challenger.member.tell(challenger.asked, _mean(challenger.after))
        best = max(challengers, key=lambda c: sum(c.after))
        decision = self._decided(batch, before, best)
        for challenger in challengers:
            if challenger is not best or decision != "accept":
                self._refuse(challenger, before)
        if decision == "accept":
            return self._accept(best, before)
        return self._tell(
            "rejected", "no better on the same examples", candidate=best.candidate,
            score=best.after, before=before,
        )  # fmt: skip

    def _decided(self, batch: dict[int, Any], before: list[float], best: _Challenger) -> str:
        """Test the best challenger; while that leaves doubt, on more examples."""
        numbers = list(batch)
        while True:
            decision: str = self.acceptance.decide(before, best.after)
            if decision != "undecided":
                return decision
            more = self._more(numbers, best)
            if not more:
                return "reject"
            examples = {number: self.train[number] for number in more}
            before += self._scores(self.evaluator.scores(self.present, examples))
            best.after += self._scores(self.evaluator.scores(best.candidate, examples))
            self._count()
            numbers += more

    def _more(self, known: Sequence[int], best: _Challenger) -> list[int]:
        """Further examples to decide on, those first on which the present values are known."""
        seen = set(known)
        rest = [n for n in _shuffled(len(self.train), f"{self.seed}/more") if n not in seen]
        rest.sort(key=lambda n: self.evaluator.missing(self.present, [n]))
        more = rest[: self.batch_size]
        cost = self.evaluator.missing(self.present, more)
        cost += self.evaluator.missing(best.candidate, more)
        return more if cost <= self._room() else []

    def _accept(self, best: _Challenger, before: list[float]) -> Event:
        if best.proposal is not None:
            best.member.settle(best.proposal)
        else:
            self._assign(best.candidate)
        self.present = best.candidate
        self._kept[best.candidate.id] = best.candidate
        self._last_score = _mean(best.after)
        reasoning = "" if best.proposal is None else show(best.proposal.reasoning, 200)
        return self._tell(
            "accepted", reasoning, candidate=best.candidate, score=best.after, before=before
        )

    def _refuse(self, challenger: _Challenger, before: list[float]) -> None:
        if challenger.proposal is not None:
            challenger.member.refuse(
                challenger.proposal,
                f"it was tried on the same examples and scored {_mean(challenger.after):.3g}, the "
                f"present values score {_mean(before[: len(challenger.after)]):.3g}",
                score=_mean(challenger.after),
            )

    def _scores(self, done: Sequence[Evaluation]) -> list[float]:
        """The scores; a run that failed never counts more than the worst that the guide has given."""
        if all(e.error is None for e in done):
            return [e.score for e in done]
        known = self.evaluator.cache.values()
        worst = min((e.score for e in known if e.error is None), default=0.0)
        return [e.score if e.error is None else min(e.score, worst) for e in done]

    # Validation

    def _validate(self, *, final: bool = False) -> None:
        """Score the present values on the validation set, if that was not done and can be paid."""
        if self.validation is None or self.present.id in self._validated:
            return
        examples = dict(enumerate(self.validation))
        cost = self.evaluator.missing(self.present, list(examples), "validation")
        if cost > self._room(final=final):
            return
        done = self.evaluator.scores(self.present, examples, "validation")
        self._count()
        scores = self._scores(done)
        self._validated[self.present.id] = _mean(scores)
        self._since = 0
        self._tell("validated", candidate=self.present, score=scores)

    def _best(self) -> Candidate:
        """The best on the validation set, of equals the last; without one the present values."""
        if not self._validated:
            return self.present
        best = max(enumerate(self._validated.items()), key=lambda item: (item[1][1], item[0]))
        return self._kept[best[1][0]]

    def _reached(self) -> float:
        return max(self._validated.values()) if self._validated else self._last_score

    def _first_score(self) -> float:
        return next((e.before for e in self.history if e.before is not None), self._last_score)

    # Money

    def _room(self, *, final: bool = False) -> float:
        """Runs that are left, without those kept for the last validation."""
        if self.budget.runs is None:
            return float("inf")
        kept = 0 if final or self.validation is None else len(self.validation)
        return self.budget.runs - self.evaluator.runs - kept

    def _step_cost(self) -> int:
        return self.batch_size * (1 + self.proposals * len(self.proposers))

    def _affordable(self, challengers: list[_Challenger]) -> list[_Challenger]:
        fitting = min(self._room() / self.batch_size, len(challengers))
        return challengers[: max(1, int(fitting))]

    def _check_room(self) -> None:
        if self.budget.runs is None:
            return
        needed = self._step_cost() + 2 * len(self.validation or ())
        if self.budget.runs < needed:
            raise OptimizerError(
                f"the budget of {self.budget.runs} runs is too small for one step: it takes "
                f"{needed} (a batch of {self.batch_size} for the present values and for each "
                "proposal, and the validation set at the start and at the end); raise it, or take "
                "a smaller batch or validation set"
            )

    def _count(self) -> None:
        self.spend = replace(self.spend, runs=self.evaluator.runs)

    # Values

    def _candidate(self, values: Mapping[str, Any] | None = None) -> Candidate:
        if values is None:
            values = {name: p.data for name, p in self.parameters.items()}
        return Candidate.of({n: self.parameters[n].kind.copy(v) for n, v in values.items()})

    def _assign(self, candidate: Candidate) -> None:
        changed = [
            (self.parameters[name], value)
            for name, value in candidate.values.items()
            if identity({name: self.parameters[name].data}) != identity({name: value})
        ]
        for parameter, value in changed:
            parameter.check(value)
        for parameter, value in changed:
            original = identity({"": value}) == identity({"": parameter.initial})
            parameter.assign(
                parameter.kind.copy(value), origin="person" if original else "optimizer"
            )

    def _tell(
        self,
        kind: Kind,
        note: str = "",
        *,
        candidate: Candidate | None = None,
        score: Sequence[float] | None = None,
        before: Sequence[float] | None = None,
    ) -> Event:
        event = Event(
            kind,
            self.spend.steps,
            note,
            None if score is None else _mean(score),
            None if before is None else _mean(before),
            "" if candidate is None else candidate.id,
            replace(self.spend, seconds=0.0),
        )
        self.history.append(event)
        observe("training", event=kind, note=note, score=event.score, before=event.before)
        if candidate is not None:
            observe(
                "candidate", id=candidate.id, parents=candidate.parents, score=event.score,
                status=kind, values=dict(candidate.values),
            )  # fmt: skip
        for listener in self.listeners:
            listener(event)
        return event

    # Going on after a stop

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on exactly as if nothing had stopped, as JSON-able data."""
        return {
            "format": _FORMAT,
            "options": self._options(),
            "position": self._position,
            "present": self.present.id,
            "first": self.first.id,
            "candidates": {
                name: {n: encoded(v) for n, v in candidate.values.items()}
                for name, candidate in {**self._kept, self.first.id: self.first}.items()
            },
            "tried": sorted(self._tried),
            "validated": dict(self._validated),
            "counters": [self._idle, self._failures, self._since, self._last_score],
            "spend": asdict(replace(self.spend, seconds=0.0)),
            "history": [{**asdict(event), "spend": asdict(event.spend)} for event in self.history],
            "evaluations": [[*key, asdict(e)] for key, e in self.evaluator.cache.items()],
            "optimizers": [m.state_dict() for m in self.proposers if hasattr(m, "state_dict")],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            OptimizerError: it is no such state, or was made with other options or parameters;
                nothing has changed.
        """
        if not isinstance(state, Mapping) or state.get("format") != _FORMAT:
            raise OptimizerError(
                f"this is no state of a training (format {_FORMAT}): {show(state, 80)}"
            )
        if state.get("options") != self._options():
            raise OptimizerError(
                f"the state was made with {show(state.get('options'), 300)} and this training has "
                f"{show(self._options(), 300)}; only the same can go on exactly"
            )
        try:
            kept = {name: self._restored(values) for name, values in state["candidates"].items()}
            present, first = kept[state["present"]], kept[state["first"]]
            history = [Event(**{**e, "spend": Spend(**e["spend"])}) for e in state["history"]]
            cache = {(s, c, int(n)): Evaluation(**e) for s, c, n, e in state["evaluations"]}
            spend = Spend(**state["spend"])
            idle, failures, since, last = state["counters"]
            members = [m for m in self.proposers if hasattr(m, "state_dict")]
            pairs = list(zip(members, state["optimizers"], strict=True))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OptimizerError(f"the state is damaged: {type(error).__name__} {error}") from error
        for member, own in pairs:
            member.load_state_dict(own)
        self._kept, self.present, self.first = kept, present, first
        self.history, self.evaluator.cache, self.spend = history, cache, spend
        self.evaluator.runs = spend.runs
        self._position = int(state["position"])
        self._tried, self._validated = set(state["tried"]), dict(state["validated"])
        self._idle, self._failures, self._since, self._last_score = idle, failures, since, last
        self._assign(present)

    def _restored(self, values: Mapping[str, Any]) -> Candidate:
        made = {
            name: parameter.check(decoded(values[name], parameter.initial))
            for name, parameter in self.parameters.items()
        }
        return Candidate.of(made)

    def _options(self) -> dict[str, Any]:
        return {
            "parameters": {name: p.kind.name for name, p in self.parameters.items()},
            "optimizers": [type(m).__name__ for m in self.members],
            "train": len(self.train),
            "validation": None if self.validation is None else len(self.validation),
            "batch_size": self.batch_size,
            "proposals": self.proposals,
            "tries": self.tries,
            "seed": self.seed,
        }


def fit(
    workflow: Any,
    train: Sequence[Any],
    guide: Guide,
    *,
    validation: Sequence[Any] | None = None,
    optimizer: Any = None,
    budget: Budget | int | None = None,
    batch_size: int = 10,
    proposals: int = 1,
    tries: int = 3,
    acceptance: Any = None,
    validate_every: int = 1,
    patience: int | None = None,
    target: float | None = None,
    perfect: float | None = None,
    call: Call | None = None,
    executor: Executor | None = None,
    workers: int = 8,
    timeout: float | None = None,
    failure_score: float = 0.0,
    seed: int = 0,
    on: Iterable[Listener] = (),
    progress: bool | None = None,
    store: Store | None = None,
    state: Mapping[str, Any] | None = None,
) -> Result:
    """Improve a workflow on examples, and keep only what is better.

    Each step runs a minibatch, carries the guide's feedback back in one walk, lets the optimizer
    propose, scores the proposal on the same examples, and keeps it if it is better by more than luck.
    In the end the best values are in the parameters.

    Args:
        workflow: any callable, sync or async, that returns a node. It is called with the first of a
            pair (input, expected), or with the whole example; see `call`.
        train: the examples to learn from.
        guide: ``guide(example, output)`` gives a score (larger is better), or (score, text), or
            feedback.
        validation: examples to choose the best by; optimizers never see them.
        optimizer: an optimizer, a function from parameters to one, or ``None`` for what
            `optimize` chooses. Give an instance where the workflow is a plain function.
        budget: a `Budget`, or how often the workflow may run; 20 steps by default.
        batch_size: how many examples a step has.
        proposals: how many candidates are compared at a time; the best one is tested.
        tries: how often a step asks while nothing is accepted. The feedback is there already, so
            another try costs no other run of the present values.
        acceptance: what has ``decide(before, after)``; `Paired` by default.
        validate_every: at most every so many steps is the validation set run.
        patience: stop after so many steps without an accepted proposal.
        target: stop at this mean score.
        perfect: the score of an example that has nothing to teach. A batch of such examples
            asks nobody.
        call: ``call(workflow, example)`` in place of the default call.
        executor: runs the examples; threads of its own by default.
        workers: how many examples run at once; it does not change the result.
        timeout: seconds that one example may take.
        failure_score: the score of a run that failed; it never counts more than the worst that the
            guide has given.
        seed: of all chance.
        on: listeners, called with each `Event`.
        progress: show what happens; by default on a terminal.
        store: where the state is kept after each step, and taken from at the start.
        state: `Result.state` of a training to go on with.

    Raises:
        OptimizerError: there are no examples, no parameters, or no room in the budget; nothing was
            run.
        BadVerdict: the guide gave no score on the first examples.

    >>> import tracegraph as tg
    >>> from optimizers import OptoPrime
    >>> from tracegraph.llm import Scripted
    >>> greeting = tg.node("Hi", trainable=True, name="greeting")
    >>> llm = Scripted(['{"suggestion": {"greeting": "Good day"}}', "no idea"])
    >>> result = fit(lambda name: greeting + ", " + name, ["Ann", "Bob"],
    ...              lambda name, said: (float(said.startswith("Good")), "more polite"),
    ...              optimizer=OptoPrime([greeting], llm=llm), budget=Budget(steps=2))
    >>> greeting.data, result.score
    ('Good day', 1.0)
    """
    if progress or (progress is None and Progress().stream.isatty()):
        on = (*on, Progress())
    training = Training(
        workflow, train, guide, validation=validation, optimizer=optimizer, budget=budget,
        batch_size=batch_size, proposals=proposals, tries=tries, acceptance=acceptance,
        validate_every=validate_every, patience=patience, target=target, perfect=perfect, call=call,
        executor=executor, workers=workers, timeout=timeout, failure_score=failure_score, seed=seed,
        on=on, store=store,
    )  # fmt: skip
    if state is not None:
        training.load_state_dict(state)
    return training.run()


async def afit(workflow: Any, train: Sequence[Any], guide: Guide, **options: Any) -> Result:
    """`fit`, awaited: the event loop goes on meanwhile.

    It runs in a thread. When the task is cancelled the training ends after the step under way, and
    what was achieved is in the parameters.
    """
    progress, state = options.pop("progress", None), options.pop("state", None)
    if progress:
        options["on"] = (*options.get("on", ()), Progress())
    training = Training(workflow, train, guide, **options)
    if state is not None:
        training.load_state_dict(state)
    try:
        return await asyncio.to_thread(training.run)
    except asyncio.CancelledError:
        training.stop_now.set()
        raise


def _examples(given: Any, name: str) -> list[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not hasattr(given, "__iter__"):
        raise OptimizerError(f"{name} must be a list of examples, got {show(given, 80)}")
    examples = list(given)
    if not examples:
        raise OptimizerError(f"{name} is empty: there is no example to learn from or to judge by")
    return examples


def _optimizer(given: Any, workflow: Any) -> Any:
    if given is not None and hasattr(given, "backward"):
        if not isinstance(given, (Optimizer, Partition)) and not hasattr(given, "step"):
            raise OptimizerError(f"{show(given, 80)} is no optimizer: it has no step()")
        return given
    if given is not None and not callable(given):
        raise OptimizerError(
            f"optimizer must be an optimizer, a function from parameters to one, or None, got "
            f"{show(given, 80)}"
        )
    found = named_parameters(workflow)
    if not found:
        raise OptimizerError(
            f"no parameters were found in the workflow {show(workflow, 80)}: make it a Module that "
            "holds them, or give an optimizer that has them: fit(..., optimizer=OptoPrime([prompt]))"
        )
    make: Callable[[Any], Any] = optimize if given is None else given
    return make(found)


def _unique(member: Any, members: Sequence[Any]) -> dict[str, Any]:
    """A member's parameters by name; names that two members use get the member's number."""
    own = collect(member.parameters) if not hasattr(member, "named_parameters") else None
    named: dict[str, Any] = dict(member.named_parameters if own is None else own)
    others = {n for m in members if m is not member for n in getattr(m, "named_parameters", ())}
    at = members.index(member)
    return {(f"{name}#{at}" if name in others else name): p for name, p in named.items()}


def _shuffled(size: int, seed: str) -> list[int]:
    order = list(range(size))
    Random(seed).shuffle(order)
    return order


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0
