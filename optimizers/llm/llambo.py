"""LLAMBO: Bayesian optimization in words: a model that starts, that suggests, and that predicts.

Source: Liu, Astorga, Seedat and van der Schaar, "Large Language Models to Enhance Bayesian Optimization",
2024 (arXiv 2402.03921). Warm start: points from the description alone (section 4). Sampler: points that
should reach the score ``best + alpha * (best - worst)`` (section 6). Surrogate: the scores of these points,
predicted from the history in several shuffled orders, whose mean and spread give the expected improvement
(section 5). Each part can be had alone, the others then go by chance or by a function of your own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from statistics import NormalDist, fmean, pstdev
from typing import Any, Final, Literal, TypeAlias, final

from optimizers.candidate import Trial, identity
from optimizers.llm.model_search import ModelSearch
from tracegraph.errors import BudgetExceeded, ModelError, OptimizerError
from tracegraph.kinds import show

__all__ = ["LLAMBO", "Sampler", "Surrogate", "expected_improvement"]

Values: TypeAlias = Mapping[str, Any]
Sampler: TypeAlias = Callable[[Sequence[Trial], int], Sequence[Values]]
"""``sampler(trials, n)`` gives n points; `trials` have scores, the best first."""
Surrogate: TypeAlias = Callable[[Sequence[Trial], Sequence[Values]], Sequence[tuple[float, float]]]
"""``surrogate(trials, points)`` gives the mean and the standard deviation of each point's score."""

_JITTER: Final = 0.1
_NORMAL = NormalDist()
_SAMPLE = """\
You suggest points of a space that should reach a given score. #Space says what values there are. Each line
of #History is a point that was tried and its score. Answer with one JSON object
{"points": [{"name": value, ...}, ...]} that holds as many points as are asked for, each different from all
that were tried, with a value for every name, within its bounds."""
_PREDICT = """\
You predict the score of points of a space. Each line of #History is a point that was tried and its score.
Answer with one JSON object {"scores": [number, ...]}: one for each line of #Points, in their order."""


@final
class LLAMBO(ModelSearch):
    """Asks the model for points, and for a prediction of their scores; tries the most promising.

    Args:
        parameters: see `ModelSearch`, as for the other options.
        initial: how many points of the warm start are tried before the history counts.
        points: how many points the sampler gives, of which one is tried.
        alpha: the score that is asked for: 0 for the best so far, above 0 for a better one, below 0 for one
            somewhat worse, which keeps the points more diverse. Shifted by up to 0.1 each time.
        orders: in how many orders of the history the surrogate is asked.
        warm_start: who gives the first points.
        sampler: who gives the points of each step; or a function, see `Sampler`.
        surrogate: who predicts; ``"none"`` tries the first point; or a function, see `Surrogate`.

    A step costs one call for the points and `orders` calls for the predictions. Points that a parameter
    does not take, or that were tried, are left out and the model is told; chance fills their places.

    >>> import tracegraph as tg
    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> from tracegraph.llm import Scripted
    >>> rate = tg.node(0.0, trainable=True, name="rate", constraint=Annotated[float, Field(ge=0, le=10)])
    >>> llm = Scripted(['{"points": [{"rate": 6.0}]}', '{"points": [{"rate": 70}, {"rate": 7.0}]}'])
    >>> llambo = LLAMBO([rate], llm, initial=1, points=1, surrogate="none")
    >>> for _ in range(3):
    ...     for candidate in llambo.ask():
    ...         llambo.tell(candidate, -abs(candidate.values["rate"] - 7))
    >>> llambo.best.values["rate"], llambo.refused
    (7.0, ['rate: Input should be less than or equal to 10, got 70'])
    """

    def __init__(
        self,
        parameters: Any,
        *args: Any,
        initial: int = 5,
        points: int = 8,
        alpha: float = -0.2,
        orders: int = 3,
        warm_start: Literal["model", "random"] = "model",
        sampler: Literal["model", "random"] | Sampler = "model",
        surrogate: Literal["model", "none"] | Surrogate = "model",
        **options: Any,
    ) -> None:
        super().__init__(parameters, *args, **options)
        for name, number in (("initial", initial), ("points", points), ("orders", orders)):
            if not isinstance(number, int) or number < 1:
                raise OptimizerError(f"{name} must be a whole number from 1, got {number!r}")
        if not -1 <= alpha <= 1:
            raise OptimizerError(f"alpha lies between -1 and 1, got {alpha!r}")
        for name, part, words in (
            ("warm_start", warm_start, ("model", "random")), ("sampler", sampler, ("model", "random")),
            ("surrogate", surrogate, ("model", "none")),
        ):  # fmt: skip
            if part not in words and not (callable(part) and name != "warm_start"):
                raise OptimizerError(
                    f"{name} is {' or '.join(map(repr, words))}"
                    f"{'' if name == 'warm_start' else ', or a function'}; got {part!r}"
                )
        self.initial, self.points, self.alpha, self.orders = initial, points, alpha, orders
        self.warm_start, self.sampler, self.surrogate = warm_start, sampler, surrogate

    def _options(self) -> dict[str, Any]:
        parts = {
            "warm_start": self.warm_start,
            "sampler": self.sampler,
            "surrogate": self.surrogate,
        }
        own = {
            "initial": self.initial, "points": self.points, "alpha": self.alpha, "orders": self.orders,
            **{name: p if isinstance(p, str) else "a function" for name, p in parts.items()},
        }  # fmt: skip
        return {**super()._options(), **own}

    def _refill(self, ranked: list[Trial]) -> None:
        random = Random(f"{self.seed}/{self._made}")
        if not ranked or self._made == 1:
            asked = self._sampled([], self.initial, None) if self.warm_start == "model" else []
            self._waiting += [self._admitted(v) for v in self._filled(asked, self.initial, random)]
            return
        points = self._filled(self._suggested(ranked, random), self.points, random)
        if points:
            self._waiting.append(self._admitted(self._chosen(ranked, points, random)))

    def _suggested(self, ranked: list[Trial], random: Random) -> list[dict[str, Any]]:
        if self.sampler == "random":
            return []
        if callable(self.sampler):
            return self._fitting(self.sampler(ranked, self.points))
        best, worst = ranked[0].score, ranked[-1].score
        alpha = self.alpha + random.uniform(-_JITTER, _JITTER)
        return self._sampled(ranked, self.points, best + alpha * (best - worst))

    def _sampled(
        self, ranked: Sequence[Trial], count: int, target: float | None
    ) -> list[dict[str, Any]]:
        """Points from the model; those that can be used."""
        wanted = f"{count} points" + ("" if target is None else f" with score {target:.6g}")
        messages = self._question(
            _SAMPLE,
            [
                ("Objective", self.objective),
                ("Space", self.space.describe()),
                ("History", self._lines(reversed(ranked))),
                ("Refused", "\n".join(self.refused)),
                ("Wanted", wanted),
            ],
        )
        self.refused = []
        point = {"type": "object"}
        schema = {
            "type": "object",
            "properties": {"points": {"type": "array", "items": point}},
            "required": ["points"],
        }
        found: list[Any] = []
        for answer in self._answers(messages, schema):
            given = answer.get("points")
            found += given if isinstance(given, list) else []
        return self._fitting(found)

    def _fitting(self, given: Sequence[Any]) -> list[dict[str, Any]]:
        fitting: list[dict[str, Any]] = []
        for point in given:
            values, reason = self.space.read(point)
            if values is None:
                self._refuse_values(reason)
            else:
                fitting.append(values)
        return fitting

    def _filled(
        self, given: list[dict[str, Any]], count: int, random: Random
    ) -> list[dict[str, Any]]:
        """The points that are new, once each; drawn ones in place of those that lack."""
        new: dict[str, dict[str, Any]] = {}
        for values in given:
            if len(new) < count and (key := identity(values)) not in self._trials:
                new[key] = values
        for _ in range(10 * count):
            if len(new) >= count:
                break
            drawn = self.space.drawn(random)
            if drawn is not None and (key := identity(drawn)) not in self._trials:
                new[key] = drawn
        return list(new.values())

    def _chosen(
        self, ranked: list[Trial], points: list[dict[str, Any]], random: Random
    ) -> dict[str, Any]:
        """The point with the largest expected improvement; of equals the one with the best mean."""
        if self.surrogate == "none" or len(points) == 1:
            return points[0]
        if callable(self.surrogate):
            predicted = list(self.surrogate(ranked, points))
            if len(predicted) != len(points) or not all(
                _finite(n) for pair in predicted for n in pair
            ):
                raise OptimizerError(
                    f"surrogate must give a finite mean and deviation for each of {len(points)} points, "
                    f"got {show(predicted, 120)}"
                )
        else:
            predicted = self._predicted(ranked, points, random)
        sign = -1 if self.minimize else 1
        best = sign * ranked[0].score
        gains = [
            (expected_improvement(sign * mean, spread, best), sign * mean)
            for mean, spread in predicted
        ]
        return points[gains.index(max(gains))] if gains else points[0]

    def _predicted(
        self, ranked: list[Trial], points: list[dict[str, Any]], random: Random
    ) -> list[tuple[float, float]]:
        """The mean and spread of the model's predictions; nothing where it gave none."""
        predictions: list[list[float]] = []
        for _ in range(self.orders):
            order = random.sample(ranked, len(ranked))
            messages = self._question(
                _PREDICT,
                [
                    ("Objective", self.objective),
                    ("Space", self.space.describe()),
                    ("History", self._lines(order)),
                    ("Points", "\n".join(map(self.space.row, points))),
                ],
            )
            number = {"type": "array", "items": {"type": "number"}}
            schema = {"type": "object", "properties": {"scores": number}, "required": ["scores"]}
            try:
                answers = list(self._answers(messages, schema))
            except (BudgetExceeded, ModelError):
                break  # the points are paid for: they are ranked by what is known
            for answer in answers:
                scores = answer.get("scores")
                if (
                    isinstance(scores, list)
                    and len(scores) == len(points)
                    and all(map(_finite, scores))
                ):
                    predictions.append([float(score) for score in scores])
                    break
            else:
                self._refuse_values(f"a prediction had no {len(points)} scores")
        return [(fmean(column), pstdev(column)) for column in zip(*predictions, strict=True)]

    def _lines(self, trials: Any) -> list[str]:
        return [f"score {t.score:.6g}: {self.space.row(t.candidate.values)}" for t in trials]


def expected_improvement(mean: float, spread: float, best: float) -> float:
    """How much a score with this normal distribution exceeds `best` on average.

    Source: Jones, Schonlau and Welch, "Efficient Global Optimization", 1998, equation 15.

    >>> expected_improvement(1.0, 0.0, 0.5), round(expected_improvement(0.0, 1.0, 0.0), 4)
    (0.5, 0.3989)
    """
    gain = mean - best
    if spread <= 0:
        return max(gain, 0.0)
    z = gain / spread
    return gain * _NORMAL.cdf(z) + spread * _NORMAL.pdf(z)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
