"""Laws of EvoLLM and LLAMBO that hold by construction, or in distribution, whatever the seeds.

Distributions are compared by the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant:
the largest distance between an empirical distribution of n values and the true one exceeds e with a
probability of at most 2 exp(-2 n e^2). Each bound here fails a right program once in a million.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from statistics import NormalDist
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

import tracegraph as tg
from optimizers import LLAMBO, EvoLLM
from tests.optimizers.llm.test_spaces import centre, reached, task
from tracegraph.errors import OptimizerError
from tracegraph.llm import Scripted

SEEDS = range(5_000, 5_030)
_ONE_IN = 1e-6


def bound(n: int) -> float:
    return math.sqrt(math.log(2 / _ONE_IN) / (2 * n))


def distance(values: Sequence[float], law: Callable[[float], float]) -> float:
    """The largest distance between the empirical distribution and a law."""
    ordered, n = sorted(values), len(values)
    return max(max(abs((i + 1) / n - law(v)), abs(i / n - law(v))) for i, v in enumerate(ordered))


def follows(values: Sequence[float], law: Callable[[float], float]) -> None:
    assert distance(values, law) <= bound(len(values))


def uniform(x: float) -> float:
    return min(max(x, 0.0), 1.0)


def space() -> dict[str, Any]:
    unit = Annotated[float, Field(ge=0, le=1)]
    return {
        "x": tg.node(0.5, trainable=True, name="x", constraint=unit),
        "c": tg.node("a", trainable=True, name="c", constraint=Literal["a", "b", "c", "d"]),
    }


def played(search: Any, runs: int, score: Callable[[Any], float]) -> list[dict[str, Any]]:
    """The values that were tried, without those at the start."""
    reached(search, score, runs)
    return [dict(trial.candidate.values) for trial in search.history][1:]


def test_what_evollm_draws_is_normal_around_the_mean_and_a_choice_is_another_as_often_as_sigma() -> (
    None
):
    sigma = 0.1  # so that the bounds, five of it away, cut off next to nothing
    tried: list[dict[str, Any]] = []
    later: list[dict[str, Any]] = []
    for seed in SEEDS:
        llm = Scripted(lambda request: "I cannot tell.")
        search = EvoLLM(space(), llm, population=40, sigma=sigma, seed=seed)
        both = played(search, 80, lambda v: 0.0)
        tried, later = tried + both, later + both[39:]
        first = Counter(v["c"] for v in both[:39])
        assert max(first.values()) - min(first.values()) <= 1  # each option has its turn
    follows([v["x"] for v in tried], NormalDist(0.5, sigma).cdf)
    away = sum(v["c"] != "a" for v in later) / len(later)
    assert abs(away - sigma * 3 / 4) <= bound(len(later))


def test_where_the_model_knows_the_best_evollm_closes_in_at_the_rate_of_its_decay() -> None:
    sigma, decay, place = 0.08, 0.7, 0.55
    reply = json.dumps({"mean": {"x": round(1_000 * place), "c": 0}})
    standard = []
    for seed in SEEDS:
        search = EvoLLM(
            space(),
            Scripted(lambda request: reply),
            population=8,
            sigma=sigma,
            decay=decay,
            seed=seed,
        )
        tried = played(search, 48, lambda v: -abs(v["x"] - place))
        for generation in range(1, 6):
            step = sigma * decay**generation
            brood = tried[8 * generation - 1 : 8 * generation + 7]
            standard += [(v["x"] - place) / step for v in brood]
    assert len(standard) == 30 * 40
    follows(standard, NormalDist().cdf)


def test_llambo_without_a_model_draws_evenly() -> None:
    tried: list[dict[str, Any]] = []
    for seed in SEEDS:
        search = LLAMBO(
            space(),
            Scripted([]),
            seed=seed,
            warm_start="random",
            sampler="random",
            surrogate="none",
        )
        tried += played(search, 60, lambda v: v["x"])
    follows([v["x"] for v in tried], uniform)
    for n, choice in enumerate("abcd", 1):
        assert abs(sum(v["c"] <= choice for v in tried) / len(tried) - n / 4) <= bound(len(tried))


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_a_surrogate_that_is_right_tries_the_best_of_the_points_that_were_drawn(
    spread: float,
) -> None:
    """The best of k even draws lies below t with a probability of t^k, in every step."""
    k = 5
    tried: list[float] = []
    for seed in SEEDS:
        search = LLAMBO(
            space(), Scripted([]), seed=seed, initial=1, points=k, warm_start="random", sampler="random",
            surrogate=lambda trials, points: [(p["x"], spread) for p in points],
        )  # fmt: skip
        tried += [v["x"] for v in played(search, 42, lambda v: v["x"])][1:]
    follows(tried, lambda t: uniform(t) ** k)


@pytest.mark.parametrize(
    "grown", [lambda s: 4 * s - 100, lambda s: -math.log1p(-s), lambda s: -((-s) ** 0.5)]
)
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_evollm_sees_the_order_of_scores_only_where_its_model_does(
    seed: int, grown: Callable[[float], float]
) -> None:
    def tried(change: Callable[[float], float], **options: Any) -> list[Any]:
        made, score = task(seed)
        search = EvoLLM(made, Scripted(centre), seed=seed, **options)
        reached(search, lambda values: change(score(values)), 50)
        return [trial.candidate.values for trial in search.history]

    assert tried(grown) == tried(lambda s: s)


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_llambo_is_the_same_search_in_another_unit(seed: int) -> None:
    """Scores times a power of two, and minimizing their negatives, change no decision."""

    def tried(factor: float, **options: Any) -> list[Any]:
        made, score = task(seed)

        def near(trials: Any, points: Any) -> list[tuple[float, float]]:
            random = Random(len(trials))
            return [
                (factor * (score(p) + random.gauss(0, 1)), abs(factor) * random.uniform(0.1, 2))
                for p in points
            ]

        search = LLAMBO(
            made,
            Scripted([]),
            seed=seed,
            warm_start="random",
            sampler="random",
            surrogate=near,
            **options,
        )
        reached(search, lambda values: factor * score(values), 30)
        return [trial.candidate.values for trial in search.history]

    assert tried(1.0) == tried(0.25) == tried(-1.0, minimize=True)


@pytest.mark.parametrize("said", [[], [(0.0, 1.0)] * 6, [(math.nan, 1.0)] * 5])
def test_a_surrogate_that_gives_no_prediction_for_each_point_is_named(said: Any) -> None:
    search = LLAMBO(
        space(), Scripted([]), initial=1, warm_start="random", sampler="random", points=5,
        surrogate=lambda trials, points: said,
    )  # fmt: skip
    with pytest.raises(OptimizerError, match="surrogate must give"):
        reached(search, lambda v: 0.0, 4)
