"""`EvoLLM` on functions of numbers beside searches without a model: ``python -m tests.benchmarks.numbers``.

Prints the table of `docs/explanation/worlds.md`: how much nearer to the best than another search by as many
evaluations (geometric mean over the seeds), and how likely that is by luck (a paired test). The model
takes the weighted mean of the better half of the points that it reads.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from random import Random
from typing import Annotated, Any

from pydantic import Field

import tracegraph as tg
from optimizers import EvoLLM, Evolve, RandomSearch
from optimizers.training.acceptance import p_value
from tests.optimizers.llm.test_spaces import centred, reached, read
from tracegraph.llm import Request, Scripted

SEEDS = range(11_000, 11_030)
FUNCTIONS = (("sphere", 2), ("sphere", 5), ("rosenbrock", 2), ("rastrigin", 2))
SIGMA = 0.2

Score = Callable[[Mapping[str, float]], float]
Search = Callable[[Any, int, Score, int], float]


def task(name: str, size: int, seed: int) -> tuple[dict[str, Any], Score]:
    """Numbers from -3 to 3, and a score with its best value 0 somewhere between -2 and 2."""
    random = Random(f"{name} {size} {seed}")
    best = [random.uniform(-2, 2) for _ in range(size)]
    unit = Annotated[float, Field(ge=-3, le=3)]
    made = {
        f"x{n}": tg.node(0.0, trainable=True, name=f"x{n}", constraint=unit) for n in range(size)
    }

    def score(values: Mapping[str, float]) -> float:
        away = [values[f"x{n}"] - best[n] for n in range(size)]
        if name == "sphere":
            return -sum(z * z for z in away)
        if name == "rosenbrock":
            near = [z + 1 for z in away]
            pairs = pairwise(near)
            return -sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairs)
        return -sum(10 + z * z - 10 * math.cos(2 * math.pi * z) for z in away)

    return made, score


def model(request: Request) -> str:
    rows = read(request)
    return json.dumps({"mean": centred(rows)}) if rows else "I have seen nothing."


def evollm(made: Any, seed: int, score: Score, runs: int) -> float:
    return reached(EvoLLM(made, Scripted(model), seed=seed), score, runs)


def chance(made: Any, seed: int, score: Score, runs: int) -> float:
    return reached(RandomSearch(made, seed=seed), score, runs)


def evolve(made: Any, seed: int, score: Score, runs: int) -> float:
    return reached(Evolve(made, seed=seed), score, runs)


def climbing(made: Any, seed: int, score: Score, runs: int) -> float:
    """Steps of one size from the best so far."""
    random, step = Random(f"hill {seed}"), SIGMA * 6
    best = {name: float(parameter.data) for name, parameter in made.items()}
    reach = score(best)
    for _ in range(runs - 1):
        tried = {n: min(max(v + step * random.gauss(0, 1), -3.0), 3.0) for n, v in best.items()}
        if (found := score(tried)) > reach:
            best, reach = tried, found
    return reach


def gains(name: str, size: int, other: Search, runs: int) -> list[float]:
    """By how much nearer the best `EvoLLM` came than another search, as logarithms, seed by seed."""
    found = []
    for seed in SEEDS:
        regrets = []
        for search in (other, evollm):
            made, score = task(name, size, seed)
            regrets.append(max(-search(made, seed, score, runs), 1e-300))
        found.append(math.log(regrets[0]) - math.log(regrets[1]))
    return found


def main() -> None:
    for name, size in FUNCTIONS:
        cells = [f"{name}, {size} numbers"]
        for runs in (30, 60):
            for other in (chance, climbing, evolve):
                found = gains(name, size, other, runs)
                mean, p = math.exp(math.fsum(found) / len(found)), p_value(found)
                cells.append(f"{mean:.1f}, p {'< .001' if p < 0.001 else f'= {p:.3f}'}")
        sys.stdout.write(f"| {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
