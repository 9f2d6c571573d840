from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizers.training.racing import Racing
from tracegraph.errors import OptimizerError


def race(racing: Racing, means: list[float], size: int, random: Random) -> tuple[set[str], int]:
    """Who is left of candidates that are right with these probabilities, and how many runs it took.

    Every example has a difficulty that all candidates share, as in real data.
    """
    alive = {str(at): [] for at in range(len(means))}  # type: dict[str, list[float]]
    looks, runs = size // racing.block, 0
    for look in range(1, looks + 1):
        for _ in range(racing.block):
            luck = random.gauss(0, 0.5)
            for name in alive:
                noise = luck + random.gauss(0, 0.5)
                alive[name].append(float(means[int(name)] + noise > 0))
                runs += 1
        if look < looks:
            for name in racing.dropped(alive, looks=looks):
                del alive[name]
    return set(alive), runs


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_best_is_dropped_as_rarely_as_promised(alpha: float) -> None:
    """Where all are equally good, the hardest case, anyone may be called the best."""
    random, racing = Random(1), Racing(alpha, block=10)
    lost = sum("0" not in race(racing, [0.0] * 5, 60, random)[0] for _ in range(120))
    assert lost / 120 <= alpha


def test_hopeless_candidates_are_dropped_and_runs_saved() -> None:
    random, racing = Random(2), Racing(0.2, block=10)
    kept, runs = 0, 0
    for _ in range(40):
        alive, spent = race(racing, [1.0, -1.0, -1.0, -1.5, -1.5], 80, random)
        kept += "0" in alive
        runs += spent
    assert kept == 40
    assert runs < 0.6 * 40 * 5 * 80


@given(st.integers(2, 5), st.integers(1, 12), st.integers(1, 6))
def test_equals_are_never_dropped(size: int, seen: int, looks: int) -> None:
    scores = {str(n): [0.5] * seen for n in range(size)}
    assert Racing().dropped(scores, looks=looks) == []


@given(st.lists(st.lists(st.integers(0, 1), min_size=12, max_size=12), min_size=2, max_size=5))
def test_the_one_with_the_largest_sum_always_stays(rows: list[list[int]]) -> None:
    scores = {str(at): [float(x) for x in row] for at, row in enumerate(rows)}
    most = max(map(sum, rows))
    gone = Racing(0.9).dropped(scores, looks=1)
    assert all(sum(rows[int(name)]) < most for name in gone)


@pytest.mark.parametrize(("alpha", "block"), [(0.0, 10), (1.0, 10), (0.2, 0), (0.2, 1.5)])
def test_wrong_options_are_refused(alpha: float, block: int) -> None:
    with pytest.raises(OptimizerError):
        Racing(alpha, block)
