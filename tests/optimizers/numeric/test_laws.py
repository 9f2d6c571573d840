"""Exact laws of single optimizers, and defects that others have had."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
import torch

from optimizers.numeric.adabelief import AdaBelief
from optimizers.numeric.adam import AdamW
from optimizers.numeric.curvature import AdaHessian, Sophia
from optimizers.numeric.estimators.hutchinson import hessian_diagonal, rademacher_like
from optimizers.numeric.exadam import EXAdam
from optimizers.numeric.executors.native import source
from optimizers.numeric.lion import Lion, LionK
from optimizers.numeric.projection import SGDP, AdamP
from optimizers.numeric.rules.rule import Rule
from optimizers.numeric.rules.table import RULES
from optimizers.numeric.spam import SPAM, StableSPAM
from tracegraph.errors import OptimizerError


@pytest.mark.parametrize("kappa", ["l1", "l2"])
def test_lion_enters_its_box_and_stays(kappa: str) -> None:
    generator = torch.Generator().manual_seed(0)
    p = (8 * torch.randn(20, generator=generator)).requires_grad_()
    optimizer = LionK([p], lr=0.05, weight_decay=0.5, kappa=kappa)
    order = math.inf if kappa == "l1" else 2
    for t in range(600):
        p.grad = torch.randn(20, generator=generator) * 10 ** (t % 5 - 2)
        optimizer.step()
        if t > 300:
            assert torch.linalg.vector_norm(p, ord=order) <= 2.0 * (1 + 1e-5)


def test_lion_leaves_a_zero_gradient_alone() -> None:
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.tensor([0.0, 1.0, -1.0])
    Lion([p], lr=0.5).step()
    assert p.tolist() == [1.0, 0.5, 1.5]


def test_eps_of_adabelief_accumulates_to_its_limit() -> None:
    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = AdaBelief([p], eps=1e-4, betas=(0.0, 0.9))
    for _ in range(300):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert optimizer.state[p]["exp_avg_var"].item() == pytest.approx(1e-4 / 0.1)


def test_the_effective_rate_of_exadam() -> None:
    for log_factor, expected in ((False, (15.95, 4.34, 3.81)), (True, (11.06, 6.71, 10.1))):
        p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = EXAdam([p], lr=1.0, log_factor=log_factor)
        moves = []
        for _ in range(100):
            before = p.item()
            p.grad = torch.ones_like(p)
            optimizer.step()
            moves.append(before - p.item())
        got = (moves[0], moves[9], moves[99])
        assert got == pytest.approx(expected, rel=0.03)


def test_adamp_keeps_the_norm_of_scale_invariant_weights_smaller() -> None:
    norms = {}
    for cls in (AdamW, AdamP):
        torch.manual_seed(0)
        w = torch.randn(8, 32, requires_grad=True)
        x, y = torch.randn(64, 32), torch.randn(64, 8)
        optimizer = cls([w], lr=0.05, weight_decay=0.0)
        for _ in range(60):
            optimizer.zero_grad()
            unit = w / w.norm(dim=1, keepdim=True)
            (x @ unit.t() - y).square().mean().backward()
            optimizer.step()
        norms[cls] = w.detach().norm().item()
    assert norms[AdamP] < norms[AdamW]


def test_spam_bounds_what_a_spike_does_to_its_second_moment() -> None:
    p = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = SPAM([p], threshold=50.0, reset_interval=0, grace_steps=5)
    for t in range(1, 31):
        p.grad = torch.tensor([1.0, -1.0, 1e6 if t in (20, 21) else 1.0], dtype=torch.float64)
        before = optimizer.state[p]["exp_avg_sq"].clone() if t > 1 else torch.zeros(3)
        optimizer.step()
        if t > 5:
            after = optimizer.state[p]["exp_avg_sq"]
            assert bool((after <= (0.999 + 0.001 * 50) * before * (1 + 1e-12)).all())


def test_spikes_move_a_parameter_of_stable_spam_little() -> None:
    def distance(optimizer_of: type[AdamW | StableSPAM], spikes: bool) -> float:
        generator = torch.Generator().manual_seed(3)
        p = torch.zeros(200, requires_grad=True)
        optimizer = optimizer_of([p], lr=0.01, weight_decay=0.0)
        for t in range(80):
            g = torch.randn(200, generator=generator)
            if spikes and t in (40, 60):
                g[::10] = 1e4
            p.grad = g
            optimizer.step()
        return p.detach()[::10].abs().mean().item()

    hurt = distance(AdamW, True) - distance(AdamW, False)
    assert distance(StableSPAM, True) - distance(StableSPAM, False) < 0.7 * hurt


def test_stable_spam_clips_as_before_after_a_reset() -> None:
    """The threshold's own age goes on, so the step after a reset lets no spike through."""
    p = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = StableSPAM([p], reset_interval=50)
    for t in range(1, 60):
        spike = t == 52
        p.grad = torch.tensor([1.0, -1.0, 1e3 if spike else 1.0, 1.0], dtype=torch.float64)
        before = optimizer.state[p]["exp_avg_sq"].clone() if t > 1 else None
        optimizer.step()
        if spike and before is not None:
            grown = optimizer.state[p]["exp_avg_sq"] - 0.999 * before
            assert grown[2] < 0.001 * 1e3 * grown.sum()
            top = optimizer.state[p]["m_max_t"] / (1 - 0.999**t)
            assert top < 100.0


def test_rademacher_and_the_diagonal_it_estimates() -> None:
    generator = torch.Generator().manual_seed(0)
    z = rademacher_like(torch.zeros(10_000), generator)
    assert set(z.tolist()) == {-1.0, 1.0}
    assert abs(z.mean().item()) < 0.05
    a = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    h = a @ a.t()
    w = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    loss = 0.5 * w @ h @ w
    draws = [hessian_diagonal(loss, [w], generator=generator)[0] for _ in range(3000)]
    assert torch.allclose(torch.stack(draws).mean(0), h.diagonal(), rtol=0.1, atol=0.3)


def test_adahessian_is_its_formula_and_frees_the_graph() -> None:
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimizer = AdaHessian([w], lr=0.1, weight_decay=0.1)
    p, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for t in range(1, 8):
        optimizer.zero_grad()
        loss = (w**4).sum()
        grad = torch.autograd.grad(loss, w, create_graph=True)[0]
        graph = weakref.ref(grad)
        w.grad = grad
        del loss, grad
        optimizer.step()
        g, d = 4 * p**3, 12 * p**2
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * d**2
        p = p - 0.1 * 0.1 * p
        p = p - 0.1 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-4)
        assert np.allclose(w.detach().numpy(), p, rtol=1e-12)
    gc.collect()
    assert graph() is None
    w.grad = torch.ones_like(w)
    with pytest.raises(OptimizerError, match="has no graph"):
        optimizer.step()


def test_sophia_is_its_formula() -> None:
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    optimizer = Sophia([w], lr=0.05, rho=0.5, weight_decay=0.1)
    p, m, h = w.detach().numpy().copy(), np.zeros(3), np.zeros(3)
    for t in range(12):
        optimizer.zero_grad()
        loss = (w**4).sum()
        if t % 5 == 2:
            optimizer.update_hessian(loss)
            h = 0.99 * h + 0.01 * 12 * p**2
        loss.backward()
        optimizer.step()
        g = 4 * p**3
        p = p * (1 - 0.05 * 0.1)
        m = 0.965 * m + 0.035 * g
        p = p - 0.05 * np.sign(m) * np.minimum(np.abs(m) / np.maximum(0.5 * h, 1e-15), 1)
        assert np.allclose(w.detach().numpy(), p, rtol=1e-12)


def test_a_rule_that_computes_on_scalars_is_refused() -> None:
    def body(p, g, s, h):  # type: ignore[no-untyped-def]
        lr, wd = h
        return p - lr * wd * p, s

    rule = Rule("bad", body, lambda o, t: (0.1, 0.1))
    with pytest.raises(TypeError, match="computes on two scalars"):
        source(rule, 2, torch.float32, ())


def test_every_rule_has_its_own_name_and_state() -> None:
    for name, rule in RULES.items():
        assert rule.name == name
        assert len({s.name for s in rule.states}) == len(rule.states)


@pytest.mark.parametrize("cls", [AdamP, SGDP])
def test_a_projected_step_is_a_tangent_of_a_scale_invariant_weight(cls: type[AdamP]) -> None:
    """Law: the norm grows by the step alone, ``|w'|^2 = |w|^2 + |step|^2``, row by row."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(6, 40, generator=generator, dtype=torch.float64).requires_grad_()
    optimizer = cls([w], lr=0.05)
    grown = []
    for _ in range(30):
        before = w.detach().clone()
        optimizer.zero_grad()
        target = torch.randn(6, 40, generator=generator, dtype=torch.float64)
        (w / w.norm(dim=1, keepdim=True) * target).sum().backward()
        optimizer.step()
        step = w.detach() - before
        expected = before.square().sum(dim=1) + step.square().sum(dim=1)
        assert torch.allclose(w.detach().square().sum(dim=1), expected, rtol=1e-12)
        grown.append(float(w.detach().norm()))
    plain = w.detach().clone().requires_grad_()
    radial = AdamW([plain], lr=0.05, weight_decay=0.0)
    plain.grad = plain.detach().clone()
    radial.step()
    assert (plain - w).detach().mul(w.detach()).sum() < -0.1  # AdamW's step is no tangent
    assert grown == sorted(grown)


def test_adahessian_averages_over_the_places_of_kernels_of_one_and_two_dimensions() -> None:
    """With a diagonal Hessian the estimate is exact: the mean of its absolute values per kernel."""
    for shape in ((3, 2, 4), (3, 2, 2, 2), (3, 4), (5,)):
        w = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        w.requires_grad_()
        optimizer = AdaHessian([w], lr=0.1)
        optimizer.estimate((w**4).sum())
        (w**4).sum().backward()
        exact = 12 * w.detach() ** 2
        optimizer.step()
        if len(shape) > 2:
            exact = exact.flatten(2).mean(dim=2).reshape(*shape[:2], *(1,) * (len(shape) - 2))
        assert torch.allclose(optimizer.state[w]["hessian_diag"], exact.expand(shape), rtol=1e-12)
