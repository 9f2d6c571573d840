"""Values as JSON, and back, without loss; tensors and arrays lie beside it, by name.

Texts, numbers, truth values, lists and dicts with text keys are themselves; everything else is an
object with one key that starts with ``$``. Types of dataclasses, models and enumerations are not
stored: they are taken from a value of the same place, so reading a file never imports or runs
anything.
"""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any

from tracegraph.errors import HistoryError
from tracegraph.kinds import is_array, is_tensor, show

__all__ = ["pack", "unpack"]

Tensors = dict[str, Any]

_DEEPEST = 100
_WORD = 1 << 63


def pack(value: Any, tensors: Tensors, *, path: str = "value") -> Any:
    """`value` as JSON-able data; its tensors and arrays are added to `tensors`, copied.

    One tensor that is met twice is stored once, and is one tensor again after `unpack`.

    Raises:
        HistoryError: it holds something that cannot be written and read back; says where.

    >>> pack((1, {"a": float("inf")}), {})
    {'$tuple': [1, {'a': {'$float': 'inf'}}]}
    """
    return _Packer(tensors).pack(value, path, 0)


class _Packer:
    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.names: dict[int, str] = {}
        self.alive: list[Any] = []  # so that an id is not given twice

    def pack(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if kind in (str, bool, type(None)):
            return value
        if kind is int:
            return value if -_WORD <= value < _WORD else {"$int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if depth > _DEEPEST:
            raise HistoryError(
                f"{path[:80]}... is nested deeper than {_DEEPEST} levels, or holds itself: it "
                "cannot be kept"
            )
        if isinstance(value, Enum):
            return {"$member": value.name}
        if is_tensor(value) or is_array(value):
            return self.tensor(value, path)
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.generic):
            return {"$scalar": self.tensor(numpy.asarray(value), path)["$tensor"]}
        if isinstance(value, Mapping):
            return self.mapping(value, path, depth)
        for base, tag in _SEQUENCES.items():
            if isinstance(value, base):
                items: Any = value
                items = sorted(items, key=repr) if tag in ("$set", "$frozenset") else items
                packed = [self.pack(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(items)]
                return packed if tag == "$list" else {tag: packed}
        if isinstance(value, (bytes, bytearray)):
            return {"$bytes": base64.b64encode(value).decode()}
        if isinstance(value, complex):
            return {"$complex": [self.pack(v, path, depth) for v in (value.real, value.imag)]}
        if kind is slice:
            parts = (value.start, value.stop, value.step)
            return {"$slice": [self.pack(part, path, depth + 1) for part in parts]}
        if value is Ellipsis:
            return {"$ellipsis": True}
        if isinstance(value, str):
            return str(value)
        names = _names(value)
        if names is not None:
            return {
                "$fields": {
                    n: self.pack(getattr(value, n), f"{path}.{n}", depth + 1) for n in names
                }
            }
        raise HistoryError(
            f"{path} is {show(value, 80)}, of type {type(value).__qualname__}, which cannot be "
            "written and read back; texts, numbers, choices, lists, tuples, dicts, sets, bytes, "
            "dataclasses, pydantic models, arrays and tensors can"
        )

    def mapping(self, value: Mapping[Any, Any], path: str, depth: int) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {k: self.pack(v, f"{path}[{k!r}]", depth + 1) for k, v in value.items()}
        return {
            "$items": [
                [self.pack(k, f"{path}.keys", depth + 1), self.pack(v, f"{path}[{k!r}]", depth + 1)]
                for k, v in value.items()
            ]
        }

    def tensor(self, value: Any, path: str) -> dict[str, Any]:
        name = self.names.get(id(value))
        if name is None:
            name = f"{len(self.tensors)}:{path}"[:200]
            self.names[id(value)] = name
            self.alive.append(value)
            self.tensors[name] = _copied(value, path)
        about: dict[str, Any] = {"$tensor": name}
        if is_tensor(value) and value.requires_grad:
            about["grad"] = True
        elif is_array(value) and not value.dtype.isnative:
            about["dtype"] = value.dtype.str
        return about


_SEQUENCES: dict[type, str] = {list: "$list", tuple: "$tuple", frozenset: "$frozenset", set: "$set"}


def _copied(value: Any, path: str) -> Any:
    if is_tensor(value):
        if value.layout is not sys.modules["torch"].strided or value.is_meta:
            raise HistoryError(f"{path} is a {value.layout} tensor; only dense ones can be kept")
        return value.detach().clone().contiguous()
    if value.dtype.hasobject or value.dtype.names or value.dtype.kind not in "biufc":
        raise HistoryError(f"{path} is an array of {value.dtype}; only numbers can be kept")
    return value.astype(value.dtype.newbyteorder("="), order="C", copy=True)


def _names(value: Any) -> list[str] | None:
    if isinstance(value, type):
        return None
    if hasattr(type(value), "model_fields"):
        return list(type(value).model_fields)
    return [field.name for field in fields(value) if field.init] if is_dataclass(value) else None


def unpack(data: Any, tensors: Mapping[str, Any], like: Any = None) -> Any:
    """The value that `pack` wrote; `like` gives the types of dataclasses and enumerations.

    Raises:
        HistoryError: `pack` writes no such data, or `like` is missing where a type is needed.

    >>> unpack({'$tuple': [1, {'a': {'$float': 'inf'}}]}, {})
    (1, {'a': inf})
    """
    if isinstance(data, list):
        return [unpack(item, tensors, _example(like, i)) for i, item in enumerate(data)]
    if not isinstance(data, dict):
        return data
    tag = next((key for key in data if key.startswith("$")), None)
    if tag is None:
        return {key: unpack(item, tensors, _field(like, key)) for key, item in data.items()}
    try:
        return _READERS[tag](data[tag], tensors, like, data)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        if isinstance(error, HistoryError):
            raise
        raise HistoryError(
            f"{show(data, 80)} cannot be read back"
            + (f" as a value like {show(like, 80)}" if like is not None else "")
            + f": {type(error).__name__} {error}"
        ) from error


def _tuple(content: Any, tensors: Any, like: Any, _: Any) -> Any:
    items = [unpack(item, tensors, _example(like, i)) for i, item in enumerate(content)]
    return type(like)(*items) if hasattr(like, "_fields") else tuple(items)


def _tensor(content: Any, tensors: Any, like: Any, data: Any) -> Any:
    found = tensors[content]
    if "dtype" in data:
        return found.astype(data["dtype"])
    return found.requires_grad_() if data.get("grad") else found


def _object(content: Any, tensors: Any, like: Any, _: Any) -> Any:
    if like is None:
        raise HistoryError("a dataclass or model was kept here, and its type is not known")
    values = {n: unpack(item, tensors, getattr(like, n)) for n, item in content.items()}
    if hasattr(type(like), "model_fields"):
        return type(like).model_validate(values)
    return replace(like, **values)


_READERS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "$int": lambda content, tensors, like, data: int(content, 16),
    "$float": lambda content, tensors, like, data: float(content),
    "$complex": lambda content, tensors, like, data: complex(
        *(unpack(part, tensors) for part in content)
    ),
    "$bytes": lambda content, tensors, like, data: base64.b64decode(content, validate=True),
    "$slice": lambda content, tensors, like, data: slice(
        *(unpack(part, tensors) for part in content)
    ),
    "$ellipsis": lambda content, tensors, like, data: Ellipsis,
    "$tuple": _tuple,
    "$set": lambda content, tensors, like, data: {unpack(item, tensors) for item in content},
    "$frozenset": lambda content, tensors, like, data: frozenset(
        unpack(item, tensors) for item in content
    ),
    "$items": lambda content, tensors, like, data: {
        unpack(key, tensors): unpack(item, tensors) for key, item in content
    },
    "$tensor": _tensor,
    "$scalar": lambda content, tensors, like, data: tensors[content][()],
    "$member": lambda content, tensors, like, data: type(like)[content],
    "$fields": _object,
}


def _example(like: Any, index: int) -> Any:
    if not isinstance(like, (list, tuple)) or not like:
        return None
    return like[min(index, len(like) - 1)]


def _field(like: Any, key: str) -> Any:
    return like.get(key) if isinstance(like, Mapping) else None
