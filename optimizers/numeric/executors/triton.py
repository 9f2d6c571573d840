"""A rule run on a GPU by one generic Triton kernel over a table of pointers.

One launch for all tensors of a batch: each program works on one chunk of one tensor. The rule's
body is handed to the kernel as a device function; scalars lie in a device vector, so a changed rate
recompiles nothing.
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

from optimizers.numeric.codecs import companding, dynamic
from optimizers.numeric.executors.batch import Batch, Executor, seed_of
from optimizers.numeric.executors.device import on
from optimizers.numeric.executors.stored import (
    CODECS,
    ROUNDINGS,
    STOCHASTIC,
    held,
    keep,
    mix,
    narrowed,
    read,
    widened,
)
from optimizers.numeric.executors.tables import BLOCK, Launch, sent
from optimizers.numeric.rules.rule import Rule

__all__ = ["BLOCK", "GROUPS", "Triton", "device_function", "multi_tensor"]

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}
STORED = {**TYPES, torch.uint8: tl.uint8, torch.int8: tl.int8, torch.int16: tl.int16}
GROUPS = {"8bit": companding.GROUP, "8bit-dynamic": dynamic.BLOCK}


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
    first,
    n,
    scale,
    h,
    books,
    salt,
    draw,
    MASKED: tl.constexpr,
    BODY: tl.constexpr,
    SIGNS: tl.constexpr,
    CODEC: tl.constexpr,
    ROUND: tl.constexpr,
    P: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    off = first + tl.arange(0, BLOCK)
    p_at = tl.multiple_of(tl.load(table + i).to(tl.pointer_type(P)), 16) + off
    g_at = tl.multiple_of(tl.load(table + tensors + i).to(tl.pointer_type(P)), 16) + off
    PARTS: tl.constexpr = 1 if CODEC <= STOCHASTIC else 2
    rest = p_at  # nothing lies beside a parameter without a rest
    if ROUND > 1:
        row = (2 + PARTS * len(SIGNS)) * tensors + i
        rest = tl.multiple_of(tl.load(table + row).to(tl.pointer_type(R)), 16) + off
    p = widened(p_at, rest, off, n, MASKED, ROUND)
    g = read(g_at, off, n, MASKED).to(tl.float32) * scale
    s = ()
    for k in tl.static_range(len(SIGNS)):
        at = 2 + k * PARTS
        was = held(table, at, tensors, i, first, n, books, MASKED, SIGNS[k], CODEC, S, GROUP, BLOCK)
        s = s + (was,)  # noqa: RUF005
    new, s = BODY(p, g, s, h)
    for k in tl.static_range(len(SIGNS)):
        at = 2 + k * PARTS
        keep(
            s[k],
            table,
            at,
            tensors,
            i,
            first,
            n,
            books,
            salt,
            MASKED,
            SIGNS[k],
            CODEC,
            S,
            GROUP,
            BLOCK,
        )
    narrowed(new, p_at, rest, off, n, draw, MASKED, ROUND, P, R)


@triton.jit
def multi_tensor(
    table,
    numel,
    tensor_of,
    chunk_of,
    hyper,
    pitch,
    apart,
    seeds,
    books,
    tensors,
    BODY: tl.constexpr,
    SIGNS: tl.constexpr,
    CODEC: tl.constexpr,
    ROUND: tl.constexpr,
    NH: tl.constexpr,
    P: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One chunk of one tensor; the branch without a mask is what makes accesses 128 bits wide.

    Number `k` of tensor `i` is ``hyper[k * pitch + i * apart]``: the scalars, the factor of its
    gradient, and 0 where it is to stay as it is. `seeds` lie alike: of states, and of parameters.
    """
    b = tl.program_id(0)
    i = tl.load(tensor_of + b).to(tl.int64)
    first = tl.load(chunk_of + b).to(tl.int64) * BLOCK
    here = i * apart
    h = ()
    for k in tl.static_range(NH):
        h = h + (tl.load(hyper + k * pitch + here),)  # noqa: RUF005
    scale = tl.load(hyper + NH * pitch + here)
    go = tl.load(hyper + (NH + 1) * pitch + here)
    n = tl.where(go != 0, tl.load(numel + i), 0)  # of a tensor without elements nothing is written
    salt = mix((tl.load(seeds + here) + i).to(tl.uint32))
    draw = mix((~(tl.load(seeds + pitch + here) + i)).to(tl.uint32))
    if first + BLOCK <= n:
        _chunk(
            table,
            i,
            tensors,
            first,
            n,
            scale,
            h,
            books,
            salt,
            draw,
            False,
            BODY,
            SIGNS,
            CODEC,
            ROUND,
            P,
            S,
            R,
            GROUP,
            BLOCK,
        )
    else:
        _chunk(
            table,
            i,
            tensors,
            first,
            n,
            scale,
            h,
            books,
            salt,
            draw,
            True,
            BODY,
            SIGNS,
            CODEC,
            ROUND,
            P,
            S,
            R,
            GROUP,
            BLOCK,
        )


@cache
def _books(device: torch.device) -> Tensor:
    """The dynamic map's values and the edges between them: signed, then unsigned."""
    rows = []
    for signed in (True, False):
        values = torch.tensor(dynamic.code_book(signed), dtype=torch.float32, device="cpu")
        rows += [values, (values[1:] + values[:-1]) / 2, values[-1:]]
    return torch.cat(rows).to(device)


class Triton(Executor):
    """One kernel launch for all tensors, on a GPU (or in Triton's interpreter)."""

    name: ClassVar[str] = "triton"
    complete: ClassVar[bool] = True

    @override
    def takes(self, batch: Batch) -> bool:
        """Contiguous float32 or bfloat16 tensors, their gradients alike, at multiples of 16 bytes."""
        if isinstance(batch.addresses, Launch):
            return all(g.data_ptr() % 16 == 0 for g in batch.grads)
        parts = [part for state in batch.states for part in state]
        return all(
            x.is_contiguous() and x.data_ptr() % 16 == 0
            for column in (batch.params, batch.grads, batch.rests, *parts)
            for x in column
        ) and all(
            p.dtype in TYPES and g.dtype == p.dtype
            for p, g in zip(batch.params, batch.grads, strict=True)
        )

    @override
    def run(self, batch: Batch) -> None:
        if batch.elements == 0:
            return
        device = batch.params[0].device
        p = batch.params[0].dtype
        s = batch.states[0][0][0].dtype if batch.states else p
        r = batch.rests[0].dtype if batch.rests else p
        with on(device):
            if batch.rows is None:
                found = Launch.follows(batch)
                hyper = sent([*batch.scalars, batch.scale, 1.0], torch.float32, device)
                seeds = sent([batch.seed, batch.draw], torch.int64, device)
                pitch, apart = 1, 0
            else:
                found = Launch.captured(batch)
                hyper, seeds = batch.rows[:-2].float(), seed_of(batch.rows[-2:], batch.place)
                pitch, apart = len(batch.params), 1
            multi_tensor[(len(found.tensor_of),)](
                found.table,
                found.sizes,
                found.tensor_of,
                found.chunk_of,
                hyper,
                pitch,
                apart,
                seeds,
                _books(device),
                len(batch.params),
                BODY=device_function(batch.rule),
                SIGNS=tuple(kind.signed for kind in batch.rule.states),
                CODEC=CODECS[batch.codec.name],
                ROUND=ROUNDINGS[batch.rounding.name],
                NH=len(hyper) - 2,
                P=TYPES[p],
                S=STORED[s],
                R=STORED[r],
                GROUP=GROUPS.get(batch.codec.name, 1),
                BLOCK=BLOCK,
            )
