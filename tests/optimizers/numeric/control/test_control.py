"""Clipping, batch sizes and the merging of losses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers.numeric.adam import AdamW
from optimizers.numeric.control.batch_size import AdaptiveBatch, gradient_noise
from optimizers.numeric.control.clipping import clip_factor
from optimizers.numeric.control.merging import merge_gradients, min_norm_weights
from optimizers.numeric.schedule_free import ScheduleFreeAdamW
from optimizers.numeric.sgd import SGD
from optimizers.numeric.spam import StableSPAM

# -- clipping ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "foreach", "native"])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("make", [AdamW, ScheduleFreeAdamW])
def test_clipping_in_the_step_is_clipping_before_it(
    make: type[AdamW | ScheduleFreeAdamW], backend: str, maximize: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [torch.ones(s, dtype=torch.float64, requires_grad=True) for s in ((5, 3), (0,), (4,))]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    options: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1, "maximize": maximize}
    one = make(ours, clip_norm=0.5, backend=backend, **options)
    two = make(theirs, backend=backend, **options)
    for t in range(6):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.01 * 10 ** (t % 4)
            q.grad = p.grad.clone()
        kept = [p.grad.clone() for p in ours]
        torch.nn.utils.clip_grad_norm_(theirs, 0.5, error_if_nonfinite=True)
        one.step()
        two.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(ours, kept, strict=True))
    for p, q in zip(ours, theirs, strict=True):
        assert torch.allclose(p, q, rtol=1e-10, atol=1e-10)


def test_the_clip_factor_sees_all_dtypes_and_does_not_overflow() -> None:
    grads = [torch.full((4,), 6e4, dtype=torch.float16), torch.tensor([1.0], dtype=torch.float64)]
    assert clip_factor(grads, 1.2e5) == pytest.approx(1.0, rel=1e-3)
    assert clip_factor(grads, 1.2e4) == pytest.approx(0.1, rel=1e-3)
    assert clip_factor([], 1.0) == 1.0


def test_clipping_is_refused_where_it_would_come_too_late() -> None:
    p = torch.zeros(3)
    with pytest.raises(ValueError, match=r"call torch\.nn\.utils.clip_grad_norm_ before step"):
        StableSPAM([p], clip_norm=1.0)
    with pytest.raises(ValueError, match=r"clip_norm=0\.0 must be more than 0"):
        AdamW([p], clip_norm=0.0)


# -- batch size -------------------------------------------------------------------------------


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 2**16))
def test_noise_is_the_variance_and_the_norm_of_the_mean(n: int, each: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, 7))
    lists = [[torch.tensor(r[:4].reshape(2, 2)), torch.tensor(r[4:])] for r in rows]
    variance, norm = gradient_noise(lists, each=each)
    assert variance == pytest.approx(each * np.var(rows, axis=0, ddof=1).sum())
    assert norm == pytest.approx((rows.mean(axis=0) ** 2).sum())


def test_groups_of_samples_estimate_the_variance_of_one() -> None:
    rows = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = gradient_noise([[r] for r in rows])[0]
    grouped = gradient_noise([[g.mean(dim=0)] for g in rows.split(8)], each=8)[0]
    assert grouped == pytest.approx(alone, rel=0.15)


def test_the_batch_grows_as_the_gradient_shrinks_and_obeys_its_test() -> None:
    """Law: with the new size the variance of the mean is at most eta^2 of its squared norm."""
    generator = torch.Generator().manual_seed(0)
    batch, sizes = AdaptiveBatch(4, eta=0.5, limit=1000), []
    for scale in (10.0, 3.0, 1.0, 0.3, 0.1, 3.0):
        gs = [[scale + torch.randn(5, generator=generator)] for _ in range(64)]
        variance, norm = gradient_noise(gs)
        sizes.append(batch.update(gs))
        assert batch.size == 1000 or variance / batch.size <= 0.25 * norm
    assert sizes == sorted(sizes)
    assert sizes[0] == 4
    assert 4 < sizes[3] < sizes[4] <= 1000
    assert batch.update([[torch.zeros(2)], [torch.zeros(2)]]) == batch.size
    assert batch.update([[torch.ones(2)], [-torch.ones(2)]]) == 1000
    assert batch.update([[torch.full((2,), torch.nan)], [torch.ones(2)]]) == 1000
    other = AdaptiveBatch(1)
    other.load_state_dict(copy.deepcopy(batch.state_dict()))
    assert (other.size, other.eta, other.limit) == (1000, 0.5, 1000)
    with pytest.raises(ValueError, match="needs two gradients"):
        batch.update([[torch.ones(2)]])


# -- merging ----------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**16), st.booleans())
def test_the_min_norm_point_is_optimal(count: int, size: int, seed: int, tied: bool) -> None:
    """Law (KKT): no vector has a smaller product with the point than the point itself."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, size)) + rng.normal(size=size)
    if tied:
        rows[-1] = rows[0]
    g = torch.tensor(rows)
    w = min_norm_weights(g @ g.mT)
    assert float(w.sum()) == pytest.approx(1.0)
    assert bool((w >= 0).all())
    point = w @ g
    scale = float((g @ g.mT).diagonal().max())
    assert bool(((g @ point) >= point @ point - 1e-7 * scale).all())
    shares = torch.tensor(rng.dirichlet(np.ones(count), size=50)) @ g
    assert bool((shares.norm(dim=1) >= point.norm() - 1e-6 * scale**0.5).all())


def test_a_merged_step_lowers_every_loss() -> None:
    w = torch.tensor([1.5, -0.5, 2.0], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    optimizer = SGD([w, v], lr=0.01)

    def losses() -> list[torch.Tensor]:
        return [(w - 1).square().sum(), 5 * (w[0] + 1) ** 2 + v.square().sum(), (w[2] - w[1]) ** 4]

    for _ in range(20):
        before = losses()
        weights = merge_gradients(before, [w, v])
        assert w.grad is not None
        if float(w.grad.norm()) < 1e-3:
            break
        optimizer.step()
        assert all(b < a for a, b in zip(before, losses(), strict=True)), weights


def test_opposed_losses_leave_everything_where_it_is() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    weights = merge_gradients([w.sum(), -3 * w.sum()], [w])
    assert weights.tolist() == pytest.approx([0.75, 0.25])
    assert w.grad is not None
    assert w.grad.abs().max() < 1e-6
    with pytest.raises(ValueError, match="NaN or infinity"):
        min_norm_weights(torch.tensor([[float("nan")]]))
    with pytest.raises(ValueError, match="must be square"):
        min_norm_weights(torch.ones(2, 3))
    with pytest.raises(ValueError, match="no losses"):
        merge_gradients([], [w])
