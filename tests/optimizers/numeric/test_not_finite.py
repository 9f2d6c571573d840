"""Steps that count on the device where a gradient is not finite: they raise, or torch's scaler decides."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch

from optimizers.numeric import optimizer as optimizer_module
from optimizers.numeric.adam import AdamW
from tests.optimizers.numeric.family import Row
from tests.optimizers.numeric.test_captured import PLAIN, QUICK, parameters, parameters_of, together
from tracegraph.errors import NonFinite


@pytest.mark.parametrize("row", [row for row in PLAIN if row.name in QUICK], ids=str)
def test_outside_of_a_graph_what_is_not_finite_is_raised_and_nothing_changes(row: Row) -> None:
    """By steps that count on the device as by others; torch's scaler skips such a step beforehand."""
    one = row(parameters(), nonfinite="raise")
    two = row(parameters(), nonfinite="raise", capturable=True)
    assert together(one, two, one.step, two.step, 3) <= 2e-6
    ps = parameters_of(two)

    def held() -> list[torch.Tensor]:
        return [x for p in ps for x in (p.detach(), *two.state[p].values())]

    before = copy.deepcopy(held())
    for bad in (torch.nan, torch.inf):
        for t in (0, 1):
            ps[t].grad = torch.full_like(ps[t], bad)
            with pytest.raises(NonFinite, match=f"gradient of parameter {t} of group 0 holds NaN"):
                two.step()
            ps[t].grad = torch.ones_like(ps[t])
    assert all(map(torch.equal, before, held()))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(ps[1].sum()).backward()  # type: ignore[no-untyped-call]
    ps[1].grad = torch.full_like(ps[1], torch.inf)
    scaler.step(two)
    scaler.update()
    assert scaler.get_scale() == 2.0
    assert all(map(torch.equal, before, held()))
    assert together(one, two, one.step, two.step, 3) <= 2e-6


def test_a_graph_that_could_raise_nothing_is_refused_before_anything_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No processor captures graphs, so it is said to be one of those that do."""
    monkeypatch.setattr(optimizer_module, "captures", lambda device: True)
    p = torch.zeros(2, requires_grad=True)
    p.grad = torch.ones(2)
    optimizer = AdamW([p], nonfinite="raise", capturable=True)
    with pytest.raises(RuntimeError, match=r"nonfinite='raise'.* CUDA graph .*nonfinite='skip'"):
        optimizer.step()
    assert not p.detach().any()
    assert not optimizer.state


@pytest.mark.parametrize("unscaled", [False, True])
def test_torchs_scaler_hands_a_captured_step_its_factor_and_what_it_found(unscaled: bool) -> None:
    """As to torch's fused AdamW, beside which it steps: scales, skips and grows alike."""
    ps, qs, rs = (parameters()[:2] for _ in range(3))
    theirs = torch.optim.AdamW(ps, lr=0.1, fused=True)
    ours = AdamW(qs, lr=0.1, capturable=True)
    clipped = AdamW(rs, lr=0.1, capturable=True, clip_norm=1e9)
    optimizers = (theirs, ours, clipped)
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3) for _ in range(3)]
    generator = torch.Generator().manual_seed(0)
    for t in range(12):
        at = [torch.randn(p.shape, generator=generator) for p in ps]
        for optimizer, scaler in zip(optimizers, scalers, strict=True):
            optimizer.zero_grad()
            params = parameters_of(optimizer)
            loss = sum((p * x).sum() for p, x in zip(params, at, strict=True))
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if t in (0, 5):
                params[1].grad[0] = torch.inf  # type: ignore[index]
            if unscaled:
                scaler.unscale_(optimizer)
            with mock.patch.object(torch.Tensor, "item", side_effect=AssertionError("it waited")):
                scaler.step(optimizer)
            scaler.update()
        assert len({scaler.get_scale() for scaler in scalers}) == 1
    assert scalers[0].get_scale() != 1024.0
    assert ours.skipped == clipped.skipped == 2
    for p, q, r in zip(ps, qs, rs, strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)
        assert torch.allclose(p, r, rtol=1e-5, atol=1e-6)
