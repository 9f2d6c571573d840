"""The native executor on whatever tensors a search finds: it does what the definition says, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optimizers.numeric.adam import AdamW
from optimizers.numeric.executors import native
from optimizers.numeric.executors.cpp import UNIT
from optimizers.numeric.lion import Lion
from optimizers.numeric.rule_optimizer import RuleOptimizer
from optimizers.numeric.rules.rule import define
from optimizers.numeric.sgd import SGD

pytestmark = pytest.mark.skipif(not native.available(), reason="there is no C++ compiler here")

MAKE: dict[str, Callable[..., RuleOptimizer]] = {
    "AdamW": lambda groups, **o: AdamW(groups, backend="native", **o),
    "SGD": lambda groups, **o: SGD(groups, momentum=0.9, dampening=0.5, backend="native", **o),
    "Lion": lambda groups, **o: Lion(groups, backend="native", **o),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-5}
SPECIAL = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-42, -1e-30, 1e12]

shapes = st.lists(st.sampled_from([0, 1, 2, 3, 5, 17, 64]), max_size=3).map(tuple)
layouts = st.sampled_from(["plain", "transposed", "gaps", "shifted", "expanded"])


def laid(x: Tensor, layout: str) -> Tensor:
    """The values of `x` in another layout."""
    if layout == "transposed" and x.dim() > 1:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "gaps" and x.dim():
        return torch.stack([x, torch.full_like(x, 7.0)], dim=-1)[..., 0]
    if layout == "shifted":
        return torch.cat([x.new_full((1,), 7.0), x.reshape(-1)])[1:].view(x.shape)
    return x.clone()


@st.composite
def gradients(draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    if draw(st.integers(0, 7)) == 0:
        return None
    g = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    if g.numel():
        for value in draw(st.lists(st.sampled_from(SPECIAL), max_size=3)):
            g.view(-1)[draw(st.integers(0, g.numel() - 1))] = value
    layout = draw(layouts)
    if layout == "expanded" and g.dim() and shape[0]:
        return g.to(dtype)[:1].expand(shape)
    return laid(g.to(dtype), layout)


@pytest.mark.parametrize("optimizer", MAKE)
@settings(max_examples=30)
@given(data=st.data())
def test_native_is_the_definition_whatever_the_tensors(optimizer: str, data: st.DataObject) -> None:
    """Shapes, layouts, groups, missing gradients, NaN and infinity; each beside its float64 definition."""
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    if optimizer == "Lion":  # in fewer digits the sign of a sum near zero is not settled
        dtype = torch.float64
    groups: list[dict[str, Any]] = []
    for _ in range(data.draw(st.integers(1, 3))):
        found = []
        for _ in range(data.draw(st.integers(0, 3))):
            seed = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
            start = torch.randn(data.draw(shapes), generator=seed, dtype=dtype)
            found.append(laid(start, data.draw(layouts)).requires_grad_())
        rates = {"lr": data.draw(st.sampled_from([0.0, 0.01, 0.5])), "weight_decay": 0.1}
        groups.append({"params": found, **rates, "maximize": data.draw(st.booleans())})
    if not any(group["params"] for group in groups):
        return
    made = MAKE[optimizer](groups)
    every = [(p, group) for group in made.param_groups for p in group["params"]]
    starts = [p.detach().clone() for p, _ in every]
    outside = [p._base.detach().clone() if p._base is not None else None for p, _ in every]
    fed: list[list[np.ndarray[Any, Any]]] = [[] for _ in every]
    for _ in range(4):
        for (p, group), seen in zip(every, fed, strict=True):
            g = data.draw(gradients(tuple(p.shape), dtype))
            p.grad = g
            if g is not None:
                sign = -1.0 if group["maximize"] else 1.0
                seen.append(sign * g.double().numpy())
        kept = [None if p.grad is None else p.grad.clone() for p, _ in every]
        made.step()
        for (p, _), before in zip(every, kept, strict=True):
            assert (p.grad is None) == (before is None)
            if before is not None:
                assert torch.equal(p.grad.nan_to_num(3.5), before.nan_to_num(3.5))
    for (p, group), start, seen, base in zip(every, starts, fed, outside, strict=True):
        with np.errstate(all="ignore"):
            wanted, _ = define(made.rule(group), start.double().numpy(), seen, group)
        tolerance = TOLERANCE[dtype]
        np.testing.assert_allclose(
            p.detach().double().numpy(), wanted, rtol=tolerance, atol=tolerance
        )
        if base is not None and p._base is not None and p._base.numel() != p.numel():
            inside = torch.zeros_like(base, dtype=torch.bool)
            inside.as_strided(p.shape, p.stride(), p.storage_offset()).fill_(True)
            assert torch.equal(p._base[~inside], base[~inside])  # what lies beside it stays


@pytest.mark.parametrize("state", ["fp32", "bf16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("optimizer", MAKE)
def test_an_element_steps_alike_wherever_it_stands(
    optimizer: str, dtype: torch.dtype, state: str
) -> None:
    """Within a line of the cache, in what is left after the last, in a tensor of its own: to the bit."""
    g = torch.Generator().manual_seed(3)
    whole = torch.randn(2 * UNIT + 200, generator=g).to(dtype)
    steps = [torch.randn(len(whole), generator=g).to(dtype) for _ in range(3)]
    cuts = [0, 1, 3, 10, 25, 41, 72, 105, 200, UNIT + 207, len(whole)]
    one = whole.clone().requires_grad_()
    many = [whole[a:b].clone().requires_grad_() for a, b in pairwise(cuts)]
    o, m = MAKE[optimizer]([one], state=state), MAKE[optimizer](many, state=state)
    for step in steps:
        one.grad = step.clone()
        for p, (a, b) in zip(many, pairwise(cuts), strict=True):
            p.grad = step[a:b].clone()
        o.step()
        m.step()
    assert not torch.equal(one, whole)
    assert torch.equal(one, torch.cat(many))
    for kind in o.rule(o.param_groups[0]).states:
        parts = [m.state[p][kind.name] for p in many]
        assert torch.equal(o.state[one][kind.name], torch.cat(parts))
