"""State in fewer bytes: what is kept, and what must never happen."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from optimizers.numeric.adam import AdamW
from optimizers.numeric.codecs.codec import Codec
from optimizers.numeric.codecs.dynamic import code_book
from optimizers.numeric.codecs.plain import round_stochastically
from optimizers.numeric.codecs.table import CODECS
from optimizers.numeric.rules.rule import State

SIGNED, POSITIVE = State("m"), State("v", signed=False)
EIGHT = [CODECS["8bit"], CODECS["8bit-dynamic"]]
MOST = 4e9  # the largest number that has a scale in half precision, as Companding says


def kept(codec: Codec, x: torch.Tensor, state: State) -> torch.Tensor:
    parts = codec.empty(x, state)
    codec.encode(x, parts, state, seed=1)
    return codec.decode(parts, state, torch.float32)


@pytest.mark.parametrize("codec", EIGHT, ids=lambda c: c.name)
@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 700),
    spread=st.floats(0.0, 3.0),
    size=st.floats(-9.0, 6.0),
    seed=st.integers(0, 99),
)
@example(count=200, spread=2.9, size=6.7, seed=0)  # 3.4e9
def test_8_bits_keep_signs_order_of_size_and_positive_moments_positive(
    codec: Codec, count: int, spread: float, size: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator)
    x = (x + x.sign() * 0.01) * torch.exp(spread * torch.randn(count, generator=generator))
    x = x * 10**size
    assume(bool(x.abs().max() <= MOST))
    m = kept(codec, x, SIGNED)
    assert bool(((m == 0) | (m.sign() == x.sign())).all())
    top = x.abs().max()
    assert (m - x).abs().max() <= 0.02 * top + 1e-30
    v = kept(codec, x.square().clamp_min(1e-14), POSITIVE)
    assert bool((v > 0).all())
    zero = torch.zeros(count)
    assert torch.equal(kept(codec, zero, SIGNED), zero)
    assert torch.equal(kept(codec, zero, POSITIVE), zero)


def test_the_dynamic_map_is_the_published_one() -> None:
    """Built as the paper does: an exponent of leading zeros, then a linear fraction."""
    for signed in (True, False):
        values = [0.0, 1.0]
        for i in range(7):
            items = 2**i if signed else 2 ** (i + 1)
            edges = torch.linspace(0.1, 1.0, items + 1, dtype=torch.float64)
            means = ((edges[1:] + edges[:-1]) / 2 * 10.0 ** (i - 6)).tolist()
            values += means + ([-x for x in means] if signed else [])
        assert len(values) == 256
        ours = torch.tensor(code_book(signed), dtype=torch.float64)
        assert torch.allclose(ours, torch.tensor(sorted(values), dtype=torch.float64))


def test_stochastic_rounding_is_right_on_average_and_repeatable() -> None:
    x = torch.full((1 << 16,), 1.0 + 2**-10)
    once = round_stochastically(x, seed=7)
    assert torch.equal(once, round_stochastically(x, seed=7))
    assert not torch.equal(once, round_stochastically(x, seed=8))
    assert set(once.float().tolist()) == {1.0, 1.0 + 2**-7}
    assert abs(once.float().mean().item() - x[0].item()) < 1e-4
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -1.5])
    assert str(round_stochastically(odd, 3).float()) == str(odd)


@pytest.mark.parametrize("name", CODECS)
def test_adamw_with_this_state_follows_adamw(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    w0 = torch.randn(96, 64, generator=generator)
    limit = {"fp32": 0.0, "bf16": 0.05, "bf16-stochastic": 0.05, "8bit": 0.05, "8bit-dynamic": 0.1}
    params = [w0.clone().requires_grad_() for _ in range(2)]
    exact = AdamW([params[0]], lr=0.01)
    coded = AdamW([params[1]], lr=0.01, state=name)
    for _ in range(30):
        g = torch.randn(96, 64, generator=generator) + 0.5
        for p, optimizer in zip(params, (exact, coded), strict=True):
            p.grad = g.clone()
            optimizer.step()
    moved, other = (p.detach() - w0 for p in params)
    assert (moved - other).norm() <= limit[name] * moved.norm()
    held = sum(
        x.numel() * x.element_size() for k, x in coded.state[params[1]].items() if k != "step"
    )
    per_element = {"fp32": 8, "bf16": 4, "bf16-stochastic": 4, "8bit": 2.125, "8bit-dynamic": 2.04}
    assert held <= per_element[name] * w0.numel()


@pytest.mark.parametrize("name", CODECS)
def test_coded_state_continues_bit_by_bit_and_becomes_any_other(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(70, 64, generator=generator).bfloat16().requires_grad_()
    optimizer = AdamW([p], lr=0.01, state=name)
    grads = [torch.randn(70, 64, generator=generator).bfloat16() for _ in range(8)]
    for g in grads[:4]:
        p.grad = g
        optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    q = p.detach().clone().requires_grad_()
    other = AdamW([q], lr=0.01, state=name)
    other.load_state_dict(saved)
    for g in grads[4:]:
        p.grad = q.grad = g
        optimizer.step()
        other.step()
    assert torch.equal(p, q)
    for wanted in CODECS:
        r = p.detach().clone().requires_grad_()
        translated = AdamW([r], state=wanted)
        translated.load_state_dict(saved)
        r.grad = grads[0]
        translated.step()
        assert translated.state[r]["exp_avg"].dtype == {
            "fp32": torch.float32,
            "bf16": torch.bfloat16,
            "bf16-stochastic": torch.bfloat16,
        }.get(wanted, torch.uint8)
