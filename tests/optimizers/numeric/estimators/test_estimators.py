"""Estimators without backpropagation, and Gauss-Newton-Bartlett."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimizers.numeric.curvature import Sophia
from optimizers.numeric.estimators.directions import direction_like
from optimizers.numeric.estimators.gauss_newton import gauss_newton_diagonal
from optimizers.numeric.estimators.mezo import MeZO
from optimizers.numeric.estimators.ranking import RankDescent, ranking_weights
from optimizers.numeric.sgd import SGD
from tracegraph.errors import NonFinite

# -- MeZO -------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
def test_mezo_is_its_formula(keep: bool) -> None:
    p, q = torch.tensor([1.0, -2.0]).double(), torch.tensor([[0.5]]).double()
    w = [p.numpy().copy(), q.numpy().copy()]
    groups = [{"params": [p]}, {"params": [q], "lr": 0.05, "weight_decay": 0.0}]
    optimizer = MeZO(
        groups, lr=0.02, eps=1e-2, weight_decay=0.1, clip=3.0, samples=2, seed=4, keep=keep
    )

    def loss(a: np.ndarray, b: np.ndarray) -> float:
        return float((a**4).sum() + (b**2).sum() * a[0])

    clipped = 0
    for t in range(12):
        zs = [[direction_like(x, 4, t, k, i).numpy() for i, x in enumerate((p, q))] for k in (0, 1)]
        ds = []
        for za, zb in zs:
            up = loss(w[0] + 1e-2 * za, w[1] + 1e-2 * zb)
            down = loss(w[0] - 1e-2 * za, w[1] - 1e-2 * zb)
            d = (up - down) / 2e-2
            clipped += abs(d) > 3
            ds.append(np.clip(d, -3, 3))
        g = [sum(d * z[i] for d, z in zip(ds, zs, strict=True)) / 2 for i in (0, 1)]
        w = [w[0] * (1 - 0.02 * 0.1) - 0.02 * g[0], w[1] - 0.05 * g[1]]
        optimizer.step(lambda: loss(p.numpy(), q.numpy()))
        assert np.allclose(p.numpy(), w[0], atol=1e-10)
        assert np.allclose(q.numpy(), w[1], atol=1e-10)
    assert clipped > 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("keep", [True, False, None])
def test_parameters_come_back_exactly_or_within_the_stated_drift(
    dtype: torch.dtype, keep: bool | None
) -> None:
    """Law: with copies to the last bit; without, by at most four roundings of each number."""
    p = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = p.clone()
    optimizer = MeZO([p], lr=0.0, keep=keep)
    seen = []
    for _ in range(5):
        optimizer.step(lambda: seen.append(p.clone()) or 1.0)
    assert not torch.equal(seen[0], before)
    if keep or (keep is None and dtype == torch.bfloat16):
        assert torch.equal(p, before)
    else:
        assert not torch.equal(p, before)
        largest = before.double().abs() + 0.01
        drift = (p.double() - before.double()).abs()
        assert bool((drift <= 5 * 4 * torch.finfo(dtype).eps / 2 * largest).all())


def test_mezo_keeps_nothing_restores_after_errors_and_skips_what_is_not_finite() -> None:
    p = torch.ones(3)
    optimizer = MeZO([p], lr=0.1, keep=True)
    calls: list[int] = []

    def fails() -> float:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of data")
        return 1.0

    with pytest.raises(RuntimeError, match="out of data"):
        optimizer.step(fails)
    assert torch.equal(p, torch.ones(3))
    optimizer.step(lambda: float("nan"))
    assert optimizer.skipped == 1
    assert torch.equal(p, torch.ones(3))
    assert not optimizer.state_dict()["state"]
    strict = MeZO([p], keep=True, nonfinite="raise")
    with pytest.raises(NonFinite, match="nothing was changed"):
        strict.step(lambda: float("inf"))
    with pytest.raises(ValueError, match="needs a closure"):
        strict.step()
    with pytest.raises(ValueError, match="eps=0"):
        MeZO([p], eps=0.0)


def test_a_restored_mezo_continues_bit_by_bit() -> None:
    p = torch.tensor([1.0, -2.0])
    one = MeZO([p], lr=0.01, seed=3)
    for _ in range(4):
        one.step(lambda: p.square().sum())
    q = p.clone()
    two = MeZO([q], lr=0.5)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for _ in range(4):
        one.step(lambda: p.square().sum())
        two.step(lambda: q.square().sum())
    assert torch.equal(p, q)


def test_qzo_trains_the_scales_of_quantized_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-7, 8, (6, 4), generator=generator).float()
    true = 0.05 + torch.rand(6, generator=generator) * 0.1
    x = torch.randn(64, 4, generator=generator)
    target = x @ (true[:, None] * codes).T
    scales = torch.full((6,), 0.1)
    optimizer = MeZO([scales], lr=2e-3, clip=5.0)
    losses = [
        optimizer.step(lambda: (x @ (scales[:, None] * codes).T - target).square().mean())
        for _ in range(400)
    ]
    assert losses[-1] < 0.02 * losses[0]


# -- rankings ---------------------------------------------------------------------------------


@given(st.integers(2, 12), st.data())
def test_ranking_weights_are_the_mean_over_all_known_pairs(m: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, m))
    edges = [(i, j) for i in range(k) for j in range(i + 1, m)]
    expected = np.zeros(m)
    for better, worse in edges:
        expected[better] += 1 / len(edges)
        expected[worse] -= 1 / len(edges)
    weights = ranking_weights(m, k)
    assert weights == pytest.approx(expected.tolist())
    assert sum(weights) == pytest.approx(0.0, abs=1e-12)


def test_rankings_alone_descend() -> None:
    d, scale = 10, torch.logspace(0, 1, 10)
    w = torch.ones(d)
    optimizer = RankDescent(SGD([w], lr=0.1), samples=10, radius=1e-2)

    def loss() -> float:
        return float((scale * w.square()).sum())

    first = loss()
    for t in range(150):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.97**t
        before = w.clone()
        losses = [loss() for _ in optimizer.candidates()]
        assert torch.equal(w, before)
        optimizer.step(sorted(range(10), key=losses.__getitem__)[:4])
    assert loss() < 0.02 * first


def test_a_ranking_is_checked_and_candidates_come_back_when_left() -> None:
    w = torch.ones(3)
    optimizer = RankDescent(SGD([w], lr=0.1), samples=4)
    for k in optimizer.candidates():
        assert not torch.equal(w, torch.ones(3))
        if k == 1:
            break
    assert torch.equal(w, torch.ones(3))
    for order in ([0, 0], [4], []):
        with pytest.raises(ValueError, match=r"order|ranked"):
            optimizer.step(order)
    assert torch.equal(w, torch.ones(3))
    other = RankDescent(SGD([w.clone()], lr=0.1), samples=4, seed=9)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert (other.seed, other.steps) == (0, 0)


# -- Gauss-Newton-Bartlett --------------------------------------------------------------------


def test_sampled_labels_estimate_the_gauss_newton_diagonal() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    w = torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    chances = (x @ w).softmax(dim=-1).detach()
    exact = torch.einsum("bi,bc->ic", x**2, chances * (1 - chances)) / 5
    logits = x @ w
    total = torch.zeros_like(exact)
    for _ in range(250):
        total += gauss_newton_diagonal(logits, [w], generator=generator)[0]
    assert torch.allclose(total / 250, exact, rtol=0.4, atol=0.02)


def test_sophia_averages_the_estimate() -> None:
    w = torch.zeros(3, 4, requires_grad=True)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    optimizer = Sophia([w], betas=(0.9, 0.5), batch_size=5)
    optimizer.update_gauss_newton(x @ w, generator=torch.Generator().manual_seed(1))
    expected = gauss_newton_diagonal(x @ w, [w], generator=torch.Generator().manual_seed(1))[0] / 5
    assert torch.allclose(optimizer.state[w]["hessian"], 0.5 * expected)
    with pytest.raises(ValueError, match="logits have shape"):
        optimizer.update_gauss_newton(torch.zeros(3))
