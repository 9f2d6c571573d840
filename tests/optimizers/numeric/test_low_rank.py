"""Optimizers in subspaces: against published formulas in numpy, and their exact laws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from optimizers.numeric.adam import AdamW
from optimizers.numeric.bases.cosmos import COSMOS
from optimizers.numeric.bases.dct import DCTAdamW, Trion, cosines, strongest
from optimizers.numeric.bases.frugal import FRUGAL
from optimizers.numeric.bases.galore import GaLore
from optimizers.numeric.bases.matrix import orthogonal
from optimizers.numeric.bases.muon import Muon
from optimizers.numeric.bases.natural_galore import NaturalGaLore, natural
from optimizers.numeric.bases.subspace import RandomSubspace
from optimizers.numeric.sgd import SGD
from tests.optimizers.numeric.test_bases import adam_directions, fresh, gradients, run

A = NDArray[np.float64]
CPU = torch.device("cpu")


def dct(n: int) -> A:
    """The cosine transform entry by entry, frequencies as columns."""
    d = np.empty((n, n))
    for i in range(n):
        for k in range(n):
            scale = math.sqrt((1 if k == 0 else 2) / n)
            d[i, k] = scale * math.cos(math.pi * (2 * i + 1) * k / (2 * n))
    return d


def newton_schulz(g: A) -> A:
    a, b, c = 3.4445, -4.775, 2.0315
    x = g / np.linalg.norm(g)
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


# -- Natural GaLore ---------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.floats(1e-3, 10), st.integers(0, 2**16))
def test_the_natural_gradient_is_that_of_the_dense_inverse(
    s: int, n: int, damping: float, seed: int
) -> None:
    h = np.random.default_rng(seed).normal(size=(s, n))
    for last in (0, s - 1):
        dense = np.linalg.solve(damping * np.eye(n) + h.T @ h, h[last])
        assert np.allclose(natural(torch.tensor(h), damping, last).numpy(), dense, atol=1e-9)


def test_the_natural_gradient_does_not_cancel_in_float32() -> None:
    """Woodbury's difference of two terms loses 4 % here; the identity must not."""
    h = 10 * np.random.default_rng(0).normal(size=(20, 400)).astype(np.float32)
    exact = np.linalg.solve(1e-3 * np.eye(400) + h.T.astype(float) @ h, h[19].astype(float))
    got = natural(torch.tensor(h), 1e-3, 19).numpy()
    assert np.linalg.norm(got - exact) < 1e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)], ids=str)
def test_natural_galore_is_its_formula(shape: tuple[int, int]) -> None:
    gs = gradients(shape, 9)
    p = fresh(shape)
    w = p.detach().numpy().copy()
    run(NaturalGaLore([p], lr=0.1, rank=3, history=4, damping=0.5, weight_decay=0.1), p, gs)
    flip = shape[0] > shape[1]
    w = w.T if flip else w
    ms = [g.numpy().T if flip else g.numpy() for g in gs]
    basis = np.linalg.svd(ms[0], full_matrices=False)[0][:, :3]
    flat = [(basis.T @ g).ravel() for g in ms]
    seen = []
    for t, r in enumerate(flat):
        h = np.stack(flat[max(0, t - 3) : t + 1], axis=1)
        seen.append(np.linalg.solve(0.5 * np.eye(r.size) + h @ h.T, r).reshape(3, -1))
    for step in adam_directions(seen):
        w = w * (1 - 0.1 * 0.1) - 0.1 * 0.25 * basis @ step
    assert np.allclose(p.detach().numpy(), w.T if flip else w, atol=1e-9)


def test_natural_galore_without_history_is_galore() -> None:
    gs = gradients((6, 9), 10)
    a, b = fresh((6, 9)), fresh((6, 9))
    run(NaturalGaLore([a], rank=2, refresh_interval=3, history=0), a, gs)
    run(GaLore([b], rank=2, refresh_interval=3), b, gs)
    assert torch.equal(a, b)


# -- FRUGAL -----------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", ["coordinates", "random", "svd"])
def test_frugal_is_adamw_at_density_one_and_signsgd_at_zero(projection: str) -> None:
    gs = gradients((6, 9), 10)
    full, none, adam = fresh((6, 9)), fresh((6, 9)), fresh((6, 9))
    sign = adam.detach().clone()
    options: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1, "projection": projection}
    run(FRUGAL([full], density=1.0, **options), full, gs)
    run(FRUGAL([none], density=0.0, refresh_interval=3, **options), none, gs)
    run(AdamW([adam], lr=0.1, weight_decay=0.1), adam, gs)
    for g in gs:
        sign = sign - 0.1 * 0.1 * sign - 0.1 * g.sign()
    assert torch.allclose(full, adam, rtol=1e-14, atol=1e-14)
    assert torch.equal(none, sign)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)], ids=str)
def test_frugal_is_its_formula(shape: tuple[int, int]) -> None:
    gs = gradients(shape, 8)
    p = fresh(shape)
    w = p.detach().numpy().copy()
    optimizer = FRUGAL([p], lr=0.1, density=0.5, refresh_interval=4, rest_scale=0.3)
    flip = shape[0] > shape[1]
    w = w.T if flip else w
    for k in (0, 4):
        part = gs[k : k + 4]
        run(optimizer, p, part)
        chosen = optimizer.state[p]["basis"].numpy().argmax(axis=0)
        assert len(set(chosen)) == 3
        ms = [g.numpy().T if flip else g.numpy() for g in part]
        # the moments begin anew with each subspace
        for g, step in zip(ms, adam_directions([m[chosen] for m in ms]), strict=True):
            move = 0.3 * np.sign(g)
            move[chosen] = step
            w = w - 0.1 * move
    assert np.allclose(p.detach().numpy(), w.T if flip else w, atol=1e-12)


# -- the cosine transform ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_cosines_are_the_transform(n: int) -> None:
    d = cosines(n, torch.float64, CPU).numpy()
    assert np.allclose(d, dct(n), atol=1e-14)
    assert np.allclose(d.T @ d, np.eye(n), atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**16), st.data())
def test_what_the_strongest_columns_leave_out_is_bounded(
    m: int, n: int, seed: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, n))
    g = torch.tensor(np.random.default_rng(seed).normal(size=(m, n)))
    d = cosines(n, torch.float64, CPU)
    chosen = d[:, strongest(g @ d, rank, 2)]
    error = (g - g @ chosen @ chosen.mT).square().sum()
    assert error <= (1 - rank / n) * g.square().sum() + 1e-12


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)], ids=str)
@pytest.mark.parametrize("feedback", [False, True])
def test_dct_adamw_is_its_formula(shape: tuple[int, int], feedback: bool) -> None:
    """With moments rotated by ``Q_prev^T Q_new``, as published."""
    gs = gradients(shape, 9)
    p = fresh(shape)
    w = p.detach().numpy().copy()
    options: dict[str, Any] = {"rank": 2, "refresh_interval": 2, "error_feedback": feedback}
    run(DCTAdamW([p], lr=0.1, weight_decay=0.1, **options), p, gs)
    flip = shape[0] < shape[1]
    w = w.T if flip else w
    d = dct(6)
    left = np.zeros_like(w)
    q: A | None = None
    m = v = np.zeros((9, 2))
    for t, tensor in enumerate(gs, 1):
        g = tensor.numpy().T if flip else tensor.numpy()
        a = g + left if feedback else g
        if t % 2 == 1:
            new = d[:, np.sort(np.argsort(-np.abs(a @ d).sum(0))[:2])]
            if q is not None:
                m, v = m @ (q.T @ new), np.abs(v @ (q.T @ new))
            q = new
        assert q is not None
        r = a @ q
        left = a - r @ q.T
        m, v = 0.9 * m + 0.1 * r, 0.999 * v + 0.001 * r**2
        u = m / (1e-8 * np.sqrt(1 - 0.999**t) + np.sqrt(v)) * np.sqrt(1 - 0.999**t)
        w = w * (1 - 0.1 * 0.1) - 0.1 * u / (1 - 0.9**t) @ q.T
    assert np.allclose(p.detach().numpy(), w.T if flip else w, atol=1e-10)


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)], ids=str)
def test_trion_is_its_formula(shape: tuple[int, int]) -> None:
    gs = gradients(shape, 8)
    p = fresh(shape)
    w = p.detach().numpy().copy()
    run(Trion([p], lr=0.1, weight_decay=0.1, momentum=0.8, rank=2, adjust_lr_fn="dion"), p, gs)
    flip = shape[0] < shape[1]
    w = w.T if flip else w
    d, m = dct(6), np.zeros((9, 6))
    for tensor in gs:
        m = m + (tensor.numpy().T if flip else tensor.numpy())
        s = m @ d
        index = np.argsort(-np.abs(s).sum(0))[:2]
        m = m - 0.2 * s[:, index] @ d[:, index].T
        o = newton_schulz(s[:, index].T).T @ d[:, index].T
        w = w * (1 - 0.1 * 0.1) - 0.1 * math.sqrt(shape[0] / shape[1]) * o
    assert np.allclose(p.detach().numpy(), w.T if flip else w, atol=1e-10)


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)], ids=str)
def test_trion_at_full_rank_is_muon(shape: tuple[int, int]) -> None:
    gs = gradients(shape, 8)
    a, b = fresh(shape), fresh(shape)
    run(Trion([a], lr=0.1, rank=6, weight_decay=0.1), a, gs)
    run(Muon([b], lr=0.1, nesterov=False, weight_decay=0.1), b, gs)
    assert torch.allclose(a, b, atol=1e-10)


# -- COSMOS -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)], ids=str)
def test_cosmos_is_its_formula_and_leaves_the_gradient_alone(shape: tuple[int, int]) -> None:
    gs = gradients(shape, 8)
    p = fresh(shape)
    w = p.detach().numpy().copy()
    kept = [g.clone() for g in gs]
    run(COSMOS([p], lr=0.1, weight_decay=0.1, rank=2), p, gs)
    assert all(torch.equal(a, b) for a, b in zip(gs, kept, strict=True))
    m, v, s = np.zeros(shape), np.zeros((shape[0], 2)), np.zeros((2, 2))
    u = np.zeros((shape[1], 2))
    size = math.sqrt(shape[0] * shape[1])
    for t, tensor in enumerate(gs, 1):
        g = tensor.numpy()
        m = 0.9 * m + g
        ahead = (g + 0.9 * m) / (1 + 0.9 * (1 - 0.9**t) / 0.1)
        if t == 1:
            new = np.linalg.svd(g.T @ g)[0][:, :2]
        else:
            new = np.linalg.qr(0.95 * u @ s + 0.05 * g.T @ (g @ u))[0]
        s = 0.95 * (u.T @ new).T @ s @ (u.T @ new) + 0.05 * (g @ new).T @ (g @ new)
        u = new
        v = 0.95 * v + 0.05 * (g @ u) ** 2
        a = (ahead @ u / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)) @ u.T
        rest = ahead - ahead @ u @ u.T
        b = newton_schulz(rest.T).T if shape[0] > shape[1] else newton_schulz(rest)
        step = a + 0.2 * b * size / np.linalg.norm(b)
        w = w * (1 - 0.1 * 0.1) - 0.1 * 0.1 * size * step / np.linalg.norm(step)
    assert np.allclose(p.detach().numpy(), w, atol=1e-9)


def test_cosmos_keeps_its_state_orthonormal_and_has_muon_as_limit() -> None:
    gs = gradients((7, 5), 12)
    p, q = fresh((7, 5)), fresh((7, 5))
    optimizer, limit = COSMOS([p], rank=3), COSMOS([q], rank=0, betas=(0.0, 0.9))
    bases = []
    for g in gs:
        run(optimizer, p, [g])
        basis = optimizer.state[p]["basis"]
        bases.append(basis.clone())
        assert torch.allclose(basis.mT @ basis, torch.eye(3, dtype=torch.float64), atol=1e-12)
        before = q.detach().clone()
        run(limit, q, [g])
        flat, move = orthogonal(g), (before - q).detach()
        assert torch.allclose(move / move.norm(), flat / flat.norm(), atol=1e-10)
    assert not torch.equal(bases[0], bases[-1])


def test_cosmos_makes_no_direction_of_rounding() -> None:
    """A gradient of rank 2 lies in its subspace of 2: nothing is left for Newton-Schulz."""
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(8, 2)), rng.normal(size=(2, 6))
    p = torch.zeros(8, 6, requires_grad=True)
    optimizer = COSMOS([p], rank=2)
    for _ in range(5):
        run(optimizer, p, [torch.tensor(u @ np.diag(rng.normal(size=2)) @ v)])
    outside = p.detach().numpy() - p.detach().numpy() @ np.linalg.pinv(v) @ v
    assert np.linalg.norm(outside) < 1e-3 * np.linalg.norm(p.detach().numpy())


# -- random subspace --------------------------------------------------------------------------


def test_a_random_subspace_is_what_its_dense_matrix_says() -> None:
    """Law: the step is that of the coordinates under ``p0 + P z``, P with unit columns."""
    shapes = [(4, 3), (5,)]
    params = [fresh(s) for s in shapes]
    first = torch.cat([p.detach().reshape(-1) for p in params])
    optimizer = RandomSubspace(params, 3, lambda z: SGD(z, lr=0.1, momentum=0.9), seed=3)
    columns = []
    for k in range(3):
        optimizer.place(torch.eye(3, dtype=torch.float64)[k])
        columns.append(torch.cat([p.detach().reshape(-1) for p in params]) - first)
    matrix = torch.stack(columns, dim=1)
    assert torch.allclose(matrix.norm(dim=0), torch.ones(3, dtype=torch.float64))
    optimizer.place(torch.zeros(3, dtype=torch.float64))
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in params]), first)
    z, m = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(5):
        optimizer.zero_grad()
        torch.stack([(p**2).sum() for p in params]).sum().backward()
        optimizer.step()
        m = 0.9 * m + matrix.mT @ (2 * (first + matrix @ z))
        z = z - 0.1 * m
        now = torch.cat([p.detach().reshape(-1) for p in params])
        assert torch.allclose(now, first + matrix @ z, atol=1e-12)


def test_a_random_subspace_finds_a_planted_dimension() -> None:
    """A loss on 4 numbers of 200 is solved from 4 coordinates on, and by 3 it is not."""
    target = torch.tensor([1.0, -2.0, 3.0, 0.5])
    losses = []
    for dim in (3, 4):
        w = torch.zeros(200, requires_grad=True)
        probe = torch.randn(4, 200, generator=torch.Generator().manual_seed(1))
        optimizer = RandomSubspace([w], dim, lambda z: SGD(z, lr=0.05, momentum=0.9))
        for _ in range(500):
            optimizer.zero_grad()
            loss = (probe @ w - target).square().sum()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] < 1e-4 < 1e-1 < losses[0]


def test_a_random_subspace_continues_from_its_state() -> None:
    def closure(p: torch.Tensor, optimizer: RandomSubspace) -> None:
        optimizer.zero_grad()
        (p**4).sum().backward()
        optimizer.step()

    p, q = fresh((4, 3)), torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    one, two = (RandomSubspace([x], 3, lambda z: AdamW(z, lr=0.1)) for x in (p, q))
    for _ in range(3):
        closure(p, one)
    two.load_state_dict(one.state_dict())
    for _ in range(3):
        closure(p, one)
        closure(q, two)
    assert torch.equal(p, q)
    other = RandomSubspace([fresh((4, 3))], 2, lambda z: AdamW(z))
    with pytest.raises(ValueError, match="cannot load this state"):
        other.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="must have"):
        one.place(torch.zeros(4))


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (FRUGAL, {"density": 1.5}, "Invalid density"),
        (FRUGAL, {"projection": "rows"}, "projection='rows' is unknown"),
        (NaturalGaLore, {"damping": 0.0}, "damping=0.0 above 0"),
        (DCTAdamW, {"norm": 3}, "norm=3 is unknown"),
        (DCTAdamW, {"rank": 0}, "rank=0 must be 1 or more"),
        (Trion, {"adjust_lr_fn": "kj"}, "adjust_lr_fn='kj' is unknown"),
        (COSMOS, {"rank": -1}, "Invalid rank"),
    ],
    ids=str,
)
def test_bad_options_are_refused(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls([torch.zeros(3, 3)], **options)


def test_trion_refuses_vectors() -> None:
    with pytest.raises(ValueError, match="give it to AdamW"):
        Trion([torch.zeros(3)])
