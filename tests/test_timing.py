"""Faster is said when it is so, and seldom when it is not."""

from itertools import product
from random import Random

import pytest

from tracegraph.timing import is_faster, needed_wins, paired_times


def noisy(random, count, scale=1.0):
    """Times with a heavy tail, a drift, and stalls, as on a busy machine."""
    return [
        scale * (1 + 0.2 * random.lognormvariate(0, 1) + 0.01 * i + 5 * (random.random() < 0.05))
        for i in range(count)
    ]


@pytest.mark.parametrize("rate", [0.05, 0.01])
def test_the_false_accept_rate_is_at_most_what_was_asked(rate):
    random, trials = Random(0), 4_000
    accepted = sum(
        is_faster(noisy(random, 30), noisy(random, 30), rate=rate) for _ in range(trials)
    )
    assert accepted / trials <= rate + 3 * (rate * (1 - rate) / trials) ** 0.5
    assert accepted > 0  # the test is not merely deaf


def test_the_rate_is_exact_for_every_outcome_of_few_pairs():
    for pairs, rate in product(range(1, 11), (0.01, 0.05, 0.2)):
        need = needed_wins(pairs, rate)
        outcomes = [sum(o) for o in product((0, 1), repeat=pairs)]
        chance = sum(wins >= need for wins in outcomes) / 2**pairs
        assert chance <= rate
        assert sum(wins >= need - 1 for wins in outcomes) / 2**pairs > rate


def test_what_is_clearly_faster_is_found():
    random = Random(1)
    found = [is_faster(noisy(random, 30), noisy(random, 30, 0.6)) for _ in range(200)]
    assert sum(found) > 190


def test_a_slower_one_is_hardly_ever_taken():
    random = Random(2)
    assert not any(is_faster(noisy(random, 30), noisy(random, 30, 1.2)) for _ in range(500))


def test_equal_times_are_no_win():
    assert not is_faster([1.0] * 30, [1.0] * 30)
    assert not is_faster([1.0] * 5, [0.1] * 5, rate=0.01)  # too few to tell


def test_both_are_run_in_turns():
    ran = []
    ticks = iter(range(1_000))
    old, new = paired_times(
        lambda: ran.append("old"), lambda: ran.append("new"), pairs=2, clock=lambda: next(ticks)
    )
    assert ran == ["old", "new", "old", "new", "new", "old"]
    assert (old, new) == ([1, 1], [1, 1])


@pytest.mark.parametrize(
    "options", [{"rate": 0}, {"rate": 1}, {"by": -1}, {"by": 1}, {"before": []}, {"after": [1.0]}]
)
def test_what_cannot_be_tested_is_refused(options):
    times = {"before": [1.0, 2.0], "after": [1.0, 2.0], **options}
    with pytest.raises(ValueError, match="got"):
        is_faster(times.pop("before"), times.pop("after"), **times)
