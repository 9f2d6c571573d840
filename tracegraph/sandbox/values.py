"""Values as data: a tree of JSON and the raw bytes of arrays, nothing that could run.

The reader is handed bytes that hostile code wrote. It builds only plain containers, numbers, text
and arrays of numbers; it takes bytes in the order in which they lie, so no two arrays can share
memory; and every size is checked before anything is allocated.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from tracegraph.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence, Sized

    Buffer = bytes | bytearray | memoryview
    Pack = Callable[[Any, int, list[Buffer]], Any]
    Unpack = Callable[[Any, int, "Blob"], Any]

__all__ = ["MAX_BITS", "MAX_DEPTH", "Blob", "pack", "unpack"]

MAX_DEPTH = 64
"""How deep containers may be nested."""

MAX_BITS = 1 << 18
"""How many bits an integer may have."""

ALIGN = 16
_MAX_DIMENSIONS = 32
_MOST_EMPTY = 1 << 20
_WORD = 1 << 63
_INTEGERS = {f"<{sign}{size}" for sign in "iu" for size in (2, 4, 8)} | {"|b1", "|i1", "|u1"}
_DTYPES = _INTEGERS | {"<f2", "<f4", "<f8", "<c8", "<c16"}
_PLAIN = frozenset((str, bool, float, type(None)))
_FEW_KEYS = 64  # they may collide
_SLACK, _PER_KEY, _PER_HASH = 250_000_000, 2_000, 10
"""Nanoseconds that the tables of a frame may take; more for each key; and times what its hash takes."""
_clock = getattr(time, "thread_time_ns", time.process_time_ns)
"""Of this thread, where the system tells it: what others do meanwhile is no matter."""


class _Refused(Exception):
    """A value that cannot travel; collects the path to it on the way out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""


def pack(value: object, *, name: str = "value") -> tuple[Any, list[Buffer]]:
    """`value` as a tree that JSON can hold, and the buffers that follow it, in order.

    None, bool, int (up to `MAX_BITS` bits), float, complex, str, bytes, list, tuple, dict, set,
    frozenset, numpy arrays and scalars of numbers, torch tensors. Exactly these types: a subclass is
    refused, for it could carry behaviour; but of any tensor the numbers travel. They arrive as a
    tensor of the processor where torch is loaded, else as an array.

    Raises:
        SandboxError: names the type that cannot travel and where it lies in `name`.

    >>> pack({"a": (1, b"xy")})
    ({'dict': ['a', {'tuple': [1, {'bytes': 2}]}]}, [b'xy'])
    >>> pack([{"f": len}], name="args")
    Traceback (most recent call last):
    tracegraph.errors.SandboxError: args[0]['f'] is of type builtin_function_or_method...
    """
    buffers: list[Buffer] = []
    try:
        return _pack(value, 0, buffers), buffers
    except _Refused as refused:
        raise SandboxError(f"{name}{refused.path} {refused.reason}") from None


def _pack(value: Any, depth: int, buffers: list[Buffer]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int and -_WORD <= value < _WORD:
        return value
    if depth >= MAX_DEPTH:
        raise _Refused(f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
    rule = _PACK.get(kind)
    if rule is not None:
        return rule(value, depth + 1, buffers)
    tag, array = _as_array(value)
    if array is None:
        raise _Refused(
            f"is of type {kind.__qualname__}, which cannot pass the sandbox's wall; use None, "
            "bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset or an array "
            "of numbers"
        )
    return _pack_array(tag, array, value, buffers)


def _pack_items(items: Iterable[Any], depth: int, buffers: list[Buffer]) -> list[Any]:
    packed: list[Any] = []
    try:
        for item in items:
            packed.append(item if type(item) in _PLAIN else _pack(item, depth, buffers))
    except _Refused as refused:
        refused.path = f"[{len(packed)}]{refused.path}"
        raise
    return packed


def _pack_dict(value: dict[Any, Any], depth: int, buffers: list[Buffer]) -> Any:
    packed = []
    for key, item in value.items():
        try:
            packed.append(key if type(key) is str else _pack(key, depth, buffers))
            packed.append(item if type(item) in _PLAIN else _pack(item, depth, buffers))
        except _Refused as refused:
            label = f"<{type(key).__name__}>"
            if type(key) is str or (type(key) is int and -_WORD <= key < _WORD):
                label = repr(key)[:40]
            refused.path = f"[{label}]{refused.path}"
            raise
    return {"dict": packed}


def _pack_int(value: int, depth: int, buffers: list[Buffer]) -> Any:
    if value.bit_length() > MAX_BITS:
        raise _Refused(f"is an integer of {value.bit_length()} bits; {MAX_BITS} is the most")
    return {"int": hex(value)}


def _pack_bytes(value: bytes, depth: int, buffers: list[Buffer]) -> Any:
    buffers.append(value)
    return {"bytes": len(value)}


def _tagged(tag: str) -> Pack:
    return lambda value, depth, buffers: {tag: _pack_items(value, depth, buffers)}


_PACK: dict[type, Pack] = {
    list: _pack_items,
    tuple: _tagged("tuple"),
    set: _tagged("set"),
    frozenset: _tagged("frozenset"),
    dict: _pack_dict,
    int: _pack_int,
    bytes: _pack_bytes,
    complex: lambda value, depth, buffers: {"complex": [value.real, value.imag]},
}


def _as_array(value: Any) -> tuple[str, Any]:
    """The tag of a tensor, an array or a numpy scalar, and its numbers as an array; else "", None."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return "tensor", _numbers_of(value.detach(), torch)
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return "", None
    if type(value) is numpy.ndarray:
        return "array", value
    return ("scalar", numpy.asarray(value)) if isinstance(value, numpy.generic) else ("", None)


def _numbers_of(tensor: Any, torch: Any) -> Any:
    try:
        plain = tensor.cpu().resolve_conj().resolve_neg()
        if plain.dtype == torch.bfloat16:
            return plain.contiguous().view(torch.uint16).numpy()
        return plain.numpy()
    except (TypeError, RuntimeError) as error:
        raise _Refused(f"is a tensor that numpy cannot hold ({error}); convert it") from None


def _pack_array(tag: str, array: Any, value: Any, buffers: list[Buffer]) -> Any:
    import numpy  # already loaded: the value is one of its own

    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.str not in _DTYPES:
        raise _Refused(f"is an array of {array.dtype}; only numbers and bools of a fixed size pass")
    flat = numpy.ascontiguousarray(array).reshape(-1)
    buffers.append(flat.view(numpy.uint8).data if flat.size else b"")
    body = [array.dtype.str, list(array.shape)]
    short = tag == "tensor" and str(value.dtype) == "torch.bfloat16"
    return {tag: [*body, True] if short else body}


class Blob:
    """The bytes behind a tree, taken in order, each run padded to `ALIGN`."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0
        self.left = _SLACK  # nanoseconds for the tables of the frame

    def take(self, size: int) -> memoryview:
        """The next `size` bytes."""
        if not 0 <= size <= len(self._data) - self._at:
            raise SandboxError(
                f"a value claims {size} bytes, {len(self._data) - self._at} are left"
            )
        run = self._data[self._at : self._at + size]
        self._at = min(len(self._data), self._at + size + padding(size))
        return run

    def close(self) -> None:
        """Every byte must have been taken."""
        if self._at != len(self._data):
            raise SandboxError(f"{len(self._data) - self._at} bytes belong to no value")


def padding(size: int) -> int:
    """The zero bytes that follow a run of `size` bytes.

    >>> padding(10), padding(32)
    (6, 0)
    """
    return -size % ALIGN


_NOTHING = memoryview(bytearray())


def unpack(tree: object, data: memoryview | None = None) -> Any:
    """The value that `pack` made `tree` and `data` of.

    Raises:
        SandboxError: for anything else; nothing larger than `data` and `tree` is built.

    >>> unpack({"tuple": [1, {"set": ["a"]}]})
    (1, {'a'})
    """
    blob = Blob(data or _NOTHING)
    try:
        value = _unpack(tree, 0, blob)
    except (TypeError, ValueError, OverflowError, ArithmeticError, RecursionError) as error:
        raise SandboxError(
            f"a value cannot be read: {type(error).__name__}: {str(error)[:200]}"
        ) from None
    blob.close()
    return value


def _unpack(tree: Any, depth: int, blob: Blob) -> Any:
    kind = type(tree)
    if kind in _PLAIN:
        return tree
    if kind is int:
        if not -_WORD <= tree < _WORD:
            raise SandboxError("a long integer is not marked as one")
        return tree
    if depth >= MAX_DEPTH:
        raise SandboxError(f"a value is nested deeper than {MAX_DEPTH} levels")
    if kind is list:
        return _items(tree, depth + 1, blob)
    if kind is dict and len(tree) == 1:
        ((tag, body),) = tree.items()
        rule = _UNPACK.get(tag)
        if rule is not None:
            return rule(body, depth + 1, blob)
    raise SandboxError("a value is of no known form")


def _items(body: Any, depth: int, blob: Blob) -> list[Any]:
    if type(body) is not list:
        raise SandboxError("a container without a list of items")
    return [
        item
        if (kind := type(item)) in _PLAIN or (kind is int and -_WORD <= item < _WORD)
        else _unpack(item, depth, blob)
        for item in body
    ]


def _in_steps(keys: Sequence[Any], blob: Blob) -> Iterator[slice]:
    """The places of many keys, a few at a time, for who puts them into a table.

    Keys can be made to collide, by their hashes or by where the table then looks for them; that takes
    quadratic time, in which no other thread runs. Python does not tell how often it looked, but what it
    took: many times as much as of other keys.

    Raises:
        SandboxError: the tables of this frame have taken too long.
    """
    began = _clock()
    deque(map(hash, keys), maxlen=0)
    now = _clock()
    blob.left += _PER_HASH * (now - began) + _PER_KEY * len(keys)
    for at in range(0, len(keys), _FEW_KEYS):
        yield slice(at, at + _FEW_KEYS)
        before, now = now, _clock()
        blob.left -= now - before
        if blob.left < 0:
            raise SandboxError(f"{len(keys):,} keys of one container collide all too often")


def _refuse_twins(table: Sized, keys: Sized) -> None:
    if len(table) != len(keys):  # also of several NaN, which are one when they are read
        raise SandboxError("a dict or a set has the same key twice, or several that are NaN")


def _unpack_dict(body: Any, depth: int, blob: Blob) -> dict[Any, Any]:
    items = _items(body, depth, blob)
    if len(items) % 2:
        raise SandboxError("a dict with a key that has no value")
    keys, values = items[::2], items[1::2]
    table: dict[Any, Any] = {}
    if len(keys) <= _FEW_KEYS:
        table = dict(zip(keys, values, strict=True))
    else:
        for step in _in_steps(keys, blob):
            table.update(zip(keys[step], values[step], strict=True))
    _refuse_twins(table, keys)
    return table


def _unpack_set(body: Any, depth: int, blob: Blob) -> set[Any]:
    items = _items(body, depth, blob)
    table: set[Any] = set()
    if len(items) <= _FEW_KEYS:
        table = set(items)
    else:
        for step in _in_steps(items, blob):
            table.update(items[step])
    _refuse_twins(table, items)
    return table


def _unpack_int(body: Any, depth: int, blob: Blob) -> int:
    if type(body) is not str or len(body) > MAX_BITS // 4 + 4:
        raise SandboxError("a long integer that is not text, or too long")
    return int(body, 16)


def _unpack_bytes(body: Any, depth: int, blob: Blob) -> bytes:
    if type(body) is not int:
        raise SandboxError("bytes without a length")
    return bytes(blob.take(body))


def _unpack_complex(body: Any, depth: int, blob: Blob) -> complex:
    if type(body) is not list or [type(part) for part in body] != [float, float]:
        raise SandboxError("a complex number that is not two floats")
    return complex(*body)


def _unpack_array(body: Any, depth: int, blob: Blob) -> Any:
    if type(body) is not list or len(body) != 2:
        raise SandboxError("an array that is not a dtype and a shape")
    dtype, shape = body
    if type(dtype) is not str or dtype not in _DTYPES:
        raise SandboxError(f"an array of a dtype that is not allowed: {str(dtype)[:40]!r}")
    if type(shape) is not list or len(shape) > _MAX_DIMENSIONS:
        raise SandboxError(f"an array whose shape is not a list of at most {_MAX_DIMENSIONS}")
    count = rows = 1
    for length in shape:
        if type(length) is not int or not 0 <= length < _WORD:
            raise SandboxError("an array whose shape has something else than sizes")
        count *= length
        rows *= length or 1
    if count == 0 and rows > _MOST_EMPTY:  # no byte stands behind it, and who walks it never ends
        raise SandboxError(f"an array without numbers, of more than {_MOST_EMPTY:,} rows")
    data = blob.take(count * int(dtype[2:]))

    import numpy  # inside: code that passes no array does not wait for numpy

    array = numpy.frombuffer(data, dtype=dtype, count=count)
    if dtype == "|b1" and count and array.view("u1").max() > 1:
        raise SandboxError("an array of bools that are neither true nor false")
    return array.reshape(shape)


def _unpack_scalar(body: Any, depth: int, blob: Blob) -> Any:
    array = _unpack_array(body, depth, blob)
    if array.shape != ():
        raise SandboxError("a scalar that has a shape")
    return array[()]


def _unpack_tensor(body: Any, depth: int, blob: Blob) -> Any:
    short = type(body) is list and len(body) == 3 and body[0] == "<u2" and body[2] is True
    array = _unpack_array(body[:2] if short else body, depth, blob)
    from_numpy = getattr(sys.modules.get("torch"), "from_numpy", None)
    if from_numpy is not None:
        tensor = from_numpy(array)
        return tensor.view(sys.modules["torch"].bfloat16) if short else tensor
    # What is no tensor here can be an array; a bfloat16 is the upper half of a float32.
    return (array.astype("<u4") << 16).view("<f4") if short else array


_UNPACK: dict[str, Unpack] = {
    "tuple": lambda body, depth, blob: tuple(_items(body, depth, blob)),
    "set": _unpack_set,
    "frozenset": lambda body, depth, blob: frozenset(_unpack_set(body, depth, blob)),
    "dict": _unpack_dict,
    "int": _unpack_int,
    "bytes": _unpack_bytes,
    "complex": _unpack_complex,
    "array": _unpack_array,
    "scalar": _unpack_scalar,
    "tensor": _unpack_tensor,
}
