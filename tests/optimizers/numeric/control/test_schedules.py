"""Schedules: their exact laws, and torch's scheduler that carries them."""

from __future__ import annotations

import itertools
from statistics import median
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from optimizers.numeric.control.schedules import (
    REX,
    CosineDecay,
    LinearDecay,
    RefinedDecay,
    StepDecay,
    WarmupStableDecay,
)
from optimizers.numeric.sgd import SGD

DECAYS = [LinearDecay, CosineDecay, REX, WarmupStableDecay, StepDecay]


@pytest.mark.parametrize("decay", DECAYS)
@given(total=st.integers(1, 60), data=st.data())
def test_a_decay_climbs_then_never_rises(decay: Any, total: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    factors = [decay(total, warmup)(t) for t in range(total + 5)]
    assert factors[: warmup + 1] == pytest.approx(
        [(t + 1) / (warmup + 1) for t in range(warmup + 1)]
    )
    down = factors[warmup:]
    assert all(a >= b for a, b in itertools.pairwise(down))
    assert all(0 <= f <= 1 for f in factors)
    assert decay is StepDecay or factors[total] == pytest.approx(0.0, abs=1e-15)


def test_cosine_is_that_of_torch() -> None:
    optimizers = [SGD([torch.zeros(1, requires_grad=True)], lr=0.5) for _ in range(2)]
    ours = LambdaLR(optimizers[0], CosineDecay(20, floor=0.1))
    theirs = CosineAnnealingLR(optimizers[1], T_max=20, eta_min=0.05)
    for _ in range(20):
        for optimizer, schedule in zip(optimizers, (ours, theirs), strict=True):
            optimizer.step()
            schedule.step()
        a, b = (o.param_groups[0]["lr"] for o in optimizers)
        assert a == pytest.approx(b, abs=1e-12)


@given(st.integers(2, 80), st.floats(1e-6, 1e6), st.sampled_from([1.0, 2.0]))
def test_refined_for_constant_norms_is_linear(total: int, norm: float, power: float) -> None:
    refined = RefinedDecay.of_norms([norm] * total, power=power)
    linear = LinearDecay(total - 1)
    assert [refined(t) for t in range(total + 2)] == pytest.approx(
        [linear(t) for t in range(total + 2)], abs=1e-12
    )


@given(st.lists(st.floats(1e-2, 1e2), min_size=2, max_size=40), st.sampled_from([1.0, 2.0]))
def test_refined_is_its_formula(norms: list[float], power: float) -> None:
    width = int(0.1 * len(norms)) // 2
    smooth = []
    for t in range(len(norms)):
        window = [norms[min(max(s, 0), len(norms) - 1)] for s in range(t - width, t + width + 1)]
        smooth.append(median(window))
    raw = [n**-power * sum(m**-power for m in smooth[t + 1 :]) for t, n in enumerate(smooth)]
    expected = [r / max(raw) for r in raw]
    refined = RefinedDecay.of_norms(norms, power=power)
    assert list(refined.factors) == pytest.approx(expected, rel=1e-9)


def test_large_norms_at_first_ask_for_a_warm_up() -> None:
    norms = [10.0 / (1 + t) ** 1.5 + 1 for t in range(100)]
    factors = RefinedDecay.of_norms(norms).factors
    assert factors[0] < 0.2
    assert 0 < factors.index(1.0) < 30


def test_a_schedule_is_kept_in_the_state_of_torchs_scheduler() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    one = LambdaLR(optimizer, WarmupStableDecay(10, decay=0.5))
    for _ in range(8):
        optimizer.step()
        one.step()
    other = LambdaLR(SGD([torch.zeros(1, requires_grad=True)], lr=1.0), WarmupStableDecay(99))
    other.load_state_dict(one.state_dict())
    assert other.lr_lambdas[0](8) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearDecay(5, 5), "warmup=5 must be at least 0 and less than total=5"),
        (lambda: WarmupStableDecay(5, decay=0.0), r"decay=0.0 must be in \(0, 1\]"),
        (lambda: RefinedDecay.of_norms([1.0]), "two steps or more"),
        (lambda: RefinedDecay.of_norms([1.0, float("nan")]), "finite"),
        (lambda: RefinedDecay.of_norms([1.0, 0.0, 1.0]), "zero around step 1"),
    ],
)
def test_bad_schedules_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
