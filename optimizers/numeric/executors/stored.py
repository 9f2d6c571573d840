"""How the Triton kernel reads and writes what is stored: state by its codec, parameters by their rounding.

The formulas are those of `codecs`, which tests hold them to.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "CODECS",
    "FIRST",
    "HINTS",
    "ROUNDINGS",
    "STOCHASTIC",
    "chunk",
    "find",
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

FIRST = tl.constexpr((127 - 23) << 7)
"""The first 16 bits, without the sign, of 2^-23: under it the dynamic map has no edge."""
HINTS = tl.constexpr(24 << 7)
"""How many different first 16 bits there are from 2^-23 to 2."""


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
def _nearest(x, plus: tl.constexpr):
    """The whole number nearest to ``x + plus``, ties to even, as the low bits of the result's.

    The last place of the sum is 1, for magnitudes under 2^22.
    """
    return (x + (12582912.0 + plus)).to(tl.int32, bitcast=True)


@triton.jit
def _number(code, zero: tl.constexpr):
    """``code - zero`` of a byte as float32: its bits are the last of 2^23's fraction."""
    return (code.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True) - (8388608.0 + zero)


@triton.jit
def _inverse(x):
    """1 / `x` within two units of the last place, of numbers far from the smallest and largest."""
    root = tl.rsqrt(x)
    return root * root


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
    """The code of a share of its group's largest magnitude, in the low byte."""
    if SIGNED:
        x = tl.minimum(tl.maximum(x, -1.0), 1.0)
        code = _nearest(x * _inverse(1 + tl.abs(x)) * 254, 128)
    else:  # a positive second moment is never stored as zero
        least = tl.where(x > 0, 1.0, 0.0)
        code = _nearest(tl.maximum(tl.sqrt(tl.minimum(x, 1.0)) * 255, least), 0)
    return code


@triton.jit
def _expand(code, scale, SIGNED: tl.constexpr):
    """``scale * y / (2 - |y|)`` with ``y = (code - 128) / 127``, and ``scale * (code / 255)**2``."""
    if SIGNED:
        c = _number(code, 128)
        x = c * _inverse(254 - tl.abs(c))
    else:
        c = _number(code, 0)
        x = c * c
        scale = scale * (1 / 65025)
    return x * scale


@triton.jit
def find(x, books, SIGNED: tl.constexpr):
    """The code of the map's value nearest to `x`: where its first bits are, one edge is left to ask."""
    edges = books + (383 if SIGNED else 768)
    hints = books + (1024 if SIGNED else 1024 + HINTS)
    a = tl.abs(x)
    place = (a.to(tl.int32, bitcast=True) >> 16) - FIRST
    place = tl.minimum(tl.maximum(place, 0), HINTS - 1)
    steps = tl.load(hints + place).to(tl.int32, bitcast=True)
    steps += tl.where(a > tl.load(edges + steps), 1, 0)
    if SIGNED:
        code = tl.where(x < 0, 127 - tl.minimum(steps, 127), 127 + steps)
    else:  # a positive second moment is never stored as zero
        code = tl.maximum(steps, tl.where(x > 0, 1, 0))
    return code


@triton.jit
def chunk(base, first, ALIGNED: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr):
    """The addresses of a chunk's elements, of a tensor at `base`, a multiple of 16 if ALIGNED."""
    at = base.to(tl.pointer_type(T)) + first
    return (tl.multiple_of(at, 16) if ALIGNED else at) + tl.arange(0, BLOCK)


@triton.jit
def _groups(base, first, T: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr):
    """The addresses and the numbers of the groups of a chunk."""
    number = tl.arange(0, BLOCK // GROUP)
    return base.to(tl.pointer_type(T)) + first // GROUP + number, first // GROUP + number


@triton.jit
def held(
    base,
    scales,
    first,
    n,
    books,
    MASKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    SIGNED: tl.constexpr,
    CODEC: tl.constexpr,
    S: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A chunk of the state at `base`, whose groups' scales are at `scales`, as float32."""
    code = read(chunk(base, first, ALIGNED, S, BLOCK), first + tl.arange(0, BLOCK), n, MASKED)
    if CODEC <= STOCHASTIC:
        return code.to(tl.float32)
    wide = tl.reshape(code, (BLOCK // GROUP, GROUP))
    if CODEC == COMPANDED:
        at, number = _groups(scales, first, tl.float16, GROUP, BLOCK)
        root = read(at, number, tl.cdiv(n, GROUP), MASKED).to(tl.float32)
        x = _expand(wide, (root * root)[:, None], SIGNED)
    else:
        at, number = _groups(scales, first, tl.float32, GROUP, BLOCK)
        top = read(at, number, tl.cdiv(n, GROUP), MASKED)
        x = tl.load(books + (0 if SIGNED else 512) + wide.to(tl.int32)) * top[:, None]
    return tl.reshape(x, (BLOCK,))


@triton.jit
def keep(
    x,
    base,
    scales,
    first,
    n,
    books,
    salt,
    MASKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    SIGNED: tl.constexpr,
    CODEC: tl.constexpr,
    S: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Store a chunk of state."""
    off = first + tl.arange(0, BLOCK)
    if CODEC == PLAIN:
        coded = x.to(S)
    elif CODEC == STOCHASTIC:
        coded = _rounded(x, off, salt)
    else:
        if MASKED:
            x = tl.where(off < n, x, 0.0)
        wide = tl.reshape(x, (BLOCK // GROUP, GROUP))
        top = tl.max(tl.abs(wide), axis=1)
        if CODEC == COMPANDED:
            root = tl.minimum(tl.maximum(tl.sqrt(top), 5.9604644775390625e-8), 65504.0)
            root = tl.where(top > 0, root, 0.0).to(tl.float16)
            at, number = _groups(scales, first, tl.float16, GROUP, BLOCK)
            _write(at, root, number, tl.cdiv(n, GROUP), MASKED)
            kept = root.to(tl.float32)  # a group of zeros stays one
            inverse = _inverse(tl.where(kept > 0, kept * kept, 1.0))
            code = _compress(wide * inverse[:, None], SIGNED)
        else:
            at, number = _groups(scales, first, tl.float32, GROUP, BLOCK)
            _write(at, top, number, tl.cdiv(n, GROUP), MASKED)
            inverse = 1 / tl.where(top > 0, top, 1.0)
            code = find(wide * inverse[:, None], books, SIGNED)
        coded = tl.reshape(code.to(tl.uint8), (BLOCK,))
    _write(chunk(base, first, ALIGNED, S, BLOCK), coded, off, n, MASKED)


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
