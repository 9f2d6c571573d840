"""Who judges an output: any callable ``guide(example, output)`` that gives a score, and words if it can.

A guide sees the output's plain value. It gives a number (larger is better), several named numbers
(one for each objective), either with a text, or feedback messages of which one is a `Score`. What
must hold whatever the score is a constraint, and is judged apart.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, final

from optimizers.training.callable_so import check_callable
from tracegraph.errors import BudgetExceeded, OptimizerError
from tracegraph.feedback import Feedback, Remark, Score
from tracegraph.kinds import show

__all__ = ["BadVerdict", "Constraint", "Guide", "Referee", "Verdict", "judge", "waited_for"]

_NONE: Mapping[str, float] = MappingProxyType({})


class BadVerdict(OptimizerError, ValueError):
    """A guide raised, or gave what is no score."""


class Guide(Protocol):
    """Judges an output."""

    def __call__(self, example: Any, output: Any, /) -> Any:
        """A number, named numbers, either with a text, or feedback with a `Score` in it; may be async."""
        ...


Constraint = Callable[[Any, Any], Any]
"""``constraint(example, output)`` gives true where it holds; false, or (false, why), where not."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was said of an output.

    Attributes:
        score: larger is better; of several objectives their weighted mean.
        text: in words.
        messages: what goes back through the graph.
        objectives: the scores by name, where the guide gave several.
        violated: the constraints that do not hold, each with its reason.
    """

    score: float
    text: str = ""
    messages: tuple[Feedback, ...] = ()
    objectives: Mapping[str, float] = field(default_factory=lambda: _NONE)
    violated: tuple[str, ...] = ()


def judge(
    guide: Guide, example: Any, output: Any, weights: Mapping[str, float] | None = None
) -> Verdict:
    """Ask a guide and read what it says.

    Args:
        guide: who judges.
        example: what the workflow was given.
        output: the plain value that came out.
        weights: how much each objective counts; by default all the same.

    Raises:
        BadVerdict: it raised, or gave no score, or NaN; the message says for which example.

    >>> judge(lambda example, output: (0.5, "too long"), "question", "answer").messages
    (Score('0.5'), Remark('too long'))
    >>> judge(lambda example, output: {"right": 1.0, "short": 0.5}, "question", "answer").score
    0.75
    """
    try:
        said = waited_for(guide(example, output))
    except BudgetExceeded:
        raise  # a judge's allowance is spent: nothing is wrong with it
    except Exception as error:
        raise BadVerdict(
            f"the guide raised {type(error).__name__}: {error} for the example {show(example, 120)} "
            f"and the output {show(output, 120)}; a guide must give a score for every output"
        ) from error
    parts = list(said) if isinstance(said, (tuple, list)) else [said]
    named = [_objectives(part, example) for part in parts if isinstance(part, Mapping)]
    if named:
        words = ", ".join(f"{name} {value:.4g}" for name, value in named[0].items())
        plain = [part for part in parts if not isinstance(part, Mapping)]
        parts = [_weighted(named[0], weights, example), words, *plain]
    elif weights is not None:
        raise BadVerdict(
            f"weights= has {sorted(weights)}, and the guide gave {show(said, 80)} for the example "
            f"{show(example, 120)}: it must give a dict with a number for each of these"
        )
    messages = [made for made in map(_message, parts) if made is not None]
    scores = [message for message in messages if isinstance(message, Score)]
    given = [part for part in parts if part not in (None, "")]
    if len(scores) != 1 or len(messages) < len(given) or len(named) > 1:
        raise BadVerdict(
            f"the guide gave {show(said, 120)} for the example {show(example, 120)}; it must give a "
            "finite number, or (number, text), or a dict of numbers by objective, or feedback "
            "with one Score in it; NaN cannot be compared"
        )
    text = "\n".join(str(message) for message in messages if not isinstance(message, Score))
    return Verdict(scores[0].mean, text, tuple(messages), named[0] if named else _NONE)


@final
class Referee:
    """Judges outputs by a guide and by constraints, which no score can make up for.

    Args:
        guide: see `Guide`.
        constraints: by name, see `Constraint`.
        weights: of the objectives.

    Raises:
        OptimizerError: something is not callable, or a weight is no finite number.

    >>> short = Referee(lambda example, output: 1.0, {"short": lambda example, output: len(output) < 5})
    >>> short("question", "a long answer").violated
    ('short does not hold',)
    """

    def __init__(
        self,
        guide: Guide,
        constraints: Mapping[str, Constraint] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(constraints or {}, Mapping):
            raise OptimizerError(
                f"constraints are given by name, {{'no secrets': function}}, got "
                f"{show(constraints, 80)}"
            )
        self.guide, self.constraints = guide, dict(constraints or {})
        for name, given in (("guide", guide), *self.constraints.items()):
            check_callable(name, given, "example", "output")
        if weights is not None and not isinstance(weights, Mapping):
            raise OptimizerError(
                f"weights are numbers by objective, {{'right': 2, 'short': 1}}, got {show(weights, 80)}"
            )
        self.weights = None if weights is None else dict(weights)
        for name, weight in (self.weights or {}).items():
            if not isinstance(weight, (int, float)) or not math.isfinite(weight):
                raise OptimizerError(f"the weight of {name!r} must be finite, got {weight!r}")
        if self.weights is not None and not sum(map(abs, self.weights.values())):
            raise OptimizerError("weights are all 0: no objective would count")
        self._names: list[frozenset[str]] = []

    def __call__(self, example: Any, output: Any) -> Verdict:
        """The verdict on an output.

        Raises:
            BadVerdict: the guide or a constraint raised, or gave what cannot be used.
        """
        verdict = judge(self.guide, example, output, self.weights)
        self._check_names(verdict, example)
        violated = tuple(
            reason
            for name, constraint in self.constraints.items()
            if (reason := _violated(name, constraint, example, output))
        )
        if not violated:
            return verdict
        remarks = tuple(Remark(reason) for reason in violated)
        return Verdict(
            verdict.score, "\n".join(filter(None, (*violated, verdict.text))),
            (*verdict.messages, *remarks), verdict.objectives, violated,
        )  # fmt: skip

    def _check_names(self, verdict: Verdict, example: Any) -> None:
        names = frozenset(verdict.objectives)
        if not self._names:
            self._names.append(names)
        if names != self._names[0]:
            raise BadVerdict(
                f"the guide gave the objectives {sorted(names)} for the example {show(example, 120)} "
                f"and {sorted(self._names[0])} before; it must give the same for every example"
            )


def _violated(name: str, constraint: Constraint, example: Any, output: Any) -> str:
    """Why a constraint does not hold; empty where it does."""
    try:
        said = constraint(example, output)
    except BudgetExceeded:
        raise
    except Exception as error:
        raise BadVerdict(
            f"the constraint {name!r} raised {type(error).__name__}: {error} for the example "
            f"{show(example, 120)}; it must say whether it holds for every output"
        ) from error
    holds, why = said if isinstance(said, tuple) and len(said) == 2 else (said, "")
    if holds is None or isinstance(holds, (str, tuple, list)):
        raise BadVerdict(
            f"the constraint {name!r} gave {show(said, 80)} for the example {show(example, 120)}; "
            "it must give True or False, or (False, why)"
        )
    return "" if holds else f"{name} does not hold" + (f": {why}" if why else "")


def _objectives(given: Mapping[Any, Any], example: Any) -> dict[str, float]:
    found = {}
    for name, value in given.items():
        number = _number(value)
        if number is None or not isinstance(name, str):
            raise BadVerdict(
                f"the guide gave {name!r}: {show(value, 40)} for the example {show(example, 120)}; "
                "an objective has a text for its name and a finite number for its score"
            )
        found[name] = number
    return found


def _weighted(
    objectives: Mapping[str, float], weights: Mapping[str, float] | None, example: Any
) -> float | None:
    counted = dict.fromkeys(objectives, 1.0) if weights is None else weights
    if counted.keys() != objectives.keys():
        raise BadVerdict(
            f"the guide gave the objectives {sorted(objectives)} for the example "
            f"{show(example, 120)}, and weights= has {sorted(counted)}"
        )
    if not counted:
        return None
    total = math.fsum(abs(weight) for weight in counted.values())
    return math.fsum(weight * objectives[name] for name, weight in counted.items()) / total


def _message(part: Any) -> Feedback | None:
    if isinstance(part, Score):
        return part if math.isfinite(part.mean) else None
    if isinstance(part, Feedback):
        return part
    if isinstance(part, str):
        return Remark(part) if part else None
    number = _number(part)
    return None if number is None else Score(number)


def waited_for(said: Any) -> Any:
    """A value as it is; of an awaitable what it comes to, in an event loop of its own."""
    return asyncio.run(_awaited(said)) if inspect.isawaitable(said) else said


async def _awaited(said: Awaitable[Any]) -> Any:
    return await said


def _number(given: Any) -> float | None:
    if isinstance(given, str):
        return None
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
