"""A rule and a codec written as the C++ text of one kernel.

The kernel works on a table of pointers, a column per tensor: parameters, gradients, then the parts
of each state. A codec with a scale per group of elements is run group by group: decode, step,
encode, without leaving the processor's cache. Compiling and calling is somebody else's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from optimizers.numeric.codecs import companding, dynamic
from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.executors.trace import written
from optimizers.numeric.rules.rule import Rule, State

__all__ = ["CTYPE", "GROUPED", "UNIT", "source"]

CTYPE = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bf16"}

GROUPED = {"8bit": companding.GROUP, "8bit-dynamic": dynamic.BLOCK}
"""Elements that share a scale, by the codec's name."""

UNIT = 1024
"""Elements that a thread takes at a time; groups divide it."""

AHEAD = 256
"""Bytes by which memory is fetched before it is computed on."""

PREAMBLE = r"""
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

struct bf16 { uint16_t bits; };
static inline float load(float x) { return x; }
static inline double load(double x) { return x; }
static inline float load(bf16 x) {
  const uint32_t u = uint32_t(x.bits) << 16;
  float f; std::memcpy(&f, &u, 4); return f;
}
static inline void store(float& to, float x) { to = x; }
static inline void store(double& to, double x) { to = x; }
static inline void store(bf16& to, float x) {
  uint32_t u; std::memcpy(&u, &x, 4);
  const uint32_t nearest = u + 0x7FFFu + ((u >> 16) & 1u);
  to.bits = uint16_t(((x != x) ? (u | 0x400000u) : nearest) >> 16);
}
static constexpr int64_t UNIT = @UNIT@;
"""

STOCHASTIC = r"""
static inline uint32_t mix(uint64_t x) {
  uint32_t y = uint32_t(x ^ (x >> 16)) * 0x85EBCA6Bu;
  y = (y ^ (y >> 13)) * 0xC2B2AE35u;
  return y ^ (y >> 16);
}
static inline void store(bf16& to, float x, uint64_t noise) {
  uint32_t u; std::memcpy(&u, &x, 4);
  if ((u & 0x7F800000u) == 0x7F800000u) return store(to, x);
  to.bits = uint16_t((u + (mix(noise) & 0xFFFFu)) >> 16);
}
"""

# The largest magnitude, found among the bits read as integers: the order is the same, NaN comes
# last and is kept, and the loop has no branch.
LARGEST = r"""
static constexpr int GROUP = @GROUP@;
template <class T> struct bits_of;
template <> struct bits_of<float> { using type = uint32_t; };
template <> struct bits_of<double> { using type = uint64_t; };
static inline T largest(const T* x, int n) {
  using U = bits_of<T>::type;
  U top = 0;

  for (int j = 0; j < n; ++j) {
    U u; std::memcpy(&u, x + j, sizeof u); u &= U(~U(0)) >> 1;
    top = u > top ? u : top;
  }
  T t; std::memcpy(&t, &top, sizeof t);
  return t;
}
"""

COMPANDING = r"""
using code_scale = uint16_t;
static inline float from_half(uint16_t h) {
  const uint32_t exponent = (h >> 10) & 31u, fraction = h & 1023u;
  const uint32_t u = ((exponent + 112u) << 23) | (fraction << 13);
  float f; std::memcpy(&f, &u, 4);
  return exponent == 0 ? float(int(fraction)) * 5.9604644775390625e-8f : f;
}
static inline uint16_t to_half(float x) {  // of 2^-24 to 65504, rounded to nearest even
  uint32_t u; std::memcpy(&u, &x, 4);
  const int small = int(std::nearbyint((x < 6.103515625e-5f ? x : 0.0f) * 16777216.0f));
  const uint32_t large = (u + 0xFFFu + ((u >> 13) & 1u) - (112u << 23)) >> 13;
  return uint16_t(x < 6.103515625e-5f ? uint32_t(small) : large);
}
static inline T opened(code_scale s) { const T r = T(from_half(s)); return r * r; }
// The largest magnitudes of the groups become their scales, as stored and as read again.
static inline void close_all(T* top, code_scale* to, int n) {
  for (int q = 0; q < (n + GROUP - 1) / GROUP; ++q) {
    T r = std::sqrt(top[q]);
    r = r < T(5.9604644775390625e-8) ? T(5.9604644775390625e-8) : r > T(65504) ? T(65504) : r;
    to[q] = top[q] > T(0) ? to_half(float(r)) : uint16_t(0);
    top[q] = opened(to[q]);
  }
}
static inline void decode_signed(const uint8_t* code, T* to, int n, T scale) {
  for (int k = 0; k < n; ++k) {
    const T y = (T(code[k]) - T(128)) * (T(1) / T(127));
    to[k] = y / (T(2) - std::fabs(y)) * scale;
  }
}
static inline void decode_unsigned(const uint8_t* code, T* to, int n, T scale) {
  for (int k = 0; k < n; ++k) {
    const T y = T(code[k]) * (T(1) / T(255));
    to[k] = y * y * scale;
  }
}
static inline void encode_signed(const T* value, uint8_t* code, int n, T scale) {
  const T inverse = scale > T(0) ? T(1) / scale : T(0);
  int at[GROUP];
  for (int k = 0; k < n; ++k) {
    T x = value[k] * inverse;
    x = x > T(-1) ? (x < T(1) ? x : T(1)) : T(-1);  // NaN, too
    at[k] = int(std::nearbyint(T(2) * x / (T(1) + std::fabs(x)) * T(127))) + 128;
  }
  for (int k = 0; k < n; ++k) code[k] = uint8_t(at[k]);
}
static inline void encode_unsigned(const T* value, uint8_t* code, int n, T scale) {
  const T inverse = scale > T(0) ? T(1) / scale : T(0);
  int at[GROUP];
  for (int k = 0; k < n; ++k) {
    T x = value[k] * inverse;
    x = x > T(0) ? (x < T(1) ? x : T(1)) : T(0);
    const int c = int(std::nearbyint(std::sqrt(x) * T(255)));
    at[k] = value[k] > T(0) && c < 1 ? 1 : c;
  }
  for (int k = 0; k < n; ++k) code[k] = uint8_t(at[k]);
}
"""

# The map has decades, each with twice the codes of the one below. A comparison for each finds the decade,
# and a product the place in it: the loops have neither a table nor a branch.
DYNAMIC = r"""
using code_scale = float;
static inline T opened(code_scale s) { return T(s); }
static inline void close_all(T* top, code_scale* to, int n) {
  for (int q = 0; q < (n + GROUP - 1) / GROUP; ++q) to[q] = float(top[q]), top[q] = T(to[q]);
}
static const T SIGNED[256] = {@SIGNED@}, UNSIGNED[256] = {@UNSIGNED@};
static inline void decode_signed(const uint8_t* code, T* to, int n, T scale) {
  for (int k = 0; k < n; ++k) to[k] = SIGNED[code[k]] * scale;
}
static inline void decode_unsigned(const uint8_t* code, T* to, int n, T scale) {
  for (int k = 0; k < n; ++k) to[k] = UNSIGNED[code[k]] * scale;
}
static inline T normal(T x, T scale) { return scale > T(0) ? x / scale : T(0); }
static inline int place(T x, T size, T slope) {  // of codes whose decade begins with `size`
  const T in = x * slope - size * T(1.0 / 9);
  return int(size) + int(in < size - T(1) ? in : size - T(1));
}
static inline void encode_signed(const T* value, uint8_t* code, int n, T scale) {
  int at[GROUP];
  for (int k = 0; k < n; ++k) {
    const T y = normal(value[k], scale), x = std::fabs(y);
    T size = T(@SIZE_SIGNED@), slope = T(@SLOPE_SIGNED@);
@DECADES_SIGNED@
    const int u = x <= T(@FIRST_SIGNED@) ? 0 : place(x, size, slope);
    at[k] = y <= T(@LAST_SIGNED@) ? (y < T(0) ? 127 - u : 127 + u) : 255;
  }
  for (int k = 0; k < n; ++k) code[k] = uint8_t(at[k]);
}
static inline void encode_unsigned(const T* value, uint8_t* code, int n, T scale) {
  int at[GROUP];
  for (int k = 0; k < n; ++k) {
    const T x = normal(value[k], scale);
    T size = T(@SIZE_UNSIGNED@), slope = T(@SLOPE_UNSIGNED@);
@DECADES_UNSIGNED@
    const int c = x <= T(@FIRST_UNSIGNED@) ? 0 : place(x, size, slope) - 1;
    const int found = x <= T(@LAST_UNSIGNED@) ? c : 255;
    at[k] = value[k] > T(0) && found < 1 ? 1 : found;
  }
  for (int k = 0; k < n; ++k) code[k] = uint8_t(at[k]);
}
"""

# A line of the cache at a time, while lines further on are fetched: a processor that looks ahead by as many
# instructions as it has room for would ask for few of them at once.
SPAN = r"""
static void span(const int64_t* table, int64_t tensors, int64_t i, int64_t first, int64_t last,
                 const double* h, uint64_t seed) {
@POINTERS@
@SCALARS@
  const auto run = [&](int64_t from, int64_t to) __attribute__((always_inline)) {
#pragma GCC ivdep
#pragma GCC unroll 1
    for (int64_t j = from; j < to; ++j) {
@BODY@
    }
  };
  constexpr int64_t LINE = 64 / sizeof(T);
  int64_t at = first;
  for (; at + LINE <= last; at += LINE) {
@FETCHES@
    run(at, at + LINE);
  }
  run(at, last);
}
"""

# A unit goes through in stages, each over all of its groups: what one group waits for (its largest
# value, its scale) is at hand when the next stage begins.
GROUPED_SPAN = r"""
template <class Act> static inline void each_group(int n, Act act) {
  int first = 0;
  for (; first + GROUP <= n; first += GROUP) act(first / GROUP, first, GROUP);
  if (first < n) act(first / GROUP, first, n - first);
}

static void span(const int64_t* table, int64_t tensors, int64_t i, int64_t first, int64_t last,
                 const double* h, uint64_t seed) {
@POINTERS@
@SCALARS@
  const auto unit = [&](int64_t at, int n) __attribute__((always_inline)) {
    const int64_t which = at / GROUP;
    code_scale closed_now[UNIT / GROUP];
    T scale_of[UNIT / GROUP];
@DECODE@
    for (int k = 0; k < n; ++k) {
      const int64_t j = at + k;
@BODY@
    }
@ENCODE@
  };
  int64_t at = first;
  for (; at + UNIT <= last; at += UNIT) unit(at, UNIT);
  if (at < last) unit(at, int(last - at));
}
"""

FRAME = r"""
static inline int64_t units(int64_t n) { return (n + UNIT - 1) / UNIT; }

// Threads take a run of units at a time, so that one that is held up delays nobody for long.
static void share(const int64_t* table, const int64_t* numel, int64_t tensors, const double* h,
                  uint64_t seed, std::atomic<int64_t>& next) {
  constexpr int64_t RUN = 32;
  int64_t i = 0, before = 0;  // the tensor, and the units of those before it
  for (;;) {
    int64_t unit = next.fetch_add(RUN, std::memory_order_relaxed);
    for (const int64_t end = unit + RUN; unit < end;) {
      while (i < tensors && unit >= before + units(numel[i])) before += units(numel[i++]);
      if (i == tensors) return;
      const int64_t a = unit - before, most = units(numel[i]);
      const int64_t b = a + end - unit < most ? a + end - unit : most;
      span(table, tensors, i, a * UNIT, b == most ? numel[i] : b * UNIT, h, seed + i);
      unit += b - a;
    }
  }
}

extern "C" void step(const int64_t* table, const int64_t* numel, int64_t tensors, const double* h,
                     uint64_t seed, int64_t threads) {
  std::atomic<int64_t> next{0};
  std::vector<std::thread> others;
  for (int64_t k = 1; k < threads; ++k)
    others.emplace_back(share, table, numel, tensors, h, seed, std::ref(next));
  share(table, numel, tensors, h, seed, next);
  for (auto& other : others) other.join();
}
"""


def source(
    rule: Rule, scalars: int, p: torch.dtype, states: tuple[torch.dtype, ...], codec: str = "fp32"
) -> str:
    """The C++ text of the kernel for parameters and gradients of `p` and states of `states`.

    >>> from optimizers.numeric.rules.lion import LION
    >>> "store(S0[j]" in source(LION, 4, torch.bfloat16, (torch.float32,))
    True
    """
    lines = written(rule, scalars)
    grouped = codec in GROUPED
    rows = [("P", CTYPE[p]), ("G", CTYPE[p])]
    for k, dtype in enumerate(states):
        rows.append((f"S{k}", "uint8_t" if grouped else CTYPE[dtype]))
        if grouped:
            rows.append((f"C{k}", "code_scale"))
    body = ["const T p = load(P[j]);", "const T g = load(G[j]) * scale;"]
    kept = [(k, name) for k, name in enumerate(lines.states) if name is not None]
    decode, encode = [], []
    if grouped:
        body += [f"const T s{k} = held{k}[k];" for k in range(len(states))]
        body += lines.lines + [f"held{k}[k] = {name};" for k, name in kept]
        for k, state in enumerate(rule.states):
            decode += _decoded(k, state)
        for k, _ in kept:
            encode += _encoded(k, rule.states[k])
    else:
        body += [f"const T s{k} = load(S{k}[j]);" for k in range(len(states))]
        random = codec == "bf16-stochastic"
        body += lines.lines
        body += [f"store(S{k}[j], {name}{', uint64_t(j) ^ salt' * random});" for k, name in kept]
    body.append(f"store(P[j], {lines.p});")
    pointers = [
        f"{kind}* __restrict {name} = reinterpret_cast<{kind}*>(table[{r} * tensors + i]);"
        for r, (name, kind) in enumerate(rows)
    ]
    hs = [f"const T h{k} = T(h[{k}]);" for k in range(scalars)]
    hs.append(f"const T scale = T(h[{scalars}]);")
    if codec == "bf16-stochastic":
        hs.append("const uint64_t salt = mix(seed & 0xFFFFFFFFu);")
    pieces = {
        "@POINTERS@": _indented(pointers, 2),
        "@SCALARS@": _indented(hs, 2),
        "@DECODE@": _indented(decode, 4),
        "@ENCODE@": _indented(encode, 4),
        "@FETCHES@": _indented([_fetched(name) for name, _ in rows], 4),
        "@BODY@": _indented(body, 6),
        "@GROUP@": str(GROUPED.get(codec, 0)),
        "@UNIT@": str(UNIT),
    }
    computing = f"using T = {CTYPE[computing_dtype(p)]};\n"
    text = PREAMBLE + computing + _codec(codec, pieces)
    text += (GROUPED_SPAN if grouped else SPAN) + FRAME
    for name, piece in pieces.items():
        text = text.replace(name, piece)
    return text


def _codec(name: str, pieces: dict[str, Any]) -> str:
    match name:
        case "8bit":
            return LARGEST + COMPANDING
        case "8bit-dynamic":
            pieces |= _map()
            return LARGEST + DYNAMIC
        case "bf16-stochastic":
            return STOCHASTIC
        case _:
            return ""


def _map() -> dict[str, str]:
    """The dynamic map: its values, its first and last edge, and where its decades begin."""
    found = {}
    for name, zero, power in (("SIGNED", 127, 6), ("UNSIGNED", -1, 7)):
        book = dynamic.code_book(name == "SIGNED")
        edges = [(a + b) / 2 for a, b in pairwise(book)]
        least = 0 if name == "SIGNED" else 1  # the smallest decade
        found[f"@{name}@"] = ", ".join(f"T({x!r})" for x in book)
        found[f"@FIRST_{name}@"] = repr(edges[zero + 2**least - 1])
        found[f"@LAST_{name}@"] = repr(edges[-1])
        slope = [f"T({10.0 ** (power - i) * 2**i / 0.9!r})" for i in range(power + 1)]
        found[f"@SIZE_{name}@"], found[f"@SLOPE_{name}@"] = str(2**least), slope[least]
        lines = []
        for i in range(least + 1, power + 1):
            above = f"x > T({edges[zero + 2**i - 1]!r})"
            lines += [
                f"size = {above} ? T({2**i}) : size;",
                f"slope = {above} ? {slope[i]} : slope;",
            ]
        found[f"@DECADES_{name}@"] = _indented(lines, 4)
    return found


def _fetched(name: str) -> str:
    written = int(name != "G")
    return f"__builtin_prefetch(reinterpret_cast<const char*>({name} + at) + {AHEAD}, {written});"


def _sign(state: State) -> str:
    return "signed" if state.signed else "unsigned"


def _decoded(k: int, state: State) -> list[str]:
    return [
        f"T held{k}[UNIT];",
        "each_group(n, [&](int q, int from, int m) {",
        f"  decode_{_sign(state)}(S{k} + at + from, held{k} + from, m, opened(C{k}[which + q]));",
        "});",
    ]


def _encoded(k: int, state: State) -> list[str]:
    return [
        f"each_group(n, [&](int q, int from, int m) {{ scale_of[q] = largest(held{k} + from, m); }});",
        "close_all(scale_of, closed_now, n);",
        f"std::memcpy(C{k} + which, closed_now, (n + GROUP - 1) / GROUP * sizeof(code_scale));",
        "each_group(n, [&](int q, int from, int m) {",
        f"  encode_{_sign(state)}(held{k} + from, S{k} + at + from, m, scale_of[q]);",
        "});",
    ]


def _indented(lines: list[str], by: int) -> str:
    return "\n".join(" " * by + line for line in lines)
