"""Where tensors lie and what dicts hold, read for many at once by compiled code.

A step of many small tensors spends its time in Python, which asks each tensor for its address, size,
dtype and layout, and each tensor's dict of states for its entries. DLPack's C interface (version 1,
`__dlpack_c_exchange_api__`, torch 2.10 and later) answers all about a tensor in one call, from C++, and a
dict answers Python's own function of C. Where torch does not offer the interface, or no compiler
works, Python asks.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable
from functools import cache
from subprocess import SubprocessError
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.executors.batch import Addresses
from optimizers.numeric.executors.compiler import available, built
from optimizers.numeric.members import in_memory

__all__ = ["GLANCE", "Glanced", "address", "reader"]

DEVICES = {"cpu": 1, "cuda": 2}
"""DLPack's numbers: kDLCPU, kDLCUDA."""

GLANCE = r"""
#include <cstdint>
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
struct Kind {
  int64_t device, number, code, bits;
};
static inline bool plain(const Seen& x, int64_t numel, const Kind& kind) {
  if (x.device.type != kind.device || x.device.id != kind.number) return false;
  if (x.dtype.lanes != 1 || x.offset) return false;
  if (x.dtype.code != kind.code || x.dtype.bits != kind.bits) return false;
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
                          const int64_t* numel, int64_t tensors,
                          const Kind* kind) {
  for (int64_t i = 0; i < tensors; ++i) {
    Seen p, g;
    if (read(item(params, i), &p) || read(item(grads, i), &g)) return -1;
    if (int64_t(p.data) != table[i] || p.ndim != g.ndim) return 0;
    if (!plain(p, numel[i], *kind) || !plain(g, numel[i], *kind)) return 0;
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
"""C++ of the functions `glance` and `kept`."""


CODES = {torch.bfloat16: 4}
"""kDLBfloat; the others are kDLFloat, 2."""


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
def _item() -> int | None:
    """The address of Python's function that gives an item of a list."""
    return ctypes.cast(ctypes.pythonapi.PyList_GetItem, ctypes.c_void_p).value


@cache
def _entry() -> int | None:
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


class _Looks:
    """The compiled functions, which need Python's lock."""

    def __init__(self) -> None:
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        library, lists = ctypes.PyDLL(str(built(GLANCE))), [ctypes.py_object] * 2
        self.glance, self.kept = library.glance, library.kept
        self.glance.argtypes = [pointer, pointer, *lists, pointer, pointer, number, pointer]
        self.kept.argtypes = [pointer, pointer, pointer, *lists, pointer, pointer, number, number]
        self.glance.restype = self.kept.restype = number


@cache
def _looks() -> _Looks | None:
    if not available() or reader() is None:
        return None
    try:
        return _Looks()
    except (RuntimeError, OSError, SubprocessError):  # what is there does not work: Python asks
        return None


def address(values: array[Any]) -> int:
    """Where the numbers of an array lie."""
    return values.buffer_info()[0]


def _answer(question: Any, *about: Any) -> bool:
    """What `glance` or `kept` answers; a tensor without memory is none that was there."""
    try:
        return bool(question(*about) == 1)
    except (RuntimeError, BufferError, TypeError, ValueError):
        return False


class Glanced(Addresses):
    """Addresses as a kernel reads them, a column per tensor: of parameters, gradients, what is stored.

    `hold` writes the addresses of the gradients that it is asked about into the second row.
    """

    __slots__ = ("kind", "lone", "pointers", "sizes")

    def __init__(self, columns: list[list[Tensor]]) -> None:
        params, grads, *stored = ([x.data_ptr() for x in column] for column in columns)
        numel = [p.numel() for p in columns[0]]
        super().__init__(params, numel, [at for column in stored for at in column])
        self.pointers = array("q", [*params, *grads, *self.states])
        self.sizes = array("q", numel)
        self.lone = [i for i, n in enumerate(numel) if n == 1]
        p = columns[0][0]
        where = DEVICES.get(p.device.type, 0), p.device.index or 0
        self.kind = array("q", (*where, CODES.get(p.dtype, 2), 8 * p.itemsize))

    @override
    def hold(self, params: list[Tensor], grads: list[Tensor]) -> bool:
        count, looks = len(params), _looks()
        if any(grads[i].is_neg() for i in self.lone):  # no larger one is both that and contiguous
            return False
        if not in_memory(grads):
            return False
        if looks is None:
            if not super().hold(params, grads):
                return False
            self.pointers[count : 2 * count] = array("q", map(Tensor.data_ptr, grads))
            return True
        lie = address(self.pointers), address(self.sizes), count, address(self.kind)
        return _answer(looks.glance, reader(), _item(), params, grads, *lie)

    @override
    def watch(
        self, dicts: list[dict[str, Any]], names: list[str], columns: list[list[Tensor]]
    ) -> Callable[[], bool]:
        looks = _looks()
        if looks is None:
            return super().watch(dicts, names, columns)
        held = array("q", [id(x) for column in columns for x in column])
        lies = array("q", [x.data_ptr() for column in columns for x in column])
        numbers = len(names), len(dicts)

        def same() -> bool:
            ask = looks.kept, reader(), _item(), _entry()
            return _answer(*ask, dicts, names, address(held), address(lies), *numbers)

        return same
