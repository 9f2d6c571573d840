from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizers.training.acceptance import Paired, p_value
from tracegraph.errors import OptimizerError

scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=8)


@given(scores)
def test_the_p_value_is_the_share_of_sign_patterns_with_as_large_a_sum(values: list[float]) -> None:
    patterns = list(itertools.product([1, -1], repeat=len(values)))
    sums = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in patterns]
    assert p_value(values) == pytest.approx(sum(s >= sum(values) for s in sums) / len(patterns))


def test_many_pairs_are_judged_like_few() -> None:
    random = Random(3)
    for shift in (0.0, 0.2, 0.5):
        values = [random.gauss(shift, 1) for _ in range(40)]
        draws = [sum(v * random.choice((1, -1)) for v in values) for _ in range(20_000)]
        share = sum(draw >= sum(values) for draw in draws) / len(draws)
        assert p_value(values) == pytest.approx(share, abs=0.02)


@given(scores)
def test_what_changes_nothing_is_never_accepted(values: list[float]) -> None:
    assert Paired(alpha=1.0).decide(values, values) == "undecided"


@given(scores, st.data())
def test_what_is_worse_is_never_accepted(values: list[float], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(values) - 1))
    worse = [v - (i == at) for i, v in enumerate(values)]
    assert Paired(alpha=1.0).decide(values, worse) == "reject"
    assert Paired(alpha=1.0).decide(worse, values) == "accept"  # the right way round


@pytest.mark.parametrize("alpha", [0.05, 0.25])
def test_luck_is_accepted_as_rarely_as_promised(alpha: float) -> None:
    random, accepted, rounds = Random(1), 0, 600
    for _ in range(rounds):
        before, after = ([random.gauss(0, 1) for _ in range(10)] for _ in "ab")
        accepted += Paired(alpha).decide(before, after) == "accept"
    assert accepted / rounds < alpha * 1.3


def test_alpha_is_a_share() -> None:
    for alpha in (0.0, -1.0, 1.5):
        with pytest.raises(OptimizerError, match="alpha"):
            Paired(alpha)
