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
from optimizers.numeric.executors.tables import BLOCK, Launch, sent
from optimizers.numeric.rules.rule import Rule

__all__ = ["BLOCK", "CODECS", "GROUPS", "Triton", "device_function", "multi_tensor"]

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}
STORED = {**TYPES, torch.uint8: tl.uint8}

CODECS = {"fp32": 0, "bf16": 0, "bf16-stochastic": 1, "8bit": 2, "8bit-dynamic": 3}
"""How the kernel stores state, by the codec's name."""
PLAIN, STOCHASTIC, COMPANDED, MAPPED = (tl.constexpr(k) for k in range(4))
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
def _nearest(x):
    """The nearest whole number, ties to even, of magnitudes under 2^22."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _mix(x):
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def _rounded(x, off, salt):
    """bfloat16 above or below `x` at random; the bits that decide are a hash of the place."""
    bits = x.to(tl.uint32, bitcast=True)
    noise = _mix(off.to(tl.uint32) ^ salt) & 0xFFFF
    up = (bits + noise) & 0xFFFF0000
    finite = (bits & 0x7F800000) != 0x7F800000
    return tl.where(finite, up, bits).to(tl.float32, bitcast=True).to(tl.bfloat16)


@triton.jit
def _compress(x, SIGNED: tl.constexpr):
    if SIGNED:
        x = tl.minimum(tl.maximum(x, -1.0), 1.0)
        return _nearest(2 * x / (1 + tl.abs(x)) * 127) + 128
    return _nearest(tl.sqrt(tl.minimum(tl.maximum(x, 0.0), 1.0)) * 255)


@triton.jit
def _expand(code, SIGNED: tl.constexpr):
    if SIGNED:
        y = (code - 128) * (1 / 127)
        return y / (2 - tl.abs(y))
    y = code * (1 / 255)
    return y * y


@triton.jit
def _find(x, edges):
    """How many of the 255 edges lie below `x`."""
    at = tl.zeros_like(x).to(tl.int32)
    for k in tl.static_range(8):
        at += tl.where(x <= tl.load(edges + at + ((128 >> k) - 1)), 0, 128 >> k)
    return at


@triton.jit
def _held(
    table,
    row,
    tensors,
    i,
    first,
    n,
    books,
    MASKED: tl.constexpr,
    SIGNED: tl.constexpr,
    CODEC: tl.constexpr,
    S: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A chunk of the state that begins at `row` of the table, as float32."""
    off = first + tl.arange(0, BLOCK)
    at = tl.multiple_of(tl.load(table + row * tensors + i).to(tl.pointer_type(S)), 16) + off
    x = tl.load(at, mask=off < n, other=0) if MASKED else tl.load(at)
    x = x.to(tl.float32)
    if CODEC <= STOCHASTIC:
        return x
    groups = first // GROUP + tl.arange(0, BLOCK // GROUP)
    scales = tl.load(table + (row + 1) * tensors + i)
    inside = groups * GROUP < n
    if CODEC == COMPANDED:
        root = tl.load(scales.to(tl.pointer_type(tl.float16)) + groups, mask=inside, other=0.0)
        scale = root.to(tl.float32) * root.to(tl.float32)
        x = _expand(x, SIGNED)
    else:
        scale = tl.load(scales.to(tl.pointer_type(tl.float32)) + groups, mask=inside, other=0.0)
        x = tl.load(books + (0 if SIGNED else 512) + x.to(tl.int32))
    wide = tl.reshape(x, (BLOCK // GROUP, GROUP)) * scale[:, None]
    return tl.reshape(wide, (BLOCK,))


@triton.jit
def _keep(
    x,
    table,
    row,
    tensors,
    i,
    first,
    n,
    books,
    salt,
    MASKED: tl.constexpr,
    SIGNED: tl.constexpr,
    CODEC: tl.constexpr,
    S: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Store a chunk of state."""
    off = first + tl.arange(0, BLOCK)
    at = tl.multiple_of(tl.load(table + row * tensors + i).to(tl.pointer_type(S)), 16) + off
    if CODEC == PLAIN:
        coded = x.to(S)
    elif CODEC == STOCHASTIC:
        coded = _rounded(x, off, salt)
    else:
        wide = tl.reshape(tl.where(off < n, x, 0.0), (BLOCK // GROUP, GROUP))
        top = tl.max(tl.abs(wide), axis=1)
        groups = first // GROUP + tl.arange(0, BLOCK // GROUP)
        scales = tl.load(table + (row + 1) * tensors + i)
        inside = groups * GROUP < n
        if CODEC == COMPANDED:
            root = tl.minimum(tl.maximum(tl.sqrt(top), 5.9604644775390625e-8), 65504.0)
            root = tl.where(top > 0, root, 0.0).to(tl.float16)
            tl.store(scales.to(tl.pointer_type(tl.float16)) + groups, root, mask=inside)
            scale = root.to(tl.float32) * root.to(tl.float32)
            inverse = 1 / tl.where(scale > 0, scale, 1.0)  # a group of zeros stays one
            code = _compress(wide * inverse[:, None], SIGNED).to(tl.int32)
        else:
            tl.store(scales.to(tl.pointer_type(tl.float32)) + groups, top, mask=inside)
            some = (top > 0)[:, None]
            share = tl.where(some, wide / tl.where(some, top[:, None], 1.0), 0.0)
            code = _find(share, books + (256 if SIGNED else 768))
        if not SIGNED:  # a positive second moment is never stored as zero
            code = tl.where((wide > 0) & (code < 1), 1, code)
        coded = tl.reshape(code.to(tl.uint8), (BLOCK,))
    if MASKED:
        tl.store(at, coded, mask=off < n)
    else:
        tl.store(at, coded)


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
    MASKED: tl.constexpr,
    BODY: tl.constexpr,
    SIGNS: tl.constexpr,
    CODEC: tl.constexpr,
    P: tl.constexpr,
    S: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    off = first + tl.arange(0, BLOCK)
    p_at = tl.multiple_of(tl.load(table + i).to(tl.pointer_type(P)), 16) + off
    g_at = tl.multiple_of(tl.load(table + tensors + i).to(tl.pointer_type(P)), 16) + off
    if MASKED:
        p = tl.load(p_at, mask=off < n, other=0.0).to(tl.float32)
        g = tl.load(g_at, mask=off < n, other=0.0).to(tl.float32) * scale
    else:
        p = tl.load(p_at).to(tl.float32)
        g = tl.load(g_at).to(tl.float32) * scale
    PARTS: tl.constexpr = 1 if CODEC <= STOCHASTIC else 2
    s = ()
    for k in tl.static_range(len(SIGNS)):
        held = _held(
            table,
            2 + k * PARTS,
            tensors,
            i,
            first,
            n,
            books,
            MASKED,
            SIGNS[k],
            CODEC,
            S,
            GROUP,
            BLOCK,
        )
        s = s + (held,)  # noqa: RUF005
    new, s = BODY(p, g, s, h)
    for k in tl.static_range(len(SIGNS)):
        _keep(
            s[k],
            table,
            2 + k * PARTS,
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
    if MASKED:
        tl.store(p_at, new.to(P), mask=off < n)
    else:
        tl.store(p_at, new.to(P))


@triton.jit
def multi_tensor(
    table,
    numel,
    tensor_of,
    chunk_of,
    hyper,
    pitch,
    apart,
    seed,
    books,
    tensors,
    BODY: tl.constexpr,
    SIGNS: tl.constexpr,
    CODEC: tl.constexpr,
    NH: tl.constexpr,
    P: tl.constexpr,
    S: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One chunk of one tensor; the branch without a mask is what makes accesses 128 bits wide.

    Scalar `k` of tensor `i` is ``hyper[k * pitch + i * apart]``, its seed ``seed[i * apart]``.
    """
    b = tl.program_id(0)
    i = tl.load(tensor_of + b).to(tl.int64)
    first = tl.load(chunk_of + b).to(tl.int64) * BLOCK
    n = tl.load(numel + i)
    h = ()
    for k in tl.static_range(NH):
        h = h + (tl.load(hyper + k * pitch + i * apart),)  # noqa: RUF005
    scale = tl.load(hyper + NH * pitch + i * apart)
    salt = _mix((tl.load(seed + i * apart) + i).to(tl.uint32))
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
            False,
            BODY,
            SIGNS,
            CODEC,
            P,
            S,
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
            True,
            BODY,
            SIGNS,
            CODEC,
            P,
            S,
            GROUP,
            BLOCK,
        )


@cache
def _books(device: torch.device) -> Tensor:
    """The dynamic map's values and the edges between them: signed, then unsigned."""
    rows = []
    for signed in (True, False):
        values = torch.tensor(dynamic.code_book(signed), dtype=torch.float32)
        rows += [values, (values[1:] + values[:-1]) / 2, values[-1:]]
    return torch.cat(rows).to(device)


class Triton(Executor):
    """One kernel launch for all tensors, on a GPU (or in Triton's interpreter)."""

    name: ClassVar[str] = "triton"

    @override
    def takes(self, batch: Batch) -> bool:
        """Contiguous float32 or bfloat16 tensors at addresses that 16 divides."""
        if isinstance(batch.addresses, Launch):
            return all(g.data_ptr() % 16 == 0 for g in batch.grads)
        parts = [part for state in batch.states for part in state]
        return all(
            x.is_contiguous() and x.data_ptr() % 16 == 0
            for column in (batch.params, batch.grads, *parts)
            for x in column
        ) and all(x.dtype in TYPES for column in (batch.params, batch.grads) for x in column)

    @override
    def run(self, batch: Batch) -> None:
        if batch.elements == 0:
            return
        device = batch.params[0].device
        p = batch.params[0].dtype
        s = batch.states[0][0][0].dtype if batch.states else p
        with on(device):
            if batch.rows is None:
                found = Launch.follows(batch)
                hyper = sent([*batch.scalars, batch.scale], torch.float32, device)
                seed = sent([batch.seed], torch.int64, device)
                pitch, apart = 1, 0
            else:
                found = Launch.captured(batch)
                hyper, seed = batch.rows[:-1].float(), seed_of(batch.rows[-1])
                pitch, apart = len(batch.params), 1
            multi_tensor[(len(found.tensor_of),)](
                found.table,
                found.sizes,
                found.tensor_of,
                found.chunk_of,
                hyper,
                pitch,
                apart,
                seed,
                _books(device),
                len(batch.params),
                BODY=device_function(batch.rule),
                SIGNS=tuple(kind.signed for kind in batch.rule.states),
                CODEC=CODECS[batch.codec.name],
                NH=len(hyper) - 1,
                P=TYPES[p],
                S=STORED[s],
                GROUP=GROUPS.get(batch.codec.name, 1),
                BLOCK=BLOCK,
            )
