"""A rule run on a GPU by one generic Triton kernel over a table of pointers.

One launch for all tensors of a batch: each program works on one chunk of one tensor. The rule's
body is handed to the kernel as a device function; scalars lie in a device vector, so a changed rate
recompiles nothing. This is the only file that imports triton.
"""

from __future__ import annotations

from functools import cache
from types import FunctionType
from typing import Any, ClassVar

import torch
import triton
import triton.language as tl
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.executors.batch import Batch, Executor
from optimizers.numeric.rules.rule import Rule

__all__ = ["BLOCK", "Triton", "device_function", "multi_tensor"]

BLOCK = 1024
TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}


@triton.jit
def _sqrt(x):
    return tl.sqrt(x)


@triton.jit
def _absolute(x):
    return tl.abs(x)


@triton.jit
def _where(condition, a, b):
    return tl.where(condition, a, b)


@triton.jit
def _sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))


@triton.jit
def _maximum(a, b):
    return tl.where(a < b, b, a)


@triton.jit
def _minimum(a, b):
    return tl.where(a > b, b, a)


DEVICE = {
    "sqrt": _sqrt,
    "absolute": _absolute,
    "where": _where,
    "sign": _sign,
    "maximum": _maximum,
    "minimum": _minimum,
}


@cache
def device_function(rule: Rule) -> Any:
    """The rule's body as a Triton device function."""
    body = rule.body
    assert isinstance(body, FunctionType)  # rules are plain functions
    # "Any" is what the bodies annotate; the compiler looks the name up and asks no more of it
    bound = FunctionType(body.__code__, {**DEVICE, "tl": tl, "Any": tl.tensor}, body.__name__)
    bound.__module__ = body.__module__
    return triton.jit(bound)


@triton.jit
def _chunk(
    table,
    i,
    tensors,
    off,
    n,
    scale,
    h,
    MASKED: tl.constexpr,
    BODY: tl.constexpr,
    NS: tl.constexpr,
    P: tl.constexpr,
    S: tl.constexpr,
):
    p_at = tl.multiple_of(tl.load(table + i).to(tl.pointer_type(P)), 16) + off
    g_at = tl.multiple_of(tl.load(table + tensors + i).to(tl.pointer_type(P)), 16) + off
    mask = off < n
    if MASKED:
        p = tl.load(p_at, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(g_at, mask=mask, other=0.0).to(tl.float32) * scale
    else:
        p = tl.load(p_at).to(tl.float32)
        g = tl.load(g_at).to(tl.float32) * scale
    s = ()
    for k in tl.static_range(NS):
        row = tl.load(table + (2 + k) * tensors + i)
        at = tl.multiple_of(row.to(tl.pointer_type(S)), 16) + off
        if MASKED:
            s = s + (tl.load(at, mask=mask, other=0.0).to(tl.float32),)  # noqa: RUF005
        else:
            s = s + (tl.load(at).to(tl.float32),)  # noqa: RUF005
    new, s = BODY(p, g, s, h)
    for k in tl.static_range(NS):
        row = tl.load(table + (2 + k) * tensors + i)
        at = tl.multiple_of(row.to(tl.pointer_type(S)), 16) + off
        if MASKED:
            tl.store(at, s[k].to(S), mask=mask)
        else:
            tl.store(at, s[k].to(S))
    if MASKED:
        tl.store(p_at, new.to(P), mask=mask)
    else:
        tl.store(p_at, new.to(P))


@triton.jit
def multi_tensor(
    table,
    numel,
    tensor_of,
    chunk_of,
    hyper,
    tensors,
    BODY: tl.constexpr,
    NS: tl.constexpr,
    NH: tl.constexpr,
    P: tl.constexpr,
    S: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One chunk of one tensor; the branch without a mask is what makes accesses 128 bits wide."""
    b = tl.program_id(0)
    i = tl.load(tensor_of + b).to(tl.int64)
    first = tl.load(chunk_of + b).to(tl.int64) * BLOCK
    n = tl.load(numel + i)
    off = first + tl.arange(0, BLOCK)
    h = ()
    for k in tl.static_range(NH):
        h = h + (tl.load(hyper + k),)  # noqa: RUF005
    scale = tl.load(hyper + NH)
    if first + BLOCK <= n:
        _chunk(table, i, tensors, off, n, scale, h, False, BODY, NS, P, S)
    else:
        _chunk(table, i, tensors, off, n, scale, h, True, BODY, NS, P, S)


class Triton(Executor):
    """One kernel launch for all tensors, on a GPU (or in Triton's interpreter)."""

    name: ClassVar[str] = "triton"

    @override
    def takes(self, batch: Batch) -> bool:
        """Contiguous float32 or bfloat16 tensors at addresses that 16 divides, plain states."""
        if batch.codec.name not in ("fp32", "bf16"):
            return False
        columns = [batch.params, batch.grads, *(state[0] for state in batch.states)]
        return all(
            x.is_contiguous() and x.dtype in TYPES and x.data_ptr() % 16 == 0
            for column in columns
            for x in column
        )

    @override
    def run(self, batch: Batch) -> None:
        if batch.elements == 0:
            return
        device = batch.params[0].device
        columns = [batch.params, batch.grads, *(state[0] for state in batch.states)]
        sizes = [p.numel() for p in batch.params]
        table = torch.tensor([[x.data_ptr() for x in column] for column in columns])
        numel = torch.tensor(sizes)
        chunks = -(-numel // BLOCK)
        tensor_of = torch.repeat_interleave(torch.arange(len(sizes)), chunks).to(torch.int32)
        starts = torch.repeat_interleave(chunks.cumsum(0) - chunks, chunks)
        chunk_of = (torch.arange(len(tensor_of)) - starts).to(torch.int32)
        hyper = torch.tensor([*batch.scalars, batch.scale], dtype=torch.float32)
        held: list[Tensor] = [x.to(device) for x in (table, numel, tensor_of, chunk_of, hyper)]
        p = batch.params[0].dtype
        s = batch.states[0][0][0].dtype if batch.states else p
        multi_tensor[(len(tensor_of),)](
            *held,
            len(sizes),
            BODY=device_function(batch.rule),
            NS=len(batch.states),
            NH=len(batch.scalars),
            P=TYPES[p],
            S=TYPES[s],
            BLOCK=BLOCK,
        )
