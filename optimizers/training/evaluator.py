"""The one place where workflows run: candidates on examples, side by side, in a fixed order.

What comes out depends on neither the number of workers nor who is ready first. A run that fails or
takes too long is a low score with its error as feedback. What was evaluated once is not evaluated
again; what is kept in a journal not even after the process was killed.

A run whose graph is needed happens in this process. A run that only gives a score may happen
elsewhere, as a function of plain values (`remote`).
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any, final

from optimizers.base import Usage
from optimizers.candidate import Candidate
from optimizers.places import Place
from optimizers.training.budget import is_number
from optimizers.training.callable_so import check_callable, check_workflow
from optimizers.training.elsewhere import Elsewhere
from optimizers.training.guide import Guide, Referee, Verdict, waited_for
from optimizers.training.kept_runs import KeptRun, KeptRuns
from optimizers.training.kept_tensors import KeptTensors
from optimizers.training.side_by_side import SideBySide
from optimizers.training.threads import DaemonThreads
from tracegraph.errors import BudgetExceeded, ExecutionError, ModelError, OptimizerError
from tracegraph.failure import failed_node
from tracegraph.feedback import Feedback, Remark, Score
from tracegraph.graph import renumber
from tracegraph.history.at_hand import AtHand
from tracegraph.history.checkpoint import random_state_now, set_random_state
from tracegraph.kinds import show
from tracegraph.llm.keeping import keeping
from tracegraph.lowering import unwrap
from tracegraph.node import Node, next_id
from tracegraph.overlay import Overlay
from tracegraph.parameter import Parameter
from tracegraph.recorder import stop_tracing

__all__ = ["Evaluation", "Evaluator", "Traced", "call_with_input"]

Call = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How one candidate did on one example; plain data."""

    score: float
    text: str = ""
    error: str | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)
    violated: tuple[str, ...] = ()

    @classmethod
    def restored(cls, data: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `dataclasses.asdict` gave, whatever stands beside it."""
        rest = {name: value for name, value in data.items() if name != "paid"}
        return cls(**{**rest, "violated": tuple(data["violated"])})


@dataclass(frozen=True, slots=True)
class Traced:
    """An evaluation with the output's node, the feedback for it, and what the run raised."""

    evaluation: Evaluation
    output: Node[Any] | None
    messages: tuple[Feedback, ...]
    raised: Exception | None = None


def call_with_input(workflow: Any, example: Any) -> Any:
    """Call a workflow with an example's input: the first of a pair, else the example itself."""
    return workflow(example[0] if isinstance(example, tuple) and len(example) == 2 else example)


@dataclass(frozen=True, slots=True)
class _Job:
    """A run that is to be made: of which example, under which key its evaluation is kept, where the
    workflow and the judge ask models, and whether its graph is needed.
    """

    example: Any
    key: tuple[str, str, int]
    runs: Place
    judged: Place
    traced: bool

    @property
    def paid(self) -> Usage:
        """What the judge's models cost; of the workflow's, which runs stand for, only the money."""
        return self.judged.usage + Usage(cost=self.runs.usage.cost)


@final
class Evaluator:
    """Runs a workflow on examples and has the outputs judged.

    Args:
        workflow: any callable; it may be async.
        guide: judges the outputs, see `Guide`.
        parameters: what candidates give values to, by name.
        call: ``call(workflow, example)``; by default the workflow gets the first of a pair
            (input, expected), or the whole example.
        executor: runs the examples; threads of its own by default, `EventLoop` for async workflows.
            With `remote` any executor will do.
        remote: ``remote(values, example)`` gives the output for the parameters' values by name. It is
            submitted to the executor wherever only a score is needed: an importable function for
            processes, a `Code` for a `SandboxPool`.
        workers: how many examples run at once, at least 1.
        timeout: seconds that one example may take. After that its future is cancelled: that ends a
            process of `Processes` and a task of `EventLoop`; a thread cannot be ended, and is not
            waited for.
        failure_score: the score of a run that failed.
        constraints: what must hold whatever the score, by name, see `Referee`.
        weights: how much each objective counts where the guide gives several.
        journal: keeps every evaluation as soon as it is there; a dict on disk.
        receipts: keeps what models reply, to the workflow and to the judge, and, where a graph is needed,
            runs and verdicts on them; a dict on disk, which may be cleared between two steps.
        tensors: keeps the tensors of those runs; without it runs that have any are made again.

    Attributes:
        runs: how often the workflow was run.
        moment: where in a training this is; the same for a step that is done again.
        edition: of what the workflow has beside the parameters, such as tensors that move by themselves;
            what was evaluated with another edition is evaluated again.
        apart: whether runs that are only scored leave the global random generators as they were, so
            that it makes no difference whether one was run or kept. With one worker each begins with
            the same state; with several, which one draws what is up to the system.
        stop: set its result to have all that runs cancelled and `Stopped` raised.

    >>> import tracegraph as tg
    >>> word = tg.node("Hi", trainable=True, name="word")
    >>> evaluator = Evaluator(lambda name: word + " " + name, lambda name, said: len(said),
    ...                       {"word": word}, workers=2)
    >>> [e.score for e in evaluator.scores(Candidate.of({"word": "Hello"}), {0: "you", 1: "all of you"})]
    [9.0, 16.0]
    """

    def __init__(
        self,
        workflow: Any,
        guide: Guide,
        parameters: Mapping[str, Parameter[Any]],
        *,
        call: Call | None = None,
        executor: Executor | None = None,
        remote: Callable[..., Any] | None = None,
        workers: int = 8,
        timeout: float | None = None,
        failure_score: float = 0.0,
        constraints: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        journal: MutableMapping[str, Any] | None = None,
        receipts: MutableMapping[str, Any] | None = None,
        tensors: KeptTensors | None = None,
    ) -> None:
        check_workflow(workflow, called=call is not None)
        if call is not None:
            check_callable("call", call, "workflow", "example")
        if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
            raise OptimizerError(f"workers must be a whole number from 1, got {show(workers, 40)}")
        if timeout is not None and not (is_number(timeout) and timeout > 0):
            raise OptimizerError(
                f"timeout must be a number of seconds above 0, got {show(timeout, 40)}"
            )
        if not is_number(failure_score) or not math.isfinite(failure_score):
            raise OptimizerError(
                f"failure_score must be a finite number, got {show(failure_score, 40)}"
            )
        if isinstance(executor, type) or (
            executor is not None and not callable(getattr(executor, "submit", None))
        ):
            raise OptimizerError(f"executor must have submit(), got {show(executor, 80)}")
        if remote is not None and (executor is None or not callable(remote)):
            raise OptimizerError(
                "remote is a function of values and an example for an executor that runs elsewhere: "
                "fit(..., remote=function, executor=Processes(4))"
            )
        self.workflow, self.parameters = workflow, dict(parameters)
        self.referee = Referee(guide, constraints, weights)
        self.relative = bool(getattr(guide, "relative", False))
        self._recalls = not getattr(guide, "remembers", self.relative)
        self.call = call or call_with_input
        self._elsewhere = None
        if executor is not None and remote is not None:
            self._elsewhere = Elsewhere(executor, remote, timeout, workers)
        self.executor = executor if executor is not None and remote is None else DaemonThreads()
        self.workers, self.timeout = workers, timeout
        self.failure_score = min(failure_score, -1.0) if self.relative else failure_score
        self.runs = 0
        self.cache: dict[tuple[str, str, int], Evaluation] = {}
        self.journal, self.receipts, self.moment = journal, receipts, ""
        hand = {"parameters": self.parameters, "workflow": workflow, "call": self.call}
        self._kept_runs = None if receipts is None else KeptRuns(receipts, AtHand(hand), tensors)
        self.edition = 0
        self.apart = False
        self.stop: Future[None] = Future()
        self._overlays: dict[str, Overlay] = {}
        self._bills: dict[tuple[str, str, int], Usage] = {}
        self._unpaid = Usage()

    def scores(
        self, candidate: Candidate, examples: Mapping[int, Any], split: str = "train"
    ) -> list[Evaluation]:
        """How a candidate does on examples, by their number within a split; in their order.

        Nothing is recorded, and what is known is not run again.
        """
        keys = {number: self._key(split, candidate, number) for number in examples}
        todo = {n: e for n, e in examples.items() if not self._known(keys[n])}
        before = random_state_now() if self.apart else None
        try:
            if todo:
                self._score_all([self._job(keys[n], e) for n, e in todo.items()], candidate)
        finally:
            self._bill(keys.values())
            if before is not None:
                set_random_state(before)
        return [self.cache[key] for key in keys.values()]

    def _score_all(self, jobs: Sequence[_Job], candidate: Candidate) -> None:
        if self._elsewhere is not None:
            values = dict(candidate.values)
            seen = (
                self._overlay(candidate) if self.relative else None
            )  # by who compares with others
            self._all(jobs, self._score_elsewhere, (values, seen), limit=None)
        else:
            score = self._score_awaited if self._awaits else self._score
            self._all(jobs, score, (self._overlay(candidate),), limit=self.timeout)

    def failed_always(self) -> str:
        """How a run failed, where every run did; empty where one came to its end, or none was made."""
        done = self.cache.values()
        errors = [one.error for one in done if one.error is not None]
        return errors[-1] if errors and len(errors) == len(done) else ""

    def settled(self) -> Usage:
        """What judges cost, and the money that runs cost, since this was asked last."""
        usage, self._unpaid = self._unpaid, Usage()
        return usage

    def missing(self, candidate: Candidate, numbers: Sequence[int], split: str = "train") -> int:
        """How many of these examples a candidate was not evaluated on yet.

        What only the journal knows is missing: a training that goes on decides as it would have.
        """
        if self.relative:
            return len(numbers)
        return sum(self._key(split, candidate, number) not in self.cache for number in numbers)

    def traced(
        self, candidate: Candidate, examples: Mapping[int, Any], split: str = "train"
    ) -> list[Traced]:
        """Run the parameters' present values, which are `candidate`, and keep the graphs.

        Always runs; what comes out replaces what was known.
        """
        leaves = [p._leaf() for p in self.parameters.values()]  # one for all threads
        first = next_id()
        if self._kept_runs is not None:
            self._kept_runs.begin(draws=self.apart)
        trace = self._trace_awaited if self._awaits else self._trace
        jobs = [
            self._job(self._key(split, candidate, n), e, traced=True) for n, e in examples.items()
        ]
        try:
            done = self._all(jobs, trace, (), limit=self.timeout)
        finally:
            self._bill([job.key for job in jobs])
        renumber([t.output for t in done if t.output is not None], first)
        del leaves
        return done

    @property
    def _awaits(self) -> bool:
        return bool(getattr(self.executor, "awaits", False))

    def _key(self, split: str, candidate: Candidate, number: int) -> tuple[str, str, int]:
        return f"{split} {self.edition}" if self.edition else split, candidate.id, number

    def _known(self, key: tuple[str, str, int]) -> bool:
        """Whether a candidate's evaluation is in the cache, into which the journal's is taken.

        What comes from the journal was run by an earlier process, and counts as run. Scores that are
        relative to other values are known of none.
        """
        if self.relative:
            return False
        if key in self.cache:
            return True
        kept = None if self.journal is None else self.journal.get(_name(key))
        if kept is None:
            return False
        self.runs += 1
        self.cache[key] = Evaluation.restored(kept)
        self._bills[key] = Usage(*kept.get("paid", ()))
        return True

    def _job(self, key: tuple[str, str, int], example: Any, *, traced: bool = False) -> _Job:
        where = f"{self.moment}/{'traced' if traced else 'scored'}/{_name(key)}"
        runs, judged = (Place(f"{where}/{what}", self.receipts) for what in ("run", "judged"))
        return _Job(example, key, runs, judged, traced)

    def _keep(self, job: _Job, evaluation: Evaluation) -> None:
        paid = job.paid
        self.cache[job.key], self._bills[job.key] = evaluation, paid
        if self.journal is not None:
            self.journal[_name(job.key)] = {**asdict(evaluation), "paid": list(astuple(paid))}

    def _bill(self, keys: Iterable[tuple[str, str, int]]) -> None:
        """Count what runs cost, in their order, so that even the last digit of a sum is the same."""
        for key in keys:
            self._unpaid += self._bills.pop(key, Usage())

    # One example

    def _score(self, job: _Job, overlay: Overlay) -> Traced:
        with overlay, stop_tracing(), self._chance_apart():
            return replace(self._trace(job), output=None, messages=(), raised=None)

    async def _score_awaited(self, job: _Job, overlay: Overlay) -> Traced:
        with overlay, stop_tracing(), self._chance_apart():
            return replace(await self._trace_awaited(job), output=None, messages=(), raised=None)

    @contextmanager
    def _chance_apart(self) -> Iterator[None]:
        """A block that leaves the global random generators as they were, where nobody else uses them."""
        before = random_state_now() if self.apart and self.workers == 1 else None
        try:
            yield
        finally:
            if before is not None:
                set_random_state(before)

    def _score_elsewhere(self, job: _Job, values: dict[str, Any], seen: Overlay | None) -> Traced:
        with seen or nullcontext(), stop_tracing():
            return self._run_before(job) or self._run_elsewhere(job, values)

    def _run_elsewhere(self, job: _Job, values: dict[str, Any]) -> Traced:
        assert self._elsewhere is not None
        future = self._elsewhere.submit(values, job.example)
        if not self._elsewhere.in_time(future):
            future.cancel()
            return self._kept(job, self._late())
        try:
            output = future.result()
        except BudgetExceeded:
            raise
        except Exception as error:
            return self._kept(job, self._failed(error))
        return self._judged(job, self._ended(job, output))

    def _trace(self, job: _Job) -> Traced:
        if (known := self._run_before(job)) is not None:
            return known
        try:
            with keeping(job.runs):
                output = waited_for(self.call(self.workflow, job.example))
        except BudgetExceeded:
            raise
        except Exception as error:
            return self._kept(job, self._failed(error))
        return self._judged(job, self._ended(job, output))

    async def _trace_awaited(self, job: _Job) -> Traced:
        if (known := self._run_before(job)) is not None:
            return known
        try:
            with keeping(job.runs):
                output = self.call(self.workflow, job.example)
                if inspect.isawaitable(output):
                    output = await output
        except BudgetExceeded:
            raise
        except Exception as error:
            return self._kept(job, self._failed(error))
        output = self._ended(job, output)
        return await asyncio.to_thread(self._judged, job, output)  # a judge may block

    # Runs that ended, kept while their step is not in the saved state

    def _run_before(self, job: _Job) -> Traced | None:
        """What a run came to that ended before this step was cut off."""
        run = None if self._kept_runs is None else self._kept_runs.find(job.runs, job.example)
        if run is None:
            return None
        if run.evaluation is None:
            return self._judged(job, run.output)
        return _unjudged(Evaluation.restored(run.evaluation), run.output)

    def _ended(self, job: _Job, output: Any) -> Any:
        """Keep what a run gave, before anybody judges it."""
        if self._kept_runs is not None:
            self._kept_runs.keep(job.runs, job.example, KeptRun(output), graph=job.traced)
        return output

    def _kept(self, job: _Job, run: Traced) -> Traced:
        """Keep a run that nobody judges, unless only its model was down or its evaluation is kept next."""
        down = isinstance(run.raised, ModelError)
        if self._kept_runs is not None and not down and (job.traced or self.relative):
            told = asdict(run.evaluation)
            self._kept_runs.keep(job.runs, job.example, KeptRun(run.output, told))
        return run

    def _judged(self, job: _Job, output: Any) -> Traced:
        with keeping(job.judged):
            verdict = self._verdict(job, unwrap(output))
        return Traced(
            Evaluation(
                verdict.score, verdict.text, None, dict(verdict.objectives), verdict.violated
            ),
            output if isinstance(output, Node) else None,
            verdict.messages,
        )

    def _verdict(self, job: _Job, output: Any) -> Verdict:
        """What the judge says of an output, or said of the same one before this step was cut off."""
        if self._kept_runs is None or not self._recalls or not job.traced:
            return self.referee(job.example, output)
        verdict = self._kept_runs.find_verdict(job.judged, output)
        if verdict is None:
            verdict = self.referee(job.example, output)
            self._kept_runs.keep_verdict(job.judged, output, verdict)
        return verdict

    def _failed(self, error: Exception) -> Traced:
        node = failed_node(error)
        text = (
            node.create_feedback("full") if node is not None else f"{type(error).__name__}: {error}"
        )
        cause = error.__cause__ if isinstance(error, ExecutionError) else error
        name = type(cause or error).__name__
        evaluation = Evaluation(self.failure_score, text, f"{name}: {error}")
        return _unjudged(evaluation, node, error)

    def _late(self) -> Traced:
        text = f"the run took longer than {self.timeout:g} seconds and was given up"
        return Traced(Evaluation(self.failure_score, text, f"TimeoutError: {text}"), None, ())

    # Many examples

    def _all(
        self, jobs: Sequence[_Job], run: Callable[..., Any], more: Any, *, limit: float | None
    ) -> list[Traced]:
        """Run jobs, at most `workers` at once; gives what they gave in the order of the jobs.

        What is ready is kept at once, whatever becomes of the others. `limit` is in seconds; what
        runs elsewhere looks at the clock itself.
        """
        results: dict[int, Traced] = {}
        calls = [(run, (job, *more)) for job in jobs]
        beside = SideBySide(self.executor, calls, self.workers, limit, self._count, self.stop)
        try:
            with closing(beside.done()) as ready:
                for number, future in ready:
                    results[number] = (
                        self._kept(jobs[number], self._late())
                        if future is None
                        else future.result()
                    )
                    self._keep(jobs[number], results[number].evaluation)
        finally:
            for job in jobs:  # what was paid before something went wrong is paid
                self._bills.setdefault(job.key, job.paid)
        return [results[number] for number in range(len(jobs))]

    def _count(self) -> None:
        self.runs += 1

    def _overlay(self, candidate: Candidate) -> Overlay:
        """The candidate's overlay; a few are kept, so that its code is compiled once."""
        found = self._overlays.pop(candidate.id, None)
        if found is None:
            found = Overlay({self.parameters[n]: v for n, v in candidate.values.items()})
        self._overlays[candidate.id] = found
        while len(self._overlays) > 16:
            self._overlays.pop(next(iter(self._overlays)))
        return found


def _unjudged(
    evaluation: Evaluation, output: Node[Any] | None, raised: Exception | None = None
) -> Traced:
    """A run that failed: its score and what happened are the feedback."""
    messages = (Score(evaluation.score), Remark(evaluation.text)) if output is not None else ()
    return Traced(evaluation, output, messages, raised)


def _name(key: tuple[str, str, int]) -> str:
    return "/".join(map(str, key))
