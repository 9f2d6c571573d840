"""A (mu + lambda) evolution strategy over parameters of any kind.

H.-G. Beyer and H.-P. Schwefel, "Evolution strategies: a comprehensive introduction", Natural
Computing 1 (2002): the mu best of all so far are the parents of lambda children; recombination (discrete
for values, intermediate for step sizes), then mutation. Each candidate has one step size, relative to
each number's range, that is inherited and mutated itself, by a log-normal factor with the learning
rate 1/sqrt(2n) for n numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from random import Random
from typing import Any, Final, final

from optimizers.candidate import Candidate, Trial
from optimizers.localisation import Suspects
from optimizers.search.code import crossed_code, joined_code
from optimizers.search.lexicase import complementary, lexicase
from optimizers.search.search import Search
from tracegraph.errors import OptimizerError, Rejected
from tracegraph.kinds import KINDS, show

__all__ = ["Evolve"]

_SMALLEST: Final = 1e-9
_LARGEST: Final = 1.0
_FIRST: Final = 0.2
"""How often the first code is varied again where its lines are blamed: it is near what is right."""
_JOINED: Final = 0.2
"""How often two variations of one code are joined, where some are better on different cases."""


@final
class Evolve(Search):
    """Improve parameters of any kind by mutation, crossover and selection; needs scores, no model.

    Every brood has `lambda_` children of the `mu` best candidates so far. Texts, code, choices and
    structures change by one edit at a time; numbers and tensors by a step that adapts itself. Where
    `tell` says how each case went, candidates that are best on some cases become parents too.

    Args:
        parameters: of any kind, see `Optimizer`.
        mu: how many of the best become parents.
        lambda_: how many children a brood has; evaluate them side by side by ``ask(lambda_)``.
        crossover: how often a child has two parents; it takes each value from one of them, of code each
            line in which they differ. Apart from that, what two variations of one code changed is joined
            where each is better on a case that the other is not.
        step: the first step size, relative to a number's bounds, or to its size where it has none.
        seed: see `Search`; so are `minimize`, `phrases`, `expressions`, `logarithmic`.

    Raises:
        OptimizerError: an option cannot be used.

    >>> import tracegraph as tg
    >>> x = tg.node(4.0, trainable=True, name="x")
    >>> evolve = Evolve([x], seed=0)
    >>> for _ in range(100):
    ...     for candidate in evolve.ask():
    ...         evolve.tell(candidate, -((candidate.values["x"] - 1) ** 2))
    >>> update = evolve.finish()
    >>> abs(x.data - 1) < 0.01
    True
    """

    def __init__(
        self,
        parameters: Any,
        *,
        mu: int = 3,
        lambda_: int = 8,
        crossover: float = 0.3,
        step: float = 0.3,
        seed: int = 0,
        minimize: bool = False,
        phrases: Iterable[str] = (),
        expressions: Iterable[str] = (),
        logarithmic: Iterable[str] = (),
    ) -> None:
        for name, count in (("mu", mu), ("lambda_", lambda_)):
            if not isinstance(count, int) or count < 1:
                raise OptimizerError(f"{name} must be a whole number from 1, got {show(count, 40)}")
        if not 0 <= crossover <= 1:
            raise OptimizerError(f"crossover is a share between 0 and 1, got {show(crossover, 40)}")
        if not _SMALLEST <= step <= _LARGEST:
            raise OptimizerError(f"step must lie between {_SMALLEST} and {_LARGEST}, got {step}")
        self.mu, self.lambda_, self.crossover, self.first_step = mu, lambda_, crossover, step
        super().__init__(
            parameters, seed=seed, minimize=minimize, phrases=phrases, expressions=expressions,
            logarithmic=logarithmic,
        )  # fmt: skip

    def _brood(self) -> int:
        return self.lambda_

    def _options(self) -> dict[str, Any]:
        own = {
            "mu": self.mu, "lambda_": self.lambda_, "crossover": self.crossover,
            "step": self.first_step,
        }  # fmt: skip
        return {**super()._options(), **own}

    def _bred(self, random: Random, effort: int, chosen: list[Trial]) -> Candidate:
        parents = [trial.candidate for trial in chosen[: self.mu]] or [self._root]
        by_case = [trial for trial in chosen if trial.cases]
        joined = self._joined(random, by_case) if effort == 0 else None
        if joined is not None:
            return joined
        mother = _parent(parents, by_case, random)
        if self._trials[self._root.id].suspects and random.random() < _FIRST:
            mother = self._root
        values, step = dict(mother.values), mother.step or self.first_step
        parentage: tuple[str, ...] = (mother.id,)
        crossed = False
        others = [parent for parent in parents if parent is not mother]
        if others and len(parents) > 1 and random.random() < self.crossover:
            apart = [trial for trial in by_case if trial.candidate is not mother]
            father = _parent(others, apart, random)
            parentage = (mother.id, father.id)
            step = math.sqrt(step * (father.step or self.first_step))
            crossed = self._cross(values, father, random)
        values = self._with_frozen(values)
        if crossed and random.random() < 0.5:
            return Candidate("", values, parentage, step)
        blamed = self._trials[mother.id].suspects if len(parentage) == 1 else {}
        step = self._mutate(values, step, random, effort, blamed)
        return Candidate("", values, parentage, step)

    def _joined(self, random: Random, by_case: list[Trial]) -> Candidate | None:
        """What two variations of one candidate changed in its code, together; None where there is nothing."""
        codes = [n for n in self._free()[1] if self.named_parameters[n].kind is KINDS["code"]]
        if not codes or not by_case or random.random() >= _JOINED:
            return None
        pairs = complementary(self._trials, by_case)
        if not pairs:
            return None
        first, mother, father = (trial.candidate for trial in random.choice(pairs))
        values = self._with_frozen(mother.values)
        for name in codes:
            both = joined_code(first.values[name], mother.values[name], father.values[name])
            if both is None:
                return None
            try:
                values[name] = self.named_parameters[name].check(both)
            except Rejected:
                return None
        return Candidate("", values, (mother.id, father.id), mother.step or self.first_step)

    def _with_frozen(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values`, with those of today for parameters that are not trainable now."""
        present = self._present_values()
        return {
            name: values[name] if parameter.trainable else present[name]
            for name, parameter in self.named_parameters.items()
        }

    def _cross(self, values: dict[str, Any], father: Candidate, random: Random) -> bool:
        """Take values from the father, of code some lines; gives whether code was made of both."""
        crossed = False
        for name in values:
            parameter = self.named_parameters[name]
            if parameter.kind is KINDS["code"]:
                both = crossed_code(values[name], father.values[name], random)
                with suppress(Rejected):
                    if both is not None:
                        values[name], crossed = parameter.check(both), True
            elif random.random() < 0.5:
                values[name] = father.values[name]
        return crossed

    def _mutate(
        self, values: dict[str, Any], step: float, random: Random, effort: int, blamed: Suspects
    ) -> float:
        """Change some of the values in place; gives the step size that was used."""
        moving, edited = self._free()
        if (
            moving and edited
        ):  # one of the two groups, or both: a bad edit shall not hide a good move
            turn = random.randrange(3)
            moving, edited = (moving if turn != 1 else []), (edited if turn != 0 else [])
        if moving:
            step *= math.exp(random.gauss(0, 1) / math.sqrt(2 * len(moving)))
            step = min(max(step, _SMALLEST), _LARGEST)
        for name in moving:
            values[name] = self._varied(name, values[name], random, step)
        if edited:
            certain = random.choice(edited)
            for name in edited:
                if name == certain or random.random() < 1 / len(edited):
                    times = 1 + effort // 10
                    values[name] = self._varied(
                        name, values[name], random, times=times, suspects=blamed.get(name)
                    )
        return step


def _parent(parents: list[Candidate], by_case: list[Trial], random: Random) -> Candidate:
    """One of the best; where cases are known, half the time one that is best on some of them."""
    if by_case and random.random() < 0.5:
        return lexicase(by_case, random).candidate
    return random.choice(parents)
