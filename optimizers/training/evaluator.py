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
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast, final

from optimizers.candidate import Candidate
from optimizers.training.guide import Guide, Referee, Verdict
from optimizers.training.threads import DaemonThreads
from tracegraph.errors import BudgetExceeded, ExecutionError, OptimizerError
from tracegraph.failure import failed_node
from tracegraph.feedback import Feedback, Remark, Score
from tracegraph.graph import renumber
from tracegraph.kinds import show
from tracegraph.node import Node, next_id, unwrap
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
        """The evaluation that `dataclasses.asdict` gave."""
        return cls(**{**data, "violated": tuple(data["violated"])})


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
    """A call that is to be made, and under which key its evaluation is kept."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    key: tuple[str, str, int]


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
    ) -> None:
        if not callable(workflow):
            raise OptimizerError(f"workflow must be callable, got {show(workflow, 80)}")
        if not isinstance(workers, int) or workers < 1:
            raise OptimizerError(f"workers must be a whole number from 1, got {workers!r}")
        if timeout is not None and not timeout > 0:
            raise OptimizerError(f"timeout must be a number of seconds above 0, got {timeout!r}")
        if not math.isfinite(failure_score):
            raise OptimizerError(f"failure_score must be a finite number, got {failure_score!r}")
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise OptimizerError(f"executor must have submit(), got {show(executor, 80)}")
        if remote is not None and (executor is None or not callable(remote)):
            raise OptimizerError(
                "remote is a function of values and an example for an executor that runs elsewhere: "
                "fit(..., remote=function, executor=Processes(4))"
            )
        self.workflow, self.parameters = workflow, dict(parameters)
        self.referee = Referee(guide, constraints, weights)
        self.relative = bool(getattr(guide, "relative", False))
        if self.relative and remote is not None:
            raise OptimizerError(
                "this guide compares with the present values' outputs, which are not at hand for what "
                "remote= runs elsewhere; leave out remote="
            )
        self.call = call or call_with_input
        self.remote, self._elsewhere = remote, executor if remote is not None else None
        self.executor = executor if executor is not None and remote is None else DaemonThreads()
        self.workers, self.timeout = workers, timeout
        self.failure_score = min(failure_score, -1.0) if self.relative else failure_score
        self.runs = 0
        self.cache: dict[tuple[str, str, int], Evaluation] = {}
        self.journal = journal
        self._overlays: dict[str, Overlay] = {}

    def scores(
        self, candidate: Candidate, examples: Mapping[int, Any], split: str = "train"
    ) -> list[Evaluation]:
        """How a candidate does on examples, by their number within a split; in their order.

        Nothing is recorded, and what is known is not run again.
        """
        keys = {number: (split, candidate.id, number) for number in examples}
        todo = {n: e for n, e in examples.items() if not self._known(keys[n])}
        if todo:
            overlay = self._overlay(candidate)
            values = dict(candidate.values)
            if self.remote is not None:
                calls = [_Job(self._score_elsewhere, (values, e), keys[n]) for n, e in todo.items()]
            elif self._awaits:
                calls = [_Job(self._score_awaited, (overlay, e), keys[n]) for n, e in todo.items()]
            else:
                calls = [_Job(self._score, (overlay, e), keys[n]) for n, e in todo.items()]
            self._all(calls, None if self.remote is not None else self.timeout)
        return [self.cache[key] for key in keys.values()]

    def missing(self, candidate: Candidate, numbers: Sequence[int], split: str = "train") -> int:
        """How many of these examples a candidate was not evaluated on yet.

        What only the journal knows is missing: a training that goes on decides as it would have.
        """
        if self.relative:
            return len(numbers)
        return sum((split, candidate.id, number) not in self.cache for number in numbers)

    def traced(
        self, candidate: Candidate, examples: Mapping[int, Any], split: str = "train"
    ) -> list[Traced]:
        """Run the parameters' present values, which are `candidate`, and keep the graphs.

        Always runs; what comes out replaces what was known.
        """
        leaves = [p._leaf() for p in self.parameters.values()]  # one for all threads
        first = next_id()
        trace = self._trace_awaited if self._awaits else self._trace
        jobs = [_Job(trace, (e,), (split, candidate.id, n)) for n, e in examples.items()]
        done = self._all(jobs, self.timeout)
        renumber([t.output for t in done if t.output is not None], first)
        del leaves
        return done

    @property
    def _awaits(self) -> bool:
        return bool(getattr(self.executor, "awaits", False))

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
        return True

    def _keep(self, key: tuple[str, str, int], evaluation: Evaluation) -> None:
        self.cache[key] = evaluation
        if self.journal is not None:
            self.journal[_name(key)] = asdict(evaluation)

    # One example

    def _score(self, overlay: Overlay, example: Any) -> Traced:
        with overlay, stop_tracing():
            return replace(self._trace(example), output=None, messages=(), raised=None)

    async def _score_awaited(self, overlay: Overlay, example: Any) -> Traced:
        with overlay, stop_tracing():
            return replace(
                await self._trace_awaited(example), output=None, messages=(), raised=None
            )

    def _score_elsewhere(self, values: dict[str, Any], example: Any) -> Traced:
        assert self._elsewhere is not None
        try:
            future = self._elsewhere.submit(cast(Any, self.remote), values, example)
        except Exception as error:  # a process pool that broke, a function that cannot travel
            raise OptimizerError(
                f"the executor {show(self._elsewhere, 80)} took no call: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not self._in_time(future):
            future.cancel()
            return self._late()
        try:
            output = future.result()
        except BudgetExceeded:
            raise
        except Exception as error:
            return self._failed(error)
        return self._judged(example, output)

    def _in_time(self, future: Future[Any]) -> bool:
        """Wait for a call; false where it is not done `timeout` seconds after it was seen to run.

        An executor may let a call wait for room; that time is not the call's.
        """
        if self.timeout is None:
            wait([future])
            return True
        began: float | None = None
        while not wait([future], self.timeout / 10).done:
            if began is None and future.running():
                began = time.monotonic()
            if began is not None and time.monotonic() - began >= self.timeout:
                return False
        return True

    def _trace(self, example: Any) -> Traced:
        try:
            output = self.call(self.workflow, example)
            if inspect.isawaitable(output):
                output = asyncio.run(_awaited(output))
        except BudgetExceeded:
            raise
        except Exception as error:
            return self._failed(error)
        return self._judged(example, output)

    async def _trace_awaited(self, example: Any) -> Traced:
        try:
            output = self.call(self.workflow, example)
            if inspect.isawaitable(output):
                output = await output
        except BudgetExceeded:
            raise
        except Exception as error:
            return self._failed(error)
        return await asyncio.to_thread(self._judged, example, output)  # a judge may block

    def _judged(self, example: Any, output: Any) -> Traced:
        verdict = self.referee(example, unwrap(output))
        return Traced(
            Evaluation(
                verdict.score, verdict.text, None, dict(verdict.objectives), verdict.violated
            ),
            output if isinstance(output, Node) else None,
            verdict.messages,
        )

    def _failed(self, error: Exception) -> Traced:
        node = failed_node(error)
        text = (
            node.create_feedback("full") if node is not None else f"{type(error).__name__}: {error}"
        )
        cause = error.__cause__ if isinstance(error, ExecutionError) else error
        name = type(cause or error).__name__
        verdict = Verdict(self.failure_score, text, (Score(self.failure_score), Remark(text)))
        evaluation = Evaluation(verdict.score, text, f"{name}: {error}")
        return Traced(evaluation, node, verdict.messages, error)

    def _late(self) -> Traced:
        text = f"the run took longer than {self.timeout:g} seconds and was given up"
        return Traced(Evaluation(self.failure_score, text, f"TimeoutError: {text}"), None, ())

    # Many examples

    def _all(self, jobs: Sequence[_Job], limit: float | None) -> list[Traced]:
        """Run jobs, at most `workers` at once; gives what they gave in the order of the jobs.

        What is ready is kept at once, whatever becomes of the others. `limit` is in seconds; what
        runs elsewhere looks at the clock itself.
        """
        results: dict[int, Traced] = {}
        waiting = iter(enumerate(jobs))
        running: dict[Future[Traced], tuple[int, float]] = {}
        try:
            while self._fill(running, waiting) or running:
                for future, late in self._ready(running, limit):
                    number, _ = running.pop(future)
                    results[number] = self._late() if late else future.result()
                    self._keep(jobs[number].key, results[number].evaluation)
        finally:
            for future in running:
                future.cancel()
        return [results[number] for number in range(len(jobs))]

    def _fill(
        self,
        running: dict[Future[Traced], tuple[int, float]],
        waiting: Iterator[tuple[int, _Job]],
    ) -> bool:
        """Start jobs while there is room; whether one was started."""
        started = False
        while len(running) < self.workers:
            following = next(waiting, None)
            if following is None:
                break
            number, job = following
            running[self.executor.submit(job.function, *job.args)] = number, time.monotonic()
            self.runs += 1
            started = True
        return started

    def _ready(
        self, running: dict[Future[Traced], tuple[int, float]], limit: float | None
    ) -> list[tuple[Future[Traced], bool]]:
        """The jobs that are done, or (true) out of time and given up; waits for the first of them."""
        left = None
        if limit is not None:
            oldest = min(started for _, started in running.values())
            left = max(0.0, oldest + limit - time.monotonic())
        done, _ = wait(running, timeout=left, return_when=FIRST_COMPLETED)
        ready = [(future, False) for future in done]
        if limit is None:
            return ready
        now = time.monotonic()
        late = [f for f, (_, began) in running.items() if now - began >= limit and not f.done()]
        for future in late:
            future.cancel()
        return [*ready, *((future, True) for future in late if future not in done)]

    def _overlay(self, candidate: Candidate) -> Overlay:
        """The candidate's overlay; a few are kept, so that its code is compiled once."""
        found = self._overlays.pop(candidate.id, None)
        if found is None:
            found = Overlay({self.parameters[n]: v for n, v in candidate.values.items()})
        self._overlays[candidate.id] = found
        while len(self._overlays) > 16:
            self._overlays.pop(next(iter(self._overlays)))
        return found


def _name(key: tuple[str, str, int]) -> str:
    return "/".join(map(str, key))


async def _awaited(value: Any) -> Any:
    return await value
