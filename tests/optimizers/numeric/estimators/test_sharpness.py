"""SAM's kin: published formulas, prices in passes, and what makes them worth it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from optimizers.numeric.adam import AdamW
from optimizers.numeric.estimators.sam import SAM, LookSAM, StaleSAM
from optimizers.numeric.estimators.trajectory import MESA, SAF, trajectory_loss
from optimizers.numeric.sgd import SGD

SCALE = torch.tensor([1.0, 3.0], dtype=torch.float64)


def closure_of(optimizer: Any, w: torch.Tensor, calls: list[int]) -> Any:
    def closure() -> torch.Tensor:
        calls.append(1)
        optimizer.zero_grad()
        loss = (SCALE * w**4).sum()
        loss.backward()
        return loss

    return closure


def slope(p: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return 4 * SCALE.numpy() * p**3


def test_stale_sam_is_its_formula_in_one_pass_per_step() -> None:
    w = torch.tensor([1.0, -0.5], dtype=torch.float64, requires_grad=True)
    optimizer, calls = StaleSAM(SGD([w], lr=0.01), rho=0.3), []
    p, last = w.detach().numpy().copy(), None
    for _ in range(6):
        e = 0 if last is None else 0.3 * last / np.linalg.norm(last)
        last = slope(p + e)
        optimizer.step(closure_of(optimizer, w, calls))
        p = p - 0.01 * last
        assert np.allclose(w.detach().numpy(), p, rtol=1e-12)
    assert len(calls) == 6


@pytest.mark.parametrize("interval", [1, 3])
def test_looksam_is_its_formula_and_climbs_every_few_steps(interval: int) -> None:
    w = torch.tensor([1.0, -0.5], dtype=torch.float64, requires_grad=True)
    optimizer, calls = LookSAM(SGD([w], lr=0.01), rho=0.3, interval=interval, alpha=0.7), []
    p, v = w.detach().numpy().copy(), np.zeros(2)
    for t in range(7):
        g = slope(p)
        if t % interval == 0:
            there = slope(p + 0.3 * g / np.linalg.norm(g))
            cosine = there @ g / np.linalg.norm(there) / np.linalg.norm(g)
            v = there - np.linalg.norm(there) * cosine * g / np.linalg.norm(g)
            step = there
        else:
            step = g + 0.7 * np.linalg.norm(g) / np.linalg.norm(v) * v
        optimizer.step(closure_of(optimizer, w, calls))
        p = p - 0.01 * step
        assert np.allclose(w.detach().numpy(), p, rtol=1e-12)
    assert len(calls) == 7 + -(-7 // interval)


@pytest.mark.parametrize("make", [StaleSAM, lambda o, **k: LookSAM(o, interval=3, **k)])
def test_a_restored_one_continues_bit_by_bit(make: Any) -> None:
    w = torch.tensor([1.0, -0.5], dtype=torch.float64, requires_grad=True)
    one = make(AdamW([w], lr=0.01), rho=0.3)
    for _ in range(4):
        one.step(closure_of(one, w, []))
    q = w.detach().clone().requires_grad_()
    two = make(AdamW([q], lr=0.5), rho=0.3)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for _ in range(4):
        one.step(closure_of(one, w, []))
        two.step(closure_of(two, q, []))
    assert torch.equal(w, q)
    r = torch.zeros(3, requires_grad=True)
    with pytest.raises(ValueError, match="cannot load this state"):
        make(AdamW([r]), rho=0.3).load_state_dict(one.state_dict())


@pytest.mark.parametrize("make", [SAM, StaleSAM, LookSAM])
def test_a_closure_that_fails_leaves_the_parameters(make: Any) -> None:
    w = torch.tensor([0.1, -0.2], dtype=torch.float64, requires_grad=True)
    optimizer = make(SGD([w], lr=0.0), rho=0.5)
    optimizer.step(closure_of(optimizer, w, []))
    before = w.detach().clone()
    calls: list[int] = []

    def fails() -> torch.Tensor:
        calls.append(1)
        if len(calls) == (1 if make is StaleSAM else 2) or make is LookSAM:
            raise RuntimeError("out of data")
        loss = (w * w).sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="out of data"):
        optimizer.step(fails)
    assert torch.equal(w, before)


# -- the trajectory loss ------------------------------------------------------------------------


def test_the_trajectory_loss_is_torchs_divergence_and_its_gradient_is_numeric() -> None:
    generator = torch.Generator().manual_seed(0)
    now, past = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    theirs = torch.nn.functional.kl_div(
        torch.log_softmax(now / 5, -1), torch.softmax(past / 5, -1), reduction="batchmean"
    )
    assert trajectory_loss(now, past).item() == pytest.approx(theirs.item(), rel=1e-12)
    x = now.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: trajectory_loss(x, past, 2.0), [x])
    assert trajectory_loss(now, now).item() == 0.0
    with pytest.raises(ValueError, match="give logits of the same samples"):
        trajectory_loss(now, past[:2])


def test_saf_compares_each_sample_with_itself_some_epochs_ago() -> None:
    generator = torch.Generator().manual_seed(1)
    saf = SAF(lag=2, start=3, weight=0.5, temperature=2.0)
    seen: dict[tuple[int, int], torch.Tensor] = {}
    for epoch in range(6):
        for batch in torch.randperm(8, generator=generator).split(3):
            logits = torch.randn(len(batch), 4, generator=generator, requires_grad=True)
            got = saf.penalty(batch, logits, epoch)
            for i, row in zip(batch.tolist(), logits.detach(), strict=True):
                seen[epoch, i] = row.clone()
            if epoch < 3:
                assert got.item() == 0.0
                continue
            past = torch.stack([seen[epoch - 2, i] for i in batch.tolist()])
            expected = 0.5 * trajectory_loss(logits, past, 2.0)
            assert got.item() == pytest.approx(expected.item(), rel=1e-6)
            assert got.requires_grad
    other = SAF(lag=2, start=3, weight=0.5, temperature=2.0)
    other.load_state_dict(copy.deepcopy(saf.state_dict()))
    x = torch.randn(2, 4, generator=generator)
    assert other.penalty([0, 7], x, 6) == saf.penalty([0, 7], x, 6) > 0
    # a sample that was not seen then has no term, and outputs that did not change have none
    assert saf.penalty([99], x[:1], 7).item() == 0.0
    assert saf.penalty([0, 7], x, 8).item() == 0.0
    with pytest.raises(ValueError, match="epoch=2 comes after epoch 8"):
        saf.penalty([0], x[:1], 2)
    with pytest.raises(ValueError, match="1 samples are named, and logits have 2 rows"):
        saf.penalty([0], x, 9)


def test_mesa_follows_the_average_and_leaves_the_model_alone() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    mesa = MESA(model, decay=0.8, weight=2.0, temperature=3.0, start=1)
    x = torch.randn(5, 3, dtype=torch.float64)
    mean = model[0].weight.detach().clone()
    assert mesa.penalty(model(x), x).item() == 0.0
    for _ in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        mesa.update()
        mean = 0.8 * mean + 0.2 * model[0].weight.detach()
        counted = model[1].num_batches_tracked.clone()
        past = mesa.average(x)
        assert torch.equal(model[1].num_batches_tracked, counted)
        logits = model(x)
        assert mesa.penalty(logits, x).item() == pytest.approx(
            2.0 * trajectory_loss(logits, past, 3.0).item()
        )
    assert torch.allclose(mesa.state_dict()["mean"]["0.weight"], mean)
    twin = MESA(copy.deepcopy(model), decay=0.8)
    twin.load_state_dict(mesa.state_dict())
    assert torch.equal(twin.average(x), mesa.average(x))
    with pytest.raises(ValueError, match="cannot load this state"):
        MESA(torch.nn.Linear(2, 2)).load_state_dict(mesa.state_dict())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SAF(lag=0), "lag=0 must be 1 or more"),
        (lambda: SAF(temperature=0.0), r"temperature=0\.0 must be more than 0"),
        (lambda: MESA(torch.nn.Linear(1, 1), decay=1.0), r"decay=1\.0 must be in"),
        (lambda: LookSAM(SGD([torch.zeros(1)]), interval=0), "interval=0 must be 1 or more"),
        (lambda: StaleSAM(SGD([torch.zeros(1)]), rho=-1.0), "Invalid rho value"),
    ],
)
def test_bad_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
