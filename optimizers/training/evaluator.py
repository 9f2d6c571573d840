"""The one place where workflows run: candidates on examples, side by side, in a fixed order.

What comes out depends on neither the number of workers nor who is ready first. A run that fails or
takes too long is a low score with its error as feedback. What was evaluated once is not evaluated
again.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from typing import Any, final

from optimizers.candidate import Candidate
from optimizers.training.guide import Guide, Verdict, judge
from optimizers.training.threads import DaemonThreads
from tracegraph.errors import ExecutionError, OptimizerError
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


@dataclass(frozen=True, slots=True)
class Traced:
    """An evaluation with the output's node and the feedback for it."""

    evaluation: Evaluation
    output: Node[Any] | None
    messages: tuple[Feedback, ...]


def call_with_input(workflow: Any, example: Any) -> Any:
    """Call a workflow with an example's input: the first of a pair, else the example itself."""
    return workflow(example[0] if isinstance(example, tuple) and len(example) == 2 else example)


@final
class Evaluator:
    """Runs a workflow on examples and has the outputs judged.

    Args:
        workflow: any callable; it may be async.
        guide: judges the outputs, see `Guide`.
        parameters: what candidates give values to, by name.
        call: ``call(workflow, example)``; by default the workflow gets the first of a pair
            (input, expected), or the whole example.
        executor: runs the examples; threads of its own by default. It must run in this process.
        workers: how many examples run at once, at least 1.
        timeout: seconds that one example may take. After that it is not waited for any longer.
        failure_score: the score of a run that failed.

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
        workers: int = 8,
        timeout: float | None = None,
        failure_score: float = 0.0,
    ) -> None:
        for name, given in (("workflow", workflow), ("guide", guide)):
            if not callable(given):
                raise OptimizerError(f"{name} must be callable, got {show(given, 80)}")
        if not isinstance(workers, int) or workers < 1:
            raise OptimizerError(f"workers must be a whole number from 1, got {workers!r}")
        if timeout is not None and not timeout > 0:
            raise OptimizerError(f"timeout must be a number of seconds above 0, got {timeout!r}")
        if not math.isfinite(failure_score):
            raise OptimizerError(f"failure_score must be a finite number, got {failure_score!r}")
        self.workflow, self.guide, self.parameters = workflow, guide, dict(parameters)
        self.call = call or call_with_input
        self.executor = executor or DaemonThreads()
        self.workers, self.timeout, self.failure_score = workers, timeout, failure_score
        self.runs = 0
        self.cache: dict[tuple[str, str, int], Evaluation] = {}
        self._overlays: dict[str, Overlay] = {}

    def scores(
        self, candidate: Candidate, examples: Mapping[int, Any], split: str = "train"
    ) -> list[Evaluation]:
        """How a candidate does on examples, by their number within a split; in their order.

        Nothing is recorded, and what is known is not run again.
        """
        todo = {n: e for n, e in examples.items() if (split, candidate.id, n) not in self.cache}
        if todo:
            overlay = self._overlay(candidate)
            done = self._all([(self._score, (overlay, e)) for e in todo.values()])
            for number, traced in zip(todo, done, strict=True):
                self.cache[split, candidate.id, number] = traced.evaluation
        return [self.cache[split, candidate.id, number] for number in examples]

    def missing(self, candidate: Candidate, numbers: Sequence[int], split: str = "train") -> int:
        """How many of these examples a candidate was not evaluated on yet."""
        return sum((split, candidate.id, number) not in self.cache for number in numbers)

    def traced(
        self, candidate: Candidate, examples: Mapping[int, Any], split: str = "train"
    ) -> list[Traced]:
        """Run the parameters' present values, which are `candidate`, and keep the graphs.

        Always runs; what comes out replaces what was known.
        """
        leaves = [p._leaf() for p in self.parameters.values()]  # one for all threads
        first = next_id()
        done = self._all([(self._trace, (e,)) for e in examples.values()])
        renumber([t.output for t in done if t.output is not None], first)
        del leaves
        for number, traced in zip(examples, done, strict=True):
            self.cache[split, candidate.id, number] = traced.evaluation
        return done

    # One example

    def _score(self, overlay: Overlay, example: Any) -> Traced:
        with overlay, stop_tracing():
            return replace(self._trace(example), output=None, messages=())

    def _trace(self, example: Any) -> Traced:
        try:
            output = self.call(self.workflow, example)
            if inspect.isawaitable(output):
                output = asyncio.run(_awaited(output))
        except Exception as error:
            return self._failed(error)
        verdict = judge(self.guide, example, unwrap(output))
        return Traced(
            Evaluation(verdict.score, verdict.text),
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
        return Traced(Evaluation(verdict.score, text, f"{name}: {error}"), node, verdict.messages)

    def _late(self) -> Traced:
        text = f"the run took longer than {self.timeout:g} seconds and was given up"
        return Traced(Evaluation(self.failure_score, text, f"TimeoutError: {text}"), None, ())

    # Many examples

    def _all(self, calls: Sequence[tuple[Callable[..., Traced], tuple[Any, ...]]]) -> list[Traced]:
        """Run calls, at most `workers` at once; gives what they gave in the order of the calls."""
        results: dict[int, Traced] = {}
        waiting = iter(enumerate(calls))
        running: dict[Future[Traced], tuple[int, float]] = {}
        try:
            while self._fill(running, waiting) or running:
                for future in self._ready(running):
                    number, _ = running.pop(future)
                    results[number] = future.result() if future.done() else self._late()
        finally:
            for future in running:
                future.cancel()
        return [results[number] for number in range(len(calls))]

    def _fill(
        self,
        running: dict[Future[Traced], tuple[int, float]],
        waiting: Iterator[tuple[int, tuple[Callable[..., Traced], tuple[Any, ...]]]],
    ) -> bool:
        """Start calls while there is room; whether one was started."""
        started = False
        while len(running) < self.workers:
            following = next(waiting, None)
            if following is None:
                break
            number, (function, args) = following
            self.runs += 1
            running[self.executor.submit(function, *args)] = number, time.monotonic()
            started = True
        return started

    def _ready(self, running: dict[Future[Traced], tuple[int, float]]) -> list[Future[Traced]]:
        """The calls that are done or out of time; waits for the first of them."""
        left = None
        if self.timeout is not None:
            oldest = min(started for _, started in running.values())
            left = max(0.0, oldest + self.timeout - time.monotonic())
        done, _ = wait(running, timeout=left, return_when=FIRST_COMPLETED)
        if self.timeout is None:
            return list(done)
        now = time.monotonic()
        late = [f for f, (_, began) in running.items() if now - began >= self.timeout]
        for future in late:
            future.cancel()
        return list({**dict.fromkeys(done), **dict.fromkeys(late)})

    def _overlay(self, candidate: Candidate) -> Overlay:
        """The candidate's overlay; a few are kept, so that its code is compiled once."""
        found = self._overlays.pop(candidate.id, None)
        if found is None:
            found = Overlay({self.parameters[n]: v for n, v in candidate.values.items()})
        self._overlays[candidate.id] = found
        while len(self._overlays) > 16:
            self._overlays.pop(next(iter(self._overlays)))
        return found


async def _awaited(value: Any) -> Any:
    return await value
