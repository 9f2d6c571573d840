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
from optimizers.numeric.executors.batch import SHIFT, Batch, Executor
from optimizers.numeric.executors.device import beyond_graphs, on
from optimizers.numeric.executors.stored import (
    CODECS,
    FIRST,
    HINTS,
    ROUNDINGS,
    STOCHASTIC,
    chunk,
    held,
    keep,
    mix,
    narrowed,
    read,
    widened,
)
from optimizers.numeric.executors.tables import Launch, cut, sent
from optimizers.numeric.rules.rule import Rule

__all__ = ["GROUPS", "Triton", "books", "device_function", "multi_tensor"]

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}
STORED = {**TYPES, torch.uint8: tl.uint8, torch.int8: tl.int8, torch.int16: tl.int16}
ANYWHERE = ("fp32", "bf16")
"""Codecs to which the place of an element does not matter."""
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
def _step(
    bases,
    first,
    n,
    scale,
    h,
    books,
    salt,
    draw,
    MASKED: tl.constexpr,
    ALIGNED: tl.constexpr,
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
    """The rule on the chunk that begins at element `first`."""
    off = first + tl.arange(0, BLOCK)
    PARTS: tl.constexpr = 1 if CODEC <= STOCHASTIC else 2
    p_at = chunk(bases[0], first, ALIGNED, P, BLOCK)
    rest = p_at  # nothing lies beside a parameter without a rest
    if ROUND > 1:
        rest = chunk(bases[2 + PARTS * len(SIGNS)], first, ALIGNED, R, BLOCK)
    p = widened(p_at, rest, off, n, MASKED, ROUND)
    g = read(chunk(bases[1], first, ALIGNED, P, BLOCK), off, n, MASKED).to(tl.float32) * scale
    s = ()
    for k in tl.static_range(len(SIGNS)):
        base, scales = bases[2 + k * PARTS], bases[1 + (k + 1) * PARTS]
        was = held(base, scales, first, n, books, MASKED, ALIGNED, SIGNS[k], CODEC, S, GROUP, BLOCK)
        s = s + (was,)  # noqa: RUF005
    new, s = BODY(p, g, s, h)
    for k in tl.static_range(len(SIGNS)):
        base, scales = bases[2 + k * PARTS], bases[1 + (k + 1) * PARTS]
        keep(
            s[k],
            base,
            scales,
            first,
            n,
            books,
            salt,
            MASKED,
            ALIGNED,
            SIGNS[k],
            CODEC,
            S,
            GROUP,
            BLOCK,
        )
    narrowed(new, p_at, rest, off, n, draw, MASKED, ROUND, P, R)


@triton.jit(do_not_specialize=["pitch", "shift", "place", "tensors"])
def multi_tensor(
    table,
    numel,
    tensor_of,
    piece_of,
    rows,
    pitch,
    shift,
    place,
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
    CHUNKS: tl.constexpr,
    COUNTED: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """One piece of one tensor, chunk by chunk.

    Number `k` of tensor `i` is ``rows[k * pitch]``, in the column that the table's last row names
    where tensors are COUNTED on the device: the scalars, the factor of its gradient, 0 where it is to
    stay as it is, and what feeds rounding at random, of states and of parameters: the number times
    ``2**shift``, and `place`. Chunks without a mask, at multiples of 16 bytes, are what makes
    accesses 128 bits wide.
    """
    b = tl.program_id(0)
    i = tl.load(tensor_of + b).to(tl.int64)
    begin = tl.load(piece_of + b).to(tl.int64) * (BLOCK * CHUNKS)
    PARTS: tl.constexpr = 1 if CODEC <= STOCHASTIC else 2
    COLUMNS: tl.constexpr = 2 + PARTS * len(SIGNS) + (ROUND > 1)
    if COUNTED:
        rows += tl.load(table + COLUMNS * tensors + i)
    h = ()
    for k in tl.static_range(NH):
        h = h + (tl.load(rows + k * pitch).to(tl.float32),)  # noqa: RUF005
    scale = tl.load(rows + NH * pitch).to(tl.float32)
    go = tl.load(rows + (NH + 1) * pitch)
    n = tl.where(go != 0, tl.load(numel + i), 0)  # of a tensor without elements nothing is written
    seed = (tl.load(rows + (NH + 2) * pitch).to(tl.int64) << shift) + place
    salt = mix((seed + i).to(tl.uint32))
    seed = (tl.load(rows + (NH + 3) * pitch).to(tl.int64) << shift) + place
    draw = mix((~(seed + i)).to(tl.uint32))
    bases = ()
    for k in tl.static_range(COLUMNS):
        bases = bases + (tl.load(table + k * tensors + i),)  # noqa: RUF005
    end = tl.minimum(begin + BLOCK * CHUNKS, n)
    full = begin + (end - begin) // BLOCK * BLOCK  # no piece begins behind the end of its tensor
    for first in range(begin, full, BLOCK):
        _step(
            bases,
            first,
            n,
            scale,
            h,
            books,
            salt,
            draw,
            False,
            ALIGNED,
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
    if full < end:
        _step(
            bases,
            full,
            n,
            scale,
            h,
            books,
            salt,
            draw,
            True,
            ALIGNED,
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
def books(device: torch.device) -> Tensor:
    """What the dynamic map is looked up in: signed and unsigned, 256 values and the edges between.

    Then, for the first 16 bits of a magnitude, as many integers as there are such bits from 2^-23
    on: how many edges above 0 lie below all numbers that begin so; one more may lie among them.
    """
    first = torch.arange(FIRST.value, FIRST.value + HINTS.value, dtype=torch.int32, device="cpu")
    begin = (first << 16).view(torch.float32)
    rows, hints = [], []
    for signed in (True, False):
        values = torch.tensor(dynamic.code_book(signed), dtype=torch.float32, device="cpu")
        edges = torch.cat([(values[1:] + values[:-1]) / 2, values.new_tensor([torch.inf])])
        above = edges[127:] if signed else edges
        found = torch.searchsorted(above, begin).to(torch.int32)
        assert (found.diff() <= 1).all()  # one edge is asked about, so there must not be two
        rows += [values, edges]
        hints.append(found.view(torch.float32))
    return beyond_graphs(lambda: torch.cat([*rows, *hints]).to(device), device)


def _in_one_order(row: tuple[Tensor, ...]) -> bool:
    """Whether the memory of tensors of one shape, without gaps, has their elements in one order."""
    if all(map(Tensor.is_contiguous, row)):
        return True
    dense = torch.ops.aten.is_non_overlapping_and_dense(row[0])
    return bool(dense) and len({x.stride() for x in row}) == 1


class Triton(Executor):
    """One kernel launch for all tensors, on a GPU (or in Triton's interpreter)."""

    name: ClassVar[str] = "triton"
    complete: ClassVar[bool] = True

    @override
    def takes(self, batch: Batch) -> bool:
        """float32 or bfloat16 tensors whose gradients and states lie in memory in the same order.

        Where the place of an element counts, for its group's scale or for drawing, they are contiguous.
        """
        if isinstance(batch.addresses, Launch):
            return True
        columns = (batch.params, batch.grads, *batch.stored)
        kinds = {x.dtype for x in (*batch.params, *batch.grads)}
        stored = {x.dtype for state in batch.states for x in state[0]}
        if len(kinds) > 1 or not kinds <= TYPES.keys():
            return False
        if len(stored) > 1 or not stored <= STORED.keys():  # of a parameter that was float64
            return False
        if any(map(Tensor.is_neg, (*batch.params, *batch.grads))):  # memory has the opposite
            return False
        if all(all(map(Tensor.is_contiguous, column)) for column in columns):
            return True
        placed = batch.codec.name not in ANYWHERE or batch.rounding.draws
        return not placed and all(map(_in_one_order, zip(*columns, strict=True)))

    @override
    def run(self, batch: Batch) -> None:
        if batch.elements == 0:
            return
        device = batch.params[0].device
        p = batch.params[0].dtype
        s = batch.states[0][0][0].dtype if batch.states else p
        r = batch.rests[0].dtype if batch.rests else p
        how = cut(batch.codec)
        with on(device):
            found = Launch.of(batch)
            if batch.rows is None:
                numbers = [*batch.scalars, batch.scale, 1.0, batch.seed, batch.draw]
                rows = sent(torch.tensor(numbers, dtype=torch.float64, device="cpu"), device)
                pitch, seed = 1, (0, 0)  # whole, its place too
            else:
                rows, pitch, seed = batch.rows, batch.rows.shape[1], (SHIFT, batch.place)
            multi_tensor[(len(found.tensor_of),)](
                found.table,
                found.sizes_there,
                found.tensor_of,
                found.piece_of,
                rows,
                pitch,
                *seed,
                books(device),
                len(batch.params),
                BODY=device_function(batch.rule),
                SIGNS=tuple(kind.signed for kind in batch.rule.states),
                CODEC=CODECS[batch.codec.name],
                ROUND=ROUNDINGS[batch.rounding.name],
                NH=len(rows) - 4,
                P=TYPES[p],
                S=STORED[s],
                R=STORED[r],
                GROUP=GROUPS.get(batch.codec.name, 1),
                BLOCK=how.block,
                CHUNKS=how.chunks,
                COUNTED=batch.rows is not None,
                ALIGNED=found.aligned,
                num_warps=how.warps,
                maxnreg=how.registers if found.aligned else None,  # elements one by one take more
            )
