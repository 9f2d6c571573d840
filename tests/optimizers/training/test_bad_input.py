"""What a person may give `fit` by mistake is named before anything runs and before any model is asked."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Budget, OptoPrime, Paired, Pareto, Racing, fit
from optimizers.training.guide import BadVerdict
from tracegraph.errors import OptimizerError
from tracegraph.llm import Request, Scripted

NAN = float("nan")


class Trial:
    """A workflow that counts its runs, and an optimizer whose model counts its calls."""

    def __init__(self) -> None:
        self.word = tg.node("Hi", trainable=True, name="word")
        self.ran: list[Any] = []
        self.asked: list[Request] = []
        model = Scripted(lambda request: self.asked.append(request) or "no idea")
        self.optimizer = OptoPrime([self.word], llm=model)

    def run(self, example: Any) -> Any:
        self.ran.append(example)
        return self.word + str(example)

    def fit(self, **given: Any) -> Any:
        options = {"optimizer": self.optimizer, "budget": Budget(steps=1), "workers": 1, **given}
        workflow, train, guide = (
            options.pop(name, default)
            for name, default in (
                ("workflow", self.run), ("train", ["a", "b"]), ("guide", lambda example, said: 0.5),
            )
        )  # fmt: skip
        return fit(workflow, train, guide, **options)


def yielding(example: Any) -> Iterator[Any]:
    yield example


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train": []}, "train is empty"),
        ({"train": {"a": 1}}, "train must be a list of examples, got {'a': 1}"),
        ({"train": "abc"}, "train must be a list of examples, got 'abc'"),
        ({"validation": []}, "validation is empty"),
        ({"workflow": 5}, "workflow must be callable, got 5"),
        ({"workflow": lambda x, y: x}, "takes (x, y): missing a required argument: 'y'; say how"),
        ({"workflow": lambda: 1}, "workflow is called as workflow(example), and takes ()"),
        ({"workflow": yielding}, "must return one output for an example"),
        ({"guide": 5}, "guide must be callable, got 5"),
        ({"guide": lambda example: 1.0}, "guide is called as guide(example, output), and takes"),
        ({"constraints": {"short": lambda x: True}}, "short is called as short(example, output)"),
        ({"call": 5}, "call must be callable, got 5"),
        ({"call": lambda workflow: 5}, "call is called as call(workflow, example)"),
        ({"weights": 5}, "weights are numbers by objective"),
        ({"weights": {"right": NAN}}, "the weight of 'right' must be finite"),
        ({"budget": 0}, "nothing can be done with that"),
        ({"budget": "10"}, "budget is a Budget or a number of workflow runs"),
        ({"workers": 0}, "workers must be a whole number from 1, got 0"),
        ({"workers": True}, "workers must be a whole number from 1, got True"),
        ({"timeout": -1}, "timeout must be a number of seconds above 0"),
        ({"timeout": "1"}, "timeout must be a number of seconds above 0, got '1'"),
        ({"failure_score": "low"}, "failure_score must be a finite number, got 'low'"),
        ({"failure_score": NAN}, "failure_score must be a finite number"),
        ({"on": 5}, "on= takes a list of listeners, got 5"),
        ({"resume": "no"}, "resume must be True or False, got 'no'"),
        ({"progress": "bar"}, "progress must be True or False, got 'bar'"),
        ({"search": Pareto}, "search is the class Pareto: give one of it, Pareto()"),
        ({"acceptance": Paired}, "acceptance is the class Paired"),
        ({"racing": Racing}, "racing is the class Racing"),
        ({"executor": ProcessPoolExecutor}, "executor must have submit()"),
        ({"optimizer": "gpt"}, "optimizer must be an optimizer, a function from parameters to one"),
        ({"optimizer": OptoPrime}, "no parameters were found in the workflow"),
        ({"store": 5}, "store must be a path or have load() and save()"),
        ({"state": {}}, "this is no state of a training"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, dict) else None,
)  # fmt: skip
def test_a_mistake_is_named_before_anything_runs(given: dict[str, Any], said: str) -> None:
    trial = Trial()
    with pytest.raises(OptimizerError, match=re.escape(said)):
        trial.fit(**given)
    assert (trial.ran, trial.asked, trial.word.data) == ([], [], "Hi")


@pytest.mark.parametrize("limit", [0, -1, NAN, "5"])
def test_a_budget_that_is_no_limit_is_refused(limit: Any) -> None:
    with pytest.raises(OptimizerError, match="above 0, or None for no limit"):
        Budget(steps=limit)


@pytest.mark.parametrize(
    "verdict",
    [None, "good", NAN, float("inf"), 10**400, 1j, [], {}, ("a", "b"), (None, "x"), (1.0, 2.0),
     {"right": NAN}, {3: 1.0}, {"right": "much"}, object()],
    ids=lambda verdict: repr(verdict)[:20],
)  # fmt: skip
def test_what_is_no_score_is_named_after_the_first_runs_and_no_model_is_asked(verdict: Any) -> None:
    trial = Trial()
    with pytest.raises(BadVerdict, match=r"for the example '[ab]'"):
        trial.fit(guide=lambda example, said: verdict)
    assert (trial.asked, trial.word.data) == ([], "Hi")


def test_weights_of_objectives_that_the_guide_does_not_give_are_refused() -> None:
    trial = Trial()
    with pytest.raises(
        BadVerdict, match=re.escape("weights= has ['right'], and the guide gave 0.5")
    ):
        trial.fit(weights={"right": 1.0})
    assert trial.asked == []


def injected(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that brings the second argument; the signature that it copies says otherwise."""

    @functools.wraps(function)
    def inner(example: Any) -> Any:
        return function(example, "!")

    return inner


@pytest.mark.parametrize("kind", ["decorated", "partial", "keyword", "bundle", "method", "any"])
def test_what_can_be_called_is_called_however_it_is_written(kind: str) -> None:
    trial = Trial()

    def two(example: Any, end: Any) -> Any:
        return trial.run(example) + end

    @tg.bundle
    def said(example: Any, word: Any = trial.word) -> Any:
        return trial.ran.append(example) or f"{word}{example}"

    workflow = {
        "decorated": injected(two), "partial": functools.partial(two, end="?"), "bundle": said,
        "keyword": lambda example, *, end="": two(example, end), "method": trial.run,
        "any": lambda *examples: trial.run(*examples),
    }[kind]  # fmt: skip
    score = trial.fit(workflow=workflow, failure_score=Fraction(-1), guide=lambda *given: 0.5).score
    assert score == 0.5
    assert sorted(trial.ran) == ["a", "b"]
