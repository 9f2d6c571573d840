"""Where tensors lie and what dicts hold, read for many at once by compiled code.

A step of many small tensors spends its time in Python, which asks each tensor for its address, size,
dtype and layout, and each tensor's dict of states for its entries. DLPack's C interface (version 1,
`__dlpack_c_exchange_api__`, torch 2.10 and later) answers all about a tensor in one call, from C++, and a
dict answers Python's own function of C. Where torch does not offer the interface, Python asks.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch

__all__ = ["GLANCE", "entry", "item", "reader"]

GLANCE = r"""
struct Seen {  // DLTensor of DLPack 1
  void* data;
  struct { int32_t type, id; } device;
  int32_t ndim;
  struct { uint8_t code, bits; uint16_t lanes; } dtype;
  int64_t *shape, *strides;
  uint64_t offset;
};
using Reader = int (*)(void* tensor, Seen*);
using Item = void* (*)(void* list, intptr_t);
using Entry = void* (*)(void* dict, void* name);
constexpr int64_t AHEAD = 8;  // objects that are fetched into the cache before they are read
static inline bool plain(const Seen& x, int64_t numel) {
  if (x.device.type != 1 || x.dtype.lanes != 1 || x.offset) return false;
  if (x.dtype.code != @CODE@ || x.dtype.bits != @BITS@) return false;
  int64_t of_one = 1;
  bool contiguous = true;
  for (int k = x.ndim; k-- > 0;) {
    if (x.shape[k] != 1 && x.strides && x.strides[k] != of_one) contiguous = false;
    of_one *= x.shape[k];
  }
  return of_one == numel && (contiguous || numel == 0);
}
// Whether each parameter still lies where the table has it and each gradient is like its parameter;
// writes the gradients' addresses into the table. A negative answer leaves a Python exception.
extern "C" int64_t glance(Reader read, Item item, void* params, void* grads, int64_t* table,
                          const int64_t* numel, int64_t tensors) {
  for (int64_t i = 0; i < tensors; ++i) {
    Seen p, g;
    if (read(item(params, i), &p) || read(item(grads, i), &g)) return -1;
    if (int64_t(p.data) != table[i] || p.ndim != g.ndim) return 0;
    if (!plain(p, numel[i]) || !plain(g, numel[i])) return 0;
    for (int k = 0; k < p.ndim; ++k)
      if (p.shape[k] != g.shape[k]) return 0;
    table[tensors + i] = int64_t(g.data);
  }
  return 1;
}
// Whether each dict still has, under each name, the tensor that is in the row of that name, and the
// tensor lies where it lay.
extern "C" int64_t kept(Reader read, Item item, Entry entry, void* dicts, void* names,
                        const int64_t* held, const int64_t* lies, int64_t count, int64_t tensors) {
  for (int64_t i = 0; i < tensors; ++i) {
    if (i + AHEAD < tensors) __builtin_prefetch(item(dicts, i + AHEAD));
    for (int64_t k = 0; k < count; ++k) {
      void* found = entry(item(dicts, i), item(names, k));
      if (int64_t(found) != held[k * tensors + i]) return 0;
      Seen x;
      if (read(found, &x)) return -1;
      if (int64_t(x.data) != lies[k * tensors + i]) return 0;
    }
  }
  return 1;
}
"""
"""C++ of the functions `glance` and `kept`, for a kernel's text; CODE and BITS are DLPack's of its dtype."""


class _Interface(ctypes.Structure):
    """DLPackExchangeAPI of DLPack 1."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("to_managed", ctypes.c_void_p),
        ("from_managed", ctypes.c_void_p),
        ("read", ctypes.c_void_p),
        ("stream", ctypes.c_void_p),
    )


@cache
def item() -> int | None:
    """The address of Python's function that gives an item of a list."""
    return ctypes.cast(ctypes.pythonapi.PyList_GetItem, ctypes.c_void_p).value


@cache
def entry() -> int | None:
    """The address of Python's function that gives what a dict holds under a name."""
    return ctypes.cast(ctypes.pythonapi.PyDict_GetItem, ctypes.c_void_p).value


@cache
def reader() -> int | None:
    """The address of torch's function that describes a tensor, None where it has none."""
    capsule: Any = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.argtypes, get.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
    held = _Interface.from_address(get(capsule, b"dlpack_exchange_api"))
    return held.read if held.major == 1 else None
