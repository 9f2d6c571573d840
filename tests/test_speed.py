"""Code is taken for its speed only when it is faster, and seldom when it is not."""

from random import Random

import pytest

from tracegraph import Rejected, bundle
from tracegraph.codechecks import MaxSize
from tracegraph.source import BadSource
from tracegraph.speed import Faster, IsFaster


class Machine:
    """A clock that code moves, with the noise of a busy machine: tails, drift and stalls."""

    def __init__(self, seed, factors):
        self.random, self.factors, self.now = Random(seed), factors, 0.0
        self.drift = 1.0

    def made(self, text):
        def run():
            random = self.random
            self.drift *= 1 + 0.02 * random.gauss(0, 1)
            stall = 5 * (random.random() < 0.05)
            self.now += self.factors[text] * self.drift * (1 + random.lognormvariate(-2, 1)) + stall

        return run

    def clock(self):
        return self.now


def check(seed, factor, **options):
    machine = Machine(seed, {"old": 1.0, "new": factor})
    asked = IsFaster(Faster((1,), **options), machine.made, "old", machine.clock)
    try:
        return asked("new")
    except BadSource:
        return False


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_the_false_acceptance_rate_holds_on_a_noisy_machine(rate):
    trials = 3_000
    accepted = sum(check(seed, 1.0, rate=rate) for seed in range(trials))
    assert accepted / trials <= rate + 3 * (rate * (1 - rate) / trials) ** 0.5
    assert accepted  # it is not merely deaf


def test_too_small_a_gain_is_no_gain():
    trials = 1_000
    accepted = sum(check(seed, 0.9, by=0.1) for seed in range(trials))
    assert accepted / trials <= 0.01 + 3 * (0.01 * 0.99 / trials) ** 0.5


def test_what_is_faster_is_taken_and_what_is_slower_is_not():
    assert sum(check(seed, 0.5) for seed in range(200)) > 190
    assert not any(check(seed, 1.3) for seed in range(300))


def test_a_verdict_is_kept_and_old_texts_return():
    machine = Machine(0, {"old": 1.0, "new": 1.0, "fast": 0.1})
    asked = IsFaster(Faster((1,)), machine.made, "old", machine.clock)
    assert asked("old")
    for _ in range(300):  # asking again is no new chance
        with pytest.raises(BadSource, match=r"won \d+ of 30 pairs"):
            asked("new")
    assert asked("fast")
    asked.first = "fast"
    assert asked("fast")
    assert asked("old")


def total():
    def adds_up(total):
        assert total(10) == 45

    @bundle(trainable=True, checks=[MaxSize(lines=20), adds_up, Faster((1_000_000,), pairs=12)])
    def total(n):
        result = 0
        for i in range(n):
            result += i
        return result

    return total


FAST = "def total(n):\n    return n * (n - 1) // 2\n"


def test_faster_code_that_passes_is_taken():
    f = total()
    f.parameter.assign(FAST, origin="optimizer")
    assert f(300).data == sum(range(300))
    slow = f.parameter.initial.replace("result = 0", "result = 0  # again")
    with pytest.raises(Rejected, match=r"is not faster than the present code: it won \d+ of 12"):
        f.parameter.assign(slow, origin="optimizer")
    f.parameter.assign(f.parameter.initial)  # it was in force before


def test_fast_and_wrong_is_refused_by_the_test():
    f = total()
    with pytest.raises(Rejected, match="adds_up"):
        f.parameter.assign("def total(n):\n    return 0\n", origin="optimizer")


def test_code_that_fails_on_a_call_is_refused_with_its_line():
    f = total()
    text = FAST.replace("    return", "    if n > 100:\n        n // 0\n    return")
    with pytest.raises(Rejected, match=r"(?s)fails on a call.*n // 0  <--- \(ZeroDivisionError\)"):
        f.parameter.assign(text, origin="optimizer")


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Faster(), "calls as tuples"),
        (lambda: Faster(3), "calls as tuples"),
        (lambda: Faster((1,), pairs=4), "can never tell"),
        (lambda: Faster((1,), by=1), "share"),
    ],
)
def test_options_that_cannot_be(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_where_it_cannot_stand():
    def fine(f):
        return True

    with pytest.raises(TypeError, match="needs a test beside it"):

        @bundle(trainable=True, checks=[Faster((1,))])
        def f(x):
            return x

    with pytest.raises(TypeError, match="plain functions"):

        @bundle(trainable=True, checks=[fine, Faster((1,))])
        async def g(x):
            return x

    with pytest.raises(TypeError, match="plain functions"):

        @bundle(trainable=True, checks=[fine, Faster((1,))])
        class H:
            def f(self):
                return 1
