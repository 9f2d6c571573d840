"""bfloat16 parameters that lose no step: rounded at random, or with the rest kept beside them."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimizers.numeric.adam import AdamW
from optimizers.numeric.bases.muon import Muon
from optimizers.numeric.bases.soap import SOAP
from optimizers.numeric.codecs.rounding import REST, ROUNDINGS
from optimizers.numeric.estimators.directions import direction_like
from optimizers.numeric.estimators.mezo import MeZO
from optimizers.numeric.lion import Lion
from optimizers.numeric.projection import SGDP, AdamP
from optimizers.numeric.schedule_free import ScheduleFreeAdamW
from optimizers.numeric.sgd import SGD

ULP = 2.0**-7  # of bfloat16, from 1 to 2
BITS = {"24bit": 16, "32bit": 24}
"""The leading bits that parameter and rest keep together (one is not stored)."""


def stored(value: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    way = ROUNDINGS[name]
    p = torch.empty(value.shape, dtype=torch.bfloat16)
    rest = torch.empty(value.shape, dtype=way.rest)
    way.write(value, p, rest, seed=0)
    return p, way.widened(p, rest)


@pytest.mark.parametrize("name", BITS)
@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_parameter_and_rest_are_the_number_and_the_parameter_is_it_rounded(
    name: str, xs: list[float]
) -> None:
    value = torch.tensor(xs)
    p, wide = stored(value, name)
    assert torch.equal(wide.isnan(), value.isnan())
    assert torch.equal(p.isnan(), value.isnan())
    known = value.nan_to_num(0.0)
    p, wide = stored(known, name)
    if name == "32bit":
        assert torch.equal(wide, known)
    # above the largest of fewer bits there is infinity, as in any rounding
    fits = known.abs() < 3.38e38
    size, below = known[fits].double().abs(), 2.0**-126  # where floats have fewer bits
    error = (wide.double() - known.double()).abs()[fits]
    assert bool((error <= (size + below) * 2.0 ** -BITS[name]).all())
    # to nearest: half a unit, and the double rounding of a tie
    gap = (p.double() - known.double()).abs()[fits]
    assert bool((gap <= (size + below) * (2.0**-8 + 2.0**-16)).all())


def walk(rounding: str, steps: int, *, count: int = 4096, make: Any = SGD) -> torch.Tensor:
    """How far, in units of the last place, steps of a tenth of one lead from 1.2."""
    p = torch.full((count,), 1.203125, dtype=torch.bfloat16, requires_grad=True)
    start = p.detach().double().clone()
    optimizer = make([p], lr=ULP / 10, rounding=rounding)
    for _ in range(steps):
        p.grad = torch.ones_like(p)
        optimizer.step()
    return (start - p.detach().double()) / ULP


def test_a_step_finer_than_half_a_unit_is_lost_to_nearest_and_not_on_average() -> None:
    assert torch.equal(walk("nearest", 20), torch.zeros(4096, dtype=torch.float64))
    for make in (SGD, partial(SGDP, momentum=0.0)):  # by the rule, and around it
        moved = walk("stochastic", 20, make=make)
        # 20 steps of .1: the mean is 2, the variance of each 20 * .1 * .9 where steps are drawn apart
        assert abs(moved.mean().item() - 2.0) < 5 * (20 * 0.09 / 4096) ** 0.5
        assert 0.5 < moved.std() < 2.0
    assert torch.equal(walk("24bit", 20), torch.full((4096,), 2.0, dtype=torch.float64))
    assert torch.equal(walk("32bit", 20), torch.full((4096,), 2.0, dtype=torch.float64))


def test_roundings_of_steps_tensors_and_states_are_drawn_apart() -> None:
    """Each tensor and step has draws of its own, the same in every run."""

    def run() -> list[torch.Tensor]:
        ps = [torch.full((512,), 1.2).bfloat16().requires_grad_() for _ in range(2)]
        optimizer = AdamW(ps, lr=ULP / 3, rounding="stochastic", state="bf16-stochastic")
        seen = []
        for _ in range(2):
            before = [p.detach().clone() for p in ps]
            for p in ps:
                p.grad = torch.ones_like(p)
            optimizer.step()
            seen += [p.detach() != b for p, b in zip(ps, before, strict=True)]
        return seen

    draws = run()
    for i, a in enumerate(draws):
        for b in draws[:i]:
            agree = (a == b).double().mean()
            assert 0.4 < agree < 0.75  # of independent draws of a third, 5/9
    assert all(torch.equal(a, b) for a, b in zip(draws, run(), strict=True))


@pytest.mark.parametrize("backend", ["eager", "native", "foreach"])
@pytest.mark.parametrize("capturable", [False, True])
def test_momentum_at_random_is_drawn_anew_in_each_step(backend: str, capturable: bool) -> None:
    """An average that nears 1 by less than its last place; the same draws twice would hold it up."""
    p = torch.zeros(4096, requires_grad=True)
    options: dict[str, Any] = {"backend": backend, "capturable": capturable}
    optimizer = SGD([p], lr=0.0, momentum=0.99, dampening=0.99, state="bf16-stochastic", **options)
    p.grad = torch.full_like(p, 0.5)
    optimizer.step()
    p.grad = torch.ones_like(p)
    for _ in range(100):
        optimizer.step()
    held = optimizer.state[p]["momentum_buffer"].double()
    gold = 1 - 0.5 * 0.99**100
    # each step rounds by at most 2^-8, a uniform share of it at most: the variances add up
    assert abs(held.mean().item() - gold) < 5 * (100 / 4 / 4096) ** 0.5 * 2.0**-8
    assert held.std().item() < (100 / 4) ** 0.5 * 2.0**-8


FAMILY: dict[str, Any] = {
    "AdamW": lambda p, **o: AdamW(p, lr=1e-3, weight_decay=0.1, **o),
    "AdamW-eager": lambda p, **o: AdamW(p, lr=1e-3, weight_decay=0.1, backend="eager", **o),
    "AdamW-native": lambda p, **o: AdamW(p, lr=1e-3, weight_decay=0.1, backend="native", **o),
    "AdamW-8bit": lambda p, **o: AdamW(p, lr=1e-3, state="8bit", **o),
    "AdamP": lambda p, **o: AdamP(p, lr=1e-3, weight_decay=0.1, **o),
    "Lion": lambda p, **o: Lion(p, lr=1e-4, **o),
    "SGD": lambda p, **o: SGD(p, lr=1e-3, **o),
    "ScheduleFreeAdamW": lambda p, **o: ScheduleFreeAdamW(p, lr=1e-3, weight_decay=0.1, **o),
    "Muon": lambda p, **o: Muon(p, lr=1e-3, **o),
    "SOAP": lambda p, **o: SOAP(p, lr=1e-3, **o),
}


def gradients(t: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(t)
    return (torch.randn(65, 64, generator=generator) + 0.3).bfloat16()


def trajectory(make: Any, dtype: torch.dtype, steps: int, **options: Any) -> torch.Tensor:
    start = torch.randn(65, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    p = start.clone().to(dtype).requires_grad_()
    optimizer = make([p], **options)
    for t in range(steps):
        p.grad = gradients(t).to(dtype)
        optimizer.step()
    if options.get("rounding") in BITS:
        way = ROUNDINGS[options["rounding"]]
        return way.widened(p.detach(), optimizer.state[p][REST]) - start
    return p.detach().float() - start


@pytest.mark.parametrize("name", FAMILY)
def test_the_path_is_that_of_float32_parameters(name: str) -> None:
    """To the last bit with 16 more bits; with 8 each step adds at most half a unit of 2^-16."""
    exact = trajectory(FAMILY[name], torch.float32, 12)
    assert torch.equal(trajectory(FAMILY[name], torch.bfloat16, 12, rounding="32bit"), exact)
    close = trajectory(FAMILY[name], torch.bfloat16, 12, rounding="24bit")
    assert (close - exact).abs().max() <= 12 * 2.0**-16 * 4  # parameters are smaller than 4
    lost = trajectory(FAMILY[name], torch.bfloat16, 12)
    assert (close - exact).norm() < 0.1 * (lost - exact).norm()


@pytest.mark.parametrize("rounding", ["stochastic", "24bit", "32bit"])
@pytest.mark.parametrize("name", ["AdamW", "SGD", "ScheduleFreeAdamW", "Muon", "SOAP"])
def test_a_restored_optimizer_continues_bit_by_bit(name: str, rounding: str) -> None:
    p = torch.randn(9, 8, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    one = FAMILY[name]([p], rounding=rounding)

    def step(optimizer: Any, q: torch.Tensor, t: int) -> None:
        q.grad = gradients(t)[:9, :8]
        optimizer.step()

    for t in range(4):
        step(one, p, t)
    q = p.detach().clone().requires_grad_()
    two = FAMILY[name]([q], rounding=rounding)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for t in range(4, 8):
        step(one, p, t)
        step(two, q, t)
    assert torch.equal(p, q)
    if rounding != "stochastic":
        assert torch.equal(one.state[p][REST], two.state[q][REST])


def test_the_average_of_a_schedule_free_optimizer_is_that_of_float32_parameters() -> None:
    """There and back the lerp rounds in float32, not in bfloat16."""
    seen = {}
    for dtype, rounding in ((torch.float32, "nearest"), (torch.bfloat16, "32bit")):
        p = torch.linspace(-2, 2, 64).bfloat16().to(dtype).requires_grad_()
        optimizer = ScheduleFreeAdamW([p], lr=1e-3, rounding=rounding)

        def exact(p: torch.Tensor = p, optimizer: Any = optimizer) -> torch.Tensor:
            rest = optimizer.state[p].get(REST)
            return p.detach() if rest is None else ROUNDINGS["32bit"].widened(p.detach(), rest)

        for t in range(5):
            p.grad = gradients(t)[0].to(dtype)
            optimizer.step()
        gradient_point = exact().clone()
        optimizer.eval()
        average = exact().clone()
        optimizer.train()
        assert torch.allclose(exact(), gradient_point, rtol=1e-6, atol=1e-7)
        seen[dtype] = (gradient_point, average)
    for a, b in zip(*seen.values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "24bit", "32bit"])
def test_steps_of_mezo_that_bfloat16_would_lose_are_kept(rounding: str) -> None:
    """Losses with a slope of one along every direction: the path is the sum of the directions."""
    p = torch.full((2048,), 1.203125, dtype=torch.bfloat16, requires_grad=True)
    start, rate = p.detach().float(), ULP / 20
    optimizer = MeZO([p], lr=rate, eps=0.5, rounding=rounding)
    for _ in range(16):
        losses = iter([1.0, 0.0])
        optimizer.step(lambda losses=losses: next(losses))  # type: ignore[misc]
    path = sum(direction_like(p, 0, t, 0, 0) for t in range(16)) * -rate
    rest = optimizer.state[p].get(REST) if rounding in BITS else None
    value = p.detach().float() if rest is None else ROUNDINGS[rounding].widened(p.detach(), rest)
    moved = value - start
    if rounding == "nearest":
        assert not moved.any()
    elif rounding == "stochastic":
        share = (moved * path).sum() / path.square().sum()  # 1 on average
        assert abs(share - 1) < 0.2
    else:
        assert (moved - path).abs().max() <= 16 * 2.0 ** -BITS[rounding]


def test_a_state_of_another_rounding_is_taken_over() -> None:
    p = torch.full((64,), 1.203125, dtype=torch.bfloat16, requires_grad=True)
    one = SGD([p], lr=ULP / 10, rounding="32bit")
    for _ in range(3):
        p.grad = torch.ones_like(p)
        one.step()
    wide = ROUNDINGS["32bit"].widened(p.detach(), one.state[p][REST])
    for rounding, far in (("24bit", 2.0**-16), ("32bit", 0.0), ("nearest", ULP)):
        q = p.detach().clone().requires_grad_()
        two = SGD([q], rounding=rounding)
        two.load_state_dict(copy.deepcopy(one.state_dict()))
        rest = two.state[q].get(REST)
        held = q.detach().float() if rest is None else ROUNDINGS[rounding].widened(q.detach(), rest)
        assert (held - wide).abs().max() <= far
    fresh = SGD([p.detach().clone().requires_grad_()], rounding="24bit")
    fresh.load_state_dict(SGD([p], lr=0.1).state_dict())


def test_what_cannot_be_is_refused_and_others_stay_as_they_are() -> None:
    p = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="rounding='16bit' is unknown; use one of"):
        AdamW([p], rounding="16bit")
    half = torch.ones(2, dtype=torch.float16, requires_grad=True)
    with pytest.raises(ValueError, match=r"shape \(2,\) is float16; use bfloat16"):
        AdamW([half], rounding="24bit")
    optimizer = AdamW([p], rounding="24bit")
    with pytest.raises(ValueError, match="is float16"):
        optimizer.add_param_group({"params": [half]})
    assert len(optimizer.param_groups) == 1
    with pytest.raises(ValueError, match="keep=False puts parameters back by arithmetic"):
        MeZO([p], keep=False, rounding="24bit")
    twin = p.detach().clone().requires_grad_()
    for q, other in ((p, optimizer), (twin, AdamW([twin]))):
        q.grad = torch.ones(2)
        other.step()
    assert torch.equal(p, twin)
    assert REST not in optimizer.state[p]
