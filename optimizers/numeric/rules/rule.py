"""What a rule is: a pure body, the names of its state, and its scalars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Body", "Hyper", "Rule", "State", "Tally", "define"]

Hyper = Mapping[str, Any]
"""The hyperparameters of one param group."""

Body = Callable[[Any, Any, tuple[Any, ...], tuple[Any, ...]], tuple[Any, tuple[Any, ...]]]
"""``(p, g, state, scalars) -> (p, state)``, element-wise, in the dialect."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class State:
    """One state tensor of a rule; `name` is the one that torch's state dict uses.

    `signed` is False for a value that is never negative (a second moment), which a codec may use.
    A `given` state is read by the rule and written by somebody else (an estimator).
    """

    name: str
    signed: bool = True
    given: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """One number that a tensor's state keeps from step to step; `first` before the first."""

    name: str
    first: float = 0.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One element-wise optimizer.

    `scalars` receives the param group and the step (1 at the first) and returns the scalars that
    the body unpacks, computed in float64. The step, and a rate, may be tensors: see `scalars.py`.
    What follows from the hyperparameters of all steps so far is in `tallies`: `tally` receives the
    same, with their values before the step, and returns those after it, which `scalars` sees.
    """

    name: str
    body: Body
    scalars: Callable[[Hyper, Any], tuple[Any, ...]]
    states: tuple[State, ...] = ()
    tallies: tuple[Tally, ...] = ()
    tally: Callable[[Hyper, Any], tuple[Any, ...]] | None = None

    def tallied(self, hyper: Hyper, held: Sequence[Any], t: Any) -> Hyper:
        """The param group `hyper` with the tallies after step `t`, which were `held` before it."""
        if self.tally is None:
            return hyper
        names = [tally.name for tally in self.tallies]
        now = self.tally({**hyper, **dict(zip(names, held, strict=True))}, t)
        return {**hyper, **dict(zip(names, now, strict=True))}

    def __repr__(self) -> str:
        return f"<rule {self.name}>"


def define(
    rule: Rule,
    p: Array,
    gradients: Sequence[Array],
    hyper: Hyper,
    *,
    states: tuple[Array, ...] | None = None,
    first_step: int = 1,
) -> tuple[Array, tuple[Array, ...]]:
    """The definition: the rule run over `gradients` in numpy float64, with one `hyper` for all steps.

    >>> from optimizers.numeric.rules.momentum import SGD
    >>> p, _ = define(SGD, np.array([1.0]), [np.array([0.5])], {"lr": 0.1, "weight_decay": 0.0})
    >>> p
    array([0.95])
    """
    p = np.array(p, dtype=np.float64)
    s = states if states is not None else tuple(np.zeros_like(p) for _ in rule.states)
    held = [tally.first for tally in rule.tallies]
    for t in range(1, first_step + len(gradients)):
        now = rule.tallied(hyper, held, t)
        held = [now[tally.name] for tally in rule.tallies]
        if t >= first_step:
            g = np.asarray(gradients[t - first_step], dtype=np.float64)
            p, s = rule.body(p, g, s, rule.scalars(now, t))
    return p, s
