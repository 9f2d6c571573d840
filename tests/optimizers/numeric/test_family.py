"""What every optimizer of the family must do."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from optimizers.numeric.executors.choice import BACKENDS
from optimizers.numeric.rules.rule import define
from tests.optimizers.numeric.family import FAMILY, Row, named
from tracegraph.errors import NonFinite

RULES = [row for row in FAMILY if row.pure]
KNOWN = [row for row in FAMILY if row.torch is not None]
PUBLISHED = [row for row in FAMILY if row.formula is not None]
STEPS = 50

# Relative to 1 + |p|. float64 and float32 after 50 steps, each of which rounds by 1e-16 or 6e-8 in
# several operations. bfloat16 keeps 8 bits: half a unit in its last place at every step.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2.0**-8}


def gradients(shape: tuple[int, ...], steps: int, *, seed: int = 1) -> list[np.ndarray[Any, Any]]:
    """Gradients with zeros, values near eps, and a spike at step 7."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.choice([-8.0, -3.0, 0.0, 1.0], size=shape)
    zero = rng.random(shape) < 0.1
    gs = [np.where(zero, 0.0, scale * rng.normal(size=shape)) for _ in range(steps)]
    if steps > 7:
        gs[6] = gs[6] * 1e3
    return [g.astype(np.float32).astype(np.float64) for g in gs]


def run(optimizer: torch.optim.Optimizer, p: Tensor, gs: list[np.ndarray[Any, Any]]) -> None:
    for g in gs:
        p.grad = torch.tensor(g).to(p.dtype)
        optimizer.step()


def apart(a: Tensor, b: np.ndarray[Any, Any]) -> float:
    """The largest difference relative to 1 + |b|."""
    return float((np.abs(a.detach().double().numpy() - b) / (1 + np.abs(b))).max(initial=0.0))


def far(a: Tensor, b: np.ndarray[Any, Any], tolerance: float) -> np.ndarray[Any, Any]:
    """Where the two differ by more than `tolerance` relative to 1 + |b|."""
    return np.abs(a.detach().double().numpy() - b) > tolerance * (1 + np.abs(b))


def start(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("backend", ["eager", "foreach", "native"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("row", RULES, ids=str)
def test_every_execution_agrees_with_the_definition(
    row: Row, dtype: torch.dtype, backend: str
) -> None:
    p = torch.tensor(start((33, 5))).to(dtype).requires_grad_()
    optimizer = row([p], weight_decay=0.1, backend=backend)
    hyper = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    rule = optimizer.rule(hyper)
    gold, state = p.detach().double().numpy().copy(), None
    for t, g in enumerate(gradients((33, 5), STEPS), 1):
        if dtype == torch.bfloat16:  # its roundings add up: one step at a time
            gold = p.detach().double().numpy().copy()
        p.grad = torch.tensor(g).to(dtype)
        optimizer.step()
        rounded = p.grad.double().numpy()
        gold, state = define(rule, gold, [rounded], hyper, states=state, first_step=t)
        off = far(p, gold, TOLERANCE[dtype])
        # a rounding can flip a sign of Lion's: those are few, all else agrees
        assert off.mean() <= (0.02 if row.name == "Lion" else 0.0), t
    assert optimizer.ran == (backend,)


@pytest.mark.parametrize("row", KNOWN, ids=str)
def test_equals_the_optimizer_of_torch(row: Row) -> None:
    assert row.torch is not None
    p0, gs = start((33, 5)), gradients((33, 5), STEPS)
    ours, theirs = (torch.tensor(p0, requires_grad=True) for _ in range(2))
    options = {"lr": row.rate, "weight_decay": 0.1}
    extra = {k: v for k, v in row.options.items() if k != "decoupled_weight_decay"}
    run(row([ours], weight_decay=0.1), ours, gs)
    run(row.torch([theirs], **options, **extra), theirs, gs)
    # torch keeps Nadam's product of momenta in float32
    limit = 1e-8 if row.name in ("NadamW", "NAdam") else 1e-12
    assert apart(ours, theirs.detach().numpy()) < limit


@pytest.mark.parametrize("shape", [(33,), (6, 4), (4, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("row", PUBLISHED, ids=str)
def test_equals_the_published_formula(row: Row, shape: tuple[int, ...]) -> None:
    assert row.formula is not None
    p0, gs = start(shape), gradients(shape, STEPS)
    p = torch.tensor(p0, requires_grad=True)
    run(row([p], weight_decay=0.1), p, gs)
    assert apart(p, row.formula(p0, gs, row.rate, 0.1)) < 1e-11


@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_finds_the_minimum_of_a_parabola(row: Row) -> None:
    target = torch.tensor([0.3, -0.2, 0.1])
    p = torch.tensor([1.0, -1.0, 0.5], requires_grad=True)
    optimizer = row([p])
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=row.steps)
    for _ in range(row.steps):
        optimizer.zero_grad()
        (p - target).square().sum().backward()
        optimizer.step()
        schedule.step()
    assert (p - target).abs().max() < 1e-2


@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_goes_along_the_valley_of_rosenbrock(row: Row) -> None:
    """From 24.2 the valley is reached at 4.2; the minimum is 0 at (1, 1)."""
    p = torch.tensor([-1.2, 1.0], requires_grad=True)
    optimizer = row([p], lr=row.valley)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=300)

    def rosenbrock() -> Tensor:
        return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2

    for _ in range(300):
        optimizer.zero_grad()
        rosenbrock().backward()
        optimizer.step()
        schedule.step()
    # SPAM forgets its moments every ten steps here
    assert rosenbrock() < (3.0 if row.name == "SPAM" else 1.0)


@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_a_restored_optimizer_continues_bit_by_bit(row: Row) -> None:
    gs = gradients((9, 4), 14)
    p = torch.tensor(start((9, 4)), dtype=torch.float32, requires_grad=True)
    optimizer = row([p], weight_decay=0.1)
    run(optimizer, p, gs[:7])
    q = p.detach().clone().requires_grad_()
    other = row([q], weight_decay=0.1)
    saved = copy.deepcopy(optimizer.state_dict())
    other.load_state_dict(saved)
    third, (r,) = copy.deepcopy((optimizer, [p]))
    run(optimizer, p, gs[7:])
    run(other, q, gs[7:])
    run(third, r, gs[7:])
    assert torch.equal(p, q)
    assert torch.equal(p, r)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_odd_tensors_are_updated_and_keep_their_kind(row: Row, dtype: torch.dtype) -> None:
    base = torch.ones(6, 8, dtype=dtype)
    tensors = [
        torch.ones((), dtype=dtype),
        torch.ones(0, 3, dtype=dtype),
        torch.ones(1, dtype=dtype),
        base[:, ::2],
        torch.ones(4, 5, dtype=dtype).t(),
        torch.ones(2, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last),
        torch.ones(3, dtype=dtype),
    ]
    params = [x.requires_grad_() for x in tensors]
    optimizer = row(params, lr=0.1, weight_decay=0.1)
    for t in range(6):
        for i, p in enumerate(params):
            p.grad = None if i == 6 or t == 3 else torch.full_like(p, 0.5)
        optimizer.step()
    for p in params[:-1]:
        assert p.dtype == dtype
        assert bool(p.isfinite().all())
        assert bool((p < 1).all())
    assert torch.equal(params[-1], torch.ones(3, dtype=dtype))
    assert params[-1] not in optimizer.state
    assert bool((base[:, 1::2] == 1).all())


@pytest.mark.parametrize("backend", ["eager", "foreach", "native"])
@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_layout_in_memory_does_not_matter(row: Row, backend: str) -> None:
    gs = gradients((6, 5), 6)
    plain = torch.tensor(start((6, 5)), requires_grad=True)
    turned = torch.tensor(start((6, 5)).T.copy()).t().requires_grad_()
    for p in (plain, turned):
        run(row([p], weight_decay=0.1, backend=backend), p, gs)
    assert torch.allclose(plain, turned, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_maximize_climbs_as_minimize_descends(row: Row) -> None:
    gs = gradients((5, 4), 8)
    down = torch.tensor(start((5, 4)), requires_grad=True)
    up = down.detach().clone().requires_grad_()
    run(row([down], weight_decay=0.1), down, [-g for g in gs])
    run(row([up], weight_decay=0.1, maximize=True), up, gs)
    assert torch.allclose(down, up, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", RULES, ids=str)
def test_a_complex_tensor_is_its_real_view(row: Row) -> None:
    gs = [g.reshape(6, 5, 2) for g in gradients((6, 10), 6)]
    flat = torch.tensor(start((6, 10)).reshape(6, 5, 2), requires_grad=True)
    z = torch.view_as_complex(flat.detach().clone()).requires_grad_()
    one, two = row([flat], weight_decay=0.1), row([z], weight_decay=0.1)
    run(one, flat, gs)
    for g in gs:
        z.grad = torch.view_as_complex(torch.tensor(g))
        two.step()
    assert torch.equal(torch.view_as_real(z), flat)
    again = row([z], weight_decay=0.1)
    again.load_state_dict(copy.deepcopy(two.state_dict()))
    two.step()
    assert z.dtype == torch.complex128


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_what_is_not_finite_changes_nothing_when_refused(row: Row, bad: float) -> None:
    p = torch.tensor(start((4, 3)), requires_grad=True)
    q = torch.ones(2, requires_grad=True)
    for policy in ("raise", "skip"):
        optimizer = row([p, q], weight_decay=0.1, nonfinite=policy)
        run(optimizer, p, gradients((4, 3), 3))
        before = copy.deepcopy((p.detach(), optimizer.state_dict()["state"]))
        p.grad = torch.full_like(p, 0.1)
        q.grad = torch.tensor([1.0, bad])
        if policy == "raise":
            with pytest.raises(NonFinite, match="parameter 1 of group 0"):
                optimizer.step()
        else:
            optimizer.step()
            assert optimizer.skipped == 1
        after = (p.detach(), optimizer.state_dict()["state"])
        assert torch.equal(before[0], after[0])
        assert str(before[1]) == str(after[1])
        q.grad = None


@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_sparse_gradients_are_refused_before_anything_changes(row: Row) -> None:
    p = torch.ones(2, requires_grad=True)
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    p.grad = torch.ones(2)
    optimizer = row([p, table.weight])
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()
    assert torch.equal(p, torch.ones(2))


@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_groups_step_by_their_own_numbers(row: Row) -> None:
    a, b, c = (torch.ones(3, requires_grad=True) for _ in range(3))
    optimizer = row([{"params": [a]}, {"params": [b], "lr": 0.0, "weight_decay": 0.1}])
    alone = row([c])
    for p in (a, b, c):
        p.grad = torch.full((3,), 0.5)
    for _ in range(5):
        optimizer.step()
        alone.step()
    assert torch.equal(a, c)
    assert torch.equal(b, torch.ones(3))


@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_a_rate_may_be_a_tensor(row: Row) -> None:
    a, b = (torch.ones(3, requires_grad=True) for _ in range(2))
    one, two = row([a], lr=0.01), row([b], lr=torch.tensor(0.01, dtype=torch.float64))
    for p in (a, b):
        p.grad = torch.tensor([0.5, -1.0, 2.0])
    for _ in range(3):
        one.step()
        two.step()
    assert torch.equal(a, b)
    with pytest.raises(ValueError, match="1-element"):
        row([a], lr=torch.ones(2))


@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_many_tensors_step_as_each_alone(row: Row) -> None:
    shapes = [(3,), (0,), (2, 5), (), (7, 3)]
    together = [torch.tensor(start(s), requires_grad=True) for s in shapes]
    optimizer = row(together, weight_decay=0.1, backend="native")
    alone = [p.detach().clone().requires_grad_() for p in together]
    singles = [row([p], weight_decay=0.1, backend="eager") for p in alone]
    for t in range(8):
        for i, (p, q) in enumerate(zip(together, alone, strict=True)):
            skip = t == 3 and i == 2
            p.grad = None if skip else torch.tensor(gradients(shapes[i], 1, seed=9 * t + i)[0])
            q.grad = p.grad
        optimizer.step()
        for single in singles:
            single.step()
    for p, q in zip(together, alone, strict=True):
        assert torch.allclose(p, q, rtol=1e-12, atol=1e-12)


def test_gradscaler_unscales_and_skips() -> None:
    p = torch.ones(3, requires_grad=True)
    optimizer = named("AdamW")([p])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((p * torch.tensor([1.0, 2.0, 3.0])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.allclose(p.grad, torch.tensor([1.0, 2.0, 3.0]))
    before = p.detach().clone()
    p.grad = None
    scaler.scale((p * float("inf")).sum()).backward()
    scaler.step(optimizer)
    assert torch.equal(p, before)


def test_closure_and_hooks() -> None:
    p = torch.ones(2, requires_grad=True)
    optimizer = named("Lion")([p])
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert seen == ["before", "after"]
    assert bool((p < 1).all())


def test_the_backend_is_chosen_shown_and_refused() -> None:
    p = torch.ones(1 << 15, requires_grad=True)
    p.grad = torch.ones(1 << 15)
    optimizer = named("AdamW")([p])
    optimizer.step()
    assert repr(optimizer).startswith("AdamW[backend='auto', ran by native, state='fp32'] (")
    with pytest.raises(ValueError, match=r"backend='cuda' is unknown; use one of auto"):
        named("AdamW")([p], backend="cuda")
    with pytest.raises(ValueError, match="is not a way to store state"):
        named("AdamW")([p], state="int4")
    assert "native" in BACKENDS
