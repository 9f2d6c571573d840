"""Optimizers that look at a whole matrix, and wrappers: against torch and published formulas."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from optimizers.numeric.adam import AdamW
from optimizers.numeric.bases.adafactor import Adafactor
from optimizers.numeric.bases.cosmos import COSMOS
from optimizers.numeric.bases.dct import DCTAdamW, Trion
from optimizers.numeric.bases.frugal import FRUGAL
from optimizers.numeric.bases.galore import Fira, GaLore
from optimizers.numeric.bases.matrix import MatrixOptimizer, orthogonal
from optimizers.numeric.bases.muon import Muon
from optimizers.numeric.bases.natural_galore import NaturalGaLore
from optimizers.numeric.bases.shampoo import Shampoo
from optimizers.numeric.bases.soap import SOAP
from optimizers.numeric.estimators.sam import SAM
from optimizers.numeric.schedule_free import ScheduleFreeAdamW
from optimizers.numeric.sgd import SGD
from tracegraph.errors import NonFinite

Make = Callable[..., MatrixOptimizer]

FAMILY: dict[str, tuple[type[MatrixOptimizer], dict[str, Any]]] = {
    "SOAP": (SOAP, {"lr": 0.02, "precondition_frequency": 3}),
    "Shampoo": (Shampoo, {"lr": 0.02, "precondition_frequency": 3}),
    "GaLore": (GaLore, {"lr": 0.2, "rank": 2, "refresh_interval": 4}),
    "Fira": (Fira, {"lr": 0.05, "rank": 2, "refresh_interval": 4}),
    "NaturalGaLore": (
        NaturalGaLore,
        {"lr": 0.2, "rank": 2, "refresh_interval": 4, "history": 3, "damping": 0.1},
    ),
    "FRUGAL": (FRUGAL, {"lr": 0.02, "density": 0.5, "refresh_interval": 4}),
    "DCTAdamW": (DCTAdamW, {"lr": 0.02, "rank": 2}),
    "DCTAdamW-feedback": (
        DCTAdamW,
        {"lr": 0.02, "rank": 2, "refresh_interval": 3, "error_feedback": True},
    ),
    "Trion": (Trion, {"lr": 0.05, "rank": 3}),
    "COSMOS": (COSMOS, {"lr": 0.2, "rank": 2}),
    "Muon": (Muon, {"lr": 0.02}),
    "Adafactor": (Adafactor, {"lr": 0.05}),
}
NAMES = sorted(FAMILY)


def make(name: str, params: Any, **options: Any) -> MatrixOptimizer:
    cls, usual = FAMILY[name]
    return cls(params, **{"weight_decay": 0.0, **usual, **options})


def gradients(shape: tuple[int, ...], steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(steps)]


def run(optimizer: Any, p: torch.Tensor, gs: list[torch.Tensor]) -> torch.Tensor:
    for g in gs:
        p.grad = g.to(p.dtype)
        optimizer.step()
    return p


def fresh(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("name", NAMES)
def test_finds_the_minimum_of_a_parabola(name: str) -> None:
    p, target = fresh((6, 5)), fresh((6, 5)).detach().flip(0)
    narrow = ("GaLore", "Fira", "NaturalGaLore")
    wide = {"rank": 4, "refresh_interval": 20, "lr": 0.3} if name in narrow else {}
    steps = 250 if name == "COSMOS" else 600
    optimizer = make(name, [p], **wide)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (p - target).square().sum().backward()
        optimizer.step()
        schedule.step()
    assert (p - target).abs().max() < 2e-2


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_optimizer_continues_bit_by_bit(name: str) -> None:
    gs = gradients((6, 5), 14)
    p = fresh((6, 5), torch.float32)
    optimizer = make(name, [p], weight_decay=0.1)
    run(optimizer, p, gs[:7])
    q = p.detach().clone().requires_grad_()
    other = make(name, [q], weight_decay=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(run(optimizer, p, gs[7:]), run(other, q, gs[7:]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_odd_tensors_and_policies(name: str, dtype: torch.dtype) -> None:
    shapes: list[tuple[int, ...]] = [(6, 5), (3, 7), (0, 4), (1, 1)]
    if name != "Muon":
        shapes += [(2, 3, 2, 2)]
    if name not in ("Muon", "Trion"):
        shapes += [(), (4,)]
    params = [torch.ones(s, dtype=dtype).requires_grad_() for s in shapes]
    params.append(torch.ones(5, 6, dtype=dtype).t().requires_grad_())
    optimizer = make(name, params, nonfinite="raise")
    for t in range(6):
        for p in params:
            p.grad = None if t == 2 else torch.full_like(p, 0.5)
        params[0].grad = None
        optimizer.step()
    assert torch.equal(params[0], torch.ones(shapes[0], dtype=dtype))
    for p in params[1:]:
        assert p.dtype == dtype
        assert bool(p.isfinite().all())
        # SOAP turns rounding errors where the gradients have no rank into steps
        assert not p.numel() or p.float().mean() < 1
    before = [p.detach().clone() for p in params]
    params[-1].grad = torch.full_like(params[-1], float("nan"))
    with pytest.raises(NonFinite):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))
    with pytest.raises(ValueError, match="does not take complex tensors"):
        make(name, [torch.zeros(2, 2, dtype=torch.complex64)])


@pytest.mark.parametrize("name", [n for n in NAMES if n != "Muon"])
def test_layout_in_memory_does_not_matter(name: str) -> None:
    gs = gradients((4, 3, 2, 2), 6)
    plain = fresh((4, 3, 2, 2))
    turned = plain.detach().to(memory_format=torch.channels_last).requires_grad_()
    for p in (plain, turned):
        run(make(name, [p]), p, gs)
    assert torch.allclose(plain, turned, atol=1e-12)


def test_muon_and_adafactor_equal_those_of_torch() -> None:
    gs = [g.float() for g in gradients((6, 9), 12)]
    for ours, theirs, limit in (
        (Muon, torch.optim.Muon, 1e-2),
        (Adafactor, torch.optim.Adafactor, 1e-5),
    ):
        a, b = (fresh((6, 9), torch.float32) for _ in range(2))
        run(ours([a], lr=0.02, weight_decay=0.1), a, gs)
        run(theirs([b], lr=0.02, weight_decay=0.1), b, gs)
        # torch's iteration is in bfloat16, ours in float32 on a CPU
        assert (a - b).abs().max() < limit
    with pytest.raises(ValueError, match="Muon only supports 2D parameters"):
        Muon([torch.zeros(3)])


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 5), (3, 4, 7)], ids=str)
def test_newton_schulz_brings_singular_values_near_one(shape: tuple[int, ...]) -> None:
    x = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(x)
    assert values.max() < 1.3
    assert values.min() > 0.3


def test_soap_does_not_see_a_rotation_of_the_coordinates() -> None:
    """Law: with rotated gradients the parameter is the rotated parameter."""
    gs = gradients((5, 4), 25)
    u, v = (torch.linalg.qr(g)[0] for g in gradients((5, 5), 2))
    v = torch.linalg.qr(gradients((4, 4), 1)[0])[0]
    p = run(make("SOAP", [q := torch.zeros(5, 4, dtype=torch.float64).requires_grad_()]), q, gs)
    r = torch.zeros(5, 4, dtype=torch.float64).requires_grad_()
    turned = run(make("SOAP", [r]), r, [u @ g @ v for g in gs])
    # the smallest eigenvalue of a first 5 x 5 covariance of rank 4 is alone, so its vector is known
    assert torch.allclose(u @ p @ v, turned, atol=1e-6)


def test_soap_without_sides_is_adamw_one_step_later() -> None:
    gs = gradients((5, 4), 10)
    a, b = (torch.zeros(5, 4, dtype=torch.float64).requires_grad_() for _ in range(2))
    options = {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    run(SOAP([a], max_precondition_dim=0, **options), a, gs)  # type: ignore[arg-type]
    run(AdamW([b], **options), b, gs[1:])  # type: ignore[arg-type]
    assert torch.allclose(a, b, atol=1e-12)


def adam_directions(gs: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    m = v = np.zeros_like(gs[0])
    out = []
    for t, g in enumerate(gs, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        out.append(m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
    return out


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)], ids=str)
@pytest.mark.parametrize("fira", [False, True])
def test_galore_and_fira_are_their_formulas(shape: tuple[int, int], fira: bool) -> None:
    gs = gradients(shape, 12)
    p = fresh(shape)
    w = p.detach().numpy().copy()
    cls = Fira if fira else GaLore
    run(cls([p], lr=0.1, rank=3, refresh_interval=100, scale=0.25, weight_decay=0.1), p, gs)
    flip = shape[0] > shape[1]
    ms = [g.numpy().T if flip else g.numpy() for g in gs]
    w = w.T if flip else w
    basis = np.linalg.svd(ms[0], full_matrices=False)[0][:, :3]
    inside = [basis.T @ g for g in ms]
    before = 0.0
    for g, r, n in zip(ms, inside, adam_directions(inside), strict=True):
        w = w - 0.1 * 0.1 * w
        step = 0.25 * basis @ n
        if fira:
            phi = np.linalg.norm(n, axis=0) / (np.linalg.norm(r, axis=0) + 1e-8)
            rest = phi * (g - basis @ r)
            size = np.linalg.norm(rest)
            if before > 0:
                rest = rest / (max(size / (before + 1e-8), 1.01) / 1.01)
            before = np.linalg.norm(rest)
            step = step + rest
        w = w - 0.1 * step
    assert np.allclose(p.detach().numpy(), w.T if flip else w, atol=1e-10)


def test_shampoo_is_its_formula() -> None:
    gs = gradients((5, 4), 6)
    p = fresh((5, 4))
    w, m = p.detach().numpy().copy(), np.zeros((5, 4))
    run(Shampoo([p], lr=0.1, precondition_frequency=1, weight_decay=0.1, ridge=1e-3), p, gs)
    left, right = np.zeros((5, 5)), np.zeros((4, 4))
    graft = adam_directions([g.numpy() for g in gs])
    for t, (tensor, size) in enumerate(zip(gs, graft, strict=True), 1):
        g = tensor.numpy()
        m = 0.9 * m + 0.1 * g
        left, right = 0.999 * left + 0.001 * g @ g.T, 0.999 * right + 0.001 * g.T @ g
        roots = []
        for a in (left, right):
            fair = a / (1 - 0.999**t)
            values, vectors = np.linalg.eigh(fair + 1e-3 * np.trace(fair) * np.eye(len(a)))
            roots.append(vectors @ np.diag(values**-0.25) @ vectors.T)
        step = roots[0] @ m @ roots[1]
        step = step * np.linalg.norm(size) / np.linalg.norm(step)
        w = w * (1 - 0.1 * 0.1) - 0.1 * step
    assert np.allclose(p.detach().numpy(), w, atol=1e-9)


def test_sam_steps_from_where_it_was_by_the_gradient_up_the_hill() -> None:
    for adaptive in (False, True):
        w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
        optimizer = SAM(SGD([w], lr=0.1), rho=0.5, adaptive=adaptive)

        def closure(w: torch.Tensor = w, optimizer: SAM = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = (w**4).sum()
            loss.backward()
            return loss

        p = np.array([1.0, -2.0])
        for _ in range(4):
            g = 4 * p**3
            size = np.abs(p) if adaptive else 1.0
            e = 0.5 * size**2 * g / np.linalg.norm(size * g)
            p = p - 0.1 * 4 * (p + e) ** 3 * 0.01
            optimizer.param_groups[0]["lr"] = 0.001
            optimizer.step(closure)
        assert np.allclose(w.detach().numpy(), p, rtol=1e-12)


def test_sam_restores_when_the_closure_fails() -> None:
    w = torch.tensor([0.1, -0.2], requires_grad=True)
    optimizer = SAM(SGD([w], lr=0.1))
    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of data")
        loss = (w * w).sum()
        loss.backward()
        return loss

    before = w.detach().clone()
    with pytest.raises(RuntimeError, match="out of data"):
        optimizer.step(closure)
    assert torch.equal(w, before)


def test_schedule_free_is_its_formula_and_its_modes_invert() -> None:
    gs = [g.numpy() for g in gradients((4, 3), 12)]
    p = fresh((4, 3))
    x = z = p.detach().numpy().copy()
    optimizer = ScheduleFreeAdamW([p], lr=0.1, weight_decay=0.1, warmup_steps=4)
    v, total = np.zeros((4, 3)), 0.0
    for t, g in enumerate(gs, 1):
        y = 0.1 * z + 0.9 * x
        p.grad = torch.tensor(g)
        optimizer.step()
        lr = 0.1 * min(1, t / 4)
        v = 0.999 * v + 0.001 * g**2
        z = z - lr * (g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.1 * y)
        total += lr**2
        c = lr**2 / total
        x = (1 - c) * x + c * z
        assert np.allclose(p.detach().numpy(), 0.1 * z + 0.9 * x, atol=1e-10)
    optimizer.eval()
    optimizer.eval()
    assert np.allclose(p.detach().numpy(), x, atol=1e-10)
    with pytest.raises(RuntimeError, match="call train"):
        optimizer.step()
    optimizer.train()
    assert np.allclose(p.detach().numpy(), 0.1 * z + 0.9 * x, atol=1e-10)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(Muon, torch.optim.Muon), (Adafactor, torch.optim.Adafactor)]
)
def test_states_go_to_torch_and_back(ours: Any, theirs: Any) -> None:
    gs = [g.float() for g in gradients((6, 9), 8)]
    for first, then in ((ours, theirs), (theirs, ours)):
        a = fresh((6, 9), torch.float32)
        begun = first([a], lr=0.02, weight_decay=0.1)
        run(begun, a, gs[:4])
        b = a.detach().clone().requires_grad_()
        other = then([b], lr=0.5)
        other.load_state_dict(copy.deepcopy(begun.state_dict()))
        assert other.param_groups[0]["lr"] == 0.02
        run(begun, a, gs[4:])
        run(other, b, gs[4:])
        assert (a - b).abs().max() < (1e-2 if ours is Muon else 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_that_does_not_fit_is_refused_and_nothing_changes(name: str) -> None:
    """That of another optimizer, of other options, and of another shape."""
    p = fresh((6, 5), torch.float32)
    optimizer = make(name, [p], lr=0.1)
    run(optimizer, p, gradients((6, 5), 2))
    before = copy.deepcopy(optimizer.state_dict())
    q = fresh((6, 5), torch.float32)
    foreign = [AdamW([q], amsgrad=True), make("SOAP" if name != "SOAP" else "Muon", [q])]
    r = fresh((7, 4), torch.float32)
    foreign.append(make(name, [r]))
    for other in foreign:
        held = other.param_groups[0]["params"][0]
        run(other, held, gradients(tuple(held.shape), 2))
        with pytest.raises(ValueError, match=r"cannot load this state: for parameter 0 of group 0"):
            optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
        assert str(optimizer.state_dict()) == str(before)


def test_another_rank_says_which_shapes_are_needed() -> None:
    p, q = fresh((6, 5)), fresh((6, 5))
    three = GaLore([p], rank=3)
    run(three, p, gradients((6, 5), 2))
    with pytest.raises(ValueError, match=r"'basis': \(5, 3\)}, and .*'basis': \(5, 2\)} is needed"):
        GaLore([q], rank=2).load_state_dict(three.state_dict())
