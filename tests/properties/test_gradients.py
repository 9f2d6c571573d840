"""Gradients through random graphs are those of plain torch."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from hypothesis import given, settings

import tracegraph as tg
from tests.properties.torch_programs import NUMBERS, RULED, TORCH, TensorProgram, tensor_programs
from tracegraph import Gradient, node


def in_torch(program: TensorProgram) -> tuple[list[Any], Any]:
    """The gradients that torch's own engine gives, and that of the number."""
    starts = [torch.tensor(s, dtype=torch.float64, requires_grad=True) for s in program.starts]
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    values = program.run(starts, rate)
    chosen = [(values[at % len(values)], weight) for at, weight in program.outputs]
    grads = torch.autograd.grad(
        [v for v, _ in chosen],
        [*starts, rate],
        [torch.ones_like(v) * weight for v, weight in chosen],
        allow_unused=True,
    )
    return list(grads[:-1]), grads[-1]


def traced(program: TensorProgram) -> tuple[list[Any], Any, int]:
    """The same on nodes, in one walk, and how often torch's engine ran."""
    starts = [
        node(torch.tensor(s, dtype=torch.float64), trainable=True, name=f"p{i}")
        for i, s in enumerate(program.starts)
    ]
    rate = node(0.7, trainable=True, name="rate")
    values = program.run(list(starts), rate)
    chosen = [(values[at % len(values)], 1.0, weight) for at, weight in program.outputs]
    with mock.patch("torch.autograd.grad", wraps=torch.autograd.grad) as engine:
        received = tg.backward(chosen)
    for p in starts:
        if p in received:
            assert torch.equal(p.data.grad, received[p][Gradient].value)
        else:
            assert p.data.grad is None
    grads = [received[p][Gradient].value if p in received else None for p in starts]
    return grads, received[rate][Gradient].value if rate in received else None, engine.call_count


def agree(got: Any, want: Any, *, exactly: bool) -> None:
    if got is None or want is None:
        nothing = got if want is None else want
        assert nothing is None or not torch.as_tensor(nothing).any()
        return
    got = torch.as_tensor(got, dtype=torch.float64)
    if exactly:
        assert torch.equal(got, want)
    assert torch.allclose(got, want, rtol=1e-9, atol=1e-9)


@given(tensor_programs(TORCH))
@settings(deadline=None)
def test_torch_graphs_bit_for_bit_in_one_engine_call(program: TensorProgram) -> None:
    """Bit for bit from one output; what several outputs give is added in the order of the walk."""
    want, _ = in_torch(program)
    got, _, calls = traced(program)
    for mine, theirs in zip(got, want, strict=True):
        agree(mine, theirs, exactly=len(program.outputs) == 1)
    assert calls <= 1


@given(tensor_programs(TORCH, RULED, NUMBERS))
@settings(deadline=None, max_examples=200)
def test_graphs_with_rules_between_and_numbers(program: TensorProgram) -> None:
    want, want_rate = in_torch(program)
    got, rate, calls = traced(program)
    for mine, theirs in zip(got, want, strict=True):
        agree(mine, theirs, exactly=False)
    agree(rate, want_rate, exactly=False)
    ruled = sum(name in RULED for name, _ in program.steps)
    numbers = sum(name == "shift" for name, _ in program.steps)
    assert calls <= 1 + ruled + numbers
