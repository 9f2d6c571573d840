"""How the Triton kernel reads and writes what is stored: state by its codec, parameters by their rounding.

The formulas are those of `codecs`, which tests hold them to.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "CODECS",
    "ROUNDINGS",
    "STOCHASTIC",
    "held",
    "keep",
    "mix",
    "narrowed",
    "read",
    "widened",
]

CODECS = {"fp32": 0, "bf16": 0, "bf16-stochastic": 1, "8bit": 2, "8bit-dynamic": 3}
"""How the kernel stores state, by the codec's name."""
PLAIN, STOCHASTIC, COMPANDED, MAPPED = (tl.constexpr(k) for k in range(4))

ROUNDINGS = {"nearest": 0, "stochastic": 1, "24bit": 2, "32bit": 3}
"""How the kernel rounds parameters, by the name of the way; the last two keep a rest."""
AT_RANDOM, BYTE = tl.constexpr(1), tl.constexpr(2)


@triton.jit
def read(at, off, n, MASKED: tl.constexpr):
    """What lies at a chunk's addresses; without a mask the accesses are 128 bits wide."""
    return tl.load(at, mask=off < n, other=0) if MASKED else tl.load(at)


@triton.jit
def _write(at, x, off, n, MASKED: tl.constexpr):
    if MASKED:
        tl.store(at, x, mask=off < n)
    else:
        tl.store(at, x)


@triton.jit
def _nearest(x):
    """The nearest whole number, ties to even, of magnitudes under 2^22."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def mix(x):
    """32 bits that look random (the finaliser of MurmurHash3)."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def _rounded(x, off, salt):
    """bfloat16 above or below `x` at random; the bits that decide are a hash of the place."""
    bits = x.to(tl.uint32, bitcast=True)
    noise = mix(off.to(tl.uint32) ^ salt) & 0xFFFF
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
def _chunk(table, row, tensors, i, first, S: tl.constexpr, BLOCK: tl.constexpr):
    """The addresses and the numbers of a chunk's elements, of the state that begins at `row`."""
    off = first + tl.arange(0, BLOCK)
    return tl.multiple_of(tl.load(table + row * tensors + i).to(tl.pointer_type(S)), 16) + off, off


@triton.jit
def held(
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
    at, off = _chunk(table, row, tensors, i, first, S, BLOCK)
    x = read(at, off, n, MASKED).to(tl.float32)
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
def keep(
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
    at, off = _chunk(table, row, tensors, i, first, S, BLOCK)
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
    _write(at, coded, off, n, MASKED)


@triton.jit
def widened(at, rest, off, n, MASKED: tl.constexpr, ROUND: tl.constexpr):
    """A chunk of a parameter as float32, with what was rounded away."""
    p = read(at, off, n, MASKED)
    if ROUND < BYTE:
        wide = p.to(tl.float32)
    else:
        low = read(rest, off, n, MASKED).to(tl.int32)
        SPARE: tl.constexpr = 8 if ROUND == BYTE else 0
        bits = (p.to(tl.int16, bitcast=True).to(tl.int32) << 16) + (low << SPARE)
        wide = bits.to(tl.float32, bitcast=True)
    return wide


@triton.jit
def narrowed(
    x,
    at,
    rest,
    off,
    n,
    salt,
    MASKED: tl.constexpr,
    ROUND: tl.constexpr,
    P: tl.constexpr,
    R: tl.constexpr,
):
    """Store a chunk of a parameter, and what is rounded away of it."""
    if ROUND < AT_RANDOM:
        coded = x.to(P)
    elif ROUND == AT_RANDOM:
        coded = _rounded(x, off, salt)
    else:
        SPARE: tl.constexpr = 8 if ROUND == BYTE else 0
        WIDTH: tl.constexpr = 16 - SPARE
        bits = tl.where(x == x, x.to(tl.int32, bitcast=True), 0x7FC00000)
        units = (bits + ((1 << SPARE) >> 1)) >> SPARE
        high = (units + ((1 << WIDTH) >> 1)) >> WIDTH
        low = (units - (high << WIDTH)).to(R)
        coded = high.to(tl.int16).to(P, bitcast=True)
        _write(rest, low, off, n, MASKED)
    _write(at, coded, off, n, MASKED)
