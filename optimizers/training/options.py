"""What a training is told: every option once, with its default and its check."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, final

from optimizers.training.acceptance import Acceptance
from optimizers.training.budget import Budget
from optimizers.training.evaluator import Call
from optimizers.training.guide import Constraint, Guide
from optimizers.training.policies.policy import Policy
from optimizers.training.racing import Racing
from optimizers.training.result import Listener
from optimizers.training.saving import Store
from tracegraph.errors import OptimizerError, nearest
from tracegraph.kinds import show

__all__ = ["Options", "examples_of", "taking"]

P = ParamSpec("P")
R = TypeVar("R")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of `fit`, by keyword.

    Args:
        validation: examples to choose the best by; optimizers never see them.
        optimizer: an optimizer, a function from parameters to one, or ``None`` for what `optimize`
            chooses. Give an instance where the workflow is a plain function.
        search: which candidate is improved next: `Greedy` (the default) goes on from the one accepted
            last, `Beam`, `UCB`, `Pareto` and `Islands` keep several. These score each candidate on
            the validation set, or without one on the training set.
        budget: a `Budget`, or how often the workflow may run; 20 steps by default.
        batch_size: how many examples a step has.
        proposals: how many candidates are compared at a time; the best one is tested.
        tries: how often a step asks while nothing is accepted. The feedback is there already, so
            another try costs no other run of the present values.
        acceptance: what has ``decide(before, after)``; `Paired` by default.
        racing: drops hopeless candidates before they were run on the whole batch, see `Racing`.
        anchors: examples that must not get worse: a candidate that scores less on one of them, or
            violates more, is refused.
        constraints: what must hold whatever the score: ``constraint(example, output)`` by name gives
            True, False or (False, why). Fewer violations come before any score.
        weights: how much each objective counts in the score, where the guide gives several.
        validate_every: at most every so many steps is the validation set run (`Greedy` only).
        patience: stop after so many steps without an accepted proposal.
        target: stop at this mean score.
        perfect: the score of an example that has nothing to teach. A batch of such examples asks
            nobody.
        call: ``call(workflow, example)`` in place of the default call: with the first of a pair (input,
            expected), or with the whole example.
        executor: runs the examples; threads of its own by default. `EventLoop` for async workflows;
            with `remote` any `concurrent.futures.Executor`.
        remote: ``remote(values, example)`` gives the output where only a score is needed, somewhere
            else, see `Evaluator`.
        workers: how many examples run at once; it does not change the result.
        timeout: seconds that one example may take, see `Evaluator` for what is ended then.
        failure_score: the score of a run that failed; it never counts more than the worst that the
            guide has given.
        seed: of all chance.
        on: listeners, called with each `Event`.
        progress: show what happens; by default on a terminal.
        store: keeps the state after each step, and every evaluation and reply at once: a path, or a
            `tracegraph.history.State`. The same call goes on where the last one stopped, or was
            killed.
        resume: whether to go on from what the store has; else it is overwritten.
        state: `Result.state` of a training to go on with.

    Raises:
        OptimizerError: an option cannot be used; the message says which.
        TypeError: there is no such option.
    """

    validation: Iterable[Any] | None = None
    optimizer: Any = None
    search: Policy | None = None
    budget: Budget | int | None = None
    batch_size: int = 10
    proposals: int = 1
    tries: int = 3
    acceptance: Acceptance | None = None
    racing: Racing | None = None
    anchors: Iterable[Any] = ()
    constraints: Mapping[str, Constraint] | None = None
    weights: Mapping[str, float] | None = None
    validate_every: int = 1
    patience: int | None = None
    target: float | None = None
    perfect: float | None = None
    call: Call | None = None
    executor: Executor | None = None
    remote: Callable[..., Any] | None = None
    workers: int = 8
    timeout: float | None = None
    failure_score: float = 0.0
    seed: int = 0
    on: Iterable[Listener] = ()
    progress: bool | None = None
    store: Store | str | Path | None = None
    resume: bool = True
    state: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "proposals", "tries", "validate_every", "patience"):
            number = getattr(self, name)
            if number is None and name == "patience":
                continue
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise OptimizerError(f"{name} must be a whole number from 1, got {number!r}")
        for name in ("target", "perfect"):
            number = getattr(self, name)
            if number is not None and not (
                isinstance(number, (int, float)) and math.isfinite(number)
            ):
                raise OptimizerError(f"{name} must be a finite score, got {show(number, 40)}")
        if not isinstance(self.seed, int):
            raise OptimizerError(f"seed must be a whole number, got {show(self.seed, 40)}")
        for name, method in (("acceptance", "decide"), ("search", "ask"), ("racing", "dropped")):
            given = getattr(self, name)
            if isinstance(given, type):
                raise OptimizerError(
                    f"{name} is the class {given.__name__}: give one of it, {given.__name__}()"
                )
            if given is not None and not callable(getattr(given, method, None)):
                raise OptimizerError(f"{name} must have {method}(), got {show(given, 80)}")
        for name, switch in (("resume", self.resume), ("progress", self.progress or False)):
            if not isinstance(switch, bool):
                raise OptimizerError(f"{name} must be True or False, got {show(switch, 40)}")
        if not isinstance(self.on, Iterable):
            raise OptimizerError(f"on= takes a list of listeners, got {show(self.on, 80)}")
        object.__setattr__(self, "on", tuple(self.on))
        for listener in self.on:
            if not callable(listener):
                raise OptimizerError(f"on= takes listeners to call, got {show(listener, 80)}")

    @classmethod
    def of(cls, **given: Any) -> Options:
        """The options of these keywords; a misspelled one is named with its nearest.

        >>> Options.of(bach_size=5)
        Traceback (most recent call last):
        TypeError: there is no option 'bach_size'; did you mean 'batch_size'?
        """
        names = [f.name for f in fields(cls)]
        for name in given:
            if name not in names:
                near = nearest(name, names)
                instead = f"did you mean {near!r}?" if near else f"there are {', '.join(names)}"
                raise TypeError(f"there is no option {name!r}; {instead}")
        return cls(**given)


def taking(
    _: Callable[P, Options],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, Iterable[Any], Guide, P], R]]:
    """Say of ``function(workflow, train, guide, **options)`` which options it takes."""

    def typed(
        function: Callable[..., R],
    ) -> Callable[Concatenate[Any, Iterable[Any], Guide, P], R]:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = inspect.signature(Options).parameters.values()
        function.__signature__ = own.replace(parameters=[*named, *taken])  # type: ignore[attr-defined]
        return cast("Callable[Concatenate[Any, Iterable[Any], Guide, P], R]", function)

    return typed


def examples_of(given: Any, name: str, *, least: int = 1) -> list[Any]:
    """The examples that were given under a name; a generator is run to its end.

    Raises:
        OptimizerError: there are fewer than `least`, or they are no list.
    """
    if isinstance(given, (str, bytes, Mapping)) or not hasattr(given, "__iter__"):
        raise OptimizerError(f"{name} must be a list of examples, got {show(given, 80)}")
    examples = list(given)
    if len(examples) < least:
        raise OptimizerError(f"{name} is empty: there is no example to learn from or to judge by")
    return examples
